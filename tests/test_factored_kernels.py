"""Compiled kernels of the factored form: rows of every length are the least squares that METHOD.md states."""

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
    ridge: float,
    shrinkage: float,
    first: int = 0,
    last: int | None = None,
    heavy: int = 1 << 30,
) -> tuple[int, Any, Any, Any]:
    """Run the kernel on rows ``first`` to ``last``; where it writes nothing there are sevens."""
    dtype, block = factor.dtype, oracles.row_block(values, dtype=factor.dtype)
    out = (
        np.full((len(values), factor.shape[1]), 7, dtype),
        np.full(len(values), 7, dtype),
        np.full(len(block.values), 7, dtype),
    )
    data = block.indptr, block.indices, block.values, factor, offsets.astype(dtype)
    for array in data:
        array.flags.writeable = False  # as a cluster hands them over
    rows = first, len(values) if last is None else last
    return factored.solve_rows(*data, ridge, shrinkage, *rows, heavy, *out), *out


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
