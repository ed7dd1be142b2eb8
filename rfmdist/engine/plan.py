"""What a fit will cost and how it is cut: decided from sizes and a memory budget, before any work. Reads no entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from rfmdist.engine.memory import (
    FRESH,
    FRESH_WORKER,
    Memory,
    Sizes,
    client_memory,
    copy_room,
    fit_memory,
    kept_need,
    worker_memory,
)
from rfmdist.engine.run import sums_held
from rfmdist.errors import InputError
from rfmdist.features.dense import Form
from rfmdist.features.stripes import most_columns
from rfmdist.machine import cores
from rfmdist.observations.blocks import RowBlock
from rfmdist.observations.by_column import MEMORY
from rfmdist.observations.kept import PASS_ENTRIES, PASS_ROWS
from rfmdist.observations.passes import cut, cut_rows, groups_of
from rfmdist.observations.store import BLOCK_ENTRIES, BLOCK_ROWS, Observations

GROUP_FLOPS = 1e9
"""Least work of a group, about 20 ms of a core: below it a task's own cost shows."""
GROUP_FLOPS_PER_FEATURE = 2400.0
"""Work of a group for each of the n² numbers of its partial: summing it then costs under a tenth of the work."""
GROUPS, MANY_ENTRIES, MOST_GROUPS = 64, 1 << 25, 1 << 13
"""At most 64 groups up to so many entries, then as the root of their number: eight to each of 1024 workers at 1e12, and
rounds of tasks that stay long beside what a task costs."""
SMALL, SMALL_GROUPS = 2048, 4
"""At least 4 groups where n ≤ 2048, since partials of up to 32 MB cost little to add."""
GROUP_ENTRIES = 1 << 18
"""Entries of a group of a pass that only scores."""
SCATTER_FLOPS = 50.0
"""What adding one number at a scattered place costs (about 1 ns), in flops of a matrix product."""
SLAB_BYTES = 1 << 27
"""Bytes of completed rows in flight."""
SLAB_ROWS = 256
"""Fewest rows of a slab: thinner ones multiply at less than full speed."""
FACTORED_ENTRIES = 1 << 19
"""Fewest entries of a group of a factored fit: some 30 ms of a core at r = 32."""
ENTRIES_PER_FEATURE = 20
"""Entries of a group for each row of U where a group sums n × r numbers: adding them then costs little."""
COLUMNS_ONLY_ITERATIONS = 3.0
"""Iterations that one side takes for each of both sides', without noise (`scripts/recovery.py`)."""
KEPT_SHARE = 0.25
"""Share of the free memory that blocks read once may take, rather than be read at each iteration; a budget that was
given may be used up."""
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

FeatureKind = Literal["dense", "factored"]
Sides = Literal["columns", "both"]


class Speed(NamedTuple):
    """Flops, and bytes read of what blocks are read from in the end, a second, on all cores."""

    flops: float
    bytes: float


class Machine(NamedTuple):
    """What a process may take.

    Attributes
    ----------
    allowed : int
        Bytes that its peak may not exceed.
    wanted : int
        Bytes that what is "auto" stays within: all of a budget that was given, half of what is free.
    kept : int
        Bytes of blocks that it may keep.
    base : int
        Bytes that it holds with libraries and kernels loaded.
    workers, threads : int
        Processes of a cluster, 0 without one; threads of each.
    worker_base : int
        The same as ``base`` of each of them.
    """

    allowed: int
    wanted: int
    kept: int
    base: int = FRESH
    workers: int = 0
    threads: int = 1
    worker_base: int = FRESH_WORKER

    @classmethod
    def of(cls, memory: int | None = None, base: int = FRESH, workers: int = 0, threads: int | None = None) -> Machine:
        """Return what a budget allows, or the memory that is free on this machine if none is given."""
        threads = cores() if threads is None else threads
        if memory is not None:
            return cls(memory, memory, memory, base, workers, threads)
        free = psutil.virtual_memory().available
        return cls(base + free, base + free // 2, int(KEPT_SHARE * free), base, workers, threads)


class Additions(NamedTuple):
    """What a fit holds beside its features; see `Sizes`."""

    indicators: bool = False
    margins: bool = False
    scaled: bool = False
    tables: tuple[int, int] = (0, 0)
    drawn: bool = False
    held: int = 0
    results: int = 0
    ids_read: bool = False
    uneven: bool = False


NOTHING = Additions()


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
    most_rank : int
        The rank that "auto" may grow to within the memory; else the rank.
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
    sizes : Sizes
        What the memory is foreseen from.
    machine : Machine
        What a process may take.
    kept_bytes : int
        Most bytes of blocks of one order that are kept from one iteration to the next; 0 if they are read anew.
    stored_bytes : int
        Bytes of the entries of one order as they lie in the store, compressed.
    filed : bool
        Whether blocks that memory has no room for are put in files beside the store as they are fitted, rather than
        decoded anew: where the store lies on a disk, and as far as that has room.
    """

    features: FeatureKind
    sides: Sides
    rank: int
    most_rank: int
    why: str
    groups: tuple[tuple[int, int], ...]
    form: Form
    slab_rows: int
    flops: float
    feature_bytes: int
    sizes: Sizes
    machine: Machine
    kept_bytes: int = 0
    stored_bytes: int = 0
    filed: bool = False

    @cached_property
    def memory(self) -> Memory:
        """The worst moment of the process that fits in process, or of a worker of a cluster."""
        if not self.machine.workers:
            return fit_memory(self.sizes, self.machine.base)
        return worker_memory(self.sizes, self.machine.threads, self.machine.worker_base)

    @property
    def peak_bytes(self) -> int:
        """Most resident memory of the process that fits, or of a worker of a cluster."""
        return self.memory.total

    @property
    def stripe(self) -> int | None:
        """Rows of the rows' factor that memory holds at once, the others in files; None where it holds all."""
        return self.sizes.stripe

    @property
    def copy_bytes(self) -> int:
        """Bytes that making the column-ordered copy may take, if it is not there."""
        return copy_room(self.sizes, self.machine.allowed, self.machine.base)

    @property
    def client_bytes(self) -> int:
        """Most resident memory of the process that has a cluster do the work; 0 in process."""
        return client_memory(self.sizes, self.machine.base).total if self.machine.workers else 0

    @property
    def group_entries(self) -> int:
        """Entries of a group, about."""
        return -(-self.sizes.entries // max(len(self.groups), 1))

    @property
    def read_bytes(self) -> int:
        """Bytes that an iteration reads after the first: blocks that are not kept, of both orders if sides take turns.

        As they were filed, or else as they are stored. Those of the columns, and the rows' factor, several times where
        memory holds stripes of it alone.
        """
        s = self.sizes
        times = (1, -(-s.rows // s.stripe) if s.stripe else 1)
        parts = zip(times, self._not_kept, strict=False)
        entries = sum(n * missing * (1 if self.filed else self.stored_bytes / need) for n, (missing, need) in parts)
        batches = -(-s.columns // most_columns(s.rank, s.itemsize)) if s.stripe else 0
        return round(entries + batches * s.rows * s.rank * s.itemsize)

    @property
    def filed_bytes(self) -> int:
        """Bytes of files that a fit leaves beside the store while it runs, for blocks that memory has no room for."""
        return sum(missing for missing, _ in self._not_kept) if self.filed else 0

    @property
    def _not_kept(self) -> list[tuple[int, int]]:
        """Bytes of blocks that are not kept, and of all, of the rows' order and, if sides take turns, the columns'."""
        s = self.sizes
        kept = (s.kept_rows, s.kept_columns) if self.sides == "both" else (s.kept_rows,)
        parts = [(max(need - k, 0), max(need, 1)) for k, need in zip(kept, kept_need(s), strict=False)]
        return [(round(missing / s.share), round(need / s.share)) for missing, need in parts]  # of all processes

    @property
    def moved_bytes(self) -> int:
        """Most bytes an iteration moves between the processes of a cluster; 0 in process."""
        workers, s = self.machine.workers, self.sizes
        if not workers:
            return 0
        right = self.feature_bytes + s.columns * s.itemsize
        if self.sides == "columns":
            partial = s.columns**2 * 8 if self.features == "dense" else right + 16 * s.columns
            return len(self.groups) * partial + workers * right
        left = s.rows**2 * s.itemsize if self.features == "dense" else right * s.rows // max(s.columns, 1)
        solved = 2 * s.rows * s.columns * s.itemsize if self.features == "dense" else left + right
        return workers * (left + right) + 2 * solved

    def told(self, speed: Speed | None = None) -> str:
        """Say the plan in a line."""
        rank = "" if self.features == "dense" else f", rank {self.rank}"
        most = f" to {self.most_rank}" if self.most_rank > self.rank else ""
        room = f" of {_megabytes(self.machine.allowed)} allowed"
        where = f"{self.machine.workers} workers of {_megabytes(self.peak_bytes)}" if self.machine.workers else ""
        held = f"{where or 'peak memory ' + _megabytes(self.peak_bytes)}{room}"
        striped = f", {self.stripe} rows of the rows' factor at once" if self.stripe else ""
        moved = f", moves at most {_megabytes(self.moved_bytes)}" if self.machine.workers else ""
        filed = f", {_megabytes(self.filed_bytes)} of files beside the store" if self.filed_bytes else ""
        time = "" if speed is None else f", takes about {self.seconds(*speed):.2g} s"
        return (
            f"{self.features}, sides {self.sides}{rank}{most}, {len(self.groups)} groups of {self.group_entries:.2g}"
            f" entries, blocks of {self.sizes.block_entries:.2g}{striped}; {held}{filed}; an iteration reads"
            f" {_megabytes(self.read_bytes)}{moved}, {self.flops:.2g} flops{time}"
        )

    @property
    def augmented(self) -> bool:
        """Whether additions to plain factored features may be fitted."""
        return self.sizes.margins

    def block_flops(self, block: RowBlock, columns: int) -> float:
        """Flops of the solves and sums of a block of so many columns, counted as those of an iteration."""
        if self.features == "dense":
            return float(_dense_row_flops(np.diff(block.indptr).astype(float), columns, self.form).sum())
        return _half_step_flops(len(block.values), block.stop - block.start, self.rank, self.sides)

    def seconds(self, flops: float, bytes_: float) -> float:
        """Expected seconds of an iteration, where this machine does so many flops and reads so many bytes a second."""
        share = self.machine.workers * self.machine.threads / cores() if self.machine.workers else 1.0
        return self.flops / (share * flops) + self.read_bytes / (share * bytes_)


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

    Raises
    ------
    InputError
        If the memory that is allowed cannot hold the plan that was asked for, or any.
    """
    machine = machine or Machine.of()
    dense = plan_dense(observations, dtype, power, "columns" if sides == "auto" else sides, additions, machine)
    factored = _largest_factored(observations, dtype, power, sides, rank, additions, machine)
    turns = COLUMNS_ONLY_ITERATIONS if dense.sides != factored.sides else 1.0
    if features == "auto":
        cheaper = turns * dense.flops < factored.flops and dense.peak_bytes <= machine.wanted and rank == "auto"
        chosen = dense if cheaper else factored
    else:
        chosen = dense if features == "dense" else factored
    check_memory(chosen)
    why = _reason(chosen, dense, factored, features, sides, rank, turns)
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
    wanted: Sequence[Sides] = ("both", "columns") if sides == "auto" else (sides,)
    plans = []
    for side in wanted:
        for most in MOST_RANKS if rank == "auto" else (rank,):
            plan = plan_factored(observations, dtype, side, rank, most, additions, machine, power)
            if plan.peak_bytes <= machine.wanted:
                return plan
            plans.append(plan)
    least = min(plans, key=lambda plan: plan.peak_bytes)
    added = additions.indicators or additions.margins or additions.scaled
    if least.peak_bytes <= machine.allowed or sides != "both" or added or observations.path is None:
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
    (m, n), itemsize, nnz = observations.shape, np.dtype(dtype).itemsize, observations.nnz
    most = min(most if rank == "auto" else rank, n)
    r = min(RANK, most) if rank == "auto" else most
    entries = FACTORED_ENTRIES if sides == "both" else max(FACTORED_ENTRIES, ENTRIES_PER_FEATURE * n)
    groups, crossing = equal_groups(observations, entries), sides == "both"
    flops = (2 if crossing else 1) * _half_step_flops(nnz, min(m, nnz), r, sides)
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
    return Plan(
        "factored",
        sides,
        r,
        most,
        "",
        groups,
        "product",
        BLOCK_ROWS,
        flops,
        n * r * itemsize,
        sizes,
        machine or Machine.of(),
        stored_bytes=observations.stored_bytes,
        filed=observations.path is not None,
    )


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
    product, gram = (_dense_row_flops(counts, n, form) for form in ("product", "gram"))
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
    return Plan(
        "dense",
        sides,
        n,
        n,
        "",
        groups,
        form,
        slab_rows,
        flops,
        n * n * itemsize,
        sizes,
        machine or Machine.of(),
        stored_bytes=observations.stored_bytes,
        filed=observations.path is not None,
    )


def _half_step_flops(entries: float, rows: float, rank: int, sides: Sides) -> float:
    """Flops of a half step of a factored fit: products and Cholesky factors, and Z'B where sides do not take turns."""
    half = 2.0 * entries * rank**2 + float(rows) * rank**3 / 3
    return half + 4.0 * entries * rank if sides == "columns" else half


def _dense_row_flops(counts: NDArray[np.float64], n: float, form: str) -> NDArray[np.float64]:
    """Flops of each row of an exact fit: its solve, and its part of the AGOP."""
    return counts**3 / 3 + (2 * counts * n + float(n) ** 2 if form == "product" else counts**2 / 2 * SCATTER_FLOPS)


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
    # How long columns are is not known yet.
    across = min(observations.nnz, BLOCK_ENTRIES, SKEW * BLOCK_ROWS * observations.nnz // max(n, 1))
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


def _reason(chosen: Plan, dense: Plan, factored: Plan, features: str, sides: str, rank: int | str, turns: float) -> str:
    """Say in a few words why this plan was chosen."""
    if features != "auto":
        why = f"{features} as asked"
    elif rank != "auto":
        why = f"factored: rank {rank} as asked"
    elif chosen is factored and dense.peak_bytes > chosen.machine.wanted:
        why = f"factored: exact features need {_megabytes(dense.peak_bytes)}"
    else:
        exact, low = turns * dense.flops, factored.flops
        why = f"{chosen.features}: {low:.2g} flops an iteration, exact features {exact:.2g} for as much progress"
    if sides == "auto" and chosen.features == "factored" and chosen.sides == "columns":
        why += "; both sides need more memory than is free"
    if chosen.stripe:
        why += "; of the rows' factor memory holds a stripe at a time"
    if rank == "auto" and chosen is factored and chosen.most_rank < min(MOST_RANKS[0], chosen.sizes.columns):
        why += f"; rank at most {chosen.most_rank} in this memory"
    return why


def most_recovered(m: int, n: int, room: int | None = None) -> int:
    """Return the greatest rank at which ``room`` bytes hold a recovery's r × r systems of rows and columns.

    Half of what is free, where no room is given.
    """
    room = psutil.virtual_memory().available // 2 if room is None else max(room, 0)
    return int(np.sqrt(room / 8 / (RECOVERED_COPIES * n + 2 * m)))


def check_memory(plan: Plan) -> None:
    """Refuse a plan whose peak is more than is allowed.

    Raises
    ------
    InputError
        With both figures.
    """
    allowed = plan.machine.allowed
    if plan.peak_bytes <= allowed:
        return
    each = " a worker" if plan.machine.workers else ""
    needed = f"about {_megabytes(plan.peak_bytes)}{each}; {_megabytes(allowed)} are allowed:"
    if plan.features == "dense":
        raise InputError(f"exact features need {needed} use features='factored', dtype='float32', or allow more memory")
    other = "a lower rank" if plan.sides == "columns" else "sides='columns', a lower rank"
    raise InputError(f"features of rank {plan.most_rank} need {needed} use {other} or allow more memory")


def _megabytes(size: int) -> str:
    """Megabytes, rounded up, as a budget is written."""
    return f"{-(-size // 10**6)}MB"


def equal_groups(observations: Observations, entries: int = GROUP_ENTRIES) -> tuple[tuple[int, int], ...]:
    """Cut rows into groups of about equal numbers of entries, for passes that only read and solve."""
    return cut_rows(observations, group_number(observations.nnz, entries))


def group_number(nnz: int, entries: int) -> int:
    """Return into how many groups of at least so many ``entries`` all ``nnz`` are cut."""
    return min(most_groups(nnz), 1 + nnz // entries)


def most_groups(nnz: int) -> int:
    """Return the most groups of ``nnz`` entries: more than workers, but no more than tasks are cheap to send."""
    return min(MOST_GROUPS, max(GROUPS, round(GROUPS * (nnz / MANY_ENTRIES) ** 0.5)))
