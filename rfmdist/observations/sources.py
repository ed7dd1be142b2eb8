"""Where rating tables come from: files, folders of them, tables in memory. Knows formats by their names; not stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
from dask.utils import natural_sort_key

from rfmdist.errors import InputError
from rfmdist.observations.arrays import array_tables
from rfmdist.observations.columnar import arrow_table, frame_table, parquet_table, stream_tables
from rfmdist.observations.columns import Given
from rfmdist.observations.delimited import look_at
from rfmdist.observations.files import check_table
from rfmdist.observations.json_lines import json_layout
from rfmdist.observations.relations import Field, Table
from rfmdist.observations.texts import plain_suffix

PARQUET = (".parquet", ".pq")
ARROW = (".feather", ".arrow", ".ipc")
JSON = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Part:
    """A Parquet file of a folder.

    Attributes
    ----------
    path : Path
        The file.
    partition : dict of str to str
        What the names of the folders between say of all its lines, as Hive writes them: ``user=7``.
    """

    path: Path
    partition: dict[str, str]

    def __str__(self) -> str:
        return str(self.path)


def parts_of(source: Any) -> list[Any]:
    """Give a source as a list: of a folder its Parquet files, those of its folders too, part.2 before part.10.

    Hidden files and those that begin with an underscore, which hold no entries by custom, are left out.

    Raises
    ------
    InputError
        If there is no such file, it is no table, or a folder holds no Parquet file.
    """
    if not isinstance(source, str | Path):
        return [source]
    check_table(Path(source))
    if not Path(source).is_dir():
        return [source]
    found = []
    for file in Path(source).rglob("*"):
        inner = file.relative_to(source).parts
        if file.suffix in PARQUET and file.is_file() and not any(name.startswith((".", "_")) for name in inner):
            pairs = (name.split("=", 1) for name in inner[:-1] if "=" in name)
            found.append(Part(file, {unquote(key): unquote(value) for key, value in pairs}))
    if not found:
        raise InputError(f"{source}: is a folder without {' or '.join(PARQUET)} files; name a file")
    return sorted(found, key=lambda part: [natural_sort_key(name) for name in part.path.parts])


def read_sources(
    source: Any,
    row: str | int | None = None,
    column: str | int | None = None,
    value: str | int | None = None,
    delimiter: str | None = None,
    *,
    pairs: bool = False,
) -> Iterator[Table]:
    """Describe a path, a folder of Parquet files or a table in memory as tables; no entry is read yet.

    Parameters
    ----------
    source : str, Path, pandas.DataFrame or any other table that Arrow can take
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
        yield frame_table(source, given)
    elif hasattr(source, "__arrow_c_stream__"):
        yield from stream_tables(source, given)
    else:
        yield from read_files(source, given, delimiter)


def parquet_parts(source: Any) -> list[Part]:
    """Parquet files of a path or a folder, in the order they are read; none of any other source."""
    parts = [Part(Path(part), {}) if isinstance(part, str | Path) else part for part in parts_of(source)]
    return [part for part in parts if isinstance(part, Part) and part.path.suffix in PARQUET]


def read_files(source: Any, given: Given, delimiter: str | None = None) -> Iterator[Table]:
    """Describe a path, a folder of Parquet files or a `Part` of one as tables with the parts ``given``; reads no entry.

    Raises
    ------
    InputError
        As `read_sources`.
    """
    for part in parts_of(source):
        if isinstance(part, Part):
            yield parquet_table(part.path, given, part.partition)
        elif isinstance(part, str | Path):
            yield from _file_tables(Path(part), given, delimiter)
        else:
            raise InputError(f"a table must be a path or a data frame, not {type(source).__name__}")


def _file_tables(path: Path, given: Given, delimiter: str | None) -> Iterator[Table]:
    """Describe one file, by the suffix of its name."""
    if path.suffix in PARQUET:
        yield parquet_table(path, given)
    elif path.suffix in ARROW:
        yield arrow_table(path, given)
    elif path.suffix == ".npy":
        yield from array_tables(path, given)
    else:
        lines = json_layout(path, given) if plain_suffix(path) in JSON else look_at(path, given, delimiter)
        yield Table(str(path), {part: Field(lines.field(part)) for part in lines.positions}, lines)
