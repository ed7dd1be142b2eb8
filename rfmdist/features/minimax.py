"""Polynomials h for which x h(x)^b is as near to 1 as can be: what takes a matrix to its inverse b-th root.

Knows numbers alone, no matrices.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

DEGREE = 4
"""Of h: two products of matrices make it. Of the degrees 1, 2, 4 and 6 it asks for the fewest products in all."""
GRID = 600
"""Points of each of two grids, equal steps in x and in its logarithm, on which extremes are sought."""
MARGIN = 1e-4
"""Of the error's level: more than extremes between the grids' points surpass those on them. Without it the greatest
values would pass 1 by a hundred-thousandth, and each next polynomial, steep there, would multiply that by 80."""
EXCHANGES = 40
"""Most exchanges of the reference points; 5 to 15 do."""
LOWS = 2.0**-20, 0.5
"""Where intervals may begin. Below it the best h hardly differs, but its values between extremes come so near to 0
that rounding makes them negative; above it, h would do little for what lies below its interval after all."""
EVEN = 1e-3
"""Extremes that are equal to this share are equal: less only changes the next interval by as little."""


class Map(NamedTuple):
    """h(x) = Σ c_k t^k with t = ``slope`` x + ``shift`` in [-1, 1]; x h(x)^b goes from [low, 1] to [``low``, 1]."""

    coefficients: tuple[float, ...]
    slope: float
    shift: float
    low: float


def inverse_root_map(low: float, root: int) -> Map:
    """Give the h of degree `DEGREE` for which x^(1/root) h(x) varies least over [low, 1], its greatest value 1.

    Parameters
    ----------
    low : float
        In (0, 1): where x begins. The interval is that of the nearest of `LOWS`: what lies below it is multiplied by
        at least what its beginning is, since h falls there.
    root : int
        b, at least 2.
    """
    begin = float(np.clip(low, *LOWS))
    best = _best(begin, root)
    return best._replace(low=best.low * min(low / begin, 1.0))


@cache
def _best(low: float, root: int) -> Map:
    """Remez's exchange for the best approximation of 1 by x^(1/root) h(x) over [low, 1].

    The weight x^(1/root) times 1, x, x², ... is a Chebyshev system, so the best one is where `DEGREE` + 2 extremes of
    the error alternate and are equal.
    """
    x = np.unique(np.concatenate([np.geomspace(low, 1, GRID), np.linspace(low, 1, GRID)]))
    slope, shift = 2 / (1 - low), -(1 + low) / (1 - low)
    weight = x ** (1 / root)
    basis = weight[:, None] * chebyshev.chebvander(slope * x + shift, DEGREE)
    places = _first_places(x)
    for _ in range(EXCHANGES):
        signs = (-1.0) ** np.arange(DEGREE + 2)
        solved = np.linalg.solve(np.column_stack([basis[places], signs]), np.ones(DEGREE + 2))
        error = 1 - basis @ solved[:-1]
        level = abs(solved[-1])
        found = _extremes(error, DEGREE + 2)
        if found is None or np.abs(error).max() <= (1 + EVEN) * level:
            break
        places = found
    margin = MARGIN * float(level)
    least, greatest = 1 - float(error.max()) - margin, 1 - float(error.min()) + margin
    coefficients = chebyshev.cheb2poly(solved[:-1] / greatest)
    return Map(tuple(coefficients.tolist()), slope, shift, (least / greatest) ** root)


def taylor(root: int) -> tuple[float, ...]:
    """Give the c_k of (1 - d)^(-1/root) = Σ c_k d^k up to `DEGREE`."""
    coefficients = [1.0]
    for k in range(DEGREE):
        coefficients.append(coefficients[-1] * (1 / root + k) / (k + 1))
    return tuple(coefficients)


def _first_places(x: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places in the grid to begin with: Chebyshev's extremes between x's ends."""
    nodes = (1 - np.cos(np.pi * np.arange(DEGREE + 2) / (DEGREE + 1))) / 2
    return np.unique(np.searchsorted(x, x[0] + (1 - x[0]) * nodes).clip(0, len(x) - 1))


def _extremes(error: NDArray[np.float64], number: int) -> NDArray[np.int64] | None:
    """Places of the greatest errors of alternating sign, ``number`` of them in a row; None where there are fewer."""
    turns = np.flatnonzero(np.diff(np.sign(error)) != 0) + 1
    parts = np.split(np.arange(len(error)), turns)
    places = np.array([part[np.argmax(np.abs(error[part]))] for part in parts])
    while len(places) > number:
        places = places[1:] if abs(error[places[0]]) < abs(error[places[-1]]) else places[:-1]
    return places if len(places) == number else None
