"""Answers of a completion by codes: entries, whole rows, the greatest predictions of rows, columns like a column.

Works block by block of rows in bounded memory, however many rows and columns there are. Knows features and
observations; not ids and tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from rfmdist.engine.run import all_threads
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.power import spans
from rfmdist.features.protocol import Features
from rfmdist.features.recovered import RecoveredFeatures
from rfmdist.kernels.threads import Threads, one_blas_thread
from rfmdist.kernels.topk import keep_greatest
from rfmdist.observations.blocks import RowBlock
from rfmdist.observations.store import BLOCK_ROWS

if TYPE_CHECKING:
    from rfmdist.completion import Completion

Codes = NDArray[np.int64]
Tile = Callable[[Codes, int, int], NDArray[Any]]
"""Scores of some rows, counted from a block's start, in columns ``left`` to ``right``."""

TILE_ROWS, TILE_COLUMNS = 128, 2048
"""A tile of scores, 1-2 MB, stays in a core's cache until it has been looked through."""
PANEL_ENTRIES = 1 << 24
"""Entries of completed rows of dense features in flight: 64-128 MB, beside a P of more."""
KEPT_ENTRIES = 1 << 20
"""Entries that a block of rows keeps."""
COMPARED = 1 << 16
"""Pairs of columns whose similarity is computed at once in float64: 64 MB at r = 128."""


class Ranked(NamedTuple):
    """What was found for some codes, entry by entry: by code, then best first; ndarrays of shape (entries,)."""

    codes: Codes
    ranks: Codes
    columns: Codes
    values: NDArray[np.float64]


NOTHING = Ranked(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


# ---- predictions ----------------------------------------------------------------------------------------------


def predict(of: Completion, i: Codes, j: Codes) -> NDArray[np.float64]:
    """Predict entries at codes ``i`` and ``j``, in any order; nothing is known of rows and columns of code -1."""
    order = np.lexsort((j, i))
    i, j, found, out = i[order], j[order], np.empty(len(i)), np.empty(len(i))
    cold = int(np.searchsorted(i, 0))
    if cold:
        found[:cold] = of.features.columns_alone()[j[:cold]]
    with all_threads() as threads:
        for low, high in _by_block(of, i, BLOCK_ROWS):
            found[low:high] = _standardized(of, i[low:high], j[low:high], threads)
    out[order] = of.targets.predictions_at(i, j, found)
    return out


def _standardized(of: Completion, rows: Codes, columns: Codes, threads: Threads) -> NDArray[np.float64]:
    """Standardised predictions at codes of ascending rows of one block; a column of code -1 says nothing."""
    block, solution = _solved(of, rows, threads)[1:]
    known, found = columns >= 0, np.empty(len(rows))
    wanted = _entries(block, rows[known], columns[known])
    found[known] = of.features.predict(block, solution, wanted, threads)
    if not known.all():
        found[~known] = of.features.rows_alone(block, solution)[rows[~known] - block.start]
    return found


def complete(of: Completion, start: int, stop: int) -> NDArray[np.float64]:
    """Predictions of all columns of rows ``start`` to ``stop``, on one thread.

    Raises
    ------
    InputError
        If the store was split anew after the fit.
    """
    with one_blas_thread():
        block, _ = of.targets.read(start, stop)
        of.targets.check_split()
        threads = Threads(1)
        rows = of.features.complete(block, of.features.solve(block, of.step, threads), threads)
    targets = of.targets
    values = targets.unit * rows.astype(np.float64)
    if targets.scales is not None:
        values *= targets.scales.rows[start:stop, None]
    values += targets.offsets.at(np.arange(start, stop)[:, None], np.arange(of.shape[1]))
    return values if targets.clip is None else np.clip(values, *targets.clip)


# ---- the greatest predictions ---------------------------------------------------------------------------------


def greatest_predictions(of: Completion, rows: Codes, k: int, exclude_observed: bool) -> Iterator[Ranked]:
    """Yield the ``k`` greatest predictions of each row, block by block of ``rows``, which ascend; nothing for none.

    Nothing is known of rows whose codes lie beyond those of the observations.
    """
    if not len(rows):
        yield NOTHING
    m, n = of.shape
    k = min(k, n)
    height = min(BLOCK_ROWS, KEPT_ENTRIES // max(k, 1))
    if isinstance(of.features, DenseFeatures | RecoveredFeatures):
        height = min(height, PANEL_ENTRIES // max(n, 1))
    for low, high in _by_block(of, rows, max(height, 1)):
        with all_threads() as threads:
            ranked = _greatest_of_block(of, rows[low:high], k, exclude_observed, threads)
        yield ranked
    cold = rows[np.searchsorted(rows, m) :]
    if len(cold):
        alike = _greatest_alone(of, k)
        for low, high in spans(len(cold), max(1, KEPT_ENTRIES // max(k, 1))):
            times = high - low
            codes, ranks = np.repeat(cold[low:high], len(alike.codes)), np.tile(alike.ranks, times)
            yield Ranked(codes, ranks, np.tile(alike.columns, times), np.tile(alike.values, times))


def _greatest_alone(of: Completion, k: int) -> Ranked:
    """The ``k`` greatest predictions of a row of which nothing is known."""
    columns, nothing = np.arange(of.shape[1]), np.full(of.shape[1], -1)
    values = replace(of.targets, clip=None).predictions_at(nothing, columns, of.features.columns_alone()[:-1])
    found = ~np.isnan(values)
    codes, ranks, columns, values = _ranked(nothing[found], columns[found], values[found])
    ranked = Ranked(codes[:k], ranks[:k], columns[:k], values[:k])
    return ranked if of.targets.clip is None else ranked._replace(values=np.clip(ranked.values, *of.targets.clip))


def _greatest_of_block(of: Completion, rows: Codes, k: int, exclude_observed: bool, threads: Threads) -> Ranked:
    """Choose by scores in the features' dtype; rank what was chosen by its predictions, before they are clipped."""
    targets, features = of.targets, of.features
    seen, block, solution = _solved(of, rows, threads)
    if not exclude_observed:
        seen = seen.where(np.zeros(len(seen.indices), np.bool_))
    added = targets.offsets.columns / targets.unit
    if _is_low_rank(features):
        added, dtype = added + features.offsets, features.factor.dtype
    else:
        dtype = targets.dtype
    tile, local = _score_tile(features, block, solution, threads), rows - block.start
    columns = _greatest(tile, added.astype(dtype), local, seen.indptr, seen.indices, k, threads)
    found = columns >= 0
    codes = np.repeat(rows, found.sum(axis=1))
    wanted = _entries(block, codes, columns[found])
    values = replace(targets, clip=None).predictions(wanted, features.predict(block, solution, wanted, threads))
    ranked = _ranked(codes, columns[found], values)
    return ranked if targets.clip is None else ranked._replace(values=np.clip(ranked.values, *targets.clip))


def _score_tile(features: Features, block: RowBlock, solution: Any, threads: Threads) -> Tile:
    """Standardised predictions, less what all columns of a row share and their offsets; NaN is never the greatest."""
    if _is_low_rank(features):
        solved, factor = solution.rows, features.factor
        return lambda rows, left, right: solved[rows] @ factor[left:right].T
    panel = features.complete(block, solution, threads)
    return lambda rows, left, right: panel[rows, left:right]


def _is_low_rank(features: Features) -> TypeGuard[FactoredFeatures]:
    """Whether a row's predictions are its coefficients times U', all of them."""
    return isinstance(features, FactoredFeatures) and not isinstance(features, RecoveredFeatures)


# ---- columns like a column ------------------------------------------------------------------------------------


def most_similar(features: Features, columns: Codes, k: int) -> Ranked:
    """Return the ``k`` columns of greatest cosine P_ij / sqrt(P_ii P_jj) with each of ``columns``."""
    assert isinstance(features, DenseFeatures | FactoredFeatures)
    k = min(k, features.size)
    sizes = _sizes(features)
    columns = columns[sizes[columns] > 0]
    parts = [NOTHING]
    with all_threads() as threads:
        for low, high in spans(len(columns), max(1, COMPARED // max(k, 1))):
            parts.append(_similar_of_block(features, sizes, columns[low:high], k, threads))
    return Ranked(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _similar_of_block(
    features: DenseFeatures | FactoredFeatures, sizes: NDArray[np.float64], columns: Codes, k: int, threads: Threads
) -> Ranked:
    """Choose by cosines in the features' dtype, rank by cosines in float64; a column is not like itself."""
    nothing = np.where(sizes > 0, 0, -np.inf)
    tile, places = _cosine_tile(features, sizes, columns), np.arange(len(columns))
    if isinstance(features, RecoveredFeatures):
        tile = _within(tile, features.components, columns)
    pointers = np.arange(len(columns) + 1)
    dtype = features.factor.dtype if isinstance(features, FactoredFeatures) else features.matrix.dtype
    others = _greatest(tile, nothing.astype(dtype), places, pointers, columns, k, threads)
    found = others >= 0
    places, others = np.repeat(places, found.sum(axis=1)), others[found]
    codes = columns[places]
    if isinstance(features, FactoredFeatures):
        products = np.einsum("eq,eq->e", features.factor[codes], features.factor[others], dtype=np.float64)
    else:
        products = features.matrix[codes, others].astype(np.float64)
    ranked = _ranked(places, others, np.clip(products / (sizes[codes] * sizes[others]), -1, 1))
    return ranked._replace(codes=columns[ranked.codes])


def _sizes(features: DenseFeatures | FactoredFeatures) -> NDArray[np.float64]:
    """sqrt(P_jj) of each column; 0 where that is nothing in the features' dtype."""
    if isinstance(features, FactoredFeatures):
        factor = features.factor
        squares = np.concatenate(
            [np.square(factor[a:b], dtype=np.float64).sum(axis=1) for a, b in spans(len(factor), KEPT_ENTRIES >> 7)]
            or [np.zeros(0)]
        )
    else:
        factor, squares = features.matrix, np.diag(features.matrix).astype(np.float64)
    sizes = np.sqrt(np.maximum(squares, 0))
    return np.where(sizes > np.finfo(factor.dtype).tiny, sizes, 0.0)


def _cosine_tile(features: DenseFeatures | FactoredFeatures, sizes: NDArray[np.float64], columns: Codes) -> Tile:
    inverse = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    if isinstance(features, FactoredFeatures):
        factor = features.factor
        inverse = inverse.astype(factor.dtype)
        unit = factor[columns] * inverse[columns, None]
        return lambda rows, left, right: unit[rows] @ factor[left:right].T * inverse[left:right]
    matrix = features.matrix
    inverse = inverse.astype(matrix.dtype)
    return lambda rows, left, right: (
        matrix[columns[rows], left:right] * (inverse[columns[rows], None] * inverse[left:right])
    )


def _within(tile: Tile, components: NDArray[np.int32], columns: Codes) -> Tile:
    """The same scores where two columns are of one component; no others are alike."""

    def within(rows: Codes, left: int, right: int) -> NDArray[Any]:
        same = components[columns[rows]][:, None] == components[left:right]
        return np.where(same, tile(rows, left, right), -np.inf)

    return within


# ---- inside ---------------------------------------------------------------------------------------------------


def _by_block(of: Completion, rows: Codes, height: int) -> Iterator[tuple[int, int]]:
    """Cut ascending ``rows`` into what lies within one block of the store of at most ``height`` rows."""
    for start, stop in of.observations.ranges(rows=height) if len(rows) else []:
        low, high = np.searchsorted(rows, [start, stop]).tolist()
        if low < high:
            yield low, high


def _solved(of: Completion, rows: Codes, threads: Threads) -> tuple[RowBlock, RowBlock, Any]:
    """Read the block around ``rows``, ascending, and solve only them: all entries, those solved from, the solution.

    Raises
    ------
    InputError
        If the store was split anew after the fit: what was read may be of another split.
    """
    start, stop = int(rows[0]), int(rows[-1]) + 1
    asked = np.zeros(stop - start, np.bool_)
    asked[rows - start] = True
    seen = of.observations.row_block(start, stop)
    block = of.targets.standardize(seen, of.observations.roles(seen))
    of.targets.check_split()
    if not asked.all():
        block = block.where(np.repeat(asked, np.diff(block.indptr)))
    return seen, block, of.features.solve(block, of.step, threads)


def _entries(block: RowBlock, rows: Codes, columns: Codes) -> RowBlock:
    """Entries of the block's rows as a block without values; ``rows`` ascend."""
    indptr = np.searchsorted(rows, np.arange(block.start, block.stop + 1))
    return RowBlock(block.start, block.stop, indptr, columns, np.zeros(len(columns)))


def _greatest(
    tile: Tile,
    added: NDArray[Any],
    rows: Codes,
    indptr: NDArray[np.integer],
    indices: NDArray[np.integer],
    k: int,
    threads: Threads,
) -> Codes:
    """Columns of the ``k`` greatest ``tile`` + ``added`` of each row, in any order, -1 where there are fewer.

    Left out are the columns in ``indices`` from ``indptr[row]`` to the next.
    """
    kept, columns = np.full((len(rows), k), -np.inf, added.dtype), np.full((len(rows), k), -1, np.int64)

    def look_through(first: int, last: int) -> None:
        mine, heaps = rows[first:last], (kept[first:last], columns[first:last])
        for left, right in spans(len(added), TILE_COLUMNS):
            keep_greatest(tile(mine, left, right), left, added, mine, indptr, indices, *heaps)

    threads.map(look_through, spans(len(rows), TILE_ROWS))
    return columns


def _ranked(codes: Codes, columns: Codes, values: NDArray[np.float64]) -> Ranked:
    """Entries by code, then value, the greatest first, then column; ``codes`` ascend."""
    order = np.lexsort((columns, -values, codes))
    ranks = np.arange(len(codes)) - np.searchsorted(codes, codes) + 1
    return Ranked(codes, ranks, columns[order], values[order])
