"""Which entries are for training, validation, test: stored as a mask, made by blocks. Knows no model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations.ahead import ahead
from rfmdist.observations.blocks import Role
from rfmdist.observations.draws import uniforms
from rfmdist.observations.layout import SHARD
from rfmdist.observations.sources import read_sources
from rfmdist.observations.staging import Batch, Stage
from rfmdist.observations.store import Observations
from rfmdist.observations.unknown import Unknown, check_unknown


def split(
    observations: Observations,
    *,
    validation: float = 0.1,
    test: float | None = None,
    test_file: str | Path | Sequence[str | Path] | None = None,
    leave_out: int | None = None,
    seed: int = 0,
    row: str | int | None = None,
    column: str | int | None = None,
    delimiter: str | None = None,
    memory: str | int = "1GB",
    unknown: Unknown = "offsets",
) -> dict[str, int]:
    """Store the role of every entry; an earlier split and stored offsets are replaced.

    Test entries are chosen in one way of three: a random fraction (``test``), those of a file
    (``test_file``), or some of each row (``leave_out``). A random part of the others is for validation, the
    rest for training. A choice depends on the seed and the entry's position alone.

    Parameters
    ----------
    observations : Observations
        The store.
    validation : float, default 0.1
        Fraction of the entries that are not for test, to be used for validation.
    test : float, default 0
        Fraction of all entries, to be used for test.
    test_file : str or Path, or a list of these, optional
        Tables whose (row, column) pairs become test entries; all of them must be in the store, but for ``unknown``.
    leave_out : int, optional
        Number of entries of each row with more than that many entries, drawn at random, to be used for test.
    seed : int, default 0
        Of the random choices.
    row, column, delimiter
        Of ``test_file``, as in `rfmdist.ingest`.
    memory : str or int, default "1GB"
        Budget for reading ``test_file``.
    unknown : {"offsets", "nan", "skip", "error"}, default "offsets"
        "error" refuses entries of ``test_file`` with a row or column id that is not in the store. Otherwise they are
        left out, since a store holds no entries of ids that it does not have, and a warning tells how many:
        `Completion.score` takes them with the others, as its own ``unknown`` says.

    Returns
    -------
    dict
        Number of "train", "validation" and "test" entries.

    Raises
    ------
    InputError
        If the store is a completion, a fraction is out of range, two ways are given, a pair of the file is not in the
        store though its ids are, or these are not and ``unknown`` is "error", none is, or no entry would be left for
        training.
    StoreError
        If the store is damaged or the disk full; the earlier split is then still there.
    """
    _check(validation, test, test_file, leave_out, seed)
    check_unknown(unknown)
    observations.refuse_change()
    if test_file is not None:
        files = [test_file] if isinstance(test_file, str | Path) else list(test_file)
        with Stage(observations.path, memory, pairs=True) as stage:
            for file in files:
                for table in read_sources(file, row, column, delimiter=delimiter, pairs=True):
                    stage.add(table)
            if stage.entries == 0:
                raise InputError(f"{', '.join(map(str, files))}: no entries, nothing to test on")
            left_out = _LeftOut(observations, stage, unknown)
            counts = _store(observations, _in_file(observations, stage, left_out), validation, seed)
            left_out.tell()
            return counts
    chosen = (
        _fraction(observations, test or 0.0, seed) if leave_out is None else _of_rows(observations, leave_out, seed)
    )
    return _store(observations, chosen, validation, seed)


def _store(
    observations: Observations, test: Iterator[NDArray[np.bool_]], validation: float, seed: int
) -> dict[str, int]:
    """Store the split with the given test entries, unless it leaves nothing for training."""
    counts = np.zeros(len(Role), np.int64)

    def pieces() -> Iterator[NDArray[np.uint8]]:
        low = 0
        for chosen in test:
            # Another stream than that of the test entries: their draws say nothing about each other.
            held_out = uniforms(_stream(seed, 1), low, low + len(chosen)) < validation
            roles = held_out.astype(np.uint8)
            roles *= np.uint8(Role.VALIDATION)
            roles[chosen] = Role.TEST
            counts[:] += [np.count_nonzero(roles == role) for role in Role]
            low += len(chosen)
            yield roles
        if counts[Role.TRAIN] == 0:
            raise InputError(f"{observations.name}: this split leaves no entry for training; hold out fewer")

    observations.store_split(pieces())
    return {role.name.lower(): int(count) for role, count in zip(Role, counts, strict=True)}


def _fraction(observations: Observations, test: float, seed: int) -> Iterator[NDArray[np.bool_]]:
    return ahead(lambda range_: uniforms(_stream(seed, 0), *range_) < test, _ranges(observations))


def _of_rows(observations: Observations, count: int, seed: int) -> Iterator[NDArray[np.bool_]]:
    """The ``count`` entries of each row with the smallest draws, where the row has more."""
    from rfmdist.observations import loops

    for start, stop in observations.ranges(rows=max(1, observations.shape[0])):
        indptr = observations.indptr[start : stop + 1]
        draws = uniforms(_stream(seed, 0), int(indptr[0]), int(indptr[-1]))
        chosen = np.zeros(len(draws), np.bool_)
        most = int(np.diff(indptr).max(initial=0))
        loops.choose_least(indptr - indptr[0], draws, min(count, most), chosen)
        yield chosen


class _LeftOut:
    """The entries of a test file whose ids the store does not have."""

    def __init__(self, observations: Observations, stage: Stage, unknown: Unknown) -> None:
        self._name, self._stage, self._unknown = observations.name, stage, unknown
        self._count, self._first = 0, stage.entries

    def add(self, orders: NDArray[np.int64]) -> None:
        """Count those that came in at these positions."""
        if len(orders):
            self._count, self._first = self._count + len(orders), min(self._first, int(orders.min()))

    def check(self) -> None:
        """Refuse them if they are an error, or all there is."""
        every = self._count == self._stage.entries
        if self._count and (every or self._unknown == "error"):
            some = f"all {self._count:,}" if every else f"{self._count:,} of {self._stage.entries:,}"
            whose = "this test entry" if self._count == 1 else f"{some} test entries, this one the first,"
            mend = "" if every else ", or leave these out with unknown='skip'"
            raise InputError(
                f"{self._stage.place(self._first)}: the ids of {whose} are not in {self._name}; ingest the test file"
                f" together with the others{mend}"
            )

    def tell(self) -> None:
        """Warn of them."""
        if self._count:
            warnings.warn(
                f"{self._count:,} of {self._stage.entries:,} test entries, the first {self._stage.place(self._first)},"
                f" have ids that are not in {self._name}; they are left out, scoring the file takes them in",
                stacklevel=3,
            )


def _in_file(observations: Observations, stage: Stage, left_out: _LeftOut) -> Iterator[NDArray[np.bool_]]:
    """The entries taken in by ``stage``, by a merge of two sorted streams."""
    stage.use_codes("row", observations.row_ids)
    stage.use_codes("column", observations.column_ids)
    ranges = observations.ranges()
    for (start, stop), asked_for in zip(ranges, _by_range(stage.batches(), ranges), strict=True):
        known = (asked_for.rows >= 0) & (asked_for.columns >= 0)
        left_out.add(asked_for.order[~known])
        block, wanted = observations.row_block(start, stop), asked_for[known]
        there, asked = (
            (rows - start) * np.int64(observations.shape[1]) + columns
            for rows, columns in ((block.rows, block.indices), (wanted.rows.astype(np.int64), wanted.columns))
        )
        missing = ~np.isin(asked, there)
        if missing.any():
            place = stage.place(int(wanted.order[np.argmax(missing)]))
            raise InputError(
                f"{place}: this entry is not in {observations.name}; ingest the test file together with the others, or"
                " split without it and score the file"
            )
        yield np.isin(there, asked)
    left_out.check()


def _by_range(batches: Iterator[Batch], ranges: list[tuple[int, int]]) -> Iterator[Batch]:
    """Cut the sorted stream into the entries of each range of rows; unknown rows, -1, come with the first."""
    held = next(batches)
    for _, stop in ranges:
        while held.rows.size == 0 or held.rows[-1] < stop:
            batch = next(batches, None)
            if batch is None:
                break
            held = held.followed_by(batch)
        cut = int(np.searchsorted(held.rows, stop))
        yield held[:cut]
        held = held[cut:]


def _ranges(observations: Observations) -> Iterator[tuple[int, int]]:
    for low in range(0, observations.nnz, SHARD):
        yield low, min(low + SHARD, observations.nnz)


def _stream(seed: int, which: int) -> int:
    """A seed of its own for each choice: equal draws would tie one choice to the other, and to `hold_out`."""
    return ((which + 1) << 32) + seed


def _check(validation: float, test: float | None, test_file: object, leave_out: int | None, seed: int) -> None:
    for name, fraction in (("validation", validation), ("test", 0.0 if test is None else test)):
        if not isinstance(fraction, Real) or isinstance(fraction, bool) or not 0 <= fraction < 1:
            raise InputError(f"{name} {fraction!r} is not a fraction: give a number from 0 to less than 1")
    given = [name for name, x in (("test", test), ("test_file", test_file), ("leave_out", leave_out)) if x is not None]
    if len(given) > 1:
        raise InputError(f"test entries are chosen in one way: give {given[0]} or {given[1]}, not both")
    if leave_out is not None and not (_whole(leave_out) and leave_out >= 1):
        raise InputError(f"leave_out {leave_out!r} is not a number of entries to hold out of a row: give 1 or more")
    if not (_whole(seed) and 0 <= seed < 1 << 32):
        raise InputError(f"seed {seed!r} is not a whole number from 0 to {(1 << 32) - 1}")


def _whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)
