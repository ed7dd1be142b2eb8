"""The paper's special cases: 2 × 2 and m × 2 matrices of rank one, from the fewest entries that determine them.

    python scripts/paper/special_cases.py [--quick] [--output FOLDER]

Claim: for 2 × 2 and m × 2 matrices recovery of rank one is provable. One row is observed whole, each other row at one
place: m + 1 entries, and one completion of rank one. By hand, for rows (a, b) and (c, x) without floor and ridge,
α = 1/2 is x ← c (a b + c x) / (a² + c²), which ends at b c / a, its distance times c² / (a² + c²) each time: always
there in the end, slowly where |c| is large beside |a|. Factors are Gaussian, floor and ridge 0.

The figure shows the share of draws that are at the rank-one completion after so many iterations, for each m and α.
Table and CSV have that share, the share that is still moving, and how many have settled at a matrix that is not of rank
one, which are counterexamples.
"""

from __future__ import annotations

import sys

import numpy as np
from common import LIMIT, Algorithm, Row, figure, low_rank, options, relative_errors, show, write
from numpy.typing import NDArray

TOL = 1e-12
"""Change of an estimate, relative to its norm, below which it has settled."""
NOT_ONE = 1e-4
"""Second singular value, as a share of the first, that is not of rank one: not merely slow on its way there."""


def main() -> int:
    """Draw, iterate, count."""
    given = options(
        __doc__,
        {"draws": 50, "rows": (2, 5), "iterations": 300},
        draws=300,
        rows=(2, 3, 5, 10),
        powers=(0.25, 0.5, 1.0),
        iterations=5000,
        seed=0,
    )
    rows = [
        one_case(m, power, given.draws, given.iterations, np.random.default_rng((given.seed, m)))
        for m in given.rows
        for power in given.powers
    ]
    show(rows)
    write(given.output, "special_cases", rows)
    with figure(given.output, "special_cases") as (axes,):
        for power in given.powers:
            chosen = [row for row in rows if row["power"] == power]
            axes.plot([row["rows"] for row in chosen], [row["recovered"] for row in chosen], "o-", label=f"α = {power}")
        axes.set(xlabel="rows m of an m × 2 matrix", ylabel=f"recovered within {given.iterations} iterations")
        axes.set_ylim(0, 1.03)
    return 0


def one_case(m: int, power: float, draws: int, iterations: int, rng: np.random.Generator) -> Row:
    """Count what becomes of ``draws`` random m × 2 matrices."""
    matrices, mask = low_rank(rng, (draws, m, 2), 1), fewest(rng, draws, m)
    found, taken = Algorithm(power=power).limits(matrices, mask, iterations, TOL)
    right = relative_errors(found, matrices, mask) < LIMIT
    spectrum = np.linalg.svd(found, compute_uv=False)
    settled = (taken <= iterations) & (spectrum[:, 1] > NOT_ONE * spectrum[:, 0])
    return {
        "rows": m,
        "power": power,
        "draws": draws,
        "recovered": float(right.mean()),
        "moving": float((~right & ~settled).mean()),
        "elsewhere": int((~right & settled).sum()),
    }


def fewest(rng: np.random.Generator, draws: int, m: int) -> NDArray[np.bool_]:
    """Masks of one whole row and one entry in each other row: what just determines a matrix of rank one."""
    mask = np.zeros((draws, m, 2), bool)
    mask[:, :, 0] = rng.random((draws, m)) < 0.5
    mask[:, :, 1] = ~mask[:, :, 0]
    mask[:, 0] = True
    return mask


if __name__ == "__main__":
    sys.exit(main())
