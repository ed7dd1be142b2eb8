"""The exact feature matrix P as an n × n array (DESIGN.md, "Dual form"). Knows not where blocks come from."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import partial as bind
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import SingularRowError
from rfmdist.features.power import (
    PANEL,
    PanelMap,
    matrix_power,
    mirrored,
    outer_product,
    power_of_two,
    rational_power,
    sandwich,
    saturated,
    spans,
)
from rfmdist.features.protocol import Partial, Step
from rfmdist.kernels import cpu
from rfmdist.kernels.threads import Threads
from rfmdist.observations.blocks import RowBlock

Form = Literal["product", "gram"]

TILE = 768
"""Columns of a tile of ZᵀZ: single-threaded tiles of this size run within 5 % of one threaded dsyrk."""
PANEL_BYTES = 1 << 22
"""Bytes of a panel of P that multiplies sparse rows: small enough for the cache, wide enough to pay for its copy."""
PIECE_ENTRIES = 1 << 12
"""Entries of the rows that one piece of work solves."""


@dataclass(frozen=True, eq=False)
class DenseFeatures:
    """P = ``unit`` × ``matrix``, symmetric positive semi-definite; M₀ = I gives P₀ = I.

    The unit is a power of two that keeps the mean of the matrix's diagonal near 1, against over- and underflow
    for powers of 1 and more. The rows are solved with ``matrix`` and ridge / unit: predictions are unchanged,
    dual coefficients are ``unit`` times the true ones.

    Attributes
    ----------
    matrix : ndarray of shape (n, n), float32 or float64
        P / unit; its dtype is that of the solves and products. Sums over slabs of rows are float64.
    unit : float
        A power of two.
    form : {"product", "gram"}
        How a group sums the AGOP: ``product`` forms Z = A (P + ωλI) slab by slab and adds ZᵀZ (nnz·n + m·n²
        products); ``gram`` adds AᵀA (Σ nᵢ²) and leaves two n³ products to the update. The plan picks.
    """

    matrix: NDArray[Any]
    unit: float = 1.0
    form: Form = "product"

    @classmethod
    def start(cls, n: int, dtype: Any, form: Form = "product") -> Self:
        """P = I, the algorithm's start."""
        return cls(np.eye(n, dtype=dtype), 1.0, form)

    @property
    def size(self) -> int:
        return self.matrix.shape[0]

    def zero(self, step: Step, threads: Threads) -> Partial:
        return Partial() if step.crossing else Partial({"agop": threads.zeros((self.size, self.size), np.float64)})

    def solve(self, block: RowBlock, step: Step, threads: Threads) -> NDArray[Any]:
        """Dual coefficients a = (P[Ω, Ω] + λI)⁻¹ y of each row, ndarray of shape (entries,).

        Raises
        ------
        SingularRowError
            If a row's system is not positive definite in this dtype.
        """
        dual = np.empty_like(block.values)
        run = bind(cpu.solve_rows, block.indptr, block.indices, block.values, self.matrix, step.ridge / self.unit)
        failed = threads.map(lambda first, last: run(first, last, dual), block.pieces(PIECE_ENTRIES))
        for row in failed:
            if row >= 0:
                size = int(block.indptr[row + 1] - block.indptr[row])
                raise SingularRowError(
                    f"row code {block.start + row}: its {size} × {size} system is not positive definite in"
                    f" {self.matrix.dtype.name}; raise ridge or floor"
                    + (", or use dtype='float64'" if self.matrix.dtype == np.float32 else "")
                )
        return dual

    def accumulate(
        self, partial: Partial, block: RowBlock, solution: NDArray[Any], step: Step, threads: Threads
    ) -> None:
        """Add the lower triangle of the block's ZᵀZ, or of its AᵀA in the gram form; crossing, append Z itself."""
        if step.crossing:
            rows = np.empty((block.stop - block.start, self.size), self.matrix.dtype)
            self._multiply(block, solution, step.replacement * step.ridge / self.unit, rows, threads)
            partial.rows.append((rows,))
            return
        if self.form == "gram":
            width = max(16, PANEL_BYTES // (8 * self.size))
            add = bind(cpu.add_gram_panel, block.indptr, block.indices, solution)
            threads.map(lambda top, bottom: add(top, bottom, partial.sums["agop"]), spans(self.size, width))
            return
        rows = threads.scratch("slab", (block.stop - block.start, self.size), self.matrix.dtype)
        self._multiply(block, solution, step.replacement * step.ridge / self.unit, rows, threads)
        tiles = [(*i, *j) for i in spans(self.size, TILE) for j in spans(self.size, TILE) if j <= i]
        tiles.sort(key=lambda tile: tile[0] == tile[2])  # the half-sized ones last, to even out the threads
        threads.map(lambda *tile: cpu.add_product_tile(rows, *tile, partial.sums["agop"]), tiles)

    def predict(
        self, block: RowBlock, solution: NDArray[Any], wanted: RowBlock, threads: Threads
    ) -> NDArray[np.float64]:
        """Entries of A P at the columns wanted, summed in float64."""
        out = np.empty(len(wanted.indices))
        run = bind(cpu.predict_entries, block.indptr, block.indices, solution, self.matrix)
        threads.map(
            lambda first, last: run(wanted.indptr, wanted.indices, first, last, out), block.pieces(PIECE_ENTRIES)
        )
        return out

    def complete(self, block: RowBlock, solution: NDArray[Any], threads: Threads) -> NDArray[Any]:
        """A P of the block's rows, ndarray of shape (rows, n)."""
        rows = np.empty((block.stop - block.start, self.size), self.matrix.dtype)
        self._multiply(block, solution, 0.0, rows, threads)
        return rows

    def rows_alone(self, block: RowBlock, solution: NDArray[Any]) -> NDArray[np.float64]:
        """Zeros: what a row is without any column, (rows,)."""
        return np.zeros(block.stop - block.start)

    def columns_alone(self) -> NDArray[np.float64]:
        """Zeros: what a column is without any row, (n + 1,)."""
        return np.zeros(self.size + 1)

    def update(
        self, total: Partial, rows: int, step: Step, floor: float, power: Fraction | int | str, run: PanelMap
    ) -> DenseFeatures:
        """P ← (AGOP + floor·I)^power for the ``total`` over all ``rows``; ``power`` is 2α, or "exponential".

        AGOP is Z'Z / m; where features cross to the rows it is Z Z' / n. One to be raised to a power that is not whole
        is kept in float64: roots make much of its small directions.

        Products alone, no decomposition; panel by panel through ``run``.
        """
        dtype, whole = self.matrix.dtype, not isinstance(power, str) and Fraction(power).denominator == 1
        if step.crossing:
            lower, rows = outer_product(total.joined()[0], run), self.size
        else:
            lower = total.sums["agop"]
        if self.form == "gram" and not step.crossing:
            shifted = self.matrix.astype(np.float64)
            shifted.flat[:: self.size + 1] += step.replacement * step.ridge / self.unit
            lower = sandwich(shifted, mirrored(lower, 1.0, np.dtype(np.float64)), run)
        unit = power_of_two(float(np.trace(lower)) / rows / len(lower) + floor)
        agop = mirrored(lower, 1 / (rows * unit), dtype if whole else np.dtype(np.float64))
        agop.flat[:: len(agop) + 1] += agop.dtype.type(floor / unit)
        if isinstance(power, str):
            return DenseFeatures(saturated(unit * agop, run).astype(dtype, copy=False), 1.0, self.form)
        if not whole:
            return self._rational(agop, unit, Fraction(power), run)
        raised = matrix_power(agop, int(power), run)
        again = power_of_two(float(np.trace(raised)) / len(raised))
        if again != 1:
            raised /= dtype.type(again)
        return DenseFeatures(raised, unit ** int(power) * again, self.form)

    def grown(self, rank: int, seed: int) -> DenseFeatures:
        """Return these features: they have every rank."""
        return self

    def distance(self, other: DenseFeatures) -> float:
        """Relative change ‖P − other‖ / ‖P‖ in the Frobenius norm, summed in float64; 1 where P has vanished."""
        ratio, change, size = other.unit / self.unit, 0.0, 0.0
        for top, bottom in spans(self.size, PANEL):
            ours = self.matrix[top:bottom].astype(np.float64)
            size += float(np.vdot(ours, ours))
            ours -= ratio * other.matrix[top:bottom]
            change += float(np.vdot(ours, ours))
        return float(np.sqrt(change / size)) if size else float(change > 0)

    def _rational(self, agop: NDArray[np.float64], unit: float, power: Fraction, run: PanelMap) -> DenseFeatures:
        """Features of (unit × ``agop``)^power; the root of a power of two need not be one, and goes into the matrix."""
        raised = rational_power(agop, power, run)
        size = unit ** float(power)
        again = power_of_two(size * float(np.trace(raised)) / len(raised))
        raised *= size / again
        return DenseFeatures(raised.astype(self.matrix.dtype, copy=False), again, self.form)

    def _multiply(
        self, block: RowBlock, solution: NDArray[Any], extra: float, out: NDArray[Any], threads: Threads
    ) -> None:
        """Write A (matrix + extra·I) of the block's rows to ``out`` (rows, n)."""
        width = max(16, PANEL_BYTES // (self.matrix.itemsize * self.size) // 16 * 16)
        weight = self.matrix.dtype.type(extra)
        run = bind(cpu.multiply_panel, block.indptr, block.indices, solution, self.matrix, weight)
        threads.map(lambda left, right: run(left, right, out), spans(self.size, width))
