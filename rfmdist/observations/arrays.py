"""NumPy's .npy files of entries, one a row, as tables; read piece by piece, however large."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.columnar import PIECE, fields_of
from rfmdist.observations.columns import Given, refuse_matrix, resolve_columns
from rfmdist.observations.lines import SAMPLE_LINES
from rfmdist.observations.relations import FRAME, Table

LARGEST_WHOLE = 1 << 53
"""Below it every whole number is a float64."""


def array_tables(path: Path, given: Given) -> Iterator[Table]:
    """Describe a .npy file: an array with named fields, or one of numbers with a column for each part.

    Raises
    ------
    InputError
        If it is no such array, may be a dense matrix, or has an id that is not a whole number.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a NumPy array without objects ({str(error).splitlines()[0]})") from None
    named = array.dtype.names is not None
    if array.ndim != (1 if named else 2) or (not named and array.dtype.kind not in "biuf"):
        raise InputError(
            f"{path}: an array of {array.dtype.name} of shape {array.shape} holds no entries; save one with the named"
            f" fields {', '.join(given)}, or one of numbers with these as columns"
        )
    if named:
        positions = {}
    else:
        refuse_matrix(str(path), [[str(number) for number in line] for line in array[:SAMPLE_LINES].tolist()], given)
        positions = resolve_columns(str(path), None, array.shape[1], given)
    for start in range(0, max(len(array), 1), PIECE):
        piece = array[start : start + PIECE]
        columns = _named(path, piece) if named else _numbered(path, piece, positions, start)
        yield Table(str(path), fields_of(str(path), columns.schema, given), FRAME, held=columns, start=start)


def _named(path: Path, piece: NDArray[Any]) -> pa.Table:
    """Columns of an array with named fields."""
    columns = {}
    for name in piece.dtype.names or ():
        field = np.ascontiguousarray(piece[name])
        if field.ndim > 1 or field.dtype.kind not in "biufSU":
            raise InputError(f"{path}: the field {name!r} is of type {piece.dtype[name]}; use numbers or text")
        if field.dtype.kind == "S":
            field = np.char.decode(field, "utf-8", "replace")
        columns[name] = field if field.dtype.kind != "f" else field.astype(np.float64)
    return pa.table(columns)


def _numbered(path: Path, piece: NDArray[Any], positions: dict[str, int], start: int) -> pa.Table:
    """Columns of an array of numbers; ids that are floats are whole numbers, and become integers."""
    columns = {part: np.ascontiguousarray(piece[:, index]) for part, index in positions.items()}
    for part, numbers in columns.items():
        if numbers.dtype.kind != "f":
            continue
        columns[part] = numbers.astype(np.float64)
        if part != "value":
            wrong = np.flatnonzero(~(np.abs(numbers) < LARGEST_WHOLE) | (numbers != np.trunc(numbers)))
            if len(wrong):
                raise InputError(
                    f"{path}, row {start + wrong[0] + 1}: the {part} {numbers[wrong[0]]} is not a whole number; give"
                    " ids that are"
                )
            columns[part] = numbers.astype(np.int64)
    return pa.table(columns)
