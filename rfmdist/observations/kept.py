"""Blocks that will be asked for again, kept in memory within a bound. Knows their size, not what is done with them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rfmdist.observations.blocks import Role, RowBlock
from rfmdist.observations.layout import index_dtype
from rfmdist.observations.store import Observations

HELD_BYTES = 1 << 28
"""Bytes of entries that are held for several passes, rather than read again at each."""
Pair = tuple[RowBlock, RowBlock | None]


class KeptBlocks:
    """Pairs of blocks by their range of rows; several threads may ask and offer at once.

    A pickled one arrives empty: a worker reads for itself what it needs.
    """

    def __init__(self) -> None:
        self._pairs: dict[tuple[int, int], Pair] = {}
        self._size = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[KeptBlocks], tuple[()]]:
        return KeptBlocks, ()

    def get(self, start: int, stop: int) -> Pair | None:
        """Return the pair of rows ``start`` to ``stop``, if it is kept."""
        return self._pairs.get((start, stop))

    def offer(self, start: int, stop: int, pair: Pair, limit: int) -> Pair:
        """Keep a pair if all then take at most ``limit`` bytes; return what is kept, or else the pair itself."""
        size = sum(block.nbytes for block in pair if block is not None)
        with self._lock:
            kept = self._pairs.get((start, stop))
            if kept is None and self._size + size <= limit:
                self._pairs[start, stop] = pair
                self._size += size
        return kept or pair


@dataclass(frozen=True)
class Passes:
    """The row blocks of ``roles``, to be gone through several times, read again at each."""

    observations: Observations
    roles: frozenset[Role]

    def __iter__(self) -> Iterator[RowBlock]:
        return self.observations.row_blocks(self.roles)


def passes(observations: Observations, roles: frozenset[Role]) -> Iterable[RowBlock]:
    """Return the row blocks of ``roles`` for several passes: held in memory where they take little."""
    itemsize = index_dtype(observations.shape[1]).itemsize + observations.dtype.itemsize
    blocks = Passes(observations, roles)
    return list(blocks) if observations.nnz * itemsize <= HELD_BYTES else blocks
