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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import generate
import heavy_tailed
import numpy as np
from numpy.typing import NDArray
from turns import Fit, turns

import rfmdist
from rfmdist.observations.kept import KeptBlocks

SETTINGS = {
    "features": "factored", "ridge": 0.5, "replacement": 1.0, "indicators": 0, "ridge_by_count": 0, "row_scale": 0,
    "side_weight": 0, "tol": 0.0, "validation_fraction": 0.0, "refit": False,
}  # fmt: skip
WHOLE = 1.9
"""What two cores that nobody else uses give of two fits that share nothing, or more."""


class Figures:
    """Seconds and bytes of the iterations of one fit."""

    def __init__(self, before: Any = None) -> None:
        self._before = before
        self.records: list[Any] = []

    def __call__(self, record: Any) -> None:
        self.records.append(record)
        if self._before:
            self._before()

    @property
    def seconds(self) -> float:
        """Least seconds of an iteration after the first."""
        return min(record.seconds for record in self.records[1:])


def fitted(store: Path, options: argparse.Namespace, before: Any = None, **more: Any) -> Figures:
    """Fit a store and return the figures of its iterations."""
    figures = Figures(before)
    model = rfmdist.LinRFM(**SETTINGS, rank=options.rank, max_iter=options.repeat + 1, callbacks=[figures], **more)
    model.fit(rfmdist.Observations.open(store))
    return figures


def least(found: dict[str, float], names: list[str], seconds: list[float]) -> None:
    """Keep of each name the least seconds of all rounds."""
    for name, took in zip(names, seconds, strict=True):
        found[name] = min(took, found.get(name, took))


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Have fits keep no block in memory, as where the budget leaves no room."""
    offer = KeptBlocks.offer
    KeptBlocks.offer = lambda self, start, stop, pair, limit: pair  # type: ignore[method-assign]
    try:
        yield
    finally:
        KeptBlocks.offer = offer  # type: ignore[method-assign]


def dropper(store: Path) -> Any:
    """Return a function that drops the files of a store, and those of fits beside it, from the system's cache."""

    def drop() -> None:
        for file in [*store.rglob("*"), *store.parent.glob(f".{store.name}.*.scratch/*")]:
            if file.is_file():
                descriptor = os.open(file, os.O_RDONLY)
                os.fsync(descriptor)  # what is not written yet is not dropped
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)

    return drop


def stream(store: Path, options: argparse.Namespace) -> dict[str, float]:
    """Time iterations of kept blocks, and of blocks that are read, warm and cold."""
    found: dict[str, float] = {}
    for sides in ("columns", "both"):
        names = [f"{sides} {how}" for how in ("kept", "warm", "cold")]
        for _ in range(options.rounds):
            seconds = [fitted(store, options, sides=sides).seconds]
            with nothing_kept():
                seconds += [fitted(store, options, drop, sides=sides).seconds for drop in (None, dropper(store))]
            least(found, names, seconds)
        kept, warm, cold = (found[name] for name in names)
        print(
            f"{sides:8} in memory {kept:6.3f} s   from disk, warm {warm:6.3f} s: {kept / warm:.2f} of its speed,"
            f" cold {cold:6.3f} s: {kept / cold:.2f}",
            flush=True,
        )
    return found


def workers(store: Path, options: argparse.Namespace) -> dict[str, float]:
    """Time one and two processes, and the threads of this one; count what moves."""
    found: dict[str, float] = {}
    observations = rfmdist.Observations.open(store)
    (m, n), r = observations.shape, options.rank
    one, other = sorted(os.sched_getaffinity(0))[:2]
    for sides in ("columns", "both"):
        settings = SETTINGS | {"rank": r, "sides": sides}
        fits = {f"{count} workers": Fit(str(store), settings, count) for count in (1, 2)}
        fits["threads"] = Fit(str(store), settings)
        fits |= {name: Fit(str(store), settings, cores=[core]) for name, core in (("one", one), ("other", other))}
        rounds = []
        with turns(fits) as fitting:
            for number in range(options.rounds):
                names = [[name] for name in fits] + [["one", "other"]]
                taken = {tuple(each): fitting.take(each, options.repeat) for each in names[:: (-1) ** number]}
                rounds.append([turn for each in names for turn in taken[tuple(each)]])
        seconds = np.array([[turn.seconds for turn in each] for each in rounds])
        single, pair, threads, *_ = least = seconds.min(axis=(0, 2))
        for name, value, turn in zip(fits, least, rounds[0], strict=False):
            found[f"{sides} {name}"] = float(value)
            found[f"{sides} {name} moved"] = float(turn.moved)
        by_round = np.median(seconds, axis=2).T
        machine = by_round[3] / by_round[5] + by_round[4] / by_round[6]
        times, whole = by_round[0] / by_round[1], machine >= WHOLE
        plan = rfmdist.plan(observations, rank=r, sides=sides, workers=2, **SETTINGS)
        foreseen = (len(plan.groups) - 1 + 2) * n * r * 4 if sides == "columns" else 2 * (m + n) * r * 4
        print(
            f"{sides:8} 1 process {single:6.3f} s   2 processes {pair:6.3f} s: {single / pair:.2f} times   2 threads"
            f" {threads:6.3f} s: {pair / threads:.2f} times 2 processes;  moved {rounds[0][1].moved / 1e6:.1f} MB an"
            f" iteration, foreseen {foreseen / 1e6:.1f} MB ({len(plan.groups)} groups)\n"
            f"         of {options.rounds} rounds: 2 processes {quartiles(times)} times one, two threads"
            f" {quartiles(by_round[0] / by_round[2])}, two fits that share nothing {quartiles(machine)};\n"
            f"         of those {np.count_nonzero(whole)} in which the last are {WHOLE} or more: 2 processes"
            f" {quartiles(times[whole])} times one",
            flush=True,
        )
    return found


def quartiles(values: NDArray[np.float64]) -> str:
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
