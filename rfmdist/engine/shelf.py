"""Where the rows go that groups of a half step solve, when features cross: to the client, into one array, to files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rfmdist.features.protocol import Partial
from rfmdist.observations.scratch import Filed, Scratch

Group = tuple[int, int]
FILED_BYTES = 1 << 23
"""What is larger goes to workers through files: a gigabyte takes each of them a second, and the network nothing."""


class Shelf(Protocol):
    """Keeps the rows of groups; passed to every group's task."""

    def keep(self, group: Group, partial: Partial) -> None:
        """Take the rows that a group has appended to its partial."""
        ...

    def collect(self, total: Partial) -> None:
        """Put the rows of all groups into the ``total`` of their partials, as one tuple of tall arrays."""
        ...

    def discard(self) -> None:
        """Let the rows go: nobody reads them any more."""
        ...


class Returned:
    """Rows stay in the partials and come to the caller with their sum."""

    def keep(self, group: Group, partial: Partial) -> None:
        if len(partial.rows) > 1:
            partial.joined()

    def collect(self, total: Partial) -> None:
        if total.rows:
            total.joined()

    def discard(self) -> None:
        pass


class Held:
    """Rows of all groups are put in their places of one set of arrays, in this process."""

    def __init__(self, height: int) -> None:
        self._height = height
        self._arrays: tuple[NDArray[Any], ...] = ()

    def keep(self, group: Group, partial: Partial) -> None:
        if partial.rows and not self._arrays:
            first = partial.rows[0]
            self._arrays = tuple(np.empty((self._height, *part.shape[1:]), part.dtype) for part in first)
        low = group[0]
        for parts in partial.rows:
            for array, part in zip(self._arrays, parts, strict=True):
                array[low : low + len(part)] = part
            low += len(parts[0])
        partial.rows = []

    def collect(self, total: Partial) -> None:
        total.rows = [self._arrays] if self._arrays else []
        self._arrays = ()

    def discard(self) -> None:
        self._arrays = ()


@dataclass(frozen=True)
class Files:
    """Rows of each group are files of a scratch folder, from where those who need them read them.

    All of them at once, or ``stripe`` rows at a time.
    """

    scratch: Scratch
    name: str
    stripe: int | None = None

    def keep(self, group: Group, partial: Partial) -> None:
        if partial.rows:
            partial.rows = [Filed.write(self.scratch, self.name, group[0], partial.joined(), self.stripe)]  # type: ignore[list-item]

    def collect(self, total: Partial) -> None:
        total.rows = [tuple(map(Filed.joined, map(list, zip(*total.rows, strict=True))))]  # type: ignore[arg-type]

    def discard(self) -> None:
        self.scratch.remove(f"{self.name}-")
