#!/usr/bin/env bash
# The paper's experiments again, one after the other; options go to every script.
#
# Usage: scripts/paper/all.sh [--quick] [--output FOLDER]
# PYTHON names another Python. All scripts are run, whatever becomes of one; the status is 1 if any failed.
set -uo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}
failed=()
for script in scripts/paper/*.py; do
    name=$(basename "$script" .py)
    [ "$name" = common ] && continue
    echo "== $name (${SECONDS} s)"
    "$python" "$script" "$@" || failed+=("$name")
done
echo "== done (${SECONDS} s)"
if [ ${#failed[@]} -gt 0 ]; then
    echo "all.sh: failed: ${failed[*]}" >&2
    exit 1
fi
