"""Who uses the bytes of a memory: readers and writers, scopes, and what to shrink first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nki_isa.ir.program import Program
from nki_isa.tensor.storage import Storage
from nki_sim import words
from nki_sim.placement.place import Holder, Placement, Utilisation
from nki_sim.placement.utilisation import by_line, usage_of

_SEPARATORS = re.compile(r"[/.]+")
_CANDIDATES = 8  # lines looked at as what to shrink
_NO_GAIN = "another moment is as full: this alone saves nothing"
_KIB = 1024


# --- readers and writers


@dataclass(frozen=True, slots=True)
class TensorUse:
    """The accesses to one tensor by one line and opcode, in one role.

    Attributes:
        site: position in :attr:`Uses.sites`.
        writes: True if they write.
        count: how many instructions.
        first: position of the first.
    """

    site: int
    writes: bool
    count: int
    first: int


class Uses:
    """Every access to an on-chip tensor of a Program, by tensor.

    Attributes:
        sites: (opcode, place) of the lines that access tensors.
        storages: index of the storage, one entry for each storage, site and role, in order of storage and
            then of the first access.
        roles: twice the site, plus one for a write, of each entry.
        counts: instructions of each entry.
        firsts: position of the first of them.
    """

    def __init__(self, program: Program):
        numbers: dict[tuple[str, str], int] = {}
        entries: list[tuple[int, int, int]] = []
        for position, instruction in enumerate(program.walk()):
            key = (instruction.opcode, words.place(instruction.stack))
            site = numbers.setdefault(key, len(numbers))
            for role, tensors in ((0, instruction.reads), (1, instruction.writes)):
                touched = {t.storage.index for t in tensors if t.storage.on_chip}
                entries.extend((index, position, 2 * site + role) for index in touched)
        self.sites = list(numbers)
        columns = np.array(entries, np.int64).reshape(-1, 3)
        self._storages, self._positions, roles = columns[np.lexsort((columns[:, 1], columns[:, 0]))].T
        # One number for each pair of storage and role; the first of equal ones is the earliest access.
        pairs = self._storages * (2 * len(numbers) + 1) + roles
        _, first, counts = np.unique(pairs, return_index=True, return_counts=True)
        order = np.argsort(first)
        first = first[order]
        self.storages, self.roles = self._storages[first], roles[first]
        self.counts, self.firsts = counts[order], self._positions[first]
        # Tensors that some instruction reads.
        self._read = set(self.storages[self.roles % 2 == 0].tolist())

    def of(self, storage: Storage) -> list[TensorUse]:
        """The accesses to `storage`, by line, in order of the first."""
        low, high = np.searchsorted(self.storages, [storage.index, storage.index + 1])
        columns = (self.roles[low:high], self.counts[low:high], self.firsts[low:high])
        return [
            TensorUse(r // 2, bool(r % 2), n, at)
            for r, n, at in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def around(self, storage: Storage, position: int) -> tuple[int, int]:
        """The last access at or before `position` and the next one after it; -1 where there is none."""
        low, high = np.searchsorted(self._storages, [storage.index, storage.index + 1])
        positions = self._positions[low:high]
        k = int(np.searchsorted(positions, position, side="right"))
        return (
            int(positions[k - 1]) if k else -1,
            int(positions[k]) if k < len(positions) else -1,
        )

    def is_read(self, storage: Storage) -> bool:
        """True if some instruction reads it."""
        return storage.index in self._read


# --- what to shrink first


@dataclass(frozen=True, slots=True)
class Saving:
    """Tensors of one line that hold bytes at the peak, and what the peak would be without that line's.

    Attributes:
        holders: the tensors live at the peak.
        together: bytes per partition they hold.
        without: bytes the peak would drop by if the line allocated nothing.
        halved: bytes it would drop by if each of its tensors were half as large.
        advice: what to do, in a sentence.
    """

    holders: tuple[Holder, ...]
    together: int
    without: int
    halved: int
    advice: str


def savings(used: Utilisation, uses: Uses) -> list[Saving]:
    """The heaviest lines at the peak, those that lower it most first."""
    at, live = used.peak_at, used.live
    lines = {h.storage.index: group for group in by_line(live) for h in group}
    found = []
    for group in by_line(used.held_at(at))[:_CANDIDATES]:
        line = {h.storage.index for h in lines[group[0].storage.index]}  # those of other turns of a loop too
        rest = usage_of([h for h in live if h.storage.index not in line], len(used.usage))
        without = used.peak - int(rest.max(initial=0))
        halved = used.peak - int(((used.usage + rest + 1) // 2).max(initial=0))
        together = sum(h.storage.row_bytes for h in group)
        advice = _advice(group, used, uses) if without else _NO_GAIN
        found.append(Saving(tuple(group), together, without, halved, advice))
    return sorted(found, key=lambda s: (-s.without, -s.together, s.holders[0].storage.index))


def _advice(group: Sequence[Holder], used: Utilisation, uses: Uses) -> str:
    at, storage = used.peak_at, group[0].storage
    several = f"the {len(group)} of them" if len(group) > 1 else "it"
    if not any(uses.is_read(h.storage) for h in group):
        return f"nothing reads {several}: leave out what writes it"
    before, after = uses.around(storage, at)
    if after - before > max(8, len(used.usage) // 4) and before < at:
        return (
            f"nothing touches {storage.name} from instruction {before} to {after}, across the peak: "
            f"load it later, or store it and load it again"
        )
    if len(group) > 1:
        return f"{len(group)} are held at once: use each before loading the next"
    if storage.row_bytes > storage.dtype.itemsize:
        return "split it along its free dimension, or keep it in a narrower dtype"
    return "it is one element per partition; shrink something else"


# --- scopes


@dataclass(slots=True)
class AllocationScope:
    """Tensors that belong together, as a tree.

    Attributes:
        label: a part of a name, or a function and line.
        holders: all tensors in it, those of the scopes inside included.
        inside: the scopes in it, in order of first allocation.
    """

    label: str
    holders: list[Holder] = field(default_factory=list)
    inside: dict[str, AllocationScope] = field(default_factory=dict)

    def add(self, holder: Holder, path: Iterable[str]) -> None:
        """Enter `holder` in this scope and in those along `path`."""
        scope = self
        scope.holders.append(holder)
        for label in path:
            scope = scope.inside.setdefault(label, AllocationScope(label))
            scope.holders.append(holder)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, AllocationScope]]:
        """The scopes inside, each before those inside it, with their depth."""
        for scope in self.inside.values():
            yield depth, scope
            yield from scope.walk(depth + 1)

    def held(self, used: Utilisation) -> tuple[int, int]:
        """Bytes per partition its tensors hold at the peak of the memory, and the most they hold at once."""
        usage = usage_of(self.holders, len(used.usage))
        return int(usage[used.peak_at]) if len(usage) else 0, int(usage.max(initial=0))

    def report(self, used: Utilisation) -> dict[str, Any]:
        """Plain values of the tree."""
        at_peak, own_peak = self.held(used)
        return {
            "label": self.label,
            "tensors": len(self.holders),
            "at_peak_kib": at_peak / _KIB,
            "own_peak_kib": own_peak / _KIB,
            "inside": [scope.report(used) for scope in self.inside.values()],
        }


def scopes_by_name(holders: Iterable[Holder]) -> AllocationScope | None:
    """The tree that names such as ``attention/scores`` or ``mlp.gate`` make; None if no name has a scope."""
    root = AllocationScope("")
    for holder in holders:
        parts = [part for part in _SEPARATORS.split(holder.storage.name) if part]
        root.add(holder, parts[:-1])
    return root if root.inside else None


def scopes_by_call(holders: Iterable[Holder]) -> AllocationScope:
    """The tree of calls that allocated: function, then the functions it called, then the line."""
    root = AllocationScope("")
    for holder in holders:
        stack = holder.storage.stack
        root.add(holder, [*(frame.function for frame in stack), *([words.place(stack)] if stack else ())])
    return root


# --- as data


def memory_report(program: Program, placement: Placement) -> dict[str, Any]:
    """Utilisation of both memories, with readers and writers, scopes and savings, ready for JSON."""
    uses = Uses(program)
    report = placement.report()
    for region, used in (("sbuf", placement.sbuf), ("psum", placement.psum)):
        facts = report[region]
        for row, holder in zip(facts["allocations"], used.holders, strict=True):
            row["used_by"] = [
                {
                    "opcode": uses.sites[use.site][0],
                    "at": uses.sites[use.site][1],
                    "writes": use.writes,
                    "instructions": use.count,
                    "first": use.first,
                }
                for use in uses.of(holder.storage)
            ]
        facts["shrink_first"] = [
            {
                "names": [h.storage.name for h in saving.holders],
                "at": words.place(saving.holders[0].storage.stack),
                "kib": saving.together / _KIB,
                "saves_kib": saving.without / _KIB,
                "halved_saves_kib": saving.halved / _KIB,
                "advice": saving.advice,
            }
            for saving in savings(used, uses)
        ]
        names, calls = scopes_by_name(used.live), scopes_by_call(used.live)
        facts["scopes"] = {
            "by_name": names.report(used)["inside"] if names else [],
            "by_call": calls.report(used)["inside"],
        }
    return report
