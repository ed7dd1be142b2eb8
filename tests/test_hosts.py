"""A fit across three hosts whose lines carry 200 Mbit/s: the bits of a fit in process, and the bytes it takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hosts import Hosts, hosts
from machines import as_options, assert_same_bits

from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.store import Observations

ROOT = Path(__file__).parents[1]
RATE = "200mbit"
ROWS, COLUMNS, RANK, ENTRIES = 4000, 3000, 8, 1_300_000
"""Enough entries for three groups of rows and as many of columns."""
SETTINGS = {
    "features": "factored",
    "sides": "both",
    "rank": RANK,
    "ridge": 0.5,
    "replacement": 1,
    "indicators": 0,
    "ridge_by_count": 0,
    "row_scale": 0,
    "side_weight": 0,
    "max_iter": 4,
}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
WORKERS_SECONDS, FIT_SECONDS = 60, 150


@pytest.fixture
def three() -> Iterator[Hosts]:
    """Give three hosts on one switch."""
    with hosts(3, RATE) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Give a store of noisy values of a low-rank matrix."""
    rows, columns = np.divmod(rng.choice(ROWS * COLUMNS, ENTRIES, replace=False), COLUMNS)
    left, right = rng.normal(size=(ROWS, RANK)), rng.normal(size=(COLUMNS, RANK))
    values = np.sum(left[rows] * right[columns], axis=1) + rng.normal(size=ENTRIES)
    Observations.from_scipy(sp.coo_array((values, (rows, columns)), (ROWS, COLUMNS)), tmp_path / "store.zarr")
    return tmp_path / "store.zarr"


def start_dask(three: Hosts, folder: Path) -> Path:
    """Start a scheduler on the first host and a worker on each other one; give the scheduler file."""
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    quiet = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    common = ["--scheduler-file", str(file), *quiet]
    three.start(0, [*dask, "scheduler", *common, "--host", three.address(0)], folder / "scheduler.log", ENVIRONMENT)
    for host in (1, 2):
        one = ["--nworkers", "1", "--nthreads", "1", "--local-directory", str(folder / f"scratch-{host}")]
        worker = [*dask, "worker", *common, *one, "--host", three.address(host), "--name", f"host{host}"]
        three.start(host, worker, folder / f"worker-{host}.log", ENVIRONMENT)
    return file


def test_three_hosts_give_the_bits_of_one_process(three: Hosts, store: Path, tmp_path: Path) -> None:
    """Command line and scheduler on one host, a worker on each of two others, all talk over slow lines."""
    file = start_dask(three, tmp_path)
    # The command line goes on with the first worker; both must be there for this test to mean anything.
    wait = "import sys, distributed as d; d.Client(scheduler_file=sys.argv[1]).wait_for_workers(2, timeout=60)"
    ready = three.run(0, [sys.executable, "-c", wait, str(file)], WORKERS_SECONDS, env=ENVIRONMENT)
    assert ready.returncode == 0, ready.stderr + (tmp_path / "scheduler.log").read_text()
    before = three.bytes_sent()
    fit = ["fit", str(store), "-o", str(tmp_path / "there.zarr"), *as_options(SETTINGS), "--no-refit"]
    command = [sys.executable, "-m", "rfmdist", *fit, "--scheduler-file", str(file)]
    done = three.run(0, command, FIT_SECONDS, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    sent = [after - earlier for earlier, after in zip(before, three.bytes_sent(), strict=True)]
    print(f"bytes sent by client and scheduler, and by each worker: {', '.join(f'{count:,}' for count in sent)}")
    assert min(sent) > 100_000  # both workers had a part

    model = LinRFM(**SETTINGS, refit=False).fit(Observations.open(store))
    assert model.plan_ is not None
    assert len(model.plan_.groups) == 3
    model.completion_.save(tmp_path / "here.zarr")
    assert_same_bits(tmp_path / "here.zarr", tmp_path / "there.zarr")
