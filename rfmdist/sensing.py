"""`LinearSensing`: a matrix from linear measurements. Knows the iteration; not how measurements are held."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, cg

from rfmdist.checks import check_loop, check_number
from rfmdist.errors import InputError
from rfmdist.features.power import here, power_of_two, rational_power
from rfmdist.iterating import Callback, Iterative
from rfmdist.machine import free_memory
from rfmdist.measurements import Measurements, measurements
from rfmdist.parameters import as_fraction

RIDGE = 1e-8
"""Ridge "auto", as a share of K's scale: far below what matters, enough for a Cholesky of a K that lost rank."""
FLOOR_FALL, FLOOR_FOLLOWS, LEAST_FLOOR = 0.9, 1e3, 1e-12
"""Floor "auto", as a share of the AGOP's mean eigenvalue: it falls by FLOOR_FALL, but not below FLOOR_FOLLOWS times
the squared change of the estimate. Of 20 × 20 matrices of rank 1, 2 and 3 from 1.6, 1.3 and 1.6 times as many Gaussian
measurements as degrees of freedom 17 of 18 were recovered to 1e-3; a floor that falls by 0.9 whatever the change left
rank 1 at 6e-2 and rank 2 (of 1.4 times) at 3e-2. Powers above 1/2 raise the floor with the AGOP; there it is P's own
that falls so, or the error of power 1 is ten times as large."""
MOST_DIRECT = 4000
"""Measurements up to which "auto" solves directly: K is then 128 MB."""
CG_TOLERANCE, CG_STEPS = 1e-10, 10_000
"""Residual of the dual system, as a share of y, and steps after which a solve is given up."""


class LinearSensing(Iterative):
    """A matrix of low rank from linear measurements <A_k, Y> = y_k: lin-RFM, arXiv 2401.04553, Algorithm 1.

    Each iteration solves for W of the least norm with <A_k M, W> = y_k, M the square root of the features P, and makes
    P anew of the average gradient outer product (AGOP) of the predictor, which is Z'Z for its estimate Z = W M. All of
    it can be said with P alone, N dual coefficients a and an N × N matrix K::

        K_kl = <A_k P, A_l>
        a    = (K + ridge I)^-1 y
        Z    = sum_k a_k A_k P                    the estimate, m × n
        P    = (Z'Z / m + floor I)^(2 power)      P = I at the start

    P is n × n and acts on the columns, as in the paper: give the transposed problem where n is much the greater side.
    For observed entries `rfmdist.LinRFM` does the same at any size, a row at a time.

    Parameters
    ----------
    power : float, default 0.5
        α, a positive fraction with a denominator of at most 12. It is iteratively reweighted least squares with
        p = 2 − 4α: 1/4 is the nuclear norm, 1/2 (default, best in the paper's experiments) the log-determinant, 1 is
        p = −2. No power needs an SVD.
    ridge : float or "auto", default "auto"
        λ ≥ 0. "auto" is for measurements without noise: 1e-8 of K's scale, y'Ky / y'y. With noise give a number: for
        power 1/2 rows of Y are taken to have covariance P, and the noise's variance is the ridge that goes with it.
        0 needs a K of full rank, which a P of low rank does not leave: give a floor with it.
    floor : float or "auto", default "auto"
        ε ≥ 0, added to the AGOP's diagonal before the power. "auto" starts with the AGOP's mean eigenvalue and lets it
        fall as the estimate settles. Without a floor, directions that the first estimates hold too little of are lost
        for good before measurements can call for them, and a falling ridge does not bring them back: it leaves the
        relative error of random problems above 0.3 where a falling floor recovers the matrix.
    max_iter : int, default 500
        Most iterations.
    tol : float, default 1e-6
        The fit stops when the estimate changes by less than this share. Convergence is linear and slow near the fewest
        measurements that do: the error left is up to some hundred times as much.
    solver : {"auto", "direct", "cg"}, default "auto"
        "direct" makes K, N² numbers, and its Cholesky factor. "cg" multiplies by K, two passes over the measurements
        a step, and warns of solves that have not converged. "auto" is direct for up to 4000 measurements that can be
        read.
    callbacks : sequence of callables, optional
        Each is called with an `Iterate` after every iteration; one that returns True ends the fit.

    Attributes
    ----------
    coef_ : float64 ndarray of shape (m, n)
        The estimate Z.
    feature_matrix_ : float64 ndarray of shape (n, n)
        P, of which the estimate was made.
    dual_coef_ : float64 ndarray of shape (N,)
        a: ``coef_`` is the sum of ``dual_coef_[k] A_k`` times ``feature_matrix_``.
    history_ : list of Iterate
    n_iter_ : int
        Iterations.

    Examples
    --------
    >>> import numpy as np
    >>> from rfmdist import LinearSensing
    >>> rng = np.random.default_rng(0)
    >>> matrix = rng.normal(size=(10, 1)) @ rng.normal(size=(1, 8))
    >>> A = rng.normal(size=(40, 10, 8))
    >>> model = LinearSensing().fit(A, np.tensordot(A, matrix, 2))
    >>> bool(np.allclose(model.coef_, matrix, atol=1e-3))
    True
    """

    def __init__(
        self,
        *,
        power: float = 0.5,
        ridge: float | Literal["auto"] = "auto",
        floor: float | Literal["auto"] = "auto",
        max_iter: int = 500,
        tol: float = 1e-6,
        solver: Literal["auto", "direct", "cg"] = "auto",
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        self.power = power
        self.ridge = ridge
        self.floor = floor
        self.max_iter = max_iter
        self.tol = tol
        self.solver = solver
        self.callbacks = callbacks

    def fit(self, A: Any, y: Any, shape: Sequence[int] | None = None) -> Self:
        """Estimate the matrix.

        Parameters
        ----------
        A : ndarray, sparse array, dask array or LinearOperator
            The measurements: of shape (N, m, n), dense or a ``sparse.COO``; or of shape (N, m n), A_k laid out by
            rows, dense, scipy sparse or a scipy ``LinearOperator`` with ``rmatvec``. A dask array, of either shape
            and of any such chunks, is never in memory whole: each sum is a pass over its chunks.
        y : array of shape (N,)
            What was measured; may be a dask array.
        shape : (m, n), optional
            Of the matrix; needed where A has two dimensions.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a parameter is out of range, shapes do not go together, A or y holds NaN or infinity, K does not fit
            memory or is singular.

        Warns
        -----
        UserWarning
            If the estimate has not settled in ``max_iter`` iterations, or conjugate gradients have not converged.
        """
        self._check()
        measured = measurements(A, shape)
        values = _values(y, measured.count)
        if not values.any():
            raise InputError("y holds zeros alone, which the zero matrix explains: give measurements of another")
        solve: _Direct | _Gradients = (_Direct if self._directly(measured) else _Gradients)(measured, values)
        self.coef_ = self._settled(self._estimates(measured, values, solve))
        if solve.unfinished:
            warnings.warn(
                f"conjugate gradients did not reach a residual of {CG_TOLERANCE} in {solve.unfinished} of"
                f" {self.n_iter_} iterations: the estimate may be off; give a ridge or a floor, or solver='direct'",
                stacklevel=2,
            )
        return self

    def predict(self, A: Any) -> NDArray[np.float64]:
        """Return <A_k, coef_> of further measurements, in any form that `fit` takes; float64 ndarray of shape (N,).

        Raises
        ------
        InputError
            If A is not for a matrix of this shape, or holds NaN or infinity.
        """
        self._check_fitted("coef_")
        found = measurements(A, self.coef_.shape).measure(self.coef_)
        if not np.isfinite(found).all():
            raise InputError("A holds NaN or infinity: give finite numbers")
        return found

    def score(self, A: Any, y: Any) -> float:
        """R² of the predicted measurements: 1 less the mean squared error over the variance of ``y``."""
        predicted = self.predict(A)
        values = _values(y, len(predicted))
        return float(1 - np.sum((values - predicted) ** 2) / np.sum((values - values.mean()) ** 2))

    def _estimates(
        self, measured: Measurements, values: NDArray[np.float64], solve: _Direct | _Gradients
    ) -> Iterator[NDArray[np.float64]]:
        """Yield one estimate after another; P is ``unit`` times the array at hand, against over- and underflow."""
        features, unit, back = np.eye(measured.shape[1]), 1.0, measured.adjoint(values)
        if not np.isfinite(back).all():
            raise InputError("A holds NaN or infinity: give finite numbers")
        exponent, floors = 2 * as_fraction(self.power), _Floors(self.floor, self.power)
        while True:
            scale = float(np.vdot(back @ features, back) / (values @ values))  # y'Ky / y'y
            dual = solve(features, RIDGE * scale if self.ridge == "auto" else self.ridge / unit)
            estimate = measured.adjoint(dual) @ features
            self.feature_matrix_, self.dual_coef_ = unit * features, dual / unit
            yield estimate
            agop = estimate.T @ estimate / len(estimate)
            agop.flat[:: len(agop) + 1] += floors.next(estimate, float(np.trace(agop)) / len(agop))
            size = power_of_two(float(np.trace(agop)) / len(agop))
            features, unit = rational_power(agop / size, exponent, here), size ** float(exponent)

    def _directly(self, measured: Measurements) -> bool:
        """Whether K is made: where it is asked for, or small."""
        if self.solver == "cg" or (self.solver == "auto" and (measured.count > MOST_DIRECT or not measured.readable)):
            return False
        if not measured.readable:
            raise InputError("solver='direct' needs A_k that can be read, not a LinearOperator: choose solver='cg'")
        needed, free = 2 * 8 * measured.count**2, free_memory()
        if needed > free:
            raise InputError(
                f"solver='direct' needs {needed / 1e9:.3g} GB for {measured.count} measurements, {free / 1e9:.3g} GB"
                " are free: choose solver='cg'"
            )
        return True

    def _check(self) -> None:
        """Refuse parameters out of range."""
        as_fraction(self.power)
        check_number("ridge", self.ridge, least=0, auto=True)
        check_number("floor", self.floor, least=0, auto=True)
        check_loop(self)
        if not isinstance(self.solver, str) or self.solver not in ("auto", "direct", "cg"):
            raise InputError(f"solver={self.solver!r} must be one of 'auto', 'direct', 'cg'")


class _Direct:
    """Solves by the Cholesky factor of K + ridge I."""

    unfinished = 0

    def __init__(self, measured: Measurements, values: NDArray[np.float64]) -> None:
        self._measured, self._values = measured, values

    def __call__(self, features: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
        system = self._measured.gram(features)
        system.flat[:: len(system) + 1] += ridge
        try:
            return cho_solve(cho_factor(system, lower=True, overwrite_a=True), self._values)
        except LinAlgError:
            raise InputError(
                f"the {len(system)} × {len(system)} system of the dual coefficients is not positive definite:"
                " raise ridge or floor, or leave out measurements that follow from others"
            ) from None


class _Gradients:
    """Solves by conjugate gradients with products by K alone, each starting from the last solution."""

    def __init__(self, measured: Measurements, values: NDArray[np.float64]) -> None:
        self._measured, self._values = measured, values
        self._last = np.zeros_like(values)
        self.unfinished = 0

    def __call__(self, features: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
        def product(dual: NDArray[np.float64]) -> NDArray[np.float64]:
            return self._measured.measure(self._measured.adjoint(dual) @ features) + ridge * dual

        system = LinearOperator((len(self._values),) * 2, matvec=product, dtype=np.float64)
        self._last, left = cg(system, self._values, self._last, rtol=CG_TOLERANCE, atol=0, maxiter=CG_STEPS)
        self.unfinished += left != 0
        return self._last


class _Floors:
    """The floor of each iteration: as given, or falling as the estimates settle."""

    def __init__(self, given: float | Literal["auto"], power: float) -> None:
        self._given, self._share, self._root = given, 1.0, 1 / max(1.0, 2 * power)
        self._last: NDArray[np.float64] | None = None

    def next(self, estimate: NDArray[np.float64], mean: float) -> float:
        """Floor after this estimate, whose AGOP has the ``mean`` eigenvalue."""
        if self._given != "auto":
            return self._given
        if self._last is not None:
            change = float(np.linalg.norm(estimate - self._last) / np.linalg.norm(estimate))
            lowered = max(FLOOR_FALL * self._share, FLOOR_FOLLOWS * change**2, LEAST_FLOOR)
            self._share = min(self._share, lowered)
        self._last = estimate
        return self._share**self._root * mean


def _values(y: Any, count: int) -> NDArray[np.float64]:
    """What was measured as a float64 array of ``count`` numbers."""
    found = np.asarray(y)
    if found.shape != (count,):
        raise InputError(f"y has shape {found.shape}, and A holds {count} measurements: give y the shape ({count},)")
    if found.dtype.kind not in "biuf" or not np.isfinite(found).all():
        raise InputError("y holds what is no finite real number: leave out those measurements")
    return found.astype(np.float64)
