#!/usr/bin/env bash
# AnnData cuts a dask array of CSR blocks into thousands of Zarr chunks if its first block is nearly empty.
# Versions: anndata 0.12.19, dask 2026.8.0, zarr 3.1.6, scipy 1.17.1.
# One would guess: the chunks on disk are of a usual size, whatever the first block holds.
# Behaviour: the first block is written as an array of its own, whose chunk is as long as it is, and others are
#   appended to it.
# Seen: three blocks with 2, 20000 and 20000 entries: 20001 chunks of 2 entries; in another order 3.
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  anndata==0.12.19 "dask[array]==2026.8.0" zarr==3.1.6 scipy==1.17.1 numpy==2.4.6 pandas==2.3.3
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import anndata
import dask.array as da
import numpy as np
import scipy.sparse as sp
import zarr
from dask import delayed


def chunks(name, *counts):
    rng = np.random.default_rng(0)
    blocks = []
    for count in counts:
        places = np.unravel_index(rng.choice(100_000, count, replace=False), (1000, 100))
        block = sp.csr_matrix((np.ones(count, np.float32), places), shape=(1000, 100))
        blocks.append(da.from_delayed(delayed(block), block.shape, meta=sp.csr_matrix((0, 0), dtype=np.float32)))
    anndata.AnnData(da.concatenate(blocks)).write_zarr(name)
    return zarr.open_group(name)["X/data"].nchunks


first, last = chunks("first.zarr", 2, 20_000, 20_000), chunks("last.zarr", 20_000, 20_000, 2)
print(first, last)
raise SystemExit((first, last) != (20_001, 3))
CODE
