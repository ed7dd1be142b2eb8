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


def two_dimensional(matrix: Any) -> sp.coo_array:
    """Return a scipy sparse matrix of real numbers as COO; refuse all else.

    Raises
    ------
    InputError
        If it is dense, not two-dimensional, or of complex numbers or objects.
    """
    if not sp.issparse(matrix) or matrix.ndim != 2:
        kind = type(matrix).__name__ + (f" of {matrix.ndim} dimensions" if sp.issparse(matrix) else "")
        raise InputError(
            f"observations must be a two-dimensional scipy sparse matrix or array, not {kind}: zeros of a dense array"
            " are not told from unobserved entries"
        )
    value_dtype(matrix.dtype)
    return sp.coo_array(matrix)


def append_entries(
    writer: StoreWriter, ids: tuple[pd.Index[Any], pd.Index[Any]], rows: Any, columns: Any, values: Any
) -> None:
    """Append entries; a duplicate is told by its ids."""
    value_dtype(values.dtype)
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
    """Dtype that values are stored in: float32 stays, other real numbers become float64; the rest is refused."""
    if np.dtype(dtype).kind not in "biuf":
        raise InputError(f"observed values must be real numbers, not {np.dtype(dtype).name}")
    return np.dtype(np.float32 if np.dtype(dtype) == np.float32 else np.float64)
