"""The batch script on a real SLURM of two nodes: the bits of a fit in process, and errors of one sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DATA
from machines import as_options, assert_same_bits
from slurm import Slurm, two_nodes

from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.ingest import ingest
from rfmdist.observations.store import Observations

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "cluster" / "rfmdist.sbatch"
SETTINGS = {"features": "dense", "ridge": 0.5, "replacement": 1, "max_iter": 3}
"""Exact features, because those of so few ratings are cut into four groups, and factored ones into one."""
ENVIRONMENT = {"RFMDIST_ENV": sys.prefix, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Give a SLURM of two nodes."""
    with two_nodes(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with ratings.zarr: MovieLens 100K, or ratings like it where MovieLens is not on this machine."""
    folder = tmp_path_factory.mktemp("job")
    ratings = DATA / "ml-100k" / "u1.base"
    if not ratings.exists():
        ratings = folder / "ratings.dat"
        command = [sys.executable, ROOT / "scripts" / "generate.py", ratings, "--ratings", "80000", "--users", "900"]
        subprocess.run(command, check=True, capture_output=True)
    ingest([ratings], folder / "ratings.zarr")
    return folder


def test_two_nodes_give_the_bits_of_one_process(slurm: Slurm, folder: Path) -> None:
    """Workers of both nodes complete the ratings, within the memory asked for, to the bits of a fit in process."""
    wanted = ["--nodes=2", "--cpus-per-task=2", "--mem=3000"]
    fit = ["ratings.zarr", "-o", "completed.zarr", *as_options(SETTINGS), "--no-refit"]
    inherited = {"SLURM_MEM_PER_CPU": "77", "SLURM_NTASKS": "7"}  # as if submitted from within another job
    job = slurm.submit(*wanted, str(SCRIPT), *fit, environment={**ENVIRONMENT, **inherited}, cwd=folder)
    assert (job.state, job.code) == ("COMPLETED", 0), job.output
    assert "validation rmse" in job.output
    assert "Traceback" not in job.output

    told = re.findall(r"(node\d) runs (\d) worker\(s\), memory limit (\d+)MiB each, scratch (\S+)", job.output)
    assert sorted(line[:3] for line in told) == [("node1", "2", "1200"), ("node2", "2", "1200")]
    assert not any(os.path.exists(scratch) for *_, scratch in told)
    (log,) = folder.glob("rfmdist-*.dask.log")
    registered = re.findall(r"Register worker addr: \S+ name: (\S+)", log.read_text())
    assert sorted(registered) == ["node1-0", "node1-1", "node2-0", "node2-1"]
    assert not list(folder.glob("*.run"))

    model = LinRFM(**SETTINGS, refit=False).fit(Observations.open(folder / "ratings.zarr"))
    assert model.plan_ is not None
    assert len(model.plan_.groups) == 4
    model.completion_.save(folder / "here.zarr")
    assert_same_bits(folder / "here.zarr", folder / "completed.zarr")


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "sentence"),
    [
        (["-o", "out.zarr"], {}, 2, r"no store is named; name it first: sbatch .* STORE -o COMPLETION"),
        (
            ["none.zarr", "-o", "out.zarr"],
            {},
            2,
            r"none\.zarr: no such store on \S+; name a folder that all nodes see.*",
        ),
        (
            ["ratings.zarr", "-o", "out.zarr"],
            {"RFMDIST_ENV": "", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            2,
            r"rfmdist is not found on \S+; activate its environment before sbatch or name it in RFMDIST_ENV",
        ),
        (
            ["ratings.zarr", "-o", "out.zarr"],
            {"RFMDIST_SCRATCH": "/no/such/folder"},
            1,
            r"all workers ended before the fit did; see \S+\.dask\.log",
        ),
    ],
    ids=["no store named", "no such store", "no rfmdist", "no scratch"],
)
def test_a_job_that_fails_says_why(
    slurm: Slurm, folder: Path, arguments: list[str], environment: dict[str, str], code: int, sentence: str
) -> None:
    """The exit code is that of the failure, and the output is one sentence that names the mend."""
    given = {**ENVIRONMENT, **environment}
    job = slurm.submit("--nodes=2", str(SCRIPT), *arguments, environment=given, cwd=folder)
    assert (job.state, job.code) == ("FAILED", code), job.output
    assert re.fullmatch(rf"rfmdist\.sbatch: {sentence}", job.output.strip())
    assert not list(folder.glob("*.run"))
    assert not (folder / "out.zarr").exists()


def test_what_rfmdist_refuses_fails_the_job(slurm: Slurm, folder: Path) -> None:
    """Without --mem, on one CPU a node: the exit code and the sentence are those of 'rfmdist fit'."""
    job = slurm.submit(
        "--nodes=2", str(SCRIPT), "ratings.zarr", "-o", "ratings.zarr", environment=ENVIRONMENT, cwd=folder
    )
    assert (job.state, job.code) == ("FAILED", 2), job.output
    assert "rfmdist: ratings.zarr: is the store of observations itself; name another output" in job.output


def test_outside_slurm_the_script_says_how_to_submit_it() -> None:
    """Run by hand, the script is refused with the command to use."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run([SCRIPT, "ratings.zarr"], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert re.fullmatch(r"rfmdist\.sbatch: this is no SLURM job; submit the script: sbatch .*\n", done.stderr)
