"""Costs of DMA transfers: how they are cut into rows, and how long those take."""

from __future__ import annotations

import math
from dataclasses import replace

from nki_isa.cost import Cost, Transfer
from nki_isa.machine.target import Target
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor


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


def row_time(target: Target, row_bytes: float) -> float:
    """ns one DMA engine spends on a row, or on a packet of rows, of `row_bytes`."""
    rate = target.dma_bytes_per_ns
    if row_bytes <= target.dma_small_row_bytes:
        rate = target.dma_small_row_bytes_per_ns
    return max(target.dma_row_floor_ns, target.dma_row_ns + row_bytes / rate)


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
    latency = before + getattr(target, figure) + time_alone(target, moved) + finish_time(target, moved)
    return Cost(busy, latency + target.dma_to_compute, figure, "dma_bytes_per_ns", transfer=moved)


def finish_time(target: Target, moved: Transfer) -> float:
    """ns from the last byte of the first DMA engine to the semaphore; the other engines finish later."""
    if moved.direction != "load":
        stagger = target.dma_stagger_store
    else:
        stagger = target.dma_swdge_stagger_load if moved.mode == "swdge" else target.dma_stagger_load
        if used_engines(target, moved) > 1:
            stagger += hbm_wait(target, moved)
    return stagger + target.dma_completion


def engine_time(target: Target, moved: Transfer) -> float:
    """ns the busiest of the DMA engines works on a transfer."""
    return packets(target, moved) * row_time(target, moved.packet_bytes) * moved.slowdown


def packets(target: Target, moved: Transfer) -> float:
    """Packets of a transfer that the busiest of the DMA engines moves."""
    return moved.elements * moved.element_bytes / moved.packet_bytes / used_engines(target, moved)


def time_alone(target: Target, moved: Transfer) -> float:
    """ns from its first to its last byte, if nothing else moves: a load begins by waiting for HBM."""
    return engine_time(target, moved) + hbm_wait(target, moved)


def hbm_wait(target: Target, moved: Transfer) -> float:
    """ns that an engine waits for HBM, on average; the last of several waits twice that."""
    if moved.direction != "load":
        return 0.0
    first = min(target.dma_load_bytes, moved.total_bytes / used_engines(target, moved))
    return first * (1 / target.dma_load_bytes_per_ns - 1 / target.dma_bytes_per_ns)


def used_engines(target: Target, moved: Transfer) -> int:
    """DMA engines a transfer is dealt to: 8 partitions each; rows without partitions go round all."""
    shares = moved.partitions / target.dma_partitions_per_engine if moved.partitions else moved.elements
    return max(1, min(target.dma_engines, math.ceil(shares)))


def copy(
    target: Target, dst: NkiTensor, src: NkiTensor, *, mode: str | None = None, transpose: bool = False
) -> Cost:
    """A DMA copy between two views of as many elements, dealt in rows that are contiguous on both sides.

    Software DGE makes one packet of rows that lie next to each other in HBM, unless it changes their dtype
    or transposes them; hardware DGE makes one of each row.

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
    tile, outer = (src, dst) if to_hbm and not from_hbm else (dst, src)
    row_bytes = math.ceil(dst.size * wide / rows)
    moved = Transfer(
        elements=rows,
        element_bytes=row_bytes,
        packet_bytes=row_bytes,
        total_bytes=dst.size * wide,
        mode=mode or default_mode(target, dst, src),
        direction=direction,
        read_bytes=src.size * src.dtype.itemsize if from_hbm else 0,
        write_bytes=dst.size * dst.dtype.itemsize if to_hbm else 0,
        slowdown=slowdown,
        partitions=tile.shape[0] if tile.buffer.on_chip else 0,
    )
    is_one_side = tile.buffer.on_chip and outer.buffer.is_hbm
    if moved.mode == "swdge" and is_one_side and not transpose and dst.dtype == src.dtype:
        share = moved.total_bytes // used_engines(target, moved)
        joined = min(contiguous_run(outer) * wide, target.dma_packet_bytes, share) // row_bytes
        moved = replace(moved, packet_bytes=max(1, joined) * row_bytes)
    return transfer(target, moved)


def default_mode(target: Target, *tensors: NkiTensor) -> str:
    """How the compiler makes the descriptors of a DMA between `tensors` when the kernel does not say.

    Kernel arguments and results move one way, intermediates in private HBM and on-chip copies another.
    """
    external = any(t.storage.region is MemoryRegion.shared_hbm or t.storage.kind == "input" for t in tensors)
    return target.default_dge if external else target.internal_dge
