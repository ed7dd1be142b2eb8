"""`Completion`: the same numbers one by one, by blocks, folded in, and after saving and opening."""

from __future__ import annotations

import multiprocessing
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import faults
import numpy as np
import oracles
import pytest
import scipy.sparse as sp

from rfmdist.completion import Completion
from rfmdist.errors import InputError, StoreError
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.blocks import FITTED_ROLES, Role
from rfmdist.observations.offsets import fit_offsets
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations
from rfmdist.preparing import INTERCEPT_SHRINKAGE

ROWS = [f"user {i:03d}" for i in range(70)]
COLUMNS = [7 * j + 1000 for j in range(50)]


@pytest.fixture(scope="module")
def values() -> Any:
    """Give a matrix of 70 x 50 with unobserved entries."""
    return oracles.sparse_problem(np.random.default_rng(5), 70, 50, density=0.3)


def complete(values: Any, **parameters: Any) -> Completion:
    """Fit a few iterations with fixed settings on observations with a stored split."""
    observations = Observations.from_scipy(oracles.as_sparse(values), row_ids=ROWS, column_ids=COLUMNS)
    split(observations, test=0.2)
    return (
        LinRFM(**{"ridge": 0.1, "replacement": 1, "max_iter": 4, "dtype": "float64", "rank": 16, **parameters})
        .fit(observations)
        .completion_
    )


KINDS = [("dense", "columns"), ("factored", "columns"), ("factored", "both")]
"""How features are kept and which sides take turns."""
ROUNDING = 1e-15
"""Of whole rows: BLAS sums a row's products in an order that depends, on some processors, on the rows beside it."""
BARE = {"indicators": 0, "ridge_by_count": 0, "row_scale": 0, "side_weight": 0}
"""No additions to plain features; test_augmented.py has those."""


@pytest.fixture(scope="module", params=[(*kind, offsets) for kind in KINDS for offsets in ("both", None)], ids=str)
def completion(request: pytest.FixtureRequest, values: Any) -> Completion:
    """Give a completion of each kind with offsets and one without."""
    features, sides, offsets = request.param
    return complete(values, features=features, sides=sides, offsets=offsets)


def arrays(completion: Completion) -> dict[str, Any]:
    """Give the arrays of the features by their place in a store."""
    features = completion.features
    if isinstance(features, DenseFeatures):
        return {"varp/features": features.matrix}
    assert isinstance(features, FactoredFeatures)
    return {"varm/features": features.factor, "varm/offsets": features.offsets[:, None]}


def fitted_entries(completion: Completion) -> Any:
    """Give the entries that the rows were solved from."""
    return completion.observations.to_scipy(FITTED_ROLES).tocoo()


def everything(completion: Completion) -> Any:
    """Give all predictions."""
    return completion.predict_block().compute()


# ---- predictions --------------------------------------------------------------------------------------------


def test_ids_and_codes_name_the_same_entries(completion: Completion, rng: np.random.Generator) -> None:
    """Predictions by id equal those by code, in any order and with repeats."""
    i, j = rng.integers(0, 70, 400), rng.integers(0, 50, 400)
    by_code = completion.predict(i, j, codes=True)
    by_id = completion.predict(np.array(ROWS)[i], np.array(COLUMNS)[j])
    assert np.array_equal(by_code, by_id)
    assert oracles.distance(by_code, everything(completion)[i, j]) < 1e-13


def test_dense_predictions_are_the_oracle_s(values: Any) -> None:
    """Without offsets an entry is unit times the dual oracle's, with the features at hand."""
    completion = complete(values, offsets=None, features="dense")
    seen = np.full(values.shape, np.nan)
    seen[fitted_entries(completion).coords] = fitted_entries(completion).data / completion.targets.unit
    features = completion.features.unit * completion.features.matrix
    expected = completion.targets.unit * oracles.dual_estimate(seen, features, completion.step.ridge)
    assert oracles.distance(everything(completion), expected) < 1e-11


@pytest.mark.parametrize("sides", ["columns", "both"])
@pytest.mark.parametrize("offsets", ["both", "columns", None])
def test_factored_predictions_are_the_joint_least_squares(values: Any, sides: str, offsets: Any) -> None:
    """A row is mean + unit (intercept + offset + U b), with b and the intercept penalised least squares at once."""
    completion = complete(values, features="factored", rank=6, sides=sides, offsets=offsets, **BARE)
    features, targets, fitted = completion.features, completion.targets, fitted_entries(completion).tocsr()
    delta, pull = completion.step.ridge + features.floor, features.shrinkage[0]
    assert pull == (INTERCEPT_SHRINKAGE if offsets == "both" else np.inf)
    expected = np.empty(values.shape)
    for i in range(len(values)):
        observed = fitted.indices[fitted.indptr[i] : fitted.indptr[i + 1]]
        y = (fitted.data[fitted.indptr[i] : fitted.indptr[i + 1]] - targets.offsets.at(i, observed)) / targets.unit
        design = np.column_stack([features.factor, np.full(len(features.factor), float(pull < np.inf))])
        penalty = np.diag([delta] * features.rank + [pull if pull < np.inf else 1.0])
        right = design[observed].T @ (y - features.offsets[observed])
        solved = np.linalg.solve(design[observed].T @ design[observed] + penalty, right)
        standard = design @ solved + features.offsets
        expected[i] = targets.offsets.at(i, np.arange(values.shape[1])) + targets.unit * standard
    assert oracles.distance(everything(completion), expected) < 1e-11


def test_predictions_broadcast(completion: Completion) -> None:
    """A column of rows and a row of columns give a table, two scalars a scalar, nothing gives nothing."""
    table = completion.predict(np.array(ROWS[:3])[:, None], COLUMNS[:4])
    assert table.shape == (3, 4)
    assert table[2, 1] == completion.predict(ROWS[2], COLUMNS[1])
    assert np.shape(completion.predict(ROWS[2], COLUMNS[1])) == ()
    assert completion.predict([], []).shape == (0,)


def test_blocks_are_parts_of_the_whole(completion: Completion) -> None:
    """Any range of rows is computed alone and gives those rows; a range beyond the end is cut."""
    whole = everything(completion)
    assert whole.shape == (70, 50)
    assert oracles.distance(completion.predict_block(13, 31).compute(), whole[13:31]) < ROUNDING
    assert oracles.distance(completion.predict_block(60, 1000).compute(), whole[60:]) < ROUNDING
    assert completion.predict_block(5, 5).shape == (0, 50)


def test_a_block_is_lazy(completion: Completion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read or solved until numbers are asked for."""
    monkeypatch.setattr(type(completion.targets), "read", lambda *_: pytest.fail("read too early"))
    assert completion.predict_block(0, 9).shape == (9, 50)


@pytest.mark.parametrize(("rows", "columns", "what"), [
    (["user 000", "nobody"], [1000, 1000], "row id nobody was not seen in fitting (70 rows were); leave it out"),
    (["user 000"], [1001], "column id 1001 was not seen in fitting (50 columns were); leave it out"),
    (["user 000"], [-1], "column id -1 was not seen"),
    (["user 000"], ["text"], "column id text was not seen"),
    (["a", "a", "b"], [1000, 7, 7], "2 row ids (a, b) and column id 7 were not seen in fitting (70 rows and 50 c"),
    ("user 000", range(9), "9 column ids (0, 1, 2, ...) were not seen in fitting (50 columns were); leave them out"),
])  # fmt: skip
def test_unknown_ids_are_told_at_once(completion: Completion, rows: Any, columns: Any, what: str) -> None:
    """Where they are an error, one sentence tells how many there are, the first few and how many are known."""
    with pytest.raises(InputError, match=re.escape(what)):
        completion.predict(rows, columns, unknown="error")


@pytest.mark.parametrize(
    ("row", "column", "what"),
    [
        (-1, 0, "row code -1"),
        (70, 0, "row code 70"),
        (0, 50, "column code 50"),
        (0, 2**62, f"column code {2**62}"),
    ],
)
def test_codes_out_of_range_are_refused(completion: Completion, row: Any, column: Any, what: str) -> None:
    """Negative and huge codes are told, and never count from the end."""
    with pytest.raises(InputError, match=what):
        completion.predict([0, row], [0, column], codes=True)


@pytest.mark.parametrize("codes", [[2**70], [1.7], [np.nan], ["a"], [True]], ids=str)
def test_codes_that_are_no_whole_numbers_are_refused(completion: Completion, codes: Any) -> None:
    """Nothing is rounded or truncated to a code."""
    with pytest.raises(InputError, match="row codes must be whole numbers below 70"):
        completion.predict(codes, [0], codes=True)


@pytest.mark.parametrize("column", [2**70, 1000.5, float("nan")], ids=str)
def test_ids_that_are_only_near_a_known_one_are_unknown(completion: Completion, column: Any) -> None:
    """Integer ids match exactly or not at all."""
    assert completion.is_cold("user 000", [1000, column]).tolist() == [False, True]
    with pytest.raises(InputError, match=r"column id .* was not seen"):
        completion.predict(["user 000"], [column], unknown="error")


def test_a_range_outside_the_rows_is_refused(completion: Completion) -> None:
    """A block never counts rows from the end."""
    with pytest.raises(InputError, match="rows -5 to 70 are not a range within 0 to 70"):
        completion.predict_block(-5)


@pytest.mark.parametrize("ends", [(0.5, None), (0, 0.5), (float("nan"), None), (0, float("inf")), ("0", 3), ([0], 3)])
def test_a_range_of_no_whole_numbers_is_refused(completion: Completion, ends: Any) -> None:
    """A block of half a row is none, nor is one of what is no number."""
    with pytest.raises(InputError, match=r"start=.* and stop=.* must be codes of rows: whole numbers"):
        completion.predict_block(*ends)


@pytest.mark.parametrize("ends", [(np.int32(3), np.uint8(9)), (3.0, np.float64(9)), (3, 10**400)], ids=str)
def test_a_range_may_be_of_any_whole_numbers(completion: Completion, ends: Any) -> None:
    """NumPy's numbers and floats that are whole stand for themselves."""
    assert completion.predict_block(*ends).shape == (6 if ends[1] == 9 else 67, 50)


RAGGED = [[["user 000"], ["user 001", "user 002"]], np.array([[1], [1, 2]], object), [np.zeros(2), np.zeros(3)]]


@pytest.mark.parametrize("ragged", RAGGED, ids=["lists", "objects", "arrays"])
@pytest.mark.parametrize("codes", [False, True])
def test_lists_of_different_lengths_are_refused(completion: Completion, ragged: Any, codes: bool) -> None:
    """No entry stands where a list does."""
    with pytest.raises(InputError, match="rows are lists of different lengths: give one row for each entry"):
        completion.predict(ragged, 0, codes=codes)
    with pytest.raises(InputError, match="columns are lists of different lengths"):
        completion.predict(0, ragged, codes=codes)
    with pytest.raises(InputError, match=r"must be of one length|lists of different lengths"):
        completion.score(ragged, ragged, [1.0, 2.0], codes=codes)


CALLS: dict[str, Callable[[Completion, Path], Any]] = {
    "predict": lambda completion, _: completion.predict(0, 0),
    "predict_block": lambda completion, _: completion.predict_block(),
    "score": lambda completion, _: completion.score(),
    "score entries": lambda completion, _: completion.score([0], [0], [1.0]),
    "recommend": lambda completion, _: completion.recommend([0]),
    "save": lambda completion, place: completion.save(place),
}


@pytest.mark.parametrize("first", [None, 1], ids=["never split", "split"])
def test_another_split_than_the_fit_s_is_refused(values: Any, tmp_path: Path, first: int | None) -> None:
    """Entries for test may then be fitted ones: nothing is predicted, scored or saved with them."""
    model = LinRFM(ridge=0.1, replacement=1, max_iter=2, rank=3, features="factored")
    store = Observations.from_scipy(oracles.as_sparse(values), tmp_path / "s")
    if first is not None:
        split(store, test=0.2, seed=first)
    completion = model.fit(store).completion_
    if first is not None:
        split(Observations.open(tmp_path / "s"), test=0.2, seed=first)  # the same once more
    completion.predict(0, 0)
    split(Observations.open(tmp_path / "s"), test=0.3, seed=2)
    for call in CALLS.values():
        with pytest.raises(InputError, match="was split anew after this fit; fit again, or save"):
            call(completion, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    assert model.fit(store).completion_.score().count


def test_what_is_read_after_another_split_is_refused(values: Any, tmp_path: Path) -> None:
    """Blocks that are lazy and recommendations that are not all read yet do not mix two splits."""
    store = Observations.from_scipy(oracles.as_sparse(values), tmp_path / "s")
    completion = LinRFM(ridge=0.1, replacement=1, max_iter=2, rank=3).fit(store).completion_
    block, tables = completion.predict_block(), completion.recommendations()
    split(Observations.open(tmp_path / "s"), test=0.3, seed=2)
    with pytest.raises(InputError, match="was split anew after this fit"):
        block.compute()
    with pytest.raises(InputError, match="was split anew after this fit"):
        list(tables)


@pytest.mark.parametrize("observed", [None, [1.0], [1.0, np.nan], ["a", "b"]], ids=str)
def test_scores_need_a_finite_value_for_each_pair(completion: Completion, observed: Any) -> None:
    """One value is not spread over two pairs, and none is not NaN."""
    with pytest.raises(InputError, match="must be of one length, and the values finite numbers"):
        completion.score([0, 1], [0, 1], observed, codes=True)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shrinkage", [0.0, 5.0, 20.0])
def test_new_rows_get_the_stored_offsets_shrinkage(rng: np.random.Generator, shrinkage: float, kind: Any) -> None:
    """With stored offsets too, a folded-in row has the numbers that it has among the fitted ones."""
    mask = rng.random((40, 30)) < 0.4
    observations = Observations.from_scipy(sp.coo_array((10 + 3 * rng.normal(size=mask.sum()), np.nonzero(mask))))
    observations.store_offsets(fit_offsets(observations, shrinkage=shrinkage))
    fixed = {"ridge": 0.3, "replacement": 1, "max_iter": 3, "validation_fraction": 0}
    model = LinRFM(offsets="stored", features=kind[0], sides=kind[1], **fixed).fit(observations)
    folded = model.completion_.fold_in(observations.to_scipy()[5:15])
    wanted = model.completion_.predict_block(5, 15).compute()
    assert np.allclose(folded.predict_block().compute(), wanted, rtol=1e-6)


def test_roles_follow_reordered_columns(completion: Completion) -> None:
    """Rows folded in with their columns in another order keep their test entries."""
    rows = completion.observations
    scored = completion.fold_in(rows).score().count
    coo, reverse = rows.to_scipy().tocoo(), rows.shape[1] - 1
    matrix = sp.coo_array((coo.data, (coo.row, reverse - coo.col)), rows.shape)
    turned = Observations.from_scipy(matrix, row_ids=rows.row_ids, column_ids=rows.column_ids[::-1])
    turned.store_split([rows.roles(rows.row_block(0, rows.shape[0]))[np.lexsort((reverse - coo.col, coo.row))]])
    assert completion.fold_in(turned).score().count == scored > 0


def test_a_completion_never_replaces_its_observations(completion: Completion, tmp_path: Path) -> None:
    """Saving over a store of observations is refused even when overwriting is allowed."""
    Observations.from_scipy(sp.coo_array(np.eye(3)), tmp_path / "data")
    with pytest.raises(InputError, match="holds observations; name another place"):
        completion.save(tmp_path / "data", overwrite=True)
    assert Observations.open(tmp_path / "data").nnz == 3


def _predict_in_child(completion: Completion, out: Any) -> None:
    out.put(completion.predict([0], [0], codes=True))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_predicts(completion: Completion) -> None:
    """A child forked after a prediction does not wait for a thread that it has not."""
    wanted = completion.predict([0], [0], codes=True)
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    child = context.Process(target=_predict_in_child, args=(completion, out))
    child.start()
    try:
        assert np.array_equal(out.get(timeout=60), wanted)
    finally:
        child.kill()
        child.join()


def test_score_of_the_test_split_is_the_score_by_ids(completion: Completion) -> None:
    """The stored test entries score as the same entries do that are given by id, and as NumPy does."""
    test = completion.observations.to_scipy(Role.TEST).tocoo()
    stored = completion.score()
    given = completion.score(np.array(ROWS)[test.row], np.array(COLUMNS)[test.col], test.data)
    errors = everything(completion)[test.row, test.col] - test.data
    assert stored.count == given.count == test.nnz > 100
    assert stored.rmse == pytest.approx(given.rmse, rel=1e-13)
    assert stored.rmse == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-12)
    assert stored.mae == pytest.approx(np.mean(np.abs(errors)), rel=1e-12)


def test_scores_of_a_table_are_those_of_its_entries(completion: Completion, rng: np.random.Generator) -> None:
    """Entries in two dimensions, and a single one in none, are counted one by one."""
    i, j, values = rng.integers(0, 70, (6, 5)), rng.integers(0, 50, (6, 5)), rng.normal(size=(6, 5))
    table = completion.score(i, j, values, codes=True)
    line = completion.score(i.ravel(), j.ravel(), values.ravel(), codes=True)
    assert table.count == line.count == 30
    assert (table.rmse, table.mae) == (line.rmse, line.mae)
    assert completion.score(i[0, 0], j[0, 0], values[0, 0], codes=True).count == 1


def test_scoring_nothing_is_refused(values: Any) -> None:
    """Without a stored test split the way out is told."""
    fitted = LinRFM(ridge=0.1, replacement=1, max_iter=1).fit(oracles.as_sparse(values)).completion_
    with pytest.raises(InputError, match="no test entries are stored"):
        fitted.score()


def test_ratings_are_clipped_and_other_values_are_not(rng: np.random.Generator) -> None:
    """Values whose ends are met again and again hold predictions within them; clip=None and continuous ones do not."""
    stars = np.where(rng.random((60, 40)) < 0.3, rng.choice([1.0, 5.0], (60, 40)), np.nan)
    fixed = {"ridge": 1e-3, "replacement": 1, "max_iter": 2, "validation_fraction": 0}
    held, free, narrow, continuous = (
        everything(LinRFM(**fixed, clip=clip).fit(oracles.as_sparse(v)).completion_)
        for v, clip in ((stars, "auto"), (stars, None), (stars, (2, 4)), (stars + rng.normal(size=(60, 40)), "auto"))
    )
    assert (held.min(), held.max()) == (1, 5)
    assert free.min() < 1
    assert free.max() > 5
    assert np.array_equal(held, np.clip(free, 1, 5))
    assert (narrow.min(), narrow.max()) == (2, 4)
    assert len(np.unique(continuous)) == continuous.size


# ---- new rows -----------------------------------------------------------------------------------------------


def test_folded_rows_are_the_fitted_rows(completion: Completion) -> None:
    """Rows with the same entries get the same bits as among the fitted ones, in any order, and no refit."""
    order, columns = np.array([3, 60, 0, 1, 17]), np.arange(50)
    folded = completion.fold_in(fitted_entries(completion).tocsr()[order])
    predicted = folded.predict(np.arange(5)[:, None], columns, codes=True)
    assert np.array_equal(predicted, completion.predict(order[:, None], columns, codes=True))
    assert oracles.distance(everything(folded), everything(completion)[order]) < ROUNDING
    assert folded.features is completion.features


def test_folded_columns_are_matched_by_id(completion: Completion, rng: np.random.Generator) -> None:
    """Observations with their columns in another order, and some missing, fold in by id; row ids are theirs."""
    matrix = fitted_entries(completion).tocsr()[:4].tocsc()
    present = np.flatnonzero(np.diff(matrix.indptr))
    order = rng.permutation(present)
    new = Observations.from_scipy(matrix[:, order], row_ids=["a", "b", "c", "d"], column_ids=np.array(COLUMNS)[order])
    folded = completion.fold_in(new)
    assert oracles.distance(everything(folded), everything(completion)[:4]) < ROUNDING
    assert np.array_equal(folded.predict("c", COLUMNS), completion.predict(ROWS[2], COLUMNS))


def test_folding_in_refuses_strange_columns(completion: Completion) -> None:
    """An unknown column id, and a matrix of another width, are told."""
    new = Observations.from_scipy(sp.coo_array(np.ones((2, 2))), column_ids=[1000, 5])
    with pytest.raises(InputError, match="column id 5 was not seen in fitting"):
        completion.fold_in(new, unknown="error")
    with pytest.raises(InputError, match="the new rows have 3 columns, the completion has 50"):
        completion.fold_in(sp.coo_array(np.ones((2, 3))))


@pytest.mark.parametrize(("value", "dtype"), [(1e300, "float32"), (-1e300, "float64"), (1e25, "float32")])
@pytest.mark.parametrize(("kind", "scale"), [*((kind, 0.0) for kind in KINDS), (KINDS[-1], 0.5)], ids=str)
def test_values_that_overflow_are_not_folded_in(values: Any, kind: Any, scale: float, value: float, dtype: str) -> None:
    """What the fit's dtype cannot hold in the fitted values' unit is told by id; beside it all would become NaN."""
    completion = complete(values, features=kind[0], sides=kind[1], dtype=dtype, **{**BARE, "row_scale": scale})
    new = Observations.from_scipy(sp.coo_array(([1.0, value], ([0, 1], [4, 7])), (2, 50)), column_ids=COLUMNS)
    told = f"row id 1, column id {COLUMNS[7]}: the value {value:g} is too far from those fitted"
    with pytest.raises(InputError, match=re.escape(told)):
        completion.fold_in(new)
    near = sp.coo_array(([1.0, 1e12], ([0, 1], [4, 7])), (2, 50))
    assert np.isfinite(everything(completion.fold_in(near))).all()


def test_a_new_row_without_entries_is_its_offsets(completion: Completion) -> None:
    """Nothing observed: the mean and the columns' offsets are all there is to say."""
    folded = completion.fold_in(sp.coo_array((1, 50)))
    offsets, own = completion.targets.offsets, 0.0
    if isinstance(completion.features, FactoredFeatures):
        own = completion.targets.unit * completion.features.offsets
    assert np.allclose(everything(folded)[0], offsets.mean + offsets.columns + own, rtol=0, atol=1e-14)


# ---- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offsets", ["both", None])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_saved_is_opened_the_same(values: Any, tmp_path: Path, dtype: str, offsets: Any, kind: Any) -> None:
    """After saving and opening, predictions, scores, folded rows and rankings are the same bits."""
    before = complete(values, dtype=dtype, offsets=offsets, power=1.5, features=kind[0], sides=kind[1])
    before.save(tmp_path / "c.zarr")
    after = Completion.open(tmp_path / "c.zarr")
    assert np.array_equal(everything(before), everything(after))
    assert np.array_equal(before.predict(ROWS, COLUMNS[0]), after.predict(ROWS, COLUMNS[0]))
    assert before.score().rmse == after.score().rmse
    assert before.recommend(ROWS[5:9]).equals(after.recommend(ROWS[5:9]))
    assert before.similar(COLUMNS).equals(after.similar(COLUMNS))
    folded = fitted_entries(before).tocsr()[:5]
    assert np.array_equal(everything(before.fold_in(folded)), everything(after.fold_in(folded)))


@pytest.mark.parametrize("features", ["dense", "factored"])
@pytest.mark.parametrize("refit", [True, False])
def test_held_out_entries_stay_held_out(values: Any, tmp_path: Path, refit: bool, features: str) -> None:
    """Entries that a fit held out by itself are saved as such, so that an opened completion solves the same rows."""
    model = LinRFM(features=features, ridge=0.1, replacement=1, max_iter=3, refit=refit).fit(oracles.as_sparse(values))
    model.completion_.save(tmp_path / "c.zarr")
    assert np.array_equal(everything(model.completion_), everything(Completion.open(tmp_path / "c.zarr")))


@pytest.mark.filterwarnings("ignore:Transforming to str index")
def test_anndata_opens_a_saved_completion(completion: Completion, tmp_path: Path) -> None:
    """AnnData reads the observations and finds P in varp, or U and the columns' offsets in varm."""
    completion.save(tmp_path / "c.zarr")
    opened = anndata.read_zarr(tmp_path / "c.zarr")
    for place, array in arrays(completion).items():
        part, _, name = place.partition("/")
        assert np.array_equal(getattr(opened, part)[name], array)
    assert (completion.observations.to_scipy() != opened.X).nnz == 0
    assert list(opened.obs_names) == ROWS


def test_saving_keeps_what_is_there(completion: Completion, tmp_path: Path) -> None:
    """An existing path is refused and left as it was, unless it may be overwritten."""
    completion.save(tmp_path / "c.zarr")
    before = faults.snapshot(tmp_path)
    with pytest.raises(InputError, match="exists"):
        completion.save(tmp_path / "c.zarr")
    assert faults.snapshot(tmp_path) == before
    completion.save(tmp_path / "c.zarr", overwrite=True)
    assert np.array_equal(everything(Completion.open(tmp_path / "c.zarr")), everything(completion))


def test_torn_features_are_refused(completion: Completion, tmp_path: Path) -> None:
    """A lost chunk of the features, a flipped bit in it, and none at all each give one sentence with the way out."""
    path = tmp_path / "c.zarr"
    completion.save(path)
    for place in arrays(completion):
        (chunk,) = faults.shards(path, place)
        whole = chunk.read_bytes()
        faults.flip_byte(chunk)
        with pytest.raises(StoreError, match=f"{place} is damaged"):
            Completion.open(path)
        chunk.unlink()
        with pytest.raises(StoreError, match=f"a part of {place} is missing; restore it"):
            Completion.open(path)
        chunk.write_bytes(whole)
    Completion.open(path)
    for place in arrays(completion):
        shutil.move(path / place, tmp_path / "away")
        with pytest.raises(StoreError, match=f"{place} is gone"):
            Completion.open(path)
        shutil.move(tmp_path / "away", path / place)


def test_observations_are_no_completion(values: Any, tmp_path: Path) -> None:
    """A store of observations is told apart, and where to get a completion."""
    Observations.from_scipy(oracles.as_sparse(values), tmp_path / "o.zarr")
    with pytest.raises(StoreError, match="holds observations, not a completion; make one with 'rfmdist fit'"):
        Completion.open(tmp_path / "o.zarr")


def test_a_full_disk_leaves_nothing(completion: Completion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fills while the features are written, the path stays free and the sentence says so."""
    refused = faults.fill_disk_at(monkeypatch, next(iter(arrays(completion))))
    with pytest.raises(StoreError, match="the disk is full"):
        completion.save(tmp_path / "c.zarr")
    assert refused
    assert not (tmp_path / "c.zarr").exists()
