"""`recommend` and `similar`: what full predictions and full cosines, sorted by NumPy, say, in bounded memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pytest
import scipy.sparse as sp

from rfmdist import serving
from rfmdist.completion import Completion
from rfmdist.engine import run as engine_run
from rfmdist.errors import InputError
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.protocol import Step
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.blocks import Offsets
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations
from rfmdist.observations.targets import Targets

ROWS = [f"user {i:03d}" for i in range(70)]
COLUMNS = [9000 - 7 * j for j in range(50)]


@pytest.fixture(scope="module", params=["dense", "factored"])
def completion(request: pytest.FixtureRequest) -> Completion:
    """Give a completion with a stored split, of each kind of features."""
    values = oracles.sparse_problem(np.random.default_rng(5), 70, 50, density=0.3)
    observations = Observations.from_scipy(oracles.as_sparse(values), row_ids=ROWS, column_ids=COLUMNS)
    split(observations, test=0.2)
    fixed = {"ridge": 0.1, "replacement": 1, "max_iter": 4, "dtype": "float64"}
    return LinRFM(features=request.param, **fixed).fit(observations).completion_


def built(features: Any, observed: Any, clip: Any = None, offsets: Any = 0.0) -> Completion:
    """Give a completion of given features without a fit; ``offsets`` are those of the columns."""
    observations = Observations.from_scipy(sp.csr_array(observed))
    m, n = observations.shape
    dtype = features.factor.dtype if isinstance(features, FactoredFeatures) else features.matrix.dtype
    taken = Offsets(0.0, np.zeros(m), np.broadcast_to(np.float64(offsets), n).copy())
    return Completion(Targets(observations, taken, 1.0, np.dtype(dtype), clip=clip), features, Step(0.1, 1.0))


def factored(factor: Any) -> FactoredFeatures:
    """Give factored features without offsets of their own."""
    factor = np.ascontiguousarray(factor)
    return FactoredFeatures(factor, np.zeros(len(factor), factor.dtype))


def best_first(scores: Any, k: int) -> list[list[int]]:
    """Give the places of each row's greatest scores, best first, equal ones in order; NaN is left out."""
    orders = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [[int(j) for j in order if not np.isnan(row[j])] for order, row in zip(orders, scores, strict=True)]


def by_group(frame: pd.DataFrame, by: str, what: str, size: int) -> list[list[int]]:
    """Give the table's ``what`` of each code of ``by``, in the order of the table."""
    return [frame[what][frame[by] == code].tolist() for code in range(size)]


# ---- recommendations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("k", [1, 10, 49, 1000])
def test_recommendations_are_the_sorted_predictions(completion: Completion, k: int, exclude: bool) -> None:
    """Each row has its greatest predictions, without what was observed for whatever role, or with it."""
    scores = completion.predict_block().compute()
    if exclude:
        scores[completion.observations.to_scipy().tocoo().coords] = np.nan
    frame = completion.recommend(k=k, exclude_observed=exclude, codes=True)
    assert by_group(frame, "row", "column", 70) == best_first(scores, k)
    assert frame["rank"].tolist() == [r + 1 for found in best_first(scores, k) for r in range(len(found))]
    assert np.array_equal(frame["prediction"], completion.predict(frame["row"], frame["column"], codes=True))


def test_rows_come_as_they_are_named(completion: Completion) -> None:
    """Rows are answered by id in the order given, once each, as they are among all rows; one id alone will do."""
    named = ["user 031", "user 002", "user 031", "user 069"]
    frame, whole = completion.recommend(named, 3), completion.recommend(k=3)
    assert list(frame.columns) == ["row", "rank", "column", "prediction"]
    wanted = pd.concat([whole[whole["row"] == row] for row in ("user 031", "user 002", "user 069")])
    pd.testing.assert_frame_equal(frame, wanted.reset_index(drop=True))
    assert set(frame["column"]) <= set(COLUMNS)
    pd.testing.assert_frame_equal(completion.recommend("user 002", 3), frame[3:6].reset_index(drop=True))


def test_no_rows_give_an_empty_table(completion: Completion) -> None:
    """Nothing asked, nothing found: the table has its columns."""
    assert list(completion.recommend([]).columns) == ["row", "rank", "column", "prediction"]
    assert len(completion.recommend([])) == len(completion.similar([])) == 0


def test_blocks_join_to_the_whole(completion: Completion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of rows come one by one in the store's order, and their size changes nothing."""
    whole = completion.recommend(k=5)
    monkeypatch.setattr(serving, "KEPT_ENTRIES", 5 * 9)
    frames = list(completion.recommendations(k=5))
    assert len(frames) == 8
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), whole)
    assert len(list(completion.recommendations(["user 069", "user 005"], k=5))) == 2


def test_clipped_predictions_rank_by_what_they_were() -> None:
    """Predictions beyond the scale are told as its end, yet the greatest comes first."""
    observed = sp.csr_array(([1.0], ([0], [0])), shape=(1, 5))
    frame = built(factored(np.array([[1.0], [3.0], [9.0], [0.1], [5.0]])), observed, clip=(0.0, 1.0)).recommend()
    assert frame["column"].tolist() == [2, 4, 1, 3]
    assert frame["prediction"].tolist()[:3] == [1.0, 1.0, 1.0]
    assert 0 < frame["prediction"].tolist()[3] < 1


def test_ties_go_to_the_lower_column() -> None:
    """Of equal predictions those of the lowest columns are kept, in their order, beyond a tile's width too."""
    n = 3 * serving.TILE_COLUMNS
    offsets = np.zeros(n)
    offsets[[7, 5000, 3]] = 1.0
    observed = sp.csr_array(([0.5, 0.5], ([0, 1], [n - 1, n - 1])), shape=(2, n))
    frame = built(factored(np.zeros((n, 2), np.float32)), observed, offsets=offsets).recommend(k=6, codes=True)
    assert by_group(frame, "row", "column", 2) == [[3, 7, 5000, 0, 1, 2]] * 2


def test_rows_with_few_columns_left_give_fewer() -> None:
    """A row in which all was observed gets none, and one with a single column left gets that one."""
    seen = np.ones((3, 6))
    seen[1, 4] = seen[2, 0] = seen[2, 5] = 0
    completion = built(factored(np.random.default_rng(0).normal(size=(6, 2))), seen)
    frame = completion.recommend(codes=True)
    assert [sorted(found) for found in by_group(frame, "row", "column", 3)] == [[], [4], [0, 5]]


@pytest.mark.parametrize("kind", ["dense", "factored"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_change_no_bit(kind: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread and two give the same table, for rows and columns beyond a tile."""
    rng = np.random.default_rng(2)
    m, n = 3 * serving.TILE_ROWS, serving.TILE_COLUMNS + 100
    factor = rng.normal(size=(n, 4)).astype(dtype)
    features = factored(factor) if kind == "factored" else DenseFeatures(factor @ factor.T)
    completion = built(features, sp.random_array((m, n), density=0.01, rng=rng), offsets=rng.normal(size=n))
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(engine_run, "cores", lambda threads=threads: threads)
        found.append((completion.recommend(), completion.similar(np.arange(0, n, 5))))
    pd.testing.assert_frame_equal(found[0][0], found[1][0], check_exact=True)
    pd.testing.assert_frame_equal(found[0][1], found[1][1], check_exact=True)
    scores = completion.predict_block(0, 9).compute()
    scores[completion.observations.to_scipy()[:9].tocoo().coords] = np.nan
    assert by_group(found[0][0], "row", "column", 9) == best_first(scores, 10)


def test_new_rows_are_recommended_to(completion: Completion) -> None:
    """Rows that are folded in get what a fitted row with the same entries gets."""
    folded = completion.fold_in(completion.observations.to_scipy(completion.targets.fitted)[[9, 4]])
    found = folded.recommend(k=5, exclude_observed=False)
    wanted = completion.recommend([ROWS[9], ROWS[4]], 5, exclude_observed=False)
    assert found["column"].tolist() == wanted["column"].tolist()
    assert found["prediction"].tolist() == wanted["prediction"].tolist()


def test_memory_has_a_bound_however_many_columns() -> None:
    """1,500 rows of 200,000 columns, 1.2 GB of scores, take less than 60 MB beside what is given."""
    rng = np.random.default_rng(0)
    m, n = 1500, 200_000
    features = factored(rng.normal(size=(n, 4)).astype(np.float32))
    completion = built(features, sp.random_array((m, n), density=1e-4, rng=rng, dtype=np.float32))
    completion.recommend([0])
    tracemalloc.start()
    try:
        rows = sum(len(frame) for frame in completion.recommendations())
        peak = tracemalloc.get_traced_memory()[1]
        similar = completion.similar(np.arange(300))
        peak = max(peak, tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert (rows, len(similar)) == (10 * m, 3000)
    assert peak < 60e6


@pytest.mark.parametrize("k", [0, -3, 2.5, "ten", True, None], ids=str)
def test_a_strange_number_of_columns_is_refused(completion: Completion, k: Any) -> None:
    """K is a whole number of at least 1, which is said before anything is yielded."""
    for ask in (completion.recommend, completion.recommendations):
        with pytest.raises(InputError, match=r"k=.* must be a whole number of at least 1"):
            ask(["user 000"], k)
    with pytest.raises(InputError, match=r"k=.* must be a whole number of at least 1"):
        completion.similar([9000], k)


def test_unknown_ids_are_named(completion: Completion) -> None:
    """An unknown id or code is told before anything is yielded."""
    with pytest.raises(InputError, match=r"row id nobody was not seen in fitting \(70 rows were\)"):
        completion.recommendations(["user 000", "nobody"], unknown="error")
    with pytest.raises(InputError, match="column id 5 was not seen"):
        completion.similar([9000, 5])
    with pytest.raises(InputError, match="row code 70 was not seen"):
        completion.recommend([70], codes=True)


# ---- similar columns ----------------------------------------------------------------------------------------


def cosines(features: Any) -> Any:
    """Give all P_ij / sqrt(P_ii P_jj), NaN for a column with itself."""
    matrix = features.matrix if isinstance(features, DenseFeatures) else features.factor @ features.factor.T
    sizes = np.sqrt(np.diag(matrix))
    found = matrix / np.outer(sizes, sizes)
    np.fill_diagonal(found, np.nan)
    return found


@pytest.mark.parametrize("k", [1, 7, 1000])
def test_similar_columns_are_the_greatest_cosines(completion: Completion, k: int) -> None:
    """The greatest cosines by P, without the column itself."""
    wanted = cosines(completion.features)
    frame = completion.similar(np.arange(50), k, codes=True)
    assert by_group(frame, "column", "similar", 50) == best_first(wanted, k)
    assert np.allclose(frame["similarity"], wanted[frame["column"], frame["similar"]], rtol=0, atol=1e-12)


def test_similar_columns_come_by_id_as_named(completion: Completion) -> None:
    """Ids in, ids out, in the order given, once each."""
    frame = completion.similar([COLUMNS[9], COLUMNS[2], COLUMNS[9]], 2)
    assert list(frame.columns) == ["column", "rank", "similar", "similarity"]
    assert frame["column"].tolist() == [COLUMNS[9]] * 2 + [COLUMNS[2]] * 2
    assert frame["rank"].tolist() == [1, 2, 1, 2]
    by_code = completion.similar([9, 2], 2, codes=True)
    assert frame["similar"].tolist() == np.array(COLUMNS)[by_code["similar"]].tolist()


@pytest.mark.parametrize("kind", ["dense", "factored"])
def test_columns_without_features_are_similar_to_none(kind: str) -> None:
    """A zero vector is never found, and asking for it finds nothing; scale does not matter to the others."""
    factor = np.array([[1.0, 0.0], [0.0, 0.0], [1e-3, 1e-3], [-7.0, 0.0], [0.0, 0.0]])
    features = factored(factor) if kind == "factored" else DenseFeatures(factor @ factor.T)
    frame = built(features, np.eye(5)).similar([1, 0, 4])
    assert frame[["column", "similar"]].to_numpy().tolist() == [[0, 2], [0, 3]]
    assert np.allclose(frame["similarity"], [np.sqrt(0.5), -1.0])


def test_similarity_needs_no_rows(completion: Completion) -> None:
    """Similar columns are the features' alone: rows folded in change nothing."""
    folded = completion.fold_in(sp.csr_array((1, 50)))
    pd.testing.assert_frame_equal(folded.similar([9000]), completion.similar([9000]))
