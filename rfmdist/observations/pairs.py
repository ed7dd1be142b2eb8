"""Entries given as pairs of ids and their values, as scikit-learn passes X and y. Knows ids; not models, not files."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.store import Observations


def ids_of_pairs(pairs: Any) -> tuple[Any, Any]:
    """Split pairs of shape (entries, 2), an array, a list or a data frame, into ids of rows and ids of columns.

    Raises
    ------
    InputError
        If they are not pairs.
    """
    if hasattr(pairs, "iloc") and pairs.shape[1:] == (2,):  # a frame, whose columns may be of two types
        return pairs.iloc[:, 0].to_numpy(), pairs.iloc[:, 1].to_numpy()
    given = np.asarray(pairs)
    if given.ndim != 2 or given.shape[1] != 2:
        raise InputError(
            f"entries must be pairs of a row id and a column id, of shape (entries, 2), not {given.shape}; a matrix is"
            " given as a scipy sparse matrix, or as Observations"
        )
    if given.dtype.kind == "f" and (given == np.floor(given)).all():
        given = given.astype(np.int64)  # NumPy stacks whole ids with real values as floats
    return given[:, 0], given[:, 1]


def codes_of_pairs(pairs: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], Any, Any]:
    """Number the ids of pairs in their order: codes of rows and of columns, (entries,), and the ids by code.

    Raises
    ------
    InputError
        If they are not pairs, or an id is missing.
    """
    import pandas as pd

    found = []
    for ids, name in zip(ids_of_pairs(pairs), ("row", "column"), strict=True):
        codes, known = pd.factorize(ids, sort=True)
        if (codes < 0).any():
            raise InputError(f"pair {int(np.argmax(codes < 0))} lacks its {name} id; give it one, or leave it out")
        found.append((codes.astype(np.int64), known))
    (rows, row_ids), (columns, column_ids) = found
    return rows, columns, row_ids, column_ids


def from_pairs(pairs: Any, values: Any) -> Observations:
    """Observations, in memory, of entries given as pairs of ids, shape (entries, 2), and values, shape (entries,).

    Raises
    ------
    InputError
        If they are not pairs, their number is not that of the values, or as `Observations.from_scipy`.
    """
    rows, columns, row_ids, column_ids = codes_of_pairs(pairs)
    observed = np.asarray(values)
    if observed.shape != rows.shape:
        raise InputError(f"y must hold one value for each of the {len(rows)} pairs of X, not be of {observed.shape}")
    matrix = sp.coo_array((observed, (rows, columns)), shape=(len(row_ids), len(column_ids)))
    return Observations.from_scipy(matrix, row_ids=row_ids, column_ids=column_ids)


def as_observations(given: Any, values: Any = None) -> Observations:
    """Turn what ``fit`` is given into Observations: these, a scipy sparse matrix, or pairs of ids and values.

    Raises
    ------
    InputError
        As `from_pairs` and `Observations.from_scipy`.
    """
    if isinstance(given, Observations):
        return given
    return Observations.from_scipy(given) if values is None or sp.issparse(given) else from_pairs(given, values)
