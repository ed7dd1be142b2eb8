"""The command line: thin, every verb a call a Python user could write.

Options that are not given are left to the Python functions, whose defaults the help shows. Heavy modules are
imported inside the verbs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rfmdist.cli.options import (
    Column,
    ColumnTable,
    Completed,
    Cosines,
    Count,
    Delimiter,
    Dtype,
    Features,
    FitMemory,
    Floor,
    Indicators,
    Json,
    Memory,
    Noise,
    Overwrite,
    Power,
    Rank,
    RidgeByCount,
    Row,
    RowScale,
    RowTable,
    Sides,
    SideWeight,
    Solved,
    Store,
    Unknown,
    Value,
    given,
    settings,
)
from rfmdist.cli.verb import Verb

app = typer.Typer(
    name="rfmdist",
    help="Complete huge, mostly unobserved matrices with linear Recursive Feature Machines.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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

    Tables are CSV, TSV, '::' or other delimited text, .jsonl, Parquet or a folder of it, .feather, .arrow and .npy; a
    matrix is Matrix Market or npz. Text may be compressed: .gz, .bz2, .xz, .zst. Columns of numbers without names,
    beyond row, column, value and a time, may be a dense matrix: tell them by --row, --column and --value.
    """
    from rfmdist.cli.show import IngestProgress
    from rfmdist.observations.ingest import ingest
    from rfmdist.observations.sources import parts_of

    options = given(
        row=row, column=column, value=value, delimiter=delimiter, memory=memory, duplicates=duplicates, dtype=dtype
    )
    with IngestProgress() as progress:
        store = ingest(list(inputs), output, overwrite=overwrite, progress=progress, **options)
    m, n = store.shape
    files = sum(len(parts_of(source)) for source in inputs)
    print(f"{output}: {m:,} rows x {n:,} columns, {store.nnz:,} entries" + (f" from {files:,} files" * (files > 1)))


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
    unknown: Annotated[
        str | None,
        typer.Option(metavar="offsets|nan|skip|error", help="Of a file's entries with ids that the store lacks."),
    ] = None,
    row: Row = None,
    column: Column = None,
    delimiter: Delimiter = None,
    memory: Memory = None,
) -> None:
    """Choose validation and test entries.

    An earlier split of the store and its offsets are replaced. Entries of a file with ids that the store lacks are left
    out and told, unless they are an error: 'score COMPLETION FILE' scores them too.
    """
    from rfmdist.observations.split import split
    from rfmdist.observations.store import Observations

    observations = Observations.open(store)
    options = given(
        validation=validation, test=test, test_file=test_file or None, leave_out=leave_out, seed=seed,
        unknown=unknown, row=row, column=column, delimiter=delimiter, memory=memory,
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
def plan(
    store: Store,
    memory: FitMemory = None,
    workers: Annotated[int | None, typer.Option(metavar="NUMBER", help="Processes of a cluster; 0: in one.")] = None,
    features: Features = None,
    rank: Rank = None,
    sides: Sides = None,
    power: Power = None,
    floor: Floor = None,
    indicators: Indicators = None,
    ridge_by_count: RidgeByCount = None,
    row_scale: RowScale = None,
    side_weight: SideWeight = None,
    row_table: RowTable = None,
    column_table: ColumnTable = None,
    cosine_features: Cosines = None,
    dtype: Solved = None,
    noise: Noise = None,
    as_json: Json = False,
) -> None:
    """Tell what a fit would take, before any of it is done.

    Memory, bytes read and moved, flops, and seconds an iteration after two seconds of trying this machine.
    """
    from rfmdist.cli.facts import plan_facts
    from rfmdist.cli.show import show
    from rfmdist.engine.calibrate import calibrate
    from rfmdist.observations.store import Observations
    from rfmdist.planning import plan

    options = settings(
        memory=memory, workers=workers, features=features, rank=rank, sides=sides, power=power, floor=floor,
        indicators=indicators, ridge_by_count=ridge_by_count, row_scale=row_scale, side_weight=side_weight,
        row_table=row_table, column_table=column_table, cosine_features=cosine_features, dtype=dtype, noise=noise,
    )  # fmt: skip
    observations = Observations.open(store)
    made = plan(observations, **options)
    show(plan_facts(made, calibrate(made, observations)), as_json)


@app.command(cls=Verb)
def fit(
    store: Store,
    output: Annotated[str, typer.Option("--output", "-o", metavar="COMPLETION", help="The completion to write.")],
    features: Features = None,
    rank: Rank = None,
    sides: Sides = None,
    power: Power = None,
    ridge: Annotated[str | None, typer.Option(metavar="auto|NUMBER", help="Of the row solves.")] = None,
    floor: Floor = None,
    replacement: Annotated[str | None, typer.Option(metavar="auto|NUMBER", help="Of observed residuals.")] = None,
    indicators: Indicators = None,
    ridge_by_count: RidgeByCount = None,
    row_scale: RowScale = None,
    side_weight: SideWeight = None,
    row_table: RowTable = None,
    column_table: ColumnTable = None,
    cosine_features: Cosines = None,
    offsets: Annotated[
        str | None, typer.Option(metavar="both|rows|columns|global|stored|none", help="Means fitted too.")
    ] = None,
    clip: Annotated[str | None, typer.Option(metavar="auto|none|LOW,HIGH", help="Range of predictions.")] = None,
    dtype: Solved = None,
    max_iter: Annotated[int | None, typer.Option(help="Most iterations.")] = None,
    tol: Annotated[float | None, typer.Option(help="Share of the error below which a gain is none.")] = None,
    validation_fraction: Annotated[float | None, typer.Option(help="Held out when no split is stored.")] = None,
    noise: Noise = None,
    memory: FitMemory = None,
    no_refit: Annotated[bool, typer.Option("--no-refit", help="Keep the fit on training entries alone.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of the held-out entries.")] = None,
    overwrite: Overwrite = False,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler to run on.")] = None,
    scheduler_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Its scheduler file.")] = None,
    as_json: Json = False,
) -> None:
    """Complete the observed matrix.

    Settings that are 'auto' are chosen on the validation entries; test entries are left alone. The plan is told
    before work begins, and what really happened beside it at the end.
    """
    from rfmdist.cli.measured import Measured
    from rfmdist.cli.paths import check_output, cluster
    from rfmdist.cli.show import FitProgress, show
    from rfmdist.lin_rfm import LinRFM
    from rfmdist.observations.store import Observations

    options = settings(
        features=features, rank=rank, sides=sides, power=power, ridge=ridge, floor=floor, replacement=replacement,
        indicators=indicators, ridge_by_count=ridge_by_count, row_scale=row_scale, side_weight=side_weight,
        row_table=row_table, column_table=column_table, cosine_features=cosine_features, offsets=offsets, clip=clip,
        dtype=dtype, max_iter=max_iter, tol=tol, validation_fraction=validation_fraction, noise=noise, memory=memory,
        random_state=seed,
    )  # fmt: skip
    check_output(output, overwrite, store)
    observations = Observations.open(store)
    with (
        cluster(scheduler, scheduler_file) as client,
        FitProgress() as bars,
        Measured(client, bars.told) as measured,
    ):
        model = LinRFM(refit=not no_refit, callbacks=[bars, measured], **options)
        bars.foreword = f"choosing takes at most {model.choosing_bound:.1f} times as long as one fit"
        model.fit(observations, client=client)
        model.completion_.save(output, overwrite=overwrite)
    from rfmdist.cli.facts import fit_facts  # now that the fit is over: what it imports takes 70 MB

    show(fit_facts(model, output) | measured.beside(model.plan_), as_json)


@app.command(cls=Verb)
def score(
    completion: Completed,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Table of ratings; the stored test split if left out.")
    ] = None,
    unknown: Unknown = None,
    row: Row = None,
    column: Column = None,
    value: Value = None,
    delimiter: Delimiter = None,
    as_json: Json = False,
) -> None:
    """Score predictions: RMSE, MAE and their number.

    Cold entries, whose ids were not seen in fitting, are told beside the rest: they are among the others, with what is
    known without the id, unless they are to be left out or an error.
    """
    from rfmdist.cli.facts import score_facts
    from rfmdist.cli.show import show, tell_cold
    from rfmdist.completion import Completion
    from rfmdist.observations.tables import read_table

    completed, options = Completion.open(completion), given(unknown=unknown)
    if file is None:
        scores = completed.score(**options)
    else:
        table = read_table(file, row, column, value, delimiter)
        scores = completed.score(table["row"], table["column"], table["value"], **options)
        tell_cold(scores.cold.count + scores.cold.left_out, len(table), "entries", **options)
    show(score_facts(scores), as_json)


@app.command(cls=Verb)
def predict(
    completion: Completed,
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS", help="Table of row and column ids.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="CSV, or Parquet by suffix; - for standard output.")
    ],
    unknown: Unknown = None,
    row: Row = None,
    column: Column = None,
    delimiter: Delimiter = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict entries given by the users' own ids.

    An id that was not seen in fitting gets what is known without it, the mean and the other's offset; or no number
    (nan), no line (skip), or a refusal (error).
    """
    from rfmdist.cli.facts import id_names
    from rfmdist.cli.paths import check_output, show_written, write_tables
    from rfmdist.cli.show import tell_cold
    from rfmdist.completion import Completion
    from rfmdist.observations.tables import read_table

    check_output(output, overwrite)
    completed, options = Completion.open(completion), given(unknown=unknown)
    table = read_table(pairs, row, column, delimiter=delimiter, pairs=True)
    cold = completed.is_cold(table["row"], table["column"])
    asked = len(table)
    if unknown == "skip":
        table, options = table[~cold], {}
    table["prediction"] = completed.predict(table["row"], table["column"], **options)
    table.columns = [*id_names(pairs, row, column, delimiter), "prediction"]
    tell_cold(int(cold.sum()), asked, "pairs", **given(unknown=unknown))
    show_written(output, write_tables([table], output), "predictions")


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
    unknown: Unknown = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Recommend to each row the columns of greatest prediction.

    Without -o the rows named are shown. A file has them in the store's order. A row that was not seen in fitting gets
    the columns of greatest offset; or nothing (nan, skip), or a refusal (error).
    """
    from rfmdist.cli.facts import read_ids
    from rfmdist.cli.paths import check_output, show_written, write_tables
    from rfmdist.cli.show import show_table, tell_cold
    from rfmdist.completion import Completion
    from rfmdist.errors import InputError

    wanted = [*(ids or []), *(read_ids(rows) if rows is not None else [])]
    options = given(rows=wanted or None, k=k, unknown=unknown) | {"exclude_observed": not include_observed}
    if output is None and not wanted:
        raise InputError("recommendations for all rows go to a file: name it with -o, or name rows")
    if output is not None:
        check_output(output, overwrite)
    completed = Completion.open(completion)
    cold = int((completed.observations.row_codes(wanted) < 0).sum()) if wanted else 0
    if output is None:
        frame = completed.recommend(**options)
        tell_cold(cold, len(wanted), "rows", **given(unknown=unknown))
        show_table("recommendations", frame, as_json, cold=cold)
        return
    written = write_tables(completed.recommendations(**options), output)
    tell_cold(cold, len(wanted), "rows", **given(unknown=unknown))
    show_written(output, written, "recommendations")


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

    show_table("similar", Completion.open(completion).similar(ids, **given(k=k)), as_json)
