"""Sparse linear regression by lin-RFM with a diagonal AGOP. Knows one dense table in memory; no matrix completion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lstsq
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.model_selection import KFold, check_cv
from sklearn.utils.validation import validate_data

from rfmdist.checks import check_loop, check_number, check_whole, is_auto, is_number, is_whole
from rfmdist.errors import InputError
from rfmdist.iterating import Callback, Iterative

Vector = NDArray[np.float64]

FLOOR_FACTOR, FLOOR_END = 0.8, 1e-20
"""What the automatic floor falls by in an iteration, and where, over its start, it becomes 0. With d = 200, 10 nonzero
coefficients and 35 samples, 9 of 10 random problems are recovered at 0.8 and 0.9, 7 at 0.7 and 6 at 0.5 (power 1/2)."""
ROUNDING = 1e-8
"""Share of the Gram's trace below which a ridge is lost to the rounding of a Cholesky factor: half of the digits."""
NEGLIGIBLE_WEIGHT, NEGLIGIBLE = 1e-32, 1e-6
"""Weight over the largest that leaves a feature out of a solve, where it is below the rounding of the others; and share
of the target, or of the largest feature's part in the prediction, below which a coefficient is set to 0 at the end."""
MARGIN = 1.1
"""First ridge of a path over the one at which a coefficient appears, where convergence would be slow."""
EXACT = 1e-9
"""Relative residual of least squares on fewer features than samples that tells that there is no noise."""
COARSE, COARSE_FACTOR = 1e-3, 0.5
"""Least ``tol`` of the fits that only compare ridges, and what their floor falls by: with noise as good as 0.8."""


class SparseRegression(RegressorMixin, BaseEstimator, Iterative):  # BaseEstimator: scikit-learn's checks ask for it
    """Linear regression with few nonzero coefficients: lin-RFM with diagonal features, arXiv 2401.04553.

    The unknown is a vector, so the AGOP is diagonal and any power of it elementwise: no decomposition. From D = I on,
    each iteration solves a ridge regression whose features are reweighted by D, then sets D to a power of the AGOP::

        a = (X D X' + ridge I)^-1 y,  z = D X' a     that is: least ||y - X z||^2 + ridge z' D^-1 z
        D = (z^2 + floor)^(2 power)                  D = M^2 in the paper's letters

    A fixed point at floor 0 is a stationary point of ||y - X z||^2 + ridge sum psi(z_j): power 1/4 is the Lasso with
    psi = 2 |z|, or basis pursuit at ridge 0; 1/2 is psi = log z^2; 1 is psi = -1 / z^2. Powers above 1/4 are not
    convex: what is found depends on the way there, which is why the floor falls slowly. Below 1/4 nothing becomes 0.

    X and y are centred if there is an intercept, and each divided by its root mean square, one number each, so that
    ridge and floor have no unit; as in scikit-learn's ``Lasso`` columns are not standardised. With those two numbers x
    and s, a ridge at power 1/4 is ``Lasso(alpha=ridge * x * s / n_samples)``.

    Parameters
    ----------
    power : float, default 0.5
        α > 0. It is iteratively reweighted least squares with p = 2 - 4 α. 1/2 (default) and 1 recover from fewer
        samples than 1/4 where nonzero coefficients differ in size; where all are of one size, from about as many.
    ridge : float or "auto", default "auto"
        λ ≥ 0; 0 interpolates with the least z' D^-1 z. "auto" fits with 0 on all samples first. If the features this
        leaves are fewer than the samples and fit them exactly, there is no noise (noisy values lie in the span of fewer
        columns than samples with probability 0): this fit is kept, and no sample is spent on validation. Otherwise the
        ridge of least cross-validated error on `sparse_path`'s sequence is taken, as ``LassoCV`` does.
    floor : float or "auto", default "auto"
        ε ≥ 0, added to the AGOP before the power. "auto" starts at the largest z_j^2 of the first iterate, where all
        features weigh about the same, falls by 0.8 an iteration, and ends at 0: a fixed one above 0 leaves no
        coefficient at 0, and 0 from the start is drawn to the nearest sparse point.
    fit_intercept : bool, default True
        Fit a constant, which is not penalised.
    cv : int or cross-validation splitter, default 5
        Folds that choose the ridge: an int without shuffling, and at most the number of samples.
    max_iter : int, default 5000
        Most iterations of a fit.
    tol : float, default 1e-6
        A fit ends when the coefficients change by less than this share: close to the ridge at which a coefficient
        becomes 0 that takes long. Fits that compare ridges end at 1e-3, or this if it is more.
    callbacks : sequence of callables, optional
        Each is called with an `Iterate` after every iteration of the fits on all samples, its estimate the coefficients
        for the scaled X and y; one that returns True ends that fit.

    Attributes
    ----------
    coef_ : float64 ndarray of shape (n_features,)
        Those that contribute less than 1e-6 of y's norm, or of what the largest contributes, are 0. Where few features
        fit exactly at ridge 0, they are the least squares on those.
    intercept_ : float
    ridge_ : float
        The ridge given or chosen.
    cv_error_ : float64 ndarray of shape (n_ridges,) or None
        Mean square error of each ridge of the sequence on samples left out, relative to y's; None where no ridge was
        chosen by cross-validation.
    n_iter_, n_features_in_ : int
    history_ : list of Iterate
    feature_names_in_ : ndarray of shape (n_features,)
        Only where X has names for its columns.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(20, 50))
    >>> np.flatnonzero(SparseRegression().fit(X, 3 * X[:, 4] - X[:, 40]).coef_)
    array([ 4, 40])
    """

    def __init__(
        self,
        power: float = 0.5,
        *,
        ridge: float | Literal["auto"] = "auto",
        floor: float | Literal["auto"] = "auto",
        fit_intercept: bool = True,
        cv: Any = 5,
        max_iter: int = 5000,
        tol: float = 1e-6,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        self.power = power
        self.ridge = ridge
        self.floor = floor
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.max_iter = max_iter
        self.tol = tol
        self.callbacks = callbacks

    def fit(self, X: Any, y: Any) -> Self:
        """Fit coefficients.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense; read as float64.
        y : array-like of shape (n_samples,)

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a parameter is out of range.
        ValueError
            If X or y is of the wrong shape, or has NaN or infinite values, in scikit-learn's words.
        """
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        y = np.asarray(y, np.float64)
        problem = _Problem.of(X, y, self.fit_intercept)
        self.cv_error_: Vector | None = None
        self.ridge_ = 0.0 if is_auto(self.ridge) else float(self.ridge)
        scaled = self._fit_scaled(problem)
        exact = problem.exact(scaled) if self.ridge_ == 0 else None
        if exact is None and is_auto(self.ridge):
            self.ridge_ = self._chosen_ridge(problem, X, y)
            scaled = self._fit_scaled(problem)
        self.coef_ = problem.rescaled(scaled if exact is None else exact)
        self.intercept_ = float(problem.y_mean - problem.x_mean @ self.coef_)
        return self

    def predict(self, X: Any) -> Vector:
        """Predict the target of samples: array-like of shape (n_samples, n_features) in, (n_samples,) out."""
        self._check_fitted("coef_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        predicted: Vector = X @ self.coef_ + self.intercept_
        return predicted

    def _fit_scaled(self, problem: _Problem) -> Vector:
        return self._settled(reweighted(problem.matrix, problem.target, self.power, self.ridge_, self.floor))

    def _chosen_ridge(self, problem: _Problem, X: Vector, y: Vector) -> float:
        """Return the ridge of the sequence whose error on the samples left out is least, the larger of equal ones."""
        ridges = ridge_sequence(problem.matrix, problem.target, self.power)
        cv = KFold(min(self.cv, len(y))) if is_whole(self.cv) else check_cv(self.cv)
        errors, count = np.zeros(len(ridges)), 0
        for kept, left_out in cv.split(X, y):
            part = _Problem.of(X[kept], y[kept], self.fit_intercept)
            # The ridge stands beside a sum over samples, of which there are fewer here.
            share = len(kept) / len(y)
            for i, ridge in enumerate(ridges):
                coef = part.rescaled(self._coarse(part, share * ridge))
                missed = y[left_out] - part.y_mean - (X[left_out] - part.x_mean) @ coef
                errors[i] += np.sum((missed / problem.y_scale) ** 2)
            count += len(left_out)
        self.cv_error_ = errors / count
        return float(ridges[np.argmin(errors)])

    def _coarse(self, problem: _Problem, ridge: float) -> Vector:
        """Coefficients good enough to compare ridges by; what has not settled is judged by its error all the same."""
        last, tol = np.zeros(problem.matrix.shape[1]), max(self.tol, COARSE)
        iterates = reweighted(problem.matrix, problem.target, self.power, ridge, self.floor, COARSE_FACTOR)
        for z in islice(iterates, self.max_iter):
            settled = np.linalg.norm(z - last) <= tol * np.linalg.norm(z)
            last = z
            if settled:
                break
        return last

    def _check_parameters(self) -> None:
        check_number("power", self.power, least=0, above=True)
        check_number("ridge", self.ridge, least=0, auto=True)
        check_number("floor", self.floor, least=0, auto=True)
        check_loop(self)
        if not isinstance(self.fit_intercept, bool | np.bool_):
            raise InputError(f"fit_intercept={self.fit_intercept!r} must be True or False")
        if not (is_whole(self.cv) and self.cv >= 2) and not hasattr(self.cv, "split"):
            raise InputError(f"cv={self.cv!r} must be a whole number of at least 2, or a splitter such as KFold()")


def sparse_path(
    X: Any,
    y: Any,
    *,
    power: float = 0.5,
    ridges: Sequence[float] | Vector | None = None,
    eps: float = 1e-3,
    n_ridges: int = 20,
    floor: float | Literal["auto"] = "auto",
    max_iter: int = 5000,
    tol: float = 1e-6,
) -> tuple[Vector, Vector]:
    """Compute the coefficients along a falling sequence of ridges, as `sklearn.linear_model.lasso_path` does.

    There is no intercept: centre X and y first where one is wanted. Each ridge is fitted on its own, from D = I: what
    is found does not depend on the other ridges.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
    y : array-like of shape (n_samples,)
    power, floor, max_iter, tol
        As for `SparseRegression`.
    ridges : array-like of shape (n_ridges,), optional
        Ridges as for `SparseRegression`, sorted here to fall. None takes a sequence from a ridge at which all
        coefficients are 0 if columns are orthogonal.
    eps : float, default 1e-3
        Smallest coefficient that the last ridge lets through over that of the first: 0 < eps < 1. The ridges themselves
        end at eps^(4 power) of the first.
    n_ridges : int, default 20
        Length of the sequence; powers above 1/4 choose among supports, of which a coarse sequence misses few.

    Returns
    -------
    ridges : float64 ndarray of shape (n_ridges,)
    coefs : float64 ndarray of shape (n_features, n_ridges)

    Raises
    ------
    InputError
        If a parameter is out of range.
    """
    model = SparseRegression(power, ridge=0.0, floor=floor, fit_intercept=False, max_iter=max_iter, tol=tol)
    model._check_parameters()
    X, y = validate_data(model, X, y, dtype=np.float64, y_numeric=True)
    if ridges is None:
        problem = _Problem.of(X, y, False)
        ridges = ridge_sequence(problem.matrix, problem.target, power, eps, n_ridges)
    falling = np.sort(np.asarray(ridges, np.float64))[::-1]
    return falling, np.stack([model.set_params(ridge=float(ridge)).fit(X, y).coef_ for ridge in falling], axis=1)


def ridge_sequence(X: Vector, y: Vector, power: float, eps: float = 1e-3, n_ridges: int = 20) -> Vector:
    """Return falling ridges, the first a little more than leaves no coefficient if columns of X are orthogonal.

    A single column of square norm v with c = |x'y| has a fixed point z > 0 if c z^q = ridge + v z^(q+1) has a root, for
    q = 4 power - 1: that is, if ridge ≤ v u^(q+1) / q with u = c q / (v (q+1)); at q = 0, if ridge ≤ c. Lowering the
    threshold u by a factor lowers the ridge by the factor's power q + 1 = 4 power.

    Raises
    ------
    InputError
        If ``eps`` or ``n_ridges`` is out of range.
    """
    if not is_number(eps) or not 0 < eps < 1:
        raise InputError(f"eps={eps!r} must be above 0 and below 1")
    check_whole("n_ridges", n_ridges, 1)
    squares, correlations, q = np.sum(X**2, axis=0), np.abs(X.T @ y), 4 * power - 1
    if q > 0:
        smallest = q / (q + 1) * correlations / np.maximum(squares, np.finfo(np.float64).tiny)
        largest = np.max(squares * smallest ** (q + 1)) / q
    else:  # p ≥ 1: convex
        largest = np.max(correlations)
    return MARGIN * float(largest) * np.geomspace(1, eps, n_ridges) ** (4 * power)


def reweighted(
    X: Vector, y: Vector, power: float, ridge: float, floor: float | Literal["auto"], factor: float = FLOOR_FACTOR
) -> Iterator[Vector]:
    """Yield the coefficients of one iteration after another, from D = I on; an automatic floor falls by ``factor``."""
    weights, falling, start = np.ones(X.shape[1]), 0.0, None
    while True:
        z = weighted_ridge(X, y, weights, ridge)
        if isinstance(floor, str):
            largest = float(np.max(z**2))
            falling = largest if start is None else factor * falling
            start = falling if start is None else start
            falling = falling if falling > FLOOR_END * start else 0.0
            # Too large a ridge draws all coefficients to 0 together, at power 1/4 without an end.
            z = z if largest > FLOOR_END * start else np.zeros_like(z)
        yield z
        weights = (z**2 + (falling if isinstance(floor, str) else floor)) ** (2 * power)


def weighted_ridge(X: Vector, y: Vector, weights: Vector, ridge: float) -> Vector:
    """Return z of least ||y - X z||^2 + ridge z' D^-1 z, D = diag(weights): in the limit where the ridge is 0.

    In the coordinates w = D^(-1/2) z it is ridge regression on A = X D^(1/2), solved in whichever form has the smaller
    Gram: A'A over features of any weight, or AA' over samples. A ridge that the Gram's rounding would swallow, 0 above
    all, takes an orthogonal factorisation of A, which is dearer.
    """
    z, largest = np.zeros(len(weights)), float(np.max(weights))
    if largest <= np.finfo(np.float64).tiny * max(ridge, 1.0):  # the ridge has won: all fell towards 0 together
        return z
    kept = weights > NEGLIGIBLE_WEIGHT * largest
    # Over the largest weight, for with a high power all of them can be close to underflow.
    roots, ridge = np.sqrt(weights[kept] / largest), ridge / largest
    A = X[:, kept] * roots
    if ridge <= ROUNDING * np.sum(A**2):
        w = _orthogonal_solve(A, ridge, y)
    elif A.shape[1] <= A.shape[0]:
        w = _ridge_solve(A.T @ A, ridge, A.T @ y)
    else:
        w = A.T @ _ridge_solve(A @ A.T, ridge, y)
    z[kept] = roots * w
    return z


def _orthogonal_solve(A: Vector, ridge: float, y: Vector) -> Vector:
    """Ridge regression of y on A without a Gram: as the least squares, or the interpolation of least norm, it also is.

    The latter is of w beside v = (y - A w) / sqrt(ridge), one a sample: A w + sqrt(ridge) v = y with least w'w + v'v.
    """
    (n, p), right = A.shape, y
    if ridge and p <= n:
        A, right = np.vstack([A, np.sqrt(ridge) * np.eye(p)]), np.concatenate([y, np.zeros(p)])
    elif ridge:
        A = np.hstack([A, np.sqrt(ridge) * np.eye(n)])
    solved: Vector = lstsq(A, right, cond=np.finfo(np.float64).eps, lapack_driver="gelsy")[0][:p]
    return solved


def _ridge_solve(gram: Vector, ridge: float, right: Vector) -> Vector:
    gram.flat[:: len(gram) + 1] += ridge
    solved: Vector = cho_solve(cho_factor(gram, lower=True, overwrite_a=True), right)
    return solved


@dataclass(frozen=True)
class _Problem:
    """X and y, centred if wanted and each divided by its root mean square, and how to go back."""

    matrix: Vector
    target: Vector
    x_mean: Vector
    y_mean: float
    x_scale: float
    y_scale: float
    unknown_means: int

    @classmethod
    def of(cls, X: Vector, y: Vector, centre: bool) -> _Problem:
        x_mean, y_mean = (X.mean(axis=0), float(y.mean())) if centre else (np.zeros(X.shape[1]), 0.0)
        matrix, target = X - x_mean, y - y_mean
        x_scale, y_scale = _scale(matrix), _scale(target)
        return cls(matrix / x_scale, target / y_scale, x_mean, y_mean, x_scale, y_scale, int(centre))

    def exact(self, scaled: Vector) -> Vector | None:
        """Least squares on the nonzero coefficients, if they are fewer than the samples and leave no residual."""
        support = np.flatnonzero(self.cut(scaled))
        if len(support) + self.unknown_means >= len(self.target):
            return None
        columns, solved = self.matrix[:, support], np.zeros_like(scaled)
        solved[support] = np.linalg.lstsq(columns, self.target)[0]
        left = self.target - self.matrix @ solved
        return solved if np.linalg.norm(left) <= EXACT * np.linalg.norm(self.target) else None

    def cut(self, scaled: Vector) -> Vector:
        """Set coefficients to 0 whose part in the prediction is negligible."""
        parts = np.abs(scaled) * np.linalg.norm(self.matrix, axis=0)
        least = NEGLIGIBLE * max(float(np.max(parts)), float(np.linalg.norm(self.target)))
        return np.where(parts > least, scaled, 0.0)

    def rescaled(self, scaled: Vector) -> Vector:
        """Coefficients for X and y as they were given."""
        return self.cut(scaled) * (self.y_scale / self.x_scale)


def _scale(array: Vector) -> float:
    """Root mean square, over the largest entry first so that squares stay in range; 1 for zeros."""
    largest = float(np.max(np.abs(array)))
    return largest * float(np.sqrt(np.mean((array / largest) ** 2))) if largest else 1.0
