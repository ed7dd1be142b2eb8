"""Matrices of heavy tails, rank and noise as stated, made block by block: any size in the memory of one block.

Row counts are lognormal, at least 1; columns are popular as 1 / (place + n / 500), in no order of their codes. An
entry is ``u_i v_j / sqrt(rank) + noise e``, all parts standard normal: its signal has variance 1, and no held-out
RMSE is below ``noise`` but by chance. A row is a function of the seed and its number alone, so that blocks, their
size and their order change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rfmdist.observations.ahead import ahead
from rfmdist.observations.layout import index_dtype
from rfmdist.observations.loops import mixed

SPREAD = 1.2
"""Of the logarithm of row counts; MovieLens 20M's is about 1.1."""
HEAD = 500
"""How many times as popular the first column is as the last; MovieLens 20M's first is in half of all rows, as here."""
BLOCK = 1 << 20
"""Entries a block holds at most, unless one row holds more."""

Block = tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Problem:
    """What all blocks are made from.

    Attributes
    ----------
    counts : int64 ndarray of shape (m,)
        Entries of each row.
    popular : integer ndarray of shape (n,)
        Column codes, the most popular first.
    factor : float32 ndarray of shape (n, rank)
        Of the columns.
    noise : float
        Standard deviation of what is no signal.
    seed : int
    """

    counts: NDArray[np.int64]
    popular: NDArray[np.integer]
    factor: NDArray[np.float32]
    noise: float
    seed: int

    @classmethod
    def draw(cls, shape: tuple[int, int], entries: int, rank: int = 10, noise: float = 0.5, seed: int = 0) -> Problem:
        """Draw what is about ``entries`` entries of a matrix of ``shape``; a row has at most a quarter of them."""
        m, n = shape
        rng = np.random.default_rng(seed)
        weights = rng.lognormal(sigma=SPREAD, size=m)
        scale, most = entries / weights.sum(), max(1, n // 4)
        for _ in range(20):  # what the clipping takes and gives, the others give and take
            scale *= entries / np.clip(weights * scale, 1, most).sum()
        counts = np.clip(weights * scale + rng.random(m), 1, most).astype(np.int64)
        popular = rng.permutation(n).astype(index_dtype(n))
        return cls(counts, popular, rng.standard_normal((n, rank), np.float32), noise, seed)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.counts), len(self.popular)

    @property
    def entries(self) -> int:
        """Number of entries."""
        return int(self.counts.sum())

    def blocks(self, *, shuffled: bool = False) -> Iterator[Block]:
        """Rows, columns and values of all entries, the next block made while one is used.

        They are sorted by row and column. Shuffled, each block holds rows from all over the matrix in random order.
        """
        return ahead(lambda rows: self._block(rows, shuffled), self._row_sets(shuffled))

    def _row_sets(self, shuffled: bool) -> Iterator[NDArray[np.int64]]:
        m = len(self.counts)
        if shuffled:
            sets = max(1, -(-self.entries // BLOCK))
            yield from (np.arange(k, m, sets) for k in range(min(sets, m)))
            return
        ends, start = np.cumsum(self.counts), 0
        while start < m:
            before = ends[start] - self.counts[start]
            stop = max(start + 1, int(np.searchsorted(ends, before + BLOCK, side="right")))
            yield np.arange(start, stop)
            start = stop

    def _block(self, rows: NDArray[np.int64], shuffled: bool) -> Block:
        counts = self.counts[rows]
        starts = np.concatenate([[0], np.cumsum(counts)])
        columns, values = np.empty(starts[-1], self.popular.dtype), np.empty(starts[-1], np.float32)
        _fill(rows, starts, self.popular, self.factor, np.float32(self.noise), np.uint64(self.seed), columns, values)
        entries = np.repeat(rows, counts), columns, values
        if not shuffled:
            return entries
        order = np.random.default_rng([self.seed, int(rows[0])]).permutation(len(values))
        return entries[0][order], columns[order], values[order]


@njit(nogil=True, cache=True)
def _random(state: Any) -> tuple[Any, float]:
    """The next state, and a uniform number inside (0, 1)."""
    state += np.uint64(0x9E3779B97F4A7C15)
    return state, (np.float64(mixed(state) >> np.uint64(11)) + 0.5) * 2.0**-53


@njit(nogil=True, cache=True)
def _normals(state: Any, found: Any) -> Any:
    """Fill ``found`` with standard normal numbers, two from each pair of uniforms; return the next state."""
    for k in range(0, len(found), 2):
        state, u = _random(state)
        state, v = _random(state)
        radius = np.sqrt(-2.0 * np.log(u))
        found[k] = radius * np.cos(2.0 * np.pi * v)
        if k + 1 < len(found):
            found[k + 1] = radius * np.sin(2.0 * np.pi * v)
    return state


@njit(nogil=True, cache=True)
def _places(state: Any, sums: Any, popular: Any, columns: Any) -> Any:
    """Fill ``columns`` with different columns, sorted, the popular ones likelier; return the next state.

    Sums of exponentials over their total are sorted uniforms, and so give places in ascending order: one that was
    drawn before gives way to the next.
    """
    n, count = len(popular), len(columns)
    total = 0.0
    for k in range(count):
        state, u = _random(state)
        total -= np.log(u)
        sums[k] = total
    state, u = _random(state)
    total -= np.log(u)
    head, power = n / HEAD, np.log(1.0 + HEAD) / total
    last = -1
    for k in range(count):
        place = np.int64(head * (np.exp(sums[k] * power) - 1.0))
        last = min(max(place, last + 1), n - count + k)
        columns[k] = popular[last]
    columns.sort()
    return state


@njit(nogil=True, cache=True)
def _fill(rows: Any, starts: Any, popular: Any, factor: Any, noise: Any, seed: Any, columns: Any, values: Any) -> None:
    """Fill ``columns`` and ``values`` with the entries of ``rows``, those of the k-th from ``starts[k]`` on."""
    rank = factor.shape[1]
    longest = np.max(np.diff(starts))
    sums, errors, own = np.empty(longest), np.empty(longest, np.float32), np.empty(rank, np.float32)
    for k in range(len(rows)):
        first, last = starts[k], starts[k + 1]
        # Mixed twice, so that no row's stream starts within another's.
        state = mixed(mixed(seed) + np.uint64(rows[k]))
        state = _places(state, sums, popular, columns[first:last])
        state = _normals(state, own)
        own /= np.float32(np.sqrt(rank))
        _normals(state, errors[: last - first])
        for e in range(first, last):
            value = noise * errors[e - first]
            for q in range(rank):
                value += own[q] * factor[columns[e], q]
            values[e] = value
