"""Random choices as functions of an entry's position: the same in any block, on any worker, stored nowhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rfmdist.observations.blocks import Role

STRETCH = 1 << 16
"""Entries that share one generator."""


def uniforms(seed: int, low: int, high: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) for the entries at positions ``low`` to ``high``, whatever the range read."""
    first, last = low // STRETCH, -(-high // STRETCH)
    pieces = [np.random.default_rng([seed, k]).random(STRETCH) for k in range(first, last)]
    drawn = np.concatenate([*pieces, np.empty(0)])
    return drawn[low - first * STRETCH : high - first * STRETCH]


@dataclass(frozen=True)
class HoldOut:
    """A random ``fraction`` of the training entries, to be used for validation."""

    fraction: float
    seed: int

    def apply(self, roles: NDArray[np.uint8], low: int) -> NDArray[np.uint8]:
        """Roles of the entries from position ``low`` on, with the held-out ones turned to validation."""
        chosen = uniforms(self.seed, low, low + len(roles)) < self.fraction
        return np.where(chosen & (roles == Role.TRAIN), np.uint8(Role.VALIDATION), roles)
