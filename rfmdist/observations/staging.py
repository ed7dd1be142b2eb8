"""The DuckDB session behind ingestion and given splits: entries in, codes and sorted entries out.

Knows DuckDB, its memory limit and its errors; not the store. Everything lies in one temporary folder, which
goes when the session ends.
"""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import duckdb
import numpy as np
import pandas as pd
from dask.utils import format_bytes
from numpy.typing import NDArray

from rfmdist.errors import InputError, RfmdistError, disk_error
from rfmdist.machine import cores, parse_size
from rfmdist.observations.columns import PARTS
from rfmdist.observations.ids import is_integer
from rfmdist.observations.layout import index_dtype
from rfmdist.observations.leftovers import in_use
from rfmdist.observations.relations import Table
from rfmdist.observations.sql import TEXT_ID, WRONG, find_wrong, take_id, take_value
from rfmdist.observations.texts import copy_plain

T = TypeVar("T")
OUTSIDE, SHARE = 500_000_000, 0.9
"""Bytes of the budget that DuckDB does not count, Python, its libraries, the writer's shard; and the share of the rest
that it may count: what it holds beyond its limit grows with that."""
INTERRUPTED = re.compile(r"^(Query interrupted|INTERRUPT Error)")
"""What DuckDB says when Ctrl-C stops it."""
LEAST = 200_000_000
"""Bytes of the rest without which DuckDB sorts nothing."""
PREFIX, ENDING = ".rfmdist.", ".stage"
"""Of the names of temporary folders."""
BATCH = 1 << 18
"""Entries a batch of the sorted stream."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Sorted entries: codes, values, and ``order``, the position of each in the input, all of one length.

    Codes are int32 where all of the table's are, otherwise int64.
    """

    rows: NDArray[np.integer]
    columns: NDArray[np.integer]
    values: NDArray[np.floating]
    order: NDArray[np.int64]

    def __getitem__(self, part: slice | NDArray[Any]) -> Batch:
        return Batch(self.rows[part], self.columns[part], self.values[part], self.order[part])

    def followed_by(self, other: Batch) -> Batch:
        """Return these entries and then those of ``other``."""
        return Batch(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.columns, other.columns]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.order, other.order]),
        )


def parse_memory(memory: str | int) -> int:
    """Bytes of a memory budget such as ``"1GB"``; refuse one that is too small to sort with."""
    size = parse_size(memory)
    if size < OUTSIDE + LEAST:
        raise InputError(
            f"memory {memory}: too small a budget for ingestion, the least that works is"
            f" {(OUTSIDE + LEAST) // 1_000_000}MB"
        )
    return size


class Stage:
    """A temporary DuckDB database that takes tables in and gives their entries back by code.

    Use as a context manager.

    Parameters
    ----------
    beside : Path or None
        The temporary folder is made beside this path; None: where the system keeps temporary files.
    memory : str or int, optional
        Budget for the whole process; 1 GB when left out, and then not for the user to raise.
    dtype : dtype, default float64
        Of the values; a value that is not finite in it is refused.
    pairs : bool, default False
        Whether there are no values.
    """

    def __init__(
        self, beside: Path | None, memory: str | int | None = None, dtype: Any = np.float64, *, pairs: bool = False
    ) -> None:
        self._budget = parse_memory("1GB" if memory is None else memory)
        self._limit = int(SHARE * (self._budget - OUTSIDE))
        self._given = memory is not None
        self._beside = beside
        self._float = "FLOAT" if np.dtype(dtype) == np.float32 else "DOUBLE"
        self._pairs = pairs
        self._types = {"row": "BIGINT", "column": "BIGINT"}
        self._sizes = {"row": 0, "column": 0}
        self._tables: list[tuple[int, Table]] = []
        self.entries = 0

    def __enter__(self) -> Self:
        where = None if self._beside is None else self._beside.resolve().parent
        try:
            if where is not None:
                where.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(ENDING, PREFIX, where))
        except OSError as error:
            raise disk_error(error, str(where)) from None
        self._open = ExitStack()
        try:
            self._open.enter_context(in_use(self._folder))
            with self._translated():
                self._connection = duckdb.connect(
                    self._folder / "stage.duckdb",
                    config={
                        "memory_limit": f"{self._limit}B",
                        # DuckDB's own advice: 125 MB a thread at least.
                        "threads": max(1, min(cores(), self._limit // 125_000_000)),
                        "temp_directory": str(self._folder / "spill"),
                    },
                )
                # Where Python is interactive DuckDB draws a bar, on standard output, among a command's results.
                self._connection.execute("set enable_progress_bar = false")
                self._connection.execute(f'create table stage ("row" BIGINT, "column" BIGINT, "value" {self._float})')
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()
        self._open.close()  # before: NFS keeps files that are open, under another name
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, table: Table) -> None:
        """Take in all entries of a table; ids stay integers as long as all of them are.

        Raises
        ------
        InputError
            If an entry cannot be read; it names the line.
        StoreError
            If the disk is full.
        """
        self._tables.append((self.entries, table))
        count = self._read(table, self._insert)
        if table.extent is not None and count != table.extent.entries:
            raise InputError(
                f"{table.name}: holds {count} entries where {table.extent.entries} are announced; the file is not whole"
            )
        self.entries += count

    def place(self, order: int) -> str:
        """Name the entry that came in at position ``order``."""
        first, table = next(pair for pair in reversed(self._tables) if pair[0] <= order)
        return table.place(order - first)

    def places(self, row: Any, column: Any) -> list[str]:
        """Name the first two entries of one row id and column id."""
        query = 'select rowid from stage where "row" = ? and "column" = ? order by rowid limit 2'
        with self._translated():
            # The sorted stream may be open on the connection itself.
            found = self._connection.cursor().execute(query, [_plain(row), _plain(column)]).fetchall()
        return [self.place(order) for (order,) in found]

    def frame(self) -> pd.DataFrame:
        """All entries in input order, columns row, column and, unless pairs, value."""
        with self._translated():
            columns = '"row", "column"' + ("" if self._pairs else ', "value"')
            found: pd.DataFrame = self._connection.sql(f"select {columns} from stage order by rowid").df()
        return found

    def fields(self, table: Table) -> pd.DataFrame:
        """All fields of a table that was not taken in, as they stand in it, in input order."""

        def fetch(table: Table) -> pd.DataFrame:
            found: pd.DataFrame = self._connection.sql(f"select * from {table.relation}").df()
            return found

        return self._read(table, fetch)

    def assign_codes(self) -> tuple[pd.Index[Any], pd.Index[Any]]:
        """Give the sorted ids of rows and columns the codes 0, 1, ...; return the ids by code.

        They are the ids that occur; of a matrix, those of all its rows and columns.
        """
        with self._translated():
            for part in ("row", "column"):
                extent = self._tables[0][1].extent
                if extent is not None:
                    self.use_codes(part, extent.ids(part))
                    continue
                self._connection.execute(
                    f"create table {part}_codes as"
                    " select id, row_number() over (order by id) - 1 code"
                    f' from (select distinct "{part}" id from stage)'
                )
            return self._ids("row"), self._ids("column")

    def use_codes(self, part: str, ids: pd.Index[Any]) -> None:
        """Give ``ids`` of ``part`` (row or column) the codes 0, 1, ..., whatever was taken in."""
        if not is_integer(ids):
            self._make_text(part)
        known = pd.DataFrame({"id": ids, "code": np.arange(len(ids))})
        self._connection.register("known", known)
        with self._translated():
            self._connection.execute(f"create table {part}_codes as select * from known")
        self._connection.unregister("known")
        self._sizes[part] = len(ids)

    def batches(self) -> Iterator[Batch]:
        """All entries by ascending row code, column code, input order; code -1 where an id has none."""
        joins = " ".join(
            f'left join {part}_codes {part[0]} on s."{part}"::{kind} = {part[0]}.id::{kind}'
            for part, kind in self._types.items()
        )
        row, column = (_code_type(self._sizes[part]) for part in self._types)
        query = (
            f"select coalesce(r.code, -1)::{row} a, coalesce(c.code, -1)::{column} b, s.value v, s.rowid o"
            f" from stage s {joins} order by a, b, o"
        )
        last = (-1, -1, -1)
        with self._translated():
            # On execute() the same call copies more, and can give sorted batches out of order.
            for piece in self._connection.sql(query).to_arrow_reader(BATCH):
                batch = Batch(*(piece.column(k).to_numpy(zero_copy_only=False) for k in range(4)))
                if len(batch.rows):
                    first = (int(batch.rows[0]), int(batch.columns[0]), int(batch.order[0]))
                    assert last <= first, "DuckDB gave sorted batches out of order"
                    last = (int(batch.rows[-1]), int(batch.columns[-1]), int(batch.order[-1]))
                    yield batch

    def _read(self, table: Table, query: Callable[[Table], T]) -> T:
        """Run a query on a table; where DuckDB cannot read a file as it is, on a copy that it can."""
        text = table.text
        if table.held is not None:
            self._connection.register(table.relation, table.held)
        if text is None or text.is_plain:
            with self._translated(table):
                try:
                    return query(table)
                except duckdb.Error as error:
                    # That is what mixed line ends look like, among other things.
                    if text is None or "invalid state" not in str(error) or not text.ends_differ():
                        raise
        copy = self._folder / "copy"
        try:
            copy_plain(text.path, copy, comments=text.comments)
            table = replace(table, source=replace(text, plain=copy))
            with self._translated(table):
                return query(table)
        finally:
            copy.unlink(missing_ok=True)

    def _insert(self, table: Table) -> int:
        value = "NULL" if self._pairs else take_value(table, self._float)
        while True:
            ids = ", ".join(take_id(part, table, as_text=kind == "VARCHAR") for part, kind in self._types.items())
            try:
                done = self._connection.execute(f"insert into stage select {ids}, {value} from {table.relation}")
                return int(done.fetchone()[0])
            except duckdb.Error as error:
                part = str(error).partition(TEXT_ID)[2].split("'")[0].split()
                if not part:
                    raise
                self._make_text(part[0])

    def _make_text(self, part: str) -> None:
        """Turn the ids taken in so far to text, which loses nothing: only plain integers are there."""
        self._connection.execute(f'alter table stage alter column "{part}" set data type VARCHAR')
        self._types[part] = "VARCHAR"

    def _ids(self, part: str) -> pd.Index[Any]:
        found = self._connection.sql(f"select id from {part}_codes order by code").df()["id"]
        self._sizes[part] = len(found)
        return pd.Index(found)

    @contextmanager
    def _translated(self, table: Table | None = None) -> Iterator[None]:
        """Turn DuckDB's errors, of many lines, into one sentence of ours, and its interrupts into Python's."""
        try:
            yield
        except Exception as error:
            # On Ctrl-C the arrow reader and execute() raise different types, RuntimeError among them.
            if isinstance(error, duckdb.InterruptException) or INTERRUPTED.search(str(error)):
                raise KeyboardInterrupt from None
            if not isinstance(error, duckdb.Error):
                raise
            raise self._explain(str(error), isinstance(error, duckdb.OutOfMemoryException), table) from None

    def _explain(self, text: str, out_of_memory: bool, table: Table | None) -> RfmdistError:
        if "max_temp_directory_size" in text or "No space left" in text:
            return disk_error(OSError(errno.ENOSPC, ""), str(self._beside or self._folder))
        if out_of_memory and not self._given:
            return InputError("the table is too large to be read at once; cut it into smaller ones")
        if out_of_memory:
            return InputError(
                f"memory {format_bytes(self._budget)}: too small a budget for these entries, try"
                f" {format_bytes(2 * self._budget)}"
            )
        if table is None:
            return InputError(f"DuckDB cannot sort the entries ({text.splitlines()[0]})")
        if WRONG in text:
            complaint = self._first_wrong(table)
        else:
            line = table.text and table.text.wrong_line(text)
            complaint = f"{table.name}, line {line[0]}: {line[1]}" if line else None
        return InputError(complaint or f"{table.name}: cannot be read ({text.splitlines()[0]})")

    def _first_wrong(self, table: Table) -> str | None:
        """Complaint about the first entry that cannot be taken in."""
        parts = PARTS[:2] if self._pairs else PARTS
        found = self._connection.execute(find_wrong(table, parts, self._float)).fetchone()
        if found is None:
            return None
        return table.complaint(int(found[0]), dict(zip(parts, found[1:], strict=True)))


def _code_type(size: int) -> str:
    """SQL type of codes below ``size``, and of -1; the narrower one makes the keys that are sorted narrower."""
    return "INTEGER" if index_dtype(size) == np.int32 else "BIGINT"


def _plain(identifier: Any) -> int | str:
    return int(identifier) if isinstance(identifier, int | np.integer) else str(identifier)
