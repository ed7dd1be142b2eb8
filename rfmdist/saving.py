"""A completion as a store: the observations, and beside them the features and the settings. Knows the layout alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rfmdist.errors import InputError, StoreError
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.protocol import Features, Step
from rfmdist.observations.blocks import Role
from rfmdist.observations.layout import create_matrix
from rfmdist.observations.store import Observations
from rfmdist.observations.targets import Targets
from rfmdist.observations.writer import StoreWriter


def write_completion(
    path: str | Path, targets: Targets, features: Features, step: Step, *, overwrite: bool = False
) -> None:
    """Write a store of observations that is a completion too.

    Raises
    ------
    InputError
        If ``path`` exists and may not be overwritten, or holds observations that are no completion.
    StoreError
        If it cannot be written.
    """
    observations = targets.observations
    _refuse_observations(Path(path))

    def add(root: zarr.Group) -> None:
        _add(root, targets, features, step)

    with StoreWriter(path, observations.shape, observations.dtype, overwrite=overwrite) as writer:
        for block in observations.row_blocks():
            writer.append(block.rows, block.indices, block.values)
        writer.finish(observations.row_ids, observations.column_ids, add)


def read_completion(path: str | Path) -> tuple[Targets, Features, Step]:
    """Read what `write_completion` has written.

    Raises
    ------
    StoreError
        If there is none, or it is of another version, torn or damaged.
    """
    observations = Observations.open(path)
    settings = observations.attributes("completion")
    offsets = observations.offsets
    if settings is None or offsets is None:
        raise StoreError(f"{path}: holds observations, not a completion; make one with 'rfmdist fit'")
    features = _read_features(observations, settings)
    clip = settings["clip"]
    targets = Targets(
        observations,
        offsets,
        float(settings["unit"]),
        np.dtype(settings["dtype"]),
        frozenset(Role(role) for role in settings["fitted"]),
        clip=None if clip is None else (float(clip[0]), float(clip[1])),
    )
    return targets, features, Step(float(settings["ridge"]), float(settings["replacement"]))


def _refuse_observations(path: Path) -> None:
    """Refuse to put a completion where plain observations lie: they may be all there is of the data."""
    try:
        plain = path.exists() and Observations.open(path).attributes("completion") is None
    except StoreError:  # what cannot be opened is the writer's to judge
        return
    if plain:
        raise InputError(f"{path}: holds observations; name another place for the completion")


def _add(root: zarr.Group, targets: Targets, features: Features, step: Step) -> None:
    """Add what makes a store of observations a completion."""
    store, observations = Observations(root), targets.observations
    if observations.has_split or observations.role_counts()["validation"]:
        store.store_split(map(observations.roles, observations.row_blocks()))
    store.store_offsets(targets.offsets)
    store.set_attributes(
        "completion",
        {
            "unit": targets.unit,
            "dtype": targets.dtype.name,
            "fitted": sorted(int(role) for role in targets.fitted),
            "clip": None if targets.clip is None else list(targets.clip),
            "features": _write_features(root, features),
            "ridge": step.ridge,
            "replacement": step.replacement,
        },
    )


def _write_features(root: zarr.Group, features: Features) -> dict[str, Any]:
    """Write the arrays of the features; return their settings."""
    if isinstance(features, DenseFeatures):
        varp: Any = root["varp"]
        create_matrix(varp, "features", features.matrix)
        return {"kind": "dense", "unit": features.unit, "form": features.form}
    assert isinstance(features, FactoredFeatures)
    varm: Any = root["varm"]
    create_matrix(varm, "features", features.factor)
    create_matrix(varm, "offsets", features.offsets[:, None])
    if features.determined is not None:
        create_matrix(varm, "determined", features.determined[:, None].astype(np.float32))
    shrinkage = [None if np.isinf(pull) else pull for pull in features.shrinkage]
    return {
        "kind": "factored",
        "rank": features.rank,
        "floor": features.floor,
        "shrinkage": shrinkage,
        "determined": features.determined is not None,
    }


def _read_features(observations: Observations, settings: dict[str, Any]) -> Features:
    """Read what `_write_features` has written."""
    n, kept = observations.shape[1], settings["features"]
    if kept["kind"] == "dense":
        matrix = observations.read_floats("varp/features", (n, n))
        return DenseFeatures(matrix, float(kept["unit"]), kept["form"])
    factor = observations.read_floats("varm/features", (n, None))
    offsets = observations.read_floats("varm/offsets", (n, 1))[:, 0]
    row, column = (np.inf if pull is None else float(pull) for pull in kept["shrinkage"])
    determined = None
    if kept.get("determined"):
        determined = observations.read_floats("varm/determined", (n, 1))[:, 0] > 0
    return FactoredFeatures(factor, offsets, (row, column), float(kept["floor"]), determined)
