"""Random programs, and what in them must keep its order, said byte by byte."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping

import nki_isa.ops  # noqa: F401
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ir.program import Loop, Node, Program, While, walk
from nki_isa.machine.dtypes import as_dtype
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor

SBUF, PSUM, HBM = MemoryRegion.sbuf, MemoryRegion.psum, MemoryRegion.shared_hbm
REGISTERS = 3
KINDS = ("copy", "add", "store", "load", "move", "read", "write", "random", "loop", "while", "meet")
Places = Mapping[int, tuple[int, int]]
NOWHERE: Places = {}


class Maker:
    """A random program: every tensor loaded once, then used at random, and now and then stored."""

    def __init__(self, seed: int, partitions: tuple[int, ...] = (128,), kinds: tuple[str, ...] = KINDS):
        self.kinds = kinds
        self.random = random.Random(seed)
        self.partitions = itertools.cycle(partitions)
        self.program = Program("kernel", "trn2", registers=REGISTERS + 4)
        self.index = itertools.count(REGISTERS)
        self.source, self.result = self.tensor(64, HBM), self.tensor(64, HBM)
        self.cell = self.tensor(1, dtype="int32")
        self.tensors: list[NkiTensor] = []
        body = self.program.body
        for _ in range(self.random.randint(4, 8)):
            region = self.random.choice([SBUF, SBUF, SBUF, PSUM])
            address = (0, 32 * self.random.randrange(4)) if region is SBUF and self.chance(0.2) else None
            tensor = self.tensor(self.random.choice([16, 32, 64]), region, address)
            self.tensors.append(tensor)
            body.append(self.make("memset", dst=tensor, value=0))
            if self.chance(0.5):
                body.append(self.node(0))
        for _ in range(self.random.randint(6, 24)):
            body.append(self.node(0))
        for later in range(1, len(body)):
            earlier = body[self.random.randrange(later)]
            if (
                self.chance(0.05)
                and isinstance(body[later], Instruction)
                and isinstance(earlier, Instruction)
            ):
                body[later].after = (earlier,)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def tensor(
        self,
        columns: int,
        region: MemoryRegion = SBUF,
        address: tuple[int, int] | None = None,
        dtype: str = "uint8",
    ) -> NkiTensor:
        index = len(self.program.storages)
        partitions = next(self.partitions)
        storage = Storage(index, f"t{index}", region, (partitions, columns), as_dtype(dtype), address)
        self.program.storages.append(storage)
        return NkiTensor.whole(storage)

    def part(self, columns: int = 8) -> NkiTensor:
        tensor = self.random.choice(self.tensors)
        start = self.random.randrange(0, tensor.shape[1], columns)
        return tensor[:, start : start + columns]

    def register(self) -> VirtualRegister:
        return VirtualRegister(self.random.randrange(REGISTERS))

    def make(self, opcode: str, **operands: object) -> Instruction:
        return REGISTRY[opcode](**operands)

    def node(self, depth: int) -> Node:
        shares = [8, 8, 6, 3, 1, 1, 1, 1, 2 * (depth < 2), 1 * (depth < 2), 0.3 * (depth == 0)]
        chosen = [(kind, share) for kind, share in zip(KINDS, shares, strict=True) if kind in self.kinds]
        what = self.random.choices([kind for kind, _ in chosen], [share for _, share in chosen])[0]
        cell = self.cell[0:1, 0:1]
        match what:
            case "copy":
                return self.make("tensor_copy", dst=self.part(), src=self.part())
            case "add":
                return self.make(
                    "tensor_tensor", dst=self.part(), data1=self.part(), data2=self.part(), op="add"
                )
            case "store":
                start = self.random.randrange(0, 64, 8)
                return self.make("dma_copy", dst=self.result[:, start : start + 8], src=self.part())
            case "load":
                return self.make("dma_copy", dst=self.part(), src=self.source[:, 0:8])
            case "move":
                return self.make("register_move", dst=self.register(), src=1)
            case "read":
                return self.make("register_load", dst=self.register(), src=cell)
            case "write":
                return self.make("register_store", dst=cell, src=self.register())
            case "random":
                return self.make("rng", dst=self.part())
            case "meet":
                return self.make("core_barrier", data=self.result, cores=(0, 1))
        body = [self.node(depth + 1) for _ in range(self.random.randint(1, 3))]
        if what == "while":
            return While(self.register(), body)
        stop = self.register() if self.chance(0.3) else 2
        return Loop(VirtualRegister(next(self.index), True), 0, stop, 1, body)


def cells(node: Node, places: Places = NOWHERE) -> tuple[set[object], set[object]]:
    """What `node` reads and writes: bytes of tensors, registers, the state of engines."""
    reads: set[object] = set()
    writes: set[object] = set()
    for instruction in walk([node]):
        for tensors, found in ((instruction.reads, reads), (instruction.writes, writes)):
            for tensor in tensors:
                found.update(octets(tensor, places))
        reads.update(("register", r.index) for r in instruction.registers_read)
        writes.update(("register", r.index) for r in instruction.registers_written)
        if instruction.uses_engine_state:
            writes.add(instruction.on)
    for region in regions(node):
        if isinstance(region, While):
            reads.add(("register", region.condition.index))
        else:
            writes.add(("register", region.index.index))
            if isinstance(region.stop, VirtualRegister):
                reads.add(("register", region.stop.index))
    return reads, writes


def octets(tensor: NkiTensor, places: Places) -> Iterator[object]:
    """The bytes of a row of `tensor`, by place where its tensor has one."""
    storage, start = tensor.storage, tensor.offset * tensor.dtype.itemsize
    address = places.get(storage.index, storage.address)
    for byte in range(start, start + tensor.shape[1] * tensor.dtype.itemsize):
        yield (storage.region, address[1] + byte) if address else (storage.index, byte)


def regions(node: Node) -> Iterator[Loop | While]:
    if not isinstance(node, Instruction):
        yield node
        for inner in node.body:
            yield from regions(inner)


def conflicts(earlier: Node, later: Node, places: Places = NOWHERE) -> bool:
    """True if `later` may see another value, or be seen by others at another time, if it ran first."""
    reads, writes = cells(earlier, places)
    read, written = cells(later, places)
    if writes & (read | written) or reads & written:
        return True
    if any(i.synchronises for node in (earlier, later) for i in walk([node])):
        return True
    before = set(walk([earlier]))
    return any(producer in before for i in walk([later]) for producer in i.after)


def crowded(program: Program, seed: int) -> Places:
    """Places for the tensors on chip that share bytes, as those of an allocator do over time."""
    chance = random.Random(seed)
    return {
        storage.index: (0, chance.randrange(0, 64, 16))
        for storage in program.storages
        if storage.region in (SBUF, PSUM)
    }
