"""Rational powers by products are those of eigenvalues, and features raised to them those of exact iterates."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import halves
import numpy as np
import oracles
import pytest
from typer.testing import CliRunner

from rfmdist.cli import app
from rfmdist.engine.run import InProcess
from rfmdist.errors import InputError, SingularRowError
from rfmdist.features import power
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.minimax import inverse_root_map
from rfmdist.features.power import here, matrix_power, rational_power, saturated
from rfmdist.features.protocol import Step
from rfmdist.kernels.threads import Threads
from rfmdist.lin_rfm import LinRFM
from rfmdist.parameters import as_fraction

POWERS = [Fraction(text) for text in ["1/4", "1/3", "3/4", "1/2", "2/3", "3/2", "1/5", "5/6", "7/12", "1/12"]]
ALPHAS = [Fraction(1, 8), Fraction(1, 4), Fraction(1, 3), Fraction(3, 4), Fraction(5, 6)]
FIXED = {"offsets": None, "dtype": "float64", "clip": None, "tol": 0.0, "ridge": 0.1, "validation_fraction": 0}


def spectrum(kind: str, condition: float, size: int) -> Any:
    """Give eigenvalues: even in the logarithm, all but one large, all but one small, or all but a quarter 0."""
    if kind == "even":
        return np.geomspace(1 / condition, 1, size)
    if kind == "rank":
        return np.where(np.arange(size) < size // 4, np.linspace(0.1, 1, size), 0)
    values = np.full(size, 1.0 if kind == "one small" else 1 / condition)
    values[0] = 1 / condition if kind == "one small" else 1
    return values


def with_spectrum(rng: np.random.Generator, values: Any) -> Any:
    """Give a symmetric matrix with these eigenvalues."""
    basis = np.linalg.qr(rng.normal(size=(len(values),) * 2))[0]
    matrix = (basis * values) @ basis.T
    return (matrix + matrix.T) / 2


# ---- the power of a matrix ----------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", POWERS, ids=str)
@pytest.mark.parametrize("kind", ["even", "one small", "one large"])
def test_powers_are_those_of_eigenvalues(rng: np.random.Generator, kind: str, exponent: Fraction) -> None:
    """At a condition of 1e8 the relative difference is below 1e-8, at any scale, and the power is symmetric."""
    matrix = 1e5 * with_spectrum(rng, spectrum(kind, 1e8, 90))
    found = rational_power(matrix, exponent, here)
    assert oracles.distance(found, oracles.eigen_power(matrix, float(exponent))) < 1e-8
    assert np.array_equal(found, found.T)


@pytest.mark.parametrize("condition", [1.0, 1.5, 1e3, 1e10])
@pytest.mark.parametrize("size", [1, 2, 30])
def test_any_size_and_condition(rng: np.random.Generator, size: int, condition: float) -> None:
    """From multiples of I to conditions at which small directions are known to few digits: a root's power is A."""
    matrix = with_spectrum(rng, spectrum("even", condition, size))
    for root in (2, 3, 4):
        again = matrix_power(rational_power(matrix, Fraction(1, root), here), root, here)
        assert oracles.distance(again, matrix) < 1e-11


@pytest.mark.parametrize("exponent", [Fraction(1, 4), Fraction(1, 3), Fraction(3, 4)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_singular_matrices(rng: np.random.Generator, exponent: Fraction, dtype: Any) -> None:
    """Where three quarters of the eigenvalues are 0, what is added to them is of the order of rounding."""
    matrix = with_spectrum(rng, spectrum("rank", 1, 80)).astype(dtype)
    found, expected = (f(matrix, e) for f, e in ((_raised, exponent), (oracles.eigen_power, float(exponent))))
    least = power.LEAST * np.sqrt(80) * np.finfo(dtype).eps
    assert found.dtype == dtype
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - expected, 2) < 1.2 * (1.5 * least) ** float(exponent)


def test_zeros_and_whole_powers(rng: np.random.Generator) -> None:
    """Zeros stay zeros; whole powers are those of repeated squaring, bit for bit."""
    matrix = with_spectrum(rng, spectrum("even", 10, 20))
    assert not rational_power(np.zeros((5, 5)), Fraction(1, 3), here).any()
    assert np.array_equal(rational_power(matrix, Fraction(3), here), matrix_power(matrix, 3, here))


def test_what_has_no_root_is_refused() -> None:
    """Matrices that are not finite, or have an eigenvalue below 0, are refused with the way out."""
    with pytest.raises(SingularRowError, match="left the range of float64: lower replacement"):
        rational_power(np.diag([1.0, np.nan]), Fraction(1, 2), here)
    with pytest.raises(SingularRowError, match="2 × 2 is not positive semi-definite: raise floor"):
        rational_power(np.diag([1.0, -0.1]), Fraction(1, 2), here)


def test_what_does_not_settle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of polynomials is bounded, for square roots and for odd ones."""
    monkeypatch.setattr(power, "MOST_MAPS", 1)
    for root in (2, 3):
        with pytest.raises(SingularRowError, match="does not settle: raise floor"):
            rational_power(np.diag([1.0, 0.1]), Fraction(1, root), here)


def test_any_number_of_threads_gives_the_same_bits(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels run on one thread or three, in whatever order, make the same power."""
    monkeypatch.setattr(power, "PANEL", 17)
    matrix, pool = with_spectrum(rng, spectrum("even", 1e6, 60)), Threads(3)
    for exponent in (Fraction(1, 4), Fraction(2, 3)):
        threaded = rational_power(matrix, exponent, InProcess(pool).map_panels)
        assert np.array_equal(threaded, rational_power(matrix, exponent, here))
        assert oracles.distance(threaded, oracles.eigen_power(matrix, float(exponent))) < 1e-10
    pool.close()


@pytest.mark.parametrize("root", [2, 3, 5, 11])
def test_polynomials_stay_in_bounds(root: int) -> None:
    """What x h(x)^b reaches is in (0, 1], not below what is told; a long interval shrinks fortyfold."""
    for low in 2.0 ** -np.arange(1, 53):
        found = inverse_root_map(low, root)
        x = np.geomspace(low, 1, 20_001)
        reached = x * np.polynomial.polynomial.polyval(found.slope * x + found.shift, found.coefficients) ** root
        assert found.low <= reached.min()
        assert reached.max() <= 1
        assert found.low > (40 * low if low < 1e-3 else low)


def _raised(matrix: Any, exponent: Fraction) -> Any:
    return rational_power(matrix, exponent, here)


# ---- features -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
@pytest.mark.parametrize("floor", [0.0, 0.3])
@pytest.mark.parametrize("crossing", [False, True])
def test_factored_update(rng: np.random.Generator, crossing: bool, floor: float, alpha: Fraction) -> None:
    """U U' is (C + floor I)^(2α) - floor^(2α) I, C the AGOP restricted to what U and B span: the rest is the floor."""
    values, step = oracles.sparse_problem(rng, 40, 30), Step(0.2, 1, crossing)
    features = FactoredFeatures(rng.normal(size=(30, 6)) / np.sqrt(30), np.zeros(30), floor=0.2)
    plain = halves.half_step(features, values, 0.5, step)[1]  # C C', and beside it the rest
    total = halves.solved(features, values, step)[1]
    found = features.update(total, 40, step, floor, 2 * alpha, here)
    left, sizes, _ = np.linalg.svd(plain.factor, full_matrices=False)
    raised = (sizes**2 + floor) ** float(2 * alpha) - floor ** float(2 * alpha)
    expected = (left * raised) @ left.T
    assert oracles.distance(found.factor @ found.factor.T, expected) < 1e-8
    assert found.floor == pytest.approx((floor + plain.floor) ** float(2 * alpha), rel=1e-10)


@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factored_update_of_lost_rank(rng: np.random.Generator, dtype: Any, alpha: Fraction) -> None:
    """Where the AGOP has lost rank the factor stays bounded: P's greatest eigenvalue is the AGOP's to the power."""
    low = (rng.normal(size=(40, 2)) @ rng.normal(size=(2, 30))).astype(dtype)
    features = FactoredFeatures.start(np.zeros(30), 8, dtype, 0)
    step = Step(1e-3, 0, True)
    total = halves.solved(features, low, step, dtype)[1]
    plain = features.update(total, 40, step, 0.0, 1, here)
    found = features.update(halves.solved(features, low, step, dtype)[1], 40, step, 0.0, 2 * alpha, here)
    greatest, expected = (np.linalg.norm(f.factor.astype(float), 2) ** 2 for f in (found, plain))
    assert greatest == pytest.approx(expected ** float(2 * alpha), rel=1e-2 if dtype == np.float32 else 1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scale_passes_through(rng: np.random.Generator, dtype: Any, scale: float) -> None:
    """Dense features of values times c at power 3/4 are c³ those of the values, and their unit is a power of two."""
    values, features = oracles.sparse_problem(rng, 40, 30), DenseFeatures.start(30, dtype)
    one, other = (halves.solved(features, c * values, Step(0.1, 1), dtype)[1] for c in (1.0, scale))
    found = [features.update(total, 40, Step(0.1, 1), 0.0, Fraction(3, 2), here) for total in (one, other)]
    expected = scale**3 * halves.matrix(found[0])
    assert oracles.distance(halves.matrix(found[1]), expected) < (1e-4 if dtype == np.float32 else 1e-11)
    assert np.log2(found[1].unit).is_integer()
    assert found[1].matrix.dtype == dtype


# ---- the estimator ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.25, 1 / 3, 0.75])
@pytest.mark.parametrize("floor", [0.0, 0.05])
@pytest.mark.parametrize("sides", ["columns", "both"])
def test_dense_factored_and_the_oracle_agree(rng: np.random.Generator, sides: str, floor: float, alpha: float) -> None:
    """After 6 iterations dense features give the oracle's estimate, and factored ones of full rank the same."""
    values = oracles.sparse_problem(rng, 42, 40, density=0.4)[2:]
    given = {**FIXED, "power": alpha, "floor": floor, "replacement": 1, "sides": sides, "max_iter": 6}
    kinds: list[dict[str, Any]] = [{"features": "dense"}, {"features": "factored", "rank": 40}]
    dense, low = (_completed(values, **given, **kind) for kind in kinds)
    unit, hidden = np.sqrt(np.nanmean(values**2)), np.isnan(values)
    iterates = oracles.dual_iterates if sides == "columns" else oracles.both_sides_iterates
    expected = [z for _, (z, _) in zip(range(6), iterates(values / unit, alpha, 0.1, 1, floor), strict=False)][-1]
    assert oracles.distance(dense, unit * expected) < 1e-9
    assert oracles.distance(low[hidden], dense[hidden]) < 1e-7


@pytest.mark.parametrize("alpha", [Fraction(1, 4), Fraction(1, 3), Fraction(3, 4)], ids=str)
@pytest.mark.parametrize(
    "kind", [{"features": "dense"}, pytest.param({"features": "factored"}, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("noise", [pytest.param(0.0, marks=pytest.mark.slow), 0.1])
def test_settings_are_chosen(rng: np.random.Generator, kind: dict[str, Any], alpha: Fraction, noise: float) -> None:
    """With everything "auto" a low-rank matrix is completed to far below its spread, in float32."""
    full = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 30))
    seen = rng.random(full.shape) < 0.6
    found = _completed(np.where(seen, full + noise * rng.normal(size=full.shape), np.nan), power=alpha, **kind)
    assert oracles.distance(found[~seen], full[~seen]) < 0.15


def _completed(values: Any, **parameters: Any) -> Any:
    model = LinRFM(**{"offsets": None, "max_iter": 40, **parameters})
    return model.fit(oracles.as_sparse(values)).completion_.predict_block().compute()


@pytest.mark.parametrize("scale", [1e-9, 0.3, 40.0, 1e6])
def test_exponential_is_that_of_eigenvalues(rng: np.random.Generator, scale: float) -> None:
    """I - exp(-A) keeps the digits of small eigenvalues, to any norm; a matrix that is not finite is refused."""
    matrix = scale * with_spectrum(rng, spectrum("even", 1e6, 30))
    values, vectors = np.linalg.eigh(matrix)
    found = vectors.T @ saturated(matrix, here) @ vectors
    expected = -np.expm1(-values)
    rounding = 1e-15 * (1e3 + scale) * expected.max()  # that of A, which moves its small eigenvalues
    assert np.abs(np.diag(found) - expected).max() < rounding
    assert np.abs(found - np.diag(expected)).max() < rounding
    with pytest.raises(SingularRowError, match="left the range"):
        saturated(np.full((2, 2), np.nan), here)


def test_exponential_features_are_the_oracle_s(rng: np.random.Generator) -> None:
    """The iterates with P = I - exp(-(AGOP + floor I)) are those of a plain transcription, and complete a matrix."""
    full = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 30))
    values = np.where(rng.random(full.shape) < 0.6, full, np.nan)
    seen, unit = ~np.isnan(values), np.sqrt(np.nanmean(values**2))
    features = np.eye(30)
    for _ in range(6):
        dual = np.zeros(full.shape)
        for i, at in enumerate(seen):
            dual[i, at] = np.linalg.solve(features[np.ix_(at, at)] + 0.1 * np.eye(at.sum()), values[i, at] / unit)
        completed = dual @ features
        predicted = dual @ (features + 0.1 * np.eye(30))
        agop, vectors = np.linalg.eigh(predicted.T @ predicted / 40)
        features = (vectors * -np.expm1(-(agop + 0.01))) @ vectors.T
    given = {**FIXED, "power": "exponential", "floor": 0.01, "replacement": 1, "max_iter": 6}
    assert oracles.distance(_completed(values, **given), unit * completed) < 1e-9
    chosen = _completed(values, power="exponential", dtype="float64")
    assert oracles.distance(chosen[~seen], full[~seen]) < 0.05
    with pytest.raises(InputError, match="needs exact features: choose features='dense'"):
        LinRFM(power="exponential", features="factored").fit(oracles.as_sparse(values))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.25, (1, 4)),
        (1 / 3, (1, 3)),
        (np.float32(1 / 3), (1, 3)),
        (Fraction(5, 12), (5, 12)),
        (2, (2, 1)),
        (7 / 11, (7, 11)),
    ],
)
def test_powers_are_fractions(given: Any, expected: tuple[int, int]) -> None:
    """A number is the fraction with a small denominator that it is within rounding."""
    assert as_fraction(given) == Fraction(*expected)


@pytest.mark.parametrize("given", [0, -0.5, 0.333, 1 / 13, 1e-9, "half", np.nan, np.inf, True, None])
def test_other_powers_are_refused(given: Any) -> None:
    """What is no such fraction is refused in one sentence before anything is fitted."""
    with pytest.raises(InputError, match=r"power=.* must be a positive fraction with a denominator of at most 12"):
        LinRFM(power=given).fit(oracles.as_sparse(np.eye(4)))


@pytest.mark.parametrize("text", [pytest.param("0.25", marks=pytest.mark.slow), "1/3", "exponential"])
def test_command_line(tmp_path: Any, rng: np.random.Generator, text: str) -> None:
    """``--power`` takes points and slashes, and the fit tells what it took."""
    rows, columns = np.nonzero(rng.random((20, 15)) < 0.6)
    lines = [f"{i},{j},{i % 3 + j % 4}" for i, j in zip(rows, columns, strict=True)]
    (tmp_path / "seen.csv").write_text("row,column,value\n" + "\n".join(lines) + "\n")
    runner, store = CliRunner(), str(tmp_path / "seen.zarr")
    assert runner.invoke(app, ["ingest", str(tmp_path / "seen.csv"), "-o", store]).exit_code == 0
    given = ["--power", text, "--features", "dense", "--ridge", "0.1", "--replacement", "1", "--max-iter", "2"]
    told = runner.invoke(app, ["fit", store, "-o", str(tmp_path / "fitted.zarr"), *given, "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["power"] == (text if text == "exponential" else float(Fraction(text)))
