"""What each power minimises falls from iterate to iterate, and its fixed points are what they are said to be."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import oracles
import pytest
import scipy.sparse as sp

from rfmdist.errors import InputError
from rfmdist.lin_rfm import LinRFM
from rfmdist.objective import fixed_point_residual, objective

RIDGE = 1e-4
FLOORS = {Fraction(1, 4): 0.01, Fraction(1, 3): 0.05, Fraction(1, 2): 0.1, Fraction(3, 4): 0.5, Fraction(1): 0.5}
"""Floors at which each power settles within the iterations of these tests: a greater power makes more of small ones."""


@pytest.fixture
def problem(rng: np.random.Generator) -> Any:
    """Give exact values of a matrix of rank 3, 40 x 30, half observed, of unit mean square."""
    full = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 30))
    values = np.where(rng.random(full.shape) < 0.5, full, np.nan)
    return values / np.sqrt(np.nanmean(values**2))


def iterates(values: Any, power: Any, floor: float, ridge: float = RIDGE, number: int = 80) -> list[Any]:
    """Give the estimate of each iteration of exact features of the columns, nothing put back in its place."""
    seen: list[Any] = []

    def keep(iteration: Any) -> None:
        seen.append(iteration.completion.predict_block().compute())

    fixed: dict[str, Any] = {"offsets": None, "dtype": "float64", "clip": None, "tol": 0.0, "validation_fraction": 0}
    fixed |= {"features": "dense", "replacement": 0, "max_iter": number, "callbacks": [keep]}
    LinRFM(**fixed, ridge=ridge, power=power, floor=floor).fit(oracles.as_sparse(values))
    return seen


@pytest.mark.parametrize("alpha", list(FLOORS), ids=str)
@pytest.mark.parametrize("ridge", [RIDGE, 0.1])
def test_no_iterate_raises_it(problem: Any, alpha: Fraction, ridge: float) -> None:
    """With Σ (y - z)² / (2 ridge) the objective falls at every iteration; with a small ridge it does so alone."""
    seen, floor = ~np.isnan(problem), FLOORS[alpha]
    found = iterates(problem, alpha, floor, ridge, 40)
    alone = np.array([objective(z, power=alpha, floor=floor) for z in found])
    misfits = np.array([np.sum((z - problem)[seen] ** 2) for z in found])
    rounding = 1e-12 * np.abs(alone).max()
    assert np.diff(alone + misfits / (2 * ridge)).max() < rounding
    assert alone[-1] < alone[0] - 1e-2 * abs(alone[0])
    if ridge == RIDGE:
        assert np.diff(alone).max() < 1e-3 * (alone[0] - alone[-1])


@pytest.mark.parametrize(
    "alpha", [a if a == Fraction(1, 3) else pytest.param(a, marks=pytest.mark.slow) for a in FLOORS], ids=str
)
def test_iterates_approach_a_fixed_point(problem: Any, alpha: Fraction) -> None:
    """Both parts of the residual fall a hundredfold, to a thousandth; they are those of the definition."""
    given: dict[str, Any] = {"power": alpha, "ridge": RIDGE, "floor": FLOORS[alpha]}
    found, observed = iterates(problem, alpha, FLOORS[alpha], number=400), oracles.as_sparse(problem)
    first, last = (fixed_point_residual(z, observed, **given) for z in (found[0], found[-1]))
    assert last.outside < min(1e-3, first.outside / 100)
    assert last.misfit < 1e-5
    features = oracles.eigen_power(oracles.shifted_agop(found[0], FLOORS[alpha]), float(2 * alpha))
    dual, seen = found[0] @ np.linalg.inv(features), ~np.isnan(problem)
    assert first.outside == pytest.approx(np.linalg.norm(dual[~seen]) / np.linalg.norm(dual), rel=1e-8)
    misfit = (found[0] + RIDGE * dual - problem)[seen]
    assert first.misfit == pytest.approx(np.linalg.norm(misfit) / np.linalg.norm(problem[seen]), rel=1e-8)


@pytest.mark.parametrize("alpha", list(FLOORS), ids=str)
@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_its_gradient_is_the_dual_matrix(rng: np.random.Generator, shape: tuple[int, int], alpha: Fraction) -> None:
    """The derivative along any direction is that of <Z P^-1, direction>, by central differences."""
    matrix, direction = rng.normal(size=shape), rng.normal(size=shape)
    features = oracles.eigen_power(oracles.shifted_agop(matrix, 0.1), float(2 * alpha))
    ahead, behind = (objective(matrix + h * direction, power=alpha, floor=0.1) for h in (1e-5, -1e-5))
    assert (ahead - behind) / 2e-5 == pytest.approx(np.sum(matrix @ np.linalg.inv(features) * direction), rel=1e-6)


def test_gradient_of_the_exponential(rng: np.random.Generator) -> None:
    """Likewise with P = I - exp(-(AGOP + floor I)), whose fixed points leave nothing outside."""
    matrix, direction = rng.normal(size=(7, 5)), rng.normal(size=(7, 5))
    values, vectors = np.linalg.eigh(oracles.shifted_agop(matrix, 0.1))
    dual = matrix @ (vectors / -np.expm1(-values)) @ vectors.T
    ahead, behind = (objective(matrix + h * direction, power="exponential", floor=0.1) for h in (1e-5, -1e-5))
    assert (ahead - behind) / 2e-5 == pytest.approx(np.sum(dual * direction), rel=1e-6)
    found = fixed_point_residual(matrix, sp.coo_array(matrix), power="exponential", floor=0.1)
    assert found.outside < 1e-7


def test_named_objectives(rng: np.random.Generator) -> None:
    """Without a floor 1/4 is √m times the nuclear norm, 1/2 the log-determinant, 1 minus a sum of inverse squares."""
    matrix = rng.normal(size=(7, 5))
    sizes = np.linalg.svd(matrix, compute_uv=False)
    assert objective(matrix, power=0.25) == pytest.approx(np.sqrt(7) * sizes.sum())
    assert objective(matrix, power=0.5) == pytest.approx(3.5 * np.log(sizes**2 / 7).sum())
    assert objective(matrix, power=1) == pytest.approx(-(49 / 2) * np.sum(1 / sizes**2))
    assert objective(np.diag([1.0, 0.0]), power=0.5) == -np.inf


def test_zero_is_a_fixed_point_of_nothing() -> None:
    """A matrix of zeros has no dual coefficients, and misses all of y; without a floor as with one."""
    observed = sp.coo_array(np.eye(3))
    for floor in (0.0, 0.1):
        assert fixed_point_residual(np.zeros((3, 3)), observed, floor=floor) == (0.0, 1.0)


def test_bad_input_is_refused() -> None:
    """One sentence names what is wrong."""
    matrix, observed = np.eye(3), sp.coo_array(np.eye(3))
    for bad in ([1.0], np.full((2, 2), np.nan), np.empty((0, 2))):
        with pytest.raises(InputError, match="completed: must be a matrix of finite numbers"):
            objective(bad)
    with pytest.raises(InputError, match="power=-1 must be"):
        objective(matrix, power=-1)
    with pytest.raises(InputError, match="floor=-1 must be"):
        objective(matrix, floor=-1)
    with pytest.raises(InputError, match="ridge=nan must be"):
        fixed_point_residual(matrix, observed, ridge=np.nan)
    for other in (sp.coo_array(np.eye(4)), sp.coo_array((3, 3)), sp.coo_array(np.diag([np.inf, 1, 1]))):
        with pytest.raises(InputError, match="observed: must have finite entries, and the shape"):
            fixed_point_residual(matrix, other)
