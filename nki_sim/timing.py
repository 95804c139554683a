"""The scoreboard: when each instruction of a program starts, ends and why it waited.

Engines are in-order and run beside each other. An instruction starts when its
engine is free and the bytes it touches are ready: after their last write for
what it reads, after their last reads and write for what it overwrites, plus the
semaphore latency when that access was made elsewhere. Bytes that several
tensors hold over time are the same bytes. It holds its engine for its interval
and publishes its result after its latency.

DMA goes through queues, one per way descriptors are made and direction of the
transfer; a queue triggers in order, and the DMA engines share their bandwidth
among the transfers in flight.

Not modelled: reordering by the compiler, when exactly two cores contend for HBM
(each gets its share throughout), instruction fetch, Pool cycles spent on software
descriptors that the compiler schedules (a trigger the kernel puts on an engine does
hold it), and the time of branches of device loops.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nki_isa.cost import Cost, engine_time, finish_time
from nki_isa.instruction import Engine, Instruction, Role
from nki_isa.machine.target import Target
from nki_isa.tensor import NkiTensor, Storage, VirtualRegister
from nki_sim.access import Access, Box, Bytes, Memory
from nki_sim.clocks import DmaEngines, TensorClock


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


ENGINES = ("tensor", "vector", "scalar", "gpsimd", "sync")
_MODES = ("static", "hwdge", "swdge")
_DIRECTIONS = ("load", "store", "local")
QUEUES = tuple(f"{mode} {direction}" for mode in _MODES for direction in _DIRECTIONS)
LANES: tuple[str, ...] = ENGINES + QUEUES
"""Where an event runs: an engine, or a DMA queue by descriptor mode and direction."""

_LANE = {name: k for k, name in enumerate(LANES)}
_TENSOR, _SCALAR, _SYNC = _LANE["tensor"], _LANE["scalar"], _LANE["sync"]
_FIRST_QUEUE = len(ENGINES)
_ENGINE_LANE = {
    Engine.tensor: _TENSOR,
    Engine.vector: _LANE["vector"],
    Engine.scalar: _SCALAR,
    Engine.gpsimd: _LANE["gpsimd"],
    Engine.sync: _SYNC,
    Engine.dma: _SYNC,  # DMA without a transfer: only its trigger
    Engine.unknown: _SYNC,
}


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
    cause: NDArray[np.int64]
    issuer: NDArray[np.int8]
    throttled: float
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
        return self.duration + self.target.program_start + self.target.program_end

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


Registers = Sequence[int] | Mapping[int, int] | None
"""Values of registers by index."""

_Operand = tuple[Storage, NkiTensor]
_Touch = tuple[Bytes, Box, bool]  # and whether it is a write


@dataclass(slots=True)
class _Plan:
    """What the scoreboard needs of an instruction, worked out once even if a loop repeats it."""

    cost: Cost
    lane: int
    issuer: int  # lane of the engine a DMA trigger was put on, or -1
    weights: list[_Operand]  # read ahead, by LoadStationary
    reads: list[_Operand]
    updates: list[_Operand]  # read and then written in place
    writes: list[_Operand]
    registers_read: list[int]
    registers_written: list[int]
    event: int = -1  # when it ran last


class Arrival(NamedTuple):
    """An instruction that could start: the state between the two halves of :meth:`Scoreboard.issue`."""

    start: float
    free: float  # when its engine or queue was
    instruction: Instruction
    plan: _Plan
    boxes: list[_Touch]
    weights_ready: float


class Scoreboard:
    """Times instructions as they are issued, in program order.

    Args:
        target: the generation.
        placement: where on-chip tensors live; None takes all of them to be apart.
        cores: cores of the launch, which share the bandwidth of their HBM.
    """

    def __init__(self, target: Target, placement: Placed | None = None, cores: int = 1):
        self.target = target
        self._hbm_slowdown = _hbm_slowdown(target, cores)
        self.notes: list[str] = []
        self._memory = Memory(placement.addresses if placement is not None else None)
        self._clock = TensorClock(target)
        self._dma = DmaEngines()
        self._free = [0.0] * len(LANES)
        self._table: str | None = None
        self._weights_free = 0.0
        self._hand = _handoffs(target)
        self._plans: dict[Instruction, _Plan] = {}
        self._registers: dict[int, tuple[float, int, int]] = {}
        self._input_reads: dict[Storage, Access] = {}
        self._written: set[Storage] = set()

        self._instructions: list[Instruction] = []
        self._costs: list[Cost] = []
        self._lane: list[int] = []
        self._start: list[float] = []
        self._begin: list[float] = []
        self._busy: list[float] = []
        self._end: list[float] = []
        self._waited: list[float] = []
        self._handoff: list[float] = []
        self._wait: list[int] = []
        self._cause: list[int] = []
        self._issuer: list[int] = []

        # What the current instruction waits for: the latest time so far, its event, reason, semaphore share.
        self._ready = 0.0
        self._ready_by = -1
        self._ready_why = Wait.none
        self._ready_hand = 0.0

    # --- one instruction

    def issue(self, instruction: Instruction, registers: Registers = None) -> None:
        """Time one instruction; those before it in program order must have been issued.

        Args:
            instruction: what runs.
            registers: values of the registers by index, for run-time addresses; a view whose
                register is unknown is taken to touch its whole storage.
        """
        if not instruction.is_free:
            self.depart(self.arrive(instruction, registers))

    def arrive(self, instruction: Instruction, registers: Registers = None) -> Arrival:
        """The first half of :meth:`issue`: when the instruction could start; :meth:`depart` must follow."""
        plan = self._plans.get(instruction)
        if plan is None:
            plan = self._plans[instruction] = _plan(instruction, self.target)
        lane = plan.lane
        boxes: list[_Touch] = []
        self._ready, self._ready_by, self._ready_why, self._ready_hand = 0.0, -1, Wait.none, 0.0
        self._untouched: list[Storage] = []  # inputs it reads that nothing wrote

        for storage, view in plan.weights:
            self._need(storage, view, registers, lane, boxes)
        weights_ready = self._ready
        for storage, view in plan.reads:
            self._need(storage, view, registers, lane, boxes)
        for storage, view in plan.updates:
            self._need(storage, view, registers, lane, [])  # noted once, as a write
        for storage, view in plan.writes:
            self._claim(storage, view, registers, lane, boxes)
        for storage in self._untouched:
            if storage not in self._written:  # only the last of its readers can matter to a later write
                self._input_reads[storage] = (0.0, len(self._start), lane, False)
        for register in plan.registers_read:
            known = self._registers.get(register)
            if known is not None:
                self._after(known[0], known[1], self._hand[known[2]][lane], Wait.register)
        for before in instruction.after:
            producer = self._plans.get(before)
            if producer is not None:
                event = producer.event
                self._after(self._end[event], event, self._hand[producer.lane][lane], Wait.order)

        free = self._free[lane]
        if plan.issuer >= 0:
            if free > self._ready:
                self._ready, self._ready_by, self._ready_why, self._ready_hand = free, -1, Wait.queue, 0.0
            free = self._free[plan.issuer]
        start = free if free > self._ready else self._ready
        return Arrival(start, free, instruction, plan, boxes, weights_ready)

    def depart(self, arrival: Arrival, not_before: float = 0.0) -> None:
        """The second half of :meth:`issue`.

        Args:
            arrival: what :meth:`arrive` returned last.
            not_before: ns at which the cores it meets have arrived too.
        """
        start, free, instruction, plan, boxes, weights_ready = arrival
        lane, cost = plan.lane, plan.cost
        if not_before > start:
            start = not_before
            self._ready_by, self._ready_why, self._ready_hand = -1, Wait.core, 0.0
        if cost.transfer is not None:
            start, begin, busy, end = self._transfer(plan, start)
        elif lane == _TENSOR and cost.columns:
            start, begin, busy, end = self._matmul(cost, start, weights_ready)
        else:
            if cost.table is not None and cost.table != self._table:
                self._table = cost.table
                loaded = self._free[lane] + self.target.scalar_table_load
                if loaded > start:
                    start = loaded
                    self._ready_by, self._ready_why, self._ready_hand = -1, Wait.table, 0.0
            begin, busy, end = start, start + cost.busy, start + cost.latency
            self._free[lane] = busy

        event = plan.event = len(self._start)
        waited = start - free
        self._instructions.append(instruction)
        self._costs.append(cost)
        self._lane.append(lane)
        self._issuer.append(plan.issuer)
        self._start.append(start)
        self._begin.append(begin)
        self._busy.append(busy)
        self._end.append(end)
        if waited > 0.0:
            self._waited.append(waited)
            self._handoff.append(self._ready_hand if self._ready_hand < waited else waited)
            self._wait.append(self._ready_why)
            self._cause.append(self._ready_by)
        else:
            self._waited.append(0.0)
            self._handoff.append(0.0)
            self._wait.append(Wait.none)
            self._cause.append(-1)

        access: Access = (end, event, lane, False)
        for owner, box, is_write in boxes:
            if not owner.owner:  # another operand of this very instruction lies in the same bytes
                self._memory.bytes_of(owner.storage)
            (owner.writes if is_write else owner.reads).add(box, access)
        for register in plan.registers_written:
            self._registers[register] = (end, event, lane)

    def _after(self, time: float, event: int, hand: float, why: Wait) -> None:
        if time + hand > self._ready:
            self._ready, self._ready_by, self._ready_why, self._ready_hand = time + hand, event, why, hand

    def _need(
        self, storage: Storage, view: NkiTensor, registers: Registers, lane: int, boxes: list[_Touch]
    ) -> None:
        """Wait for the writes of what an operand reads, and note the read."""
        if storage.kind != "local" and storage not in self._written:
            self._untouched.append(storage)
            return
        owner = self._memory.bytes_of(storage)
        box = owner.layout.of(view) if view.dynamic is None else _dynamic_box(owner, view, registers)
        if owner.writes.grids:
            hand = self._hand
            for time, event, engine, earlier in owner.writes.meeting(box):
                if engine == lane == _TENSOR:
                    continue  # accumulation in PSUM is in order
                self._after(time, event, hand[engine][lane], Wait.memory if earlier else Wait.data)
        boxes.append((owner, box, False))

    def _claim(
        self, storage: Storage, view: NkiTensor, registers: Registers, lane: int, boxes: list[_Touch]
    ) -> None:
        """Wait for the readers and writers of what an operand overwrites, and note the write."""
        owner = self._memory.bytes_of(storage)
        if storage.kind != "local" and storage not in self._written:
            self._written.add(storage)
            reader = self._input_reads.pop(storage, None)
            if reader is not None:
                _, event, engine, _ = reader
                owner.reads.add(owner.layout.whole, (self._end[event], event, engine, False))
        box = owner.layout.of(view) if view.dynamic is None else _dynamic_box(owner, view, registers)
        hand = self._hand
        for accesses in (owner.reads, owner.writes):
            if accesses.grids:
                for time, event, engine, earlier in accesses.overwrite(box):
                    if engine == lane < _FIRST_QUEUE:
                        continue  # an engine is in order with itself
                    self._after(time, event, hand[engine][lane], Wait.memory if earlier else Wait.reuse)
        boxes.append((owner, box, True))

    # --- engines

    def _matmul(self, cost: Cost, start: float, weights_ready: float) -> tuple[float, float, float, float]:
        """LoadStationary under the previous matmul, then streaming at the clock's rate."""
        target, clock = self.target, self._clock
        clock.advance(max(self._weights_free, weights_ready))
        slow = clock.ghz / clock.rate
        loaded = max(self._weights_free, weights_ready) + cost.weights * slow
        if loaded > start:
            start = loaded
            if self._weights_free >= weights_ready:  # else it waited for what LoadStationary reads
                self._ready_by, self._ready_why, self._ready_hand = -1, Wait.weights, 0.0
        through = clock.stream(start, cost.columns, cost.rows / target.stationary_max)
        part = (through - start) / cost.parts
        if cost.parts > 1:
            exposed = cost.weights * clock.ghz / clock.rate - part
            if exposed > 0.0:
                through += exposed * (cost.parts - 1)
        busy = through + cost.parts * target.tensor_interval
        end = through + (target.tensor_latency if clock.full else target.tensor_latency_throttled)
        self._weights_free = through - part  # when its last part started
        self._free[_TENSOR] = busy
        return start, start, busy, end

    def _transfer(self, plan: _Plan, start: float) -> tuple[float, float, float, float]:
        """A DMA: trigger, descriptors, data through the shared engines, completion."""
        target, cost = self.target, plan.cost
        moved = cost.transfer
        assert moved is not None
        load = moved.direction == "load"
        if moved.mode == "hwdge":
            first = cost.busy + (target.dma_hwdge_start_load if load else target.dma_hwdge_start_store)
            interval = cost.busy
        elif moved.mode == "swdge":
            first = target.dma_swdge_build + (
                target.dma_swdge_start_load if load else target.dma_swdge_start_store
            )
            interval = cost.busy
        else:
            first, interval = target.dma_static_start, target.dma_static_interval
        self._free[plan.lane] = start + interval
        if plan.issuer >= 0:
            self._free[plan.issuer] = start + cost.busy
        begin = start + first
        work = engine_time(target, moved)
        if moved.direction != "local":
            work *= self._hbm_slowdown
        last = self._dma.book(begin, work)
        return start, begin, last, last + finish_time(target, moved)

    # --- the result

    def finish(self) -> Timeline:
        """Everything issued so far, as columns."""
        return Timeline(
            target=self.target,
            instructions=list(self._instructions),
            costs=list(self._costs),
            lane=np.array(self._lane, np.int8),
            start=np.array(self._start, np.float64),
            begin=np.array(self._begin, np.float64),
            busy=np.array(self._busy, np.float64),
            end=np.array(self._end, np.float64),
            waited=np.array(self._waited, np.float64),
            handoff=np.array(self._handoff, np.float64),
            wait=np.array(self._wait, np.int8),
            cause=np.array(self._cause, np.int64),
            issuer=np.array(self._issuer, np.int8),
            throttled=self._clock.slow if self.target.throttled else 0.0,
            notes=tuple(self.notes),
        )


def _hbm_slowdown(target: Target, cores: int) -> float:
    """Factor on HBM transfers of a launch on `cores`: each gets its share of the stack."""
    if cores == 1:
        return 1.0
    share = target.hbm_bytes_per_ns / min(cores, target.hbm_cores)
    return max(1.0, target.dma_engines * target.dma_bytes_per_ns / share)


def _plan(instruction: Instruction, target: Target) -> _Plan:
    cost = instruction.cost(target)
    values = instruction.__dict__
    lane, issuer = _ENGINE_LANE[instruction.on], -1
    if cost.transfer is not None:
        lane = _LANE[f"{cost.transfer.mode} {cost.transfer.direction}"]
        asked = values.get("engine")
        if isinstance(asked, Engine) and asked not in (Engine.unknown, Engine.dma):
            issuer = _ENGINE_LANE[asked]
    stationary = values.get("stationary") if cost.columns else None
    read, writes = instruction.reads, [(t.storage, t) for t in instruction.writes]
    weights, reads, updates = [], [], []
    for tensor in read:
        if tensor is stationary:
            weights.append((tensor.storage, tensor))
        elif any(tensor is written for _, written in writes):
            updates.append((tensor.storage, tensor))
        else:
            reads.append((tensor.storage, tensor))
    plan = _Plan(cost, lane, issuer, weights, reads, updates, writes, [], [])
    if _has_registers(instruction):
        plan.registers_read = [r.index for r in instruction.registers_read]
        plan.registers_written = [r.index for r in instruction.registers_written]
    return plan


class _Names(NamedTuple):
    """Names of an instruction's operands."""

    tensors: tuple[str, ...]
    others: tuple[str, ...]


_NAMES: dict[type[Instruction], _Names] = {}


def _names(kind: type[Instruction]) -> _Names:
    found = _NAMES.get(kind)
    if found is None:
        operands = [f for f in kind.fields.values() if f.is_operand]
        tensors = (Role.read, Role.write, Role.read_write)
        found = _NAMES[kind] = _Names(
            tuple(f.name for f in operands if f.role in tensors),
            tuple(f.name for f in operands if f.role not in tensors),
        )
    return found


def _has_registers(instruction: Instruction) -> bool:
    """True if it may name a register; most instructions do not, and asking in full is slow."""
    values, names = instruction.__dict__, _names(type(instruction))
    for name in names.tensors:
        value = values[name]
        if value is not None and value.dynamic is not None:
            return True
    for name in names.others:
        value = values[name]
        if isinstance(value, (VirtualRegister, list, tuple)) or getattr(value, "dynamic", None) is not None:
            return True
    return False


def _dynamic_box(owner: Bytes, view: NkiTensor, registers: Registers) -> Box:
    """The box of a view with a run-time address; all of its storage where that is not known."""
    dynamic = view.dynamic
    assert dynamic is not None
    index = dynamic.index
    if dynamic.kind != "scalar" or not isinstance(index, VirtualRegister) or registers is None:
        return owner.layout.whole
    try:
        value = registers[index.index]
    except (KeyError, IndexError):
        return owner.layout.whole
    return owner.layout.of(view, value * dynamic.stride)


def _handoffs(target: Target) -> list[list[float]]:
    """ns from the end of an access on one lane to the start of the next on another: [producer][consumer]."""
    table = []
    for producer in range(len(LANES)):
        row = []
        for consumer in range(len(LANES)):
            if producer >= _FIRST_QUEUE:
                if consumer == _TENSOR:
                    hand = target.dma_to_tensor
                elif consumer >= _FIRST_QUEUE or consumer == _SYNC:
                    hand = target.dma_to_sync
                else:
                    hand = target.dma_to_compute
            elif producer == consumer:
                hand = target.same_engine_ns
            else:
                hand = target.semaphore_tensor_ns if consumer == _TENSOR else target.semaphore_ns
            row.append(hand)
        table.append(row)
    return table
