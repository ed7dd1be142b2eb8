"""What the completion baselines share: values without a unit. Knows no method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rfmdist.errors import InputError
from rfmdist.iterating import Entries


def without_unit(entries: Entries) -> tuple[Entries, float]:
    """Divide the values by their root mean square, as `LinRFM` does, so that a ridge has no unit; return both.

    Raises
    ------
    InputError
        If nothing was observed, or the squares of what was leave float64's range.
    """
    if not len(entries.values):
        raise InputError("no entry was observed: there is nothing to complete the matrix from")
    with np.errstate(over="ignore"):
        unit = float(np.linalg.norm(entries.values)) / np.sqrt(len(entries.values))
    if not np.isfinite(unit):
        raise InputError("the squares of the values leave float64's range: divide the values by their largest")
    unit = unit or 1.0
    return replace(entries, values=entries.values / unit), float(unit)
