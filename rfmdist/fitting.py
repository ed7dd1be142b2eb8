"""The loop of iterations of a fit. Knows neither files nor Dask, nor how settings are chosen."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from sys import getsizeof
from typing import TYPE_CHECKING, Literal

import numpy as np

from rfmdist.completion import Completion
from rfmdist.engine import work
from rfmdist.engine.plan import Plan
from rfmdist.engine.run import Executor, Traffic
from rfmdist.errors import InputError, SingularRowError
from rfmdist.features.augmented import AugmentedFeatures
from rfmdist.features.cosine import with_cosines
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.mean import MeanFeatures
from rfmdist.features.protocol import Features, Scores, Step
from rfmdist.kernels.threads import Threads
from rfmdist.observations.blocks import FITTED_ROLES, Role
from rfmdist.observations.store import Observations
from rfmdist.observations.summary import overview
from rfmdist.parameters import exponent
from rfmdist.preparing import Preparation, Side
from rfmdist.progress import Iteration, report, tell
from rfmdist.selection import ENOUGH, NOISE_ITERATIONS, NOISELESS_RIDGE, PATIENCE, RISE, Best, Point, Settings

if TYPE_CHECKING:
    from rfmdist.lin_rfm import LinRFM

SLOTS = (frozenset({Role.TRAIN}), frozenset({Role.VALIDATION}))
"""What is fitted first, and what is added when the fit is repeated."""
Stage = Literal["try", "fit", "refit"]


@dataclass(frozen=True)
class Result:
    """What a stage ends with: its best iterate, and the settings of the iterations that led there."""

    completion: Completion
    points: list[Point]
    settings: Settings
    error: float
    errors: list[float]

    @property
    def rises(self) -> bool:
        """Whether the error, within the first few iterations, rose where it first did not fall."""
        least = np.inf
        for error in self.errors[:NOISE_ITERATIONS]:
            if error >= least:
                return error > (1 + RISE) * least
            least = error
        return False

    @property
    def noiseless(self) -> bool:
        """Whether the error still fell at a ridge that only values without noise allow."""
        return self.points[-1].ridge < NOISELESS_RIDGE


class Fit:
    """One call of ``fit``: what stays the same over its stages."""

    def __init__(
        self, model: LinRFM, observations: Observations, plan: Plan, run: Executor, check_split: Callable[[], None]
    ) -> None:
        self.model, self.observations, self.plan, self.run = model, observations, plan, run
        self._check_split = check_split
        seen = overview(observations, SLOTS, run)
        self.counts = counts = seen.counts
        self.validated = counts["validation"]  # the number of entries to choose by
        self.observed_share = (counts["train"] + counts["validation"]) / np.prod(observations.shape, dtype=float)
        self._traffic = run.traffic()
        self.callbacks = [*(model.callbacks or ()), *([report] if model.verbose else [])]
        self.preparation = Preparation(model, observations, plan, run, seen)

    def descend(
        self,
        stage: Stage,
        roles: Iterable[Role],
        points: Iterable[Point],
        settings: Settings,
        limit: int | None = None,
        after: Result | None = None,
        *,
        patience: int = PATIENCE,
        wait: float = np.inf,
    ) -> Result:
        """Iterate from P = I, or go on ``after`` a result, through ``points``, ``limit`` at most.

        It stops after ``patience`` iterations that do not lower the validation error, once the ridge is below
        ``wait``. Returns the best iterate by that error, or the last where none is validated.
        """
        limit = self.model.max_iter if limit is None else min(limit, self.model.max_iter)
        model, start = self.model, self.preparation.start(frozenset(roles), settings.extras.row_scale)
        completion = None if after is None else after.completion
        features: Features | None = None if completion is None else completion.features
        if isinstance(features, AugmentedFeatures):
            features = replace(features, extras=settings.extras)
        targets, taken = start.sides[0].targets, list(after.points) if after else []
        enough = ENOUGH * float(np.finfo(model.dtype).eps) * targets.unit
        best, errors = Best(model.tol, patience, enough), []
        for t, point in enumerate(islice(points, limit)):
            started = time.perf_counter()
            step = Step(point.ridge, settings.replacement, self.plan.sides == "both")
            if features is None:
                features = start.features(point.rank, settings.extras)
            elif taken[-1].rank < point.rank:
                features = features.grown(point.rank, model.random_state)
            taken.append(point)
            completion = Completion(targets, features, step)
            try:
                scores, features = self._advance(start.sides, features, step)
            except SingularRowError as singular:
                if t == 0 and after is not None:
                    return after
                if t == 0:
                    raise
                if model.ridge != "auto":  # a path is meant to run into the dtype's end
                    warnings.warn(f"the {stage} ended after {t} iterations: {singular}", stacklevel=3)
                break  # the best iterate before it stands
            error = scores.rmse
            errors.append(error)
            change = features.distance(completion.features)
            if not np.isfinite(change):
                raise InputError("the features left the dtype's range: lower replacement, floor or power")
            best.offer(t, error if targets.scored else -t, completion)
            seconds = time.perf_counter() - started
            traffic = self._traffic_since()
            record = Iteration(stage, t + 1, limit, *point, *settings, error, change, seconds, completion, *traffic)
            settled = best.exhausted(t) if targets.scored else stage == "fit" and change < model.tol
            settled &= point.ridge <= wait
            if self.told_to_stop(record) or settled:
                break
        first = len(after.points) if after else 0
        return Result(best.kept, taken[: first + best.iteration + 1], settings, best.error, errors)

    def repeated(self, result: Result) -> Result:
        """Go through a result's iterations once more, on all entries but those for test."""
        return self.descend("refit", FITTED_ROLES, result.points, result.settings, len(result.points))

    def combined(self, results: list[Result]) -> tuple[Completion, float]:
        """Return the completion of one result, or the mean of several, and its error on the validation entries.

        Cosine features are put beside those of each.
        """
        model, completions = self.model, [result.completion for result in results]
        if len(results) == 1 and not model.cosine_features:
            return completions[0], results[0].error if self.validated else float("nan")
        members = []
        for completion in completions:
            assert isinstance(completion.features, FactoredFeatures)
            found = completion.features
            if model.cosine_features:
                found = with_cosines(found, model.cosine_features, model.random_state)
            members.append(found)
        steps = [completion.step for completion in completions]
        features = MeanFeatures.of(members, steps) if len(members) > 1 else members[0]
        combined = Completion(completions[0].targets, features, steps[0])
        if Role.VALIDATION in combined.targets.fitted or not self.validated:
            return combined, float("nan")
        return combined, combined.score_role(Role.VALIDATION, self.run).rmse

    def finish(self, found: Completion) -> Completion:
        """Return the completion, which keeps no blocks in memory."""
        self.preparation.release()
        return Completion(replace(found.targets, keep_bytes=0, scratch=None), found.features, found.step)

    def _advance(self, sides: list[Side], features: Features, step: Step) -> tuple[Scores, Features]:
        """One iteration: each side solved in turn; the scores of the rows, and the features that follow."""
        scores = []
        with ExitStack() as stack:
            for side in sides:
                handle, size = self.run.publish(features), side.targets.observations.shape[0]
                # Features of the columns are what the fit is about: they always come here. Those of the rows need not.
                nbytes = 0
                if isinstance(features, FactoredFeatures) and side is not sides[-1]:
                    nbytes = size * features.rank * features.factor.itemsize
                shelf = self.run.shelf(size, nbytes)
                summed = getsizeof(features.zero(step, Threads(1)))
                stack.callback(shelf.discard)
                with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
                    shared = side.published, handle, step, self.plan.slab_rows, shelf
                    try:
                        total = self.run.reduce(work.iterate, side.groups, *shared, nbytes=summed)
                    except SingularRowError as singular:
                        if side is sides[0]:
                            raise
                        raise SingularRowError(str(singular).replace("row code", "column code", 1)) from None
                    shelf.collect(total)
                    scores.append(total.scores)
                    power = exponent(self.model.power)
                    features = features.update(total, size, step, self.model.floor, power, self.run.map_panels)
                    del total  # rows that were not turned in their place go before the next side's are solved
        return scores[0], features

    def _traffic_since(self) -> Traffic:
        """Bytes moved and read since this was asked last."""
        before, self._traffic = self._traffic, self.run.traffic()
        return self._traffic.since(before)

    def told_to_stop(self, record: Iteration) -> bool:
        """Keep the record and tell the callbacks, unless the iteration saw two splits."""
        self._check_split()
        return tell(self.model.history_, self.callbacks, record)
