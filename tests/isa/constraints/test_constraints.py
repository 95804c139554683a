"""Every documented constraint of every instruction: the legal call passes it, and some case breaks it."""

import itertools

import pytest
from breaking import CASES, LEGAL, A, C, generic_changes, indirect, indirection_changes, t
from tiles import PSUM, tensor, view

from nki_isa.constraints.operands import ENGINE, GENERATION, OPERAND_KINDS
from nki_isa.diagnostics import NkiValidationError
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import TRN1, TRN2, TRN3, since
from nki_isa.ops.base import ComputeInstruction

TARGETS = {2: TRN1, 3: TRN2, 4: TRN3}
OPCODES = sorted(LEGAL)
PACKED = ("tensor_copy", "memset", "nc_transpose")  # take packed data types in every operand


def build(opcode, **changes):
    return REGISTRY[opcode](**{**LEGAL[opcode](), **changes})


def broken_by(opcode, changes, target):
    """The diagnostics of the call, whether it is refused when built or when checked."""
    try:
        build(opcode, **changes).check(target)
    except NkiValidationError as found:
        return found.diagnostics
    return ()


def test_every_compute_instruction_is_covered():
    compute = {name for name, cls in REGISTRY.items() if issubclass(cls, ComputeInstruction)}
    assert compute == set(LEGAL) == set(CASES)


@pytest.mark.parametrize("opcode", OPCODES)
def test_legal_calls_pass_on_every_generation(opcode):
    for version, target in TARGETS.items():
        if version >= since(REGISTRY[opcode].needs):
            build(opcode).check(target)


@pytest.mark.parametrize(
    "opcode, case", [(o, c) for o in OPCODES for c in CASES[o]], ids=lambda x: str(x)[:60]
)
def test_cases_are_refused_with_the_value_received(opcode, case):
    found = broken_by(opcode, case.changes, case.target)
    assert any(d.code == case.code and case.words in d.message for d in found), [str(d) for d in found]
    assert all(d.help for d in found)


@pytest.mark.parametrize("opcode", OPCODES)
def test_tensors_are_refused_in_every_generic_way(opcode):
    for name, code, changes, target in generic_changes(opcode):
        if code == "NKI-V108" and not broken_by(opcode, changes, target):
            continue  # an operand that can be indirect
        if code == "NKI-V105" and (opcode in PACKED or (opcode, name) == ("quantize_mx", "dst")):
            continue
        found = broken_by(opcode, changes, target)
        assert any(d.code == code and name in d.message for d in found), (name, code, [str(d) for d in found])


@pytest.mark.parametrize("opcode", OPCODES)
def test_every_constraint_has_a_case_that_breaks_it(opcode):
    cls = REGISTRY[opcode]
    assert cls.constraints[:3] == (OPERAND_KINDS, GENERATION, ENGINE)
    cases = itertools.chain(
        ((c.changes, c.target) for c in CASES[opcode]),
        ((changes, target) for _, _, changes, target in generic_changes(opcode)),
        indirection_changes(opcode),
    )
    open_rules = set(range(len(cls.constraints))) - {1, 2}  # generation and engine: see below
    for changes, target in cases:
        try:
            instruction = build(opcode, **changes)
        except NkiValidationError:
            continue
        for k in {0} if instruction.misfits else list(open_rules):  # other rules are of the right kinds
            if cls.constraints[k].broken(instruction, target) is not None:
                open_rules.discard(k)
    assert not open_rules, [
        f"{cls.constraints[k].code} {cls.constraints[k].rule}" for k in sorted(open_rules)
    ]


@pytest.mark.parametrize("opcode", OPCODES)
def test_an_older_generation_refuses(opcode):
    cls = REGISTRY[opcode]
    for version, target in TARGETS.items():
        found = GENERATION.broken(build(opcode), target)
        assert (found is not None) == (version < since(cls.needs))


@pytest.mark.parametrize("opcode", OPCODES)
def test_an_engine_without_it_refuses(opcode):
    instruction = build(opcode)
    for engine in Engine:
        instruction.on = engine
        assert (ENGINE.broken(instruction, TRN2) is not None) == (engine not in REGISTRY[opcode].engines)


@pytest.mark.parametrize("opcode", OPCODES)
def test_every_constraint_is_documented(opcode):
    for constraint in REGISTRY[opcode].constraints:
        assert constraint.rule.endswith(".") and constraint.help and constraint.source
    assert REGISTRY[opcode].__doc__ and "Source:" in REGISTRY[opcode].__doc__


# --- shared rules, their edges


@pytest.mark.parametrize(
    "partitions, start, legal",
    [
        (128, 0, True), (65, 0, True), (64, 64, True), (33, 64, True), (32, 96, True), (1, 32, True),
        (33, 32, False), (65, 32, False), (64, 32, False), (32, 16, False), (1, 1, False), (1, 127, False),
    ],
)  # fmt: skip
def test_start_partitions(partitions, start, legal):
    placed = tensor(partitions, 4, address=(start, 0))
    inside = view(tensor(128, 4), (partitions, 4), (4, 1), start * 4)
    for src in (placed, inside):
        found = broken_by("tensor_copy", {"dst": tensor(partitions, 4), "src": src}, TRN2)
        assert [d.code for d in found] == ([] if legal else ["NKI-V110"])


def test_six_dimensions_are_fine_if_they_merge():
    tile = tensor(2, 2, 2, 2, 2, 2)
    assert not broken_by("tensor_copy", {"dst": tile, "src": tensor(2, 32)}, TRN2)


def test_elements_read_again_count_once():
    """Each row's mean, in PSUM, is subtracted from rows longer than PSUM: its free dimension has stride 0."""
    mean = view(tensor(64, 160, region=PSUM), (64, 160, 48), (160, 1, 0))
    rows = tensor(64, 160, 48)
    assert not broken_by("tensor_tensor", {"dst": rows, "data1": rows, "data2": mean}, TRN2)


def test_an_integer_tile_is_set_to_a_whole_number():
    assert not broken_by("memset", {"dst": t(dtype="uint32"), "value": 0.0}, TRN2)


def test_a_partition_cannot_be_broadcast():
    row = view(tensor(1, 16), (64, 16), (0, 1))
    found = broken_by("tensor_copy", {"src": row}, TRN2)
    assert [d.code for d in found] == ["NKI-V115"]


def test_limits_follow_the_generation():
    src = tensor(1, 60_000)
    assert [d.code for d in broken_by("tensor_copy", {"dst": src, "src": src}, TRN1)] == ["NKI-V104"]
    assert not broken_by("tensor_copy", {"dst": src, "src": src}, TRN3)
    psum = tensor(1, 4096, region=PSUM)
    assert not broken_by("tensor_copy", {"dst": psum, "src": psum}, TRN1)


def test_indirect_views():
    copy = {"dst": t(), "src": indirect(t(), address=32)}
    assert not broken_by("tensor_copy", copy, TRN3)
    assert [d.code for d in broken_by("tensor_copy", copy, TRN2)] == ["NKI-V108"]
    assert [d.code for d in broken_by("tensor_copy", {**copy, "engine": Engine.gpsimd}, TRN3)] == ["NKI-V106"]
    scattered = {"dst": indirect(t(region=PSUM)), "engine": Engine.scalar}
    assert [d.code for d in broken_by("tensor_copy", scattered, TRN3)] == ["NKI-V101"]
    source = tensor(*A, address=(64, 0))
    for start, codes in ((32, ["NKI-V110"]), (96, ["NKI-V110"]), (64, [])):
        apart = {"dst": indirect(t(), address=start), "src": source}
        assert [d.code for d in broken_by("tensor_copy", apart, TRN3)] == codes
    for start in (1, 16, 33):
        lost = {"dst": t(), "src": indirect(t(), address=start)}
        assert [d.code for d in broken_by("tensor_copy", lost, TRN3)] == ["NKI-V110"]


@pytest.mark.parametrize("dtype, codes", [("int32", ["NKI-V113"]), ("uint32", ["NKI-V113"]), ("int16", [])])
def test_arithmetic_of_addresses_takes_no_indirect_view(dtype, codes):
    """The form of tensor_scalar for int32 addresses; bits and other data types are not addresses."""
    tiles = {"dst": t(dtype=dtype), "data": indirect(t(dtype=dtype))}
    assert [d.code for d in broken_by("tensor_scalar", tiles, TRN3)] == codes
    bits = {**tiles, "op0": "bitwise_and", "operand0": 1, "op1": None, "operand1": None}
    assert not broken_by("tensor_scalar", bits, TRN3)
    assert not broken_by("tensor_scalar", {**tiles, "data": t(dtype=dtype)}, TRN3)


def test_all_broken_rules_are_reported_at_once():
    found = broken_by("tensor_tensor", {"dst": t((32, 16)), "data1": t((64, 8)), "op": "exp"}, TRN2)
    assert [d.code for d in found] == ["NKI-V103", "NKI-V103", "NKI-V107"]
    assert found[0].notes[1].startswith("source: ")


def test_missing_operands_are_named():
    found = broken_by("tensor_copy", {"src": None}, TRN2)
    assert [d.code for d in found] == ["NKI-V100"] and "src is None" in found[0].message
    assert "operand0 is None" in broken_by("tensor_scalar", {"operand0": None}, TRN2)[0].message


def test_columns_may_have_one_dimension():
    column = view(tensor(*C), (64,), (1,))
    assert not broken_by("tensor_scalar", {"operand0": column}, TRN2)
    assert not broken_by("activation", {"reduce_res": column}, TRN2)
