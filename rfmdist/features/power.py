"""Products of symmetric matrices, panel by panel, and whole powers by repeated products. No decomposition.

A panel is a fixed range of columns, multiplied on one thread: wherever it runs, its bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PanelMap = Callable[..., list[Any]]
"""``run(function, spans, *arrays)``: the results of ``function(span, *arrays)``, in the order of the spans."""

PANEL = 512
"""Columns of a panel: large enough for a product at full speed, small enough to share among workers."""


def spans(size: int, width: int) -> list[tuple[int, int]]:
    """Cut 0..size into spans of ``width``."""
    return [(left, min(left + width, size)) for left in range(0, size, width)]


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


def _outer_panel(span: tuple[int, int], rows: NDArray[Any]) -> NDArray[Any]:
    left, right = span
    # A copy, for NumPy would take another routine for rows rows', where it can see that they are the same.
    return rows[left:] @ np.ascontiguousarray(rows[left:right].T)


def _sandwich_panel(span: tuple[int, int], outer: NDArray[Any], inner: NDArray[Any]) -> NDArray[Any]:
    left, right = span
    return outer[left:] @ (inner @ outer[:, left:right])
