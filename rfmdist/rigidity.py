"""Whether an exact fit is the only one near it: the part of the certificate that counting entries cannot give.

Entries in two blocks that hardly meet are fitted by many matrices, however many entries there are. Such a fit is
flexible: its factor can be moved so that the fit does not change, to first order.
"""

from __future__ import annotations

import numpy as np

from rfmdist.engine.elimination import Basis, Floats
from rfmdist.projection import Projection, by_column

SOFT = 1e-6
"""Stiffness below which a direction can be moved. Right fits at 1.05 times the degrees of freedom have 3e-4 and more;
flexible ones fall on until the ridge holds them, at 1e-8."""
RESOLVED = 1e-6
"""Share of a direction's own square that is left of a typical one when all stiff ones are recovered; a soft one of 1e-3
its expected size would still be seen."""
MOST = 4000
"""Products after which the stiffness found so far decides; 1.05 times the degrees of freedom take 200."""


def rigid(passes: Projection, basis: Basis) -> bool:
    """Whether no other matrix of that rank near the basis's fits its block's entries as well.

    That is so if H, but for the directions U A that only change coordinates, is nowhere 0. A random direction X, less
    these, is recovered from H X by conjugate gradients. What is left of it turns to the softest direction, and its
    quotient by the P_q, which is 1 at most, to that direction's stiffness.
    """
    handle = passes.publish(basis)
    slope = passes.slope(handle)
    metric = slope.grams + 1e-12 * slope.size * np.eye(slope.grams.shape[1])
    inverse, error = np.linalg.inv(metric), _direction(basis.factor, metric, slope.grams)
    typical = float(np.vdot(error, by_column(metric, error))) / error.size
    left = passes.curved(handle, error)
    scaled = by_column(inverse, left)
    direction, size, stiffness = scaled.copy(), float(np.vdot(left, scaled)), 1.0
    for _ in range(MOST):
        product = passes.curved(handle, direction)
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
