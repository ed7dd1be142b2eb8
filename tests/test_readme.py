"""The README's own commands and programs, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    """Text of one section of the README."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    """Code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    """A folder with ratings.csv, films.csv and pairs.csv, whose ids include those that the README names."""
    rng = np.random.default_rng(0)
    users, films = np.divmod(rng.choice(200 * 80, 4000, replace=False), 80)
    users, films = np.append(users, [12, 12]), np.append(films, [318, 527])
    stars = np.clip(np.round(3 + rng.normal(size=200)[users] + 0.3 * rng.normal(size=users.size)), 1, 5)
    lines = [f"{u},{f},{s:.0f}" for u, f, s in zip(users, films, stars, strict=True)]
    (tmp_path / "ratings.csv").write_text("\n".join(["userId,movieId,rating", *lines, ""]))
    (tmp_path / "films.csv").write_text("movieId,year,genre\n318,1994,Drama\n527,1993,War\n3,,Comedy\n")
    (tmp_path / "pairs.csv").write_text("userId,movieId\n12,318\n3,527\n")
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    """Run a command in a folder and return what it printed; fail with its errors."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_rest_of_the_paper_runs(tmp_path: Path) -> None:
    """The other estimators recover what the README gives them, the features' support exactly."""
    (program,) = blocks(section("The rest of the paper"), "python")
    (tmp_path / "example.py").write_text(program)
    sensed, deep, support, irls, nuclear = run([sys.executable, "example.py"], tmp_path).splitlines()
    assert float(sensed) < 1e-2
    assert float(deep.split()[0]) < 1e-2
    assert float(deep.split()[1]) > 0.99
    assert support == "[  3  50 120]"
    assert float(irls.split()[1]) < 1e-2
    assert float(nuclear.split()[1]) < 1e-2


def test_python_examples_run(ratings: Path) -> None:
    """The Python examples run in order, and the low-rank matrix is recovered."""
    programs = blocks(section("From Python"), "python")
    assert len(programs) == 7
    (ratings / "example.py").write_text("\n".join(programs[:6]) + "\n")
    printed = run([sys.executable, "example.py"], ratings).splitlines()
    assert 0 < float(printed[0]) < 1.2
    assert float(printed[-6]) < 1e-2
    assert printed[-5].startswith("certified: rank 3 fits ")
    assert float(printed[-4].split()[0]) < 1e-1
    assert printed[-2].startswith("{'ridge': ")
    reopened = 'import rfmdist\nstore = rfmdist.Observations.open("ratings.zarr")\n'
    (ratings / "cluster.py").write_text(reopened + programs[6])
    run([sys.executable, "cluster.py"], ratings)


def test_command_line_examples_run(ratings: Path) -> None:
    """The command-line examples run in order and leave the predictions."""
    (commands,) = blocks(section("From the command line"), "bash")
    for line in commands.strip().splitlines():
        words = line.split("#")[0].split()
        assert words[0] == "rfmdist"
        run([sys.executable, "-m", *words], ratings)
    assert (ratings / "predictions.csv").read_text().startswith("userId,movieId,prediction\n12,318,")


def test_both_scripts_are_there_and_executable() -> None:
    """The two commands that set everything up name scripts that can be run."""
    (commands,) = blocks(section("Two commands"), "bash")
    for line in commands.strip().splitlines():
        assert os.access(ROOT / line.split()[0], os.X_OK)


def test_parameters_are_all_explained() -> None:
    """Every parameter of LinRFM but the chatty ones stands in the table."""
    from rfmdist import LinRFM

    for name in set(LinRFM().get_params()) - {"verbose", "callbacks"}:
        assert f"`{name}`" in section("What it computes"), name
