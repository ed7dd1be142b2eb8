"""Between row blocks and other packages' sparse matrices. Knows forms; not where a store lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import zarr
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.blocks import RowBlock
from rfmdist.observations.layout import SHARD, index_dtype
from rfmdist.observations.stored import stored_entries
from rfmdist.observations.writer import DuplicateEntryError, StoreWriter

if TYPE_CHECKING:  # imported where they are used
    import dask.array as da
    import pandas as pd
    import sparse


def write_scipy(matrix: Any, path: str | Path | None, row_ids: Any, column_ids: Any, *, overwrite: bool) -> zarr.Group:
    """Write a scipy sparse matrix as a store and return its root."""
    from rfmdist.observations.ids import check_ids

    coo = _two_dimensional(matrix)
    rows, columns, values = coo.row, coo.col, coo.data
    if not _in_order(rows, columns):
        order = np.lexsort((columns, rows))
        rows, columns, values = rows[order], columns[order], values[order]
    ids = check_ids(row_ids, coo.shape[0], "row_ids"), check_ids(column_ids, coo.shape[1], "column_ids")
    dtype = _value_dtype(values.dtype)
    with StoreWriter(path, coo.shape, dtype, entries=len(values), overwrite=overwrite) as writer:
        for start in range(0, max(len(rows), 1), SHARD):
            part = slice(start, start + SHARD)
            _append(writer, ids, rows[part], columns[part], values[part])
        return writer.finish(*ids)


def _in_order(rows: NDArray[np.integer], columns: NDArray[np.integer]) -> bool:
    """Whether entries are sorted by row, then column: those of most CSR matrices are, and sorting takes long."""
    later, same = rows[1:] > rows[:-1], rows[1:] == rows[:-1]
    return bool(np.all(later | (same & (columns[1:] >= columns[:-1]))))


def write_dask(
    array: da.Array, path: str | Path | None, row_ids: Any, column_ids: Any, *, overwrite: bool
) -> zarr.Group:
    """Write a dask array of sparse blocks as a store, a block of rows at a time, and return its root."""
    from rfmdist.observations.ids import check_ids

    if array.ndim != 2 or any(np.isnan(s) for s in array.shape):
        raise InputError("from_dask needs a two-dimensional array of known shape; compute its chunk sizes first")
    shape = (int(array.shape[0]), int(array.shape[1]))
    ids = check_ids(row_ids, shape[0], "row_ids"), check_ids(column_ids, shape[1], "column_ids")
    starts = np.concatenate([[0], np.cumsum(array.chunks[0])])
    with StoreWriter(path, shape, _value_dtype(array.dtype), overwrite=overwrite) as writer:
        for start, blocks in zip(starts[:-1], array.to_delayed(), strict=True):
            parts = [_as_coo(block.compute()) for block in blocks]
            rows, columns, values = _joined(parts, array.chunks[1])
            _append(writer, ids, rows + int(start), columns, values)
        return writer.finish(*ids)


def as_csr(block: RowBlock, n: int) -> sp.csr_array:
    """Return a block of an m × n matrix as scipy's CSR, with int32 indices where they hold it."""
    dtype = index_dtype(max(n, len(block.values) + 1))
    indices, indptr = (codes.astype(dtype, copy=False) for codes in (block.indices, block.indptr))
    return sp.csr_array((block.values, indices, indptr), shape=(block.stop - block.start, n))


def as_sparse(block: RowBlock, n: int) -> sparse.COO:
    """Return a block of an m × n matrix in the sparse package's form."""
    import sparse

    coordinates = np.stack([block.rows - block.start, block.indices])
    return sparse.COO(coordinates, block.values, shape=(block.stop - block.start, n), sorted=True)


def _two_dimensional(matrix: Any) -> sp.coo_array:
    """Return a scipy sparse matrix of real numbers as COO; refuse all else.

    Raises
    ------
    InputError
        If it is dense, not two-dimensional, not sound, filled with zeros, or of complex numbers or objects.
    """
    if not sp.issparse(matrix) or matrix.ndim != 2:
        kind = type(matrix).__name__ + (f" of {matrix.ndim} dimensions" if sp.issparse(matrix) else "")
        raise InputError(
            f"observations must be a two-dimensional scipy sparse matrix or array, not {kind}: zeros of a dense array"
            " are not told from unobserved entries"
        )
    _value_dtype(matrix.dtype)
    return stored_entries(matrix, "observations")


def _append(
    writer: StoreWriter, ids: tuple[pd.Index[Any], pd.Index[Any]], rows: Any, columns: Any, values: Any
) -> None:
    """Append entries; a duplicate is told by its ids."""
    _value_dtype(values.dtype)
    try:
        writer.append(rows, columns, values)
    except DuplicateEntryError as twice:
        raise InputError(
            f"row {ids[0][twice.row]}, column {ids[1][twice.column]} is given twice; keep one of the entries"
        ) from None


def _joined(parts: list[Any], widths: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Entries of blocks that lie side by side, in the order of rows, then columns."""
    lefts = np.concatenate([[0], np.cumsum(widths)])[:-1]
    rows = np.concatenate([p.row for p in parts]).astype(np.int64)
    columns = np.concatenate([p.col.astype(np.int64) + left for p, left in zip(parts, lefts, strict=True)])
    order = np.lexsort((columns, rows))
    return rows[order], columns[order], np.concatenate([p.data for p in parts])[order]


def _as_coo(block: Any) -> sp.coo_array:
    """Return a block of a dask array as scipy's COO."""
    import sparse

    if isinstance(block, sparse.SparseArray):
        coo = block.asformat("coo")
        return sp.coo_array((coo.data, (coo.coords[0], coo.coords[1])), shape=coo.shape)
    if not sp.issparse(block):
        raise InputError("from_dask needs blocks of the sparse package or of scipy.sparse, not dense arrays")
    return stored_entries(block, "from_dask")


def _value_dtype(dtype: Any) -> np.dtype[Any]:
    """Dtype that values are stored in: float32 stays, other real numbers become float64; the rest is refused."""
    if np.dtype(dtype).kind not in "biuf":
        raise InputError(f"observed values must be real numbers, not {np.dtype(dtype).name}")
    return np.dtype(np.float32 if np.dtype(dtype) == np.float32 else np.float64)
