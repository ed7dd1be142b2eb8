"""Exact recovery: kernels against NumPy, matrices recovered and certified, impossible ones not, the rest flagged."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from distributed import Client, LocalCluster

from rfmdist import recovery
from rfmdist.__main__ import main
from rfmdist.completion import Completion
from rfmdist.cores import Core, core, counted
from rfmdist.engine import elimination
from rfmdist.engine import run as running
from rfmdist.engine.elimination import Block
from rfmdist.engine.planner import make_plan
from rfmdist.engine.run import InProcess
from rfmdist.errors import InputError
from rfmdist.features.recovered import RecoveredFeatures
from rfmdist.kernels import projection as kernels
from rfmdist.kernels.threads import Threads
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.blocks import Offsets
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations
from rfmdist.observations.targets import Targets
from rfmdist.projection import Projection
from rfmdist.spectrum import Gaps


def problem(m: int, n: int, rank: int, oversampling: float, seed: int) -> tuple[Any, Any]:
    """Give a random low-rank matrix, and which entries are observed, times its degrees of freedom."""
    rng = np.random.default_rng(seed)
    matrix, mask = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n)), np.zeros(m * n, bool)
    mask[rng.permutation(m * n)[: round(oversampling * rank * (m + n - rank))]] = True
    return matrix, mask.reshape(m, n)


def observe(matrix: Any, mask: Any, path: Path | None = None) -> Observations:
    """Give what is observed of a matrix."""
    return Observations.from_scipy(sp.coo_array((matrix[mask], np.nonzero(mask)), matrix.shape), path)


def completed(model: LinRFM) -> Any:
    """Give all predictions of a model."""
    return model.completion_.predict_block().compute()


def error(model: LinRFM, matrix: Any) -> float:
    """Give the relative mean square error of what is determined."""
    return float(np.nanmean((completed(model) - matrix) ** 2) / np.mean(matrix**2))


@pytest.fixture(scope="module")
def recovered() -> tuple[LinRFM, Any, Any]:
    """Give a model of rank 3 at 1.3 times its degrees of freedom, some rows and columns not determined."""
    matrix, mask = problem(120, 90, 3, 1.3, 0)
    mask[5] = mask[7] = mask[:, 11] = False
    mask[5, :2] = True
    return LinRFM(noise=0).fit(observe(matrix, mask)), matrix, mask


# ---- kernels and passes ---------------------------------------------------------------------------------------


def eliminated(values: Any, factor: Any, ridge: float) -> tuple[Any, Any, Any]:
    """Rows b, their inverses C, and the residuals (0 where nothing is observed), one after the other."""
    seen = ~np.isnan(values)
    rows, inverses, residual = [], [], np.zeros(values.shape)
    for i, there in enumerate(seen):
        u = factor[there]
        inverse = np.linalg.inv(u.T @ u + ridge * np.eye(factor.shape[1]))
        rows.append(inverse @ u.T @ values[i, there])
        inverses.append(inverse)
        residual[i, there] = values[i, there] - u @ rows[-1]
    return np.array(rows), np.array(inverses), residual


def test_rows_are_eliminated(rng: np.random.Generator) -> None:
    """Coefficients, inverses, residuals and both sums of squares are NumPy's; a row without entries is 0."""
    values, factor = oracles.sparse_problem(rng, 30, 40), rng.normal(size=(40, 4))
    values[3] = np.nan
    block = oracles.row_block(values)
    solved, inverses, residual = np.empty((30, 4)), np.empty((30, 4, 4)), np.empty(len(block.values))
    data = block.indptr, block.indices, block.values, factor
    squares, penalty = kernels.eliminate_rows(*data, 0.3, 0, 30, solved, inverses, residual)
    rows, expected, left = eliminated(values, factor, 0.3)
    expected[np.isnan(values).all(axis=1)] = 0
    assert oracles.distance(solved, rows) < 1e-12
    assert oracles.distance(inverses, expected) < 1e-12
    assert oracles.distance(residual, left[block.rows, block.indices]) < 1e-12
    assert squares == pytest.approx(np.sum(left**2))
    assert penalty == pytest.approx(np.sum(rows**2))


def passes(values: Any) -> tuple[Projection, Targets]:
    """Give passes over all entries of a matrix, in process."""
    observations = Observations.from_scipy(oracles.as_sparse(values))
    m, n = values.shape
    nothing = Offsets(0.0, np.zeros(m), np.zeros(n))
    targets = Targets(observations, nothing, 1.0, np.dtype(np.float64), keep_bytes=1 << 24)
    return Projection(InProcess(Threads(1)), ((0, m // 2), (m // 2, m)), lambda *_: False), targets


@pytest.fixture(params=[1 << 15, 40])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut blocks into few pieces and panels, or many."""
    monkeypatch.setattr(elimination, "PIECE_ENTRIES", request.param)


@pytest.mark.usefixtures("pieces")
def test_the_curvature_is_that_of_the_eliminated_fit(rng: np.random.Generator) -> None:
    """G and H(D) are J'r and J'J D, with J the change of the residuals when U moves and rows are solved anew.

    Gauss-Newton leaves the change of the projection itself out (Kaufman), so J D is (I - U C U') D b.
    """
    values, factor, direction = oracles.sparse_problem(rng, 30, 20), rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    over, targets = passes(values)
    everything = np.ones(30, np.bool_), np.ones(20, np.bool_)
    placed = over.placed(Block.of(targets, *everything), factor, 0.1)
    rows, inverses, residual = eliminated(values, factor, 0.1)
    seen, product = ~np.isnan(values), np.zeros((20, 3))
    for i, there in enumerate(seen):
        moved = direction[there] @ rows[i]
        moved -= factor[there] @ inverses[i] @ factor[there].T @ moved
        product[there] += np.outer(moved, rows[i])
    slope = over.slope(placed)
    assert oracles.distance(over.curved(placed, direction), product) < 1e-12
    assert oracles.distance(slope.right, residual.T @ rows) < 1e-12
    grams = np.array([rows[there].T @ rows[there] for there in seen.T])
    assert oracles.distance(slope.grams, grams) < 1e-12


def test_the_gradient_is_the_objective_s(rng: np.random.Generator) -> None:
    """Squares plus ridge |B|², rows eliminated, fall by twice <G, D> along D: by finite differences."""
    values, factor, direction = oracles.sparse_problem(rng, 30, 20), rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    over, targets = passes(values)
    block = Block.of(targets, np.ones(30, np.bool_), np.ones(20, np.bool_))

    def objective(factor: Any) -> float:
        squares, penalty = over.over(elimination.eliminate, *over.placed(block, factor, 0.1).shared)
        return float(squares + 0.1 * penalty)

    small = 1e-5
    change = (objective(factor + small * direction) - objective(factor - small * direction)) / (2 * small)
    slope = over.slope(over.placed(block, factor, 0.1))
    assert change == pytest.approx(-2 * np.vdot(slope.right, direction), rel=1e-6)


def test_a_factor_is_deflated(rng: np.random.Generator) -> None:
    """The column that is added is the leading right singular vector of the residuals within the block."""
    values, factor = oracles.sparse_problem(rng, 30, 20), rng.normal(size=(20, 3))
    rows, columns = rng.random(30) < 0.8, rng.random(20) < 0.8
    inside = np.where(rows[:, None] & columns, values, np.nan)
    inside[~np.isnan(inside)] += 5 * np.outer(rng.normal(size=30), rng.normal(size=20))[~np.isnan(inside)]
    over, targets = passes(np.where(np.isnan(inside), values, inside))
    found = over.deflated(over.placed(over.publish(Block.of(targets, rows, columns)), factor, 0.1))
    leading = np.linalg.svd(eliminated(inside, factor, 0.1)[2])[2][0]
    assert np.array_equal(found[:, :3], factor)
    assert abs(found[:, 3] @ leading) == pytest.approx(1, abs=1e-6)


def test_a_block_s_levels_choose_its_entries(rng: np.random.Generator) -> None:
    """An entry belongs to a block if its column came in no later than its row; what is outside has none."""
    values = oracles.sparse_problem(rng, 20, 15)
    _, targets = passes(values)
    rows, columns = rng.integers(-1, 3, 20).astype(np.int16), rng.integers(0, 3, 15).astype(np.int16)
    columns[3] = elimination.OUT
    found = Block(targets, rows, columns).read(0, 20)
    expected = ~np.isnan(values) & (columns <= rows[:, None])
    assert np.array_equal(np.nonzero(expected), (found.rows, found.indices))


@pytest.mark.parametrize("least", [1, 3, 5, 30])
def test_cores(rng: np.random.Generator, least: int) -> None:
    """The core is what is left when rows and columns of too few entries go, one by one."""
    values = oracles.sparse_problem(rng, 40, 30, density=0.15)
    over, targets = passes(values)
    rows, columns = np.ones(40, np.bool_), np.ones(30, np.bool_)
    found = core(over, targets, Core(rows, columns, 0), least)
    seen, before = ~np.isnan(values), -1
    while before != (before := int(rows.sum() + columns.sum())):
        for i in range(40):
            rows[i] &= (seen[i] & columns).sum() >= least
        for j in range(30):
            columns[j] &= (seen[:, j] & rows).sum() >= least
    assert np.array_equal(found.rows, rows)
    assert np.array_equal(found.columns, columns)
    assert found.entries == (seen & rows[:, None] & columns).sum()
    counts = counted(over, targets, rows, columns)
    assert np.array_equal(counts.by_row, (seen & columns).sum(axis=1))
    assert np.array_equal(counts.by_column, (seen & rows[:, None]).sum(axis=0))


def test_what_determines_a_row(rng: np.random.Generator) -> None:
    """As many entries as the rank do, in independent directions and determined columns; others do not."""
    factor = np.linalg.qr(rng.normal(size=(50, 3)))[0]
    factor[1] = 2 * factor[0]
    factor[9] = 0
    there = (np.arange(50) != 9).astype(np.int32)
    features = RecoveredFeatures(factor, np.zeros(50), components=there, ranks=(0, 3), exact=False)
    values = np.full((5, 50), np.nan)
    for row, columns in enumerate([[2, 3, 4], [2, 3], [0, 1, 2], [0, 1, 2, 3], [2, 3, 9]]):
        values[row, columns] = 1.0
    block = oracles.row_block(values)
    assert features.determines(block, Threads(1)).tolist() == [True, False, False, True, False]
    assert features.determines(block, Threads(1), spare=1).tolist() == [False, False, False, True, False]


# ---- recovery -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("oversampling", "seed"), [(2.0, 0), (2.0, 1), (1.2, 0), (1.2, 1), (1.2, 2)])
def test_recovers(oversampling: float, seed: int) -> None:
    """Rank 4 of 200 x 150 from few entries, told neither rank nor anything: found, certified and right."""
    matrix, mask = problem(200, 150, 4, oversampling, seed)
    model = LinRFM(noise=0).fit(observe(matrix, mask))
    certificate = model.certificate_
    assert certificate.certified
    assert (model.rank_, certificate.rank) == (4, 4)
    assert certificate.entries > 1.02 * certificate.freedom
    assert str(certificate).startswith("certified: rank 4 fits ")
    assert error(model, matrix) < 1e-6
    assert model.completion_.features.factor.dtype == np.float64
    assert {h.stage for h in model.history_} == {"search", "finish"}
    assert model.n_iter_ == len(model.history_)


def ill_conditioned(oversampling: float, seed: int) -> tuple[Any, Any]:
    """Give a matrix of rank 5 whose singular values fall to a hundredth, and which entries are observed."""
    matrix, mask = problem(300, 250, 5, oversampling, seed)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left[:, :5] * np.geomspace(100, 1, 5) @ right[:5], mask


@pytest.mark.parametrize(("oversampling", "seed"), [(1.4, 0), (1.4, 1), (1.25, 2)])
def test_recovers_a_condition_number_of_100(oversampling: float, seed: int) -> None:
    """Directions too weak for the search to show are found in what the others leave: the rank is the true one."""
    matrix, mask = ill_conditioned(oversampling, seed)
    model = LinRFM(noise=0).fit(observe(matrix, mask))
    assert model.certificate_.certified
    assert model.rank_ == 5
    assert error(model, matrix) < 1e-6


@pytest.mark.parametrize("deflations", [0, 4])
def test_a_finish_raises_its_rank(monkeypatch: pytest.MonkeyPatch, deflations: int) -> None:
    """A finish from the three strongest directions of five ends at all five, if and only if it may add some."""
    monkeypatch.setattr(recovery, "DEFLATIONS", deflations)
    matrix, mask = ill_conditioned(1.6, 0)
    observations, nothing = observe(matrix, mask), Offsets(0.0, np.zeros(300), np.zeros(250))
    targets = Targets(observations, nothing, 1.0, np.dtype(np.float64), keep_bytes=1 << 24)
    run, plan = InProcess(Threads(1)), make_plan(observations, "float64")
    rule = recovery.Recovery(LinRFM(noise=0), targets, plan, run, 0.0, lambda _: False)
    found = rule.finish(np.ascontiguousarray(np.linalg.svd(matrix)[2][:3].T))
    assert (found.certificate.rank if found else None) == (5 if deflations else None)


def test_a_given_rank_is_not_raised() -> None:
    """What a fit of the rank that was given leaves is not looked at for more."""
    with pytest.warns(UserWarning, match="no matrix of low rank could be certified"):
        model = LinRFM(noise=0, rank=4, max_iter=40).fit(observe(*ill_conditioned(2.0, 0)))
    assert not model.certificate_.certified


@pytest.mark.slow
@pytest.mark.parametrize("oversampling", [2.0, 1.6, 1.4, 1.2, 1.1])
def test_recovers_the_benchmark(oversampling: float) -> None:
    """Rank 5 of 500 x 500, ten seeds: all are certified and right."""
    for seed in range(10):
        matrix, mask = problem(500, 500, 5, oversampling, seed)
        model = LinRFM(noise=0).fit(observe(matrix, mask))
        assert model.certificate_.certified
        assert model.rank_ == 5
        assert error(model, matrix) < 1e-3


def test_a_rank_beyond_the_first_cap() -> None:
    """Rank 14 shows no gap among 20 columns of features: they are doubled, and it is found."""
    matrix, mask = problem(150, 120, 14, 2.0, 0)
    model = LinRFM(noise=0).fit(observe(matrix, mask))
    assert model.certificate_.certified
    assert model.rank_ == 14
    assert error(model, matrix) < 1e-6


def test_rank_bounds_the_rank() -> None:
    """A rank that is given is the most that is looked for: enough at the true one, too little below."""
    matrix, mask = problem(100, 80, 4, 2.0, 0)
    assert LinRFM(noise=0, rank=4).fit(observe(matrix, mask)).certificate_.certified
    with pytest.warns(UserWarning, match="no matrix of low rank could be certified"):
        assert not LinRFM(noise=0, rank=3, max_iter=40).fit(observe(matrix, mask)).certificate_.certified


def test_offsets_are_part_of_the_matrix() -> None:
    """Row and column offsets add 2 to the rank; stored ones are taken off as they are."""
    matrix, mask = problem(150, 120, 2, 4.0, 0)
    rows, columns = np.linspace(-3, 3, 150), np.linspace(5, 9, 120)
    shifted = matrix + rows[:, None] + columns
    model = LinRFM(noise=0).fit(observe(shifted, mask))
    assert model.rank_ == 4
    assert error(model, shifted) < 1e-6
    observations = observe(shifted, mask)
    observations.store_offsets(Offsets(0.0, rows, columns))
    model = LinRFM(noise=0, offsets="stored").fit(observations)
    assert model.rank_ == 2
    assert error(model, shifted) < 1e-6


def test_validation_entries_are_fitted_and_test_entries_are_not() -> None:
    """A test split of nonsense changes nothing; the validation entries are needed to determine the matrix."""
    matrix, mask = problem(150, 120, 3, 2.0, 0)
    observations = observe(matrix, mask)
    split(observations, validation=0.3, test=0.1, seed=0)
    roles = observations.roles(observations.row_block(0, 150))
    coo = observations.to_scipy().tocoo()
    spoilt = matrix.copy()
    spoilt[coo.row[roles == 2], coo.col[roles == 2]] = 1e3
    bad = observe(spoilt, mask)
    bad.store_split([roles])
    model = LinRFM(noise=0).fit(bad)
    assert model.certificate_.certified
    assert error(model, matrix) < 1e-6
    assert model.certificate_.entries <= np.count_nonzero(roles != 2)


# ---- the certificate ------------------------------------------------------------------------------------------


def two_blocks(seed: int) -> tuple[Any, Any]:
    """Give a matrix of rank 3 seen in two blocks that share 2 columns: nothing tells how they belong together."""
    matrix, mask = problem(80, 80, 3, 6.0, seed)
    mask[:40, 41:] = mask[40:, :39] = False
    return matrix, mask


def impossible(kind: str) -> tuple[Any, Any]:
    """Give a problem that cannot be solved."""
    rng = np.random.default_rng(3)
    matrix, mask = two_blocks(0) if kind == "two blocks" else problem(80, 70, 3, 0.9 if kind == "few" else 2.0, 1)
    if kind == "full rank":
        matrix = rng.normal(size=matrix.shape)
    if kind == "noise":
        matrix = matrix + 0.01 * rng.normal(size=matrix.shape)
    return matrix, mask


@pytest.mark.parametrize("kind", ["few", "full rank", pytest.param("noise", marks=pytest.mark.slow), "two blocks"])
def test_the_impossible_is_not_certified(kind: str) -> None:
    """Too few entries, no low rank, noise, and blocks that hardly meet: one warning, a guess of what was seen."""
    matrix, mask = impossible(kind)
    with pytest.warns(UserWarning, match="no matrix of low rank could be certified .*is the search's and only a guess"):
        model = LinRFM(noise=0, max_iter=60).fit(observe(matrix, mask))
    assert not model.certificate_.certified
    assert str(model.certificate_).startswith("not certified")
    assert not model.determined_rows_.any()
    assert not model.determined_columns_.any()
    seen = mask.any(axis=1)[:, None] & mask.any(axis=0)
    assert np.array_equal(np.isfinite(completed(model)), seen)


def test_blocks_that_meet_enough_are_certified() -> None:
    """The same two blocks sharing 8 columns belong together in one way only."""
    matrix, mask = problem(80, 80, 3, 6.0, 0)
    mask[:40, 44:] = mask[40:, :36] = False
    model = LinRFM(noise=0).fit(observe(matrix, mask))
    assert model.certificate_.certified
    assert error(model, matrix) < 1e-6


# ---- what is not determined -----------------------------------------------------------------------------------


def test_what_is_not_determined_is_flagged(recovered: Any) -> None:
    """Rows and columns without entries enough are masked, and told is there what was observed; all others are right."""
    model, matrix, mask = recovered
    rows, columns, found = model.determined_rows_, model.determined_columns_, completed(model)
    assert rows.shape == (120,)
    assert columns.shape == (90,)
    assert not rows[[5, 7]].any()
    assert not columns[11]
    assert rows.mean() > 0.9
    assert columns.mean() > 0.9
    assert np.array_equal(np.isnan(found), ~(rows[:, None] & columns) & ~mask)
    assert np.allclose(found[mask], matrix[mask], rtol=1e-12, atol=0)
    assert error(model, matrix) < 1e-6
    assert np.array_equal(model.predict([5, 0, 0], [3, 11, 3]), [np.nan, np.nan, found[0, 3]], equal_nan=True)


def test_it_is_neither_recommended_nor_similar_nor_scored(recovered: Any) -> None:
    """Rankings leave out all but what was observed there; a score counts only what was predicted."""
    model, matrix, _ = recovered
    there = ~np.isnan(completed(model))
    completion = model.completion_
    named = completion.recommend(k=90, exclude_observed=False, codes=True)
    assert sorted(zip(named["row"], named["column"], strict=True)) == list(zip(*np.nonzero(there), strict=True))
    assert np.isfinite(named["prediction"]).all()
    unseen = completion.recommend(k=90, codes=True)
    assert set(unseen["row"]) <= set(np.flatnonzero(model.determined_rows_))
    assert set(unseen["column"]) <= set(np.flatnonzero(model.determined_columns_))
    assert 11 not in completion.similar([0, 11], k=90, codes=True)[["column", "similar"]].to_numpy()
    scores = completion.score([5, 0, 0], [3, 11, 3], matrix[[5, 0, 0], [3, 11, 3]], codes=True)
    assert scores.count == 1
    assert scores.rmse < 1e-3


def test_it_survives_saving_and_folding_in(recovered: Any, tmp_path: Path) -> None:
    """An opened completion flags the same; a new row is determined by entries as many as the rank."""
    model, matrix, mask = recovered
    model.completion_.save(tmp_path / "recovered.zarr")
    opened = Completion.open(tmp_path / "recovered.zarr")
    assert np.array_equal(opened.predict_block().compute(), completed(model), equal_nan=True)
    new = np.zeros_like(mask[:4])
    new[0] = mask[0]
    new[1, np.flatnonzero(model.determined_columns_)[:3]] = True
    new[2, np.flatnonzero(model.determined_columns_)[:2]] = True
    new[2, 11] = True
    folded = opened.fold_in(sp.coo_array((matrix[:4][new], np.nonzero(new)), new.shape)).predict_block().compute()
    assert np.array_equal((~np.isnan(folded) & ~new).any(axis=1), [True, True, False, False])
    assert np.allclose(folded[new], matrix[:4][new], rtol=1e-12, atol=0)
    assert np.nanmax(np.abs(folded - matrix[:4])) < 1e-2


# ---- noise ----------------------------------------------------------------------------------------------------


def test_with_noise_held_out_entries_tell() -> None:
    """A noise that is given is fitted to, no further: the rank is found, the error near the noise's."""
    matrix, mask = problem(200, 150, 3, 2.5, 0)
    noisy = matrix + 0.01 * np.random.default_rng(1).normal(size=matrix.shape)
    model = LinRFM(noise=0.01).fit(observe(noisy, mask))
    assert model.certificate_.certified
    assert model.rank_ == 3
    assert 0.01 < model.validation_rmse_ < 0.06
    assert model.certificate_.held_out == model.validation_rmse_
    assert np.sqrt(error(model, matrix)) < 0.06
    assert {h.stage for h in model.history_} == {"search", "finish", "refit"}


def test_more_noise_than_told_is_not_certified() -> None:
    """Values further from any low rank than the noise explains are left to the usual fit."""
    matrix, mask = problem(100, 80, 3, 2.5, 0)
    noisy = matrix + 1.0 * np.random.default_rng(1).normal(size=matrix.shape)
    with pytest.warns(UserWarning, match="could be certified .* the completion is the usual fit's"):
        model = LinRFM(noise=1e-3, max_iter=40).fit(observe(noisy, mask))
    assert model.certificate_ is None
    assert model.determined_rows_ is None
    assert np.isfinite(completed(model)).all()


def test_auto_recovers_what_the_search_alone_does_not() -> None:
    """From 1.4 times the degrees of freedom the defaults find the rank, once a trial has met no noise."""
    matrix, mask = problem(300, 300, 4, 1.4, 0)
    model = LinRFM(offsets=None).fit(observe(matrix, mask))
    assert model.certificate_ is not None
    assert model.rank_ == 4
    assert error(model, matrix) < 1e-6
    assert model.validation_rmse_ < 1e-2


# ---- where it runs --------------------------------------------------------------------------------------------


@pytest.fixture
def many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even small problems into several groups, pieces and panels."""
    monkeypatch.setattr(recovery, "FACTORED_ENTRIES", 300)


@pytest.fixture
def client() -> Iterator[Client]:
    """Give a cluster of 2 worker processes."""
    cluster = LocalCluster(
        n_workers=2, processes=True, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
    )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@pytest.mark.usefixtures("many_groups")
def test_same_bits_on_a_cluster(client: Client, tmp_path: Path) -> None:
    """Several groups give in process and on 2 workers the same bits, of one component and of two."""
    matrix, mask = problem(60, 50, 2, 1.8, 0)
    full, seen = np.block([[matrix, np.zeros((60, 9))], [np.zeros((8, 50)), np.ones((8, 9))]]), np.zeros((68, 59), bool)
    seen[:60, :50], seen[60:, 50:] = mask, True
    for name, given in (("one", (matrix, mask)), ("two", (full, seen))):
        observations = observe(*given, tmp_path / f"{name}.zarr")
        here, there = (LinRFM(noise=0).fit(observations, client=where) for where in (None, client))
        assert here.certificate_.certified
        assert repr(here.certificate_) == repr(there.certificate_)
        assert np.array_equal(here.completion_.features.factor, there.completion_.features.factor)
        assert np.array_equal(here.determined_rows_, there.determined_rows_)
        assert np.array_equal(completed(here), completed(there), equal_nan=True)


@pytest.mark.usefixtures("many_groups")
def test_same_bits_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of threads, and blocks that are not kept, give the same bits."""
    monkeypatch.setattr(elimination, "PIECE_ENTRIES", 60)
    observations, found = observe(*problem(60, 50, 2, 1.8, 0)), []
    for threads, share in ((1, 0.25), (3, 0.25), (1, 0.0)):
        monkeypatch.setattr(running, "cores", lambda count=threads: count)
        monkeypatch.setattr("rfmdist.engine.plan.KEPT_SHARE", share)
        found.append(LinRFM(noise=0).fit(observations).completion_.features.factor)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_a_callback_ends_it() -> None:
    """A callback that says stop in the search or in the finish ends it there; what there is is not certified."""
    observations = observe(*problem(60, 50, 2, 1.8, 0))
    for stage in ("search", "finish"):
        stop = [lambda iteration, stage=stage: iteration.stage == stage]
        with pytest.warns(UserWarning, match="could be certified"):
            model = LinRFM(noise=0, callbacks=stop).fit(observations)
        assert model.history_[-1].stage == stage


# ---- refusals -------------------------------------------------------------------------------------------------


REFUSED = [
    *[({"noise": v}, "noise=.* must be 'auto' or a number of at least 0") for v in (-1, "none", None, np.nan, True)],
    *[
        ({"noise": 0, name: value}, f"{name}={value!r} is not for noise=0, which recovers a low-rank matrix")
        for name, value in {
            "features": "dense",
            "sides": "columns",
            "power": 1,
            "ridge": 0.1,
            "replacement": 1,
            "floor": 0.1,
        }.items()
    ],
    ({"noise": 0, "offsets": "stored"}, "no offsets are stored"),
    ({"noise": 0.1, "validation_fraction": 0}, "no validation entries to judge"),
]


@pytest.mark.parametrize(("parameters", "message"), REFUSED, ids=lambda x: str(x)[:40])
def test_what_cannot_be_is_refused(rng: np.random.Generator, parameters: Any, message: str) -> None:
    """One sentence names the parameter, its value and the mend."""
    with pytest.raises(InputError, match=message):
        LinRFM(**parameters).fit(oracles.as_sparse(oracles.sparse_problem(rng, 20, 15)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (3, 4)])
def test_tiny_matrices(shape: tuple[int, int]) -> None:
    """What is seen in full is certified as it is; with an entry less, if it is linked at all, nothing is."""
    values = np.random.default_rng(0).normal(size=shape)
    model = LinRFM(noise=0).fit(oracles.as_sparse(values))
    assert model.certificate_.certified
    assert str(model.certificate_).startswith(f"certified: all {values.size} entries were observed")
    assert np.allclose(completed(model), values, rtol=1e-12, atol=0)
    if min(shape) > 1:
        values[0, 0] = np.nan
        with pytest.warns(UserWarning, match="could be certified"):
            assert not LinRFM(noise=0).fit(oracles.as_sparse(values)).certificate_.certified


def test_a_matrix_of_zeros() -> None:
    """Nothing but zeros has no rank to be found: it is not searched, not certified, and completed with zeros."""
    zeros = np.zeros((20, 15))
    zeros[2, 3] = np.nan
    with pytest.warns(UserWarning, match="could be certified"):
        model = LinRFM(noise=0).fit(oracles.as_sparse(zeros))
    assert model.history_ == []
    assert np.array_equal(completed(model), np.zeros((20, 15)))


def test_the_command_line_tells_the_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``rfmdist fit --noise 0`` recovers, and its facts say so."""
    observe(*problem(60, 50, 2, 2.0, 0), tmp_path / "store.zarr")
    with pytest.raises(SystemExit) as end:
        main(["fit", str(tmp_path / "store.zarr"), "-o", str(tmp_path / "out.zarr"), "--noise", "0", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert not end.value.code
    assert facts["certificate"].startswith("certified: rank 2 fits ")
    assert (facts["rank"], facts["dtype"]) == (2, "float64")


def test_gaps_show_the_rank() -> None:
    """A clear last gap that stays is the rank; one in the tail is not, unless a wide one is before it."""
    clear, ragged = np.array([1, 0.9, 0.8, 0.1, 0.09, 0.08, 0.07]), np.array([1, 0.9, 1e-3, 9e-4, 8e-4, 5e-4, 5e-4])
    for singular, rank in ((clear, 3), (ragged, 2), (np.linspace(1, 0.5, 7), 0)):
        gaps = Gaps()
        assert [gaps.rank(singular, 3) for _ in range(6)] == [0, 0, 0, rank, 0, 0]
        assert gaps.tried == rank


# ---- certificates that were once wrong ------------------------------------------------------------------------


def hard(seed: int) -> tuple[Any, Any]:
    """Give a small matrix and it with few entries seen: factors of few values, uneven patterns, a row that is huge."""
    rng, kind = np.random.default_rng(seed), seed % 6
    m, n = int(rng.integers(5, 120)), int(rng.integers(5, 120))
    rank = min(int(rng.integers(1, 6)), m - 1, n - 1)
    left, right = rng.normal(size=(m, rank)), rng.normal(size=(rank, n))
    if kind == 1:
        left, right = (rng.integers(-1, 2, size=part.shape).astype(float) for part in (left, right))
    if kind == 2:
        left = left * np.logspace(0, -3, rank)
    full, share = left @ right, rng.choice([0.9, 1.05, 1.2, 1.5, 2.5])
    chance = np.ones((m, n))
    if kind == 3:
        chance = np.outer(rng.gamma(0.5, 1, m), rng.gamma(0.5, 1, n)) + 1e-9
    if kind == 4:  # two blocks that hardly meet
        chance = np.where((np.arange(m) < m // 2)[:, None] == (np.arange(n) < n // 2), 1.0, 0.02)
    if kind == 5:
        full[rng.integers(0, m)] *= 1e4
    count = min(int(share * rank * (m + n - rank)), m * n - 1)
    order = np.argsort((rng.exponential(size=(m, n)) / chance).ravel())
    seen = np.full(m * n, np.nan)
    seen[order[:count]] = full.ravel()[order[:count]]
    return full, seen.reshape(m, n)


@pytest.mark.filterwarnings("ignore:.*could be certified")
@pytest.mark.parametrize(
    "seed",
    [17, 36, 55, 205, 40, 42]
    + [pytest.param(seed, marks=pytest.mark.slow) for seed in (5, 29, 115, 125, 144, 41, 43, 44, 45, *range(46, 52))],
)
def test_what_is_certified_is_right(seed: int) -> None:
    """Wherever a certificate is given, all that is told to be determined is right to 5 % of the values' deviation."""
    full, seen = hard(seed)
    model = LinRFM(noise=0, random_state=seed % 3).fit(oracles.as_sparse(seen))
    assert model.certificate_ is not None
    if model.certificate_.certified:
        found = model.completion_.predict_block().compute()
        size = np.maximum(np.abs(full), full.std(axis=1, keepdims=True))
        assert np.nanmax(np.abs(found - full) / np.where(size > 0, size, 1)) < 0.05


def test_values_beyond_those_seen_are_not_clipped(rng: np.random.Generator) -> None:
    """Of a product of whole numbers only entries up to 20 are seen, again and again; those above are found."""
    full = np.outer(rng.integers(1, 6, 60), rng.integers(1, 6, 50)).astype(float)
    seen = np.where((full <= 20) & (rng.random(full.shape) < 0.5), full, np.nan)
    model = LinRFM(noise=0).fit(oracles.as_sparse(seen))
    assert model.certificate_ is not None
    assert model.certificate_.certified
    found = model.completion_.predict_block().compute()
    assert full.max() == 25
    assert np.nanmax(np.abs(found - full)) < 1e-3


@pytest.mark.parametrize("noise", [0.8, 2.0])
def test_little_but_noise_is_not_certified(rng: np.random.Generator, noise: float) -> None:
    """Where noise is most of the values the usual fit stands, with one sentence."""
    full = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 150)) * 0.4 + noise * rng.normal(size=(200, 150))
    seen = np.where(rng.random(full.shape) < 0.1, full, np.nan)
    with pytest.warns(UserWarning, match="could be certified"):
        model = LinRFM(noise=noise, max_iter=40).fit(oracles.as_sparse(seen))
    assert model.certificate_ is None
    assert np.isfinite(model.completion_.predict_block().compute()).all()
