"""`Observations`: what was observed of a matrix, in one Zarr store. Knows reading; not ingestion, not models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import dask.array as da
import numpy as np
import pandas as pd
import scipy.sparse as sp
import sparse
import zarr
from dask.delayed import delayed
from numpy.typing import NDArray
from zarr.storage import LocalStore

from rfmdist.errors import InputError, StoreError, disk_error
from rfmdist.observations.blocks import ALL_ROLES, Offsets, Role, RowBlock, parse_roles
from rfmdist.observations.draws import HoldOut
from rfmdist.observations.layout import FILL, FORMAT, LOST_ID, SHARD, create_array
from rfmdist.observations.writer import DuplicateEntryError, StoreWriter, settle_writes

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
        Where the store lies; None in memory.
    """

    def __init__(self, root: zarr.Group, held_out: HoldOut | None = None) -> None:
        self._root = root
        self._held_out = held_out

    # ---- making and opening ---------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a store and check that it is whole, without reading its entries.

        Raises
        ------
        StoreError
            If there is no store, or it is of another version, torn or damaged.
        """
        path = Path(path)
        if not path.exists():
            raise StoreError(f"{path}: no such store; make one with 'rfmdist ingest'")
        try:
            root = zarr.open_group(path.absolute(), mode="r+")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: not a Zarr store of observations ({_first_line(error)})") from None
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
            float32 stays float32, anything else becomes float64.
        path : str or Path, optional
            Where to write the store; in memory when left out.
        row_ids, column_ids : array_like of int or str, optional
            Ids by code; 0, 1, ... when left out.
        overwrite : bool, default False
            Replace what is at ``path``.

        Raises
        ------
        InputError
            If an entry is given twice, a value is not finite, ids repeat or their number is wrong.
        """
        coo = sp.coo_array(matrix)
        order = np.lexsort((coo.col, coo.row))
        rows, columns, values = coo.row[order], coo.col[order], coo.data[order]
        ids = check_ids(row_ids, coo.shape[0], "row_ids"), check_ids(column_ids, coo.shape[1], "column_ids")
        with StoreWriter(path, coo.shape, _value_dtype(values.dtype), overwrite=overwrite) as writer:
            for start in range(0, max(len(rows), 1), SHARD):
                part = slice(start, start + SHARD)
                _append(writer, ids, rows[part], columns[part], values[part])
            return cls(writer.finish(*ids))

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
        if array.ndim != 2 or any(np.isnan(s) for s in array.shape):
            raise InputError(
                "from_dask needs a two-dimensional array of known shape; compute its chunk sizes first"
            )
        shape = (int(array.shape[0]), int(array.shape[1]))
        ids = check_ids(row_ids, shape[0], "row_ids"), check_ids(column_ids, shape[1], "column_ids")
        starts = np.concatenate([[0], np.cumsum(array.chunks[0])])
        with StoreWriter(path, shape, _value_dtype(array.dtype), overwrite=overwrite) as writer:
            for start, blocks in zip(starts[:-1], array.to_delayed(), strict=True):
                parts = [_as_coo(block.compute()) for block in blocks]
                rows, columns, values = _joined(parts, array.chunks[1])
                _append(writer, ids, rows + int(start), columns, values)
            return cls(writer.finish(*ids))

    def hold_out(self, fraction: float, seed: int) -> Self:
        """Return the same observations with a random part of the training entries as validation entries.

        Nothing is written: which entries are held out is a function of the seed and the entry's position.
        """
        return type(self)(self._root, HoldOut(fraction, seed))

    # ---- what is there --------------------------------------------------------------------------------------

    @cached_property
    def shape(self) -> tuple[int, int]:
        shape: Any = self._matrix.attrs["shape"]
        return int(shape[0]), int(shape[1])

    @property
    def nnz(self) -> int:
        return int(self._array("data").shape[0])

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
    def name(self) -> str:
        """The path, for messages."""
        return str(self.path or "observations in memory")

    @cached_property
    def indptr(self) -> NDArray[np.int64]:
        """Where each row's entries begin, int64 ndarray of shape (m + 1,)."""
        return np.asarray(self._read("indptr", 0, self.shape[0] + 1))

    @cached_property
    def row_ids(self) -> pd.Index[Any]:
        return self._ids("obs")

    @cached_property
    def column_ids(self) -> pd.Index[Any]:
        return self._ids("var")

    @property
    def has_split(self) -> bool:
        """Whether a split is stored."""
        return "split" in self._matrix

    @property
    def offsets(self) -> Offsets | None:
        """The stored offsets, if any (see `store_offsets`)."""
        if "uns/rfmdist/offsets" not in self._root:
            return None
        group: Any = self._root["uns/rfmdist/offsets"]
        return Offsets(
            float(group["mean"][()]), np.asarray(group["rows"][:]), np.asarray(group["columns"][:])
        )

    # ---- reading --------------------------------------------------------------------------------------------

    def ranges(
        self, within: tuple[int, int] | None = None, entries: int = BLOCK_ENTRIES, rows: int = BLOCK_ROWS
    ) -> list[tuple[int, int]]:
        """Cut the rows ``within`` a range into ranges of at most ``entries`` entries and ``rows`` rows.

        The cut depends on the row counts alone, never on the machine, so that sums over it are reproducible.
        """
        first, last = within or (0, self.shape[0])
        indptr, cuts = self.indptr, [first]
        while cuts[-1] < last:
            start = cuts[-1]
            fit = int(np.searchsorted(indptr, indptr[start] + entries, side="right")) - 1
            cuts.append(min(max(fit, start + 1), start + rows, last))
        return list(pairwise(cuts))

    def row_block(
        self, start: int, stop: int, roles: str | Role | Iterable[str | Role] = ALL_ROLES
    ) -> RowBlock:
        """Read rows ``start`` to ``stop`` (excluded), only the entries of the given ``roles``.

        Raises
        ------
        StoreError
            If a chunk is damaged or lost.
        """
        indptr = self.indptr[start : stop + 1]
        low, high = int(indptr[0]), int(indptr[-1])
        block = RowBlock(
            start, stop, indptr - low, self._read("indices", low, high), self._read("data", low, high)
        )
        wanted = parse_roles(roles)
        if wanted == ALL_ROLES or (not self.has_split and self._held_out is None and Role.TRAIN in wanted):
            return block
        return block.where(np.isin(self.roles(low, high), list(wanted)))

    def row_blocks(self, roles: str | Role | Iterable[str | Role] = ALL_ROLES) -> Iterator[RowBlock]:
        """Read all rows, block after block."""
        for start, stop in self.ranges():
            yield self.row_block(start, stop, roles)

    def roles(self, low: int, high: int) -> NDArray[np.uint8]:
        """Role of each entry at positions ``low`` to ``high`` in row order, uint8 ndarray."""
        stored = self._read("split", low, high) if self.has_split else np.zeros(high - low, np.uint8)
        return stored if self._held_out is None else self._held_out.apply(stored, low)

    def role_counts(self) -> dict[str, int]:
        """Number of entries of each role."""
        counts = np.zeros(len(Role), np.int64)
        for low in range(0, self.nnz, SHARD):
            counts += np.bincount(self.roles(low, min(low + SHARD, self.nnz)), minlength=len(Role))
        return {role.name.lower(): int(count) for role, count in zip(Role, counts, strict=True)}

    def row_codes(self, ids: Any) -> NDArray[np.int64]:
        """Codes of row ids, -1 for ids that are not known."""
        return codes_of(self.row_ids, ids)

    def column_codes(self, ids: Any) -> NDArray[np.int64]:
        """Codes of column ids, -1 for ids that are not known."""
        return codes_of(self.column_ids, ids)

    def to_scipy(self, roles: str | Role | Iterable[str | Role] = ALL_ROLES) -> sp.csr_array:
        """All entries of ``roles`` in memory, scipy.sparse.csr_array of shape (m, n)."""
        wanted = parse_roles(roles)
        if self.shape[0] == 0:
            return sp.csr_array(self.shape, dtype=self.dtype)
        return sp.vstack([_csr(block, self.shape[1]) for block in self.row_blocks(wanted)], format="csr")

    def to_dask(self, roles: str | Role | Iterable[str | Role] = ALL_ROLES) -> da.Array:
        """Lazy dask array of shape (m, n) whose blocks are `sparse.COO`, one a row block; reads nothing yet."""
        wanted, n = parse_roles(roles), self.shape[1]
        meta = sparse.COO(np.zeros((2, 0), np.int64), np.zeros(0, self.dtype), shape=(0, 0))
        blocks = [
            da.from_delayed(delayed(_read_coo)(self, start, stop, wanted), (stop - start, n), meta=meta)
            for start, stop in self.ranges()
        ]
        return da.concatenate(blocks, axis=0)

    # ---- additions to the store -----------------------------------------------------------------------------

    def store_split(self, roles: Iterable[NDArray[np.uint8]]) -> None:
        """Store the role of every entry; ``roles`` gives them in row order in pieces of one shard.

        The mask is written under a temporary name and renamed, so that a store never holds half of one.
        """
        self._write_split(roles)
        self.remove_offsets()

    def store_offsets(self, offsets: Offsets) -> None:
        """Store offsets for use by ``LinRFM(offsets="stored")``."""
        self.remove_offsets()
        try:
            group = self._extras().create_group(
                "offsets", attributes={"encoding-type": "dict", "encoding-version": "0.1.0"}
            )
            for name, value in (("rows", offsets.rows), ("columns", offsets.columns)):
                create_array(group, name, len(value), np.dtype(np.float64), np.nan)[:] = value
            group.create_array("mean", data=np.array(offsets.mean))
        except OSError as error:
            raise disk_error(error, self.name) from None

    def remove_offsets(self) -> None:
        """Forget stored offsets, which another split makes wrong."""
        if "uns/rfmdist/offsets" in self._root:
            del self._root["uns/rfmdist/offsets"]

    def attributes(self, name: str) -> dict[str, Any] | None:
        """Settings stored under ``name`` by `set_attributes`; None where there are none."""
        if "uns/rfmdist" not in self._root:
            return None
        found: Any = self._root["uns/rfmdist"].attrs.get(name)
        return found

    def set_attributes(self, name: str, values: dict[str, Any]) -> None:
        """Store settings, a dictionary of plain values."""
        self._extras().attrs[name] = values

    def read_features(self) -> NDArray[Any]:
        """Read the feature matrix of a completion, ndarray of shape (n, n)."""
        try:
            array: Any = self._root["varp/features"]
            values = np.asarray(array[:])
        except KeyError:
            raise StoreError(f"{self.name}: varp/features is missing; fit again") from None
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreError(
                f"{self.name}: varp/features is damaged ({_first_line(error)}); fit again"
            ) from None
        if values.shape != (self.shape[1], self.shape[1]) or np.isnan(values).any():
            raise StoreError(f"{self.name}: a part of varp/features is missing; fit again")
        return values

    # ---- inside ---------------------------------------------------------------------------------------------

    def _extras(self) -> zarr.Group:
        """What AnnData has no place for, under ``uns``."""
        holder = self._root.require_group("uns/rfmdist")
        holder.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        return holder

    @property
    def _matrix(self) -> zarr.Group:
        matrix = self._root["X"]
        assert isinstance(matrix, zarr.Group)
        return matrix

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self._matrix[name]
        assert isinstance(array, zarr.Array)
        return array

    def _read(self, name: str, low: int, high: int) -> NDArray[Any]:
        """Read a range of an array of X; a lost or damaged chunk is an error."""
        try:
            values = np.asarray(self._array(name)[low:high])
        except FileNotFoundError:
            raise StoreError(f"{self.name}: X/{name} is gone; ingest the data again") from None
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreError(
                f"{self.name}: X/{name} is damaged between entries {low} and {high} ({_first_line(error)});"
                " restore it from a copy or ingest the data again"
            ) from None
        lost = np.isnan(values) if name == "data" else values == np.asarray(FILL[name]).astype(values.dtype)
        if len(values) < high - low or lost.any():
            raise StoreError(
                f"{self.name}: a part of X/{name} is missing between entries {low} and {high};"
                " restore it from a copy or ingest the data again"
            )
        return values

    def _ids(self, frame: str) -> pd.Index[Any]:
        try:
            array: Any = self._root[f"{frame}/_index"]
            values = array[:]
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise StoreError(f"{self.name}: the ids in {frame} are damaged ({_first_line(error)})") from None
        if (values == LOST_ID[values.dtype.kind]).any():
            raise StoreError(f"{self.name}: a part of the ids in {frame} is missing; ingest the data again")
        return pd.Index(values if values.dtype.kind == "i" else values.astype(object))

    def _check(self) -> None:
        """Refuse a store whose parts are missing or do not fit together."""
        format_ = self._root.attrs.get("rfmdist", {})
        number = format_.get("format") if isinstance(format_, dict) else None
        if number is None:
            raise StoreError(f"{self.name}: not a store written by rfmdist; make one with 'rfmdist ingest'")
        if number != FORMAT:
            raise StoreError(
                f"{self.name}: is of store version {number}, this rfmdist reads version {FORMAT}; ingest the data again"
            )
        for part in ("X/data", "X/indices", "X/indptr", "obs/_index", "var/_index"):
            if part not in self._root:
                raise StoreError(f"{self.name}: {part} is missing; ingest the data again")
        arrays: Any = self._root
        sizes = [int(arrays[part].shape[0]) for part in ("X/indptr", "obs/_index", "var/_index", "X/indices")]
        fits = sizes == [self.shape[0] + 1, *self.shape, self.nnz]
        fits &= not self.has_split or self._array("split").shape[0] == self.nnz
        fits = (
            fits
            and self.indptr[0] == 0
            and self.indptr[-1] == self.nnz
            and bool((np.diff(self.indptr) >= 0).all())
        )
        if not fits:
            raise StoreError(f"{self.name}: its parts do not fit together; ingest the data again")

    def _write_split(self, roles: Iterable[NDArray[np.uint8]]) -> None:
        name = "split.partial"
        try:
            if name in self._matrix:
                del self._matrix[name]
            array = create_array(self._matrix, name, self.nnz, np.dtype(np.uint8), FILL["split"])
            low = 0
            for piece in roles:
                array[low : low + len(piece)] = piece
                low += len(piece)
            if low != self.nnz:
                raise InputError(
                    f"{self.name}: a split of {low} entries does not fit {self.nnz} observed entries"
                )
            rename_array(self._matrix, name, "split")
        except BaseException as error:
            settle_writes()
            if name in self._matrix:
                del self._matrix[name]
            if isinstance(error, OSError):
                raise disk_error(error, self.name) from None
            raise


def rename_array(group: zarr.Group, old: str, new: str) -> None:
    """Give an array its final name, in place of an earlier one of that name."""
    store = group.store
    if isinstance(store, LocalStore):
        from rfmdist.observations.writer import replace_folder

        folder = Path(store.root) / group.path
        replace_folder(folder / old, folder / new)
        return
    if new in group:
        del group[new]
    values: Any = group[old]
    create_array(group, new, values.shape[0], values.dtype, values.fill_value)[:] = values[:]
    del group[old]


def codes_of(known: pd.Index[Any], ids: Any) -> NDArray[np.int64]:
    """Positions of ``ids`` in ``known``, -1 where one is not there. Text and integers match by their text."""
    wanted = pd.Index(np.atleast_1d(np.asarray(ids)))
    if known.dtype == object and wanted.dtype != object:
        wanted = wanted.astype(str).astype(object)
    elif known.dtype != object and wanted.dtype == object:
        numbers = pd.to_numeric(wanted, errors="coerce")
        wanted = (
            pd.Index(np.where(np.isnan(numbers), -1, numbers).astype(np.int64)) if len(numbers) else wanted
        )
        codes = known.get_indexer(wanted)
        return np.where(np.isnan(np.asarray(numbers, float)), -1, codes).astype(np.int64)
    return np.asarray(known.get_indexer(wanted), np.int64)


def check_ids(ids: Any, size: int, name: str) -> pd.Index[Any]:
    """Ids as an index of integers or text; 0, 1, ... when None."""
    if ids is None:
        return pd.Index(np.arange(size))
    index = pd.Index(np.asarray(ids))
    if len(index) != size:
        raise InputError(f"{name} has {len(index)} ids for {size} places; give one a place")
    if not pd.api.types.is_integer_dtype(index.dtype):
        if pd.api.types.is_numeric_dtype(index.dtype):
            raise InputError(f"{name} must be integers or text, not {index.dtype}")
        index = index.map(str).astype(object)
    if not index.is_unique:
        raise InputError(f"{name} holds {index[index.duplicated()][0]!r} twice; ids must differ")
    return index


def _append(
    writer: StoreWriter, ids: tuple[pd.Index[Any], pd.Index[Any]], rows: Any, columns: Any, values: Any
) -> None:
    try:
        writer.append(rows, columns, values)
    except DuplicateEntryError as twice:
        raise InputError(
            f"row {ids[0][twice.row]}, column {ids[1][twice.column]} is given twice; keep one of the entries"
        ) from None


def _joined(parts: list[Any], widths: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Entries of blocks that lie side by side, in the order of rows, then columns."""
    lefts = np.concatenate([[0], np.cumsum(widths)])[:-1]
    rows = np.concatenate([p.row for p in parts]).astype(np.int64)
    columns = np.concatenate([p.col + int(left) for p, left in zip(parts, lefts, strict=True)]).astype(
        np.int64
    )
    order = np.lexsort((columns, rows))
    return rows[order], columns[order], np.concatenate([p.data for p in parts])[order]


def _as_coo(block: Any) -> sp.coo_array:
    if isinstance(block, sparse.SparseArray):
        coo = block.asformat("coo")
        return sp.coo_array((coo.data, (coo.coords[0], coo.coords[1])), shape=coo.shape)
    if not sp.issparse(block):
        raise InputError("from_dask needs blocks of the sparse package or of scipy.sparse, not dense arrays")
    return sp.coo_array(block)


def _csr(block: RowBlock, n: int) -> sp.csr_array:
    return sp.csr_array((block.values, block.indices, block.indptr), shape=(block.stop - block.start, n))


def _read_coo(observations: Observations, start: int, stop: int, roles: frozenset[Role]) -> sparse.COO:
    block = observations.row_block(start, stop, roles)
    shape = (stop - start, observations.shape[1])
    return sparse.COO(np.stack([block.rows - start, block.indices]), block.values, shape=shape, sorted=True)


def _value_dtype(dtype: Any) -> np.dtype[Any]:
    return np.dtype(np.float32 if np.dtype(dtype) == np.float32 else np.float64)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
