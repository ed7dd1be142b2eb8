"""What a fit really took, to be told beside its plan. Knows no verb."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

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
        if iteration.iteration > 1:  # the first also reads what is kept, and loads what was not loaded
            self._seconds.append(iteration.seconds)
            self._read.append(iteration.read_bytes)
            self._moved.append(iteration.moved_bytes)

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
