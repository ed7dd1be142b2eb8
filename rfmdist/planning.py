"""From an estimator's settings to the plan of its fit: what it will hold beside its features, and where it runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfmdist.engine.calibrate import warm
from rfmdist.engine.memory import COMPILED_LATER, COMPILER, FRESH, FRESH_WORKER
from rfmdist.engine.plan import NOTHING, Additions, Machine, Plan, check_memory
from rfmdist.engine.planner import make_plan
from rfmdist.engine.workers import everywhere, workers_of
from rfmdist.features.augmented import Extras
from rfmdist.machine import parse_size, resident_bytes
from rfmdist.observations.scratch import Scratch
from rfmdist.observations.store import Observations
from rfmdist.parameters import check_extras, check_parameters, check_workers, greatest_rank

if TYPE_CHECKING:
    from rfmdist.lin_rfm import LinRFM

AS_MUCH_AS = 0.25
"""Power whose products take as much memory as those of an exponential, or more."""
TRIALS_HELD = 4
"""Results of trials and paths that are held while dense features are fitted with settings that are "auto"."""


def plan(observations: Any, *, memory: str | int | None = None, workers: int = 0, **settings: Any) -> Plan:
    """Tell what a fit will hold, read, move and compute, before any of it is done; no entry is read.

    Parameters
    ----------
    observations : Observations, path of a store, or scipy sparse matrix of shape (m, n)
        What would be fitted.
    memory : str or int, optional
        Budget such as ``"4GB"`` of the process that fits, or of each worker; what is free here when left out.
    workers : int, default 0
        Processes of a cluster, of one thread each; 0 fits in one process on all its cores.
    **settings
        Those of `LinRFM`.

    Returns
    -------
    Plan
        For a fresh process; `LinRFM.fit` plans with what its process already holds.

    Raises
    ------
    InputError
        If a setting is out of range, or the budget cannot be met: the least that is enough is told, once the kernels
        were compiled on this machine.
    """
    from rfmdist.lin_rfm import LinRFM

    if isinstance(observations, str | Path):
        observations = Observations.open(observations)
    if not isinstance(observations, Observations):
        observations = Observations.from_scipy(observations)
    model = LinRFM(**settings)
    check_parameters(model)
    check_workers(workers)
    budget = None if memory is None else parse_size(memory)
    folder = observations.scratch_folder()
    disk = _room(None if folder is None else Scratch(folder))
    made = plan_of(model, observations, Machine.of(budget, FRESH, workers, 1 if workers else None, disk))
    check_memory(made)
    check_extras(model, made)
    return made


def plan_here(model: LinRFM, observations: Observations, client: Any = None, scratch: Scratch | None = None) -> Plan:
    """Plan the fit that is to begin in this process, or on the client's workers, who see the ``scratch`` folder.

    The kernels are loaded there first: what they take, and much more where they are compiled, is then known.
    """
    memory = None if model.memory is None else parse_size(model.memory)
    dtype = model.dtype if model.noise == "auto" else "float64"
    disk = _room(scratch)
    if client is not None:
        everywhere(client, warm, plan_of(model, observations, _cluster(memory, client, disk)), dtype)
        made = plan_of(model, observations, _cluster(memory, client, disk))
        check_memory(made)
        return made
    compiled = warm(plan_of(model, observations, Machine.of(memory, resident_bytes(), disk=disk)), dtype)
    made = _with_kernels(model, observations, memory, compiled, disk)
    # With the kernels loaded less is left, so that this may be a plan of another kind, which has kernels of its own.
    if warm(made, dtype):
        compiled, made = True, _with_kernels(model, observations, memory, True, disk)
    check_memory(made, COMPILER if compiled else 0)
    return made


def _room(scratch: Scratch | None) -> float:
    """Bytes that files of a fit may take; an object store has room for any."""
    if scratch is None:
        return 0.0
    return math.inf if scratch.free is None else float(scratch.free)


def _with_kernels(model: LinRFM, observations: Observations, memory: int | None, compiled: bool, disk: float) -> Plan:
    """Plan for this process as it is now, with kernels that were loaded, or ``compiled`` as others then will be."""
    base = resident_bytes() + (COMPILED_LATER if compiled else 0)
    return plan_of(model, observations, Machine.of(memory, base, disk=disk), ids_read="pandas" in sys.modules)


def _cluster(memory: int | None, client: Any, disk: float) -> Machine:
    """What each worker may take: the budget, or what is free there and below its limit."""
    workers = workers_of(client)
    here = Machine.of(memory, resident_bytes(), workers.number, workers.threads, disk)
    return here.on(max(FRESH_WORKER, workers.held), None if memory is not None else workers.allowed)


def plan_of(model: LinRFM, observations: Observations, machine: Machine, *, ids_read: bool = False) -> Plan:
    """Plan a model's fit, be it more than is allowed; one with a given noise is of both sides in float64."""
    rank, additions = greatest_rank(model.rank), _additions(model, observations)._replace(ids_read=ids_read)
    power = AS_MUCH_AS if isinstance(model.power, str) else float(model.power)
    if model.noise != "auto":
        return make_plan(observations, "float64", power, "factored", "both", rank, NOTHING, machine)
    asked = [getattr(model, name) for name in (*Extras._fields, "row_table", "column_table", "cosine_features")]
    wanted = any(value and value != "auto" for value in asked) or isinstance(model.rank, tuple | list)
    features = "factored" if wanted and model.features == "auto" else model.features
    if isinstance(model.power, str):
        features = "dense"
    return make_plan(observations, model.dtype, power, features, model.sides, rank, additions, machine)


def _additions(model: LinRFM, observations: Observations) -> Additions:
    """What the fit may hold beside its features; what is "auto" may be switched on."""
    usable = model.floor == 0
    return Additions(
        indicators=usable and model.indicators != 0,
        margins=usable and any((model.indicators, model.side_weight, model.ridge_by_count)),
        scaled=usable and model.row_scale != 0,
        uneven=model.offsets in ("rows", "columns") or len(model.row_table) != len(model.column_table),
        tables=(len(model.row_table), len(model.column_table)),
        drawn=observations.is_drawn
        or (not observations.has_split and model.validation_fraction > 0 and model.noise != 0),
        held=_held(model),
        results=int(model.refit) + (TRIALS_HELD if "auto" in (model.ridge, model.replacement) else 0),
    )


def _held(model: LinRFM) -> int:
    """Columns of features that are held beside those at work.

    Those that a refit repeats; of several ranks those that were fitted before, of all and of cosine features the mean.
    """
    ranks: Sequence[int] = model.rank if isinstance(model.rank, tuple | list) else []
    number = max(len(ranks), 1)
    alone = greatest_rank(model.rank) if model.refit and not ranks and model.rank != "auto" else 0
    return 2 * sum(ranks) - max(ranks, default=0) + 2 * number * model.cosine_features + alone
