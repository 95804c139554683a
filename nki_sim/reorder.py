"""Orders of a Program's instructions that hold less on chip at once than the kernel's own.

The vendor's compiler orders instructions as it likes within their dependences. Of that, these orders are
tried where the kernel's own order does not fit:

1. An instruction that needs a tensor for which there is no room waits, and those behind it go ahead, until
   enough of what others hold has been used for the last time.
2. The same, from an order that works on one result after the other: each instruction moves back to the first
   write to HBM that depends on it, so that nothing is loaded far ahead of its use.

Everything keeps its order that data, registers, engine state, ``no_reorder``, ``depends_on`` and schedules
say. Nothing crosses a barrier or a sendrecv, a device loop moves as a whole, and tensors with addresses that
share bytes count as one tensor. Tensors count as a whole; no instruction is added, left out or changed.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from nki_isa.dependencies import data_dependencies, touched
from nki_isa.instruction import Instruction
from nki_isa.program import Node, Program, walk
from nki_isa.tensor import MemoryRegion, Storage
from nki_sim.liveness import NEVER, Liveness
from nki_sim.packing import Space

#: Bytes of each memory, in the order of the spaces given.
Bytes = tuple[int, ...]


def orders(program: Program, live: Liveness, spaces: Mapping[MemoryRegion, Space]) -> Iterator[list[Node]]:
    """The bodies to try in turn; each holds at most what the memories have.

    Args:
        program: the kernel.
        live: its live ranges.
        spaces: the memories to fit into.
    """
    body = program.body
    needed = _dependencies(program)
    demand = _Demand(program, live, spaces)
    before: list[int] = list(range(len(body)))
    for base in (before, _one_result_after_the_other(body, needed)):
        order = _fitting(base, needed, demand)
        if order is not None and order != before:
            yield [body[k] for k in order]
            before = order


def moved(before: Sequence[Node], after: Sequence[Node]) -> int:
    """How many nodes of `before` must at least move to give `after`."""
    place = {node: k for k, node in enumerate(before)}
    kept: list[int] = []  # by length, the least end of a sequence of nodes that keep their order
    for node in after:
        at = bisect_left(kept, place[node])
        kept[at : at + 1] = [place[node]]
    return len(before) - len(kept)


# --- what must stay behind what


def _dependencies(program: Program) -> list[list[int]]:
    """For each node of the body, those it must stay behind, in program order."""
    body = program.body
    shared = _sharing_bytes(program)
    needed = data_dependencies(body, lambda storage: shared.get(storage, storage))
    place = {node: k for k, node in enumerate(body)}
    fence: int | None = None
    for k, node in enumerate(body):
        for instruction in walk([node]):
            needed[k].update(place[before] for before in instruction.after if before in place)
        needed[k].discard(k)
        if _meets(node):
            needed[k].update(range(0 if fence is None else fence, k))
            fence = k
        elif fence is not None:
            needed[k].add(fence)
    return [sorted(before) for before in needed]


def _meets(node: Node) -> bool:
    return any(instruction.synchronises for instruction in walk([node]))


def _sharing_bytes(program: Program) -> dict[Storage, Hashable]:
    """For storages with addresses, a key that those of overlapping bytes have in common."""
    keys: dict[Storage, Hashable] = {}
    for region in (MemoryRegion.sbuf, MemoryRegion.psum):
        end, key = 0, 0
        for offset, stop, storage in _addressed(program, region):
            key = key if offset < end else key + 1
            end = max(end, stop)
            keys[storage] = (region, key)
    return keys


def _addressed(program: Program, region: MemoryRegion) -> list[tuple[int, int, Storage]]:
    """(first byte, end, storage) of the storages with an address, by address."""
    found = [
        (s.address[1], s.address[1] + s.row_bytes, s)
        for s in program.storages
        if s.region is region and s.address is not None
    ]
    return sorted(found, key=lambda row: row[:2])


def _one_result_after_the_other(body: Sequence[Node], needed: Sequence[Sequence[int]]) -> list[int]:
    """The nodes by the first write to HBM or meeting of cores that needs them; else in their order."""
    wanted = [len(body)] * len(body)
    for k in range(len(body) - 1, -1, -1):
        if any(i.synchronises or any(t.buffer.is_hbm for t in i.writes) for i in walk([body[k]])):
            wanted[k] = k
        for before in needed[k]:
            wanted[before] = min(wanted[before], wanted[k])
    return sorted(range(len(body)), key=wanted.__getitem__)


# --- what is held


class _Demand:
    """What the nodes of a Program need of the memories.

    Attributes:
        limit: bytes of each memory that tensors without an address can have.
        start: bytes of each memory held before the first instruction, by constants.
        tensors: for each node the storages it touches that other nodes touch too.
        inside: for each node the most bytes of each memory that storages only it touches hold at once.
        size: bytes of a storage in each memory.
        uses: how many nodes touch a storage.
    """

    def __init__(self, program: Program, live: Liveness, spaces: Mapping[MemoryRegion, Space]):
        regions = list(spaces)
        self.limit: Bytes = tuple(
            space.capacity - _union(_addressed(program, region)) for region, space in spaces.items()
        )
        self.size: dict[int, Bytes] = {}
        for storage in program.storages:
            if storage.region.on_chip and storage.address is None and live.first[storage.index] != NEVER:
                space = spaces[storage.region]
                unit = space.bank or space.align
                taken = -(-storage.row_bytes // unit) * unit
                self.size[storage.index] = tuple(taken * (r is storage.region) for r in regions)
        touching = [
            dict.fromkeys(thing.index for thing, _ in touched(node) if isinstance(thing, Storage))
            for node in program.body
        ]
        constants = [s.index for s in program.storages if s.data is not None and s.index in self.size]
        self.uses = dict.fromkeys(self.size, 0)
        for indices in touching:
            for index in indices:
                if index in self.uses:
                    self.uses[index] += 1
        self.start = _sum([self.size[index] for index in constants], len(regions))
        self.held = frozenset(constants)
        self.tensors: list[list[int]] = []
        self.inside: list[Bytes] = []
        for node, indices in zip(program.body, touching, strict=True):
            own = [i for i in indices if self.uses.get(i) == 1 and i not in self.held]
            self.tensors.append([i for i in indices if i in self.size and i not in own])
            sizes = [self.size[i] for i in own]
            if isinstance(node, Instruction) or not own:
                self.inside.append(_sum(sizes, len(regions)))
            else:
                self.inside.append(_most(live, own, sizes))


def _union(pieces: Sequence[tuple[int, int, Storage]]) -> int:
    total = end = 0
    for start, stop, _ in pieces:
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def _sum(sizes: Sequence[Bytes], memories: int) -> Bytes:
    return tuple(sum(size[m] for size in sizes) for m in range(memories))


def _most(live: Liveness, indices: Sequence[int], sizes: Sequence[Bytes]) -> Bytes:
    """The most bytes of each memory that the storages `indices`, live as they are, hold at once."""
    first, last = live.first[indices], live.last[indices]
    begin = int(first.min())
    change = np.zeros((int(last.max()) - begin + 2, len(sizes[0])), np.int64)
    np.add.at(change, first - begin, np.array(sizes))
    np.add.at(change, last - begin + 1, -np.array(sizes))
    return tuple(change.cumsum(axis=0).max(axis=0).tolist())


def _fitting(base: Sequence[int], needed: Sequence[Sequence[int]], demand: _Demand) -> list[int] | None:
    """The order that takes, each time, the first node of `base` that may run and fits; None at a dead end."""
    rank = [0] * len(base)
    for position, k in enumerate(base):
        rank[k] = position
    followers: list[list[int]] = [[] for _ in base]
    waits = [len(before) for before in needed]
    for k, before in enumerate(needed):
        for j in before:
            followers[j].append(k)
    size, limit = demand.size, demand.limit
    used, held, uses = list(demand.start), set(demand.held), dict(demand.uses)
    ready: dict[Bytes, list[int]] = {}  # ranks of nodes that may run, by what they need beyond what is held
    memories = range(len(limit))

    def enter(k: int) -> None:
        need = list(demand.inside[k])
        for index in demand.tensors[k]:
            if index not in held:
                for m in memories:
                    need[m] += size[index][m]
        heapq.heappush(ready.setdefault(tuple(need), []), rank[k])

    for k, count in enumerate(waits):
        if not count:
            enter(k)
    order: list[int] = []
    while len(order) < len(base):
        room = [limit[m] - used[m] for m in memories]
        fits = [queue for need, queue in ready.items() if queue and all(map(int.__le__, need, room))]
        if not fits:
            return None
        k = base[heapq.heappop(min(fits))]
        order.append(k)
        for index in demand.tensors[k]:
            if index not in held:
                held.add(index)
                for m in memories:
                    used[m] += size[index][m]
            uses[index] -= 1
            if not uses[index]:
                for m in memories:
                    used[m] -= size[index][m]
        for follower in followers[k]:
            waits[follower] -= 1
            if not waits[follower]:
                enter(follower)
    return order
