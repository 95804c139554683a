"""Instructions of the tensor engine: a systolic array of 128 by 128 processing elements.

The stationary operand is held in the array, the moving one streams through it;
products are accumulated in float32 and land in PSUM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nki_isa.constraints import accumulation
from nki_isa.constraints.accumulation import Accumulate, Box
from nki_isa.constraints.data_types import dtypes
from nki_isa.constraints.guard import tensors_only
from nki_isa.constraints.indirection import indirection, is_indirect
from nki_isa.constraints.memories import memory
from nki_isa.constraints.observed import PSUM_ALIGNMENT, TENSOR, seen
from nki_isa.constraints.operands import PSUM, SBUF, elements_per_partition, listed, rules, shape_of, start_of
from nki_isa.constraints.sizes import elements_multiple, partitions, same_partitions
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
from nki_isa.constraints.values import attribute_rule, excludes
from nki_isa.cost import Cost, matmuls
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, read, read_write
from nki_isa.ir.instruction import Instruction, MakeTile, Matrices, Order, instruction
from nki_isa.machine.dtypes import DTYPES, to_float32
from nki_isa.machine.enums import Engine, matmul_perf_mode
from nki_isa.machine.target import Feature, Target
from nki_isa.rules import tensor_engine
from nki_isa.tensor.kinds import kind_of
from nki_isa.tensor.tensor import MemoryRegion, NkiTensor

Array = NDArray[Any]
Fp32 = NDArray[np.float32]

_FP8 = ("float8_e4m3", "float8_e5m2")
_WIDE = ("tfloat32", "float32")
_SMALL = 32  # rows and columns of the smallest tile of the array
_PAIR_STEP = 16  # bytes
_INDIRECT = ("float16", "bfloat16", *_FP8, "float8_e4m3fn")

#: Passes of the array for a float32 product, by how many operands hold only zeros and ones.
_FP32_PASSES = {0: 4, 1: 2, 2: 1}


class _Matmul(Instruction):
    """What both matmuls share: tiles of the array, accumulation, the float32 product.

    Attributes:
        inferred: True if `accumulate` was left out, and the rule for that settled it.
    """

    dst: NkiTensor
    stationary: NkiTensor
    moving: NkiTensor
    accumulate: Accumulate | None
    tile_position: tuple[int, ...]
    tile_size: tuple[int, ...]

    inferred = False
    engines = (Engine.tensor,)
    settles = ("accumulate",)
    observed: ClassVar[tuple[Constraint, ...]] = (*TENSOR, PSUM_ALIGNMENT)

    def normalise(self) -> None:
        """Tiles as tuples, empty where not given; numbers and numpy's truth values as Python's."""
        if isinstance(self.accumulate, (int, np.bool_)):
            self.accumulate = bool(self.accumulate)
        if type(self.tile_position) is not tuple or type(self.tile_size) is not tuple:
            self.tile_position, self.tile_size = _pair(self.tile_position), _pair(self.tile_size)

    def specialize(self, recorder: Any) -> None:
        """Settle `accumulate` by what earlier matmuls have written."""
        asked = self.accumulate
        if isinstance(self.dst, NkiTensor) and (asked is None or isinstance(asked, bool)):
            self.accumulate = accumulation.resolve(recorder, self.dst, asked)
            self.inferred = asked is None

    @property
    def accumulates(self) -> bool:
        """True if it adds to what `dst` holds; settled when the kernel is specialized."""
        return bool(self.accumulate)

    def views_read(self) -> list[NkiTensor]:
        """Every tensor it reads; of `dst` only what it accumulates onto."""
        found = super().views_read()
        if self.accumulate is True:
            return found
        parts = self.accumulate if isinstance(self.accumulate, tuple) else ()
        added = [self.dst[_index(box)] for box in parts]
        return [*added, *(t for t in found if t is not self.dst)]

    @property
    def rows(self) -> int:
        """Rows of the array it may use."""
        return self.tile_size[0] if len(self.tile_size) == 2 else ARRAY

    @property
    def columns(self) -> int:
        """Columns of the array it may use."""
        return self.tile_size[1] if len(self.tile_size) == 2 else ARRAY

    def _product(self, dst: Array, stationary: Fp32, moving: Fp32) -> Fp32:
        """stationary.T @ moving of two matrices in the shape of `dst`, added to it if it accumulates."""
        product: Fp32 = np.matmul(stationary.T, moving).reshape(self.dst.shape)
        if isinstance(self.accumulate, tuple):
            for box in self.accumulate:
                product[_index(box)] += to_float32(dst[_index(box)], self.dst.dtype)
        elif self.accumulates:
            product += to_float32(dst, self.dst.dtype)
        return product


def _index(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)


def _accumulate_value(i: Any, target: Target) -> str | None:
    value = i.accumulate
    return None if value is None or isinstance(value, bool) else f"accumulate is {kind_of(value)}"


ACCUMULATE = attribute_rule(
    "accumulate is True, False or None.",
    _accumulate_value,
    "pass a value known at compile time, such as accumulate=(i > 0) with i of a Python loop",
    source="nki/api/nki/isa (nc_matmul)",
)


def _pair(value: Any) -> Any:
    return () if value is None else tuple(value) if isinstance(value, (list, tuple)) else value


# --- nc_matmul


def _double_row(i: Any) -> bool:
    return bool(i.perf_mode is matmul_perf_mode.double_row)


def _columns(tensor: NkiTensor, i: Any) -> int:
    """Free size of an operand, the two halves of a double row counted once."""
    return elements_per_partition(tensor) // (2 if _double_row(i) and tensor is not i.dst else 1)


_ROWS = "128 (or, in tiling mode, the rows of the tile)"
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
class nc_matmul(_Matmul):
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
        *_Matmul.observed,
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
        partitions("stationary", "moving", limit=lambda i, target: int(i.rows), shown=_ROWS, source=_MATMUL),
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

    def specialize(self, recorder: Any) -> None:
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
        if out.dtype != np.float32 or any(len(t.shape) != 2 or min(t.shape) < 2 for t in tensors):
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
        return matmuls.matmul(target, n, passes, m, k, flops)


def _multiply(a: Fp32, b: Fp32, out: Fp32) -> None:
    np.matmul(a, b, out=out)


def _matrix(values: Fp32, rows: int) -> Fp32:
    """`values` as a contiguous matrix of `rows` rows, which is what BLAS is fast on."""
    return np.ascontiguousarray(values).reshape(rows, -1)


# --- nc_matmul_mx


_MX = "nki/api/nki/isa (nc_matmul_mx)"
_SCALES = "nki/deep-dives/mxfp-matmul"
_MX_DTYPES = ("float8_e5m2_x4", "float8_e4m3fn_x4", "float4_e2m1fn_x4")
_PAIRS = (("stationary", "stationary_scale"), ("moving", "moving_scale"))
_QUADRANT, _GROUP = 32, 8  # partitions of a quadrant of SBUF, and of one scaling group
_SCALE_STARTS = (0, 4, 8, 12)  # within a quadrant


def scale_rows(count: int) -> NDArray[np.intp]:
    """The partition of the scale tile that holds the scales of each of the `count` partitions of data.

    Each quadrant of 32 partitions holds the scales of its own 4 groups of 8 in its first 4 partitions.
    """
    partition = np.arange(count)
    return partition // _QUADRANT * _QUADRANT + partition % _QUADRANT // _GROUP


def _mx_columns(tensor: NkiTensor, i: Any) -> int:
    return elements_per_partition(tensor)


@tensors_only("stationary", "moving")
def _mx_partitions(i: Any, target: Target) -> str | None:
    for name in ("stationary", "moving"):
        count = i.__dict__[name].shape[0]
        if count % _QUADRANT:
            return f"{name} has {count} partitions, it must have a multiple of {_QUADRANT}"
    return None


@tensors_only("stationary", "moving", "stationary_scale", "moving_scale")
def _scale_shapes(i: Any, target: Target) -> str | None:
    for name, scale_name in _PAIRS:
        data, scale = i.__dict__[name], i.__dict__[scale_name]
        needed = int(scale_rows(data.shape[0])[-1]) + 1
        if scale.shape[0] < needed or elements_per_partition(scale) != elements_per_partition(data):
            return (
                f"{scale_name} is {shape_of(scale)}, for {name} {shape_of(data)} it must have at least "
                f"{needed} partitions of {elements_per_partition(data)} elements"
            )
    return None


@tensors_only("stationary_scale", "moving_scale")
def _scale_starts(i: Any, target: Target) -> str | None:
    for _, name in _PAIRS:
        start = start_of(i.__dict__[name]) % _QUADRANT
        if start not in _SCALE_STARTS:
            return f"{name} starts at partition {start} of a quadrant, it must be {listed(_SCALE_STARTS)}"
    return None


def _paired_indirection(i: Any, target: Target) -> str | None:
    for names in _PAIRS:
        indices = [v.dynamic.index if is_indirect(v) else None for v in (i.__dict__[n] for n in names)]
        if _same_view(*indices) is False:
            return f"{names[0]} and {names[1]} are not indirect views by the same index"
    return None


def _same_view(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if a is None or b is None:
        return False
    return bool((a.storage, a.offset, a.shape, a.strides) == (b.storage, b.offset, b.shape, b.strides))


@instruction
class nc_matmul_mx(_Matmul):
    """dst = stationary.T @ moving of MX-quantized operands, or dst += stationary.T @ moving.

    `stationary` [K, M] and `moving` [K, N] hold four values per element, which contract
    together with the partitions: K up to 128 is a contraction of up to 512. Each group of
    8 partitions by 4 values shares one power of two from its scale tile: the scales of
    each quadrant of 32 partitions are in the first 4 partitions of that quadrant of the
    scale view, one per column. `dst` is [M, N] in PSUM; products are summed in float32.

    `tile_position` and `tile_size` use a part of the array's rows; `accumulate` is as for
    nc_matmul. NeuronCore-v4 and later.

    Shapes: `stationary` [K, M], `moving` [K, N], `dst` [M, N], with K and M up to 128; each scale tile has
    the columns of its operand, and the partitions up to its last group.
    Errors: NKI-V101 to V115; NKI-V131 about accumulation.
    Source: SDK page nki.isa.nc_matmul_mx and the MX deep dive.
    """

    dst: NkiTensor = read_write()
    stationary: NkiTensor = read()
    moving: NkiTensor = read()
    stationary_scale: NkiTensor = read()
    moving_scale: NkiTensor = read()
    tile_position: tuple[int, ...] = attribute(tuple, None)
    tile_size: tuple[int, ...] = attribute(tuple, None)
    accumulate: Accumulate | None = attribute(bool, None)

    needs = Feature.mx_tiles
    source = _MX
    order = Order.streamed
    constraints = rules(
        memory("dst", PSUM, source=_MX),
        memory("stationary", "moving", "stationary_scale", "moving_scale", SBUF, source=_MX),
        dtypes("stationary", _MX_DTYPES, source=_MX),
        dtypes("moving", _MX_DTYPES, source=_MX),
        dtypes("stationary_scale", ("float8_e8m0fnu", "uint8"), source=_MX),
        dtypes("moving_scale", ("float8_e8m0fnu", "uint8"), source=_MX),
        dtypes("dst", ("float32", "bfloat16"), source=_MX),
        *tiling(_MX, column_tiling=False),
        partitions("stationary", "moving", limit=lambda i, target: int(i.rows), shown=_ROWS, source=_MX),
        same_partitions("stationary", "moving", source=_MX),
        Constraint(
            "NKI-V103",
            "stationary and moving have a multiple of 32 partitions.",
            _mx_partitions,
            "pad the contraction with zeros to a multiple of 32 partitions",
            _MX,
        ),
        access("dst", "stationary", "moving"),
        elements_multiple("stationary", 2, "columns are loaded in pairs", source=_MX),
        *widths(_mx_columns, _MX),
        ACCUMULATE,
        Constraint(
            "NKI-V103",
            "A scale tile has a column for each column of its data, and the partitions of its quadrants.",
            _scale_shapes,
            "allocate the scales as [partitions of the data, columns of the data]",
            _SCALES,
        ),
        Constraint(
            "NKI-V110",
            "The scales start at partition 0, 4, 8 or 12 of a quadrant.",
            _scale_starts,
            "slice the scale tile at a multiple of 4 below 16 from the start of a quadrant",
            _SCALES,
        ),
        *indirection("dst", *(n for pair in _PAIRS for n in pair), gather="stationary", source=_MX),
        excludes(
            "Data and scales are indirect views by the same index, or neither is one.",
            _paired_indirection,
            "call .indirect() with one index on both",
            source=_MX,
        ),
        untiled_indirection(_MX),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(region=MemoryRegion.psum),
            "stationary": t(dtype="float8_e5m2_x4"),
            "moving": t(dtype="float8_e5m2_x4"),
            "stationary_scale": t(dtype="uint8"),
            "moving_scale": t(dtype="uint8"),
            "accumulate": False,
        }

    def compute(
        self, dst: Array, stationary: Array, moving: Array, stationary_scale: Array, moving_scale: Array
    ) -> Array:
        """The product of the dequantized operands in float32."""
        return self._product(
            dst,
            dequantized(stationary, self.stationary, stationary_scale),
            dequantized(moving, self.moving, moving_scale),
        )

    def cost(self, target: Target) -> Cost:
        """Streaming of moving's columns once: four values per element contract in one pass."""
        k, m, n = self.stationary.shape[0], *map(elements_per_partition, (self.stationary, self.moving))
        return matmuls.matmul(target, n, 1, m, k, 2 * 4 * k * m * n)


def dequantized(data: Array, tensor: NkiTensor, scale: Array) -> Fp32:
    """The values of an MX operand as a matrix of (4 x partitions) rows by columns, in float32."""
    count = data.shape[0]
    values = to_float32(data, tensor.dtype).reshape(count, -1, 4)
    e8m0 = DTYPES["float8_e8m0fnu"]
    factors = to_float32(scale.reshape(scale.shape[0], -1)[scale_rows(count)].view(e8m0.numpy), e8m0)
    return (values * factors[:, :, None]).transpose(0, 2, 1).reshape(4 * count, -1)
