"""Where the command line's results go and where its work runs: outputs, clusters. Knows no verb.

Outputs are checked before any work, so that a long fit never ends at a path that cannot be written.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rfmdist.errors import InputError, RfmdistError, disk_error
from rfmdist.observations.files import is_store
from rfmdist.observations.places import Place, exists, place_of
from rfmdist.saving import refuse_observations

if TYPE_CHECKING:
    import pandas as pd

CONNECT_SECONDS = 10
"""A scheduler that is there answers within milliseconds; a busy one within seconds."""
STANDARD_OUTPUT, OPENED = ("-", "/dev/stdout"), Path("/dev/fd")
"""Names of standard output as a file, and where the files lie that this process was given open."""


def check_output(output: str | Path, overwrite: bool, store: str | Path | None = None) -> None:
    """Refuse an output that could not be written in the end; ``store`` is the input when both are stores.

    Links and ``..`` are followed: another name of the input is the input. At a URL nothing is tried but whether
    something is there.

    Raises
    ------
    InputError
        If something is there and may not be replaced, or the folder cannot be written to.
    """
    if store is None and is_stream(Path(output)):
        return
    path, source = place_of(output), None if store is None else place_of(store)
    if source is not None:
        _check_apart(path, source)
    if exists(path):
        if not overwrite:
            raise InputError(f"{path}: exists already; name another output or add --overwrite")
        if store is not None:
            if not is_store(path):
                raise InputError(f"{path}: is not a store, so it will not be overwritten; name another output")
            refuse_observations(path)
        elif isinstance(path, Path) and path.is_dir():
            raise InputError(f"{path}: is a folder; name a file")
    if isinstance(path, str):
        return
    above = next(folder for folder in path.resolve().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{path}: {above} is not a folder that can be written to; name another output")


def _check_apart(path: Place, store: Place) -> None:
    """Refuse a completion in the place of its observations, within or around them."""
    if isinstance(path, Path) and isinstance(store, Path):
        output, source = path.resolve(), store.resolve()
        same = output == source or (path.exists() and store.exists() and path.samefile(store))
        nested = source in output.parents or output in source.parents
    else:
        same = path == store
        nested = f"{path}/".startswith(f"{store}/") or f"{store}/".startswith(f"{path}/")
    if same:
        raise InputError(f"{path}: is the store of observations itself; name another output")
    if nested:
        raise InputError(f"{path}: lies within the store of observations, or around it; name another output")


def is_stream(path: Path) -> bool:
    """Whether a table goes into what is there already, a pipe, a device or an open file, rather than in its place."""
    opened = str(path) in STANDARD_OUTPUT or path.parent == OPENED
    return opened or (path.exists() and not path.is_file() and not path.is_dir())


def write_tables(frames: Iterable[pd.DataFrame], path: Path) -> int:
    """Write tables of the same columns one below the other; return the rows.

    By suffix as Parquet, or else as CSV, compressed where it ends in .gz.

    A file appears when it is whole, a stream is written into, and one table is in memory at a time.
    """
    append = _append_parquet if path.suffix in (".parquet", ".pq") else _append_csv
    if is_stream(path):
        try:
            with _open_stream(path) as file:
                return append(frames, path, file)
        except OSError as error:
            raise disk_error(error, str(path)) from None
    path = path.resolve()
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            rows = append(frames, path, file)
        temporary.replace(path)
    except OSError as error:
        raise disk_error(error, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def show_written(output: Path, rows: int, what: str) -> None:
    """Tell how much a table holds: on standard error where the table itself went to a stream."""
    print(f"{output}: {rows:,} {what}", file=sys.stderr if is_stream(output) else sys.stdout)


def _open_stream(path: Path) -> BinaryIO:
    """Open a stream to write; an open file is gone on with where it is, rather than begun anew."""
    if str(path) in STANDARD_OUTPUT:
        sys.stdout.flush()
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    number = os.dup(int(path.name)) if path.parent == OPENED else os.open(path, os.O_WRONLY)
    return os.fdopen(number, "wb")


def _append_csv(frames: Iterable[pd.DataFrame], path: Path, file: BinaryIO) -> int:
    rows, header = 0, True
    with gzip.open(file, "wb") if path.suffix == ".gz" else nullcontext(file) as target:
        for frame in frames:
            frame.to_csv(target, index=False, header=header, encoding="utf-8")
            rows, header = rows + len(frame), False
    return rows


def _append_parquet(frames: Iterable[pd.DataFrame], path: Path, file: BinaryIO) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, schema = 0, None
    with ExitStack() as stack:
        for frame in frames:
            if schema is None:  # said outright: a first table without rows does not show that its ids are text
                types = [pa.string() if t.kind == "O" else pa.from_numpy_dtype(t) for t in frame.dtypes]
                schema = pa.schema(list(zip(frame.columns, types, strict=True)))
                writer = stack.enter_context(pq.ParquetWriter(file, schema))
            writer.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False))
            rows += len(frame)
    return rows


@contextmanager
def cluster(address: str | None, file: Path | None) -> Iterator[Any]:
    """Yield a client of the scheduler that is named by address or file; None where none is named.

    Raises
    ------
    RfmdistError
        If the scheduler cannot be reached.
    """
    if address is not None and file is not None:
        raise InputError("a scheduler is named in one way: give --scheduler or --scheduler-file, not both")
    if file is not None:
        address = _address_in(file)
    if address is None:
        yield None
        return
    from distributed import Client

    _reach(address)
    with Client(address, timeout=CONNECT_SECONDS) as client:
        yield client


def _reach(address: str) -> None:
    """Refuse a scheduler that does not answer: a client that fails to connect ends in a traceback at exit."""
    from distributed import Security
    from distributed.comm import connect

    async def knock() -> None:
        arguments = Security().get_connection_args("client")
        comm = await connect(address, timeout=CONNECT_SECONDS, **arguments)
        await comm.close()

    logging.getLogger("distributed").setLevel(logging.ERROR)
    try:
        asyncio.run(knock())
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RfmdistError(f"no scheduler answers at {address} ({reason}); check that it runs") from None


def _address_in(file: Path) -> str:
    try:
        return str(json.loads(file.read_text())["address"])
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file}: is not a scheduler file; 'dask scheduler --scheduler-file' makes one") from None
