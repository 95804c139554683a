"""Calls at the API level in force, translated to calls at the newest one, which is what is modelled."""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from nki.levels.chosen import choice, current, older
from nki.levels.forms import FORMS, MEANINGS
from nki.levels.lacking import refusal
from nki.levels.table_rows import NEWEST, ORDER, OlderForm
from nki_isa.diagnostics import Diagnostic, NkiError, error
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.enums import dge_mode

_entries: dict[tuple[str, str], Any] = {}


@functools.lru_cache(1024)
def _form_at(module: str, name: str, level: str) -> OlderForm | None:
    rows = [f for f in FORMS if (f.module, f.name) == (module, name) and ORDER[level] <= ORDER[f.until]]
    return min(rows, key=lambda f: ORDER[f.until], default=None)


def form_of(module: str, name: str, level: str | None = None) -> OlderForm | None:
    """The older form of a function at `level`, or at the one in force; None for the newest."""
    return _form_at(module, name, level or current())


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
        text = f"its signature at API level {level or current()} is {name}{form.signature}"
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
    return _fields_at(opcode, level or current())


def with_members(opcode: str, kwargs: dict[str, Any], level: str | None = None) -> dict[str, Any]:
    """`kwargs` with numbers as members of their enumerations, where the level takes numbers.

    NKI 0.2 took them everywhere. The update guide to 0.3 ends that, but the kernel library of that release
    still passes ``dge_mode=3``.
    """
    place = ORDER[level or current()]
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
        if not _is_newest(module, name, current()):
            _, args, kwargs = translated(module, name, args, kwargs)
        return function(*args, **kwargs)

    del call.__wrapped__
    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    enter(module, name, call)
    return call


def changed(module: str) -> list[str]:
    """The functions of `module` whose parameters changed."""
    return sorted({form.name for form in FORMS if form.module == module})


def follow() -> None:
    """Give every function the signature of the level in force."""
    for (module, name), entry in _entries.items():
        form = form_of(module, name)
        entry.__signature__ = entry.newest if form is None else form.signature


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
    told = [f"at API level {current()} the parameters of {name} are {', '.join(mine)}"]
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
    if had is not None and ORDER[had.until] < ORDER[current()]:
        when, instead, level = f"up to {had.until}", had.instead.get(keyword, had.change), had.until
    else:
        form, entry = form_of(*place), _entries.get(place)
        if form is None or entry is None or keyword not in entry.newest.parameters:
            return None
        when, instead, level = f"after {form.until}", f"leave {keyword}= out", NEWEST
    text = f"{name} has the parameter {keyword!r} {when}; the API level is {current()}"
    return Diagnostic("NKI-L050", text, help=instead, notes=(choice(level),))


def place_of(module: str, name: str) -> tuple[str, str] | None:
    """The row of the table that `name`, defined in `module` or a part of it, has."""
    return next(((m, n) for m, n in _PLACES if n == name and f"{module}.".startswith(f"{m}.")), None)


_PLACES = sorted({(form.module, form.name) for form in FORMS})

__all__ = [
    "changed",
    "enter",
    "fields_of",
    "fitting",
    "follow",
    "form_of",
    "keyword_refusal",
    "leveled",
    "orders",
    "place_of",
    "translated",
    "with_members",
    "with_orders",
]
