"""Damage to a store, wherever it lies, is told in one sentence or changes nothing; what others add does no harm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from zarr.storage import LocalStore

from rfmdist import split
from rfmdist.errors import StoreError
from rfmdist.observations.blocks import Offsets
from rfmdist.observations.digests import DIGEST
from rfmdist.observations.store import Observations

SCRIPTS = Path(__file__).parents[1] / "scripts"
DRAWS = 500


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a store with a split, offsets and a table."""
    path = tmp_path / "store.zarr"
    matrix = sp.random_array((12, 8), density=0.5, rng=np.random.default_rng(0))
    observations = Observations.from_scipy(matrix, path)
    split(observations, validation=0.2, test=0.2)
    observations.store_offsets(Offsets(1.0, np.arange(12.0), np.arange(8.0)))
    observations.store_table("rows", pd.DataFrame({"age": np.arange(12)}))
    return path


def rewrite(file: Path, change: Callable[[Any], object]) -> None:
    """Change the document of a group or an array."""
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def test_no_damage_is_silent_or_a_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of faults drawn over all files of stores of every kind, each is noticed or harmless, and both occur."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import flips

    counts, wrong = flips.count_outcomes(DRAWS, 0, tmp_path)
    assert not wrong, wrong[0]
    assert counts.total() == DRAWS
    assert {kind for kind, _ in counts} == set(flips.KINDS)
    assert {outcome for _, outcome in counts} == {"noticed", "harmless"}


def test_a_flip_that_nobody_notices_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A fault that changes results, and one that ends in another error, are told from those that are noticed."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import flips

    file = tmp_path / "value"
    file.write_text("12")
    subject = flips.Subject.of(tmp_path, lambda folder: int((folder / "value").read_text()))
    outcomes = [subject.outcome(flips.Fault(file, "byte", 0, after)) for after in (b"13", b" 12", b"?", None)]
    assert [outcome.partition("\n")[0] for outcome in outcomes] == ["silent", "harmless", "traceback", "traceback"]
    assert file.read_text() == "12"


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("X/split", lambda d: d["attributes"].update(mark="another"), "split again"),
        ("X/split", lambda d: d.update(fill_value=0), "split again"),
        ("uns/rfmdist/offsets", lambda d: d["attributes"]["rfmdist"].update(mean=2.0), "fit again"),
        ("uns/rfmdist/offsets/rows", lambda d: d.update(fill_value=0.0), "fit again"),
        ("X/data", lambda d: d.update(data_type="int64"), "ingest the data again"),
        ("obs/age", lambda d: d["attributes"].pop("encoding-type"), "store the column again"),
    ],
)
def test_a_changed_document_is_told(path: Path, file: str, change: Any, told: str) -> None:
    """A valid value in place of another is found by the digest, in one sentence that names the part and the mend."""
    rewrite(path / file / "zarr.json", change)
    with pytest.raises(StoreError, match=rf"store\.zarr: the zarr\.json of {file} is damaged .*{told}") as error:
        use(path)
    assert "\n" not in str(error.value)


def use(path: Path) -> list[Any]:
    """Read what is stored beside the entries."""
    observations = Observations.open(path)
    assert observations.attributes("completion") is None
    offsets = observations.offsets
    table = observations.table("rows")
    return [observations.role_counts(), None if offsets is None else offsets.mean, table.to_dict("list")]


@pytest.mark.parametrize("gone", ["folder", "document"])
@pytest.mark.parametrize("part", ["X/split", "uns/rfmdist/offsets", "uns/rfmdist", "uns", "obs/age"])
def test_a_lost_part_is_not_taken_for_none(path: Path, part: str, gone: str) -> None:
    """A split or offsets that are gone are told: without them a fit would learn its test entries."""
    if gone == "folder":
        shutil.rmtree(path / part)
    else:
        (path / part / "zarr.json").unlink()
    if (part, gone) == ("uns", "document"):  # the parts below it are opened by their own paths
        assert use(path)[1] == 1.0
        return
    with pytest.raises(StoreError, match=rf"store\.zarr: {part}.* is gone; restore it from a copy"):
        use(path)


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_what_is_damaged_can_be_stored_again(path: Path, how: str) -> None:
    """A new split takes the place of a damaged or lost one, and so do new offsets and columns."""
    for part in ("X/split", "uns/rfmdist/offsets"):
        file = path / part / "zarr.json"
        file.unlink() if how == "gone" else file.write_text("{")
    observations = Observations.open(path)
    split(observations, validation=0.1, test=0.1)
    assert Observations.open(path).offsets is None
    observations.store_offsets(Offsets(2.0, np.zeros(12), np.zeros(8)))
    assert use(path)[1] == 2.0


def test_stores_without_digests_are_read(path: Path) -> None:
    """A store of an earlier version, without digests and list of parts, is read, split anew and then has both."""
    expected = use(path)
    for file in path.rglob("zarr.json"):
        rewrite(file, lambda document: document["attributes"].pop(DIGEST))
    rewrite(path / "zarr.json", lambda document: document["attributes"]["rfmdist"].pop("parts"))
    assert use(path) == expected
    split(Observations.open(path), validation=0.2, test=0.2)
    assert use(path) == [expected[0], None, expected[2]]
    shutil.rmtree(path / "X/split")
    with pytest.raises(StoreError, match="X/split is gone"):
        use(path)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_what_other_programs_add_does_no_harm(path: Path) -> None:
    """Attributes, a column and gathered metadata that plain Zarr adds leave the store readable, and changeable."""
    expected, root = use(path), zarr.open_group(path, mode="r+", use_consolidated=False)
    for node in (root, root["X"], root["X/data"], root["X/split"], root["obs"], root["uns/rfmdist/offsets"]):
        node.attrs["note"] = "mine"
    root["obs"].create_array("height", data=np.ones(12), attributes={"encoding-type": "array"})
    root["obs"].attrs["column-order"] = ["age", "height"]
    zarr.consolidate_metadata(path)
    expected[2]["height"] = [1.0] * 12
    assert use(path) == expected
    Observations.open(path).store_offsets(Offsets(3.0, np.zeros(12), np.zeros(8)))
    assert use(path)[1] == 3.0


@pytest.mark.parametrize("step", ["before it is listed", "before it goes"])
def test_a_crash_between_part_and_list_leaves_a_sound_store(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A part that is there but not listed is used; the list never names one that is not there."""
    observations = Observations.open(path)
    if step == "before it goes":
        monkeypatch.setattr("rfmdist.observations.additions.remove", crash)
        with pytest.raises(KeyboardInterrupt):
            observations.remove_offsets()
    else:
        observations.remove_offsets()
        monkeypatch.setattr("rfmdist.observations.nodes.list_part", crash)
        monkeypatch.setattr("rfmdist.observations.nodes.remove", crash)
        with pytest.raises(KeyboardInterrupt):
            observations.store_offsets(Offsets(1.0, np.arange(12.0), np.arange(8.0)))
    assert use(path)[1] == 1.0
    monkeypatch.undo()
    Observations.open(path).remove_offsets()
    assert use(path)[1] is None


def crash(*_: Any) -> None:
    """End as a process that is killed here."""
    raise KeyboardInterrupt


ADDITIONS = {
    "split": lambda observations: split(observations, validation=0.3),
    "offsets": lambda observations: observations.store_offsets(Offsets(2.0, np.zeros(12), np.zeros(8))),
    "column": lambda observations: observations.store_table("rows", pd.DataFrame({"tall": np.ones(12)})),
    "copy": lambda observations: observations.by_column(),
}


@pytest.mark.parametrize("addition", ADDITIONS)
def test_a_disk_that_cannot_be_read_is_told(path: Path, monkeypatch: pytest.MonkeyPatch, addition: str) -> None:
    """Whatever document the disk fails at, an addition ends in one sentence that names the store."""
    observations, before, read, asked = Observations.open(path), faults.snapshot(path), LocalStore.get, []

    async def fail(self: LocalStore, key: str, *args: Any, **options: Any) -> Any:
        asked.append(key)
        if key.endswith("zarr.json"):
            raise OSError(5, "Input/output error")
        return await read(self, key, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "get", fail)
        with pytest.raises(StoreError, match=r"store\.zarr: .*Input/output error") as told:
            ADDITIONS[addition](observations)
    assert asked
    assert "\n" not in str(told.value)
    assert faults.snapshot(path) == before


@pytest.mark.parametrize("first", ["split", "offsets"])
def test_a_disk_that_is_full_when_a_part_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    """A part that cannot be listed is not kept: the store is as it was, and one sentence says why."""
    path = tmp_path / "store.zarr"
    matrix = sp.random_array((12, 8), density=0.5, rng=np.random.default_rng(0))
    observations = Observations.from_scipy(matrix, path)
    observations.set_attributes("note", {})  # makes uns/rfmdist
    before = faults.snapshot(path)
    refused = faults.fill_disk_at(monkeypatch, "store.zarr/zarr.json")
    with pytest.raises(StoreError, match=r"store\.zarr: the disk is full"):
        ADDITIONS[first](observations)
    assert refused
    assert faults.snapshot(path) == before
