"""Tensors of 64 bits are moved as they are, and computed with by nothing."""

from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.targets import TRN2
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor


def tensor(dtype, number, region=MemoryRegion.shared_hbm):
    return NkiTensor.whole(Storage(number, f"t{number}", region, (4, 8), DTYPES[dtype]))


def test_dma_copies_64_bits_to_64_bits_only():
    wide, other, narrow = tensor("int64", 0), tensor("int64", 1), tensor("int32", 2)
    told = [[d.code for d in REGISTRY["dma_copy"](dst=dst, src=wide)._too_wide()] for dst in (other, narrow)]
    assert told == [[], ["NKI-V105"]]
    REGISTRY["dma_copy"](dst=other, src=wide).check(TRN2)
