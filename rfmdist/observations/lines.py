"""What files of lines have in common, an entry a line, whether delimited text or JSON. DuckDB parses them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from rfmdist.errors import InputError
from rfmdist.observations.texts import READ_BY_DUCKDB, compression, is_comment, open_text

SAMPLE_LINES = 100
"""First lines looked at to tell what is in a file."""


@dataclass(frozen=True, kw_only=True)
class Lines(ABC):
    """How the lines of a file look.

    Attributes
    ----------
    path : Path
        The file.
    positions : dict of str to int
        Which field holds which part.
    width : int
        Fields of a line.
    names : tuple of str or None
        Names of the fields, where the file tells them.
    skip : int
        Lines before the first entry.
    comments : bool
        Whether some lines are comments.
    mixed : bool
        Whether the first lines end in different ways; where it skips them, DuckDB then skips all in silence.
    plain : Path, optional
        The copy that DuckDB reads where it cannot read the file itself.
    """

    path: Path
    positions: dict[str, int]
    width: int
    names: tuple[str, ...] | None = None
    skip: int = 0
    comments: bool = False
    mixed: bool = False
    plain: Path | None = None

    @property
    @abstractmethod
    def relation(self) -> str:
        """SQL that reads the file, all fields as text, in columns c0, c1, ..."""

    @abstractmethod
    def fields(self, entry: int) -> int:
        """Number of fields on the line of an entry."""

    @abstractmethod
    def wrong_line(self, text: str) -> tuple[int, str] | None:
        """Number of a line that DuckDB cannot read, and why, as its error ``text`` says."""

    def field(self, part: str) -> str:
        """SQL of a part of an entry, as text."""
        return f"c{self.positions[part]}"

    @property
    def is_plain(self) -> bool:
        """Whether DuckDB can read the file as it is, unless ends of later lines differ, which it tells."""
        return not (self.comments or self.mixed) and compression(self.path) in READ_BY_DUCKDB

    def line_of(self, entry: int) -> tuple[int, str]:
        """Number (from 1) and text of the line of the entry at position ``entry``; blank lines hold none."""
        with open_text(self.path) as file:
            lines = ((n, line) for n, line in enumerate(file, 1) if n > self.skip and self.is_entry(line))
            return next(islice(lines, entry, None), (self.skip + entry + 1, ""))

    def is_entry(self, line: str) -> bool:
        """Whether a line holds an entry."""
        return bool(line.strip()) and not (self.comments and is_comment(line))

    def ends_differ(self) -> bool:
        """Whether some lines end in CRLF and some in LF alone, which DuckDB does not read."""
        with open_text(self.path) as file:
            return any(has_mixed_ends(file) for _ in file)

    @property
    def source(self) -> str:
        """SQL literals of the file to be read and its compression, for DuckDB's readers."""
        compressed = self.plain is None and compression(self.path) == ".gz"
        path = quoted_path(self.plain or self.path)
        return f"{path}, hive_partitioning=false, compression='{'gzip' if compressed else 'none'}'"


class Sample(NamedTuple):
    """First lines of a file that are neither blank nor comments.

    Attributes
    ----------
    lines : list of (int, str)
        With their numbers.
    comments, mixed : bool
        As of `Lines`.
    """

    lines: list[tuple[int, str]]
    comments: bool
    mixed: bool


def sample_lines(path: Path, limit: int | None = SAMPLE_LINES) -> Sample:
    """Look at the first lines of a file.

    Raises
    ------
    InputError
        If there is none with an entry, or the file cannot be read.
    """
    comments = False
    lines = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if is_comment(line):
                comments = True
            elif line.strip():
                lines.append((number, line))
            if len(lines) == limit:
                break
        mixed = has_mixed_ends(file)
    if not lines:
        raise InputError(f"{path}: the file is empty")
    return Sample(lines, comments, mixed)


def has_mixed_ends(file: TextIOWrapper) -> bool:
    """Whether the lines of a text file that were read so far end in different ways."""
    return isinstance(file.newlines, tuple)


def quoted(text: str) -> str:
    """Write text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quoted_path(path: Path) -> str:
    """Write a path as an SQL literal that DuckDB does not take for a pattern, which other files may match."""
    return quoted(re.sub(r"([\[*?])", r"[\1]", str(path)))
