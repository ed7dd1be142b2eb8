"""What the values look like, gathered in one pass by blocks. Knows no model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rfmdist.observations.blocks import ALL_ROLES, Role
from rfmdist.observations.store import Observations

BOUNDED_SHARE = 1e-3
"""Share of the entries at each end that makes a scale bounded: ratings have percents, continuous values one entry."""


@dataclass(frozen=True)
class Summary:
    """Range and moments of the observed values, float64.

    Attributes
    ----------
    count : int
        Number of entries.
    least, greatest : float
        Smallest and largest value; NaN without entries.
    at_least, at_greatest : int
        Number of entries that equal them.
    mean, deviation : float
        Mean and standard deviation.
    """

    count: int
    least: float
    greatest: float
    at_least: int
    at_greatest: int
    mean: float
    deviation: float

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The values' scale, when both its ends are met again and again as those of ratings are; else None."""
        needed = max(2.0, BOUNDED_SHARE * self.count)
        return (self.least, self.greatest) if min(self.at_least, self.at_greatest) >= needed else None


def summarize(observations: Observations, roles: Iterable[Role] = ALL_ROLES) -> Summary:
    """Summarise the values of the entries of ``roles``."""
    count, mean, spread = 0, np.float64(0), np.float64(0)
    ends = {np.min: (np.nan, 0), np.max: (np.nan, 0)}
    for block in observations.row_blocks(roles):
        values = block.values.astype(np.float64)
        if not len(values):
            continue
        for end, (so_far, seen) in ends.items():
            found = float(end(values))
            extreme = found if np.isnan(so_far) else float(end([found, so_far]))
            seen = seen if extreme == so_far else 0
            ends[end] = (extreme, seen + int(np.count_nonzero(values == extreme)))
        with np.errstate(over="ignore", invalid="ignore"):  # what float64 cannot hold is told as not finite
            together, ahead = count + len(values), values.mean() - mean
            spread += np.square(values - values.mean()).sum() + ahead**2 * count * (len(values) / together)
            count, mean = together, mean + ahead * (len(values) / together)
    (least, at_least), (greatest, at_greatest) = ends[np.min], ends[np.max]
    middle, deviation = (float(mean), np.sqrt(spread / count)) if count else (np.nan, np.nan)
    return Summary(count, least, greatest, at_least, at_greatest, middle, float(deviation))
