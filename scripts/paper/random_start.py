"""Is lin-RFM robust to its start? M₀ at random instead of the identity.

    python scripts/paper/random_start.py [--quick] [--output FOLDER]

Random low-rank matrices, α = 1/2, a ridge that falls from 5e-2 (the authors') to 1e-4, observed values put back in
place (replacement ω = 1, as the authors' code does) or not (ω = 0). Each is completed from M₀ = I and from random ones:
Gaussian (n × n, of full rank), diagonal with log-normal entries exp(2 g) (some columns weigh thousands of times more
than others), and Gaussian of half rank (singular). P₀ = M₀M₀' is scaled to trace n. `LinRFM` always starts at the
identity, so this runs a transcription (common.Algorithm).

The figure shows the errors of all draws for each kind of start, a panel for each ω; table and CSV the share recovered,
and the median and the range of the error.
"""

from __future__ import annotations

import sys

import numpy as np
from common import (
    LIMIT,
    Algorithm,
    Matrix,
    Row,
    degrees_of_freedom,
    figure,
    low_rank,
    options,
    relative_errors,
    show,
    uniform,
    write,
)
from numpy.typing import NDArray

RIDGES = (5e-2, 1e-4)
"""First and last ridge; the values are of unit mean square."""
REPLACEMENTS = (0.0, 1.0)


def main() -> int:
    """Complete the same matrices from each kind of start."""
    given = options(
        __doc__,
        {"size": 16, "rank": 1, "draws": 5, "iterations": 60},
        size=30,
        rank=2,
        oversampling=4.0,
        draws=20,
        iterations=200,
        seed=0,
    )
    rng, n = np.random.default_rng(given.seed), given.size
    matrices = low_rank(rng, (given.draws, n, n), given.rank)
    mask = uniform(rng, matrices.shape, round(given.oversampling * degrees_of_freedom(n, n, given.rank)))
    errors = {
        (replacement, kind): relative_errors(
            last(matrices, mask, scaled(start), replacement, given.iterations), matrices, mask
        )
        for replacement in REPLACEMENTS
        for kind, start in starts(np.random.default_rng((given.seed, 1)), given.draws, n).items()
    }
    rows = [described(replacement, kind, found) for (replacement, kind), found in errors.items()]
    show(rows)
    write(given.output, "random_start", rows)
    with figure(given.output, "random_start", len(REPLACEMENTS)) as panels:
        for axes, replacement in zip(panels, REPLACEMENTS, strict=True):
            chosen = {kind: found for (weight, kind), found in errors.items() if weight == replacement}
            for place, found in enumerate(chosen.values()):
                axes.semilogy(np.full(given.draws, place), found, "o", alpha=0.5)
            axes.axhline(LIMIT, color="k", linestyle=":", label="recovered below")
            axes.set_xticks(range(len(chosen)), list(chosen))
            axes.set(title=f"ω = {replacement:g}", xlabel="M₀", ylabel="relative mean square error, unobserved")
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


def last(matrices: Matrix, mask: NDArray[np.bool_], features: Matrix, replacement: float, iterations: int) -> Matrix:
    """Return the estimate at the end of the ridge's path."""
    for ridge in np.geomspace(*RIDGES, iterations):
        estimate, features = Algorithm(ridge=float(ridge), replacement=replacement).step(features, matrices, mask)
    return estimate


def described(replacement: float, kind: str, errors: Matrix) -> Row:
    """Return the line of one kind of start."""
    return {
        "replacement": replacement,
        "start": kind,
        "draws": len(errors),
        "recovered": float((errors < LIMIT).mean()),
        "median_error": float(np.median(errors)),
        "least_error": float(errors.min()),
        "greatest_error": float(errors.max()),
    }


if __name__ == "__main__":
    sys.exit(main())
