"""Random choices as functions of an entry alone: the same in any block, on any worker, stored nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

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


class Draw(Protocol):
    """What changes the roles of entries that are drawn at random, without a word in the store."""

    def apply(self, roles: NDArray[np.uint8], block: RowBlock, *, by_column: bool = False) -> NDArray[np.uint8]:
        """Return the roles of a block's entries, given those before the draw; the block's rows may be columns."""
        ...


@dataclass(frozen=True)
class HoldOut:
    """A random ``fraction`` of the training entries, to be used for validation."""

    fraction: float
    seed: int

    def apply(self, roles: NDArray[np.uint8], block: RowBlock, *, by_column: bool = False) -> NDArray[np.uint8]:
        """Roles of the entries of a block, whose rows may be columns, the held-out ones turned to validation."""
        drawn = _drawn(block, self.seed, 0.0, self.fraction, by_column)
        return np.where(drawn & (roles == Role.TRAIN), np.uint8(Role.VALIDATION), roles)


@dataclass(frozen=True)
class Fold:
    """One of ``count`` random folds of the entries that are not for test.

    Its entries are turned to test entries, so that a fit leaves them alone. ``scored`` is for the other half of the
    fold: its entries alone are for test, and the stored test entries, which no choice of settings may see, are not.

    Attributes
    ----------
    number, count : int
        Which fold, from 0, of how many.
    seed : int
        Of the draw.
    scored : bool
        Whether these are the entries to score a fit on, not those to fit.
    """

    number: int
    count: int
    seed: int
    scored: bool = False

    @classmethod
    def of_index(cls, index: Any) -> Self | None:
        """Return the fold that an index of `Observations` stands for; None where it stands for none."""
        if isinstance(index, np.ndarray) and index.shape == (1, 4) and index.dtype.kind == "i":
            number, count, seed, scored = index[0].tolist()
            return cls(number, count, seed, bool(scored))
        return None

    @property
    def index(self) -> NDArray[np.int64]:
        """What `Observations` are indexed with, int64 ndarray of shape (1, 4).

        scikit-learn makes an array of every index. One of two axes cannot be taken for the numbers of rows.
        """
        return np.array([[self.number, self.count, self.seed, self.scored]], np.int64)

    def apply(self, roles: NDArray[np.uint8], block: RowBlock, *, by_column: bool = False) -> NDArray[np.uint8]:
        """Roles of the entries of a block, whose rows may be columns, those of the fold turned to test."""
        drawn = _drawn(block, _fold_seed(self.seed), *self._share, by_column)
        stored_test = roles == Role.TEST
        found = np.where(drawn & ~stored_test, np.uint8(Role.TEST), roles)
        if self.scored:
            found[stored_test] = Role.VALIDATION
        return found

    def holds(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of the entries at the codes ``rows`` and ``columns`` are in the fold."""
        low, high = _words(*self._share)
        words = entry_hash(_fold_seed(self.seed), rows, columns)
        found: NDArray[np.bool_] = (low <= words) & (words < high)
        return found

    @property
    def _share(self) -> tuple[float, float]:
        return self.number / self.count, (self.number + 1) / self.count


def _fold_seed(seed: int) -> int:
    """A seed of its own for folds: equal draws would put all entries that a fit holds out into one fold."""
    return (3 << 32) + seed


def _words(low: float, high: float) -> tuple[np.uint64, np.uint64]:
    """Words from one share of all words to another; the very last word is in none."""
    return np.uint64(int(low * WORD)), np.uint64(min(int(high * WORD), WORD - 1))


def _drawn(block: RowBlock, seed: int, low: float, high: float, by_column: bool) -> NDArray[np.bool_]:
    """Which entries of a block, whose rows may be columns, have a word between these shares of all words."""
    from rfmdist.observations import loops

    factors = FACTORS[::-1].copy() if by_column else FACTORS
    drawn = np.empty(len(block.indices), np.bool_)
    loops.draw_entries(block.start, block.indptr, block.indices, factors, _start(seed), *_words(low, high), drawn)
    return drawn
