"""Users' tables in the store: matched by id, read by AnnData and from it, whole or not there, as numbers for a fit."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from rfmdist import Completion, InputError, LinRFM, Observations, StoreError
from rfmdist.__main__ import main
from rfmdist.observations.side import side_columns

SCRIPT = Path(__file__).parents[1] / "scripts" / "movielens.py"
ROWS, COLUMNS = ["a", "b", "c", "d"], [10, 20, 30]


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Observations:
    """Give observations of rows a, b, c, d and columns 10, 20, 30, on disk and in memory."""
    return made(tmp_path / "s" if request.param == "disk" else None)


def made(path: Path | None) -> Observations:
    """Give a store of 4 x 3."""
    return Observations.from_scipy(sp.csr_array(np.ones((4, 3))), path, row_ids=ROWS, column_ids=COLUMNS)


def people() -> pd.DataFrame:
    """Give a table of all kinds of columns without a missing value, in the order of the store."""
    columns = {
        "age": [30, 20, 25, 41],
        "height": np.array([1.5, 1.75, 2, 1.25], np.float32),
        "member": [True, False, False, True],
        "town": ["Ulm", "Oslo", "Ulm", "Åre"],
        "size": pd.Categorical(["S", "L", "S", "M"], ["S", "M", "L", "XL"], ordered=True),
        "group": pd.Categorical([7, 3, 7, 7]),
    }
    return pd.DataFrame(columns, index=ROWS)


def stored(frame: pd.DataFrame) -> pd.DataFrame:
    """Give the same table in the types that a store keeps."""
    return frame.astype({"age": np.int64, "height": np.float64, "town": "category"})


# ---- round trips ----------------------------------------------------------------------------------------


def test_what_goes_in_comes_out(store: Observations) -> None:
    """All kinds of columns come out in the ids' order, whatever the order and the other ids of the table."""
    table = pd.concat([people(), people().iloc[:1].set_axis(["z"])]).astype({"size": people()["size"].dtype})
    told = store.store_table("rows", table.iloc[[2, 4, 0, 3, 1]])
    assert (told.names, told.matched, told.lacking, told.ignored) == (tuple(people()), 4, 0, 1)
    wanted = stored(people())
    found = store.table("rows")
    pd.testing.assert_frame_equal(found.astype({"group": wanted["group"].dtype}), wanted)
    assert found["group"].tolist() == [7, 3, 7, 7]
    assert store.table_names("rows") == list(wanted)
    assert store.table_names("columns") == []
    assert store.table("columns").shape == (3, 0)
    assert list(store.table("rows", ["town", "age"])) == ["town", "age"]


@pytest.mark.filterwarnings("ignore:.*str index")
def test_anndata_reads_them(tmp_path: Path) -> None:
    """AnnData shows the stored tables as the data frames obs and var."""
    anndata = pytest.importorskip("anndata")
    store = made(tmp_path / "s")
    store.store_table("rows", people())
    store.store_table("columns", pd.DataFrame({"year": [1990, 2001], "new": [True, False]}, index=[30, 10]))
    found = anndata.read_zarr(tmp_path / "s")
    pd.testing.assert_frame_equal(found.obs, stored(people()), check_index_type=False)
    assert found.var["year"].tolist()[::2] == [2001, 1990]
    assert np.isnan(found.var.loc["20", "year"])
    assert found.var["new"].tolist()[::2] == [0.0, 1.0]


@pytest.mark.filterwarnings("ignore:.*autosharding")
def test_tables_of_anndata_are_read(tmp_path: Path) -> None:
    """Every encoding that AnnData writes for numbers, text and categories is read."""
    anndata = pytest.importorskip("anndata")
    store = made(tmp_path / "s")
    frame = stored(people()).assign(
        name=["w", "x", "y", "z"],
        small=np.arange(4, dtype=np.uint8),
        count=pd.array([1, None, 3, 4], "Int64"),
        sure=pd.array([True, None, False, True], "boolean"),
        degree=pd.Categorical([0.5, 1.5, None, 0.5]),
        infinite=[np.inf, 0, 0, 0],
    )
    root = zarr.open_group(tmp_path / "s", mode="r+")
    anndata.io.write_elem(root, "obs", frame)
    pd.testing.assert_frame_equal(store.table("rows"), frame, check_index_type=False)
    kinds = store.table_kinds("rows")
    assert (kinds["count"], kinds["sure"], kinds["name"]) == ("integers", "yes or no", "text")
    assert side_columns(store, "rows", ["count", "sure", "name"]).shape == (4, 6)
    with pytest.raises(InputError, match="the column 'infinite' holds an infinite value"):
        side_columns(store, "rows", ["infinite"])
    root["obs/name"].attrs["encoding-type"] = "awkward-array"
    with pytest.raises(InputError, match="the column obs/name is encoded as awkward-array; store it again"):
        store.table("rows", ["name"])
    assert store.table_kinds("rows")["name"] == "awkward-array"
    store.store_table("rows", people()[["town"]].rename(columns={"town": "name"}))
    assert store.table("rows")["name"].tolist() == people()["town"].tolist()


def test_ids_without_a_line(store: Observations) -> None:
    """They get missing values: numbers, also those of false and true, become float64 with NaN."""
    told = store.store_table("rows", people().loc[["d", "b"]])
    assert (told.matched, told.lacking, told.ignored) == (2, 2, 0)
    found = store.table("rows")
    assert found.dtypes.astype(str).tolist() == ["float64"] * 3 + ["category"] * 3
    assert found.loc[["a", "c"]].isna().all(axis=None)
    assert found.loc["b"].tolist() == [20, 1.75, 0, "Oslo", "L", 3]


@pytest.mark.parametrize("ids", [[30, 10], ["30", "10"], [30.0, 10.0]])
def test_integers_and_text_meet(store: Observations, ids: list[Any]) -> None:
    """Ids are found whether they are written as numbers or as text."""
    store.store_table("columns", pd.DataFrame({"year": [3, 1]}, index=ids))
    assert store.table("columns")["year"].tolist()[::2] == [1, 3]


def test_missing_values_of_all_kinds(store: Observations) -> None:
    """None, NaN, NA and whole empty columns are missing; text of no value has no category."""
    columns = {
        "none": [None] * 4,
        "text": pd.array([None, "x", None, "y"], "string"),
        "count": pd.array([1, None, 3, 4], "Int64"),
        "nothing": pd.Categorical([None] * 4),
    }
    store.store_table("rows", pd.DataFrame(columns, index=ROWS))
    found = store.table("rows")
    assert found["none"].isna().all()
    assert found["text"].cat.categories.tolist() == ["x", "y"]
    assert np.array_equal(found["count"], [1, np.nan, 3, 4], equal_nan=True)
    assert found["nothing"].isna().all()
    assert side_columns(store, "rows", ["none", "nothing"]).shape == (4, 0)


def test_a_column_is_replaced(store: Observations) -> None:
    """One of the same name takes its place, of whatever kind; the others stay."""
    store.store_table("rows", people())
    for values in (["x", "y", "x", "z"], [1.5, 2, 3, 4]):
        store.store_table("rows", pd.DataFrame({"age": values}, index=ROWS))
        assert store.table("rows")["age"].tolist() == values
        assert store.table("rows")["town"].tolist() == people()["town"].tolist()
        assert store.table_names("rows") == list(people())


def test_the_view_by_column(store: Observations) -> None:
    """Rows and columns change names as the ids do; changes are made to the observations by row."""
    store.store_table("rows", people())
    store.store_table("columns", pd.DataFrame({"year": [1, 2, 3]}, index=COLUMNS))
    view = store.by_column()
    assert view.table("rows")["year"].tolist() == [1, 2, 3]
    assert view.table_names("columns") == list(people())
    assert side_columns(view, "columns", ["age"]).shape == (4, 1)
    with pytest.raises(InputError, match="change the observations by row instead"):
        view.store_table("rows", people())


# ---- files ----------------------------------------------------------------------------------------------

TEXT = """name,age,height,town,zip,member,note
d,41,1.25,Åre,1000,True,
a,30,,Ulm,0300,false,
q,1,1,q,1,true,
b,20,1.75,NA,1200,TRUE,
"""


@pytest.mark.parametrize("kind", ["csv", "tsv", "::", "second", "csv.gz"])
def test_text_files(store: Observations, tmp_path: Path, kind: str) -> None:
    """The header names the columns; fields are numbers where all are, and text such as 0300 stays text."""
    lines = [line.split(",") for line in TEXT.splitlines()]
    if kind == "second":
        lines = [[line[1], line[0], *line[2:]] for line in lines]
    text = "\n".join({"tsv": "\t", "::": "::"}.get(kind, ",").join(line) for line in lines)
    file = tmp_path / f"people.{kind}"
    file.write_bytes(gzip.compress(text.encode()) if kind == "csv.gz" else text.encode())
    told = store.store_table("rows", file, ids="name" if kind == "second" else None)
    assert (told.matched, told.lacking, told.ignored) == (3, 1, 1)
    assert told.names == ("age", "height", "town", "zip", "member", "note")
    found = store.table("rows")
    assert found.loc["d"].tolist()[:5] == [41, 1.25, "Åre", "1000", 1]
    assert found.loc["a"].isna().tolist() == [False, True, False, False, False, True]
    assert found.loc[["b"]].isna().to_numpy().tolist() == [[False, False, True, False, False, True]]


def test_numbers_of_text_keep_their_kind(store: Observations, tmp_path: Path) -> None:
    """Whole numbers are integers and true and false are bool where each id has a line."""
    (tmp_path / "t.csv").write_text("id,i,f,b,s\n30,1,1,true,x\n10,2,2.5,False,1x\n20,-3,1e3,TRUE,2\n")
    store.store_table("columns", tmp_path / "t.csv")
    assert store.table_kinds("columns") == {"i": "integers", "f": "numbers", "b": "yes or no", "s": "3 categories"}
    assert store.table("columns").loc[20].tolist() == [-3, 1000, True, "2"]


@pytest.mark.parametrize("parts", [1, 2])
def test_parquet(store: Observations, tmp_path: Path, parts: int) -> None:
    """A Parquet file or a folder of them is read with its own types."""
    table = people().drop(columns="group").astype({"size": object}).rename_axis("id").reset_index()
    (tmp_path / "t").mkdir()
    for part, lines in enumerate(np.array_split(np.arange(4), parts)):
        table.iloc[lines].to_parquet(tmp_path / "t" / f"{part}.parquet", index=False)
    store.store_table("rows", tmp_path / "t" if parts > 1 else tmp_path / "t" / "0.parquet")
    assert store.table("rows").to_numpy().tolist() == people().drop(columns="group").to_numpy().tolist()
    assert store.table_kinds("rows")["member"] == "yes or no"


# ---- damage and full disks ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*str index")
@pytest.mark.parametrize("part", ["obs/height", "obs/town", "categories/c", "obs/group", "obs/zarr.json"])
def test_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, part: str) -> None:
    """A table that does not fit on the disk leaves everything as it was, replaced columns too."""
    anndata = pytest.importorskip("anndata")
    store = made(tmp_path / "s")
    earlier = people()[["town", "age"]].iloc[::-1].set_axis(ROWS)
    store.store_table("rows", earlier)
    before = faults.snapshot(tmp_path)
    with monkeypatch.context() as patch:
        refused = faults.fill_disk_at(patch, part)
        with pytest.raises(StoreError, match="disk is full"):
            store.store_table("rows", people() if part != "obs/zarr.json" else people()[["height", "size"]])
        assert refused
    assert faults.snapshot(tmp_path) == before
    assert store.table("rows")["age"].tolist() == earlier["age"].tolist()
    store.store_table("rows", people())
    pd.testing.assert_frame_equal(anndata.read_zarr(tmp_path / "s").obs[list(people())], stored(people()))


@pytest.mark.parametrize("name", ["age.1234abcd.partial", "new"])
def test_a_torn_write_is_not_seen(tmp_path: Path, name: str) -> None:
    """What a killed process has left, under its temporary name or not yet listed, is neither read nor in the way."""
    anndata = pytest.importorskip("anndata")
    store = made(tmp_path / "s")
    store.store_table("rows", people()[["age"]])
    shutil.copytree(tmp_path / "s" / "obs" / "age", tmp_path / "s" / "obs" / name)
    assert Observations.open(tmp_path / "s").table_names("rows") == ["age"]
    assert list(anndata.io.read_elem(zarr.open_group(tmp_path / "s")["obs"])) == ["age"]
    store.store_table("rows", people()[["town"]].rename(columns={"town": "new"}))
    assert store.table("rows")["new"].tolist() == people()["town"].tolist()


@pytest.mark.parametrize("column", ["age", "height", "member", "town/codes", "town/categories", "group/categories"])
@pytest.mark.parametrize("how", ["lost", "flipped", "gone"])
def test_damage_is_told(tmp_path: Path, column: str, how: str) -> None:
    """A lost or damaged chunk of any column, or a lost array, is an error rather than other values."""
    store = made(tmp_path / "s")
    store.store_table("rows", people())
    array = tmp_path / "s" / "obs" / column
    (chunk,) = faults.shards(tmp_path / "s" / "obs", column)
    if how == "flipped":
        faults.flip_byte(chunk)
    elif how == "lost":
        chunk.unlink()
    else:
        (array / "zarr.json").unlink()
    name = column.split("/")[0]
    with pytest.raises(StoreError, match=f"obs/{name}.*(missing|damaged|gone)"):
        store.table("rows", [name])
    store.store_table("rows", people()[[name]])
    assert store.table("rows", [name])[name].tolist() == people()[name].tolist()


# ---- refusals -------------------------------------------------------------------------------------------


def frame(name: Any = "x", values: Any = (1, 2, 3), ids: Any = ("a", "b", "c")) -> pd.DataFrame:
    """Give a table of one column."""
    return pd.DataFrame({name: values}, index=ids)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (frame("_index"), "a column of a store cannot be called '_index'; rename it"),
        (frame(""), "cannot be called ''"),
        (frame("a/b"), "cannot be called 'a/b'"),
        (frame("zarr.json"), "cannot be called 'zarr.json'"),
        (frame("__x"), "cannot be called '__x'"),
        (frame("x" * 201), "cannot be called 'xxx"),
        (frame(7), "the column name 7 is not text"),
        (frame()[[]], "has no column beside the ids"),
        (pd.concat([frame(), frame()], axis=1), "two columns are called 'x'"),
        (frame(ids=["a", "b", "a"]), "the id a has 2 lines; keep one of them"),
        (frame(ids=["x", "y", "z"]), "none of its 3 ids is in .*; name the column of ids"),
        (frame(values=[1, np.inf, 2]), "the column 'x' is infinite at the id b"),
        (frame(values=[1, 2, 1 << 63, 0], ids=ROWS), f"holds {1 << 63}, which is more than int64 keeps"),
        (frame(values=[1, "x", 2.5]), "the column 'x' holds mixed-integer values; make them numbers or text"),
        (frame(values=pd.to_datetime(["2020"] * 3)), "the column 'x' holds datetime64 values"),
        (frame(values=[1j, 2, 3]), "the column 'x' holds complex values"),
        (frame(values=pd.Categorical([0.5, 1, 0.5])), "has categories that are floating values; make them text"),
        ([1, 2], "a table must be a path or a data frame, not list"),
        ("nope.csv", "nope.csv: no such file"),
    ],
)
def test_wrong_tables(tmp_path: Path, table: Any, message: str) -> None:
    """They are refused in one sentence and nothing is stored."""
    store = made(tmp_path / "s")
    before = faults.snapshot(tmp_path)
    with pytest.raises(InputError, match=message):
        store.store_table("rows", table)
    assert faults.snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "ids", "message"),
    [
        ("a,1\nb,2\n", None, "t.csv, line 1: 1 stands where the name of a column is expected"),
        ("id,x\na,1\nb\n", None, "t.csv, line 3: 1 fields where 2 are expected"),
        ("id,x\na,1\nb,inf\n", None, "the column 'x' is infinite at the id b"),
        ("id,x\na,1\n", "key", "t.csv: no column 'key' for row; its columns are id, x"),
        ("id,x,x\na,1,2\n", None, "two columns are called 'x'"),
        ("id,\na,1\n", None, "cannot be called ''"),
        ("id,x\n", None, "none of its 0 ids"),
        ("id\na\n", None, "name the delimiter"),
        ("", None, "t.csv: the file is empty"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, ids: str | None, message: str) -> None:
    """They are refused in one sentence that names the line or the column."""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        made(None).store_table("rows", tmp_path / "t.csv", ids=ids)


def test_what_is_not_there(store: Observations) -> None:
    """A name that is not known is refused with those that are, and an axis with the two that are."""
    with pytest.raises(InputError, match="no column 'age' beside the ids in obs; there is none yet; store a table"):
        store.table("rows", ["age"])
    store.store_table("rows", people())
    with pytest.raises(InputError, match=r"no column 'Age' .* there are age, height, member, town, size, group"):
        store.table("rows", ["Age"])
    with pytest.raises(InputError, match="axis 'row' is not known: use 'rows' or 'columns'"):
        store.table("row")  # type: ignore[arg-type]


def test_completions_refuse(tmp_path: Path) -> None:
    """What a completion was fitted with is not changed."""
    matrix = np.random.default_rng(0).normal(size=(30, 20))
    LinRFM(max_iter=2, ridge=0.1).fit(sp.csr_array(matrix)).completion_.save(tmp_path / "c")
    with pytest.raises(InputError, match="is a completion; change the store it was fitted to"):
        Completion.open(tmp_path / "c").observations.store_table("rows", frame(ids=[0, 1, 2]))


# ---- numbers for a fit ----------------------------------------------------------------------------------


def test_side_columns_by_hand(store: Observations) -> None:
    """Numbers have mean 0 and deviation 1 over the ids with a value, categories too; missing is 0."""
    columns = {
        "age": [1.0, 3.0, np.nan, 5.0],
        "same": [2.0, 2.0, np.nan, 2.0],
        "town": pd.Categorical(["x", None, "y", "x"], ["z", "y", "x"]),
        "sure": [True, True, True, False],
    }
    store.store_table("rows", pd.DataFrame(columns, index=ROWS))
    age = np.array([-2, 0, 0, 2]) / np.sqrt(8 / 3)
    sure = np.array([0.25, 0.25, 0.25, -0.75]) / np.sqrt(3 / 16)
    y = np.array([-1 / 3, 0, 2 / 3, -1 / 3]) / np.sqrt(2 / 9)
    found = side_columns(store, "rows", ["sure", "town", "same", "age"])
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.stack([sure, y, -y, age], axis=1), rtol=1e-14, atol=1e-15)


def test_no_side_columns(store: Observations) -> None:
    """Without names there is an array without columns."""
    assert side_columns(store, "rows", []).shape == (4, 0)
    assert side_columns(store, "columns", []).shape == (3, 0)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_side_columns_of_any_size(scale: float) -> None:
    """Huge and tiny numbers are standardised without overflow, and a constant is one whatever its rounding."""
    store = made(None)
    table = pd.DataFrame({"x": np.array([1, -1, 1, -1]) * scale, "same": [0.1 * scale] * 4}, index=ROWS)
    store.store_table("rows", table)
    np.testing.assert_allclose(side_columns(store, "rows", ["x", "same"])[:, 0], [1, -1, 1, -1], rtol=1e-14)


def test_too_many_categories() -> None:
    """64 categories are used, 65 are refused with the way out; those that do not occur are not counted."""
    store = Observations.from_scipy(sp.csr_array(np.ones((70, 1))))
    for count in (64, 65):
        values = pd.Categorical([f"c{k % count}" for k in range(70)], [f"c{k}" for k in range(100)])
        store.store_table("rows", pd.DataFrame({"street": values}))
        if count == 64:
            assert side_columns(store, "rows", ["street"]).shape == (70, 64)
    with pytest.raises(InputError, match=r"the column 'street' has 65 categories, of which at most 64 .*; group them"):
        side_columns(store, "rows", ["street"])


def test_pandas_is_imported_late() -> None:
    """The modules that a fit needs do not bring pandas in."""
    code = "import sys, rfmdist.observations.side; assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SCRIPT.parents[1])


# ---- command line and MovieLens -------------------------------------------------------------------------


def told(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    """Run a command in this process; give its exit code, output and errors."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0), *capsys.readouterr()


def test_annotate_and_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verb stores what Python does and counts the ids; info lists the columns with their kinds."""
    made(tmp_path / "s")
    (tmp_path / "t.txt").write_text("age;name\n30;a\n1;q\n25;c\n")
    code, out, _ = told(capsys, "annotate", tmp_path / "s", tmp_path / "t.txt", "--rows", "--id", "name")
    assert code == 0
    assert out.endswith("added age; 2 ids matched, 2 of the store's had no line, 1 lines of other ids ignored\n")
    assert Observations.open(tmp_path / "s").table("rows")["age"].tolist()[::2] == [30, 25]
    facts = json.loads(told(capsys, "info", tmp_path / "s", "--json")[1])
    assert (facts["row_table"], facts["column_table"]) == ({"age": "numbers"}, None)
    assert "row table       age numbers\n" in told(capsys, "info", tmp_path / "s")[1]


def test_annotate_refuses_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids of the other axis, and no axis at all, are told; the exit code is 2."""
    made(tmp_path / "s")
    (tmp_path / "t.csv").write_text("name,age\na,30\n")
    code, _, error = told(capsys, "annotate", tmp_path / "s", tmp_path / "t.csv", "--columns")
    assert code == 2
    assert "t.csv: none of its 1 ids is in" in error
    code, _, error = told(capsys, "annotate", tmp_path / "s", tmp_path / "t.csv")
    assert code == 2
    assert "--rows" in error


def converted(release: Path, tmp_path: Path) -> Observations:
    """Run the script on a release."""
    subprocess.run(
        [sys.executable, SCRIPT, release, "-o", tmp_path / "store", "--overwrite"],
        check=True,
        capture_output=True,
        env={"PYTHONPATH": str(SCRIPT.parents[1])},
    )
    return Observations.open(tmp_path / "store")


@pytest.mark.parametrize("zipped", [False, True])
def test_movielens_1m_tables(tmp_path: Path, zipped: bool) -> None:
    """The script stores year and genres of films, age, sex and occupation of users, as 1M has them."""
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    pairs = [(u, f) for u in (1, 2) for f in range(1, 31)]
    (folder / "ratings.dat").write_text("".join(f"{u}::{f}::{(u + f) % 5 + 1}::9\n" for u, f in pairs))
    films = "1::Été (a.k.a. X) (1995)::Drama|Sci-Fi\n2::No year::Drama\n99::Unseen (2000)::War\n"
    (folder / "movies.dat").write_text(films, "latin-1")
    (folder / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")
    if zipped:
        with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"ml-1m/{file.name}")
        folder = tmp_path / "ml-1m.zip"
    store = converted(folder, tmp_path)
    films = store.table("columns")
    assert list(films) == ["year", "Drama", "Sci-Fi", "War"]
    assert films.loc[1].tolist() == [1995, 1, 1, 0]
    assert films.loc[2].tolist()[1:] == [1, 0, 0]
    assert films["year"].count() == 1
    assert store.table("rows").loc[2].tolist() == [56, "M", "16"]


def test_movielens_100k_tables(movielens_100k: Path, tmp_path: Path) -> None:
    """The same from 100K, whose films have 19 flags and a date of release."""
    store = converted(movielens_100k, tmp_path)
    films, users = store.table("columns"), store.table("rows")
    assert films.shape == (1682, 20)
    assert films.loc[1, ["year", "Animation", "Children's", "Comedy", "Drama"]].tolist() == [1995, 1, 1, 1, 0]
    assert films["year"].isna().sum() == 1
    assert users.loc[1].tolist() == [24, "M", "technician"]
    found = side_columns(store, "rows", ["age", "sex", "occupation"])
    assert found.shape == (943, 24)
    np.testing.assert_allclose([found.mean(0), found.std(0)], [np.zeros(24), np.ones(24)], atol=1e-12)
