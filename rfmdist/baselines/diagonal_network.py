"""Diagonal linear networks trained by gradient descent, for sparse regression. Knows no lin-RFM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_array, check_X_y

from rfmdist.checks import check_loop, check_number, check_whole
from rfmdist.iterating import Callback, Iterative

Vector = NDArray[np.float64]

FITTED = 1e-6
"""Residual over the target's norm at which training ends."""
STEP_SHARE = 0.5
"""Automatic step over the inverse of the curvature: gradient descent then falls, no entry by half of itself."""


class DiagonalNetwork(Iterative):
    """Linear regression by a diagonal network, f(x) = <x, u^L - v^L>, trained by gradient descent from a small start.

    The baseline of arXiv 2401.04553. All L layers start equal, as a balanced start wants, and so stay: u is
    each of the layers of the positive part, v of the negative, with powers elementwise. The loss is half the mean
    square error. From a small start, depth 2 tends to the solution of least l1 norm; greater depth prefers sparser
    ones, but starts near a saddle that it takes longer to leave. There is no intercept, and nothing is random.

    Parameters
    ----------
    depth : int, default 2
        L, at least 2.
    initialisation : float, default 1e-2
        Every entry of u and v at the start, above 0: f is 0 there. The smaller, the sparser and the slower: to grow, an
        entry takes steps in proportion to log(1 / initialisation) at depth 2, initialisation^(2-L) beyond; 1e-3 suits
        depth 2, 0.1 depth 3 and 4.
    step : float or "auto", default "auto"
        Step of gradient descent. "auto" takes half the inverse of a bound, up to a factor of 2, on the curvature:
        with residual gradient g = X'(X w - y) / n and the largest entry a of u and v, it is
        L a^(2L-2) ||X'X|| / n + (L-1) a^(L-2) max |g|.
    max_iter : int, default 20000
        Most steps.
    tol : float, default 1e-10
        Training ends when w = u^L - v^L changes by less than this share, or the residual is 1e-6 of the target. It is
        small because near a saddle, with entries still to grow, w changes by a share of about initialisation^(2L-2).
    callbacks : sequence of callables, optional
        Each is called with an `Iterate` after every step, its estimate w; one that returns True ends training.

    Attributes
    ----------
    coef_ : float64 ndarray of shape (n_features,)
        w.
    n_iter_ : int
    history_ : list of Iterate
    """

    def __init__(
        self,
        depth: int = 2,
        *,
        initialisation: float = 1e-2,
        step: float | Literal["auto"] = "auto",
        max_iter: int = 20_000,
        tol: float = 1e-10,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        self.depth = depth
        self.initialisation = initialisation
        self.step = step
        self.max_iter = max_iter
        self.tol = tol
        self.callbacks = callbacks

    def fit(self, X: Any, y: Any) -> Self:
        """Train on array-likes of shape (n_samples, n_features) and (n_samples,).

        Raises
        ------
        InputError
            If a parameter is out of range, or training diverges.
        ValueError
            If X or y is of the wrong shape, or has NaN or infinite values, in scikit-learn's words.
        """
        self._check_parameters()
        X, y = check_X_y(X, y, dtype=np.float64, y_numeric=True)
        self.coef_ = self._settled(self._estimates(X, np.asarray(y, np.float64)))
        return self

    def predict(self, X: Any) -> Vector:
        """Predict the target of samples: array-like of shape (n_samples, n_features) in, (n_samples,) out."""
        self._check_fitted("coef_")
        predicted: Vector = check_array(X, dtype=np.float64) @ self.coef_
        return predicted

    def _estimates(self, X: Vector, y: Vector) -> Iterator[Vector]:
        """Yield w after each step."""
        L, largest = self.depth, float(np.linalg.norm(X, 2)) ** 2 / len(y)
        layers = np.full((2, X.shape[1]), float(self.initialisation))
        residual_gradient = -X.T @ y / len(y)
        while True:
            step = _step(layers, residual_gradient, L, largest) if isinstance(self.step, str) else self.step
            layers = layers - step * layer_gradients(layers, residual_gradient, L)
            w = layers[0] ** L - layers[1] ** L
            yield w
            residual = X @ w - y
            if np.linalg.norm(residual) <= FITTED * np.linalg.norm(y):
                return
            residual_gradient = X.T @ residual / len(y)

    def _check_parameters(self) -> None:
        check_whole("depth", self.depth, 2)
        check_number("initialisation", self.initialisation, least=0, above=True)
        check_number("step", self.step, least=0, above=True, auto=True)
        check_loop(self)


def layer_gradients(layers: Vector, residual_gradient: Vector, depth: int) -> Vector:
    """Gradient of half the mean square error in one layer of u and of v, (2, n_features).

    The other depth - 1 layers are equal to it: w_j = u_j^L, of which one factor is varied, so it is u^(L-1) g, not L of
    them; g, of shape (n_features,), is the gradient in w.
    """
    gradients: Vector = layers ** (depth - 1) * np.stack([residual_gradient, -residual_gradient])
    return gradients


def _step(layers: Vector, residual_gradient: Vector, depth: int, largest: float) -> float:
    greatest = float(np.max(np.abs(layers)))
    curvature = depth * greatest ** (2 * depth - 2) * largest
    curvature += (depth - 1) * greatest ** (depth - 2) * float(np.max(np.abs(residual_gradient)))
    return STEP_SHARE / curvature if curvature else 0.0
