"""Compares our syntax tree with the one of Python's own parser, places included."""

from __future__ import annotations

import ast
import random
import sys
import sysconfig
import tokenize
import warnings
from pathlib import Path
from typing import Any

from nki.compiler.syntax import tree

EXACT_FSTRINGS = sys.version_info >= (3, 12)
"""Before 3.12 Python gives the parts of an f-string the place of the whole string, or a wrong one."""


_NOT_OURS = ("type_comment", "default_value")
"""Fields for what is not syntax of Python 3.12."""


def stdlib_files() -> list[Path]:
    """The files of the standard library, without those that hold mistakes on purpose."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(p for p in root.rglob("*.py") if "site-packages" not in p.parts)
    return [p for p in files if "lib2to3/tests/data" not in p.as_posix()]


def sample(count: int) -> list[Path]:
    """The same `count` files of the standard library on each run."""
    return random.Random(12).sample(stdlib_files(), count)


def read(path: Path) -> str | None:
    """The text of a source file, None if it is in no encoding it claims."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError):
        return None


def host_tree(text: str) -> ast.Module | None:
    """What Python's parser makes of `text`, None for a syntax error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            return None


class Differences:
    """Where two trees of one text differ."""

    def __init__(self, text: str):
        self.lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self.found: list[str] = []

    def compare(self, ours: Any, host: Any, path: str = "", places: bool = True) -> list[str]:
        """All differences, each with the path to it."""
        if isinstance(host, ast.AST):
            self._node(ours, host, path, places)
        elif isinstance(host, list):
            if len(ours) != len(host):
                self.found.append(f"{path}: {len(ours)} items, Python has {len(host)}")
            for i, (one, other) in enumerate(zip(ours, host, strict=False)):
                self.compare(one, other, f"{path}[{i}]", places)
        elif type(ours) is not type(host) or repr(ours) != repr(host):
            self.found.append(f"{path}: {ours!r}, Python has {host!r}")
        return self.found

    def _node(self, ours: Any, host: ast.AST, path: str, places: bool) -> None:
        name = type(host).__name__
        if type(ours).__name__ != name:
            self.found.append(
                f"{path}: {type(ours).__name__}, Python has {name} at {getattr(host, 'lineno', '')}"
            )
            return
        if places and "lineno" in host._attributes:
            mine = (ours.lineno, ours.col_offset, ours.end_lineno, ours.end_col_offset)
            theirs = (*self._character(host.lineno, host.col_offset),)  # type: ignore[attr-defined]
            theirs += self._character(host.end_lineno, host.end_col_offset)  # type: ignore[attr-defined]
            if mine != theirs:
                self.found.append(f"{path}:{name}: {mine}, Python has {theirs}")
        if isinstance(ours, tree.JoinedStr) and not EXACT_FSTRINGS:
            places = False
        for field in host._fields:
            if field not in _NOT_OURS:
                self.compare(getattr(ours, field), _value(host, field), f"{path}.{field}", places)

    def _character(self, line: int, column: int) -> tuple[int, int]:
        """A place in characters, from one in bytes."""
        return line, len(self.lines[line - 1].encode()[:column].decode())


def _value(host: ast.AST, field: str) -> Any:
    """A field of Python's tree, without the empty texts that some versions leave in f-strings."""
    value = getattr(host, field, None)
    if isinstance(host, ast.JoinedStr):
        value = [part for part in host.values if not (isinstance(part, ast.Constant) and part.value == "")]
    return value
