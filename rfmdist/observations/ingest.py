"""From rating tables to a store, out of core. Knows duplicates and progress; DuckDB parses and sorts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import dask.dataframe as dd
import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.blocks import parse_dtype
from rfmdist.observations.files import check_destination
from rfmdist.observations.matrices import is_matrix, matrix_tables
from rfmdist.observations.places import Place, place_of
from rfmdist.observations.relations import Table
from rfmdist.observations.sources import parts_of, read_sources
from rfmdist.observations.staging import Batch, Stage, parse_memory
from rfmdist.observations.store import Observations
from rfmdist.observations.writer import DuplicateEntryError, StoreWriter

Progress = Callable[[str, int, int], None]
Duplicates = Literal["error", "last", "mean", "sum"]


def ingest(
    inputs: Any,
    path: str | Path | None = None,
    *,
    row: str | int | None = None,
    column: str | int | None = None,
    value: str | int | None = None,
    delimiter: str | None = None,
    memory: str | int = "1GB",
    duplicates: Duplicates = "error",
    dtype: Any = "float32",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Observations:
    """Read rating tables into a new store.

    Codes follow the sorted ids. Ids that are all integers become int64 ids, otherwise all are text (so 007
    differs from 7). The whole works out of core: tables larger than memory are sorted on disk, in a temporary
    folder beside the store.

    Parameters
    ----------
    inputs : str, Path, pandas.DataFrame, dask.dataframe.DataFrame, or a list of these
        Tables: CSV, TSV, MovieLens ``.dat`` and other delimited text, JSON lines (``.jsonl``, ``.ndjson``), Parquet
        files (``.parquet``, ``.pq``) and folders of them, Feather and Arrow files (``.feather``, ``.arrow``, ``.ipc``),
        ``.npy`` arrays with named fields or a column for each part; data frames, and what hands over Arrow's stream,
        such as polars' frames and Arrow's tables. One matrix: Matrix Market (``.mtx``; its ids count from 1) or a
        scipy ``.npz`` (its ids count from 0); it keeps its shape, while a table has the ids that occur.
        Text, JSON lines and Matrix Market may be compressed (``.gz``, ``.bz2``, ``.xz``, ``.zst``).

        Files of a folder, and of its folders, come in natural order, part.2 before part.10, and names of folders
        such as ``user=7`` give a column that the files lack; a list comes in its own order.
    path : str or Path, optional
        Where to write the store, a path or a URL; in memory when left out.
    row, column, value : str or int, optional
        Names of the columns, or their 1-based positions where there is no header. Left out: known names
        (user, item, rating and the like), else the first three columns. Where columns have no names, at most one
        with numbers may follow the value, and it is a time (whole numbers of at least 1e8), and ids are no
        fractions: else this may be a dense matrix and is refused until positions are given. Files with the
        delimiter ``::`` are no matrices.
    delimiter : str, optional
        Of text files; found from the first lines when left out, runs of blanks too. Where any of the first lines is
        a comment, # or % followed by a blank, all such lines are. Of values with commas between digits, 1,234.5,
        these are left out where the delimiter is a comma.
    memory : str or int, default "1GB"
        Budget for the process, in bytes or such as "800MB"; at least 700MB, enough for 20 million entries.
    duplicates : {"error", "last", "mean", "sum"}, default "error"
        What becomes of an entry given twice: the last in input order, their mean, their sum. An error by
        default, because a repeated entry is more often a mistake than a wish.
    dtype : {"float32", "float64"}, default "float32"
        Of the stored values; ratings need no more.
    overwrite : bool, default False
        Replace the store at ``path``, once the new one is complete.
    progress : callable, optional
        Called as ``progress(stage, done, total)``; stages are "reading" (inputs, each file of a folder one) and
        "writing" (entries).

    Returns
    -------
    Observations
        The store, open.

    Raises
    ------
    InputError
        If an input is missing, empty, cannot be read or holds a wrong entry (the text names the line), if an
        entry is given twice, or the memory budget is too small.
    StoreError
        If the disk is full. Whatever was at ``path`` is still there after any error.
    """
    if duplicates not in ("error", "last", "mean", "sum"):
        raise InputError(f"duplicates {duplicates!r} is not known: use error, last, mean or sum")
    kind = parse_dtype(dtype)
    destination = None if path is None else place_of(path)
    check_destination(destination, overwrite=overwrite)
    tell = progress or (lambda stage, done, total: None)
    sources = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    if not sources:
        raise InputError("nothing to ingest: name at least one input")
    if len(sources) > 1 and any(map(is_matrix, sources)):
        raise InputError("a matrix file cannot be ingested together with other inputs; ingest it alone")
    # What is staged for a URL lies in the system's temporary folder.
    with Stage(destination if isinstance(destination, Path) else None, memory, kind) as stage:
        parts = [part for source in sources for part in parts_of(source)]
        for done, part in enumerate(parts):
            tell("reading", done, len(parts))
            for table in _tables(part, row, column, value, delimiter, memory):
                stage.add(table)
        tell("reading", len(parts), len(parts))
        if stage.entries == 0:
            raise InputError(f"{', '.join(map(_name, sources))}: no entries, nothing to store")
        return _write(stage, destination, kind, duplicates, overwrite, tell)


def combined(batches: Iterable[Batch], how: Duplicates) -> Iterator[Batch]:
    """Make one entry of the entries of one place, across batches too; with "error" leave them alone."""
    if how == "error":
        yield from batches
        return
    held: Batch | None = None
    for batch in batches:
        if held is not None:
            batch = held.followed_by(batch)
        change = (np.diff(batch.rows) != 0) | (np.diff(batch.columns) != 0)
        starts = np.flatnonzero(np.concatenate([[True], change]))
        # The last place may go on in the next batch.
        held = batch[starts[-1] :]
        yield _combine(batch[: starts[-1]], starts[:-1], how)
    if held is not None:
        yield _combine(held, np.zeros(1, np.int64), how)


def _write(
    stage: Stage, path: Place | None, dtype: np.dtype[Any], how: Duplicates, overwrite: bool, tell: Progress
) -> Observations:
    tell("writing", 0, stage.entries)
    rows, columns = stage.assign_codes()
    done = 0
    shape = len(rows), len(columns)
    with StoreWriter(path, shape, dtype, entries=stage.entries, overwrite=overwrite) as writer:
        for batch in combined(stage.batches(), how):
            try:
                writer.append(batch.rows, batch.columns, batch.values)
            except DuplicateEntryError as twice:
                raise _duplicate(stage, rows[twice.row], columns[twice.column]) from None
            done += len(batch.rows)
            tell("writing", done, stage.entries)
        return Observations(writer.finish(rows, columns))


def _duplicate(stage: Stage, row: Any, column: Any) -> InputError:
    places = " and ".join(stage.places(row, column))
    return InputError(
        f"row {row}, column {column} is given twice ({places}); remove one, or choose duplicates last, mean or sum"
    )


def _tables(
    source: Any, row: Any, column: Any, value: Any, delimiter: str | None, memory: str | int
) -> Iterator[Table]:
    """Tables of one input; the partitions of a dask frame are computed one at a time."""
    if is_matrix(source):
        return iter(matrix_tables(Path(source), parse_memory(memory)))
    if isinstance(source, dd.DataFrame):
        frames: Iterable[Any] = (source.get_partition(k).compute() for k in range(source.npartitions))
    else:
        frames = [source]
    return chain.from_iterable(read_sources(frame, row, column, value, delimiter) for frame in frames)


def _combine(batch: Batch, starts: NDArray[np.int64], how: Duplicates) -> Batch:
    """One entry for each run that begins at ``starts``."""
    if how == "last" or len(starts) == 0:
        return batch[np.append(starts[1:], len(batch.rows)) - 1] if len(starts) else batch[:0]
    values = np.add.reduceat(batch.values.astype(np.float64), starts)
    if how == "mean":
        values /= np.diff(np.append(starts, len(batch.rows)))
    return Batch(batch.rows[starts], batch.columns[starts], values, batch.order[starts])


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else "data frame"
