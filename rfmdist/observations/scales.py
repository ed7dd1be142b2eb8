"""How widely each row's values spread, so that wide and narrow raters weigh alike (DESIGN.md, "Row scale")."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.blocks import Offsets, RowBlock
from rfmdist.observations.kept import Entries
from rfmdist.observations.passes import Group, Part, Runner, groups_of

DAMPING = 20.0
"""Entries' worth of pull of a row's variance towards that of all (DESIGN.md, "Row scale")."""
LARGEST = 1e100
"""Values beyond it, or below its inverse, are refused: their squares and sums would leave float64."""


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
        found = _measured(blocks, offsets)
        rows = _damped(found.squares, found.counts, self.variance, self.power)
        return replace(self, rows=rows, offsets=offsets)


@dataclass(frozen=True, eq=False)
class Spread:
    """What offsets leave of the values.

    Attributes
    ----------
    squares : float64 ndarray of shape (m,)
        Sum of squares of each row.
    counts : ndarray of shape (m,)
        Number of entries of each row.
    peak : float
        Largest size.
    """

    squares: NDArray[np.float64]
    counts: NDArray[Any]
    peak: float

    def check(self, name: str) -> None:
        """Refuse values of the store ``name`` that are so large or small that their squares leave float64.

        Raises
        ------
        InputError
        """
        if self.peak > LARGEST or 0 < self.peak < 1 / LARGEST:
            raise InputError(f"{name}: values {self.peak:.0e} from their offsets cannot be squared; rescale them")

    def scales(self, offsets: Offsets, power: float) -> Scales | None:
        """Scale of each row, given what was taken off. None where nothing is left of the values."""
        total = float(self.squares.sum())
        if not total > 0:
            return None
        variance = total / float(self.counts.sum())
        return Scales(_damped(self.squares, self.counts, variance, power), offsets, variance, power)

    def unit(self, scales: Scales | None = None) -> float:
        """Root mean square of what is left, over its row's scale; 1 where nothing is left."""
        squares = self.squares if scales is None else self.squares / scales.rows**2
        return float(np.sqrt(squares.sum() / self.counts.sum())) if self.peak > 0 else 1.0


def fit_scales(blocks: Iterable[RowBlock], offsets: Offsets, power: float) -> Scales | None:
    """Measure the scale of each row. None where nothing is left of the values."""
    return _measured(blocks, offsets).scales(offsets, power)


def measure(entries: Entries, offsets: Offsets, run: Runner) -> Spread:
    """Measure what ``offsets`` leave of the entries, where ``run`` runs."""
    groups = groups_of(entries.observations)
    part = run.reduce(_measured_group, groups, run.publish(entries), run.publish(offsets))
    return _joined(part.rows)


def _measured_group(group: Group, entries: Entries, offsets: Offsets, _: Any) -> Part:
    return Part({}, [_measured_block(block, offsets) for block in entries.blocks(group)])


def _measured(blocks: Iterable[RowBlock], offsets: Offsets) -> Spread:
    return _joined([_measured_block(block, offsets) for block in blocks])


def _measured_block(block: RowBlock, offsets: Offsets) -> tuple[NDArray[Any], ...]:
    """Sum of squares of each row's values less the offsets, their number, and their largest size."""
    from rfmdist.observations import loops

    squares, rows = np.empty(block.stop - block.start), offsets.rows[block.start : block.stop]
    arrays = block.indptr, block.indices, block.values
    peak = loops.spread(*arrays, float(offsets.mean), offsets.columns, rows, squares)
    return squares, np.diff(block.indptr), np.array([peak])


def _joined(rows: list[tuple[NDArray[Any], ...]]) -> Spread:
    squares, counts, peaks = Part({}, rows or [(np.empty(0),) * 3]).joined()
    return Spread(squares, counts, float(peaks.max(initial=0.0)))


def _damped(squares: NDArray[np.float64], counts: NDArray[Any], variance: float, power: float) -> NDArray[np.float64]:
    """Scales of rows; one without entries has 1."""
    return np.asarray(((squares + DAMPING * variance) / ((counts + DAMPING) * variance)) ** (power / 2))
