"""New rows as a fit would have seen them: the targets of a completion that folds them in. Knows no features."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from rfmdist.errors import InputError
from rfmdist.observations.blocks import Offsets
from rfmdist.observations.offsets import row_offsets
from rfmdist.observations.scales import LARGEST
from rfmdist.observations.store import Observations
from rfmdist.observations.targets import Targets

if TYPE_CHECKING:
    from rfmdist.observations.unknown import Unknown


def fold_in(targets: Targets, rows: Observations | sp.sparray | sp.spmatrix, unknown: Unknown) -> Targets:
    """Return the targets of new rows, whose offsets and scales are measured as those of the fitted rows were.

    Raises
    ------
    InputError
        If columns are not known and that is an error, or a value is so far from those fitted that it cannot be solved.
    """
    from rfmdist.observations.unknown import check_unknown

    check_unknown(unknown)
    ours = targets.observations
    new = rows if isinstance(rows, Observations) else _with_columns_of(ours, rows)
    if not new.column_ids.equals(ours.column_ids):
        new = _reordered(ours, new, unknown)
    _check_values(targets, new)
    offsets, scales = _of_rows(targets, new, targets.offsets), targets.scales
    if scales is not None:
        scales = scales.for_rows(new.row_blocks(targets.fitted), _of_rows(targets, new, scales.offsets))
    return replace(targets, observations=new, offsets=offsets, scales=scales, split=new.split_mark)


def _of_rows(targets: Targets, new: Observations, shared: Offsets) -> Offsets:
    """Offsets of new rows, given the mean and the columns' offsets."""
    offsets = replace(shared, rows=np.zeros(new.shape[0]))
    if shared.row_shrinkage is not None:
        for block in new.row_blocks(targets.fitted):
            offsets.rows[block.start : block.stop] = row_offsets(block, offsets, shared.row_shrinkage)
    return offsets


def _check_values(targets: Targets, new: Observations) -> None:
    """Refuse values whose squares, in units of those fitted, the fit's dtype cannot hold: solves would give NaN."""
    most = min(LARGEST, targets.unit * float(np.sqrt(np.finfo(targets.dtype).max)))
    for block in new.row_blocks():
        far = ~(np.abs(block.values.astype(np.float64) - targets.offsets.mean) <= most)
        if far.any():
            k = int(np.argmax(far))
            row, column = new.row_ids[block.rows[k]], new.column_ids[block.indices[k]]
            raise InputError(
                f"row id {row}, column id {column}: the value {block.values[k]:g} is too far from those fitted, which"
                f" are about {targets.unit:.3g} from their offsets; correct it, or fit again with values like it"
            )


def _with_columns_of(ours: Observations, matrix: Any, row_ids: Any = None) -> Observations:
    """Rows of a matrix whose columns are ours, by place."""
    if sp.issparse(matrix) and matrix.shape[-1] != ours.shape[1]:
        raise InputError(f"the new rows have {matrix.shape[-1]} columns, the completion has {ours.shape[1]}")
    return Observations.from_scipy(matrix, row_ids=row_ids, column_ids=ours.column_ids)


def _reordered(ours: Observations, new: Observations, unknown: Unknown) -> Observations:
    """Observations with their columns in our order, matched by id; roles go along, columns that we lack do not."""
    from rfmdist.observations.unknown import refuse_unknown

    codes, coo = ours.column_codes(new.column_ids), new.to_scipy().tocoo()
    columns = codes[coo.col]
    kept = columns >= 0
    if unknown == "error":
        refuse_unknown(ours, (1, new.column_ids, codes))
    if not kept.all():
        warnings.warn(
            f"{np.count_nonzero(~kept):,} of {len(kept):,} entries lie in {np.count_nonzero(codes < 0):,} columns that"
            " were not seen in fitting; they are left out, and the rows folded in from the others",
            stacklevel=4,
        )
    rows, columns = coo.row[kept], columns[kept]
    matrix = sp.coo_array((coo.data[kept], (rows, columns)), shape=(new.shape[0], ours.shape[1]))
    found, roles = _with_columns_of(ours, matrix, new.row_ids), new.roles(new.row_block(0, new.shape[0]))
    found.store_split([roles[kept][np.lexsort((columns, rows))]])
    return found
