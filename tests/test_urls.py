"""Stores at URLs: what holds on a disk holds there, on a real S3 server too; torn writes are never taken for whole."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
import s3
import scipy.sparse as sp
from zarr.storage import FsspecStore

from rfmdist import Completion, LinRFM, ingest, split
from rfmdist.__main__ import main
from rfmdist.errors import InputError, RfmdistError, StoreError
from rfmdist.observations import places
from rfmdist.observations.blocks import Offsets
from rfmdist.observations.digests import with_digest
from rfmdist.observations.places import UrlStore, place_of
from rfmdist.observations.store import Observations


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Give the URL of a bucket on a server that runs as long as this module's tests."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with s3.served() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield f"s3://{s3.BUCKET}"


@pytest.fixture
def memory() -> Iterator[str]:
    """Give the URL of an empty folder in memory."""
    yield "memory://ratings"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def matrix(rng: np.random.Generator) -> sp.csr_array:
    """Give a matrix of 30 x 20 whose stored values are never zero."""
    return sp.random_array((30, 20), density=0.3, rng=rng, format="csr", data_sampler=rng.standard_normal)


@pytest.fixture(params=["file", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of a folder: of this machine, in memory, on a server."""
    if request.param == "file":
        return f"file://{tmp_path}"
    if request.param == "memory":
        return str(request.getfixturevalue("memory"))
    return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"


def names(url: str) -> set[str]:
    """Names of what lies directly in a folder."""
    system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return {found.rpartition("/")[2] for found in system.ls(path, detail=False)} if system.exists(path) else set()


def refuse(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Make every write of a key with ``part`` in it fail as drivers do: with an exception that is no OSError."""
    write = UrlStore.set

    async def guarded(self: UrlStore, key: str, *args: Any, **options: Any) -> None:
        with places.reaching(self.url):
            if part in key:
                raise RuntimeError("the service\nis down")
            await write(self, key, *args, **options)

    monkeypatch.setattr(UrlStore, "set", guarded)


# ---- what holds on a disk -------------------------------------------------------------------------------


def test_a_store_at_a_url_is_as_one_on_a_disk(folder: str, matrix: sp.csr_array) -> None:
    """Entries, ids, splits, offsets, tables and the column-ordered copy go in and come out, sent to others too."""
    url = f"{folder}/store.zarr"
    Observations.from_scipy(matrix, url, row_ids=[f"r{k}" for k in range(30)])
    observations = Observations.open(url)
    assert np.array_equal(observations.to_scipy().toarray(), matrix.toarray())
    assert list(observations.row_ids[:2]) == ["r0", "r1"]
    for share in (0.2, 0.5):
        split(observations, validation=0.1, test=share, seed=1)
    kept = Observations.from_scipy(matrix)
    split(kept, validation=0.1, test=0.5, seed=1)
    assert observations.role_counts() == kept.role_counts()
    sent = pickle.dumps(observations)
    assert len(sent) < 2000
    columns = pickle.loads(sent).by_column()
    assert np.array_equal(columns.to_scipy("test").toarray(), kept.by_column().to_scipy("test").toarray())
    for mean in (1.0, 2.0):
        observations.store_offsets(Offsets(mean, np.zeros(30), np.full(20, mean)))
    found = Observations.open(url).offsets
    assert found is not None
    assert (found.mean, found.columns[19]) == (2.0, 2.0)
    for year in (1, 2):
        observations.store_table("rows", pd.DataFrame({"year": [year]}, index=["r3"]))
    assert Observations.open(url).table("rows")["year"]["r3"] == 2
    assert names(folder) == {"store.zarr"}
    assert not [name for name in names(f"{url}/X") | names(f"{url}/obs") if "partial" in name]


def test_files_by_url_are_files(tmp_path: Path, matrix: sp.csr_array) -> None:
    """A file:// URL is a path of this machine, written under a temporary name and renamed."""
    found = Observations.from_scipy(matrix, f"file://{tmp_path}/a b.zarr")
    assert found.path == tmp_path / "a b.zarr"
    assert found.path.is_dir()


def test_names(memory: str, matrix: sp.csr_array) -> None:
    """At a URL there is no path; messages name the URL, and files of a fit lie in a folder beside the store."""
    found = Observations.from_scipy(matrix, f"{memory}/store.zarr/")
    assert found.path is None
    assert found.name == "memory://ratings/store.zarr"
    scratch = found.scratch_folder()
    assert scratch is not None
    assert scratch.startswith("memory://ratings/.store.zarr.")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Path("s3://bucket/store.zarr"), "a URL is given as text"),
        ("s3://bucket", "names a bucket alone"),
        ("gs://bucket/", "names a bucket alone"),
    ],
)
def test_places_that_are_none(given: str | Path, message: str) -> None:
    """A URL that lost a slash as a Path and a bucket without a name are refused."""
    with pytest.raises(InputError, match=message):
        place_of(given)


def test_a_driver_that_counts_from_the_start(memory: str, rng: np.random.Generator, monkeypatch: Any) -> None:
    """Chunks of a shard are read where the driver cannot read a file's end; a lost shard is told there too."""
    from fsspec.implementations.memory import MemoryFileSystem

    for module in ("layout", "writer", "store"):
        monkeypatch.setattr(f"rfmdist.observations.{module}.SHARD", 64)
    monkeypatch.setattr("rfmdist.observations.layout.CHUNK", 16)
    matrix = sp.random_array((50, 40), density=0.2, rng=rng, format="csr")
    Observations.from_scipy(matrix, f"{memory}/store.zarr")
    read, asked = MemoryFileSystem.cat_file, []

    def counting(self: Any, path: str, start: int | None = None, end: int | None = None) -> bytes:
        assert start is None or start >= 0
        asked.append(start)
        return bytes(read(self, path, start, end))

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counting)
    monkeypatch.setattr(places, "FROM_THE_START", {"memory"})
    observations = Observations.open(f"{memory}/store.zarr")
    assert np.array_equal(observations.row_block(20, 22).values, matrix[20:22].data)
    assert any(asked)
    fsspec.filesystem("memory").rm(f"{memory}/store.zarr/X/data/c/1")
    with pytest.raises(StoreError, match="X/data is missing"):
        Observations.open(f"{memory}/store.zarr").row_block(10, 22)


# ---- a fit ----------------------------------------------------------------------------------------------


@pytest.fixture
def ratings(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Give a CSV of 600 ratings of 60 users and 30 films."""
    users, films = np.divmod(rng.choice(60 * 30, 600, replace=False), 30)
    stars = np.clip(np.round(3 + rng.normal(size=60)[users] + rng.normal(size=30)[films]), 1, 5)
    table = pd.DataFrame({"user": users, "item": films, "rating": stars})
    table.to_csv(tmp_path / "ratings.csv", index=False)
    return tmp_path / "ratings.csv"


def test_a_fit_at_a_url_gives_the_same_bits(
    bucket: str, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From S3, in process and on two processes that open the store themselves, the fit is that of a local store."""
    from distributed import Client, LocalCluster

    monkeypatch.setattr("rfmdist.engine.run.FILED_BYTES", 1)  # so that files beside the store are used
    url = f"{bucket}/{tmp_path.name}/store.zarr"
    settings: dict[str, Any] = {"features": "factored", "rank": 3, "sides": "both", "max_iter": 3, "indicators": 0.0}
    settings |= {"ridge_by_count": 0.0, "row_scale": 0.0, "side_weight": 0.0, "replacement": 0.5, "refit": False}

    def fitted(place: str, client: Any = None) -> Completion:
        return LinRFM(**settings).fit(Observations.open(place), client=client).completion_

    for place in (str(tmp_path / "store.zarr"), url):
        split(ingest(ratings, place), validation=0.1, test=0.1, seed=0)
    wanted, found = fitted(str(tmp_path / "store.zarr")), fitted(url)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        others = fitted(url, client)
        scores = others.score(client=client)
    for each in (found, others):
        assert np.array_equal(each.features.factor, wanted.features.factor)
        assert np.array_equal(each.targets.offsets.rows, wanted.targets.offsets.rows)
    assert np.array_equal(scores.sums, wanted.score().sums)
    found.save(f"{url}-completed")
    again = Completion.open(f"{url}-completed")
    everything = wanted.predict_block().compute()
    assert np.array_equal(again.predict_block().compute(), everything)
    again.save(f"{url}-completed", overwrite=True)  # reads what it is to replace
    assert np.array_equal(Completion.open(f"{url}-completed").predict_block().compute(), everything)
    assert names(f"{bucket}/{tmp_path.name}") == {"store.zarr", "store.zarr-completed"}


def test_the_command_line_takes_urls(memory: str, ratings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every verb that takes a store or a completion takes its URL, and keeps both of its slashes."""
    store, output = f"{memory}/store.zarr", f"{memory}/completed.zarr"
    films = ratings.with_name("films.csv")
    films.write_text("item,year\n3,1994\n")

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        told = capsys.readouterr()
        return f"{ended.value.code or 0} {told.out or told.err}"

    assert run("ingest", str(ratings), "-o", store).startswith(f"0 {store}: 60 rows x 30 columns, 600 entries")
    assert run("split", store, "--test", "0.1").startswith(f"0 {store}: ")
    assert run("annotate", store, str(films), "--columns").startswith(f"0 {store}: added year")
    fit = run("fit", store, "-o", output, "--features", "dense", "--replacement", "1", "--max-iter", "2", "--json")
    assert json.loads(fit[2:])["completion"] == output
    facts = json.loads(run("info", output, "--json")[2:])
    assert facts["store"] == output
    assert facts["disk_bytes"] > 1000
    assert json.loads(run("score", output, "--json")[2:])["count"] > 30
    assert "exists already; name another output" in run("fit", store, "-o", output)
    assert "is the store of observations itself" in run("fit", store, "-o", f"{store}/")
    assert "lies within" in run("fit", store, "-o", f"{store}/completed.zarr")


# ---- writes that are cut short --------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["X/data/c", "obs/_index/c", "zarr.json"])
def test_a_write_that_fails_leaves_nothing(
    part: str, memory: str, matrix: sp.csr_array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written of a new store goes; one that was to be replaced stands; one sentence says why."""
    Observations.from_scipy(matrix, f"{memory}/old.zarr")
    with monkeypatch.context() as patch:
        refuse(patch, part)
        for name in ("new.zarr", "old.zarr"):
            with pytest.raises(StoreError, match=rf"{name}.* cannot be reached \(the service\)") as told:
                Observations.from_scipy(sp.eye_array(3), f"{memory}/{name}", overwrite=True)
            assert "\n" not in str(told.value)
    assert names(memory) == {"old.zarr"}
    assert Observations.open(f"{memory}/old.zarr").nnz == matrix.nnz


def test_a_store_that_is_not_finished_is_none(memory: str, matrix: sp.csr_array) -> None:
    """A process that dies while it writes leaves what cannot be opened, but can be overwritten."""
    url, system = f"{memory}/store.zarr", fsspec.filesystem("memory")
    Observations.from_scipy(matrix, url)
    document = json.loads(system.cat_file(f"{url}/zarr.json"))
    document["attributes"]["rfmdist"] = {}  # as it is until the end
    system.pipe_file(f"{url}/zarr.json", with_digest(json.dumps(document).encode()))
    with pytest.raises(StoreError, match="was not written to its end"):
        Observations.open(url)
    with pytest.raises(InputError, match="exists already"):
        Observations.from_scipy(matrix, url)
    Observations.from_scipy(matrix, url, overwrite=True)
    assert Observations.open(url).nnz == matrix.nnz


def cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the server's copying fail."""
    from fsspec.implementations.memory import MemoryFileSystem

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(MemoryFileSystem, "copy", fail)


def test_a_split_that_is_lost_is_told(memory: str, matrix: sp.csr_array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short between two splits, a store is not taken for one without: it would be fitted to its test entries."""
    url = f"{memory}/store.zarr"
    split(Observations.from_scipy(matrix, url), validation=0.1, test=0.1, seed=0)
    with monkeypatch.context() as patch:
        cut_short(patch)
        with pytest.raises(StoreError, match="cannot be reached"):
            split(Observations.open(url), validation=0.1, test=0.2, seed=0)
    observations = Observations.open(url)
    with pytest.raises(StoreError, match="split it again"):
        observations.row_block(0, 3, "train")
    split(observations, validation=0.1, test=0.1, seed=0)
    assert Observations.open(url).role_counts()["test"] > 0


def test_a_store_that_is_not_put_in_place_is_kept(
    memory: str, matrix: sp.csr_array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server fails to copy, the new store is whole under the name that is told."""
    url = f"{memory}/store.zarr"
    Observations.from_scipy(sp.eye_array(3), url)
    with monkeypatch.context() as patch:
        cut_short(patch)
        with pytest.raises(StoreError, match="lies whole at") as told:
            Observations.from_scipy(matrix, url, overwrite=True)
    left = str(told.value).split("lies whole at ")[1].split()[0]
    assert Observations.open(left).nnz == matrix.nnz
    with pytest.raises(StoreError, match="no such store"):
        Observations.open(url)


# ---- what cannot be reached -----------------------------------------------------------------------------


def test_a_wrong_bucket_is_told(bucket: str, matrix: sp.csr_array) -> None:
    """A bucket or a name that is not there is told in one sentence, when read and when written."""
    for url in ("s3://no-such-bucket/store.zarr", f"{bucket}/nothing.zarr"):
        with pytest.raises(StoreError, match="no such store") as told:
            Observations.open(url)
        assert "\n" not in str(told.value)
    with pytest.raises(StoreError, match=r"no-such-bucket.*bucket does not exist") as told:
        Observations.from_scipy(matrix, "s3://no-such-bucket/store.zarr")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("url", "extra"), [("gs://bucket/store.zarr", "gcs"), ("abfs://bucket/store.zarr", "abfs")])
def test_a_missing_driver_is_told(url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the driver one sentence names the extra that brings it."""
    for module in ("gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, module, None)
    for use in (Observations.open, Completion.open):
        with pytest.raises(RfmdistError, match=rf"pip install 'rfmdist\[{extra}\]'") as told:
            use(url)
        assert "\n" not in str(told.value)


def test_an_unknown_kind_of_url_is_told() -> None:
    """Nothing is known of such URLs: one sentence says so."""
    with pytest.raises(StoreError, match="Protocol not known"):
        Observations.open("nothing://bucket/store.zarr")


def test_a_service_that_fails_is_told(memory: str, matrix: sp.csr_array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a driver raises while a block is read is one sentence, and crosses to other processes as it is."""

    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no\ncredentials")

    observations = Observations.from_scipy(matrix, f"{memory}/store.zarr")
    monkeypatch.setattr(FsspecStore, "get", fail)
    with pytest.raises(StoreError, match=r"store\.zarr: cannot be reached \(no\)") as told:
        observations.row_block(0, 3)
    sent = pickle.loads(pickle.dumps(told.value))
    assert (type(sent), str(sent)) == (type(told.value), str(told.value))
