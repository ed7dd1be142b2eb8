"""What is added to a finished store: the split and the offsets. Knows how they lie, not how they are found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import zarr
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.blocks import Offsets, Role
from rfmdist.observations.files import remove
from rfmdist.observations.layout import BY_ROW, DICTIONARY, FILL, SHARD, create_array
from rfmdist.observations.nodes import (
    find_node,
    find_part,
    in_place_listed,
    list_part,
    noticing,
    open_group,
    unlist_part,
)
from rfmdist.observations.reading import read_floats

EXTRAS = "uns/rfmdist"
OFFSETS = f"{EXTRAS}/offsets"
COPY = "by_column"
"""Name of the column-ordered copy in the row-ordered matrix."""
MARK = "mark"
"""Attribute of a split, and of a copy that was made of it: a hash of all roles, which no two splits share."""


def write_split(root: zarr.Group, roles: Iterable[NDArray[np.integer]], size: int, store: str) -> None:
    """Write the role of each of ``size`` entries; the column-ordered copy, which holds the earlier ones, goes."""
    matrix = open_group(root, BY_ROW.matrix, store)
    with in_place_listed(root, matrix, "split", store) as name:
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


def extras(root: zarr.Group, store: str) -> zarr.Group:
    """What AnnData has no place for, under ``uns``; made if it is not there."""
    holder: zarr.Group | None = find_part(root, EXTRAS, store)
    if holder is None:
        holder = root.create_group(EXTRAS, attributes=dict(DICTIONARY))
    list_part(root, EXTRAS)
    return holder


def write_offsets(root: zarr.Group, offsets: Offsets, store: str) -> None:
    """Write offsets; earlier ones go when the new are complete."""
    settings = {"mean": float(offsets.mean), "row_shrinkage": offsets.row_shrinkage}
    holder = extras(root, store)
    with in_place_listed(root, holder, "offsets", store) as name:
        # With the arrays and in one write, so that the new offsets never meet the old settings.
        group = holder.create_group(name, attributes=dict(DICTIONARY) | {"rfmdist": settings})
        for part, value in (("rows", offsets.rows), ("columns", offsets.columns)):
            create_array(group, part, len(value), np.dtype(np.float64), np.nan)[:] = value


def read_offsets(root: zarr.Group, shape: tuple[int, int], store: str) -> Offsets | None:
    """Read the offsets of a store of ``shape``, if it has any."""
    group = find_part(root, OFFSETS, store)
    if group is None:
        return None
    rows = read_floats(root, store, f"{OFFSETS}/rows", (shape[0],))
    columns = read_floats(root, store, f"{OFFSETS}/columns", (shape[1],))
    with noticing(store, OFFSETS):
        settings = group.attrs["rfmdist"]
        return Offsets(float(settings["mean"]), rows, columns, settings["row_shrinkage"])


def remove_offsets(root: zarr.Group, store: str) -> None:
    """Forget stored offsets, sound or not."""
    unlist_part(root, OFFSETS)
    holder = find_node(root, EXTRAS, store)
    if holder is not None:
        remove(holder, "offsets")


def _shards(pieces: Iterable[NDArray[np.integer]]) -> Iterator[NDArray[np.integer]]:
    """The same roles in pieces of one shard: a shard written in parts takes many times as long."""
    held: NDArray[np.integer] = np.empty(0, np.uint8)
    for piece in pieces:
        held = np.concatenate([held, piece])
        while len(held) >= SHARD:
            yield held[:SHARD]
            held = held[SHARD:]
    yield held
