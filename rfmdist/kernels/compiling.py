"""Whether kernels are compiled, or found compiled by an earlier process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event


class Compiled(event.Listener):
    """Counts what numba compiles, and keeps none of it alive."""

    number = 0

    def on_start(self, _: Any) -> None:
        self.number += 1

    def on_end(self, _: Any) -> None:
        pass


@contextmanager
def compilations() -> Iterator[Compiled]:
    """Give the count of the kernels that are compiled meanwhile."""
    counted = Compiled()
    with event.install_listener("numba:compile", counted):
        yield counted
