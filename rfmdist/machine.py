"""What this process may use of the machine. Knows nothing else of the package."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores this process may use, which a batch system may have made fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
