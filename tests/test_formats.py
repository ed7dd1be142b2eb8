"""Formats of what comes in: the same entries whatever they are kept in, and what cannot tell its entries is refused."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest
import scipy.sparse as sp
import sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ingest import FRAME, check_entries, text

from rfmdist.errors import InputError
from rfmdist.observations import columnar, texts
from rfmdist.observations.ingest import ingest
from rfmdist.observations.store import Observations
from rfmdist.observations.tables import read_lines, read_table

COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}


def refuses(source: Any, message: str, **options: Any) -> None:
    """Assert that a table is refused in one line."""
    with pytest.raises(InputError, match=message) as told:
        read_table(source, **options)
    assert "\n" not in str(told.value)


# ---- compressed text, JSON, Arrow, NumPy ----------------------------------------------------------------


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "ndjson", "mtx"])
def test_compressed_files(tmp_path: Path, suffix: str, kind: str) -> None:
    """Text, JSON and Matrix Market files are read whatever compressed them, and no copy is left."""
    content = {
        "csv": FRAME.to_csv(index=False),
        "mtx": "%%MatrixMarket matrix coordinate real general\n33 100 4\n" + text(" "),
    }.get(kind, FRAME.to_json(orient="records", lines=True))
    path = tmp_path / f"t.{kind}{suffix}"
    path.write_bytes(COMPRESSED[suffix](content.encode()))
    found = ingest(path, tmp_path / "s")  # where a copy would be left
    if kind == "mtx":
        assert found.shape == (33, 100)
        assert found.to_scipy()[[9, 1, 1], [6, 29, 6]].tolist() == [4, 1.5, 5]
    else:
        check_entries(found)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s", path.name]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("how", ["cut", "not compressed"])
def test_damaged_compressed_files(tmp_path: Path, suffix: str, how: str) -> None:
    """A file that ends too early is not taken for a shorter one, wherever it is cut."""
    lines = "".join(f"{k},{k % 7},1\n" for k in range(60_000)).encode()
    packed = COMPRESSED[suffix](lines)
    path = tmp_path / f"t.csv{suffix}"
    path.write_bytes(packed[: len(packed) // 2] if how == "cut" else lines)
    refuses(path, r"t\.csv.*: cannot be read")


@pytest.mark.parametrize("name", ["t.feather", "t.arrow"])
def test_arrow_files(tmp_path: Path, name: str) -> None:
    """Files of Arrow's are read, Feather among them; one that is not is named."""
    pyarrow.feather.write_feather(FRAME, tmp_path / name, compression="zstd", chunksize=2)
    check_entries(ingest(tmp_path / name))
    assert read_table(tmp_path / name).to_numpy().tolist() == FRAME.to_numpy().tolist()
    (tmp_path / name).write_text(text(","))
    refuses(tmp_path / name, rf"{name}: not an Arrow file")


ARRAYS: dict[str, Any] = {
    "named": FRAME.to_records(index=False),
    "named, text": FRAME.astype({"movieId": "S3"})
    .assign(movieId=FRAME.movieId.astype(str))
    .to_records(index=False, column_dtypes={"movieId": "S3"}),
    "floats": FRAME.to_numpy(),
    "small floats": FRAME.to_numpy(np.float32),
    "with times": np.column_stack([FRAME.to_numpy(), np.arange(4) + 881250949]),
    "by column": np.asfortranarray(FRAME.to_numpy()),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Arrays of entries are read piece by piece, with named fields or a column a part."""
    monkeypatch.setattr("rfmdist.observations.arrays.PIECE", 3)
    np.save(tmp_path / "t.npy", ARRAYS[name])
    check_entries(ingest(tmp_path / "t.npy"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(5), r"an array of float64 of shape \(5,\) holds no entries"),
        (np.ones((2, 3, 3)), r"of shape \(2, 3, 3\) holds no entries"),
        (np.ones((5, 3), complex), "an array of complex128"),
        (np.arange(12.0).reshape(3, 4), "4 columns of numbers without names may be a dense matrix"),
        (np.arange(12).reshape(6, 2), "cannot tell which columns are row, column, value"),
        (np.linspace(0, 1, 12).reshape(4, 3), "3 columns of numbers without names may be a dense matrix"),
        (np.array([[1, 2, 3], [4, 5.5, 6]]), r"t\.npy, row 2: the column 5\.5 is not a whole number"),
        (np.array([[1, 2, 3], [np.nan, 5, 6]]), r"t\.npy, row 2: the row nan is not a whole number"),
        (np.array([[1, 2, 3], [4, 5, np.inf]]), r"t\.npy, row 2: the value 'inf' is not a finite number"),
        (np.zeros(2, [("user", "i4"), ("item", "f8"), ("rating", "f4")]), "the column ids are of type double"),
        (np.zeros(2, [("user", "i4"), ("item", "2i4"), ("rating", "f4")]), "the field 'item' is of type"),
        (np.array(["x", None], object), "not a NumPy array without objects"),
    ],
)
def test_bad_arrays(tmp_path: Path, array: Any, message: str) -> None:
    """An array that does not tell its entries is refused."""
    np.save(tmp_path / "t.npy", array)
    refuses(tmp_path / "t.npy", message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"user": 1, "item": 2, "rating": 3}\n' * 120 + "{user: 1}\n", "line 121: is not a JSON object"),
        ("[1, 2, 3]\n", "line 1: is not a JSON object"),
        ('{"user": 1, "item": 2, "rating": 3}\n\n{"user": 1, "item": 3}\n', "line 3: the value is missing"),
        ('{"user": 1, "item": 2, "rating": "good"}\n', "line 1: the value 'good' is not a number"),
        ('{"a": 1, "b": 2, "c": 3, "d": 4}\n', "cannot tell which columns are row, column, value"),
        ('{"user": 1, "User": 1, "item": 2, "rating": 3}\n', "'user' and 'User' differ in case alone"),
        ("", "the file is empty"),
    ],
)
def test_bad_json(tmp_path: Path, content: str, message: str) -> None:
    """A line that is no entry is named."""
    (tmp_path / "t.jsonl").write_text(content)
    refuses(tmp_path / "t.jsonl", rf"t\.jsonl.*{message}")


def test_names_and_ids_in_json(tmp_path: Path) -> None:
    """Lines may lack what is not wanted, names may hold quotes, and ids are text as they are written."""
    lines = ['{"it\'s": "007", "x y": [1], "item": 2, "rating": 3.5}', '{"rating": "4", "item": 7, "it\'s": 7}']
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    found = read_table(tmp_path / "t.jsonl", row="it's")
    assert found.to_dict("list") == {"row": ["007", "7"], "column": [2, 7], "value": [3.5, 4]}


def test_tables_about_ids_in_json(tmp_path: Path) -> None:
    """All names in the file become columns, late ones too."""
    lines = [f'{{"id": {k}, "year": {1900 + k}}}' for k in range(150)] + ['{"id": 200, "genre": "war"}']
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    found, _ = read_lines(tmp_path / "t.jsonl")
    assert list(found) == ["year", "genre"]
    assert found.loc["200", "genre"] == "war"
    assert found.loc["7", "year"] == 1907


# ---- tables in memory -----------------------------------------------------------------------------------


class Handed:
    """A table of some other library, known by Arrow's interface alone."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


ARROW = pa.Table.from_pandas(FRAME)
IN_MEMORY: dict[str, Callable[[], Any]] = {
    "Arrow": lambda: ARROW,
    "large text, dictionary": lambda: ARROW.cast(
        pa.schema([("userId", pa.large_string()), ("movieId", "string"), ("rating", "float")])
    ).set_column(1, "movieId", ARROW["movieId"].cast("string").dictionary_encode()),
    "another library's": lambda: Handed(ARROW),
    "batches that come once": lambda: pa.RecordBatchReader.from_batches(ARROW.schema, ARROW.to_batches(1)),
    "a query": lambda: duckdb.sql("select * from ARROW"),
}


@pytest.mark.parametrize("name", IN_MEMORY)
@pytest.mark.parametrize("piece", [1, 1000])
def test_tables_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, piece: int) -> None:
    """Tables of Arrow's and of those that speak its interface, polars' too, are read, a stream piece by piece."""
    monkeypatch.setattr(columnar, "PIECE", piece)
    check_entries(ingest(IN_MEMORY[name]()))


def test_a_query_is_run_once() -> None:
    """DuckDB 2 runs a relation again at each fetch: one that is handed over is fetched once."""
    with duckdb.connect() as connection:
        connection.execute("create sequence runs")
        source = connection.sql("select i as user, i as item, nextval('runs') as rating from range(7) r(i)")
        assert ingest(source).nnz == 7
        assert connection.execute("select nextval('runs')").fetchall() == [(8,)]


def test_bad_tables_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong entry is named by its row in the whole, and what has no columns is refused."""
    monkeypatch.setattr(columnar, "PIECE", 2)
    values = pa.array([1.0, 2, 3, None, 5])
    table = pa.table({"user": [1, 2, 3, 4, 5], "item": [1, 2, 3, 4, 5], "rating": values})
    refuses(pa.Table.from_batches(table.to_batches(1)), "data frame, row 4: the value is missing")
    refuses(table.drop_columns("rating"), "cannot tell which columns")
    refuses(table.set_column(0, "user", values), "the row ids are of type double")
    refuses(pa.chunked_array([[1, 2]]), "data frame: is not a table of columns")


# ---- folders of Parquet ---------------------------------------------------------------------------------


def parts(folder: Path, names: list[str]) -> None:
    """Write a Parquet file for each name with the same place, whose value is the file's number in the list."""
    for value, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"user": [1, value + 2], "item": [5, 5], "rating": [value] * 2}).to_parquet(folder / name)


def test_parts_come_in_natural_order(tmp_path: Path) -> None:
    """With duplicates="last" part.10 comes after part.2: as in a folder, so in a list and a dask frame."""
    names = [f"part.{k}.parquet" for k in range(12)]
    parts(tmp_path / "p", names)
    files = [tmp_path / "p" / name for name in names]
    for source in (tmp_path / "p", files, dd.read_parquet([str(file) for file in files])):
        assert ingest(source, duplicates="last").to_scipy()[0, 0] == 11


def test_all_parts_of_a_folder(tmp_path: Path) -> None:
    """Files .pq, those in folders and Hive's partitions are read, in natural order; hidden ones hold no entries."""
    names = ["a.parquet", "b.pq", "part=2/x.parquet", "part=10/1.pq", "part=10/deep/0.parquet"]
    parts(tmp_path / "p", names)
    for name in ("_metadata.parquet", ".part=3/x.parquet", "_tmp/y.parquet", "notes.txt"):
        (tmp_path / "p" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "p" / name).write_text("nothing")
    told: list[tuple[str, int, int]] = []
    found = ingest(tmp_path / "p", duplicates="sum", progress=lambda *step: told.append(step))
    assert told[5] == ("reading", 5, 5)
    assert list(found.row_ids) == [1, 2, 3, 4, 5, 6]
    assert found.to_scipy().toarray()[:, 0].tolist() == [10, 0, 1, 2, 3, 4]
    assert ingest(tmp_path / "p", duplicates="last").to_scipy()[0, 0] == 4


def test_partitions_hold_a_column(tmp_path: Path) -> None:
    """A column that pandas wrote as names of folders is read from them; a missing value is told."""
    frame = FRAME.assign(kind=["a/b", "c d", "x=y", "7"])
    frame.to_parquet(tmp_path / "p", partition_cols=["rating"])
    check_entries(ingest(tmp_path / "p"))
    frame.to_parquet(tmp_path / "q", partition_cols=["kind", "userId"])
    found = read_table(tmp_path / "q", row="kind")
    assert set(zip(found["row"], found["value"], strict=True)) == set(zip(frame["kind"], frame["rating"], strict=True))
    assert read_lines(tmp_path / "q", "movieId")[0].loc[100, "kind"] == "7"
    frame.assign(kind=["a", None, "b", "c"]).to_parquet(tmp_path / "r", partition_cols=["kind"])
    refuses(tmp_path / "r", "row 1: the row is missing", row="kind")


def test_a_folder_without_parts(tmp_path: Path) -> None:
    """A folder of other files is refused."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "t.csv").write_text(text(","))
    refuses(tmp_path / "p", r"p: is a folder without \.parquet or \.pq files; name a file")


# ---- dense matrices and unnamed columns -----------------------------------------------------------------

MATRIX = np.array([[5, 3, 0, 1, 2], [4, 0, 0, 1, 2], [1, 1, 0, 5, 4]])


@pytest.mark.parametrize(
    ("delimiter", "matrix"),
    [
        (",", MATRIX),
        ("\t", MATRIX[:, :4]),
        (" ", MATRIX / 7),
        ("   ", MATRIX[:, :4] / 7),
        (";", (MATRIX[:, :3] + 1) / 7),
    ],
)
def test_a_dense_matrix_is_no_list_of_entries(tmp_path: Path, delimiter: str, matrix: Any) -> None:
    """Columns of numbers without names are refused where they may be a matrix, unless positions are given."""
    lines = [delimiter.join(f"{number:.6g}" for number in line) for line in matrix]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    message = f"{matrix.shape[1]} columns of numbers without names may be a dense matrix.* give the positions of row"
    refuses(tmp_path / "t.txt", message)
    positions = {"row": 1, "column": 2, "value": 3}
    assert ingest(tmp_path / "t.txt", duplicates="last", **positions).nnz == len(np.unique(matrix[:, :2], axis=0))
    with pytest.raises(InputError, match="may be a dense matrix"):
        read_table(tmp_path / "t.txt", pairs=True)


@pytest.mark.parametrize("line", ["ann,5,3,4", "ann,5,3,4,1", "1,5,3,,4", "1,5,3,881250949,881250949"])
def test_further_numbers_are_refused(tmp_path: Path, line: str) -> None:
    """Ids before a matrix, missing numbers in it and several times do not hide it."""
    (tmp_path / "t.csv").write_text(f"{line}\n{line}\n")
    refuses(tmp_path / "t.csv", "may be a dense matrix")


@pytest.mark.parametrize(
    "lines",
    [
        text("\t", tail="\t881250949"),
        text(",", tail=",1112486027.0"),
        text(",", tail=",881250949000"),
        text(",", tail=",2005-04-02,good"),
        text(",", tail=",2005-04-02,881250949"),
        text(",", tail=","),
        text("::", tail="::3::7"),
        text("\t", tail="\t881250949").replace("881250949", "", 1),
    ],
)
def test_unnamed_columns_of_entries(tmp_path: Path, lines: str) -> None:
    """A time may follow the value, and whatever is no number; '::' stands between the fields of entries alone."""
    (tmp_path / "t.txt").write_text(lines)
    check_entries(ingest(tmp_path / "t.txt"))


# ---- text as it comes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("# of ann\n%\n1,2,3\n", [(1, 2, 3)]),
        ("# of ann\nuser,item,rating\n# 9,9,9\n\n1,2,3\n  ## end\n#", [(1, 2, 3)]),
        ("% bip weighted\n% 2 3 4\n1 2 3\n4 5 6\n", [(1, 2, 3), (4, 5, 6)]),
        ("# ids\n#1,%2,3\n", [("#1", "%2", 3)]),
        ('# ids\n"a # b",c#,3\n', [("a # b", "c#", 3)]),
        ("#user,item,rating\n1,2,3\n", [(1, 2, 3)]),
        ("  1   2\t3 \n10 \t 20  4\t\n", [(1, 2, 3), (10, 20, 4)]),
        (" 1 2 3\n 10 20 4\n", [(1, 2, 3), (10, 20, 4)]),
        ('1,2,"1,000"\n2,2,"-12,345,678.5"\n3,2,5\n', [(1, 2, 1000), (2, 2, -12345678.5), (3, 2, 5)]),
        ("\ufeff# x\r\nuser;item;rating\r\n1;2;3\r\n", [(1, 2, 3)]),
    ],
)
def test_lines_as_they_come(tmp_path: Path, content: str, wanted: Any) -> None:
    """Lines of comment, runs of blanks and commas between digits do not hide the entries."""
    (tmp_path / "t.txt").write_bytes(content.encode())
    assert list(read_table(tmp_path / "t.txt").itertuples(index=False, name=None)) == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# x\n1,2,3\n\n# y\n3,4,bad\n", r"line 5: the value 'bad' is not a number"),
        ("# x\n1,2,3\n\n# y\n3,4\n", r"line 5: 2 fields where 3"),
        ("# x\n\n% y\n", r"t\.txt: the file is empty"),
        ("1;2;1,000\n", r"line 1: the value '1,000' is not a number; write decimals with a point, thousands without"),
        ('1,2,"1,00"\n', r"line 1: the value '1,00' is not a number; write decimals with a point, thousands without"),
        ('1,2,"0,125"\n', r"line 1: the value '0,125' is not a number; write decimals with a point"),
        ("1  2  3\n4  5\n", r"line 2: 2 fields where 3"),
    ],
)
def test_lines_that_are_wrong(tmp_path: Path, content: str, message: str) -> None:
    """A wrong line among comments and blanks is named by its own number."""
    (tmp_path / "t.txt").write_text(content)
    refuses(tmp_path / "t.txt", message)


@pytest.mark.parametrize("kind", ["csv", "blanks", "mtx"])
def test_mixed_line_ends(tmp_path: Path, kind: str) -> None:
    """Whichever lines end in CRLF and whichever in LF, the same entries are read."""
    lines = {
        "csv": ["user,item,rating", "1,1,4", "2,1,5", "2,2,6"],
        "blanks": ["# x", "1  1  4", "2  1  5", "2  2  6"],
        "mtx": ["%%MatrixMarket matrix coordinate real general", "2 2 1", "2 1 5"],
    }[kind]
    path = tmp_path / f"t.{kind}"
    for ends in itertools.product(["\n", "\r\n"], repeat=len(lines)):
        path.write_bytes("".join(map("".join, zip(lines, ends, strict=True))).encode())
        found = ingest(path) if kind == "mtx" else read_table(path)
        if kind == "mtx":
            assert found.to_scipy().toarray().tolist() == [[0, 0], [5, 0]]
        else:
            assert found.to_numpy().tolist() == [[1, 1, 4], [2, 1, 5], [2, 2, 6]]


def test_line_ends_that_change_late(tmp_path: Path) -> None:
    """Files that were joined are read, and a wrong entry in them is named."""
    first = "".join(f"{k},5,1\n" for k in range(40_000))
    (tmp_path / "t.csv").write_bytes((first + first.replace(",5,", ",6,").replace("\n", "\r\n")).encode())
    assert ingest(tmp_path / "t.csv").nnz == 80_000
    with (tmp_path / "t.csv").open("ab") as file:
        file.write(b"1,7,x\r\n")
    refuses(tmp_path / "t.csv", r"t\.csv, line 80001: the value 'x' is not a number")


@settings(deadline=None, max_examples=200)
@given(
    content=st.lists(st.sampled_from(["#", "# ", "% x", "%%", "a", ",", " ", "\t", "\n", "\r\n", "\r"]), max_size=12),
    block=st.integers(1, 9),
)
def test_a_copy_has_the_same_lines(tmp_path_factory: pytest.TempPathFactory, content: list[str], block: int) -> None:
    """However it is cut into blocks, a copy has the lines that Python sees, those of comments empty."""
    folder = tmp_path_factory.getbasetemp()
    source, target = folder / "source.txt", folder / "target.txt"
    source.write_bytes("".join(content).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "BLOCK", block)
        texts.copy_plain(source, target, comments=True)
    with texts.open_text(source) as file:
        wanted = [line.rstrip("\n") for line in file]
    found = target.read_bytes().decode().split("\n")
    assert found[: len(wanted)] == ["" if texts.is_comment(line) else line for line in wanted]
    assert found[len(wanted) :] in ([], [""])


# ---- sparse matrices ------------------------------------------------------------------------------------


def stored(kind: str) -> Any:
    """Give a matrix of a format that fills itself with zeros, with some or without."""
    if kind.startswith("dia"):
        diagonals = np.array([[1.0, 2, 3], [9, 4, 0 if kind.endswith("zeros") else 5]])
        return sp.dia_array((diagonals, [0, 1]), shape=(3, 3))
    dense = np.array([[1.0, 2, 0, 0], [3, 0 if kind.endswith("zeros") else 4, 0, 0]])
    return sp.csr_array(dense).tobsr((2, 2))


@pytest.mark.parametrize("kind", ["bsr", "dia"])
@pytest.mark.parametrize("file", [False, True])
def test_formats_that_are_filled_with_zeros(tmp_path: Path, kind: str, file: bool) -> None:
    """BSR and DIA are read where all they hold is observed, and refused where a zero may be observed or not."""

    def read(matrix: Any) -> Observations:
        if not file:
            return Observations.from_scipy(matrix)
        sp.save_npz(tmp_path / "m.npz", matrix)
        return ingest(tmp_path / "m.npz")

    whole = stored(kind)
    found = read(whole)
    assert found.nnz == whole.nnz == np.count_nonzero(whole.toarray())
    assert np.array_equal(found.to_scipy().toarray(), whole.toarray())
    with pytest.raises(InputError, match=f"{kind.upper()} does not tell observed zeros from those it is filled with"):
        read(stored(f"{kind}, zeros"))


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil"])
def test_stored_zeros_are_observed(tmp_path: Path, kind: str) -> None:
    """The other formats store what was observed, zeros too, and are not changed by being read."""
    matrix = sp.coo_array(([1.0, 0, 2], ([0, 1, 2], [1, 0, 2])), shape=(3, 4)).asformat(kind)
    before = matrix.copy()
    assert Observations.from_scipy(matrix).nnz == 3
    assert matrix.nnz == before.nnz
    assert (matrix != before).nnz == 0


def broken(kind: str) -> Any:
    """Give a matrix whose index arrays were changed after it was made."""
    if kind.startswith("coo"):
        matrix = sp.coo_array(([1.0, 2], ([0, 1], [0, 1])), shape=(2, 2))
        matrix.coords = (np.array([0, 7 if kind.endswith("beyond") else -1]), matrix.coords[1])
        return matrix
    matrix = sp.csr_array(([1.0, 2], [0, 1], [0, 1, 2]), shape=(2, 2)).asformat(kind[:3])
    if kind.endswith("pointers"):
        matrix.indptr[1] = 9
    else:
        matrix.indices[1] = 7 if kind.endswith("beyond") else -1
    return matrix


@pytest.mark.parametrize(
    "kind", [f"{name}, {what}" for name in ("csr", "csc") for what in ("beyond", "below", "pointers")]
)
def test_broken_compressed_matrices(kind: str) -> None:
    """Indices outside of the shape and pointers that go back are refused in one sentence."""
    with pytest.raises(InputError, match=r"observations: not a sound sparse matrix \(.*\); make it anew"):
        Observations.from_scipy(broken(kind))


@pytest.mark.parametrize("kind", ["coo, beyond", "coo, below"])
def test_broken_coordinates(kind: str) -> None:
    """Coordinates outside of the shape are refused in one sentence."""
    with pytest.raises(InputError, match=r"observations: not a sound sparse matrix \(.*\); make it anew"):
        Observations.from_scipy(broken(kind))


def test_npz_files_of_other_things(tmp_path: Path) -> None:
    """Arrays, and sparse arrays of one or three dimensions, are refused; two of the sparse package's are read."""
    np.savez(tmp_path / "arrays.npz", users=np.ones(3), items=np.ones(3))

    def refuses(name: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            ingest(tmp_path / name)

    refuses("arrays.npz", "holds the arrays users, items and no sparse matrix; save one")
    for shape in ((4,), (3, 2, 2)):
        array = sparse.COO(np.zeros((len(shape), 1), int), [1.0], shape=shape)
        sparse.save_npz(tmp_path / "theirs.npz", array)
        refuses("theirs.npz", f"a sparse array of {len(shape)} dimensions")
        sp.save_npz(
            tmp_path / "scipy.npz", array.to_scipy_sparse() if len(shape) == 2 else sp.coo_array(array.todense())
        )
        refuses("scipy.npz", f"a sparse array of {len(shape)} dimensions")
    sparse.save_npz(tmp_path / "two.npz", sparse.COO(np.array([[0, 2], [1, 1]]), [3.0, 4.0], shape=(3, 2)))
    assert ingest(tmp_path / "two.npz").to_scipy().toarray().tolist() == [[0, 3], [0, 0], [0, 4]]
