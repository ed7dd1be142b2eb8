"""Ingestion: every format gives the same store, every wrong input one sentence that names its place."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import faults
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmdist.errors import InputError, RfmdistError, StoreError
from rfmdist.observations import staging
from rfmdist.observations.ingest import combined, ingest
from rfmdist.observations.staging import Batch
from rfmdist.observations.store import Observations
from rfmdist.observations.tables import read_table

ENTRIES = [(10, 7, 4.0), (2, 30, 1.5), (2, 7, 5.0), (33, 100, 0.0)]
FRAME = pd.DataFrame(ENTRIES, columns=["userId", "movieId", "rating"])


def text(delimiter: str, header: str = "", tail: str = "") -> str:
    """Give the entries as lines."""
    lines = [delimiter.join(map(str, entry)) + tail for entry in ENTRIES]
    return "\n".join(([header] if header else []) + lines) + "\n"


def check_entries(observations: Observations, ids: type = int) -> None:
    """Assert that the store holds ENTRIES, rows and columns by ascending ids."""
    rows, columns = (sorted({ids(entry[k]) for entry in ENTRIES}) for k in (0, 1))
    assert list(observations.row_ids) == rows
    assert list(observations.column_ids) == columns
    coo = observations.to_scipy().tocoo()
    found = {(rows[r], columns[c]): v for r, c, v in zip(coo.coords[0], coo.coords[1], coo.data, strict=True)}
    assert found == {(ids(r), ids(c)): v for r, c, v in ENTRIES}


# ---- formats --------------------------------------------------------------------------------------------

TEXTS = {
    "ratings.dat": (text("::", tail="::978300760"), {}),
    "u.data": (text("\t", tail="\t881250949"), {}),
    "no_header.csv": (text(","), {}),
    "header.csv": (text(",", "userId,movieId,rating"), {}),
    "windows.csv": (text(",", "\ufeffuser_id,item_id,rating").replace("\n", "\r\n"), {}),
    "strange_names.csv": (text(",", "left,right,amount"), {}),
    "named.csv": (
        text(",", "a,b,c,d", tail=",x"),
        {"row": "a", "column": "b", "value": "c"},
    ),
    "order.csv": (
        "when,rating,movie,user\n" + "".join(f"9,{v},{c},{r}\n" for r, c, v in ENTRIES),
        {},
    ),
    "positions.tsv": (
        "".join(f"{v}\t{c}\t{r}\n" for r, c, v in ENTRIES),
        {"row": 3, "column": "2", "value": 1},
    ),
    "odd.txt": (text("^"), {"delimiter": "^"}),
    "bars.txt": (text("|"), {}),
    "blank_lines.csv": ("\n" + text(",", "user,item,rating").replace("\n", "\n\n"), {}),
    "spaces.csv": (text(" , "), {"delimiter": ","}),
    "quotes.csv": ('"user","item","rating"\n' + "".join(f'"{r}","{c}",{v}\n' for r, c, v in ENTRIES), {}),
    "no_last_newline.csv": (text(",").rstrip(), {}),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("compressed", [False, True])
def test_text(tmp_path: Path, name: str, compressed: bool) -> None:
    """Text of any delimiter, header or none, plain or compressed, gives the same entries."""
    content, options = TEXTS[name]
    path = tmp_path / (name + ".gz" * compressed)
    path.write_bytes(gzip.compress(content.encode()) if compressed else content.encode())
    check_entries(ingest(path, tmp_path / "s", **options))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "s"])


def _parquet(path: Path) -> Any:
    FRAME.to_parquet(path / "x.parquet")
    return path / "x.parquet"


def _parquet_folder(path: Path) -> Any:
    dd.from_pandas(FRAME, npartitions=2).to_parquet(path / "parts")
    return path / "parts"


def _several(path: Path) -> Any:
    (path / "a.csv").write_text(text(",").split("\n", 1)[0])
    return [path / "a.csv", FRAME[1:]]


SOURCES: dict[str, Callable[[Path], Any]] = {
    "parquet": _parquet,
    "parquet folder": _parquet_folder,
    "pandas": lambda path: FRAME,
    "pandas, small types": lambda path: FRAME.astype({"userId": "int8", "movieId": "uint64", "rating": "float32"}),
    "pandas, integers as text": lambda path: FRAME.astype({"userId": str, "movieId": "category"}),
    "dask": lambda path: dd.from_pandas(FRAME, npartitions=3),
    "several": _several,
}


@pytest.mark.parametrize("name", SOURCES)
def test_tables_that_are_not_text(tmp_path: Path, name: str) -> None:
    """Parquet, folders of it, pandas and dask frames, and several inputs together give the same entries."""
    check_entries(ingest(SOURCES[name](tmp_path), tmp_path / "s"))


@pytest.mark.parametrize("name", ["ratings[1].csv", "ratings?.csv", "ratings*.csv.gz", "ratings[1].parquet"])
def test_names_that_are_patterns(tmp_path: Path, name: str) -> None:
    """The file that is named is read, not one that DuckDB would find by it."""
    for decoy, frame in ((name, FRAME), (re.sub(r"\[1\]|[?*]", "1", name), FRAME.assign(rating=9.0))):
        file = tmp_path / decoy
        frame.to_parquet(file) if file.suffix == ".parquet" else frame.to_csv(file, index=False)
    check_entries(ingest(tmp_path / name, tmp_path / "s"))


def test_a_folder_s_name_is_no_column(tmp_path: Path) -> None:
    """Folders called name=value, as partitioned tables have them, change nothing of the files in them."""
    folder = tmp_path / "rating=9"
    folder.mkdir()
    FRAME.to_parquet(folder / "p.parquet")
    FRAME.to_csv(folder / "p.csv", index=False)
    for source in (folder, folder / "p.parquet", folder / "p.csv"):
        check_entries(ingest(source, tmp_path / "s", overwrite=True))


def test_columns_that_differ_in_case_alone(tmp_path: Path) -> None:
    """DuckDB takes them for one, so they are refused."""
    FRAME.assign(UserID=7).to_parquet(tmp_path / "p.parquet")
    options = {"row": "userId", "column": "movieId", "value": "rating"}
    refused(tmp_path / "p.parquet", tmp_path, "'userId' and 'UserID' differ in case alone; rename one", **options)


@pytest.mark.parametrize("kind", ["float16", "longdouble", "Sparse[float]", "Float64", "Int64", "category"])
def test_kinds_of_numbers(tmp_path: Path, kind: str) -> None:
    """Numbers are numbers, however pandas keeps them."""
    frame = FRAME.assign(rating=pd.Series([4.0, 1.0, 5.0, 0.0]).astype(kind))
    found = ingest(frame, tmp_path / "s").to_scipy()
    assert sorted(found.data) == [0.0, 1.0, 4.0, 5.0]


@pytest.mark.parametrize("late", [False, True])
def test_text_ids(tmp_path: Path, late: bool) -> None:
    """Ids become text when one is, even the last of many; 007 stays apart from 7."""
    ids = [str(k) for k in range(5000)] + ["007"]
    lines = [f"{identifier},{identifier},1" for identifier in (ids if late else reversed(ids))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    observations = ingest(tmp_path / "t.csv")
    assert list(observations.row_ids) == sorted(ids)
    assert (observations.row_codes(["007", "7"]) >= 0).all()
    assert np.array_equal(observations.to_scipy().toarray(), np.eye(5001))


def test_text_ids_in_a_second_input(tmp_path: Path) -> None:
    """Integers taken in earlier turn to text when a later input has text ids, and meet their text."""
    first = pd.DataFrame({"row": [1, 2], "column": [5, 5], "value": [1.0, 2.0]})
    second = pd.DataFrame({"row": ["1", "x"], "column": [6, 5], "value": [3.0, 4.0]})
    observations = ingest([first, second])
    assert list(observations.row_ids) == ["1", "2", "x"]
    assert list(observations.column_ids) == [5, 6]
    assert np.array_equal(observations.to_scipy().toarray(), [[1, 3], [2, 0], [4, 0]])


@pytest.mark.parametrize("name", ["m.mtx", "m.mtx.gz", "coo.npz", "csr.npz", "csc.npz"])
def test_matrices(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    """Matrix files keep their shape, empty rows and columns too; ids count from 1 (mtx) or 0 (npz)."""
    matrix = sp.random_array((20, 30), density=0.05, rng=rng)
    path = tmp_path / name
    if name.endswith("npz"):
        sp.save_npz(path, matrix.asformat(path.stem))
    else:
        scipy.io.mmwrite(tmp_path / "m.mtx", matrix, precision=17)
        if name.endswith("gz"):
            path.write_bytes(gzip.compress((tmp_path / "m.mtx").read_bytes()))
    observations = ingest(path, tmp_path / "s", dtype="float64")
    assert np.array_equal(observations.to_scipy().toarray(), matrix.toarray())
    assert observations.row_ids[0] == (0 if name.endswith("npz") else 1)


@pytest.mark.parametrize(
    ("header", "lines", "wanted"),
    [
        ("real symmetric", "2  1 5\n3\t3 4", [[0, 5, 0], [5, 0, 0], [0, 0, 4]]),
        ("real skew-symmetric", "2 1 5\n3 1 -4", [[0, -5, 4], [5, 0, 0], [-4, 0, 0]]),
        ("pattern general", "2 1\n1 3", [[0, 0, 1], [1, 0, 0], [0, 0, 0]]),
        ("integer general", "2 1 5\n\n1 3 7", [[0, 0, 7], [5, 0, 0], [0, 0, 0]]),
    ],
)
def test_kinds_of_matrix_market(tmp_path: Path, header: str, lines: str, wanted: Any) -> None:
    """Symmetric halves are completed, patterns are ones, any blanks separate."""
    path = tmp_path / "m.mtx"
    path.write_text(f"%%MatrixMarket matrix coordinate {header}\n% words\n\n3 3 2\n{lines}\n")
    assert np.array_equal(ingest(path).to_scipy().toarray(), wanted)


def test_movielens_100k(movielens_100k: Path, tmp_path: Path) -> None:
    """The two parts of MovieLens 100K make the matrix that pandas makes of them."""
    parts = [movielens_100k / "u1.base", movielens_100k / "u1.test"]
    observations = ingest(parts, tmp_path / "s")
    frame = pd.concat([pd.read_csv(p, sep="\t", names=["u", "i", "r", "t"]) for p in parts])
    wanted = sp.csr_array((frame.r, (frame.u - 1, frame.i - 1)), shape=(943, 1682))
    assert observations.shape == (943, 1682)
    assert (abs(observations.to_scipy() - wanted)).max() == 0


def test_progress_is_told(tmp_path: Path) -> None:
    """Progress runs from 0 to the whole in each stage."""
    told: list[tuple[str, int, int]] = []
    ingest(FRAME, tmp_path / "s", progress=lambda *step: told.append(step))
    assert told[0] == ("reading", 0, 1)
    assert ("reading", 1, 1) in told
    assert told[-1] == ("writing", 4, 4)


# ---- duplicates and order -------------------------------------------------------------------------------


def entries(count: int) -> st.SearchStrategy[list[tuple[int, int, int]]]:
    """Draw entries of which many fall on one place."""
    return st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(-9, 9)), min_size=1, max_size=count)


@settings(deadline=None, max_examples=60)
@given(
    drawn=entries(30),
    cuts=st.lists(st.integers(0, 30), max_size=5),
    how=st.sampled_from(["last", "mean", "sum"]),
)
def test_duplicates_across_batches(drawn: list[tuple[int, int, int]], cuts: list[int], how: Any) -> None:
    """Repeated entries are combined as pandas does, however the sorted stream is cut."""
    frame = pd.DataFrame(drawn, columns=["row", "column", "value"]).rename_axis("order").reset_index()
    frame = frame.sort_values(["row", "column", "order"])
    whole = Batch(*(frame[name].to_numpy() for name in ("row", "column", "value", "order")))
    edges = [0, *sorted(min(cut, len(frame)) for cut in cuts), len(frame)]
    pieces = [whole[low:high] for low, high in pairwise(edges) if high > low]
    found = list(combined(iter(pieces), how))
    wanted = frame.groupby(["row", "column"]).value.agg(how)
    assert np.allclose(np.concatenate([batch.values for batch in found]), wanted.to_numpy())
    assert np.array_equal(np.concatenate([batch.rows for batch in found]), wanted.index.get_level_values(0))


def test_the_last_is_the_last_in_input_order(tmp_path: Path, rng: np.random.Generator) -> None:
    """Of 300,000 lines on 1000 places the last in each place is kept, across two files."""
    places, values = rng.integers(0, 1000, 300_000), np.arange(300_000)
    frame = pd.DataFrame({"row": places // 40, "column": places % 40, "value": values})
    frame[:200_000].to_csv(tmp_path / "a.csv", index=False)
    observations = ingest([tmp_path / "a.csv", frame[200_000:]], duplicates="last", dtype="float64")
    wanted = frame.groupby(["row", "column"]).value.last()
    assert np.array_equal(observations.to_scipy().data, wanted.to_numpy())


def test_duplicates_are_an_error_with_both_lines(tmp_path: Path) -> None:
    """A repeated entry is refused by default, naming ids, files and lines."""
    (tmp_path / "a.csv").write_text("user,item,rating\nann,5,1\nbob,6,2\n")
    (tmp_path / "b.csv").write_text("eve,1,1\n\nbob,6,3\n")
    with pytest.raises(InputError, match=r"row bob, column 6 .*a\.csv, line 3 and .*b\.csv, line 3"):
        ingest([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "s")


# ---- bad input ------------------------------------------------------------------------------------------

MARKET = "%%MatrixMarket matrix coordinate real general\n3 3 2\n"
BAD: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("t.csv", "", r"t\.csv: the file is empty"),
    "only blank lines": ("t.csv", "\n\n", r"t\.csv: the file is empty"),
    "only a header": ("t.csv", "user,item,rating\n", r"t\.csv: no entries"),
    "too few fields": ("t.csv", "user,item,rating\n1,1,1\n2,2\n", r"t\.csv, line 3: 2 fields where 3"),
    "too many fields": ("t.csv", "1,1,1\n2,2,2,2\n", r"t\.csv, line 2: 4 fields where 3"),
    "ragged, compressed": ("t.csv.gz", gzip.compress(b"1,1,1\n2,2\n"), r"t\.csv\.gz, line 2: 2 fields"),
    "ragged ::": ("t.dat", "1::1::1::9\n\n2::2::2\n", r"t\.dat, line [23]: 3 fields where 4"),
    "one column": ("t.csv", "a\nb\n", r"t\.csv, line 1: fewer than 3 fields"),
    "not a number": ("t.csv", "1,1,1\n\n2,2,good\n", r"t\.csv, line 3: the value 'good' is not a number"),
    "no value": ("t.csv", "1,1,1\n2,2,\n", r"t\.csv, line 2: the value is missing"),
    "NaN": ("t.csv", "user,item,rating\n1,1,NaN\n", r"t\.csv, line 2: the value 'NaN' is not a finite"),
    "infinity": ("t.csv", "1,1,1\n2,2,-inf\n", r"t\.csv, line 2: the value '-inf' is not a finite"),
    "too large for float32": (
        "t.csv",
        "1,1,1\n2,2,1e39\n",
        r"t\.csv, line 2: the value '1e39' is not a finite",
    ),
    "no row id": ("t.csv", "1,1,1\n,2,2\n", r"t\.csv, line 2: the row is missing"),
    "no column id": ("t.csv", "a,b,1\na, ,2\n", r"t\.csv, line 2: the column is missing"),
    "open quote": ("t.csv", '1,1,1\n2,"2,2\n', r"t\.csv, line 2: a quote is not closed"),
    "not UTF-8": ("t.csv", b"1,1,1\n2,\xe9,2\n", r"t\.csv, line 2: is not UTF-8"),
    "UTF-16": ("t.csv", "1,1,1\n".encode("utf-16"), r"t\.csv: is UTF-16 text; save it as UTF-8"),
    "UTF-32, compressed": ("t.csv.gz", gzip.compress("1,1,1\n".encode("utf-32")), r"t\.csv\.gz: is UTF-32 text"),
    "decimal comma": ("t.csv", "1;1;1,5\n", r"t\.csv, line 1: the value '1,5' .* write decimals with a point"),
    "unknown columns": ("t.csv", "a,b,c,d\n1,2,3,4\n", r"t\.csv: cannot tell .*a, b, c, d.*name them"),
    "not gzip": ("t.csv.gz", "1,1,1\n", r"t\.csv\.gz: cannot be read"),
    "cut gzip": ("t.csv.gz", gzip.compress(bytes(range(48, 58)) * 9)[:-9], r"t\.csv\.gz: cannot be read"),
    "not Parquet": ("t.parquet", "1,1,1", r"t\.parquet: not a Parquet file"),
    "mtx, no header": ("t.mtx", "3 3 1\n1 1 1\n", r"t\.mtx, line 1: not a Matrix Market header"),
    "mtx, empty": ("t.mtx", "", r"t\.mtx: the file is empty"),
    "mtx, dense": (
        "t.mtx",
        "%%MatrixMarket matrix array real general\n",
        r"t\.mtx, line 1: cannot read a array real",
    ),
    "mtx, no sizes": ("t.mtx", MARKET[:46], r"t\.mtx: ends before its line of sizes"),
    "mtx, bad sizes": ("t.mtx", MARKET.replace("3 3 2", "3 -3 2"), r"t\.mtx, line 2: not a line of rows"),
    "mtx, too few lines": ("t.mtx", MARKET + "1 1 1\n", r"t\.mtx: holds 1 entries where 2 are announced"),
    "mtx, too many lines": ("t.mtx", MARKET + "1 1 1\n2 2 1\n3 3 1\n", r"t\.mtx: holds 3 entries where 2"),
    "mtx, ragged": ("t.mtx", MARKET + "1 1 1\n2 2\n", r"t\.mtx, line 4: 2 fields where 3"),
    "mtx, negative": ("t.mtx", MARKET + "1 1 1\n-2 2 1\n", r"t\.mtx, line 4: the row '-2' is not .* 1 to 3"),
    "mtx, zero": ("t.mtx", MARKET + "1 1 1\n2 0 1\n", r"t\.mtx, line 4: the column '0' is not"),
    "mtx, huge": ("t.mtx", MARKET + f"1 1 1\n2 {10**30} 1\n", r"t\.mtx, line 4: the column '10+' is not"),
    "mtx, not a number": (
        "t.mtx",
        MARKET + "1 1 1\n2 2 x\n",
        r"t\.mtx, line 4: the value 'x' is not a number",
    ),
    "mtx, huge shape": ("t.mtx", MARKET.replace("3 3", f"{10**12} 3"), r"t\.mtx: needs about .* budget is"),
    "npz, no zip": ("t.npz", "nothing", r"t\.npz: not a sound scipy sparse matrix"),
}


def refused(source: Any, tmp_path: Path, message: str, **options: Any) -> None:
    """Assert that ingestion is refused in one line and that nothing on the disk has changed."""
    Observations.from_scipy(sp.eye_array(3), tmp_path / "s")
    before = faults.snapshot(tmp_path)
    with pytest.raises(RfmdistError, match=message) as told:
        ingest(source, tmp_path / "s", overwrite=True, **options)
    assert "\n" not in str(told.value)
    assert faults.snapshot(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: Path, name: str) -> None:
    """Each bad file is refused in one sentence with its name and line; the store there stays as it was."""
    file, content, message = BAD[name]
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(tmp_path / file, tmp_path, message)


@pytest.mark.parametrize("file", ["t.csv", "t.mtx", "t.npz", "t.parquet"])
def test_missing_files(tmp_path: Path, file: str) -> None:
    """A file that is not there is named."""
    refused(tmp_path / file, tmp_path, "no such file")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME.assign(rating=[1, 2, np.inf, 3]), "data frame, row 3: the value 'inf' is not a finite"),
        (FRAME.assign(rating=[1, None, 2, 3]), "data frame, row 2: the value is missing"),
        (FRAME.assign(userId=["a", "b", None, "c"]), "data frame, row 3: the row is missing"),
        (FRAME.assign(userId=[0.5, 1, 2, 3]), "data frame: the row ids are of type float64"),
        (FRAME[:0], "no entries"),
        (FRAME[["userId", "movieId"]], "cannot tell"),
        (FRAME.assign(rating=FRAME["rating"] + 1j), "the values are complex; use real numbers"),
        ([FRAME, FRAME], "given twice"),
        ([], "nothing to ingest"),
        (17, "a table must be a path or a data frame, not int"),
    ],
)
def test_bad_frames(tmp_path: Path, frame: Any, message: str) -> None:
    """Bad frames are refused like bad files, by row."""
    refused(frame, tmp_path, message)


def test_bad_npz(tmp_path: Path) -> None:
    """An npz with codes outside of its shape, or dense, or complex, is refused."""
    good = sp.eye_array(3).tocsr()
    for name, matrix in {"huge": 7, "negative": -1}.items():
        good.indices[1] = matrix
        sp.save_npz(tmp_path / f"{name}.npz", good)
    np.savez(tmp_path / "dense.npz", x=np.ones(3))
    sp.save_npz(tmp_path / "complex.npz", sp.eye_array(3, dtype=complex).tocsr())
    for name in ("huge", "negative", "dense", "complex"):
        with pytest.raises(InputError, match=rf"{name}\.npz: (not a sound|a complex|holds the arrays x and no)"):
            ingest(tmp_path / f"{name}.npz", tmp_path / "s")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "100MB"}, "memory 100MB: too small.* least that works is 700MB"),
        ({"memory": "much"}, "memory 'much' is not a size"),
        ({"duplicates": "first"}, "duplicates 'first' is not known"),
        ({"dtype": "int32"}, "dtype='int32' must be 'float32' or 'float64'"),
        ({"row": "nobody"}, "no column 'nobody' for row; its columns are userId, movieId, rating"),
        ({"row": "9"}, "no column '9' for row"),
        ({"row": "userId", "column": "userId"}, "cannot tell"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Bad options are refused in a sentence that says what can be given."""
    refused(FRAME, tmp_path, message, **options)


@pytest.mark.parametrize("delimiter", ["", "\n", '"', "\0"])
def test_bad_delimiters(tmp_path: Path, delimiter: str) -> None:
    """What cannot be between fields is refused as a delimiter."""
    (tmp_path / "t.csv").write_text("1,1,1\n")
    refused(tmp_path / "t.csv", tmp_path, "cannot be between fields", delimiter=delimiter)


def test_an_existing_store_needs_leave(tmp_path: Path) -> None:
    """A store is replaced only with overwrite, and what is not a store never."""
    ingest(FRAME, tmp_path / "s")
    with pytest.raises(InputError, match="exists already"):
        ingest(FRAME, tmp_path / "s")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a store"):
        ingest(FRAME, tmp_path / "papers", overwrite=True)
    assert (tmp_path / "papers" / "thesis.txt").exists()


@pytest.mark.parametrize("part", ["X/data", "X/indptr", "obs", "zarr.json"])
def test_full_disk_in_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, part: str) -> None:
    """When the store does not fit, one sentence says so and the old store stands."""
    Observations.from_scipy(sp.eye_array(3), tmp_path / "s")
    before = faults.snapshot(tmp_path)
    faults.fill_disk_at(monkeypatch, part)
    with pytest.raises(StoreError, match="disk is full"):
        ingest(FRAME, tmp_path / "s", overwrite=True)
    assert faults.snapshot(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def test_a_really_full_disk(tmp_path: Path, rng: np.random.Generator) -> None:
    """On a disk too small for the sort the same sentence comes, and nothing is left on it."""
    places = rng.permutation(600_000)
    frame = pd.DataFrame({"row": places // 700, "column": places % 700, "value": rng.random(600_000)})
    with faults.tiny_disk(tmp_path / "disk", "2m") as disk:
        with pytest.raises(StoreError, match="disk is full"):
            ingest(frame, disk / "s")
        assert list(disk.iterdir()) == []


def test_the_sort_runs_out_of_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When DuckDB cannot do with its share, one sentence says which budget to try."""
    monkeypatch.setattr(staging, "OUTSIDE", 995_000_000)
    monkeypatch.setattr(staging, "LEAST", 1)
    frame = pd.DataFrame({"row": np.arange(400_000).astype(str), "column": 1, "value": 1.0})
    refused(frame, tmp_path, "too small a budget", memory="1GB")


def test_a_table_read_at_once_runs_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user has no budget to raise the sentence does not say to."""
    monkeypatch.setattr(staging, "OUTSIDE", 995_000_000)
    monkeypatch.setattr(staging, "LEAST", 1)
    frame = pd.DataFrame({"row": np.arange(400_000).astype(str), "column": 1, "value": 1.0})
    with pytest.raises(InputError, match="too large to be read at once; cut it") as told:
        read_table(frame)
    assert "memory" not in str(told.value)


def test_sorting_uses_the_cores_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with many cores a process bound to few of them sorts with those."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3}, raising=False)
    with staging.Stage(None, "4GB") as stage:
        assert stage._connection.execute("select current_setting('threads')").fetchone() == (2,)


# ---- interrupts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RuntimeError", "InterruptException"])
def test_an_interrupt_of_duckdb_is_one_of_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    """Ctrl-C while DuckDB works is a KeyboardInterrupt like any other, and nothing is left."""

    def interrupt(*_: Any) -> None:
        raise RuntimeError("Query interrupted") if kind == "RuntimeError" else duckdb.InterruptException("Interrupted!")

    monkeypatch.setattr(staging.Stage, "_insert", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ingest(FRAME, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_at_the_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ctrl-C while DuckDB starts removes the temporary folder."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(duckdb, "connect", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ingest(FRAME, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


# ---- small tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    ["user,item\n1,b\n007,a\n", "1,b\n007,a\n", "item,when,user\nb,5,1\na,6,007\n", "1\tb\t3\n007\ta\tx\n"],
)
def test_pairs(tmp_path: Path, content: str) -> None:
    """Pairs are read in input order, with or without a header, and other columns are not looked at."""
    (tmp_path / "p.csv").write_text(content)
    pairs = read_table(tmp_path / "p.csv", pairs=True)
    assert pairs.to_dict("list") == {"row": ["1", "007"], "column": ["b", "a"]}


@pytest.mark.parametrize("content", ["u1,a\nu2,3\n", "u1,ab\nu2,12e7\n", "u1,stars\nu2,a\n", "u1,a,x\nu2,b,5\n"])
def test_no_pair_is_taken_for_a_header(tmp_path: Path, content: str) -> None:
    """The first pair is kept, whatever the others look like, unless it holds the names of rows and columns."""
    (tmp_path / "p.csv").write_text(content)
    assert len(read_table(tmp_path / "p.csv", pairs=True)) == 2


@pytest.mark.parametrize("value", ["", "NA", "null"])
def test_a_first_entry_without_value_is_no_header(tmp_path: Path, value: str) -> None:
    """A first line whose value is missing is told as wrong, not dropped as names nobody knows."""
    (tmp_path / "t.csv").write_text(f"u1,a,{value}\nu2,b,3\n")
    refused(tmp_path / "t.csv", tmp_path, r"t\.csv, line 1: the value")


def test_read_table(tmp_path: Path) -> None:
    """A small table comes back in input order, repeated entries and all."""
    doubled = pd.concat([FRAME, FRAME])
    table = read_table(doubled)
    assert list(table.columns) == ["row", "column", "value"]
    assert np.array_equal(table.to_numpy(), doubled.to_numpy())
    with pytest.raises(InputError, match=r"no\.csv: no such file"):
        read_table(tmp_path / "no.csv")
