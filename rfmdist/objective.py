"""What a power of the AGOP minimises, and how far a matrix is from a fixed point. Knows no iteration.

For these checks singular values are found; no fit asks for them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.stored import stored_entries
from rfmdist.parameters import exponent


def objective(completed: Any, *, power: float | str = 0.5, floor: float = 0.0) -> float:
    """Σ_j ψ(σ_j) over the min(m, n) singular values of the completed matrix, which lin-RFM with this power minimises.

    Of φ(s) = s^α and M = φ(Z'Z / m + ε I) it is ψ'(σ) = σ / φ(σ² / m + ε)², (arXiv 2401.04553, section on IRLS)::

        ψ(σ) = m (σ²/m + ε)^(1 − 2α) / (2 (1 − 2α))        α = 1/4: √m times the nuclear norm where ε = 0
        ψ(σ) = m log(σ²/m + ε) / 2                         α = 1/2: the log-determinant
        ψ(σ) = −m / (2 (σ²/m + ε))                         α = 1
        ψ(σ) = m (s + log(1 − exp(−s))) / 2, s = σ²/m + ε  "exponential"

    With ridge λ > 0 an iteration (replacement 0, features of the columns) does not raise this plus
    Σ (y − z)² / (2λ) over the observed entries, since ψ is concave in σ² for every α > 0.

    Parameters
    ----------
    completed : array_like of shape (m, n)
        The plain estimate A P (replacement 0), in the units of the fit.
    power : float, default 0.5
        α, as `LinRFM` takes it.
    floor : float, default 0.0
        ε. Without one, singular values that are 0 give −inf for α of 1/2 and more.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If the matrix is not finite or empty, or a parameter is out of range.
    """
    matrix, raised = _checked(completed, floor), exponent(power)
    spectrum = np.linalg.svd(matrix, compute_uv=False) ** 2 / len(matrix) + floor
    with np.errstate(divide="ignore"):
        if isinstance(raised, str):
            return float(len(matrix) / 2 * np.sum(spectrum + np.log(-np.expm1(-spectrum))))
        alpha = float(raised) / 2
        if alpha == 0.5:
            return float(len(matrix) / 2 * np.sum(np.log(spectrum)))
        return float(len(matrix) / (2 * (1 - 2 * alpha)) * np.sum(spectrum ** (1 - 2 * alpha)))


class FixedPoint(NamedTuple):
    """How far a completed matrix is from a fixed point; both parts are 0 at one.

    Attributes
    ----------
    outside : float
        Share, in the Frobenius norm, of A = Z P^-1 that lies outside the observed entries.
    misfit : float
        ‖z + λ a − y‖ / ‖y‖ on the observed entries.
    """

    outside: float
    misfit: float


def fixed_point_residual(
    completed: Any, observed: Any, *, power: float | str = 0.5, ridge: float = 0.0, floor: float = 0.0
) -> FixedPoint:
    """Tell how far ``completed`` is from Z = A P with A on the observed entries, P = (Z'Z/m + ε I)^(2α), z + λ a = y.

    At a fixed point of lin-RFM (replacement 0) Z is a critical point of `objective` with these constraints: its
    gradient is Z P^-1.

    Parameters
    ----------
    completed : array_like of shape (m, n)
        The plain estimate, in the units of the fit.
    observed : scipy sparse array of shape (m, n)
        y at the observed entries, in the same units; zeros that are stored count.
    power, ridge, floor : float
        α, λ and ε. Without a floor, directions of Z that are 0 count as 0 in Z P^-1.

    Returns
    -------
    FixedPoint

    Raises
    ------
    InputError
        If the shapes differ, nothing is observed, a value is not finite, or a parameter is out of range.
    """
    matrix, raised = _checked(completed, floor), exponent(power)
    if not np.isfinite(ridge) or ridge < 0:
        raise InputError(f"ridge={ridge!r} must be a number of at least 0")
    given = stored_entries(observed, "observed") if sp.issparse(observed) else sp.coo_array(observed)
    if given.shape != matrix.shape or not given.nnz or not np.isfinite(given.data).all():
        raise InputError(f"observed: must have finite entries, and the shape {matrix.shape} of the completed matrix")
    left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
    spectrum = sizes**2 / len(matrix) + floor
    shrunken = -np.expm1(-spectrum) if isinstance(raised, str) else spectrum ** float(raised)
    weights = np.divide(sizes, shrunken, out=np.zeros_like(sizes), where=shrunken > 0)
    dual = (left * weights) @ right
    places = given.coords
    inside, whole = float(np.sum(dual[places] ** 2)), float(np.sum(dual**2))
    misfit = np.linalg.norm(matrix[places] + ridge * dual[places] - given.data) / np.linalg.norm(given.data)
    return FixedPoint(float(np.sqrt(max(whole - inside, 0.0) / whole)) if whole else 0.0, float(misfit))


def _checked(completed: Any, floor: float) -> NDArray[np.float64]:
    """The matrix in float64; refuses what is no matrix of numbers, and a floor out of range."""
    matrix = np.asarray(completed, np.float64)
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise InputError("completed: must be a matrix of finite numbers, (m, n) with m, n of at least 1")
    if not np.isfinite(floor) or floor < 0:
        raise InputError(f"floor={floor!r} must be a number of at least 0")
    return matrix
