"""Instructions of the DMA engines, which move data between HBM and SBUF beside the compute engines.

A DMA is made of descriptors, one for each run of bytes that is contiguous on
both sides. Who writes the descriptors is the DGE mode: the host before the
program runs, the gpsimd engine, or a hardware block that the sync or the scalar
engine triggers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.constraints.data_types import same_dtype
from nki_isa.constraints.descriptors import (
    GATHER_MODE,
    GATHERS,
    HARDWARE_DGE,
    INDEX_COLUMN,
    PRIORITY,
    DmaInstruction,
    by_row,
    is_gathered,
)
from nki_isa.constraints.guard import tensors_only
from nki_isa.constraints.indirection import no_indirection
from nki_isa.constraints.memories import memory
from nki_isa.constraints.observed import seen
from nki_isa.constraints.operands import HBM, SBUF, free_pattern, rules, shape_of
from nki_isa.constraints.operators import operator_in
from nki_isa.constraints.values import attribute_rule, excludes, value_in
from nki_isa.cost import Cost, transfers
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, read, reads, write
from nki_isa.ir.instruction import Instruction, MakeTile, Matrices, Order, Starts, instruction
from nki_isa.machine import enums
from nki_isa.machine.dtypes import to_float32
from nki_isa.machine.enums import Engine, dge_mode
from nki_isa.machine.operators import Operator
from nki_isa.machine.target import Feature, Target
from nki_isa.ops.base import copied
from nki_isa.rules import dma
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor

Array = NDArray[Any]

_COPY = "nki/api/nki/isa (dma_copy)"


# --- dma_copy


def _trigger(i: Any, target: Target) -> str | None:
    if i.engine is Engine.unknown:
        return None
    if i.dge_mode is not dge_mode.hwdge:
        mode = getattr(i.dge_mode, "name", i.dge_mode)
        return f"engine is {getattr(i.engine, 'name', i.engine)} and dge_mode is {mode}, it must be hwdge"
    if i.engine not in (Engine.sync, Engine.scalar):
        return f"engine is {getattr(i.engine, 'name', i.engine)}, it must be sync or scalar"
    return None


@tensors_only("dst", "src")
def _same_elements(i: Any, target: Target) -> str | None:
    if i.dst.size != i.src.size:
        return (
            f"src {list(i.src.shape)} has {i.src.size} elements, dst {list(i.dst.shape)} has {i.dst.size}: "
            "they must be equal"
        )
    return None


@tensors_only("dst", "src")
def _packed_as_is(i: Any, target: Target) -> str | None:
    a, b = i.src.dtype, i.dst.dtype
    if a != b and "packed" in (a.kind, b.kind):
        return f"src is {a} and dst is {b}: packed types are moved as they are"
    return None


@tensors_only("dst", "src")
def _hardware_conversion(i: Any, target: Target) -> str | None:
    if i.dge_mode is dge_mode.hwdge and i.src.dtype != i.dst.dtype:
        return f"dge_mode is hwdge, src is {i.src.dtype} and dst is {i.dst.dtype}: they must be equal"
    return None


@instruction
class dma_copy(DmaInstruction):
    """dst = src between HBM and SBUF, on the DMA engines.

    Elements are taken in row-major order of each view, so shapes may differ as long as
    the counts agree. Where the data types differ, values go through float32. A view
    with run-time offsets (``.ap(scalar_offset=...)``, ``.ap(vector_offset=...)``,
    ``select``, ``vector_select``) gathers rows of `src` or scatters to rows of `dst`.

    `priority` is the quality of service, 0 (highest) to 3; `dge_mode` who makes the
    descriptors; `engine` which engine triggers hardware DGE; `oob_mode` whether a
    run-time index outside its tensor stops the kernel or skips what it selects: one index of a
    vector skips its whole row, never a part of it, a scalar offset the whole transfer. Nothing is
    written for what is skipped: `dst` keeps its bytes there. ``nki-sim run`` says of each line how many
    rows (or transfers, for scalar offsets) it skipped, of how many.

    Shapes: `dst` and `src` have the same number of elements, of any shape, in HBM, SBUF or PSUM.
    Errors: NKI-V101, V103, V105, V108, V111, V113; NKI-H001 for a run-time index out of bounds.
    Source: SDK page nki.isa.dma_copy and the DGE reference.
    """

    dst: NkiTensor = write()
    src: NkiTensor = read()
    priority: int | None = attribute(int, None)
    oob_mode: enums.oob_mode = attribute(enums.oob_mode, enums.oob_mode.error)
    dge_mode: enums.dge_mode = attribute(enums.dge_mode, enums.dge_mode.unknown)
    engine: Engine = attribute(Engine, Engine.unknown)
    spills: bool = attribute(bool, False, public=False)  # the compiler's, of what SBUF has no room for

    starts = Starts.free
    source = _COPY
    order = Order.any
    by_element = True
    wide = True
    constraints = rules(
        memory("dst", "src", SBUF, *HBM, source=_COPY),
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
        Constraint(
            "NKI-V105",
            "Hardware DGE converts no data types.",
            _hardware_conversion,
            "view the tensors as one data type, or leave dge_mode unset",
            "nki/release-notes (0.3.0, breaking changes)",
            dma.HARDWARE_CAST,
        ),
        PRIORITY,
        HARDWARE_DGE,
        *GATHERS,
        INDEX_COLUMN,
        GATHER_MODE,
        excludes(
            "engine says who triggers hardware DGE: sync or scalar.",
            _trigger,
            "pass dge_mode=nisa.dge_mode.hwdge with engine=nisa.engine.sync or scalar, or leave engine unset",
            source=_COPY,
        ),
        no_indirection(source=_COPY),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "src": t(region=MemoryRegion.shared_hbm)}

    def compute(self, src: Array) -> Array:
        """The elements of `src` in the shape of `dst`, as float32 where the data types differ."""
        if self.src.dtype != self.dst.dtype:
            src = to_float32(src, self.src.dtype)
        return self.route(src)

    def in_place(self, out: Array, operands: Matrices) -> Callable[[], None] | None:
        """Bytes that stay as they are go to `dst` at once."""
        return copied(self.dst, self.src, out, operands)

    def cost(self, target: Target) -> Cost:
        """Descriptors for the runs that are contiguous on both sides."""
        return transfers.copy(target, by_row(self.dst), by_row(self.src), mode=self.descriptors(target))


def is_spill(instruction: Instruction) -> bool:
    """True for a copy that the compiler put in: of a tensor that SBUF has no room for, to HBM or back."""
    return instruction.__dict__.get("spills") is True


# --- dma_transpose


_TRANSPOSE = "nki/api/nki/isa (dma_transpose)"
_CROSSBAR = 32  # bytes it writes at a time

#: The permutation of a transpose, by the number of dimensions of its source.
_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (3, 1, 2, 0)}


@tensors_only("src")
def _transpose_axes(i: Any, target: Target) -> str | None:
    axes = _AXES.get(i.src.ndim)
    if axes is None:
        return f"src {shape_of(i.src)} has {i.src.ndim} dimensions, it must have 2, 3 or 4"
    if i.axes is not None and tuple(i.axes) != axes:
        return f"axes is {tuple(i.axes)}, for {i.src.ndim} dimensions it must be {axes}"
    return None


@tensors_only("dst", "src")
def _transposed_shape(i: Any, target: Target) -> str | None:
    axes = _AXES.get(i.src.ndim)
    if axes is None:
        return None
    wanted = [i.src.shape[a] for a in axes]
    if i.loose and i.dst.ndim < len(wanted) and _without_ones(i.dst.shape) == _without_ones(wanted):
        return None
    if list(i.dst.shape) != wanted:
        return f"dst is {shape_of(i.dst)}, the transpose of src {shape_of(i.src)} is {wanted}"
    return None


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _transpose_mode(i: Any, target: Target) -> str | None:
    refused = (dge_mode.swdge,) if i.loose else (dge_mode.swdge, dge_mode.none)
    if not is_gathered(i.src) and i.dge_mode in refused:
        return f"dge_mode is {i.dge_mode.name} and src has no vector of indices, it must be unknown or hwdge"
    return None


def _skip_without_indices(i: Any, target: Target) -> str | None:
    if i.oob_mode is enums.oob_mode.skip and not any(v.dynamic is not None for v in i.views()):
        return "oob_mode is skip and no operand has a run-time index"
    return None


@tensors_only("src")
def _hardware_transpose(i: Any, target: Target) -> str | None:
    return _no_block(i) if i.dge_mode is dge_mode.hwdge else None


def _no_block(i: Any) -> str | None:
    """Why hardware DGE cannot make the transpose; None where it can."""
    shape = i.src.shape
    if len(shape) == 2 and shape[0] != 16:
        return f"src {shape_of(i.src)} has {shape[0]} rows, for hwdge it must have 16"
    if len(shape) > 2 and (shape[0] not in (1, 2, 4, 8, 16) or shape[0] * shape[-2] % 16):
        return (
            f"src is {shape_of(i.src)}, for hwdge its first size must be 1, 2, 4, 8 or 16 "
            "and its first times its last but one a multiple of 16"
        )
    if shape[-1] > 128:
        return f"the last size of src is {shape[-1]}, for hwdge it must be at most 128"
    if i.src.dtype.itemsize != 2:
        return f"src is {i.src.dtype}, for hwdge it must have 2 bytes"
    return None


def _start(dst: NkiTensor) -> str | None:
    """Why the first element of `dst` is not where the crossbar writes."""
    row = dst.storage.row_bytes
    start = dst.offset * dst.dtype.itemsize % row + (dst.storage.address[1] if dst.storage.address else 0)
    return (
        f"dst starts at byte {start} of its partitions, not at a multiple of {_CROSSBAR}"
        if start % _CROSSBAR
        else None
    )


def _steps(dst: NkiTensor, strides: Iterable[int]) -> str | None:
    """Why a step of `strides`, in elements, leaves the multiples the crossbar writes at."""
    wrong = next((s for s in strides if s * dst.dtype.itemsize % _CROSSBAR), None)
    if wrong is None:
        return None
    return f"the rows of dst are {wrong * dst.dtype.itemsize} bytes apart, not a multiple of {_CROSSBAR}"


@tensors_only("dst", "src")
def _misaligned_blocks(i: Any, target: Target) -> str | None:
    """Of a transpose that hardware DGE makes block by block; rows without a gap are one."""
    if _no_block(i) is not None or not i.dst.storage.row_bytes or i.dst.dynamic is not None:
        return None
    return _start(i.dst) or _steps(i.dst, (stride for stride, _ in free_pattern(i.dst)[:-1]))


@tensors_only("dst", "src")
def _misaligned_rows(i: Any, target: Target) -> str | None:
    """Of any other transpose of 2-byte elements."""
    dst = i.dst
    if i.dge_mode is dge_mode.hwdge or _no_block(i) is None or dst.dtype.itemsize != 2:
        return None
    if not dst.storage.row_bytes or dst.dynamic is not None:
        return None
    steps = (stride for stride, size in zip(dst.strides[1:-1], dst.shape[1:-1]) if size > 1)
    return _start(dst) or _steps(dst, steps)


_ALIGN = "allocate dst with rows padded to 32 bytes (16 elements of 2 bytes), and use the part that is filled"


@tensors_only("src")
def _gather_transpose(i: Any, target: Target) -> str | None:
    if not is_gathered(i.src):
        return None
    shape, index = i.src.shape, i.src.dynamic.index
    rows, columns = index.shape[0], math.prod(index.shape[1:])
    tests = (
        (len(shape) == 4 and 1 not in shape[1:3], f"src is {list(shape)}, dimension 1 or 2 must be 1"),
        (shape[-1] > 128, f"the last size of src is {shape[-1]}, it must be at most 128"),
        (i.src.dtype.itemsize != 2, f"src is {i.src.dtype}, it must have 2 bytes"),
        (shape[0] % 16, f"src has {shape[0]} rows, it must have a multiple of 16"),
        (index.ndim != 2, f"the indices are {list(index.shape)}, they must have 2 dimensions"),
        (rows * columns < shape[0], f"there are {rows * columns} indices for {shape[0]} rows"),
        (rows % 16 or not 16 <= rows <= 128, f"the indices have {rows} partitions, they must have 16 to 128"),
        (columns > 1 and rows != 128, f"the indices are {list(index.shape)}, they must have 128 rows"),
        (index.dtype != "uint32", f"the indices are {index.dtype}, they must be uint32"),
    )
    return next((message for failed, message in tests if failed), None)


@instruction
class dma_transpose(DmaInstruction):
    """dst = src with its dimensions reversed, on the DMA engines.

    The permutation is (1, 0), (2, 1, 0) or (3, 1, 2, 0), by the dimensions of `src`, and
    `axes` may only repeat it. Where `src` has a vector of run-time indices, rows are gathered
    first: row ``i`` is the one that ``indices.T.flatten()[i]`` names. Bits are moved as they are.

    `priority`, `dge_mode` and `oob_mode` are as for dma_copy.

    API levels before 0.4 take a `dst` that leaves out sizes of 1, and dge_mode.none.

    Shapes: `src` has 2 to 4 dimensions, `dst` the same in the order of the permutation; the data types agree.
    Errors: NKI-V101, V103, V105, V108, V111, V113; NKI-H001 for a run-time index out of bounds.
    Source: SDK page nki.isa.dma_transpose and the DGE reference; for the levels before 0.4 its
    release notes and the use in nki-library of 2026-04-13 (core/mlp/mlp_tkg).
    """

    dst: NkiTensor = write()
    src: NkiTensor = read()
    axes: tuple[int, ...] | None = attribute(tuple, None)
    priority: int | None = attribute(int, None)
    dge_mode: enums.dge_mode = attribute(enums.dge_mode, enums.dge_mode.unknown)
    oob_mode: enums.oob_mode = attribute(enums.oob_mode, enums.oob_mode.error)
    loose: bool = attribute(bool, False, public=False)  # the rules before NKI 0.4

    source = _TRANSPOSE
    order = Order.shuffled
    observed = (
        seen(dma.TRANSPOSE_ALIGNMENT, _misaligned_blocks, _ALIGN),
        seen(dma.TRANSPOSE_ALIGNMENT_ODD, _misaligned_rows, _ALIGN),
    )
    constraints = rules(
        memory("dst", SBUF, source=_TRANSPOSE),
        memory("src", SBUF, *HBM, source=_TRANSPOSE),
        same_dtype("dst", "src", source=_TRANSPOSE),
        Constraint(
            "NKI-V111",
            "A transpose has 2, 3 or 4 dimensions, and axes (1, 0), (2, 1, 0) or (3, 1, 2, 0).",
            _transpose_axes,
            "leave axes unset, or reorder the dimensions of the view with permute",
            _TRANSPOSE,
        ),
        Constraint(
            "NKI-V103",
            "dst has the dimensions of src in the order of axes.",
            _transposed_shape,
            "allocate dst in the shape of the transpose, sizes of 1 included, or expand_dim it",
            "nki/release-notes (0.4.0, breaking changes)",
        ),
        PRIORITY,
        HARDWARE_DGE,
        *GATHERS,
        GATHER_MODE,
        excludes(
            "Without a vector of indices dge_mode is unknown or hwdge.",
            _transpose_mode,
            "leave dge_mode unset",
            source=_TRANSPOSE,
        ),
        Constraint(
            "NKI-V103",
            "A hardware DGE transpose has 16 rows (3 and 4 dimensions: see the page), at most 128 columns "
            "and 2-byte elements.",
            _hardware_transpose,
            "leave dge_mode unset, or split the transpose into such blocks",
            _TRANSPOSE,
            dma.HARDWARE_TRANSPOSE,
        ),
        Constraint(
            "NKI-V103",
            "A gathering transpose has a multiple of 16 rows, at most 128 columns, 2-byte elements and "
            "enough uint32 indices in 16 to 128 partitions.",
            _gather_transpose,
            "gather with dma_copy first, then transpose",
            _TRANSPOSE,
        ),
        excludes(
            "oob_mode skip needs a run-time index.",
            _skip_without_indices,
            "leave oob_mode unset",
            source=_TRANSPOSE,
        ),
        no_indirection(source=_TRANSPOSE),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(dtype="bfloat16"), "src": t(dtype="bfloat16", region=MemoryRegion.shared_hbm)}

    def route(self, elements: Array) -> Array:
        """`elements` in the shape of `src`, transposed."""
        return elements.transpose(_AXES[elements.ndim]).reshape(self.dst.shape)

    def compute(self, src: Array) -> Array:
        """The transposed elements as stored."""
        return self.route(src)

    def descriptors(self, target: Target) -> str | None:
        """Prepared by the host within SBUF, where it is of no block that hardware DGE takes.

        The page has it so for any source without indices; but loads by transpose keep the order of other
        loads on hardware (docs/fidelity.md, context-parallel attention), as only those made on time do.
        """
        found = super().descriptors(target)
        return "static" if found is None and self.src.buffer.on_chip and _no_block(self) else found

    def cost(self, target: Target) -> Cost:
        """A copy at the rate of DMA transposes."""
        return transfers.copy(
            target, self.dst, by_row(self.src), mode=self.descriptors(target), transpose=True
        )


# --- dma_compute


_COMPUTE = "nki/api/nki/isa (dma_compute)"
_MOST_SOURCES = 16


def _source_count(i: Any, target: Target) -> str | None:
    if not 1 <= len(i.srcs) <= _MOST_SOURCES:
        return f"srcs has {len(i.srcs)} tensors, it must have 1 to {_MOST_SOURCES}"
    return None


@tensors_only("dst")
def _source_sizes(i: Any, target: Target) -> str | None:
    for position, source in enumerate(i.srcs):
        if isinstance(source, NkiTensor) and source.size != i.dst.size:
            return (
                f"srcs[{position}] {shape_of(source)} has {source.size} elements, dst {shape_of(i.dst)} has "
                f"{i.dst.size}: they must be equal"
            )
    return None


def _scale_values(i: Any, target: Target) -> str | None:
    if i.scales is not None and (len(i.scales) != len(i.srcs) or any(s != 1.0 for s in i.scales)):
        return f"scales is {list(i.scales)}, it must be None or a 1.0 for each of the {len(i.srcs)} sources"
    return None


def _read_modify_write(i: Any, target: Target) -> str | None:
    if not any(is_gathered(v) for v in i.views()):
        return None
    if len(i.srcs) != 2:
        return f"indices select rows and srcs has {len(i.srcs)} tensors, it must have 2"
    if is_gathered(i.dst) and not any(is_gathered(s) and s.storage is i.dst.storage for s in i.srcs):
        return "dst is scattered to and no source reads the same rows"
    if not is_gathered(i.dst) and not any(s.storage is i.dst.storage for s in i.srcs):
        return "a source is gathered and none of the sources is dst"
    return None


def _static_addresses(i: Any, target: Target) -> str | None:
    for view in i.views():
        if view.dynamic is not None and not is_gathered(view):
            return f"{view.name} has a run-time offset, only a vector of indices is possible"
    return None


@instruction
class dma_compute(DmaInstruction):
    """dst = srcs[0] + srcs[1] + ..., element by element, in the DMA engines.

    Sums are float32, rounded once to the data type of `dst`; shapes may differ as long as
    the element counts agree. With a vector of indices it updates in place: a scatter adds a
    tile to rows of `dst`, which is also a source, a gather adds rows of a source to `dst`.

    `scales` may only be 1.0 for each source; `unique_indices` states that no index occurs
    twice; `oob_mode` is as for dma_copy.

    Shapes: `dst` and each of `srcs` have the same number of elements, in HBM or SBUF.
    Errors: NKI-V101, V103, V107, V108, V111, V113; NKI-H001 for a run-time index out of bounds.
    Source: SDK page nki.isa.dma_compute.
    """

    dst: NkiTensor = write()
    srcs: list[NkiTensor] = reads()
    reduce_op: Operator = attribute(Operator)
    scales: Sequence[float] | None = attribute(tuple, None)
    unique_indices: bool = attribute(bool, True)
    oob_mode: enums.oob_mode = attribute(enums.oob_mode, enums.oob_mode.error)

    starts = Starts.free
    source = _COMPUTE
    order = Order.any
    constraints = rules(
        memory("dst", "srcs", SBUF, *HBM, source=_COMPUTE),
        attribute_rule(
            "There are 1 to 16 sources.", _source_count, "sum them in several steps", source=_COMPUTE
        ),
        Constraint(
            "NKI-V103",
            "Every source has as many elements as dst.",
            _source_sizes,
            "slice the larger ones",
            _COMPUTE,
        ),
        operator_in("reduce_op", "add", source=_COMPUTE),
        attribute_rule(
            "Every scale is 1.0.", _scale_values, "leave scales unset and scale on an engine", source=_COMPUTE
        ),
        value_in("unique_indices", (True,), source=_COMPUTE),
        excludes(
            "oob_mode skip needs a run-time index.",
            _skip_without_indices,
            "leave oob_mode unset",
            source="nki/release-notes (0.4.0)",
        ),
        *GATHERS,
        INDEX_COLUMN,
        excludes(
            "An update by indices has two sources, one of which is dst.",
            _read_modify_write,
            "pass srcs=[dst, data] with the same vector_offset on dst in both places",
            source=_COMPUTE,
        ),
        excludes(
            "Addresses are known at compile time, but for a vector of indices.",
            _static_addresses,
            "copy with nisa.dma_copy, which takes scalar offsets, and add on an engine",
            source=_COMPUTE,
        ),
        no_indirection(source=_COMPUTE),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "srcs": [t(region=MemoryRegion.shared_hbm), t(region=MemoryRegion.shared_hbm)],
            "reduce_op": "add",
        }

    def descriptors(self, target: Target) -> str | None:
        """Software DGE with indices, else prepared by the host."""
        return super().descriptors(target) or "static"

    def compute(self, srcs: list[Array]) -> Array:
        """The sum in float32."""
        total: Array = np.zeros(self.dst.shape, np.float32)
        for tensor, values in zip(self.srcs, srcs, strict=True):
            total += self.route(to_float32(values, tensor.dtype))
        return total

    def cost(self, target: Target) -> Cost:
        """The descriptors of a copy from each source.

        The engines read every source: a sum of two moves at half the rate of a copy, as published. With
        near-memory sums what is added to `dst` in SBUF does not read it.
        """
        mode, dst = self.descriptors(target), by_row(self.dst)
        near = Feature.near_memory_sums in target.features and self.dst.buffer.on_chip
        read = [s for s in self.srcs if not (near and s.storage is self.dst.storage)] or self.srcs
        copies = [transfers.copy(target, dst, by_row(s), mode=mode).transfer for s in read]
        moved = [t for t in copies if t is not None]
        return transfers.transfer(
            target,
            dataclasses.replace(
                moved[0],
                elements=sum(t.elements for t in moved),
                element_bytes=min(t.element_bytes for t in moved),
                packet_bytes=min(t.packet_bytes for t in moved),
                total_bytes=sum(t.total_bytes for t in moved),
                read_bytes=sum(t.read_bytes for t in moved),
            ),
        )
