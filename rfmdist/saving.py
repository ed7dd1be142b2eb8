"""A completion as a store: the observations, and beside them the features and the settings. Knows the layout alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rfmdist.errors import InputError, StoreError, UnreachableError
from rfmdist.features.augmented import AugmentedFeatures, Extras, Margin
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.mean import MeanFeatures
from rfmdist.features.protocol import Features, Step
from rfmdist.features.recovered import RecoveredFeatures
from rfmdist.observations.additions import EXTRAS
from rfmdist.observations.blocks import Offsets, Role
from rfmdist.observations.layout import create_matrix
from rfmdist.observations.nodes import noticing
from rfmdist.observations.places import Place, exists, place_of
from rfmdist.observations.scales import Scales
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
    targets.check_split()
    refuse_observations(place_of(path))

    def add(root: zarr.Group) -> None:
        _add(root, targets, features, step)
        targets.check_split()  # the roles that were written may be those of another by now

    shape, dtype, entries = observations.shape, observations.dtype, observations.nnz
    with StoreWriter(path, shape, dtype, entries=entries, overwrite=overwrite) as writer:
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
    with noticing(str(path), EXTRAS):
        features = _read_features(observations, settings["features"])
        clip = settings["clip"]
        targets = Targets(
            observations,
            offsets,
            float(settings["unit"]),
            np.dtype(settings["dtype"]),
            frozenset(Role(role) for role in settings["fitted"]),
            clip=None if clip is None else (float(clip[0]), float(clip[1])),
            scales=_read_scales(observations, settings.get("scales")),
        )
        return targets, features, Step(float(settings["ridge"]), float(settings["replacement"]))


def refuse_observations(path: Place) -> None:
    """Refuse to put a completion where plain observations lie: they may be all there is of the data.

    Raises
    ------
    InputError
    """
    try:
        plain = exists(path) and Observations.open(path).attributes("completion") is None
    except UnreachableError:
        raise
    except StoreError:  # what cannot be opened is the writer's to judge
        return
    if plain:
        raise InputError(f"{path}: holds observations; name another place for the completion")


def _add(root: zarr.Group, targets: Targets, features: Features, step: Step) -> None:
    """Add what makes a store of observations a completion."""
    store, observations = Observations(root), targets.observations
    if observations.has_split or observations.role_counts()["train"] < observations.nnz:
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
            "scales": _write_scales(root, targets.scales),
            "ridge": step.ridge,
            "replacement": step.replacement,
        },
    )


def _write_features(root: zarr.Group, features: Features, mark: str = "") -> dict[str, Any]:
    """Write the arrays of the features, their names ending in ``mark``; return their settings."""
    if isinstance(features, DenseFeatures):
        varp: Any = root["varp"]
        create_matrix(varp, "features", features.matrix)
        return {"kind": "dense", "unit": features.unit, "form": features.form}
    assert isinstance(features, FactoredFeatures)
    if isinstance(features, MeanFeatures):
        members = [_write_features(root, member, f"_{i}") for i, member in enumerate(features.members)]
        steps = [[step.ridge, step.replacement] for step in features.steps]
        return {"kind": "mean", "rank": features.rank, "members": members, "steps": steps}
    varm: Any = root["varm"]
    create_matrix(varm, f"features{mark}", features.factor)
    create_matrix(varm, f"offsets{mark}", features.offsets[:, None])
    shrinkage = [None if np.isinf(pull) else pull for pull in features.shrinkage]
    settings = {"kind": "factored", "rank": features.rank, "floor": features.floor, "shrinkage": shrinkage}
    if isinstance(features, RecoveredFeatures):
        create_matrix(varm, "determined", features.components[:, None].astype(np.float64))
        settings |= {"kind": "recovered", "ranks": list(features.ranks), "exact": features.exact}
    if isinstance(features, AugmentedFeatures):
        columns, rows = features.margins
        create_matrix(varm, f"counts{mark}", columns.counts[:, None])
        if features.companion.shape[1]:
            create_matrix(varm, f"companion{mark}", features.companion)
        settings |= {"kind": "augmented", "extras": features.extras._asdict(), "told": features.told}
        settings |= {"rows": len(rows.counts), "side": columns.side.shape[1]}
    return settings


def _read_features(observations: Observations, kept: dict[str, Any], mark: str = "") -> Features:
    """Read what `_write_features` has written."""
    n = observations.shape[1]
    if kept["kind"] == "dense":
        matrix = observations.read_floats("varp/features", (n, n))
        return DenseFeatures(matrix, float(kept["unit"]), kept["form"])
    if kept["kind"] == "mean":
        members: Any = [_read_features(observations, each, f"_{i}") for i, each in enumerate(kept["members"])]
        return MeanFeatures.of(members, [Step(float(ridge), float(weight)) for ridge, weight in kept["steps"]])
    factor = observations.read_floats(f"varm/features{mark}", (n, None))
    offsets = observations.read_floats(f"varm/offsets{mark}", (n, 1))[:, 0]
    row, column = (np.inf if pull is None else float(pull) for pull in kept["shrinkage"])
    plain = FactoredFeatures(factor, offsets, (row, column), float(kept["floor"]))
    if kept["kind"] == "recovered" or kept.get("determined"):  # the latter is how one component was marked once
        components = observations.read_floats("varm/determined", (n, 1))[:, 0].astype(np.int32)
        ranks = tuple(map(int, kept.get("ranks", (0, plain.rank))))
        if components.size and not 0 <= components.min() <= components.max() < len(ranks):
            raise StoreError(f"{observations.name}: varm/determined is damaged; restore it from a copy or fit again")
        exact = bool(kept.get("exact", False))
        return RecoveredFeatures(factor, offsets, plain.shrinkage, components=components, ranks=ranks, exact=exact)
    if kept["kind"] == "factored":
        return plain
    counts = observations.read_floats(f"varm/counts{mark}", (n, 1))[:, 0]
    extras, rows, side = Extras(**kept["extras"]), int(kept["rows"]), int(kept["side"])
    companion = factor[:, :0]
    if extras.indicators:
        companion = observations.read_floats(f"varm/companion{mark}", (n, None))
    # Of the rows their number alone counts from here on, and side columns are part of the factor.
    margins = Margin(counts, np.zeros((n, side), np.float32)), Margin(np.zeros(rows), np.zeros((rows, 0), np.float32))
    found = AugmentedFeatures(
        factor, offsets, plain.shrinkage, plain.floor, companion=companion, margins=margins, extras=extras
    )
    return found.telling(kept["told"]) if "told" in kept else found


def _write_scales(root: zarr.Group, scales: Scales | None) -> dict[str, Any] | None:
    """Write the rows' scales and what they were measured from; return their settings."""
    if scales is None:
        return None
    obsm: Any = root["obsm"]
    varm: Any = root["varm"]
    create_matrix(obsm, "scales", scales.rows[:, None])
    create_matrix(varm, "scale_offsets", scales.offsets.columns[:, None])
    measured = {"mean": float(scales.offsets.mean), "row_shrinkage": scales.offsets.row_shrinkage}
    return {"variance": scales.variance, "power": scales.power} | measured


def _read_scales(observations: Observations, kept: dict[str, Any] | None) -> Scales | None:
    """Read what `_write_scales` has written; the fitted rows' own offsets are no longer needed."""
    if kept is None:
        return None
    m, n = observations.shape
    rows = observations.read_floats("obsm/scales", (m, 1))[:, 0]
    columns = observations.read_floats("varm/scale_offsets", (n, 1))[:, 0]
    offsets = Offsets(float(kept["mean"]), np.zeros(m), columns, kept["row_shrinkage"])
    return Scales(rows, offsets, float(kept["variance"]), float(kept["power"]))
