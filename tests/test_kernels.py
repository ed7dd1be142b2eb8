"""Compiled kernels: each equals a line of NumPy, on ranges, empty rows, single entries and both dtypes."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from rfmdist.kernels import cpu
from rfmdist.kernels import threads as held_threads
from rfmdist.kernels.threads import Threads, one_blas_thread

DTYPES = [np.float32, np.float64]


def definite(rng: np.random.Generator, n: int, dtype: Any) -> Any:
    """Give a well conditioned symmetric matrix."""
    half = rng.normal(size=(n, n)) / np.sqrt(n)
    return (half @ half.T + np.eye(n)).astype(dtype)


def dense_dual(block: Any, dual: Any, n: int) -> Any:
    """Give the dual coefficients as a dense float64 matrix."""
    matrix = np.zeros((len(block.indptr) - 1, n))
    matrix[block.rows - block.start, block.indices] = dual
    return matrix


@given(st.integers(1, 30), st.integers(2, 40), st.floats(0, 1), st.sampled_from(DTYPES), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_solve_rows(m: int, n: int, density: float, dtype: Any, seed: int) -> None:
    """Each row solves its own system, whatever its number of entries, and rows out of range are not touched."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((m, n)) < density, rng.normal(size=(m, n)), np.nan)
    block, features = oracles.row_block(values, dtype=dtype), definite(rng, n, dtype)
    dual = np.full(len(block.values), 7, dtype)
    first, last = sorted(rng.integers(0, m + 1, 2).tolist())
    arrays = block.indptr, block.indices, block.values
    assert cpu.solve_rows(*arrays, features, 0.25, first, last, dual) == -1
    for i in range(m):
        seen, part = block.indices[slice(*block.indptr[i : i + 2])], slice(*block.indptr[i : i + 2])
        if first <= i < last:
            system = features[np.ix_(seen, seen)].astype(np.float64) + 0.25 * np.eye(len(seen))
            expected = np.linalg.solve(system, values[i, seen]) if len(seen) else np.empty(0)
            assert np.allclose(dual[part], expected, rtol=0, atol=2e-4 if dtype == np.float32 else 1e-12)
        else:
            assert (dual[part] == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_solve_rows_tells_which_row_failed(dtype: Any) -> None:
    """The first row whose system is not positive definite is named; the values are left as they were."""
    values = np.array([[1.0, np.nan], [1.0, 1.0], [2.0, 1.0]])
    block = oracles.row_block(values, dtype=dtype)
    features = np.array([[1, 0], [0, -1]], dtype)
    before, dual = block.values.copy(), np.zeros(5, dtype)
    assert cpu.solve_rows(block.indptr, block.indices, block.values, features, 0.0, 0, 3, dual) == 1
    assert np.array_equal(block.values, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extra", [0.0, 0.75])
def test_multiply_panel(rng: np.random.Generator, dtype: Any, extra: float) -> None:
    """Panels put together are A (P + extra I), for rows of 0 to 9 entries."""
    n = 50
    values = np.full((10, n), np.nan)
    for i in range(10):
        values[i, rng.choice(n, i, replace=False)] = 1.0
    block, features = oracles.row_block(values, dtype=dtype), definite(rng, n, dtype)
    dual = rng.normal(size=len(block.values)).astype(dtype)
    out = np.full((10, n), 7, dtype)
    for left, right in ((0, 13), (13, 14), (14, 50)):
        cpu.multiply_panel(block.indptr, block.indices, dual, features, dtype(extra), left, right, out)
    expected = dense_dual(block, dual, n) @ (features + extra * np.eye(n))
    assert oracles.distance(out, expected) < 20 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_product_tile(rng: np.random.Generator, dtype: Any) -> None:
    """Tiles add Z'Z to what is there: below the diagonal whole, on it the lower half, nothing elsewhere."""
    rows = rng.normal(size=(17, 20)).astype(dtype)
    before = rng.normal(size=(20, 20))
    gram = before.copy()
    cpu.add_product_tile(rows, 6, 15, 6, 15, gram)
    cpu.add_product_tile(rows, 15, 20, 0, 6, gram)
    touched = np.zeros((20, 20), bool)
    touched[6:15, 6:15] = np.tril(np.ones((9, 9), bool))
    touched[15:20, 0:6] = True
    exact = before + rows.T.astype(np.float64) @ rows.astype(np.float64)
    assert np.array_equal(gram[~touched], before[~touched])
    assert oracles.distance(gram[touched], exact[touched]) < 10 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_gram_panel(rng: np.random.Generator, dtype: Any) -> None:
    """Panels of rows add the lower triangle of A'A in float64, once each."""
    values = np.where(rng.random((30, 25)) < 0.3, 1.0, np.nan)
    block = oracles.row_block(values, dtype=dtype)
    dual = rng.normal(size=len(block.values)).astype(dtype)
    gram = np.ones((25, 25))
    for top, bottom in ((0, 1), (1, 11), (11, 25)):
        cpu.add_gram_panel(block.indptr, block.indices, dual, top, bottom, gram)
    matrix = dense_dual(block, dual, 25)
    assert oracles.distance(gram, 1 + np.tril(matrix.T @ matrix)) < 1e-14


@pytest.mark.parametrize("dtype", DTYPES)
def test_predict_entries(rng: np.random.Generator, dtype: Any) -> None:
    """Wanted entries of a range of rows are those of A P summed in float64; others are left alone."""
    block = oracles.row_block(np.where(rng.random((12, 30)) < 0.4, 1.0, np.nan), dtype=dtype)
    wanted = oracles.row_block(np.where(rng.random((12, 30)) < 0.2, 1.0, np.nan))
    features, dual = definite(rng, 30, dtype), rng.normal(size=len(block.values)).astype(dtype)
    out = np.full(len(wanted.values), 7.0)
    cpu.predict_entries(block.indptr, block.indices, dual, features, wanted.indptr, wanted.indices, 3, 9, out)
    inside = (wanted.rows >= 3) & (wanted.rows < 9)
    expected = (dense_dual(block, dual, 30) @ features.astype(np.float64))[wanted.rows, wanted.indices]
    assert oracles.distance(out[inside], expected[inside]) < 1e-14
    assert (out[~inside] == 7).all()


def test_kernels_take_read_only_arrays(rng: np.random.Generator) -> None:
    """Arrays that a cluster hands over are read-only: the kernels only write to what they return."""
    block = oracles.row_block(np.where(rng.random((5, 6)) < 0.7, 1.0, np.nan))
    features, dual = definite(rng, 6, np.float64), np.empty(len(block.values))
    for array in (block.indptr, block.indices, block.values, features):
        array.flags.writeable = False
    assert cpu.solve_rows(block.indptr, block.indices, block.values, features, 0.1, 0, 5, dual) == -1


def test_threads_keep_the_order() -> None:
    """Results come in the order of the pieces, on one thread and on several."""
    for count in (1, 3):
        threads = Threads(count)
        assert threads.map(lambda a, b: a - b, [(i, 1) for i in range(50)]) == list(range(-1, 49))
        threads.close()


def test_the_caller_is_one_of_the_threads() -> None:
    """Three threads are at three pieces at once, and the one that called is among them."""
    threads, all_here = Threads(3), threading.Barrier(3)

    def who() -> int:
        all_here.wait(10)
        return threading.get_ident()

    found = threads.map(who, [()] * 3)
    threads.close()
    assert len(set(found)) == 3
    assert threading.get_ident() in found


@pytest.mark.parametrize("pieces", [[], [(1,)], [(-1,), (2,)]])
def test_what_is_left_for_later_is_done_beside_the_caller(pieces: list[tuple[int]]) -> None:
    """With two threads the caller goes on at once, and the next map ends after what was left, one piece or none."""
    threads, begun, go_on, done = Threads(2), threading.Event(), threading.Event(), list[int]()

    def first() -> None:
        begun.set()
        assert go_on.wait(10)
        done.append(1)

    threads.later(first, lambda: done.append(2))
    assert begun.wait(10)
    assert done == []
    assert threads.behind is not None
    threading.Timer(0.05, go_on.set).start()
    assert threads.map(abs, pieces) == [abs(*piece) for piece in pieces]
    assert sorted(done) == [1, 2]
    assert threads.behind is None
    threads.close()


def test_one_thread_leaves_nothing_for_later() -> None:
    """What the caller alone would do, it does at once and in order."""
    threads, done = Threads(1), list[int]()
    threads.later(lambda: done.append(1), lambda: done.append(2))
    assert done == [1, 2]
    assert threads.behind is None


def test_what_is_left_for_later_ends_before_more_is_left() -> None:
    """And what is let go is not begun any more: no call is made after it."""
    threads, done = Threads(2), list[int]()
    for number in range(5):
        threads.later(*(partial(done.append, number) for _ in range(20)))
        assert done.count(number - 1) == (20 if number else 0)
    threads.let_go()
    found = len(done)
    assert 80 <= found <= 100
    time.sleep(0.01)
    assert len(done) == found
    threads.close()


def test_scratch_of_what_is_left_for_later_is_not_used_again() -> None:
    """Until it is done; then two pieces of memory take turns."""
    threads, made = Threads(2), []
    for _ in range(4):
        made.append(threads.scratch("any", (10,), np.float64))
        assert threads.scratch("any", (10,), np.float64).ctypes.data == made[-1].ctypes.data
        threads.later(lambda: None)
    assert [array.ctypes.data for array in made[2:]] == [array.ctypes.data for array in made[:2]]
    assert not np.shares_memory(*made[:2])
    threads.close()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_error_in_what_was_left_for_later_is_raised(count: int) -> None:
    """At the end of the next map at the latest, and once."""
    threads = Threads(count)
    with pytest.raises(ZeroDivisionError):
        threads.later(*[lambda: time.sleep(0.001)] * 5, lambda: divmod(1, 0)) or threads.map(abs, [(1,)] * 5)
    assert threads.map(abs, [(-1,)]) == [1]
    threads.close()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("failing", [0, 1, 49])
def test_an_error_in_a_thread_is_raised(count: int, failing: int) -> None:
    """A piece that fails fails the map, in whatever thread; when it is raised no other piece is at work any more."""
    threads, at_work = Threads(count), set[int]()

    def piece(number: int) -> float:
        at_work.add(number)
        time.sleep(0.001)
        at_work.remove(number)
        return 1 / (number - failing)

    with pytest.raises(ZeroDivisionError):
        threads.map(piece, [(number,) for number in range(50)])
    assert not at_work
    threads.close()


def test_one_blas_thread_is_shared_and_given_back() -> None:
    """Callers at once share the limit; the last one to leave restores what was there."""

    def blas() -> list[int]:
        return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]

    before = blas()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with one_blas_thread():
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    assert inside.wait(10)
    with one_blas_thread():
        assert set(blas()) == {1}
    assert set(blas()) == {1}
    leave.set()
    other.join()
    assert blas() == before


class Mkl:
    """What MKL 2026.2 promises of its limits: a thread's own counts where it is set, else that of the process."""

    def __init__(self) -> None:
        self.process, self._own = 8, threading.local()

    def MKL_Set_Num_Threads(self, count: int) -> None:
        self.process = count

    def MKL_Set_Num_Threads_Local(self, count: int) -> int:
        before, self._own.count = getattr(self._own, "count", 0), count
        return before

    def MKL_Get_Max_Threads(self) -> int:
        return getattr(self._own, "count", 0) or self.process


def test_one_blas_thread_holds_in_all_threads_under_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the caller's, whatever limit it had itself, in those that work for it, and in another caller's meanwhile."""
    mkl = Mkl()
    monkeypatch.setattr(held_threads, "_mkl", lambda: [mkl])
    mkl.MKL_Set_Num_Threads_Local(6)  # as threadpoolctl leaves it in a thread that has used it
    threads, inside, leave, found = Threads(2), threading.Barrier(2), threading.Event(), list[int]()

    def hold() -> None:
        with one_blas_thread():
            inside.wait(10)
            leave.wait(10)
        found.append(mkl.MKL_Get_Max_Threads())

    with one_blas_thread():
        both = threading.Barrier(2)
        counts = threads.map(lambda: (both.wait(10), mkl.MKL_Get_Max_Threads())[1], [()] * 2)
        assert counts == [1, 1]
        other = threading.Thread(target=hold)
        other.start()
        inside.wait(10)
    assert (mkl.MKL_Get_Max_Threads(), mkl.process) == (6, 1)  # the other caller is still at work
    leave.set()
    other.join()
    threads.close()
    assert (found, mkl.process) == ([8], 8)
