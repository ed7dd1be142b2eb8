#!/usr/bin/env bash
# sparse.COO.from_scipy_sparse forgets zeros that are stored, of three scipy formats out of four.
# Versions: sparse 0.19.3, scipy 1.17.1, numpy 2.4.6.
# One would guess: what is stored stays stored, as in the constructor of COO, and the argument stays as it is.
# Behaviour: zeros of CSC, BSR and COO are dropped, those of CSR kept; a COO matrix loses them itself.
# Seen: stored before, in the copy, left in the argument: csr 4 4 4, csc 4 2 4, bsr 4 2 4, coo 4 2 2.
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  sparse==0.19.3 scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import scipy.sparse as sp
import sparse

observed = sp.coo_array(([0.0, 1.0, 0.0, 2.0], ([0, 0, 1, 3], [0, 1, 1, 2])), shape=(4, 4))
found = {}
for name in ("csr", "csc", "bsr", "coo"):
    given = observed.asformat(name, copy=True) if name != "bsr" else observed.tobsr(blocksize=(1, 1))
    before = given.nnz
    found[name] = before, sparse.COO.from_scipy_sparse(given).nnz, given.nnz
    print(name, *found[name])
raise SystemExit(found != {"csr": (4, 4, 4), "csc": (4, 2, 4), "bsr": (4, 2, 4), "coo": (4, 2, 2)})
CODE
