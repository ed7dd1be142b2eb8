"""Small tables read whole: ratings to be scored or predicted, columns about ids. Large ones are for ingestion."""

from __future__ import annotations

from typing import Any

import pandas as pd

from rfmdist.errors import InputError
from rfmdist.observations.columns import MISSING, is_number
from rfmdist.observations.relations import Table
from rfmdist.observations.sources import read_files, read_sources
from rfmdist.observations.staging import Stage


def read_table(
    source: Any,
    row: str | int | None = None,
    column: str | int | None = None,
    value: str | int | None = None,
    delimiter: str | None = None,
    *,
    pairs: bool = False,
) -> pd.DataFrame:
    """Read a table of entries, or of pairs without values, into memory.

    Parameters
    ----------
    source : str, Path, pandas.DataFrame or another library's table
        A table of any kind that `rfmdist.ingest` takes.
    row, column, value : str or int, optional
        Names of the columns, or their 1-based positions where there is no header, as in `rfmdist.ingest`.
    delimiter : str, optional
        Of text files; found from the first lines when left out.
    pairs : bool, default False
        Whether only rows and columns are wanted; a value column is then not looked at.

    Returns
    -------
    pandas.DataFrame
        Columns row and column, int64 or text, and, unless ``pairs``, value, float64; in input order.

    Raises
    ------
    InputError
        If the table is missing, empty or holds a wrong entry; the text names the line.
    """
    with Stage(None, pairs=pairs) as stage:
        for table in read_sources(source, row, column, value, delimiter, pairs=pairs):
            stage.add(table)
        if stage.entries == 0:
            raise InputError(f"{source if not isinstance(source, pd.DataFrame) else 'data frame'}: no entries")
        return stage.frame()


def read_lines(source: Any, ids: str | int | None = None, delimiter: str | None = None) -> pd.DataFrame:
    """Read a table that has a line an id into memory.

    Parameters
    ----------
    source : str or Path
        Delimited text with a header, JSON lines, a Parquet file or a folder of them, a Feather file.
    ids : str or int, optional
        Name or 1-based position of the column of ids; the first when left out.
    delimiter : str, optional
        Of text files; found from the first lines when left out.

    Returns
    -------
    pandas.DataFrame
        The other columns, indexed by the ids, in input order. A column of text is one of numbers where all its
        fields are numbers, unless some are written as 007 is; fields that are empty or say NA, NaN, null or none
        are missing.

    Raises
    ------
    InputError
        If the table is missing, has no header or cannot be read; the text names the line.
    """
    with Stage(None) as stage:
        tables = read_files(source, {"row": 1 if ids is None else ids}, delimiter)
        return pd.concat([_indexed(stage, table) for table in tables])


def _indexed(stage: Stage, table: Table) -> pd.DataFrame:
    """Fields of a table, indexed by its ids."""
    if table.text is None:
        lines = stage.fields(table)
        return lines.set_index(table.fields["row"].sql[1:-1].replace('""', '"'))
    names = table.text.names or ()
    wrong = next((name for name in names if is_number(name)), None)
    if wrong is not None:
        raise InputError(
            f"{table.name}, line {table.text.skip}: {wrong} stands where the name of a column is expected; name the"
            " columns in a line above the others"
        )
    lines = stage.fields(table).apply(lambda field: field.str.strip())
    index = lines.pop(table.fields["row"].sql)
    lines = lines.apply(_as_written).set_axis(index, axis=0)
    return lines.set_axis([name for k, name in enumerate(names) if k != table.text.positions["row"]], axis=1)


def _as_written(field: pd.Series[Any]) -> pd.Series[Any]:
    """Return numbers, false and true where a column of text holds nothing else; missing values as None."""
    numbers = pd.to_numeric(field, errors="coerce")
    texts = field[numbers.isna()].dropna()
    missing = texts.str.lower().isin(MISSING)
    if missing.all() and not field.str.match(r"[+-]?0\d", na=False).any():
        return numbers
    field = field.drop(missing.index[missing]).reindex(field.index)
    told = field.str.lower().map({"false": False, "true": True})
    return told if told.count() == field.count() else field
