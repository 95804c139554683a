"""What each instruction touches and how long each tensor is needed, worked out once for a Program."""

from __future__ import annotations

from collections.abc import Hashable

from nki_isa.instruction import Instruction
from nki_isa.ops.sync import core_barrier
from nki_isa.program import Node, Program
from nki_isa.tensor import NkiTensor, Storage
from nki_sim.host import no_collection

Touches = tuple[list[NkiTensor], list[NkiTensor]]
NEVER = -1


class Survey:
    """One walk over a Program.

    Attributes:
        program: the Program.
        touches: tensors read and written, by instruction.
        order: position in program order, by instruction.
        first: position of the first access, by storage index; :data:`NEVER` if there is none.
        last: position of the last access.
        ends: storages that nothing needs after an instruction. A tensor that a loop uses has no end here.
        readers: the last instruction that reads each storage, or one of `reread`, by its index.
        writers: the instructions that write each storage, by its index.
        reread: storages that hold the bytes of an earlier one as another data type, and its index: both were
            given one address, and the later one is read before it is written.
        scatters: True if an instruction writes rows that run-time indices name.
    """

    @no_collection()
    def __init__(self, program: Program):
        count = len(program.storages)
        self.program = program
        self.touches: dict[Instruction, Touches] = {}
        self.order: dict[Instruction, int] = {}
        self.first = [NEVER] * count
        self.last = [NEVER] * count
        self.readers: dict[int, Instruction] = {}
        self.writers: dict[int, list[Instruction]] = {}
        self.ends: dict[Instruction, list[int]] = {}
        self.scatters = False
        self._read_first: set[int] = set()
        self._ending: dict[int, Instruction | None] = {}
        self._walk(program.body, False)
        for index, instruction in self._ending.items():
            if instruction is not None:
                self.ends.setdefault(instruction, []).append(index)
        self.reread = self._reread()
        for later, earlier in self.reread.items():
            self.readers.setdefault(earlier, self.readers[later])

    def _reread(self) -> dict[int, int]:
        latest: dict[Hashable, Storage] = {}
        found: dict[int, int] = {}
        used = [s for s in self.program.storages if self.first[s.index] != NEVER]
        by_hand = [s for s in used if s.on_chip and s.address is not None]
        for storage in sorted(by_hand, key=lambda s: self.first[s.index]):
            place = storage.region, storage.address, storage.partitions, storage.row_bytes
            earlier = latest.get(place)
            if earlier and earlier.dtype != storage.dtype and storage.index in self._read_first:
                found[storage.index] = found.get(earlier.index, earlier.index)
            latest[place] = storage
        return found

    def _walk(self, body: list[Node], looping: bool) -> None:
        for node in body:
            if not isinstance(node, Instruction):
                self._walk(node.body, True)
                continue
            position = self.order[node] = len(self.order)
            reads, writes = self.touches[node] = _touched(node)
            for tensor in reads:
                index = tensor.storage.index
                self.readers[index] = node
                if self.first[index] == NEVER:
                    self._read_first.add(index)
                self._touch(index, position, node, looping)
            for tensor in writes:
                index = tensor.storage.index
                self.writers.setdefault(index, []).append(node)
                self.scatters |= tensor.dynamic is not None and tensor.dynamic.kind == "vector"
                self._touch(index, position, node, looping)

    def _touch(self, index: int, position: int, node: Instruction, looping: bool) -> None:
        if self.first[index] == NEVER:
            self.first[index] = position
        self.last[index] = position
        self._ending[index] = None if looping else node


def _touched(instruction: Instruction) -> Touches:
    """What an instruction reads and writes; nothing for a barrier; kept padding of a layout is not read."""
    if isinstance(instruction, core_barrier):
        return [], []
    kept = [instruction.__dict__[name] for name in instruction.padded]
    return [t for t in instruction.reads if not any(t is k for k in kept)], instruction.writes
