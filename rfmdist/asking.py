"""What users ask a completion for, as codes: entries and rows by id, ranges of rows. Knows no features."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.store import Observations

if TYPE_CHECKING:  # imported where it is used: a fit does not need it
    import pandas as pd

    from rfmdist.observations.unknown import Unknown

Codes = NDArray[np.int64]


def entry_codes(
    observations: Observations, rows: Any, columns: Any, *, codes: bool, unknown: Unknown
) -> tuple[Codes, Codes]:
    """Codes of entries, of one shape; -1 for ids that are not known, unless these are an error.

    Raises
    ------
    InputError
        If an id is not known and that is an error, a code is not, or the shapes do not go together.
    """
    from rfmdist.observations.ids import find_codes
    from rfmdist.observations.unknown import check_unknown, refuse_unknown

    check_unknown(unknown)
    i, j = (find_codes(observations, given, axis, codes=codes) for axis, given in enumerate((rows, columns)))
    if unknown == "error":
        refuse_unknown(observations, (0, rows, i), (1, columns, j))
    try:
        i, j = np.broadcast_arrays(i, j)
    except ValueError:
        raise InputError(f"rows and columns must be of one length, not {i.size} and {j.size}") from None
    return i, j


def row_codes(observations: Observations, rows: Any, *, codes: bool, unknown: Unknown) -> tuple[Codes, pd.Index[Any]]:
    """Codes of rows, each once, in the order given, and the ids by code; of all rows where None are named.

    Rows whose ids are not known follow the others in both, unless they are to be left out.

    Raises
    ------
    InputError
        If an id is not known and that is an error, or a code is not.
    """
    import pandas as pd

    from rfmdist.observations.ids import as_given, find_codes, followed_by
    from rfmdist.observations.unknown import check_unknown, refuse_unknown

    check_unknown(unknown)
    ids = observations.row_ids
    if rows is None:
        return np.arange(observations.shape[0]), ids
    found = np.ravel(find_codes(observations, rows, 0, codes=codes))
    if unknown == "error":
        refuse_unknown(observations, (0, rows, found))
    cold = found < 0
    if unknown == "offsets" and cold.any():
        ids, found[cold] = followed_by(ids, np.ravel(as_given(rows))[cold])
    return np.asarray(pd.unique(found[found >= 0])), ids


def row_range(rows: int, start: Any, stop: Any) -> tuple[int, int]:
    """Give a range of rows as two codes; a ``stop`` beyond the last row, or none, means that row.

    Raises
    ------
    InputError
        If the ends are not whole numbers, or not a range.
    """
    stop = rows if stop is None else stop
    if not all(_is_whole(end) for end in (start, stop)):
        raise InputError(f"start={start!r} and stop={stop!r} must be codes of rows: whole numbers")
    first, last = int(start), min(int(stop), rows)
    if not 0 <= first <= last:
        raise InputError(f"rows {first} to {last} are not a range within 0 to {rows}")
    return first, last


def _is_whole(number: Any) -> bool:
    return isinstance(number, Integral) or (isinstance(number, Real) and float(number).is_integer())
