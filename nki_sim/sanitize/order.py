"""Whether accesses to bytes that two tensors share are ordered by anything but their place in the text.

The compiler orders instructions by their dependencies, which it takes from
tensors: two tensors given the same bytes by hand depend on nothing of each
other. Where their times of use do not interleave, one is over before the other
begins, and the address is reused as allocators do. Where they do, a vector
clock per engine says what is known to come before what: an engine is in order
with itself, a use of a tensor waits for the writes of it, a write for its uses,
and ``depends_on``, ``with_schedule`` and ``no_reorder`` for what they name. A
DMA is in order with nothing but what it waits for.

Source: SDK "About NKI" (operations that do not depend on each other may change
their order), "lifetime conflicts" in the direct allocation guide of SDK 2.26.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from nki_isa.diagnostics import Severity
from nki_isa.ir.instruction import Instruction
from nki_isa.machine.enums import Engine
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.memory import Addresses
from nki_sim.observe import Core
from nki_sim.sanitize.check import PerCore
from nki_sim.sanitize.findings import Findings, allocated, described, done_by, operand_of, pair_of
from nki_sim.sanitize.shadow import Bools, Written, bytes_of
from nki_sim.sanitize.survey import NEVER, Survey

Clock = dict[Hashable, int]

_MOST_ACCESSES = 64  # of one tensor that are remembered, the latest


@dataclass(frozen=True, slots=True)
class _Access:
    instruction: Instruction
    tensor: NkiTensor
    is_write: bool
    component: Hashable
    time: int


def interleaved(survey: Survey, addresses: Addresses) -> dict[int, list[Written]]:
    """Tensors with addresses of their own that share bytes and times of use with others, by storage index."""
    by_hand = [s for s in survey.program.storages if s.on_chip and s.address is not None]
    storages = [s for s in by_hand if survey.first[s.index] != NEVER]
    storages.sort(key=lambda s: survey.first[s.index])
    active: list[Written] = []
    pairs: dict[int, list[Written]] = {}
    for storage in storages:
        state = Written(storage, addresses[storage.index], False)
        begin = survey.first[storage.index]
        active = [a for a in active if survey.last[a.storage.index] >= begin]
        for other in active:
            if other.storage.region is storage.region and state.meets(other) is not None:
                pairs.setdefault(storage.index, []).append(other)
                pairs.setdefault(other.storage.index, []).append(state)
        active.append(state)
    return pairs


class AccessOrder(PerCore):
    """Follows accesses to bytes that tensors with addresses share."""

    name = "order"
    finds = "accesses to shared bytes in an order nothing guarantees (NKI-H004)"
    codes = ("NKI-H004",)
    listed = 3

    def observer(self, number: int, core: Core) -> Ordering | None:
        """What follows a core that has such bytes."""
        survey = self.scene.surveys[number]
        pairs = interleaved(survey, self.scene.placements[number])
        return Ordering(survey, pairs, self.scene.findings) if pairs else None

    def finish(self) -> None:
        """What is known to overwrite each other is told as that."""
        self.scene.findings.drop_turns()


class Ordering:
    """Observes a run and keeps a vector clock for each engine; only worth its time if tensors interleave.

    Args:
        survey: of the Program that runs.
        pairs: from :func:`interleaved`.
        findings: what is found goes there.
    """

    def __init__(self, survey: Survey, pairs: dict[int, list[Written]], findings: Findings):
        self._survey, self._pairs, self._findings = survey, pairs, findings
        self._engines: dict[Hashable, Clock] = {}
        self._written: dict[Hashable, Clock] = {}
        self._used: dict[Hashable, Clock] = {}
        self._done: dict[Instruction, Clock | None] = {
            producer: None for instruction in survey.touches for producer in instruction.after
        }
        self._accesses: dict[int, deque[_Access]] = {index: deque() for index in pairs}
        self._places = {w.storage.index: w for rivals in pairs.values() for w in rivals}
        self._events = 0
        self._forgotten: set[Hashable] = set()

    def __call__(self, instruction: Instruction, registers: list[int]) -> None:
        """The observer: `instruction` is about to run."""
        if not self._pairs:
            return  # all has been said
        reads, writes = self._survey.touches[instruction]
        is_dma = instruction.on is Engine.dma
        engine = instruction.on.value  # unlike the member it is hashed fast
        clock: Clock = {} if is_dma else dict(self._engines.get(engine, {}))
        self._events += 1
        read: list[Hashable] = [t.storage for t in reads]
        read += [r.index for r in instruction.registers_read]
        written: list[Hashable] = [t.storage for t in writes]
        written += [r.index for r in instruction.registers_written]
        for thing in (*read, *written):
            _join(clock, self._written.get(thing))
        for thing in written:
            _join(clock, self._used.get(thing))
        for producer in instruction.after:
            _join(clock, self._done.get(producer))
        for component in self._forgotten.intersection(clock):
            del clock[component]
        own_component: Hashable = ("dma", self._events) if is_dma else engine
        own = [(t, False) for t in reads] + [(t, True) for t in writes]
        own = [(t, w) for t, w in own if t.storage.index in self._pairs]
        if not is_dma or own:
            clock[own_component] = self._events
        for tensor, is_write in own:
            access = _Access(instruction, tensor, is_write, own_component, self._events)
            self._check(access, clock)
        if not is_dma:
            self._engines[engine] = clock
        for thing in read:
            _join(self._used.setdefault(thing, {}), clock)
        for thing in written:
            self._written[thing] = dict(clock)
            self._used.pop(thing, None)
        if instruction in self._done:
            self._done[instruction] = clock

    def _check(self, access: _Access, clock: Clock) -> None:
        index = access.tensor.storage.index
        known = clock.get
        for rival in list(self._pairs.get(index, ())):
            for before in reversed(self._accesses[rival.storage.index]):
                if known(before.component, 0) >= before.time:
                    continue
                if (before.is_write or access.is_write) and self._meet(access.tensor, before.tensor):
                    self._report(access, before)
                    self._settle(index, rival.storage.index)
                    break
        log = self._accesses[index]
        log.append(access)
        if len(log) > _MOST_ACCESSES:
            gone = log.popleft()
            if gone.instruction.on is Engine.dma:  # nobody asks about this one any more
                self._forgotten.add(gone.component)

    def _settle(self, one: int, other: int) -> None:
        """Look at two tensors no more: one finding says it all."""
        for index, rival in ((one, other), (other, one)):
            left = [w for w in self._pairs[index] if w.storage.index != rival]
            if left:
                self._pairs[index] = left
            else:
                del self._pairs[index]

    def _meet(self, one: NkiTensor, other: NkiTensor) -> bool:
        a, b = self._places[one.storage.index], self._places[other.storage.index]
        both = a.meets(b)
        if both is None:
            return False
        mine = _octets(one)[both[:2]]
        return bool((mine & _octets(other)[both[2:]]).any())

    def _report(self, access: _Access, before: _Access) -> None:
        now, then = access.instruction, before.instruction
        pair = pair_of(access.tensor.storage, before.tensor.storage)
        key = ("NKI-H004", pair)
        if self._findings.known(key):
            return
        self._findings.turns[key] = pair
        kind = (
            ("write after write" if before.is_write else "write after read")
            if access.is_write
            else ("read after write")
        )
        self._findings.add(
            key,
            "NKI-H004",
            f"{kind}: {_told(access)}, before it {_told(before)}; "
            "the tensors have bytes in common, and nothing but the text orders the two",
            stack=now.stack,
            labels=(
                *done_by(then, f"{then.opcode} {_does(before)} these bytes of {before.tensor.name}"),
                *allocated(access.tensor.storage),
                *allocated(before.tensor.storage),
            ),
            help="use one tensor for both (views of it are ordered), give them addresses that do not "
            "overlap, or add depends_on or no_reorder",
            notes=(f"{described(access.tensor.storage)} and {described(before.tensor.storage)} take turns",),
            severity=Severity.warning,
        )


def _told(access: _Access) -> str:
    instruction = access.instruction
    operand = operand_of(instruction, access.tensor, written=access.is_write)
    return f"{instruction.opcode} on {_where(instruction)} {_does(access)} {operand}"


def _does(access: _Access) -> str:
    return "writes" if access.is_write else "reads"


def _where(instruction: Instruction) -> str:
    return "a DMA queue" if instruction.on is Engine.dma else f"the {instruction.on.name} engine"


def _octets(tensor: NkiTensor) -> Bools:
    view = tensor if tensor.dynamic is None else NkiTensor.whole(tensor.storage)
    return bytes_of(view, tensor.storage).reshape(tensor.storage.partitions, -1)


def _join(clock: Clock, other: Clock | None) -> None:
    """Everything that came before `other` came before `clock`."""
    if other:
        for component, time in other.items():
            if clock.get(component, 0) < time:
                clock[component] = time
