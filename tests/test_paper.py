"""The paper's experiments run at their quick size and write finite figures; what they share does as it says."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest

from rfmdist import LinRFM

FOLDER = Path(__file__).parents[1] / "scripts" / "paper"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "common")
SECONDS = 240
"""Generous for a script of at most 20 seconds: on a busy machine, its compiled code not yet there."""


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import what the scripts share."""
    monkeypatch.syspath_prepend(FOLDER)
    import common

    return common


@pytest.fixture
def problem(rng: np.random.Generator) -> oracles.Matrix:
    """Give a matrix of rank 2 with noise, NaN where nothing was observed."""
    full = rng.normal(size=(12, 2)) @ rng.normal(size=(2, 9)) + 0.1 * rng.normal(size=(12, 9))
    return np.where(rng.random(full.shape) < 0.6, full, np.nan)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_writes_figures(name: str, tmp_path: Path) -> None:
    """A script ends well with --quick, prints something, and writes a picture and tables of finite numbers."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--quick", "--output", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("skipped:"):
        pytest.skip(done.stdout.strip())
    assert done.stdout.strip()
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    tables = list(tmp_path.glob("*.csv"))
    assert tmp_path / f"{name}.csv" in tables
    for table in tables:
        rows = list(csv.DictReader(table.read_text().splitlines()))
        numbers = [float(cell) for row in rows for cell in row.values() if _is_number(cell)]
        assert numbers, f"{table.name} has no number"
        assert all(map(math.isfinite, numbers)), f"{table.name} has numbers that are not finite"


def test_scripts_are_found() -> None:
    """The folder's scripts are those of the README's table, so that the test above cannot pass on none."""
    told = (FOLDER / "README.md").read_text()
    assert "recovery" in SCRIPTS
    assert [name for name in SCRIPTS if f"{name}.py" not in told] == []


def test_masks_that_leave_a_matrix_undetermined_are_told(common: Any) -> None:
    """Rank one is determined where the entries connect all rows and columns, rank two not by r entries a row."""
    import recovery

    def told(mask: oracles.Matrix, rank: int) -> bool:
        matrix = common.low_rank(np.random.default_rng(0), mask.shape, rank)
        return bool(recovery.is_determined(common.Problem(matrix, matrix, mask.astype(bool), rank)))

    stairs = np.eye(6) + np.eye(6, k=1)  # a path through all rows and columns, and as many entries as it needs
    assert told(stairs, 1)
    apart = np.kron(np.eye(2), np.ones((3, 3)))  # two blocks that do not meet
    assert not told(apart, 1)
    ring = stairs + np.eye(6, k=-5)  # two entries in each row and column, fewer than degrees of freedom
    assert not told(ring, 2)
    assert told(1 - np.eye(6), 2)


@pytest.mark.parametrize(("power", "floor", "replacement"), [(0.5, 0.0, 1.0), (0.5, 0.1, 0.0), (1.0, 0.05, 1.0)])
def test_transcription_is_the_oracle_s(
    common: Any, problem: oracles.Matrix, power: float, floor: float, replacement: float
) -> None:
    """Algorithm 1 for stacks goes through the oracle's features, each matrix of the stack by itself."""
    algorithm = common.Algorithm(power=power, ridge=0.1, floor=floor, replacement=replacement)
    stack = np.stack([problem, 2 * problem])
    features = np.broadcast_to(np.eye(problem.shape[1]), (2, problem.shape[1], problem.shape[1]))
    pairs = [oracles.dual_iterates(values, power, 0.1, replacement, floor) for values in stack]
    for _ in range(3):
        estimate, features = algorithm.step(features, np.nan_to_num(stack), ~np.isnan(stack))
        for k, iterates in enumerate(pairs):
            expected, expected_features = next(iterates)
            expected = oracles.replaced(expected, stack[k], replacement)
            assert oracles.distance(estimate[k], expected) < 1e-9
            assert oracles.distance(features[k], expected_features) < 1e-9


def test_transcription_is_the_package_s(common: Any, problem: oracles.Matrix) -> None:
    """A few iterations of the transcription give the predictions of LinRFM with the same settings."""
    unit = float(np.sqrt(np.nanmean(problem**2)))
    algorithm, features = common.Algorithm(ridge=0.1), np.eye(9)
    for _ in range(4):
        estimate, features = algorithm.step(features, np.nan_to_num(problem) / unit, ~np.isnan(problem))
    settings = {"features": "dense", "sides": "columns", "ridge": 0.1, "replacement": 0.0, "validation_fraction": 0.0}
    model = LinRFM(max_iter=4, tol=0.0, **settings, **common.PURE)
    assert oracles.distance(common.completed(model, oracles.as_sparse(problem)), unit * estimate) < 1e-9


def test_limits_settle_one_by_one(common: Any) -> None:
    """A stack's matrices settle by themselves: 2 × 2, the limit b c / a, at the rate c² / (a² + c²)."""
    matrices = np.array([[[1.0, 2.0], [0.1, 0.2]], [[1.0, 2.0], [3.0, 6.0]], [[1.0, 2.0], [30.0, 60.0]]])
    mask = np.array([[[True, True], [True, False]]] * 3)
    found, taken = common.Algorithm().limits(matrices, mask, 1000, 1e-6)
    assert np.abs(found - matrices)[:2].max() < 1e-3
    assert taken[0] < taken[1] < 1000 < taken[2]


def test_errors_are_of_unobserved_entries(common: Any, rng: np.random.Generator) -> None:
    """The truth has error 0, zeros and no predictions have 1, whatever is said of observed entries."""
    problem = common.Problem.draw(8, 6, 2, 30, rng)
    assert problem.mask.sum() == 30
    assert problem.error(np.where(problem.mask, 7.0, problem.matrix)) == 0
    assert problem.error(np.zeros((8, 6))) == pytest.approx(1)
    assert problem.error(np.full((8, 6), np.nan)) == pytest.approx(1)


def test_watch_keeps_the_best_iterate(common: Any) -> None:
    """The iterate of least held-out error is kept, and the fit is ended after as many worse ones as it has patience."""
    held, values = np.array([[True, False]]), np.zeros((1, 2))
    watch = common.Watch(values, held, patience=2)
    estimates = [np.array([[size, 9.0]]) for size in (3.0, 1.0, 2.0, 2.0)]
    told = [watch(_Iterate(estimate)) for estimate in estimates]
    assert told == [False, False, False, True]
    assert watch.best is estimates[1]
    assert all(later >= watch.errors[1] for later in watch.errors)
    assert [before > after for before, after in pairwise(watch.errors)] == [True, False, False]


class _Iterate:
    """What a fit tells of an iteration."""

    def __init__(self, estimate: oracles.Matrix) -> None:
        self.estimate, self.seconds = estimate, 0.0


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
