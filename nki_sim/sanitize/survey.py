"""What each instruction touches and how long each tensor is needed, worked out once for a Program."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Node, Program
from nki_isa.ops.meeting import Meeting
from nki_isa.tensor.storage import Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.process import no_collection

Touch = tuple[Sequence[NkiTensor], Sequence[NkiTensor]]
"""Tensors read and written."""

NEVER = -1


class Touches(Mapping[Instruction, Touch]):
    """What each instruction of a Program reads and writes: nothing for a barrier, no padding that is kept.

    Mostly it is its operands, which the form of an instruction gives at once; the rest is kept.
    """

    def __init__(self, program: Program):
        self._program = program
        self._kept: dict[Instruction, Touch] = {}

    def __getitem__(self, instruction: Instruction) -> Touch:
        form = instruction.form
        is_plain = not instruction.padded and not instruction.synchronises
        if is_plain and form is not None and form.is_given:
            values = instruction.__dict__
            return form.reads(values), form.writes(values)
        found = self._kept.get(instruction)
        if found is None:
            found = self._kept[instruction] = _touched(instruction)
        return found

    def __iter__(self) -> Iterator[Instruction]:
        return self._program.walk()

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Survey:
    """One walk over a Program.

    Attributes:
        program: the Program.
        touches: tensors read and written, by instruction.
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
        self.touches = Touches(program)
        self.first = [NEVER] * count
        self.last = [NEVER] * count
        self.readers: dict[int, Instruction] = {}
        self.writers: dict[int, list[Instruction]] = {}
        self.ends: dict[Instruction, list[int]] = {}
        self.scatters = False
        self._position = 0
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
            position = self._position
            self._position += 1
            reads, writes = self.touches[node]
            first, last, ending, end = self.first, self.last, self._ending, None if looping else node
            for tensor in reads:
                index = tensor.storage.index
                self.readers[index] = node
                if first[index] == NEVER:
                    self._read_first.add(index)
                    first[index] = position
                last[index] = position
                ending[index] = end
            for tensor in writes:
                index = tensor.storage.index
                writers = self.writers.get(index)
                if writers is None:
                    self.writers[index] = [node]
                else:
                    writers.append(node)
                if tensor.dynamic is not None:
                    self.scatters |= tensor.dynamic.kind == "vector"
                if first[index] == NEVER:
                    first[index] = position
                last[index] = position
                ending[index] = end


def _touched(instruction: Instruction) -> Touch:
    if isinstance(instruction, Meeting) and not instruction.moves:
        return [], []
    kept = [instruction.__dict__[name] for name in instruction.padded]
    return [t for t in instruction.reads if not any(t is k for k in kept)], instruction.writes
