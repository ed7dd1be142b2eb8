"""What is added to a finished store: the split and the offsets. Knows how they lie, not how they are found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import zarr
from numpy.typing import NDArray

from rfmdist.errors import InputError, StoreError
from rfmdist.observations.blocks import Offsets, Role
from rfmdist.observations.files import in_place, remove
from rfmdist.observations.layout import AGAIN, DICTIONARY, FILL, SHARD, create_array
from rfmdist.observations.reading import read_floats

COPY = "by_column"
"""Name of the column-ordered copy in the row-ordered matrix."""
MARK = "mark"
"""Attribute of a split, and of a copy that was made of it: a hash of all roles, which no two splits share."""


def write_split(matrix: zarr.Group, roles: Iterable[NDArray[np.integer]], size: int, store: str) -> None:
    """Write the role of each of ``size`` entries; the column-ordered copy, which holds the earlier ones, goes."""
    with in_place(matrix, "split", store) as name:
        array, low = create_array(matrix, name, size, np.dtype(np.uint8), FILL["split"]), 0
        seen = hashlib.blake2b(digest_size=16)
        for piece in _shards(roles):
            if not np.isin(piece, list(Role)).all():
                raise InputError(f"{store}: roles are 0 for training, 1 for validation and 2 for test")
            if low + len(piece) <= size:
                array[low : low + len(piece)] = piece
                seen.update(np.ascontiguousarray(piece, np.uint8).data)
            low += len(piece)
        if low != size:
            raise InputError(f"{store}: a split of {low} entries does not fit {size} observed entries")
        array.attrs[MARK] = seen.hexdigest()
        remove(matrix, COPY)  # before the new split bears its name: the two never stand side by side


def write_offsets(holder: zarr.Group, offsets: Offsets, store: str) -> None:
    """Write offsets under ``holder``; earlier ones go when the new are complete."""
    settings = {"mean": float(offsets.mean), "row_shrinkage": offsets.row_shrinkage}
    with in_place(holder, "offsets", store) as name:
        # With the arrays and in one write, so that the new offsets never meet the old settings.
        group = holder.create_group(name, attributes=DICTIONARY | {"rfmdist": settings})
        for part, value in (("rows", offsets.rows), ("columns", offsets.columns)):
            create_array(group, part, len(value), np.dtype(np.float64), np.nan)[:] = value


def read_offsets(root: zarr.Group, shape: tuple[int, int], store: str) -> Offsets | None:
    """Read the offsets of a store of ``shape``, if it has any."""
    place = "uns/rfmdist/offsets"
    if place not in root:
        return None
    settings = root[place].attrs.get("rfmdist")
    if not isinstance(settings, dict):
        raise StoreError(f"{store}: the offsets are incomplete; {AGAIN}")
    rows = read_floats(root, store, f"{place}/rows", (shape[0],))
    columns = read_floats(root, store, f"{place}/columns", (shape[1],))
    return Offsets(float(settings["mean"]), rows, columns, settings["row_shrinkage"])


def _shards(pieces: Iterable[NDArray[np.integer]]) -> Iterator[NDArray[np.integer]]:
    """The same roles in pieces of one shard: a shard written in parts takes many times as long."""
    held: NDArray[np.integer] = np.empty(0, np.uint8)
    for piece in pieces:
        held = np.concatenate([held, piece])
        while len(held) >= SHARD:
            yield held[:SHARD]
            held = held[SHARD:]
    yield held
