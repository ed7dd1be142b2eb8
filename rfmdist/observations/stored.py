"""What a sparse matrix of scipy stores, whatever its format, as COO whose indices are sound. Knows no store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse as sp

from rfmdist.errors import InputError

FILLED = ("bsr", "dia")
"""Formats that fill blocks and diagonals with zeros; scipy takes all zeros of BSR for entries, and none of DIA."""


def stored_entries(matrix: Any, name: str) -> sp.coo_array:
    """Return the stored entries of a two-dimensional sparse matrix, zeros included.

    Parameters
    ----------
    matrix : scipy sparse matrix or array
        It is not changed.
    name : str
        For messages.

    Raises
    ------
    InputError
        If it has not two dimensions, its index arrays are wrong, or it is BSR or DIA and holds zeros, of which none
        can say whether they were observed.
    """
    if matrix.ndim != 2:
        raise InputError(f"{name}: a sparse array of {matrix.ndim} dimensions has no rows and columns; give one of two")
    sound = rebuilt(matrix, name)
    with _refusing_unsound(name):
        coo = sp.coo_array(sound)
    if matrix.format in FILLED and np.count_nonzero(coo.data) < matrix.nnz:
        raise InputError(
            f"{name}: {matrix.format.upper()} does not tell observed zeros from those it is filled with; make a CSR or"
            " COO matrix of the observed entries"
        )
    return coo


def rebuilt(matrix: Any, name: str) -> Any:
    """Return a sparse matrix of scipy as its constructor makes it: sound, and with one type of indices.

    Readers that set the arrays one by one, AnnData's among them, leave the types that the arrays have on disk, and
    scipy's own conversions then refuse the matrix. It is not changed, and its values are not copied.

    Raises
    ------
    InputError
        If its row pointers or indices do not fit together.
    """
    if matrix.format not in ("csr", "csc", "bsr"):  # other formats have no pointers, and one type once converted
        return matrix
    with _refusing_unsound(name):
        found = type(matrix)((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
        found.check_format(full_check=True)
    return found


@contextmanager
def _refusing_unsound(name: str) -> Iterator[None]:
    """Tell what scipy raises of index arrays that are wrong.

    Raises
    ------
    InputError
    """
    try:
        yield
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"{name}: not a sound sparse matrix ({str(error).splitlines()[0]}); make it anew") from None
