"""Does a deep linear network keep the neural feature ansatz, and does it end where deep lin-RFM ends?

    python scripts/paper/nfa.py [--quick] [--output FOLDER]

Claims 7 and 8 of arXiv 2401.04553: balanced deep linear networks satisfy W_l'W_l = AGOP_l^(1/(L-l+1)), and deep
lin-RFM with those powers has their implicit bias, without backpropagation. A random low-rank matrix, of which a share
``--share`` is observed, is completed by networks of depth L from a start of 1e-3 (balanced and not, and one from a
large start that is not balanced, where the ansatz need not hold) in at most ``--iterates`` times 20 gradient steps, by
DeepLinRFM of the same depth, by minimum nuclear norm (cvxpy) and by minimum norm (zeros where nothing was observed).
Written are nfa.csv, a row a network, its correlations and relative Frobenius distances to the others' matrices and to
the truth; nfa_training.csv, the correlations along the training; and nfa.png. What was to be shown is printed as it
turned out: correlation above 0.99, and nearer to deep lin-RFM than to either of the others.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from common import Matrix, Problem, Row, completed, figure, options, write

from rfmdist import DeepLinRFM
from rfmdist.baselines.deep_linear import DeepLinearNetwork
from rfmdist.nfa import NFATrace

STARTS = {"balanced": (True, 1e-3), "unbalanced": (False, 1e-3), "large, unbalanced": (False, 1.0)}
"""Whether the start is balanced, and its scale."""
ENOUGH = 0.99


def main() -> int:
    """Run the comparison and write its tables and figure."""
    given = options(
        __doc__,
        {"size": 30, "depths": (3,), "seeds": 1, "iterates": 600},
        size=40,
        rank=2,
        share=0.28,
        depths=(2, 3, 4),
        seeds=5,
        iterates=3000,
    )
    rows: list[Row] = []
    training: list[Row] = []
    for seed in range(given.seeds):
        for depth in given.depths:
            found, traced = compared(given, depth, seed)
            rows += found
            training += traced
    write(given.output, "nfa", rows)
    write(given.output, "nfa_training", training)
    drawn(given.output, rows, training)
    return 0


def compared(given: Namespace, depth: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Train a network from each start, and compare what it found."""
    problem = Problem.square(given.size, given.rank, round(given.share * given.size**2), seed)
    others = {
        "deep_lin_rfm": completed(DeepLinRFM(depth=depth, tol=1e-6), problem.observed),
        "nuclear_norm": least_nuclear_norm(problem.observed),
        "minimum_norm": problem.observed.toarray(),
        "truth": problem.matrix,
    }
    rows: list[Row] = []
    training: list[Row] = []
    for start in STARTS:
        network, correlations = trained(problem, start, depth, given.iterates, seed)
        about = {"depth": depth, "seed": seed, "start": start}
        fit = {"iterates": network.n_iter_, "loss": network.loss_, "correlation": correlations[-1]}
        fit["least_correlation"] = min(correlations)
        far = {name: np.linalg.norm(network.matrix_ - other) / np.linalg.norm(other) for name, other in others.items()}
        rows.append(about | fit | far)
        training += [about | {"iterate": t + 1, "correlation": least} for t, least in enumerate(correlations)]
        tell(rows[-1])
    return rows, training


def trained(
    problem: Problem, start: str, depth: int, iterates: int, seed: int
) -> tuple[DeepLinearNetwork, list[float]]:
    """Train a network, and follow the least correlation of its layers."""
    balanced, scale = STARTS[start]
    network = DeepLinearNetwork(
        depth=depth,
        balanced=balanced,
        initialisation=scale,
        steps=20,
        max_iter=iterates,
        tol=1e-7,
        random_state=seed,
    )
    trace = NFATrace(network)
    network.callbacks = [trace]
    completed(network, problem.observed)
    return network, [float(correlations.min()) for correlations in trace.correlations]


def least_nuclear_norm(observed: sp.coo_array) -> Matrix:
    """Return the matrix of least nuclear norm that agrees with the observed entries."""
    import cvxpy as cp

    rows, columns = observed.coords
    matrix = cp.Variable(observed.shape)
    cp.Problem(cp.Minimize(cp.normNuc(matrix)), [matrix[rows, columns] == observed.data]).solve(solver="SCS", eps=1e-6)
    return np.asarray(matrix.value)


def tell(row: Row) -> None:
    """Print how far a network is from each, and whether that is what was to be shown."""
    holds = row["correlation"] > ENOUGH
    nearer = row["deep_lin_rfm"] < min(row["nuclear_norm"], row["minimum_norm"])
    print(
        f"depth {row['depth']} seed {row['seed']} {row['start']:>17}: correlation {row['correlation']:.5f}"
        f" ({'above' if holds else 'NOT above'} {ENOUGH}),"
        f" {row['least_correlation']:.5f} at the least while trained;"
        f" distance to deep lin-RFM {row['deep_lin_rfm']:.1e},"
        f" nuclear norm {row['nuclear_norm']:.1e}, minimum norm {row['minimum_norm']:.1e}"
        f" ({'nearest' if nearer else 'NOT nearest'} to deep lin-RFM); to the truth {row['truth']:.1e};"
        f" loss {row['loss']:.0e} after {row['iterates']} iterates",
        flush=True,
    )


def drawn(folder: Path, rows: Sequence[Row], training: Sequence[Row]) -> None:
    """Draw the correlation along the training, and the distances at its end; the least depth of 3 or more, seed 0."""
    depth = min((row["depth"] for row in rows if row["depth"] >= 3), default=rows[0]["depth"])
    with figure(folder, "nfa", 2) as (left, right):
        for at, start in enumerate(STARTS):
            line = [t for t in training if (t["depth"], t["seed"], t["start"]) == (depth, 0, start)]
            left.plot([t["iterate"] for t in line], [t["correlation"] for t in line], label=start)
            (row,) = [r for r in rows if (r["depth"], r["seed"], r["start"]) == (depth, 0, start)]
            names = ("deep_lin_rfm", "nuclear_norm", "minimum_norm")
            right.bar(np.arange(3) + 0.27 * at, [row[name] for name in names], 0.25, label=start)
        left.set(xlabel="iterate of 20 gradient steps", ylabel="least NFA correlation of a layer", xscale="log")
        right.set(yscale="log", ylabel="relative distance of the network's matrix", title=f"depth {depth}")
        right.set_xticks(np.arange(3) + 0.27, ["deep lin-RFM", "nuclear norm", "minimum norm"])


if __name__ == "__main__":
    sys.exit(main())
