"""From a CSV to a completion in three commands within a memory budget; prints the seconds and the peak of each.

    python scripts/csv_to_completion.py [FILE.csv] [--lines 1e8] [--memory 2GB] [--keep FOLDER]

Without a file one of 100 million lines is generated (`heavy_tailed.py`, 1 million users x 200,000 items at 1e8). The
peak is what the system counts of each command's process; the fit's settings are given, so that its ten iterations are
all that it does.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

GIVEN = {
    "rank": 16, "sides": "both", "ridge": 0.05, "replacement": 10, "indicators": 0, "ridge-by-count": 0,
    "row-scale": 0, "side-weight": 0, "max-iter": 10,
}  # fmt: skip


def run(*arguments: str) -> tuple[float, int]:
    """Run a command of rfmdist; return its seconds and the most bytes that its process held."""
    print("$ rfmdist " + " ".join(arguments), flush=True)
    began = time.perf_counter()
    command = [sys.executable, "-m", "rfmdist", *arguments]
    number = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(number, 0)
    if status:
        raise SystemExit(f"it failed with exit code {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began, 1024 * usage.ru_maxrss


def generated(folder: Path, lines: int) -> Path:
    """Write a CSV of so many lines."""
    import generate
    from heavy_tailed import Problem

    file = folder / "ratings.csv"
    generate.write_csv(Problem.draw((max(lines // 100, 2), max(lines // 500, 2)), lines), file)
    print(f"generated {lines:,} lines, {file.stat().st_size / 1e9:.1f} GB", flush=True)
    return file


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("file", type=Path, nargs="?")
    arguments.add_argument("--lines", type=float, default=1e8)
    arguments.add_argument("--memory", default="2GB")
    arguments.add_argument("--keep", type=Path, help="folder for the stores; a temporary one if left out")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        file = options.file or generated(folder, round(options.lines))
        store, completed, memory = str(folder / "ratings.zarr"), str(folder / "completed.zarr"), options.memory
        given = [word for name, value in GIVEN.items() for word in (f"--{name}", str(value))]
        steps = {
            "ingest": [str(file), "-o", store, "--memory", memory, "--overwrite"],
            "split": [store, "--validation", "0.01", "--test", "0.01", "--memory", memory],
            "fit": [store, "-o", completed, "--memory", memory, "--overwrite", "--no-refit", *given],
        }
        found = {verb: run(verb, *rest) for verb, rest in steps.items()}
        for verb, (seconds, peak) in found.items():
            print(f"{verb:7} {seconds:7.0f} s, peak {peak / 1e9:.2f} GB of {memory}", flush=True)


if __name__ == "__main__":
    main()
