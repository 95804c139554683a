"""What happened, as one table and the figures the vendor's profiler derives from such a table.

Source of the definitions: the SDK's profile schema reference (``mfu_inst_estimated_percent``,
``hfu_estimated_percent``, ``mbu_estimated_percent``, ``*_engine_active_time`` and their like).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.cost import Transfer
from nki_isa.cost.transfers import engine_time, time_alone, used_engines
from nki_isa.ir.instruction import Instruction
from nki_isa.machine.target import Target
from nki_isa.ops.dma import is_spill
from nki_isa.tensor.storage import Storage
from nki_sim import words
from nki_sim.report.advice import Advice, advice, bound, bounded_by
from nki_sim.report.critical import CriticalLine, Step, by_kind, by_line, critical_path
from nki_sim.report.trust import Trust, trust
from nki_sim.timing.plans import ENGINES, LANES
from nki_sim.timing.scoreboard import Timeline, Wait

_FIRST_QUEUE = len(ENGINES)
_WAITS = {wait.value: wait.name for wait in Wait}


def union(start: NDArray[np.float64], end: NDArray[np.float64]) -> float:
    """ns covered by at least one of the intervals [start, end)."""
    if len(start) == 0:
        return 0.0
    order = np.argsort(start, kind="stable")
    start, reached = start[order], np.maximum.accumulate(end[order])
    fresh = np.maximum(start[1:], reached[:-1])
    return float(reached[0] - start[0] + (reached[1:] - fresh).sum())


@dataclass(frozen=True, slots=True)
class EngineSummary:
    """One engine.

    Attributes:
        instructions: machine instructions it ran; a matmul is a LoadStationary and a
            MultiplyMoving for each of its parts.
        active: ns during which at least one instruction was in it, a DMA trigger put on it, or the load of an
            activation table.
        active_percent: of the total time.
        instruction_time: ns of its instructions, summed though they overlap.
        busy: ns its instructions, and the DMA triggers put on it, held it.
        idle: ns nothing held it, by what the next instruction waited for; ``semaphore`` is the
            hand-off of what was already done elsewhere, ``done`` the time after its last one.
            Together with `busy` it is the duration.
    """

    instructions: int
    active: float
    active_percent: float
    instruction_time: float
    busy: float
    idle: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, times in ns."""
        return {
            "instructions": self.instructions,
            "active_ns": self.active,
            "active_percent": self.active_percent,
            "instruction_time_ns": self.instruction_time,
            "busy_ns": self.busy,
            "idle_ns": dict(self.idle),
        }


@dataclass(frozen=True, slots=True)
class DmaSummary:
    """All DMA transfers.

    Attributes:
        transfers: how many.
        rows: descriptor rows moved.
        bytes: payload of all of them.
        mean_bytes: of one transfer.
        mean_row_bytes: of one descriptor row.
        active: ns during which at least one transfer moved data on any of its DMA engines.
        active_percent: of the total time.
        roof_percent: bytes / (total x the bandwidth of all DMA engines together).
        engine_time: ns of work and of waiting for HBM, summed over the DMA engines.
        queues: transfers by queue.
    """

    transfers: int
    rows: int
    bytes: int
    mean_bytes: float
    mean_row_bytes: float
    active: float
    active_percent: float
    roof_percent: float
    engine_time: float
    queues: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, times in ns."""
        return {
            "transfers": self.transfers,
            "rows": self.rows,
            "bytes": self.bytes,
            "mean_bytes": self.mean_bytes,
            "mean_row_bytes": self.mean_row_bytes,
            "active_ns": self.active,
            "active_percent": self.active_percent,
            "roof_percent": self.roof_percent,
            "engine_time_ns": self.engine_time,
            "queues": dict(self.queues),
        }


@dataclass(frozen=True, slots=True)
class RowSummary:
    """The transfers whose descriptor rows are of about one size.

    Attributes:
        least: bytes of their rows, at least.
        below: and below; None for the largest.
        transfers: how many.
        rows: descriptor rows of all of them.
        bytes: payload of all of them.
        engine_time: ns of work, summed over the DMA engines.
        efficiency: percent of the full rate of these engines that the payload reaches meanwhile.
    """

    least: int
    below: int | None
    transfers: int
    rows: int
    bytes: int
    engine_time: float
    efficiency: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, times in ns."""
        return {
            "least_bytes": self.least,
            "below_bytes": self.below,
            "transfers": self.transfers,
            "rows": self.rows,
            "bytes": self.bytes,
            "engine_time_ns": self.engine_time,
            "efficiency_percent": self.efficiency,
        }


@dataclass(frozen=True, slots=True)
class LineSummary:
    """What one line of the kernel cost.

    Attributes:
        place: ``file:line``.
        instructions: how often its instructions ran.
        busy: ns they held their engines or the DMA engines.
        waited: ns engines stood idle for them.
    """

    place: str
    instructions: int
    busy: float
    waited: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, times in ns."""
        return {
            "place": self.place,
            "instructions": self.instructions,
            "busy_ns": self.busy,
            "waited_ns": self.waited,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """A timeline with its figures.

    Attributes:
        timeline: the table, one row per event.
        path: its critical path, first step to last.
        duration: ns from the first possible trigger to the last result.
        total: ns as the vendor's profiler counts, start-up and wind-down included;
            every percentage is of this.
        engines: by name.
        dma: all transfers together.
        flops: useful floating-point operations of matmuls.
        hardware_flops: those of all matmuls, transposes included.
        hbm_read_bytes: bytes read from HBM.
        hbm_write_bytes: bytes written to HBM.
        spill_reload_bytes: those of the bytes read that are spilled tensors coming back.
        spill_save_bytes: those of the bytes written that are tensors being spilled.
        hbm_minimum_bytes: what it would move if it read each piece of its arguments and wrote each piece of
            its results once, and kept the rest on chip; pieces that overlap count twice, up to the tensor.
    """

    timeline: Timeline
    path: list[Step]
    duration: float
    total: float
    engines: dict[str, EngineSummary]
    dma: DmaSummary
    flops: int
    hardware_flops: int
    hbm_read_bytes: int
    hbm_write_bytes: int
    spill_reload_bytes: int
    spill_save_bytes: int
    hbm_minimum_bytes: int

    @classmethod
    def of(cls, timeline: Timeline) -> Profile:
        """The figures of a timeline."""
        costs = timeline.costs
        moved = [cost.transfer for cost in costs if cost.transfer is not None]
        spilled = [
            cost.transfer
            for instruction, cost in zip(timeline.instructions, costs, strict=True)
            if cost.transfer is not None and is_spill(instruction)
        ]
        return cls(
            timeline=timeline,
            path=critical_path(timeline),
            duration=timeline.duration,
            total=timeline.total,
            engines={name: _engine(timeline, lane) for lane, name in enumerate(ENGINES)},
            dma=_dma(timeline),
            flops=sum(cost.flops for cost in costs),
            hardware_flops=sum(cost.hardware_flops for cost in costs),
            hbm_read_bytes=sum(transfer.read_bytes for transfer in moved),
            hbm_write_bytes=sum(transfer.write_bytes for transfer in moved),
            spill_reload_bytes=sum(transfer.read_bytes for transfer in spilled),
            spill_save_bytes=sum(transfer.write_bytes for transfer in spilled),
            hbm_minimum_bytes=_minimum(timeline),
        )

    @property
    def target(self) -> Target:
        """The generation it ran on."""
        return self.timeline.target

    @property
    def mfu(self) -> float:
        """Percent of the bf16 peak that useful matmuls reached: flops / (total x peak)."""
        return self._of_peak(self.flops)

    @property
    def hfu(self) -> float:
        """Percent of the bf16 peak that all matmuls reached, transposes included."""
        return self._of_peak(self.hardware_flops)

    @property
    def mbu(self) -> float:
        """Percent of the HBM bandwidth used: bytes / (total x bandwidth)."""
        moved = self.hbm_read_bytes + self.hbm_write_bytes
        return 100.0 * moved / (self.total * self.target.hbm_bytes_per_ns)

    @property
    def arithmetic_intensity(self) -> float:
        """Useful flops per byte of HBM traffic; 0 without traffic."""
        moved = self.hbm_read_bytes + self.hbm_write_bytes
        return self.flops / moved if moved else 0.0

    @property
    def achievable_mfu(self) -> float:
        """The MFU the HBM traffic allows, in percent: intensity / (peak / bandwidth), at most 100."""
        moved = self.hbm_read_bytes + self.hbm_write_bytes
        if not moved:
            return 100.0
        balance = self.target.peak_tflops_bf16 * 1e3 / self.target.hbm_bytes_per_ns
        return min(100.0, 100.0 * self.arithmetic_intensity / balance)

    @property
    def roofline(self) -> dict[str, float]:
        """TFLOPS it reached, and the two ceilings at its intensity: of the tensor engine, and of HBM."""
        peak = self.target.peak_tflops_bf16
        return {
            "arithmetic_intensity": self.arithmetic_intensity,
            "reached_tflops": self.flops / (self.total * 1e3),
            "compute_ceiling_tflops": peak,
            "memory_ceiling_tflops": self.arithmetic_intensity * self.target.hbm_bytes_per_ns / 1e3,
            "ridge_flops_per_byte": peak * 1e3 / self.target.hbm_bytes_per_ns,
        }

    @property
    def bound(self) -> str:
        """What bounds the kernel, in one sentence."""
        return bound(self.duration, self.path, self._busy())

    @property
    def bounded_by(self) -> str:
        """The same in a word or two for a table: ``tensor``, ``DMA``, ``latency of vector``."""
        return bounded_by(self.duration, self.path, self._busy())

    def _busy(self) -> dict[str, float]:
        return {name: engine.busy for name, engine in self.engines.items()}

    @property
    def trust(self) -> Trust:
        """Whether the times are inside the calibrated domain, and the error there."""
        return trust(self.timeline)

    def advice(self) -> list[Advice]:
        """The lines with most of the critical path, and what to try at each."""
        return advice(self.timeline, self.path)

    def dma_rows(self) -> list[RowSummary]:
        """Transfers by the size of their descriptor rows, short ones first."""
        return _rows(self.timeline)

    def _of_peak(self, flops: int) -> float:
        return 100.0 * flops / (self.total * self.target.peak_tflops_bf16 * 1e3)

    def lines(self) -> list[LineSummary]:
        """What each line of the kernel cost, the longest busy first; code without a place is left out."""
        timeline = self.timeline
        sums: dict[str, list[float]] = {}
        held = (timeline.busy - timeline.begin).tolist()
        waits = timeline.waited.tolist()
        for instruction, busy, waited in zip(timeline.instructions, held, waits, strict=True):
            place = _line(instruction)
            if place is not None:
                entry = sums.setdefault(place, [0, 0.0, 0.0])
                entry[0] += 1
                entry[1] += busy
                entry[2] += waited
        rows = [LineSummary(place, int(n), busy, waited) for place, (n, busy, waited) in sums.items()]
        return sorted(rows, key=lambda row: (-row.busy, row.place))

    def critical_lines(self) -> list[CriticalLine]:
        """What each line of the kernel has of the critical path, the longest first."""
        return by_line(self.timeline, self.path)

    def remarks(self) -> list[str]:
        """What explains figures that look odd, a sentence each."""
        found = []
        later = self.timeline.start_up - self.target.program_start
        if later > 0:
            found.append(
                f"the launch starts {words.time(later)} later, as launches on two cores do that copy from "
                "HBM with descriptors that software makes: write dge_mode=nisa.dge_mode.none, or hwdge, on "
                "each such dma_copy"
            )
        lines, whole = self.lines(), words.time(self.duration)
        held = max(lines, key=lambda line: line.busy, default=None)
        if held is not None and held.busy > self.duration:
            found.append(
                f"busy is a sum over what runs beside each other: {words.path(held.place)} has "
                f"{words.time(held.busy)} in {whole} of work"
            )
        idle = max(lines, key=lambda line: line.waited, default=None)
        if idle is not None and idle.waited > self.duration:
            found.append(
                f"waited is a sum over engines that stand idle beside each other: {words.path(idle.place)} "
                f"has {words.time(idle.waited)} in {whole} of work"
            )
        if self.dma.engine_time > self.duration:
            together, engines = self.dma.engine_time, self.target.dma_engines
            found.append(
                f"packets take {words.time(together / engines)} of each of the {engines} DMA engines, "
                f"{words.time(together)} together, with their waits for HBM, in which others move; data move "
                f"for {words.time(self.dma.active)}"
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values for JSON; times in ns, shares in percent."""
        return {
            "target": self.target.name,
            "total_ns": self.total,
            "duration_ns": self.duration,
            "program_start_ns": self.timeline.start_up,
            "start_up_dma_active_ns": self.target.program_fetch,
            "start_up_engine_active_ns": self.target.program_active,
            "program_end_ns": self.target.program_end,
            "events": len(self.timeline),
            "mfu_percent": self.mfu,
            "hfu_percent": self.hfu,
            "mbu_percent": self.mbu,
            "achievable_mfu_percent": self.achievable_mfu,
            "flops": self.flops,
            "hardware_flops": self.hardware_flops,
            "arithmetic_intensity": self.arithmetic_intensity,
            "hbm_read_bytes": self.hbm_read_bytes,
            "hbm_write_bytes": self.hbm_write_bytes,
            "spill_reload_bytes": self.spill_reload_bytes,
            "spill_save_bytes": self.spill_save_bytes,
            "hbm_minimum_bytes": self.hbm_minimum_bytes,
            "roofline": self.roofline,
            "bound": self.bound,
            "trust": self.trust.as_dict(),
            "tensor_throttled_ns": self.timeline.throttled,
            "engines": {name: summary.as_dict() for name, summary in self.engines.items()},
            "dma": self.dma.as_dict(),
            "dma_rows": [row.as_dict() for row in self.dma_rows()],
            "critical_path": {
                "by_kind_ns": by_kind(self.path),
                "lines": [line.as_dict() for line in self.critical_lines()],
            },
            "advice": [one.as_dict() for one in self.advice()],
            "lines": [line.as_dict() for line in self.lines()],
            "remarks": self.remarks(),
            "notes": list(self.timeline.notes),
        }

    def columns(self) -> dict[str, Iterable[Any]]:
        """The table itself, one entry per event, ready for a data frame."""
        timeline = self.timeline
        return {
            "opcode": [i.opcode for i in timeline.instructions],
            "place": [_line(i) for i in timeline.instructions],
            "lane": [LANES[k] for k in timeline.lane],
            "start": timeline.start,
            "begin": timeline.begin,
            "busy": timeline.busy,
            "end": timeline.end,
            "waited": timeline.waited,
            "handoff": timeline.handoff,
            "wait": [Wait(k).name for k in timeline.wait],
            "cause": timeline.cause,
        }


def _line(instruction: Instruction) -> str | None:
    if not instruction.stack:
        return None
    span = instruction.stack[-1].span
    return f"{span.file}:{span.line}"


def _engine(timeline: Timeline, lane: int) -> EngineSummary:
    mine = timeline.lane == lane
    start, end = timeline.start[mine], timeline.end[mine]
    busy, idle, tables = _held(timeline, lane)
    target = timeline.target
    triggers = np.flatnonzero(timeline.issuer == lane)
    held = np.array([timeline.costs[k].busy for k in triggers.tolist()])
    loads = np.array(tables)
    active = union(
        np.concatenate((start, timeline.start[triggers], loads)),
        np.concatenate((end, timeline.start[triggers] + held, loads + target.scalar_table_load)),
    )
    count, hidden = 0, 0.0  # machine instructions; ns of those that run under another one of the same matmul
    for k in np.flatnonzero(mine).tolist():
        cost = timeline.costs[k]
        if cost.columns:
            count += 2 * cost.parts
            hidden += (cost.parts - 1) * target.tensor_latency
            hidden += cost.parts * (cost.weights + target.weight_latency)
        else:
            count += 1
    return EngineSummary(
        instructions=count,
        active=active,
        active_percent=100.0 * active / timeline.total,
        instruction_time=float((end - start).sum()) + hidden,
        busy=busy,
        idle=idle,
    )


def _held(timeline: Timeline, lane: int) -> tuple[float, dict[str, float], list[float]]:
    """ns that instructions and DMA triggers hold the engine, the gaps between them by cause, and when it
    began to load activation tables."""
    idle: dict[str, float] = {}
    tables: list[float] = []
    table = None
    busy = free = 0.0
    mine = np.flatnonzero((timeline.lane == lane) | (timeline.issuer == lane))
    columns = (timeline.lane, timeline.start, timeline.busy, timeline.wait, timeline.handoff)
    for event, on, start, until, wait, handoff in zip(
        mine.tolist(), *(column[mine].tolist() for column in columns), strict=True
    ):
        gap = start - free
        if gap > 0.0:
            handed = min(gap, handoff)
            for reason, share in ((_WAITS[wait], gap - handed), ("semaphore", handed)):
                if share > 0.0:
                    idle[reason] = idle.get(reason, 0.0) + share
        cost = timeline.costs[event]
        if on == lane and cost.table is not None and cost.table != table:
            table = cost.table
            tables.append(free)
        free = until if on == lane else start + cost.busy
        busy += free - start
    if timeline.duration > free:
        idle["done"] = timeline.duration - free
    return busy, idle, tables


def _dma(timeline: Timeline) -> DmaSummary:
    target = timeline.target
    mine = timeline.lane >= _FIRST_QUEUE
    transfers = [cost.transfer for cost in timeline.costs if cost.transfer is not None]
    total = sum(t.total_bytes for t in transfers)
    rows = sum(t.elements for t in transfers)
    lanes, counts = np.unique(timeline.lane[mine], return_counts=True)
    active = union(timeline.begin[mine], timeline.end[mine] - target.dma_completion)
    return DmaSummary(
        transfers=len(transfers),
        rows=rows,
        bytes=total,
        mean_bytes=total / len(transfers) if transfers else 0.0,
        mean_row_bytes=total / rows if rows else 0.0,
        active=active,
        active_percent=100.0 * active / timeline.total,
        roof_percent=100.0 * total / (timeline.total * target.dma_roof_bytes_per_ns),
        engine_time=_engine_time(target, transfers, time_alone),
        queues={LANES[lane]: int(count) for lane, count in zip(lanes, counts, strict=True)},
    )


def _engine_time(
    target: Target, transfers: list[Transfer], one: Callable[[Target, Transfer], float] = engine_time
) -> float:
    """ns that transfers take of the DMA engines, summed over these; `one` says it of the busiest."""
    known = {id(t): t for t in transfers}  # instructions of one form share theirs
    times = {key: one(target, t) * used_engines(target, t) for key, t in known.items()}
    return sum([times[id(t)] for t in transfers])


_ROW_SIZES = (0, 64, 256, 512, 2048)
"""Bytes at which the efficiency of DMA changes: the vendor's DMA guide names 256 B, 512 B and 2 KiB."""


def _rows(timeline: Timeline) -> list[RowSummary]:
    target = timeline.target
    found = []
    for least, below in zip(_ROW_SIZES, (*_ROW_SIZES[1:], None), strict=True):
        moved = [
            transfer
            for cost in timeline.costs
            if (transfer := cost.transfer) is not None
            and least <= transfer.element_bytes
            and (below is None or transfer.element_bytes < below)
        ]
        if not moved:
            continue
        total = sum(t.total_bytes for t in moved)
        time = _engine_time(target, moved)
        rate = 100.0 * total / (time * target.dma_bytes_per_ns) if time else 100.0
        rows = sum(t.elements for t in moved)
        found.append(RowSummary(least, below, len(moved), rows, total, time, rate))
    return found


#: Offset, shape and strides of a view.
_Piece = tuple[int, tuple[int, ...], tuple[int, ...]]


def _minimum(timeline: Timeline) -> int:
    read: dict[Storage, dict[_Piece, int]] = {}  # and the bytes of an element
    written: dict[Storage, dict[_Piece, int]] = {}
    for instruction, cost in zip(timeline.instructions, timeline.costs, strict=True):
        if cost.transfer is not None:
            for tensors, pieces in ((instruction.reads, read), (instruction.writes, written)):
                for view in tensors:
                    if not view.storage.on_chip:
                        piece = view.offset, view.shape, view.strides
                        pieces.setdefault(view.storage, {})[piece] = view.dtype.itemsize
    arguments = {s: pieces for s, pieces in read.items() if s.kind == "input"}
    results = {s: pieces for s, pieces in written.items() if s.kind == "input" or s not in read}
    return sum(
        min(storage.row_bytes, sum(math.prod(shape) * item for (_, shape, _), item in pieces.items()))
        for kept in (arguments, results)
        for storage, pieces in kept.items()
    )
