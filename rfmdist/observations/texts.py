"""Text files as they come: compressed or not, with lines of comment, of mixed line ends. Knows no fields."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from rfmdist.errors import InputError, disk_error

OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    # In Python itself from 3.14 on.
    ".zst": lambda path: io.BufferedReader(pa.input_stream(str(path), compression="zstd")),
}
"""What opens a compressed file, by its suffix."""
COMMENT = r"[ \t]*(?:#+|%+)(?:[ \t][^\n]*)?$"
"""A line that begins with # or % and a blank; #7 may be an id."""
COMMENT_OF_BYTES = re.compile(rb"^" + COMMENT.encode(), re.MULTILINE)
OTHER_TEXT = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""First bytes of text that DuckDB does not read; UTF-32's begin with UTF-16's, and so come first."""
READ_BY_DUCKDB = ("", ".gz")
"""Compressions that DuckDB undoes by itself: not bz2 and xz, and a zst file that is cut it takes for whole."""
BLOCK = 1 << 24
"""Bytes copied at a time."""


def plain_suffix(path: Path) -> str:
    """Suffix of a file without that of its compression: .csv of ratings.csv.gz."""
    return path.with_suffix("").suffix if compression(path) else path.suffix


def compression(path: Path) -> str:
    """Suffix of a file's compression, or an empty text."""
    return path.suffix if path.suffix in OPENERS else ""


def is_comment(line: str) -> bool:
    """Whether a line is a comment, where its file has some."""
    return re.match(COMMENT, line) is not None


@contextmanager
def open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open a text file, compressed or not; bytes that are not UTF-8 are shown as ?.

    Raises
    ------
    InputError
        If it cannot be read or says that it is UTF-16 or UTF-32.
    """
    with _open_bytes(path) as raw:
        start = raw.read(4)
    other = next((name for mark, name in OTHER_TEXT.items() if start.startswith(mark)), None)
    if other is not None:
        raise InputError(f"{path}: is {other} text; save it as UTF-8")
    with (
        _open_bytes(path) as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace") as file,
    ):
        yield file


def copy_plain(source: Path, target: Path, *, comments: bool) -> None:
    """Copy a text file without compression, all lines ending in LF, those of comments empty.

    A line has the same number in both.

    Raises
    ------
    InputError
        If the source cannot be read.
    StoreError
        If the disk is full.
    """
    try:
        with target.open("wb") as file:
            file.writelines(_plain_blocks(source, comments=comments))
    except OSError as error:
        raise disk_error(error, str(target)) from None


def _plain_blocks(source: Path, *, comments: bool) -> Iterator[bytes]:
    """Give whole lines of a file at a time, as `copy_plain` writes them."""
    rest = b""
    with _open_bytes(source) as raw:
        while block := raw.read(BLOCK):
            lines = rest + block
            end = max(lines.rfind(b"\n"), lines.rfind(b"\r", 0, -1)) + 1  # a last CR may have its LF in the next block
            yield _mended(lines[:end], comments=comments)
            rest = lines[end:]
    yield _mended(rest, comments=comments)


def _mended(lines: bytes, *, comments: bool) -> bytes:
    lines = lines.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return COMMENT_OF_BYTES.sub(b"", lines) if comments else lines


@contextmanager
def _open_bytes(path: Path) -> Iterator[IO[bytes]]:
    try:
        with OPENERS[path.suffix](path) if compression(path) else path.open("rb") as raw:
            yield raw
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
