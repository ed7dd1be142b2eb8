"""What tests that need more than Python share: programs to ask for, and stores written elsewhere to compare.

A test skips where its machine lacks something, but fails where all tests must run.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import zarr

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


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Ask again and again; tell whether the answer was yes in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.2)
    return False


def assert_same_bits(one: Path, other: Path) -> None:
    """Hold two stores to be the same arrays."""
    mine, theirs = _arrays(one), _arrays(other)
    assert mine.keys() == theirs.keys()
    for name, values in mine.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name, strict=True)


def as_options(settings: dict[str, Any]) -> list[str]:
    """Settings as the command line takes them."""
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def _arrays(store: Path) -> dict[str, Any]:
    members = zarr.open_group(store, mode="r").members(max_depth=None)
    return {name: member[...] for name, member in members if isinstance(member, zarr.Array)}
