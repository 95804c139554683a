"""Register instructions: 32 bits in and out of tensors of every width."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles import HBM, PSUM, run, tensor

from nki_isa.diagnostics import NkiValidationError
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.targets import TRN2
from nki_isa.ops.register import register_load, register_move, register_store
from nki_isa.tensor.storage import VirtualRegister

REGISTER = VirtualRegister(0)
SCALARS = ["int8", "uint8", "int16", "uint16", "int32", "uint32"]
FLOATS = ["float32", "bfloat16", "float16", "float8_e4m3"]


@given(st.sampled_from(SCALARS), st.data())
def test_load_keeps_integers(dtype, data):
    info = np.iinfo(DTYPES[dtype].numpy)
    value = data.draw(st.integers(int(info.min), int(info.max)))
    source = tensor(1, 1, dtype=dtype, contents=np.array([[value]], info.dtype))
    assert register_load(REGISTER, source).compute(np.array([[value]], info.dtype)) == value
    register_load(REGISTER, source).check(TRN2)


@given(st.integers(-(2**31), 2**31 - 1), st.sampled_from(SCALARS))
def test_store_keeps_the_low_bits(value, dtype):
    got = run(register_store(tensor(1, 1, dtype=dtype), REGISTER), registers=[value])
    bits = DTYPES[dtype].bits
    assert int(got.reshape(-1)[0]) % 2**bits == value % 2**bits


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_pass_as_bits(dtype):
    stored = np.array([[1.5]], DTYPES[dtype].numpy)
    value = register_load(REGISTER, tensor(1, 1, dtype=dtype, contents=stored)).compute(stored)
    assert run(register_store(tensor(1, 1, dtype=dtype), REGISTER), registers=[value]) == stored


@pytest.mark.parametrize("value", [0, 5, -7])
def test_move(value):
    move = register_move(REGISTER, value)
    move.check(TRN2)
    assert move.compute(value) == value
    assert move.registers_written == [REGISTER] and move.registers_read == []
    assert register_move(REGISTER, VirtualRegister(1)).registers_read[0].index == 1


RULES = [
    (None, lambda: register_load(REGISTER, tensor(1, 1, dtype="int32", region=HBM))),
    ("NKI-V101", lambda: register_load(REGISTER, tensor(1, 1, dtype="int32", region=PSUM))),
    ("NKI-V103", lambda: register_load(REGISTER, tensor(1, 2, dtype="int32"))),
    ("NKI-V105", lambda: register_load(REGISTER, tensor(1, 1, dtype="float8_e5m2_x4"))),
    ("NKI-V100", lambda: register_load(REGISTER, 3)),
    ("NKI-V100", lambda: register_load(VirtualRegister(0, frozen=True), tensor(1, 1, dtype="int32"))),
    (None, lambda: register_move(REGISTER, VirtualRegister(0, frozen=True))),
    ("NKI-V100", lambda: register_move(VirtualRegister(0, frozen=True), 1)),
    ("NKI-V100", lambda: register_move(REGISTER, tensor(1, 1, dtype="int32"))),
    ("NKI-V100", lambda: register_move(7, 1)),
    (None, lambda: register_store(tensor(1, 1, dtype="int32", region=HBM), REGISTER)),
    ("NKI-V101", lambda: register_store(tensor(1, 1, dtype="int32", region=PSUM), REGISTER)),
    ("NKI-V103", lambda: register_store(tensor(4, 1, dtype="int32"), REGISTER)),
]


@pytest.mark.parametrize(("code", "make"), RULES)
def test_rules(code, make):
    instruction = make()
    if code is None:
        instruction.check(TRN2)
        return
    with pytest.raises(NkiValidationError) as caught:
        instruction.check(TRN2)
    assert code in [d.code for d in caught.value.diagnostics]


def test_memory_is_slower_than_registers():
    load = register_load(REGISTER, tensor(1, 1, dtype="int32")).cost(TRN2)
    store = register_store(tensor(1, 1, dtype="int32"), REGISTER).cost(TRN2)
    move = register_move(REGISTER, 1).cost(TRN2)
    assert load.busy == store.busy > move.busy > 0
