"""Instructions that tie the physical cores of one logical core together.

Both cores run the same kernel as programs 0 and 1 and share HBM. Their engines
meet at these instructions only; between them nothing orders one core's accesses
to shared HBM against the other's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nki_isa.constraints.data_types import same_dtype
from nki_isa.constraints.memories import memory
from nki_isa.constraints.operands import SBUF, rules
from nki_isa.constraints.sizes import same_shape
from nki_isa.constraints.values import attribute_rule, value_in
from nki_isa.cost import Cost, transfers
from nki_isa.diagnostics import error
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, read, read_write, write
from nki_isa.ir.instruction import Instruction, MakeTile, Order, instruction
from nki_isa.ir.recording import Recording
from nki_isa.machine import enums
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Feature, Target
from nki_isa.ops.meeting import Array, Meeting, Seat
from nki_isa.rules import programs
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor

_BARRIER = "nki/api/nki/isa (core_barrier)"
_SENDRECV = "nki/api/nki/isa (sendrecv)"
_CORES = (0, 1)  # the physical cores of a logical core

#: Bytes per partition the gpsimd engine's own DMA moves, by bits of an element.
_GPSIMD_DMA_BYTES = {32: 1024, 16: 512, 8: 256}


def _exists(i: Any, target: Target) -> str | None:
    if Feature.core_pairs not in target.features:
        return f"it exists since NeuronCore-v3; the target is {target.name}"
    return None


def _since(source: str) -> Constraint:
    return Constraint(
        "NKI-V108",
        "It exists since NeuronCore-v3.",
        _exists,
        "launch the kernel on one core, or target trn2 or trn3",
        source,
    )


def _known_cores(i: Any, target: Target) -> str | None:
    if not i.cores or any(core not in _CORES for core in i.cores):
        return f"cores is {i.cores!r}; a logical core has the cores 0 and 1"
    return None


def _ranks(i: Any, target: Target) -> str | None:
    for name in ("send_to_rank", "recv_from_rank"):
        rank = i.__dict__[name]
        if isinstance(rank, bool) or rank not in _CORES:
            return f"{name} is {rank!r}, it must be 0 or 1"
    return None


def _fits_gpsimd(i: Any, target: Target) -> str | None:
    if i.dma_engine is not enums.dma_engine.gpsimd_dma or not isinstance(i.src, NkiTensor):
        return None
    limit = _GPSIMD_DMA_BYTES.get(i.src.dtype.bits, 0)
    size = i.src.size // i.src.shape[0] * i.src.dtype.itemsize
    if size > limit:
        return f"src has {size} bytes per partition of {i.src.dtype}, gpsimd_dma moves at most {limit}"
    return None


@instruction
class core_barrier(Meeting):
    """Wait until every one of `cores` has reached its barrier on `data`, a tensor in shared HBM.

    What one core wrote to `data` before its barrier, the others may read after theirs.
    `cores` is ``(0, 1)`` on a logical core of two; a core alone names itself and passes.
    Only `engine` waits.

    With `data` in SBUF, which the documentation does not allow and published kernels do
    (nki-library of 2026-04-13, core/moe/moe_cte/bwmm_shard_on_I.py), the cores meet and
    nothing in HBM is ordered: a warning (NKI-V101), an error in the strict profile.

    Shapes: `data` is a tensor of any shape; all cores name the same one.
    Errors: NKI-V101, V108 before NeuronCore-v3, V111; NKI-H020 for cores that wait without end.
    Source: SDK page nki.isa.core_barrier.
    """

    data: NkiTensor = read_write()
    cores: tuple[int, ...] = attribute(tuple)
    engine: Engine = attribute(Engine, Engine.gpsimd)

    engines = (Engine.gpsimd, Engine.tensor, Engine.vector, Engine.scalar, Engine.sync)
    needs = Feature.core_pairs
    source = _BARRIER
    order = Order.streamed
    moves = False
    constraints = rules(
        _since(_BARRIER),
        memory("data", MemoryRegion.shared_hbm, SBUF, source=_BARRIER),
        attribute_rule("cores are 0, 1 or both.", _known_cores, "write cores=(0, 1)", source=_BARRIER),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"data": t(region=MemoryRegion.shared_hbm), "cores": (0, 1)}

    @property
    def orders(self) -> bool:
        """True unless it names a tensor that each core has to itself."""
        return self.data.storage.region is MemoryRegion.shared_hbm

    def partners(self, seat: Seat) -> frozenset[tuple[int, int]]:
        return frozenset((seat.rank, core) for core in (*self.cores, seat.core))

    def said(self) -> str:
        return f"core_barrier(cores={self.cores})"

    def specialize(self, recorder: Recording) -> None:
        """Say where it orders nothing.

        Raises:
            NKI-V101: `data` is in SBUF, and the profile is strict.
        """
        if recorder.grid == 1:
            recorder.tell(
                programs.BARRIER_ALONE,
                f"core_barrier: the kernel is launched on one core, and cores is {self.cores}",
                help="launch it with kernel[2](...), or leave the barrier out: if nl.num_programs(0) > 1",
            )
        if isinstance(self.data, NkiTensor) and self.data.buffer is SBUF:
            refused = error(
                "NKI-V101",
                f"core_barrier: data is in SBUF, which each core has to itself; the cores meet at "
                f"{self.data.name}, and nothing they do in shared HBM is ordered",
                help="name the tensor in shared HBM that one core writes and the other reads, or leave the "
                "barrier out",
                notes=(f"source: {_BARRIER}",),
            )
            if recorder.strict:
                raise refused
            recorder.warn(refused)

    def cost(self, target: Target) -> Cost:
        return Cost(target.barrier_ns, target.barrier_ns, "barrier_ns")


@instruction
class sendrecv(Meeting):
    """Send `src` to core `send_to_rank` and receive `dst` from core `recv_from_rank`, at once.

    Both tiles are in SBUF, of one shape and data type. Cores meet by `pipe_id`: each
    waits until the other has reached its sendrecv of the same pipe. `dma_engine` is the
    shared DMA or the gpsimd engine's own, which moves at most 1024, 512 or 256 bytes per
    partition of 32-, 16- or 8-bit types.

    Shapes: `dst` and `src` have the same partitions, elements per partition and data type, on both cores.
    Errors: NKI-V101, V103, V105, V108 before NeuronCore-v3, V111; NKI-H020 for cores that wait without end.
    Source: SDK page nki.isa.sendrecv.
    """

    src: NkiTensor = read()
    dst: NkiTensor = write()
    send_to_rank: int = attribute(int)
    recv_from_rank: int = attribute(int)
    pipe_id: int = attribute(int)
    dma_engine: enums.dma_engine = attribute(enums.dma_engine, enums.dma_engine.dma)

    engines = (Engine.dma,)
    needs = Feature.core_pairs
    source = _SENDRECV
    order = Order.any
    constraints = rules(
        _since(_SENDRECV),
        memory("src", SBUF, source=_SENDRECV),
        memory("dst", SBUF, source=_SENDRECV),
        *same_shape("dst", "src", source=_SENDRECV),
        same_dtype("src", "dst", source=_SENDRECV),
        attribute_rule("Ranks are 0 or 1.", _ranks, "write 1 - nl.program_id(0)", source=_SENDRECV),
        value_in("dma_engine", tuple(enums.dma_engine), source=_SENDRECV),
        attribute_rule(
            "The gpsimd engine's DMA moves at most 1024, 512 or 256 bytes per partition.",
            _fits_gpsimd,
            "split the tile, or use dma_engine=nisa.dma_engine.dma",
            source=_SENDRECV,
        ),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "src": t(),
            "dst": t(),
            "send_to_rank": 1,
            "recv_from_rank": 1,
            "pipe_id": 0,
        }

    def partners(self, seat: Seat) -> frozenset[tuple[int, int]]:
        return frozenset((seat.rank, core) for core in (self.send_to_rank, self.recv_from_rank, seat.core))

    def agrees(self, other: Instruction) -> bool:
        return (
            isinstance(other, sendrecv)
            and self.pipe_id == other.pipe_id
            and (self.src.shape, self.src.dtype) == (other.src.shape, other.src.dtype)
        )

    def said(self) -> str:
        return (
            f"sendrecv(send_to_rank={self.send_to_rank}, recv_from_rank={self.recv_from_rank}, "
            f"pipe_id={self.pipe_id}) of {self.src.dtype}{list(self.src.shape)}"
        )

    def deliver(
        self, seats: Sequence[Seat], calls: Sequence[Any], sent: Sequence[Sequence[Array]]
    ) -> list[list[Array | None]]:
        by_core = {seat.core: src for seat, (src,) in zip(seats, sent, strict=True)}
        return [[by_core[call.recv_from_rank]] for call in calls]

    def cost(self, target: Target) -> Cost:
        moved = transfers.copy(target, self.dst, self.src)
        # The trigger crosses to the other core: one more semaphore-to-DMA hop.
        latency = moved.latency + target.barrier_ns
        return Cost(moved.busy, latency, "barrier_ns", moved.rate, transfer=moved.transfer)
