"""Ids and codes: the users' own names of rows and columns, and their places. Knows no files."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import infer_dtype

from rfmdist.errors import InputError
from rfmdist.observations.unknown import refuse_unknown

EXACT = 1 << 53
"""Floats from here on no longer tell neighbouring integers apart."""
LARGEST = np.iinfo(np.int64).max


def is_integer(ids: Any) -> bool:
    """Whether ids, an index, a column or an array, are integers. If not they are text, of one dtype or another."""
    return bool(pd.api.types.is_integer_dtype(ids.dtype))


def codes_of(known: pd.Index[Any], ids: Any) -> NDArray[np.int64]:
    """Positions of ``ids`` in ``known``, -1 where one is not there. Text and integers match by their text.

    A float stands for an id only where it is a whole number below 2**53; larger ones may have been another.
    """
    wanted = np.atleast_1d(as_given(ids))
    if wanted.dtype.kind == "f":
        exact = (np.abs(wanted) < EXACT) & (wanted == np.floor(wanted))
        wanted = np.where(exact, wanted, 0).astype(np.int64)
    elif wanted.dtype.kind in "iu" and (wanted.size == 0 or int(wanted.max()) <= LARGEST):
        exact, wanted = np.ones(len(wanted), bool), wanted.astype(np.int64)
    else:
        texts = [_text(identifier) for identifier in wanted]
        exact = np.array([text is not None for text in texts], bool)
        wanted = np.array(texts, object)
    asked = pd.Index(wanted)
    if is_integer(known) != is_integer(asked):
        known, asked = known.map(str), asked.map(str)
    return np.where(exact, known.get_indexer(asked), -1).astype(np.int64)


def known_codes(observations: Any, given: Any, axis: int, *, codes: bool) -> NDArray[np.int64]:
    """Codes as `find_codes` gives them, all of them known.

    Raises
    ------
    InputError
        If one of them is not among the observations'.
    """
    found = find_codes(observations, given, axis, codes=codes)
    refuse_unknown(observations, (axis, given, found))
    return found


def find_codes(observations: Any, given: Any, axis: int, *, codes: bool) -> NDArray[np.int64]:
    """Codes of ids of rows (``axis`` 0) or columns (1), or codes as they are given, in the shape of ``given``.

    Of ``observations``, or for codes of whatever has their shape. An id that is not known has code -1.

    Raises
    ------
    InputError
        If a code is out of range, or lists of different lengths are given.
    """
    what, size = ("row", "column")[axis], observations.shape[axis]
    try:
        array = np.asarray(given) if codes else as_given(given)
    except ValueError:  # NumPy's of lists that are no array
        array = np.empty(1, object)
        array[0] = given
    if array.dtype == object and any(isinstance(x, list | tuple | np.ndarray) for x in np.ravel(array)):
        raise InputError(f"{what}s are lists of different lengths: give one {what} for each entry")
    if not codes:
        look_up = observations.row_codes if axis == 0 else observations.column_codes
        return look_up(np.ravel(array)).reshape(np.shape(array))
    if array.dtype.kind not in "iu" and array.size:
        raise InputError(f"{what} codes must be whole numbers below {size}; give ids without codes=True")
    bad = (array < 0) | (array >= size)
    if bad.any():
        wrong = np.ravel(array)[int(np.argmax(np.ravel(bad)))]
        raise InputError(
            f"{what} code {wrong} was not seen in fitting ({size} {what}s were); leave it out, or fit again with its"
            " entries"
        )
    return array.astype(np.int64)


def followed_by(known: pd.Index[Any], ids: NDArray[Any]) -> tuple[pd.Index[Any], NDArray[np.int64]]:
    """Return the known ids and after them others, each once, and the places of these in it.

    All become text if they are not integers alone.
    """
    places, others = pd.factorize(np.array([_text(identifier) or str(identifier) for identifier in ids], object))
    more = pd.Index(others)
    if pd.api.types.is_integer_dtype(known.dtype):
        try:
            more = pd.Index(np.array([int(text) for text in others], np.int64))
        except (ValueError, OverflowError):
            known = known.map(str)
    return known.append(more), len(known) + places


def check_ids(ids: Any, size: int, name: str) -> pd.Index[Any]:
    """Ids as an index of int64 or text; 0, 1, ... when None. Integers that int64 cannot hold make all text."""
    if ids is None:
        return pd.RangeIndex(size)
    given = np.atleast_1d(as_given(ids))
    if given.ndim > 1 or len(given) != size:
        raise InputError(f"{name} has {given.size} ids for {size} places; give one a place")
    if given.dtype.kind == "u" and given.size and int(given.max()) > LARGEST:
        given = given.astype(object)
    if given.dtype.kind in "iu":
        index = pd.Index(given.astype(np.int64))
    else:
        wrong = next((x for x in given if isinstance(x, float | complex | np.inexact | bool | np.bool_)), None)
        if wrong is not None:
            raise InputError(f"{name} must be integers or text, not {type(wrong).__name__}")
        missing = pd.isna(given)
        if missing.any():
            raise InputError(f"{name} lacks an id at place {int(np.argmax(missing))}; give one a place")
        index = pd.Index([str(identifier) for identifier in given])
    if not index.is_unique:
        raise InputError(f"{name} holds {index[index.duplicated()][0]!r} twice; ids must differ")
    return index


def as_given(ids: Any) -> NDArray[Any]:
    """Ids as an array; integers that NumPy would turn into floats stay what they are, those among objects are int64."""
    array = np.asarray(ids)
    if array.dtype == object and infer_dtype(np.ravel(array), skipna=False) == "integer":
        with suppress(OverflowError):
            return array.astype(np.int64)
    if array.dtype.kind == "f" and not hasattr(ids, "dtype"):
        return np.asarray(ids, object)
    return array


def _text(identifier: Any) -> str | None:
    """Text of an id; None where it is missing or a float that is no exact integer."""
    if isinstance(identifier, float | np.floating):
        number = float(identifier)
        return str(int(number)) if abs(number) < EXACT and number.is_integer() else None
    return None if identifier is None or identifier is pd.NA or identifier is pd.NaT else str(identifier)
