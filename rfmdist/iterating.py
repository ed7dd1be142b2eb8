"""The loop of the estimators that hold their estimate whole, in this process. Knows no method."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.estimator import Estimator
from rfmdist.kernels.threads import one_blas_thread
from rfmdist.observations.blocks import FITTED_ROLES
from rfmdist.observations.store import Observations

SMALL = 1 << 16
"""Entries of an estimate up to which BLAS has one thread: on a busy machine several wait for each other a hundred
times longer than a Cholesky factor of 200 × 200 takes, and on a quiet one they gain nothing."""


@dataclass(frozen=True)
class Iterate:
    """One iteration of a fit.

    Attributes
    ----------
    iteration : int
        Which one, from 1.
    change : float
        ‖new − old‖ / ‖new‖ of the estimate in the Frobenius norm; inf in the first.
    seconds : float
        Wall-clock time.
    estimate : ndarray or None
        The estimate, for callbacks; None in ``history_``, which would hold every one.
    """

    iteration: int
    change: float
    seconds: float
    estimate: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)


Callback = Callable[[Iterate], "bool | None"]
"""Told of every iterate; what returns True ends the fit."""


class Iterative(Estimator):
    """An estimator that goes from estimate to estimate until they settle.

    Its parameters have among them ``max_iter``, ``tol`` and ``callbacks``. What is fitted has ``history_``, a list of
    `Iterate`, and ``n_iter_``.
    """

    max_iter: int
    tol: float
    callbacks: Sequence[Callback] | None

    def _settled(self, estimates: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
        """Go through the estimates until they settle, and return the last.

        Raises
        ------
        InputError
            If an estimate is not finite.
        """
        self.history_: list[Iterate] = []
        last: NDArray[Any] | None = None
        started = time.perf_counter()
        with ExitStack() as stack:
            for t, estimate in enumerate(islice(estimates, self.max_iter)):
                if not np.isfinite(estimate).all():
                    where = f"{type(self).__name__} left float64's range in iteration {t + 1}"
                    raise InputError(f"{where}: raise the ridge, or lower the step")
                if t == 0 and estimate.size <= SMALL:
                    stack.enter_context(one_blas_thread())
                change = np.inf if last is None else float(np.linalg.norm(estimate - last) / _positive(estimate))
                last = estimate
                if self._ends_with(Iterate(t + 1, change, time.perf_counter() - started, estimate)):
                    break
                started = time.perf_counter()
            else:
                if self.tol and self.max_iter > 1 and len(self.history_) == self.max_iter:
                    what = f"{type(self).__name__} has not settled in {self.max_iter} iterations"
                    warnings.warn(f"{what}: change {change:.1e}", stacklevel=3)
        assert last is not None, "check_loop"
        self.n_iter_ = len(self.history_)
        return last

    def _ends_with(self, iterate: Iterate) -> bool:
        """Keep an iterate and tell the callbacks of it; True if it is the last."""
        self.history_.append(replace(iterate, estimate=None))
        answers = [callback(iterate) for callback in self.callbacks or ()]
        return any(answer is True for answer in answers) or iterate.change < self.tol


@dataclass(frozen=True)
class Entries:
    """The fitted entries of a matrix, all in memory: those for training and validation.

    Attributes
    ----------
    rows, columns : int64 ndarray of shape (entries,)
        Codes, by rows and within a row by columns.
    values : float64 ndarray of shape (entries,)
    shape : tuple of int
        m, n.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[np.float64]
    shape: tuple[int, int]

    @classmethod
    def of(cls, observations: Any) -> tuple[Entries, Observations]:
        """Read the observations: an `Observations`, or a scipy sparse matrix whose stored entries are observed."""
        if not isinstance(observations, Observations):
            observations = Observations.from_scipy(observations)
        found = observations.to_scipy(FITTED_ROLES).tocoo()
        rows, columns = (codes.astype(np.int64) for codes in found.coords)
        return cls(rows, columns, found.data.astype(np.float64), observations.shape), observations


class MatrixCompleter(Iterative):
    """A method that completes a matrix which it holds whole, m × n in float64; no offsets are taken off.

    A subclass says how: ``_estimates(entries)`` yields one completed matrix after another, each an array of its own.
    """

    def fit(self, observations: Any) -> MatrixCompleter:
        """Complete the matrix of which these entries were observed.

        Parameters
        ----------
        observations : Observations or scipy sparse matrix of shape (m, n)
            Stored entries are observed, whatever their value. Entries for test are not looked at.

        Returns
        -------
        self
            With ``matrix_``, the completed matrix, float64 ndarray of shape (m, n).

        Raises
        ------
        InputError
            If an estimate leaves float64's range, or a parameter is out of range.
        """
        entries, self._observations = Entries.of(observations)
        self.matrix_ = self._settled(self._estimates(entries))
        return self

    def predict(self, rows: Any, columns: Any, *, codes: bool = False) -> NDArray[np.float64]:
        """Return entries of the completed matrix by id or code, float64 ndarray of the arguments' common shape.

        Raises
        ------
        InputError
            If an id or code was not among the observations'.
        """
        from rfmdist.observations.ids import known_codes

        self._check_fitted("matrix_")
        known = self.matrix_ if codes else self._observations
        i, j = (known_codes(known, given, axis, codes=codes) for axis, given in enumerate((rows, columns)))
        return self.matrix_[i, j]

    def _estimates(self, entries: Entries) -> Iterable[NDArray[np.float64]]:
        raise NotImplementedError


def root_mean_square(values: NDArray[np.float64]) -> float:
    """Return the unit that values (entries,) are divided by, so that a ridge has none; 1 of no values or zeros alone.

    Raises
    ------
    InputError
        If the squares of the values leave float64's range.
    """
    with np.errstate(over="ignore"):
        unit = float(np.linalg.norm(values)) / math.sqrt(max(1, len(values)))
    if not math.isfinite(unit):
        raise InputError("the squares of the values leave float64's range: divide the values by their largest")
    return unit or 1.0


def _positive(array: NDArray[Any]) -> float:
    return max(float(np.linalg.norm(array)), float(np.finfo(np.float64).tiny))
