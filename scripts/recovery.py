"""Recover random low-rank matrices from some of their entries, knowing neither rank nor noise.

    python scripts/recovery.py [--size 500] [--rank 5] [--observed 10000 8000] [--seeds 10] [--cap 20] [--power 0.5]

Gaussian factors, values scaled to unit mean square, entries observed uniformly at random. `LinRFM` runs with its
defaults in float64 and without offsets, told only the ``--cap`` of the rank; it sees the observed entries alone. An
iteration is both half steps, or one pass where columns alone have features. Printed for the stage on all observed
entries: iterations until the mean square error of the unobserved entries is below 1e-3, in rows and columns with at
least rank + 2 observed entries, and the error at the end. Beside it alternating least squares, once told the true
rank and once given the cap: with the same falling ridge, and with the slower one that suits it best of those tried.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse as sp

from rfmdist import LinRFM
from rfmdist.progress import Iteration
from rfmdist.selection import SEARCH_FACTOR, START

LIMIT = 1e-3
"""Mean square error of the unobserved entries that counts as recovered; the values' own is 1."""
ALS_SCHEDULES = {"same ridge": (START, SEARCH_FACTOR["both"], 1e-9, 100), "its ridge": (5.0, 0.95, 1e-4, 150)}
"""Start, factor, least ridge and iterations; the second was looked for on the unobserved entries themselves."""


class Problem:
    """A low-rank matrix of unit mean square, which of its entries are observed, and which are scored."""

    def __init__(self, size: int, rank: int, observed: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        matrix = rng.normal(size=(size, rank)) @ rng.normal(size=(rank, size))
        mask = np.zeros(size * size, bool)
        mask[rng.permutation(size * size)[:observed]] = True
        mask = mask.reshape(size, size)
        self.matrix = matrix / np.sqrt(np.mean(matrix**2))
        self.observed = sp.coo_array((self.matrix[mask], np.nonzero(mask)), matrix.shape)
        # Nothing determines a row of fewer entries than the rank and a few more.
        self.scored = ~mask & np.outer(mask.sum(axis=1) >= rank + 2, mask.sum(axis=0) >= rank + 2)

    def error(self, completed: Any) -> float:
        """Mean square error of the scored entries."""
        return float(np.mean((completed - self.matrix)[self.scored] ** 2))


class Watch:
    """A callback that scores the unobserved entries of every refitted iterate; it changes nothing."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.errors: list[float] = []

    def __call__(self, iteration: Iteration) -> None:
        if iteration.stage == "refit" and iteration.completion is not None:
            self.errors.append(self.problem.error(iteration.completion.predict_block().compute()))


def ours(problem: Problem, sides: str, cap: int, power: float) -> tuple[list[float], float]:
    """Errors of the iterates of the last stage, and the seconds of the whole fit."""
    watch, started = Watch(problem), time.perf_counter()
    settings = {"features": "factored", "rank": cap, "offsets": None, "dtype": "float64"}
    LinRFM(sides=sides, power=power, callbacks=[watch], **settings).fit(problem.observed)
    return watch.errors, time.perf_counter() - started


def als(problem: Problem, rank: int, schedule: str) -> Iterator[float]:
    """Errors of alternating least squares of a given rank, its ridge falling."""
    by_row, (ridge, factor, least, iterations) = sp.csr_array(problem.observed), ALS_SCHEDULES[schedule]
    by_column = by_row.T.tocsr()
    columns = np.random.default_rng(0).normal(size=(by_row.shape[1], rank)) / np.sqrt(rank)
    for _ in range(iterations):
        rows = ridge_rows(by_row, columns, ridge)
        columns, ridge = ridge_rows(by_column, rows, ridge), max(factor * ridge, least)
        yield problem.error(rows @ columns.T)


def ridge_rows(matrix: sp.csr_array, factors: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge regression of each row's entries on the factors of their columns, all rows at once."""
    rank = factors.shape[1]
    there = sp.csr_array((np.ones_like(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)
    grams = (there @ np.einsum("ia,ib->iab", factors, factors).reshape(-1, rank * rank)).reshape(-1, rank, rank)
    return np.linalg.solve(grams + ridge * np.eye(rank), (matrix @ factors)[:, :, None])[:, :, 0]


def reached(errors: list[float]) -> int | None:
    """Iterations until the limit, counted from 1; None if it was never reached."""
    return next((t for t, error in enumerate(errors, 1) if error < LIMIT), None)


def show(label: str, found: list[list[float]], seconds: float) -> None:
    """Print how many problems were recovered, in how many iterations, and the errors at the end."""
    counts = [reached(errors) for errors in found]
    times = sorted(count for count in counts if count is not None)
    spread = f"{times[0]:3d} to {times[-1]:3d} iterations" if times else "not reached in any"
    last = sorted(errors[-1] for errors in found)
    print(
        f"  {label:26} {len(times):2d} of {len(found)}  {spread:22} error at the end {last[0]:.0e} to {last[-1]:.0e}"
        f"  {seconds / len(found):5.2f} s a fit",
        flush=True,
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--size", type=int, default=500)
    arguments.add_argument("--rank", type=int, default=5)
    arguments.add_argument("--observed", type=int, nargs="+", default=[10_000, 8_000])
    arguments.add_argument("--seeds", type=int, default=10)
    arguments.add_argument("--cap", type=int, default=20)
    arguments.add_argument("--power", type=float, default=0.5)
    options = arguments.parse_args()
    free = options.rank * (2 * options.size - options.rank)
    for observed in options.observed:
        print(f"{options.size} x {options.size}, rank {options.rank}, {observed} observed entries,", end=" ")
        print(f"{observed / free:.2f} times the degrees of freedom")
        problems = [Problem(options.size, options.rank, observed, seed) for seed in range(options.seeds)]
        for sides in ("both", "columns"):
            found = [ours(problem, sides, options.cap, options.power) for problem in problems]
            label = f"lin-RFM, {sides}, cap {options.cap}"
            show(label, [errors for errors, _ in found], sum(seconds for _, seconds in found))
        for rank, schedule in product((options.rank, options.cap), ALS_SCHEDULES):
            started = time.perf_counter()
            errors = [list(als(problem, rank, schedule)) for problem in problems]
            show(f"ALS, rank {rank}, {schedule}", errors, time.perf_counter() - started)


if __name__ == "__main__":
    main()
