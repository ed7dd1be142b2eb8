"""The engine: plans depend on counts alone; results are the same bits anywhere, whatever dies."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from distributed import Client, KilledWorker, LocalCluster
from distributed.comm import CommClosedError
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmdist import preparing
from rfmdist.engine import plan as planning
from rfmdist.engine import run as running
from rfmdist.engine import work
from rfmdist.engine.plan import BLOCK_BYTES, GROUPS, equal_groups, make_plan, plan_dense, plan_factored
from rfmdist.engine.run import InProcess, OnClient, executor, sums_held
from rfmdist.errors import InputError, RfmdistError
from rfmdist.features import factored
from rfmdist.kernels.threads import Threads
from rfmdist.lin_rfm import LinRFM
from rfmdist.observations.ingest import ingest
from rfmdist.observations.split import split
from rfmdist.observations.store import Observations

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
        Client(cluster) as client,
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
    monkeypatch.setattr(planning, "SMALL_GROUPS", 7)
    monkeypatch.setattr(planning, "ENTRIES_PER_FEATURE", 1)
    for module in (planning, preparing):
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


# ---- the plan -----------------------------------------------------------------------------------------------


def counted(counts: list[int], n: int) -> Any:
    """Give what a plan looks at: a shape and row counts."""
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return SimpleNamespace(shape=(len(counts), n), indptr=indptr, nnz=int(indptr[-1]))


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=300), st.sampled_from([5, 2000, 30_000]))
@settings(max_examples=100, deadline=None)
def test_groups_cover_the_rows_once(counts: list[int], n: int) -> None:
    """Groups follow each other, are not empty, cover all rows and are at most 64."""
    for groups in (plan_dense(counted(counts, n), "float32").groups, equal_groups(counted(counts, n))):
        assert [i for start, stop in groups for i in range(start, stop)] == list(range(len(counts)))
        assert all(start < stop for start, stop in groups)
        assert len(groups) <= GROUPS


def test_groups_are_of_about_equal_cost() -> None:
    """Work is shared by cost, not by rows: a long row weighs as many short ones do."""
    counts = [2000] * 100 + [20] * 5000
    plan = plan_dense(counted(counts, 2048), "float32")
    cost = np.array(counts) ** 3 / 3 + 2.0 * np.array(counts) * 2048 + 2048**2
    shares = np.array([cost[start:stop].sum() for start, stop in plan.groups])
    assert len(plan.groups) > 2
    assert shares.max() < 1.5 * shares.mean()


def test_the_plan_does_not_know_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups and form are the same on 1 core and on 64."""
    plans = []
    for count in (1, 64):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, c=count: set(range(c)))
        monkeypatch.setattr(os, "cpu_count", lambda c=count: c)
        plans.append(plan_dense(counted([30] * 5000, 1000), "float32"))
    assert plans[0] == plans[1]


def test_form_is_chosen_by_cost() -> None:
    """Few rows form Z; many sparse rows, for which m n^2 exceeds the n^3 of the update, sum A'A."""
    assert plan_dense(counted([50] * 1000, 2000), "float32").form == "product"
    assert plan_dense(counted([20] * 100_000, 2000), "float32").form == "gram"


def test_peak_bytes_count_the_features_and_partials() -> None:
    """The peak is at least P old and new and one float64 partial, and no more than 12 times that."""
    for dtype, size in (("float32", 4), ("float64", 8)):
        plan = plan_dense(counted([50] * 20_000, 3000), dtype)
        least = 3000**2 * (2 * size + 8)
        assert plan.feature_bytes == 3000**2 * size
        assert least <= plan.peak_bytes <= 12 * least


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Give a function that sets the machine's free memory, in GiB."""

    def set_free(gib: float) -> None:
        memory = SimpleNamespace(available=int(gib * 2**30))
        monkeypatch.setattr(planning.psutil, "virtual_memory", lambda: memory)

    return set_free


def planned(counts: list[int], n: int, **parameters: Any) -> Any:
    """Give the plan that is made for float32 features."""
    observations = counted(counts, n)
    observations.dtype = np.dtype(np.float32)
    return make_plan(observations, "float32", **parameters)


def test_what_is_asked_for_is_planned(free: Callable[[float], None]) -> None:
    """Features, sides and rank are taken as given."""
    free(64)
    for features in ("dense", "factored"):
        for sides in ("columns", "both"):
            plan = planned([30] * 5000, 1000, features=features, sides=sides, rank=9)
            assert (plan.features, plan.sides, plan.why) == (features, sides, f"{features} as asked")
            assert plan.rank == (9 if features == "factored" else 1000)
    assert planned([30] * 5000, 1000, features="dense").sides == "columns"
    assert planned([30] * 5000, 1000, features="factored").sides == "both"
    assert planned([30] * 5000, 20, features="factored", rank=64).rank == 20


def test_auto_takes_what_arrives_with_fewer_flops(free: Callable[[float], None]) -> None:
    """A few columns with long rows stay exact; many columns are factored, and the reason tells the flops."""
    free(64)
    small, large = planned([10] * 300, 20), planned([100] * 20_000, 5000)
    assert (small.features, small.sides, small.rank) == ("dense", "columns", 20)
    assert (large.features, large.sides, large.rank) == ("factored", "both", 32)
    for plan in (small, large):
        told = rf"{plan.features}: \S+ flops an iteration, exact features \S+ for as much progress"
        assert re.fullmatch(told, plan.why)
    assert planned([10] * 300, 20, rank=5).why == "factored: rank 5 as asked"


def test_memory_decides_on_the_sides(free: Callable[[float], None]) -> None:
    """Where a factor of all rows takes more than half of what is free, columns alone; the reason says so."""
    counts, both = [1] * 1_000_000, []
    for gib in (64, 1.5):
        free(gib)
        both.append(planned(counts, 2000, features="factored"))
    assert [plan.sides for plan in both] == ["both", "columns"]
    assert "both sides need more memory than is free" in both[1].why
    assert both[1].peak_bytes < 1.5 * 2**30 < 2 * both[0].peak_bytes


def test_exact_features_that_memory_cannot_hold_are_factored(free: Callable[[float], None]) -> None:
    """Fewer flops are no reason to fill the memory: the reason names the bytes that exact features would take."""
    free(0.5)
    plan = planned([2] * 20, 6000)
    assert plan.features == "factored"
    assert plan_dense(counted([2] * 20, 6000), "float32").peak_bytes > 0.25 * 2**30


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"features": "dense"}, r"exact features need about \d+\.\d GiB; 0\.1 GiB are free: use features='factored'"),
        ({"features": "factored", "sides": "both"}, r"features of rank 32 need .* use sides='columns', a lower rank"),
        (
            {"features": "factored", "sides": "columns", "rank": 200},
            r"features of rank 200 need .* use a lower rank or",
        ),
        ({}, r"features of rank 32 need about \d+\.\d GiB; 0\.1 GiB are free"),
    ],
)
def test_too_little_memory_is_told(free: Callable[[float], None], asked: dict[str, Any], message: str) -> None:
    """What cannot be held is refused before any work, with both figures and the ways out."""
    free(0.1)
    with pytest.raises(InputError, match=message):
        planned([10] * 50_000, 100_000, **asked)


def test_blocks_are_kept_where_they_fit(free: Callable[[float], None]) -> None:
    """All blocks within a quarter of the free memory are kept, twice for two sides; otherwise none."""
    kept = []
    for gib, sides in ((64, "columns"), (64, "both"), (0.2, "both")):
        free(gib)
        kept.append(planned([50] * 100_000, 500, features="factored", sides=sides, rank=4).kept_bytes)
    assert 12 * 5_000_000 <= kept[0] < 1.3 * 12 * 5_000_000
    assert 1.9 * kept[0] < kept[1] < 2.1 * kept[0]
    assert kept[2] == 0


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=300), st.sampled_from([5, 2000, 30_000]))
@settings(max_examples=50, deadline=None)
def test_factored_groups_cover_the_rows_once(counts: list[int], n: int) -> None:
    """Groups follow each other and cover all rows; they are the same at any rank."""
    for sides in ("columns", "both"):
        plans = [plan_factored(counted(counts, n), "float32", sides, rank) for rank in ("auto", 1, 200)]
        assert [i for start, stop in plans[0].groups for i in range(start, stop)] == list(range(len(counts)))
        assert plans[0].groups == plans[1].groups == plans[2].groups


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
@pytest.mark.parametrize(("count", "tree"), [(1, "0"), (3, "((0+1)+2)"), (10, "((((((((0+1)+2)+3)+4)+5)+6)+7)+(8+9))")])
def test_the_tree_is_fixed(client: Client, count: int, tree: str) -> None:
    """Groups are summed in one order, eight branches a level, in process as on a cluster."""
    groups = [(i, i + 1) for i in range(count)]
    assert InProcess(Threads(1)).reduce(leaf, groups).name == tree
    assert OnClient(client).reduce(leaf, groups).name == tree


@pytest.mark.parametrize("count", [1, 2, 8, 64, 100])
def test_no_more_sums_are_held_than_foreseen(count: int) -> None:
    """In process the tree holds as many sums at once as the plan counts bytes for."""
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

    InProcess(Threads(1)).reduce(lambda *_: Sum(), [(i, i + 1) for i in range(count)])
    assert len(alive) == count
    assert max(alive) == sums_held(count)


@pytest.mark.usefixtures("many_groups")
@pytest.mark.parametrize(
    ("power", "dtype", "kind"),
    [*((0.5, "float32", kind) for kind in KINDS), *((1, "float64", kind) for kind in KINDS)],
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
@pytest.mark.parametrize("kind", [*KINDS, MEAN], ids=str)
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


@pytest.mark.parametrize("kind", [DENSE, *KINDS[2:]], ids=str)
def test_same_bits_on_movielens(
    movielens: Observations, client: Client, kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features after 3 iterations on MovieLens 100K are the same bits in process and on 1, 2 and 4 workers."""
    for module in (planning, preparing):
        monkeypatch.setattr(module, "FACTORED_ENTRIES", 20_000)
    given = {**kind, "offsets": "both"}
    assert same(fitted(movielens, **given), fitted(movielens, client, **given))


@pytest.mark.parametrize("kind", [*KINDS, MEAN], ids=str)
@pytest.mark.parametrize("name", ["small", "movielens"])
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
@pytest.mark.parametrize("kind", [DENSE, KINDS[3]], ids=str)
def test_a_worker_dies_within_a_task(
    small: Observations, mortal: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any]
) -> None:
    """The lost groups are done again: the same bits as without the death."""
    undisturbed = fitted(small, **kind)
    monkeypatch.setattr(work, "iterate", partial(iterate_and_die, str(tmp_path)))
    assert same(undisturbed, fitted(small, mortal, **kind))
    assert (tmp_path / "died").exists()
    assert nothing_left(mortal)


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

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.scattered = 0

    def scatter(self, value: Any, **_: Any) -> Any:
        """Take data."""
        self.scattered += 1
        return value

    def submit(self, *_: Any, **__: Any) -> None:
        """Take a task."""

    def gather(self, _: Any) -> None:
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
    ],
)
def test_what_a_cluster_cannot_do_is_one_sentence(error: Any, message: str, sendings: int) -> None:
    """Lost data is sent anew three times, a task that kills is not; then the fit ends with our error."""
    client = FailingClient(error)
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


@pytest.mark.parametrize(("rows", "power", "form"), [(900, 0.5, "product"), (900, 1.0, "product"), (6000, 0.5, "gram")])
def test_a_fit_holds_no_more_than_planned(rows: int, power: float, form: str) -> None:
    """The peak of all arrays of a whole fit is below the plan's, and not by more than a half."""
    plan, peak = peak_of(sp.random_array((rows, 1500), density=12_000 / (rows * 1500), rng=0), **DENSE, power=power)
    assert plan.form == form
    assert 0.5 * (plan.peak_bytes - BLOCK_BYTES) <= peak <= plan.peak_bytes


@pytest.mark.parametrize("sides", ["columns", "both"])
@pytest.mark.parametrize("shape", [(100_000, 30_000), (10_000, 100_000)])
def test_a_factored_fit_holds_no_more_than_planned(shape: tuple[int, int], sides: str) -> None:
    """The peak of all arrays is below the plan's with the blocks that it keeps, and not by more than two thirds."""
    given = {"features": "factored", "sides": sides, "rank": 100}
    plan, peak = peak_of(sp.random_array(shape, density=100_000 / np.prod(shape), rng=0), **given)
    assert (plan.peak_bytes - BLOCK_BYTES) / 3 <= peak <= plan.peak_bytes + plan.kept_bytes


def peak_of(observed: Any, **parameters: Any) -> tuple[Any, int]:
    """Give the plan and the traced peak of a whole fit, refit included, without the observations themselves."""
    model = LinRFM(ridge=0.5, replacement=1.0, offsets=None, max_iter=4, **parameters)
    observations = Observations.from_scipy(observed)
    tracemalloc.start()
    try:
        model.fit(observations)
        return model.plan_, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
