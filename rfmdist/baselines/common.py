"""What the completion baselines share: checks of parameters, values without a unit. Knows no method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from rfmdist.errors import InputError
from rfmdist.iterating import Entries
from rfmdist.parameters import LARGEST


def check_number(model: Any, name: str, *, least: float = -np.inf, most: float = np.inf, above: bool = False) -> None:
    """Refuse a parameter that is not a finite number from ``least`` to ``most``; ``above``: nor ``least`` itself.

    Raises
    ------
    InputError
        Naming the parameter, its value and what is allowed.
    """
    value = getattr(model, name)
    is_number = isinstance(value, Real) and not isinstance(value, bool) and -LARGEST < value < LARGEST  # type: ignore[operator]
    if not is_number or not least <= value <= most or (above and value == least):
        bounds = [f"{'above' if above else 'of at least'} {least:g}"] if least > -np.inf else []
        bounds += [f"of at most {most:g}"] if most < np.inf else []
        raise InputError(f"{name}={value!r} must be a finite number {' and '.join(bounds)}".rstrip())


def check_whole(model: Any, name: str, least: int) -> None:
    """Refuse a parameter that is not a whole number of at least ``least``.

    Raises
    ------
    InputError
    """
    value = getattr(model, name)
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={value!r} must be a whole number of at least {least}")


def check_loop(model: Any) -> None:
    """Refuse ``max_iter``, ``tol`` and ``callbacks`` that no loop can use.

    Raises
    ------
    InputError
    """
    check_whole(model, "max_iter", 1)
    check_number(model, "tol", least=0)
    callbacks = model.callbacks if model.callbacks is not None else ()
    if not isinstance(callbacks, Iterable) or not all(map(callable, callbacks)):
        raise InputError(f"callbacks={model.callbacks!r} must be a list of functions")


def without_unit(entries: Entries) -> tuple[Entries, float]:
    """Divide the values by their root mean square, as `LinRFM` does, so that a ridge has no unit; return both.

    Raises
    ------
    InputError
        If nothing was observed, or the squares of what was leave float64's range.
    """
    if not len(entries.values):
        raise InputError("no entry was observed: there is nothing to complete the matrix from")
    with np.errstate(over="ignore"):
        unit = float(np.linalg.norm(entries.values)) / np.sqrt(len(entries.values))
    if not np.isfinite(unit):
        raise InputError("the squares of the values leave float64's range: divide the values by their largest")
    unit = unit or 1.0
    return replace(entries, values=entries.values / unit), float(unit)
