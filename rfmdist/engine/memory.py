"""What a fit holds in memory at its worst moment, foreseen from its sizes alone. Pure: it reads no file and no clock.

A fit is a row of stages, and each stage has moments at which most is alive. Each moment is a function of the sizes
that names what is alive, in bytes; the peak is the greatest sum. Tests hold it to real fits in fresh processes: the
measured peak is at most the one foreseen, and at least 1/1.15 of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from rfmdist.engine.shelf import FILED_BYTES
from rfmdist.engine.tree import SUMMED_HERE
from rfmdist.features.factored import TALL
from rfmdist.features.stripes import most_columns
from rfmdist.observations.by_column import MEMORY as COPY_BYTES
from rfmdist.observations.by_column import stretch
from rfmdist.observations.kept import HELD_BYTES, PASS_ENTRIES
from rfmdist.observations.layout import CHUNK, SHARD
from rfmdist.observations.scratch import PIECE

FRESH, FRESH_WORKER = 195_000_000, 212_000_000
"""Bytes of a process that has loaded Python, the libraries and the kernels; of a Dask worker beside them. Measured."""
COMPILER, COMPILED_LATER = 120_000_000, 10_000_000
"""Bytes more, at most, that a process holds for good which compiles the kernels, as the first on a machine does; those
of them that come while a fit runs, by kernels that only its passes need. Measured."""
LOADED_LATER = 16_000_000
"""Bytes of what is first used once a fit runs: threads' stacks, codecs, the rest of the kernels. Measured."""
BLOCKS_HELD = 2
"""Blocks of one group that are alive at once: one is worked on while the next is read."""
DECODED = 2.5
"""Times the bytes of one array of a block, in whole chunks, that reading it takes: as decoded and as compressed."""
START_ENTRY = 12
"""Bytes an entry of a block of the passes before the first iteration, beside what two blocks take. Measured."""
PLACED_ENTRY, WRITTEN_ENTRY = 40, 11
"""Making the column-ordered copy: bytes an entry that is dealt takes beside what was read, and one of a shard that is
written beside the shard. Measured."""
SPLIT_ENTRY = 13
"""Bytes an entry of a shard of roles that is written. Measured."""
IDS_LIBRARY = 67_000_000
"""Bytes of what reads ids, which is loaded when a completion is saved, unless it was before. Measured."""
FEATURES_WRITTEN, FEATURES_CHUNKS = 2.25, 24_000_000
"""Times their bytes that features take while they are written, and at most. Measured."""
TEXT_ID, NUMBER_ID = 90, 24
"""Bytes of an id while a completion is saved."""
TILE_BYTES, PANEL_BYTES = 768 * 768 * 8, 512 * 8
"""Bytes a thread takes for a tile of Z'Z, and a row of a panel of a product of n × n."""
ROOT_ARRAYS = 10
"""Arrays of n × n in float64 while a root is taken: the matrix as given and scaled, L, X, X'X and parts of h."""

HEAP, HEAP_SHARE = 20_000_000, 0.035
"""Bytes of small arrays, and share of all, that the C library keeps after they are gone. Measured: the peaks of one fit
vary by 4 % from run to run, and the highest counts."""
SAVED_HEAP = 10_000_000
"""The same of a saving. Measured."""

Parts = dict[str, int]


@dataclass(frozen=True)
class Sizes:
    """What decides what a fit holds.

    Attributes
    ----------
    rows, columns, entries : int
        Of the observations.
    stored, itemsize : int
        Bytes of a stored value, and of one of the features and solves.
    features, sides, form
        As in `Plan`.
    rank : int
        The greatest that the fit may reach.
    held : int
        Columns of features that other results hold, beside the current ones and the best of their stage; of dense
        ones their number.
    side : tuple of int
        Side columns of the rows, and of the columns.
    uneven : bool
        Whether rows may have other numbers of side columns than columns have: one is left out where it is constant.
    indicators, margins, scaled : bool
        Whether the block of indicators is fitted, counts and side columns are gathered, rows have scales.
    power : float
        α.
    longest, block_entries, block_rows : int
        Entries of the longest row; entries and rows of the largest block of rows.
    across_entries, saved_entries : int
        Entries of the largest block of columns, and of that of rows which a saving goes through.
    pass_entries : int
        Entries of the largest block that is only gone through.
    sums, pass_sums : int
        Sums that are held at once (see `sums_held`): of an iteration, and of a pass before.
    group_rows : int
        Rows of the tallest group.
    copy_bytes : int
        What making the column-ordered copy may take; 0 where it is made already.
    stripe : int or None
        Rows of the left factor that memory holds at once; None where it holds all.
    threads : int
        Of this process.
    drawn : bool
        Whether validation entries are drawn anew at each reading, rather than stored.
    share : float
        Most of all blocks that are one process's to solve.
    kept_rows, kept_columns : int
        Bytes of the blocks kept of each order.
    text, ids_read : bool
        Whether ids are text; whether what reads them is loaded already.
    """

    rows: int
    columns: int
    entries: int
    stored: int = 4
    itemsize: int = 4
    features: Literal["dense", "factored"] = "factored"
    sides: Literal["columns", "both"] = "both"
    form: Literal["product", "gram"] = "product"
    rank: int = 32
    held: int = 0
    side: tuple[int, int] = (0, 0)
    uneven: bool = False
    indicators: bool = False
    margins: bool = False
    scaled: bool = False
    power: float = 0.5
    longest: int = 0
    block_entries: int = 1 << 20
    block_rows: int = 1 << 12
    across_entries: int = 1 << 20
    saved_entries: int = 1 << 20
    pass_entries: int = PASS_ENTRIES
    sums: int = 1
    pass_sums: int = 1
    group_rows: int = 1 << 17
    copy_bytes: int = COPY_BYTES
    stripe: int | None = None
    threads: int = 1
    drawn: bool = False
    share: float = 1.0
    kept_rows: int = 0
    kept_columns: int = 0
    text: bool = False
    ids_read: bool = False

    @property
    def across(self) -> Sizes:
        """The sizes of the transposed matrix, whose columns are solved in turn."""
        return replace(
            self,
            rows=self.columns,
            columns=self.rows,
            side=self.side[::-1],
            block_entries=self.across_entries,
            across_entries=self.block_entries,
        )


@dataclass(frozen=True)
class Memory:
    """The worst moment of a fit: its name, and the bytes of what is then alive."""

    moment: str
    parts: Parts

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


def fit_memory(sizes: Sizes, base: int = FRESH, *, saved: bool = True) -> Memory:
    """Foresee the peak of a process that fits, and then saves the completion unless it is not ``saved``.

    ``base`` is what the process holds with the libraries and kernels loaded.
    """
    always = {"Python and libraries": base + LOADED_LATER, **_tables(sizes)}
    moments = [*_moments(sizes), *([("saving", saving(sizes))] if saved else [])]
    return max((Memory(name, always | parts) for name, parts in moments), key=lambda memory: memory.total)


def _moments(sizes: Sizes) -> Iterator[tuple[str, Parts]]:
    yield "start", starting(sizes)
    kept = {"kept blocks": sizes.kept_rows}
    if sizes.sides == "both":
        yield "copy by column", copying(sizes)
        kept = {"kept blocks": sizes.kept_rows + sizes.kept_columns}
    moments = _dense_moments(sizes) if sizes.features == "dense" else _factored_moments(sizes)
    for name, parts in moments:
        alive = kept | parts
        yield name, alive | {"heap": HEAP + int(HEAP_SHARE * sum(alive.values()))}


# ---- before and after the iterations ----------------------------------------------------------------------------


def _tables(sizes: Sizes) -> Parts:
    """A few numbers for each row and column, from the start to the end, and the chunks that reading ended within."""
    m, n = sizes.rows, sizes.columns
    both = 2 if sizes.sides == "both" else 1
    pointers = 8 * (m + 1) + (8 * (n + 1) if both > 1 else 0)
    # Offsets, what they leave and its counts; of the overview two slots of numbers, of columns of sums too.
    known = (8 + 8 + 8 + 2 * 4) * m + (8 + 8 + 16 + 2 * 16) * n
    scales = 8 * m if sizes.scaled else 0
    margins = 8 * (m + n) + 4 * (m * sizes.side[0] + n * sizes.side[1]) if sizes.margins else 0
    return {
        "pointers": pointers,
        "offsets and counts": known + scales,
        "side columns": margins,
        "chunks held": both * (5 + sizes.stored) * min(sizes.entries, CHUNK),
    }


def starting(sizes: Sizes) -> Parts:
    """The passes for offsets, scales, range and counts: blocks, or all entries where they are few, and sums."""
    entries = min(sizes.pass_entries, sizes.entries)
    kept = sizes.entries * (4 + sizes.stored)
    held = kept + 16 * sizes.rows if kept <= HELD_BYTES else 0
    blocks = entries * (2 * BLOCKS_HELD * (4 + sizes.stored) + BLOCKS_HELD + START_ENTRY)
    sums = 2 * 16 * sizes.columns * sizes.pass_sums
    temporaries = 8 * sizes.rows + (8 * (sizes.side[0] + 2) * sizes.rows if sizes.margins else 0)
    return {"passes of the start": held + blocks + temporaries, "sums of the start": sums}


def copying(sizes: Sizes) -> Parts:
    """The making of the column-ordered copy: entries are dealt to stretches, which are then written one by one."""
    if not sizes.copy_bytes:
        return {}
    entry, shard = 5 + sizes.stored, min(sizes.entries, SHARD)
    step, whole = stretch(sizes.entries, entry, sizes.copy_bytes)
    dealing = min(sizes.entries, 1 << 20) * (BLOCKS_HELD * (entry + 4) + PLACED_ENTRY)
    writing = shard * WRITTEN_ENTRY
    held = entry * (sizes.entries if whole else 2 * step)
    # The C library keeps what dealing took while the stretches are filled and written.
    most = held + (max(dealing, writing) if whole else dealing + writing)
    return {"copy by column": most + 16 * sizes.columns}


def copy_room(sizes: Sizes, allowed: int, base: int = FRESH) -> int:
    """Return what making the copy may take, of so many bytes that are allowed: what nothing else then takes."""
    room = allowed - base - LOADED_LATER - sum(_tables(sizes).values()) - 16 * sizes.columns
    return min(COPY_BYTES, max(room, 1))


def saving(sizes: Sizes) -> Parts:
    """The writing of the completion: its entries by shards, or then the last of them, or roles, beside the ids."""
    offsets = 8 * (sizes.rows * (2 if sizes.scaled else 1) + sizes.columns)
    # Of the tables of a fit these remain; its counts are gone.
    ours = {"features": features_bytes(sizes), "row counts": 8 * sizes.rows, "offsets and counts": offsets}
    shard, entry = min(sizes.entries, SHARD), 4 + sizes.stored
    ours |= {"shard": shard * entry, "blocks in flight": _read_bytes(sizes, sizes.saved_entries)}
    shards = {"shards being written": int(shard * WRITTEN_ENTRY * entry / 8)}
    ids = (TEXT_ID if sizes.text else NUMBER_ID) * max(sizes.rows, sizes.columns) + 16 * sizes.rows
    last = {
        "roles being written": shard * SPLIT_ENTRY,
        "ids and row counts": ids + (0 if sizes.ids_read else IDS_LIBRARY),
        "features being written": min(FEATURES_CHUNKS, int(FEATURES_WRITTEN * features_bytes(sizes))),
        "heap": SAVED_HEAP,
    }
    return max((ours | shards, ours | last), key=lambda parts: sum(parts.values()))


# ---- an iteration -----------------------------------------------------------------------------------------------


def kept_need(sizes: Sizes) -> tuple[int, int]:
    """Bytes of a process's blocks as `Targets` keeps them, of the rows and of the columns."""
    value, pointers = max(sizes.itemsize, sizes.stored), 1 << 16
    by_row = sizes.entries * (_code(sizes.columns) + value) + 16 * sizes.rows
    by_column = sizes.entries * (_code(sizes.rows) + sizes.itemsize) + 8 * sizes.columns
    return int(sizes.share * by_row) + pointers, int(sizes.share * by_column) + pointers


def _code(size: int) -> int:
    """Bytes of a code below ``size``."""
    return 4 if size < 1 << 31 else 8


def _read_again(sizes: Sizes) -> bool:
    """Whether blocks are read at each iteration, since not all are kept."""
    rows, columns = kept_need(sizes)
    return sizes.kept_rows < rows or (sizes.sides == "both" and sizes.kept_columns < columns)


def block_bytes(sizes: Sizes) -> int:
    """Blocks as they are read and as they are fitted, and what the solve of one takes."""
    entries = min(sizes.block_entries, sizes.entries)
    made = entries * (1 + 4 + sizes.itemsize + (8 if sizes.drawn else 0))
    return BLOCKS_HELD * made + _read_bytes(sizes, entries) + entries * sizes.itemsize


def _read_bytes(sizes: Sizes, most: int) -> int:
    """Blocks of at most so many entries as they lie in the store, and what decoding one of them takes."""
    entries = min(most, sizes.entries)
    decoded = DECODED * max(4, sizes.stored) * min(entries + CHUNK, sizes.entries)
    return int(BLOCKS_HELD * entries * (4 + sizes.stored) + decoded)


def features_bytes(sizes: Sizes) -> int:
    """Features of the columns: P; or U, offsets, and U of the indicators."""
    if sizes.features == "dense":
        return sizes.columns**2 * sizes.itemsize
    return sizes.columns * _width(sizes, sizes.side[1]) * sizes.itemsize


def _partial(sizes: Sizes) -> int:
    """What groups of rows give where the columns alone have features: the AGOP; or Z'B, residual sums and counts."""
    return sizes.columns**2 * 8 if sizes.features == "dense" else features_bytes(sizes) + 16 * sizes.columns


def _width(sizes: Sizes, side: int) -> int:
    """Numbers a row of factored features, with ``side`` side columns, its offset among them."""
    return sizes.rank * (2 if sizes.indicators else 1) + side + 1


def _factored_moments(sizes: Sizes) -> Iterator[tuple[str, Parts]]:
    held = sizes.held * sizes.columns * (2 if sizes.indicators else 1) * sizes.itemsize
    first = {"features": features_bytes(sizes), "features of other results": held}
    later = first | {"features": 2 * features_bytes(sizes)}  # and those of the best iterate
    reading = later if _read_again(sizes) else first
    if sizes.sides == "columns":
        sums = {"sums": sizes.sums * _partial(sizes) + (features_bytes(sizes) if sizes.power != 0.5 else 0)}
        yield "columns", reading | sums | _at_work(sizes)
        yield "columns, summed", later | sums
        return
    if sizes.stripe:
        yield from _striped_moments(sizes, reading, later)
        return
    yield "rows, joined", later | _joined(sizes)
    yield "rows", reading | {"solved rows": _pieces(sizes)} | _at_work(sizes)
    other = {"features of the other side": features_bytes(sizes.across)}
    yield "columns, joined", later | other | _joined(sizes.across)
    yield "columns", reading | other | {"solved rows": _pieces(sizes.across)} | _at_work(sizes.across)


def _striped_moments(sizes: Sizes, reading: Parts, later: Parts) -> Iterator[tuple[str, Parts]]:
    """Rows go to files group by group; of their factor two stripes are held while one follows another."""
    solved = {"solved rows": min(2 * sizes.group_rows / max(sizes.rows, 1), 1.0) * _pieces(sizes)}
    yield "rows", reading | {name: int(size) for name, size in solved.items()} | _at_work(sizes)
    yield "columns", reading | {"solved rows": _pieces(sizes.across)} | _stripes(sizes) | _at_work(sizes.across)
    yield "columns, joined", later | _joined(sizes.across)


def _stripes(sizes: Sizes) -> Parts:
    """Stripes of the rows' factor, rows of it that are turned as they are loaded, and the systems of a batch."""
    row = (sizes.rank + 1) * sizes.itemsize
    columns = min(sizes.columns, most_columns(sizes.rank, sizes.itemsize))
    held = 2 * min(sizes.stripe or 0, sizes.rows) + (PIECE if sizes.power != 0.5 else 0)
    return {"stripes": held * row, "systems": columns * ((sizes.rank + 3) * row + 24)}


def _at_work(sizes: Sizes) -> Parts:
    """A block in flight, and the scratch of its solves; and what is left to threads of the group before."""
    scratch = sizes.block_rows * _width(sizes, sizes.side[1]) * sizes.itemsize * (3 if sizes.indicators else 1)
    parts = {"blocks in flight": block_bytes(sizes), "scratch": scratch}
    if sizes.threads > 1:  # as `Threads.later` has it: a block, its residuals and scratch, and the sum that they go to
        block = min(sizes.block_entries, sizes.entries) * (4 + 2 * sizes.itemsize)
        sums = _partial(sizes) if sizes.sides == "columns" and sizes.sums > 1 else 0
        parts["left to threads"] = block + scratch + sums
    return parts


def _pieces(sizes: Sizes) -> int:
    """What the row solves append where features cross: as wide as the features that rows are solved with."""
    wide = (sizes.rank + sizes.side[1]) * (2 if sizes.indicators else 1) + 1
    return sizes.rows * wide * sizes.itemsize


def _joined(sizes: Sizes) -> Parts:
    """The update of what crosses: it is turned in its place, unless the width changes."""
    factor = sizes.rows * (sizes.rank + sizes.side[0]) * sizes.itemsize if sizes.uneven and sizes.margins else 0
    companion = sizes.rows * sizes.rank * sizes.itemsize if sizes.indicators else 0
    beside = 2 * sizes.rows * sizes.side[0] * sizes.itemsize
    tile = 2 * TALL * (sizes.rank + sizes.side[1]) * sizes.itemsize if sizes.power != 0.5 or sizes.margins else 0
    return {"solved rows": _pieces(sizes), "next factor": factor + companion + beside + tile}


def whole_power(sizes: Sizes) -> bool:
    """Whether 2α is whole: the AGOP's power then needs no root."""
    return float(2 * sizes.power).is_integer()


def _dense_moments(sizes: Sizes) -> Iterator[tuple[str, Parts]]:
    n, item = sizes.columns, sizes.itemsize
    ours = {"features": (2 + sizes.held) * features_bytes(sizes)}
    solves = {"solves": sizes.threads * (sizes.longest**2 * item + TILE_BYTES), "blocks in flight": block_bytes(sizes)}
    if sizes.sides == "both":
        yield from _dense_crossing(sizes, ours, solves)
        return
    slab = sizes.block_rows * n * item if sizes.form == "product" else 0
    yield "rows", ours | solves | {"sums": sizes.sums * n * n * 8, "slab": slab}
    # A square and its panels, and beyond it the product of both.
    powers = 0.0 if sizes.power == 0.5 else 1.75 if sizes.power == 1 else 2.75  # of (n, n) features
    powers = powers if whole_power(sizes) else ROOT_ARRAYS * 8 / item
    update = n * n * (8 + item) + int(powers * n * n * item)
    if sizes.form == "gram":  # four arrays around the sums, gone before the next features come
        update += n * n * (4 * 8 - item)
    yield "update", ours | {"slab": slab, "sums and next features": update + sizes.threads * n * PANEL_BYTES}


def _dense_crossing(sizes: Sizes, ours: Parts, solves: Parts) -> Iterator[tuple[str, Parts]]:
    m, n, item = sizes.rows, sizes.columns, sizes.itemsize
    rows = m * n * item
    other = {"features of the other side": m * m * item}
    powers = 0 if sizes.power == 0.5 else 2 if whole_power(sizes) else ROOT_ARRAYS * 8 // item
    yield "rows", ours | solves | {"solved rows": rows}
    yield "rows, joined", ours | {"solved rows": 2 * rows, "products": (2 + powers) * m * m * item}
    solves = solves | {"blocks in flight": block_bytes(sizes.across)}
    yield "columns", ours | solves | other | {"solved rows": rows}
    yield "columns, joined", ours | other | {"solved rows": 2 * rows, "products": (2 + powers) * n * n * item}


# ---- on a cluster -----------------------------------------------------------------------------------------------


def worker_memory(sizes: Sizes, threads: int, base: int = FRESH_WORKER) -> Memory:
    """Foresee the peak of a worker: it may hold all of a sum, and works on as many groups as it has threads.

    ``base`` is what it holds with the libraries and kernels loaded.
    """
    always = {"Python and libraries": base, **_worker_tables(sizes)}
    kept = {"kept blocks": sizes.kept_rows + sizes.kept_columns}
    one = replace(sizes, threads=1)
    moments = [("start", _worker_start(one, threads))]
    moments += [(name, kept | parts) for name, parts in _worker_moments(one, threads)]
    found = []
    for name, parts in moments:
        heap = HEAP + int(HEAP_SHARE * sum(parts.values()))
        found.append(Memory(name, always | parts | {"heap": heap}))
    return max(found, key=lambda memory: memory.total)


def _worker_tables(sizes: Sizes) -> Parts:
    """What each worker is sent: offsets, for each side its own. Of the pointers it reads what its groups need."""
    both = 2 if sizes.sides == "both" else 1
    chunks = both * (8 + 5 + sizes.stored) * min(sizes.entries, CHUNK)
    margins = _tables(sizes)["side columns"]
    return {"offsets": 8 * both * (sizes.rows + sizes.columns), "side columns": margins, "chunks held": chunks}


def _worker_start(sizes: Sizes, threads: int) -> Parts:
    """The passes of the start: as many groups at once as it has threads."""
    parts = starting(sizes)
    return {name: threads * size for name, size in parts.items()}


def _worker_moments(sizes: Sizes, threads: int) -> Iterator[tuple[str, Parts]]:
    ours = {"features": 2 * features_bytes(sizes)}
    work = {name: threads * size for name, size in _at_work(sizes).items()}
    if sizes.sides == "columns":
        yield "rows", ours | work | {"sums": (threads + 2 + sizes.sums) * _partial(sizes)}
        return
    if sizes.features == "dense":
        yield "rows", ours | work | {"solved rows": 2 * sizes.rows * sizes.columns * sizes.itemsize}
        return
    solved, across = _pieces(sizes), _pieces(sizes.across)  # of these messages hold no copy
    group = 2 * threads * min(solved, solved * sizes.group_rows // max(sizes.rows, 1))
    yield "rows", ours | work | {"solved rows": group + (2 * solved if solved < FILED_BYTES else 0)}
    other = {"features of the other side": features_bytes(sizes.across)}
    if sizes.stripe:
        other = {name: threads * size for name, size in _stripes(sizes).items()}
    work = {name: threads * size for name, size in _at_work(sizes.across).items()}
    yield "columns", ours | other | work | {"solved rows": across}


def client_memory(sizes: Sizes, base: int = FRESH) -> Memory:
    """Foresee the peak of the process whose workers do the work: it prepares, updates features, and saves."""
    always = {"Python and libraries": base + LOADED_LATER, **_tables(sizes)}
    at_work = {"blocks in flight", "scratch", "left to threads", "kept blocks", "solves", "slab"}  # on the workers
    # What workers sent lies in messages that go only as a whole: no piece before the last.
    sums = 3 if 2 * _partial(sizes) <= SUMMED_HERE else 1  # two, and what is added of them
    here = replace(sizes, sums=sums, kept_rows=0, kept_columns=0, block_rows=1)
    moments = [*_moments(here), ("saving", saving(sizes))]
    left = [(name, {part: size for part, size in parts.items() if part not in at_work}) for name, parts in moments]
    return max((Memory(name, always | parts) for name, parts in left), key=lambda memory: memory.total)
