"""Features of a matrix that was recovered component by component: what they determine, and what was seen as it is.

Rows and columns that no chain of entries links say nothing of each other, so each component has features of its own.
They share U's columns, since no row is solved from the columns of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfmdist.features.factored import FactoredFeatures, row_pieces
from rfmdist.features.protocol import Step
from rfmdist.kernels.projection import row_pivots
from rfmdist.kernels.threads import Threads
from rfmdist.observations.blocks import RowBlock

Numbers = NDArray[np.int32]
PIVOT = 1e-4
"""Least pivot of a row's or column's system, in units of a typical one's, that still determines it: errors of the
features grow at most a hundredfold in it. Of 500 × 500, rank 5, at 1.4 and 1.1 times the degrees of freedom it flags
0.5 and 3.7 % of the matrix; 1e-6 flags as many and lets errors of 20 % pass, 1e-3 flags a tenth more for nothing."""


class RecoveredRows(NamedTuple):
    """Solved rows as in `Solution`, and the component of each row, 0 of one that is not determined.

    The residual is that of the entries solved from: a row's own component's.
    """

    rows: NDArray[Any]
    intercepts: NDArray[Any]
    residual: NDArray[Any]
    components: Numbers


@dataclass(frozen=True, eq=False, kw_only=True)
class RecoveredFeatures(FactoredFeatures):
    """P = U U' within each component of a recovered matrix, and nothing between two of them.

    A prediction is given where a row and a column are of one component, else it is NaN.

    Attributes
    ----------
    components : int32 ndarray of shape (n,)
        Number of each column's component, from 1 on; 0 of a column that is not determined, whose row of U is 0.
    ranks : tuple of int
        Of each component, by its number (of 0 too): the first so many columns of U that a row's entries must pin down
        for the row to be determined. 0 where one entry is enough, as for a guess.
    exact : bool
        Whether values have no noise: what was observed is then predicted as it was observed, in any row and column.
    """

    components: Numbers
    ranks: tuple[int, ...]
    exact: bool

    def solve(self, block: RowBlock, step: Step, threads: Threads) -> Any:
        """Solve each row from its entries in the component in which it has most of them: `RecoveredRows`.

        The intercept of a row that is not determined is NaN, and with it what is predicted there.

        Raises
        ------
        SingularRowError
            As `FactoredFeatures.solve`.
        """
        own = self.determines(block, threads)
        if len(self.ranks) > 2:
            theirs = self.components[block.indices]
            elsewhere = (theirs > 0) & (theirs != np.repeat(own, np.diff(block.indptr)))
            if elsewhere.any():
                block = block.where(~elsewhere)
        solution = super().solve(block, step, threads)
        solution.intercepts[own == 0] = np.nan
        return RecoveredRows(*solution, own)

    def determines(self, block: RowBlock, threads: Threads, spare: int = 0) -> Numbers:
        """Tell of which component's features a row's entries pin down all directions, with ``spare`` entries more.

        Returns
        -------
        int32 ndarray of shape (rows,)
            Number of the component in which the row has most entries; 0 where these do not determine it.
        """
        rows, ranks = block.stop - block.start, np.array(self.ranks)
        pivots, counts, own = np.empty(rows), np.empty(rows, np.int64), np.empty(rows, np.int32)
        data = block.indptr, block.indices, self.factor, self.components, ranks, self._typical
        threads.map(lambda a, b: row_pivots(*data, a, b, pivots, counts, own), row_pieces(block, threads))
        return np.where((counts >= ranks[own] + spare) & (pivots > PIVOT), own, 0).astype(np.int32)

    def predict(self, block: RowBlock, solution: Any, wanted: RowBlock, threads: Threads) -> NDArray[np.float64]:
        """As `FactoredFeatures.predict`; NaN where row and column are not of one component."""
        out = super().predict(block, solution, wanted, threads)
        out[self.components[wanted.indices] != np.repeat(solution.components, np.diff(wanted.indptr))] = np.nan
        if self.exact and len(block.indices):
            keys, asked = self._keys(block), self._keys(wanted)
            places = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
            observed = keys[places] == asked
            out[observed] = block.values[places[observed]]
        return out

    def complete(self, block: RowBlock, solution: Any, threads: Threads) -> NDArray[Any]:
        """As `FactoredFeatures.complete`; NaN where row and column are not of one component."""
        completed = super().complete(block, solution, threads)
        completed[solution.components[:, None] != self.components] = np.nan
        if self.exact:
            completed[block.rows - block.start, block.indices] = block.values
        return completed

    def rows_alone(self, block: RowBlock, solution: Any) -> NDArray[np.float64]:
        """NaN: a column of which nothing is known is of no component."""
        return np.full(block.stop - block.start, np.nan)

    def columns_alone(self) -> NDArray[np.float64]:
        """NaN: a row of which nothing is known is of no component."""
        return np.full(self.size + 1, np.nan)

    # ---- inside -----------------------------------------------------------------------------------------------

    def _keys(self, block: RowBlock) -> NDArray[np.int64]:
        """A number for each entry of a block, ascending as its rows, and columns within a row, do."""
        return (block.rows - block.start) * self.size + block.indices

    @cached_property
    def _typical(self) -> NDArray[np.float64]:
        """Mean square of each column of U over the columns of each component, (components, r)."""
        number = len(self.ranks)
        squares = [np.bincount(self.components, column**2, number) for column in self.factor.T.astype(np.float64)]
        counts = np.maximum(np.bincount(self.components, minlength=number), 1)
        return np.array(squares).reshape(self.rank, number).T / counts[:, None]
