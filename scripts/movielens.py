"""Turn the folder or zip of any MovieLens release into a store, with its test split where it has one.

What 100K and 1M tell of films (year, genres) and users (age, sex, occupation) is stored beside their ids.

Usage: python scripts/movielens.py FOLDER_OR_ZIP -o STORE [--memory 1GB] [--seed 0] [--overwrite]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from movielens_tables import TABLES

from rfmdist.errors import InputError, RfmdistError, disk_error
from rfmdist.observations.ingest import ingest
from rfmdist.observations.split import split

LAYOUTS = (
    (("u1.base", "u1.test"), "u1.test"),
    (("train.csv.gz", "test.csv.gz"), "test.csv.gz"),
    (("u.data",), None),
    (("ratings.dat",), None),
    (("ratings.csv",), None),
)
"""Files of the releases and which of them is the test split; the first that is all there is taken."""


def main() -> int:
    """Read the command line and make the store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("release", type=Path, help="folder or zip of a MovieLens release")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the store to write")
    parser.add_argument("--memory", default="1GB", help="budget for the process (default 1GB)")
    parser.add_argument("--seed", type=int, default=0, help="of the random split (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing store")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix=".movielens-", dir=_folder_of(options.output)) as scratch:
            convert(options, Path(scratch))
    except RfmdistError as error:
        print(f"movielens.py: {error}", file=sys.stderr)
        return 2
    return 0


def convert(options: argparse.Namespace, scratch: Path) -> None:
    """Ingest the release and store its split, or a random one of 10 % test where it has none."""
    there = look_into(options.release, scratch)
    files, test = find_files(options.release, there)
    observations = ingest(files, options.output, memory=options.memory, overwrite=options.overwrite)
    if test is None:
        counts = split(observations, test=0.1, seed=options.seed)
    else:
        counts = split(observations, test_file=test, seed=options.seed, memory=options.memory)
    rows, columns = observations.shape
    roles = ", ".join(f"{count:,} {role}" for role, count in counts.items())
    print(f"{options.output}: {rows:,} users x {columns:,} films, {observations.nnz:,} ratings ({roles})")
    for name, (axis, read) in TABLES.items():
        if name in there:
            stored = observations.store_table(axis, read(there[name]))
            print(f"{options.output}: {len(stored.names)} columns about {stored.matched:,} {axis} from {name}")


def look_into(release: Path, scratch: Path) -> dict[str, Path]:
    """The files of a release by name, unpacked into ``scratch`` from a zip."""
    if release.is_dir():
        return {path.name: path for path in sorted(release.rglob("*")) if path.is_file()}
    if zipfile.is_zipfile(release):
        return _unpack(release, scratch)
    raise InputError(f"{release}: no such folder or zip; name an unpacked release or its zip")


def find_files(release: Path, there: dict[str, Path]) -> tuple[list[Path], Path | None]:
    """The rating files of a release, and the test file among them."""
    for names, test in LAYOUTS:
        if all(name in there for name in names):
            return [there[name] for name in names], there[test] if test else None
    raise InputError(f"{release}: no MovieLens ratings; looked for {', '.join(n[0] for n, _ in LAYOUTS)}")


def _unpack(release: Path, scratch: Path) -> dict[str, Path]:
    wanted = {name for names, _ in LAYOUTS for name in names} | set(TABLES)
    found = {}
    try:
        with zipfile.ZipFile(release) as archive:
            for member in archive.namelist():
                name = Path(member).name
                if name in wanted:
                    found[name] = scratch / name
                    with archive.open(member) as source, found[name].open("wb") as target:
                        shutil.copyfileobj(source, target)
    except zipfile.BadZipFile as error:
        raise InputError(f"{release}: the zip is damaged ({error})") from None
    except OSError as error:
        raise disk_error(error, str(scratch)) from None
    return found


def _folder_of(output: Path) -> Path:
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    return output.absolute().parent


if __name__ == "__main__":
    sys.exit(main())
