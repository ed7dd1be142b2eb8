"""What a fit will cost and how it is cut: decided from shape and counts alone, before any work. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import psutil

from rfmdist.errors import InputError
from rfmdist.features.dense import Form
from rfmdist.kernels.threads import cores
from rfmdist.observations.store import Observations

GROUP_FLOPS = 1e9
"""Least work of a group, about 20 ms of a core: below it a task's own cost shows."""
GROUP_FLOPS_PER_FEATURE = 2400.0
"""Work of a group for each of the n² numbers of its partial: summing it then costs under a tenth of the work."""
GROUPS, SMALL, SMALL_GROUPS = 64, 2048, 4
"""At most 64 groups; at least 4 where n ≤ 2048, since partials of up to 32 MB cost little to add."""
GROUP_ENTRIES = 1 << 18
"""Entries of a group of a pass that only scores."""
SCATTER_FLOPS = 50.0
"""What adding one number at a scattered place costs (about 1 ns), in flops of a matrix product."""
SLAB_BYTES = 1 << 27
"""Bytes of completed rows in flight."""
BLOCK_BYTES = 1 << 26
"""Bytes of a row block being read, decoded and standardised."""
SLAB_ROWS = 256
"""Fewest rows of a slab: thinner ones multiply at less than full speed."""


@dataclass(frozen=True)
class Plan:
    """How an exact fit is cut into groups, and what it will cost.

    Attributes
    ----------
    groups : tuple of (int, int)
        Ranges of rows; a group is summed by one task. They depend on the row counts and the dtype only.
    form : {"product", "gram"}
        How a group sums the AGOP (see `DenseFeatures`).
    slab_rows : int
        Rows in flight within a group.
    flops : float
        Floating-point operations of one iteration.
    feature_bytes : int
        Bytes of P.
    peak_bytes : int
        Most bytes a fit in process holds at once, beside Python and its libraries.
    """

    groups: tuple[tuple[int, int], ...]
    form: Form
    slab_rows: int
    flops: float
    feature_bytes: int
    peak_bytes: int


def plan_dense(observations: Observations, dtype: Any, power: float = 0.5) -> Plan:
    """Plan an exact fit of the observations with features of ``dtype``.

    The gram form is for a power of 1/2 alone: it takes Z'Z from products in which large numbers cancel, and
    higher powers raise what is left of the rounding.
    """
    (m, n), itemsize = observations.shape, np.dtype(dtype).itemsize
    counts = np.diff(observations.indptr).astype(np.float64)
    product = 2 * counts * n + float(n) ** 2
    gram = counts**2 / 2 * SCATTER_FLOPS
    cheaper: Form = "product" if product.sum() <= gram.sum() + 3 * float(n) ** 3 else "gram"
    form: Form = cheaper if power == 0.5 else "product"
    by_row = counts**3 / 3 + (product if form == "product" else gram)
    flops = float(by_row.sum()) + (0 if form == "product" else 3 * float(n) ** 3)
    wanted = int(by_row.sum() // max(GROUP_FLOPS, GROUP_FLOPS_PER_FEATURE * n**2))
    number = min(max(wanted, SMALL_GROUPS if n <= SMALL else 1), GROUPS, max(m, 1))
    slab_rows = int(max(SLAB_ROWS, SLAB_BYTES // (itemsize * max(n, 1))))
    groups = _cut(by_row, number)
    longest = int(counts.max(initial=0.0))
    peak = _peak_bytes(n, itemsize, form, power, len(groups), min(slab_rows, m), longest)
    return Plan(groups, form, slab_rows, flops, n * n * itemsize, peak)


def _peak_bytes(n: int, itemsize: int, form: Form, power: float, groups: int, slab_rows: int, longest: int) -> int:
    """Most bytes a fit in process holds at once, beside Python and its libraries."""
    features, sums = n * n * itemsize, n * n * 8
    kept = 3 * features  # P, that of the best iterate, and that of the fit while it is repeated
    partials = (1 + (groups - 1).bit_length()) * sums  # one a level of the tree
    slab = slab_rows * n * itemsize if form == "product" else 0
    solves = longest**2 * itemsize * cores()
    update = sums + features  # the total and the next P
    update += 4 * sums if form == "gram" else 0  # P, the total mirrored, the panels and their matrix, in float64
    update += 3 * features if power > 0.5 else 0  # a square, the panels and their matrix
    return kept + max(partials + slab + solves, update) + BLOCK_BYTES


def check_memory(plan: Plan) -> None:
    """Refuse a plan that this machine's free memory cannot hold.

    Raises
    ------
    InputError
        With both figures.
    """
    free = psutil.virtual_memory().available
    if plan.peak_bytes > free:
        raise InputError(
            f"exact features need about {plan.peak_bytes / 2**30:.1f} GiB; {free / 2**30:.1f} GiB are free:"
            " leave out columns that are hardly observed, use dtype='float32', or a machine with more memory"
        )


def equal_groups(observations: Observations) -> tuple[tuple[int, int], ...]:
    """Cut rows into groups of about equal numbers of entries, for passes that only read and solve."""
    number = min(GROUPS, 1 + observations.nnz // GROUP_ENTRIES)
    return _cut(np.diff(observations.indptr) + 1.0, number)


def _cut(cost: np.ndarray[tuple[int], np.dtype[np.float64]], number: int) -> tuple[tuple[int, int], ...]:
    """Cut rows into at most ``number`` ranges of about equal cost, none empty."""
    sums = np.cumsum(cost)
    inner = np.searchsorted(sums, np.arange(1, number) * (sums[-1] / number)) + 1 if len(cost) else []
    cuts = np.unique(np.concatenate([[0], np.minimum(inner, len(cost)), [len(cost)]])).astype(int).tolist()
    return tuple(pairwise(cuts))
