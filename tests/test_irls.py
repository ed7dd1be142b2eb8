"""IRLS-p: the weighted least squares of its definition, the objective it lowers, and lin-RFM's every iterate."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmdist.baselines import IRLS, irls
from rfmdist.errors import InputError, SingularRowError
from rfmdist.lin_rfm import LinRFM
from rfmdist.parameters import check_parameters


def iterates(values: Any, **parameters: Any) -> list[Any]:
    """Give every estimate of a fit."""
    seen: list[Any] = []
    model = IRLS(**{"tol": 0, "max_iter": 6, **parameters}, callbacks=[lambda it: seen.append(it.estimate)])
    model.fit(oracles.as_sparse(values))
    return seen


def weighted(values: Any, weights: Any, ridge: float) -> Any:
    """Minimise x W x' + |x_O − y|² / ridge for each row; at ridge 0 by its Lagrange system."""
    n, estimate = values.shape[1], np.zeros_like(values)
    for i, row in enumerate(values):
        picked = np.eye(n)[~np.isnan(row)]
        system = np.block([[weights, picked.T], [picked, -ridge * np.eye(len(picked))]])
        right = np.concatenate([np.zeros(n), row[~np.isnan(row)]])
        estimate[i] = np.linalg.solve(system, right)[:n]
    return estimate


@pytest.mark.parametrize("p", [1, 0.5, 0.0, -2 / 3, -2])
@pytest.mark.parametrize(("ridge", "floor"), [(0.0, 0.1), (0.1, 0.01)])
def test_every_iterate_is_weighted_least_squares(
    rng: np.random.Generator, p: float, ridge: float, floor: float
) -> None:
    """Each estimate solves the definition with W = (X'X/m + floor I)^(p/2 − 1), values divided by their rms."""
    values = 3.7 * oracles.sparse_problem(rng, 20, 12, density=0.5)
    unit, weights = np.sqrt(np.nanmean(values**2)), np.eye(12)
    for found in iterates(values, p=p, ridge=ridge, floor=floor):
        expected = weighted(values / unit, weights, ridge)
        assert oracles.distance(found, unit * expected) < 1e-7
        weights = oracles.eigen_power(oracles.shifted_agop(expected, floor), p / 2 - 1)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75, 1])
@pytest.mark.parametrize(("ridge", "floor"), [(0.1, 1e-2), (1e-3, 1e-2), (0.0, 1e-2)])
def test_every_iterate_is_lin_rfm_s(rng: np.random.Generator, alpha: float, ridge: float, floor: float) -> None:
    """IRLS-p is lin-RFM with α = (2 − p)/4 in other variables: the same estimates with the same ridge and floor."""
    values, seen = 3.7 * oracles.sparse_problem(rng, 40, 30), []
    model = LinRFM(
        features="dense", sides="columns", power=alpha, ridge=ridge, floor=floor, replacement=0, offsets=None,
        clip=None, dtype="float64", tol=0, max_iter=6, validation_fraction=0,
        callbacks=[lambda it: seen.append(it.completion.predict_block().compute())],
    )  # fmt: skip
    try:
        check_parameters(model)
    except InputError as refusal:
        pytest.skip(str(refusal))
    model.fit(oracles.as_sparse(values))
    found = iterates(values, p=2 - 4 * alpha, ridge=ridge, floor=floor)
    assert len(found) == len(seen) == 6
    for ours, theirs in zip(found, seen, strict=True):
        assert oracles.distance(ours, theirs) < 1e-8


def smoothed(estimate: Any, p: float, floor: float) -> float:
    """Σ (σ²/m + floor)^(p/2) / p, or half the logarithm's sum at p = 0: what W is the derivative of, doubled."""
    squares = np.linalg.eigvalsh(oracles.shifted_agop(estimate, floor))
    return float(np.sum(np.log(squares)) / 2 if p == 0 else np.sum(squares ** (p / 2)) / p)


@given(seed=st.integers(0, 2**32 - 1), p=st.sampled_from([1, 0.5, 0, -1]))
@settings(max_examples=15, deadline=None)
def test_the_smoothed_norm_falls(seed: int, p: float) -> None:
    """Without a ridge each iteration lowers the concave objective of the squares, for any p."""
    values = oracles.sparse_problem(np.random.default_rng(seed), 14, 10, density=0.6)
    unit = np.sqrt(np.nanmean(values**2))
    objective = [smoothed(estimate / unit, p, 1e-2) for estimate in iterates(values, p=p, floor=1e-2, max_iter=10)]
    assert np.all(np.diff(objective) < 1e-9 * np.abs(objective[1:]))
    assert objective[-1] < objective[0]


def test_a_falling_floor_recovers_low_rank(rng: np.random.Generator) -> None:
    """Rank 3 of 80 x 60 from 45 % of the entries: far beyond the first floor, for p from 1/2 to −2."""
    full = rng.normal(size=(80, 3)) @ rng.normal(size=(3, 60))
    values = np.where(rng.random(full.shape) < 0.45, full, np.nan)
    for p in (0.5, 0, -1, -2):
        model = IRLS(p=p, floor=1, floor_decay=0.8, tol=1e-6).fit(oracles.as_sparse(values))
        assert oracles.distance(model.matrix_, full) < 1e-4
        assert model.n_iter_ < 150


def test_threads_and_products_of_either_kind_change_nothing(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows solved on many threads are the same bits; zeros multiplied or skipped, the same to rounding."""
    values = oracles.sparse_problem(rng, 70, 60)
    here = iterates(values)[-1]
    monkeypatch.setattr(irls, "THREADED", 0)
    assert np.array_equal(iterates(values)[-1], here)
    monkeypatch.setattr(irls, "SPARSE", 1.0)
    assert oracles.distance(iterates(values)[-1], here) < 1e-9


@pytest.mark.parametrize("threaded", [0, 1 << 14])
def test_singular_systems_are_refused(monkeypatch: pytest.MonkeyPatch, threaded: int) -> None:
    """A rank-one matrix, fully observed, whose floor is lost in rounding: the row is named, on threads as well."""
    monkeypatch.setattr(irls, "THREADED", threaded)
    values = np.outer(np.arange(1.0, 9), np.ones(6))
    with pytest.raises(SingularRowError, match=r"row code \d: its 6 × 6 system is not positive definite: raise"):
        IRLS(p=-4, floor=1e-30).fit(oracles.as_sparse(values))
