"""The order of a Program's instructions, as a compiler might choose it: ``--schedule compiler``.

A list scheduler that looks ahead. At any time it sees the next :data:`LOOK_AHEAD` instructions of the
kernel's order that have not run. Of those whose predecessors have run it takes the one that can start
first; where several can, the oldest; but none that would hold back an older one of its engine. DMAs whose
descriptors an engine or the DGE makes when they are triggered keep the order of their queue: what is loaded
ahead, and into which buffers, is as written. Those whose descriptors lie ready in HBM pass one that waits.
What the kernel leaves open where to run goes to the engine that has it done first.
Times are the scoreboard's own costs, with the tensor engine at its full clock.

What must stay behind what: accesses to the same bytes, after placement, so that an instruction which reuses
bytes stays behind all that used them before; registers, engine state, ``no_reorder``, ``depends_on`` and
schedules. Nothing crosses a barrier, a print or a device loop; the body of a loop is scheduled by itself.
What uses HBM that the kernel writes stays on its side of a sendrecv, as cores may rely on it to tell when
that is written; the rest of what a core does crosses it. Placement, storages and what instructions compute
stay as they are: only the order and the engines of copies change, so the results do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace

from nki_isa.ir.form import Form, Forms
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program, While
from nki_isa.ir.rewrite import in_order, on_engine
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Target
from nki_isa.ops.meeting import Meeting
from nki_isa.tensor.storage import Storage
from nki_sim.timing.byte_boxes import Access, AllAccesses, Box, Bytes
from nki_sim.timing.dma_engines import DmaEngines
from nki_sim.timing.plans import (
    FIRST_QUEUE,
    LANES,
    MADE_AT_TRIGGER,
    TENSOR,
    Operand,
    Plan,
    Use,
    dynamic_box,
    handoffs,
    hbm_share,
    plan_of,
    views_of,
)
from nki_sim.timing.scoreboard import Placed

LOOK_AHEAD = 256
"""Instructions it sees; docs/fidelity.md has the rows that this number was chosen by."""


def scheduled(
    program: Program,
    target: Target,
    placement: Placed | None = None,
    *,
    cores: int = 1,
    look_ahead: int = LOOK_AHEAD,
) -> Program:
    """`program` with its instructions in the order of the scheduler.

    Args:
        program: the kernel, specialized for one core.
        target: the generation whose costs decide.
        placement: where its on-chip tensors live; None takes all of them to be apart.
        cores: cores of the launch, which share the bandwidth of their HBM.
        look_ahead: instructions it sees; 1 leaves the order as it is.
    """
    if look_ahead == 1:
        return program
    return in_order(program, _Scheduler(program, target, placement, cores, look_ahead).body(program.body))


def _shared(program: Program) -> Set[Storage]:
    """The storages in HBM that a kernel which meets other cores writes."""
    if not any(instruction.synchronises for instruction in program.walk()):
        return set()
    return {view.storage for i in program.walk() for view in i.writes if view.buffer.is_hbm}


def _is_fence(instruction: Instruction) -> bool:
    """Whether nothing crosses it."""
    if not instruction.synchronises:
        return False
    touched = (*instruction.reads, *instruction.writes)
    return not touched or not all(view.buffer.on_chip for view in touched)


def _engine(plan: Plan) -> Engine:
    return Engine[LANES[plan.lane]]


@dataclass(slots=True, eq=False)
class _Waiting:
    """An instruction in sight.

    Attributes:
        number: its place in program order.
        plans: what is needed of it, by engine it may run on; the first is the one it is on.
        plan: the one of these that it takes.
        waits: predecessors that have not run.
        ready: ns at which what its other predecessors did is visible to it.
        followers: instructions in sight that stay behind it, and whether they wait for its result.
        end: ns at which its result is visible; -1 before it has run.
    """

    number: int
    instruction: Instruction
    plans: tuple[Plan, ...]
    plan: Plan
    waits: int
    ready: float
    followers: list[tuple[_Waiting, bool]]
    end: float


class _Scheduler:
    def __init__(
        self, program: Program, target: Target, placement: Placed | None, cores: int, look_ahead: int
    ):
        self._target = target
        self._shared = _shared(program)
        self._named = {before for instruction in program.walk() for before in instruction.after}
        self._look_ahead = look_ahead
        self._memory = AllAccesses(placement.addresses if placement is not None else None)
        self._forms = Forms(target)
        self._plans: dict[Form, tuple[Plan, ...]] = {}
        self._hands = handoffs(target)
        self._dma = DmaEngines(hbm_share(target, cores), target.dma_shared)
        self._free = [0.0] * len(LANES)
        self._table: str | None = None
        self._count = 0
        # By slot: an instruction has the slot of its number modulo the look-ahead, so the one that had it
        # before has run.
        self._slots: list[_Waiting | None] = [None] * look_ahead
        self._seen: dict[Instruction, _Waiting] = {}
        self._writers: dict[object, _Waiting] = {}  # of registers and engine state
        self._readers: dict[object, list[_Waiting]] = {}
        self._queues: dict[int, _Waiting] = {}  # the latest trigger of each

    def body(self, body: list[Node]) -> list[Node]:
        """The nodes of a body in their order here; `body` itself where that is its own."""
        found: list[Node] = []
        run: list[Instruction] = []
        for node in body:
            if isinstance(node, Instruction) and not node.is_free and not _is_fence(node):
                run.append(node)
                continue
            found += self._ordered(run)
            run = []
            if isinstance(node, (Loop, While)):
                inner = self.body(node.body)
                found.append(node if inner is node.body else replace(node, body=inner))
            else:
                found.append(node)
        found += self._ordered(run)
        return body if all(new is old for new, old in zip(found, body, strict=True)) else found

    def _ordered(self, run: list[Instruction]) -> Iterator[Instruction]:
        """The instructions of a stretch that nothing interrupts, in the order in which they start."""
        ready: list[_Waiting] = []
        oldest = self._count  # the first in program order that has not run
        arrivals = iter(run)
        last = self._count + len(run)
        while oldest < last:
            while self._count < last and self._count < oldest + self._look_ahead:
                seen = self._see(next(arrivals))
                if not seen.waits:
                    ready.append(seen)
            chosen = self._run_first(ready)
            for follower, needs in chosen.followers:
                follower.waits -= 1
                if needs:
                    self._wait_for(follower, chosen)
                if not follower.waits:
                    ready.append(follower)
            moved = chosen.plan is not chosen.plans[0]
            yield on_engine(chosen.instruction, _engine(chosen.plan)) if moved else chosen.instruction
            while oldest < last:
                at = self._slots[oldest % self._look_ahead]
                if at is None or at.number != oldest or at.end < 0.0:
                    break
                oldest += 1

    # --- what comes into sight

    def _see(self, instruction: Instruction) -> _Waiting:
        """Take in the next instruction of program order: what it stays behind, and what stays behind it."""
        form = instruction.form or self._forms.of(instruction)
        plans = self._plans.get(form)
        if plans is None:
            plans = self._plans[form] = self._plans_of(form)
        if instruction in self._named:
            plans = plans[:1]
        slot = self._count % self._look_ahead
        seen = self._slots[slot] = _Waiting(self._count, instruction, plans, plans[0], 0, 0.0, [], -1.0)
        self._count += 1
        before: dict[_Waiting, bool] = {}
        access = float(seen.number), seen.number, slot, None
        for owner, box, is_write in self._touched(seen, before):
            if not owner.owner:  # another operand of this very instruction lies in the same bytes
                self._memory.bytes_of(owner.storage)
            (owner.writes if is_write else owner.reads).add(box, access)
        for asked in instruction.after:
            if asked in self._seen:
                before[self._seen[asked]] = True
        self._seen[instruction] = seen
        self._keep_state(seen, before)
        for other, needs in before.items():
            if other is seen:
                continue
            if other.end < 0.0:
                other.followers.append((seen, needs))
                seen.waits += 1
            elif needs:
                self._wait_for(seen, other)
        return seen

    def _plans_of(self, form: Form) -> tuple[Plan, ...]:
        """The plan of a form, then those of the other engines it may run on."""
        sample = form.sample
        others = [on_engine(sample, engine) for engine in sample.open_engines(self._target)]
        return tuple(
            plan_of(form if one is sample else self._forms.of(one), self._target) for one in (sample, *others)
        )

    def _touched(self, seen: _Waiting, before: dict[_Waiting, bool]) -> list[tuple[Bytes, Box, bool]]:
        """The bytes it touches, and whether it writes them; who used them goes into `before`."""
        plan, values = seen.plan, seen.instruction.__dict__
        found: list[tuple[Bytes, Box, bool]] = []
        for operand in views_of(seen.instruction, plan.cost) if plan.operands is None else plan.operands:
            if isinstance(operand, Operand):
                name, use, _, boxes = operand
                view = values[name]
                owner = self._memory.taken(view.storage)
                box = boxes.get(view.offset)
                if box is None:
                    box = boxes[view.offset] = owner.layout.of(view)
                if owner.givers and (use is not Use.write or box is not owner.layout.whole):
                    owner.settle()
            else:
                view, use = operand
                owner = self._memory.bytes_of(view.storage)
                box = owner.layout.of(view) if view.dynamic is None else dynamic_box(owner, view, None)
            if use is Use.write:
                self._behind(owner.overwrite(box), seen, before, True)
                found.append((owner, box, True))
            else:
                self._behind(owner.writes.meeting(box), seen, before, False)
                if use is not Use.update:
                    found.append((owner, box, False))
        return found

    def _behind(
        self, accesses: Iterable[Access], seen: _Waiting, before: dict[_Waiting, bool], is_write: bool
    ) -> None:
        """Stay behind these accesses; wait for their results where the scoreboard does.

        An engine is in order with itself when it overwrites, the tensor engine when it accumulates.
        """
        lane, slots = seen.plan.lane, self._slots
        for _, number, slot, _ in accesses:
            other = slots[slot]
            if other is None or other.number != number:
                continue  # it ran before the last `look_ahead` instructions came into sight
            in_order_anyway = other.plan.lane == lane and (lane < FIRST_QUEUE if is_write else lane == TENSOR)
            in_order_anyway &= len(seen.plans) == len(other.plans) == 1
            before[other] = before.get(other, False) or not in_order_anyway

    def _keep_state(self, seen: _Waiting, before: dict[_Waiting, bool]) -> None:
        """Stay in order about registers and what an engine keeps between instructions."""
        instruction = seen.instruction
        reads: list[object] = []
        writes: list[object] = []
        if seen.plan.has_registers:
            reads += [register.index for register in instruction.registers_read]
            writes += [register.index for register in instruction.registers_written]
        if instruction.uses_engine_state:
            writes.append(instruction.on)
        if instruction.synchronises:
            writes.append(Meeting)
        elif self._shared and any(
            view.storage in self._shared for view in (*instruction.reads, *instruction.writes)
        ):
            reads.append(Meeting)
        if seen.plan.lane in MADE_AT_TRIGGER:
            self._keep_queue(seen, before)
        for state in (*reads, *writes):
            if state in self._writers:
                before[self._writers[state]] = True
        for state in reads:
            self._readers.setdefault(state, []).append(seen)
        for state in writes:
            for reader in self._readers.pop(state, ()):
                before.setdefault(reader, False)
            self._writers[state] = seen

    def _keep_queue(self, seen: _Waiting, before: dict[_Waiting, bool]) -> None:
        """Stay behind the trigger that its DMA queue had before."""
        last = self._queues.get(seen.plan.lane)
        if last is not None:
            before.setdefault(last, False)
        self._queues[seen.plan.lane] = seen

    # --- what runs next

    def _wait_for(self, waiting: _Waiting, other: _Waiting) -> None:
        ready = other.end + self._hands[waiting.plan.lane][other.plan.lane]
        waiting.ready = max(waiting.ready, ready)

    def _run_first(self, ready: list[_Waiting]) -> _Waiting:
        """Take out of `ready` and run the instruction that can start first, of several the oldest.

        None runs before an older one of its engine that it would hold back.
        """
        free, table = self._free, self._table
        oldest: dict[int, tuple[int, float]] = {}  # of each lane: its number, when it can start
        starts = []
        for waiting in ready:
            if len(waiting.plans) > 1:
                waiting.plan = min(
                    waiting.plans, key=lambda one: max(free[one.lane], waiting.ready) + one.cost.latency
                )
            plan, start = waiting.plan, waiting.ready
            lane = plan.lane
            if free[lane] > start:
                start = free[lane]
            if plan.issuer >= 0 and free[plan.issuer] > start:
                start = free[plan.issuer]
            if plan.cost.table is not None and plan.cost.table != table:
                start = max(start, free[lane] + self._target.scalar_table_load)
            starts.append(start)
            number = waiting.number
            if lane not in oldest or number < oldest[lane][0]:
                oldest[lane] = number, start
        chosen, best, first = ready[0], math.inf, 0
        for waiting, start in zip(ready, starts, strict=True):
            number, plan = waiting.number, waiting.plan
            if start > best or (start == best and number > first):
                continue
            older, wanted = oldest[plan.lane]
            if older == number or start + plan.held <= wanted:
                chosen, best, first = waiting, start, number
        ready.remove(chosen)
        self._run(chosen, best)
        return chosen

    def _run(self, chosen: _Waiting, start: float) -> None:
        plan, cost = chosen.plan, chosen.plan.cost
        if plan.dma is not None:
            dma = plan.dma
            self._free[plan.lane] = start + dma.interval
            if plan.issuer >= 0:
                self._free[plan.issuer] = start + cost.busy
            chosen.end = self._dma.end(self._dma.book(plan.lane, start + dma.first, dma.work)) + dma.finish
            return
        if cost.table is not None:
            self._table = cost.table
        self._free[plan.lane] = start + cost.busy
        chosen.end = start + cost.latency
