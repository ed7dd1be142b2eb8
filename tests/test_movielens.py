"""MovieLens with defaults alone; test entries are scored and used for nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.ingest import ingest
from rfmdist.observations.split import split
from rfmdist.observations.tables import read_table


def test_movielens_100k(movielens_100k: Path, tmp_path: Path) -> None:
    """Defaults reach RMSE 0.896 on u1 (offsets alone 0.955, tuned ALS 0.929, plain features 0.915)."""
    base, test = movielens_100k / "u1.base", movielens_100k / "u1.test"
    observations = ingest([base, test], tmp_path / "store")
    split(observations, test_file=test)
    scores = LinRFM().fit(observations).completion_.score()
    assert scores.count == 20_000
    assert scores.rmse <= 0.896


def test_movielens_100k_from_the_train_file_alone(movielens_100k: Path, tmp_path: Path) -> None:
    """All of u1.test is scored, with RMSE 0.895 at most, though 32 of its entries are of films that u1.base lacks."""
    completion = LinRFM().fit(ingest(movielens_100k / "u1.base", tmp_path / "store")).completion_
    entries = read_table(movielens_100k / "u1.test")
    scores = completion.score(entries["row"], entries["column"], entries["value"])
    assert (scores.count, scores.left_out, scores.cold.count) == (20_000, 0, 32)
    assert scores.rmse <= 0.895


@pytest.mark.slow
def test_movielens_1m(movielens_1m: Path, tmp_path: Path) -> None:
    """Defaults reach RMSE 0.8225 on the 90/10 split (plain features 0.840)."""
    files = [movielens_1m / "train.csv.gz", movielens_1m / "test.csv.gz"]
    observations = ingest(files, tmp_path / "store")
    split(observations, test_file=files[1])
    assert LinRFM().fit(observations).completion_.score().rmse <= 0.8225
