"""`Completion`: a completed matrix, entry by entry or block by block, never formed as a whole.

Knows features and observations; not how the features were found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rfmdist import serving
from rfmdist.asking import entry_codes, row_codes, row_range
from rfmdist.checks import check_whole
from rfmdist.engine import work
from rfmdist.engine.groups import equal_groups
from rfmdist.engine.run import Executor, executor
from rfmdist.errors import InputError
from rfmdist.exporting import write_dense
from rfmdist.features.protocol import Features, Scores, Step
from rfmdist.folding import fold_in
from rfmdist.observations.blocks import Role
from rfmdist.observations.scales import LARGEST
from rfmdist.observations.store import Observations
from rfmdist.observations.targets import Targets
from rfmdist.saving import read_completion, write_completion

if TYPE_CHECKING:  # imported where they are used: a fit needs neither
    import dask.array as da
    import pandas as pd

    from rfmdist.observations.unknown import Unknown

Ids = Any
RECOMMENDED = ("row", "rank", "column", "prediction")
SIMILAR = ("column", "rank", "similar", "similarity")
"""Columns of the tables of `Completion.recommend` and `Completion.similar`."""


class Completion:
    """The completed matrix Z = offsets + A P: features P, and rows that are solved when they are asked for.

    With factored features a prediction is the low-rank part, intercept + offset + b_i · u_j.

    A prediction is the model's at every entry, observed ones too: it does not repeat what was observed. That of an
    exact recovery (``noise=0``) does, and so tells what was observed where nothing else is determined.

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

    def predict(
        self, rows: Ids, columns: Ids, *, codes: bool = False, unknown: Unknown = "offsets"
    ) -> NDArray[np.float64]:
        """Predict single entries.

        Parameters
        ----------
        rows, columns : array_like, which broadcast
            The users' own ids, or codes.
        codes : bool, default False
            Whether codes are given: places 0, 1, ... in the store.
        unknown : {"offsets", "nan", "error"}, default "offsets"
            What entries get whose id was not seen in fitting (`is_cold` tells which they are). "offsets": what is known
            without it, which is the best guess: in an unknown column the mean and the row's offset (its intercept,
            where it is solved with one), in an unknown row the mean and the column's offset, in both the mean. An exact
            recovery does not determine them: NaN. "nan": NaN. "error": all such ids are refused in one sentence.

        Returns
        -------
        float64 ndarray of the broadcast shape
            In the values' own units, clipped to their scale where there is one. After a recovery NaN in rows and
            columns that the observations do not determine, and between those that no chain of entries links.

        Raises
        ------
        InputError
            If an id is not known and ``unknown`` is "error", a code is not, or the store was split anew after the fit.
        """
        if unknown == "skip":
            raise InputError(
                "unknown='skip' would leave fewer predictions than entries; leave out those that is_cold tells, or take"
                " unknown='nan'"
            )
        return self._predicted(rows, columns, codes, unknown)[0]

    def is_cold(self, rows: Ids, columns: Ids) -> NDArray[np.bool_]:
        """Tell which entries have a row or column id that was not seen in fitting.

        Parameters
        ----------
        rows, columns : array_like, which broadcast
            The users' own ids.

        Returns
        -------
        bool ndarray of the broadcast shape

        Raises
        ------
        InputError
            If the shapes do not go together.
        """
        i, j = entry_codes(self.observations, rows, columns, codes=False, unknown="nan")
        return (i < 0) | (j < 0)

    def predict_block(self, start: int = 0, stop: int | None = None) -> da.Array:
        """All columns of rows ``start`` to ``stop`` (codes), lazily.

        Returns
        -------
        dask.array.Array of shape (stop - start, n)
            float64, one chunk a row block; nothing is computed until asked for. As with slices, a ``stop``
            beyond the last row means that row. NaN as in `predict`, whose numbers these are up to rounding.
            `to_zarr` writes them.

        Raises
        ------
        InputError
            If ``start`` is negative or beyond ``stop``, one is not a whole number, or the store was split anew after
            the fit, which computing a block tells too.
        """
        import dask.array as da
        from dask.delayed import delayed

        self.targets.check_split()
        (start, last), n = row_range(self.shape[0], start, stop), self.shape[1]
        rows = max(1, work.DENSE_ENTRIES // max(n, 1))
        handle, meta = delayed(self, pure=False), np.empty((0, 0))
        blocks = [
            da.from_delayed(delayed(serving.complete)(handle, a, b), (b - a, n), meta=meta)
            for a, b in self.observations.ranges((start, last), rows=rows)
        ]
        return da.concatenate(blocks) if blocks else da.zeros((0, n))

    def to_zarr(self, path: str | Path, start: int = 0, stop: int | None = None, *, overwrite: bool = False) -> None:
        """Write all columns of rows ``start`` to ``stop`` (codes) as one Zarr array; it appears when it is whole.

        Blocks of rows are predicted and written on all cores, whole shards each, so that memory holds a shard a core,
        however large the matrix is. ``zarr.open_array`` and ``dask.array.from_zarr`` open the array.

        Parameters
        ----------
        path : str or Path
            Where to write it; also a URL, as in `Observations.open`.
        start, stop : int
            As in `predict_block`; all rows when left out.
        overwrite : bool, default False
            Replace an array at ``path`` that this method wrote.

        Raises
        ------
        InputError
            If the range is none, ``path`` exists and may not be overwritten, or the store was split anew after the fit.
        StoreError
            If it cannot be written.

        Notes
        -----
        The array has the numbers of `predict_block` in the dtype of the fit, float32 unless another was chosen, and
        the shape (stop - start, n). What is read as infinite is a part that was lost.
        """
        self.targets.check_split()
        write_dense(path, self, row_range(self.shape[0], start, stop), overwrite=overwrite)

    def score(
        self,
        rows: Ids = None,
        columns: Ids = None,
        values: Any = None,
        *,
        codes: bool = False,
        unknown: Unknown = "offsets",
        client: Any = None,
    ) -> Scores:
        """Score the stored test entries, or entries that are given.

        Parameters
        ----------
        rows, columns, values : array_like of one shape, optional
            Entries by id (or code) and what was observed there; the stored test split when left out.
        codes : bool, default False
            Whether ``rows`` and ``columns`` are codes.
        unknown : {"offsets", "nan", "skip", "error"}, default "offsets"
            What is predicted for entries whose id was not seen in fitting, as in `predict`; those that "nan" and
            "skip" have no prediction for are not scored.
        client : distributed.Client, optional
            Where to score the stored test split.

        Returns
        -------
        Scores
            With ``rmse``, ``mae`` and ``count``, the number of entries scored, and ``left_out``, of those without a
            prediction, in rows and columns that are not determined. ``cold`` has the same of the entries whose id was
            not seen in fitting alone; they are among the others.

        Raises
        ------
        InputError
            If there are no entries to score, an id is not known and ``unknown`` is "error", or the store was split anew
            after the fit.
        """
        from rfmdist.observations.unknown import check_unknown

        check_unknown(unknown)
        if any(given is not None for given in (rows, columns, values)):
            return self._score_given(rows, columns, values, codes, unknown)
        self.targets.check_split()
        with executor(client) as run:
            scores = self.score_role(Role.TEST, run)
        self.targets.check_split()  # meanwhile the entries for test may have become others
        if not scores.count:
            raise InputError(
                f"{self.observations.name}: no test entries are stored, or none that is determined; split before"
                " fitting, or give entries to score"
            )
        return scores

    def score_role(self, role: Role, run: Executor) -> Scores:
        """Score the stored entries of ``role``, which must not be among the fitted ones to mean anything."""
        targets = replace(self.targets, scored=frozenset({role}), scratch=None)
        shared = [run.publish(value) for value in (targets, self.features, self.step)]
        groups = equal_groups(self.observations)
        return run.reduce(work.score, groups, *shared) if groups else Scores()

    # ---- rankings ---------------------------------------------------------------------------------------------

    def recommend(
        self,
        rows: Ids = None,
        k: int = 10,
        *,
        exclude_observed: bool = True,
        codes: bool = False,
        unknown: Unknown = "offsets",
    ) -> pd.DataFrame:
        """Return the ``k`` columns of greatest prediction for each row.

        Parameters
        ----------
        rows : array_like, optional
            The users' own ids, or codes; all rows when left out. A row named twice is answered once.
        k : int, default 10
            Columns a row, fewer where fewer are left.
        exclude_observed : bool, default True
            Leave out the columns that were observed in the row at all, whether for training, validation or test.
        codes : bool, default False
            Whether codes are given and returned.
        unknown : {"offsets", "nan", "skip", "error"}, default "offsets"
            What a row gets whose id was not seen in fitting. "offsets": the columns of greatest offset. "nan" and
            "skip": nothing. "error": all such ids are refused in one sentence.

        Returns
        -------
        pandas.DataFrame
            Columns row, rank (from 1), column and prediction, the rows in the order given, best first; nothing that
            is not determined. The rank goes by predictions before they are clipped, which tells apart what is clipped
            to the same value; equal ones rank by column code.

        Raises
        ------
        InputError
            If an id is not known and ``unknown`` is "error", a code is not, ``k`` is not a positive whole number, or
            the store was split anew after the fit.
        """
        import pandas as pd

        self.targets.check_split()
        asked, ids = row_codes(self.observations, rows, codes=codes, unknown=unknown)
        frame = pd.concat(self._ranked(np.unique(asked), k, exclude_observed), ignore_index=True)
        places = pd.Index(asked).get_indexer(pd.Index(frame["row"]))
        frame = frame.iloc[np.argsort(places, kind="stable")].reset_index(drop=True)
        return frame if codes else self._with_ids(frame, ids)

    def recommendations(
        self,
        rows: Ids = None,
        k: int = 10,
        *,
        exclude_observed: bool = True,
        codes: bool = False,
        unknown: Unknown = "offsets",
    ) -> Iterator[pd.DataFrame]:
        """Yield what `recommend` returns, by blocks of rows in the store's order, in bounded memory.

        Parameters and columns are those of `recommend`; there is one frame at least, which may be empty. Rows that were
        not seen in fitting come last.
        """
        self.targets.check_split()
        asked, ids = row_codes(self.observations, rows, codes=codes, unknown=unknown)
        frames = self._ranked(np.unique(asked), k, exclude_observed)
        return frames if codes else (self._with_ids(frame, ids) for frame in frames)

    def similar(self, columns: Ids, k: int = 10, *, codes: bool = False) -> pd.DataFrame:
        """Return the ``k`` columns most similar to each given one, by the cosine P_ij / sqrt(P_ii P_jj).

        With factored features it is the cosine of u_i and u_j. Offsets play no part.

        Parameters
        ----------
        columns : array_like
            The users' own ids, or codes. A column named twice is answered once.
        k : int, default 10
            Similar columns for each, fewer where fewer are left.
        codes : bool, default False
            Whether codes are given and returned.

        Returns
        -------
        pandas.DataFrame
            Columns column, rank (from 1), similar and similarity, in the order given, best first, equal ones by
            column code. A column is not similar to itself; one without features is similar to none.

        Raises
        ------
        InputError
            If an id or a code is not known, or ``k`` is not a positive whole number.
        """
        import pandas as pd

        from rfmdist.observations.ids import known_codes

        wanted = pd.unique(np.ravel(known_codes(self.observations, columns, 1, codes=codes)))
        check_whole("k", k, 1)
        ranked = serving.most_similar(self.features, wanted, int(k))
        frame = pd.DataFrame(dict(zip(SIMILAR, ranked, strict=True)))
        return frame if codes else self._with_ids(frame, self.observations.row_ids)

    # ---- new rows ---------------------------------------------------------------------------------------------

    def fold_in(self, rows: Observations | sp.sparray | sp.spmatrix, *, unknown: Unknown = "offsets") -> Completion:
        """Complete new rows with these features, without fitting again.

        Each row is solved by itself, so that the numbers are those which these features give to such a row
        among the fitted ones.

        Parameters
        ----------
        rows : Observations or scipy sparse matrix of shape (k, n)
            New rows. The columns of Observations are matched by id; those of a matrix by place.
        unknown : {"offsets", "nan", "skip", "error"}, default "offsets"
            "error" refuses columns that were not seen in fitting. Otherwise their entries are left out, since a column
            of which nothing is known says nothing of a row, and a warning tells how many; the others are folded in.

        Returns
        -------
        Completion
            Of the new rows.

        Raises
        ------
        InputError
            If a column is not known and ``unknown`` is "error", or a value is so far from those fitted that
            the fit's dtype cannot hold it.
        """
        return Completion(fold_in(self.targets, rows, unknown), self.features, self.step)

    # ---- files ------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the completion as one Zarr store that needs no other file; it appears when it is whole.

        It is a store of observations too (AnnData opens it), with P at ``varp/features``, or U at ``varm/features``.
        ``path`` may be a URL, as in `Observations.open`.

        Raises
        ------
        InputError
            If ``path`` exists and may not be overwritten, or holds observations that are no completion.
        StoreError
            If it cannot be written.
        """
        write_completion(path, self.targets, self.features, self.step, overwrite=overwrite)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a saved completion, at a path or a URL as in `Observations.open`.

        Raises
        ------
        StoreError
            If there is none, or it is of another version, torn or damaged.
        """
        return cls(*read_completion(path))

    # ---- inside -----------------------------------------------------------------------------------------------

    def _predicted(
        self, rows: Ids, columns: Ids, codes: bool, unknown: Unknown
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Predictions, and which of them are of cold entries; these are NaN unless offsets are wanted."""
        self.targets.check_split()
        i, j = entry_codes(self.observations, rows, columns, codes=codes, unknown=unknown)
        found, cold = serving.predict(self, i.ravel(), j.ravel()).reshape(i.shape), (i < 0) | (j < 0)
        if unknown != "offsets":
            found[cold] = np.nan
        return found, cold

    def _score_given(self, rows: Ids, columns: Ids, values: Any, codes: bool, unknown: Unknown) -> Scores:
        """Scores of entries that are given."""
        wrong = InputError("rows, columns and values must be of one length, and the values finite numbers")
        try:
            observed = np.asarray(np.nan if values is None else values, np.float64)
            fits = np.shape(rows) == np.shape(columns) == observed.shape and observed.size > 0
        except (TypeError, ValueError):
            raise wrong from None
        if not fits or not np.isfinite(observed).all():
            raise wrong
        if np.abs(observed).max() > LARGEST:
            raise InputError(f"the value {observed.flat[np.abs(observed).argmax()]:g} cannot be squared; rescale them")
        predicted, cold = self._predicted(rows, columns, codes, unknown)
        scores = Scores.of(predicted, observed, cold)
        if not scores.count:
            why = "has ids that were seen in fitting" if cold.all() else "is determined by what was observed"
            raise InputError(f"none of these entries {why}: there is nothing to score")
        return scores

    def _ranked(self, rows: NDArray[np.int64], k: int, exclude_observed: bool) -> Iterator[pd.DataFrame]:
        """Tables of what is recommended to ascending codes of rows."""
        import pandas as pd

        check_whole("k", k, 1)
        parts = serving.greatest_predictions(self, rows, int(k), exclude_observed)
        return (pd.DataFrame(dict(zip(RECOMMENDED, part, strict=True))) for part in parts)

    def _with_ids(self, frame: pd.DataFrame, row_ids: pd.Index[Any]) -> pd.DataFrame:
        """The same table with ids for codes."""
        ids = {"row": row_ids, "column": self.observations.column_ids}
        ids["similar"] = ids["column"]
        return frame.assign(**{name: ids[name].take(frame[name].to_numpy()) for name in frame if name in ids})
