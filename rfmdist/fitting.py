"""One call of `LinRFM.fit`: the loop of iterations, and the stages that choose settings. Knows no files and no Dask."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rfmdist.completion import Completion
from rfmdist.engine import work
from rfmdist.engine.plan import FACTORED_ENTRIES, MOST_RANK, Plan, equal_groups
from rfmdist.engine.run import Executor
from rfmdist.errors import InputError, SingularRowError
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.protocol import Features, Partial, Step
from rfmdist.observations.blocks import Offsets, Role
from rfmdist.observations.offsets import SHRINKAGE, fit_offsets
from rfmdist.observations.store import Observations
from rfmdist.observations.summary import summarize
from rfmdist.observations.targets import Targets
from rfmdist.progress import Iteration, report
from rfmdist.selection import (
    GROWN_FURTHER,
    GROWN_GAIN,
    GROWN_ITERATIONS,
    NOISELESS_RIDGE,
    PATIENCE,
    PLAIN_WEIGHT,
    SEARCH_FACTOR,
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


@dataclass(frozen=True)
class Result:
    """What a stage ends with: its best iterate, the settings of the iterations that led there, and their weight."""

    completion: Completion
    points: list[Point]
    weight: float
    error: float


@dataclass(frozen=True)
class _Side:
    """What an iteration maps over on one side: rows, or columns."""

    targets: Targets
    published: Any
    groups: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Start:
    """What a stage begins with, and the sides it goes through in turn."""

    features: Features
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

    # ---- choosing ---------------------------------------------------------------------------------------------

    def choose(self) -> Result:
        """Fit on the training entries, with what is "auto" chosen by the validation entries."""
        model = self.model
        found = self._search() if model.replacement == "auto" and model.ridge == "auto" else None
        if found is not None and found.points[-1].ridge < NOISELESS_RIDGE:
            return found
        plain = self._path(PLAIN_WEIGHT if model.replacement == "auto" else float(model.replacement))
        tried = [result for result in (found, plain) if result is not None]
        if model.replacement == "auto":
            trial = self._path(WORKING_WEIGHT, "try")
            if trial.error < plain.error:
                tried.append(self._path(WORKING_WEIGHT))
        best = min(tried, key=lambda result: result.error)
        return self._grow(best) if model.rank == "auto" and self.validated else best

    def _search(self) -> Result:
        """The fast path, which recovers what has no noise."""
        schedule = ridge_schedule("auto", self.model.dtype, SEARCH_FACTOR[self.plan.sides])
        weight = search_weight(self.plan.sides, self.observed_share)
        return self.descend("fit", TRAIN, schedule.points(self.plan.rank), weight, self.model.max_iter)

    def _path(self, weight: float, stage: Stage = "fit") -> Result:
        """The slow path for noise, or the fixed ridge; a coarse, short one as a trial."""
        if stage == "try":
            schedule, limit = ridge_schedule(self.model.ridge, self.model.dtype, TRIAL_FACTOR), TRIAL_ITERATIONS
        else:
            schedule, limit = ridge_schedule(self.model.ridge, self.model.dtype), self.model.max_iter
        return self.descend(stage, TRAIN, schedule.points(self.plan.rank), weight, limit)

    def _grow(self, best: Result) -> Result:
        """Double the rank from the best iterate on, as long as that gains."""
        most = min(MOST_RANK, *self.observations.shape)
        while (rank := 2 * best.points[-1].rank) <= most:
            points = [Point(best.points[-1].ridge, rank)] * GROWN_ITERATIONS
            room = self.model.max_iter - len(best.points)
            if room < GROWN_ITERATIONS:
                break
            grown = self.descend("fit", TRAIN, points, best.weight, GROWN_ITERATIONS, best)
            gain = 1 - grown.error / best.error
            if gain < GROWN_GAIN:
                break
            best = grown
            if gain < GROWN_FURTHER:
                break
        return best

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
        features: Features = start.features if after is None else after.completion.features
        targets, taken = start.sides[0].targets, list(after.points) if after else []
        best = Best(model.tol, patience=1 if stage == "try" else PATIENCE)
        for t, point in enumerate(islice(points, limit)):
            started = time.perf_counter()
            step = Step(point.ridge, weight, self.plan.sides == "both")
            features = features.grown(point.rank, model.random_state)
            taken.append(point)
            completion = Completion(targets, features, step)
            error = change = float("nan")
            if stage != "refit" or t < limit - 1:  # a refit's last iterate needs no next one
                try:
                    total, features = self._advance(start, features, step)
                except SingularRowError as singular:
                    if t == 0:
                        raise
                    if model.ridge != "auto":  # a path is meant to run into the dtype's end
                        warnings.warn(f"the {stage} ended after {t} iterations: {singular}", stacklevel=3)
                    break  # the best iterate before it stands
                error, change = total.scores.rmse, features.distance(completion.features)
                if not np.isfinite(change):
                    raise InputError("the features left the dtype's range: lower replacement, floor or power")
            best.offer(t, error if targets.scored else -t, completion)
            seconds = time.perf_counter() - started
            record = Iteration(stage, t + 1, limit, point.ridge, weight, point.rank, error, change, seconds, completion)
            settled = best.exhausted(t) if targets.scored else stage == "fit" and change < model.tol
            if self._told_to_stop(record) or settled:
                break
        first = len(after.points) if after else 0
        return Result(best.kept, taken[: first + best.iteration + 1], weight, best.error)

    def _advance(self, start: _Start, features: Features, step: Step) -> tuple[Partial, Features]:
        """One iteration: each side solved in turn; the sums over the rows, and the features that follow."""
        totals = []
        for side in start.sides:
            handle, size = self.run.publish(features), side.targets.observations.shape[0]
            with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
                shared = side.published, handle, step, self.plan.slab_rows
                totals.append(self.run.reduce(work.iterate, side.groups, *shared))
                power = round(2 * self.model.power)
                features = features.update(totals[-1], size, step, self.model.floor, power, self.run.map_panels)
        return totals[0], features

    def _told_to_stop(self, record: Iteration) -> bool:
        """Keep the record and tell the callbacks."""
        self.model.history_.append(replace(record, completion=None))
        answers = [callback(record) for callback in self.callbacks]
        return any(answers)

    # ---- where a stage starts ---------------------------------------------------------------------------------

    def _start(self, roles: frozenset[Role]) -> _Start:
        """Targets and first features for a fit to the entries of ``roles``; stages share them: many passes."""
        if roles not in self.starts:
            targets, features = self._targets(roles)
            sides = [_Side(targets, self.run.publish(targets), self.plan.groups)]
            if self.plan.sides == "both":
                across = targets.transposed()
                groups = equal_groups(across.observations, FACTORED_ENTRIES)
                sides.append(_Side(across, self.run.publish(across), groups))
            self.starts[roles] = _Start(features, sides)
        return self.starts[roles]

    def _targets(self, roles: frozenset[Role]) -> tuple[Targets, Features]:
        """What is fitted on the entries of ``roles``, and P = I.

        Factored features fit offsets anew with every solve; for them only the mean is taken off beforehand.
        """
        model, observations = self.model, self.observations
        if model.offsets == "stored":
            offsets = observations.offsets
            if offsets is None:
                raise InputError(f"{observations.name}: no offsets are stored; store some or choose offsets='both'")
        else:
            offsets = fit_offsets(observations, model.offsets, roles=roles)
        clip = summarize(observations, roles).bounds if model.clip == "auto" else model.clip
        scored = frozenset({Role.VALIDATION}) - roles if self.validated else frozenset()
        unscaled = Targets(
            observations, offsets, 1.0, np.dtype(np.float64), roles, scored, clip, keep_bytes=self.plan.kept_bytes
        )
        targets = replace(unscaled, unit=unscaled.root_mean_square(), dtype=np.dtype(model.dtype))
        if self.plan.features == "dense":
            return targets, DenseFeatures.start(observations.shape[1], model.dtype, self.plan.form)
        shrinkage = (
            SHRINKAGE if model.offsets in ("both", "rows") else np.inf,
            SHRINKAGE if model.offsets in ("both", "columns") else np.inf,
        )
        columns = np.zeros(observations.shape[1])
        if min(shrinkage) < np.inf:
            columns = offsets.columns / targets.unit
            m, n = observations.shape
            targets = replace(targets, offsets=Offsets(offsets.mean, np.zeros(m), np.zeros(n)))
        features = FactoredFeatures.start(columns, self.plan.rank, model.dtype, model.random_state, shrinkage)
        return targets, features
