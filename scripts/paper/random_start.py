"""Is lin-RFM robust to its start? M₀ at random instead of the identity.

    python scripts/paper/random_start.py [--quick] [--output FOLDER]

Random low-rank matrices, α = 1/2, a fixed ridge. Each is completed from M₀ = I and from random ones: Gaussian (n × n,
of full rank, condition number about n), diagonal with log-normal entries (exp(2 g): some columns weigh thousands of
times more than others), and Gaussian of half rank (singular: what lies outside its range can never enter P). P₀ = M₀M₀'
is scaled to trace n. What `LinRFM` offers starts at the identity; this is a transcription (common.Algorithm).

The figure shows the errors of all draws for each kind of start; table and CSV the share recovered, and the median and
spread of the error.
"""

from __future__ import annotations

import sys

import numpy as np
from common import LIMIT, Algorithm, Matrix, Row, degrees_of_freedom, figure, low_rank, options, relative_errors
from common import show, uniform, write

TOL = 1e-7


def main() -> int:
    """Complete the same matrices from each kind of start."""
    given = options(
        __doc__,
        {"size": 16, "rank": 1, "draws": 5, "iterations": 150},
        size=30,
        rank=2,
        oversampling=4.0,
        draws=20,
        iterations=1000,
        ridge=1e-2,
        seed=0,
    )
    rng, n = np.random.default_rng(given.seed), given.size
    matrices = low_rank(rng, (given.draws, n, n), given.rank)
    mask = uniform(rng, matrices.shape, round(given.oversampling * degrees_of_freedom(n, n, given.rank)))
    rows, errors = [], {}
    for kind, start in starts(rng, given.draws, n).items():
        found, taken = Algorithm(ridge=given.ridge).limits(matrices, mask, given.iterations, TOL, scaled(start))
        errors[kind] = relative_errors(found, matrices, mask)
        rows.append(described(kind, errors[kind], taken))
    show(rows)
    write(given.output, "random_start", rows)
    with figure(given.output, "random_start") as (axes,):
        for place, kind in enumerate(errors):
            axes.semilogy(np.full(given.draws, place), errors[kind], "o", alpha=0.5)
        axes.axhline(LIMIT, color="k", linestyle=":", label="recovered below")
        axes.set_xticks(range(len(errors)), list(errors))
        axes.set(xlabel="M₀", ylabel="relative mean square error, unobserved")
    return 0


def starts(rng: np.random.Generator, draws: int, n: int) -> dict[str, Matrix]:
    """M₀ of each kind, (draws, n, ·)."""
    return {
        "identity": np.broadcast_to(np.eye(n), (draws, n, n)),
        "Gaussian": rng.normal(size=(draws, n, n)),
        "diagonal": np.exp(2 * rng.normal(size=(draws, n, 1))) * np.eye(n),
        "half rank": rng.normal(size=(draws, n, n // 2)),
    }


def scaled(start: Matrix) -> Matrix:
    """P₀ = M₀M₀' of trace n."""
    features = start @ np.swapaxes(start, 1, 2)
    return np.asarray(features * features.shape[1] / np.trace(features, axis1=1, axis2=2)[:, None, None])


def described(kind: str, errors: Matrix, taken: Matrix) -> Row:
    """Return the line of one kind of start."""
    return {
        "start": kind,
        "draws": len(errors),
        "recovered": float((errors < LIMIT).mean()),
        "median_error": float(np.median(errors)),
        "least_error": float(errors.min()),
        "greatest_error": float(errors.max()),
        "median_iterations": float(np.median(taken)),
    }


if __name__ == "__main__":
    sys.exit(main())
