"""What does depth buy? Error of deep lin-RFM and of deep linear networks against the number of observed entries.

    python scripts/paper/depth.py [--quick] [--output build/paper]

Claims 6 and 8 of arXiv 2401.04553: deep lin-RFM of depth L has the implicit bias of deep linear networks of depth L
(the Schatten-2/L quasi-norm, so that depth 2 is the nuclear norm and each more needs fewer entries), and does better
than they do on few entries. Random matrices of low rank are completed by DeepLinRFM of depth 2..5 and by networks of
depth 2..4 from a balanced start of 1e-3. Written are depth.csv, a row a fit with its relative error on the unobserved
entries and its seconds, and depth.png with the medians; the medians are printed too.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from rfmdist import DeepLinRFM
from rfmdist.baselines.deep_linear import DeepLinearNetwork
from rfmdist.deep import MatrixSensor


def main() -> None:
    """Run the sweep and write its table and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=50)
    parser.add_argument("--rank", type=int, default=3)
    parser.add_argument("--oversampling", type=float, nargs="+", default=[1.25, 1.5, 1.75, 2, 2.5, 3, 4])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterates", type=int, default=500, help="most iterates of 200 gradient steps")
    parser.add_argument("--quick", action="store_true", help="one 24 x 24 matrix of rank 2, three numbers of entries")
    parser.add_argument("--output", type=Path, default=Path("build/paper"))
    options = parser.parse_args()
    if options.quick:
        options.size, options.rank, options.oversampling, options.seeds = 24, 2, [1.5, 2.5, 3.5], 1
        options.iterates = 30
    warnings.filterwarnings("ignore", message=".*has not settled")
    rows = []
    for oversampling in options.oversampling:
        for seed in range(options.seeds):
            full, observed = problem(options.size, options.rank, oversampling, seed)
            rows += [fitted(*model, full, observed, oversampling, seed) for model in models(options)]
        told([row for row in rows if row["oversampling"] == oversampling])
    options.output.mkdir(parents=True, exist_ok=True)
    written(options.output / "depth.csv", rows)
    drawn(options.output / "depth.png", rows)


def models(options: argparse.Namespace) -> list[tuple[str, int, MatrixSensor]]:
    """Name what is compared: method, depth, model."""
    iterations = 300 if options.quick else 1000
    machines = [("deep lin-RFM", L, DeepLinRFM(depth=L, tol=1e-6, max_iter=iterations)) for L in (2, 3, 4, 5)]
    networks = [("network", L, DeepLinearNetwork(depth=L, max_iter=options.iterates)) for L in (2, 3, 4)]
    return [*machines, *networks]


def fitted(
    method: str,
    depth: int,
    model: MatrixSensor,
    full: np.ndarray,
    observed: sp.coo_array,
    oversampling: float,
    seed: int,
) -> dict[str, Any]:
    """Fit one model, and score it on what it did not see."""
    began = time.perf_counter()
    model.fit(observed)
    unseen = np.ones(full.shape, bool)
    unseen[observed.coords] = False
    error = np.linalg.norm((model.matrix_ - full)[unseen]) / np.linalg.norm(full[unseen])
    return {
        "method": method,
        "depth": depth,
        "oversampling": oversampling,
        "entries": observed.nnz,
        "seed": seed,
        "error": error,
        "iterations": model.n_iter_,
        "seconds": time.perf_counter() - began,
    }


def problem(size: int, rank: int, oversampling: float, seed: int) -> tuple[np.ndarray, sp.coo_array]:
    """Draw a low-rank matrix of unit mean square, and so many times its degrees of freedom of its entries."""
    rng = np.random.default_rng(seed)
    full = rng.normal(size=(size, rank)) @ rng.normal(size=(rank, size))
    full /= np.sqrt(np.mean(full**2))
    entries = min(round(oversampling * rank * (2 * size - rank)), size * size)
    at = np.unravel_index(rng.permutation(size * size)[:entries], full.shape)
    return full, sp.coo_array((full[at], at), shape=full.shape)


def medians(rows: list[dict[str, Any]]) -> dict[tuple[str, int], dict[int, float]]:
    """Return the median error by method and depth, and number of entries."""
    grouped: dict[tuple[str, int], dict[int, list[float]]] = {}
    for row in rows:
        errors = grouped.setdefault((row["method"], row["depth"]), {})
        errors.setdefault(row["entries"], []).append(row["error"])
    return {key: {entries: float(np.median(e)) for entries, e in by.items()} for key, by in grouped.items()}


def told(rows: list[dict[str, Any]]) -> None:
    """Print the medians at one number of entries."""
    found = (f"{method} {depth}: {by[rows[0]['entries']]:.1e}" for (method, depth), by in medians(rows).items())
    print(f"{rows[0]['entries']} entries ({rows[0]['oversampling']} x freedom): " + ", ".join(found), flush=True)


def written(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def drawn(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw the medians, networks dashed, a colour a depth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for (method, depth), by in medians(rows).items():
        style = "o--" if method == "network" else "o-"
        axes.plot(list(by), list(by.values()), style, color=f"C{depth - 2}", label=f"{method}, depth {depth}")
    axes.set(yscale="log", xlabel="observed entries", ylabel="relative error of the unobserved entries")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))  # beside the lines
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
