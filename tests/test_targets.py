"""Targets: read the right entries standardised, keep them within a bound, and turn to the columns."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.sparse as sp

from rfmdist.engine.memory import kept_need
from rfmdist.engine.planner import plan_factored
from rfmdist.errors import StoreError
from rfmdist.observations.blocks import ALL_ROLES, FITTED_ROLES, Role, RowBlock
from rfmdist.observations.kept import LEAST_FREE
from rfmdist.observations.offsets import fit_offsets
from rfmdist.observations.scratch import FiledValue, Scratch
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations
from rfmdist.observations.targets import Targets

TRAIN, VALIDATION = frozenset({Role.TRAIN}), frozenset({Role.VALIDATION})
HALVES = ((0, 30), (30, 60))


@pytest.fixture
def targets(rng: np.random.Generator, tmp_path: Path) -> Targets:
    """Give targets of 60 x 40 with a split, held-out entries, offsets and a unit."""
    matrix = sp.random_array((60, 40), density=0.3, rng=rng, data_sampler=rng.standard_normal)
    observations = Observations.from_scipy(matrix, tmp_path / "s")
    split(observations, validation=0.0, test=0.2)
    observations = observations.hold_out(0.2, seed=1)
    offsets = fit_offsets(observations, roles=TRAIN)
    return Targets(observations, offsets, 1.7, np.dtype(np.float32), TRAIN, VALIDATION, (-1.0, 1.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give an empty folder for files."""
    made = tmp_path / "scratch"
    made.mkdir()
    return made


def same(block: RowBlock | None, wanted: RowBlock | None) -> bool:
    """Whether two blocks are the same bits."""
    parts = ("start", "stop", "indptr", "indices", "values")
    assert block is not None
    return all(np.array_equal(getattr(block, part), getattr(wanted, part)) for part in parts)


@pytest.mark.parametrize("fitted", [TRAIN, FITTED_ROLES, ALL_ROLES, frozenset({Role.TEST}), frozenset()])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fitted_entries_are_standardised(targets: Targets, fitted: frozenset[Role], dtype: Any) -> None:
    """The entries of the fitted roles come less their offsets, over the unit, rounded once to the dtype."""
    targets = replace(targets, fitted=fitted, dtype=np.dtype(dtype), scored=frozenset())
    found, scored = targets.read(10, 50)
    block = targets.observations.row_block(10, 50, fitted)
    left = block.values - targets.offsets.at(block.rows, block.indices)
    assert scored is None
    assert same(found, replace(block, values=(left / targets.unit).astype(dtype)))
    assert found.values.dtype == dtype


def test_scored_entries_are_as_observed(targets: Targets) -> None:
    """The entries of the scored roles come in their own units, and none of them is fitted."""
    _, scored = targets.read(10, 50)
    assert same(scored, targets.observations.row_block(10, 50, VALIDATION))


def test_nothing_is_kept_by_default(targets: Targets) -> None:
    """Each read gives another object where no bytes may be kept."""
    assert targets.read(0, 30)[0] is not targets.read(0, 30)[0]


def test_kept_blocks_are_given_again(monkeypatch: pytest.MonkeyPatch, targets: Targets) -> None:
    """Within the bound a range that was read is the same object again, and the store is left alone."""
    keeping = replace(targets, keep_bytes=1 << 20)
    first = [keeping.read(*half) for half in HALVES]
    monkeypatch.setattr(Observations, "row_block", None)
    assert all(keeping.read(*half) is pair for half, pair in zip(HALVES, first, strict=True))


@pytest.mark.parametrize("rows", [1, 7, 60])
@pytest.mark.parametrize("scored", [VALIDATION, frozenset()])
def test_the_bytes_foreseen_hold_all_blocks(targets: Targets, rows: int, scored: frozenset[Role]) -> None:
    """What is foreseen suffices for any cut into blocks, and is not much more than the fitted entries take."""
    foreseen, _ = kept_need(plan_factored(targets.observations, targets.dtype, "columns").sizes)
    keeping = replace(targets, scored=scored, fitted=ALL_ROLES - scored, keep_bytes=foreseen)
    ranges = keeping.observations.ranges(rows=rows)
    pairs = [keeping.read(*range_) for range_ in ranges]
    assert all(keeping.read(*range_) is pair for range_, pair in zip(ranges, pairs, strict=True))
    assert foreseen < (1 << 16) + 3 * sum(block.nbytes for pair in pairs for block in pair if block is not None)


def test_the_bound_is_respected(targets: Targets) -> None:
    """What does not fit beside the kept blocks is read again, and reads right; smaller ones may still fit."""
    size = sum(block.nbytes for block in targets.read(0, 30) if block is not None)
    keeping = replace(targets, keep_bytes=size + 8)
    kept = keeping.read(0, 30)
    again = keeping.read(30, 60)
    assert keeping.read(30, 60) is not again
    assert same(again[0], targets.read(30, 60)[0])
    assert keeping.read(0, 30) is kept


def test_what_is_not_kept_is_filed(monkeypatch: pytest.MonkeyPatch, targets: Targets, folder: Path) -> None:
    """Blocks beyond the bound are read from files as they were made, scored entries too, and never decoded again."""
    scratch = Scratch(str(folder))
    size = sum(block.nbytes for block in targets.read(0, 30) if block is not None)
    filing = replace(targets, keep_bytes=size + 8, scratch=scratch)
    first = [filing.read(*half) for half in HALVES]
    assert len(list(folder.iterdir())) == 1
    copy = replace(filing)
    monkeypatch.setattr(Observations, "row_block", None)
    again = [filing.read(*half) for half in HALVES]
    assert again[0] is first[0]
    assert again[1] is not first[1]
    for ours, theirs in zip(again[1], first[1], strict=True):
        assert same(ours, theirs)
    with pytest.raises(TypeError):  # a copy may have another unit: it reads for itself
        copy.read(30, 60)
    filing.release()
    assert not list(folder.iterdir())


def test_workers_files_go_with_ours(targets: Targets, folder: Path) -> None:
    """What a pickled copy has filed is removed when the targets that it was sent from let go."""
    ours = replace(targets, scratch=Scratch(str(folder)))
    theirs = pickle.loads(pickle.dumps(ours))
    assert same(theirs.read(0, 30)[0], targets.read(0, 30)[0])
    assert list(folder.iterdir())
    ours.release()
    assert not list(folder.iterdir())


@pytest.mark.parametrize("how", ["nearly full", "full", "no disk"])
def test_blocks_are_decoded_where_they_cannot_be_filed(
    how: str, monkeypatch: pytest.MonkeyPatch, targets: Targets, folder: Path
) -> None:
    """A disk without room, or none at all, costs time and nothing else."""
    if how == "full":
        monkeypatch.setattr(FiledValue, "write", Mock(side_effect=StoreError("the disk is full")))
    else:
        monkeypatch.setattr(Scratch, "free", LEAST_FREE - 1 if how == "nearly full" else None)
    filing = replace(targets, scratch=Scratch(str(folder)))
    for _ in range(2):
        assert same(filing.read(0, 30)[0], targets.read(0, 30)[0])
    assert not list(folder.iterdir())
    filing.release()


def test_copies_keep_their_own(targets: Targets) -> None:
    """Replaced and pickled targets start empty: another unit, or another machine, has nothing to do with these."""
    keeping = replace(targets, keep_bytes=1 << 20)
    keeping.read(0, 60)
    doubled = replace(keeping, unit=2 * keeping.unit)
    assert np.allclose(2 * doubled.read(0, 60)[0].values, keeping.read(0, 60)[0].values)
    empty = replace(targets, keep_bytes=1 << 20)
    _ = empty.observations.indptr
    sent = pickle.dumps(keeping)
    assert len(sent) < len(pickle.dumps(empty)) + 100
    received = pickle.loads(sent)
    assert same(received.read(0, 60)[0], keeping.read(0, 60)[0])
    assert received.read(0, 60) is received.read(0, 60)


def test_threads_read_at_once(targets: Targets) -> None:
    """All threads get the same object, whoever read it first."""
    keeping = replace(targets, keep_bytes=1 << 20)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda k: keeping.read(*HALVES[k % 2]), range(64)))
    assert len({id(pair) for pair in found[-32:]}) == 2
    assert all(pair is keeping.read(*HALVES[k % 2]) for k, pair in enumerate(found))


def test_transposed_targets_are_the_same_numbers(targets: Targets) -> None:
    """By column the fitted entries have the same standardised values, to rounding, and nothing is scored."""
    turned = targets.transposed()
    block, scored = turned.read(0, 40)
    wanted, _ = targets.read(0, 60)
    by_row = sp.csr_array((wanted.values, wanted.indices, wanted.indptr), shape=(60, 40))
    by_column = sp.csr_array((block.values, block.indices, block.indptr), shape=(40, 60))
    difference = by_column.toarray() - by_row.toarray().T
    assert scored is None
    assert len(block.values) == len(wanted.values)
    assert np.abs(difference).max() < 1e-6
    assert (turned.unit, turned.dtype, turned.clip, turned.fitted) == (1.7, np.float32, (-1.0, 1.0), TRAIN)
    assert np.array_equal(turned.offsets.rows, targets.offsets.columns)
