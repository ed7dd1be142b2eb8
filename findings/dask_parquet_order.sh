#!/usr/bin/env bash
# The parts of a Parquet folder that Dask wrote come in another order to everybody else.
# Versions: dask 2026.8.0, pandas 2.3.3, pyarrow 26.0.1, duckdb 2.0.1.
# One would guess: a folder has one order, so that "keep the last of equal rows" means the same to all who read it.
# Behaviour: Dask reads part.2 before part.10, as it wrote them; DuckDB, Arrow and pandas take names by their letters.
# Seen: the first six of twelve parts: 0 1 2 3 4 5 by Dask; 0 1 10 11 2 3 by DuckDB, Arrow and pandas.
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  "dask[dataframe]==2026.8.0" pandas==2.3.3 pyarrow==26.0.1 duckdb==2.0.1
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import dask.dataframe as dd
import duckdb
import pandas as pd
import pyarrow.parquet as pq

dd.from_pandas(pd.DataFrame({"part": range(12)}), npartitions=12).to_parquet("parts", write_index=False)
orders = {
    "Dask": dd.read_parquet("parts")["part"].compute().tolist(),
    "DuckDB": duckdb.sql("select part from 'parts/*.parquet'").df()["part"].tolist(),
    "Arrow": pq.read_table("parts")["part"].to_pylist(),
    "pandas": pd.read_parquet("parts")["part"].tolist(),
}
for name, order in orders.items():
    print(name, *order[:6])
by_letters = sorted(range(12), key=str)
raise SystemExit(orders.pop("Dask") != list(range(12)) or any(order != by_letters for order in orders.values()))
CODE
