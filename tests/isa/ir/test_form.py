"""What a form answers is what each of its instructions answers by itself."""

from __future__ import annotations

import pickle
from typing import Any

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


def arguments(opcode: str) -> st.SearchStrategy[dict[str, Any]]:
    """Those of the sample call of `opcode` with its tensors elsewhere, of other types, or in one storage."""
    typical = sample(opcode)
    names = [name for name in typical.fields if type(typical.__dict__[name]) is NkiTensor]

    @st.composite
    def made(draw: st.DrawFn) -> dict[str, Any]:
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
        return values

    return made()


def variants(opcode: str) -> st.SearchStrategy[Instruction]:
    """What such calls make."""
    return arguments(opcode).map(lambda values: REGISTRY[opcode](**values))


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


def stated(instruction: Instruction) -> dict[str, Any]:
    """All that an instruction holds but its form; numbers with their types, as 1, 1.0 and True are equal."""
    values = {name: value for name, value in instruction.__dict__.items() if name != "form"}
    return {name: (type(value), repr(value), value) for name, value in values.items()}


@pytest.mark.parametrize("opcode", sorted(REGISTRY))
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_an_instruction_made_like_others_is_what_its_call_makes(opcode, data):
    kind, forms = REGISTRY[opcode], Forms(TARGETS["trn2"])
    calls = data.draw(st.lists(arguments(opcode), min_size=2, max_size=5))
    by_position = data.draw(st.integers(0, len(kind.parameters)))
    for values in (*calls, *calls):
        args = tuple(values[name] for name in kind.parameters[:by_position])
        kwargs = {name: value for name, value in values.items() if name not in kind.parameters[:by_position]}
        alone, made = kind(*args, **kwargs), forms.made(kind, args, kwargs)
        if told(forms.check, alone):
            assert made is None
            continue
        assert made is None or (stated(made), made.form) == (stated(alone), alone.form)
        forms.keep(alone, args, kwargs)


def test_calls_with_numbers_that_compare_equal_are_told_apart():
    kind, forms = REGISTRY["memset"], Forms(TARGETS["trn2"])
    tile = NkiTensor.whole(Storage(0, "t", MemoryRegion.sbuf, (128, 64), DTYPES["float32"]))
    for value in (0.0, -0.0, 0, 1, 1.0):
        assert forms.made(kind, (tile, value), {}) is None
        alone = kind(tile, value)
        forms.check(alone)
        forms.keep(alone, (tile, value), {})
    for value in (0.0, -0.0, 0, 1, 1.0):
        made = forms.made(kind, (tile[:, 8:], value), {})
        assert made is None  # of another shape
        made = forms.made(kind, (tile, value), {"name": "n"})
        assert made is None  # of another call
        assert stated(forms.made(kind, (tile, value), {})) == stated(kind(tile, value))


def test_a_name_is_that_of_its_own_call():
    kind, forms = REGISTRY["memset"], Forms(TARGETS["trn2"])
    tile = NkiTensor.whole(Storage(0, "t", MemoryRegion.sbuf, (128, 64), DTYPES["float32"]))
    first = kind(dst=tile, value=0.0, name="first")
    forms.check(first)
    forms.keep(first, (), {"dst": tile, "value": 0.0, "name": "first"})
    made = forms.made(kind, (), {"dst": tile, "value": 0.0, "name": "second"})
    assert made is not None and made.name == "second"
    assert forms.made(kind, (), {"dst": tile, "value": 0.0, "name": 3}) is None


def test_calls_with_lists_are_made_one_by_one():
    """Which tensors are in a list is not seen in what its calls are known by."""
    kind, forms = REGISTRY["dma_compute"], Forms(TARGETS["trn2"])
    given = {name: value for name, value in sample("dma_compute").__dict__.items() if name in kind.parameters}
    alone = kind(**given)
    assert told(forms.check, alone) == []
    forms.keep(alone, (), given)
    assert any(isinstance(value, list) for value in given.values())
    assert forms.made(kind, (), given) is None


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


def test_a_view_that_steps_back_before_its_first_partition_is_told():
    """Also at the first element, of a form that was seen further on."""
    kind, forms = REGISTRY["tensor_copy"], Forms(TARGETS["trn2"])
    tile = NkiTensor.whole(Storage(0, "t", MemoryRegion.sbuf, (128, 64), DTYPES["float32"]))
    for offset in (63, 31, 30, 0, 40):
        given = {"dst": tile[:, 0:32], "src": tile.ap(pattern=[[64, 128], [-1, 32]], offset=offset)}
        alone = kind(**given)
        found = told(forms.check, alone)
        assert bool(found) == (offset < 31)
        if not found:
            forms.keep(alone, (), given)
        assert found == [] or forms.made(kind, (), given) is None


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
