"""What a fit asks of a recovery: one told the noise, or one that must do better than the usual fit, and its repetition.

Knows which entries are fitted and when a recovery stands; how a matrix is recovered is in recovery.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from rfmdist.engine.plan import Plan
from rfmdist.engine.run import Executor
from rfmdist.errors import InputError
from rfmdist.kernels.threads import one_blas_thread
from rfmdist.observations.blocks import FITTED_ROLES, Role
from rfmdist.observations.kept import Entries
from rfmdist.observations.offsets import fit_offsets
from rfmdist.observations.scales import measure
from rfmdist.observations.store import Observations
from rfmdist.observations.targets import Targets
from rfmdist.progress import Iteration
from rfmdist.recovery import Recovered, Recovery

if TYPE_CHECKING:
    from rfmdist.lin_rfm import LinRFM

TRAIN = frozenset({Role.TRAIN})
NEARLY = 1e-4
"""Held-out error, in units of the values, below which a fit without noise has recovered the matrix as it is."""


def recover(
    model: LinRFM, observations: Observations, plan: Plan, run: Executor, tell: Callable[[Iteration], bool]
) -> Recovered | None:
    """Recover a matrix whose noise is known; None where there is noise and nothing is certified.

    Without noise training and validation entries are fitted, and an answer that is not certified is the search's.
    """
    noise = float(model.noise)
    with one_blas_thread():
        targets = _targets(model, observations, plan, run, TRAIN if noise else FITTED_ROLES)
        recovery = Recovery(model, targets, plan, run, noise, tell)
        found = recovery.search()
        recovery.release()
        if not found.certificate.certified:
            rest = "the completion is the usual fit's" if noise else "the completion is the search's and only a guess"
            warnings.warn(
                f"no matrix of low rank could be certified from {recovery.whole.entries} entries; {rest}", stacklevel=4
            )
            return None if noise else found
        return _repeated(model, observations, plan, run, tell, noise, found) if noise and model.refit else found


def recover_beyond(
    model: LinRFM,
    observations: Observations,
    plan: Plan,
    run: Executor,
    tell: Callable[[Iteration], bool],
    error: float,
) -> Recovered | None:
    """Recover a matrix that seems to have no noise, if that lowers the ``error`` on the validation entries."""
    with one_blas_thread():
        recovery = Recovery(model, _targets(model, observations, plan, run, TRAIN), plan, run, 0.0, tell, error)
        found = recovery.search(restarts=1) if error > NEARLY * recovery.targets.unit else None
        recovery.release()
        if found is None or not found.certificate.certified or not found.certificate.held_out < error:
            return None
        return _repeated(model, observations, plan, run, tell, 0.0, found) if model.refit else found


def _repeated(
    model: LinRFM,
    observations: Observations,
    plan: Plan,
    run: Executor,
    tell: Callable[[Iteration], bool],
    noise: float,
    found: Recovered,
) -> Recovered:
    """Repeat the finish on all fitted entries, from the factor found; that fit stands if this one ends nowhere."""
    targets = _targets(model, observations, plan, run, FITTED_ROLES)
    again = Recovery(model, targets, plan, run, noise, tell, known=found.certificate)
    repeated = again.finish(found.factor)
    again.release()
    return found if repeated is None else repeated._replace(steps=found.steps + repeated.steps)


def _targets(model: LinRFM, observations: Observations, plan: Plan, run: Executor, roles: frozenset[Role]) -> Targets:
    """Return what is fitted, in float64: the values less what does not depend on the fit."""
    offsets = observations.offsets if model.offsets == "stored" else fit_offsets(observations, None)
    if model.noise == "auto" and model.offsets == "global":
        offsets = fit_offsets(observations, "global", roles=roles)
    if offsets is None:
        raise InputError(f"{observations.name}: no offsets are stored; store some or choose offsets=None")
    clip = None if model.clip == "auto" else model.clip  # the matrix is known beyond what was seen of it
    scored = frozenset({Role.VALIDATION}) - roles
    spread = measure(Entries(observations, roles), offsets, run)
    spread.check(observations.name)
    dtype = np.dtype(np.float64)
    return Targets(observations, offsets, spread.unit(), dtype, roles, scored, clip, keep_bytes=plan.kept_bytes)
