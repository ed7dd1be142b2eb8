"""Time one iteration of a factored fit at MovieLens 20M's shape beside cmfrec's ALS and the machine's sgemm.

    python scripts/bench_factored.py [--entries 17300000] [--rank 32] [--threads 2] [--repeat 2] [--peers-only]

The data are generated (`peers.heavy_tailed`). cmfrec's iteration is the difference of two fits of unlike length,
float32, the same rank and threads, no biases (the offsets are ours to take off before); its default, with biases,
is printed as well, and ours with offsets fitted too. Rates count the Gram matrices' products and the Cholesky
factors alone. Needs a quiet machine: cmfrec's CPU seconds over the threads tell whether it was one. The peers need
1 GB of memory.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import peers
import scipy.sparse as sp

from rfmdist import LinRFM, Observations


def ours(observations: Observations, rank: int, sides: str, offsets: str | None) -> float:
    """Seconds of one iteration of a factored fit, the least of those after the first, which reads the store."""
    settings = {"ridge": 0.5, "replacement": 1.0, "max_iter": 9, "tol": 0.0, "validation_fraction": 0.0, "refit": False}
    model = LinRFM(features="factored", rank=rank, sides=sides, offsets=offsets, **settings).fit(observations)
    return min(record.seconds for record in model.history_[1:])


def flops(matrix: sp.csr_array, rank: int, sides: str) -> float:
    """Of the products and Cholesky factors of one iteration."""
    halves = 1 if sides == "columns" else 2
    return halves * 2.0 * matrix.nnz * rank**2 + (matrix.shape[0] + (halves - 1) * matrix.shape[1]) * rank**3 / 3


def show(label: str, seconds: float, more: str = "") -> None:
    """Print a time."""
    print(f"{label:58} {seconds:8.2f} s{more}", flush=True)


def show_cmfrec(matrix: sp.csr_array, options: argparse.Namespace) -> dict[str, float]:
    """Print and return the seconds of an iteration of cmfrec's two solvers."""
    found = {}
    for biases in (False, True):
        for name, use_cg in (("Cholesky", False), ("CG", True)):
            timing = peers.cmfrec_iteration(
                matrix, options.rank, options.threads, use_cg=use_cg, biases=biases, repeat=options.repeat
            )
            label = f"cmfrec {name}, {'biases' if biases else 'no biases'}: an iteration"
            show(label, timing.iteration, f"   ({timing.cpu:.2f} CPU s; {timing.setup:.1f} s around)")
            found[f"{name}{', biases' if biases else ''}"] = timing.iteration
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--entries", type=int, default=17_300_000)
    arguments.add_argument("--rank", type=int, default=32)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--repeat", type=int, default=2)
    arguments.add_argument("--peers-only", action="store_true", help="leave our own fits out")
    options = arguments.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    started = time.perf_counter()
    matrix = peers.heavy_tailed(entries=options.entries)
    print(f"{peers.describe(matrix)}; generated in {time.perf_counter() - started:.0f} s")
    print(f"rank {options.rank}, float32, {options.threads} threads")
    rates = {threads: peers.sgemm_rate(threads) for threads in sorted({1, options.threads})}
    for threads, rate in rates.items():
        print(f"sgemm, {threads} threads: {rate:.0f} GF/s", flush=True)
    theirs: dict[str, Any] = show_cmfrec(matrix, options)
    if options.peers_only:
        return
    observations = Observations.from_scipy(matrix)
    for rank, sides, offsets in (
        (options.rank, "columns", None),
        (options.rank, "both", None),
        (options.rank, "columns", "both"),
        (options.rank, "both", "both"),
        (64, "columns", None),
        (64, "both", None),
    ):
        seconds = ours(observations, rank, sides, offsets)
        rate = flops(matrix, rank, sides) / seconds / 1e9
        more = f"   {rate:.0f} GF/s, {rate / rates[options.threads]:.0%} of sgemm"
        if rank == options.rank:
            suffix = ", biases" if offsets else ""
            more += "".join(f", {seconds / theirs[name + suffix]:.2f} x {name}" for name in ("Cholesky", "CG"))
        show(f"lin-RFM, sides {sides}, rank {rank}{', offsets' if offsets else ''}: an iteration", seconds, more)


if __name__ == "__main__":
    main()
