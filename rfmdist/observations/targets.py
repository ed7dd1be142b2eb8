"""What a model is fitted to and scored on: values less their offsets, in units of their root mean square."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.errors import InputError
from rfmdist.observations import loops
from rfmdist.observations.ahead import Ahead
from rfmdist.observations.blocks import FITTED_ROLES, Offsets, Role, RowBlock, role_table
from rfmdist.observations.by_column import MEMORY
from rfmdist.observations.kept import FiledBlocks, KeptBlocks, Pair
from rfmdist.observations.scales import Scales
from rfmdist.observations.scratch import Scratch
from rfmdist.observations.store import Observations

UNREAD = ""
"""Of the mark of a split: to be read from the observations."""


@contextmanager
def one_split(observations: Observations) -> Iterator[Callable[[], None]]:
    """Have all that is fitted within the block be of one split; yield what asks whether it still is.

    In the end that is asked once more; and when something fails, since a split that another process stores takes the
    column-ordered copy away, and the entries of two splits fit no model.

    Raises
    ------
    InputError
        If another split was stored meanwhile.
    """
    mark = observations.split_mark

    def check() -> None:
        if observations.split_mark != mark:
            raise InputError(f"{observations.name}: was split anew while it was fitted; fit again") from None

    try:
        yield check
    except Exception:
        check()
        raise
    check()


@dataclass(frozen=True, eq=False)
class Targets:
    """Observations as a fit sees them; read by blocks, so it may be larger than memory.

    Attributes
    ----------
    observations : Observations
        Where the entries come from.
    offsets : Offsets
        Taken from the values before they are fitted, added to predictions.
    unit : float
        Root mean square of what is left: the fitted values are divided by it, so that the ridge has no unit.
    dtype : dtype
        Of the fitted values.
    fitted, scored : frozenset of Role
        Roles of the entries that are fitted and of those that are only scored.
    clip : tuple of float or None
        Range that predictions are held to.
    scales : Scales or None
        Of the rows; what is left of the values is divided by its row's scale.
    keep_bytes : int
        Bytes of blocks that `read` keeps for the next time they are asked for. Copies keep their own.
    scratch : Scratch or None
        Where blocks are put that are beyond that, so that they are not decoded again; None if they are.
    split : str or None
        `Observations.split_mark` of the split that roles are of; what it is now when left out.
    """

    observations: Observations
    offsets: Offsets
    unit: float
    dtype: np.dtype[Any]
    fitted: frozenset[Role] = FITTED_ROLES
    scored: frozenset[Role] = frozenset()
    clip: tuple[float, float] | None = None
    scales: Scales | None = None
    keep_bytes: int = 0
    scratch: Scratch | None = None
    split: str | None = UNREAD
    _kept: KeptBlocks = field(default_factory=KeptBlocks, init=False, repr=False)
    _name: str = field(default_factory=lambda: f"blocks-{uuid.uuid4().hex}", init=False, repr=False)
    _ahead: Ahead[Pair] = field(default_factory=Ahead, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.split == UNREAD:
            object.__setattr__(self, "split", self.observations.split_mark)

    def check_split(self) -> None:
        """Refuse to go on with another split than that of the fit: its entries for test may be fitted ones.

        Raises
        ------
        InputError
            If another was stored meanwhile.
        """
        if self.observations.split_mark != self.split:
            raise InputError(
                f"{self.observations.name}: was split anew after this fit; fit again, or save completions before"
            )

    def read(self, start: int, stop: int, upcoming: tuple[int, int] | None = None) -> tuple[RowBlock, RowBlock | None]:
        """Read rows ``start`` to ``stop``: the fitted entries, standardised, and the scored ones, as observed.

        Rows ``upcoming`` are read meanwhile on another thread, to be asked for next.
        """
        found = self._kept.get(start, stop)
        if found is None:
            found = self._ahead.take((start, stop), self._read)
        if upcoming is not None and self._kept.get(*upcoming) is None:
            self._ahead.begin(upcoming, self._read)
        return found

    @property
    def kept_bytes(self) -> int:
        """Bytes of the blocks kept so far."""
        return self._kept.size

    def release(self) -> None:
        """Let the kept blocks go."""
        self._ahead.clear()
        self._kept.clear()
        self._filed.clear()

    def transposed(self, memory: int = MEMORY) -> Targets:
        """Return the targets of the transposed matrix, read by columns (see `Observations.by_column`); none is scored.

        ``memory`` is what making their copy may take; it lies in the scratch folder if the store takes none.

        Raises
        ------
        InputError, StoreError
            As `Observations.by_column`.
        """
        folder = None if self.scratch is None else self.scratch.folder
        by_column, offsets = self.observations.by_column(memory, folder), self.offsets.transposed()
        scales = None if self.scales is None else self.scales.transposed()
        return replace(self, observations=by_column, offsets=offsets, scored=frozenset(), scales=scales)

    def standardize(self, block: RowBlock, roles: NDArray[np.uint8]) -> RowBlock:
        """Return the fitted entries of a block, given the roles of all: less offsets, over scale and unit."""
        offsets, rows = self.offsets, slice(block.start, block.stop)
        base, nothing = offsets.mean + offsets.rows[rows], np.empty(0)
        scales = (nothing, nothing) if self.scales is None else self.scales.within(rows)
        wanted = role_table(self.fitted)
        count = loops.count(roles, wanted)
        pointers, indices = np.empty_like(block.indptr), np.empty(count + 1, block.indices.dtype)
        values = np.empty(count + 1, self.dtype)
        data = block.indptr, block.indices, block.values, roles, wanted, base, self._columns, *scales, self.unit
        loops.standardize(*data, pointers, indices, values)
        return RowBlock(block.start, block.stop, pointers, indices[:count], values[:count])

    @cached_property
    def _filed(self) -> FiledBlocks:
        return FiledBlocks(self.scratch, self._name)

    @cached_property
    def _columns(self) -> NDArray[np.float64]:
        """The columns' offsets; empty where all are 0, as they are where every solve fits them anew."""
        return self.offsets.columns if self.offsets.columns.any() else np.empty(0)

    def predictions(self, block: RowBlock, standardized: NDArray[np.floating]) -> NDArray[np.float64]:
        """Turn standardised predictions of the block's entries back into the values' own units."""
        values: NDArray[np.float64] = self.unit * standardized.astype(np.float64)
        if self.scales is not None:
            values *= self.scales.of(block)
        values += self.offsets.of(block)
        return values if self.clip is None else np.clip(values, *self.clip)

    def predictions_at(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], standardized: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Do the same at codes; -1 is a row or a column of which nothing is known, with offset 0 and scale 1."""
        offsets, values = self.offsets, self.unit * standardized
        if self.scales is not None:
            values *= np.append(self.scales.rows, 1.0)[rows]
        values += offsets.mean + np.append(offsets.rows, 0.0)[rows] + np.append(offsets.columns, 0.0)[columns]
        return values if self.clip is None else np.clip(values, *self.clip)

    def _read(self, start: int, stop: int) -> tuple[RowBlock, RowBlock | None]:
        """Read a pair from its file, or else decode and standardise it, and keep it, here or in a file."""
        filed = self._filed.get(start, stop)
        if filed is not None:
            return filed
        block = self.observations.row_block(start, stop)
        roles = self.observations.roles(block)
        pair = self.standardize(block, roles), block.of(roles, self.scored) if self.scored else None
        kept = self._kept.offer(start, stop, pair, self.keep_bytes)
        if kept is pair:
            self._filed.offer(start, stop, pair)
        return kept
