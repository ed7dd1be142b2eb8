"""The engine: results are the same bits anywhere, whatever dies. Plans are in test_plan.py."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import oracles
import pytest
from dask.base import normalize_token, tokenize
from distributed import Client, KilledWorker, LocalCluster
from distributed.comm import CommClosedError
from hypothesis import given
from hypothesis import strategies as st

from rfmdist import preparing
from rfmdist.engine import calibrate, planner, work, workers
from rfmdist.engine import run as running
from rfmdist.engine.memory import FRESH_WORKER
from rfmdist.engine.run import InProcess, OnClient, executor
from rfmdist.engine.tree import SUMMED_HERE, TASK, summed, sums_held
from rfmdist.errors import InputError, RfmdistError
from rfmdist.features import factored
from rfmdist.features.protocol import Partial
from rfmdist.kernels.threads import Threads
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations import loops, scratch
from rfmdist.observations.ingest import ingest
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations
from rfmdist.planning import plan_here

FIXED = {"ridge": 0.1, "replacement": 1, "max_iter": 3, "tol": 0.0, "validation_fraction": 0, "offsets": None}
DENSE = {"features": "dense"}
EXTRAS = {"indicators": 0.4, "ridge_by_count": 0.3, "row_scale": 0.5, "side_weight": 0.2}
KINDS = [
    DENSE,
    {"features": "dense", "sides": "both"},
    {"features": "factored", "sides": "columns", "rank": 7},
    {"features": "factored", "sides": "both", "rank": 7, "offsets": "both"},
    {"features": "factored", "sides": "both", "rank": 7, "offsets": "both", **EXTRAS},
]
"""How features are kept, of which sides, and with all additions."""
MEAN = {**KINDS[4], "rank": (7, 4), "cosine_features": 20}


@pytest.fixture(scope="module", params=[1, 2, 4])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """Give a cluster of 1, 2 and 4 worker processes."""
    yield from _cluster(request.param)


@pytest.fixture
def mortal() -> Iterator[Client]:
    """Give a cluster of 2 worker processes that a test may kill."""
    yield from _cluster(2)


def _cluster(workers: int) -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=workers,
            processes=True,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Observations:
    """Give 300 x 60 observations on disk, which `many_groups` cuts into several groups."""
    values = oracles.sparse_problem(np.random.default_rng(1), 300, 60)
    return Observations.from_scipy(oracles.as_sparse(values), tmp_path_factory.mktemp("engine") / "small.zarr")


@pytest.fixture(scope="module")
def movielens(movielens_100k: Path, tmp_path_factory: pytest.TempPathFactory) -> Observations:
    """Give MovieLens 100K with its test split."""
    files = [movielens_100k / "u1.base", movielens_100k / "u1.test"]
    observations = ingest(files, tmp_path_factory.mktemp("engine") / "ml-100k.zarr")
    split(observations, test_file=files[1])
    return observations


@pytest.fixture
def many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even small problems into 7 groups, or more where features are factored; columns too."""
    monkeypatch.setattr(planner, "SMALL_GROUPS", 7)
    monkeypatch.setattr(planner, "ENTRIES_PER_FEATURE", 1)
    for module in (planner, preparing):
        monkeypatch.setattr(module, "FACTORED_ENTRIES", 500)


def fitted(observations: Any, client: Any = None, **parameters: Any) -> Any:
    """Give the features after a short fit of fixed settings, exact ones unless told otherwise."""
    return LinRFM(**{**FIXED, **DENSE, **parameters}).fit(observations, client=client).completion_.features


def same(one: Any, other: Any) -> bool:
    """Tell whether features are the same bits."""
    names = ["unit", "matrix"] if hasattr(one, "matrix") else ["factor", "offsets", "floor"]
    names += [name for name in ("companion",) if hasattr(one, name)]
    if hasattr(one, "members") and not all(map(same, one.members, other.members)):
        return False
    return type(one) is type(other) and all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)


# ---- the same bits anywhere ---------------------------------------------------------------------------------


def leaf(group: tuple[int, int], *shared: Any) -> Any:
    """Name a group, to see in what order names are put together."""
    return Named(str(group[0]))


class Named:
    """A name whose sum shows how it was made."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __add__(self, other: Named) -> Named:
        return Named(f"({self.name}+{other.name})")


@pytest.mark.parametrize("client", [2], indirect=True)
@pytest.mark.parametrize(("count", "tree"), [(1, "0"), (3, "((0+1)+2)"), (9, "(((((0+1)+2)+3)+4)+(((5+6)+7)+8))")])
def test_the_tree_is_fixed(client: Client, count: int, tree: str) -> None:
    """Groups are summed in one order, eight one after another and halves of more, in process as on a cluster."""
    groups = [(i, i + 1) for i in range(count)]
    assert InProcess(Threads(1)).reduce(leaf, groups).name == tree
    assert OnClient(client).reduce(leaf, groups).name == tree


class Sync:
    """Computes graphs here."""

    def get(self, graph: Any, wanted: list[str], sync: bool) -> list[Any]:
        """Compute at once."""
        self.keys = [str(key) for key in graph]
        return list(dask.get(graph, wanted))


@given(count=st.integers(1, 100), homes=st.integers(0, 20), most=st.sampled_from([0, 1, 2, 9, SUMMED_HERE]))
def test_the_tree_is_that_of_any_number_of_threads(count: int, homes: int, most: int) -> None:
    """Tasks for any number of workers give the sum of one process, and the client adds no more of them than it may."""
    groups, graph, client = [(i, i + 1) for i in range(count)], running._Graph(), Sync()
    tasks = running._GroupTasks(leaf, groups, [f"tcp://{k}" for k in range(homes)], most and SUMMED_HERE // most)
    values = graph.sent(client, tasks.add(graph, []))
    assert summed(tasks.sizes, iter(values), ours=False).name == InProcess(Threads(1)).reduce(leaf, groups).name
    sizes = [int(key.split("_")[0]) for key in client.keys if "_groups-" in key]
    assert sum(sizes) == count
    assert max(sizes) <= TASK
    assert len(tasks.sizes) == len(values) <= max(most, 1)
    assert most != SUMMED_HERE or len(client.keys) == len(sizes)


@pytest.mark.parametrize("client", [2], indirect=True)
@pytest.mark.parametrize("nbytes", [None, 1, SUMMED_HERE])
def test_the_client_adds_what_takes_few_bytes(
    client: Client, nbytes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tree, by tasks on workers or by the client, which then asks for several results."""
    groups, asked, done = [(i, i + 1) for i in range(20)], [], running._done
    monkeypatch.setattr(running, "_done", lambda client, futures: asked.append(len(futures)) or done(client, futures))
    assert OnClient(client).reduce(leaf, groups, nbytes=nbytes).name == InProcess(Threads(1)).reduce(leaf, groups).name
    assert (asked[0] > 1) == (nbytes == 1)


@pytest.mark.parametrize("client", [2], indirect=True)
def test_a_failure_does_not_wait_for_the_others(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one group raises is told while others are at work."""
    monkeypatch.setattr(running, "LOOK_SECONDS", 0.1)
    started = time.perf_counter()
    with pytest.raises(InputError, match="of group 0"):
        OnClient(client).reduce(fails_or_sleeps, [(0, 1), (1, 2)], nbytes=1)
    assert time.perf_counter() - started < 3


def fails_or_sleeps(group: tuple[int, int], threads: Threads) -> None:
    """Fail at the first group, and take long over others."""
    if group[0] == 0:
        raise InputError("of group 0")
    time.sleep(3)


def test_what_was_added_is_the_memory_of_what_comes() -> None:
    """Groups after the first two of a leaf have no new arrays; what is spare goes with the end of the sum."""
    threads, made = Threads(1), []

    def ones(group: tuple[int, int], threads: Threads) -> Partial:
        found = threads.zeros((10,), np.float64)
        assert not found.any()
        found += 1
        made.append(found)
        return Partial({"ones": found, "other": np.zeros(10, np.float32)})

    total = InProcess(threads).reduce(ones, [(i, i + 1) for i in range(20)])
    assert np.array_equal(total.sums["ones"], np.full(10, 20))
    assert len({id(array) for array in made}) == sums_held(20)
    assert id(threads.zeros((10,), np.float64)) not in map(id, made)


def test_nothing_of_a_sum_is_held_once_it_is_made() -> None:
    """What groups were given goes with its last user, not when garbage is collected: features of an iteration ago."""
    shared = np.zeros(1)
    given = weakref.ref(shared)
    gc.disable()
    try:
        assert InProcess(Threads(1)).reduce(
            lambda group, shared, threads: group[0], [(k, k) for k in range(20)], shared
        )
        del shared
        assert given() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64, 100])
@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_sums_are_held_than_foreseen(count: int, threads: int) -> None:
    """In process the tree holds as many at once as the plan counts bytes for: one more where threads are left some."""
    alive: list[int] = []

    class Sum:
        held = 0

        def __init__(self) -> None:
            Sum.held += 1
            alive.append(Sum.held)

        def __iadd__(self, other: Sum) -> Sum:
            return self

        def __del__(self) -> None:
            Sum.held -= 1

    def leave(group: tuple[int, int], pool: Threads) -> Sum:
        pool.map(abs, [(1,)])
        pool.later(lambda: None)
        return Sum()

    pool = Threads(threads)
    InProcess(pool).reduce(leave, [(i, i + 1) for i in range(count)])
    pool.close()
    assert len(alive) == count
    assert max(alive) == sums_held(count) + (1 if threads > 1 and count > 2 else 0)


@pytest.mark.parametrize("idle", [0, 2, 3])
def test_what_a_group_leaves_to_threads_is_done_before_it_is_added(idle: int) -> None:
    """Also where the group after it does nothing, or does no work and leaves none."""
    pool = Threads(2)

    def give(group: tuple[int, int], threads: Threads) -> Partial:
        found = threads.zeros((1,), np.float64)
        if idle and group[0] % idle == 0:
            return Partial({"sum": found + group[0]})
        threads.map(abs, [(1,)] * (group[0] % 4))

        def late() -> None:
            time.sleep(0.001)
            found[:] += group[0]

        threads.later(late)
        return Partial({"sum": found})

    total = InProcess(pool).reduce(give, [(i, i + 1) for i in range(30)])
    pool.close()
    assert total.sums["sum"] == 30 * 29 / 2


@pytest.mark.usefixtures("many_groups")
@pytest.mark.parametrize(
    ("power", "dtype", "kind"),
    [
        *((0.5, "float32", kind) for kind in KINDS),
        *(pytest.param(1, "float64", kind, marks=pytest.mark.slow) for kind in KINDS[1:]),
        (1, "float64", KINDS[0]),
    ],
    ids=str,
)
def test_same_bits_on_any_cluster(
    small: Observations, client: Client, power: float, dtype: str, kind: dict[str, Any]
) -> None:
    """Seven groups or more, and panels of the update, give in process and on 1, 2 and 4 workers the same bits."""
    here = LinRFM(**{**FIXED, **kind}, power=power, dtype=dtype).fit(small)
    assert len(here.plan_.groups) > 4
    assert same(here.completion_.features, fitted(small, client, power=power, dtype=dtype, **kind))


@pytest.mark.usefixtures("many_groups")
@pytest.mark.parametrize("client", [2], indirect=True)
@pytest.mark.parametrize(
    "kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:4]), KINDS[4], MEAN], ids=str
)
def test_all_stages_run_on_a_cluster(rng: np.random.Generator, client: Client, kind: dict[str, Any]) -> None:
    """Choosing, fitting, refitting and scoring of observations in memory give the same numbers on a cluster."""
    observations = Observations.from_scipy(oracles.as_sparse(oracles.sparse_problem(rng, 80, 50)))
    split(observations, test=0.2)
    here, there = (LinRFM(**kind, max_iter=8).fit(observations, client=where) for where in (None, client))
    assert same(here.completion_.features, there.completion_.features)
    assert {h.stage for h in here.history_} == {"try", "fit", "refit"}
    errors = [[h.validation_rmse for h in model.history_] for model in (here, there)]
    assert np.array_equal(*errors, equal_nan=True)
    assert here.completion_.score().rmse == there.completion_.score(client=client).rmse


@pytest.mark.parametrize(
    "client", [2, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 4))], indirect=True
)
@pytest.mark.parametrize(
    "kind", [KINDS[3], *(pytest.param(kind, marks=pytest.mark.slow) for kind in (DENSE, KINDS[2], KINDS[4]))], ids=str
)
def test_same_bits_on_movielens(
    movielens: Observations, client: Client, kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features after 3 iterations on MovieLens 100K are the same bits in process and on 1, 2 and 4 workers."""
    for module in (planner, preparing):
        monkeypatch.setattr(module, "FACTORED_ENTRIES", 20_000)
    given = {**kind, "offsets": "both"}
    assert same(fitted(movielens, **given), fitted(movielens, client, **given))


@pytest.mark.parametrize("kind", [*KINDS, MEAN], ids=str)
@pytest.mark.parametrize("name", ["small", pytest.param("movielens", marks=pytest.mark.slow)])
def test_same_bits_on_any_number_of_threads(
    name: str, kind: dict[str, Any], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features after 3 iterations in process are the same bits on 1, 2 and 3 threads; long rows are shared."""
    monkeypatch.setattr(factored, "HEAVY", 20)
    monkeypatch.setattr(factored, "PIECE_ENTRIES", 64)
    found = []
    for count in (1, 2, 3):
        monkeypatch.setattr(running, "cores", lambda c=count: c)
        with executor() as run:
            assert run._threads.count == count
        found.append(fitted(request.getfixturevalue(name), **kind))
    assert same(found[0], found[1])
    assert same(found[0], found[2])


# ---- faults -------------------------------------------------------------------------------------------------


def nothing_left(client: Client) -> bool:
    """Wait up to 10 s until no worker holds any result; an error's traceback may hold some until collected."""
    end = time.monotonic() + 10
    while client.who_has() and time.monotonic() < end:
        gc.collect()
        time.sleep(0.05)
    return not client.who_has()


def iterate_and_die(folder: str, group: tuple[int, int], *arguments: Any) -> Any:
    """Do a group's work, but kill this worker the first time the second group is asked for; count the calls."""
    calls = Path(folder) / f"{group[0]}-{time.monotonic_ns()}"
    calls.touch()
    if group[0] > 0 and not (Path(folder) / "died").exists():
        (Path(folder) / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work_iterate(group, *arguments)


work_iterate = work.iterate


@pytest.mark.usefixtures("many_groups")
@pytest.mark.parametrize("client", [2], indirect=True)
def test_nothing_is_left_on_the_workers(small: Observations, client: Client) -> None:
    """After a fit the cluster holds none of its data."""
    fitted(small, client)
    assert nothing_left(client)


@pytest.mark.usefixtures("many_groups")
@pytest.mark.parametrize("kind", [pytest.param(DENSE, marks=pytest.mark.slow), KINDS[3]], ids=str)
def test_a_worker_dies_within_a_task(
    small: Observations, mortal: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any]
) -> None:
    """The lost groups are done again: the same bits as without the death."""
    undisturbed = fitted(small, **kind)
    monkeypatch.setattr(work, "iterate", partial(iterate_and_die, str(tmp_path)))
    assert same(undisturbed, fitted(small, mortal, **kind))
    assert (tmp_path / "died").exists()
    assert nothing_left(mortal)


def iterate_and_kill_all(folder: str, processes: list[int], group: tuple[int, int], *arguments: Any) -> Any:
    """Do a group's work, but kill all workers the first time that one is asked for, this one last."""
    with suppress(FileExistsError):
        (Path(folder) / "died").touch(exist_ok=False)
        for process in sorted(processes, key=os.getpid().__eq__):
            os.kill(process, signal.SIGKILL)
    return work_iterate(group, *arguments)


@pytest.mark.usefixtures("many_groups")
def test_all_workers_die_within_a_step(
    small: Observations, tmp_path: Path, mortal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is lost, since data lie in files, tasks meant for the dead are sent anew to those who came."""
    store = Observations.from_scipy(small.to_scipy(), tmp_path / "s")
    monkeypatch.setattr(running, "FILED_BYTES", 1)
    monkeypatch.setattr(running, "LOOK_SECONDS", 0.5)
    undisturbed = fitted(store, **KINDS[3])
    processes = list(mortal.run(os.getpid).values())
    monkeypatch.setattr(work, "iterate", partial(iterate_and_kill_all, str(tmp_path), processes))
    assert same(undisturbed, fitted(store, mortal, **KINDS[3]))
    assert not set(processes) & set(mortal.run(os.getpid).values())
    assert nothing_left(mortal)


@pytest.mark.parametrize("client", [1], indirect=True)
def test_what_a_fit_leaves_on_workers_goes(
    small: Observations, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks and features that workers held go with the fit, so that the next has as much room."""
    store = Observations.from_scipy(small.to_scipy(), tmp_path / "s")
    monkeypatch.setattr(running, "FILED_BYTES", 1)
    held = []
    fitted(store, client, **KINDS[3], callbacks=[lambda _: held.append(client.run(residents))])
    assert all(number for found in held for number in found.values())
    assert list(client.run(residents).values()) == [0]


def residents() -> int:
    """Count the values that this process holds of files."""
    return len(scratch._resident)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("an address", "client 'tcp://127.0.0.1:1' is none: give a distributed.Client"),
        ("closed", "the client is closed, not running: connect a new one"),
        ("without workers", "the scheduler at .* has had no worker for 0.1 s; start some"),
    ],
)
def test_a_client_that_cannot_fit_is_refused(
    kind: str, message: str, small: Observations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence says what to do instead."""
    monkeypatch.setattr(workers, "WORKER_SECONDS", 0.1)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        if kind == "closed":
            client.close()
        told = pytest.warns(UserWarning, match="has no worker yet") if kind == "without workers" else nullcontext()
        with told, pytest.raises(RfmdistError, match=message):
            fitted(small, "tcp://127.0.0.1:1" if kind == "an address" else client)


def test_a_fit_waits_for_workers_that_come_later(small: Observations) -> None:
    """It says at once that there is none, and goes on when one is there."""
    with (
        LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        said = threading.Event()

        def told(*_: Any, **__: Any) -> None:
            said.set()
            cluster.scale(1)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workers.warnings, "warn", told)
            features = fitted(small, client)
    assert said.is_set()
    assert same(features, fitted(small))


def test_nothing_is_keyed_by_a_token_of_a_kernel(small: Observations, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's functions have another Dask token in each process (numba 0.68, dask 2026.8): none is asked for."""

    def refuse(_: Any) -> None:
        raise AssertionError("a kernel's token was asked for")

    monkeypatch.setitem(normalize_token._lookup, type(loops.count), refuse)
    with pytest.raises(AssertionError, match="a kernel's token"):
        tokenize(loops.count)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        completion = LinRFM(**FIXED).fit(small, client=client).completion_
        workers.everywhere(client, loops.mixed, np.uint64(1))
        assert client.compute(completion.predict_block(0, 5)).result().shape == (5, small.shape[1])
        assert client.compute(small.to_dask()[:5]).result().shape == (5, small.shape[1])


def test_an_asynchronous_client_is_refused(small: Observations) -> None:
    """A fit waits for its results, which the loop it was called from could then not bring."""

    async def attempt() -> None:
        async with (
            LocalCluster(n_workers=1, processes=False, asynchronous=True, dashboard_address=":0") as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            with pytest.raises(InputError, match="the client is asynchronous"):
                fitted(small, client)

    asyncio.run(attempt())


def test_workers_allow_what_is_below_their_limit() -> None:
    """A plan without a budget stays where Dask neither spills nor pauses, whatever else the machine has free."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", memory_limit="600MB") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        found = workers.workers_of(client)
    assert found.number == found.threads == 1
    assert 0 < found.held < found.allowed == int(0.7 * 600e6)


def test_workers_load_their_kernels_before_they_are_planned(small: Observations) -> None:
    """Each of them, so that what it holds is known; one that cannot is left to the fit itself."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        workers.everywhere(client, divmod, 1, 0)
        plan = plan_here(LinRFM(features="factored", rank=3), small, client)
        kinds = list(client.run(lambda: calibrate._warmed).values())
        held = workers.workers_of(client).held
    assert len(kinds) == 2
    assert all(kinds)
    assert FRESH_WORKER <= plan.machine.worker_base <= max(FRESH_WORKER, 1.1 * held)


@pytest.mark.usefixtures("many_groups")
@pytest.mark.parametrize(
    ("victims", "kind"), [pytest.param(1, DENSE, marks=pytest.mark.slow), (2, DENSE), (2, KINDS[3])], ids=str
)
def test_workers_die_between_iterations(
    small: Observations, mortal: Client, victims: int, kind: dict[str, Any]
) -> None:
    """Data that only the dead workers held is sent anew: the same bits as without the deaths."""
    undisturbed = fitted(small, **kind)
    processes = list(mortal.run(os.getpid).values())[:victims]

    def kill(iteration: Any) -> None:
        if iteration.iteration == 1:
            for process in processes:
                os.kill(process, signal.SIGKILL)
            gone(mortal, processes)

    assert same(undisturbed, fitted(small, mortal, **kind, callbacks=[kill]))
    assert nothing_left(mortal)


def gone(client: Client, processes: list[int]) -> None:
    """Wait until the scheduler has seen that workers are lost, and that others took their place."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        alive = client.run(os.getpid, on_error="ignore").values()
        if len(alive) == 2 and not set(processes) & set(alive):
            return
        time.sleep(0.1)
    raise TimeoutError("the workers did not come back")


@pytest.mark.usefixtures("many_groups")
@pytest.mark.parametrize("client", [2], indirect=True)
def test_a_worker_s_error_is_ours(client: Client) -> None:
    """What a row's solve cannot do is told in the same sentence as in process, and nothing is left behind."""
    values = oracles.as_sparse(np.array([[1.0, 0.0, 2.0], [2.0, 0.0, 1.0]] * 5))
    with pytest.warns(UserWarning, match=r"row code \d: its 3 × 3 system is not positive definite"):
        fitted(values, client, ridge=0.0)
    assert nothing_left(client)


class FailingClient:
    """A client whose cluster answers every step with the same error; counts what it was sent."""

    direct_to_workers = None

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.scattered = 0

    def scatter(self, value: Any, **_: Any) -> Any:
        """Take data, but not where no worker can be called."""
        self.scattered += 1
        if type(self.error) is OSError:
            raise self.error
        return value

    def get(self, *_: Any, **__: Any) -> list[Any]:
        """Take a graph."""
        return []

    def gather(self, *_: Any, **__: Any) -> None:
        """Fail."""
        raise self.error

    def nthreads(self) -> dict[str, int]:
        """Tell of no workers."""
        return {}

    def wait_for_workers(self, count: int, timeout: float) -> None:
        """Wait in vain."""
        raise TimeoutError


@pytest.mark.parametrize(
    ("error", "message", "sendings"),
    [
        (KilledWorker("task", None, 3), "gave up a task after it had ended several workers", 1),
        (CancelledError(), "the cluster lost its workers 3 times in one step", 3),
        (CommClosedError(), "the cluster lost its workers 3 times in one step", 3),
        (OSError("no answer"), "the cluster lost its workers 3 times in one step", 3),
    ],
)
def test_what_a_cluster_cannot_do_is_one_sentence(
    error: Any, message: str, sendings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost data is sent anew three times, a task that kills is not; then the fit ends with our error."""
    client = FailingClient(error)
    monkeypatch.setattr(running, "_done", lambda *_: True)
    run = OnClient(client)
    with pytest.raises(RfmdistError, match=message):
        run.reduce(leaf, [(0, 1)], run.publish("data"))
    assert client.scattered == sendings


@pytest.mark.slow
def test_a_task_that_ends_every_worker_is_given_up(mortal: Client) -> None:
    """A group that kills whoever takes it ends the fit with one sentence."""
    with pytest.raises(RfmdistError, match="gave up a task after it had ended several workers"):
        OnClient(mortal).reduce(suicide, [(0, 1)])


def suicide(group: tuple[int, int], threads: Any) -> None:
    """Kill the worker."""
    os.kill(os.getpid(), signal.SIGKILL)
