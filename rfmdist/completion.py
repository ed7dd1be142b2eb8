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
from rfmdist.engine import work
from rfmdist.engine.groups import equal_groups
from rfmdist.engine.run import Executor, executor
from rfmdist.errors import InputError
from rfmdist.features.protocol import Features, Scores, Step
from rfmdist.observations.blocks import Offsets, Role
from rfmdist.observations.offsets import row_offsets
from rfmdist.observations.store import Observations
from rfmdist.observations.targets import Targets
from rfmdist.saving import read_completion, write_completion

if TYPE_CHECKING:  # imported where they are used: a fit needs neither
    import dask.array as da
    import pandas as pd

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
            In the values' own units, clipped to their scale where there is one. After a recovery NaN in rows and
            columns that the observations do not determine, and between those that no chain of entries links.

        Raises
        ------
        InputError
            If an id or a code is not known, or the store was split anew after the fit.
        """
        self.targets.check_split()
        i = self._codes(rows, 0, codes)
        j = self._codes(columns, 1, codes)
        try:
            i, j = np.broadcast_arrays(i, j)
        except ValueError:
            raise InputError(f"rows and columns must be of one length, not {i.size} and {j.size}") from None
        return serving.predict(self, i.ravel(), j.ravel()).reshape(i.shape)

    def predict_block(self, start: int = 0, stop: int | None = None) -> da.Array:
        """All columns of rows ``start`` to ``stop`` (codes), lazily.

        Returns
        -------
        dask.array.Array of shape (stop - start, n)
            float64, one chunk a row block; nothing is computed until asked for. As with slices, a ``stop``
            beyond the last row means that row. NaN as in `predict`, whose numbers these are up to rounding.

        Raises
        ------
        InputError
            If ``start`` is negative or beyond ``stop``, or the store was split anew after the fit.
        """
        import dask.array as da
        from dask.delayed import delayed

        self.targets.check_split()
        n, last = self.shape[1], self.shape[0] if stop is None else min(stop, self.shape[0])
        if not 0 <= start <= last:
            raise InputError(f"rows {start} to {last} are not a range within 0 to {self.shape[0]}")
        rows = max(1, work.DENSE_ENTRIES // max(n, 1))
        handle, meta = delayed(self, pure=False), np.empty((0, 0))
        blocks = [
            da.from_delayed(delayed(serving.complete)(handle, a, b), (b - a, n), meta=meta)
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
            With ``rmse``, ``mae`` and ``count``, the number of entries scored: those without a prediction, in rows and
            columns that are not determined, are left out.

        Raises
        ------
        InputError
            If there are no entries to score, an id is not known, or the store was split anew after the fit.
        """
        if any(given is not None for given in (rows, columns, values)):
            wrong = InputError("rows, columns and values must be of one length, and the values finite numbers")
            try:
                observed = np.asarray(np.nan if values is None else values, np.float64)
            except (TypeError, ValueError):
                raise wrong from None
            fits = np.shape(rows) == np.shape(columns) == observed.shape and observed.size > 0
            if not fits or not np.isfinite(observed).all():
                raise wrong
            scores = Scores.of(self.predict(rows, columns, codes=codes), observed)
            if not scores.count:
                raise InputError("none of these entries is determined by what was observed: there is nothing to score")
            return scores
        self.targets.check_split()
        with executor(client) as run:
            scores = self.score_role(Role.TEST, run)
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
        self, rows: Ids = None, k: int = 10, *, exclude_observed: bool = True, codes: bool = False
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

        Returns
        -------
        pandas.DataFrame
            Columns row, rank (from 1), column and prediction, the rows in the order given, best first; nothing that
            is not determined. The rank goes by predictions before they are clipped, which tells apart what is clipped
            to the same value; equal ones rank by column code.

        Raises
        ------
        InputError
            If an id or a code is not known, ``k`` is not a positive whole number, or the store was split anew after the
            fit.
        """
        import pandas as pd

        wanted = None if rows is None else pd.unique(np.ravel(self._codes(rows, 0, codes)))
        frames = self.recommendations(wanted, k, exclude_observed=exclude_observed, codes=True)
        frame = pd.concat(frames, ignore_index=True)
        if wanted is not None:
            places = pd.Index(wanted).get_indexer(pd.Index(frame["row"]))
            frame = frame.iloc[np.argsort(places, kind="stable")].reset_index(drop=True)
        return frame if codes else self._with_ids(frame)

    def recommendations(
        self, rows: Ids = None, k: int = 10, *, exclude_observed: bool = True, codes: bool = False
    ) -> Iterator[pd.DataFrame]:
        """Yield what `recommend` returns, by blocks of rows in the store's order, in bounded memory.

        Parameters and columns are those of `recommend`; there is one frame at least, which may be empty.
        """
        import pandas as pd

        self.targets.check_split()
        k = _checked_count(k)
        wanted = np.arange(self.shape[0]) if rows is None else np.unique(self._codes(rows, 0, codes))
        parts = serving.greatest_predictions(self, wanted, k, exclude_observed)
        frames = (pd.DataFrame(dict(zip(RECOMMENDED, part, strict=True))) for part in parts)
        return frames if codes else map(self._with_ids, frames)

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

        wanted = pd.unique(np.ravel(self._codes(columns, 1, codes)))
        ranked = serving.most_similar(self.features, wanted, _checked_count(k))
        frame = pd.DataFrame(dict(zip(SIMILAR, ranked, strict=True)))
        return frame if codes else self._with_ids(frame)

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
        return Completion(self._targets_of(new, offsets), self.features, self.step)

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

    def _targets_of(self, new: Observations, offsets: Offsets) -> Targets:
        """Targets of new rows; their scales are measured as those of the fitted rows were."""
        scales = self.targets.scales
        if scales is not None:
            measured = replace(scales.offsets, rows=np.zeros(new.shape[0]))
            if measured.row_shrinkage is not None:
                for block in new.row_blocks(self.targets.fitted):
                    measured.rows[block.start : block.stop] = row_offsets(block, measured, measured.row_shrinkage)
            scales = scales.for_rows(new.row_blocks(self.targets.fitted), measured)
        return replace(self.targets, observations=new, offsets=offsets, scales=scales, split=new.split_mark)

    def _codes(self, given: Ids, axis: int, codes: bool) -> NDArray[np.int64]:
        """Codes of ids along an axis, all of them known."""
        from rfmdist.observations.ids import known_codes

        return known_codes(self.observations, given, axis, codes=codes)

    def _with_ids(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The same table with ids for codes."""
        ids = {"row": self.observations.row_ids, "column": self.observations.column_ids}
        ids["similar"] = ids["column"]
        return frame.assign(**{name: ids[name].take(frame[name].to_numpy()) for name in frame if name in ids})

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


def _checked_count(k: Any) -> int:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k={k!r} must be a whole number of at least 1")
    return int(k)
