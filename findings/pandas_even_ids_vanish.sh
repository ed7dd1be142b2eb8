#!/usr/bin/env bash
# Ids in a pandas index vanish from a Parquet file where they happen to be evenly spaced.
# Versions: pandas 3.1.1, pyarrow 26.0.1, polars 2.1.0.
# One would guess: a named index of integers is a column of the file, whatever the integers are.
# Behaviour: set_index makes a RangeIndex of evenly spaced integers, and to_parquet keeps that in pandas' own metadata
#   alone: other readers find no ids. One id more or less decides it. An index that is given as such stays a column.
# Seen: 100, 200, 300 gives the columns ['x'] in polars; 100, 200, 301 gives ['x', 'id'].
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  pandas==3.1.1 pyarrow==26.0.1 polars==2.1.0
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import pandas as pd
import polars as pl


def columns(ids):
    pd.DataFrame({"id": ids, "x": [1.0, 2.0, 3.0]}).set_index("id").to_parquet("table.parquet")
    return pl.read_parquet("table.parquet").columns


even, uneven = columns([100, 200, 300]), columns([100, 200, 301])
print(even, uneven)
raise SystemExit((even, uneven) != (["x"], ["x", "id"]))
CODE
