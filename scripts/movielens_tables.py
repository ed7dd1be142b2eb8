"""What MovieLens 100K and 1M tell of their films and users, as tables by id. Knows the releases' own files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rfmdist.errors import InputError

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Those of u.item's last columns, in their order."""


def read_fields(path: Path, delimiter: str, width: int) -> pd.DataFrame:
    """Lines that begin with an id, cut into fields of text and indexed by the id; the files are in latin-1."""
    lines = [line.split(delimiter) for line in path.read_text("latin-1").split("\n")]
    lines = [line for line in lines if line[0].isdecimal()]
    wrong = next((line for line in lines if len(line) != width), None)
    if wrong is not None or not lines:
        found = "no line begins with an id" if wrong is None else f"the line of id {wrong[0]} has {len(wrong)} fields"
        raise InputError(f"{path}: {found} where {width} are expected; take the file from the release again")
    return pd.DataFrame([line[1:] for line in lines], index=pd.Index([int(line[0]) for line in lines]))


def films_100k(path: Path) -> pd.DataFrame:
    """u.item: id, title, release date, date on video, address, 19 flags."""
    fields = read_fields(path, "|", 5 + len(GENRES))
    flags = fields[fields.columns[4:]].astype(int).set_axis(GENRES, axis=1)
    return pd.concat([_year(fields[1]), flags], axis=1)


def users_100k(path: Path) -> pd.DataFrame:
    """u.user: id, age, sex, occupation, zip code."""
    fields = read_fields(path, "|", 5)
    return pd.DataFrame({"age": fields[0].astype(int), "sex": fields[1], "occupation": fields[2]})


def films_1m(path: Path) -> pd.DataFrame:
    """movies.dat: id, title with the year, genres divided by |."""
    fields = read_fields(path, "::", 3)
    return pd.concat([_year(fields[0].str.rstrip(" )")), fields[1].str.get_dummies("|")], axis=1)


def users_1m(path: Path) -> pd.DataFrame:
    """users.dat: id, sex, first year of the age group, code of the occupation, zip code."""
    fields = read_fields(path, "::", 5)
    return pd.DataFrame({"age": fields[1].astype(int), "sex": fields[0], "occupation": fields[2]})


def _year(text: pd.Series) -> pd.Series:
    """The four digits at the end of each text, NaN where there are none."""
    return text.str.extract(r"(\d{4})$", expand=False).astype(float).rename("year")


TABLES = {
    "u.item": ("columns", films_100k),
    "u.user": ("rows", users_100k),
    "movies.dat": ("columns", films_1m),
    "users.dat": ("rows", users_1m),
}
"""By name of the file: what its ids are of, and how to read it."""
