"""What an instruction costs, as plain data the scoreboard reads, and the pieces that instructions share.

Times are nanoseconds. Figures come from :class:`nki_isa.machine.target.Target`, each
with its source there; the modules of this room state the formulas, once per engine.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transfer:
    """A DMA transfer as the engines see it.

    Attributes:
        elements: descriptor rows (contiguous runs) moved.
        element_bytes: bytes of one row on its shorter-run side.
        packet_bytes: bytes of the rows that one packet moves, of one row unless software DGE joins some.
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
    packet_bytes: int
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
        blocks: what a matmul on a tile of the array occupies, as indices of 32 x 32 blocks, row by row; empty
            for one that has the whole array.
        share: share of its streaming after which the next matmul, on another tile, may start.
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
    blocks: tuple[int, ...] = ()
    share: float = 1.0
    stream: float = 0.0
    flops: int = 0
    hardware_flops: int = 0
    transfer: Transfer | None = None


#: Keeps what a formula gives: a kernel repeats few distinct costs very often.
kept = functools.lru_cache(maxsize=4096)
