"""Ids and codes: the users' own names of rows and columns, and their places. Knows no files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rfmdist.errors import InputError


def codes_of(known: pd.Index[Any], ids: Any) -> NDArray[np.int64]:
    """Positions of ``ids`` in ``known``, -1 where one is not there. Text and integers match by their text."""
    wanted = pd.Index(np.atleast_1d(np.asarray(ids)))
    if (known.dtype == object) != (wanted.dtype == object):
        known, wanted = known.map(str), wanted.map(str)
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
