"""Reading arrays of a store and noticing what is damaged or lost. Knows the layout, not what values mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from rfmdist.errors import StoreError, UnreachableError
from rfmdist.observations.layout import AGAIN, FILL, FORMAT, TRUE, Order, lost_value

if TYPE_CHECKING:
    import pandas as pd


STORE_AGAIN = "restore it from a copy or store the column again"


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
            raise StoreError(f"{self._store}: a part of {self._path(name)} is missing{where}; {self._order.mend}")
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
        values = _read(self._opened, self._store, self._path(name), slice(first, last), where, self._order.mend)
        if high < last:
            place = (last - 1) // chunk * chunk
            self._held[name] = place, values[place - first :].copy()
        wanted = values[low - first : high - first]
        return np.concatenate([*before, wanted]) if before or len(wanted) < len(values) else wanted

    def _chunk(self, name: str) -> int:
        """Entries that are decoded at once; 1 of an array that is gone, which reading will tell."""
        if name not in self._chunks:
            try:
                self._chunks[name] = int(self._opened[self._path(name)].chunks[0])
            except (KeyError, OSError, ValueError):
                return 1
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


def read_ids(root: zarr.Group, store: str, frame: str) -> pd.Index[Any]:
    """Read the ids of ``obs`` or ``var``."""
    import pandas as pd

    values = _read(root, store, f"{frame}/_index", slice(None))
    if (values == lost_value(values.dtype)).any():
        raise StoreError(f"{store}: a part of the ids in {frame} is missing; {AGAIN}")
    return pd.Index(values if values.dtype.kind == "i" else values.astype(object))


def read_floats(root: zarr.Group, store: str, path: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Read a whole array of numbers, none of which may be NaN; a size of None in ``shape`` fits any."""
    again = "restore it from a copy or fit again"
    values = _read(root, store, path, slice(None), again=again)
    fits = values.ndim == len(shape) and all(a in (None, b) for a, b in zip(shape, values.shape, strict=True))
    if not fits or np.isnan(values).any():
        raise StoreError(f"{store}: a part of {path} is missing; {again}")
    return values


def read_column(root: zarr.Group, store: str, path: str, size: int | None = None) -> NDArray[Any]:
    """Read a whole array of a user's column, by whomever it was written; a ``size`` of None fits any."""
    values = _read(root, store, path, slice(None), again=STORE_AGAIN)
    array: Any = root[path]
    lost = lost_value(values.dtype)
    missing = lost is not None and array.fill_value == lost and bool((values == lost).any())
    if TRUE in array.attrs:  # of false and true neither is left to mark what is lost
        missing = int(array.attrs[TRUE]) != np.count_nonzero(values)
    if missing or values.shape != (len(values) if size is None else size,):
        raise StoreError(f"{store}: a part of {path} is missing; {STORE_AGAIN}")
    return values


def check_format(root: zarr.Group, store: str) -> None:
    """Refuse what is not a store of this version or lacks one of its parts."""
    format_ = root.attrs.get("rfmdist", {})
    number = format_.get("format") if isinstance(format_, dict) else None
    if number is None and "rfmdist" in root.attrs:
        raise StoreError(f"{store}: was not written to its end; write it again, and allow it to be overwritten")
    if number is None:
        raise StoreError(f"{store}: not a store written by rfmdist; make one with 'rfmdist ingest'")
    if number != FORMAT:
        raise StoreError(
            f"{store}: is of store version {number}, this rfmdist reads version {FORMAT}; ingest the data again"
        )
    for part in ("X/data", "X/indices", "X/indptr", "obs/_index", "var/_index"):
        if part not in root:
            raise StoreError(f"{store}: {part} is missing; {AGAIN}")


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _read(
    root: zarr.Group | _Opened, store: str, path: str, part: slice, where: str = "", again: str = AGAIN
) -> NDArray[Any]:
    try:
        array: Any = root[path]
        return np.asarray(array[part]) if array.dtype.kind in "iufb" else array[part]
    except UnreachableError:  # says so itself
        raise
    except (KeyError, FileNotFoundError):
        raise StoreError(f"{store}: {path} is gone; {again}") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(f"{store}: {path} is damaged{where} ({first_line(error)}); {again}") from None
