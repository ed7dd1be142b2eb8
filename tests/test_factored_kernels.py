"""Compiled kernels of the factored form: rows of every length are the least squares that DESIGN.md states."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmdist.kernels import factored
from rfmdist.kernels.factored import CHUNK

DTYPES = [np.float32, np.float64]
SHRINKAGES = [0.0, 5.0, np.inf]
RANK = 24
COUNTS = [0, 1, 3, 17, 18, 19, 40, CHUNK, CHUNK + 1, 2 * CHUNK + 90, 0]
"""Entries of rows: none, one, in the dual up to 3/4 of the rank, and in up to three chunks."""


def with_counts(rng: np.random.Generator, counts: list[int], n: int) -> Any:
    """Give a matrix with these numbers of entries a row."""
    values = np.full((len(counts), n), np.nan)
    for row, count in zip(values, counts, strict=True):
        row[rng.choice(n, count, replace=False)] = rng.normal(size=count) + 0.5
    return values


def solve(
    values: Any,
    factor: Any,
    offsets: Any,
    ridge: Any,
    shrinkage: float,
    first: int = 0,
    last: int | None = None,
    heavy: int = 1 << 30,
    base: Any = (),
    pulls: Any = None,
) -> tuple[int, Any, Any, Any]:
    """Run the kernel on rows ``first`` to ``last``; where it writes nothing there are sevens."""
    dtype, block = factor.dtype, oracles.row_block(values, dtype=factor.dtype)
    out = (
        np.full((len(values), factor.shape[1]), 7, dtype),
        np.full(len(values), 7, dtype),
        np.full(len(block.values), 7, dtype),
    )
    ridges = np.broadcast_to(np.asarray(ridge, np.float64), len(values)).copy()
    pulls = np.empty((0, factor.shape[1])) if pulls is None else pulls
    own = ridges, np.asarray(base, dtype), pulls.astype(dtype)
    data = block.indptr, block.indices, block.values, factor, offsets.astype(dtype), *own
    for array in data:
        array.flags.writeable = False  # as a cluster hands them over
    rows = first, len(values) if last is None else last
    return factored.solve_rows(*data, shrinkage, *rows, heavy, *out), *out


def pulled_rows(
    values: Any, factor: Any, offsets: Any, ridges: Any, base: Any, pulls: Any, shrinkage: float
) -> tuple[Any, Any, Any]:
    """(B, c, R) by dense normal equations of each row: U_O'U_O + diag(base) + ridge_i I, and pulls on the right."""
    (m, _), rank = values.shape, factor.shape[1]
    solved, intercepts, residuals = np.zeros((m, rank)), np.zeros(m), np.zeros(values.shape)
    for i, row in enumerate(values):
        seen = np.nonzero(~np.isnan(row))[0]
        if not len(seen):
            continue
        y = row[seen] - offsets[seen]
        design = np.column_stack([factor[seen], np.ones(len(seen))])[:, : rank + (shrinkage < np.inf)]
        system = design.T @ design
        system[:rank, :rank] += np.diag(base + ridges[i])
        system[rank:, rank:] += shrinkage if shrinkage < np.inf else 0
        right = design.T @ y
        right[:rank] += pulls[i]
        found = np.linalg.solve(system, right)
        solved[i], intercepts[i] = found[:rank], found[rank:].sum()
        residuals[i, seen] = y - design @ found
    return solved, intercepts, residuals


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shrinkage", SHRINKAGES)
def test_rows_of_every_length(rng: np.random.Generator, dtype: Any, shrinkage: float) -> None:
    """Coefficients, intercepts and residuals are those of the penalised least squares, dual or not."""
    values = with_counts(rng, COUNTS, 1300)
    factor = rng.normal(size=(1300, RANK)).astype(dtype) / 5
    offsets = rng.normal(size=1300)
    failed, solved, intercepts, residual = solve(values, factor, offsets, 0.3, shrinkage)
    expected = oracles.factored_rows(values, factor.astype(np.float64), offsets, 0.3, shrinkage)
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    assert failed == -1
    assert np.allclose(solved, expected[0], rtol=0, atol=tolerance)
    assert np.allclose(intercepts, expected[1], rtol=0, atol=tolerance)
    assert np.allclose(residual, expected[2][~np.isnan(values)], rtol=0, atol=tolerance)
    assert intercepts.any() == (shrinkage < np.inf)


@given(
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(1, 12),
    st.floats(0, 1),
    st.sampled_from(SHRINKAGES),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_any_rows(m: int, n: int, rank: int, density: float, shrinkage: float, seed: int) -> None:
    """Any shape, rank and density; rows out of range, and the heavy, are not touched."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((m, n)) < density, rng.normal(size=(m, n)), np.nan)
    factor, offsets = rng.normal(size=(n, rank)), rng.normal(size=n)
    first, last = sorted(rng.integers(0, m + 1, 2).tolist())
    failed, *found = solve(values, factor, offsets, 0.2, shrinkage, first, last, heavy=n // 2)
    assert failed == -1
    wanted = oracles.factored_rows(values, factor, offsets, 0.2, shrinkage)
    counts = (~np.isnan(values)).sum(axis=1)
    done = (first <= np.arange(m)) & (np.arange(m) < last) & (counts <= n // 2)
    for ours, theirs, mask in zip(
        found, (*wanted[:2], wanted[2][~np.isnan(values)]), (done, done, np.repeat(done, counts)), strict=True
    ):
        assert np.allclose(ours[mask], theirs[mask], rtol=0, atol=1e-10)
        assert (ours[~mask] == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shrinkage", SHRINKAGES)
def test_pulled_rows_of_every_length(rng: np.random.Generator, dtype: Any, shrinkage: float) -> None:
    """With a ridge a row, a base on the diagonal and a pull on the right, rows are the dense normal equations'."""
    values = with_counts(rng, COUNTS, 1300)
    factor, offsets = rng.normal(size=(1300, RANK)).astype(dtype) / 5, rng.normal(size=1300)
    ridges, pulls = rng.uniform(0.05, 2, len(COUNTS)), rng.normal(size=(len(COUNTS), RANK)).astype(dtype)
    base = rng.uniform(0, 3, RANK).astype(dtype)
    base[-3:] = 0  # side columns have none
    failed, *found = solve(values, factor, offsets, ridges, shrinkage, base=base, pulls=pulls)
    wide = (array.astype(np.float64) for array in (offsets.astype(dtype), ridges, base, pulls))
    expected = pulled_rows(values.astype(dtype), factor.astype(np.float64), *wide, shrinkage)
    assert failed == -1
    for ours, theirs in zip(found, (*expected[:2], expected[2][~np.isnan(values)]), strict=True):
        assert np.allclose(ours, theirs, rtol=0, atol=2e-4 if dtype == np.float32 else 1e-11)
    plain = solve(values, factor, offsets, ridges, shrinkage)[1]
    assert oracles.distance(plain, found[0]) > 0.05
    assert (found[0][0] == 0).all()  # a row without entries is left at 0, whatever pulls


@given(
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(1, 12),
    st.floats(0, 1),
    st.sampled_from(SHRINKAGES),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_any_pulled_rows(m: int, n: int, rank: int, density: float, shrinkage: float, pulled: bool, seed: int) -> None:
    """Any shape, rank and density, each row with its own ridge, pulled or not."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((m, n)) < density, rng.normal(size=(m, n)), np.nan)
    factor, offsets, ridges = rng.normal(size=(n, rank)), rng.normal(size=n), rng.uniform(0.1, 2, m)
    base, pulls = pulled * rng.uniform(0, 2, rank), pulled * rng.normal(size=(m, rank))
    given_too = {"base": base, "pulls": pulls} if pulled else {}
    failed, *found = solve(values, factor, offsets, ridges, shrinkage, **given_too)
    wanted = pulled_rows(values, factor, offsets, ridges, base, pulls, shrinkage)
    assert failed == -1
    for ours, theirs in zip(found, (*wanted[:2], wanted[2][~np.isnan(values)]), strict=True):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pulled_rows_without_a_ridge(rng: np.random.Generator, dtype: Any) -> None:
    """With ridge 0 and a base of which some is 0 the dual has no inverse: short rows are solved all the same, or told.

    Rows of more entries than there are columns without a base are determined; one where U is 0 is not.
    """
    values = with_counts(rng, [9, 5, 2], 40)
    values[:2, 38:], values[2] = np.nan, [*[np.nan] * 38, 1.0, 2.0]
    factor, base = rng.normal(size=(40, 8)).astype(dtype), np.r_[np.ones(5), np.zeros(3)]
    factor[38:] = 0
    pulls = rng.normal(size=(3, 8)).astype(dtype)
    failed, *found = solve(values, factor, np.zeros(40), 0.0, np.inf, base=base, pulls=pulls)
    assert failed == 2
    wide = factor.astype(np.float64), np.zeros(40), np.zeros(2), base, pulls[:2].astype(np.float64)
    expected = pulled_rows(values[:2], *wide, np.inf)
    assert np.allclose(found[0][:2], expected[0], rtol=0, atol=2e-3 if dtype == np.float32 else 1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sum_rows(rng: np.random.Generator, dtype: Any) -> None:
    """Rows of a range are the weighted sums of U's rows less the mean, once for each entry; others are left alone."""
    values = with_counts(rng, COUNTS, 1300)
    block, seen = oracles.row_block(values, dtype=dtype), ~np.isnan(values)
    factor, weights = rng.normal(size=(1300, 7)).astype(dtype), rng.random(1300).astype(dtype)
    mean, out = rng.normal(size=7).astype(dtype), np.full((len(COUNTS), 7), 7, dtype)
    for first, last in ((1, 4), (4, 9)):
        factored.sum_rows(block.indptr, block.indices, factor, weights, mean, first, last, out)
    wide = factor.astype(np.float64) * weights.astype(np.float64)[:, None] - mean.astype(np.float64)
    expected = np.where(seen, 1.0, 0.0) @ wide
    scale = np.maximum(seen.sum(axis=1), 1)[1:9, None]
    assert np.allclose(out[1:9] / scale, expected[1:9] / scale, rtol=0, atol=30 * np.finfo(dtype).eps)
    assert (out[[0, 9, 10]] == 7).all()


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 9), st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_any_sums_of_rows(m: int, n: int, rank: int, density: float, seed: int) -> None:
    """Any shape, rank and density; what was in the output before does not matter."""
    rng = np.random.default_rng(seed)
    seen = rng.random((m, n)) < density
    block = oracles.row_block(np.where(seen, 1.0, np.nan))
    factor, weights, mean = rng.normal(size=(n, rank)), rng.normal(size=n), rng.normal(size=rank)
    out = rng.normal(size=(m, rank))
    factored.sum_rows(block.indptr, block.indices, factor, weights, mean, 0, m, out)
    assert np.allclose(out, seen @ (factor * weights[:, None] - mean), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [2, RANK, 2 * CHUNK])
@pytest.mark.parametrize("shrinkage", [5.0, np.inf])
def test_the_first_row_that_fails_is_told(rng: np.random.Generator, dtype: Any, count: int, shrinkage: float) -> None:
    """Without ridge, entries where U is zero make no positive definite system: in the dual, in one chunk, in many."""
    values = with_counts(rng, [5, count, count], 1200)
    values[0, 600:], values[1:, :600] = np.nan, np.nan
    values[1:, 600 : 600 + count] = 1.0
    factor = rng.normal(size=(1200, RANK)).astype(dtype)
    factor[600:] = 0
    assert solve(values, factor, np.zeros(1200), 0.0, shrinkage)[0] == 1
    assert solve(values, factor, np.zeros(1200), 0.5, shrinkage)[0] == -1


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_cross(rng: np.random.Generator, dtype: Any) -> None:
    """Panels of columns add R'B, the residuals' column sums and counts to what is there, once each."""
    values = with_counts(rng, [0, 1, 30, 7, 12], 30)
    block = oracles.row_block(values, dtype=dtype)
    dense, solved = np.nan_to_num(values), rng.normal(size=(5, 6)).astype(dtype)
    cross, sums, counts = np.ones((30, 6), dtype), np.ones(30), np.ones(30)
    for left, right in ((0, 1), (1, 17), (17, 30)):
        factored.add_cross(block.indptr, block.indices, block.values, solved, left, right, cross, sums, counts)
    assert oracles.distance(cross, 1 + dense.T @ solved.astype(np.float64)) < 10 * np.finfo(dtype).eps
    assert oracles.distance(sums, 1 + dense.astype(dtype).sum(axis=0, dtype=np.float64)) < 1e-6
    assert np.array_equal(counts, 1 + (~np.isnan(values)).sum(axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_predict_entries(rng: np.random.Generator, dtype: Any) -> None:
    """Wanted entries of a range of rows are intercept + offset + b u, summed in float64; others are left alone."""
    wanted = oracles.row_block(np.where(rng.random((12, 30)) < 0.2, 1.0, np.nan))
    solved, factor = rng.normal(size=(12, 7)).astype(dtype), rng.normal(size=(30, 7)).astype(dtype)
    intercepts, offsets = rng.normal(size=12).astype(dtype), rng.normal(size=30).astype(dtype)
    out = np.full(len(wanted.values), 7.0)
    factored.predict_entries(solved, intercepts, factor, offsets, wanted.indptr, wanted.indices, 3, 9, out)
    full = solved.astype(np.float64) @ factor.T.astype(np.float64) + intercepts[:, None] + offsets.astype(np.float64)
    inside = (wanted.rows >= 3) & (wanted.rows < 9)
    assert oracles.distance(out[inside], full[wanted.rows, wanted.indices][inside]) < 1e-14
    assert (out[~inside] == 7).all()
