"""What the command line shows: facts on standard output, progress on standard error. Knows no verb.

Results alone go to standard output, so that ``--json`` can be piped; progress is a live bar on a terminal and
plain lines elsewhere.
"""

from __future__ import annotations

import json
import math
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from rfmdist.progress import STAGES, Iteration

if TYPE_CHECKING:
    import pandas as pd

TENTHS = 10
"""Plain lines of progress a stage of ingestion prints."""


def show(facts: dict[str, Any], as_json: bool) -> None:
    """Print facts on standard output: one JSON object, or a line each with aligned values."""
    if as_json:
        print(json.dumps(_plain(facts)))
        return
    lines = [(name.replace("_", " "), _words(name, value)) for name, value in facts.items()]
    width = max(len(name) for name, _ in lines)
    for name, words in lines:
        print(f"{name:{width}}  {words}")


def show_table(name: str, frame: pd.DataFrame, as_json: bool, **facts: Any) -> None:
    """Print a small table on standard output: aligned columns, or a JSON object of its rows by ``name``, and facts."""
    if as_json:
        print(json.dumps({name: frame.to_dict(orient="records")} | facts))
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


class Bars:
    """Bars on standard error while it is a terminal; `said` prints plain lines elsewhere. A context manager."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self.live = console.is_terminal
        columns = [
            TextColumn("{task.description:10}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}  {task.fields[note]}"),
        ]
        self._progress = Progress(*columns, console=console, disable=not self.live)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, description: str, total: int) -> None:
        """Start a new bar below the earlier ones."""
        self._task = self._progress.add_task(description, total=max(total, 1), note="")

    def move(self, done: int, note: str = "") -> None:
        """Move the latest bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, note=note)

    def told(self, line: str) -> None:
        """Print a line that the bars do not tell."""
        if self.live:
            self._progress.console.print(line, highlight=False)
        self.said(line)

    def said(self, line: str) -> None:
        """Print a line, unless the bars tell the same."""
        if not self.live:
            print(line, file=sys.stderr, flush=True)


class FitProgress(Bars):
    """Shows a fit as a callback of it: a foreword once, then iteration, validation RMSE and seconds left."""

    foreword = ""

    def __call__(self, iteration: Iteration) -> None:
        if self.foreword:
            self.said(self.foreword)
            self.foreword = ""
        if iteration.iteration == 1:
            self.begin(STAGES[iteration.stage], iteration.limit)
        error = iteration.validation_rmse
        scored = "" if math.isnan(error) else f"validation RMSE {error:.5f}  "
        most = "about" if iteration.stage == "refit" else "at most"
        self.move(iteration.iteration, f"{scored}{most} {iteration.seconds_left:.0f} s left")
        self.said(iteration.line())


class IngestProgress(Bars):
    """Shows an ingestion as its ``progress``: inputs read, then entries written."""

    def __init__(self) -> None:
        super().__init__()
        self._said: tuple[str, int] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._said is None or self._said[0] != stage:
            self.begin(stage, total)
        self.move(done)
        step = (stage, done * TENTHS // max(total, 1))
        if step != self._said:
            what = "inputs" if stage == "reading" else "entries"
            self.said(f"{stage} {done:,}/{total:,} {what}")
        self._said = step


def _plain(value: Any) -> Any:
    """The same as plain JSON: no NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _words(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{inner.replace('_', ' ')} {_words(inner, v)}" for inner, v in value.items())
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return _size(value) if name.endswith("bytes") else f"{value:,}"
    if isinstance(value, list | tuple):
        between = " to " if name in ("range", "clip") else ", "
        return between.join(_words(name, inner) for inner in value)
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _size(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"
