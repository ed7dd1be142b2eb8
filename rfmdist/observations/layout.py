"""How observations lie in Zarr: names, encodings, codecs, chunk sizes. Knows bytes, not meaning.

The tree is an AnnData store (anndata 0.1.0): ``X`` a csr_matrix, ``obs`` and ``var`` data frames whose index
holds the ids. AnnData refuses other children of the root, so the split mask and the column-ordered copy lie
inside ``X`` (it ignores what it does not know there) and the offsets under ``uns``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, VLenUTF8Codec
from zarr.core.dtype import VariableLengthUTF8

from rfmdist.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
CHUNK = 1 << 19
"""Entries a chunk (2-4 MiB): smaller chunks read at 0.6 of the speed."""
SHARD = 1 << 22
"""Entries a shard (16-32 MiB): a shard is written whole, so that it bounds the writer's memory."""

# A fill value that cannot occur makes Zarr write every chunk, and makes a lost one visible: a missing chunk
# reads as its fill value without a word.
FILL: dict[str, float] = {"data": np.nan, "indices": -1, "indptr": -1, "split": 255}
LOST_TEXT = "\0lost"
"""Fill value of text."""
TRUE = "true"
"""Attribute of a column of false and true: how many are true."""

ARRAY = MappingProxyType({"encoding-type": "array", "encoding-version": "0.2.0"})
DICTIONARY = MappingProxyType({"encoding-type": "dict", "encoding-version": "0.1.0"})
"""Never to be handed to Zarr but as a copy: it keeps the mapping it is given and changes that with the attributes."""
AGAIN = "restore it from a copy or ingest the data again"
MENDS = {
    "X/by_column": "delete the folder X/by_column in it, then it is made again",
    "X/split": "restore it from a copy or split again",
    "obs/_index": AGAIN,
    "var/_index": AGAIN,
    "obs/": "restore it from a copy or store the column again",
    "var/": "restore it from a copy or store the column again",
    **dict.fromkeys(("uns/rfmdist", "varm/", "varp/", "obsm/"), "restore it from a copy or fit again"),
}
"""What to do when a part of a store is damaged, by how its path begins."""


def mend_of(part: str) -> str:
    """Say what to do when a part of a store is damaged or gone."""
    return next((mend for start, mend in MENDS.items() if part.startswith(start)), AGAIN)


@dataclass(frozen=True)
class Order:
    """One order that a store holds its entries in.

    Attributes
    ----------
    matrix : str
        Group of ``data``, ``indices``, ``indptr`` and, if there is one, ``split``.
    rows, columns : str
        Data frames with the ids of what the entries are compressed by, and of the others.
    """

    matrix: str
    rows: str
    columns: str


BY_ROW = Order("X", "obs", "var")
BY_COLUMN = Order("X/by_column", "var", "obs")


def create_root(store: Any, shape: tuple[int, int]) -> zarr.Group:
    """Create the empty tree of an AnnData store for observations of ``shape``; it is marked as ours, but unfinished."""
    attributes: dict[str, Any] = {"encoding-type": "anndata", "encoding-version": "0.1.0", "rfmdist": {}}
    root = zarr.create_group(store, zarr_format=3, attributes=attributes)
    root.create_group("X", attributes=matrix_attributes(shape))
    for name in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
        root.create_group(name, attributes=dict(DICTIONARY))
    return root


def matrix_attributes(shape: tuple[int, int]) -> dict[str, Any]:
    """Attributes of a group that AnnData reads as a csr_matrix."""
    return {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [int(s) for s in shape]}


def index_dtype(size: int) -> np.dtype[Any]:
    """Dtype of codes below ``size``."""
    return np.dtype(np.int32 if size <= np.iinfo(np.int32).max else np.int64)


def stored_index_dtype(columns: int, entries: int) -> np.dtype[Any]:
    """Dtype of ``indices`` and ``indptr`` alike: AnnData reads them as they lie, and scipy refuses to mix two."""
    return index_dtype(max(columns, entries + 1))


def create_array(group: zarr.Group, name: str, size: int, dtype: np.dtype[Any], fill: float) -> zarr.Array[Any]:
    """Create a sharded, compressed, checksummed array of ``size`` entries.

    lz4 with byte shuffle read fastest of the codecs tried; crc32c comes last so that it guards what is on disk.
    """
    chunk = max(1, min(CHUNK, size))
    return group.create_array(
        name,
        shape=(size,),
        dtype=dtype,
        chunks=(chunk,),
        shards=(chunk * max(1, min(SHARD, -(-size // chunk) * chunk) // chunk),),
        compressors=[
            BloscCodec(cname="lz4", shuffle="shuffle", typesize=dtype.itemsize),
            Crc32cCodec(),
        ],
        fill_value=fill,
    )


def write_array(array: zarr.Array[Any], values: Any, start: int = 0) -> None:
    """Write numbers into an array from position ``start`` on, a shard at a time.

    ``values`` need not be in memory: of a range only the shard that is written is.
    """
    for low in range(0, len(values), SHARD):
        part = np.asarray(values[low : low + SHARD])
        array[start + low : start + low + len(part)] = part


def create_matrix(group: zarr.Group, name: str, values: NDArray[Any]) -> None:
    """Write a dense matrix by chunks of whole rows, compressed and checksummed; a lost chunk reads as NaN."""
    rows = max(1, min(len(values), (CHUNK * 4) // max(1, values.strides[0])))
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(rows, max(1, values.shape[1])),
        compressors=[
            BloscCodec(cname="lz4", shuffle="shuffle", typesize=values.itemsize),
            Crc32cCodec(),
        ],
        fill_value=np.nan,
        attributes=dict(ARRAY),
    )
    array[:] = values


def lost_value(dtype: np.dtype[Any]) -> Any:
    """Fill value of ids and users' columns of ``dtype``, which none of them holds; None where all may occur."""
    if dtype.kind == "i":
        return int(np.iinfo(dtype).min)
    return {"f": np.inf, "T": LOST_TEXT, "O": LOST_TEXT}.get(dtype.kind)


def create_values(group: zarr.Group, name: str, values: Any, fill: Any) -> zarr.Array[Any]:
    """Write numbers, one a place, as AnnData reads them."""
    array = create_array(group, name, len(values), values.dtype, fill)
    array.attrs.update(dict(ARRAY))
    write_array(array, values)
    return array


def create_text(group: zarr.Group, name: str, values: NDArray[Any]) -> None:
    """Write text of any length, one a place, as AnnData reads it."""
    array = group.create_array(
        name,
        shape=(len(values),),
        dtype=VariableLengthUTF8(),  # type: ignore[arg-type]
        fill_value=LOST_TEXT,
        chunks=(max(1, min(CHUNK, len(values))),),
        serializer=VLenUTF8Codec(),
        compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="noshuffle"), Crc32cCodec()],
    )
    array.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    array[:] = values.astype(object)


def write_ids(root: zarr.Group, name: str, ids: NDArray[Any] | pd.Index[Any]) -> None:
    """Write ids as the index of the data frame ``name`` (``obs`` or ``var``): int64 or variable-length text."""
    attributes = {
        "encoding-type": "dataframe",
        "encoding-version": "0.2.0",
        "_index": "_index",
        "column-order": [],
    }
    group = root.create_group(name, attributes=attributes)
    int64 = np.dtype(np.int64)
    if ids.dtype == int64:  # of positions, a range, there may be more than memory holds
        create_values(group, "_index", ids, lost_value(int64))
        return
    values = np.asarray(ids)
    if values.dtype.kind == "u" and values.size and int(values.max()) > np.iinfo(np.int64).max:
        raise InputError(f"the id {int(values.max())} is larger than int64 holds; make the ids text")
    if np.issubdtype(values.dtype, np.integer):
        create_values(group, "_index", values.astype(int64), lost_value(int64))
        return
    create_text(group, "_index", values)
