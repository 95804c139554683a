"""What a form answers is what each of its instructions answers by itself."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nki_isa.diagnostics import NkiError
from nki_isa.ir.form import Forms
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.targets import TARGETS
from nki_isa.ops.samples import sample
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor

_DTYPES = [DTYPES[name] for name in ("float32", "bfloat16", "float8_e4m3", "int32", "uint8")]


def variants(opcode: str) -> st.SearchStrategy[Instruction]:
    """The sample call of `opcode` with its tensors elsewhere, of other types, or in one storage."""
    typical = sample(opcode)
    names = [name for name in typical.fields if type(typical.__dict__[name]) is NkiTensor]

    @st.composite
    def made(draw: st.DrawFn) -> Instruction:
        values = {name: typical.__dict__[name] for name in typical.fields}
        storages: list[Storage] = []
        for name in names:
            view = values[name]
            dtype = draw(st.sampled_from([view.dtype, view.dtype, *_DTYPES]))
            wider = draw(st.integers(1, 3))
            region = draw(st.sampled_from([view.storage.region] * 3 + list(MemoryRegion)))
            shape = (view.storage.shape[0], *view.storage.shape[1:-1], view.storage.shape[-1] * wider)
            address = draw(st.sampled_from([None, None, (0, 0), (32, 64)])) if region.on_chip else None
            kind = draw(st.sampled_from(["local", "input"])) if region.is_hbm else "local"
            storage = Storage(len(storages), name, region, shape, dtype, address, kind)
            if storages and draw(st.booleans()):
                storage = draw(st.sampled_from(storages))
            storages.append(storage)
            whole = NkiTensor.whole(storage)
            rows = draw(st.sampled_from([view.shape[0], 32, 64]))
            offset = draw(
                st.sampled_from([0, 0, 1, 2, 31, 128, 256, 32 * whole.strides[0], 8 * whole.strides[0]])
            )
            strides = (*whole.strides[: view.ndim - 1], 1)
            values[name] = NkiTensor((rows, *view.shape[1:]), strides, offset, dtype, storage)
        return REGISTRY[opcode](**values)

    return made()


def told(check, instruction: Instruction) -> list[tuple[str, str]]:
    """What `check` says of an instruction."""
    try:
        found = check(instruction)
    except NkiError as refused:
        found = refused.diagnostics
    return [(d.code, d.message) for d in found]


@pytest.mark.parametrize("opcode", sorted(REGISTRY))
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_form_answers_for_each_of_its_instructions(opcode, data):
    target = TARGETS[data.draw(st.sampled_from(sorted(TARGETS)))]
    forms = Forms(target)
    for instruction in data.draw(st.lists(variants(opcode), min_size=2, max_size=5)):
        alone = told(lambda i: i.check(target), instruction)
        assert told(forms.check, instruction) == alone
        if instruction.form is None:
            assert alone
            continue
        form = forms.of(instruction)
        assert instruction.form is form
        assert instruction.reads == instruction.views_read()
        assert instruction.writes == instruction.views_written()
        assert form.has_registers == bool(instruction.registers_read or instruction.registers_written)
        assert form.cost(target) == instruction.cost(target)


def test_instructions_that_differ_in_their_place_have_one_form():
    forms = Forms(TARGETS["trn2"])
    tile = NkiTensor.whole(Storage(0, "t", MemoryRegion.sbuf, (128, 4096), DTYPES["float32"]))
    other = NkiTensor.whole(Storage(1, "u", MemoryRegion.sbuf, (128, 4096), DTYPES["float32"]))
    copy = REGISTRY["tensor_copy"]
    for k in range(0, 4096, 64):
        forms.check(copy(tile[:, k : k + 64], other[:, k : k + 64]))
    assert len(forms) == 1
    forms.check(copy(tile[:, 0:64], tile[:, 64:128]))
    forms.check(copy(other[:, 64:128], other[:, 128:192]))
    assert len(forms) == 2  # one storage twice, one view right behind the other
    forms.check(copy(other[:, 64:128], other[:, 192:256]))
    assert len(forms) == 3


@pytest.mark.parametrize("region, width", [("sbuf", 66), ("private_hbm", 66), ("sbuf", 64)])
def test_a_view_of_a_form_that_leaves_its_memory_is_told(region, width):
    """Whatever place the form has been seen at before, and last in the last partitions."""
    forms = Forms(TARGETS["trn2"])
    storage = Storage(0, "t", MemoryRegion(region), (128, width), DTYPES["float32"])
    other = NkiTensor.whole(Storage(1, "u", MemoryRegion.sbuf, (64, 64), DTYPES["float32"]))
    for start in (0, 32 * width, 64 * width):
        for offset in range(4):
            view = NkiTensor((64, 64), (width, 1), start + offset, storage.dtype, storage)
            instruction = REGISTRY["dma_copy"](dst=view, src=other)
            alone = told(lambda i: i.check(forms.target), instruction)
            last = start + offset + 63 * width + 63
            assert bool(alone) == (offset + 64 > width if region == "sbuf" else last >= 128 * width)
            assert told(forms.check, instruction) == alone


def test_flags_tell_forms_apart_and_places_do_not():
    forms = Forms(TARGETS["trn2"])
    tile = NkiTensor.whole(Storage(0, "t", MemoryRegion.sbuf, (128, 64), DTYPES["float32"]))
    for flag in (True, False):
        for k in (0, 32):
            part = tile[:, k : k + 32]
            forms.check(REGISTRY["tensor_scalar"](part, part, "subtract", 1.0, reverse0=flag))
    assert len(forms) == 2


def test_numbers_that_compare_equal_are_told_apart():
    forms = Forms(TARGETS["trn2"])
    tile = NkiTensor.whole(Storage(0, "t", MemoryRegion.sbuf, (128, 64), DTYPES["float32"]))
    for value in (0.0, -0.0, 0, 1, 1.0, float("nan"), float("nan")):
        forms.check(REGISTRY["memset"](tile, value))
    assert len(forms) == 6


def test_a_copy_has_no_form():
    forms = Forms(TARGETS["trn2"])
    instruction = sample("tensor_copy")
    forms.check(instruction)
    assert pickle.loads(pickle.dumps(instruction)).form is None
