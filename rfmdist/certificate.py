"""The certificate of a recovery, and the part of it that counting entries cannot give: that no fit near it is as good.

Entries in two blocks that hardly meet are fitted by many matrices, however many entries there are. Such a fit is
flexible: its factor can be moved so that the fit does not change, to first order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from rfmdist.engine import elimination as work
from rfmdist.engine.elimination import Floats
from rfmdist.features.protocol import Partial
from rfmdist.projection import Placed, Projection, by_column

UNEVEN = 1e-4
"""Share of its own squares that a row or column may be left with: an error of 1 %."""
NOTHING = 1e-12
"""Squares, in those of a typical row or column, that count as none: rows of zeros are fitted to rounding."""
SOFT = 1e-6
"""Stiffness below which a direction can be moved. Right fits at 1.05 times the degrees of freedom have 3e-4 and more;
flexible ones fall on until the ridge holds them, at 1e-8."""
RESOLVED = 1e-6
"""Share of a direction's own square that is left of a typical one when all stiff ones are recovered; a soft one of 1e-3
its expected size would still be seen."""
MOST = 4000
"""Products after which the stiffness found so far decides; 1.05 times the degrees of freedom take 200."""


@dataclass(frozen=True)
class Certificate:
    """Why a recovered matrix is the one that was observed.

    More entries are fitted than a matrix of its rank has degrees of freedom, and no matrix near it fits them as well.
    Rows and columns that no chain of entries links say nothing of each other, so each connected component of the
    observed entries has a certificate of its own. One that was seen in full, without noise, is what was seen.

    Attributes
    ----------
    certified : bool
        Whether that is so of all that is predicted beyond what was observed. Of several components those that are
        certified have at least half of the entries of those that could be; what was not observed in others is NaN.
        No test entry is used to tell.
    rank : int
        Rank of the recovered matrix; of the search's features where nothing is certified. 0 of what was seen in full
        and is of no low rank. Of several components the greatest.
    entries, freedom : int
        Entries of the fitted block, and the degrees of freedom of a matrix of its size and rank. Of several
        components, here and below, the sums over those that are certified.
    residual : float
        Root of the share of the values' squares that the fit leaves there; of several components the greatest.
    rows, columns : int
        The block's size.
    held_out : float
        With noise: error on the validation entries, in the values' units; NaN where none is scored.
    components : tuple of Certificate
        That of each connected component, those of most entries first. Empty in these.
    """

    certified: bool
    rank: int
    entries: int = 0
    freedom: int = 0
    residual: float = float("nan")
    rows: int = 0
    columns: int = 0
    held_out: float = float("nan")
    components: tuple[Certificate, ...] = ()

    @classmethod
    def of(cls, components: Sequence[Certificate], certified: bool) -> Self:
        """Return that of a matrix, given those of its components, and whether what is predicted is certified."""
        told = [each for each in components if each.certified] or components
        return cls(
            certified,
            rank=max(each.rank for each in told),
            entries=sum(each.entries for each in told),
            freedom=sum(each.freedom for each in told),
            residual=max(each.residual for each in told),
            rows=sum(each.rows for each in told),
            columns=sum(each.columns for each in told),
            held_out=components[0].held_out if len(components) == 1 else float("nan"),
            components=tuple(components),
        )

    def __str__(self) -> str:
        if not self.certified:
            return "not certified: no low-rank matrix was found that the entries determine"
        sound = [each for each in self.components if each.certified]
        parts = f"{len(sound):,} of {len(self.components):,} components, " if len(self.components) > 1 else ""
        if not self.rank:
            return f"certified: {parts}all {self.entries:,} entries were observed where rows and columns are linked"
        ranks = f"rank {self.rank} fits" if len(sound) < 2 else f"of rank {self.rank} at most, fit"
        error = "" if np.isnan(self.held_out) else f", held-out RMSE {self.held_out:.2g}"
        return (
            f"certified: {parts}{ranks} {self.entries:,} entries of {self.rows:,} rows and {self.columns:,}"
            f" columns with {self.freedom:,} degrees of freedom, to {self.residual:.1e} of the values{error}"
        )


def even(passes: Projection, placed: Placed) -> bool:
    """Whether each row and column of the block is fitted, not only those whose values are large."""
    total: Partial = passes.over(work.leftovers, *placed.shared)
    of_rows = (np.concatenate(part) for part in zip(*total.rows, strict=True))
    sides = ((total.sums["left"], total.sums["squares"]), tuple(of_rows))
    return all(bool((left <= UNEVEN * squares + NOTHING * squares.mean()).all()) for left, squares in sides)


def rigid(passes: Projection, placed: Placed) -> bool:
    """Whether no other matrix of that rank near the basis's fits its block's entries as well.

    That is so if H, but for the directions U A that only change coordinates, is nowhere 0. A random direction X, less
    these, is recovered from H X by conjugate gradients. What is left of it turns to the softest direction, and its
    quotient by the P_q, which is 1 at most, to that direction's stiffness.
    """
    slope = passes.slope(placed)
    if not slope.size > 0:  # a block of zeros is fitted by any factor
        return False
    rank, own = slope.grams.shape[1], np.trace(slope.grams, axis1=1, axis2=2)
    # Columns without entries, and the rounding of those with large ones, are kept definite.
    kept = 1e-12 * slope.size + 4 * rank * np.finfo(np.float64).eps * own
    metric = slope.grams + kept[:, None, None] * np.eye(rank)
    inverse, error = np.linalg.inv(metric), _direction(placed.basis.factor, metric, slope.grams)
    typical = float(np.vdot(error, by_column(metric, error))) / error.size
    left = passes.curved(placed, error)
    scaled = by_column(inverse, left)
    direction, size, stiffness = scaled.copy(), float(np.vdot(left, scaled)), 1.0
    for _ in range(MOST):
        product = passes.curved(placed, direction)
        step = size / float(np.vdot(direction, product))
        error -= step * direction
        left -= step * product
        rest = float(np.vdot(error, by_column(metric, error)))
        if rest <= RESOLVED * typical:
            return True
        stiffness = float(np.vdot(error, left)) / rest
        if stiffness < SOFT:
            return False
        scaled = by_column(inverse, left)
        following = float(np.vdot(left, scaled))
        direction = scaled + following / size * direction
        size = following
    return stiffness > SOFT


def _direction(factor: Floats, metric: Floats, grams: Floats) -> Floats:
    """Return a random direction (n, r), of equal size in each observed column, without its part U A.

    The part is that of the inner product <D, E> = Σ d_q' P_q e_q, for which conjugate gradients recover no such part.
    """
    rank, n = factor.shape[1], len(factor)
    drawn = np.random.default_rng(0).standard_normal((n, rank, 1))
    direction = np.linalg.solve(np.linalg.cholesky(metric).swapaxes(1, 2), drawn)[:, :, 0]
    direction[np.trace(grams, axis1=1, axis2=2) == 0] = 0
    outer = np.einsum("na,nb->nab", factor, factor).reshape(n, -1)
    system = (outer.T @ metric.reshape(n, -1)).reshape(rank, rank, rank, rank).swapaxes(1, 2).reshape(rank**2, -1)
    right = factor.T @ by_column(metric, direction)
    return np.asarray(direction - factor @ np.linalg.solve(system, right.ravel()).reshape(rank, rank))
