"""The column-ordered copy of the entries, made out of core. Knows how entries are moved, not what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import zarr
from numpy.typing import NDArray

from rfmdist.machine import hand_back_memory
from rfmdist.observations.files import in_place
from rfmdist.observations.layout import FILL, SHARD, create_array, index_dtype, matrix_attributes

if TYPE_CHECKING:
    from rfmdist.observations.store import Observations

BUFFER_BYTES, PASSES = 1 << 25, 8
"""Bytes of the entries that one pass over the store puts in order: more only where that would take over 8 passes."""
READ_ENTRIES = 1 << 19
"""Entries read at a time."""

Parts = dict[str, NDArray[Any]]


def write_by_column(source: Observations, matrix: zarr.Group, name: str) -> None:
    """Write the entries of ``source`` by column as the group ``name`` of ``matrix``; it appears when it is whole.

    Raises
    ------
    StoreError
        If the store is damaged or cannot be written.
    """
    (m, n), size = source.shape, source.nnz
    dtypes = {"indices": index_dtype(m), "data": source.dtype}
    if source.has_split:
        dtypes["split"] = np.dtype(np.uint8)
    itemsize = sum(dtype.itemsize for dtype in dtypes.values())
    step = -(-max(BUFFER_BYTES // itemsize, size // PASSES) // SHARD) * SHARD
    with in_place(matrix, name, source.name) as temporary:
        group = matrix.create_group(temporary, attributes=matrix_attributes((n, m)))
        arrays = {part: create_array(group, part, size, dtype, FILL[part]) for part, dtype in dtypes.items()}
        indptr = _pointers(source)
        create_array(group, "indptr", n + 1, np.dtype(np.int64), FILL["indptr"])[:] = indptr
        for first in range(0, size, step):
            last = min(first + step, size)
            ordered = {part: np.empty(last - first, dtype) for part, dtype in dtypes.items()}
            _fill(ordered, source, indptr, first, last)
            for low in range(first, last, SHARD):
                high = min(low + SHARD, last)
                for part, array in arrays.items():
                    array[low:high] = ordered[part][low - first : high - first]
            ordered.clear()
    hand_back_memory()


def _pointers(source: Observations) -> NDArray[np.int64]:
    """Where each column's entries begin, int64 ndarray of shape (n + 1,)."""
    indptr = np.zeros(source.shape[1] + 1, np.int64)
    for low in range(0, source.nnz, SHARD):
        indices = source.entries("indices", low, min(low + SHARD, source.nnz))
        indptr[1:] += np.bincount(indices, minlength=source.shape[1])
    return np.cumsum(indptr)


def _fill(ordered: Parts, source: Observations, indptr: NDArray[np.int64], first: int, last: int) -> None:
    """Fill ``ordered`` with the entries that come to the positions ``first`` to ``last`` in column order."""
    left = int(np.searchsorted(indptr, first, side="right")) - 1
    right = int(np.searchsorted(indptr, last))
    free = indptr[left:right].copy()  # where the next entry of each column goes
    for start, stop in source.ranges(entries=READ_ENTRIES, rows=max(1, source.shape[0])):
        taken, sizes = _turned(source, start, stop, left, right)
        ends = np.cumsum(sizes)
        places = np.arange(ends[-1]) + np.repeat(free - (ends - sizes), sizes)
        # Only the outermost columns reach beyond the range: with their first entries, or with their last.
        cut = slice(
            int(np.clip(first - free[0], 0, sizes[0])),
            int(ends[-1] - np.clip(free[-1] + sizes[-1] - last, 0, sizes[-1])),
        )
        places = places[cut] - first
        for part, values in taken.items():
            ordered[part][places] = values[cut]
        free += sizes


def _turned(source: Observations, start: int, stop: int, left: int, right: int) -> tuple[Parts, NDArray[np.integer]]:
    """Entries of rows ``start`` to ``stop`` in columns ``left`` to ``right``, by column; their number in each."""
    block = source.row_block(start, stop)
    low, high = source.indptr[start], source.indptr[stop]
    split = source.entries("split", int(low), int(high)) if source.has_split else None
    if (left, right) != (0, source.shape[1]):
        inside = (block.indices >= left) & (block.indices < right)
        block, split = block.where(inside), None if split is None else split[inside]
    numbers = np.arange(len(block.indices), dtype=block.indices.dtype)
    pointers = block.indptr.astype(block.indices.dtype)
    # Scipy's conversion is a counting sort: within a column, rows ascend.
    by_row = sp.csr_array((numbers, block.indices - left, pointers), shape=(stop - start, right - left))
    by_column = by_row.tocsc()
    taken = {"indices": by_column.indices + start, "data": block.values[by_column.data]}
    if split is not None:
        taken["split"] = split[by_column.data]
    return taken, np.diff(by_column.indptr)
