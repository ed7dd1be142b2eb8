"""Tests of `DiagonalNetwork`: its gradient, where it ends, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog
from sklearn.exceptions import NotFittedError

from rfmdist import InputError
from rfmdist.baselines.diagonal_network import DiagonalNetwork, layer_gradients


def problem(samples: int, features: int, seed: int = 0) -> tuple[Any, Any]:
    """Draw X and y = X w of two nonzero coefficients, 1 and -2."""
    X = np.random.default_rng(seed).normal(size=(samples, features))
    return X, X[:, 1] - 2 * X[:, 3]


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_gradient_is_that_of_finite_differences(depth: int) -> None:
    """The gradient in one layer, the others held, is that of central differences of the loss."""
    X, y = problem(7, 5)
    layers = np.random.default_rng(1).uniform(0.2, 1, size=(2, 5))

    def loss(varied: Any) -> float:
        u, v = varied * layers ** (depth - 1)
        return float(np.sum((X @ (u - v) - y) ** 2) / (2 * len(y)))

    expected = np.empty((2, 5))
    for place in np.ndindex(2, 5):
        moved = np.zeros((2, 5))
        moved[place] = 1e-5
        expected[place] = (loss(layers + moved) - loss(layers - moved)) / 2e-5
    residual_gradient = X.T @ (X @ (layers[0] ** depth - layers[1] ** depth) - y) / len(y)
    np.testing.assert_allclose(layer_gradients(layers, residual_gradient, depth), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("depth", [2, 3])
def test_steps_are_those_of_every_layer_trained_by_itself(depth: int) -> None:
    """A network of 2 L separate layers, each by its own gradient, has the same coefficients after every step."""
    X, y = problem(7, 5)
    layers, expected = np.full((depth, 2, 5), 0.3), []
    for _ in range(20):
        u, v = layers.prod(axis=0)
        g = X.T @ (X @ (u - v) - y) / len(y)
        slopes = [np.delete(layers, k, axis=0).prod(axis=0) * np.stack([g, -g]) for k in range(depth)]
        layers = layers - 0.05 * np.stack(slopes)
        expected.append(np.subtract(*layers.prod(axis=0)))
    seen: list[Any] = []
    model = DiagonalNetwork(
        depth, initialisation=0.3, step=0.05, max_iter=20, tol=0, callbacks=[lambda i: seen.append(i.estimate)]
    )
    np.testing.assert_allclose(model.fit(X, y).coef_, expected[-1], rtol=1e-12)
    np.testing.assert_allclose(seen, expected, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_loss_falls(depth: int) -> None:
    """The automatic step lowers the loss at every step."""
    X, y = problem(12, 20)
    losses: list[float] = []
    keep = [lambda iterate: losses.append(np.sum((X @ iterate.estimate - y) ** 2))]
    DiagonalNetwork(depth, initialisation=0.1, max_iter=1500, tol=0, callbacks=keep).fit(X, y)
    assert losses[-1] < 1e-2 * losses[0]
    assert (np.diff(losses) <= 0).all()


def test_depth_2_tends_to_the_least_l1_norm() -> None:
    """Of the interpolations the l1 norm comes within 2 % of the least, and the closer the smaller the start."""
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(5, 12)), rng.normal(size=5)
    least = linprog(np.ones(24), A_eq=np.hstack([X, -X]), b_eq=y).fun
    excess = [
        np.abs(DiagonalNetwork(initialisation=start, max_iter=100_000).fit(X, y).coef_).sum() / least - 1
        for start in (1e-2, 1e-4)
    ]
    assert -1e-5 < excess[1] < 0.02
    assert excess[1] < excess[0]


def test_predictions_are_the_coefficients_products() -> None:
    """`predict` multiplies by ``coef_``, once fitted."""
    X, y = problem(12, 6)
    with pytest.raises(NotFittedError, match="call fit first"):
        DiagonalNetwork().predict(X)
    model = DiagonalNetwork(initialisation=0.1, tol=1e-6).fit(X, y)
    np.testing.assert_allclose(model.predict(X), X @ model.coef_)
    np.testing.assert_allclose(model.coef_, [0, 1, 0, -2, 0, 0], atol=0.02)
    assert model.n_iter_ == len(model.history_)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("depth", 1),
        ("depth", 2.5),
        ("initialisation", 0),
        ("step", 0),
        ("step", "large"),
        ("tol", -1),
        ("max_iter", 0),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, value: Any) -> None:
    """A refusal names the parameter and its value."""
    with pytest.raises(InputError, match=f"^{name}={value!r} must be"):
        DiagonalNetwork(**{name: value}).fit(*problem(5, 6))


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_a_step_too_large_is_told() -> None:
    """Training that diverges is refused with the way out."""
    with pytest.raises(InputError, match="lower the step"):
        DiagonalNetwork(initialisation=1.0, step=10.0).fit(*problem(12, 6))


def test_missing_values_are_refused() -> None:
    """NaN is refused in scikit-learn's words."""
    X, y = problem(5, 6)
    X[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        DiagonalNetwork().fit(X, y)
