"""What the iterations of a fit start from: targets on each side, and first features. Knows no settings' choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.engine.groups import FACTORED_ENTRIES, equal_groups
from rfmdist.engine.plan import Plan
from rfmdist.engine.run import Executor
from rfmdist.features.augmented import AugmentedFeatures, Extras, Margin
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.protocol import Features
from rfmdist.machine import hand_back_memory
from rfmdist.observations.blocks import Offsets, Role
from rfmdist.observations.frames import Axis
from rfmdist.observations.kept import Entries
from rfmdist.observations.offsets import SHRINKAGE, SWEEPS, find_offsets, given_offsets
from rfmdist.observations.scales import Spread, measure
from rfmdist.observations.side import side_columns, standardised
from rfmdist.observations.store import Observations
from rfmdist.observations.summary import Overview
from rfmdist.observations.targets import Targets

if TYPE_CHECKING:
    from rfmdist.lin_rfm import LinRFM

INTERCEPT_SHRINKAGE = 2.0
"""Entries' worth of pull of offsets that are fitted within every solve: on both MovieLens 0.0003 to 0.0009 better than
the 5 that is usual for offsets fitted alone; 1 is as good."""
START_SWEEPS = 3
"""Passes for offsets that the solves fit anew."""
TABLE_WEIGHT = 1.2
"""Size of users' own side columns in that of counts and offsets (DESIGN.md, "Side columns")."""
COUNT_START = 3.0
"""Added to counts before their logarithm, so that rows of one and of two entries are not far apart."""


@dataclass(frozen=True)
class Side:
    """What an iteration maps over on one side: rows, or columns."""

    targets: Targets
    published: Any
    groups: tuple[tuple[int, int], ...]


class Known:
    """What is known of the entries of ``roles`` before any is solved: an overview told it, or few passes more.

    Attributes
    ----------
    offsets : Offsets
        To begin with; stored ones as they are.
    spread : Spread
        What they leave of the values.
    clip : tuple of float or None
        Range that predictions are held to.
    """

    def __init__(
        self,
        model: LinRFM,
        entries: Entries,
        seen: Overview,
        exact: bool,
        tables: tuple[NDArray[np.float64], NDArray[np.float64]],
        run: Executor,
    ) -> None:
        self.model, self.roles, self._facts, self._tables = model, entries.roles, seen.of(entries.roles), tables
        self.clip = self._facts.summary.bounds if model.clip == "auto" else model.clip
        spread: Spread | None = None
        if model.offsets is None or model.offsets == "stored":
            self.offsets = given_offsets(entries.observations, model.offsets)
        else:
            sweeps = SWEEPS if exact else START_SWEEPS
            self.offsets, spread = find_offsets(entries, self._facts, model.offsets, SHRINKAGE, sweeps, run)
        self.spread = spread or measure(entries, self.offsets, run)
        self.spread.check(entries.observations.name)

    @cached_property
    def margins(self) -> tuple[Margin, Margin]:
        """What is known of the columns, and of the rows, beside their values."""
        about_columns, about_rows = self._tables
        columns = _margin(self._facts.by_column, self.offsets.columns, about_columns)
        return columns, _margin(self._facts.by_row, self.offsets.rows, about_rows)


@dataclass(frozen=True)
class Start:
    """What a stage begins with: the sides it goes through in turn, and what the first features are made of."""

    sides: list[Side]
    columns: NDArray[np.float64]
    shrinkage: tuple[float, float]
    known: Known
    plan: Plan

    def features(self, rank: int, extras: Extras) -> Features:
        """Return P = I, or its factored likeness of this rank."""
        model = self.known.model
        if self.plan.features == "dense":
            return DenseFeatures.start(len(self.columns), model.dtype, self.plan.form)
        plain = FactoredFeatures.start(self.columns, rank, model.dtype, model.random_state, self.shrinkage)
        if not any(extras._replace(row_scale=0.0)):
            return plain
        return AugmentedFeatures.begin(plain, self.known.margins, extras)


class Preparation:
    """Makes what stages start from, and holds it for the next: only one at a time, since blocks take memory."""

    def __init__(self, model: LinRFM, observations: Observations, plan: Plan, run: Executor, seen: Overview) -> None:
        self.model, self.observations, self.plan, self.run, self.seen = model, observations, plan, run, seen
        # Read once, and before any trial: an unknown name is refused at once.
        self._tables = (
            _table(observations, "columns", model.column_table),
            _table(observations, "rows", model.row_table),
        )
        self._key: tuple[frozenset[Role], float] | None = None
        self._known: Known | None = None
        self._start: Start | None = None

    def start(self, roles: frozenset[Role], row_scale: float) -> Start:
        """Return the start of a fit to the entries of ``roles``, which stages share: it takes many passes."""
        if self._start is None or self._key != (roles, row_scale):
            self.release()
            if self._known is None or self._known.roles != roles:
                entries, exact = Entries(self.observations, roles), self.plan.features == "dense"
                self._known = Known(self.model, entries, self.seen, exact, self._tables, self.run)
                del entries  # and the blocks it holds
                hand_back_memory()
            self._start, self._key = self._made(self._known, row_scale), (roles, row_scale)
        return self._start

    def release(self) -> None:
        """Let the blocks go that targets keep."""
        for side in self._start.sides if self._start else []:
            side.targets.release()
        self._start = None

    def _made(self, known: Known, row_scale: float) -> Start:
        targets, columns, shrinkage = self._targets(known, row_scale)
        sides = [Side(targets, self.run.publish(targets, lasting=True), self.plan.groups)]
        if self.plan.sides == "both":
            across = targets.transposed(self.plan.copy_bytes)
            groups = equal_groups(across.observations, FACTORED_ENTRIES)
            sides.append(Side(across, self.run.publish(across, lasting=True), groups))
        return Start(sides, columns, shrinkage, known, self.plan)

    def _targets(self, known: Known, row_scale: float) -> tuple[Targets, NDArray[np.float64], tuple[float, float]]:
        """What is fitted on the known entries; the columns' first offsets and the pull on those fitted anew.

        Factored features fit offsets anew with every solve; for them only the mean is taken off beforehand.
        """
        model, (m, n), offsets = self.model, self.observations.shape, known.offsets
        scored = frozenset({Role.VALIDATION}) - known.roles if self.seen.counts["validation"] else frozenset()
        scales = known.spread.scales(offsets, row_scale) if row_scale else None
        targets = Targets(
            self.observations,
            offsets,
            known.spread.unit(scales),
            np.dtype(model.dtype),
            known.roles,
            scored,
            known.clip,
            scales,
            keep_bytes=self.plan.kept_bytes,
            scratch=self.run.scratch,
        )
        shrinkage = (
            INTERCEPT_SHRINKAGE if model.offsets in ("both", "rows") else np.inf,
            INTERCEPT_SHRINKAGE if model.offsets in ("both", "columns") else np.inf,
        )
        if self.plan.features == "dense" or min(shrinkage) == np.inf:
            return targets, np.zeros(n), (np.inf, np.inf)
        bare = replace(targets, offsets=Offsets(offsets.mean, np.zeros(m), np.zeros(n)))
        return bare, offsets.columns / targets.unit, shrinkage


def _margin(counts: NDArray[Any], offsets: NDArray[np.float64], table: NDArray[np.float64]) -> Margin:
    """Counts, and as side columns their logarithm, the offsets and the user's own (DESIGN.md, "Side columns")."""
    told = (standardised(values) for values in (np.log(counts + COUNT_START), offsets))
    columns = [column for column in told if column is not None]
    return Margin(counts.astype(np.float64), np.column_stack([*columns, TABLE_WEIGHT * table]).astype(np.float32))


def _table(observations: Observations, axis: Axis, names: Sequence[str]) -> NDArray[np.float64]:
    """The user's side columns; pandas, which reads them, is not imported for none."""
    return side_columns(observations, axis, names) if names else np.empty((observations.shape[axis == "columns"], 0))
