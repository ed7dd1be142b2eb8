"""`Completion`: a completed matrix, entry by entry or block by block, never formed as a whole.

Knows features and observations; not how the features were found.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import dask.array as da
import numpy as np
import scipy.sparse as sp
import zarr
from dask.delayed import delayed
from numpy.typing import NDArray

from rfmdist.engine import work
from rfmdist.engine.plan import equal_groups
from rfmdist.engine.run import all_threads, executor
from rfmdist.errors import InputError, StoreError
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.factored import FactoredFeatures
from rfmdist.features.protocol import Features, Scores, Step
from rfmdist.kernels.threads import Threads, one_blas_thread
from rfmdist.observations.blocks import Offsets, Role, RowBlock
from rfmdist.observations.ids import as_given
from rfmdist.observations.layout import create_matrix
from rfmdist.observations.offsets import row_offsets
from rfmdist.observations.store import Observations
from rfmdist.observations.targets import Targets
from rfmdist.observations.writer import StoreWriter

Ids = Any


class Completion:
    """The completed matrix Z = offsets + A P: features P, and rows that are solved when they are asked for.

    With factored features a prediction is the low-rank part, intercept + offset + b_i · u_j.

    A prediction is the model's at every entry, observed ones too: it does not repeat what was observed.

    Parameters
    ----------
    targets : Targets
        Observations, their offsets and unit, and which entries the rows are solved from.
    features : DenseFeatures or FactoredFeatures
        The feature matrix.
    step : Step
        Ridge and replacement weight of the iterate that was kept.
    """

    def __init__(self, targets: Targets, features: Features, step: Step) -> None:
        self.targets = targets
        self.features = features
        self.step = step

    @property
    def observations(self) -> Observations:
        """The observations whose rows are completed."""
        return self.targets.observations

    @property
    def shape(self) -> tuple[int, int]:
        """Rows m and columns n."""
        return self.observations.shape

    # ---- predictions ------------------------------------------------------------------------------------------

    def predict(self, rows: Ids, columns: Ids, *, codes: bool = False) -> NDArray[np.float64]:
        """Predict single entries.

        Parameters
        ----------
        rows, columns : array_like, which broadcast
            The users' own ids, or codes.
        codes : bool, default False
            Whether codes are given: places 0, 1, ... in the store.

        Returns
        -------
        float64 ndarray of the broadcast shape
            In the values' own units, clipped to their scale where there is one.

        Raises
        ------
        InputError
            If an id or a code is not known.
        """
        i = self._codes(rows, 0, codes)
        j = self._codes(columns, 1, codes)
        try:
            i, j = np.broadcast_arrays(i, j)
        except ValueError:
            raise InputError(f"rows and columns must be of one length, not {i.size} and {j.size}") from None
        return self._predict_codes(i.ravel(), j.ravel()).reshape(i.shape)

    def predict_block(self, start: int = 0, stop: int | None = None) -> da.Array:
        """All columns of rows ``start`` to ``stop`` (codes), lazily.

        Returns
        -------
        dask.array.Array of shape (stop - start, n)
            float64, one chunk a row block; nothing is computed until asked for. As with slices, a ``stop``
            beyond the last row means that row.

        Raises
        ------
        InputError
            If ``start`` is negative or beyond ``stop``.
        """
        n, last = self.shape[1], self.shape[0] if stop is None else min(stop, self.shape[0])
        if not 0 <= start <= last:
            raise InputError(f"rows {start} to {last} are not a range within 0 to {self.shape[0]}")
        rows = max(1, work.DENSE_ENTRIES // max(n, 1))
        handle, meta = delayed(self, pure=False), np.empty((0, 0))
        blocks = [
            da.from_delayed(delayed(_complete)(handle, a, b), (b - a, n), meta=meta)
            for a, b in self.observations.ranges((start, last), rows=rows)
        ]
        return da.concatenate(blocks) if blocks else da.zeros((0, n))

    def score(
        self,
        rows: Ids = None,
        columns: Ids = None,
        values: Any = None,
        *,
        codes: bool = False,
        client: Any = None,
    ) -> Scores:
        """Score the stored test entries, or entries that are given.

        Parameters
        ----------
        rows, columns, values : array_like of shape (entries,), optional
            Entries by id (or code) and what was observed there; the stored test split when left out.
        codes : bool, default False
            Whether ``rows`` and ``columns`` are codes.
        client : distributed.Client, optional
            Where to score the stored test split.

        Returns
        -------
        Scores
            With ``rmse``, ``mae`` and ``count``.

        Raises
        ------
        InputError
            If there are no entries to score, or an id is not known.
        """
        if any(given is not None for given in (rows, columns, values)):
            observed = np.asarray(np.nan if values is None else values, np.float64)
            fits = np.shape(rows) == np.shape(columns) == observed.shape and observed.size > 0
            if not fits or not np.isfinite(observed).all():
                raise InputError("rows, columns and values must be of one length, and the values finite numbers")
            return Scores.of(self.predict(rows, columns, codes=codes), observed)
        scores = self.score_role(Role.TEST, client=client)
        if not scores.count:
            raise InputError(
                f"{self.observations.name}: no test entries are stored; split before fitting, or give entries to score"
            )
        return scores

    def score_role(self, role: Role, *, client: Any = None) -> Scores:
        """Score the stored entries of ``role``, which must not be among the fitted ones to mean anything."""
        targets = replace(self.targets, scored=frozenset({role}))
        with executor(client) as run:
            shared = [run.publish(value) for value in (targets, self.features, self.step)]
            groups = equal_groups(self.observations)
            return run.reduce(work.score, groups, *shared) if groups else Scores()

    # ---- new rows ---------------------------------------------------------------------------------------------

    def fold_in(self, rows: Observations | sp.sparray | sp.spmatrix) -> Completion:
        """Complete new rows with these features, without fitting again.

        Each row is solved by itself, so that the numbers are those which these features give to such a row
        among the fitted ones.

        Parameters
        ----------
        rows : Observations or scipy sparse matrix of shape (k, n)
            New rows. The columns of Observations are matched by id; those of a matrix by place.

        Returns
        -------
        Completion
            Of the new rows.

        Raises
        ------
        InputError
            If a column is not known.
        """
        new = rows if isinstance(rows, Observations) else self._with_our_columns(rows)
        if not new.column_ids.equals(self.observations.column_ids):
            new = self._reordered(new)
        shared = self.targets.offsets
        offsets = Offsets(shared.mean, np.zeros(new.shape[0]), shared.columns, shared.row_shrinkage)
        if shared.row_shrinkage is not None:
            for block in new.row_blocks(self.targets.fitted):
                offsets.rows[block.start : block.stop] = row_offsets(block, offsets, shared.row_shrinkage)
        return Completion(replace(self.targets, observations=new, offsets=offsets), self.features, self.step)

    # ---- files ------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the completion as one Zarr store that needs no other file; it appears when it is whole.

        It is a store of observations too (AnnData opens it), with P at ``varp/features``, or U at ``varm/features``.

        Raises
        ------
        InputError
            If ``path`` exists and may not be overwritten, or holds observations that are no completion.
        StoreError
            If it cannot be written.
        """
        observations = self.observations
        refuse_observations(Path(path))
        with StoreWriter(path, self.shape, observations.dtype, overwrite=overwrite) as writer:
            for block in observations.row_blocks():
                writer.append(block.rows, block.indices, block.values)
            writer.finish(observations.row_ids, observations.column_ids, self._write)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a saved completion.

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
        step = Step(float(settings["ridge"]), float(settings["replacement"]))
        return cls(targets, features, step)

    # ---- inside -----------------------------------------------------------------------------------------------

    def _write(self, root: zarr.Group) -> None:
        """Add what makes a store of observations a completion."""
        store, targets = Observations(root), self.targets
        if targets.observations.has_split or targets.observations.role_counts()["validation"]:
            store.store_split(map(targets.observations.roles, targets.observations.row_blocks()))
        store.store_offsets(targets.offsets)
        store.set_attributes(
            "completion",
            {
                "unit": targets.unit,
                "dtype": targets.dtype.name,
                "fitted": sorted(int(role) for role in targets.fitted),
                "clip": None if targets.clip is None else list(targets.clip),
                "features": _write_features(root, self.features),
                "ridge": self.step.ridge,
                "replacement": self.step.replacement,
            },
        )

    def _codes(self, given: Ids, axis: int, codes: bool) -> NDArray[np.int64]:
        """Codes of ids along an axis, all of them known."""
        what, size = ("row", "column")[axis], self.shape[axis]
        array = np.asarray(given) if codes else as_given(given)
        if codes:
            if array.dtype.kind not in "iu" and array.size:
                raise InputError(f"{what} codes must be whole numbers below {size}; give ids without codes=True")
            bad = (array < 0) | (array >= size)
            found = np.where(bad, -1, array).astype(np.int64)
        else:
            observations = self.observations
            look_up = observations.row_codes if axis == 0 else observations.column_codes
            found = look_up(np.ravel(array)).reshape(np.shape(array))
            bad = found < 0
        if bad.any():
            wrong = np.ravel(array)[int(np.argmax(np.ravel(bad)))]
            raise InputError(
                f"{what} {'code' if codes else 'id'} {wrong} was not seen in fitting"
                f" ({size} {what}s were); leave it out, or fit again with its entries"
            )
        return found

    def _predict_codes(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
        order = np.lexsort((j, i))
        i, j, out = i[order], j[order], np.empty(len(i))
        with all_threads() as threads:
            for start, stop in self.observations.ranges():
                low, high = np.searchsorted(i, [start, stop])
                if low < high:
                    found = _predict(self, i[low:high], j[low:high], threads)
                    out[order[low:high]] = found
        return out

    def _with_our_columns(self, matrix: Any, row_ids: Any = None) -> Observations:
        if sp.issparse(matrix) and matrix.shape[-1] != self.shape[1]:
            raise InputError(f"the new rows have {matrix.shape[-1]} columns, the completion has {self.shape[1]}")
        return Observations.from_scipy(matrix, row_ids=row_ids, column_ids=self.observations.column_ids)

    def _reordered(self, new: Observations) -> Observations:
        """Observations with their columns in our order, matched by id; roles go along."""
        codes, coo = self._codes(new.column_ids, 1, False), new.to_scipy().tocoo()
        columns = codes[coo.col]
        matrix = sp.coo_array((coo.data, (coo.row, columns)), shape=(new.shape[0], self.shape[1]))
        ours = self._with_our_columns(matrix, new.row_ids)
        ours.store_split([new.roles(new.row_block(0, new.shape[0]))[np.lexsort((columns, coo.row))]])
        return ours


def refuse_observations(path: Path) -> None:
    """Refuse to put a completion where plain observations lie: they may be all there is of the data.

    Raises
    ------
    InputError
        If ``path`` is a store of observations and no completion.
    """
    try:
        plain = path.exists() and Observations.open(path).attributes("completion") is None
    except StoreError:  # what cannot be opened is the writer's to judge
        return
    if plain:
        raise InputError(f"{path}: holds observations; name another place for the completion")


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
    shrinkage = [None if np.isinf(pull) else pull for pull in features.shrinkage]
    return {"kind": "factored", "floor": features.floor, "shrinkage": shrinkage}


def _read_features(observations: Observations, settings: dict[str, Any]) -> Features:
    """Read what `_write_features` has written."""
    n, kept = observations.shape[1], settings["features"]
    if kept["kind"] == "dense":
        matrix = observations.read_floats("varp/features", (n, n))
        return DenseFeatures(matrix, float(kept["unit"]), kept["form"])
    factor = observations.read_floats("varm/features", (n, None))
    offsets = observations.read_floats("varm/offsets", (n, 1))[:, 0]
    row, column = (np.inf if pull is None else float(pull) for pull in kept["shrinkage"])
    return FactoredFeatures(factor, offsets, (row, column), float(kept["floor"]))


def _predict(of: Completion, i: NDArray[np.int64], j: NDArray[np.int64], threads: Threads) -> NDArray[np.float64]:
    """Predict entries, sorted by row and near one another; only the rows asked for are solved."""
    start, stop = int(i[0]), int(i[-1]) + 1
    block, _ = of.targets.read(start, stop)
    counts = np.bincount(i - start, minlength=stop - start)
    block = block.where(np.repeat(counts > 0, np.diff(block.indptr)))
    wanted = RowBlock(start, stop, np.concatenate([[0], np.cumsum(counts)]), j, np.zeros(len(j)))
    solution = of.features.solve(block, of.step, threads)
    return of.targets.predictions(wanted, of.features.predict(block, solution, wanted, threads))


def _complete(of: Completion, start: int, stop: int) -> NDArray[np.float64]:
    """Predictions of all columns of rows ``start`` to ``stop``, on one thread."""
    with one_blas_thread():
        block, _ = of.targets.read(start, stop)
        threads = Threads(1)
        rows = of.features.complete(block, of.features.solve(block, of.step, threads), threads)
    offsets = of.targets.offsets.at(np.arange(start, stop)[:, None], np.arange(of.shape[1]))
    values = offsets + of.targets.unit * rows
    return values if of.targets.clip is None else np.clip(values, *of.targets.clip)
