"""What a fit will cost: figures of one plan, from its sizes alone. Reads no entry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
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
from rfmdist.errors import InputError
from rfmdist.features.dense import Form
from rfmdist.features.stripes import most_columns
from rfmdist.machine import cores, free_memory, memory_bound
from rfmdist.observations.blocks import RowBlock

SCATTER_FLOPS = 50.0
"""What adding one number at a scattered place costs (about 1 ns), in flops of a matrix product."""
KEPT_SHARE = 0.25
"""Share of the free memory that blocks read once may take, rather than be read at each iteration; a budget that was
given may be used up."""
ENOUGH = 1.02
"""Times what was planned that a refusal names: what a process holds to begin with varies by some megabytes."""

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
    disk : float
        Bytes that files of a fit may take, in a folder that all its processes see; 0 where there is none.
    bound : str
        What ``allowed`` comes from where no budget is given, if it is not the machine itself.
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
    disk: float = math.inf
    bound: str = ""

    @classmethod
    def of(
        cls,
        memory: int | None = None,
        base: int = FRESH,
        workers: int = 0,
        threads: int | None = None,
        disk: float = math.inf,
    ) -> Machine:
        """Return what a budget allows, or the memory that is free on this machine if none is given."""
        threads = cores() if threads is None else threads
        if memory is not None:
            return cls(memory, memory, memory, base, workers, threads, disk=disk)
        free = free_memory()
        kept, bound = int(KEPT_SHARE * free), memory_bound()
        return cls(base + free, base + free // 2, kept, base, workers, threads, disk=disk, bound=bound)

    @property
    def by(self) -> str:
        """What allows so much, to be said after "allowed"; nothing where that is the machine or the caller."""
        return f" by {self.bound}" if self.bound else ""

    def on(self, base: int, allowed: int | None) -> Machine:
        """Return the same with what its workers hold already, and may take where no budget is given."""
        if allowed is None:
            return self._replace(worker_base=base)
        free = max(allowed - base, 0)
        kept = int(KEPT_SHARE * free * self.workers)
        return self._replace(allowed=allowed, wanted=base + free // 2, kept=kept, worker_base=base, bound="")


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
    sizes : Sizes
        What the memory is foreseen from.
    machine : Machine
        What a process may take.
    rank : int
        Columns of U that flops are counted for; n for dense features.
    groups : tuple of (int, int)
        Ranges of rows; a group is summed by one task. They depend on the row counts and the dtype only.
    slab_rows : int
        Rows in flight within a group.
    flops : float
        Floating-point operations of one iteration.
    stored_bytes : int
        Bytes of the entries of one order as they lie in the store, compressed.
    filed : bool
        Whether blocks that memory has no room for are put in files as they are fitted, rather than decoded
        anew: where there is a folder for them on a disk, and as far as that has room.
    why : str
        What decided, in a few words.
    kept_bytes : int
        Most bytes of blocks of one order that are kept from one iteration to the next; 0 if they are read anew.
    """

    sizes: Sizes
    machine: Machine
    rank: int
    groups: tuple[tuple[int, int], ...]
    slab_rows: int
    flops: float
    stored_bytes: int
    filed: bool
    why: str = ""
    kept_bytes: int = 0

    @property
    def features(self) -> FeatureKind:
        """How P is kept."""
        return self.sizes.features

    @property
    def sides(self) -> Sides:
        """Whether rows are solved with features of the columns alone, or columns with features of the rows in turn."""
        return self.sizes.sides

    @property
    def form(self) -> Form:
        """How a group of an exact fit sums the AGOP (see `DenseFeatures`)."""
        return self.sizes.form

    @property
    def most_rank(self) -> int:
        """The rank that "auto" may grow to within the memory; else the rank."""
        return self.sizes.rank

    @property
    def feature_bytes(self) -> int:
        """Bytes of P, or of U."""
        return self.sizes.columns * self.rank * self.sizes.itemsize

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
        """Bytes of files that a fit leaves on the disk while it runs, for blocks that memory has no room for."""
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
        room = f" of {megabytes(self.machine.allowed)} allowed{self.machine.by}"
        where = f"{self.machine.workers} workers of {megabytes(self.peak_bytes)}" if self.machine.workers else ""
        held = f"{where or 'peak memory ' + megabytes(self.peak_bytes)}{room}"
        striped = f", {self.stripe} rows of the rows' factor at once" if self.stripe else ""
        moved = f", moves at most {megabytes(self.moved_bytes)}" if self.machine.workers else ""
        filed = f", {megabytes(self.filed_bytes)} of temporary files" if self.filed_bytes else ""
        time = "" if speed is None else f", takes about {self.seconds(*speed):.2g} s"
        return (
            f"{self.features}, sides {self.sides}{rank}{most}, {len(self.groups)} groups of {self.group_entries:.2g}"
            f" entries in blocks of {self.sizes.block_entries:.2g} entries{striped}; {held}{filed}; an iteration reads"
            f" {megabytes(self.read_bytes)}{moved}, {self.flops:.2g} flops{time}"
        )

    @property
    def augmented(self) -> bool:
        """Whether additions to plain factored features may be fitted."""
        return self.sizes.margins

    def block_flops(self, block: RowBlock, columns: int) -> float:
        """Flops of the solves and sums of a block of so many columns, counted as those of an iteration."""
        if self.features == "dense":
            return float(dense_row_flops(np.diff(block.indptr).astype(float), columns, self.form).sum())
        return half_step_flops(len(block.values), block.stop - block.start, self.rank, self.sides)

    def seconds(self, flops: float, bytes_: float) -> float:
        """Expected seconds of an iteration, where this machine does so many flops and reads so many bytes a second."""
        share = self.machine.workers * self.machine.threads / cores() if self.machine.workers else 1.0
        return self.flops / (share * flops) + self.read_bytes / (share * bytes_)


def check_memory(plan: Plan, compiler: int = 0) -> None:
    """Refuse a plan whose peak is more than is allowed.

    ``compiler`` is what this process alone may take for having compiled the kernels, which the next one finds.

    Raises
    ------
    InputError
        With both figures.
    """
    allowed = plan.machine.allowed
    if plan.peak_bytes <= allowed:
        return
    each = " a worker" if plan.machine.workers else ""
    enough = megabytes(int(ENOUGH * plan.peak_bytes))
    needed = f"about {enough}{each}; {megabytes(allowed)} are allowed{plan.machine.by}:"
    once = f", up to {megabytes(compiler)} of it to compile the kernels this once: run it again" if compiler else ""
    if plan.features == "dense":
        mend = "use features='factored', dtype='float32', or allow more memory"
        raise InputError(f"exact features need {needed} {mend}{once}")
    other = "a lower rank" if plan.sides == "columns" else "sides='columns', a lower rank"
    raise InputError(f"features of rank {plan.most_rank} need {needed} use {other} or allow more memory{once}")


def half_step_flops(entries: float, rows: float, rank: int, sides: Sides) -> float:
    """Flops of a half step of a factored fit: products and Cholesky factors, and Z'B where sides do not take turns."""
    half = 2.0 * entries * rank**2 + float(rows) * rank**3 / 3
    return half + 4.0 * entries * rank if sides == "columns" else half


def dense_row_flops(counts: NDArray[np.float64], n: float, form: str) -> NDArray[np.float64]:
    """Flops of each row of an exact fit: its solve, and its part of the AGOP."""
    return counts**3 / 3 + (2 * counts * n + float(n) ** 2 if form == "product" else counts**2 / 2 * SCATTER_FLOPS)


def megabytes(size: int) -> str:
    """Megabytes, rounded up, as a budget is written."""
    return f"{-(-size // 10**6)}MB"
