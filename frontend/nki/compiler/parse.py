"""Source text -> syntax tree, with every syntax error of the text in one run."""

from __future__ import annotations

import importlib.resources
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from nki.compiler import tree, tree_cache
from nki.compiler.build import METHODS, Builder
from nki.compiler.explain import Explainer
from nki.compiler.generate import Mismatch, Parser, Run, generate
from nki.compiler.lexer import LAYOUT, Lexer, Tokens
from nki.compiler.llk import Grammar, build_lexer
from nki_isa.diagnostics import Diagnostic

_START = "file_input"
_RECOVERING = "stmt"
_RECURSION = 6000
_REMEMBERED = 256

# What goes on with a compound statement: after a mistake in its first line these belong to what was skipped.
_CONTINUATIONS = {
    "elif": "if_rest",
    "else": "else_clause",
    "except": "except_clause",
    "finally": "finally_clause",
    "_CASE": "case_block",
}


@dataclass(frozen=True, slots=True)
class ParseResult:
    """What became of a text.

    Attributes:
        tree: the statements without mistakes; None only if the text is nested too deeply to go through.
        diagnostics: every mistake found, in the order of the text.
        tokens: how many tokens the text has.
    """

    tree: tree.Module | None
    diagnostics: tuple[Diagnostic, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Language:
    """The grammar of kernel source text, ready for use."""

    grammar: Grammar
    lexer: Lexer
    parser: Parser
    explainer: Explainer


@cache
def language() -> Language:
    """The grammar, lexer and parser; made on the first call, which takes about a tenth of a second."""
    text = (importlib.resources.files("nki.compiler") / "grammar.lark").read_text(encoding="utf-8")
    grammar = Grammar.read(text, (_START,))
    lexer = Lexer(*build_lexer(text, _START))
    parser = generate(grammar, METHODS, _RECOVERING)
    return Language(grammar, lexer, parser, Explainer(grammar, lexer, parser))


_results: OrderedDict[tuple[str, str], ParseResult] = OrderedDict()


def parse(text: str, file: str) -> ParseResult:
    """The syntax tree of `text`.

    Never raises for a mistake in the text: each becomes a diagnostic, with codes NKI-L001 to NKI-L008, and
    the statement it is in is left out of the tree. The same text and file give the same result object.

    Args:
        text: Python source text; a byte order mark and any kind of line end are understood.
        file: the name that diagnostics show.
    """
    key = (text, file)
    result = _results.get(key)
    if result is None:
        result = _results[key] = _kept(text, file)
        if len(_results) > _REMEMBERED:
            _results.popitem(last=False)
    return result


def _kept(text: str, file: str) -> ParseResult:
    """The result of an earlier run where `file` has one and no mistakes, else of parsing now."""
    if not os.path.isfile(file):
        return _Parse(text, file).result()
    with deep_recursion():
        found = tree_cache.load(text)
        if found is not None:
            return ParseResult(found[0], (), found[1])
        result = _Parse(text, file).result()
        if result.tree is not None and not result.diagnostics:
            tree_cache.keep(text, result.tree, result.tokens)
    return result


class _Parse:
    """One run of the parser."""

    def __init__(self, text: str, file: str):
        self.language = language()
        self.tokens = self.language.lexer.tokens(text, file)
        self.unreadable = tuple(self.tokens.diagnostics)
        self.run: Run = self.language.parser.start(
            self.tokens.types, self.tokens.texts, Builder(self.tokens), self.recover
        )

    def result(self) -> ParseResult:
        """Parse to the end."""
        module: Any = None
        with deep_recursion():
            try:
                module, _ = self.run(_START, 0)
            except RecursionError:
                self.tokens.diagnostics.append(_too_deep(self.tokens))
        found = sorted(
            self.tokens.diagnostics, key=lambda d: (d.span.line, d.span.column) if d.span else (0, 0)
        )
        return ParseResult(module, tuple(found), len(self.tokens.texts))

    def recover(self, start: int, mismatch: Mismatch) -> tuple[list[Any], int]:
        """Report a mismatch in the statement that begins at `start`, and skip to the next statement.

        A block that follows is parsed for its own mistakes, and so are the blocks of `else` and its like.
        """
        types = self.tokens.types
        position = self.skip_line(start, mismatch)
        while True:
            if types[position] == "_INDENT":
                position += 1
                while types[position] not in ("_DEDENT", "_EOF"):
                    _, position = self.run(_RECOVERING, position)
                position += types[position] == "_DEDENT"
            elif position > start and types[position] in _CONTINUATIONS:
                try:
                    _, position = self.run(_CONTINUATIONS[types[position]], position)
                except Mismatch as another:
                    position = self.skip_line(position, another)
            else:
                return [], position + (position == start)

    def skip_line(self, start: int, mismatch: Mismatch) -> int:
        """Report a mismatch in what begins at `start`; the first token after its line."""
        position = mismatch.position
        if not self.is_explained(start, position):
            self.tokens.diagnostics.append(self.language.explainer.diagnostic(self.tokens, mismatch))
        types = self.tokens.types
        while types[position] not in LAYOUT:
            position += 1
        return position + (types[position] == "_NEWLINE")

    def is_explained(self, start: int, position: int) -> bool:
        """Whether the lexer has reported a mistake between the tokens, the likely cause of a mismatch."""
        first, last = self.tokens.lines[start], self.tokens.end_lines[position]
        return any(d.span and first <= d.span.line <= last for d in self.unreadable)


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Room for nested calls: some twenty for each pair of brackets, a few for each step of a tree."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _RECURSION))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _too_deep(tokens: Tokens) -> Diagnostic:
    message = f"the text is nested more deeply than {_RECURSION} steps of the parser"
    return Diagnostic(
        "NKI-L004", message, tokens.span(0), help="Name the inner parts in statements of their own."
    )
