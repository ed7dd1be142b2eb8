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
from rfmdist.lin_rfm import LinRFM
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


UNKNOWN = ["3,zebra", "zebra,3", "0,100000", "-1,0", "100000,0"]


@pytest.mark.parametrize("pair", UNKNOWN)
def test_entries_that_are_not_stored(observations: Observations, tmp_path: Path, pair: str) -> None:
    """Where they are an error, how many have ids that the store lacks is told, and the first by its line."""
    split(observations)
    before = faults.snapshot(Path(observations.name))
    whole = observations.to_scipy().tocoo()
    first = f"{whole.coords[0][0]},{whole.coords[1][0]}"
    (tmp_path / "t.csv").write_text(f"user,item\n{first}\n{pair}\n{first}\n{pair}\n")
    told = r"t\.csv, line 3: the ids of 2 of 4 test entries, .* are not in .*; ingest the test file together .*'skip'"
    with pytest.raises(InputError, match=told):
        split(observations, test_file=tmp_path / "t.csv", unknown="error")
    assert faults.snapshot(Path(observations.name)) == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("unknown", ["offsets", "nan", "skip"])
@pytest.mark.parametrize("rows", [3, 4096])
def test_entries_of_unknown_ids_are_left_out(
    observations: Observations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unknown: str, rows: int
) -> None:
    """The others are split as without them, in blocks of any size; a warning tells how many, and the first."""
    whole = observations.to_scipy().tocoo()
    pick = np.arange(0, whole.nnz, 7)
    lines = [f"{whole.coords[0][k]},{whole.coords[1][k]}" for k in pick]
    (tmp_path / "t.csv").write_text("\n".join(["user,item", *lines, *UNKNOWN, ""]))
    ranges = Observations.ranges
    monkeypatch.setattr(Observations, "ranges", lambda self: ranges(self, rows=rows))
    told = rf"5 of {len(pick) + 5:,} test entries, the first .*t\.csv, line {len(pick) + 2}, have ids that are not in"
    with pytest.warns(UserWarning, match=told) as warned:
        counts = split(observations, test_file=tmp_path / "t.csv", validation=0.0, unknown=unknown)
    assert warned[0].filename == __file__
    assert counts["test"] == len(pick)
    assert np.array_equal(np.flatnonzero(roles(observations) == 2), pick)


def test_a_file_of_unknown_ids_alone_is_refused(observations: Observations, tmp_path: Path) -> None:
    """A split without any test entry is not what was asked for, whatever becomes of unknown ids."""
    split(observations)
    before = faults.snapshot(Path(observations.name))
    (tmp_path / "t.csv").write_text("\n".join(["user,item", *UNKNOWN, ""]))
    with pytest.raises(InputError, match=r"line 2: the ids of all 5 test entries, .* not in"):
        split(observations, test_file=tmp_path / "t.csv", unknown="skip")
    assert faults.snapshot(Path(observations.name)) == before


@pytest.mark.parametrize("stored", [["1", "x"], [1, 2]])
@pytest.mark.parametrize("asked", [1, "1"])
def test_integers_and_text_meet(tmp_path: Path, stored: list[Any], asked: Any) -> None:
    """Integer ids of a file are found among text ids of a store, and the other way round."""
    observations = ingest(pd.DataFrame({"row": stored, "column": stored, "value": 1.0}), tmp_path / "s")
    pd.DataFrame({"row": [asked], "column": [asked]}).to_parquet(tmp_path / "t.parquet")
    split(observations, test_file=tmp_path / "t.parquet", validation=0.0)
    assert list(roles(observations)) == [2, 0]


def test_a_pair_that_is_not_observed(tmp_path: Path) -> None:
    """A known row and a known column that were not observed together are refused, whatever becomes of unknown ids."""
    observations = Observations.from_scipy(sp.eye_array(3), tmp_path / "s")
    (tmp_path / "t.csv").write_text("row,column\n0,0\n0,1\n")
    for unknown in ("skip", "error"):
        with pytest.raises(InputError, match=r"t\.csv, line 3: this entry is not in .* score the file"):
            split(observations, test_file=tmp_path / "t.csv", unknown=unknown)


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


# ---- another split while a fit runs -------------------------------------------------------------------------

FITS: dict[str, dict[str, Any]] = {
    "dense": {"features": "dense"},
    "both sides": {"features": "factored", "sides": "both"},
    "columns": {"features": "factored", "sides": "columns"},
}


@pytest.fixture
def store(tmp_path: Path) -> Observations:
    """Give a split store of 1,000 entries of rank 2, and the settings of short fits of it."""
    rng = np.random.default_rng(0)
    low_rank = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 40))
    rows, columns = np.divmod(rng.permutation(2400)[:1000], 40)
    store = Observations.from_scipy(sp.coo_array((low_rank[rows, columns], (rows, columns)), (60, 40)), tmp_path / "s")
    split(store, test=0.2)
    return store


def fit(store: Observations, kind: str, callback: Any) -> LinRFM:
    """Fit a few iterations, first on training entries and then on those for validation too."""
    short = {"ridge": 0.1, "replacement": 1, "max_iter": 3, "rank": 4}
    return LinRFM(**{**short, **FITS[kind]}, callbacks=[callback]).fit(store)


@pytest.mark.parametrize("moment", [("fit", 1), ("fit", 3), ("refit", 2)], ids=str)
@pytest.mark.parametrize("kind", FITS)
def test_another_split_ends_a_fit(store: Observations, kind: str, moment: tuple[str, int]) -> None:
    """Whenever it is stored, and whatever it takes away, one sentence says so, and nothing claims to be fitted."""

    def store_another(iteration: Any) -> None:
        if (iteration.stage, iteration.iteration) == moment:
            split(Observations.open(store.name), test=0.5, seed=7)

    with pytest.raises(InputError, match=r"s: was split anew while it was fitted; fit again$"):
        fit(store, kind, store_another)
    assert fit(store, kind, lambda _: None).completion_.score().count == store.role_counts()["test"]


def test_another_split_ends_a_recovery(store: Observations) -> None:
    """A search for a matrix without noise is a fit too."""
    seen: list[Any] = []

    def store_another(iteration: Any) -> None:
        if not seen:
            split(Observations.open(store.name), test=0.5, seed=7)
        seen.append(iteration)

    with pytest.raises(InputError, match="was split anew while it was fitted"):
        LinRFM(noise=0, callbacks=[store_another]).fit(store)
    assert seen


def test_another_split_in_memory_ends_a_fit(store: Observations) -> None:
    """Observations that are nowhere on disk can be split by a callback too."""
    held = Observations.from_scipy(store.to_scipy())
    with pytest.raises(InputError, match="observations in memory: was split anew while it was fitted"):
        fit(held, "columns", lambda _: split(held, test=0.5))


@pytest.mark.parametrize("kind", ["dense", "columns"])
def test_the_same_split_once_more_is_no_other(store: Observations, kind: str) -> None:
    """Every entry then keeps its role, and the fit its bits."""

    def store_again(_: Any) -> None:
        split(Observations.open(store.name), test=0.2)

    wanted = fit(store, kind, lambda _: None).completion_.predict_block().compute()
    again = fit(store, kind, store_again)
    assert np.array_equal(again.completion_.predict_block().compute(), wanted)
