"""What an instruction costs, as plain data the scoreboard reads.

Times are nanoseconds. Figures come from :class:`nki_isa.machine.target.Target`, each
with its source there; this module states the formulas once per engine.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from nki_isa.links import Exchange, slowest
from nki_isa.machine.dtypes import DType
from nki_isa.machine.enums import Engine
from nki_isa.machine.machines import Machine
from nki_isa.machine.target import Feature, Target
from nki_isa.tensor.tensor import MemoryRegion, NkiTensor


@dataclass(frozen=True, slots=True)
class Transfer:
    """A DMA transfer as the engines see it.

    Attributes:
        elements: descriptor rows (contiguous runs) moved.
        element_bytes: bytes of one row on its shorter-run side.
        total_bytes: payload.
        mode: ``"static"``, ``"hwdge"`` or ``"swdge"``.
        direction: ``"load"`` (HBM to SBUF), ``"store"`` (to HBM) or ``"local"``.
        read_bytes, write_bytes: HBM traffic.
        slowdown: factor on the per-row time (DMA transpose, additions).
        partitions: partitions of the on-chip side, which decide the DMA engines used;
            0 if both sides are in HBM.
    """

    elements: int
    element_bytes: int
    total_bytes: int
    mode: str
    direction: str
    read_bytes: int
    write_bytes: int
    slowdown: float = 1.0
    partitions: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """Time of one instruction on its engine.

    Attributes:
        busy: ns the engine is held before the next instruction can start.
        latency: ns from the start until the result is visible on the same engine.
        source: the figure of :class:`nki_isa.machine.target.Target` that its fixed time comes from; the
            figure's source says whether it is published, measured, fitted or assumed.
        rate: the figure that its throughput comes from; empty where nothing is streamed.
        table: activation function table the scalar engine must hold, if any.
        columns: columns streamed through the tensor engine (x passes); its busy
            and latency then follow the clock's state.
        weights: ns one LoadStationary streams at full clock, hidden under the previous matmul.
        parts: MATMUL instructions it becomes, each with its LoadStationary (2 for fp32).
        rows: rows of the tensor engine in use.
        use: share of `columns` that the clock counts as use of the tensor engine.
        stream: the part of `busy` that the vector, scalar or gpsimd engine streams its operands.
        flops: useful floating-point operations of a matmul, 0 elsewhere.
        hardware_flops: those of every matmul, transposes included, as the profiler counts them.
        transfer: the DMA transfer, for DMA instructions.
    """

    busy: float
    latency: float
    source: str
    rate: str = ""
    table: str | None = None
    columns: int = 0
    weights: float = 0.0
    parts: int = 1
    rows: int = 0
    use: float = 0.0
    stream: float = 0.0
    flops: int = 0
    hardware_flops: int = 0
    transfer: Transfer | None = None


# --- compute engines; a kernel repeats few distinct costs very often, so they are kept

_kept = functools.lru_cache(maxsize=4096)


@_kept
def elementwise(
    target: Target,
    engine: Engine,
    elements: int,
    *,
    rate: str = "",
    pointers: int = 0,
    extra_cycles: float = 0.0,
) -> Cost:
    """An instruction that streams its operands through the vector, scalar or gpsimd engine.

    Args:
        elements: elements per partition.
        rate: the figure that says how many elements a cycle takes, see :func:`vector_rate`; that of
            the engine if not given.
        pointers: operands read as one value per partition (a bias, a scalar tile).
        extra_cycles: cycles on top, for example to read an accumulator.
    """
    ghz = target.ghz(engine.name)
    rate = rate or f"{engine.name}_rate"
    stream = (elements / getattr(target, rate) + extra_cycles) / ghz
    if engine is Engine.gpsimd:
        busy = target.minimum_interval_cycles / ghz
        latency = target.gpsimd_start_cycles / ghz
        return Cost(stream + busy, stream + latency, "gpsimd_start_cycles", rate, stream=stream)
    if engine is Engine.scalar:
        busy = target.scalar_interval + pointers * target.scalar_bias_interval_psum
        latency = target.scalar_latency + pointers * target.scalar_bias_latency_psum
        return Cost(stream + busy, stream + latency, "scalar_interval", rate, stream=stream)
    busy = target.vector_interval + pointers * target.vector_pointer_interval
    latency = target.vector_latency + pointers * target.vector_pointer_latency
    return Cost(stream + busy, stream + latency, "vector_interval", rate, stream=stream)


@_kept
def activation(
    target: Target,
    elements: int,
    *,
    table: str | None,
    pointer_bias: bool,
    psum_source: bool,
    extra_cycles: float = 0.0,
) -> Cost:
    """An activation function on the scalar engine.

    A function that needs a table reads its bias through a pointer even where the
    kernel gives none (measured exp without a bias: 293 ns beyond streaming).

    Args:
        elements: elements per partition.
        table: the function table it needs; None for copy and its like.
        pointer_bias: True if a bias tile is read.
        psum_source: True if the data come from PSUM.
    """
    stream = (elements / target.scalar_rate + extra_cycles) / target.scalar_ghz
    busy, latency = target.scalar_interval, target.scalar_latency
    if table is not None or pointer_bias:
        where = "psum" if psum_source else "sbuf"
        busy += getattr(target, f"scalar_bias_interval_{where}")
        latency += getattr(target, f"scalar_bias_latency_{where}")
    return Cost(stream + busy, stream + latency, "scalar_interval", "scalar_rate", table=table, stream=stream)


@_kept
def gpsimd(target: Target, elements: float, *, factor: float = 1.0, extra_cycles: float = 0.0) -> Cost:
    """A gpsimd instruction: 150 cycles to start, then `elements` per partition at `factor` times its rate."""
    stream = elements / (target.gpsimd_rate * factor)
    time = (target.gpsimd_start_cycles + extra_cycles + stream) / target.gpsimd_ghz
    streamed = stream / target.gpsimd_ghz
    return Cost(time, time, "gpsimd_start_cycles", "gpsimd_rate", stream=streamed)


# MATMUL instructions one nc_matmul becomes, and how long each loads a stationary column, by its passes:
# 16-bit loads are fast, an fp32 transpose takes four times as long, each half of fp32 twice that again.
_PASSES: dict[int, tuple[int, float]] = {1: (1, 1.0), 2: (1, 4.0), 4: (2, 8.0)}


@_kept
def matmul(
    target: Target, moving_columns: int, passes: int, stationary_columns: int, rows: int, flops: int
) -> Cost:
    """A matmul or transpose on the tensor engine, its LoadStationary included.

    The next matmul waits for the engine to turn around, however short the moving tile; what counts as use
    for the clock is only what was streamed.

    Args:
        moving_columns: free size of the moving tile.
        passes: 1 for 16-bit and narrower data (MX and double row too), 2 for an fp32
            transpose, 4 for fp32.
        stationary_columns: free size of the stationary tile.
        rows: rows of the tensor engine in use (the contraction size, at most 128).
        flops: useful floating-point operations; 0 for a transpose.
    """
    parts, loads = _PASSES[passes]
    columns = max(moving_columns, min(target.moving_min, stationary_columns)) * passes
    stream = columns / target.tensor_rate / target.tensor_ghz
    return Cost(
        stream + parts * target.tensor_interval,
        stream + target.tensor_latency,
        "tensor_interval",
        "tensor_rate",
        columns=columns,
        weights=stationary_columns * loads / target.fast_weight_factor / target.tensor_ghz,
        parts=parts,
        rows=rows,
        use=rows / target.stationary_max * moving_columns * passes / columns,
        flops=flops,
        hardware_flops=flops or 2 * rows * stationary_columns * moving_columns,
    )


def collective(target: Target, machine: Machine, exchange: Exchange) -> Cost:
    """A collective: its start, its hops, and the busiest of the links, or of the ranks.

    Args:
        machine: what it runs on.
        exchange: how it goes there.
    """
    links, ranks = slowest(machine, exchange), exchange.local / target.rank_bytes_per_ns
    waits = exchange.hops * target.link_hop_ns + exchange.far * target.network_hop_ns
    time = target.collective_start_ns + waits + max(links, ranks)
    rate = "link_bytes_per_ns" if links > ranks else "rank_bytes_per_ns"
    return Cost(time, time, "collective_start_ns", rate)


@_kept
def register(target: Target, *, memory: bool = False) -> Cost:
    """A register instruction of a sequencer; `memory` if it loads from or stores to memory."""
    name = "register_memory_ns" if memory else "register_ns"
    time = float(getattr(target, name))
    return Cost(time, time, name)


# --- vector engine performance modes


@dataclass(frozen=True, slots=True)
class Mode:
    """A performance mode of the vector engine; the first of an instruction that holds gives the rate.

    Attributes:
        figure: the elements it takes a cycle, a field of Target.
        narrow: all operands are 16-bit floats (with `Feature.fast_fp8` 8-bit ones too), or none is, or None.
        psum: how many operands may be in PSUM.
        contiguous: the innermost dimensions have stride 1, or not, or None.
    """

    figure: str
    narrow: bool | None = None
    psum: tuple[int, ...] = tuple(range(8))
    contiguous: bool | None = None


ONE_INPUT = (
    Mode("vector_fast_rate", True, (0,), True),
    Mode("vector_half_fast_rate", True, (0,), False),
    Mode("vector_half_fast_rate", True, (1,), True),
    Mode("vector_fp32_rate", False, (0,)),
)
TWO_INPUTS_FP32 = Mode("vector_fp32_two_input_rate", False, (0,))
TWO_INPUTS = (Mode("vector_two_input_rate", True, (0,)), TWO_INPUTS_FP32)
NARROW = (Mode("vector_narrow_rate", True),)


def vector_rate(
    target: Target,
    modes: Iterable[Mode],
    dtypes: Iterable[DType],
    memories: Iterable[MemoryRegion],
    contiguous: bool = True,
) -> str:
    """The figure that says how many elements a cycle takes per partition, on the vector engine.

    Args:
        modes: of the instruction; where none holds, it streams at ``vector_rate``.
        dtypes: of the streamed tensors, the destination included.
        memories: of the same tensors.
        contiguous: True if the innermost dimension of every tensor has stride 1.
    """
    narrow_bits = (8, 16) if Feature.fast_fp8 in target.features else (16,)
    narrow = all(d.kind == "float" and d.bits in narrow_bits for d in dtypes)
    psum = sum(m is MemoryRegion.psum for m in memories)
    for mode in modes:
        if psum in mode.psum and mode.narrow in (None, narrow) and mode.contiguous in (None, contiguous):
            return mode.figure
    return "vector_rate"


def streaming_rate(target: Target, modes: Iterable[Mode], *tensors: NkiTensor) -> str:
    """:func:`vector_rate` of the streamed tensors themselves, the destination first."""
    contiguous = all(t.strides[-1] == 1 or t.shape[-1] == 1 for t in tensors)
    return vector_rate(target, modes, [t.dtype for t in tensors], [t.buffer for t in tensors], contiguous)


def strided(target: Target, cost: Cost, views: Iterable[NkiTensor]) -> Cost:
    """`cost` where a port to SBUF or PSUM holds the engine up: beyond a stride it delivers half its rate.

    Args:
        views: what the instruction reads and writes.
    """
    if not cost.stream or Feature.slow_strides not in target.features:
        return cost
    slowest = 0.0
    for view in views:
        if not view.buffer.on_chip or view.ndim < 2:
            continue
        steps = [stride for size, stride in zip(view.shape[1:], view.strides[1:], strict=True) if size > 1]
        if steps and abs(steps[-1]) * view.dtype.itemsize > target.access_stride_bytes:
            slowest = max(slowest, math.prod(view.shape[1:]) / target.access_strided_per_ns)
    more = slowest - cost.stream
    return replace(cost, busy=cost.busy + more, latency=cost.latency + more) if more > 0.0 else cost


# --- DMA


def contiguous_run(tensor: NkiTensor) -> int:
    """Elements of `tensor` that lie next to each other: the longest run one descriptor row can cover.

    A run never crosses a partition of SBUF or PSUM.
    """
    run = 1
    first = 1 if tensor.buffer.on_chip else 0
    for size, stride in zip(reversed(tensor.shape[first:]), reversed(tensor.strides[first:]), strict=True):
        if size != 1:
            if stride != run:
                break
            run *= size
    return run


def shared_runs(elements: int, one: int, other: int) -> int:
    """Pieces of `elements` that are contiguous on both sides, whose runs are `one` and `other` long."""
    return math.ceil(elements / one + elements / other - elements / math.lcm(one, other))


def row_time(target: Target, row_bytes: float, *, small_write: bool = False) -> float:
    """ns one DMA engine spends on one row (descriptor element) of `row_bytes`."""
    rate = target.dma_bytes_per_ns
    if row_bytes <= target.dma_small_row_bytes:
        rate = target.dma_small_row_bytes_per_ns
    time = max(target.dma_row_floor_ns, target.dma_row_ns + row_bytes / rate)
    if small_write and row_bytes < target.dma_small_write_bytes:
        time *= target.dma_small_write_factor
    return time


def transfer(target: Target, moved: Transfer) -> Cost:
    """What a DMA transfer costs when nothing else uses the DMA engines.

    `busy` is what the issuing engine pays; `latency` runs from the trigger until a
    compute engine that waits for the transfer may start.
    """
    load = moved.direction == "load"
    figure = "dma_static_start"
    busy = before = 0.0
    if moved.mode == "hwdge":
        figure = "dma_hwdge_start_load" if load else "dma_hwdge_start_store"
        busy = before = target.dma_hwdge_issue
    elif moved.mode == "swdge":
        figure = "dma_swdge_start_load" if load else "dma_swdge_start_store"
        busy = target.dma_swdge_interval * max(1.0, moved.elements / target.dma_swdge_rows)
        before = target.dma_swdge_build
    latency = before + getattr(target, figure) + engine_time(target, moved) + finish_time(target, moved)
    return Cost(busy, latency + target.dma_to_compute, figure, "dma_bytes_per_ns", transfer=moved)


def finish_time(target: Target, moved: Transfer) -> float:
    """ns from the last byte of the first DMA engine to the semaphore; the other engines finish later."""
    if moved.direction != "load":
        stagger = target.dma_stagger_store
    else:
        stagger = target.dma_swdge_stagger_load if moved.mode == "swdge" else target.dma_stagger_load
    return stagger + target.dma_completion


def engine_time(target: Target, moved: Transfer) -> float:
    """ns the busiest of the DMA engines works on a transfer."""
    rows = moved.elements / used_engines(target, moved)
    small_write = moved.direction == "store"
    return rows * row_time(target, moved.element_bytes, small_write=small_write) * moved.slowdown


def used_engines(target: Target, moved: Transfer) -> int:
    """DMA engines a transfer is dealt to: 8 partitions each; rows without partitions go round all."""
    shares = moved.partitions / target.dma_partitions_per_engine if moved.partitions else moved.elements
    return max(1, min(target.dma_engines, math.ceil(shares)))


def copy(
    target: Target, dst: NkiTensor, src: NkiTensor, *, mode: str | None = None, transpose: bool = False
) -> Cost:
    """A DMA copy between two views of as many elements, dealt in rows that are contiguous on both sides.

    Args:
        mode: ``"static"``, ``"hwdge"`` or ``"swdge"``; what the compiler picks where None.
        transpose: True for a DMA transpose, which moves data at a fraction of the copy rate.
    """
    to_hbm, from_hbm = dst.buffer.is_hbm, src.buffer.is_hbm
    direction = "store" if to_hbm else "load" if from_hbm else "local"
    slowdown = 1.0
    if transpose:
        slowdown = 1 / (target.dma_transpose_load if from_hbm else target.dma_transpose_local)
    wide = max(dst.dtype.itemsize, src.dtype.itemsize)
    rows = max(
        shared_runs(dst.size, contiguous_run(dst), contiguous_run(src)),
        math.ceil(dst.size * wide / target.dma_row_limit_bytes),
    )
    tile = src if to_hbm and not from_hbm else dst
    moved = Transfer(
        elements=rows,
        element_bytes=math.ceil(dst.size * wide / rows),
        total_bytes=dst.size * wide,
        mode=mode or default_mode(target, dst, src),
        direction=direction,
        read_bytes=src.size * src.dtype.itemsize if from_hbm else 0,
        write_bytes=dst.size * dst.dtype.itemsize if to_hbm else 0,
        slowdown=slowdown,
        partitions=tile.shape[0] if tile.buffer.on_chip else 0,
    )
    return transfer(target, moved)


def default_mode(target: Target, *tensors: NkiTensor) -> str:
    """How the compiler makes the descriptors of a DMA between `tensors` when the kernel does not say.

    Kernel arguments and results move one way, intermediates in private HBM and on-chip copies another.
    """
    external = any(t.storage.region is MemoryRegion.shared_hbm or t.storage.kind == "input" for t in tensors)
    return target.default_dge if external else target.internal_dge
