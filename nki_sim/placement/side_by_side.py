"""At which partitions SBUF tensors of few partitions start, where one behind the other they do not fit.

A tensor of up to 32 partitions may start at partition 0, 32, 64 or 96, one of up to 64 at 0 or 64 (SDK
architecture guide, NKI-V110). Which tensors must start together is what
:class:`~nki_isa.ir.instruction.Starts` of the instructions says:

- what a vector, scalar or gpsimd instruction reads starts together, and so does what it writes;
- a DMA copy takes each tensor where it is;
- any other instruction, and any view whose address is known at run time only, keeps its tensors at 0.

Tensors with addresses, those in PSUM and those of more than 64 partitions do not move, nor does what must
start with one of them. Groups are put, the largest first, where the fullest partition they meet is the least
full; where one fits nowhere, the one before it goes to its next best start. A start at which an instruction
breaks a rule of NKI-V110 is not taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.constraints.operands import start_of
from nki_isa.ir.instruction import Instruction, Starts
from nki_isa.ir.program import Program
from nki_isa.ir.rewrite import moved_view, with_views
from nki_isa.machine.target import Target
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.placement.liveness import NEVER, Liveness
from nki_sim.placement.utilisation import QUADRANTS, quadrant_range

#: Partitions up to which a tensor may start elsewhere than at 0, and where (NKI-V110).
_STARTS = ((32, (0, 32, 64, 96)), (64, (0, 64)))

#: Groups put or taken back at most, beyond two for each.
_TRIES = 1000


def starts(program: Program, live: Liveness, target: Target) -> dict[int, int]:
    """The first partition of each SBUF tensor without an address that does not start at 0, by storage index.

    What is live at once fits then, if a choice that is tried does that; else the fullest partition is as full
    as may be in the program's order.

    Args:
        program: the kernel.
        live: its live ranges.
        target: the generation, for its SBUF and the rules of its instructions.
    """
    moving = sorted(_Groups(program).movable(live), key=lambda g: (-sum(s.row_bytes for s in g), g[0].index))
    if not moving:
        return {}
    moves = {storage.index for group in moving for storage in group}
    used = [s for s in program.storages if s.region is MemoryRegion.sbuf and live.first[s.index] != NEVER]
    usage = _Usage(live)
    for storage in used:
        if storage.index not in moves:
            usage.add([storage], storage.address[0] if storage.address else 0)
    chosen = _chosen(moving, usage, target.sbuf_usable_bytes) or _chosen(moving, usage, math.inf)
    found = {storage.index: start for group, start in zip(moving, chosen, strict=False) for storage in group}
    found = {index: start for index, start in found.items() if start}
    return found if found and _keeps_rules(program, found, target) else {}


def _chosen(groups: Sequence[Sequence[Storage]], usage: _Usage, capacity: float) -> list[int]:
    """A start for each group, with which no partition holds over `capacity`; empty where none is found.

    `usage` has the groups then where one is found, else it is as it was.
    """
    if usage.peak > capacity:
        return []
    chosen: list[int] = []
    waiting: list[list[int]] = []  # for each group so far, the starts left to try, the best last
    for _ in range(2 * len(groups) + _TRIES):
        if len(chosen) == len(groups):
            return chosen
        if len(waiting) == len(chosen):
            group = groups[len(chosen)]
            peaks = {start: usage.peak_with(group, start) for start in _possible(group)}
            fitting = [start for start in peaks if peaks[start] <= capacity]
            waiting.append(sorted(fitting, key=lambda start: (-peaks[start], -start)))
        if waiting[-1]:
            chosen.append(waiting[-1].pop())
            usage.add(groups[len(chosen) - 1], chosen[-1])
        elif chosen:
            waiting.pop()
            usage.add(groups[len(chosen) - 1], chosen.pop(), -1)
        else:
            return []
    for group, start in zip(groups, chosen, strict=False):
        usage.add(group, start, -1)
    return []


def _possible(group: Iterable[Storage]) -> tuple[int, ...]:
    """Where all of `group` may start."""
    widest = max(storage.partitions for storage in group)
    return next((allowed for most, allowed in _STARTS if widest <= most), (0,))


# --- what must start together


class _Groups:
    """SBUF and PSUM tensors by those they must start with; what stays at 0 is one group."""

    def __init__(self, program: Program):
        self._program = program
        self._parent = list(range(len(program.storages) + 1))
        self._stays = len(program.storages)
        for storage in program.storages:
            is_free = storage.region is MemoryRegion.sbuf and storage.address is None
            if not is_free or _possible([storage]) == (0,):
                self._join(storage.index, self._stays)
        for instruction in program.walk():
            self._see(instruction)

    def movable(self, live: Liveness) -> list[list[Storage]]:
        """The groups that may start elsewhere and are used."""
        groups: dict[int, list[Storage]] = {}
        stays = self._root(self._stays)
        for storage in self._program.storages:
            root = self._root(storage.index)
            if root != stays and live.first[storage.index] != NEVER:
                groups.setdefault(root, []).append(storage)
        return list(groups.values())

    def _see(self, instruction: Instruction) -> None:
        reads, writes = instruction.reads, instruction.writes
        views = [*reads, *writes]
        is_static = all(view.dynamic is None for view in views)
        how = instruction.starts
        if how is Starts.free:
            self._keep(view.dynamic.index for view in views if view.dynamic is not None)
        elif how is Starts.lanes and is_static and not instruction.uses_engine_state:
            self._together([view for view in reads if view.storage.on_chip])
            self._together([view for view in writes if view.storage.on_chip])
        else:
            self._keep(view for view in views if view.storage.on_chip)

    def _together(self, views: Sequence[NkiTensor]) -> None:
        """Where they start at one partition now, their tensors move as one; else none of them moves."""
        if len({start_of(view) for view in views}) > 1:
            self._keep(views)
        for view in views[1:]:
            self._join(view.storage.index, views[0].storage.index)

    def _keep(self, views: Iterable[Any]) -> None:
        for view in views:
            if isinstance(view, NkiTensor):
                self._join(view.storage.index, self._stays)

    def _join(self, a: int, b: int) -> None:
        self._parent[self._root(a)] = self._root(b)

    def _root(self, index: int) -> int:
        parent = self._parent
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index


# --- how full the quadrants are


class _Usage:
    """Bytes per partition held in each quadrant at each position."""

    def __init__(self, live: Liveness):
        self._live = live
        self._held: NDArray[np.int64] = np.zeros((QUADRANTS, live.instructions), np.int64)

    @property
    def peak(self) -> int:
        """The most in any partition."""
        return int(self._held.max(initial=0))

    def add(self, group: Iterable[Storage], start: int, sign: int = 1) -> None:
        """Enter `group` from partition `start` on, or with `sign` -1 take it out again."""
        for storage in group:
            self._of(storage, start)[...] += sign * storage.row_bytes

    def peak_with(self, group: Sequence[Storage], start: int) -> int:
        """The most in any partition and at any moment that `group` would have a part in there."""
        self.add(group, start)
        peak = max(int(self._of(storage, start).max(initial=0)) for storage in group)
        self.add(group, start, -1)
        return peak

    def _of(self, storage: Storage, start: int) -> NDArray[np.int64]:
        lanes = quadrant_range(start, storage.partitions)
        first, last = self._live.first[storage.index], self._live.last[storage.index]
        return self._held[lanes.start : lanes.stop, first : last + 1]


# --- what must hold then


def _keeps_rules(program: Program, found: Mapping[int, int], target: Target) -> bool:
    """True if every instruction keeps its rules of start partitions with tensors where `found` puts them."""
    placed = {s: replace(s, address=(found[s.index], 0)) for s in program.storages if s.index in found}
    for instruction in program.walk():
        moved = with_views(instruction, lambda view: moved_view(view, placed))
        if moved is instruction:
            continue
        if any(c.code == "NKI-V110" and c.broken(moved, target) for c in instruction.constraints):
            return False
    return True
