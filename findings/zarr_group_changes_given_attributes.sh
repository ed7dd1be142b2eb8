#!/usr/bin/env bash
# Attributes that are set on a Zarr group appear in the dict that it was made with, and in other groups made with that.
# Versions: zarr 3.1.6, numpy 2.4.6.
# One would guess: create_group(attributes=d) copies d, as the attributes of a group that is opened are its own.
# Behaviour: the group keeps d itself, and a later group.attrs[name] = value is written into d. In a memory store every
# group that was made with the same d, such as a constant of a module, then has that attribute too.
# Seen: the constant ends as {'kind': 'a', 'extra': 1}, and so do the attributes of a second group made with it.
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check zarr==3.1.6 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import zarr
from zarr.storage import MemoryStore

constant = {"kind": "a"}
root = zarr.create_group(MemoryStore(), zarr_format=3)
first = root.create_group("first", attributes=constant)
first.attrs["extra"] = 1
second = root.create_group("second", attributes=constant)
print(constant, dict(second.attrs))
raise SystemExit(not (constant == dict(second.attrs) == {"kind": "a", "extra": 1}))
CODE
