"""Checks of parameters, one at a time: each refusal is one sentence with the way out. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from rfmdist.errors import InputError

LARGEST = 1e300
"""What no parameter reaches, and whole numbers beyond float64 surpass."""


def is_auto(value: Any) -> bool:
    """Whether it is the word "auto"."""
    return isinstance(value, str) and value == "auto"


def is_whole(value: Any) -> bool:
    """Whether it is a whole number."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite real number."""
    if isinstance(value, np.floating):
        value = float(value)  # a float32 cannot be compared with what it cannot hold
    return isinstance(value, Real) and not isinstance(value, bool) and bool(-LARGEST < value < LARGEST)  # type: ignore[operator]


def check_number(
    name: str,
    value: Any,
    *,
    least: float = -np.inf,
    most: float = np.inf,
    above: bool = False,
    auto: bool = False,
) -> None:
    """Refuse what is not a finite number from ``least`` to ``most``; ``above``: nor ``least`` itself; ``auto`` may be.

    Raises
    ------
    InputError
        Naming the parameter, its value and what is allowed.
    """
    if auto and is_auto(value):
        return
    if not is_number(value) or not least <= value <= most or (above and value == least):
        bounds = [f"{'above' if above else 'of at least'} {least:g}"] if least > -np.inf else []
        bounds += [f"of at most {most:g}"] if most < np.inf else []
        word = "'auto' or " if auto else ""
        raise InputError(f"{name}={value!r} must be {word}a number {' and '.join(bounds)}".rstrip())


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is not a whole number of at least ``least``.

    Raises
    ------
    InputError
    """
    if not is_whole(value) or value < least:
        raise InputError(f"{name}={value!r} must be a whole number of at least {least}")


def check_callbacks(callbacks: Any) -> None:
    """Refuse what is not a list of functions, or None.

    Raises
    ------
    InputError
    """
    given = callbacks if callbacks is not None else ()
    if not isinstance(given, Sequence) or not all(map(callable, given)):  # an iterator would be used up by looking
        raise InputError(f"callbacks={callbacks!r} must be a list of functions")


def check_loop(model: Any) -> None:
    """Refuse ``max_iter``, ``tol`` and ``callbacks`` that no loop can use.

    Raises
    ------
    InputError
    """
    check_whole("max_iter", model.max_iter, 1)
    check_number("tol", model.tol, least=0)
    check_callbacks(model.callbacks)
