"""How well a deep linear model's layers keep to the neural feature ansatz. Knows layers, not how they were found."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rfmdist.deep import ansatz_powers, layer_product
from rfmdist.errors import InputError
from rfmdist.iterating import Iterate

Matrix = NDArray[np.float64]


class Layered(Protocol):
    """What has ``layers_``, also while its fit runs: `rfmdist.DeepLinRFM`, `DeepLinearNetwork`."""

    layers_: list[Matrix]


def nfa_correlation(layers: Sequence[Any]) -> Matrix:
    """Return how well each hidden layer keeps to the neural feature ansatz W_ℓ'W_ℓ ∝ AGOP_ℓ^(1/(L-ℓ+1)).

    AGOP_ℓ = (W_L ⋯ W_ℓ)'(W_L ⋯ W_ℓ) is the average gradient outer product with respect to what enters layer ℓ. The
    correlation is the cosine of the two matrices' entries, tr(AB) / (‖A‖ ‖B‖), not centred: 1 if and only if they are
    proportional, and at least 0, for both are positive semi-definite (arXiv 2401.04553, its section on the ansatz in
    deep linear networks).

    Parameters
    ----------
    layers : sequence of ndarray
        W_1, …, W_L, W_1 the one that meets the input; L ≥ 2.

    Returns
    -------
    float64 ndarray of shape (L - 1,)
        Of layers 1..L-1. The last one's would be 1 for any network: its own W_L'W_L is its AGOP. NaN where a layer or
        its AGOP is zero.

    Raises
    ------
    InputError
        If there are fewer than two layers, they cannot be multiplied, or are not finite.
    """
    weights = [np.asarray(layer, np.float64) for layer in layers]
    _check(weights)
    found = []
    for below, power in enumerate(ansatz_powers(len(weights))[:-1]):
        found.append(_cosine(weights[below].T @ weights[below], _gram_power(layer_product(weights[below:]), power)))
    return np.array(found)


class NFATrace:
    """A callback that keeps a model's `nfa_correlation` along its fit: ``model.callbacks = [NFATrace(model)]``.

    Parameters
    ----------
    model : DeepLinRFM or DeepLinearNetwork
        The one that is fitted.

    Attributes
    ----------
    correlations : list of float64 ndarray of shape (L - 1,)
        One an iterate.
    """

    def __init__(self, model: Layered) -> None:
        self.model = model
        self.correlations: list[Matrix] = []

    def __call__(self, iterate: Iterate) -> None:
        """Keep the correlations of the layers as they are now."""
        self.correlations.append(nfa_correlation(self.model.layers_))


def _check(weights: list[Matrix]) -> None:
    if len(weights) < 2 or any(layer.ndim != 2 for layer in weights):
        raise InputError("layers must be a list of two or more matrices, W_1 first")
    shapes = [layer.shape for layer in weights]
    if any(above[1] != below[0] for below, above in pairwise(shapes)):
        raise InputError(f"layers of shapes {shapes} cannot be multiplied: give W_1 first, each (out, in)")
    if not all(np.isfinite(layer).all() for layer in weights):
        raise InputError("layers hold NaN or inf: lower the step, or raise the ridge, of the fit they come from")


def _gram_power(matrix: Matrix, power: float) -> Matrix:
    """(matrix' matrix)^power: by singular values, for squaring first would lose those below 1e-8 of the largest."""
    _, singular, right = np.linalg.svd(matrix, full_matrices=False)
    raised: Matrix = (right.T * singular ** (2 * power)) @ right
    return raised


def _cosine(left: Matrix, right: Matrix) -> float:
    size = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(np.sum(left * right)) / size if size > 0 else float("nan")
