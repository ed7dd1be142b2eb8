"""`LinRFM`: the whole fit equals the oracle, bends to symmetries, recovers low rank and never sees test entries."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from rfmdist.errors import InputError
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.blocks import FITTED_ROLES, Role
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations
from rfmdist.progress import Iteration

PLAIN = {"offsets": None, "dtype": "float64", "clip": None, "tol": 0.0}
FIXED = {**PLAIN, "ridge": 0.1, "replacement": 1, "validation_fraction": 0}


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
    found = LinRFM(**{**FIXED, "max_iter": 4, **parameters}).fit(oracles.as_sparse(matrix)).completion_.features
    return found.unit * found.matrix


# ---- the numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1, 1.5])
@pytest.mark.parametrize("replacement", [0, 1, 5])
def test_every_iterate_is_the_oracle_s(values: Any, alpha: float, replacement: float) -> None:
    """Callbacks see the oracle's Z at each iteration, of the values divided by their root mean square."""
    seen: list[Any] = []

    def keep(iteration: Iteration) -> None:
        assert iteration.completion is not None
        seen.append(iteration.completion.predict_block().compute())

    completed(values, power=alpha, replacement=replacement, max_iter=5, callbacks=[keep])
    unit = np.sqrt(np.nanmean(values**2))
    expected = oracles.dual_iterates(values / unit, alpha, 0.1, replacement)
    assert len(seen) == 5
    for found, (estimate, _) in zip(seen, expected, strict=False):
        assert oracles.distance(found, unit * estimate) < 1e-8


@pytest.mark.parametrize("scale", [1e-6, -3.0, 1e6])
def test_scaled_values_give_a_scaled_completion(values: Any, scale: float) -> None:
    """Fitting c Y gives c Z, at power 3/2 as well: the ridge has no unit."""
    found = completed(scale * values, power=1.5)
    assert oracles.distance(found, scale * completed(values, power=1.5)) < 1e-8


def test_permuted_rows_and_columns_permute_the_completion(values: Any, rng: np.random.Generator) -> None:
    """Names and order of rows and columns mean nothing."""
    rows, columns = rng.permutation(70), rng.permutation(60)
    assert oracles.distance(completed(values[rows][:, columns]), completed(values)[rows][:, columns]) < 1e-10


def test_every_row_twice_keeps_the_features(values: Any) -> None:
    """P is an average over rows: twice the same rows give the same P and the same rows, twice."""
    twice = np.vstack([values, values])
    assert oracles.distance(features(twice), features(values)) < 1e-10
    assert oracles.distance(completed(twice), np.vstack([completed(values)] * 2)) < 1e-10


def test_float32_is_near_float64(values: Any) -> None:
    """Half the digits give the completion to six of them."""
    assert 0 < oracles.distance(completed(values, dtype="float32"), completed(values)) < 1e-5


def test_fits_repeat(values: Any) -> None:
    """The same call gives the same bits, another seed other held-out entries."""
    found = [completed(values, validation_fraction=0.2, refit=False, random_state=s) for s in (1, 1, 2)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def recovery_error(d: int, rank: int, count: int, seed: int) -> float:
    """Give the mean squared error of the unobserved entries, relative to theirs, after at most 150 iterations."""
    rng = np.random.default_rng(seed)
    full = rng.normal(size=(d, rank)) @ rng.normal(size=(rank, d))
    full /= np.sqrt(np.mean(full**2))
    seen = np.zeros(d * d, bool)
    seen[rng.choice(d * d, count, replace=False)] = True
    seen = seen.reshape(d, d)
    model = LinRFM(offsets=None, dtype="float64", max_iter=150)
    found = model.fit(oracles.as_sparse(np.where(seen, full, np.nan))).completion_.predict_block().compute()
    return float(np.mean((found - full)[~seen] ** 2))


def test_recovers_low_rank() -> None:
    """Rank 3 of 200 x 200 from 4,800 entries: the unobserved ones to 1e-3 within 150 iterations, by defaults."""
    assert recovery_error(200, 3, 4_800, 0) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_recovers_the_benchmark(seed: int) -> None:
    """Rank 5 of 500 x 500 from 10,000 entries: the unobserved ones to 1e-3 within 150 iterations."""
    assert recovery_error(500, 5, 10_000, seed) < 1e-3


# ---- the course of a fit ------------------------------------------------------------------------------------


def test_the_best_iterate_is_kept_and_refitted(noisy: Any) -> None:
    """Early stopping keeps the least validation error; the refit repeats its schedule on all but test entries."""
    model = LinRFM(offsets=None, replacement=1, max_iter=60).fit(oracles.as_sparse(noisy))
    fitted, refitted = ([h for h in model.history_ if h.stage == stage] for stage in ("fit", "refit"))
    best = int(np.argmin([h.validation_rmse for h in fitted]))
    assert 0 < best < len(fitted) - 1 < 59
    assert model.n_iter_ == len(refitted) == best + 1
    assert [h.ridge for h in refitted] == [h.ridge for h in fitted[: best + 1]]
    assert model.ridge_ == fitted[best].ridge
    assert all(np.isnan(h.validation_rmse) for h in refitted)
    assert model.completion_.targets.fitted == FITTED_ROLES
    assert all(h.completion is None for h in model.history_)


def test_the_weight_of_least_validation_error_is_chosen(noisy: Any) -> None:
    """replacement="auto" tries several weights and goes on with the one that did best."""
    model = LinRFM(offsets=None, max_iter=60).fit(oracles.as_sparse(noisy))
    weights = {h.replacement for h in model.history_}
    least = {
        w: min(h.validation_rmse for h in model.history_ if h.replacement == w and h.stage != "refit") for w in weights
    }
    assert weights > {1.0}
    assert model.replacement_ == min(weights, key=lambda w: least[w])
    assert {h.replacement for h in model.history_ if h.stage == "refit"} == {model.replacement_}


def test_without_refit_the_best_iterate_is_the_result(noisy: Any) -> None:
    """refit=False: the completion has the least validation error of the history, on training entries alone."""
    model = LinRFM(offsets=None, replacement=1, max_iter=60, refit=False).fit(oracles.as_sparse(noisy))
    fitted = [h.validation_rmse for h in model.history_ if h.stage == "fit"]
    assert model.history_[-1].stage == "fit"
    assert model.n_iter_ == int(np.argmin(fitted)) + 1
    assert model.completion_.targets.fitted == {Role.TRAIN}
    assert model.completion_.score_role(Role.VALIDATION).rmse == pytest.approx(min(fitted), rel=1e-6)


def test_refit_is_a_fit_on_all_but_test_entries(values: Any) -> None:
    """The refitted completion is that of a fit without validation and with as many iterations."""
    model = LinRFM(**{**FIXED, "validation_fraction": 0.2, "tol": 1e-4}, max_iter=20).fit(oracles.as_sparse(values))
    assert np.array_equal(model.completion_.predict_block().compute(), completed(values, max_iter=model.n_iter_))


def test_without_validation_the_change_of_p_stops(values: Any) -> None:
    """With fixed settings and nothing held out, a fit ends when P changes by less than tol, with the last iterate."""
    model = LinRFM(**{**FIXED, "tol": 1e-2}, max_iter=500).fit(oracles.as_sparse(values))
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


def test_test_entries_are_never_used(values: Any) -> None:
    """Other values at the test entries leave the completion, offsets and choices the same bits."""
    found, ratings = [], np.clip(np.round(3 + values), 2, 4)  # with both ends met again and again, for the clip
    for wrong in (0.0, 1e3):
        matrix = oracles.as_sparse(ratings)
        observations = Observations.from_scipy(matrix)
        split(observations, test=0.3)
        matrix.data = matrix.data + wrong * (observations.roles(observations.row_block(0, len(ratings))) == Role.TEST)
        observations = Observations.from_scipy(matrix)
        split(observations, test=0.3)
        model = LinRFM(max_iter=10).fit(observations)
        found.append((model.completion_.predict_block().compute(), model.replacement_, model.n_iter_))
    assert np.array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


def test_verbose_prints_a_line_an_iteration(values: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """verbose=1 tells stage, ridge and error on standard error, nothing on standard output."""
    LinRFM(**{**FIXED, "validation_fraction": 0.2}, max_iter=2, verbose=1).fit(oracles.as_sparse(values))
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 4
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
    """Greater is better; a scipy matrix is matched by place, Observations by id."""
    model = LinRFM(**FIXED, max_iter=3).fit(oracles.as_sparse(values))
    z = model.completion_.predict_block().compute()
    seen = ~np.isnan(values)
    expected = -np.sqrt(np.mean((z - values)[seen] ** 2))
    assert model.score(oracles.as_sparse(values)) == pytest.approx(expected, rel=1e-12)
    turned = oracles.as_sparse(values[::-1])
    by_id = Observations.from_scipy(turned, row_ids=np.arange(70)[::-1])
    assert model.score(by_id) == pytest.approx(expected, rel=1e-12)


REFUSED = [
    *[({"power": p}, "power=.* must be a positive multiple of 1/2") for p in (0, -0.5, 0.75, "half", np.nan)],
    *[({n: v}, f"{n}=.* must be 'auto' or a number") for n in ("ridge", "replacement") for v in (-1, "all", np.nan)],
    *[({n: v}, f"{n}=.* must be a number of at least 0") for n in ("floor", "tol") for v in (-1, np.inf, None)],
    *[({"validation_fraction": v}, "must be at least 0 and below 1") for v in (-0.1, 1, "some")],
    *[({"max_iter": v}, "max_iter=.* must be a whole number of at least 1") for v in (0, 2.5, "many", True)],
    *[({n: v}, f"{n}=.* must be a whole number") for n in ("random_state", "verbose") for v in (-1, None, "a")],
    *[({"dtype": v}, "dtype=.* must be 'float32' or 'float64'") for v in ("int64", "float16", "real", None)],
    *[
        ({"clip": v}, "clip=.* must be 'auto', None or")
        for v in ((2, 1), "no", (1,), (0, np.nan), np.array([0.0, 1.0]))
    ],
    *[({"callbacks": v}, "callbacks=.* must be a list of functions") for v in (3, ["line"])],
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
