"""Instructions of the DMA engines, which move data between HBM and SBUF beside the compute engines.

A DMA is made of descriptors, one for each run of bytes that is contiguous on
both sides. Who writes the descriptors is the DGE mode: the host before the
program runs, the gpsimd engine, or a hardware block that the sync or the scalar
engine triggers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from nki_isa import cost, enums
from nki_isa.constraints import (
    SBUF,
    attribute_rule,
    excludes,
    memory,
    rules,
)
from nki_isa.cost import Cost
from nki_isa.dtypes import to_float32
from nki_isa.enums import dge_mode
from nki_isa.indirection import no_indirection
from nki_isa.instruction import Constraint, Engine, Instruction, attribute, instruction, read, write
from nki_isa.tensor import MemoryRegion, NkiTensor

if TYPE_CHECKING:
    from nki_isa.target import Target

Array = NDArray[Any]
Test = Callable[[Any, "Target"], "str | None"]

_HBM = (MemoryRegion.private_hbm, MemoryRegion.shared_hbm)
_DGE = "nki/deep-dives/nki-dge"
_COPY = "nki/api/nki/isa (dma_copy)"

#: Names in :class:`nki_isa.cost.Transfer` of the modes a kernel can ask for.
_MODES = {dge_mode.none: "static", dge_mode.swdge: "swdge", dge_mode.hwdge: "hwdge"}

#: Engine that issues a DMA, by how its descriptors are made.
_ISSUERS = {"static": Engine.sync, "hwdge": Engine.sync, "swdge": Engine.gpsimd}


def is_gathered(value: Any) -> bool:
    """True for a view whose rows a vector of run-time indices selects."""
    return isinstance(value, NkiTensor) and value.dynamic is not None and value.dynamic.kind == "vector"


class _Dma(Instruction):
    """What DMA instructions share: descriptor generation, skipped accesses."""

    engines = (Engine.dma,)

    dst: NkiTensor
    src: NkiTensor

    def normalise(self) -> None:
        values = self.__dict__
        for name, kind in (("dge_mode", enums.dge_mode), ("oob_mode", enums.oob_mode)):
            if type(values.get(name)) is int and values[name] in (m.value for m in kind):
                values[name] = kind(values[name])

    def resolve_engine(self) -> Engine:
        """Always the DMA engines; ``engine`` only says who triggers them."""
        return Engine.dma

    def descriptors(self, target: Target) -> str | None:
        """How its descriptors must be made: ``"static"``, ``"hwdge"`` or ``"swdge"``; None leaves it open.

        A kernel's choice stands. Otherwise gathers and scatters need software DGE, and so does any run-time
        address on a generation without hardware DGE.
        """
        asked = self.__dict__.get("dge_mode", enums.dge_mode.unknown)
        if asked in _MODES:
            return _MODES[asked]
        views = [*self.reads, *self.writes]
        if any(is_gathered(v) for v in views):
            return "swdge"
        if target.nc_version < 3 and any(v.dynamic is not None for v in views):
            return "swdge"
        return None

    def issuer(self, target: Target) -> Engine:
        """The engine that triggers it: the one asked for, else sync, or gpsimd with software DGE."""
        asked: Engine = self.__dict__.get("engine", Engine.unknown)
        moved = self.cost(target).transfer
        return _ISSUERS[moved.mode] if asked is Engine.unknown and moved is not None else asked

    def route(self, elements: Array) -> Array:
        """`elements`, in the shape of the source, moved to where they land in the destination."""
        return elements.reshape(self.dst.shape)


def _by_row(view: NkiTensor) -> NkiTensor:
    """`view` for counting descriptors: rows that run-time indices select never join into longer runs."""
    if not is_gathered(view):
        return view
    return NkiTensor(view.shape, (0, *view.strides[1:]), view.offset, view.dtype, view.storage)


# --- rules


def _tensors_only(*names: str) -> Callable[[Test], Test]:
    """A test that is silent unless all the named operands are tensors."""

    def decorate(test: Test) -> Test:
        def guarded(i: Any, target: Target) -> str | None:
            return test(i, target) if all(isinstance(i.__dict__[n], NkiTensor) for n in names) else None

        return guarded

    return decorate


def _priority(i: Any, target: Target) -> str | None:
    if i.priority is None:
        return None
    if target.nc_version < 4:
        return f"priority is {i.priority!r}, which exists since NeuronCore-v4; the target is {target.name}"
    if i.priority not in (0, 1, 2, 3):
        return f"priority is {i.priority!r}, it must be 0, 1, 2 or 3"
    return None


def _hardware_dge(i: Any, target: Target) -> str | None:
    if i.dge_mode is dge_mode.hwdge and target.nc_version < 3:
        return f"dge_mode is hwdge, which exists since NeuronCore-v3; the target is {target.name}"
    return None


def _gather_generation(i: Any, target: Target) -> str | None:
    if target.nc_version < 3 and any(is_gathered(v) for v in (*i.reads, *i.writes)):
        return f"indices select rows, which exists since NeuronCore-v3; the target is {target.name}"
    return None


def _gather_mode(i: Any, target: Target) -> str | None:
    if i.dge_mode in (dge_mode.none, dge_mode.hwdge) and any(is_gathered(v) for v in (*i.reads, *i.writes)):
        return f"indices select rows and dge_mode is {i.dge_mode.name}, it must be unknown or swdge"
    return None


def _gather_memory(i: Any, target: Target) -> str | None:
    for field, value in i.operands():
        for view in value if isinstance(value, (list, tuple)) else (value,):
            if is_gathered(view) and not view.storage.region.is_hbm:
                return f"indices select rows of {field.name}, which is on chip and must be in HBM"
    return None


def _trigger(i: Any, target: Target) -> str | None:
    if i.engine is Engine.unknown:
        return None
    if i.dge_mode is not dge_mode.hwdge:
        mode = getattr(i.dge_mode, "name", i.dge_mode)
        return f"engine is {getattr(i.engine, 'name', i.engine)} and dge_mode is {mode}, it must be hwdge"
    if i.engine not in (Engine.sync, Engine.scalar):
        return f"engine is {getattr(i.engine, 'name', i.engine)}, it must be sync or scalar"
    return None


@_tensors_only("dst", "src")
def _same_elements(i: Any, target: Target) -> str | None:
    if i.dst.size != i.src.size:
        return (
            f"src {list(i.src.shape)} has {i.src.size} elements, dst {list(i.dst.shape)} has {i.dst.size}: "
            "they must be equal"
        )
    return None


@_tensors_only("dst", "src")
def _packed_as_is(i: Any, target: Target) -> str | None:
    a, b = i.src.dtype, i.dst.dtype
    if a != b and "packed" in (a.kind, b.kind):
        return f"src is {a} and dst is {b}: packed types are moved as they are"
    return None


_PRIORITY = attribute_rule(
    "priority is 0 to 3, from NeuronCore-v4 on.", _priority, "leave priority unset", source=_COPY
)
_HARDWARE_DGE = Constraint(
    "NKI-V108",
    "Hardware DGE exists since NeuronCore-v3.",
    _hardware_dge,
    "leave dge_mode unset, or use dge_mode.swdge or dge_mode.none",
    _DGE,
)
_GATHERS = (
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
_GATHER_MODE = excludes(
    "A vector of indices needs software DGE.", _gather_mode, "leave dge_mode unset", source=_DGE
)


# --- instructions


@instruction
class dma_copy(_Dma):
    """dst = src between HBM and SBUF, on the DMA engines.

    Elements are taken in row-major order of each view, so shapes may differ as long as
    the counts agree. Where the data types differ, values go through float32. A view
    with run-time offsets (``.ap(scalar_offset=...)``, ``.ap(vector_offset=...)``,
    ``select``, ``vector_select``) gathers rows of `src` or scatters to rows of `dst`.

    `priority` is the quality of service, 0 (highest) to 3; `dge_mode` who makes the
    descriptors; `engine` which engine triggers hardware DGE; `oob_mode` whether a
    run-time index outside its tensor stops the kernel or skips that row.
    """

    dst = write()
    src = read()
    priority = attribute(int, None)
    oob_mode = attribute(enums.oob_mode, enums.oob_mode.error)
    dge_mode = attribute(enums.dge_mode, enums.dge_mode.unknown)
    engine = attribute(Engine, Engine.unknown)

    source = _COPY
    constraints = rules(
        memory("dst", SBUF, *_HBM, source=_COPY),
        memory("src", SBUF, *_HBM, source=_COPY),
        Constraint(
            "NKI-V103",
            "src and dst have the same number of elements.",
            _same_elements,
            "slice the larger one",
            _COPY,
        ),
        Constraint(
            "NKI-V105",
            "Packed data types are not converted.",
            _packed_as_is,
            "allocate dst with the data type of src, or view both as bytes",
            _COPY,
        ),
        _PRIORITY,
        _HARDWARE_DGE,
        *_GATHERS,
        _GATHER_MODE,
        excludes(
            "engine says who triggers hardware DGE: sync or scalar.",
            _trigger,
            "pass dge_mode=nisa.dge_mode.hwdge with engine=nisa.engine.sync or scalar, or leave engine unset",
            source=_COPY,
        ),
        no_indirection(source=_COPY),
    )

    def compute(self, src: Array) -> Array:
        """The elements of `src` in the shape of `dst`, as float32 where the data types differ."""
        if self.src.dtype != self.dst.dtype:
            src = to_float32(src, self.src.dtype)
        return self.route(src)

    def cost(self, target: Target) -> Cost:
        return cost.copy(target, _by_row(self.dst), _by_row(self.src), mode=self.descriptors(target))
