"""Score a completion on its stored test entries beside its offsets alone and beside alternating least squares.

Usage: python scripts/compare.py COMPLETION

All three are fitted on the same entries: settings are chosen on the stored validation entries, then the fit is
repeated on training and validation entries together. No test entry is used for anything but the score. ALS has
the same offsets and clipping, its rank and ridge come from a grid, and each row's ridge is weighted by its
number of entries, as is usual for ratings.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from rfmdist import Completion, Observations, fit_offsets
from rfmdist.errors import RfmdistError
from rfmdist.observations.blocks import FITTED_ROLES, Offsets, Role

RANKS, RIDGES = (5, 10, 20, 40), (0.05, 0.08, 0.12, 0.15, 0.2)
"""A row's ridge for each of its entries. On MovieLens 1M the choice is the greatest rank and the last iteration."""
ITERATIONS = 15


@dataclass(frozen=True)
class Entries:
    """Entries of a store: row codes, column codes and values."""

    rows: Any
    columns: Any
    values: Any


def main() -> int:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("completion", type=Path, help="made by 'rfmdist fit'")
    options = parser.parse_args()
    try:
        compare(Completion.open(options.completion))
    except RfmdistError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    return 0


def compare(completion: Completion) -> None:
    """Print the test RMSE of the completion, of its offsets and of ALS."""
    observations, clip = completion.observations, completion.targets.clip
    scores = completion.score()
    test = read(observations, {Role.TEST})
    offsets = fit_offsets(observations, "both")
    started = time.perf_counter()
    rank, ridge, iterations = choose(observations, clip)
    rows, columns = als(read(observations, FITTED_ROLES), offsets, observations.shape, rank, ridge, iterations)
    seconds = time.perf_counter() - started
    print(f"test RMSE on {scores.count:,} entries")
    print(f"  offsets alone  {rmse(test, offsets, None, None, clip):.4f}")
    settings = f"rank {rank}, ridge {ridge}, {iterations} iterations, chosen on validation in {seconds:.0f} s"
    print(f"  ALS            {rmse(test, offsets, rows, columns, clip):.4f}  ({settings})")
    print(f"  lin-RFM        {scores.rmse:.4f}")


def choose(observations: Observations, clip: Any) -> tuple[int, float, int]:
    """Rank, ridge and number of iterations of least validation error, of a fit on training entries."""
    train, validation = read(observations, {Role.TRAIN}), read(observations, {Role.VALIDATION})
    offsets = fit_offsets(observations, "both", roles={Role.TRAIN})
    tried = {}
    for rank, ridge in product(RANKS, RIDGES):

        def look(t: int, rows: Any, columns: Any, rank: int = rank, ridge: float = ridge) -> None:
            tried[rank, ridge, t] = rmse(validation, offsets, rows, columns, clip)

        als(train, offsets, observations.shape, rank, ridge, ITERATIONS, look)
    return min(tried, key=lambda settings: tried[settings])


def als(
    entries: Entries,
    offsets: Offsets,
    shape: tuple[int, int],
    rank: int,
    ridge: float,
    iterations: int,
    look: Any = None,
) -> tuple[Any, Any]:
    """Factors of rows and columns: each row's are (V'V + ridge count I)^-1 V'y over its entries, in turns."""
    values = (entries.values - offsets.at(entries.rows, entries.columns)).astype(np.float32)
    by_row = sp.csr_array((values, (entries.rows, entries.columns)), shape=shape)
    by_column = by_row.T.tocsr()
    columns = np.random.default_rng(0).normal(scale=rank**-0.5, size=(shape[1], rank)).astype(np.float32)
    for t in range(1, iterations + 1):
        rows = solve(by_row, columns, ridge)
        columns = solve(by_column, rows, ridge)
        if look is not None:
            look(t, rows, columns)
    return rows, columns


def solve(matrix: Any, factors: Any, ridge: float) -> Any:
    """Ridge regressions of all rows of a sparse matrix on the factors of its columns, solved together."""
    rank = factors.shape[1]
    there = sp.csr_array((np.ones_like(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)
    squares = np.einsum("ia,ib->iab", factors, factors).reshape(-1, rank * rank)
    grams = (there @ squares).reshape(-1, rank, rank)
    grams += (ridge * np.maximum(np.diff(matrix.indptr), 1)).astype(np.float32)[:, None, None] * np.eye(
        rank, dtype=np.float32
    )
    return np.linalg.solve(grams, (matrix @ factors)[:, :, None])[:, :, 0]


def rmse(entries: Entries, offsets: Offsets, rows: Any, columns: Any, clip: Any) -> float:
    """Root mean squared error of offsets and factors (or offsets alone), clipped to the values' scale."""
    predicted = offsets.at(entries.rows, entries.columns)
    if rows is not None:
        predicted = predicted + np.einsum("ea,ea->e", rows[entries.rows], columns[entries.columns])
    if clip is not None:
        predicted = np.clip(predicted, *clip)
    return float(np.sqrt(np.mean((predicted - entries.values) ** 2)))


def read(observations: Observations, roles: Any) -> Entries:
    """Entries of the given roles, in memory."""
    coo = observations.to_scipy(roles).tocoo()
    return Entries(coo.row, coo.col, coo.data.astype(np.float64))


if __name__ == "__main__":
    sys.exit(main())
