"""Opening the groups and arrays of a store: whatever Zarr, its codecs or the system raise is told in one sentence.

The root lists the parts that a store need not have, so that a lost one is not taken for one that never was. A part is
listed once it is there and struck off before it goes: what is cut short between the two leaves a sound store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zarr

from rfmdist.errors import RfmdistError, StoreError, disk_error
from rfmdist.observations.files import has, in_place, remove
from rfmdist.observations.layout import mend_of
from rfmdist.observations.places import Place, opened

ROOT = "rfmdist"
"""Attribute of the root that makes it a store of ours: its format and `PARTS`."""
PARTS = "parts"
"""Paths of what a store has and need not have; absent in stores of earlier versions."""


@contextmanager
def noticing(store: str, part: str, where: str = "") -> Iterator[None]:
    """Tell what is raised while ``part`` of a store is read, each library having errors of its own.

    Raises
    ------
    StoreError
        For whatever was raised inside, save what says so itself and a lack of memory.
    """
    try:
        yield
    except (RfmdistError, MemoryError):
        raise
    except (KeyError, FileNotFoundError):
        raise _gone(store, part) from None
    except Exception as error:
        raise StoreError(f"{store}: {part} is damaged{where} ({first_line(error)}); {mend_of(part)}") from None


@contextmanager
def writing(store: str) -> Iterator[None]:
    """Tell in one sentence why a store could not be written.

    Raises
    ------
    StoreError
        For every OSError inside.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(error, store) from None


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# ---- groups and arrays ----------------------------------------------------------------------------------


def open_root(place: Place | None) -> zarr.Group:
    """Open what lies at a place. Metadata that other programs gathered in the root is not used: it may be old."""
    return _opened(opened(place))


def reopened(root: zarr.Group) -> zarr.Group:
    """The same root as it is now: another process, or another object here, may have changed its attributes."""
    return _opened(root.store)


def find_node(group: zarr.Group, name: str, store: str) -> Any:
    """Return a member of a group, None where there is none."""
    with noticing(store, path_of(group, name)):
        return group.get(name)


def open_array(group: zarr.Group, name: str, store: str) -> zarr.Array[Any]:
    """Return an array that must be there."""
    with noticing(store, path_of(group, name)):
        found = group[name]
        if not isinstance(found, zarr.Array):
            raise TypeError("it is no array")
        return found


def open_group(group: zarr.Group, name: str, store: str) -> zarr.Group:
    """Return a group that must be there."""
    with noticing(store, path_of(group, name)):
        found = group[name]
        if not isinstance(found, zarr.Group):
            raise TypeError("it is no group")
        return found


def path_of(group: zarr.Group, name: str) -> str:
    """Path of a member, from the root of the store."""
    return f"{group.path}/{name}".lstrip("/")


# ---- parts that a store need not have --------------------------------------------------------------------


def told_of(root: zarr.Group) -> dict[str, Any]:
    """What the root tells of the store; empty of one that is not ours."""
    told: Any = root.attrs.get(ROOT)
    return told if isinstance(told, dict) else {}


def find_part(root: zarr.Group, path: str, store: str) -> Any:
    """Return a part that a store need not have, None where there is none.

    Raises
    ------
    StoreError
        If it is damaged, or gone though it is listed.
    """
    found = find_node(root, path, store)
    if found is None:
        refuse_lost(root, path, store)
    return found


def refuse_lost(root: zarr.Group, path: str, store: str) -> None:
    """Refuse a store that lists a part, found to be absent.

    Raises
    ------
    StoreError
    """
    if path in told_of(root).get(PARTS, []):
        with noticing(store, "zarr.json"):
            now = reopened(root)  # another process may have removed it
        if path in told_of(now).get(PARTS, []):
            raise _gone(store, path)


@contextmanager
def in_place_listed(root: zarr.Group, group: zarr.Group, name: str, store: str) -> Iterator[str]:
    """Yield a temporary name for a part, as `in_place`; it is listed, or else not there."""
    path = path_of(group, name)
    there = has(group, name)
    with in_place(group, name, store) as temporary:
        yield temporary
        if there:
            list_part(root, path)
    if not there:
        try:
            list_part(root, path)
        except BaseException:
            remove(group, name)
            raise


def list_part(root: zarr.Group, path: str) -> None:
    """Tell in the root that a part is there."""
    now = reopened(root)
    parts = told_of(now).get(PARTS, [])
    if path not in parts:
        now.attrs[ROOT] = told_of(now) | {PARTS: [*parts, path]}


def unlist_part(root: zarr.Group, path: str) -> None:
    """Tell in the root that a part is not, or no longer, there."""
    now = reopened(root)
    parts = told_of(now).get(PARTS, [])
    if path in parts:
        now.attrs[ROOT] = told_of(now) | {PARTS: [part for part in parts if part != path]}


def _opened(store: Any) -> zarr.Group:
    return zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)


def _gone(store: str, part: str) -> StoreError:
    return StoreError(f"{store}: {part} is gone; {mend_of(part)}")
