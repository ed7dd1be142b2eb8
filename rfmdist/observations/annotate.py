"""Users' tables put beside the ids of a store: matched by id and brought to the types that are kept there.

Knows pandas and ids; not how columns lie in the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from pandas.api.types import infer_dtype

from rfmdist.errors import InputError
from rfmdist.observations.frames import Column, write_columns
from rfmdist.observations.ids import LARGEST, codes_of
from rfmdist.observations.tables import read_lines

NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal", "boolean"}
"""What pandas calls columns that are numbers."""
RESERVED = {"", ".", "..", "_index", "zarr.json"}
"""Names that AnnData or Zarr use themselves."""
LONGEST = 200
"""Bytes of a name: file names hold 255, and a column that is being written has a longer one."""


@dataclass(frozen=True)
class StoredTable:
    """What `Observations.store_table` has stored.

    Attributes
    ----------
    names : tuple of str
        The columns.
    matched : int
        Ids of the store that have a line in the table.
    lacking : int
        Ids of the store that have none, and so missing values.
    ignored : int
        Lines of the table whose id is not in the store.
    """

    names: tuple[str, ...]
    matched: int
    lacking: int
    ignored: int


def annotate(
    root: zarr.Group,
    store: str,
    frame: str,
    known: pd.Index[Any],
    table: Any,
    ids: str | int | None,
    delimiter: str | None,
) -> StoredTable:
    """Match a table with the ids ``known`` and write its columns into ``frame`` (see `Observations.store_table`)."""
    given, name = (table, "data frame") if isinstance(table, pd.DataFrame) else (None, str(table))
    lines, rival = read_lines(table, ids, delimiter) if given is None else (given, None)
    _check_names(list(lines.columns), name)
    if rival is not None:
        _refuse_rival(known, lines.index, rival, name)
    places = _places(known, lines.index, name, store)
    # Label -1 is not in a fresh index: the ids that have no line get missing values.
    aligned = lines.reset_index(drop=True).reindex(places)
    write_columns(root, store, frame, {str(label): _column(aligned[label], known, name) for label in aligned})
    matched = int(np.count_nonzero(places >= 0))
    return StoredTable(tuple(aligned.columns), matched, len(known) - matched, len(lines) - matched)


def _check_names(names: list[Any], source: str) -> None:
    """Refuse a table without columns, and names that a store cannot hold or that occur twice."""
    if not names:
        raise InputError(f"{source}: has no column beside the ids; add what is to be stored")
    for place, name in enumerate(names):
        if not isinstance(name, str):
            raise InputError(f"{source}: the column name {name!r} is not text; rename the column")
        usable = name not in RESERVED and not name.startswith("__") and not set(name) & set("/\\\0")
        if not usable or len(name.encode(errors="replace")) > LONGEST:
            raise InputError(f"{source}: a column of a store cannot be called {name!r}; rename it")
        if name in names[:place]:
            raise InputError(f"{source}: two columns are called {name!r}; rename one")


def _refuse_rival(known: pd.Index[Any], ids: pd.Index[Any], rival: pd.Index[Any], source: str) -> None:
    """Refuse to guess where other ids of the same lines are those of the store in as many lines."""
    codes, others = codes_of(known, ids), codes_of(known, rival)
    if np.count_nonzero(others >= 0) >= np.count_nonzero(codes >= 0) and (others != codes).any():
        raise InputError(
            f"{source}: its ids may be the column {ids.name!r} or the index, which has no name; name the column of"
            " ids, or the index before it is written"
        )


def _places(known: pd.Index[Any], ids: pd.Index[Any], source: str, store: str) -> NDArray[np.int64]:
    """Position in ``ids`` of each known id, -1 where it is not there, int64 ndarray of shape (known,)."""
    codes = codes_of(known, ids)
    found = np.flatnonzero(codes >= 0)
    if not len(found):
        raise InputError(
            f"{source}: none of its {len(ids)} ids is in {store}; name the column of ids, and check whether they are"
            " of rows or of columns"
        )
    counts = np.bincount(codes[found], minlength=len(known))
    if counts.max() > 1:
        raise InputError(f"{source}: the id {known[int(counts.argmax())]} has {counts.max()} lines; keep one of them")
    places = np.full(len(known), -1, np.int64)
    places[codes[found]] = found
    return places


def _column(given: pd.Series[Any], known: pd.Index[Any], source: str) -> Column:
    """Bring a column to one of the types that are kept."""
    where, kind = f"{source}: the column {given.name!r}", infer_dtype(given, skipna=True)
    if given.isna().all() and kind != "categorical":
        return np.full(len(given), np.nan)
    if kind in NUMBERS:
        return _numbers(given, kind, known, where)
    if kind == "string":
        return pd.Categorical(given.astype(object))
    if kind == "categorical":
        return _categories(given, where)
    raise InputError(f"{where} holds {kind} values; make them numbers or text")


def _numbers(given: pd.Series[Any], kind: str, known: pd.Index[Any], where: str) -> NDArray[Any]:
    """Numbers as bool, int64 or, with fractions or missing values, float64."""
    if kind == "boolean" and given.notna().all():
        return given.to_numpy(bool)
    if kind == "integer" and given.notna().all():
        for number in (int(given.min()), int(given.max())):
            if not -LARGEST <= number <= LARGEST:
                raise InputError(f"{where} holds {number}, which is more than int64 keeps; make it floats or text")
        return given.to_numpy(np.int64)
    values = given.to_numpy(np.float64, na_value=np.nan)
    infinite = np.isinf(values)
    if infinite.any():
        raise InputError(f"{where} is infinite at the id {known[int(infinite.argmax())]}; leave it empty or correct it")
    return values


def _categories(given: pd.Series[Any], where: str) -> pd.Categorical:
    """Categories as text or int64."""
    categories = pd.Index(list(given.cat.categories))
    kind = infer_dtype(categories)
    if kind not in ("string", "empty") and categories.dtype != np.int64:
        raise InputError(f"{where} has categories that are {kind} values; make them text or int64")
    return pd.Categorical.from_codes(given.cat.codes.to_numpy(), categories, ordered=given.cat.ordered)
