"""Small rating tables read whole, to be scored or predicted. Large ones are for ingestion."""

from __future__ import annotations

from typing import Any

import pandas as pd

from rfmdist.errors import InputError
from rfmdist.observations.sources import read_sources
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
    source : str, Path or pandas.DataFrame
        Delimited text (``.gz`` too), a Parquet file or a folder of them, or a frame.
    row, column, value : str or int, optional
        Names of the columns, or their 1-based positions where there is no header. Left out: known names
        (user, item, rating and the like), else the first three columns.
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
