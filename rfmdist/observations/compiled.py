"""Compiled loops over the entries of a row block. Each runs on one thread and holds no lock of Python's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]


@njit(nogil=True, cache=True)
def count(roles: Array, wanted: Array) -> int:
    """Count the entries whose role is ``wanted``, a table of booleans."""
    found = 0
    for role in roles:
        found += wanted[role]
    return found


@njit(nogil=True, cache=True)
def select(indptr: Array, indices: Array, values: Array, roles: Array, wanted: Array, *out: Array) -> None:
    """Copy the entries whose role is ``wanted`` to ``out``: their indptr, indices, values.

    The last two have room for one entry more: writing each and keeping it or not is faster than asking first.
    """
    pointers, columns, observed = out
    end = 0
    pointers[0] = 0
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            columns[end], observed[end] = indices[e], values[e]
            end += wanted[roles[e]]
        pointers[i + 1] = end


@njit(nogil=True, cache=True)
def standardize(
    indptr: Array,
    indices: Array,
    values: Array,
    base: Array,
    columns: Array,
    row_scales: Array,
    column_scales: Array,
    unit: float,
    out: Array,
) -> None:
    """Write (value - (column's offset + row's ``base``)) / scale / unit of each entry, computed in float64, to ``out``.

    ``base`` (rows,) is the mean plus the rows' offsets. ``columns``, ``row_scales`` and ``column_scales`` are empty
    where there are none: offsets are then 0 and scales 1.
    """
    for i in range(len(indptr) - 1):
        mean = base[i]
        for e in range(indptr[i], indptr[i + 1]):
            offset = columns[indices[e]] + mean if len(columns) else mean
            left = np.float64(values[e]) - offset
            if len(row_scales):
                left /= row_scales[i]
            elif len(column_scales):
                left /= column_scales[indices[e]]
            out[e] = left / unit
