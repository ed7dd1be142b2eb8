"""How sensitive is lin-RFM to the ridge and to when it is stopped? Variance over runs, and the best ranges.

    python scripts/paper/sensitivity.py [--quick] [--output FOLDER]

Low-rank matrices with noise, features of the columns, α = 1/2, ω = 1; ridges over five decades, in units of the
values' mean square. Each run goes on for all iterations; its error is read three times: at the end, where a tenth of
the observed entries held out is fitted best ("stopped", what a user can do), and where the error is least ("oracle").

The figure shows mean and deviation over draws of each against the ridge. Printed: the ridges whose mean error is within
5 % of the least, with and without stopping.
"""

from __future__ import annotations

import sys
from argparse import Namespace

import numpy as np
from common import PURE, Problem, Row, Watch, completed, degrees_of_freedom, figure, options, show, whole, write

from rfmdist import LinRFM

HELD, NEAR = 0.1, 1.05
READINGS = ("end", "stopped", "oracle")


def main() -> int:
    """Run all ridges on all draws."""
    given = options(
        __doc__,
        {"size": 16, "rank": 1, "seeds": 2, "iterations": 20, "ridges": (0.01, 0.1, 1.0)},
        size=60,
        rank=3,
        noise=0.1,
        oversampling=4.0,
        seeds=10,
        iterations=100,
        ridges=(1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0),
        power=0.5,
    )
    observed = round(given.oversampling * degrees_of_freedom(given.size, given.size, given.rank))
    shape = given.size, given.size, given.rank, observed
    problems = [Problem.draw(*shape, np.random.default_rng(s), given.noise) for s in range(given.seeds)]
    rows = []
    for ridge in given.ridges:
        errors = np.array([run(problem, s, ridge, given) for s, problem in enumerate(problems)])
        rows.append(described(ridge, errors))
    show(rows)
    write(given.output, "sensitivity", rows)
    for reading in READINGS:
        least = min(row[reading] for row in rows)
        near = [row["ridge"] for row in rows if row[reading] <= NEAR * least]
        print(f"{reading}: least error {least:.3g}, within 5 % of it for ridges {min(near):g} to {max(near):g}")
    with figure(given.output, "sensitivity") as (axes,):
        for reading in READINGS:
            columns = ("ridge", reading, f"{reading}_deviation")
            axes.errorbar(*([row[key] for row in rows] for key in columns), fmt="o-", capsize=3, label=reading)
        axes.set(xscale="log", yscale="log", xlabel="ridge", ylabel="error of unobserved entries")
    return 0


class Errors(Watch):
    """A watch that also knows the truth: what an oracle would see."""

    def __init__(self, problem: Problem, held: np.ndarray) -> None:
        super().__init__(problem.values, held, np.inf)
        self.problem = problem
        self.truth: list[float] = []

    def __call__(self, iteration: object) -> bool:
        """Score the iterate against the unobserved entries too."""
        self.truth.append(np.sqrt(self.problem.error(whole(iteration.completion))))
        return super().__call__(iteration)


def run(problem: Problem, seed: int, ridge: float, given: Namespace) -> list[float]:
    """Errors at the end, where the held-out entries stop it, and at the oracle's iterate."""
    fitted, held = problem.split(HELD, np.random.default_rng((seed, 1)))
    watch = Errors(problem, held)
    model = LinRFM(
        features="dense",
        sides="columns",
        power=given.power,
        ridge=ridge,
        replacement=1.0,
        validation_fraction=0.0,
        max_iter=given.iterations,
        tol=0.0,
        callbacks=[watch],
        **PURE,
    )
    completed(model, fitted.observed)
    return [watch.truth[-1], watch.truth[int(np.argmin(watch.errors))], min(watch.truth)]


def described(ridge: float, errors: np.ndarray) -> Row:
    """Means and deviations over the draws."""
    row: dict[str, float] = {"ridge": ridge}
    for reading, found in zip(READINGS, errors.T, strict=True):
        row |= {reading: float(found.mean()), f"{reading}_deviation": float(found.std())}
    return row


if __name__ == "__main__":
    sys.exit(main())
