"""What the completion baselines share, and those of given rank: oracles, symmetries, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from rfmdist.baselines import IRLS, AlternatingLeastSquares, MatrixIRLS, MinimumNorm, NuclearNorm
from rfmdist.errors import InputError
from rfmdist.iterating import Iterate

MAKERS: list[Callable[..., Any]] = [
    lambda **more: IRLS(**{"floor": 1e-2, "max_iter": 4, "tol": 0.0, **more}),
    lambda **more: IRLS(**{"p": 1, "ridge": 0.1, "max_iter": 4, "tol": 0.0, **more}),
    lambda **more: NuclearNorm(**{"max_iter": 3, "tol": 0.0, **more}),
    lambda **more: MatrixIRLS(2, **{"max_iter": 4, "tol": 0.0, **more}),
    lambda **more: MinimumNorm(**{"ridge": 0.1, **more}),
    lambda **more: AlternatingLeastSquares(2, **{"ridge": 0.1, "max_iter": 4, "tol": 0.0, **more}),
]
NAMES = ["IRLS p=0", "IRLS p=1", "NuclearNorm", "MatrixIRLS", "MinimumNorm", "ALS"]
every = pytest.mark.parametrize("make", MAKERS, ids=NAMES)
random_start = MAKERS[-1]
seeds = st.integers(0, 2**32 - 1)


def completed(values: Any, model: Any) -> Any:
    """Complete a matrix that is NaN where nothing was observed."""
    return model.fit(oracles.as_sparse(values)).matrix_


def drawn(seed: int, m: int = 14, n: int = 11, rank: int = 2, density: float = 0.6) -> Any:
    """Draw a matrix of low rank and noise, NaN where nothing was observed; row 0 is empty."""
    return oracles.sparse_problem(np.random.default_rng(seed), m, n, rank, density)


# ---- what all share -----------------------------------------------------------------------------------------


@every
@given(seed=seeds)
@settings(max_examples=8, deadline=None)
def test_permuted_rows_and_columns_permute_the_completion(make: Any, seed: int) -> None:
    """Order means nothing; that of columns is left alone where they start at random."""
    rng, values = np.random.default_rng(seed), drawn(seed)
    rows, columns = rng.permutation(14), np.arange(11) if make is random_start else rng.permutation(11)
    found = completed(values[rows][:, columns], make())
    assert oracles.distance(found, completed(values, make())[rows][:, columns]) < 1e-7


@every
@pytest.mark.parametrize("scale", [1e-6, -3.0, 1e6])
def test_scaled_values_give_a_scaled_completion(make: Any, scale: float) -> None:
    """Fitting c Y gives c Z: ridge, floor and tolerances have no unit."""
    values = drawn(0)
    # The sign: a random start is not turned with it, and need not be, for U changes sign instead.
    assert oracles.distance(completed(scale * values, make()), scale * completed(values, make())) < 1e-8


@every
def test_history_callbacks_and_predictions(make: Any) -> None:
    """Callbacks see each estimate, an array of its own, the last is the matrix; entries for a pair are read from it."""
    seen: list[Iterate] = []
    model = make(callbacks=[seen.append]).fit(oracles.as_sparse(drawn(1)))
    assert [it.iteration for it in seen] == list(range(1, model.n_iter_ + 1))
    assert len(model.history_) == model.n_iter_
    assert all(it.estimate is None for it in model.history_)
    assert len({id(it.estimate) for it in seen}) == len(seen)
    assert np.array_equal(seen[-1].estimate, model.matrix_)
    assert all(it.estimate.dtype == np.float64 for it in seen)
    assert np.array_equal(model.predict([0, 3], [5, 2], codes=True), model.matrix_[[0, 3], [5, 2]])
    for rows, codes in ((["nobody"], False), ([-1], True), ([len(model.matrix_)], True)):
        with pytest.raises(InputError, match=r"row (id|code) \S+ was not seen in fitting"):
            model.predict(rows, [0], codes=codes)


@every
def test_a_callback_ends_the_fit(make: Any) -> None:
    """One that returns True at once leaves one iteration."""
    assert make(callbacks=[lambda iterate: True]).fit(oracles.as_sparse(drawn(2))).n_iter_ == 1


@every
def test_scikit_learn_clones_them_and_fits_repeat(make: Any) -> None:
    """A clone has the same parameters, and gives the same bits."""
    model, values = make(), drawn(3)
    again = clone(model)
    assert again.get_params() == model.get_params()
    assert np.array_equal(completed(values, again), completed(values, model))


@every
def test_observed_zeros_alone_give_zeros(make: Any) -> None:
    """A matrix whose observed entries are all zero is completed with zeros."""
    assert not completed(np.where(np.isnan(drawn(4)), np.nan, 0.0), make()).any()


@every
@pytest.mark.filterwarnings("default")
def test_nothing_observed_is_refused_or_zero(make: Any) -> None:
    """There is nothing to complete from; the least norm alone is known, zero."""
    empty = sp.coo_array((14, 11))
    if isinstance(make(), MinimumNorm):
        assert not make().fit(empty).matrix_.any()
    else:
        with pytest.raises(InputError, match="no entry was observed"):
            make().fit(empty)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (IRLS(p=1.5), "p=1.5 must be a number of at most 1"),
        (IRLS(p=float("nan")), "p=nan must be a number of at most 1"),
        (IRLS(p="0"), "p='0' must be"),
        (IRLS(ridge=-1), "ridge=-1 must be a number of at least 0"),
        (IRLS(ridge=10**400), "ridge=1"),
        (IRLS(floor=float("inf")), "floor=inf must be"),
        (IRLS(floor=0), "ridge=0 and floor=0 leave singular systems"),
        (IRLS(floor_decay=0), "floor_decay=0 must be a number above 0 and of at most 1"),
        (IRLS(tol=-1), "tol=-1 must be"),
        (IRLS(max_iter=True), "max_iter=True must be a whole number of at least 1"),
        (NuclearNorm(max_iter=0), "max_iter=0 must be"),
        (NuclearNorm(callbacks=[3]), r"callbacks=\[3\] must be a list of functions"),
        (MatrixIRLS(0), "rank=0 must be"),
        (MatrixIRLS(11), r"rank=11 must be below both sides of a matrix of shape \(14, 11\)"),
        (MatrixIRLS(2, tol="low"), "tol='low' must be"),
        (MinimumNorm(ridge=None), "ridge=None must be"),
        (AlternatingLeastSquares(1.5), "rank=1.5 must be"),
        (AlternatingLeastSquares(2, ridge=0), "ridge=0 must be a number above 0"),
        (AlternatingLeastSquares(2, random_state=-1), "random_state=-1 must be"),
    ],
)
def test_parameters_out_of_range_are_refused(model: Any, said: str) -> None:
    """A parameter out of range is named in one sentence that says what is allowed."""
    with pytest.raises(InputError, match=said):
        model.fit(oracles.as_sparse(drawn(5)))


def test_values_whose_squares_overflow_are_refused() -> None:
    """What is finite but cannot be squared is refused, not completed with NaN."""
    with pytest.raises(InputError, match="divide the values by their largest"):
        IRLS().fit(sp.coo_array(np.full((3, 3), 1e300)))


# ---- least norm, and alternating least squares -----------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_least_norm_is_the_oracle_s_first_estimate(ridge: float) -> None:
    """It is lin-RFM's general form with M = I: once, with zeros where nothing was observed."""
    values = drawn(6, 7, 5)
    model = MinimumNorm(ridge=ridge).fit(oracles.as_sparse(values))
    assert oracles.distance(model.matrix_, oracles.operator_estimate(values, np.eye(5), ridge)) < 1e-12
    assert model.n_iter_ == 1


def ridge_rows(values: Any, factor: Any, ridge: float) -> Any:
    """Solve each row's least squares, the ridge as rows of the system."""
    found = np.zeros((len(values), factor.shape[1]))
    for i, row in enumerate(values):
        seen = ~np.isnan(row)
        system = np.vstack([factor[seen], np.sqrt(ridge) * np.eye(factor.shape[1])])
        found[i] = np.linalg.lstsq(system, np.concatenate([row[seen], np.zeros(factor.shape[1])]), rcond=None)[0]
    return found


def test_every_iterate_of_als_is_the_oracle_s() -> None:
    """Callbacks see U V' of least squares in turn, of the values divided by their root mean square."""
    values, seen = 3.7 * drawn(7), []
    model = AlternatingLeastSquares(3, ridge=0.05, max_iter=5, tol=0, random_state=4)
    completed(values, model.set_params(callbacks=[lambda it: seen.append(it.estimate)]))
    unit = np.sqrt(np.nanmean(values**2))
    of_columns = np.random.default_rng(4).normal(size=(11, 3)) / np.sqrt(3)
    for found in seen:
        of_rows = ridge_rows(values / unit, of_columns, 0.05)
        of_columns = ridge_rows(values.T / unit, of_rows, 0.05)
        assert oracles.distance(found, unit * of_rows @ of_columns.T) < 1e-10
    assert len(seen) == 5


def test_als_recovers_a_well_conditioned_matrix_of_known_rank() -> None:
    """Rank 2 of 40 x 30 from 60 % of the entries, to the ridge."""
    rng = np.random.default_rng(1)
    full = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 30))
    found = completed(np.where(rng.random(full.shape) < 0.6, full, np.nan), AlternatingLeastSquares(2, tol=1e-8))
    assert oracles.distance(found, full) < 1e-5


# ---- MatrixIRLS -----------------------------------------------------------------------------------------------


def weighted_estimate(values: Any, left: Any, singular: Any, right: Any, smoothing: float) -> Any:
    """X = W⁻¹ A' (A W⁻¹ A')⁻¹ y with W⁻¹ as an mn × mn array."""
    observed = ~np.isnan(values).ravel()
    raised = np.maximum(singular, smoothing)
    turned = np.kron(left, right)
    inverse = (turned * np.outer(raised[: left.shape[1]], raised[: right.shape[1]]).ravel()) @ turned.T
    dual = np.linalg.solve(inverse[np.ix_(observed, observed)], values.ravel()[observed])
    return (inverse[:, observed] @ dual).reshape(values.shape)


def test_every_iterate_of_matrix_irls_is_the_oracle_s() -> None:
    """The solve in the tangent space is that with the whole weight operator."""
    values, seen = drawn(8, 9, 7), []
    completed(values, MatrixIRLS(2, max_iter=6, tol=0, callbacks=[lambda it: seen.append(it.estimate)]))
    expected, smoothing = np.where(np.isnan(values), 0, values), np.inf
    for found in seen:
        assert oracles.distance(found, expected) < 1e-8
        left, singular, right = np.linalg.svd(expected)
        smoothing = min(smoothing, singular[2])
        padded = np.concatenate([singular, np.zeros(2)])
        expected = weighted_estimate(values, left, padded, right.T, smoothing)
    assert len(seen) == 6


@pytest.mark.parametrize("seed", range(2))
def test_matrix_irls_recovers_where_als_stalls(seed: int) -> None:
    """Singular values 1, 0.03, 0.001, twice as many entries as degrees of freedom: ALS misses the weak direction."""
    rng, d = np.random.default_rng(seed), 60
    left, right = (np.linalg.qr(rng.normal(size=(d, 3)))[0] for _ in range(2))
    full = (left * [1, 10**-1.5, 1e-3]) @ right.T
    observed = np.zeros(d * d, bool)
    observed[rng.choice(d * d, 2 * 3 * (2 * d - 3), replace=False)] = True
    values = np.where(observed.reshape(d, d), full, np.nan)
    assert oracles.distance(completed(values, MatrixIRLS(3)), full) < 1e-9
    for ridge in (1e-8, 1e-5):
        model = AlternatingLeastSquares(3, ridge=ridge, max_iter=200, tol=0)
        assert oracles.distance(completed(values, model), full) > 1e-3


@given(seed=seeds)
@settings(max_examples=6, deadline=None)
def test_matrix_irls_treats_both_sides_alike(seed: int) -> None:
    """The completion of the transpose is the transpose: the weights are of both sides."""
    values = drawn(seed)
    model = MatrixIRLS(2, max_iter=4, tol=0)
    assert oracles.distance(completed(values.T, model).T, completed(values, model)) < 1e-7
