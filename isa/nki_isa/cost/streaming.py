"""Costs of the engines that stream elements: vector, scalar and gpsimd; performance modes of the first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from nki_isa.cost import Cost, kept
from nki_isa.machine.dtypes import DType
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Feature, Target
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor


@kept
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


@kept
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


@kept
def gpsimd(target: Target, elements: float, *, factor: float = 1.0, extra_cycles: float = 0.0) -> Cost:
    """A gpsimd instruction: 150 cycles to start, then `elements` per partition at `factor` times its rate."""
    stream = elements / (target.gpsimd_rate * factor)
    time = (target.gpsimd_start_cycles + extra_cycles + stream) / target.gpsimd_ghz
    streamed = stream / target.gpsimd_ghz
    return Cost(time, time, "gpsimd_start_cycles", "gpsimd_rate", stream=streamed)


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


# --- performance modes of the vector engine


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


def rate_of(target: Target, modes: Iterable[Mode], *tensors: NkiTensor) -> str:
    """:func:`vector_rate` of the streamed tensors themselves, the destination first."""
    contiguous = all(t.strides[-1] == 1 or t.shape[-1] == 1 for t in tensors)
    return vector_rate(target, modes, [t.dtype for t in tensors], [t.buffer for t in tensors], contiguous)
