"""How fast this machine solves and reads: the real kernels on a made-up block, and a real block of the store.

Also what loads, or compiles, the kernels before a fit is planned: what they take of the memory is then known.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np

from rfmdist.compiling import compilations
from rfmdist.engine.memory import kept_need
from rfmdist.engine.plan import Plan, Speed
from rfmdist.engine.run import all_threads
from rfmdist.errors import StoreError
from rfmdist.features.augmented import AugmentedFeatures, Extras, Margin
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.protocol import Features, Step
from rfmdist.features.stripes import Batch
from rfmdist.kernels.threads import Threads, one_blas_thread
from rfmdist.machine import hand_back_memory
from rfmdist.observations.blocks import RowBlock
from rfmdist.observations.scratch import FiledValue, Scratch
from rfmdist.observations.store import Observations

SECONDS = 2.0
"""Most that a calibration takes; half of it solves, half of it reads."""
LEAST_ENTRIES, MOST_ENTRIES = 1 << 10, 1 << 19
"""Entries of the made-up block: at first, and at most."""
BRIEF, USUAL_FLOPS = 0.2, 1e10
"""Iterations' worth of time that a brief calibration may take, at so many flops a second."""
MOST_COLUMNS, MOST_DENSE = 1 << 17, 1 << 12
"""Columns of made-up features: as many as the fit's, as far as that is quickly made."""


def calibrate(plan: Plan, observations: Observations, seconds: float = SECONDS) -> Speed:
    """Time solves such as the plan's, and reads such as its blocks', for ``seconds`` in all."""
    with all_threads() as threads:
        dtype = np.dtype(f"f{plan.sizes.itemsize}")
        flops = solving(plan, observations.shape, observations.nnz, dtype, seconds / 2, threads)
    return Speed(flops, reading(plan, observations, seconds / 2))


def briefly(plan: Plan, observations: Observations) -> Speed:
    """Calibrate for a hundredth of what some tens of iterations can be expected to take, so that it does not show."""
    return calibrate(plan, observations, min(SECONDS, BRIEF * plan.flops / USUAL_FLOPS))


_warmed: set[tuple[str, str, bool, bool, str]] = set()


def warm(plan: Plan, dtype: Any) -> bool:
    """Load the kernels of such a plan, unless this process has done so; tell whether some had to be compiled."""
    kind = plan.features, plan.sides, plan.augmented, bool(plan.stripe), np.dtype(dtype).name
    if kind in _warmed:
        return False
    few = min(plan.sizes.columns, LEAST_ENTRIES)
    with one_blas_thread(), compilations() as compiled:
        solving(plan, (1, few), few, dtype, 0.0, Threads(1))
        if plan.stripe:
            _solve_striped(plan, few, dtype)
    gc.collect()  # the compiler leaves tens of megabytes in circles
    hand_back_memory()
    _warmed.add(kind)
    return compiled.number > 0


def solving(plan: Plan, shape: tuple[int, int], entries: int, dtype: Any, seconds: float, threads: Threads) -> float:
    """Flops a second of the plan's solves and sums, counted as the plan counts them.

    The block grows until the time is used: the first pass, which loads the kernels, does not count.
    """
    rng, step = np.random.default_rng(0), Step(0.5, 1.0, plan.sides == "both")
    most = min(MOST_ENTRIES, max(LEAST_ENTRIES, entries // 8))
    features, n = _features(plan, shape[1], most, dtype, rng)
    each, size, best = max(1, min(round(entries / max(shape[0], 1)), n)), LEAST_ENTRIES, 0.0
    _half_step(features, _block(1, each, n, dtype, rng), step, threads)
    end, took = time.perf_counter() + seconds, 0.0
    while not best or time.perf_counter() + took < end:
        block, started = _block(max(1, size // each), each, n, dtype, rng), time.perf_counter()
        _half_step(features, block, step, threads)
        took = time.perf_counter() - started
        best, size = max(best, plan.block_flops(block, n) / max(took, 1e-9)), min(4 * size, most)
    return best


def reading(plan: Plan, observations: Observations, seconds: float) -> float:
    """Bytes a second that blocks are read with, from such files as a fit makes or else from the store.

    Infinite where nothing is read. Files that were just written come from the system's cache.
    """
    if not plan.read_bytes:
        return float("inf")
    ranges = observations.ranges()
    block = observations.row_block(*ranges[len(ranges) // 2])
    folder = observations.scratch_folder()
    if plan.filed and folder is not None:
        with suppress(StoreError), Scratch(folder).kept() as scratch:  # then a fit reads the store as well
            file = FiledValue.write(scratch, block)
            return _rate(lambda _: file.load().nbytes, repeat(0), seconds)
    whole = kept_need(replace(plan.sizes, share=1.0))[0] if plan.filed else observations.stored_bytes
    size = whole / observations.nnz  # bytes of an entry, as the plan counts what is read
    return _rate(lambda range_: len(observations.roles(observations.row_block(*range_))) * size, ranges, seconds)


def _rate(read: Callable[[Any], float], items: Iterable[Any], seconds: float) -> float:
    """What ``read`` tells of the items together, a second, for about so many seconds."""
    began, total = time.perf_counter(), 0.0
    for item in items:
        total += read(item)
        if time.perf_counter() > began + seconds:
            break
    return total / max(time.perf_counter() - began, 1e-9)


def _half_step(features: Features, block: RowBlock, step: Step, threads: Threads) -> None:
    """What a group does with one block, and what follows of it."""
    partial = features.zero(step, threads)
    features.accumulate(partial, block, features.solve(block, step, threads), step, threads)
    threads.settle()


def _solve_striped(plan: Plan, columns: int, dtype: Any) -> None:
    """What is done with features that are read by stripes, of one row."""
    rng, threads = np.random.default_rng(0), Threads(1)
    features, n = _features(plan, columns, columns, dtype, rng)
    assert isinstance(features, FactoredFeatures)
    batch = Batch(features, 0, 1)
    batch.add(_block(1, n, n, dtype, rng), 0, features.factor, features.offsets, threads)
    batch.solve(Step(0.5, 1.0, True), threads)


def _features(plan: Plan, columns: int, rows: int, dtype: Any, rng: np.random.Generator) -> tuple[Features, int]:
    """Features of the plan's kind for blocks of so many rows, and their columns: at most as are quickly made."""
    n = min(columns, MOST_DENSE if plan.features == "dense" else MOST_COLUMNS)
    if plan.features == "dense":
        return DenseFeatures.start(n, dtype, plan.form), n
    pull = (2.0, 2.0)
    plain = FactoredFeatures.start(np.zeros(n), plan.rank, dtype, 0, pull)
    if not plan.augmented:
        return plain, n
    margins = [Margin(np.full(size, 10.0), rng.standard_normal((size, 2), np.float32)) for size in (n, rows)]
    return AugmentedFeatures.begin(plain, (margins[0], margins[1]), Extras(0.35, 0.3, 0.0, 0.1)), n


def _block(rows: int, each: int, n: int, dtype: Any, rng: np.random.Generator) -> RowBlock:
    """Random values at random places, ``each`` a row in one of as many strata of the columns."""
    low = np.linspace(0, n, each + 1).astype(np.int32)
    indices = low[:-1] + (rng.random((rows, each), np.float32) * np.diff(low)).astype(np.int32)
    values = rng.standard_normal(rows * each, np.float32).astype(dtype)
    return RowBlock(0, rows, np.arange(rows + 1, dtype=np.int64) * each, indices.ravel(), values)
