"""IR text: every instruction prints and reads back, and what is malformed is refused where it is."""

from __future__ import annotations

import copy
import dataclasses
import enum
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nki_isa.ops  # noqa: F401
from nki_isa.diagnostics import Frame, NkiError, Span
from nki_isa.ir.fields import REQUIRED, Field, Role
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ir.program import Loop, Node, Program, While, programs_equal
from nki_isa.machine.dtypes import DTYPES, DType, as_dtype
from nki_isa.machine.enums import Engine, oob_mode
from nki_isa.machine.operators import OPERATORS, Operator
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_isa.text.parser import parse_program
from nki_isa.text.printer import format_program

SBUF, PSUM, HBM = MemoryRegion.sbuf, MemoryRegion.psum, MemoryRegion.shared_hbm


def stack(*lines: int) -> tuple[Frame, ...]:
    return tuple(Frame(f"f{k}", Span("my kernels/matmul.py", n, 5, n, 40)) for k, n in enumerate(lines))


def example() -> Program:
    """One of everything the text has a form for."""
    program = Program("matmul", "trn2", registers=4)
    bf16, fp32 = as_dtype("bfloat16"), as_dtype("float32")
    program.storages = [
        Storage(0, "lhsT", HBM, (2048, 2048), bf16, kind="input"),
        Storage(1, "tile", SBUF, (128, 512), bf16, stack=stack(12)),
        Storage(2, "acc", PSUM, (128, 512), fp32, address=(0, 2048), stack=stack(12, 3)),
        Storage(
            3, 'a "quoted" näme', SBUF, (1, 4), as_dtype("int32"), kind="constant", data=bytes(range(16))
        ),
        Storage(4, "out", HBM, (2048, 512), fp32, stack=stack(9)),
    ]
    lhs, tile, acc, indices, out = map(NkiTensor.whole, program.storages)
    turn, count, flag = VirtualRegister(0, True), VirtualRegister(1), VirtualRegister(2)
    make = REGISTRY
    moved = lhs[0:128, 0:512]
    moved.dynamic = DynamicOffset("scalar", turn, 512, -1, 4)
    picked = lhs[0:128, 0:512]
    picked.dynamic = DynamicOffset("vector", indices[:, 0:1], 2048, 0, 2048)
    reinterpreted = NkiTensor((128, 256), (256, 1), 0, fp32, tile.storage)
    first = make["dma_copy"](dst=tile, src=lhs[128:256, 0:512], name="first load")
    inner: list[Node] = [
        make["dma_copy"](dst=tile, src=moved, oob_mode=oob_mode.skip),
        make["dma_copy"](dst=tile, src=picked),
        make["nc_matmul"](
            dst=acc, stationary=tile[:, 0:128], moving=tile, accumulate=True, tile_size=(128, 128)
        ),
        Loop(VirtualRegister(3, True), 0, 4, 2),
    ]
    program.body = [
        first,
        Loop(turn, count, 16, 1, inner, stack(14)),
        While(
            flag, [make["tensor_scalar"](dst=tile, data=acc, op0="add", operand0=float("-inf"))], stack(20)
        ),
        make["activation"](dst=reinterpreted, op="exp", data=acc[:, 0:256], scale=1e-05),
        make["dma_copy"](dst=out[0:128], src=acc, engine=Engine.gpsimd),
    ]
    for k, instruction in enumerate(program.walk()):
        instruction.stack = stack(12, 30 + k)
    program.inputs, program.outputs = [lhs], [out, out[0:1]]
    return program


def test_text_of_a_program(snapshot: object) -> None:
    assert format_program(example()) == snapshot


def test_a_program_reads_back() -> None:
    program = example()
    text = format_program(program)
    again = parse_program(text)
    assert programs_equal(program, again)
    assert format_program(again) == text


def test_registers_and_storages_are_shared_after_reading() -> None:
    again = parse_program(format_program(example()))
    loop = again.body[1]
    assert isinstance(loop, Loop)
    moved = loop.body[0]
    assert isinstance(moved, Instruction)
    source = moved.__dict__["src"]
    assert source.dynamic.index is loop.index
    assert loop.index.frozen
    assert source.storage is again.storages[0] is again.inputs[0].storage


def test_comments_and_blank_lines_are_skipped() -> None:
    text = "# a comment\n\n" + format_program(example()).replace("body\n", "body\n\n  # another\n")
    assert programs_equal(parse_program(text), example())


# --- equality tells apart whatever counts


def _change(program: Program, what: str) -> None:
    first = program.body[0]
    assert isinstance(first, Instruction)
    view = first.__dict__["src"]
    loop = program.body[1]
    assert isinstance(loop, Loop)
    changes: dict[str, Any] = {
        "name": lambda: setattr(program, "name", "other"),
        "target": lambda: setattr(program, "target", "trn1"),
        "registers": lambda: setattr(program, "registers", 5),
        "storage address": lambda: setattr(program.storages[1], "address", (0, 0)),
        "storage data": lambda: setattr(program.storages[3], "data", bytes(16)),
        "storage kind": lambda: setattr(program.storages[1], "kind", "constant"),
        "view offset": lambda: setattr(view, "offset", 1),
        "view dtype": lambda: setattr(view, "dtype", as_dtype("float16")),
        "source": lambda: setattr(first, "stack", stack(12, 31)),
        "no source": lambda: setattr(first, "stack", ()),
        "label": lambda: first.__dict__.__setitem__("name", None),
        "loop step": lambda: setattr(loop, "step", 2),
        "loop body": lambda: loop.body.pop(),
        "outputs": lambda: program.outputs.pop(),
        "order": lambda: program.body.reverse(),
    }
    changes[what]()


@pytest.mark.parametrize(
    "what",
    [
        "name",
        "target",
        "registers",
        "storage address",
        "storage data",
        "storage kind",
        "view offset",
        "view dtype",
        "source",
        "no source",
        "label",
        "loop step",
        "loop body",
        "outputs",
        "order",
    ],
)
def test_a_changed_program_is_unequal_and_so_is_its_text(what: str) -> None:
    changed = example()
    _change(changed, what)
    assert not programs_equal(changed, example())
    assert format_program(changed) != format_program(example())
    assert programs_equal(parse_program(format_program(changed)), changed)


# --- any instruction, any fields

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(sorted(DTYPES)).map(as_dtype),
    st.sampled_from(sorted(OPERATORS)).map(OPERATORS.__getitem__),
    st.sampled_from(list(oob_mode)),
    st.floats(width=32).map(np.float32),
)


@st.composite
def views(draw: st.DrawFn, storages: list[Storage]) -> NkiTensor:
    storage = draw(st.sampled_from(storages))
    tensor = NkiTensor.whole(storage)
    if draw(st.booleans()):
        tensor = tensor[0 : draw(st.integers(1, 4)), draw(st.integers(0, 7)) : 8 : draw(st.integers(1, 3))]
    if draw(st.booleans()):
        tensor = tensor.permute((1, 0)) if storage.region.is_hbm else tensor
    if draw(st.integers(0, 4)) == 0:
        tensor = NkiTensor((4, 2), (2, 1), 0, as_dtype("uint32"), storage)
    if draw(st.integers(0, 4)) == 0:
        index = draw(st.sampled_from([VirtualRegister(1), NkiTensor.whole(storages[1])]))
        tensor = copy.copy(tensor)
        tensor.dynamic = DynamicOffset(
            draw(st.sampled_from(["scalar", "vector", "indirect"])), index, 8, -1, 4
        )
    return tensor


def attribute_values(field: Field) -> st.SearchStrategy[Any]:
    kind = field.kind
    if isinstance(kind, enum.EnumMeta):
        return st.sampled_from(list(kind))
    if kind is Operator:
        return st.sampled_from(sorted(OPERATORS)).map(OPERATORS.__getitem__)
    if kind is DType:
        return st.sampled_from(sorted(DTYPES)).map(as_dtype)
    if kind is tuple:
        return st.lists(st.integers(0, 128), max_size=2).map(tuple)
    if kind is list:
        return st.lists(st.integers(0, 128), max_size=2)
    by_type = {
        bool: st.booleans(),
        int: st.integers(-9, 9),
        float: st.floats(allow_nan=False),
        str: st.text(),
    }
    return by_type.get(kind, st.none() | st.integers(0, 3))


@st.composite
def instructions(draw: st.DrawFn, opcode: str, storages: list[Storage]) -> Instruction | None:
    """One instruction with random operands and attributes; None where it refuses them on being built."""
    values: dict[str, Any] = {}
    for name, field in REGISTRY[opcode].fields.items():
        if field.default is not REQUIRED and draw(st.booleans()):
            continue
        if field.role is Role.attribute:
            values[name] = draw(attribute_values(field))
        elif field.role is Role.scalar:
            values[name] = draw(st.one_of(st.floats(), st.just(VirtualRegister(1)), views(storages)))
        elif field.role is Role.reads:
            values[name] = draw(st.lists(views(storages), min_size=1, max_size=3))
        elif field.role in (Role.register_read, Role.register_write):
            values[name] = VirtualRegister(draw(st.integers(0, 1)))
        else:
            values[name] = draw(views(storages))
    try:
        return REGISTRY[opcode](**values)
    except NkiError:
        return None


def small_storages() -> list[Storage]:
    bf16 = as_dtype("bfloat16")
    regions = [HBM, SBUF, PSUM, MemoryRegion.private_hbm]
    return [Storage(k, f"s{k}", region, (4, 8), bf16) for k, region in enumerate(regions)]


@pytest.mark.parametrize("opcode", sorted(REGISTRY))
def test_every_instruction_reads_back(opcode: str) -> None:
    built = 0

    @settings(max_examples=25, deadline=None, database=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        nonlocal built
        storages = small_storages()
        instruction = data.draw(instructions(opcode, storages))
        if instruction is None:
            return
        built += 1
        program = Program("k", "trn3", storages, 2, [], [], [instruction])
        text = format_program(program)
        again = parse_program(text)
        assert programs_equal(program, again), text
        assert format_program(again) == text

    check()
    assert built > 0, f"no random arguments were taken by {opcode}"


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(VALUES, lambda v: st.lists(v, max_size=3) | st.lists(v, max_size=3).map(tuple), max_leaves=6)
)
def test_every_value_reads_back(value: Any) -> None:
    """A scalar operand says nothing about what it holds, so its values print with their kind."""
    storages = small_storages()
    whole = NkiTensor.whole(storages[1])
    instruction = REGISTRY["memset"](dst=whole, value=0, engine=Engine.vector)
    instruction.__dict__["value"] = value
    program = Program("k", "trn2", storages, 2, [], [], [instruction])
    assert programs_equal(parse_program(format_program(program)), program)


def test_what_has_no_text_form_is_named() -> None:
    storages = small_storages()
    instruction = REGISTRY["memset"](dst=NkiTensor.whole(storages[1]), value=0)
    instruction.__dict__["value"] = {1, 2}
    with pytest.raises(NkiError) as caught:
        format_program(Program("k", "trn2", storages, 2, [], [], [instruction]))
    assert caught.value.diagnostics[0].code == "NKI-I003"


# --- malformed text

TEXT = """\
program k target trn2 registers 1
  %0 = local sbuf bfloat16[128, 512] "t" @1
  %1 = local sbuf bfloat16[128, 512] "u" at (0, 64)
inputs
body
  loop $0 = 0 to 4 step 1
    tensor_copy dst=%0 src=%1[offset 0, 512:128, 1:256] @1
outputs
sources
  @1 k "k.py" 1:1-1:9
data
  %1 "AAAA"
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "message"),
    [
        ("program k", "programme k", 1, 1, "expected 'program' first, found 'programme'"),
        ("target trn2", "target 2", 1, 18, "expected a target, found '2'"),
        ("registers 1", "registers 1.5", 1, 33, "expected an integer, found '1.5'"),
        ("registers 1", "registers 1 2", 1, 35, "expected the end of the line, found '2'"),
        ("  %1 =", "  %2 =", 3, 3, "storages are numbered in order: expected %1"),
        ("local sbuf", "local flash", 2, 14, "expected a memory"),
        ('bfloat16[128, 512] "u"', 'bfloat[128, 512] "u"', 3, 19, "expected a data type, found 'bfloat'"),
        ("(0, 64)", "(0)", 3, 47, "expected ',', found ')'"),
        ("body\n", "bodies\n", 5, 1, "found 'bodies'"),
        ("$0 = 0 to", "$1 = 0 to", 6, 8, "$1 is outside the 1 registers"),
        ("0 to 4", "0 until 4", 6, 15, "expected 'to', found 'until'"),
        ("    tensor_copy", "     tensor_copy", 7, 6, "the indentation fits no loop above"),
        ("    tensor_copy", "      tensor_copy", 7, 7, "the indentation fits no loop above"),
        ("tensor_copy", "tensor_cpy", 7, 5, "tensor_cpy is not an instruction"),
        ("src=%1", "source=%1", 7, 24, "tensor_copy has no field 'source'"),
        ("src=%1", "dst=%1", 7, 24, "'dst' is given twice"),
        ("src=%1", "src=%7", 7, 28, "there is no storage %7"),
        ("src=%1", "src=?%1", 7, 28, "'?' is not part of IR text"),
        ("src=%1", "src=%1   ?", 7, 33, "'?' is not part of IR text"),
        ("1:1-1:9", "1:1-1:9   ?", 10, 25, "'?' is not part of IR text"),
        ("src=%1[", "src==%1[", 7, 28, "expected a value, found '='"),
        ("] @1", "] as &1 after &1 @1", 7, 69, "no instruction before this one is &1"),
        ("outputs\n", "program l target trn2 registers 1\n", 8, 1, "expected inputs or body or"),
        ("src=%1", "src=sqrt2 bias=%1", 7, 28, "sqrt2 is not a value this field takes"),
        ("1:256]", "1:600]", 7, 28, "the view spans elements 0 to 65623 of the 65536 of %1"),
        ("1:256]", "1:256", 7, 56, "expected ']', found '@1'"),
        ("] @1", "] @3", 7, 57, "@3 is not among the sources"),
        ("1:1-1:9", "1:1", 10, 15, "expected a place such as 12:5-12:40, found '1'"),
        ('"AAAA"', '"AAA"', 12, 6, "expected base64"),
        ("outputs\n", "inputs\n", 8, 1, "a second section 'inputs'"),
    ],
)
def test_malformed_text_is_refused_where_it_is(
    old: str, new: str, line: int, column: int, message: str
) -> None:
    parse_program(TEXT)
    assert old in TEXT
    with pytest.raises(NkiError) as caught:
        parse_program(TEXT.replace(old, new, 1), "p.ir")
    problem = caught.value.diagnostics[0]
    assert problem.code == "NKI-L028"
    assert message in problem.message
    assert problem.span is not None
    assert (problem.span.file, problem.span.line, problem.span.column) == ("p.ir", line, column)


def test_an_operator_is_known_by_its_name() -> None:
    """A front end's functions are operators of a class of their own."""

    class Spelled(Operator):
        pass

    def program(op: Operator) -> Program:
        storages = small_storages()
        tile = NkiTensor.whole(storages[1])
        reduced = REGISTRY["tensor_reduce"](dst=tile, op="add", data=tile, axis=1)
        reduced.__dict__["op"] = op
        return Program("k", "trn2", storages, 2, [], [], [reduced])

    add = OPERATORS["add"]
    spelled = Spelled(**{each.name: getattr(add, each.name) for each in dataclasses.fields(add) if each.init})
    assert programs_equal(program(spelled), program(add)) and programs_equal(program(add), program(spelled))
    assert not programs_equal(program(spelled), program(OPERATORS["multiply"]))


def test_an_instruction_runs_after_those_it_names() -> None:
    copy = "    tensor_copy dst=%0 src=%1[offset 0, 512:128, 1:256] @1\n"
    lines = [copy.replace(" @1", f" {words} @1") for words in ("as &1", "as &2", "after &2, &1")]
    program = parse_program(TEXT.replace(copy, "".join(lines)))
    first, second, third = program.walk()
    assert (first.after, second.after, third.after) == ((), (), (second, first))
    assert programs_equal(parse_program(format_program(program)), program)
    for other in ((first, second), (second,), (second, first, second)):
        changed = parse_program(TEXT.replace(copy, "".join(lines)))
        again = list(changed.walk())
        again[2].after = tuple(again[(first, second).index(before)] for before in other)
        assert not programs_equal(changed, program)
    elsewhere = parse_program(TEXT.replace(copy, "".join(lines)))
    own = list(elsewhere.walk())
    own[2].after = (second, own[0])  # the first of these is of another program
    assert not programs_equal(elsewhere, program)


@pytest.mark.parametrize("text", ["", "\n", "program k target trn2 registers 0\n", "body\n", "  body"])
def test_incomplete_text_is_refused(text: str) -> None:
    with pytest.raises(NkiError) as caught:
        parse_program(text)
    assert caught.value.diagnostics[0].code == "NKI-L028"


def test_a_missing_operand_is_the_instructions_own_refusal_at_its_line() -> None:
    with pytest.raises(NkiError) as caught:
        parse_program(TEXT.replace("dst=%0 ", ""), "p.ir")
    problem = caught.value.diagnostics[0]
    assert problem.code == "NKI-L012"
    assert problem.span is not None
    assert (problem.span.line, problem.span.column) == (7, 5)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_escapes_as_a_python_error(data: st.DataObject) -> None:
    """Text with one piece removed or doubled is read or refused, never a host error."""
    text = format_program(example())
    start = data.draw(st.integers(0, len(text) - 1))
    stop = data.draw(st.integers(start, min(len(text), start + 12)))
    piece = data.draw(st.sampled_from(["", text[start:stop] * 2, "%", "]", "9", "-1", '"', "x=", "\n  "]))
    try:
        parse_program(text[:start] + piece + text[stop:])
    except NkiError as problem:
        assert problem.diagnostics[0].span is not None


@pytest.mark.slow
def test_100_000_instructions_print_and_parse_quickly() -> None:
    program = example()
    loop = program.body[1]
    assert isinstance(loop, Loop)
    load, _, matmul, _ = loop.body
    loop.body = [copy.copy(load if k % 2 else matmul) for k in range(100_000)]
    for k, instruction in enumerate(loop.body):
        instruction.stack = stack(*range(k % 50, k % 50 + 8))
    start = time.perf_counter()
    text = format_program(program)
    printed = time.perf_counter()
    again = parse_program(text)
    parsed = time.perf_counter()
    assert programs_equal(program, again)
    assert printed - start < 3
    assert parsed - printed < 15


def test_what_equals_a_default_is_left_out() -> None:
    """Another object of the same value, too: kernels compute what they pass."""
    program = example()
    tile = NkiTensor.whole(program.storages[1])
    scaled = [float(text) for text in ("1.0", "2.0")]
    program.body = [REGISTRY["activation"](dst=tile, op="exp", data=tile, scale=scale) for scale in scaled]
    lines = [line for line in format_program(program).splitlines() if "activation" in line]
    assert ["scale=" in line for line in lines] == [False, True]
