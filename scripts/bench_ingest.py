"""Measure ingestion: generated `::` lines, a budget, a fresh process; print peak memory and speed.

Usage: python scripts/bench_ingest.py [--lines 20000000] [--memory 1GB] [--folder FOLDER]
       python scripts/bench_ingest.py --input FILE --memory 2GB

A file of 100 million lines to be read is made by `generate.py --csv`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

ROWS, COLUMNS = 200_000, 27_000
PIECE = 1_000_000

CHILD = """
import json, resource, sys, time
from rfmdist.observations.ingest import ingest
start = time.perf_counter()
observations = ingest(sys.argv[1], sys.argv[2], memory=sys.argv[3], duplicates="last")
seconds = time.perf_counter() - start
peak = 1024 * sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({"entries": observations.nnz, "seconds": seconds, "peak": peak, "cpu": time.process_time()}))
"""


def main() -> None:
    """Generate the lines, ingest them in a process of its own, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=20_000_000, help="entries generated (default 20 million)")
    parser.add_argument("--memory", default="1GB", help="budget given to ingest (default 1GB)")
    parser.add_argument("--folder", type=Path, help="where to put the files, on disk (default: the current one)")
    parser.add_argument("--input", type=Path, help="a file to be read instead of generated lines, no entry twice")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=options.folder or Path.cwd()) as folder:
        source, store = options.input or Path(folder) / "ratings.dat", Path(folder) / "store.zarr"
        if options.input is None:
            generate(source, options.lines)
        child = [sys.executable, "-c", CHILD, str(source), str(store), options.memory]
        found = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    lines = options.lines if options.input is None else found["entries"]
    print(
        f"{lines:,} lines, budget {options.memory}: {found['entries']:,} entries stored in"
        f" {found['seconds']:.1f} s ({lines / found['seconds']:,.0f} lines a second), {found['cpu']:.0f} s of CPU,"
        f" peak resident memory {found['peak'] / 1e9:.2f} GB"
    )


def generate(path: Path, lines: int) -> None:
    """Write lines user::item::rating::time in no order, skewed to few items; a few pairs come twice."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, lines, PIECE):
            count = min(PIECE, lines - start)
            columns = [
                rng.integers(1, ROWS + 1, count),
                (COLUMNS * rng.random(count) ** 1.5).astype(np.int64) + 1,
                rng.integers(1, 11, count) / 2,
                rng.integers(10**9, 12 * 10**8, count),
            ]
            # An empty column between two single colons makes the double one.
            empty = pa.nulls(count)
            spread = [columns[0], empty, columns[1], empty, columns[2], empty, columns[3]]
            table = pa.table(spread, names=list("abcdefg"))
            pc.write_csv(table, file, pc.WriteOptions(include_header=False, delimiter=":"))


if __name__ == "__main__":
    main()
