#!/usr/bin/env bash
# A function that numba compiled has another Dask token in each process.
# Versions: numba 0.68.1, dask 2026.8.0, numpy 2.4.6.
# One would guess: the same source gives the same token, as it does for the plain function.
# Behaviour: the dispatcher's pickle holds an identifier that is drawn when it is made, and the token is of the pickle,
#   so that names of tasks differ between a client and whoever else builds the same graph.
# Seen: two runs of the same file: one token for the plain function, two for the compiled one.
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  numba==0.68.1 dask==2026.8.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import pathlib
import subprocess
import sys

pathlib.Path("module.py").write_text(
    "import numba\n"
    "def plain(x):\n"
    "    return x + 1\n"
    "compiled = numba.njit(plain)\n"
)
ask = "import module; from dask.base import tokenize; print(tokenize(module.plain), tokenize(module.compiled))"
runs = [subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True) for _ in range(2)]
plain, compiled = (set(tokens) for tokens in zip(*(run.stdout.split() for run in runs)))
print(len(plain), len(compiled))
raise SystemExit((len(plain), len(compiled)) != (1, 2))
CODE
