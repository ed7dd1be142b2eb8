"""Recover random low-rank matrices from some of their entries, knowing neither rank nor noise.

    python scripts/recovery.py [--size 500] [--rank 5] [--observed 10000] [--seeds 5] [--power 0.5]

Gaussian factors, values scaled to unit mean square, entries observed uniformly at random. `LinRFM` runs with its
defaults in float64 and without offsets; it sees the observed entries only. For each seed, and for the stage on
all observed entries: iterations and seconds until the mean square error of the unobserved entries is below 1e-3,
and what it is at the end. Beside it alternating least squares, which is told the true rank and whose least ridge is
the best of four on the unobserved entries themselves.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import scipy.sparse as sp

from rfmdist import LinRFM
from rfmdist.progress import Iteration

LIMIT = 1e-3
"""Mean square error of the unobserved entries that counts as recovered; the values' own is 1."""


def problem(size: int, rank: int, observed: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a low-rank matrix of unit mean square and the mask of its observed entries."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(size, rank)) @ rng.normal(size=(rank, size))
    mask = np.zeros(size * size, bool)
    mask[rng.permutation(size * size)[:observed]] = True
    return matrix / np.sqrt(np.mean(matrix**2)), mask.reshape(size, size)


class Watch:
    """A callback that scores the unobserved entries of every refitted iterate; it changes nothing."""

    def __init__(self, matrix: np.ndarray, mask: np.ndarray) -> None:
        self.matrix, self.hidden = matrix, ~mask
        self.errors: list[float] = []
        self.seconds: list[float] = []

    def __call__(self, iteration: Iteration) -> None:
        if iteration.stage == "refit" and iteration.completion is not None:
            completed = iteration.completion.predict_block().compute()
            self.errors.append(float(np.mean((completed - self.matrix)[self.hidden] ** 2)))
            self.seconds.append(iteration.seconds)

    @property
    def reached(self) -> int | None:
        """Iterations until the limit, counted from 1; None if it was never reached."""
        return next((t for t, error in enumerate(self.errors, 1) if error < LIMIT), None)


def als(observed: sp.coo_array, rank: int, least_ridge: float, iterations: int = 300) -> np.ndarray:
    """Alternating least squares of a given rank in float64, its ridge falling by a tenth a turn from 1."""
    by_row = sp.csr_array(observed)
    by_column, ridge = by_row.T.tocsr(), 1.0
    columns = np.random.default_rng(0).normal(size=(by_row.shape[1], rank)) / np.sqrt(rank)
    for _ in range(iterations):
        rows = ridge_rows(by_row, columns, ridge)
        columns, ridge = ridge_rows(by_column, rows, ridge), max(0.9 * ridge, least_ridge)
    return rows @ columns.T


def ridge_rows(matrix: sp.csr_array, factors: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge regression of each row's entries on the factors of their columns, all rows at once."""
    rank = factors.shape[1]
    there = sp.csr_array((np.ones_like(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)
    grams = (there @ np.einsum("ia,ib->iab", factors, factors).reshape(-1, rank * rank)).reshape(-1, rank, rank)
    return np.linalg.solve(grams + ridge * np.eye(rank), (matrix @ factors)[:, :, None])[:, :, 0]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--size", type=int, default=500)
    arguments.add_argument("--rank", type=int, default=5)
    arguments.add_argument("--observed", type=int, default=10_000)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--power", type=float, default=0.5)
    options = arguments.parse_args()
    free = options.rank * (2 * options.size - options.rank)
    print(f"{options.size} x {options.size}, rank {options.rank}, {options.observed} observed entries,", end=" ")
    print(f"{options.observed / free:.2f} times the degrees of freedom; ALS is told the rank")
    print("seed  iterations to 1e-3  seconds to it  final error  replacement  fit in all    ALS: error")
    for seed in range(options.seeds):
        matrix, mask = problem(options.size, options.rank, options.observed, seed)
        watch, started = Watch(matrix, mask), time.perf_counter()
        observed = sp.coo_array((matrix[mask], np.nonzero(mask)), matrix.shape)
        model = LinRFM(power=options.power, offsets=None, dtype="float64", callbacks=[watch]).fit(observed)
        total = time.perf_counter() - started
        spent = f"{sum(watch.seconds[: watch.reached]):11.2f} s" if watch.reached else "            -"
        peers = [als(observed, options.rank, least) for least in (1e-1, 1e-2, 1e-3, 1e-6)]
        peer_error = min(np.mean((peer - matrix)[~mask] ** 2) for peer in peers)
        print(
            f"{seed:4d}  {watch.reached or 'not reached':>18}  {spent}  {watch.errors[-1]:11.1e}"
            f"  {model.replacement_:11.4g}  {total:8.1f} s    {peer_error:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
