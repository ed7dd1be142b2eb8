"""The rank that the spectrum of a search's features shows. Knows singular values alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GAP, CLEAR, STEADY = 1.5, 4.0, 3
"""Ratio of successive squared singular values that counts as a gap; the ratio and number of further iterations at one
place for it to be a rank. 2.5 to 4 find the same."""
WIDE = 100.0
"""Ratio of a gap that is a rank's although others, not clear or beyond half of the features' columns, are behind it:
with many entries a rank shows 1e6 while the tail is still ragged."""
GROWN = 3.0
"""A rank whose finish failed is tried again when its gap's ratio has grown this much."""


@dataclass
class Gaps:
    """Watches for a rank: a gap of the spectrum that is clear and stays in its place.

    Attributes
    ----------
    place, steady : int
        Where the last gap was, and for how many further iterations it has been there and clear.
    tried, ratio, tries : int, float, int
        The rank last tried, the ratio of its gap, and how often it has been tried in a row.
    """

    place: int = 0
    steady: int = 0
    tried: int = 0
    ratio: float = 0.0
    tries: int = 0

    def rank(self, singular: Floats, most: int) -> int:
        """Return the rank to try, given the features' singular values, descending; 0 for none yet."""
        # Below the rounding of the largest, as the tail of a matrix that is nearly seen in full is, gaps are accidents.
        rounding = len(singular) * np.finfo(np.float64).eps * singular[:1] ** 2
        squares = np.maximum(singular**2, np.maximum(rounding, np.finfo(np.float64).tiny))
        ratios = squares[:-1] / squares[1:]
        gaps = np.flatnonzero(ratios > GAP)
        if len(gaps) and (gaps[-1] >= most or ratios[gaps[-1]] <= CLEAR):  # the tail's own
            wide = np.flatnonzero(ratios[:most] > WIDE)
            gaps = wide if len(wide) else gaps[gaps < most]
        place = int(gaps[-1]) + 1 if len(gaps) else 0
        ratio = float(ratios[place - 1]) if place else 0.0
        self.steady = self.steady + 1 if place and place == self.place and ratio > CLEAR else 0
        self.place = place
        if self.steady < STEADY or (place == self.tried and ratio <= GROWN * self.ratio):
            return 0
        self.tries = self.tries + 1 if place == self.tried else 1
        self.tried, self.ratio, self.steady = place, ratio, 0
        return place
