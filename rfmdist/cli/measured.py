"""What a fit really took, to be told beside its plan. Knows no verb."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import psutil

from rfmdist.engine.calibrate import briefly
from rfmdist.machine import peak_bytes
from rfmdist.progress import Iteration

if TYPE_CHECKING:
    from rfmdist.engine.plan import Plan, Speed
    from rfmdist.observations.store import Observations


class Measured:
    """Counts what a fit takes, as a callback of it; a context manager, at whose end the peaks are read."""

    def __init__(self, client: Any, tell: Callable[[str], None]) -> None:
        self._client, self._tell = client, tell
        self._seconds: list[float] = []
        self._read: list[int] = []
        self._last_read = self._last_moved = 0
        self._moved: list[int] = []
        self.speed: Speed | None = None
        self.peak = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.peak = max(self._client.run(peak_bytes).values()) if self._client is not None else peak_bytes()

    def planned(self, plan: Plan, observations: Observations) -> None:
        """Try the machine for as long as is sensible, and tell what the fit will take before work begins."""
        self.speed = briefly(plan, observations)
        self._tell(f"plan: {plan.told(self.speed)}")

    def __call__(self, iteration: Iteration) -> None:
        read, moved = self._bytes_read(), self._bytes_moved()
        if iteration.iteration > 1:  # the first also reads what is kept, and loads what was not loaded
            self._seconds.append(iteration.seconds)
            self._read.append(read - self._last_read)
            self._moved.append(moved - self._last_moved)
        self._last_read, self._last_moved = read, moved

    def beside(self, plan: Plan) -> dict[str, Any]:
        """What was planned and what happened, of the same names."""
        workers = plan.machine.workers
        planned = {
            "seconds_per_iteration": None if self.speed is None else plan.seconds(*self.speed),
            "peak_bytes": plan.peak_bytes,
            "read_bytes": plan.read_bytes,
        }
        measured = {
            "seconds_per_iteration": median(self._seconds) if self._seconds else None,
            "peak_bytes": self.peak,
            "read_bytes": median(self._read) if self._read and any(self._read) else None,
        }
        if workers:
            planned["moved_bytes"] = plan.moved_bytes
            measured["moved_bytes"] = int(median(self._moved)) if self._moved else None
        return {"planned": planned, "measured": measured}

    def _bytes_read(self) -> int:
        """Bytes that this process, or the cluster's, has read so far; 0 where the system does not tell."""
        return sum(self._client.run(_bytes_read).values()) if self._client is not None else _bytes_read()

    def _bytes_moved(self) -> int:
        return sum(self._client.run(_bytes_moved).values()) if self._client is not None else 0


def _bytes_read() -> int:
    try:
        return int(getattr(psutil.Process().io_counters(), "read_chars", 0))
    except (psutil.Error, AttributeError, OSError):
        return 0


def _bytes_moved(dask_worker: Any) -> int:
    return int(getattr(dask_worker, "transfer_outgoing_bytes_total", 0))
