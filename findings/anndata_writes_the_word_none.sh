#!/usr/bin/env bash
# Missing text comes back from AnnData's Zarr files as the word "None".
# Versions: anndata 0.12.19, zarr 3.1.6, numpy 2.4.6.
# One would guess: None stays None, or it is refused; a column of obs keeps it, and HDF5 refuses it.
# Behaviour: an array of objects under uns is cast to text when it is written to Zarr.
# Seen: ['a', None, 'b'] becomes ['a', 'None', 'b']; to HDF5 TypeError.
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  anndata==0.12.19 zarr==3.1.6 numpy==2.4.6 pandas==2.3.3
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import anndata
import numpy as np

table = anndata.AnnData(np.zeros((2, 2)), uns={"text": np.array(["a", None, "b"], object)})
table.write_zarr("table.zarr")
found = [str(word) if word is not None else None for word in anndata.read_zarr("table.zarr").uns["text"]]
print(found)
try:
    table.write_h5ad("table.h5ad")
    refused = False
except TypeError as error:
    refused = True
    print("HDF5:", type(error).__name__)
raise SystemExit(found != ["a", "None", "b"] or not refused)
CODE
