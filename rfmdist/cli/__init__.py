"""The command line: thin, every verb a call a Python user could write.

Options that are not given are left to the Python functions, whose defaults the help shows. Heavy modules are
imported inside the verbs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from rfmdist.cli.verb import INTERRUPTED, Verb


class Dtype(StrEnum):
    """Types of values."""

    float32 = "float32"
    float64 = "float64"


app = typer.Typer(
    name="rfmdist",
    help="Complete huge, mostly unobserved matrices with linear Recursive Feature Machines.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Row = Annotated[
    str | None, typer.Option(help="Name of the rows' column, or its position from 1. Known names are found.")
]
Column = Annotated[str | None, typer.Option(help="The same for the columns' ids.")]
Value = Annotated[str | None, typer.Option(help="The same for the values.")]
Delimiter = Annotated[str | None, typer.Option(help="Of text files; found from the first lines.")]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="Budget for the process.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there, once the new is complete.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
# Places of stores are text: a Path would drop a slash of a URL.
Store = Annotated[str, typer.Argument(metavar="STORE", help="Store made by 'rfmdist ingest': a path or URL.")]
Count = Annotated[int | None, typer.Option("--k", metavar="NUMBER", help="How many, for each.")]
Completed = Annotated[str, typer.Argument(metavar="COMPLETION", help="Completion made by 'rfmdist fit'.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"rfmdist {version('rfmdist')}")
        except PackageNotFoundError:
            print("rfmdist, not installed: run from its source")
        raise typer.Exit


@app.callback()
def _all(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(cls=Verb)
def ingest(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Tables or one matrix file.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="STORE", help="The store to write.")],
    row: Row = None,
    column: Column = None,
    value: Value = None,
    delimiter: Delimiter = None,
    memory: Memory = None,
    duplicates: Annotated[
        str | None, typer.Option(metavar="error|last|mean|sum", help="Of entries given twice.")
    ] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Of the stored values.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Read tables or a matrix into a new store.

    Tables are CSV, TSV, '::' or other delimited text (.gz too) and Parquet; a matrix is Matrix Market or npz.
    """
    from rfmdist.cli.show import IngestProgress
    from rfmdist.observations.ingest import ingest

    options = _given(
        row=row, column=column, value=value, delimiter=delimiter, memory=memory, duplicates=duplicates, dtype=dtype
    )
    with IngestProgress() as progress:
        store = ingest(list(inputs), output, overwrite=overwrite, progress=progress, **options)
    m, n = store.shape
    print(f"{output}: {m:,} rows x {n:,} columns, {store.nnz:,} entries")


@app.command(cls=Verb)
def split(
    store: Store,
    validation: Annotated[float | None, typer.Option(help="Fraction of what is not for test.")] = None,
    test: Annotated[float | None, typer.Option(help="Fraction of all entries, at random.")] = None,
    test_file: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Table of the test entries; may be repeated.")
    ] = None,
    leave_out: Annotated[int | None, typer.Option(metavar="K", help="Test entries of each row, at random.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the random choices.")] = None,
    row: Row = None,
    column: Column = None,
    delimiter: Delimiter = None,
    memory: Memory = None,
) -> None:
    """Choose validation and test entries.

    An earlier split of the store and its offsets are replaced.
    """
    from rfmdist.observations.split import split
    from rfmdist.observations.store import Observations

    observations = Observations.open(store)
    options = _given(
        validation=validation, test=test, test_file=test_file or None, leave_out=leave_out, seed=seed,
        row=row, column=column, delimiter=delimiter, memory=memory,
    )  # fmt: skip
    counts = split(observations, **options)
    print(f"{store}: " + ", ".join(f"{count:,} {role}" for role, count in counts.items()))


@app.command(cls=Verb)
def annotate(
    store: Store,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Table with a header and a column of ids.")],
    rows: Annotated[bool, typer.Option("--rows/--columns", help="Whose ids they are.")],
    ids: Annotated[
        str | None,
        typer.Option("--id", metavar="NAME", help="Column of the ids, or its position from 1; else the first."),
    ] = None,
    delimiter: Delimiter = None,
) -> None:
    """Add a table of your own columns about rows or columns.

    They lie beside the ids, where AnnData shows them too. A column of the same name is replaced.
    """
    from rfmdist.observations.store import Observations

    added = Observations.open(store).store_table("rows" if rows else "columns", file, ids=ids, delimiter=delimiter)
    print(
        f"{store}: added {', '.join(added.names)}; {added.matched:,} ids matched, {added.lacking:,} of the store's had"
        f" no line, {added.ignored:,} lines of other ids ignored"
    )


@app.command(cls=Verb)
def info(store: Store, as_json: Json = False) -> None:
    """Tell what a store or a completion holds.

    Also what an exact and a factored fit of it would take.
    """
    from rfmdist.cli.facts import store_facts
    from rfmdist.cli.show import show

    show(store_facts(store), as_json)


@app.command(cls=Verb)
def fit(
    store: Store,
    output: Annotated[str, typer.Option("--output", "-o", metavar="COMPLETION", help="The completion to write.")],
    features: Annotated[str | None, typer.Option(metavar="auto|dense|factored", help="How P is kept.")] = None,
    rank: Annotated[
        str | None, typer.Option(metavar="auto|NUMBER[,NUMBER]", help="Columns of factored features.")
    ] = None,
    sides: Annotated[str | None, typer.Option(metavar="auto|columns|both", help="Whether sides take turns.")] = None,
    power: Annotated[float | None, typer.Option(help="Multiple of 1/2: the power of the AGOP.")] = None,
    ridge: Annotated[str | None, typer.Option(metavar="auto|NUMBER", help="Of the row solves.")] = None,
    floor: Annotated[float | None, typer.Option(help="Added to the AGOP's diagonal.")] = None,
    replacement: Annotated[str | None, typer.Option(metavar="auto|NUMBER", help="Of observed residuals.")] = None,
    indicators: Annotated[str | None, typer.Option(metavar="auto|NUMBER", help="Weight of what was observed.")] = None,
    ridge_by_count: Annotated[str | None, typer.Option(metavar="auto|NUMBER", help="Exponent of counts.")] = None,
    row_scale: Annotated[str | None, typer.Option(metavar="auto|NUMBER", help="Exponent of rows' spreads.")] = None,
    side_weight: Annotated[str | None, typer.Option(metavar="auto|NUMBER", help="Weight of side columns.")] = None,
    row_table: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Column about rows to use; may be repeated.")
    ] = None,
    column_table: Annotated[list[str] | None, typer.Option(metavar="NAME", help="The same about columns.")] = None,
    cosine_features: Annotated[int | None, typer.Option(metavar="NUMBER", help="For one last solve.")] = None,
    offsets: Annotated[
        str | None, typer.Option(metavar="both|rows|columns|global|stored|none", help="Means fitted too.")
    ] = None,
    clip: Annotated[str | None, typer.Option(metavar="auto|none|LOW,HIGH", help="Range of predictions.")] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Of solves and products.")] = None,
    max_iter: Annotated[int | None, typer.Option(help="Most iterations.")] = None,
    tol: Annotated[float | None, typer.Option(help="Share of the error below which a gain is none.")] = None,
    validation_fraction: Annotated[float | None, typer.Option(help="Held out when no split is stored.")] = None,
    noise: Annotated[
        str | None, typer.Option(metavar="auto|NUMBER", help="Of the values, in their units; 0: they are exact.")
    ] = None,
    no_refit: Annotated[bool, typer.Option("--no-refit", help="Keep the fit on training entries alone.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of the held-out entries.")] = None,
    overwrite: Overwrite = False,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler to run on.")] = None,
    scheduler_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Its scheduler file.")] = None,
    as_json: Json = False,
) -> None:
    """Complete the observed matrix.

    Settings that are 'auto' are chosen on the validation entries; test entries are left alone.
    """
    from rfmdist.cli.facts import fit_facts
    from rfmdist.cli.paths import check_output, cluster
    from rfmdist.cli.show import FitProgress, show
    from rfmdist.lin_rfm import LinRFM
    from rfmdist.observations.store import Observations

    options = _given(
        features=features, rank=_whole(rank), sides=sides, power=power, ridge=_number(ridge), floor=floor,
        replacement=_number(replacement), indicators=_number(indicators), ridge_by_count=_number(ridge_by_count),
        row_scale=_number(row_scale), side_weight=_number(side_weight), row_table=row_table or None,
        column_table=column_table or None, cosine_features=cosine_features, dtype=dtype, max_iter=max_iter, tol=tol,
        validation_fraction=validation_fraction, noise=_number(noise), random_state=seed,
    )  # fmt: skip
    options |= {} if offsets is None else {"offsets": None if offsets == "none" else offsets}
    options |= {} if clip is None else {"clip": _range(clip)}
    check_output(output, overwrite, store)
    observations = Observations.open(store)
    with cluster(scheduler, scheduler_file) as client, FitProgress() as progress:
        model = LinRFM(refit=not no_refit, callbacks=[progress], **options)
        progress.foreword = f"choosing takes at most {model.choosing_bound:.1f} times as long as one fit"
        model.fit(observations, client=client)
    model.completion_.save(output, overwrite=overwrite)
    show(fit_facts(model, output), as_json)


@app.command(cls=Verb)
def score(
    completion: Completed,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Table of ratings; the stored test split if left out.")
    ] = None,
    row: Row = None,
    column: Column = None,
    value: Value = None,
    delimiter: Delimiter = None,
    as_json: Json = False,
) -> None:
    """Score predictions: RMSE, MAE and their number."""
    from rfmdist.cli.show import show
    from rfmdist.completion import Completion
    from rfmdist.observations.tables import read_table

    completed = Completion.open(completion)
    if file is None:
        scores = completed.score()
    else:
        table = read_table(file, row, column, value, delimiter)
        scores = completed.score(table["row"], table["column"], table["value"])
    show({"rmse": scores.rmse, "mae": scores.mae, "count": scores.count}, as_json)


@app.command(cls=Verb)
def predict(
    completion: Completed,
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS", help="Table of row and column ids.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="CSV, or Parquet by suffix.")],
    row: Row = None,
    column: Column = None,
    delimiter: Delimiter = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict entries given by the users' own ids."""
    from rfmdist.cli.facts import id_names
    from rfmdist.cli.paths import check_output, write_tables
    from rfmdist.completion import Completion
    from rfmdist.observations.tables import read_table

    check_output(output, overwrite)
    completed = Completion.open(completion)
    table = read_table(pairs, row, column, delimiter=delimiter, pairs=True)
    table["prediction"] = completed.predict(table["row"], table["column"])
    table.columns = [*id_names(pairs, row, column, delimiter), "prediction"]
    print(f"{output}: {write_tables([table], output):,} predictions")


@app.command(cls=Verb)
def recommend(
    completion: Completed,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ROW", help="Ids of rows; all if left out.")] = None,
    rows: Annotated[Path | None, typer.Option(metavar="FILE", help="Text file of ids of rows, one a line.")] = None,
    k: Count = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="CSV, or Parquet by suffix; of any size.")
    ] = None,
    include_observed: Annotated[
        bool, typer.Option("--include-observed", help="Also columns that were observed in the row.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Recommend to each row the columns of greatest prediction.

    Without -o the rows named are shown. A file has them in the store's order.
    """
    from rfmdist.cli.facts import read_ids
    from rfmdist.cli.paths import check_output, write_tables
    from rfmdist.cli.show import show_table
    from rfmdist.completion import Completion
    from rfmdist.errors import InputError

    wanted = [*(ids or []), *(read_ids(rows) if rows is not None else [])] or None
    options = _given(rows=wanted, k=k) | {"exclude_observed": not include_observed}
    if output is None:
        if wanted is None:
            raise InputError("recommendations for all rows go to a file: name it with -o, or name rows")
        show_table("recommendations", Completion.open(completion).recommend(**options), as_json)
        return
    check_output(output, overwrite)
    frames = Completion.open(completion).recommendations(**options)
    print(f"{output}: {write_tables(frames, output):,} recommendations")


@app.command(cls=Verb)
def similar(
    completion: Completed,
    ids: Annotated[list[str], typer.Argument(metavar="COLUMN", help="Ids of columns.")],
    k: Count = None,
    as_json: Json = False,
) -> None:
    """Show the columns most similar to given ones, by the cosine of their features."""
    from rfmdist.cli.show import show_table
    from rfmdist.completion import Completion

    show_table("similar", Completion.open(completion).similar(ids, **_given(k=k)), as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code."""
    try:
        app(args=arguments, prog_name="rfmdist")
    except KeyboardInterrupt:  # outside of a verb, which tells of its own
        print("rfmdist: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _given(**options: Any) -> dict[str, Any]:
    """Only the options that were given; the others are Python's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _number(text: str | None) -> float | str | None:
    """A number where the text is one; what else it may be, and its range, the estimator checks."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _whole(text: str | None) -> int | list[Any] | str | None:
    """A whole number, or several, where the text is that; the rest the estimator checks."""
    if text is not None and "," in text:
        return [_whole(part) for part in text.split(",")]
    try:
        return None if text is None else int(text)
    except ValueError:
        return text


def _range(text: str) -> Any:
    low, comma, high = text.partition(",")
    return (_number(low), _number(high)) if comma else None if text == "none" else text
