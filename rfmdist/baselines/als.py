"""Alternating least squares for two factors of a given rank. Knows no weights and no way to find the rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.baselines.common import without_unit
from rfmdist.checks import check_loop, check_number, check_whole
from rfmdist.iterating import Callback, Entries, MatrixCompleter

Floats = NDArray[np.float64]


class AlternatingLeastSquares(MatrixCompleter):
    """Matrix completion by alternating least squares, the plain method of two factors.

    It lowers Σ (y_ij − u_i·v_j)² + ridge (‖U‖_F² + ‖V‖_F²) over observed entries, in turn by U and by V; each row of a
    factor is a ridge regression of ``rank`` coefficients. V starts at random; values are divided by their root mean
    square first, so that ``ridge`` has no unit.

    Parameters
    ----------
    rank : int
        r, columns of either factor, at least 1. No default: the method has no way to find it.
    ridge : float, default 1e-6
        λ > 0. The default is for values without noise, small against the squares of any direction that matters and
        large enough that rows with fewer entries than ``rank`` are solved.
    max_iter : int, default 300
        Most iterations; one solves all rows and all columns.
    tol : float, default 1e-5
        The fit stops when the estimate changes by less than this share.
    random_state : int, default 0
        Seed of V's start, standard normal over √rank.
    callbacks : list of callables, optional
        Each is called with every `rfmdist.iterating.Iterate`; one that returns True ends the fit.

    Attributes
    ----------
    matrix_ : float64 ndarray of shape (m, n)
        The completed matrix U V'.
    history_ : list of Iterate
    n_iter_ : int
    """

    def __init__(
        self,
        rank: int,
        *,
        ridge: float = 1e-6,
        max_iter: int = 300,
        tol: float = 1e-5,
        random_state: int = 0,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        self.rank = rank
        self.ridge = ridge
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.callbacks = callbacks

    def _estimates(self, entries: Entries) -> Iterator[Floats]:
        check_whole("rank", self.rank, 1)
        check_number("ridge", self.ridge, least=0, above=True)
        check_whole("random_state", self.random_state, 0)
        check_loop(self)
        return self._iterates(entries)

    def _iterates(self, entries: Entries) -> Iterator[Floats]:
        entries, unit = without_unit(entries)
        (m, n), rank = entries.shape, self.rank
        by_column = np.argsort(entries.columns, kind="stable")
        turned = entries.columns[by_column], entries.rows[by_column], entries.values[by_column]
        of_columns = np.random.default_rng(self.random_state).normal(size=(n, rank)) / np.sqrt(rank)
        while True:
            of_rows = solved(entries.rows, entries.columns, entries.values, of_columns, m, self.ridge)
            of_columns = solved(*turned, of_rows, n, self.ridge)
            yield unit * (of_rows @ of_columns.T)


def solved(
    rows: NDArray[np.int64], columns: NDArray[np.int64], values: Floats, factor: Floats, count: int, ridge: float
) -> Floats:
    """Return for each of ``count`` rows the u of least Σ (y_j − u·v_j)² + ridge ‖u‖², v_j rows of ``factor``.

    Parameters
    ----------
    rows, columns : int64 ndarray of shape (entries,)
        Sorted by rows.
    values : float64 ndarray of shape (entries,)
    factor : float64 ndarray of shape (n, rank)
    count : int
    ridge : float
        Above 0.

    Returns
    -------
    float64 ndarray of shape (count, rank)
        Zero where nothing was observed.
    """
    rank = factor.shape[1]
    ends = np.searchsorted(rows, np.arange(count + 1))
    grams, rights = np.empty((count, rank, rank)), np.empty((count, rank, 1))
    for i in range(count):
        row = slice(ends[i], ends[i + 1])
        seen = factor[columns[row]]
        grams[i], rights[i, :, 0] = seen.T @ seen, values[row] @ seen
    found: NDArray[Any] = np.linalg.solve(grams + ridge * np.eye(rank), rights)[:, :, 0]
    return found
