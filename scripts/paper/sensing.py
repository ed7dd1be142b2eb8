"""How many Gaussian measurements each method needs to recover a matrix of low rank.

    python scripts/paper/sensing.py [--quick] [--trials 10] [--output build/paper]

Claim (arXiv 2401.04553): lin-RFM recovers low-rank matrices from fewer linear measurements than the
minimum nuclear norm does, and the minimum norm does not recover them at all. Matrices of n × n and rank r, the product
of two Gaussian factors, are measured by N Gaussian matrices without noise, N from 1.1 to 4 times their r (2n − r)
degrees of freedom, short of the n² that determine any matrix. A trial succeeds if the relative error in the Frobenius
norm is below 1e-3. Methods: `LinearSensing` by its defaults with power 1/4 (the nuclear norm by reweighting), 1/2 (the
log-determinant) and 1 (p = −2); the minimum norm; and the minimum nuclear norm by Douglas-Rachford splitting, since
reweighting comes near that only slowly. Writes sensing.csv, a row a method and N, and sensing.png. ``--quick`` is for
small matrices and few trials, in seconds.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rfmdist import LinearSensing

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LIMIT = 1e-3
"""Relative error below which a matrix is recovered."""
SPLITTING_STEPS, SPLITTING_TOLERANCE = 5000, 1e-6
POWERS = {"power 1/4": 0.25, "power 1/2": 0.5, "power 1": 1.0}
METHODS = ("minimum norm", "minimum nuclear norm", *POWERS)


def estimate(method: str, A: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give a method's matrix."""
    if method == "minimum norm":
        return np.linalg.lstsq(A.reshape(len(A), -1), y, rcond=None)[0].reshape(A.shape[1:])
    if method == "minimum nuclear norm":
        return nuclear_norm(A, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what has not settled is counted by its error
        return LinearSensing(power=POWERS[method]).fit(A, y).coef_


def nuclear_norm(A: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the matrix of least nuclear norm with these measurements, by Douglas-Rachford splitting."""
    table = A.reshape(len(A), -1)
    inverse = np.linalg.pinv(table)
    shape = A.shape[1:]

    def project(point: NDArray[np.float64]) -> NDArray[np.float64]:
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
    matrix = rng.normal(size=(size, rank)) @ rng.normal(size=(rank, size))
    A = rng.normal(size=(count, size, size))
    y = np.tensordot(A, matrix, 2)
    norm = np.linalg.norm(matrix)
    return {method: float(np.linalg.norm(estimate(method, A, y) - matrix) / norm) for method in METHODS}


def sweep(problems: Iterable[tuple[int, int]], ratios: Iterable[float], trials: int) -> pd.DataFrame:
    """Give a row for every size, rank, number of measurements and method."""
    rows = []
    for (size, rank), ratio in product(problems, ratios):
        freedom = rank * (2 * size - rank)
        count = round(ratio * freedom)
        if count >= size**2:
            continue
        found = pd.DataFrame([errors(size, rank, count, seed) for seed in range(trials)])
        for method in METHODS:
            rows.append(
                {
                    "size": size,
                    "rank": rank,
                    "measurements": count,
                    "ratio": count / freedom,
                    "method": method,
                    "success": float((found[method] < LIMIT).mean()),
                    "median_error": float(found[method].median()),
                    "trials": trials,
                }
            )
        told = ", ".join(f"{method} {np.mean(found[method] < LIMIT):.2f}" for method in METHODS)
        print(f"{size} × {size}, rank {rank}, {count} measurements ({ratio:g} ×): {told}", flush=True)
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, folder: Path) -> None:
    """Write the table and its picture, a panel for every size and rank."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "sensing.csv", index=False)
    groups = list(table.groupby(["size", "rank"]))
    figure, panels = plt.subplots(1, len(groups), figsize=(3.2 * len(groups), 3), sharey=True, squeeze=False)
    for panel, ((size, rank), part) in zip(panels[0], groups, strict=True):
        for method in METHODS:
            line = part[part["method"] == method]
            panel.plot(line["measurements"], line["success"], marker="o", label=method)
        panel.axvline(rank * (2 * size - rank), color="grey", linestyle=":")
        panel.set(title=f"{size} × {size}, rank {rank}", xlabel="measurements")
    panels[0][0].set_ylabel(f"share with error < {LIMIT:g}")
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(folder / "sensing.png", dpi=150)
    plt.close(figure)


def main() -> None:
    """Sweep and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small matrices, few trials")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("build/paper"))
    options = parser.parse_args()
    if options.quick:
        table = sweep([(10, 1)], [1.2, 1.6, 2, 3, 4], trials=min(options.trials, 3))
    else:
        problems = list(product((20, 30), (1, 2, 3)))
        table = sweep(problems, [1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.5, 3, 4], options.trials)
    write(table, options.output)


if __name__ == "__main__":
    main()
