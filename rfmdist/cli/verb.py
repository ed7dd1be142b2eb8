"""What all verbs of the command line share: Python's defaults in the help, errors of one sentence, exit codes."""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from operator import attrgetter
from typing import Any

import typer
from typer.core import TyperCommand

PYTHON = {
    "ingest": "rfmdist.observations.ingest:ingest",
    "split": "rfmdist.observations.split:split",
    "plan": "rfmdist.lin_rfm:LinRFM",
    "fit": "rfmdist.lin_rfm:LinRFM",
    "score": "rfmdist.completion:Completion.score",
    "predict": "rfmdist.completion:Completion.predict",
    "recommend": "rfmdist.completion:Completion.recommend",
    "similar": "rfmdist.completion:Completion.similar",
}
"""Where the defaults of a verb's options are."""
RENAMED = {("fit", "seed"): "random_state"}
FAILED = 2
"""Exit code of what cannot be done as asked."""


class Verb(TyperCommand):
    """A verb whose help shows Python's defaults and whose errors are one sentence each."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        defaults = _python_defaults(str(self.name))
        for option in self.params:
            name = RENAMED.get((str(self.name), str(option.name)), option.name)
            if option.default is None and defaults.get(str(name)) not in (None, ()):
                option.default = defaults[str(name)]
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        from rfmdist.errors import RfmdistError

        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except RfmdistError as error:
            _end(str(error))
        except MemoryError as error:
            _end(f"the memory is not enough ({error}); free some or use a larger machine")


def _python_defaults(verb: str) -> dict[str, Any]:
    """Defaults of the Python function behind a verb."""
    if verb not in PYTHON:
        return {}
    module, _, name = PYTHON[verb].partition(":")
    parameters = inspect.signature(attrgetter(name)(importlib.import_module(module))).parameters
    return {k: p.default for k, p in parameters.items() if p.default is not p.empty}


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"rfmdist: {message}", file=sys.stderr, flush=True)


def _end(sentence: str) -> None:
    print(f"rfmdist: {sentence}", file=sys.stderr)
    raise typer.Exit(FAILED)
