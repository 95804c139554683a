"""Operands of matmuls as float32 matrices, made once for all instructions that read the same values.

A tile is read by many matmuls between two writes of it, and to widen it takes as long as a good part of the
product. In instructions that follow each other without a loop it is known before they run which of them read
the same bytes: views of them that are equal, with no write to any of their bytes in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.ir.instruction import Instruction
from nki_isa.machine.dtypes import DType, to_float32
from nki_isa.tensor.storage import SBUF, Storage
from nki_isa.tensor.tensor import NkiTensor, box
from nki_sim.execution.memory import Memory

Array = NDArray[Any]

#: Bytes of a partition that are looked through together.
_STRETCH = 2048

#: What a matrix is known by: storage, offset, shape, strides and data type of a view.
_Key = tuple[Storage, int, tuple[int, ...], tuple[int, ...], DType]


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
        self._made: list[Matrix] = []
        self._valid: dict[_Key, Matrix] = {}  # whose bytes nothing has written since
        self._near: dict[int, list[tuple[int, int, _Key]]] = {}  # by stretch: first byte, end, and whose
        self._viewed: tuple[NkiTensor, Array] | None = None

    def matrix(self, tensor: NkiTensor) -> Callable[[], Array]:
        """As of one that others share, if they read the same values."""
        storage = tensor.storage
        if storage.region is not SBUF:
            return super().matrix(tensor)
        key = storage, tensor.offset, tensor.shape, tensor.strides, tensor.dtype
        found = self._valid.get(key)
        if found is None:
            found = self._valid[key] = Matrix(self._memory.view(tensor), tensor.dtype)
            self._made.append(found)
            first, end = self._bytes(tensor)
            for stretch in _stretches(first, end):
                self._near.setdefault(stretch, []).append((first, end, key))
        found.uses += 1
        return found

    def view(self, tensor: NkiTensor) -> Array:
        """As of all operands; matmuls that add to one tile follow each other."""
        if self._viewed is None or self._viewed[0] is not tensor:
            self._viewed = tensor, super().view(tensor)
        return self._viewed[1]

    def passed(self, instruction: Instruction) -> None:
        """`instruction` is the next; what it writes is new for those after it."""
        for tensor in instruction.writes:
            if tensor.storage.region is SBUF:
                low, high = self._bytes(tensor)
                for stretch in _stretches(low, high):
                    near = self._near.get(stretch)
                    if near:
                        for first, end, key in near:
                            if first < high and low < end:
                                self._valid.pop(key, None)
                        self._near[stretch] = [row for row in near if row[2] in self._valid]

    def _bytes(self, tensor: NkiTensor) -> tuple[int, int]:
        """Where in its partitions `tensor` lies: the first byte, and the end."""
        _, _, first, end = box(tensor)
        byte = self._memory.place(tensor.storage)[1]
        return byte + first, byte + end

    def forget(self) -> None:
        """Another run begins."""
        for made in self._made:
            made.values = None


def _stretches(first: int, end: int) -> range:
    return range(first // _STRETCH, (end - 1) // _STRETCH + 1)
