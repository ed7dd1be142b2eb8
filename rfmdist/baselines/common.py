"""What the completion baselines share: values without a unit. Knows no method."""

from __future__ import annotations

from dataclasses import replace

from rfmdist.errors import InputError
from rfmdist.iterating import Entries, root_mean_square


def without_unit(entries: Entries) -> tuple[Entries, float]:
    """Divide the values by their root mean square, as `LinRFM` does, so that a ridge has no unit; return both.

    Raises
    ------
    InputError
        If nothing was observed, or the squares of what was leave float64's range.
    """
    if not len(entries.values):
        raise InputError("no entry was observed: there is nothing to complete the matrix from")
    unit = root_mean_square(entries.values)
    return replace(entries, values=entries.values / unit), unit
