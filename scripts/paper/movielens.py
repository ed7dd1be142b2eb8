"""MovieLens 100K: wall-clock and error of lin-RFM beside deep linear networks.

    python scripts/paper/movielens.py [--quick] [--output FOLDER] [--depths 2 3] [--most-seconds 300]

The published split u1: 943 users, 1,682 films, 80,000 ratings to fit and 20,000 to score; looked for in $RFMDIST_DATA
(default ../shared/data beside the repository) under ml-100k. Rows:

    offsets        means of users and films alone
    LinRFM()       everything chosen by itself, additions for ratings included; fitted again on all 80,000
    lin-RFM        the paper's form: exact features of the columns, α = 1/2, ω = 1, the ridge from a grid, no additions
    deep L         deep linear network of depth L; the scale of its start from a grid

The last two are fitted to what offsets leave, less a tenth held out; the best iterate and setting by the held-out
ratings count, and their seconds are those until that iterate of that setting, looking not timed. A fit ends when the
held-out error has not fallen for some iterations, or after --most-seconds, which is said. With --quick: the 60 users
and 60 films with the most ratings. Test ratings are only scored. The figure shows the held-out error against seconds.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from common import PURE, Matrix, Row, Watch, completed, figure, options, show, sparse, write
from numpy.typing import NDArray

from rfmdist import LinRFM, Observations, fit_offsets
from rfmdist.baselines.deep_linear import DeepLinearNetwork

DATA = Path(os.environ.get("RFMDIST_DATA", Path(__file__).parents[3] / "shared" / "data"))
SHAPE, RANGE = (943, 1682), (1.0, 5.0)
HELD, PATIENCE = 0.1, 10
RIDGES, STARTS = (0.3, 0.7, 1.5), (1e-3, 1e-1)


def main() -> int:
    """Fit and score all rows."""
    given = options(
        __doc__,
        {"depths": (2,), "most_seconds": 2.0, "most": 60},
        depths=(2, 3),
        most_seconds=300.0,
        most=max(SHAPE),
        seed=0,
    )
    folder = DATA / "ml-100k"
    if not (folder / "u1.base").exists():
        print(f"skipped: no ml-100k/u1.base in {DATA.resolve()}; set RFMDIST_DATA to the folder that holds ml-100k")
        return 0
    train, test = (read(folder / name) for name in ("u1.base", "u1.test"))
    users, films = (np.sort(np.argsort(-(train > 0).sum(axis=axis))[: given.most]) for axis in (1, 0))
    train, test = train[np.ix_(users, films)], test[np.ix_(users, films)]
    completed(LinRFM(max_iter=2), sparse(train, train > 0))  # compiled before anything is timed
    rows, watches = all_rows(train, test, given)
    show(rows)
    write(given.output, "movielens", rows)
    with figure(given.output, "movielens") as (axes,):
        for name, watch in watches.items():
            axes.plot(np.cumsum(watch.seconds), watch.errors, ".-", label=name)
        axes.set(xscale="log", xlabel="seconds", ylabel="RMSE of held-out ratings")
    return 0


def read(path: Path) -> Matrix:
    """Ratings of a file as a matrix, zero where there is none."""
    users, films, ratings = np.loadtxt(path, usecols=(0, 1, 2)).T
    matrix = np.zeros(SHAPE)
    matrix[users.astype(int) - 1, films.astype(int) - 1] = ratings
    return matrix


def all_rows(train: Matrix, test: Matrix, given: Namespace) -> tuple[list[Row], dict[str, Watch]]:
    """All lines of results, and the watches of the fits that are stopped by held-out ratings."""
    rated = train > 0
    held = rated & (np.random.default_rng(given.seed).random(rated.shape) < HELD)
    offsets = offsets_of(sparse(train, rated & ~held))
    rows = [row_of("offsets", None, rmse(offsets, test), None)]
    started, model = time.perf_counter(), LinRFM()
    predicted = completed(model, sparse(train, rated))
    rows.append(row_of("LinRFM()", time.perf_counter() - started, rmse(predicted, test), model.n_iter_))
    watches = {}
    for name, settings in methods(given).items():
        found = [fitted(setting, train - offsets, rated & ~held, held, given) for setting in settings]
        watches[name] = watch = min(found, key=lambda watch: min(watch.errors))
        best = int(np.argmin(watch.errors))
        error = rmse(offsets + watch.best, test)
        rows.append(row_of(name, sum(watch.seconds[: best + 1]), error, best + 1))
        if sum(watch.seconds) > given.most_seconds:
            print(f"{name}: ended by --most-seconds {given.most_seconds:g}")
    return rows, watches


def methods(given: Namespace) -> dict[str, list[Callable[..., Any]]]:
    """Settings of each method, as functions of the callbacks."""
    plain: dict[str, Any] = {"features": "dense", "sides": "columns", "validation_fraction": 0.0, "replacement": 1.0}
    return {
        "lin-RFM": [lambda ridge=ridge, **more: LinRFM(ridge=ridge, **plain, **PURE, **more) for ridge in RIDGES],
        **{
            f"deep {depth}": [
                lambda depth=depth, start=start, **more: DeepLinearNetwork(
                    depth=depth, initialisation=start, steps=3, tol=0.0, max_iter=10**6, **more
                )
                for start in STARTS
            ]
            for depth in given.depths
        },
    }


class TimedWatch(Watch):
    """A watch that also ends a fit after some seconds."""

    def __init__(self, values: Matrix, held: NDArray[np.bool_], most_seconds: float) -> None:
        super().__init__(values, held, PATIENCE)
        self.most_seconds = most_seconds

    def __call__(self, iteration: Any) -> bool:
        """Look at an iteration; True too when time is up."""
        return super().__call__(iteration) or sum(self.seconds) > self.most_seconds


def fitted(
    setting: Callable[..., Any],
    residuals: Matrix,
    mask: NDArray[np.bool_],
    held: NDArray[np.bool_],
    given: Namespace,
) -> Watch:
    """Fit what offsets leave, watched by the held-out ratings."""
    watch = TimedWatch(residuals, held, given.most_seconds)
    completed(setting(callbacks=[watch]), sparse(residuals, mask))
    return watch


def offsets_of(ratings: sp.coo_array) -> Matrix:
    """What means of users and films predict, everywhere."""
    found = fit_offsets(Observations.from_scipy(ratings), "both")
    return np.asarray(found.mean + found.rows[:, None] + found.columns)


def rmse(predicted: Matrix, test: Matrix) -> float:
    """Root mean square error of the test ratings, predictions clipped to the scale."""
    rated = test > 0
    return float(np.sqrt(np.mean((np.clip(predicted[rated], *RANGE) - test[rated]) ** 2)))


def row_of(name: str, seconds: float | None, error: float, iterations: int | None) -> Row:
    """One line of results."""
    return {"method": name, "seconds": seconds, "iterations": iterations, "test_rmse": error}


if __name__ == "__main__":
    sys.exit(main())
