"""How many Gaussian measurements each method needs to recover a matrix of low rank.

    python scripts/paper/sensing.py [--quick] [--output FOLDER]

Claim (arXiv 2401.04553): lin-RFM recovers low-rank matrices from fewer linear measurements than the
minimum nuclear norm does, and the minimum norm does not recover them at all. Matrices of n × n and rank r, the product
of two Gaussian factors, are measured by N Gaussian matrices without noise, N from 1.1 to 4 times their r (2n − r)
degrees of freedom, short of the n² that determine any matrix. A trial succeeds if the relative error in the Frobenius
norm is below 1e-3. Methods: `LinearSensing` by its defaults with power 1/4 (the nuclear norm by reweighting), 1/2 (the
log-determinant) and 1 (p = −2); the minimum norm; and the minimum nuclear norm by Douglas-Rachford splitting, since
reweighting comes near that only slowly. Writes sensing.csv, a row a method and N, and sensing.png.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from common import Matrix, Row, degrees_of_freedom, figure, low_rank, options, write

from rfmdist import LinearSensing

RECOVERED = 1e-3
"""Relative error below which a matrix is recovered."""
SPLITTING_STEPS, SPLITTING_TOLERANCE = 5000, 1e-6
POWERS = {"power 1/4": 0.25, "power 1/2": 0.5, "power 1": 1.0}
METHODS = ("minimum norm", "minimum nuclear norm", *POWERS)


def estimate(method: str, A: Matrix, y: Matrix) -> Matrix:
    """Give a method's matrix."""
    if method == "minimum norm":
        return np.linalg.lstsq(A.reshape(len(A), -1), y, rcond=None)[0].reshape(A.shape[1:])
    if method == "minimum nuclear norm":
        return nuclear_norm(A, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what has not settled is counted by its error
        return LinearSensing(power=POWERS[method]).fit(A, y).coef_


def nuclear_norm(A: Matrix, y: Matrix) -> Matrix:
    """Give the matrix of least nuclear norm with these measurements, by Douglas-Rachford splitting."""
    table = A.reshape(len(A), -1)
    inverse = np.linalg.pinv(table)
    shape = A.shape[1:]

    def project(point: Matrix) -> Matrix:
        return point + (inverse @ (y - table @ point.ravel())).reshape(shape)

    found = point = project(np.zeros(shape))
    threshold = np.linalg.norm(point, 2)  # that of the steps; any does in the end
    for _ in range(SPLITTING_STEPS):
        left, values, right = np.linalg.svd(2 * found - point, full_matrices=False)
        step = (left * np.maximum(values - threshold, 0)) @ right - found
        point = point + step
        found = project(point)
        if np.linalg.norm(step) < SPLITTING_TOLERANCE * np.linalg.norm(found):
            break
    return found


def errors(size: int, rank: int, count: int, seed: int) -> dict[str, float]:
    """Give the relative error of every method on one problem."""
    rng = np.random.default_rng((size, rank, count, seed))
    matrix = low_rank(rng, (size, size), rank)
    A = rng.normal(size=(count, size, size))
    y = np.tensordot(A, matrix, 2)
    norm = np.linalg.norm(matrix)
    return {method: float(np.linalg.norm(estimate(method, A, y) - matrix) / norm) for method in METHODS}


def sweep(problems: Iterable[tuple[int, int]], ratios: Iterable[float], trials: int) -> list[Row]:
    """Give a row for every size, rank, number of measurements and method."""
    rows: list[Row] = []
    for (size, rank), ratio in product(problems, ratios):
        freedom = degrees_of_freedom(size, size, rank)
        count = round(ratio * freedom)
        if count >= size**2:
            continue
        trial = [errors(size, rank, count, seed) for seed in range(trials)]
        found = {method: np.array([each[method] for each in trial]) for method in METHODS}
        about = {"size": size, "rank": rank, "measurements": count, "ratio": count / freedom}
        rows += [about | {"method": method} | scored(found[method]) for method in METHODS]
        told = ", ".join(f"{method} {np.mean(found[method] < RECOVERED):.2f}" for method in METHODS)
        print(f"{size} × {size}, rank {rank}, {count} measurements ({ratio:g} ×): {told}", flush=True)
    return rows


def scored(found: Matrix) -> Row:
    """Tell of a method's errors, one a trial, how many are of recovered matrices."""
    return {
        "success": float(np.mean(found < RECOVERED)),
        "median_error": float(np.median(found)),
        "trials": len(found),
    }


def written(rows: Sequence[Row], folder: Path) -> None:
    """Write the table and its picture, a panel for every size and rank."""
    write(folder, "sensing", rows)
    groups = list(dict.fromkeys((row["size"], row["rank"]) for row in rows))
    with figure(folder, "sensing", len(groups)) as panels:
        for panel, (size, rank) in zip(panels, groups, strict=True):
            for method in METHODS:
                line = [row for row in rows if (row["size"], row["rank"], row["method"]) == (size, rank, method)]
                points = [[row[key] for row in line] for key in ("measurements", "success")]
                panel.plot(*points, marker="o", label=method)
            panel.axvline(degrees_of_freedom(size, size, rank), color="grey", linestyle=":")
            panel.set(title=f"{size} × {size}, rank {rank}", xlabel="measurements")
            panel.set_ylim(-0.03, 1.03)
        panels[0].set_ylabel(f"share with error < {RECOVERED:g}")


def main() -> int:
    """Sweep and write."""
    given = options(
        __doc__,
        {"sizes": (10,), "ranks": (1,), "ratios": (1.2, 1.6, 2, 3, 4), "trials": 3},
        sizes=(20, 30),
        ranks=(1, 2, 3),
        ratios=(1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.5, 3, 4),
        trials=10,
    )
    written(sweep(list(product(given.sizes, given.ranks)), given.ratios, given.trials), given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
