"""Damage small stores, one fault at a time, use all that they hold, and count what is noticed.

    python scripts/flips.py --draws 10000 --seed 0

Each draw takes one file of one store, a small zarr.json as often as a large chunk, and changes a byte, a bit or a
range of bytes of it, cuts it short or removes it. Then the store is opened and all of it is used. That is

    noticed     a StoreError of one sentence that names the store
    harmless    all results are those of the sound store
    silent      some result is another, and nothing is said
    traceback   any other error

The last two must not occur: the exit status is 1 if they do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from rfmdist import Completion, LinRFM, split
from rfmdist.errors import StoreError
from rfmdist.features.mean import MeanFeatures
from rfmdist.features.recovered import RecoveredFeatures
from rfmdist.observations.offsets import fit_offsets
from rfmdist.observations.store import Observations

SHAPE = (14, 9)
KINDS = ("byte", "byte", "bit", "bit", "range", "cut", "gone")
"""What a draw does to a file, each as often as the others."""
OUTCOMES = ("noticed", "harmless", "silent", "traceback")


@dataclass(frozen=True)
class Fault:
    """One change of one file: what it holds afterwards, None where it is gone."""

    file: Path
    kind: str
    place: int
    after: bytes | None

    @classmethod
    def draw(cls, rng: np.random.Generator, files: dict[Path, bytes]) -> Fault:
        """Draw a fault that changes one of ``files``."""
        file, kind = list(files)[rng.integers(len(files))], str(rng.choice(KINDS))
        before = np.frombuffer(files[file], np.uint8)
        place = int(rng.integers(len(before)))
        after = before.copy()
        if kind == "gone":
            return cls(file, kind, 0, None)
        if kind == "cut":
            return cls(file, kind, place, before[:place].tobytes())
        width = int(rng.integers(2, 17)) if kind == "range" else 1
        mask = np.uint8(1 << rng.integers(8)) if kind == "bit" else rng.integers(1, 256, width, np.uint8)
        after[place : place + width] ^= mask[: len(before) - place] if kind == "range" else mask
        return cls(file, kind, place, after.tobytes())


@dataclass(frozen=True)
class Subject:
    """A sound store: its files, what all of it gives, and how that is found."""

    path: Path
    files: dict[Path, bytes]
    use: Callable[[Path], Any]
    expected: str

    @classmethod
    def of(cls, path: Path, use: Callable[[Path], Any]) -> Subject:
        """Use a store twice: what is made at its first use is there to be damaged too."""
        use(path)
        files = {file: file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
        return cls(path, files, use, repr(use(path)))

    def outcome(self, fault: Fault) -> str:
        """Damage the store, use it, mend it, and tell what became of the fault."""
        if fault.after is None:
            fault.file.unlink()
        else:
            fault.file.write_bytes(fault.after)
        try:
            return "harmless" if repr(self.use(self.path)) == self.expected else "silent"
        except StoreError as error:
            told = str(error)
            return "noticed" if str(self.path) in told and "\n" not in told else f"traceback\n{told}"
        except Exception:
            return f"traceback\n{traceback.format_exc()}"
        finally:
            fault.file.parent.mkdir(parents=True, exist_ok=True)
            fault.file.write_bytes(self.files[fault.file])


def use_observations(path: Path) -> list[Any]:
    """Open a store of observations, read whatever it holds, and give all of it as plain values."""
    observations = Observations.open(path)
    return [*_entries(observations), *_about(observations), *_entries(observations.by_column())]


def use_completion(path: Path) -> list[Any]:
    """Open a completion, ask it for all that it can tell, and give that as plain values."""
    completion = Completion.open(path)
    rows, columns = np.indices(SHAPE)
    return [
        *_entries(completion.observations),
        completion.predict(rows, columns, codes=True).tolist(),
        completion.recommend(k=3).to_dict("list"),
    ]


def _entries(observations: Observations) -> Iterator[Any]:
    """All entries and their roles, as a fit reads them."""
    block = observations.row_block(0, observations.shape[0])
    yield from (observations.shape, observations.dtype, observations.has_split, observations.split_mark)
    yield [part.tolist() for part in (block.indptr, block.indices, block.values, observations.roles(block))]


def _about(observations: Observations) -> Iterator[Any]:
    """What is stored beside the entries: ids, users' columns, offsets, settings."""
    yield observations.attributes("completion")
    offsets = observations.offsets
    yield None if offsets is None else [offsets.mean, offsets.rows.tolist(), offsets.columns.tolist()]
    yield None if offsets is None else offsets.row_shrinkage
    for axis in ("rows", "columns"):
        yield observations.table_kinds(axis)
        table = observations.table(axis)
        yield [table.index.tolist(), *((name, str(table[name].dtype), table[name].tolist()) for name in table)]


def _matrix(rng: np.random.Generator) -> sp.coo_array:
    """Ratings of half the entries, none of a whole row or column."""
    rows, columns = np.nonzero(rng.random(SHAPE) < 0.5)
    return sp.coo_array((rng.integers(1, 6, len(rows)).astype(np.float32), (rows, columns)), shape=SHAPE)


def _observations(rng: np.random.Generator, path: Path) -> None:
    """Write a store with all that one can hold, save the column-ordered copy, which its first use makes."""
    ids = [f"user {k}" for k in range(SHAPE[0])]
    observations = Observations.from_scipy(_matrix(rng), path, row_ids=ids, column_ids=range(10, 10 + SHAPE[1]))
    split(observations, validation=0.2, test=0.2, seed=1)
    observations.store_offsets(fit_offsets(observations))
    table = pd.DataFrame(
        {
            "age": np.arange(SHAPE[0]),
            "height": rng.normal(size=SHAPE[0]),
            "member": np.arange(SHAPE[0]) % 3 == 0,
            "town": [["Bonn", "Köln"][k % 2] for k in range(SHAPE[0])],
        },
        index=ids,
    )
    observations.store_table("rows", table)
    years = pd.DataFrame({"year": [1990.0, None, 2001.0]}, index=[11, 12, 15])
    observations.store_table("columns", years)


def subjects(folder: Path) -> list[Subject]:
    """Make small stores of every kind in a folder."""
    rng = np.random.default_rng(0)
    _observations(rng, folder / "observations")
    observations = Observations.from_scipy(_matrix(rng))
    split(observations, validation=0.2, test=0.2, seed=1)

    def fitted(**settings: Any) -> Completion:
        model = LinRFM(**{"ridge": 0.3, "replacement": 1, "max_iter": 2, "rank": 3, "refit": False} | settings)
        return model.fit(observations).completion_

    plain = {"indicators": 0, "ridge_by_count": 0, "row_scale": 0, "side_weight": 0}
    more = {"features": "factored", "indicators": 0.3, "ridge_by_count": 0.3, "row_scale": 0.5, "side_weight": 0.1}
    augmented, other = fitted(**more), fitted(**more, random_state=1)
    mean: Any = MeanFeatures.of([augmented.features, other.features], [augmented.step, other.step])
    factored: Any = fitted(features="factored", **plain)
    components = (np.arange(SHAPE[1]) != 4).astype(np.int32)
    told: Any = {"components": components, "ranks": (0, factored.features.rank), "exact": True}
    recovered = RecoveredFeatures(factored.features.factor, factored.features.offsets, **told)
    completions = {
        "dense": fitted(features="dense"),
        "factored": factored,
        "recovered": Completion(factored.targets, recovered, factored.step),
        "augmented": augmented,
        "mean": Completion(augmented.targets, mean, augmented.step),
    }
    for name, completion in completions.items():
        completion.save(folder / name)
    return [
        Subject.of(folder / "observations", use_observations),
        *(Subject.of(folder / name, use_completion) for name in completions),
    ]


def count_outcomes(draws: int, seed: int, folder: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Draw faults of stores in turn.

    Returns
    -------
    Counter
        Draws by kind of fault and outcome.
    list of str
        What was silent or ended in a traceback, one text each.
    """
    rng, stores = np.random.default_rng(seed), subjects(folder)
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    for k in range(draws):
        store = stores[k % len(stores)]
        fault = Fault.draw(rng, store.files)
        outcome, _, told = store.outcome(fault).partition("\n")
        counts[fault.kind, outcome] += 1
        if outcome in ("silent", "traceback"):
            wrong.append(f"{outcome}: {fault.kind} at {fault.place} of {fault.file.relative_to(folder)}\n{told}")
    return counts, wrong


def main() -> int:
    """Draw as many faults as asked for, print the counts, and tell whether any went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, wrong = count_outcomes(options.draws, options.seed, Path(folder).resolve())
    print("".join(f"{text}\n" for text in wrong), end="")
    print(f"{'fault':10}" + "".join(f"{outcome:>11}" for outcome in OUTCOMES))
    for kind in dict.fromkeys(KINDS):
        print(f"{kind:10}" + "".join(f"{counts[kind, outcome]:11}" for outcome in OUTCOMES))
    print(f"{'all':10}" + "".join(f"{sum(counts[kind, o] for kind in set(KINDS)):11}" for o in OUTCOMES))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
