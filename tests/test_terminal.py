"""What the command line shows and where it writes: narrow and ascii terminals, pipes, figures with units."""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.sparse import csr_array

from rfmdist import Completion, LinRFM, Observations
from rfmdist.cli import show
from rfmdist.cli.paths import check_output, write_tables
from rfmdist.errors import InputError
from rfmdist.features.augmented import Extras
from rfmdist.progress import Iteration

COMMAND = [sys.executable, "-m", "rfmdist"]
ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TABLE = pd.DataFrame({"row": [1, 2], "column": ["é", "b"], "prediction": [0.5, 1.5]})
CSV = "row,column,prediction\n1,é,0.5\n2,b,1.5\n".encode()


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a completion whose ids ascii lacks; store.zarr beside it is what was observed."""
    path = tmp_path_factory.mktemp("terminal") / "é.zarr"
    rng = np.random.default_rng(0)
    matrix = np.where(rng.random((12, 8)) < 0.6, rng.integers(1, 6, (12, 8)), 0)
    names = [f"é{j}" for j in range(8)]
    observations = Observations.from_scipy(
        csr_array(matrix.astype(np.float32)), path.with_name("store.zarr"), column_ids=names
    )
    LinRFM(max_iter=2, replacement=1.0, ridge=1.0, features="factored").fit(observations).completion_.save(path)
    return path


def iteration(stage: str, number: int, limit: int, error: float = 0.5) -> Iteration:
    """Give what a fit tells."""
    return Iteration(stage, number, limit, 1.0, 8, 1.0, Extras(), error, 0.1, 0.01)


# ---- ascii --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["recommend", "0"], ["similar", "é1"]])
def test_an_ascii_terminal_shows_other_characters(fitted: Path, arguments: list[str]) -> None:
    """Ids and paths that the encoding lacks end in no traceback, and change nothing else."""
    verb, *rest = arguments
    command = [*COMMAND, verb, str(fitted), *rest]
    told = subprocess.run(command, env=os.environ | ASCII, capture_output=True, check=False)
    assert told.returncode == (2 if verb == "similar" else 0), told.stderr
    assert b"Traceback" not in told.stderr
    assert (told.stdout + told.stderr).isascii()
    assert b"?" in told.stdout + told.stderr


def test_every_help_is_ascii() -> None:
    """The help of all verbs can be shown anywhere."""
    code = (
        "import contextlib, io, sys\n"
        "from rfmdist.cli import app\n"
        "from typer.main import get_command\n"
        "from rfmdist.__main__ import main\n"
        "for verb in get_command(app).commands:\n"
        "    with contextlib.suppress(SystemExit): main([verb, '--help'])\n"
    )
    told = subprocess.run([sys.executable, "-c", code], env=os.environ | ASCII, capture_output=True, check=True)
    assert told.stdout.count(b"Usage:") == 10
    assert told.stdout.isascii()


# ---- Ctrl-C and standard output -----------------------------------------------------------------------------


def test_nothing_is_imported_before_ctrl_c_is_seen_to() -> None:
    """Until main runs Ctrl-C ends in a traceback: only the package and its entry are loaded before it."""
    code = "import sys; seen = set(sys.modules); import rfmdist.__main__; print(sorted(set(sys.modules) - seen))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(told.stdout.replace("'", '"'))) <= {"__future__", "rfmdist", "rfmdist.__main__"}


def test_output_that_cannot_be_written_is_one_sentence() -> None:
    """A reader that has gone is not told of, and neither ends in Python's own words."""
    reader, writer = os.pipe()
    os.close(reader)
    told = subprocess.run([*COMMAND, "--version"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (told.returncode != 0, told.stderr) == (True, b"")


# ---- figures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("read_bytes_per_second", math.inf, "-"),
        ("read_bytes_per_second", 2.4418e7, "24.4 MB/s"),
        ("flops_per_second", 1.2e9, "1.2e+09 flops/s"),
        ("peak_bytes", 288_000_000, "288 MB"),
        ("read_bytes", 15933.0, "15.9 kB"),
        ("kept_bytes", 0, "0 B"),
        ("read_bytes", None, "-"),
        ("seconds_per_iteration", 0.0032774, "0.00328 s"),
        ("seconds", 5399.1, "5,399 s"),
        ("density", 0.41167, "41.2 %"),
        ("validation_rmse", math.nan, "-"),
        ("split", None, "none"),
        ("range", [1.0, 5.0], "1 to 5"),
        ("planned", {"peak_bytes": 5_000, "seconds_per_iteration": None}, "peak bytes 5 kB, seconds per iteration -"),
    ],
)
def test_figures_have_units(name: str, value: object, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes, seconds and flops say so; a dash stands where there is nothing to tell."""
    show.show({name: value}, as_json=False)
    assert capsys.readouterr().out == f"{name.replace('_', ' ')}  {words}\n"


def test_json_has_no_tokens_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """What is not finite is null, in facts and in tables: JSON knows neither NaN nor Infinity."""
    show.show({"rate": math.inf, "parts": [math.nan, 1.0]}, as_json=True)
    show.show_table("found", pd.DataFrame({"column": ["a"], "prediction": [math.nan]}), as_json=True)
    facts, table = capsys.readouterr().out.splitlines()
    assert json.loads(facts) == {"rate": None, "parts": [None, 1.0]}
    assert json.loads(table) == {"found": [{"column": "a", "prediction": None}]}
    assert "NaN" not in table


# ---- progress -----------------------------------------------------------------------------------------------


@pytest.fixture(params=[80, 40, 20])
def bars(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[show.FitProgress, io.StringIO]:
    """Give the bars of a fit on a terminal of some width, and what they write."""
    shown = io.StringIO()
    shown.width = request.param  # type: ignore[attr-defined]
    monkeypatch.setenv("TERM", "xterm")
    terminal = Console(file=shown, force_terminal=True, width=request.param, height=10, color_system=None)
    monkeypatch.setattr(show, "Console", lambda **_: terminal)
    return show.FitProgress(), shown


def test_a_fit_is_one_bar_below_a_line_for_each_stage(bars: tuple[show.FitProgress, io.StringIO]) -> None:
    """No line is wider than the terminal, the bar is one line, and ended stages tell their iterations and error."""
    progress, shown = bars
    width = shown.width  # type: ignore[attr-defined]
    with progress:
        for path in range(20):
            for k in range(1, 4):
                progress(iteration("try", k, 20, 0.9 - path / 100))
        for k in range(1, 6):
            progress(iteration("fit", k, 300, 0.4))
        progress._progress.refresh()
        assert len(progress._progress.tasks) == 1
        progress(iteration("refit", 1, 5, math.nan))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    lines = [line for part in text.split("\n") for line in part.split("\r")]
    assert max(len(line) for line in lines) <= width
    assert "\x1b[2A" not in shown.getvalue()  # never more than the one line to go back over
    ended = [line.strip() for line in lines if re.match(r"(trying|fitting|refitting): ", line)]
    wanted = ["trying: 60 iterations", "fitting: 5 iterations", "refitting: 1 iteration"]
    assert [line[:12] for line in ended] == [each[:12] for each in wanted]
    if width == 80:
        assert ended[0].startswith("trying: 60 iterations, validation RMSE 0.71000, ")
        assert any("5/300" in line and "at most 3 s left  RMSE 0.40000  0 s in all" in line for line in lines)


def test_a_fit_keeps_within_a_real_terminal(fitted: Path, tmp_path: Path) -> None:
    """On 40 columns no line that the bar draws is wider, and the results come after it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
    options = ["--features", "factored", "--max-iter", "3", "--replacement", "1", "--ridge", "1", "--json"]
    environment = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [*COMMAND, "fit", str(fitted.with_name("store.zarr")), "-o", str(tmp_path / "new.zarr"), *options],
        stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=environment | {"TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # which tells that the other end is closed
            while part := os.read(ours, 1 << 16):
                shown += part
        assert process.stdout is not None
        facts = json.loads(process.stdout.read())
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    lines = [line for part in text.split("\n") for line in part.split("\r")]
    assert facts["rank"] == 8
    assert max(len(line) for line in lines) <= 40
    assert any(re.match(r"fitting: \d iterations?", line) for line in lines)


# ---- streams ------------------------------------------------------------------------------------------------


def read_in_thread(path: Path) -> Callable[[], bytes]:
    """Read all of a pipe meanwhile."""
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(path.read_bytes()))
    thread.start()

    def result() -> bytes:
        thread.join(30)
        return found[0]

    return result


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_table_goes_into_a_pipe_and_does_not_replace_it(tmp_path: Path, overwrite: bool) -> None:
    """The pipe is there afterwards, whether it may be overwritten or not, and no other file is."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_output(pipe, overwrite)
    result = read_in_thread(pipe)
    assert write_tables([TABLE], pipe) == 2
    assert result() == CSV
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_file_that_is_open_is_gone_on_with(tmp_path: Path) -> None:
    """Under its name in /dev/fd, as a shell gives it: what is in it stays."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(b"before\n")
        file.flush()
        assert write_tables([TABLE], Path(f"/dev/fd/{file.fileno()}")) == 2
    assert path.read_bytes() == b"before\n" + CSV


def test_a_table_goes_to_standard_output(fitted: Path, tmp_path: Path) -> None:
    """As a table alone, in UTF-8 whatever the terminal, be it a file that the shell has opened."""
    with (tmp_path / "out").open("wb") as file:
        told = subprocess.run(
            [*COMMAND, "recommend", str(fitted), "--k", "1", "-o", "-"],
            stdout=file, stderr=subprocess.PIPE, env=os.environ | ASCII, check=True,
        )  # fmt: skip
    wanted = Completion.open(fitted).recommend(k=1)
    found = pd.read_csv(tmp_path / "out", float_precision="round_trip")
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False)
    assert told.stderr.decode() == f"-: {len(wanted)} recommendations\n"


def test_a_file_is_replaced_only_where_that_is_said(tmp_path: Path) -> None:
    """An ordinary file is no stream."""
    path = tmp_path / "out.csv"
    path.write_text("old")
    with pytest.raises(InputError, match="exists already"):
        check_output(path, False)
    check_output(path, True)
    write_tables([TABLE], path)
    assert path.read_bytes() == CSV
