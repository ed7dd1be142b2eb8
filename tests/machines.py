"""What a test asks of its machine: a test skips where the machine lacks it, but fails where all tests must run."""

from __future__ import annotations

import os
import shutil
import socket
from typing import NoReturn

import pytest

MUST_RUN = "RFMDIST_MUST_RUN"
"""Set to 1, as .ci/run does, a machine that lacks something fails the test: what never runs proves nothing."""


def need(*programs: str, packages: str) -> None:
    """Go on where all programs are found; ``packages`` tells what to install."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        lacks(f"{', '.join(missing)}: not found; install {packages}")


def need_root(why: str) -> None:
    """Go on as root alone."""
    if os.geteuid() != 0:
        lacks(f"{why} needs root")


def lacks(reason: str) -> NoReturn:
    """Skip the test, or fail it where all tests must run."""
    if os.environ.get(MUST_RUN) == "1":
        pytest.fail(f"{reason} ({MUST_RUN}=1 lets no test be skipped)")
    pytest.skip(reason)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
