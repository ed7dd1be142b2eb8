"""What this process may use of the machine, and takes of it. Knows nothing else of the package."""

from __future__ import annotations

import ctypes
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from rfmdist.errors import InputError

MMAP_THRESHOLD, TRIM_THRESHOLD, ARENAS = -3, -1, -8
"""Numbers of the C library's settings (malloc.h)."""
OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Where Linux tells which control groups this process is in, and what those may take."""
JOB_MEMORY = {
    "SLURM_MEM_PER_NODE": "",
    "SLURM_MEM_PER_CPU": "SLURM_CPUS_ON_NODE",
    "SLURM_MEM_PER_GPU": "SLURM_GPUS_ON_NODE",
}
"""Where SLURM tells the memory that a job asked for, in MiB, and how many of what it is for."""
OWN_PAGES = 1 << 22
"""Bytes from which an array has pages of its own, which go back to the system when it goes. Those of blocks, a few
megabytes, stay in the heap: fresh pages for each block of 20 million entries took the system 0.8 s of 2.5."""


def cores() -> int:
    """Cores this process may use, which a batch system may have made fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def temporary_folder() -> Path:
    """Make the folder of this user alone among the system's temporary files (``TMPDIR``), or find it there.

    What lies in it is run and unpickled, so that nobody else may write to it, or put another in its place.

    Raises
    ------
    OSError
        If it cannot be made, or is not this user's alone.
    """
    user = os.getuid() if hasattr(os, "getuid") else None  # elsewhere temporary files are each user's own
    folder = Path(tempfile.gettempdir()) / ("rfmdist" if user is None else f"rfmdist-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found, above = folder.lstat(), folder.parent.stat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    replaceable = above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX
    if user is not None and (not ours or replaceable):
        raise PermissionError(f"{folder} is not this user's alone")
    return folder


def place_cupy() -> None:
    """Name a folder to CuPy where its own, in the user's home, cannot be made.

    It then ends with an OSError as it is imported, which Zarr and Dask do where it is installed, whatever for.
    """
    own = Path(os.path.expanduser("~/.cupy/kernel_cache"))
    if "CUPY_CACHE_DIR" in os.environ:
        return
    with suppress(OSError):
        if own.is_absolute():
            own.mkdir(parents=True, exist_ok=True)
            return
    with suppress(OSError):
        os.environ["CUPY_CACHE_DIR"] = str(temporary_folder() / "cupy")


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


def steady_memory() -> None:
    """Have the C library hand back large arrays when they go, and keep one heap for all threads, where it can.

    By itself it keeps ever larger ones: the peaks of the same fits, of 5 million entries, were 10 to 40 % higher, and
    grew from one iteration to the next. What is set stays so for this process; a second call is free.
    """
    settle = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if settle is not None:
        settle(MMAP_THRESHOLD, OWN_PAGES)
        settle(TRIM_THRESHOLD, OWN_PAGES)
        settle(ARENAS, 1)


def free_memory() -> int:
    """Bytes of memory that are free: on the machine, and in the container or batch job that this process is in."""
    return max(0, min(_left())[0])


def memory_bound() -> str:
    """Return what `free_memory` is bounded by; nothing where it is the machine itself."""
    return min(_left())[1]


def _left() -> Iterator[tuple[int, str]]:
    """Yield the bytes that are left in each way in which memory is bounded, and its name."""
    yield psutil.virtual_memory().available, ""
    for left in _left_in_groups():
        yield left, "the control group"
    yield from _left_in_job()


def _left_in_job() -> Iterator[tuple[int, str]]:
    """Yield what a batch job has left of the memory it asked SLURM for, which need not set up a control group.

    What is set by a job around this one may be told as well: the least is taken.
    """
    job = os.environ.get("SLURM_JOB_ID")
    asked = {}
    for name, times in JOB_MEMORY.items() if job else ():
        with suppress(KeyError, ValueError):  # not set
            asked[name] = (int(os.environ[name]) << 20) * (int(os.environ[times]) if times else 1)
    if any(asked.values()):
        used = sum(_resident_in_job(process, job) for process in psutil.process_iter())
        yield from ((size - used, name) for name, size in asked.items() if size)  # 0: all of the node


def _resident_in_job(process: psutil.Process, job: str | None) -> int:
    """Bytes that a process holds, if it is one of the job's; others' cannot be asked, and are not."""
    try:
        return int(process.memory_info().rss) if process.environ().get("SLURM_JOB_ID") == job else 0
    except (psutil.Error, OSError):
        return 0


def _left_in_groups() -> Iterator[int]:
    """Yield what each control group has left that limits this process."""
    for line in OWN_GROUPS.read_text().splitlines() if OWN_GROUPS.exists() else []:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, names = GROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        elif not controllers:
            root, names = GROUPS, ("memory.max", "memory.current", "")
        else:
            continue
        place = root / path.strip("/")
        for folder in (place, *place.parents):
            if folder.is_relative_to(root):
                with suppress(OSError, ValueError):  # not there, or without a limit
                    yield _left_in(folder, *names)


def _left_in(group: Path, limit: str, used: str, prefix: str) -> int:
    """Bytes that a group has left, by its files of these names; what caches files is as good as free."""
    told = dict(row.split() for row in (group / "memory.stat").read_text().splitlines())
    cached = sum(int(told.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return int((group / limit).read_text()) - int((group / used).read_text()) + cached


def resident_bytes() -> int:
    """Bytes of memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """Most bytes of memory that this process has held; what it holds now, where the system does not tell.

    Not getrusage: its peak is that of the process which started this one, where that is greater.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    told = [1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return told[0] if told else resident_bytes()


def parse_size(memory: Any) -> int:
    """Bytes of a memory budget such as ``"4GB"``.

    Raises
    ------
    InputError
        If it is no size above 0.
    """
    from dask.utils import parse_bytes

    try:
        size = int(parse_bytes(memory))
    except (ValueError, TypeError, AttributeError, OverflowError):
        size = 0
    if size <= 0 or isinstance(memory, bool):
        raise InputError(f"memory {memory!r} is not a size; write one such as 4GB or 800MB")
    return size
