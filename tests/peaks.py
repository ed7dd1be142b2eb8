"""A fit in a process of its own, and its peak beside the plan's: ``python peaks.py STORE SETTINGS OUTPUT``.

SETTINGS is one JSON object of LinRFM's settings; "lean" has the budget that a refusal names and so keeps few blocks,
"cluster" fits on so many worker processes. Prints one JSON object.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from rfmdist import InputError, LinRFM, Observations, plan
from rfmdist.machine import peak_bytes

LEEWAY = 1.03
"""Times the figure that a refusal names: a process does not always hold the same when the fit begins."""


def main() -> None:
    """Fit, save, and tell what was planned and what it took."""
    store, text, output = sys.argv[1:]
    settings = json.loads(text)
    workers, lean = settings.pop("cluster", 0), settings.pop("lean", False)
    if lean:
        settings["memory"] = needed(store, settings)
    if workers:
        told = on_cluster(store, settings, workers)
    else:
        model = LinRFM(**settings).fit(Observations.open(store))
        model.completion_.save(output, overwrite=True)
        told = facts(model, peak_bytes(), model.plan_.memory)
    print(json.dumps(told))


def on_cluster(store: str, settings: dict[str, Any], workers: int) -> dict[str, Any]:
    """Fit on a cluster's worker processes; tell of the worker of the greatest peak, and of this process."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", memory_limit=0) as cluster,
        Client(cluster) as client,
    ):
        model = LinRFM(**settings).fit(Observations.open(store), client=client)
        peak = max(client.run(peak_bytes).values())
        own = {"client": peak_bytes(), "client_planned": model.plan_.client_bytes}
        return facts(model, peak, model.plan_.memory) | own


def facts(model: LinRFM, peak: int, memory: Any) -> dict[str, Any]:
    """What was planned, and what it took."""
    return {
        "planned": model.plan_.peak_bytes,
        "measured": peak,
        "allowed": model.plan_.machine.allowed,
        "kept": model.plan_.kept_bytes,
        "stripe": model.plan_.stripe,
        "most_rank": model.plan_.most_rank,
        "moment": memory.moment,
        "parts": memory.parts,
        "seconds": sum(record.seconds for record in model.history_),
    }


def needed(store: str, settings: dict[str, Any]) -> int:
    """Give the bytes that a refusal says are needed."""
    try:
        plan(store, memory=1, **settings)
    except InputError as refused:
        return int(LEEWAY * 10**6 * int(re.search(r"about (\d+)MB", str(refused))[1]))
    raise AssertionError("a budget of one byte is refused")


if __name__ == "__main__":
    main()
