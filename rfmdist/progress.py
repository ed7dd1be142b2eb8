"""What an iteration tells, and how it is shown. Knows no model."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rfmdist.features.augmented import Extras

if TYPE_CHECKING:
    from rfmdist.completion import Completion

STAGES = {"try": "trying", "fit": "fitting", "refit": "refitting"}


@dataclass(frozen=True)
class Iteration:
    """One iteration of a fit.

    Attributes
    ----------
    stage : {"try", "fit", "refit"}
        Short trial of a replacement weight, the fit on training entries, the fit on all but test entries.
    iteration, limit : int
        Which one, from 1, and the most there can be in this stage.
    ridge, replacement : float
        Settings of this iteration.
    rank : int
        Columns of U that are learned, or of a dense P.
    extras : Extras
        Additions to plain factored features in this stage.
    validation_rmse : float
        Error of the completion on the validation entries, in the values' units; NaN where none is scored.
    change : float
        Relative change of P.
    seconds : float
        Wall-clock time.
    completion : Completion or None
        The completed matrix at this iteration, for callbacks; None in ``history_``, which would hold every P.
    """

    stage: str
    iteration: int
    limit: int
    ridge: float
    rank: int
    replacement: float
    extras: Extras
    validation_rmse: float
    change: float
    seconds: float
    completion: Completion | None = field(default=None, repr=False, compare=False)

    @property
    def seconds_left(self) -> float:
        """Seconds until the stage's limit; it may stop earlier."""
        return (self.limit - self.iteration) * self.seconds

    def line(self) -> str:
        """One line for people."""
        error = "" if self.validation_rmse != self.validation_rmse else f"validation RMSE {self.validation_rmse:.5f}  "
        most = "about" if self.stage == "refit" else "at most"
        extras = ", ".join(f"{name} {value:g}" for name, value in self.extras._asdict().items() if value)
        return (
            f"{STAGES[self.stage]:9} {self.iteration:3d}/{self.limit}  ridge {self.ridge:<9.4g}"
            f" replacement {self.replacement:<6.4g} rank {self.rank:<4d} {error}{self.seconds:.2f} s,"
            f" {most} {self.seconds_left:.0f} s left" + (f"  ({extras})" if extras else "")
        )


def report(iteration: Iteration) -> None:
    """Print an iteration's line to standard error."""
    print(iteration.line(), file=sys.stderr, flush=True)
