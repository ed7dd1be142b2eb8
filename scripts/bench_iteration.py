"""Time one exact iteration against the work it cannot avoid and against plain NumPy, all in one run.

    python scripts/bench_iteration.py [--threads 2] [--repeat 3]

Prints, in seconds and as ratios: d = 2000 with 200,000 entries beside a row-by-row NumPy transcription; d = 5000
with 500,000 entries beside the one dsyrk (Z'Z); MovieLens 1M in float32 where its files are found.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg.blas
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from rfmdist import LinRFM, Observations, ingest
from rfmdist.engine import work
from rfmdist.engine.planner import plan_dense
from rfmdist.engine.run import InProcess
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.protocol import Step
from rfmdist.kernels.threads import Threads, one_blas_thread
from rfmdist.observations.blocks import Offsets
from rfmdist.observations.targets import Targets

RIDGE, REPLACEMENT = 0.1, 1.0
DATA = Path(os.environ.get("RFMDIST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def best_of(repeat: int, function: Callable[[], Any]) -> float:
    """Return the least of ``repeat`` times in seconds, after one run to warm up."""
    times = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def problem(d: int, entries: int, rank: int = 5) -> Observations:
    """Random low-rank observations, uniform over a d × d matrix."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(d, rank)), rng.normal(size=(d, rank))
    rows, columns = np.divmod(rng.choice(d * d, entries, replace=False), d)
    values = np.sum(left[rows] * right[columns], axis=1) / np.sqrt(rank)
    return Observations.from_scipy(sp.coo_array((values, (rows, columns)), (d, d)))


def exact_iteration(observations: Observations, threads: Threads) -> Callable[[], Any]:
    """One whole iteration as a fit runs it: reading, solves, AGOP, power; P is a learned one."""
    plan = plan_dense(observations, np.float64)
    (m, n), step = observations.shape, Step(RIDGE, REPLACEMENT)
    targets = Targets(observations, Offsets(0.0, np.zeros(m), np.zeros(n)), 1.0, np.dtype(np.float64))
    run = InProcess(threads)

    def advance(features: DenseFeatures) -> DenseFeatures:
        with one_blas_thread():
            total = run.reduce(work.iterate, plan.groups, targets, features, step, plan.slab_rows)
            return features.update(total, m, step, 0.0, 1, run.map_panels)

    learned = advance(DenseFeatures.start(n, np.float64, plan.form))
    return lambda: advance(learned)


def numpy_iteration(matrix: sp.csr_array) -> Callable[[], Any]:
    """Plain NumPy, a loop over rows: solve, complete, put observed values back; then Z'Z / m."""
    n = matrix.shape[1]
    rng = np.random.default_rng(1)
    root = rng.normal(size=(n, n)) / np.sqrt(n)
    features = root @ root.T

    def iterate() -> np.ndarray:
        completed = np.zeros(matrix.shape)
        for i in range(matrix.shape[0]):
            observed = matrix.indices[matrix.indptr[i] : matrix.indptr[i + 1]]
            y = matrix.data[matrix.indptr[i] : matrix.indptr[i + 1]]
            dual = np.linalg.solve(features[np.ix_(observed, observed)] + RIDGE * np.eye(len(observed)), y)
            completed[i] = dual @ features[observed]
            completed[i, observed] = y
        return completed.T @ completed / matrix.shape[0]

    return iterate


def numpy_time(matrix: sp.csr_array, threads: int) -> float:
    """Its time at the better of one and all BLAS threads: small solves are faster on one."""
    times = []
    for count in {1, threads}:
        with threadpool_limits(count, "blas"):
            times.append(best_of(2, numpy_iteration(matrix)))
    return min(times)


def show(label: str, seconds: float, against: str = "", peer: float = float("nan")) -> None:
    """Print a time and, beside it, its ratio to a peer's."""
    ratio = f"   {seconds / peer:.2f} x {against} ({peer:.3f} s)" if against else ""
    print(f"{label:58} {seconds:8.3f} s{ratio}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--repeat", type=int, default=3)
    options = arguments.parse_args()
    threads = Threads(options.threads)
    print(f"{options.threads} threads, {os.cpu_count()} cores, best of {options.repeat}")
    for d, entries in ((2000, 200_000), (5000, 500_000)):
        observations = problem(d, entries)
        ours = best_of(options.repeat, exact_iteration(observations, threads))
        with threadpool_limits(options.threads, "blas"):
            z = np.asfortranarray(np.random.default_rng(0).normal(size=(d, d)))
            syrk = best_of(options.repeat, lambda z=z: scipy.linalg.blas.dsyrk(1.0, z, trans=1))
        loop = numpy_time(observations.to_scipy(), options.threads) if d == 2000 else float("nan")
        show(f"exact iteration, float64, d = {d}, {entries:,} entries", ours, "its one dsyrk", syrk)
        if d == 2000:
            show("  the same", ours, "row-by-row NumPy", loop)
    files = [DATA / "ml-1m" / name for name in ("train.csv.gz", "test.csv.gz")]
    if not all(file.exists() for file in files):
        print(f"MovieLens 1M: not found in {DATA}; set RFMDIST_DATA to the folder that holds ml-1m")
        return
    model = LinRFM(features="dense", ridge=0.4, replacement=1.0, max_iter=5, tol=0, refit=False).fit(ingest(files))
    show(
        "MovieLens 1M, exact, float32: an iteration, median", float(np.median([r.seconds for r in model.history_[1:]]))
    )


if __name__ == "__main__":
    main()
