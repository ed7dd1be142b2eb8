"""What this process may use of the machine. Knows nothing else of the package."""

from __future__ import annotations

import ctypes
import os

import psutil


def cores() -> int:
    """Cores this process may use, which a batch system may have made fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hand_back_memory() -> None:
    """Give freed memory back to the system, where the C library can: it would keep what the next arrays then lack."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def bytes_read() -> int:
    """Bytes that this process has read from files so far, from the disk or the system's cache; 0 if it is not told."""
    counters = getattr(psutil.Process(), "io_counters", None)
    try:
        return int(counters().read_chars) if counters is not None else 0
    except (AttributeError, psutil.Error, OSError):  # not every system counts, or lets a process ask
        return 0
