"""MatrixIRLS: log-det reweighting on both sides at once, solved in the tangent space. Knows no lin-RFM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, cg

from rfmdist.baselines.common import without_unit
from rfmdist.checks import check_loop, check_whole
from rfmdist.errors import InputError
from rfmdist.iterating import Callback, Entries, MatrixCompleter

Floats = NDArray[np.float64]

LEAST_SMOOTHING = 1e-14
"""Least smoothing as a share of the largest singular value: what lies below is rounding."""
CG_TOL = 1e-13
"""Relative residual at which conjugate gradients stop: what they leave is what weak directions are made of."""
CG_STEPS = 500
"""Most steps of conjugate gradients; an iteration that ends here is still a step towards the weighted least squares."""


class MatrixIRLS(MatrixCompleter):
    """Matrix completion by MatrixIRLS (Kümmerle & Mayrink Verdun, ICML 2021): second order, for ill-conditioned ones.

    It lowers the smoothed log-determinant Σ log max(σ_j, ε) (plus a quadratic below ε) by weighted least squares::

        X ← argmin <X, W(X)>  subject to  X_ij = y_ij on observed entries
        ε ← min(ε, σ_{rank + 1}(X))
        W(Z) = U [(U' Z V)_ij / (max(σ_i, ε) max(σ_j, ε))] V'        X = U diag(σ) V', W = identity at the start

    W weighs both sides at once, by the geometric mean of the one-sided weights. As W⁻¹ is ε² but in the tangent space
    of the σ_j > ε, the least squares have as many unknowns as this: conjugate gradients solve them to 1e-13. Each
    iteration takes a singular value decomposition of m × n: for sizes up to some hundreds, or patience.

    Parameters
    ----------
    rank : int
        r̃, the rank expected, at least 1 and below m and n. No default: it steers the smoothing.
    max_iter : int, default 100
        Most iterations.
    tol : float, default 1e-9
        The fit stops when the estimate changes by less than this share. Small, for weak directions are found while the
        whole hardly changes, and few iterations more reach it: convergence is superlinear at the end.
    callbacks : list of callables, optional
        Each is called with every `rfmdist.iterating.Iterate`; one that returns True ends the fit.

    Attributes
    ----------
    matrix_ : float64 ndarray of shape (m, n)
        The completed matrix, which has the observed values in place.
    history_ : list of Iterate
    n_iter_ : int
    """

    def __init__(
        self, rank: int, *, max_iter: int = 100, tol: float = 1e-9, callbacks: Sequence[Callback] | None = None
    ) -> None:
        self.rank = rank
        self.max_iter = max_iter
        self.tol = tol
        self.callbacks = callbacks

    def _estimates(self, entries: Entries) -> Iterator[Floats]:
        check_whole("rank", self.rank, 1)
        check_loop(self)
        if self.rank >= min(entries.shape):
            raise InputError(f"rank={self.rank} must be below both sides of a matrix of shape {entries.shape}")
        return self._iterates(entries)

    def _iterates(self, entries: Entries) -> Iterator[Floats]:
        entries, unit = without_unit(entries)
        smoothing = np.inf
        estimate = np.zeros(entries.shape)
        estimate[entries.rows, entries.columns] = entries.values
        while True:
            yield unit * estimate
            left, singular, right = np.linalg.svd(estimate, full_matrices=False)
            least = LEAST_SMOOTHING * max(float(singular[0]), 1.0)
            smoothing = max(min(smoothing, float(singular[self.rank])), least)
            kept = int(np.count_nonzero(singular > smoothing))
            if kept:
                tangent = Tangent(left[:, :kept], singular[:kept], right[:kept].T, entries)
                estimate = tangent.least_squares(smoothing)


class Tangent:
    """The tangent space of the matrices of rank r at U diag(s) V', and least squares over entries observed of it.

    A vector of it is (G, H, K), flat: U G V' + U H' + K V', with G (r, r), H (n, r), K (m, r), V'H = 0 and U'K = 0.
    """

    def __init__(self, left: Floats, singular: Floats, right: Floats, entries: Entries) -> None:
        self.left, self.singular, self.right, self.entries = left, singular, right, entries
        self._starts = np.searchsorted(entries.rows, np.arange(len(left) + 1))

    def least_squares(self, smoothing: float) -> Floats:
        """Return W⁻¹'s least X, float64 ndarray of shape (m, n).

        With D the entries of W⁻¹ on the tangent space, A the observed entries of its vectors:
        (ε² (D − ε²)⁻¹ + A'A) γ = A'y, and X = the matrix of γ, plus y − A γ on observed entries.
        """
        entries, penalty = self.entries, self._penalty(smoothing)
        size = len(penalty)
        system = LinearOperator(
            (size, size), matvec=lambda g: penalty * g + self._vector(self._observed(g)), dtype=np.float64
        )
        # The diagonal, were the observed entries spread evenly: the penalties span many powers of ten.
        scale = 1 / (penalty + len(entries.values) / (len(self.left) * len(self.right)))
        preconditioner = LinearOperator((size, size), matvec=lambda g: scale * g, dtype=np.float64)
        found, _ = cg(system, self._vector(entries.values), rtol=CG_TOL, maxiter=CG_STEPS, M=preconditioner)
        tall, wide = self._factors(found)
        estimate = tall @ wide.T
        estimate[entries.rows, entries.columns] = entries.values  # γ's matrix plus the residual is y
        return estimate

    def _penalty(self, smoothing: float) -> Floats:
        """ε² / (D − ε²), flat: D is s_i s_j for G, s_j ε for the columns of H and K."""
        both = np.outer(self.singular, self.singular)
        one = np.tile(smoothing * self.singular, len(self.left) + len(self.right))
        return smoothing**2 / (np.concatenate([both.ravel(), one]) - smoothing**2)

    def _factors(self, vector: Floats) -> tuple[Floats, Floats]:
        """Return tall (m, 2r) and wide (n, 2r): the vector's matrix is tall wide'."""
        rank = len(self.singular)
        core, outer_right, outer_left = np.split(vector, [rank**2, rank**2 + rank * len(self.right)])
        wide = self.right @ core.reshape(rank, rank).T + outer_right.reshape(-1, rank)
        return np.hstack([self.left, outer_left.reshape(-1, rank)]), np.hstack([wide, self.right])

    def _observed(self, vector: Floats) -> Floats:
        """A γ: the observed entries of the vector's matrix, (entries,)."""
        tall, wide = self._factors(vector)
        found: Floats = np.einsum("er,er->e", tall[self.entries.rows], wide[self.entries.columns])
        return found

    def _vector(self, values: Floats) -> Floats:
        """A' values: the sparse matrix of these entries, projected on the tangent space."""
        shape = len(self.left), len(self.right)
        sparse = sp.csr_array((values, self.entries.columns, self._starts), shape=shape)
        of_rows, of_columns = sparse @ self.right, sparse.T @ self.left
        core = self.left.T @ of_rows
        parts = core, of_columns - self.right @ core.T, of_rows - self.left @ core
        return np.concatenate([part.ravel() for part in parts])
