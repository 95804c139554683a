"""Timelines as Chrome trace JSON, which ui.perfetto.dev and chrome://tracing open.

One process per core of a kernel launch, and one for the links that ranks use; launches stand one after the
other. One row per engine, and per direction of a link; a DMA queue, which has several transfers in
flight, has as many rows as it needs. Each slice says what ran, at which source line, and what it waited
for; an arrow leads from what held it up. The critical path has a row of its own, and a counter shows the SBUF
bytes in use over time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Program
from nki_sim import words
from nki_sim.placement.place import Holder, Placement
from nki_sim.placement.utilisation import by_quadrant
from nki_sim.report.critical import critical_path, place_of
from nki_sim.report.files import replacing
from nki_sim.report.links import LinkRows, link_rows
from nki_sim.report.rows import Rows, rows_of
from nki_sim.timing.plans import LANES
from nki_sim.timing.scoreboard import Timeline, Wait

REASONS = {
    Wait.data: "a result it reads",
    Wait.reuse: "readers or writers of the tensor it overwrites",
    Wait.memory: "users of another tensor that held its bytes",
    Wait.table: "the load of its activation table",
    Wait.weights: "its own LoadStationary",
    Wait.queue: "earlier triggers of its DMA queue",
    Wait.register: "a register",
    Wait.core: "another core, in a meeting",
    Wait.order: "an instruction the kernel asked it to run after",
}

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Traced:
    """What one core of a launch ran: the Program, when it ran and where its tensors were; and who it is."""

    program: Program
    timeline: Timeline
    placement: Placement
    name: str = ""


Launches = Iterable[Sequence[Traced]]
"""Kernel launches in order, each as its cores in order."""


def write_trace(path: str | os.PathLike[str], launches: Launches) -> None:
    """Write the launches to `path`, whole or not at all: an old file stays until the new one is complete.

    Raises:
        OSError: `path` cannot be written.
    """
    with replacing(path) as file:
        file.write('{"displayTimeUnit": "ns", "traceEvents": [\n')
        separator = ""
        for event in events(launches):
            file.write(separator + json.dumps(event, allow_nan=False))
            separator = ",\n"
        file.write("\n]}\n")


def events(launches: Launches) -> Iterator[Event]:
    """The trace events of the launches, in order; times in microseconds, as the format has it."""
    offset, process = 0.0, 0
    for number, cores in enumerate(launches, 1):
        for core, traced in enumerate(cores):
            process += 1
            which = (
                f"launch {number}, {traced.name or f'core {core}'}" if len(cores) > 1 else f"launch {number}"
            )
            yield from _core(process, which, traced, offset)
        found = link_rows([traced.timeline for traced in cores])
        if found is not None:
            process += 1
            yield from _links(process, f"launch {number}", found, offset)
        offset += max(traced.timeline.duration for traced in cores)


def _core(process: int, which: str, traced: Traced, offset: float) -> Iterator[Event]:
    timeline = traced.timeline
    name = f"{traced.program.name} on {timeline.target.name} ({which})"
    yield _metadata("process_name", process, 0, name=name)
    yield _metadata("process_sort_index", process, 0, sort_index=process)
    rows = rows_of(timeline)
    for row, label in enumerate(rows.labels, 1):
        yield _metadata("thread_name", process, row, name=label)
        yield _metadata("thread_sort_index", process, row, sort_index=row)
    yield from _slices(process, timeline, rows, offset)
    yield from _critical(process, len(rows.labels) + 1, timeline, offset)
    yield from _arrows(process, timeline, rows, offset)
    yield from _counter(process, traced.placement, timeline, offset)


def _links(process: int, which: str, found: LinkRows, offset: float) -> Iterator[Event]:
    """A row for each direction of a link, with the collectives that use it."""
    yield _metadata("process_name", process, 0, name=f"links of {found.topology.name} ({which})")
    yield _metadata("process_sort_index", process, 0, sort_index=process)
    for row, (link, carried) in enumerate(found.rows.items(), 1):
        yield _metadata("thread_name", process, row, name=str(link))
        yield _metadata("thread_sort_index", process, row, sort_index=row)
        for one in carried:
            begin = _microseconds(offset + one.begin)
            yield {
                "ph": "X",
                "name": one.instruction.opcode,
                "cat": "link",
                "pid": process,
                "tid": row,
                "ts": begin,
                "dur": round(_microseconds(offset + one.end) - begin, 6),
                "args": {
                    **described(one.instruction),
                    "algorithm": one.algorithm,
                    "bytes": round(one.octets),
                    "share_of_link": round(one.share, 4),
                },
            }


def _metadata(kind: str, process: int, thread: int, **arguments: Any) -> Event:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": arguments}


# --- slices


def _slices(process: int, timeline: Timeline, rows: Rows, offset: float) -> Iterator[Event]:
    known: dict[int, dict[str, Any]] = {}
    starts = timeline.start.tolist()
    for event in sorted(range(len(timeline)), key=lambda k: (rows.row[k], starts[k], k)):
        instruction = timeline.instructions[event]
        facts = known.get(id(instruction))
        if facts is None:
            facts = known[id(instruction)] = described(instruction)
        begin = _microseconds(offset + starts[event])
        yield {
            "ph": "X",
            "name": words.act(instruction),
            "cat": LANES[timeline.lane[event]],
            "pid": process,
            "tid": rows.row[event] + 1,
            "ts": begin,
            "dur": round(_microseconds(offset + rows.end[event]) - begin, 6),
            "args": {"event": event, **facts, **_timed(timeline, event)},
        }


def _critical(process: int, row: int, timeline: Timeline, offset: float) -> Iterator[Event]:
    """The critical path in a row of its own, above the engines."""
    yield _metadata("thread_name", process, row, name="critical path")
    yield _metadata("thread_sort_index", process, row, sort_index=0)
    for step in critical_path(timeline):
        begin = _microseconds(offset + step.start)
        yield {
            "ph": "X",
            "name": step.kind,
            "cat": "critical path",
            "pid": process,
            "tid": row,
            "ts": begin,
            "dur": round(_microseconds(offset + step.end) - begin, 6),
            "args": {"event": step.event, "source": place_of(timeline.instructions[step.event])},
        }


def described(instruction: Instruction) -> dict[str, Any]:
    """What an instruction is, whenever it runs: its text, operands, line and calls."""
    given = words.operands(instruction)
    return {
        "instruction": " ".join([instruction.opcode, *(f"{name}={value}" for name, value in given.items())]),
        "operands": given,
        "source": words.place(instruction.stack),
        "calls": [f"{frame.function} at {words.place((frame,))}" for frame in reversed(instruction.stack)],
    }


def _timed(timeline: Timeline, event: int) -> dict[str, Any]:
    """When it started, what it waited for and how long, and the bytes it moved."""
    facts: dict[str, Any] = {
        "start_ns": round(float(timeline.start[event]), 3),
        "busy_until_ns": round(float(timeline.busy[event]), 3),
        "visible_ns": round(float(timeline.end[event]), 3),
    }
    waited = float(timeline.waited[event])
    if waited > 0:
        facts["waited_ns"] = round(waited, 3)
        facts["semaphore_ns"] = round(float(timeline.handoff[event]), 3)
        facts["waited_for"] = reason(timeline, event)
    transfer = timeline.costs[event].transfer
    if transfer is not None:
        facts["data_begins_ns"] = round(float(timeline.begin[event]), 3)
        facts["bytes"] = transfer.total_bytes
        facts["descriptor_rows"] = transfer.elements
        facts["row_bytes"] = transfer.element_bytes
    return facts


def reason(timeline: Timeline, event: int) -> str:
    """What an event waited for, in words."""
    why = REASONS.get(Wait(int(timeline.wait[event])), "nothing known")
    cause = int(timeline.cause[event])
    if cause < 0:
        return why
    producer = timeline.instructions[cause]
    where = words.place(producer.stack)
    return f"{why}: event {cause}, {producer.opcode}" + (f" at {where}" if where else "")


def _microseconds(ns: float) -> float:
    return round(ns / 1000, 6)


# --- arrows and the counter


def _arrows(process: int, timeline: Timeline, rows: Rows, offset: float) -> Iterator[Event]:
    """From the slice an event waited for to the event."""
    for event in np.flatnonzero((timeline.waited > 0) & (timeline.cause >= 0)).tolist():
        cause = int(timeline.cause[event])
        common = {
            "name": Wait(int(timeline.wait[event])).name,
            "cat": "wait",
            "id": f"{process}.{event}",
            "pid": process,
        }
        leaves = max(
            float(timeline.start[cause]), rows.end[cause] - 1.0
        )  # inside the slice, so that it binds to it
        yield {"ph": "s", **common, "tid": rows.row[cause] + 1, "ts": _microseconds(offset + leaves)}
        arrives = _microseconds(offset + float(timeline.start[event]))
        yield {"ph": "f", "bp": "e", **common, "tid": rows.row[event] + 1, "ts": arrives}


def _counter(process: int, placement: Placement, timeline: Timeline, offset: float) -> Iterator[Event]:
    """SBUF bytes per partition that tensors hold from first to last access, in time, where it is fullest."""
    held = _held(placement.sbuf.holders, timeline)
    marks = sorted({edge for holder, _, _ in held for edge in (holder.offset, holder.end)})
    at = {edge: k for k, edge in enumerate(marks)}
    edges: NDArray[np.int64] = np.array(marks, np.int64)
    widths = edges[1:] - edges[:-1]
    quadrants = len(by_quadrant([holder for holder, _, _ in held]))
    holding = np.zeros((quadrants, len(widths)), np.int64)
    used = np.zeros(quadrants, np.int64)
    changes = [(start, 1, k) for k, (_, start, _) in enumerate(held)]
    changes += [(end, -1, k) for k, (_, _, end) in enumerate(held)]
    last: float | None = None
    pending: Event | None = None
    for when, step, k in sorted(changes):
        holder = held[k][0]
        stretch = slice(at[holder.offset], at[holder.end])
        lanes = [lane for lane in range(quadrants) if holder.quadrants >> lane & 1]
        used[lanes] -= (holding[lanes, stretch] > 0) @ widths[stretch]
        holding[lanes, stretch] += step
        used[lanes] += (holding[lanes, stretch] > 0) @ widths[stretch]
        if pending is not None and when != last:
            yield pending
        last = when
        pending = {
            "ph": "C",
            "name": "SBUF bytes per partition",
            "pid": process,
            "tid": 0,
            "ts": _microseconds(offset + when),
            "args": {"bytes": int(used.max())},
        }
    if pending is not None:
        yield pending


def _held(holders: Iterable[Holder], timeline: Timeline) -> list[tuple[Holder, float, float]]:
    """Each tensor that is accessed, from the start of its first access to the end of its last."""
    spans: dict[int, tuple[float, float]] = {}
    touched: dict[int, set[int]] = {}
    for instruction, start, end in zip(
        timeline.instructions, timeline.start.tolist(), timeline.end.tolist(), strict=True
    ):
        indices = touched.get(id(instruction))
        if indices is None:
            tensors = (*instruction.reads, *instruction.writes)
            indices = touched[id(instruction)] = {t.storage.index for t in tensors}
        for index in indices:
            first, last = spans.get(index, (start, end))
            spans[index] = (min(first, start), max(last, end))
    return [(h, *spans[h.storage.index]) for h in holders if h.storage.index in spans]
