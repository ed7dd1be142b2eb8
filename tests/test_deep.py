"""Deep lin-RFM against plain transcriptions of its equations and of lin-RFM's with any power."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oracles import Matrix, as_sparse, distance, dual_estimate, eigen_power, operator_estimate, sparse_problem

from rfmdist import DeepLinRFM, InputError
from rfmdist.iterating import Iterate


def low_rank(m: int, n: int, rank: int, entries: int, seed: int) -> tuple[Matrix, Matrix]:
    """Give a matrix of unit mean square, and what is observed of it, NaN elsewhere."""
    rng = np.random.default_rng(seed)
    full = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n))
    full /= np.sqrt(np.mean(full**2))
    seen = np.zeros(m * n, bool)
    seen[rng.permutation(m * n)[:entries]] = True
    return full, np.where(seen.reshape(m, n), full, np.nan)


def unit_of(values: Matrix) -> float:
    """Give the root mean square of what was observed."""
    return float(np.sqrt(np.nanmean(values**2)))


def power_step(estimate: Matrix, values: Matrix, exponent: float, ridge: float, floor: float) -> Matrix:
    """One iteration of lin-RFM, P = (Z'Z/m + floor I)^exponent, from an estimate."""
    m, n = values.shape
    return dual_estimate(values, eigen_power(estimate.T @ estimate / m + floor * np.eye(n), exponent), ridge)


def transcribed(values: Matrix, powers: list[float], ridge: float, floor: float, sweeps: int) -> list[Matrix]:
    """Deep lin-RFM with each last layer from the primal least squares of Algorithm 1."""
    m, n = values.shape
    roots = [np.eye(n) for _ in powers]

    def last_layer() -> Matrix:
        below = np.eye(n)
        for root in roots:
            below = root @ below
        # Z = W M' with W the solution for A_k M, here M = below'; below is invertible while the floor is positive.
        return operator_estimate(values, below.T, ridge) @ np.linalg.inv(below)

    found = []
    for _ in range(sweeps):
        layers = last_layer()
        for root in roots[::-1]:
            layers = layers @ root
        found.append(layers)
        for at in range(len(powers) - 1, -1, -1):
            above = last_layer()
            for root in roots[: at - 1 if at else None : -1]:
                above = above @ root
            roots[at] = eigen_power(above.T @ above / m + floor * np.eye(n), powers[at] / 2)
    return found


def kept(**parameters: Any) -> tuple[DeepLinRFM, list[Matrix]]:
    """Give a model, and the list its iterates go into."""
    found: list[Matrix] = []

    def keep(iterate: Iterate) -> None:
        assert iterate.estimate is not None
        found.append(iterate.estimate)

    return DeepLinRFM(callbacks=[keep], **parameters), found


@pytest.mark.parametrize("powers", [None, [0.3, 0.7]])
def test_iterates_are_those_of_the_equations(powers: list[float] | None) -> None:
    """Every iterate of depth 3 equals the primal transcription, with the ansatz's powers and with others."""
    values = sparse_problem(np.random.default_rng(0), 9, 7, density=0.6)
    model, found = kept(depth=3, powers=powers, ridge=0.1, floor=0.01, decay=0, max_iter=5, tol=0)
    model.fit(as_sparse(values))
    unit = unit_of(values)
    expected = transcribed(values / unit, powers or [1 / 3, 1 / 2], 0.1, 0.01, 5)
    for mine, theirs in zip(found, expected, strict=True):
        assert distance(mine, unit * theirs) < 1e-9


def test_depth_two_is_lin_rfm_at_every_iterate() -> None:
    """At depth 2 each iterate is that of lin-RFM with 2α = 1/2, floor and all."""
    values = sparse_problem(np.random.default_rng(1), 20, 15, density=0.5)
    model, found = kept(depth=2, ridge=0.05, floor=0.01, decay=0, max_iter=8, tol=0)
    model.fit(as_sparse(values))
    unit = unit_of(values)
    expected = dual_estimate(values / unit, np.eye(15), 0.05)
    for mine in found:
        assert distance(mine, unit * expected) < 1e-10
        expected = power_step(expected, values / unit, 1 / 2, 0.05, 0.01)


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_fixed_point_is_one_of_lin_rfm(depth: int) -> None:
    """Where depth L has settled, an iteration of lin-RFM with 2α = (L-1)/L leads nowhere else."""
    _, values = low_rank(16, 12, 1, 130, seed=2)
    model = DeepLinRFM(depth=depth, ridge=1e-2, floor=0, tol=1e-9).fit(as_sparse(values))
    unit = unit_of(values)
    after = power_step(model.matrix_ / unit, values / unit, (depth - 1) / depth, 1e-2, 0)
    assert distance(unit * after, model.matrix_) < 1e-6


@pytest.mark.parametrize("depth", [3, 5])
def test_ends_where_lin_rfm_ends(depth: int) -> None:
    """From the same start, with the same falling floor and a ridge near 0, both end in the same matrix.

    Without a floor a rank once lost is lost, so a larger ridge leaves a choice of fixed points as wide as itself.
    """
    _, values = low_rank(16, 12, 1, 130, seed=2)
    model = DeepLinRFM(depth=depth, ridge=1e-6, floor=0, tol=1e-9).fit(as_sparse(values))
    unit = unit_of(values)
    found = dual_estimate(values / unit, np.eye(12), 1e-6)
    for t in range(600):
        found = power_step(found, values / unit, (depth - 1) / depth, 1e-6, 0.95**t)
    assert distance(model.matrix_, unit * found) < 1e-6


def test_other_powers_end_elsewhere() -> None:
    """Powers that are not the ansatz's do not end at lin-RFM's fixed point: the identity can fail."""
    _, values = low_rank(16, 12, 1, 130, seed=2)
    model = DeepLinRFM(depth=3, powers=[0.2, 0.2], ridge=1e-2, floor=0, max_iter=300, tol=0).fit(as_sparse(values))
    unit = unit_of(values)
    after = power_step(model.matrix_ / unit, values / unit, 2 / 3, 1e-2, 0)
    assert distance(unit * after, model.matrix_) > 1e-4


def test_layers_multiply_to_the_matrix_and_keep_the_ansatz() -> None:
    """W_3 W_2 W_1 is the matrix, and at the end W_l'W_l is the AGOP's power, up to the last layer's unit."""
    _, values = low_rank(16, 12, 1, 130, seed=3)
    model = DeepLinRFM(ridge=1e-2, floor=0, tol=1e-9).fit(as_sparse(3 * values))
    first, second, third = model.layers_
    assert distance(third @ second @ first, model.matrix_) < 1e-12
    unit = 3 * unit_of(values)
    agop = (third @ second / unit).T @ (third @ second / unit) / 16
    assert distance(np.linalg.matrix_power(second, 4), agop) < 1e-6
    agop = (model.matrix_ / unit).T @ (model.matrix_ / unit) / 16
    assert distance(np.linalg.matrix_power(first, 6), agop) < 1e-6


def test_scale_of_the_values_is_the_matrixs() -> None:
    """Values a thousand times as large give a matrix a thousand times as large."""
    values = sparse_problem(np.random.default_rng(4), 12, 10, density=0.5)
    model = DeepLinRFM(max_iter=20, tol=0)
    small = model.fit(as_sparse(values)).matrix_
    assert distance(model.fit(as_sparse(1000 * values)).matrix_, 1000 * small) < 1e-8


@pytest.mark.parametrize("depth", [3, 5])
def test_recovers_a_low_rank_matrix(depth: int) -> None:
    """The falling floor recovers rank 2 from two and a half times its degrees of freedom."""
    full, values = low_rank(20, 20, 2, 190, seed=0)
    assert distance(DeepLinRFM(depth=depth, tol=1e-6).fit(as_sparse(values)).matrix_, full) < 1e-4


def test_measurements_of_single_entries_are_completion() -> None:
    """Sensing with A_k that each show one entry gives what completion gives."""
    values = sparse_problem(np.random.default_rng(5), 10, 8, density=0.5)
    at = np.argwhere(~np.isnan(values))
    operators = np.zeros((len(at), 10, 8))
    operators[np.arange(len(at)), at[:, 0], at[:, 1]] = 1
    sensed = DeepLinRFM(max_iter=15, tol=0).fit(operators, values[tuple(at.T)])
    completed = DeepLinRFM(max_iter=15, tol=0).fit(as_sparse(values))
    assert distance(sensed.matrix_, completed.matrix_) < 1e-7


def test_recovers_from_gaussian_measurements() -> None:
    """A rank 1 matrix is recovered from fewer Gaussian measurements than it has entries."""
    rng = np.random.default_rng(6)
    full = np.outer(rng.normal(size=10), rng.normal(size=9))
    operators = rng.normal(size=(45, 10, 9))
    model = DeepLinRFM().fit(operators, np.tensordot(operators, full))
    assert distance(model.matrix_, full) < 1e-4


def test_predicts_entries() -> None:
    """Predictions are the matrix's entries, by code after either fit; after sensing there are no ids."""
    values = sparse_problem(np.random.default_rng(7), 8, 6, density=0.6)
    model = DeepLinRFM(max_iter=3, tol=0).fit(as_sparse(values))
    np.testing.assert_array_equal(model.predict([0, 7], [5, 2], codes=True), model.matrix_[[0, 7], [5, 2]])
    model.fit(np.eye(6).reshape(1, 6, 6), [2.0])
    assert model.predict(1, 1, codes=True) == model.matrix_[1, 1]
    with pytest.raises(InputError, match="codes=True"):
        model.predict(1, 1)


def test_callback_ends_the_fit() -> None:
    """A callback that returns True ends the fit at that iterate."""
    values = sparse_problem(np.random.default_rng(8), 8, 6, density=0.6)
    model = DeepLinRFM(callbacks=[lambda iterate: iterate.iteration == 4]).fit(as_sparse(values))
    assert model.n_iter_ == 4


def test_warns_when_not_settled() -> None:
    """A fit cut short says so."""
    values = sparse_problem(np.random.default_rng(8), 8, 6, density=0.6)
    with pytest.warns(UserWarning, match="has not settled in 3 iterations"):
        DeepLinRFM(max_iter=3).fit(as_sparse(values))


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"depth": 1}, "depth=1 must be a whole number of at least 2"),
        ({"depth": 2.5}, "depth=2.5 must be a whole number"),
        ({"powers": [0.5]}, "depth - 1 = 2 numbers"),
        ({"powers": 0.5}, "depth - 1 = 2 numbers"),
        ({"powers": [0.5, 0]}, "powers=0 must be a number above 0"),
        ({"ridge": 0}, "ridge=0 must be a number above 0"),
        ({"ridge": np.nan}, "ridge=nan must be a number above 0"),
        ({"floor": -1}, "floor=-1 must be a number of at least 0"),
        ({"decay": 1.0}, "decay=1.0 must be below 1"),
        ({"tol": "small"}, "tol='small' must be a number of at least 0"),
        ({"max_iter": 0}, "max_iter=0 must be a whole number of at least 1"),
    ],
)
def test_refuses_parameters(parameters: dict[str, Any], sentence: str) -> None:
    """A parameter out of range is refused by name."""
    values = sparse_problem(np.random.default_rng(9), 6, 5, density=0.6)
    with pytest.raises(InputError, match=sentence):
        DeepLinRFM(**parameters).fit(as_sparse(values))


@pytest.mark.parametrize(
    ("operators", "y", "sentence"),
    [
        (np.ones((3, 4)), np.ones(3), "must have shapes"),
        (np.ones((3, 4, 2)), np.ones(2), "must have shapes"),
        (np.ones((0, 4, 2)), np.ones(0), "N >= 1"),
        (np.full((2, 4, 2), np.nan), np.ones(2), "NaN or inf"),
        (np.ones((2, 4, 2)), [1.0, np.inf], "NaN or inf"),
        ("text", [1.0], "dense arrays of numbers"),
    ],
)
def test_refuses_measurements(operators: Any, y: Any, sentence: str) -> None:
    """Measurements that do not fit together or are not finite are refused."""
    with pytest.raises(InputError, match=sentence):
        DeepLinRFM().fit(operators, y)


def test_refuses_values_too_large_to_square() -> None:
    """Values whose squares leave float64's range are refused before any work, as the other completers do."""
    with pytest.raises(InputError, match="divide the values by their largest"):
        DeepLinRFM().fit(np.ones((2, 4, 2)), [1e200, 1.0])
