"""Open question 1: without a floor (ε = 0), does lin-RFM converge to the low-rank matrix under incoherence?

    python scripts/paper/no_floor.py [--quick] [--output FOLDER]

The paper conjectures that it may. Three kinds of rank-one matrices: all ones (as incoherent as a matrix can be),
Gaussian factors, and coherent ones (Gaussian, one row and one column ten times as large), each from a share of its
entries, α = 1/2 and 1, no ridge. Beside ε = 0 stand fixed floors, and one that falls from 1 to 1e-6. The table and
the figure, the share of draws recovered against the share observed, are for α = 1/2; the CSV has both.

Then all 3 × 3 masks (and 4 × 4 in full) of the matrix of ones from which it is determined (the graph of rows and
columns is connected) are gone through at ε = 0, α = 1/2; those that settle at another matrix are counterexamples. The
first with the fewest entries is iterated again in decimals of `DIGITS` digits, without any ridge, so that rounding is
no excuse; it is written to no_floor_counterexample.csv.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from decimal import Decimal, localcontext
from itertools import product

import numpy as np
from common import LIMIT, Algorithm, Matrix, Row, figure, low_rank, options, relative_errors, show, uniform, write
from numpy.typing import NDArray

TOL = 1e-12
DIGITS, EXACT_ITERATIONS = 400, 200
"""Digits and iterations of the check in decimals; eigenvalues of P that vanish must not reach 10^-digits before."""
COHERENT = 10.0
"""How many times larger one row and one column of a coherent matrix are."""


def main() -> int:
    """Sweep, search, check."""
    given = options(
        __doc__,
        {"size": 6, "draws": 10, "iterations": 100, "grid": 3},
        size=12,
        draws=40,
        iterations=1000,
        shares=(0.3, 0.5, 0.7, 0.85),
        floors=(0.0, 1e-4, 1e-2),
        powers=(0.5, 1.0),
        grid=4,
        seed=0,
    )
    rows = [
        row
        for kind, share in product(KINDS, given.shares)
        for row in swept(kind, share, given, np.random.default_rng((given.seed, round(1000 * share))))
    ]
    show([row for row in rows if row["power"] == given.powers[0]])
    write(given.output, "no_floor", rows)
    draw(given, rows)
    for size in range(3, given.grid + 1):
        search(size, given)
    return 0


def ones(rng: np.random.Generator, draws: int, size: int) -> Matrix:
    """The matrix of ones."""
    return np.ones((draws, size, size))


def gaussian(rng: np.random.Generator, draws: int, size: int) -> Matrix:
    """Gaussian factors."""
    return low_rank(rng, (draws, size, size), 1)


def coherent(rng: np.random.Generator, draws: int, size: int) -> Matrix:
    """Gaussian factors, the first row and column larger."""
    matrices = gaussian(rng, draws, size)
    matrices[:, 0] *= COHERENT
    matrices[:, :, 0] *= COHERENT
    return matrices


KINDS = {"ones": ones, "gaussian": gaussian, "coherent": coherent}


def swept(kind: str, share: float, given: Namespace, rng: np.random.Generator) -> list[Row]:
    """Rows of all floors and powers for one kind of matrix and one share of observed entries."""
    draws, size, iterations = given.draws, given.size, given.iterations
    matrices = KINDS[kind](rng, draws, size)
    mask = uniform(rng, matrices.shape, round(share * size**2))
    rows = []
    for power, floor in product(given.powers, (*given.floors, "falling")):
        if floor == "falling":
            found = falling(matrices, mask, power, iterations)
        else:
            found, _ = Algorithm(power=power, floor=floor).limits(matrices, mask, iterations, TOL)
        spectrum = np.linalg.svd(found, compute_uv=False)
        rows.append(
            {
                "kind": kind,
                "observed": share,
                "power": power,
                "floor": floor,
                "determined": float(connected(mask).mean()),
                "recovered": float((relative_errors(found, matrices, mask) < LIMIT).mean()),
                "median_rank": float(np.median((spectrum > 1e-3 * spectrum[:, :1]).sum(axis=1))),
            }
        )
    return rows


def falling(matrices: Matrix, mask: NDArray[np.bool_], power: float, iterations: int) -> Matrix:
    """Iterate with a floor that falls from 1 to 1e-6, and return the last estimates."""
    estimate, features = np.zeros_like(matrices), np.broadcast_to(np.eye(matrices.shape[2]), matrices.shape)
    for floor in np.geomspace(1.0, 1e-6, iterations):
        estimate, features = Algorithm(power=power, floor=float(floor)).step(features, matrices, mask)
    return estimate


def connected(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the graph of rows and columns, an edge an observed entry, is connected, of each mask of a stack."""
    rows = np.zeros(masks.shape[:2], bool)
    rows[:, 0] = True
    for _ in range(masks.shape[1]):
        columns = (masks & rows[:, :, None]).any(axis=1)
        rows = (masks & columns[:, None, :]).any(axis=2) | rows
    return rows.all(axis=1) & columns.all(axis=1)


def draw(given: Namespace, rows: list[Row]) -> None:
    """Draw the share recovered against the share observed for α = 1/2, a panel a kind."""
    with figure(given.output, "no_floor", len(KINDS)) as panels:
        for axes, kind in zip(panels, KINDS, strict=True):
            for floor in (*given.floors, "falling"):
                chosen = [
                    r for r in rows if r["kind"] == kind and r["floor"] == floor and r["power"] == given.powers[0]
                ]
                points = [row["observed"] for row in chosen], [row["recovered"] for row in chosen]
                axes.plot(*points, "o-", label=f"ε {floor}" if floor == "falling" else f"ε = {floor:g}")
            axes.plot(points[0], [row["determined"] for row in chosen], "k:", label="determined")
            axes.set(
                title=kind, xlabel="share observed", ylabel=f"recovered (α = {given.powers[0]})", ylim=(-0.03, 1.03)
            )


def search(size: int, given: Namespace) -> None:
    """Go through all masks that determine the matrix of ones, and print how many settle elsewhere."""
    bits = np.arange(2 ** (size * size))[:, None] >> np.arange(size * size) & 1
    masks = bits.astype(bool).reshape(-1, size, size)
    masks = masks[connected(masks) & ~masks.all(axis=(1, 2))]
    matrices = np.ones(masks.shape)
    found, taken = Algorithm().limits(matrices, masks, given.iterations, TOL)
    right = relative_errors(found, matrices, masks) < LIMIT
    wrong = ~right & (taken <= given.iterations)
    print(
        f"{size} x {size} ones, all {len(masks)} masks that determine it: {right.sum()} recovered,"
        f" {wrong.sum()} settled elsewhere, {(~right & ~wrong).sum()} still moving"
    )
    if size == 3:
        counterexample(given, masks[wrong], found[wrong])


def counterexample(given: Namespace, masks: NDArray[np.bool_], found: Matrix) -> None:
    """Check the counterexample of fewest entries in decimals, print and write it; say so if there is none."""
    if not len(masks):
        print("no counterexample among them")
        return
    first = int(np.argmin(masks.sum(axis=(1, 2))))
    exact, change = decimal_iterate(masks[first])
    minor = max(abs(np.linalg.det(exact[np.ix_(r, c)])) for r in PAIRS for c in PAIRS)
    print(
        f"a counterexample: observed {masks[first].astype(int).tolist()} of ones ends at {np.round(exact, 6).tolist()}"
    )
    print(
        f"in {DIGITS} digits, after {EXACT_ITERATIONS} iterations: largest 2 x 2 minor {minor:.3g} (0 if of rank one),"
        f" last change {change:.1e}, from float64's limit {np.abs(exact - found[first]).max():.1e}"
    )
    places = [(i, j) for i in range(3) for j in range(3)]
    rows = [{"row": i, "column": j, "observed": int(masks[first, i, j]), "limit": exact[i, j]} for i, j in places]
    write(given.output, "no_floor_counterexample", rows)


PAIRS = ([0, 1], [0, 2], [1, 2])


def decimal_iterate(mask: NDArray[np.bool_]) -> tuple[Matrix, float]:
    """Iterate on the matrix of ones in decimals, α = 1/2, and return the last estimate and its last change."""
    n, zero, one = mask.shape[1], Decimal(0), Decimal(1)
    with localcontext() as context:
        context.prec = DIGITS
        features, last = [[one if i == j else zero for j in range(n)] for i in range(n)], np.full((n, n), zero)
        for _ in range(EXACT_ITERATIONS):
            estimate = []
            for seen in map(np.flatnonzero, mask):
                dual = solved([[features[i][j] for j in seen] for i in seen], [one] * len(seen))
                estimate.append(
                    [sum((a * features[i][j] for a, i in zip(dual, seen, strict=True)), zero) for j in range(n)]
                )
            features = [[sum((row[i] * row[j] for row in estimate), zero) for j in range(n)] for i in range(n)]
            change, last = np.abs(np.array(estimate) - last).max(), np.array(estimate)
    return last.astype(float), float(change)


def solved(system: list[list[Decimal]], right: list[Decimal]) -> list[Decimal]:
    """Solve a positive definite system by elimination."""
    rows = [[*row, value] for row, value in zip(system, right, strict=True)]
    for k, pivot in enumerate(rows):
        for other in rows[:k] + rows[k + 1 :]:
            factor = other[k] / pivot[k]
            other[:] = [x - factor * y for x, y in zip(other, pivot, strict=True)]
    return [row[-1] / row[k] for k, row in enumerate(rows)]


if __name__ == "__main__":
    sys.exit(main())
