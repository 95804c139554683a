"""Finds the source text of a function and its node in our syntax tree.

Texts are kept as they were when a kernel of theirs was decorated, so that a file edited
while a program runs does not change what its functions mean. Where a function fits no
text known for its file, that is said rather than something else compiled.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from nki.compiler.source.kept import Kept
from nki.compiler.syntax import tree
from nki.compiler.syntax.node import Node, children
from nki.compiler.syntax.parse import parse
from nki_isa.diagnostics import NkiError, Span, error

_texts: Kept[str, str] = Kept(1024)
_decorated: Kept[int, CodeType] = Kept(1024)  # by id; held, so that ids stay their own


@dataclass(frozen=True, slots=True)
class TextDefinition:
    """A function or class of a text.

    Attributes:
        node: its tree.
        owner: the class whose body it stands in, if it does.
    """

    node: tree.FunctionDef | tree.ClassDef
    owner: str | None


@dataclass(frozen=True, slots=True)
class _Definitions:
    """Those of one tree, by name and first line; the tree is held, so that its id stays its own."""

    parsed: tree.Module
    found: dict[tuple[str, int], TextDefinition]


_definitions: Kept[int, _Definitions] = Kept(1024)

#: What Python calls every text given to exec and, from 3.13 on, the text of ``python -c``, which it keeps.
_EXECUTED = "<string>"


def remember(function: FunctionType) -> None:
    """Keep the text of the file that `function` stands in as it is now, the first time it is decorated."""
    code = function.__code__
    if id(code) not in _decorated:
        _decorated[id(code)] = code
        text = _read(code.co_filename, function.__module__)
        if text:
            _texts[code.co_filename] = text


def know(texts: Mapping[str, str]) -> None:
    """Take these texts of files, by name, for what the files hold: those of another process."""
    _texts.update(texts)


def known(filename: str) -> str:
    """The text of a file that was compiled; as it is now for another."""
    return _texts.get(filename) or now(filename)


def now(filename: str) -> str:
    """The text of a file as it is now."""
    return _read(filename, None)


def text_of(filename: str, module: str | None = None, code: CodeType | None = None) -> str:
    """The text of `filename` as Python knows it: a file, a notebook cell or a loader's source.

    Args:
        filename: as code objects have it.
        module: the module it belongs to, for loaders that give source.
        code: a function of it; a text it cannot come from is read again.

    Raises:
        NkiError: NKI-L013 where no text can be found.
    """
    text = _texts.get(filename)
    if text is None or (code is not None and not _holds(text, filename, code)):
        fresh = _read(filename, module)
        if text is None or (code is not None and fresh and _holds(fresh, filename, code)):
            text = fresh
    if not text or (filename == _EXECUTED and code is not None and not _holds(text, filename, code)):
        raise error(
            "NKI-L013",
            f"the source of {filename!r} cannot be found",
            help="define the kernel in a file, a module or a notebook cell, not by exec or a typed-in line",
        )
    _texts[filename] = text
    return text


def _read(filename: str, module: str | None) -> str:
    linecache.checkcache(filename)
    module_globals = getattr(sys.modules.get(module or ""), "__dict__", None)
    return "".join(linecache.getlines(filename, module_globals))


def tree_of(text: str, filename: str) -> tree.Module:
    """The syntax tree of `text`; its syntax errors are raised together."""
    result = parse(text, filename)
    if result.tree is None or result.diagnostics:
        raise NkiError(result.diagnostics)
    return result.tree


def definitions_of(parsed: tree.Module) -> dict[tuple[str, int], TextDefinition]:
    """Every function and class of a tree by name and first line."""
    kept = _definitions.get(id(parsed))
    if kept is None:
        kept = _definitions[id(parsed)] = _Definitions(parsed, dict(_walk(parsed, None)))
    return kept.found


def _walk(node: Node, owner: str | None) -> Iterator[tuple[tuple[str, int], TextDefinition]]:
    for child in children(node):
        if isinstance(child, (tree.FunctionDef, tree.ClassDef)):
            yield (child.name, first_line(child)), TextDefinition(child, owner)
            yield from _walk(child, child.name if isinstance(child, tree.ClassDef) else None)
        elif isinstance(child, (tree.stmt, tree.ExceptHandler, tree.match_case)):
            yield from _walk(child, owner)


def around(code: CodeType, module: str | None = None) -> tree.FunctionDef | tree.Module:
    """The ``def`` that `code` was compiled from, else its file as far as it is known; for places in it."""
    try:
        parsed = parse(text_of(code.co_filename, module), code.co_filename).tree
    except NkiError:  # made by exec, or typed in
        parsed = None
    if parsed is None:
        return tree.Module([], [])
    found = definitions_of(parsed).get((code.co_name, code.co_firstlineno))
    return found.node if found is not None and isinstance(found.node, tree.FunctionDef) else parsed


def characters(filename: str, line: int, octets: int) -> int:
    """A column of Python's code, which counts bytes of UTF-8, in characters."""
    text = _texts.get(filename, "")
    if text.isascii():
        return octets
    lines = text.splitlines()
    return len(lines[line - 1].encode()[:octets].decode(errors="ignore")) if line <= len(lines) else octets


def first_line(node: tree.FunctionDef | tree.ClassDef) -> int:
    """The line a definition starts at, decorators included, as Python's ``co_firstlineno`` counts it."""
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


def definition_of(function: FunctionType) -> TextDefinition:
    """Where `function` stands in its text.

    Raises:
        NkiError: NKI-L013 where its source is missing, is not a ``def``, or has changed since.
    """
    code: CodeType = function.__code__
    text = text_of(code.co_filename, function.__module__, code)
    definitions = definitions_of(tree_of(text, code.co_filename))
    found = definitions.get((code.co_name, code.co_firstlineno))
    if found is not None and isinstance(found.node, tree.FunctionDef):
        if _fits(found.node, code):
            return found
        raise changed(function)
    if any(name == code.co_name for name, _ in definitions):
        raise changed(function)
    raise error(
        "NKI-L013",
        f"{function.__qualname__} is not a plain function definition in {code.co_filename}",
        help="write it with def; a lambda, or a function made by exec, has no source a kernel can use",
        span=Span(code.co_filename, code.co_firstlineno),
    )


def changed(function: FunctionType) -> NkiError:
    """NKI-L013 for a function whose text is no longer that of its code."""
    code = function.__code__
    return error(
        "NKI-L013",
        f"{code.co_filename} has changed since {function.__qualname__} was defined",
        help="run the file again, or reload its module with importlib.reload",
        span=Span(code.co_filename, code.co_firstlineno),
    )


# --- does a text fit a code object?

#: How the names begin that pytest puts into a function whose assertions it rewrites.
_REWRITTEN = ("@py_", "@pytest_")


def _holds(text: str, filename: str, code: CodeType) -> bool:
    parsed = parse(text, filename).tree
    if parsed is None:
        return False
    found = definitions_of(parsed).get((code.co_name, code.co_firstlineno))
    return found is not None and isinstance(found.node, tree.FunctionDef) and _fits(found.node, code)


def _fits(node: tree.FunctionDef, code: CodeType) -> bool:
    """Whether `code` has the parameters of `node` and no line outside of it."""
    arguments = node.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None]
    known = code.co_varnames[: len(names)]
    inside = all([line is None or line <= node.end_lineno for _, _, line in code.co_lines()])
    return inside and len(known) == len(names) and all(_same_name(*pair) for pair in zip(names, known))


def _same_name(written: str, compiled: str) -> bool:
    return written == compiled or (written.startswith("__") and compiled.endswith(written))  # a private name


def comes_from(made: CodeType, without_assertions: Callable[[], CodeType], original: CodeType) -> bool:
    """Whether all that `made`, compiled from the text, uses is in `original` too.

    `original` may have more, or less where Python runs with -O or where a test runner has rewritten the
    assertions: then what stands outside of them counts.

    Args:
        made: what the text gives.
        without_assertions: makes the same without its assertions.
        original: the function's own code.
    """
    if sys.flags.optimize:
        return True
    there = _uses(original)
    if _uses(made) <= there:
        return True
    rewritten = any(isinstance(name, str) and name.startswith(_REWRITTEN) for name in there)
    return rewritten and _uses(without_assertions()) <= there


def _uses(code: CodeType) -> set[Any]:
    found: set[Any] = {n for n in (*code.co_names, *code.co_varnames) if "_nki_" not in n}
    todo = list(code.co_consts)
    while todo:
        constant = todo.pop()
        if isinstance(constant, CodeType):
            found |= _uses(constant)
        elif isinstance(constant, (tuple, frozenset)):
            todo += constant
        elif isinstance(constant, (int, float, str)) and not isinstance(constant, bool):
            found.add(repr(constant))
    return found
