"""Random choices as functions of an entry alone: the same in any block, on any worker, stored nowhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rfmdist.observations.blocks import Role, RowBlock

STRETCH = 1 << 16
"""Entries that share one generator."""
ROW, COLUMN, SEED = 0x9E3779B97F4A7C15, 0xD1342543DE82EF95, 0xDA942042E4DD58B5
"""Odd multipliers that send different entries of a matrix to different states."""
FACTORS = np.array([ROW, COLUMN], np.uint64)
WORD = 1 << 64


def uniforms(seed: int, low: int, high: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) for the entries at positions ``low`` to ``high``, whatever the range read."""
    first, last = low // STRETCH, -(-high // STRETCH)
    pieces = [np.random.default_rng([seed, k]).random(STRETCH) for k in range(first, last)]
    drawn = np.concatenate([*pieces, np.empty(0)])
    return drawn[low - first * STRETCH : high - first * STRETCH]


def entry_hash(seed: int, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Uniform 64-bit words for the entries at the codes ``rows`` and ``columns``, in whatever order they come.

    SplitMix64's finaliser over a state made from row, column and seed.
    """
    from rfmdist.observations import loops

    words = np.empty(len(rows), np.uint64)
    loops.hash_entries(rows, columns, FACTORS, _start(seed), words)
    return words


def _start(seed: int) -> np.uint64:
    """The seed's part of the state."""
    from rfmdist.observations import loops

    return np.uint64(loops.mixed(np.uint64(seed * SEED % WORD)))


@dataclass(frozen=True)
class HoldOut:
    """A random ``fraction`` of the training entries, to be used for validation."""

    fraction: float
    seed: int

    def apply(self, roles: NDArray[np.uint8], block: RowBlock, *, by_column: bool = False) -> NDArray[np.uint8]:
        """Roles of the entries of a block, whose rows may be columns, the held-out ones turned to validation."""
        from rfmdist.observations import loops

        limit, found = np.uint64(min(int(self.fraction * WORD), WORD - 1)), roles.copy()
        factors = FACTORS[::-1].copy() if by_column else FACTORS
        data = block.start, block.indptr, block.indices, factors, _start(self.seed), limit
        loops.hold_out(*data, found, int(Role.VALIDATION))
        return found
