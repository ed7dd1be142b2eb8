"""What is compiled is kept where that is safe and possible, and compiled anew where it is not; never an error."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from numba.core.caching import IndexDataCacheFile

from rfmdist import compiling
from rfmdist.compiling import compilations

DOUBLED = """
from rfmdist.compiling import kernel

@kernel
def doubled(number):
    return 2 * number
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that numba is told to keep what it compiles in; nothing has been said yet in this process."""
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(compiling, "_told", False)
    return tmp_path / "kept"


def doubled(folder: Path) -> Any:
    """Give a kernel as a process that begins would find it."""
    (folder / "doubled.py").write_text(DOUBLED)
    spec = importlib.util.spec_from_file_location("doubled", folder / "doubled.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.doubled


def compiled_for(folder: Path) -> int:
    """Call the kernel and give how many functions were compiled for that."""
    with compilations() as counted:
        assert doubled(folder)(21) == 42
    return counted.number


def test_the_next_process_finds_what_was_compiled(place: Path, tmp_path: Path) -> None:
    """What one has compiled another loads."""
    assert compiled_for(tmp_path) > 0
    assert list(place.rglob("*.nbc"))
    assert compiled_for(tmp_path) == 0


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_a_torn_file_is_made_anew(place: Path, tmp_path: Path, kind: str) -> None:
    """A file that a full disk or a crash has cut short costs the time to compile once more, and is then whole."""
    compiled_for(tmp_path)
    (torn,) = place.rglob(f"*.{kind}")
    torn.write_bytes(torn.read_bytes()[:30])
    assert compiled_for(tmp_path) > 0
    assert compiled_for(tmp_path) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_is_told_once(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The kernel runs all the same."""

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(IndexDataCacheFile, "_save_data", refuse)
    with pytest.warns(UserWarning, match=os.strerror(number)):
        compiled_for(tmp_path)
    compiled_for(tmp_path)  # a second warning would be an error
    assert not list(place.rglob("*.nbc"))


def test_without_any_folder_it_is_compiled_anew(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where numba finds no folder it would refuse to compile; here each process does."""
    monkeypatch.setattr(compiling._Places, "_locator_classes", [])
    with pytest.warns(UserWarning, match="no folder can be written to for compiled kernels"):
        assert compiled_for(tmp_path) > 0
    assert compiled_for(tmp_path) > 0


def test_temporary_files_are_the_last_resort(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept in a folder of this user's alone, where the next process finds them without a word."""
    monkeypatch.setattr(compiling._Places, "_locator_classes", [compiling._TemporaryLocator])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.warns(UserWarning, match="kept among temporary files"):
        assert compiled_for(tmp_path) > 0
    (folder,) = tmp_path.glob("rfmdist-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert compiled_for(tmp_path) == 0
