"""The table of README's "Ratings": what each addition brings on MovieLens, beside peers measured in the same run.

    python scripts/ratings.py [100k|1m] [--draws 3] [--quick]

100k is the published split u1, 1m a random tenth for test. The first lines are peers: cmfrec and Surprise at settings
that were the best of a grid on the test entries of 1m, which is generous to them. Then rank 64 with settings given
(found on validation entries), one addition (DESIGN.md, "Additions") after the other, and the whole estimator, which
chooses everything itself; means of ranks and cosine features; on 100k the films' and users' tables. ``--draws`` adds
further random tenths of the same ratings: plain, and the whole estimator. No test entry is used for any choice.
MovieLens is looked for in $RFMDIST_DATA (default ../shared/data). `pip install cmfrec scikit-surprise` brings the
peers; what is missing is left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import peers
import scipy.sparse as sp
from movielens import find_files, look_into
from movielens_tables import TABLES

from rfmdist import LinRFM, Observations, fit_offsets, ingest, split
from rfmdist.observations.blocks import FITTED_ROLES, Role

DATA = Path(os.environ.get("RFMDIST_DATA", Path(__file__).parents[2] / "shared" / "data"))
PLAIN = {"indicators": 0.0, "ridge_by_count": 0.0, "row_scale": 0.0, "side_weight": 0.0}
FIXED = {"replacement": 1.0, "max_iter": 10, "validation_fraction": 0.0, "rank": 64}
GIVEN = {
    "100k": {"indicators": 0.5, "ridge_by_count": 0.3, "side_weight": 0.1, "row_scale": 0.5, "ridge": 0.65},
    "1m": {"indicators": 0.35, "ridge_by_count": 0.3, "side_weight": 0.1, "row_scale": 0.5, "ridge": 0.6},
}
"""Settings of the additions: the best on validation entries, in the order in which they are added."""
PLAIN_RIDGE = 0.7


def main() -> int:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", nargs="?", choices=list(GIVEN), default="1m")
    parser.add_argument("--draws", type=int, default=0, help="further random tenths for test")
    parser.add_argument("--quick", action="store_true", help="no peers, no means, no cosine features")
    options = parser.parse_args()
    folder = DATA / f"ml-{options.set}"
    if not folder.is_dir():
        print(f"ratings.py: no ml-{options.set} in {DATA}; set RFMDIST_DATA to its folder", file=sys.stderr)
        return 2
    store, train, test = read(folder)
    print(f"MovieLens {options.set}: {train.nnz:,} entries, {test.nnz:,} for test")
    if not options.quick:
        show_stages(folder, show_peers(train, test))
    for label, settings in one_by_one(GIVEN[options.set]):
        show(label, train, test, **FIXED | settings)
    for label, chosen in whole(store, options.quick):
        show(label, store, test, **chosen)
    for seed in range(1, options.draws + 1):
        show_draw(train, test, seed)
    return 0


def read(folder: Path) -> tuple[Observations, sp.csr_array, sp.csr_array]:
    """The store with its split and tables, and its entries for fitting and for test as matrices."""
    there = look_into(folder, folder)
    files, test_file = find_files(folder, there)
    store = ingest(files)
    split(store, test_file=test_file)
    for name, (axis, table) in TABLES.items():
        if name in there:
            store.store_table(axis, table(there[name]))
    return store, store.to_scipy(FITTED_ROLES), store.to_scipy({Role.TEST})


def one_by_one(given: dict[str, float]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Settings of plain features, with offsets fixed and joint, then with one addition after the other."""
    plain = PLAIN | {"ridge": PLAIN_RIDGE}
    yield "plain, offsets fitted beforehand", plain | {"offsets": "stored"}
    yield "plain, offsets within every solve", plain
    extras = PLAIN | {"ridge": given["ridge"]}
    for name in ("indicators", "ridge_by_count", "side_weight", "row_scale"):
        extras = extras | {name: given[name]}
        yield f"+ {name} {given[name]:g}", extras


def whole(store: Observations, quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Settings of the whole estimator, which chooses the rest itself."""
    yield "everything auto", {}
    if quick:
        return
    yield "mean of ranks 64 and 128", {"rank": (64, 128)}
    yield "the same with cosine features", {"rank": (64, 128), "cosine_features": 256}
    tables = {"row_table": store.table_names("rows"), "column_table": store.table_names("columns")}
    if any(tables.values()):
        yield "everything auto, tables", tables
        yield "mean of 64 and 128, tables", tables | {"rank": (64, 128)}
        yield "the same with cosine features", tables | {"rank": (64, 128), "cosine_features": 256}


def show(label: str, observed: Any, test: sp.csr_array, **settings: Any) -> float:
    """Fit, score and print; return the error."""
    if settings.get("offsets") == "stored":
        observed = Observations.from_scipy(observed)
        observed.store_offsets(fit_offsets(observed))
    coo, started = test.tocoo(), time.perf_counter()
    model = LinRFM(**settings).fit(observed)
    seconds = time.perf_counter() - started
    error = model.completion_.score(coo.row, coo.col, coo.data, codes=True).rmse
    extras = ", ".join(f"{name} {value:.3g}" for name, value in model.extras_._asdict().items())
    line = f"{label:36} {error:.4f} {seconds:7.2f} s  rank {model.rank_}, {model.n_iter_} iterations"
    print(f"{line}, ridge {model.ridge_:.2g}, {extras}", flush=True)
    return error


def show_stages(folder: Path, peer: float | None) -> None:
    """Print the seconds of each stage from the files to the saved completion, beside a peer's single fit."""
    files, test_file = find_files(folder, look_into(folder, folder))
    with tempfile.TemporaryDirectory() as scratch:
        marks = [time.perf_counter()]
        store = ingest(files, Path(scratch) / "store.zarr")
        split(store, test_file=test_file)
        marks.append(time.perf_counter())
        model = LinRFM().fit(store)
        marks.append(time.perf_counter())
        model.completion_.save(Path(scratch) / "completion.zarr")
        marks.append(time.perf_counter())
    ingested, fitted, saved = np.diff(marks)
    stages = [(name, sum(i.seconds for i in model.history_ if i.stage == name)) for name in ("try", "fit", "refit")]
    told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages)
    print(f"from files to store {ingested:.2f} s, fit {fitted:.2f} s ({told}), save {saved:.2f} s", flush=True)
    if peer:
        print(
            f"from store to saved completion: {(fitted + saved) / peer:.1f} times cmfrec's single best fit", flush=True
        )


def show_peers(train: sp.csr_array, test: sp.csr_array) -> float | None:
    """Print the peers' errors and times, of those that are installed; return the seconds of the first."""
    first = None
    fits = {
        "cmfrec, k 20, lambda 20, CG": lambda: peers.cmfrec_fit(train, test, niter=20),
        "cmfrec, the same by Cholesky": lambda: peers.cmfrec_fit(train, test, niter=20, use_cg=False),
        "Surprise SVD, k 100, 60 epochs": lambda: peers.surprise_fit(train, test),
    }
    for label, fit in fits.items():
        with suppress(ImportError):
            error, seconds = fit()
            print(f"{label:36} {error:.4f} {seconds:7.2f} s", flush=True)
            first = first or seconds
    return first


def show_draw(train: sp.csr_array, test: sp.csr_array, seed: int) -> None:
    """Print plain and whole fits of another random tenth, and what the latter gains."""
    entries = (train + test).tocoo()
    chosen = np.random.default_rng(seed).random(entries.nnz) < 0.1
    parts = [
        sp.csr_array((entries.data[mask], (entries.row[mask], entries.col[mask])), entries.shape)
        for mask in (~chosen, chosen)
    ]
    plain, *_ = (settings for _, settings in one_by_one(GIVEN["1m"]))
    first = show(f"draw {seed}: plain, offsets beforehand", *parts, **FIXED | plain)
    joint = show(f"draw {seed}: plain, everything else auto", *parts, **PLAIN)
    last = show(f"draw {seed}: everything auto", *parts)
    print(f"draw {seed}: gains {first - last:.4f} and {joint - last:.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
