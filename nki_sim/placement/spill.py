"""Spilling: tensors of SBUF that go to HBM and come back, where a kernel holds more than there is.

The body of a Program is gone through in order. Where a node needs tensors for which there is no room, those
held go whose next use is furthest away (Belady's rule; of two, the larger). What goes is stored to HBM right
behind its last write, unless what it holds is overwritten as a whole before it is read; what comes back is
loaded right before the node that uses it next. A copy in HBM stays true until the tensor is written again, so
that a tensor which is only read goes out once and may come back often. What was only loaded, from HBM that
nothing writes, need not go out: the same copies load it again.

Tensors move as a whole, by DMA that is priced, checked and shown as any other. Tensors with addresses,
constants and PSUM stay; a device loop is one node, whose tensors are there throughout it.

Source: SDK guide to the memory hierarchy ("the Neuron compiler will insert the necessary spills") and the
performance guide ("intermediate data spillage": save to HBM, reload); which tensors its compiler picks is not
published.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from nki_isa.cost.transfers import engine_time
from nki_isa.ir.dependencies import may_skip, touched
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ir.program import Node, Program, walk
from nki_isa.ir.rewrite import moved_view, spliced, with_views
from nki_isa.machine.target import Target
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.placement.demand import Demand
from nki_sim.placement.liveness import Liveness, covers
from nki_sim.placement.packing import Space

_NEVER = 1 << 60  # later than any position
_MOST_LOADS = 16  # copies that load a tensor, up to which they are made again instead of a store


@dataclass(slots=True)
class Spill:
    """What becomes of one tensor.

    Attributes:
        storage: the tensor, as the kernel has it.
        stores: how often it goes to HBM.
        loads: how often it comes back.
        bytes_out: bytes stored to HBM.
        bytes_in: bytes loaded from HBM.
    """

    storage: Storage
    stores: int = 0
    loads: int = 0
    bytes_out: int = 0
    bytes_in: int = 0


@dataclass(frozen=True, slots=True)
class Spilled:
    """A Program that holds less.

    Attributes:
        program: with the stores and loads.
        spills: the tensors that go, in order of allocation.
        time: ns that the DMA engines take for it, were nothing else in their way.
    """

    program: Program
    spills: tuple[Spill, ...]
    time: float

    @property
    def bytes_out(self) -> int:
        """Bytes stored to HBM."""
        return sum(spill.bytes_out for spill in self.spills)

    @property
    def bytes_in(self) -> int:
        """Bytes loaded from HBM."""
        return sum(spill.bytes_in for spill in self.spills)


def spilled(program: Program, live: Liveness, target: Target, space: Space) -> Spilled | None:
    """`program` with spills, so that it holds at most what `space` has at once; None where it cannot.

    Args:
        program: it stays as it is.
        live: its live ranges.
        target: the generation, for the time.
        space: SBUF, or less than it.
    """
    return _Spilling(program, live, space).run(target)


class _Use(NamedTuple):
    """A node that touches a tensor.

    Attributes:
        position: of the node in the body.
        is_write: whether it writes the tensor.
        is_fresh: whether it writes all of it, and reads none.
        is_load: whether it copies into it, from HBM that nothing writes.
    """

    position: int
    is_write: bool
    is_fresh: bool
    is_load: bool


class _Spilling:
    """One way through a Program.

    What it keeps of a tensor, by its index: `_held`, where it is now if it is in SBUF; `_saved`, its bytes in
    HBM; `_clean`, whether these are what it holds; `_written`, the last node that wrote it; `_loads_of`, the
    copies from HBM that made what it holds, where nothing else did.
    """

    def __init__(self, program: Program, live: Liveness, space: Space):
        self._program = program
        things = [list(touched(node)) for node in program.body]
        self._demand = Demand(program, live, {MemoryRegion.sbuf: space}, things, {})
        self._uses = _uses(program, self._demand)
        self._turn = dict.fromkeys(self._uses, 0)
        self._storages = list(program.storages)
        self._held: dict[int, Storage] = {}
        self._saved: dict[int, Storage] = {}
        self._clean: set[int] = set()
        self._written: dict[int, int] = {}
        self._loads_of: dict[int, list[Instruction]] = {}
        self._moved: dict[int, dict[Storage, Storage]] = {}
        self._stores: dict[int, list[Instruction]] = {}
        self._loads: dict[int, list[Instruction]] = {}
        self._spills: dict[int, Spill] = {}

    def run(self, target: Target) -> Spilled | None:
        """All of it."""
        demand = self._demand
        room = demand.limit[0] - demand.start[0]
        for position in range(len(self._program.body)):
            needed = [index for index in demand.tensors[position] if index in self._uses]
            coming = [index for index in needed if index not in self._held]
            wanted = demand.inside[position][0] + sum(demand.size[index][0] for index in coming)
            going = self._victims(needed, wanted - room)
            if going is None:
                return None
            for index in going:
                self._go(index)
                room += demand.size[index][0]
            for index in coming:
                self._come(index, position)
                room -= demand.size[index][0]
            room += self._use(needed, position)
        return self._made(target)

    def _made(self, target: Target) -> Spilled:
        inserted = {
            position: (*self._stores.get(position, ()), *self._loads.get(position, ()))
            for position in sorted({*self._stores, *self._loads})
        }
        program = spliced(self._program, self._storages, self._moved, inserted)
        transfers = [copy.cost(target).transfer for copies in inserted.values() for copy in copies]
        time = sum(engine_time(target, moved) for moved in transfers if moved is not None)
        return Spilled(program, tuple(self._spills[index] for index in sorted(self._spills)), time)

    def _next(self, index: int) -> _Use:
        return self._uses[index][self._turn[index]]

    def _victims(self, needed: Sequence[int], lacking: int) -> list[int] | None:
        """The tensors that go to free `lacking` bytes per partition; None where all others do not suffice."""
        if lacking <= 0:
            return []
        size = self._demand.size
        chosen: list[int] = []
        for index in sorted(self._held.keys() - set(needed), key=self._rank):
            chosen.append(index)
            lacking -= size[index][0]
            if lacking <= 0:
                break
        else:
            return None
        for index in chosen[-2::-1]:  # the nearest first: what a larger one behind it has made needless
            if size[index][0] + lacking <= 0:
                chosen.remove(index)
                lacking += size[index][0]
        return chosen

    def _rank(self, index: int) -> tuple[int, int, int]:
        """The furthest next use first; what nothing reads any more before all others."""
        use = self._next(index)
        return -(_NEVER if use.is_fresh else use.position), -self._demand.size[index][0], index

    def _go(self, index: int) -> None:
        held = self._held.pop(index)
        if self._next(index).is_fresh or index in self._clean or index in self._loads_of:
            return
        saved = self._saved.get(index)
        if saved is None:
            saved = self._saved[index] = self._another(held, MemoryRegion.private_hbm, "spill")
        out = _copy("spill", saved, held)
        self._stores.setdefault(self._written[index] + 1, []).append(out)
        self._clean.add(index)
        spill = self._spill(index)
        spill.stores += 1
        spill.bytes_out += _bytes(out)

    def _come(self, index: int, position: int) -> None:
        own = self._program.storages[index]
        if not self._turn[index]:
            self._held[index] = own
            self._written[index] = position
            return
        held = self._held[index] = self._another(own, own.region, own.kind)
        if self._next(index).is_fresh:
            return
        if index in self._loads_of:
            back = [_again(load, own, held) for load in self._loads_of[index]]
        else:
            back = [_copy("reload", held, self._saved[index])]
        self._loads.setdefault(position, []).extend(back)
        spill = self._spill(index)
        spill.loads += 1
        spill.bytes_in += sum(map(_bytes, back))

    def _use(self, needed: Iterable[int], position: int) -> int:
        """Have the node at `position` use what it needs; the bytes per partition that it needed last."""
        freed = 0
        for index in needed:
            own, held, use = self._program.storages[index], self._held[index], self._next(index)
            if held is not own:
                self._moved.setdefault(position, {})[own] = held
            if use.is_write:
                self._written[index] = position
                self._clean.discard(index)
                self._note_load(index, use)
            self._turn[index] += 1
            if self._turn[index] == len(self._uses[index]):
                del self._held[index]
                freed += self._demand.size[index][0]
        return freed

    def _note_load(self, index: int, use: _Use) -> None:
        """Keep the copies that `use` and those before it load the tensor with, if it holds nothing else."""
        is_first = use.is_fresh or not self._turn[index]
        before = [] if is_first else self._loads_of.get(index)
        node = self._program.body[use.position]
        if use.is_load and before is not None and len(before) < _MOST_LOADS and isinstance(node, Instruction):
            self._loads_of[index] = [*before, node]
        else:
            self._loads_of.pop(index, None)

    def _spill(self, index: int) -> Spill:
        return self._spills.setdefault(index, Spill(self._program.storages[index]))

    def _another(self, storage: Storage, region: MemoryRegion, kind: str) -> Storage:
        made = replace(storage, index=len(self._storages), region=region, kind=kind)
        self._storages.append(made)
        return made


def _copy(name: str, dst: Storage, src: Storage) -> Instruction:
    operands = {"dst": NkiTensor.whole(dst), "src": NkiTensor.whole(src)}
    made = REGISTRY["dma_copy"](**operands, name=f"{name} {src.name}", spills=True)
    made.stack = src.stack
    return made


def _again(load: Instruction, own: Storage, held: Storage) -> Instruction:
    """The copy that loaded the tensor `own`, to where it is held now."""
    made = with_views(load, partial(moved_view, moved={own: held}))
    made.__dict__.update(name=f"reload {own.name}", spills=True)
    made.stack, made.after = own.stack, ()
    return made


def _bytes(copy: Instruction) -> int:
    (dst,) = copy.writes
    return dst.size * dst.dtype.itemsize


def _uses(program: Program, demand: Demand) -> dict[int, list[_Use]]:
    """The nodes that touch each tensor which may go, by its index."""
    stays = _staying(program)
    found: dict[int, list[_Use]] = {}
    for position, node in enumerate(program.body):
        may_go = [index for index in demand.tensors[position] if demand.size[index][0]]
        may_go = [index for index in may_go if index not in demand.held]
        written = {view.storage.index for inner in walk([node]) for view in inner.writes} if may_go else ()
        for index in may_go:
            is_write = index in written
            is_alone = is_write and isinstance(node, Instruction)
            is_fresh = is_alone and _overwrites(node, index)
            found.setdefault(index, []).append(
                _Use(position, is_write, is_fresh, is_alone and _is_load(node, stays))
            )
    return found


def _staying(program: Program) -> set[Storage]:
    """The tensors in HBM that nothing writes; none where other cores are met, which may write them."""
    if any(instruction.synchronises for instruction in program.walk()):
        return set()
    written = {view.storage for instruction in program.walk() for view in instruction.writes}
    return {storage for storage in program.storages if storage.region.is_hbm and storage not in written}


def _is_load(node: Node, stays: Container[Storage]) -> bool:
    """True for a copy from HBM that would give the same again."""
    if not isinstance(node, REGISTRY["dma_copy"]) or may_skip(node):
        return False
    views = *node.reads, *node.writes
    return all(view.dynamic is None for view in views) and node.reads[0].storage in stays


def _overwrites(node: Node, index: int) -> bool:
    """True if the tensor holds nothing after an instruction that it held before."""
    if not isinstance(node, Instruction) or may_skip(node):
        return False
    mine = (view for view in node.writes if view.storage.index == index)
    is_read = any(view.storage.index == index for view in node.reads)
    return not is_read and any(view.dynamic is None and covers(view) for view in mine)
