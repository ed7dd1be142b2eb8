"""rfmdist: completion of huge, mostly unobserved matrices with linear Recursive Feature Machines."""

from rfmdist.completion import Completion
from rfmdist.errors import InputError, RfmdistError, StoreError
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.blocks import Offsets, Role
from rfmdist.observations.ingest import ingest
from rfmdist.observations.offsets import fit_offsets
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations

__all__ = [
    "Completion",
    "InputError",
    "LinRFM",
    "Observations",
    "Offsets",
    "RfmdistError",
    "Role",
    "StoreError",
    "fit_offsets",
    "ingest",
    "split",
]
