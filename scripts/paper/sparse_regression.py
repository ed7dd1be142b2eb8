"""Recover sparse coefficients from few samples: lin-RFM, the Lasso, diagonal networks, least norm (arXiv 2401.04553).

    python scripts/paper/sparse_regression.py [--quick] [--features 500] [--sparsities 5 10 20] [--ratios 1 2 ... 8]
                                              [--coefficients gaussian|signs] [--seeds 10] [--steps 20000]
                                              [--methods ...] [--output FOLDER]

y = X w without noise: X Gaussian, the nonzero entries of w in random places, Gaussian or, which is harder for all that
is not convex, of random sign and size 1 (``--coefficients signs``); samples are ``--ratios`` times the nonzero entries.
The claim to check is that lin-RFM recovers the support where the Lasso and diagonal networks fail.
All methods see the same samples, and are judged alike and generously: a support is recovered if the largest
coefficients, as many as w has nonzero ones, are those of w; that is, a threshold exists that someone who knows w could
choose. The error is ||found - w|| / ||w||, the residual ||X found - y|| / ||y||: where a network's is large, its steps
were too few (--quick gives it 1000), and its row is no limit of the method. The rows:

    lin-RFM a     SparseRegression(power=a, ridge=0): told that there is no noise, nothing else
    lasso cv      LassoCV by 5 folds
    lasso path    the best of 100 ridges for each problem, by the support, then the error: someone chose by looking at w
    network L     DiagonalNetwork(L) after at most ``--steps`` steps: the best of two initialisations, chosen as above
    least norm    least squares of least l2 norm

A table of shares of supports recovered and of median errors is printed, then the fewest samples from which on each
method recovers 9 of 10; sparse_regression.csv and .png are written to ``--output``.
"""

from __future__ import annotations

import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from common import Row, figure, options, write
from sklearn.linear_model import LassoCV, lasso_path

from rfmdist import SparseRegression
from rfmdist.baselines.diagonal_network import DiagonalNetwork

STARTS = {2: (1e-2, 1e-3), 3: (0.1, 0.05)}
"""Initialisations of the networks, by depth: with smaller ones few entries leave the start in the steps given."""
SUCCESS = 0.9
"""Share of supports recovered that counts as recovery."""


class Problem(NamedTuple):
    """Samples, and the coefficients to be found."""

    X: np.ndarray
    y: np.ndarray
    w: np.ndarray

    @classmethod
    def draw(cls, samples: int, features: int, sparsity: int, kind: str, seed: int) -> Problem:
        """Draw a problem."""
        rng = np.random.default_rng(seed)
        X, w = rng.normal(size=(samples, features)), np.zeros(features)
        entries = rng.normal(size=sparsity)
        w[rng.permutation(features)[:sparsity]] = np.sign(entries) if kind == "signs" else entries
        return cls(X, X @ w, w)

    def error(self, found: np.ndarray) -> float:
        """Relative error."""
        return float(np.linalg.norm(found - self.w) / np.linalg.norm(self.w))

    def recovered(self, found: np.ndarray) -> bool:
        """Tell whether every coefficient in the support is larger than any outside."""
        return bool(np.abs(found[self.w != 0]).min() > np.abs(found[self.w == 0]).max())

    def best(self, candidates: Iterable[np.ndarray]) -> np.ndarray:
        """Return the candidate that is best by the support, then by the error."""
        return min(candidates, key=lambda found: (not self.recovered(found), self.error(found)))


def network(depth: int, problem: Problem, steps: int) -> np.ndarray:
    """Train a network from each initialisation and return the better."""
    models = [DiagonalNetwork(depth, initialisation=start, max_iter=steps) for start in STARTS[depth]]
    return problem.best(model.fit(problem.X, problem.y).coef_ for model in models)


METHODS: dict[str, Callable[[Problem, int], np.ndarray]] = {
    "lin-RFM 1/4": lambda p, _: SparseRegression(0.25, ridge=0.0, fit_intercept=False).fit(p.X, p.y).coef_,
    "lin-RFM 1/2": lambda p, _: SparseRegression(0.5, ridge=0.0, fit_intercept=False).fit(p.X, p.y).coef_,
    "lin-RFM 1": lambda p, _: SparseRegression(1.0, ridge=0.0, fit_intercept=False).fit(p.X, p.y).coef_,
    "lasso cv": lambda p, _: LassoCV(cv=min(5, len(p.y)), fit_intercept=False).fit(p.X, p.y).coef_,
    "lasso path": lambda p, _: p.best(lasso_path(p.X, p.y, eps=1e-4)[1].T),
    "network 2": lambda p, steps: network(2, p, steps),
    "network 3": lambda p, steps: network(3, p, steps),
    "least norm": lambda p, _: np.linalg.lstsq(p.X, p.y)[0],
}


def sweep(given: Namespace) -> list[Row]:
    """Run all methods on all problems, and print a line for each sparsity, number of samples and method."""
    rows: list[Row] = []
    for sparsity in given.sparsities:
        for samples in dict.fromkeys(round(ratio * sparsity) for ratio in given.ratios):
            shape = samples, given.features, sparsity
            problems = [Problem.draw(*shape, given.coefficients, seed) for seed in range(given.seeds)]
            print(f"{given.features} features, {sparsity} nonzero ({given.coefficients}), {samples} samples")
            for name in given.methods:
                row = {"method": name, "sparsity": sparsity, "samples": samples} | scored(name, problems, given.steps)
                rows.append(row)
                print(
                    f"  {name:12} supports {row['recovered']:4.0%}  median error {row['error']:.0e}"
                    f"  residual {row['residual']:.0e}  seconds {row['seconds']:.3f}",
                    flush=True,
                )
    return rows


def scored(name: str, problems: Sequence[Problem], steps: int) -> Row:
    """Run a method on the problems of one size."""
    started = time.perf_counter()
    found = [METHODS[name](problem, steps) for problem in problems]
    seconds = (time.perf_counter() - started) / len(problems)
    pairs = list(zip(problems, found, strict=True))
    return {
        "recovered": float(np.mean([p.recovered(w) for p, w in pairs])),
        "error": float(np.median([p.error(w) for p, w in pairs])),
        "residual": float(np.median([np.linalg.norm(p.X @ w - p.y) / np.linalg.norm(p.y) for p, w in pairs])),
        "seconds": seconds,
    }


def fewest(rows: Sequence[Row], name: str, sparsity: int) -> float:
    """Fewest samples of the sweep from which on, to its end, a method recovers; inf if none."""
    mine = [row for row in rows if row["method"] == name and row["sparsity"] == sparsity]
    enough = np.inf
    for row in sorted(mine, key=lambda row: -row["samples"]):
        if row["recovered"] < SUCCESS:
            break
        enough = row["samples"]
    return float(enough)


def draw(rows: Sequence[Row], given: Namespace) -> None:
    """Draw the shares of supports recovered over the samples, a panel for each sparsity."""
    with figure(given.output, "sparse_regression", len(given.sparsities)) as panels:
        for panel, sparsity in zip(panels, given.sparsities, strict=True):
            for name in given.methods:
                mine = [row for row in rows if row["method"] == name and row["sparsity"] == sparsity]
                panel.plot([row["samples"] for row in mine], [row["recovered"] for row in mine], marker="o", label=name)
            panel.set(
                xlabel="samples", title=f"{sparsity} of {given.features} coefficients nonzero", ylim=(-0.03, 1.03)
            )
        panels[0].set_ylabel("share of supports recovered")


def main() -> int:
    """Sweep, tell the fewest samples, write."""
    given = options(
        __doc__,
        {"features": 200, "sparsities": (5, 10), "ratios": (3.0, 3.5, 4.0, 5.0, 7.0), "seeds": 3, "steps": 1000},
        {"coefficients": ("gaussian", "signs"), "methods": METHODS},
        features=500,
        sparsities=(5, 10, 20),
        ratios=(1.5, 2, 2.5, 3, 4, 5, 6, 8),
        coefficients="gaussian",
        seeds=10,
        steps=20000,
        methods=tuple(METHODS),
    )
    warnings.simplefilter("ignore")  # what has not settled shows in the row
    rows = sweep(given)
    print(f"\nfewest samples of the sweep from which on {SUCCESS:.0%} of supports are recovered")
    for name in given.methods:
        found = "  ".join(f"{fewest(rows, name, sparsity):6.0f}" for sparsity in given.sparsities)
        print(f"  {name:12} {found}")
    print(f"  {'of':12} {'  '.join(f'{sparsity:6d}' for sparsity in given.sparsities)} nonzero coefficients")
    write(given.output, "sparse_regression", rows)
    draw(rows, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
