"""Cold entries, rows and columns that were not seen in fitting: what is known without them, by hand, and how told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import oracles
import pytest
import scipy.sparse as sp

from rfmdist.completion import Completion
from rfmdist.errors import InputError
from rfmdist.features.augmented import AugmentedFeatures, Margin
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.mean import MeanFeatures
from rfmdist.features.protocol import Step
from rfmdist.features.recovered import RecoveredFeatures
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.blocks import FITTED_ROLES, Offsets
from rfmdist.observations.offsets import fit_offsets
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations
from rfmdist.observations.targets import Targets

ROWS = [f"user {i:03d}" for i in range(70)]
COLUMNS = [7 * j + 1000 for j in range(50)]
BARE = {"indicators": 0, "ridge_by_count": 0, "row_scale": 0, "side_weight": 0}
ADDED = {"indicators": 0.4, "ridge_by_count": 0.3, "row_scale": 0.5, "side_weight": 0.5}
KINDS: dict[str, dict[str, Any]] = {
    "dense": {"features": "dense"},
    "dense, rows alone": {"features": "dense", "offsets": "rows"},
    "factored": {"rank": 5, **BARE},
    "factored, no offsets": {"rank": 5, "offsets": None, **BARE},
    "factored, columns alone": {"rank": 5, "sides": "columns", "offsets": "columns", **BARE},
    "factored, stored offsets": {"rank": 5, "offsets": "stored", **BARE},
    "factored, scaled rows": {"rank": 5, **BARE, "row_scale": 0.5},
    "mean of ranks": {"rank": (3, 6), **BARE, "row_scale": 0.5},
    "augmented": {"rank": 5, **ADDED},
    "mean of augmented": {"rank": (3, 6), **ADDED, "cosine_features": 4},
}
FEW = ["dense", "mean of augmented"]


@pytest.fixture(scope="module")
def observations() -> Observations:
    """Give 70 x 50 observations with a stored split and stored offsets, about 3."""
    values = 3 + oracles.sparse_problem(np.random.default_rng(5), 70, 50, density=0.3)
    made = Observations.from_scipy(oracles.as_sparse(values), row_ids=ROWS, column_ids=COLUMNS)
    split(made, test=0.2)
    made.store_offsets(fit_offsets(made))
    return made


@pytest.fixture(scope="module", params=KINDS)
def completion(request: pytest.FixtureRequest, observations: Observations) -> Completion:
    """Give a completion of each kind."""
    fixed = {"features": "factored", "ridge": 0.1, "replacement": 1, "max_iter": 3, "dtype": "float64"}
    return LinRFM(**{**fixed, **KINDS[request.param]}).fit(observations).completion_


def by_hand(completion: Completion) -> Any:
    """Give what is known of each row without any column: the intercept of its least squares, and its offset."""
    features, targets, intercepts = completion.features, completion.targets, np.zeros(70)
    scales = np.ones(70) if targets.scales is None else targets.scales.rows
    coo = completion.observations.to_scipy(FITTED_ROLES).tocoo()
    values = np.full((70, 50), np.nan)
    values[coo.row, coo.col] = (coo.data - targets.offsets.at(coo.row, coo.col)) / scales[coo.row] / targets.unit
    if isinstance(features, FactoredFeatures):
        several = isinstance(features, MeanFeatures)
        members, steps = (features.members, features.steps) if several else ([features], [completion.step])
        for member, step in zip(members, steps, strict=True):
            pulls = step.ridge + member.floor, member.shrinkage[0]
            intercepts += oracles.factored_rows(values, member.factor, member.offsets, *pulls)[1] / len(members)
    return targets.offsets.mean + targets.offsets.rows + scales * targets.unit * intercepts


def widened(completion: Completion) -> Completion:
    """Give the same completion with one more column that nobody observed, and that has no features."""

    def wider(array: Any, axes: tuple[int, ...] = (0,)) -> Any:
        return np.pad(array, [(0, int(axis in axes)) for axis in range(array.ndim)])

    def grown(features: Any) -> Any:
        if isinstance(features, DenseFeatures):
            return replace(features, matrix=wider(features.matrix, (0, 1)))
        if isinstance(features, MeanFeatures):
            return MeanFeatures.of([grown(member) for member in features.members], features.steps)
        more: dict[str, Any] = {"factor": wider(features.factor), "offsets": wider(features.offsets)}
        if isinstance(features, AugmentedFeatures):
            own, other = features.margins
            more["companion"] = wider(features.companion)
            more["margins"] = Margin(wider(own.counts), wider(own.side)), other
        return replace(features, **more)

    targets, whole = completion.targets, completion.observations
    coo = whole.to_scipy().tocoo()
    new = Observations.from_scipy(sp.coo_array((coo.data, coo.coords), (70, 51)))
    new.store_split([whole.roles(whole.row_block(0, 70))])
    offsets = replace(targets.offsets, columns=wider(targets.offsets.columns))
    wide = replace(targets, observations=new, offsets=offsets, split=new.split_mark)
    return Completion(wide, grown(completion.features), completion.step)


# ---- the right values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("completion", [kind for kind in KINDS if "augmented" not in kind], indirect=True)
def test_an_unknown_column_gets_what_is_known_of_the_row(completion: Completion) -> None:
    """That is the mean, the row's offset and its intercept, in the values' units, as least squares by hand has it."""
    assert np.allclose(completion.predict(ROWS, "nothing known"), by_hand(completion), rtol=1e-11, atol=1e-11)


def test_an_unknown_column_gets_what_a_column_without_entries_and_features_gets(completion: Completion) -> None:
    """A matrix with one more such column has these numbers in it, whatever is added to the features."""
    wide = widened(completion).predict(np.arange(70), 50, codes=True)
    assert np.allclose(completion.predict(ROWS, -1), wide, rtol=1e-11, atol=1e-11)


def test_an_unknown_row_gets_what_a_row_without_entries_gets(completion: Completion) -> None:
    """That is the mean and the columns' offsets, fitted beforehand or with the features; the rows' scale is 1."""
    targets, features = completion.targets, completion.features
    own = features.offsets if isinstance(features, FactoredFeatures) else 0.0
    found = completion.predict("nobody", COLUMNS)
    wanted = targets.offsets.mean + targets.offsets.columns + targets.unit * own
    assert np.allclose(found, wanted, rtol=1e-14, atol=1e-14)
    assert np.allclose(found, completion.fold_in(sp.coo_array((1, 50))).predict(0, COLUMNS), rtol=1e-14, atol=1e-14)


def test_of_both_unknown_the_mean_is_left(completion: Completion) -> None:
    """Of an entry without any known id nothing else is known."""
    assert completion.predict("nobody", "nothing known") == completion.targets.offsets.mean


def test_known_entries_keep_their_bits_among_unknown_ones(completion: Completion, rng: np.random.Generator) -> None:
    """Whatever else is asked, in any order, and whether by id or by code."""
    i, j = rng.integers(-5, 70, 400), rng.integers(-5, 50, 400)
    rows, columns = ([*names, *["?"] * 5] for names in (ROWS, map(str, COLUMNS)))
    found = completion.predict(np.array(rows)[i], np.array(columns)[j])
    cold = (i < 0) | (j < 0)
    assert np.array_equal(completion.is_cold(np.array(rows)[i], np.array(columns)[j]), cold)
    assert np.array_equal(found[~cold], completion.predict(i[~cold], j[~cold], codes=True))
    one_by_one = [completion.predict(rows[i], columns[j]) for i, j in zip(i[cold], j[cold], strict=True)]
    assert np.array_equal(found[cold], one_by_one)


def built(observed: Any, features: Any, offsets: Offsets, unit: float = 1.0, clip: Any = None) -> Completion:
    """Give a completion of given features and offsets without a fit."""
    targets = Targets(Observations.from_scipy(observed), offsets, unit, np.dtype(np.float64), clip=clip)
    return Completion(targets, features, Step(1.0, 1.0))


def test_small_numbers_by_hand() -> None:
    """Three rows, two columns, one feature: each number written out."""
    observed = sp.coo_array(([5.0, 3.0, 4.0, 1.0], ([0, 0, 1, 2], [0, 1, 0, 1])), (3, 2))
    features = FactoredFeatures(np.array([[1.0], [2.0]]), np.array([0.5, -0.5]), shrinkage=(2.0, 2.0))
    offsets = Offsets(3.0, np.zeros(3), np.zeros(2))
    completion = built(observed, features, offsets, unit=2.0)
    # Row 1: y = (4 - 3) / 2 - 0.5 = 0, so that nothing is left for b and the intercept.
    # Row 2: y = (1 - 3) / 2 + 0.5 = -1/2; (4 + 1) b + 2 c = -1 and 2 b + (1 + 2) c = -1/2 give b = -2/11, c = -1/22.
    assert completion.predict([1, 2], 9) == pytest.approx([3.0, 3.0 - 2 / 22], abs=1e-15)
    assert completion.predict(9, [0, 1]).tolist() == [4.0, 2.0]
    clipped = built(observed, features, offsets, unit=2.0, clip=(2.95, 3.9))
    assert clipped.predict([2, 9], [9, 0]).tolist() == [2.95, 3.9]


def test_an_exact_recovery_determines_nothing_without_an_id() -> None:
    """Its predictions are what must be; of an unknown row or column that is nothing."""
    factor, components = np.array([[1.0], [2.0], [0.5]]), np.ones(3, np.int32)
    features = RecoveredFeatures(factor, np.zeros(3), components=components, ranks=(0, 1), exact=True)
    completion = built(sp.coo_array([[1.0, 2.0, 0.5]]), features, Offsets(0.0, np.zeros(1), np.zeros(3)))
    assert np.isnan(completion.predict([0, 0, 7, 7], [1, 7, 1, 7])).tolist() == [False, True, True, True]
    assert completion.recommend([0, 7], exclude_observed=False)["row"].unique().tolist() == [0]
    with pytest.raises(InputError, match="none of these entries has ids that were seen in fitting"):
        completion.score([0, 7], [7, 0], [1.0, 1.0])


# ---- the other ways -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("completion", FEW, indirect=True)
def test_predictions_may_be_nan_or_refused(completion: Completion) -> None:
    """NaN where an id is unknown and nowhere else; nothing is left out, which would move what follows."""
    rows, columns = ["user 000", "nobody", "user 000"], [1000, 1000, 5]
    found = completion.predict(rows, columns, unknown="nan")
    assert np.array_equal(np.isnan(found), [False, True, True])
    assert found[0] == completion.predict("user 000", 1000)
    with pytest.raises(InputError, match=r"row id nobody and column id 5 were not seen in fitting"):
        completion.predict(rows, columns, unknown="error")
    with pytest.raises(InputError, match="unknown='skip' would leave fewer predictions than entries; leave out"):
        completion.predict(rows, columns, unknown="skip")


@pytest.mark.parametrize("completion", FEW, indirect=True)
@pytest.mark.parametrize("ask", ["predict", "score", "recommend", "recommendations", "fold_in", "split"])
def test_unknown_is_one_of_four_ways(completion: Completion, ask: str) -> None:
    """Any other word is refused before any work."""
    calls: dict[str, Any] = {
        "predict": lambda way: completion.predict("nobody", 1000, unknown=way),
        "score": lambda way: completion.score(unknown=way),
        "recommend": lambda way: completion.recommend(unknown=way),
        "recommendations": lambda way: completion.recommendations(unknown=way),
        "fold_in": lambda way: completion.fold_in(sp.coo_array((1, 50)), unknown=way),
        "split": lambda way: split(completion.observations, unknown=way),
    }
    for way in ("mean", None, 0):
        with pytest.raises(InputError, match=r"unknown=.* is not known: use one of offsets, nan, skip, error"):
            calls[ask](way)


def test_scores_tell_cold_entries_beside_the_rest(completion: Completion, rng: np.random.Generator) -> None:
    """All entries count, and those with unknown ids once more by themselves; left out they are counted as such."""
    rows = np.array([*ROWS, "x", "y"])[rng.integers(0, 72, 300)]
    columns = np.array([*COLUMNS, 1, 2])[rng.integers(0, 52, 300)]
    values, cold = rng.normal(size=300), completion.is_cold(rows, columns)
    errors = completion.predict(rows, columns) - values
    scores = completion.score(rows, columns, values)
    assert 5 < scores.cold.count == cold.sum() < 60
    assert (scores.count, scores.left_out, scores.cold.left_out) == (300, 0, 0)
    assert scores.rmse == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert scores.cold.rmse == pytest.approx(np.sqrt(np.mean(errors[cold] ** 2)))
    assert scores.cold.mae == pytest.approx(np.mean(np.abs(errors[cold])))
    for unknown in ("nan", "skip"):
        scores = completion.score(rows, columns, values, unknown=unknown)
        assert (scores.count, scores.left_out) == (300 - cold.sum(), cold.sum())
        assert (scores.cold.count, scores.cold.left_out) == (0, cold.sum())
        assert scores.rmse == pytest.approx(np.sqrt(np.mean(errors[~cold] ** 2)))
    with pytest.raises(InputError, match="were not seen in fitting"):
        completion.score(rows, columns, values, unknown="error")


@pytest.mark.parametrize("completion", FEW, indirect=True)
def test_stored_test_entries_are_never_cold(completion: Completion) -> None:
    """They are of the store's own rows and columns."""
    assert completion.score().cold.count == 0


# ---- rankings -----------------------------------------------------------------------------------------------


def test_unknown_rows_are_recommended_what_is_best_without_them(completion: Completion) -> None:
    """The columns of greatest offset, equal ones by code, each row once and in the order given."""
    alone = completion.predict("nobody", COLUMNS)
    best = np.argsort(-alone, kind="stable")[:7]
    frame = completion.recommend(["nobody", "user 003", "x", "nobody"], 7)
    assert frame["row"].tolist() == ["nobody"] * 7 + ["user 003"] * 7 + ["x"] * 7
    for name in ("nobody", "x"):
        found = frame[frame["row"] == name]
        assert found["rank"].tolist() == list(range(1, 8))
        assert found["column"].tolist() == np.array(COLUMNS)[best].tolist()
        assert np.array_equal(found["prediction"], alone[best])
    known = frame[frame["row"] == "user 003"].reset_index(drop=True)
    assert known.equals(completion.recommend("user 003", 7))
    for unknown in ("nan", "skip"):
        assert completion.recommend(["nobody", "user 003", "x"], 7, unknown=unknown).equals(known)


@pytest.mark.parametrize("completion", FEW, indirect=True)
def test_recommendations_of_unknown_rows_come_last_and_in_bounded_pieces(
    completion: Completion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, a table holds some of them."""
    monkeypatch.setattr("rfmdist.serving.KEPT_ENTRIES", 10)
    frames = list(completion.recommendations(["b", "user 009", "a", "user 003", "c"], 4))
    assert [sorted(set(frame["row"])) for frame in frames] == [["user 003"], ["user 009"], ["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [([7, 1], [7, 1]), (["7", "1"], [7, 1]), ([7.0, 1.0], [7, 1]), (["u", "1"], ["u", "1"]), ([7.5, 1], ["7.5", "1"])],
)
def test_rows_keep_one_kind_of_ids(asked: Any, wanted: Any) -> None:
    """Integers where the store's are and the unknown ones may be, else text for all: a column of a file has one."""
    offsets = Offsets(0.0, np.zeros(3), np.arange(3.0))
    completion = built(sp.coo_array(np.eye(3)), DenseFeatures.start(3, np.float64), offsets)
    assert completion.recommend(asked, 1)["row"].tolist() == wanted


# ---- new rows -----------------------------------------------------------------------------------------------


def test_entries_in_unknown_columns_are_not_folded_in(completion: Completion, rng: np.random.Generator) -> None:
    """The rows are those of the other entries, roles included, and a warning tells what was left out."""
    known = sp.random_array((6, 50), density=0.4, rng=rng, data_sampler=lambda size: rng.normal(3, 1, size)).tocsr()
    whole = sp.hstack([known, sp.coo_array(([9.0, 9.0, 9.0], ([0, 1, 5], [0, 1, 0])), (6, 2))])
    order = rng.permutation(52)
    new = Observations.from_scipy(whole.tocsc()[:, order], column_ids=np.array([*COLUMNS, 1, 2])[order])
    plain = Observations.from_scipy(known, column_ids=COLUMNS)
    for observations, kept in ((new, np.array([*COLUMNS, 1, 2])[order]), (plain, COLUMNS)):
        block = observations.row_block(0, 6)
        observations.store_split([(np.array(kept)[block.indices] % 3 == 0).astype(np.uint8) * 2])
    with pytest.warns(UserWarning, match=r"3 of \d+ entries lie in 2 columns that were not seen in fitting") as told:
        folded = completion.fold_in(new)
    assert told[0].filename == __file__
    wanted = completion.fold_in(plain)
    assert np.array_equal(
        folded.predict(np.arange(6)[:, None], COLUMNS), wanted.predict(np.arange(6)[:, None], COLUMNS)
    )
    assert folded.score().count == wanted.score().count > 0
    with pytest.raises(InputError, match=r"2 column ids \(\d, \d\) were not seen in fitting"):
        completion.fold_in(new, unknown="error")
