"""What a user is told when meta-code fails: the code, the words, their line, and the calls that led there."""

from __future__ import annotations

import bdb
import sys
from typing import Any

import numpy as np
import pytest
from refusing import refused

import nki
import nki.isa as nisa
import nki.language as nl
from nki.compiler import specialize
from nki.compiler.checker.check import Checked
from nki.compiler.language import names
from nki_isa.diagnostics import Diagnostic, NkiError, NkiInternalError

A = np.ones((4, 8), np.float32)


def told(diagnostic: Diagnostic) -> str:
    """The whole of a diagnostic as text, lines counted from the file's functions."""

    def line(number: int) -> str:
        return _SOURCE[number - 1].strip()

    parts = [f"{diagnostic.code} {diagnostic.message}"]
    if diagnostic.span is not None:
        parts.append(
            f"  at `{line(diagnostic.span.line)}`, "
            f"columns {diagnostic.span.column}-{diagnostic.span.end_column}"
        )
    parts += [f"  through {frame.function}: `{line(frame.span.line)}`" for frame in diagnostic.stack]
    parts += [f"  note: {note}" for note in diagnostic.notes]
    if diagnostic.help:
        parts.append(f"  help: {diagnostic.help}")
    return "\n".join(parts)


with open(__file__, encoding="utf-8") as _file:
    _SOURCE = _file.read().splitlines()


# --- the user's own mistakes


def inner(x, what):
    tile = nl.ndarray((4, 8), nl.float32, buffer=nl.sbuf)
    if what == "zero division":
        return 1 // (x.shape[0] - 4)
    if what == "key":
        return {"a": 1}["b"]
    if what == "index":
        return [1, 2][2]
    if what == "type":
        return "a" + 1
    if what == "attribute":
        return x.shapes
    if what == "attribute of None":
        return helper().name
    if what == "view":
        return x.reshape((5, 5))
    if what == "slice":
        return tile[0:5, :]
    if what == "language":
        return nl.ndarray((0, 4), nl.float32)
    if what == "instruction":
        return nisa.tensor_copy(tile)
    if what == "calls":
        return helper(1)
    if what == "operator":
        return x + tile
    if what == "contents":
        return 1 if int(x) else 2
    if what == "unpack":
        a, b = (1, 2, 3)
        return a + b
    if what == "unhashable":
        return {"a": 1}[[1]]
    if what == "sorting":
        return sorted([1, "a"])
    if what == "value":
        return int("four")
    if what == "own":
        return Own(5)


def helper():
    return None


class Own(nl.NKIObject):
    def __init__(self, x):
        self.check(x)

    def check(self, x):
        assert x < 3, f"x is {x}, not below 3: 100%\n  see the manual"


def middle(x, what):
    for _ in range(1):
        result = inner(x, what)
    return result


@nki.jit
def fails(x, what):
    return middle(x, what)


EXPECTED = {
    "zero division": (
        "NKI-L021 ZeroDivisionError: integer division or modulo by zero",
        "return 1 // (x.shape[0] - 4)",
    ),
    "key": ("NKI-L021 KeyError: 'b'", 'return {"a": 1}["b"]'),
    "index": ("NKI-L021 IndexError: list index out of range", "return [1, 2][2]"),
    "type": ('NKI-L021 TypeError: can only concatenate str (not "int") to str', 'return "a" + 1'),
    "attribute": ("NKI-L021 AttributeError: 'NkiTensor' object has no attribute 'shapes'", "return x.shapes"),
    "attribute of None": (
        "NKI-L021 AttributeError: 'NoneType' object has no attribute 'name'",
        "return helper().name",
    ),
    "view": ("NKI-V018 ", "return x.reshape((5, 5))"),
    "slice": ("NKI-V010 ", "return tile[0:5, :]"),
    "language": ("NKI-V120 ", "return nl.ndarray((0, 4), nl.float32)"),
    "operator": ("NKI-V030 ", "return x + tile"),
    "contents": ("NKI-V031 ", "return 1 if int(x) else 2"),
    "unpack": ("NKI-L021 ValueError: too many values to unpack (expected 2", "a, b = (1, 2, 3)"),
    "unhashable": ("NKI-L021 TypeError: unhashable type: 'list'", 'return {"a": 1}[[1]]'),
    "sorting": (
        "NKI-L021 TypeError: '<' not supported between instances of 'str' and 'int'",
        'return sorted([1, "a"])',
    ),
    "value": ("NKI-L021 ValueError: invalid literal for int() with base 10: 'four'", 'return int("four")'),
}


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets meta-code reach specialization that the checks would refuse."""
    module = sys.modules["nki.compiler.specializer.specialize"]  # the function of that name hides it
    monkeypatch.setattr(module, "require", lambda *arguments: Checked([], False))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("what", EXPECTED)
def test_errors_of_meta_code(what: str) -> None:
    (found,) = refused(fails, A, what)
    message, line = EXPECTED[what]
    text = told(found).splitlines()
    assert text[0].startswith(message)
    assert text[1].startswith(f"  at `{line}`")
    assert text[2:5] == [
        "  through fails: `return middle(x, what)`",
        "  through middle: `result = inner(x, what)`",
        f"  through inner: `{line}`",
    ]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("what", "name"),
    [("instruction", "tensor_copy: missing required argument src"), ("calls", "helper() takes 0")],
)
def test_wrong_calls_found_late(what: str, name: str) -> None:
    (found,) = refused(fails, A, what)
    assert found.code in ("NKI-L012", "NKI-L021") and name in found.message
    assert [frame.function for frame in found.stack] == ["fails", "middle", "inner"]


@pytest.mark.usefixtures("unchecked")
def test_whole_text_of_an_error() -> None:
    (found,) = refused(fails, A, "own")
    assert (
        told(found)
        == """\
NKI-L020 x is 5, not below 3: 100%
  see the manual
  at `assert x < 3, f"x is {x}, not below 3: 100%\\n  see the manual"`, columns 16-21
  through fails: `return middle(x, what)`
  through middle: `result = inner(x, what)`
  through inner: `return Own(5)`
  through Own.__init__: `self.check(x)`
  through Own.check: `assert x < 3, f"x is {x}, not below 3: 100%\\n  see the manual"`"""
    )


def test_the_text_of_an_assertion_reaches_the_caller() -> None:
    text = "[NCC_INKI016] Kernel validation exception: H must be a multiple of 128, got 100"

    @nki.jit
    def kernel(x):
        assert x.shape[0] == 100, text

    with pytest.raises(NkiError) as found:
        kernel(A)
    assert found.value.diagnostics[0].message == text and text in str(found.value)
    assert isinstance(found.value.__cause__, AssertionError)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("one line", "`x.shape[0] == 3 and True` is false for these shapes and values"),
        ("two lines", "the condition is false for these shapes and values"),
    ],
)
def test_assertions_without_a_text_show_their_condition(kernel: str, message: str) -> None:
    def asserts(x, lines):
        if lines == "one line":
            assert x.shape[0] == 3 and True
        assert (
            x.shape[0] == 3
            or x.shape[0] == 5
        )  # fmt: skip

    (found,) = refused(asserts, A, kernel)
    assert (found.code, found.message) == ("NKI-L020", message)


def forever(n):
    return once_more(n + 1)


def once_more(n):
    return forever(n)


def test_recursion_without_end() -> None:
    def kernel(x):
        return forever(0)

    (found,) = refused(kernel, A)
    assert (found.code, found.message) == ("NKI-L021", "the kernel's functions call each other without end")
    assert (
        len(found.stack) == 12
        and found.stack[0].function.endswith("kernel")
        and found.stack[1].function == "forever"
    )
    assert found.notes[-1].endswith("calls between them are left out")


def test_constraint_errors_come_with_the_error_that_ends_the_kernel() -> None:
    def kernel(x):
        tile = nl.ndarray((4, 8), nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(dst=tile, src=nl.ndarray((4, 9), nl.float32, buffer=nl.sbuf))
        nisa.tensor_copy(dst=tile, src=nl.ndarray((5, 8), nl.float32, buffer=nl.sbuf))
        return [][0]

    first = kernel.__code__.co_firstlineno
    found = refused(kernel, A)
    assert [(d.code, d.span.line - first) for d in found if d.span] == [
        ("NKI-V103", 2),
        ("NKI-V103", 3),
        ("NKI-L021", 4),
    ]


def test_loops_tell_a_mistake_once() -> None:
    def kernel(x):
        tile = nl.ndarray((4, 8), nl.float32, buffer=nl.sbuf)
        for i in range(10):
            nisa.tensor_copy(dst=tile, src=tile[:, 0 : 7 - i % 2])

    assert len(refused(kernel, A)) == 1


def test_callbacks_of_nki_functions_are_in_the_chain() -> None:
    def kernel(x):
        nl.fori_loop(0, 4, bad_body)

    (found,) = refused(kernel, A)
    assert [frame.function.rpartition(".")[2] for frame in found.stack] == ["kernel", "bad_body"]
    assert found.message == "KeyError: 'missing'"


def bad_body(i):
    return {"a": 1}["missing"]


def too_many_fields():
    return Holder2(1, 2, 3)


class Holder2(nl.NKIObject):
    x: int


def no_such_name():
    return getattr(nl, "nothing_of_this_name")  # noqa: B009


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("use", "code", "message"),
    [
        (too_many_fields, "NKI-L021", "TypeError: Holder2 has 1 fields but got 3 values"),
        (
            no_such_name,
            "NKI-L011",
            "nki.language.nothing_of_this_name: nki.language has no 'nothing_of_this_name'",
        ),
    ],
)
def test_what_nki_says_of_the_users_code_is_the_users(use: Any, code: str, message: str) -> None:
    def kernel(x, use):
        use()

    (found,) = refused(kernel, A, use)
    assert (found.code, found.message) == (code, message)


def test_a_name_of_another_module_is_offered_where_that_one_is_public() -> None:
    """nki.isa imports NkiError for itself; it does not offer it."""
    assert "nisa.tensor_copy" in str(names.missing("nki.language", "tensor_copy", "nl.tensor_copy").help)
    assert "nisa" not in str(names.missing("nki", "NkiError", "nki.NkiError").help)


# --- ours


@pytest.mark.usefixtures("unchecked")
def test_failures_inside_nki_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    from nki_isa.tensor.tensor import NkiTensor

    def broken(self: Any, shape: Any) -> Any:
        raise ZeroDivisionError("oops")

    broken = type(broken)(
        broken.__code__, {**broken.__globals__, "__name__": "nki_isa.tensor.tensor"}, "reshape"
    )
    monkeypatch.setattr(NkiTensor, "reshape", broken)
    with pytest.raises(NkiInternalError) as found:
        specialize(fails, A, "view")
    (diagnostic,) = found.value.diagnostics
    assert diagnostic.code == "NKI-I004"
    assert diagnostic.message == "nki_isa.tensor.tensor.broken failed with ZeroDivisionError: oops"
    assert diagnostic.help is not None and "please report it" in diagnostic.help
    assert [frame.function for frame in diagnostic.stack] == ["fails", "middle", "inner"]
    assert isinstance(found.value.__cause__, ZeroDivisionError)


def test_leaving_the_debugger_is_no_error_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def quit_debugger(*args: Any) -> None:
        raise bdb.BdbQuit

    monkeypatch.setattr("sys.breakpointhook", quit_debugger)

    def kernel(x):
        breakpoint()

    with pytest.raises(bdb.BdbQuit):
        specialize(kernel, A)


@pytest.mark.api("0.6")
def test_a_failed_kernel_leaves_nothing_behind() -> None:
    def kernel(x, n):
        for _ in nl.dynamic_range(2):
            assert n
        return nl.ndarray((1, 1), nl.float32, buffer=nl.shared_hbm)

    refused(kernel, A, 0)
    with pytest.raises(NkiError, match="NKI-L029"):
        nl.ndarray((1, 1), nl.float32)
    assert len(specialize(kernel, A, 1).body) == 1


# --- Python 3.10 knows lines only


def test_places_without_columns_are_those_of_the_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    from nki.compiler.specializer import stacks

    monkeypatch.setattr(stacks, "place_of", lambda code, offset: None)

    def kernel(x):
        tile = nl.ndarray(
            (4, 8),
            nl.float32,
        )
        for _ in range(1):
            nisa.tensor_copy(
                dst=tile,
                src=x,
            )
        if helper():
            pass
        for _ in missing(x):
            pass

    first = kernel.__code__.co_firstlineno
    spans = [d.stack[0].span for d in refused(kernel, A)]
    assert [(s.line - first, s.column, s.end_line - first, s.end_column) for s in spans] == [
        (6, 13, 9, 14),
        (12, 9, 12, 28),
    ]


def missing(x):
    return x.nothing


@nki.jit
def takes_an_array(x):
    return nl.zeros(x.shape, nl.float32, buffer=nl.shared_hbm)


@nki.jit
def misspells(x):
    return nl.zeros(x.shpe, nl.float32, buffer=nl.shared_hbm)


@pytest.mark.parametrize(
    ("kernel", "argument", "help"),
    [
        (takes_an_array, (1, 2), "this is of type tuple, and no tensor"),
        (takes_an_array, 3, "this is of type int, and no tensor"),
        (misspells, A, "write .shape"),
    ],
)
def test_remedy_of_an_attribute(kernel: Any, argument: Any, help: str) -> None:
    (found,) = refused(kernel, argument)
    assert found.code == "NKI-L021" and str(found.help).startswith(help)


# --- what is certain comes at once


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"shape": (128, 1 << 20), "buffer": nl.sbuf}, "NKI-M003"),
        ({"shape": (128, 8192), "buffer": nl.psum}, "NKI-M003"),
        ({"shape": (4, 8), "buffer": nl.psum, "address": (0, 16384)}, "NKI-M004"),
        ({"shape": (4, 8), "buffer": nl.sbuf, "address": (126, 0)}, "NKI-M004"),
    ],
)
def test_a_tensor_that_fits_nowhere_is_refused_at_its_allocation(options: Any, code: str) -> None:
    def kernel(x, options):
        shape = options["shape"]
        nl.ndarray(shape, nl.float32, buffer=options["buffer"], address=options.get("address"))
        return x.no_such_attribute  # not reached

    (found,) = refused(kernel, A, options)
    assert found.code == code
    assert found.span is not None and "nl.ndarray" in _SOURCE[found.span.line - 1]
