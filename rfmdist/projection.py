"""Finish of an exact recovery at a given rank: variable projection on the column factor. Knows one block of entries;
not which rank or block to try.

Rows are eliminated exactly, b_i = C_i U_O'y_i with C_i = (U_O'U_O + t I)^-1, so that only U is searched: by damped
Gauss-Newton steps (H + mu c I) D = G, solved by preconditioned conjugate gradients whose products are one pass over the
rows each, and U ← Q of U + D.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfmdist.engine import elimination as work
from rfmdist.engine.elimination import Basis, Block, Floats
from rfmdist.engine.run import Executor

RIDGE = 4e-8
"""t in units of the block's density, which is U_O'U_O's size: 1e-9 at 500 × 500, rank 5, where it was tuned."""
EXACT = 1e-12
"""Share of the values' squares left that counts as nothing: steps below it gain rounding alone."""
CERTIFIED = 1e-8
"""Share of the values' squares that an exact fit may leave. Wrong ones at the edge ended at 1e-4 and above."""
FALL, STEPS = 0.7, 5
"""A descent has stalled if five steps did not take this share off. It crosses long plateaus near the edge."""
SLOW = 0.9
"""A step that leaves more than this of the squares, within the limit already, ends the descent."""
PASSES = 1500
"""Passes over the rows after which a descent is given up; three times the median at 1.05 times the freedom."""
DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-9, 1e8
"""mu at the start and its bounds: a fifth after a step that gained, eight times after one that did not."""
GRADIENTS, FEW_GRADIENTS, ENOUGH = 40, 6, 0.1
"""Conjugate gradients a step, fewer while t still falls, and the share of the residual that is enough."""
ANNEALING, ANNEALED = 0.7, 1e-7
"""Factor of a falling t a step, and its end, in units of the density."""

POWERS = 100
"""Products with the residuals' Gram matrix that find their leading singular vector: at condition number 100 and 1.2
times the freedom 8 of 10 are recovered with 100, 7 with 30; 8 products lose 3 of 8 that 30 recover."""


@dataclass(frozen=True)
class Goal:
    """When a descent is done: squares left, as shares of the values' squares, and where t ends, of the density.

    Attributes
    ----------
    limit : float
        A fit that leaves more is none.
    enough : float
        One that leaves less need not go on.
    ridge : float
        t's end in units of the density.
    """

    limit: float = CERTIFIED
    enough: float = EXACT
    ridge: float = RIDGE


class Placed(NamedTuple):
    """A basis, and what stands for its block and itself in a pass."""

    basis: Basis
    block: Any
    handle: Any

    @property
    def shared(self) -> tuple[Any, Any]:
        """The arguments of a pass."""
        return self.block, self.handle


class Descent(NamedTuple):
    """How a descent ended: its last basis, the share of squares left, passes taken, and why."""

    placed: Placed
    left: float
    passes: int
    why: Literal["fit", "stall", "told"]


@dataclass
class _State:
    """Rows eliminated from a basis: the squares left, and these with the ridge's penalty."""

    placed: Placed
    squares: float
    objective: float

    @property
    def factor(self) -> Floats:
        return self.placed.basis.factor

    @property
    def ridge(self) -> float:
        return self.placed.basis.ridge


class Slope(NamedTuple):
    """Gradient G (n, r), the blocks P_q (n, r, r) of the Gauss-Newton matrix, and their mean size c."""

    right: Floats
    grams: Floats
    size: float


Tell = Callable[[int, Basis, float, float], bool]
"""Told of a step's number, its basis, the share of squares left and its seconds; True ends the descent."""


class Projection:
    """Variable projection over the groups of rows of some targets."""

    def __init__(self, run: Executor, groups: tuple[tuple[int, int], ...], tell: Tell) -> None:
        self._run, self._groups, self._tell = run, groups, tell
        self.passes = 0

    def publish(self, value: Any) -> Any:
        """Return what stands for ``value`` in several passes."""
        return self._run.publish(value)

    def over(self, function: Callable[..., Any], *shared: Any) -> Any:
        """One pass: the sum of a function of `rfmdist.engine.elimination` over all groups."""
        return self._run.reduce(function, self._groups, *shared)

    def descend(self, block: Block, start: Floats, goal: Goal, *, anneal: bool = False) -> Descent:
        """Fit the block from the factor ``start`` (n, r); ``anneal`` lets t fall from the density on."""
        handle = self.publish(block)
        entries, power, rows = self.over(work.measure, handle)
        columns = max(np.count_nonzero(block.columns != work.OUT), 1)
        density = entries / max(rows, 1) / columns
        floor = goal.ridge * density
        ridge, damping, first = density if anneal else floor, DAMPING, self.passes
        now = self._eliminated(handle, orthonormal(np.where((block.columns != work.OUT)[:, None], start, 0)), ridge)
        squares, steps, began = [now.squares], 0, time.perf_counter()

        def ended(why: Literal["fit", "stall", "told"]) -> Descent:
            left = now.squares / power if power else 0.0
            why = "fit" if why == "stall" and left < goal.limit else why
            return Descent(now.placed, left, self.passes - first, why)

        while True:
            slope = self.slope(now.placed)
            while True:
                move = self._newton(now, slope, damping, GRADIENTS if now.ridge <= floor else FEW_GRADIENTS)
                if move is None:
                    return ended("fit")
                trial = self._eliminated(handle, orthonormal(now.factor + move), now.ridge)
                if trial.objective < now.objective:
                    break
                damping *= 8
                if damping > MOST_DAMPING or self.passes - first > PASSES:
                    return ended("stall")
            now, damping = trial, max(damping / 5, LEAST_DAMPING)
            squares.append(now.squares)
            steps, seconds, began = steps + 1, time.perf_counter() - began, time.perf_counter()
            if self._tell(steps, now.placed.basis, now.squares / power, seconds):
                return ended("told")
            if now.ridge > floor:
                ridge = ANNEALING * now.ridge
                now = self._eliminated(handle, now.factor, ridge if ridge > ANNEALED * density else floor)
                squares = [now.squares]
            elif _settled(squares, power, goal):
                return ended("fit")
            elif (len(squares) > STEPS and squares[-1] > FALL * squares[-1 - STEPS]) or self.passes - first > PASSES:
                return ended("stall")

    def placed(self, block: Any, factor: Floats, ridge: float) -> Placed:
        """Return a basis for passes over a published block."""
        basis = Basis(factor, ridge)
        return Placed(basis, block, self.publish(basis))

    def slope(self, placed: Placed) -> Slope:
        """Return the gradient at a basis, and what stands for the Gauss-Newton matrix's size."""
        total = self.over(work.slope, *placed.shared)
        grams = symmetric(total.sums["grams"])
        size = float(np.mean(np.trace(grams, axis1=1, axis2=2))) / grams.shape[1]
        return Slope(total.sums["right"], grams, size)

    def curved(self, placed: Placed, direction: Floats) -> Floats:
        """Return H(D), (n, r), at a basis."""
        self.passes += 1
        return np.asarray(self.over(work.curvature, *placed.shared, self.publish(direction)))

    def deflated(self, placed: Placed) -> Floats:
        """Return U with one more column, (n, r + 1): the leading right singular vector of the residuals."""
        vector = np.random.default_rng(0).standard_normal(len(placed.basis.factor))
        for _ in range(POWERS):
            vector = self.over(work.residual_gram, *placed.shared, self.publish(vector))[:, 0]
            vector /= max(float(np.linalg.norm(vector)), np.finfo(np.float64).tiny)
        return np.column_stack([placed.basis.factor, vector])

    def _eliminated(self, block: Any, factor: Floats, ridge: float) -> _State:
        """Eliminate the rows from a factor."""
        placed = self.placed(block, factor, ridge)
        squares, penalty = self.over(work.eliminate, *placed.shared)
        self.passes += 1
        return _State(placed, float(squares), float(squares + ridge * penalty))

    def _newton(self, now: _State, slope: Slope, damping: float, most: int) -> Floats | None:
        """Solve (H + mu c I) D = G to a tenth, by conjugate gradients; None where the gradient is nothing."""
        right, shift = slope.right, damping * slope.size
        rank = right.shape[1]
        if not slope.size > 0:  # rows are all 0: no factor fits better
            return None
        # The last part keeps columns without entries, whose blocks are 0, invertible.
        inverse = np.linalg.inv(slope.grams + (damping + 1e-12) * slope.size * np.eye(rank))
        found, left = np.zeros_like(right), right.copy()
        scaled = by_column(inverse, left)
        direction = scaled.copy()
        size = first = float(np.vdot(left, scaled))
        if first <= 0:
            return None
        for _ in range(most):
            product = self.curved(now.placed, direction) + shift * direction
            step = size / float(np.vdot(direction, product))
            found += step * direction
            left -= step * product
            scaled = by_column(inverse, left)
            following = float(np.vdot(left, scaled))
            if following < ENOUGH**2 * first:
                break
            direction *= following / size
            direction += scaled
            size = following
        return found


def _settled(squares: list[float], power: float, goal: Goal) -> bool:
    """Whether the fit is as good as it gets."""
    left = squares[-1] / power
    return left < goal.enough or (left < goal.limit and squares[-1] > SLOW * squares[-2])


def orthonormal(factor: Floats) -> Floats:
    """Return an orthonormal basis of the factor's span, C-contiguous; rows of 0 stay 0."""
    return np.ascontiguousarray(np.linalg.qr(factor)[0])


def leverage(factor: Floats) -> Floats:
    """Return the squared rows of an orthonormal basis of the factor's span, (n,)."""
    return np.asarray(np.sum(orthonormal(factor) ** 2, axis=1))


def by_column(blocks: NDArray[np.floating], tall: Floats) -> Floats:
    """Multiply each row of ``tall`` (n, r) by its block of ``blocks`` (n, r, r)."""
    return np.asarray(np.einsum("nab,nb->na", blocks, tall))


def symmetric(lower: Floats) -> Floats:
    """Mirror the lower triangles of ``lower`` (n, r, r)."""
    return lower + np.tril(lower, -1).swapaxes(1, 2)
