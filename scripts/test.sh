#!/usr/bin/env bash
# Check everything in a fresh virtual environment: style, types, tests. Needs Python 3.11+ and a way to pip install.
#
# Usage: scripts/test.sh [pytest options]        PYTHON=python3.12 scripts/test.sh runs on another Python
# The environment lies in build/test-venv, which git ignores, and is made anew each time.
# Tests of SLURM and of several hosts skip where these cannot be had; see the end of cluster/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "test.sh: $python is older than Python 3.11; name another with PYTHON=..." >&2
    exit 2
}
step() { echo "== $* (${SECONDS} s)"; }

step fresh environment
"$python" -m venv --clear build/test-venv
bin=$PWD/build/test-venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$bin/pip" install --quiet --prefer-binary --no-compile '.[dev]'
"$bin/python" -m compileall -q -j 0 build/test-venv/lib >/dev/null || true # on all cores; pip does it on one

step ruff
"$bin/ruff" check .
# In prose, examples keep their aligned comments.
"$bin/ruff" format --check .
step mypy
"$bin/mypy"
step pytest
"$bin/pytest" -q -m "not slow" -n 2 --dist worksteal "$@" # one process leaves the second core idle
step all passed
