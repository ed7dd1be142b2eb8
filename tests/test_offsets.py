"""Offsets: equal a plain loop, approach the least squares they stand for, and never see test entries."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import scipy.sparse as sp

from rfmdist.errors import InputError
from rfmdist.observations.blocks import Role
from rfmdist.observations.offsets import fit_offsets, row_offsets
from rfmdist.observations.split import split
from rfmdist.observations.store import BLOCK_ROWS, Observations


@pytest.fixture
def ratings(rng: np.random.Generator) -> Any:
    """Give ratings of 40 x 30 with row and column effects, a row and a column without any."""
    values = 3 + rng.normal(size=(40, 1)) + rng.normal(size=30) + 0.3 * rng.normal(size=(40, 30))
    seen = rng.random(values.shape) < 0.3
    seen[5], seen[:, 7] = False, False
    return np.where(seen, values, np.nan)


@pytest.mark.parametrize("kind", ["both", "rows", "columns", "global", None])
@pytest.mark.parametrize("shrinkage", [0.0, 5.0])
def test_offsets_are_shrunken_means(ratings: Any, kind: Any, shrinkage: float) -> None:
    """Each kind equals the plain loop; what has no entries, or is not asked for, is 0."""
    found = fit_offsets(Observations.from_scipy(oracles.as_sparse(ratings)), kind, shrinkage=shrinkage)
    mean, rows, columns = oracles.offsets(ratings, kind, shrinkage)
    assert found.mean == pytest.approx(mean, rel=1e-14)
    assert np.allclose(found.rows, rows, rtol=0, atol=1e-12)
    assert np.allclose(found.columns, columns, rtol=0, atol=1e-12)
    assert found.rows[5] == found.columns[7] == 0


def test_offsets_approach_least_squares(ratings: Any) -> None:
    """Fifteen sweeps come within 1e-4 of the penalised least squares solution."""
    found = fit_offsets(Observations.from_scipy(oracles.as_sparse(ratings)))
    mean, rows, columns = oracles.least_squares_offsets(ratings)
    assert found.mean == pytest.approx(mean, rel=1e-14)
    assert np.abs(found.rows - rows).max() < 1e-4
    assert np.abs(found.columns - columns).max() < 1e-4


def test_blocks_do_not_matter(rng: np.random.Generator) -> None:
    """More rows than a block holds give the plain loop's offsets, too."""
    values = np.where(rng.random((BLOCK_ROWS + 300, 6)) < 0.4, rng.normal(size=(BLOCK_ROWS + 300, 6)), np.nan)
    observations = Observations.from_scipy(oracles.as_sparse(values))
    assert len(observations.ranges()) > 1
    found = fit_offsets(observations)
    _, rows, columns = oracles.offsets(values, "both")
    assert np.allclose(found.rows, rows, rtol=0, atol=1e-12)
    assert np.allclose(found.columns, columns, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["both", "rows", "columns", "global"])
def test_held_or_read_again_is_the_same(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, kind: Any) -> None:
    """Blocks read again at each pass give the same bits as blocks held in memory, and are not all read at once."""
    seen = rng.random((2 * BLOCK_ROWS, 6)) < 0.2
    observations = Observations.from_scipy(oracles.as_sparse(np.where(seen, rng.normal(size=seen.shape), np.nan)))
    split(observations, test=0.3)
    held, reads = fit_offsets(observations, kind), []
    monkeypatch.setattr("rfmdist.observations.kept.PASS_ROWS", BLOCK_ROWS)
    monkeypatch.setattr("rfmdist.observations.kept.HELD_BYTES", 12 * observations.nnz - 1)
    read = Observations.row_block
    monkeypatch.setattr(Observations, "row_block", lambda self, *range_: reads.append(range_) or read(self, *range_))
    again = fit_offsets(observations, kind)
    assert held.mean == again.mean
    assert np.array_equal(held.rows, again.rows)
    assert np.array_equal(held.columns, again.columns)
    assert len(reads) == len(observations.ranges()) * (1 + {"both": 15, "rows": 1}.get(kind, 0))


def test_offsets_of_float32_values_are_summed_in_float64(rng: np.random.Generator) -> None:
    """The mean is not taken off in float32: values far from 0 keep the digits they have."""
    values = (1e4 + rng.normal(size=(200, 20))).astype(np.float32)
    found = fit_offsets(Observations.from_scipy(sp.coo_array(values)))
    mean, rows, columns = oracles.offsets(values.astype(np.float64), "both")
    assert found.mean == pytest.approx(mean, rel=1e-14)
    assert np.allclose(found.rows, rows, rtol=0, atol=1e-9)
    assert np.allclose(found.columns, columns, rtol=0, atol=1e-9)


def test_test_entries_are_not_seen(ratings: Any) -> None:
    """The offsets are those of the training and validation entries alone, or of the roles asked for."""
    observations = Observations.from_scipy(oracles.as_sparse(ratings))
    split(observations, validation=0.3, test=0.3)
    for roles in ({Role.TRAIN, Role.VALIDATION}, {Role.TRAIN}):
        coo = observations.to_scipy(roles).tocoo()
        kept = np.full(ratings.shape, np.nan)
        kept[coo.row, coo.col] = coo.data
        found = fit_offsets(observations) if len(roles) == 2 else fit_offsets(observations, roles=roles)
        assert np.allclose(found.rows, oracles.offsets(kept, "both")[1], rtol=0, atol=1e-12)


def test_a_new_row_gets_what_the_fit_would_give(ratings: Any) -> None:
    """A row's offset, given the mean and the columns', is the fitted one to the bit."""
    found = fit_offsets(Observations.from_scipy(oracles.as_sparse(ratings)))
    assert np.array_equal(row_offsets(oracles.row_block(ratings), found, 5.0), found.rows)


def test_roles_go_by_name_too(ratings: Any) -> None:
    """As everywhere."""
    observations = Observations.from_scipy(oracles.as_sparse(ratings))
    split(observations, test=0.3)
    by_name, by_role = (fit_offsets(observations, roles=roles) for roles in (["train"], {Role.TRAIN}))
    assert np.array_equal(by_name.rows, by_role.rows)


@pytest.mark.parametrize(
    "wrong", [{"shrinkage": -1.0}, {"shrinkage": np.nan}, {"sweeps": 0}, {"roles": "tests"}], ids=str
)
def test_settings_out_of_range_are_refused(ratings: Any, wrong: dict[str, Any]) -> None:
    """A negative shrinkage would divide by what is near 0."""
    with pytest.raises(InputError):
        fit_offsets(Observations.from_scipy(oracles.as_sparse(ratings)), **wrong)


def test_unknown_kind_is_refused(ratings: Any) -> None:
    """The sentence lists what there is."""
    with pytest.raises(InputError, match="offsets='all' is not known: use one of both, rows, columns, global or None"):
        fit_offsets(Observations.from_scipy(oracles.as_sparse(ratings)), "all")  # type: ignore[arg-type]
