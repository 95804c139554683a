"""How DMA descriptors are made, and the rules about it that all DMA instructions share.

Sources: SDK ``nki.isa.dma_copy`` and the DGE reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from nki_isa.constraints.values import attribute_rule, excludes
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import Role
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.recording import Recording
from nki_isa.machine import enums
from nki_isa.machine.enums import Engine, dge_mode
from nki_isa.machine.target import Feature, Target
from nki_isa.rules import dma
from nki_isa.tensor.tensor import NkiTensor

Array = NDArray[Any]

_DGE = "nki/deep-dives/nki-dge"
_COPY = "nki/api/nki/isa (dma_copy)"

#: Names in :class:`nki_isa.cost.Transfer` of the modes a kernel can ask for.
_MODES = {dge_mode.none: "static", dge_mode.swdge: "swdge", dge_mode.hwdge: "hwdge"}

#: Engine that issues a DMA, by how its descriptors are made.
_ISSUERS = {"static": Engine.sync, "hwdge": Engine.sync, "swdge": Engine.gpsimd}


def is_gathered(value: Any) -> bool:
    """True for a view whose rows a vector of run-time indices selects."""
    return isinstance(value, NkiTensor) and value.dynamic is not None and value.dynamic.kind == "vector"


class DmaInstruction(Instruction):
    """What DMA instructions share: who makes descriptors, where skipped elements would have gone."""

    engines = (Engine.dma,)

    dst: NkiTensor
    oob_mode: enums.oob_mode

    def resolve_engine(self) -> Engine:
        """Always the DMA engines; a field ``engine`` only says who triggers them."""
        return Engine.dma

    def specialize(self, recorder: Recording) -> None:
        """Say where it may skip and stands in a loop on the device."""
        skips = self.__dict__.get("oob_mode") is enums.oob_mode.skip
        if skips and recorder.in_device_loop and any(view.dynamic is not None for view in self.views()):
            recorder.tell(
                dma.SKIP_IN_LOOP,
                f"{self.opcode}: oob_mode is skip, in a loop that runs on the device",
                help="unroll the loop with nl.static_range, or clamp the index and leave oob_mode unset",
            )

    def views(self) -> list[NkiTensor]:
        """Every tensor it moves to or from, indices left out."""
        found: list[NkiTensor] = []
        for description, value in self.operands():
            many: Sequence[Any] = value if description.role is Role.reads else (value,)
            found.extend(v for v in many if isinstance(v, NkiTensor))
        return found

    def descriptors(self, target: Target) -> str | None:
        """How its descriptors must be made: ``"static"``, ``"hwdge"`` or ``"swdge"``; None leaves it open.

        A kernel's choice stands. Otherwise gathers and scatters need software DGE, and so does any run-time
        address on a generation without hardware DGE.
        """
        asked = self.__dict__.get("dge_mode", enums.dge_mode.unknown)
        if asked in _MODES:
            return _MODES[asked]
        views = self.views()
        if any(is_gathered(v) for v in views):
            return "swdge"
        if Feature.hardware_dge not in target.features and any(v.dynamic is not None for v in views):
            return "swdge"
        return None

    def issuer(self, target: Target) -> Engine:
        """The engine that triggers it: the one asked for, else sync, or gpsimd with software DGE."""
        asked: Engine = self.__dict__.get("engine", Engine.unknown)
        moved = self.cost(target).transfer
        return _ISSUERS[moved.mode] if asked is Engine.unknown and moved is not None else asked

    def route(self, elements: Array) -> Array:
        """`elements`, in the shape of a source, moved to where they land in the destination."""
        return elements.reshape(self.dst.shape)


def by_row(view: NkiTensor) -> NkiTensor:
    """`view` for counting descriptors: rows that run-time indices select never join into longer runs."""
    if not is_gathered(view):
        return view
    return NkiTensor(view.shape, (0, *view.strides[1:]), view.offset, view.dtype, view.storage)


# --- rules


def _priority(i: Any, target: Target) -> str | None:
    if i.priority is None:
        return None
    if Feature.dma_priority not in target.features:
        return f"priority is {i.priority!r}, which exists since NeuronCore-v4; the target is {target.name}"
    if i.priority not in (0, 1, 2, 3):
        return f"priority is {i.priority!r}, it must be 0, 1, 2 or 3"
    return None


def _hardware_dge(i: Any, target: Target) -> str | None:
    if i.dge_mode is dge_mode.hwdge and Feature.hardware_dge not in target.features:
        return f"dge_mode is hwdge, which exists since NeuronCore-v3; the target is {target.name}"
    return None


def _gather_generation(i: Any, target: Target) -> str | None:
    if Feature.gathered_rows not in target.features and any(is_gathered(v) for v in i.views()):
        return f"indices select rows, which exists since NeuronCore-v3; the target is {target.name}"
    return None


def _gather_mode(i: Any, target: Target) -> str | None:
    if i.dge_mode in (dge_mode.none, dge_mode.hwdge) and any(is_gathered(v) for v in i.views()):
        return f"indices select rows and dge_mode is {i.dge_mode.name}, it must be unknown or swdge"
    return None


def _gather_memory(i: Any, target: Target) -> str | None:
    for view in i.views():
        if is_gathered(view) and not view.storage.region.is_hbm:
            return f"indices select rows of {view.name}, which is on chip and must be in HBM"
    return None


def _columns(i: Any, target: Target) -> str | None:
    for view in i.views():
        index = view.dynamic.index if is_gathered(view) and view.dynamic is not None else None
        if isinstance(index, NkiTensor) and index.size != index.shape[0]:
            return f"the indices of {view.name} are {list(index.shape)}, they must be one column"
    return None


INDEX_COLUMN = Constraint(
    "NKI-V103",
    "Indices are one column: only a transpose takes several.",
    _columns,
    "gather with one DMA for each column of indices",
    _COPY,
)
PRIORITY = attribute_rule(
    "priority is 0 to 3, from NeuronCore-v4 on.", _priority, "leave priority unset", source=_COPY
)
HARDWARE_DGE = Constraint(
    "NKI-V108",
    "Hardware DGE exists since NeuronCore-v3.",
    _hardware_dge,
    "leave dge_mode unset, or use dge_mode.swdge or dge_mode.none",
    _DGE,
    dma.HARDWARE_DGE,
)
GATHERS = (
    Constraint(
        "NKI-V108",
        "Indirect DMA (a vector of indices) exists since NeuronCore-v3.",
        _gather_generation,
        "copy the rows one by one with scalar offsets, or choose a newer target",
        _DGE,
    ),
    Constraint(
        "NKI-V101",
        "A tensor whose rows a vector of indices selects is in HBM.",
        _gather_memory,
        "gather from HBM, or use nisa.local_gather or nisa.nc_n_gather on chip",
        _COPY,
    ),
)
GATHER_MODE = excludes(
    "A vector of indices needs software DGE.", _gather_mode, "leave dge_mode unset", source=_DGE
)
