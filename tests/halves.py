"""Half steps of any features over a matrix that holds NaN where nothing was observed, rows cut in two blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import oracles

from rfmdist.engine.run import InProcess
from rfmdist.features.protocol import Features, Partial, Step
from rfmdist.kernels.threads import Threads


def solved(
    features: Features, values: Any, step: Step, dtype: Any = np.float64, threads: int = 1
) -> tuple[Any, Partial]:
    """Solve and sum all rows; give the estimate and the total."""
    pool = Threads(threads)
    total, estimate = features.zero(step, pool), []
    third = len(values) // 3
    for block in (oracles.row_block(values, *cut, dtype) for cut in ((0, third), (third, len(values)))):
        if block.stop > block.start:
            solution = features.solve(block, step, pool)
            features.accumulate(total, block, solution, step, pool)
            estimate.append(features.complete(block, solution, pool))
    pool.settle()
    pool.close()
    return np.vstack(estimate), total


def half_step(
    features: Any, values: Any, alpha: float, step: Step, floor: float = 0.0, dtype: Any = np.float64, threads: int = 1
) -> tuple[Any, Any]:
    """Give the estimate under the features, and the features that follow, of the other side if they cross."""
    estimate, total = solved(features, values, step, dtype, threads)
    pool = Threads(threads)
    after = features.update(total, len(values), step, floor, round(2 * alpha), InProcess(pool).map_panels)
    pool.close()
    return estimate, after


def iterates(
    features: Any, values: Any, alpha: float, step: Step, floor: float = 0.0, dtype: Any = np.float64, threads: int = 1
) -> Iterator[tuple[Any, Any]]:
    """Yield (Z, features that follow) of each iteration: of one half step, or of two where features cross."""
    while True:
        estimate, features = half_step(features, values, alpha, step, floor, dtype, threads)
        if step.crossing:
            _, features = half_step(features, values.T, alpha, step, floor, dtype, threads)
        yield estimate, features


def both(step: Step) -> Step:
    """Give the step with sides that take turns."""
    return replace(step, crossing=True)


def matrix(features: Any) -> Any:
    """Give P as an n x n array in float64."""
    if hasattr(features, "matrix"):
        return features.unit * features.matrix.astype(np.float64)
    factor = features.factor.astype(np.float64)
    return factor @ factor.T + features.floor * np.eye(len(factor))
