"""``python -m rfmdist``: the command line."""

from rfmdist.cli import main

main()
