"""A Gaussian kernel on learned features, as more columns of U for a last solve (DESIGN.md, "Cosine features")."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rfmdist.features.factored import FactoredFeatures, tall_gram
from rfmdist.features.power import spans
from rfmdist.kernels.threads import one_blas_thread

SIZE = 0.7
"""Size of the new columns in that of a row of U."""
PIECE = 1 << 14
"""Rows that are made at once."""


def with_cosines(features: FactoredFeatures, count: int, seed: int) -> FactoredFeatures:
    """Append to U the columns 0.7 s (√(2/D) cos(Ω u_j / s + φ) - mean), s the root mean square length of U's rows.

    ``count`` is D; Ω is normal and φ uniform, drawn with ``seed``.
    """
    with one_blas_thread():
        factor = features.factor
        scale = float(np.sqrt(np.trace(tall_gram(factor, factor)) / max(len(factor), 1))) or 1.0
        rng = np.random.default_rng(seed)
        slopes = rng.standard_normal((factor.shape[1], count)) / scale
        phases = rng.uniform(0, 2 * np.pi, count)
        more = np.empty((len(factor), count), factor.dtype)
        for top, bottom in spans(len(factor), PIECE):
            more[top:bottom] = np.cos(factor[top:bottom] @ slopes + phases)
        more -= more.mean(axis=0, dtype=np.float64).astype(factor.dtype)
        more *= SIZE * scale * np.sqrt(2 / count)
    return replace(features, factor=np.concatenate([factor, more], axis=1))
