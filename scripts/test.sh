#!/usr/bin/env bash
# Check everything in a fresh virtual environment: style, types, tests. Needs Python 3.11+ and a way to pip install.
#
# Usage: scripts/test.sh [pytest options]        PYTHON=python3.12 scripts/test.sh runs on another Python
#        scripts/test.sh --lowest                only the quick part, with the lowest versions that pyproject.toml allows
# The quick part, from ingest to recommend, is then run with what users get: a plain install and the tests' own needs, on this
# Python and on all that RFMDIST_PYTHONS names, which is python3.12, python3.13 and python3.14 where they are found,
# or a list of commands: RFMDIST_PYTHONS="python3.12 /opt/python/3.14/bin/python". Empty, it names none.
# The environments lie in build, which git ignores, and are made anew each time.
# Tests of SLURM and of several hosts skip where these cannot be had; see the end of cluster/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "test.sh: $python is older than Python 3.11; name another with PYTHON=..." >&2
    exit 2
}
others=()
for other in ${RFMDIST_PYTHONS-python3.12 python3.13 python3.14}; do
    if "$other" -c '' 2>/dev/null; then # a shim may be found and name a Python that is not there
        others+=("$other")
    elif [[ -n ${RFMDIST_PYTHONS-} ]]; then
        echo "test.sh: RFMDIST_PYTHONS names $other, which does not run" >&2
        exit 2
    fi
done
export PIP_DISABLE_PIP_VERSION_CHECK=1
part=(tests/test_{anndata,ids,readme,recommend,tables}.py) # the quick part
needs=(pytest pytest-timeout pytest-xdist)                 # of it, beside a plain install
both=(-n 2 --dist worksteal)                               # one process leaves the second core idle
step() { echo "== $* (${SECONDS} s)"; }

# environment NAME PYTHON: an empty one, of which $bin is the folder of commands
environment() {
    step "fresh environment: $1"
    "$2" -m venv --clear "build/$1"
    bin=$PWD/build/$1/bin
}

# install WHAT...: into the environment; compiled on all cores, which pip does on one
install() {
    "$bin/pip" install --quiet --prefer-binary --no-compile "$@"
    "$bin/python" -m compileall -q -j 0 "$bin/../lib" >/dev/null || true
}

quick() {
    step "quick part: $("$bin/python" --version)"
    "$bin/python" -m pytest -q "${both[@]}" "${part[@]}" "$@"
}

if [[ ${1:-} == --lowest ]]; then
    environment lowest-venv "$python"
    install uv # pip has no way to ask for the lowest versions
    "$bin/uv" pip compile --quiet --resolution lowest-direct --python "$bin/python" pyproject.toml -o build/lowest.txt
    install . -r build/lowest.txt "${needs[@]}"
    quick "${@:2}"
    exit
fi

environment test-venv "$python"
install '.[dev]'
step ruff
"$bin/ruff" check .
# In prose, examples keep their aligned comments.
"$bin/ruff" format --check .
step mypy
"$bin/mypy"
step pytest
"$bin/pytest" -q -m "not slow" "${both[@]}" "$@"

environment plain-venv "$python"
install . "${needs[@]}"
quick
for other in "${others[@]}"; do
    environment "plain-venv-$("$other" -c 'import platform; print(platform.python_version())')" "$other"
    install . anndata "${needs[@]}"
    quick
done
step all passed
