"""``python -m rfmdist``: the command line."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported ends like any other."""
    try:
        from rfmdist.cli import main as run
    except KeyboardInterrupt:
        print("rfmdist: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
