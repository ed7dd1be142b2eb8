"""Dense features: every iterate equals the plain transcription of DESIGN.md, in both forms, at any scale."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import halves
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmdist.engine.run import InProcess
from rfmdist.errors import SingularRowError
from rfmdist.features import dense, power
from rfmdist.features.dense import DenseFeatures, Form
from rfmdist.features.power import matrix_power, power_of_two, spans
from rfmdist.features.protocol import Partial, Scores, Step
from rfmdist.kernels.threads import Threads

ITERATIONS = 6
RIDGES = {0.5: (0.1, 1e-3, 1e-6, 1e-9), 1.0: (0.1, 1e-3, 1e-6), 1.5: (0.1, 1e-3)}
"""Ridges, by power, that leave 8 digits: P spreads over the 4 power-th power of Z's singular values."""
CASES = [
    *[(alpha, ridge, 0.0) for alpha, ridges in RIDGES.items() for ridge in ridges],
    *[(alpha, 0.0, 0.1) for alpha in RIDGES],  # no ridge at all: the floor keeps the rows' systems regular
]
FORMS: list[Form] = ["product", "gram"]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut tiles, panels and pieces so small that a small problem has many of each."""
    monkeypatch.setattr(dense, "TILE", 27)
    monkeypatch.setattr(dense, "PANEL_BYTES", 1)
    monkeypatch.setattr(dense, "PIECE_ENTRIES", 40)
    monkeypatch.setattr(power, "PANEL", 23)


def iterates(
    values: Any, alpha: float, step: Step, floor: float, form: Form, dtype: Any = np.float64, threads: int = 1
) -> Iterator[tuple[Any, Any]]:
    """Yield (Z, P) of each iteration of dense features from P = I."""
    features = DenseFeatures.start(values.shape[1], dtype, form)
    for estimate, after in halves.iterates(features, values, alpha, step, floor, dtype, threads):
        yield estimate, halves.matrix(after)


def worst(found: Any, expected: Any) -> float:
    """Give the greatest relative difference of Z or P over the iterations."""
    pairs = islice(zip(found, expected, strict=False), ITERATIONS)
    return max(max(map(oracles.distance, ours, theirs)) for ours, theirs in pairs)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
@pytest.mark.parametrize(("ridge", "floor"), [(0.1, 0.0), (1e-3, 0.01), (0.0, 0.1)])
@pytest.mark.parametrize("replacement", [0, 1, 5])
def test_dual_oracle_is_the_general_form(
    rng: np.random.Generator, alpha: float, ridge: float, floor: float, replacement: float
) -> None:
    """The dual oracle's iterates are those of Algorithm 1 with one measurement operator an entry."""
    values = oracles.sparse_problem(rng, 11, 13, density=0.4)
    dual = oracles.dual_iterates(values, alpha, ridge, replacement, floor)
    general = oracles.operator_iterates(values, alpha, ridge, replacement, floor)
    assert worst(dual, general) < 1e-8


@pytest.mark.parametrize("d", [60, 200])
@pytest.mark.parametrize(("alpha", "ridge", "floor"), CASES)
@pytest.mark.parametrize("replacement", [0, 1, 5])
def test_every_iterate_is_the_oracle_s(
    rng: np.random.Generator, d: int, alpha: float, ridge: float, floor: float, replacement: float
) -> None:
    """Z and P of 6 iterations agree to 8 digits in float64, rows of 0 and 1 entries among them."""
    values = oracles.sparse_problem(rng, d + 10, d)
    found = iterates(values, alpha, Step(ridge, replacement), floor, "product")
    error = worst(found, oracles.dual_iterates(values, alpha, ridge, replacement, floor))
    assert error < {0.5: 1e-11, 1.0: 1e-8, 1.5: 1e-8}[alpha]


@pytest.mark.parametrize("d", [60, 200])
@pytest.mark.parametrize(("ridge", "floor"), [(r, f) for a, r, f in CASES if a == 0.5])
@pytest.mark.parametrize("replacement", [0, 1, 5])
def test_gram_form_is_the_oracle_s(
    rng: np.random.Generator, d: int, ridge: float, floor: float, replacement: float
) -> None:
    """Summing A'A and multiplying by P on both sides agrees to 8 digits at power 1/2, more rows than columns."""
    values = oracles.sparse_problem(rng, 3 * d, d, density=0.1)
    found = iterates(values, 0.5, Step(ridge, replacement), floor, "gram")
    assert worst(found, oracles.dual_iterates(values, 0.5, ridge, replacement, floor)) < 1e-8


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
@pytest.mark.parametrize(("ridge", "floor"), [(0.1, 0.0), (1e-3, 0.01)])
@pytest.mark.parametrize("replacement", [0, 1, 5])
@pytest.mark.parametrize("shape", [(70, 60), (50, 60)])
def test_both_sides_are_the_oracle_s(
    rng: np.random.Generator, alpha: float, ridge: float, floor: float, replacement: float, shape: tuple[int, int]
) -> None:
    """Where columns and rows take turns, Z and P of 6 iterations agree, more rows than columns or fewer."""
    values = oracles.sparse_problem(rng, *shape)
    found = iterates(values, alpha, Step(ridge, replacement, crossing=True), floor, "product")
    error = worst(found, oracles.both_sides_iterates(values, alpha, ridge, replacement, floor))
    assert error < {0.5: 1e-11, 1.0: 1e-8, 1.5: 1e-6}[alpha]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_fit_together(rng: np.random.Generator, form: Form, threads: int) -> None:
    """Many tiles, panels and pieces give what one gives, on one thread or three."""
    values = oracles.sparse_problem(rng, 90, 100)
    found = iterates(values, 0.5, Step(0.1, 1), 0.0, form, threads=threads)
    assert worst(found, oracles.dual_iterates(values, 0.5, 0.1, 1)) < 1e-12


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_do_not_move_a_bit(rng: np.random.Generator, form: Form, dtype: Any) -> None:
    """P after 6 iterations is the same bits on 1, 2 and 3 threads."""
    values = oracles.sparse_problem(rng, 90, 100)
    found = [
        list(islice(iterates(values, 0.5, Step(0.1, 1), 0.0, form, dtype, count), ITERATIONS))[-1][1]
        for count in (1, 2, 3)
    ]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize(("alpha", "tolerance"), [(0.5, 2e-6), (1.0, 1e-4)])
def test_float32_is_near_float64(rng: np.random.Generator, alpha: float, tolerance: float) -> None:
    """float32 iterates stay within its rounding times the systems' conditioning."""
    values = oracles.sparse_problem(rng, 90, 100)
    found = iterates(values, alpha, Step(0.1, 1), 0.0, "product", np.float32)
    error = worst(found, oracles.dual_iterates(values, alpha, 0.1, 1))
    assert 1e-9 < error < tolerance


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_unit_holds_extreme_scales(rng: np.random.Generator, form: Form, scale: float) -> None:
    """From P = I at power 3/2, values times c give Z times c and P times c^6, though c^6 is 1e-36 or 1e36."""
    values = oracles.sparse_problem(rng, 70, 60)
    first, second = (list(islice(iterates(v, 1.5, Step(0.1, 1), 0.0, form), 2)) for v in (values, scale * values))
    assert oracles.distance(second[0][0], scale * first[0][0]) < 1e-12
    assert oracles.distance(second[0][1], scale**6 * first[0][1]) < 1e-12


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_unit_leaves_predictions_alone(rng: np.random.Generator, scale: float) -> None:
    """Values and ridge far from 1 at power 3/2: predictions are still those of the oracle, which has no unit."""
    values = scale * oracles.sparse_problem(rng, 70, 60)
    features = DenseFeatures.start(60, np.float64)
    pool = Threads(1)
    block = oracles.row_block(values)
    total = features.zero(Step(0.1, 1), pool)
    features.accumulate(total, block, features.solve(block, Step(0.1, 1), pool), Step(0.1, 1), pool)
    after = features.update(total, 70, Step(0.1, 1), 0.0, 3, InProcess(pool).map_panels)
    assert 1e-3 < np.trace(after.matrix) / 60 < 1e3
    ridge = 0.1 * scale**6
    estimate = after.complete(block, after.solve(block, Step(ridge, 1), pool), pool)
    assert oracles.distance(estimate, oracles.dual_estimate(values, after.unit * after.matrix, ridge)) < 1e-10


def test_rank_loss_without_ridge_names_the_row() -> None:
    """A column that was zero everywhere has no feature left: the row, its size and the way out are told."""
    values = np.array([[1.0, 0.0, 2.0], [2.0, 0.0, 1.0]])
    with pytest.raises(SingularRowError, match=r"row code 0: its 3 × 3 system .* float64; raise ridge or floor"):
        list(islice(iterates(values, 0.5, Step(0.0, 1), 0.0, "product"), 2))


@pytest.mark.parametrize("form", FORMS)
def test_nothing_observed(form: Form) -> None:
    """Rows without any entry complete to zero and leave P at the floor's power."""
    values = np.full((4, 5), np.nan)
    estimate, features = next(iterates(values, 1.0, Step(0.1, 1), 0.5, form))
    assert not estimate.any()
    assert oracles.distance(features, 0.25 * np.eye(5)) < 1e-15


def test_prediction_is_the_completed_entry(rng: np.random.Generator) -> None:
    """Single entries, observed or not, equal those of the completed rows."""
    values = oracles.sparse_problem(rng, 30, 40)
    block, pool = oracles.row_block(values), Threads(1)
    root = rng.normal(size=(40, 40))
    features = DenseFeatures(root @ root.T, 4.0)
    solution = features.solve(block, Step(0.3, 1), pool)
    wanted = oracles.row_block(np.where(rng.random((30, 40)) < 0.3, 0.0, np.nan))
    found = features.predict(block, solution, wanted, pool)
    expected = oracles.dual_estimate(values, 4 * root @ root.T, 0.3)[wanted.rows, wanted.indices]
    assert oracles.distance(found, expected) < 1e-11


@given(st.integers(1, 70), st.integers(1, 7), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_whole_powers(n: int, exponent: int, seed: int) -> None:
    """Repeated products are numpy's power, and symmetric to rounding."""
    half = np.random.default_rng(seed).normal(size=(n, n)) / np.sqrt(n)
    matrix = half + half.T
    found = matrix_power(matrix, exponent, InProcess(Threads(1)).map_panels)
    assert oracles.distance(found, np.linalg.matrix_power(matrix, exponent)) < 1e-11
    assert oracles.distance(found, found.T) < 1e-13


def test_small_helpers() -> None:
    """Spans cover a range once; powers of two are nearest in the logarithm, 1 where there is none."""
    assert spans(7, 3) == [(0, 3), (3, 6), (6, 7)]
    assert [power_of_two(x) for x in (1.0, 3.0, 0.3, 1e-300)] == [1.0, 4.0, 0.25, 2.0**-997]
    assert [power_of_two(x) for x in (0.0, np.inf, np.nan)] == [1.0, 1.0, 1.0]


def test_partials_add_up() -> None:
    """Sums of partials add their sums and scores and join their rows in order, in place and not."""
    one = Partial(
        {"agop": np.eye(2), "squares": np.ones(())},
        [(np.ones(1),)],
        Scores.of(np.array([1.0, 3.0]), np.array([2.0, 1.0])),
    )
    two = Partial({"agop": np.eye(2), "squares": np.ones(())}, [(np.zeros(2),)], one.scores)
    total = one + two
    total += one
    assert np.array_equal(total.sums["agop"], 3 * np.eye(2))
    assert total.sums["squares"] == 3
    assert np.array_equal(one.sums["agop"], np.eye(2))
    assert [len(rows) for (rows,) in total.rows] == [1, 2, 1]
    assert len(one.rows) == 1
    assert (total.scores.count, total.scores.rmse, total.scores.mae) == (6, np.sqrt(2.5), 1.5)
    assert np.isnan(Scores().rmse)
    assert np.isnan(Scores().mae)


def test_distance_minds_the_unit(rng: np.random.Generator) -> None:
    """The relative change compares P, not the stored matrix."""
    matrix = rng.normal(size=(5, 5))
    assert DenseFeatures(matrix, 2.0).distance(DenseFeatures(2 * matrix, 1.0)) == 0
    assert DenseFeatures(matrix, 2.0).distance(DenseFeatures(matrix, 1.0)) == pytest.approx(0.5)
