"""Delimited text: its delimiter, header and lines, from the first of them. DuckDB reads the rest."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from rfmdist.errors import InputError
from rfmdist.observations.columns import Given, has_header, refuse_matrix, resolve_columns
from rfmdist.observations.lines import Lines, quoted, sample_lines

DELIMITERS = ("::", "\t", ",", ";", "|", " ", None)
"""Tried in this order when none is given; None stands for any run of blanks."""

GROUPED = r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+([.][0-9]*)?"
"""Numbers whose digits are in groups of three."""


@dataclass(frozen=True, kw_only=True)
class TextLayout(Lines):
    """How the lines of a file of delimited text look.

    Attributes
    ----------
    delimiter : str or None
        Between fields; None stands for any run of blanks.
    """

    delimiter: str | None

    @property
    def relation(self) -> str:
        if self.delimiter is None:
            return self._relation_of_blanks()
        return self._read_csv(self.delimiter, '"' if len(self.delimiter) == 1 else "", self.width)

    def field(self, part: str) -> str:
        """SQL of a part of an entry; of a value with commas between digits, "1,234.5", without them.

        Only where the delimiter is a comma: elsewhere a comma may stand for a decimal point.
        """
        field = super().field(part)
        if part != "value" or self.delimiter != ",":
            return field
        grouped = f"contains({field}, ',') and regexp_full_match(trim({field}), '{GROUPED}')"
        return f"case when {grouped} then replace({field}, ',', '') else {field} end"

    def fields(self, entry: int) -> int:
        return len(split_line(self.line_of(entry)[1], self.delimiter))

    def wrong_line(self, text: str) -> tuple[int, str] | None:
        line = re.search(r"CSV Error on Line: (\d+)", text)
        if line is None:
            return None
        reason = "cannot be read"
        if fields := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text):
            reason = f"{fields[2]} fields where {fields[1]} are expected"
        elif "unicode" in text:
            reason = "is not UTF-8 text"
        elif "unterminated quote" in text:
            reason = "a quote is not closed"
        return int(line[1]), reason

    def _relation_of_blanks(self) -> str:
        """Each line as one field, cut by DuckDB; a line with too few or too many fields gives NULLs."""
        line = "trim(c0, ' ' || chr(9))"
        fields = ", ".join(f"case when len(f) = {self.width} then f[{k + 1}] end c{k}" for k in range(self.width))
        lines = f"select string_split_regex({line}, '\\s+') f from {self._read_csv(chr(1), '', 1)} where {line} <> ''"
        return f"(select {fields} from ({lines}))"

    def _read_csv(self, delimiter: str, quote: str, width: int) -> str:
        columns = ", ".join(f"'c{k}': 'VARCHAR'" for k in range(width))
        return (
            f"read_csv({self.source}, delim={quoted(delimiter)}, quote='{quote}', escape='{quote}',"
            f" header=false, auto_detect=false, skip={self.skip}, columns={{{columns}}})"
        )


def look_at(path: Path, given: Given, delimiter: str | None) -> TextLayout:
    """Tell the layout of a text file from its first lines."""
    if delimiter is not None and (not delimiter or set(delimiter) & set('\n\r"\0')):
        raise InputError(f"delimiter {delimiter!r} cannot be between fields; leave it out to have it found")
    sample = sample_lines(path)
    texts = [line for _, line in sample.lines]
    if delimiter is None:
        found = _find_delimiter(path, texts, max(2, len(given)))
    else:
        found = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
        found = None if found == " " and _has_runs(texts) else found
    lines = [split_line(line, found) for line in texts]
    names = tuple(field.strip() for field in lines[0]) if has_header(lines, given) else None
    if names is None and found != "::":  # no program writes a matrix so
        refuse_matrix(str(path), lines, given)
    positions = resolve_columns(str(path), names, len(lines[0]), given)
    return TextLayout(
        path=path,
        positions=positions,
        width=len(lines[0]),
        names=names,
        skip=sample.lines[0][0] - (names is None),
        comments=sample.comments,
        mixed=sample.mixed,
        delimiter=found,
    )


def split_line(line: str, delimiter: str | None) -> list[str]:
    """Cut a line into its fields; quotes count where the delimiter is one character."""
    line = line.rstrip("\r\n")
    if delimiter is None or len(delimiter) > 1:
        return line.split(delimiter)
    return next(csv.reader([line], delimiter=delimiter), [])


def _find_delimiter(path: Path, lines: list[str], least: int) -> str | None:
    likely = [d for d in DELIMITERS if len(split_line(lines[0], d)) >= least and not (d == " " and _has_runs(lines))]
    for delimiter in likely:
        if len({len(split_line(line, delimiter)) for line in lines}) == 1:
            return delimiter
    if not likely:
        raise InputError(f"{path}, line 1: fewer than {least} fields, or a delimiter not known; name the delimiter")
    return likely[0]


def _has_runs(lines: list[str]) -> bool:
    """Whether some lines have several blanks together, or begin or end with one."""
    return any("" in split_line(line, " ") for line in lines)
