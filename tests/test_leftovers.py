"""Temporary folders of killed processes go with the next that is made beside them; those in use stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracles

from rfmdist import LinRFM, Observations
from rfmdist.observations.leftovers import in_use
from rfmdist.observations.scratch import Scratch

HOLD = """
import sys
from pathlib import Path
from rfmdist.observations.leftovers import in_use
with in_use(Path(sys.argv[1]), "a.*"):
    print("held", flush=True)
    sys.stdin.readline()
"""
FIT = """
import os, signal, sys
from rfmdist import LinRFM, Observations

def kill(record):
    os.kill(os.getpid(), signal.SIGKILL)

LinRFM(features="factored", memory="10GB", callbacks=[kill]).fit(Observations.open(sys.argv[1]))
"""


def held_by_another(folder: Path) -> subprocess.Popen[str]:
    """Start a process that has the folder in use until it reads a line."""
    place = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=place)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_what_a_killed_process_leaves_goes(tmp_path: Path) -> None:
    """Folders of the living, of this process as of others, stay; what nobody ever held stays too."""
    living, dead = (held_by_another(tmp_path / name) for name in ("a.living", "a.dead"))
    (tmp_path / "a.foreign").mkdir()
    with in_use(tmp_path / "a.ours", "a.*"):
        os.kill(dead.pid, signal.SIGKILL)
        dead.communicate()
        (tmp_path / "a.dead" / "much").write_bytes(bytes(100))
        for _ in range(2):  # looking at it must not let go of our own lock
            with in_use(tmp_path / "b", "a.*"):
                assert {path.name for path in tmp_path.iterdir()} == {"a.living", "a.ours", "a.foreign", "b"}
        again = held_by_another(tmp_path / "a.again")
        assert (tmp_path / "a.ours").exists()
        again.communicate("\n")
    living.communicate("\n")


def test_the_next_fit_removes_what_a_killed_one_left(tmp_path: Path, rng: np.random.Generator) -> None:
    """A fit that is killed within an iteration leaves its files; they are gone after the next."""
    store = tmp_path / "odd [name].zarr"
    observations = Observations.from_scipy(oracles.as_sparse(oracles.sparse_problem(rng, 40, 30)), store)
    place = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", FIT, str(store)], env=place, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.suffix for path in tmp_path.iterdir() if path != store] == [".scratch"]
    LinRFM(features="factored", max_iter=2).fit(observations)
    assert list(tmp_path.iterdir()) == [store]


def test_a_folder_that_cannot_be_made_is_no_hindrance(tmp_path: Path) -> None:
    """Where nothing can be written nothing is held, and the caller goes on."""
    (tmp_path / "file").touch()
    with Scratch(str(tmp_path / "file" / ".s.1.scratch")).kept() as scratch:
        assert not Path(scratch.folder).exists()
