"""Slow NumPy transcriptions of DESIGN.md; a matrix holds NaN where nothing was observed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rfmdist.observations.blocks import RowBlock

Matrix = NDArray[Any]


def eigen_power(matrix: Matrix, power: float) -> Matrix:
    """Power of a symmetric positive semi-definite matrix through its eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 0) ** power) @ vectors.T


def replaced(estimate: Matrix, values: Matrix, replacement: float) -> Matrix:
    """Estimate plus ``replacement`` times the residual, on observed entries."""
    observed = ~np.isnan(values)
    estimate = estimate.copy()
    estimate[observed] += replacement * (values - estimate)[observed]
    return estimate


def operator_estimate(values: Matrix, root: Matrix, ridge: float) -> Matrix:
    """General form: Z = W M' with W the least solution of <A_k M, W> = y_k, one operator an observed entry.

    With a ridge, W minimises sum (<A_k M, W> - y_k)^2 + ridge ||W||^2.
    """
    m, n = values.shape
    operators, right = [], []
    for i, j in zip(*np.nonzero(~np.isnan(values)), strict=True):
        measured = np.zeros((m, n))
        measured[i, j] = 1
        operators.append((measured @ root).ravel())
        right.append(values[i, j])
    system, wanted = np.array(operators), np.array(right)
    if ridge > 0:
        system = np.vstack([system, np.sqrt(ridge) * np.eye(m * n)])
        wanted = np.concatenate([wanted, np.zeros(m * n)])
    weights = np.linalg.lstsq(system, wanted, rcond=None)[0]
    return weights.reshape(m, n) @ root.T


def dual_estimate(values: Matrix, features: Matrix, ridge: float) -> Matrix:
    """Dual form: Z = A P with (P[O, O] + ridge I) a = y for each row."""
    estimate = np.zeros_like(values)
    for i, row in enumerate(values):
        seen = np.nonzero(~np.isnan(row))[0]
        if len(seen):
            system = features[np.ix_(seen, seen)] + ridge * np.eye(len(seen))
            estimate[i] = np.linalg.solve(system, row[seen]) @ features[seen]
    return estimate


def operator_iterates(
    values: Matrix, power: float, ridge: float, replacement: float, floor: float = 0.0
) -> Iterator[tuple[Matrix, Matrix]]:
    """(Z, P) of each iteration of Algorithm 1: the estimate, and the square of the M that follows from it."""
    root = np.eye(values.shape[1])
    while True:
        estimate = operator_estimate(values, root, ridge)
        root = eigen_power(shifted_agop(replaced(estimate, values, replacement), floor), power)
        yield estimate, root @ root.T


def dual_iterates(
    values: Matrix, power: float, ridge: float, replacement: float, floor: float = 0.0
) -> Iterator[tuple[Matrix, Matrix]]:
    """(Z, P) of each iteration in dual form."""
    features = np.eye(values.shape[1])
    while True:
        estimate = dual_estimate(values, features, ridge)
        agop = shifted_agop(replaced(estimate, values, replacement), floor)
        features = eigen_power(agop, 2 * power)
        yield estimate, features


def both_sides_iterates(
    values: Matrix, power: float, ridge: float, replacement: float, floor: float = 0.0
) -> Iterator[tuple[Matrix, Matrix]]:
    """(Z, P) of each iteration where sides take turns: rows solved with P, columns with Q = (ZZ'/n + floor I)^(2α)."""
    features = np.eye(values.shape[1])
    while True:
        estimate = dual_estimate(values, features, ridge)
        of_rows = eigen_power(shifted_agop(replaced(estimate, values, replacement).T, floor), 2 * power)
        across = dual_estimate(values.T, of_rows, ridge)
        features = eigen_power(shifted_agop(replaced(across, values.T, replacement).T, floor), 2 * power)
        yield estimate, features


def factored_rows(
    values: Matrix, factor: Matrix, offsets: Matrix, ridge: float, shrinkage: float
) -> tuple[Matrix, Matrix, Matrix]:
    """(B, c, R): each row's least (y - offsets - c - U_O b)^2 + ridge |b|^2 + shrinkage c^2, and what it leaves.

    No c where the shrinkage is infinite; R is zero where nothing was observed.
    """
    (m, _), rank = values.shape, factor.shape[1]
    solved, intercepts, residuals = np.zeros((m, rank)), np.zeros(m), np.zeros(values.shape)
    penalties = [ridge] * rank + ([shrinkage] if shrinkage < np.inf else [])
    for i, row in enumerate(values):
        seen = np.nonzero(~np.isnan(row))[0]
        design = np.hstack([factor[seen], np.ones((len(seen), 1))])[:, : len(penalties)]
        system = np.vstack([design, np.diag(np.sqrt(penalties))])
        right = row[seen] - offsets[seen]
        found = np.linalg.lstsq(system, np.concatenate([right, np.zeros(len(penalties))]), rcond=None)[0]
        solved[i], intercepts[i] = found[:rank], found[rank:].sum()
        residuals[i, seen] = right - design @ found
    return solved, intercepts, residuals


def shifted_agop(completed: Matrix, floor: float) -> Matrix:
    """Z'Z / m + floor I."""
    return completed.T @ completed / len(completed) + floor * np.eye(completed.shape[1])


def offsets(values: Matrix, kind: str | None, shrinkage: float = 5.0, sweeps: int = 15) -> tuple[float, Matrix, Matrix]:
    """Mean, row and column offsets by alternating shrunken means, one row or column at a time."""
    m, n = values.shape
    mean, rows, columns = 0.0, np.zeros(m), np.zeros(n)
    if kind is None:
        return mean, rows, columns
    seen = ~np.isnan(values)
    mean = float(values[seen].mean())
    for _ in range(sweeps):
        if kind in ("both", "columns"):
            for j in range(n):
                left = [values[i, j] - mean - rows[i] for i in range(m) if seen[i, j]]
                columns[j] = sum(left) / (len(left) + shrinkage) if left else 0.0
        if kind in ("both", "rows"):
            for i in range(m):
                left = [values[i, j] - mean - columns[j] for j in range(n) if seen[i, j]]
                rows[i] = sum(left) / (len(left) + shrinkage) if left else 0.0
    return mean, rows, columns


def least_squares_offsets(values: Matrix, shrinkage: float = 5.0) -> tuple[float, Matrix, Matrix]:
    """The offsets that the sweeps approach: least squares about the mean, penalty ``shrinkage`` on squares."""
    m, n = values.shape
    i, j = np.nonzero(~np.isnan(values))
    mean = float(values[i, j].mean())
    design = np.zeros((len(i), m + n))
    design[np.arange(len(i)), i] = 1
    design[np.arange(len(i)), m + j] = 1
    system = design.T @ design + shrinkage * np.eye(m + n)
    found = np.linalg.solve(system, design.T @ (values[i, j] - mean))
    return mean, found[:m], found[m:]


def sparse_problem(
    rng: np.random.Generator, m: int, n: int, rank: int = 4, density: float = 0.25, noise: float = 0.1
) -> Matrix:
    """Low rank plus noise, of unit mean square; row 0 has no observed entry, row 1 a single one."""
    full = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n)) / np.sqrt(rank)
    full += noise * rng.normal(size=(m, n))
    seen = rng.random((m, n)) < density
    seen[:2] = False
    seen[1, n // 2] = True
    return np.where(seen, full / np.sqrt(np.mean(full**2)), np.nan)


def row_block(values: Matrix, start: int = 0, stop: int | None = None, dtype: Any = np.float64) -> RowBlock:
    """Rows ``start`` to ``stop`` as the package cuts them out."""
    part = values[start:stop]
    seen = ~np.isnan(part)
    indptr = np.concatenate([[0], np.cumsum(seen.sum(axis=1))]).astype(np.int64)
    columns = np.nonzero(seen)[1].astype(np.int32)
    return RowBlock(start, start + len(part), indptr, columns, part[seen].astype(dtype))


def as_sparse(values: Matrix) -> sp.coo_array:
    """Observed entries as a scipy array, observed zeros included."""
    rows, columns = np.nonzero(~np.isnan(values))
    return sp.coo_array((values[rows, columns], (rows, columns)), shape=values.shape)


def distance(found: Matrix, expected: Matrix) -> float:
    """Relative difference in the Frobenius norm."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
