"""Whether the arguments of a call fit the parameters of what is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nki.compiler.checker.scope import Definition, Unresolved
from nki.compiler.language.constructs import last_name
from nki.compiler.language.names import nearest
from nki.compiler.syntax import tree
from nki.compiler.syntax.node import Node, walk

POSITIONAL, KEYWORD = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.KEYWORD_ONLY
EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its name, how it is given, and whether it may be left out."""

    name: str
    kind: inspect._ParameterKind = EITHER
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """What a callee takes.

    Attributes:
        callee: its name in messages.
        parameters: in order, those after ``self``.
        more: True if it takes any further positional arguments.
        more_keywords: True if it takes any further keywords.
    """

    callee: str
    parameters: tuple[Parameter, ...]
    more: bool = False
    more_keywords: bool = False

    def __str__(self) -> str:
        parts = [f"{p.name}=..." if p.optional else p.name for p in self.parameters]
        return f"{self.callee}({', '.join(parts)})"


@dataclass(frozen=True, slots=True)
class CallFault:
    """One thing wrong with a call.

    Attributes:
        node: the argument, or the call if one is missing.
        message: what is wrong.
        help: what to write instead.
        keyword: the unknown keyword, if that is it.
        near: the parameter it is likely to stand for.
        missing: the parameters that got nothing.
    """

    node: Node
    message: str
    help: str
    keyword: str = ""
    near: str | None = None
    missing: tuple[str, ...] = ()


def misfits(call: tree.Call, signature: Signature) -> Iterator[CallFault]:
    """Everything wrong with the arguments of `call`."""
    by_name = {p.name: p for p in signature.parameters if p.kind is not POSITIONAL}
    by_place = [p for p in signature.parameters if p.kind is not KEYWORD]
    spread = any(isinstance(a, tree.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)
    given = {p.name for p, _ in zip(by_place, call.args)}
    written = {keyword.arg for keyword in call.keywords}
    if len(call.args) > len(by_place) and not signature.more and not spread:
        extra = call.args[len(by_place)]
        takes = f"{len(by_place)} argument{'s' * (len(by_place) != 1)} by position"
        message = f"{signature.callee} takes {takes} but {len(call.args)} are given"
        yield CallFault(extra, message, f"its signature is {signature}")
    for keyword in call.keywords:
        if keyword.arg is None:
            continue
        if keyword.arg in given:
            yield CallFault(
                keyword,
                f"{signature.callee} gets {keyword.arg!r} twice",
                f"leave out one; its signature is {signature}",
            )
        elif keyword.arg not in by_name and not signature.more_keywords:
            near = _meant(keyword.arg, [p for p in by_name.values() if p.name not in given | written])
            given.update([near] if near else [])
            hint = f"write {near}=" if near else f"its signature is {signature}"
            message = f"{signature.callee} has no parameter {keyword.arg!r}"
            yield CallFault(keyword, message, hint, keyword.arg, near)
        given.add(keyword.arg)
    missing = tuple(p.name for p in signature.parameters if not p.optional and p.name not in given)
    if missing and not spread:
        plural = "s" * (len(missing) > 1)
        message = f"{signature.callee}: missing required argument{plural} {', '.join(missing)}"
        yield CallFault(call, message, f"its signature is {signature}", missing=missing)


def _meant(keyword: str, free: list[Parameter]) -> str | None:
    """The parameter that an unknown keyword is likely to stand for, one that is required before others."""
    required = nearest(keyword, [p.name for p in free if not p.optional], 0.6)
    return required or nearest(keyword, [p.name for p in free], 0.6)


def of_python(callee: str, function: Callable[..., object]) -> Signature | None:
    """The signature of a host function."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    parameters = signature.parameters.values()
    plain = tuple(
        Parameter(p.name, p.kind, p.default is not p.empty)
        for p in parameters
        if p.kind in (POSITIONAL, EITHER, KEYWORD)
    )
    more = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return Signature(callee, plain, more, any(p.kind is p.VAR_KEYWORD for p in parameters))


def of_definition(definition: Definition, bound: bool = False) -> Signature | None:
    """The signature of a user's function or class; None where the text does not tell.

    Args:
        definition: the function or class.
        bound: True for a method called on an object: its first parameter is that object.
    """
    if isinstance(definition.node, tree.ClassDef):
        return _of_class(definition)
    if any(last_name(d) not in ("jit", "staticmethod") for d in definition.node.decorator_list):
        return None
    arguments = definition.node.args
    places = [*arguments.posonlyargs, *arguments.args]
    required = len(places) - len(arguments.defaults)
    found = [
        Parameter(a.arg, POSITIONAL if i < len(arguments.posonlyargs) else EITHER, i >= required)
        for i, a in enumerate(places)
    ]
    if bound and not is_static(definition.node):
        if not found:
            return None
        found = found[1:]
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults):
        found.append(Parameter(argument.arg, KEYWORD, default is not None))
    return Signature(definition.name, tuple(found), arguments.vararg is not None, arguments.kwarg is not None)


def is_static(node: tree.FunctionDef | tree.ClassDef) -> bool:
    """Whether a method takes no object."""
    return any(last_name(d) == "staticmethod" for d in node.decorator_list)


def _of_class(definition: Definition) -> Signature | None:
    """The initializer's parameters: written out, or those that the fields of an NKIObject make.

    Without an ``__init__`` every field is a parameter that can be left out, as the language
    guide says; ``@dataclass`` keeps to the fields, a class without it takes further keywords.
    """
    if definition.bases():
        return None
    written = definition.member("__init__")
    if isinstance(written, Definition):
        made = of_definition(written, bound=True)
        return made and Signature(definition.name, made.parameters, made.more, made.more_keywords)
    if written is not Unresolved.missing:
        return None
    found = []
    for item in definition.node.body:
        if isinstance(item, tree.AnnAssign) and isinstance(item.target, tree.Name):
            if isinstance(item.value, tree.Call) or _is_special(item.annotation):
                return None
            found.append(item.target.id)
        elif isinstance(item, tree.Assign) and isinstance(item.targets[0], tree.Name):
            found.append(item.targets[0].id)
    closed = any(last_name(d) == "dataclass" for d in definition.node.decorator_list)
    return Signature(
        definition.name, tuple(Parameter(name, EITHER, True) for name in found), more_keywords=not closed
    )


def _is_special(annotation: Node) -> bool:
    """Whether a field is not a parameter: ``ClassVar``, ``InitVar``, ``KW_ONLY``."""
    names = (last_name(n) for n in walk(annotation))
    return any(name in ("ClassVar", "InitVar", "KW_ONLY") for name in names)
