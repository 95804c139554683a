"""Collectives whose sizes the data say: rules, and what they deliver, against statements of their own."""

import copy

import numpy as np
import pytest

from nki_isa.diagnostics import NkiError
from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.targets import TRN1, TRN2
from nki_isa.ops.samples import sample
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor

HBM, SBUF = MemoryRegion.shared_hbm, MemoryRegion.sbuf


def tensor(*shape, dtype="float32", region=HBM):
    return NkiTensor.whole(Storage(0, "t", region, shape, as_dtype(dtype)))


def call(opcode, **more):
    made = copy.copy(sample(opcode))
    made.__dict__.update(more)
    return made


def told(made, target, code):
    """What the rules of one code say of a call."""
    rules = (*made.constraints, *made.observed)
    found = (rule.broken(made, target) for rule in rules if rule.code == code)
    return [message for message in found if message]


TWO = {
    "srcs": [tensor(6)],
    "dsts": [tensor(8)],
    "replica_group": ((0, 1),),
    "metadata_tensor": tensor(3, 2, dtype="uint32"),
}


def test_slots_are_of_the_size_of_what_is_sent():
    made = call("all_to_all_v", **TWO)
    assert told(made, TRN2, "NKI-C028") == ["dsts has 8 elements, srcs 6, and there are 2 ranks"]
    assert told(call("all_to_all_v", **{**TWO, "dsts": [tensor(12)]}), TRN2, "NKI-C028") == []
    shown = tensor(4, 2, dtype="uint32")
    made = call("all_to_all_v", **{**TWO, "metadata_tensor": shown, "has_rdispls": True})
    assert told(made, TRN2, "NKI-C028") == []


@pytest.mark.parametrize("shape, region, message", [
    ((3, 2), HBM, []), ((1, 3, 2), SBUF, []),
    ((2, 3, 2), SBUF, ["metadata_tensor is in SBUF and of shape [2, 3, 2], it must be of [1, 3, 2]"]),
    ((4, 2), HBM, ["metadata_tensor is of shape [4, 2], it must be of [3, 2]"]),
])  # fmt: skip
def test_shape_of_the_metadata(shape, region, message):
    made = call("all_to_all_v", **{**TWO, "metadata_tensor": tensor(*shape, dtype="uint32", region=region)})
    assert told(made, TRN2, "NKI-V103") == message


def test_rows_of_the_metadata():
    """Counts and displacements of what is sent have a column for each rank; of a gather, one for all."""
    assert [t.shape for t in call("all_to_all_v", **TWO).inputs()] == [(2, 2)]
    assert [t.shape for t in sample("all_gather_v").inputs()] == [(2, 1)]
    assert [t.shape for t in sample("all_gather_v").counted()] == [(1, 4)]
    shown = {**TWO, "metadata_tensor": tensor(4, 2, dtype="uint32"), "has_rdispls": True}
    assert [t.shape for t in call("all_to_all_v", **shown).inputs()] == [(2, 2), (1, 2)]


def test_chunks_go_to_their_slots():
    made = call("all_to_all_v", **{**TWO, "dsts": [tensor(12)]})
    sent = [
        [np.arange(6, dtype=np.float32), np.array([[2, 3], [0, 2]], np.uint32)],
        [np.arange(10, 16, dtype=np.float32), np.array([[1, 0], [5, 0]], np.uint32)],
    ]
    (first, counts), (second, others) = made.exchange((0, 1), sent)
    assert first.compressed().tolist() == [0, 1, 15]
    assert np.flatnonzero(~first.mask).tolist() == [0, 1, 6]
    assert second.compressed().tolist() == [2, 3, 4]
    assert counts.tolist() == [[2, 1]] and others.tolist() == [[3, 0]]
    assert first.dtype == np.float32


def test_what_goes_beyond_a_tensor_names_its_elements():
    made = call("all_to_all_v", **{**TWO, "dsts": [tensor(12)]})
    beyond = [np.zeros(6, np.float32), np.array([[2, 3], [0, 4]], np.uint32)]
    with pytest.raises(NkiError, match="rank 8 sends elements 4 to 6 to rank 9, srcs has 6") as found:
        made.exchange((8, 9), [beyond, beyond])
    assert [d.code for d in found.value.diagnostics] == ["NKI-H001"]


def test_preparation_of_a_gather_sends_one_chunk_to_all():
    made = sample("all_gather_v_prepare")
    table = np.array([[7, 1, 2, 3], [5, 1, 2, 3], [9, 9, 9, 9]], np.uint32)
    assert made.compute(table).tolist() == [[7] * 4, [5] * 4, [0] * 4, [0] * 4]


@pytest.mark.parametrize("group, runs", [
    (tuple(range(8)), True), (tuple(range(8, 16)), True), (tuple(range(32)), True),
    ((0, 16), False), ((7, 8), False),
])  # fmt: skip
def test_groups_of_all_to_all_on_trn1(group, runs):
    """2, 4 or 8 ranks of the same four chips, or all 32 (public notes of inf2 and trn1)."""
    assert bool(told(call("all_to_all", replica_group=(group,)), TRN1, "NKI-C027")) == (not runs)
