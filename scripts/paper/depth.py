"""What does depth buy? Error of deep lin-RFM and of deep linear networks against the number of observed entries.

    python scripts/paper/depth.py [--quick] [--output FOLDER]

Claims 6 and 8 of arXiv 2401.04553: deep lin-RFM of depth L has the implicit bias of deep linear networks of depth L
(the Schatten-2/L quasi-norm, so that depth 2 is the nuclear norm and each more needs fewer entries), and does better
than they do on few entries. Random matrices of low rank are completed by DeepLinRFM of depth 2..5 and by networks of
depth 2..4 from a balanced start of 1e-3, for at most ``--iterates`` times 200 gradient steps. Written are depth.csv, a
row a fit with its relative error on the unobserved entries and its seconds, and depth.png with the medians; the medians
are printed too.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import Problem, Row, completed, degrees_of_freedom, figure, options, write

from rfmdist import DeepLinRFM
from rfmdist.baselines.deep_linear import DeepLinearNetwork
from rfmdist.deep import MatrixSensor


def main() -> int:
    """Run the sweep and write its table and figure."""
    given = options(
        __doc__,
        {"size": 24, "rank": 2, "oversampling": (1.5, 2.5, 3.5), "seeds": 1, "iterates": 30},
        size=50,
        rank=3,
        oversampling=(1.25, 1.5, 1.75, 2, 2.5, 3, 4),
        seeds=5,
        iterates=500,
    )
    rows: list[Row] = []
    for oversampling in given.oversampling:
        observed = round(oversampling * degrees_of_freedom(given.size, given.size, given.rank))
        for seed in range(given.seeds):
            problem = Problem.square(given.size, given.rank, observed, seed)
            rows += [fitted(*model, problem, oversampling, seed) for model in models(given)]
        told([row for row in rows if row["oversampling"] == oversampling])
    write(given.output, "depth", rows)
    drawn(given.output, rows)
    return 0


def models(given: Namespace) -> list[tuple[str, int, MatrixSensor]]:
    """Name what is compared: method, depth, model."""
    iterations = 300 if given.quick else 1000
    machines = [("deep lin-RFM", L, DeepLinRFM(depth=L, tol=1e-6, max_iter=iterations)) for L in (2, 3, 4, 5)]
    networks = [("network", L, DeepLinearNetwork(depth=L, max_iter=given.iterates)) for L in (2, 3, 4)]
    return [*machines, *networks]


def fitted(method: str, depth: int, model: MatrixSensor, problem: Problem, oversampling: float, seed: int) -> Row:
    """Fit one model, and score it on what it did not see."""
    began = time.perf_counter()
    found = completed(model, problem.observed)
    return {
        "method": method,
        "depth": depth,
        "oversampling": oversampling,
        "entries": int(problem.mask.sum()),
        "seed": seed,
        "error": float(np.sqrt(problem.error(found))),
        "iterations": model.n_iter_,
        "seconds": time.perf_counter() - began,
    }


def medians(rows: Sequence[Row]) -> dict[tuple[str, int], dict[int, float]]:
    """Return the median error by method and depth, and number of entries."""
    grouped: dict[tuple[str, int], dict[int, list[float]]] = {}
    for row in rows:
        errors = grouped.setdefault((row["method"], row["depth"]), {})
        errors.setdefault(row["entries"], []).append(row["error"])
    return {key: {entries: float(np.median(e)) for entries, e in by.items()} for key, by in grouped.items()}


def told(rows: Sequence[Row]) -> None:
    """Print the medians at one number of entries."""
    found = (f"{method} {depth}: {by[rows[0]['entries']]:.1e}" for (method, depth), by in medians(rows).items())
    print(f"{rows[0]['entries']} entries ({rows[0]['oversampling']} x freedom): " + ", ".join(found), flush=True)


def drawn(folder: Path, rows: Sequence[Row]) -> None:
    """Draw the medians, networks dashed, a colour a depth."""
    with figure(folder, "depth") as (axes,):
        for (method, depth), by in medians(rows).items():
            style = "o--" if method == "network" else "o-"
            axes.plot(list(by), list(by.values()), style, color=f"C{depth - 2}", label=f"{method}, depth {depth}")
        axes.set(yscale="log", xlabel="observed entries", ylabel="relative error of the unobserved entries")
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))  # beside the lines


if __name__ == "__main__":
    sys.exit(main())
