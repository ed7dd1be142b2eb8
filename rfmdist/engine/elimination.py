"""The pure functions that variable projection maps over groups of rows, and what they are given.

A group's result depends on its arguments alone. Blocks cut out and rows solved are remembered where they were made, and
made again where they are not: a pickled memory arrives empty, a lost worker costs time only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfmdist.features.power import spans
from rfmdist.features.protocol import Partial
from rfmdist.features.recovered import RecoveredFeatures
from rfmdist.kernels import projection as kernels
from rfmdist.kernels.threads import Threads
from rfmdist.observations.blocks import RowBlock
from rfmdist.observations.kept import KeptBlocks
from rfmdist.observations.targets import Targets

Group = tuple[int, int]
Floats = NDArray[np.float64]
Levels = NDArray[np.int16]
OUT = np.iinfo(np.int16).max
"""Level of a column that is in no block."""
PIECE_ENTRIES = 1 << 15
"""Entries of the rows that one piece of work eliminates, and of one panel's scatter: below it sharing costs more."""
PANELS = 16
"""Panels of columns at most: each looks at every row."""


class Solved(NamedTuple):
    """Rows eliminated: b (rows, r), their inverses (rows, r, r), residuals (entries,) and the two sums of squares."""

    rows: Floats
    inverses: Floats
    residual: Floats
    squares: float
    penalty: float

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.rows.nbytes + self.inverses.nbytes + self.residual.nbytes


class _Memory:
    """Solved rows by their range, within a bound; a pickled one arrives empty."""

    def __init__(self) -> None:
        self._found: dict[Group, Solved] = {}
        self._size = 0

    def __reduce__(self) -> tuple[type[_Memory], tuple[()]]:
        return _Memory, ()

    def get(self, key: Group) -> Solved | None:
        return self._found.get(key)

    def offer(self, key: Group, solved: Solved, limit: int) -> None:
        if self._size + solved.nbytes <= limit:
            self._found[key] = solved
            self._size += solved.nbytes


@dataclass(frozen=True, eq=False)
class Block:
    """The fitted entries between some rows and columns.

    Attributes
    ----------
    targets : Targets
        Where the entries come from.
    rows, columns : int16 ndarray of shape (m,), (n,)
        Levels: an entry belongs to the block if its column's level is at most its row's. Rows outside have -1,
        columns outside `OUT`. Levels above 0 are for what is reached from a block step by step.
    """

    targets: Targets
    rows: Levels
    columns: Levels
    _kept: KeptBlocks = field(default_factory=KeptBlocks, init=False, repr=False)

    @classmethod
    def of(cls, targets: Targets, rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> Block:
        """Return the block between the rows and columns of two masks."""
        return cls(targets, np.where(rows, 0, -1).astype(np.int16), np.where(columns, 0, OUT).astype(np.int16))

    def read(self, start: int, stop: int) -> RowBlock:
        """Read the block's entries in rows ``start`` to ``stop``; no row is dropped."""
        found = self._kept.get(start, stop)
        if found is None:
            whole, _ = self.targets.read(start, stop)
            levels = np.repeat(self.rows[start:stop], np.diff(whole.indptr))
            inside = whole.where(self.columns[whole.indices] <= levels)
            found = self._kept.offer(start, stop, (inside, None), self.targets.keep_bytes)
        return found[0]


@dataclass(frozen=True, eq=False)
class Basis:
    """A column factor U, n × r, float64, and the ridge with which the rows of one block are eliminated."""

    factor: Floats
    ridge: float
    _solved: _Memory = field(default_factory=_Memory, init=False, repr=False)

    def parts(self, group: Group, block: Block, threads: Threads) -> Iterator[tuple[RowBlock, Solved]]:
        """Yield the group's rows with their solutions, range by range; ``block`` is the same one each time."""
        for start, stop in block.targets.observations.ranges(group):
            part, found = block.read(start, stop), self._solved.get((start, stop))
            if found is None:
                found = _eliminate(part, self.factor, self.ridge, threads)
                self._solved.offer((start, stop), found, block.targets.keep_bytes)
            yield part, found


class Counts(NamedTuple):
    """Entries of each row within some columns, (m,), and of each column within some rows, (n,)."""

    by_row: NDArray[np.int64]
    by_column: NDArray[np.int64]


# ---- functions of a group ---------------------------------------------------------------------------------------


def measure(group: Group, block: Block, threads: Threads) -> Floats:
    """Return the number of the block's entries, their sum of squares, and the number of rows that have any."""
    found = np.zeros(3)
    for start, stop in block.targets.observations.ranges(group):
        part = block.read(start, stop)
        squares = float(np.vdot(part.values, part.values))
        found += np.array([len(part.values), squares, np.count_nonzero(np.diff(part.indptr))])
    return found


def eliminate(group: Group, block: Block, basis: Basis, threads: Threads) -> Floats:
    """Return the sums of squares of the residuals and of the solved rows."""
    return np.sum([(solved.squares, solved.penalty) for _, solved in basis.parts(group, block, threads)], axis=0)


def slope(group: Group, block: Block, basis: Basis, threads: Threads) -> Partial:
    """Return G_q = Σ ρ_iq b_i and the lower triangles of P_q = Σ b_i b_i', over the rows i that observe column q."""
    total = _zero(basis)
    for part, solved in basis.parts(group, block, threads):
        _scatter(part, solved.residual, solved.rows, total.sums["right"], threads)
        _scatter_outer(part, solved.rows, total.sums["grams"], threads)
    return total


def curvature(group: Group, block: Block, basis: Basis, direction: Floats, threads: Threads) -> Floats:
    """Return the Gauss-Newton product H(D), (n, r), with D the ``direction`` and rows eliminated."""
    total = np.zeros(direction.shape)
    for part, solved in basis.parts(group, block, threads):
        moved = threads.scratch("moved", (len(part.values),), np.float64)
        data = part.indptr, part.indices, basis.factor, direction, solved.rows, solved.inverses
        pieces = part.pieces(PIECE_ENTRIES)
        threads.map(lambda a, b, data=data, out=moved: kernels.project_rows(*data, a, b, out), pieces)
        _scatter(part, moved, solved.rows, total, threads)
    return total


def leftovers(group: Group, block: Block, basis: Basis, threads: Threads) -> Partial:
    """Return the sums of squares of residuals and of values: of each column, (n,), and of each row in their order."""
    n = len(basis.factor)
    total = Partial({"left": np.zeros(n), "squares": np.zeros(n)})
    for part, solved in basis.parts(group, block, threads):
        places, parts = part.rows - part.start, (("left", solved.residual), ("squares", part.values))
        by_row = []
        for name, values in parts:
            squares = np.square(values, dtype=np.float64)
            total.sums[name] += np.bincount(part.indices, squares, n)
            by_row.append(np.bincount(places, squares, part.stop - part.start))
        total.rows.append(tuple(by_row))
    return total


def residual_gram(group: Group, block: Block, basis: Basis, vector: Floats, threads: Threads) -> Floats:
    """Return R'R v, (n, 1), with R (m, n) the residuals, 0 where the block has no entry, and v the ``vector`` (n,)."""
    total = np.zeros((len(vector), 1))
    for part, solved in basis.parts(group, block, threads):
        height, products = part.stop - part.start, solved.residual * vector[part.indices]
        by_row = np.asarray(np.bincount(part.rows - part.start, products, height), np.float64)[:, None]
        _scatter(part, solved.residual, by_row, total, threads)
    return total


def normal_equations(group: Group, block: Block, basis: Basis, beyond: Block, threads: Threads) -> Partial:
    """Return Σ y_iq b_i and Σ b_i b_i' over the entries of the block ``beyond``, rows solved from ``block``'s."""
    total = _zero(basis)
    for part, solved in basis.parts(group, block, threads):
        wanted = beyond.read(part.start, part.stop)
        _scatter(wanted, wanted.values, solved.rows, total.sums["right"], threads)
        _scatter_outer(wanted, solved.rows, total.sums["grams"], threads)
    return total


def solved_rows(group: Group, block: Block, basis: Basis, threads: Threads) -> Partial:
    """Return the solved rows b, in the order of the rows."""
    return Partial(rows=[(solved.rows,) for _, solved in basis.parts(group, block, threads)])


def sketch(group: Group, targets: Targets, width: int, threads: Threads) -> Floats:
    """Return Σ y_i w_i', (n, width), with w_i random normal numbers: of all rows y_i it spans what these span."""
    total = np.zeros((targets.observations.shape[1], width))
    for start, stop in targets.observations.ranges(group):
        block, _ = targets.read(start, stop)
        drawn = np.random.default_rng(start).standard_normal((stop - start, width))
        _scatter(block, block.values, drawn, total, threads)
    return total


def count(
    group: Group, targets: Targets, rows: NDArray[np.bool_], columns: NDArray[np.bool_], threads: Threads
) -> Partial:
    """Count the fitted entries of each row within ``columns`` (n,), and of each column within ``rows`` (m,)."""
    total = Partial({"by_column": np.zeros(len(columns), np.int64)})
    for start, stop in targets.observations.ranges(group):
        block, _ = targets.read(start, stop)
        by_row = np.empty(stop - start, np.int64)
        kernels.count_entries(block.indptr, block.indices, rows[start:stop], columns, by_row, total.sums["by_column"])
        total.rows.append((by_row,))
    return total


def determined(group: Group, targets: Targets, features: RecoveredFeatures, spare: int, threads: Threads) -> Partial:
    """Return what `RecoveredFeatures.determines` of the rows, in their order."""
    total = Partial()
    for start, stop in targets.observations.ranges(group):
        block, _ = targets.read(start, stop)
        total.rows.append((features.determines(block, threads, spare),))
    return total


# ---- inside -----------------------------------------------------------------------------------------------------


def _zero(basis: Basis) -> Partial:
    n, rank = basis.factor.shape
    return Partial({"right": np.zeros((n, rank)), "grams": np.zeros((n, rank, rank))})


def _eliminate(block: RowBlock, factor: Floats, ridge: float, threads: Threads) -> Solved:
    """Eliminate all rows of a block, by pieces whose sums are added in order."""
    height, rank = block.stop - block.start, factor.shape[1]
    rows, inverses, residual = np.empty((height, rank)), np.empty((height, rank, rank)), np.empty(len(block.values))
    data = block.indptr, block.indices, block.values, factor, ridge
    sums = threads.map(
        lambda a, b: kernels.eliminate_rows(*data, a, b, rows, inverses, residual), block.pieces(PIECE_ENTRIES)
    )
    squares, penalty = (float(np.sum(part)) for part in zip(*sums, strict=True))
    return Solved(rows, inverses, residual, squares, penalty)


def _panels(block: RowBlock, n: int) -> list[tuple[int, int]]:
    """Cut the columns so that threads share a scatter; the cut depends on the block's size alone."""
    return spans(n, -(-n // min(PANELS, 1 + len(block.indices) // PIECE_ENTRIES)))


def _scatter(block: RowBlock, weights: NDArray[np.floating], solved: Floats, sums: Floats, threads: Threads) -> None:
    cuts = _panels(block, len(sums))
    data, whole = (block.indptr, block.indices, weights, solved), len(cuts) == 1
    threads.map(lambda left, right: kernels.scatter(*data, left, right, whole, sums), cuts)


def _scatter_outer(block: RowBlock, solved: Floats, sums: Floats, threads: Threads) -> None:
    cuts = _panels(block, len(sums))
    data, whole = (block.indptr, block.indices, solved), len(cuts) == 1
    threads.map(lambda left, right: kernels.scatter_outer(*data, left, right, whole, sums), cuts)
