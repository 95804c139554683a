"""What must stay behind what: two nodes keep their order if one writes what both touch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nki_isa.ops  # noqa: F401  (fills the registry)
from nki_isa.ir.dependencies import data_dependencies, may_skip, touched
from nki_isa.ir.instruction import REGISTRY
from nki_isa.ir.program import Loop, While
from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.enums import Engine, oob_mode
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor

BODIES = st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=3), max_size=8)


def tensor(partitions, free, dtype="float32"):
    return NkiTensor.whole(Storage(0, "t", MemoryRegion.sbuf, (partitions, free), as_dtype(dtype)))


@given(BODIES)
def test_the_order_kept_is_that_of_all_conflicts(body):
    found = data_dependencies(body)
    written = [{thing for thing, is_write in things if is_write} for things in body]
    used = [{thing for thing, _ in things} for things in body]
    behind = []  # all that a node stays behind, by way of others too
    for k, before in enumerate(found):
        conflicts = {j for j in range(k) if written[j] & used[k] or written[k] & used[j]}
        assert before <= conflicts
        behind.append(before.union(*(behind[j] for j in before)))
        assert conflicts <= behind[k]


def test_storages_with_a_key_in_common_are_one():
    one, other, apart = (tensor(128, 4).storage for _ in range(3))
    body = [[(one, True)], [(apart, True)], [(other, False)]]
    assert data_dependencies(body) == [set(), set(), set()]
    assert data_dependencies(body, lambda storage: storage is apart) == [set(), set(), {0}]


def test_an_instruction_touches_its_tensors_registers_and_the_state_of_its_engine():
    dst, src = tensor(128, 4), tensor(128, 4)
    copy = REGISTRY["tensor_copy"](dst=dst, src=src, engine=Engine.vector)
    assert sorted(touched(copy), key=str) == sorted([(src.storage, False), (dst.storage, True)], key=str)
    move = REGISTRY["register_move"](dst=VirtualRegister(2), src=VirtualRegister(1))
    assert list(touched(move)) == [(1, False), (2, True)]
    generated = REGISTRY["rand_get_state"](dst=tensor(128, 6, dtype="uint32"), engine=Engine.vector)
    assert (Engine.vector, True) in list(touched(generated))
    assert not any(thing is Engine.vector for thing, _ in touched(copy))


def test_a_loop_touches_its_bounds_its_index_and_what_its_body_does():
    dst = tensor(128, 4)
    body = [REGISTRY["memset"](dst=dst, value=0.0)]
    start, stop, index = (VirtualRegister(k) for k in range(3))
    loop = list(touched(Loop(index, start, stop, 1, body)))
    assert loop == [(0, False), (1, False), (2, True), (dst.storage, True)]
    assert list(touched(Loop(index, 0, 4, 1, body))) == [(2, True), (dst.storage, True)]
    assert list(touched(While(stop, body))) == [(1, False), (dst.storage, True)]


@pytest.mark.parametrize("mode, skips", [(oob_mode.skip, True), (oob_mode.error, False)])
def test_only_what_skips_leaves_bytes_as_they_were(mode, skips):
    dst, src = tensor(128, 4), tensor(128, 4)
    assert may_skip(REGISTRY["dma_copy"](dst=dst, src=src, oob_mode=mode)) is skips
    assert may_skip(REGISTRY["tensor_copy"](dst=dst, src=src)) is False
