"""Finds the source text of a function or class and its node in our syntax tree."""

from __future__ import annotations

import linecache
import sys
from types import CodeType, FunctionType

from nki_isa.diagnostics import NkiError, Span, error

from nki.compiler import tree
from nki.compiler.parse import parse

_DEFINITIONS: dict[tuple[str, int], dict[tuple[str, int], tree.FunctionDef | tree.ClassDef]] = {}


def text_of(filename: str, module: str | None = None) -> str:
    """The text of `filename` as Python knows it: a file, a notebook cell or a loader's source.

    Raises:
        NkiError: NKI-L013 where no text can be found.
    """
    module_globals = getattr(sys.modules.get(module or ""), "__dict__", None)
    lines = linecache.getlines(filename, module_globals)
    if not lines:
        raise error(
            "NKI-L013",
            f"the source of {filename!r} cannot be found",
            help="define the kernel in a file, a module or a notebook cell, not through exec or a typed-in line",
        )
    return "".join(lines)


def tree_of(filename: str, module: str | None = None) -> tree.Module:
    """The syntax tree of `filename`; its syntax errors are raised together."""
    result = parse(text_of(filename, module), filename)
    if result.tree is None or result.diagnostics:
        raise NkiError(result.diagnostics)
    return result.tree


def definitions_of(filename: str, module: str | None = None) -> dict[tuple[str, int], tree.FunctionDef | tree.ClassDef]:
    """Every function and class of `filename` by name and first line (its first decorator's, if it has one)."""
    parsed = tree_of(filename, module)
    key = (filename, id(parsed))
    found = _DEFINITIONS.get(key)
    if found is None:
        found = {}
        for node in tree.walk(parsed):
            if isinstance(node, (tree.FunctionDef, tree.ClassDef)):
                found[node.name, first_line(node)] = node
        _DEFINITIONS[key] = found
    return found


def first_line(node: tree.FunctionDef | tree.ClassDef) -> int:
    """The line a definition starts at, decorators included, as Python's ``co_firstlineno`` counts it."""
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


def definition_of(function: FunctionType) -> tree.FunctionDef:
    """The tree node of `function`.

    Raises:
        NkiError: NKI-L013 where its source is missing or is not a ``def``.
    """
    code: CodeType = function.__code__
    node = definitions_of(code.co_filename, function.__module__).get((code.co_name, code.co_firstlineno))
    if not isinstance(node, tree.FunctionDef):
        raise error(
            "NKI-L013",
            f"{function.__qualname__} is not a plain function definition in {code.co_filename}",
            help="write it with def; a lambda, or a function made by exec, has no source a kernel can use",
            span=Span(code.co_filename, code.co_firstlineno),
        )
    return node
