"""Which column of a table is which part of an entry. Knows names and positions, not files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from rfmdist.errors import InputError

PARTS = ("row", "column", "value")
KNOWN_NAMES = {
    "row": {"row", "rowid", "user", "userid", "customer", "customerid"},
    "column": {"column", "col", "columnid", "item", "itemid", "movie", "movieid", "product", "productid"},
    "value": {"value", "rating", "score", "stars"},
}
MISSING = {"", "na", "n/a", "nan", "null", "none"}
"""How a value that is missing is written; a line with one may be an entry, to be told as wrong."""
LEAST_TIME = 1e8
"""Seconds since 1970, in 1973: a whole number from here on may be the time of a rating, none below is taken for one."""
Given = dict[str, str | int | None]
"""For each part that is wanted, the user's name or 1-based position of its column, or None."""


def resolve_columns(name: str, names: Sequence[str] | None, width: int, given: Given) -> dict[str, int]:
    """Positions of the parts: as given, else by known names, else the first columns."""
    found: dict[str, int] = {}
    for part, wanted in given.items():
        if wanted is not None:
            found[part] = _named(name, part, str(wanted), names, width)
        elif names is not None:
            known = [k for k, label in enumerate(names) if known_part(label) == part]
            if len(known) == 1:
                found[part] = known[0]
    if names is None or (not found and width <= len(PARTS)):
        found = {part: found.get(part, PARTS.index(part)) for part in given}
    if len(found) < len(given) or len(set(found.values())) < len(given) or max(found.values()) >= width:
        there = f"it has {', '.join(names)}" if names is not None else f"it has {width} columns and no header"
        missing = ", ".join(given)
        raise InputError(f"{name}: cannot tell which columns are {missing} ({there}); name them with {missing}")
    return found


def has_header(lines: Sequence[Sequence[str]], given: Given) -> bool:
    """Whether the first line names the columns.

    Where only ids are wanted it does: their other columns have no names elsewhere. Else it does if the user gave a
    name, or if it holds no number but known names. Where values are wanted, a first line without any number cannot be
    an entry, so that unknown names above numbers are a header too. Of pairs any line may be an entry: unknown names
    are taken for ids, which are then told as unknown, rather than a pair dropped in silence.
    """
    first = [field.strip() for field in lines[0]]
    if len(given) == 1:
        return True
    if any(isinstance(name, str) and not name.isdecimal() for name in given.values()):
        return True
    if any(map(is_number, first)):
        return False
    if any(known_part(field) in given for field in first):
        return True
    if "value" not in given or any(field.lower() in MISSING for field in first):
        return False
    return any(all(map(is_number, column)) for column in zip(*lines[1:], strict=False))


def refuse_matrix(name: str, lines: Sequence[Sequence[str]], given: Given) -> None:
    """Refuse first lines without names that may be those of a dense matrix, unless the user gave a position.

    Entries have at most one more number than row, column and value, and it is a time. A matrix has numbers in
    further columns, or fractions where entries have their ids.

    Raises
    ------
    InputError
    """
    width = len(lines[0])
    if any(position is not None for position in given.values()) or any(len(line) != width for line in lines):
        return  # lines of other widths are told when they are read
    further = list(zip(*lines, strict=True))[len(PARTS) :]
    numbers = [column for column in further if _are_numbers(column)]
    times = len(numbers) <= 1 and all(_is_time(field) or is_missing(field) for column in numbers for field in column)
    fractions = any(_is_fraction(line[0]) and _is_fraction(line[1]) for line in lines)
    if fractions or not times:
        raise InputError(
            f"{name}: {width} columns of numbers without names may be a dense matrix, whose zeros are not told from"
            f" unobserved entries; where each line is an entry, give the positions of {', '.join(given)}, else save"
            " what was observed as a scipy.sparse matrix in an .npz file"
        )


def refuse_twins(name: str, names: Sequence[str]) -> None:
    """Refuse names of columns that differ in case alone or not at all, which DuckDB takes for one.

    Raises
    ------
    InputError
    """
    folded = [label.lower() for label in names]
    twins = [label for label in names if folded.count(label.lower()) > 1]
    if twins:
        raise InputError(f"{name}: the columns {' and '.join(map(repr, twins))} differ in case alone; rename one")


def is_missing(field: str) -> bool:
    """Whether a field is a way to write that there is no value."""
    return field.strip().lower() in MISSING


def is_number(field: str) -> bool:
    """Whether a field is a number, NaN and infinity included."""
    try:
        return math.isnan(float(field)) or True
    except ValueError:
        return False


def _are_numbers(column: Sequence[str]) -> bool:
    """Whether a column holds a number and nothing else but missing values."""
    return all(is_number(field) or is_missing(field) for field in column) and not all(map(is_missing, column))


def _is_time(field: str) -> bool:
    return is_number(field) and float(field).is_integer() and float(field) >= LEAST_TIME


def _is_fraction(field: str) -> bool:
    """Whether a field is a finite number that is not whole."""
    return is_number(field) and math.isfinite(float(field)) and not float(field).is_integer()


def known_part(label: str) -> str | None:
    """Part that a column of this name usually holds."""
    plain = re.sub(r"[^a-z0-9]", "", label.lower())
    return next((part for part, names in KNOWN_NAMES.items() if plain in names), None)


def _named(name: str, part: str, wanted: str, names: Sequence[str] | None, width: int) -> int:
    if names is not None and wanted in names:
        return list(names).index(wanted)
    if wanted.isdecimal() and 1 <= int(wanted) <= width:
        return int(wanted) - 1
    there = f"its columns are {', '.join(names)}" if names is not None else f"it has {width} columns and no header"
    raise InputError(f"{name}: no column {wanted!r} for {part}; {there}")
