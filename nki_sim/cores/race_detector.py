"""Finds unordered accesses of several cores to the same bytes of shared HBM.

Cores are ordered against each other only where they meet. Each core carries a
vector clock: its own component counts its meetings, the others what it has learnt
of in them. An access of one core races with one of another if at least one of them
writes, they share a byte, and neither core had heard of the other's access.

For each shared tensor a shadow keeps the last write and the last read by each core of
every unit of bytes, the narrowest element it is accessed by; an access is compared with
the shadow through its own strides, so what is reported is exact, and an access costs no
more than copying its elements.

Kernels that do not look at ``nl.program_id`` run whole on every core of a launch, and
all cores write the same results to the same place. So unordered writes of a byte race
only if the cores' last ones differ: whoever comes last, the byte is the same. A byte
that only ever got one value in between may be read by each of them, too. Such cores do
the same work, which is noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import Diagnostic, Label, NkiError, Severity, Span, span_of
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Program, programs_equal
from nki_isa.ops.collective import Collective
from nki_isa.ops.meeting import Meeting
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.observe import Core

_Array = NDArray[Any]
_Touches = dict[Instruction, list[tuple[int, NkiTensor, bool]]]


@dataclass(frozen=True, slots=True)
class _Access:
    """One access to shared HBM: who, in which of the core's periods between meetings, by what."""

    core: int
    period: int
    instruction: Instruction
    tensor: NkiTensor


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the units of a view lie in an array of one element per unit, and the rows selected of it."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    rows: NDArray[np.int64] | None

    def of(self, units: _Array) -> _Array:
        """The elements of `units` for this view; a view of them unless rows are selected."""
        width = units.itemsize
        strides = tuple(s * width for s in self.strides)
        buffer: Any = units
        whole: _Array = np.ndarray(self.shape, units.dtype, buffer, self.offset * width, strides)
        return whole if self.rows is None else whole[self.rows]

    def put(self, units: _Array, value: Any) -> None:
        """Set the elements for this view."""
        whole = _Layout(self.shape, self.strides, self.offset, None).of(units)
        whole[... if self.rows is None else self.rows] = value


@dataclass(frozen=True, slots=True)
class _Write:
    """A write under way over bytes that another core used unordered: what they held, and who used them.

    Attributes:
        identity: the id of `access`.
        before: the units it may change.
        conflicts: for each kind of earlier access (True for writes), its ids, 0 where there is none.
    """

    access: _Access
    identity: int
    number: int
    layout: _Layout
    before: _Array
    conflicts: list[tuple[bool, _Array]]


@dataclass(frozen=True, slots=True)
class _Overwritten:
    """Of each unit of a shared tensor: what one core left there and another wrote over, unordered.

    Attributes:
        values: the unit as the first core left it.
        left: the id of the access that left it, 0 for units nobody wrote over.
        later: the id of the last access that wrote over it.
    """

    values: _Array
    left: _Array
    later: _Array


@dataclass(slots=True)
class _Repeated:
    """Writes of two lines, by two cores, of the same values to the same bytes.

    Attributes:
        octets: how many bytes.
    """

    earlier: _Access
    later: _Access
    octets: int = 0

    def noted(self) -> Diagnostic:
        """The note about the two lines."""
        first, core = span_of(self.earlier.instruction.stack), self.later.core
        return Diagnostic(
            "NKI-H023",
            f"core {core} writes {self.octets:,} bytes of {self.later.tensor.name} that core "
            f"{self.earlier.core} writes too, with the same values",
            span=span_of(self.later.instruction.stack),
            help="give each core its own part, by nl.program_id(0), or let one core write it",
            labels=(Label(first, f"core {self.earlier.core} writes it here"),) if first else (),
            stack=self.later.instruction.stack,
            severity=Severity.note,
        )

    def all_of_it(self, cores: int) -> Diagnostic:
        """The note that the cores do all of their work in common."""
        return Diagnostic(
            "NKI-H023",
            f"{'both' if cores == 2 else f'all {cores}'} cores do the same work: the kernel is the same "
            "whatever nl.program_id(0) is, and they write the same results to the same place",
            span=span_of(self.later.instruction.stack),
            help="give each core its own part, by nl.program_id(0), or launch the kernel on one core",
            stack=self.later.instruction.stack,
            severity=Severity.note,
        )


class RaceDetector:
    """Compares the accesses of all cores to shared HBM.

    Args:
        machines: the cores, whose k-th tensors in shared HBM are the same bytes.
    """

    def __init__(self, machines: Sequence[Core]):
        memories = self._memories = [machine.memory for machine in machines]
        programs = [machine.program for machine in machines]
        shared = [[s for s in p.storages if s.region is MemoryRegion.shared_hbm] for p in programs]
        self._shared = shared[0]
        cores = range(len(memories))
        # clocks[a][b]: the last period of core b that core a has heard the end of, its own the present one
        self._clocks = [[1 if a == b else 0 for b in cores] for a in cores]
        self._accesses: list[_Access] = []
        used = [_accesses(*one) for one in zip(programs, shared, strict=True)]
        self._in_flight = _in_flight(programs, shared)
        changing = {
            k
            for core in (*used, *self._in_flight)
            for touches in core.values()
            for k, _, writes in touches
            if writes
        }
        # nobody races over what nobody writes; most instructions touch nothing of the rest
        self._touches = [
            {i: kept for i, touches in core.items() if (kept := [t for t in touches if t[0] in changing])}
            for core in used
        ]
        self._units = _units([*used, *self._in_flight], shared[0])
        self._shadows: dict[tuple[int, int, bool], _Array] = {}
        self._agreed: dict[int, _Array] = {}  # units to which cores wrote the same, unordered
        self._overwritten: dict[int, _Overwritten] = {}
        self._writing: list[list[_Write]] = [[] for _ in cores]
        self._found: dict[tuple[Span | None, Span | None], Diagnostic] = {}
        self._repeated: dict[tuple[Span | None, Span | None], _Repeated] = {}
        self._programs = programs

    def before(self, core: int, instruction: Instruction) -> None:
        """`instruction` of `core` is about to run."""
        if self._writing[core]:
            self._settle(core)
        for number, tensor, writes in self._touches[core].get(instruction, ()):
            self._touch(core, instruction, number, tensor, writes=writes)

    def meet(self, group: Sequence[tuple[int, Meeting]]) -> None:
        """The cores of `group` hear of all that the others of it did before, if the meeting orders that."""
        if not all(meeting.orders for _, meeting in group):
            return
        cores = [core for core, _ in group]
        if len(cores) == len(self._memories):
            self._settle_all()
        joined = [max(self._clocks[core][k] for core in cores) for k in range(len(self._clocks))]
        for core in cores:
            self._clocks[core] = list(joined)
            self._clocks[core][core] += 1
        for core, meeting in group:
            for number, tensor, writes in self._in_flight[core].get(meeting, ()):
                self._touch(core, meeting, number, tensor, writes=writes)

    def finish(self) -> tuple[Diagnostic, ...]:
        """Raise every race found (NKI-H021), with both lines; note work that two cores do (NKI-H023)."""
        self._settle_all()
        if self._found:
            raise NkiError(self._found.values())
        repeated = list(self._repeated.values())
        if repeated and all(programs_equal(self._programs[0], other) for other in self._programs[1:]):
            return (repeated[0].all_of_it(len(self._programs)),)
        return tuple(one.noted() for one in repeated)

    # --- accesses

    def _touch(
        self, core: int, instruction: Instruction, number: int, tensor: NkiTensor, *, writes: bool
    ) -> None:
        access = _Access(core, self._clocks[core][core], instruction, tensor)
        layout = self._layout(core, tensor, self._units[number])
        for other in range(len(self._memories)):
            if other != core:
                self._compare(access, number, layout, other, writes=writes)
        self._accesses.append(access)
        shadow = self._shadows.get((number, core, writes))
        if shadow is None:
            shadow = self._shadows[number, core, writes] = np.zeros(self._values(number).size, np.int32)
        layout.put(shadow, len(self._accesses))

    def _compare(self, access: _Access, number: int, layout: _Layout, other: int, *, writes: bool) -> None:
        """Find the accesses of core `other` that touch the same bytes and that `access` has not heard of."""
        conflicts = []
        for earlier_writes in (True, False) if writes else (True,):
            ids = self._unheard(access, number, layout, other, earlier_writes)
            if ids is not None:
                conflicts.append((earlier_writes, ids))
        if not writes:
            for _, ids in conflicts:
                if number in self._agreed:
                    ids = np.where(layout.of(self._agreed[number]), 0, ids)
                self._report_all(access, ids, earlier_writes=True, writes=False)
        elif conflicts:
            before = np.array(layout.of(self._values(number)))
            self._writing[access.core].append(
                _Write(access, len(self._accesses) + 1, number, layout, before, conflicts)
            )
        elif number in self._agreed:
            layout.put(self._agreed[number], False)

    def _unheard(
        self, access: _Access, number: int, layout: _Layout, other: int, earlier_writes: bool
    ) -> _Array | None:
        """Per unit, the access of core `other` that `access` has not heard of, or 0; None without any."""
        shadow = self._shadows.get((number, other, earlier_writes))
        if shadow is None:
            return None
        ids = layout.of(shadow)
        heard = self._clocks[access.core][other]
        last = int(ids.max(initial=0))
        if last == 0 or self._accesses[last - 1].period <= heard:
            return None
        ordered = [one for one in np.unique(ids[ids > 0]).tolist() if self._accesses[one - 1].period <= heard]
        # Periods grow with ids, so what was heard of is what is not later than the last one heard of.
        return np.where(ids > max(ordered, default=0), ids, 0)

    def _settle(self, core: int) -> None:
        """The last instruction of `core` has run: see what it changed of bytes others used unordered."""
        for write in self._writing[core]:
            values = self._values(write.number)
            changed = write.layout.of(values) != write.before
            agreed = self._agreed.setdefault(write.number, np.zeros(values.size, np.bool_))
            write.layout.put(agreed, ~changed)
            for kind, ids in write.conflicts:
                if kind:
                    self._keep_repeated(write.access, write.number, np.where(changed, 0, ids))
                ids = np.where(changed, ids, 0)
                if kind:
                    self._keep_overwritten(write, ids, values)
                else:
                    self._report_all(write.access, ids, earlier_writes=False, writes=True)
        self._writing[core].clear()

    def _keep_repeated(self, later: _Access, number: int, ids: _Array) -> None:
        """`later` left units of shared tensor `number` as the accesses `ids` of another core had."""
        last = int(ids.max(initial=0))
        if last:
            earlier = self._accesses[last - 1]
            key = span_of(earlier.instruction.stack), span_of(later.instruction.stack)
            repeated = self._repeated.setdefault(key, _Repeated(earlier, later))
            repeated.octets += int(np.count_nonzero(ids)) * self._units[number]

    def _keep_overwritten(self, write: _Write, ids: _Array, values: _Array) -> None:
        """`write` changed what the accesses `ids` had written: to compare when both cores are done."""
        kept = self._overwritten.get(write.number)
        if kept is None:
            arrays = (np.zeros_like(values), *(np.zeros(values.size, np.int32) for _ in range(2)))
            kept = self._overwritten[write.number] = _Overwritten(*arrays)
        layout, left = write.layout, write.layout.of(kept.left)
        new = (ids > 0) & (left == 0)
        layout.put(kept.values, np.where(new, write.before, layout.of(kept.values)))
        layout.put(kept.left, np.where(new, ids, left))
        layout.put(kept.later, np.where(ids > 0, write.identity, layout.of(kept.later)))

    def _settle_all(self) -> None:
        """All cores meet or have ended: report bytes that they left different."""
        for core in range(len(self._memories)):
            self._settle(core)
        for number, kept in self._overwritten.items():
            differs = (kept.left > 0) & (self._values(number) != kept.values)
            pairs = np.unique(np.stack([kept.left[differs], kept.later[differs]]), axis=1)
            for left, later in pairs.T.tolist():
                self._report(self._accesses[left - 1], self._accesses[later - 1], True, True)
            same = (kept.left > 0) & ~differs
            if same.any():
                later = self._accesses[int(kept.later[same].max()) - 1]
                self._keep_repeated(later, number, np.where(same, kept.left, 0))
        self._overwritten.clear()

    def _values(self, number: int) -> _Array:
        """A shared tensor, which is the same bytes on all cores, as one unsigned integer per unit."""
        return self._memories[0].buffer(self._shared[number]).view(f"u{self._units[number]}")

    def _layout(self, core: int, tensor: NkiTensor, unit: int) -> _Layout:
        """The units of `tensor` of `core`: views may read them as elements of any width."""
        memory, shift, rows = self._memories[core], 0, None
        if tensor.dynamic is not None:
            if tensor.dynamic.kind == "scalar":
                shift = memory.scalar_shift(tensor) or 0
            else:
                tensor, lines = memory.selection(tensor)
                rows = lines[(lines >= 0) & (lines < tensor.shape[0])]
        address = memory.address(tensor, shift)
        count = tensor.dtype.itemsize // unit
        strides = tuple(s // unit for s in address.strides)
        return _Layout((*address.shape, count), (*strides, 1), address.offset // unit, rows)

    def _report_all(self, later: _Access, ids: _Array, *, earlier_writes: bool, writes: bool) -> None:
        for one in np.unique(ids[ids > 0]).tolist():
            self._report(self._accesses[one - 1], later, earlier_writes, writes)

    def _report(self, earlier: _Access, later: _Access, earlier_writes: bool, writes: bool) -> None:
        first, second = span_of(earlier.instruction.stack), span_of(later.instruction.stack)
        if (first, second) in self._found or (second, first) in self._found:
            return
        verbs = ("writes" if writes else "reads", "writes" if earlier_writes else "reads")
        labels = []
        if first is not None:
            labels.append(Label(first, f"core {earlier.core} {verbs[1]} it here, unordered"))
        self._found[first, second] = Diagnostic(
            "NKI-H021",
            f"core {later.core} {verbs[0]} bytes of {later.tensor.name} that core {earlier.core} {verbs[1]} "
            "with nothing to order the two",
            span=second,
            help=f"put nisa.core_barrier({later.tensor.name}, (0, 1)) between them on both cores, "
            "or give each core its own part",
            labels=tuple(labels),
            stack=later.instruction.stack,
        )


def _in_flight(programs: Sequence[Program], shared: Sequence[Sequence[Storage]]) -> list[_Touches]:
    """For each core: what those of its collectives touch that name other tensors than their partners.

    A core that names a tensor itself waits for its own collective before it uses it again; one that does not
    has nothing to wait for.
    """
    made = [_accesses(program, own, exchanges=True) for program, own in zip(programs, shared, strict=True)]
    found: list[_Touches] = [{} for _ in programs]
    for together in zip(*(core.items() for core in made)):
        named = [
            [(number, t.offset, t.shape, t.strides, writes) for number, t, writes in touches]
            for _, touches in together
        ]
        if any(one != named[0] for one in named):
            for core, (instruction, touches) in enumerate(together):
                found[core][instruction] = touches
    return found


def _accesses(program: Program, shared: Sequence[Storage], *, exchanges: bool = False) -> _Touches:
    """For each instruction of `program`: what it touches of `shared`, by number, reads before writes.

    Args:
        exchanges: True for collectives only, False for what no core waits in.
    """
    numbers = {storage: k for k, storage in enumerate(shared)}
    found = {}
    for instruction in program.walk():
        if exchanges != isinstance(instruction, Collective) or instruction.synchronises != exchanges:
            continue
        touches = [
            (number, tensor, writes)
            for tensors, writes in ((instruction.reads, False), (instruction.writes, True))
            for tensor in tensors
            if (number := numbers.get(tensor.storage)) is not None
        ]
        if touches:
            found[instruction] = touches
    return found


def _units(used: Sequence[_Touches], shared: Sequence[Storage]) -> list[int]:
    """For each shared tensor, the bytes of the narrowest element it is accessed by."""
    units = [storage.dtype.itemsize for storage in shared]
    for core in used:
        for touches in core.values():
            for number, tensor, _ in touches:
                units[number] = min(units[number], tensor.dtype.itemsize)
    return units
