"""What the entries are, before any model: their numbers by role, row and column, their range, sums and moments.

All of it is gathered in one pass by blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.observations.ahead import ahead
from rfmdist.observations.blocks import ALL_ROLES, Role, parse_roles
from rfmdist.observations.kept import pieces
from rfmdist.observations.passes import Group, Here, Part, Runner, groups_of
from rfmdist.observations.store import Observations

BOUNDED_SHARE = 1e-3
"""Share of the entries at each end that makes a scale bounded: ratings have percents, continuous values one entry."""
ORIGIN_ENTRIES = 1 << 16
"""Entries whose median sums are taken from. At least half of them lie as far from the mean as it does: even of 1e9
entries the moments keep 11 digits."""


@dataclass(frozen=True)
class Summary:
    """Range and moments of the observed values, float64.

    Attributes
    ----------
    count : int
        Number of entries.
    least, greatest : float
        Smallest and largest value; NaN without entries.
    at_least, at_greatest : int
        Number of entries that equal them.
    mean, deviation : float
        Mean and standard deviation.
    """

    count: int
    least: float
    greatest: float
    at_least: int
    at_greatest: int
    mean: float
    deviation: float

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The values' scale, when both its ends are met again and again as those of ratings are; else None."""
        needed = max(2.0, BOUNDED_SHARE * self.count)
        return (self.least, self.greatest) if min(self.at_least, self.at_greatest) >= needed else None


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of the entries of some roles.

    Attributes
    ----------
    by_row, by_column : ndarrays of shape (m,) and (n,), the first of integers
        Number of entries of each row, and of each column.
    sums : float64 ndarray of shape (n,)
        Sum of each column's values less ``origin``.
    origin : float
        A value among them, roughly in the middle.
    summary : Summary
        Range and moments.
    """

    by_row: NDArray[np.integer]
    by_column: NDArray[np.float64]
    sums: NDArray[np.float64]
    origin: float
    summary: Summary

    def column_sums(self, mean: float) -> NDArray[np.float64]:
        """Sum of each column's values less ``mean``."""
        return self.sums - self.by_column * (mean - self.origin)


class Ends:
    """The least and the greatest value of each slot and how often they occur, ndarray of shape (slots, 4)."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values = values

    def __add__(self, other: Ends) -> Ends:
        a, b = self.values, other.values
        found = np.empty_like(a)
        for k, end in ((0, np.minimum), (2, np.maximum)):
            found[:, k] = end(a[:, k], b[:, k])
            found[:, k + 1] = sum(np.where(x[:, k] == found[:, k], x[:, k + 1], 0) for x in (a, b))
        return Ends(found)


@dataclass(frozen=True, eq=False)
class Overview:
    """What one pass gathers, a slot of it for each of some sets of roles.

    Attributes
    ----------
    counts : dict
        Number of entries of each role, by name.
    """

    counts: dict[str, int]
    _slots: tuple[frozenset[Role], ...]
    _origin: float
    _sums: dict[str, Any]
    _by_row: NDArray[np.integer]

    def of(self, roles: frozenset[Role]) -> Facts:
        """Return what is known of the entries of ``roles``, which some slots make up."""
        slots = [k for k, held in enumerate(self._slots) if held <= roles]
        assert frozenset().union(*(self._slots[k] for k in slots)) == roles, "these roles were not gathered"
        columns, moments = (self._sums[name][slots].sum(axis=0) for name in ("columns", "moments"))
        by_row = self._by_row[slots[0]] if len(slots) == 1 else self._by_row[slots].sum(axis=0)
        ends = Ends(self._sums["ends"].values[slots[:1]])
        for k in slots[1:]:
            ends += Ends(self._sums["ends"].values[[k]])
        return Facts(
            by_row,
            columns[:, 1].copy(),
            columns[:, 0].copy(),
            self._origin,
            _summary(self._origin, moments, ends.values[0]),
        )


def overview(
    observations: Observations, slots: Iterable[frozenset[Role]] = (ALL_ROLES,), run: Runner | None = None
) -> Overview:
    """Gather what is known of the entries without any offsets, in one pass.

    Parameters
    ----------
    observations : Observations
        What was observed.
    slots : iterable of frozenset of Role
        Sets of roles, disjoint, each of which can be asked for, and their unions.
    run : Runner, optional
        Where the pass runs; here when left out.
    """
    run, slots = run or Here(), tuple(slots)
    first = observations.entries("data", 0, min(ORIGIN_ENTRIES, int(observations.indptr[-1])))
    origin = float(np.partition(first, len(first) // 2)[len(first) // 2]) if len(first) else 0.0
    slot_of = np.full(len(Role), -1)
    for k, roles in enumerate(slots):
        slot_of[list(roles)] = k
    part = run.reduce(_gathered, groups_of(observations), run.publish(observations), slot_of, len(slots), origin)
    counts = {role.name.lower(): int(part.sums["roles"][role]) for role in Role}
    by_row = next(part.joined(), np.zeros((len(slots), 0), np.int32))
    part.rows.clear()
    return Overview(counts, slots, origin, part.sums, by_row)


def summarize(observations: Observations, roles: str | Role | Iterable[str | Role] = ALL_ROLES) -> Summary:
    """Summarise the values of the entries of ``roles``."""
    wanted = parse_roles(roles)
    return overview(observations, [wanted]).of(wanted).summary


def _gathered(
    group: Group, observations: Observations, slot_of: NDArray[np.integer], slots: int, origin: float, _: Any
) -> Part:
    """Gather the group's part of an overview."""
    from rfmdist.observations import loops

    n = observations.shape[1]
    by_role, moments = np.zeros(len(Role), np.int64), np.zeros((slots, 3))
    columns = np.zeros((slots, n, 2))
    ends = np.tile([np.inf, 0.0, -np.inf, 0.0], (slots, 1))
    rows: list[tuple[NDArray[Any], ...]] = []

    def read(range_: Group) -> Any:
        block = observations.row_block(*range_)
        return block, observations.roles(block)

    for block, roles in ahead(read, pieces(observations, group)):
        by_row = np.zeros((slots, block.stop - block.start), np.int32)
        arrays = block.indptr, block.indices, block.values, roles
        loops.gather(*arrays, slot_of, origin, by_role, columns, moments, ends, by_row)
        rows.append((by_row,))
    return Part({"roles": by_role, "columns": columns, "moments": moments, "ends": Ends(ends)}, rows)


def _summary(origin: float, moments: NDArray[np.float64], ends: NDArray[np.float64]) -> Summary:
    """Summarise from sums of values less the origin."""
    count, total, squares = moments.tolist()
    if not count:
        return Summary(0, np.nan, np.nan, 0, 0, np.nan, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):  # what float64 cannot hold is told as not finite
        deviation = float(np.sqrt(np.maximum(squares - np.float64(total) ** 2 / count, 0.0) / count))
    least, at_least, greatest, at_greatest = ends.tolist()
    return Summary(int(count), least, greatest, int(at_least), int(at_greatest), origin + total / count, deviation)
