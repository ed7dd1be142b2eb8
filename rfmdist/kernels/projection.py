"""Compiled kernels of variable projection: rows eliminated from a least-squares fit, what is left for the columns, and
how well a row or column is determined. Each runs on one thread over a range it is given and holds no lock of Python's.

A block of rows is ``indptr``, ``indices``, ``values`` as in `RowBlock`; ``factor`` is U, a C-contiguous n × r array.
All is float64: an exact fit is told from a near one by the digits that float32 lacks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.compiling import kernel

Array = NDArray[Any]

LEAST = 1e-300
"""What a vanishing pivot is raised to, so that a row without information gets finite coefficients."""


@kernel(fastmath={"contract", "reassoc"})
def _cholesky(gram: Array) -> None:
    """Replace the lower triangle of ``gram`` (r, r) by its Cholesky factor."""
    for a in range(len(gram)):
        for b in range(a + 1):
            left = gram[a, b]
            for c in range(b):
                left -= gram[a, c] * gram[b, c]
            gram[a, b] = np.sqrt(max(left, LEAST)) if a == b else left / gram[b, b]


@kernel(fastmath={"contract", "reassoc"})
def _solve(root: Array, right: Array) -> None:
    """Solve K K' x = ``right`` in its place, K in the lower triangle of ``root``."""
    rank = len(right)
    for a in range(rank):
        left = right[a]
        for c in range(a):
            left -= root[a, c] * right[c]
        right[a] = left / root[a, a]
    for a in range(rank - 1, -1, -1):
        left = right[a]
        for c in range(a + 1, rank):
            left -= root[c, a] * right[c]
        right[a] = left / root[a, a]


@kernel(fastmath={"contract", "reassoc"})
def _invert(root: Array, inverse: Array, out: Array) -> None:
    """(K K')^-1 into ``out`` (r, r), K in the lower triangle of ``root``; ``inverse`` (r, r) is for work."""
    rank = len(root)
    for c in range(rank):
        for a in range(c, rank):
            left = 1.0 if a == c else 0.0
            for b in range(c, a):
                left -= root[a, b] * inverse[b, c]
            inverse[a, c] = left / root[a, a]
    for a in range(rank):
        for b in range(a + 1):
            total = 0.0
            for c in range(a, rank):
                total += inverse[c, a] * inverse[c, b]
            out[a, b] = total
            out[b, a] = total


@kernel(fastmath={"contract", "reassoc"})
def eliminate_rows(
    indptr: Array,
    indices: Array,
    values: Array,
    factor: Array,
    ridge: float,
    first: int,
    last: int,
    solved: Array,
    inverses: Array,
    residual: Array,
) -> tuple[float, float]:
    """Solve rows ``first`` to ``last``, b = C U_O'y with C = (U_O'U_O + ridge I)^-1.

    Writes ``solved`` (rows, r), ``inverses`` (rows, r, r) and the ``residual`` y - U_O b (entries,). Returns the sums
    of squares of the residuals and of the solved rows. A row without entries is 0.
    """
    rank = factor.shape[1]
    gram, work, squares, penalty = np.zeros((rank, rank)), np.zeros((rank, rank)), 0.0, 0.0
    for i in range(first, last):
        b, start, stop = solved[i], indptr[i], indptr[i + 1]
        b[:] = 0
        if start == stop:
            inverses[i] = 0
            continue
        gram[:] = 0
        for e in range(start, stop):
            row, y = factor[np.uint64(indices[e])], values[e]
            for p in range(rank):
                b[p] += row[p] * y
                for q in range(p + 1):
                    gram[p, q] += row[p] * row[q]
        for p in range(rank):
            gram[p, p] += ridge
        _cholesky(gram)
        _solve(gram, b)
        _invert(gram, work, inverses[i])
        for e in range(start, stop):
            row, left = factor[np.uint64(indices[e])], values[e]
            for p in range(rank):
                left -= b[p] * row[p]
            residual[e] = left
            squares += left * left
        for p in range(rank):
            penalty += b[p] * b[p]
    return squares, penalty


@kernel(fastmath={"contract", "reassoc"})
def project_rows(
    indptr: Array,
    indices: Array,
    factor: Array,
    direction: Array,
    solved: Array,
    inverses: Array,
    first: int,
    last: int,
    out: Array,
) -> None:
    """Write v = D_O b less its part that the row takes up, U_O C U_O'v, for rows ``first`` to ``last``.

    ``direction`` is D (n, r); ``out`` (entries,). Summed over rows, v_q b is the Gauss-Newton product H(D)_q.
    """
    rank = factor.shape[1]
    right, taken = np.zeros(rank), np.zeros(rank)
    for i in range(first, last):
        b, inverse = solved[i], inverses[i]
        right[:] = 0
        for e in range(indptr[i], indptr[i + 1]):
            moved, row, v = direction[np.uint64(indices[e])], factor[np.uint64(indices[e])], 0.0
            for p in range(rank):
                v += moved[p] * b[p]
            out[e] = v
            for p in range(rank):
                right[p] += row[p] * v
        for p in range(rank):
            total = 0.0
            for q in range(rank):
                total += inverse[p, q] * right[q]
            taken[p] = total
        for e in range(indptr[i], indptr[i + 1]):
            row, v = factor[np.uint64(indices[e])], out[e]
            for p in range(rank):
                v -= row[p] * taken[p]
            out[e] = v


@kernel(fastmath={"contract", "reassoc"})
def scatter(
    indptr: Array, indices: Array, weights: Array, solved: Array, left: int, right: int, whole: bool, sums: Array
) -> None:
    """Add the weighted rows b_i of each column's entries to ``sums`` (n, r), columns ``left`` to ``right``.

    ``whole`` tells that these are all columns there are: nothing is then looked for.
    """
    rank = solved.shape[1]
    for i in range(len(indptr) - 1):
        e, stop, b = indptr[i], indptr[i + 1], solved[i]
        if not whole:
            e += np.searchsorted(indices[e:stop], left)
        while e < stop and (whole or indices[e] < right):
            row, weight = sums[np.uint64(indices[e])], weights[e]
            for p in range(rank):
                row[p] += weight * b[p]
            e += 1


@kernel(fastmath={"contract", "reassoc"})
def scatter_outer(
    indptr: Array, indices: Array, solved: Array, left: int, right: int, whole: bool, sums: Array
) -> None:
    """Add b_i b_i' of each column's entries to the lower triangles of ``sums`` (n, r, r); otherwise as `scatter`."""
    rank = solved.shape[1]
    for i in range(len(indptr) - 1):
        e, stop, b = indptr[i], indptr[i + 1], solved[i]
        if not whole:
            e += np.searchsorted(indices[e:stop], left)
        while e < stop and (whole or indices[e] < right):
            square = sums[np.uint64(indices[e])]
            for p in range(rank):
                for q in range(p + 1):
                    square[p, q] += b[p] * b[q]
            e += 1


@kernel
def count_entries(indptr: Array, indices: Array, rows: Array, columns: Array, by_row: Array, by_column: Array) -> None:
    """Count each row's entries in the ``columns`` of a mask (n,), and add each column's in the ``rows`` of another.

    ``rows`` (rows,) and ``by_row`` (rows,) are the block's own; ``by_column`` (n,) is added to.
    """
    for i in range(len(indptr) - 1):
        inside, there = 0, rows[i]
        for e in range(indptr[i], indptr[i + 1]):
            j = np.uint64(indices[e])
            inside += columns[j]
            by_column[j] += there
        by_row[i] = inside


@kernel(fastmath={"contract", "reassoc"})
def least_pivot(gram: Array, rank: int, scale: Array, count: int) -> float:
    """Least pivot of the first ``rank`` directions of ``gram``, lower triangle, in units of ``count`` typical entries.

    ``scale`` (rank or more,) holds the typical entry's squares. A pivot is the squared distance of one direction from
    those before it: near 1 where the entries pin all of them down, near 0 where one is hardly seen. ``gram`` is lost.
    """
    least = np.inf
    for a in range(rank):
        for b in range(a + 1):
            size = count * np.sqrt(scale[a] * scale[b])
            left = gram[a, b] / size if size > 0 else 0.0
            for c in range(b):
                left -= gram[a, c] * gram[b, c]
            if a == b:
                least = min(least, left)
                gram[a, a] = np.sqrt(max(left, LEAST))
            else:
                gram[a, b] = left / gram[b, b]
    return least


@kernel(fastmath={"contract", "reassoc"})
def row_pivots(
    indptr: Array,
    indices: Array,
    factor: Array,
    components: Array,
    ranks: Array,
    scales: Array,
    first: int,
    last: int,
    pivots: Array,
    counts: Array,
    own: Array,
) -> None:
    """Write of rows ``first`` to ``last`` the component, how many entries it has there, and their `least_pivot`.

    A row's component is the one of most of its entries, of several the first; ``components`` (n,) are the columns',
    0 for none. The pivot is that of U_O'U_O in the component's first ``ranks[component]`` columns of U, in units of
    ``scales[component]``.
    """
    gram, tally = np.zeros((factor.shape[1], factor.shape[1])), np.zeros(len(ranks), np.int64)
    for i in range(first, last):
        mine, count = 0, 0
        for e in range(indptr[i], indptr[i + 1]):
            c = components[np.uint64(indices[e])]
            if c:
                tally[c] += 1
                if tally[c] > count or (tally[c] == count and c < mine):
                    mine, count = c, tally[c]
        for e in range(indptr[i], indptr[i + 1]):
            tally[components[np.uint64(indices[e])]] = 0
        rank = ranks[mine]
        own[i], counts[i], pivots[i] = mine, count, 0.0
        if mine == 0 or count < rank:
            continue
        gram[:] = 0
        for e in range(indptr[i], indptr[i + 1]):
            j = np.uint64(indices[e])
            if components[j] != mine:
                continue
            row = factor[j]
            for p in range(rank):
                for q in range(p + 1):
                    gram[p, q] += np.float64(row[p]) * row[q]
        pivots[i] = least_pivot(gram, rank, scales[mine], count)


@kernel
def solve_columns(
    grams: Array, right: Array, scale: Array, counts: Array, ridge: float, solved: Array, pivots: Array
) -> None:
    """Solve (gram + ridge I) u = ``right`` of each column into ``solved`` (k, r), and tell its `least_pivot`."""
    rank = right.shape[1]
    work = np.zeros((rank, rank))
    for k in range(len(right)):
        work[:] = grams[k]
        pivots[k] = least_pivot(work, rank, scale, counts[k])
        work[:] = grams[k]
        for p in range(rank):
            work[p, p] += ridge
        _cholesky(work)
        solved[k] = right[k]
        _solve(work, solved[k])
