"""The store of observations: what goes in comes out, in any block, and damage or a full disk is told."""

from __future__ import annotations

import errno
import json
import pickle
from pathlib import Path
from typing import Any

import anndata
import dask.array as da
import faults
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sparse
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore

from rfmdist.errors import InputError, RfmdistError, StoreError
from rfmdist.observations import writer
from rfmdist.observations.blocks import Offsets
from rfmdist.observations.digests import with_digest
from rfmdist.observations.store import Observations
from rfmdist.observations.writer import StoreWriter


def random_matrix(rng: np.random.Generator, shape: tuple[int, int] = (30, 20), density: float = 0.2) -> sp.csr_array:
    """Give a matrix whose stored values are never zero."""
    matrix = sp.random_array(shape, density=density, rng=rng, format="csr", data_sampler=rng.standard_normal)
    matrix.sort_indices()
    return matrix


def same(found: sp.csr_array, wanted: Any) -> bool:
    """Whether two matrices have the same stored entries."""
    wanted = sp.csr_array(wanted)
    wanted.sort_indices()
    return (
        found.shape == wanted.shape
        and np.array_equal(found.indptr, wanted.indptr)
        and np.array_equal(found.indices, wanted.indices)
        and np.array_equal(found.data, wanted.data)
    )


@pytest.fixture
def matrix(rng: np.random.Generator) -> sp.csr_array:
    """Give a random matrix of 30 x 20."""
    return random_matrix(rng)


@pytest.fixture
def store(matrix: sp.csr_array, tmp_path: Path) -> Path:
    """Give the path of a store of the matrix with a split."""
    path = tmp_path / "store.zarr"
    Observations.from_scipy(matrix, path).store_split([np.arange(matrix.nnz, dtype=np.uint8) % 3])
    return path


# ---- round trips ----------------------------------------------------------------------------------------


@st.composite
def matrices(draw: st.DrawFn) -> sp.coo_array:
    """Draw small matrices with distinct entries, zeros and empty rows among them."""
    m, n = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    places = draw(st.lists(st.integers(0, m * n - 1), unique=True, max_size=m * n))
    dtype, width = draw(st.sampled_from([(np.float32, 32), (np.float64, 64)]))
    number = st.floats(allow_nan=False, allow_infinity=False, width=width)
    values = draw(st.lists(number, min_size=len(places), max_size=len(places)))
    rows, columns = np.divmod(np.array(places, np.int64), n)
    return sp.coo_array((np.array(values, dtype), (rows, columns)), shape=(m, n))


@settings(deadline=None, max_examples=40)
@given(matrix=matrices(), blocks=st.integers(1, 5))
def test_what_goes_in_comes_out(matrix: sp.coo_array, blocks: int) -> None:
    """Any matrix is read back bit for bit, whole and by any blocks, zeros and empty rows included."""
    observations = Observations.from_scipy(matrix)
    assert observations.dtype == matrix.dtype
    assert observations.nnz == matrix.nnz
    assert same(observations.to_scipy(), matrix)
    parts = [observations.row_block(*r) for r in observations.ranges(entries=blocks, rows=blocks)]
    assert [p.start for p in parts[1:]] == [p.stop for p in parts[:-1]]
    assert np.array_equal(np.concatenate([p.values for p in parts]), sp.csr_array(matrix).sorted_indices().data)


def test_many_shards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rng: np.random.Generator) -> None:
    """A store of several shards, the last one cut short, is read back bit for bit."""
    for module in (
        "rfmdist.observations.writer",
        "rfmdist.observations.layout",
        "rfmdist.observations.store",
    ):
        monkeypatch.setattr(f"{module}.SHARD", 64)
    monkeypatch.setattr("rfmdist.observations.layout.CHUNK", 16)
    matrix = random_matrix(rng, (50, 40))
    observations = Observations.from_scipy(matrix, tmp_path / "s")
    assert len(faults.shards(tmp_path / "s", "X/data")) == -(-matrix.nnz // 64)
    assert same(Observations.open(tmp_path / "s").to_scipy(), matrix)
    assert same(observations.to_scipy(), matrix)


@pytest.mark.parametrize("ids", [[30, 10, 20], ["a", "ü", "7"], np.array(["x", "y", "z"])])
def test_ids(tmp_path: Path, ids: Any) -> None:
    """Ids of integers or text are kept, and found by id; an unknown one has code -1."""
    Observations.from_scipy(sp.eye_array(3), tmp_path / "s", row_ids=ids, column_ids=ids)
    observations = Observations.open(tmp_path / "s")
    assert list(observations.row_ids) == list(ids)
    assert list(observations.row_codes(ids)) == [0, 1, 2]
    assert list(observations.column_codes([ids[1], "unknown"])) == [1, -1]


BIG = 1 << 60


@pytest.mark.parametrize(
    ("ids", "codes"),
    [
        ([BIG, 1 << 63], [1, -1]),
        ([BIG + 1, None, 5], [2, -1, 0]),
        (pd.Series([BIG, BIG + 1, None]), [-1, -1, -1]),
        (np.array([5.0, 5.5, np.nan, np.inf]), [0, -1, -1, -1]),
        (np.array([BIG, 1 << 63], np.uint64), [1, -1]),
        (pd.Series([5, None], dtype="Int64"), [0, -1]),
        (["5", str(BIG + 1), "nan"], [0, 2, -1]),
    ],
)
@pytest.mark.parametrize("text", [False, True])
def test_no_id_is_taken_for_another(ids: Any, codes: list[int], text: bool) -> None:
    """Large integers are not rounded to others, and what is no whole number, or too large a float, is unknown."""
    known = [5, BIG, BIG + 1]
    observations = Observations.from_scipy(sp.eye_array(3), row_ids=list(map(str, known)) if text else known)
    assert list(observations.row_codes(ids)) == codes


def test_ids_beyond_int64_become_text(tmp_path: Path) -> None:
    """Unsigned integers that int64 cannot hold are kept as text, as in ingestion, and not as negative numbers."""
    ids = np.array([1, 1 << 63, (1 << 64) - 1], np.uint64)
    Observations.from_scipy(sp.eye_array(3), tmp_path / "s", row_ids=ids)
    observations = Observations.open(tmp_path / "s")
    assert list(observations.row_ids) == [str(identifier) for identifier in ids]
    assert list(observations.row_codes(ids)) == [0, 1, 2]
    with pytest.raises(InputError, match="larger than int64"), StoreWriter(None, (3, 3), np.float32) as target:
        target.finish(ids, np.arange(3))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "scipy sparse matrix or array, not ndarray: zeros of a dense array are not told from unobserved"),
        ([[1.0]], "not list"),
        (pd.DataFrame(np.eye(3)), "not DataFrame"),
        (None, "not NoneType"),
        ("ratings.csv", "not str"),
        (sp.coo_array([1.0, 0.0]), "not coo_array of 1 dimensions"),
        (sp.eye_array(3, dtype=complex), "real numbers, not complex128"),
    ],
)
def test_what_is_no_sparse_matrix_is_refused(matrix: Any, message: str) -> None:
    """Dense arrays, where zeros would be taken for unobserved, other objects and other numbers are refused."""
    with pytest.raises(InputError, match=message):
        Observations.from_scipy(matrix)


def test_no_rows_at_all() -> None:
    """A matrix without rows is stored and comes out with its shape."""
    observations = Observations.from_scipy(sp.coo_array((0, 5)))
    assert observations.to_dask().compute().shape == (0, 5)
    assert observations.to_scipy().shape == (0, 5)


def test_values_other_than_floats(tmp_path: Path) -> None:
    """Integers are stored as float64, float32 stays float32."""
    assert Observations.from_scipy(sp.eye_array(3, dtype=int)).dtype == np.float64
    assert Observations.from_scipy(sp.eye_array(3, dtype=np.float32)).dtype == np.float32


@pytest.mark.parametrize("kind", ["sparse", "scipy"])
@pytest.mark.parametrize("chunks", [(7, 20), (7, 6)])
def test_from_dask_and_back(matrix: sp.csr_array, kind: str, chunks: tuple[int, int], tmp_path: Path) -> None:
    """A dask array of sparse or scipy blocks is stored, however it is cut, and comes out again lazily."""
    dense = da.from_array(matrix.toarray(), chunks=chunks)
    blocks = dense.map_blocks(sparse.COO.from_numpy if kind == "sparse" else sp.csr_array, dtype=dense.dtype)
    observations = Observations.from_dask(blocks, tmp_path / "s")
    assert same(observations.to_scipy(), matrix)
    lazy = observations.to_dask()
    assert lazy.shape == matrix.shape
    assert np.array_equal(lazy.compute().todense(), matrix.toarray())


def test_to_dask_by_role(matrix: sp.csr_array, store: Path) -> None:
    """Only the entries of the roles asked for come out, and together they are all."""
    observations = Observations.open(store)
    parts = [observations.to_dask(role).compute().todense() for role in ("train", "validation", "test")]
    assert np.array_equal(sum(parts), matrix.toarray())
    assert observations.role_counts()["test"] == np.count_nonzero(parts[2])


def test_pickling_sends_the_path(matrix: sp.csr_array, store: Path) -> None:
    """Observations on disk travel to a worker as a path, held-out part included."""
    observations = Observations.open(store).hold_out(0.3, seed=1)
    sent = pickle.dumps(observations)
    assert len(sent) < 5000
    assert pickle.loads(sent).role_counts() == observations.role_counts()


# ---- other programs -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Transforming to str index")
def test_anndata_opens_the_store(matrix: sp.csr_array, tmp_path: Path) -> None:
    """AnnData reads the whole store and X alone, with split and offsets in it."""
    path = tmp_path / "s"
    observations = Observations.from_scipy(matrix, path, row_ids=[f"r{k}" for k in range(30)])
    observations.store_split([np.zeros(matrix.nnz, np.uint8)])
    whole = anndata.read_zarr(path)
    assert same(sp.csr_array(whole.X), matrix)
    assert list(whole.obs_names[:2]) == ["r0", "r1"]
    assert same(sp.csr_array(anndata.io.read_elem(zarr.open_group(path, mode="r")["X"])), matrix)


def test_a_row_block_reads_only_its_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Reading a few rows touches the shards they lie in and no others."""
    for module in (
        "rfmdist.observations.writer",
        "rfmdist.observations.layout",
        "rfmdist.observations.store",
    ):
        monkeypatch.setattr(f"{module}.SHARD", 64)
    matrix = random_matrix(rng, (50, 40))
    Observations.from_scipy(matrix, tmp_path / "s")
    observations = Observations.open(tmp_path / "s")
    touched = set()
    read = LocalStore.get

    async def watched(self: LocalStore, key: str, *args: Any, **options: Any) -> Any:
        touched.add(key)
        return await read(self, key, *args, **options)

    monkeypatch.setattr(LocalStore, "get", watched)
    block = observations.row_block(20, 22)
    low, high = observations.indptr[20], observations.indptr[22]
    wanted = {f"X/data/c/{k}" for k in range(int(low) // 64, -(-int(high) // 64))}
    assert {key for key in touched if "X/data/c" in key} == wanted
    assert np.array_equal(block.values, matrix[20:22].data)


# ---- damage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("array", ["X/data", "X/indices", "X/split"])
@pytest.mark.parametrize("how", ["flipped", "missing", "truncated", "emptied"])
def test_a_damaged_shard_is_told(store: Path, array: str, how: str) -> None:
    """A flipped byte, a lost or a cut shard never gives numbers, but one sentence with the store's name."""
    shard = faults.shards(store, array)[0]
    if how == "flipped":
        faults.flip_byte(shard)
    elif how == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[: 0 if how == "emptied" else 40])
    with pytest.raises(StoreError, match=r"store\.zarr.*(damaged|missing)") as told:
        Observations.open(store).to_scipy("train")
    assert "\n" not in str(told.value)


def read_ids(store: Path) -> list[Any]:
    """Open a store and read all it knows of rows and columns."""
    observations = Observations.open(store)
    return [observations.indptr, observations.row_ids, observations.column_ids]


@pytest.mark.parametrize("array", ["X/indptr", "obs/_index", "var/_index"])
@pytest.mark.parametrize("how", ["flipped", "missing", "array gone"])
def test_damaged_ids_and_pointers_are_told(store: Path, array: str, how: str) -> None:
    """Damage of row pointers or ids is told when they are read, in one sentence."""
    if how == "array gone":
        for file in (store / array).rglob("*"):
            if file.is_file():
                file.unlink()
    elif how == "missing":
        faults.shards(store, array)[0].unlink()
    else:
        faults.flip_byte(faults.shards(store, array)[0])
    with pytest.raises(StoreError) as told:
        read_ids(store)
    assert "\n" not in str(told.value)


def test_text_ids_damaged(tmp_path: Path) -> None:
    """A lost chunk of text ids is told, not read as empty ids."""
    ids = ["a", "b", "c"]
    Observations.from_scipy(sp.eye_array(3), tmp_path / "s", row_ids=ids, column_ids=ids)
    faults.shards(tmp_path / "s", "obs/_index")[0].unlink()
    with pytest.raises(StoreError, match="obs"):
        _ = Observations.open(tmp_path / "s").row_ids


def test_another_version_is_refused(store: Path) -> None:
    """A store of another version is refused with both numbers."""
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["rfmdist"]["format"] = 999
    (store / "zarr.json").write_bytes(with_digest(json.dumps(root).encode()))
    with pytest.raises(StoreError, match=r"version 999.*reads version 1"):
        Observations.open(store)


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty folder", "another zarr", "no metadata"])
def test_what_is_no_store_is_refused(tmp_path: Path, what: str) -> None:
    """A path that holds no store of ours is refused in one sentence that names it."""
    path = tmp_path / "thing"
    if what == "a file":
        path.write_text("no store")
    elif what == "an empty folder":
        path.mkdir()
    elif what == "another zarr":
        zarr.create_group(path)
    elif what == "no metadata":
        Observations.from_scipy(sp.eye_array(3), path)
        (path / "zarr.json").unlink()
    with pytest.raises(StoreError, match="thing") as told:
        Observations.open(path)
    assert "\n" not in str(told.value)


def test_a_torn_store_is_refused(store: Path, rng: np.random.Generator, tmp_path: Path) -> None:
    """Parts of two stores put together are refused when opened."""
    Observations.from_scipy(random_matrix(rng, (30, 20), 0.5), tmp_path / "other")
    for name in ("data", "indices"):
        writer.replace_folder(tmp_path / "other" / "X" / name, store / "X" / name)
    with pytest.raises(StoreError, match="do not fit together"):
        Observations.open(store)


# ---- refusals and full disks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (([1.0, np.nan], ([0, 1], [0, 1])), "not a finite"),
        (([1.0, np.inf], ([0, 1], [0, 1])), "not a finite"),
        (([1.0, 2.0], ([1, 1], [2, 2])), "row 1, column 2 is given twice"),
    ],
)
def test_wrong_entries_are_refused(tmp_path: Path, entries: Any, message: str) -> None:
    """NaN, infinity and repeated entries are refused, and nothing is left on disk."""
    with pytest.raises(InputError, match=message):
        Observations.from_scipy(sp.coo_array(entries, shape=(3, 3)), tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("row", "column"), [(-1, 0), (3, 0), (0, -5), (0, 1 << 40)])
def test_codes_outside_the_matrix_are_refused(row: int, column: int) -> None:
    """Negative and huge codes are refused."""
    with StoreWriter(None, (3, 3), np.float32) as target, pytest.raises(InputError, match=r"outside 0\.\.2"):
        target.append(np.array([row]), np.array([column]), np.ones(1))


@pytest.mark.parametrize("ids", [[1, 2], [1, 1, 2], [0.5, 1, 2], np.array([0.5, 1, 2]), ["a", None, "b"]])
def test_wrong_ids_are_refused(ids: Any) -> None:
    """Too few ids, repeated ids, fractions and missing ids are refused."""
    with pytest.raises(InputError, match="row_ids"):
        Observations.from_scipy(sp.eye_array(3), row_ids=ids)


def test_existing_stores_are_kept(store: Path) -> None:
    """A second store of the same name is refused unless it may replace the first."""
    before = faults.snapshot(store)
    with pytest.raises(InputError, match="exists already"):
        Observations.from_scipy(sp.eye_array(3), store)
    assert faults.snapshot(store) == before
    Observations.from_scipy(sp.eye_array(3), store, overwrite=True)
    assert Observations.open(store).nnz == 3


@pytest.mark.parametrize("part", ["X/data", "X/indices", "X/indptr", "obs", "var", "zarr.json"])
def test_full_disk_while_writing(monkeypatch: pytest.MonkeyPatch, store: Path, part: str) -> None:
    """Whichever part does not fit, one sentence says so, the old store stands and nothing else is left."""
    before = faults.snapshot(store.parent)
    refused = faults.fill_disk_at(monkeypatch, part)
    with pytest.raises(StoreError, match="disk is full"):
        Observations.from_scipy(sp.eye_array(3), store, overwrite=True)
    assert refused
    assert faults.snapshot(store.parent) == before


@pytest.mark.parametrize("part", ["split", "zarr.json"])
def test_full_disk_while_splitting(monkeypatch: pytest.MonkeyPatch, store: Path, part: str) -> None:
    """A split that does not fit leaves the earlier one."""
    observations, before = Observations.open(store), faults.snapshot(store)
    faults.fill_disk_at(monkeypatch, part)
    with pytest.raises(StoreError, match="disk is full"):
        observations.store_split([np.zeros(observations.nnz, np.uint8)])
    assert faults.snapshot(store) == before


def test_a_really_full_disk(tmp_path: Path, rng: np.random.Generator) -> None:
    """On a disk that is truly too small the same sentence comes, and the disk is as it was."""
    matrix = random_matrix(rng, (800, 800), 0.5)
    with faults.tiny_disk(tmp_path / "disk", "1m") as disk:
        Observations.from_scipy(sp.eye_array(3), disk / "small")
        before = faults.snapshot(disk)
        with pytest.raises(StoreError, match="disk is full"):
            Observations.from_scipy(matrix, disk / "large")
        assert faults.snapshot(disk) == before
        assert [path.name for path in disk.iterdir()] == ["small"]


def test_a_wrong_split_is_refused(store: Path) -> None:
    """A split that does not cover all entries is refused and the earlier one kept."""
    before = faults.snapshot(store)
    with pytest.raises(InputError, match="does not fit"):
        Observations.open(store).store_split([np.zeros(2, np.uint8)])
    assert faults.snapshot(store) == before


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([[3] * 2], "roles are 0"),
        ([[300] * 2], "roles are 0"),
        ([[-1] * 2], "roles are 0"),
        ([[0] * 500], "split of 500"),
        ([[0] * 100, [0] * 100], "split of 200"),
    ],
)
def test_wrong_roles_are_refused(store: Path, pieces: list[list[int]], message: str) -> None:
    """A role that is none, or more roles than entries, is refused and the earlier split kept."""
    before = faults.snapshot(store)
    with pytest.raises(InputError, match=message):
        Observations.open(store).store_split([np.array(piece) for piece in pieces])
    assert faults.snapshot(store) == before


@pytest.mark.parametrize(
    ("mean", "rows", "columns", "message"),
    [
        (0.0, 3, 20, "offsets must be 30 for rows and 20 for columns"),
        (0.0, 30, 30, "offsets must be 30 for rows and 20 for columns"),
        (np.nan, 30, 20, "finite"),
    ],
)
def test_wrong_offsets_are_refused(store: Path, mean: float, rows: int, columns: int, message: str) -> None:
    """Offsets of another shape, or not finite, are refused and the earlier ones kept."""
    observations = Observations.open(store)
    observations.store_offsets(Offsets(1.0, np.ones(30), np.ones(20)))
    before = faults.snapshot(store)
    with pytest.raises(InputError, match=message):
        observations.store_offsets(Offsets(mean, np.zeros(rows), np.zeros(columns)))
    assert faults.snapshot(store) == before


@pytest.mark.parametrize("part", ["rows", "columns", "zarr.json"])
def test_full_disk_while_storing_offsets(monkeypatch: pytest.MonkeyPatch, store: Path, part: str) -> None:
    """Offsets that do not fit on the disk leave the earlier ones."""
    observations = Observations.open(store)
    observations.store_offsets(Offsets(1.0, np.ones(30), np.ones(20)))
    before = faults.snapshot(store)
    faults.fill_disk_at(monkeypatch, part)
    with pytest.raises(StoreError, match="disk is full"):
        observations.store_offsets(Offsets(2.0, np.zeros(30), np.zeros(20)))
    assert faults.snapshot(store) == before


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_offsets_are_replaced(store: Path, where: str) -> None:
    """Offsets stored twice are the second ones, and a new split forgets them."""
    observations = Observations.open(store)
    if where == "memory":
        observations = Observations.from_scipy(observations.to_scipy())
    for number in (1.0, 2.0):
        observations.store_offsets(Offsets(number, np.full(30, number), np.full(20, number)))
    found = observations.offsets
    assert found is not None
    assert (found.mean, found.rows[29], found.columns[19]) == (2.0, 2.0, 2.0)
    observations.store_split([np.zeros(observations.nnz, np.uint8)])
    assert observations.offsets is None


def test_a_completion_is_not_changed(store: Path) -> None:
    """A store that is marked as a completion takes no other split and no other offsets."""
    Observations.open(store).set_attributes("completion", {"unit": 1.0})
    observations, before = Observations.open(store), faults.snapshot(store)
    with pytest.raises(InputError, match="is a completion"):
        observations.store_split([np.zeros(observations.nnz, np.uint8)])
    with pytest.raises(InputError, match="is a completion"):
        observations.store_offsets(Offsets(2.0, np.zeros(30), np.zeros(20)))
    assert faults.snapshot(store) == before


# ---- places on the disk ---------------------------------------------------------------------------------


def test_a_link_to_a_store_stays_a_link(store: Path) -> None:
    """Overwriting through a link replaces the store behind it, on its own disk."""
    link = store.with_name("link")
    link.symlink_to(store)
    Observations.from_scipy(sp.eye_array(3), link, overwrite=True)
    assert link.is_symlink()
    assert Observations.open(store).nnz == 3
    assert sorted(path.name for path in store.parent.iterdir()) == ["link", "store.zarr"]


def test_a_foreign_store_is_not_overwritten(tmp_path: Path) -> None:
    """A Zarr store of another program is no store of ours, so that overwrite does not replace it."""
    zarr.create_group(tmp_path / "other", attributes={"encoding-type": "anndata"})
    before = faults.snapshot(tmp_path)
    with pytest.raises(InputError, match="is not a store"):
        Observations.from_scipy(sp.eye_array(3), tmp_path / "other", overwrite=True)
    assert faults.snapshot(tmp_path) == before


def test_a_failed_rename_brings_the_old_store_back(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    """When the new store cannot be put in place the old one is there again, and nothing else is."""
    before, rename = faults.snapshot(store.parent), Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StoreError, match="cannot be written"):
        Observations.from_scipy(sp.eye_array(3), store, overwrite=True)
    assert faults.snapshot(store.parent) == before
    assert [path.name for path in store.parent.iterdir()] == ["store.zarr"]


def test_an_interrupt_at_the_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ctrl-C while a store is begun leaves no temporary folder."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "create_array", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Observations.from_scipy(sp.eye_array(3), tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("array", [da.zeros(3), da.ones((2, 2))])
def test_what_dask_arrays_are_refused(array: Any) -> None:
    """One-dimensional arrays and dense blocks are refused with a sentence."""
    with pytest.raises(RfmdistError, match="from_dask"):
        Observations.from_dask(array)


def test_what_one_store_in_memory_holds_is_not_in_another() -> None:
    """Attributes of one store are its own: Zarr 3.1 changes the very mapping that a group was made with."""
    first, second = (Observations.from_scipy(sp.coo_array(np.eye(3))) for _ in range(2))
    first.set_attributes("completion", {"unit": 1.0})
    assert second.attributes("completion") is None
    assert Observations.from_scipy(sp.coo_array(np.eye(3))).attributes("completion") is None
