#!/usr/bin/env bash
# A DuckDB relation is a query, not its result: two fetches of one relation tell of different rows.
# Versions: duckdb 2.0.1.
# One would guess: fetchall() twice gives the same list, as with a cursor that is kept.
# Behaviour: each fetch runs the query again, on the table as it then is; a sample or random() is drawn anew.
# Seen: the same relation gives 3 rows, and 4 after an insert; five random numbers differ from themselves.
# Ends with 0 while that holds, with 1 once it does not. Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  duckdb==2.0.1
cd "$folder"
venv/bin/python -W ignore - <<'CODE'
import duckdb

session = duckdb.connect()
session.execute("create table t as select range as x from range(3)")
relation = session.sql("select x from t")
before = relation.fetchall()
session.execute("insert into t values (3)")
after = relation.fetchall()
drawn = session.sql("select random() as x from range(5)")
same = drawn.fetchall() == drawn.fetchall()
print(len(before), len(after), same)
raise SystemExit((len(before), len(after), same) != (3, 4, False))
CODE
