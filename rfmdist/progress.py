"""What an iteration tells, and how it is shown. Knows no model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rfmdist.features.augmented import Extras

if TYPE_CHECKING:
    from rfmdist.completion import Completion

STAGES = {"try": "trying", "fit": "fitting", "refit": "refitting", "search": "searching", "finish": "finishing"}


@dataclass(frozen=True)
class Iteration:
    """One iteration of a fit.

    Attributes
    ----------
    stage : {"try", "fit", "refit", "search", "finish"}
        Trial of some settings, the fit on training entries, the fit on all but test entries; of an exact recovery the
        search for the rank, and the finish at one, of which a record is a step.
    iteration, limit : int
        Which one, from 1, and the most there can be in this stage; of a finish the passes over the rows.
    ridge, replacement : float
        Settings of this iteration.
    rank : int
        Columns of U that are learned, or of a dense P.
    extras : Extras
        Additions to plain factored features in this stage.
    validation_rmse : float
        Error of the completion on the validation entries, in the values' units; NaN where none is scored.
    change : float
        Relative change of P; of a finish the root of the share of the values' squares that is not fitted yet.
    seconds : float
        Wall-clock time.
    moved_bytes, read_bytes : int
        What the workers of a cluster sent, as Dask counts it, and was sent to them; and what was read from files, be it
        from the disk or the system's cache.
    completion : Completion or None
        The completed matrix at this iteration, for callbacks; None in ``history_``, which would hold every P. Of a
        recovery by components that of the one at hand, with the ids of its rows and columns.
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
    moved_bytes: int = field(default=0, compare=False)
    read_bytes: int = field(default=0, compare=False)

    @property
    def seconds_left(self) -> float:
        """Seconds until the stage's limit; it may stop earlier."""
        return (self.limit - self.iteration) * self.seconds

    def line(self) -> str:
        """One line for people."""
        error = "" if self.validation_rmse != self.validation_rmse else f"validation RMSE {self.validation_rmse:.5f}  "
        most = "about" if self.stage == "refit" else "at most"
        unfitted = f"unfitted {self.change:.1e}  " if self.stage == "finish" else ""
        extras = ", ".join(f"{name} {value:g}" for name, value in self.extras._asdict().items() if value)
        return (
            f"{STAGES[self.stage]:9} {self.iteration:3d}/{self.limit}  ridge {self.ridge:<9.4g}"
            f" replacement {self.replacement:<6.4g} rank {self.rank:<4d} {error}{unfitted}{self.seconds:.2f} s,"
            f" {most} {self.seconds_left:.0f} s left" + (f"  ({extras})" if extras else "")
        )


def tell(history: list[Iteration], callbacks: Iterable[Callable[[Iteration], bool | None]], record: Iteration) -> bool:
    """Keep a record without its completion, and show it to all callbacks; whether one wants the stage to end."""
    history.append(replace(record, completion=None))
    answers = [callback(record) for callback in callbacks]  # all of them are shown it
    return any(answers)


def report(iteration: Iteration) -> None:
    """Print an iteration's line to standard error."""
    print(iteration.line(), file=sys.stderr, flush=True)
