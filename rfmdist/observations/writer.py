"""Writing a store of observations as a stream of sorted entries. Knows the layout, not where entries come from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from rfmdist.errors import InputError, StoreError, UnreachableError, disk_error
from rfmdist.machine import hand_back_memory
from rfmdist.observations.files import check_destination, replace_folder, replace_store, settle_writes
from rfmdist.observations.layout import (
    FILL,
    FORMAT,
    SHARD,
    create_array,
    create_root,
    stored_index_dtype,
    write_array,
    write_ids,
)
from rfmdist.observations.leftovers import in_use
from rfmdist.observations.nodes import open_root, reopened, told_of
from rfmdist.observations.places import Place, beside, exists, opened, place_of, remove_at

if TYPE_CHECKING:
    import pandas as pd


class DuplicateEntryError(InputError):
    """An entry came twice; ``row`` and ``column`` are its codes."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__(f"the entry at row code {row}, column code {column} is given twice")
        self.row, self.column = row, column


class StoreWriter:
    """Writes entries in row order into a new store; nothing appears under ``path`` until all of it is there.

    Use as a context manager and call `finish` inside; leaving without it, or by an error, removes what was
    written. Holds one shard of entries and one count a row in memory.

    At a URL, where nothing can be renamed, a new store is written in its place and marked as whole last. One that
    replaces another is written beside it, then copied by the server.

    Parameters
    ----------
    path : str or Path or None
        Where the store will be, through links, or a URL; None keeps it in memory.
    shape : tuple of int
        Rows and columns.
    dtype : dtype
        float32 or float64, of the values.
    entries : int, optional
        Most entries that will come; m n when left out. Where 2^31 may come, row pointers need int64, and column codes
        are stored in the same type.
    overwrite : bool, default False
        Replace what is at ``path``, once the new store is complete.

    Raises
    ------
    InputError
        If ``path`` exists and may not be replaced.
    """

    def __init__(
        self,
        path: str | Path | None,
        shape: tuple[int, int],
        dtype: Any,
        *,
        entries: int | None = None,
        overwrite: bool = False,
    ) -> None:
        place = None if path is None else place_of(path)
        self.path: Place | None = place.resolve() if isinstance(place, Path) else place
        check_destination(self.path, overwrite=overwrite)
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._most = shape[0] * shape[1] if entries is None else entries
        self._index_dtype = stored_index_dtype(shape[1], self._most)
        self._indptr = np.zeros(shape[0] + 1, np.int64)  # counts of the rows, until `finish` sums them
        # The next shard; pages that are not written take no memory.
        self._shard = {"indices": np.empty(SHARD, self._index_dtype), "data": np.empty(SHARD, self._dtype)}
        self._held = self._written = 0
        self._last = (-1, -1)
        self._root: zarr.Group | None = None
        self._open = ExitStack()
        self.temporary: Place | None = None
        if self.path is not None:
            new = isinstance(self.path, str) and not exists(self.path)
            self.temporary = self.path if new else beside(self.path, "partial")

    def __enter__(self) -> Self:
        try:
            if isinstance(self.temporary, Path):
                self.temporary.parent.mkdir(parents=True, exist_ok=True)
                self._open.enter_context(in_use(self.temporary))
            self._root = create_root(opened(self.temporary), self._shape)
            matrix: Any = self._root["X"]
            self._arrays = {
                "data": create_array(matrix, "data", SHARD, self._dtype, FILL["data"]),
                "indices": create_array(matrix, "indices", SHARD, self._index_dtype, FILL["indices"]),
            }
        except BaseException as error:
            self._remove()
            if isinstance(error, OSError):
                raise disk_error(error, str(self.path)) from None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()
        if isinstance(error, OSError):
            raise disk_error(error, str(self.path)) from None

    def append(self, rows: NDArray[np.integer], columns: NDArray[np.integer], values: NDArray[np.floating]) -> None:
        """Add entries that follow all earlier ones in the order of (row, column).

        Parameters
        ----------
        rows, columns : integer ndarrays of shape (entries,)
            Codes.
        values : ndarray of shape (entries,)
            Finite values.

        Raises
        ------
        DuplicateEntryError
            If an entry is given twice.
        InputError
            If a code is out of range or a value is NaN or infinite.
        StoreError
            If entries are out of order or the disk fails.
        """
        if len(rows) == 0:
            return
        self._check(rows, columns, values)
        first, last = int(rows[0]), int(rows[-1])
        # Only the rows that are there: a pass over the counts of all would cost more than the entries.
        self._indptr[first + 1 : last + 2] += np.bincount(rows - first)
        low = 0
        while low < len(rows):
            part = slice(low, low + SHARD - self._held)
            place = slice(self._held, self._held + len(rows[part]))
            self._shard["indices"][place], self._shard["data"][place] = columns[part], values[part]
            low, self._held = low + len(rows[part]), place.stop
            if self._held == SHARD:
                self._flush()

    def finish(
        self,
        row_ids: NDArray[Any] | pd.Index[Any],
        column_ids: NDArray[Any] | pd.Index[Any],
        add: Callable[[zarr.Group], None] | None = None,
    ) -> zarr.Group:
        """Write ids and row pointers, let ``add`` write more, put the store in its place and return its root."""
        assert self._root is not None, "finish is called inside the with block"
        root = self._root
        if self._written == 0:
            self._shrink()
        self._flush()
        indptr = np.cumsum(self._indptr, out=self._indptr)
        assert indptr[-1] <= self._most, "more entries came than were announced"
        matrix: Any = root["X"]
        write_array(create_array(matrix, "indptr", len(indptr), self._index_dtype, FILL["indptr"]), indptr)
        write_ids(root, "obs", row_ids)
        write_ids(root, "var", column_ids)
        if add is not None:
            add(root)
        root = reopened(root)
        root.attrs["rfmdist"] = told_of(root) | {"format": FORMAT}  # last: it marks the store as whole
        if self.path is None or self.temporary is None:
            return root
        if isinstance(self.temporary, Path) and isinstance(self.path, Path):
            self._open.close()
            replace_folder(self.temporary, self.path)
        else:
            whole, self.temporary = str(self.temporary), None  # from here on it may be all there is
            if whole != self.path:
                replace_store(whole, str(self.path))
        return open_root(self.path)

    def _check(self, rows: NDArray[np.integer], columns: NDArray[np.integer], values: NDArray[np.floating]) -> None:
        for what, codes, size in (("row", rows, self._shape[0]), ("column", columns, self._shape[1])):
            low, high = int(codes.min()), int(codes.max())
            if low < 0 or high >= size:
                wrong = low if low < 0 else high
                raise InputError(f"{what} code {wrong} is outside 0..{size - 1}; correct the input")
        with np.errstate(over="ignore"):
            finite = np.isfinite(values.astype(self._dtype, copy=False))
        if not finite.all():
            first = int(np.argmin(finite))
            raise InputError(
                f"row {int(rows[first])}, column {int(columns[first])}: the value {values[first]} is not a finite"
                f" {self._dtype.name} number; remove it or correct it"
            )
        same = rows[1:] == rows[:-1]
        bad = np.flatnonzero((rows[1:] < rows[:-1]) | (same & (columns[1:] <= columns[:-1])))
        start = (int(rows[0]), int(columns[0]))
        if start <= self._last or len(bad):
            first = 0 if start <= self._last else int(bad[0]) + 1
            here = (int(rows[first]), int(columns[first]))
            if here == (self._last if first == 0 else (int(rows[first - 1]), int(columns[first - 1]))):
                raise DuplicateEntryError(*here)
            raise StoreError("entries must be appended in the order of rows, then columns")
        self._last = (int(rows[-1]), int(columns[-1]))

    def _flush(self) -> None:
        """Write the entries held, at most a shard."""
        for name, array in self._arrays.items():
            array.resize((self._written + self._held,))
            array[self._written : self._written + self._held] = self._shard[name][: self._held]
        self._written, self._held = self._written + self._held, 0
        hand_back_memory()  # what coding took, before another, such as DuckDB's sort, asks for as much

    def _shrink(self) -> None:
        """Make the arrays again with chunks that fit the few entries held."""
        matrix: Any = self._root["X"] if self._root is not None else None
        for name, old in self._arrays.items():
            del matrix[name]
            self._arrays[name] = create_array(matrix, name, self._held, old.dtype, FILL[name])

    def _remove(self) -> None:
        self._open.close()
        if isinstance(self.temporary, str):
            settle_writes()
            with suppress(UnreachableError):  # what failed first is told; the rest is marked as unfinished
                remove_at(self.temporary)
        elif self.temporary is not None and self.temporary.exists():
            settle_writes()
            shutil.rmtree(self.temporary, ignore_errors=True)
