"""Reading the next piece while the last is worked on. Knows neither what is read nor what becomes of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
PENDING = 4
"""Most pieces that wait to be taken: as many as tasks of one worker run at once, with few threads each."""


def ahead(function: Callable[[Item], Read], items: Iterable[Item]) -> Iterator[Read]:
    """Yield ``function(item)`` in order, the next computed on a thread of its own meanwhile: two are held at once."""
    pending: deque[Future[Read]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="rfmdist-read") as reader:
        try:
            for item in items:
                pending.append(reader.submit(function, item))
                if len(pending) > 1:
                    yield pending.popleft().result()
            if pending:
                yield pending.popleft().result()
        finally:
            reader.shutdown(wait=False, cancel_futures=True)


class Ahead(Generic[Read]):
    """Pieces by range that are being read ahead; a pickled one arrives empty."""

    def __init__(self) -> None:
        self._pending: dict[tuple[int, int], Future[Read]] = {}
        self._reader: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Ahead[Read]], tuple[()]]:
        return Ahead, ()

    def take(self, place: tuple[int, int], read: Callable[[int, int], Read]) -> Read:
        """Return the piece at ``place``, read ahead or else read now."""
        with self._lock:
            found = self._pending.pop(place, None)
        return read(*place) if found is None else found.result()

    def begin(self, place: tuple[int, int], read: Callable[[int, int], Read]) -> None:
        """Begin to read the piece at ``place``; of tasks that end early a few pieces are left, the oldest is let go."""
        with self._lock:
            if place in self._pending:
                return
            if self._reader is None:
                self._reader = ThreadPoolExecutor(1, thread_name_prefix="rfmdist-read")
            while len(self._pending) >= PENDING:
                self._pending.pop(next(iter(self._pending))).cancel()
            self._pending[place] = self._reader.submit(read, *place)

    def clear(self) -> None:
        """Let all pieces go, and the thread."""
        with self._lock:
            if self._reader is not None:
                self._reader.shutdown(cancel_futures=True)
            self._pending, self._reader = {}, None
