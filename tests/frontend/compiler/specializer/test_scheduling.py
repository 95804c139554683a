"""Dependencies a kernel asks for: by name, handle and block; mistakes; order and time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki.compiler import specialize
from nki_isa.diagnostics import Diagnostic, NkiError, Severity
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Program, programs_equal
from nki_isa.text.parser import parse_program
from nki_isa.text.printer import format_program
from nki_sim.cores.core_times import simulate
from nki_sim.timing.scoreboard import Wait

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

A = np.full((4, 8), 2, np.float32)


@nki.jit
def two_paths(t):
    x = nl.ndarray(t.shape, t.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=x, src=t)
    a = nl.ndarray(t.shape, t.dtype, buffer=nl.sbuf)
    b = nl.ndarray(t.shape, t.dtype, buffer=nl.sbuf)
    c = nl.ndarray(t.shape, t.dtype, buffer=nl.sbuf)
    nisa.activation(dst=a, data=x, op=nl.exp, name="exp")
    nisa.tensor_scalar(dst=b, data=x, op0=nl.add, operand0=1, name="plus1")
    nisa.tensor_tensor(dst=c, data1=a, data2=b, op=nl.add, name="sum")
    out = nl.ndarray(t.shape, t.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=c)
    return out


def order(program: Program) -> list[str]:
    return [i.name or i.opcode for i in program.walk()]


def edges(program: Program) -> list[tuple[str, list[str]]]:
    def label(i: Instruction) -> str:
        return i.name or i.opcode

    return [(label(i), [label(p) for p in i.after]) for i in program.walk() if i.after]


def refused(kernel: Any, *args: Any) -> list[Diagnostic]:
    with pytest.raises(NkiError) as found:
        specialize(kernel, *args)
    return [d for d in found.value.diagnostics if d.severity is Severity.error]


@pytest.mark.parametrize(
    "schedule",
    [
        [("plus1", "exp")],
        [("plus1", ["exp"])],
        (("plus1", ("exp",)),),
        [["plus1", "exp"]],
        [("plus1", "exp"), ("plus1", "exp")],
    ],
)
def test_with_schedule(schedule: Any) -> None:
    program = specialize(two_paths.with_schedule(schedule), A)
    assert edges(program) == [("plus1", ["exp"])]
    assert order(program) == ["dma_copy", "exp", "plus1", "sum", "dma_copy"]


def test_with_schedule_makes_a_new_kernel() -> None:
    scheduled = two_paths.with_schedule([("plus1", "exp")])
    assert (
        scheduled is not two_paths
        and two_paths.schedule == ()
        and scheduled[1].schedule == scheduled.schedule
    )
    assert edges(specialize(two_paths, A)) == []
    np.testing.assert_array_equal(scheduled(A), two_paths(A))


def test_an_instruction_moves_behind_a_later_one() -> None:
    scheduled = two_paths.with_schedule([("exp", "plus1")])
    assert order(specialize(scheduled, A)) == ["dma_copy", "plus1", "exp", "sum", "dma_copy"]
    np.testing.assert_array_equal(scheduled(A), two_paths(A))


def test_several_producers() -> None:
    program = specialize(two_paths.with_schedule([("sum", ["plus1", "exp"])]), A)
    assert edges(program) == [("sum", ["plus1", "exp"])]


def test_a_schedule_belongs_to_a_launch() -> None:
    scheduled = two_paths.with_schedule([("plus1", "exp")])

    def kernel(x):
        return scheduled(x)

    (found,) = refused(kernel, A)
    assert (found.code, found.message) == (
        "NKI-L045",
        "two_paths with a schedule is called by another kernel",
    )


# --- mistakes of a schedule


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (5, "the schedule is a int, not a list"),
        ({"plus1": "exp"}, "the schedule is a dict, not a list"),
        (["plus1"], "'plus1' is not a pair (consumer, producers)"),
        ([("plus1",)], "('plus1',) is not a pair (consumer, producers)"),
        ([("plus1", 3)], "('plus1', 3) does not consist of names of instructions"),
        ([(None, "exp")], "(None, 'exp') does not consist of names of instructions"),
        ([("plus1", ["exp", 2])], "('plus1', ['exp', 2]) does not consist of names of instructions"),
    ],
)
def test_malformed_schedules(schedule: Any, message: str) -> None:
    with pytest.raises(NkiError) as found:
        two_paths.with_schedule(schedule)
    (diagnostic,) = found.value.diagnostics
    assert (diagnostic.code, diagnostic.message) == ("NKI-L045", message)
    assert diagnostic.span is not None and diagnostic.span.file == __file__


def test_unknown_names_are_all_told() -> None:
    found = refused(two_paths.with_schedule([("plus2", "exp"), ("zzz", "exp"), ("plus2", "sum")]), A)
    assert [(d.code, d.message, d.help) for d in found] == [
        ("NKI-L040", "the schedule names 'plus2', which no instruction is called", "write 'plus1'"),
        (
            "NKI-L040",
            "the schedule names 'zzz', which no instruction is called",
            "the names are 'exp', 'plus1', 'sum'",
        ),
    ]
    assert all(d.span is not None and d.span.file == __file__ for d in found)


def repeats(x):
    tile = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
    for _ in range(3):
        nisa.memset(tile, 0, name="zero")
    nisa.memset(tile, 1, name="one")


def test_a_name_of_several_instructions() -> None:
    (found,) = refused(nki.jit(repeats).with_schedule([("one", "zero")]), A)
    assert (found.code, found.message) == (
        "NKI-L041",
        "the schedule names 'zero': the name matches 3 instructions",
    )
    assert {label.span.line for label in found.labels} == {repeats.__code__.co_firstlineno + 3}
    assert found.help == 'make names unique, in a loop for example with name=f"load{i}"'


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        (
            [("plus1", "exp"), ("exp", "plus1")],
            "'exp' (line {exp}) was asked to run after 'plus1' (line {plus1})",
        ),
        ([("exp", "sum")], "'sum' (line {sum}) runs, by the data they share, after 'exp' (line {exp})"),
        ([("exp", "exp")], "'exp' (line {exp}) was asked to run after 'exp' (line {exp})"),
    ],
)
def test_circles(schedule: Any, reason: str) -> None:
    first = two_paths.function.__code__.co_firstlineno
    (found,) = refused(two_paths.with_schedule(schedule), A)
    assert found.code == "NKI-L042" and found.message.endswith("lead back to it")
    assert reason.format(exp=first + 7, plus1=first + 8, sum=first + 9) in found.notes


def loops(x, edge):
    tile = nl.zeros((1, 1), nl.float32, buffer=nl.sbuf)
    nisa.memset(tile, 1, name="before")
    for _ in nl.dynamic_range(2):
        nisa.memset(tile, 2, name="first")
        nisa.memset(tile, 3, name="second")
    for _ in nl.dynamic_range(2):
        nisa.memset(tile, 4, name="other")
    nisa.memset(tile, 5, name="after")


@pytest.mark.parametrize("edge", [("second", "first"), ("first", "before"), ("after", "before")])
def test_edges_within_a_loop_and_from_around_it(edge: tuple[str, str]) -> None:
    assert edges(specialize(nki.jit(loops).with_schedule([edge]), A, edge)) == [(edge[0], [edge[1]])]


@pytest.mark.parametrize("edge", [("after", "first"), ("other", "first"), ("before", "other")])
def test_edges_into_and_out_of_a_loop(edge: tuple[str, str]) -> None:
    (found,) = refused(nki.jit(loops).with_schedule([edge]), A, edge)
    assert found.code == "NKI-L043"
    assert found.message == (
        f"{edge[0]!r} depends on {edge[1]!r}, which runs in a device loop that is not around it"
    )


def test_a_loop_moves_as_a_whole() -> None:
    def kernel(x):
        a = nl.zeros((1, 1), nl.float32, buffer=nl.sbuf)
        b = nl.zeros((1, 1), nl.float32, buffer=nl.sbuf)
        for _ in nl.dynamic_range(2):
            nisa.memset(a, 2, name="inside")
        nisa.memset(b, 5, name="after")

    program = specialize(nki.jit(kernel).with_schedule([("inside", "after")]), A)
    assert order(program)[-2:] == ["after", "inside"]


# --- handles


def handles(x):
    found = []
    for i in range(3):
        tile = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
        found.append(nisa.memset(tile, i, name=f"m{i}"))
    found[2].depends_on(found[0], found[1]).depends_on(found[0])
    found[0].depends_on(found[1])


def test_depends_on() -> None:
    program = specialize(handles, A)
    assert edges(program) == [("m0", ["m1"]), ("m2", ["m0", "m1"])]
    assert order(program) == ["m1", "m0", "m2"]


def circle(x):
    tile = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
    other = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
    a = nisa.memset(tile, 0)
    b = nisa.memset(other, 0)
    a.depends_on(b)
    b.depends_on(a)


def out_of_a_loop(x):
    tile = nl.zeros((1, 1), nl.float32, buffer=nl.sbuf)
    kept = []
    for _ in nl.dynamic_range(2):
        kept.append(nisa.memset(tile, 2))
    nisa.memset(tile, 5).depends_on(kept[0])


def no_handle(x):
    tile = nl.zeros((1, 1), nl.float32, buffer=nl.sbuf)
    nisa.memset(tile, 5).depends_on(tile)


@pytest.mark.parametrize(
    ("kernel", "code", "line"),
    [(circle, "NKI-L042", 3), (out_of_a_loop, "NKI-L043", 5), (no_handle, "NKI-V100", 2)],
)
def test_mistakes_with_handles(kernel: Any, code: str, line: int) -> None:
    (found,) = refused(kernel, A)
    assert found.code == code and found.span is not None
    assert found.span.line == kernel.__code__.co_firstlineno + line


# --- no_reorder


def work(tile, i):
    nisa.memset(tile, i, name=f"w{i}")


def blocks(x):
    tiles = []
    for _ in range(5):
        tiles.append(nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf))
    with nl.no_reorder():
        for i in nl.affine_range(2):
            work(tiles[i], i)  # dynamically scoped: the called function is in the block
        with nl.no_reorder():
            work(tiles[2], 2)
    work(tiles[3], 3)
    with nl.no_reorder():
        work(tiles[4], 4)


def test_no_reorder_chains_its_instructions() -> None:
    program = specialize(blocks, A)
    assert edges(program) == [("w1", ["w0"]), ("w2", ["w1"])]
    assert order(program) == ["w0", "w1", "w2", "w3", "w4"]


def test_no_reorder_holds_against_a_schedule() -> None:
    (found,) = refused(nki.jit(blocks).with_schedule([("w0", "w2")]), A)
    assert found.code == "NKI-L042"


def loop_inside(x):
    with nl.no_reorder():
        for _ in nl.dynamic_range(2):
            nisa.register_alloc(1)


def fori_inside(x):
    with nl.no_reorder():
        nl.fori_loop(0, 2, body)


def body(i):
    nisa.register_alloc(1)


def while_inside(x):
    register = nisa.register_alloc(1)
    with nl.no_reorder():
        while register:
            nisa.register_move(register, 0)


def while_loop_inside(x):
    register = nisa.register_alloc(1)
    with nl.no_reorder():
        calls_while_loop(register)


def calls_while_loop(register):
    nl.while_loop(register, same)


def same(register):
    return register


@pytest.mark.parametrize("kernel", [loop_inside, fori_inside, while_inside, while_loop_inside])
def test_device_loops_in_no_reorder_are_refused(kernel: Any) -> None:
    (found,) = refused(kernel, A)
    assert (found.code, found.message) == (
        "NKI-L044",
        "a loop that runs on the device stands in a no_reorder block",
    )
    assert found.help is not None and found.help.startswith(
        "put `with nl.no_reorder():` inside the loop's body"
    )


def block_inside_a_loop(x):
    tile = nl.zeros((1, 1), nl.float32, buffer=nl.sbuf)
    for _ in nl.dynamic_range(2):
        with nl.no_reorder():
            nisa.memset(tile, 2, name="a")
            nisa.memset(tile, 3, name="b")


def test_no_reorder_inside_a_device_loop() -> None:
    assert edges(specialize(block_inside_a_loop, A)) == [("b", ["a"])]


# --- text and time


@pytest.mark.parametrize(
    "make",
    [
        lambda: specialize(two_paths.with_schedule([("exp", "plus1"), ("sum", ["exp"])]), A),
        lambda: specialize(blocks, A),
        lambda: specialize(handles, A),
        lambda: specialize(nki.jit(loops).with_schedule([("first", "before")]), A, None),
    ],
)
def test_edges_survive_their_text(make: Any) -> None:
    program = make()
    text = format_program(program)
    assert programs_equal(parse_program(text), program)
    assert format_program(parse_program(text)) == text


def test_edges_count_in_equality() -> None:
    scheduled = two_paths.with_schedule([("plus1", "exp")])
    assert not programs_equal(specialize(two_paths, A), specialize(scheduled, A))
    assert programs_equal(specialize(scheduled, A), specialize(scheduled, A))


def test_text_of_edges() -> None:
    lines = format_program(specialize(two_paths.with_schedule([("plus1", "exp")]), A)).splitlines()
    assert [line.split(" name=")[1].rsplit(" ", 1)[0] for line in lines if "name=" in line] == [
        '"exp" as &1',
        '"plus1" after &1',
        '"sum"',
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("after &1", "after &2"), "no instruction before this one is &2"),
        (("after &1", "after 1"), "expected a label such as &1, found '1'"),
        (("as &1", "as %1"), "expected a label such as &1, found '%1'"),
    ],
)
def test_bad_text_of_edges(change: tuple[str, str], message: str) -> None:
    text = format_program(specialize(two_paths.with_schedule([("plus1", "exp")]), A))
    with pytest.raises(NkiError, match=message):
        parse_program(text.replace(*change))


def test_the_scoreboard_waits_for_what_was_asked() -> None:
    free = simulate(specialize(two_paths, A))
    timeline = simulate(specialize(two_paths.with_schedule([("plus1", "exp")]), A))
    assert free.start[2] < free.end[1]  # the vector engine does not wait for the scalar engine
    assert timeline.start[2] >= timeline.end[1]
    assert (timeline.wait[2], timeline.cause[2]) == (Wait.order, 1)
    assert timeline.duration > free.duration


# --- device_print


@nki.jit
def prints(x, count):
    tile = nl.ndarray((2, 4), x.dtype, buffer=nl.sbuf)
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=tile, src=x)
    for _ in nl.dynamic_range(count):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2)
        nl.device_print("tile =", tile)
    nl.device_print("input", x[0:1, 1:3])
    nisa.dma_copy(dst=out, src=tile)
    return out


def test_device_print(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4) / 3
    with np.printoptions(precision=1):
        prints(x, 2)
    assert (
        capsys.readouterr().out
        == """\
tile = float32[2, 4]
[[0.        0.6666667 1.3333334 2.       ]
 [2.6666667 3.3333333 4.        4.6666665]]
tile = float32[2, 4]
[[0.        1.3333334 2.6666667 4.       ]
 [5.3333335 6.6666665 8.        9.333333 ]]
input float32[1, 2]
[[0.33333334 0.6666667 ]]
"""
    )


def test_device_print_of_large_and_narrow_tensors(capsys: pytest.CaptureFixture[str]) -> None:
    import ml_dtypes

    @nki.jit
    def kernel(x, y):
        nl.device_print("x", x)
        nl.device_print("y", y)

    kernel(
        np.arange(2048, dtype=np.int32).reshape(128, 16),
        np.array([[0.1, np.nan, np.inf]], ml_dtypes.bfloat16),
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "x int32[128, 16]" and len(lines) == 10
    assert lines[-2:] == ["y bfloat16[1, 3]", "[[0.100097656         nan         inf]]"]


def test_device_print_costs_nothing() -> None:
    x = np.ones((2, 4), np.float32)
    program = specialize(prints, x, 2)
    timeline = simulate(program)
    assert [i.opcode for i in timeline.instructions] == [
        "dma_copy",
        "tensor_scalar",
        "tensor_scalar",
        "dma_copy",
    ]
    silent = parse_program(
        "\n".join(line for line in format_program(program).splitlines() if "device_print" not in line)
    )
    assert simulate(silent).duration == timeline.duration


def prints_psum(x):
    nl.device_print("p", nl.ndarray((2, 4), nl.float32, buffer=nl.psum))


def prints_without_text(x):
    nl.device_print(3, x)


@pytest.mark.parametrize(("kernel", "code"), [(prints_psum, "NKI-V101"), (prints_without_text, "NKI-V111")])
def test_device_print_refuses(kernel: Any, code: str) -> None:
    assert [d.code for d in refused(kernel, A)] == [code]


def test_device_print_is_of_the_language_not_the_isa() -> None:
    assert not hasattr(nisa, "device_print")
