"""API levels: NKI 0.2 to 0.7, of which one is in force; :mod:`nki.level_table` says how they differ.

A level is chosen with :func:`use`, the environment variable ``NKI_SIM_API`` or ``nki-sim --api``; the
default is the newest. The modules then hold the names of that level, and their functions take its
parameters, in its order; calls are translated to the newest form, which is what is modelled.
"""

from __future__ import annotations

import enum
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from nki.level_table import (
    FORMS,
    INFERRED,
    LEVELS,
    MEANINGS,
    NAMES,
    NEWEST,
    NOTICES,
    ORDER,
    TENSOR,
    TILE_SIZE,
    WHILE,
    Form,
    Name,
    Notice,
)
from nki_isa.diagnostics import Diagnostic, NkiError, Severity, error
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.dtypes import DType
from nki_isa.machine.enums import dge_mode
from nki_isa.tensor.tensor import NkiTensor

# --- the level in force

_level = NEWEST
_hidden: dict[tuple[str, str], Any] = {}
_entries: dict[tuple[str, str], Any] = {}
_exported: dict[str, list[str]] = {}  # the names of a module at all levels


def current() -> str:
    """The API level in force."""
    return _level


def before(level: str) -> bool:
    """True if the level in force is older than `level`."""
    return ORDER[_level] < ORDER[level]


def among(since: str, until: str) -> bool:
    """True if the level in force is none before `since` and none after `until`; an empty one is no bound."""
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


def use(level: str) -> str:
    """Make `level` the one in force and give the modules its names; returns the one before.

    Choose it before names are imported from the modules: an imported name stays.

    Raises:
        NkiError: NKI-L051.
    """
    global _level
    previous, _level = _level, read_level(level)
    for row in NAMES:
        cls = _class_of(row.module)
        if cls is not None:
            _use_member(cls, row)
            continue
        namespace, key = vars(sys.modules[row.module]), (row.module, row.name)
        if not row.at(_level) and row.name in namespace:
            _hidden[key] = namespace.pop(row.name)
        elif row.at(_level) and key in _hidden:
            namespace[row.name] = _hidden.pop(key)
    for module in {row.module for row in NAMES} & sys.modules.keys():
        namespace = vars(sys.modules[module])
        exported = _exported.setdefault(module, namespace["__all__"])
        namespace["__all__"] = [name for name in exported if name in namespace]
    for (module, name), entry in _entries.items():
        form = form_of(module, name)
        entry.__signature__ = entry.newest if form is None else form.signature
    return previous


def _class_of(module: str) -> type | None:
    """The class whose members the table lists under `module`; None for a module."""
    if module == TENSOR:
        return NkiTensor
    return type(sys.modules["nki.language"].tile_size) if module == TILE_SIZE else None


def _use_member(cls: type, row: Name) -> None:
    """Let kernels reach a method or property of `cls` at the levels that have it; we always do."""
    key = row.module, row.name
    if not row.at(_level) and key not in _hidden:
        _hidden[key] = vars(cls).get(row.name)
        setattr(cls, row.name, _refusing(key, inspect.getattr_static(cls, row.name)))
    elif row.at(_level) and key in _hidden:
        own = _hidden.pop(key)
        if own is None:  # inherited
            delattr(cls, row.name)
        else:
            setattr(cls, row.name, own)


class _MissingMember(NkiError, AttributeError):
    """The error of a member that the level in force lacks; ``hasattr`` in a kernel is false for it."""


def _refusing(key: tuple[str, str], member: Any) -> Any:
    """A method or property that kernel code cannot use."""
    from nki.compiler.specializer import stacks  # that package reads this module

    def get(owner: Any) -> Any:
        told = refusal(*key) if stacks.is_kernel_frame(sys._getframe(1)) else None
        if told is not None:
            raise _MissingMember([told])
        return member.__get__(owner, type(owner))

    return property(get)


@functools.lru_cache(1024)
def _form_at(module: str, name: str, level: str) -> Form | None:
    rows = [f for f in FORMS if (f.module, f.name) == (module, name) and ORDER[level] <= ORDER[f.until]]
    return min(rows, key=lambda f: ORDER[f.until], default=None)


def form_of(module: str, name: str, level: str | None = None) -> Form | None:
    """The older form of a function at `level`, or at the one in force; None for the newest."""
    return _form_at(module, name, level or _level)


@functools.lru_cache(1024)
def _is_newest(module: str, name: str, level: str) -> bool:
    """True if calls of a function at `level` are calls at the newest one."""
    return _form_at(module, name, level) is None and refusal(module, name, level) is None


def translated(
    module: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], level: str | None = None
) -> tuple[str, Any, Any]:
    """A call as one at the newest level: the function's name, its arguments, its keywords.

    Args:
        level: that of the call; the one in force if it is None.

    Raises:
        NkiError: NKI-L012 for arguments the level's form does not take; NKI-L050 for a name it lacks.
    """
    form = form_of(module, name, level)
    if form is None:
        missing = refusal(module, name, level)
        if missing is not None:
            raise NkiError([missing])
        return name, args, kwargs
    try:
        bound = form.signature.bind(*args, **kwargs)
    except TypeError as problem:
        text = f"its signature at API level {level or _level} is {name}{form.signature}"
        raise error("NKI-L012", f"{name}: {problem}", help=text) from None
    bound.apply_defaults()
    new, given = form.translate(name, dict(bound.arguments))
    return new, (), given


@functools.lru_cache(1024)
def _fields_at(opcode: str, level: str) -> dict[str, Any]:
    rows = [row for row in MEANINGS if row.name == opcode and ORDER[level] <= ORDER[row.until]]
    return {name: value for row in rows for name, value in row.fields.items()}


def fields_of(opcode: str, level: str | None = None) -> dict[str, Any]:
    """The fields, beyond its parameters, that give an instruction the meaning of a level."""
    return _fields_at(opcode, level or _level)


def with_members(opcode: str, kwargs: dict[str, Any], level: str | None = None) -> dict[str, Any]:
    """`kwargs` with numbers as members of their enumerations, where the level takes numbers.

    NKI 0.2 took them everywhere. The update guide to 0.3 ends that, but the kernel library of that release
    still passes ``dge_mode=3``.
    """
    place = ORDER[level or _level]
    if place >= ORDER["0.4"]:
        return kwargs
    fields = REGISTRY[opcode].fields
    made = dict(kwargs)
    for name, value in kwargs.items():
        kind = fields[name].kind if name in fields else None
        if isinstance(kind, type) and issubclass(kind, enum.Enum) and type(value) is int:
            taken = place < ORDER["0.3"] or kind is dge_mode
            made[name] = next((m for m in kind if taken and m.value == value), value)
    return made


def enter(module: str, name: str, entry: Any) -> None:
    """Let the signature of `entry` follow the level; it calls :func:`translated` itself."""
    entry.newest = inspect.signature(entry)
    _entries[module, name] = entry


def leveled(module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with the parameters of the level in force."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not _is_newest(module, name, _level):
            _, args, kwargs = translated(module, name, args, kwargs)
        return function(*args, **kwargs)

    del call.__wrapped__
    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    enter(module, name, call)
    return call


def changed(module: str) -> list[str]:
    """The functions of `module` whose parameters changed."""
    return sorted({form.name for form in FORMS if form.module == module})


def known_dtype(dtype: DType) -> DType:
    """`dtype`, if the level in force has it.

    Raises:
        TypeError: it has not.
    """
    if dtype.bits == 64 and before("0.7"):
        raise TypeError(f"{dtype!r} is a data type from 0.7 on; the API level is {_level}")
    return dtype


# --- what to say

_names = {(row.module, row.name): row for row in NAMES}
_notices = {row.name: row for row in NOTICES}


def choice(level: str) -> str:
    """How a kernel written for `level` is run, as a note."""
    return (
        f"API level {level} takes this: nki-sim --api {level}, NKI_SIM_API={level}, or "
        f"nki.levels.use({level!r}) before names are imported"
    )


def older() -> list[str]:
    """The levels before the one in force, the newest first."""
    return [level for level in reversed(LEVELS) if ORDER[level] < ORDER[_level]]


def refusal(module: str, name: str, level: str | None = None) -> Diagnostic | None:
    """NKI-L050 for a name that other levels have and the one in force lacks; None for any other name."""
    row, level = _names.get((module, name)), level or _level
    if row is None or row.at(level):
        return None
    message = f"{module}.{name} exists {row.levels}; the API level is {level}"
    nearest = row.until if row.until and ORDER[row.until] < ORDER[level] else row.since
    return Diagnostic("NKI-L050", message, help=row.instead, notes=(choice(nearest),))


def fitting(module: str, name: str, count: int, keywords: Iterable[str]) -> tuple[str, ...]:
    """The note that says which older level takes `count` arguments by position and these keywords."""
    for level in older():
        form = form_of(module, name, level)
        if form is not None and form is not form_of(module, name):
            try:
                form.signature.bind(*range(count), **dict.fromkeys(keywords))
            except TypeError:
                continue
            return (choice(level),)
    return ()


def member_notes(value: Any, name: str) -> list[Diagnostic]:
    """What there is to say of `name` of `value`: that the level lacks it, or that it is deprecated."""
    module = next((m for m in (TILE_SIZE, TENSOR) if type(value) is _class_of(m)), None)
    if module is None:
        module = getattr(value, "__name__", "")
    told = refusal(module, name), deprecation(module, name)
    return [diagnostic for diagnostic in told if diagnostic is not None]


def deprecation(module: str, name: str) -> Diagnostic | None:
    """NKI-L056 for a name that the level in force has and a later one will not: a warning, or a note."""
    row = _notices.get((module, name))
    if row is None or before(row.level) or refusal(module, name) is not None:
        return None
    text = f"{row.what} is deprecated since {row.level}; the API level is {_level}"
    severity = Severity.warning if row.going else Severity.note
    return Diagnostic("NKI-L056", text, help=f"write {row.instead}", severity=severity)


def orders(module: str, name: str, count: int | None = None) -> tuple[str, ...]:
    """Notes for a function whose parameters, or the first `count` of them, are others at other levels."""
    entry, form = _entries.get((module, name)), form_of(module, name)
    if entry is None:
        return ()
    known = {f.until: list(f.signature.parameters) for f in FORMS if (f.module, f.name) == (module, name)}
    known[NEWEST] = list(entry.newest.parameters)
    mine = known[form.until if form else NEWEST]
    others = {level: order for level, order in known.items() if order[:count] != mine[:count]}
    if not others:
        return ()
    told = [f"at API level {_level} the parameters of {name} are {', '.join(mine)}"]
    return (*told, *(f"until {level} they are {', '.join(order)}" for level, order in others.items()))


def with_orders(module: str, name: str, count: int, found: NkiError) -> NkiError:
    """`found`, raised by a call with `count` arguments by position, with the notes of :func:`orders`."""
    notes = orders(module, name, count)
    return type(found)(replace(d, notes=(*d.notes, *notes)) for d in found.diagnostics) if notes else found


def keyword_refusal(module: str, name: str, keyword: str) -> Diagnostic | None:
    """NKI-L050 for a parameter that other levels have; None for any other keyword."""
    place = place_of(module, name)
    if place is None:
        return None
    had = next((f for f in FORMS if (f.module, f.name) == place and keyword in f.signature.parameters), None)
    if had is not None and ORDER[had.until] < ORDER[_level]:
        when, instead, level = f"up to {had.until}", had.instead.get(keyword, had.change), had.until
    else:
        form, entry = form_of(*place), _entries.get(place)
        if form is None or entry is None or keyword not in entry.newest.parameters:
            return None
        when, instead, level = f"after {form.until}", f"leave {keyword}= out", NEWEST
    text = f"{name} has the parameter {keyword!r} {when}; the API level is {_level}"
    return Diagnostic("NKI-L050", text, help=instead, notes=(choice(level),))


def place_of(module: str, name: str) -> tuple[str, str] | None:
    """The row of the table that `name`, defined in `module` or a part of it, has."""
    return next(((m, n) for m, n in _PLACES if n == name and f"{module}.".startswith(f"{m}.")), None)


_PLACES = sorted({(form.module, form.name) for form in FORMS})


__all__ = [
    "FORMS",
    "INFERRED",
    "LEVELS",
    "MEANINGS",
    "NAMES",
    "NEWEST",
    "NOTICES",
    "WHILE",
    "Form",
    "Name",
    "Notice",
    "among",
    "before",
    "changed",
    "choice",
    "current",
    "deprecation",
    "enter",
    "fields_of",
    "fitting",
    "form_of",
    "keyword_refusal",
    "leveled",
    "member_notes",
    "of_environment",
    "older",
    "orders",
    "place_of",
    "read_level",
    "refusal",
    "translated",
    "use",
    "with_members",
    "with_orders",
]
