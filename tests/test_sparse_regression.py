"""Tests of `SparseRegression`: what it iterates, where it ends, and how scikit-learn takes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from sklearn.linear_model import Lasso, LassoCV
from sklearn.model_selection import ShuffleSplit
from sklearn.utils.estimator_checks import check_estimator

from rfmdist import InputError, SparseRegression
from rfmdist.sparse_regression import sparse_path, weighted_ridge


def problem(samples: int, features: int, nonzero: int, seed: int, noise: float = 0.0) -> tuple[Any, Any, Any]:
    """Draw X, y and the coefficients, whose places are random and whose sizes are between 1 and 2."""
    rng = np.random.default_rng(seed)
    X, w = rng.normal(size=(samples, features)), np.zeros(features)
    w[rng.permutation(features)[:nonzero]] = rng.choice([-1, 1], nonzero) * rng.uniform(1, 2, nonzero)
    return X, X @ w + noise * rng.normal(size=samples), w


def oracle(X: Any, y: Any, power: float, ridge: float, floor: float) -> Iterator[Any]:
    """Algorithm 1 for a vector: w least ||X M w - y||^2 + ridge ||w||^2, or of least norm; M = (AGOP + floor)^power."""
    root = np.ones(X.shape[1])
    while True:
        weighted, extra = X * root, np.sqrt(ridge) * np.eye(X.shape[1])
        w = np.linalg.lstsq(np.vstack([weighted, extra]), np.concatenate([y, np.zeros(X.shape[1])]))[0]
        z = root * w
        yield z
        root = (z**2 + floor) ** power


def estimates_of(model: SparseRegression, X: Any, y: Any) -> list[Any]:
    """Fit, and return the estimates that callbacks are told of."""
    seen: list[Any] = []
    model.set_params(callbacks=[lambda iterate: seen.append(iterate.estimate)]).fit(X, y)
    return seen


@pytest.mark.parametrize("power", [0.25, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
@pytest.mark.parametrize("ridge", [0.1, 1e-9, 0.0])
def test_iterates_are_those_of_algorithm_1(power: float, shape: tuple[int, int], ridge: float) -> None:
    """Each iterate is the transcription's: primal and dual form, and the orthogonal one of small ridges."""
    X, y, _ = problem(*shape, 4, seed=1, noise=0.1)
    scaled, target = X / np.sqrt(np.mean(X**2)), y / np.sqrt(np.mean(y**2))
    model = SparseRegression(power, ridge=ridge, floor=1e-2, fit_intercept=False, max_iter=8, tol=0)
    found = estimates_of(model, X, y)
    assert len(found) == 8
    for mine, theirs in zip(found, oracle(scaled, target, power, ridge, 1e-2), strict=False):
        np.testing.assert_allclose(mine, theirs, atol=1e-10 * np.linalg.norm(theirs))


def test_floor_falls_from_the_largest_coefficient() -> None:
    """The automatic floor starts at the first iterate's largest square and is 0.8 of itself an iteration later."""
    X, y, _ = problem(12, 30, 3, seed=2)
    scaled, target = X / np.sqrt(np.mean(X**2)), y / np.sqrt(np.mean(y**2))
    first, second, third = estimates_of(SparseRegression(ridge=0.1, fit_intercept=False, max_iter=3, tol=0), X, y)
    for before, after, share in ((first, second, 1.0), (second, third, 0.8)):
        weights = before**2 + share * np.max(first**2)
        expected = weights * (scaled.T @ np.linalg.solve((scaled * weights) @ scaled.T + 0.1 * np.eye(12), target))
        np.testing.assert_allclose(after, expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_power_of_a_quarter_without_ridge_is_basis_pursuit(seed: int) -> None:
    """At power 1/4 and ridge 0 the fit is the interpolation of least l1 norm that linear programming finds."""
    X, y, _ = problem(15, 30, 8, seed)
    found = SparseRegression(0.25, ridge=0.0, fit_intercept=False, tol=1e-9).fit(X, y).coef_
    program = linprog(np.ones(60), A_eq=np.hstack([X, -X]), b_eq=y)
    np.testing.assert_allclose(X @ found, y, atol=1e-5 * np.linalg.norm(y))
    assert np.abs(found).sum() == pytest.approx(program.fun, rel=1e-6)
    np.testing.assert_allclose(found, program.x[:30] - program.x[30:], atol=1e-4)


def test_power_of_a_quarter_is_the_lasso() -> None:
    """At power 1/4 a ridge is the Lasso of alpha = ridge x s / n, intercept included."""
    X, y, _ = problem(40, 20, 5, seed=0, noise=0.5)
    y += 3
    model = SparseRegression(0.25, ridge=4.0, tol=1e-9).fit(X, y)
    x, s = np.sqrt(np.mean((X - X.mean(axis=0)) ** 2)), y.std()
    lasso = Lasso(alpha=4.0 * x * s / 40, tol=1e-12, max_iter=100_000).fit(X, y)
    np.testing.assert_allclose(model.coef_, lasso.coef_, atol=1e-5)
    assert model.intercept_ == pytest.approx(lasso.intercept_, abs=1e-5)
    np.testing.assert_array_equal(model.coef_ != 0, lasso.coef_ != 0)


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_support_is_recovered(power: float, seed: int) -> None:
    """From six samples a nonzero coefficient of 100 the support is found exactly by defaults, and the coefficients."""
    X, y, w = problem(30, 100, 5, seed)
    model = SparseRegression(power, fit_intercept=False).fit(X, y)
    np.testing.assert_array_equal(model.coef_ != 0, w != 0)
    np.testing.assert_allclose(model.coef_, w, atol=1e-12)
    assert model.ridge_ == 0
    assert model.cv_error_ is None


@pytest.mark.slow
def test_fewer_samples_than_the_lasso_needs() -> None:
    """Where basis pursuit finds few of the Gaussian vectors, power 1/2 finds most: the paper's claim, in small."""
    found: dict[float, int] = {0.25: 0, 0.5: 0}
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X, w = rng.normal(size=(35, 200)), np.zeros(200)
        w[:10] = rng.normal(size=10)
        for power in found:
            coef = SparseRegression(power, ridge=0.0, fit_intercept=False, tol=1e-4).fit(X, X @ w).coef_
            found[power] += bool(np.linalg.norm(coef - w) < 1e-3 * np.linalg.norm(w))
    assert found[0.5] >= found[0.25] + 3


@pytest.mark.parametrize("seed", range(2))
def test_noise_is_told_and_a_ridge_chosen(seed: int) -> None:
    """With noise a ridge is chosen at the least cross-validated error; the error is two thirds of LassoCV's or less."""
    X, y, w = problem(60, 100, 5, seed, noise=0.2)
    model, lasso = SparseRegression().fit(X, y), LassoCV().fit(X, y)
    assert model.cv_error_ is not None
    ridges, _ = sparse_path(X - X.mean(axis=0), y - y.mean())
    assert model.ridge_ == pytest.approx(ridges[np.argmin(model.cv_error_)])
    assert np.linalg.norm(model.coef_ - w) < np.linalg.norm(lasso.coef_ - w) / 1.5
    assert (model.coef_[w != 0] != 0).all()


def test_folds_may_be_a_splitter() -> None:
    """A scikit-learn splitter chooses the folds."""
    X, y, _ = problem(30, 10, 3, seed=0, noise=0.5)
    halves = SparseRegression(cv=ShuffleSplit(1, test_size=0.5, random_state=0)).fit(X, y)
    folds = SparseRegression(cv=5).fit(X, y)
    assert halves.cv_error_ is not None
    assert folds.cv_error_ is not None
    assert not np.allclose(halves.cv_error_, folds.cv_error_)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000), power=st.sampled_from([0.25, 0.5, 1.0]), of_x=st.integers(-9, 9), of_y=st.integers(-9, 9)
)
def test_scales_and_permutations(seed: int, power: float, of_x: int, of_y: int) -> None:
    """Scaled and shifted data scale the coefficients, permuted columns permute them; the ridge has no unit."""
    X, y, _ = problem(15, 20, 3, seed, noise=0.1)
    order = np.random.default_rng(seed).permutation(20)
    settings = {"ridge": 0.5, "max_iter": 15, "tol": 0}
    plain = SparseRegression(power, **settings).fit(X, y)
    moved = SparseRegression(power, **settings).fit(10.0**of_x * X[:, order] + 10.0**of_x, 10.0**of_y * y + 10.0**of_y)
    expected = 10.0 ** (of_y - of_x) * plain.coef_[order]
    np.testing.assert_allclose(moved.coef_, expected, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_path_starts_where_an_orthogonal_coefficient_appears(power: float) -> None:
    """On orthonormal columns the path starts a tenth above the ridge that lets a coefficient in, and ends with all."""
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 6)))[0]
    y = Q @ np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.5])
    ridges, coefs = sparse_path(Q, y, power=power)
    counts = np.count_nonzero(coefs, axis=0)
    assert coefs.shape == (6, 20)
    assert (np.diff(ridges) < 0).all()
    assert (counts[0], counts[-1]) == (0, 6)
    assert (np.diff(counts) >= 0).all()
    _, below = sparse_path(Q, y, power=power, ridges=[0.98 * ridges[0] / 1.1])
    np.testing.assert_array_equal(below[:, 0] != 0, [True, False, False, False, False, False])


def test_path_is_that_of_the_estimator() -> None:
    """Given ridges are sorted to fall, and each column is the estimator's fit at that ridge."""
    X, y, _ = problem(20, 30, 4, seed=0, noise=0.1)
    ridges, coefs = sparse_path(X, y, ridges=[0.1, 1.0])
    np.testing.assert_array_equal(ridges, [1.0, 0.1])
    for ridge, coef in zip(ridges, coefs.T, strict=True):
        np.testing.assert_array_equal(coef, SparseRegression(ridge=ridge, fit_intercept=False).fit(X, y).coef_)


def test_weights_of_zero_leave_features_out() -> None:
    """A feature of weight 0 has coefficient 0, and all features of weight 0 give zeros."""
    X, y, _ = problem(10, 6, 3, seed=0)
    z = weighted_ridge(X, y, np.array([1.0, 0, 2, 0, 1, 1]), 0.1)
    np.testing.assert_array_equal(z != 0, [True, False, True, False, True, True])
    np.testing.assert_array_equal(weighted_ridge(X, y, np.zeros(6), 0.1), np.zeros(6))


def test_a_ridge_too_large_leaves_nothing() -> None:
    """Beyond the path's start all coefficients fall to 0, and the prediction is the mean."""
    X, y, _ = problem(20, 8, 3, seed=0)
    model = SparseRegression(1.0, ridge=1e6).fit(X, y)
    np.testing.assert_array_equal(model.coef_, np.zeros(8))
    np.testing.assert_allclose(model.predict(X), y.mean())


def test_scikit_learn_takes_it() -> None:
    """Every check that scikit-learn has for estimators passes, but those it skips for lack of an option."""
    results = check_estimator(SparseRegression(), on_skip=None)
    assert len(results) > 30
    assert {result["status"] for result in results} <= {"passed", "skipped"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("power", 0),
        ("power", "big"),
        ("ridge", -1),
        ("ridge", np.nan),
        ("floor", -1e-3),
        ("floor", "none"),
        ("tol", -1),
        ("max_iter", 0),
        ("max_iter", 2.5),
        ("fit_intercept", "yes"),
        ("cv", 1),
        ("cv", None),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, value: Any) -> None:
    """A refusal names the parameter and its value."""
    X, y, _ = problem(10, 6, 3, seed=0)
    with pytest.raises(InputError, match=f"^{name}={value!r} must be"):
        SparseRegression(**{name: value}).fit(X, y)


@pytest.mark.parametrize(("name", "value"), [("eps", 0), ("eps", 1), ("n_ridges", 0)])
def test_paths_out_of_range_are_refused(name: str, value: Any) -> None:
    """A refusal names the parameter of the path and its value."""
    X, y, _ = problem(10, 6, 3, seed=0)
    with pytest.raises(InputError, match=f"^{name}={value!r} must be"):
        sparse_path(X, y, **{name: value})
