"""Blocks that will be asked for again, kept in memory within a bound, or in files beyond it.

Knows their size, not what is done with them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import StoreError
from rfmdist.observations.ahead import ahead
from rfmdist.observations.blocks import Role, RowBlock
from rfmdist.observations.scratch import FiledValue, Scratch
from rfmdist.observations.store import Observations

HELD_BYTES = 1 << 26
"""Bytes of entries that are held for several passes, rather than read again at each."""
PASS_ENTRIES, PASS_ROWS = 1 << 21, 1 << 17
"""Entries and rows of a block that is only gone through: of the chunks it is read from few are decoded twice."""
ALIGNMENT, SPARE = 8, 1 << 20
"""Where arrays may begin, and room for what that leaves empty."""
LEAST_FREE = 1 << 31
"""Bytes of a disk that are left to others."""
Pair = tuple[RowBlock, RowBlock | None]


class KeptBlocks:
    """Pairs of blocks by their range of rows; several threads may ask and offer at once.

    They are copied into one slab: kept where they were made, they would hold apart the memory that comes free
    between them, half as much again. A pickled one arrives empty: a worker reads for itself what it needs.
    """

    def __init__(self) -> None:
        self._pairs: dict[tuple[int, int], Pair] = {}
        self._slab: NDArray[np.uint8] | None = None
        self._end = self.size = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[KeptBlocks], tuple[()]]:
        return KeptBlocks, ()

    def clear(self) -> None:
        """Let all blocks go."""
        with self._lock:
            self._pairs, self._slab = {}, None
            self._end = self.size = 0

    def get(self, start: int, stop: int) -> Pair | None:
        """Return the pair of rows ``start`` to ``stop``, if it is kept."""
        return self._pairs.get((start, stop))

    def offer(self, start: int, stop: int, pair: Pair, limit: int) -> Pair:
        """Keep a pair if all then take at most ``limit`` bytes; return what is kept, or else the pair itself."""
        size = sum(block.nbytes for block in pair if block is not None)
        with self._lock:
            kept = self._pairs.get((start, stop))
            if kept is None and self.size + size <= limit:
                if self._slab is None:
                    self._slab = np.empty(limit + SPARE, np.uint8)  # pages that are not written take no memory
                block, scored = pair
                kept = self._copied(block), None if scored is None else self._copied(scored)
                self._pairs[start, stop] = kept
        return kept or pair

    def _copied(self, block: RowBlock) -> RowBlock:
        return RowBlock(block.start, block.stop, *map(self._placed, (block.indptr, block.indices, block.values)))

    def _placed(self, array: NDArray[Any]) -> NDArray[Any]:
        assert self._slab is not None
        start = -(-self._end // ALIGNMENT) * ALIGNMENT
        self._end = start + array.nbytes
        self.size += array.nbytes
        place = self._slab[start : self._end].view(array.dtype)
        place[:] = array
        return place


class FiledBlocks:
    """Pairs of blocks by their range of rows, in files of a scratch folder on a disk.

    They lie there as they are fitted: reading them takes a tenth of the time of decoding and standardising the entries
    once more, and twice the bytes. Where the folder is no disk's, or the disk is nearly full, nothing is filed. A
    pickled one arrives empty, and files what it is offered under the same name.
    """

    def __init__(self, scratch: Scratch | None, name: str) -> None:
        self._scratch, self._name = scratch, name
        self._files: dict[tuple[int, int], FiledValue] = {}

    def __reduce__(self) -> tuple[type[FiledBlocks], tuple[Scratch | None, str]]:
        return FiledBlocks, (self._scratch, self._name)

    def get(self, start: int, stop: int) -> Pair | None:
        """Read the pair of rows ``start`` to ``stop``, if it is filed."""
        file = self._files.get((start, stop))
        return None if file is None else file.load()

    def offer(self, start: int, stop: int, pair: Pair) -> None:
        """File a pair, if there is room."""
        if self._scratch is None or (self._scratch.free or 0) < LEAST_FREE:
            return
        try:
            self._files[start, stop] = FiledValue.write(self._scratch, pair, self._name)
        except StoreError:  # it was to save time: the entries are in the store
            self._scratch = None

    def clear(self) -> None:
        """Remove the files, those of pickled ones too."""
        self._files = {}
        if self._scratch is not None:
            self._scratch.remove(f"{self._name}-")


def pieces(observations: Observations, group: tuple[int, int]) -> list[tuple[int, int]]:
    """Cut a range of rows into blocks that are only gone through."""
    return observations.ranges(group, PASS_ENTRIES, PASS_ROWS)


@dataclass(frozen=True, eq=False)
class Entries:
    """The entries of ``roles``, by blocks of rows that are gone through several times: held where they take little."""

    observations: Observations
    roles: frozenset[Role]
    _kept: KeptBlocks = field(default_factory=KeptBlocks, init=False, repr=False)

    def blocks(self, group: tuple[int, int]) -> Iterator[RowBlock]:
        """Read the blocks of a range of rows, the next while one is worked on."""
        return ahead(lambda range_: self.read(*range_), pieces(self.observations, group))

    def read(self, start: int, stop: int) -> RowBlock:
        """Read rows ``start`` to ``stop``."""
        found = self._kept.get(start, stop)
        if found is None:
            block = self._read(start, stop)
            needed = self.observations.nnz * (block.indices.itemsize + block.values.itemsize)
            bound = needed + 16 * self.observations.shape[0] if needed <= HELD_BYTES else 0
            found = self._kept.offer(start, stop, (block, None), bound)
        return found[0]

    def _read(self, start: int, stop: int) -> RowBlock:
        block = self.observations.row_block(start, stop)
        return block.of(self.observations.roles(block), self.roles)
