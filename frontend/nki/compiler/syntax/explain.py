"""What to say about a syntax error: by example where the mistake is a frequent one, else what was expected.

An example is a malformed text with what to say about it. Parsing it shows at which place of the grammar, and
at which token, such a mistake surfaces; a mistake that surfaces there gets the same words. So the table below
never names states or rules, and stays right when the grammar changes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from nki.compiler.syntax.build import Builder
from nki.compiler.syntax.generate import Mismatch, Parser
from nki.compiler.syntax.lexer import LAYOUT, Lexer, Tokens
from nki.compiler.syntax.llk import Grammar, RuleUse
from nki_isa.diagnostics import Diagnostic, Span
from nki_sim.process import lazy


class Alike(enum.Enum):
    """What a mistake shares with an example to be like it, besides its place in the grammar."""

    found = "the type of the token found"
    anything = "nothing else"
    previous = "the text of the token before"


@dataclass(frozen=True, slots=True)
class MalformedExample:
    """Malformed texts and what to say about them, with `{found}` and `{previous}` for the user's tokens."""

    texts: tuple[str, ...]
    message: str
    help: str
    alike: Alike = Alike.found


EXAMPLES = (
    MalformedExample(
        (
            "if x\n    pass\n",
            "if x:\n    pass\nelif y\n    pass\n",
            "if x:\n    pass\nelse\n    pass\n",
            "while x\n    pass\n",
            "while x:\n    pass\nelse\n    pass\n",
            "for x in y\n    pass\n",
            "for x in y:\n    pass\nelse\n    pass\n",
            "with x\n    pass\n",
            "def f()\n    pass\n",
            "def f() -> x\n    pass\n",
            "class A\n    pass\n",
            "class A(B)\n    pass\n",
            "try\n    pass\n",
            "try:\n    pass\nexcept\n    pass\n",
            "try:\n    pass\nexcept x\n    pass\n",
            "try:\n    pass\nexcept:\n    pass\nelse\n    pass\n",
            "try:\n    pass\nfinally\n    pass\n",
        ),
        "`:` is missing at the end of the line",
        "Write `:` before the indented block.",
    ),
    MalformedExample(
        (
            "if x = 1:\n    pass\n",
            "if x:\n    pass\nelif x = 1:\n    pass\n",
            "while x = 1:\n    pass\n",
            "assert x = 1\n",
        ),
        "`=` assigns and cannot be used in a condition",
        "Write `==` to compare.",
    ),
    MalformedExample(
        ("f(x.y = 1)\n", "f(1 = 2)\n"),
        "what stands before `=` in a call is not the name of a parameter",
        "Write a plain name before `=`, or `==` to compare.",
    ),
    MalformedExample(
        ("x = 1\n    y = 2\n",),
        "this line is indented, but no line before it opens a block",
        "Indent it like the line before.",
    ),
    MalformedExample(
        ("if x:\ny = 1\n", "def f():\nx = 1\n"),
        "an indented block is missing after the line that ends in `:`",
        "Indent the lines that belong to it, or write `pass`.",
        Alike.anything,
    ),
    MalformedExample(("print x\n",), "`print` is a function", "Write `print(...)`.", Alike.previous),
    MalformedExample(
        (
            *tuple(
                before + second + after + "\n"
                for before, after in (
                    ("a ", ""),
                    ("f(a ", ")"),
                    ("f(x=a ", ")"),
                    ("(a ", ")"),
                    ("[a ", "]"),
                    ("x[a ", "]"),
                )
                for second in ("b", "1", "'b'", "f'b'", "True")
            ),
            "{a b}\n",
            "{a 1}\n",
            "{a 'b'}\n",
        ),
        "`{previous}` and `{found}` stand side by side",
        "Write an operator or a comma between them.",
    ),
    MalformedExample(
        ("if x:\n    pass\nelse if y:\n    pass\n",), "`else if` is two statements", "Write `elif`."
    ),
    MalformedExample(
        ("else:\n    pass\n", "elif x:\n    pass\n", "except x:\n    pass\n", "finally:\n    pass\n"),
        "`{found}` continues no statement at this indentation",
        "Indent it like the statement it belongs to, and put no other statement between them.",
    ),
    MalformedExample(("x = a && b\n",), "`&&` is not an operator", "Write `and`."),
    MalformedExample(("x = a || b\n",), "`||` is not an operator", "Write `or`."),
    MalformedExample(("!x\n", "y = !x\n", "if !x:\n    pass\n"), "`!` is not an operator", "Write `not`."),
    MalformedExample(("x = a <> b\n",), "`<>` is not an operator", "Write `!=`."),
    MalformedExample(
        ("def f:\n    pass\n",),
        "the parameters are missing",
        "Write `()` after the name, with the parameters inside.",
    ),
    MalformedExample(
        ("try:\n    pass\nexcept A, e:\n    pass\n",),
        "`except` takes one expression",
        "Write `except (A, B):` for several classes, `except A as e:` to name the exception.",
    ),
    MalformedExample(("raise A, b\n",), "`raise` takes one exception", "Write `raise A(b)`."),
    MalformedExample(
        ("@d\nx = 1\n",),
        "a decorator is followed by neither a function nor a class",
        "Put it on the line before `def` or `class`.",
        Alike.anything,
    ),
    MalformedExample(
        ("f'{}'\n",), "a replacement field of an f-string is empty", "Write an expression in it, or `{{}}`."
    ),
)

_WORDS = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
    "_NEWLINE": "the end of the line",
    "_INDENT": "an indented block",
    "_DEDENT": "the end of the block",
    "_EOF": "the end of the file",
}
# Rules whose first tokens are told in one word, the widest first.
_GROUPS = {
    "stmt": "a statement",
    "argument": "an argument",
    "star_expressions": "an expression",
    "test": "an expression",
    "target": "an expression",
    "bit_or": "an expression",
    "power": "an expression",
    "atom": "an expression",
    "pattern_item": "a pattern",
    "closed_pattern": "a pattern",
    "aug_op": "an assignment",
    "compare_op": "an operator",
}

_Key = tuple[int, "str | None", "str | None"]


class _Surfaced(Exception):
    """The first mismatch of an example."""

    def __init__(self, mismatch: Mismatch):
        super().__init__(mismatch)
        self.mismatch = mismatch


@dataclass
class Explainer:
    """Turns mismatches into diagnostics; the examples are parsed when the first one comes."""

    grammar: Grammar
    lexer: Lexer
    parser: Parser

    def diagnostic(self, tokens: Tokens, mismatch: Mismatch) -> Diagnostic:
        """What to say about `mismatch`."""
        found, previous = _shown(tokens, mismatch.position), _shown(tokens, mismatch.position - 1)
        span = _span(tokens, mismatch.position)
        example = next((self.examples[key] for key in _keys(tokens, mismatch) if key in self.examples), None)
        if example is not None:
            message = example.message.format(found=found.strip("`"), previous=previous.strip("`"))
            return Diagnostic("NKI-L004", message, span, help=example.help)
        expected = self.parser.sites[mismatch.site].expected
        if "NAME" in expected and len(expected) < 3 and found.strip("`").isidentifier():
            help = f"Choose another name, such as `{found.strip('`')}_`."
            return Diagnostic("NKI-L004", f"{found} is a keyword and cannot be a name", span, help=help)
        listed = self._listed(expected)
        help = (
            f"Write {listed} here."
            if tokens.types[mismatch.position] in LAYOUT
            else f"Replace or remove {found}."
        )
        return Diagnostic("NKI-L004", f"expected {listed}, found {found}", span, help=help)

    @lazy
    def examples(self) -> dict[_Key, MalformedExample]:
        """The table by where its mistakes surface."""
        table: dict[_Key, MalformedExample] = {}
        for example in EXAMPLES:
            for text in example.texts:
                tokens = self.lexer.tokens(text, "<example>")
                exact, by_type, by_place = _keys(tokens, self._surface(tokens, text))
                key = {Alike.previous: exact, Alike.found: by_type, Alike.anything: by_place}[example.alike]
                if table.setdefault(key, example) is not example:
                    raise LookupError(f"{text!r} surfaces like an example of {table[key].message!r}")
        return table

    def _surface(self, tokens: Tokens, text: str) -> Mismatch:
        """The first mismatch in the text of an example."""

        def stop(_start: int, mismatch: Mismatch) -> Any:
            raise _Surfaced(mismatch)

        try:
            self.parser.start(tokens.types, tokens.texts, Builder(tokens), stop)("file_input", 0)
        except _Surfaced as surfaced:
            return surfaced.mismatch
        raise LookupError(f"the example {text!r} is not a syntax error")

    def _listed(self, expected: frozenset[str]) -> str:
        """A set of tokens in words."""
        words = []
        for rule, word in _GROUPS.items():
            group = self.grammar.first(RuleUse(rule))
            if len(group) > 2 and group <= expected:
                words.append(word)
                expected -= group
        words += sorted(_WORDS.get(token, f"`{token}`") for token in expected)
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _keys(tokens: Tokens, mismatch: Mismatch) -> tuple[_Key, _Key, _Key]:
    """How examples are looked up, the closest likeness first."""
    position, site = mismatch.position, mismatch.site
    previous = tokens.texts[position - 1] if position else None
    return (site, None, previous), (site, tokens.types[position], None), (site, None, None)


def _shown(tokens: Tokens, position: int) -> str:
    """A token in words."""
    kind = tokens.types[position]
    return _WORDS[kind] if kind in LAYOUT else f"`{tokens.texts[position]}`"


def _span(tokens: Tokens, position: int) -> Span:
    """The place of a token; for layout, the end of the line or the first token of the block."""
    if tokens.types[position] in ("_INDENT", "_DEDENT"):
        following = position
        while tokens.types[following] in ("_INDENT", "_DEDENT"):
            following += 1
        if tokens.types[following] != "_EOF":
            return tokens.span(following)
    if tokens.types[position] not in LAYOUT:
        return tokens.span(position)
    while position and tokens.types[position] in LAYOUT:
        position -= 1
    line, column = tokens.end_lines[position], tokens.end_columns[position] + 1
    return Span(tokens.file, line, column, line, column + 1)
