"""`LinRFM` with scikit-learn's own tools: folds of entries, searches, scores, and `check_estimator`."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, train_test_split
from sklearn.utils.estimator_checks import check_estimator

from rfmdist import Completion, EntryKFold, InputError, LinRFM, Observations, split
from rfmdist.observations.draws import Fold
from rfmdist.observations.pairs import from_pairs

KNOWN = {"ridge": 0.3, "replacement": 1, "rank": 4, "max_iter": 3, "validation_fraction": 0}
KNOWN |= dict.fromkeys(("indicators", "ridge_by_count", "row_scale", "side_weight"), 0)
"""Settings that leave nothing to be chosen."""


@pytest.fixture
def matrix(rng: np.random.Generator) -> Any:
    """Give a noisy low-rank matrix of 60 x 40 with two fifths of it observed, some in each row and column."""
    values = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 40)) + 0.3 * rng.normal(size=(60, 40))
    return oracles.as_sparse(np.where(rng.random((60, 40)) < 0.4, values, np.nan)).tocoo()


@pytest.fixture
def store(tmp_path: Any, matrix: Any) -> Observations:
    """Give the matrix as a store with ids of its own and a stored split."""
    rows, columns = [f"user {i}" for i in range(60)], np.arange(40) * 7
    found = Observations.from_scipy(matrix, tmp_path / "store.zarr", row_ids=rows, column_ids=columns)
    split(found, validation=0.1, test=0.1)
    return found


# ---- folds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_column", [False, True])
def test_folds_part_the_entries_that_are_not_for_test(store: Observations, by_column: bool) -> None:
    """Each such entry is in one fold, scored there alone and fitted in all others; test entries are in none."""
    view = store.by_column() if by_column else store
    block = view.row_block(0, view.shape[0])
    stored, times = view.roles(block), np.zeros(len(block.values), int)
    for train, test in EntryKFold(4, 1).split(store):
        fitted, scored = view[train].roles(block), view[test].roles(block)
        times += scored == 2
        assert np.array_equal(fitted == 2, (scored == 2) | (stored == 2))
        assert np.array_equal(fitted[fitted != 2], stored[fitted != 2])
    assert np.array_equal(times, np.where(stored == 2, 0, 1))


def test_folds_say_nothing_of_what_a_fit_holds_out(rng: np.random.Generator) -> None:
    """A tenth of every fold's training entries is held out for validation with the same seed, not all of one fold's."""
    observations = Observations.from_scipy(sp.random_array((300, 200), density=0.3, rng=rng))
    for train, _ in EntryKFold(5, 0).split(observations):
        counts = observations[train].hold_out(0.1, 0).role_counts()
        assert counts["validation"] / (counts["validation"] + counts["train"]) == pytest.approx(0.1, abs=0.015)
        assert counts["test"] / observations.nnz == pytest.approx(0.2, abs=0.02)


def test_pairs_are_in_the_folds_of_the_store(matrix: Any) -> None:
    """Pairs, in any order, are dealt as the entries of Observations of them are."""
    pairs = np.column_stack([matrix.row, matrix.col])[::-1]
    observations = from_pairs(pairs, matrix.data[::-1])
    for (_, held), (train, test) in zip(EntryKFold(3).split(observations), EntryKFold(3).split(pairs), strict=True):
        kept = observations[held].to_scipy("test").tocoo()
        ids = observations.row_ids[kept.row].tolist(), observations.column_ids[kept.col].tolist()
        assert {*map(tuple, pairs[test].tolist())} == {*zip(*ids, strict=True)}
        assert sorted([*train, *test]) == list(range(len(pairs)))


def test_a_completion_of_a_fold_keeps_its_roles(tmp_path: Any, store: Observations) -> None:
    """What was left out of the fit is for test in the saved completion too."""
    train, _ = next(EntryKFold(3).split(store))
    completion = LinRFM(**KNOWN).fit(store[train]).completion_
    completion.save(tmp_path / "completion.zarr")
    again = Completion.open(tmp_path / "completion.zarr")
    assert again.observations.role_counts() == store[train].role_counts()
    assert again.score().rmse == completion.score().rmse


def test_fold_needs_entries() -> None:
    """More folds than there are entries to fill them are refused; so are a scipy matrix and numbers that are none."""
    few = Observations.from_scipy(sp.coo_array(np.eye(2)))
    with pytest.raises(InputError, match="of 50 has no entries"):
        list(EntryKFold(50).split(few))
    with pytest.raises(InputError, match="a scipy matrix can only be cut by rows"):
        next(EntryKFold().split(sp.eye_array(4)))
    with pytest.raises(InputError, match="n_splits=1 must be a whole number of at least 2"):
        EntryKFold(1)


# ---- cross-validation and searches --------------------------------------------------------------------------


def test_cross_val_score_equals_a_loop_by_hand(store: Observations) -> None:
    """Over a store: fit what is not in the fold, predict the fold's entries by id, take the root mean square."""
    found = cross_val_score(LinRFM(**KNOWN), store, cv=EntryKFold(5))
    block = store.row_block(0, store.shape[0])
    stored, by_hand = store.roles(block), []
    rows, columns = store.row_ids[block.rows], store.column_ids[block.indices]
    for number in range(5):
        held = Fold(number, 5, 0).holds(block.rows, block.indices) & (stored != 2)
        fitted = ~held & (stored != 2)
        training = sp.coo_array((block.values[fitted], (block.rows[fitted], block.indices[fitted])), store.shape)
        ids = {"row_ids": store.row_ids, "column_ids": store.column_ids}
        completion = LinRFM(**KNOWN).fit(Observations.from_scipy(training, **ids)).completion_
        error = completion.predict(rows[held], columns[held]) - block.values[held]
        by_hand.append(-np.sqrt(np.mean(error**2)))
    assert found == pytest.approx(by_hand, rel=1e-5)


def test_cross_val_score_of_pairs(matrix: Any) -> None:
    """X of pairs of ids and y of their values: scikit-learn's KFold and scorers work as with any regressor."""
    frame = pd.DataFrame({"user": [f"u{i}" for i in matrix.row], "film": matrix.col})
    for cv in (EntryKFold(3), KFold(3, shuffle=True, random_state=0)):
        own = cross_val_score(LinRFM(**KNOWN), frame, matrix.data, cv=cv)
        theirs = cross_val_score(LinRFM(**KNOWN), frame, matrix.data, cv=cv, scoring="neg_root_mean_squared_error")
        assert own == pytest.approx(theirs, rel=1e-12)
    left, right, y, observed = train_test_split(frame, matrix.data, random_state=0)
    model = LinRFM(**KNOWN).fit(left, y)
    assert model.score(right, observed) == pytest.approx(-np.sqrt(np.mean((model.predict(right) - observed) ** 2)))


def test_grid_search_over_entries(store: Observations) -> None:
    """A search takes the setting of the best mean score, and fits it to all of the store."""
    search = GridSearchCV(LinRFM(**KNOWN), {"ridge": [0.3, 1000.0]}, cv=EntryKFold(3)).fit(store)
    by_hand = [
        cross_val_score(LinRFM(**{**KNOWN, "ridge": ridge}), store, cv=EntryKFold(3)).mean() for ridge in (0.3, 1000.0)
    ]
    assert search.cv_results_["mean_test_score"] == pytest.approx(by_hand)
    assert search.best_params_ == {"ridge": 0.3}
    whole = LinRFM(**KNOWN).fit(store).completion_.predict_block().compute()
    assert np.array_equal(search.best_estimator_.completion_.predict_block().compute(), whole)


def test_folds_go_to_other_processes(store: Observations) -> None:
    """Scores do not depend on how many processes compute them."""
    scores = [cross_val_score(LinRFM(**KNOWN), store, cv=EntryKFold(2), n_jobs=n_jobs) for n_jobs in (1, 2)]
    assert np.array_equal(*scores)


def test_rows_of_a_scipy_matrix_are_folded_in(matrix: Any) -> None:
    """With scikit-learn's KFold rows of a matrix are new ones: scored on a part of each, predicted from the rest."""
    found = cross_val_score(LinRFM(**KNOWN), matrix, cv=KFold(2))
    csr = matrix.tocsr()
    for score, fitted, new in zip(found, (slice(30, 60), slice(0, 30)), (slice(0, 30), slice(30, 60)), strict=True):
        completion = LinRFM(**KNOWN).fit(csr[fitted]).completion_
        rest = csr[new].tocoo()
        held = Fold(0, 5, 0).holds(rest.row, rest.col)
        known = sp.coo_array((rest.data[~held], (rest.row[~held], rest.col[~held])), rest.shape)
        predicted = completion.fold_in(known).predict(rest.row[held], rest.col[held], codes=True)
        assert score == pytest.approx(-np.sqrt(np.mean((predicted - rest.data[held]) ** 2)), rel=1e-5)


def test_rows_of_a_store_are_not_cut(store: Observations) -> None:
    """One sentence names the splitter that works."""
    with pytest.raises(InputError, match="cut into folds of entries, not of rows"):
        cross_val_score(LinRFM(**KNOWN), store, cv=KFold(3))


# ---- pairs --------------------------------------------------------------------------------------------------


def test_pairs_are_the_matrix(matrix: Any) -> None:
    """Pairs, in any order and as whole floats too, give the fit of the scipy matrix, row and column ids sorted."""
    order = np.random.default_rng(1).permutation(matrix.nnz)
    pairs = np.column_stack([matrix.row, matrix.col])[order]
    expected = LinRFM(**KNOWN).fit(matrix).completion_.predict(matrix.row, matrix.col)
    for given in (pairs, pairs.astype(float), pairs.tolist()):
        model = LinRFM(**KNOWN).fit(given, matrix.data[order])
        assert np.array_equal(model.predict(np.column_stack([matrix.row, matrix.col])), expected)


@pytest.mark.parametrize(
    ("pairs", "y", "message"),
    [
        (np.ones((4, 3)), np.ones(4), r"pairs of a row id and a column id, of shape \(entries, 2\), not \(4, 3\)"),
        ([[1, 2], [3, 4]], [1.0], r"one value for each of the 2 pairs of X, not be of \(1,\)"),
        ([[1, 2], [1, 2]], [1.0, 2.0], "row 1, column 2 is given twice"),
        (np.array([["a", "b"], [None, "c"]], object), [1.0, 2.0], "pair 1 lacks its row id"),
        ([[0.5, 1], [2, 3]], [1.0, 2.0], "must be integers or text, not float"),
    ],
)
def test_pairs_that_are_none_are_refused(pairs: Any, y: Any, message: str) -> None:
    """One sentence each."""
    with pytest.raises(InputError, match=message):
        LinRFM(**KNOWN).fit(pairs, y)


# ---- check_estimator ----------------------------------------------------------------------------------------

SOUND = {
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_sparse_tag",
    "check_estimators_unfitted",
    "check_get_params_invariance",
    "check_n_features_in_after_fitting",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
}
"""Checks of scikit-learn's that make sense for a matrix completion: they pass."""
DENSE = {
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_estimators_dtypes",
    "check_estimators_fit_returns_self",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
}
"""Checks that fit a dense matrix of features to a target, which is another problem: X holds observed entries here.

What they ask of that holds for entries is tested below.
"""
FILLED = {"check_estimator_sparse_array", "check_estimator_sparse_matrix"}
"""Checks that also give BSR and DIA matrices with zeros, which do not tell observed zeros from those they fill with."""


def test_scikit_learn_s_checks() -> None:
    """Those that make sense pass; those that give dense features are refused, as they should be, and no other fails."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Estimator LinRFM does not inherit from `sklearn.base.BaseEstimator`")
        results = check_estimator(LinRFM(), on_skip=None, on_fail=None)
    names = {status: {r["check_name"] for r in results if r["status"] == status} for status in ("passed", "failed")}
    assert names["passed"] >= SOUND
    assert names["failed"] <= DENSE | FILLED


def test_fits_repeat_pickle_and_leave_parameters_alone(matrix: Any) -> None:
    """What scikit-learn's checks of dense features ask, asked with entries."""
    model = LinRFM(**KNOWN)
    before = model.get_params()
    assert model.fit(matrix) is model
    first = model.completion_.predict_block().compute()
    assert np.array_equal(model.fit(matrix).completion_.predict_block().compute(), first)
    assert model.get_params() == before
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.completion_.predict_block().compute(), first)
    held = dict(vars(model))
    model.predict([0, 1], [2, 3])
    model.score(Observations.from_scipy(matrix))
    assert vars(model) == held


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok"])
@pytest.mark.parametrize("kind", [sp.coo_array, sp.coo_matrix])
def test_formats_that_tell_what_is_stored_are_one(matrix: Any, form: str, kind: Any) -> None:
    """A fit does not depend on the format of the matrix, nor on whether it is an array of scipy's."""
    given = kind(matrix).asformat(form)
    found = LinRFM(**KNOWN).fit(given).completion_.predict_block().compute()
    assert np.array_equal(found, LinRFM(**KNOWN).fit(matrix).completion_.predict_block().compute())


def test_values_that_are_all_equal_are_told(matrix: Any) -> None:
    """Clicks say nothing by their values: a fit warns, and one that takes values to be exact does not."""
    clicks = sp.coo_array((np.ones(matrix.nnz), (matrix.row, matrix.col)), matrix.shape)
    with pytest.warns(UserWarning, match=f"all {matrix.nnz} values are 1, so that there is nothing to learn from them"):
        LinRFM(**KNOWN).fit(clicks)
