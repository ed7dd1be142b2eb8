"""`Completion.to_zarr`: the numbers of `predict_block` in one array, by whole shards, there when all of it is."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import dask.array as da
import faults
import numpy as np
import oracles
import pytest
import scipy.sparse as sp
import zarr

from rfmdist import exporting
from rfmdist.completion import Completion
from rfmdist.errors import InputError, StoreError
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations


@pytest.fixture(scope="module", params=["dense", "factored"])
def completion(request: pytest.FixtureRequest) -> Completion:
    """Give a completion of 70 x 50 in float64."""
    values = oracles.sparse_problem(np.random.default_rng(5), 70, 50, density=0.3)
    fixed = {"ridge": 0.1, "replacement": 1, "max_iter": 2, "dtype": "float64", "validation_fraction": 0}
    return LinRFM(features=request.param, rank=4, **fixed).fit(oracles.as_sparse(values)).completion_


def whole(completion: Completion) -> Any:
    """Give all predictions."""
    return completion.predict_block().compute()


@pytest.mark.parametrize(("shard", "chunk"), [(1, 1 << 19), (350, 20), (1000, 500), (1 << 22, 1 << 19)])
def test_the_array_holds_every_block(
    completion: Completion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: int, chunk: int
) -> None:
    """However shards and chunks are cut, no number of a shard that several threads write beside is lost."""
    monkeypatch.setattr(exporting, "SHARD", shard)
    monkeypatch.setattr(exporting, "CHUNK", chunk)
    monkeypatch.setattr(exporting, "cores", lambda: 4)
    completion.to_zarr(tmp_path / "z.zarr")
    array = zarr.open_array(tmp_path / "z.zarr", mode="r")
    assert (array.shape, array.dtype) == ((70, 50), np.float64)
    assert oracles.distance(array[:], whole(completion)) < 1e-15
    assert oracles.distance(da.from_zarr(tmp_path / "z.zarr").compute(), whole(completion)) < 1e-15
    assert [path.name for path in tmp_path.iterdir()] == ["z.zarr"]


def test_a_part_of_the_rows(completion: Completion, tmp_path: Path) -> None:
    """A range of rows, a stop beyond the last and no row at all are written as `predict_block` has them."""
    for ends in ((13, 31), (60, 1000), (5, 5)):
        completion.to_zarr(tmp_path / "z.zarr", *ends, overwrite=True)
        found = zarr.open_array(tmp_path / "z.zarr", mode="r")[:]
        wanted = completion.predict_block(*ends).compute()
        assert found.shape == wanted.shape
        assert np.allclose(found, wanted, rtol=1e-13, atol=0)


def test_it_is_of_the_fit_s_dtype_and_keeps_what_is_not_determined(tmp_path: Path) -> None:
    """A default fit is written in float32, rounded once; NaN stays, and infinite is what was lost."""
    values = oracles.sparse_problem(np.random.default_rng(5), 70, 50)
    completion = LinRFM(ridge=0.1, replacement=1, max_iter=2, rank=3).fit(oracles.as_sparse(values)).completion_
    completion.to_zarr(tmp_path / "z.zarr")
    array = zarr.open_array(tmp_path / "z.zarr", mode="r")
    assert array.dtype == np.float32
    assert np.allclose(array[:], whole(completion), rtol=1e-6)
    assert np.isposinf(array.fill_value)


def test_no_more_than_some_shards_are_made_at_once(
    completion: Completion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded on machines of any number of cores."""
    lock, now, most = threading.Lock(), [0], [0]
    complete = exporting.serving.complete

    def counted(*arguments: Any) -> Any:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            assert arguments[2] - arguments[1] <= 2
            return complete(*arguments)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(exporting, "SHARD", 100)
    monkeypatch.setattr(exporting, "cores", lambda: 64)
    monkeypatch.setattr(exporting.serving, "complete", counted)
    completion.to_zarr(tmp_path / "z.zarr")
    assert 1 <= most[0] <= exporting.IN_FLIGHT


# ---- places -------------------------------------------------------------------------------------------------


def test_only_such_arrays_are_overwritten(completion: Completion, tmp_path: Path) -> None:
    """What is there stays unless it was written here and may go; folders on the way are made."""
    place = tmp_path / "made" / "z.zarr"
    completion.to_zarr(place)
    before = faults.snapshot(tmp_path)
    with pytest.raises(InputError, match=r"z\.zarr: exists already; name another place or allow"):
        completion.to_zarr(place)
    assert faults.snapshot(tmp_path) == before
    completion.to_zarr(place, 3, 9, overwrite=True)
    assert zarr.open_array(place, mode="r").shape == (6, 50)
    Observations.from_scipy(sp.coo_array(np.eye(3)), tmp_path / "store")
    completion.save(tmp_path / "saved")
    zarr.create_array(tmp_path / "other", shape=(3,), dtype="f8")
    (tmp_path / "file").write_text("mine")
    before = faults.snapshot(tmp_path)
    for name in ("store", "saved", "other", "file", "made"):
        with pytest.raises(InputError, match="is no matrix that to_zarr wrote, so it will not be overwritten"):
            completion.to_zarr(tmp_path / name, overwrite=True)
    assert faults.snapshot(tmp_path) == before
    with pytest.raises(InputError, match="codes of rows: whole numbers"):
        completion.to_zarr(tmp_path / "new", 0.5)
    with pytest.raises(StoreError, match="not a Zarr store of observations"):
        Observations.open(place)


def test_a_place_at_a_url(completion: Completion, tmp_path: Path) -> None:
    """It is copied there when it is whole, in place of an earlier one; no other file is left."""
    url = f"memory://exporting-{tmp_path.name}/z.zarr"
    for ends in ((0, 20), (30, 70)):
        completion.to_zarr(url, *ends, overwrite=True)
        found = zarr.open_array(url, mode="r")[:]
        assert np.allclose(found, whole(completion)[slice(*ends)], rtol=1e-13, atol=0)
    with pytest.raises(InputError, match="exists already"):
        completion.to_zarr(url)


def test_a_full_disk_leaves_what_was_there(
    completion: Completion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk fills, one sentence says so, and the earlier array is still there."""
    completion.to_zarr(tmp_path / "z.zarr", 0, 7)
    before = faults.snapshot(tmp_path)
    assert faults.fill_disk_at(monkeypatch, "c/0/0") is not None
    with pytest.raises(StoreError, match=r"z\.zarr: the disk is full"):
        completion.to_zarr(tmp_path / "z.zarr", overwrite=True)
    assert faults.snapshot(tmp_path) == before


def test_another_split_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of two splits never stand in one array."""
    values = oracles.sparse_problem(np.random.default_rng(5), 70, 50, density=0.3)
    store = Observations.from_scipy(oracles.as_sparse(values), tmp_path / "s")
    completion = LinRFM(ridge=0.1, replacement=1, max_iter=2, rank=3).fit(store).completion_
    monkeypatch.setattr(exporting, "SHARD", 500)
    complete = exporting.serving.complete

    def meanwhile(of: Completion, start: int, stop: int) -> Any:
        if start == 40:
            split(Observations.open(tmp_path / "s"), test=0.3)
        return complete(of, start, stop)

    monkeypatch.setattr(exporting.serving, "complete", meanwhile)
    with pytest.raises(InputError, match="was split anew after this fit"):
        completion.to_zarr(tmp_path / "z.zarr")
    shutil.rmtree(tmp_path / "s")
    assert not list(tmp_path.iterdir())
