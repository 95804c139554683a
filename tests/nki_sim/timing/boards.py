"""Instructions that are only their costs and operands, and scoreboards that time them."""

from __future__ import annotations

import nki_isa.ops  # noqa: F401  (fills the registry)
from nki_isa.cost import Cost
from nki_isa.ir.fields import Field, Role
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import TRN2
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.timing.scoreboard import Scoreboard

ENGINES = (Engine.vector, Engine.scalar, Engine.gpsimd, Engine.sync)


class Op(Instruction):
    """An instruction that is only its engine, cost and operands."""

    fields = {
        "dst": Field(Role.write, None, name="dst"),
        "sources": Field(Role.reads, (), name="sources"),
        "counter": Field(Role.register_write, None, name="counter"),
        "bound": Field(Role.register_read, None, name="bound"),
    }
    opcode = "op"

    def __init__(self, on, dst=None, sources=(), busy=100.0, latency=200.0, counter=None, bound=None, **cost):
        self.dst, self.sources, self.counter, self.bound = dst, tuple(sources), counter, bound
        self.on = on
        self.price = Cost(busy, latency, "vector_interval", **cost)

    def cost(self, target):
        return self.price


class At:
    """A placement."""

    def __init__(self, addresses):
        self.addresses = addresses


_count = iter(range(1_000_000_000))


def tile(shape, dtype="float32", region="sbuf", kind="local", index=None):
    storage = Storage(
        next(_count) if index is None else index, "t", MemoryRegion(region), shape, as_dtype(dtype), kind=kind
    )
    return NkiTensor.whole(storage)


def part(tensor, *ranges):
    """The box of a tensor with these (start, stop) per dimension."""
    offset = sum(a * s for (a, _), s in zip(ranges, tensor.strides, strict=True))
    return NkiTensor(tuple(b - a for a, b in ranges), tensor.strides, offset, tensor.dtype, tensor.storage)


def timed(instructions, target=TRN2, placement=None):
    board = Scoreboard(target, placement)
    for instruction in instructions:
        board.issue(instruction)
    return board.finish()


def emit(opcode, *args, **kwargs):
    return REGISTRY[opcode](*args, **kwargs)
