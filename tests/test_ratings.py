"""Additions for ratings in the whole: chosen where they earn it, averaged, saved, folded in, and refused elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pytest
from numpy.typing import NDArray

from rfmdist.completion import Completion
from rfmdist.engine.run import executor
from rfmdist.errors import InputError
from rfmdist.features.augmented import AugmentedFeatures, Extras
from rfmdist.features.cosine import with_cosines
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.mean import MeanFeatures
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.blocks import FITTED_ROLES, Role
from rfmdist.observations.offsets import fit_offsets
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations

BARE = {"indicators": 0, "ridge_by_count": 0, "row_scale": 0, "side_weight": 0}
GIVEN = {"indicators": 0.4, "ridge_by_count": 0.3, "row_scale": 0.5, "side_weight": 0.2}
FIXED = {
    "ridge": 0.5,
    "replacement": 1.0,
    "validation_fraction": 0,
    "max_iter": 4,
    "clip": None,
    "features": "factored",
}
KINDS: dict[str, dict[str, Any]] = {
    "all": {"rank": 5, **GIVEN},
    "without indicators": {"rank": 5, **GIVEN, "indicators": 0},
    "without side columns": {"rank": 5, **GIVEN, "side_weight": 0},
    "scales alone": {"rank": 5, **BARE, "row_scale": 0.5},
    "cosines": {"rank": 5, **GIVEN, "cosine_features": 30},
    "mean": {"rank": (3, 6), **GIVEN},
    "plain mean": {"rank": [3, 6, 2], **BARE},
    "mean of cosines": {"rank": (3, 6), **GIVEN, "cosine_features": 30},
}
"""What `LinRFM` may end with."""


def rated(rng: np.random.Generator, by_value: float = 0.0, m: int = 300, n: int = 200, density: float = 0.2) -> Any:
    """Give (all values, those observed): low rank, offsets and noise; ``by_value`` is how much seeing tells of them."""
    full = rng.normal(size=(m, 4)) @ rng.normal(size=(4, n)) / 2
    full += 0.5 * rng.normal(size=(m, n)) + 0.3 * rng.normal(size=(m, 1)) + 0.3 * rng.normal(size=n)
    share = density * np.exp(by_value * full)
    return full, np.where(rng.random((m, n)) < np.minimum(share * density / share.mean(), 1), full, np.nan)


@pytest.fixture(scope="module")
def values() -> Any:
    """Give a matrix of 60 x 40 of which the pattern tells of the values; row 0 has no entry."""
    seen = rated(np.random.default_rng(3), 1.0, 60, 40, 0.3)[1]
    seen[0] = np.nan
    return seen


@pytest.fixture(scope="module", params=[(k, d) for k in KINDS for d in ("float32", "float64")], ids=" ".join)
def completion(request: pytest.FixtureRequest, values: Any) -> Completion:
    """Give a completion of each kind, in both dtypes."""
    name, dtype = request.param
    return complete(values, name, dtype=dtype)


def complete(values: Any, name: str, **parameters: Any) -> Completion:
    """Fit a few iterations with fixed settings."""
    return LinRFM(**{**FIXED, **KINDS[name], **parameters}).fit(oracles.as_sparse(values)).completion_


def everything(completion: Completion) -> NDArray[np.float64]:
    """Give all predictions."""
    found: NDArray[np.float64] = completion.predict_block().compute()
    return found


def rounding(completion: Completion) -> float:
    """Give what the dtype's rounding may amount to."""
    return 3e-5 if completion.targets.dtype == np.float32 else 1e-11


def unobserved(model: LinRFM, full: Any, seen: Any) -> float:
    """Root mean squared error of the unobserved entries."""
    error = (everything(model.completion_) - full)[np.isnan(seen)]
    return float(np.sqrt(np.mean(error**2)))


# ---- what a completion can do ---------------------------------------------------------------------------------


def test_entries_are_those_of_blocks(completion: Completion) -> None:
    """Single predictions are those of whole rows, and all are finite."""
    i, j = np.meshgrid(np.arange(60), np.arange(40), indexing="ij")
    whole = everything(completion)
    assert np.isfinite(whole).all()
    assert np.allclose(completion.predict(i, j, codes=True), whole, rtol=0, atol=rounding(completion))
    assert np.std(whole[:, 1:] - whole[:, :1]) > 0.1


def test_saved_is_opened_the_same(completion: Completion, tmp_path: Path) -> None:
    """Predictions, recommendations, similar columns and folded rows of an opened completion are the same bits."""
    completion.save(tmp_path / "saved")
    opened = Completion.open(tmp_path / "saved")
    assert type(opened.features) is type(completion.features)
    assert np.array_equal(everything(opened), everything(completion))
    pd.testing.assert_frame_equal(opened.recommend(k=5), completion.recommend(k=5), check_exact=True)
    pd.testing.assert_frame_equal(opened.similar([0, 7], k=5), completion.similar([0, 7], k=5), check_exact=True)
    rows = completion.observations.to_scipy()[:9]
    assert np.array_equal(everything(opened.fold_in(rows)), everything(completion.fold_in(rows)))
    opened.save(tmp_path / "again")
    assert np.array_equal(everything(Completion.open(tmp_path / "again")), everything(completion))


def test_folded_rows_are_the_fitted_rows(completion: Completion) -> None:
    """fold_in of fitted rows, in any order, gives the fitted predictions: the features are the same."""
    order = np.random.default_rng(1).permutation(60)[:25]
    folded = completion.fold_in(completion.observations.to_scipy()[order])
    assert np.allclose(everything(folded), everything(completion)[order], rtol=0, atol=rounding(completion))


def test_recommended_are_the_greatest(completion: Completion, values: Any) -> None:
    """The recommended columns are the unobserved ones of greatest prediction, best first."""
    found, whole = completion.recommend(k=6), np.where(np.isnan(values), everything(completion), -np.inf)
    assert (found.groupby("row").size() == 6).all()
    for row, group in found.groupby("row"):
        expected = np.sort(whole[row])[::-1][:6]
        assert np.allclose(group["prediction"], expected, rtol=0, atol=rounding(completion))
        assert np.allclose(group["prediction"], whole[row, group["column"]], rtol=0, atol=rounding(completion))


def test_similar_are_those_of_the_features(completion: Completion) -> None:
    """Similarity is the cosine of rows of U, of side columns and all members too."""
    factor = completion.features.factor.astype(np.float64)
    unit = factor / np.linalg.norm(factor, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(40)
    found = completion.similar([3, 20], k=4)
    for column, group in found.groupby("column"):
        assert np.allclose(group["similarity"], np.sort(cosines[column])[::-1][:4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["all", "mean of cosines"])
def test_where_test_entries_are_is_not_used(values: Any, name: str) -> None:
    """A store without the test entries gives the same completion: counts, indicators and scales know only the rest."""
    observations = Observations.from_scipy(oracles.as_sparse(values))
    split(observations, validation=0.0, test=0.3)
    fitted = observations.to_scipy(FITTED_ROLES)
    found, expected = (
        everything(LinRFM(**FIXED, **KINDS[name], dtype="float64").fit(given).completion_)
        for given in (observations, fitted)
    )
    assert fitted.nnz < 0.8 * observations.nnz
    assert np.allclose(found, expected, rtol=0, atol=1e-10)


# ---- means ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mean", "plain mean", "mean of cosines"])
def test_a_mean_is_its_members_mean(values: Any, name: str) -> None:
    """Predictions, whole rows and the order of recommendations are those of the mean of the members' predictions."""
    done = complete(values, name, dtype="float64")
    assert isinstance(done.features, MeanFeatures)
    pairs = zip(done.features.members, done.features.steps, strict=True)
    members = [Completion(done.targets, features, step) for features, step in pairs]
    mean = np.mean([everything(member) for member in members], axis=0)
    assert np.allclose(everything(done), mean, rtol=0, atol=1e-12)
    i, j = np.nonzero(np.isnan(values))
    assert np.allclose(done.predict(i, j, codes=True), mean[i, j], rtol=0, atol=1e-12)
    hidden = np.where(np.isnan(values), mean, -np.inf)
    for row, group in done.recommend(k=5).groupby("row"):
        assert group["column"].tolist() == np.argsort(-hidden[row])[:5].tolist()
    assert min(oracles.distance(everything(member), mean) for member in members) > 1e-3


@pytest.mark.parametrize("ranks", [(4, 8), [2, 3, 4]])
def test_several_ranks_are_averaged(values: Any, ranks: Any) -> None:
    """Each rank is fitted and refitted; the members are the fits of each rank alone, with the same settings."""
    given = {**FIXED, **GIVEN, "validation_fraction": 0.2, "tol": 0.0, "dtype": "float64"}
    model = LinRFM(**given, rank=ranks).fit(oracles.as_sparse(values))
    refitted = [h.rank for h in model.history_ if h.stage == "refit"]
    assert model.rank_ == tuple(ranks)
    assert list(dict.fromkeys(refitted)) == list(ranks)
    assert model.n_iter_ == len(refitted)
    members = model.completion_.features.members
    for rank, member in zip(ranks, members, strict=True):
        alone = LinRFM(**given, rank=rank).fit(oracles.as_sparse(values)).completion_
        assert np.array_equal(member.factor, alone.features.factor)
    assert np.isfinite(model.validation_rmse_)


def test_the_mean_s_error_is_told(values: Any) -> None:
    """validation_rmse_ is that of the mean, on the entries that were held out for choosing."""
    given = {**FIXED, **GIVEN, "validation_fraction": 0.2, "refit": False}
    model = LinRFM(**given, rank=(4, 8)).fit(oracles.as_sparse(values))
    done = model.completion_
    with executor() as run:
        assert done.score_role(Role.VALIDATION, run).rmse == pytest.approx(model.validation_rmse_, rel=1e-12)
    fits = [min(h.validation_rmse for h in model.history_ if (h.stage, h.rank) == ("fit", r)) for r in (4, 8)]
    assert model.validation_rmse_ < max(fits)
    assert model.validation_rmse_ not in fits


# ---- cosine features ------------------------------------------------------------------------------------------


def test_cosines_are_a_gaussian_kernel(rng: np.random.Generator) -> None:
    """The products of many new columns are 0.49 s² exp(-|u - v|² / 2 s²), centred; those there were stay."""
    factor = rng.normal(size=(50, 6)) * np.linspace(0.2, 2, 6)
    features = FactoredFeatures(factor, np.zeros(50))
    more = with_cosines(features, 60_000, 0)
    assert np.array_equal(more.factor[:, :6], factor)
    new = more.factor[:, 6:]
    scale = np.sqrt(np.mean(np.sum(factor**2, axis=1)))
    squares = np.sum((factor[:, None] - factor) ** 2, axis=2)
    kernel, centring = np.exp(-squares / (2 * scale**2)), np.eye(50) - 1 / 50
    expected = centring @ kernel @ centring
    assert np.allclose(new @ new.T / (0.7 * scale) ** 2, expected, rtol=0, atol=0.025)
    assert np.abs(new.sum(axis=0)).max() < 1e-12
    assert np.abs(expected).max() > 0.5


def test_cosines_follow_the_seed_and_the_dtype(rng: np.random.Generator) -> None:
    """The same seed gives the same columns, in U's dtype; features that are all zero give finite ones."""
    features = FactoredFeatures(rng.normal(size=(30, 4)).astype(np.float32), np.zeros(30, np.float32))
    one, same, other = (with_cosines(features, 16, seed).factor for seed in (1, 1, 2))
    assert one.dtype == np.float32
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.isfinite(with_cosines(FactoredFeatures(np.zeros((5, 2)), np.zeros(5)), 8, 0).factor).all()


@pytest.mark.parametrize("extras", [BARE, GIVEN], ids=["bare", "given"])
def test_cosines_are_put_beside_the_last_features(values: Any, extras: dict[str, Any]) -> None:
    """The option solves the rows once more, with the features of the same fit and the cosines of them."""
    fits = [
        LinRFM(**FIXED, **extras, rank=5, cosine_features=count).fit(oracles.as_sparse(values)).completion_
        for count in (0, 40)
    ]
    plain, more = (done.features.factor for done in fits)
    assert more.shape == (40, plain.shape[1] + 40)
    assert np.array_equal(more[:, : plain.shape[1]], plain)
    assert 1e-3 < oracles.distance(everything(fits[1]), everything(fits[0])) < 0.8


# ---- choosing -------------------------------------------------------------------------------------------------


SMALL = [(300, 200, 0.1, 103), (400, 300, 0.06, 102)]
"""Some hundred validation entries, of which indicators gained 0.2 and 0.8 % by chance."""


@pytest.mark.parametrize(("m", "n", "density", "seed"), [*((300, 200, 0.2, seed) for seed in range(3)), *SMALL])
def test_a_random_pattern_tells_nothing(m: int, n: int, density: float, seed: int) -> None:
    """Where any entry is as likely to be seen, indicators are left out, and the rest does no harm worth 0.2 %."""
    full, seen = rated(np.random.default_rng(seed), 0.0, m, n, density)
    given = oracles.as_sparse(seen)
    found, plain = (LinRFM(features="factored", rank=8, **extras).fit(given) for extras in ({}, BARE))
    assert found.extras_.indicators == 0
    assert unobserved(found, full, seen) < 1.002 * unobserved(plain, full, seen)
    assert plain.extras_ == Extras()


@pytest.mark.parametrize("extras", [GIVEN, {**GIVEN, "indicators": 0, "row_scale": 0}, {}], ids=["all", "side", "auto"])
def test_values_that_are_all_the_same(rng: np.random.Generator, extras: dict[str, Any]) -> None:
    """Where offsets leave nothing of the values, that value is the answer everywhere, whatever the additions."""
    values = np.where(rng.random((30, 20)) < 0.4, 3.0, np.nan)
    with pytest.warns(UserWarning, match="values are 3, so that there is nothing to learn"):
        model = LinRFM(features="factored", **extras).fit(oracles.as_sparse(values))
    assert np.allclose(everything(model.completion_), 3.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_a_pattern_that_tells_of_values_is_used(seed: int) -> None:
    """Where high values are seen more often, indicators are switched on and lower the error."""
    _, seen = rated(np.random.default_rng(seed), by_value=1.0, density=0.1)
    given = oracles.as_sparse(seen)
    found, plain = (LinRFM(features="factored", rank=8, **extras).fit(given) for extras in ({}, BARE))
    assert found.extras_.indicators > 0
    assert isinstance(found.completion_.features, AugmentedFeatures)
    assert found.validation_rmse_ < 0.995 * plain.validation_rmse_


def test_history_has_every_trial(values: Any) -> None:
    """Trials differ in their additions, of which each is tried on and off; the fit and refit have those chosen."""
    model = LinRFM(features="factored", rank=6, max_iter=30).fit(oracles.as_sparse(values))
    tried = {h.extras for h in model.history_ if h.stage == "try"}
    assert Extras() in tried
    assert len({extras.indicators for extras in tried}) >= 4
    for name in ("ridge_by_count", "row_scale", "side_weight"):
        assert {getattr(extras, name) > 0 for extras in tried} == {False, True}
    assert {h.extras for h in model.history_ if h.stage == "refit"} == {model.extras_}
    assert model.completion_.targets.scales is None or model.extras_.row_scale > 0
    assert all(h.completion is None for h in model.history_)


@pytest.mark.parametrize("given", [GIVEN, BARE, {**GIVEN, "row_scale": 0}], ids=["all", "none", "some"])
def test_what_is_given_is_not_tried(values: Any, given: dict[str, Any]) -> None:
    """Additions given as numbers are those of every iteration of every stage."""
    model = LinRFM(features="factored", rank=6, max_iter=20, **given).fit(oracles.as_sparse(values))
    assert {h.extras for h in model.history_} == {model.extras_} == {Extras(**given)}


@pytest.mark.parametrize("name", GIVEN)
def test_the_others_are_chosen_beside_what_is_given(values: Any, name: str) -> None:
    """One addition given, the others are tried on and off around it."""
    given = {name: 0.17}
    model = LinRFM(features="factored", rank=4, max_iter=20, **given).fit(oracles.as_sparse(values))
    assert {getattr(h.extras, name) for h in model.history_} == {0.17}
    for other in {*GIVEN} - {name}:
        assert {getattr(h.extras, other) > 0 for h in model.history_ if h.stage == "try"} == {False, True}


def test_without_validation_additions_stay_off(values: Any) -> None:
    """Nothing held out, nothing to choose by: "auto" is 0."""
    model = LinRFM(**FIXED, rank=4).fit(oracles.as_sparse(values))
    assert {h.extras for h in model.history_} == {Extras()}
    assert type(model.completion_.features) is FactoredFeatures


# ---- tables ---------------------------------------------------------------------------------------------------


def tabled(rng: np.random.Generator, m: int = 250, n: int = 150) -> tuple[Any, Any, Observations]:
    """Give (all values, those observed, observations): columns' factors follow from two stored columns and a kind."""
    first, second = rng.normal(size=n), rng.normal(size=n)
    kind = rng.integers(0, 3, n)
    factors = np.column_stack([first, second, (kind == 1) - 1 / 3, (kind == 2) - 1 / 3]) + 0.1 * rng.normal(size=(n, 4))
    full = rng.normal(size=(m, 4)) @ factors.T / 2 + 0.3 * rng.normal(size=(m, n))
    seen = np.where(rng.random((m, n)) < 0.06, full, np.nan)
    ids = [f"film {j}" for j in range(n)]
    observations = Observations.from_scipy(oracles.as_sparse(seen), column_ids=ids)
    table = {"first": first, "second": second, "kind": np.array(["a", "b", "c"])[kind]}
    observations.store_table("columns", pd.DataFrame(table, index=ids).iloc[::-1])
    return full, seen, observations


def test_tables_of_columns_help(rng: np.random.Generator) -> None:
    """Where columns' factors follow from stored columns, naming them lowers the error of few entries by a tenth."""
    full, seen, observations = tabled(rng)
    names = ["first", "second", "kind"]
    with_table, without = (
        unobserved(LinRFM(features="factored", rank=6, column_table=table).fit(observations), full, seen)
        for table in (names, ())
    )
    assert with_table < 0.9 * without


def test_tables_of_rows_are_those_of_columns_turned(rng: np.random.Generator) -> None:
    """The same with rows for columns: a stored table of the rows lowers the error as much."""
    full, seen, turned = tabled(rng)
    observations = Observations.from_scipy(oracles.as_sparse(seen.T), row_ids=turned.column_ids)
    observations.store_table("rows", turned.table("columns", ["first", "second", "kind"]))
    with_table, without = (
        unobserved(LinRFM(features="factored", rank=6, row_table=table).fit(observations), full.T, seen.T)
        for table in (["first", "second", "kind"], ())
    )
    assert with_table < 0.9 * without


def test_side_columns_of_tables_are_stored(rng: np.random.Generator, tmp_path: Path) -> None:
    """Five columns from the table stand beside counts and offsets; an opened completion predicts the same bits."""
    _, _, observations = tabled(rng)
    given = {**FIXED, **GIVEN, "rank": 4}
    done = LinRFM(**given, column_table=["first", "second", "kind"]).fit(observations).completion_
    assert done.features.factor.shape == (150, 4 + 2 + 5)
    done.save(tmp_path / "saved")
    assert np.array_equal(everything(Completion.open(tmp_path / "saved")), everything(done))


def test_an_unknown_column_is_refused(rng: np.random.Generator) -> None:
    """A name that is not stored is told, for rows as for columns."""
    _, _, observations = tabled(rng)
    for axis in ("row_table", "column_table"):
        with pytest.raises(InputError, match="third"):
            LinRFM(**{**FIXED, **GIVEN}, rank=4, **{axis: ["third"]}).fit(observations)


# ---- refusals -------------------------------------------------------------------------------------------------


def refusals() -> Iterator[tuple[dict[str, Any], str]]:
    """Give parameters that do not go together, and what is told."""
    for name in GIVEN:
        for other in ({"sides": "columns"}, {"features": "dense"}, {"floor": 0.1}):
            message = f"{name}=0.3 needs features='factored', sides='both' and floor=0"
            yield {"features": "factored", name: 0.3, **other}, message
    for name in ("row_table", "column_table"):
        yield {"features": "dense", name: ["age"]}, f"{name}=.* needs features='factored'"
    yield {"features": "dense", "rank": (4, 8)}, "several ranks .* need features='factored'"
    yield {"features": "dense", "cosine_features": 8}, "cosine_features need features='factored'"


@pytest.mark.parametrize(("parameters", "message"), refusals(), ids=str)
def test_what_does_not_go_together_is_refused(values: Any, parameters: dict[str, Any], message: str) -> None:
    """One sentence names the parameter and what it needs; at 0 or "auto" nothing is refused."""
    with pytest.raises(InputError, match=message):
        LinRFM(**parameters).fit(oracles.as_sparse(values))


def test_stored_offsets_have_no_row_scale(values: Any) -> None:
    """Stored offsets are used as they are: row_scale is refused with them, and "auto" leaves it off."""
    observations = Observations.from_scipy(oracles.as_sparse(values))
    observations.store_offsets(fit_offsets(observations))
    with pytest.raises(InputError, match="row_scale needs offsets that are fitted"):
        LinRFM(features="factored", offsets="stored", row_scale=0.5).fit(observations)
    model = LinRFM(features="factored", rank=4, offsets="stored", max_iter=10).fit(observations)
    assert {h.extras.row_scale for h in model.history_} == {0.0}


@pytest.mark.parametrize("other", [{"sides": "columns"}, {"features": "dense"}, {"floor": 0.1}], ids=str)
def test_auto_is_off_where_additions_cannot_be(values: Any, other: dict[str, Any]) -> None:
    """With features of one side, exact ones, or a floor, "auto" tries nothing."""
    model = LinRFM(**{"features": "factored", "max_iter": 6, **other}).fit(oracles.as_sparse(values))
    assert {h.extras for h in model.history_} == {Extras()}
