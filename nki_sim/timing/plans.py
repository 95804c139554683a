"""What the scoreboard and the scheduler need of a form: where it runs, what it costs, what it touches."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nki_isa.cost import Cost, Transfer
from nki_isa.cost.streaming import strided
from nki_isa.cost.transfers import engine_time, finish_time, hbm_wait, packets, used_engines
from nki_isa.ir.form import Form
from nki_isa.ir.instruction import Instruction
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Target
from nki_isa.ops.collective import OnLinks
from nki_isa.ops.dma import dma_copy, is_spill
from nki_isa.tensor.storage import VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.timing.byte_boxes import Box, Bytes
from nki_sim.timing.dma_engines import Work

ENGINES = ("tensor", "vector", "scalar", "gpsimd", "sync")
_MODES = ("static", "hwdge", "swdge")
_DIRECTIONS = ("load", "store", "local")
QUEUES = tuple(f"{mode} {direction}" for mode in _MODES for direction in _DIRECTIONS)
LANES: tuple[str, ...] = (*ENGINES, *QUEUES, "collective")
"""Where an event runs: an engine, a DMA queue by descriptor mode and direction, or the links of a rank."""

LANE = {name: k for k, name in enumerate(LANES)}
TENSOR, _SCALAR, _SYNC = LANE["tensor"], LANE["scalar"], LANE["sync"]
FIRST_QUEUE = len(ENGINES)
MADE_AT_TRIGGER = frozenset(LANE[queue] for queue in QUEUES if not queue.startswith("static"))
"""The DMA queues whose descriptors are made when a DMA is triggered, one after the other."""
_ENGINE_LANE = {
    Engine.tensor: TENSOR,
    Engine.vector: LANE["vector"],
    Engine.scalar: _SCALAR,
    Engine.gpsimd: LANE["gpsimd"],
    Engine.sync: _SYNC,
    Engine.dma: _SYNC,  # DMA without a transfer: only its trigger
    Engine.unknown: _SYNC,
}

RegisterValues = Sequence[int] | Mapping[int, int] | None
"""Values of registers by index."""


class Use(enum.IntEnum):
    """What an operand is to the scoreboard; an instruction waits for its operands in this order."""

    weights = 0  # read ahead, by LoadStationary
    read = 1
    update = 2  # read, and then written in place
    write = 3


class Operand(NamedTuple):
    """An operand of a form.

    Attributes:
        name: its name.
        use: what is done with it.
        is_given: True for tensors of the caller and constants, which are there before the first instruction.
        boxes: the boxes of its views so far, by offset: storage and layout are those of the form.
    """

    name: str
    use: Use
    is_given: bool
    boxes: dict[int, Box]


View = tuple[NkiTensor, Use]


@dataclass(slots=True)
class Plan:
    """What the scoreboard needs of a form.

    Attributes:
        cost: what an instruction of it costs.
        lane: where it runs.
        issuer: lane of the engine a DMA trigger was put on, or -1.
        operands: what it touches, in the order of uses; None where that is not its operands as they are
            given, so that each instruction is asked.
        has_registers: True if it may name registers.
        dma: the times of its DMA, if it is one.
        held: ns it holds its engine or queue.
    """

    cost: Cost
    lane: int
    issuer: int
    operands: tuple[Operand, ...] | None
    has_registers: bool
    dma: Dma | None
    held: float


class Dma(NamedTuple):
    """ns of a DMA.

    Attributes:
        first: from the trigger to the first byte.
        interval: to the next trigger.
        finish: from the last byte to the semaphore.
        work: what the DMA engines have with it.
    """

    first: float
    interval: float
    finish: float
    work: Work


def hbm_share(target: Target, cores: int) -> float:
    """Share of a core's DMA engines that HBM keeps busy in a launch on `cores`, which get as much each."""
    if cores == 1:
        return 1.0
    share = target.hbm_bytes_per_ns * target.hbm_efficiency / min(cores, target.hbm_cores)
    return min(1.0, share / (target.dma_engines * target.dma_bytes_per_ns))


def plan_of(form: Form, target: Target) -> Plan:
    """The plan of a form."""
    sample = form.sample
    cost = strided(target, form.cost(target), (*sample.views_read(), *sample.views_written()))
    lane, issuer, dma = _ENGINE_LANE[sample.on], -1, None
    if isinstance(sample, OnLinks):
        lane = LANES.index("collective")
    if cost.transfer is not None:
        lane = LANE[f"{cost.transfer.mode} {cost.transfer.direction}"]
        asked = sample.__dict__.get("engine")
        if isinstance(asked, Engine) and asked not in (Engine.unknown, Engine.dma):
            issuer = _ENGINE_LANE[asked]
        dma = _dma(target, cost, cost.transfer)
        if not target.spills and is_spill(sample):
            dma = Dma(0.0, 0.0, 0.0, Work(0.0, 0.0, 1.0))
    operands = None
    if form.is_plain and form.read_names is not None and form.written_names is not None:
        uses = [(_use(name, cost, name in form.updates), name) for name in form.read_names]
        uses += [(Use.write, name) for name in form.written_names]
        operands = tuple(
            Operand(name, use, sample.__dict__[name].storage.is_given, {})
            for use, name in sorted(uses, key=lambda row: row[0])
        )
    held = cost.busy if dma is None else dma.interval
    return Plan(cost, lane, issuer, operands, form.has_registers, dma, held)


def is_software_load(instruction: Instruction, plan: Plan) -> bool:
    """Whether software makes the descriptors of a copy from HBM."""
    return plan.lane == LANE["swdge load"] and isinstance(instruction, dma_copy)


def _use(name: str, cost: Cost, updates: bool) -> Use:
    """What the scoreboard takes a read for; `name` is its operand."""
    if cost.columns and name == "stationary":
        return Use.weights
    return Use.update if updates else Use.read


def views_of(instruction: Instruction, cost: Cost) -> list[View]:
    """What an instruction touches, in the order of uses, where that is not just its operands."""
    stationary = instruction.__dict__.get("stationary")
    writes = instruction.writes
    reads = [
        (
            tensor,
            _use("stationary" if tensor is stationary else "", cost, any(tensor is w for w in writes)),
        )
        for tensor in instruction.reads
    ]
    return sorted([*reads, *((w, Use.write) for w in writes)], key=lambda row: row[1])


def _dma(target: Target, cost: Cost, moved: Transfer) -> Dma:
    load = moved.direction == "load"
    first, interval = target.dma_static_start, target.dma_static_interval
    if moved.mode == "hwdge":
        first = cost.busy + (target.dma_hwdge_start_load if load else target.dma_hwdge_start_store)
        interval = cost.busy
    elif moved.mode == "swdge":
        first = target.dma_swdge_build + (
            target.dma_swdge_start_load if load else target.dma_swdge_start_store
        )
        interval = cost.busy
    rows = packets(target, moved)
    work = Work(
        rows=rows,
        row=engine_time(target, moved) / rows,
        share=used_engines(target, moved) / target.dma_engines,
        is_hbm=moved.direction != "local",
        wait=hbm_wait(target, moved),
    )
    return Dma(first, interval, finish_time(target, moved), work)


def dynamic_box(owner: Bytes, view: NkiTensor, registers: RegisterValues) -> Box:
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


def handoffs(target: Target) -> list[list[float]]:
    """ns from the end of an access on one lane to the start of the next on another: [consumer][producer]."""
    return [
        [_handoff(target, producer, consumer) for producer in range(len(LANES))]
        for consumer in range(len(LANES))
    ]


def _handoff(target: Target, producer: int, consumer: int) -> float:
    if producer >= FIRST_QUEUE:
        if consumer == TENSOR:
            return target.dma_to_tensor
        if consumer >= FIRST_QUEUE or consumer == _SYNC:
            return target.dma_to_sync
        return target.dma_to_compute
    if producer == consumer:
        return target.same_engine_ns
    return target.semaphore_tensor_ns if consumer == TENSOR else target.semaphore_ns
