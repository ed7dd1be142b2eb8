"""BLAS and LAPACK for compiled kernels: SciPy's own routines under names that compiled code may cache.

A pointer taken through ctypes keeps numba from caching; a symbol given to LLVM by name does not.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba import types
from numba.extending import get_cython_function_address


def _external(library: str, name: str, arguments: int) -> Any:
    address = get_cython_function_address(f"scipy.linalg.cython_{library}", name)
    llvm.add_symbol(f"rfmdist_{name}", address)
    return types.ExternalFunction(f"rfmdist_{name}", types.void(*[types.voidptr] * arguments))


dpotrf, spotrf = _external("lapack", "dpotrf", 5), _external("lapack", "spotrf", 5)
"""potrf(uplo, n, a, lda, info): Cholesky factor in place."""
dpotrs, spotrs = _external("lapack", "dpotrs", 8), _external("lapack", "spotrs", 8)
"""potrs(uplo, n, nrhs, a, lda, b, ldb, info): solve with that factor in place."""
dgemm, sgemm = _external("blas", "dgemm", 13), _external("blas", "sgemm", 13)
"""gemm(transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc): c = alpha a b + beta c."""
dsyrk, ssyrk = _external("blas", "dsyrk", 10), _external("blas", "ssyrk", 10)
"""syrk(uplo, trans, n, k, alpha, a, lda, beta, c, ldc): one triangle of c = alpha a a' + beta c."""
