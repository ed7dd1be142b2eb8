"""The least nuclear norm: by ADMM, by IRLS-1 and by lin-RFM of power 1/4, held to a conic solver's."""

from __future__ import annotations

import warnings
from typing import Any

import cvxpy as cp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmdist.baselines import IRLS, NuclearNorm
from rfmdist.errors import InputError
from rfmdist.lin_rfm import LinRFM
from rfmdist.parameters import check_parameters

FALL, FLOOR, STEPS = 0.9, 0.1, 300
"""The floor of a fit by reweighting falls from ``FLOOR`` to 1e-12 or less, as fast as singular values can follow."""


def conic(values: Any) -> tuple[Any, Any]:
    """Give the minimiser of the nuclear norm, and the multipliers of the observed entries, by CLARABEL.

    None of them where it cannot reach its own tolerance.
    """
    matrix, seen = cp.Variable(values.shape), np.nonzero(~np.isnan(values))
    constraint = matrix[seen] == values[seen]
    problem = cp.Problem(cp.Minimize(cp.normNuc(matrix)), [constraint])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        problem.solve(solver="CLARABEL")
    if problem.status != cp.OPTIMAL:
        return None, None
    multipliers = np.zeros(values.shape)
    multipliers[seen] = constraint.dual_value
    return matrix.value, multipliers


def drawn(seed: int, rank: int = 2, density: float = 0.8) -> Any:
    """Draw 12 x 10 of low rank, NaN where nothing was observed."""
    rng = np.random.default_rng(seed)
    full = rng.normal(size=(12, rank)) @ rng.normal(size=(rank, 10))
    return np.where(rng.random(full.shape) < density, full, np.nan)


def determined(minimiser: Any, multipliers: Any) -> bool:
    """Tell whether the minimiser is unique with room to spare, so that 1e-4 means something.

    Its singular values are none or a tenth of the largest; the multipliers', which are at most 1 in size, are 1 in as
    many directions and below 0.9 in the others (strict complementarity).
    """
    singular, dual = (np.linalg.svd(matrix, compute_uv=False) for matrix in (minimiser, multipliers))
    rank = int(np.count_nonzero(singular > 1e-4 * singular[0]))
    return bool(rank < 10 and singular[rank - 1] > 0.1 * singular[0] and dual[rank] < 0.9)


@pytest.fixture(scope="module")
def problems() -> list[tuple[Any, Any]]:
    """Give 20 random matrices whose minimiser is well determined, and these."""
    found: list[tuple[Any, Any]] = []
    for seed in range(60):
        values = drawn(seed)
        minimiser, multipliers = conic(values)
        if minimiser is not None and determined(minimiser, multipliers):
            found.append((values, minimiser))
        if len(found) == 20:
            return found
    raise AssertionError(f"only {len(found)} of 60 drawn matrices have a well determined minimiser")


def by_irls(values: Any) -> Any:
    """Fit IRLS-1 without a ridge, the floor falling."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IRLS has not settled")
        model = IRLS(p=1, floor=FLOOR, floor_decay=FALL, max_iter=STEPS, tol=1e-8)
        return model.fit(oracles.as_sparse(values)).matrix_


def by_lin_rfm(values: Any) -> Any:
    """Fit lin-RFM of power 1/4 without a ridge; a callback lets the floor fall."""
    model = LinRFM(
        features="dense", sides="columns", power=0.25, ridge=0.0, floor=FLOOR, replacement=0.0, offsets=None,
        clip=None, dtype="float64", tol=0.0, max_iter=STEPS, validation_fraction=0.0,
    )  # fmt: skip

    def lower(_: Any) -> None:
        model.floor = max(model.floor * FALL, 1e-12)

    try:
        check_parameters(model.set_params(callbacks=[lower]))
    except InputError as refusal:
        pytest.skip(str(refusal))
    return model.fit(oracles.as_sparse(values)).completion_.predict_block().compute()


@pytest.mark.parametrize("density", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("seed", [1, 2])
def test_admm_finds_the_conic_solver_s_minimiser(seed: int, density: float) -> None:
    """The completion is the minimiser to 1e-4 by default, no larger in nuclear norm, observed values in place."""
    values = drawn(seed, density=density)
    found, (expected, _) = NuclearNorm().fit(oracles.as_sparse(values)).matrix_, conic(values)
    seen = ~np.isnan(values)
    assert oracles.distance(found, expected) < 1e-4
    assert np.linalg.norm(found, "nuc") < (1 + 1e-6) * np.linalg.norm(expected, "nuc")
    assert np.abs(found - values)[seen].max() < 1e-14 * np.abs(values[seen]).max()


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_the_transpose_has_the_transposed_minimiser(seed: int) -> None:
    """The nuclear norm knows no sides: each estimate of the transpose is the transpose."""
    values, model = drawn(seed), NuclearNorm(max_iter=5, tol=0)
    turned = model.fit(oracles.as_sparse(values.T)).matrix_.T
    assert oracles.distance(turned, model.fit(oracles.as_sparse(values)).matrix_) < 1e-9


def test_irls_reaches_the_nuclear_norm_s_minimiser(problems: list[tuple[Any, Any]]) -> None:
    """With p = 1, no ridge and a falling floor IRLS ends within 1e-4 of each of 20 minimisers."""
    for values, minimiser in problems:
        assert oracles.distance(by_irls(values), minimiser) < 1e-4


def test_lin_rfm_reaches_the_nuclear_norm_s_minimiser(problems: list[tuple[Any, Any]]) -> None:
    """With α = 1/4, no ridge and a falling floor lin-RFM ends within 1e-4 of three minimisers."""
    for values, minimiser in problems[:3]:
        assert oracles.distance(by_lin_rfm(values), minimiser) < 1e-4


@pytest.mark.slow
def test_lin_rfm_reaches_every_minimiser(problems: list[tuple[Any, Any]]) -> None:
    """With α = 1/4 lin-RFM ends within 1e-4 of each of 20 minimisers."""
    for values, minimiser in problems:
        assert oracles.distance(by_lin_rfm(values), minimiser) < 1e-4
