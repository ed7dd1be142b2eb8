"""What a fit asks of a recovery: one told the noise, or one that must do better than the usual fit, and its repetition.

Knows which entries are fitted, that each connected component of them is recovered by itself, and when a recovery
stands; how a matrix is recovered is in recovery.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfmdist.certificate import Certificate
from rfmdist.completion import Completion
from rfmdist.cores import exceeds, freedom
from rfmdist.engine.elimination import Floats
from rfmdist.engine.plan import Plan
from rfmdist.engine.run import Executor
from rfmdist.errors import InputError
from rfmdist.features.protocol import Step
from rfmdist.features.recovered import RecoveredFeatures
from rfmdist.kernels.threads import one_blas_thread
from rfmdist.observations.blocks import FITTED_ROLES, Offsets, Role
from rfmdist.observations.components import Codes, connected
from rfmdist.observations.kept import HELD_BYTES, Entries
from rfmdist.observations.offsets import fit_offsets
from rfmdist.observations.scales import Spread, measure
from rfmdist.observations.store import Observations
from rfmdist.observations.targets import Targets
from rfmdist.progress import Iteration
from rfmdist.projection import RIDGE
from rfmdist.recovery import KEPT, RESTARTS, Mask, Recovered, Recovery

if TYPE_CHECKING:
    from rfmdist.lin_rfm import LinRFM

TRAIN = frozenset({Role.TRAIN})
NEARLY = 1e-4
"""Held-out error, in units of the values, below which a fit without noise has recovered the matrix as it is."""
ENTRY_BYTES, BATCH = 64, 256
"""What an entry of a component's own observations takes in memory, in both orders; components extracted in a pass."""


def recover(
    model: LinRFM, observations: Observations, plan: Plan, run: Executor, tell: Callable[[Iteration], bool]
) -> Recovered | None:
    """Recover a matrix whose noise is known; None where there is noise and nothing is certified.

    Without noise training and validation entries are fitted, and an answer that is not certified is the search's.
    """
    noise = float(model.noise)
    with one_blas_thread():
        whole = _Whole(model, observations, plan, run, tell, noise, TRAIN if noise else FITTED_ROLES)
        parts = list(whole.recovered())
        found = whole.joined(parts)
        told = _told(parts, found.certificate.certified, exact=not noise)
        if told:
            warnings.warn(told, stacklevel=4)
        if not found.certificate.certified:
            return None if noise else found
        return whole.repeated(parts, found) if noise and model.refit else found


def recover_beyond(
    model: LinRFM,
    observations: Observations,
    plan: Plan,
    run: Executor,
    tell: Callable[[Iteration], bool],
    error: float,
) -> Recovered | None:
    """Recover a matrix that seems to have no noise, if that lowers the ``error`` on the validation entries."""
    with one_blas_thread():
        whole = _Whole(model, observations, plan, run, tell, 0.0, TRAIN, error)
        if not error > NEARLY * whole.targets.unit:
            return None
        parts = list(whole.recovered(restarts=1))
        found = whole.joined(parts)
        if not found.certificate.certified or not found.certificate.held_out < error:
            return None
        return whole.repeated(parts, found) if model.refit else found


class _Part(NamedTuple):
    """What was found of one component.

    Attributes
    ----------
    rows, columns : int64 ndarrays
        Codes of its rows and columns.
    entries : int
        Number of its fitted entries.
    guessed : bool
        Whether its factor tells something of what was not observed, certified or not.
    certificate, factor, ridge, steps
        As in `Recovered`; the factor is (columns, rank).
    determined : tuple of Mask
        Which of its rows and columns are determined.
    """

    rows: Codes
    columns: Codes
    entries: int
    guessed: bool
    certificate: Certificate
    factor: Floats
    ridge: float
    determined: tuple[Mask, Mask]
    steps: int

    @classmethod
    def of(cls, rows: Codes, columns: Codes, entries: int, found: Recovered) -> _Part:
        """Return what a recovery found of a component."""
        masks, guessed = (found.rows, found.columns), found.factor.shape[1] > 0
        ridge, steps = found.completion.step.ridge, found.steps
        return cls(rows, columns, entries, guessed, found.certificate, found.factor, ridge, masks, steps)


class _Whole:
    """The recovery of a matrix, one connected component of the fitted entries after the other."""

    def __init__(
        self,
        model: LinRFM,
        observations: Observations,
        plan: Plan,
        run: Executor,
        tell: Callable[[Iteration], bool],
        noise: float,
        roles: frozenset[Role],
        error: float = 0.0,
    ) -> None:
        self.model, self.observations, self.plan, self.run, self.tell = model, observations, plan, run, tell
        self.noise, self.error = noise, error
        self._look_at(roles)
        self.entries = int(self.spread.counts.sum())

    def _look_at(self, roles: frozenset[Role]) -> None:
        """Measure the entries of ``roles``, which are to be fitted."""
        self.roles, self.offsets = roles, _offsets(self.model, self.observations, roles)
        self.spread = measure(Entries(self.observations, roles), self.offsets, self.run)
        self.spread.check(self.observations.name)
        self.targets = self._targets(self.observations, self.offsets, self.spread)

    # ---- the components -----------------------------------------------------------------------------------------

    def recovered(self, restarts: int = RESTARTS) -> Iterator[_Part]:
        """Recover each component by itself, those of most entries first."""
        self.components = connected(Entries(self.observations, self.roles), self.run)
        squares, stopped = self.components.sum_rows(self.spread.squares), False
        extracted = self._extracted([c for c in range(self.components.number) if self._tells(c, squares)])
        for component in range(self.components.number):
            if stopped or not self._tells(component, squares):
                yield self._as_seen(component)
                continue
            observations, rows, columns = next(extracted)
            recovery = self._recovery(observations, rows, columns)
            full = not self.noise and recovery.whole.is_full
            found = recovery.seen() if full else recovery.search(restarts)
            recovery.release()
            stopped = recovery.told
            yield _Part.of(rows, columns, int(self.components.entries[component]), found)

    def _tells(self, component: int, squares: NDArray[np.float64]) -> bool:
        """Whether entries that are not all 0 could tell a component's rank, be it but 1."""
        free = freedom(*self.components.shape(component), 1)
        return bool(squares[component] > 0) and exceeds(int(self.components.entries[component]), free, 1)

    def _as_seen(self, component: int) -> _Part:
        """Leave a component as it was seen: certified if that was in full and without noise; zeros suggest zeros."""
        rows, columns = self.components.members(component)
        entries, zeros = int(self.components.entries[component]), not self.spread.squares[rows].any()
        full = entries == len(rows) * len(columns) and not self.noise
        certificate = Certificate(full, 0, entries, 0, 0.0, len(rows), len(columns))
        masks = np.full(len(rows), full), np.full(len(columns), full)
        nothing = np.zeros((len(columns), 0))
        return _Part(rows, columns, entries, zeros, certificate, nothing, RIDGE, masks, 0)

    def _extracted(self, wanted: list[int]) -> Iterator[tuple[Observations, Codes, Codes]]:
        """Yield components as observations of their own, with the codes of their rows and columns."""
        if self.components.number == 1:
            m, n = self.observations.shape
            yield from [(self.observations, np.arange(m), np.arange(n))] * len(wanted)
            return
        taken = frozenset(self.roles | self.targets.scored)
        for batch, folder in self._batches(wanted):
            found = self.components.extract(self.observations, batch, taken, folder)
            for component, observations in zip(batch, found, strict=True):
                yield observations, *self.components.members(component)

    def _batches(self, wanted: list[int]) -> Iterator[tuple[list[int], str | None]]:
        """Cut components into what memory holds at once; one that it does not hold goes to a folder of the fit's."""
        most, batch, held = max(self.plan.kept_bytes, HELD_BYTES) // ENTRY_BYTES, list[int](), 0
        for component in wanted:
            entries = int(self.components.entries[component])
            if self.run.scratch is not None and entries > most:
                yield [component], self.run.scratch.folder
                continue
            if batch and (held + entries > most or len(batch) == BATCH):
                yield batch, None
                batch, held = [], 0
            batch.append(component)
            held += entries
        if batch:
            yield batch, None

    def _recovery(
        self, observations: Observations, rows: Codes, columns: Codes, known: Certificate | None = None
    ) -> Recovery:
        """Prepare the recovery of a component, in its own unit."""
        targets = self.targets
        if observations is not self.observations:
            whole = self.offsets
            offsets = Offsets(whole.mean, whole.rows[rows], whole.columns[columns], whole.row_shrinkage)
            spread = measure(Entries(observations, self.roles), offsets, self.run)
            targets = self._targets(observations, offsets, spread)
        return Recovery(self.model, targets, self.plan, self.run, self.noise, self.tell, self.error, known)

    def _targets(self, observations: Observations, offsets: Offsets, spread: Spread) -> Targets:
        """Return what is fitted, in float64: the values less what does not depend on the fit."""
        clip = None if self.model.clip == "auto" else self.model.clip  # the matrix is known beyond what was seen of it
        scored, dtype = frozenset({Role.VALIDATION}) - self.roles, np.dtype(np.float64)
        given = observations, offsets, spread.unit(), dtype, self.roles, scored, clip
        return Targets(*given, keep_bytes=self.plan.kept_bytes)

    # ---- the matrix -----------------------------------------------------------------------------------------------

    def joined(self, parts: list[_Part]) -> Recovered:
        """Put what was found of all components side by side.

        It is certified if components with at least half of the entries are. What others miss is then told by nothing;
        otherwise a guess is returned where there is one.
        """
        m, n = self.observations.shape
        rows, columns = np.zeros(m, np.bool_), np.zeros(n, np.bool_)
        sound = [part for part in parts if part.certificate.certified]
        for part in sound:
            rows[part.rows], columns[part.columns] = part.determined
        certified = sum(part.entries for part in sound) >= KEPT * self.entries
        certificate = Certificate.of([part.certificate for part in parts], certified)
        used = [part for part in (sound if certified else parts) if part.guessed]
        features, ridge = self._features(used)
        completion = Completion(replace(self.targets, keep_bytes=0), features, Step(ridge, 0.0))
        if len(parts) > 1 and self.targets.scored:
            held_out = completion.score_role(Role.VALIDATION, self.run).rmse
            certificate = replace(certificate, held_out=held_out)
        steps = sum(part.steps for part in parts)
        return Recovered(completion, certificate, features.factor, rows, columns, steps)

    def _features(self, parts: list[_Part]) -> tuple[RecoveredFeatures, float]:
        """Return features of some components, which share the columns of U, and the ridge of all of them.

        A factor times s is as good with its ridge times s².
        """
        n = self.observations.shape[1]
        factor = np.zeros((n, max((part.factor.shape[1] for part in parts), default=0) or 1))
        components, ranks = np.zeros(n, np.int32), [0]
        ridge = max(parts, key=lambda part: part.factor.shape[1] > 0).ridge if parts else RIDGE
        for number, part in enumerate(parts, 1):
            there = self.components.columns[part.columns] >= 0
            if part.certificate.certified:
                there = part.determined[1]
            rank = part.factor.shape[1]
            factor[part.columns[there], :rank] = part.factor[there] * np.sqrt(ridge / part.ridge)
            components[part.columns[there]] = number
            ranks.append(rank if part.certificate.certified else 0)
        exact = not self.noise
        found = RecoveredFeatures(factor, np.zeros(n), components=components, ranks=tuple(ranks), exact=exact)
        return found, ridge

    def repeated(self, parts: list[_Part], found: Recovered) -> Recovered:
        """Repeat the finishes on all fitted entries, from the factors found; one that ends nowhere changes nothing."""
        self._look_at(FITTED_ROLES)
        wanted = [c for c, part in enumerate(parts) if part.certificate.certified and part.guessed]
        again, changed = list(parts), False
        for component, (observations, rows, columns) in zip(wanted, self._extracted(wanted), strict=True):
            part = parts[component]
            recovery = self._recovery(observations, rows, columns, part.certificate)
            repeated = recovery.finish(part.factor)
            recovery.release()
            if repeated is not None:
                repeated = repeated._replace(steps=part.steps + repeated.steps)
                again[component], changed = _Part.of(rows, columns, part.entries, repeated), True
            if recovery.told:
                break
        if not changed:
            return found
        after = self.joined(again)
        return after._replace(certificate=replace(after.certificate, held_out=found.certificate.held_out))


def _told(parts: list[_Part], certified: bool, *, exact: bool) -> str | None:
    """What could not be certified, in one sentence; None where all could."""
    sound = [part for part in parts if part.certificate.certified]
    failed = [part for part in parts if part.guessed and not part.certificate.certified]
    entries = sum(part.entries for part in parts)
    if certified and not failed:
        return None
    if certified:
        return (
            f"{len(failed)} of {len(parts)} components, with {sum(part.entries for part in failed)} of {entries}"
            " entries, could not be certified; what was not observed in them is NaN"
        )
    rest = "the completion is the search's and only a guess" if exact else "the completion is the usual fit's"
    if not sound:
        return f"no matrix of low rank could be certified from {entries} entries; {rest}"
    return (
        f"of {entries} entries only {sum(part.entries for part in sound)}, of {len(sound)} of {len(parts)} components,"
        f" could be certified; elsewhere {rest}"
    )


def _offsets(model: LinRFM, observations: Observations, roles: frozenset[Role]) -> Offsets:
    """Return what is taken off the values."""
    offsets = observations.offsets if model.offsets == "stored" else fit_offsets(observations, None)
    if model.noise == "auto" and model.offsets == "global":
        offsets = fit_offsets(observations, "global", roles=roles)
    if offsets is None:
        raise InputError(f"{observations.name}: no offsets are stored; store some or choose offsets=None")
    return offsets
