"""The column-ordered copy of the entries, made out of core. Knows how entries are moved, not what they mean.

The place of an entry in column order is known as soon as its column's entries before it are: rows come in order. So the
entries are dealt, in one pass, to stretches of places that memory holds; each stretch lies in a file until it is
put in order and written. The work grows with the entries alone, whatever the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from rfmdist.machine import hand_back_memory
from rfmdist.observations.additions import MARK
from rfmdist.observations.ahead import ahead
from rfmdist.observations.files import in_place, spill_folder
from rfmdist.observations.layout import FILL, SHARD, create_array, index_dtype, matrix_attributes, stored_index_dtype
from rfmdist.observations.spill import Parts, Spill

if TYPE_CHECKING:
    from rfmdist.observations.store import Observations

MEMORY = 1 << 29
"""Bytes that making the copy may take, about; stretches are no shorter than a shard."""
HELD_SHARE = 3
"""Stretches' worth of bytes: one is written while the next is filled, and what reading and compressing take."""
READ_ENTRIES = 1 << 20
"""Entries read at a time."""


@dataclass(frozen=True)
class _Copy:
    """What is moved, and in which stretches of places."""

    source: Observations
    dtypes: dict[str, np.dtype[Any]]
    indptr: NDArray[np.int64]
    step: int

    def stretches(self) -> list[tuple[int, int]]:
        """Range of places of each stretch."""
        size = self.source.nnz
        return [(low, min(low + self.step, size)) for low in range(0, size, self.step)]

    def empty(self, low: int, high: int) -> Parts:
        return {part: np.empty(high - low, dtype) for part, dtype in self.dtypes.items()}


def write_by_column(
    source: Observations, matrix: zarr.Group, name: str, memory: int = MEMORY, place: str | None = None
) -> None:
    """Write the entries of ``source`` by column as the group ``name`` of ``matrix``; it appears when it is whole.

    ``place`` names in messages where that lies, if not in the source.

    Raises
    ------
    StoreError
        If the store is damaged or cannot be written.
    """
    (m, n), size = source.shape, source.nnz
    dtypes = {"indices": index_dtype(m), "data": source.dtype}
    if source.has_split:
        dtypes["split"] = np.dtype(np.uint8)
    with in_place(matrix, name, place or source.name) as temporary:
        attributes = matrix_attributes((n, m)) | {MARK: source.split_mark}  # of what is read from here on
        group = matrix.create_group(temporary, attributes=attributes)
        index = stored_index_dtype(m, size)
        stored = dtypes | {"indices": index}
        arrays = {part: create_array(group, part, size, dtype, FILL[part]) for part, dtype in stored.items()}
        indptr = _pointers(source)
        create_array(group, "indptr", n + 1, index, FILL["indptr"])[:] = indptr
        copy = _Copy(source, dtypes, indptr, _step(source, dtypes, memory))
        for low, ordered in _ordered(copy, group):
            _write(arrays, low, ordered)
            del ordered  # before the next but one is filled
    hand_back_memory()


def _step(source: Observations, dtypes: dict[str, np.dtype[Any]], memory: int) -> int:
    """Entries of a stretch; all of them where they are in memory anyway."""
    step, whole = stretch(source.nnz, sum(dtype.itemsize for dtype in dtypes.values()), memory)
    return max(1, source.nnz) if whole or source.in_memory else step


def stretch(nnz: int, itemsize: int, memory: int) -> tuple[int, bool]:
    """Entries of a stretch, which ``memory`` holds, and whether they are all entries; otherwise whole shards."""
    fit = memory // HELD_SHARE // itemsize
    return (max(1, nnz), True) if nnz <= fit else (max(1, fit // SHARD) * SHARD, False)


def _pointers(source: Observations) -> NDArray[np.int64]:
    """Where each column's entries begin, int64 ndarray of shape (n + 1,)."""
    from rfmdist.observations import loops

    indptr = np.zeros(source.shape[1] + 1, np.int64)
    ranges = ((low, min(low + READ_ENTRIES, source.nnz)) for low in range(0, source.nnz, READ_ENTRIES))
    for indices in ahead(lambda range_: source.entries("indices", *range_), ranges):
        loops.count_columns(indices, indptr[1:])
    return np.cumsum(indptr)


def _ordered(copy: _Copy, group: zarr.Group) -> Iterator[tuple[int, Parts]]:
    """Yield stretches in column order, with the place where each begins."""
    stretches = copy.stretches()
    if len(stretches) <= 1:
        for low, high in stretches:
            yield low, _filled(copy.empty(low, high), _placed(copy))
        return
    with Spill(spill_folder(group), len(stretches)) as spill:
        for places, parts in _placed(copy):
            spill.deal(places, parts, copy.step)

        def fill(number: int) -> tuple[int, Parts]:
            low, high = stretches[number]
            return low, _filled(copy.empty(low, high), spill.take(number))

        yield from ahead(fill, range(len(stretches)))


def _filled(ordered: Parts, pieces: Iterator[tuple[NDArray[Any], Parts]]) -> Parts:
    """Put the parts of pieces, of given places, into ``ordered``."""
    from rfmdist.observations import loops

    for places, parts in pieces:
        for part, values in parts.items():
            loops.scatter(values, places, ordered[part])
    return ordered


def _placed(copy: _Copy) -> Iterator[tuple[NDArray[np.int64], Parts]]:
    """Yield all entries in the order of the rows, and their places in that of the columns."""
    from rfmdist.observations import loops

    source, free = copy.source, copy.indptr[:-1].copy()

    def read(range_: tuple[int, int]) -> Parts:
        start, stop = range_
        block = source.row_block(start, stop)
        rows = np.repeat(np.arange(start, stop, dtype=copy.dtypes["indices"]), np.diff(block.indptr))
        parts = {"columns": block.indices, "indices": rows, "data": block.values}
        if "split" in copy.dtypes:
            parts["split"] = source.entries("split", int(source.indptr[start]), int(source.indptr[stop]))
        return parts

    for parts in ahead(read, source.ranges(entries=READ_ENTRIES, rows=max(1, source.shape[0]))):
        columns = parts.pop("columns")
        places = np.empty(len(columns), np.int64)
        loops.place(columns, free, places)
        yield places, parts


def _write(arrays: dict[str, zarr.Array[Any]], first: int, ordered: Parts) -> None:
    """Write a stretch, a shard at a time: one written in parts takes many times as long."""
    size = len(ordered["data"])
    for low in range(0, size, SHARD):
        high = min(low + SHARD, size)
        for part, array in arrays.items():
            array[first + low : first + high] = ordered[part][low:high]
