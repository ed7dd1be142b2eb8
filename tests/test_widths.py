"""Widths of indices: rows and columns about 2**31 and beyond, entries about 2**32, none of which is ever written.

Stores of such sizes are hollow: ids and all entries but the last are left out, and must not be read.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from rfmdist.observations import layout, writer
from rfmdist.observations.blocks import Role, RowBlock
from rfmdist.observations.convert import _joined, as_csr, as_sparse
from rfmdist.observations.draws import STRETCH, HoldOut, entry_hash, uniforms
from rfmdist.observations.frames import read_ids
from rfmdist.observations.ids import check_ids
from rfmdist.observations.ingest import combined, ingest
from rfmdist.observations.layout import SHARD, create_array, create_root, index_dtype, write_array, write_ids
from rfmdist.observations.sources import read_sources
from rfmdist.observations.split import _by_range
from rfmdist.observations.staging import Batch, Stage
from rfmdist.observations.store import Observations
from rfmdist.observations.writer import DuplicateEntryError, StoreWriter

NARROW, WIDE = 1 << 31, 1 << 32
"""Codes from here on do not fit int32; numbers from here on do not fit uint32."""


@pytest.fixture
def hollow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the ids of stores unwritten: 2**31 of them take 17 GB."""

    def write(root: zarr.Group, name: str, ids: Any) -> None:
        create_array(root.create_group(name), "_index", len(ids), np.dtype(np.int64), -1)

    monkeypatch.setattr(writer, "write_ids", write)


@pytest.mark.parametrize(("size", "dtype"), [(NARROW - 1, np.int32), (NARROW, np.int64), (WIDE, np.int64)])
def test_codes_are_as_wide_as_their_number_asks(size: int, dtype: Any) -> None:
    """Codes are int32 up to 2**31 - 1 of them, then int64; -1 and the last code fit."""
    assert index_dtype(size) == dtype
    assert size - 1 <= np.iinfo(index_dtype(size)).max


# ---- columns --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hollow")
@pytest.mark.parametrize("columns", [NARROW - 1, NARROW, NARROW + 5, WIDE + 5])
def test_columns_at_the_border(tmp_path: Path, columns: int) -> None:
    """A store keeps its last columns, whichever width their codes need, in all the ways it is read."""
    places = np.array([0, columns - 1, columns - 2, columns - 1, 1])
    values = np.arange(1.0, 6.0, dtype=np.float32)
    matrix = sp.coo_array((values, (np.array([0, 0, 1, 2, 2]), places)), shape=(3, columns))
    Observations.from_scipy(matrix, tmp_path / "s")
    observations = Observations.open(tmp_path / "s")
    assert observations.shape == (3, columns)
    block = observations.row_block(0, 3)
    assert block.indices.dtype == index_dtype(columns)
    assert block.indices.tolist() == [0, columns - 1, columns - 2, 1, columns - 1]
    assert (abs(observations.to_scipy() - matrix.tocsr())).max() == 0
    assert as_csr(block, columns).tocoo().coords[1].tolist() == block.indices.tolist()
    lazy = observations.to_dask().compute()
    assert lazy.shape == (3, columns)
    assert (
        lazy.coords.tolist()
        == as_sparse(block, columns).coords.tolist()
        == [block.rows.tolist(), block.indices.tolist()]
    )
    observations.store_split([np.array([0, 2, 0, 1, 0], np.uint8)])
    assert observations.row_block(0, 3, "test").indices.tolist() == [columns - 1]
    held = observations.hold_out(0.5, seed=1)
    drawn = entry_hash(1, block.rows, block.indices) < np.uint64(1 << 63)
    assert np.array_equal(held.roles(block) == Role.VALIDATION, drawn & [1, 0, 1, 0, 1] | [0, 0, 0, 1, 0])


@pytest.mark.usefixtures("hollow")
def test_wide_columns_are_checked() -> None:
    """Repeated and misplaced entries are told beyond 2**31 as anywhere."""
    last = np.array([NARROW + 4])
    with StoreWriter(None, (2, NARROW + 5), np.float32) as target:
        target.append(np.array([0]), last, np.ones(1))
        with pytest.raises(DuplicateEntryError, match=f"column code {NARROW + 4} is given twice"):
            target.append(np.array([0]), last, np.ones(1))
        with pytest.raises(ValueError, match=rf"column code {NARROW + 5} is outside 0\.\.{NARROW + 4}"):
            target.append(np.array([1]), last + 1, np.ones(1))


def test_blocks_side_by_side_beyond_int32() -> None:
    """Blocks of a dask array whose columns lie beyond 2**31 are joined at their places."""
    part = sp.coo_array(([1.0], ([0], [NARROW - 2])), shape=(1, NARROW - 1))
    rows, columns, values = _joined([part, part, part], (NARROW - 1,) * 3)
    assert rows.tolist() == [0, 0, 0]
    assert columns.tolist() == [k * (NARROW - 1) + NARROW - 2 for k in range(3)]
    assert values.tolist() == [1.0] * 3


# ---- rows -----------------------------------------------------------------------------------------------


def test_rows_beyond_int32_are_counted(tmp_path: Path) -> None:
    """A writer counts entries of the rows about 2**31; its counts, of 17 GB, lie in a sparse file here."""
    with StoreWriter(None, (3, 3), np.float32) as target:
        target._shape = (NARROW + 5, 3)
        target._indptr = np.memmap(tmp_path / "counts", np.int64, "w+", shape=(NARROW + 6,))
        rows = np.array([NARROW - 2, NARROW - 1, NARROW - 1, NARROW, NARROW + 4])
        target.append(rows, np.array([2, 0, 1, 0, 2]), np.ones(5))
        assert target._indptr[NARROW - 2 :].tolist() == [0, 1, 2, 1, 0, 0, 0, 1]
        with pytest.raises(ValueError, match=f"row code {NARROW + 5} is outside"):
            target.append(np.array([NARROW + 5]), np.array([0]), np.ones(1))


def test_a_block_of_rows_beyond_int32() -> None:
    """A row block at 2**31 tells its rows, and a draw tells them from those 2**32 before."""
    block = RowBlock(NARROW - 1, NARROW + 2, np.array([0, 1, 1, 3]), np.array([1, 0, 2], np.int32), np.ones(3))
    assert block.rows.tolist() == [NARROW - 1, NARROW + 1, NARROW + 1]
    assert as_csr(block, 3).toarray().tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert as_sparse(block, 3).coords.tolist() == [[0, 2, 2], [1, 0, 2]]
    places, columns = np.arange(1001), np.zeros(1000, np.int32)
    for far in (NARROW, WIDE):
        blocks = (RowBlock(first, first + 1000, places, columns, np.ones(1000)) for first in (0, far))
        near, other = (HoldOut(0.5, 0).apply(np.zeros(1000, np.uint8), block) for block in blocks)
        assert 300 < np.count_nonzero(near != other) < 700


@pytest.mark.parametrize("first", [NARROW - 2, WIDE - 2])
def test_the_sorted_stream_beyond_int32(first: int) -> None:
    """Repeated entries are combined, and the stream cut by rows, beyond 2**31 and 2**32."""
    rows, columns = first + np.array([0, 1, 1, 3, 3]), first + np.array([5, 0, 0, 1, 9])
    batch = Batch(rows, columns, np.arange(5.0), WIDE + np.arange(5))
    once = list(combined([batch[:2], batch[2:]], "sum"))
    assert np.concatenate([piece.rows for piece in once]).tolist() == rows[[0, 1, 3, 4]].tolist()
    assert np.concatenate([piece.values for piece in once]).tolist() == [0, 3, 3, 4]
    cut = list(_by_range(iter([batch]), [(first, first + 2), (first + 2, first + 4)]))
    assert [piece.rows.tolist() for piece in cut] == [rows[:3].tolist(), rows[3:].tolist()]


# ---- codes and ids --------------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [0, NARROW - 3, NARROW, WIDE])
def test_codes_out_of_the_sort(far: int) -> None:
    """Codes come out of DuckDB whole, sorted, and no wider than they need be; unknown ids as -1."""
    frame = pd.DataFrame({"row": [5, 3, 9, 7], "column": [8, 8, 8, 6], "value": [1.0, 2, 3, 4]})
    with Stage(None) as stage:
        for table in read_sources(frame):
            stage.add(table)
        stage.use_codes("row", pd.Index([3, 5, 7]))
        stage.use_codes("column", pd.Index([6, 8]))
        for part, count in (("row", 3), ("column", 2)):  # as if so many ids came before
            stage._connection.execute(f"update {part}_codes set code = code + {far}")
            stage._sizes[part] = count + far
        (batch,) = stage.batches()
    assert batch.rows.tolist() == [-1, far, far + 1, far + 2]
    assert batch.columns.tolist() == [far + 1, far + 1, far + 1, far]
    assert batch.rows.dtype == index_dtype(far + 3)
    assert batch.columns.dtype == index_dtype(far + 2)


def test_large_ids(tmp_path: Path) -> None:
    """Ids up to the largest of int64 stay integers, and larger ones become text."""
    ids = [-(1 << 63) + 1, -1, NARROW - 1, NARROW, WIDE, (1 << 63) - 1]
    frame = pd.DataFrame({"row": ids, "column": ids, "value": 1.0})
    observations = ingest(frame, tmp_path / "s")
    assert observations.row_ids.tolist() == observations.column_ids.tolist() == ids
    assert observations.row_codes(ids).tolist() == list(range(6))
    (tmp_path / "t.csv").write_text(f"{1 << 63},1,1\n1,1,1\n")
    assert ingest(tmp_path / "t.csv").row_ids.tolist() == ["1", str(1 << 63)]


class Long:
    """A range that tells the longest part of it that was ever in memory."""

    dtype = np.dtype(np.int64)

    def __init__(self, size: int) -> None:
        self.size, self.longest = size, 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> Any:
        found = np.arange(*part.indices(self.size))
        self.longest = max(self.longest, len(found))
        return found


def test_ids_are_written_by_shards() -> None:
    """Ids that are positions are a range, which is written a shard at a time and read as it was."""
    assert isinstance(check_ids(None, WIDE, "row_ids"), pd.RangeIndex)
    root, ids = create_root(zarr.storage.MemoryStore(), (1, 1)), Long(2 * SHARD + 3)
    write_ids(root, "obs", ids)  # type: ignore[arg-type]
    assert ids.longest == SHARD
    assert np.array_equal(read_ids(root, "here", "obs"), np.arange(2 * SHARD + 3))


# ---- entries --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hollow")
@pytest.mark.parametrize("before", [NARROW - 2, WIDE - 2, WIDE + 7])
def test_entries_at_the_border(tmp_path: Path, before: int) -> None:
    """Entries about 2**32 are written and found at their places, after a first row of as many that is not there."""
    with StoreWriter(tmp_path / "s", (4, 9), np.float32, entries=before + 4) as target:
        target._written, target._indptr[1], target._last = before, before, (0, 8)
        target.append(np.array([1, 1, 1, 3]), np.array([0, 4, 8, 5]), np.array([1.0, 2, 3, 4]))
        target.finish(np.arange(4), np.arange(9))
    observations = Observations.open(tmp_path / "s")
    assert observations.nnz == before + 4
    assert observations.indptr.tolist() == [0, before, before + 3, before + 3, before + 4]
    assert observations.ranges() == [(0, 1), (1, 4)]
    assert observations.ranges(within=(1, 4), entries=3) == [(1, 3), (3, 4)]
    block = observations.row_block(1, 4)
    assert block.indptr.tolist() == [0, 3, 3, 4]
    assert block.indices.tolist() == [0, 4, 8, 5]
    assert block.values.tolist() == [1, 2, 3, 4]
    assert observations.row_block(3, 4).values.tolist() == [4]
    assert observations.hold_out(0.5, seed=0).roles(block).shape == (4,)


@pytest.mark.parametrize("entries", [0, 63, 64, 65, 128, 129])
def test_entries_about_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    """A store whose last shard is full, or holds one entry, is read back bit for bit."""
    for module in (writer, layout):
        monkeypatch.setattr(module, "SHARD", 64)
    monkeypatch.setattr(layout, "CHUNK", 16)
    matrix = sp.coo_array((np.arange(entries) + 1.0, divmod(np.arange(entries), 10)), shape=(14, 10))
    Observations.from_scipy(matrix, tmp_path / "s")
    assert np.array_equal(Observations.open(tmp_path / "s").to_scipy().toarray(), matrix.toarray())


def test_roles_at_the_border(tmp_path: Path) -> None:
    """Roles that lie beyond 2**32 are read with their entries."""
    with StoreWriter(tmp_path / "s", (3, 9), np.float32, entries=WIDE + 2) as target:
        target._written, target._indptr[1], target._last = WIDE - 1, WIDE - 1, (0, 8)
        target.append(np.array([1, 1, 2]), np.array([0, 4, 5]), np.array([1.0, 2, 3]))
        root = target.finish(np.arange(3), np.arange(9))
    matrix: Any = root["X"]
    split = create_array(matrix, "split", WIDE + 2, np.dtype(np.uint8), 255)
    write_array(split, np.array([2, 0, 1], np.uint8), WIDE - 1)
    observations = Observations.open(tmp_path / "s")
    assert observations.row_block(1, 3, "test").values.tolist() == [1]
    assert observations.row_block(1, 3, ["train", "validation"]).values.tolist() == [2, 3]


def test_draws_at_the_border() -> None:
    """Draws by position beyond 2**32 are the same in whatever range they are read, and like no earlier ones."""
    drawn = uniforms(3, WIDE - STRETCH - 5, WIDE + 5)
    assert np.array_equal(uniforms(3, WIDE - 2, WIDE + 3), drawn[STRETCH + 3 : -2])
    assert not np.isin(uniforms(3, 0, STRETCH), drawn).any()


def test_places_in_the_input_at_the_border() -> None:
    """An entry that came in beyond 2**32 is named by its line in its own table."""
    tables = [SimpleNamespace(place=lambda entry, k=k: f"{k}:{entry}") for k in range(3)]
    stage = Stage(None)
    stage._tables = list(zip((0, WIDE, WIDE + 10), tables, strict=True))  # type: ignore[arg-type]
    assert [stage.place(order) for order in (WIDE - 1, WIDE, WIDE + 12)] == [f"0:{WIDE - 1}", "1:0", "2:2"]
