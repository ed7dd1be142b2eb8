"""A rating table as DuckDB reads it. Knows expressions and places; not where tables come from.

A `Table` says how DuckDB reads one table and how to name a place in it to its user. The parsing is
DuckDB's; only the first lines of a text file, and a line that is wrong, are read in Python.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from rfmdist.observations.columns import is_number
from rfmdist.observations.lines import Lines

FRAME = "frame"
"""Name under which DuckDB sees a table that is in memory."""


@dataclass(frozen=True)
class Field:
    """One part of a table as DuckDB sees it: an SQL expression, and whether its type is an integer type."""

    sql: str
    integer: bool = False


@dataclass(frozen=True)
class Extent:
    """The shape of a matrix whose ids are its own positions.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns.
    first : int
        Id of the first row and column: 0 or 1.
    entries : int
        Entries the source says it has.
    """

    shape: tuple[int, int]
    first: int
    entries: int

    def bounds(self, part: str) -> tuple[int, int]:
        """First and last id of ``part`` (row or column)."""
        return self.first, self.first + self.shape[part == "column"] - 1

    def ids(self, part: str) -> pd.Index[int]:
        """All ids of ``part``, with entries or without."""
        low, high = self.bounds(part)
        return pd.Index(pd.RangeIndex(low, high + 1).to_numpy())


@dataclass(frozen=True, eq=False)
class Table:
    """A rating table that DuckDB can read.

    Attributes
    ----------
    name : str
        For messages.
    fields : dict of str to Field
        ``row``, ``column`` and, unless only pairs are wanted, ``value``.
    source : str or Lines
        SQL of what stands behind FROM, or how the lines of a file look.
    held : pyarrow.Table or pyarrow.dataset.Dataset, optional
        What DuckDB reads from Python, in memory or by batches; ``source`` is then the name it is registered under.
    start : int
        Entries that came before, where this is a piece of something larger.
    where : str, optional
        SQL of what is to be true of an entry for it to be read.
    extent : Extent, optional
        Where ids are positions in a matrix of known shape.
    """

    name: str
    fields: dict[str, Field]
    source: str | Lines
    held: pa.Table | ds.Dataset | None = None
    start: int = 0
    where: str | None = None
    extent: Extent | None = None

    @property
    def text(self) -> Lines | None:
        """How the lines of a file look, where there are lines."""
        return self.source if isinstance(self.source, Lines) else None

    @property
    def relation(self) -> str:
        """SQL of what stands behind FROM."""
        read = self.source.relation if isinstance(self.source, Lines) else self.source
        return read if self.where is None else f"(select * from {read} where {self.where})"

    def place(self, entry: int) -> str:
        """Name the entry at 0-based position ``entry``, by its line where there are lines."""
        if self.text is None or self.where is not None:
            return f"{self.name}, row {self.start + entry + 1}"
        return f"{self.name}, line {self.text.line_of(entry)[0]}"

    def complaint(self, entry: int, found: dict[str, str | None]) -> str:
        """Say what is wrong with the entry at ``entry``, whose parts read as ``found``."""
        if self.text is not None and (fields := self.text.fields(entry)) != self.text.width:
            return f"{self.place(entry)}: {fields} fields where {self.text.width} are expected"
        return f"{self.place(entry)}: {self._wrong(found)}"

    def _wrong(self, found: dict[str, str | None]) -> str:
        for part, text in found.items():
            if text is None or not text.strip():
                return f"the {part} is missing"
            if part == "value":
                kind = "not a finite number" if is_number(text) else "not a number"
                comma = is_number(text.replace(",", "")) and not is_number(text)
                mend = "write decimals with a point, thousands without a comma" if comma else "correct or remove it"
                return f"the value {text.strip()!r} is {kind}; {mend}"
            if self.extent is not None:
                low, high = self.extent.bounds(part)
                if not (text.strip().isdecimal() and low <= int(text) <= high):
                    return f"the {part} {text.strip()!r} is not a whole number from {low} to {high}"
        return "the entry cannot be read"
