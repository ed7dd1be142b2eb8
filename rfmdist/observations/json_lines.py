"""Files of JSON, an object a line: their names, from the first of them. DuckDB reads the rest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfmdist.errors import InputError
from rfmdist.observations.columns import Given, refuse_twins, resolve_columns
from rfmdist.observations.lines import SAMPLE_LINES, Lines, quoted, sample_lines
from rfmdist.observations.texts import open_text


@dataclass(frozen=True, kw_only=True)
class JsonLayout(Lines):
    """How the lines of a file of JSON look; its fields are by name, and one that a line lacks is missing."""

    names: tuple[str, ...]

    @property
    def relation(self) -> str:
        columns = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in self.names)
        fields = ", ".join(f"#{k + 1} c{k}" for k in range(self.width))
        read = f"read_json({self.source}, format='newline_delimited', columns={{{columns}}})"
        return f"(select {fields} from {read})"

    def fields(self, entry: int) -> int:
        return self.width

    def wrong_line(self, text: str) -> tuple[int, str] | None:
        with open_text(self.path) as file:
            for number, line in enumerate(file, 1):
                if self.is_entry(line) and not isinstance(_parsed(line), dict):
                    return number, "is not a JSON object"
        return None


def json_layout(path: Path, given: Given) -> JsonLayout:
    """Tell the names in a file of JSON: of entries those on its first lines, of a table about ids all.

    Raises
    ------
    InputError
        If a line is no JSON object, or the names do not tell which is which.
    """
    sample = sample_lines(path, None if len(given) == 1 else SAMPLE_LINES)
    names: dict[str, None] = {}
    for number, line in sample.lines:
        found = _parsed(line)
        if not isinstance(found, dict):
            raise InputError(f"{path}, line {number}: is not a JSON object")
        names |= dict.fromkeys(found)
    refuse_twins(str(path), tuple(names))
    positions = resolve_columns(str(path), tuple(names), len(names), given)
    return JsonLayout(
        path=path,
        positions=positions,
        width=len(names),
        names=tuple(names),
        comments=sample.comments,
        mixed=sample.mixed,
    )


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
