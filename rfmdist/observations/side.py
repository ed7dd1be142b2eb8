"""Users' columns as numbers that a fit can use: standardised, categories one column each. Knows no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.frames import Axis
from rfmdist.observations.store import Observations

if TYPE_CHECKING:
    import pandas as pd

MOST_CATEGORIES = 64
"""Categories a column may have: each is a column of its own, and one that few ids share explains little."""


def side_columns(observations: Observations, axis: Axis, names: Iterable[str]) -> NDArray[np.float64]:
    """Return users' columns about the rows or the columns as standardised numbers.

    A column of numbers gives one column, of mean 0 and deviation 1 over the ids that have a value. Categories and
    text give a column for each category that occurs, in the order of the categories, 1 at its ids and 0 at others,
    standardised alike. Missing values are 0, which is the mean; a column that is constant or empty gives none.

    Parameters
    ----------
    observations : Observations
        The store.
    axis : {"rows", "columns"}
        Which ids the columns are about; ``size`` is their number.
    names : iterable of str
        The stored columns, in the order wanted; none of them gives an array of shape (size, 0).

    Returns
    -------
    ndarray of shape (size, e), float64
        In the order of the codes of the ids.

    Raises
    ------
    InputError
        If there is no such column, it cannot be read, has more than 64 categories or holds an infinite value.
    StoreError
        If a chunk is damaged or lost.
    """
    table = observations.table(axis, names)
    found = [column for name in table for column in _numbers(table[name], f"{observations.name}: the column {name!r}")]
    usable = [column for values in found if (column := standardised(values)) is not None]
    return np.column_stack([np.empty((len(table), 0)), *usable])


def _numbers(column: pd.Series[Any], where: str) -> Iterator[NDArray[np.float64]]:
    """Yield a column as float64 with NaN for missing values; of categories one column each."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column.dtype):
        values = column.to_numpy(np.float64, na_value=np.nan)
        if np.isinf(values).any():
            raise InputError(f"{where} holds an infinite value; store it again without")
        yield values
        return
    categories = column.astype("category").cat.remove_unused_categories().cat
    count = len(categories.categories)
    if count > MOST_CATEGORIES:
        raise InputError(
            f"{where} has {count} categories, of which at most {MOST_CATEGORIES} can be used; group them, or store"
            " numbers in their place"
        )
    codes = categories.codes.to_numpy()
    for code in range(count):
        yield np.where(codes < 0, np.nan, codes == code)


def standardised(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Values of mean 0 and deviation 1 with 0 for NaN; None where all are the same or missing."""
    given = values[~np.isnan(values)]
    if not len(given) or given.min() == given.max():
        return None
    scale = np.abs(given).max()  # so that squares of the largest numbers do not overflow
    centred = values / scale - (given / scale).mean()
    return np.nan_to_num(centred / np.sqrt(np.nanmean(np.square(centred))), copy=False, nan=0.0)
