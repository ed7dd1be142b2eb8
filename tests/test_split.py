"""Splits: every entry gets one role, by seed and position alone; a wrong split is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from rfmdist.errors import InputError, StoreError
from rfmdist.observations import loops
from rfmdist.observations.ingest import ingest
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations

SCRIPT = Path(__file__).parents[1] / "scripts" / "movielens.py"


@pytest.fixture
def observations(rng: np.random.Generator, tmp_path: Path) -> Observations:
    """Give 10,000 entries in 200 rows."""
    return Observations.from_scipy(sp.random_array((200, 500), density=0.1, rng=rng), tmp_path / "s")


def roles(observations: Observations) -> np.ndarray[Any, Any]:
    """Give the role of every entry."""
    return observations.roles(observations.row_block(0, observations.shape[0]))


def test_random_fractions(observations: Observations) -> None:
    """The parts are near the fractions asked for, validation being a fraction of what is not test."""
    counts = split(observations, validation=0.25, test=0.2, seed=3)
    assert counts == observations.role_counts()
    assert sum(counts.values()) == observations.nnz
    assert counts["test"] == pytest.approx(2000, abs=150)
    assert counts["validation"] == pytest.approx(2000, abs=150)


def test_the_seed_decides(observations: Observations) -> None:
    """The same seed gives the same split, another one another."""
    found = []
    for seed in (1, 1, 2):
        split(observations, test=0.3, seed=seed)
        found.append(roles(observations))
    assert np.array_equal(found[0], found[1])
    assert (found[0] != found[2]).mean() > 0.2


def test_choices_are_independent(observations: Observations) -> None:
    """Entries held out for a fit are no function of the test entries of the same seed."""
    split(observations, validation=0.0, test=0.5, seed=0)
    held_out = observations.hold_out(0.5, seed=0).role_counts()
    assert held_out["validation"] == pytest.approx(held_out["train"], abs=400)


@pytest.mark.parametrize("shard", [64, 1000, 1 << 22])
def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch, observations: Observations, shard: int) -> None:
    """The split does not depend on the pieces it is made in."""
    split(observations, test=0.2)
    wanted = roles(observations)
    monkeypatch.setattr("rfmdist.observations.split.SHARD", shard)
    monkeypatch.setattr("rfmdist.observations.additions.SHARD", shard)
    split(observations, test=0.2)
    assert np.array_equal(roles(observations), wanted)


@pytest.mark.parametrize("count", [1, 3, 50])
def test_leave_out(observations: Observations, count: int) -> None:
    """Every row with more than k entries gives k for test; a smaller one stays whole."""
    split(observations, validation=0.0, leave_out=count, seed=5)
    sizes = np.diff(observations.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    left_out = np.bincount(rows[roles(observations) == 2], minlength=len(sizes))
    assert np.array_equal(left_out, np.where(sizes > count, count, 0))
    assert (sizes <= 50).any()
    assert (sizes > 50).any()


@pytest.mark.parametrize("ids", ["integers", "text"])
def test_the_entries_of_a_file(tmp_path: Path, rng: np.random.Generator, ids: str) -> None:
    """Exactly the pairs of the given files are test entries, in any order and given twice or not."""
    places = rng.permutation(2000)[:900]
    frame = pd.DataFrame({"user": places // 40 + 5, "item": places % 40, "rating": 1.0})
    if ids == "text":
        frame["user"] = "u" + frame["user"].astype(str)
    observations = ingest(frame, tmp_path / "s")
    chosen = frame.sample(200, random_state=0)
    chosen[:120].to_csv(tmp_path / "a.csv", index=False)
    chosen[100:].to_parquet(tmp_path / "b.parquet")
    counts = split(observations, test_file=[tmp_path / "a.csv", tmp_path / "b.parquet"], validation=0.1)
    assert counts["test"] == 200
    block = observations.row_block(0, observations.shape[0], "test")
    found = set(zip(observations.row_ids[block.rows], observations.column_ids[block.indices], strict=True))
    assert found == set(zip(chosen["user"], chosen["item"], strict=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "b.parquet", "s"]


def test_a_file_across_many_blocks(monkeypatch: pytest.MonkeyPatch, observations: Observations, tmp_path: Path) -> None:
    """Store and file are merged right when the blocks and batches are small and end anywhere."""
    whole = observations.to_scipy().tocoo()
    pick = np.arange(0, whole.nnz, 7)
    pd.DataFrame({"row": whole.coords[0][pick], "column": whole.coords[1][pick]}).to_csv(
        tmp_path / "t.csv", index=False
    )
    ranges = Observations.ranges
    monkeypatch.setattr(Observations, "ranges", lambda self: ranges(self, rows=3))
    monkeypatch.setattr("rfmdist.observations.staging.BATCH", 100)
    split(observations, test_file=tmp_path / "t.csv", validation=0.0)
    assert np.array_equal(np.flatnonzero(roles(observations) == 2), pick)


def test_movielens_100k(movielens_100k: Path, tmp_path: Path) -> None:
    """The script stores MovieLens 100K with u1.test as its test split, from a folder and from a zip."""
    with zipfile.ZipFile(tmp_path / "release.zip", "w") as archive:
        for name in ("u1.base", "u1.test", "u.data"):
            archive.write(movielens_100k / name, f"ml-100k/{name}")
    for release in (movielens_100k, tmp_path / "release.zip"):
        command = [sys.executable, str(SCRIPT), str(release), "-o", str(tmp_path / "s"), "--overwrite"]
        subprocess.run(command, check=True, capture_output=True, cwd=SCRIPT.parents[1], env=_environment())
        counts = Observations.open(tmp_path / "s").role_counts()
        assert counts["test"] == 20_000
        assert sum(counts.values()) == 100_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["release.zip", "s"]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}


# ---- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1.0}, "validation 1.0 is not a fraction"),
        ({"validation": -0.1}, "validation -0.1 is not a fraction"),
        ({"test": float("nan")}, "test nan is not a fraction"),
        ({"test": 0.1, "leave_out": 1}, "give test or leave_out, not both"),
        ({"validation": "0.1"}, "validation '0.1' is not a fraction"),
        ({"test": True}, "test True is not a fraction"),
        ({"leave_out": 0}, "leave_out 0 is not a number of entries"),
        ({"leave_out": 1.5}, "leave_out 1.5 is not a number of entries"),
        ({"seed": -1}, "seed -1 is not"),
        ({"seed": 1.0}, "seed 1.0 is not a whole number"),
        ({"validation": 0.9999999, "test": 0.9999999}, "no entry for training"),
        ({"test_file": []}, "no entries"),
        ({"test_file": "missing.csv"}, "missing.csv: no such file"),
    ],
)
def test_wrong_splits(observations: Observations, options: dict[str, Any], message: str) -> None:
    """Wrong options are refused in one sentence and the earlier split is kept."""
    split(observations)
    before = faults.snapshot(Path(observations.name))
    with pytest.raises(InputError, match=message):
        split(observations, **options)
    assert faults.snapshot(Path(observations.name)) == before


@pytest.mark.parametrize("pair", ["3,zebra", "zebra,3", "0,100000", "-1,0", "100000,0"])
def test_entries_that_are_not_stored(observations: Observations, tmp_path: Path, pair: str) -> None:
    """A pair of the file that was never ingested is named by its line, with the way out."""
    split(observations)
    before = faults.snapshot(Path(observations.name))
    whole = observations.to_scipy().tocoo()
    first = f"{whole.coords[0][0]},{whole.coords[1][0]}"
    (tmp_path / "t.csv").write_text(f"user,item\n{first}\n{pair}\n{first}\n")
    with pytest.raises(InputError, match=r"t\.csv, line 3: .* not in .*ingest the test file together"):
        split(observations, test_file=tmp_path / "t.csv")
    assert faults.snapshot(Path(observations.name)) == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("stored", [["1", "x"], [1, 2]])
@pytest.mark.parametrize("asked", [1, "1"])
def test_integers_and_text_meet(tmp_path: Path, stored: list[Any], asked: Any) -> None:
    """Integer ids of a file are found among text ids of a store, and the other way round."""
    observations = ingest(pd.DataFrame({"row": stored, "column": stored, "value": 1.0}), tmp_path / "s")
    pd.DataFrame({"row": [asked], "column": [asked]}).to_parquet(tmp_path / "t.parquet")
    split(observations, test_file=tmp_path / "t.parquet", validation=0.0)
    assert list(roles(observations)) == [2, 0]


def test_a_pair_that_is_not_observed(tmp_path: Path) -> None:
    """A known row and a known column that were not observed together are refused too."""
    observations = Observations.from_scipy(sp.eye_array(3), tmp_path / "s")
    (tmp_path / "t.csv").write_text("row,column\n0,0\n0,1\n")
    with pytest.raises(InputError, match=r"t\.csv, line 3"):
        split(observations, test_file=tmp_path / "t.csv")


def test_full_disk(monkeypatch: pytest.MonkeyPatch, observations: Observations) -> None:
    """A split that does not fit on the disk leaves the earlier one."""
    split(observations)
    before = faults.snapshot(Path(observations.name))
    faults.fill_disk_at(monkeypatch, "split")
    with pytest.raises(StoreError, match="disk is full"):
        split(observations, test=0.3)
    assert faults.snapshot(Path(observations.name)) == before


def test_a_split_in_memory(rng: np.random.Generator) -> None:
    """Observations that are nowhere on disk are split alike."""
    observations = Observations.from_scipy(sp.random_array((20, 30), density=0.3, rng=rng))
    counts = split(observations, test=0.3)
    assert counts == observations.role_counts()
    assert split(observations, test=0.1)["test"] < counts["test"]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
def test_the_least_draws_of_each_row_are_chosen(rng: np.random.Generator, count: int) -> None:
    """As by sorting: the least of each row with more, and of equal draws the first."""
    sizes = rng.integers(0, 12, 200)
    indptr, rows = np.append(0, np.cumsum(sizes)), np.repeat(np.arange(200), sizes)
    draws = rng.integers(0, 6, len(rows)) / 6
    chosen = np.zeros(len(rows), np.bool_)
    loops.choose_least(indptr, draws, min(count, int(sizes.max())), chosen)
    order = np.lexsort((draws, rows))
    ranks = np.empty(len(rows), np.int64)
    ranks[order] = np.arange(len(rows)) - indptr[rows]
    assert np.array_equal(chosen, (ranks < count) & (sizes > count)[rows])
