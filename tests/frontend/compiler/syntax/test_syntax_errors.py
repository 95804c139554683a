"""What mistakes in the text become: their code, their place, their words; and that nothing ever crashes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import read, sample

from nki.compiler.syntax import tree
from nki.compiler.syntax.explain import EXAMPLES
from nki.compiler.syntax.node import walk
from nki.compiler.syntax.parse import parse
from nki.compiler.syntax.parser import language


def found(text: str) -> list[tuple[str, int, int]]:
    return [(d.code, d.span.line, d.span.column) for d in parse(text, "x.py").diagnostics if d.span]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = $", [("NKI-L001", 1, 5)]),
        ("a = “b”", [("NKI-L001", 1, 5)]),
        ("a\u00a0= 1", [("NKI-L001", 1, 2)]),
        ("a = \\ b", [("NKI-L001", 1, 5)]),
        ("if a:\n        b\n    c\n", [("NKI-L002", 3, 5)]),
        ("if a:\n\tb\n        c\n", [("NKI-L002", 3, 9)]),
        ("a = )", [("NKI-L003", 1, 5)]),
        ("a = (1]", [("NKI-L003", 1, 7)]),
        ("f(a,\n  b\ndef g():\n    c d\n", [("NKI-L003", 1, 2), ("NKI-L004", 4, 7)]),
        ("a = [1,", [("NKI-L003", 1, 5)]),
        ("a = 'b\nc d\n", [("NKI-L007", 1, 5), ("NKI-L004", 2, 3)]),
        ("a = f'{b'\nc d\n", [("NKI-L007", 1, 5), ("NKI-L004", 2, 3)]),
        ("a = '''b\n", [("NKI-L007", 1, 5)]),
        ("f'{a}'\nb = f'{c", [("NKI-L007", 2, 5)]),
        ("a = (b\n     @c)\nd e", [("NKI-L004", 3, 3)]),
        ("f'}'", [("NKI-L004", 1, 3)]),
        ("09 + 1_ + 0x", [("NKI-L008", 1, 1), ("NKI-L008", 1, 6), ("NKI-L008", 1, 11)]),
        (r"'\x1' '\N{no such}' b'\xg'", [("NKI-L008", 1, 1), ("NKI-L008", 1, 7), ("NKI-L008", 1, 21)]),
        ("b'ä'", [("NKI-L008", 1, 1)]),
        ("f() = 1", [("NKI-L006", 1, 1)]),
        ("a, None = 1", [("NKI-L006", 1, 4)]),
        ("(a, b) += 1", [("NKI-L006", 1, 1)]),
        ("for f() in x: pass", [("NKI-L006", 1, 5)]),
        ("del a + b, 1", [("NKI-L006", 1, 5), ("NKI-L006", 1, 12)]),
        ("with a as 1: pass", [("NKI-L006", 1, 11)]),
        ("def f(a=1, b): pass", [("NKI-L004", 1, 12)]),
        ("def f(*): pass", [("NKI-L004", 1, 7)]),
        ("def f(**a, b): pass", [("NKI-L004", 1, 12)]),
        ("def f(*a, *b, /): pass", [("NKI-L004", 1, 11), ("NKI-L004", 1, 15)]),
        ("f(a=1, b)", [("NKI-L004", 1, 8)]),
        ("f(a for a in b, c)", [("NKI-L004", 1, 3)]),
        ("{1: 2, 3}", [("NKI-L004", 1, 8)]),
        ("(*a)", [("NKI-L004", 1, 2)]),
        ("[*a for a in b]", [("NKI-L004", 1, 2)]),
        ("'a' b'b'", [("NKI-L004", 1, 1)]),
        ("f'{a!x}'", [("NKI-L004", 1, 5)]),
        ("try:\n    a\nb", [("NKI-L004", 1, 1)]),
        ("@a\nfor b in c: pass", [("NKI-L004", 2, 1)]),
        ("if a:\n", [("NKI-L004", 1, 6)]),
        ("a.if = 1", [("NKI-L004", 1, 3)]),
    ],
)
def test_code_and_place(text: str, expected: list[tuple[str, int, int]]) -> None:
    assert found(text) == expected


def test_all_mistakes_of_a_file_in_one_run() -> None:
    text = """\
def f(a)
    b = = 1
    if a = 1:
        c d
    elif e
        return 1 +
    else:
        f(x y)
    good = 1

class A
    def g(self):
        1 = 2
        good = 2

    while = 3
good = 3
"""
    assert [(line, column) for _, line, column in found(text)] == [
        (1, 9),
        (2, 9),
        (3, 10),
        (4, 11),
        (5, 11),
        (6, 19),
        (8, 13),
        (11, 8),
        (13, 9),
        (16, 11),
    ]


def test_statements_without_mistakes_stay_in_the_tree() -> None:
    result = parse("a = 1\nb = = 2\nif c:\n    d d\n    e\nf\n", "x.py")
    assert result.tree is not None
    assert [node.id for node in walk(result.tree) if isinstance(node, tree.Name)] == ["a", "c", "e", "f"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.message)
def test_examples(example: object) -> None:
    for text in example.texts:  # type: ignore[attr-defined]
        first = parse(text, "x.py").diagnostics[0]
        assert first.help == example.help, text  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("for x y:\n    pass", "expected `in`, found `y`"),
        ("a = b if c", "expected `else`, found the end of the line"),
        ("f(1, =)", "expected an argument, found `=`"),
        ("x = f(1 +)", "expected an expression, found `)`"),
        ("import", "expected a name, found the end of the line"),
        ("a.class", "`class` is a keyword and cannot be a name"),
        ("return b y", "`b` and `y` stand side by side"),
    ],
)
def test_words(text: str, message: str) -> None:
    first = parse(text, "x.py").diagnostics[0]
    assert first.message.startswith(message)
    assert first.help


@pytest.mark.parametrize(
    "text", ["(" * 5000, "-" * 50000 + "a", "if a:\n" + "(" * 300 + ")" * 300, "a" + ".b" * 50000]
)
def test_depth(text: str) -> None:
    for diagnostic in parse(text, "x.py").diagnostics:
        assert diagnostic.code in ("NKI-L003", "NKI-L004")


def test_as_many_brackets_as_python_takes() -> None:
    assert parse("(" * 199 + "a" + ")" * 199, "x.py").diagnostics == ()


FILES = [text for text in map(read, sample(12)) if text is not None and len(text) < 60_000]
WORDS = [
    *sorted(language().lexer.literals.values()),
    "name",
    "1",
    "'",
    '"""',
    "f'",
    "{",
    "\n",
    "\n    ",
    "\t",
    "\\",
    "é",
    "$",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_files_never_crash(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(FILES))
    start = data.draw(st.integers(0, len(text)))
    text = text[start : start + 3000]
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 5))
        text = text[:at] + data.draw(st.sampled_from(WORDS)) + text[at + cut :]
    result = parse(text, "x.py")
    lines = text.count("\n") + 2
    for diagnostic in result.diagnostics:
        assert diagnostic.span is not None and diagnostic.help
        assert 1 <= diagnostic.span.line <= diagnostic.span.end_line <= lines
        assert diagnostic.span.column >= 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
def test_heaps_of_tokens_never_crash(text: str) -> None:
    parse(text, "x.py")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_never_crashes(text: str) -> None:
    parse(text, "x.py")
