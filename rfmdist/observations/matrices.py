"""Sparse matrices in files, Matrix Market and scipy's npz, as tables whose ids are positions.

Matrix Market counts from 1 and so do its ids; npz holds codes that count from 0 and so do its ids.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from dask.utils import format_bytes

from rfmdist.errors import InputError
from rfmdist.observations.delimited import TextLayout
from rfmdist.observations.lines import has_mixed_ends
from rfmdist.observations.relations import FRAME, Extent, Field, Table
from rfmdist.observations.stored import stored_entries
from rfmdist.observations.texts import open_text, plain_suffix


def is_matrix(source: object) -> bool:
    """Whether an input is the file of a sparse matrix, by its name."""
    return isinstance(source, str | Path) and (Path(source).suffix == ".npz" or plain_suffix(Path(source)) == ".mtx")


def matrix_tables(path: Path, memory: int) -> list[Table]:
    """Describe the file of a sparse matrix; a symmetric one gives two tables, its halves.

    Parameters
    ----------
    path : Path
        ``.mtx``, compressed or not, or ``.npz``.
    memory : int
        Budget in bytes: an npz file is read whole, and the ids of all rows and columns are held.

    Raises
    ------
    InputError
        If the file is missing, damaged, of a kind that has no place here, or too large for the budget.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    tables = [_npz(path, memory)] if path.suffix == ".npz" else _market(path)
    extent = tables[0].extent
    assert extent is not None
    # An id is held as int64 by numpy, pandas and DuckDB, beside a count and a row pointer.
    _check_size(path, 64 * sum(extent.shape), memory)
    return tables


def _market(path: Path) -> list[Table]:
    kind, symmetry, extent, skip, mixed = _header(path)
    positions = {"row": 0, "column": 1} | ({} if kind == "pattern" else {"value": 2})
    text = TextLayout(path=path, positions=positions, width=len(positions), skip=skip, mixed=mixed, delimiter=None)
    value = Field("1") if kind == "pattern" else Field("c2")
    whole = Table(str(path), {"row": Field("c0"), "column": Field("c1"), "value": value}, text, extent=extent)
    if symmetry == "general":
        return [whole]
    mirrored = {"row": Field("c1"), "column": Field("c0"), "value": value}
    if symmetry == "skew-symmetric":
        mirrored["value"] = Field("-(c2::DOUBLE)")
    return [whole, Table(f"{path} (mirrored)", mirrored, text, where="c0 <> c1")]


def _header(path: Path) -> tuple[str, str, Extent, int, bool]:
    """Kind, symmetry, extent, the lines before the first entry, and whether they end in different ways."""
    with open_text(path) as file:
        words = file.readline().lower().split()
        if not words:
            raise InputError(f"{path}: the file is empty")
        if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
            raise InputError(f"{path}, line 1: not a Matrix Market header")
        layout, kind, symmetry = words[2:]
        known = ("general", "symmetric", "skew-symmetric")
        if layout != "coordinate" or kind not in ("real", "integer", "pattern") or symmetry not in known:
            raise InputError(f"{path}, line 1: cannot read a {layout} {kind} {symmetry} matrix; write coordinate real")
        for number, line in enumerate(file, 2):
            if line.strip() and not line.startswith("%"):
                sizes = line.split()
                if len(sizes) != 3 or not all(size.isdecimal() for size in sizes):
                    raise InputError(f"{path}, line {number}: not a line of rows, columns and entries")
                m, n, entries = map(int, sizes)
                return kind, symmetry, Extent((m, n), 1, entries), number, has_mixed_ends(file)
    raise InputError(f"{path}: ends before its line of sizes; the file is cut off")


def _npz(path: Path, memory: int) -> Table:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        # The arrays, their coordinates, and one more copy on the way into DuckDB.
        _check_size(path, 3 * size, memory)
        with np.load(path) as arrays:
            if "format" not in arrays.files:
                raise InputError(
                    f"{path}: holds the arrays {', '.join(arrays.files)} and no sparse matrix; save one of rows and"
                    " columns with scipy.sparse.save_npz, or entries as an .npy file"
                )
            if len(arrays["shape"]) != 2:
                raise InputError(f"{path}: a sparse array of {len(arrays['shape'])} dimensions; store one of two")
        matrix = sp.load_npz(path)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a sound scipy sparse matrix ({str(error).splitlines()[0]})") from None
    coo = stored_entries(matrix, str(path))
    if np.iscomplexobj(coo.data):
        raise InputError(f"{path}: a complex matrix cannot be read; use real values")
    values = coo.data.astype(np.float64) if coo.data.dtype in (np.float16, np.longdouble) else coo.data
    frame = pa.table({"row": coo.row, "column": coo.col, "value": values})
    fields = {part: Field(f'"{part}"', part != "value") for part in ("row", "column", "value")}
    return Table(str(path), fields, FRAME, held=frame, extent=Extent(coo.shape, 0, coo.nnz))


def _check_size(path: Path, needed: int, memory: int) -> None:
    if needed > memory:
        raise InputError(
            f"{path}: needs about {format_bytes(needed)}, the memory budget is {format_bytes(memory)}; allow more"
        )
