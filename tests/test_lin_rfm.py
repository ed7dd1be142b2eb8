"""`LinRFM`: the whole fit equals the oracle, bends to symmetries, recovers low rank and never sees test entries."""

from __future__ import annotations

import re
from typing import Any

import halves
import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from rfmdist.engine.run import executor
from rfmdist.errors import InputError
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.blocks import FITTED_ROLES, Role
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations
from rfmdist.progress import Iteration
from rfmdist.selection import GROWN_GAIN, NEARLY, RANK_STEPS, START_RANK, search_weight

PLAIN = {"offsets": None, "dtype": "float64", "clip": None, "tol": 0.0}
FIXED = {**PLAIN, "features": "dense", "ridge": 0.1, "replacement": 1, "validation_fraction": 0}
KINDS = [
    {"features": "dense", "sides": "columns"},
    {"features": "dense", "sides": "both"},
    {"features": "factored", "sides": "columns", "rank": 8},
    {"features": "factored", "sides": "both", "rank": 8},
]
"""How features are kept, and of which sides."""
BARE = {"indicators": 0, "ridge_by_count": 0, "row_scale": 0, "side_weight": 0}
"""No additions to plain features."""


@pytest.fixture
def values(rng: np.random.Generator) -> Any:
    """Give a noisy low-rank matrix of 70 x 60, a quarter of it observed."""
    return oracles.sparse_problem(rng, 70, 60)


@pytest.fixture
def noisy(rng: np.random.Generator) -> Any:
    """Give a matrix so noisy that the validation error rises again."""
    return oracles.sparse_problem(rng, 150, 60, noise=0.7)


def completed(matrix: Any, **parameters: Any) -> Any:
    """Fit and complete the whole matrix."""
    given = matrix if isinstance(matrix, Observations) else oracles.as_sparse(matrix)
    return LinRFM(**{**FIXED, "max_iter": 4, **parameters}).fit(given).completion_.predict_block().compute()


def features(matrix: Any, **parameters: Any) -> Any:
    """Fit and give P."""
    given = oracles.as_sparse(matrix)
    return halves.matrix(LinRFM(**{**FIXED, "max_iter": 4, **parameters}).fit(given).completion_.features)


# ---- the numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1, 1.5])
@pytest.mark.parametrize("replacement", [0, 1, 5])
@pytest.mark.parametrize("sides", ["columns", "both"])
def test_every_iterate_is_the_oracle_s(values: Any, alpha: float, replacement: float, sides: str) -> None:
    """Callbacks see the oracle's Z at each iteration, of the values divided by their root mean square."""
    seen: list[Any] = []

    def keep(iteration: Iteration) -> None:
        assert iteration.completion is not None
        seen.append(iteration.completion.predict_block().compute())

    completed(values, power=alpha, replacement=replacement, sides=sides, max_iter=5, callbacks=[keep])
    unit = np.sqrt(np.nanmean(values**2))
    oracle = oracles.dual_iterates if sides == "columns" else oracles.both_sides_iterates
    expected = oracle(values / unit, alpha, 0.1, replacement)
    assert len(seen) == 5
    for found, (estimate, _) in zip(seen, expected, strict=False):
        assert oracles.distance(found, unit * estimate) < 1e-8


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("scale", [1e-6, -3.0, 1e6])
def test_scaled_values_give_a_scaled_completion(values: Any, scale: float, kind: dict[str, Any]) -> None:
    """Fitting c Y gives c Z, at power 3/2 as well: the ridge has no unit."""
    found = completed(scale * values, power=1.5, **kind)
    assert oracles.distance(found, scale * completed(values, power=1.5, **kind)) < 1e-8


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_signs_and_rows_in_another_order(values: Any, rng: np.random.Generator, kind: dict[str, Any]) -> None:
    """Signs of rows, and their order, go through to the completion, whatever the features start with."""
    rows, signs = rng.permutation(70), rng.choice([-1.0, 1.0], 70)[:, None]
    assert oracles.distance(completed((signs * values)[rows], **kind), (signs * completed(values, **kind))[rows]) < 1e-8


def test_permuted_rows_and_columns_permute_the_completion(values: Any, rng: np.random.Generator) -> None:
    """Names and order of rows and columns mean nothing."""
    rows, columns = rng.permutation(70), rng.permutation(60)
    assert oracles.distance(completed(values[rows][:, columns]), completed(values)[rows][:, columns]) < 1e-10


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[2]], ids=str)
def test_every_row_twice_keeps_the_features(values: Any, kind: dict[str, Any]) -> None:
    """P is an average over rows: twice the same rows give the same P and the same rows, twice."""
    twice = np.vstack([values, values])
    assert oracles.distance(features(twice, **kind), features(values, **kind)) < 1e-10
    assert oracles.distance(completed(twice, **kind), np.vstack([completed(values, **kind)] * 2)) < 1e-10


def test_float32_is_near_float64(values: Any) -> None:
    """Half the digits give the completion to six of them."""
    assert 0 < oracles.distance(completed(values, dtype="float32"), completed(values)) < 1e-5


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_fits_repeat(values: Any, kind: dict[str, Any]) -> None:
    """The same call gives the same bits, another seed other held-out entries."""
    found = [completed(values, validation_fraction=0.2, refit=False, random_state=s, **kind) for s in (1, 1, 2)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def recovery(d: int, rank: int, count: int, seed: int, **parameters: Any) -> tuple[LinRFM, list[float]]:
    """Give the model, and the mean squared error of the unobserved entries, relative to theirs, of each refit."""
    rng, errors = np.random.default_rng(seed), []
    full = rng.normal(size=(d, rank)) @ rng.normal(size=(rank, d))
    full /= np.sqrt(np.mean(full**2))
    seen = np.zeros(d * d, bool)
    seen[rng.choice(d * d, count, replace=False)] = True
    seen = seen.reshape(d, d)

    def watch(iteration: Iteration) -> None:
        if iteration.stage == "refit" and iteration.completion is not None:
            found = iteration.completion.predict_block().compute()
            errors.append(float(np.mean((found - full)[~seen] ** 2)))

    model = LinRFM(**{"offsets": None, "dtype": "float64", "callbacks": [watch], **parameters})
    return model.fit(oracles.as_sparse(np.where(seen, full, np.nan))), errors


def test_recovers_low_rank() -> None:
    """Rank 3 of 300 x 300 from 7,200 entries by defaults: to 1e-3 in under 40 iterations, then to rounding."""
    model, errors = recovery(300, 3, 7_200, 0, max_iter=100)
    assert (model.plan_.features, model.plan_.sides, model.rank_) == ("factored", "both", 32)
    assert min(errors[:39]) < 1e-3
    assert errors[-1] < 1e-12


def test_exact_features_recover_low_rank() -> None:
    """Rank 3 of 200 x 200 from 4,800 entries with exact features of the columns: to 1e-3 in under 60 iterations."""
    model, errors = recovery(200, 3, 4_800, 0, features="dense", max_iter=60)
    assert (model.plan_.sides, model.rank_) == ("columns", 200)
    assert errors[-1] < 1e-3


def test_a_rank_beyond_the_first_is_found() -> None:
    """Rank 40 of 160 x 160 from 16,000 entries: the search goes on at twice its rank, and the matrix is recovered."""
    model, errors = recovery(160, 40, 16_000, 0, features="factored", max_iter=80)
    assert model.rank_ == 64
    assert {h.rank for h in model.history_ if h.stage == "refit"} == {64}
    assert errors[-1] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_recovers_the_benchmark(seed: int) -> None:
    """Rank 5 of 500 x 500 from 10,000 entries: the unobserved ones to 1e-3 in under 30 iterations."""
    assert min(recovery(500, 5, 10_000, seed, max_iter=60)[1][:29]) < 1e-3


# ---- the course of a fit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_best_iterate_is_kept_and_refitted(noisy: Any, kind: dict[str, Any]) -> None:
    """Early stopping keeps the least validation error; the refit repeats its schedule on all but test entries."""
    model = LinRFM(offsets=None, replacement=1, max_iter=60, **kind).fit(oracles.as_sparse(noisy))
    fitted, refitted = ([h for h in model.history_ if h.stage == stage] for stage in ("fit", "refit"))
    best = int(np.argmin([h.validation_rmse for h in fitted]))
    assert 0 < best < len(fitted) - 1 < 59
    assert model.n_iter_ == len(refitted) == best + 1
    assert [(h.ridge, h.rank) for h in refitted] == [(h.ridge, h.rank) for h in fitted[: best + 1]]
    assert model.ridge_ == fitted[best].ridge
    assert all(np.isnan(h.validation_rmse) for h in refitted)
    assert model.completion_.targets.fitted == FITTED_ROLES
    assert all(h.completion is None for h in model.history_)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_best_fit_is_the_result(noisy: Any, kind: dict[str, Any]) -> None:
    """Trials choose the weight of the fit, the lowest that is as good; the fit of the least error is refitted."""
    model = LinRFM(offsets=None, max_iter=60, **BARE, **kind).fit(oracles.as_sparse(noisy))
    least: dict[str, dict[float, float]] = {"try": {}, "fit": {}, "refit": {}}
    for h in model.history_:
        found = least[h.stage]
        found[h.replacement] = min(h.validation_rmse, found.get(h.replacement, np.inf))
    weights = [1.0, 5.0, search_weight(model.plan_.sides, np.mean(~np.isnan(noisy)))]
    assert list(least["try"]) == weights
    best = min(least["try"].values())
    assert next(w for w in weights if least["try"][w] <= (1 + NEARLY) * best) in least["fit"]
    assert least["fit"][model.replacement_] == model.validation_rmse_ == min(least["fit"].values())
    assert list(least["refit"]) == [model.replacement_]


@pytest.mark.parametrize("noise", [0.3, 0.7])
def test_noise_ends_the_path(rng: np.random.Generator, noise: float) -> None:
    """With noise the fit ends with a weight for noise and a ridge well above what recovery needs."""
    values = oracles.sparse_problem(rng, 300, 120, noise=noise)
    model = LinRFM(offsets=None, features="factored").fit(oracles.as_sparse(values))
    assert model.replacement_ in (1.0, 5.0)
    assert model.ridge_ > 0.1
    assert 1 < model.validation_rmse_ / (noise / np.sqrt(1 + noise**2)) < 1.3


def test_without_noise_the_search_is_the_result() -> None:
    """Without noise the validation error falls to rounding with the search's weight: no slow path is run."""
    model, _ = recovery(120, 2, 3_000, 0, features="factored", max_iter=100)
    assert model.replacement_ == search_weight("both", 3_000 / 120**2)
    assert model.ridge_ < 1e-3
    assert {h.replacement for h in model.history_ if h.stage == "fit"} == {model.replacement_}


@pytest.mark.parametrize(("true", "grown"), [(1, 16), (40, 128)])
def test_the_rank_grows_where_that_gains(rng: np.random.Generator, true: int, grown: int) -> None:
    """A higher rank is taken over exactly where it lowers the error by its share; the refit repeats its path."""
    values = oracles.sparse_problem(rng, 300, 150, rank=true, density=0.5, noise=0.3)
    model = LinRFM(offsets=None, features="factored", replacement=1, **BARE).fit(oracles.as_sparse(values))
    least: dict[int, float] = {}
    for h in model.history_:
        if h.stage == "fit":
            least[h.rank] = min(h.validation_rmse, least.get(h.rank, np.inf))
    assert list(least) == [START_RANK, *RANK_STEPS]
    rank = START_RANK
    for tried in RANK_STEPS:
        rank = tried if least[tried] <= (1 - GROWN_GAIN) * least[rank] else rank
    assert (model.rank_, model.validation_rmse_) == (rank, least[rank]) == (grown, least[grown])
    refitted = [h.rank for h in model.history_ if h.stage == "refit"]
    assert refitted == sorted(refitted)
    assert set(refitted) == {16: {16}, 128: {64, 128}}[grown]


def test_a_given_rank_stays(noisy: Any) -> None:
    """A rank that is given is that of every iteration but trials', which are short, and at most the columns'."""
    for rank, used in ((5, 5), (500, 60)):
        model = LinRFM(features="factored", rank=rank, max_iter=12).fit(oracles.as_sparse(noisy))
        assert {h.rank for h in model.history_ if h.stage != "try"} == {model.rank_} == {used}
        assert max(h.rank for h in model.history_) == used
        assert model.completion_.features.rank == used


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3]], ids=str)
def test_without_refit_the_best_iterate_is_the_result(noisy: Any, kind: dict[str, Any]) -> None:
    """refit=False: the completion has the least validation error of the history, on training entries alone."""
    model = LinRFM(offsets=None, replacement=1, max_iter=60, refit=False, **kind).fit(oracles.as_sparse(noisy))
    fitted = [h.validation_rmse for h in model.history_ if h.stage == "fit"]
    assert model.history_[-1].stage == "fit"
    assert model.n_iter_ == int(np.argmin(fitted)) + 1
    assert model.completion_.targets.fitted == {Role.TRAIN}
    with executor() as run:
        assert model.completion_.score_role(Role.VALIDATION, run).rmse == pytest.approx(min(fitted), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_refit_is_a_fit_on_all_but_test_entries(values: Any, kind: dict[str, Any]) -> None:
    """The refitted completion is that of a fit without validation and with as many iterations."""
    given = {**FIXED, "validation_fraction": 0.2, "tol": 1e-4, **kind}
    model = LinRFM(**given, max_iter=20).fit(oracles.as_sparse(values))
    expected = completed(values, max_iter=model.n_iter_, **model.extras_._asdict(), **kind)
    assert np.array_equal(model.completion_.predict_block().compute(), expected)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_without_validation_the_change_of_p_stops(values: Any, kind: dict[str, Any]) -> None:
    """With fixed settings and nothing held out, a fit ends when P changes by less than tol, with the last iterate."""
    model = LinRFM(**{**FIXED, "tol": 1e-2, **kind}, max_iter=500).fit(oracles.as_sparse(values))
    changes = [h.change for h in model.history_]
    assert changes[-1] < 1e-2
    assert all(change >= 1e-2 for change in changes[:-1])
    assert model.n_iter_ == len(changes) < 500


def test_a_callback_ends_its_stage(values: Any) -> None:
    """Any callback that returns True stops the fit stage; all are called with the completion at hand."""
    calls: list[int] = []

    def stop(iteration: Iteration) -> bool:
        return iteration.stage == "fit" and iteration.iteration == 3

    model = LinRFM(**FIXED, max_iter=10, callbacks=[stop, lambda it: calls.append(it.iteration)])
    model.fit(oracles.as_sparse(values))
    assert calls == [1, 2, 3]
    assert len(model.history_) == model.n_iter_ == 3


@pytest.mark.parametrize("kind", [KINDS[0], {"features": "factored"}], ids=str)
def test_test_entries_are_never_used(values: Any, kind: dict[str, Any]) -> None:
    """Other values at the test entries leave the completion, offsets and choices the same bits."""
    found, ratings = [], np.clip(np.round(3 + values), 2, 4)  # with both ends met again and again, for the clip
    for wrong in (0.0, 1e3):
        matrix = oracles.as_sparse(ratings)
        observations = Observations.from_scipy(matrix)
        split(observations, test=0.3)
        matrix.data = matrix.data + wrong * (observations.roles(observations.row_block(0, len(ratings))) == Role.TEST)
        observations = Observations.from_scipy(matrix)
        split(observations, test=0.3)
        model = LinRFM(max_iter=10, **kind).fit(observations)
        found.append((model.completion_.predict_block().compute(), model.replacement_, model.n_iter_))
    assert np.array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


def test_verbose_prints_a_line_an_iteration(values: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """verbose=1 tells stage, ridge and error on standard error, nothing on standard output."""
    LinRFM(**{**FIXED, "validation_fraction": 0.2}, max_iter=2, verbose=1).fit(oracles.as_sparse(values))
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 2 + 4
    assert err.startswith("plan: ")
    assert "\nchoosing takes at most " in err
    assert re.search(r"fitting +1/2 +ridge 0.1 .*validation RMSE \d\.\d+", err)


# ---- scikit-learn's manner ----------------------------------------------------------------------------------


def test_parameters_are_scikit_learn_s() -> None:
    """get_params, set_params and clone know every parameter; nothing is learned before a fit."""
    model = LinRFM(power=1, ridge=0.3, callbacks=(print,))
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(floor=0.5).floor == 0.5
    with pytest.raises(NotFittedError):
        model.predict(0, 0)


def test_score_is_minus_the_rmse(values: Any) -> None:
    """Greater is better; Observations and pairs are matched by id, of Observations test entries alone are scored."""
    model = LinRFM(**FIXED, max_iter=3).fit(oracles.as_sparse(values))
    z = model.completion_.predict_block().compute()
    seen = ~np.isnan(values)
    expected = -np.sqrt(np.mean((z - values)[seen] ** 2))
    rows, columns = np.nonzero(seen)
    assert model.score(np.column_stack([rows, columns]), values[seen]) == pytest.approx(expected, rel=1e-12)
    turned = oracles.as_sparse(values[::-1])
    by_id = Observations.from_scipy(turned, row_ids=np.arange(70)[::-1])
    assert model.score(by_id) == pytest.approx(expected, rel=1e-12)
    split(by_id, validation=0.1, test=0.3)
    test = by_id.to_scipy("test").tocoo()
    error = z[::-1][test.row, test.col] - test.data
    assert model.score(by_id) == pytest.approx(-np.sqrt(np.mean(error**2)), rel=1e-12)
    with pytest.raises(InputError, match="the matrix has 50 columns, the completed one 60"):
        model.score(oracles.as_sparse(values[:, :50]))


REFUSED = [
    *[({"power": p}, "power=.* must be a positive fraction") for p in (0, -0.5, 0.317, "half", np.nan)],
    *[
        ({n: v}, f"{n}=.* must be 'auto' or a number")
        for n in ("ridge", "replacement", *BARE)
        for v in (-1, "all", np.nan)
    ],
    *[({n: v}, f"{n}=.* must be a number of at least 0") for n in ("floor", "tol") for v in (-1, np.inf, None)],
    *[({n: v}, f"{n}=.* must be one of 'auto', ") for n in ("features", "sides") for v in ("exact", "rows", None, 1)],
    *[
        ({"rank": v}, "rank=.* must be 'auto', a whole number of at least 1")
        for v in (0, 2.0, "full", None, True, (), [4, 0])
    ],
    *[({"validation_fraction": v}, "must be at least 0 and below 1") for v in (-0.1, 1, "some")],
    *[({"max_iter": v}, "max_iter=.* must be a whole number of at least 1") for v in (0, 2.5, "many", True)],
    *[
        ({n: v}, f"{n}=.* must be a whole number")
        for n in ("random_state", "verbose", "cosine_features")
        for v in (-1, None, "a")
    ],
    *[({n: v}, f"{n}=.* must be a list of names") for n in ("row_table", "column_table") for v in ("age", None, [1])],
    *[({"dtype": v}, "dtype=.* must be 'float32' or 'float64'") for v in ("int64", "float16", "real", None)],
    *[
        ({"clip": v}, "clip=.* must be 'auto', None or")
        for v in ((2, 1), "no", (1,), (0, np.nan), np.array([0.0, 1.0]))
    ],
    *[({"callbacks": v}, "callbacks=.* must be a list of functions") for v in (3, ["line"], iter([print]))],
    ({"refit": "no"}, "refit='no' must be True or False"),
    ({"offsets": "all"}, "offsets='all' is not known"),
    ({"offsets": "stored"}, "no offsets are stored"),
    ({"validation_fraction": 0}, "no validation entries to choose settings by"),
]


@pytest.mark.parametrize(("parameters", "message"), REFUSED, ids=lambda x: str(x)[:40])
def test_parameters_out_of_range_are_refused(values: Any, parameters: Any, message: str) -> None:
    """One sentence names the parameter, its value and what is allowed."""
    with pytest.raises(InputError, match=message):
        LinRFM(**parameters).fit(oracles.as_sparse(values))


@pytest.mark.parametrize("factor", [1e200, 1e-200])
def test_values_whose_squares_leave_float64_are_refused(values: Any, factor: float) -> None:
    """Values of 1e200 or 1e-200 are told to be rescaled instead of giving infinities or nothing."""
    with pytest.raises(InputError, match="cannot be squared; rescale them"):
        LinRFM().fit(oracles.as_sparse(values * factor))


@pytest.mark.parametrize("kind", [{}, *KINDS], ids=str)
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_values_that_are_all_the_same(rng: np.random.Generator, value: float, kind: dict[str, Any]) -> None:
    """Offsets explain a constant, nothing is left to the features: it is completed with that constant."""
    values = np.where(rng.random((30, 20)) < 0.4, value, np.nan)
    with pytest.warns(UserWarning, match=f"values are {value:g}, so that there is nothing to learn"):
        model = LinRFM(**kind).fit(oracles.as_sparse(values))
    assert np.array_equal(model.completion_.predict_block().compute(), np.full((30, 20), value))


def test_nothing_to_fit_is_refused() -> None:
    """Without any training entry the fit says so."""
    with pytest.raises(InputError, match="there are no training entries to fit"):
        LinRFM().fit(sp.coo_array((3, 4)))


def test_rank_loss_without_ridge_is_told() -> None:
    """ridge=0 and features that lost a column: the row and the way out are told, the iterate before it stands."""
    values = np.array([[1.0, 0.0, 2.0], [2.0, 0.0, 1.0]])
    with pytest.warns(UserWarning, match="ended after 1 iterations: row code 0: its 3 × 3 system is not positive"):
        found = completed(values, ridge=0)
    assert np.allclose(found, values)


def test_features_that_overflow_are_told() -> None:
    """An absurd replacement weight ends the fit with a sentence, not with NaN predictions."""
    values = np.random.default_rng(0).normal(size=(20, 10))
    values[:, 3] = np.nan
    with pytest.raises(InputError, match="the features left the dtype's range"):
        completed(values, ridge=0.3, replacement=1e30, max_iter=8, dtype="float32")


def test_the_path_ends_where_the_dtype_does() -> None:
    """ridge="auto" meets the same rank loss: the best iterate before it stands, no error is raised."""
    values = np.array([[1.0, 0.0, 2.0], [2.0, 0.0, 1.0]] * 20)
    model = LinRFM(offsets=None, power=3).fit(oracles.as_sparse(values))
    assert np.isfinite(model.completion_.predict_block().compute()).all()
