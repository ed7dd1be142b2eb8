"""Deep linear networks against plain gradient descent, and what the small start makes of them."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from oracles import Matrix, as_sparse, distance, sparse_problem

from rfmdist import DeepLinRFM, InputError
from rfmdist.nfa import NFATrace, nfa_correlation

pytest.importorskip("jax")

from rfmdist.baselines.deep_linear import DeepLinearNetwork


def low_rank(seed: int) -> tuple[Matrix, Matrix]:
    """Give a 20 x 18 matrix of rank 1, and half of it, NaN elsewhere."""
    rng = np.random.default_rng(seed)
    full = np.outer(rng.normal(size=20), rng.normal(size=18))
    return full, np.where(rng.random((20, 18)) < 0.5, full, np.nan)


def descended(layers: list[Matrix], values: Matrix, step: float, steps: int) -> list[Matrix]:
    """Plain gradient descent on half the sum of squares of three layers."""
    first, second, third = layers
    for _ in range(steps):
        residual = np.nan_to_num(third @ second @ first - values)
        first, second, third = (
            first - step * (third @ second).T @ residual,
            second - step * third.T @ residual @ first.T,
            third - step * residual @ (second @ first).T,
        )
    return [first, second, third]


def test_a_fixed_step_is_plain_gradient_descent() -> None:
    """Sixty steps of a given size are the transcription's, in float64."""
    values = sparse_problem(np.random.default_rng(0), 9, 7, density=0.6)
    unit = float(np.sqrt(np.nanmean(values**2)))
    model = DeepLinearNetwork(step=0.01, steps=30, initialisation=0.1, max_iter=1, tol=0).fit(as_sparse(values))
    halfway = [layer / unit ** (1 / 3) for layer in model.layers_]
    model = model.set_params(max_iter=2).fit(as_sparse(values))
    expected = descended(halfway, values / unit, 0.01, 30)
    for found, layer in zip(model.layers_, expected, strict=True):
        assert distance(found / unit ** (1 / 3), layer) < 1e-12
    assert distance(model.matrix_, model.layers_[2] @ model.layers_[1] @ model.layers_[0]) < 1e-14
    residual = np.nan_to_num((model.matrix_ - values) / unit)
    assert model.loss_ == pytest.approx(0.5 * np.sum(residual**2), rel=1e-10)


@pytest.mark.parametrize("width", [None, 3, 12])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_balanced_start(depth: int, width: int | None) -> None:
    """The start is balanced and its map has the scale asked for, whatever depth and width."""
    layers = DeepLinearNetwork(depth=depth, width=width)._start((9, 7))
    for below, above in pairwise(layers):
        np.testing.assert_allclose(above.T @ above, below @ below.T, atol=1e-12)
    product = np.linalg.multi_dot(layers[::-1])
    assert product.shape == (9, 7)
    singular = np.linalg.svd(product, compute_uv=False)[: min(9, 7, width or 9)]
    np.testing.assert_allclose(singular, 1e-3, rtol=1e-9)


def test_unbalanced_start_is_not() -> None:
    """Independent layers are out of balance, and another seed is another start."""
    first, second = DeepLinearNetwork(depth=2, balanced=False)._start((9, 7))
    assert distance(second.T @ second, first @ first.T) > 0.1
    other, _ = DeepLinearNetwork(depth=2, balanced=False, random_state=1)._start((9, 7))
    assert distance(first, other) > 0.1


def test_the_loss_never_rises() -> None:
    """With the step chosen for it, no iterate has a larger loss than the one before."""
    _, values = low_rank(1)
    model = DeepLinearNetwork(steps=5, max_iter=60, tol=0)
    losses: list[float] = []
    model.callbacks = [lambda iterate: losses.append(model.loss_)]
    model.fit(as_sparse(values))
    assert (np.diff(losses) <= 0).all()
    assert losses[-1] < 1e-3 * losses[0]


@pytest.mark.parametrize("depth", [3, 4])
def test_keeps_the_ansatz_and_ends_near_deep_lin_rfm(depth: int) -> None:
    """Trained from a small start the correlation is above 0.99 throughout, and the end deep lin-RFM's."""
    full, values = low_rank(2)
    model = DeepLinearNetwork(depth=depth, max_iter=150, tol=1e-5)
    trace = NFATrace(model)
    model.callbacks = [trace]
    model.fit(as_sparse(values))
    assert np.min(trace.correlations) > 0.99
    deep = DeepLinRFM(depth=depth, tol=1e-6).fit(as_sparse(values)).matrix_
    assert distance(model.matrix_, deep) < 0.01
    assert distance(deep, full) < 1e-4


def test_a_large_unbalanced_start_breaks_the_ansatz() -> None:
    """Unbalanced layers of scale 1 fit as well, but correlate less than balanced small ones."""
    _, values = low_rank(3)
    large = DeepLinearNetwork(balanced=False, initialisation=1.0, max_iter=100, tol=1e-5).fit(as_sparse(values))
    assert large.loss_ < 1e-6
    assert nfa_correlation(large.layers_).min() < 0.98


def test_width_bounds_the_rank() -> None:
    """A network of width 1 has a matrix of rank 1."""
    values = sparse_problem(np.random.default_rng(4), 10, 8, density=0.6)
    model = DeepLinearNetwork(width=1, max_iter=5, tol=0).fit(as_sparse(values))
    assert [layer.shape for layer in model.layers_] == [(1, 8), (1, 1), (10, 1)]
    assert np.linalg.matrix_rank(model.matrix_) == 1


def test_measurements_of_single_entries_are_completion() -> None:
    """Sensing with A_k that each show one entry descends as completion does."""
    values = sparse_problem(np.random.default_rng(5), 9, 7, density=0.5)
    at = np.argwhere(~np.isnan(values))
    operators = np.zeros((len(at), 9, 7))
    operators[np.arange(len(at)), at[:, 0], at[:, 1]] = 1
    model = DeepLinearNetwork(step=0.01, max_iter=2, tol=0)
    sensed = model.fit(operators, values[tuple(at.T)]).matrix_
    assert distance(sensed, model.fit(as_sparse(values)).matrix_) < 1e-10


def test_leaves_jax_as_it_was() -> None:
    """A fit in float64 does not turn float64 on for others, and is the same a second time."""
    import jax
    import jax.numpy as jnp

    before = jax.config.jax_enable_x64
    _, values = low_rank(6)
    model = DeepLinearNetwork(max_iter=2, tol=0, callbacks=[lambda _: seen.append(jnp.ones(2).dtype)])
    seen: list[Any] = []
    first = model.fit(as_sparse(values)).matrix_
    assert first.dtype == np.float64
    assert jax.config.jax_enable_x64 == before
    assert set(seen) == {jnp.ones(2).dtype}
    np.testing.assert_array_equal(model.fit(as_sparse(values)).matrix_, first)


def test_without_jax_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without JAX the error names the extra."""
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(InputError, match=r"pip install 'rfmdist\[networks\]'"):
        DeepLinearNetwork().fit(as_sparse(low_rank(7)[1]))


def test_too_large_a_step_is_refused() -> None:
    """A fixed step that diverges ends with a sentence, not with NaN."""
    with pytest.raises(InputError, match="lower the step"):
        DeepLinearNetwork(step=10.0, initialisation=1.0).fit(as_sparse(low_rank(7)[1]))


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"depth": 1}, "depth=1 must be a whole number of at least 2"),
        ({"width": 0}, "width=0 must be a whole number of at least 1"),
        ({"initialisation": 0}, "initialisation=0 must be a number above 0"),
        ({"balanced": "yes"}, "balanced='yes' must be True or False"),
        ({"step": "large"}, "step='large' must be 'auto' or a number above 0"),
        ({"step": -1}, "step=-1 must be a number above 0"),
        ({"steps": 0}, "steps=0 must be a whole number of at least 1"),
        ({"random_state": -1}, "random_state=-1 must be a whole number of at least 0"),
        ({"tol": np.inf}, "tol=inf must be a number of at least 0"),
        ({"max_iter": 0}, "max_iter=0 must be a whole number of at least 1"),
    ],
)
def test_refuses_parameters(parameters: dict[str, Any], sentence: str) -> None:
    """A parameter out of range is refused by name."""
    with pytest.raises(InputError, match=sentence):
        DeepLinearNetwork(**parameters).fit(as_sparse(low_rank(7)[1]))
