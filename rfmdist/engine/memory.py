"""What a fit holds in memory at its worst moment, foreseen from its sizes alone. Pure: it reads no file and no clock.

A fit is a row of stages, and each stage has moments at which most is alive. Each moment is a function of the sizes
that names what is alive, in bytes; the peak is the greatest sum. Tests hold it to real fits in fresh processes: the
measured peak is at most the one foreseen, and at least 1/1.15 of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from rfmdist.machine import OWN_PAGES

FRESH, FRESH_WORKER = 195_000_000, 200_000_000
"""Bytes of a process that has loaded Python, the libraries and the kernels; of a Dask worker beside them. Measured."""
LOADED_LATER = 12_000_000
"""Bytes of what is first used once a fit runs: threads' stacks, codecs, the rest of the kernels. Measured."""
BLOCKS_AHEAD = 1
"""Blocks that are read, decoded and standardised at once: the one that is worked on, and those read ahead."""
ENTRY_TEMPORARIES = 42
"""Bytes an entry of a block being read takes beside its stored form: positions, offsets, places. Measured."""
CHUNKS_READ = 16_000_000
"""Bytes of chunks that are decoded at once, and of their compressed form."""
START_ENTRY, START_BYTES = 52, 512_000_000
"""Bytes an entry that the passes before the first iteration hold, and at most in all."""
COPY_ENTRY, COPY_BYTES = 26, 512_000_000
"""The same of the making of the column-ordered copy: a buffer, a shard being written, a piece being turned."""
SHARD, SAVE_ENTRY, LAST_ENTRY = 1 << 22, 24, 26
"""Entries of a shard; bytes of each entry that a saving holds while shards are written, and with the last one."""
IDS_LIBRARY = 67_000_000
"""Bytes of what reads ids, which is loaded when a completion is saved, unless it was before. Measured."""
FEATURES_CHUNK = 16_000_000
"""Bytes of features that are being written."""
TEXT_ID, NUMBER_ID = 90, 24
"""Bytes of an id while a completion is saved."""
TILE_BYTES, PANEL_BYTES = 768 * 768 * 8, 512 * 8
"""Bytes a thread takes for a tile of Z'Z, and a row of a panel of a product of n × n."""

HEAP, HEAP_SHARE = 8_000_000, 0.03
"""Bytes of small arrays, and share of all, that the C library keeps after they are gone. Measured."""

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
    indicators, margins, scaled : bool
        Whether the block of indicators is fitted, counts and side columns are gathered, rows have scales.
    power : float
        α.
    longest, block_entries, block_rows : int
        Entries of the longest row; entries and rows of the largest block.
    groups : int
        Sums that are held at once (see `sums_held`).
    threads : int
        Of this process.
    drawn : bool
        Whether validation entries are drawn anew at each reading, rather than stored.
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
    indicators: bool = False
    margins: bool = False
    scaled: bool = False
    power: float = 0.5
    longest: int = 0
    block_entries: int = 1 << 20
    block_rows: int = 1 << 12
    sums: int = 1
    threads: int = 1
    drawn: bool = False
    kept_rows: int = 0
    kept_columns: int = 0
    text: bool = False
    ids_read: bool = False

    @property
    def across(self) -> Sizes:
        """The sizes of the transposed matrix, whose columns are solved in turn."""
        return replace(self, rows=self.columns, columns=self.rows, side=self.side[::-1])


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
    """One number or a few for each row and column, from the start to the end."""
    m, n = sizes.rows, sizes.columns
    pointers = 8 * (m + 1) + (8 * (n + 1) if sizes.sides == "both" else 0)
    offsets = 8 * (m + 2 * n)
    scales = 8 * m if sizes.scaled else 0
    margins = 8 * (m + n) + 4 * (m * sizes.side[0] + n * sizes.side[1]) if sizes.margins else 0
    return {"pointers": pointers, "offsets": offsets + scales, "counts and side columns": margins}


def starting(sizes: Sizes) -> Parts:
    """The passes for offsets, scales, range and counts; temporaries a row."""
    temporaries = 16 * sizes.rows + (8 * (sizes.side[0] + 2) * sizes.rows if sizes.margins else 0)
    return {"passes of the start": min(START_ENTRY * min(sizes.entries, 1 << 20), START_BYTES) + temporaries}


def copying(sizes: Sizes) -> Parts:
    """The making of the column-ordered copy."""
    return {"copy by column": min(COPY_ENTRY * sizes.entries, COPY_BYTES) + 16 * sizes.columns}


def saving(sizes: Sizes) -> Parts:
    """The writing of the completion: its entries by shards, or then the last of them beside the ids and counts."""
    ours = {"features": features_bytes(sizes), "row counts": 8 * sizes.rows}
    entry = sizes.stored - 4
    shards = {"shards": min(sizes.entries, SHARD + sizes.block_entries) * (SAVE_ENTRY + 4 * entry)}
    ids = (TEXT_ID if sizes.text else NUMBER_ID) * max(sizes.rows, sizes.columns) + 16 * sizes.rows
    last = {
        "last shard": sizes.entries % SHARD * (LAST_ENTRY + 4 * entry),
        "ids and row counts": ids + (0 if sizes.ids_read else IDS_LIBRARY),
        "features being written": min(FEATURES_CHUNK, features_bytes(sizes)),
    }
    return max((ours | shards, ours | last), key=lambda parts: sum(parts.values()))


# ---- an iteration -----------------------------------------------------------------------------------------------


def kept_need(sizes: Sizes) -> tuple[int, int]:
    """Bytes of all blocks as `Targets` keeps them, of the rows and of the columns."""
    value, pointers = max(sizes.itemsize, sizes.stored), 1 << 16
    by_row = sizes.entries * (_code(sizes.columns) + value) + 16 * sizes.rows + pointers
    by_column = sizes.entries * (_code(sizes.rows) + sizes.itemsize) + 8 * sizes.columns + pointers
    return by_row, by_column


def _code(size: int) -> int:
    """Bytes of a code below ``size``."""
    return 4 if size < 1 << 31 else 8


def _read_again(sizes: Sizes) -> bool:
    """Whether blocks are read at each iteration, since not all are kept."""
    rows, columns = kept_need(sizes)
    return sizes.kept_rows < rows or (sizes.sides == "both" and sizes.kept_columns < columns)


def block_bytes(sizes: Sizes) -> int:
    """Blocks being read, and what the solve of one takes."""
    entries = min(sizes.block_entries, sizes.entries)
    one = entries * (4 + sizes.stored + ENTRY_TEMPORARIES + (30 if sizes.drawn else 0)) + min(CHUNKS_READ, 8 * entries)
    return BLOCKS_AHEAD * one + entries * sizes.itemsize


def features_bytes(sizes: Sizes) -> int:
    """Features of the columns: P; or U, offsets, and U of the indicators."""
    if sizes.features == "dense":
        return sizes.columns**2 * sizes.itemsize
    return sizes.columns * _width(sizes, sizes.side[1]) * sizes.itemsize


def _width(sizes: Sizes, side: int) -> int:
    """Numbers a row of factored features, with ``side`` side columns, its offset among them."""
    return sizes.rank * (2 if sizes.indicators else 1) + side + 1


def _factored_moments(sizes: Sizes) -> Iterator[tuple[str, Parts]]:
    held = sizes.held * sizes.columns * (2 if sizes.indicators else 1) * sizes.itemsize
    first = {"features": features_bytes(sizes), "features of other results": held}
    later = first | {"features": 2 * features_bytes(sizes)}  # and those of the best iterate
    reading = later if _read_again(sizes) else first
    if sizes.sides == "columns":
        partial = features_bytes(sizes) + 16 * sizes.columns
        sums = {"sums": sizes.sums * partial + (features_bytes(sizes) if sizes.power > 0.5 else 0)}
        yield "columns", reading | sums | _at_work(sizes)
        yield "columns, summed", later | sums
        return
    yield "rows, joined", later | _joined(sizes)
    yield "rows", reading | {"solved rows": _pieces(sizes)} | _at_work(sizes)
    other = {"features of the other side": features_bytes(sizes.across)}
    yield "columns, joined", later | other | _joined(sizes.across)
    yield "columns", reading | other | {"solved rows": _pieces(sizes.across)} | _at_work(sizes.across)


def _at_work(sizes: Sizes) -> Parts:
    """A block in flight, and the scratch of its solves."""
    scratch = sizes.block_rows * _width(sizes, sizes.side[1]) * sizes.itemsize * (3 if sizes.indicators else 1)
    return {"blocks in flight": block_bytes(sizes), "scratch": scratch}


def _pieces(sizes: Sizes) -> int:
    """What the row solves append where features cross: as wide as the features that rows are solved with."""
    wide = (sizes.rank + sizes.side[1]) * (2 if sizes.indicators else 1) + 1
    return sizes.rows * wide * sizes.itemsize


def _joined(sizes: Sizes) -> Parts:
    """The update of what crosses: all pieces, and the factor that they are joined to.

    A piece goes once it is joined, but the C library keeps those that have no pages of their own.
    """
    factor = sizes.rows * (sizes.rank + sizes.side[0]) * sizes.itemsize
    high = min(sizes.block_rows, max(1, sizes.block_entries * sizes.rows // max(sizes.entries, 1)))
    piece = high * (sizes.rank + sizes.side[1]) * sizes.itemsize
    more = factor if sizes.power > 0.5 and not sizes.indicators else 0
    return {"solved rows": _pieces(sizes), "next factor": (piece if piece >= OWN_PAGES else factor) + more}


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
    powers = 0.0 if sizes.power == 0.5 else 1.75 if sizes.power == 1 else 2.75
    update = n * n * (8 + item) + int(powers * n * n * item)
    update += 4 * n * n * 8 if sizes.form == "gram" else 0
    yield "update", ours | {"slab": slab, "sums and next features": update + sizes.threads * n * PANEL_BYTES}


def _dense_crossing(sizes: Sizes, ours: Parts, solves: Parts) -> Iterator[tuple[str, Parts]]:
    m, n, item = sizes.rows, sizes.columns, sizes.itemsize
    rows = m * n * item
    other = {"features of the other side": m * m * item}
    powers = 2 if sizes.power > 0.5 else 0
    yield "rows", ours | solves | {"solved rows": rows}
    yield "rows, joined", ours | {"solved rows": 2 * rows, "products": (2 + powers) * m * m * item}
    yield "columns", ours | solves | other | {"solved rows": rows}
    yield "columns, joined", ours | other | {"solved rows": 2 * rows, "products": (2 + powers) * n * n * item}


# ---- on a cluster -----------------------------------------------------------------------------------------------


def worker_memory(sizes: Sizes, threads: int, base: int = FRESH_WORKER) -> Memory:
    """Foresee the peak of a worker: it may hold all of a sum, and works on as many groups as it has threads.

    ``base`` is what it holds with the libraries and kernels loaded.
    """
    kept = {"kept blocks": sizes.kept_rows + sizes.kept_columns}
    always = {"Python and libraries": base + LOADED_LATER, **_tables(sizes), **kept}
    moments = _worker_moments(replace(sizes, threads=1), threads)
    found = []
    for name, parts in moments:
        heap = 2 * HEAP + int(HEAP_SHARE * sum((kept | parts).values()))  # messages too
        found.append(Memory(name, always | parts | {"heap": heap}))
    return max(found, key=lambda memory: memory.total)


def _worker_moments(sizes: Sizes, threads: int) -> Iterator[tuple[str, Parts]]:
    ours = {"features": 2 * features_bytes(sizes)}
    work = {name: threads * size for name, size in _at_work(sizes).items()}
    if sizes.sides == "columns":
        partial = sizes.columns**2 * 8 if sizes.features == "dense" else features_bytes(sizes) + 16 * sizes.columns
        yield "rows", ours | work | {"sums": (threads + 2 + sizes.sums) * partial}
        return
    solved, across = _pieces(sizes), _pieces(sizes.across)
    if sizes.features == "dense":
        solved = across = sizes.rows * sizes.columns * sizes.itemsize
    yield "rows", ours | work | {"solved rows": 2 * solved}
    other = {"features of the other side": features_bytes(sizes.across)}
    yield "columns", ours | other | work | {"solved rows": 2 * across}


def client_memory(sizes: Sizes, base: int = FRESH) -> Memory:
    """Foresee the peak of the process whose workers do the work: it prepares, updates features, and saves."""
    always = {"Python and libraries": base + LOADED_LATER, **_tables(sizes)}
    at_work = {"blocks in flight", "scratch", "kept blocks", "solves", "slab"}  # on the workers
    # What workers sent lies in messages that go only as a whole: no piece before the last.
    here = replace(sizes, sums=1, kept_rows=0, kept_columns=0, block_rows=1)
    moments = [*_moments(here), ("saving", saving(sizes))]
    left = [(name, {part: size for part, size in parts.items() if part not in at_work}) for name, parts in moments]
    return max((Memory(name, always | parts) for name, parts in left), key=lambda memory: memory.total)
