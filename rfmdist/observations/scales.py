"""Scales of rows: how widely each row's values spread, so that wide and narrow raters weigh alike (RATINGS (3))."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rfmdist.observations.blocks import Offsets, RowBlock

DAMPING = 20.0
"""Entries' worth of pull of a row's variance towards that of all (RATINGS: tuned once)."""


@dataclass(frozen=True, eq=False)
class Scales:
    """Each row's scale, (its damped variance over that of all) ^ (``power`` / 2).

    Attributes
    ----------
    rows : float64 ndarray of shape (m,)
        Scale of each row.
    offsets : Offsets
        What the spreads are measured from.
    variance : float
        Mean square of all values less those offsets.
    power : float
        1/2 halves the difference on a logarithmic scale; 0 would leave all scales 1.
    across : bool
        Whether blocks are read by column, so that these are the scales of their columns.
    """

    rows: NDArray[np.float64]
    offsets: Offsets
    variance: float
    power: float
    across: bool = False

    def of(self, block: RowBlock) -> NDArray[np.float64]:
        """Scale of each entry of a block."""
        if self.across:
            return self.rows.take(block.indices)
        return np.repeat(self.rows[block.start : block.stop], np.diff(block.indptr))

    def transposed(self) -> Scales:
        """Return the scales for blocks of the transposed matrix."""
        return replace(self, across=not self.across)

    def within(self, rows: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scales of the rows of a block, and of all columns; one of them is empty."""
        nothing = np.empty(0)
        return (nothing, self.rows) if self.across else (self.rows[rows], nothing)

    def for_rows(self, blocks: Iterable[RowBlock], offsets: Offsets) -> Scales:
        """Return the scales of other rows, with ``offsets`` of theirs, measured as these were."""
        rows = _damped(*_sums(blocks, offsets), self.variance, self.power)
        return replace(self, rows=rows, offsets=offsets)


def fit_scales(blocks: Iterable[RowBlock], offsets: Offsets, power: float) -> Scales | None:
    """Measure the scale of each row. None where nothing is left of the values."""
    squares, counts = _sums(blocks, offsets)
    total = float(squares.sum())
    if not total > 0:
        return None
    variance = total / float(counts.sum())
    return Scales(_damped(squares, counts, variance, power), offsets, variance, power)


def _sums(blocks: Iterable[RowBlock], offsets: Offsets) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of squares of each row's values less the offsets, and their number."""
    squares, counts = np.zeros(len(offsets.rows)), np.zeros(len(offsets.rows))
    for block in blocks:
        left, height = block.values - offsets.of(block), block.stop - block.start
        counts[block.start : block.stop] = np.diff(block.indptr)
        squares[block.start : block.stop] = np.bincount(block.rows - block.start, left**2, height)
    return squares, counts


def _damped(
    squares: NDArray[np.float64], counts: NDArray[np.float64], variance: float, power: float
) -> NDArray[np.float64]:
    """Scales of rows; one without entries has 1."""
    return np.asarray(((squares + DAMPING * variance) / ((counts + DAMPING) * variance)) ** (power / 2))
