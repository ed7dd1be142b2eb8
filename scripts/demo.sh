#!/usr/bin/env bash
# The main job from an empty environment: ratings become a completed matrix, scored beside offsets and ALS.
#
# Usage: scripts/demo.sh [100k|1m|generated]
#   100k       MovieLens 100K, its published split u1 (the default where it is found): about a minute
#   1m         MovieLens 1M: some minutes
#   generated  ratings like MovieLens' (the default where MovieLens is not found)
# MovieLens is looked for in $RFMDIST_DATA (default ../shared/data) under ml-100k and ml-1m.
# Environment and stores lie in build/demo, which git ignores; all are made anew. PYTHON names another Python.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
data=${RFMDIST_DATA:-../shared/data}
which=${1:-}
if [ -z "$which" ]; then
    which=generated
    [ -e "$data/ml-100k/u1.base" ] && which=100k
fi
case $which in
100k | 1m)
    release=$data/ml-$which
    [ -d "$release" ] || { echo "demo.sh: $release: no such folder; set RFMDIST_DATA or use 'generated'" >&2; exit 2; }
    ;;
generated) ;;
*)
    echo "demo.sh: $which is not known: use 100k, 1m or generated" >&2
    exit 2
    ;;
esac
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "demo.sh: $python is older than Python 3.11; name another with PYTHON=..." >&2
    exit 2
}
work=build/demo
store=$work/$which.zarr
completion=$work/$which-completion.zarr
run() {
    echo
    echo "\$ $*"
    "$@"
}

echo "== a fresh environment in $work/venv"
mkdir -p "$work"
"$python" -m venv --clear "$work/venv"
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$work/venv/bin/pip" install --quiet --prefer-binary .
PATH=$PWD/$work/venv/bin:$PATH

echo "== ratings into a store"
if [ "$which" = generated ]; then
    run python scripts/generate.py "$work/ratings.dat"
    run rfmdist ingest "$work/ratings.dat" -o "$store" --overwrite
    run rfmdist split "$store" --test 0.1
else
    run python scripts/movielens.py "$release" -o "$store" --overwrite
fi
run rfmdist info "$store"

echo
echo "== the matrix completed"
run rfmdist fit "$store" -o "$completion" --overwrite
run rfmdist score "$completion"

echo
echo "== beside its peers"
run python scripts/compare.py "$completion"
