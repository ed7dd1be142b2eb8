"""The column-ordered copy: the same entries as in the store, made once, never half of it, never out of date."""

from __future__ import annotations

import errno
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anndata
import faults
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmdist.errors import InputError, StoreError
from rfmdist.observations import by_column
from rfmdist.observations.blocks import Offsets
from rfmdist.observations.draws import entry_hash
from rfmdist.observations.spill import Spill
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations

ROLES = ("train", "validation", "test")


def random_matrix(rng: np.random.Generator, m: int = 40, n: int = 25, density: float = 0.2) -> sp.csr_array:
    """Give a matrix without stored zeros; a row, a column and the last of each are empty."""
    seen = rng.random((m, n)) < density
    seen[[m // 2, -1]] = seen[:, [n // 3, -1]] = False
    return sp.csr_array(np.where(seen, rng.normal(size=(m, n)), 0))


def same(found: Observations, wanted: Observations) -> bool:
    """Whether ``found`` holds the transposed entries of ``wanted``, in order, role by role."""
    return all(
        np.array_equal(getattr(turned, part), getattr(expected, part))
        for role in ROLES
        for turned, expected in [(found.to_scipy(role), sp.csr_array(wanted.to_scipy(role).T.tocsr()))]
        for part in ("shape", "indptr", "indices", "data")
    )


def small_shards(patch: pytest.MonkeyPatch, shard: int, shards_a_pass: int = 1) -> None:
    """Make shards of few entries, and let a pass take few of them."""
    for module in ("layout", "writer", "store", "additions", "by_column"):
        patch.setattr(f"rfmdist.observations.{module}.SHARD", shard)
    patch.setattr("rfmdist.observations.layout.CHUNK", shard)
    patch.setattr(by_column, "HELD_SHARE", 1)
    patch.setattr(Observations.by_column, "__defaults__", (shard * shards_a_pass * 17, None))
    patch.setattr(by_column, "READ_ENTRIES", 20)


@pytest.fixture
def store(rng: np.random.Generator, tmp_path: Path) -> Path:
    """Give the path of a store with a split and text ids of its rows."""
    matrix = random_matrix(rng)
    observations = Observations.from_scipy(matrix, tmp_path / "s", row_ids=[f"r{k}" for k in range(40)])
    split(observations, test=0.2, validation=0.2)
    return tmp_path / "s"


# ---- the same entries -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1 << 32),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    density=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    shard=st.integers(3, 40),
    shards_a_pass=st.integers(1, 3),
    mask=st.booleans(),
    held_out=st.booleans(),
    on_disk=st.booleans(),
)
def test_it_is_the_transpose(
    seed: int,
    shape: tuple[int, int],
    density: float,
    shard: int,
    shards_a_pass: int,
    mask: bool,
    held_out: bool,
    on_disk: bool,
) -> None:
    """Whatever the matrix, its roles and the passes it is made in, it equals scipy's transpose role by role."""
    rng = np.random.default_rng(seed)
    matrix = sp.random_array(shape, density=density, rng=rng, data_sampler=rng.standard_normal)
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        small_shards(patch, shard, shards_a_pass)
        observations = Observations.from_scipy(matrix, Path(folder) / "s" if on_disk else None)
        if mask:
            observations.store_split([rng.integers(0, 3, observations.nnz)])
        if held_out:
            observations = observations.hold_out(0.4, seed)
        turned = observations.by_column()
        assert same(turned, observations)
        assert turned.role_counts() == observations.role_counts()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shard", [7, 64, 1 << 22])
def test_many_passes_on_disk(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, tmp_path: Path, dtype: str, shard: int
) -> None:
    """Columns that are cut across passes and shards are whole in the copy, in dtype and order."""
    small_shards(monkeypatch, shard, 2)
    observations = Observations.from_scipy(random_matrix(rng).astype(dtype), tmp_path / "s")
    turned = observations.by_column()
    assert same(turned, observations)
    assert turned.dtype == dtype
    assert len(faults.shards(tmp_path / "s", "X/by_column/data")) == -(-observations.nnz // shard)


def test_ids_offsets_and_back(store: Path) -> None:
    """Ids and offsets change sides, and by column of by column is by row."""
    observations = Observations.open(store)
    observations.store_offsets(Offsets(1.0, np.arange(40.0), np.arange(25.0)))
    turned = observations.by_column()
    assert turned.shape == (25, 40)
    assert list(turned.row_ids) == list(observations.column_ids)
    assert list(turned.column_ids[:2]) == ["r0", "r1"]
    offsets = turned.offsets
    assert offsets is not None
    assert (offsets.rows[-1], offsets.columns[-1], offsets.row_shrinkage) == (24.0, 39.0, None)
    assert (turned.by_column().to_scipy() != observations.to_scipy()).nnz == 0


def test_held_out_entries_are_uniform() -> None:
    """The hash holds out the share asked for, of every row and every column, by chance alone; seeds differ."""
    rows, columns = (part.ravel() for part in np.mgrid[:300, :200])
    found = [entry_hash(seed, rows, columns) < (1 << 62) for seed in (0, 1, -1)]
    for chosen in found:
        assert chosen.mean() == pytest.approx(0.25, abs=0.006)
        square = chosen.reshape(300, 200)
        for axis, size in ((0, 300), (1, 200)):
            deviation = square.sum(axis) - size / 4
            assert np.mean(deviation**2) == pytest.approx(size * 3 / 16, rel=0.35)
        assert (chosen[1:] & chosen[:-1]).mean() == pytest.approx(1 / 16, abs=0.004)
        assert (square[1:] & square[:-1]).mean() == pytest.approx(1 / 16, abs=0.004)
    assert (found[0] & found[1]).mean() == pytest.approx(1 / 16, abs=0.004)
    assert len(np.unique(entry_hash(0, rows, columns))) == len(rows)


# ---- kept in the store ----------------------------------------------------------------------------------


def test_the_copy_is_made_once(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    """A second call, another opening and a pickled one read the copy that is there."""
    Observations.open(store).hold_out(0.3, seed=1).by_column()
    before = faults.snapshot(store)
    monkeypatch.setattr("rfmdist.observations.store.write_by_column", None)
    for observations in (Observations.open(store), Observations.open(store).hold_out(0.1, seed=5)):
        assert same(pickle.loads(pickle.dumps(observations.by_column())), observations)
    assert faults.snapshot(store) == before


@pytest.mark.filterwarnings("ignore:Transforming to str index")
def test_anndata_opens_the_store_with_it(store: Path) -> None:
    """AnnData reads the store as without the copy, and the copy itself as a csr_matrix."""
    observations = Observations.open(store)
    turned = observations.by_column().to_scipy()
    whole = anndata.read_zarr(store)
    assert (sp.csr_array(whole.X) != observations.to_scipy()).nnz == 0
    alone = anndata.io.read_elem(zarr.open_group(store, mode="r")["X/by_column"])
    assert (sp.csr_array(alone) != turned).nnz == 0


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_new_split_removes_it(store: Path, where: str) -> None:
    """After another split the copy is made again, with the new roles."""
    observations = Observations.open(store)
    if where == "memory":
        observations = Observations.from_scipy(observations.to_scipy())
    observations.by_column()
    split(observations, test=0.5)
    assert where == "memory" or not (store / "X" / "by_column").exists()
    assert where == "memory" or not list((store / "X").glob("*.partial"))
    assert same(observations.by_column(), observations)


def test_it_takes_no_additions(store: Path) -> None:
    """Splits and offsets are stored by row alone, and a completion gets no copy."""
    observations = Observations.open(store)
    turned = observations.by_column()
    before = faults.snapshot(store)
    with pytest.raises(InputError, match="entries by column; change the observations by row"):
        turned.store_split([np.zeros(turned.nnz, np.uint8)])
    with pytest.raises(InputError, match="entries by column"):
        turned.store_offsets(Offsets(0.0, np.zeros(25), np.zeros(40)))
    assert faults.snapshot(store) == before
    shutil.rmtree(store / "X" / "by_column")
    observations.set_attributes("completion", {"unit": 1.0})
    with pytest.raises(InputError, match="is a completion"):
        observations.by_column()


# ---- damage and full disks ------------------------------------------------------------------------------


@pytest.mark.parametrize("array", ["data", "indices", "split"])
@pytest.mark.parametrize("how", ["flipped", "missing", "truncated"])
def test_a_damaged_shard_is_told(store: Path, array: str, how: str) -> None:
    """A flipped byte, a lost or a cut shard of the copy never gives numbers, but one sentence with the mend."""
    turned = Observations.open(store).by_column()
    shard = faults.shards(store, f"X/by_column/{array}")[0]
    if how == "flipped":
        faults.flip_byte(shard)
    elif how == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(StoreError, match=r"X/by_column/.*(damaged|missing).*; delete the folder X/by_column") as told:
        turned.to_scipy("train")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("what", ["data", "split", "indptr", "zarr.json", "indptr/c/0", "of another store", "nonsense"])
def test_a_torn_copy_is_made_again(store: Path, rng: np.random.Generator, tmp_path: Path, what: str) -> None:
    """A copy that lacks a part, or is of other entries, is not read but made again."""
    observations = Observations.open(store)
    observations.by_column()
    copy = store / "X" / "by_column"
    if what == "of another store":
        Observations.from_scipy(random_matrix(rng), tmp_path / "other").by_column()
        shutil.rmtree(copy)
        (tmp_path / "other" / "X" / "by_column").rename(copy)
    elif what == "nonsense":
        (copy / "zarr.json").write_text("{")
    elif (copy / what).is_dir():
        shutil.rmtree(copy / what)
    else:
        (copy / what).unlink()
    assert same(Observations.open(store).by_column(), observations)
    assert same(observations.by_column(), observations)


def test_another_s_split_is_seen(store: Path) -> None:
    """Roles that were read before another process split the store are read anew, and the copy has the new ones."""
    ours, theirs = Observations.open(store), Observations.open(store)
    ours.role_counts()
    ours.row_block(0, 40, "train")
    split(theirs, validation=0.0, test=0.5, seed=7)
    assert ours.role_counts() == theirs.role_counts()
    assert same(ours.by_column(), theirs)
    ours.by_column().role_counts()
    split(theirs, validation=0.0, test=0.1, seed=8)
    assert not ours.has_copy
    assert same(ours.by_column(), theirs)


def test_a_split_while_the_copy_is_made(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that may have roles of both splits is refused, and made anew by the next who asks."""
    observations, write = Observations.open(store), by_column._write

    def split_first(*arguments: Any) -> None:
        monkeypatch.setattr(by_column, "_write", write)
        split(Observations.open(store), validation=0.0, test=0.5, seed=7)
        write(*arguments)

    monkeypatch.setattr(by_column, "_write", split_first)
    with pytest.raises(StoreError, match="was split anew while"):
        observations.by_column()
    assert not observations.has_copy
    assert same(observations.by_column(), Observations.open(store))


@pytest.mark.parametrize("part", ["data", "indices", "indptr", "split", "zarr.json"])
def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, store: Path, part: str) -> None:
    """A copy that does not fit on the disk leaves the store as it was."""
    observations, before = Observations.open(store), faults.snapshot(store)
    refused = faults.fill_disk_at(monkeypatch, part)
    with pytest.raises(StoreError, match="disk is full"):
        observations.by_column()
    assert refused
    assert faults.snapshot(store) == before
    assert not list((store / "X").glob("by_column*"))


@pytest.mark.parametrize("when", [0, 1, 5])
def test_a_full_disk_while_entries_are_dealt(monkeypatch: pytest.MonkeyPatch, store: Path, when: int) -> None:
    """Entries that wait in files leave no file behind either, and the store is as it was."""
    small_shards(monkeypatch, 20)
    observations, before, appended = Observations.open(store), faults.snapshot(store), []
    append = Spill._append

    def guarded(self: Spill, *given: Any) -> None:
        if len(appended) == when:
            raise OSError(errno.ENOSPC, "No space left on device")
        appended.append(given)
        append(self, *given)

    monkeypatch.setattr(Spill, "_append", guarded)
    with pytest.raises(StoreError, match="disk is full"):
        observations.by_column()
    assert len(appended) == when
    assert faults.snapshot(store) == before
    assert not list((store / "X").glob("by_column*"))


def test_a_store_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    """Where the store may only be read one sentence says so."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("zarr.storage.LocalStore.set", refuse)
    with pytest.raises(StoreError, match=r"cannot be written \(Read-only file system\)$"):
        Observations.open(store).by_column()


def test_damage_of_the_store_is_told(store: Path) -> None:
    """No copy is made of damaged entries."""
    faults.flip_byte(faults.shards(store, "X/data")[0])
    with pytest.raises(StoreError, match=r"X/data is damaged.*ingest the data again"):
        Observations.open(store).by_column()
    assert not list((store / "X").glob("by_column*"))


def test_an_interrupt_leaves_no_half(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    """Ctrl-C while the copy is made leaves the store as it was, and what a killed run left does not matter."""
    observations, before = Observations.open(store), faults.snapshot(store)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(by_column, "_filled", interrupt)
        with pytest.raises(KeyboardInterrupt):
            observations.by_column()
    assert faults.snapshot(store) == before
    (store / "X" / "by_column.0.partial" / "data").mkdir(parents=True)  # of a process that was killed
    assert same(observations.by_column(), observations)


def test_several_make_it_at_once(store: Path) -> None:
    """Threads that open a store and ask for its copy at the same moment all get it."""
    with ThreadPoolExecutor(4) as pool:
        copies = list(pool.map(lambda _: Observations.open(store).by_column(), range(8)))
    assert all(same(copy, Observations.open(store)) for copy in copies)
