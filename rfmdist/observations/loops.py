"""Compiled loops over the entries of a block, each on one thread and without temporaries. Imported when first needed.

None holds Python's lock, so that the next block is read meanwhile. Sums run in the order of the entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.compiling import kernel

Array = NDArray[Any]

# ---- roles --------------------------------------------------------------------------------------------------


@kernel
def hash_entries(rows: Array, columns: Array, factors: Array, start: int, words: Array) -> None:
    """SplitMix64's finaliser of ``start + row factors[0] + column factors[1]`` into ``words`` (entries,), uint64."""
    for t in range(len(rows)):
        words[t] = mixed(np.uint64(rows[t]) * factors[0] + np.uint64(columns[t]) * factors[1] + start)


@kernel
def draw_entries(
    first: int, indptr: Array, indices: Array, factors: Array, start: int, low: int, high: int, drawn: Array
) -> None:
    """Tell in ``drawn`` (entries,) whether the entry's word, as `hash_entries` gives it, is in [``low``, ``high``).

    Of a block of rows from code ``first`` on.
    """
    for i in range(len(indptr) - 1):
        state = np.uint64(first + i) * factors[0] + start
        for e in range(indptr[i], indptr[i + 1]):
            word = mixed(np.uint64(indices[e]) * factors[1] + state)
            drawn[e] = low <= word and word < high


@kernel
def mixed(state: Any) -> Any:
    """Finalise SplitMix64's state: every bit of it moves every bit of the result."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@kernel
def choose_least(indptr: Array, draws: Array, count: int, chosen: Array) -> None:
    """Mark in ``chosen`` (entries,) the ``count`` entries of least draw of each row with more; of equal ones the first.

    Few draws are among the least so far, so that a list in order, to which they are added, costs little.
    """
    least, where = np.empty(count), np.empty(count, np.int64)
    for i in range(len(indptr) - 1):
        if indptr[i + 1] - indptr[i] <= count:
            continue
        held = 0
        for t in range(indptr[i], indptr[i + 1]):
            if held == count and draws[t] >= least[count - 1]:
                continue
            held = min(held + 1, count)
            k = held - 1
            while k > 0 and least[k - 1] > draws[t]:
                least[k], where[k] = least[k - 1], where[k - 1]
                k -= 1
            least[k], where[k] = draws[t], t
        for k in range(count):
            chosen[where[k]] = True


# ---- what is known without offsets -----------------------------------------------------------------------------


@kernel
def gather(
    indptr: Array,
    indices: Array,
    values: Array,
    roles: Array,
    slots: Array,
    origin: float,
    by_role: Array,
    columns: Array,
    moments: Array,
    ends: Array,
    by_row: Array,
) -> None:
    """Add what a block's entries tell, each to the slot of its role; a slot of -1 takes none.

    ``by_role`` (roles,) and ``by_row`` (slots, rows) are numbers of entries. ``columns`` (slots, n, 2) are the sum of
    each column's values less ``origin`` and their number, side by side in the cache. ``moments`` (slots, 3): number,
    sum and the sum of squares of values less ``origin``; ``ends`` (slots, 4): the least and how often, the greatest and
    how often.
    """
    for i in range(len(indptr) - 1):
        for t in range(indptr[i], indptr[i + 1]):
            role = roles[t]
            by_role[role] += 1
            slot = slots[role]
            if slot < 0:
                continue
            value, j = np.float64(values[t]), indices[t]
            left = value - origin
            columns[slot, j, 0] += left
            columns[slot, j, 1] += 1.0
            by_row[slot, i] += 1
            moments[slot, 0] += 1.0
            moments[slot, 1] += left
            moments[slot, 2] += left * left
            if value <= ends[slot, 0]:
                ends[slot, 1] = ends[slot, 1] + 1.0 if value == ends[slot, 0] else 1.0
                ends[slot, 0] = value
            if value >= ends[slot, 2]:
                ends[slot, 3] = ends[slot, 3] + 1.0 if value == ends[slot, 2] else 1.0
                ends[slot, 2] = value


# ---- offsets ---------------------------------------------------------------------------------------------------


@kernel
def row_offset(
    indices: Array, values: Array, first: int, last: int, mean: float, columns: Array, shrinkage: float
) -> float:
    """Offset of the row whose entries are those from ``first`` to ``last``, given the mean and the columns'."""
    total = 0.0
    for t in range(first, last):
        total += values[t] - (columns[indices[t]] + mean)
    return total / max(last - first + shrinkage, 1.0)


@kernel
def row_offsets(
    indptr: Array, indices: Array, values: Array, mean: float, columns: Array, shrinkage: float, rows: Array
) -> None:
    """`row_offset` of each row of a block into ``rows`` (rows,)."""
    for i in range(len(indptr) - 1):
        rows[i] = row_offset(indices, values, indptr[i], indptr[i + 1], mean, columns, shrinkage)


@kernel
def sweep(
    indptr: Array,
    indices: Array,
    values: Array,
    mean: float,
    columns: Array,
    shrinkage: float,
    rows: Array,
    taken: Array,
    squares: Array,
) -> float:
    """`row_offsets`, with what they take from each column's sum added to ``taken`` (n,), and what they leave.

    That is the sum of squares of each row into ``squares`` (rows,), and the largest size of all, which is returned.
    """
    peak = 0.0
    for i in range(len(indptr) - 1):
        first, last = indptr[i], indptr[i + 1]
        rows[i] = row_offset(indices, values, first, last, mean, columns, shrinkage)
        for t in range(first, last):
            taken[indices[t]] += rows[i]
        squares[i], largest = _left(indices, values, first, last, mean + rows[i], columns)
        peak = max(peak, largest)
    return peak


@kernel
def spread(
    indptr: Array, indices: Array, values: Array, mean: float, columns: Array, rows: Array, squares: Array
) -> float:
    """Sum of squares of what offsets leave of each row into ``squares`` (rows,); the largest size is returned."""
    peak = 0.0
    for i in range(len(indptr) - 1):
        squares[i], largest = _left(indices, values, indptr[i], indptr[i + 1], mean + rows[i], columns)
        peak = max(peak, largest)
    return peak


@kernel
def _left(indices: Array, values: Array, first: int, last: int, offset: float, columns: Array) -> tuple[float, float]:
    squares, largest = 0.0, 0.0
    for t in range(first, last):
        left = values[t] - (columns[indices[t]] + offset)
        squares += left * left
        largest = max(largest, abs(left))
    return squares, largest


# ---- the order of the columns ----------------------------------------------------------------------------------


@kernel
def count_columns(indices: Array, counts: Array) -> None:
    """Add the number of entries in each column to ``counts`` (n,)."""
    for t in range(len(indices)):
        counts[indices[t]] += 1


@kernel
def place(indices: Array, free: Array, places: Array) -> None:
    """Give each entry the next free place of its column; ``free`` (n,) moves on."""
    for t in range(len(indices)):
        j = indices[t]
        places[t] = free[j]
        free[j] += 1


@kernel
def deal(places: Array, step: int, cuts: Array, turns: Array, within: Array) -> None:
    """Deal entries to the stretches of ``step`` places that they go to.

    ``turns`` (entries,) is where each comes when stretch follows stretch, which begin at the numbers in ``cuts``
    (stretches + 1,); ``within`` (entries,), in that order, the places counted from the begin of the stretch.
    """
    cuts[:] = 0
    for t in range(len(places)):
        turns[t] = places[t] // step
        cuts[turns[t] + 1] += 1
    for k in range(len(cuts) - 1):
        cuts[k + 1] += cuts[k]
    free = cuts.copy()
    for t in range(len(places)):
        k = turns[t]
        turns[t] = free[k]
        within[free[k]] = places[t] - k * step
        free[k] += 1


@kernel
def scatter(values: Array, places: Array, out: Array) -> None:
    """Put each value at its place in ``out``."""
    for t in range(len(places)):
        out[places[t]] = values[t]


@kernel
def count(roles: Array, wanted: Array) -> int:
    """Count the entries whose role is ``wanted``, a table of booleans."""
    found = 0
    for role in roles:
        found += wanted[role]
    return found


@kernel
def select(indptr: Array, indices: Array, values: Array, roles: Array, wanted: Array, *out: Array) -> None:
    """Copy the entries whose role is ``wanted`` to ``out``: their indptr, indices, values.

    The last two have room for one entry more: writing each and keeping it or not is faster than asking first.
    """
    pointers, columns, observed = out
    end = 0
    pointers[0] = 0
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            columns[end], observed[end] = indices[e], values[e]
            end += wanted[roles[e]]
        pointers[i + 1] = end


@kernel
def standardize(
    indptr: Array,
    indices: Array,
    values: Array,
    roles: Array,
    wanted: Array,
    base: Array,
    columns: Array,
    row_scales: Array,
    column_scales: Array,
    unit: float,
    *out: Array,
) -> None:
    """Do as `select`, with (value - (column's offset + row's ``base``)) / scale / unit, in float64, for the values.

    ``base`` (rows,) is the mean plus the rows' offsets. ``columns``, ``row_scales`` and ``column_scales`` are empty
    where there are none: offsets are then 0 and scales 1.
    """
    pointers, kept, standardized = out
    end = 0
    pointers[0] = 0
    for i in range(len(indptr) - 1):
        mean = base[i]
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            offset = columns[j] + mean if len(columns) else mean
            left = np.float64(values[e]) - offset
            if len(row_scales):
                left /= row_scales[i]
            elif len(column_scales):
                left /= column_scales[j]
            kept[end], standardized[end] = j, left / unit
            end += wanted[roles[e]]
        pointers[i + 1] = end


# ---- components ---------------------------------------------------------------------------------------------


@kernel
def link(least: Array, left: Array, right: Array) -> None:
    """Join the sets of ``left[t]`` and ``right[t]`` for all t; ``least`` (n,) holds the least member of each one's set.

    It is kept so in the end: sets that are the same are then told by the same numbers, however they came to be.
    """
    for t in range(len(left)):
        a, b = np.int64(left[t]), np.int64(right[t])
        while least[a] != a:
            least[a] = least[least[a]]
            a = least[a]
        while least[b] != b:
            least[b] = least[least[b]]
            b = least[b]
        if a < b:
            least[b] = a
        else:
            least[a] = b
    for j in range(len(least)):
        least[j] = least[least[j]]
