"""Compiled kernels for the CPU: solves of rows, products with sparse dual coefficients. Each runs on one thread
over a range it is given and holds no lock of Python's, so that threads may share a block.

In all of them a block of rows is ``indptr``, ``indices``, ``values`` as in `RowBlock`, and features are a
symmetric C-contiguous n × n array of the values' dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from rfmdist.compiling import kernel
from rfmdist.kernels import lapack

Array = NDArray[Any]


def _cholesky_solve(matrix: Array, right: Array, numbers: Array, lower: Array) -> None:
    """Solve ``matrix x = right`` in place; ``numbers`` = (n, 1, info) as LAPACK wants them."""


@overload(_cholesky_solve, inline="never")
def _cholesky_solve_overload(matrix: Array, right: Array, numbers: Array, lower: Array) -> Any:
    single = matrix.dtype == types.float32
    potrf, potrs = (lapack.spotrf, lapack.spotrs) if single else (lapack.dpotrf, lapack.dpotrs)

    def solve(matrix: Array, right: Array, numbers: Array, lower: Array) -> None:
        size, one, info = numbers[0:1].ctypes, numbers[1:2].ctypes, numbers[2:3].ctypes
        potrf(lower.ctypes, size, matrix.ctypes, size, info)
        if numbers[2] == 0:
            potrs(lower.ctypes, size, one, matrix.ctypes, size, right.ctypes, size, info)

    return solve


@kernel
def solve_rows(
    indptr: Array,
    indices: Array,
    values: Array,
    features: Array,
    ridge: float,
    first: int,
    last: int,
    dual: Array,
) -> int:
    """Dual coefficients of rows ``first`` to ``last``: ``(P[O, O] + ridge I) a = y`` (DESIGN.md, "Dual form").

    Writes them to ``dual`` (entries,) and returns -1, or the first row whose system is not positive definite.
    """
    longest = 0
    for i in range(first, last):
        longest = max(longest, indptr[i + 1] - indptr[i])
    gathered = np.empty(longest * longest, values.dtype)
    numbers = np.ones(3, np.int32)
    lower = np.full(1, 76, np.uint8)  # "L"
    for i in range(first, last):
        start, size = indptr[i], indptr[i + 1] - indptr[i]
        if size == 0:
            continue
        observed = indices[start : start + size]
        for c in range(size):
            column = features[np.uint64(observed[c])]  # unsigned: no check for places counted from the end
            base = np.uint64(c * size)
            for r in range(c, size):
                gathered[base + np.uint64(r)] = column[np.uint64(observed[r])]
            gathered[base + np.uint64(c)] += ridge
        right = dual[start : start + size]
        right[:] = values[start : start + size]
        numbers[0] = size
        _cholesky_solve(gathered, right, numbers, lower)
        if numbers[2] != 0:
            return i
    return -1


@kernel(fastmath={"contract"})
def multiply_panel(
    indptr: Array,
    indices: Array,
    dual: Array,
    features: Array,
    extra: float,
    left: int,
    right: int,
    out: Array,
) -> None:
    """Columns ``left`` to ``right`` of ``A (P + extra I)`` into ``out`` (rows, n).

    The panel of P is copied so that it stays in the core's cache while all rows use it.
    """
    width = right - left
    panel = np.ascontiguousarray(features[:, left:right])
    for i in range(len(indptr) - 1):
        z = out[i, left:right]
        z[:] = 0
        t, stop = indptr[i], indptr[i + 1]
        while t + 4 <= stop:
            p0, p1 = panel[indices[t]], panel[indices[t + 1]]
            p2, p3 = panel[indices[t + 2]], panel[indices[t + 3]]
            a0, a1, a2, a3 = dual[t], dual[t + 1], dual[t + 2], dual[t + 3]
            for q in range(width):
                z[q] += a0 * p0[q] + a1 * p1[q] + a2 * p2[q] + a3 * p3[q]
            t += 4
        while t < stop:
            p0, a0 = panel[indices[t]], dual[t]
            for q in range(width):
                z[q] += a0 * p0[q]
            t += 1
        if extra != 0:
            t = indptr[i] + np.searchsorted(indices[indptr[i] : stop], left)
            while t < stop and indices[t] < right:
                z[indices[t] - left] += extra * dual[t]
                t += 1


def _tile_product(rows: Array, out: Array, numbers: Array, scalars: Array, letters: Array) -> None:
    """Out = rows[:, top:bottom]' rows[:, left:right] + beta out, by syrk on the diagonal and gemm elsewhere."""


@overload(_tile_product, inline="never")
def _tile_product_overload(rows: Array, out: Array, numbers: Array, scalars: Array, letters: Array) -> Any:
    single = rows.dtype == types.float32
    gemm, syrk = (lapack.sgemm, lapack.ssyrk) if single else (lapack.dgemm, lapack.dsyrk)

    def product(rows: Array, out: Array, numbers: Array, scalars: Array, letters: Array) -> None:
        # LAPACK sees row-major arrays transposed: our lower triangle is its upper one, and ld = n.
        top, left, height, width = numbers[0], numbers[1], numbers[2:3].ctypes, numbers[3:4].ctypes
        depth, stride, out_stride = numbers[4:5].ctypes, numbers[5:6].ctypes, numbers[6:7].ctypes
        one, beta, plain, turned = (
            scalars[0:1].ctypes,
            scalars[1:2].ctypes,
            letters[0:1].ctypes,
            letters[1:2].ctypes,
        )
        if top == left:
            upper = letters[2:3].ctypes
            syrk(upper, plain, height, depth, one, rows[0, top:].ctypes, stride, beta, out.ctypes, out_stride)
        else:
            a, b = rows[0, left:].ctypes, rows[0, top:].ctypes
            gemm(plain, turned, width, height, depth, one, a, stride, b, stride, beta, out.ctypes, out_stride)

    return product


@kernel
def add_product_tile(rows: Array, top: int, bottom: int, left: int, right: int, gram: Array) -> None:
    """Add the tile [top:bottom, left:right] of ``Z'Z`` to ``gram`` (n, n), float64; on the diagonal its lower half.

    ``rows`` (k, n) is a slab of Z. float64 is summed by BLAS in place; a float32 product is made in float32 and
    added in float64.
    """
    n = rows.shape[1]
    numbers = np.array([top, left, bottom - top, right - left, rows.shape[0], n, n], np.int32)
    scalars = np.ones(2, rows.dtype)
    letters = np.array([78, 84, 85], np.uint8)  # "NTU"
    if rows.itemsize == 8:
        _tile_product(rows, gram[top:, left:], numbers, scalars, letters)
        return
    tile = np.empty((bottom - top, right - left), rows.dtype)
    numbers[6] = right - left
    scalars[1] = 0
    _tile_product(rows, tile, numbers, scalars, letters)
    for i in range(bottom - top):
        stop = i + 1 if top == left else right - left
        for j in range(stop):
            gram[top + i, left + j] += tile[i, j]


@kernel(fastmath={"contract"})
def add_gram_panel(indptr: Array, indices: Array, dual: Array, top: int, bottom: int, gram: Array) -> None:
    """Add the lower triangle's rows ``top`` to ``bottom`` of ``A'A`` to ``gram`` (n, n), float64."""
    for i in range(len(indptr) - 1):
        start, stop = indptr[i], indptr[i + 1]
        t = start + np.searchsorted(indices[start:stop], top)
        while t < stop and indices[t] < bottom:
            row, a = gram[indices[t]], np.float64(dual[t])
            for s in range(start, t + 1):
                row[np.uint64(indices[s])] += a * dual[s]
            t += 1


@kernel(fastmath={"contract"})
def predict_entries(
    indptr: Array,
    indices: Array,
    dual: Array,
    features: Array,
    wanted_indptr: Array,
    wanted: Array,
    first: int,
    last: int,
    out: Array,
) -> None:
    """``(A P)[i, j]`` for the columns ``wanted`` of rows ``first`` to ``last``, into ``out`` (wanted entries,)."""
    for i in range(first, last):
        for w in range(wanted_indptr[i], wanted_indptr[i + 1]):
            row = features[wanted[w]]
            total = 0.0
            for t in range(indptr[i], indptr[i + 1]):
                total += dual[t] * np.float64(row[np.uint64(indices[t])])
            out[w] = total
