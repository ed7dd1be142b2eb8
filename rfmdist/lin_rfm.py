"""`LinRFM`: matrix completion by linear Recursive Feature Machines. Knows parameters; the loop is in fitting.py."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rfmdist.certificate import Certificate
from rfmdist.choosing import Choice
from rfmdist.engine.plan import FeatureKind, Sides
from rfmdist.engine.run import executor
from rfmdist.errors import InputError
from rfmdist.estimator import Estimator
from rfmdist.features.augmented import Extras
from rfmdist.features.protocol import Scores
from rfmdist.fitting import Fit
from rfmdist.machine import hand_back_memory, steady_memory
from rfmdist.observations.blocks import ALL_ROLES, FITTED_ROLES, Role
from rfmdist.observations.draws import Fold
from rfmdist.observations.offsets import OffsetKind
from rfmdist.observations.pairs import as_observations, ids_of_pairs
from rfmdist.observations.store import Observations
from rfmdist.observations.summary import Summary
from rfmdist.observations.targets import one_split
from rfmdist.parameters import check_extras, check_parameters
from rfmdist.planning import plan_here
from rfmdist.progress import Iteration
from rfmdist.recovery import Recovered
from rfmdist.selection import choosing_bound

Callback = Callable[[Iteration], "bool | None"]
SCORED_FOLDS = 5
"""Of new rows one part in so many is scored, the others are folded in."""


class LinRFM(Estimator):
    """Matrix completion with learned features: lin-RFM, arXiv 2401.04553, Algorithm 1 for observed entries.

    Each iteration solves every row by ridge regression with the feature matrix P, then sets P to a power of the
    average gradient outer product (AGOP)::

        a_i  = (P[O_i, O_i] + ridge I)^-1 y_i        dual coefficients of row i, O_i its observed columns
        Z    = A (P + replacement ridge I)           the completed matrix
        AGOP = Z'Z / m
        P    = (AGOP + floor I)^(2 power)            P = I at the start

    Values are fitted less their offsets and divided by their root mean square, so that ``ridge`` and ``floor``
    have no unit. P is n × n, or kept as a factor U of n × rank; where both sides take turns, the columns are solved
    with features of the rows, Q = (ZZ'/n + floor I)^(2 power), before the next P is made.

    Parameters
    ----------
    features : {"auto", "dense", "factored"}, default "auto"
        How P is kept. "dense" is exact, n × n, for up to some tens of thousands of columns; "factored" costs what
        alternating least squares costs, at any size. "auto" takes what needs fewer flops to arrive and fits memory.
    rank : int, list of int or "auto", default "auto"
        Columns of U: an upper bound, the rank of the data need not be known. "auto" tries 16, 64 and 128 while that
        lowers the validation error (the search for what has no noise 32, 64 and 128); without validation entries it
        is 32. Of several, a fit is made for each, and predictions are their mean: (64, 128) lowers the error on
        MovieLens by 0.002 or more, for the price of both; what has no noise is fitted at the greatest alone. Without
        effect on dense features.
    sides : {"auto", "columns", "both"}, default "auto"
        "columns" is the paper's form. "both" lets columns and rows take turns: twice the work an iteration, a third
        of the iterations or fewer, and recovery from fewer entries. "auto" is both for factored features, as long
        as memory holds a factor of all rows, and columns for dense ones.
    power : float, Fraction or "exponential", default 0.5
        α, a positive fraction with a denominator of at most 12; a float stands for the one it is nearest to. It is
        iteratively reweighted least squares with p = 2 − 4α: 1/4 is the nuclear norm, 1/2 (default, best in the
        paper's experiments) the log-determinant, 1 is p = −2; `rfmdist.objective` has what is minimised. No power needs
        an SVD: multiples of 1/2 are products alone, others ask for roots, by some 40 to 100 products of n × n, of which
        factored features make r × r. "exponential" is no power: P = I − exp(−(AGOP + floor I)), by scaling and
        squaring, for dense features. It weighs small directions as the log-determinant does and leaves large ones
        alone: what it minimises is Σ σ²/2 + m log(1 − exp(−σ²/m − ε))/2.
    ridge : float or "auto", default "auto"
        λ ≥ 0, in units of the fitted values' mean square. "auto" lowers it from 1 or 0.8 along a path and keeps the
        iterate with the least validation error: a fast path where there is no noise, a slow one where there is.
    floor : float, default 0.0
        ε ≥ 0, added to the AGOP's diagonal before the power.
    replacement : float or "auto", default "auto"
        ω ≥ 0, how much of the residual on observed entries goes back into Z: 0 none, 1 puts the observed
        values back in place (the authors' code), more over-relaxes: near 1/density converges fastest without noise.
        "auto" tries 1, 5 and 0.4/density (columns only: 1/density) on coarse paths; unless the error rose on all of
        them, which tells noise, it searches with the last. The validation entries decide. A number given leaves the
        search out.
    indicators : float or "auto", default "auto"
        Weight c ≥ 0 of the block that tells which entries were observed: who rated what says something of both.
        [[Y, X], [X, ?]] is completed, X the standardised indicators of the fitted entries with deviation c in units
        of the values' (never formed: a sparse matrix less one of rank one). For ratings 0.2 to 0.5; where what is
        observed is random it says nothing. This and the next three need factored features, both sides and floor 0;
        "auto" tries each on the validation entries and keeps what lowers their error by 1e-4 of it.
    ridge_by_count : float or "auto", default "auto"
        Exponent q ≥ 0: a row of p entries has the ridge λ ((p + 5) / (mean p + 5))^q, columns alike. "auto" tries 0.3.
    row_scale : float or "auto", default "auto"
        Exponent ≥ 0 of rows' scales: values are divided by the row's damped standard deviation to this power, and
        predictions multiplied. "auto" tries 0.5. Needs offsets that are fitted.
    side_weight : float or "auto", default "auto"
        Weight ≥ 0 of side columns, which are offered to every solve beside the learned features: the logarithm of
        the counts, the first offsets, and those of ``row_table`` and ``column_table``. "auto" tries 0.1.
    row_table, column_table : list of str, default ()
        Names of columns of the store's tables about rows and columns (`Observations.store_table`), numbers or
        categories, that become side columns. Each number and each category costs as much as one more rank.
    cosine_features : int, default 0
        That many random cosine features of the learned ones are put beside them for one last solve: a Gaussian kernel
        on what was learned. 256 lowers the error of ratings by 0.001 to 0.002 for the price of some iterations, and of
        predictions that cost as much as with 256 more ranks.
    offsets : {"both", "rows", "columns", "global", "stored"} or None, default "both"
        What explains values before features do (see `rfmdist.fit_offsets`). Ratings want "both"; matrices that are
        low-rank as they stand want None. With factored features they are fitted anew with every solve, jointly
        with its coefficients. Stored offsets are used as they are: fit them on training entries alone.
    clip : "auto", (low, high) or None, default "auto"
        Range of predictions. "auto" takes the values' range if both ends are met again and again, as with ratings,
        and none for a matrix that is recovered.
    dtype : {"float32", "float64"}, default "float32"
        Of solves and products; sums over rows are float64 either way. float32 is twice as fast and its rounding
        is far below the noise of ratings; recovery beyond 1e-5 needs float64.
    max_iter : int, default 300
        Most iterations of each stage of the fit; the validation entries stop it earlier. Of a recovery, of each search;
        its finish has bounds of its own.
    tol : float, default 1e-4
        The fit stops after 3 iterations that do not lower the validation error by this share; without
        validation entries, when P changes by less than this share.
    validation_fraction : float, default 0.1
        Share of the training entries held out when the store has no validation entries; 0 for none, which needs
        ``ridge`` and ``replacement`` as numbers.
    noise : float or "auto", default "auto"
        Standard deviation of the noise in the values, in their own units. With a number the matrix is taken to be of
        low rank, whatever the rank is, and recovered: from 1.05 to 1.2 times as many entries as it has degrees of
        freedom if there is no noise. 0 says that values are exact: no validation entries are needed, those there are
        are fitted too, what was observed is predicted as it was, and ``certificate_`` tells whether the matrix is
        determined. Rows and columns that no chain of entries links are recovered apart. More than 0: validation entries
        tell. Solves are then in float64 whatever ``dtype`` is, ``rank`` bounds the rank, and no offsets are taken off
        but stored ones: row and column means add at most 2 to the rank. "auto" lets a trial tell; where it finds no
        noise, and no offsets of rows or columns are fitted, recovery is tried too and the lower validation error kept.
    refit : bool, default True
        Repeat the fit on training and validation entries with the settings and number of iterations chosen.
    memory : str, int or None, default None
        Budget for the process that fits, or for each worker of a cluster, such as "4GB" or a number of bytes: what is
        "auto" is chosen to stay within it, blocks are kept as far as there is room, and a fit that cannot be held is
        refused. None takes what is free on the machine.
    random_state : int, default 0
        Seed of the held-out entries and of factored features' random start.
    verbose : int, default 0
        1 prints a line an iteration to standard error.
    callbacks : list of callables, optional
        Each is called with an `Iteration` after every iteration; one that returns True ends that stage. One with a
        method ``planned`` is given the plan and the observations before work begins.

    Attributes
    ----------
    completion_ : Completion
        The completed matrix.
    history_ : list of Iteration
        Every iteration of every stage ("try", "fit", "refit"; of a recovery "search", "finish").
    n_iter_ : int
        Iterations that led to the completion.
    validation_rmse_ : float
        Error on the validation entries of the iterate kept, before the refit; NaN without any.
    ridge_, replacement_ : float
        Settings of the iterate kept, of the last of several ranks.
    rank_ : int or tuple of int
        Columns of U of the iterate kept, of each of several; n for dense features; of a recovered matrix its rank.
    extras_ : Extras
        Weights of the additions: ``indicators``, ``ridge_by_count``, ``row_scale``, ``side_weight``; 0 is off.
    certificate_ : Certificate or None
        Of a recovery: whether the matrix is determined by what was observed, and why; None after any other fit. Its
        ``components`` tell the same of each connected component of the observed entries.
    determined_rows_, determined_columns_ : bool ndarray of shape (m,) and (n,), or None
        Of a recovery: the rows and columns that the entries determine. Elsewhere, and between components, predictions
        are NaN, but for what was observed, which without noise is predicted as it was. If the certificate is not
        given, predictions in rows and columns that are not determined are a guess.
    n_features_in_ : int
        Columns n.
    plan_ : Plan
        What was chosen and why, how the work was cut, and the bytes and flops foreseen.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from rfmdist import LinRFM
    >>> rng = np.random.default_rng(0)
    >>> matrix = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 40))
    >>> observed = sp.coo_array(matrix * (rng.random(matrix.shape) < 0.5))
    >>> model = LinRFM(offsets=None, dtype="float64").fit(observed)
    >>> bool(np.allclose(model.completion_.predict_block().compute(), matrix, atol=1e-2))
    True
    """

    def __init__(
        self,
        *,
        features: FeatureKind | Literal["auto"] = "auto",
        rank: int | Sequence[int] | Literal["auto"] = "auto",
        sides: Sides | Literal["auto"] = "auto",
        power: float | Fraction | Literal["exponential"] = 0.5,
        ridge: float | Literal["auto"] = "auto",
        floor: float = 0.0,
        replacement: float | Literal["auto"] = "auto",
        indicators: float | Literal["auto"] = "auto",
        ridge_by_count: float | Literal["auto"] = "auto",
        row_scale: float | Literal["auto"] = "auto",
        side_weight: float | Literal["auto"] = "auto",
        row_table: Sequence[str] = (),
        column_table: Sequence[str] = (),
        cosine_features: int = 0,
        offsets: OffsetKind | Literal["stored"] | None = "both",
        clip: Literal["auto"] | tuple[float, float] | None = "auto",
        dtype: Any = "float32",
        max_iter: int = 300,
        tol: float = 1e-4,
        validation_fraction: float = 0.1,
        noise: float | Literal["auto"] = "auto",
        refit: bool = True,
        memory: str | int | None = None,
        random_state: int = 0,
        verbose: int = 0,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        self.features = features
        self.rank = rank
        self.sides = sides
        self.power = power
        self.ridge = ridge
        self.floor = floor
        self.replacement = replacement
        self.indicators = indicators
        self.ridge_by_count = ridge_by_count
        self.row_scale = row_scale
        self.side_weight = side_weight
        self.row_table = row_table
        self.column_table = column_table
        self.cosine_features = cosine_features
        self.offsets = offsets
        self.clip = clip
        self.dtype = dtype
        self.max_iter = max_iter
        self.tol = tol
        self.validation_fraction = validation_fraction
        self.noise = noise
        self.refit = refit
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks

    def fit(self, observations: Any, y: Any = None, *, client: Any = None) -> Self:
        """Complete the observed matrix.

        Parameters
        ----------
        observations : Observations, scipy sparse matrix of shape (m, n), or pairs of ids of shape (entries, 2)
            What was observed; test entries are left alone.
        y : array_like of shape (entries,), optional
            Values of the entries where these are given as pairs of row id and column id; else ignored.
        client : distributed.Client, optional
            Cluster to run on; in process, on all cores, when left out. The result is the same bits.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a parameter is out of range, there are no training entries, memory cannot hold the features, or another
            split is stored meanwhile.
        StoreError
            If the store is damaged.

        Warns
        -----
        UserWarning
            If all values are equal, as where clicks are given as ones: then nothing can be learned from them.
        """
        check_parameters(self)
        steady_memory()
        observations = self._with_validation(as_observations(observations, y))
        self.history_: list[Iteration] = []
        self.n_features_in_ = observations.shape[1]
        with one_split(observations) as check_split, executor(client, observations.scratch_folder()) as run:
            self.plan_ = plan_here(self, observations, client, run.scratch)
            run.stripe = self.plan_.stripe
            check_extras(self, self.plan_)
            self._tell_plan(observations)
            if self.verbose:
                print(f"choosing takes at most {self.choosing_bound:.1f} times as long as one fit", file=sys.stderr)
            fit = Fit(self, observations, self.plan_, run, check_split)
            self._check_counts(observations, fit.counts)
            self._tell_constant(observations, fit.preparation.seen.of(FITTED_ROLES).summary)
            found = Choice(fit).recover()
            if isinstance(found, Recovered):
                return self._recovered(found)
            completion, self.validation_rmse_ = fit.combined(found)
            if self.refit and fit.validated:
                found = [fit.repeated(result) for result in found]
                completion, _ = fit.combined(found)
            self.completion_ = fit.finish(completion)
        hand_back_memory()
        self.n_iter_ = sum(len(result.points) for result in found)
        self.ridge_, ranks = found[-1].points[-1].ridge, tuple(result.points[-1].rank for result in found)
        self.rank_: int | tuple[int, ...] = ranks if len(ranks) > 1 else ranks[0]
        self.replacement_, self.extras_ = found[-1].settings
        self.certificate_: Certificate | None = None
        self.determined_rows_: NDArray[np.bool_] | None = None
        self.determined_columns_: NDArray[np.bool_] | None = None
        return self

    @property
    def choosing_bound(self) -> float:
        """Most time that trials of settings that are "auto" can take, in fits of 20 iterations at rank 64.

        Not counted are paths at the ranks that are tried, each a fit of its own, and a search where there is no noise.
        """
        extras = sum(getattr(self, name) == "auto" for name in Extras._fields)
        return choosing_bound(3 if self.replacement == "auto" else 1, extras) if self.noise != 0 else 0.0

    def predict(self, rows: Any, columns: Any = None, *, codes: bool = False) -> Any:
        """Predict entries by id or code, as `Completion.predict`.

        ``columns`` may be left out where ``rows`` are pairs of row id and column id, of shape (entries, 2), as
        scikit-learn gives them.
        """
        self._check_fitted("completion_")
        if columns is None:
            rows, columns = ids_of_pairs(rows)
        return self.completion_.predict(rows, columns, codes=codes)

    def score(self, observations: Any, y: Any = None) -> float:
        """Minus the root mean squared error at the entries given: greater is better.

        Parameters
        ----------
        observations : Observations, scipy sparse matrix of shape (k, n), or pairs of ids of shape (entries, 2)
            Of Observations, the test entries are scored, or all where none is for test; rows and columns are matched
            by id. The rows of a scipy matrix are new ones, as scikit-learn's are: four fifths of their entries, drawn
            by ``random_state``, are folded in (`Completion.fold_in`), and the rest is scored.
        y : array_like of shape (entries,), optional
            Values where pairs are given.

        Raises
        ------
        InputError
            If there is nothing to score, or a matrix has another number of columns than the completed one.
        """
        self._check_fitted("completion_")
        if y is not None and not sp.issparse(observations):
            return -self.completion_.score(*ids_of_pairs(observations), y).rmse
        if sp.issparse(observations):
            return -self._score_new_rows(observations).rmse
        roles = {Role.TEST} if observations.role_counts()["test"] else ALL_ROLES
        rows, columns = observations.row_ids, observations.column_ids
        scores = Scores()
        for block in observations.row_blocks(roles):
            if len(block.values):
                scores += self.completion_.score(rows[block.rows], columns[block.indices], block.values)
        if not scores.count:
            raise InputError(f"{observations.name}: there are no entries to score, or none that is determined")
        return -scores.rmse

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that X is sparse, or pairs of ids, and not to be judged as a dense matrix of features."""
        tags = super().__sklearn_tags__()
        tags.no_validation = tags.input_tags.sparse = True
        return tags

    def _score_new_rows(self, matrix: Any) -> Scores:
        """Scores of a part of each row of a scipy matrix, predicted from the rest of it."""
        if matrix.shape[1:] != self.completion_.shape[1:]:
            raise InputError(
                f"the matrix has {matrix.shape[-1]} columns, the completed one {self.completion_.shape[1]}, and they go"
                " by place; give Observations to have them matched by id"
            )
        new = Observations.from_scipy(matrix, column_ids=self.completion_.observations.column_ids)
        return self.completion_.fold_in(new[Fold(0, SCORED_FOLDS, self.random_state).index]).score()

    def _tell_constant(self, observations: Observations, summary: Summary) -> None:
        """Warn of values that are all equal, which only a matrix without noise may mean as they stand."""
        if summary.count > 1 and summary.least == summary.greatest and self.noise != 0:
            warnings.warn(
                f"{observations.name}: all {summary.count} values are {summary.least:g}, so that there is nothing to"
                " learn from them but which entries were observed; give values that differ, such as counts or ratings",
                stacklevel=3,
            )

    def _tell_plan(self, observations: Observations) -> None:
        """Show the plan before work begins: to callbacks with a method ``planned``, and where it is verbose."""
        for callback in self.callbacks or ():
            if hasattr(callback, "planned"):
                callback.planned(self.plan_, observations)
        if self.verbose:
            print(f"plan: {self.plan_.told()}", file=sys.stderr)

    def _recovered(self, found: Recovered) -> Self:
        """Keep what a recovery has found."""
        self.completion_, self.certificate_ = found.completion, found.certificate
        self.determined_rows_, self.determined_columns_ = found.rows, found.columns
        self.validation_rmse_, self.n_iter_ = found.certificate.held_out, found.steps
        self.ridge_, self.replacement_ = found.completion.step.ridge, found.completion.step.replacement
        self.rank_, self.extras_ = found.certificate.rank, Extras()
        return self

    def _with_validation(self, observations: Observations) -> Observations:
        """Observations with a part held out for validation, if they have none and some are wanted."""
        counts = observations.role_counts()
        self._check_counts(observations, counts | {"validation": 1})  # before anything is planned for nothing
        if counts["validation"] or not self.validation_fraction or self.noise == 0:
            return observations
        return observations.hold_out(self.validation_fraction, self.random_state)

    def _check_counts(self, observations: Observations, counts: dict[str, int]) -> None:
        """Refuse observations without training entries, or without the validation entries that are needed."""
        exact = self.noise == 0  # nothing is then left to be chosen
        if not counts["train"]:
            raise InputError(f"{observations.name}: there are no training entries to fit; split it otherwise")
        if not counts["validation"] and self.noise not in ("auto", 0):
            raise InputError(
                f"{observations.name}: there are no validation entries to judge a recovery with noise by; split it with"
                " some, or choose a validation_fraction above 0"
            )
        if not counts["validation"] and not exact and "auto" in (self.ridge, self.replacement):
            raise InputError(
                f"{observations.name}: there are no validation entries to choose settings by; split it with some,"
                " or give ridge and replacement as numbers, or noise=0 where values are exact"
            )
