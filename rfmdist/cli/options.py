"""The options that verbs share, and what their text becomes. Knows no verb."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Any

import typer


class Dtype(StrEnum):
    """Types of values."""

    float32 = "float32"
    float64 = "float64"


Row = Annotated[
    str | None, typer.Option(help="Name of the rows' column, or its position from 1. Known names are found.")
]
Column = Annotated[str | None, typer.Option(help="The same for the columns' ids.")]
Value = Annotated[str | None, typer.Option(help="The same for the values.")]
Delimiter = Annotated[str | None, typer.Option(help="Of text files; found from the first lines.")]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="Budget for the process.")]
FitMemory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Budget for the process, or each worker; else what is free.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there, once the new is complete.")]
Unknown = Annotated[
    str | None,
    typer.Option(metavar="offsets|nan|skip|error", help="What ids get that were not seen in fitting."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
# Places of stores are text: a Path would drop a slash of a URL.
Store = Annotated[str, typer.Argument(metavar="STORE", help="Store made by 'rfmdist ingest': a path or URL.")]
Count = Annotated[int | None, typer.Option("--k", metavar="NUMBER", help="How many, for each.")]
Completed = Annotated[str, typer.Argument(metavar="COMPLETION", help="Completion made by 'rfmdist fit'.")]

Features = Annotated[str | None, typer.Option(metavar="auto|dense|factored", help="How P is kept.")]
Rank = Annotated[str | None, typer.Option(metavar="auto|NUMBER[,NUMBER]", help="Columns of factored features.")]
Sides = Annotated[str | None, typer.Option(metavar="auto|columns|both", help="Whether sides take turns.")]
Power = Annotated[str | None, typer.Option(metavar="NUMBER|exponential", help="Power of the AGOP: 0.5, 0.25, 1/3.")]
Floor = Annotated[float | None, typer.Option(help="Added to the AGOP's diagonal.")]
Indicators = Annotated[str | None, typer.Option(metavar="auto|NUMBER", help="Weight of what was observed.")]
RidgeByCount = Annotated[str | None, typer.Option(metavar="auto|NUMBER", help="Exponent of counts.")]
RowScale = Annotated[str | None, typer.Option(metavar="auto|NUMBER", help="Exponent of rows' spreads.")]
SideWeight = Annotated[str | None, typer.Option(metavar="auto|NUMBER", help="Weight of side columns.")]
RowTable = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Column about rows to use; may be repeated.")]
ColumnTable = Annotated[list[str] | None, typer.Option(metavar="NAME", help="The same about columns.")]
Cosines = Annotated[int | None, typer.Option(metavar="NUMBER", help="For one last solve.")]
Solved = Annotated[Dtype | None, typer.Option(help="Of solves and products.")]
Noise = Annotated[
    str | None, typer.Option(metavar="auto|NUMBER", help="Of the values, in their units; 0: they are exact.")
]


def given(**options: Any) -> dict[str, Any]:
    """Only the options that were given; the others are Python's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def settings(**options: Any) -> dict[str, Any]:
    """Settings of a fit that were given, their text turned into what it stands for; an empty list is none."""
    found = {name: value for name, value in options.items() if value is not None and value != []}
    return {name: READ[name](value) if name in READ else value for name, value in found.items()}


def number(text: str) -> float | str:
    """A number where the text is one; what else it may be, and its range, the estimator checks."""
    try:
        return float(text)
    except ValueError:
        return text


def fraction(text: str) -> Fraction | str:
    """A fraction where the text is one, written with a point or a slash; its range the estimator checks."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return text


def whole(text: str) -> int | list[Any] | str:
    """A whole number, or several, where the text is that; the rest the estimator checks."""
    if "," in text:
        return [whole(part) for part in text.split(",")]
    try:
        return int(text)
    except ValueError:
        return text


def pair(text: str) -> Any:
    """A range, none, or what else the estimator checks."""
    low, comma, high = text.partition(",")
    return (number(low), number(high)) if comma else None if text == "none" else text


def _unless_none(text: str) -> str | None:
    return None if text == "none" else text


NUMBERS = ("ridge", "replacement", "indicators", "ridge_by_count", "row_scale", "side_weight", "noise")
READ: dict[str, Callable[[str], Any]] = {
    "rank": whole,
    "power": fraction,
    "clip": pair,
    "offsets": _unless_none,
    **dict.fromkeys(NUMBERS, number),
}
"""What turns the text of an option into the setting."""
