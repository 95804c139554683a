"""Operands of matmuls as float32 matrices, made once for all instructions that read the same values.

A tile is read by many matmuls between two writes of it, and to widen it takes as long as a good part of the
product. In instructions that follow each other without a loop it is known before they run which of them read
the same bytes: a counter for each stretch of SBUF says which instruction wrote it last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.ir.instruction import Instruction
from nki_isa.machine.dtypes import DType, to_float32
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor, box
from nki_sim.execution.memory import Memory

Array = NDArray[Any]

_STRETCH = 64  # bytes of a partition that one counter is for


class Matrix:
    """The float32 matrix of one view, kept from the first use of its values to the last."""

    __slots__ = ("_dtype", "_left", "_rows", "_view", "uses", "values")

    def __init__(self, view: Array, dtype: DType):
        self._view, self._dtype, self._rows = view, dtype, view.shape[0]
        self.uses = self._left = 0
        self.values: Array | None = None

    def __call__(self) -> Array:
        """The matrix, now."""
        values = self.values
        if values is None:
            values = np.ascontiguousarray(to_float32(self._view, self._dtype)).reshape(self._rows, -1)
            if self.uses > 1:
                self.values, self._left = values, self.uses
        if self.uses > 1:
            self._left -= 1
            if not self._left:
                self.values = None
        return values


class OwnMatrices:
    """Operands for instructions that may run again and again: each makes its matrices when it runs.

    Args:
        memory: where their bytes are.
    """

    def __init__(self, memory: Memory):
        self._memory = memory
        self._rooms: dict[tuple[int, ...], Array] = {}

    def matrix(self, tensor: NkiTensor) -> Callable[[], Array]:
        """What gives the values of `tensor` as a contiguous float32 matrix, whenever it is called."""
        return Matrix(self._memory.view(tensor), tensor.dtype)

    def view(self, tensor: NkiTensor) -> Array:
        """The bytes of `tensor` as an array of its data type, which stays."""
        return self._memory.view(tensor)

    def room(self, shape: tuple[int, ...]) -> Array:
        """A float32 array for what lasts as long as one instruction."""
        found = self._rooms.get(shape)
        if found is None:
            found = self._rooms[shape] = np.empty(shape, np.float32)
        return found


class SharedMatrices(OwnMatrices):
    """Operands for a stretch of instructions that run one after the other, each made once."""

    def __init__(self, memory: Memory):
        super().__init__(memory)
        self._written = np.zeros(memory.sbuf.shape[1] // _STRETCH + 2, np.int64)
        self._position = 0
        self._made: dict[Any, Matrix] = {}

    def matrix(self, tensor: NkiTensor) -> Callable[[], Array]:
        """As of one that others share, if they read the same values."""
        if tensor.storage.region is not MemoryRegion.sbuf:
            return super().matrix(tensor)
        last = int(self._written[self._stretch(tensor)].max())
        key = self._memory.address(tensor), tensor.dtype, last
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = Matrix(self._memory.view(tensor), tensor.dtype)
        found.uses += 1
        return found

    def passed(self, instruction: Instruction) -> None:
        """`instruction` is the next; what it writes is new for those after it."""
        self._position += 1
        for tensor in instruction.writes:
            if tensor.storage.region is MemoryRegion.sbuf:
                self._written[self._stretch(tensor)] = self._position

    def _stretch(self, tensor: NkiTensor) -> slice:
        _, _, first, end = box(tensor)
        byte = self._memory.place(tensor.storage)[1]
        return slice((byte + first) // _STRETCH, (byte + end - 1) // _STRETCH + 1)

    def forget(self) -> None:
        """Another run begins."""
        for made in self._made.values():
            made.values = None
