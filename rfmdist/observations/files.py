"""Putting finished folders in their place, so that nothing stored is lost on the way. Knows no contents."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from rfmdist.errors import InputError, StoreError, UnreachableError, disk_error
from rfmdist.observations.leftovers import in_use
from rfmdist.observations.places import DOCUMENT, Place, UrlStore, beside, exists, move, read_text, remove_at

REPLACED = "replaced"
"""Attribute of a group at a URL: which of its members is being replaced, and so may be lost when that is cut short."""


def check_destination(path: Place | None, *, overwrite: bool) -> None:
    """Refuse a place that is taken, unless by a store that may be overwritten.

    Raises
    ------
    InputError
        If ``path`` exists and may not be replaced.
    """
    if path is None or not exists(path):
        return
    if not overwrite:
        raise InputError(f"{path}: exists already; name another store or allow it to be overwritten")
    if not is_store(path):
        raise InputError(f"{path}: is not a store, so it will not be overwritten; name another store")


def check_store(path: Place) -> None:
    """Refuse to open a place where no store lies, and name the way from what lies there to one.

    Raises
    ------
    StoreError
        If there is nothing, a file, or a folder that holds neither a group nor an array.
    """
    if not exists(path):
        raise StoreError(f"{path}: no such store; make one with 'rfmdist ingest'")
    if not isinstance(path, Path):
        return
    if path.suffix == ".zip":
        raise StoreError(f"{path}: is a zip file, not a store; unpack it first")
    if not path.is_dir():
        name = path.name.partition(".")[0] or "new"
        raise StoreError(f"{path}: is a file, not a store; ingest it first: rfmdist ingest {path} -o {name}.zarr")
    if (path / ".zgroup").exists() and not (path / DOCUMENT).exists():
        raise StoreError(
            f"{path}: is of Zarr's format 2, which other programs write; make a store of its X with"
            " Observations.from_scipy"
        )
    if not (path / DOCUMENT).exists():
        raise StoreError(f"{path}: is a folder, not a store; make one of the tables in it with 'rfmdist ingest'")


def check_table(path: Path) -> None:
    """Refuse to read a table where something else lies, and name the way from that to a table.

    Raises
    ------
    InputError
        If there is nothing, a store, a zip file or AnnData's HDF5.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if is_store(path):
        raise InputError(f"{path}: is a store, not a table; name a file")
    if path.suffix == ".zip":
        raise InputError(f"{path}: is a zip file; unpack it first")
    if path.suffix in (".h5ad", ".h5"):
        raise InputError(
            f"{path}: is HDF5, not a table; read it with anndata and give its X to Observations.from_scipy"
        )


def is_store(path: Place) -> bool:
    """Whether a folder is a store that rfmdist has written, of whatever version, sound or not."""
    try:
        document = json.loads(read_text(path, DOCUMENT))
        return "rfmdist" in document["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def replace_folder(new: Path, path: Path) -> None:
    """Put the folder ``new`` at ``path``; what was there goes only when the new one is in place."""
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    try:
        if path.exists():
            path.rename(old)
        new.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)


def replace_store(new: str, url: str) -> None:
    """Put the store at the URL ``new`` at ``url``; what was there goes.

    Raises
    ------
    StoreError
        If that fails; it tells where the new store lies, which is then all there is.
    """
    try:
        move(new, url)
    except UnreachableError as error:
        raise StoreError(f"{error}; the new store lies whole at {new} until it is removed by hand") from None


def rename(group: zarr.Group, old: str, new: str) -> None:
    """Give an array, or a group of arrays, its final name, in place of an earlier one of that name."""
    store, folder = group.store, _folder(group)
    if folder is not None:
        replace_folder(folder / old, folder / new)
        return
    if isinstance(store, UrlStore):
        if has(group, new):
            group.attrs[REPLACED] = new
        move(f"{store.url}/{group.path}/{old}", f"{store.url}/{group.path}/{new}")
        if group.attrs.get(REPLACED) == new:
            del group.attrs[REPLACED]
        return
    if has(group, new):
        del group[new]
    sync(_copy(store, f"{group.path}/{old}", f"{group.path}/{new}"))
    del group[old]


def has(group: zarr.Group, name: str) -> bool:
    """Whether a group has a member, sound or not."""
    return bool(sync(group.store.exists(f"{group.path}/{name}/{DOCUMENT}")))


def remove(group: zarr.Group, name: str) -> None:
    """Remove an array or a group, if it is there, sound or not; half of it never bears its name."""
    if not has(group, name):
        return
    if isinstance(group.store, LocalStore):
        rename(group, name, temporary := f"{name}.partial")
        name = temporary
    if isinstance(group.store, UrlStore):
        remove_at(f"{group.store.url}/{group.path}/{name}")
        return
    del group[name]


def is_torn(group: zarr.Group, name: str) -> bool:
    """Whether a member was being replaced when that was cut short: then neither the old nor the new is there."""
    return group.attrs.get(REPLACED) == name


@contextmanager
def in_place(group: zarr.Group, name: str, store: str) -> Iterator[str]:
    """Yield a temporary name; what is written under it in ``group`` becomes ``name`` when the block ends well.

    Otherwise it is removed and what was at ``name`` stays; ``store`` is named if the disk failed. The temporary
    name is like no other: several processes may write the same at once, and the last one's stays. On a disk, what
    killed processes left half written goes. At a URL, where nothing can be renamed, what was at ``name`` is gone while
    the new is copied there (see `is_torn`).
    """
    temporary = f"{name}.{uuid.uuid4().hex[:8]}.partial"
    place = _folder(group)
    folder = None if place is None else place / temporary
    try:
        with nullcontext() if folder is None else in_use(folder):
            yield temporary
        rename(group, temporary, name)
    except BaseException as error:
        settle_writes()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        elif has(group, temporary):
            del group[temporary]
        if isinstance(error, OSError):
            raise disk_error(error, store) from None
        raise


@contextmanager
def appearing(path: Place) -> Iterator[Store]:
    """Yield a new store for Zarr whose contents are put at ``path`` when the block ends well; else they are removed.

    It is a hidden name beside ``path``; at a URL the server copies it there in the end. What is at ``path`` goes only
    then. On a disk, what killed processes left half written goes.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    path = path.resolve() if isinstance(path, Path) else path
    temporary = beside(path, "partial")
    try:
        if isinstance(temporary, Path):
            temporary.parent.mkdir(parents=True, exist_ok=True)
        with in_use(temporary) if isinstance(temporary, Path) else nullcontext():
            yield LocalStore(temporary) if isinstance(temporary, Path) else UrlStore(temporary)
        if isinstance(temporary, Path) and isinstance(path, Path):
            replace_folder(temporary, path)
    except BaseException as error:
        settle_writes()
        if isinstance(temporary, Path):
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(UnreachableError):  # what failed first is told
                remove_at(temporary)
        if isinstance(error, OSError):
            raise disk_error(error, str(path)) from None
        raise
    if isinstance(path, str):
        replace_store(str(temporary), path)


def spill_folder(group: zarr.Group) -> Path:
    """Return a new name for a folder of this machine for files on the way into ``group``.

    It lies within a group that is being written on a disk, so that it goes with it, and is on a disk with room for
    as much. For a URL it lies in the system's folder for temporary files (``TMPDIR``).
    """
    name = f".rfmdist-{uuid.uuid4().hex[:8]}.spill"
    return (_folder(group) or Path(tempfile.gettempdir())) / name


def settle_writes() -> None:
    """Wait for writes that still go on after one has failed.

    Zarr starts several at once and gives up on the first error; a late one would make a removed folder again.
    """

    async def others() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=10)

    sync(others())


def _folder(group: zarr.Group) -> Path | None:
    """Where a group lies on a disk; None elsewhere."""
    return Path(group.store.root) / group.path if isinstance(group.store, LocalStore) else None


async def _copy(store: Store, old: str, new: str) -> None:
    """Write all that lies below ``old`` once more below ``new``, byte for byte."""
    for key in [key async for key in store.list_prefix(f"{old}/")]:
        found = await store.get(key, default_buffer_prototype())
        assert found is not None
        await store.set(new + key.removeprefix(old), found)
