#!/usr/bin/env bash
# mean() and sum() of a float32 array are 5 % off inside numba.njit.
# Versions: numba 0.68.1, numpy 2.4.6.
# One would guess: about what NumPy gives, whose sum is made pairwise.
# Behaviour: the compiled sum adds one by one in float32; each addition to a large sum is rounded the same way.
# Seen: mean of 20 million times 0.1: 0.1 by NumPy, 0.10486 by numba.
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  numba==0.68.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import numba
import numpy as np

values = np.full(20_000_000, 0.1, np.float32)
compiled = numba.njit(lambda array: array.mean())(values)
print(values.mean(), compiled)
raise SystemExit(not (abs(values.mean() - 0.1) < 1e-6 and compiled > 0.104))
CODE
