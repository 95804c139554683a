"""Programs by hand for tests of placement, and what places of tensors must not do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

import nki_isa.ops  # noqa: F401  (fills the registry)
from nki_isa.diagnostics import Frame, NkiMemoryError, Span
from nki_isa.ir.instruction import REGISTRY
from nki_isa.ir.program import Node, Program
from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.target import Target
from nki_isa.machine.targets import TRN2
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.placement.place import Placement, place

SBUF, PSUM, HBM = MemoryRegion.sbuf, MemoryRegion.psum, MemoryRegion.shared_hbm
KIB = 1024


class Builder:
    """Programs by hand: every tensor allocated on a line of its own."""

    def __init__(self) -> None:
        self.program = Program("kernel", "trn2", registers=8)
        self.body: list[Node] = self.program.body
        self.line = 0

    def tensor(
        self,
        free: int,
        partitions: int = 128,
        region: MemoryRegion = SBUF,
        dtype: str = "uint8",
        name: str | None = None,
        address: tuple[int, int] | None = None,
        line: int | None = None,
    ) -> NkiTensor:
        self.line += 1
        index = len(self.program.storages)
        span = Span("kernel.py", line or self.line, 5, line or self.line, 30)
        storage = Storage(
            index,
            name or f"t{index}",
            region,
            (partitions, free),
            as_dtype(dtype),
            address,
            stack=(Frame("kernel", span),),
        )
        self.program.storages.append(storage)
        return NkiTensor.whole(storage)

    def write(self, tensor: NkiTensor) -> None:
        self.body.append(REGISTRY["memset"](dst=tensor, value=0))

    def copy(self, dst: NkiTensor, src: NkiTensor) -> None:
        self.body.append(REGISTRY["tensor_copy"](dst=dst, src=src))

    def matmul(self, dst: NkiTensor, src: NkiTensor, accumulate: bool) -> None:
        self.body.append(REGISTRY["nc_matmul"](dst=dst, stationary=src, moving=src, accumulate=accumulate))

    def use(self, *tensors: NkiTensor) -> None:
        """Read `tensors`, at one position."""
        sink = NkiTensor.whole(Storage(0, "sink", HBM, (1, 1), as_dtype("uint8")))
        self.body.append(REGISTRY["dma_copy"](dst=sink, src=tensors[0]))
        for tensor in tensors[1:]:
            self.body.append(REGISTRY["dma_copy"](dst=sink, src=tensor))


def sbuf(capacity: int, target: Target = TRN2) -> Target:
    return dataclasses.replace(target, sbuf_usable_bytes=capacity)


def refused(program: Program, target: Target = TRN2) -> NkiMemoryError:
    with pytest.raises(NkiMemoryError) as caught:
        place(program, target)
    return caught.value


def unrolled(turns: int, free: int = 1024) -> Builder:
    b = Builder()
    for _ in range(turns):
        tile = b.tensor(free, line=7)
        b.write(tile)
        b.use(tile)
    return b


def ranges(program: Program) -> dict[int, tuple[int, int]]:
    """First and last position of each storage of a program without loops."""
    found: dict[int, tuple[int, int]] = {}
    for position, instruction in enumerate(program.walk()):
        for tensor in (*instruction.reads, *instruction.writes):
            index = tensor.storage.index
            if tensor.storage.region.is_hbm:
                continue
            found[index] = (found.get(index, (position, 0))[0], position)
    return found


def pairs_that_overlap(program: Program, placement: Placement) -> Iterator[tuple[Storage, Storage]]:
    live = ranges(program)
    storages = [s for s in program.storages if s.index in live]
    for k, a in enumerate(storages):
        for b in storages[k + 1 :]:
            (first_a, last_a), (first_b, last_b) = live[a.index], live[b.index]
            at_a, at_b = placement.addresses[a.index][1], placement.addresses[b.index][1]
            same_time = first_a <= last_b and first_b <= last_a
            if same_time and at_a < at_b + b.row_bytes and at_b < at_a + a.row_bytes:
                yield a, b
