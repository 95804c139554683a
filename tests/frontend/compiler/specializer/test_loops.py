"""Loops that run on the device: what is recorded, what it computes, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki.compiler import specialize
from nki_isa.diagnostics import Diagnostic, NkiError, Severity
from nki_isa.ir.program import Loop, Program, While

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

A = np.arange(32, dtype=np.float32).reshape(8, 4)


def refused(kernel: Any, *args: Any) -> list[Diagnostic]:
    with pytest.raises(NkiError) as found:
        specialize(kernel, *args)
    return [d for d in found.value.diagnostics if d.severity is Severity.error]


def shape_of(program: Program) -> Any:
    """Opcodes, with loops as lists."""

    def of(body: Any) -> Any:
        return [[type(n).__name__, *of(n.body)] if isinstance(n, (Loop, While)) else n.opcode for n in body]

    return of(program.body)


# --- counted loops


@nki.jit
def rows_by_dynamic_range(x, start, stop, step):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    for i in nl.dynamic_range(start, stop, step):
        row = nl.ndarray((1, 4), x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=row, src=x.ap([[4, 1], [1, 4]], scalar_offset=i, indirect_dim=0))
        nisa.tensor_scalar(dst=row, data=row, op0=nl.multiply, operand0=10.0)
        nisa.dma_copy(dst=out.ap([[4, 1], [1, 4]], scalar_offset=i, indirect_dim=0), src=row)
    return out


@pytest.mark.parametrize("bounds", [(0, 8, 1), (1, 6, 2), (0, 1, 5), (3, 3, 1), (5, 2, 1)])
def test_dynamic_range_with_int_bounds(bounds: tuple[int, int, int]) -> None:
    program = specialize(rows_by_dynamic_range, A, *bounds)
    assert shape_of(program) == ["dma_copy", ["Loop", "dma_copy", "tensor_scalar", "dma_copy"]]
    expected = A.copy()
    expected[slice(*bounds)] *= 10
    np.testing.assert_array_equal(rows_by_dynamic_range(A, *bounds), expected)


@nki.jit
def rows_by_register(x, n):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    count = nl.ndarray((1, 1), nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=count, src=n)
    stop = nisa.register_alloc(count)
    for i in nl.dynamic_range(stop):
        scale_row(out, i)
    return out


def scale_row(out, i):
    row = nl.ndarray((1, 4), out.dtype, buffer=nl.sbuf)
    where = out.ap([[4, 1], [1, 4]], scalar_offset=i, indirect_dim=0)
    nisa.dma_copy(dst=row, src=where)
    nisa.tensor_scalar(dst=row, data=row, op0=nl.multiply, operand0=10.0)
    nisa.dma_copy(dst=where, src=row)


@nki.jit
def rows_by_fori_loop(x, n):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    count = nl.ndarray((1, 1), nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=count, src=n)
    stop = nisa.register_alloc()
    nisa.register_load(stop, count)

    def body(i):
        scale_row(out, i)
        nisa.register_move(i, 77)  # by value: no effect on the loop

    nl.fori_loop(0, stop, body)
    return out


@pytest.mark.parametrize("kernel", [rows_by_register, rows_by_fori_loop], ids=lambda k: k.function.__name__)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_register_bounds(kernel: Any, count: int) -> None:
    expected = A.copy()
    expected[:count] *= 10
    np.testing.assert_array_equal(kernel(A, np.array([[count]], np.int32)), expected)


def test_a_loop_variable_is_a_frozen_register() -> None:
    def kernel(x):
        for i in nl.dynamic_range(4):
            nisa.register_move(i, 0)

    (found,) = refused(kernel, A)
    assert found.code == "NKI-V100" and "variable of a device loop" in found.message


@nki.jit
def nested(x):
    out = nl.ndarray((1, 1), nl.float32, buffer=nl.shared_hbm)
    total = nl.zeros((1, 1), nl.float32, buffer=nl.sbuf)
    for _ in nl.dynamic_range(3):
        for unrolled in range(2):
            for _ in nl.dynamic_range(2, 4):
                nisa.tensor_scalar(dst=total, data=total, op0=nl.add, operand0=float(unrolled + 1))
        nisa.tensor_scalar(dst=total, data=total, op0=nl.add, operand0=100.0)
    nisa.dma_copy(dst=out, src=total)
    return out


def test_nested_loops() -> None:
    inner = ["Loop", "tensor_scalar"]
    assert shape_of(specialize(nested, A)) == ["memset", ["Loop", inner, inner, "tensor_scalar"], "dma_copy"]
    assert nested(A) == 3 * (2 * 1 + 2 * 2 + 100)


# --- while


def counted_down(x, use_while_loop):
    out = nl.ndarray((1, 2), nl.int32, buffer=nl.shared_hbm)
    state = nl.ndarray((1, 2), nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=state, src=x)
    left, turns = state[:, 0:1], state[:, 1:2]
    register = nisa.register_alloc(left)

    def body(r):
        nisa.tensor_scalar(dst=left, data=left, op0=nl.subtract, operand0=1)
        nisa.tensor_scalar(dst=turns, data=turns, op0=nl.add, operand0=1)
        following = nisa.register_alloc()
        nisa.register_load(following, left)
        return following

    if use_while_loop:
        nl.while_loop(register, body)
        nisa.register_store(left, register)  # init keeps its value
    else:
        while register:
            nisa.tensor_scalar(dst=left, data=left, op0=nl.subtract, operand0=1)
            nisa.tensor_scalar(dst=turns, data=turns, op0=nl.add, operand0=1)
            nisa.register_load(register, left)
    nisa.dma_copy(dst=out, src=state)
    return out


@pytest.mark.parametrize("use_while_loop", [False, True])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_while_a_register(count: int, use_while_loop: bool) -> None:
    result = nki.jit(counted_down)(np.array([[count, 0]], np.int32), use_while_loop)
    assert result.tolist() == [[count if use_while_loop else 0, count]]


def test_shape_of_while() -> None:
    x = np.array([[2, 0]], np.int32)
    body = ["While", "tensor_scalar", "tensor_scalar", "register_load"]
    assert shape_of(specialize(counted_down, x, False)) == ["dma_copy", "register_load", body, "dma_copy"]
    region = specialize(counted_down, x, False).body[2]
    assert isinstance(region, While)
    assert region.stack[-1].span.line == counted_down.__code__.co_firstlineno + 18


def next_register(tile):
    register = nisa.register_alloc()
    nisa.register_load(register, tile)
    return register


@nki.jit
def while_a_call(x):
    out = nl.ndarray((1, 1), nl.int32, buffer=nl.shared_hbm)
    tile = nl.ndarray((1, 1), nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    while next_register(tile):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.subtract, operand0=1)
    nisa.dma_copy(dst=out, src=tile)
    return out


def test_the_condition_of_a_device_loop_is_evaluated_every_turn() -> None:
    assert while_a_call(np.array([[3]], np.int32)).tolist() == [[0]]


@nki.jit
def continues(x):
    register = nisa.register_alloc(1)
    while register:
        nisa.register_move(register, 0)
        if x.shape[0] == 8:
            continue
        nisa.register_move(register, 5)


def test_continue_in_a_device_loop_ends_its_body() -> None:
    assert shape_of(specialize(continues, A)) == ["register_move", ["While", "register_move"]]


# --- refused


def breaks(x):
    for _ in nl.dynamic_range(4):
        break
    nisa.register_alloc(1)


def returns_early(x):
    for _ in nl.dynamic_range(4):
        return


def breaks_while(x):
    register = nisa.register_alloc(1)
    while register:
        break
    nisa.register_move(register, 2)


def returns_from_while(x):
    register = nisa.register_alloc(1)
    while register:
        return


def breaks_inner_while(x):
    for _ in nl.dynamic_range(2):
        register = nisa.register_alloc(1)
        while register:
            if x.shape[0] == 8:
                break


@pytest.mark.parametrize(
    "kernel", [breaks, returns_early, breaks_while, returns_from_while, breaks_inner_while]
)
def test_leaving_a_device_loop_early_is_refused(kernel: Any) -> None:
    (found,) = refused(kernel, A)
    assert (found.code, found.message) == (
        "NKI-L014",
        "a loop that runs on the device was left with break or return",
    )
    assert found.help == "device loops run their whole body; end a while loop by loading 0 into its register"
    assert found.span is not None and found.span.line > kernel.__code__.co_firstlineno


def rebinds(x):
    register = nisa.register_alloc(1)
    while register:
        register = 0


def test_a_condition_stays_a_register() -> None:
    (found,) = refused(rebinds, A)
    assert found.code == "NKI-L022" and "became 0, which is not a register" in found.message


def branch(r):
    if r:
        pass


def conditional(r):
    return 1 if r else 2


def conjunction(r):
    return r and True


def negation(r):
    return not r


def to_int(r):
    return int(r)


def to_float(r):
    return float(r)


def as_bound(r):
    for _ in range(r):
        pass


def as_static_bound(r):
    for _ in nl.affine_range(r):
        pass


def as_index(r):
    return [1, 2][r]


def compares(r):
    return r > 0


def equals(r):
    return r == 0


def is_member(r):
    return r in (1, 2)


def adds(r):
    return r + 1


def adds_reflected(r):
    return 1 + r


def shifts(r):
    return r << 2


def negates(r):
    return -r


def while_comparison(r):
    while r > 0:
        pass


_BRANCHES = "compute both and choose"
_LOOPS = "use nl.fori_loop"
_ARITHMETIC = "store it to a tile with nisa.register_store"


@pytest.mark.parametrize(
    ("use", "message", "remedy"),
    [
        (branch, "register 0 was used as a condition", _BRANCHES),
        (conditional, "register 0 was used as a condition", _BRANCHES),
        (conjunction, "register 0 was used as a condition", _BRANCHES),
        (negation, "register 0 was used as a condition", _BRANCHES),
        (to_int, "register 0 was converted to a number", _ARITHMETIC),
        (to_float, "register 0 was converted to a number", _ARITHMETIC),
        (as_bound, "register 0 was used as an int", _LOOPS),
        (as_static_bound, "affine_range got a register as a bound", _LOOPS),
        (as_index, "register 0 was used as an int", _LOOPS),
        (compares, "register 0 was compared", _BRANCHES),
        (equals, "register 0 was compared with 0", _BRANCHES),
        (is_member, "register 0 was compared with 1", _BRANCHES),
        (adds, "register 0 was computed with", _ARITHMETIC),
        (adds_reflected, "register 0 was computed with", _ARITHMETIC),
        (shifts, "register 0 was computed with", _ARITHMETIC),
        (negates, "register 0 was computed with", _ARITHMETIC),
        (while_comparison, "register 0 was compared", _BRANCHES),
    ],
)
def test_a_register_has_no_value_at_specialization(use: Any, message: str, remedy: str) -> None:
    def kernel(x, use):
        register = nisa.register_alloc(1)
        use(register)

    (found,) = refused(kernel, A, use)
    assert found.code == "NKI-L022" and found.message.startswith(message)
    assert found.help is not None and found.help.startswith(remedy)
    assert [frame.function.rpartition(".")[2] for frame in found.stack] == ["kernel", use.__name__]


def registers_are_objects(x):
    r = nisa.register_alloc(1)
    s = nisa.register_alloc(2)
    same = r
    kept = {"r": r}
    return [r == same, r != same, kept["r"] == r, r == None, isinstance(r, int), f"{s}"]  # noqa: E711


def test_registers_are_values_like_others() -> None:
    from nki.compiler.specializer.specialize import specialize_call
    from nki_isa.machine.targets import as_target

    made = specialize_call(nki.jit(registers_are_objects), (A,), {}, target=as_target("trn2"))
    assert made.result == [True, False, True, False, False, "register 1"]


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((0, 4, 0), "the step of a dynamic loop is 0, not a positive int"),
        ((0, 4, -1), "the step of a dynamic loop is -1, not a positive int"),
        ((0, 4, 1.5), "the step of a dynamic loop is 1.5, not a positive int"),
        ((0, 4.0, 1), "a dynamic loop's bound is 4.0, neither an int nor a register"),
        ((None, 4, 1), "a dynamic loop's bound is None, neither an int nor a register"),
    ],
)
@pytest.mark.parametrize("form", ["dynamic_range", "fori_loop"])
def test_bad_bounds(bounds: Any, message: str, form: str) -> None:
    def kernel(start, stop, step, form):
        if form == "fori_loop":
            nl.fori_loop(start, stop, nothing, step)
        else:
            for _ in nl.dynamic_range(start, stop, step):
                pass

    (found,) = refused(kernel, *bounds, form)
    assert (found.code, found.message) == ("NKI-V124", message)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((2.0,), "a bound of affine_range is 2.0, not an int"),
        ((0, None, 1.5), "a bound of affine_range is 1.5, not an int"),
        (("4",), "a bound of affine_range is '4', not an int"),
        ((0, 4, 0), "the step of affine_range is 0"),
    ],
)
def test_bad_bounds_of_unrolled_loops(bounds: Any, message: str) -> None:
    def kernel(bounds):
        for _ in ranges(bounds):
            pass

    (found,) = refused(kernel, bounds)
    assert (found.code, found.message) == ("NKI-V124", message)


def ranges(bounds):
    if len(bounds) == 1:
        return nl.affine_range(bounds[0])
    return nl.affine_range(bounds[0], bounds[1], bounds[2])


def nothing(i):
    pass


def returns_nothing(x):
    nl.while_loop(nisa.register_alloc(1), nothing)


def condition_is_an_int(x):
    nl.while_loop(1, nothing)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (returns_nothing, "the body of a while_loop returned None, not a register"),
        (condition_is_an_int, "the condition of a while_loop is 1, not a register"),
    ],
)
def test_bad_while_loops(kernel: Any, message: str) -> None:
    assert (refused(kernel, A)[0].code, refused(kernel, A)[0].message) == ("NKI-V124", message)


def test_loops_survive_their_text() -> None:
    from nki_isa.ir.program import programs_equal
    from nki_isa.text.parser import parse_program
    from nki_isa.text.printer import format_program

    x = np.array([[2, 0]], np.int32)
    for program in (
        specialize(nested, A),
        specialize(counted_down, x, False),
        specialize(rows_by_register, A, np.array([[1]], np.int32)),
    ):
        assert programs_equal(parse_program(format_program(program)), program)


# --- tensors of a body


@nki.jit
def leaks_from_fori(x, used_inside):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    kept = []

    def body(i):
        tile = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        kept.append(tile)
        if used_inside:
            nisa.dma_copy(dst=out, src=kept[0])

    nl.fori_loop(0, 2, body)
    if not used_inside:
        nisa.dma_copy(dst=out, src=kept[0])
    return out


@nki.jit
def leaks_from_an_inner_while(x, used_inside):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    kept = []

    def body(i):
        tile = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)

        def inner(r):
            part = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=part, src=x)
            nisa.tensor_copy(dst=tile, src=part)
            kept.append(part)
            nisa.register_move(r, 0)
            return r

        nl.while_loop(nisa.register_alloc(1), inner)
        nisa.dma_copy(dst=out, src=tile if used_inside else kept[0])

    nl.fori_loop(0, 2, body)
    return out


@pytest.mark.parametrize("kernel", [leaks_from_fori, leaks_from_an_inner_while], ids=lambda k: k.__name__)
def test_a_tensor_of_a_body_function_stays_in_it(kernel: Any) -> None:
    """Used in its loop it is right; after it, NKI-V133, at the use and the allocation."""
    np.testing.assert_array_equal(kernel(A, True), A)
    (found,) = refused(kernel, A, False)
    assert found.code == "NKI-V133" and "dma_copy" not in found.message
    assert found.span is not None and found.labels[0].span.line < found.span.line


def test_a_result_is_not_allocated_in_a_body() -> None:
    @nki.jit
    def kernel(x):
        made = []

        def body(i):
            out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
            nisa.dma_copy(dst=out, src=x)
            made.append(out)

        nl.fori_loop(0, 2, body)
        return made[0]

    assert [d.code for d in refused(kernel, A)] == ["NKI-V133"]
