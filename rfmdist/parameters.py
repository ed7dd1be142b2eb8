"""Checks of the estimators' parameters: each refusal is one sentence with the way out."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from rfmdist.checks import check_loop, check_number, check_whole, is_auto, is_number, is_whole
from rfmdist.engine.plan import Plan
from rfmdist.errors import InputError
from rfmdist.features.augmented import Extras
from rfmdist.machine import parse_size
from rfmdist.observations.blocks import parse_dtype

LARGEST_DENOMINATOR = 12
"""Of the power: roots beyond the twelfth leave no digits of small directions."""
EXPONENTIAL = "exponential"
"""The power's name where P = I - exp(-(AGOP + floor I))."""
NEAR = 1e-7
"""How near a power must be to the fraction that it stands for: a float32 is."""


def check_parameters(model: Any) -> None:
    """Refuse parameters out of range.

    Raises
    ------
    InputError
        Naming the parameter, its value and what is allowed.
    """
    if exponent(model.power) == EXPONENTIAL and model.features == "factored":
        raise InputError("power='exponential' needs exact features: choose features='dense'")
    for name, kinds in (("features", ("auto", "dense", "factored")), ("sides", ("auto", "columns", "both"))):
        if not isinstance(getattr(model, name), str) or getattr(model, name) not in kinds:
            raise InputError(f"{name}={getattr(model, name)!r} must be one of {', '.join(map(repr, kinds))}")
    ranks = model.rank if isinstance(model.rank, tuple | list) and model.rank else [model.rank]
    if not is_auto(model.rank) and any(not is_whole(rank) or rank < 1 for rank in ranks):
        raise InputError(
            f"rank={model.rank!r} must be 'auto', a whole number of at least 1, or a list of such to average over"
        )
    for name in ("ridge", "replacement", *Extras._fields):
        check_number(name, getattr(model, name), least=0, auto=True)
    check_number("floor", model.floor, least=0)
    check_loop(model)
    if not is_number(model.validation_fraction) or not 0 <= model.validation_fraction < 1:
        raise InputError(f"validation_fraction={model.validation_fraction!r} must be at least 0 and below 1")
    for name in ("row_table", "column_table"):
        value = getattr(model, name)
        if not isinstance(value, tuple | list) or not all(isinstance(column, str) for column in value):
            raise InputError(f"{name}={value!r} must be a list of names of stored columns")
    check_whole("random_state", model.random_state, 0)
    check_whole("cosine_features", model.cosine_features, 0)
    if not isinstance(model.verbose, bool):
        check_whole("verbose", model.verbose, 0)
    if not isinstance(model.refit, bool | np.bool_):
        raise InputError(f"refit={model.refit!r} must be True or False")
    parse_dtype(model.dtype)
    if model.memory is not None:
        parse_size(model.memory)
    _check_clip(model.clip)
    _check_noise(model)


def exponent(power: Any) -> Fraction | str:
    """Return 2α, what the AGOP is raised to, or the name of a φ that is no power.

    Raises
    ------
    InputError
        As `as_fraction`.
    """
    return power if isinstance(power, str) and power == EXPONENTIAL else 2 * as_fraction(power)


def as_fraction(power: Any) -> Fraction:
    """Return the fraction that a power stands for, of a denominator of at most 12.

    Raises
    ------
    InputError
        If there is none, or it is not positive.
    """
    if is_number(power) and power > 0:
        nearest = Fraction(float(power)).limit_denominator(LARGEST_DENOMINATOR)
        if nearest > 0 and abs(float(nearest) - float(power)) <= NEAR * float(power):
            return nearest
    shown = str(power) if isinstance(power, Fraction) else repr(power)
    raise InputError(
        f"power={shown} must be a positive fraction with a denominator of at most {LARGEST_DENOMINATOR}, such as 0.5,"
        " 0.25, 1/3 or 1.5"
    )


def greatest_rank(rank: Any) -> Any:
    """Return the rank that memory must hold and flops are counted for: of several the greatest."""
    return max(rank) if isinstance(rank, tuple | list) else rank


def check_workers(workers: Any) -> None:
    """Refuse a number of workers that is none.

    Raises
    ------
    InputError
    """
    if not is_whole(workers) or workers < 0:
        raise InputError(f"workers={workers!r} must be a whole number: the processes of a cluster, or 0 without one")


def check_extras(model: Any, plan: Plan) -> None:
    """Refuse additions that the planned features cannot take in.

    Raises
    ------
    InputError
        Naming the parameter and what it needs.
    """
    if model.side_weight == 0 and (model.row_table or model.column_table):
        raise InputError("row_table and column_table need side_weight='auto' or above 0")
    ranks = len(model.rank) if isinstance(model.rank, tuple | list) else 1
    if plan.features == "dense" and (ranks > 1 or model.cosine_features):
        raise InputError("several ranks and cosine_features need features='factored'")
    if plan.features == "factored" and plan.sides == "both" and not model.floor:
        if model.offsets == "stored" and not is_auto(model.row_scale) and model.row_scale:
            raise InputError("row_scale needs offsets that are fitted: choose offsets='both', or row_scale=0")
        return
    for name in (*Extras._fields, "row_table", "column_table"):
        value = getattr(model, name)
        if value and not is_auto(value):
            raise InputError(f"{name}={value!r} needs features='factored', sides='both' and floor=0")


def _check_clip(clip: Any) -> None:
    if clip is None or (isinstance(clip, str) and clip == "auto"):
        return
    pair = isinstance(clip, tuple | list) and len(clip) == 2 and all(map(is_number, clip))
    if not pair or not clip[0] < clip[1]:
        raise InputError(f"clip={clip!r} must be 'auto', None or (low, high) with low < high")


def _check_noise(model: Any) -> None:
    """Refuse a noise out of range, and settings that recovery has no use for."""
    if is_auto(model.noise):
        return
    if not is_number(model.noise) or model.noise < 0:
        raise InputError(f"noise={model.noise!r} must be 'auto' or a number of at least 0, in the values' units")
    wanted = {
        "features": ("auto", "factored"),
        "sides": ("auto", "both"),
        "power": (0.5,),
        "ridge": ("auto",),
        "replacement": ("auto",),
        "floor": (0,),
        "cosine_features": (0,),
        "row_table": ((), []),
        "column_table": ((), []),
    } | dict.fromkeys(Extras._fields, ("auto", 0))
    if isinstance(model.rank, tuple | list):
        raise InputError(f"rank={model.rank!r} is not for noise={model.noise!r}: give one, which bounds it, or 'auto'")
    for name, allowed in wanted.items():
        if getattr(model, name) not in allowed:
            raise InputError(
                f"{name}={getattr(model, name)!r} is not for noise={model.noise!r}, which recovers a low-rank matrix:"
                f" leave out {name}, or give noise='auto'"
            )
