"""Offsets: the global, row and column means of the values, fitted by blocks. Knows nothing of features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.blocks import FITTED_ROLES, Offsets, Role, RowBlock
from rfmdist.observations.kept import passes
from rfmdist.observations.store import Observations

OffsetKind = Literal["both", "rows", "columns", "global"]
SHRINKAGE = 5.0
"""Entries' worth of pull of an offset towards 0: the usual damping for ratings."""
SWEEPS = 15
"""Times that columns and rows are fitted in turn; further ones move MovieLens' offsets by less than 1e-4."""


def fit_offsets(
    observations: Observations,
    kind: OffsetKind | None = "both",
    *,
    shrinkage: float = SHRINKAGE,
    roles: Iterable[Role] = FITTED_ROLES,
    sweeps: int = SWEEPS,
) -> Offsets:
    """Fit ``mean + rows[i] + columns[j]`` to the entries of ``roles``, by alternating shrunken means.

    A row's offset is the sum of its residuals over (their number + ``shrinkage``), and likewise for columns; a
    row without entries gets 0. The rows come last, so that a new row's offset, fitted alone, is what a fit on
    all rows would give it.

    Parameters
    ----------
    observations : Observations
        What was observed.
    kind : {"both", "rows", "columns", "global"} or None, default "both"
        Which offsets to fit; None gives zeros.
    shrinkage : float, default 5.0
        Entries' worth of pull towards 0.
    roles : roles, default training and validation
        Entries to fit on. Test entries are never among them by default.
    sweeps : int, default 15
        Passes over the data for ``kind="both"``; further ones move MovieLens' offsets by less than 1e-4.

    Returns
    -------
    Offsets
        float64.
    """
    if kind is not None and kind not in get_args(OffsetKind):
        raise InputError(f"offsets={kind!r} is not known: use one of {', '.join(get_args(OffsetKind))} or None")
    m, n = observations.shape
    offsets = Offsets(0.0, np.zeros(m), np.zeros(n), shrinkage if kind in ("both", "rows") else None)
    if kind is None:
        return offsets
    blocks = passes(observations, frozenset(roles))
    offsets = replace(offsets, mean=_mean(blocks))
    sums, counts = _column_sums(blocks, offsets.mean, n)
    taken = np.zeros(n)  # by the rows' offsets from each column's sum
    for _ in range({"both": sweeps, "rows": 1, "columns": 1}.get(kind, 0)):
        if kind != "rows":
            offsets.columns[:] = (sums - taken) / np.maximum(counts + shrinkage, 1)
        if kind != "columns":
            taken[:] = 0
            for block in blocks:
                found = row_offsets(block, offsets, shrinkage)
                offsets.rows[block.start : block.stop] = found
                taken += np.bincount(block.indices, np.repeat(found, np.diff(block.indptr)), n)
    return offsets


def row_offsets(block: RowBlock, offsets: Offsets, shrinkage: float) -> NDArray[np.float64]:
    """Offsets of a block's rows, given the mean and the columns' offsets; float64 ndarray of shape (rows,)."""
    counts = np.diff(block.indptr)
    left = offsets.columns.take(block.indices)
    left += offsets.mean
    np.subtract(block.values, left, out=left)
    sums = np.bincount(np.repeat(np.arange(len(counts)), counts), left, len(counts))
    return sums / np.maximum(counts + shrinkage, 1)


def _mean(blocks: Iterable[RowBlock]) -> float:
    total, count = 0.0, 0
    for block in blocks:
        total += float(np.sum(block.values, dtype=np.float64))
        count += len(block.values)
    return total / max(count, 1)


def _column_sums(blocks: Iterable[RowBlock], mean: float, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum of each column's values less the mean, and their number."""
    sums, counts = np.zeros(n), np.zeros(n, np.int64)
    for block in blocks:
        sums += np.bincount(block.indices, block.values - np.float64(mean), n)
        counts += np.bincount(block.indices, minlength=n)
    return sums, counts
