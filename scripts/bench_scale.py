"""Time an iteration read from disk beside one of memory, and workers beside threads; count the bytes that move.

    python scripts/bench_scale.py [--store STORE] [--rank 32] [--repeat 5] [--rounds 3] [--points FILE] [--only WHAT]

Without a store one of 140,000 x 27,000 with 20 million entries is generated (`heavy_tailed.py`). ``stream``: both
forms of the factored fit, with all blocks kept in memory, and with none, the files (the store's, and those that a fit
leaves beside it) in the system's cache and dropped from it before each iteration. ``workers``: one process of one
thread, two of them, two threads of one process; and what the machine itself allows, two fits of one core that share
nothing, at once and alone. ``bytes``: what Dask's workers have sent, beside (groups - 1) n r itemsize
+ workers n r itemsize. Seconds are the least of an iteration after the first, over rounds in which all take turns:
other work on the machine comes and goes. ``--points`` keeps the figures for `scaling_model.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import generate
import heavy_tailed
import numpy as np
from numpy.typing import NDArray
from turns import Fit, turns

import rfmdist

SETTINGS = {
    "features": "factored", "ridge": 0.5, "replacement": 1.0, "indicators": 0, "ridge_by_count": 0, "row_scale": 0,
    "side_weight": 0, "tol": 0.0, "validation_fraction": 0.0, "refit": False,
}  # fmt: skip
Floats = NDArray[np.float64]
WHOLE = 1.9
"""What two cores that nobody else uses give of two fits that share nothing, or more."""


class Taken(NamedTuple):
    """What fits took that took turns, by name.

    Attributes
    ----------
    least : dict of float
        Seconds of the fastest iteration of all.
    typical : dict of ndarray of shape (rounds,)
        Median seconds of an iteration in each round.
    moved : dict of int
        Least bytes that an iteration moved.
    """

    least: dict[str, float]
    typical: dict[str, Floats]
    moved: dict[str, int]


def take_turns(fits: dict[str, Fit], options: argparse.Namespace, beside: tuple[str, ...] = ()) -> Taken:
    """Run each fit's iterations, round by round; those named ``beside`` at once too, as "NAME beside"."""
    seconds, moved = defaultdict[str, list[list[float]]](list), dict[str, int]()
    orders = [(name,) for name in fits] + ([beside] if beside else [])
    with turns(fits) as fitting:
        for number in range(options.rounds):
            for names in orders[:: (-1) ** number]:
                for name, turn in fitting.take(names, options.repeat).items():
                    seconds[name if len(names) == 1 else f"{name} beside"].append(turn.seconds)
                    moved[name] = min(turn.moved, moved.get(name, turn.moved))
    least = {name: float(np.min(each)) for name, each in seconds.items()}
    return Taken(least, {name: np.median(each, axis=1) for name, each in seconds.items()}, moved)


def stream(store: Path, options: argparse.Namespace) -> dict[str, float]:
    """Time iterations of kept blocks, and of blocks that are read, warm and cold."""
    found: dict[str, float] = {}
    for sides in ("columns", "both"):
        settings = SETTINGS | {"rank": options.rank, "sides": sides}
        fits = {"kept": Fit(store, settings), "warm": Fit(store, settings, kept=False)}
        fits["cold"] = Fit(store, settings, kept=False, cold=True)
        least, typical, _ = take_turns(fits, options)
        found |= {f"{sides} {name}": each for name, each in least.items()}
        print(f"{sides:8} in memory {least['kept']:6.3f} s", end="")
        for name in ("warm", "cold"):
            print(
                f"   from disk, {name} {least[name]:6.3f} s: {least['kept'] / least[name]:.2f} of its speed, by rounds"
                f" {quartiles(typical['kept'] / typical[name])}",
                end="",
            )
        print(flush=True)
    return found


def workers(store: Path, options: argparse.Namespace) -> dict[str, float]:
    """Time one and two processes, and the threads of one; count what moves."""
    found: dict[str, float] = {}
    observations = rfmdist.Observations.open(store)
    (m, n), r = observations.shape, options.rank
    beside, cores = ("one", "other"), sorted(os.sched_getaffinity(0))
    for sides in ("columns", "both"):
        settings = SETTINGS | {"rank": r, "sides": sides}
        fits = {f"{count} workers": Fit(store, settings, count) for count in (1, 2)} | {"threads": Fit(store, settings)}
        fits |= {name: Fit(store, settings, cores=[core]) for name, core in zip(beside, cores, strict=False)}
        least, typical, moved = take_turns(fits, options, beside)
        one, two, threads = (least[name] for name in ("1 workers", "2 workers", "threads"))
        found |= {f"{sides} {name}": each for name, each in least.items()}
        found |= {f"{sides} {name} moved": float(each) for name, each in moved.items()}
        machine = sum(typical[name] / typical[f"{name} beside"] for name in beside)
        times, whole = typical["1 workers"] / typical["2 workers"], machine >= WHOLE
        plan = rfmdist.plan(observations, rank=r, sides=sides, workers=2, **SETTINGS)
        foreseen = (len(plan.groups) - 1 + 2) * n * r * 4 if sides == "columns" else 2 * (m + n) * r * 4
        print(
            f"{sides:8} 1 process {one:6.3f} s   2 processes {two:6.3f} s: {one / two:.2f} times   2 threads"
            f" {threads:6.3f} s: {two / threads:.2f} times 2 processes;  moved {moved['2 workers'] / 1e6:.1f} MB an"
            f" iteration, foreseen {foreseen / 1e6:.1f} MB ({len(plan.groups)} groups)\n"
            f"         of {options.rounds} rounds: 2 processes {quartiles(times)} times one, two threads"
            f" {quartiles(typical['1 workers'] / typical['threads'])}, two fits that share nothing"
            f" {quartiles(machine)};\n"
            f"         of those {np.count_nonzero(whole)} in which the last are {WHOLE} or more: 2 processes"
            f" {quartiles(times[whole])} times one",
            flush=True,
        )
    return found


def quartiles(values: Floats) -> str:
    """Say the median and between which values the middle half lies."""
    if not len(values):
        return "-"
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--store", type=Path)
    arguments.add_argument("--rank", type=int, default=32)
    arguments.add_argument("--repeat", type=int, default=5)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--points", type=Path)
    arguments.add_argument("--only", choices=["stream", "workers"])
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or Path(folder) / "20m.zarr"
        if options.store is None:
            problem = heavy_tailed.Problem.draw((140_000, 27_000), 20_000_000)
            generate.write_store(problem, store, test=0.0, overwrite=False)
        observations = rfmdist.Observations.open(store)
        (m, n), cores = observations.shape, os.cpu_count()
        print(f"{m:,} x {n:,}, {observations.nnz:,} entries, rank {options.rank}, {cores} cores", flush=True)
        points: dict[str, Any] = {"rows": m, "columns": n, "entries": observations.nnz}
        points |= {"rank": options.rank, "cores": cores}
        if options.only != "workers":
            points |= stream(store, options)
        if options.only != "stream":
            points |= workers(store, options)
    if options.points:
        options.points.write_text(json.dumps(points, indent=1) + "\n")


if __name__ == "__main__":
    main()
