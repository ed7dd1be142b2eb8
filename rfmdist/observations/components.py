"""Connected components of what was observed: without a chain of entries between them, rows and columns say nothing
of each other.

Knows which entries there are and where; not what their values mean. One pass over blocks of rows, holding a number a
row and a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rfmdist.observations.blocks import Role, RowBlock
from rfmdist.observations.kept import Entries
from rfmdist.observations.passes import Group, Runner, groups_of
from rfmdist.observations.store import Observations
from rfmdist.observations.writer import StoreWriter

Codes = NDArray[np.int64]
NONE = -1
"""Component of a row or column without entries."""


@dataclass(frozen=True, eq=False)
class Components:
    """The connected components of the bipartite graph of rows and columns, numbered from 0, most entries first.

    Attributes
    ----------
    rows, columns : int64 ndarray of shape (m,), (n,)
        Component of each; `NONE` of one without entries.
    entries : int64 ndarray of shape (k,)
        Number of entries of each component.
    """

    rows: Codes
    columns: Codes
    entries: Codes

    @property
    def number(self) -> int:
        """How many components there are."""
        return len(self.entries)

    def sum_rows(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Sum ``values`` (m,) over the rows of each component, (k,)."""
        return np.bincount(self.rows + 1, values, self.number + 1)[1:].astype(np.float64, copy=False)

    def members(self, component: int) -> tuple[Codes, Codes]:
        """Codes of a component's rows and of its columns, ascending."""
        rows, columns = (
            order[starts[component + 1] : starts[component + 2]] for order, starts in (self._by_row, self._by_column)
        )
        return rows, columns

    def shape(self, component: int) -> tuple[int, int]:
        """How many rows and columns a component has."""
        rows, columns = self.members(component)
        return len(rows), len(columns)

    @cached_property
    def _by_row(self) -> tuple[Codes, Codes]:
        return _sorted(self.rows, self.number)

    @cached_property
    def _by_column(self) -> tuple[Codes, Codes]:
        return _sorted(self.columns, self.number)

    @cached_property
    def _places(self) -> tuple[Codes, Codes]:
        """Place of each row, and of each column, within its component."""
        places = []
        for of, (order, starts) in ((self.rows, self._by_row), (self.columns, self._by_column)):
            place = np.empty(len(of), np.int64)
            place[order] = np.arange(len(of)) - starts[of[order] + 1]
            places.append(place)
        return places[0], places[1]

    def extract(
        self, observations: Observations, wanted: Sequence[int], roles: frozenset[Role], folder: str | None = None
    ) -> list[Observations]:
        """Return the entries of some components, each as observations of its own; one pass over all entries.

        Parameters
        ----------
        observations : Observations
            Those that the components are of.
        wanted : sequence of int
            Which components.
        roles : frozenset of Role
            Roles of the entries that go along, those of an entry's row and column being of one component.
        folder : str, optional
            A folder to write them to; in memory when left out. The entries' roles are in memory meanwhile.
        """
        local = np.full(self.number + 1, NONE)  # the last is that of `NONE`
        local[list(wanted)] = np.arange(len(wanted))
        found, places = list[Observations](), [f"{folder}/component-{c}" if folder else None for c in wanted]
        with ExitStack() as open_ones:
            shapes = [self.shape(component) for component in wanted]
            writers = [
                open_ones.enter_context(StoreWriter(place, shape, observations.dtype))
                for place, shape in zip(places, shapes, strict=True)
            ]
            seen: list[list[NDArray[np.uint8]]] = [[] for _ in wanted]
            for block in observations.row_blocks():
                self._deal(block, observations.roles(block), roles, local, writers, seen)
            for component, writer, parts in zip(wanted, writers, seen, strict=True):
                rows, columns = self.members(component)
                root = writer.finish(observations.row_ids.take(rows), observations.column_ids.take(columns))
                part = Observations(root)
                if any(each.any() for each in parts):
                    part.store_split(parts)
                found.append(part)
        return found

    def _deal(
        self,
        block: RowBlock,
        roles: NDArray[np.uint8],
        kept: frozenset[Role],
        local: Codes,
        writers: list[StoreWriter],
        seen: list[list[NDArray[np.uint8]]],
    ) -> None:
        """Give a block's entries to the writers of their components, and their roles to ``seen``."""
        rows = block.rows
        mine = local[self.rows[rows]]
        inside = (mine >= 0) & (self.columns[block.indices] == self.rows[rows]) & np.isin(roles, list(kept))
        chosen = np.flatnonzero(inside)
        chosen = chosen[np.argsort(mine[chosen], kind="stable")]
        owners, starts = np.unique(mine[chosen], return_index=True)
        row_places, column_places = self._places
        for owner, part in zip(owners.tolist(), np.split(chosen, starts[1:]), strict=True):
            writers[owner].append(row_places[rows[part]], column_places[block.indices[part]], block.values[part])
            seen[owner].append(roles[part])


def connected(entries: Entries, run: Runner) -> Components:
    """Find the connected components of the entries, where ``run`` runs."""
    links: _Links = run.reduce(_linked, groups_of(entries.observations), run.publish(entries))
    firsts, counts = (np.concatenate(part) for part in zip(*links.rows, strict=True))
    m, n = entries.observations.shape
    roots = np.full(m, NONE)
    roots[counts > 0] = links.columns[firsts[counts > 0]]
    sizes = np.bincount(roots + 1, counts, n + 1)[1:]
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    numbers = np.full(n + 1, NONE)
    numbers[order] = np.arange(len(order))
    return Components(numbers[roots], numbers[links.columns], sizes[order].astype(np.int64))


@dataclass
class _Links:
    """What entries link: of each column the least that it is linked to, and a column and the entries of each row."""

    columns: Codes
    rows: list[tuple[Codes, Codes]]

    def __add__(self, other: _Links) -> _Links:
        found = _Links(self.columns.copy(), list(self.rows))
        found += other
        return found

    def __iadd__(self, other: _Links) -> Self:
        from rfmdist.observations import loops

        loops.link(self.columns, np.arange(len(self.columns)), other.columns)
        self.rows += other.rows
        return self


def _linked(group: Group, entries: Entries, _: Any) -> _Links:
    from rfmdist.observations import loops

    found = _Links(np.arange(entries.observations.shape[1]), [])
    for block in entries.blocks(group):
        counts, some = np.diff(block.indptr), np.flatnonzero(np.diff(block.indptr))
        firsts = np.full(len(counts), NONE)
        firsts[some] = block.indices[block.indptr[some]]
        loops.link(found.columns, np.repeat(firsts[some], counts[some]), block.indices)
        found.rows.append((firsts, counts))
    return found


def _sorted(components: Codes, number: int) -> tuple[Codes, Codes]:
    """Codes by component, those of `NONE` first, and where each component's begin."""
    return np.argsort(components, kind="stable"), np.searchsorted(np.sort(components), np.arange(NONE, number + 1))
