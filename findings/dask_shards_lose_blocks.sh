#!/usr/bin/env bash
# dask.array.to_zarr(shards=...) writes an array that lacks some of its blocks.
# Versions: dask 2026.8.0, zarr 3.1.6, numpy 2.4.6.
# One would guess: blocks that share a shard are put together before it is written, or the call is refused.
# Behaviour: each block is written by itself and rewrites the whole shard, so that threads undo one another's work;
#   there is no warning. With one thread nothing is lost.
# Seen: of 4096 values none 0, thousands of zeros come back; with scheduler="synchronous" none.
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  "dask[array]==2026.8.0" zarr==3.1.6 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import dask
import dask.array as da
import zarr

blocks = da.arange(1, 4097, chunks=64)
with dask.config.set(scheduler="threads", num_workers=8):
    blocks.to_zarr("threads.zarr", shards=(1024,))
with dask.config.set(scheduler="synchronous"):
    blocks.to_zarr("alone.zarr", shards=(1024,))
lost = [int((zarr.open_array(name)[:] == 0).sum()) for name in ("threads.zarr", "alone.zarr")]
print(lost)
raise SystemExit(not (lost[0] > 0 and lost[1] == 0))
CODE
