"""Source text -> tokens: Lark's terminals, plus layout, brackets, f-strings and soft keywords.

Lark's lexer finds the tokens of the grammar. What regular expressions cannot say is added here: indentation
becomes tokens, newlines inside brackets disappear, the inside of f-strings is taken apart, and `match`,
`case`, `type` and the parenthesis of a `with` are told from their namesakes. Nothing here raises for a
mistake in the text: it is reported, mended, and lexing goes on.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from lark.lexer import BasicLexer
from lark.utils import TextSlice

from nki.compiler.syntax.llk import END
from nki_isa.diagnostics import Diagnostic, Label, Span

CLOSERS = {"(": ")", "[": "]", "{": "}"}
LAYOUT = frozenset(("_NEWLINE", "_INDENT", "_DEDENT", "_EOF"))

_MAX_BRACKETS = 200
_TAB = 8
_SOFT_KEYWORDS = frozenset(("match", "type"))
_STATEMENT_STARTS = LAYOUT | {";", ":"}

# Words that begin a statement and stand nowhere inside an expression: at the start of a line they show that a
# bracket was left open.
_STATEMENT_WORD = re.compile(
    r"(?:def|class|return|while|assert|with|import|raise|try|pass|break|continue|del|global|nonlocal|elif)\b"
)
_AFTER_NUMBER = re.compile(r"(?!(?:and|else|for|if|in|is|not|or)\b)\w+")
_LEADING_ZERO = re.compile(r"0[0-9_]*[1-9][0-9_]*")
_NEVER_SOURCE = re.compile("[\0\ud800-\udfff]")
_FIRST_INDENT = re.compile(r"([ \t\f]*)[^ \t\f\n#\\]")

# The literal text of an f-string up to what ends it: a quote, a brace, and a newline unless triple-quoted.
_FSTRING_TEXT = {
    (quote, raw): re.compile(
        rf"(?:[^\\{{}}{quote[0]}{'' if len(quote) == 3 else chr(10)}]+"
        + (r"|\\[^{}]|\\(?=[{}])" if raw else r"|\\N\{[^}\n]*\}|\\[^{}]|\\(?=[{}])")
        + (rf"|{quote[0]}(?!{quote[0] * 2})" if len(quote) == 3 else "")
        + r"|\{\{|\}\})*",
        re.DOTALL,
    )
    for quote in ("'", '"', "'''", '"""')
    for raw in (False, True)
}
_FORMAT_SPEC_TEXT = {
    quote: re.compile(
        rf"(?:[^{{}}{quote[0]}{'' if len(quote) == 3 else chr(10)}]+"
        + (rf"|{quote[0]}(?!{quote[0] * 2})" if len(quote) == 3 else "")
        + r")*"
    )
    for quote in ("'", '"', "'''", '"""')
}


@dataclass(slots=True)
class Tokens:
    """The tokens of a text, column by column; places as in :mod:`nki.compiler.syntax.tree`."""

    file: str
    text: str
    types: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    end_lines: list[int] = field(default_factory=list)
    end_columns: list[int] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def span(self, first: int, last: int | None = None) -> Span:
        """The place of the tokens from `first` to `last`."""
        last = first if last is None else last
        return Span(
            self.file,
            self.lines[first],
            self.columns[first] + 1,
            self.end_lines[last],
            self.end_columns[last] + 1,
        )

    def source(self, start: tuple[int, int], end: tuple[int, int]) -> str:
        """The text from one line and column to another."""
        lines = self.text.split("\n")[start[0] - 1 : end[0]]
        lines[-1] = lines[-1][: end[1]]
        lines[0] = lines[0][start[1] :]
        return "\n".join(lines)


@dataclass(slots=True)
class _FString:
    """An f-string being read: its first token, and how many brackets are open around it and in each field."""

    start: int
    quote: str
    raw: bool
    brackets: int
    fields: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Lexer:
    """The lexer of a grammar.

    Attributes:
        lark: Lark's basic lexer.
        literals: the text of each terminal that is a plain string, by name.
    """

    lark: BasicLexer
    literals: dict[str, str]

    def tokens(self, text: str, file: str) -> Tokens:
        """All tokens of `text`, ending in ``_EOF`` and some padding to look ahead into."""
        text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        if not text.endswith("\n"):
            text += "\n"
        out = Tokens(file, _NEVER_SOURCE.sub(" ", text))
        out.diagnostics += (_never_source(found, text, file) for found in _NEVER_SOURCE.finditer(text))
        return _Run(self, out).tokens()


class _Run:
    """The state of lexing one text."""

    def __init__(self, lexer: Lexer, out: Tokens):
        self.lexer = lexer
        self.out = out
        self.text = out.text
        self.pos = 0
        self.line = 1
        self.line_start = 0
        self.brackets: list[int] = []
        self.indents = [(0, 0)]
        self.fstrings: list[_FString] = []
        self.soft: list[int] = []

    def tokens(self) -> Tokens:
        """Lex to the end."""
        first = _FIRST_INDENT.match(self.text)
        if first:
            self.indent(first[1])
        self.loop()
        if self.fstrings:
            self.unterminated()
        if self.brackets:
            self.unclosed()
        if self.out.types and self.out.types[-1] not in LAYOUT:
            self.add("_NEWLINE", "", 0)
        for _ in self.indents[1:]:
            self.add("_DEDENT", "", 0)
        self.add("_EOF", "", 0)
        self.out.types += [END, END]
        self.tell_soft_keywords()
        return self.out

    def loop(self) -> None:
        """The hot loop: one round per token that Lark finds."""
        out, text = self.out, self.text
        literals: dict[str, str] = {name: sys.intern(value) for name, value in self.lexer.literals.items()}
        keywords = {word: word for word in literals.values() if word.isidentifier()}
        ignored = self.lexer.lark.ignore_types
        match, whole, end = self.lexer.lark.match, TextSlice.cast_from(text), len(text)
        types, texts = out.types, out.texts
        lines, columns, end_lines, end_columns = out.lines, out.columns, out.end_lines, out.end_columns
        special = self.special
        while self.pos < end:
            pos = self.pos
            if text[pos] == " ":
                self.pos = pos = pos + 1
            found = match(whole, pos)
            if found is None:
                self.unreadable(pos)
                continue
            value, name = found
            if name in ignored:
                self.pos = pos + len(value)
                if value[-1] == "\n":
                    self.line += 1
                    self.line_start = self.pos
                continue
            if name == "NAME":
                kind = keywords.get(value, "NAME")
                if kind == "NAME":
                    if not value.isascii():
                        value = self.name(value)
                    if value in _SOFT_KEYWORDS and (not types or types[-1] in _STATEMENT_STARTS):
                        self.soft.append(len(types))
                elif value == "with":
                    self.soft.append(len(types))
            else:
                kind = literals.get(name, name)
                handler = special.get(kind)
                if handler is not None:
                    handler(self, kind, value)
                    continue
            self.pos = end_pos = pos + len(found[0])
            types.append(kind)
            texts.append(value)
            lines.append(self.line)
            columns.append(pos - self.line_start)
            end_lines.append(self.line)
            end_columns.append(end_pos - self.line_start)

    def add(self, kind: str, value: str, length: int) -> None:
        """A token of `length` characters from here on, possibly over several lines."""
        out, start = self.out, self.pos
        out.types.append(kind)
        out.texts.append(value)
        out.lines.append(self.line)
        out.columns.append(start - self.line_start)
        newlines = self.text.count("\n", start, start + length)
        if newlines:
            self.line += newlines
            self.line_start = self.text.rindex("\n", start, start + length) + 1
        self.pos = start + length
        out.end_lines.append(self.line)
        out.end_columns.append(self.pos - self.line_start)

    def report(self, code: str, message: str, length: int, help: str, labels: tuple[Label, ...] = ()) -> None:
        """A diagnostic for the next `length` characters of this line."""
        span = self.here(length)
        self.out.diagnostics.append(Diagnostic(code, message, span, help=help, labels=labels))

    def here(self, length: int) -> Span:
        """The next `length` characters of this line."""
        column = self.pos - self.line_start + 1
        return Span(self.out.file, self.line, column, self.line, column + length)

    # --- Tokens that need more than adding ------------------------------------------------------------------

    def open_bracket(self, kind: str, value: str) -> None:
        """An opening bracket."""
        if len(self.brackets) == _MAX_BRACKETS:
            self.report(
                "NKI-L004",
                f"brackets are nested more than {_MAX_BRACKETS} deep",
                1,
                "Name the inner parts in statements of their own.",
            )
        self.brackets.append(len(self.out.types))
        self.add(kind, value, 1)

    def close_bracket(self, kind: str, value: str) -> None:
        """A closing bracket: of its own kind, or reported and taken for the kind that is open."""
        if kind == "}" and self.in_field():
            self.end_field()
            return
        if not self.brackets:
            self.report(
                "NKI-L003",
                f"`{kind}` closes nothing",
                1,
                f"Remove it, or open it with its `{_opener(kind)}`.",
            )
            self.pos += 1
            return
        opened = self.brackets.pop()
        opener = self.out.types[opened]
        if CLOSERS[opener] != kind:
            place = self.out.span(opened)
            label = Label(place, f"this `{opener}` is open")
            self.report(
                "NKI-L003",
                f"`{kind}` does not close the `{opener}` of line {place.line}",
                1,
                f"Write `{CLOSERS[opener]}`.",
                (label,),
            )
        self.add(CLOSERS[opener], value, 1)

    def newline(self, _kind: str, value: str) -> None:
        """The end of a line, and the blank lines and comments up to the next token."""
        after = self.pos + len(value)
        if self.brackets and not self.fstrings and _STATEMENT_WORD.match(self.text, after):
            self.unclosed()
        if self.brackets:
            self.skip(value)
            return
        if self.out.types and self.out.types[-1] not in LAYOUT:
            self.add("_NEWLINE", "\n", 0)
            self.out.end_columns[-1] += 1
        self.skip(value)
        if after < len(self.text):
            self.indent(value[value.rindex("\n") + 1 :])

    def skip(self, value: str) -> None:
        """Pass over text that holds at least one newline."""
        self.line += value.count("\n")
        self.line_start = self.pos + value.rindex("\n") + 1
        self.pos += len(value)

    def indent(self, blanks: str) -> None:
        """Compare the indentation of a new line with the open blocks."""
        blanks = blanks.rpartition("\f")[2]
        wide = len(blanks.expandtabs(_TAB))
        level = (wide, len(blanks))
        indents = self.indents
        if level == indents[-1]:
            return
        if wide > indents[-1][0] and len(blanks) > indents[-1][1]:
            indents.append(level)
            self.add("_INDENT", "", 0)
            return
        while len(indents) > 1 and indents[-2][0] >= wide:
            indents.pop()
            self.add("_DEDENT", "", 0)
        if level == indents[-1]:
            return
        if wide == indents[-1][0] or "\t" in blanks:
            message = "tabs and spaces are mixed so that the indentation depends on the width of a tab"
            self.report("NKI-L002", message, 1, "Indent with spaces only.")
        else:
            levels = ", ".join(str(columns) for columns, _ in indents[: -1 if len(indents) > 1 else None])
            self.report(
                "NKI-L002",
                f"this line is indented by {wide} columns, which matches no open block",
                1,
                f"Indent it like the statement it belongs with; the blocks around it are at {levels}"
                f" and {indents[-1][0]} columns.",
            )
        if len(indents) > 1:
            indents[-1] = level

    def long_string(self, _kind: str, value: str) -> None:
        """A string that may go over several lines."""
        self.add("STRING", value, len(value))

    def number(self, kind: str, value: str) -> None:
        """A number, which must not run into a word."""
        tail = _AFTER_NUMBER.match(self.text, self.pos + len(value))
        if tail:
            whole = value + tail[0]
            self.report(
                "NKI-L008", f"`{whole}` is not a number", len(whole), "A name does not begin with a digit."
            )
            self.add(kind, "0", len(whole))
        elif _LEADING_ZERO.fullmatch(value):
            self.report(
                "NKI-L008",
                f"`{value}` has leading zeros",
                len(value),
                f"Write `{value.lstrip('0_')}`, or `0o{value.lstrip('0_')}` if it is octal.",
            )
            self.add(kind, "0", len(value))
        else:
            self.add(kind, value, len(value))

    def name(self, value: str) -> str:
        """A name beyond ASCII in its normal form, as Python compares names."""
        normal = unicodedata.normalize("NFKC", value)
        if not normal.isidentifier():
            wrong = next((i for i in range(len(value)) if not f"{'a' * (i > 0)}{value[i]}".isidentifier()), 0)
            self.unreadable(self.pos + wrong)
        return normal

    # --- f-strings ------------------------------------------------------------------------------------------

    def start_fstring(self, kind: str, value: str) -> None:
        """The prefix and quote of an f-string."""
        quote = value.lstrip("fFrR")
        raw = len(value) - len(quote) == 2
        self.fstrings.append(_FString(len(self.out.types), quote, raw, len(self.brackets)))
        self.add(kind, value, len(value))
        self.fstring_text()

    def fstring_text(self) -> None:
        """Literal text of the innermost f-string or of its open format spec, and what ends it."""
        inner = self.fstrings[-1]
        pattern = _FORMAT_SPEC_TEXT[inner.quote] if inner.fields else _FSTRING_TEXT[inner.quote, inner.raw]
        found = pattern.match(self.text, self.pos)
        if found and found[0]:
            value = found[0] if inner.fields else found[0].replace("{{", "{").replace("}}", "}")
            self.add("FSTRING_RAW_TEXT" if inner.raw else "FSTRING_TEXT", value, len(found[0]))
        if self.text.startswith(inner.quote, self.pos):
            self.add("_FSTRING_END", inner.quote, len(inner.quote))
            self.fstrings.pop()
            del self.brackets[inner.brackets :]
            return
        match self.text[self.pos : self.pos + 1]:
            case "{":
                self.brackets.append(len(self.out.types))
                inner.fields.append(len(self.brackets))
                self.add("{", "{", 1)
            case "}" if inner.fields:
                self.end_field()
            case "}":
                self.report(
                    "NKI-L004", "a single `}` in an f-string", 1, "Write `}}` for the character itself."
                )
                self.pos += 1
                self.fstring_text()
            case _:
                self.unterminated()

    def in_field(self) -> bool:
        """Whether what comes is part of a replacement field and in no bracket inside it."""
        return bool(self.fstrings) and len(self.brackets) == self.fstrings[-1].fields[-1]

    def end_field(self) -> None:
        """The brace that closes a replacement field."""
        self.brackets.pop()
        self.fstrings[-1].fields.pop()
        self.add("}", "}", 1)
        self.fstring_text()

    def colon(self, kind: str, value: str) -> None:
        """A colon, or an operator that begins with one: in a replacement field it begins the format spec."""
        if self.in_field():
            self.add(":", ":", 1)
            self.fstring_text()
        else:
            self.add(kind, value, len(value))

    special: ClassVar[dict[str, Callable[[_Run, str, str], None]]] = {
        "(": open_bracket,
        "[": open_bracket,
        "{": open_bracket,
        ")": close_bracket,
        "]": close_bracket,
        "}": close_bracket,
        ":": colon,
        ":=": colon,
        "_NEWLINE": newline,
        "STRING": long_string,
        "LONG_STRING": long_string,
        "NUMBER": number,
        "FSTRING_START": start_fstring,
    }

    # --- Mistakes -------------------------------------------------------------------------------------------

    def unreadable(self, pos: int) -> None:
        """A character that no token begins with."""
        self.pos = pos
        character = self.text[pos]
        if character in "'\"":
            self.unterminated()
            return
        if character == "\\":
            message, help = (
                "a backslash is not at the end of its line",
                "Remove what follows it, or the backslash.",
            )
        else:
            shown = f"`{character}`" if character.isprintable() else f"U+{ord(character):04X}"
            message, help = f"{shown} has no meaning here", "Remove it, or write it inside a string."
        self.report("NKI-L001", message, 1, help)
        self.pos += 1

    def unterminated(self) -> None:
        """A string without its closing quote: it ends here with all inside it; go on at the next line."""
        if self.fstrings:
            quote, span = self.fstrings[-1].quote, self.out.span(self.fstrings[-1].start)
            del self.brackets[self.fstrings[0].brackets :]
            self.fstrings.clear()
        else:
            quote = self.text[self.pos]
            quote = quote * 3 if self.text.startswith(quote * 3, self.pos) else quote
            span = self.here(len(quote))
        help = f"Close it with `{quote}`" + (
            ", or use three quotes for several lines." if len(quote) == 1 else "."
        )
        message = f"the string that begins with `{quote}` is not closed"
        self.out.diagnostics.append(Diagnostic("NKI-L007", message, span, help=help))
        end = self.text.find("\n", self.pos) if len(quote) == 1 else len(self.text) - 1
        self.add("STRING", "''", max(end - self.pos, 0))

    def unclosed(self) -> None:
        """Brackets that are still open where a statement begins: report the innermost, close all."""
        opened = self.out.span(self.brackets[-1])
        opener = self.out.types[self.brackets[-1]]
        self.out.diagnostics.append(
            Diagnostic(
                "NKI-L003", f"`{opener}` is never closed", opened, help=f"Close it with `{CLOSERS[opener]}`."
            )
        )
        while self.brackets:
            closer = CLOSERS[self.out.types[self.brackets.pop()]]
            self.add(closer, closer, 0)

    # --- Soft keywords --------------------------------------------------------------------------------------

    def tell_soft_keywords(self) -> None:
        """Give `match`, `case`, `type` and the parenthesis of a `with` types of their own where special."""
        types = self.out.types
        for i in self.soft:
            following = types[i + 1]
            match self.out.texts[i]:
                case "type" if following == "NAME":
                    types[i] = "_TYPE"
                case "with" if following == "(" and self.encloses_items(i + 1):
                    types[i + 1] = "_WITH_LPAR"
                case "match":
                    self.tell_match(i)

    def tell_match(self, i: int) -> None:
        """`match` is a keyword if its line ends in a colon and a block that begins with `case` follows."""
        types, texts = self.out.types, self.out.texts
        end = types.index("_NEWLINE", i)
        if types[end - 1 : end + 3] != [":", "_NEWLINE", "_INDENT", "NAME"] or texts[end + 2] != "case":
            return
        types[i] = "_MATCH"
        depth = 0
        for j in range(end + 1, len(texts)):
            depth += {"_INDENT": 1, "_DEDENT": -1}.get(types[j], 0)
            if depth == 0:
                return
            if depth == 1 and texts[j] == "case" and types[j - 1] in LAYOUT:
                types[j] = "_CASE"

    def encloses_items(self, i: int) -> bool:
        """Whether the parenthesis at `i` holds the items of a `with` and is not part of an expression."""
        types = self.out.types
        depth = 0
        for j in range(i, len(types)):
            kind = types[j]
            if kind in CLOSERS:
                depth += 1
            elif kind in CLOSERS.values():
                depth -= 1
                if depth == 0:
                    return types[j + 1] == ":" and j > i + 1
            elif depth == 1 and (
                kind in (":=", "for", "yield") or (kind == "*" and types[j - 1] in ("(", ","))
            ):
                return False
        return False


def _never_source(found: re.Match[str], text: str, file: str) -> Diagnostic:
    """NKI-L001 for a character that no source text holds, not even inside a string."""
    code = ord(found[0])
    what = "a NUL character" if code == 0 else f"U+{code:04X}, half of a surrogate pair"
    line = text.count("\n", 0, found.start()) + 1
    column = found.start() - text.rfind("\n", 0, found.start())
    return Diagnostic(
        "NKI-L001",
        f"the text holds {what}, which Python does not read",
        Span(file, line, column, line, column + 1),
        help="remove it; in a string, write it as an escape",
    )


def _opener(closer: str) -> str:
    return next(opener for opener, other in CLOSERS.items() if other == closer)
