"""Seconds to a test RMSE on MovieLens 1M: ours beside cmfrec and Surprise at their best settings.

    python scripts/time_to_accuracy.py [--threads 2] [--peers-only]

The peers fit all entries that are not for test, at settings that were the best of a grid on the test entries, with
as many iterations as they need for it: that is generous to them. Ours runs with settings given (none of them looked
at on the test entries: rank 16, ridge 0.65, replacement 1, no additions), with all but additions "auto", and with
everything "auto", which takes longer and goes further. All start from a
matrix in memory, as the peers do, and each iterate is scored on the test entries when all is over, which changes
nothing. All are clipped to 1..5. MovieLens is looked for in $RFMDIST_DATA (default ../shared/data) under ml-1m.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import peers
import scipy.sparse as sp

from rfmdist import Completion, LinRFM, ingest, split
from rfmdist.observations.blocks import FITTED_ROLES, Role
from rfmdist.progress import Iteration

DATA = Path(os.environ.get("RFMDIST_DATA", Path(__file__).parents[2] / "shared" / "data"))


PLAIN = {"indicators": 0.0, "ridge_by_count": 0.0, "row_scale": 0.0, "side_weight": 0.0}


class Clock:
    """A callback that keeps each iterate of the fit that lasts, with the seconds since the start of the fit."""

    def __init__(self, stage: str) -> None:
        self.stage, self.started = stage, time.perf_counter()
        self.kept: list[tuple[float, Completion]] = []

    def __call__(self, iteration: Iteration) -> None:
        if iteration.stage == self.stage and iteration.completion is not None:
            self.kept.append((time.perf_counter() - self.started, iteration.completion))


def ours(train: sp.csr_array, test: sp.csr_array, goals: list[Any], **settings: Any) -> None:
    """Fit a matrix in memory and print the seconds until each goal and at the end."""
    coo, given = test.tocoo(), "ridge" in settings
    clock = Clock("fit" if given else "refit")
    model = LinRFM(callbacks=[clock], **settings).fit(train)
    seconds = time.perf_counter() - clock.started
    errors = [kept.score(coo.row, coo.col, coo.data, codes=True).rmse for _, kept in clock.kept]
    label = "all but additions auto" if settings else "everything auto"
    if given:
        label = ", ".join(f"{name} {value}" for name, value in settings.items() if name not in PLAIN)
    show(f"lin-RFM, {label}", (errors[-1], seconds), f"   rank {model.rank_}, {model.n_iter_} iterations")
    for (name, goal), peer in goals:
        reached = next((s for (s, _), error in zip(clock.kept, errors, strict=True) if error <= goal), None)
        ratio = "not reached" if reached is None else f"{reached:8.2f} s   {reached / peer:.2f} x {name}"
        print(f"    to {goal:.4f}, {name}'s error: {ratio}", flush=True)


def show(label: str, found: tuple[float, float], more: str = "") -> None:
    """Print an error and a time."""
    print(f"{label:62} {found[0]:.4f} {found[1]:8.2f} s{more}", flush=True)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--peers-only", action="store_true", help="leave our own fits out")
    options = arguments.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    files = [DATA / "ml-1m" / name for name in ("train.csv.gz", "test.csv.gz")]
    if not all(file.exists() for file in files):
        print(f"time_to_accuracy.py: no ml-1m in {DATA}; set RFMDIST_DATA to the folder that holds it", file=sys.stderr)
        return 2
    observations = ingest(files)
    counts = split(observations, test_file=files[1])
    print("MovieLens 1M: " + ", ".join(f"{count:,} {role}" for role, count in counts.items()))
    train, test = observations.to_scipy(FITTED_ROLES), observations.to_scipy({Role.TEST})
    found = {
        "cmfrec": peers.cmfrec_fit(train, test, options.threads, niter=20),
        "Surprise": peers.surprise_fit(train, test),
    }
    show(f"cmfrec, k = 20, lambda 20, CG, 20 iterations, {options.threads} threads", found["cmfrec"])
    show("Surprise SVD, k = 100, 60 epochs, reg 0.06, one thread", found["Surprise"])
    if options.peers_only:
        return 0
    goals = [((name, error), seconds) for name, (error, seconds) in found.items()]
    fixed = {"rank": 16, "ridge": 0.65, "replacement": 1.0, "max_iter": 12, "validation_fraction": 0.0} | PLAIN
    LinRFM(**fixed | {"max_iter": 2}).fit(train[:500])  # compiled code is loaded before the clock runs
    ours(train, test, goals, **fixed)
    ours(train, test, goals, **PLAIN)
    ours(train, test, goals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
