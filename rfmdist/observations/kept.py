"""Blocks that were read and will be asked for again, within a bound. Knows their size, not where they come from."""

from __future__ import annotations

import threading

from rfmdist.observations.blocks import RowBlock

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
