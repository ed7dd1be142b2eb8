"""Columns solved with a factor of the rows that memory does not hold: its rows are read stripe by stripe.

Each column's system is summed over the stripes (DESIGN.md, "Factored features": U_O'U_O, U_O'y and U_O'1 are sums over
entries) and solved after the last one, so that the entries are read once a stripe, and the factor once a batch of
columns. Plain factored features alone: what `AugmentedFeatures` adds wants all rows at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import SingularRowError
from rfmdist.features.factored import FactoredFeatures, Solution, row_pieces
from rfmdist.features.protocol import Partial, Step
from rfmdist.kernels import factored as kernels
from rfmdist.kernels.threads import Threads
from rfmdist.observations.blocks import RowBlock
from rfmdist.observations.scratch import Filed

BATCH_BYTES = 1 << 27
"""Bytes of the systems of a batch."""
COLUMNS = 256
"""Columns that one piece of work solves."""


def most_columns(rank: int, itemsize: int) -> int:
    """Columns whose systems fit `BATCH_BYTES`, one at least."""
    return max(1, BATCH_BYTES // (rank * rank * itemsize))


def batches(ranges: list[tuple[int, int]], rank: int, itemsize: int) -> list[list[tuple[int, int]]]:
    """Cut consecutive blocks into batches whose systems fit `BATCH_BYTES`, one block at least."""
    found: list[list[tuple[int, int]]] = []
    for start, stop in ranges:
        if not found or stop - found[-1][0][0] > most_columns(rank, itemsize):
            found.append([])
        found[-1].append((start, stop))
    return found


class Batch:
    """The systems of columns ``start`` to ``stop``, to be summed over stripes of the rows' factor."""

    def __init__(self, features: FactoredFeatures, start: int, stop: int) -> None:
        count, rank, dtype = stop - start, features.rank, features.factor.dtype
        self._features, self._start = features, start
        self._grams = np.zeros((count, rank, rank), dtype)
        self._rights = np.zeros((count, 1 if np.isinf(features.shrinkage[0]) else 2, rank))
        self._totals, self._squares = np.zeros(count), np.zeros(count)
        self._counts = np.zeros(count, np.int64)

    def stripes(self) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
        """Yield the stripes of the rows' factor: the first row of each, its part of the factor and of the offsets."""
        factor: Any = self._features.factor
        offsets: Any = self._features.offsets
        assert isinstance(factor, Filed)
        assert isinstance(offsets, Filed)
        step = factor.stripe or len(factor)
        for low in range(0, len(factor), step):
            high = min(low + step, len(factor))
            yield low, factor.load(low, high), offsets.load(low, high)

    def add(self, block: RowBlock, low: int, factor: NDArray[Any], offsets: NDArray[Any], threads: Threads) -> None:
        """Add the entries of a block of columns that lie in the rows of a stripe, which begins at row ``low``."""
        place = slice(block.start - self._start, block.stop - self._start)
        sums = self._grams[place], self._rights[place], self._totals[place], self._squares[place], self._counts[place]
        data = block.indptr, block.indices, block.values, factor, offsets, low
        threads.map(lambda first, last: kernels.add_stripe(*data, first, last, *sums), row_pieces(block, threads))

    def solve(self, step: Step, threads: Threads) -> tuple[Solution, float]:
        """Solve all columns; their residuals are not known, the sum of their squares is.

        Raises
        ------
        SingularRowError
            If a column's system is not positive definite in this dtype.
        """
        features, count = self._features, len(self._grams)
        ridge = step.ridge + features.floor
        solved = np.zeros((count, features.rank), features.factor.dtype)
        intercepts, squares = np.zeros(count, solved.dtype), np.zeros(count)
        data = self._grams, self._rights, self._totals, self._squares, self._counts, ridge, features.shrinkage[0]
        cuts = [(low, min(low + COLUMNS, count)) for low in range(0, count, COLUMNS)]
        failed = threads.map(
            lambda first, last: kernels.solve_sums(*data, first, last, solved, intercepts, squares), cuts
        )
        for column in failed:
            if column >= 0:
                raise SingularRowError(
                    f"row code {self._start + column}: its system of rank {features.rank} is not positive definite in"
                    f" {solved.dtype.name}; raise ridge or floor"
                )
        return Solution(solved, intercepts, np.empty(0, solved.dtype)), float(squares.sum())


def accumulate(
    partial: Partial, features: FactoredFeatures, start: int, solution: Solution, squares: float, step: Step,
    threads: Threads,
) -> None:  # fmt: skip
    """Add a solved batch to ``partial``, as `FactoredFeatures.accumulate` adds a block."""
    count = len(solution.rows)
    empty = np.zeros(count + 1, np.int64), np.empty(0, np.int32), solution.residual
    features.accumulate(partial, RowBlock(start, start + count, *empty), solution, step, threads)
    partial.sums["squares"] += squares
