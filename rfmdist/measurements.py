"""Linear measurements <A_k, Y> of a matrix, in every form they come in. Knows no method that recovers Y from them.

Whatever the form, three sums are all that a method needs: ``measure``, ``adjoint`` and, where the A_k can be read,
``gram``. Matrices are laid out by rows: entry (i, j) of an m × n matrix is place i n + j of its vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dask
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from rfmdist.errors import InputError
from rfmdist.kernels.threads import one_blas_thread
from rfmdist.observations.stored import rebuilt

SLAB_BYTES = 1 << 26
"""Bytes of the A_k P that are held at a time: enough rows for a product at full speed."""


class Measurements(Protocol):
    """N measurements of an m × n matrix."""

    @property
    def shape(self) -> tuple[int, int]:
        """m, n of the matrix."""

    @property
    def count(self) -> int:
        """N."""

    @property
    def readable(self) -> bool:
        """Whether the A_k can be read one by one, which ``gram`` needs."""

    def measure(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """<A_k, matrix>, ndarray of shape (N,), of an (m, n) matrix."""

    def adjoint(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Σ_k weights_k A_k, ndarray of shape (m, n), of N weights."""

    def gram(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """K_kl = <A_k P, A_l>, ndarray of shape (N, N), for symmetric features P (n, n)."""


def measurements(given: Any, shape: Sequence[int] | None) -> Measurements:
    """Bring measurements into the form that suits them.

    Parameters
    ----------
    given : array, sparse array, dask array or LinearOperator
        See `rfmdist.LinearSensing.fit`.
    shape : (m, n) or None
        Of the matrix; needed unless ``given`` is of shape (N, m, n).

    Raises
    ------
    InputError
        If the shapes do not fit together, or entries are not real numbers.
    """
    count, whole = _sizes(given, shape)
    if isinstance(given, LinearOperator):
        return Operator(given, whole, count)
    if dask.is_dask_collection(given):
        return Chunks(given, whole, count)
    return Table(_table(given, whole), whole, count)


@dataclass(frozen=True, eq=False)
class Table:
    """Measurements in memory: ``rows`` (N, m n), float64, one A_k a row, dense or CSR."""

    rows: Any
    shape: tuple[int, int]
    count: int
    readable = True

    def measure(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.rows @ matrix.ravel()

    def adjoint(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return (self.rows.T @ weights).reshape(self.shape)

    def gram(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        return _gram(self.rows, self.rows, features)


@dataclass(frozen=True, eq=False)
class Operator:
    """Measurements known by what they do: a scipy LinearOperator (N, m n) with matvec and rmatvec."""

    operator: LinearOperator
    shape: tuple[int, int]
    count: int
    readable = False

    def measure(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self.operator.matvec(matrix.ravel()), np.float64)

    def adjoint(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        try:
            return np.asarray(self.operator.rmatvec(weights), np.float64).reshape(self.shape)
        except NotImplementedError:
            raise InputError("A has no rmatvec: give the LinearOperator its adjoint, which the solves need") from None

    def gram(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        raise InputError("A is a LinearOperator, whose A_k cannot be read one by one: choose solver='cg'")


@dataclass(frozen=True, eq=False)
class Chunks:
    """Measurements of a dask array: every sum is a pass over its chunks, of which each worker holds few at a time.

    A chunk's part depends on the chunk alone and is computed on one thread, and parts are added in a fixed
    order: the same chunks give the same bits on any scheduler, of this process or of a cluster.
    """

    array: Any
    shape: tuple[int, int]
    count: int
    readable = True

    def measure(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        shared = dask.delayed(matrix)
        return np.concatenate(dask.compute(*[dask.delayed(_measure_chunk)(chunk, shared) for chunk in self._chunks()]))

    def adjoint(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        cuts = np.cumsum(self.array.chunks[0])[:-1]
        parts = [
            dask.delayed(_adjoint_chunk)(chunk, part, self.shape)
            for chunk, part in zip(self._chunks(), np.split(weights, cuts), strict=True)
        ]
        while len(parts) > 1:  # pairs, so that the parts can go as they are added
            parts = [dask.delayed(_added)(parts[i : i + 2]) for i in range(0, len(parts), 2)]
        return parts[0].compute()

    def gram(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        chunks, shared = self._chunks(), dask.delayed(features)
        ends = np.cumsum((0, *self.array.chunks[0]))
        full = np.empty((self.count, self.count))
        for i, chunk in enumerate(chunks):  # one by one: in a single graph every chunk would wait for every other
            blocks = dask.compute(
                *[dask.delayed(_gram_chunk)(chunk, other, shared, self.shape) for other in chunks[: i + 1]]
            )
            here = slice(ends[i], ends[i + 1])
            for j, block in enumerate(blocks):
                there = slice(ends[j], ends[j + 1])
                full[here, there], full[there, here] = block, block.T
        return full

    def _chunks(self) -> list[Any]:
        """Chunks of whole A_k, as delayed values."""
        whole = self.array.rechunk(dict.fromkeys(range(1, self.array.ndim), -1))
        return list(whole.to_delayed().ravel())


def _measure_chunk(chunk: Any, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return _times(_table(chunk, matrix.shape), matrix.ravel())


def _adjoint_chunk(chunk: Any, weights: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    return _times(_table(chunk, shape).T, weights).reshape(shape)


def _gram_chunk(left: Any, right: Any, features: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    with one_blas_thread():
        return _gram(_fresh(_table(left, shape)), _fresh(_table(right, shape)), _fresh(features))


def _fresh(array: Any) -> Any:
    """A copy of a dense array: one that came from another process may lie where BLAS takes another routine."""
    return array if sp.issparse(array) else np.array(array)


def _times(table: Any, vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Table times vector without BLAS, whose bits depend on its threads; memory bounds the speed of either."""
    return table @ vector if sp.issparse(table) else np.einsum("kp,p->k", table, vector)


def _added(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _gram(left: Any, right: Any, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """<A_k P, B_l> of the A_k in the rows of ``left`` and the B_l in those of ``right``."""
    if sp.issparse(left):
        return _sparse_gram(left.tocsc(), right.tocsc(), features)
    n, full = len(features), np.empty((len(left), len(right)))
    step = max(1, SLAB_BYTES // (8 * left.shape[1]))
    for top in range(0, len(left), step):
        slab = left[top : top + step]
        full[top : top + step] = (slab.reshape(-1, n) @ features).reshape(slab.shape) @ right.T
    return full


def _sparse_gram(left: Any, right: Any, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same row by row of the matrix: a row's part is that of the few measurements which look at it."""
    n, full = len(features), np.zeros((left.shape[0], right.shape[0]))
    for start in range(0, left.shape[1], n):
        ours, theirs = (_rows_in_use(table[:, start : start + n]) for table in (left, right))
        full[np.ix_(ours[0], theirs[0])] += (theirs[1] @ (ours[1] @ features).T).T
    return full


def _rows_in_use(part: Any) -> tuple[NDArray[np.intp], Any]:
    """The rows of a CSC array that have entries, and those rows as CSR."""
    rows = np.unique(part.indices).astype(np.intp)
    return rows, part.tocsr()[rows]


def _sizes(given: Any, shape: Sequence[int] | None) -> tuple[int, tuple[int, int]]:
    """N and (m, n), once they are known to fit together."""
    if not hasattr(given, "shape"):
        raise InputError(f"A is a {type(given).__name__}: give an array, a sparse or dask array, or a LinearOperator")
    found = tuple(given.shape)
    if len(found) not in (2, 3):
        raise InputError(f"A has shape {found}: give (N, m, n), or (N, m n) with shape=(m, n)")
    if any(size != size for size in found):
        raise InputError("A has chunks of unknown sizes: call compute_chunk_sizes() on it first")
    if np.dtype(given.dtype).kind not in "biuf":
        raise InputError(f"A has entries of type {given.dtype}: give real numbers")
    if shape is None:
        if len(found) == 2:
            raise InputError(f"A has shape {found}: say the matrix's with shape=(m, n)")
        shape = found[1:]
    whole = _pair(shape)
    if found[1:] not in (whole, (whole[0] * whole[1],)):
        raise InputError(f"A has shape {found}, which does not go with a matrix of shape {whole}: give another shape")
    if 0 in (found[0], *whole):
        raise InputError(f"A has shape {found}: give at least one measurement of at least one entry")
    return found[0], whole


def _pair(shape: Any) -> tuple[int, int]:
    whole = all(isinstance(size, int | np.integer) and size >= 0 for size in shape) if np.iterable(shape) else False
    if not whole or len(shape) != 2:
        raise InputError(f"shape={shape!r} must be two whole numbers (m, n)")
    return int(shape[0]), int(shape[1])


def _table(block: Any, shape: tuple[int, ...]) -> Any:
    """Measurements in memory as a float64 array (N, m n), dense or CSR."""
    flat = (block.shape[0], shape[0] * shape[1])
    if sp.issparse(block):
        return sp.csr_array(rebuilt(block, "measurements").reshape(flat), dtype=np.float64)
    if isinstance(block, np.ndarray):
        return np.ascontiguousarray(block, np.float64).reshape(flat)
    import sparse  # it takes a second to load, for one form of several

    if not isinstance(block, sparse.SparseArray) or block.fill_value != 0:
        raise InputError(f"A is a {type(block).__name__}: give a NumPy, scipy or sparse array whose rest is zeros")
    return sp.csr_array(sparse.COO(block).reshape(flat).tocsr(), dtype=np.float64)
