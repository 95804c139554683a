"""Other orders of random programs: nothing that depends on the order of two instructions may change."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np

import nki_isa.ops  # noqa: F401
from nki_isa.dtypes import as_dtype
from nki_isa.instruction import REGISTRY, Instruction
from nki_isa.program import Loop, Node, Program, While, walk
from nki_isa.tensor import MemoryRegion, NkiTensor, Storage, VirtualRegister
from nki_sim.liveness import liveness
from nki_sim.packing import Space
from nki_sim.reorder import Reordering, moved
from nki_sim.utilisation import ALL_QUADRANTS, Holder, quadrants_of, usage_of

SBUF, PSUM, HBM = MemoryRegion.sbuf, MemoryRegion.psum, MemoryRegion.shared_hbm
REGISTERS = 3
BANK = 2048
PROGRAMS = 200


class Maker:
    """A random program: every tensor loaded once, then used at random, and now and then stored."""

    def __init__(self, seed: int, partitions: tuple[int, ...] = (128,)):
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
        what = self.random.choices(
            ["copy", "add", "store", "load", "move", "read", "write", "random", "loop", "while", "meet"],
            [8, 8, 6, 3, 1, 1, 1, 1, 2 * (depth < 2), 1 * (depth < 2), 0.3 * (depth == 0)],
        )[0]
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


def cells(node: Node) -> tuple[set[object], set[object]]:
    """What `node` reads and writes: bytes of tensors, registers, the state of engines."""
    reads: set[object] = set()
    writes: set[object] = set()
    for instruction in walk([node]):
        for tensors, found in ((instruction.reads, reads), (instruction.writes, writes)):
            for tensor in tensors:
                found.update(octets(tensor))
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


def octets(tensor: NkiTensor) -> Iterator[object]:
    """The bytes of a row of `tensor`, by place where its tensor has one."""
    storage, start = tensor.storage, tensor.offset * tensor.dtype.itemsize
    for byte in range(start, start + tensor.shape[1] * tensor.dtype.itemsize):
        yield (storage.region, storage.address[1] + byte) if storage.address else (storage.index, byte)


def regions(node: Node) -> Iterator[Loop | While]:
    if not isinstance(node, Instruction):
        yield node
        for inner in node.body:
            yield from regions(inner)


def conflicts(earlier: Node, later: Node) -> bool:
    """True if `later` may see another value, or be seen by others at another time, if it ran first."""
    reads, writes = cells(earlier)
    read, written = cells(later)
    if writes & (read | written) or reads & written:
        return True
    if any(i.synchronises for node in (earlier, later) for i in walk([node])):
        return True
    before = set(walk([earlier]))
    return any(producer in before for i in walk([later]) for producer in i.after)


def usage(program: Program, region: MemoryRegion, unit: int, starts: dict[int, int] | None = None) -> int:
    """The most bytes per partition of `region` held at once, tensors in whole units.

    With `starts`, tensors have the bytes of the quadrants they lie in; else of all.
    """
    live = liveness(program)
    holders = []
    for storage in program.storages:
        if storage.region is region and live.first[storage.index] >= 0:
            size = storage.row_bytes if storage.address else -(-storage.row_bytes // unit) * unit
            whole = Storage(storage.index, "", region, (128, size), as_dtype("uint8"), storage.address)
            place = (0, 0) if storage.address is None else storage.address
            first, last = int(live.first[storage.index]), int(live.last[storage.index])
            start = (starts or {}).get(storage.index, place[0])
            lanes = ALL_QUADRANTS if starts is None else quadrants_of(start, storage.partitions)
            holders.append(Holder(whole, start, place[1], first, last, lanes))
    return int(usage_of(holders, live.instructions).max(initial=0))


def test_every_conflicting_pair_keeps_its_order_and_what_is_held_fits() -> None:
    made = [0, 0, 0, 0]  # programs and sizes, by the number of orders
    for seed in range(PROGRAMS):
        program = Maker(seed).program
        banks = -(-usage(program, PSUM, BANK) // BANK)
        peak = usage(program, SBUF, 4)
        pairs = [
            (earlier, later)
            for earlier, later in itertools.combinations(program.body, 2)
            if conflicts(earlier, later)
        ]
        for capacity in np.linspace(0.5, 1, 6) * peak:
            spaces = {SBUF: Space(int(capacity), 32, 4), PSUM: Space(max(banks, 1) * BANK, BANK, 4, BANK)}
            found = list(Reordering(program, liveness(program), spaces).orders({}))
            made[len(found)] += 1
            for body in found:
                place = {node: position for position, node in enumerate(body)}
                assert len(body) == len(place) and set(place) == set(program.body), seed
                assert all(place[earlier] < place[later] for earlier, later in pairs), seed
                other = Program("kernel", "trn2", program.storages, program.registers, body=body)
                assert usage(other, SBUF, 4) <= capacity, seed
                assert usage(other, PSUM, BANK) <= max(banks, 1) * BANK, seed
    assert min(made) > 20


def test_with_tensors_side_by_side_each_quadrant_holds_at_most_what_it_has() -> None:
    made = 0
    for seed in range(PROGRAMS):
        program = Maker(seed, (128, 32, 32)).program
        narrow = [s for s in program.storages if s.region is SBUF and not s.address and s.partitions == 32]
        starts = {storage.index: 32 * (k % 4) for k, storage in enumerate(narrow)}
        capacity = int(0.8 * usage(program, SBUF, 4, starts))
        spaces = {SBUF: Space(capacity, 32, 4), PSUM: Space(8 * BANK, BANK, 4, BANK)}
        for body in Reordering(program, liveness(program), spaces).orders(starts):
            other = Program("kernel", "trn2", program.storages, program.registers, body=body)
            assert usage(other, SBUF, 4, starts) <= capacity, seed
            made += usage(other, SBUF, 4) > capacity
    assert made > 20


def test_as_few_nodes_move_as_must() -> None:
    """All orders of five: those of the longest sequence that is kept need not move."""
    before = [REGISTRY["register_move"](dst=VirtualRegister(k), src=k) for k in range(5)]
    for order in itertools.permutations(range(5)):
        kept = max(
            size
            for size in range(6)
            for some in itertools.combinations(order, size)
            if list(some) == sorted(some)
        )
        assert moved(before, [before[k] for k in order]) == 5 - kept
