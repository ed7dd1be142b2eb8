"""Threads over the pieces of one row block, and one BLAS thread a caller. Knows nothing of what runs.

What the pieces of a sum are never depends on the number of threads, and a library product inside a piece runs on
one thread: so results are the same bits for any number of threads.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from operator import call
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

_lock = Lock()
_users = 0
_limits = ExitStack()
_found: tuple[int, ThreadpoolController] | None = None
"""The libraries of this process, and how many modules it had when they were looked up, which takes a millisecond."""
_keeper = ThreadPoolExecutor(1, thread_name_prefix="rfmdist-blas")
"""Sets and restores the limit: OpenBLAS obeys one Python thread at a time, and callers come from many."""


def _begin_anew() -> None:
    """Forget the limit in a forked child, where the keeper's thread is gone and a lock may be held for ever."""
    global _lock, _users, _keeper
    _lock, _users, _keeper = Lock(), 0, ThreadPoolExecutor(1, thread_name_prefix="rfmdist-blas")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold every BLAS of this process at one thread; the limit is process-wide, so callers at once share it.

    MKL has a limit of the process and one of each thread, which counts where it was set, by threadpoolctl for one: the
    caller's is set too. Threads that work for the caller have none of their own.
    """
    global _users, _limits
    with _lock:
        _users += 1
        if _users == 1:
            _limits = _keeper.submit(_limited).result()
        own = [(library, library.MKL_Set_Num_Threads_Local(1)) for library in _mkl()]
    try:
        yield
    finally:
        for library, before in own:
            library.MKL_Set_Num_Threads_Local(before)  # 0 where there was none
        with _lock:
            _users -= 1
            if _users == 0:
                _keeper.submit(_limits.close).result()


def _limited() -> ExitStack:
    """Set the limit of the process, and return what restores it."""
    limits = ExitStack()
    others = {library.internal_api for library in _libraries().lib_controllers} - {"mkl"}
    limits.enter_context(_libraries().select(internal_api=list(others)).limit(limits=1, user_api="blas"))
    for library in _mkl():  # of which threadpoolctl would limit this thread alone
        limits.callback(library.MKL_Set_Num_Threads, library.MKL_Get_Max_Threads())
        library.MKL_Set_Num_Threads(1)
    return limits


def _mkl() -> list[Any]:
    """The MKL of this process, if there is any, to call its functions."""
    return [library.dynlib for library in _libraries().lib_controllers if library.internal_api == "mkl"]


def _libraries() -> ThreadpoolController:
    global _found
    if _found is None or _found[0] != len(sys.modules):  # a library comes with a module
        _found = len(sys.modules), ThreadpoolController()
    return _found[1]


class _Work:
    """Pieces that threads take one by one."""

    def __init__(self, function: Callable[..., Any], pieces: Iterable[tuple[Any, ...]]) -> None:
        self._function, self._pieces = function, list(pieces)
        self.found: list[Any] = [None] * len(self._pieces)
        self.left = iter(range(len(self._pieces)))
        self.helpers: list[Future[None]] = []

    def go_on(self) -> None:
        """Do what nobody has begun."""
        for k in self.left:
            self.found[k] = self._function(*self._pieces[k])


class Threads:
    """So many threads that run pieces of work, the caller's among them; if it is alone, in order."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count - 1) if count > 1 else None
        self._late: _Work | None = None
        self._scratch: dict[str, NDArray[np.uint8]] = {}
        self._scratch_in_use: dict[str, NDArray[np.uint8]] = {}
        self._spare: dict[tuple[Any, ...], list[NDArray[Any]]] = {}
        self.count = count
        self.following: tuple[int, int] | None = None
        """The group that comes after the one at work, if it is known: its first block may be read ahead."""

    def scratch(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array of any contents, valid until the next call for ``name`` and the end of `later` work between.

        It is the same memory each time, or one of two: fresh pages cost the system more than filling them costs us.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in self._scratch or size > len(self._scratch[name]):
            self._scratch[name] = np.empty(size, np.uint8)
        return self._scratch[name][:size].view(dtype).reshape(shape)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array of zeros for the caller to keep, of memory that was recycled if there is some."""
        spare = self._spare.setdefault((shape, np.dtype(dtype)), [])
        if not spare:
            return np.zeros(shape, dtype)
        found = spare.pop()
        found[...] = 0
        return found

    def recycle(self, arrays: Iterable[NDArray[Any]]) -> None:
        """Take arrays that nobody uses any more, those of them that `zeros` was asked for."""
        for array in arrays:
            if (array.shape, array.dtype) in self._spare:
                self._spare[array.shape, array.dtype].append(array)

    def let_go(self) -> None:
        """Let the recycled arrays go, and what is left of `later` work."""
        self._spare.clear()
        _ended(self._taken())

    def map(self, function: Callable[..., Any], pieces: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Call ``function`` on each piece's arguments and return the results in the order of the pieces.

        Each thread takes the next piece when it is done with one. A caller that slept and were woken for every piece
        would take the core from one of them each time: 2,700 times in an iteration of two seconds, and a twentieth of
        it. A single piece runs here: handing it to a thread takes as long as thousands of entries.
        """
        work = _Work(function, pieces)
        self._ask(work, min(self.count, len(work.found)) - 1)
        _finish([*self._taken(), work])
        return work.found

    def later(self, *calls: Callable[[], None]) -> None:
        """Make the calls beside what the caller does next, and all of them before the end of its next `map`.

        So threads wait for one another once a block and not at each of its steps, and have something to do while the
        caller alone is at work. With one thread the calls are made at once.
        """
        self.settle()
        self._late = _Work(call, ((each,) for each in calls))
        if self._pool is None:
            self.settle()
            return
        self._ask(self._late, min(self.count - 1, len(calls)))
        self._scratch, self._scratch_in_use = self._scratch_in_use, self._scratch

    @property
    def behind(self) -> object:
        """What `later` left to be done; None once that is known to be done."""
        return self._late

    def settle(self) -> None:
        """Do what `later` left to be done, and wait for the rest of it."""
        _finish(self._taken())

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _ask(self, work: _Work, helpers: int) -> None:
        """Let so many threads begin with the pieces."""
        if self._pool is not None:
            work.helpers = [self._pool.submit(work.go_on) for _ in range(helpers)]

    def _taken(self) -> list[_Work]:
        """Take what `later` left to be done: whoever does has to end it."""
        late, self._late = self._late, None
        return [] if late is None else [late]


def _finish(works: list[_Work]) -> None:
    """Do what nobody has begun, wait for the threads, and raise what failed in one."""
    try:
        for work in works:
            work.go_on()
    finally:
        begun = _ended(works)
    for helper in begun:
        helper.result()


def _ended(works: list[_Work]) -> list[Future[None]]:
    """Let nobody begin with another piece; wait for the threads that have begun, and return what they gave."""
    for work in works:
        for _ in work.left:
            pass
    begun = [helper for work in works for helper in work.helpers if not helper.cancel()]
    wait(begun)
    return begun
