"""``python -m rfmdist``: the command line."""

from __future__ import annotations

import sys
from io import TextIOWrapper

TYPE_CHECKING = False
if TYPE_CHECKING:  # what is imported before main runs, Ctrl-C ends in a traceback
    from collections.abc import Sequence

INTERRUPTED = 130
"""Exit code of Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code, on Ctrl-C after one line, whenever it comes.

    What a verb has finished stays: a store that is in its place before Ctrl-C is there. A character that the terminal's
    encoding lacks is shown as another.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # it is None where the process was started with it closed
                stream.reconfigure(errors="replace")
        from rfmdist.cli import app

        app(args=arguments, prog_name="rfmdist")
    except KeyboardInterrupt:
        pass
    except SystemExit as end:
        if end.code != INTERRUPTED:  # with it Typer ends on Ctrl-C, and says nothing
            _flush()
            raise
    # A Ctrl-C inside of an exec() is remembered by Python, which would in the end kill itself: the next one forgets it.
    exec("")
    _die_of_the_next()
    print("rfmdist: interrupted", file=sys.stderr)
    sys.exit(INTERRUPTED)


def _flush() -> None:
    """Write out what was printed; where that fails, say so, and have Python not try again."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        import os

        from rfmdist.cli.verb import FAILED

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # whoever read has seen enough
            print(f"rfmdist: standard output cannot be written ({error.strerror})", file=sys.stderr)
        sys.exit(FAILED)


def _die_of_the_next() -> None:
    """Have a second Ctrl-C end the process at once, without a word, while threads are waited for."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
