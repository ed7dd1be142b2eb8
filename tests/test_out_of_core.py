"""A hundred million entries in a gigabyte, by the script that does the same with a billion."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "out_of_core.py"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_million_entries_in_a_gigabyte() -> None:
    """Three iterations of columns only and two of both sides stay within the budget, and held-out errors fall."""
    command = [sys.executable, str(SCRIPT), "--entries", "1e8", "--memory", "1GB"]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = re.findall(r"errors ([\d., ]+); peak ([\d.]+) GB, ([\d.]+) with this process, planned ([\d.]+) GB", told)
    assert len(found) == 2
    for errors, peak, together, planned in found:
        values = [float(error) for error in errors.split(",")]
        assert values == sorted(values, reverse=True)
        assert values[-1] < 0.98 * values[0]
        assert float(peak) <= float(planned) <= 1.0
        assert float(together) <= float(peak) + 0.04  # the script's own process, two rounded figures
