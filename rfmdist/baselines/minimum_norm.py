"""The completion of least Frobenius norm, which puts zeros where nothing was observed. Knows no iteration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rfmdist.checks import check_loop, check_number
from rfmdist.iterating import Callback, Entries, MatrixCompleter


class MinimumNorm(MatrixCompleter):
    """The least ‖X‖_F with X_ij = y_ij on observed entries: the first iterate of lin-RFM (arXiv 2401.04553, M₀ = I).

    With a ridge it is the least Σ (X_ij − y_ij)² + ridge ‖X‖_F². Either way each entry is on its own: y / (1 + ridge)
    where observed, zero elsewhere.

    Parameters
    ----------
    ridge : float, default 0.0
        λ ≥ 0; 0 keeps the observed values as they are.
    callbacks : list of callables, optional
        Each is called with the one `rfmdist.iterating.Iterate`.

    Attributes
    ----------
    matrix_ : float64 ndarray of shape (m, n)
        The completed matrix.
    history_ : list of Iterate
        One.
    n_iter_ : int
        1.
    """

    max_iter = 1
    tol = 0.0

    def __init__(self, *, ridge: float = 0.0, callbacks: Sequence[Callback] | None = None) -> None:
        self.ridge = ridge
        self.callbacks = callbacks

    def _estimates(self, entries: Entries) -> Iterator[NDArray[np.float64]]:
        check_number("ridge", self.ridge, least=0)
        check_loop(self)
        estimate = np.zeros(entries.shape)
        estimate[entries.rows, entries.columns] = entries.values / (1 + self.ridge)
        return iter([estimate])
