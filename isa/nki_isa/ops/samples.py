"""A typical call of every instruction, as its class states it: tiles of 128 by 128 where it takes such.

The reference page, the coverage of costs and the benchmark of instructions are made of them.
"""

from __future__ import annotations

import itertools

from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.machine.dtypes import DTYPES
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor


def sample(opcode: str) -> Instruction:
    """A new typical instruction of this name, each operand in a storage of its own."""
    numbers = itertools.count()

    def t(
        shape: tuple[int, ...] = (128, 128), dtype: str = "float32", region: MemoryRegion = MemoryRegion.sbuf
    ) -> NkiTensor:
        number = next(numbers)
        return NkiTensor.whole(Storage(number, f"t{number}", region, shape, DTYPES[dtype]))

    kind = REGISTRY[opcode]
    return kind(**kind.sample(t))
