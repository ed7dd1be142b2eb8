"""What a sparse matrix of scipy stores, whatever its format, as COO whose indices are sound. Knows no store."""

from __future__ import annotations

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
    try:
        if matrix.format in ("csr", "csc", "bsr"):
            matrix = type(matrix)((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
            matrix.check_format(full_check=True)
        coo = sp.coo_array(matrix)
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"{name}: not a sound sparse matrix ({str(error).splitlines()[0]}); make it anew") from None
    if matrix.format in FILLED and np.count_nonzero(coo.data) < matrix.nnz:
        raise InputError(
            f"{name}: {matrix.format.upper()} does not tell observed zeros from those it is filled with; make a CSR or"
            " COO matrix of the observed entries"
        )
    return coo
