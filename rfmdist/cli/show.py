"""What the command line shows: facts on standard output, progress on standard error. Knows no verb.

Results alone go to standard output, so that ``--json`` can be piped; progress is a live bar on a terminal and
plain lines elsewhere.
"""

from __future__ import annotations

import json
import math
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from rfmdist.progress import STAGES, Iteration

if TYPE_CHECKING:
    import pandas as pd

TENTHS = 10
"""Plain lines of progress a stage of ingestion prints."""
BAR = 10
"""Characters of a bar: on 80 columns all of what is told behind it has room."""
NOTHING = "-"
"""In place of a figure that there is not."""
UNITS = {
    "flops per second": "flops/s",
    "bytes per second": "B/s",
    "flops per iteration": "flops",
    "flops": "flops",
    "bytes": "B",
    "seconds per iteration": "s",
    "seconds": "s",
    "density": "%",
}
"""Units of figures, by how their names end."""


def show(facts: dict[str, Any], as_json: bool) -> None:
    """Print facts on standard output: one JSON object, or a line each with aligned values."""
    if as_json:
        print(json.dumps(_plain(facts), allow_nan=False))
        return
    lines = [(name.replace("_", " "), _words(name, value)) for name, value in facts.items()]
    width = max(len(name) for name, _ in lines)
    for name, words in lines:
        print(f"{name:{width}}  {words}")


def show_table(name: str, frame: pd.DataFrame, as_json: bool, **facts: Any) -> None:
    """Print a small table on standard output: aligned columns, or a JSON object of its rows by ``name``, and facts."""
    if as_json:
        print(json.dumps(_plain({name: frame.to_dict(orient="records")} | facts), allow_nan=False))
    elif len(frame):
        print(frame.to_string(index=False, float_format="{:.4f}".format))
    else:
        print("none found")


def tell_cold(count: int, asked: int, what: str, unknown: str = "offsets") -> None:
    """Print on standard error how many were cold and what became of them, if any were."""
    if count:
        became = {"offsets": "they get what is known without these", "nan": "they get no prediction"}
        told = became.get(unknown, "they are left out")
        print(f"{count:,} of {asked:,} {what} have ids that were not seen in fitting; {told}", file=sys.stderr)


class _Note(ProgressColumn):
    """What is told behind a bar, cut to the room that is left."""

    def get_table_column(self) -> Column:
        return Column(overflow="ellipsis")  # the one that gives way where the terminal is narrow

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


class Bars:
    """One bar on standard error while it is a terminal, below a line for each stage that has ended.

    Elsewhere `said` prints plain lines. A context manager.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self.live = self._console.is_terminal and not self._console.is_dumb_terminal
        columns = [
            TextColumn("{task.description}"),
            BarColumn(BAR),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        ]
        self._progress = Progress(*columns, _Note(), console=self._console, disable=not self.live, transient=True)
        self._task = self._progress.add_task("", visible=False, note="")
        self._began = time.perf_counter()
        self._stage, self._stage_began, self._ended = "", self._began, ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.end()
        self._progress.stop()

    def begin(self, stage: str, total: int) -> None:
        """Begin the bar anew; a stage before that was another is told in a line."""
        if stage != self._stage:
            self.end()
            self._stage, self._stage_began = stage, time.perf_counter()
        self._progress.reset(self._task, total=max(total, 1), description=stage, visible=True, note="")

    def move(self, done: int, note: str, ended: str) -> None:
        """Move the bar; ``ended`` is what the stage's line would tell if it ended here."""
        self._ended = ended
        self._progress.update(self._task, completed=done, note=f"{note}  {self.elapsed:.0f} s in all".lstrip())

    def end(self) -> None:
        """Tell what the stage came to, if there is one."""
        if self.live and self._ended:
            seconds = time.perf_counter() - self._stage_began
            line = f"{self._stage}: {self._ended}, {seconds:.1f} s"
            self._console.print(line, highlight=False, markup=False, no_wrap=True, overflow="ellipsis")
        self._ended = ""

    @property
    def elapsed(self) -> float:
        """Seconds since the first stage could begin."""
        return time.perf_counter() - self._began

    def told(self, line: str) -> None:
        """Print a line that the bars do not tell."""
        if self.live:
            self._console.print(line, highlight=False, markup=False)
        self.said(line)

    def said(self, line: str) -> None:
        """Print a line, unless the bars tell the same."""
        if not self.live:
            print(line, file=sys.stderr, flush=True)


class FitProgress(Bars):
    """Shows a fit as a callback of it: a foreword once, then iteration, validation RMSE and seconds left."""

    foreword = ""

    def __init__(self) -> None:
        super().__init__()
        self._best, self._iterations = math.inf, 0

    def __call__(self, iteration: Iteration) -> None:
        if self.foreword:
            self.said(self.foreword)
            self.foreword = ""
        if STAGES[iteration.stage] != self._stage:
            self._best, self._iterations = math.inf, 0
        if iteration.iteration == 1 or STAGES[iteration.stage] != self._stage:
            self.begin(STAGES[iteration.stage], iteration.limit)
        error, self._iterations = iteration.validation_rmse, self._iterations + 1
        if error < self._best:
            self._best = error
        scored = "" if math.isnan(error) else f"  RMSE {error:.5f}"
        reached = f", validation RMSE {self._best:.5f}" if math.isfinite(self._best) else ""
        plural = "s" if self._iterations > 1 else ""
        most = "about" if iteration.stage == "refit" else "at most"
        note = f"{most} {iteration.seconds_left:,.0f} s left{scored}"
        self.move(iteration.iteration, note, f"{self._iterations} iteration{plural}{reached}")
        self.said(iteration.line())


class IngestProgress(Bars):
    """Shows an ingestion as its ``progress``: inputs read, then entries written."""

    def __init__(self) -> None:
        super().__init__()
        self._step: tuple[str, int] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        what = "inputs" if stage == "reading" else "entries"
        if stage != self._stage:
            self.begin(stage, total)
        self.move(done, what, f"{total:,} {what}")
        step = (stage, done * TENTHS // max(total, 1))
        if step != self._step:
            self.said(f"{stage} {done:,}/{total:,} {what}")
        self._step = step


def _plain(value: Any) -> Any:
    """The same as plain JSON: no NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _words(name: str, value: Any) -> str:
    """A value in words, its figures with the unit that its name tells; a dash where there is nothing to tell."""
    if isinstance(value, dict):
        return ", ".join(f"{inner.replace('_', ' ')} {_words(inner, v)}" for inner, v in value.items())
    if isinstance(value, float) and not math.isfinite(value):
        return NOTHING
    if value is None:
        return NOTHING if _unit(name) else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        between = " to " if name in ("range", "clip") else ", "
        return between.join(_words(name, inner) for inner in value)
    if isinstance(value, int | float):
        return _figure(value, _unit(name))
    return str(value)


def _unit(name: str) -> str:
    """The unit of a figure of this name; none of what is counted, which the name tells, and of what has none."""
    words = name.replace("_", " ")
    return next((unit for ending, unit in UNITS.items() if words.endswith(ending)), "")


def _figure(value: float, unit: str) -> str:
    if unit.startswith("B"):
        for prefix in ("", "k", "M", "G"):
            if value < 1000:
                return f"{value:.3g} {prefix}{unit}"
            value /= 1000
        return f"{value:,.3g} T{unit}"
    if unit == "%":
        return f"{100 * value:.3g} %"
    if unit:
        return f"{value:,.0f} {unit}" if unit == "s" and value >= 100 else f"{value:.3g} {unit}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
