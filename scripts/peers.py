"""Data like MovieLens' and peers to be measured against: cmfrec, Surprise, and the machine's own sgemm.

Imported by the benchmarks. `pip install cmfrec scikit-surprise` brings the peers; each is imported when it is used.
Peers thread over rows themselves, so they run with BLAS at one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

STARS = (0.5, 5.0)
USER_SPREAD, FILM_SPREAD, TASTE_SPREAD = 0.45, 0.5, 0.45
"""Standard deviations in stars; about those of MovieLens, as in generate.py."""
LEAST_SHARE, ACTIVITY = 20 / 144, 1.38
"""A user has MovieLens 20M's least share of the mean number of entries, and more: a lognormal of this sigma."""
MOST_USED, MOST_SEEN = 0.346, 0.486
"""Greatest share of the films one user has, and of the users one film has, in MovieLens 20M."""
PIECE = 2_000_000
"""Draws at once; bounds the memory of generating."""


def heavy_tailed(
    rows: int = 138_493,
    columns: int = 26_744,
    entries: int = 17_300_000,
    seed: int = 0,
    rank: int = 10,
    noise: float = 0.8,
) -> sp.csr_array:
    """Generate about ``entries`` ratings, float32, as unevenly spread as MovieLens 20M's (the default shape).

    A user's entries come from a Poisson process over films whose doubled points count once. Rates of users and
    films are balanced until the expected counts are those asked for, popular films and active users included.
    """
    rng = np.random.default_rng(seed)
    wanted = _row_counts(rng, rows, columns, entries)
    # Count of the film of rank x, from 0 to 1: 67,310, 10,000, 1,000 and 50 ratings at MovieLens 20M's ranks.
    seen = _scaled(np.exp(-11.1 * (np.arange(columns) / columns) ** 0.45), wanted.sum(), MOST_SEEN * rows)
    rates, films = _balance(wanted, rng.permutation(seen))
    # Two standard deviations more than needed, then as many as wanted.
    draws = np.ceil(rates * films.sum() + 2 * np.sqrt(wanted)).astype(np.int64)
    total = np.cumsum(np.minimum(draws, columns))
    cuts = np.unique(np.append(np.searchsorted(total, np.arange(0, total[-1], PIECE), "right"), rows))
    values = _Values(rng, rows, columns, rank, noise)
    indices, data, counts = [], [], []
    for start, stop in zip(np.append(0, cuts[:-1]), cuts, strict=True):
        if start == stop:
            continue
        i, j = _draw(rng, draws[start:stop], wanted[start:stop], films / films.sum())
        indices.append(j.astype(np.int32))
        data.append(values.at(i + start, j))
        counts.append(np.bincount(i, minlength=stop - start))
    indptr = np.append(0, np.cumsum(np.concatenate(counts))).astype(np.int32)
    return sp.csr_array((np.concatenate(data), np.concatenate(indices), indptr), shape=(rows, columns))


def describe(matrix: sp.csr_array) -> str:
    """One line on the shape and the tails of a matrix."""
    by_row, by_column = np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=matrix.shape[1])
    return (
        f"{matrix.shape[0]:,} x {matrix.shape[1]:,}, {matrix.nnz:,} entries; a row: least {by_row.min():,},"
        f" median {np.median(by_row):,.0f}, most {by_row.max():,}; a column: least {by_column.min():,},"
        f" median {np.median(by_column):,.0f}, most {by_column.max():,}"
    )


def _row_counts(rng: np.random.Generator, rows: int, columns: int, entries: int) -> Any:
    """Entries of each user: the least, and a lognormal above it."""
    least = LEAST_SHARE * entries / rows
    above = _scaled(rng.lognormal(sigma=ACTIVITY, size=rows), entries - rows * least, MOST_USED * columns - least)
    return np.maximum(np.rint(least + above), 1).astype(np.int64)


def _scaled(shape: Any, total: float, most: float) -> Any:
    """A multiple of ``shape`` that sums to ``total`` once all above ``most`` is cut."""
    if total > most * len(shape):
        raise ValueError(f"{total:,.0f} entries are too many: at most {most * len(shape):,.0f} fit with such tails")
    scale = total / shape.sum()
    for _ in range(100):
        scale *= total / np.minimum(scale * shape, most).sum()
    return np.minimum(scale * shape, most)


def _balance(wanted: Any, seen: Any, bins: int = 64, turns: int = 50) -> tuple[Any, Any]:
    """Rates t of users and w of films such that the sums of 1 - exp(-t w) over either are the counts wanted."""
    levels = np.log(wanted)
    cuts = np.linspace(levels.min(), levels.max() + 1e-9, bins + 1)
    group = np.digitize(levels, cuts[1:-1])
    sizes = np.bincount(group, minlength=bins)
    means = np.bincount(group, wanted, minlength=bins)[sizes > 0] / sizes[sizes > 0]
    sizes = sizes[sizes > 0]
    t, w = means / wanted.sum(), seen.astype(np.float64)
    for _ in range(turns):
        t *= means / -np.expm1(-np.outer(t, w)).sum(axis=1)
        w *= seen / (sizes @ -np.expm1(-np.outer(t, w)))
    # Within a group, by the count: rates rise with it smoothly.
    return np.exp(np.interp(levels, np.log(means), np.log(t / means))) * wanted, w


def _draw(rng: np.random.Generator, draws: Any, wanted: Any, shares: Any) -> tuple[Any, Any]:
    """Distinct entries, sorted, of some users: at most as many as wanted, any of those drawn."""
    columns, ends = len(shares), np.cumsum(shares)
    many = draws > columns
    owners = np.repeat(np.flatnonzero(~many), draws[~many])
    films = np.minimum(np.searchsorted(ends, rng.random(len(owners)), "right"), columns - 1)
    places = [owners * columns + films]
    for owner in np.flatnonzero(many):  # cheaper film by film
        there = rng.random(columns) < -np.expm1(-draws[owner] * shares)
        places.append(owner * columns + np.flatnonzero(there))
    ordered = np.sort(np.concatenate(places))
    i, j = np.divmod(ordered[np.diff(ordered, prepend=-1) > 0], columns)
    order = np.argsort(i + rng.random(len(i)))  # i is sorted: this shuffles within users
    firsts = np.searchsorted(i, np.arange(len(draws)))
    kept = np.sort(order[np.arange(len(i)) - firsts[i] < wanted[i]])
    return i[kept], j[kept]


class _Values:
    """Ratings: offsets of users and films, a low rank, and noise, cut to the scale."""

    def __init__(self, rng: np.random.Generator, rows: int, columns: int, rank: int, noise: float) -> None:
        self.rng, self.noise = rng, noise
        spread = np.sqrt(TASTE_SPREAD) / rank**0.25
        self.tastes = spread * rng.standard_normal((rows, rank), np.float32)
        self.traits = spread * rng.standard_normal((columns, rank), np.float32)
        self.users = 3.5 + USER_SPREAD * rng.standard_normal(rows, np.float32)
        self.films = FILM_SPREAD * rng.standard_normal(columns, np.float32)

    def at(self, i: Any, j: Any) -> Any:
        """Values at the entries (i, j), float32."""
        values = np.einsum("ea,ea->e", self.tastes[i], self.traits[j]) + self.users[i] + self.films[j]
        values += self.noise * self.rng.standard_normal(len(i), np.float32)
        return np.clip(values, *STARS).astype(np.float32)


@dataclass(frozen=True)
class Timing:
    """Seconds of one iteration, of all around the iterations, and CPU seconds of an iteration over all threads.

    Where others use the machine the first grows and may even come out negative; the last hardly changes.
    """

    iteration: float
    setup: float
    cpu: float


def cmfrec_model(
    k: int, lambda_: float, nthreads: int, niter: int, *, use_cg: bool = True, biases: bool = True, **more: Any
) -> Any:
    """Explicit ALS of cmfrec at its fairest: float32, nothing computed for predictions, CG to the end if CG at all."""
    import cmfrec

    fair = {"use_float": True, "precompute_for_predictions": False, "finalize_chol": False, "verbose": False}
    bias = {"user_bias": biases, "item_bias": biases}
    settings = {"method": "als", "use_cg": use_cg, "niter": niter, "nthreads": nthreads} | fair | bias | more
    return cmfrec.CMF(k=k, lambda_=lambda_, **settings)


def cmfrec_iteration(
    matrix: sp.csr_array,
    k: int,
    nthreads: int,
    *,
    use_cg: bool,
    biases: bool = True,
    niters: tuple[int, int] = (1, 4),
    repeat: int = 1,
) -> Timing:
    """Time one iteration of cmfrec's ALS (both sides): the difference of fits of two lengths, after a warm-up.

    With biases, cmfrec's default, its factors have one number more than k. The least of ``repeat`` fits counts.
    """
    coo = sp.coo_matrix(matrix)
    small = sp.coo_matrix(matrix[:1000])

    def fit(niter: int, data: Any = coo) -> tuple[float, float]:
        model = cmfrec_model(k, 10.0, nthreads, niter, use_cg=use_cg, biases=biases)
        busy = time.process_time()
        return _seconds(lambda: model.fit(data)), time.process_time() - busy

    with threadpool_limits(1, "blas"):
        fit(1, small)
        few, many = (min(fit(niter) for _ in range(repeat)) for niter in niters)
    iteration, cpu = ((b - a) / (niters[1] - niters[0]) for a, b in zip(few, many, strict=True))
    return Timing(iteration, few[0] - niters[0] * iteration, cpu)


def cmfrec_fit(
    train: sp.csr_array, test: sp.csr_array, nthreads: int = 2, k: int = 20, lambda_: float = 20.0, **more: Any
) -> tuple[float, float]:
    """Test RMSE, clipped to 1..5, and seconds of cmfrec, its best settings on MovieLens 1M (looked at on the test)."""
    import cmfrec

    settings = {"method": "als", "use_float": True, "nthreads": nthreads, "verbose": False} | more
    model, coo, tests = cmfrec.CMF(k=k, lambda_=lambda_, **settings), sp.coo_matrix(train), test.tocoo()
    with threadpool_limits(1, "blas"):
        cmfrec.CMF(k=k, lambda_=lambda_, **settings | {"niter": 1}).fit(sp.coo_matrix(train[:500]))
        seconds = _seconds(lambda: model.fit(coo))
        predicted = model.predict(tests.row, tests.col)
    return _rmse(predicted, tests.data), seconds


def surprise_fit(
    train: sp.csr_array, test: sp.csr_array, factors: int = 100, epochs: int = 60, reg: float = 0.06, seed: int = 0
) -> tuple[float, float]:
    """Test RMSE, clipped to 1..5, and seconds of Surprise's SVD at its best settings on MovieLens 1M; one thread."""
    import pandas as pd
    import surprise

    coo, tests = train.tocoo(), test.tocoo()
    frame = pd.DataFrame({"user": coo.row, "item": coo.col, "rating": coo.data})
    scale = surprise.Reader(rating_scale=(1, 5))
    trainset = surprise.Dataset.load_from_df(frame, scale).build_full_trainset()
    model = surprise.SVD(n_factors=factors, n_epochs=epochs, reg_all=reg, random_state=seed)
    with threadpool_limits(1, "blas"):
        seconds = _seconds(lambda: model.fit(trainset))
        triples = zip(tests.row.tolist(), tests.col.tolist(), tests.data.tolist(), strict=True)
        predicted = np.array([prediction.est for prediction in model.test(list(triples))])
    return _rmse(predicted, tests.data), seconds


def sgemm_rate(threads: int, size: int = 2000, repeat: int = 5) -> float:
    """Greatest GF/s of a float32 product of two square matrices."""
    a, b = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    out = np.empty_like(a)
    with threadpool_limits(threads, "blas"):
        np.matmul(a, b, out=out)
        best = min(_seconds(lambda: np.matmul(a, b, out=out)) for _ in range(repeat))
    return 2e-9 * size**3 / best


def _seconds(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _rmse(predicted: Any, values: Any) -> float:
    return float(np.sqrt(np.mean((np.clip(predicted, 1, 5) - values.astype(np.float64)) ** 2)))
