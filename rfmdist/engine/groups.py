"""Into how many groups rows are cut: by numbers of entries alone, so that results depend on no machine."""

from __future__ import annotations

from rfmdist.observations.passes import cut_rows
from rfmdist.observations.store import Observations

GROUPS, MANY_ENTRIES, MOST_GROUPS = 64, 1 << 25, 1 << 13
"""At most 64 groups up to so many entries, then as the root of their number: eight to each of 1024 workers at 1e12, and
rounds of tasks that stay long beside what a task costs."""
GROUP_ENTRIES = 1 << 18
"""Entries of a group of a pass that only scores."""
FACTORED_ENTRIES = 1 << 18
"""Fewest entries of a group of a factored fit: some 40 ms of a core at r = 32."""
ENTRIES_PER_FEATURE = 20
"""Entries of a group for each row of U where a group sums n × r numbers: adding them then costs little."""


def equal_groups(observations: Observations, entries: int = GROUP_ENTRIES) -> tuple[tuple[int, int], ...]:
    """Cut rows into groups of about equal numbers of entries, for passes that only read and solve."""
    return cut_rows(observations, group_number(observations.nnz, entries))


def group_number(nnz: int, entries: int) -> int:
    """Return into how many groups of at least so many ``entries`` all ``nnz`` are cut."""
    return min(most_groups(nnz), 1 + nnz // entries)


def most_groups(nnz: int) -> int:
    """Return the most groups of ``nnz`` entries: more than workers, but no more than tasks are cheap to send."""
    return min(MOST_GROUPS, max(GROUPS, round(GROUPS * (nnz / MANY_ENTRIES) ** 0.5)))
