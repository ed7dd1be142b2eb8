"""The stages of a fit that choose settings, all by the validation entries. Knows no files and no Dask.

Short trials tell noise from none, then whether each addition (DESIGN.md, "Additions") earns its place, by successive
halving: the better half of the trials goes on at twice the rank. Paths of the ridge at growing rank choose the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from rfmdist.errors import SingularRowError
from rfmdist.features.augmented import Extras
from rfmdist.fitting import Fit, Result
from rfmdist.observations.blocks import Role
from rfmdist.recovering import recover, recover_beyond
from rfmdist.recovery import Recovered
from rfmdist.selection import (
    CHANCE,
    EARNED,
    FREE_FLOPS,
    GROWN_FURTHER,
    GROWN_GAIN,
    HALVED_ITERATIONS,
    HALVED_RANK,
    HALVED_RIDGE,
    HALVED_SHARE,
    INDICATORS,
    MORE_ITERATIONS,
    MOST_RANK,
    NEARLY,
    PATH_START,
    PATIENCE,
    PLAIN_WEIGHT,
    RANK_STEPS,
    REFINED,
    RIDGE_BY_COUNT,
    ROW_SCALE,
    SEARCH_FACTOR,
    SEARCH_GAIN,
    SEARCH_RANK,
    SIDE_WEIGHT,
    START_RANK,
    TRIAL_FACTOR,
    TRIAL_ITERATIONS,
    USUAL_INDICATORS,
    WAIT,
    WORKING_WEIGHT,
    Point,
    Settings,
    path_factor,
    ridge_schedule,
    search_weight,
)

TRAIN = frozenset({Role.TRAIN})
WORTHS = dict(zip(Extras._fields, (USUAL_INDICATORS, RIDGE_BY_COUNT, ROW_SCALE, SIDE_WEIGHT), strict=True))
"""What each addition is where it is on."""


class Choice:
    """Chooses what is "auto" for one fit."""

    def __init__(self, fit: Fit) -> None:
        self.fit, self.model, self.plan = fit, fit.model, fit.plan
        extras = {name: getattr(self.model, name) for name in Extras._fields}
        usable = self.plan.features == "factored" and self.plan.sides == "both" and not self.model.floor
        self.open = [name for name, value in extras.items() if value == "auto" and usable and fit.validated]
        if self.model.offsets == "stored":
            self.open = [name for name in self.open if name != "row_scale"]
        self.given = Extras(**{name: 0.0 if value == "auto" else float(value) for name, value in extras.items()})
        if self.model.side_weight == "auto" and "side_weight" not in self.open and usable and self._tables:
            self.given = self.given._replace(side_weight=SIDE_WEIGHT)  # nothing can be tried: they were asked for
        self.paths: dict[tuple[Settings, int], Result] = {}
        self.reached = np.inf  # the ridge where the coarse path was at its best
        self.grows = self.plan.features == "factored" and self.model.rank == "auto" and fit.validated > 0

    def recover(self) -> Recovered | list[Result]:
        """Return the matrix that a recovery found, if one was asked for or does better; or else what is chosen."""
        model, fit = self.model, self.fit
        given = model, fit.observations, self.plan, fit.run, fit.told_to_stop
        found = None if model.noise == "auto" else recover(*given)
        if found is not None:
            return found
        results = self.choose()
        suits = (self.plan.features, self.plan.sides) == ("factored", "both") and fit.validated and len(results) == 1
        if model.noise == "auto" and suits and results[0].noiseless and model.offsets in (None, "global", "stored"):
            fit.preparation.release()
            found = recover_beyond(*given, results[0].error)
        return found or results

    def choose(self) -> list[Result]:
        """Fit on the training entries, with what is "auto" chosen by the validation entries; a result a rank."""
        chosen = self.model.replacement == "auto" or self.model.ridge == "auto" or self.open
        trials, found = self._plain_trials() if chosen and self.fit.validated else [], None
        if self.model.replacement == self.model.ridge == "auto" and not (trials and trials[0].rises):
            with suppress(SingularRowError):
                found = self._search()
            if found is not None and found.noiseless:
                return [found]  # of several ranks the greatest: without noise there is nothing to average out
        if not trials:
            return self._fits(Settings(float(self.model.replacement), self.given))
        plain = self._preferred(trials)
        self.reached = plain.points[-1].ridge
        settings = self._earned(self._extended(plain, trials), plain.settings) if self.open else plain.settings
        results = self._fits(settings)
        return results if found is None or len(results) > 1 or results[0].error <= found.error else [found]

    # ---- trials -----------------------------------------------------------------------------------------------

    def _plain_trials(self) -> list[Result]:
        """Coarse paths without additions, with each replacement weight, until the error rises."""
        if self.model.replacement != "auto":
            return [self._trial(Settings(float(self.model.replacement), self.given))]
        first = self._trial(Settings(PLAIN_WEIGHT, self.given))
        others = dict.fromkeys([WORKING_WEIGHT, search_weight(self.plan.sides, self.fit.observed_share)])
        return [first, *self._tried([Settings(other, self.given) for other in others])]

    def _preferred(self, trials: list[Result]) -> Result:
        """The best trial, unless a lower replacement weight is nearly as good: finer paths favour those."""
        least = min(trial.error for trial in trials)
        return next(trial for trial in trials if trial.error <= (1 + NEARLY) * least)

    def _trial(self, settings: Settings, like: Result | None = None) -> Result:
        """A coarse path until the error rises, or just beyond where that ``like`` which it is was at its best."""
        schedule = ridge_schedule(self.model.ridge, self.model.dtype, TRIAL_FACTOR)
        rank = self.plan.rank if self.plan.features == "dense" else min(START_RANK, self._cap)
        limit = TRIAL_ITERATIONS if like is None else len(like.points) + MORE_ITERATIONS
        wait = np.inf if like is None else WAIT * like.points[-1].ridge
        patience = PATIENCE if like is None else 1
        return self.fit.descend("try", TRAIN, schedule.points(rank), settings, limit, patience=patience, wait=wait)

    def _extended(self, plain: Result, trials: list[Result]) -> Settings:
        """Choose among plain settings and those with additions; then leave out each addition that does not earn."""
        weight = plain.settings.replacement
        full = self.given._replace(**{name: WORTHS[name] for name in self.open})
        tried = [Settings(weight, full)]
        if "indicators" in self.open:
            tried = [Settings(weight, full._replace(indicators=c)) for c in INDICATORS]
        tried += [Settings(trial.settings.replacement, full) for trial in trials if trial.error < plain.error]
        found = {trial.settings: trial for trial in [plain, *self._tried(tried, plain)]}
        best = self._halved(list(found.values()))
        kept = best.settings.extras
        for name in [name for name in self.open if getattr(kept, name)]:
            without = best.settings._replace(extras=best.settings.extras._replace(**{name: 0.0}))
            trials = [found[without]] if without in found else self._tried([without], plain)
            if any(best.error > (1 - EARNED) * self._further(trial).error for trial in trials):
                kept = kept._replace(**{name: 0.0})
        return best.settings._replace(extras=kept)

    def _earned(self, settings: Settings, plain: Settings) -> Settings:
        """Return the settings with additions if they are better on the slow path at low rank too."""
        if settings == plain:
            return plain
        rank = min(START_RANK, self._cap)
        extended, share = self._path(settings, rank), CHANCE / np.sqrt(self.fit.validated)
        return settings if extended.error < (1 - share) * self._path(plain, rank).error else plain

    def _tried(self, settings: Iterable[Settings], like: Result | None = None) -> list[Result]:
        """Trials of the settings that can be solved."""
        results = []
        for each in settings:
            with suppress(SingularRowError):
                results.append(self._trial(each, like))
        return results

    def _halved(self, trials: list[Result]) -> Result:
        """Let the better half go on, again and again, until one is left, which went on too."""
        while len(trials) > 1:
            trials = [self._further(trial) for trial in sorted(trials, key=_error)[: len(trials) // 2]]
        return trials[0]

    def _further(self, trial: Result) -> Result:
        """A few more iterations from a trial's best iterate, at the ridge and the rank where trials rank as fits do."""
        last = trial.points[-1]
        ridge = min(HALVED_RIDGE, HALVED_SHARE * last.ridge) if self.model.ridge == "auto" else last.ridge
        point = Point(ridge, max(last.rank, min(HALVED_RANK, self._most_rank, self._cap)))
        return self.fit.descend("try", TRAIN, [point] * HALVED_ITERATIONS, trial.settings, after=trial, patience=1)

    # ---- fits -------------------------------------------------------------------------------------------------

    def _search(self) -> Result:
        """The fast path, which recovers what has no noise; a rank that is too low shows in the error."""
        rank, best = self._rank(SEARCH_RANK), None
        schedule = ridge_schedule("auto", self.model.dtype, SEARCH_FACTOR[self.plan.sides])
        settings = Settings(search_weight(self.plan.sides, self.fit.observed_share), self.given)
        while True:
            found = self.fit.descend("fit", TRAIN, schedule.points(rank), settings)
            gained = best is None or found.error < (1 - SEARCH_GAIN) * best.error
            best = found if best is None or found.error < best.error else best
            tried, rank = rank, min(2 * rank, self._most_rank)
            if best.noiseless or not gained or self.model.rank != "auto" or rank <= tried:
                return best

    def _fits(self, settings: Settings) -> list[Result]:
        """A result for each rank that was asked for, or one of the best rank; settings may still be refined."""
        if not isinstance(self.model.rank, tuple | list):
            return [self._refined(self._fitted(settings))]
        one, *more = (min(rank, *self.fit.observations.shape) for rank in self.model.rank)
        first = self._refined(self._path(settings, one))
        return [first, *(self._path(first.settings, rank) for rank in more)]

    def _fitted(self, settings: Settings) -> Result:
        """The slow path for noise, or the fixed ridge, at growing rank as long as that gains or costs little."""
        best, tried, gain = self._path(settings, self._rank(START_RANK)), self._rank(START_RANK), 1.0
        for rank in RANK_STEPS if self.grows else ():
            rank = min(rank, self._most_rank)
            costly = len(best.points) * self.plan.flops * (rank / self.plan.rank) ** 2 > FREE_FLOPS
            if rank <= tried or best.error == 0 or (gain < GROWN_FURTHER and costly and tried > START_RANK):
                break
            grown = self._path(settings, rank)
            gain, tried = 1 - grown.error / best.error, rank
            best = grown if gain >= GROWN_GAIN else best
        return best

    def _refined(self, best: Result) -> Result:
        """Try somewhat stronger and weaker indicators from the best iterate on: their worth depends on the rank."""
        weight, limit = best.settings.extras.indicators, HALVED_ITERATIONS
        for factor in (REFINED, 1 / REFINED) if weight and "indicators" in self.open else ():
            settings = best.settings._replace(extras=best.settings.extras._replace(indicators=factor * weight))
            trial = self.fit.descend("try", TRAIN, [best.points[-1]] * limit, settings, after=best, patience=1)
            if trial.error < (1 - EARNED) * best.error:
                return trial
        return best

    def _path(self, settings: Settings, rank: int) -> Result:
        """The slow path; what is still falling where the coarse one was at its best is not given up before."""
        if (settings, rank) not in self.paths:
            factor = path_factor(self.reached)
            schedule = ridge_schedule(self.model.ridge, self.model.dtype, factor, PATH_START)
            points = schedule.points(rank, rising=self.grows and rank > RANK_STEPS[0])
            found = self.fit.descend("fit", TRAIN, points, settings, wait=WAIT * self.reached)
            self.paths[settings, rank] = found
        return self.paths[settings, rank]

    def _rank(self, start: int) -> int:
        """Return the rank to begin with."""
        return min(start, self.plan.rank) if self.grows else self.plan.rank

    @property
    def _tables(self) -> bool:
        """Whether side columns of the user's own were named."""
        return bool(self.model.row_table or self.model.column_table)

    @property
    def _cap(self) -> int:
        """The rank that was asked for, or that "auto" may grow to."""
        return self._most_rank if self.grows else self.plan.rank

    @property
    def _most_rank(self) -> int:
        """The greatest rank worth trying."""
        return 0 if self.plan.features == "dense" else min(MOST_RANK, self.plan.most_rank, *self.fit.observations.shape)


def _error(result: Result) -> float:
    return result.error
