"""Facts that the command line tells about stores and fits, as plain dictionaries. Shows nothing itself."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pandas as pd

from rfmdist.engine.plan import Plan, Speed
from rfmdist.engine.planner import plan_dense, plan_factored
from rfmdist.errors import InputError
from rfmdist.features.protocol import Scores
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.blocks import Role
from rfmdist.observations.files import check_table
from rfmdist.observations.ids import is_integer
from rfmdist.observations.places import place_of, size_of
from rfmdist.observations.sources import read_sources
from rfmdist.observations.store import Observations
from rfmdist.observations.summary import summarize
from rfmdist.observations.texts import open_text


def store_facts(path: str | Path) -> dict[str, Any]:
    """Return what a store or a completion holds; every entry is read once."""
    observations = Observations.open(path)
    summary = summarize(observations)
    dtype = inspect.signature(LinRFM).parameters["dtype"].default
    plan, factored = plan_dense(observations, dtype), plan_factored(observations, dtype, "both")
    rows, columns = observations.shape
    return {
        "store": str(path),
        "rows": rows,
        "columns": columns,
        "entries": observations.nnz,
        "density": observations.density,
        "dtype": str(observations.dtype),
        "row_ids": _kind(observations.row_ids),
        "column_ids": _kind(observations.column_ids),
        "range": [summary.least, summary.greatest],
        "mean": summary.mean,
        "deviation": summary.deviation,
        "split": observations.role_counts() if observations.has_split else None,
        "offsets_stored": observations.offsets is not None,
        "row_table": observations.table_kinds("rows") or None,
        "column_table": observations.table_kinds("columns") or None,
        "completion": _settings(observations.attributes("completion")),
        "disk_bytes": size_of(place_of(path)),
        "dense_fit": {
            "form": plan.form,
            "groups": len(plan.groups),
            "flops_per_iteration": plan.flops,
            "feature_bytes": plan.feature_bytes,
            "peak_bytes": plan.peak_bytes,
        },
        "factored_fit": {
            "rank": factored.rank,
            "flops_per_iteration": factored.flops,
            "feature_bytes": factored.feature_bytes,
            "peak_bytes": factored.peak_bytes,
        },
    }


def plan_facts(plan: Plan, speed: Speed) -> dict[str, Any]:
    """Return what a fit will take; bytes and flops are of an iteration where the name does not say otherwise."""
    clustered = {"moved_bytes": plan.moved_bytes, "client_peak_bytes": plan.client_bytes}
    return {
        "features": plan.features,
        "sides": plan.sides,
        "rank": plan.rank,
        "most_rank": plan.most_rank,
        "why": plan.why,
        "groups": len(plan.groups),
        "group_entries": plan.group_entries,
        **({"stripe_rows": plan.stripe} if plan.stripe else {}),
        "block_rows": plan.sizes.block_rows,
        "block_entries": plan.sizes.block_entries,
        "flops": plan.flops,
        "read_bytes": plan.read_bytes,
        **(clustered if plan.machine.workers else {}),
        **({"filed_bytes": plan.filed_bytes} if plan.filed_bytes else {}),
        "kept_bytes": plan.sizes.kept_rows + plan.sizes.kept_columns,
        "feature_bytes": plan.feature_bytes,
        "peak_bytes": plan.peak_bytes,
        "allowed_bytes": plan.machine.allowed,
        "peak_moment": plan.memory.moment,
        "peak_parts": {f"{name} bytes": size for name, size in plan.memory.parts.items() if size},
        "seconds_per_iteration": plan.seconds(*speed),
        "flops_per_second": speed.flops,
        "read_bytes_per_second": speed.bytes,
    }


def fit_facts(model: LinRFM, output: str | Path) -> dict[str, Any]:
    """Return the settings a fit chose and how it went; test entries were not looked at."""
    rows, columns = model.completion_.shape
    bare = model.certificate_ is not None and model.noise != "auto" and model.offsets != "stored"
    return {
        "completion": str(output),
        "rows": rows,
        "columns": columns,
        "features": model.plan_.features,
        "sides": model.plan_.sides,
        "rank": model.rank_,
        "why": model.plan_.why,
        "power": model.power if isinstance(model.power, str) else float(model.power),
        "ridge": float(model.ridge_),
        "floor": float(model.floor),
        "replacement": float(model.replacement_),
        **model.extras_._asdict(),
        "offsets": None if bare else model.offsets,
        "clip": model.completion_.targets.clip,
        "dtype": model.completion_.targets.dtype.name,
        "certificate": None if model.certificate_ is None else str(model.certificate_),
        "iterations": model.n_iter_,
        "validation_rmse": model.validation_rmse_,
        "refitted": any(i.stage == "refit" for i in model.history_),
        "seconds": sum(i.seconds for i in model.history_),
    }


def score_facts(scores: Scores) -> dict[str, Any]:
    """Return the errors of what was scored, and beside them those of the cold entries, which are among the others."""
    return _errors(scores) | {"cold": _errors(scores.cold)}


def id_names(path: Path, row: str | None, column: str | None, delimiter: str | None) -> list[str]:
    """Return the names of a table's row and column ids: its own where it has a header, else row and column."""
    table = next(iter(read_sources(path, row, column, delimiter=delimiter, pairs=True)))
    if table.text is None:
        return [table.fields[part].sql[1:-1].replace('""', '"') for part in ("row", "column")]
    if table.text.names is None:
        return ["row", "column"]
    return [table.text.names[table.text.positions[part]] for part in ("row", "column")]


def read_ids(path: Path) -> list[str]:
    """Return the ids in a text file, one a line; blank lines are none.

    Raises
    ------
    InputError
        If the file cannot be read or holds no id.
    """
    check_table(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file of ids, one a line")
    with open_text(path) as file:
        ids = [line.strip() for line in file if line.strip()]
    if not ids:
        raise InputError(f"{path}: holds no ids; write one a line")
    return ids


def _errors(scores: Scores) -> dict[str, Any]:
    return {"rmse": scores.rmse, "mae": scores.mae, "count": scores.count, "left_out": scores.left_out}


def _settings(stored: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a completion was solved with, in the words of the fit's options; None of plain observations."""
    if stored is None:
        return None
    features = stored["features"]
    return {
        "features": features["kind"],
        **({"rank": features["rank"]} if "rank" in features else {}),
        **{name: stored[name] for name in ("ridge", "replacement", "dtype", "clip", "unit")},
        "fitted": " and ".join(Role(role).name.lower() for role in stored["fitted"]),
    }


def _kind(ids: pd.Index[Any]) -> str:
    return "integers" if is_integer(ids) else "text"
