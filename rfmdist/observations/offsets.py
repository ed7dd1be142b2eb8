"""Offsets: the global, row and column means of the values, fitted by blocks. Knows nothing of features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rfmdist.checks import check_number, check_whole
from rfmdist.errors import InputError
from rfmdist.observations.blocks import FITTED_ROLES, Offsets, Role, RowBlock, parse_roles
from rfmdist.observations.kept import Entries
from rfmdist.observations.passes import Group, Here, Part, Runner, groups_of
from rfmdist.observations.scales import Spread
from rfmdist.observations.store import Observations
from rfmdist.observations.summary import Facts, overview

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
    roles: str | Role | Iterable[str | Role] = FITTED_ROLES,
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

    Raises
    ------
    InputError
        If a setting is out of range, or a role or the kind is not known.
    """
    if kind is None:
        return given_offsets(observations, None)
    _check(kind)
    check_number("shrinkage", shrinkage, least=0)
    check_whole("sweeps", sweeps, 1)
    wanted = parse_roles(roles)
    facts = overview(observations, [wanted]).of(wanted)
    return find_offsets(Entries(observations, wanted), facts, kind, shrinkage, sweeps, Here())[0]


def find_offsets(
    entries: Entries, facts: Facts, kind: OffsetKind, shrinkage: float, sweeps: int, run: Runner
) -> tuple[Offsets, Spread | None]:
    """Fit offsets to entries that are known in part, where ``run`` runs; see `fit_offsets`.

    Where the rows come last, what is left of them is found on the way and returned too.
    """
    _check(kind)
    m, n = entries.observations.shape
    mean, columns, part = facts.summary.mean if facts.summary.count else 0.0, np.zeros(n), Part({"taken": np.zeros(n)})
    sums, counts = facts.column_sums(mean), np.maximum(facts.by_column + shrinkage, 1)
    groups, published = groups_of(entries.observations), run.publish(entries, lasting=True)
    for _ in range({"global": 0, "both": sweeps}.get(kind, 1)):
        if kind != "rows":
            columns = (sums - part.sums["taken"]) / counts
        if kind != "columns":
            part.rows.clear()
            part = run.reduce(_swept, groups, published, mean, run.publish(columns), shrinkage)
    if not part.rows:
        return Offsets(mean, np.zeros(m), columns, shrinkage if kind in ("both", "rows") else None), None
    rows, squares, peaks = part.joined()
    return Offsets(mean, rows, columns, shrinkage), Spread(squares, facts.by_row, float(peaks.max()))


def given_offsets(observations: Observations, kind: Literal["stored"] | None) -> Offsets:
    """Return stored offsets, or none at all.

    Raises
    ------
    InputError
        If none are stored.
    """
    if kind is None:
        m, n = observations.shape
        return Offsets(0.0, np.zeros(m), np.zeros(n))
    found = observations.offsets
    if found is None:
        raise InputError(f"{observations.name}: no offsets are stored; store some or choose offsets='both'")
    return found


def row_offsets(block: RowBlock, offsets: Offsets, shrinkage: float) -> NDArray[np.float64]:
    """Offsets of a block's rows, given the mean and the columns' offsets; float64 ndarray of shape (rows,)."""
    from rfmdist.observations import loops

    rows = np.empty(block.stop - block.start)
    loops.row_offsets(block.indptr, block.indices, block.values, offsets.mean, offsets.columns, float(shrinkage), rows)
    return rows


def _check(kind: str) -> None:
    if kind not in get_args(OffsetKind):
        raise InputError(f"offsets={kind!r} is not known: use one of {', '.join(get_args(OffsetKind))} or None")


def _swept(group: Group, entries: Entries, mean: float, columns: NDArray[np.float64], shrinkage: float, _: Any) -> Part:
    """The offsets of a group's rows, what they leave, and what they take from each column's sum."""
    from rfmdist.observations import loops

    taken = np.zeros(len(columns))
    rows: list[tuple[NDArray[Any], ...]] = []
    for block in entries.blocks(group):
        found, squares = np.empty(block.stop - block.start), np.empty(block.stop - block.start)
        arrays = block.indptr, block.indices, block.values
        peak = loops.sweep(*arrays, mean, columns, float(shrinkage), found, taken, squares)
        rows.append((found, squares, np.array([peak])))
    return Part({"taken": taken}, rows)
