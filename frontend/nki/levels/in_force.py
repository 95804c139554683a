"""Putting an API level in force: what modules and classes then have."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any

from nki.levels import chosen, entries
from nki.levels.chosen import current, read_level
from nki.levels.lacking import deprecation, refusal
from nki.levels.missing_names import NAMES
from nki.levels.table_rows import TENSOR, TILE_SIZE, Name
from nki_isa.diagnostics import Diagnostic, NkiError
from nki_isa.tensor.tensor import NkiTensor

_hidden: dict[tuple[str, str], Any] = {}
_exported: dict[str, list[str]] = {}  # the names of a module at all levels

#: Which frames run kernel source, while a kernel is specialized.
_of_kernel: ContextVar[Callable[[FrameType], bool] | None] = ContextVar("of_kernel", default=None)


def use(level: str) -> str:
    """Make `level` the one in force and give the modules its names; returns the one before.

    Choose it before names are imported from the modules: an imported name stays.

    Raises:
        NkiError: NKI-L051.
    """
    level = read_level(level)
    previous = chosen.choose(level)
    for row in NAMES:
        cls = _class_of(row.module)
        if cls is not None:
            _use_member(cls, row)
            continue
        namespace, key = vars(sys.modules[row.module]), (row.module, row.name)
        if not row.at(level) and row.name in namespace:
            _hidden[key] = namespace.pop(row.name)
        elif row.at(level) and key in _hidden:
            namespace[row.name] = _hidden.pop(key)
    for module in {row.module for row in NAMES} & sys.modules.keys():
        namespace = vars(sys.modules[module])
        exported = _exported.setdefault(module, namespace["__all__"])
        namespace["__all__"] = [name for name in exported if name in namespace]
    entries.follow()
    return previous


def _class_of(module: str) -> type | None:
    """The class whose members the table lists under `module`; None for a module."""
    if module == TENSOR:
        return NkiTensor
    return type(sys.modules["nki.language"].tile_size) if module == TILE_SIZE else None


def _use_member(cls: type, row: Name) -> None:
    """Let kernels reach a method or property of `cls` at the levels that have it; we always do."""
    key = row.module, row.name
    is_there = row.at(current())
    if not is_there and key not in _hidden:
        _hidden[key] = vars(cls).get(row.name)
        setattr(cls, row.name, _refusing(key, inspect.getattr_static(cls, row.name)))
    elif is_there and key in _hidden:
        own = _hidden.pop(key)
        if own is None:  # inherited
            delattr(cls, row.name)
        else:
            setattr(cls, row.name, own)


@contextlib.contextmanager
def refusing_members(of_kernel: Callable[[FrameType], bool]) -> Iterator[None]:
    """Inside the block, members that the level lacks are refused to the frames that `of_kernel` tells."""
    token = _of_kernel.set(of_kernel)
    try:
        yield
    finally:
        _of_kernel.reset(token)


class _MissingMember(NkiError, AttributeError):
    """The error of a member that the level in force lacks; ``hasattr`` in a kernel is false for it."""


def _refusing(key: tuple[str, str], member: Any) -> Any:
    """A method or property that kernel code cannot use."""

    def get(owner: Any) -> Any:
        of_kernel = _of_kernel.get()
        told = refusal(*key) if of_kernel is not None and of_kernel(sys._getframe(1)) else None
        if told is not None:
            raise _MissingMember([told])
        return member.__get__(owner, type(owner))

    return property(get)


def member_notes(value: Any, name: str) -> list[Diagnostic]:
    """What there is to say of `name` of `value`: that the level lacks it, or that it is deprecated."""
    module = next((m for m in (TILE_SIZE, TENSOR) if type(value) is _class_of(m)), None)
    if module is None:
        module = getattr(value, "__name__", "")
    told = refusal(module, name), deprecation(module, name)
    return [diagnostic for diagnostic in told if diagnostic is not None]


__all__ = ["member_notes", "refusing_members", "use"]
