"""Reading the next piece while the last is worked on. Knows neither what is read nor what becomes of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")


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
