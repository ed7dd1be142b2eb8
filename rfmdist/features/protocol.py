"""What every representation of the feature matrix offers, and the plain data that goes in and out."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rfmdist.features.power import PanelMap
from rfmdist.kernels.threads import Threads
from rfmdist.observations.blocks import RowBlock


@dataclass(frozen=True)
class Step:
    """Settings of one half step: the ridge λ, the replacement weight ω, and whether features cross.

    Rows solved with features of the columns give features of the columns again, or, crossing, features of the
    rows, with which the columns are solved next.
    """

    ridge: float
    replacement: float
    crossing: bool = False


@dataclass
class Scores:
    """Sums over scored entries, and over the cold ones among them: those with an id that was not seen in fitting.

    Attributes
    ----------
    sums, cold_sums : float64 ndarray of shape (4,)
        Number of entries, their squared errors and absolute errors, and the number of those without a prediction.
    """

    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    cold_sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))

    @classmethod
    def of(cls, predicted: NDArray[np.float64], observed: NDArray[Any], cold: NDArray[np.bool_] | None = None) -> Self:
        """Scores of predictions against observed values, ndarrays of one shape; ``cold`` tells which entries are.

        Entries whose prediction is NaN are left out.
        """
        error = np.ravel(predicted - observed)
        return cls(_sums(error)) if cold is None else cls(_sums(error), _sums(error[np.ravel(cold)]))

    def __add__(self, other: Scores) -> Scores:
        return Scores(self.sums + other.sums, self.cold_sums + other.cold_sums)

    @property
    def cold(self) -> Scores:
        """Scores of the cold entries alone, which are among the others."""
        return Scores(self.cold_sums, self.cold_sums)

    @property
    def count(self) -> int:
        """Number of scored entries."""
        return int(self.sums[0])

    @property
    def left_out(self) -> int:
        """Number of entries that were not scored, since nothing is predicted there."""
        return int(self.sums[3])

    @property
    def rmse(self) -> float:
        """Root mean squared error; NaN without entries."""
        return float(np.sqrt(self.sums[1] / self.sums[0])) if self.count else float("nan")

    @property
    def mae(self) -> float:
        """Mean absolute error; NaN without entries."""
        return float(self.sums[2] / self.sums[0]) if self.count else float("nan")


def _sums(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of errors (entries,), NaN where nothing was predicted."""
    missing = np.isnan(error)
    if missing.any():
        error = error[~missing]
    return np.array([len(error), np.sum(error**2), np.sum(np.abs(error)), np.count_nonzero(missing)])


@dataclass
class Partial:
    """What a group of rows adds to a half step; sums of Partials are Partials again.

    Attributes
    ----------
    sums : dict of ndarray
        Parts that are added, understood by the features alone.
    rows : list of tuples of ndarrays
        Parts that follow one another, in the order of the rows, where features cross to the rows. In the total there
        may be one alone, of arrays that lie in files (`Filed`).
    scores : Scores
        Of the held-out entries under the features that the rows were solved with.
    """

    sums: dict[str, NDArray[Any]] = field(default_factory=dict)
    rows: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    scores: Scores = field(default_factory=Scores)

    def __sizeof__(self) -> int:
        """Bytes of the arrays that are here, by which Dask places and counts what it moves."""
        arrays = [*self.sums.values(), *(part for row in self.rows for part in row)]
        return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))

    def __add__(self, other: Partial) -> Partial:
        sums = {name: value + other.sums[name] for name, value in self.sums.items()}
        return Partial(sums, self.rows + other.rows, self.scores + other.scores)

    def __iadd__(self, other: Partial) -> Self:
        for name, value in other.sums.items():
            self.sums[name] += value  # what had no axes is a number once it is a sum, and has no place
        self.rows += other.rows
        self.scores = self.scores + other.scores
        return self

    def joined(self) -> tuple[Any, ...]:
        """Return the rows as one tuple of tall arrays; the pieces are let go, one by one."""
        if len(self.rows) != 1:
            parts = [list(part) for part in zip(*self.rows, strict=True)]
            self.rows = []
            self.rows = [tuple(map(_joined, parts))]
        return self.rows[0]


def _joined(pieces: list[NDArray[Any]]) -> NDArray[Any]:
    whole, low = np.empty((sum(map(len, pieces)), *pieces[0].shape[1:]), pieces[0].dtype), 0
    pieces.reverse()
    while pieces:
        piece = pieces.pop()
        whole[low : low + len(piece)] = piece
        low += len(piece)
    return whole


class Features(Protocol):
    """A feature matrix P; immutable, so that it may be shared among threads and sent to workers."""

    def zero(self, step: Step, threads: Threads) -> Partial:
        """Return the sum of nothing, large arrays from what was recycled."""
        ...

    def solve(self, block: RowBlock, step: Step, threads: Threads) -> Any:
        """Solve each row of the block; what it returns is understood by this class alone."""
        ...

    def accumulate(self, partial: Partial, block: RowBlock, solution: Any, step: Step, threads: Threads) -> None:
        """Add the block's part of the AGOP to ``partial``, in place; crossing, append its rows.

        Sums may be left to the threads: they are made once the threads have settled.
        """
        ...

    def predict(self, block: RowBlock, solution: Any, wanted: RowBlock, threads: Threads) -> NDArray[np.float64]:
        """Standardised predictions of the entries of ``wanted``, whose rows are those of ``block``."""
        ...

    def complete(self, block: RowBlock, solution: Any, threads: Threads) -> NDArray[Any]:
        """Standardised predictions of all columns of the block's rows, ndarray of shape (rows, n)."""
        ...

    def rows_alone(self, block: RowBlock, solution: Any) -> NDArray[np.float64]:
        """Standardised predictions of the block's rows in a column of which nothing is known, ndarray (rows,)."""
        ...

    def columns_alone(self) -> NDArray[np.float64]:
        """Standardised predictions of all columns in a row of which nothing is known, ndarray (n + 1,).

        The last is that of a column of which nothing is known either.
        """
        ...

    def update(
        self, total: Partial, rows: int, step: Step, floor: float, power: Fraction | int | str, run: PanelMap
    ) -> Self:
        """Return the next features, of the other side if they cross, from the ``total`` over all ``rows``.

        ``power`` is 2α, positive.
        """
        ...

    def grown(self, rank: int, seed: int) -> Self:
        """Return features that can tell ``rank`` directions apart; ``seed`` is that of random ones."""
        ...

    def distance(self, other: Self) -> float:
        """Relative change ‖P − other‖ / ‖P‖."""
        ...
