"""Between row blocks and other packages' sparse matrices. Knows forms; not where a store lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import sparse
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.blocks import RowBlock
from rfmdist.observations.writer import DuplicateEntryError, StoreWriter


def append_entries(
    writer: StoreWriter, ids: tuple[pd.Index[Any], pd.Index[Any]], rows: Any, columns: Any, values: Any
) -> None:
    """Append entries; a duplicate is told by its ids."""
    try:
        writer.append(rows, columns, values)
    except DuplicateEntryError as twice:
        raise InputError(
            f"row {ids[0][twice.row]}, column {ids[1][twice.column]} is given twice; keep one of the entries"
        ) from None


def joined(parts: list[Any], widths: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Entries of blocks that lie side by side, in the order of rows, then columns."""
    lefts = np.concatenate([[0], np.cumsum(widths)])[:-1]
    rows = np.concatenate([p.row for p in parts]).astype(np.int64)
    columns = np.concatenate([p.col + int(left) for p, left in zip(parts, lefts, strict=True)]).astype(np.int64)
    order = np.lexsort((columns, rows))
    return rows[order], columns[order], np.concatenate([p.data for p in parts])[order]


def as_coo(block: Any) -> sp.coo_array:
    """Return a block of a dask array as scipy's COO."""
    if isinstance(block, sparse.SparseArray):
        coo = block.asformat("coo")
        return sp.coo_array((coo.data, (coo.coords[0], coo.coords[1])), shape=coo.shape)
    if not sp.issparse(block):
        raise InputError("from_dask needs blocks of the sparse package or of scipy.sparse, not dense arrays")
    return sp.coo_array(block)


def as_csr(block: RowBlock, n: int) -> sp.csr_array:
    """Return a block of an m × n matrix as scipy's CSR."""
    return sp.csr_array((block.values, block.indices, block.indptr), shape=(block.stop - block.start, n))


def as_sparse(block: RowBlock, n: int) -> sparse.COO:
    """Return a block of an m × n matrix in the sparse package's form."""
    coordinates = np.stack([block.rows - block.start, block.indices])
    return sparse.COO(coordinates, block.values, shape=(block.stop - block.start, n), sorted=True)


def value_dtype(dtype: Any) -> np.dtype[Any]:
    """Dtype that values are stored in: float32 stays, anything else becomes float64."""
    return np.dtype(np.float32 if np.dtype(dtype) == np.float32 else np.float64)
