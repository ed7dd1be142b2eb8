"""One call of `LinRFM.fit`: the loop of iterations, and the stages that choose settings. Knows no files and no Dask."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rfmdist.completion import Completion
from rfmdist.engine import work
from rfmdist.engine.plan import FACTORED_ENTRIES, Plan, equal_groups
from rfmdist.engine.run import Executor
from rfmdist.errors import InputError, SingularRowError
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.protocol import Features, Scores, Step
from rfmdist.observations.blocks import Offsets, Role
from rfmdist.observations.offsets import SHRINKAGE, SWEEPS, fit_offsets
from rfmdist.observations.store import Observations
from rfmdist.observations.summary import summarize
from rfmdist.observations.targets import Targets
from rfmdist.progress import Iteration, report, tell
from rfmdist.recovery import Recovered, recover, recover_beyond
from rfmdist.selection import (
    ENOUGH,
    FREE_FLOPS,
    GROWN_FURTHER,
    GROWN_GAIN,
    GROWN_ITERATIONS,
    MOST_RANK,
    NOISELESS_RIDGE,
    PATH_FACTOR,
    PATIENCE,
    PLAIN_WEIGHT,
    RISE,
    SEARCH_FACTOR,
    SEARCH_GAIN,
    SEARCH_RANK,
    START_RANK,
    TRIAL_FACTOR,
    TRIAL_ITERATIONS,
    WORKING_WEIGHT,
    Best,
    Point,
    ridge_schedule,
    search_weight,
)

if TYPE_CHECKING:
    from rfmdist.lin_rfm import LinRFM

Stage = Literal["try", "fit", "refit"]
TRAIN = frozenset({Role.TRAIN})
START_SWEEPS = 3
"""Passes for offsets that the solves fit anew."""


@dataclass(frozen=True)
class Result:
    """What a stage ends with: its best iterate, the settings of the iterations that led there, and their weight."""

    completion: Completion
    points: list[Point]
    weight: float
    error: float
    last_error: float

    @property
    def rising(self) -> bool:
        """Whether the error rose again."""
        return self.last_error > (1 + RISE) * self.error

    @property
    def noiseless(self) -> bool:
        """Whether the error still fell at a ridge that only values without noise allow."""
        return self.points[-1].ridge < NOISELESS_RIDGE


@dataclass(frozen=True)
class _Side:
    """What an iteration maps over on one side: rows, or columns."""

    targets: Targets
    published: Any
    groups: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Start:
    """What a stage begins with: the first features, by their rank, and the sides it goes through in turn."""

    features: Callable[[int], Features]
    sides: list[_Side]


class Fit:
    """One call of ``fit``: what stays the same over its stages."""

    def __init__(self, model: LinRFM, observations: Observations, plan: Plan, run: Executor) -> None:
        self.model, self.observations, self.plan, self.run = model, observations, plan, run
        counts = observations.role_counts()
        self.validated = counts["validation"] > 0
        self.observed_share = (counts["train"] + counts["validation"]) / np.prod(observations.shape, dtype=float)
        self.callbacks = [*(model.callbacks or ()), *([report] if model.verbose else [])]
        self.starts: dict[frozenset[Role], _Start] = {}

    # ---- recovering -------------------------------------------------------------------------------------------

    def recover(self) -> Recovered | Result:
        """Return the matrix that a recovery found, if one was asked for or does better; or else what is chosen."""
        model, given = self.model, (self.model, self.observations, self.plan, self.run, self.told_to_stop)
        found = None if model.noise == "auto" else recover(*given)
        if found is not None:
            return found
        result = self.choose()
        suits = (self.plan.features, self.plan.sides) == ("factored", "both") and self.validated
        if model.noise == "auto" and suits and result.noiseless and model.offsets in (None, "global", "stored"):
            self._release()
            found = recover_beyond(*given, result.error)
        return found or result

    # ---- choosing ---------------------------------------------------------------------------------------------

    def choose(self) -> Result:
        """Fit on the training entries, with what is "auto" chosen by the validation entries."""
        model, rank = self.model, self._rank(START_RANK)
        weight, found = model.replacement, None
        if weight == "auto":
            plain = self._path(PLAIN_WEIGHT, rank, trial=True)
            with suppress(SingularRowError):  # the plain weight then stands
                working = self._path(WORKING_WEIGHT, rank, trial=True)
                weight = min(plain, working, key=lambda tried: tried.error).weight
            if model.ridge == "auto" and not plain.rising:
                with suppress(SingularRowError):
                    found = self._search()
                if found is not None and found.noiseless:
                    return found
            weight = plain.weight if weight == "auto" else weight
        best = self._path(float(weight), rank)
        if model.rank == "auto" and self.plan.features == "factored" and self.validated:
            best = self._grow(best)
        return best if found is None or best.error <= found.error else found

    def _rank(self, start: int) -> int:
        """Return the rank to begin with."""
        grows = self.plan.features == "factored" and self.model.rank == "auto" and self.validated
        return min(start, self.plan.rank) if grows else self.plan.rank

    def _search(self) -> Result:
        """The fast path, which recovers what has no noise; a rank that is too low shows in the error."""
        rank, best = self._rank(SEARCH_RANK), None
        schedule = ridge_schedule("auto", self.model.dtype, SEARCH_FACTOR[self.plan.sides])
        weight = search_weight(self.plan.sides, self.observed_share)
        while True:
            found = self.descend("fit", TRAIN, schedule.points(rank), weight, self.model.max_iter)
            gained = best is None or found.error < (1 - SEARCH_GAIN) * best.error
            best = found if best is None or found.error < best.error else best
            tried, rank = rank, min(2 * rank, self._most_rank)
            if best.noiseless or not gained or self.model.rank != "auto" or rank <= tried:
                return best

    def _path(self, weight: float, rank: int, *, trial: bool = False) -> Result:
        """The slow path for noise, or the fixed ridge; a coarse, short one as a trial."""
        schedule = ridge_schedule(self.model.ridge, self.model.dtype, TRIAL_FACTOR if trial else PATH_FACTOR)
        limit = min(TRIAL_ITERATIONS, self.model.max_iter) if trial else self.model.max_iter
        return self.descend("try" if trial else "fit", TRAIN, schedule.points(rank), weight, limit)

    def _grow(self, best: Result) -> Result:
        """Double the rank from the best iterate on, as long as that gains or takes hardly any time."""
        tried, gain = best.points[-1].rank, np.inf
        while (rank := min(2 * tried, self._most_rank)) > tried:
            if len(best.points) + GROWN_ITERATIONS > self.model.max_iter:
                break
            if gain < GROWN_FURTHER and GROWN_ITERATIONS * self.plan.flops * (rank / self.plan.rank) ** 2 > FREE_FLOPS:
                break
            points = [Point(best.points[-1].ridge, rank)] * GROWN_ITERATIONS
            grown = self.descend("fit", TRAIN, points, best.weight, GROWN_ITERATIONS, best)
            gain = 1 - grown.error / best.error
            best = grown if gain >= GROWN_GAIN else best
            tried = rank
        return best

    @property
    def _most_rank(self) -> int:
        """The greatest rank worth trying."""
        return 0 if self.plan.features == "dense" else min(MOST_RANK, *self.observations.shape)

    # ---- the loop ---------------------------------------------------------------------------------------------

    def descend(
        self,
        stage: Stage,
        roles: Iterable[Role],
        points: Iterable[Point],
        weight: float,
        limit: int,
        after: Result | None = None,
    ) -> Result:
        """Iterate from P = I, or go on ``after`` a result, with the settings of ``points``, ``limit`` at most.

        Returns the best iterate by validation error, or the last where none is validated.
        """
        model, start = self.model, self._start(frozenset(roles))
        completion = None if after is None else after.completion
        features: Features | None = None if completion is None else completion.features
        targets, taken = start.sides[0].targets, list(after.points) if after else []
        enough = ENOUGH * float(np.finfo(model.dtype).eps) * targets.unit
        best, last = Best(model.tol, 1 if stage == "try" else PATIENCE, enough), float("nan")
        for t, point in enumerate(islice(points, limit)):
            started = time.perf_counter()
            step = Step(point.ridge, weight, self.plan.sides == "both")
            if features is None:
                features = start.features(point.rank)
            elif completion is not None and taken[-1].rank < point.rank:
                # What grew was the best iterate itself, not what would have followed it.
                features = completion.features.grown(point.rank, model.random_state)
            taken.append(point)
            completion = Completion(targets, features, step)
            try:
                scores, features = self._advance(start, features, step)
            except SingularRowError as singular:
                if t == 0 and after is not None:
                    return after
                if t == 0:
                    raise
                if model.ridge != "auto":  # a path is meant to run into the dtype's end
                    warnings.warn(f"the {stage} ended after {t} iterations: {singular}", stacklevel=3)
                break  # the best iterate before it stands
            last = error = scores.rmse
            change = features.distance(completion.features)
            if not np.isfinite(change):
                raise InputError("the features left the dtype's range: lower replacement, floor or power")
            best.offer(t, error if targets.scored else -t, completion)
            seconds = time.perf_counter() - started
            record = Iteration(stage, t + 1, limit, point.ridge, weight, point.rank, error, change, seconds, completion)
            settled = best.exhausted(t) if targets.scored else stage == "fit" and change < model.tol
            if self.told_to_stop(record) or settled:
                break
        first = len(after.points) if after else 0
        return Result(best.kept, taken[: first + best.iteration + 1], weight, best.error, last)

    def _advance(self, start: _Start, features: Features, step: Step) -> tuple[Scores, Features]:
        """One iteration: each side solved in turn; the scores of the rows, and the features that follow."""
        scores = []
        for side in start.sides:
            handle, size = self.run.publish(features), side.targets.observations.shape[0]
            with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
                shared = side.published, handle, step, self.plan.slab_rows
                try:
                    total = self.run.reduce(work.iterate, side.groups, *shared)
                except SingularRowError as singular:
                    if side is start.sides[0]:
                        raise
                    raise SingularRowError(str(singular).replace("row code", "column code", 1)) from None
                scores.append(total.scores)
                power = round(2 * self.model.power)
                features = features.update(total, size, step, self.model.floor, power, self.run.map_panels)
        return scores[0], features

    def told_to_stop(self, record: Iteration) -> bool:
        """Keep the record and tell the callbacks."""
        return tell(self.model.history_, self.callbacks, record)

    # ---- where a stage starts ---------------------------------------------------------------------------------

    def _start(self, roles: frozenset[Role]) -> _Start:
        """Targets and first features for a fit to the entries of ``roles``; stages share them: many passes."""
        if roles not in self.starts:
            self._release()  # of the entries fitted before: a refit is the last stage
            targets, features = self._targets(roles)
            sides = [_Side(targets, self.run.publish(targets), self.plan.groups)]
            if self.plan.sides == "both":
                across = targets.transposed()
                groups = equal_groups(across.observations, FACTORED_ENTRIES)
                sides.append(_Side(across, self.run.publish(across), groups))
            self.starts[roles] = _Start(features, sides)
        return self.starts[roles]

    def finish(self, result: Result) -> Completion:
        """Return the result's completion, which keeps no blocks in memory."""
        self._release()
        found = result.completion
        return Completion(replace(found.targets, keep_bytes=0), found.features, found.step)

    def _release(self) -> None:
        for start in self.starts.values():
            for side in start.sides:
                side.targets.release()
        self.starts.clear()

    def _targets(self, roles: frozenset[Role]) -> tuple[Targets, Callable[[int], Features]]:
        """What is fitted on the entries of ``roles``, and P = I by rank.

        Factored features fit offsets anew with every solve; for them only the mean is taken off beforehand.
        """
        model, observations = self.model, self.observations
        if model.offsets == "stored":
            offsets = observations.offsets
            if offsets is None:
                raise InputError(f"{observations.name}: no offsets are stored; store some or choose offsets='both'")
        else:
            sweeps = SWEEPS if self.plan.features == "dense" else START_SWEEPS
            offsets = fit_offsets(observations, model.offsets, roles=roles, sweeps=sweeps)
        clip = summarize(observations, roles).bounds if model.clip == "auto" else model.clip
        scored = frozenset({Role.VALIDATION}) - roles if self.validated else frozenset()
        unscaled = Targets(
            observations, offsets, 1.0, np.dtype(np.float64), roles, scored, clip, keep_bytes=self.plan.kept_bytes
        )
        targets = replace(unscaled, unit=unscaled.root_mean_square(), dtype=np.dtype(model.dtype))
        if self.plan.features == "dense":
            return targets, lambda _: DenseFeatures.start(observations.shape[1], model.dtype, self.plan.form)
        shrinkage = (
            SHRINKAGE if model.offsets in ("both", "rows") else np.inf,
            SHRINKAGE if model.offsets in ("both", "columns") else np.inf,
        )
        columns = np.zeros(observations.shape[1])
        if min(shrinkage) < np.inf:
            columns = offsets.columns / targets.unit
            m, n = observations.shape
            targets = replace(targets, offsets=Offsets(offsets.mean, np.zeros(m), np.zeros(n)))
        return targets, lambda rank: FactoredFeatures.start(columns, rank, model.dtype, model.random_state, shrinkage)
