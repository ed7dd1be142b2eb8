"""The pure functions that a fit maps over groups of rows; each depends on its arguments alone."""

from __future__ import annotations

from rfmdist.features.protocol import Features, Partial, Scores, Step
from rfmdist.kernels.threads import Threads
from rfmdist.observations.targets import Targets

Group = tuple[int, int]
DENSE_ENTRIES = 1 << 22
"""Entries of a dense block of predictions: 16-32 MB."""


def iterate(
    group: Group, targets: Targets, features: Features, step: Step, slab_rows: int, threads: Threads
) -> Partial:
    """Return the group's part of the AGOP, and the scores of the held-out entries under these features."""
    partial = features.zero(step)
    for start, stop in targets.observations.ranges(group, rows=slab_rows):
        block, held_out = targets.read(start, stop)
        solution = features.solve(block, step, threads)
        features.accumulate(partial, block, solution, step, threads)
        if held_out is not None:
            found = features.predict(block, solution, held_out, threads)
            partial.scores += Scores.of(targets.predictions(held_out, found), held_out.values)
    return partial


def score(group: Group, targets: Targets, features: Features, step: Step, threads: Threads) -> Scores:
    """Return the scores of the group's entries that are scored and not fitted."""
    scores = Scores()
    for start, stop in targets.observations.ranges(group):
        block, held_out = targets.read(start, stop)
        if held_out is not None and len(held_out.values):
            found = features.predict(block, features.solve(block, step, threads), held_out, threads)
            scores += Scores.of(targets.predictions(held_out, found), held_out.values)
    return scores
