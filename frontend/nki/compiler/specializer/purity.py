"""What a kernel read from outside its arguments, and whether it still is what it was.

Kernels are pure: their Programs are kept, so that a global number, list or object that a kernel read must
not change from one call to the next. Code may: a function that was defined anew is specialized anew.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import CellType
from typing import Any

import numpy as np

from nki_isa.diagnostics import NkiError, error

_PLAIN = (type(None), bool, int, float, complex, str, bytes, enum.Enum)
_GONE = object()
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class Read:
    """One value that specialization took from outside.

    Attributes:
        owner: the module dictionary, the class or the closure cell that held it.
        name: its name there.
        value: the value.
    """

    owner: Mapping[str, Any] | type | CellType
    name: str
    value: Any

    def now(self) -> Any:
        """What the name stands for at present."""
        if isinstance(self.owner, CellType):
            try:
                return self.owner.cell_contents
            except ValueError:
                return _GONE
        return (vars(self.owner) if isinstance(self.owner, type) else self.owner).get(self.name, _GONE)


class Snapshot:
    """What a :class:`Read` found, kept so that a change of it is noticed."""

    __slots__ = ("_frozen", "_read", "_shown")

    def __init__(self, read: Read):
        self._read = read
        self._frozen = freeze(read.value)
        self._shown = _shown(read.value)

    @property
    def place(self) -> tuple[int, str]:
        """Which name of which module, class or closure it is."""
        return id(self._read.owner), self._read.name

    def same(self) -> bool:
        """True if the value is what it was."""
        now = self._read.now()
        if now is self._read.value and self._frozen is None:
            return True
        if isinstance(now, _PLAIN):  # set again to what it was, as in a notebook's cell that runs twice
            return type(now) is type(self._read.value) and repr(now) == repr(self._read.value)
        return self._frozen is not None and freeze(now) == self._frozen

    @property
    def is_code(self) -> bool:
        """True for functions, classes, modules: what may be replaced."""
        return self._frozen is None and not isinstance(self._read.value, _PLAIN)

    def changed(self, kernel: str) -> NkiError:
        """NKI-L054."""
        now = self._read.now()
        after = "is gone" if now is _GONE else f"is {_shown(now)}"
        return error(
            "NKI-L054",
            f"{kernel} read {self._read.name!r} when it was {self._shown}; now it {after}",
            help=f"make {self._read.name} an argument of the kernel: each value has a Program of its own",
        )


def freeze(value: Any) -> Any:
    """A value equal to another frozen one where the values they came from mean the same.

    None for what can only be the same by identity: plain values, which never change, and code.
    """
    if isinstance(value, (list, tuple, set, frozenset, dict, np.ndarray)) or _is_object(value):
        return _frozen(value, ())
    return None


def _frozen(value: Any, around: tuple[int, ...]) -> Any:
    if id(value) in around:
        return "circle", around.index(id(value))
    inside = (*around, id(value))
    kind = type(value)
    if isinstance(value, (list, tuple)):
        return kind, tuple(_frozen(item, inside) for item in value)
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(_frozen(item, inside) for item in value)
    if isinstance(value, dict):
        return kind, tuple((_frozen(k, inside), _frozen(v, inside)) for k, v in value.items())
    if isinstance(value, np.ndarray):
        return kind, value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, _PLAIN):
        return kind, value
    if _is_object(value):
        return kind, tuple((name, _frozen(item, inside)) for name, item in vars(value).items())
    return kind, id(value)


def _is_object(value: Any) -> bool:
    """True for instances of a user's class; not for functions, classes, modules and the like."""
    kind = type(value)
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, (type, enum.Enum))
        and not callable(value)
        and kind.__module__.partition(".")[0] not in ("builtins", "types", "nki", "nki_isa", "numpy")
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
