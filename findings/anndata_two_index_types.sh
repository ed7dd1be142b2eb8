#!/usr/bin/env bash
# A CSR matrix that AnnData wrote as small as it can comes back with two index types, and scipy then refuses it.
# Versions: anndata 0.12.19, zarr 3.1.6, scipy 1.17.1.
# One would guess: what is read is a csr_matrix like any other.
# Behaviour: the reader sets the arrays as they lie on disk, uint8 indices beside int32 pointers. Slices and products
#   work; tocoo() and nonzero() raise. The constructor of csr_matrix would have made them one type.
# Seen: uint8 int32, ValueError: Output dtype not compatible with inputs.
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  anndata==0.12.19 zarr==3.1.6 scipy==1.17.1 numpy==2.4.6 pandas==2.3.3
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import anndata
import scipy.sparse as sp
import zarr

anndata.settings.write_csr_csc_indices_with_min_possible_dtype = True
group = zarr.open_group("matrix.zarr", mode="w")
anndata.io.write_elem(group, "X", sp.csr_matrix(sp.eye_array(5)))
found = anndata.io.read_elem(group["X"])
print(found.indices.dtype, found.indptr.dtype, (found @ found)[1:].nnz)
try:
    found.tocoo()
    said = None
except ValueError as error:
    said = str(error)
print(said)
rebuilt = sp.csr_matrix((found.data, found.indices, found.indptr), shape=found.shape)
raise SystemExit(said is None or rebuilt.tocoo().nnz != 5)
CODE
