"""The critical path of a run: the chain of instructions, each held up by the one before, that ends last.

It is walked back from the last result. An instruction that waited was held up by what it waited for; one that
did not, by the one before it on its engine or queue. Every ns of the duration falls to one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nki_isa.ir.instruction import Instruction
from nki_sim.timing.plans import ENGINES, FIRST_QUEUE, LANES
from nki_sim.timing.scoreboard import Timeline, Wait

HANDOFF, ELSEWHERE = "semaphores", "other cores"


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of the path.

    Attributes:
        event: the event it falls to; of a hand-off, the one that waits for it.
        kind: the engine, ``"DMA"``, ``"semaphores"`` or ``"other cores"``.
        start, end: ns.
    """

    event: int
    kind: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class CriticalLine:
    """What a line of the kernel has of the critical path.

    Attributes:
        place: ``file:line``, or the opcode where the instruction comes from no line.
        time: ns.
        steps: how often the path goes through it.
    """

    place: str
    time: float
    steps: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, times in ns."""
        return {"place": self.place, "time_ns": self.time, "steps": self.steps}


def critical_path(timeline: Timeline) -> list[Step]:
    """The steps of the path, first to last; they cover the duration without gap or overlap."""
    if not len(timeline):
        return []
    previous = _previous(timeline)
    event = int(np.argmax(timeline.end))
    upto = timeline.duration
    steps: list[Step] = []
    while upto > 0.0:
        start = min(float(timeline.start[event]), upto)
        lane = int(timeline.lane[event])
        kind = "DMA" if lane >= FIRST_QUEUE else ENGINES[lane]
        waited, cause = float(timeline.waited[event]), int(timeline.cause[event])
        wait = int(timeline.wait[event])
        if waited > 0.0 and cause >= 0:
            steps.append(Step(event, kind, start, upto))
            upto = min(float(timeline.end[cause]), start)
            if upto < start:
                steps.append(Step(event, HANDOFF, upto, start))
            event = cause
            continue
        if waited > 0.0 and wait == Wait.core:
            steps.append(Step(event, kind, start, upto))
            steps.append(Step(event, ELSEWHERE, 0.0, start))
            break
        before = previous[event]
        # What an engine did for this one first, a table or weights, is the instruction's own time.
        until = start if before < 0 else min(start, _released(timeline, before, lane))
        if before < 0:
            until = 0.0
        steps.append(Step(event, kind, until, upto))
        upto, event = until, before
        if before < 0:
            break
    return [step for step in reversed(steps) if step.end > step.start]


def _released(timeline: Timeline, before: int, lane: int) -> float:
    """When `before` let go of what the next instruction on `lane` takes."""
    if timeline.lane[before] >= FIRST_QUEUE:  # a trigger; the transfer goes on beside what follows
        return float("inf")
    return float(timeline.busy[before])


def _previous(timeline: Timeline) -> list[int]:
    """For each event the one before it on its engine or queue, or on the engine that triggers it."""
    last: list[int] = [-1] * len(LANES)
    found: list[int] = []
    for event, (lane, issuer) in enumerate(
        zip(timeline.lane.tolist(), timeline.issuer.tolist(), strict=True)
    ):
        before = last[lane]
        if issuer >= 0:
            before = max(before, last[issuer])
            last[issuer] = event
        last[lane] = event
        found.append(before)
    return found


def by_line(timeline: Timeline, path: list[Step]) -> list[CriticalLine]:
    """What each line has of the path, hand-offs included, the longest first."""
    sums: dict[str, list[float]] = {}
    for step in path:
        entry = sums.setdefault(place_of(timeline.instructions[step.event]), [0.0, 0])
        entry[0] += step.end - step.start
        entry[1] += 1
    rows = [CriticalLine(place, time, int(steps)) for place, (time, steps) in sums.items()]
    return sorted(rows, key=lambda row: (-row.time, row.place))


def by_kind(path: list[Step]) -> dict[str, float]:
    """ns of the path by engine, DMA and hand-offs, the longest first."""
    sums: dict[str, float] = {}
    for step in path:
        sums[step.kind] = sums.get(step.kind, 0.0) + step.end - step.start
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def place_of(instruction: Instruction) -> str:
    """``file:line`` of the innermost call, or the opcode."""
    if not instruction.stack:
        return instruction.opcode
    span = instruction.stack[-1].span
    return f"{span.file}:{span.line}"
