"""The parser of kernel source text: its grammar, one run over a text, and going on after a mistake."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from nki.compiler.syntax import tree
from nki.compiler.syntax.build import METHODS, Builder
from nki.compiler.syntax.explain import Explainer
from nki.compiler.syntax.generate import Mismatch, Parser, Run, generate
from nki.compiler.syntax.lexer import LAYOUT, Lexer
from nki.compiler.syntax.llk import Grammar, build_lexer
from nki.compiler.syntax.parsed import ParseResult, deep_recursion
from nki_isa.diagnostics import Diagnostic, Span

_START = "file_input"
_RECOVERING = "stmt"

# What goes on with a compound statement: after a mistake in its first line these belong to what was skipped.
_CONTINUATIONS = {
    "elif": "if_rest",
    "else": "else_clause",
    "except": "except_clause",
    "finally": "finally_clause",
    "_CASE": "case_block",
}


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
    text = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    grammar = Grammar.read(text, (_START,))
    lexer = Lexer(*build_lexer(text, _START))
    parser = generate(grammar, METHODS, _RECOVERING)
    return Language(grammar, lexer, parser, Explainer(grammar, lexer, parser))


class Parse:
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
                self.tokens.diagnostics.append(_too_deep(self.tokens.span(0)))
        if module is not None:
            self.leave_out_too_deep(module)
        found = sorted(
            self.tokens.diagnostics, key=lambda d: (d.span.line, d.span.column) if d.span else (0, 0)
        )
        return ParseResult(module, tuple(found), len(self.tokens.texts))

    def leave_out_too_deep(self, module: tree.Module) -> None:
        """Report statements that nothing could go through, and leave them out."""
        deep = {id(item): found for item in module.body if (found := tree.too_deep(item)) is not None}
        self.tokens.diagnostics += [_too_deep(found.span(self.tokens.file)) for found in deep.values()]
        module.body = [item for item in module.body if id(item) not in deep]

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


def _too_deep(place: Span) -> Diagnostic:
    return Diagnostic(
        "NKI-L004",
        f"this is nested more than {tree.DEPTH} levels deep",
        replace(place, end_line=place.line, end_column=place.column + 1),
        help="name the inner parts of a long expression in statements of their own; look a long chain of "
        "elif up in a dict",
    )
