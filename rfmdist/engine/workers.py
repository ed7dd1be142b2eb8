"""The workers of a cluster: whether there are any, and what they may take. Knows Dask; not what they compute."""

from __future__ import annotations

import gc
import socket
import uuid
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from rfmdist.errors import InputError, RfmdistError, StoreError
from rfmdist.machine import free_memory, resident_bytes, steady_memory
from rfmdist.observations.scratch import Scratch, let_go

WORKER_SECONDS = 600
"""How long to wait for a first worker, which a batch system may have to start."""
SAFE = 0.7
"""Share of its limit from which on Dask puts what a worker holds on disk; at 0.8 the worker pauses, at 0.95 it ends."""


class Workers(NamedTuple):
    """What all workers have in common: their number, the most threads, the most bytes held, the fewest allowed."""

    number: int
    threads: int
    held: int
    allowed: int


class Told(NamedTuple):
    """What a worker tells: its host, bytes that it holds, its limit if it has one, bytes that are free there."""

    host: str
    held: int
    limit: int | None
    free: int


def check_client(client: Any) -> None:
    """Refuse what cannot run a fit, and wait for a first worker; a warning tells at once that there is none yet.

    Raises
    ------
    InputError
        If this is no client, or one that is asynchronous or closed.
    RfmdistError
        If the cluster has no worker.
    """
    from distributed import Client

    if not isinstance(client, Client):
        raise InputError(f"client {client!r} is none: give a distributed.Client, such as Client(address)")
    if client.status != "running":
        raise InputError(f"the client is {client.status}, not running: connect a new one")
    if client.asynchronous:
        raise InputError("the client is asynchronous, and a fit waits for its results: connect one that is not")
    address = client.scheduler.address
    if not client.nthreads():
        warnings.warn(f"the scheduler at {address} has no worker yet; waiting {WORKER_SECONDS} s for one", stacklevel=2)
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError:
        raise RfmdistError(f"the scheduler at {address} has had no worker for {WORKER_SECONDS} s; start some") from None


def workers_of(client: Any) -> Workers:
    """Ask the workers what they may take; what earlier fits have left there goes, and freed memory from now on."""
    check_client(client)
    threads, told = client.nthreads().values(), list(client.run(_told).values())
    if not told:
        raise RfmdistError("the cluster has lost its last worker; see that they stay up")
    there = Counter(each.host for each in told)
    shares = [each.held + each.free // there[each.host] for each in told]
    limits = [int(SAFE * each.limit) for each in told if each.limit]
    return Workers(len(told), max(threads, default=1), max(each.held for each in told), min(shares + limits))


def everywhere(client: Any, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function on each worker, as a task, which may take its time; where it fails, what comes after tells."""
    alone = {"pure": False, "allow_other_workers": True}
    calls = [client.submit(function, *arguments, workers=[address], **alone) for address in client.nthreads()]
    client.gather(calls, errors="skip")


def is_shared(client: Any, scratch: Scratch) -> bool:
    """Whether all workers see a folder of this process and can write there; if not, a warning tells what that costs.

    One beside the store they see, who see the store; temporary files, where that cannot be written to, may be a
    machine's own.
    """
    scratch.write("here", [b"seen"])
    seen = all(client.run(_reaches, scratch).values())
    if not seen:
        warnings.warn(
            f"{scratch.folder}: not all workers see this folder, so that they are sent everything, and read the store"
            " at each iteration; name one in TMPDIR that they see, or put the store where it can be written to",
            stacklevel=2,
        )
    return seen


def clear(client: Any) -> None:
    """Have the workers let go of what a fit that is over has left there."""
    client.run(let_go, on_error="ignore")


def _reaches(scratch: Scratch) -> bool:
    """Whether this process sees what the client wrote, and can write beside it."""
    with suppress(StoreError):
        scratch.write(f"there-{uuid.uuid4().hex}", [b""])
        return scratch.holds("here")
    return False


def _told(dask_worker: Any) -> Told:
    steady_memory()
    gc.collect()
    let_go()
    limit = dask_worker.memory_manager.memory_limit
    return Told(socket.gethostname(), resident_bytes(), limit, free_memory())
