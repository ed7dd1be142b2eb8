"""Stores whose obs and var AnnData has rewritten: written here, read and written by AnnData, opened here again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from rfmdist import Completion, LinRFM, Observations, StoreError

anndata = pytest.importorskip("anndata", reason="AnnData is not installed here")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*autosharding", "ignore:.*str index", "ignore:Writing zarr v2"),
]

IDS = {"text": ["b", "ä", "", "10"], "integers": [7, 5, 3, 9]}
MATRIX = sp.csr_array(np.arange(1, 13, dtype=float).reshape(4, 3))
TABLE = {"town": ["Ulm", "Oslo", "Ulm", "Åre"], "age": [30, 20, 25, 41], "member": [True, False, False, True]}


@pytest.fixture(autouse=True)
def nullable_text() -> Any:
    """Let AnnData write text that may be missing, which its versions before 0.13 refuse if not told."""
    with anndata.settings.override(allow_write_nullable_strings=True):
        yield


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("name", [None, "user"])
def test_a_completion_whose_obs_anndata_rewrote(tmp_path: Path, kind: str, name: str | None) -> None:
    """Ids, tables and predictions are as before, whatever AnnData 0.11 to 0.13 makes of the index."""
    store = Observations.from_scipy(MATRIX, tmp_path / "s", row_ids=IDS[kind], column_ids=["x", "y", "z"])
    store.store_table("rows", pd.DataFrame(TABLE, index=IDS[kind]))
    LinRFM(max_iter=1, ridge=0.1).fit(store).completion_.save(tmp_path / "c")
    wanted = Completion.open(tmp_path / "c").predict(IDS[kind], ["z"])
    for path in (tmp_path / "s", tmp_path / "c"):
        read = anndata.read_zarr(path)
        read.obs.index.name = name
        read.obs["new"] = pd.Categorical(["p", None, "q", "p"])
        root = zarr.open_group(path, mode="r+")
        anndata.io.write_elem(root, "obs", read.obs)
        anndata.io.write_elem(root, "var", read.var)
    opened = Observations.open(tmp_path / "s")
    assert opened.row_ids.astype(str).tolist() == list(map(str, IDS[kind]))
    assert opened.row_codes(IDS[kind]).tolist() == [0, 1, 2, 3]
    assert opened.column_ids.tolist() == ["x", "y", "z"]
    assert opened.table("rows")[list(TABLE)].to_dict("list") == TABLE
    assert opened.table("rows")["new"].isna().tolist() == [False, True, False, False]
    opened.store_table("rows", pd.DataFrame({"late": [1, 2, 3, 4]}, index=IDS[kind]))
    assert anndata.read_zarr(tmp_path / "s").obs["late"].tolist() == [1, 2, 3, 4]
    assert Completion.open(tmp_path / "c").predict(IDS[kind], ["z"]).tolist() == wanted.tolist()


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["b", "a", "d", "c"], dtype=object),
        pd.Index(pd.array(["b", "a", "d", "c"], "string")),
        pd.CategoricalIndex(["b", "a", "d", "c"]),
        pd.Index([3, 1, 200, 2], dtype=np.uint8),
        pd.Index(pd.array([3, 1, 200, 2], "Int16")),
        pd.RangeIndex(4),
    ],
    ids=lambda index: str(index.dtype),
)
def test_every_encoding_of_an_index(tmp_path: Path, index: pd.Index[Any]) -> None:
    """Whatever AnnData's writer makes of it is read as integers or text."""
    store = Observations.from_scipy(MATRIX, tmp_path / "s")
    anndata.io.write_elem(zarr.open_group(tmp_path / "s", mode="r+"), "obs", pd.DataFrame({"x": range(4)}, index=index))
    opened = Observations.open(tmp_path / "s")
    assert opened.row_ids.tolist() == index.tolist()
    assert opened.table("rows")["x"].tolist() == [0, 1, 2, 3]
    assert store.column_ids.tolist() == [0, 1, 2]


def test_every_encoding_of_a_column(tmp_path: Path) -> None:
    """Small numbers, numbers, text and categories that may be missing are read as they were."""
    columns = {
        "text": pd.array(["x", None, "y", "x"], "string"),
        "own": pd.Series(["x", "w", "y", "x"]),
        "kinds": pd.Categorical(pd.array(["x", None, "y", "x"], "string"), ordered=True),
        "small": np.arange(4, dtype=np.uint8),
        "single": np.arange(4, dtype=np.float32),
        "count": pd.array([1, None, 3, 4], "UInt8"),
        "sure": pd.array([True, None, False, True], "boolean"),
    }
    store = Observations.from_scipy(MATRIX, tmp_path / "s")
    anndata.io.write_elem(zarr.open_group(tmp_path / "s", mode="r+"), "obs", pd.DataFrame(columns))
    found = Observations.open(tmp_path / "s").table("rows")
    for name, values in pd.DataFrame(columns).items():
        assert found[name].isna().tolist() == values.isna().tolist(), name
        assert found[name].dropna().tolist() == values.dropna().tolist(), name
    kinds = store.table_kinds("rows")
    assert kinds == dict(
        zip(columns, ["text", "text", "2 categories", *["integers", "numbers", "integers"], "yes or no"], strict=True)
    )


@pytest.mark.parametrize("index", [["a", "b", "a", "c"], [0.5, 1.5, 2.5, 3.5]], ids=["twice", "fractions"])
def test_ids_that_are_none(tmp_path: Path, index: list[Any]) -> None:
    """Ids that AnnData lets pass and a store cannot have are told with the place."""
    Observations.from_scipy(MATRIX, tmp_path / "s")
    anndata.io.write_elem(zarr.open_group(tmp_path / "s", mode="r+"), "obs", pd.DataFrame(index=index))
    with pytest.raises(StoreError, match=r"/s: obs/_index (holds 'a' twice|must be integers or text).*; correct obs"):
        _ = Observations.open(tmp_path / "s").row_ids


def test_entries_that_anndata_wrote(tmp_path: Path) -> None:
    """Its X has no mark of what is lost and may have indices of uint8: it is refused, and taken in as a matrix."""
    made = Observations.from_scipy(MATRIX, tmp_path / "s", row_ids=IDS["text"])
    read = anndata.read_zarr(tmp_path / "s")
    anndata.io.write_elem(zarr.open_group(tmp_path / "s", mode="r+"), "X", read.X)
    with pytest.raises(StoreError, match="its X was written anew by another program; make a new store of it"):
        Observations.open(tmp_path / "s")
    read.write_zarr(tmp_path / "whole")
    with pytest.raises(StoreError, match=r"make a store of its X with Observations.from_scipy"):
        Observations.open(tmp_path / "whole")
    again = anndata.read_zarr(tmp_path / "whole")
    matrix = sp.csr_array((again.X.data, again.X.indices, again.X.indptr), shape=again.shape)
    taken = Observations.from_scipy(matrix, row_ids=again.obs_names, column_ids=again.var_names)
    assert (taken.to_scipy() != made.to_scipy()).nnz == 0
    assert taken.row_ids.tolist() == IDS["text"]
