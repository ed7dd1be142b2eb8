"""Delimited text: its delimiter, header and lines, from the first of them. DuckDB reads the rest."""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from rfmdist.errors import InputError
from rfmdist.observations.columns import Given, has_header, resolve_columns

SAMPLE_LINES = 100
"""Lines looked at to find the delimiter and the header."""
DELIMITERS = ("::", "\t", ",", ";", "|", " ")
"""Tried in this order when none is given."""

OTHER_TEXT = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""First bytes of text that DuckDB does not read; UTF-32's begin with UTF-16's, and so come first."""


@dataclass(frozen=True)
class TextLayout:
    """How the lines of a text file look.

    Attributes
    ----------
    path : Path
        The file.
    delimiter : str or None
        Between fields; None stands for any run of blanks.
    skip : int
        Lines before the first entry.
    width : int
        Fields of a line.
    positions : dict of str to int
        Which field holds which part.
    names : tuple of str or None
        Names of the fields, where the file has a header.
    """

    path: Path
    delimiter: str | None
    skip: int
    width: int
    positions: dict[str, int]
    names: tuple[str, ...] | None = None

    @property
    def relation(self) -> str:
        """SQL that reads the file, all fields as text, in columns c0, c1, ..."""
        if self.delimiter is None:
            return self._relation_of_blanks()
        return self._read_csv(self.delimiter, '"' if len(self.delimiter) == 1 else "", self.width)

    def line_of(self, entry: int) -> tuple[int, str]:
        """Number (from 1) and text of the line of the entry at position ``entry``; blank lines hold none."""
        with open_text(self.path) as file:
            lines = ((n, line) for n, line in enumerate(file, 1) if n > self.skip and line.strip())
            return next(islice(lines, entry, None), (self.skip + entry + 1, ""))

    def fields(self, entry: int) -> int:
        """Number of fields on the line of an entry."""
        return len(split_line(self.line_of(entry)[1], self.delimiter))

    def ends_differ(self) -> bool:
        """Whether some lines end in CRLF and some in LF alone, which DuckDB does not read."""
        with open_text(self.path, newline="") as file:
            ends = ("\r\n" if line.endswith("\r\n") else line[-1:] for line in file if line[-1:] in "\r\n")
            first = next(ends, "")
            return any(end != first for end in ends)

    def _relation_of_blanks(self) -> str:
        """Each line as one field, cut by DuckDB; a line with too few or too many fields gives NULLs."""
        cut = "string_split_regex(trim(c0), '\\s+') f"
        fields = ", ".join(f"case when len(f) = {self.width} then f[{k + 1}] end c{k}" for k in range(self.width))
        return f"(select {fields} from (select {cut} from {self._read_csv(chr(1), '', 1)} where trim(c0) <> ''))"

    def _read_csv(self, delimiter: str, quote: str, width: int) -> str:
        columns = ", ".join(f"'c{k}': 'VARCHAR'" for k in range(width))
        return (
            f"read_csv({quoted_path(self.path)}, hive_partitioning=false, delim={quoted(delimiter)},"
            f" quote='{quote}', escape='{quote}',"
            f" header=false, auto_detect=false, skip={self.skip}, compression='{_compression(self.path)}',"
            f" columns={{{columns}}})"
        )


def look_at(path: Path, given: Given, delimiter: str | None) -> TextLayout:
    """Tell the layout of a text file from its first lines."""
    if delimiter is not None and (not delimiter or set(delimiter) & set('\n\r"\0')):
        raise InputError(f"delimiter {delimiter!r} cannot be between fields; leave it out to have it found")
    sample = _sample(path)
    if delimiter is None:
        delimiter = _find_delimiter(path, [line for _, line in sample], max(2, len(given)))
    delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
    lines = [split_line(line, delimiter) for _, line in sample]
    names = tuple(field.strip() for field in lines[0]) if has_header(lines, given) else None
    positions = resolve_columns(str(path), names, len(lines[0]), given)
    first = sample[0][0]
    return TextLayout(path, delimiter, first - (names is None), len(lines[0]), positions, names)


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """Open a text file, compressed or not; bytes that are not UTF-8 are shown as ?.

    Raises
    ------
    InputError
        If it cannot be read or says that it is UTF-16 or UTF-32.
    """
    opener = gzip.open if _compression(path) == "gzip" else open
    try:
        with opener(path, "rb") as raw:
            start = raw.read(4)
        other = next((name for mark, name in OTHER_TEXT.items() if start.startswith(mark)), None)
        if other is not None:
            raise InputError(f"{path}: is {other} text; save it as UTF-8")
        with opener(path, "rt", encoding="utf-8-sig", errors="replace", newline=newline) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def split_line(line: str, delimiter: str | None) -> list[str]:
    """Cut a line into its fields; quotes count where the delimiter is one character."""
    line = line.rstrip("\r\n")
    if delimiter is None or len(delimiter) > 1:
        return line.split(delimiter)
    return next(csv.reader([line], delimiter=delimiter), [])


def _sample(path: Path) -> list[tuple[int, str]]:
    with open_text(path) as file:
        filled = ((number, line) for number, line in enumerate(file, 1) if line.strip())
        sample = list(islice(filled, SAMPLE_LINES))
    if not sample:
        raise InputError(f"{path}: the file is empty")
    return sample


def _find_delimiter(path: Path, lines: list[str], least: int) -> str:
    likely = [d for d in DELIMITERS if len(split_line(lines[0], d)) >= least]
    for delimiter in likely:
        if len({len(split_line(line, delimiter)) for line in lines}) == 1:
            return delimiter
    if not likely:
        raise InputError(f"{path}, line 1: fewer than {least} fields, or a delimiter not known; name the delimiter")
    return likely[0]


def _compression(path: Path) -> str:
    return "gzip" if path.suffix == ".gz" else "none"


def quoted(text: str) -> str:
    """Write text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quoted_path(path: Path) -> str:
    """Write a path as an SQL literal that DuckDB does not take for a pattern, which other files may match."""
    return quoted(re.sub(r"([\[*?])", r"[\1]", str(path)))
