"""What does an iteration cost without a singular value decomposition, and how long until an error is reached?

    python scripts/paper/runtime.py [--quick] [--output FOLDER] [--sizes 500 5000]

Claim: α = 1/2 needs matrix products alone, and so is faster than IRLS, up to matrices with millions of missing entries.
Square matrices of rank 5, ten times as many entries observed as degrees of freedom (a half at most); the same float64
and threads for all, as far as OMP_NUM_THREADS and the process's cores allow:

    lin-RFM             exact features of the columns, LinRFM(features="dense")
    lin-RFM, factored   both sides, rank 32: what LinRFM takes at this size by itself
    IRLS-0              the same objective, by an eigen decomposition an iteration

Beside them what NumPy's BLAS and LAPACK take for the parts alone, so that it can be seen how much is the method and how
much the program: Z'Z (the product that lin-RFM makes), eigh of Z'Z (what IRLS adds to it) and the SVD of Z.

Seconds an iteration are the median but for the first. "seconds to error" sums the iterations until the unobserved
entries' relative mean square error is below 1e-3; looking at it is not timed, and it is empty where --iterations were
not enough.
The figure shows both against the size. The last lines are how many times longer IRLS-0 takes.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
from common import LIMIT, PURE, Problem, Row, completed, degrees_of_freedom, figure, options, show, whole, write

from rfmdist import LinRFM
from rfmdist.baselines import IRLS

RANK, CAP = 5, 32
PLAIN: dict[str, Any] = {
    "indicators": 0.0,
    "ridge_by_count": 0.0,
    "row_scale": 0.0,
    "side_weight": 0.0,
    "validation_fraction": 0.0,
    "tol": 0.0,
    "ridge": 0.05,
} | PURE
METHODS: dict[str, Callable[..., Any]] = {
    "lin-RFM": lambda density, **more: LinRFM(
        features="dense", sides="columns", replacement=1 / density, **PLAIN, **more
    ),
    "lin-RFM, factored": lambda density, **more: LinRFM(
        features="factored", sides="both", rank=CAP, replacement=0.4 / density, **PLAIN, **more
    ),
    "IRLS-0": lambda density, **more: IRLS(p=0.0, floor=0.1, floor_decay=0.8, tol=0.0, **more),
}
"""Each as a function of the share observed. Ridge and floors need the fewest iterations of some tried at 300 × 300."""
PARTS: dict[str, Callable[[np.ndarray], Any]] = {
    "Z'Z alone": lambda matrix: matrix.T @ matrix,
    "eigh alone": lambda matrix: np.linalg.eigh(matrix.T @ matrix),
    "SVD alone": lambda matrix: np.linalg.svd(matrix, full_matrices=False),
}


def main() -> int:
    """Time all methods and parts at all sizes."""
    given = options(
        __doc__,
        {"sizes": (60, 120), "iterations": 10},
        sizes=(500, 1000, 2000, 5000),
        iterations=60,
        most_seconds=1200.0,
    )
    completed(METHODS["lin-RFM"](0.5, max_iter=1), draw(60).observed)  # compiled before anything is timed
    completed(METHODS["lin-RFM, factored"](0.5, max_iter=1), draw(60).observed)
    rows: list[Row] = []
    for size in given.sizes:
        problem = draw(size)
        rows += [timed(name, problem, given) for name in METHODS]
        rows += [alone(name, problem) for name in PARTS]
        write(given.output, "runtime", rows)  # kept if a greater size is interrupted
    show(rows)
    compare(rows, given)
    with figure(given.output, "runtime", 2) as panels:
        for axes, key in zip(panels, ("seconds_an_iteration", "seconds_to_error"), strict=True):
            for name in (*METHODS, *PARTS):
                chosen = [row for row in rows if row["method"] == name and row[key]]
                if chosen:
                    style = "o-" if name in METHODS else "x:"
                    axes.loglog([row["size"] for row in chosen], [row[key] for row in chosen], style, label=name)
            axes.set(xlabel="rows and columns", ylabel=key.replace("_", " "))
    return 0


def draw(size: int) -> Problem:
    """Ten times as many observed entries as degrees of freedom, a half at most."""
    observed = min(10 * degrees_of_freedom(size, size, RANK), size * size // 2)
    return Problem.draw(size, size, RANK, observed, np.random.default_rng(size))


class Clock:
    """A callback that keeps the seconds of iterations, and ends the fit once the error is reached, or time is up."""

    def __init__(self, problem: Problem, most_seconds: float) -> None:
        self.problem, self.most_seconds = problem, most_seconds
        self.seconds: list[float] = []
        self.reached = False

    def __call__(self, iteration: Any) -> bool:
        """Look at an iterate; the time it took is that without looking."""
        self.seconds.append(iteration.seconds)
        estimate = iteration.estimate if hasattr(iteration, "estimate") else whole(iteration.completion)
        self.reached = self.problem.error(estimate) < LIMIT
        return (self.reached and len(self.seconds) > 2) or sum(self.seconds) > self.most_seconds


def timed(name: str, problem: Problem, given: Namespace) -> Row:
    """Time a method's iterations, and those to the error."""
    clock = Clock(problem, given.most_seconds)
    completed(METHODS[name](float(problem.mask.mean()), max_iter=given.iterations, callbacks=[clock]), problem.observed)
    seconds, needed = float(np.median(clock.seconds[1:])), sum(clock.seconds) if clock.reached else None
    return row_of(name, problem, seconds, len(clock.seconds), needed)


def alone(name: str, problem: Problem) -> Row:
    """Time one part of an iteration."""
    started = time.perf_counter()
    PARTS[name](problem.matrix)
    return row_of(name, problem, time.perf_counter() - started, None, None)


def row_of(name: str, problem: Problem, seconds: float, iterations: int | None, needed: float | None) -> Row:
    """One line of results."""
    return {
        "size": len(problem.mask),
        "missing": int((~problem.mask).sum()),
        "method": name,
        "seconds_an_iteration": seconds,
        "iterations": iterations,
        "seconds_to_error": needed,
    }


def compare(rows: list[Row], given: Namespace) -> None:
    """Print how many times longer IRLS-0 takes than each lin-RFM."""
    for size in given.sizes:
        found = {row["method"]: row for row in rows if row["size"] == size}
        for name in ("lin-RFM", "lin-RFM, factored"):
            ratios = []
            for key in ("seconds_an_iteration", "seconds_to_error"):
                ours, theirs = found[name][key], found["IRLS-0"][key]
                ratios.append(f"{theirs / ours:.1f} times" if ours and theirs else "not both reached")
            print(f"{size} x {size}: IRLS-0 over {name}: {ratios[0]} an iteration, {ratios[1]} to the error")


if __name__ == "__main__":
    sys.exit(main())
