"""Iteratively reweighted least squares for completion (IRLS-p), by eigen decompositions. Knows nothing of features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrs

from rfmdist.baselines.common import without_unit
from rfmdist.checks import check_loop, check_number
from rfmdist.errors import InputError, SingularRowError
from rfmdist.iterating import Callback, Entries, MatrixCompleter
from rfmdist.kernels.threads import one_blas_thread
from rfmdist.machine import cores

Floats = NDArray[np.float64]

LEAST_EIGENVALUE = 1e-12
"""Where a falling floor ends, and its power in W⁻¹: float64 still solves systems of the condition number it makes."""
SPARSE = 0.05
"""Share of observed entries up to which the product with sparse rows is faster than BLAS with their zeros."""
THREADED = 1 << 14
"""Entries from which on rows are solved on all cores: below, setting up the threads takes longer."""
PIECES = 8
"""Pieces of rows a core, to even out the threads."""


class IRLS(MatrixCompleter):
    """Matrix completion by iteratively reweighted least squares, IRLS-p (Mohan & Fazel 2012, JMLR 13).

    It minimises a smooth stand-in of the Schatten norm Σ σ_j^p, in turn over X and the weights, in the form
    of arXiv 2401.04553::

        X ← argmin tr(X W X')  subject to  X_ij = y_ij on observed entries       W = I at the start
        W ← (X'X / m + floor I)^(p/2 − 1)

    With a ridge the constraint becomes the penalty Σ (X_ij − y_ij)² / ridge. Rows decouple: with O_i the observed
    columns of row i, x_i = W⁻¹[:, O_i] (W⁻¹[O_i, O_i] + ridge I)⁻¹ y_i; W⁻¹ comes from one eigen decomposition.

    It is lin-RFM in other variables: `LinRFM` with ``power`` α = (2 − p) / 4, exact features of the columns,
    ``replacement=0``, no offsets, and the same ``ridge`` and ``floor`` goes through the same estimates. Values are
    divided by their root mean square first, as there, so that ``ridge`` and ``floor`` have no unit.

    Parameters
    ----------
    p : float, default 0.0
        At most 1, zero and below included: 1 is the nuclear norm, 0 the log-determinant (default, best in the paper's
        experiments).
    ridge : float, default 0.0
        λ ≥ 0; 0 keeps the observed values as they are, and needs a floor.
    floor : float, default 1e-2
        ε ≥ 0, added to the eigenvalues before the power; in the first iteration, if it falls. For p below 0 let it fall
        from 1: from 1e-2 the fit ends in poor local minima.
    floor_decay : float, default 1.0
        What the floor is multiplied by after each iteration: Mohan & Fazel's γ. Above 0 and at most 1; 1 is the paper's
        fixed ε. Recovery to more digits than the floor leaves wants it to fall, by 0.8 for instance. It falls to 1e-12,
        for p below 0 to 1e-12^(1 / (1 − p/2)), beyond which the systems could not be solved.
    max_iter : int, default 300
        Most iterations.
    tol : float, default 1e-5
        The fit stops when the estimate changes by less than this share.
    callbacks : list of callables, optional
        Each is called with every `rfmdist.iterating.Iterate`; one that returns True ends the fit.

    Attributes
    ----------
    matrix_ : float64 ndarray of shape (m, n)
        The completed matrix.
    history_ : list of Iterate
    n_iter_ : int
    """

    def __init__(
        self,
        *,
        p: float = 0.0,
        ridge: float = 0.0,
        floor: float = 1e-2,
        floor_decay: float = 1.0,
        max_iter: int = 300,
        tol: float = 1e-5,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        self.p = p
        self.ridge = ridge
        self.floor = floor
        self.floor_decay = floor_decay
        self.max_iter = max_iter
        self.tol = tol
        self.callbacks = callbacks

    def _estimates(self, entries: Entries) -> Iterator[Floats]:
        check_number("p", self.p, most=1)
        check_number("ridge", self.ridge, least=0)
        check_number("floor", self.floor, least=0)
        check_number("floor_decay", self.floor_decay, least=0, most=1, above=True)
        check_loop(self)
        if not self.ridge and not self.floor:
            raise InputError("ridge=0 and floor=0 leave singular systems: give one of them a number above 0")
        return self._iterates(entries)

    def _iterates(self, entries: Entries) -> Iterator[Floats]:
        entries, unit = without_unit(entries)
        m, n = entries.shape
        power = 1 - self.p / 2  # W⁻¹ = (X'X / m + floor I)^power
        inverse, floor, least = np.eye(n), self.floor, LEAST_EIGENVALUE ** (1 / max(1, power))
        while True:
            estimate = least_squares(entries, inverse, self.ridge)
            yield unit * estimate
            squares, vectors = np.linalg.eigh(estimate.T @ estimate / m)
            half = vectors * (np.maximum(squares, 0) + floor) ** (power / 2)
            inverse = half @ half.T
            floor = min(floor, max(floor * self.floor_decay, least))


def least_squares(entries: Entries, inverse: Floats, ridge: float) -> Floats:
    """Return the X of least tr(X W X') + Σ (X_ij − y_ij)² / ridge, row by row; ridge 0: of those with X_ij = y_ij.

    Parameters
    ----------
    entries : Entries
        By rows.
    inverse : float64 ndarray of shape (n, n)
        W⁻¹, symmetric, positive definite.
    ridge : float

    Returns
    -------
    float64 ndarray of shape (m, n)

    Raises
    ------
    SingularRowError
        If a row's system is not positive definite in float64.
    """
    (m, n), columns, values = entries.shape, entries.columns, entries.values
    ends = np.searchsorted(entries.rows, np.arange(m + 1))
    dual, filled = np.empty_like(values), np.flatnonzero(np.diff(ends))
    if len(values) < THREADED:
        _solve_rows(filled, ends, entries, inverse, ridge, dual)
    else:
        with one_blas_thread(), ThreadPoolExecutor(cores()) as pool:
            pieces = np.array_split(filled, PIECES * cores())
            list(pool.map(lambda rows: _solve_rows(rows, ends, entries, inverse, ridge, dual), pieces))
    solved = sp.csr_array((dual, columns, ends), shape=(m, n))
    return solved @ inverse if len(values) < SPARSE * m * n else solved.toarray() @ inverse


def _solve_rows(
    rows: NDArray[np.int64], ends: NDArray[np.int64], entries: Entries, inverse: Floats, ridge: float, dual: Floats
) -> None:
    """Write (W⁻¹[O_i, O_i] + ridge I)⁻¹ y_i of each of the ``rows`` to ``dual`` (entries,)."""
    for i in rows:
        row = slice(ends[i], ends[i + 1])
        seen = entries.columns[row]
        system = inverse[seen[:, None], seen]
        system.flat[:: len(seen) + 1] += ridge
        try:
            lower = np.linalg.cholesky(system)  # NumPy's, as SciPy's holds back the other threads
        except np.linalg.LinAlgError:
            raise SingularRowError(
                f"row code {i}: its {len(seen)} × {len(seen)} system is not positive definite: raise ridge or floor"
            ) from None
        dual[row] = dpotrs(lower.T, entries.values[row])[0]  # its transpose is LAPACK's upper triangle: no copy
