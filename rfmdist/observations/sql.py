"""SQL that takes an entry of a table in, or stops at it. Knows what an id and a value are; runs nothing.

Errors raised inside DuckDB are recognised outside by their text: DuckDB has no other way to stop a query at a
wrong entry.
"""

from __future__ import annotations

from rfmdist.observations.relations import Table

TEXT_ID = "rfmdist: a text id among integers: "
WRONG = "rfmdist: wrong entry"


def take_id(part: str, table: Table, *, as_text: bool) -> str:
    """SQL of an id: 7 is an integer; 007, 7.0 and +7 are text, so that none is taken for another."""
    text, number = _text(part, table), f"try_cast({table.fields[part].sql} as BIGINT)"
    found = text
    if not as_text:
        found = f"case when {number}::VARCHAR = {text} then {number} else error('{TEXT_ID}{part}') end"
    return f"case when {_no_id(part, table)} then error('{WRONG}') else {found} end"


def take_value(table: Table, kind: str) -> str:
    """SQL of a value, of the SQL type ``kind``."""
    number = table.fields["value"].sql
    return f"case when {_finite(table, kind)} then {number}::{kind} else error('{WRONG}') end"


def find_wrong(table: Table, parts: tuple[str, ...], kind: str) -> str:
    """SQL of the first entry that cannot be taken in: its position and its parts as text."""
    tests = [f"not {_finite(table, kind)}" if part == "value" else _no_id(part, table) for part in parts]
    texts = ", ".join(f"({table.fields[part].sql})::VARCHAR" for part in parts)
    numbered = f"select row_number() over () - 1 as place, * from {table.relation}"
    return f"select place, {texts} from ({numbered}) where {' or '.join(tests)} order by place limit 1"


def _text(part: str, table: Table) -> str:
    return f"trim(({table.fields[part].sql})::VARCHAR)"


def _no_id(part: str, table: Table) -> str:
    """SQL that says whether an entry has no id, or one outside of its matrix."""
    text = _text(part, table)
    if table.extent is None:
        return f"coalesce({text}, '') = ''"
    low, high = table.extent.bounds(part)
    number = f"try_cast({text} as BIGINT)"
    return f"not coalesce({number} between {low} and {high} and {number}::VARCHAR = {text}, false)"


def _finite(table: Table, kind: str) -> str:
    return f"coalesce(isfinite(try_cast({table.fields['value'].sql} as {kind})), false)"
