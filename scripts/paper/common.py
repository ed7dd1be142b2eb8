"""What the paper's experiments share: problems, fits, Algorithm 1 for many small ones, options, tables and figures.

An experiment is a script of this folder with ``--quick`` and ``--output FOLDER``; it writes a CSV and a PNG of its own
name and prints a short table.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import matplotlib
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rfmdist import LinRFM

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Matrix = NDArray[np.float64]
Row = Mapping[str, Any]

LIMIT = 1e-3
"""Mean square error of the unobserved entries, relative to their mean square, below which a matrix counts as recovered:
where the authors' code stops."""
PURE: dict[str, Any] = {"offsets": None, "dtype": "float64", "clip": None}
"""Settings of `LinRFM` for matrices that are of low rank as they stand."""
MINIMUM_NORM = 1e-12
"""Ridge, as a share of P's greatest eigenvalue, that stands for none: solves are of minimum norm as far as float64
tells them from others, which leaves limits, where P is singular, right to 1e-4 or better."""


# ---- problems -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """A matrix of low rank, and which of its entries were observed, with noise or without.

    Attributes
    ----------
    matrix : float64 ndarray of shape (m, n)
        Without noise, of unit mean square.
    values : float64 ndarray of shape (m, n)
        With noise; only those of the mask are shown to a method.
    mask : bool ndarray of shape (m, n)
        What was observed.
    rank : int
    """

    matrix: Matrix
    values: Matrix
    mask: NDArray[np.bool_]
    rank: int

    @classmethod
    def draw(
        cls, rows: int, columns: int, rank: int, observed: int, rng: np.random.Generator, noise: float = 0.0
    ) -> Self:
        """Gaussian factors, entries observed uniformly at random, Gaussian noise of a deviation ``noise``."""
        matrix = low_rank(rng, (rows, columns), rank)
        values = matrix + noise * rng.normal(size=matrix.shape)
        return cls(matrix, values, uniform(rng, matrix.shape, observed), rank)

    @classmethod
    def square(cls, size: int, rank: int, observed: int, seed: int) -> Self:
        """Without noise, and with draws of its own: the README's figures of depth.py and nfa.py are of these."""
        rng = np.random.default_rng(seed)
        matrix = low_rank(rng, (size, size), rank)
        mask = np.zeros(matrix.shape, bool)
        mask.flat[rng.permutation(matrix.size)[:observed]] = True
        return cls(matrix, matrix, mask, rank)

    @property
    def observed(self) -> sp.coo_array:
        """The observed entries as methods take them."""
        return sparse(self.values, self.mask)

    def error(self, completed: Matrix) -> float:
        """Mean square error of the unobserved entries relative to their mean square; no prediction counts as zero."""
        return float(relative_errors(np.nan_to_num(completed), self.matrix, self.mask))

    def split(self, share: float, rng: np.random.Generator) -> tuple[Problem, NDArray[np.bool_]]:
        """Hold out a share of the observed entries: the problem without them, and their mask."""
        places = np.flatnonzero(self.mask)
        held = np.zeros(self.mask.size, bool)
        held[rng.choice(places, round(share * len(places)), replace=False)] = True
        held = held.reshape(self.mask.shape)
        return Problem(self.matrix, self.values, self.mask & ~held, self.rank), held


def low_rank(rng: np.random.Generator, shape: tuple[int, ...], rank: int) -> Matrix:
    """Product of Gaussian factors of unit mean square, (..., m, n): one matrix or a stack of them."""
    *stack, m, n = shape
    matrix = rng.normal(size=(*stack, m, rank)) @ rng.normal(size=(*stack, rank, n))
    return np.asarray(matrix / np.sqrt(np.mean(matrix**2, axis=(-2, -1), keepdims=True)))


def uniform(rng: np.random.Generator, shape: tuple[int, ...], observed: int) -> NDArray[np.bool_]:
    """Masks of ``observed`` entries each, uniformly at random, (..., m, n)."""
    order = np.argsort(rng.random((*shape[:-2], shape[-2] * shape[-1])), axis=-1)
    return (order < observed).reshape(shape)


def relative_errors(completed: Matrix, matrix: Matrix, mask: NDArray[np.bool_]) -> Matrix:
    """Mean square error of the unobserved entries relative to their mean square, of one matrix or each of a stack."""
    left, whole = ((np.where(mask, 0.0, part) ** 2).sum(axis=(-2, -1)) for part in (completed - matrix, matrix))
    return np.asarray(left / whole)


def degrees_of_freedom(rows: int, columns: int, rank: int) -> int:
    """Return r (m + n − r), below which no method can tell the matrix."""
    return rank * (rows + columns - rank)


def sparse(values: Matrix, mask: NDArray[np.bool_]) -> sp.coo_array:
    """Entries of the mask as a sparse array whose stored entries are observed."""
    return sp.coo_array((values[mask], np.nonzero(mask)), values.shape)


# ---- fits ---------------------------------------------------------------------------------------------------------


def completed(model: Any, observed: sp.coo_array) -> Matrix:
    """Fit, without the warnings of a fit that has not settled (the figures show it), and return the whole matrix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(observed)
    return whole(model.completion_) if isinstance(model, LinRFM) else np.asarray(model.matrix_)


def whole(completion: Any) -> Matrix:
    """Return the whole matrix of a `Completion`."""
    return np.asarray(completion.predict_block().compute())


class Watch:
    """A callback that keeps the iterate of least error on held-out entries, and ends a fit that no longer lowers it.

    It reads the iterations of `LinRFM` and those of `MatrixCompleter` alike, so that all methods stop by one rule.

    Attributes
    ----------
    errors : list of float
        Root mean square error on the held-out entries, one an iteration.
    seconds : list of float
        Time of each iteration, without that of looking at it.
    best : float64 ndarray of shape (m, n)
        The estimate of the least error.
    """

    def __init__(self, values: Matrix, held: NDArray[np.bool_], patience: float) -> None:
        self.values, self.held, self.patience = values, held, patience
        self.errors: list[float] = []
        self.seconds: list[float] = []
        self.best = np.zeros_like(values)

    def __call__(self, iteration: Any) -> bool:
        """Look at an iteration; True once ``patience`` of them in a row were no better."""
        estimate = iteration.estimate if hasattr(iteration, "estimate") else whole(iteration.completion)
        self.errors.append(float(np.sqrt(np.mean((estimate - self.values)[self.held] ** 2))))
        self.seconds.append(iteration.seconds)
        least = int(np.argmin(self.errors))
        if least == len(self.errors) - 1:
            self.best = estimate
        return len(self.errors) - 1 - least >= self.patience


# ---- Algorithm 1, for stacks of small matrices ----------------------------------------------------------------------


@dataclass(frozen=True)
class Algorithm:
    """Algorithm 1 (arXiv 2401.04553) for observed entries, many matrices at once, in its dual form.

    A plain transcription, for what `LinRFM` does not offer: a start other than M₀ = I, no ridge where P becomes
    singular (then W of minimum norm), any power, and thousands of small matrices in one call::

        a_i = (P[O_i, O_i] + ridge I)^-1 y_i      Z = A (P + replacement ridge I)      P ← (Z'Z / m + floor I)^(2 power)

    Attributes
    ----------
    power, ridge, floor, replacement : float
        α, λ, ε and ω. Without a ridge a share `MINIMUM_NORM` of P's greatest eigenvalue stands in for its limit.
    """

    power: float = 0.5
    ridge: float = 0.0
    floor: float = 0.0
    replacement: float = 0.0

    def step(self, features: Matrix, values: Matrix, mask: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
        """Return Z of P, both float64 (..., m, n) and (..., n, n), and the next P.

        Only a ridge feels P's scale; without one P is divided by its greatest eigenvalue, so that none is lost.
        """
        *_, m, n = mask.shape
        systems = np.where(mask[..., :, None] & mask[..., None, :], features[..., None, :, :], 0.0)
        systems = systems + (self.ridge or MINIMUM_NORM) * np.eye(n)
        dual = np.linalg.solve(systems, np.where(mask, values, 0.0)[..., None])[..., 0]
        estimate = dual @ (features + self.replacement * self.ridge * np.eye(n))
        squares, vectors = np.linalg.eigh(np.swapaxes(estimate, -1, -2) @ estimate / m)
        raised = (np.maximum(squares, 0.0) + self.floor) ** (2 * self.power)
        if not self.ridge:
            raised /= raised[..., -1:]
        return estimate, (vectors * raised[..., None, :]) @ np.swapaxes(vectors, -1, -2)

    def limits(
        self, values: Matrix, mask: NDArray[np.bool_], iterations: int, tol: float, start: Matrix | None = None
    ) -> tuple[Matrix, NDArray[np.int64]]:
        """Iterate until each matrix of a stack changes by less than ``tol`` of its norm, ``iterations`` at most.

        Parameters
        ----------
        values : float64 ndarray of shape (problems, m, n)
        mask : bool ndarray of shape (problems, m, n)
        iterations : int
        tol : float
        start : float64 ndarray of shape (problems, n, n), optional
            P₀ = M₀ M₀'; the identity when left out.

        Returns
        -------
        found : float64 ndarray of shape (problems, m, n)
            The last Z of each.
        taken : int64 ndarray of shape (problems,)
            Iterations until it settled; ``iterations`` + 1 where it has not.
        """
        count, _, n = mask.shape
        features = np.broadcast_to(np.eye(n), (count, n, n)) if start is None else start
        found, taken, active = np.zeros_like(values), np.full(count, iterations + 1), np.arange(count)
        for t in range(iterations):
            estimate, features = self.step(features, values[active], mask[active])
            change, size = (np.linalg.norm(part, axis=(-2, -1)) for part in (estimate - found[active], estimate))
            found[active] = estimate
            moving = change > tol * size
            taken[active[~moving]] = t + 1
            active, features = active[moving], features[moving]
            if not len(active):
                break
        return found, taken


# ---- options, tables, figures ---------------------------------------------------------------------------------------


def options(
    document: str | None, quick: Mapping[str, Any], choices: Mapping[str, Iterable[str]] | None = None, **full: Any
) -> argparse.Namespace:
    """Read the command line: one option for each setting, of the type of its default, and ``--quick``, ``--output``.

    Parameters
    ----------
    document : str or None
        The script's docstring, shown by ``--help``.
    quick : mapping
        What the settings are with ``--quick``, unless given.
    choices : mapping, optional
        What a setting, or each of its several values, may be.
    **full
        What they are without it; a tuple is an option of several values.
    """
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, some seconds")
    parser.add_argument("--output", type=Path, default=Path("build/paper"), help="folder of the files (build/paper)")
    for name, value in full.items():
        several = isinstance(value, tuple)
        told = f"default {_text(value)}" + (f", quick {_text(quick[name])}" if name in quick else "")
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(value[0] if several else value),
            nargs="+" if several else None,
            choices=(choices or {}).get(name),
            help=told,
        )
    given = parser.parse_args()
    for name, value in full.items():
        if getattr(given, name) is None:
            setattr(given, name, quick.get(name, value) if given.quick else value)
    given.output.mkdir(parents=True, exist_ok=True)
    return given


def write(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Write ``name``.csv, one line a row of results; None is left empty."""
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def show(rows: Sequence[Row]) -> None:
    """Print rows of results as a table."""
    cells = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), flush=True)


@contextmanager
def figure(folder: Path, name: str, panels: int = 1) -> Iterator[list[Any]]:
    """Give the axes of ``panels`` panels side by side, and write them to ``name``.png.

    What has labels gets a legend, unless it was given one.
    """
    drawn, axes = plt.subplots(1, panels, figsize=(5.5 * panels, 4.2), squeeze=False, layout="constrained")
    yield list(axes[0])
    for panel in axes[0]:
        if panel.get_legend_handles_labels()[0] and panel.get_legend() is None:
            panel.legend(fontsize="small")
    drawn.savefig(folder / f"{name}.png", dpi=120)
    plt.close(drawn)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
