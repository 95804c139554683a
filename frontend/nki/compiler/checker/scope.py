"""What the names of a source file stand for, known from the running program or from text alone.

A :class:`Scope` answers for one module (or for the names a closure captured). A
:class:`LiveScope` looks into the dictionary of a module that has been imported; a
:class:`TextScope` reads the text of one that has not, so that a file is checked
without running it.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from nki.compiler.checker.source_file import Imported, SourceFile, bindings_in, source_file
from nki.compiler.language import names
from nki.compiler.source import host_modules, source
from nki.compiler.source.host_modules import is_host
from nki.compiler.source.kept import Kept
from nki.compiler.source.kernel_source import KernelSource
from nki.compiler.syntax import tree
from nki.compiler.syntax.node import Node
from nki_isa.diagnostics import Diagnostic, NkiError, Span
from nki_sim.process import lazy

LEGACY = "neuronxcc"


class Unresolved(enum.Enum):
    """Names without a known value."""

    unknown = "bound to something that is known only when the program runs"
    missing = "bound to nothing"


@dataclass(frozen=True, slots=True)
class Host:
    """A value of the running program: nki's own, numpy's, a plain constant."""

    value: Any


@dataclass(frozen=True, slots=True)
class Legacy:
    """A name of the ``neuronxcc`` package, which held NKI before it was ``nki``."""

    name: str

    def now(self) -> Value:
        """What stands in its place in ``nki``."""
        old, *rest = self.name.split(".")
        if old != LEGACY or rest[:1] != ["nki"]:
            return Unresolved.unknown
        found = module_named("nki", ())
        for part in rest[1:]:
            found = attribute(found, part)
        return found


@dataclass(frozen=True, slots=True)
class Sourceless:
    """A function that has no definition a kernel can be compiled from."""

    function: FunctionType
    diagnostics: tuple[Diagnostic, ...]


@dataclass(eq=False, slots=True)
class Definition:
    """A function or class of the user, with its text.

    Attributes:
        node: its tree.
        file: the text it comes from.
        scope: what its free names stand for.
        qualname: its name with those of the classes it stands in.
        owner: the class it is a method of.
    """

    node: tree.FunctionDef | tree.ClassDef
    file: SourceFile
    scope: Scope
    qualname: str
    owner: Definition | None = None

    @property
    def name(self) -> str:
        """Its last name."""
        return self.node.name

    @property
    def heading(self) -> Span:
        """The place of ``def name`` or ``class name``."""
        return heading(self.node, self.file.name)

    def member(self, name: str) -> Definition | Unresolved:
        """A method of a class by name: its own or of a base that is known."""
        todo: list[Value] = [self]
        seen: set[int] = set()
        while todo:
            owner = todo.pop(0)
            if not isinstance(owner, Definition):
                return Unresolved.unknown
            if id(owner.node) in seen:  # a text may have a class inherit from itself
                continue
            seen.add(id(owner.node))
            for item in owner.node.body:
                if isinstance(item, tree.FunctionDef) and item.name == name:
                    return method(owner, item)
            todo = [*owner.bases(), *todo]
        return Unresolved.missing

    def bases(self) -> list[Value]:
        """What a class inherits from; nki's own base class left out."""
        found: list[Value] = []
        for base in getattr(self.node, "bases", []):
            value = resolve(base, self.scope)
            if not (isinstance(value, Host) and getattr(value.value, "__name__", "") == "NKIObject"):
                found.append(value)
        return found


def heading(node: tree.FunctionDef | tree.ClassDef, file: str) -> Span:
    """The place of ``def name`` or ``class name``."""
    word = "class" if isinstance(node, tree.ClassDef) else "def"
    start = node.col_offset + 1
    return Span(file, node.lineno, start, node.lineno, start + len(word) + 1 + len(node.name))


@functools.lru_cache(maxsize=256)
def method(owner: Definition, node: tree.FunctionDef) -> Definition:
    """The method `node` of the class `owner`."""
    return Definition(node, owner.file, owner.scope, f"{owner.qualname}.{node.name}", owner)


@dataclass(frozen=True, slots=True)
class UserModule:
    """A module of the user."""

    scope: Scope


Value = Host | Legacy | Sourceless | Definition | UserModule | Unresolved


class Scope:
    """What names stand for."""

    file: str = ""

    def get(self, name: str) -> Value:
        """The value of `name`, or why there is none."""
        raise NotImplementedError

    def names(self) -> Iterable[str]:
        """The names it knows."""
        raise NotImplementedError

    def origin(self, name: str) -> tuple[Value, str] | None:
        """The module that `name` is imported from, and its name there."""
        return None


def resolve(node: Node | None, scope: Scope) -> Value:
    """What a chain of names, ``a.b.c``, stands for in `scope`."""
    if isinstance(node, tree.Name):
        return scope.get(node.id)
    if isinstance(node, tree.Attribute):
        return attribute(resolve(node.value, scope), node.attr)
    return Unresolved.unknown


def attribute(base: Value, name: str) -> Value:
    """What ``base.name`` stands for."""
    if isinstance(base, Host):
        value = base.value
        if isinstance(value, ModuleType):
            return _of_module(value, name)
        found = inspect.getattr_static(value, name, Unresolved.missing)
        if isinstance(found, (enum.Enum, int, float, str)) and found is not Unresolved.missing:
            return Host(found)
        return Unresolved.missing if found is Unresolved.missing and _is_closed(value) else Unresolved.unknown
    if isinstance(base, Legacy):
        return Legacy(f"{base.name}.{name}")
    if isinstance(base, UserModule):
        return base.scope.get(name)
    if isinstance(base, Definition) and isinstance(base.node, tree.ClassDef):
        found = base.member(name)
        return Unresolved.unknown if found is Unresolved.missing else found
    return Unresolved.unknown


def _of_module(module: ModuleType, name: str) -> Value:
    """What a module that is not kernel source has under `name`; nothing is imported for it."""
    if name in vars(module):
        return _live(vars(module)[name])
    if is_nki(module.__name__):  # their own __getattr__ imports nothing that a text chooses
        found = getattr(module, name, Unresolved.missing)
        return found if isinstance(found, Unresolved) else _live(found)
    return Unresolved.unknown if host_modules.has_submodule(module, name) else Unresolved.missing


def _is_closed(value: Any) -> bool:
    """True for objects of nki whose attributes are all known without running anything."""
    owner = value if isinstance(value, type) else type(value)
    return is_nki(owner.__module__) and not any("__getattr__" in vars(kind) for kind in owner.__mro__)


def is_nki(module: str | None) -> bool:
    """True for modules of this project."""
    return (module or "").partition(".")[0] in ("nki", "nki_isa")


# --- the running program ----------------------------------------------------------------------------------


class LiveScope(Scope):
    """The names of an imported module, under those a function captured."""

    def __init__(self, module_globals: dict[str, Any], captured: dict[str, Any] | None = None):
        self.globals = module_globals
        self.captured = captured or {}
        self.file = module_globals.get("__file__", "")

    def get(self, name: str) -> Value:
        for known in (self.captured, self.globals):
            if name in known:
                return _live(known[name])
        return Unresolved.missing

    def names(self) -> Iterable[str]:
        return [*self.captured, *self.globals]


def _live(value: Any) -> Value:
    """An object of the running program."""
    if isinstance(value, Unresolved):
        return value
    if isinstance(value, KernelSource):
        value = value.function
    if isinstance(value, MethodType):
        value = value.__func__
    if isinstance(value, FunctionType):
        return Host(value) if is_host(value.__module__) else definition_of(value)
    if isinstance(value, type):
        return Host(value) if is_host(value.__module__) else _live_class(value)
    if isinstance(value, ModuleType):
        if value.__name__.partition(".")[0] == LEGACY:
            return Legacy(value.__name__)
        return Host(value) if is_host(value.__name__) else UserModule(LiveScope(vars(value)))
    if str(getattr(type(value), "__module__", "")).partition(".")[0] == LEGACY:
        return Legacy(type(value).__name__)
    return Host(value)


_definitions: Kept[FunctionType, tuple[CodeType, Value]] = Kept()


def definition_of(function: FunctionType) -> Value:
    """The text of `function`, with what its free names stand for."""
    kept = _definitions.get(function)
    if kept is not None and kept[0] is function.__code__:
        return kept[1]
    found = _find_definition(function)
    _definitions[function] = (function.__code__, found)
    return found


def _find_definition(function: FunctionType) -> Value:
    code = function.__code__
    if code.co_filename.startswith("<string"):  # the methods that dataclass writes
        return Host(function)
    unfit: tuple[Diagnostic, ...] = ()
    try:
        source.definition_of(function)
    except NkiError as failed:
        unfit = failed.diagnostics
    try:
        file = source_file(code.co_filename, source.text_of(code.co_filename, function.__module__))
    except NkiError as failed:
        return Sourceless(function, failed.diagnostics)
    node = file.definitions.get((code.co_name, code.co_firstlineno))
    if not isinstance(node, tree.FunctionDef) or (unfit and not file.diagnostics):
        return Sourceless(function, unfit)
    captured = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or ()):
        try:
            captured[name] = cell.cell_contents
        except ValueError:  # assigned later by the enclosing function
            captured[name] = Unresolved.unknown
    return Definition(node, file, LiveScope(function.__globals__, captured), function.__qualname__)


def _live_class(value: type) -> Value:
    module = sys.modules.get(value.__module__)
    functions = [
        f for f in vars(value).values() if isinstance(f, FunctionType) and f.__module__ == value.__module__
    ]
    names = [getattr(module, "__file__", None), *(f.__code__.co_filename for f in functions)]
    for name in names:
        if not name or name.startswith("<string"):
            continue
        try:
            file = source_file(name, source.text_of(name, value.__module__))
        except NkiError:
            continue
        node = file.classes.get(value.__qualname__)
        if node is not None:
            return _class_definition(file, node, value)
    return Unresolved.unknown


_class_definitions: Kept[type, Definition] = Kept()


def _class_definition(file: SourceFile, node: tree.ClassDef, value: type) -> Definition:
    kept = _class_definitions.get(value)
    if kept is not None and kept.node is node:
        return kept
    scope = LiveScope(vars(sys.modules[value.__module__]))
    found = Definition(node, file, scope, value.__qualname__)
    _class_definitions[value] = found
    return found


def contained(value: Any, depth: int = 3) -> Iterator[Definition | Sourceless]:
    """The user's functions and classes inside a plain value: a table of functions, a partial, an object."""
    if depth == 0 or value is None or isinstance(value, (str, int, float)):
        return
    if isinstance(value, (list, tuple, set, frozenset)):
        inner: Iterable[Any] = value
    elif isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, functools.partial):
        inner = (value.func, *value.args, *value.keywords.values())
    else:
        found = _live(value)
        if not isinstance(found, (Definition, Sourceless)) and not is_host(type(value).__module__):
            found = _live(type(value))
        if isinstance(found, (Definition, Sourceless)):
            yield found
        return
    for item in inner:
        yield from contained(item, depth - 1)


# --- text alone -------------------------------------------------------------------------------------------


@dataclass(eq=False)
class TextScope(Scope):
    """The names of a module that has not been imported, from its text.

    Attributes:
        source: the text.
        package: the dotted name of the package it is in, for relative imports.
        roots: directories that absolute imports are looked up in.
    """

    source: SourceFile
    package: str = ""
    roots: tuple[Path, ...] = ()
    _busy: set[str] = field(default_factory=set)
    _done: dict[str, Value] = field(default_factory=dict)

    @property
    def file(self) -> str:  # type: ignore[override]
        """The name of the text."""
        return self.source.name

    @lazy
    def bindings(self) -> dict[str, Node]:
        """The node that binds each name of the module, the last one of several."""
        return dict(bindings_in(self.source.module.body))

    @lazy
    def stars(self) -> list[tree.ImportFrom]:
        """Its star imports."""
        nodes = (n for n in self.source.module.body if isinstance(n, tree.ImportFrom))
        return [n for n in nodes if n.names[0].name == "*"]

    def names(self) -> Iterable[str]:
        return [*self.bindings]

    def origin(self, name: str) -> tuple[Value, str] | None:
        node = self.bindings.get(name)
        if isinstance(node, Imported) and node.name is not None:
            return self._module(node.module, node.level), node.name
        return None

    def get(self, name: str) -> Value:
        if name in self._done:
            return self._done[name]
        if name in self._busy:
            return Unresolved.unknown
        self._busy.add(name)
        try:
            found = self._done[name] = self._find(name)
        finally:
            self._busy.discard(name)
        return found

    def _find(self, name: str) -> Value:
        node = self.bindings.get(name)
        if node is None:
            return self._from_stars(name)
        if isinstance(node, (tree.FunctionDef, tree.ClassDef)):
            return Definition(node, self.source, self, name)
        if isinstance(node, Imported):
            return self._import(node)
        if isinstance(node, tree.Assign):
            return self._assigned(node.value)
        return Unresolved.unknown

    def _assigned(self, value: tree.expr) -> Value:
        if isinstance(value, tree.Call) and len(value.args) == 1 and is_jit(value.func, self):
            value = value.args[0]  # kernel = nki.jit(function)
        found = resolve(value, self)
        return Unresolved.unknown if found is Unresolved.missing else found

    def _from_stars(self, name: str) -> Value:
        for node in self.stars:
            module = self._module(node.module or "", node.level)
            found = attribute(module, name) if not isinstance(module, Unresolved) else Unresolved.unknown
            if found is not Unresolved.missing:
                return found
        return Unresolved.unknown if self.source.diagnostics else Unresolved.missing

    def _import(self, node: Imported) -> Value:
        if node.name is None:
            return self._module(node.module, node.level)
        module = self._module(node.module, node.level)
        found = attribute(module, node.name)
        if isinstance(found, Unresolved):
            dotted = f"{node.module}.{node.name}" if node.module else node.name
            inner = self._module(dotted, node.level)
            return inner if not isinstance(inner, Unresolved) else found
        return found

    def _module(self, dotted: str, level: int) -> Value:
        if level:
            parents = self.package.split(".") if self.package else []
            kept = parents[: len(parents) - (level - 1)]
            dotted = ".".join([*kept, dotted] if dotted else kept)
        return module_named(dotted, self.roots)


_text_modules: Kept[Path, TextScope] = Kept(1024)


def text_scope(path: Path, text: str | None = None) -> TextScope:
    """The names of the file `path`, read as a script or as a module of the package it is in.

    Args:
        path: the file.
        text: what to take for its text, instead of reading it.
    """
    path = path.resolve()
    if text is None:
        text = path.read_text(encoding="utf-8", errors="replace")
    kept = _text_modules.get(path)
    if kept is not None and kept.source.text == text:
        return kept
    folder = path.parent
    names: list[str] = []
    while (folder / "__init__.py").exists():
        names.insert(0, folder.name)
        folder = folder.parent
    roots = tuple(dict.fromkeys([path.parent, folder, *(Path(p or ".") for p in sys.path)]))
    scope = TextScope(source_file(str(path), text), ".".join(names), roots)
    _text_modules[path] = scope
    return scope


def forget_texts() -> None:
    """Read every file again when it is next asked for; parsed texts that have not changed are kept."""
    _text_modules.clear()


def module_named(dotted: str, roots: tuple[Path, ...]) -> Value:
    """The module `dotted`: if it is not kernel source, as far as it is known, else read as text."""
    top = dotted.partition(".")[0]
    if top == LEGACY:
        return Legacy(dotted)
    if is_host(top) and top != "":
        known = host_modules.loaded(dotted)
        if known is not None:
            return Host(known)
        return Unresolved.missing if is_nki(top) and not host_modules.exists(dotted) else Unresolved.unknown
    relative = Path(*dotted.split(".")) if dotted else Path()
    for root in roots:
        for candidate in ((root / relative).with_suffix(".py"), root / relative / "__init__.py"):
            with contextlib.suppress(OSError):  # a file that cannot be read is not known
                if dotted and candidate.is_file():
                    return UserModule(text_scope(candidate))
    return Unresolved.unknown


def is_jit(node: Node | None, scope: Scope) -> bool:
    """Whether `node` is ``nki.jit``, however it is spelled, or a decorator of Beta 1."""
    if isinstance(node, tree.Call):
        return is_jit(node.func, scope)
    base, name = _spelled(node, scope)
    if isinstance(base, Host) and getattr(base.value, "__name__", "") == "nki" and name in names.DECORATORS:
        return True
    found = present(resolve(node, scope))
    return (
        isinstance(found, Host)
        and getattr(found.value, "__name__", "") == "jit"
        and is_nki(getattr(found.value, "__module__", ""))
    )


def _spelled(node: Node | None, scope: Scope) -> tuple[Value, str]:
    """The module that `node` takes a name from, and the name; they need not exist."""
    if isinstance(node, tree.Attribute):
        return present(resolve(node.value, scope)), node.attr
    origin = scope.origin(node.id) if isinstance(node, tree.Name) else None
    return (present(origin[0]), origin[1]) if origin else (Unresolved.unknown, "")


def present(value: Value) -> Value:
    """`value`, or what stands in its place today if it is of Beta 1."""
    return value.now() if isinstance(value, Legacy) else value
