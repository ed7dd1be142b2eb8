"""Augmented features: every half step is that of DESIGN.md on the block matrix written out, and the prototype's."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import halves
import numba
import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmdist.features import factored
from rfmdist.features.augmented import COUNT_DAMPING, INDICATOR_RIDGE, RIDGE_DAMPING, AugmentedFeatures, Extras, Margin
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.protocol import Step
from rfmdist.kernels.threads import Threads
from rfmdist.observations.blocks import RowBlock

STEP = Step(0.3, 1.0, crossing=True)
EXTRAS = {
    "indicators": Extras(indicators=0.4),
    "ridge by count": Extras(ridge_by_count=0.3),
    "side": Extras(side_weight=0.2),
    "all": Extras(indicators=0.4, ridge_by_count=0.3, side_weight=0.2),
    "heavy": Extras(indicators=1.5, ridge_by_count=1.0, side_weight=2.0),
}
PROTOTYPE = Path(os.environ.get("RFMDIST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
PROTOTYPE = PROTOTYPE.parent / "prototypes" / "ratings.py"


# ---- the oracle ---------------------------------------------------------------------------------------------


@dataclass
class Oracle:
    """Features of one side as DESIGN.md, "Indicators", has them: U, U2, offsets; X is formed, nothing rotated."""

    factor: Any
    companion: Any
    offsets: Any
    shrinkage: tuple[float, float]
    sides: tuple[Any, Any]
    extras: Extras

    @property
    def matrix(self) -> Any:
        """[U; U2] [U; U2]', what does not depend on the basis that U is written in."""
        stacked = np.vstack([self.factor, self.companion])
        return stacked @ stacked.T

    def half_step(self, values: Any, step: Step, power: int) -> tuple[Any, Oracle]:
        """Solve the rows of ``values``: the estimate, and the features of the other side that follow."""
        (m, n), extras, rank = values.shape, self.extras, self.factor.shape[1]
        side = extras.side_weight * np.sqrt(np.mean(np.sum(self.factor**2, axis=1))) * self.sides[0]
        side = side if extras.side_weight else side[:, :0]
        above, below = np.hstack([self.factor, side]), np.hstack([self.companion, 0 * side])
        seen = ~np.isnan(values)
        indicators = indicator_block(seen, extras.indicators)
        counts = seen.sum(axis=1)
        deltas = step.ridge * ((counts + RIDGE_DAMPING) / (counts.mean() + RIDGE_DAMPING)) ** extras.ridge_by_count
        solved, intercepts, width = np.zeros((m, above.shape[1])), np.zeros(m), above.shape[1]
        for i in range(m):
            here = np.nonzero(seen[i])[0]
            if not len(here):
                continue
            joint = self.shrinkage[0] < np.inf
            design = np.vstack(
                [
                    np.column_stack([above[here], np.ones(len(here))]),
                    np.column_stack([below, np.zeros(n)]),
                    np.sqrt(np.diag([*[deltas[i]] * width, self.shrinkage[0] if joint else 1.0])),
                ]
            )[:, : width + joint]
            right = np.concatenate([values[i, here] - self.offsets[here], indicators[i], np.zeros(width + 1)])
            found = np.linalg.lstsq(design, right, rcond=None)[0]
            solved[i], intercepts[i] = found[:width], found[width:].sum()
        low_rank = solved @ above.T
        left = np.where(seen, values - self.offsets - intercepts[:, None] - low_rank, 0)
        tall = np.vstack([above, below])
        basis = tall @ inverse_root(tall.T @ tall) / np.sqrt(n)
        of_values = np.hstack(
            [low_rank + step.replacement * left, solved @ below.T + step.replacement * (indicators - solved @ below.T)]
        )
        if extras.indicators:
            delta = INDICATOR_RIDGE * step.ridge
            rows = indicators @ above @ np.linalg.inv(above.T @ above + delta * np.eye(width))
            again = step.replacement / INDICATOR_RIDGE * (indicators - rows @ above.T)
            of_indicators = np.hstack([rows @ above.T + again, rows @ below.T])
        else:
            of_indicators = np.zeros((m, 2 * n))
        crossed = np.vstack([of_values, of_indicators]) @ basis
        g, vectors = np.linalg.eigh(crossed @ crossed.T)
        kept = vectors[:, -rank:] * np.maximum(g[-rank:], 0) ** (power / 2)
        estimate = low_rank + intercepts[:, None] + self.offsets
        after = replace(
            self,
            factor=kept[:m],
            companion=kept[m:],
            offsets=intercepts,
            shrinkage=self.shrinkage[::-1],
            sides=self.sides[::-1],
        )
        return estimate, after


def inverse_root(gram: Any) -> Any:
    """Symmetric inverse square root, 0 where the Gram matrix is."""
    g, v = np.linalg.eigh(gram)
    return (v / np.sqrt(np.where(g > 1e-12 * g[-1], g, np.inf))) @ v.T


def indicator_block(seen: Any, weight: float) -> Any:
    """X = c sqrt(N) (1[observed] - p q' / N) / sqrt((p + k)(q + k)')."""
    p, q, total = seen.sum(axis=1, keepdims=True), seen.sum(axis=0), max(seen.sum(), 1)
    return weight * np.sqrt(total) * (seen - p * q / total) / np.sqrt((p + COUNT_DAMPING) * (q + COUNT_DAMPING))


def problem(rng: np.random.Generator, m: int = 34, n: int = 27) -> Any:
    """Give ratings of which rows and columns have few or many, by popularity and by value; row 0 has none."""
    full = rng.normal(size=(m, 3)) @ rng.normal(size=(3, n)) / np.sqrt(3) + 0.3 * rng.normal(size=(m, n))
    popular = np.outer(rng.uniform(0.1, 1, m), rng.uniform(0.1, 1, n))
    seen = rng.random((m, n)) < popular * (0.5 + 0.5 * (full > 0))
    seen[0] = False
    return np.where(seen, full, np.nan)


def margins(rng: np.random.Generator, values: Any, columns: int = 3) -> tuple[Margin, Margin]:
    """Give counts of columns and rows, and random side columns."""
    seen = ~np.isnan(values)
    sizes = values.shape[::-1]
    return tuple(
        Margin(seen.sum(axis=axis).astype(float), rng.normal(size=(size, columns))) for axis, size in enumerate(sizes)
    )  # type: ignore[return-value]


def pair(
    rng: np.random.Generator, values: Any, extras: Extras, rank: int, shrinkage: tuple[float, float]
) -> tuple[AugmentedFeatures, Oracle]:
    """Give features of the columns, and the oracle's, from the same start."""
    of_both = margins(rng, values)
    plain = FactoredFeatures.start(0.1 * rng.normal(size=values.shape[1]), rank, np.float64, 0, shrinkage)
    oracle = Oracle(
        plain.factor, 0 * plain.factor, plain.offsets, shrinkage, (of_both[0].side, of_both[1].side), extras
    )
    return AugmentedFeatures.begin(plain, of_both, extras), oracle


def matrix(features: AugmentedFeatures) -> Any:
    """[U; U2] [U; U2]' of what is learned."""
    learned = features.factor[:, : features.learned]
    below = features.companion if features.extras.indicators else np.zeros_like(learned)
    stacked = np.vstack([learned, below])
    return stacked @ stacked.T


# ---- the half step ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("name", EXTRAS)
@pytest.mark.parametrize("shrinkage", [(2.0, 5.0), (np.inf, np.inf)], ids=str)
def test_every_iterate_is_the_block_matrix_s(
    rng: np.random.Generator, name: str, alpha: float, shrinkage: tuple[float, float]
) -> None:
    """Estimates, offsets and features of six half steps, both sides, are those of [[Y, X], [X, ?]] written out."""
    values = problem(rng)
    features, oracle = pair(rng, values, EXTRAS[name], 5, shrinkage)
    for t in range(6):
        given = values if t % 2 == 0 else values.T
        step = replace(STEP, ridge=0.4 * 0.9**t, replacement=(1.0, 1.0, 0.0, 2.5, 1.0, 1.0)[t])
        found, features = halves.half_step(features, given, alpha, step)
        expected, oracle = oracle.half_step(given, step, round(2 * alpha))
        assert oracles.distance(found, expected) < 1e-8
        assert oracles.distance(matrix(features), oracle.matrix) < 1e-8
        assert np.allclose(features.offsets, oracle.offsets, rtol=0, atol=1e-8)
        assert (features.learned, features.shrinkage) == (5, oracle.shrinkage)
    if EXTRAS[name].indicators:
        products = features.companion.T @ features.companion
        assert np.diag(products).min() > 1e-6
        assert oracles.distance(products, np.diag(np.diag(products))) < 1e-10


@given(
    st.integers(2, 14),
    st.integers(2, 14),
    st.integers(1, 5),
    st.sampled_from(list(EXTRAS)),
    st.sampled_from([2.0, np.inf]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_any_half_step(m: int, n: int, rank: int, name: str, shrinkage: float, seed: int) -> None:
    """Any shape, rank and pattern: estimates of a row and a column half step are the oracle's."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((m, n)) < rng.uniform(0.2, 1), rng.normal(size=(m, n)), np.nan)
    if not (~np.isnan(values)).any():
        return
    features, oracle = pair(rng, values, EXTRAS[name], min(rank, m, n), (shrinkage, shrinkage))
    for given_values in (values, values.T):
        found, features = halves.half_step(features, given_values, 0.5, STEP)
        expected, oracle = oracle.half_step(given_values, STEP, 1)
        assert np.allclose(found, expected, rtol=0, atol=1e-6)


def test_without_additions_they_are_plain(rng: np.random.Generator) -> None:
    """All extras 0: the estimate and P are those of plain features, but for the floor, which these do without."""
    values = problem(rng)
    plain = FactoredFeatures.start(np.zeros(27), 6, np.float64, 0, (2.0, 5.0))
    ours = AugmentedFeatures.begin(plain, margins(rng, values), Extras())
    found, after = halves.half_step(ours, values, 1.0, STEP)
    expected, plain = halves.half_step(plain, values, 1.0, STEP)
    assert oracles.distance(found, expected) < 1e-10
    assert oracles.distance(after.factor @ after.factor.T, plain.factor @ plain.factor.T) < 1e-10
    assert after.floor == 0 < plain.floor


@pytest.mark.parametrize("name", ["indicators", "all"])
def test_indicators_times_any(rng: np.random.Generator, name: str) -> None:
    """The block's rows of X times a matrix, sparse minus rank one, are those of X formed as a whole."""
    values, any_matrix = problem(rng), rng.normal(size=(27, 4))
    features, _ = pair(rng, values, EXTRAS[name], 5, (2.0, 2.0))
    whole = indicator_block(~np.isnan(values), 0.4) @ any_matrix
    for start, stop in ((0, 34), (7, 20)):
        block = oracles.row_block(values, start, stop)
        found = features._indicators(block, any_matrix, features._mean(any_matrix), Threads(1))
        assert oracles.distance(found, whole[start:stop]) < 1e-12


@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.slow), np.float64])
def test_same_bits_on_any_number_of_threads(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    """Rows shared among 1, 2 and 3 threads, long ones cut, give the same bits; cutting changes only the rounding."""
    values = problem(rng, 60, 50)
    features, _ = pair(rng, values, EXTRAS["all"], 5, (2.0, 2.0))
    features = replace(features, factor=features.factor.astype(dtype), offsets=features.offsets.astype(dtype))
    features = replace(features, companion=rng.normal(size=(50, 5)).astype(dtype) / 9)
    found = []
    for heavy, pieces, threads in ((1 << 16, 1 << 15, 1), (12, 16, 1), (12, 16, 2), (12, 16, 3)):
        monkeypatch.setattr(factored, "HEAVY", heavy)
        monkeypatch.setattr(factored, "PIECE_ENTRIES", pieces)
        found.append(halves.half_step(features, values, 0.5, STEP, dtype=dtype, threads=threads))
    (whole, _), (first, after), *others = found
    assert len(oracles.row_block(values).longer_than(12)) > 5
    assert oracles.distance(first, whole) < 300 * np.finfo(dtype).eps
    for estimate, next_features in others:
        assert np.array_equal(estimate, first)
        assert np.array_equal(next_features.factor, after.factor)
        assert np.array_equal(next_features.companion, after.companion)


def test_float32_is_near_float64(rng: np.random.Generator) -> None:
    """float32 estimates stay within its rounding over 5 iterations with all additions."""
    values = problem(rng, 60, 50)
    whole, _ = pair(rng, values, EXTRAS["all"], 5, (2.0, 2.0))
    names = ("factor", "offsets", "companion")
    rounded = replace(whole, **{name: getattr(whole, name).astype(np.float32) for name in names})
    one, other = (
        list(islice(halves.iterates(f, values, 0.5, STEP, dtype=f.factor.dtype), 5))[-1][0] for f in (whole, rounded)
    )
    assert other.dtype == np.float32
    assert 1e-9 < oracles.distance(other, one) < 1e-4


def test_grown_features_keep_what_they_know(rng: np.random.Generator) -> None:
    """New random columns of U come before the side columns, with nothing for the indicators; the rest stays."""
    values = problem(rng)
    features, _ = pair(rng, values, EXTRAS["all"], 4, (2.0, 5.0))
    for _, after in islice(halves.iterates(features, values, 0.5, STEP), 2):
        features = after
    grown = features.grown(9, seed=1)
    assert (grown.learned, grown.factor.shape, grown.companion.shape) == (9, (27, 12), (27, 9))
    assert np.array_equal(grown.factor[:, :4], features.factor[:, :4])
    assert np.array_equal(grown.factor[:, 9:], features.factor[:, 4:])
    assert np.array_equal(grown.companion[:, :4], features.companion)
    assert not grown.companion[:, 4:].any()
    least = np.diag(features.gram)[:4].min()
    assert oracles.distance(grown.gram[4:9, 4:9], least * np.eye(5)) < 1e-12
    assert features.grown(3, seed=1).learned == 4
    estimate, _ = halves.half_step(grown, values, 0.5, STEP)
    assert np.isfinite(estimate).all()


# ---- parity with the prototype --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prototype(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give the prototype as a module, or skip; what is compiled of it is not left beside it for another run to find."""
    if not PROTOTYPE.exists():
        pytest.skip(f"the prototype is not at {PROTOTYPE.resolve()}")
    spec = importlib.util.spec_from_file_location("ratings_prototype", PROTOTYPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "CACHE_DIR", str(tmp_path_factory.mktemp("numba")))
        spec.loader.exec_module(module)
    return module


def heavy_tailed(rng: np.random.Generator, m: int = 300, n: int = 200) -> tuple[Any, Any]:
    """Give train and test entries (rows, columns, values): ratings of 1 to 5, some rows and columns with far more."""
    full = (
        rng.normal(size=(m, 4)) @ rng.normal(size=(4, n)) / 2.5 + rng.normal(size=(m, 1)) / 2 + rng.normal(size=n) / 2
    )
    popular = np.outer(rng.pareto(1.5, m) + 0.5, rng.pareto(1.5, n) + 0.5)
    share = np.minimum(0.12 * popular / popular.mean() * np.exp(0.5 * full), 0.9)
    i, j = np.nonzero(rng.random((m, n)) < share)
    ratings = np.clip(np.round(3.4 + full[i, j] + 0.5 * rng.normal(size=len(i))), 1, 5)
    held = rng.random(len(i)) < 0.1
    train, test = ((i[part], j[part], ratings[part]) for part in (~held, held))
    return train, test


def our_iterates(
    module: Any,
    train: Any,
    shape: tuple[int, int],
    rank: int,
    ridge: float,
    extras: Extras,
    threads: int,
    dtype: Any,
) -> Iterator[Callable[[Any, Any], Any]]:
    """Yield, iteration by iteration, predictions after the row solve, from the prototype's start and offsets."""
    u, i, values = train
    m, n = shape
    mean, bu, bi = module.biases(u, i, values, m, n)
    y = values - mean - bu[u] - bi[i]
    counts = np.bincount(u, minlength=m), np.bincount(i, minlength=n)
    variance = np.mean(y**2)
    scale = ((np.bincount(u, y**2, m) + 20 * variance) / (counts[0] + 20) / variance) ** (extras.row_scale / 2)
    y = y / scale[u]
    unit, delta = np.sqrt(np.mean(y**2)), ridge * y.var() / np.mean(y**2)
    side = [np.c_[b / b.std(), module.standard(np.log(c + 3.0))] for b, c in ((bi, counts[1]), (bu, counts[0]))]
    weights = extras._replace(indicators=extras.indicators / unit)
    _, turned = module.indicator_block(u, i, m, n, extras.indicators)
    sparse = sp.csr_matrix((y, (u, i)), (m, n))
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(n, rank)))[0]
    for _ in range(3):
        q = np.linalg.qr(sparse.T @ (sparse @ q))[0]
    w = sparse @ q
    root = np.linalg.cholesky(w.T @ w / m + 1e-10 * np.eye(rank))
    first = np.linalg.solve(root, (sparse.T @ w / m).T).T
    second = turned(np.linalg.qr(sparse @ np.linalg.qr(first)[0])[0]) / np.sqrt(m)
    rotation = np.linalg.eigh(second.T @ second)[1]  # the product of ours is diagonal
    both = Margin(counts[1].astype(float), side[0]), Margin(counts[0].astype(float), side[1])
    plain = FactoredFeatures((first @ rotation / unit).astype(dtype), np.zeros(n, dtype))
    features: Any = AugmentedFeatures.begin(plain, both, weights)
    features = replace(features, companion=(second @ rotation / unit).astype(dtype))
    blocks = [_block(sparse / unit, dtype), _block(sparse.T.tocsr() / unit, dtype)]
    pool, step = Threads(threads), Step(delta, 1.0, crossing=True)

    def predictor(solved: Any, factor: Any) -> Callable[[Any, Any], Any]:
        def predict(rows: Any, columns: Any) -> Any:
            low_rank = np.einsum("er,er->e", solved[rows], factor[columns], dtype=np.float64)
            return np.clip(mean + bu[rows] + bi[columns] + scale[rows] * unit * low_rank, 1, 5)

        return predict

    while True:
        for block in blocks:
            total, solution = features.zero(step, pool), features.solve(block, step, pool)
            if block is blocks[0]:
                yield predictor(solution.rows.copy(), features.factor)
            features.accumulate(total, block, solution, step, pool)
            features = features.update(total, block.stop, step, 0.0, 1, None)


def _block(matrix: Any, dtype: Any) -> RowBlock:
    matrix.sort_indices()
    indptr, indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    return RowBlock(0, matrix.shape[0], indptr, indices, matrix.data.astype(dtype))


def rmses(iterates: Iterator[Callable[[Any, Any], Any]], test: Any, count: int) -> list[float]:
    """Give the test error after each row solve."""
    return [float(np.sqrt(np.mean((p(test[0], test[1]) - test[2]) ** 2))) for p in islice(iterates, count)]


@pytest.mark.parametrize(
    "extras",
    [
        Extras(0.35, 0.3, 0.5, 0.2),
        *(pytest.param(e, marks=pytest.mark.slow) for e in (Extras(0.35, 0.0, 0.0, 0.2), Extras(0.6, 0.3, 0.5, 0.0))),
    ],
    ids=["full", "no ridge by count", "no side"],
)
def test_errors_are_the_prototype_s(prototype: Any, rng: np.random.Generator, extras: Extras) -> None:
    """On generated ratings of heavy tails the test error after every row solve is the prototype's, to 5 digits."""
    train, test = heavy_tailed(rng)
    given_extras = {
        "indicators": extras.indicators,
        "ridge_exponent": extras.ridge_by_count,
        "row_scale": extras.row_scale,
        "side": extras.side_weight,
    }
    history, _ = prototype.fit(
        train, test, 300, 200, rank=6, ridge=0.6, joint_offsets=0, show=lambda *_: None, **given_extras
    )
    ours = rmses(our_iterates(prototype, train, (300, 200), 6, 0.6, extras, 1, np.float64), test, 10)
    theirs = [row for row, _, _ in history]
    assert np.allclose(ours, theirs, rtol=0, atol=1e-5)
    assert ours[-1] < 0.97 * ours[0]


@pytest.mark.slow
def test_movielens_1m_is_the_prototype_s(prototype: Any, movielens_1m: Path) -> None:
    """MovieLens 1M, rank 64, without joint offsets: the prototype's errors by iteration, to 4 digits."""
    files = [movielens_1m / name for name in ("train.csv.gz", "test.csv.gz")]
    a, b = (np.loadtxt(file, delimiter=",", skiprows=1, usecols=(0, 1, 2)) for file in files)
    users, u = np.unique(np.r_[a[:, 0], b[:, 0]], return_inverse=True)
    items, i = np.unique(np.r_[a[:, 1], b[:, 1]], return_inverse=True)
    k, shape = len(a), (len(users), len(items))
    train, test = (u[:k], i[:k], a[:, 2]), (u[k:], i[k:], b[:, 2])
    found = rmses(our_iterates(prototype, train, shape, 64, 0.6, Extras(0.35, 0.3, 0.5, 0.2), 2, np.float32), test, 10)
    expected = [0.8813, 0.8446, 0.8330, 0.8286, 0.8265, 0.8255, 0.8249, 0.8247, 0.8245, 0.8245]
    assert np.allclose(found, expected, rtol=0, atol=1.01e-4)
