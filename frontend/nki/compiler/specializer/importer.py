"""Brings the user's Python values into a kernel.

A traced kernel has them as Python does (:class:`Values`); one that the parser compiles gets them from
:class:`Importer`. Its kernels are pure: what they reach by name is copied in, once per specialization.
Functions and classes come in as code compiled from our own syntax tree; plain
values, enums and nki's own objects come in as they are; containers and class
instances are copied, so a kernel never changes its caller's objects.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, ClassVar, cast

import numpy as np

from nki import levels
from nki.compiler.language import array_arguments
from nki.compiler.language.profile import HOST_BUILTINS
from nki.compiler.source.host_modules import is_host
from nki.compiler.source.kernel_source import KernelSource
from nki.compiler.source.source import changed, comes_from, definition_of
from nki.compiler.specializer import stacks
from nki.compiler.specializer.lower import helpers, lower
from nki.compiler.specializer.printing import printed
from nki.compiler.specializer.purity import Read
from nki.objects import NKIObject, own_fields
from nki_isa.diagnostics import NkiError, error
from nki_isa.tensor.storage import VirtualRegister
from nki_isa.tensor.tensor import NkiTensor

# Packages whose functions run as they are: they are the language, not kernel source.

# What Python itself puts into a class; the new class gets its own.
_MADE_BY_PYTHON = {
    "__dict__",
    "__weakref__",
    "__slots__",
    "__annotations__",
    "__annotate__",
    "__annotate_func__",
}
_MADE_BY_PYTHON |= {"__annotations_cache__", "_abc_impl", "__nki_fields__"}

# What ``@dataclass`` puts into a class; applied again, it gives the new class its own.
_MADE_BY_DATACLASS = {"__dataclass_fields__", "__dataclass_params__", "__match_args__"}
_METHODS_OF_DATACLASS = {"__init__", "__repr__", "__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__"}
_METHODS_OF_DATACLASS |= {"__setattr__", "__delattr__", "__replace__", "__getstate__", "__setstate__"}


class Values:
    """The user's values as a kernel sees them: as Python has them.

    Attributes:
        reads: what was taken from modules, classes and closures.
        kernels: the functions of the kernels that the kernel calls.
        config: how the kernel is to be compiled, and specialized.
        warn: keeps a warning.
    """

    def __init__(self) -> None:
        self.config: tuple[Any, Any] = (None, None)
        self.warn: Callable[[NkiError], None] = lambda found: None
        self.reads: list[Read] = []
        self.kernels: list[FunctionType] = []

    def bring(self, value: Any) -> Any:
        """The kernel-side counterpart of `value`."""
        return value

    def keeps(self, value: Any) -> bool:
        """True for an argument that comes in as it is: it holds no array to make a tensor of."""
        return not _holds_array(value, set())

    def inlined(self, kernel: Any) -> FunctionType:
        """The function of a kernel that the kernel calls.

        Raises:
            NkiError: NKI-L045, it has a schedule.
        """
        if kernel.schedule:
            raise error(
                "NKI-L045",
                f"{kernel.function.__name__} with a schedule is called by another kernel",
                help="a schedule belongs to a launch: give it to the kernel that is launched",
            )
        self._same_config(kernel)
        self.kernels.append(kernel.function)
        return cast(FunctionType, kernel.function)

    def _same_config(self, kernel: Any) -> None:
        """Refuse a nested kernel that is configured otherwise, unless the outer one allows it."""
        outer, allowed = self.config
        inner = kernel.config[0]
        if inner is None or inner == outer:
            return
        differs = error(
            "NKI-V154",
            f"{kernel.function.__name__} is compiled with {inner}, the kernel that calls it with {outer}",
            help="give both the same compile_config, or the outer one "
            "specialization_config=nki.compiler.SpecializationConfig(allow_nested_config_override=True)",
        )
        if allowed is None or not allowed.allow_nested_config_override:
            raise differs
        self.warn(differs)

    def like(self, value: tuple[Any, ...], items: list[Any]) -> tuple[Any, ...]:
        """A tuple of `items`, a named one where `value` is."""
        kind = type(value)
        return self.bring(kind)._make(items) if hasattr(kind, "_make") else tuple(items)

    def blank(self, value: Any) -> Any:
        """An object of the kernel-side class of `value`, without attributes."""
        return object.__new__(self.bring(type(value)))

    def fill(self, copy: Any, value: Any, bring: Callable[[str, Any], Any]) -> None:
        """Give `copy` the attributes of `value`; `bring` makes the new one of a name and an old one."""
        for name, item in attributes(value).items():
            object.__setattr__(copy, name, bring(name, item))


def attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object, those in slots too."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__") and hasattr(value, slot):
                found[slot] = getattr(value, slot)
    return found


def _holds_array(value: Any, seen: set[int]) -> bool:
    if isinstance(value, NkiTensor) or array_arguments.is_data(value):
        return True
    if isinstance(value, (str, type, ModuleType, FunctionType, enum.Enum)) or id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, dict):
        inner: Iterable[Any] = value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = value
    else:
        inner = () if is_host(type(value).__module__) else attributes(value).values()
    return any(_holds_array(item, seen) for item in inner)


class Importer(Values):
    """Copies values in, each once; one importer serves one specialization.

    Args:
        left: the steps that what is brought in may take (:mod:`nki.compiler.specializer.steps`); default no
            limit.
    """

    def __init__(self, left: Iterator[bool] | None = None):
        super().__init__()
        self._helpers = helpers(itertools.repeat(True) if left is None else left)
        self._done: dict[int, Any] = {}
        self._kept: list[Any] = []  # keeps the originals alive, so that their ids stay theirs
        self._globals: dict[int, dict[str, Any]] = {}
        self._builtins = {name: getattr(builtins, name) for name in HOST_BUILTINS}
        self._builtins["print"] = printed
        self._builtins["__import__"] = builtins.__import__  # breakpoint() loads the debugger with it

    def bring(self, value: Any) -> Any:
        """The kernel-side counterpart of `value`."""
        if value is None or isinstance(value, (bool, int, float, str, bytes, enum.Enum, range, slice)):
            return value
        if isinstance(value, (NkiTensor, VirtualRegister, np.ndarray, np.generic, np.dtype)):
            return value
        if id(value) in self._done:
            return self._done[id(value)]
        for kind, bring in self._RULES:
            if isinstance(value, kind):
                return bring(self, value)
        if isinstance(value, KernelSource):
            return self.bring(self.inlined(value))
        if isinstance(value, functools.partial):
            keywords = {name: self.bring(item) for name, item in value.keywords.items()}
            return self._keep(
                value, functools.partial(self.bring(value.func), *map(self.bring, value.args), **keywords)
            )
        wrapped = getattr(value, "__wrapped__", None) if is_host(type(value).__module__) else None
        if isinstance(wrapped, FunctionType):  # functools.cache and its like: kernels are pure
            return self.bring(wrapped)
        return value if is_host(type(value).__module__) else self._instance(value)

    def keeps(self, value: Any) -> bool:
        return False

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
        return self._keep(value, self.like(value, items))

    def _dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        copy = self._keep(value, {})
        for key, item in value.items():
            copy[self.bring(key)] = self.bring(item)
        return copy

    def _set(self, value: set[Any] | frozenset[Any]) -> Any:
        return self._keep(value, type(value)(self.bring(item) for item in value))

    def _instance(self, value: Any) -> Any:
        copy = self._keep(value, self.blank(value))
        self.fill(copy, value, lambda name, item: self.bring(item))
        return copy

    def _module(self, value: ModuleType) -> Any:
        return value if is_host(value.__name__) else self._keep(value, ImportedModule(self, value))

    # --- code

    def _method(self, value: MethodType) -> Any:
        return MethodType(self.bring(value.__func__), self.bring(value.__self__))

    def _function(self, function: FunctionType) -> FunctionType:
        # The code's own module decides: wrappers copy __module__.
        original = function.__code__
        module = str(function.__globals__.get("__name__"))
        if stacks.is_kernel_code(original) or is_host(module) or module.startswith("namedtuple_"):
            return function
        definition = definition_of(function)
        node: Any = definition.node
        lowered = functools.partial(
            lower, node, original.co_freevars, definition.owner, function.__qualname__, original.co_filename
        )
        made = lowered()
        if not comes_from(made.code, lambda: lowered(assertions=False).code, original):
            raise changed(function)
        code = made.code
        cells = tuple(CellType() for _ in code.co_freevars)
        shadow = FunctionType(code, self._globals_of(function), function.__name__, None, cells)
        self._keep(function, shadow)
        shadow.__module__, shadow.__qualname__ = function.__module__, function.__qualname__
        shadow.__defaults__ = self.bring(function.__defaults__)
        if function.__defaults__:
            self.reads.append(Read({"defaults": function.__defaults__}, "defaults", function.__defaults__))
        shadow.__kwdefaults__ = self.bring(function.__kwdefaults__)
        self._fill_cells(function, code, cells)
        self._bring_globals(function, made.names, shadow.__globals__)
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
                self.reads.append(Read(original, name, content))

    def _globals_of(self, function: FunctionType) -> dict[str, Any]:
        original = function.__globals__
        shadow = self._globals.get(id(original))
        if shadow is None:
            shadow = {"__name__": original.get("__name__", "__main__"), "__builtins__": self._builtins}
            shadow.update(self._helpers)
            self._globals[id(original)] = shadow
        return shadow

    def _bring_globals(self, function: FunctionType, names: frozenset[str], shadow: dict[str, Any]) -> None:
        original = function.__globals__
        for name in names:
            if name in original and name not in shadow:
                value = original[name]
                shadow[name] = self.bring(value)
                if not (isinstance(value, ModuleType) and is_host(value.__name__)):
                    self.reads.append(Read(original, name, value))

    def _class(self, value: type) -> type:
        if is_host(value.__module__) or issubclass(value, (enum.Enum, BaseException)):
            return value
        is_dataclass = "__dataclass_params__" in vars(value)
        left_out = _MADE_BY_PYTHON | (_MADE_BY_DATACLASS if is_dataclass else set())
        body = {
            name: item
            for name, item in vars(value).items()
            if name not in left_out
            and not isinstance(item, (MemberDescriptorType, GetSetDescriptorType))
            and not (is_dataclass and name in _METHODS_OF_DATACLASS and is_generated(item))
        }
        if is_dataclass and body.get("__hash__", value) is None:
            del body["__hash__"]  # dataclass decides again
        kind: Any = type(value)
        shadow: Any = kind(value.__name__, tuple(self.bring(base) for base in value.__bases__), dict(body))
        shadow.__qualname__ = value.__qualname__
        self._keep(value, shadow)
        for name, item in body.items():
            if isinstance(item, (FunctionType, staticmethod, classmethod, property)) or not name.startswith(
                "__"
            ):
                type.__setattr__(shadow, name, self._member(item))
                self.reads.append(Read(value, name, item))
        fields = own_fields(value)
        shadow.__annotations__ = dict.fromkeys(fields, Any)
        return self._dataclass(value, shadow, fields) if is_dataclass else shadow

    def _dataclass(self, value: Any, shadow: Any, fields: tuple[str, ...]) -> type:
        """`shadow` made a dataclass as `value` is, its defaults brought in."""
        plain = {field.name for field in dataclasses.fields(value)}
        shadow.__annotations__ = {}
        for name in fields:
            old = value.__dataclass_fields__.get(name)
            if old is None:  # the mark KW_ONLY
                continue
            if name not in plain and "InitVar" not in str(old.type):
                shadow.__annotations__[name] = ClassVar[Any]
                continue
            shadow.__annotations__[name] = Any if name in plain else dataclasses.InitVar[Any]
            new = dataclasses.field(
                init=old.init, repr=old.repr, hash=old.hash, compare=old.compare, kw_only=old.kw_only
            )
            if old.default_factory is not dataclasses.MISSING:
                new.default_factory = self.bring(old.default_factory)
            elif old.default is not dataclasses.MISSING:
                new.default = self.bring(old.default)
            elif levels.before("0.7"):  # a field that is not given is None (language guide)
                new.default = None
            type.__setattr__(shadow, name, new)
        for name, item in self._loose(value, fields):
            shadow.__annotations__[name] = Any
            type.__setattr__(shadow, name, dataclasses.field(default=self.bring(item), kw_only=True))
        params = value.__dataclass_params__
        names = ("init", "repr", "eq", "order", "unsafe_hash", "frozen")
        made: type = dataclasses.dataclass(**{name: getattr(params, name) for name in names})(shadow)
        return made

    def _loose(self, value: type, fields: tuple[str, ...]) -> list[tuple[str, Any]]:
        """Class-level values of an NKIObject without an annotation.

        Python's dataclasses leave them out, and so does NKI from 0.7 on; before, it compiles a class with and
        without ``@dataclass`` alike (language guide), so they are fields too, given by name.
        """
        if not issubclass(value, NKIObject) or not levels.before("0.7"):
            return []
        return [
            (name, item)
            for name, item in vars(value).items()
            if name not in fields
            and not name.startswith("__")
            and not callable(item)
            and not hasattr(type(item), "__get__")
            and getattr(type(item), "__hash__", None) is not None
        ]

    def _member(self, item: Any) -> Any:
        if isinstance(item, (staticmethod, classmethod)):
            return type(item)(self.bring(item.__func__))
        if isinstance(item, property):
            parts = (item.fget, item.fset, item.fdel)
            return property(*(self.bring(part) if part is not None else None for part in parts))
        if isinstance(item, functools.cached_property):
            copy = functools.cached_property(self.bring(item.func))
            copy.__set_name__(object, item.attrname or item.func.__name__)
            return copy
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


def is_generated(item: Any) -> bool:
    """True for a method that ``dataclass`` or ``namedtuple`` wrote: it has no source text."""
    item = getattr(item, "__wrapped__", item)  # repr is guarded against recursion
    return isinstance(item, FunctionType) and (
        item.__code__.co_filename.startswith("<string") or item.__globals__.get("__name__") == "dataclasses"
    )


class ImportedModule:
    """A user's module seen from a kernel: its attributes are brought in when they are read."""

    def __init__(self, importer: Importer, module: ModuleType):
        self.__dict__["_importer"] = importer
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        original = getattr(self._module, name)
        self._importer.reads.append(Read(vars(self._module), name, original))
        value = self._importer.bring(original)
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        raise error(
            "NKI-L021",
            f"{self._module.__name__}.{name} was assigned in a kernel; kernels are pure functions",
            help="return the value, or pass an object in and set its attribute",
        )


__all__ = ["ImportedModule", "Importer", "Values", "attributes", "is_generated", "is_host"]
