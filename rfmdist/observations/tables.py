"""Small tables read whole: ratings to be scored or predicted, columns about ids. Large ones are for ingestion."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rfmdist.errors import InputError
from rfmdist.observations.columns import MISSING, Given, is_number, known_part, resolve_columns
from rfmdist.observations.ids import is_integer
from rfmdist.observations.relations import Table
from rfmdist.observations.sources import Part, parquet_parts, read_files, read_sources
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


def read_lines(
    source: Any, ids: str | int | None = None, delimiter: str | None = None
) -> tuple[pd.DataFrame, pd.Index[Any] | None]:
    """Read a table that has a line an id into memory.

    Parameters
    ----------
    source : str or Path
        Delimited text with a header, JSON lines, a Parquet file or a folder of them, a Feather file.
    ids : str or int, optional
        Name or 1-based position of the column of ids. When left out they are the index that pandas kept in a Parquet
        file, else the first column.
    delimiter : str, optional
        Of text files; found from the first lines when left out.

    Returns
    -------
    pandas.DataFrame
        The other columns, indexed by the ids, in input order. A column of text is one of numbers where all its
        fields are numbers, unless some are written as 007 is; fields that are empty or say NA, NaN, null or none
        are missing.
    pandas.Index or None
        What else may be the ids: an index of pandas without a name that was passed over for the first column, since
        such integers are left where lines were counted or chosen.

    Raises
    ------
    InputError
        If the table is missing, has no header or cannot be read; the text names the line.
    """
    parts = parquet_parts(source)
    if parts:
        return _of_parquet(parts, str(source), ids)
    with Stage(None) as stage:
        tables = read_files(source, {"row": 1 if ids is None else ids}, delimiter)
        return pd.concat([_indexed(stage, table) for table in tables]), None


def _of_parquet(parts: list[Part], source: str, ids: str | int | None) -> tuple[pd.DataFrame, pd.Index[Any] | None]:
    """Lines of Parquet files by id, and what else may be the ids, as `read_lines` gives them."""
    try:
        tables = [pq.read_table(part.path, partitioning=None) for part in parts]
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{source}: not a Parquet file ({str(error).splitlines()[0]})") from None
    # A range is not stored, not even one of ids such as 10, 20, 30: it lies in the metadata of pandas alone.
    frames = (table.to_pandas().assign(**part.partition) for table, part in zip(tables, parts, strict=True))
    lines = pd.concat(frames)
    lines.columns = lines.columns.map(str)
    names, index = tables[0].column_names, lines.index
    stored = (tables[0].schema.pandas_metadata or {"index_columns": []})["index_columns"]
    if ids is None:
        by_index = bool(stored) and _is_ids(index, lines.columns)
    else:
        by_index = ids in index.names and ids not in names
    given: Given = {"row": 1 if ids is None else ids}
    label = None if by_index else names[resolve_columns(source, names, len(names), given)["row"]]
    if index.nlevels == 1 and (by_index or label in stored):
        return lines, None
    flat = lines.reset_index(drop=set(index.names) == {None})
    if label is None or label not in flat:
        raise InputError(f"{source}: its index has {index.nlevels} levels; name the one of ids, or a column of them")
    passed_over = ids is None and stored and index.is_unique and not (_counts(index) and _tells_ids(label))
    return flat.set_index(label), index if passed_over else None


def _is_ids(index: pd.Index[Any], columns: pd.Index[Any]) -> bool:
    """Whether an index that pandas kept holds ids, rather than numbers of lines that nobody chose for ids."""
    if index.nlevels > 1 or index.name is not None or not is_integer(index):
        return True
    told = any(_tells_ids(name) for name in columns[:1])
    return index.is_unique and not told and (not _counts(index) or len(columns) == 1)


def _counts(index: pd.Index[Any]) -> bool:
    """Whether an index is 0, 1, 2, ..., which is what a frame has whose index nobody chose."""
    return index.name is None and index.equals(pd.RangeIndex(len(index)))


def _tells_ids(name: str) -> bool:
    """Whether a column is named as those of ids are."""
    return known_part(name) in ("row", "column") or name.lower().endswith("id")


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
