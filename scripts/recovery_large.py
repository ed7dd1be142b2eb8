"""Recover one large low-rank matrix, never formed, and tell time, memory and the error of random entries.

    python scripts/recovery_large.py [--rows 10000] [--columns 10000] [--rank 10] [--oversampling 1.2] [--seed 0]

Gaussian factors, entries observed uniformly at random. The rank is not told.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import scipy.sparse as sp

from rfmdist import LinRFM

SCORED = 20_000
"""Random entries whose error is told."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=10_000)
    arguments.add_argument("--columns", type=int, default=10_000)
    arguments.add_argument("--rank", type=int, default=10)
    arguments.add_argument("--oversampling", type=float, default=1.2)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    m, n, rank = options.rows, options.columns, options.rank
    rng = np.random.default_rng(options.seed)
    left, right = rng.normal(size=(m, rank)), rng.normal(size=(n, rank))
    wanted = round(options.oversampling * rank * (m + n - rank))
    drawn = rng.permutation(np.unique(rng.integers(0, m * n, 2 * wanted)))[:wanted]
    i, j = np.divmod(drawn, n)
    observed = sp.coo_array((np.einsum("er,er->e", left[i], right[j]), (i, j)), (m, n))
    started = time.perf_counter()
    model = LinRFM(noise=0).fit(observed)
    seconds = time.perf_counter() - started
    print(model.certificate_)
    i, j = rng.integers(0, m, SCORED), rng.integers(0, n, SCORED)
    error = model.predict(i, j, codes=True) - np.einsum("er,er->e", left[i], right[j])
    searched = sum(record.stage == "search" for record in model.history_)
    print(f"{wanted:,} entries, {seconds:.1f} s: {searched} iterations of the search, {model.n_iter_ - searched} steps")
    print(f"relative mean square error {np.nanmean(error**2) / rank:.0e}, {np.isnan(error).mean():.1%} not determined")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
