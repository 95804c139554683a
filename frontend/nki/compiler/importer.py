"""Brings the user's Python values into a kernel.

Kernels are pure: what they reach by name is copied in, once per specialization.
Functions and classes come in as code compiled from our own syntax tree; plain
values, enums and nki's own objects come in as they are; containers and class
instances are copied, so a kernel never changes its caller's objects.
"""

from __future__ import annotations

import builtins
import enum
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from nki_isa.diagnostics import error
from nki_isa.tensor import NkiTensor, VirtualRegister

from nki.compiler import lower
from nki.compiler.profile import HOST_BUILTINS
from nki.compiler.source import definition_of

# Packages whose functions run as they are: they are the language, not kernel source.
_HOST_PACKAGES = {"nki", "nki_isa", "nki_sim", "numpy", "ml_dtypes", "math", "builtins"}


def is_host(module: str | None) -> bool:
    """True for a module whose functions are not kernel source: nki itself, numpy, the standard library."""
    top = (module or "builtins").partition(".")[0]
    return top in _HOST_PACKAGES or (top in sys.stdlib_module_names and top != "__main__")


class Importer:
    """Copies values in, each once; one importer serves one specialization.

    Args:
        kernel_type: the class of decorated kernels, whose function is brought in their stead.
    """

    def __init__(self, kernel_type: type | None = None):
        self._kernel_type = kernel_type
        self._done: dict[int, Any] = {}
        self._kept: list[Any] = []  # keeps the originals alive, so that their ids stay theirs
        self._globals: dict[int, dict[str, Any]] = {}
        self._builtins = {name: getattr(builtins, name) for name in HOST_BUILTINS}

    def bring(self, value: Any) -> Any:
        """The kernel-side counterpart of `value`."""
        if value is None or isinstance(value, (bool, int, float, str, bytes, enum.Enum, range, slice)):
            return value
        if isinstance(value, (NkiTensor, VirtualRegister, np.ndarray, np.generic, np.dtype)):
            return value
        found = self._done.get(id(value))
        if found is not None:
            return found
        for kind, bring in self._RULES:
            if isinstance(value, kind):
                return bring(self, value)
        if self._kernel_type is not None and isinstance(value, self._kernel_type):
            return self.bring(value.function)  # type: ignore[attr-defined]
        if is_host(type(value).__module__):
            return value
        return self._instance(value)

    def _keep(self, original: Any, copy: Any) -> Any:
        self._done[id(original)] = copy
        self._kept.append(original)
        return copy

    # --- containers and objects

    def _list(self, value: list[Any]) -> list[Any]:
        copy = self._keep(value, [])
        copy.extend(self.bring(item) for item in value)
        return copy

    def _tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        items = [self.bring(item) for item in value]
        fields = getattr(value, "_fields", None)
        return self._keep(value, type(value)(*items) if fields else tuple(items))

    def _dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        copy = self._keep(value, {})
        for key, item in value.items():
            copy[self.bring(key)] = self.bring(item)
        return copy

    def _set(self, value: set[Any] | frozenset[Any]) -> Any:
        return self._keep(value, type(value)(self.bring(item) for item in value))

    def _instance(self, value: Any) -> Any:
        shadow = self.bring(type(value))
        if not hasattr(value, "__dict__"):
            return value
        copy = self._keep(value, object.__new__(shadow))
        for key, item in vars(value).items():
            object.__setattr__(copy, key, self.bring(item))
        return copy

    def _module(self, value: ModuleType) -> Any:
        return value if is_host(value.__name__) else self._keep(value, ImportedModule(self, value))

    # --- code

    def _method(self, value: MethodType) -> Any:
        return MethodType(self.bring(value.__func__), self.bring(value.__self__))

    def _function(self, function: FunctionType) -> FunctionType:
        # The code's own module decides: wrappers copy __module__; dataclass methods have no source.
        if is_host(function.__globals__.get("__name__")) or function.__code__.co_filename == "<string>":
            return function
        node = definition_of(function)
        original = function.__code__
        code = lower.function_code(node, original.co_freevars, function.__qualname__, original.co_filename)
        cells = tuple(CellType() for _ in code.co_freevars)
        shadow = FunctionType(code, self._globals_of(function), function.__name__, None, cells)
        self._keep(function, shadow)
        shadow.__module__, shadow.__qualname__ = function.__module__, function.__qualname__
        shadow.__defaults__ = self.bring(function.__defaults__)
        shadow.__kwdefaults__ = self.bring(function.__kwdefaults__)
        shadow.__annotations__ = {}
        self._fill_cells(function, code, cells)
        self._bring_globals(function, code, shadow.__globals__)
        return shadow

    def _fill_cells(self, function: FunctionType, code: CodeType, cells: tuple[CellType, ...]) -> None:
        originals = dict(zip(function.__code__.co_freevars, function.__closure__ or ()))
        for name, cell in zip(code.co_freevars, cells):
            original = originals.get(name)
            if original is not None:
                try:
                    content = original.cell_contents
                except ValueError:  # not yet assigned in the maker function
                    continue
                cell.cell_contents = self.bring(content)

    def _globals_of(self, function: FunctionType) -> dict[str, Any]:
        original = function.__globals__
        shadow = self._globals.get(id(original))
        if shadow is None:
            shadow = {"__name__": original.get("__name__", "__main__"), "__builtins__": self._builtins}
            shadow.update(lower.HELPERS)
            self._globals[id(original)] = shadow
        return shadow

    def _bring_globals(self, function: FunctionType, code: CodeType, shadow: dict[str, Any]) -> None:
        original = function.__globals__
        for name in lower.global_names(code):
            if name in original and name not in shadow:
                shadow[name] = self.bring(original[name])

    def _class(self, value: type) -> type:
        if is_host(value.__module__) or issubclass(value, (enum.Enum, BaseException)):
            return value
        bases = tuple(self.bring(base) for base in value.__bases__)
        body: dict[str, Any] = {}
        shadow_of: list[Callable[[type], None]] = []
        for key, item in vars(value).items():
            if key in ("__dict__", "__weakref__"):
                continue
            body[key] = item
            if isinstance(item, (FunctionType, staticmethod, classmethod, property)) or not key.startswith("__"):
                shadow_of.append(lambda cls, key=key, item=item: type.__setattr__(cls, key, self._member(item)))  # type: ignore[misc]
        slots = body.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            body.pop(slot, None)
        shadow = type(value)(value.__name__, bases, body)
        self._keep(value, shadow)
        for fill in shadow_of:
            fill(shadow)
        return shadow

    def _member(self, item: Any) -> Any:
        if isinstance(item, (staticmethod, classmethod)):
            return type(item)(self.bring(item.__func__))
        if isinstance(item, property):
            parts = (item.fget, item.fset, item.fdel)
            return property(*(self.bring(part) if part is not None else None for part in parts))
        return self.bring(item)

    _RULES: tuple[tuple[Any, Callable[..., Any]], ...] = (
        (list, _list),
        (tuple, _tuple),
        (dict, _dict),
        ((set, frozenset), _set),
        (ModuleType, _module),
        (MethodType, _method),
        (FunctionType, _function),
        (BuiltinFunctionType, lambda self, value: value),
        (type, _class),
    )


class ImportedModule:
    """A user's module seen from a kernel: its attributes are brought in when they are read."""

    def __init__(self, importer: Importer, module: ModuleType):
        self.__dict__["_importer"] = importer
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        value = self._importer.bring(getattr(self._module, name))
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        raise error(
            "NKI-L021",
            f"{self._module.__name__}.{name} was assigned in a kernel; kernels are pure functions",
            help="return the value, or pass an object in and set its attribute",
        )


__all__ = ["ImportedModule", "Importer", "is_host"]
