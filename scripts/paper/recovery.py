"""How many observed entries does each method need to recover a low-rank matrix without noise?

    python scripts/paper/recovery.py [--quick] [--output FOLDER] [--methods ...]

Claims: lin-RFM needs up to thousands fewer observed entries than deep linear networks, and fewer than nuclear norm
minimisation; at α = 1/2 it does as well as IRLS-0. Gaussian factors, entries observed uniformly at random, in multiples
of the degrees of freedom r (m + n − r); recovered means a relative mean square error of the unobserved entries below
1e-3, as in the authors' code. Counts fall until a method recovers nothing; smaller ones are then not tried. A mask that
leaves the matrix undetermined even to who knows the rank is drawn again, so that methods are compared and not chance;
counts at which 1,000 masks in a row are such are not tried.

    rfmdist           LinRFM(noise=0): both sides, the rank found and cut, finished by variable projection
    lin-RFM, sides    exact features of rows and columns in turns, settings chosen on held-out observed entries
    lin-RFM           the paper's form: features of the columns, α = 1/2, settings chosen in the same way
    IRLS-0            the same objective by eigen decompositions, the floor falling
    deep L            deep linear network of depth L, gradient descent from a small balanced start
    deep lin-RFM 3    deep lin-RFM of depth 3, the powers those of the neural feature ansatz
    nuclear norm, MatrixIRLS (told the rank), ALS (told the rank), minimum norm

The figure shows, for each method against the rank, the fewest observed entries from which at least 90 % of the draws
are recovered (and from all greater counts too); the dotted line is the degrees of freedom. recovery.csv has every
count, recovery_fewest.csv the fewest. "determined" is the share of masks drawn that determine the matrix.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from common import LIMIT, PURE, Problem, Row, completed, degrees_of_freedom, figure, options, show, write

from rfmdist import LinRFM
from rfmdist.baselines import IRLS, AlternatingLeastSquares, MatrixIRLS, MinimumNorm, NuclearNorm
from rfmdist.baselines.deep_linear import DeepLinearNetwork
from rfmdist.deep import DeepLinRFM

ENOUGH = 0.9
"""Share of the draws that must be recovered."""
MOST_DRAWS = 1000
"""Masks drawn for one problem."""
METHODS: dict[str, Callable[[int], Any]] = {
    "rfmdist": lambda rank: LinRFM(noise=0, **PURE),
    "lin-RFM, sides": lambda rank: LinRFM(features="dense", sides="both", **PURE),
    "lin-RFM": lambda rank: LinRFM(features="dense", sides="columns", **PURE),
    "IRLS-0": lambda rank: IRLS(p=0.0, floor=1.0, floor_decay=0.95),
    "deep 2": lambda rank: DeepLinearNetwork(depth=2),
    "deep 3": lambda rank: DeepLinearNetwork(depth=3),
    "deep 4": lambda rank: DeepLinearNetwork(depth=4),
    "deep lin-RFM 3": lambda rank: DeepLinRFM(depth=3),
    "nuclear norm": lambda rank: NuclearNorm(),
    "MatrixIRLS": lambda rank: MatrixIRLS(rank),
    "ALS": lambda rank: AlternatingLeastSquares(rank),
    "minimum norm": lambda rank: MinimumNorm(),
}
"""Each given the rank, which only those that are said to be told it look at."""
OURS, NETWORKS = ("rfmdist", "lin-RFM, sides", "lin-RFM"), ("deep 2", "deep 3", "deep 4")


def main() -> int:
    """Run all methods on all sizes and ranks."""
    given = options(
        __doc__,
        {
            "size": (16,),
            "rank": (1,),
            "seeds": 1,
            "oversampling": (4.0,),
            "methods": ("rfmdist", "lin-RFM", "IRLS-0", "deep 3", "nuclear norm"),
        },
        {"methods": METHODS},
        size=(40, 80),
        rank=(1, 2, 3, 5),
        seeds=10,
        oversampling=(6.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.0, 1.75, 1.5, 1.25),
        methods=tuple(METHODS),
    )
    rows: list[Row] = []
    for size in given.size:
        for rank in given.rank:
            for name in given.methods:
                for row in counts_of(name, size, rank, given):
                    rows.append(row)
                    write(given.output, "recovery", rows)  # kept if a later one is interrupted
    fewest = [fewest_of(rows, size, rank, name) for size in given.size for rank in given.rank for name in given.methods]
    show(fewest)
    write(given.output, "recovery_fewest", fewest)
    compare(fewest, given)
    draw(fewest, given)
    return 0


def counts_of(name: str, size: int, rank: int, given: Namespace) -> Iterator[Row]:
    """Run a method on falling counts of observed entries, until it recovers nothing."""
    for times in sorted(given.oversampling, reverse=True):
        observed = round(times * degrees_of_freedom(size, size, rank))
        if observed >= size * size:
            continue
        drawn = [determined(size, rank, observed, seed) for seed in range(given.seeds)]
        problems = [problem for problem, _ in drawn if problem is not None]
        if len(problems) < given.seeds:
            return
        started = time.perf_counter()
        errors = [problem.error(completed(METHODS[name](rank), problem.observed)) for problem in problems]
        recovered = float(np.mean(np.array(errors) < LIMIT))
        yield {
            "size": size,
            "rank": rank,
            "method": name,
            "observed": observed,
            "times_freedom": times,
            "determined": given.seeds / sum(draws for _, draws in drawn),
            "recovered": recovered,
            "median_error": float(np.median(errors)),
            "seconds": (time.perf_counter() - started) / given.seeds,
        }
        if not recovered:
            return


@cache
def determined(size: int, rank: int, observed: int, seed: int) -> tuple[Problem | None, int]:
    """Draw a problem whose mask determines the matrix, if `MOST_DRAWS` find one, and tell how many were drawn."""
    rng = np.random.default_rng(seed)
    for draw in range(MOST_DRAWS):
        problem = Problem.draw(size, size, rank, observed, rng)
        if is_determined(problem):
            return problem, draw + 1
    return None, MOST_DRAWS


def is_determined(problem: Problem) -> bool:
    """Whether no other matrix of the rank close by has these observed entries.

    Entries of the matrices B U' change with B and U in as many directions as there are degrees of freedom; so must the
    observed ones alone.
    """
    rank, (m, n) = problem.rank, problem.matrix.shape
    if min(int(problem.mask.sum(axis=axis).min()) for axis in (0, 1)) < rank:
        return False
    left, size, right = np.linalg.svd(problem.matrix, full_matrices=False)
    left, right = (part[:, :rank] * np.sqrt(size[:rank]) for part in (left, right.T))
    (i, j), entries = np.nonzero(problem.mask), np.arange(problem.mask.sum())
    change = np.zeros((len(entries), m + n, rank))
    change[entries, i], change[entries, m + j] = right[j], left[i]
    wide = change.reshape(len(entries), -1)
    found = np.linalg.eigvalsh(wide @ wide.T if len(wide) < wide.shape[1] else wide.T @ wide)
    return int(np.sum(found > len(found) * np.finfo(float).eps * found[-1])) >= degrees_of_freedom(m, n, rank)


def fewest_of(rows: list[Row], size: int, rank: int, name: str) -> Row:
    """The fewest observed entries that were enough, all greater counts too; None if none were."""
    tried = [row for row in rows if (row["size"], row["rank"], row["method"]) == (size, rank, name)]
    fewest = None
    for row in sorted(tried, key=lambda row: row["observed"], reverse=True):
        if row["recovered"] < ENOUGH:
            break
        fewest = row
    return {
        "size": size,
        "rank": rank,
        "method": name,
        "fewest": fewest and fewest["observed"],
        "times_freedom": fewest and fewest["times_freedom"],
        "seconds": float(np.mean([row["seconds"] for row in tried])),
    }


def compare(fewest: list[Row], given: Namespace) -> None:
    """Print how many fewer entries each of ours needs than the deep linear network that needs fewest."""
    for size in given.size:
        for rank in given.rank:
            needs = {row["method"]: row["fewest"] for row in fewest if (row["size"], row["rank"]) == (size, rank)}
            networks = [needs[name] for name in NETWORKS if needs.get(name)]
            for name in [name for name in OURS if needs.get(name)]:
                less = min(networks, default=0) - needs[name]
                fewer = f"{abs(less)} {'fewer' if less >= 0 else 'more'} than" if networks else "no count is enough for"
                print(f"{size} x {size}, rank {rank}: {name} needs {needs[name]} entries, {fewer} deep linear networks")


def draw(fewest: list[Row], given: Namespace) -> None:
    """Draw the fewest entries against the rank, a panel a size."""
    with figure(given.output, "recovery", len(given.size)) as panels:
        for axes, size in zip(panels, given.size, strict=True):
            for name in given.methods:
                chosen = [r for r in fewest if (r["size"], r["method"]) == (size, name) and r["fewest"]]
                style = "o-" if name in OURS else "s--" if name in NETWORKS else "x:"
                axes.plot([row["rank"] for row in chosen], [row["fewest"] for row in chosen], style, label=name)
            freedom = [degrees_of_freedom(size, size, rank) for rank in given.rank]
            axes.plot(given.rank, freedom, "k:", label="degrees of freedom")
            axes.set(title=f"{size} × {size}", xlabel="rank", ylabel="fewest observed entries, 90 % recovered")


if __name__ == "__main__":
    sys.exit(main())
