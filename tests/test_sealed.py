"""A user without a home, an installation and a store that may only be read, as in a container or on a cluster."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import machines
import numpy as np
import oracles
import pytest
from distributed import Client, LocalCluster

import rfmdist
from rfmdist import Completion, LinRFM, Observations
from rfmdist.engine import workers
from rfmdist.errors import InputError, StoreError
from rfmdist.observations.scratch import Scratch

FIXED = {"--rank": "2", "--max-iter": "2", "--ridge": "1", "--replacement": "1"}
FIXED |= {f"--{name}": "0" for name in ("indicators", "ridge-by-count", "row-scale", "side-weight")}
POWERLESS = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
"""What root runs a program with whom rights bind as any other user."""


def read_only(folder: Path) -> Path:
    """Take the right to write from all below a folder, and the folder itself from its user."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


class Sealed:
    """Runs the command line in a new process of a user who may write to one folder alone."""

    def __init__(self, place: Path) -> None:
        self.work, self.package = place / "work", place / "package"
        self.work.mkdir()
        shutil.copytree(Path(rfmdist.__file__).parent, self.package / "rfmdist")
        read_only(self.package)
        self._prefix = POWERLESS if os.geteuid() == 0 else []
        if self._prefix:
            machines.need("setpriv", packages="util-linux")

    def run(self, *words: str | Path, code: tuple[str, ...] = ("-m", "rfmdist")) -> subprocess.CompletedProcess[str]:
        """Run a verb with its words, which ends well."""
        given = {"PATH": os.environ["PATH"], "TMPDIR": str(self.work)}
        given["HOME"] = str(self.package / "nobody")  # where none can be made
        given |= {"PYTHONPATH": os.pathsep.join([str(self.package), *filter(None, sys.path)])}
        command = [*self._prefix, sys.executable, *code, *map(str, words)]
        done = subprocess.run(command, env=given, cwd=self.work, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    """Give a user's way to run the package."""
    place = tmp_path_factory.mktemp("sealed")
    user = Sealed(place)
    yield user
    for path in [place, *place.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Give a store that can only be read, in a folder that can only be read."""
    place = tmp_path / "media" / "a.zarr"
    Observations.from_scipy(oracles.as_sparse(oracles.sparse_problem(np.random.default_rng(0), 40, 30)), place)
    return place


def test_a_user_without_home_ingests_fits_and_recommends(sealed: Sealed, tmp_path: Path) -> None:
    """The store is not written to, nothing but kernels is left behind, and the fit has the bits of any other."""
    rng = np.random.default_rng(0)
    pairs = [(u, i) for u in range(40) for i in rng.choice(30, 8, replace=False)]
    (tmp_path / "ratings.csv").write_text("user,item,rating\n" + "".join(f"u{u},i{i},{u % 5 + 1}\n" for u, i in pairs))
    media = sealed.work / "media"
    sealed.run("ingest", tmp_path / "ratings.csv", "-o", media / "a.zarr")
    before = faults.snapshot(read_only(media))
    told = sealed.run("fit", media / "a.zarr", "-o", "c.zarr", *map("=".join, FIXED.items()))
    assert "the copy by column is for this fit alone, as the store cannot be written to" in told.stdout
    assert told.stderr.count("kernels were compiled, and are kept among temporary files") <= 1
    assert len(sealed.run("recommend", "c.zarr", "u1").stdout.splitlines()) == 11
    assert faults.snapshot(media) == before
    assert {path.name for path in sealed.work.iterdir()} <= {"media", "c.zarr", f"rfmdist-{os.getuid()}"}
    left = [path.name.partition("_")[0] for path in sealed.work.glob("rfmdist-*/*")]
    assert set(left) <= {"kernels", "observations"}

    settings = {name.strip("-").replace("-", "_"): json.loads(value) for name, value in FIXED.items()}
    here = LinRFM(**settings).fit(Observations.open(media / "a.zarr")).completion_
    assert np.array_equal(here.features.factor, Completion.open(sealed.work / "c.zarr").features.factor)


def test_without_any_place_to_write_it_is_told_once(sealed: Sealed, store: Path) -> None:
    """Where not even temporary files can be made, what only reads still works."""
    read_only(store.parent)
    code = "import tempfile, sys; tempfile.tempdir = sys.argv.pop(1); from rfmdist.__main__ import main; main()"
    done = sealed.run(sealed.package, "info", store, code=("-c", code))
    assert done.stderr.count("no folder can be written to for compiled kernels") == 1
    assert "entries" in done.stdout


# ---- a store that cannot be written to ----------------------------------------------------------------------


@pytest.fixture
def media(store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Give a store on media that can only be read, and an empty folder for temporary files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir(mode=0o700)
    folder = str(store.parent)
    if os.geteuid() != 0:
        read_only(store.parent)
    elif subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False).returncode:
        machines.lacks("mounting a folder once more is not allowed here")
    else:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    yield store
    if os.geteuid() == 0:
        subprocess.run(["umount", folder], check=True)


SIDES: dict[str, Any] = {"features": "factored", "rank": 2, "max_iter": 2, "ridge": 1.0, "replacement": 1.0}


def test_its_copy_by_column_is_temporary(media: Path, tmp_path: Path) -> None:
    """It holds the entries of the store's own, is made once a fit, and goes with it."""
    observations = Observations.open(media)
    assert not observations.is_writable
    with pytest.raises(StoreError, match="cannot be written"):
        observations.by_column()
    with Scratch(str(observations.scratch_folder())).kept() as scratch:
        turned = observations.by_column(scratch=scratch.folder)
        assert (turned.to_scipy() != observations.to_scipy().T).nnz == 0
        assert (pickle.loads(pickle.dumps(turned)).hold_out(0.5, 1).to_scipy() != observations.to_scipy().T).nnz == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rfmdist.observations.store.write_by_column", None)
            assert observations.by_column(scratch=scratch.folder).nnz == observations.nnz
    assert not observations.has_copy
    assert not list((tmp_path / "temporary").glob("rfmdist-*/*"))


def test_a_killed_fit_s_temporary_files_go_with_the_next(media: Path, tmp_path: Path) -> None:
    """Also where the next is of another store."""
    script = "import os, sys; from rfmdist import LinRFM, Observations as O; "
    script += "LinRFM(features='factored', callbacks=[lambda _: os.kill(os.getpid(), 9)]).fit(O.open(sys.argv[1]))"
    told = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script, str(media)], env=told, check=False)
    assert done.returncode == -9
    assert list((tmp_path / "temporary").glob("rfmdist-*/.fit.*.scratch/X/by_column"))
    LinRFM(**SIDES).fit(Observations.open(media))
    assert not list((tmp_path / "temporary").glob("rfmdist-*/.fit.*"))


def test_without_room_for_a_copy_columns_alone_are_fitted(media: Path, tmp_path: Path) -> None:
    """And where both sides are asked for one sentence tells what is lacking."""
    (tmp_path / "temporary").chmod(0o777)  # anyone could replace what lies there
    assert Observations.open(media).scratch_folder() is None
    model = LinRFM(**SIDES).fit(Observations.open(media))
    assert model.plan_.sides == "columns"
    assert "both sides need a copy by column, for which there is no room" in model.plan_.why
    with pytest.raises(InputError, match=r"has room for its copy by column \(1MB\); name one in TMPDIR"):
        LinRFM(**SIDES, sides="both").fit(Observations.open(media))


def test_a_folder_that_not_all_workers_see_is_not_used(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files may be a machine's own: then workers are sent everything, and the store is read by rows."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        seen = LinRFM(**SIDES).fit(Observations.open(media), client=client)
        assert seen.plan_.sides == "both"
        monkeypatch.setattr(workers, "_reaches", lambda scratch: False)
        with pytest.warns(UserWarning, match="not all workers see this folder"):
            model = LinRFM(**SIDES).fit(Observations.open(media), client=client)
    assert model.plan_.sides == "columns"
    here = LinRFM(**SIDES, sides="columns").fit(Observations.open(media))
    assert np.array_equal(model.completion_.features.factor, here.completion_.features.factor)
