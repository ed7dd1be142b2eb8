"""Running pure functions over groups of rows and panels of features: in this process, or on a Dask cluster.

Knows where work runs and in what order results are summed; not what is computed. The order is a fixed tree
over the groups, and each group or panel is computed with one BLAS thread a piece, so that results are the same
bits in process and on any number of workers.
"""

from __future__ import annotations

import pickle
import socket
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from rfmdist.engine.shelf import FILED_BYTES, Files, Held, Returned, Shelf
from rfmdist.engine.tree import TASK, Tree, cut, leaves, opened, summed
from rfmdist.engine.workers import check_client, clear, is_shared
from rfmdist.errors import RfmdistError
from rfmdist.features.protocol import Partial
from rfmdist.kernels.threads import Threads, one_blas_thread
from rfmdist.machine import bytes_read, cores
from rfmdist.observations.scratch import FiledValue, Scratch

Group = tuple[int, int]
TAIL = 3
"""Groups at the end of each thread's that are tasks of their own: others take them if they are done before."""
ATTEMPTS = 3
"""Times a step is sent anew after workers were lost together with data that only they held."""
REACH_SECONDS = 1
"""How long a worker may take to answer the client's call before data goes by way of the scheduler."""
LOOK_SECONDS = 5
"""How often to see whether tasks wait in vain."""
RESTART_SECONDS = 60
"""How long to wait for a worker to come back before an attempt."""


class Traffic(NamedTuple):
    """Bytes that went from process to process, and that were read from files."""

    moved: int
    read: int

    def since(self, before: Traffic) -> Traffic:
        """Return what came after ``before``; 0 where a worker was lost and its counts with it."""
        return Traffic(max(self.moved - before.moved, 0), max(self.read - before.read, 0))


class Executor(Protocol):
    """Where the work of a fit runs; ``scratch`` is the folder that all of it sees, if there is one.

    Large features of the rows go there, of which memory holds no more than a ``stripe`` of rows, if that is set.
    """

    stripe: int | None

    scratch: Scratch | None

    def publish(self, value: Any, *, lasting: bool = False) -> Any:
        """Make ``value`` known where work runs; what is returned may be passed as a shared argument.

        A ``lasting`` one stays there until it is gone here: it holds what was read for it.
        """
        ...

    def reduce(
        self, function: Callable[..., Any], groups: Sequence[Group], *shared: Any, nbytes: int | None = None
    ) -> Any:
        """Sum ``function(group, *shared, threads)`` over all groups, in a fixed tree.

        What takes few ``nbytes``, if that is known, is summed here as far as it may: a cluster is done a few tasks
        earlier.
        """
        ...

    def map_panels(self, function: Callable[..., Any], panels: Sequence[Any], *shared: Any) -> list[Any]:
        """Return ``function(panel, *shared)`` in the order of the panels; each is one thread's work."""
        ...

    def shelf(self, height: int, nbytes: int) -> Shelf:
        """Return where groups put the rows that they solve: ``height`` rows in all, about ``nbytes``.

        0 bytes for what is wanted here in any case.
        """
        ...

    def traffic(self) -> Traffic:
        """Bytes moved and read so far."""
        ...


class InProcess:
    """Runs here, on this process's cores: groups one after another, threads within them and into the next."""

    def __init__(self, threads: Threads, scratch: Scratch | None = None) -> None:
        self._threads, self.scratch = threads, scratch
        self.stripe: int | None = None

    def publish(self, value: Any, *, lasting: bool = False) -> Any:
        return value

    def reduce(
        self, function: Callable[..., Any], groups: Sequence[Group], *shared: Any, nbytes: int | None = None
    ) -> Any:
        try:
            return summed([1] * len(groups), self._each(function, groups, shared), ours=True, gone=self._recycle)
        finally:
            self._threads.let_go()

    def map_panels(self, function: Callable[..., Any], panels: Sequence[Any], *shared: Any) -> list[Any]:
        return self._threads.map(lambda panel: function(panel, *shared), [(panel,) for panel in panels])

    def shelf(self, height: int, nbytes: int) -> Shelf:
        if self.scratch is not None and self.stripe and nbytes:
            return _filed(self.scratch, self.stripe)
        return Held(height)

    def traffic(self) -> Traffic:
        return Traffic(0, bytes_read())

    def _each(self, function: Callable[..., Any], groups: Sequence[Group], shared: Sequence[Any]) -> Iterator[Any]:
        """Yield what each group gives; where it left something to the threads, once they have done that.

        They do it beside the next group's work.
        """
        threads, late = self._threads, list[Any]()
        for group, threads.following in zip(groups, [*groups[1:], None], strict=True):
            before = threads.behind
            late.append(function(group, *shared, threads))
            if threads.behind is before:  # this group left nothing, and may not have waited for the one before
                threads.settle()
            while len(late) > (threads.behind is not None):
                yield late.pop(0)
        threads.settle()
        yield from late

    def _recycle(self, value: Any) -> None:
        """Let the next group have the memory of what another's was: fresh pages took a tenth of an iteration."""
        if isinstance(value, Partial):
            self._threads.recycle(value.sums.values())


class Published:
    """A value held here and, while a cluster keeps it, on its workers or in a file that they read.

    Of what was scattered Dask takes copies away again while nobody asks for them, and with them the blocks that they
    keep; what is read from a file is held as long as the file is there.
    """

    def __init__(self, value: Any, lasting: bool) -> None:
        self.value, self.lasting = value, lasting
        self.handle: Any = None


class OnClient:
    """Runs on the workers of a `distributed.Client`: a group or a panel is one pure task on one thread."""

    def __init__(self, client: Any, scratch: Scratch | None = None) -> None:
        self._client, self.scratch = client, scratch
        self.stripe: int | None = None
        self._sent = 0
        self._direct = _reaches(client)

    def publish(self, value: Any, *, lasting: bool = False) -> Published:
        return Published(value, lasting)

    def shelf(self, height: int, nbytes: int) -> Shelf:
        if self.scratch is None or nbytes < (1 if self.stripe else FILED_BYTES):
            return Returned()
        return _filed(self.scratch, self.stripe)

    def traffic(self) -> Traffic:
        told = self._client.run(_traffic_of, on_error="ignore").values()
        return Traffic(self._sent + sum(sent for sent, _ in told), sum(read for _, read in told))

    def reduce(
        self, function: Callable[..., Any], groups: Sequence[Group], *shared: Any, nbytes: int | None = None
    ) -> Any:
        tasks = _GroupTasks(function, groups, self._homes(), nbytes)
        return summed(tasks.sizes, iter(self._computed(tasks.add, shared)), ours=False)

    def map_panels(self, function: Callable[..., Any], panels: Sequence[Any], *shared: Any) -> list[Any]:
        published = [self.publish(value) for value in shared]

        def tasks(graph: _Graph, handles: list[Any]) -> list[str]:
            return [graph.add("panel", partial(_run_panel, function, panel), handles) for panel in panels]

        return self._computed(tasks, published)

    def _homes(self) -> list[str]:
        """Address of a worker for each of the cluster's threads, neighbours together.

        A group is best run where its neighbours are, so that most sums move nothing, and where it was before, so that
        the worker finds the blocks that it keeps. Others may take it all the same.
        """
        threads = self._client.nthreads()
        return [address for address in sorted(threads) for _ in range(threads[address])]

    def _computed(self, tasks: Callable[[_Graph, list[Any]], list[str]], shared: Sequence[Any]) -> list[Any]:
        """Send the graph to which ``tasks`` adds, and gather what it asks for.

        Dask runs a lost task again, but what a client scattered cannot be made again by the cluster: when a
        lost worker held the last copy of it, the step is sent anew.
        """
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        for _ in range(ATTEMPTS):
            try:
                return self._sent_and_gathered(tasks, shared)
            except KilledWorker:
                raise RfmdistError(
                    "the cluster gave up a task after it had ended several workers; give each worker more memory"
                ) from None
            except RfmdistError as error:  # a new one: the client keeps the old, and with it these frames' futures
                error.__traceback__ = None
                raise type(error)(*error.args) from None
            except (CancelledError, CommClosedError) as lost:
                lost.__traceback__ = None
                for value in shared:
                    if isinstance(value, Published) and not isinstance(value.handle, FiledValue):
                        value.handle = None
                with suppress(TimeoutError):  # the next attempt then tells
                    self._client.wait_for_workers(1, timeout=RESTART_SECONDS)
        raise RfmdistError(f"the cluster lost its workers {ATTEMPTS} times in one step; see that they stay up")

    def _sent_and_gathered(self, tasks: Callable[[_Graph, list[Any]], list[str]], shared: Sequence[Any]) -> list[Any]:
        """One attempt, in a frame of its own: no name holds futures of a lost step while workers are waited for."""
        graph = _Graph()
        futures = graph.sent(self._client, tasks(graph, [self._handle(value) for value in shared]))
        while not _done(self._client, futures):
            if self._client.run_on_scheduler(_homeless):
                self._client.cancel(futures)
                raise CancelledError
        return list(self._client.gather(futures, direct=self._direct))

    def _handle(self, value: Any) -> Any:
        """Return what stands for ``value`` in a task: a file that workers read, or what is sent once and passed on.

        A file on a disk is there sooner, however small, and lost workers do not take it with them.
        """
        if not isinstance(value, Published):
            return value
        if value.handle is None:
            filed = self.scratch is not None and (value.lasting or self.scratch.on_disk)
            size = 0 if filed else _pickled_bytes(value.value)
            if self.scratch is not None and (filed or size >= FILED_BYTES):
                value.handle = FiledValue.write(self.scratch, value.value)
                weakref.finalize(value, self.scratch.remove, value.handle.name)
            else:
                value.handle = self._scattered(value.value)
                self._sent += size
        return value.handle

    def _scattered(self, value: Any) -> Any:
        from distributed.comm import CommClosedError

        try:
            return self._client.scatter(value, hash=False, direct=self._direct)
        except OSError as lost:  # the worker it was meant for is gone, or has come since and lies behind a wall
            self._direct = _reaches(self._client)
            raise CommClosedError(str(lost)) from None


@contextmanager
def executor(client: Any = None, folder: str | None = None) -> Iterator[Executor]:
    """Yield where to run: on the client's workers, or in process on all cores this process may use.

    What is large goes to the workers through files of ``folder``, as far as they see it too; it is removed in the end.
    """
    keeping = nullcontext() if folder is None else Scratch(folder).kept()
    if client is None:
        with keeping as scratch, all_threads() as threads:
            yield InProcess(threads, scratch)
        return
    check_client(client)
    with keeping as scratch:
        yield OnClient(client, scratch if scratch is None or is_shared(client, scratch) else None)
    clear(client)


def _done(client: Any, futures: list[Any]) -> bool:
    """Wait for the client's futures for a while, and tell whether all of them have ended, or one has failed."""
    from distributed import wait

    with suppress(TimeoutError), client.as_current():  # or it asks the default client, of which there may be none
        wait(futures, timeout=LOOK_SECONDS)
        return True
    return any(future.status == "error" for future in futures)


def _homeless(dask_scheduler: Any) -> bool:
    """Whether a task waits for a worker that is gone, though there are others.

    When a worker comes where there was none, Dask gives it those tasks alone that were meant for no other, even if
    others may take them.
    """
    waiting = any(task.loose_restrictions for task in dask_scheduler.unrunnable)
    return waiting and bool(dask_scheduler.running)


def _filed(scratch: Scratch, stripe: int | None) -> Files:
    """Files of their own for the rows of one half step."""
    return Files(scratch, f"rows-{uuid.uuid4().hex}", stripe)


@contextmanager
def all_threads() -> Iterator[Threads]:
    """Yield threads on all cores this process may use, BLAS held at one thread each."""
    threads = Threads(cores())
    try:
        with one_blas_thread():
            yield threads
    finally:
        threads.close()


class _Graph:
    """Tasks that are sent to the cluster as one, which costs the client a sixth of what `dask.delayed` takes."""

    def __init__(self) -> None:
        self._layers: dict[str, Any] = {}
        self._needs: dict[str, set[str]] = {}

    def add(self, name: str, function: Callable[..., Any], arguments: Sequence[Any], **annotations: Any) -> str:
        """Add a task and return its key; keys and futures among the arguments stand for their results."""
        from dask.highlevelgraph import MaterializedLayer

        key = f"{name}-{uuid.uuid4()}"
        self._needs[key] = {each for each in arguments if isinstance(each, str) and each in self._layers}
        self._layers[key] = MaterializedLayer({key: (function, *arguments)}, annotations)
        return key

    def sent(self, client: Any, wanted: list[str]) -> list[Any]:
        """Send it and return the futures of the tasks that are ``wanted``."""
        from dask.highlevelgraph import HighLevelGraph

        return list(client.get(HighLevelGraph(self._layers, self._needs), wanted, sync=False))


class _GroupTasks:
    """A function over groups as Dask tasks, and sums of what they give.

    A thread's groups are neighbours and its tasks few: each costs the scheduler a millisecond, and the worker a few
    until the next begins. The last are single groups, for who is done first. Names tell how many groups a task has:
    by them Dask knows how long it takes. Sums that take few bytes, if ``nbytes`` of each are known, are left to the
    client, all or the last of them: of two workers the last then ends a half step some 10 to 20 ms earlier.

    Attributes
    ----------
    sizes : list of int
        Of how many groups each of the results that the client asks for is the sum.
    """

    def __init__(
        self, function: Callable[..., Any], groups: Sequence[Group], homes: Sequence[str], nbytes: int | None
    ) -> None:
        slots = [k * len(homes) // len(groups) for k in range(len(groups))]
        tree = cut(slots, TAIL if len(homes) > 1 else 0)
        self._trees = opened(tree, nbytes)
        self.sizes = [sum(leaves(each)) for each in self._trees]
        self._function, self._groups = function, groups
        self._homes = [homes[slot] for slot in slots] if homes else []

    def add(self, graph: _Graph, handles: list[Any]) -> list[str]:
        """Add the tasks and return the keys of those whose results the client asks for."""
        return self._several(self._trees, 0, graph, handles)

    def _several(self, trees: Sequence[Tree], first: int, graph: _Graph, handles: list[Any]) -> list[str]:
        firsts = accumulate((sum(leaves(tree)) for tree in trees), initial=first)
        return [self._one(tree, at, graph, handles) for tree, at in zip(trees, firsts, strict=False)]

    def _one(self, tree: Tree, first: int, graph: _Graph, handles: list[Any]) -> str:
        """Add what gives the sum over groups from ``first`` on: in their order, short ones last; sums make room."""
        if not isinstance(tree, int):
            run = partial(_run_sum, [sum(leaves(part)) for part in tree])
            return graph.add("sum", run, self._several(tree, first, graph, handles), priority=TASK + 1)
        where = {"workers": [self._homes[first]], "allow_other_workers": True} if self._homes else {}
        run = partial(_run_groups, self._function, self._groups[first : first + tree])
        return graph.add(f"{tree}_groups", run, handles, priority=tree - first / len(self._groups), **where)


def _run_groups(function: Callable[..., Any], groups: Sequence[Group], *shared: Any) -> Any:
    with one_blas_thread():
        return InProcess(Threads(1)).reduce(function, groups, *map(_loaded, shared))


def _run_sum(sizes: list[int], *values: Any) -> Any:
    return summed(sizes, iter(values), ours=False)


def _run_panel(function: Callable[..., Any], panel: Any, *shared: Any) -> Any:
    with one_blas_thread():
        return function(panel, *map(_loaded, shared))


def _reaches(client: Any) -> bool | None:
    """Whether data can go between client and workers themselves; None where the client was told whether it shall.

    By way of the scheduler, Dask's default, 4 MB take 35 ms instead of 8, and its memory. Asked of a worker behind a
    wall, Dask waits for half a minute before it takes that way after all.
    """
    if client.direct_to_workers is not None:
        return None
    for address in client.nthreads():
        place = urlsplit(address)
        if place.scheme == "inproc":
            continue
        try:
            socket.create_connection((place.hostname, place.port), REACH_SECONDS).close()
        except (OSError, ValueError):
            return False
    return True


def _pickled_bytes(value: Any) -> int:
    """Bytes of the arrays that a pickled value has."""
    buffers: list[pickle.PickleBuffer] = []
    pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return sum(buffer.raw().nbytes for buffer in buffers)


def _loaded(value: Any) -> Any:
    """The value itself, of one that lies in files what they hold."""
    load = getattr(value, "loaded", None)
    return value if load is None else load()


def _traffic_of(dask_worker: Any) -> tuple[int, int]:
    """Bytes that a worker has sent to others and to clients, as Dask counts them, and has read from files."""
    return int(dask_worker.transfer_outgoing_bytes_total), bytes_read()
