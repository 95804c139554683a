"""The checks before a kernel is specialized: all mistakes of it and of what it reaches, in one run.

:func:`check` takes a function of the running program, :func:`check_file` a file that is
read and not run. Both walk the trees of the kernel and of every function and class it
reaches by name, and report constructs that are not in the language, names that stand for
nothing, calls that do not fit, and parts of older APIs.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

from nki import levels
from nki.compiler.checker import flow, scope
from nki.compiler.checker.scope import (
    Definition,
    Host,
    LiveScope,
    Scope,
    Sourceless,
    TextScope,
    Unresolved,
    UserModule,
    Value,
)
from nki.compiler.checker.walk import Walker
from nki.compiler.language import array_arguments, frontends
from nki.compiler.language.constructs import not_accepted
from nki.compiler.language.frontends import FrontEnd
from nki.compiler.language.profile import PROFILES, Acceptance
from nki.compiler.source.host_modules import is_host
from nki.compiler.source.kept import Kept
from nki.compiler.source.kernel_source import KernelSource, kernel_source
from nki.compiler.syntax import tree
from nki.compiler.syntax.node import Node, children, walk
from nki.compiler.syntax.parsed import deep_recursion
from nki_isa.diagnostics import Diagnostic, Frame, Label, NkiError, Severity, Span, error

_UNKNOWN_SYNTAX, _SOURCELESS = "syntax that the parser does not know", "a function without source text"
_LEXICAL = ("NKI-L001", "NKI-L002", "NKI-L003")

Dependency = tuple[dict[str, Any], str, Any]


def check(function: Any, profile: str = "library") -> list[Diagnostic]:
    """Everything wrong with a kernel, or with a plain function as one.

    Args:
        function: a kernel or a function.
        profile: ``"library"`` or ``"strict"``, see :mod:`nki.compiler.language.profile`.

    Returns:
        Errors and warnings, the kernel's own first.

    Raises:
        NkiError: NKI-L023 for what is not a function.
    """
    return _check_function(kernel_source(function).function, profile).diagnostics


def check_file(path: str, profile: str = "library") -> list[Diagnostic]:
    """Everything wrong with the kernels of a file, which is read and not run.

    Kernels are the functions decorated with ``nki.jit`` and those handed to it. What they
    reach in other files is found through the import statements.

    Args:
        path: a Python file.
        profile: ``"library"`` or ``"strict"``.

    Raises:
        NkiError: NKI-L026 if there is no such file.
    """
    if not Path(path).is_file():
        raise error("NKI-L026", f"there is no file {path}", help="give the path of a Python file")
    return _check_texts(path, None, profile)


def kernels_of_file(path: str) -> dict[int, Definition]:
    """The kernels of a file by the first line of each, decorators included."""
    names = scope.text_scope(Path(path), None)
    return {min(d.lineno for d in (k.node, *k.node.decorator_list)): k for k in _kernels(names)}


def check_text(text: str, path: str, profile: str = "library") -> list[Diagnostic]:
    """Everything wrong with the kernels of `text`, as :func:`check_file` finds it.

    Args:
        text: Python, as it stands in an editor.
        path: where it is or will be saved, for imports and for the places of what is found.
        profile: ``"library"`` or ``"strict"``.
    """
    return _check_texts(path, text, profile)


def _check_texts(path: str, text: str | None, profile: str) -> list[Diagnostic]:
    scope.forget_texts()
    names = scope.text_scope(Path(path), text)
    run = Run(profile)
    for found in names.source.diagnostics:
        run.add(found)
    with deep_recursion():
        for stray in flow.stray_returns(names.source.module.body):
            message = "`return` stands outside of a function"
            run.add(
                Diagnostic("NKI-L014", message, stray.span(path), "indent it into the function it belongs to")
            )
        _check_host(run, names)
        for kernel in _kernels(names):
            run.reach(kernel, ())
        run.finish()
    return run.diagnostics


def _check_host(run: Run, names: TextScope) -> None:
    """What a file takes from nki outside of its functions, where every run of it comes along."""
    module: Any = names.source.module
    walker = Walker(run, Definition(module, names.source, names, "<module>"), (), False)
    for statement in module.body:
        if isinstance(statement, tree.FunctionDef):
            for decorator in statement.decorator_list:
                walker.host(decorator)
        elif isinstance(statement, (tree.Import, tree.ImportFrom)):
            walker.imports(statement)
        elif isinstance(statement, (tree.Expr, tree.Assign)):
            walker.host(statement)


@dataclass(frozen=True, slots=True)
class Checked:
    """A kernel that passed.

    Attributes:
        found: warnings and notes, and errors of names that do not exist.
        traced: True if it is to be traced.
    """

    found: list[Diagnostic]
    traced: bool


@dataclass(frozen=True, slots=True)
class _Passed:
    """A kernel that passed, and what must still be the same for it to pass again."""

    names: dict[str, Any]
    code: tuple[Any, ...]
    dependencies: list[Dependency]
    checked: Checked

    def holds(self, function: FunctionType, code: tuple[Any, ...]) -> bool:
        """Whether `function` reaches what it reached then; it holds and is called with `code`."""
        if self.names is not function.__globals__ or self.code != code:
            return False
        return all(names.get(name) is value for names, name, value in self.dependencies)


#: Errors of what a kernel may hold in a branch it does not take.
_WHERE_REACHED = frozenset({"NKI-L010", "NKI-L011", "NKI-L012"})

_passed: Kept[tuple[CodeType, str, str, FrontEnd], _Passed] = Kept()


def require(function: Any, profile: str = "library", values: Iterable[Any] = ()) -> Checked:
    """Refuse a kernel that has mistakes, and tell which front end it needs.

    A name that does not exist, or a call without an argument, is a mistake where it is reached: the
    compiler evaluates only the branches taken, and published kernels have such mistakes in the
    others. Whoever specializes the kernel finds out, outside of the strict profile.

    The answer is kept for as long as the functions and classes that the kernel reaches
    are the same.

    Args:
        function: the kernel.
        profile: the language profile.
        values: what it is called with: functions and objects among them, or inside them, are reached.

    Raises:
        NkiError: carrying every diagnostic, if one of them is any other error.
    """
    function = kernel_source(function).function
    key = (function.__code__, profile, levels.current(), frontends.current())
    kept = _passed.get(key)
    values = list(values)
    code = tuple(_code([*_held(function), *values]))
    if kept is not None and kept.holds(function, code):
        return kept.checked
    run = _check_function(function, profile, _handed(values))
    refused = [d for d in run.diagnostics if d.severity is Severity.error]
    if refused and (profile == "strict" or any(d.code not in _WHERE_REACHED for d in refused)):
        raise NkiError(run.diagnostics)
    traced = frontends.current() is FrontEnd.tracer or bool(run.only_traced)
    checked = Checked(run.diagnostics, traced)
    _passed[key] = _Passed(function.__globals__, code, run.dependencies, checked)
    return checked


def _handed(values: Iterable[Any], depth: int = 3) -> Iterator[Definition | Sourceless]:
    """The user's functions and classes among `values`, in containers, and in the fields of objects."""
    if depth == 0:
        return
    for value in values:
        if value is None or isinstance(value, (bool, int, float, str)) or array_arguments.is_data(value):
            continue
        if isinstance(value, (list, tuple, set, frozenset)):
            yield from _handed(value, depth - 1)
        elif isinstance(value, dict):
            yield from _handed(value.values(), depth - 1)
        else:
            for found in scope.contained(value):
                yield found
                if isinstance(found, Definition) and isinstance(found.node, tree.ClassDef):
                    yield from _handed(getattr(value, "__dict__", {}).values(), depth - 1)


def _held(function: FunctionType) -> Iterator[Any]:
    """What `function` captured, and the defaults of its parameters."""
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # assigned later by the enclosing function
            yield cell.cell_contents
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()


def _code(values: Iterable[Any], depth: int = 4) -> Iterator[Any]:
    """The functions and classes among `values`, in containers, and in the fields of the user's objects."""
    if depth == 0:
        return
    for value in values:
        if value is None or isinstance(value, (bool, int, float, str)) or array_arguments.is_data(value):
            continue
        if isinstance(value, MethodType):
            yield value.__func__
            yield from _code([value.__self__], depth - 1)
        elif isinstance(value, (FunctionType, BuiltinFunctionType, type)):
            yield value
        elif isinstance(value, (list, tuple, set, frozenset)):
            yield from _code(value, depth - 1)
        elif isinstance(value, dict):
            yield from _code(value.values(), depth - 1)
        elif isinstance(value, functools.partial):
            yield from _code([value.func, *value.args, *value.keywords.values()], depth - 1)
        elif isinstance(value, KernelSource):
            yield value.function
        elif not is_host(type(value).__module__):
            yield type(value)
            yield from _code(getattr(value, "__dict__", {}).values(), depth - 1)


def _check_function(
    function: FunctionType, profile: str, handed: Iterable[Definition | Sourceless] = ()
) -> Run:
    run = Run(profile)
    run.reach(scope.definition_of(function), ())
    for value in handed:
        run.reach(value, ())
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        for value in scope.contained(default):
            run.reach(value, ())
    run.finish()
    return run


def _kernels(names: TextScope) -> Iterator[Definition]:
    """The kernels of a file: decorated functions, and functions of the file that are handed to nki.jit."""
    for node, enclosing in _definitions(names.source.module, names):
        if any(scope.is_jit(decorator, names) for decorator in node.decorator_list):
            yield Definition(node, names.source, enclosing, node.name)
    for call in walk(names.source.module):
        if isinstance(call, tree.Call) and call.args and scope.is_jit(call.func, names):
            found = scope.resolve(call.args[0], names)
            if isinstance(found, Definition) and isinstance(found.node, tree.FunctionDef):
                yield found


def _definitions(node: Node, names: Scope) -> Iterator[tuple[tree.FunctionDef, Scope]]:
    """Every function under `node` with the names around it."""
    for child in children(node):
        inner = names
        if isinstance(child, tree.FunctionDef):
            yield child, names
            local = flow.bound_names(child.body) | {a.arg for a in flow.parameters(child.args)}
            inner = _Enclosed(names, local)
        yield from _definitions(child, inner)


@dataclass
class _Enclosed(Scope):
    """The names inside a function that has not run: its locals are unknown."""

    outer: Scope
    local: set[str]

    def get(self, name: str) -> Value:
        return Unresolved.unknown if name in self.local else self.outer.get(name)

    def names(self) -> Iterable[str]:
        return [*self.local, *self.outer.names()]


@dataclass
class Run:
    """One run over a kernel and what it reaches.

    Attributes:
        profile: the language profile.
        diagnostics: what was found, in the order in which definitions were reached.
        python: True where all of Python is taken, by the tracer where the parser does not take it.
        only_traced: what only the tracer takes, with the first place of each.
    """

    profile: str
    diagnostics: list[Diagnostic] = field(default_factory=list)
    _dependencies: dict[tuple[int, str], Dependency] = field(default_factory=dict)
    _todo: list[tuple[Definition, tuple[Frame, ...]]] = field(default_factory=list)
    _reached: dict[int, tuple[Definition, tuple[Frame, ...]]] = field(default_factory=dict)
    _attributes: set[str] = field(default_factory=set)
    _told: set[tuple[str, Span | None, str]] = field(default_factory=set)
    only_traced: dict[str, Span | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            known = " or ".join(repr(name) for name in PROFILES)
            raise error("NKI-L032", f"there is no language profile {self.profile!r}", help=f"write {known}")
        self.rows = not_accepted(self.profile)
        self.severities = dict(PROFILES[self.profile])
        self.python = frontends.takes_python() and self.profile != "strict"
        if self.python:
            self.severities[Acceptance.undocumented] = None

    def add(self, found: Diagnostic) -> None:
        """Keep `found` once."""
        key = (found.code, found.span, found.message)
        if key not in self._told:
            self._told.add(key)
            self.diagnostics.append(found)

    def refused(self, what: str, span: Span | None) -> bool:
        """False where `what` is of the constructs that the tracer takes, which is noted."""
        if self.python:
            self.only_traced.setdefault(what, span)
        return not self.python

    def reach(self, value: Value, calls: tuple[Frame, ...]) -> None:
        """Have `value` checked too, if it is a definition of the user's; `calls` lead to it."""
        if isinstance(value, Definition):
            if id(value.node) not in self._reached:
                self._reached[id(value.node)] = (value, calls)
                self._todo.append((value, calls))
        elif isinstance(value, Sourceless):
            self._report_sourceless(value, calls)
        elif isinstance(value, Host):
            for inner in scope.contained(value.value):
                self.reach(inner, calls)

    def depend(self, names: Scope, name: str, value: Value) -> None:
        """What was reached depends on the global `name` being what it is."""
        if (
            isinstance(names, LiveScope)
            and isinstance(value, (Definition, UserModule))
            and name in names.globals
        ):
            self._dependencies[id(names.globals), name] = (names.globals, name, names.globals[name])

    @property
    def dependencies(self) -> list[Dependency]:
        """The global names that decided what was reached, with their values."""
        return [*self._dependencies.values()]

    def use_attribute(self, name: str) -> None:
        """An attribute of an unknown object was read: methods of that name are reached."""
        self._attributes.add(name)

    def finish(self) -> None:
        """Check everything reached, and what that reaches."""
        while self._todo:
            while self._todo:
                self._check(*self._todo.pop(0))
            for definition, calls in list(self._reached.values()):
                if isinstance(definition.node, tree.ClassDef):
                    self._reach_methods(definition, calls)
        if self.only_traced:
            self.add(_traced(self.only_traced))

    def _reach_methods(self, definition: Definition, calls: tuple[Frame, ...]) -> None:
        for item in definition.node.body:
            if isinstance(item, tree.FunctionDef) and (
                item.name in self._attributes or item.name.startswith("__")
            ):
                self.reach(scope.method(definition, item), calls)

    def _check(self, definition: Definition, calls: tuple[Frame, ...]) -> None:
        node = definition.node
        before = len(self.diagnostics)
        broken = False
        for found in definition.file.diagnostics:
            inside = found.span is not None and node.lineno <= found.span.line <= node.end_lineno
            if (inside and isinstance(node, tree.FunctionDef)) or found.code in _LEXICAL:
                broken = broken or inside
                if isinstance(definition.scope, LiveScope) and not self.refused(_UNKNOWN_SYNTAX, found.span):
                    continue  # Python has read it
                self.add(replace(found, stack=calls))
        Walker(self, definition, calls, broken).run()
        fresh = self.diagnostics[before:]
        fresh.sort(key=lambda d: (d.span.line, d.span.column) if d.span else (0, 0))
        self.diagnostics[before:] = fresh

    def _report_sourceless(self, value: Sourceless, calls: tuple[Frame, ...]) -> None:
        code = value.function.__code__
        if not self.refused(_SOURCELESS, calls[-1].span if calls else None):
            return
        last = max((line for _, _, line in code.co_lines() if line is not None), default=code.co_firstlineno)
        inside = [d for d in value.diagnostics if d.span and code.co_firstlineno <= d.span.line <= last]
        for found in inside or value.diagnostics:
            self.add(replace(found.at(calls[-1].span if calls else None), stack=calls))


def _traced(constructs: dict[str, Span | None]) -> Diagnostic:
    """NKI-L057, the note that names what only the tracer takes."""
    *most, last = constructs
    (_, span), *others = constructs.items()
    return Diagnostic(
        "NKI-L057",
        f"only the tracing front end takes {', '.join(most)}{' and ' * bool(most)}{last}",
        span=span,
        labels=tuple(Label(place, f"{what} here") for what, place in others if place is not None),
        severity=Severity.note,
    )


__all__ = ["Checked", "Run", "check", "check_file", "check_text", "kernels_of_file", "require"]
