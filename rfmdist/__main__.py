"""``python -m rfmdist``: the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

INTERRUPTED = 130
"""Exit code of Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code, on Ctrl-C after one line, whenever it comes.

    What a verb has finished stays: a store that is in its place before Ctrl-C is there.
    """
    try:
        from rfmdist.cli import app

        app(args=arguments, prog_name="rfmdist")
    except KeyboardInterrupt:
        pass
    except SystemExit as end:
        if end.code != INTERRUPTED:  # with it Typer ends on Ctrl-C, and says nothing
            raise
    # A Ctrl-C inside of an exec() is remembered by Python, which would in the end kill itself: the next one forgets it.
    exec("")
    print("rfmdist: interrupted", file=sys.stderr)
    sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
