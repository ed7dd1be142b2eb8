"""Exact recovery of a low-rank matrix whose rank is not known: search, rank cut, finish, certificate.

The loop of both sides need not converge: within some tens of iterations the spectrum of its features shows the rank and
the right basin. Then the rank is cut and finished by variable projection, on the rows and columns that the entries can
determine at all. Knows the rule; passes over rows are in engine/elimination.py, the finish is in projection.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfmdist.certificate import Certificate, even, rigid
from rfmdist.completion import Completion
from rfmdist.cores import Core, all_rows, cores, counted, determined_rows, extended, one_component
from rfmdist.engine import elimination, work
from rfmdist.engine.elimination import Basis, Block, Floats
from rfmdist.engine.groups import FACTORED_ENTRIES, equal_groups
from rfmdist.engine.plan import Plan
from rfmdist.engine.planner import most_recovered
from rfmdist.engine.run import Executor
from rfmdist.features.augmented import Extras
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.protocol import Scores, Step
from rfmdist.observations.targets import Targets
from rfmdist.progress import Iteration
from rfmdist.projection import CERTIFIED, EXACT, PASSES, RIDGE, Descent, Goal, Placed, Projection, leverage, orthonormal
from rfmdist.spectrum import Gaps

if TYPE_CHECKING:
    from rfmdist.lin_rfm import LinRFM

Mask = NDArray[np.bool_]
START, FACTOR, END = 0.05, 0.85, 1e-7
"""Ridge of the search, in units of the features' largest square: at first, its factor an iteration, and its end. Any
factor of 0.7 to 0.95 serves; from 1 on it takes 30 iterations more and gains nothing."""
SHARE = 0.8
"""Times 1/density: the replacement weight. Of 500 × 500, rank 5, all are recovered with 0.2 to 1.5."""
CAP, MOST_CAP = 20, 160
"""Columns of the search's U, for ranks up to half of that, and what they are doubled to where no rank shows."""
TRIES, RESTARTS = 5, 3
"""Finishes at one rank before the search starts anew from other random features, and searches in all."""
SPIKE, SPIKES = 0.3, 2
"""Leverage of a row or column on which a stalled fit hangs, and how often such are dropped: at 1.05 times the degrees
of freedom 7 of 10 are recovered without, 10 of 10 with it."""
KEPT = 0.5
"""Share of the entries that a block must hold."""
HELD_OUT, HELD_OUT_MORE, ENOUGH_HELD_OUT = 6.0, 0.2, 10
"""Mean absolute held-out error up to which a fit with noise is right: times the noise, and beyond it in units of the
values; and the entries to tell it by. At 1.2 times the degrees of freedom right ones reach 3 (their squares 9, by a few
entries that are hardly determined); wrong ones have the values' own error."""
NEAR, LESS, DEFLATIONS = 1e-2, 0.5, 4
"""Share of the squares that a stalled fit may leave for its rank to be raised by one, and of what the fit before it
left, and how often that is done. Condition number 100 at 1.2 times the freedom: 17 of 20 recovered, 1 of 8 without;
0.1 and 1e-3 for the first do as well."""
UNEXPLAINED = 0.2
"""Share of the values' squares beyond the noise's that such a fit may leave in entries held out."""
AGAIN = 4.0
"""A repeated fit may leave this many times the share of the squares that the first one left."""


class Recovered(NamedTuple):
    """A recovered matrix.

    Its completion, why it is right, its column factor (n, r), the rows (m,) and columns (n,) that are determined, and
    the iterations of the search and steps of the finish that it took.
    """

    completion: Completion
    certificate: Certificate
    factor: Floats
    rows: Mask
    columns: Mask
    steps: int


class _Side(NamedTuple):
    """What a half step maps over: rows, or columns."""

    targets: Targets
    published: Any
    groups: tuple[tuple[int, int], ...]


class Recovery:
    """One recovery from the entries of ``roles``.

    Parameters
    ----------
    model : LinRFM
        Its rank, offsets, clip, max_iter and random_state are used.
    targets, plan, run
        What is fitted, how it is cut, and where the work runs.
    noise : float
        Standard deviation of the values' noise, in their own units.
    tell : callable
        Is given an `Iteration` and answers whether to stop.
    error : float, default 0
        A held-out error that is to be beaten; without noise it asks for one to be measured.
    known : Certificate, optional
        Of a fit to fewer entries, which this one only repeats: nothing is judged anew.
    """

    def __init__(
        self,
        model: LinRFM,
        targets: Targets,
        plan: Plan,
        run: Executor,
        noise: float,
        tell: Callable[[Iteration], bool],
        error: float = 0.0,
        known: Certificate | None = None,
    ) -> None:
        self.model, self.run, self.tell, self.told = model, run, tell, False
        self.error, self.known, self.targets = error, known, targets
        self.noise = noise / self.targets.unit
        self.slab_rows, self.room = plan.slab_rows, plan.machine.wanted - plan.machine.base
        groups = equal_groups(targets.observations, FACTORED_ENTRIES)
        self.side = _Side(self.targets, run.publish(self.targets, lasting=True), groups)
        self.passes = Projection(run, self.side.groups, self._step)
        m, n = targets.observations.shape
        everything = np.ones(m, np.bool_), np.ones(n, np.bool_)
        counts = counted(self.passes, self.side.published, *everything)
        self.whole = Core(counts.by_row > 0, counts.by_column > 0, int(counts.by_row.sum()))
        self.smaller = min(m, n)
        self.density = self.whole.entries / (float(m) * n)
        self.steps = 0

    def release(self) -> None:
        """Let the kept blocks go."""
        self.targets.release()

    # ---- what was seen in full ------------------------------------------------------------------------------------

    def seen(self) -> Recovered:
        """Return a matrix without noise of which every entry is fitted: it is what it is, of whatever rank.

        Its rows' space shows in their product with random numbers. Where it is of low rank, rows to come are solved.
        """
        rows, columns = self.whole.rows, self.whole.columns
        most = self._caps()[1] // 2
        width = min(most + 1, int(rows.sum()), int(columns.sum()))
        drawn = self.passes.over(elimination.sketch, self.side.published, width)
        basis, singular, _ = np.linalg.svd(drawn, full_matrices=False)
        left = np.cumsum(singular[::-1] ** 2)[::-1]
        rank = int(np.count_nonzero(left > EXACT * left[0]))
        if rank > most or not self.whole.exceeds(rank):
            rank = 0
        factor, sizes = orthonormal(basis[:, :rank]), (int(rows.sum()), int(columns.sum()))
        certificate = Certificate(True, rank, self.whole.entries, self.whole.freedom(rank), 0.0, *sizes)
        completion = self._completion(one_component(factor, columns), Step(RIDGE, 0.0))
        return Recovered(completion, certificate, factor, rows, columns, self.steps)

    # ---- the search ---------------------------------------------------------------------------------------------

    def search(self, restarts: int = RESTARTS) -> Recovered:
        """Look for a rank and a matrix that can be certified; what is returned tells whether one was."""
        across = self.targets.transposed()
        groups = equal_groups(across.observations, FACTORED_ENTRIES)
        sides = [self.side, _Side(across, self.run.publish(across, lasting=True), groups)]
        cap, most = self._caps()
        restart, features, ridge = 0, None, START
        try:
            while restart < restarts and not self.told:
                found, features, ridge, tried = self._descend(sides, min(cap, self.smaller), restart)
                if found is not None:
                    return found
                if not tried and cap < most and self._could_certify(cap // 2 + 1):
                    cap *= 2
                else:
                    restart += 1
        finally:
            across.release()
        assert features is not None
        nothing = np.zeros(len(self.whole.rows), np.bool_), np.zeros(len(self.whole.columns), np.bool_)
        certificate, step = Certificate(False, features.rank), Step(ridge, 0.0)
        return Recovered(self._completion(features, step), certificate, features.factor, *nothing, self.steps)

    def _caps(self) -> tuple[int, int]:
        """Columns of U to begin with and at most; twice a rank that was given, since ranks up to half are tried."""
        rank = self.model.rank
        if isinstance(rank, int | np.integer):
            return 2 * rank, 2 * rank
        return CAP, max(CAP, min(MOST_CAP, 2 * most_recovered(*self.targets.observations.shape, self.room)))

    def _could_certify(self, rank: int) -> bool:
        """Whether the entries could determine a matrix of that rank at all."""
        return cores(self.passes, self.side.published, self.whole, rank)[-1].exceeds(rank)

    def _descend(
        self, sides: list[_Side], cap: int, restart: int
    ) -> tuple[Recovered | None, FactoredFeatures, float, bool]:
        """One search from random features: what it found, its last features and ridge, and whether a rank was tried."""
        n, seed = self.targets.observations.shape[1], self.model.random_state + restart
        features = FactoredFeatures.start(np.zeros(n), cap, np.float64, seed)
        weight, gaps, ridge, factor = max(SHARE / self.density, 1.0), Gaps(), START, FACTOR ** (0.5**restart)
        limit = min(self.model.max_iter, int(np.ceil(np.log(END / START) / np.log(factor))))
        for t in range(limit):
            began, before, step = time.perf_counter(), features, Step(ridge, weight, True)
            scores, features = self._half_step(sides[0], features, step)
            _, features = self._half_step(sides[1], features, step)
            self.steps += 1
            change, completion = features.distance(before), self._completion(before, step)
            seconds = time.perf_counter() - began
            record = Iteration(
                "search", t + 1, limit, ridge, before.rank, weight, Extras(), scores.rmse, change, seconds, completion
            )
            if self._told(record):
                break
            ridge *= factor
            basis, root = np.linalg.qr(features.factor)
            turned, singular, _ = np.linalg.svd(root)
            rank = gaps.rank(singular, cap // 2 if cap < self.smaller else cap - 1)
            if rank:
                found = self.finish(np.ascontiguousarray(basis @ turned[:, :rank]), anneal=gaps.tries % 2 == 0)
                if found is not None or self.told:
                    return found, features, ridge, True
            if gaps.tries >= TRIES:
                break
        return None, features, ridge, gaps.tried > 0

    def _half_step(self, side: _Side, features: FactoredFeatures, step: Step) -> tuple[Scores, FactoredFeatures]:
        """Solve one side; the features of the other have a largest singular value of 1 and no floor."""
        size = side.targets.observations.shape[0]
        shelf = self.run.shelf(size, 0)
        shared = side.published, self.run.publish(features), step, self.slab_rows, shelf
        total = self.run.reduce(work.iterate, side.groups, *shared)
        shelf.collect(total)
        after = features.update(total, size, step, 0.0, 1, self.run.map_panels)
        top = float(np.sqrt(np.linalg.eigvalsh(after.gram)[-1]))
        return total.scores, replace(after, factor=after.factor / top if top > 0 else after.factor, floor=0.0)

    # ---- the finish ---------------------------------------------------------------------------------------------

    def finish(self, start: Floats, *, anneal: bool = False) -> Recovered | None:
        """Fit a matrix of the rank of ``start`` (n, r), or a little above it; None if none can be certified.

        Weak directions of a matrix of large condition number hide under the search's tail. A fit without them stalls
        and leaves them in its residuals: the leading one joins the factor, which is fitted anew.
        """
        most, left = self._caps()[1] // 2, NEAR
        for _ in range(1 + DEFLATIONS):
            fitted = self._fitted(start, anneal)
            if fitted is None:
                break
            certificate, inside, descent = fitted
            if certificate.certified:
                return self._recovered(certificate, inside, descent.placed)
            ended = self.told or self.known is not None or start.shape[1] >= most
            if ended or descent.why != "stall" or descent.left > left:
                break
            start, anneal, left = self.passes.deflated(descent.placed), False, LESS * descent.left
        return None

    def _fitted(self, start: Floats, anneal: bool) -> tuple[Certificate, Core, Descent] | None:
        """Fit a matrix of the rank of ``start`` (n, r), a dense core first; the last fit certified, or the one not."""
        found = None
        for inside in cores(self.passes, self.side.published, self.whole, start.shape[1]):
            fitted = self._without_spikes(inside, start, anneal and found is None)
            if fitted is None:
                break
            inside, descent = fitted
            start, columns = self._extended(descent.placed, inside, spare=1)
            certificate = self._certificate(inside, descent, start, columns)
            if found is None or certificate.certified:
                found = certificate, inside, descent
            if self.told or not certificate.certified:
                break
        return found

    def _recovered(self, certificate: Certificate, inside: Core, placed: Placed) -> Recovered | None:
        """Return a fit with all that it determines; None if it could be moved."""
        ridge = placed.basis.ridge
        if self.known is None:  # a ridge for noise would hold what is flexible
            bare = ridge * RIDGE / self._goal(certificate.rank).ridge
            if not rigid(self.passes, self.passes.placed(placed.block, placed.basis.factor, bare)):
                return None
        if not self.noise and not even(self.passes, placed):
            return None
        factor, columns = self._extended(placed, inside, spare=0)
        features = one_component(factor, columns)
        rows = determined_rows(self.passes, self.side.published, features)
        completion = self._completion(features, Step(ridge, 0.0))
        return Recovered(completion, certificate, factor, rows, columns, self.steps)

    def _extended(self, placed: Placed, inside: Core, spare: int) -> tuple[Floats, Mask]:
        return extended(self.passes, self.side.published, self.targets, placed, inside, spare)

    def _without_spikes(self, inside: Core, start: Floats, anneal: bool) -> tuple[Core, Descent] | None:
        """Fit a block; where the fit stalls on few rows or columns, without these from the start again."""
        rows, columns = inside.rows, inside.columns
        goal = self._goal(start.shape[1])
        for dropped in range(1 + SPIKES):
            counts = counted(self.passes, self.side.published, rows, columns)
            rows, columns = rows & (counts.by_row > 0), columns & (counts.by_column > 0)
            inside = Core(rows, columns, int(counts.by_row[rows].sum()))
            if inside.entries < KEPT * self.whole.entries or not inside.exceeds(start.shape[1]):
                return None
            descent = self.passes.descend(Block.of(self.targets, rows, columns), start, goal, anneal=anneal)
            if descent.why != "stall" or dropped == SPIKES:
                break
            placed = descent.placed
            high = leverage(all_rows(self.passes, placed)) > SPIKE, leverage(placed.basis.factor) > SPIKE
            if not (high[0].any() or high[1].any()):
                break
            rows, columns = rows & ~high[0], columns & ~high[1]
        return inside, descent

    def _goal(self, rank: int) -> Goal:
        """Without noise an exact fit; with noise one to the noise, and a ridge of its square over a row's own."""
        if not self.noise:
            return Goal()
        n = self.targets.observations.shape[1]
        return Goal(4 * self.noise**2, 0.0, max(RIDGE, self.noise**2 * rank / n / self.density))

    def _certificate(self, inside: Core, descent: Descent, factor: Floats, columns: Mask) -> Certificate:
        """Judge a fit: by the entries it fits exactly, or with noise by those held out."""
        rank, error = factor.shape[1], float("nan")
        spare = inside.entries - inside.freedom(rank)  # noise is fitted but for its share in these
        exact = descent.left * inside.entries < CERTIFIED * spare if not self.noise else False
        if self.known is not None:
            enough = AGAIN * self.known.residual**2
            exact, error = exact or descent.left < enough, self.known.held_out
        elif self.noise or self.error:
            scores = self._held_out(factor, columns, descent.placed.basis.ridge)
            error = scores.rmse
            exact |= scores.count >= ENOUGH_HELD_OUT and scores.mae < self._limit() * self.targets.unit
        return Certificate(
            exact and inside.exceeds(rank),
            rank,
            inside.entries,
            inside.freedom(rank),
            float(np.sqrt(descent.left)),
            int(np.count_nonzero(inside.rows)),
            int(np.count_nonzero(inside.columns)),
            error,
        )

    def _limit(self) -> float:
        """Mean absolute held-out error, in units of the values, below which a fit with noise is right; 0 without.

        It also explains four fifths of what is not noise: where there is little else a bound by the noise says nothing.
        """
        if not 0 < self.noise < 1:
            return 0.0
        explained = np.sqrt(2 / np.pi * (self.noise**2 + UNEXPLAINED * (1 - self.noise**2)))
        return float(min(HELD_OUT * self.noise, self.noise + HELD_OUT_MORE, explained))

    def _held_out(self, factor: Floats, columns: Mask, ridge: float) -> Scores:
        """Scores of the validation entries that the fit determines."""
        shared = self.side.published, self.run.publish(one_component(factor, columns)), Step(ridge, 0.0)
        found: Scores = self.run.reduce(work.score, self.side.groups, *shared)
        return found

    # ---- what is told and returned ------------------------------------------------------------------------------

    def _step(self, number: int, basis: Basis, left: float, seconds: float) -> bool:
        """Tell of a step of the finish."""
        self.steps += 1
        features, step = FactoredFeatures(basis.factor, np.zeros(len(basis.factor))), Step(basis.ridge, 0.0)
        shown = float("nan"), float(np.sqrt(left)), seconds, self._completion(features, step)
        stage = "finish" if self.known is None else "refit"
        return self._told(Iteration(stage, number, PASSES, basis.ridge, features.rank, 0.0, Extras(), *shown))

    def _told(self, record: Iteration) -> bool:
        self.told |= self.tell(record)
        return self.told

    def _completion(self, features: FactoredFeatures, step: Step) -> Completion:
        return Completion(replace(self.targets, keep_bytes=0), features, step)
