#!/usr/bin/env bash
# The column sums of a float32 CSR array stop at 2^24, and asking for float64 does not help.
# Versions: scipy 1.17.1, numpy 2.4.6.
# One would guess: dtype=float64 is what the sum is made in, as in numpy.sum.
# Behaviour: each column is added up in float32, one entry after another, and the result cast; the same matrix as CSC,
#   and the sum of all entries, are right.
# Seen: of 16781312 ones, 16777216.0 by CSR, 16777216.0 by CSR with dtype=float64, 16781312.0 by CSC.
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import numpy as np
import scipy.sparse as sp

size = 2**24 + 4096
pointers = np.arange(size + 1, dtype=np.int32)
ones = sp.csr_array((np.ones(size, np.float32), np.zeros(size, np.int32), pointers), shape=(size, 1))
plain, wide = ones.sum(axis=0)[0], ones.sum(axis=0, dtype=np.float64)[0]
by_column = ones.tocsc().sum(axis=0)[0]
print(size, plain, wide, by_column)
raise SystemExit((plain, wide, by_column) != (2**24, 2**24, size))
CODE
