"""The scoreboard: when each instruction of a program starts, ends and why it waited.

Engines are in-order and run beside each other. An instruction starts when its
engine is free and the bytes it touches are ready: after their last write for
what it reads, after their last reads and write for what it overwrites, plus the
semaphore latency when that access was made elsewhere. Bytes that several
tensors hold over time are the same bytes. It holds its engine for its interval
and publishes its result after its latency.

DMA goes through queues, one per way descriptors are made and direction of the
transfer; a queue triggers and moves in order, and queues take turns on the DMA
engines. When a DMA ends is settled when the first instruction that waits for it
is issued; what is issued later can hold it up no more.

Not modelled: when exactly two cores contend for HBM
(each gets its share throughout), instruction fetch, Pool cycles spent on software
descriptors that the compiler schedules (a trigger the kernel puts on an engine does
hold it), and the time of branches of device loops.
"""

from __future__ import annotations

import enum
import struct
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nki_isa.cost import Cost
from nki_isa.ir.form import Form, Forms
from nki_isa.ir.instruction import Instruction
from nki_isa.machine.target import Target
from nki_isa.tensor.storage import Storage
from nki_sim.timing.byte_boxes import Access, AllAccesses, Box, Bytes
from nki_sim.timing.clocks import TensorClock
from nki_sim.timing.dma_engines import DmaEngines, InFlight
from nki_sim.timing.plans import (
    FIRST_QUEUE,
    LANES,
    TENSOR,
    Dma,
    Operand,
    Plan,
    RegisterValues,
    Use,
    View,
    dynamic_box,
    handoffs,
    hbm_share,
    is_software_load,
    plan_of,
    views_of,
)


@enum.unique
class Wait(enum.IntEnum):
    """What an instruction waited for last before it could start."""

    none = 0
    data = 1  # a result it reads
    reuse = 2  # readers or writers of the tensor it overwrites
    memory = 3  # users of another tensor that held its bytes before
    table = 4  # the load of an activation function table
    weights = 5  # its own LoadStationary, not hidden under a matmul
    queue = 6  # earlier triggers of its DMA queue
    register = 7  # a register
    core = 8  # another core, in a meeting
    order = 9  # an instruction the kernel asked it to run after


class Placed(Protocol):
    """What the scoreboard needs of a placement."""

    @property
    def addresses(self) -> Mapping[int, tuple[int, int]]:
        """(first partition, first byte in each partition) by storage index."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Every event of a run, in the order of issue, as columns. Times in ns from the first possible trigger.

    Attributes:
        target: the generation.
        instructions: the instruction of each event.
        costs: its cost.
        lane: index into :data:`LANES`.
        start: when it started: an engine took it, or a DMA was triggered.
        begin: when data began to move; `start` for engines.
        busy: when its engine was free again; when the last byte of a DMA was through.
        end: when its result was visible on its own engine; when a DMA's semaphore was.
        waited: ns its engine, or the queue of a DMA that none triggers, stood idle for it.
        handoff: the part of `waited` that was semaphore latency.
        wait: what it waited for, a :class:`Wait`.
        cause: the event it waited for, or -1.
        issuer: index into :data:`LANES` of the engine that triggered a DMA, or -1.
        throttled: ns the tensor engine streamed at its throttled clock.
        start_up: ns of the launch before the first possible trigger.
        notes: what was not known, in sentences.
    """

    target: Target
    instructions: list[Instruction]
    costs: list[Cost]
    lane: NDArray[np.int8]
    start: NDArray[np.float64]
    begin: NDArray[np.float64]
    busy: NDArray[np.float64]
    end: NDArray[np.float64]
    waited: NDArray[np.float64]
    handoff: NDArray[np.float64]
    wait: NDArray[np.int8]
    cause: NDArray[np.int32]
    issuer: NDArray[np.int8]
    throttled: float
    start_up: float
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.instructions)

    @property
    def duration(self) -> float:
        """ns from the first possible trigger to the last result, without program start and end."""
        return float(self.end.max(initial=0.0))

    @property
    def total(self) -> float:
        """ns as the vendor's profiler shows it: with the start-up before and the wind-down after."""
        return self.start_up + self.duration + self.target.program_end

    def format(self) -> str:
        """One line per event: lane, opcode, start, busy, end, what it waited for."""
        lines = []
        for k, instruction in enumerate(self.instructions):
            why = ""
            if self.waited[k] > 0:
                cause = f" of {self.cause[k]}" if self.cause[k] >= 0 else ""
                why = f"  waited {self.waited[k]:.1f} for {Wait(self.wait[k]).name}{cause}"
            lines.append(
                f"{k} {LANES[self.lane[k]]} {instruction.opcode}"
                f" {self.start[k]:.1f}..{self.busy[k]:.1f}..{self.end[k]:.1f}{why}"
            )
        return "\n".join(lines)


_TIMES, _CAUSES = struct.Struct("6d").pack, struct.Struct("4i").pack  # of an event, as they are kept
_Touch = tuple[Bytes, Box, bool]  # and whether it is a write

_WEIGHTS, _UPDATE, _WRITE = Use.weights, Use.update, Use.write
_NONE, _DATA, _REUSE, _MEMORY = Wait.none, Wait.data, Wait.reuse, Wait.memory  # found slowly in the Enum


class Arrival(NamedTuple):
    """An instruction that could start: the state between the two halves of :meth:`Scoreboard.issue`."""

    start: float
    free: float  # when its engine or queue was
    instruction: Instruction
    plan: Plan
    touches: list[_Touch]
    weights_ready: float


_Arrived = tuple[float, float, Instruction, Plan, list[_Touch], float]
"""The same as :class:`Arrival`, whose names take time."""


class Scoreboard:
    """Times instructions as they are issued, in program order.

    Args:
        target: the generation.
        placement: where on-chip tensors live; None takes all of them to be apart.
        cores: cores of the launch, which share the bandwidth of their HBM.
    """

    def __init__(self, target: Target, placement: Placed | None = None, cores: int = 1):
        self.target = target
        self._is_pair, self._loads_by_software = cores > 1, False
        self.notes: list[str] = []
        self._memory = AllAccesses(placement.addresses if placement is not None else None)
        self._clock = TensorClock(target)
        self._dma = DmaEngines(hbm_share(target, cores), target.dma_shared)
        self._moving: dict[int, tuple[InFlight, float]] = {}  # DMAs whose end was not asked for, by event
        self._free = [0.0] * len(LANES)
        self._table: str | None = None
        self._weights_free = 0.0
        self._blocks = [0.0] * 16  # of the array: when each is free, after matmuls on tiles
        self._tiled = False  # the last matmul was on a tile
        self._hands = handoffs(target)
        self._forms = Forms(target)  # of instructions that have none
        self._plans: dict[Form, Plan] = {}
        self._views: dict[Instruction, list[View]] = {}  # of instructions whose plan has no operands
        self._registers: dict[int, tuple[int, int]] = {}  # event and lane of the last write
        self._input_reads: dict[Storage, Access] = {}
        self._written: set[Storage] = set()

        self._instructions: list[Instruction] = []
        self._costs: list[Cost] = []
        self._times = array("d")  # of each event: start, begin, busy, end, waited, handoff
        self._causes = array("i")  # of each event: lane, issuer, wait, cause
        self._event_of: dict[Instruction, int] = {}  # the latest event of each instruction, when asked for
        self._indexed = 0  # events in it

        # What the current instruction waits for: the latest time so far, its event, reason, semaphore share.
        self._ready = 0.0
        self._ready_by = -1
        self._ready_why = Wait.none
        self._ready_hand = 0.0

    # --- one instruction

    def issue(self, instruction: Instruction, registers: RegisterValues = None) -> None:
        """Time one instruction; those before it in program order must have been issued.

        Args:
            instruction: what runs.
            registers: values of the registers by index, for run-time addresses; a view whose
                register is unknown is taken to touch its whole storage.
        """
        if not instruction.is_free:
            self.depart(self._arrive(instruction, registers))

    def arrive(self, instruction: Instruction, registers: RegisterValues = None) -> Arrival:
        """The first half of :meth:`issue`: when the instruction could start; :meth:`depart` must follow."""
        return Arrival(*self._arrive(instruction, registers))

    def _arrive(self, instruction: Instruction, registers: RegisterValues) -> _Arrived:
        form = instruction.form or self._forms.of(instruction)
        plan = self._plans.get(form)
        if plan is None:
            plan = self._plans[form] = plan_of(form, self.target)
            self._loads_by_software |= is_software_load(instruction, plan)
        lane = plan.lane
        touches: list[_Touch] = []
        untouched: list[Storage] = []  # inputs it reads that nothing wrote
        self._ready, self._ready_by, self._ready_why, self._ready_hand = 0.0, -1, _NONE, 0.0
        weights_ready = 0.0
        values, known = instruction.__dict__, self._memory.known
        for operand in self._asked(instruction, plan) if plan.operands is None else plan.operands:
            if isinstance(operand, Operand):
                name, use, is_given, boxes = operand
                view = values[name]
                storage = view.storage
                if is_given and use is not _WRITE and storage not in self._written:
                    untouched.append(storage)
                    continue
                owner = known.get(storage)
                if owner is None or not owner.owner:
                    owner = self._memory.taken(storage)
                box = boxes.get(view.offset)
                if box is None:
                    box = boxes[view.offset] = owner.layout.of(view)
                if owner.givers and (use is not _WRITE or box is not owner.layout.whole):
                    owner.settle()
            else:
                view, use = operand
                storage = view.storage
                is_given = storage.is_given
                if is_given and use is not _WRITE and storage not in self._written:
                    untouched.append(storage)
                    continue
                owner = self._memory.bytes_of(storage)
                box = owner.layout.of(view) if view.dynamic is None else dynamic_box(owner, view, registers)
            if use is _WRITE:
                if is_given and storage not in self._written:
                    self._first_write(storage, owner)
                self._claim(owner, box, lane)
                touches.append((owner, box, True))
            else:
                self._need(owner, box, lane)
                if use is not _UPDATE:
                    touches.append((owner, box, False))
                if use is _WEIGHTS:
                    weights_ready = self._ready
        for storage in untouched:
            if storage not in self._written:  # only the last of its readers can matter to a later write
                self._input_reads[storage] = (0.0, len(self._costs), lane, None)
        if plan.has_registers:
            for register in instruction.registers_read:
                written = self._registers.get(register.index)
                if written is not None:
                    wrote, engine = written
                    self._after(self._end(wrote), wrote, self._hands[lane][engine], Wait.register)
        for before in instruction.after:
            event = self._event(before)
            if event is not None:
                hand = self._hands[lane][self._causes[4 * event]]
                self._after(self._end(event), event, hand, Wait.order)

        free = self._free[lane]
        if plan.issuer >= 0:
            if free > self._ready:
                self._ready, self._ready_by, self._ready_why, self._ready_hand = free, -1, Wait.queue, 0.0
            free = self._free[plan.issuer]
        ready = self._ready
        return free if free > ready else ready, free, instruction, plan, touches, weights_ready

    def depart(self, arrival: _Arrived, not_before: float = 0.0) -> None:
        """The second half of :meth:`issue`.

        Args:
            arrival: what :meth:`arrive` returned last.
            not_before: ns at which the cores it meets have arrived too.
        """
        start, free, instruction, plan, touches, weights_ready = arrival
        lane, cost = plan.lane, plan.cost
        if not_before > start:
            start = not_before
            self._ready_by, self._ready_why, self._ready_hand = -1, Wait.core, 0.0
        if plan.dma is not None:
            begin, busy, end = self._transfer(plan, plan.dma, start)
        elif lane == TENSOR and cost.columns:
            start, busy, end = self._matmul(cost, start, weights_ready)
            begin = start
        else:
            if cost.table is not None and cost.table != self._table:
                self._table = cost.table
                loaded = self._free[lane] + self.target.scalar_table_load
                if loaded > start:
                    start = loaded
                    self._ready_by, self._ready_why, self._ready_hand = -1, Wait.table, 0.0
            begin, busy, end = start, start + cost.busy, start + cost.latency
            self._free[lane] = busy

        event = len(self._costs)
        waited = start - free
        self._instructions.append(instruction)
        self._costs.append(cost)
        if waited > 0.0:
            hand = self._ready_hand
            times = _TIMES(start, begin, busy, end, waited, hand if hand < waited else waited)
            causes = _CAUSES(lane, plan.issuer, self._ready_why, self._ready_by)
        else:
            times = _TIMES(start, begin, busy, end, 0.0, 0.0)
            causes = _CAUSES(lane, plan.issuer, 0, -1)
        self._times.frombytes(times)
        self._causes.frombytes(causes)

        access: Access = (end, event, lane, None)
        for owner, box, is_write in touches:
            if not owner.owner:  # another operand of this very instruction lies in the same bytes
                self._memory.bytes_of(owner.storage)
            (owner.writes if is_write else owner.reads).add(box, access)
        if plan.has_registers:
            for register in instruction.registers_written:
                self._registers[register.index] = (event, lane)

    def _asked(self, instruction: Instruction, plan: Plan) -> list[View]:
        """What an instruction touches, in the order of uses."""
        found = self._views.get(instruction)
        if found is None:
            found = self._views[instruction] = views_of(instruction, plan.cost)
        return found

    def _event(self, instruction: Instruction) -> int | None:
        """The latest event of an instruction, if it has run."""
        for event in range(self._indexed, len(self._instructions)):
            self._event_of[self._instructions[event]] = event
        self._indexed = len(self._instructions)
        return self._event_of.get(instruction)

    def _end(self, event: int) -> float:
        """When its result is visible; a DMA is settled by that."""
        found = self._moving.pop(event, None)
        if found is None:
            return self._times[6 * event + 3]
        moving, finish = found
        last = self._dma.end(moving)
        self._times[6 * event + 2] = last
        self._times[6 * event + 3] = last + finish
        return last + finish

    def _after(self, time: float, event: int, hand: float, why: Wait) -> None:
        if time + hand > self._ready:
            self._ready, self._ready_by, self._ready_why, self._ready_hand = time + hand, event, why, hand

    def _first_write(self, storage: Storage, owner: Bytes) -> None:
        """From now on what is done to an input is followed; of its reads only the last one matters."""
        self._written.add(storage)
        reader = self._input_reads.pop(storage, None)
        if reader is not None:
            _, event, engine, _ = reader
            owner.reads.add(owner.layout.whole, (self._end(event), event, engine, None))

    def _need(self, owner: Bytes, box: Box, lane: int) -> None:
        """Wait for the writes of what an operand reads."""
        hands = self._hands[lane]
        for time, event, engine, earlier in owner.writes.meeting(box):
            if engine == lane == TENSOR:
                continue  # accumulation in PSUM is in order
            if engine >= FIRST_QUEUE:
                time = self._end(event)
            ready = time + hands[engine]
            if ready > self._ready:
                self._ready, self._ready_by, self._ready_hand = ready, event, hands[engine]
                self._ready_why = _MEMORY if earlier else _DATA

    def _claim(self, owner: Bytes, box: Box, lane: int) -> None:
        """Wait for the readers and writers of what an operand overwrites."""
        hands = self._hands[lane]
        for time, event, engine, earlier in owner.overwrite(box):
            if engine == lane < FIRST_QUEUE:
                continue  # an engine is in order with itself
            if engine >= FIRST_QUEUE:
                time = self._end(event)
            ready = time + hands[engine]
            if ready > self._ready:
                self._ready, self._ready_by, self._ready_hand = ready, event, hands[engine]
                self._ready_why = _MEMORY if earlier else _REUSE

    # --- engines

    def _matmul(self, cost: Cost, start: float, weights_ready: float) -> tuple[float, float, float]:
        """LoadStationary under the previous matmul, then streaming at the clock's rate: start, busy, end."""
        target, clock = self.target, self._clock
        tiled = cost.blocks or self._tiled
        if tiled:
            start = max(start, *(self._blocks[block] for block in cost.blocks or range(16)))
        free = self._weights_free
        earliest = free if free > weights_ready else weights_ready
        clock.advance(earliest)
        loaded = earliest + cost.weights * (clock.ghz / clock.rate)
        if loaded > start:
            start = loaded
            if free >= weights_ready:  # else it waited for what LoadStationary reads
                self._ready_by, self._ready_why, self._ready_hand = -1, Wait.weights, 0.0
        through = clock.stream(start, cost.columns, cost.use)
        part = (through - start) / cost.parts
        if cost.parts > 1:
            exposed = cost.weights * clock.ghz / clock.rate - part
            if exposed > 0.0:
                through += exposed * (cost.parts - 1)
        busy = through + cost.parts * target.tensor_interval
        end = through + (target.tensor_latency if clock.full else target.tensor_latency_throttled)
        self._weights_free = through - part  # when its last part started
        if tiled:
            self._tiled = bool(cost.blocks)
            for block in cost.blocks:
                self._blocks[block] = busy
            busy = start + (through - start) * cost.share + cost.parts * target.tensor_interval
        self._free[TENSOR] = busy
        return start, busy, end

    def _transfer(self, plan: Plan, dma: Dma, start: float) -> tuple[float, float, float]:
        """A DMA: trigger, descriptors, data through the shared engines, completion: begin, busy, end.

        The last two are the earliest that can be, in the order of the queue, until :meth:`_end` is asked.
        """
        self._free[plan.lane] = start + dma.interval
        if plan.issuer >= 0:
            self._free[plan.issuer] = start + plan.cost.busy
        begin = start + dma.first
        moving = self._dma.book(plan.lane, begin, dma.work)
        self._moving[len(self._costs)] = moving, dma.finish
        return begin, moving.earliest, moving.earliest + dma.finish

    # --- the result

    def _start_up(self) -> float:
        """ns before the first possible trigger.

        Less where a logical core is one physical core, more on two cores that load by software DGE.
        """
        target = self.target
        less = target.program_single_lead if target.logical_cores == 1 else 0.0
        more = target.program_pair_start if self._is_pair and self._loads_by_software else 0.0
        return target.program_start - less + more

    def finish(self) -> Timeline:
        """Everything issued, as columns, which are views of what was kept: nothing can be issued any more."""
        for event in [*self._moving]:
            self._end(event)
        times = np.frombuffer(self._times, np.float64).reshape(-1, 6).T
        lane, issuer, wait, cause = np.frombuffer(self._causes, np.intc).reshape(-1, 4).T
        start, begin, busy, end, waited, handoff = times
        return Timeline(
            target=self.target,
            instructions=self._instructions,
            costs=self._costs,
            lane=lane.astype(np.int8),
            start=start,
            begin=begin,
            busy=busy,
            end=end,
            waited=waited,
            handoff=handoff,
            wait=wait.astype(np.int8),
            cause=cause.astype(np.int32),
            issuer=issuer.astype(np.int8),
            throttled=self._clock.slow if self.target.throttled else 0.0,
            start_up=self._start_up(),
            notes=tuple(self.notes),
        )
