"""The ansatz's correlation against its definition, for layers built to keep it and to break it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from oracles import Matrix, as_sparse, eigen_power, sparse_problem

from rfmdist import DeepLinRFM, InputError
from rfmdist.nfa import NFATrace, nfa_correlation


def random_layers(sizes: list[int]) -> list[Matrix]:
    """Give independent normal layers from sizes[0] inputs on."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(out, into)) for into, out in pairwise(sizes)]


def balanced_layers(depth: int) -> list[Matrix]:
    """Give layers of W_{l+1}'W_{l+1} = W_l W_l' with singular values 3, 2, 1."""
    rng = np.random.default_rng(1)
    bases = [np.linalg.qr(rng.normal(size=(size, 3)))[0] for size in [7, *[5] * (depth - 1), 6]]
    return [out * [3.0, 2, 1] @ into.T for into, out in pairwise(bases)]


def test_is_the_cosine_of_its_definition() -> None:
    """Each hidden layer's correlation is the cosine of W'W and the power of its AGOP, by eigenvalues."""
    first, second, third = random_layers([6, 5, 5, 4])
    expected = []
    for layer, above, power in ((first, third @ second @ first, 1 / 3), (second, third @ second, 1 / 2)):
        left, right = layer.T @ layer, eigen_power(above.T @ above, power)
        expected.append(np.trace(left @ right) / np.linalg.norm(left) / np.linalg.norm(right))
    found = nfa_correlation([first, second, third])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (found < 0.99).all(), "random layers do not keep the ansatz"


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_is_one_for_balanced_layers(depth: int) -> None:
    """Balanced layers keep the ansatz exactly, rectangular ones too, and whatever their scale."""
    layers = balanced_layers(depth)
    np.testing.assert_allclose(nfa_correlation(layers), np.ones(depth - 1), atol=1e-12)
    np.testing.assert_allclose(nfa_correlation([1e-9 * layers[0], *layers[1:]]), np.ones(depth - 1), atol=1e-12)


def test_is_below_one_out_of_balance() -> None:
    """Weight moved between layers, direction by direction, breaks the ansatz though the product stays."""
    first, second, third = balanced_layers(3)
    shear = np.diag([1.0, 10, 1, 1, 1])
    assert nfa_correlation([shear @ first, second @ np.linalg.inv(shear), third])[0] < 0.99


def test_a_zero_layer_has_none() -> None:
    """Where a layer is zero there is nothing to correlate."""
    assert np.isnan(nfa_correlation([np.zeros((3, 4)), np.ones((2, 3))])).all()


def test_trace_follows_a_fit_to_one() -> None:
    """The trace has a value an iterate; deep lin-RFM begins off the ansatz and ends on it."""
    values = sparse_problem(np.random.default_rng(2), 14, 12, density=0.7)
    model = DeepLinRFM(ridge=0.1, max_iter=250, tol=0)
    trace = NFATrace(model)
    model.callbacks = [trace]
    model.fit(as_sparse(values))
    assert len(trace.correlations) == model.n_iter_ == 250
    assert trace.correlations[0].max() < 0.95
    assert trace.correlations[-1].min() > 0.999
    np.testing.assert_array_equal(trace.correlations[-1], nfa_correlation(model.layers_))


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ([np.ones((2, 3))], "two or more matrices"),
        ([np.ones(3), np.ones((2, 3))], "two or more matrices"),
        ([np.ones((2, 3)), np.ones((2, 3))], "cannot be multiplied"),
        ([np.ones((2, 3)), np.full((2, 2), np.inf)], "NaN or inf"),
    ],
)
def test_refuses_what_are_no_layers(layers: Any, sentence: str) -> None:
    """Layers that make no network are refused."""
    with pytest.raises(InputError, match=sentence):
        nfa_correlation(layers)
