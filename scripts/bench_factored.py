"""Time one iteration of a factored fit at MovieLens 20M's shape beside cmfrec's ALS and the machine's sgemm.

    python scripts/bench_factored.py [--entries 17300000] [--rank 32] [--threads 2] [--repeat 1] [--peers-only]

The data are generated (`peers.heavy_tailed`). cmfrec's iteration is the difference of two fits of unlike length,
float32, the same rank and threads, no biases (the offsets are ours to take off before); its default, with biases,
is printed as well. On a quiet machine the seconds are the CPU seconds over the threads; where they are not, run it
again. The peers need 1 GB of memory.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import peers
import scipy.sparse as sp


def ours(matrix: sp.csr_array, rank: int, sides: str) -> float:
    """Seconds of one iteration of a factored fit, the median of those after the first."""
    # ---------------------------------------------------------------- OURS: TO BE FILLED IN
    raise NotImplementedError("the factored fit is not there yet")
    # -------------------------------------------------------------------------------------


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
    arguments.add_argument("--repeat", type=int, default=1)
    arguments.add_argument("--peers-only", action="store_true", help="leave our own fits out")
    options = arguments.parse_args()
    started = time.perf_counter()
    matrix = peers.heavy_tailed(entries=options.entries)
    print(f"{peers.describe(matrix)}; generated in {time.perf_counter() - started:.0f} s")
    print(f"rank {options.rank}, float32, {options.threads} threads")
    for threads in sorted({1, options.threads}):
        print(f"sgemm, {threads} threads: {peers.sgemm_rate(threads):.0f} GF/s", flush=True)
    theirs: dict[str, Any] = show_cmfrec(matrix, options)
    if options.peers_only:
        return
    for sides in ("columns", "both"):
        seconds = ours(matrix, options.rank, sides)
        ratios = ", ".join(f"{seconds / theirs[name]:.2f} x {name}" for name in ("Cholesky", "CG"))
        show(f"lin-RFM factored, sides {sides}: an iteration", seconds, f"   ({ratios})")


if __name__ == "__main__":
    main()
