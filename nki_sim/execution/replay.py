"""Runs one placed Program again and again without building its machine anew.

A machine is kept with its plan. Before each run it is made what a new machine would be, as far as the
Program can tell: registers and engine states are reset, and so are the bytes of every tensor that is not
wholly written before anything else touches it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program, While
from nki_isa.machine.enums import Engine
from nki_isa.tensor.storage import Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim import process
from nki_sim.execution.binding import is_indirect
from nki_sim.execution.machine import Machine
from nki_sim.execution.memory import ZEROS, Addresses, Array
from nki_sim.execution.result import ExecutionResult
from nki_sim.observe import Listener, finish, hooks


def is_static(program: Program) -> bool:
    """True if every run of `program` does the same accesses: no run-time index or condition decides."""
    return all(_is_static(node) for node in program.body)


def _is_static(node: Node) -> bool:
    if isinstance(node, While):
        return False
    if isinstance(node, Loop):
        bounds = (node.start, node.stop)
        return not any(isinstance(b, VirtualRegister) for b in bounds) and all(map(_is_static, node.body))
    return not node.synchronises and not is_indirect(node)


class Replay:
    """A Program of one core, loaded to be run repeatedly.

    Args:
        program: one that waits for no other core (see :func:`can_replay`).
        placement: (partition, byte) of each on-chip storage by its index.
        fill: the byte of memory nothing has written.
    """

    def __init__(self, program: Program, placement: Addresses, *, fill: int = ZEROS):
        self._machine = Machine(program, placement, fill=fill, repeated=True)
        self._fill = fill
        self._multiplies = any(i.on is Engine.tensor for i in program.walk())
        self._stale = [self._bytes(storage) for storage in stale_storages(program)]

    def _bytes(self, storage: Storage) -> Array:
        return self._machine.memory.view(NkiTensor.whole(storage)).view(np.uint8)

    def __call__(self, inputs: Sequence[Array], listeners: Sequence[Listener] = ()) -> ExecutionResult:
        """One run on `inputs`, which `listeners` follow.

        Raises:
            NkiError: what an instruction refuses while it runs; what listeners find.
        """
        machine = self._machine
        machine.executed = 0
        machine.state.reset()
        machine.state.arguments = None
        registers = machine.memory.registers
        registers[:] = [0] * len(registers)
        for octets in self._stale:
            octets.fill(self._fill)
        machine.load(inputs)
        for start in hooks(listeners, "start"):
            start([machine])
        machine.listen((0, listeners))
        alone = process.one_thread() if self._multiplies else contextlib.nullcontext()
        with alone, process.no_collection(), process.arithmetic():
            list(machine.run())  # yields nothing: no other core takes part
        finish(listeners)
        return machine.result()


def can_replay(program: Program) -> bool:
    """True unless `program` meets other cores or writes one of its constants."""
    return not any(
        i.synchronises or any(t.storage.data is not None for t in i.writes) for i in program.walk()
    )


def stale_storages(program: Program) -> list[Storage]:
    """The storages whose first access in `program` may leave some of their bytes unwritten."""
    settled: set[int] = {tensor.storage.index for tensor in program.inputs}
    settled |= {storage.index for storage in program.storages if storage.data is not None}
    stale: dict[int, Storage] = {}
    for node in program.body:
        straight = isinstance(node, Instruction)
        for instruction in (node,) if isinstance(node, Instruction) else _inside(node):
            read = {tensor.storage.index for tensor in instruction.reads}
            whole = straight and not is_indirect(instruction)
            for tensor in (*instruction.reads, *instruction.writes):
                storage = tensor.storage
                if storage.index in settled or storage.index in stale:
                    continue
                if whole and storage.index not in read and _covers(tensor):
                    settled.add(storage.index)
                else:
                    stale[storage.index] = storage
    for tensor in program.outputs:
        if tensor.storage.index not in settled:
            stale.setdefault(tensor.storage.index, tensor.storage)
    return list(stale.values())


def _inside(region: Loop | While) -> list[Instruction]:
    found: list[Instruction] = []
    for node in region.body:
        found += [node] if isinstance(node, Instruction) else _inside(node)
    return found


def _covers(tensor: NkiTensor) -> bool:
    """True if `tensor` is all of its storage, each element once."""
    return tensor.size * tensor.dtype.itemsize == tensor.storage.partitions * tensor.storage.row_bytes and (
        tensor.is_contiguous() and tensor.offset == 0
    )
