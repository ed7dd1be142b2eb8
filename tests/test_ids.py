"""Ids of every dtype that pandas has for integers and text, and the index that pandas keeps in Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from rfmdist import Completion, InputError, LinRFM, Observations
from rfmdist.observations.ids import codes_of, is_integer

ROWS, COLUMNS = ["b", "a", "ä", "10"], [30, 10, 20]
TEXT = {
    "objects": lambda ids: pd.Index(ids, dtype=object),
    "pandas' own": pd.Index,
    "string": lambda ids: pd.array(ids, "string[python]"),
    "arrow string": lambda ids: pd.array(ids, "string[pyarrow]"),
    "large arrow string": lambda ids: pd.array(ids, pd.ArrowDtype(pa.large_string())),
    "categories": pd.Categorical,
    "numpy's fixed": lambda ids: np.array(ids, str),
    "numpy's own": lambda ids: np.array(ids, np.dtypes.StringDType()),
    "a list": list,
    "a series": pd.Series,
}
INTEGERS = {
    "int64": lambda ids: np.array(ids, np.int64),
    "uint8": lambda ids: np.array(ids, np.uint8),
    "nullable": lambda ids: pd.array(ids, "Int32"),
    "arrow": lambda ids: pd.array(ids, "int16[pyarrow]"),
    "categories": pd.Categorical,
    "objects": lambda ids: np.array(ids, object),
    "text": lambda ids: pd.Index(list(map(str, ids))),
    "floats": lambda ids: np.array(ids, float),
    "a list": list,
    "a range": lambda ids: pd.RangeIndex(ids[0], ids[-1] + 1, ids[1] - ids[0]),
}
"""Ways to give the same ids, by name; some of them are what other packages and versions of pandas give."""


def made(path: Path | None = None, rows: Any = ROWS, columns: Any = COLUMNS) -> Observations:
    """Give a store of 4 x 3."""
    return Observations.from_scipy(
        sp.csr_array(np.arange(1.0, 13).reshape(4, 3)), path, row_ids=rows, column_ids=columns
    )


@pytest.mark.parametrize("form", TEXT)
def test_text_of_every_dtype(form: str, tmp_path: Path) -> None:
    """Text is taken as the ids of a store, read back as text and looked up, whatever holds it."""
    store = made(tmp_path / "s", rows=TEXT[form](ROWS))
    assert Observations.open(tmp_path / "s").row_ids.tolist() == ROWS
    assert not is_integer(store.row_ids)
    assert store.row_codes(TEXT[form](["10", "x", "b"])).tolist() == [3, -1, 0]
    store.store_table("rows", pd.DataFrame({"age": [3, 0]}, index=pd.Index(TEXT[form](["10", "b"]))))
    np.testing.assert_array_equal(store.table("rows")["age"], [0, np.nan, np.nan, 3])


@pytest.mark.parametrize("form", INTEGERS)
def test_integers_of_every_dtype(form: str) -> None:
    """Integers are looked up by what they are, whatever holds them; all but floats make the ids of a store."""
    ids = INTEGERS[form]([10, 20, 30])
    assert codes_of(pd.Index(COLUMNS), INTEGERS[form]([10, 15, 20])).tolist() == [1, -1, 2]
    if form == "floats":
        with pytest.raises(InputError, match="must be integers or text, not float"):
            made(columns=ids)
        return
    found = made(columns=ids)
    assert is_integer(found.column_ids) == (form != "text")
    assert found.column_codes([30, "20", 11]).tolist() == [2, 1, -1]


@pytest.mark.parametrize(
    "rows", [ROWS, [7, 5, 3, 9], np.array([1 << 63, 2, 3, 4], np.uint64)], ids=["text", "int", "uint"]
)
def test_answers_by_id(tmp_path: Path, rows: Any) -> None:
    """A completion answers for ids of either kind as they are, as text, and by code, before and after saving."""
    fitted = LinRFM(max_iter=2, ridge=0.1).fit(made(tmp_path / "s", rows=rows)).completion_
    fitted.save(tmp_path / "c")
    for completion in (fitted, Completion.open(tmp_path / "c")):
        wanted = completion.predict([0, 1, 2, 3], [1], codes=True)
        for ids in (list(rows), list(map(str, rows)), completion.observations.row_ids):
            assert completion.predict(ids, ["10"]).tolist() == wanted.tolist()
            found = completion.recommend(ids, 2, exclude_observed=False)
            assert found["row"].astype(str).tolist() == np.repeat(list(map(str, rows)), 2).tolist()
        assert set(completion.similar([20, "30"])["column"]) == {20, 30}
        with pytest.raises(InputError, match="column id 11 was not seen"):
            completion.predict(rows[0], 11, unknown="error")


# ---- the index that pandas keeps ------------------------------------------------------------------------


def joined(path: Path, columns: Any = COLUMNS, ids: str | None = None) -> list[float]:
    """Give the years of the columns of a store by the table of a file."""
    store = made(columns=columns)
    store.store_table("columns", path, ids=ids)
    return store.table("columns")["year"].tolist()


@pytest.mark.parametrize(
    "index", [[30, 10, 20], pd.RangeIndex(30, 0, -10), ["30", "10", "20"], pd.Index([30, 10, 20], name="film")]
)
def test_the_index_of_a_parquet_file_holds_the_ids(tmp_path: Path, index: Any) -> None:
    """An index that was chosen is joined by, also where pandas keeps a range in its metadata; a named column wins."""
    years = dict(zip(map(int, index), [1930, 1910, 1920], strict=True))
    pd.DataFrame({"sequel": [10, 20, 30], "year": [1930, 1910, 1920]}, index=index).to_parquet(tmp_path / "t.parquet")
    assert joined(tmp_path / "t.parquet") == [years[k] for k in COLUMNS]
    assert joined(tmp_path / "t.parquet", ids="sequel") == [1920, 1930, 1910]
    if getattr(index, "name", None):
        assert joined(tmp_path / "t.parquet", ids="film") == [1930, 1910, 1920]


def test_an_index_that_counts_lines_is_none_of_ids(tmp_path: Path) -> None:
    """A column named as one of ids, or one that fits better, is joined by; where both fit as well that is told."""
    table, file = pd.DataFrame({"movieId": [20, 10, 30], "year": [3, 2, 1]}), tmp_path / "t.parquet"
    for lines in (table, table.iloc[::-1], table.set_index([[5, 5, 7]])):
        lines.to_parquet(file)
        assert joined(file) == [1, 2, 3]
        lines.rename(columns={"movieId": "film"}).to_parquet(file)
        assert joined(file, ids="film") == [1, 2, 3]
    table.rename(columns={"movieId": "film"}).to_parquet(file)
    assert joined(file) == [1, 2, 3]
    pd.DataFrame({"rank": [2, 0, 1], "year": [3, 2, 1]}).to_parquet(file)
    with pytest.raises(InputError, match=r"its ids may be the column 'rank' or the index, which has no name; name"):
        joined(file, columns=[0, 1, 2])
    assert joined(file, columns=[0, 1, 2], ids="rank") == [2, 1, 3]
    pd.DataFrame({"year": [3, 2, 1]}).to_parquet(file)
    assert joined(file, columns=[0, 1, 2]) == [3, 2, 1]


def test_parquet_files_of_others(tmp_path: Path) -> None:
    """Without pandas' metadata the first column holds the ids; parts are one table; levels are refused."""
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"film": [20, 10, 30], "year": [3, 2, 1]}), file)
    assert joined(file) == [1, 2, 3]
    (tmp_path / "parts").mkdir()
    table = pd.DataFrame({"x": [0] * 3, "year": [1, 2, 3]}, index=COLUMNS)
    for name, part in (("0", table[:2]), ("1", table[2:])):
        part.to_parquet(tmp_path / "parts" / f"{name}.parquet")
    assert joined(tmp_path / "parts") == [1, 2, 3]
    levels = pd.MultiIndex.from_product([[20, 10, 30], [1]], names=["film", "part"])
    pd.DataFrame({"year": [3, 2, 1]}, index=levels).to_parquet(file)
    assert joined(file, ids="film") == [1, 2, 3]
    with pytest.raises(InputError, match="its index has 2 levels; name the one of ids"):
        joined(file)
