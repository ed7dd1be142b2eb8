"""What a fit will cost and how it is cut: decided from shape and counts alone, before any work. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import psutil

from rfmdist.engine.run import sums_held
from rfmdist.errors import InputError
from rfmdist.features.dense import Form
from rfmdist.machine import cores
from rfmdist.observations.store import BLOCK_ROWS, Observations

GROUP_FLOPS = 1e9
"""Least work of a group, about 20 ms of a core: below it a task's own cost shows."""
GROUP_FLOPS_PER_FEATURE = 2400.0
"""Work of a group for each of the n² numbers of its partial: summing it then costs under a tenth of the work."""
GROUPS, SMALL, SMALL_GROUPS = 64, 2048, 4
"""At most 64 groups; at least 4 where n ≤ 2048, since partials of up to 32 MB cost little to add."""
GROUP_ENTRIES = 1 << 18
"""Entries of a group of a pass that only scores."""
SCATTER_FLOPS = 50.0
"""What adding one number at a scattered place costs (about 1 ns), in flops of a matrix product."""
SLAB_BYTES = 1 << 27
"""Bytes of completed rows in flight."""
BLOCK_BYTES = 1 << 26
"""Bytes of a row block being read, decoded and standardised."""
SLAB_ROWS = 256
"""Fewest rows of a slab: thinner ones multiply at less than full speed."""
FACTORED_ENTRIES = 1 << 19
"""Fewest entries of a group of a factored fit: some 30 ms of a core at r = 32."""
ENTRIES_PER_FEATURE = 20
"""Entries of a group for each row of U where a group sums n × r numbers: adding them then costs little."""
COLUMNS_ONLY_ITERATIONS = 3.0
"""Iterations that one side takes for each of both sides', without noise (`scripts/recovery.py`)."""
KEPT_SHARE = 0.25
"""Share of the free memory that blocks read once may take, rather than be read at each iteration."""
RECOVERED_COPIES = 6
"""Arrays of n × r × r that a recovery's finish holds at once."""
RANK, MOST_RANK = 32, 128
"""For rank "auto": what flops are counted for, and what memory must hold."""

FeatureKind = Literal["dense", "factored"]
Sides = Literal["columns", "both"]


@dataclass(frozen=True)
class Plan:
    """How a fit is cut into groups, and what it will cost.

    Attributes
    ----------
    features : {"dense", "factored"}
        How P is kept.
    sides : {"columns", "both"}
        Whether rows are solved with features of the columns alone, or columns with features of the rows in turn.
    rank : int
        Columns of U that flops are counted for; n for dense features.
    why : str
        What decided, in a few words.
    groups : tuple of (int, int)
        Ranges of rows; a group is summed by one task. They depend on the row counts and the dtype only.
    form : {"product", "gram"}
        How a group of an exact fit sums the AGOP (see `DenseFeatures`).
    slab_rows : int
        Rows in flight within a group.
    flops : float
        Floating-point operations of one iteration.
    feature_bytes : int
        Bytes of P, or of U.
    peak_bytes : int
        Most bytes a fit in process holds at once, beside Python, its libraries and the blocks it keeps.
    kept_bytes : int
        Most bytes of blocks that are kept from one iteration to the next; 0 if they are read anew.
    """

    features: FeatureKind
    sides: Sides
    rank: int
    why: str
    groups: tuple[tuple[int, int], ...]
    form: Form
    slab_rows: int
    flops: float
    feature_bytes: int
    peak_bytes: int
    kept_bytes: int = 0


def make_plan(
    observations: Observations,
    dtype: Any,
    power: float = 0.5,
    features: FeatureKind | Literal["auto"] = "auto",
    sides: Sides | Literal["auto"] = "auto",
    rank: int | Literal["auto"] = "auto",
    indicators: bool = False,
) -> Plan:
    """Choose how P is kept and which sides take turns, by bytes and flops, and cut the work.

    Raises
    ------
    InputError
        If this machine's free memory cannot hold the plan that was asked for, or any.
    """
    free = psutil.virtual_memory().available
    dense = plan_dense(observations, dtype, power, "columns" if sides == "auto" else sides)
    both = plan_factored(observations, dtype, "columns" if sides == "columns" else "both", rank, indicators)
    columns = plan_factored(observations, dtype, "columns", rank)
    factored = columns if sides == "auto" and both.peak_bytes > free / 2 else both
    turns = COLUMNS_ONLY_ITERATIONS if dense.sides != factored.sides else 1.0
    if features == "auto":
        cheaper = turns * dense.flops < factored.flops and dense.peak_bytes <= free / 2 and rank == "auto"
        chosen = dense if cheaper else factored
    else:
        chosen = dense if features == "dense" else factored
    check_memory(chosen, free)
    kept = _kept_bytes(observations, dtype, chosen.sides)
    why = _reason(chosen, dense, factored, features, sides, rank, turns, free)
    return replace(chosen, why=why, kept_bytes=kept if kept <= KEPT_SHARE * free else 0)


def plan_factored(
    observations: Observations,
    dtype: Any,
    sides: Sides,
    rank: int | Literal["auto"] = "auto",
    indicators: bool = False,
) -> Plan:
    """Plan a fit with features of n × ``rank``; groups do not depend on the rank, memory allows for its growth.

    And for features of the indicator block beside them, as large again.
    """
    (m, n), itemsize, nnz = observations.shape, np.dtype(dtype).itemsize, observations.nnz
    most = min(MOST_RANK if rank == "auto" else rank, n)
    r = min(RANK if rank == "auto" else rank, n)
    entries = FACTORED_ENTRIES if sides == "both" else max(FACTORED_ENTRIES, ENTRIES_PER_FEATURE * n)
    number = min(GROUPS, 1 + nnz // entries)
    half = 2.0 * nnz * r**2 + float(min(m, nnz)) * r**3 / 3
    flops = half + 4.0 * nnz * r if sides == "columns" else 2 * half
    return Plan(
        "factored",
        sides,
        r,
        "",
        _cut(np.diff(observations.indptr) + 1.0, number),
        "product",
        BLOCK_ROWS,
        flops,
        n * r * itemsize,
        _factored_bytes(m, n, 2 * most if indicators and sides == "both" else most, itemsize, sides, number),
    )


def plan_dense(observations: Observations, dtype: Any, power: float = 0.5, sides: Sides = "columns") -> Plan:
    """Plan an exact fit of the observations with features of ``dtype``.

    The gram form is for a power of 1/2 alone: it takes Z'Z from products in which large numbers cancel, and
    higher powers raise what is left of the rounding. Where features cross, Z itself is gathered.
    """
    (m, n), itemsize = observations.shape, np.dtype(dtype).itemsize
    counts = np.diff(observations.indptr).astype(np.float64)
    product = 2 * counts * n + float(n) ** 2
    gram = counts**2 / 2 * SCATTER_FLOPS
    cheaper: Form = "product" if product.sum() <= gram.sum() + 3 * float(n) ** 3 else "gram"
    form: Form = cheaper if power == 0.5 and sides == "columns" else "product"
    by_row = counts**3 / 3 + (product if form == "product" else gram)
    flops = float(by_row.sum()) + (0 if form == "product" else 3 * float(n) ** 3)
    wanted = int(by_row.sum() // max(GROUP_FLOPS, GROUP_FLOPS_PER_FEATURE * n**2))
    number = min(max(wanted, SMALL_GROUPS if n <= SMALL else 1), GROUPS, max(m, 1))
    slab_rows = int(max(SLAB_ROWS, SLAB_BYTES // (itemsize * max(n, 1))))
    groups = _cut(by_row, number)
    longest = int(counts.max(initial=0.0))
    peak = _peak_bytes(n, itemsize, form, power, len(groups), min(slab_rows, m), longest)
    if sides == "both":
        flops += float(counts.sum()) ** 3 / max(n, 1) ** 2 / 3 + 2 * float(counts.sum()) * m + float(m) ** 2 * n
        peak += 2 * m * n * itemsize + 4 * m * m * 8
    return Plan("dense", sides, n, "", groups, form, slab_rows, flops, n * n * itemsize, peak)


def _factored_bytes(m: int, n: int, rank: int, itemsize: int, sides: Sides, groups: int) -> int:
    """Most bytes a factored fit in process holds at once, beside Python and its libraries."""
    right, left = n * rank * itemsize, m * rank * itemsize
    flight = BLOCK_ROWS * rank * itemsize + BLOCK_BYTES
    if sides == "both":
        return 3 * right + 2 * max(left, right) + left + flight
    partials = sums_held(groups) * (right + 16 * n)
    return 2 * right + max(partials, right) + right + flight


def _kept_bytes(observations: Observations, dtype: Any, sides: Sides) -> int:
    """Bytes of all blocks as `Targets` keeps them, of one order or of both."""
    entry = 8 + max(np.dtype(dtype).itemsize, observations.dtype.itemsize)
    rows = sum(observations.shape) if sides == "both" else observations.shape[0]
    return (2 if sides == "both" else 1) * entry * observations.nnz + 32 * rows


def _reason(
    chosen: Plan, dense: Plan, factored: Plan, features: str, sides: str, rank: int | str, turns: float, free: int
) -> str:
    """Say in a few words why this plan was chosen."""
    if features != "auto":
        why = f"{features} as asked"
    elif rank != "auto":
        why = f"factored: rank {rank} as asked"
    elif chosen is factored and dense.peak_bytes > free / 2:
        why = f"factored: exact features need {dense.peak_bytes / 2**30:.1f} GiB"
    else:
        exact, low = turns * dense.flops, factored.flops
        why = f"{chosen.features}: {low:.2g} flops an iteration, exact features {exact:.2g} for as much progress"
    if sides == "auto" and chosen.features == "factored" and chosen.sides == "columns":
        why += "; both sides need more memory than is free"
    return why


def _peak_bytes(n: int, itemsize: int, form: Form, power: float, groups: int, slab_rows: int, longest: int) -> int:
    """Most bytes a fit in process holds at once, beside Python and its libraries."""
    features, sums = n * n * itemsize, n * n * 8
    kept = 3 * features  # P, that of the best iterate, and that of the fit while it is repeated
    partials = sums_held(groups) * sums
    slab = slab_rows * n * itemsize if form == "product" else 0
    solves = longest**2 * itemsize * cores()
    update = sums + features  # the total and the next P
    update += 4 * sums if form == "gram" else 0  # P, the total mirrored, the panels and their matrix, in float64
    update += 3 * features if power > 0.5 else 0  # a square, the panels and their matrix
    return kept + max(partials + slab + solves, update) + BLOCK_BYTES


def most_recovered(m: int, n: int) -> int:
    """Return the greatest rank at which half the free memory holds a recovery's r × r systems of rows and columns."""
    free = psutil.virtual_memory().available / 2
    return int(np.sqrt(free / 8 / (RECOVERED_COPIES * n + 2 * m)))


def check_memory(plan: Plan, free: int) -> None:
    """Refuse a plan that ``free`` bytes of memory cannot hold.

    Raises
    ------
    InputError
        With both figures.
    """
    if plan.peak_bytes <= free:
        return
    needed = f"about {plan.peak_bytes / 2**30:.1f} GiB; {free / 2**30:.1f} GiB are free:"
    if plan.features == "dense":
        raise InputError(
            f"exact features need {needed} use features='factored', dtype='float32', or a machine with more memory"
        )
    other = "a lower rank" if plan.sides == "columns" else "sides='columns', a lower rank"
    raise InputError(f"features of rank {plan.rank} need {needed} use {other} or a machine with more memory")


def equal_groups(observations: Observations, entries: int = GROUP_ENTRIES) -> tuple[tuple[int, int], ...]:
    """Cut rows into groups of about equal numbers of entries, for passes that only read and solve."""
    number = min(GROUPS, 1 + observations.nnz // entries)
    return _cut(np.diff(observations.indptr) + 1.0, number)


def _cut(cost: np.ndarray[tuple[int], np.dtype[np.float64]], number: int) -> tuple[tuple[int, int], ...]:
    """Cut rows into at most ``number`` ranges of about equal cost, none empty."""
    sums = np.cumsum(cost)
    inner = np.searchsorted(sums, np.arange(1, number) * (sums[-1] / number)) + 1 if len(cost) else []
    cuts = np.unique(np.concatenate([[0], np.minimum(inner, len(cost)), [len(cost)]])).astype(int).tolist()
    return tuple(pairwise(cuts))
