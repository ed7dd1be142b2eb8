"""Temporary folders of killed processes go with the next that is made beside them; those in use stay."""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import oracles
import pytest

from rfmdist import LinRFM, Observations
from rfmdist.errors import StoreError
from rfmdist.observations import leftovers
from rfmdist.observations.leftovers import in_use
from rfmdist.observations.scratch import Scratch

HOLD = """
import sys
from pathlib import Path
from rfmdist.observations.leftovers import in_use
with in_use(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
KILLED = """
import os, signal, sys
import rfmdist

def kill(*ignored, **too):
    os.kill(os.getpid(), signal.SIGKILL)

store = sys.argv[1]
"""
FIT = """
LinRFM = rfmdist.LinRFM
LinRFM(features="factored", memory="10GB", callbacks=[kill]).fit(rfmdist.Observations.open(store))
"""
COPYING = """
from rfmdist.observations import by_column
by_column._write = kill
rfmdist.Observations.open(store).by_column()
"""
WRITING = """
from rfmdist.observations import writer
writer.write_ids = kill
rfmdist.Observations.from_scipy(rfmdist.Observations.open(store).to_scipy(), store, overwrite=True)
"""


def held_by_another(folder: Path) -> subprocess.Popen[str]:
    """Start a process that has the folder in use until it reads a line."""
    place = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=place)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def killed(store: Path, how: str) -> None:
    """Run a process that is killed while it works on a store."""
    place = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", KILLED + how, str(store)], env=place, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def everything(folder: Path) -> set[Path]:
    """All that lies below a folder."""
    return set(folder.rglob("*"))


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> Path:
    place = tmp_path / "odd [name].zarr"
    Observations.from_scipy(oracles.as_sparse(oracles.sparse_problem(rng, 40, 30)), place)
    return place


def test_what_a_killed_process_leaves_goes(tmp_path: Path) -> None:
    """Folders of the living, of this process as of others, stay; what nobody ever held stays too."""
    living, dead = (held_by_another(tmp_path / f"a.{name}.x") for name in ("living", "dead"))
    (tmp_path / "a.foreign.x").mkdir()
    with in_use(tmp_path / "a.ours.x"):
        os.kill(dead.pid, signal.SIGKILL)
        dead.communicate()
        (tmp_path / "a.dead.x" / "much").write_bytes(bytes(100))
        (tmp_path / "b.dead.x").mkdir()
        for _ in range(2):  # looking at it must not let go of our own lock
            with in_use(tmp_path / "a.b.x"):
                found = {path.name for path in tmp_path.iterdir()}
                assert found == {"a.living.x", "a.ours.x", "a.foreign.x", "b.dead.x", "a.b.x"}
        again = held_by_another(tmp_path / "a.again.x")
        assert (tmp_path / "a.ours.x").exists()
        again.communicate("\n")
    assert not list((tmp_path / "a.ours.x").iterdir())
    living.communicate("\n")


def test_the_next_fit_removes_what_a_killed_one_left(store: Path) -> None:
    """A fit that is killed within an iteration leaves its files; they are gone after the next."""
    killed(store, FIT)
    assert [path.suffix for path in store.parent.iterdir() if path != store] == [".scratch"]
    LinRFM(features="factored", max_iter=2).fit(Observations.open(store))
    assert list(store.parent.iterdir()) == [store]


def test_the_next_copy_removes_what_a_killed_one_left(store: Path) -> None:
    """A copy by column that was cut short is not seen, and gone after the next."""
    killed(store, COPYING)
    assert len(list(store.glob("X/by_column.*.partial"))) == 1
    observations = Observations.open(store)
    assert not observations.has_copy
    assert (observations.by_column().to_scipy() != observations.to_scipy().T).nnz == 0
    assert [path.name for path in store.glob("X/by_column*")] == ["by_column"]
    assert not list(store.rglob("owner*"))


def test_the_next_store_removes_what_a_killed_one_left(store: Path) -> None:
    """A store that was to replace another goes with the next that is; the one that is there stays whole."""
    before = everything(store)
    killed(store, WRITING)
    assert len(list(store.parent.iterdir())) == 2
    matrix = Observations.open(store).to_scipy()
    Observations.from_scipy(matrix, store, overwrite=True)
    assert list(store.parent.iterdir()) == [store]
    assert everything(store) == before


def test_threads_do_not_take_each_other_s_locks(tmp_path: Path) -> None:
    """Of many threads that come and go none removes what another of them has in use."""

    def come_and_go(name: str) -> int:
        lost = 0
        for k in range(100):
            folder = tmp_path / f"a.{name}{k}.x"
            with in_use(folder):
                lost += not (folder / "owner").exists()
            lost += not folder.exists()
        return lost

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(come_and_go, "abcd")) == 0


def test_what_was_renamed_meanwhile_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who opened the owner's file before it went gets a lock that means nothing, and leaves the folder."""
    folder = tmp_path / "a.one.x"
    living = held_by_another(folder)

    def ended(file: BinaryIO, how: int) -> None:
        living.communicate("\n")
        (folder / "much").touch()

    monkeypatch.setattr(fcntl, "lockf", ended)
    leftovers._remove_unless_in_use(folder)
    assert living.returncode == 0
    assert (folder / "much").exists()


def test_another_host_s_lock_is_trusted_only_when_old(tmp_path: Path) -> None:
    """Where locks do not reach other hosts all of theirs look free: a week later they are."""
    folder = tmp_path / "a.one.x"
    folder.mkdir()
    (folder / "owner").write_bytes(b"another host")
    with in_use(tmp_path / "a.two.x"):
        assert folder.exists()
    week = time.time() - leftovers.FOREIGN_SECONDS - 1
    os.utime(folder / "owner", (week, week))
    with in_use(tmp_path / "a.three.x"):
        assert not folder.exists()


def test_files_go_whatever_their_folder_is_called(tmp_path: Path) -> None:
    """Names that are patterns elsewhere are names here; what a late task writes does not make the folder again."""
    folder = tmp_path / "a [1]*" / ".s.1.scratch"
    folder.parent.mkdir()
    with Scratch(str(folder)).kept() as scratch:
        scratch.write("one-1", [bytes(8)])
        scratch.write("two-1", [bytes(8)])
        scratch.remove("one")
        assert scratch.holds("two-1")
        assert not scratch.holds("one-1")
        late = pickle.loads(pickle.dumps(scratch))
    with pytest.raises(StoreError):
        late.write("three", [bytes(8)])
    assert not list(folder.parent.iterdir())


def test_a_folder_that_cannot_be_made_is_no_hindrance(tmp_path: Path) -> None:
    """Where nothing can be written nothing is held, and the caller goes on."""
    (tmp_path / "file").touch()
    with Scratch(str(tmp_path / "file" / ".s.1.scratch")).kept() as scratch:
        assert not Path(scratch.folder).exists()
