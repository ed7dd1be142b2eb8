"""Temporary folders: those of processes that were killed are told from those in use by a lock, and removed."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from threading import Lock
from typing import BinaryIO

OWNER = "owner"
"""The file that the process which made a folder has locked for as long as it lives; it names its host."""
FOREIGN_SECONDS = 7 * 86400
"""Age of a folder of another host from which its lock is believed to be gone: some file systems that hosts share keep
locks to each host, and tell nobody."""
_held: set[tuple[int, int]] = set()
"""Device and number of the owners of this process: it would be given their locks once more, and lose them."""
_lock = Lock()


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Have a temporary folder known to be in use, and remove those beside it that no longer are.

    These have its name but for the last part but one, which is drawn: ``NAME.DRAWN.ENDING``.

    Where the folder cannot be made, or its file system knows no locks, nothing tells that it is in use, and nothing
    will remove it: only what once was locked and is no more is taken for left over. In the end nothing is left in the
    folder that tells, so that it may get a name that stays.
    """
    name, _, ending = folder.name.rsplit(".", 2)
    file: BinaryIO | None = None
    with _lock:
        for other in folder.parent.glob(f"{escape(name)}.*.{ending}"):
            _remove_unless_in_use(other)
        with suppress(OSError, ImportError):
            file = _locked(folder)
    try:
        yield
    finally:
        if file is not None:
            with _lock, file:  # its file goes before the lock: who opened it meanwhile sees that it is another's
                with suppress(OSError):
                    (folder / OWNER).unlink()
                _held.discard(_identity(os.fstat(file.fileno())))


def _locked(folder: Path) -> BinaryIO:
    folder.mkdir(exist_ok=True)
    import fcntl  # not every system has it

    unlocked = folder / f"{OWNER}.new"
    file = unlocked.open("wb")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's these locks hold across NFS
        file.write(socket.gethostname().encode())
        file.flush()
        os.replace(unlocked, folder / OWNER)
    except OSError:
        file.close()
        unlocked.unlink(missing_ok=True)
        raise
    _held.add(_identity(os.fstat(file.fileno())))
    return file


def _remove_unless_in_use(folder: Path) -> None:
    owner = folder / OWNER
    with suppress(OSError, ImportError):
        if _identity(os.stat(owner)) in _held:  # not even opened: closing it would give up the lock
            return
        with owner.open("r+b") as file:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            opened = os.fstat(file.fileno())
            foreign = file.read() != socket.gethostname().encode()
            if _identity(os.stat(owner)) != _identity(opened):
                return
            if foreign and time.time() - opened.st_mtime < FOREIGN_SECONDS:
                return
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path != owner:
                    path.unlink(missing_ok=True)
            owner.unlink()
        folder.rmdir()  # after the file is closed: NFS keeps open ones under another name


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
