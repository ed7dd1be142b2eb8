"""Reading arrays of a store and noticing what is damaged or lost. Knows the layout, not what values mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from rfmdist.errors import StoreError
from rfmdist.observations.layout import FILL, FORMAT, TRUE, Order, lost_value, mend_of
from rfmdist.observations.nodes import noticing, open_array, open_group, told_of


class Entries:
    """Reads the arrays of the entries of one order, chunk by chunk; several threads may ask at once.

    A chunk is decoded whole. Of each array the last chunk that a reading ended within is held, so that those who read
    on from there, block after block, decode every chunk once. A pickled one arrives with none.

    Parameters
    ----------
    root : zarr.Group
        The store; ``store`` names it in messages.
    order : Order
        Which order of the entries.
    """

    def __init__(self, root: zarr.Group, store: str, order: Order) -> None:
        self._root, self._store, self._order = root, store, order
        self._opened = _Opened(root)
        self._chunks: dict[str, int] = {}
        self._held: dict[str, tuple[int, NDArray[Any]]] = {}

    def __reduce__(self) -> tuple[type[Entries], tuple[zarr.Group, str, Order]]:
        return Entries, (self._root, self._store, self._order)

    def read(self, name: str, low: int, high: int, size: int) -> NDArray[Any]:
        """Read positions ``low`` to ``high`` of the array ``name`` of ``size`` entries.

        Raises
        ------
        StoreError
            If a chunk is damaged or lost.
        """
        found = self._read(name, low, high, size)
        lost = np.isnan(found) if name == "data" else found == FILL[name]  # never so of AnnData's unsigned codes
        if len(found) < high - low or lost.any():
            where = f" between entries {low} and {high}"
            raise _torn(self._store, self._path(name), where)
        return found

    def array(self, name: str) -> zarr.Array[Any]:
        """Return one of the arrays as it was when it was first asked for."""
        with noticing(self._store, self._path(name)):
            found = self._opened[self._path(name)]
            if not isinstance(found, zarr.Array):
                raise TypeError("it is no array")
            return found

    def _read(self, name: str, low: int, high: int, size: int) -> NDArray[Any]:
        start, held = self._held.get(name, (0, None))
        before: list[NDArray[Any]] = []
        if held is not None and start <= low < start + len(held):
            before.append(held[low - start : high - start])
            low += len(before[0])
            if low >= high:
                return before[0].copy()  # a part alone would hold all of the chunk
        chunk = self._chunk(name)
        first = low // chunk * chunk
        last = min(-(-high // chunk) * chunk, size) if low < high else first
        where = f" between entries {first} and {last}"
        values = _read(self._opened, self._store, self._path(name), slice(first, last), where)
        if high < last:
            place = (last - 1) // chunk * chunk
            self._held[name] = place, values[place - first :].copy()
        wanted = values[low - first : high - first]
        return np.concatenate([*before, wanted]) if before or len(wanted) < len(values) else wanted

    def _chunk(self, name: str) -> int:
        """Entries that are decoded at once."""
        if name not in self._chunks:
            self._chunks[name] = int(self.array(name).chunks[0])
        return self._chunks[name]

    def _path(self, name: str) -> str:
        return f"{self._order.matrix}/{name}"


class _Opened(dict[str, Any]):
    """Arrays of a store, each opened once: at a URL that is a request."""

    def __init__(self, root: zarr.Group) -> None:
        super().__init__()
        self._root = root

    def __missing__(self, path: str) -> Any:
        self[path] = found = self._root[path]
        return found


def index_path(root: zarr.Group, store: str, frame: str) -> str:
    """Where the ids of ``obs`` or ``var`` lie: AnnData gives them the name of the index that it wrote."""
    return f"{frame}/{open_group(root, frame, store).attrs.get('_index', '_index')}"


def read_floats(root: zarr.Group, store: str, path: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Read a whole array of numbers, none of which may be NaN; a size of None in ``shape`` fits any."""
    values = _read(root, store, path, slice(None))
    fits = values.ndim == len(shape) and all(a in (None, b) for a, b in zip(shape, values.shape, strict=True))
    if not fits or np.isnan(values).any():
        raise _torn(store, path)
    return values


def read_column(root: zarr.Group, store: str, path: str, size: int | None = None) -> NDArray[Any]:
    """Read a whole array of a user's column, by whomever it was written; a ``size`` of None fits any."""
    array: Any = open_array(root, path, store)
    values = _values(array, store, path, slice(None))
    lost = lost_value(values.dtype)
    missing = lost is not None and array.fill_value == lost and bool((values == lost).any())
    if TRUE in array.attrs:  # of false and true neither is left to mark what is lost
        missing = int(array.attrs[TRUE]) != np.count_nonzero(values)
    if missing or values.shape != (len(values) if size is None else size,):
        raise _torn(store, path)
    return values


def check_format(root: zarr.Group, store: str) -> None:
    """Refuse what is not a store of this version."""
    number = told_of(root).get("format")
    if number is None and "rfmdist" in root.attrs:
        raise StoreError(f"{store}: was not written to its end; write it again, and allow it to be overwritten")
    if number is None and root.attrs.get("encoding-type") == "anndata":
        raise StoreError(
            f"{store}: was written by AnnData, which keeps no mark of rfmdist; make a store of its X with"
            " Observations.from_scipy, whose row_ids and column_ids are its obs_names and var_names"
        )
    if number is None:
        raise StoreError(f"{store}: not a store written by rfmdist; make one with 'rfmdist ingest'")
    if number != FORMAT:
        raise StoreError(
            f"{store}: is of store version {number}, this rfmdist reads version {FORMAT}; ingest the data again"
        )


def _read(root: zarr.Group | _Opened, store: str, path: str, part: slice, where: str = "") -> NDArray[Any]:
    with noticing(store, path):
        array: Any = root[path]
    return _values(array, store, path, part, where)


def _values(array: Any, store: str, path: str, part: slice, where: str = "") -> NDArray[Any]:
    with noticing(store, path, where):
        return np.asarray(array[part]) if array.dtype.kind in "iufb" else array[part]


def _torn(store: str, path: str, where: str = "") -> StoreError:
    return StoreError(f"{store}: a part of {path} is missing{where}; {mend_of(path)}")
