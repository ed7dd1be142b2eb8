"""Which part of a table is which: delimiter, header, columns. Knows files and frames; not codes, not stores.

A `Table` says how DuckDB reads one rating table and how to name a place in it to its user. The sort and the
parsing are DuckDB's; only the first lines of a text file, and a line that is wrong, are read here.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rfmdist.errors import InputError

SAMPLE_LINES = 100
"""Lines looked at to find the delimiter and the header."""
DELIMITERS = ("::", "\t", ",", ";", "|", " ")
"""Tried in this order when none is given."""
PARTS = ("row", "column", "value")
KNOWN_NAMES = {
    "row": {"row", "rowid", "user", "userid", "customer", "customerid"},
    "column": {"column", "col", "columnid", "item", "itemid", "movie", "movieid", "product", "productid"},
    "value": {"value", "rating", "score", "stars"},
}


@dataclass(frozen=True)
class Field:
    """One part of a table as DuckDB sees it.

    Attributes
    ----------
    sql : str
        Expression that gives it.
    integer : bool
        Whether its type is an integer type; otherwise it is read as text.
    codes : tuple of int, optional
        First and last code allowed, where ids are positions in a matrix of known shape.
    """

    sql: str
    integer: bool = False
    codes: tuple[int, int] | None = None


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
    """

    name: str
    relation: str
    fields: dict[str, Field]
    frame: pa.Table | None = None
    text: TextLayout | None = None

    def place(self, entry: int) -> str:
        """Name the entry at 0-based position ``entry``, by its line where there are lines."""
        if self.text is None:
            return f"{self.name}, row {entry + 1}"
        return f"{self.name}, line {self.text.line_of(entry)[0]}"

    def complaint(self, entry: int) -> str:
        """Say what is wrong with the entry at 0-based position ``entry``."""
        if self.text is None:
            return f"{self.place(entry)}: an id is missing or the value is not a finite number"
        number, line = self.text.line_of(entry)
        return f"{self.name}, line {number}: {self._wrong(self.text.split(line))}"

    def _wrong(self, fields: list[str]) -> str:
        assert self.text is not None
        if len(fields) != self.text.width:
            return f"{len(fields)} fields where {self.text.width} are expected"
        for part, index in self.text.positions.items():
            field = fields[index].strip()
            if part == "value":
                return f"the value {field!r} is not a finite number"
            codes = self.fields[part].codes
            if not field:
                return f"the {part} id is empty"
            if codes and not (field.isdecimal() and codes[0] <= int(field) <= codes[1]):
                return f"the {part} code {field} is outside {codes[0]}..{codes[1]}"
        return "cannot be read"


@dataclass(frozen=True)
class TextLayout:
    """How the lines of a text file look: ``skip`` lines, then entries of ``width`` fields.

    ``positions`` says where the parts are; ``delimiter`` None stands for any run of blanks.
    """

    path: Path
    delimiter: str | None
    skip: int
    width: int
    positions: dict[str, int]

    def split(self, line: str) -> list[str]:
        """Cut a line into its fields."""
        return split_line(line, self.delimiter)

    def line_of(self, entry: int) -> tuple[int, str]:
        """Number (from 1) and text of the line of the entry at position ``entry``; blank lines hold none."""
        with open_text(self.path) as file:
            lines = ((n, line) for n, line in enumerate(file, 1) if n > self.skip and line.strip())
            return next(islice(lines, entry, None), (self.skip + entry + 1, ""))


def read_tables(
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
    given = {"row": row, "column": column, "value": value}
    if pairs:
        del given["value"]
    if isinstance(source, pd.DataFrame):
        yield frame_table(source, given)
        return
    if not isinstance(source, str | Path):
        raise InputError(f"a table must be a path or a data frame, not {type(source).__name__}")
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise InputError(f"{path}: is a folder without .parquet files; name a file")
        yield from (parquet_table(file, given) for file in files)
    elif path.suffix in (".parquet", ".pq"):
        yield parquet_table(path, given)
    else:
        yield text_table(path, given, delimiter)


def text_table(path: Path, given: dict[str, str | int | None], delimiter: str | None) -> Table:
    """Describe a text file from its first lines."""
    sample = _sample(path)
    if delimiter is None:
        delimiter = _find_delimiter(path, [line for _, line in sample], len(given))
    delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
    lines = [split_line(line, delimiter) for _, line in sample]
    names = [field.strip() for field in lines[0]] if _has_header(lines, given) else None
    positions = resolve_columns(str(path), names, len(lines[0]), given)
    skip = sample[0][0] - (names is None)
    columns = ", ".join(f"'c{k}': 'VARCHAR'" for k in range(len(lines[0])))
    quote = '"' if len(delimiter) == 1 else ""
    relation = (
        f"read_csv({_quoted(path)}, delim={_quoted(delimiter)}, quote='{quote}', escape='{quote}',"
        f" header=false, auto_detect=false, skip={skip}, compression='{_compression(path)}', columns={{{columns}}})"
    )
    layout = TextLayout(path, delimiter, skip, len(lines[0]), positions)
    return Table(str(path), relation, {p: Field(f"c{k}") for p, k in positions.items()}, text=layout)


def parquet_table(path: Path, given: dict[str, str | int | None]) -> Table:
    """Describe a Parquet file from its schema."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from None
    positions = resolve_columns(str(path), schema.names, len(schema.names), given)
    fields = {}
    for part, index in positions.items():
        kind = schema.types[index]
        _refuse_float_ids(str(path), part, pa.types.is_floating(kind), str(kind))
        fields[part] = Field(_identifier(schema.names[index]), pa.types.is_integer(kind))
    return Table(str(path), f"read_parquet({_quoted(path)})", fields)


def frame_table(frame: pd.DataFrame, given: dict[str, str | int | None], name: str = "data frame") -> Table:
    """Describe a pandas frame; its index is not looked at."""
    names = [str(label) for label in frame.columns]
    positions = resolve_columns(name, names, len(names), given)
    columns, fields = {}, {}
    for part, index in positions.items():
        series = frame.iloc[:, index]
        integer = pd.api.types.is_integer_dtype(series.dtype)
        _refuse_float_ids(name, part, pd.api.types.is_float_dtype(series.dtype), str(series.dtype))
        if not pd.api.types.is_numeric_dtype(series.dtype):
            series = series.astype(object).map(str, na_action="ignore")
        columns[part] = pa.Array.from_pandas(series)
        fields[part] = Field(_identifier(part), integer)
    return Table(name, "frame", fields, frame=pa.table(columns))


def resolve_columns(
    name: str, names: Sequence[str] | None, width: int, given: dict[str, str | int | None]
) -> dict[str, int]:
    """Positions of the parts: as given, else by known names, else the first columns."""
    found: dict[str, int] = {}
    for part, wanted in given.items():
        if wanted is not None:
            found[part] = _named(name, part, str(wanted), names, width)
        elif names is not None:
            plain = [re.sub(r"[^a-z0-9]", "", label.lower()) for label in names]
            known = [k for k, label in enumerate(plain) if label in KNOWN_NAMES[part]]
            if len(known) == 1:
                found[part] = known[0]
    if names is None or (not found and width <= len(PARTS)):
        found = {part: found.get(part, PARTS.index(part)) for part in given}
    if len(found) < len(given) or len(set(found.values())) < len(given) or max(found.values()) >= width:
        there = f"it has {', '.join(names)}" if names is not None else f"it has {width} columns and no header"
        missing = ", ".join(given)
        raise InputError(
            f"{name}: cannot tell which columns are {missing} ({there}); name them with {missing}"
        )
    return found


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a text file, compressed or not; bytes that are not UTF-8 are shown as ?."""
    opener = gzip.open if _compression(path) == "gzip" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", errors="replace") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def split_line(line: str, delimiter: str | None) -> list[str]:
    """Cut a line into its fields; quotes count where the delimiter is one character."""
    line = line.rstrip("\r\n")
    if delimiter is None or len(delimiter) > 1:
        return line.split(delimiter)
    return next(csv.reader([line], delimiter=delimiter), [])


def is_number(field: str) -> bool:
    """Whether a field is a number, NaN and infinity included."""
    try:
        return math.isnan(float(field)) or True
    except ValueError:
        return False


def _sample(path: Path) -> list[tuple[int, str]]:
    with open_text(path) as file:
        filled = ((number, line) for number, line in enumerate(file, 1) if line.strip())
        sample = list(islice(filled, SAMPLE_LINES))
    if not sample:
        raise InputError(f"{path}: the file is empty")
    return sample


def _find_delimiter(path: Path, lines: list[str], least: int) -> str:
    likely = [d for d in DELIMITERS if len(split_line(lines[0], d)) >= least]
    for delimiter in likely:
        if len({len(split_line(line, delimiter)) for line in lines}) == 1:
            return delimiter
    if not likely:
        raise InputError(
            f"{path}, line 1: fewer than {least} fields, or a delimiter not known; name the delimiter"
        )
    return likely[0]


def _has_header(lines: list[list[str]], given: dict[str, str | int | None]) -> bool:
    """Whether the first line names the columns: it holds no number, and other lines do or it is known."""
    first = [field.strip() for field in lines[0]]
    if any(isinstance(name, str) and not name.isdecimal() for name in given.values()):
        return True
    if any(str(name) in first for name in given.values() if name is not None and not is_number(str(name))):
        return True
    if any(map(is_number, first)):
        return False
    known = {re.sub(r"[^a-z0-9]", "", field.lower()) for field in first}
    others = any(is_number(field) for line in lines[1:] for field in line)
    return others or any(known & names for names in KNOWN_NAMES.values())


def _named(name: str, part: str, wanted: str, names: Sequence[str] | None, width: int) -> int:
    if names is not None and wanted in names:
        return list(names).index(wanted)
    if wanted.isdecimal() and 1 <= int(wanted) <= width:
        return int(wanted) - 1
    there = (
        f"its columns are {', '.join(names)}"
        if names is not None
        else f"it has {width} columns and no header"
    )
    raise InputError(f"{name}: no column {wanted!r} for {part}; {there}")


def _refuse_float_ids(name: str, part: str, floating: bool, kind: str) -> None:
    if floating and part != "value":
        raise InputError(f"{name}: the {part} ids are of type {kind}; make them integers or text")


def _compression(path: Path) -> str:
    return "gzip" if path.suffix == ".gz" else "none"


def _quoted(text: str | Path) -> str:
    return "'" + str(text).replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
