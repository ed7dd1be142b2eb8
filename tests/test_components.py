"""Recovery by connected components: what is linked, each component by itself, what was observed as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from rfmdist import recovering
from rfmdist.completion import Completion
from rfmdist.engine.planner import make_plan
from rfmdist.engine.run import InProcess
from rfmdist.features.factored import _root
from rfmdist.kernels.threads import Threads
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations import passes
from rfmdist.observations.blocks import FITTED_ROLES
from rfmdist.observations.components import Components, connected
from rfmdist.observations.kept import Entries
from rfmdist.observations.store import Observations

Matrix = Any


def low_rank(rng: np.random.Generator, m: int, n: int, rank: int) -> Matrix:
    """Give a random matrix of that rank."""
    return rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n))


def piece(rng: np.random.Generator, kind: str) -> tuple[Matrix, Matrix]:
    """Give a matrix of its kind, and which of its entries are observed."""
    m, n = rng.integers(2, 9, 2)
    if kind == "single":
        m, n = rng.permutation([1, rng.integers(1, 6)])
    if kind in ("sparse", "dense"):
        m, n = rng.integers(14, 30, 2)
    if kind == "whole":
        m, n = rng.integers(2, 25, 2)
    rank = int(rng.integers(1, 3))
    matrix, seen = low_rank(rng, m, n, rank), np.ones((m, n), np.bool_)
    if kind == "full rank":
        matrix = rng.normal(size=(m, n))
    if kind == "constant":
        matrix = np.full((m, n), rng.normal())
    if kind == "zeros":
        matrix, seen = np.zeros((m, n)), rng.random((m, n)) < 0.8
    if kind in ("sparse", "dense"):
        seen = rng.random((m, n)) < {"sparse": 0.35, "dense": 0.75}[kind]
    if kind == "tree":
        seen = np.zeros((m, n), np.bool_)
        seen[0], seen[:, 0] = True, True
    return matrix * 10.0 ** rng.integers(-3, 4), seen


KINDS = ("single", "single", "whole", "full rank", "constant", "zeros", "sparse", "dense", "dense", "tree")


def graph(seed: int) -> tuple[Matrix, Matrix]:
    """Give a matrix of several blocks, NaN between them, and which entries are observed; nothing of one row or more."""
    rng = np.random.default_rng(seed)
    pieces = [piece(rng, kind) for kind in rng.choice(KINDS, rng.integers(1, 6))]
    m, n = (sum(matrix.shape[axis] for matrix, _ in pieces) + int(rng.integers(0, 3)) for axis in (0, 1))
    full, seen, i, j = np.full((m, n), np.nan), np.zeros((m, n), np.bool_), 0, 0
    for matrix, there in pieces:
        place = slice(i, i + matrix.shape[0]), slice(j, j + matrix.shape[1])
        full[place], seen[place] = matrix, there
        i, j = place[0].stop, place[1].stop
    rows, columns = rng.permutation(m), rng.permutation(n)
    return full[rows][:, columns], seen[rows][:, columns]


def labels(seen: Matrix) -> tuple[Matrix, Matrix]:
    """Give SciPy's connected components of the rows and the columns."""
    m = len(seen)
    found = connected_components(sp.block_array([[None, sp.csr_array(seen)], [sp.csr_array(seen.T), None]]), False)[1]
    return found[:m], found[m:]


def observe(full: Matrix, seen: Matrix, path: Path | None = None) -> Observations:
    """Give what is observed of a matrix."""
    return Observations.from_scipy(sp.coo_array((full[seen], np.nonzero(seen)), full.shape), path)


def completed(model: LinRFM) -> Matrix:
    """Give all predictions of a model."""
    return model.completion_.predict_block().compute()


# ---- the graph ------------------------------------------------------------------------------------------------


def found_in(observations: Observations) -> Components:
    """Give the components of all entries, in process."""
    return connected(Entries(observations, FITTED_ROLES), InProcess(Threads(1)))


@pytest.mark.parametrize("entries", [1 << 22, 5])
def test_components_are_those_of_the_graph(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    """Of random sparse graphs, in one group of rows or many, they are SciPy's, those of most entries first."""
    monkeypatch.setattr(passes, "GROUP_ENTRIES", entries)
    rng = np.random.default_rng(0)
    for _ in range(15):
        seen = rng.random(rng.integers(1, 40, 2)) < rng.choice([0.02, 0.05, 0.1])
        seen[0, 0] = True
        found, (rows, columns) = found_in(observe(seen.astype(float), seen)), labels(seen)
        assert ((found.rows < 0) == ~seen.any(axis=1)).all()
        assert ((found.columns < 0) == ~seen.any(axis=0)).all()
        both, expected = np.concatenate([found.rows, found.columns]), np.concatenate([rows, columns])
        there = both >= 0
        assert (both[there, None] == both[there]).tolist() == (expected[there, None] == expected[there]).tolist()
        assert (np.diff(found.entries) <= 0).all()
        assert found.entries.tolist() == np.bincount(found.rows[np.nonzero(seen)[0]]).tolist()


@pytest.mark.parametrize("on_disk", [False, True])
def test_components_are_extracted(tmp_path: Path, on_disk: bool) -> None:
    """Each is what lies between its rows and columns, with their ids and its entries' roles; test entries are not."""
    full, seen = graph(3)
    observations = observe(full, seen)
    roles = np.random.default_rng(0).choice(3, observations.nnz, p=[0.6, 0.2, 0.2]).astype(np.uint8)
    found = found_in(observations)
    observations.store_split([roles])
    wanted = list(range(found.number))
    parts = found.extract(observations, wanted, FITTED_ROLES, str(tmp_path) if on_disk else None)
    by_role = sp.csr_array((roles + 1, np.nonzero(seen)), full.shape).toarray()
    for component, part in zip(wanted, parts, strict=True):
        rows, columns = found.members(component)
        expected = by_role[np.ix_(rows, columns)]
        coo = part.to_scipy().tocoo()
        assert part.in_memory != on_disk
        assert part.row_ids.tolist() == rows.tolist()
        assert np.array_equal(np.nonzero((expected == 1) | (expected == 2)), (coo.row, coo.col))
        assert np.array_equal(coo.data, full[np.ix_(rows, columns)][coo.row, coo.col])
        assert np.array_equal(part.roles(part.row_block(0, len(rows))) + 1, expected[coo.row, coo.col])


# ---- recovery by components -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*could (not )?be certified")
@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(12, 200))])
def test_random_components(seed: int) -> None:
    """What is observed is predicted as it was, what is certified is right, and between components nothing is told."""
    full, seen = graph(seed)
    model = LinRFM(noise=0, max_iter=40).fit(observe(full, seen))
    found, (rows, columns) = completed(model), labels(seen)
    assert np.allclose(found[seen], full[seen], rtol=1e-6, atol=0)
    assert np.isnan(found[rows[:, None] != columns]).all()
    certified = ~np.isnan(found) & model.determined_rows_[:, None] & model.determined_columns_
    for label in np.unique(rows[seen.any(axis=1)]):
        place = np.ix_(rows == label, columns == label)
        size = np.sqrt(np.mean(full[place][seen[place]] ** 2))
        assert np.abs(found[place] - full[place])[certified[place]].max(initial=0) <= 1e-3 * size
    parts = model.certificate_.components
    assert len(parts) == len(np.unique(rows[seen.any(axis=1)]))
    if model.certificate_.certified:
        assert np.isnan(found[~certified & ~seen]).all()


n = 200
WHOLE = {
    "constant": np.full((n, n), 3.0),
    "signs": np.sign(low_rank(np.random.default_rng(0), n, n, 1)),
    "rank 1": low_rank(np.random.default_rng(0), n, n, 1),
    "zeros": np.zeros((n, n)),
    "identity": np.eye(n),
    "full rank": np.random.default_rng(0).normal(size=(n, n)),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_what_is_seen_in_full_is_not_searched(kind: str) -> None:
    """Nothing is missing: it is certified as it is, without an iteration, and its rank told where that is low."""
    matrix = WHOLE[kind]
    model = LinRFM(noise=0).fit(observe(matrix, np.ones((n, n), np.bool_)))
    assert model.certificate_.certified
    assert model.history_ == []
    assert model.rank_ == (1 if kind in ("constant", "signs", "rank 1") else 0)
    assert model.determined_rows_.all()
    assert np.allclose(completed(model), matrix, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["constant", "signs", "rank 1"])
def test_one_entry_that_is_missing_is_found(kind: str) -> None:
    """Features of one direction, whose others fall below rounding, are no error."""
    seen = np.ones((n, n), np.bool_)
    seen[3, 5] = False
    model = LinRFM(noise=0).fit(observe(WHOLE[kind], seen))
    assert model.certificate_.certified
    assert np.allclose(completed(model), WHOLE[kind], rtol=1e-5)


@pytest.fixture(scope="module")
def two() -> tuple[LinRFM, Matrix, Matrix]:
    """Give a model of two components, of rank 3 and seen in full, and one row that a single entry links."""
    rng = np.random.default_rng(5)
    full, seen = np.full((211, 160), np.nan), np.zeros((211, 160), np.bool_)
    full[:200, :150], seen[:200, :150] = low_rank(rng, 200, 150, 3), rng.random((200, 150)) < 0.15
    full[200:210, 150:], seen[200:210, 150:] = low_rank(rng, 10, 10, 1), True
    full[210, 7], seen[210, 7] = 5.0, True
    return LinRFM(noise=0).fit(observe(full, seen)), full, seen


def test_a_small_component_does_not_spoil_a_large_one(two: Any) -> None:
    """Both are certified, each with its rank and size; the large one is as right as alone."""
    model, full, _ = two
    large, small = model.certificate_.components
    assert (large.rank, small.rank, model.rank_) == (3, 1, 3)
    assert (small.entries, small.rows, small.columns) == (100, 10, 10)
    assert str(model.certificate_).startswith("certified: 2 of 2 components, of rank 3 at most, fit ")
    found = completed(model)
    assert np.nanmax(np.abs(found[:200] - full[:200])) < 1e-4
    assert np.isnan(found[:200, 150:]).all()
    assert np.isnan(found[200:210, :150]).all()
    assert model.determined_rows_[:210].mean() > 0.98
    assert not model.determined_rows_[210]


def test_rankings_and_scores_know_components(two: Any) -> None:
    """A row is recommended columns of its own component, a column is like those of it; an observed entry counts."""
    model = two[0]
    completion = model.completion_
    named = completion.recommend([0, 205, 210], 200, exclude_observed=False, codes=True)
    found = completed(model)
    for row in (0, 205, 210):
        mine = named[named["row"] == row]
        assert set(mine["column"]) == set(np.flatnonzero(~np.isnan(found[row])))
        assert np.allclose(mine["prediction"], np.sort(found[row][~np.isnan(found[row])])[::-1], atol=1e-9)
    assert (completion.recommend([205], codes=True)["row"] != 205).all()
    similar = completion.similar([0, 155], 200, codes=True)
    assert ((similar["similar"] < 150) == (similar["column"] < 150)).all()
    assert completion.score([210, 210, 0], [7, 8, 155], [5.0, 1.0, 1.0], codes=True).count == 1
    assert model.predict([210, 210], [7, 8]).tolist() == pytest.approx([5.0, np.nan], nan_ok=True)


def test_components_survive_saving_and_folding_in(two: Any, tmp_path: Path) -> None:
    """An opened completion tells the same; a new row is solved in the component of most of its entries."""
    model, full, _ = two
    model.completion_.save(tmp_path / "two.zarr")
    opened = Completion.open(tmp_path / "two.zarr")
    assert np.array_equal(opened.predict_block().compute(), completed(model), equal_nan=True)
    new = np.full((3, 160), np.nan)
    new[0, :40], new[0, 155] = full[0, :40], 9.0
    new[1, 150:153] = full[200, 150:153]
    new[2, 3] = 1.0
    folded = opened.fold_in(oracles.as_sparse(new)).predict_block().compute()
    assert np.nanmax(np.abs(folded[0, :150] - full[0, :150])) < 1e-3
    assert folded[0, 155] == 9.0
    assert np.isnan(folded[0, 156])
    assert np.allclose(folded[1, 150:], full[200, 150:], rtol=1e-5)
    assert np.isnan(folded[1, :150]).all()
    assert np.flatnonzero(~np.isnan(folded[2])).tolist() == [3]


def test_what_hangs_by_single_entries_is_as_observed() -> None:
    """A tree of entries is fitted by many matrices: what was observed is told, nothing else, with one sentence."""
    full, seen = np.ones((6, 5)), np.zeros((6, 5), np.bool_)
    seen[0], seen[:, 0] = True, True
    with pytest.warns(UserWarning, match="no matrix of low rank could be certified from 10 entries"):
        model = LinRFM(noise=0).fit(observe(full, seen))
    assert not model.certificate_.certified
    assert np.array_equal(completed(model), np.where(seen, full, np.nan), equal_nan=True)


def test_a_component_that_cannot_be_certified_is_told() -> None:
    """Beside one that is certified it is as observed, and one sentence tells how many entries it has."""
    rng = np.random.default_rng(2)
    full, seen = np.full((75, 65), np.nan), np.zeros((75, 65), np.bool_)
    full[:60, :50], seen[:60, :50] = low_rank(rng, 60, 50, 2), rng.random((60, 50)) < 0.4
    full[60:, 50:], seen[60:, 50:] = rng.normal(size=(15, 15)), rng.random((15, 15)) < 0.8
    with pytest.warns(UserWarning, match="1 of 2 components, with .* entries, could not be certified; what was not"):
        model = LinRFM(noise=0, max_iter=20).fit(observe(full, seen))
    assert [part.certified for part in model.certificate_.components] == [True, False]
    found = completed(model)
    assert np.allclose(found[60:, 50:], np.where(seen, full, np.nan)[60:, 50:], rtol=1e-12, equal_nan=True)


def blocks() -> tuple[Matrix, Matrix]:
    """Give two components of rank 2, seen by two fifths."""
    rng = np.random.default_rng(8)
    full, seen = np.full((110, 90), np.nan), np.zeros((110, 90), np.bool_)
    for rows, columns in ((slice(60), slice(50)), (slice(60, 110), slice(50, 90))):
        full[rows, columns] = low_rank(rng, *full[rows, columns].shape, 2)
        seen[rows, columns] = rng.random(full[rows, columns].shape) < 0.4
    order = rng.permutation(110)
    return full[order], seen[order]


def test_the_same_bits_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Components held in memory, and written to files where that holds none, give one completion; the files go."""
    observations = observe(*blocks(), tmp_path / "store.zarr")
    here = completed(LinRFM(noise=0).fit(observations))
    assert np.isfinite(here).mean() == pytest.approx((60 * 50 + 50 * 40) / (110 * 90))
    monkeypatch.setattr(recovering, "ENTRY_BYTES", 1 << 60)
    assert np.array_equal(here, completed(LinRFM(noise=0).fit(observations)), equal_nan=True)
    assert [path.name for path in tmp_path.iterdir()] == ["store.zarr"]


def test_beyond_the_usual_fit_components_are_recovered_apart() -> None:
    """Where the defaults try it, it stands if the error held out, over all components, is below the usual fit's."""
    full, seen = blocks()
    observations = observe(full, seen).hold_out(0.1, 0)
    run, plan = InProcess(Threads(1)), make_plan(observations, "float64")
    given = LinRFM(offsets=None), observations, plan, run, lambda _: False
    assert recovering.recover_beyond(*given, error=1e-12) is None
    found = recovering.recover_beyond(*given, error=1.0)
    assert found is not None
    assert found.certificate.held_out < 1e-3
    assert found.completion.targets.fitted == FITTED_ROLES
    assert np.nanmax(np.abs(found.completion.predict_block().compute() - full)) < 1e-3


@pytest.mark.filterwarnings("ignore:observations in memory. all .* values are")
@pytest.mark.parametrize("kind", ["constant", "zeros", "identity"])
def test_auto_meets_edges(kind: str) -> None:
    """The defaults end with a completion of such a matrix."""
    matrix = WHOLE[kind][:30, :25]
    model = LinRFM(offsets=None, max_iter=30).fit(observe(matrix, np.ones(matrix.shape, np.bool_)))
    assert np.isfinite(completed(model)).all()


def test_noise_is_recovered_by_components() -> None:
    """With noise components are recovered apart, and what was observed is not repeated."""
    full, seen = blocks()
    noisy = full + 1e-3 * np.random.default_rng(0).normal(size=full.shape)
    model = LinRFM(noise=1e-3).fit(observe(noisy, seen))
    found = completed(model)
    assert model.certificate_ is not None
    assert np.nanmax(np.abs(found - full)) < 0.05
    assert np.isnan(found[np.isnan(full)]).all()
    assert not np.allclose(found[seen], noisy[seen], rtol=1e-9)


def test_a_gram_that_rounding_left_indefinite_has_a_root() -> None:
    """Directions below the rounding of the largest are raised to it; large ones keep their size."""
    rng = np.random.default_rng(0)
    gram = np.diag(np.concatenate([[1.0], np.full(9, 1e-17)]))
    noise = 1e-16 * rng.normal(size=gram.shape)
    gram += noise + noise.T
    gram[range(10), range(10)] = np.abs(gram.diagonal())
    root = _root(gram, np.dtype(np.float64))
    assert np.linalg.eigvalsh(gram)[0] < 0
    assert np.abs(root @ root.T - gram).max() < 1e-13
