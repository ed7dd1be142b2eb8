"""Write ratings like MovieLens': heavy-tailed users and films, rank 8 and offsets and noise, whole stars.

Usage: python scripts/generate.py FILE [--users 2000] [--films 1500] [--ratings 200000] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

RANK = 8
USER_SPREAD, FILM_SPREAD, TASTE_SPREAD, NOISE = 0.45, 0.5, 0.45, 0.8
"""Standard deviations in stars; about those of MovieLens."""
LEAST = 20
"""Fewest ratings of a user, as in MovieLens."""


def main() -> int:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="file to write, lines of user::film::stars")
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--films", type=int, default=1500)
    parser.add_argument("--ratings", type=int, default=200_000, help="about how many")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    users, films, stars = generate(options.users, options.films, options.ratings, options.seed)
    options.file.parent.mkdir(parents=True, exist_ok=True)
    with options.file.open("w") as file:
        file.writelines(f"{u}::{f}::{s}\n" for u, f, s in zip(users, films, stars, strict=True))
    print(f"{options.file}: {len(stars):,} ratings of {options.users:,} users on {options.films:,} films")
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


if __name__ == "__main__":
    sys.exit(main())
