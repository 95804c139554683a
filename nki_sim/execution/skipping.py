"""DMA whose out-of-bounds part does not happen (``oob_mode.skip``)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nki_isa.ir.fields import Role
from nki_isa.ir.instruction import Instruction
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.memory import Array, Memory, stored


@dataclass(slots=True)
class Skipped:
    """What the instructions of a line with ``oob_mode.skip`` left out, over all their turns.

    Attributes:
        instruction: the first of them.
        skipped: rows that an index out of bounds left out; whole transfers, for scalar offsets.
        total: how many there were.
    """

    instruction: Instruction
    skipped: int = 0
    total: int = 0

    def __str__(self) -> str:
        vector = any(_is_vector(t) for t in (*self.instruction.reads, *self.instruction.writes))
        place = f"{self.instruction.stack[-1].span}: " if self.instruction.stack else ""
        return (
            f"{place}{self.instruction.opcode} skipped {self.skipped:,} of {self.total:,} "
            f"{'rows' if vector else 'transfers'}, whose run-time index is out of bounds (oob_mode.skip)"
        )


class Skips:
    """Runs instructions with ``oob_mode.skip``, and counts what they leave out.

    Args:
        memory: what they work on.

    Attributes:
        by_line: what was left out, by opcode and line.
    """

    def __init__(self, memory: Memory):
        self._memory = memory
        self.by_line: dict[Hashable, Skipped] = {}

    def run(self, instruction: Any, compute: Callable[..., Any]) -> None:
        """Run `instruction`, which computes with `compute`, without its out-of-bounds part.

        A scalar offset out of bounds skips the transfer, an index of a vector its row. `instruction.route`
        says where in the destination each source element goes.
        """
        memory = self._memory
        self._count(instruction)
        arguments: list[Any] = []
        where: Array | None = None
        for description, value in instruction.operands():
            if description.role is Role.write:
                continue
            tensors = value if description.role is Role.reads else (value,)
            arrays = []
            for tensor in tensors:
                if _is_vector(tensor):
                    array, inside = memory.gather(tensor, skip=True)
                    if inside is not None:  # an instruction gathers one source at most
                        where = instruction.route(inside)
                elif memory.scalar_shift(tensor) is None:
                    return
                else:
                    array = memory.bind(tensor)
                arrays.append(array)
            arguments.append(arrays if description.role is Role.reads else arrays[0])
        dst = instruction.dst
        if dst.dynamic is not None and not _is_vector(dst) and memory.scalar_shift(dst) is None:
            return
        values = stored(compute(*arguments), dst.dtype, dst.shape)
        if _is_vector(dst):
            memory.scatter(dst, values, where, skip=True)
        else:
            memory.store(dst, values, where)

    def _count(self, instruction: Instruction) -> None:
        dynamic = [t for t in (*instruction.reads, *instruction.writes) if t.dynamic is not None]
        outside = np.zeros(1, np.bool_)
        for mask in map(self._memory.outside, dynamic):
            if mask.size == outside.size or 1 in (mask.size, outside.size):
                outside = outside | mask
        line = instruction.opcode, (instruction.stack[-1].span if instruction.stack else instruction)
        counted = self.by_line.setdefault(line, Skipped(instruction))
        counted.skipped += int(np.count_nonzero(outside))
        counted.total += outside.size


def _is_vector(tensor: NkiTensor) -> bool:
    return tensor.dynamic is not None and tensor.dynamic.kind == "vector"
