"""Compiled kernels that keep the greatest scores of a row while its columns go by. Each runs on one thread, over tiles
it is given, and holds no lock of Python's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.compiling import kernel

Array = NDArray[Any]

STRIDE = 64
"""Scores looked at together: nearly always none of them is among the greatest."""


@kernel
def keep_greatest(
    scores: Array, left: int, added: Array, rows: Array, indptr: Array, indices: Array, kept: Array, columns: Array
) -> None:
    """Offer a tile of scores to the heaps of its rows; column ``left`` comes first, earlier tiles were offered before.

    The score of row t and column j is ``scores[t, j - left] + added[j]``. ``kept`` and ``columns`` (rows, k) hold, as
    heaps, the greatest scores so far and their columns; -inf and -1 at first. Of equal scores the lower column stays.
    Columns in ``indices`` between ``indptr[rows[t]]`` and the next are left out, and so are scores of -inf.
    """
    width = scores.shape[1]
    beside = added[left : left + width]
    for t in range(scores.shape[0]):
        row, heap, places = scores[t], kept[t], columns[t]
        skipped = indices[indptr[rows[t]] : indptr[rows[t] + 1]]
        for start in range(0, width, STRIDE):
            stop = min(start + STRIDE, width)
            if _beyond(row[start:stop], beside[start:stop], heap[0]) == 0:
                continue
            for c in range(start, stop):
                score, column = row[c] + beside[c], left + c
                if score > heap[0] and not _holds(skipped, column):
                    _replace_least(heap, places, score, column)


@kernel
def _beyond(scores: Array, added: Array, least: float) -> int:
    """How many scores are greater than ``least``: a count compiles to vector instructions, a maximum does not."""
    count = 0
    for c in range(len(scores)):
        count += scores[c] + added[c] > least
    return count


@kernel
def _holds(ascending: Array, column: int) -> bool:
    place = np.searchsorted(ascending, column)
    if place == len(ascending):
        return False
    return bool(ascending[place] == column)


@kernel
def _replace_least(heap: Array, places: Array, score: float, column: int) -> None:
    """Put a score in place of the heap's least; of equal ones the greater column is the lesser."""
    size, t = len(heap), 0
    while 2 * t + 1 < size:
        child = 2 * t + 1
        other = child + 1
        if other < size and _less(heap[other], places[other], heap[child], places[child]):
            child = other
        if not _less(heap[child], places[child], score, column):
            break
        heap[t], places[t] = heap[child], places[child]
        t = child
    heap[t], places[t] = score, column


@kernel
def _less(score: float, column: int, other: float, other_column: int) -> bool:
    return score < other or (score == other and column > other_column)
