"""Passes over the entries: what they gather is what NumPy finds, however rows are grouped and cut into blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from rfmdist.engine.run import InProcess
from rfmdist.kernels.threads import Threads
from rfmdist.observations import kept, passes
from rfmdist.observations.blocks import ALL_ROLES, FITTED_ROLES, Offsets, Role, RowBlock
from rfmdist.observations.draws import COLUMN, ROW, SEED, WORD, HoldOut, entry_hash
from rfmdist.observations.kept import Entries
from rfmdist.observations.offsets import fit_offsets
from rfmdist.observations.passes import Here, groups_of
from rfmdist.observations.scales import measure
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations
from rfmdist.observations.summary import overview, summarize

TRAIN, VALIDATION = frozenset({Role.TRAIN}), frozenset({Role.VALIDATION})


@pytest.fixture(params=["stored", "held out", "both", "none"])
def observations(request: pytest.FixtureRequest, rng: np.random.Generator, tmp_path: Path) -> Observations:
    """Give ratings of 90 x 40, some rows and columns without any, with roles that are stored or held out."""
    seen = rng.random((90, 40)) < 0.3
    seen[[4, 89]], seen[:, [7, 39]] = False, False
    values = np.where(seen, rng.integers(1, 6, seen.shape), 0)
    found = Observations.from_scipy(sp.csr_array(values.astype(np.float32)), tmp_path / "s")
    if request.param in ("stored", "both"):
        split(found, test=0.2, validation=0.2 if request.param == "stored" else 0.0)
    return found.hold_out(0.2, seed=3) if request.param in ("held out", "both") else found


@pytest.fixture(params=[1, 30, 1 << 20])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut rows into as many groups as there may be, or few; and blocks as small."""
    monkeypatch.setattr(passes, "GROUP_ENTRIES", request.param)
    monkeypatch.setattr(kept, "PASS_ENTRIES", request.param)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("roles", [TRAIN, VALIDATION, FITTED_ROLES], ids=["train", "validation", "both"])
def test_an_overview_is_what_numpy_finds(observations: Observations, roles: frozenset[Role]) -> None:
    """Numbers, sums, ends and moments of the roles of one slot, or of two, and the number of each role."""
    seen = overview(observations, (TRAIN, VALIDATION))
    facts, entries = seen.of(roles), observations.to_scipy(roles).tocoo()
    assert seen.counts == observations.role_counts()
    assert seen.counts["train"] == observations.to_scipy("train").nnz
    assert np.array_equal(facts.by_row, np.bincount(entries.row, minlength=90))
    assert np.array_equal(facts.by_column, np.bincount(entries.col, minlength=40))
    sums = np.bincount(entries.col, entries.data - 2.5, 40)
    assert np.allclose(facts.column_sums(2.5), sums, rtol=0, atol=1e-12)
    told = facts.summary
    assert told.count == entries.nnz
    if entries.nnz:
        data = entries.data.astype(np.float64)
        assert (told.least, told.greatest) == (data.min(), data.max())
        assert (told.at_least, told.at_greatest) == (np.sum(data == data.min()), np.sum(data == data.max()))
        assert (told.mean, told.deviation) == pytest.approx((data.mean(), data.std()), rel=1e-14)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("roles", [TRAIN, FITTED_ROLES, ALL_ROLES, frozenset({Role.TEST}), frozenset()])
def test_blocks_hold_the_wanted_entries(observations: Observations, roles: frozenset[Role]) -> None:
    """The blocks of a pass are those of the store with the wanted roles, in order; read again they are the same."""
    entries, wanted = Entries(observations, roles), observations.to_scipy(roles)
    for _ in range(2):
        blocks = [block for group in groups_of(observations) for block in entries.blocks(group)]
        assert np.array_equal(np.concatenate([np.diff(block.indptr) for block in blocks]), np.diff(wanted.indptr))
        assert np.array_equal(np.concatenate([block.indices for block in blocks]), wanted.indices)
        assert np.array_equal(np.concatenate([block.values for block in blocks]), wanted.data)


@pytest.mark.usefixtures("cut")
def test_what_offsets_leave(observations: Observations, rng: np.random.Generator) -> None:
    """The squares of each row, their number and the largest size, here or where the engine runs them."""
    offsets = Offsets(0.3, rng.normal(size=90), rng.normal(size=40))
    entries = observations.to_scipy("train").tocoo()
    left = entries.data - offsets.at(entries.row, entries.col)
    for run in (Here(), InProcess(Threads(1))):
        found = measure(Entries(observations, TRAIN), offsets, run)
        assert np.allclose(found.squares, np.bincount(entries.row, left**2, 90), rtol=1e-13)
        assert np.array_equal(found.counts, np.bincount(entries.row, minlength=90))
        assert found.peak == pytest.approx(np.abs(left).max(), rel=1e-14)
        assert found.unit() == pytest.approx(np.sqrt(np.mean(left**2)), rel=1e-14)


def test_groups_cover_the_rows(monkeypatch: pytest.MonkeyPatch, observations: Observations) -> None:
    """Groups follow one another from the first row to the last, of about equal numbers of entries, none empty."""
    monkeypatch.setattr(passes, "GROUP_ENTRIES", 100)
    groups = groups_of(observations)
    assert [first for first, _ in groups] == [0, *(last for _, last in groups[:-1])]
    assert groups[-1][1] == 90
    sizes = [int(observations.indptr[last] - observations.indptr[first]) for first, last in groups]
    assert len(groups) == 1 + observations.nnz // 100
    assert min(sizes) > 50
    assert max(sizes) < 150


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 0), (3, 4)])
def test_nothing_observed(shape: tuple[int, int]) -> None:
    """Of no entries there is nothing to tell, and offsets are 0."""
    observations = Observations.from_scipy(sp.csr_array(shape))
    seen = overview(observations, (TRAIN, VALIDATION))
    assert seen.counts == {"train": 0, "validation": 0, "test": 0}
    facts = seen.of(FITTED_ROLES)
    assert (len(facts.by_row), len(facts.by_column), facts.summary.count) == (*shape, 0)
    assert np.isnan(facts.summary.mean)
    for kind in ("both", "rows", "columns", "global"):
        offsets: Any = fit_offsets(observations, kind)
        assert (offsets.mean, *offsets.rows, *offsets.columns) == (0.0,) * (1 + sum(shape))


@pytest.mark.parametrize("first", [1e8, -1e12])
def test_moments_far_from_zero(rng: np.random.Generator, first: float) -> None:
    """Values far from 0, and a first one far from the others, keep the digits that their own spread leaves them."""
    values = 1e8 + rng.normal(size=(60, 50))
    values[0, 0] = first
    told = summarize(Observations.from_scipy(sp.csr_array(values)))
    assert told.mean == pytest.approx(values.mean(), rel=1e-14)
    assert told.deviation == pytest.approx(values.std(), rel=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 12345, -7, 1 << 40])
def test_the_words_of_entries_stay(rng: np.random.Generator, seed: int) -> None:
    """They are SplitMix64's, in Python's own whole numbers: which entries are held out must never change."""

    def mixed(state: int) -> int:
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            state = (state ^ (state >> shift)) * factor % WORD
        return state ^ (state >> 31)

    rows, columns = rng.integers(0, 1 << 31, 50), rng.integers(0, 1 << 31, 50).astype(np.int32)
    codes = zip(rows.tolist(), columns.tolist(), strict=True)
    words = [mixed((r * ROW + c * COLUMN + mixed(seed * SEED % WORD)) % WORD) for r, c in codes]
    assert entry_hash(seed, rows, columns).tolist() == words
    roles = rng.integers(0, 3, 50).astype(np.uint8)
    held = [1 if word < WORD // 4 and not role else role for word, role in zip(words, roles.tolist(), strict=True)]
    draw, pointers = HoldOut(0.25, seed), np.array([0, 1])
    for k, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        block = RowBlock(row, row + 1, pointers, columns[k : k + 1], np.ones(1))
        across = RowBlock(column, column + 1, pointers, rows[k : k + 1], np.ones(1))
        assert draw.apply(roles[k : k + 1], block).tolist() == held[k : k + 1]
        assert draw.apply(roles[k : k + 1], across, by_column=True).tolist() == held[k : k + 1]
