"""`Observations`: what was observed of a matrix, in one Zarr store. Knows reading; not ingestion, not models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy.sparse as sp
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from rfmdist.errors import InputError, StoreError
from rfmdist.machine import temporary_folder
from rfmdist.observations.additions import (
    COPY,
    EXTRAS,
    MARK,
    extras,
    read_offsets,
    remove_offsets,
    write_offsets,
    write_split,
)
from rfmdist.observations.ahead import ahead
from rfmdist.observations.blocks import ALL_ROLES, Offsets, Role, RowBlock, parse_roles
from rfmdist.observations.by_column import MEMORY, write_by_column
from rfmdist.observations.convert import as_csr, as_sparse, write_dask, write_scipy
from rfmdist.observations.draws import Draw, Fold, HoldOut
from rfmdist.observations.files import check_store, is_torn
from rfmdist.observations.frames import count_ids, read_ids
from rfmdist.observations.layout import BY_COLUMN, BY_ROW, FILL, SHARD, Order, index_dtype
from rfmdist.observations.nodes import (
    find_node,
    find_part,
    first_line,
    noticing,
    open_root,
    path_of,
    refuse_lost,
    writing,
)
from rfmdist.observations.places import Place, UrlStore, beside, is_writable, opened, place_of
from rfmdist.observations.reading import Entries, check_format, read_floats

if TYPE_CHECKING:  # imported where they are used: together they take 90 MB and a second
    import dask.array as da
    import pandas as pd
    import sparse

    from rfmdist.observations.annotate import StoredTable
    from rfmdist.observations.frames import Axis

BLOCK_ENTRIES = 1 << 20
"""Entries a row block holds at most, unless one row holds more: 8-16 MB."""
BLOCK_ROWS = 1 << 12
"""Rows a row block holds at most."""


class Observations:
    """The observed entries of an m × n matrix: one Zarr v3 store, read by row blocks.

    AnnData opens the same store: ``X`` is a csr_matrix, ``obs`` and ``var`` hold the ids. An entry that is not
    stored is unobserved; a stored zero is an observed zero. Build one with `open`, `from_scipy`, `from_dask` or
    `rfmdist.ingest`.

    Attributes
    ----------
    shape : tuple of int
        Rows m and columns n.
    nnz : int
        Number of observed entries.
    dtype : dtype
        float32 or float64, of the values.
    row_ids, column_ids : pandas.Index
        The users' own ids, by code.
    path : Path or None
        Where the store lies; None in memory and at a URL.
    name : str
        The path or URL, for messages.
    """

    def __init__(
        self,
        root: zarr.Group,
        draws: tuple[Draw, ...] = (),
        order: Order = BY_ROW,
        holder: zarr.Group | None = None,
    ) -> None:
        self._root = root
        self._holder = root if holder is None else holder  # of the entries: a copy by column may lie elsewhere
        self._draws = draws
        self._order = order
        self._split_seen = False
        self._mark: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what a worker reads for itself, as far as it needs it; in memory nothing is read."""
        dropped = {"indptr", "row_ids", "column_ids"} if not self.in_memory else set()
        return {name: value for name, value in self.__dict__.items() if name not in dropped}

    # ---- making and opening ---------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a store and check that it is whole, without reading its entries.

        Parameters
        ----------
        path : str or Path
            A path, or a URL that fsspec knows, such as ``s3://bucket/ratings.zarr``. Credentials are the driver's own
            affair: from the environment or its configuration, here and on every worker.

        Raises
        ------
        StoreError
            If there is no store, or it is of another version, torn or damaged, or cannot be reached.
        """
        place = place_of(path)
        check_store(place)
        try:
            root = open_root(place.absolute() if isinstance(place, Path) else place)
        except (StoreError, MemoryError):
            raise
        except Exception as error:  # Zarr has many
            raise StoreError(f"{place}: not a Zarr store of observations ({first_line(error)})") from None
        found = cls(root)
        found._check()
        return found

    @classmethod
    def from_scipy(
        cls,
        matrix: sp.sparray | sp.spmatrix,
        path: str | Path | None = None,
        *,
        row_ids: Any = None,
        column_ids: Any = None,
        overwrite: bool = False,
    ) -> Self:
        """Store a scipy sparse matrix or array; its stored entries are the observed ones, zeros included.

        Parameters
        ----------
        matrix : scipy sparse matrix or array of shape (m, n)
            float32 stays float32, other real numbers become float64.
        path : str or Path, optional
            Where to write the store, a path or a URL; in memory when left out.
        row_ids, column_ids : array_like of int or str, optional
            Ids by code; 0, 1, ... when left out.
        overwrite : bool, default False
            Replace what is at ``path``.

        Raises
        ------
        InputError
            If the matrix is dense, not two-dimensional or not of real numbers, an entry is given twice, a value is
            not finite, ids repeat or their number is wrong.
        """
        return cls(write_scipy(matrix, path, row_ids, column_ids, overwrite=overwrite))

    @classmethod
    def from_dask(
        cls,
        array: da.Array,
        path: str | Path | None = None,
        *,
        row_ids: Any = None,
        column_ids: Any = None,
        overwrite: bool = False,
    ) -> Self:
        """Store a dask array of `sparse` or scipy blocks, one block of rows in memory at a time.

        Parameters
        ----------
        array : dask.array.Array of shape (m, n)
            Its blocks' stored entries are the observed ones. Blocks that split the columns are joined.
        path, row_ids, column_ids, overwrite
            As in `from_scipy`.

        Raises
        ------
        InputError
            As in `from_scipy`; also if the array is not two-dimensional or its shape is unknown.
        """
        return cls(write_dask(array, path, row_ids, column_ids, overwrite=overwrite))

    def hold_out(self, fraction: float, seed: int) -> Self:
        """Return the same observations with a random part of the training entries as validation entries.

        Nothing is written: which entries are held out is a function of the seed and the entry's row and column.
        """
        return type(self)(self._root, (*self._draws, HoldOut(fraction, seed)), self._order, self._holder)

    def __getitem__(self, part: Any) -> Self:
        """Return the same observations with the entries of a fold for test, as `rfmdist.EntryKFold` draws them.

        Nothing is written. scikit-learn asks in this way for the training and test part of each fold.

        Raises
        ------
        InputError
            If ``part`` is anything but a fold, such as the numbers of rows.
        """
        fold = Fold.of_index(part[0] if isinstance(part, tuple) and part[1:] == (Ellipsis,) else part)
        if fold is None:
            raise InputError(
                f"{self.name}: observations are cut into folds of entries, not of rows: give cv=rfmdist.EntryKFold(5)"
            )
        return type(self)(self._root, (*self._draws, fold), self._order, self._holder)

    def by_column(self, memory: int = MEMORY, scratch: str | None = None) -> Self:
        """Return the same entries with columns for rows: observations of shape (n, m).

        They are read from a copy in the order of the columns, which is made at the first call, out of core, and
        kept in the store until another split is stored. Roles, the held-out part and the ids go along.

        Of a store that cannot be written to the copy is made in the folder ``scratch``, and is there as long as that.

        Parameters
        ----------
        memory : int, default 512 MiB
            Bytes that making the copy may take, about. More entries than this holds are dealt to files in the store
            on the way, which take as much disk as the copy and then go.
        scratch : str, optional
            A folder that all who read the copy see; without one the store itself has to be writable.

        Raises
        ------
        InputError
            If the store is a completion and so has no copy.
        StoreError
            If the store is damaged or cannot be written, or is split anew meanwhile.
        """
        if self._order == BY_COLUMN:
            return type(self)(self._root, self._draws)
        if self.has_copy:
            return self._copy()
        self.refuse_change()
        holder = self._root if scratch is None or self.is_writable else _opened(scratch)
        if self._copy(holder)._is_copy_of(self):
            return self._copy(holder)
        self._look_again()
        try:
            with writing(self.name):
                matrix: Any = holder[BY_ROW.matrix]
                write_by_column(self, matrix, COPY, memory, None if holder is self._root else scratch)
        except (StoreError, KeyError):  # another fit may have made the copy meanwhile: theirs is as good
            if not self._copy(holder)._is_copy_of(self):
                raise
        if self.split_mark != self._mark:
            raise StoreError(f"{self.name}: was split anew while its entries were put in column order; fit again")
        return self._copy(holder)

    # ---- what is there --------------------------------------------------------------------------------------

    @cached_property
    def shape(self) -> tuple[int, int]:
        with noticing(self.name, self._order.matrix):
            shape: Any = self._matrix.attrs["shape"]
            return int(shape[0]), int(shape[1])

    @cached_property
    def nnz(self) -> int:
        return int(self._array("data").shape[0])

    @cached_property
    def stored_bytes(self) -> int:
        """Bytes of the entries as they lie in the store, compressed; the row pointers and ids are not among them."""
        names = ["data", "indices", *(["split"] if self.has_split else [])]
        with noticing(self.name, self._order.matrix):
            return sum(int(self._array(name).nbytes_stored()) for name in names)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self._array("data").dtype)

    @property
    def density(self) -> float:
        """Share of the matrix that is observed."""
        return self.nnz / max(1, self.shape[0] * self.shape[1])

    @property
    def path(self) -> Path | None:
        return Path(self._root.store.root) if isinstance(self._root.store, LocalStore) else None

    @property
    def in_memory(self) -> bool:
        """Whether the store is but memory of this process."""
        return self._place is None

    @cached_property
    def is_writable(self) -> bool:
        """Whether the store can be added to."""
        place = self._place
        return place is None or is_writable(place / BY_ROW.matrix if isinstance(place, Path) else place)

    def scratch_folder(self) -> str | None:
        """Return a new name for a folder of files that live as long as a fit.

        It lies beside the store, where all see it who see the store; where that folder cannot be written to, among
        this user's temporary files. None in memory, or where neither can be written.
        """
        if self._place is None:
            return None
        if is_writable(self._place.parent if isinstance(self._place, Path) else self._place):
            return str(beside(self._place, "scratch"))
        try:
            return str(beside(temporary_folder() / "fit", "scratch"))
        except OSError:
            return None

    @property
    def name(self) -> str:
        return str(self._place or "observations in memory")

    @cached_property
    def indptr(self) -> NDArray[np.int64]:
        """Where each row's entries begin, int64 ndarray of shape (m + 1,)."""
        return self.entries("indptr", 0, self.shape[0] + 1)

    @cached_property
    def row_ids(self) -> pd.Index[Any]:
        return read_ids(self._root, self.name, self._order.rows)

    @cached_property
    def column_ids(self) -> pd.Index[Any]:
        return read_ids(self._root, self.name, self._order.columns)

    @property
    def has_split(self) -> bool:
        """Whether a split is stored.

        Raises
        ------
        StoreError
            If it is damaged or lost, or another was to take its place, at a URL, and neither is there.
        """
        matrix = self._matrix
        if is_torn(matrix, "split"):
            raise StoreError(f"{self.name}: its split was not written to its end; split it again")
        found = self._split(matrix)
        if found is not None and found.shape != (self.nnz,):
            raise StoreError(f"{self.name}: its split does not fit its entries; split it again")
        return found is not None

    @property
    def is_drawn(self) -> bool:
        """Whether roles are drawn at each reading, over those that are stored."""
        return bool(self._draws)

    @property
    def split_mark(self) -> str | None:
        """What tells the stored split from any other; None where none is stored, or one of an earlier version."""
        matrix = self._matrix
        holder = matrix if self._order == BY_COLUMN else self._split(matrix)
        mark: Any = None if holder is None else holder.attrs.get(MARK)
        return mark

    @property
    def has_copy(self) -> bool:
        """Whether the column-ordered copy that `by_column` makes is there."""
        return self._order == BY_COLUMN or self._copy()._is_copy_of(self)

    @property
    def offsets(self) -> Offsets | None:
        """The stored offsets, if any (see `store_offsets`)."""
        if self._order == BY_COLUMN:
            found = read_offsets(self._root, self.shape[::-1], self.name)
            return None if found is None else found.transposed()
        return read_offsets(self._root, self.shape, self.name)

    # ---- reading --------------------------------------------------------------------------------------------

    def ranges(
        self, within: tuple[int, int] | None = None, entries: int = BLOCK_ENTRIES, rows: int = BLOCK_ROWS
    ) -> list[tuple[int, int]]:
        """Cut the rows ``within`` a range into ranges of at most ``entries`` entries and ``rows`` rows.

        The cut depends on the row counts alone, never on the machine, so that sums over it are reproducible.
        """
        first, last = within or (0, self.shape[0])
        indptr, cuts = self.pointers(first, last), [0]
        while cuts[-1] < last - first:
            start = cuts[-1]
            fit = int(np.searchsorted(indptr, indptr[start] + entries, side="right")) - 1
            cuts.append(min(max(fit, start + 1), start + rows, last - first))
        return [(first + a, first + b) for a, b in pairwise(cuts)]

    def pointers(self, start: int, stop: int) -> NDArray[np.int64]:
        """Where the entries of rows ``start`` to ``stop`` begin, and the last ends: int64 (stop - start + 1,).

        All of `indptr` is read only where it was asked for: a worker that is given a few groups needs theirs alone.
        """
        if "indptr" in self.__dict__:
            return self.indptr[start : stop + 1]
        return self.entries("indptr", start, stop + 1)

    def row_block(self, start: int, stop: int, roles: str | Role | Iterable[str | Role] = ALL_ROLES) -> RowBlock:
        """Read rows ``start`` to ``stop`` (excluded), only the entries of the given ``roles``.

        Raises
        ------
        StoreError
            If a chunk is damaged or lost.
        """
        indptr = self.pointers(start, stop)
        low, high = int(indptr[0]), int(indptr[-1])
        indices, values = (self.entries(part, low, high) for part in ("indices", "data"))
        block, wanted = RowBlock(start, stop, indptr - low, indices, values), parse_roles(roles)
        return block if wanted == ALL_ROLES else block.of(self.roles(block), wanted)

    def row_blocks(self, roles: str | Role | Iterable[str | Role] = ALL_ROLES) -> Iterator[RowBlock]:
        """Read all rows, block after block."""
        self._look_again()
        for start, stop in self.ranges():
            yield self.row_block(start, stop, roles)

    def roles(self, block: RowBlock) -> NDArray[np.uint8]:
        """Role of each entry of a block that `row_block` gave with all its roles, uint8 ndarray."""
        low = int(self.pointers(block.start, block.start)[0])
        stored = self._stored_roles(low, low + len(block.indices))
        for draw in self._draws:
            stored = draw.apply(stored, block, by_column=self._order == BY_COLUMN)
        return stored

    def role_counts(self) -> dict[str, int]:
        """Number of entries of each role."""
        self._look_again()
        counts = dict.fromkeys(Role, 0)
        if not self._draws and not self.has_split:
            counts[Role.TRAIN] = self.nnz
            return {role.name.lower(): count for role, count in counts.items()}
        if not self._draws:
            ranges = [(low, min(low + SHARD, self.nnz)) for low in range(0, self.nnz, SHARD)]
            pieces = ahead(lambda range_: self._stored_roles(*range_), ranges)
        else:
            pieces = ahead(lambda range_: self.roles(self.row_block(*range_)), self.ranges())
        for piece in pieces:
            for role in Role:
                counts[role] += int(np.count_nonzero(piece == role))
        return {role.name.lower(): count for role, count in counts.items()}

    def entries(self, part: str, low: int, high: int) -> NDArray[Any]:
        """Read positions ``low`` to ``high`` of one array of the entries: data, indices, indptr or split.

        Whatever type they are stored in, row pointers are int64, and codes of columns int32 where that holds them.

        Raises
        ------
        StoreError
            If a chunk is damaged or lost.
        """
        size = self.shape[0] + 1 if part == "indptr" else self.nnz
        found = self._entries.read(part, low, high, size)
        dtype = {"indptr": np.dtype(np.int64), "indices": index_dtype(self.shape[1])}.get(part, found.dtype)
        return found.astype(dtype, copy=False)

    def row_codes(self, ids: Any) -> NDArray[np.int64]:
        """Codes of row ids, -1 for ids that are not known."""
        from rfmdist.observations.ids import codes_of

        return codes_of(self.row_ids, ids)

    def column_codes(self, ids: Any) -> NDArray[np.int64]:
        """Codes of column ids, -1 for ids that are not known."""
        from rfmdist.observations.ids import codes_of

        return codes_of(self.column_ids, ids)

    def to_scipy(self, roles: str | Role | Iterable[str | Role] = ALL_ROLES) -> sp.csr_array:
        """All entries of ``roles`` in memory, scipy.sparse.csr_array of shape (m, n).

        Its indices are int32 where that holds them: much of what takes such a matrix refuses int64.
        """
        wanted = parse_roles(roles)
        if self.shape[0] == 0:
            return sp.csr_array(self.shape, dtype=self.dtype)
        return sp.vstack([as_csr(block, self.shape[1]) for block in self.row_blocks(wanted)], format="csr")

    def to_dask(self, roles: str | Role | Iterable[str | Role] = ALL_ROLES) -> da.Array:
        """Lazy dask array of shape (m, n) whose blocks are `sparse.COO`, one a row block; reads nothing yet."""
        import dask.array as da
        import sparse
        from dask.delayed import delayed

        wanted, n = parse_roles(roles), self.shape[1]
        meta = sparse.COO(np.zeros((2, 0), np.int64), np.zeros(0, self.dtype), shape=(0, 0))
        blocks = [
            da.from_delayed(delayed(_read_sparse)(self, start, stop, wanted), (stop - start, n), meta=meta)
            for start, stop in self.ranges() or [(0, 0)]
        ]
        return da.concatenate(blocks, axis=0)

    # ---- additions to the store -----------------------------------------------------------------------------

    def refuse_change(self) -> None:
        """Refuse to change what a completion was fitted with, or the column-ordered copy.

        Raises
        ------
        InputError
            If the store is a completion (`Completion.save` sets its mark last), or these are its columns.
        """
        if self._order == BY_COLUMN:
            raise InputError(f"{self.name}: these are its entries by column; change the observations by row instead")
        if self.attributes("completion") is not None:
            raise InputError(f"{self.name}: is a completion; change the store it was fitted to, then fit again")

    def store_split(self, roles: Iterable[NDArray[np.uint8]]) -> None:
        """Store the role of every entry; ``roles`` gives them in row order, in pieces of any length.

        Stored offsets and the column-ordered copy go: they are of the earlier split. Completions of it that are in
        memory refuse to go on. The mask is written under a temporary name and renamed, so that a store never holds
        half of one.

        Raises
        ------
        InputError
            If a role is none, their number is not that of the entries, or the store is a completion.
        StoreError
            If the disk is full; the earlier split is then still there.
        """
        self.refuse_change()
        with writing(self.name):
            write_split(self._root, roles, self.nnz, self.name)
        self._look_again()
        self.remove_offsets()

    def store_offsets(self, offsets: Offsets) -> None:
        """Store offsets for use by ``LinRFM(offsets="stored")``; earlier ones go when the new are complete.

        Raises
        ------
        InputError
            If they do not fit the matrix or are not finite, or the store is a completion.
        StoreError
            If the disk is full; earlier offsets are then still there.
        """
        self.refuse_change()
        if (np.shape(offsets.rows), np.shape(offsets.columns)) != ((self.shape[0],), (self.shape[1],)):
            raise InputError(f"{self.name}: offsets must be {self.shape[0]} for rows and {self.shape[1]} for columns")
        if not all(np.isfinite(part).all() for part in (offsets.mean, offsets.rows, offsets.columns)):
            raise InputError(f"{self.name}: offsets must be finite numbers")
        with writing(self.name):
            write_offsets(self._root, offsets, self.name)

    def remove_offsets(self) -> None:
        """Forget stored offsets, which another split makes wrong."""
        with writing(self.name):
            remove_offsets(self._root, self.name)

    def store_table(
        self, axis: Axis, table: Any, *, ids: str | int | None = None, delimiter: str | None = None
    ) -> StoredTable:
        """Store a table of the users' own columns about the rows or the columns, beside the ids.

        AnnData shows them as columns of ``obs`` or ``var``. A stored column of the same name is replaced, once the
        new one is complete; the others stay.

        Parameters
        ----------
        axis : {"rows", "columns"}
            Which ids the table is about.
        table : pandas.DataFrame, str or Path
            A frame whose index holds the ids; or delimited text with a header (``.gz`` too), a Parquet file or a
            folder of them, with a column of ids. Lines may come in any order; those of other ids are ignored, and
            ids without a line get missing values. Whole numbers are kept as int64, false and true as bool; other
            numbers, and all columns of numbers with missing values, as float64 with NaN; text as categories.
        ids : str or int, optional
            Of a file: name or 1-based position of the column of ids. When left out they are the index of a frame that
            pandas wrote to Parquet, unless it only counts the lines from 0 and has no name; else the first column.
        delimiter : str, optional
            Of a text file; found from the first lines when left out.

        Returns
        -------
        StoredTable
            The columns stored and how many ids were matched.

        Raises
        ------
        InputError
            If the table cannot be read, no id of it is in the store or one is given twice, a column has no usable
            name, holds neither numbers nor text or an infinite value, or the store is a completion.
        StoreError
            If the disk is full; what was stored earlier is then still there.
        """
        from rfmdist.observations.annotate import annotate

        self.refuse_change()
        known, frame = self._axis(axis)
        return annotate(self._root, self.name, frame, known, table, ids, delimiter)

    def table(self, axis: Axis, names: Iterable[str] | None = None) -> pd.DataFrame:
        """Read the users' own columns about the rows or the columns, as stored here or by AnnData.

        Parameters
        ----------
        axis : {"rows", "columns"}
            Which ids the table is about.
        names : iterable of str, optional
            The columns wanted, in this order; all when left out.

        Returns
        -------
        pandas.DataFrame
            Indexed by `row_ids` or `column_ids`, a line each; numbers as they are stored, text in the
            dtype that pandas gives it, or categories.

        Raises
        ------
        InputError
            If there is no such column, or AnnData keeps it in a way that is not read here.
        StoreError
            If a chunk is damaged or lost.
        """
        from rfmdist.observations.frames import read_columns

        known, frame = self._axis(axis)
        return read_columns(self._root, self.name, frame, known, self.table_names(axis) if names is None else names)

    def table_names(self, axis: Axis) -> list[str]:
        """Names of the users' own columns about the rows or the columns, in the order they are stored in."""
        from rfmdist.observations.frames import column_names

        return column_names(self._root, self.name, self._axis(axis)[1])

    def table_kinds(self, axis: Axis) -> dict[str, str]:
        """Names as `table_names`, each with what the column holds in words; no column is read."""
        from rfmdist.observations.frames import column_kinds

        return column_kinds(self._root, self.name, self._axis(axis)[1])

    def attributes(self, name: str) -> dict[str, Any] | None:
        """Settings stored under ``name`` by `set_attributes`; None where there are none."""
        holder = find_part(self._root, EXTRAS, self.name)
        found: Any = None if holder is None else holder.attrs.get(name)
        return found

    def set_attributes(self, name: str, values: dict[str, Any]) -> None:
        """Store settings, a dictionary of plain values."""
        with writing(self.name):
            extras(self._root, self.name).attrs[name] = values

    def read_floats(self, path: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
        """Read a whole array of numbers that a completion holds beside the entries; None fits any size."""
        return read_floats(self._root, self.name, path, shape)

    # ---- inside ---------------------------------------------------------------------------------------------

    def _axis(self, axis: str) -> tuple[pd.Index[Any], str]:
        """Ids of the rows or the columns, and the data frame that they lie in."""
        if axis not in ("rows", "columns"):
            raise InputError(f"axis {axis!r} is not known: use 'rows' or 'columns'")
        return (self.row_ids, self._order.rows) if axis == "rows" else (self.column_ids, self._order.columns)

    @property
    def _place(self) -> Place | None:
        """Where the store lies; None in memory."""
        store = self._root.store
        return store.url if isinstance(store, UrlStore) else self.path

    @property
    def _matrix(self) -> zarr.Group:
        matrix = find_node(self._holder, self._order.matrix, self.name)
        if matrix is None:
            raise StoreError(f"{self.name}: is gone, or not every worker sees it; put it where all do")
        assert isinstance(matrix, zarr.Group)
        return matrix

    def _array(self, name: str) -> zarr.Array[Any]:
        return self._entries.array(name)

    def _split(self, matrix: zarr.Group) -> Any:
        """The array of roles; None where none is stored."""
        found = find_node(matrix, "split", self.name)
        if found is None and self._order == BY_ROW:
            refuse_lost(self._root, path_of(matrix, "split"), self.name)
        return found

    @cached_property
    def _entries(self) -> Entries:
        return Entries(self._holder, self.name, self._order)

    def _look_again(self) -> None:
        """Let go of what was read of an earlier split: another process may have stored a new one."""
        mark = self.split_mark
        if mark != self._mark:
            self._mark = mark
            for told_before in ("_entries", "stored_bytes"):
                self.__dict__.pop(told_before, None)

    def _stored_roles(self, low: int, high: int) -> NDArray[np.uint8]:
        self._split_seen = self._split_seen or self.has_split  # asked for until it is there: at a URL that is a request
        return self.entries("split", low, high) if self._split_seen else np.zeros(high - low, np.uint8)

    def _copy(self, holder: zarr.Group | None = None) -> Self:
        """What the column-ordered copy holds, in the store or in another holder, whether or not there is one."""
        return type(self)(self._root, self._draws, BY_COLUMN, holder)

    def _is_copy_of(self, source: Observations) -> bool:
        """Whether the copy is there and fits what it was made from; if not it is to be made again."""
        try:
            fits = (self.shape, self.nnz) == (source.shape[::-1], source.nnz)
            fits = fits and (self.dtype, self.has_split) == (source.dtype, source.has_split)
            return fits and self.split_mark == source.split_mark and self._fits()
        except StoreError:
            return False

    def _fits(self) -> bool:
        """Whether the parts fit together; the entries themselves are not read."""
        order, indptr = self._order, self._array("indptr")
        ids = tuple(count_ids(self._root, self.name, frame) for frame in (order.rows, order.columns))
        fits = ids == self.shape and indptr.shape[0] == self.shape[0] + 1
        fits &= self._array("indices").shape[0] == self.nnz
        return fits and self.indptr[0] == 0 and self.indptr[-1] == self.nnz and bool((np.diff(self.indptr) >= 0).all())

    def _check(self) -> None:
        """Refuse a store whose parts are missing or do not fit together."""
        check_format(self._root, self.name)
        if self._array("indices").fill_value != FILL["indices"]:
            raise StoreError(
                f"{self.name}: its X was written anew by another program; make a new store of it with"
                " Observations.from_scipy"
            )
        if not self._fits():
            raise StoreError(f"{self.name}: its parts do not fit together; ingest the data again")


def _opened(folder: str) -> zarr.Group:
    """Open a folder for a copy of entries, or make it one."""
    with writing(folder):
        root = zarr.open_group(opened(place_of(folder)), mode="a", zarr_format=3)
        root.require_group(BY_ROW.matrix)
    return root


def _read_sparse(observations: Observations, start: int, stop: int, roles: frozenset[Role]) -> sparse.COO:
    return as_sparse(observations.row_block(start, stop, roles), observations.shape[1])
