"""Arrays left in files for other processes, which see the folder. Knows bytes and places, not what they mean."""

from __future__ import annotations

import math
import os
import pickle
import shutil
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from rfmdist.errors import StoreError, UnreachableError, disk_error
from rfmdist.machine import hand_back_memory
from rfmdist.observations.leftovers import in_use
from rfmdist.observations.places import file_system, reaching

Value = TypeVar("Value")
PIECE = 1 << 14
"""Rows that are multiplied at once."""
_lock = threading.Lock()
_resident: dict[str, tuple[Scratch, Any]] = {}
"""Values loaded in this process, by their files, while these are there: tasks that follow one another want the same."""


class Scratch:
    """A folder of files that live as long as a fit.

    On a disk it is there while it is `kept` and no longer: a task that ends after the fit does not make it again.

    Parameters
    ----------
    folder : str
        Path or URL.

    Attributes
    ----------
    on_disk : bool
        Whether a file is near: on a disk of this machine, or one that the system shows as such.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._system, self._path = file_system(folder)
        self.on_disk = isinstance(self._system, LocalFileSystem)
        self._removed = False

    def __reduce__(self) -> tuple[type[Scratch], tuple[str]]:
        return Scratch, (self.folder,)

    @contextmanager
    def kept(self) -> Iterator[Self]:
        """Remove the folder in the end, and first those that killed processes left beside it on a disk."""
        try:
            with in_use(Path(self._path)) if self.on_disk else nullcontext():
                yield self
        finally:
            self.remove()

    def write(self, name: str, buffers: Iterable[Any]) -> None:
        """Write buffers one after the other as the file ``name``; it appears when it is whole.

        Raises
        ------
        StoreError
            If the disk is full or the folder cannot be written.
        """
        path = f"{self._path}/{name}"
        # Elsewhere a file appears when it is closed.
        unfinished = f"{path}.{uuid.uuid4().hex[:8]}.partial" if self.on_disk else path
        try:
            with nullcontext() if self.on_disk else reaching(self.folder):
                if not self.on_disk:
                    self._system.makedirs(self._path, exist_ok=True)
                with self._system.open(unfinished, "wb") as file:
                    for buffer in buffers:
                        view = memoryview(buffer)
                        file.write(view.cast("B") if view.nbytes else b"")
                if self.on_disk:
                    self._system.mv(unfinished, path)
        except OSError as error:
            raise disk_error(error, self.folder) from None

    def read(self, name: str, start: int, outs: Iterable[NDArray[Any]]) -> None:
        """Fill ``outs`` one after the other from the bytes of a file, from ``start`` on.

        Raises
        ------
        StoreError
            If the file is gone or too short.
        """
        try:
            with self._system.open(f"{self._path}/{name}", "rb") as file:
                file.seek(start)
                for out in outs:
                    left: Any = memoryview(out.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
                    while len(left):
                        count = file.readinto(left)
                        if not count:
                            raise EOFError
                        left = left[count:]
        except Exception:  # each driver has its own
            raise StoreError(
                f"{self.folder}: {name} is gone or torn; see that every worker sees this folder, and fit again"
            ) from None

    @property
    def free(self) -> int | None:
        """Bytes that are free on the folder's disk; None where it is no disk's."""
        if not self.on_disk:
            return None
        with suppress(OSError):
            return shutil.disk_usage(os.path.dirname(self._path)).free
        return None

    def holds(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return bool(self._system.exists(f"{self._path}/{name}"))

    def remove(self, prefix: str = "") -> None:
        """Remove the files whose names begin with ``prefix``, or the folder; later calls find nothing to do."""
        if self._removed:
            return
        self._removed = not prefix
        try:
            with nullcontext() if self.on_disk else reaching(self.folder):
                self._remove(prefix)
        except (UnreachableError, OSError) as error:  # what was computed with it is worth more
            warnings.warn(f"{error}; remove this folder by hand", stacklevel=2)

    def _remove(self, prefix: str) -> None:
        if not self._system.exists(self._path):
            return
        if not prefix:
            self._system.rm(self._path, recursive=True)
            return
        found = self._system.ls(self._path, detail=False)
        paths = [path for path in found if os.path.basename(path).startswith(prefix)]
        if self.on_disk:
            for path in paths:
                os.remove(path)
        elif paths:
            self._system.rm(paths)  # in one call, where each is a journey


@dataclass(frozen=True)
class Filed:
    """A tall array in files of consecutive rows, multiplied when it is loaded; pickles to almost nothing.

    Several may share files: of each the first holds its rows there, then the next, and so on.

    Attributes
    ----------
    scratch : Scratch
        Where the files lie.
    name : str
        First part of the files' names; the rest is the first row of each.
    dtype : dtype
        Of the numbers.
    width : int or None
        Columns in the files; None of a vector.
    cuts : tuple of int
        Where files begin, and the number of rows.
    before : int
        Bytes a row of what lies before it in each file.
    square : ndarray of shape (width, any) or None
        What the rows are multiplied with.
    beside : ndarray of shape (rows, any) or None
        Columns put beside the product.
    stripe : int or None
        Rows that memory holds at once; None where it holds all.
    """

    scratch: Scratch
    name: str
    dtype: np.dtype[Any]
    width: int | None
    cuts: tuple[int, ...]
    before: int = 0
    square: NDArray[Any] | None = None
    beside: NDArray[Any] | None = None
    stripe: int | None = None

    @classmethod
    def write(
        cls, scratch: Scratch, name: str, start: int, parts: Sequence[NDArray[Any]], stripe: int | None = None
    ) -> tuple[Self, ...]:
        """Write the rows from ``start`` on of arrays of equal height, as one file: two take twice as long to make."""
        scratch.write(f"{name}-{start}", map(np.ascontiguousarray, parts))
        cuts, found, before = (start, start + len(parts[0])), [], 0
        for part in parts:
            width = part.shape[1] if part.ndim == 2 else None
            found.append(cls(scratch, name, part.dtype, width, cuts, before, stripe=stripe))
            before += found[-1].row_bytes
        return tuple(found)

    @classmethod
    def joined(cls, pieces: list[Filed]) -> Filed:
        """Return the whole of which ``pieces`` hold consecutive rows."""
        return replace(pieces[0], cuts=(*(piece.cuts[0] for piece in pieces), pieces[-1].cuts[-1]))

    @property
    def shape(self) -> tuple[int, ...]:
        height = self.cuts[-1]
        if self.width is None:
            return (height,)
        wide = self.width if self.square is None else self.square.shape[1]
        return height, wide + (0 if self.beside is None else self.beside.shape[1])

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the array once it is loaded."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in the files."""
        return self.dtype.itemsize * (1 if self.width is None else self.width)

    def __len__(self) -> int:
        return self.shape[0]

    def load(self, first: int = 0, last: int | None = None) -> NDArray[Any]:
        """Read rows ``first`` to ``last`` into memory."""
        last = self.cuts[-1] if last is None else last
        out = np.empty((last - first, *self.shape[1:]), self.dtype)
        plain = self.square is None and self.beside is None
        step = last - first if plain else PIECE
        for low in range(first, last, max(step, 1)):
            high = min(low + step, last)
            part = out[low - first : high - first]
            if plain:
                self._fill(part, low)
                continue
            raw = np.empty((high - low, self.width or 0), self.dtype)
            self._fill(raw, low)
            combine(raw, self.square, None if self.beside is None else self.beside[low:high], part)
        return out

    def _fill(self, out: NDArray[Any], first: int) -> None:
        """Read the rows from ``first`` on as they lie in the files."""
        last = first + len(out)
        for low, high in zip(self.cuts, self.cuts[1:], strict=False):
            a, b = max(low, first), min(high, last)
            if a < b:
                start = self.before * (high - low) + (a - low) * self.row_bytes
                self.scratch.read(f"{self.name}-{low}", start, [out[a - first : b - first]])


def combine(rows: NDArray[Any], square: NDArray[Any] | None, beside: NDArray[Any] | None, out: NDArray[Any]) -> None:
    """Write ``rows`` times ``square``, and the columns ``beside`` them, to ``out``, which may begin where they do."""
    wide = rows.shape[1] if square is None else square.shape[1]
    out[:, :wide] = rows if square is None else rows @ square
    if beside is not None:
        out[:, wide:] = beside


@dataclass(frozen=True)
class FiledValue:
    """A pickled value in one file, its arrays apart so that they are read into place; this is but where it lies."""

    scratch: Scratch
    name: str
    sizes: tuple[int, ...]

    @classmethod
    def write(cls, scratch: Scratch, value: Any, name: str = "value") -> Self:
        """Write ``value`` to a file whose name begins with ``name``."""
        buffers: list[pickle.PickleBuffer] = []
        head = memoryview(pickle.dumps(value, protocol=5, buffer_callback=buffers.append))
        parts, name = [head, *(buffer.raw() for buffer in buffers)], f"{name}-{uuid.uuid4().hex}"
        scratch.write(name, parts)
        return cls(scratch, name, tuple(part.nbytes for part in parts))

    def loaded(self) -> Any:
        """Return the value; tasks of one process that follow one another share it."""
        return resident(self.scratch, self.name, self.load)

    def load(self) -> Any:
        """Read the value."""
        head, *buffers = [np.empty(size, np.uint8) for size in self.sizes]
        self.scratch.read(self.name, 0, [head, *buffers])
        value = pickle.loads(head.data, buffers=buffers)
        return value.read_in() if hasattr(value, "read_in") else value


def let_go() -> None:
    """Let go of what is held though its files are gone: what a fit that is over has left in this process."""
    with _lock:
        _forget()
    hand_back_memory()


def resident(scratch: Scratch, name: str, make: Callable[[], Value]) -> Value:
    """Return what ``make`` gives, or gave before for the same file in this process.

    Held are the values whose files are there still: what is fitted, with the blocks that it keeps, and the features of
    the moment; those of a step that is over go with their files.
    """
    with _lock:
        if name not in _resident:
            _forget()
            _resident[name] = scratch, make()
        found: Value = _resident[name][1]
        return found


def _forget() -> None:
    for file in [file for file, (place, _) in _resident.items() if not place.holds(file)]:
        del _resident[file]
