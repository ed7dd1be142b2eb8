"""Fits in processes of their own that take turns, a few iterations each, for `bench_scale.py`.

Cores that others use too are now fast, now slow, for seconds or for minutes. Of fits that follow one another one meets
other times than the next; of iterations that take turns each does. A fit whose turn it is not is stopped, its cluster
with it: it takes no time from the others.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import rfmdist
from rfmdist.observations.kept import KeptBlocks

QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.scheduler.work-stealing-interval": "50ms",
}
"""What cluster/README.md advises for workers that have every core."""


class Turn(NamedTuple):
    """Seconds of each iteration of a turn, and the least bytes that one moved."""

    seconds: list[float]
    moved: int


@dataclass
class Fit:
    """A fit to run.

    Attributes
    ----------
    store : Path
        What to fit.
    settings : dict
        Of the model.
    workers : int
        Processes of one thread; 0 for the fit's own process.
    cores : sequence of int
        To which it is held, if given.
    kept : bool
        Whether blocks stay in memory; or are read each time, as where the budget leaves no room.
    cold : bool
        Whether the files are dropped from the system's cache before each iteration.
    """

    store: Path
    settings: dict[str, Any]
    workers: int = 0
    cores: Sequence[int] = ()
    kept: bool = True
    cold: bool = False

    def run(self, pipe: Connection) -> None:
        """Fit for ever, as many iterations at a time as ``pipe`` says; until it says 0."""
        os.setpgrp()
        if self.cores:
            os.sched_setaffinity(0, self.cores)
        if not self.kept:
            KeptBlocks.offer = lambda self, start, stop, pair, limit: pair  # type: ignore[method-assign]
        records: list[Any] = []

        def wait(record: Any) -> bool:
            nonlocal left
            records.append(record)
            if len(records) == left:
                pipe.send([(one.seconds, one.moved_bytes) for one in records])
                records.clear()
                left = pipe.recv()
            if self.cold:
                drop(self.store)
            return left == 0

        left = 2  # the first reads the blocks
        with cluster(self.workers) if self.workers else nullcontext() as client:
            model = rfmdist.LinRFM(**self.settings, max_iter=1 << 30, callbacks=[wait])
            model.fit(rfmdist.Observations.open(self.store), client=client)


class Turns:
    """Fits by name, all of them stopped but those whose turn it is."""

    def __init__(self, fits: dict[str, Fit], stack: ExitStack) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: dict[str, Connection] = {}
        self._processes = {}
        for name, fit in fits.items():
            self._pipes[name], theirs = context.Pipe()
            self._processes[name] = context.Process(target=fit.run, args=(theirs,))
            self._processes[name].start()
            stack.callback(self._end, name)
            self._pipes[name].recv()
            self._signal(name, signal.SIGSTOP)

    def take(self, names: Sequence[str], iterations: int) -> dict[str, Turn]:
        """Run so many iterations of these fits at once, and one before that is not counted."""
        for name in names:
            self._signal(name, signal.SIGCONT)
            self._pipes[name].send(iterations + 1)
        found = {}
        for name in names:
            seconds, moved = zip(*self._pipes[name].recv()[1:], strict=True)
            found[name] = Turn(list(seconds), min(moved))
        for name in names:
            self._signal(name, signal.SIGSTOP)
        return found

    def _signal(self, name: str, number: int) -> None:
        os.killpg(self._processes[name].pid, number)

    def _end(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)
        self._pipes[name].send(0)
        self._processes[name].join(60)


@contextmanager
def turns(fits: dict[str, Fit]) -> Iterator[Turns]:
    """Start fits that take turns, and end them."""
    with ExitStack() as stack:
        yield Turns(fits, stack)


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    """Give a client of so many worker processes of one thread."""
    import logging

    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set(QUIET),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
        ) as local,
        Client(local) as client,
    ):
        yield client


def drop(store: Path) -> None:
    """Drop the files of a store, and those of fits beside it, from the system's cache."""
    for file in [*store.rglob("*"), *store.parent.glob(f".{store.name}.*.scratch/*")]:
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)  # what is not written yet is not dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
