"""Time rational powers of a symmetric matrix of condition 1e8, by products and by eigenvalues, and their difference.

    python scripts/bench_power.py [--sizes 500 1000 2000 4000] [--threads 2]

Both have as many threads, in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rfmdist.engine.run import InProcess
from rfmdist.features.power import rational_power
from rfmdist.kernels.threads import Threads, one_blas_thread

CONDITION = 1e8
POWERS = (Fraction(1, 4), Fraction(1, 3), Fraction(3, 4), Fraction(1, 2))


def matrix(size: int) -> NDArray[np.float64]:
    """Give a matrix with eigenvalues at equal steps of their logarithm."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))[0]
    made: NDArray[np.float64] = (basis * np.geomspace(1 / CONDITION, 1, size)) @ basis.T
    return (made + made.T) / 2


def by_eigenvalues(given: NDArray[np.float64], power: Fraction) -> NDArray[np.float64]:
    """Raise by `numpy.linalg.eigh`."""
    values, vectors = np.linalg.eigh(given)
    raised: NDArray[np.float64] = (vectors * np.maximum(values, 0) ** float(power)) @ vectors.T
    return raised


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Give the seconds that a call takes, and its result."""
    started = time.perf_counter()
    found = function(*arguments)
    return time.perf_counter() - started, found


def main() -> None:
    """Print a line for each size and power."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000, 4000])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    run = InProcess(Threads(options.threads)).map_panels
    print(f"{'n':>6} {'power':>6} {'products s':>11} {'eigh s':>8} {'difference':>11}")
    for size in options.sizes:
        given = matrix(size)
        for power in POWERS:
            with one_blas_thread():
                ours, found = timed(rational_power, given, power, run)
            with threadpool_limits(options.threads, "blas"):
                theirs, expected = timed(by_eigenvalues, given, power)
            difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
            print(f"{size:6d} {power!s:>6} {ours:11.2f} {theirs:8.2f} {difference:11.1e}", flush=True)


if __name__ == "__main__":
    main()
