"""Rating tables of any kind as DuckDB reads them. Knows files and frames; not codes, not stores.

A `Table` says how DuckDB reads one table and how to name a place in it to its user. The parsing is
DuckDB's; only the first lines of a text file, and a line that is wrong, are read in Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rfmdist.errors import InputError
from rfmdist.observations.columns import Given, is_number, resolve_columns
from rfmdist.observations.delimited import TextLayout, look_at, quoted_path

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
    relation : str
        SQL of what stands behind FROM.
    fields : dict of str to Field
        ``row``, ``column`` and, unless only pairs are wanted, ``value``.
    frame : pyarrow.Table, optional
        The data, when it is in memory; ``relation`` is then the name it is registered under.
    text : TextLayout, optional
        How the lines of a text file look.
    extent : Extent, optional
        Where ids are positions in a matrix of known shape.
    """

    name: str
    relation: str
    fields: dict[str, Field]
    frame: pa.Table | None = None
    text: TextLayout | None = None
    extent: Extent | None = None

    def place(self, entry: int) -> str:
        """Name the entry at 0-based position ``entry``, by its line where there are lines."""
        if self.text is None:
            return f"{self.name}, row {entry + 1}"
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
                comma = is_number(text.replace(",", ".", 1)) and not is_number(text)
                mend = "write decimals with a point" if comma else "correct or remove it"
                return f"the value {text.strip()!r} is {kind}; {mend}"
            if self.extent is not None:
                low, high = self.extent.bounds(part)
                if not (text.strip().isdecimal() and low <= int(text) <= high):
                    return f"the {part} {text.strip()!r} is not a whole number from {low} to {high}"
        return "the entry cannot be read"


def read_sources(
    source: Any,
    row: str | int | None = None,
    column: str | int | None = None,
    value: str | int | None = None,
    delimiter: str | None = None,
    *,
    pairs: bool = False,
) -> Iterator[Table]:
    """Describe a path, a folder of Parquet files or a pandas frame as tables; no entry is read yet.

    Parameters
    ----------
    source : str, Path or pandas.DataFrame
        The table.
    row, column, value : str or int, optional
        Names, or 1-based positions where there is no header. Left out: known names (user, item, rating and
        the like), else the first three columns.
    delimiter : str, optional
        Of a text file; found from the first lines when left out.
    pairs : bool, default False
        Whether only rows and columns are wanted.

    Raises
    ------
    InputError
        If the source is missing, empty or its columns cannot be told.
    """
    given: Given = {"row": row, "column": column} if pairs else {"row": row, "column": column, "value": value}
    if isinstance(source, pd.DataFrame):
        yield _frame_table(source, given)
        return
    yield from read_files(source, given, delimiter)


def parquet_files(source: Any) -> list[Path]:
    """Parquet files of a path or a folder, in the order they are read; none of any other source."""
    if not isinstance(source, str | Path):
        return []
    path = Path(source)
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    return [path] if path.suffix in (".parquet", ".pq") and path.exists() else []


def read_files(source: Any, given: Given, delimiter: str | None = None) -> Iterator[Table]:
    """Describe a path or a folder of Parquet files as tables with the parts that are ``given``; reads no entry yet.

    Raises
    ------
    InputError
        As `read_sources`.
    """
    if not isinstance(source, str | Path):
        raise InputError(f"a table must be a path or a data frame, not {type(source).__name__}")
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    files = parquet_files(path)
    if files:
        yield from (_parquet_table(file, given) for file in files)
    elif path.is_dir():
        raise InputError(f"{path}: is a folder without .parquet files; name a file")
    else:
        text = look_at(path, given, delimiter)
        fields = {part: Field(f"c{k}") for part, k in text.positions.items()}
        yield Table(str(path), text.relation, fields, text=text)


def _parquet_table(path: Path, given: Given) -> Table:
    """Describe a Parquet file from its schema."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from None
    positions = resolve_columns(str(path), schema.names, len(schema.names), given)
    folded = [name.lower() for name in schema.names]  # DuckDB takes them for one
    twins = [name for name in schema.names if folded.count(name.lower()) > 1]
    if twins:
        raise InputError(f"{path}: the columns {' and '.join(map(repr, twins))} differ in case alone; rename one")
    fields = {}
    for part, index in positions.items():
        kind = schema.types[index]
        _refuse_float_ids(str(path), part, pa.types.is_floating(kind), str(kind))
        fields[part] = Field(_identifier(schema.names[index]), pa.types.is_integer(kind))
    return Table(str(path), f"read_parquet({quoted_path(path)}, hive_partitioning=false)", fields)


def _frame_table(frame: pd.DataFrame, given: Given) -> Table:
    """Describe a pandas frame; its index is not looked at."""
    name = "data frame"
    names = [str(label) for label in frame.columns]
    positions = resolve_columns(name, names, len(names), given)
    columns, fields = {}, {}
    for part, index in positions.items():
        series = frame.iloc[:, index]
        if isinstance(series.dtype, pd.SparseDtype):
            series = pd.Series(series.to_numpy())
        integer = pd.api.types.is_integer_dtype(series.dtype)
        _refuse_float_ids(name, part, pd.api.types.is_float_dtype(series.dtype), str(series.dtype))
        if pd.api.types.is_complex_dtype(series.dtype):
            raise InputError(f"{name}: the {part}s are complex; use real numbers")
        if not pd.api.types.is_numeric_dtype(series.dtype):
            series = series.astype(object).map(str, na_action="ignore")
        elif series.dtype in (np.float16, np.longdouble):  # neither Arrow nor DuckDB knows them
            series = series.astype(np.float64)
        columns[part] = pa.Array.from_pandas(series)
        fields[part] = Field(_identifier(part), integer)
    return Table(name, FRAME, fields, frame=pa.table(columns))


def _refuse_float_ids(name: str, part: str, floating: bool, kind: str) -> None:
    if floating and part != "value":
        raise InputError(f"{name}: the {part} ids are of type {kind}; make them integers or text")


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
