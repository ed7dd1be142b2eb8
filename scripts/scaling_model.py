"""A model of the seconds of an iteration on 1 to 1024 workers, beside measured points; names what limits it first.

    python scripts/scaling_model.py [--points scaling_points.json] [--rank 32] [--plot FILE.png]

Rates of a worker come from the points that ``bench_scale.py --points`` has measured; the rest is a cluster of nodes of
16 cores, a worker each, that read 2 GB/s from a shared file system and send 10 or 100 Gbit/s. A matrix of E entries has
E / 200 rows and at most a million columns. An iteration takes the sum of

    solve       flops / (workers x rate), groups shared out whole
    read        entries x seconds an entry / workers, of blocks that are filed as they are fitted
    publish     the columns' factor to every node, and to every worker there
    sum         columns alone: partials within a worker, then across workers, two by two
    left        both sides: the rows' factor, written by parts and read by every node
    update      the client: gathers n x r numbers, multiplies them
    schedule    Dask's scheduler, a task after the other

and what it reads from disk where that takes longer than solving, since it is read ahead. The left factor must fit
a worker; where it does not, its rows are read in stripes, and the entries once for each. README, "How it scales".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfmdist.engine.groups import ENTRIES_PER_FEATURE, FACTORED_ENTRIES, group_number
from rfmdist.engine.run import TAIL
from rfmdist.engine.tree import TASK

NODE_CORES, NODE_DISK, WORKER_BYTES = 16, 2e9, 4e9
"""Of a node: workers, bytes read a second; and bytes a worker may hold of the left factor."""
COPY_RATE, TASK_SECONDS = 4e9, 0.9e-3
"""Bytes a second that one worker copies or adds; the scheduler's time for a task: 1,023 that do nothing, in one
graph, take 0.7 to 0.9 s."""
FILED = 8
"""Bytes of an entry in the files that a fit leaves beside the store, one order."""
ITEM, ROW_ENTRIES, MOST_COLUMNS = 4, 200, 1_000_000
SIZES, WORKERS, NETWORKS = (1e9, 1e10, 1e11, 1e12), (8, 32, 128, 512, 1024), (10e9 / 8, 100e9 / 8)


@dataclass(frozen=True)
class Rates:
    """What one worker does, measured.

    Attributes
    ----------
    columns, both : float
        Flops a second of a half step with features of the columns alone, and of two that cross.
    entry : float
        Seconds of reading an entry from such a file.
    """

    columns: float
    both: float
    entry: float

    @classmethod
    def of(cls, points: dict[str, Any]) -> Rates:
        """Take them from a run with one worker, and from reading beside memory on all cores."""
        found = {}
        for sides in ("columns", "both"):
            seconds = points[f"{sides} 1 workers"]
            found[sides] = flops(points["entries"], points["rows"], points["columns"], points["rank"], sides) / seconds
        more = max(points["columns warm"] - points["columns kept"], 0.0) * points["cores"]
        return cls(found["columns"], found["both"], more / points["entries"])


@dataclass(frozen=True)
class Case:
    """An iteration on a cluster."""

    entries: float
    rows: float
    columns: float
    rank: int
    sides: str
    workers: int
    network: float
    kept: bool = False

    def parts(self, rates: Rates) -> dict[str, float]:
        """Seconds of each part of an iteration."""
        e, m, n, r, w = self.entries, self.rows, self.columns, self.rank, self.workers
        nodes, both = -(-w // NODE_CORES), self.sides == "both"
        orders = 2 if both else 1
        groups = group_number(int(e), FACTORED_ENTRIES if both else max(FACTORED_ENTRIES, int(ENTRIES_PER_FEATURE * n)))
        uneven = -(-groups // w) * w / groups
        busy = min(w, groups)
        own = groups / busy
        cut = TAIL + 1 + np.log2(max(own / (TAIL + 1), 1)) + own / TASK  # each half of what is left, to single groups
        tasks = (min(own, cut) + 2) * busy  # of groups, and sums
        work = flops(e, m, n, r, self.sides) / (rates.both if both else rates.columns) / w * uneven
        right, left = n * r * ITEM, m * r * ITEM
        passes = 1 + (max(-(-left // WORKER_BYTES), 1) if both else 0)
        found = {
            "solve": work,
            "read": 0.0 if self.kept else passes * e * rates.entry / w * uneven,
            "publish": right / self.network + right / COPY_RATE,
            "update": right / self.network + 4 * n * r * r / rates.columns,
            "schedule": orders * tasks * TASK_SECONDS if w > 1 else 0.0,
        }
        if both:
            found["left"] = left / nodes / self.network + left / self.network + left / COPY_RATE if w > 1 else 0.0
        else:
            within, across = max(groups / w - 1, 0), np.log2(busy)
            found["sum"] = 3 * within * right / COPY_RATE + across * (right / self.network + 3 * right / COPY_RATE)
        disk = 0.0 if self.kept else passes * e * FILED / (nodes * NODE_DISK)
        found["disk"] = max(disk - found["solve"] - found["read"], 0.0)
        return found


def flops(entries: float, rows: float, columns: float, rank: int, sides: str) -> float:
    """Flops of an iteration, as the plan counts them."""
    half = 2 * entries * rank**2 + rows * rank**3 / 3
    return half + 4 * entries * rank if sides == "columns" else 2 * half


def cases(rank: int, sides: str, network: float) -> Iterator[Case]:
    """All sizes on all clusters."""
    for entries in SIZES:
        columns = min(MOST_COLUMNS, entries / 1000)
        for workers in WORKERS:
            yield Case(entries, entries / ROW_ENTRIES, columns, rank, sides, workers, network)


def show(rates: Rates, rank: int) -> None:
    """Print seconds, the share of them that solves, and the largest of the other parts."""
    for network in NETWORKS:
        for sides in ("columns", "both"):
            print(f"\n{sides}, rank {rank}, {network * 8 / 1e9:.0f} Gbit/s")
            for case in cases(rank, sides, network):
                parts = case.parts(rates)
                total = sum(parts.values())
                limit = max((name for name in parts if name != "solve"), key=parts.__getitem__)
                first = limit if parts[limit] > parts["solve"] / 2 else "solve"
                print(
                    f"  {case.entries:7.0e} entries, {case.workers:4d} workers: {total:9.2f} s, solving"
                    f" {parts['solve'] / total:4.0%}; limited by {first:8} (next {limit} {parts[limit]:.2g} s)"
                )


def measured(points: dict[str, Any]) -> list[tuple[Case, float]]:
    """The cases that were measured, and their seconds; workers keep the blocks of so small a store."""
    size = points["entries"], points["rows"], points["columns"], points["rank"]
    return [
        (Case(*size, sides, workers, COPY_RATE, kept=True), points[f"{sides} {workers} workers"])
        for sides in ("columns", "both")
        for workers in (1, 2)
    ]


def plot(rates: Rates, points: dict[str, Any], rank: int, file: Path) -> None:
    """Draw seconds an iteration against workers, one line a size, and the measured points."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axis, sides in zip(axes, ("columns", "both"), strict=True):
        for network, style in zip(NETWORKS, (":", "-"), strict=True):
            for k, entries in enumerate(SIZES):
                line = [case for case in cases(rank, sides, network) if case.entries == entries]
                seconds = [sum(case.parts(rates).values()) for case in line]
                label = f"{entries:.0e} entries" if style == "-" else None
                axis.loglog([case.workers for case in line], seconds, style, color=f"C{k}", label=label)
        found = [(case, seconds) for case, seconds in measured(points) if case.sides == sides]
        axis.loglog([c.workers for c, _ in found], [s for _, s in found], "ko", label="measured, 2e7 entries")
        axis.loglog([c.workers for c, _ in found], [sum(c.parts(rates).values()) for c, _ in found], "k--")
        axis.set(xlabel="workers", ylabel="seconds an iteration", title=f"{sides} (dotted: 10 Gbit/s)")
    axes[0].legend(fontsize=8)
    figure.savefig(file)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--points", type=Path, default=Path(__file__).with_name("scaling_points.json"))
    arguments.add_argument("--rank", type=int, default=32)
    arguments.add_argument("--plot", type=Path)
    options = arguments.parse_args()
    points = json.loads(options.points.read_text())
    rates = Rates.of(points)
    print(
        f"a worker: {rates.columns / 1e9:.1f} GF/s (columns), {rates.both / 1e9:.1f} GF/s (both sides), reads one in"
        f" {rates.entry * 1e9:.0f} ns"
    )
    for case, seconds in measured(points):
        model = sum(case.parts(rates).values())
        print(f"{case.sides:8} {case.workers} workers: measured {seconds:6.2f} s, model {model:6.2f} s")
    show(rates, options.rank)
    if options.plot:
        plot(rates, points, options.rank, options.plot)


if __name__ == "__main__":
    main()
