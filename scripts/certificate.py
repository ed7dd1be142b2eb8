"""Ask for the certificate of random problems, some of them impossible, and see whether it was ever wrong.

    python scripts/certificate.py [--problems 500] [--first 0]

Sizes of 40 to 200, ranks of 1 to 6, 0.8 to 2 times as many observed entries as degrees of freedom; a third of the
matrices are exactly of low rank, observed uniformly at random; a third have rows and columns observed with very uneven
probabilities; of the last third some have full rank, some have noise, and some are observed in blocks that hardly
meet, so that no method could tell how one belongs to the other. A certificate is wrong if the relative mean square
error of the entries said to be determined is above 1e-3, or the rank is not the matrix's. Prints the counts by kind.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from typing import Any

import numpy as np
import scipy.sparse as sp

from rfmdist import LinRFM

LIMIT = 1e-3
"""Relative mean square error of the determined entries above which a certificate is wrong."""
KINDS = ("uniform", "uniform", "uneven", "uneven", "full rank", "noise", "two blocks")
NOISE = 0.01
"""Of the values' own size: no low-rank matrix is exactly what was observed."""


def problem(seed: int) -> tuple[str, Any, Any, int]:
    """Give a kind of problem, the matrix, which entries are observed, and its rank."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    (m, n), rank = rng.integers(40, 201, 2), int(rng.integers(1, 7))
    observed = min(round(rng.uniform(0.8, 2) * rank * (m + n - rank)), m * n * 9 // 10)
    matrix = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n))
    chances = np.ones((m, n))
    if kind == "uneven":
        chances = np.outer(rng.pareto(1.5, m) + 0.2, rng.pareto(1.5, n) + 0.2)
    elif kind == "full rank":
        matrix = rng.normal(size=(m, n))
    elif kind == "noise":
        matrix += NOISE * np.sqrt(rank) * rng.normal(size=(m, n))
    elif kind == "two blocks":  # they share fewer columns than the rank
        shared = int(rng.integers(0, rank))
        chances[: m // 2, n // 2 + shared :] = chances[m // 2 :, : n // 2] = 1e-12
        observed = min(observed, m * n * 4 // 10)
    drawn = rng.exponential(size=(m, n)) / chances
    mask = drawn <= np.partition(drawn.ravel(), observed - 1)[observed - 1]
    return kind, matrix, mask, rank


def outcome(seed: int) -> tuple[str, str]:
    """Give the kind of a problem and how its certificate fared."""
    kind, matrix, mask, rank = problem(seed)
    observed = sp.coo_array((matrix[mask], np.nonzero(mask)), matrix.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing could be certified is what is asked here
        model = LinRFM(noise=0, random_state=seed).fit(observed)
    if not model.certificate_.certified:
        return kind, "not certified"
    error = model.completion_.predict_block().compute() - matrix
    wrong = np.nanmean(error**2) > LIMIT * np.mean(matrix**2) or model.rank_ != rank
    if wrong:
        relative = np.nanmean(error**2) / np.mean(matrix**2)
        print(f"problem {seed}, {kind}, rank {rank}: wrong, error {relative:.1e}; {model.certificate_}", flush=True)
    return kind, "wrongly certified" if wrong else "rightly certified"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--problems", type=int, default=500)
    arguments.add_argument("--first", type=int, default=0, help="seed of the first")
    options = arguments.parse_args()
    started = time.perf_counter()
    counts = Counter(outcome(seed) for seed in range(options.first, options.first + options.problems))
    for (kind, how), count in sorted(counts.items()):
        print(f"  {kind:12} {how:18} {count:4d}")
    wrong = sum(count for (_, how), count in counts.items() if how == "wrongly certified")
    print(f"{wrong} wrong certificates in {options.problems} problems, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
