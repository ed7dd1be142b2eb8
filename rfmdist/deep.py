"""`DeepLinRFM`: a deep linear model fitted without backpropagation. Knows measurements held whole, no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import count, pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rfmdist.checks import check_loop, check_number, check_whole
from rfmdist.errors import InputError
from rfmdist.iterating import Callback, Entries, MatrixCompleter, root_mean_square
from rfmdist.measurements import Table

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Operators:
    """Linear measurements y_k = <A_k, X> of a matrix, all in memory.

    Attributes
    ----------
    matrices : float64 ndarray of shape (N, m, n)
        The A_k.
    values : float64 ndarray of shape (N,)
        The y_k.
    """

    matrices: Matrix
    values: Matrix

    @classmethod
    def of(cls, matrices: Any, values: Any) -> Operators:
        """Read the measurements.

        Raises
        ------
        InputError
            If they are not numbers of these shapes, or not finite.
        """
        try:
            found = cls(np.asarray(matrices, np.float64), np.asarray(values, np.float64))
        except (TypeError, ValueError) as error:
            raise InputError("A and y must be dense arrays of numbers, of shapes (N, m, n) and (N,)") from error
        shapes = found.matrices.shape, found.values.shape
        if found.matrices.ndim != 3 or shapes[1] != shapes[0][:1] or not found.matrices.size:
            raise InputError(
                f"A and y of shapes {shapes[0]} and {shapes[1]} must have shapes (N, m, n) and (N,), N >= 1"
            )
        if not (np.isfinite(found.matrices).all() and np.isfinite(found.values).all()):
            raise InputError("A and y hold NaN or inf: leave out measurements that have no value")
        return found

    @property
    def shape(self) -> tuple[int, int]:
        """Shape m, n of the matrix measured."""
        return self.matrices.shape[1], self.matrices.shape[2]


Measured = Entries | Operators


class MatrixSensor(MatrixCompleter):
    """A `MatrixCompleter` that takes linear measurements too: ``fit(observations)`` or ``fit(A, y)``."""

    def fit(self, observations: Any, y: Any = None) -> Self:
        """Find the matrix of which these entries were observed, or these linear measurements made.

        Parameters
        ----------
        observations : Observations, scipy sparse matrix of shape (m, n), or ndarray of shape (N, m, n)
            With ``y``: the matrices A_k of measurements y_k = <A_k, X>, a dense array. Without: observed entries;
            stored ones are observed, whatever their value, and those for test are not looked at.
        y : ndarray of shape (N,), optional
            The measured values.

        Returns
        -------
        self
            With ``matrix_``, float64 ndarray of shape (m, n).

        Raises
        ------
        InputError
            If a parameter is out of range, the measurements do not fit together or are not finite, or an estimate
            leaves float64's range.
        """
        if y is None:
            super().fit(observations)
            return self
        vars(self).pop("_observations", None)  # an earlier fit's ids are not this one's
        self.matrix_ = self._settled(self._estimates(Operators.of(observations, y)))
        return self

    def predict(self, rows: Any, columns: Any, *, codes: bool = False) -> Matrix:
        """Return entries of the matrix by id or code, float64 ndarray of the arguments' common shape.

        Raises
        ------
        InputError
            If ids are asked for after a fit of linear measurements, which know none.
        """
        self._check_fitted("matrix_")
        if not codes and not hasattr(self, "_observations"):
            raise InputError("linear measurements name no rows and columns by id: ask with codes=True, or read matrix_")
        return super().predict(rows, columns, codes=codes)

    def _estimates(self, entries: Measured) -> Iterable[Matrix]:
        raise NotImplementedError


class DeepLinRFM(MatrixSensor):
    """Deep linear recursive feature machine: layer-wise AGOP powers instead of backpropagation.

    The model is f(A) = <A, W_L ⋯ W_1>. The hidden layers W_1..W_{L-1} are symmetric n × n feature matrices M_ℓ, the
    identity at the start. An iteration goes through them from the top, ℓ = L-1..1: with the last layer solved by least
    squares it sets M_ℓ from the average gradient outer product (AGOP) of the layers above, taken with respect to what
    enters layer ℓ, and solves the last layer again::

        W_L    = argmin Σ_k (<A_k, W_L M_{L-1} ⋯ M_1> - y_k)² + ridge ‖W_L‖²
        AGOP_ℓ = (W_L M_{L-1} ⋯ M_ℓ)' (W_L M_{L-1} ⋯ M_ℓ) / m
        M_ℓ    = (AGOP_ℓ + floor I)^(powers[ℓ-1] / 2)

    This is the neural feature ansatz, W_ℓ'W_ℓ = AGOP_ℓ^(1/(L-ℓ+1)), which balanced deep linear networks satisfy, made
    an algorithm (arXiv 2401.04553, its section on deep linear networks; DESIGN.md, "Deep"). With these powers
    and no floor the fixed points are those of `rfmdist.LinRFM` with ``power=(L-1)/(2 L)``, critical points of the
    Schatten-2/L quasi-norm: there all M_ℓ² are (Z'Z / m)^(1/L). At depth 2 the iterations are the same too.

    To set all M_ℓ from one solve is cheaper, but does not settle at depth 5 (measured on 30 × 30 matrices of rank 2).

    Values are divided by their root mean square, so that ``ridge`` and ``floor`` have no unit; no offsets are taken
    off.

    Parameters
    ----------
    depth : int, default 3
        L ≥ 2, the layers with the last one. 2 is the nuclear norm (p = 1), whose minimum it nears slowly; 3 is the
        least depth whose p = 2/L is below 1 and so finds a low rank from fewer entries.
    powers : sequence of float, optional
        Powers of the AGOP of layers 1..L-1, each above 0; None for the ansatz's 1/(L-ℓ+1).
    ridge : float, default 1e-6
        λ > 0, in units of the values' mean square: small, for data without noise; noise wants more.
    floor : float, default 1e-12
        ε ≥ 0, added to each AGOP's diagonal before its power: far below what is to be found.
    decay : float, default 0.95
        The floor begins at 1 and is multiplied by this each iteration until it is ``floor``; 0 keeps it at ``floor``
        throughout. Below 1. A small floor from the start holds the iterations in the first features that fit: a
        relative error of 0.2 where 0.9 and 0.95 recover the matrix (30 × 30, rank 2, half observed). Nearer 1 is
        slower and recovers from fewer entries.
    max_iter : int, default 2000
        Most iterations.
    tol : float, default 1e-8
        The fit ends when the estimate changes by less than this share: small, since the convergence is linear.
    callbacks : sequence of callables, optional
        Each is called with an `rfmdist.iterating.Iterate`; one that returns True ends the fit.

    Attributes
    ----------
    matrix_ : float64 ndarray of shape (m, n)
        The estimate, W_L ⋯ W_1.
    layers_ : list of float64 ndarray
        W_1 = M_1, …, W_{L-1} = M_{L-1}, each (n, n), and W_L, (m, n), of the last iterate (also while the fit runs).
    history_ : list of Iterate
    n_iter_ : int

    Raises
    ------
    InputError
        From ``fit``, if a parameter is out of range.
    """

    def __init__(
        self,
        *,
        depth: int = 3,
        powers: Sequence[float] | None = None,
        ridge: float = 1e-6,
        floor: float = 1e-12,
        decay: float = 0.95,
        max_iter: int = 2000,
        tol: float = 1e-8,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        self.depth = depth
        self.powers = powers
        self.ridge = ridge
        self.floor = floor
        self.decay = decay
        self.max_iter = max_iter
        self.tol = tol
        self.callbacks = callbacks

    def _estimates(self, entries: Measured) -> Iterable[Matrix]:
        check_whole("depth", self.depth, 2)
        check_loop(self)
        check_number("floor", self.floor, least=0)
        check_number("ridge", self.ridge, least=0, above=True)
        check_number("decay", self.decay, least=0)
        if self.decay >= 1:
            raise InputError(f"decay={self.decay!r} must be below 1: 0.95, or 0 for a floor that stays as it is")
        powers = ansatz_powers(self.depth)[:-1] if self.powers is None else self.powers
        if not isinstance(powers, Sequence | np.ndarray) or len(powers) != self.depth - 1:
            raise InputError(
                f"powers={powers!r} must be a list of depth - 1 = {self.depth - 1} numbers above 0, or None"
            )
        for power in powers:
            check_number("powers", power, least=0, above=True)
        return self._iterates(entries, powers)

    def _iterates(self, measured: Measured, powers: Sequence[float]) -> Iterator[Matrix]:
        (m, n), unit = measured.shape, root_mean_square(measured.values)
        measured = replace(measured, values=measured.values / unit)
        features = [np.eye(n)] * len(powers)
        last = self._last_layer(measured, features)
        for t in count():
            self.layers_ = [*features, unit * last]
            yield unit * layer_product([*features, last])
            floor = max(self.floor, self.decay**t if self.decay else 0.0)
            for layer in reversed(range(len(powers))):
                above = layer_product([*features[layer:], last])
                features[layer] = _eigen_power(above.T @ above / m + floor * np.eye(n), powers[layer] / 2)
                last = self._last_layer(measured, features)

    def _last_layer(self, measured: Measured, features: list[Matrix]) -> Matrix:
        below = layer_product(features)
        return _dual_coefficients(measured, below.T @ below, self.ridge) @ below.T


def ansatz_powers(depth: int) -> list[float]:
    """Return the neural feature ansatz's power 1/(L-ℓ+1) of each layer's AGOP, ℓ = 1..L."""
    return [1 / (depth - below) for below in range(depth)]


def layer_product(layers: Sequence[Any]) -> Any:
    """Return W_L ⋯ W_1 of W_1, …, W_L, arrays of NumPy or of JAX."""
    return reduce(lambda below, layer: layer @ below, layers)


def _dual_coefficients(measured: Measured, features: Matrix, ridge: float) -> Matrix:
    """Return D, (m, n), with which D P is the ridge estimate for features P: Σ a_k A_k, (K + ridge I) a = y.

    K_kl = <A_k P, A_l>. For observed entries the rows are systems of their own, K = P[O_i, O_i] (DESIGN.md,
    "Dual form").
    """
    if isinstance(measured, Operators):
        table = Table(measured.matrices.reshape(len(measured.values), -1), measured.shape, len(measured.values))
        return table.adjoint(_ridge_solve(table.gram(features), ridge, measured.values))
    duals = np.zeros(measured.shape)
    starts = np.searchsorted(measured.rows, np.arange(measured.shape[0] + 1))
    for i, (start, stop) in enumerate(pairwise(starts)):
        seen = measured.columns[start:stop]
        duals[i, seen] = _ridge_solve(features[np.ix_(seen, seen)], ridge, measured.values[start:stop])
    return duals


def _ridge_solve(gram: Matrix, ridge: float, values: Matrix) -> Matrix:
    return np.asarray(np.linalg.solve(gram + ridge * np.eye(len(values)), values), np.float64)


def _eigen_power(matrix: Matrix, power: float) -> Matrix:
    """Power of a symmetric positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    raised: Matrix = (vectors * np.maximum(values, 0) ** power) @ vectors.T
    return raised
