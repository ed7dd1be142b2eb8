"""The plain data that crosses layers: row blocks, offsets, and the roles of entries. Knows no file format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import InputError


class Role(IntEnum):
    """What an observed entry is for. Test entries are scored and never used for anything else."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


ALL_ROLES = frozenset(Role)
FITTED_ROLES = frozenset({Role.TRAIN, Role.VALIDATION})


def parse_roles(roles: str | Role | Iterable[str | Role]) -> frozenset[Role]:
    """Turn ``"train"``, ``Role.TRAIN`` or several of either into a set of roles."""
    given = [roles] if isinstance(roles, str | Role) else list(roles)
    try:
        return frozenset(r if isinstance(r, Role) else Role[r.upper()] for r in given)
    except KeyError as unknown:
        raise InputError(
            f"split {str(unknown).strip(chr(39)).lower()!r} is not known: use train, validation or test"
        ) from None


def role_table(wanted: Iterable[Role]) -> NDArray[np.bool_]:
    """Tell of each role, by its number, whether it is wanted."""
    table = np.zeros(len(Role), np.bool_)
    table[list(wanted)] = True
    return table


def parse_dtype(dtype: Any) -> np.dtype[Any]:
    """Turn a name or type into float32 or float64; others are refused."""
    try:
        found = np.dtype(dtype).name if dtype is not None else ""  # NumPy takes None for float64
    except TypeError:
        found = ""
    if found not in ("float32", "float64"):
        raise InputError(f"dtype={dtype!r} must be 'float32' or 'float64'")
    return np.dtype(found)


@dataclass(frozen=True, eq=False)
class RowBlock:
    """Rows ``start`` to ``stop`` of the observations, compressed by rows.

    Attributes
    ----------
    start, stop : int
        Range of row codes, ``stop`` excluded.
    indptr : int64 ndarray of shape (stop - start + 1,)
        Where each row's entries begin, rebased to 0.
    indices : int32 or int64 ndarray of shape (entries,)
        Column codes, ascending within a row.
    values : float32 or float64 ndarray of shape (entries,)
        Observed values.
    """

    start: int
    stop: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.integer]
    values: NDArray[np.floating]
    _pieces: dict[int, list[tuple[int, int]]] = field(default_factory=dict, init=False, repr=False)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row code of each entry, int64 ndarray of shape (entries,)."""
        return np.repeat(np.arange(self.start, self.stop), np.diff(self.indptr))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.indptr.nbytes + self.indices.nbytes + self.values.nbytes

    def pieces(self, entries: int) -> list[tuple[int, int]]:
        """Cut the rows, counted from the block's start, into pieces of about ``entries`` entries.

        The last of them are a quarter of that, and then a sixteenth: threads that share the pieces then end at about
        the same time. A block that is kept is cut once: between the work on others it takes a tenth of a millisecond.
        """
        if entries not in self._pieces:
            self._pieces[entries] = self._cut(entries)
        return self._pieces[entries]

    def _cut(self, entries: int) -> list[tuple[int, int]]:
        last, whole = self.stop - self.start, int(self.indptr[-1])
        few, least = max(entries // 4, 1), max(entries // 16, 1)
        if last and whole < few:  # as below, in a tenth of the time
            return [(0, last)]
        large = max(whole - 2 * entries, 0) // entries * entries
        small = large + max(whole - large - 2 * few, 0) // few * few
        steps = (0, large, entries), (large, small, few), (small, whole + least, least)
        wanted = np.concatenate([np.arange(*step) for step in steps])
        cuts = np.minimum(np.searchsorted(self.indptr, wanted), last)
        cuts = np.unique(np.concatenate([[0], cuts, [last]]))
        return list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))

    def longer_than(self, entries: int) -> list[int]:
        """Rows, counted from the block's start, with more than ``entries`` entries."""
        return np.flatnonzero(np.diff(self.indptr) > entries).tolist() if self._longest > entries else []

    @cached_property
    def _longest(self) -> int:
        """Entries of the longest row."""
        return int(np.diff(self.indptr).max(initial=0))

    def where(self, keep: NDArray[np.bool_]) -> RowBlock:
        """Return the block with the entries where ``keep`` is true; no row is dropped."""
        kept = np.flatnonzero(keep)
        indptr = np.searchsorted(kept, self.indptr)
        return RowBlock(self.start, self.stop, indptr, self.indices.take(kept), self.values.take(kept))

    def of(self, roles: NDArray[np.uint8], wanted: Iterable[Role]) -> RowBlock:
        """Return the block with the entries whose role, given in ``roles``, is wanted."""
        from rfmdist.observations import loops  # numba, which ingestion can do without

        table = role_table(wanted)
        found = loops.count(roles, table)
        if found == len(roles):
            return self
        pointers = np.empty_like(self.indptr)
        indices, values = np.empty(found + 1, self.indices.dtype), np.empty(found + 1, self.values.dtype)
        loops.select(self.indptr, self.indices, self.values, roles, table, pointers, indices, values)
        return RowBlock(self.start, self.stop, pointers, indices[:found], values[:found])


@dataclass(frozen=True, eq=False)
class Offsets:
    """The part of the values explained without any feature: ``mean + rows[i] + columns[j]``.

    Attributes
    ----------
    mean : float
        Global offset.
    rows : float64 ndarray of shape (m,)
        Offset of each row.
    columns : float64 ndarray of shape (n,)
        Offset of each column.
    row_shrinkage : float or None
        Shrinkage with which the offset of a row is fitted, for rows to come; None if rows have no offset.
    """

    mean: float
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    row_shrinkage: float | None = None

    def at(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:
        """Offsets of the entries at the codes ``rows`` and ``columns``, which broadcast."""
        return self.mean + self.rows[rows] + self.columns[columns]

    def of(self, block: RowBlock) -> NDArray[np.float64]:
        """Offsets of a block's entries: the same numbers as `at` gives, with less copying."""
        found = self.columns.take(block.indices)
        found += np.repeat(self.mean + self.rows[block.start : block.stop], np.diff(block.indptr))
        return found

    def transposed(self) -> Offsets:
        """Return the offsets of the transposed matrix; for rows to come it has none to fit."""
        return Offsets(self.mean, self.columns, self.rows)
