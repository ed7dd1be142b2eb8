"""A completed matrix as one plain Zarr array, written shard by shard. Knows the array, not how rows are solved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from rfmdist import serving
from rfmdist.errors import InputError
from rfmdist.features.power import spans
from rfmdist.kernels.threads import Threads
from rfmdist.machine import cores
from rfmdist.observations.files import appearing
from rfmdist.observations.layout import CHUNK, SHARD
from rfmdist.observations.places import Place, exists, place_of, read_text

if TYPE_CHECKING:
    from rfmdist.completion import Completion

IN_FLIGHT = 4
"""Most shards that are predicted and written at once, on a core each: 30 MB, and some 100 MB while they are made."""
LOST = float("inf")
"""Fill value: what no prediction is, so that a lost shard is seen. NaN is what is not determined."""


def write_dense(path: str | Path, of: Completion, rows: tuple[int, int], *, overwrite: bool) -> None:
    """Write all columns of a range of rows as an array; see `Completion.to_zarr`.

    A shard is all columns of some rows and is written at once, by one thread: of two that write into one shard the
    last would undo what the first has written.

    Raises
    ------
    InputError
        If ``path`` exists and may not be overwritten, or the store was split anew after the fit.
    StoreError
        If it cannot be written.
    """
    place, (start, stop), n = place_of(path), rows, of.shape[1]
    _check_free(place, overwrite)
    height = max(1, min(SHARD // max(n, 1), stop - start))
    width = -(-n // max(1, -(-height * n // CHUNK))) or 1
    with appearing(place) as store:
        array = zarr.create_array(
            store,
            shape=(stop - start, n),
            dtype=of.targets.dtype,
            chunks=(height, width),
            shards=(height, max(1, -(-n // width)) * width),
            compressors=[
                BloscCodec(cname="lz4", shuffle="shuffle", typesize=of.targets.dtype.itemsize),
                Crc32cCodec(),
            ],
            fill_value=LOST,
            attributes={"rfmdist": {"completed": [start, stop]}},
        )

        def write(top: int, bottom: int) -> None:
            array[top:bottom] = serving.complete(of, start + top, start + bottom).astype(array.dtype, copy=False)

        threads = Threads(min(cores(), IN_FLIGHT))
        try:
            threads.map(write, spans(stop - start, height) if n else [])
        finally:
            threads.close()


def _check_free(place: Place, overwrite: bool) -> None:
    """Refuse a place where something lies, unless it is an array that was written here and may go."""
    if not exists(place):
        return
    if not overwrite:
        raise InputError(f"{place}: exists already; name another place or allow it to be overwritten")
    try:
        document = json.loads(read_text(place, "zarr.json"))
        ours = document["node_type"] == "array" and "completed" in document["attributes"]["rfmdist"]
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise InputError(f"{place}: is no matrix that to_zarr wrote, so it will not be overwritten; name another place")
