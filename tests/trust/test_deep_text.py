"""Deep and long text is checked and run like any other, or refused as NKI-L004: never a RecursionError."""

import importlib.util
import sys

import numpy as np
import pytest

import nki
from nki.compiler.checker.check import check_text
from nki.compiler.syntax.parse import parse
from nki_isa.diagnostics import NkiError

HEAD = "import nki\nimport nki.isa as nisa\nimport nki.language as nl\n\n\n@nki.jit\ndef k(x):\n"


TAIL = "    out = nl.ndarray(x.shape, x.dtype, nl.shared_hbm)\n    nisa.dma_copy(out, x)\n    return out\n"


def kernel(body):
    return HEAD + body + TAIL


def arms(n):
    more = "".join(f"    elif x.shape[0] == {i}:\n        n = {i}\n" for i in range(2, n))
    return f"    n = 0\n    if x.shape[0] == 1:\n        n = 1\n{more}"


def nested(word, n):
    return "".join(f"{' ' * (4 + i)}{word}\n" for i in range(n)) + " " * (4 + n) + "pass\n"


SHAPES = {
    "sum": lambda n: f"    n = {'1 + ' * n}1\n",
    "sum of names": lambda n: f"    m = 1\n    n = {'m + ' * n}m\n",
    "concatenation": lambda n: "    n = (\n" + "        'a' +\n" * n + "        'b')\n",
    "and": lambda n: f"    n = {'True and ' * n}True\n",
    "comparison": lambda n: f"    n = {'1 < ' * n}2\n",
    "power": lambda n: f"    n = {'1 ** ' * n}1\n",
    "minus": lambda n: f"    n = {'-' * n}1\n",
    "not": lambda n: f"    n = {'not ' * n}1\n",
    "brackets": lambda n: f"    n = {'(' * n}1{')' * n}\n",
    "lists": lambda n: f"    n = {'[' * n}1{']' * n}\n",
    "tuples": lambda n: f"    n = {'(' * n}1{',)' * n}\n",
    "attributes": lambda n: f"    if False:\n        n = x{'.shape' * n}\n",
    "indices": lambda n: f"    if False:\n        n = x{'[0]' * n}\n",
    "calls": lambda n: f"    if False:\n        n = min{'(0)' * n}\n",
    "nested calls": lambda n: f"    n = {'abs(' * n}1{')' * n}\n",
    "conditionals": lambda n: f"    n = {'1 if x.shape[0] == 3 else ' * n}2\n",
    "lambdas": lambda n: f"    n = {'lambda: ' * n}1\n",
    "f-strings": lambda n: "    n = " + "f'{" * min(n, 1) + "1" + "}'" * min(n, 1) + "\n",
    "string parts": lambda n: "    n = " + "'a' " * n + "\n",
    "elif": arms,
    "ifs": lambda n: nested("if True:", n),
    "fors": lambda n: nested("for i in range(1):", n),
    "functions": lambda n: nested("def f():", n),
    "statements": lambda n: "    n = 1\n" * n,
    "targets": lambda n: f"    {'n = ' * n}1\n",
    "subscripted targets": lambda n: f"    n = [[0]]\n    if False:\n        n{'[0]' * n} = 1\n",
}
SIZES = (90, 5000, pytest.param(700, marks=pytest.mark.slow), pytest.param(1500, marks=pytest.mark.slow))


@pytest.fixture
def run(tmp_path):
    """Runs a kernel's text as a module; the codes it is refused with, or nothing."""

    def run(text):
        path = tmp_path / "deep.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("deep_text", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["deep_text"] = module
        try:
            spec.loader.exec_module(module)
        except (SyntaxError, RecursionError, MemoryError):
            return None  # Python itself does not read it
        data = np.ones((4, 8), np.float32)
        try:
            assert np.array_equal(module.k(data), data)
        except NkiError as refused:
            return {d.code for d in refused.diagnostics}
        finally:
            del sys.modules["deep_text"]
        return set()

    return run


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_deep_text_is_checked_or_refused_by_name(shape, size, tmp_path, run):
    text = kernel(SHAPES[shape](size))
    checked = check_text(text, str(tmp_path / "deep.py"), "library")
    assert {d.code for d in checked if d.severity.value == "error"} <= {"NKI-L004", "NKI-L005", "NKI-L002"}, (
        checked
    )
    ran = run(text)
    if ran is not None:
        assert ("NKI-L004" in ran) == any(d.code == "NKI-L004" for d in checked)


def test_the_refusal_names_the_statement_and_the_limit(tmp_path):
    text = kernel(SHAPES["sum"](5000))
    (found,) = check_text(text, str(tmp_path / "deep.py"))
    assert (found.code, found.span.line) == ("NKI-L004", 8)
    assert "1000 levels" in found.message and "statements of their own" in found.help


def test_the_remedies_are_accepted(tmp_path):
    parts = "".join(f"    n = n + {'1 + ' * 500}1\n" for _ in range(10))
    assert check_text(kernel(f"    n = 0\n{parts}"), str(tmp_path / "deep.py"), "library") == []


@pytest.mark.parametrize("character, name", [("\0", "NUL"), ("\ud800", "U+D800"), ("\udcff", "U+DCFF")])
@pytest.mark.parametrize("place", ["n = 1{} + 1", "n = 'a{}b'", "n = 1  # a{}b", "{}n = 1", "n{} = 1"])
def test_characters_that_no_source_holds_are_refused_by_name(character, name, place):
    found = parse(f"m = 1\n{place.format(character)}\n", "<text>").diagnostics
    first = found[0]
    assert first.code == "NKI-L001" and name in first.message
    assert (first.span.line, first.span.column) == (2, 1 + place.index("{"))


def test_a_byte_order_mark_is_read_at_the_start_only():
    assert parse("\ufeffn = 1\n", "<text>").diagnostics == ()
    assert parse("n = '\ufeff'  # \ufeff\n", "<text>").diagnostics == ()
    for text in ("\ufeff\ufeffn = 1\n", "n = 1\n\ufeffm = 2\n", "n = 1 + \ufeff2\n"):
        assert {d.code for d in parse(text, "<text>").diagnostics} == {"NKI-L001"}
        with pytest.raises(SyntaxError):
            compile(text, "<text>", "exec")


def test_arguments_nested_without_end_are_refused_by_name():
    @nki.jit
    def k(x, parts):
        return x

    parts = []
    for _ in range(100_000):
        parts = [parts]
    with pytest.raises(NkiError) as refused:
        k(np.ones((4, 4), np.float32), parts)
    assert [d.code for d in refused.value.diagnostics] == ["NKI-L024"]
