"""What an instruction costs, as plain data the scoreboard reads.

Times are nanoseconds. Figures come from :class:`nki_isa.target.Target`, each
with its source there; this module states the formulas once per engine.
"""

from __future__ import annotations

from dataclasses import dataclass


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
        slowdown: factor on the per-row time (DMA transpose, small HBM writes).
    """

    elements: int
    element_bytes: int
    total_bytes: int
    mode: str
    direction: str
    read_bytes: int
    write_bytes: int
    slowdown: float = 1.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Time of one instruction on its engine.

    Attributes:
        busy: ns the engine is held before the next instruction can start.
        latency: ns from the start until the result is visible on the same engine.
        source: a key of the target's cost sources: where the figure is published,
            measured or assumed.
        table: activation function table the scalar engine must hold, if any.
        columns: columns streamed through the tensor engine (x passes); its busy
            and latency then follow the clock's state.
        weights: ns of LoadStationary at full clock, hidden under the previous matmul.
        rows: rows of the tensor engine in use, for the clock's utilisation.
        flops: useful floating-point operations of a matmul, 0 elsewhere.
        transfer: the DMA transfer, for DMA instructions.
    """

    busy: float
    latency: float
    source: str
    table: str | None = None
    columns: int = 0
    weights: float = 0.0
    rows: int = 0
    flops: int = 0
    transfer: Transfer | None = None
