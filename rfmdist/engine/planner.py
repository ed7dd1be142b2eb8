"""How a fit is cut and what it keeps: chosen from sizes and a memory budget, before any work. Reads no entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rfmdist.engine.groups import ENTRIES_PER_FEATURE, FACTORED_ENTRIES, equal_groups, group_number, most_groups
from rfmdist.engine.memory import Sizes, copy_room, kept_need
from rfmdist.engine.plan import (
    NOTHING,
    Additions,
    FeatureKind,
    Machine,
    Plan,
    Sides,
    dense_row_flops,
    half_step_flops,
    megabytes,
)
from rfmdist.engine.tree import sums_held
from rfmdist.errors import InputError
from rfmdist.features.dense import Form
from rfmdist.machine import cores, free_memory
from rfmdist.observations.by_column import MEMORY
from rfmdist.observations.kept import PASS_ENTRIES, PASS_ROWS
from rfmdist.observations.passes import cut, groups_of
from rfmdist.observations.store import BLOCK_ENTRIES, BLOCK_ROWS, Observations

GROUP_FLOPS = 1e9
"""Least work of a group, about 20 ms of a core: below it a task's own cost shows."""
GROUP_FLOPS_PER_FEATURE = 2400.0
"""Work of a group for each of the n² numbers of its partial: summing it then costs under a tenth of the work."""
SMALL, SMALL_GROUPS = 2048, 4
"""At least 4 groups where n ≤ 2048, since partials of up to 32 MB cost little to add."""
SLAB_BYTES = 1 << 27
"""Bytes of completed rows in flight."""
SLAB_ROWS = 256
"""Fewest rows of a slab: thinner ones multiply at less than full speed."""
COLUMNS_ONLY_ITERATIONS = 3.0
"""Iterations that one side takes for each of both sides', without noise (`scripts/recovery.py`)."""
LEAST_KEPT = 1 << 22
"""Bytes below which keeping blocks is not worth while."""
LEAST_STRIPE = 1 << 14
"""Fewest rows of a stripe: entries are read once for each."""
SKEW = 2
"""Times their mean length that columns of one block may have, all together."""
RECOVERED_COPIES = 6
"""Arrays of n × r × r that a recovery's finish holds at once."""
RANK, MOST_RANKS = 32, (128, 64, 32)
"""For rank "auto": what flops are counted for, and what it may grow to, the first that memory holds."""
TRIALS_HELD = 10
"""Results of trials and earlier paths that an "auto" fit holds beside those at its greatest rank, each of 16 columns.
Measured."""


def make_plan(
    observations: Observations,
    dtype: Any,
    power: float = 0.5,
    features: FeatureKind | Literal["auto"] = "auto",
    sides: Sides | Literal["auto"] = "auto",
    rank: int | Literal["auto"] = "auto",
    additions: Additions = NOTHING,
    machine: Machine | None = None,
) -> Plan:
    """Choose how P is kept and which sides take turns, by memory and flops, and cut the work.

    Where the memory that is allowed holds no plan of what was asked for, the one that takes least is returned, for
    `check_memory` to refuse.
    """
    machine = machine or Machine.of()
    dense = plan_dense(observations, dtype, power, "columns" if sides == "auto" else sides, additions, machine)
    factored = _largest_factored(observations, dtype, power, sides, rank, additions, machine)
    turns = COLUMNS_ONLY_ITERATIONS if dense.sides != factored.sides else 1.0
    if features == "auto":
        cheaper = turns * dense.flops < factored.flops and rank == "auto"
        held = dense.peak_bytes <= machine.wanted or machine.allowed < factored.peak_bytes > dense.peak_bytes
        chosen = dense if cheaper and held else factored
    else:
        chosen = dense if features == "dense" else factored
    if chosen.sides == "both" and not can_turn(observations, machine):
        raise InputError(
            f"{observations.name}: cannot be written to, and no folder for temporary files that all processes see has"
            f" room for its copy by column ({megabytes(_copy_files(observations))}); name one in TMPDIR, or use"
            " sides='columns'"
        )
    why = _reason(observations, chosen, dense, factored, features, sides, rank, turns)
    return replace(_with_kept(chosen), why=why)


def _largest_factored(
    observations: Observations,
    dtype: Any,
    power: float,
    sides: Sides | Literal["auto"],
    rank: int | Literal["auto"],
    additions: Additions,
    machine: Machine,
) -> Plan:
    """The factored plan of most sides, then of the greatest rank, that the memory wanted holds; or else the least."""
    turns: Sequence[Sides] = ("both", "columns") if can_turn(observations, machine) else ("columns",)
    wanted = turns if sides == "auto" else (sides,)
    plans = []
    for side in wanted:
        for most in MOST_RANKS if rank == "auto" else (rank,):
            plan = plan_factored(observations, dtype, side, rank, most, additions, machine, power)
            if plan.peak_bytes <= machine.wanted:
                return plan
            plans.append(plan)
    least = min(plans, key=lambda plan: plan.peak_bytes)
    added = additions.indicators or additions.margins or additions.scaled
    if least.peak_bytes <= machine.allowed or sides != "both" or added or not _files(observations, machine):
        return least
    striped = [_striped(plan) for plan in plans]
    fitting = (plan for plan in striped if plan.peak_bytes <= machine.allowed)
    return next(fitting, min(least, *striped, key=lambda plan: plan.peak_bytes))


def _striped(plan: Plan) -> Plan:
    """Keep the rows' factor in files: as many of its rows in memory as that has room for, or else the fewest."""
    stripe = LEAST_STRIPE << max(0, (plan.sizes.rows // LEAST_STRIPE).bit_length() - 1)
    while True:
        found = replace(plan, sizes=replace(plan.sizes, stripe=stripe))
        if found.peak_bytes <= plan.machine.allowed or stripe == LEAST_STRIPE:
            return found
        stripe //= 2


def plan_factored(
    observations: Observations,
    dtype: Any,
    sides: Sides,
    rank: int | Literal["auto"] = "auto",
    most: int = MOST_RANKS[0],
    additions: Additions = NOTHING,
    machine: Machine | None = None,
    power: float = 0.5,
) -> Plan:
    """Plan a fit with features of n × ``rank``, or for "auto" up to ``most``; groups do not depend on the rank."""
    (m, n), nnz = observations.shape, observations.nnz
    most = min(most if rank == "auto" else rank, n)
    r = min(RANK, most) if rank == "auto" else most
    entries = FACTORED_ENTRIES if sides == "both" else max(FACTORED_ENTRIES, ENTRIES_PER_FEATURE * n)
    groups, crossing = equal_groups(observations, entries), sides == "both"
    flops = (2 if crossing else 1) * half_step_flops(nnz, min(m, nnz), r, sides)
    sizes = replace(
        _sizes(observations, dtype, power, sides, machine, additions),
        rank=most,
        held=additions.held + (16 * TRIALS_HELD + most // 2 if rank == "auto" else 0),
        indicators=additions.indicators and crossing,
        margins=additions.margins and crossing,
        side=(2 + additions.tables[0], 2 + additions.tables[1]) if additions.margins and crossing else (0, 0),
        sums=sums_held(group_number(nnz, entries)),
        uneven=additions.uneven or bool(np.ptp(np.diff(observations.indptr)) == 0 if m else False),
        group_rows=max((stop - start for start, stop in groups), default=1),
    )
    return _plan(observations, machine, sizes, r, groups, BLOCK_ROWS, flops)


def plan_dense(
    observations: Observations,
    dtype: Any,
    power: float = 0.5,
    sides: Sides = "columns",
    additions: Additions = NOTHING,
    machine: Machine | None = None,
) -> Plan:
    """Plan an exact fit of the observations with features of ``dtype``.

    The gram form is for a power of 1/2 alone: it takes Z'Z from products in which large numbers cancel, and
    higher powers raise what is left of the rounding. Where features cross, Z itself is gathered.
    """
    (m, n), itemsize = observations.shape, np.dtype(dtype).itemsize
    counts = np.diff(observations.indptr).astype(np.float64)
    product, gram = (dense_row_flops(counts, n, form) for form in ("product", "gram"))
    cheaper: Form = "product" if product.sum() <= gram.sum() + 3 * float(n) ** 3 else "gram"
    form: Form = cheaper if power == 0.5 and sides == "columns" else "product"
    by_row = product if form == "product" else gram
    flops = float(by_row.sum()) + (0 if form == "product" else 3 * float(n) ** 3)
    wanted = int(by_row.sum() // max(GROUP_FLOPS, GROUP_FLOPS_PER_FEATURE * n**2))
    number = min(max(wanted, SMALL_GROUPS if n <= SMALL else 1), most_groups(observations.nnz), max(m, 1))
    slab_rows = int(max(SLAB_ROWS, SLAB_BYTES // (itemsize * max(n, 1))))
    groups = cut(np.concatenate([[0.0], np.cumsum(by_row)]), number)
    highest = max((stop - start for start, stop in groups), default=1)
    if sides == "both":
        flops += float(counts.sum()) ** 3 / max(n, 1) ** 2 / 3 + 2 * float(counts.sum()) * m + float(m) ** 2 * n
    sizes = replace(
        _sizes(observations, dtype, power, sides, machine, additions, min(slab_rows, highest)),
        features="dense",
        form=form,
        rank=n,
        held=additions.results,
        sums=sums_held(len(groups)),
    )
    return _plan(observations, machine, sizes, n, groups, slab_rows, flops)


def _plan(
    observations: Observations,
    machine: Machine | None,
    sizes: Sizes,
    rank: int,
    groups: Sequence[tuple[int, int]],
    slab_rows: int,
    flops: float,
) -> Plan:
    """Return a plan of what was decided, and of how the observations lie."""
    machine = machine or Machine.of()
    stored, filed = observations.stored_bytes, _files(observations, machine)
    return Plan(sizes, machine, rank, tuple(groups), slab_rows, flops, stored, filed)


def can_turn(observations: Observations, machine: Machine) -> bool:
    """Whether columns can be solved in turn with rows: their copy is there, or there is room for it."""
    return observations.has_copy or observations.is_writable or machine.disk >= _copy_files(observations)


def _copy_files(observations: Observations) -> int:
    """Bytes of files that making the copy by column takes: on the way entries are dealt to files as large as it."""
    return 2 * observations.stored_bytes + 8 * observations.shape[1]


def _files(observations: Observations, machine: Machine) -> bool:
    """Whether a fit puts blocks and rows that memory has no room for in files: on a disk, not in an object store."""
    return observations.path is not None and machine.disk > 0


def _sizes(
    observations: Observations,
    dtype: Any,
    power: float,
    sides: Sides,
    machine: Machine | None,
    additions: Additions,
    block_rows: int = BLOCK_ROWS,
) -> Sizes:
    """What memory depends on, of what the observations tell."""
    (m, n), indptr = observations.shape, observations.indptr
    longest, block_rows = int(np.diff(indptr).max(initial=0)), min(block_rows, max(m, 1))
    # How long columns are is not known yet; a block is of one group, groups are of about equal size, and leave a heap.
    group = observations.nnz // group_number(observations.nnz, FACTORED_ENTRIES)
    across = min(observations.nnz, BLOCK_ENTRIES, 2 * group, SKEW * BLOCK_ROWS * observations.nnz // max(n, 1))
    sizes = Sizes(
        m,
        n,
        observations.nnz,
        observations.dtype.itemsize,
        np.dtype(dtype).itemsize,
        sides=sides,
        power=power,
        longest=longest,
        block_entries=max(_largest(indptr, block_rows, BLOCK_ENTRIES), longest),
        across_entries=across,
        saved_entries=max(_largest(indptr, BLOCK_ROWS, BLOCK_ENTRIES), longest),
        block_rows=block_rows,
        pass_entries=max(_largest(indptr, PASS_ROWS, PASS_ENTRIES), longest),
        pass_sums=sums_held(len(groups_of(observations))),
        threads=machine.threads if machine else cores(),
        drawn=additions.drawn,
        scaled=additions.scaled,
        ids_read=additions.ids_read,
        copy_bytes=0,
    )
    if sides == "columns" or observations.has_copy:
        return sizes
    room = MEMORY if machine is None else copy_room(sizes, machine.allowed, machine.base)
    return replace(sizes, copy_bytes=room)


def _largest(indptr: NDArray[np.int64], rows: int, entries: int) -> int:
    """Entries of the largest block of so many rows and at most so many ``entries``."""
    rows = min(rows, max(len(indptr) - 1, 1))
    return min(int((indptr[rows:] - indptr[:-rows]).max(initial=0)), entries)


def _with_kept(plan: Plan) -> Plan:
    """Let the plan keep as many bytes of blocks as there is room for; a worker, those of its groups and of one more."""
    if plan.machine.workers:
        share = min(1 / plan.machine.workers + 1 / max(len(plan.groups), 1), 1.0)
        plan = replace(plan, sizes=replace(plan.sizes, share=share))
    rows, columns = kept_need(plan.sizes)
    low, high = 0, max(rows, columns if plan.sides == "both" else 0) + LEAST_KEPT
    while high - low > LEAST_KEPT // 4:
        middle = (low + high) // 2
        kept = _keeping(plan, middle)
        bytes_ = kept.sizes.kept_rows + kept.sizes.kept_columns
        held = bytes_ * max(plan.machine.workers, 1)
        fits = kept.peak_bytes <= plan.machine.allowed and held <= plan.machine.kept
        low, high = (middle, high) if fits else (low, middle)
    return _keeping(plan, low) if low > LEAST_KEPT else plan


def _keeping(plan: Plan, limit: int) -> Plan:
    """Return the plan with at most so many bytes of the blocks of each order kept."""
    rows, columns = kept_need(plan.sizes)
    both = plan.sides == "both"
    sizes = replace(plan.sizes, kept_rows=min(rows, limit), kept_columns=min(columns, limit) if both else 0)
    return replace(plan, kept_bytes=limit, sizes=sizes)


def _reason(
    observations: Observations,
    chosen: Plan,
    dense: Plan,
    factored: Plan,
    features: str,
    sides: str,
    rank: int | str,
    turns: float,
) -> str:
    """Say in a few words why this plan was chosen."""
    if features != "auto":
        why = f"{features} as asked"
    elif rank != "auto":
        why = f"factored: rank {rank} as asked"
    elif chosen is factored and dense.peak_bytes > chosen.machine.wanted:
        why = f"factored: exact features need {megabytes(dense.peak_bytes)}"
    else:
        exact, low = turns * dense.flops, factored.flops
        why = f"{chosen.features}: {low:.2g} flops an iteration, exact features {exact:.2g} for as much progress"
    if sides == "auto" and chosen.features == "factored" and chosen.sides == "columns":
        memory, room = "more memory than is free", "a copy by column, for which there is no room"
        why += f"; both sides need {memory if can_turn(observations, chosen.machine) else room}"
    if chosen.sides == "both" and not (observations.has_copy or observations.is_writable):
        why += "; the copy by column is for this fit alone, as the store cannot be written to"
    if chosen.stripe:
        why += "; of the rows' factor memory holds a stripe at a time"
    if rank == "auto" and chosen is factored and chosen.most_rank < min(MOST_RANKS[0], chosen.sizes.columns):
        why += f"; rank at most {chosen.most_rank} in this memory"
    return why


def most_recovered(m: int, n: int, room: int | None = None) -> int:
    """Return the greatest rank at which ``room`` bytes hold a recovery's r × r systems of rows and columns.

    Half of what is free, where no room is given.
    """
    room = free_memory() // 2 if room is None else max(room, 0)
    return int(np.sqrt(room / 8 / (RECOVERED_COPIES * n + 2 * m)))
