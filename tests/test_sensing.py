"""A matrix from linear measurements: Algorithm 1 against its transcription, and every form of the measurements."""

from __future__ import annotations

import importlib.util
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import oracles
import pytest
import scipy.sparse as sp
import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from rfmdist import InputError, LinearSensing, LinRFM
from rfmdist.iterating import Iterate
from rfmdist.measurements import measurements

Matrix = oracles.Matrix
SCRIPT = Path(__file__).parents[1] / "scripts" / "paper" / "sensing.py"


def problem(rng: np.random.Generator, m: int = 7, n: int = 5, rank: int = 2, count: int = 26) -> tuple[Any, Any, Any]:
    """Give Gaussian measurements (N, m, n), what they gave, and the matrix of low rank."""
    matrix = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n))
    A = rng.normal(size=(count, m, n))
    return A, np.tensordot(A, matrix, 2), matrix


def algorithm_1(A: Matrix, y: Matrix, power: float, ridge: float, floor: float) -> Iterator[tuple[Matrix, Matrix]]:
    """(Z, M) of each iteration: W of the least sum of (<A_k M, W> - y_k)^2 + ridge |W|^2, Z = W M'."""
    _, m, n = A.shape
    root = np.eye(n)
    while True:
        system = np.vstack([(A @ root).reshape(len(A), -1), np.sqrt(ridge) * np.eye(m * n)])
        weights = np.linalg.lstsq(system, np.concatenate([y, np.zeros(m * n)]), rcond=None)[0].reshape(m, n)
        estimate = weights @ root.T
        yield estimate, root
        root = oracles.eigen_power(oracles.shifted_agop(estimate, floor), power)


def iterates(model: LinearSensing, A: Any, y: Any, shape: Any = None) -> list[Matrix]:
    """Give every estimate of a fit."""
    seen: list[Matrix] = []

    def keep(iterate: Iterate) -> None:
        assert iterate.estimate is not None
        seen.append(iterate.estimate)

    model.set_params(callbacks=[keep]).fit(A, y, shape)
    return seen


def forms(A: Matrix) -> dict[str, Any]:
    """Give the same measurements in every form."""
    table = A.reshape(len(A), -1)
    return {
        "flat": table,
        "csr": sp.csr_array(table),
        "csc matrix": sp.csc_matrix(table),
        "coo": sparse.COO.from_numpy(A),
        "operator": aslinearoperator(table),
        "dask": da.from_array(A, chunks=(7, 3, 2)),
        "dask, flat": da.from_array(table, chunks=(9, 4)),
        "dask of coo": da.from_array(sparse.COO.from_numpy(A), chunks=(10, -1, -1)),
    }


FORMS = list(forms(np.zeros((20, 2, 2))))


@pytest.mark.parametrize("power", [0.25, 0.5, 0.7, 1, 1.5])
@pytest.mark.parametrize("solver", ["direct", "cg"])
def test_every_iterate_is_that_of_algorithm_1(power: float, solver: Any, rng: np.random.Generator) -> None:
    """The form in P alone gives, iterate by iterate, the estimates that Algorithm 1 gives with W and M."""
    A, y, _ = problem(rng)
    model = LinearSensing(power=power, ridge=0.03, floor=0.05, max_iter=6, tol=0, solver=solver)
    found = iterates(model, A, y)
    expected = algorithm_1(A, y, power, 0.03, 0.05)
    for estimate in found:
        wanted, root = next(expected)
        assert oracles.distance(estimate, wanted) < 1e-8
    assert len(found) == 6
    assert oracles.distance(model.feature_matrix_, root @ root.T) < 1e-8


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_what_the_dense_one_gives(form: str, rng: np.random.Generator) -> None:
    """The estimate, predictions and the score do not depend on how the measurements are held."""
    A, y, _ = problem(rng)
    A[rng.random(A.shape) < 0.5] = 0  # so that sparse forms have gaps
    dense = LinearSensing(ridge=0.1, max_iter=8, tol=0).fit(A, y)
    given = forms(A)[form]
    model = LinearSensing(ridge=0.1, max_iter=8, tol=0).fit(given, da.from_array(y, chunks=5), (7, 5))
    assert oracles.distance(model.coef_, dense.coef_) < 1e-8
    assert oracles.distance(model.predict(given), np.tensordot(A, dense.coef_, 2)) < 1e-8
    assert model.score(given, y) == pytest.approx(dense.score(A, y), abs=1e-8)


def test_the_estimate_is_made_of_the_dual_coefficients(rng: np.random.Generator) -> None:
    """coef_ is the weighted sum of the measurements times the features, also where P has been rescaled."""
    A, y, _ = problem(rng)
    for power in (0.25, 1.5):
        model = LinearSensing(power=power, max_iter=20, tol=0).fit(A, 1e3 * y)
        made = np.tensordot(model.dual_coef_, A, 1) @ model.feature_matrix_
        assert oracles.distance(made, model.coef_) < 1e-6


def test_observed_entries_are_solved_row_by_row(rng: np.random.Generator) -> None:
    """Measurements of single entries give the dual form of matrix completion, iterate by iterate."""
    values = oracles.sparse_problem(rng, 12, 8)
    i, j = np.nonzero(~np.isnan(values))
    A = sp.csr_array((np.ones(len(i)), (np.arange(len(i)), i * 8 + j)), shape=(len(i), 96))
    model = LinearSensing(ridge=0.2, floor=0.01, max_iter=5, tol=0)
    found = iterates(model, A, values[i, j], (12, 8))
    for estimate, (expected, _) in zip(found, oracles.dual_iterates(values, 0.5, 0.2, 0.0, 0.01), strict=False):
        assert oracles.distance(estimate, expected) < 1e-10


def test_observed_entries_give_what_lin_rfm_gives(rng: np.random.Generator) -> None:
    """Of values of unit mean square LinRFM, dense and without offsets or replacement, finds the same matrix."""
    values = oracles.sparse_problem(rng, 12, 8)
    values /= np.sqrt(np.nanmean(values**2))
    i, j = np.nonzero(~np.isnan(values))
    A = sp.csr_array((np.ones(len(i)), (np.arange(len(i)), i * 8 + j)), shape=(len(i), 96))
    ours = LinearSensing(ridge=0.2, floor=0.01, max_iter=4, tol=0).fit(A, values[i, j], (12, 8))
    theirs = LinRFM(
        features="dense", sides="columns", offsets=None, ridge=0.2, floor=0.01, replacement=0, dtype="float64",
        max_iter=4, tol=0, validation_fraction=0, clip=None,
    ).fit(oracles.as_sparse(values))  # fmt: skip
    rows, columns = np.indices((12, 8))
    assert oracles.distance(theirs.completion_.predict(rows, columns, codes=True), ours.coef_) < 1e-10


@pytest.mark.parametrize("rank", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", [0, 1])
def test_gaussian_measurements_recover_a_matrix(rank: int, seed: int) -> None:
    """By default a 20 × 20 matrix is recovered to 1e-3 from 1.6 times as many measurements as degrees of freedom."""
    count = round(1.6 * rank * (40 - rank)) + 1
    A, y, matrix = problem(np.random.default_rng(seed), 20, 20, rank, count)
    model = LinearSensing().fit(A, y)
    assert oracles.distance(model.coef_, matrix) < 1e-3
    least = np.linalg.lstsq(A.reshape(count, -1), y, rcond=None)[0].reshape(20, 20)
    assert oracles.distance(least, matrix) > 0.3, "the minimum norm solves it too: the problem is no test"


def test_the_scale_of_the_values_does_not_matter(rng: np.random.Generator) -> None:
    """By default values a million times greater give a matrix a million times greater, for high powers too."""
    A, y, _ = problem(rng)
    for power in (0.5, 1.5):
        small, large = (LinearSensing(power=power, max_iter=15, tol=0).fit(A, s * y).coef_ for s in (1e-20, 1e20))
        assert oracles.distance(1e-40 * large, small) < 1e-4


def test_noise_is_left_out_by_its_variance_as_ridge(rng: np.random.Generator) -> None:
    """With the noise's variance as ridge the estimate is of low rank and nearer to the matrix than without."""
    A, y, matrix = problem(rng, 15, 15, 1, 120)
    y = y + rng.normal(size=len(y))
    noisy, exact = LinearSensing(ridge=1.0).fit(A, y), LinearSensing(tol=1e-4).fit(A, y)
    assert oracles.distance(noisy.coef_, matrix) < 0.5 * oracles.distance(exact.coef_, matrix)
    assert np.linalg.matrix_rank(noisy.coef_, 1e-3 * np.linalg.norm(matrix)) == 1


def test_conjugate_gradients_find_what_the_direct_solve_finds(rng: np.random.Generator) -> None:
    """Matrix-free, by default settings, the recovered matrix is that of the direct solve."""
    A, y, _ = problem(rng, 10, 9, 1, 40)
    direct = LinearSensing(solver="direct").fit(A, y)
    free = LinearSensing().fit(aslinearoperator(A.reshape(40, -1)), y, (10, 9))
    assert oracles.distance(free.coef_, direct.coef_) < 1e-5


@pytest.mark.parametrize("solver", ["direct", "cg"])
def test_chunks_give_what_the_whole_gives(solver: Any, rng: np.random.Generator) -> None:
    """Any chunking gives the whole's estimate to rounding; one chunking the same bits on every scheduler."""
    A, y, _ = problem(rng)

    def fit(given: Any) -> Matrix:
        return LinearSensing(ridge=0.1, max_iter=2, tol=0, solver=solver).fit(given, y).coef_

    whole = fit(A)
    for chunks in ((5, 2, 5), (13, -1, -1), (26, -1, -1)):
        assert oracles.distance(fit(da.from_array(A, chunks=chunks)), whole) < 1e-8
    given = da.from_array(A, chunks=(9, -1, -1))
    found = []
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler):
            found.append(fit(given).tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("sum_", ["measure", "adjoint", "gram"])
def test_chunks_are_never_all_in_memory(sum_: str) -> None:
    """Whatever is summed, of eight chunks no more than two are alive at any moment of a pass on one thread."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = []

    class Chunk(np.ndarray[Any, Any]):
        __hash__ = object.__hash__

    def chunk(block: Any) -> Any:
        alive.add(made := np.full((4, 6, 5), 1.0).view(Chunk))
        most.append(len(alive))
        return made

    A = da.zeros((32, 6, 5), chunks=(4, -1, -1)).map_blocks(chunk, dtype=float, meta=np.empty((0, 0, 0)))
    given = {"measure": np.ones((6, 5)), "adjoint": np.ones(32), "gram": np.eye(5)}[sum_]
    with dask.config.set(scheduler="synchronous"):
        getattr(measurements(A, None), sum_)(given)
    assert len(most) >= 8
    assert max(most) <= 2


@pytest.mark.parametrize("form", [form for form in FORMS if form != "operator"])
def test_gram_is_its_definition(form: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """K_kl = <A_k P, A_l> in every form, also slab by slab."""
    A = problem(rng)[0] * (rng.random((26, 7, 5)) < 0.2)
    half = rng.normal(size=(5, 5))
    expected = np.einsum("kij,jp,lip->kl", A, half @ half.T, A)
    monkeypatch.setattr("rfmdist.measurements.SLAB_BYTES", 1000)
    assert oracles.distance(measurements(forms(A)[form], (7, 5)).gram(half @ half.T), expected) < 1e-12


def test_solves_that_do_not_converge_are_told(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conjugate gradients that run out of steps are warned of, not passed over."""
    A, y, _ = problem(rng)
    monkeypatch.setattr("rfmdist.sensing.CG_STEPS", 2)
    with pytest.warns(UserWarning, match="in 3 of 3 iterations"):
        LinearSensing(solver="cg", max_iter=3, tol=0).fit(A, y)


def test_what_is_not_settled_is_told(rng: np.random.Generator) -> None:
    """A fit that ends by its most iterations warns, and keeps its history."""
    A, y, _ = problem(rng)
    model = LinearSensing(max_iter=3)
    with pytest.warns(UserWarning, match="not settled in 3 iterations"):
        model.fit(A, y)
    assert model.n_iter_ == len(model.history_) == 3


NAN = np.full((3, 2, 2), np.nan)
ONES = np.random.default_rng(1).normal(size=(3, 2, 2))
BAD: dict[str, tuple[dict[str, Any], Any, Any, Any, str]] = {
    "solver": ({"solver": "qr"}, ONES, np.ones(3), None, "solver='qr' must be one of 'auto', 'direct', 'cg'"),
    "power": ({"power": 0}, ONES, np.ones(3), None, "power=0 must be a positive fraction"),
    "ridge": ({"ridge": -1}, ONES, np.ones(3), None, "ridge=-1 must be 'auto' or a number of at least 0"),
    "floor": ({"floor": np.nan}, ONES, np.ones(3), None, "floor=nan must be 'auto' or a number"),
    "tol": ({"tol": None}, ONES, np.ones(3), None, "tol=None must be a number"),
    "max_iter": ({"max_iter": 0}, ONES, np.ones(3), None, "max_iter=0 must be a whole number of at least 1"),
    "callbacks": ({"callbacks": [1]}, ONES, np.ones(3), None, "callbacks=[1] must be a list of functions"),
    "length of y": ({}, ONES, np.ones(4), None, "y has shape (4,), and A holds 3 measurements"),
    "NaN in y": ({}, ONES, np.array([1, np.nan, 1]), None, "y holds what is no finite real number"),
    "complex y": ({}, ONES, np.ones(3, complex), None, "y holds what is no finite real number"),
    "zeros": ({}, ONES, np.zeros(3), None, "y holds zeros alone"),
    "NaN in A": ({}, NAN, np.ones(3), None, "A holds NaN or infinity"),
    "NaN in chunks": ({}, da.from_array(NAN, chunks=1), np.ones(3), None, "A holds NaN or infinity"),
    "NaN where y is 0": ({}, np.vstack([NAN[:1], ONES[1:]]), np.array([0.0, 1, 1]), None, "A holds NaN or infinity"),
    "complex A": ({}, ONES + 1j, np.ones(3), None, "A has entries of type complex128"),
    "no array": ({}, [1, 2], np.ones(2), None, "A is a list"),
    "one dimension": ({}, np.ones(3), np.ones(3), None, "A has shape (3,): give (N, m, n)"),
    "no shape": ({}, np.ones((3, 4)), np.ones(3), None, "A has shape (3, 4): say the matrix's with shape=(m, n)"),
    "other shape": ({}, ONES, np.ones(3), (4, 1), "which does not go with a matrix of shape (4, 1)"),
    "no pair": ({}, np.ones((3, 4)), np.ones(3), 4, "shape=4 must be two whole numbers"),
    "nothing": ({}, np.ones((0, 2, 2)), np.ones(0), None, "give at least one measurement"),
    "operator": (
        {"solver": "direct"}, aslinearoperator(np.ones((3, 4))), np.ones(3), (2, 2), "choose solver='cg'",
    ),
    "no adjoint": (
        {}, LinearOperator((3, 4), matvec=lambda x: x[:3], dtype=float), np.ones(3), (2, 2), "A has no rmatvec",
    ),
    "unknown chunks": (
        {}, da.from_array(ONES, chunks=1)[da.from_array(np.ones(3, bool), chunks=1)], np.ones(3), None,
        "call compute_chunk_sizes()",
    ),
    "filled": ({}, sparse.COO.from_numpy(ONES, fill_value=2), np.ones(3), None, "whose rest is zeros"),
    "singular": ({"ridge": 0}, np.ones((3, 2, 2)), np.ones(3), None, "is not positive definite: raise ridge or floor"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_the_way_out(case: str) -> None:
    """Each refusal is one sentence that names the argument."""
    parameters, A, y, shape, message = BAD[case]
    with pytest.raises(InputError, match=re.escape(message)):
        LinearSensing(**parameters).fit(A, y, shape)


def test_a_system_beyond_memory_is_refused() -> None:
    """A direct solve that memory cannot hold says what it needs; left to itself the fit takes the other solver."""
    A = sp.csr_array((10**7, 4))
    with pytest.raises(InputError, match=r"needs 1\.6e\+06 GB for 10000000 measurements, .* choose solver='cg'"):
        LinearSensing(solver="direct").fit(A, np.ones(10**7), (2, 2))


def test_predictions_of_bad_measurements_are_refused(rng: np.random.Generator) -> None:
    """Predicting needs measurements of the fitted matrix's shape, without NaN."""
    A, y, _ = problem(rng)
    model = LinearSensing(max_iter=1).fit(A, y)
    with pytest.raises(InputError, match="which does not go with a matrix of shape"):
        model.predict(A[:, :3])
    with pytest.raises(InputError, match="A holds NaN"):
        model.predict(np.full((1, 7, 5), np.nan))


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    """Load scripts/paper/sensing.py, which finds what the scripts share beside itself."""
    spec = importlib.util.spec_from_file_location("paper_sensing", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        spec.loader.exec_module(module)
        yield module


def test_the_scripts_nuclear_norm_is_the_least(script: Any, rng: np.random.Generator) -> None:
    """Its splitting finds the matrix that cvxpy finds, also where that is not the measured one."""
    cp = pytest.importorskip("cvxpy")
    A, y, matrix = problem(rng, 8, 7, 1, 16)
    variable = cp.Variable((8, 7))
    constraint = A.reshape(16, -1) @ cp.vec(variable, order="C") == y
    cp.Problem(cp.Minimize(cp.normNuc(variable)), [constraint]).solve(solver="SCS", eps=1e-7)
    assert oracles.distance(script.nuclear_norm(A, y), variable.value) < 1e-4
    assert oracles.distance(variable.value, matrix) > 0.01


def test_the_script_writes_a_table_and_a_picture(script: Any, tmp_path: Path) -> None:
    """One trial of the script's smallest problem gives a row a method, of which power 1/2 succeeds."""
    rows = script.sweep([(8, 1)], [3.0], trials=1)
    script.written(rows, tmp_path)
    assert {row["method"] for row in rows} == set(script.METHODS)
    assert [row["success"] for row in rows if row["method"] == "power 1/2"] == [1.0]
    assert (tmp_path / "sensing.csv").stat().st_size
    assert (tmp_path / "sensing.png").stat().st_size
