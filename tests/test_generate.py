"""Generated data: what is written is what was drawn, as documented, however it is cut into blocks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfmdist.observations.ingest import ingest
from rfmdist.observations.store import Observations

SCRIPTS = Path(__file__).parents[1] / "scripts"
SHAPE, ENTRIES = (3000, 400), 60_000


@pytest.fixture
def heavy_tailed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the module beside the scripts."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import heavy_tailed

    return heavy_tailed


def joined(problem: Any, **options: Any) -> list[Any]:
    """Join the blocks of a problem."""
    return [np.concatenate(part) for part in zip(*problem.blocks(**options), strict=True)]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Give the script as a function of its command line."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import generate

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["generate.py", *map(str, arguments)])
        return generate.main()

    return run


@pytest.mark.parametrize("shuffled", [False, True])
def test_blocks_change_nothing(heavy_tailed: Any, monkeypatch: pytest.MonkeyPatch, shuffled: bool) -> None:
    """The same seed gives the same entries in blocks of any size, in order or not; another seed gives others."""
    problem = heavy_tailed.Problem.draw(SHAPE, ENTRIES, seed=3)
    whole = joined(problem)
    monkeypatch.setattr(heavy_tailed, "BLOCK", 1000)
    assert len(list(problem.blocks())) > 50
    found = joined(heavy_tailed.Problem.draw(SHAPE, ENTRIES, seed=3), shuffled=shuffled)
    if shuffled:
        assert np.mean(np.diff(found[0]) < 0) > 0.4
        order = np.lexsort((found[1], found[0]))
        found = [part[order] for part in found]
    assert all(np.array_equal(a, b) for a, b in zip(whole, found, strict=True))
    other = joined(heavy_tailed.Problem.draw(SHAPE, ENTRIES, seed=4))
    assert not np.array_equal(whole[2][:100], other[2][:100])


def test_the_pattern(heavy_tailed: Any) -> None:
    """Every row has an entry and none twice, rows and columns have heavy tails, entries are about as many as asked."""
    rows, columns, _ = joined(heavy_tailed.Problem.draw(SHAPE, ENTRIES))
    assert abs(len(rows) - ENTRIES) < 0.01 * ENTRIES
    keys = rows * SHAPE[1] + columns
    assert (np.diff(keys) > 0).all()
    counts, popular = np.bincount(rows, minlength=SHAPE[0]), np.sort(np.bincount(columns, minlength=SHAPE[1]))
    assert counts.min() >= 1
    assert counts.max() > 3 * np.mean(counts) > 4 * np.median(counts)
    assert popular[-1] > 10 * np.median(popular)


@pytest.mark.parametrize(("rank", "noise"), [(3, 0.25), (10, 0.0)])
def test_the_values(heavy_tailed: Any, rank: int, noise: float) -> None:
    """Given the columns' factor, least squares of each row leaves the noise stated, and the signal's variance is 1."""
    problem = heavy_tailed.Problem.draw(SHAPE, ENTRIES, rank=rank, noise=noise)
    rows, columns, values = joined(problem)
    assert np.var(values) == pytest.approx(1 + noise**2, rel=0.2)
    left, freedom = 0.0, 0
    for row in np.flatnonzero(problem.counts > 2 * rank):
        factor, known = problem.factor[columns[rows == row]].astype(float), values[rows == row]
        left += float(np.sum((known - factor @ np.linalg.lstsq(factor, known)[0]) ** 2))
        freedom += len(known) - rank
    assert np.sqrt(left / freedom) == pytest.approx(noise, rel=0.03, abs=1e-5)


def test_a_row_has_at_most_the_columns_there_are(heavy_tailed: Any) -> None:
    """More entries than a small matrix may have are not drawn."""
    rows, columns, _ = joined(heavy_tailed.Problem.draw((5, 3), 1000))
    assert (rows.tolist(), set(columns.tolist()) <= {0, 1, 2}) == ([0, 1, 2, 3, 4], True)


def test_a_store_and_a_csv(tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """The store has the split asked for; the CSV, ingested, is the same store but for ids without entries."""
    size = ["--rows", SHAPE[0], "--columns", SHAPE[1], "--entries", ENTRIES, "--seed", 7]
    for place in (["--store", tmp_path / "s", "--test", 0.1], ["--csv", tmp_path / "t.csv"]):
        assert run(*place, *size) == 0
        assert "ratings of 3,000 users on 400 films" in capsys.readouterr().out
    store, again = Observations.open(tmp_path / "s"), ingest(tmp_path / "t.csv")
    counts = store.role_counts()
    assert counts["validation"] == 0
    assert counts["test"] == pytest.approx(0.1 * store.nnz, rel=0.1)
    assert np.array_equal(store.row_ids, again.row_ids)
    one, other = store.to_scipy()[:, again.column_ids - 1], again.to_scipy()
    assert (one != other).nnz == 0
    assert one.nnz == other.nnz == store.nnz


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name one of FILE, --store STORE and --csv FILE"),
        (["f", "--store", "s"], "name one of"),
        (["--store", "s", "--rows", 0], "are 1 or more"),
    ],
)
def test_wrong_arguments(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: list[object], message: str
) -> None:
    """What is to be written must be told, and be something."""
    with pytest.raises(SystemExit):
        run(*arguments)
    assert message in capsys.readouterr().err


def test_lines_like_movielens(tmp_path: Path, run: Callable[..., int]) -> None:
    """The small file is as it was: users and films of some ratings, in whole stars."""
    assert run(tmp_path / "r.dat", "--users", 50, "--films", 90, "--ratings", 2000) == 0
    observations = ingest(tmp_path / "r.dat")
    assert observations.shape[0] == 50
    assert set(observations.to_scipy().data) == {1, 2, 3, 4, 5}
