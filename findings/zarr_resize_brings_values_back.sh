#!/usr/bin/env bash
# A Zarr array that is made shorter and longer again shows the values that were cut off.
# Versions: zarr 3.1.6, numpy 2.4.6.
# One would guess: what is new after resize() holds the fill value, as it does in a new array.
# Behaviour: only whole chunks beyond the end are removed; what the last chunk held beyond it comes back.
# Seen: [0 1 2 3 4 5 6 7 -1 -1] after 10 -> 2 -> 10 with chunks of 8 and -1 for what is not there.
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  zarr==3.1.6 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import numpy as np
import zarr

array = zarr.create_array("array.zarr", shape=(10,), chunks=(8,), dtype="i4", fill_value=-1)
array[:] = np.arange(10)
array.resize((2,))
array.resize((10,))
print(array[:])
raise SystemExit(array[:].tolist() != [0, 1, 2, 3, 4, 5, 6, 7, -1, -1])
CODE
