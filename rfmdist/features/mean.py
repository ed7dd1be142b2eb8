"""The mean of several features' predictions, as features that rows are solved with (DESIGN.md, "Means of ranks")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from rfmdist.features.factored import FactoredFeatures, Solution
from rfmdist.features.protocol import Step
from rfmdist.kernels.threads import Threads
from rfmdist.observations.blocks import RowBlock


@dataclass(frozen=True, eq=False)
class MeanFeatures(FactoredFeatures):
    """Features side by side; each solves a row by itself, and the row's coefficients are all of theirs, shared out.

    Attributes
    ----------
    factor : ndarray of shape (n, sum of the members' ranks)
        The members' factors side by side.
    offsets : ndarray of shape (n,)
        The mean of the members' offsets.
    members : tuple of FactoredFeatures
        Those whose predictions are averaged, of one dtype and one side.
    steps : tuple of Step
        The settings that each is solved with.
    """

    members: tuple[FactoredFeatures, ...] = field(kw_only=True)
    steps: tuple[Step, ...] = field(kw_only=True)

    @classmethod
    def of(cls, members: Sequence[FactoredFeatures], steps: Sequence[Step]) -> Self:
        """Put ``members`` side by side."""
        factor = np.concatenate([member.factor for member in members], axis=1)
        offsets = np.mean([member.offsets for member in members], axis=0, dtype=factor.dtype)
        return cls(factor, offsets, members[0].shrinkage, members=tuple(members), steps=tuple(steps))

    def solve(self, block: RowBlock, step: Step, threads: Threads) -> Solution:
        """Solve each row with every member's own step; ``step`` is not looked at."""
        dtype, rows, share = self.factor.dtype, block.stop - block.start, 1 / len(self.members)
        solved = threads.scratch("mean solved", (rows, self.rank), dtype)
        intercepts, residual = np.zeros(rows, dtype), np.zeros(len(block.values), dtype)
        left = 0
        for member, own in zip(self.members, self.steps, strict=True):
            found: Any = member.solve(block, own, threads)
            np.multiply(found.rows, share, out=solved[:, left : left + member.rank])
            intercepts += share * found.intercepts
            residual += share * found.residual
            left += member.rank
        return Solution(solved, intercepts, residual)
