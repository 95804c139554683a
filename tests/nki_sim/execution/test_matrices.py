"""Matrices that instructions share are kept from the first use to the last."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nki_isa.ops  # noqa: F401  (fills the registry)
from nki_isa.ir.instruction import REGISTRY
from nki_isa.ir.program import Program
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.targets import TRN2
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.matrices import Matrix, SharedMatrices
from nki_sim.execution.memory import Memory


@pytest.mark.parametrize("uses", [0, 1, 2, 3])
def test_a_matrix_is_kept_while_it_is_used(uses):
    """Kept values are those of the first use; without a number of uses, each has those of its own time."""
    octets = np.arange(8, dtype=np.float16).reshape(2, 2, 2)
    matrix = Matrix(octets, DTYPES["float16"])
    matrix.uses = uses
    for _ in range(2):  # the same plan runs again
        first = octets.reshape(2, 4).astype(np.float32)
        for use in range(max(uses, 1)):
            found = matrix()
            assert found.dtype == np.float32 and np.array_equal(found, first)
            assert (matrix.values is not None) == (use + 1 < uses)
            octets[...] += 1


def tile(index: int, width: int) -> NkiTensor:
    return NkiTensor.whole(Storage(index, f"t{index}", MemoryRegion.sbuf, (128, width), DTYPES["bfloat16"]))


#: A part of one of two tensors: which, its first element and how many.
parts = st.tuples(st.integers(0, 1), st.integers(0, 3), st.sampled_from([1, 3]))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["read", "write"]), parts), min_size=8, max_size=40),
    st.integers(0, 8191),
)
def test_a_matrix_is_shared_until_a_byte_of_it_is_written(accesses, place):
    """Two tensors lie over each other by half, anywhere; parts are of 256 elements, from any of 256 on."""
    tiles = [tile(0, 2048), tile(1, 2048)]
    program = Program("k", "trn2", storages=[t.storage for t in tiles])
    addresses = {0: (0, 4 * place), 1: (0, 4 * place + 2048)}
    operands = SharedMatrices(Memory(TRN2, program, addresses))
    scratch = NkiTensor.whole(Storage(2, "s", MemoryRegion.psum, (128, 1024), DTYPES["float32"]))
    valid: dict[object, object] = {}
    known: list[object] = []
    for kind, part in accesses:
        which, first, count = part
        view = tiles[which][:, 256 * first : 256 * (first + count)]
        start = 512 * first + 2048 * which
        touched = set(range(start, start + 512 * count))
        if kind == "read":
            made = operands.matrix(view)
            if part in valid:
                assert valid[part][0] is made
            else:
                assert made not in known
            known.append(made)
            valid[part] = made, touched
        else:
            operands.passed(REGISTRY["tensor_copy"](dst=view, src=scratch[:, : 256 * count]))
            valid = {p: (m, octets) for p, (m, octets) in valid.items() if not octets & touched}
