"""Users' own columns in ``obs`` and ``var``, as AnnData keeps them. Knows encodings; not ids, not tables of users."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import zarr
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.files import in_place, remove
from rfmdist.observations.layout import TRUE, create_text, create_values, lost_value
from rfmdist.observations.nodes import find_node, noticing, open_group, writing
from rfmdist.observations.reading import read_column

if TYPE_CHECKING:
    import pandas as pd

Axis: TypeAlias = Literal["rows", "columns"]
"""Which ids a table is about."""
Column: TypeAlias = "NDArray[Any] | pd.Categorical"
"""What can be written: int64 or bool, float64 without infinities, or categories that are text or int64."""
ORDER = "column-order"
KINDS = {"b": "yes or no", "i": "integers", "u": "integers", "f": "numbers"}
"""What arrays hold, in words, by the kind of their dtype."""


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
        return f"{found['categories'].shape[0]} categories"
    return {"string-array": "text", "nullable-integer": "integers", "nullable-boolean": "yes or no"}.get(
        encoding, encoding
    )


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


def _read(root: zarr.Group, store: str, path: str, size: int) -> Any:
    """Read one column, in the type of pandas or NumPy that fits its encoding."""
    import pandas as pd

    read: Any = partial(read_column, root, store)
    attributes = root[path].attrs
    encoding = attributes.get("encoding-type")
    if encoding == "array":
        return read(path, size)
    if encoding == "string-array":
        return read(path, size).astype(object)
    if encoding == "categorical":
        codes, categories = read(f"{path}/codes", size), read(f"{path}/categories")
        labels = categories if categories.dtype.kind in "biuf" else categories.astype(object)
        return pd.Categorical.from_codes(codes, pd.Index(labels), ordered=bool(attributes["ordered"]))
    if encoding in ("nullable-integer", "nullable-boolean"):
        masked = pd.arrays.IntegerArray if encoding == "nullable-integer" else pd.arrays.BooleanArray
        return masked(read(f"{path}/values", size), read(f"{path}/mask", size))
    raise InputError(f"{store}: the column {path} is encoded as {encoding}; store it again as numbers or text")
