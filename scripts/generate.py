"""Write generated ratings: a small file like MovieLens, or a large store or CSV, block by block.

Usage:
    python scripts/generate.py FILE [--users 2000] [--films 1500] [--ratings 200000] [--seed 0]
    python scripts/generate.py --store STORE --rows 5000000 --columns 1000000 --entries 1000000000 [--test 0.01]
    python scripts/generate.py --csv FILE --rows 1000000 --columns 200000 --entries 100000000

FILE gets lines user::film::stars, of heavy-tailed users and films, rank 8 and offsets and noise, whole stars.
STORE and the CSV get the same matrix, of ``--rank`` and ``--noise`` (see `heavy_tailed`): the CSV has ids, codes + 1,
in lines of no order. No held-out RMSE is below ``--noise``. Memory is that of a few blocks and 30 bytes a row.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

RANK = 8
USER_SPREAD, FILM_SPREAD, TASTE_SPREAD, NOISE = 0.45, 0.5, 0.45, 0.8
"""Standard deviations in stars; about those of MovieLens."""
LEAST = 20
"""Fewest ratings of a user, as in MovieLens."""


def main() -> int:
    """Read the command line and write the file or the store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", help="file to write, lines of user::film::stars")
    parser.add_argument("--store", type=Path, help="store to write instead, block by block")
    parser.add_argument("--csv", type=Path, help="CSV to write instead, block by block")
    parser.add_argument("--users", "--rows", type=int, default=2000)
    parser.add_argument("--films", "--columns", type=int, default=1500)
    parser.add_argument("--ratings", "--entries", type=int, default=200_000, help="about how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rank", type=int, default=10, help="of a store's or CSV's signal, whose variance is 1")
    parser.add_argument("--noise", type=float, default=0.5, help="standard deviation of a store's or CSV's noise")
    parser.add_argument("--test", type=float, default=0.01, help="part of a store's entries that is for test")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier store")
    options = parser.parse_args()
    if sum(place is not None for place in (options.file, options.store, options.csv)) != 1:
        parser.error("name one of FILE, --store STORE and --csv FILE")
    if min(options.users, options.films, options.ratings, options.rank) < 1:
        parser.error("rows, columns, entries and rank are 1 or more")
    started = time.perf_counter()
    place, written = _small(options) if options.file else _large(options)
    print(
        f"{place}: {written:,} ratings of {options.users:,} users on {options.films:,} films"
        f" in {time.perf_counter() - started:.0f} s"
    )
    return 0


def generate(users: int, films: int, ratings: int, seed: int) -> tuple[Any, Any, Any]:
    """Users, films (from 1) and stars of about ``ratings`` ratings, in random order."""
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(sigma=1.0, size=users)
    counts = np.clip(activity * ratings / activity.sum(), LEAST, films // 2).astype(int)
    popularity = -np.log(np.arange(1, films + 1) + 20.0)
    rng.shuffle(popularity)
    # The largest of log-weights with Gumbel noise: a draw without replacement.
    order = np.argsort(-(popularity + rng.gumbel(size=(users, films))), axis=1)
    rows = np.repeat(np.arange(users), counts)
    columns = np.concatenate([order[i, :count] for i, count in enumerate(counts)])
    tastes, traits = rng.normal(size=(users, RANK)), rng.normal(size=(films, RANK))
    values = (
        3.6
        + USER_SPREAD * rng.normal(size=users)[rows]
        + FILM_SPREAD * rng.normal(size=films)[columns]
        + TASTE_SPREAD * np.sum(tastes[rows] * traits[columns], axis=1) / np.sqrt(RANK)
        + NOISE * rng.normal(size=len(rows))
    )
    stars = np.clip(np.rint(values), 1, 5).astype(int)
    shuffled = rng.permutation(len(rows))
    return rows[shuffled] + 1, columns[shuffled] + 1, stars[shuffled]


def write_store(problem: Any, path: Path, *, test: float, overwrite: bool) -> None:
    """Write a `heavy_tailed.Problem` as a store whose ids are codes + 1; ``test`` of its entries are for test.

    No entries are stored as validation entries: a fit holds out its own.
    """
    from rfmdist import Observations
    from rfmdist.observations.split import split
    from rfmdist.observations.writer import StoreWriter

    m, n = problem.shape
    with StoreWriter(path, (m, n), np.float32, entries=problem.entries, overwrite=overwrite) as writer:
        for block in problem.blocks():
            writer.append(*block)
        writer.finish(np.arange(1, m + 1), np.arange(1, n + 1))
    if test:
        split(Observations.open(path), validation=0.0, test=test, seed=problem.seed)


def write_csv(problem: Any, path: Path) -> None:
    """Write a `heavy_tailed.Problem` as lines of user, item and rating, in no order, under a header."""
    import pyarrow as pa
    import pyarrow.csv as pc

    names = ["user", "item", "rating"]
    types = pa.schema(zip(names, (pa.int64(), pa.int64(), pa.float32()), strict=True))
    with pc.CSVWriter(path, types, write_options=pc.WriteOptions(quoting_header="none")) as file:
        for rows, columns, values in problem.blocks(shuffled=True):
            file.write(pa.table([rows + 1, columns.astype(np.int64) + 1, values], schema=types))


def _small(options: argparse.Namespace) -> tuple[Path, int]:
    users, films, stars = generate(options.users, options.films, options.ratings, options.seed)
    options.file.parent.mkdir(parents=True, exist_ok=True)
    with options.file.open("w") as file:
        file.writelines(f"{u}::{f}::{s}\n" for u, f, s in zip(users, films, stars, strict=True))
    return options.file, len(stars)


def _large(options: argparse.Namespace) -> tuple[Path, int]:
    from heavy_tailed import Problem

    shape = options.users, options.films
    problem = Problem.draw(shape, options.ratings, options.rank, options.noise, options.seed)
    if options.csv is not None:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        write_csv(problem, options.csv)
        return options.csv, problem.entries
    write_store(problem, options.store, test=options.test, overwrite=options.overwrite)
    return options.store, problem.entries


if __name__ == "__main__":
    sys.exit(main())
