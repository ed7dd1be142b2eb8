"""Open question 2: how do lin-RFM and deep linear networks compare when the observed entries are noisy?

    python scripts/paper/noise.py [--quick] [--output FOLDER]

Low-rank matrices of unit mean square with Gaussian noise of several levels. Every method sees the same observed entries
less a tenth that is held out; the best iterate and the best setting by the held-out entries count, on all sides alike:

    lin-RFM        features of the columns, α = 1/2, ω = 1; the ridge from a grid
    lin-RFM, sides the same, features of columns and rows in turns
    deep L         deep linear network of depth L; the scale of its start from a grid
    ALS            told the true rank; the ridge from a grid

Last, LinRFM() with nothing chosen by us, which may hold out what it likes and fits again on all entries.

The figure shows the root mean square error of the unobserved entries (against the truth without noise, relative to its
root mean square) for each level; the dotted line is the noise itself. Table and CSV have means and deviations over
draws.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from common import PURE, Matrix, Problem, Row, Watch, completed, degrees_of_freedom, figure, options, show, write

from rfmdist import LinRFM
from rfmdist.baselines import AlternatingLeastSquares
from rfmdist.baselines.deep_linear import DeepLinearNetwork

HELD, PATIENCE = 0.1, 10
"""Share held out; iterations without a lower error on it after which a fit ends."""
RIDGES, STARTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), (1e-3, 1e-1)
FIXED: dict[str, Any] = {"features": "dense", "replacement": 1.0, "validation_fraction": 0.0, "max_iter": 100} | PURE
METHODS: dict[str, list[Callable[..., Any]]] = {
    "lin-RFM": [lambda rank, ridge=ridge, **more: LinRFM(ridge=ridge, **FIXED, **more) for ridge in RIDGES],
    "lin-RFM, sides": [
        lambda rank, ridge=ridge, **more: LinRFM(sides="both", ridge=ridge, **FIXED, **more) for ridge in RIDGES
    ],
    **{
        f"deep {depth}": [
            lambda rank, depth=depth, start=start, **more: DeepLinearNetwork(
                depth=depth, initialisation=start, steps=20, tol=0.0, max_iter=300, **more
            )
            for start in STARTS
        ]
        for depth in (2, 3, 4)
    },
    "ALS": [
        lambda rank, ridge=ridge, **more: AlternatingLeastSquares(rank, ridge=ridge, **more)
        for ridge in (0.01, 0.1, 0.3, 1.0, 3.0)
    ],
}
"""Settings of each method, as functions of the rank and of the callbacks."""
DEFAULTS = "LinRFM()"


def main() -> int:
    """Run all methods at all levels of noise."""
    given = options(
        __doc__,
        {"size": 16, "rank": 1, "levels": (0.1,), "seeds": 1, "methods": ("lin-RFM", "deep 2", "ALS")},
        {"methods": (*METHODS, DEFAULTS)},
        size=50,
        rank=3,
        levels=(0.01, 0.03, 0.1, 0.3, 1.0),
        oversampling=4.0,
        seeds=5,
        methods=(*METHODS, DEFAULTS),
    )
    rows = []
    for level in given.levels:
        observed = round(given.oversampling * degrees_of_freedom(given.size, given.size, given.rank))
        draws = [np.random.default_rng(seed) for seed in range(given.seeds)]
        problems = [Problem.draw(given.size, given.size, given.rank, observed, rng, level) for rng in draws]
        rows += [described(name, level, problems) for name in given.methods]
        write(given.output, "noise", rows)  # kept if a later one is interrupted
    show(rows)
    with figure(given.output, "noise") as (axes,):
        for name in given.methods:
            chosen = [row for row in rows if row["method"] == name]
            points = [np.array([row[key] for row in chosen]) for key in ("noise", "error", "deviation")]
            axes.errorbar(*points, fmt="s--" if name.startswith("deep") else "o-", capsize=3, label=name)
        axes.plot(given.levels, given.levels, "k:", label="noise")
        axes.set(xscale="log", yscale="log", xlabel="noise", ylabel="error of unobserved entries")
    return 0


def described(name: str, level: float, problems: list[Problem]) -> Row:
    """Mean and deviation of a method's error over the draws."""
    errors = [np.sqrt(problem.error(best(name, problem, seed))) for seed, problem in enumerate(problems)]
    return {
        "noise": level,
        "method": name,
        "draws": len(problems),
        "error": float(np.mean(errors)),
        "deviation": float(np.std(errors)),
    }


def best(name: str, problem: Problem, seed: int) -> Matrix:
    """The completion of a method's best setting and iterate by the held-out entries."""
    if name == DEFAULTS:
        return completed(LinRFM(**PURE), problem.observed)
    fitted, held = problem.split(HELD, np.random.default_rng((seed, 1)))
    watches = [Watch(problem.values, held, PATIENCE) for _ in METHODS[name]]
    for setting, watch in zip(METHODS[name], watches, strict=True):
        completed(setting(problem.rank, callbacks=[watch]), fitted.observed)
    return min(watches, key=lambda watch: min(watch.errors)).best


if __name__ == "__main__":
    sys.exit(main())
