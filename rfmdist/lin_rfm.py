"""`LinRFM`: matrix completion by linear Recursive Feature Machines. Knows the loop; not Dask, files or kernels."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from rfmdist.completion import Completion
from rfmdist.engine import work
from rfmdist.engine.plan import Plan, check_memory, plan_dense
from rfmdist.engine.run import Executor, executor
from rfmdist.errors import InputError, SingularRowError
from rfmdist.features.dense import DenseFeatures
from rfmdist.features.protocol import Partial, Step
from rfmdist.observations.blocks import FITTED_ROLES, Role
from rfmdist.observations.offsets import OffsetKind, fit_offsets
from rfmdist.observations.store import Observations
from rfmdist.observations.summary import summarize
from rfmdist.observations.targets import Targets
from rfmdist.parameters import check_parameters
from rfmdist.progress import Iteration, report
from rfmdist.selection import (
    NOISELESS_RIDGE,
    PATIENCE,
    TRIAL_ITERATIONS,
    Best,
    Schedule,
    candidates,
    ridge_schedule,
)

Stage = Literal["try", "fit", "refit"]
Callback = Callable[[Iteration], "bool | None"]


class LinRFM(BaseEstimator):
    """Matrix completion with learned features: lin-RFM, arXiv 2401.04553, Algorithm 1 for observed entries.

    Each iteration solves every row by ridge regression with the feature matrix P, then sets P to a power of the
    average gradient outer product (AGOP)::

        a_i  = (P[O_i, O_i] + ridge I)^-1 y_i        dual coefficients of row i, O_i its observed columns
        Z    = A (P + replacement ridge I)           the completed matrix
        AGOP = Z'Z / m
        P    = (AGOP + floor I)^(2 power)            P = I at the start

    Values are fitted less their offsets and divided by their root mean square, so that ``ridge`` and ``floor``
    have no unit. The features are exact: n × n, for up to some tens of thousands of columns.

    Parameters
    ----------
    power : float, default 0.5
        α, a positive multiple of 1/2. It is iteratively reweighted least squares with p = 2 − 4α: 1/2 (default,
        best in the paper's experiments) is the log-determinant, 1 is p = −2.
    ridge : float or "auto", default "auto"
        λ ≥ 0, in units of the fitted values' mean square. "auto" lowers it from 1 by a tenth an iteration and keeps
        the iterate with the least validation error.
    floor : float, default 0.0
        ε ≥ 0, added to the AGOP's diagonal before the power.
    replacement : float or "auto", default "auto"
        ω ≥ 0, how much of the residual on observed entries goes back into Z: 0 none, 1 puts the observed
        values back in place (the authors' code), more over-relaxes: 1/density converges fastest without noise.
        "auto" fits with 1/density and, if the values prove noisy, tries 5 and 1 in 6 iterations each; the validation
        entries decide.
    offsets : {"both", "rows", "columns", "global", "stored"} or None, default "both"
        What is taken off before fitting (see `rfmdist.fit_offsets`). Ratings want "both"; matrices that are
        low-rank as they stand want None. Stored offsets are used as they are: fit them on training entries alone.
    clip : "auto", (low, high) or None, default "auto"
        Range of predictions. "auto" takes the values' range if both ends are met again and again, as with ratings.
    dtype : {"float32", "float64"}, default "float32"
        Of solves and products; sums over rows are float64 either way. float32 is twice as fast and its rounding
        is far below the noise of ratings; recovery beyond 1e-5 needs float64.
    max_iter : int, default 300
        Most iterations of the fit; the validation entries stop it earlier.
    tol : float, default 1e-4
        The fit stops after 3 iterations that do not lower the validation error by this share; without
        validation entries, when P changes by less than this share.
    validation_fraction : float, default 0.1
        Share of the training entries held out when the store has no validation entries; 0 for none, which needs
        ``ridge`` and ``replacement`` as numbers.
    refit : bool, default True
        Repeat the fit on training and validation entries with the settings and number of iterations chosen.
    random_state : int, default 0
        Seed of the held-out entries.
    verbose : int, default 0
        1 prints a line an iteration to standard error.
    callbacks : iterable of callables, optional
        Each is called with an `Iteration` after every iteration; one that returns True ends that stage.

    Attributes
    ----------
    completion_ : Completion
        The completed matrix.
    history_ : list of Iteration
        Every iteration of every stage ("try", "fit", "refit").
    n_iter_ : int
        Iterations that led to the completion.
    validation_rmse_ : float
        Error on the validation entries of the iterate kept, before the refit; NaN without any.
    ridge_, replacement_ : float
        Settings of the iterate kept.
    n_features_in_ : int
        Columns n.
    plan_ : Plan
        How the work was cut, and the bytes and flops foreseen.

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
        power: float = 0.5,
        ridge: float | Literal["auto"] = "auto",
        floor: float = 0.0,
        replacement: float | Literal["auto"] = "auto",
        offsets: OffsetKind | Literal["stored"] | None = "both",
        clip: Literal["auto"] | tuple[float, float] | None = "auto",
        dtype: Any = "float32",
        max_iter: int = 300,
        tol: float = 1e-4,
        validation_fraction: float = 0.1,
        refit: bool = True,
        random_state: int = 0,
        verbose: int = 0,
        callbacks: Iterable[Callback] | None = None,
    ) -> None:
        self.power = power
        self.ridge = ridge
        self.floor = floor
        self.replacement = replacement
        self.offsets = offsets
        self.clip = clip
        self.dtype = dtype
        self.max_iter = max_iter
        self.tol = tol
        self.validation_fraction = validation_fraction
        self.refit = refit
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks

    def fit(self, observations: Any, y: Any = None, *, client: Any = None) -> Self:
        """Complete the observed matrix.

        Parameters
        ----------
        observations : Observations, or scipy sparse matrix of shape (m, n)
            What was observed; test entries are left alone.
        y : None
            Ignored; scikit-learn's convention.
        client : distributed.Client, optional
            Cluster to run on; in process, on all cores, when left out. The result is the same bits.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a parameter is out of range, there are no training entries, or memory cannot hold P.
        StoreError
            If the store is damaged.
        """
        check_parameters(self)
        if not isinstance(observations, Observations):
            observations = Observations.from_scipy(observations)
        observations = self._with_validation(observations)
        self.history_: list[Iteration] = []
        self.n_features_in_ = observations.shape[1]
        self.plan_ = plan_dense(observations, self.dtype, self.power)
        check_memory(self.plan_)
        with executor(client) as run:
            fit = _Fit(self, observations, self.plan_, run)
            schedule = ridge_schedule(self.ridge, self.dtype)
            weight, result = fit.choose(schedule)
            self.validation_rmse_ = result.error if fit.validated else float("nan")
            if self.refit and fit.validated:
                result = fit.descend("refit", FITTED_ROLES, schedule, weight, result.iterations)
        self.completion_ = result.completion
        self.n_iter_ = result.iterations
        self.ridge_, self.replacement_ = result.completion.step.ridge, weight
        return self

    def predict(self, rows: Any, columns: Any, *, codes: bool = False) -> Any:
        """Predict entries by id or code; see `Completion.predict`."""
        check_is_fitted(self, "completion_")
        return self.completion_.predict(rows, columns, codes=codes)

    def score(self, observations: Any, y: Any = None) -> float:
        """Minus the root mean squared error at all entries of ``observations``: greater is better.

        Rows and columns of Observations are matched by id, those of a scipy matrix by place.
        """
        check_is_fitted(self, "completion_")
        by_place = not isinstance(observations, Observations)
        given = Observations.from_scipy(observations) if by_place else observations
        coo = given.to_scipy().tocoo()
        rows, columns = (coo.row, coo.col) if by_place else (given.row_ids[coo.row], given.column_ids[coo.col])
        return -self.completion_.score(rows, columns, coo.data, codes=by_place).rmse

    def _with_validation(self, observations: Observations) -> Observations:
        """Observations with training entries and, unless none are wanted, validation entries."""
        if not observations.role_counts()["validation"] and self.validation_fraction:
            observations = observations.hold_out(self.validation_fraction, self.random_state)
        counts = observations.role_counts()
        if not counts["train"]:
            raise InputError(f"{observations.name}: there are no training entries to fit; split it otherwise")
        if not counts["validation"] and "auto" in (self.ridge, self.replacement):
            raise InputError(
                f"{observations.name}: there are no validation entries to choose settings by; split it with some,"
                " or give ridge and replacement as numbers"
            )
        return observations


@dataclass(frozen=True)
class _Result:
    """What a stage ends with."""

    completion: Completion
    iterations: int
    error: float


class _Fit:
    """One call of ``fit``: what stays the same over its stages."""

    def __init__(self, model: LinRFM, observations: Observations, plan: Plan, run: Executor) -> None:
        self.model, self.observations, self.plan, self.run = model, observations, plan, run
        counts = observations.role_counts()
        self.validated = counts["validation"] > 0
        self.observed_share = (counts["train"] + counts["validation"]) / np.prod(observations.shape, dtype=float)
        self.callbacks = [*(model.callbacks or ()), *([report] if model.verbose else [])]
        self.published: dict[frozenset[Role], tuple[Targets, Any]] = {}

    def choose(self, schedule: Schedule) -> tuple[float, _Result]:
        """Fit on the training entries; return the replacement weight, chosen if need be, and the result.

        Where the ridge is chosen too, the weight 1/density goes first: if its path runs on to a ridge that only
        values without noise allow, it is the fastest and nothing else is tried. With noise it ends early.
        """
        model, train = self.model, frozenset({Role.TRAIN})
        errors: dict[float, float] = {}
        weight, *others = [model.replacement] if model.replacement != "auto" else candidates(self.observed_share)
        if model.ridge == "auto" or not others:
            result = self.descend("fit", train, schedule, weight, model.max_iter)
            if not others or result.completion.step.ridge < NOISELESS_RIDGE:
                return weight, result
            errors[weight] = result.error
        trial = ridge_schedule(model.ridge, model.dtype, trial=True)
        for other in [weight, *others] if not errors else others:
            errors[other] = self.descend("try", train, trial, other, TRIAL_ITERATIONS).error
        best = min(errors, key=lambda tried: errors[tried])
        if best == weight and model.ridge == "auto":
            return weight, result
        return best, self.descend("fit", train, schedule, best, model.max_iter)

    def descend(self, stage: Stage, roles: Iterable[Role], schedule: Schedule, weight: float, limit: int) -> _Result:
        """Iterate from P = I; return the best iterate by validation error, or the last where none is validated."""
        if (wanted := frozenset(roles)) not in self.published:  # trials and fit share their targets: many passes
            targets = self._targets(wanted)
            self.published[wanted] = targets, self.run.publish(targets)
        targets, shared = self.published[wanted]
        features = DenseFeatures.start(self.observations.shape[1], self.model.dtype, self.plan.form)
        best = Best(self.model.tol, patience=1 if stage == "try" else PATIENCE)
        for t in range(limit):
            started, step = time.perf_counter(), Step(schedule.ridge(t), weight)
            completion = Completion(targets, features, step)
            error = change = float("nan")
            if stage != "refit" or t < limit - 1:  # a refit's last iterate needs no next one
                try:
                    total, features = self._advance(shared, features, step)
                except SingularRowError as singular:
                    if t == 0:
                        raise
                    if self.model.ridge != "auto":  # a path is meant to run into the dtype's end
                        warnings.warn(f"the {stage} ended after {t} iterations: {singular}", stacklevel=2)
                    break  # the best iterate before it stands
                error, change = total.scores.rmse, features.distance(completion.features)
                if not np.isfinite(change):
                    raise InputError("the features left the dtype's range: lower replacement, floor or power")
            best.offer(t, error if targets.scored else -t, completion)
            seconds = time.perf_counter() - started
            record = Iteration(stage, t + 1, limit, step.ridge, weight, error, change, seconds, completion)
            settled = best.exhausted(t) if targets.scored else stage == "fit" and change < self.model.tol
            if self._told_to_stop(record) or settled:
                break
        return _Result(best.kept, best.iteration + 1, best.error)

    def _advance(self, shared: Any, features: DenseFeatures, step: Step) -> tuple[Partial, DenseFeatures]:
        """One iteration: the sum over all groups, and the features that follow from it."""
        handle = self.run.publish(features)
        rows, power = self.observations.shape[0], round(2 * self.model.power)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
            total = self.run.reduce(work.iterate, self.plan.groups, shared, handle, step, self.plan.slab_rows)
            return total, features.update(total, rows, step, self.model.floor, power, self.run.map_panels)

    def _targets(self, roles: frozenset[Role]) -> Targets:
        """What is fitted on the entries of ``roles``."""
        model, observations = self.model, self.observations
        if model.offsets == "stored":
            offsets = observations.offsets
            if offsets is None:
                raise InputError(f"{observations.name}: no offsets are stored; store some or choose offsets='both'")
        else:
            offsets = fit_offsets(observations, model.offsets, roles=roles)
        clip = summarize(observations, roles).bounds if model.clip == "auto" else model.clip
        scored = frozenset({Role.VALIDATION}) - roles if self.validated else frozenset()
        unscaled = Targets(observations, offsets, 1.0, np.dtype(np.float64), roles, scored, clip)
        return replace(unscaled, unit=unscaled.root_mean_square(), dtype=np.dtype(model.dtype))

    def _told_to_stop(self, record: Iteration) -> bool:
        """Keep the record and tell the callbacks."""
        self.model.history_.append(replace(record, completion=None))
        answers = [callback(record) for callback in self.callbacks]
        return any(answers)
