"""Host code made of our tree: places of the source text, closures, `while`, private names."""

from __future__ import annotations

import ast
import dis
import inspect
import itertools
import sys
from types import CodeType, FunctionType
from typing import Any

import metacode
import pytest

from nki.compiler.source.source import comes_from, definition_of
from nki.compiler.specializer.lower import helpers, lower
from nki.compiler.specializer.stacks import is_kernel_code

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's


def lowered(function: FunctionType, counted: bool = True) -> CodeType:
    found = definition_of(function)
    code = function.__code__
    names = found.owner, function.__qualname__, code.co_filename
    return lower(found.node, code.co_freevars, *names, counted=counted).code  # type: ignore[arg-type]


FUNCTIONS = [f for f in vars(metacode).values() if isinstance(f, FunctionType) and f.__module__ == "metacode"]


def has_own_lowering(function: FunctionType) -> bool:
    return "while " in inspect.getsource(function) or function.__name__ == "annotated"


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_code_is_that_of_python(function: FunctionType) -> None:
    """Without `while`, steps and annotations, our code object is the one Python's own parser leads to."""
    code = lowered(function, counted=False)
    for made in (lowered(function), code):
        assert comes_from(made, lambda made=made: made, function.__code__)
    # Python calls methods of names that the file imports in a way of its own
    if not has_own_lowering(function) and function.__name__ not in ("constants", "modules"):
        assert code.co_code == function.__code__.co_code
        assert code.co_names == function.__code__.co_names
        assert code.co_varnames == function.__code__.co_varnames


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_places_are_those_of_python(function: FunctionType) -> None:
    code = lowered(function, counted=False)
    assert (code.co_filename, code.co_name) == (function.__code__.co_filename, function.__code__.co_name)
    if has_own_lowering(function):
        return
    ours, theirs = [list(c.co_lines()) for c in (code, function.__code__)]
    assert {line for _, _, line in ours[1:]} == {line for _, _, line in theirs[1:]}
    has_f_string = sys.version_info < (3, 12) and ' f"' in inspect.getsource(
        function
    )  # places by the string there
    if sys.version_info >= (3, 11) and not has_f_string and code.co_code == function.__code__.co_code:
        assert list(code.co_positions())[2:] == list(function.__code__.co_positions())[2:]


def test_code_is_made_once_and_known() -> None:
    assert lowered(metacode.loops) is lowered(metacode.loops)
    assert is_kernel_code(lowered(metacode.nested_function))
    inner = [c for c in lowered(metacode.nested_function).co_consts if isinstance(c, CodeType)]
    assert inner and all(is_kernel_code(c) for c in inner)
    assert not is_kernel_code(metacode.loops.__code__)


def call(function: FunctionType, *args: Any) -> Any:
    names = {**function.__globals__, **helpers(itertools.repeat(True))}
    return FunctionType(lowered(function), names, function.__name__, None, function.__closure__)(*args)


def test_closures() -> None:
    inner = metacode.outer(7)
    assert lowered(inner).co_freevars == ("n",)
    assert call(inner, 6) == 42


def test_methods_with_private_names() -> None:
    counter = metacode.Counter(1)
    assert call(metacode.Counter.next, counter) == 3
    assert "_Counter__step" in lowered(metacode.Counter.next).co_names


def counts_conditions(values, seen):
    i = 0
    while ask(values, i, seen):
        i += 1
    while values[0] and i > 0:
        i -= 1
    return i


def ask(values, i, seen):
    seen.append(i)
    return values[i]


@pytest.mark.parametrize("last", [0, 0.0, "", None, [], False])
def test_while_asks_for_truth_once_a_turn(last: Any) -> None:
    values, seen = [True, 1, "x", [0], last], []  # type: ignore[var-annotated]
    assert call(counts_conditions, values, seen) == 0
    assert seen == [0, 1, 2, 3, 4]


def test_a_while_over_comparisons_calls_nothing() -> None:
    """True and False are told apart without a call."""
    code = lowered(metacode.nested_while)
    calls = [
        i for i in dis.get_instructions(code) if i.opname.startswith("CALL") and "INTRINSIC" not in i.opname
    ]
    names = [
        i.argval
        for i in dis.get_instructions(code)
        if "nki_while" in str(i.argval) and i.opname == "LOAD_GLOBAL"
    ]
    assert names == ["__nki_while__"] * 2 and calls


def test_every_node_of_the_language_has_a_host_node() -> None:
    from nki.compiler.syntax import tree

    for node in vars(tree).values():
        if (
            isinstance(node, type)
            and issubclass(node, (tree.stmt, tree.expr))
            and node not in (tree.stmt, tree.expr)
        ):
            host = getattr(ast, node.__name__, None)
            if host is None:
                assert node.__name__ in ("TypeAlias", "TryStar", "TemplateStr", "Interpolation")
            else:
                assert set(node._fields) <= {*host._fields, "type_params"}
