"""The command line: every verb gives what Python gives; every wrong input one sentence and exit code 2."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pandas as pd
import pytest
import zarr
from distributed import LocalCluster

from rfmdist import Completion, LinRFM, Observations, Role, plan
from rfmdist.__main__ import main
from rfmdist.cli import paths as cli_paths
from rfmdist.observations.digests import with_digest
from rfmdist.observations.tables import read_table

FIT = ["--max-iter", "4", "--replacement", "1", "--features", "factored"]
DENSE = [*FIT[:-1], "dense"]
FITTED: dict[str, Any] = {"max_iter": 4, "replacement": 1.0, "features": "factored"}
"""Options of quick fits, and in Python."""


class Output:
    """What a command wrote and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Output]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs one command in this process."""

    def run(*arguments: str | Path) -> Output:
        capsys.readouterr()
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        signal.signal(signal.SIGINT, on_ctrl_c)
        captured = capsys.readouterr()
        return Output(int(end.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with ratings.csv, store.zarr (split), fitted.zarr and dense.zarr, made by the commands."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    m, n = 60, 40
    values = 3 + 0.5 * rng.normal(size=(m, 1)) + 0.7 * (rng.normal(size=(m, 2)) @ rng.normal(size=(2, n)))
    rows, columns = np.nonzero(rng.random((m, n)) < 0.4)
    stars = np.clip(np.rint(values[rows, columns]), 1, 5)
    ratings = pd.DataFrame({"user": 1000 + rows, "film": [f"f{j:03d}" for j in columns], "rating": stars})
    ratings.to_csv(folder / "ratings.csv", index=False)
    for arguments in (
        ["ingest", "ratings.csv", "-o", "store.zarr", "--column", "film"],
        ["split", "store.zarr", "--test", "0.1", "--seed", "3"],
        ["fit", "store.zarr", "-o", "fitted.zarr", *FIT],
        ["fit", "store.zarr", "-o", "dense.zarr", *DENSE],
    ):
        with contextlib.chdir(folder), pytest.raises(SystemExit) as end:
            main(arguments)
        assert not end.value.code
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a copy of the same folder, which is the working directory too."""
    folder = tmp_path / "here"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


class TestVerbs:
    """What each verb does when all is well."""

    def test_ingest_and_split_store_what_python_would(self, here: Path, run: Run) -> None:
        """Ids are the users' own, and the stored split is the one a Python call with that seed gives."""
        store = Observations.open("store.zarr")
        assert store.row_ids[0] == 1000
        assert str(store.column_ids[0]) == "f000"
        counts = store.role_counts()
        assert run("split", "store.zarr", "--test", "0.1", "--seed", "3").code == 0
        assert Observations.open("store.zarr").role_counts() == counts
        assert counts["test"] > 0

    def test_ingest_tells_its_progress_on_stderr(self, here: Path, run: Run) -> None:
        """Where there is no terminal, plain lines name what was read and written; the result is on stdout."""
        told = run("ingest", "ratings.csv", "-o", "new.zarr", "--column", "film")
        assert "reading 1/1 inputs" in told.err
        assert "entries" in told.err
        assert told.out.startswith("new.zarr: 60 rows x 40 columns")
        assert "files" not in told.out

    def test_ingest_counts_the_files_of_a_folder(self, here: Path, run: Run) -> None:
        """A folder that holds more or fewer parts than the user thinks is seen from the count."""
        for name in ("parts/a.parquet", "parts/day=2/b.pq"):
            Path(name).parent.mkdir()
            pd.DataFrame({"user": [len(name)], "item": [1], "rating": [2.0]}).to_parquet(name)
        told = run("ingest", "parts", "-o", "new.zarr")
        assert told.out == "new.zarr: 2 rows x 1 columns, 2 entries from 2 files\n"
        assert "reading 2/2 inputs" in told.err

    def test_info_json_tells_shape_split_and_plan(self, here: Path, run: Run) -> None:
        """One JSON object on stdout, nothing on stderr, with the numbers Python gives."""
        told = run("info", "store.zarr", "--json")
        facts, store = json.loads(told.out), Observations.open("store.zarr")
        assert told.err == ""
        assert (facts["rows"], facts["columns"], facts["entries"]) == (*store.shape, store.nnz)
        assert facts["split"] == store.role_counts()
        assert (facts["row_ids"], facts["column_ids"]) == ("integers", "text")
        assert facts["range"] == [1.0, 5.0]
        assert facts["completion"] is None
        assert facts["dense_fit"]["peak_bytes"] > facts["dense_fit"]["feature_bytes"] == 40 * 40 * 4
        assert facts["factored_fit"]["peak_bytes"] > facts["factored_fit"]["feature_bytes"]

    @pytest.mark.parametrize("kind", ["dense", "factored"])
    def test_info_of_a_completion_tells_its_settings(self, here: Path, run: Run, kind: str) -> None:
        """A completion is a store too; its settings are shown to people in words, without braces."""
        told = run("info", {"dense": "dense.zarr", "factored": "fitted.zarr"}[kind])
        assert told.code == 0
        (line,) = (line for line in told.out.splitlines() if line.startswith("completion"))
        words = [f"features {kind}", "replacement 1", "clip 1 to 5", "fitted train and validation"]
        assert all(f"{word}, " in f"{line}, " for word in words)
        assert ("rank" in line) == (kind == "factored")
        assert "{" not in told.out

    def test_fit_gives_what_python_gives(self, here: Path, run: Run) -> None:
        """The same settings, iterations, validation error and predictions as LinRFM with the same options."""
        facts = json.loads(run("fit", "store.zarr", "-o", "again.zarr", *FIT, "--json").out)
        model = LinRFM(**FITTED).fit(Observations.open("store.zarr"))
        assert facts["ridge"] == model.ridge_
        assert (facts["features"], facts["sides"], facts["rank"]) == ("factored", "both", model.rank_)
        assert facts["iterations"] == model.n_iter_
        assert facts["validation_rmse"] == model.validation_rmse_
        assert model.validation_rmse_ in {i.validation_rmse for i in model.history_ if i.rank == model.rank_}
        assert "test" not in " ".join(facts)
        saved = Completion.open("again.zarr").predict_block().compute()
        assert np.array_equal(saved, model.completion_.predict_block().compute())

    def test_fit_tells_the_error_of_the_weight_it_kept(self, here: Path, run: Run) -> None:
        """Several replacement weights are tried; the error told is the least one of the weight that was chosen."""
        facts = json.loads(run("fit", "store.zarr", "-o", "new.zarr", "--json").out)
        history = LinRFM().fit(Observations.open("store.zarr")).history_
        kept = [i for i in history if i.stage == "fit" and i.replacement == facts["replacement"]]
        assert facts["validation_rmse"] == min(i.validation_rmse for i in kept)

    def test_fit_options_reach_the_estimator(self, here: Path, run: Run) -> None:
        """Words such as none, and ranges, become what Python takes."""
        options = ["--offsets", "none", "--clip", "-1,6", "--ridge", "0.5", "--power", "1", "--no-refit", "--seed", "7"]
        facts = json.loads(run("fit", "store.zarr", "-o", "new.zarr", *FIT, *options, "--json").out)
        assert (facts["offsets"], facts["clip"], facts["ridge"]) == (None, [-1.0, 6.0], 0.5)
        assert (facts["power"], facts["refitted"]) == (1.0, False)

    def test_fit_tells_its_progress_on_stderr(self, here: Path, run: Run) -> None:
        """Without a terminal there is a plain line an iteration: number, validation RMSE, seconds left."""
        told = run("fit", "store.zarr", "-o", "new.zarr", *FIT)
        foreword, *lines = [line for line in told.err.splitlines() if line.startswith(("choosing", "fitting"))]
        assert re.match(r"choosing takes at most \d+\.\d times as long as one fit$", foreword)
        history = LinRFM(**FITTED).fit(Observations.open("store.zarr")).history_
        assert len(lines) == sum(i.stage == "fit" for i in history)
        assert all("validation RMSE" in line and "s left" in line for line in lines)
        assert "validation rmse" in told.out

    def test_plan_tells_what_python_plans(self, here: Path, run: Run) -> None:
        """One JSON object: Python's plan with the same options, and seconds from trying this machine."""
        options = ["--features", "factored", "--rank", "8", "--memory", "1GB"]
        facts = json.loads(run("plan", "store.zarr", *options, "--json").out)
        made = plan("store.zarr", features="factored", rank=8, memory="1GB")
        for name in ("features", "sides", "rank", "flops", "read_bytes", "peak_bytes", "why"):
            assert facts[name] == getattr(made, name)
        assert sum(facts["peak_parts"].values()) == facts["peak_bytes"] <= facts["allowed_bytes"] == 10**9
        assert facts["seconds_per_iteration"] > 0
        assert "moved_bytes" not in facts

    def test_plan_of_a_cluster_tells_what_moves(self, here: Path, run: Run) -> None:
        """With workers the peak is a worker's, and bytes moved and the client's peak are told in words too."""
        facts = json.loads(run("plan", "store.zarr", "--workers", "3", "--json").out)
        assert facts["moved_bytes"] > 0
        assert facts["client_peak_bytes"] > 10**8
        assert "moved bytes" in run("plan", "store.zarr", "--workers", "3").out

    def test_fit_tells_its_plan_and_what_happened(self, here: Path, run: Run) -> None:
        """The plan comes before the first iteration, and at the end the same figures as measured."""
        told = run("fit", "store.zarr", "-o", "new.zarr", *FIT, "--memory", "2GB", "--json")
        facts, lines = json.loads(told.out), told.err.splitlines()
        assert re.match(
            r"plan: factored, sides both, .* of 2000MB allowed(, .* of temporary files)?; an iteration reads", lines[0]
        )
        assert set(facts["planned"]) == set(facts["measured"])
        assert facts["measured"]["peak_bytes"] > 10**8
        assert facts["measured"]["seconds_per_iteration"] > 0

    def test_fit_draws_bars_on_a_terminal(self, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a terminal there are bars in place of the lines, and the results still go to stdout."""
        monkeypatch.setenv("FORCE_COLOR", "1")
        told = run("fit", "store.zarr", "-o", "new.zarr", *FIT, "--json")
        assert "validation RMSE" in told.err
        assert "replacement" not in told.err
        assert json.loads(told.out)["iterations"] == 4

    @pytest.mark.parametrize(
        ("options", "wanted"),
        [pytest.param(FIT, "fitted.zarr"), pytest.param(DENSE, "dense.zarr", marks=pytest.mark.slow)],
    )
    def test_fit_on_a_cluster_gives_the_same_bits(self, here: Path, run: Run, options: list[str], wanted: str) -> None:
        """A scheduler named by address or by its file runs the fit, and the features are the same."""
        with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster:
            address = cluster.scheduler.address
            Path("scheduler.json").write_text(json.dumps({"address": address}))
            by_address = run("fit", "store.zarr", "-o", "a.zarr", *options, "--scheduler", address)
            by_file = run("fit", "store.zarr", "-o", "b.zarr", *options, "--scheduler-file", "scheduler.json")
        assert (by_address.code, by_file.code) == (0, 0)
        for place in ("varp", "varm"):
            assert faults.snapshot(Path("a.zarr", place)) == faults.snapshot(Path(wanted, place))
            assert faults.snapshot(Path("b.zarr", place)) == faults.snapshot(Path(wanted, place))

    def test_score_gives_what_python_gives(self, here: Path, run: Run) -> None:
        """The stored test split by default, a ratings file by the users' own ids otherwise."""
        completion = Completion.open("fitted.zarr")
        stored, frame = completion.score(), read_table("ratings.csv", column="film")
        given = completion.score(frame["row"], frame["column"], frame["value"])
        for arguments, scores in (([], stored), (["ratings.csv", "--column", "film"], given)):
            facts = json.loads(run("score", "fitted.zarr", *arguments, "--json").out)
            cold = {"rmse": None, "mae": None, "count": 0, "left_out": 0}
            told = {"rmse": scores.rmse, "mae": scores.mae, "count": scores.count, "left_out": 0, "cold": cold}
            assert facts == told
        assert "rmse" in run("score", "fitted.zarr").out

    def test_predict_keeps_ids_names_and_order(self, here: Path, run: Run) -> None:
        """The table has the users' own columns and order, and Python's predictions; no other file is left."""
        Path("pairs.csv").write_text("film,user,when\nf003,1004,9\nf001,1007,9\nf003,1001,9\n")
        before = set(here.iterdir())
        options = ["--row", "user", "--column", "film"]
        assert run("predict", "fitted.zarr", "pairs.csv", "-o", "out/new.csv", *options).code == 0
        assert run("predict", "fitted.zarr", "pairs.csv", "-o", "new.parquet", *options).code == 0
        assert set(here.iterdir()) - before == {here / "out", here / "new.parquet"}
        assert run("predict", "fitted.zarr", "pairs.csv", "-o", "out/new.csv.gz", *options).code == 0
        assert gzip.decompress(Path("out/new.csv.gz").read_bytes()) == Path("out/new.csv").read_bytes()
        table = pd.read_csv("out/new.csv", float_precision="round_trip")
        assert list(table.columns) == ["user", "film", "prediction"]
        assert list(table["user"]) == [1004, 1007, 1001]
        wanted = Completion.open("fitted.zarr").predict([1004, 1007, 1001], ["f003", "f001", "f003"])
        assert np.array_equal(table["prediction"], wanted)
        pd.testing.assert_frame_equal(pd.read_parquet("new.parquet"), table, check_dtype=False)

    @pytest.mark.parametrize("pairs", ["1004,f003\n", "\n\n1004,f003\n", "1004::f003\n"])
    def test_predict_names_columns_that_have_no_name(self, here: Path, run: Run, pairs: str) -> None:
        """Without a header the columns are called row and column."""
        Path("pairs").write_text(pairs)
        run("predict", "fitted.zarr", "pairs", "-o", "new.csv")
        assert Path("new.csv").read_text().startswith("row,column,prediction\n1004,f003,")

    def test_predict_keeps_the_first_pair(self, here: Path, run: Run) -> None:
        """Text ids above a number are a pair, which is predicted or refused, but never dropped as a header."""
        Path("pairs").write_text("u1,f003\n1004,3\n")
        told = run("predict", "fitted.zarr", "pairs", "-o", "new.csv", "--unknown", "error")
        assert told.code == 2
        assert "row id u1 and column id 3 were not seen" in told.err
        assert run("predict", "fitted.zarr", "pairs", "-o", "new.csv").out == "new.csv: 2 predictions\n"

    def test_cold_entries_are_told_beside_the_rest(self, here: Path, run: Run) -> None:
        """Scores of a file with ids that were not seen count them too, and tell them on stderr and in JSON."""
        Path("new.csv").write_text("user,item,rating\n1004,f003,3\n1004,f999,2\n7,f003,4\n7,f999,1\n")
        frame, completion = read_table("new.csv"), Completion.open("fitted.zarr")
        entries = frame["row"], frame["column"], frame["value"]
        for unknown, became in (("offsets", "get what is known"), ("nan", "no prediction"), ("skip", "are left out")):
            told, scores = (
                run("score", "fitted.zarr", "new.csv", "--json", "--unknown", unknown),
                completion.score(*entries, unknown=unknown),
            )
            facts = json.loads(told.out)
            assert told.err.startswith("3 of 4 entries have ids that were not seen in fitting; they ")
            assert became in told.err
            assert (facts["count"], facts["rmse"], facts["left_out"]) == (scores.count, scores.rmse, scores.left_out)
            assert facts["cold"]["count"] + facts["cold"]["left_out"] == 3
            assert facts["cold"]["count"] == (3 if unknown == "offsets" else 0)

    def test_predict_leaves_out_or_marks_cold_pairs(self, here: Path, run: Run) -> None:
        """A line for each pair with the number that Python gives or none, or no line; how many is told."""
        Path("pairs.csv").write_text("user,item\n7,f003\n1004,f003\n1004,f999\n")
        completion = Completion.open("fitted.zarr")
        for unknown, rows, options in (("offsets", 3, {}), ("nan", 3, {"unknown": "nan"}), ("skip", 1, {})):
            told = run("predict", "fitted.zarr", "pairs.csv", "-o", "new.csv", "--overwrite", "--unknown", unknown)
            assert told.out == f"new.csv: {rows} predictions\n"
            assert told.err.startswith("2 of 3 pairs have ids that were not seen in fitting")
            table = pd.read_csv("new.csv", float_precision="round_trip")
            wanted = completion.predict(table["user"], table["item"], **options)
            assert np.array_equal(table["prediction"], wanted, equal_nan=True)

    def test_recommend_answers_unknown_rows(self, here: Path, run: Run) -> None:
        """They get Python's table, on the screen and in files of any kind, and are told; or are left out."""
        told = run("recommend", "fitted.zarr", "u1", "1004", "--k", "2", "--json")
        facts, wanted = json.loads(told.out), Completion.open("fitted.zarr").recommend(["u1", 1004], 2)
        assert facts["cold"] == 1
        assert facts["recommendations"] == wanted.to_dict(orient="records")
        assert told.err.startswith("1 of 2 rows have ids that were not seen in fitting")
        assert run("recommend", "fitted.zarr", "u1", "1004", "--k", "2", "-o", "new.parquet").code == 0
        assert pd.read_parquet("new.parquet")["row"].tolist() == ["1004", "1004", "u1", "u1"]
        assert run("recommend", "fitted.zarr", "u1", "--unknown", "skip").out == "none found\n"

    @pytest.mark.filterwarnings("default::UserWarning")
    def test_split_leaves_out_entries_with_unknown_ids(self, here: Path, run: Run) -> None:
        """The other entries of the file are split, and how many were left out is told in one line."""
        known = pd.read_csv("ratings.csv").sample(50, random_state=0)
        pd.concat([known, pd.DataFrame({"user": [7], "film": ["f003"], "rating": [1]})]).to_csv("t.csv", index=False)
        told = run("split", "store.zarr", "--test-file", "t.csv", "--column", "film")
        assert "50 test" in told.out
        assert told.err.startswith("rfmdist: 1 of 51 test entries, the first t.csv, line 52, have ids that are not in")

    def test_predict_reads_parquet_pairs(self, here: Path, run: Run) -> None:
        """A Parquet file's own names are kept."""
        pd.DataFrame({"user": [1004], "item": ["f003"]}).to_parquet("pairs.parquet")
        run("predict", "fitted.zarr", "pairs.parquet", "-o", "new.csv")
        assert Path("new.csv").read_text().startswith("user,item,prediction\n1004,f003,")

    def test_recommend_writes_what_python_gives(self, here: Path, run: Run) -> None:
        """A CSV and a Parquet file of all rows hold Python's table, bit for bit; no other file is left."""
        before = set(here.iterdir())
        for name in ("all.csv", "all.parquet"):
            told = run("recommend", "fitted.zarr", "-o", name, "--k", "3")
            assert told.out == f"{name}: 180 recommendations\n"
        assert set(here.iterdir()) - before == {here / "all.csv", here / "all.parquet"}
        wanted = Completion.open("fitted.zarr").recommend(k=3)
        pd.testing.assert_frame_equal(pd.read_csv("all.csv", float_precision="round_trip"), wanted, check_exact=True)
        pd.testing.assert_frame_equal(pd.read_parquet("all.parquet"), wanted, check_exact=True)

    def test_recommend_takes_rows_by_name_and_from_a_file(self, here: Path, run: Run) -> None:
        """Ids on the command line and in a file, one a line, choose the rows; options reach Python."""
        Path("rows.txt").write_text("1030\n\n 1007 \n")
        options = ["--rows", "rows.txt", "--k", "2", "--include-observed"]
        assert run("recommend", "dense.zarr", "1059", *options, "-o", "few.parquet").code == 0
        completion = Completion.open("dense.zarr")
        wanted = completion.recommend([1007, 1030, 1059], 2, exclude_observed=False)
        pd.testing.assert_frame_equal(pd.read_parquet("few.parquet"), wanted, check_exact=True)
        facts = json.loads(run("recommend", "dense.zarr", "1059", *options, "--json").out)
        wanted = completion.recommend([1059, 1030, 1007], 2, exclude_observed=False)
        assert pd.DataFrame(facts["recommendations"]).equals(wanted)

    def test_recommend_shows_named_rows(self, here: Path, run: Run) -> None:
        """Without an output the rows named are a table on stdout, best first."""
        lines = run("recommend", "fitted.zarr", "1004", "--k", "3").out.splitlines()
        wanted = Completion.open("fitted.zarr").recommend([1004], 3)
        assert lines[0].split() == ["row", "rank", "column", "prediction"]
        assert [line.split()[2] for line in lines[1:]] == wanted["column"].tolist()

    def test_recommend_says_when_nothing_is_left(self, run: Run, here: Path) -> None:
        """A row in which every column was observed is answered in words, and in a file by the header alone."""
        Path("full.csv").write_text("user,item,rating\n" + "".join(f"{u},{i},{u + i}\n" for u in "123" for i in "45"))
        run("ingest", "full.csv", "-o", "full.zarr")
        run("fit", "full.zarr", "-o", "done.zarr", "--ridge", "1", *FIT)
        assert run("recommend", "done.zarr", "1").out == "none found\n"
        assert run("recommend", "done.zarr", "-o", "none.csv").code == 0
        assert Path("none.csv").read_text() == "row,rank,column,prediction\n"

    @pytest.mark.parametrize("fitted", ["dense.zarr", "fitted.zarr"])
    def test_similar_shows_what_python_gives(self, here: Path, run: Run, fitted: str) -> None:
        """A table for people, and the same numbers as JSON."""
        wanted = Completion.open(fitted).similar(["f003", "f001"], 2)
        facts = json.loads(run("similar", fitted, "f003", "f001", "--k", "2", "--json").out)
        assert pd.DataFrame(facts["similar"]).equals(wanted)
        lines = run("similar", fitted, "f003", "f001", "--k", "2").out.splitlines()
        assert lines[0].split() == ["column", "rank", "similar", "similarity"]
        assert [line.split()[2] for line in lines[1:]] == wanted["similar"].tolist()

    def test_overwrite_replaces_what_is_there(self, here: Path, run: Run) -> None:
        """With --overwrite a store and a completion are replaced."""
        assert run("ingest", "ratings.csv", "-o", "store.zarr", "--column", "film", "--overwrite").code == 0
        assert not Observations.open("store.zarr").has_split
        assert run("fit", "store.zarr", "-o", "fitted.zarr", "--ridge", "0.5", *FIT, "--overwrite").code == 0
        assert Completion.open("fitted.zarr").step.ridge == 0.5

    def test_help_shows_the_defaults_of_python(self, run: Run) -> None:
        """Each default in the help of fit is that of LinRFM."""
        text = " ".join(run("fit", "--help").out.split())
        for name, value in LinRFM().get_params().items():
            option = f"--{name.replace('_', '-')} "
            if option in text and value not in (None, ()):
                assert f"[default: {value}]" in text.partition(option)[2].partition(" --")[0], name

    def test_command_runs_as_a_process(self) -> None:
        """The help and the version exit with 0; a missing file and a wrong option exit with 2, without a traceback."""
        command = [sys.executable, "-c", "from rfmdist.__main__ import main; main()"]
        for arguments, code in ((["--help"], 0), (["--version"], 0), (["info", "nope"], 2), (["fit", "--nope"], 2)):
            ended = subprocess.run([*command, *arguments], capture_output=True, text=True)
            assert ended.returncode == code, ended.stderr
            assert "rfmdist" in ended.stdout + ended.stderr
            assert "Traceback" not in ended.stderr


def _write(name: str, text: str) -> Callable[[], None]:
    return lambda: Path(name).write_text(text) and None


def _set_version() -> None:
    file = Path("store.zarr/zarr.json")
    document = json.loads(file.read_text())
    document["attributes"]["rfmdist"]["format"] = 99
    file.write_bytes(with_digest(json.dumps(document).encode()))


def _lose_shard() -> None:
    faults.shards(Path("store.zarr/X"), "data")[0].unlink()


def _lose_array() -> None:
    shutil.rmtree("store.zarr/X/indices")


def _flip_store() -> None:
    faults.flip_byte(faults.shards(Path("store.zarr/X"), "data")[0])


def _flip_features(place: str) -> Callable[[], None]:
    return lambda: faults.flip_byte(faults.shards(Path(place), "features")[0])


def _lose_features(place: str) -> Callable[[], None]:
    return lambda: faults.shards(Path(place), "features")[0].unlink()


def _all_for_test() -> None:
    store = Observations.open("store.zarr")
    store.store_split([np.full(store.nnz, Role.TEST, np.uint8)])


def _none_for_test() -> None:
    zarr.open_array("fitted.zarr/X/split", mode="r+")[:] = np.uint8(Role.TRAIN)


HEADER = "user,item,rating\n"
INGEST = "ingest new.csv -o new.zarr"
BAD: dict[str, tuple[Callable[[], None] | None, str | list[str], str]] = {
    "missing file": (None, "ingest nope.csv -o new.zarr", "nope.csv: no such file"),
    "empty file": (_write("new.csv", ""), INGEST, "new.csv: the file is empty"),
    "header alone": (_write("new.csv", HEADER), INGEST, "new.csv: no entries"),
    "ragged line": (_write("new.csv", HEADER + "1,2,3\n1,3\n"), INGEST, "new.csv, line 3: 2 fields"),
    "non-number": (_write("new.csv", HEADER + "1,2,3\n1,3,x\n"), INGEST, "line 3: the value 'x' is not a number"),
    "NaN": (_write("new.csv", HEADER + "1,2,nan\n"), INGEST, "line 2: the value 'nan' is not a finite number"),
    "infinity": (_write("new.csv", HEADER + "1,2,inf\n"), INGEST, "line 2: the value 'inf' is not a finite number"),
    "duplicate": (_write("new.csv", HEADER + "1,2,3\n1,2,4\n"), INGEST, "row 1, column 2 is given twice"),
    "unknown column": (None, "ingest ratings.csv -o new.zarr --row customer", "no column 'customer'"),
    "unknown duplicates": (None, "ingest ratings.csv -o new.zarr --duplicates first", "duplicates 'first'"),
    "memory too small": (None, "ingest ratings.csv -o new.zarr --column film --memory 10MB", "too small a budget"),
    "budget too small": (None, "fit store.zarr -o new.zarr --memory 100MB", "100MB are allowed"),
    "budget not a size": (None, "plan store.zarr --memory lots", "is not a size"),
    "memory not a size": (None, "ingest ratings.csv -o new.zarr --column film --memory lots", "is not a size"),
    "existing store": (None, "ingest ratings.csv -o store.zarr --column film", "store.zarr: exists already"),
    "observations for a completion": (
        lambda: shutil.copytree("store.zarr", "other.zarr"),
        "fit store.zarr -o other.zarr --overwrite",
        "other.zarr: holds observations; name another place for the completion",
    ),
    "a file for a store": (None, "ingest ratings.csv -o ratings.csv --column film --overwrite", "is not a store"),
    "unknown test entry": (
        _write("new.csv", "user,item\n1000,f999\n"),
        "split store.zarr --test-file new.csv",
        "new.csv, line 2: the ids of this test entry are not in store.zarr",
    ),
    "fraction": (None, "split store.zarr --test 1.5", "test 1.5 is not a fraction"),
    "split in two ways": (None, "split store.zarr --test 0.1 --leave-out 2", "not both"),
    "split of a completion": (None, "split fitted.zarr --test 0.2", "fitted.zarr: is a completion"),
    "no store": (None, "info nope.zarr", "nope.zarr: no such store"),
    "a folder for a store": (lambda: Path("folder").mkdir(), "info folder", "folder: is a folder, not a store"),
    **{
        f"a file to {verb}": (
            None,
            f"{verb} ratings.csv {options}",
            "ratings.csv: is a file, not a store; ingest it first: rfmdist ingest ratings.csv -o ratings.zarr",
        )
        for verb, options in {
            "info": "",
            "plan": "",
            "fit": "-o new.zarr",
            "split": "--test 0.1",
            "annotate": "ratings.csv --rows",
            "score": "",
            "predict": "ratings.csv -o new.csv",
            "recommend": "1000",
            "similar": "f001",
        }.items()
    },
    "a zip file to fit": (_write("new.zip", "PK"), "fit new.zip -o new.zarr", "new.zip: is a zip file, not a store"),
    "a store to ingest": (None, "ingest store.zarr -o new.zarr", "store.zarr: is a store, not a table; name a file"),
    "a completion to score": (None, "score fitted.zarr dense.zarr", "dense.zarr: is a store, not a table"),
    "a store of pairs": (None, "predict fitted.zarr store.zarr -o new.csv", "store.zarr: is a store, not a table"),
    "a store of rows": (None, "recommend fitted.zarr --rows store.zarr", "store.zarr: is a store, not a table"),
    "a zip file to ingest": (_write("new.zip", "PK"), "ingest new.zip -o new.zarr", "new.zip: is a zip file; unpack"),
    "HDF5 to ingest": (_write("new.h5ad", "HDF"), "ingest new.h5ad -o new.zarr", "new.h5ad: is HDF5, not a table"),
    "a pipe for a store": (
        lambda: os.mkfifo("pipe"),
        "ingest ratings.csv -o pipe --column film --overwrite",
        "pipe: is not a store, so it will not be overwritten",
    ),
    "a pipe for a completion": (
        lambda: os.mkfifo("pipe"),
        "fit store.zarr -o pipe --overwrite",
        "pipe: is not a store, so it will not be overwritten",
    ),
    "other version": (_set_version, "info store.zarr", "store version 99"),
    "torn store": (_lose_array, "fit store.zarr -o new.zarr", "X/indices is gone"),
    "missing shard, info": (_lose_shard, "info store.zarr", "a part of X/data is missing"),
    "missing shard, fit": (_lose_shard, "fit store.zarr -o new.zarr", "a part of X/data is missing"),
    "flipped byte, info": (_flip_store, "info store.zarr", "X/data is damaged"),
    "flipped byte, fit": (_flip_store, "fit store.zarr -o new.zarr", "X/data is damaged"),
    "ridge": (None, "fit store.zarr -o new.zarr --ridge -1", "ridge=-1.0 must be"),
    "ridge a word": (None, "fit store.zarr -o new.zarr --ridge small", "ridge='small' must be"),
    "power": (None, "fit store.zarr -o new.zarr --power 0.317", "power=317/1000 must be a positive fraction"),
    "clip": (None, "fit store.zarr -o new.zarr --clip 5,1", "clip=(5.0, 1.0) must be"),
    "clip a word": (None, "fit store.zarr -o new.zarr --clip 1,x", "clip=(1.0, 'x') must be"),
    "offsets": (None, "fit store.zarr -o new.zarr --offsets all", "offsets='all' is not known"),
    "no stored offsets": (None, "fit store.zarr -o new.zarr --offsets stored", "no offsets are stored"),
    "iterations": (None, "fit store.zarr -o new.zarr --max-iter 0", "max_iter=0 must be"),
    "empty split": (_all_for_test, "fit store.zarr -o new.zarr", "there are no training entries"),
    "existing completion": (None, "fit store.zarr -o fitted.zarr", "fitted.zarr: exists already"),
    "completion over its store": (None, "fit store.zarr -o store.zarr --overwrite", "store of observations itself"),
    "completion over its store by another name": (
        lambda: Path("link").symlink_to("store.zarr"),
        "fit store.zarr -o link --overwrite",
        "store of observations itself",
    ),
    "completion over its store through ..": (
        lambda: Path("folder").mkdir(),
        "fit store.zarr -o folder/../store.zarr --overwrite",
        "store of observations itself",
    ),
    "completion within its store": (None, "fit store.zarr -o store.zarr/new.zarr", "lies within the store"),
    "completion over a foreign store": (
        lambda: zarr.create_group("other.zarr") and None,
        "fit store.zarr -o other.zarr --overwrite",
        "other.zarr: is not a store",
    ),
    "empty delimiter": (None, ["ingest", "ratings.csv", "-o", "new.zarr", "--delimiter", ""], "delimiter ''"),
    "completion over a file": (None, "fit store.zarr -o ratings.csv --overwrite", "is not a store"),
    "completion below a file": (None, "fit store.zarr -o ratings.csv/new.zarr", "ratings.csv is not a folder"),
    "scheduler away": (
        None,
        "fit store.zarr -o new.zarr --scheduler 127.0.0.1:1",
        "no scheduler answers at 127.0.0.1:1",
    ),
    "scheduler a word": (None, "fit store.zarr -o new.zarr --scheduler here", "no scheduler answers at here"),
    "no scheduler file": (None, "fit store.zarr -o new.zarr --scheduler-file nope", "nope: cannot be read"),
    "wrong scheduler file": (None, "fit store.zarr -o new.zarr --scheduler-file ratings.csv", "not a scheduler file"),
    "two schedulers": (None, "fit store.zarr -o new.zarr --scheduler a:1 --scheduler-file b", "not both"),
    "score of a store": (None, "score store.zarr", "holds observations, not a completion"),
    "score without test": (_none_for_test, "score fitted.zarr", "no test entries are stored"),
    "score of a missing file": (None, "score fitted.zarr nope.csv", "nope.csv: no such file"),
    "unknown row to score": (
        _write("new.csv", HEADER + "7,f001,3\n"),
        "score fitted.zarr new.csv --unknown error",
        "row id 7 was not",
    ),
    "flipped byte, score": (_flip_features("fitted.zarr/varm"), "score fitted.zarr", "varm/features is damaged"),
    "missing features": (_lose_features("fitted.zarr/varm"), "score fitted.zarr", "a part of varm/features is missing"),
    "flipped byte, dense": (_flip_features("dense.zarr/varp"), "score dense.zarr", "varp/features is damaged"),
    "missing features, dense": (_lose_features("dense.zarr/varp"), "score dense.zarr", "a part of varp/features is"),
    "unknown column to predict": (
        _write("new.csv", "user,item\n1000,f999\n"),
        "predict fitted.zarr new.csv -o out.csv --unknown error",
        "column id f999 was not seen in fitting",
    ),
    "existing predictions": (None, "predict fitted.zarr ratings.csv -o ratings.csv", "ratings.csv: exists already"),
    "predictions over a store": (None, "predict fitted.zarr ratings.csv -o store.zarr --overwrite", "is a folder"),
    "recommend of a store": (None, "recommend store.zarr 1000", "holds observations, not a completion"),
    "recommend everything to the screen": (None, "recommend fitted.zarr", "go to a file: name it with -o"),
    "recommend to an unknown row": (
        None,
        "recommend fitted.zarr 7 -o out.csv --unknown error",
        "row id 7 was not seen in fitting",
    ),
    "recommend in no known way": (None, "recommend fitted.zarr 7 --unknown guess", "unknown='guess' is not known: use"),
    "predict in no known way": (
        _write("new.csv", "user,item\n1000,f999\n"),
        "predict fitted.zarr new.csv -o out.csv --unknown guess",
        "unknown='guess' is not known",
    ),
    "score in no known way": (None, "score fitted.zarr --unknown guess", "unknown='guess' is not known"),
    "split in no known way": (None, "split store.zarr --unknown guess", "unknown='guess' is not known"),
    "recommend nothing": (None, "recommend fitted.zarr 1000 --k 0", "k=0 must be a whole number of at least 1"),
    "recommend over a file": (None, "recommend fitted.zarr -o ratings.csv", "ratings.csv: exists already"),
    "rows from no file": (None, "recommend fitted.zarr --rows nope.txt -o out.csv", "nope.txt: no such file"),
    "rows from an empty file": (
        _write("new.txt", " \n\n"),
        "recommend fitted.zarr --rows new.txt -o out.csv",
        "new.txt: holds no ids; write one a line",
    ),
    "similar to an unknown column": (None, "similar fitted.zarr f999", "column id f999 was not seen in fitting"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case: str, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 2, stderr ends with one sentence that names the cause, and no file is changed or left."""
    monkeypatch.setattr(cli_paths, "CONNECT_SECONDS", 0.5)
    prepare, command, words = BAD[case]
    if prepare is not None:
        prepare()
    before = faults.snapshot(here)
    told = run(*(command.split() if isinstance(command, str) else command))
    assert told.code == 2, told.err
    assert told.out == ""
    said = [line for line in told.err.splitlines() if not line.startswith(("reading", "writing", "plan:"))]
    assert len(said) == 1
    sentence = said[0].replace(f"{here}/", "")
    assert sentence.startswith("rfmdist: ")
    assert words in sentence
    assert len(sentence) < 250
    assert faults.snapshot(here) == before


def test_recommendations_on_a_full_disk(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills while the table is written ends in one sentence, and nothing is left of it."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = faults.snapshot(here)
    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    told = run("recommend", "fitted.zarr", "-o", "out.csv")
    assert told.code == 2
    assert "the disk is full; free some space" in told.err
    assert faults.snapshot(here) == before


@pytest.mark.parametrize(
    "command", ["ingest ratings.csv -o new.zarr --column film", f"fit store.zarr -o new.zarr {' '.join(FIT)}"]
)
def test_full_disk_is_one_sentence(command: str, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills while the result is written ends in one sentence, and nothing is left of it."""
    before = faults.snapshot(here)
    assert not faults.fill_disk_at(monkeypatch, ".new.zarr")
    told = run(*command.split())
    assert told.code == 2
    assert told.err.splitlines()[-1].endswith("the disk is full; free some space or write elsewhere, then run again")
    assert "Traceback" not in told.err
    assert faults.snapshot(here) == before


def test_interrupt_is_one_line(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during a fit ends with exit code 130, one line, and no file."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LinRFM, "fit", interrupt)
    before = faults.snapshot(here)
    told = run("fit", "store.zarr", "-o", "new.zarr")
    assert told.code == 130
    assert told.err == "rfmdist: interrupted\n"
    assert faults.snapshot(here) == before


@pytest.mark.parametrize("module", ["rfmdist.cli", "typer", "rfmdist.errors", "numpy", "duckdb"])
def test_ctrl_c_while_modules_load_is_one_line(module: str, here: Path) -> None:
    """Ctrl-C is told alike when it comes before a verb begins, where Typer sees to it, and in what a verb imports."""
    before = faults.snapshot(here)
    program = (
        "import os, signal, sys\n"
        f"press = lambda event, of: event == 'import' and of[0] == '{module}' and os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.addaudithook(press)\n"
        "from rfmdist.__main__ import main\n"
        "main(['ingest', 'ratings.csv', '-o', 'new.zarr'])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "rfmdist: interrupted\n")
    assert faults.snapshot(here) == before


def test_ctrl_c_while_duckdb_reads_is_one_line(here: Path) -> None:
    """A real signal in the middle of reading ends with exit code 130, no traceback and no file."""
    rows = "\n".join(f"{k // 700},x{k % 700},1" for k in range(700_000))
    Path("many.csv").write_text(rows)
    before = faults.snapshot(here)
    command = [sys.executable, "-m", "rfmdist", "ingest", *["many.csv"] * 50, "-o", "new.zarr"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # reading has begun
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        assert process.wait() == 130, told
    assert told.splitlines()[-1] == "rfmdist: interrupted"
    assert "Traceback" not in told
    assert faults.snapshot(here) == before
    assert not list(here.glob(".*"))
