"""The fixed tree in which what groups give is added: it depends on their number alone, not on who adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

LEAF = 8
"""Groups at most that are added one after another; of more, two halves are: 64 groups hold five sums at once."""

TASK = 32
"""Groups at most that one task adds: each costs a few milliseconds, and is lost as a whole with its worker."""
SUMMED_HERE = 1 << 23
"""Bytes at most of sums which the client itself adds: those of 14 tasks at rank 256, or two of 27,000 columns at 32."""

Tree = int | Sequence["Tree"]
"""The tree as tasks compute it: a number of groups that one of them adds, or what is added of several."""


def half(number: int) -> int:
    """Return how many of so many groups the first half has."""
    return -(-number // 2)


def sums_held(groups: int) -> int:
    """Sums that are held at once in process: one a level of the tree, that of a leaf, and that of the group at work."""
    held = min(groups, 2)
    while groups > LEAF:
        groups, held = half(groups), held + 1
    return held


def cut(slots: Sequence[int], tail: int) -> Tree:
    """Cut the tree into tasks: `TASK` groups at most, of one slot; of each slot the last ``tail`` are single ones.

    Parameters
    ----------
    slots : sequence of int
        Where each group is best run: neighbours together.
    """
    number, mine = len(slots), slots.count(slots[0])
    if mine == number:
        found = [_halved(size) for size in _parts(number, tail)]
        return found if len(found) > 1 else found[0]
    if number <= LEAF:
        return [mine] + [1] * (number - mine)
    middle = half(number)
    return [cut(slots[:middle], tail), cut(slots[middle:], tail)]


def _parts(number: int, tail: int) -> list[int]:
    """Cut so many groups into parts of the tree: the last ``tail`` are single ones, the others as few as can be."""
    if tail <= 0:
        return [number]
    if tail >= number:
        return [1] * number
    if number <= LEAF:
        return [number - tail] + [1] * tail
    after = number - half(number)
    return _parts(half(number), tail - after) + _parts(after, tail)


def _halved(number: int) -> Tree:
    """Cut a part of the tree into tasks."""
    return number if number <= TASK else [_halved(half(number)), _halved(number - half(number))]


def opened(tree: Tree, nbytes: int | None) -> Sequence[Tree]:
    """Return the parts of the tree that the client adds, each of so many bytes; one of unknown size is left whole."""
    parts: Sequence[Tree] = [tree]
    most = SUMMED_HERE // nbytes if nbytes else 1
    while True:
        finer = [each for part in parts for each in ([part] if isinstance(part, int) else part)]
        if len(finer) > most or len(finer) == len(parts):
            return parts
        parts = finer


def leaves(tree: Tree) -> list[int]:
    """Return how many groups each task of the tree has that adds groups."""
    return [tree] if isinstance(tree, int) else [size for part in tree for size in leaves(part)]


def summed(
    sizes: Sequence[int], values: Iterator[Any], ours: bool, gone: Callable[[Any], None] = lambda value: None
) -> Any:
    """Add what so many groups gave, in the tree of all of them.

    Parameters
    ----------
    sizes : sequence of int
        Of how many groups each of the values is the sum: the tree has that sum, or it is of the first of a leaf.
    values : iterator
        They are asked for one by one, when they are added.
    ours : bool
        Whether they may be changed.
    gone : callable
        Told of each value, and each sum, that was added and is not used any more; of nobody else's.
    """
    return _Sum(list(sizes)[::-1], values, ours, gone).over(sum(sizes))[0]


class _Sum:
    """A sum while it is made. No closure that calls itself: what it holds would stay until garbage is collected."""

    def __init__(self, left: list[int], values: Iterator[Any], ours: bool, gone: Callable[[Any], None]) -> None:
        self._left, self._values, self._ours, self._gone = left, values, ours, gone

    def over(self, number: int) -> tuple[Any, bool]:
        """Return the sum over the next groups, and whether it may be changed."""
        if number > LEAF and self._left[-1] < number:
            (total, changeable), (other, _) = self.over(half(number)), self.over(number - half(number))
            return self._plus(total, other, changeable), True
        total, changeable, done = next(self._values), self._ours, self._left.pop()
        while done < number:
            total, changeable = self._plus(total, next(self._values), changeable), True
            done += self._left.pop()
        return total, changeable

    def _plus(self, total: Any, other: Any, changeable: bool) -> Any:
        """Add in place where that may be: a new array costs the system more than adding costs us."""
        if not changeable:
            return total + other
        total += other
        if self._ours:
            self._gone(other)
        return total
