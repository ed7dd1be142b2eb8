"""Temporary folders: those of processes that were killed are told from those in use by a lock, and removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO

OWNER = "owner"
"""The file that the process which made a folder has locked for as long as it lives."""
_held: set[Path] = set()
"""Folders of this process: it would be given their locks once more, and lose them."""


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Have a temporary folder known to be in use, and remove those beside it that no longer are.

    These have its name but for the last part but one, which is drawn: ``NAME.DRAWN.ENDING``.

    Where the folder cannot be made, or its file system knows no locks, nothing tells that it is in use, and nothing
    will remove it: only what once was locked and is no more is taken for left over. In the end nothing is left in the
    folder that tells, so that it may get a name that stays.
    """
    name, _, ending = folder.name.rsplit(".", 2)
    for other in folder.parent.glob(f"{escape(name)}.*.{ending}"):
        _remove_unless_in_use(other)
    file: BinaryIO | None = None
    with suppress(OSError, ImportError):
        file = _locked(folder)
    try:
        yield
    finally:
        if file is not None:
            (folder / OWNER).unlink(missing_ok=True)
            file.close()
        _held.discard(folder)


def _locked(folder: Path) -> BinaryIO:
    import fcntl  # not every system has it

    folder.mkdir(exist_ok=True)
    unlocked = folder / f"{OWNER}.new"
    file = unlocked.open("wb")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's these locks hold across NFS
        os.replace(unlocked, folder / OWNER)
    except OSError:
        file.close()
        unlocked.unlink(missing_ok=True)
        raise
    _held.add(folder)
    return file


def _remove_unless_in_use(folder: Path) -> None:
    if folder in _held:
        return
    with suppress(OSError, ImportError), (folder / OWNER).open("r+b") as file:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
