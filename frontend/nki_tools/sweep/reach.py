"""What decides a kernel beside its arguments: the files of the user's and the constants that it can reach."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from nki import uncaught
from nki.compiler.source import source
from nki.compiler.source.kernel_source import KernelSource


def reach(kernel: KernelSource) -> tuple[dict[str, str], list[tuple[str, Any]]]:
    """The text of each file, by name, and constants by name, that `kernel` reaches by the names it uses.

    Of modules and classes all is reached. The text of a kernel is that of when it was decorated.
    """
    texts: dict[str, str] = {}
    constants: list[tuple[str, Any]] = []
    todo: list[tuple[str, Any]] = [("", kernel)]
    seen: set[int] = set()
    while todo:
        name, value = todo.pop()
        decorated = isinstance(value, KernelSource)
        value = value.function if decorated else value
        if not isinstance(value, (FunctionType, ModuleType, type)):
            constants.append((name, value))
        elif id(value) not in seen:
            seen.add(id(value))
            module, file = _home(value)
            if file and uncaught.is_of_user(module, file):
                if decorated or file not in texts:
                    texts[file] = source.known(file) if decorated else source.now(file)
                todo += _inside(value)
    return texts, sorted(constants, key=lambda constant: constant[0])


def _home(value: Any) -> tuple[str, str | None]:
    """The module of a function, class or module, and its file."""
    if isinstance(value, FunctionType):
        return value.__module__, value.__code__.co_filename
    if isinstance(value, ModuleType):
        return value.__name__, getattr(value, "__file__", None)
    methods = [f for f in vars(value).values() if isinstance(f, FunctionType)]
    if methods:
        return value.__module__, methods[0].__code__.co_filename
    return value.__module__, getattr(sys.modules.get(value.__module__), "__file__", None)


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """What a function uses, a class has, or the code that a module has."""
    if isinstance(value, FunctionType):
        for name in sorted(_names(value.__code__) & value.__globals__.keys()):
            yield name, value.__globals__[name]
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or ()):
            try:
                yield name, cell.cell_contents
            except ValueError:  # assigned later
                continue
        for default in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
            if isinstance(default, (FunctionType, type, KernelSource)):
                yield "default", default
    else:
        for name, held in vars(value).items():
            if isinstance(held, (FunctionType, ModuleType, type, KernelSource)):
                yield name, held


def _names(code: CodeType) -> set[str]:
    return set(code.co_names).union(*(_names(c) for c in code.co_consts if isinstance(c, CodeType)))


__all__ = ["reach"]
