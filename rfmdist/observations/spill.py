"""Entries dealt to files, to be taken back stretch by stretch. Knows places and parts, not what they mean."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

CODEC = Blosc("lz4", 1, Blosc.SHUFFLE)
Parts = dict[str, NDArray[Any]]
"""Arrays of the entries, by name, all of one length."""


class Spill:
    """Entries by stretches of places, in a file each; a context that leaves nothing behind.

    Each block's share of a stretch is compressed as the store is: it takes about as much disk as the copy will.
    """

    def __init__(self, folder: Path, stretches: int) -> None:
        self._folder, self._names = folder, [f"{k}" for k in range(stretches)]
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._sizes: list[list[tuple[int, ...]]] = [[] for _ in range(stretches)]

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def deal(self, places: NDArray[np.int64], parts: Parts, step: int) -> None:
        """Append entries to the stretches, of ``step`` places each, that their places lie in."""
        from rfmdist.observations import loops

        cuts, turns = np.empty(len(self._names) + 1, np.int64), np.empty(len(places), np.int64)
        dealt = {"places": np.empty(len(places), np.uint32 if step <= 1 << 32 else np.int64)}
        loops.deal(places, step, cuts, turns, dealt["places"])
        for name, values in parts.items():
            dealt[name] = np.empty_like(values)
            loops.scatter(values, turns, dealt[name])
        self._dtypes = {name: values.dtype for name, values in dealt.items()}
        for k in np.flatnonzero(np.diff(cuts)):
            self._append(int(k), [values[cuts[k] : cuts[k + 1]] for values in dealt.values()])

    def take(self, number: int) -> Iterator[tuple[NDArray[Any], Parts]]:
        """Yield a stretch's entries by blocks, each with places counted from the stretch's begin; its file goes."""
        path = self._folder / self._names[number]
        if not self._sizes[number]:
            return
        with path.open("rb") as file:
            for count, *sizes in self._sizes[number]:
                parts = {}
                for (name, dtype), size in zip(self._dtypes.items(), sizes, strict=True):
                    parts[name] = np.empty(count, dtype)
                    CODEC.decode(file.read(size), out=parts[name])
                yield parts.pop("places"), parts
        path.unlink()

    def _append(self, number: int, arrays: list[NDArray[Any]]) -> None:
        """Write a block's share at the end of a stretch's file. Files are opened one at a time: there may be many."""
        packed = [CODEC.encode(values) for values in arrays]
        with (self._folder / self._names[number]).open("ab", buffering=0) as file:
            for piece in packed:
                file.write(piece)
        self._sizes[number].append((len(arrays[0]), *map(len, packed)))
