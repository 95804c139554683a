"""The API level in force, and what it says of data types."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from nki.levels.table_rows import LEVELS, NEWEST, ORDER
from nki_isa.diagnostics import NkiError, error
from nki_isa.machine.dtypes import DType, as_dtype
from nki_isa.tensor.kinds import refused_dtype

_level = NEWEST


def current() -> str:
    """The API level in force."""
    return _level


def choose(level: str) -> str:
    """Put `level` in force; returns the one before. The modules do not follow: :func:`nki.levels.use`."""
    global _level
    previous, _level = _level, level
    return previous


def before(level: str) -> bool:
    """True if the level in force is older than `level`."""
    return ORDER[_level] < ORDER[level]


def among(since: str, until: str) -> bool:
    """True if the level in force is not before `since` and not after `until`; an empty one is not a bound."""
    here = ORDER[_level]
    return (not since or ORDER[since] <= here) and (not until or here <= ORDER[until])


def read_level(text: str) -> str:
    """A level from what a user writes: ``"0.3"``, ``"0.3.0"``, or an SDK release such as ``"2.29"``.

    Raises:
        NkiError: NKI-L051.
    """
    parts = text.strip().split(".")
    short = ".".join(parts[:2])
    by_release = {release: level for level, release in LEVELS.items()}
    level = short if short in LEVELS else by_release.get(short)
    if level is None:
        known = ", ".join(f"{level} (Neuron {release})" for level, release in LEVELS.items())
        raise error("NKI-L051", f"there is no API level {text!r}", help=f"the levels are {known}")
    return level


def of_environment() -> str:
    """The level that ``NKI_SIM_API`` names; the newest where it is not set.

    Raises:
        NkiError: NKI-L051.
    """
    text = os.environ.get("NKI_SIM_API")
    try:
        return read_level(text) if text else NEWEST
    except NkiError as found:
        note = "the environment variable NKI_SIM_API says so"
        raise NkiError(replace(d, notes=(*d.notes, note)) for d in found.diagnostics) from None


def choice(level: str) -> str:
    """How a kernel written for `level` is run, as a note."""
    return (
        f"API level {level} takes this: nki-sim --api {level}, NKI_SIM_API={level}, or "
        f"nki.levels.use({level!r}) before names are imported"
    )


def taken_before(level: str) -> tuple[str, ...]:
    """The note for what `level` is the first to refuse: the level before takes it. None for an empty one."""
    earlier = [name for name in LEVELS if level and ORDER[name] < ORDER[level]]
    return (choice(earlier[-1]),) if earlier else ()


def older() -> list[str]:
    """The levels before the one in force, the newest first."""
    return [level for level in reversed(LEVELS) if ORDER[level] < ORDER[_level]]


def known_dtype(dtype: DType) -> DType:
    """`dtype`, if the level in force has it.

    Raises:
        TypeError: it has not.
    """
    if dtype.bits == 64 and before("0.7"):
        raise TypeError(f"{dtype!r} is a data type from 0.7 on; the API level is {_level}")
    return dtype


def dtype_named(dtype: Any) -> DType:
    """The data type that a kernel names.

    Raises:
        NkiError: NKI-V121 for one that the level in force lacks.
    """
    try:
        return known_dtype(as_dtype(dtype))
    except TypeError as problem:
        raise refused_dtype(dtype, problem) from None


__all__ = [
    "among",
    "before",
    "choice",
    "choose",
    "current",
    "dtype_named",
    "known_dtype",
    "of_environment",
    "older",
    "read_level",
    "taken_before",
]
