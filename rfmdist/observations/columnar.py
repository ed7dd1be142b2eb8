"""Tables in columns as DuckDB reads them: Parquet and Arrow files, and tables in memory of any library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rfmdist.errors import InputError
from rfmdist.observations.columns import Given, refuse_twins, resolve_columns
from rfmdist.observations.lines import quoted, quoted_path
from rfmdist.observations.relations import FRAME, Field, Table

PIECE = 1 << 20
"""Entries of a stream that are taken in together."""
NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""What a folder's name holds where the value is missing."""


def parquet_table(path: Path, given: Given, partition: dict[str, str] | None = None) -> Table:
    """Describe a Parquet file from its schema; ``partition`` gives columns that the names of its folders hold."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from None
    relation = f"read_parquet({quoted_path(path)}, hive_partitioning=false)"
    for name, text in (partition or {}).items():
        if name.lower() not in map(str.lower, schema.names):
            literal = "NULL" if text == NO_PARTITION else quoted(text)
            relation = f"(select *, {literal} as {_identifier(name)} from {relation})"
            schema = schema.append(pa.field(name, pa.string()))
    return Table(str(path), fields_of(str(path), schema, given), relation)


def arrow_table(path: Path, given: Given) -> Table:
    """Describe a file of Arrow's, Feather among them, from its schema; DuckDB takes it in by batches."""
    try:
        held = ds.dataset(path, format="ipc")
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: not an Arrow file, or one of an old or streaming kind ({str(error).splitlines()[0]}); write it as"
            " Feather, version 2"
        ) from None
    return Table(str(path), fields_of(str(path), held.schema, given), FRAME, held=held)


def stream_tables(source: Any, given: Given) -> Iterator[Table]:
    """Describe a table in memory, or a stream of its batches, that another library hands over through Arrow."""
    name = "data frame"
    try:
        reader = pa.RecordBatchReader.from_stream(source)
    except pa.ArrowException as error:
        raise InputError(f"{name}: is not a table of columns ({str(error).splitlines()[0]})") from None
    fields, start = fields_of(name, reader.schema, given), 0
    for piece in _pieces(reader):
        yield Table(name, fields, FRAME, held=piece, start=start)
        start += len(piece)


def _pieces(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Give the batches of a stream, small ones together."""
    batches: list[pa.RecordBatch] = []
    for batch in reader:
        batches.append(batch)
        if sum(map(len, batches)) >= PIECE:
            yield pa.Table.from_batches(batches)
            batches = []
    yield pa.Table.from_batches(batches, reader.schema)


def fields_of(name: str, schema: pa.Schema, given: Given) -> dict[str, Field]:
    """Give the parts of a table by its schema."""
    positions = resolve_columns(name, schema.names, len(schema.names), given)
    refuse_twins(name, schema.names)
    fields = {}
    for part, index in positions.items():
        kind = schema.types[index]
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        _refuse_float_ids(name, part, pa.types.is_floating(kind), str(kind))
        fields[part] = Field(_identifier(schema.names[index]), pa.types.is_integer(kind))
    return fields


def frame_table(frame: pd.DataFrame, given: Given) -> Table:
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
    return Table(name, fields, FRAME, held=pa.table(columns))


def _refuse_float_ids(name: str, part: str, floating: bool, kind: str) -> None:
    if floating and part != "value":
        raise InputError(f"{name}: the {part} ids are of type {kind}; make them integers or text")


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
