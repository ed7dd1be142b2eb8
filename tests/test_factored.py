"""Factored features: the identities of DESIGN.md hold, and at full rank every iterate is that of exact features."""

from __future__ import annotations

from itertools import islice
from typing import Any

import halves
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmdist.errors import SingularRowError
from rfmdist.features import factored
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.protocol import Step
from rfmdist.kernels.threads import Threads
from rfmdist.lin_rfm import LinRFM
from rfmdist.preparing import INTERCEPT_SHRINKAGE

STEPS = [Step(0.3, 0), Step(0.1, 1), Step(0.2, 5)]
FIXED = {"offsets": None, "dtype": "float64", "clip": None, "tol": 0.0, "ridge": 0.1, "validation_fraction": 0}


def random_features(rng: np.random.Generator, n: int, rank: int, floor: float = 0.0, **given: Any) -> FactoredFeatures:
    """Give features with a random U, no offsets."""
    return FactoredFeatures(rng.normal(size=(n, rank)) / np.sqrt(n), np.zeros(n), floor=floor, **given)


def completed(values: Any, features: FactoredFeatures, step: Step) -> tuple[Any, Any]:
    """(Z, B) of the rows under the features, in plain NumPy: Z = A (P + replacement ridge I)."""
    estimate = oracles.dual_estimate(values, halves.matrix(features), step.ridge)
    delta = step.ridge + features.floor
    solved, _, _ = oracles.factored_rows(values, features.factor, features.offsets, delta, np.inf)
    return oracles.replaced(estimate, values, step.replacement), solved


# ---- rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", [0.0, 0.4])
@pytest.mark.parametrize("step", STEPS)
def test_rows_in_the_features_basis(rng: np.random.Generator, step: Step, floor: float) -> None:
    """Z U = B (U'U + w δ I): what crosses is Z Q / √n, without any product with the sparse residuals."""
    values = oracles.sparse_problem(rng, 40, 30)
    features = random_features(rng, 30, 6, floor)
    z, solved = completed(values, features, step)
    weight = step.replacement * step.ridge + floor
    assert oracles.distance(solved @ (features.gram + weight * np.eye(6)), z @ features.factor) < 1e-12
    _, total = halves.solved(features, values, halves.both(step))
    basis = features.factor @ np.linalg.inv(np.linalg.cholesky(features.gram)).T
    assert oracles.distance(np.vstack([rows for rows, _ in total.rows]), z @ basis / np.sqrt(30)) < 1e-11


@pytest.mark.parametrize("floor", [0.0, 0.4])
def test_estimate_is_the_dual_form_s(rng: np.random.Generator, floor: float) -> None:
    """B U' is A U U': the dual form's prediction less the floor's share of observed entries."""
    values = oracles.sparse_problem(rng, 40, 30)
    features = random_features(rng, 30, 6, floor)
    estimate, _ = halves.solved(features, values, Step(0.2, 1))
    expected = oracles.dual_estimate(values, halves.matrix(features), 0.2)
    hidden = np.isnan(values)
    assert oracles.distance(estimate[hidden], expected[hidden]) < 1e-12


def test_prediction_is_the_completed_entry(rng: np.random.Generator) -> None:
    """Single entries equal those of the completed rows, with intercepts and offsets; both are the oracle's."""
    values, offsets = oracles.sparse_problem(rng, 30, 40), rng.normal(size=40)
    features = FactoredFeatures(rng.normal(size=(40, 5)), offsets, (5.0, np.inf))
    block, pool, step = oracles.row_block(values), Threads(1), Step(0.3, 1)
    wanted = oracles.row_block(np.where(rng.random((30, 40)) < 0.3, 0.0, np.nan))
    solution = features.solve(block, step, pool)
    found = features.predict(block, solution, wanted, pool)
    solved, intercepts, _ = oracles.factored_rows(values, features.factor, offsets, 0.3, 5.0)
    expected = solved @ features.factor.T + intercepts[:, None] + offsets
    assert oracles.distance(features.complete(block, solution, pool), expected) < 1e-12
    assert oracles.distance(found, expected[wanted.rows, wanted.indices]) < 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shrinkage", [5.0, np.inf])
def test_heavy_rows_are_shared(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, dtype: Any, shrinkage: float
) -> None:
    """A long row cut among threads gives what one thread gives, to rounding; the same bits on 1 and 3 threads."""
    values = np.where(rng.random((9, 500)) < np.linspace(0, 1, 9)[:, None], rng.normal(size=(9, 500)), np.nan)
    features = FactoredFeatures(rng.normal(size=(500, 8)).astype(dtype) / 5, np.ones(500, dtype), (shrinkage, np.inf))
    block, found = oracles.row_block(values, dtype=dtype), []
    for heavy, pieces, threads in ((1 << 16, 1 << 15, 1), (200, 64, 1), (200, 64, 3)):
        monkeypatch.setattr(factored, "HEAVY", heavy)
        monkeypatch.setattr(factored, "PIECE_ENTRIES", pieces)
        pool = Threads(threads)
        found.append([part.copy() for part in features.solve(block, Step(0.2, 1), pool)])
        pool.close()
    assert len(block.longer_than(200)) >= 4
    for whole, shared, threaded in zip(*found, strict=True):
        assert np.allclose(whole, shared, rtol=0, atol=200 * np.finfo(dtype).eps)
        assert np.array_equal(shared, threaded)


@pytest.mark.parametrize("heavy", [1 << 16, 3])
@pytest.mark.parametrize(("dtype", "way_out"), [(np.float32, "or use dtype='float64'"), (np.float64, "or floor$")])
def test_a_singular_row_is_named(monkeypatch: pytest.MonkeyPatch, heavy: int, dtype: Any, way_out: str) -> None:
    """Without ridge, a row whose entries have no feature is told by its code, heavy or not, with the way out."""
    monkeypatch.setattr(factored, "HEAVY", heavy)
    features = FactoredFeatures(np.eye(8, 2, dtype=dtype), np.zeros(8, dtype))
    values = np.full((30, 8), np.nan)
    values[:, :2] = 1.0
    values[25] = [np.nan, np.nan, *[1.0] * 6]
    block = oracles.row_block(values, 20, 30, dtype)
    with pytest.raises(SingularRowError, match=f"row code 25: its system of rank 2 is not .*raise ridge.*{way_out}"):
        features.solve(block, Step(0.0, 1), Threads(1))


@pytest.mark.parametrize("crossing", [False, True])
def test_nothing_observed(crossing: bool) -> None:
    """Rows without any entry complete to zero, and leave P at the floor's power."""
    features = FactoredFeatures.start(np.zeros(5), 2, np.float64, 0)
    step = Step(0.1, 1, crossing)
    estimate, after = halves.half_step(features, np.full((4, 5), np.nan), 1.0, step, floor=0.5)
    assert not estimate.any()
    assert oracles.distance(halves.matrix(after), 0.25 * np.eye(4 if crossing else 5)) < 1e-14


# ---- the update ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("floor", [0.0, 0.3])
@pytest.mark.parametrize("step", STEPS)
def test_columns_update_is_nystrom_s(rng: np.random.Generator, step: Step, floor: float, alpha: float) -> None:
    """U U' is (C + floor I)^power - floor^power I with C the AGOP restricted to the rows that B spans.

    The rest of the AGOP's trace goes to the other directions: their floor.
    """
    values = oracles.sparse_problem(rng, 40, 30)
    features = random_features(rng, 30, 6, 0.2)
    z, solved = completed(values, features, step)
    restricted = z.T @ solved @ np.linalg.pinv(solved.T @ solved) @ solved.T @ z / 40
    _check_update(halves.half_step(features, values, alpha, step, floor)[1], restricted, z.T @ z / 40, floor, alpha)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("floor", [0.0, 0.3])
@pytest.mark.parametrize("step", STEPS)
def test_crossing_update_is_compression(rng: np.random.Generator, step: Step, floor: float, alpha: float) -> None:
    """The rows' features are those of Z Q Q' Z' / n with Q a basis of U's span; the rest is their floor."""
    values = oracles.sparse_problem(rng, 40, 30)
    features = random_features(rng, 30, 6, 0.2)
    z, _ = completed(values, features, step)
    basis = np.linalg.qr(features.factor)[0]
    after = halves.half_step(features, values, alpha, halves.both(step), floor)[1]
    _check_update(after, z @ basis @ basis.T @ z.T / 30, z @ z.T / 30, floor, alpha)


def _check_update(after: Any, restricted: Any, agop: Any, floor: float, alpha: float) -> None:
    power, n = 2 * alpha, len(agop)
    expected = oracles.eigen_power(restricted + floor * np.eye(n), power) - floor**power * np.eye(n)
    assert oracles.distance(after.factor @ after.factor.T, expected) < 1e-10
    dropped = np.linalg.eigvalsh(agop - restricted)
    assert dropped.sum() > 1e-3
    assert after.floor == pytest.approx((floor + dropped.sum() / (n - after.rank)) ** power, rel=1e-10)
    assert after.rank == 6


def test_floor_is_the_mean_of_dropped_eigenvalues(rng: np.random.Generator) -> None:
    """Features that span the AGOP's first directions leave out its other eigenvalues: the floor is their mean."""
    matrix = rng.normal(size=(12, 9))
    right = np.linalg.svd(matrix)[2][:4].T
    features = FactoredFeatures(right, np.zeros(9))  # all observed, w = 1: Z is the matrix itself
    after = halves.half_step(features, matrix, 0.5, Step(0.1, 1, crossing=True))[1]
    dropped = np.sort(np.linalg.eigvalsh(matrix @ matrix.T / 9))[:-4]
    assert after.floor == pytest.approx(dropped.mean(), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("crossing", [False, True])
def test_full_rank_update_is_exact(rng: np.random.Generator, alpha: float, crossing: bool) -> None:
    """With all directions and a floor, P is (AGOP + floor I)^power, as for exact features."""
    values, step = oracles.sparse_problem(rng, 30, 30), Step(0.1, 1, crossing)
    root = rng.normal(size=(30, 30)) / np.sqrt(30)
    exact = halves.half_step(DenseFeatures(root @ root.T), values, alpha, step, 0.05)[1]
    found = halves.half_step(FactoredFeatures(root, np.zeros(30)), values, alpha, step, 0.05)[1]
    assert oracles.distance(halves.matrix(found), halves.matrix(exact)) < 1e-8


@pytest.mark.parametrize("crossing", [False, True])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scale_passes_through(rng: np.random.Generator, crossing: bool, scale: float) -> None:
    """From U with orthonormal columns at power 3/2, values times c give P times c^6."""
    values, step = oracles.sparse_problem(rng, 40, 30), Step(0.1, 1, crossing)
    features = FactoredFeatures.start(np.zeros(30), 5, np.float64, 0)
    one, other = (halves.half_step(features, c * values, 1.5, step)[1] for c in (1.0, scale))
    assert oracles.distance(halves.matrix(other), scale**6 * halves.matrix(one)) < 1e-9


@pytest.mark.parametrize("crossing", [False, True])
def test_a_direction_without_values_is_let_be(rng: np.random.Generator, crossing: bool) -> None:
    """A factor of more columns than the values have directions gives finite features of their rank."""
    values = np.outer(rng.normal(size=20), rng.normal(size=15))
    features = FactoredFeatures.start(np.zeros(15), 6, np.float64, 0)
    found = list(islice(halves.iterates(features, values, 0.5, Step(1e-3, 1, crossing)), 20))
    assert np.isfinite(found[-1][1].factor).all()
    assert oracles.distance(found[-1][0], values) < 2e-3
    assert np.linalg.eigvalsh(halves.matrix(found[-1][1]))[-2] < 1e-6


# ---- parity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("replacement", [0, 1, 5])
@pytest.mark.parametrize(
    ("m", "n", "sides"),
    [(40, 40, "columns"), (60, 35, "columns"), (35, 50, "columns"), (40, 40, "both"), (60, 60, "both")],
)
def test_full_rank_is_exact(
    rng: np.random.Generator, m: int, n: int, sides: str, alpha: float, replacement: float
) -> None:
    """20 iterations of a factor of full rank predict every unobserved entry as exact features do."""
    values = oracles.sparse_problem(rng, m + 2, n, density=0.4)[2:]
    found = _at_full_rank(values, sides=sides, power=alpha, replacement=replacement, max_iter=20)
    assert oracles.distance(*found) < {0.5: 1e-6, 1.0: 1e-6, 1.5: 1e-4}[alpha]


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("replacement", [0, 1, 5])
def test_rows_without_entries_do_no_harm(rng: np.random.Generator, alpha: float, replacement: float) -> None:
    """A row without entries leaves the rows' factor singular: the next are near the exact ones all the same."""
    values = oracles.sparse_problem(rng, 40, 40)
    found = _at_full_rank(values, sides="both", power=alpha, replacement=replacement, max_iter=6)
    assert oracles.distance(*found) < 1e-2


def _at_full_rank(values: Any, **parameters: Any) -> list[Any]:
    """Give the predictions of unobserved entries by a factor of full rank and by exact features."""
    model = LinRFM(**FIXED, rank=values.shape[1], **parameters)
    hidden, given = np.isnan(values), oracles.as_sparse(values)
    return [
        model.set_params(features=kind).fit(given).completion_.predict_block().compute()[hidden]
        for kind in ("factored", "dense")
    ]


@pytest.mark.parametrize("crossing", [False, True])
def test_float32_is_near_float64(rng: np.random.Generator, crossing: bool) -> None:
    """float32 estimates stay within its rounding over 6 iterations."""
    values, step = oracles.sparse_problem(rng, 90, 70), Step(0.1, 1, crossing)
    start = FactoredFeatures.start(np.zeros(70), 12, np.float64, 0)
    rounded = FactoredFeatures(start.factor.astype(np.float32), np.zeros(70, np.float32))
    whole = list(islice(halves.iterates(start, values, 0.5, step), 6))
    half = list(islice(halves.iterates(rounded, values, 0.5, step, dtype=np.float32), 6))
    assert half[-1][0].dtype == np.float32
    assert 1e-9 < oracles.distance(half[-1][0], whole[-1][0]) < 1e-4


# ---- the class ----------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 80), st.sampled_from([np.float32, np.float64]), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_start_is_orthonormal(n: int, rank: int, dtype: Any, seed: int) -> None:
    """U has orthonormal columns, at most n: at full rank P = I, the algorithm's start."""
    features = FactoredFeatures.start(np.zeros(n), rank, dtype, seed)
    assert features.factor.shape == (n, min(rank, n))
    assert features.factor.dtype == features.offsets.dtype == dtype
    close = 30 * np.finfo(dtype).eps
    assert np.allclose(features.gram, np.eye(features.rank), rtol=0, atol=close)
    if rank >= n:
        assert np.allclose(halves.matrix(features), np.eye(n), rtol=0, atol=close)


def test_start_follows_the_seed() -> None:
    """The same seed gives the same U, another one another."""
    one, same, other = (FactoredFeatures.start(np.zeros(20), 3, np.float32, seed).factor for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_grown_features_keep_what_they_know(rng: np.random.Generator) -> None:
    """U's columns stay; the new ones share the floor equally among random orthogonal directions, up to n of them."""
    features = random_features(rng, 20, 4, floor=0.3, shrinkage=(5.0, 2.0))
    grown = features.grown(8, seed=1)
    assert np.array_equal(grown.factor[:, :4], features.factor)
    assert oracles.distance(grown.gram[4:, 4:], 0.3 * np.eye(4)) < 1e-13
    assert (grown.floor, grown.shrinkage) == (0.3, (5.0, 2.0))
    assert np.array_equal(features.grown(4, seed=1).factor, features.factor)
    assert features.grown(50, seed=1).rank == 20


@pytest.mark.parametrize("rank", [3, 7])
def test_distance_is_that_of_the_matrices(rng: np.random.Generator, rank: int) -> None:
    """The relative change compares U U', whatever their ranks; features are at no distance from themselves."""
    one, other = random_features(rng, 20, 5), random_features(rng, 20, rank)
    expected = oracles.distance(halves.matrix(other), halves.matrix(one))
    assert one.distance(other) == pytest.approx(expected, rel=1e-12)
    turned = FactoredFeatures(one.factor @ np.linalg.qr(rng.normal(size=(5, 5)))[0], one.offsets)
    assert one.distance(turned) < 1e-7
    zero = FactoredFeatures(np.zeros((20, 2)), one.offsets)
    assert (zero.distance(zero), zero.distance(one)) == (0.0, 1.0)


# ---- offsets ------------------------------------------------------------------------------------------------


def with_offsets(rng: np.random.Generator, m: int = 60, n: int = 40) -> Any:
    """Give a low-rank matrix plus row and column offsets, a third of it observed."""
    values = oracles.sparse_problem(rng, m, n, density=0.35)
    return values + rng.normal(size=m)[:, None] + rng.normal(size=n)


def test_offsets_are_stationary(rng: np.random.Generator) -> None:
    """At convergence each row's and each column's offset is the shrunken mean of what the rest leaves over."""
    values = with_offsets(rng)
    fixed = {**FIXED, "offsets": "both", "replacement": 1, "ridge": 1.0}
    model = LinRFM(**fixed, features="factored", rank=6, sides="columns", max_iter=400).fit(oracles.as_sparse(values))
    done = model.completion_
    block, _ = done.targets.read(0, 60)
    solution = done.features.solve(block, done.step, Threads(1))
    rows, columns = solution.intercepts, done.features.offsets
    left = block.values - np.einsum("er,er->e", solution.rows[block.rows], done.features.factor[block.indices])
    for codes, size, ours, other in (
        (block.rows, 60, rows, columns[block.indices]),
        (block.indices, 40, columns, rows[block.rows]),
    ):
        counts, sums = np.bincount(codes, minlength=size), np.bincount(codes, left - other, size)
        assert np.allclose(ours, sums / (counts + INTERCEPT_SHRINKAGE), rtol=0, atol=1e-5)
    assert np.std(rows) > 0.3
    assert np.std(columns) > 0.3


@pytest.mark.parametrize("kind", ["both", "rows", "columns", "global"])
@pytest.mark.parametrize("sides", ["columns", "both"])
def test_without_features_offsets_are_least_squares(rng: np.random.Generator, kind: str, sides: str) -> None:
    """A ridge that leaves nothing to the features leaves the offsets of `fit_offsets`, jointly or not."""
    values = with_offsets(rng)
    model = LinRFM(**{**FIXED, "ridge": 1e9, "offsets": kind}, replacement=1, sides=sides, max_iter=60)
    found = model.set_params(features="factored", rank=3).fit(oracles.as_sparse(values)).completion_
    mean, rows, columns = oracles.offsets(values, kind, INTERCEPT_SHRINKAGE, sweeps=80)
    expected = mean + rows[:, None] + columns
    assert np.allclose(found.predict_block().compute(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sides", ["columns", "both"])
def test_a_matrix_of_offsets_alone_is_fitted(rng: np.random.Generator, sides: str) -> None:
    """Row plus column offsets without noise: unobserved entries to 1 % of their spread, by defaults."""
    full = 3 + rng.normal(size=(80, 1)) + rng.normal(size=60)
    seen = rng.random(full.shape) < 0.4
    model = LinRFM(features="factored", sides=sides, dtype="float64").fit(
        oracles.as_sparse(np.where(seen, full, np.nan))
    )
    error = (model.completion_.predict_block().compute() - full)[~seen]
    assert np.sqrt(np.mean(error**2)) < 0.01 * np.std(full)
