"""Fixtures that several test modules share: a seeded generator, and MovieLens where it is on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

DATA = Path(os.environ.get("RFMDIST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))


@pytest.fixture
def rng() -> np.random.Generator:
    """Give a generator with the same seed in every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def movielens_100k() -> Path:
    """Give the folder with u1.base and u1.test, or skip."""
    return _folder("ml-100k", "u1.base")


@pytest.fixture(scope="session")
def movielens_1m() -> Path:
    """Give the folder with train.csv.gz and test.csv.gz, or skip."""
    return _folder("ml-1m", "train.csv.gz")


def _folder(name: str, file: str) -> Path:
    folder = (DATA / name).resolve()
    if not (folder / file).exists():
        pytest.skip(f"{name}/{file} is not in RFMDIST_DATA ({DATA.resolve()})")
    return folder
