"""The pure functions that a fit maps over groups of rows; each depends on its arguments alone."""

from __future__ import annotations

from collections.abc import Iterator

from rfmdist.engine.shelf import Shelf
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.protocol import Features, Partial, Scores, Step
from rfmdist.features.stripes import Batch, accumulate, batches, most_columns
from rfmdist.kernels.threads import Threads
from rfmdist.observations.blocks import RowBlock
from rfmdist.observations.scratch import Filed
from rfmdist.observations.store import BLOCK_ROWS
from rfmdist.observations.targets import Targets

Group = tuple[int, int]
DENSE_ENTRIES = 1 << 22
"""Entries of a dense block of predictions: 16-32 MB."""


def iterate(
    group: Group, targets: Targets, features: Features, step: Step, slab_rows: int, shelf: Shelf, threads: Threads
) -> Partial:
    """Return the group's part of the AGOP, and the scores of the held-out entries under these features."""
    if isinstance(features, FactoredFeatures) and isinstance(features.factor, Filed):
        return _striped(group, targets, features, step, slab_rows, shelf, threads)
    partial = features.zero(step, threads)
    for block, held_out in _blocks(group, targets, slab_rows, threads):
        solution = features.solve(block, step, threads)
        features.accumulate(partial, block, solution, step, threads)
        if held_out is not None:
            found = features.predict(block, solution, held_out, threads)
            partial.scores += Scores.of(targets.predictions(held_out, found), held_out.values)
    shelf.keep(group, partial)
    return partial


def score(group: Group, targets: Targets, features: Features, step: Step, threads: Threads) -> Scores:
    """Return the scores of the group's entries that are scored and not fitted."""
    scores = Scores()
    for block, held_out in _blocks(group, targets, BLOCK_ROWS, threads):
        if held_out is not None and len(held_out.values):
            found = features.predict(block, features.solve(block, step, threads), held_out, threads)
            scores += Scores.of(targets.predictions(held_out, found), held_out.values)
    return scores


def _striped(
    group: Group,
    targets: Targets,
    features: FactoredFeatures,
    step: Step,
    slab_rows: int,
    shelf: Shelf,
    threads: Threads,
) -> Partial:
    """Do the same with features that memory does not hold, where no entries are scored."""
    rows = min(slab_rows, most_columns(features.rank, features.factor.itemsize))
    partial, ranges = features.zero(step, threads), targets.observations.ranges(group, rows=rows)
    for blocks in batches(ranges, features.rank, features.factor.itemsize):
        batch = Batch(features, blocks[0][0], blocks[-1][1])
        for low, factor, offsets in batch.stripes():
            for now, upcoming in zip(blocks, [*blocks[1:], blocks[0]], strict=True):
                batch.add(targets.read(*now, upcoming)[0], low, factor, offsets, threads)
        solution, squares = batch.solve(step, threads)
        accumulate(partial, features, blocks[0][0], solution, squares, step, threads)
    shelf.keep(group, partial)
    return partial


def _blocks(group: Group, targets: Targets, rows: int, threads: Threads) -> Iterator[tuple[RowBlock, RowBlock | None]]:
    """Yield the group's blocks, each read while the one before is worked on; the last reads on into the next group."""
    ranges = targets.observations.ranges(group, rows=rows)
    beyond = targets.observations.ranges(threads.following, rows=rows)[:1] if threads.following else []
    for now, upcoming in zip(ranges, [*ranges[1:], *beyond, None], strict=False):
        yield targets.read(*now, upcoming)
