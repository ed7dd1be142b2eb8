"""What this process may use of the machine: folders of its own, and memory that a batch job was given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rfmdist import machine
from rfmdist.engine.plan import Machine
from rfmdist.machine import free_memory, memory_bound, temporary_folder

# ---- memory of a batch job ----------------------------------------------------------------------------------


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Make this process one of a job of SLURM that has no control group, and has asked for no memory yet."""
    for name in (*machine.JOB_MEMORY, *filter(None, machine.JOB_MEMORY.values())):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "OWN_GROUPS", Path("/nowhere"))
    monkeypatch.setattr(machine, "_resident_in_job", lambda process, job: 0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return monkeypatch


@pytest.mark.parametrize(
    ("told", "megabytes", "bound"),
    [
        ({"SLURM_MEM_PER_NODE": "300"}, 300, "SLURM_MEM_PER_NODE"),
        ({"SLURM_MEM_PER_CPU": "100", "SLURM_CPUS_ON_NODE": "4"}, 400, "SLURM_MEM_PER_CPU"),
        ({"SLURM_MEM_PER_GPU": "250", "SLURM_GPUS_ON_NODE": "2"}, 500, "SLURM_MEM_PER_GPU"),
        ({"SLURM_MEM_PER_NODE": "300", "SLURM_MEM_PER_CPU": "50", "SLURM_CPUS_ON_NODE": "2"}, 100, "SLURM_MEM_PER_CPU"),
    ],
)
def test_a_job_s_memory_is_what_is_free(
    job: pytest.MonkeyPatch, told: dict[str, str], megabytes: int, bound: str
) -> None:
    """As SLURM tells it, in MiB; of several the least, and its name is told with what is allowed."""
    for name, value in told.items():
        job.setenv(name, value)
    assert free_memory() == megabytes << 20
    assert memory_bound() == bound
    assert Machine.of().by == f" by {bound}"
    assert Machine.of(memory=10**9).by == ""


@pytest.mark.parametrize(
    "told", [{}, {"SLURM_MEM_PER_NODE": "0"}, {"SLURM_MEM_PER_CPU": "9"}, {"SLURM_MEM_PER_NODE": "x"}]
)
def test_a_job_without_a_limit_has_the_machine(job: pytest.MonkeyPatch, told: dict[str, str]) -> None:
    """0 is all of the node's; what cannot be understood is no limit."""
    for name, value in told.items():
        job.setenv(name, value)
    assert memory_bound() == ""
    assert free_memory() > 0


def test_outside_of_a_job_its_variables_mean_nothing(job: pytest.MonkeyPatch) -> None:
    """They may have been copied to a shell that is none of the job's."""
    job.setenv("SLURM_MEM_PER_NODE", "1")
    job.delenv("SLURM_JOB_ID")
    assert memory_bound() == ""


def test_what_the_job_s_processes_hold_is_not_free() -> None:
    """All of them on this node count, and no others."""
    script = "from rfmdist.machine import free_memory as free; held = bytearray(80 << 20); print(free())"
    told = os.environ | {"SLURM_JOB_ID": f"{os.getpid()}-of-this-test", "SLURM_MEM_PER_NODE": "1000"}
    sleeper = "held = bytearray(100 << 20); print(flush=True); input()"
    command = [sys.executable, "-c"]
    with subprocess.Popen([*command, sleeper], env=told, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        done = subprocess.run([*command, script], env=told, capture_output=True, text=True, check=True)
        other.communicate(b"\n")
    assert 600 << 20 < int(done.stdout) < (1000 - 180) << 20


# ---- the user's own folder ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["a link", "others may write", "others may replace it", "another's", "a file"])
def test_a_folder_that_is_not_ours_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """What lies there will be run, so that nobody else may put anything there."""
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o700)
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    folder = temporary_folder()
    assert folder == temporary_folder()
    if how == "others may write":
        folder.chmod(0o777)
    elif how == "others may replace it":
        shared.chmod(0o777)
    elif how == "another's":
        if os.geteuid() == 0:
            os.chown(folder, 54321, -1)
        else:
            monkeypatch.setattr(os, "getuid", lambda: 54321)
            folder.rename(shared / "rfmdist-54321")
    else:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere") if how == "a link" else folder.touch()
    with pytest.raises(OSError, match=r"is not this user's alone|File exists"):
        temporary_folder()


def test_a_folder_of_all_users_serves_where_each_owns_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system's folder of temporary files is: others may write there, but not replace what is ours."""
    tmp_path.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert temporary_folder().stat().st_mode & 0o777 == 0o700


# ---- what other libraries want of a home --------------------------------------------------------------------

CUPY = """
import os
os.makedirs(os.environ.get("CUPY_CACHE_DIR", os.path.expanduser("~/.cupy/kernel_cache")), exist_ok=True)
raise ImportError("no CuPy after all")
"""
"""What CuPy 14.2 does as it is imported, in cupy/cuda/_compiler_cache.py."""


@pytest.mark.parametrize("home", ["none", "a file", "its own"])
def test_cupy_needs_no_home(tmp_path: Path, home: str) -> None:
    """Zarr imports it where it is installed, and would end with its OSError; in a home it has the place it wants."""
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(CUPY)
    (tmp_path / "file").touch()
    folder = {"none": "~/nobody", "a file": tmp_path / "file", "its own": tmp_path / "home"}[home]
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    told = os.environ | {"PYTHONPATH": path, "HOME": str(folder), "TMPDIR": str(tmp_path)}
    told.pop("CUPY_CACHE_DIR", None)
    script = "from rfmdist import Observations"
    subprocess.run([sys.executable, "-c", script], env=told, cwd=tmp_path, check=True)
    expected = tmp_path / "home/.cupy/kernel_cache" if home == "its own" else tmp_path / f"rfmdist-{os.getuid()}/cupy"
    assert expected.is_dir()
    assert not (tmp_path / "~").exists()
