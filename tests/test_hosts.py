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
from machines import as_options, assert_same_bits, wait_until

from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.store import Observations

ROOT = Path(__file__).parents[1]
RATE = "200mbit"
ROWS, COLUMNS, RANK, ENTRIES = 4000, 3000, 8, 1_300_000
"""Enough entries for five groups of rows and as many of columns."""
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
    "validation_fraction": 0,
    "max_iter": 10,
    "tol": 0,
}
"""Ten iterations, of which a fault takes place in the third."""
SILENCE = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s"}
"""How soon a host that says nothing is given up; Dask's own values are 30 s and 5 minutes."""
ENVIRONMENT = {**os.environ, **SILENCE, "PYTHONPATH": str(ROOT)}
WORKERS_SECONDS, FIT_SECONDS = 120, 150


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Give a store of noisy values of a low-rank matrix."""
    rows, columns = np.divmod(rng.choice(ROWS * COLUMNS, ENTRIES, replace=False), COLUMNS)
    left, right = rng.normal(size=(ROWS, RANK)), rng.normal(size=(COLUMNS, RANK))
    values = np.sum(left[rows] * right[columns], axis=1) + rng.normal(size=ENTRIES)
    Observations.from_scipy(sp.coo_array((values, (rows, columns)), (ROWS, COLUMNS)), tmp_path / "store.zarr")
    return tmp_path / "store.zarr"


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Hosts]:
    """Give three hosts on one switch: a scheduler runs on the first, a worker on each of the others."""
    dask, file = [sys.executable, "-m", "dask"], str(tmp_path / "scheduler.json")
    common = ["--scheduler-file", file, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    with hosts(3, RATE) as made:
        scheduler = [*dask, "scheduler", *common, "--host", made.address(0)]
        made.start(0, scheduler, tmp_path / "scheduler.log", ENVIRONMENT)
        for host in (1, 2):
            one = ["--nworkers", "1", "--nthreads", "1", "--local-directory", str(tmp_path / f"scratch-{host}")]
            worker = [*dask, "worker", *common, *one, "--host", made.address(host), "--name", f"host{host}"]
            made.start(host, worker, tmp_path / f"worker-{host}.log", ENVIRONMENT)
        # A fit goes on with the first worker; both must be there for these tests to mean anything.
        wait = "import sys, distributed as d; d.Client(scheduler_file=sys.argv[1]).wait_for_workers(2, timeout=100)"
        ready = made.run(0, [sys.executable, "-c", wait, file], WORKERS_SECONDS, env=ENVIRONMENT)
        assert ready.returncode == 0, ready.stderr + (tmp_path / "scheduler.log").read_text()
        yield made


@pytest.mark.parametrize("fault", ["none", pytest.param("a host is cut off", marks=pytest.mark.slow)])
def test_three_hosts_give_the_bits_of_one_process(three: Hosts, store: Path, tmp_path: Path, fault: str) -> None:
    """Command line and scheduler on one host, a worker on each of two others; one that falls silent costs seconds."""
    before, log = three.bytes_sent(), tmp_path / "fit.log"
    fit = ["fit", str(store), "-o", str(tmp_path / "there.zarr"), *as_options(SETTINGS), "--no-refit"]
    command = [sys.executable, "-m", "rfmdist", *fit, "--scheduler-file", str(tmp_path / "scheduler.json")]
    fitting = three.start(0, command, log, ENVIRONMENT)
    if fault != "none":
        assert wait_until(lambda: " 2/10 " in log.read_text(), FIT_SECONDS), log.read_text()
        three.cut_off(2)
        assert " 10/10 " not in log.read_text()
    assert fitting.wait(FIT_SECONDS) == 0, log.read_text()
    sent = [after - earlier for earlier, after in zip(before, three.bytes_sent(), strict=True)]
    print(f"bytes sent by client and scheduler, and by each worker: {', '.join(f'{count:,}' for count in sent)}")
    assert min(sent[1:]) > 100_000  # both workers had a part

    model = LinRFM(**SETTINGS, refit=False).fit(Observations.open(store))
    assert model.plan_ is not None
    assert len(model.plan_.groups) == 5
    assert model.n_iter_ == 10
    model.completion_.save(tmp_path / "here.zarr")
    assert_same_bits(tmp_path / "here.zarr", tmp_path / "there.zarr")
