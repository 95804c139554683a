"""Instructions of the tensor engine: a systolic array of 128 by 128 processing elements.

The stationary operand is held in the array, the moving one streams through it;
products are accumulated in float32 and land in PSUM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nki_isa.constraints.accumulation import Accumulate
from nki_isa.constraints.data_types import dtypes
from nki_isa.constraints.guard import tensors_only
from nki_isa.constraints.indirection import indirection, is_indirect
from nki_isa.constraints.memories import memory
from nki_isa.constraints.observed import seen
from nki_isa.constraints.operands import PSUM, SBUF, elements_per_partition, listed, rules
from nki_isa.constraints.sizes import partitions, same_partitions
from nki_isa.constraints.systolic import (
    ARRAY,
    ONE_BANK,
    fp8_pairs,
    in_pairs,
    paired,
    tiling,
    transposed,
    untiled_indirection,
    widths,
)
from nki_isa.constraints.tiles import access
from nki_isa.constraints.values import excludes
from nki_isa.cost import Cost, matmuls
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, read, read_write
from nki_isa.ir.instruction import MakeTile, Matrices, Order, instruction
from nki_isa.ir.recording import Recording
from nki_isa.machine.dtypes import to_float32
from nki_isa.machine.enums import matmul_perf_mode
from nki_isa.machine.target import Feature, Target
from nki_isa.ops.matmul_base import ACCUMULATE, ROWS, Array, Fp32, Matmul
from nki_isa.rules import tensor_engine
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor

_FP8 = ("float8_e4m3", "float8_e5m2")
_WIDE = ("tfloat32", "float32")
_SMALL = 32  # rows and columns of the smallest tile of the array
_PAIR_STEP = 16  # bytes
_INDIRECT = ("float16", "bfloat16", *_FP8, "float8_e4m3fn")

#: Passes of the array for a float32 product, by how many operands hold only zeros and ones.
_FP32_PASSES = {0: 4, 1: 2, 2: 1}


def _double_row(i: Any) -> bool:
    return bool(i.perf_mode is matmul_perf_mode.double_row)


def _columns(tensor: NkiTensor, i: Any) -> int:
    """Free size of an operand, the two halves of a double row counted once."""
    return elements_per_partition(tensor) // (2 if _double_row(i) and tensor is not i.dst else 1)


_OPERAND_DTYPES = (
    "float8_e4m3, float8_e5m2, since NeuronCore-v4 float8_e4m3fn, or, without double row, bfloat16, float16, "
    "tfloat32 or float32"
)
_DST_DTYPES = (
    "float32, since NeuronCore-v4 also bfloat16; for a transpose, since NeuronCore-v3, what stationary is"
)


def _operand_dtypes(i: Any, target: Target) -> tuple[str, ...]:
    fp8 = (*_FP8, "float8_e4m3fn") if Feature.float8_e4m3fn in target.features else _FP8
    return fp8 if _double_row(i) else (*fp8, "bfloat16", "float16", *_WIDE)


def _dst_dtypes(i: Any, target: Target) -> tuple[str, ...]:
    bitwise = i.is_transpose and Feature.bit_exact_transpose in target.features
    if bitwise and isinstance(i.stationary, NkiTensor):
        return (i.stationary.dtype,)
    return ("float32", "bfloat16") if Feature.bfloat16_sums in target.features else ("float32",)


@tensors_only("stationary", "moving")
def _mixed(i: Any, target: Target) -> str | None:
    a, b = i.stationary.dtype, i.moving.dtype
    if (a in _WIDE) != (b in _WIDE):
        return f"stationary is {a} and moving is {b}, if one is float32 or tfloat32 both must be"
    if {"float8_e4m3", "float8_e4m3fn"} == {a, b}:
        return f"stationary is {a} and moving is {b}, which cannot be mixed"
    return None


def _indirect_dtypes(i: Any, target: Target) -> str | None:
    for name in ("stationary", "moving"):
        value = i.__dict__[name]
        if is_indirect(value) and value.dtype not in _INDIRECT:
            return f"{name} is an indirect view of {value.dtype}, it must be {listed(_INDIRECT)}"
    return None


def _double_row_generation(i: Any, target: Target) -> str | None:
    if _double_row(i) and Feature.double_row not in target.features:
        return f"perf_mode is double_row, which exists since NeuronCore-v3; the target is {target.name}"
    return None


@tensors_only("stationary", "moving")
def _double_row_layout(i: Any, target: Target) -> str | None:
    if _double_row(i):
        for name in ("stationary", "moving"):
            shape = i.__dict__[name].shape
            if len(shape) < 3 or shape[1] != 2:
                return f"perf_mode is double_row and {name} is {list(shape)}, its dimension 1 must be 2"
    return None


def _double_row_alone(i: Any, target: Target) -> str | None:
    if _double_row(i):
        if i.columns != ARRAY:
            return f"perf_mode is double_row and tile_size is {i.tile_size}, its column size must be {ARRAY}"
        if i.is_transpose:
            return "perf_mode is double_row and is_transpose is True"
    return None


def _transposed_indirection(i: Any, target: Target) -> str | None:
    if i.is_transpose and is_indirect(i.moving):
        return "is_transpose is True and moving is an indirect view"
    return None


def _transposed_sum(i: Any, target: Target) -> str | None:
    if i.is_transpose and i.accumulates and Feature.bit_exact_transpose in target.features:
        return "is_transpose is True and accumulate is True"
    return None


def _tfloat32(i: Any, target: Target) -> str | None:
    for name in ("stationary", "moving"):
        value = i.__dict__[name]
        if isinstance(value, NkiTensor) and value.dtype == "tfloat32":
            return f"{name} is tfloat32"
    return None


@tensors_only("stationary", "moving")
def _small_tile(i: Any, target: Target) -> str | None:
    rows, columns = i.stationary.shape[0], elements_per_partition(i.stationary)
    if max(rows, columns) <= _SMALL:
        return f"stationary is {rows} rows by {columns} columns, in one tile of {_SMALL} by {_SMALL}"
    return None


def _pair_stride(i: Any, target: Target) -> str | None:
    moving = i.moving
    if _double_row(i) and isinstance(moving, NkiTensor) and moving.ndim > 2 and moving.shape[1] == 2:
        apart = moving.strides[1] * moving.dtype.itemsize
        if apart % _PAIR_STEP:
            return f"the halves of moving are {apart} bytes apart, not a multiple of {_PAIR_STEP}"
    return None


_MATMUL = "nki/api/nki/isa (nc_matmul)"
_TRN2 = "nki/guides/architecture/trainium2_arch (built-in transpose)"


@instruction
class nc_matmul(Matmul):
    """dst = stationary.T @ moving on the tensor engine, or dst += stationary.T @ moving.

    The contraction runs along the partitions: `stationary` is [K, M], `moving` [K, N] and
    `dst` [M, N] in PSUM; several free dimensions count as one. With
    ``perf_mode=double_row`` the operands are [K, 2, M] and [K, 2, N] of fp8, and both halves
    contract. Products are summed in float32.

    `accumulate` says whether the product is added to `dst`; None leaves it to the rule that
    the first matmul onto a PSUM location overwrites and later ones accumulate. Where only parts
    of `dst` were written before, the IR lists them: a (start, stop) for each dimension.
    `tile_position` and `tile_size` use a part of the array, as (row, column). The `onezero`
    hints shorten float32 products of operands that hold only zeros and ones.

    With ``is_transpose=True`` and an identity as `moving`, `dst` is the transpose of
    `stationary`: bit for bit since NeuronCore-v3, an ordinary product before. A transpose of fp8
    writes 16-bit elements with the upper byte zero, so `dst` is every second element of its tensor.

    Shapes: `stationary` [K, M], `moving` [K, N], `dst` [M, N], with K and M up to 128 and N up to 512;
    [K, 2, M] and [K, 2, N] for double_row.
    Errors: NKI-V101 to V115; NKI-V130 and V131 about accumulation; NKI-N001 for a transpose
    by something else than an identity.
    Source: SDK page nki.isa.nc_matmul.
    """

    dst: NkiTensor = read_write()
    stationary: NkiTensor = read()
    moving: NkiTensor = read()
    is_stationary_onezero: bool = attribute(bool, False)
    is_moving_onezero: bool = attribute(bool, False)
    is_transpose: bool = attribute(bool, False)
    accumulate: Accumulate | None = attribute(bool, None)
    tile_position: tuple[int, ...] = attribute(tuple, ())
    tile_size: tuple[int, ...] = attribute(tuple, ())
    perf_mode: matmul_perf_mode = attribute(matmul_perf_mode, matmul_perf_mode.none)

    stateful = True
    source = _MATMUL
    order = Order.streamed
    observed = (
        *Matmul.observed,
        seen(tensor_engine.TFLOAT32_OPERANDS, _tfloat32, "make the operands float32 or bfloat16"),
        seen(
            tensor_engine.SMALL_TILE,
            _small_tile,
            "pad the contraction or the stationary columns to 64 with zeros",
        ),
        seen(
            tensor_engine.DOUBLE_ROW_STRIDE,
            _pair_stride,
            "pad the columns of each half to a multiple of 16 fp8 elements",
        ),
    )
    constraints = rules(
        memory("dst", PSUM, source=_MATMUL),
        memory("stationary", "moving", SBUF, source=_MATMUL),
        dtypes(
            "stationary",
            _operand_dtypes,
            shown=_OPERAND_DTYPES,
            source=_MATMUL,
            row=tensor_engine.FP8_OPERANDS,
        ),
        dtypes(
            "moving",
            _operand_dtypes,
            shown=_OPERAND_DTYPES,
            source=_MATMUL,
            row=tensor_engine.FP8_OPERANDS,
        ),
        Constraint(
            "NKI-V105",
            "float32 and tfloat32 go together, float8_e4m3 and float8_e4m3fn do not.",
            _mixed,
            "cast one operand to the data type of the other",
            _MATMUL,
            tensor_engine.MIXED_OPERANDS,
        ),
        dtypes("dst", _dst_dtypes, shown=_DST_DTYPES, source=_MATMUL),
        *tiling(_MATMUL, column_tiling=True),
        partitions("stationary", "moving", limit=lambda i, target: int(i.rows), shown=ROWS, source=_MATMUL),
        same_partitions("stationary", "moving", source=_MATMUL),
        access("dst", "stationary", "moving"),
        *widths(_columns, _MATMUL),
        ONE_BANK,
        ACCUMULATE,
        Constraint(
            "NKI-V108",
            "Double row exists since NeuronCore-v3.",
            _double_row_generation,
            "leave perf_mode unset on this target",
            _MATMUL,
        ),
        Constraint(
            "NKI-V103",
            "With double row, dimension 1 of both operands is 2 and contracts too.",
            _double_row_layout,
            "shape the operands [K, 2, columns], for example with t.reshape((128, 2, n))",
            _MATMUL,
            tensor_engine.DOUBLE_ROW_PAIRS,
        ),
        excludes(
            "Double row is not combined with column tiling or transpose mode.",
            _double_row_alone,
            "leave perf_mode unset, or use the whole width of the array",
            source=_MATMUL,
        ),
        excludes(
            "Since NeuronCore-v3 a transpose moves bits and adds to nothing.",
            _transposed_sum,
            "leave accumulate unset, or leave is_transpose unset for a real product",
            source=_TRN2,
        ),
        fp8_pairs(lambda i: bool(i.is_transpose), _TRN2),
        *indirection("dst", "stationary", "moving", gather="stationary", source=_MATMUL),
        Constraint(
            "NKI-V105",
            "Indirect operands have a 16-bit or 8-bit float type.",
            _indirect_dtypes,
            "cast the operand to bfloat16 first",
            _MATMUL,
        ),
        excludes(
            "In transpose mode moving is not an indirect view.",
            _transposed_indirection,
            "gather stationary instead",
            source=_MATMUL,
        ),
        untiled_indirection(_MATMUL),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(region=MemoryRegion.psum),
            "stationary": t(dtype="bfloat16"),
            "moving": t(dtype="bfloat16"),
            "accumulate": False,
        }

    def specialize(self, recorder: Recording) -> None:
        """As for every matmul; a transpose overwrites unless told otherwise and starts no accumulation."""
        if self.is_transpose:
            self.accumulate = bool(self.accumulate)
        else:
            super().specialize(recorder)

    def destination(self, tensor: NkiTensor) -> NkiTensor:
        """Pairs of bytes for a transpose of fp8."""
        return paired(tensor) if self.is_transpose else tensor

    @property
    def uses_engine_state(self) -> bool:
        """False: it asks only for the generation."""
        return False

    def compute(self, state: Any, dst: Array, stationary: Array, moving: Array) -> Array:
        """The product in float32, or the transposed elements as stored."""
        if self.is_transpose and Feature.bit_exact_transpose in state.target.features:
            moved = transposed(stationary, to_float32(moving, self.moving.dtype))
            return in_pairs(self.dst, moved).reshape(self.dst.shape)
        rows = stationary.shape[0] * (2 if _double_row(self) else 1)
        return self._product(
            dst,
            _matrix(to_float32(stationary, self.stationary.dtype), rows),
            _matrix(to_float32(moving, self.moving.dtype), rows),
        )

    def in_place(self, out: Array, operands: Matrices) -> Callable[[], None] | None:
        """A product of matrices goes where BLAS can put it: to `dst`, or beside it to be added."""
        tensors = (self.dst, self.stationary, self.moving)
        if self.is_transpose or _double_row(self) or not isinstance(self.accumulate, bool):
            return None
        if out.dtype != np.float32 or any([len(t.shape) != 2 or min(t.shape) < 2 for t in tensors]):
            return None
        row, item = out.strides
        if item != out.itemsize or row % item or row < item * out.shape[1]:
            return None
        stationary, moving = operands.matrix(self.stationary), operands.matrix(self.moving)
        if not self.accumulate:
            return lambda: _multiply(stationary().T, moving(), out)
        room = operands.room(out.shape)

        def add() -> None:
            np.matmul(stationary().T, moving(), out=room)
            np.add(room, out, out=out)

        return add

    def cost(self, target: Target) -> Cost:
        """Streaming of moving's columns, once per pass: 4 for float32, 2 for its transpose, else 1."""
        passes = 1
        if self.stationary.dtype == "float32":
            passes = _FP32_PASSES[self.is_stationary_onezero + self.is_moving_onezero]
            if self.is_transpose and Feature.bit_exact_transpose in target.features:
                passes = min(passes, 2)
        k, m, n = self.stationary.shape[0], _columns(self.stationary, self), _columns(self.moving, self)
        contracted = 2 * k if _double_row(self) else k
        flops = 0 if self.is_transpose else 2 * contracted * m * n
        return matmuls.matmul(
            target,
            n,
            passes,
            m,
            k,
            flops,
            stationary_bits=self.stationary.dtype.bits,
            blocks=matmuls.tile_blocks(self.tile_position, self.tile_size),
        )


def _multiply(a: Fp32, b: Fp32, out: Fp32) -> None:
    np.matmul(a, b, out=out)


def _matrix(values: Fp32, rows: int) -> Fp32:
    """`values` as a contiguous matrix of `rows` rows, which is what BLAS is fast on."""
    return np.ascontiguousarray(values).reshape(rows, -1)
