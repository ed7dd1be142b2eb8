"""Factored features that also know which entries were observed, how many, and what is told of rows and columns.

See DESIGN.md, "Additions". The matrix that is completed is [[Y, X], [X, ?]] with X the standardised indicators of
the observed entries, a sparse matrix minus one of rank one, never formed; side columns are offered to every solve
beside the learned ones. Knows this form; not where counts and side columns come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import SingularRowError
from rfmdist.features.factored import (
    TALL,
    FactoredFeatures,
    Solution,
    Square,
    congruent,
    row_pieces,
    tall_gram,
    turned,
)
from rfmdist.features.power import PanelMap, spans
from rfmdist.features.protocol import Partial, Step
from rfmdist.kernels import factored as kernels
from rfmdist.kernels.threads import Threads, one_blas_thread
from rfmdist.observations.blocks import RowBlock

COUNT_DAMPING = 20.0
"""k: entries' worth of damping of the indicators' standardisation (tuned once, moves little)."""
RIDGE_DAMPING = 5.0
"""Entries' worth of damping of the ridge by count (DESIGN.md, "Ridge by count")."""
INDICATOR_RIDGE = 2.0
"""l: ridge of the indicators' own rows in units of that of the ratings' rows (DESIGN.md, "Indicators")."""
LEAST_SHARE = 1e-9
"""Of the greatest eigenvalue: directions below it are kept that large, so that their inverse root is harmless."""


class Extras(NamedTuple):
    """How much each addition to plain factored features counts; 0 switches it off.

    Attributes
    ----------
    indicators : float
        c, the deviation of the block that tells which entries were observed, in units of the values'.
    ridge_by_count : float
        q, the power of its number of entries that a row's ridge grows with.
    row_scale : float
        Power of the rows' scales: values are divided by them, features do not know.
    side_weight : float
        x, the size of side columns in that of U's rows.
    """

    indicators: float = 0.0
    ridge_by_count: float = 0.0
    row_scale: float = 0.0
    side_weight: float = 0.0


@dataclass(frozen=True, eq=False)
class Margin:
    """What is known of the rows (or columns) beside their values.

    Attributes
    ----------
    counts : float64 ndarray of shape (size,)
        Fitted entries of each.
    side : float32 ndarray of shape (size, e)
        Standardised side columns.
    """

    counts: NDArray[np.float64]
    side: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class AugmentedFeatures(FactoredFeatures):
    """Features of one side of [[Y, X], [X, ?]]: P = [U; U2] [U; U2]', and side columns beside U.

    Attributes
    ----------
    factor : ndarray of shape (n, r + e)
        U of the values' columns, and e side columns.
    companion : ndarray of shape (n, r)
        U2 of the indicators' columns, U2'U2 diagonal; of no columns where the indicators' weight is 0.
    margins : tuple of Margin
        Of this side, and of the side that is solved.
    extras : Extras
        How much each addition counts.
    """

    companion: NDArray[Any] = field(kw_only=True)
    margins: tuple[Margin, Margin] = field(kw_only=True)
    extras: Extras = field(kw_only=True)

    @classmethod
    def begin(cls, plain: FactoredFeatures, margins: tuple[Margin, Margin], extras: Extras) -> Self:
        """Augment ``plain`` features; indicators' features begin at nothing, the first half step finds them."""
        companion = np.zeros((plain.size, plain.rank if extras.indicators else 0), plain.factor.dtype)
        size = extras.side_weight * float(np.sqrt(np.trace(plain.gram) / max(plain.size, 1)))
        factor = plain.factor
        if size:
            factor = np.concatenate([factor, (size * margins[0].side).astype(factor.dtype)], axis=1)
        start = factor, plain.offsets, plain.shrinkage, plain.floor
        return cls(*start, companion=companion, margins=margins, extras=extras)

    def __getstate__(self) -> dict[str, Any]:
        """Send along what is made once: where eigenvalues are alike, another process would find other eigenvectors."""
        with one_blas_thread():
            _ = self._spectrum, self._means
        return self.__dict__

    @property
    def told(self) -> dict[str, list[list[float]]]:
        """What follows from the factor, where it was summed while that was made: to be told again beside it."""
        means = self._means
        return {"base": [self._base.tolist()], "means": [mean.tolist() for mean in means]}

    def telling(self, told: dict[str, list[list[float]]]) -> Self:
        """Take what `told` of the same features gave: sums in another order would have other last bits."""
        arrays = {name: [np.array(each, self.factor.dtype) for each in values] for name, values in told.items()}
        self.__dict__.update(_base=arrays["base"][0], _means=tuple(arrays["means"]))
        return self

    @property
    def learned(self) -> int:
        """r, the columns of U that are learned."""
        side = self.margins[0].side.shape[1] if self.extras.side_weight else 0
        return self.rank - side

    @cached_property
    def _total(self) -> float:
        """N, the number of fitted entries."""
        return float(self.margins[0].counts.sum())

    @cached_property
    def _base(self) -> NDArray[Any]:
        """The diagonal of U2'U2; of no length without indicators."""
        if not self.extras.indicators:
            return np.empty(0, self.factor.dtype)
        base = np.zeros(self.rank, self.factor.dtype)
        base[: self.companion.shape[1]] = np.square(self.companion, dtype=np.float64).sum(axis=0)
        return base

    @cached_property
    def _count_weights(self) -> NDArray[np.float64]:
        """1 / sqrt(q + k) of each column, (n,)."""
        return np.asarray(1 / np.sqrt(self.margins[0].counts + COUNT_DAMPING))

    @cached_property
    def _means(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """What X's rank-one part takes from an entry's row of U, and of U2: blocks share them, n × r each to make."""
        return self._mean(self.factor), self._mean(self.companion)

    def _mean(self, of: NDArray[Any]) -> NDArray[Any]:
        """Mean over all entries of u_j / sqrt(q_j + k), for the rows u_j of ``of`` (n, any)."""
        weights, mean = self.margins[0].counts * self._count_weights, np.zeros(of.shape[1])
        for top, bottom in spans(len(of), TALL):
            mean += weights[top:bottom] @ of[top:bottom].astype(np.float64, copy=False)
        return (mean / max(self._total, 1)).astype(self.factor.dtype)

    # ---- a block of rows --------------------------------------------------------------------------------------

    def _ridges(self, block: RowBlock, step: Step) -> NDArray[np.float64]:
        """δ ((p + 5) / (mean p + 5))^q for rows of p entries (DESIGN.md, "Ridge by count")."""
        typical = self._total / max(len(self.margins[1].counts), 1) + RIDGE_DAMPING
        share = (np.diff(block.indptr) + RIDGE_DAMPING) / typical
        return np.asarray((step.ridge + self.floor) * share**self.extras.ridge_by_count)

    def _pulls(self, block: RowBlock, threads: Threads) -> NDArray[Any]:
        """The block's rows of X U2, and zeros for side columns."""
        if not self.extras.indicators:
            return super()._pulls(block, threads)
        pulls = threads.scratch("pulls", (block.stop - block.start, self.rank), self.factor.dtype)
        learned = self.companion.shape[1]
        pulls[:, learned:] = 0
        pulls[:, :learned] = self._indicators(block, self.companion, self._means[1], threads)
        return pulls

    def _indicators(self, block: RowBlock, of: NDArray[Any], mean: NDArray[Any], threads: Threads) -> NDArray[Any]:
        """The block's rows of X times ``of``, n × any, whose `_mean` is given.

        X_ij = c sqrt(N) (1[ij observed] - p_i q_j / N) / sqrt((p_i + k)(q_j + k)). So a row is c sqrt(N / (p + k))
        times the sum, over its entries, of u_j / sqrt(q_j + k) less its mean over all entries: the rank-one part
        costs nothing.
        """
        dtype = self.factor.dtype
        out = threads.scratch("indicators", (block.stop - block.start, of.shape[1]), dtype)
        data = block.indptr, block.indices, of, self._count_weights.astype(dtype), mean
        threads.map(lambda first, last: kernels.sum_rows(*data, first, last, out), row_pieces(block, threads))
        scale = self.extras.indicators * np.sqrt(self._total / (np.diff(block.indptr) + COUNT_DAMPING))
        out *= scale.astype(dtype)[:, None]
        return out

    def _rows_across(
        self, block: RowBlock, solution: Solution, step: Step, threads: Threads
    ) -> tuple[NDArray[Any], ...]:
        """The block's rows of L, of their offsets, and of L2.

        With U'U + U2'U2 = V diag(g) V': L = (B V) (g + w δ_i) / sqrt(g n), and the indicators' own rows
        B2 = X U (U'U + l δ I)^-1 give L2 alike.
        """
        dtype, delta = self.factor.dtype, step.ridge + self.floor
        g, v = self._spectrum
        root = np.sqrt(g * self.size)
        # Where nothing is left of the values U vanishes, and with it what would be divided by it.
        inverse = np.divide(1.0, root, out=np.zeros_like(root), where=g > np.finfo(dtype).tiny)
        across = solution.rows @ v.astype(dtype)
        weight = step.replacement * self._ridges(block, step)
        across *= (g * inverse).astype(dtype) + weight.astype(dtype)[:, None] * inverse.astype(dtype)
        if not self.extras.indicators:
            return across, solution.intercepts.copy(), across[:, :0]
        damped = self.gram + INDICATOR_RIDGE * delta * np.eye(self.rank)
        basis = np.linalg.solve(damped, v) * ((g + step.replacement * delta) * inverse)
        companion = self._indicators(block, self.factor, self._means[0], threads) @ basis.astype(dtype)
        return across, solution.intercepts.copy(), companion

    @cached_property
    def _spectrum(self) -> tuple[NDArray[np.float64], Square]:
        """Eigenvalues g and eigenvectors V of U'U + U2'U2, side columns among U's."""
        total = self.gram.copy()
        if self.extras.indicators:
            total.flat[:: self.rank + 1] += self._base
        g, v = np.linalg.eigh(total)
        return np.maximum(g, g[-1] * LEAST_SHARE), v

    # ---- the update -------------------------------------------------------------------------------------------

    def zero(self, step: Step, threads: Threads) -> Partial:
        found, dtype, e = super().zero(step, threads), np.float64, self.margins[1].side.shape[1]
        found.sums["mean"] = np.zeros(self.rank, dtype)
        if self.extras.side_weight:
            found.sums["side"] = np.zeros((self.rank, e), dtype)
        if self.extras.indicators:
            found.sums |= {"below": np.zeros((self.rank, self.rank), dtype), "mean below": np.zeros(self.rank, dtype)}
        return found

    def _sum_across(self, partial: Partial, block: RowBlock, rows: tuple[NDArray[Any], ...]) -> None:
        """Sum L'L, L2'L2, L' times side columns, and what X's rank-one part takes of L and L2."""
        super()._sum_across(partial, block, rows)
        own, place, sums = self.margins[1], slice(block.start, block.stop), partial.sums
        weights = own.counts[place] / np.sqrt(own.counts[place] + COUNT_DAMPING)
        left = rows[0].astype(np.float64, copy=False)
        sums["mean"] += weights @ left
        if self.extras.side_weight:
            sums["side"] += left.T @ own.side[place].astype(np.float64)
        if self.extras.indicators:
            sums["below"] += tall_gram(rows[2], rows[2])
            sums["mean below"] += weights @ rows[2].astype(np.float64, copy=False)

    def update(
        self, total: Partial, rows: int, step: Step, floor: float, power: Fraction | int | str, run: PanelMap
    ) -> Self:
        """Keep the r leading directions of [L; L2] [L; L2]', raised to ``power``, and put side columns beside them."""
        assert not isinstance(power, str), "check_parameters"
        sums, dtype = total.sums, self.factor.dtype
        with one_blas_thread():
            lefts, offsets, companions = total.joined()
            gram = sums["across"]
            below = sums["below"] if self.extras.indicators else np.zeros_like(gram)
            if not np.isfinite(gram + below).all():
                raise SingularRowError(f"the features left the range of {dtype.name}: lower the additions")
            g, v = np.linalg.eigh(gram + below)
            # A power below 1 divides by small directions: they are kept from 0.
            least = max(g[-1] * LEAST_SHARE, np.finfo(np.float64).tiny) if power < 1 else 0.0
            kept = v[:, -self.learned :] * np.maximum(g[-self.learned :], least) ** float((power - 1) / 2)
            square = (kept @ np.linalg.eigh(kept.T @ below @ kept)[1]).astype(dtype)
            other, own = self.margins
            learned = congruent(square, gram)
            size = self.extras.side_weight * float(np.sqrt(np.trace(learned) / max(rows, 1)))
            beside = (size * own.side).astype(dtype) if size else None
            after = replace(
                self,
                factor=turned(lefts, square, beside),
                offsets=offsets,
                shrinkage=self.shrinkage[::-1],
                companion=turned(companions, square) if self.extras.indicators else companions,
                margins=(own, other),
            )
            after._told(total, square, learned, size)
        return after

    def _told(self, total: Partial, square: NDArray[Any], learned: Square, size: float) -> None:
        """Take from sums what follows from the factors: they may lie in files, and then need not be read for it."""
        sums, known, wide = total.sums, self.__dict__, square.astype(np.float64)
        mean, gram = wide.T @ sums["mean"], learned
        if size:
            side = self.margins[0].side.astype(np.float64)
            cross = size * wide.T @ sums["side"]
            gram = np.block([[learned, cross], [cross.T, size**2 * tall_gram(side, side)]])
            weights = self.margins[0].counts * self._count_weights
            mean = np.concatenate([mean, size * weights @ side])
        known["gram"], dtype, entries = gram, square.dtype, max(self._total, 1)
        below = np.zeros(self.companion.shape[1])
        if self.extras.indicators:
            base = np.diag(congruent(square, sums["below"]))
            known["_base"] = np.concatenate([base, np.zeros(len(gram) - len(base))]).astype(dtype)
            below = wide.T @ sums["mean below"]
        known["_means"] = (mean / entries).astype(dtype), (below / entries).astype(dtype)

    def grown(self, rank: int, seed: int) -> Self:
        """Return features that learn this many directions at least; see `FactoredFeatures.grown`."""
        learned = self.learned
        bare = FactoredFeatures(self.factor[:, :learned], self.offsets, self.shrinkage, self.floor)
        more = bare.grown(rank, seed).factor[:, learned:]
        factor = np.concatenate([self.factor[:, :learned], more, self.factor[:, learned:]], axis=1)
        companion = self.companion
        if self.extras.indicators:
            companion = np.concatenate([companion, np.zeros_like(more)], axis=1)
        return replace(self, factor=factor, companion=companion)
