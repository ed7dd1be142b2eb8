"""Checks of the estimators' parameters: each refusal is one sentence with the way out."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np

from rfmdist.errors import InputError
from rfmdist.observations.blocks import parse_dtype

LARGEST = 1e300
"""What no parameter reaches, and whole numbers beyond float64 surpass."""


def check_parameters(model: Any) -> None:
    """Refuse parameters out of range.

    Raises
    ------
    InputError
        Naming the parameter, its value and what is allowed.
    """
    if not _is_number(model.power) or model.power <= 0 or round(2 * model.power) != 2 * model.power:
        raise InputError(f"power={model.power!r} must be a positive multiple of 1/2, such as 0.5, 1 or 1.5")
    for name, kinds in (("features", ("auto", "dense", "factored")), ("sides", ("auto", "columns", "both"))):
        if not isinstance(getattr(model, name), str) or getattr(model, name) not in kinds:
            raise InputError(f"{name}={getattr(model, name)!r} must be one of {', '.join(map(repr, kinds))}")
    if not _is_auto(model.rank) and (not _is_whole(model.rank) or model.rank < 1):
        raise InputError(f"rank={model.rank!r} must be 'auto' or a whole number of at least 1")
    for name in ("ridge", "replacement"):
        value = getattr(model, name)
        if not _is_auto(value) and (not _is_number(value) or value < 0):
            raise InputError(f"{name}={value!r} must be 'auto' or a number of at least 0")
    for name in ("floor", "tol"):
        value = getattr(model, name)
        if not _is_number(value) or value < 0:
            raise InputError(f"{name}={value!r} must be a number of at least 0")
    if not _is_number(model.validation_fraction) or not 0 <= model.validation_fraction < 1:
        raise InputError(f"validation_fraction={model.validation_fraction!r} must be at least 0 and below 1")
    for name, least in (("max_iter", 1), ("random_state", 0), ("verbose", 0)):
        value = getattr(model, name)
        if not (_is_whole(value) or (isinstance(value, bool) and name == "verbose")) or value < least:
            raise InputError(f"{name}={value!r} must be a whole number of at least {least}")
    if not isinstance(model.refit, bool | np.bool_):
        raise InputError(f"refit={model.refit!r} must be True or False")
    callbacks = model.callbacks if model.callbacks is not None else ()
    if not isinstance(callbacks, Iterable) or not all(map(callable, callbacks)):
        raise InputError(f"callbacks={model.callbacks!r} must be a list of functions")
    parse_dtype(model.dtype)
    _check_clip(model.clip)
    _check_noise(model)


def _check_clip(clip: Any) -> None:
    if clip is None or (isinstance(clip, str) and clip == "auto"):
        return
    pair = isinstance(clip, tuple | list) and len(clip) == 2 and all(map(_is_number, clip))
    if not pair or not clip[0] < clip[1]:
        raise InputError(f"clip={clip!r} must be 'auto', None or (low, high) with low < high")


def _check_noise(model: Any) -> None:
    """Refuse a noise out of range, and settings that recovery has no use for."""
    if _is_auto(model.noise):
        return
    if not _is_number(model.noise) or model.noise < 0:
        raise InputError(f"noise={model.noise!r} must be 'auto' or a number of at least 0, in the values' units")
    wanted = {
        "features": ("auto", "factored"),
        "sides": ("auto", "both"),
        "power": (0.5,),
        "ridge": ("auto",),
        "replacement": ("auto",),
        "floor": (0,),
    }
    for name, allowed in wanted.items():
        if getattr(model, name) not in allowed:
            raise InputError(
                f"{name}={getattr(model, name)!r} is not for noise={model.noise!r}, which recovers a low-rank matrix:"
                f" leave out {name}, or give noise='auto'"
            )


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and bool(-LARGEST < value < LARGEST)  # type: ignore[operator]
