"""rfmdist: completion of huge, mostly unobserved matrices with linear Recursive Feature Machines.

Names are loaded when they are first used, so that the command line answers at once. Nothing else is imported here:
until the command line's ``main`` runs, Ctrl-C ends in a traceback.
"""

TYPE_CHECKING = False
"""As that of ``typing``, which takes most of such a start to import."""

if TYPE_CHECKING:
    from rfmdist.completion import Completion
    from rfmdist.deep import DeepLinRFM
    from rfmdist.errors import InputError, RfmdistError, StoreError
    from rfmdist.lin_rfm import LinRFM
    from rfmdist.observations.blocks import Offsets, Role
    from rfmdist.observations.folds import EntryKFold
    from rfmdist.observations.ingest import ingest
    from rfmdist.observations.offsets import fit_offsets
    from rfmdist.observations.split import split
    from rfmdist.observations.store import Observations
    from rfmdist.planning import plan
    from rfmdist.sensing import LinearSensing
    from rfmdist.sparse_regression import SparseRegression

__all__ = [
    "Completion",
    "DeepLinRFM",
    "EntryKFold",
    "InputError",
    "LinRFM",
    "LinearSensing",
    "Observations",
    "Offsets",
    "RfmdistError",
    "Role",
    "SparseRegression",
    "StoreError",
    "fit_offsets",
    "ingest",
    "plan",
    "split",
]

_HOMES = {
    "Completion": "completion",
    "DeepLinRFM": "deep",
    "EntryKFold": "observations.folds",
    "InputError": "errors",
    "LinRFM": "lin_rfm",
    "LinearSensing": "sensing",
    "Observations": "observations.store",
    "Offsets": "observations.blocks",
    "RfmdistError": "errors",
    "Role": "observations.blocks",
    "SparseRegression": "sparse_regression",
    "StoreError": "errors",
    "fit_offsets": "observations.offsets",
    "ingest": "observations.ingest",
    "plan": "planning",
    "split": "observations.split",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'rfmdist' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"rfmdist.{_HOMES[name]}"), name)
