"""Orders of a Program's instructions that hold less on chip at once than the kernel's own.

The vendor's compiler orders instructions as it likes within their dependencies. Of that, these orders are
tried where the kernel's own order does not fit:

1. An instruction that needs a tensor for which there is no room waits, and those behind it go ahead, until
   enough of what others hold has been used for the last time.
2. The same, from an order that works on one result after the other: each instruction moves back to the first
   write to HBM that depends on it, so that nothing is loaded far ahead of its use.
3. As 2, but results that the kernel stores one right after the other are worked on together, as they may
   share what is large; what takes more than it reads, a load for instance, moves back to its first use; and
   of what can run, what frees more than it takes goes first.

Everything keeps its order that data, registers, engine state, ``no_reorder``, ``depends_on`` and schedules
say. Nothing crosses a barrier or a sendrecv, a device loop moves as a whole, and tensors with addresses that
share bytes count as one tensor. Tensors count as a whole, in all partitions or, where it is given at which
they start, in the quadrants they lie in; no instruction is added, left out or changed.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial

from nki_isa.ir.dependencies import Touch, data_dependencies, touched
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Node, Program, walk
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_sim.placement.demand import Bytes, Demand, addressed, summed
from nki_sim.placement.liveness import Liveness
from nki_sim.placement.packing import Space


class Reordering:
    """A Program whose instructions may run in other orders."""

    def __init__(self, program: Program, live: Liveness, spaces: Mapping[MemoryRegion, Space]):
        """Find what must stay behind what.

        Args:
            program: the kernel.
            live: its live ranges.
            spaces: the memories to fit into.
        """
        self._program = program
        self._touched = [list(touched(node)) for node in program.body]
        self._needed = _dependencies(program, self._touched)
        self._results = [k for k, node in enumerate(program.body) if _is_result(node)]
        self._demand = partial(Demand, program, live, spaces, self._touched)
        self._whole = self._demand({})

    def orders(self, starts: Mapping[int, int]) -> Iterator[list[Node]]:
        """The bodies to try in turn; each holds at most what the memories have.

        Args:
            starts: the first partition of SBUF tensors that are not at 0, by index
                (:mod:`nki_sim.placement.side_by_side`); empty to take the bytes of all partitions for each.
        """
        body = self._program.body
        demand = self._demand(starts) if starts else self._whole
        before: list[int] = list(range(len(body)))
        for base, is_freeing in self._bases():
            order = _Fitting(base, self._needed, demand, is_freeing).order()
            if order is not None and order != before:
                yield [body[k] for k in order]
                before = order

    def _bases(self) -> Iterator[tuple[list[int], bool]]:
        """The orders to go by in turn, and whether what frees memory goes before them."""
        yield list(range(len(self._needed))), False
        yield _by_result(self._needed, {k: k for k in self._results}), False
        together = _by_result(self._needed, self._stored_together())
        yield self._loaded_late(together), True

    def _stored_together(self) -> dict[int, int]:
        """For each result the last of its group.

        A result joins the one before it if less is taken on chip between the two than what it stores has.
        """
        groups: list[list[int]] = []
        demand = self._whole
        known = set(demand.held)
        begin = 0
        for k in self._results:
            taken = 0
            for j in range(begin, k + 1):
                new = [index for index in demand.tensors[j] if index not in known]
                known.update(new)
                taken += sum(demand.inside[j]) + sum(sum(demand.size[index]) for index in new)
            begin = k + 1
            if groups and taken < max((s.row_bytes for s in self._on_chip(k, is_write=False)), default=0):
                groups[-1].append(k)
            else:
                groups.append([k])
        return {k: group[-1] for group in groups for k in group}

    def _loaded_late(self, base: Sequence[int]) -> list[int]:
        """`base` with each instruction that takes more than it reads right before the first that needs it."""
        body = self._program.body
        wanted = [len(base)] * len(base)
        place = [0] * len(base)
        for position in range(len(base) - 1, -1, -1):
            k = base[position]
            place[k] = position
            if isinstance(body[k], Instruction) and wanted[k] < len(base):
                sizes = (sum(s.row_bytes for s in self._on_chip(k, is_write=w)) for w in (False, True))
                if next(sizes) < next(sizes):
                    place[k] = wanted[k]
            for before in self._needed[k]:
                wanted[before] = min(wanted[before], place[k])
        return sorted(base, key=place.__getitem__)

    def _on_chip(self, k: int, is_write: bool) -> dict[Storage, None]:
        """The SBUF and PSUM storages that node `k` reads or writes."""
        found = (thing for thing, writes in self._touched[k] if writes is is_write)
        return dict.fromkeys(thing for thing in found if isinstance(thing, Storage) and thing.on_chip)


def moved(before: Sequence[Node], after: Sequence[Node]) -> int:
    """How many nodes of `before` must at least move to give `after`."""
    place = {node: k for k, node in enumerate(before)}
    kept: list[int] = []  # by length, the least end of a sequence of nodes that keep their order
    for node in after:
        at = bisect_left(kept, place[node])
        kept[at : at + 1] = [place[node]]
    return len(before) - len(kept)


# --- what must stay behind what


def _dependencies(program: Program, touched: Sequence[Sequence[Touch]]) -> list[list[int]]:
    """For each node of the body, those it must stay behind, in program order."""
    body = program.body
    shared = _sharing_bytes(program)
    needed = data_dependencies(touched, lambda storage: shared.get(storage, storage))
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
        for offset, stop, storage in addressed(program, region):
            key = key if offset < end else key + 1
            end = max(end, stop)
            keys[storage] = (region, key)
    return keys


# --- which orders to go by


def _is_result(node: Node) -> bool:
    """True if others may see what `node` does: it writes to HBM or meets other cores."""
    return any(i.synchronises or any(t.buffer.is_hbm for t in i.writes) for i in walk([node]))


def _by_result(needed: Sequence[Sequence[int]], ends: Mapping[int, int]) -> list[int]:
    """The nodes by the first result that needs them, in their order among each other; others last.

    Args:
        needed: for each node those it must stay behind.
        ends: for each result the position it counts as.
    """
    wanted = [ends.get(k, len(needed)) for k in range(len(needed))]
    for k in range(len(needed) - 1, -1, -1):
        for before in needed[k]:
            wanted[before] = min(wanted[before], wanted[k])
    return sorted(range(len(needed)), key=wanted.__getitem__)


# --- what comes next


class _Queues:
    """Nodes that may run, by what they need beyond what is held; the first that fits is found quickly."""

    def __init__(self, rank: Sequence[int]):
        self._rank = rank
        self._ranks: dict[Bytes, list[int]] = {}

    def add(self, k: int, need: Bytes) -> None:
        heapq.heappush(self._ranks.setdefault(need, []), self._rank[k])

    def first(self, room: Bytes, done: set[int]) -> int | None:
        """The least rank that is not `done` among nodes that need at most `room`."""
        found = None
        for need, ranks in self._ranks.items():
            if all(map(int.__le__, need, room)):
                while ranks and ranks[0] in done:
                    heapq.heappop(ranks)
                if ranks and (found is None or ranks[0] < found):
                    found = ranks[0]
        return found


class _Fitting:
    """Takes, each time, the first node of an order that may run and fits.

    Args:
        base: the order to go by.
        needed: for each node, those that come before it.
        demand: what nodes hold, and what there is.
        is_freeing: True to have those come first that free more than they take.
    """

    def __init__(
        self, base: Sequence[int], needed: Sequence[Sequence[int]], demand: Demand, is_freeing: bool
    ):
        self._base, self._demand, self._is_freeing = base, demand, is_freeing
        self._rank = [0] * len(base)
        for position, k in enumerate(base):
            self._rank[k] = position
        self._followers: list[list[int]] = [[] for _ in base]
        self._waits = [len(before) for before in needed]
        for k, before in enumerate(needed):
            for j in before:
                self._followers[j].append(k)
        self._used, self._held, self._uses = list(demand.start), set(demand.held), dict(demand.uses)
        # The nodes still to come that touch a storage, added up: the last one where only one is left.
        self._users = dict.fromkeys(self._uses, 0)
        for k, indices in enumerate(demand.tensors):
            for index in indices:
                self._users[index] += k
        self._ready, self._freeing = _Queues(self._rank), _Queues(self._rank)
        self._done: set[int] = set()  # ranks

    def order(self) -> list[int] | None:
        """The order of all nodes; None at a dead end."""
        for k, count in enumerate(self._waits):
            if not count:
                self._enter(k)
        found: list[int] = []
        while len(found) < len(self._base):
            room = tuple(limit - used for limit, used in zip(self._demand.limit, self._used, strict=True))
            chosen = self._freeing.first(room, self._done)
            if chosen is None:
                chosen = self._ready.first(room, self._done)
            if chosen is None:
                return None
            self._done.add(chosen)
            found.append(self._base[chosen])
            self._run(self._base[chosen])
        return found

    def _enter(self, k: int) -> None:
        """Node `k` may run."""
        demand, memories = self._demand, len(self._demand.limit)
        tensors = demand.tensors[k]
        taken = summed([demand.size[index] for index in tensors if index not in self._held], memories)
        need = tuple(map(int.__add__, taken, demand.inside[k]))
        self._ready.add(k, need)
        if self._is_freeing:
            freed = summed([demand.size[index] for index in tensors if self._uses[index] == 1], memories)
            if taken != freed and all(map(int.__le__, taken, freed)):
                self._freeing.add(k, need)

    def _run(self, k: int) -> None:
        """Node `k` runs: it takes what it needs, frees what it is the last to touch, and others may run."""
        for index in self._demand.tensors[k]:
            if index not in self._held:
                self._held.add(index)
                self._take(index, 1)
            self._uses[index] -= 1
            self._users[index] -= k
            if not self._uses[index]:
                self._take(index, -1)
        for follower in self._followers[k]:
            self._waits[follower] -= 1
            if not self._waits[follower]:
                self._enter(follower)
        if self._is_freeing:
            for index in self._demand.tensors[k]:
                last = self._users[index]
                if self._uses[index] == 1 and not self._waits[last] and self._rank[last] not in self._done:
                    self._enter(last)

    def _take(self, index: int, sign: int) -> None:
        for m, octets in enumerate(self._demand.size[index]):
            self._used[m] += sign * octets
