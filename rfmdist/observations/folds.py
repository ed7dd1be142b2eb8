"""`EntryKFold`: cross-validation over entries, for scikit-learn and for loops by hand. Knows no model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from rfmdist.checks import check_whole
from rfmdist.errors import InputError
from rfmdist.observations.draws import Fold
from rfmdist.observations.pairs import codes_of_pairs
from rfmdist.observations.store import Observations


@dataclass(frozen=True)
class EntryKFold:
    """K-fold cross-validation over the observed *entries*, for `cross_val_score`, `GridSearchCV` and their like.

    scikit-learn's own splitters cut a matrix by rows; a model of a matrix is judged by entries of rows that it knows.
    Which fold an entry is in depends on the seed and on its row and column alone, so that nothing is stored, and the
    folds of a store larger than memory cost nothing but reading it. They are equal up to chance.

    Parameters
    ----------
    n_splits : int, default 5
        Number of folds, at least 2.
    random_state : int, default 0
        Seed of the draw.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sklearn.model_selection import cross_val_score
    >>> from rfmdist import EntryKFold, LinRFM, Observations
    >>> rng = np.random.default_rng(0)
    >>> matrix = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 40))
    >>> store = Observations.from_scipy(sp.coo_array(matrix * (rng.random(matrix.shape) < 0.5)))
    >>> scores = cross_val_score(LinRFM(offsets=None, dtype="float64"), store, cv=EntryKFold(3))
    >>> bool((scores > -0.01).all())  # minus the root mean squared error of each fold
    True
    """

    n_splits: int = 5
    random_state: int = 0

    def __post_init__(self) -> None:
        check_whole("n_splits", self.n_splits, 2)
        check_whole("random_state", self.random_state, 0)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds; the arguments are scikit-learn's convention and change nothing."""
        return self.n_splits

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Any, Any]]:
        """Yield for each fold an index of the entries to fit and one of those to score.

        Parameters
        ----------
        X : Observations, or pairs of ids of shape (entries, 2)
            The entries. Of a store's entries, those stored for test are in no fold.
        y, groups : None
            Ignored; scikit-learn's convention.

        Yields
        ------
        train, test
            Indices of X: positions of pairs, int64 ndarrays, or what `Observations` are indexed with.

        Raises
        ------
        InputError
            If X is a scipy matrix, which can only be cut by rows, or there are too few entries for so many folds.
        """
        if sp.issparse(X):
            raise InputError(
                "a scipy matrix can only be cut by rows: give Observations.from_scipy(matrix), or X as pairs of row and"
                " column with y as their values"
            )
        folds = self._of_observations(X) if isinstance(X, Observations) else self._of_pairs(X)
        for number, (train, test, entries) in enumerate(folds):
            if not entries:
                raise InputError(f"fold {number} of {self.n_splits} has no entries, so few there are; take fewer folds")
            yield train, test

    def _of_observations(self, observations: Observations) -> Iterator[tuple[Any, Any, int]]:
        for number in range(self.n_splits):
            train, test = (Fold(number, self.n_splits, self.random_state, scored).index for scored in (False, True))
            yield train, test, observations[test].role_counts()["test"]

    def _of_pairs(self, pairs: Any) -> Iterator[tuple[Any, Any, int]]:
        rows, columns, *_ = codes_of_pairs(pairs)
        for number in range(self.n_splits):
            chosen = Fold(number, self.n_splits, self.random_state).holds(rows, columns)
            yield np.flatnonzero(~chosen), np.flatnonzero(chosen), int(chosen.sum())
