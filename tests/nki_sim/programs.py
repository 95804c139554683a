"""Builds small Programs for tests of the machine: storages side by side, instructions in order."""

import numpy as np

from nki_isa.ir.program import Loop, Program, While
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.targets import as_target
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.cores.device import execute
from nki_sim.execution.memory import Memory

SBUF, PSUM, HBM, SHARED = (MemoryRegion(n) for n in ("sbuf", "psum", "private_hbm", "shared_hbm"))


class Builder:
    """A Program under construction, with a place for everything on chip."""

    def __init__(self, target="trn2"):
        self.program = Program("kernel", target)
        self.placement = {}
        self.arrays = []
        self._body = self.program.body
        self._free = {SBUF: 0, PSUM: 0}

    def tensor(self, *shape, dtype="float32", region=SBUF, at=None, **given):
        """A tensor of its own storage, placed after the others unless `at` says where."""
        index = len(self.program.storages)
        storage = Storage(index, f"t{index}", region, shape, DTYPES[dtype], **given)
        self.program.storages.append(storage)
        if region.on_chip:
            self.placement[storage.index] = at or (0, self._free[region])
            self._free[region] += -(-storage.row_bytes // 64) * 64
        return NkiTensor.whole(storage)

    def input(self, array, dtype=None):
        """A kernel argument."""
        name = dtype or array.dtype.name
        tensor = self.tensor(*array.shape, dtype=name, region=SHARED, kind="input")
        self.program.inputs.append(tensor)
        self.arrays.append(array)
        return tensor

    def output(self, *shape, dtype="float32"):
        """A result in HBM."""
        tensor = self.tensor(*shape, dtype=dtype, region=SHARED)
        self.program.outputs.append(tensor)
        return tensor

    def register(self, frozen=False):
        """A new register."""
        self.program.registers += 1
        return VirtualRegister(self.program.registers - 1, frozen)

    def emit(self, *instructions):
        """Append checked instructions."""
        for instruction in instructions:
            instruction.check(as_target(self.program.target))
            self._body.append(instruction)

    def loop(self, stop, start=0, step=1, body=None):
        """Append a loop whose body `body(index)` emits."""
        index = self.register(frozen=True)
        self._region(Loop(index, start, stop, step), lambda: body(index))

    def while_(self, condition, body):
        """Append a while loop whose body `body()` emits."""
        self._region(While(condition), body)

    def _region(self, region, body):
        self._body.append(region)
        outer, self._body = self._body, region.body
        body()
        self._body = outer

    def memory(self, **given):
        """The memories of the Program."""
        return Memory(as_target(self.program.target), self.program, self.placement, **given)

    def run(self, **given):
        """Execute it."""
        return execute(self.program, self.placement, self.arrays, **given)


def at(tensor, index, limit=None, stride=None, size=None, dim=0):
    """`tensor` shifted along `dim` by a run-time index; `size` elements remain of that dimension."""
    stride = tensor.strides[dim] if stride is None else stride
    shape = list(tensor.shape)
    if size is not None:
        shape[dim] = size
    limit = tensor.shape[dim] - shape[dim] + 1 if limit is None else limit
    dynamic = DynamicOffset("scalar", index, stride, -1, limit)
    return NkiTensor(tuple(shape), tensor.strides, tensor.offset, tensor.dtype, tensor.storage, dynamic)


def rows(tensor, index, count=None):
    """The rows of `tensor` that `index` names."""
    count = index.size if count is None else count
    dynamic = DynamicOffset("vector", index, tensor.strides[0], 0, tensor.shape[0])
    shape = (count, *tensor.shape[1:])
    return NkiTensor(shape, (0, *tensor.strides[1:]), tensor.offset, tensor.dtype, tensor.storage, dynamic)


def columns(tensor, index, count):
    """The columns of an on-chip tile that the offsets in `index` name (tensor indirection)."""
    free = int(np.prod(tensor.shape[1:]))
    dynamic = DynamicOffset("indirect", index, 1, 1, free)
    shape = (tensor.shape[0], count)
    return NkiTensor(shape, (tensor.strides[0], 0), tensor.offset, tensor.dtype, tensor.storage, dynamic)


def view(tensor, shape, strides, offset=0, dtype=None):
    """Another view of a tensor's storage."""
    name = tensor.dtype if dtype is None else DTYPES[dtype]
    return NkiTensor(tuple(shape), tuple(strides), offset, name, tensor.storage)
