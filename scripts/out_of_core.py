"""Fit a store that is larger than memory within a budget, and print seconds, GF/s, MB/s, errors and the peak.

    python scripts/out_of_core.py [--store STORE] [--memory 4GB] [--rank 16] [--columns 3] [--both 2] [--entries 1e9]

Without a store one of 5 million x 1 million with a billion entries is generated (`heavy_tailed.py`; a tenth of it with
``--entries 1e8``). Each fit, of columns only and of both sides, runs in a process of its own, whose peak is that of the
system's own count. A hundredth of the training entries is held out; no error is below the noise, 0.5, but by chance.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

SETTINGS = {
    "features": "factored", "indicators": 0, "ridge_by_count": 0, "row_scale": 0,
    "side_weight": 0, "tol": 0.0, "validation_fraction": 0.01, "refit": False,
}  # fmt: skip
FEW = {"columns": {"ridge": 0.3, "replacement": 30.0}, "both": {"ridge": 0.02, "replacement": 30.0}}
"""What gets furthest from the noise of the start in two or three iterations."""
SHAPE = (5_000_000, 1_000_000, 1_000_000_000)


def child(store: str, sides: str, iterations: int, rank: int, memory: str) -> dict[str, Any]:
    """Fit here, and tell what was planned and what happened."""
    import rfmdist
    from rfmdist.machine import peak_bytes

    began = time.perf_counter()

    def show(record: Any) -> None:
        work, read = model.plan_.flops / record.seconds, record.read_bytes / record.seconds
        print(
            f"  {sides:8} {record.iteration}: held-out RMSE {record.validation_rmse:.4f}, {record.seconds:6.1f} s,"
            f" {work / 1e9:5.1f} GF/s, {read / 1e6:5.0f} MB/s of {record.read_bytes / 1e9:.1f} GB read;"
            f" {time.perf_counter() - began:5.0f} s since the start, peak so far {peak_bytes() / 1e9:.2f} GB",
            file=sys.stderr,
            flush=True,
        )

    options = {"sides": sides, "max_iter": iterations, "rank": rank, "memory": memory}
    model = rfmdist.LinRFM(**SETTINGS, **FEW[sides], **options, callbacks=[show])
    model.fit(rfmdist.Observations.open(store))
    return {
        "planned": model.plan_.peak_bytes,
        "moment": model.plan_.memory.moment,
        "peak": peak_bytes(),
        "seconds": time.perf_counter() - began,
        "errors": [record.validation_rmse for record in model.history_],
    }


def generated(folder: str, entries: int) -> Path:
    """Write a store of heavy tails, in a process of its own: what it held is gone when the fits begin."""
    store, share = Path(folder) / "generated.zarr", entries / SHAPE[2]
    began = time.perf_counter()
    command = [sys.executable, str(Path(__file__).with_name("generate.py")), "--store", str(store), "--test", "0"]
    sizes = {"rows": round(SHAPE[0] * share), "columns": round(SHAPE[1] * share), "entries": entries}
    command += [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    print(f"generated {entries:,} entries, {size / 1e9:.1f} GB, in {time.perf_counter() - began:.0f} s", flush=True)
    return store


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--store")
    arguments.add_argument("--memory", default="4GB")
    arguments.add_argument("--rank", type=int, default=16)
    arguments.add_argument("--columns", type=int, default=3, help="iterations of columns only")
    arguments.add_argument("--both", type=int, default=2, help="iterations of both sides")
    arguments.add_argument("--entries", type=float, default=1e9)
    arguments.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        sides, iterations = options.child
        print(json.dumps(child(options.store, sides, int(iterations), options.rank, options.memory)))
        return
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or str(generated(folder, round(options.entries)))
        for sides, iterations in (("columns", options.columns), ("both", options.both)):
            if not iterations:
                continue
            command = [sys.executable, __file__, "--store", store, "--memory", options.memory]
            command += ["--rank", str(options.rank), "--child", sides, str(iterations)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            errors = ", ".join(f"{error:.4f}" for error in found["errors"])
            together = found["peak"] + psutil.Process().memory_info().rss
            print(
                f"{sides:8} {iterations} iterations in {found['seconds']:.0f} s with all that comes before; errors"
                f" {errors}; peak {found['peak'] / 1e9:.2f} GB, {together / 1e9:.2f} with this process, planned"
                f" {found['planned'] / 1e9:.2f} GB ({found['moment']}), allowed {options.memory}",
                flush=True,
            )


if __name__ == "__main__":
    main()
