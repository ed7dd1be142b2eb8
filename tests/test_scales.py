"""Scales of rows: the damped spread of each row's values, the same fitted, transposed and for rows to come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import oracles
import pytest

from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.blocks import FITTED_ROLES, Offsets
from rfmdist.observations.kept import Entries
from rfmdist.observations.offsets import fit_offsets
from rfmdist.observations.passes import Here
from rfmdist.observations.scales import DAMPING, Scales, fit_scales, measure
from rfmdist.observations.store import Observations
from rfmdist.observations.targets import Targets


@pytest.fixture
def values(rng: np.random.Generator) -> Any:
    """Give rows that spread by factors of 1/3 to 3; row 0 has no entry, row 1 a single one."""
    return oracles.sparse_problem(rng, 40, 25) * np.geomspace(1 / 3, 3, 40)[:, None]


def blocks(values: Any) -> list[Any]:
    """Cut the rows in two blocks."""
    return [oracles.row_block(values, *cut) for cut in ((0, 13), (13, len(values)))]


def expected_scales(values: Any, offsets: Offsets, power: float) -> Any:
    """((sum y^2 + 20 v) / ((p + 20) v))^(power / 2) a row at a time."""
    left = values - offsets.mean - offsets.rows[:, None] - offsets.columns
    variance = np.nanmean(left**2)
    sums, counts = np.nansum(left**2, axis=1), (~np.isnan(values)).sum(axis=1)
    return ((sums + 20 * variance) / ((counts + 20) * variance)) ** (power / 2)


def test_scales_by_hand() -> None:
    """Two rows of squares 4 + 4 and 1: v = 3, so the scales are (68 / 66)^(1/4) and (61 / 63)^(1/4); a third has 1."""
    values = np.array([[2.0, -2.0, np.nan], [np.nan, np.nan, 1.0], [np.nan] * 3])
    scales = fit_scales([oracles.row_block(values)], Offsets(0.0, np.zeros(3), np.zeros(3)), 0.5)
    assert scales is not None
    assert (DAMPING, scales.variance) == (20.0, 3.0)
    assert np.allclose(scales.rows, [(68 / 66) ** 0.25, (61 / 63) ** 0.25, 1.0], rtol=1e-15)


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0, 2.0])
def test_scales_are_the_damped_spreads(values: Any, rng: np.random.Generator, power: float) -> None:
    """Whatever the blocks and offsets: the row's mean square, damped, over all's, to half the power."""
    offsets = Offsets(0.3, rng.normal(size=40), rng.normal(size=25))
    scales = fit_scales(blocks(values), offsets, power)
    assert scales is not None
    assert np.allclose(scales.rows, expected_scales(values, offsets, power), rtol=1e-12)
    assert scales.rows[0] == 1
    assert scales.rows.max() / scales.rows.min() > 1.2**power


def test_entries_have_the_scale_of_their_row(values: Any) -> None:
    """A block's entries, of rows or of columns, have the scales of the rows that they are in; twice turned is none."""
    scales = fit_scales(blocks(values), Offsets(0.0, np.zeros(40), np.zeros(25)), 0.5)
    assert scales is not None
    for block in blocks(values):
        assert np.array_equal(scales.of(block), scales.rows[block.rows])
    across = scales.transposed()
    for block in blocks(values.T):
        assert np.array_equal(across.of(block), scales.rows[block.indices])
    assert not across.transposed().across


@pytest.mark.parametrize("kind", ["both", "rows", "columns", "global", None])
def test_rows_to_come_are_measured_alike(values: Any, kind: Any) -> None:
    """The scales of the fitted rows, measured again from their own offsets, are the same bits, in any order."""
    observations = Observations.from_scipy(oracles.as_sparse(values))
    offsets = fit_offsets(observations, kind, sweeps=3)
    scales = fit_scales(blocks(values), offsets, 0.5)
    assert scales is not None
    order = np.random.default_rng(1).permutation(40)
    again = scales.for_rows([oracles.row_block(values[order])], replace(offsets, rows=offsets.rows[order]))
    assert np.array_equal(again.rows, scales.rows[order])
    assert (again.variance, again.power) == (scales.variance, scales.power)


@pytest.mark.parametrize("offsets", ["both", "rows", "columns", "global", None])
def test_a_folded_row_has_its_fitted_scale(values: Any, offsets: Any) -> None:
    """fold_in of fitted rows: scales as fitted, to rounding, since the rows' offsets come last in their fit."""
    given = {"ridge": 0.3, "replacement": 1, "validation_fraction": 0, "max_iter": 2, "dtype": "float64"}
    model = LinRFM(features="factored", rank=4, row_scale=0.5, offsets=offsets, **given)
    done = model.fit(oracles.as_sparse(values)).completion_
    order = np.random.default_rng(1).permutation(40)[:15]
    folded = done.fold_in(oracles.as_sparse(values[order]).tocsr())
    assert done.targets.scales is not None
    assert folded.targets.scales is not None
    assert np.allclose(folded.targets.scales.rows, done.targets.scales.rows[order], rtol=1e-13)
    assert np.ptp(folded.targets.scales.rows) > 0.1
    whole, part = (each.predict_block().compute() for each in (done, folded))
    assert np.allclose(part, whole[order], rtol=0, atol=1e-11)


@pytest.mark.parametrize("nothing", [np.full((3, 4), np.nan), np.full((3, 4), 2.0)], ids=["empty", "constant"])
def test_nothing_left_has_no_scales(nothing: Any) -> None:
    """Without entries, or where the offsets explain all, there is nothing to measure."""
    assert fit_scales(blocks(nothing), Offsets(2.0, np.zeros(3), np.zeros(4)), 0.5) is None


def test_targets_are_divided_and_predictions_multiplied(values: Any) -> None:
    """Fitted values are those left over, by scale and unit, whose root mean square is 1; predictions turn them back."""
    observations = Observations.from_scipy(oracles.as_sparse(values))
    offsets = fit_offsets(observations, sweeps=3)
    scales = Scales(np.linspace(0.5, 2, 40), offsets, 1.0, 0.5)
    targets = Targets(observations, offsets, 1.0, np.dtype(np.float64), FITTED_ROLES, scales=scales)
    left = measure(Entries(observations, FITTED_ROLES), offsets, Here())
    targets = replace(targets, unit=left.unit(scales))
    raw, (block, _) = observations.row_block(0, 40), targets.read(0, 40)
    left = raw.values - offsets.at(raw.rows, raw.indices)
    assert np.allclose(block.values, left / scales.rows[raw.rows] / targets.unit, rtol=1e-13)
    assert np.mean(block.values**2) == pytest.approx(1, rel=1e-12)
    assert np.allclose(targets.predictions(raw, block.values), raw.values, rtol=0, atol=1e-12)
    turned, _ = targets.transposed().read(0, 25)
    dense = np.zeros((25, 40))
    dense[turned.rows, turned.indices] = turned.values
    assert np.allclose(dense[raw.indices, raw.rows], block.values, rtol=0, atol=1e-12)
