"""What the nodes of a Program hold of SBUF and PSUM: what orders and spills are chosen by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nki_isa.ir.dependencies import Touch
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Program
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_sim.placement.liveness import NEVER, Liveness
from nki_sim.placement.packing import Space
from nki_sim.placement.utilisation import ALL_QUADRANTS, QUADRANTS, quadrants_of

#: Bytes of each memory: of the spaces given in their order, with each quadrant of SBUF by itself if need be.
Bytes = tuple[int, ...]


class Demand:
    """What the nodes of a Program need of the memories.

    Attributes:
        limit: bytes of each memory that tensors without an address can have.
        start: bytes of each memory held before the first instruction, by constants.
        tensors: for each node the storages it touches that other nodes touch too.
        inside: for each node the most bytes of each memory that storages only it touches hold at once.
        size: bytes of a storage in each memory.
        uses: how many nodes touch a storage.
    """

    def __init__(
        self,
        program: Program,
        live: Liveness,
        spaces: Mapping[MemoryRegion, Space],
        touched: Sequence[Sequence[Touch]],
        starts: Mapping[int, int],
    ):
        memories = [(region, part) for region in spaces for part in _parts(region, bool(starts))]
        self.limit: Bytes = tuple(
            spaces[region].capacity - _union(addressed(program, region, part)) for region, part in memories
        )
        self.size: dict[int, Bytes] = {}
        for storage in program.storages:
            if storage.region in spaces and storage.address is None and live.first[storage.index] != NEVER:
                space = spaces[storage.region]
                unit = space.bank or space.align
                taken = -(-storage.row_bytes // unit) * unit
                lanes = quadrants_of(starts.get(storage.index, 0), storage.partitions)
                self.size[storage.index] = tuple(
                    taken * (region is storage.region and part & lanes != 0) for region, part in memories
                )
        touching = [
            dict.fromkeys(thing.index for thing, _ in things if isinstance(thing, Storage))
            for things in touched
        ]
        constants = [s.index for s in program.storages if s.data is not None and s.index in self.size]
        self.uses = dict.fromkeys(self.size, 0)
        for indices in touching:
            for index in indices:
                if index in self.uses:
                    self.uses[index] += 1
        self.start = summed([self.size[index] for index in constants], len(memories))
        self.held = frozenset(constants)
        self.tensors: list[list[int]] = []
        self.inside: list[Bytes] = []
        for node, indices in zip(program.body, touching, strict=True):
            own = [i for i in indices if self.uses.get(i) == 1 and i not in self.held]
            self.tensors.append([i for i in indices if i in self.size and i not in own])
            sizes = [self.size[i] for i in own]
            if isinstance(node, Instruction) or not own:
                self.inside.append(summed(sizes, len(memories)))
            else:
                self.inside.append(_most(live, own, sizes))


def _parts(region: MemoryRegion, is_apart: bool) -> Sequence[int]:
    """What counts as a memory: each quadrant of SBUF if tensors lie side by side, else the whole."""
    return [1 << k for k in range(QUADRANTS)] if is_apart and region is MemoryRegion.sbuf else [ALL_QUADRANTS]


def _union(pieces: Sequence[tuple[int, int, Storage]]) -> int:
    total = end = 0
    for start, stop, _ in pieces:
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def summed(sizes: Sequence[Bytes], memories: int) -> Bytes:
    """The bytes of each of `memories` that `sizes` take together."""
    return tuple(sum(size[m] for size in sizes) for m in range(memories))


def _most(live: Liveness, indices: Sequence[int], sizes: Sequence[Bytes]) -> Bytes:
    """The most bytes of each memory that the storages `indices`, live as they are, hold at once."""
    first, last = live.first[indices], live.last[indices]
    begin = int(first.min())
    change = np.zeros((int(last.max()) - begin + 2, len(sizes[0])), np.int64)
    np.add.at(change, first - begin, np.array(sizes))
    np.add.at(change, last - begin + 1, -np.array(sizes))
    return tuple(change.cumsum(axis=0).max(axis=0).tolist())


def addressed(
    program: Program, region: MemoryRegion, part: int = ALL_QUADRANTS
) -> list[tuple[int, int, Storage]]:
    """(first byte, end, storage) of the storages with an address that have bytes in `part`, by address."""
    found = [
        (s.address[1], s.address[1] + s.row_bytes, s)
        for s in program.storages
        if s.region is region and s.address is not None and quadrants_of(s.address[0], s.partitions) & part
    ]
    return sorted(found, key=lambda row: row[:2])
