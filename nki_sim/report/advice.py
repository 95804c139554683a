"""What bounds a kernel and what to try at its dearest lines: each sentence has a figure of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nki_isa.cost import Cost
from nki_isa.cost.transfers import engine_time, row_time, used_engines
from nki_isa.diagnostics import NkiError
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Target
from nki_isa.ops.collective import Collective
from nki_isa.ops.dma import is_spill
from nki_sim import words
from nki_sim.report.critical import Step, by_kind, by_line, place_of
from nki_sim.timing.plans import ENGINES, FIRST_QUEUE, LANES
from nki_sim.timing.scoreboard import Timeline, Wait

LINES = 10
_SEVERAL = 4  # transfers, from which on they are a stream
_BUSY = 0.75  # of the time, from which on an engine bounds a kernel by its work and not by latency


@dataclass(frozen=True, slots=True)
class Advice:
    """A line that holds the kernel up.

    Attributes:
        place: ``file:line``.
        time: ns it has of the critical path.
        share: percent of the duration.
        says: what to try, with the figure that says so.
    """

    place: str
    time: float
    share: float
    says: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, times in ns."""
        return {
            "place": self.place,
            "critical_ns": self.time,
            "critical_percent": self.share,
            "try": self.says,
        }


def bound(duration: float, path: list[Step], busy: Mapping[str, float]) -> str:
    """What bounds the kernel, in one sentence.

    Args:
        duration: ns of the run.
        path: its critical path.
        busy: ns each engine was held.
    """
    if not duration:
        return "Nothing takes time."
    engine, held, bounds = _busiest(duration, busy)
    if bounds:
        return (
            f"The {engine} engine bounds it: it is held for {words.percent(held / duration)} of the time, so "
            "only less or faster work there helps."
        )
    kinds = by_kind(path)
    (first, time), *others = kinds.items()
    rest = f", {others[0][0]} {words.percent(others[0][1] / duration)}" if others else ""
    what = {
        "DMA": "DMA bounds it: transfers that something waits for are",
        "semaphores": "Hand-offs bound it: semaphores are",
        "other cores": "Another core bounds it: waiting for it is",
    }.get(
        first,
        f"Results that wait for each other bound it, not the rate of an engine: instructions of {first} are",
    )
    return (
        f"{what} {words.percent(time / duration)} of the critical path{rest}; "
        f"the busiest engine, {engine}, is held {words.percent(held / duration)} of the time."
    )


def bounded_by(duration: float, path: list[Step], busy: Mapping[str, float]) -> str:
    """What :func:`bound` says, in a word or two for a table: ``tensor``, ``DMA``, ``latency of vector``."""
    if not duration:
        return "nothing"
    engine, _, bounds = _busiest(duration, busy)
    if bounds:
        return engine
    first = next(iter(by_kind(path)))
    return first if first in ("DMA", "semaphores", "other cores") else f"latency of {first}"


def _busiest(duration: float, busy: Mapping[str, float]) -> tuple[str, float, bool]:
    """The engine that is held longest, for how many ns, and whether it bounds the kernel."""
    engine, held = max(busy.items(), key=lambda item: item[1])
    return engine, held, held > _BUSY * duration


def advice(timeline: Timeline, path: list[Step], most: int = LINES) -> list[Advice]:
    """The lines with most of the critical path, and what to try at each."""
    events: dict[str, list[int]] = {}
    for step in path:
        events.setdefault(place_of(timeline.instructions[step.event]), []).append(step.event)
    duration = timeline.duration
    return [
        Advice(
            row.place,
            row.time,
            100.0 * row.time / duration,
            _says(timeline, sorted(set(events[row.place])), row.time / row.steps),
        )
        for row in by_line(timeline, path)[:most]
    ]


def _says(timeline: Timeline, events: list[int], step: float) -> str:
    """What to try about events of one line on the path, which stays in it for `step` ns each time."""
    waits = timeline.waited[events]
    wait = Wait(int(timeline.wait[events[int(np.argmax(waits))]]))
    costs = [timeline.costs[k] for k in events]
    if isinstance(timeline.instructions[events[0]], Collective):
        taken = float((timeline.end[events] - timeline.start[events]).sum())
        return (
            f"ranks exchange data for {words.time(taken)}: start it as soon as what it sends is there, and "
            "let engines work on other data beside it"
        )
    if timeline.lane[events[0]] >= FIRST_QUEUE:
        return _of_transfers(timeline, events, costs, step)
    spent = float((timeline.busy[events] - timeline.start[events]).sum())
    loading = float(waits[timeline.wait[events] == Wait.table].sum())
    if loading > 0.5 * spent:
        return _of_tables(timeline, loading)
    if wait is Wait.weights and float(waits.sum()) > spent:
        return (
            f"loading weights that no matmul hides takes {words.time(float(waits.sum()))}: put the operand "
            "with more columns on the moving side, or use the stationary tile for more matmuls"
        )
    if wait is Wait.memory and float(waits.sum()) > spent:
        return (
            f"it waits {words.time(float(waits.sum()))} until bytes of other tensors are free: give tiles of "
            "the loop more room, or use them sooner"
        )
    return _of_engine(timeline, events, costs, spent)


def _of_tables(timeline: Timeline, loading: float) -> str:
    tables = [cost.table for cost in timeline.costs if cost.table is not None]
    loads = sum(table != before for before, table in zip([None, *tables], tables, strict=False))
    if loads > len(set(tables)):
        return (
            f"it waits {words.time(loading)} for activation tables, which are loaded {loads} times for "
            f"{len(set(tables))}: run what uses the same function one after the other"
        )
    return (
        f"it waits {words.time(loading)} for its activation table, which is loaded once: have a small "
        "activation of the same function run before the data are there"
    )


def _of_transfers(timeline: Timeline, events: list[int], costs: list[Cost], step: float) -> str:
    target = timeline.target
    moved = [cost.transfer for cost in costs if cost.transfer is not None]
    row = sum(t.total_bytes for t in moved) / max(1, sum(t.elements for t in moved))
    data = sum(engine_time(target, t) for t in moved)
    whole = float((timeline.end[events] - timeline.start[events]).sum())
    if all(is_spill(timeline.instructions[event]) for event in events):
        return (
            f"SBUF has no room for it: {words.size(sum(t.total_bytes for t in moved))} go to HBM or come "
            f"back, for {words.time(whole)}: keep only what is needed again, or use it before more is made"
        )
    rate = row_efficiency(target, row)
    if rate < 0.75 and data > 0.3 * whole:
        return (
            f"its descriptor rows of {words.size(row)} move at {words.percent(rate)} of the DMA rate: make "
            "the contiguous run longer, 2 KiB or more"
        )
    engines = min(used_engines(target, t) for t in moved)
    if engines < target.dma_engines and data > 0.3 * whole:
        return (
            f"it uses {engines} of {target.dma_engines} DMA engines: spread it over more partitions, "
            f"{target.dma_partitions_per_engine} go to an engine"
        )
    if len(moved) >= _SEVERAL and 1.5 * data < step * len(moved) < 0.5 * whole:
        queue = LANES[int(timeline.lane[events[0]])]
        return (
            f"{len(moved)} transfers overlap, the queue {queue} starts one each {words.time(step)}: move "
            "more bytes in one transfer, or start some with another dge_mode"
        )
    if data < 0.5 * whole:
        return (
            f"{words.time((whole - data) / len(moved))} of the {words.time(whole / len(moved))} that a "
            "transfer takes is starting, queueing and completing: start it before its data are needed, or "
            "move more bytes in one transfer"
        )
    return (
        f"it moves {words.size(sum(t.total_bytes for t in moved))} at the rate of the engines: move less, or "
        "load the next tile while this one is used"
    )


def _of_engine(timeline: Timeline, events: list[int], costs: list[Cost], spent: float) -> str:
    target = timeline.target
    engine = ENGINES[int(timeline.lane[events[0]])]
    if costs[0].columns:
        if not any(cost.flops for cost in costs):
            turned = words.counted(len(events), "transpose")
            return (
                f"{turned} on the tensor engine, {words.time(spent)}: load the operand transposed, or choose "
                "a layout that needs no transpose"
            )
        if any(cost.parts > 1 for cost in costs):
            return (
                f"float32 takes {target.fp32_passes} passes, {words.time(spent)} here: 16-bit operands take "
                "one"
            )
        columns = sum(cost.columns for cost in costs) / len(costs)
        if columns < target.moving_max / 2:
            return (
                f"its moving tiles have {columns:.0f} columns of {target.moving_max}: longer ones pay the "
                f"{target.tensor_latency:.0f} ns until a result is there less often"
            )
        rows = sum(cost.rows for cost in costs) / len(costs)
        if rows < target.partitions:
            return (
                f"it uses {rows:.0f} of {target.partitions} rows of the array: contract over more partitions"
            )
        return (
            f"it streams {columns:.0f} columns over all rows, {words.time(spent)} on the path: only fewer "
            "matmuls take less"
        )
    fixed = sum(_fixed(target, cost) for cost in costs)
    if fixed > 0.5 * spent:
        return (
            f"{words.percent(min(1.0, fixed / spent))} of its {words.time(spent)} is fixed time of "
            f"{words.counted(len(events), 'instruction')}: let one instruction take more elements"
        )
    longest = max(events, key=lambda event: timeline.costs[event].busy)
    rate = timeline.costs[longest].rate
    streams = f" at {getattr(target, rate):g} an engine cycle" if rate else ""
    ways = [way for way in (_mode(timeline, longest), _elsewhere(timeline, longest)) if way]
    return (
        f"it streams elements{streams}, {words.time(spent)} on the {engine} engine: "
        f"{'; '.join(ways) or 'only fewer elements take less'}"
    )


def _mode(timeline: Timeline, event: int) -> str:
    """What the fastest mode of an instruction asks for, where that is faster than what it runs in."""
    instruction, cost, target = timeline.instructions[event], timeline.costs[event], timeline.target
    if instruction.on is not Engine.vector or not cost.rate or not instruction.modes:
        return ""
    fastest = max(instruction.modes, key=lambda mode: float(getattr(target, mode.figure)))
    rate = getattr(target, fastest.figure)
    if rate <= getattr(target, cost.rate):
        return ""
    asks = [
        *([f"{'16' if fastest.narrow else '32'}-bit operands"] if fastest.narrow is not None else []),
        *(["none in PSUM"] if fastest.psum == (0,) else []),
        *(["contiguous"] if fastest.contiguous else []),
    ]
    return f"with {', '.join(asks)}, it takes {rate:g} a cycle" if asks else ""


def _elsewhere(timeline: Timeline, event: int) -> str:
    """Another engine that an instruction may run on, the one held least, and what it takes there."""
    instruction, target = timeline.instructions[event], timeline.target
    if "engine" not in instruction.fields:
        return ""
    given = {name: instruction.__dict__[name] for name in instruction.fields}
    found = []
    for engine in instruction.engines:
        if engine is instruction.on or engine.name not in ENGINES:
            continue
        other = type(instruction)(**{**given, "engine": engine})
        try:
            other.check(target)
        except NkiError:
            continue
        mine = timeline.lane == ENGINES.index(engine.name)
        held = float((timeline.busy - timeline.start)[mine].sum())
        found.append((held, other.cost(target).busy, engine.name))
    if not found:
        return ""
    held, busy, name = min(found)
    return (
        f"on {name}, held {words.percent(held / timeline.duration)} of the time, one takes "
        f"{words.time(busy)} instead of {words.time(timeline.costs[event].busy)}"
    )


def _fixed(target: Target, cost: Cost) -> float:
    """ns of an instruction that do not depend on how many elements it takes."""
    value = float(getattr(target, cost.source))
    return value / target.gpsimd_ghz if cost.source.endswith("_cycles") else value


def row_efficiency(target: Target, row_bytes: float) -> float:
    """The share of a DMA engine's rate that rows of this size reach."""
    time = row_time(target, row_bytes)
    return row_bytes / target.dma_bytes_per_ns / time if time else 1.0
