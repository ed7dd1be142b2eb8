"""Where the rows of a half step go: in place, returned, or in files; and features that memory does not hold."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from dask.sizeof import sizeof
from distributed import Client, LocalCluster

from rfmdist import preparing
from rfmdist.engine import planner
from rfmdist.engine import run as running
from rfmdist.engine.plan import Plan
from rfmdist.engine.shelf import Files, Held, Returned
from rfmdist.errors import StoreError
from rfmdist.features import stripes
from rfmdist.features.protocol import Partial
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.ahead import Ahead, ahead
from rfmdist.observations.scratch import Filed, FiledValue, Scratch
from rfmdist.observations.store import Observations

FIXED = {
    "features": "factored", "sides": "both", "rank": 7, "ridge": 0.1, "replacement": 1, "max_iter": 4, "tol": 0.0,
    "validation_fraction": 0.1, "refit": False,
}  # fmt: skip
PLAIN = {"indicators": 0, "ridge_by_count": 0, "row_scale": 0, "side_weight": 0}
EXTRAS = {"indicators": 0.4, "ridge_by_count": 0.3, "row_scale": 0.5, "side_weight": 0.2}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Observations:
    """Give 300 x 60 observations on disk."""
    values = oracles.sparse_problem(np.random.default_rng(1), 300, 60)
    return Observations.from_scipy(oracles.as_sparse(values), tmp_path_factory.mktemp("shelves") / "small.zarr")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Give a cluster of 2 worker processes."""
    with (
        LocalCluster(
            n_workers=2, processes=True, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even small problems into several groups, of rows and of columns."""
    for module in (planner, preparing):
        monkeypatch.setattr(module, "FACTORED_ENTRIES", 500)


def partials(rng: np.random.Generator, width: int = 3) -> list[tuple[tuple[int, int], Partial]]:
    """Give the partials of two groups, of two blocks and of one."""
    pieces = [(rng.random((k, width)), rng.random(k)) for k in (4, 3, 5)]
    return [((0, 7), Partial(rows=pieces[:2])), ((7, 12), Partial(rows=pieces[2:]))]


@pytest.mark.parametrize("kind", ["held", "returned", "files"])
def test_shelves_give_the_rows_in_order(kind: str, rng: np.random.Generator, tmp_path: Path) -> None:
    """Whatever the shelf, its rows are those of all groups, one below the other."""
    given = partials(rng)
    expected = [np.concatenate(parts) for parts in zip(*(row for _, p in given for row in p.rows), strict=True)]
    scratch = Scratch(str(tmp_path))
    shelf: Any = {"held": Held(12), "returned": Returned(), "files": Files(scratch, "rows")}[kind]
    total = Partial()
    for group, partial in given:
        copy = pickle.loads(pickle.dumps(shelf)) if kind == "files" else shelf
        copy.keep(group, partial)
        total += partial
    shelf.collect(total)
    ((matrix, vector),) = total.rows
    if kind == "files":
        assert matrix.shape == (12, 3)
        assert vector.shape == (12,)
        for part, whole in zip((matrix, vector), expected, strict=True):
            assert np.array_equal(part.load(5, 9), whole[5:9])
        matrix, vector = matrix.load(), vector.load()
    assert np.array_equal(matrix, expected[0])
    assert np.array_equal(vector, expected[1])
    shelf.discard()
    assert kind != "files" or not list(tmp_path.iterdir())


def test_filed_rows_are_multiplied_as_they_are_read(rng: np.random.Generator, tmp_path: Path) -> None:
    """What is to be done with the rows is done piece by piece, with the numbers of the whole."""
    rows, square, beside = rng.random((40_000, 3)), rng.random((3, 2)), rng.random((40_000, 1))
    (whole,) = Filed.write(Scratch(str(tmp_path)), "rows", 0, [rows])
    turned = replace(whole, square=square, beside=beside)
    assert turned.shape == (40_000, 3)
    assert np.allclose(turned.load(), np.column_stack([rows @ square, beside]))
    assert np.array_equal(turned.load(20_000, 20_010), turned.load()[20_000:20_010])


def test_values_come_back_from_files(rng: np.random.Generator, tmp_path: Path) -> None:
    """Arrays, also empty ones, and what is around them are read back as they were; once, while their file is there."""
    value, scratch = {"a": rng.random((5, 4)), "none": np.zeros((5, 0)), "text": "x"}, Scratch(str(tmp_path))
    filed, other = (pickle.loads(pickle.dumps(FiledValue.write(scratch, value))) for _ in range(2))
    found = filed.loaded()
    assert np.array_equal(found["a"], value["a"])
    assert found["none"].shape == (5, 0)
    assert found["text"] == "x"
    assert other.loaded() is not found
    assert filed.loaded() is found
    scratch.remove(filed.name)
    FiledValue.write(scratch, value).loaded()
    with pytest.raises(StoreError, match="is gone or torn"):
        filed.loaded()


def test_what_stands_for_a_value_is_small(rng: np.random.Generator, tmp_path: Path) -> None:
    """It goes with every task: what pickles in its place, such as a slice of columns, lies in the file too."""
    filed = FiledValue.write(Scratch(str(tmp_path)), rng.random((1000, 64))[:, :32])
    assert len(pickle.dumps(filed)) < 1000
    assert filed.load().shape == (1000, 32)


def test_rows_in_files_count_for_nothing(rng: np.random.Generator, tmp_path: Path) -> None:
    """Dask places and counts what it moves by size: what lies in a file is not moved."""
    (filed,) = Filed.write(Scratch(str(tmp_path)), "rows", 0, [rng.random((1000, 64))])
    assert sizeof(Partial({"sum": np.zeros(100)}, [(filed,)])) < 1000
    assert sizeof(Partial({}, [(filed.load(),)])) >= 1000 * 64 * 8


@pytest.mark.usefixtures("many_groups")
def test_workers_keep_blocks_though_dask_takes_copies_away(small: Observations, client: Client) -> None:
    """Blocks stay on the workers from one iteration to the next: but for a few that move, later ones decode none."""

    def count() -> None:
        decode, Observations.decoded = Observations.row_block, 0

        def counted(self: Any, *given: Any) -> Any:
            Observations.decoded += 1
            return decode(self, *given)

        Observations.row_block = counted

    decoded: list[int] = []

    def told(_: Any) -> None:
        decoded.append(sum(client.run(lambda: Observations.decoded).values()))
        client.amm.run_once()  # as Dask does every two seconds

    client.run(count)
    try:
        LinRFM(**FIXED, **PLAIN, callbacks=[told]).fit(small, client=client)
    finally:
        client.restart()
    assert 0 < decoded[-1] < 1.5 * decoded[0]


@pytest.mark.parametrize("torn", [True, False])
def test_a_torn_or_lost_file_is_told(torn: bool, rng: np.random.Generator, tmp_path: Path) -> None:
    """One sentence that names the folder, never numbers."""
    (filed,) = Filed.write(Scratch(str(tmp_path)), "rows", 0, [rng.random((9, 2))])
    file = tmp_path / "rows-0"
    if torn:
        file.write_bytes(file.read_bytes()[:50])
    else:
        file.unlink()
    with pytest.raises(StoreError, match="rows-0 is gone or torn"):
        filed.load()


@pytest.mark.usefixtures("many_groups")
@pytest.mark.parametrize("filed", [False, True], ids=["returned", "files"])
@pytest.mark.parametrize("extras", [PLAIN, {**PLAIN, "power": 1.0}, EXTRAS], ids=["plain", "power 1", "extras"])
def test_a_cluster_gives_the_same_bits(
    extras: dict[str, Any], filed: bool, small: Observations, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows through the client or through files, features sent or read: the bits are those in process."""
    expected = LinRFM(**FIXED, **extras).fit(small).completion_.features
    monkeypatch.setattr(running, "FILED_BYTES", 1 if filed else 1 << 60)
    found: Any = LinRFM(**FIXED, **extras).fit(small, client=client).completion_.features
    assert isinstance(expected, type(found))
    assert np.array_equal(found.factor, expected.factor)
    assert np.array_equal(found.offsets, expected.offsets)
    assert small.path is not None
    assert not [path for path in small.path.parent.iterdir() if path.name.endswith(".scratch")]


@pytest.mark.usefixtures("many_groups")
@pytest.mark.parametrize("clustered", [False, True], ids=["in process", "cluster"])
@pytest.mark.parametrize("options", [{}, {"power": 1.0}, {"offsets": None}], ids=["plain", "power 1", "no offsets"])
def test_stripes_give_the_same_numbers(
    options: dict[str, Any], clustered: bool, small: Observations, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns solved with a factor of the rows of which memory holds 70 rows at a time; no file is left."""
    settings = {**FIXED, **PLAIN, **options, "dtype": "float64"}
    expected = LinRFM(**settings).fit(small)
    monkeypatch.setattr(Plan, "stripe", 70)
    monkeypatch.setattr(stripes, "BATCH_BYTES", 7 * 7 * 8 * 20)
    found = LinRFM(**settings).fit(small, client=client if clustered else None)
    ours, theirs = found.completion_.features.factor, expected.completion_.features.factor
    assert np.allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())
    assert not np.array_equal(ours, theirs)  # the sums were made in stripes indeed
    assert np.isclose(found.completion_.features.floor, expected.completion_.features.floor, rtol=1e-9)
    assert np.isclose(found.history_[-1].validation_rmse, expected.history_[-1].validation_rmse, rtol=1e-10)
    assert small.path is not None
    assert not [path for path in small.path.parent.iterdir() if path.name.endswith(".scratch")]


def test_reading_ahead_keeps_the_order_and_the_errors() -> None:
    """Pieces come in order, each begun before the one ahead of it was taken; an error comes at its place."""
    begun = []

    def read(k: int) -> int:
        begun.append(k)
        if k == 3:
            raise ValueError("three")
        return k

    pieces = ahead(read, range(5))
    assert [next(pieces) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(pieces)
    waiting: Ahead[int] = Ahead()
    waiting.begin((0, 1), lambda a, b: a + b)
    assert waiting.take((0, 1), lambda a, b: -1) == 1
    assert waiting.take((0, 1), lambda a, b: -1) == -1
    assert pickle.loads(pickle.dumps(waiting)).take((0, 1), lambda a, b: 7) == 7
    waiting.clear()


@pytest.mark.parametrize("sides", ["columns", "both"])
def test_what_moves_is_counted_and_no_more_than_foreseen(
    sides: str, client: Client, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Dask's own counters: at most a partial for all groups but one, and the features for each worker."""
    for module in (planner, preparing):
        monkeypatch.setattr(module, "FACTORED_ENTRIES", 10_000)
    monkeypatch.setattr(planner, "ENTRIES_PER_FEATURE", 1)
    (m, n), rank = (3000, 20_000), 16
    matrix = sp.random_array((m, n), density=1e-3, rng=rng, format="csr")
    store = Observations.from_scipy(matrix, tmp_path / "wide.zarr")
    model = LinRFM(**{**FIXED, **PLAIN, "sides": sides, "rank": rank}).fit(store, client=client)
    groups, numbers = len(model.plan_.groups), n * rank * 4
    assert groups > 3
    foreseen = (groups - 1 + 2) * numbers if sides == "columns" else 2 * (m + n) * rank * 4 + numbers
    for record in model.history_[1:]:
        assert numbers < record.moved_bytes < 1.2 * foreseen
