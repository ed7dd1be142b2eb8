"""Passes over all entries: pure functions of groups of rows, whose results are summed. Knows no model, no cluster.

A group's result depends on its arguments alone, and the groups on the numbers of rows and entries: run anywhere and
summed in a fixed order, a pass gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rfmdist.observations.store import Observations

Group = tuple[int, int]
GROUPS, GROUP_ENTRIES = 64, 1 << 22
"""Groups at most, and entries of one at least: some 100 ms of a core, two blocks."""


@dataclass
class Part:
    """What a group adds to a pass: sums by name, and for each block of its rows what follows that of the one before."""

    sums: dict[str, Any]
    rows: list[tuple[NDArray[Any], ...]] = field(default_factory=list)

    def __add__(self, other: Part) -> Part:
        return Part({name: value + other.sums[name] for name, value in self.sums.items()}, self.rows + other.rows)

    def __iadd__(self, other: Part) -> Self:
        for name in self.sums:
            self.sums[name] += other.sums[name]
        self.rows += other.rows
        return self

    def joined(self) -> Iterator[NDArray[Any]]:
        """What belongs to the rows, one kind after another, joined along its last axis; its pieces are let go."""
        kinds = list(zip(*self.rows, strict=True))
        self.rows.clear()
        while kinds:
            yield np.concatenate(kinds.pop(0), axis=-1)


class Runner(Protocol):
    """Where passes run: here, or what the engine offers."""

    def publish(self, value: Any, *, lasting: bool = False) -> Any:
        """Make ``value`` known where work runs; what is returned may be passed as a shared argument.

        A ``lasting`` one stays there until it is gone here: it holds what was read for it.
        """
        ...

    def reduce(self, function: Callable[..., Any], groups: Sequence[Group], *shared: Any) -> Any:
        """Sum ``function(group, *shared, threads)`` over all groups, in a fixed order."""
        ...


class Here:
    """Runs in this thread, one group after another; the next block is read meanwhile."""

    def publish(self, value: Any, *, lasting: bool = False) -> Any:
        return value

    def reduce(self, function: Callable[..., Any], groups: Sequence[Group], *shared: Any) -> Any:
        total = function(groups[0], *shared, None)
        for group in groups[1:]:
            total += function(group, *shared, None)
        return total


def groups_of(observations: Observations) -> tuple[Group, ...]:
    """Cut the rows into groups of about equal numbers of rows and entries; at least one, which may be empty."""
    return cut_rows(observations, min(GROUPS, 1 + observations.nnz // GROUP_ENTRIES)) or ((0, 0),)


def cut_rows(observations: Observations, number: int) -> tuple[Group, ...]:
    """Cut the rows into at most ``number`` groups of about equal numbers of rows and entries."""
    return cut(observations.indptr + np.arange(observations.shape[0] + 1), number)


def cut(sums: NDArray[Any], number: int) -> tuple[Group, ...]:
    """Cut rows into at most ``number`` ranges of about equal cost, none empty.

    ``sums`` (rows + 1,) are the costs of all rows before each, and of all.
    """
    rows = len(sums) - 1
    inner = np.searchsorted(sums, np.arange(1, number) * (float(sums[-1]) / number))
    return tuple(pairwise(np.unique(np.concatenate([[0], np.minimum(inner, rows), [rows]])).tolist()))
