"""Ids that are not known, cold ones: what becomes of their entries, and how they are told. Knows no model."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rfmdist.errors import InputError

Unknown = Literal["offsets", "nan", "skip", "error"]
"""What an entry with such an id gets: what is known without the id, NaN, nothing, or a refusal of them all."""
SHOWN = 3
"""Ids that a sentence names."""


def check_unknown(unknown: Any) -> None:
    """Refuse what is not one of the ways.

    Raises
    ------
    InputError
    """
    if unknown not in get_args(Unknown):
        raise InputError(f"unknown={unknown!r} is not known: use one of {', '.join(get_args(Unknown))}")


def refuse_unknown(observations: Any, *given: tuple[int, Any, NDArray[np.int64]]) -> None:
    """Refuse ids without a code, all of them in one sentence.

    Parameters
    ----------
    observations
        Whatever has their shape.
    given : tuples (axis, ids, codes)
        Ids of rows (axis 0) or columns (1), and as many codes, -1 where an id is not known.

    Raises
    ------
    InputError
    """
    told, sizes, count = [], [], 0
    for axis, ids, codes in given:
        if (codes >= 0).all():
            continue
        what, cold = ("row", "column")[axis], pd.unique(np.ravel(np.asarray(ids, object))[np.ravel(codes) < 0])
        shown = ", ".join(map(str, cold[:SHOWN])) + (", ..." if len(cold) > SHOWN else "")
        told.append(f"{what} id {shown}" if len(cold) == 1 else f"{len(cold):,} {what} ids ({shown})")
        sizes.append(f"{observations.shape[axis]} {what}s")
        count += len(cold)
    if count:
        was, it, its = ("was", "it", "its") if count == 1 else ("were", "them", "their")
        raise InputError(
            f"{' and '.join(told)} {was} not seen in fitting ({' and '.join(sizes)} were); leave {it} out, or fit again"
            f" with {its} entries"
        )
