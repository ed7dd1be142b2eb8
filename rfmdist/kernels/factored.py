"""Compiled kernels of the factored form: rows by r × r (or smaller) Cholesky systems. Each runs on one thread over a
range it is given and holds no lock of Python's.

In all of them a block of rows is ``indptr``, ``indices``, ``values`` as in `RowBlock`, and ``factor`` is U, a
C-contiguous n × r array of the values' dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from rfmdist.compiling import kernel
from rfmdist.kernels import lapack
from rfmdist.kernels.cpu import _cholesky_solve

Array = NDArray[Any]


@intrinsic
def _prefetch(typing: Any, array: Any, place: Any) -> Any:
    """Ask for the cache line of ``array`` (C-contiguous) at a flat ``place`` without waiting for it."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(ask, [address, number(0), number(3), number(1)])  # to read, soon and again, data
        return context.get_dummy_value()

    return types.void(array, types.uint64), build


CHUNK, SMALL_PRODUCT = 512, 900_000
"""Most entries whose rows of U are gathered at once, and most multiplications of their product: OpenBLAS multiplies
up to a million without packing, 1.5 times as fast at r = 64."""


AHEAD, LINE, FAR = 8, 64, 1 << 23
"""How many entries ahead rows of U are asked for, bytes of a cache line, and bytes of a U that no cache near the core
holds: there asking ahead saves a fifth of the time."""


def _gram(slab: Array, rows: int, out: Array, numbers: Array, scalars: Array, letters: Array) -> None:
    """Add slab[:rows]' slab[:rows] to ``out`` (r, r), by gemm: faster than syrk up to r = 64."""


@overload(_gram, inline="never")
def _gram_overload(slab: Array, rows: int, out: Array, numbers: Array, scalars: Array, letters: Array) -> Any:
    gemm = lapack.sgemm if slab.dtype == types.float32 else lapack.dgemm

    def gram(slab: Array, rows: int, out: Array, numbers: Array, scalars: Array, letters: Array) -> None:
        numbers[0] = slab.shape[1]
        numbers[1] = rows
        rank, depth = numbers[0:1].ctypes, numbers[1:2].ctypes
        one = scalars[0:1].ctypes
        plain, turned = letters[0:1].ctypes, letters[1:2].ctypes
        gemm(plain, turned, rank, rank, depth, one, slab.ctypes, rank, slab.ctypes, rank, one, out.ctypes, rank)

    return gram


def _outer(slab: Array, rows: int, out: Array, numbers: Array, scalars: Array, letters: Array) -> None:
    """Out = slab[:rows] slab[:rows]', in the first rows² places of ``out``."""


@overload(_outer, inline="never")
def _outer_overload(slab: Array, rows: int, out: Array, numbers: Array, scalars: Array, letters: Array) -> Any:
    gemm = lapack.sgemm if slab.dtype == types.float32 else lapack.dgemm

    def outer(slab: Array, rows: int, out: Array, numbers: Array, scalars: Array, letters: Array) -> None:
        numbers[0] = rows
        numbers[1] = slab.shape[1]
        size, depth = numbers[0:1].ctypes, numbers[1:2].ctypes
        one, zero = scalars[0:1].ctypes, scalars[1:2].ctypes
        plain, turned = letters[0:1].ctypes, letters[1:2].ctypes
        gemm(turned, plain, size, size, depth, one, slab.ctypes, depth, slab.ctypes, depth, zero, out.ctypes, size)

    return outer


@kernel
def _prefetch_row(factor: Array, i: int) -> None:
    """Ask for row i of U."""
    rank = factor.shape[1]
    start = np.uint64(i) * np.uint64(rank)
    for q in range(0, rank, LINE // factor.itemsize):
        _prefetch(factor, start + np.uint64(q))


@kernel(fastmath={"contract", "reassoc"})
def _gather(indices: Array, y: Array, factor: Array, first: int, last: int, slab: Array, right: Array) -> None:
    """Copy the rows of U at entries ``first`` to ``last`` into ``slab``; add U_O'y of them to ``right[0]``.

    And U_O'1 to ``right[1]``, where it is asked for by a second row.
    """
    rank = factor.shape[1]
    by_value = right[0]
    ahead = AHEAD if factor.nbytes > FAR else last
    for e in range(first, last):
        if e + ahead < last:
            _prefetch_row(factor, indices[e + ahead])
        row, target, weight = factor[np.uint64(indices[e])], slab[e - first], y[e]
        for q in range(rank):
            target[q] = row[q]
            by_value[q] += weight * row[q]
    if len(right) > 1:
        by_one = right[1]
        for t in range(last - first):
            row = slab[t]
            for q in range(rank):
                by_one[q] += row[q]


@kernel
def centre(indices: Array, values: Array, offsets: Array, first: int, last: int, y: Array) -> None:
    """Values of entries ``first`` to ``last`` less the offsets of their columns, into ``y`` (entries,)."""
    for e in range(first, last):
        y[e] = values[e] - offsets[np.uint64(indices[e])]


@kernel
def _sum(y: Array, first: int, last: int) -> float:
    """Sum of entries ``first`` to ``last`` in float64: numba's own adds float32 one by one in float32."""
    total = 0.0
    for e in range(first, last):
        total += y[e]
    return total


@kernel
def chunk(rank: int) -> int:
    """Entries whose rows of U are gathered at once."""
    return max(32, min(CHUNK, SMALL_PRODUCT // rank**2))


@kernel
def add_gram(indices: Array, y: Array, factor: Array, first: int, last: int, gram: Array, right: Array) -> None:
    """Add U_O'U_O, and U_O'y and U_O'1, of entries ``first`` to ``last`` to ``gram`` (r, r) and ``right`` (2, r).

    ``right`` has one row where no intercept is fitted: U_O'1 is then not needed.
    """
    slab = np.empty((chunk(factor.shape[1]), factor.shape[1]), factor.dtype)
    _add_gram(indices, y, factor, first, last, slab, gram, right)


@kernel
def _add_gram(
    indices: Array, y: Array, factor: Array, first: int, last: int, slab: Array, gram: Array, right: Array
) -> None:
    numbers, one = np.ones(3, np.int32), np.ones(1, factor.dtype)
    letters = np.array([78, 84], np.uint8)  # "NT"
    for start in range(first, last, len(slab)):
        stop = min(start + len(slab), last)
        _gather(indices, y, factor, start, stop, slab, right)
        _gram(slab, stop - start, gram, numbers, one, letters)


@kernel(fastmath={"contract", "reassoc"})
def solve_gram(gram: Array, right: Array, total: float, count: int, ridge: float, shrinkage: float, b: Array) -> float:
    """Solve one row from its sums: its coefficients into ``b`` (r,), its intercept returned; NaN if singular.

    The least (y - c - U_O b)^2 + ridge b^2 + shrinkage c^2 has b = b_y - c b_1, with b_y and b_1 the solutions for
    y and for ones, and c = sum(y - U_O b_y) / (shrinkage + sum(1 - U_O b_1)). ``total`` is the sum of the
    ``count`` values y; ``gram`` is lost.
    """
    numbers, lower = np.ones(3, np.int32), np.full(1, 76, np.uint8)  # "L"
    solved = right.copy()
    for q in range(len(b)):
        gram[q, q] += ridge
    numbers[0], numbers[1] = len(b), len(right)
    _cholesky_solve(gram, solved, numbers, lower)
    if numbers[2] != 0:
        return np.nan
    left, ones = float(total), float(count) + shrinkage
    intercept = 0.0
    if shrinkage < np.inf:
        for q in range(len(b)):
            left -= right[1, q] * solved[0, q]
            ones -= right[1, q] * solved[1, q]
        intercept = left / ones
    for q in range(len(b)):
        b[q] = solved[0, q] - intercept * solved[len(right) - 1, q] if intercept != 0 else solved[0, q]
    return intercept


@kernel(fastmath={"contract", "reassoc"})
def subtract_fit(indices: Array, factor: Array, b: Array, intercept: float, first: int, last: int, y: Array) -> None:
    """Turn ``y`` of entries ``first`` to ``last`` into residuals y - intercept - U_O b."""
    ahead = AHEAD if factor.nbytes > FAR else last
    for e in range(first, last):
        if e + ahead < last:
            _prefetch_row(factor, indices[e + ahead])
        row = factor[np.uint64(indices[e])]
        found = y[e] * 0
        for q in range(len(b)):
            found += row[q] * b[q]
        y[e] -= found + intercept


@kernel(fastmath={"contract", "reassoc"})
def _subtract_slab(slab: Array, b: Array, intercept: float, y: Array) -> None:
    """Turn all of ``y`` into residuals, where the slab still holds its rows of U."""
    for e in range(len(y)):
        row, found = slab[e], y[e] * 0
        for q in range(len(b)):
            found += row[q] * b[q]
        y[e] -= found + intercept


@kernel(fastmath={"contract", "reassoc"})
def _solve_short(
    indices: Array, y: Array, factor: Array, ridge: float, shrinkage: float, work: tuple[Array, ...], b: Array
) -> float:
    """Solve a row in the dual, (U_O U_O' + ridge I) a = y with b = U_O'a and residuals ridge a, as `solve_gram`."""
    _gather(indices, y, factor, 0, len(y), work[0], work[3])
    return _solve_dual(y, ridge, shrinkage, work, b)


@kernel(fastmath={"contract", "reassoc"})
def _solve_short_pulled(
    indices: Array,
    y: Array,
    factor: Array,
    ridge: float,
    base: Array,
    pull: Array,
    shrinkage: float,
    work: tuple[Array, ...],
    b: Array,
) -> float:
    """Solve a row in the dual with the ridge D = diag(base + ridge) and ``pull`` x added to U_O'y.

    With S = U_O D^-1/2 and z = D^-1/2 x: (S S' + I) a = y - S z, residuals a and b = D^-1/2 (S'a + z).
    """
    slab = work[0]
    _gather(indices, y, factor, 0, len(y), slab, work[3])
    scale, z = np.empty(len(b), b.dtype), np.empty(len(b), b.dtype)
    for q in range(len(b)):
        scale[q] = 1 / np.sqrt(base[q] + ridge)
        z[q] = pull[q] * scale[q]
    for t in range(len(y)):
        row, found = slab[t], y[t] * 0
        for q in range(len(b)):
            row[q] *= scale[q]
            found += row[q] * z[q]
        y[t] -= found
    intercept = _solve_dual(y, 1.0, shrinkage, work, b)
    for q in range(len(b)):
        b[q] = (b[q] + z[q]) * scale[q]
    return intercept


@kernel(fastmath={"contract", "reassoc"})
def _solve_dual(y: Array, ridge: float, shrinkage: float, work: tuple[Array, ...], b: Array) -> float:
    """Solve (S S' + ridge I) a = y for the rows S that the slab holds; b += S'a, ``y`` becomes the residuals."""
    slab, outer, dual, _ = work
    size, numbers = len(y), np.ones(3, np.int32)
    scalars, letters, lower = np.array([1, 0], b.dtype), np.array([78, 84], np.uint8), np.full(1, 76, np.uint8)
    _outer(slab, size, outer, numbers, scalars, letters)
    for t in range(size):
        outer[t * size + t] += ridge
        dual[t] = y[t]
        dual[size + t] = 1
    numbers[0], numbers[1] = size, 2 if shrinkage < np.inf else 1
    _cholesky_solve(outer, dual, numbers, lower)
    if numbers[2] != 0:
        return np.nan
    intercept = 0.0
    if shrinkage < np.inf:
        left, ones = 0.0, 0.0
        for t in range(size):
            left += dual[t]
            ones += dual[size + t]
        intercept = ridge * left / (shrinkage + ridge * ones)
    for t in range(size):
        row, weight = slab[t], dual[t] - intercept * dual[size + t] if intercept != 0 else dual[t]
        for q in range(len(b)):
            b[q] += weight * row[q]
        y[t] = ridge * weight
    return intercept


@kernel
def solve_rows(
    indptr: Array,
    indices: Array,
    values: Array,
    factor: Array,
    offsets: Array,
    ridges: Array,
    base: Array,
    pulls: Array,
    shrinkage: float,
    first: int,
    last: int,
    heavy: int,
    solved: Array,
    intercepts: Array,
    residual: Array,
) -> int:
    """Solve rows ``first`` to ``last`` for coefficients b, with an intercept unless ``shrinkage`` is infinite.

    b = (U_O'U_O + diag(base) + ridge I)^-1 (U_O'(y - intercept) + pull) with y the values less the columns'
    ``offsets`` (DESIGN.md, "Factored features" and "Additions"): ``ridges`` (rows,), ``base`` (r,) and ``pulls``
    (rows, r), of which the last two are empty where there are none. Writes ``solved`` (rows, r), ``intercepts``
    (rows,) and the ``residual`` (entries,). A row with few entries is solved in the dual, a smaller system. Rows of
    more than ``heavy`` entries are left alone. Returns -1, or the first row whose system is not positive definite.
    """
    rank, pulled = factor.shape[1], len(base) > 0
    few = min(3 * rank // 4, chunk(rank))
    if len(ridges) > 0 and ridges[0] == 0:
        # Without a ridge the dual alone can be solved for fewer entries than the rank, and has no inverse of D.
        few = 0 if pulled else rank
    slab = np.empty((max(few, chunk(rank)), rank), factor.dtype)
    gram = np.empty((rank, rank), factor.dtype)
    right = np.empty((2 if shrinkage < np.inf else 1, rank), factor.dtype)
    work = (slab, np.empty(few * few, factor.dtype), np.empty(2 * few, factor.dtype), right)
    for i in range(first, last):
        start, stop = indptr[i], indptr[i + 1]
        if stop - start > heavy:
            continue
        b = solved[i]
        b[:] = 0
        right[:] = 0
        intercepts[i] = 0
        centre(indices, values, offsets, start, stop, residual)
        if 0 < stop - start <= few:
            row, ridge = slice(start, stop), ridges[i]
            if pulled:
                intercepts[i] = _solve_short_pulled(
                    indices[row], residual[row], factor, ridge, base, pulls[i], shrinkage, work, b
                )
            else:
                intercepts[i] = _solve_short(indices[row], residual[row], factor, ridge, shrinkage, work, b)
        elif start < stop:
            ridge = ridges[i]
            gram[:] = 0
            if pulled:
                for q in range(rank):
                    gram[q, q] = base[q]
                    right[0, q] = pulls[i, q]
            _add_gram(indices, residual, factor, start, stop, slab, gram, right)
            total = _sum(residual, start, stop) if shrinkage < np.inf else 0.0
            intercepts[i] = solve_gram(gram, right, total, stop - start, ridge, shrinkage, b)
            if stop - start <= len(slab):
                _subtract_slab(slab, b, intercepts[i], residual[start:stop])
            else:
                subtract_fit(indices, factor, b, intercepts[i], start, stop, residual)
        if np.isnan(intercepts[i]):
            return i
    return -1


@kernel
def add_stripe(
    indptr: Array,
    indices: Array,
    values: Array,
    factor: Array,
    offsets: Array,
    low: int,
    first: int,
    last: int,
    grams: Array,
    rights: Array,
    totals: Array,
    squares: Array,
    counts: Array,
) -> None:
    """Add to the systems of rows ``first`` to ``last`` their entries in columns from ``low`` on, one for each of U.

    ``factor`` and ``offsets`` are a stripe of U and the offsets that begins with column ``low``. To ``grams``
    (rows, r, r), ``rights`` (rows, 1 or 2, r), and of y to ``totals``, ``squares``, ``counts`` (rows,). All but
    ``grams`` are float64: to them millions of entries are added one by one.
    """
    slab = np.empty((chunk(factor.shape[1]), factor.shape[1]), factor.dtype)
    for i in range(first, last):
        row = indices[indptr[i] : indptr[i + 1]]
        start = indptr[i] + np.searchsorted(row, low)
        stop = indptr[i] + np.searchsorted(row, low + len(factor))
        if start == stop:
            continue
        inside = indices[start:stop] - low
        y = np.empty(stop - start, factor.dtype)
        centre(inside, values[start:stop], offsets, 0, len(y), y)
        _add_gram(inside, y, factor, 0, len(y), slab, grams[i], rights[i])
        for e in range(len(y)):
            totals[i] += y[e]
            squares[i] += np.float64(y[e]) ** 2
        counts[i] += len(y)


@kernel
def solve_sums(
    grams: Array,
    rights: Array,
    totals: Array,
    squares: Array,
    counts: Array,
    ridge: float,
    shrinkage: float,
    first: int,
    last: int,
    solved: Array,
    intercepts: Array,
    left: Array,
) -> int:
    """Solve rows ``first`` to ``last`` from their sums, as `add_stripe` leaves them; ``grams`` are lost.

    Into ``left`` (rows,) the sum of squares of the residuals, r'r = y'y - c y'1 - b'U_O'y - c r'1 - ridge b'b with
    U_O'r = ridge b. Returns -1, or the first row whose system is not positive definite.
    """
    for i in range(first, last):
        if counts[i] == 0:
            continue
        b, count = solved[i], counts[i]
        c = solve_gram(grams[i], rights[i].astype(b.dtype), totals[i], count, ridge, shrinkage, b)
        if np.isnan(c):
            return i
        intercepts[i] = c
        fitted, size, ones = 0.0, 0.0, 0.0
        for q in range(len(b)):
            fitted += np.float64(b[q]) * rights[i, 0, q]
            size += np.float64(b[q]) ** 2
            if len(rights[i]) > 1:
                ones += np.float64(b[q]) * rights[i, 1, q]
        residual = totals[i] - c * count - ones
        left[i] = max(squares[i] - c * totals[i] - fitted - c * residual - ridge * size, 0.0)
    return -1


@kernel(fastmath={"contract", "reassoc"})
def sum_rows(
    indptr: Array, indices: Array, factor: Array, weights: Array, mean: Array, first: int, last: int, out: Array
) -> None:
    """Sum weight_j u_j - mean over the entries j of each of the rows ``first`` to ``last`` into ``out`` (rows, r)."""
    rank = factor.shape[1]
    ahead = AHEAD if factor.nbytes > FAR else len(indices)
    for i in range(first, last):
        start, stop, total = indptr[i], indptr[i + 1], out[i]
        for q in range(rank):
            total[q] = (start - stop) * mean[q]
        for e in range(start, stop):
            if e + ahead < stop:
                _prefetch_row(factor, indices[e + ahead])
            j = np.uint64(indices[e])
            row, weight = factor[j], weights[j]
            for q in range(rank):
                total[q] += weight * row[q]


@kernel(fastmath={"contract", "reassoc"})
def add_cross(
    indptr: Array,
    indices: Array,
    residual: Array,
    solved: Array,
    left: int,
    right: int,
    cross: Array,
    residuals: Array,
    counts: Array,
) -> None:
    """Add rows ``left`` to ``right`` of R'B to ``cross`` (n, r): R the residuals, B the solved rows.

    Also the sums of their residuals, and their number, to ``residuals`` and ``counts`` (n,), float64.
    """
    rank = solved.shape[1]
    for i in range(len(indptr) - 1):
        start, stop = indptr[i], indptr[i + 1]
        t, b = start + np.searchsorted(indices[start:stop], left), solved[i]
        while t < stop and indices[t] < right:
            j, weight = np.uint64(indices[t]), residual[t]
            row = cross[j]
            for q in range(rank):
                row[q] += weight * b[q]
            residuals[j] += weight
            counts[j] += 1
            t += 1


@kernel(fastmath={"contract", "reassoc"})
def predict_entries(
    solved: Array,
    intercepts: Array,
    factor: Array,
    offsets: Array,
    wanted_indptr: Array,
    wanted: Array,
    first: int,
    last: int,
    out: Array,
) -> None:
    """Predict the columns ``wanted`` of rows ``first`` to ``last`` into ``out`` (wanted entries,).

    A prediction is intercept + offset + b_i · u_j, summed in float64.
    """
    for i in range(first, last):
        b = solved[i]
        for w in range(wanted_indptr[i], wanted_indptr[i + 1]):
            j = np.uint64(wanted[w])
            row, total = factor[j], np.float64(intercepts[i]) + offsets[j]
            for q in range(len(b)):
                total += np.float64(b[q]) * row[q]
            out[w] = total
