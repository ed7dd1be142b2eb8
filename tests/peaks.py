"""A fit in a process of its own, and its peak beside the plan's: ``python peaks.py STORE SETTINGS OUTPUT``.

SETTINGS is one JSON object of LinRFM's settings; "cluster" fits on so many worker processes. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from rfmdist import LinRFM, Observations
from rfmdist.machine import peak_bytes


def main() -> None:
    """Fit, save, and tell what was planned and what it took."""
    store, text, output = sys.argv[1:]
    settings = json.loads(text)
    workers = settings.pop("cluster", 0)
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
        Client(cluster, set_as_default=False) as client,
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


if __name__ == "__main__":
    main()
