"""The feature matrix as U U' + floor·I with U n × r: the cost of alternating least squares, at any size.

See DESIGN.md, "Factored features" and "Both sides". Knows not where blocks come from. Cholesky factors of r × r
matrices alone: no decomposition, no n × n and no m × n array.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from functools import partial as partial_of
from math import comb
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from rfmdist.errors import SingularRowError
from rfmdist.features.power import PanelMap, here, rational_power, spans
from rfmdist.features.protocol import Partial, Step
from rfmdist.kernels import factored as kernels
from rfmdist.kernels.threads import Threads, one_blas_thread
from rfmdist.observations.blocks import RowBlock
from rfmdist.observations.scratch import Filed, combine, resident

Square = NDArray[np.float64]

PIECE_ENTRIES = 1 << 15
"""Entries of the rows that one piece of work solves, and of a part of a heavy row."""
FEW_THREADS, LEAST_PIECE = 4, 1 << 11
"""More threads have smaller pieces of rows, as many each; this many entries still take 50 times a piece's start."""
HEAVY = 1 << 16
"""Entries beyond which a row's Gram matrix is summed by several threads."""
CROSS_PANEL_BYTES, CROSS_PANELS = 1 << 18, (16, 64)
"""A panel of R'B stays in a core's cache; at least 16 share the work among threads, more than 64 only cost."""
TALL = 1 << 12
"""Rows of a tall array that are multiplied at once: in float64 a core's cache holds them at rank 32."""


class Solution(NamedTuple):
    """Solved rows b (rows, r), their intercepts (rows,), and the residuals (entries,), ndarrays of U's dtype."""

    rows: NDArray[Any]
    intercepts: NDArray[Any]
    residual: NDArray[Any]


@dataclass(frozen=True, eq=False)
class FactoredFeatures:
    """P = ``factor factor'`` + ``floor`` I, of the columns, or of the rows where both sides take turns.

    Attributes
    ----------
    factor : ndarray of shape (n, r), float32 or float64
        U; its dtype is that of the solves and products. Matrices of r × r are float64.
    offsets : ndarray of shape (n,)
        Taken from the values before rows are solved, in the targets' unit and U's dtype.
    shrinkage : tuple of float
        Entries' worth of pull towards 0 of the intercepts of what is solved, and of ``offsets``. Infinite where no
        intercept is fitted, or the offsets stay as they are.
    floor : float
        What stands for the part of the spectrum that U leaves out.
    """

    factor: NDArray[Any]
    offsets: NDArray[Any]
    shrinkage: tuple[float, float] = (np.inf, np.inf)
    floor: float = 0.0

    @classmethod
    def start(
        cls, offsets: NDArray[Any], rank: int, dtype: Any, seed: int, shrinkage: tuple[float, float] = (np.inf, np.inf)
    ) -> Self:
        """P = Q Q' with Q random and orthonormal, n × min(rank, n); at full rank P = I, the algorithm's start."""
        rng, n = np.random.default_rng(seed), len(offsets)
        drawn = rng.standard_normal((n, min(rank, n)), np.dtype(dtype))
        return cls(_orthonormal(_orthonormal(drawn)), offsets.astype(dtype), shrinkage)

    @property
    def size(self) -> int:
        return self.factor.shape[0]

    @property
    def rank(self) -> int:
        return self.factor.shape[1]

    @cached_property
    def gram(self) -> Square:
        """U'U, r × r."""
        with one_blas_thread():
            return tall_gram(self.factor, self.factor)

    # ---- a block of rows --------------------------------------------------------------------------------------

    def zero(self, step: Step, threads: Threads) -> Partial:
        rank, dtype = self.rank, self.factor.dtype
        sums = {"gram": np.zeros((rank, rank)), "squares": np.zeros(())}
        if step.crossing:
            sums["across"] = np.zeros((rank, rank))
        else:
            sums["cross"] = threads.zeros((self.size, rank), dtype)
            sums |= {name: threads.zeros((self.size,), np.float64) for name in ("residuals", "counts")}
        return Partial(sums)

    def solve(self, block: RowBlock, step: Step, threads: Threads) -> Solution:
        """Solve (U_O'U_O + δ I) b = U_O'(y - intercept) for each row, δ = ridge + floor.

        y are the values less the columns' offsets; row and intercept are fitted together, exactly.

        Raises
        ------
        SingularRowError
            If a row's system is not positive definite in this dtype.
        """
        dtype, rows = self.factor.dtype, block.stop - block.start
        solution = Solution(
            threads.scratch("solved", (rows, self.rank), dtype),
            threads.scratch("intercepts", (rows,), dtype),
            threads.scratch("residual", (len(block.values),), dtype),
        )
        data = block.indptr, block.indices, block.values, self.factor, self.offsets
        ridges, base, pulls = self._ridges(block, step), self._base, self._pulls(block, threads)
        failed = threads.map(
            lambda first, last: kernels.solve_rows(
                *data, ridges, base, pulls, self.shrinkage[0], first, last, HEAVY, *solution
            ),
            row_pieces(block, threads),
        )
        failed += [
            self._solve_heavy(block, i, float(ridges[i]), pulls[i : i + 1], solution, threads)
            for i in block.longer_than(HEAVY)
        ]
        for row in failed:
            if row >= 0:
                raise SingularRowError(
                    f"row code {block.start + row}: its system of rank {self.rank} is not positive definite in"
                    f" {self.factor.dtype.name}; raise ridge or floor"
                    + (", or use dtype='float64'" if self.factor.dtype == np.float32 else "")
                )
        return solution

    def accumulate(self, partial: Partial, block: RowBlock, solution: Solution, step: Step, threads: Threads) -> None:
        """Add the block's B'B and R'B; where features cross, append its rows of Z Q / √n.

        Z = B U' + w R, and Z applied to the features' own basis Q is B (U'U + w δ I) K^-T with U'U = K K': no
        product with the sparse residuals is needed. The sums are left to the threads (`Threads.later`).
        """
        sums = [lambda: self._add_grams(partial, solution)]
        if step.crossing:
            rows = self._rows_across(block, solution, step, threads)
            partial.rows.append(rows)
            sums.append(lambda: self._sum_across(partial, block, rows))
        else:
            sums += self._cross_sums(partial, block, solution)
        threads.later(*sums)

    def predict(self, block: RowBlock, solution: Solution, wanted: RowBlock, threads: Threads) -> NDArray[np.float64]:
        """Entries of B U', with intercepts and offsets, at the columns wanted; summed in float64."""
        out = np.empty(len(wanted.indices))
        data = solution.rows, solution.intercepts, self.factor, self.offsets, wanted.indptr, wanted.indices
        threads.map(lambda first, last: kernels.predict_entries(*data, first, last, out), row_pieces(wanted, threads))
        return out

    def complete(self, block: RowBlock, solution: Solution, threads: Threads) -> NDArray[Any]:
        """B U' of the block's rows, with intercepts and offsets, ndarray of shape (rows, n)."""
        completed = solution.rows @ self.factor.T
        completed += self.offsets
        completed += solution.intercepts[:, None]
        return np.asarray(completed)

    def rows_alone(self, block: RowBlock, solution: Solution) -> NDArray[np.float64]:
        """Intercepts of the block's rows: what is predicted in a column of which nothing is known, (rows,)."""
        return solution.intercepts.astype(np.float64)

    def columns_alone(self) -> NDArray[np.float64]:
        """Offsets of the columns, and 0: what is predicted in a row of which nothing is known, (n + 1,)."""
        return np.append(self.offsets, 0).astype(np.float64)

    # ---- the update -------------------------------------------------------------------------------------------

    def update(
        self, total: Partial, rows: int, step: Step, floor: float, power: Fraction | int | str, run: PanelMap
    ) -> Self:
        """P ← (AGOP + floor·I)^power, its first r directions; ``power`` is 2α.

        Columns alone: AGOP = Z'Z / m restricted to the rows that B spans (Nyström),
        C = Z'B K^-T / √m with B'B = K K'. Where features cross: AGOP = Z Z' / n, C = Z Q / √n. What C leaves out
        of the AGOP's trace is spread over the other directions: the next features' floor.
        """
        assert not isinstance(power, str), "check_parameters"
        with one_blas_thread():
            if step.crossing:
                (root, offsets), shrinkage = total.joined(), self.shrinkage[::-1]
                gram, divisor = total.sums["across"], self.size
            else:
                root, offsets, shrinkage = self._nystrom(total, rows, step), self._next_offsets(total), self.shrinkage
                gram, divisor = tall_gram(root, root), rows
            others = len(root) - len(gram)
            left_out = (self._squares(total, step) / divisor - float(np.trace(gram))) / others if others > 0 else 0.0
            if power != 1:
                square = _power_root(gram, floor, Fraction(power), root.dtype).astype(root.dtype)
                root, gram = turned(root, square), congruent(square, gram)
        offsets = offsets if offsets.dtype == root.dtype else offsets.astype(root.dtype)
        after = type(self)(root, offsets, shrinkage, float((floor + max(left_out, 0.0)) ** power))
        after.__dict__["gram"] = gram  # it is known, and where the factor lies in files it need not be read for it
        return after

    def loaded(self) -> Self:
        """Return the same features in memory, if a part of them lies in files and memory holds it.

        Once for all tasks of a process.
        """
        if not isinstance(self.factor, Filed):
            return self
        return resident(self.factor.scratch, f"{self.factor.name}-{self.factor.cuts[0]}", self.read_in)

    def read_in(self) -> Self:
        """Return the same features, read from files as far as they lie there, unless they are read by stripes."""
        if not isinstance(self.factor, Filed) or self.factor.stripe:
            return self
        found = copy(self)
        found.__dict__.update((name, part.load()) for name, part in vars(self).items() if isinstance(part, Filed))
        return found

    def grown(self, rank: int, seed: int) -> Self:
        """Return features of this rank at least: new random directions of U have the floor's size.

        Without a floor, as at the start, they have that of the least direction there is.
        """
        if rank <= self.rank or self.rank == self.size:
            return self
        size = self.floor or float(np.diag(self.gram).min())
        drawn = np.random.default_rng(seed).standard_normal((self.size, min(rank, self.size) - self.rank))
        more = np.sqrt(size) * _orthonormal(drawn)
        return replace(self, factor=np.concatenate([self.factor, more.astype(self.factor.dtype)], axis=1))

    def distance(self, other: Self) -> float:
        """Relative change ‖U U' - other‖ / ‖U U'‖ in the Frobenius norm, in float64; 1 where U has vanished."""
        with one_blas_thread():
            mixed = tall_gram(self.factor, other.factor)
        size = float(np.sum(self.gram**2))
        change = max(size + float(np.sum(other.gram**2)) - 2 * float(np.sum(mixed**2)), 0.0)
        return float(np.sqrt(change / size)) if size else float(change > 0)

    # ---- inside -----------------------------------------------------------------------------------------------

    def _add_grams(self, partial: Partial, solution: Solution) -> None:
        """Add B'B, and the sum of the squares of R."""
        partial.sums["squares"] += sum_of_squares(solution.residual)
        partial.sums["gram"] += tall_gram(solution.rows, solution.rows)

    def _cross_sums(self, partial: Partial, block: RowBlock, solution: Solution) -> list[Callable[[], None]]:
        """Return what adds R'B, and the sums and the number of each column's residuals, each of some columns."""
        least, most = CROSS_PANELS
        panels = min(max(self.factor.nbytes // CROSS_PANEL_BYTES, least), most)
        rows = max(len(solution.rows), 1)
        panels = min(panels, max(2, len(solution.residual) // rows))  # each looks at every row
        data = block.indptr, block.indices, solution.residual, solution.rows
        out = [partial.sums[name] for name in ("cross", "residuals", "counts")]
        cuts = spans(self.size, max(1, -(-self.size // panels)))
        return [partial_of(kernels.add_cross, *data, left, right, *out) for left, right in cuts]

    def _ridges(self, block: RowBlock, step: Step) -> NDArray[np.float64]:
        """δ of each row of the block, ndarray of shape (rows,)."""
        return np.full(block.stop - block.start, step.ridge + self.floor)

    @property
    def _base(self) -> NDArray[Any]:
        """What is added to the diagonal of every row's system, ndarray of shape (r,); empty if nothing."""
        return np.empty(0, self.factor.dtype)

    def _pulls(self, block: RowBlock, threads: Threads) -> NDArray[Any]:
        """What is added to the right side of each row's system, ndarray of shape (rows, r); empty if nothing."""
        return np.empty((0, self.rank), self.factor.dtype)

    def _rows_across(
        self, block: RowBlock, solution: Solution, step: Step, threads: Threads
    ) -> tuple[NDArray[Any], ...]:
        """The block's rows of the other side's features, and of their offsets."""
        basis = self._into_basis(step) / np.sqrt(self.size)
        return tall_product(solution.rows, basis), solution.intercepts.copy()

    def _sum_across(self, partial: Partial, block: RowBlock, rows: tuple[NDArray[Any], ...]) -> None:
        """Sum over the block's rows of the other side's features what their update asks of all of them."""
        partial.sums["across"] += tall_gram(rows[0], rows[0])

    def _weight(self, step: Step) -> float:
        """The weight w δ of Z's sparse part in units of the dual coefficients: ω ridge + floor."""
        return step.replacement * step.ridge + self.floor

    def _into_basis(self, step: Step) -> Square:
        """(U'U + w δ I) K^-T with U'U = K K'."""
        return np.asarray((self.gram + self._weight(step) * np.eye(self.rank)) @ self._inverse_root)

    @cached_property
    def _inverse_root(self) -> Square:
        """K^-T with U'U = K K', once for all blocks."""
        return _inverse_root(self.gram, self.factor.dtype)

    def _nystrom(self, total: Partial, rows: int, step: Step) -> NDArray[Any]:
        """Z'B K^-T / √m with Z'B = U B'B + w R'B; it takes the place of R'B in ``total``."""
        gram, delta, dtype = total.sums["gram"], step.ridge + self.floor, self.factor.dtype
        inverse = _inverse_root(gram, dtype) / np.sqrt(rows)
        of_factor = (gram @ inverse).astype(dtype)
        of_cross = (self._weight(step) / delta * inverse).astype(dtype) if delta > 0 else np.zeros_like(of_factor)
        root = total.sums["cross"]  # in its place: at millions of columns another n × r array is what memory lacks
        for top, bottom in spans(self.size, TALL):
            root[top:bottom] = self.factor[top:bottom] @ of_factor + root[top:bottom] @ of_cross
        return root

    def _squares(self, total: Partial, step: Step) -> float:
        """‖Z‖², the AGOP's trace before its division, since U_O' residual = δ b makes all of Z's parts known."""
        solved, delta = total.sums["gram"], step.ridge + self.floor
        weight = self._weight(step)
        sparse = (weight / delta) ** 2 * float(total.sums["squares"]) if delta > 0 else 0.0
        return float(np.sum(solved * self.gram)) + 2 * weight * float(np.trace(solved)) + sparse

    def _next_offsets(self, total: Partial) -> NDArray[Any]:
        """Offsets that take in what is left of their columns' values, shrunken."""
        if np.isinf(self.shrinkage[1]):
            return self.offsets
        counts = total.sums["counts"]
        return (total.sums["residuals"] + counts * self.offsets) / np.maximum(counts + self.shrinkage[1], 1)

    def _solve_heavy(
        self, block: RowBlock, i: int, delta: float, pull: NDArray[Any], solution: Solution, threads: Threads
    ) -> int:
        """Solve one row with its entries shared among threads; the sums are made in a fixed order."""
        start, stop = int(block.indptr[i]), int(block.indptr[i + 1])
        cuts = [(start + a, start + b) for a, b in spans(stop - start, PIECE_ENTRIES)]
        y, b, intercepts, shrinkage = solution.residual, solution.rows[i], solution.intercepts, self.shrinkage[0]

        def part(first: int, last: int) -> tuple[NDArray[Any], ...]:
            gram = np.zeros((self.rank, self.rank), self.factor.dtype)
            right = np.zeros((1 if np.isinf(shrinkage) else 2, self.rank), self.factor.dtype)
            kernels.centre(block.indices, block.values, self.offsets, first, last, y)
            kernels.add_gram(block.indices, y, self.factor, first, last, gram, right)
            return gram, right, y[first:last].sum(dtype=np.float64)

        wide = (np.sum(parts, axis=0, dtype=np.float64) for parts in zip(*threads.map(part, cuts), strict=True))
        gram, right, total = next(wide).astype(b.dtype), next(wide).astype(b.dtype), next(wide)
        if len(pull):
            gram.flat[:: self.rank + 1] += self._base
            right[0] += pull[0]
        intercepts[i] = kernels.solve_gram(gram, right, float(total), stop - start, delta, shrinkage, b)
        if np.isnan(intercepts[i]):
            return i
        threads.map(
            lambda first, last: kernels.subtract_fit(block.indices, self.factor, b, intercepts[i], first, last, y), cuts
        )
        return -1


def row_pieces(block: RowBlock, threads: Threads) -> list[tuple[int, int]]:
    """Cut the block's rows into pieces of work; a row's numbers are the same in any piece."""
    return block.pieces(min(max(PIECE_ENTRIES * FEW_THREADS // threads.count, LEAST_PIECE), PIECE_ENTRIES))


def sum_of_squares(values: NDArray[Any]) -> float:
    """Sum of squares in float64; float32 is widened piece by piece, since BLAS would sum it in float32."""
    step = PIECE_ENTRIES if values.dtype == np.float32 else max(len(values), 1)
    pieces = (values[first:last].astype(np.float64, copy=False) for first, last in spans(len(values), step))
    return sum(float(np.vdot(piece, piece)) for piece in pieces)


def tall_gram(a: NDArray[Any], b: NDArray[Any]) -> Square:
    """``a' b`` of tall arrays, summed in float64.

    What another process sent may lie at any address: NumPy would then copy ``a`` twice, and not see that a' a is
    symmetric, which takes another routine and gives other bits.
    """
    total = np.zeros((a.shape[1], b.shape[1]))
    for top, bottom in spans(len(a), TALL):
        left = np.require(a[top:bottom], np.float64, "A")
        total += left.T @ (left if a is b else b[top:bottom].astype(np.float64, copy=False))
    return total


def congruent(square: NDArray[Any], gram: Square) -> Square:
    """``square' gram square`` in float64."""
    wide = square.astype(np.float64)
    return np.asarray(wide.T @ gram @ wide)


def turned(rows: Any, square: NDArray[Any], beside: NDArray[Any] | None = None) -> Any:
    """``rows`` (m, any) times ``square``, and the columns ``beside`` them; of rows in files, once they are loaded.

    In the place of ``rows`` where it fits: at millions of rows another m × r array is what memory lacks.
    """
    if isinstance(rows, Filed):
        return replace(rows, square=square, beside=beside)
    wide = square.shape[1] + (0 if beside is None else beside.shape[1])
    out = rows if wide == rows.shape[1] else np.empty((len(rows), wide), rows.dtype)
    for top, bottom in spans(len(rows), TALL):
        combine(rows[top:bottom], square, None if beside is None else beside[top:bottom], out[top:bottom])
    return out


def tall_product(tall: NDArray[Any], square: Square) -> NDArray[Any]:
    """``tall @ square`` in the tall array's dtype, by parts of fixed height."""
    small, out = square.astype(tall.dtype), np.empty((len(tall), square.shape[1]), tall.dtype)
    for top, bottom in spans(len(tall), TALL):
        np.matmul(tall[top:bottom], small, out=out[top:bottom])
    return out


def _orthonormal(tall: NDArray[Any]) -> NDArray[Any]:
    """An orthonormal basis of the columns' span, by Cholesky QR; done twice it is orthonormal to rounding."""
    with one_blas_thread():
        root = np.linalg.cholesky(tall_gram(tall, tall))
        return tall_product(tall, np.linalg.inv(root).T)


def _root(gram: Square, dtype: np.dtype[Any]) -> Square:
    """Lower triangular K with K K' = ``gram``, positive semi-definite and known to the rounding of ``dtype``.

    Scaled to a unit diagonal first, so that a small direction is as well known as a large one; directions below
    the rounding are damped rather than blown up.

    Raises
    ------
    SingularRowError
        If the features left the dtype's range.
    """
    if not np.isfinite(gram).all():
        raise SingularRowError(f"the features left the range of {dtype.name}: raise ridge or floor")
    raised, rounding = 0.0, 4 * len(gram) * np.finfo(dtype).eps
    while True:
        size = np.sqrt(np.maximum(np.diag(gram) + raised, 0))
        size[size == 0] = 1
        with np.errstate(all="ignore"):
            unit = gram / np.outer(size, size)
        unit.flat[:: len(gram) + 1] += raised / size**2 + rounding
        try:
            return np.asarray(size[:, None] * np.linalg.cholesky(unit))
        except np.linalg.LinAlgError:  # small directions are lost in the rounding of large ones: raise them to it
            raised = max(10 * raised, rounding * float(np.diag(gram).max()), float(np.finfo(np.float64).tiny))


def _inverse_root(gram: Square, dtype: np.dtype[Any]) -> Square:
    """K^-T with K K' = ``gram``, as `_root` has it."""
    return np.asarray(np.linalg.inv(_root(gram, dtype)).T)


def _power_root(gram: Square, floor: float, power: Fraction, dtype: np.dtype[Any]) -> Square:
    """F with C F F' C' = (C C' + floor I)^power - floor^power I, where C'C = ``gram``: C times F is the new U."""
    if power.denominator > 1:
        return _rational_root(gram, floor, power, dtype)
    polynomial, raised, whole = np.zeros_like(gram), np.eye(len(gram)), int(power)
    for j in range(1, whole + 1):
        polynomial += comb(whole, j) * floor ** (whole - j) * raised
        raised = raised @ gram
    return _root(polynomial, np.dtype(np.float64))


def _rational_root(gram: Square, floor: float, power: Fraction, dtype: np.dtype[Any]) -> Square:
    """F for a power a/b: F F' = ((S + floor I)^(a/b) - floor^(a/b) I) S^-1 of S = ``gram``.

    With Y = (S + floor I)^(1/b) and y = floor^(1/b) both differences have the factor Y - y I, and what is left of them
    is a sum without cancellation: F F' = s_a / s_b, s_k = Y^(k-1) + y Y^(k-2) + ... + y^(k-1). All of these commute, so
    F = s_a^(1/2) K^-T with s_b = K K': where S has lost rank that still knows its large directions. Those below the
    rounding of S, that of ``dtype``, are raised to it: a power below 1 divides by them.
    """
    size = float(np.trace(gram))
    if not size:
        return np.zeros_like(gram)
    definite = gram + (floor + size * float(np.finfo(dtype).eps)) * np.eye(len(gram))
    y = floor ** (1 / power.denominator)
    root = rational_power(definite, Fraction(1, power.denominator), here)
    above, below = (_ladder(root, y, terms) for terms in (power.numerator, power.denominator))
    if power.numerator > 1:
        above = rational_power((above + above.T) / 2, Fraction(1, 2), here)
    return np.asarray(solve_triangular(np.linalg.cholesky(below), above, lower=True).T)


def _ladder(matrix: Square, number: float, terms: int) -> Square:
    """Sum of matrix^j number^(terms - 1 - j) over j below ``terms``."""
    total = np.zeros_like(matrix)
    for j in range(terms):  # Horner's scheme
        total = total @ matrix
        total.flat[:: len(matrix) + 1] += number**j
    return total
