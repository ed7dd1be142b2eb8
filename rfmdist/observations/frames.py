"""Ids and users' own columns in ``obs`` and ``var``, in the encodings of AnnData. Knows no table that comes in.

Read is whatever AnnData 0.11 to 0.13 writes for numbers and text, since either may have rewritten ``obs`` or ``var``.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import zarr
from numpy.typing import NDArray

from rfmdist.errors import InputError, StoreError
from rfmdist.observations.files import in_place, remove
from rfmdist.observations.layout import TRUE, create_text, create_values, lost_value
from rfmdist.observations.nodes import find_node, noticing, open_group, writing
from rfmdist.observations.reading import index_path, read_column

if TYPE_CHECKING:
    import pandas as pd

Axis: TypeAlias = Literal["rows", "columns"]
"""Which ids a table is about."""
Column: TypeAlias = "NDArray[Any] | pd.Categorical"
"""What can be written: int64 or bool, float64 without infinities, or categories that are text or int64."""
ORDER = "column-order"
KINDS = {"b": "yes or no", "i": "integers", "u": "integers", "f": "numbers"}
"""What arrays hold, in words, by the kind of their dtype."""
NULLABLE = {"nullable-string-array": "text", "nullable-integer": "integers", "nullable-boolean": "yes or no"}
"""What groups of values and a mask of those that are missing hold, by AnnData's name of the encoding."""


def write_columns(root: zarr.Group, store: str, frame: str, columns: dict[str, Column]) -> None:
    """Write columns into ``obs`` or ``var``; none takes the place of an earlier one before all are complete.

    Parameters
    ----------
    root : zarr.Group
        The store; ``store`` names it in messages.
    frame : str
        ``obs`` or ``var``.
    columns : dict of str to ndarray or pandas.Categorical
        By name, each as long as the index.

    Raises
    ------
    StoreError
        If the disk is full; the earlier columns are then still there.
    """
    group = open_group(root, frame, store)
    order = column_names(root, store, frame)
    new = [name for name in columns if name not in order]
    with writing(store):
        with ExitStack() as stack:
            for name, values in columns.items():
                _write(group, stack.enter_context(in_place(group, name, store)), values)
        try:
            if new:  # last: a column that is not in this list is not seen, one that is in it must be there
                group.attrs[ORDER] = order + new
        except OSError:
            for name in new:
                remove(group, name)
            raise


def read_columns(root: zarr.Group, store: str, frame: str, ids: pd.Index[Any], names: Iterable[str]) -> pd.DataFrame:
    """Read columns of ``obs`` or ``var`` into a table indexed by ``ids``.

    Raises
    ------
    InputError
        If there is no such column, or it is encoded in a way that is not read here.
    StoreError
        If a chunk is damaged or lost.
    """
    import pandas as pd

    there = column_names(root, store, frame)
    columns = {}
    for name in names:
        if name not in there:
            has = f"there are {', '.join(there)}" if there else "there is none yet; store a table with it first"
            raise InputError(f"{store}: no column {name!r} beside the ids in {frame}; {has}")
        with noticing(store, f"{frame}/{name}"):
            columns[name] = _read(root, store, f"{frame}/{name}", len(ids))
    return pd.DataFrame(columns, index=ids)


def read_ids(root: zarr.Group, store: str, frame: str) -> pd.Index[Any]:
    """Read the ids of ``obs`` or ``var``, int64 or text.

    Raises
    ------
    StoreError
        If a chunk is damaged or lost, or AnnData wrote ids that are missing, given twice or neither integers nor text.
    """
    import pandas as pd

    path = index_path(root, store, frame)
    with noticing(store, path):
        written = root[path]
    found = _read(root, store, path)
    if isinstance(written, zarr.Array) and written.fill_value == lost_value(written.dtype):
        return pd.Index(found)  # ours: they were checked before they were written
    from rfmdist.observations.ids import check_ids

    try:
        return check_ids(found, len(found), path)
    except InputError as error:
        raise StoreError(f"{store}: {error}; correct {frame} where it was written") from None


def count_ids(root: zarr.Group, store: str, frame: str) -> int:
    """Number of the ids of ``obs`` or ``var``; they are not read."""
    path = index_path(root, store, frame)
    with noticing(store, path):
        return _length(root[path])


def column_names(root: zarr.Group, store: str, frame: str) -> list[str]:
    """Names of the columns of ``obs`` or ``var``, in their order."""
    with noticing(store, frame):
        order: Any = root[frame].attrs[ORDER]
        return [str(name) for name in order]


def column_kinds(root: zarr.Group, store: str, frame: str) -> dict[str, str]:
    """Names of the columns of ``obs`` or ``var`` in their order, and what each holds, in words."""
    group = open_group(root, frame, store)
    return {name: _kind(find_node(group, name, store)) for name in column_names(root, store, frame)}


def _kind(found: Any) -> str:
    """Return what a stored column holds, in words, or how it is encoded where that is not read here."""
    encoding = "nothing" if found is None else str(found.attrs.get("encoding-type"))
    if encoding == "array":
        return KINDS.get(found.dtype.kind, encoding)
    if encoding == "categorical" and "categories" in found:
        return f"{_length(found['categories'])} categories"
    return "text" if encoding == "string-array" else NULLABLE.get(encoding, encoding)


def _length(found: Any) -> int:
    """Number of elements of what is stored in any encoding."""
    while isinstance(found, zarr.Group):  # a categorical has codes, whatever may lack an element has values
        found = found["codes" if "codes" in found else "values"]
    return int(found.shape[0])


def _write(group: zarr.Group, name: str, values: Column) -> None:
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "b":
            create_values(group, name, values, False).attrs[TRUE] = int(values.sum())
        else:
            create_values(group, name, values, lost_value(values.dtype))
        return
    attributes = {"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": bool(values.ordered)}
    holder = group.create_group(name, attributes=attributes)
    codes, categories = np.asarray(values.codes), np.asarray(values.categories)
    create_values(holder, "codes", codes, lost_value(codes.dtype))
    if categories.dtype.kind == "i":
        create_values(holder, "categories", categories, lost_value(categories.dtype))
    else:
        create_text(holder, "categories", categories)


def _read(root: zarr.Group, store: str, path: str, size: int | None = None) -> Any:
    """Read a column, index or categories in the type that fits; a ``size`` of None fits any. Text is of objects."""
    import pandas as pd

    with noticing(store, path):
        attributes = root[path].attrs
    encoding = attributes.get("encoding-type")
    if encoding == "array":
        return read_column(root, store, path, size)
    if encoding == "string-array":
        return read_column(root, store, path, size).astype(object)
    if encoding == "categorical":
        codes, categories = _read(root, store, f"{path}/codes", size), _read(root, store, f"{path}/categories")
        return pd.Categorical.from_codes(codes, pd.Index(categories), ordered=bool(attributes["ordered"]))
    if encoding in NULLABLE:
        values = _read(root, store, f"{path}/values", size)
        mask = read_column(root, store, f"{path}/mask", len(values))
        if encoding == "nullable-string-array":
            return np.where(mask, None, values)
        return (pd.arrays.IntegerArray if encoding == "nullable-integer" else pd.arrays.BooleanArray)(values, mask)
    raise InputError(f"{store}: the column {path} is encoded as {encoding}; store it again as numbers or text")
