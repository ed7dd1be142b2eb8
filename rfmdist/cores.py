"""Which rows and columns a low-rank matrix's entries can determine: cores, and what is reached from them.

A row with as few entries as the rank fits anything, and says nothing; so a fit is made on a core, the largest block in
which every row and column has some entries to spare, and the others are solved from it afterwards.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfmdist.engine import elimination as work
from rfmdist.engine.elimination import OUT, Block, Counts, Floats
from rfmdist.features.protocol import Partial
from rfmdist.features.recovered import PIVOT, RecoveredFeatures
from rfmdist.kernels.projection import solve_columns
from rfmdist.observations.targets import Targets
from rfmdist.projection import Placed, Projection, orthonormal, symmetric

Mask = NDArray[np.bool_]
DENSE = 0.8
"""Share of the entries that a denser core must keep to be fitted first: its fit is surer, the next starts from it."""
DENSER = (2, 3, 4, 5)
"""Entries above the rank that such a core's rows and columns have at least; twice the rank is tried too."""
MARGIN, LEAST = 0.02, 20
"""Entries beyond the degrees of freedom, as a share of these and in number, from which an exact fit is no accident: a
block of 164 entries with 153 degrees of freedom was fitted to 1e-6 by a wrong matrix."""


def freedom(rows: int, columns: int, rank: int) -> int:
    """Degrees of freedom of a matrix of that size and rank."""
    return rank * (rows + columns - rank)


def exceeds(entries: int, freedom: int, rank: int) -> bool:
    """Whether so many entries are enough for an exact fit of that rank to mean something."""
    return entries - freedom > max(MARGIN * freedom, LEAST, 2 * rank)


class Core(NamedTuple):
    """Rows (m,) and columns (n,) of a block, and the number of its entries."""

    rows: Mask
    columns: Mask
    entries: int

    def freedom(self, rank: int) -> int:
        """Degrees of freedom of a matrix of that rank in the block."""
        return freedom(int(np.count_nonzero(self.rows)), int(np.count_nonzero(self.columns)), rank)

    @property
    def is_full(self) -> bool:
        """Whether every entry of the block is there."""
        return self.entries == int(np.count_nonzero(self.rows)) * int(np.count_nonzero(self.columns))

    def exceeds(self, rank: int) -> bool:
        """Whether the entries are enough for an exact fit of that rank to mean something."""
        return exceeds(self.entries, self.freedom(rank), rank)


def core(passes: Projection, targets: Any, within: Core, least: int) -> Core:
    """Return the largest block within another in which each row and column has ``least`` entries or more."""
    rows, columns = within.rows, within.columns
    while True:
        counts = counted(passes, targets, rows, columns)
        kept = rows & (counts.by_row >= least), columns & (counts.by_column >= least)
        if (kept[0] == rows).all() and (kept[1] == columns).all():
            return Core(rows, columns, int(counts.by_row[rows].sum()))
        rows, columns = kept


def cores(passes: Projection, targets: Any, whole: Core, rank: int) -> list[Core]:
    """Return the blocks to fit at a rank, one after the other: a dense one that keeps most entries, then all that can.

    The last, with one entry to spare in each row and column, is the largest that a fit can determine.
    """
    last = core(passes, targets, whole, rank + 1)
    for least in sorted({2 * rank, *(rank + spare for spare in DENSER)}, reverse=True):
        if least > rank + 1:
            dense = core(passes, targets, last, least)
            if dense.entries >= DENSE * whole.entries:
                return [dense, last]
    return [last]


def counted(passes: Projection, targets: Any, rows: Mask, columns: Mask) -> Counts:
    """Count the entries of all rows within some columns, and of all columns within some rows."""
    total: Partial = passes.over(work.count, targets, passes.publish(rows), passes.publish(columns))
    return Counts(_joined(total), total.sums["by_column"])


def all_rows(passes: Projection, placed: Placed) -> Floats:
    """Return the solved rows of a basis, (m, r)."""
    return _joined(passes.over(work.solved_rows, *placed.shared))


def determined_rows(passes: Projection, targets: Any, features: RecoveredFeatures, spare: int = 0) -> Mask:
    """Return which rows the features determine, with ``spare`` entries more than the rank, bool (m,)."""
    return np.asarray(_joined(passes.over(work.determined, targets, passes.publish(features), spare)) > 0)


def extended(
    passes: Projection, shared: Any, targets: Targets, placed: Placed, inside: Core, spare: int
) -> tuple[Floats, Mask]:
    """Solve columns that have entries enough in the rows of the block, then rows, and so on as far as that goes.

    A row or column counts if its entries, ``spare`` more than the rank, pin all its coefficients down. Rows are solved
    from the columns that were there when they came in: what is known less well does not spoil what is known well.

    Returns
    -------
    factor : float64 ndarray of shape (n, r)
        U of all columns reached, orthonormal, its directions those of the block's rows; 0 elsewhere.
    columns : bool ndarray of shape (n,)
        Which they are.
    """
    basis, solved = placed.basis, all_rows(passes, placed)
    rank = basis.factor.shape[1]
    # Along the rows' own directions what a typical row or column adds is known by r numbers.
    factor = np.ascontiguousarray(basis.factor @ np.linalg.eigh(solved.T @ solved)[1])
    rows = np.where(inside.rows, 0, -1).astype(np.int16)
    columns = np.where(_pinned(passes, shared, placed, inside), 0, OUT).astype(np.int16)
    factor[columns == OUT] = 0
    for level in range(1, OUT):
        there = columns < OUT
        counts = counted(passes, shared, rows >= 0, there)
        wanted = ~there & (counts.by_column >= rank + spare)
        if wanted.any():
            known = passes.placed(passes.publish(Block(targets, rows, columns)), factor, basis.ridge)
            beyond = Block.of(targets, rows >= 0, wanted)
            reached, found = _solved_columns(passes, known, beyond, counts.by_column)
            factor[reached], columns[reached] = found, level
        there = columns < OUT
        more = (rows < 0) & determined_rows(passes, shared, one_component(factor, there), spare)
        rows[more] = level
        if not more.any():
            break
    return orthonormal(factor), there


def one_component(factor: Floats, columns: Mask) -> RecoveredFeatures:
    """Return features of the factor U (n, r) in which the other columns are not determined."""
    number = columns.astype(np.int32)
    return RecoveredFeatures(factor, np.zeros(len(factor)), components=number, ranks=(0, factor.shape[1]), exact=False)


def _pinned(passes: Projection, shared: Any, placed: Placed, inside: Core) -> Mask:
    """Which columns of the block their entries pin down in all directions; in others the fit is one of many."""
    solved, grams = all_rows(passes, placed), passes.slope(placed).grams
    squares, turn = np.linalg.eigh(solved.T @ solved)
    typical = np.maximum(squares, 0) / max(int(np.count_nonzero(inside.rows)), 1)
    counts = counted(passes, shared, inside.rows, inside.columns).by_column
    pivots, nothing = np.empty(len(grams)), np.zeros(grams.shape[:2])
    turned = np.ascontiguousarray(turn.T @ grams @ turn)
    solve_columns(turned, nothing, typical, counts, 1.0, nothing.copy(), pivots)
    return inside.columns & (pivots > PIVOT)


def _solved_columns(
    passes: Projection, known: Placed, beyond: Block, counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Floats]:
    """Return which columns of the block ``beyond`` its rows determine, and their rows of U."""
    total: Partial = passes.over(work.normal_equations, *known.shared, passes.publish(beyond))
    solved, places = all_rows(passes, known), np.flatnonzero(beyond.columns < OUT)
    typical = np.einsum("ir,ir->r", solved, solved) / max(np.count_nonzero(beyond.rows >= 0), 1)
    found, pivots = np.empty((len(places), solved.shape[1])), np.empty(len(places))
    right, grams = total.sums["right"][places], symmetric(total.sums["grams"][places])
    ridge = known.basis.ridge * float(typical.mean())
    solve_columns(grams, right, typical, counts[places], ridge, found, pivots)
    determined = pivots > PIVOT
    return places[determined], found[determined]


def _joined(total: Partial) -> Any:
    return np.concatenate([rows for (rows,) in total.rows])
