"""Where stores lie: paths of this machine, and URLs that fsspec opens. Knows drivers and names, not contents."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeAlias

import fsspec
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from rfmdist.errors import InputError, StoreError, UnreachableError
from rfmdist.observations.digests import check_digest, with_digest
from rfmdist.observations.layout import mend_of

Place: TypeAlias = Path | str
"""A path, or as text the URL of what is no path of this machine."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "abfs", "abfss": "abfs", "az": "abfs"}
"""What is to be installed for URLs that begin so."""
FROM_THE_START = {"abfs", "abfss", "az"}
"""URLs whose driver cannot count from a file's end, where a shard's index lies: adlfs hands a negative offset on."""
DOCUMENT = "zarr.json"
"""What makes files a group or an array: without it they are not seen, so that it comes last and goes first."""
_systems: dict[tuple[int, type, str], Any] = {}


def place_of(given: str | Path) -> Place:
    """Tell paths from URLs; a ``file://`` URL is a path.

    Raises
    ------
    InputError
        If a URL went through a `Path`, which drops one of its slashes, or names a bucket alone.
    """
    text = str(given)
    scheme, found, rest = text.partition("://")
    if not found:
        torn = re.match(r"([a-z0-9]+):/", text)
        if torn and torn[1] in (*EXTRAS, "memory"):
            raise InputError(f"{text}: a URL is given as text, with two slashes, and is no place for a plain file")
        return Path(given)
    if scheme in ("file", "local"):
        return Path(fsspec.core.strip_protocol(text))
    if scheme in EXTRAS and not rest.strip("/").partition("/")[2]:
        raise InputError(f"{text}: names a bucket alone; add the name of a store, as in {text.rstrip('/')}/store.zarr")
    return text.rstrip("/")


def beside(place: Place, ending: str) -> Place:
    """Return a new hidden name in the folder where ``place`` lies."""
    folder, slash, name = str(place).rpartition("/")
    hidden = f".{name}.{uuid.uuid4().hex[:8]}.{ending}"
    return place.with_name(hidden) if isinstance(place, Path) else f"{folder}{slash}{hidden}"


def file_system(place: Place, **options: Any) -> tuple[Any, str]:
    """Return fsspec's file system for a place, and its path there.

    Listings are not kept: other processes write to the same place.

    Raises
    ------
    StoreError
        If the driver is not installed or nothing is known of such URLs.
    """
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(str(place), use_listings_cache=False, **options)
    except ImportError as error:
        extra = EXTRAS.get(str(place).partition("://")[0])
        mend = f"pip install 'rfmdist[{extra}]'" if extra else _reason(error)
        raise StoreError(f"{place}: the driver for such URLs is not installed: {mend}") from None
    except Exception as error:  # each driver has its own
        raise StoreError(f"{place}: cannot be opened ({_reason(error)})") from None
    return found


@contextmanager
def reaching(place: Place) -> Iterator[None]:
    """Tell in one sentence what a driver raises: each has exceptions of its own, many of them no OSError.

    Raises
    ------
    UnreachableError
        For whatever was raised inside.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise UnreachableError(
            f"{place}: cannot be reached ({_reason(error)}); check the address, the network and your credentials"
        ) from None


class DiskStore(LocalStore):
    """Zarr's files in a folder; each zarr.json is written with a digest of itself and read only if that fits."""

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        return _checked(self.root, key, await super().get(key, prototype, byte_range))

    async def set(self, key: str, value: Buffer) -> None:
        await super().set(key, _vouched(key, value))


class UrlStore(FsspecStore):
    """Zarr's files at a URL, with digests as in `DiskStore`.

    A pickled one is opened anew, with the credentials of the process that it arrives in.
    """

    def __init__(self, url: str, read_only: bool = False) -> None:
        system, path = file_system(url, asynchronous=True)
        # Of these fsspec makes one a thread, but Zarr has one loop: sessions would be many, and slow to close.
        system = _systems.setdefault((os.getpid(), type(system), repr(system.storage_options)), system)
        if not system.async_impl:
            from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

            system = AsyncFileSystemWrapper(system, asynchronous=True)
        super().__init__(system, read_only, path)
        self.url = url

    def __reduce__(self) -> tuple[type[UrlStore], tuple[str, bool]]:
        return UrlStore, (self.url, self.read_only)

    def with_read_only(self, read_only: bool = False) -> UrlStore:
        return UrlStore(self.url, read_only)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        with reaching(self.url):
            if isinstance(byte_range, SuffixByteRequest) and self.url.partition("://")[0] in FROM_THE_START:
                try:
                    size = await self.getsize(key)
                except self.allowed_exceptions:
                    return None
                byte_range = RangeByteRequest(max(0, size - byte_range.suffix), size)
            # Of a range that is given s3fs does not ask for the size first: half the requests.
            return _checked(self.url, key, await super().get(key, prototype, byte_range or OffsetByteRequest(0)))

    async def set(self, key: str, value: Buffer, byte_range: Any = None) -> None:
        with reaching(self.url):
            await super().set(key, _vouched(key, value), byte_range)

    async def delete(self, key: str) -> None:
        with reaching(self.url):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        with reaching(self.url):
            await super().delete_dir(prefix)

    async def exists(self, key: str) -> bool:
        with reaching(self.url):
            return await super().exists(key)

    async def get_partial_values(self, *args: Any, **options: Any) -> Any:
        with reaching(self.url):
            return await super().get_partial_values(*args, **options)

    async def getsize_prefix(self, prefix: str) -> int:
        with reaching(self.url):  # by listing: Zarr asks for the size of each file
            found = await self.fs._find(f"{self.path}/{prefix}", detail=True)
            return sum(int(each["size"] or 0) for each in found.values())

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        with reaching(self.url):
            async for key in super().list_dir(prefix):
                yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        with reaching(self.url):
            async for key in super().list_prefix(prefix):
                yield key


def opened(place: Place | None) -> MemoryStore | DiskStore | UrlStore:
    """Return Zarr's view of a place; None stands for memory."""
    if place is None:
        return MemoryStore()
    return DiskStore(place) if isinstance(place, Path) else UrlStore(place)


def exists(place: Place) -> bool:
    """Whether anything lies at a place."""
    if isinstance(place, Path):
        return place.exists()
    system, path = file_system(place)
    with reaching(place):
        return bool(system.exists(path))


def is_writable(place: Place) -> bool:
    """Whether files can be made in a folder; tried, since rights alone do not tell of media that are only read."""
    try:
        if isinstance(place, Path):
            with TemporaryFile(dir=place):
                return True
        system, path = file_system(place)
        with reaching(place):
            system.pipe_file(name := f"{path}/.{uuid.uuid4().hex}.probe", b"")
            system.rm_file(name)
            return True
    except (OSError, StoreError):
        return False


def read_text(place: Place, name: str) -> str:
    """Read a small file below a place; an OSError where there is none."""
    if isinstance(place, Path):
        return (place / name).read_text()
    system, path = file_system(place)
    return str(system.cat_file(f"{path}/{name}").decode())


def size_of(place: Place) -> int:
    """Bytes of all files below a place."""
    if isinstance(place, Path):
        return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    system, path = file_system(place)
    with reaching(place):
        return sum(int(found["size"] or 0) for found in system.find(path, detail=True).values())


def remove_at(url: str) -> None:
    """Remove all that lies below a URL, first what makes it a group or an array: half of it is not seen."""
    system, path = file_system(url)
    with reaching(url):
        if system.exists(f"{path}/{DOCUMENT}"):
            system.rm(f"{path}/{DOCUMENT}")
        if system.exists(path):
            system.rm(path, recursive=True)


def move(old: str, new: str) -> None:
    """Put a group or an array at another URL, in place of what is there, which is gone until the end.

    Object stores rename nothing: their servers copy file by file, and what makes the files a group or an array comes
    last, so that half of them is never taken for the whole.
    """
    remove_at(new)
    system, source = file_system(old)
    target = file_system(new)[1]
    with reaching(new):
        last = f"{source}/{DOCUMENT}"
        files = [path for path in system.find(source) if path != last]
        if files:
            system.copy(files, [target + path.removeprefix(source) for path in files])
        system.copy(last, f"{target}/{DOCUMENT}")
    remove_at(old)


def _vouched(key: str, value: Buffer) -> Buffer:
    """What is written at a key: a document with its digest, anything else as it is."""
    return type(value).from_bytes(with_digest(value.to_bytes())) if key.rpartition("/")[2] == DOCUMENT else value


def _checked(place: Place, key: str, found: Any) -> Any:
    """Return what was read at a key unless it is a document whose digest does not fit."""
    part, _, name = key.rpartition("/")
    if name == DOCUMENT and found is not None:
        try:
            check_digest(found.to_bytes())
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{place}: the {DOCUMENT} of {part or 'the store'} is damaged ({_reason(error)}); {mend_of(part)}"
            ) from None
    return found


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
