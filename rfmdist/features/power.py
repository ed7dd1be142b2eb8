"""Products of symmetric matrices, panel by panel; whole and rational powers by them. No decomposition but Cholesky's.

A panel is a fixed range of columns, multiplied on one thread: wherever it runs, its bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from rfmdist.errors import SingularRowError
from rfmdist.features.minimax import inverse_root_map, taylor
from rfmdist.kernels.threads import one_blas_thread

PanelMap = Callable[..., list[Any]]
"""``run(function, spans, *arrays)``: the results of ``function(span, *arrays)``, in the order of the spans."""

PANEL = 512
"""Columns of a panel: large enough for a product at full speed, small enough to share among workers."""

SETTLED = 1e-3
"""‖I − M‖ from which a series of five terms ends a root: it leaves the fifth power of that, 1e-15."""
MOST_MAPS = 30
"""Most polynomials that a root takes; 6 do at a condition of 1e8, 9 at the worst that float64 tells from singular."""
NARROW = 1 / 200
"""Where a spectrum in [this, 1] begins whose odd roots may come from `_inverse_root`: wider ones lose digits there."""
VECTOR_STEPS = 16
"""Steps of the power method that bounds the least eigenvalue, to a factor of 2; one is far cheaper than a product."""
SEED = 2401_04553
"""Of its start: not a seed that matrices come from."""
LEAST = 16
"""Times √n eps of the greatest eigenvalue: what is smaller cannot be told from the rounding of products."""
LONGEST, TERMS = 0.5, 14
"""Norm to which an exponential's argument is scaled, and terms of its series: the first left out is 2e-17 there."""
UNLIKELY = 1e3
"""How much smaller than usual the start's share of the extreme eigenvector may be for the bound to hold."""


def spans(size: int, width: int) -> list[tuple[int, int]]:
    """Cut 0..size into spans of ``width``."""
    return [(left, min(left + width, size)) for left in range(0, size, width)]


def here(function: Callable[..., Any], spans: Sequence[tuple[int, int]], *arrays: Any) -> list[Any]:
    """Run panels where it is called, one after the other: a `PanelMap` for matrices too small to be sent."""
    return [function(span, *arrays) for span in spans]


def matrix_power(matrix: NDArray[Any], power: int, run: PanelMap) -> NDArray[Any]:
    """``matrix`` (n, n), symmetric, to a whole ``power`` of at least 1, by repeated squaring."""
    result, square = None, matrix
    while power:
        if power & 1:
            result = square if result is None else _symmetric(_product_panel, run, result, square)
        power >>= 1
        if power:
            square = _symmetric(_product_panel, run, square, square)
    assert result is not None, "power is at least 1"
    return result


def rational_power(matrix: NDArray[Any], power: Fraction, run: PanelMap) -> NDArray[Any]:
    """``matrix``, symmetric positive semi-definite, to a rational power a/b > 0, by products.

    Square roots are taken, one of the other, while b is even or A is too far from I for an odd root, which is taken
    then. Each comes from polynomials h of degree 4 that bring a spectrum as near to 1 as can be (`inverse_root_map`),
    until ‖I − M‖ of what they act on is small. At a condition of 1e8 the power 1/2 takes 40 products of n³
    multiplications, 1/4 70 and 1/3 93. A Cholesky factor bounds the spectrum; no eigenvalue is found. All of it is in
    float64, also where ``matrix`` is float32: a b-th root of rounding is much larger than rounding.

    Parameters
    ----------
    matrix : ndarray of shape (n, n), float32 or float64
        Where eigenvalues lie below `LEAST` √n eps of the greatest, that much is added to all: they cannot be told
        from 0.
    power : Fraction
        a/b.
    run : PanelMap
        What multiplies the panels.

    Returns
    -------
    ndarray of shape (n, n)
        Symmetric, of the dtype of ``matrix``.

    Raises
    ------
    SingularRowError
        If the matrix is not finite, or has eigenvalues below 0 by more than rounding.
    """
    if power.denominator == 1:
        return matrix_power(matrix, int(power), run)
    if not matrix.any():
        return matrix.copy()
    base, unit, low = _scaled(matrix, run)
    exponent = power
    while exponent.denominator % 2 == 0 or (exponent.denominator > 1 and low < NARROW):
        base, low, exponent = _square_root(base, low, run), np.sqrt(low), 2 * exponent
    whole = -(-exponent.numerator // exponent.denominator)
    found = matrix_power(base, whole, run)
    if exponent.denominator > 1:
        root = _inverse_root(base, exponent.denominator, low, run)
        again = matrix_power(root, exponent.denominator * whole - exponent.numerator, run)
        found = _symmetric(_product_panel, run, found, again)
    found *= unit ** float(power)
    return found.astype(matrix.dtype, copy=False)


def saturated(matrix: NDArray[Any], run: PanelMap) -> NDArray[np.float64]:
    """I − exp(−``matrix``) of a symmetric positive semi-definite matrix, float64, by scaling and squaring.

    Of F = I − exp(t) twice the argument gives F (2I − F): no difference of large numbers is taken, so that small
    eigenvalues keep their digits.
    """
    size = float(np.linalg.norm(matrix))
    if not np.isfinite(size):
        raise SingularRowError("the features left the range of float64: lower replacement, floor or power")
    squarings = max(0, int(np.ceil(np.log2(max(size, LONGEST) / LONGEST))))
    argument = matrix.astype(np.float64) / 2.0**squarings
    found = np.zeros_like(argument)
    for order in range(TERMS, 0, -1):  # Horner's scheme: t (1 − t/2 (1 − t/3 (...)))
        found /= -(order + 1)
        found.flat[:: len(found) + 1] += 1
        found = _symmetric(_product_panel, run, argument, found)
    for _ in range(squarings):
        rest = -found
        rest.flat[:: len(rest) + 1] += 2
        found = _symmetric(_product_panel, run, found, rest)
    return found


def sandwich(outer: NDArray[np.float64], inner: NDArray[np.float64], run: PanelMap) -> NDArray[np.float64]:
    """``outer inner outer`` of symmetric (n, n) arrays; in float64 always, since large numbers cancel in it."""
    return _symmetric(_sandwich_panel, run, outer, inner)


def outer_product(rows: NDArray[Any], run: PanelMap) -> NDArray[Any]:
    """``rows rows'`` of an (m, n) array, (m, m)."""
    return _symmetric(_outer_panel, run, rows)


def mirrored(lower: NDArray[Any], factor: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    """``factor`` times the symmetric matrix of which ``lower`` holds the lower triangle, rounded to ``dtype``."""
    full = np.empty(lower.shape, dtype)
    for top, bottom in spans(len(lower), PANEL):
        panel = (factor * lower[top:bottom, :bottom]).astype(dtype, copy=False)
        corner = np.tril(panel[:, top:])
        full[top:bottom, :top] = panel[:, :top]
        full[:top, top:bottom] = panel[:, :top].T
        full[top:bottom, top:bottom] = corner + np.tril(corner, -1).T
    return full


def power_of_two(value: float) -> float:
    """Power of two nearest to ``value`` in the logarithm: dividing by it is exact; 1 where there is none."""
    return float(2.0 ** np.round(np.log2(value))) if 0 < value < np.inf else 1.0


def _scaled(matrix: NDArray[Any], run: PanelMap) -> tuple[NDArray[np.float64], float, float]:
    """``matrix`` in float64 divided by a bound of its spectrum, made definite; that bound, and where it begins."""
    scaled, least = matrix.astype(np.float64), LEAST * np.sqrt(len(matrix)) * float(np.finfo(matrix.dtype).eps)
    with one_blas_thread():
        size = float(np.linalg.norm(scaled))
        if not np.isfinite(size):
            raise SingularRowError("the features left the range of float64: lower replacement, floor or power")
        scaled /= size
        unit = float(np.linalg.norm(matrix_power(scaled, 4, run))) ** 0.25  # too much by n^(1/8) at most
        scaled /= unit
        low = _least(scaled)
        if low < least:
            scaled.flat[:: len(matrix) + 1] += least
            scaled /= 1 + least
            unit, low = unit * (1 + least), _least(scaled)
    if low == 0:
        raise SingularRowError(f"a matrix of {len(matrix)} × {len(matrix)} is not positive semi-definite: raise floor")
    return scaled, size * unit, float(2.0 ** np.floor(np.log2(low)))


def _least(matrix: NDArray[np.float64]) -> float:
    """Bound the least eigenvalue from below by the power method of the inverse; 0 where it is not positive.

    Once in a thousand times it is too high, and then by little: what lies below it only takes longer.
    """
    try:
        factor = cho_factor(matrix, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return 0.0
    vector = np.random.default_rng(SEED).standard_normal(len(matrix))
    vector /= np.linalg.norm(vector)
    total = np.log(UNLIKELY * np.sqrt(len(matrix)))
    for _ in range(VECTOR_STEPS):
        vector = np.asarray(cho_solve(factor, vector, check_finite=False))
        length = float(np.linalg.norm(vector))
        vector /= length
        total += np.log(length)
    return float(np.exp(-total / VECTOR_STEPS))


def _square_root(matrix: NDArray[np.float64], low: float, run: PanelMap) -> NDArray[np.float64]:
    """Square root of ``matrix``, whose eigenvalues lie in [``low``, 1].

    With matrix = L L' and the polar factors L' = U H it is H = U'L', since H² = L L'. U comes from X = L' by
    X ← X h(X'X): X'X is as symmetric as it is computed, and errors do not grow where the condition is large.
    """
    with one_blas_thread():
        lower = np.linalg.cholesky(matrix)
    rows, gram = lower, matrix  # X', X'X
    for _ in range(MOST_MAPS):
        step, low, settled = _step(gram, 2, low, run)
        rows = _product(step, rows, run)
        if settled:
            return _symmetric(_across_panel, run, rows, lower)
        gram = outer_product(rows, run)
    raise _unsettled(matrix)


def _inverse_root(matrix: NDArray[np.float64], root: int, low: float, run: PanelMap) -> NDArray[np.float64]:
    """``matrix``, whose eigenvalues lie in [``low``, 1], to the power -1/``root``: X ← X h(M), M ← h(M)^b M.

    Errors grow with the condition: it is for one of hundreds.
    """
    found, coupled = None, matrix
    for _ in range(MOST_MAPS):
        step, low, settled = _step(coupled, root, low, run)
        found = step if found is None else _symmetric(_product_panel, run, found, step)
        if settled:
            return found
        coupled = _symmetric(_product_panel, run, matrix_power(step, root, run), coupled)
    raise _unsettled(matrix)


def _step(matrix: NDArray[np.float64], root: int, low: float, run: PanelMap) -> tuple[NDArray[np.float64], float, bool]:
    """h(matrix), where the spectrum of matrix h(matrix)^b begins, and whether that settles it."""
    rest = -matrix
    rest.flat[:: len(rest) + 1] += 1
    if float(np.linalg.norm(rest)) < SETTLED:
        return _polynomial(taylor(root), rest, run), 1.0, True
    del rest
    best = inverse_root_map(low, root)
    argument = best.slope * matrix
    argument.flat[:: len(matrix) + 1] += best.shift
    return _polynomial(best.coefficients, argument, run), best.low, False


def _unsettled(matrix: NDArray[np.float64]) -> SingularRowError:
    return SingularRowError(f"the root of a {len(matrix)} × {len(matrix)} matrix does not settle: raise floor")


def _polynomial(coefficients: Sequence[float], argument: NDArray[np.float64], run: PanelMap) -> NDArray[np.float64]:
    """c0 + c1 t + c2 t² + (c3 t + c4 t²) t² of a symmetric matrix t, by two products."""
    c0, c1, c2, c3, c4 = coefficients
    square = _symmetric(_product_panel, run, argument, argument)
    upper = c3 * argument + c4 * square
    upper.flat[:: len(upper) + 1] += c2
    total = _symmetric(_product_panel, run, upper, square)
    total += c1 * argument
    total.flat[:: len(total) + 1] += c0
    return total


def _symmetric(panel: Callable[..., NDArray[Any]], run: PanelMap, *arrays: NDArray[Any]) -> NDArray[Any]:
    """Assemble a symmetric matrix from panels that hold its lower triangle's columns."""
    cuts: Sequence[tuple[int, int]] = spans(len(arrays[0]), PANEL)
    full = np.empty((len(arrays[0]),) * 2, arrays[0].dtype)
    for (left, right), columns in zip(cuts, run(panel, cuts, *arrays), strict=True):
        full[right:, left:right] = columns[right - left :]
        full[left:right, right:] = columns[right - left :].T
        corner = np.tril(columns[: right - left])
        full[left:right, left:right] = corner + np.tril(corner, -1).T
    return full


def _product_panel(span: tuple[int, int], a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    left, right = span
    return a[left:] @ b[:, left:right]


def _product(a: NDArray[Any], b: NDArray[Any], run: PanelMap) -> NDArray[Any]:
    """``a b`` of (n, n) arrays, where it is not symmetric."""
    return np.concatenate(run(_columns_panel, spans(len(b), PANEL), a, b), axis=1)


def _columns_panel(span: tuple[int, int], a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    left, right = span
    return a @ b[:, left:right]


def _across_panel(span: tuple[int, int], a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    left, right = span
    return a[left:] @ b[left:right].T


def _outer_panel(span: tuple[int, int], rows: NDArray[Any]) -> NDArray[Any]:
    left, right = span
    # A copy, for NumPy would take another routine for rows rows', where it can see that they are the same.
    return rows[left:] @ np.ascontiguousarray(rows[left:right].T)


def _sandwich_panel(span: tuple[int, int], outer: NDArray[Any], inner: NDArray[Any]) -> NDArray[Any]:
    left, right = span
    return outer[left:] @ (inner @ outer[:, left:right])
