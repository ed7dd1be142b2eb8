"""Choosing ridge, replacement and rank on the validation entries. Knows schedules; runs none of them itself.

Two paths of the ridge, both from 1 (the values' own mean square: nearly everything is shrunk away) downwards
while the features learn. The search is fast and replaces observed values more than once over: without noise it
is the continuation that recovers low-rank matrices, and nothing makes the validation error rise. With noise it
rises soon; then the slow path finds the ridge and the number of iterations at once: the error falls, then rises
as the features fit noise, and the path's best iterate is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal, NamedTuple

import numpy as np

from rfmdist.features.augmented import Extras

START, PATH_START = 1.0, 0.8
"""Ridges that fast and coarse paths begin with, and slow ones: from 0.8 a path takes 4 iterations less."""
SEARCH_FACTOR = {"both": 0.8, "columns": 0.9}
"""Both sides, d = 500, rank 5, ten seeds: 10,000 entries in 21..22 iterations, 8,000 in 29..32, 7,200 in 38..54; 0.7
fails at 8,000, 0.75 at 7,200, 0.85 takes a quarter more. Columns only, 10,000: 0.9 takes 48..65, 0.95 82..94; 0.8
stalls."""
SEARCH_SHARE = {"both": 0.4, "columns": 1.0}
"""Times 1/density: the replacement weight of the search. Both sides at 0.8 take a fifth more and fail at 7,200."""
PATH_FACTOR = 0.95
"""On MovieLens 0.9 ends 0.001 to 0.003 above it."""
PATH_ITERATIONS = 40
"""Iterations within which a path comes to the ridge where the coarse one was at its best, however low that is."""
WAIT = 3.0
"""Times the ridge where the coarse path was at its best: above that a path is not given up. Sparse rows learn nothing
until the ridge is low."""
TRIAL_FACTOR, TRIAL_ITERATIONS, MORE_ITERATIONS = 0.7, 20, 2
"""A coarse path ranks settings as the fine one does, in fewer iterations. Without noise it goes on to the end; later
trials may take a little longer than the plain one."""
NEARLY = 3e-3
"""A lower replacement weight whose error is within this share of the best is taken: on a finer path it is better."""
NOISE_ITERATIONS, RISE = 6, 1e-3
"""A plain trial whose error rises by this share within so many iterations has met noise: without noise none did in 12
problems tried, even where the rank of trials is too low."""
NOISELESS_RIDGE = 1e-3
"""A search that still gains below this ridge fits values without noise; ratings end it at 0.2 to 1."""
SEARCH_GAIN = 0.1
"""A search at twice the rank must lower the error by this share for the next to be tried."""
ENOUGH = 100.0
"""Times the dtype's rounding of the values: an error that small is all that can be had."""
PATIENCE = 3
"""Iterations without a better validation error after which a fit stops."""
PLAIN_WEIGHT, WORKING_WEIGHT = 1.0, 5.0
"""Replacement weights for noise: 1 puts observed values back; 5 keeps very sparse noisy rows from shrinking to their
offsets (DESIGN.md, "Dual form")."""
INDICATORS, USUAL_INDICATORS = (0.2, 0.35, 0.5), 0.35
"""Weights of the indicator block that are tried, and the one that is tried with other replacement weights. MovieLens
1M wants 0.35, 100K 0.5; to miss them by a sixth costs 0.0005."""
RIDGE_BY_COUNT, ROW_SCALE, SIDE_WEIGHT = 0.3, 0.5, 0.1
"""What the other additions are where they earn their place (DESIGN.md, "Additions"). Side columns of 0.2 are no better
once offsets are solved for exactly."""
CHANCE = 0.25
"""Over the root of the number of validation entries: the share of the error that additions must take away together.
Of 18 random patterns with some hundred validation entries two gained nearly as much by chance."""
EARNED = 1e-4
"""Share of the error that an addition must take away to stay."""
REFINED = 1.2
"""By how much indicators are strengthened and weakened in the end."""
HALVED_ITERATIONS, HALVED_RIDGE, HALVED_SHARE, HALVED_RANK = 4, 0.6, 2.5, 32
"""Iterations by which the better half of the trials goes on. Coarse paths alone favour weak indicators, which overfit
less at the low ridge where those paths end; at the ridge of good fits, 0.6 or 2.5 times the lowest, and rank 32, trials
rank as fits of 64 do."""
START_RANK, SEARCH_RANK, MOST_RANK = 16, 32, 128
"""Ranks "auto" begins with, begins a search with, and ends with."""
SHARES = {START_RANK: 0.28, HALVED_RANK: 0.44}
"""Seconds of an iteration at these ranks in those at rank 64, with additions, on MovieLens 1M."""
RANK_STEPS, RISING_ITERATIONS = (64, 128), 4
"""Ranks whose paths are tried next; the second begins with this many iterations at the first, which saves a quarter of
its time and costs 0.0004 on MovieLens 1M; 64 begun with 32 would cost 0.001."""
GROWN_GAIN, GROWN_FURTHER = 5e-4, 1.5e-2
"""A higher rank must gain this share of the error to be taken, and the last one must have gained so much, four times
what the next can be expected to, for the next to be tried."""
FREE_FLOPS = 2e11
"""A path that takes fewer flops than this, some seconds, is tried whatever the last one gained."""


class Settings(NamedTuple):
    """What stays the same over the iterations of a stage: the replacement weight ω, and the additions."""

    replacement: float
    extras: Extras = Extras()


class Point(NamedTuple):
    """Settings of one iteration."""

    ridge: float
    rank: int


@dataclass(frozen=True)
class Schedule:
    """Ridge of each iteration: ``max(start · factor^t, floor)``."""

    start: float
    factor: float = 1.0
    floor: float = 0.0

    def ridge(self, iteration: int) -> float:
        return max(self.start * self.factor**iteration, self.floor)

    def points(self, rank: int, *, rising: bool = False) -> Iterator[Point]:
        """Settings of all iterations at one rank, the first few at half of it if it is ``rising``."""
        return (Point(self.ridge(t), rank // 2 if rising and t < RISING_ITERATIONS else rank) for t in count())


def ridge_schedule(
    ridge: float | Literal["auto"], dtype: Any, factor: float = PATH_FACTOR, start: float = START
) -> Schedule:
    """Schedule for a fixed ridge or for a path, which ends where the dtype's rounding would."""
    if ridge != "auto":
        return Schedule(float(ridge))
    return Schedule(start, factor, 10 * float(np.finfo(dtype).eps))


def choosing_bound(replacements: int, extras: int) -> float:
    """Most that trials take, in fits of 20 iterations at rank 64, for so many replacement weights and additions tried.

    On MovieLens 1M they take 1.8 of the 5 that this allows by default: few trials use all their iterations.
    """
    tried = extras + (len(INDICATORS) + replacements - 1 if extras else 0)
    low = replacements * TRIAL_ITERATIONS + tried * (TRIAL_ITERATIONS + MORE_ITERATIONS) + (40 if extras else 0)
    further = HALVED_ITERATIONS * (2 + extras) if extras else 0
    return float(low * SHARES[START_RANK] + further * SHARES[HALVED_RANK]) / 20


def path_factor(reached: float) -> float:
    """Factor of the slow path, faster where the coarse path went far down."""
    return min(PATH_FACTOR, reached ** (1 / PATH_ITERATIONS)) if np.isfinite(reached) else PATH_FACTOR


def search_weight(sides: str, density: float) -> float:
    """Replacement weight of the search."""
    return float(np.round(max(SEARCH_SHARE[sides] / max(density, 1e-6), 1.0), 3))


@dataclass
class Best:
    """The best iterate so far by validation error, and when to stop looking."""

    tol: float
    patience: int = PATIENCE
    enough: float = 0.0
    error: float = float("inf")
    iteration: int = -1
    kept: Any = None
    _mark: float = field(default=float("inf"), repr=False)
    _marked: int = field(default=-1, repr=False)

    def offer(self, iteration: int, error: float, state: Any) -> None:
        """Keep ``state`` if its error is the least so far."""
        if error < self.error:
            self.error, self.iteration, self.kept = error, iteration, state
        if error < self._mark * (1 - self.tol):
            self._mark, self._marked = error, iteration

    def exhausted(self, iteration: int) -> bool:
        """Whether the error has not fallen by a share of ``tol`` for ``patience`` iterations, or is ``enough``."""
        return iteration - self._marked >= self.patience or self.error <= self.enough
