"""Faults at named moments: a disk that fills when a part of a store is written, a file that is damaged."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from zarr.storage import LocalStore


def fill_disk_at(monkeypatch: pytest.MonkeyPatch, part: str) -> list[str]:
    """Make every write of a key with ``part`` in it fail as on a full disk; return the keys refused."""
    refused: list[str] = []
    write = LocalStore.set

    async def guarded(self: LocalStore, key: str, value: Any) -> None:
        if part in str(self.root / key):
            refused.append(key)
            raise OSError(errno.ENOSPC, "No space left on device")
        await write(self, key, value)

    monkeypatch.setattr(LocalStore, "set", guarded)
    return refused


@contextlib.contextmanager
def tiny_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of ``size`` at ``folder``, or skip the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def flip_byte(file: Path, at: float = 0.3) -> None:
    """Change one bit of a file, at a fraction of its length."""
    data = bytearray(file.read_bytes())
    data[int(len(data) * at)] ^= 16
    file.write_bytes(data)


def shards(store: Path, array: str) -> list[Path]:
    """Files that hold the data of an array of a store."""
    return sorted(path for path in (store / array / "c").rglob("*") if path.is_file())


def snapshot(folder: Path) -> dict[str, str]:
    """All files below a folder and what they hold, to tell whether anything changed."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
