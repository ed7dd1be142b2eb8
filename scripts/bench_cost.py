"""How the cost of a factored iteration grows, and how much memory a fit takes: seconds, slopes and bytes.

    python scripts/bench_cost.py [--most 100000000] [--threads 2] [--plot FILE.png] [--memory-only | --time-only]

Time: columns only and both sides, float32, against the number of entries (to ``--most``), of columns, and the rank;
the slope of each line on log-log axes beside the one that flops promise. Memory: fits of MovieLens 20M's shape from
a store on disk, each in a process of its own: its peak resident memory, less the blocks it keeps of the store,
beside 3 · (n + rows in flight) · rank · itemsize + 300 MB. Where both sides take turns, all rows are in flight. The
largest problem needs 8 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import peers
import scipy.sparse as sp

from rfmdist import LinRFM, Observations

SETTINGS = {"ridge": 0.5, "replacement": 1.0, "tol": 0.0, "validation_fraction": 0.0, "refit": False, "offsets": None}
ROWS, COLUMNS, ENTRIES, RANK = 140_000, 27_000, 10_000_000, 32
MEMORY_CASES = (("columns", 32), ("both", 32), ("extras", 32), ("columns", 128), ("both", 128), ("extras", 128))
EXTRAS = {"indicators": 0.35, "ridge_by_count": 0.3, "side_weight": 0.1, "row_scale": 0.5, "offsets": "both"}
"""With "extras" both sides take turns and all additions are on; their bound has one more set of features."""


@dataclass
class Line:
    """Seconds of an iteration against one of its sizes."""

    name: str
    promised: float
    sizes: list[int] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"columns": [], "both": []})

    def add(self, size: int, observations: Observations, rank: int) -> None:
        """Time both kinds of iteration."""
        self.sizes.append(size)
        for sides, seconds in self.seconds.items():
            model = LinRFM(features="factored", rank=rank, sides=sides, max_iter=4, **SETTINGS).fit(observations)
            seconds.append(min(record.seconds for record in model.history_[1:]))
        columns, both = self.seconds["columns"][-1], self.seconds["both"][-1]
        print(f"{self.name:8} {size:12,}   columns {columns:8.3f} s   both {both:8.3f} s", flush=True)

    def tell(self) -> None:
        """Print the slopes: over the whole line, and between its last two points."""
        for sides, seconds in self.seconds.items():
            x, y = np.log(self.sizes), np.log(seconds)
            whole, last = np.polyfit(x, y, 1)[0], (y[-1] - y[-2]) / (x[-1] - x[-2])
            print(f"{self.name:8} {sides:8} slope {whole:.2f}, at the end {last:.2f}; promised at most {self.promised}")


def uniform(rows: int, columns: int, entries: int, seed: int = 0) -> Observations:
    """Random values at random places, as many in each row, without repeats."""
    rng, each = np.random.default_rng(seed), entries // rows
    # One place in each of as many strata of the columns: sorted and distinct.
    low = np.linspace(0, columns, each + 1).astype(np.int32)
    indices = low[:-1] + (rng.random((rows, each), np.float32) * np.diff(low)).astype(np.int32)
    indptr = np.arange(rows + 1, dtype=np.int64) * each
    values = rng.standard_normal(rows * each, np.float32)
    return Observations.from_scipy(sp.csr_array((values, indices.ravel(), indptr), shape=(rows, columns)))


def time_growth(most: int) -> list[Line]:
    """Time iterations along three lines and print their slopes."""
    lines = [Line("entries", 1.0), Line("columns", 1.0), Line("rank", 2.0)]
    for entries in (n for n in (1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000) if n <= most):
        lines[0].add(entries, uniform(ROWS, COLUMNS, entries), RANK)
    for columns in (10_000, 30_000, 100_000, 300_000, 1_000_000):
        lines[1].add(columns, uniform(ROWS, columns, ENTRIES), RANK)
    observations = uniform(ROWS, COLUMNS, ENTRIES)
    for rank in (8, 16, 32, 64, 128):
        lines[2].add(rank, observations, rank)
    for line in lines:
        line.tell()
    return lines


def plot(lines: list[Line], file: Path) -> None:
    """Draw the lines on log-log axes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(lines), figsize=(4 * len(lines), 3.5), layout="constrained")
    for axis, line in zip(axes, lines, strict=True):
        for sides, seconds in line.seconds.items():
            axis.loglog(line.sizes, seconds, "o-", label=sides)
        axis.set(xlabel=line.name, ylabel="seconds an iteration")
        axis.legend()
    figure.savefig(file)


def measure_memory() -> None:
    """Fit in a process of its own and print its peak beside the bound."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.zarr"
        shape = Observations.from_scipy(peers.heavy_tailed(), store).shape
        for sides, rank in MEMORY_CASES:
            command = [sys.executable, __file__, "--child", str(store), sides, str(rank)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            flight = found["rows_in_flight"] if sides == "columns" else shape[0]
            bound = (4 if sides == "extras" else 3) * (shape[1] + flight) * rank * 4 + 300e6
            used = found["peak"] - found["kept"]
            print(
                f"rank {rank:3d}, {sides:8} peak {found['peak'] / 1e6:4.0f} MB, {found['start'] / 1e6:.0f} MB before"
                f" the fit, kept of the store {found['kept'] / 1e6:.0f} MB: {used / 1e6:.0f} MB, bound"
                f" {bound / 1e6:.0f} MB",
                flush=True,
            )


def child(store: str, sides: str, rank: int) -> dict[str, Any]:
    """Fit a store and tell this process's peak and what it keeps of the store."""
    import psutil

    start, kept = psutil.Process().memory_info().rss, 0

    def count(iteration: Any) -> None:
        nonlocal kept
        kept = iteration.completion.targets.kept_bytes

    settings = SETTINGS | (EXTRAS if sides == "extras" else {})
    turns = "columns" if sides == "columns" else "both"
    model = LinRFM(features="factored", rank=rank, sides=turns, max_iter=3, callbacks=[count], **settings)
    model.fit(Observations.open(store))
    kept *= 1 if sides == "columns" else 2  # the column order takes as much
    # Not getrusage: its peak is that of the process which started this one, where that is greater.
    status = Path("/proc/self/status").read_text()
    peak = 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {"start": start, "peak": peak, "kept": kept, "rows_in_flight": model.plan_.slab_rows}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--most", type=int, default=100_000_000)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--plot", type=Path)
    arguments.add_argument("--memory-only", action="store_true")
    arguments.add_argument("--time-only", action="store_true")
    arguments.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    if options.child:
        store, sides, rank = options.child
        print(json.dumps(child(store, sides, int(rank))))
        return
    if not options.time_only:
        measure_memory()
    if not options.memory_only:
        lines = time_growth(options.most)
        if options.plot:
            plot(lines, options.plot)


if __name__ == "__main__":
    main()
