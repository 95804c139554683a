"""Instructions of the tensor engine: a systolic array of 128 by 128 processing elements.

The stationary operand is held in the array, the moving one streams through it;
products are accumulated in float32 and land in PSUM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nki_isa import accumulation, cost
from nki_isa.constraints import (
    ARCHITECTURE,
    PSUM,
    SBUF,
    access,
    attribute_rule,
    dtypes,
    elements,
    elements_per_partition,
    excludes,
    memory,
    partitions,
    rules,
    same_partitions,
)
from nki_isa.cost import Cost
from nki_isa.diagnostics import error
from nki_isa.dtypes import to_float32
from nki_isa.enums import matmul_perf_mode
from nki_isa.indirection import indirection
from nki_isa.instruction import Constraint, Engine, Instruction, attribute, instruction, read, read_write
from nki_isa.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.target import Target

Array = NDArray[Any]
Fp32 = NDArray[np.float32]

_STUB = "nki/api/nki/isa (nc_matmul)"
_FP8 = ("float8_e4m3", "float8_e5m2")
_INDIRECT_DTYPES = ("float16", "bfloat16", *_FP8, "float8_e4m3fn")
_WIDE = ("tfloat32", "float32")
_ARRAY = 128  # rows and columns of processing elements

#: Row and column tile sizes, by the first generation that has them.
_TILE_SIZES = {32: 3, 64: 2, 128: 2}

#: Passes of the array for a float32 product, by how many of its operands hold only zeros and ones.
_FP32_PASSES = {0: 4, 1: 2, 2: 1}


class _Matmul(Instruction):
    """What the two matmuls share: tiling of the array, accumulation, the float32 product."""

    dst: NkiTensor
    stationary: NkiTensor
    moving: NkiTensor
    accumulate: bool | None
    tile_position: tuple[int, ...]
    tile_size: tuple[int, ...]

    engines = (Engine.tensor,)
    stateful = True

    def normalise(self) -> None:
        self.tile_position = _pair(self.tile_position)
        self.tile_size = _pair(self.tile_size)

    def specialize(self, recorder: Any) -> None:
        if isinstance(self.dst, NkiTensor):
            self.accumulate = accumulation.resolve(recorder, self.dst, self.accumulate)

    @property
    def accumulates(self) -> bool:
        """True if it adds to what `dst` holds; settled when the kernel is specialized."""
        return bool(self.accumulate)

    @property
    def reads(self) -> list[NkiTensor]:
        """Every tensor it reads; `dst` only if it accumulates."""
        found = super().reads
        return found if self.accumulates else [t for t in found if t is not self.dst]

    @property
    def rows(self) -> int:
        """Rows of the array it may use."""
        return self.tile_size[0] if len(self.tile_size) == 2 else _ARRAY

    @property
    def columns(self) -> int:
        """Columns of the array it may use."""
        return self.tile_size[1] if len(self.tile_size) == 2 else _ARRAY

    def _accumulated(self, dst: Array, product: Fp32) -> Array:
        product = product.reshape(self.dst.shape)
        if self.accumulates:
            product += to_float32(dst, self.dst.dtype)
        return product


def _pair(value: Any) -> Any:
    return () if value is None else tuple(value) if isinstance(value, (list, tuple)) else value


def _tile_is_pair(i: Any, target: Target) -> str | None:
    for name in ("tile_position", "tile_size"):
        value = i.__dict__[name]
        is_pair = isinstance(value, tuple) and len(value) in (0, 2) and all(isinstance(v, int) for v in value)
        if not is_pair:
            return f"{name} is {value!r}, it must be (row, column)"
    if len(i.tile_position) != len(i.tile_size):
        given, missing = ("tile_position", "tile_size") if i.tile_position else ("tile_size", "tile_position")
        return f"{given} is {i.__dict__[given]}, but {missing} is not given"
    return None


def _tile_fits(column_tiling: bool) -> Any:
    def broken(i: Any, target: Target) -> str | None:
        if _tile_is_pair(i, target) is not None or not i.tile_size:
            return None
        for axis, start, size in zip(("row", "column"), i.tile_position, i.tile_size, strict=True):
            only = (_ARRAY,) if axis == "column" and not column_tiling else None
            allowed = only or tuple(s for s, since in _TILE_SIZES.items() if since <= target.nc_version)
            if size not in allowed:
                return f"the {axis} size of tile_size is {size}, it must be one of {allowed} on {target.name}"
            if start % size or not 0 <= start < _ARRAY:
                wanted = f"a multiple of {size} below {_ARRAY}"
                return f"the start {axis} of tile_position is {start}, it must be {wanted}"
        return None

    return broken


def _tiling(source: str, *, column_tiling: bool) -> tuple[Constraint, ...]:
    sizes = "128, 64 or (from NeuronCore-v3 on) 32"
    return (
        attribute_rule(
            "tile_position and tile_size are given together, each as (row, column).",
            _tile_is_pair,
            "write tile_position=(start_row, start_column), tile_size=(row_size, column_size), or neither",
            source=source,
        ),
        attribute_rule(
            f"A tile of the array has {sizes} rows{' and columns' if column_tiling else ''} and starts at a "
            "multiple of its size.",
            _tile_fits(column_tiling),
            "choose a tile size of this generation and a start that is a multiple of it",
            source=source,
        ),
    )


def _one_bank(i: Any, target: Target) -> str | None:
    dst = i.dst
    if target.nc_version >= 4 or not isinstance(dst, NkiTensor) or dst.dynamic is not None:
        return None
    storage, item = dst.storage, dst.dtype.itemsize
    start = dst.offset * item % storage.row_bytes + (storage.address[1] if storage.address else 0)
    steps = sum((n - 1) * s for n, s in zip(dst.shape[1:], dst.strides[1:], strict=True))
    last = start + (steps + 1) * item - 1
    bank = target.psum_bank_bytes
    if start // bank != last // bank:
        return f"dst spans bytes {start} to {last} of its partitions, a bank has {bank}"
    return None


ONE_BANK = Constraint(
    "NKI-V104",
    "Before NeuronCore-v4, a matmul writes to one PSUM bank of 2 KiB per partition.",
    _one_bank,
    "write tiles of at most 512 float32 elements that start at a multiple of 512",
    ARCHITECTURE,
)


def _moving_limit(i: Any, target: Target) -> int:
    if target.nc_version < 4:
        return target.moving_max
    return target.psum_partition_bytes // i.dst.dtype.itemsize


def _columns(tensor: NkiTensor, i: Any) -> int:
    """Free size of an operand, the two halves of a double row counted once."""
    return elements_per_partition(tensor) // (2 if _double_row(i) else 1)


def _free_limits(i: Any, target: Target) -> str | None:
    limits = {"stationary": i.columns, "moving": _moving_limit(i, target)}
    for name, limit in limits.items():
        got = _columns(i.__dict__[name], i)
        if got > limit:
            return f"{name} has {got} columns, at most {limit} are possible"
    return None


_FREE_LIMITS = Constraint(
    "NKI-V104",
    "stationary has at most 128 columns (or the tile's), moving at most 512, from NeuronCore-v4 on 4096 for "
    "a float32 and 8192 for a bfloat16 dst.",
    _free_limits,
    "split the columns of the operand over several matmuls",
    _STUB,
)


def _is_indirect(value: Any) -> bool:
    return isinstance(value, NkiTensor) and value.dynamic is not None and value.dynamic.kind == "indirect"


def _indirect_tile(i: Any, target: Target) -> str | None:
    for name in ("dst", "stationary", "moving"):
        if _is_indirect(i.__dict__[name]) and i.tile_position not in ((), (0, 0)):
            return f"{name} is an indirect view and tile_position is {i.tile_position}, it must be (0, 0)"
    return None


_INDIRECT_TILE = excludes(
    "Tensor indirection is not combined with tiling of the array.",
    _indirect_tile,
    "leave tile_position unset",
    source=_STUB,
)


# --- nc_matmul


def _double_row(i: Any) -> bool:
    return i.__dict__.get("perf_mode") is matmul_perf_mode.double_row


def _operand_dtypes(i: Any, target: Target) -> tuple[str, ...]:
    fp8 = (*_FP8, "float8_e4m3fn") if target.nc_version >= 4 else _FP8
    return fp8 if _double_row(i) else (*fp8, "bfloat16", "float16", *_WIDE)


def _dst_dtypes(i: Any, target: Target) -> tuple[str, ...]:
    if i.is_transpose and target.nc_version >= 3:
        return (i.stationary.dtype,)
    return ("float32", "bfloat16") if target.nc_version >= 4 else ("float32",)


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
        if _is_indirect(value) and value.dtype not in _INDIRECT_DTYPES:
            return f"{name} is an indirect view of {value.dtype}, it must be {', '.join(_INDIRECT_DTYPES)}"
    return None


def _generation_of_double_row(i: Any, target: Target) -> str | None:
    if _double_row(i) and target.nc_version < 3:
        return f"perf_mode is double_row, which exists since NeuronCore-v3; the target is {target.name}"
    return None


def _double_row_layout(i: Any, target: Target) -> str | None:
    if _double_row(i):
        for name in ("stationary", "moving"):
            shape = i.__dict__[name].shape
            if len(shape) < 3 or shape[1] != 2:
                return f"perf_mode is double_row and {name} is {list(shape)}, its dimension 1 must be 2"
    return None


def _double_row_alone(i: Any, target: Target) -> str | None:
    if _double_row(i):
        if i.columns != _ARRAY:
            return f"perf_mode is double_row and tile_size is {i.tile_size}, its column size must be {_ARRAY}"
        if i.is_transpose:
            return "perf_mode is double_row and is_transpose is True"
    return None


def _transposed_indirection(i: Any, target: Target) -> str | None:
    if i.is_transpose and _is_indirect(i.moving):
        return "is_transpose is True and moving is an indirect view"
    return None


@instruction
class nc_matmul(_Matmul):
    """dst = stationary.T @ moving on the tensor engine, or dst += stationary.T @ moving.

    The contraction runs along the partitions of `stationary` [K, M] and `moving`
    [K, N]; `dst` is [M, N] in PSUM. With ``perf_mode=double_row`` the operands are
    [K, 2, M] and [K, 2, N] of fp8, and both halves contract. Products are summed in
    float32. Free dimensions of more than one dimension count as one.

    With ``is_transpose=True`` and an identity as `moving`, `dst` is the transpose of
    `stationary`, bit for bit from NeuronCore-v3 on.
    """

    dst = read_write()
    stationary = read()
    moving = read()
    is_stationary_onezero = attribute(bool, False)
    is_moving_onezero = attribute(bool, False)
    is_transpose = attribute(bool, False)
    accumulate = attribute(bool, None)
    tile_position = attribute(tuple, ())
    tile_size = attribute(tuple, ())
    perf_mode = attribute(matmul_perf_mode, matmul_perf_mode.none)

    source = _STUB
    constraints = rules(
        memory("dst", PSUM, source=_STUB),
        memory("stationary", SBUF, source=_STUB),
        memory("moving", SBUF, source=_STUB),
        dtypes("stationary", _operand_dtypes, source=_STUB),
        dtypes("moving", _operand_dtypes, source=_STUB),
        Constraint(
            "NKI-V105",
            "float32 and tfloat32 go together, float8_e4m3 and float8_e4m3fn do not.",
            _mixed,
            "cast one operand to the data type of the other",
            _STUB,
        ),
        dtypes("dst", _dst_dtypes, source=_STUB),
        *_tiling(_STUB, column_tiling=True),
        partitions("stationary", "moving", limit=lambda i, target: int(i.rows), source=_STUB),
        same_partitions("stationary", "moving", source=_STUB),
        access("dst", "stationary", "moving"),
        _FREE_LIMITS,
        Constraint(
            "NKI-V103",
            "dst has as many partitions as stationary has columns.",
            lambda i, target: (
                f"dst has {i.dst.shape[0]} partitions, stationary has {_columns(i.stationary, i)} columns: "
                "they must be equal"
                if i.dst.shape[0] != _columns(i.stationary, i)
                else None
            ),
            "allocate dst as [stationary columns, moving columns]",
            _STUB,
        ),
        elements("dst", lambda i, target: _columns(i.moving, i), "one per column of moving", source=_STUB),
        ONE_BANK,
        Constraint(
            "NKI-V108",
            "Double row exists since NeuronCore-v3.",
            _generation_of_double_row,
            "leave perf_mode unset on this target",
            _STUB,
        ),
        Constraint(
            "NKI-V103",
            "With double row, dimension 1 of both operands is 2 and contracts too.",
            _double_row_layout,
            "shape the operands [K, 2, columns], for example with t.reshape((128, 2, n))",
            _STUB,
        ),
        excludes(
            "Double row is not combined with column tiling or transpose mode.",
            _double_row_alone,
            "leave perf_mode unset, or use the whole width of the array",
            source=_STUB,
        ),
        *indirection("dst", "stationary", "moving", gather="stationary", source=_STUB),
        Constraint(
            "NKI-V105",
            "Indirect operands have a 16-bit or 8-bit float type.",
            _indirect_dtypes,
            "cast the operand to bfloat16 first",
            _STUB,
        ),
        excludes(
            "In transpose mode moving is not an indirect view.",
            _transposed_indirection,
            "gather stationary instead",
            source=_STUB,
        ),
        _INDIRECT_TILE,
    )

    is_stationary_onezero: bool
    is_moving_onezero: bool
    is_transpose: bool
    perf_mode: matmul_perf_mode

    def normalise(self) -> None:
        super().normalise()
        if isinstance(self.perf_mode, str) and self.perf_mode in matmul_perf_mode.__members__:
            self.perf_mode = matmul_perf_mode[self.perf_mode]

    def specialize(self, recorder: Any) -> None:
        if self.is_transpose:  # what a transpose moves is never added to anything unless asked for
            self.accumulate = bool(self.accumulate)
        else:
            super().specialize(recorder)

    def compute(self, state: Any, dst: Array, stationary: Array, moving: Array) -> Array:
        """The product in float32, or the transposed elements as stored."""
        if self.is_transpose and state.target.nc_version >= 3 and not self.accumulates:
            return transposed(stationary, to_float32(moving, self.moving.dtype)).reshape(self.dst.shape)
        rows = stationary.shape[0] * (2 if _double_row(self) else 1)
        return self._accumulated(
            dst,
            np.matmul(
                _matrix(to_float32(stationary, self.stationary.dtype), rows).T,
                _matrix(to_float32(moving, self.moving.dtype), rows),
            ),
        )

    def cost(self, target: Target) -> Cost:
        wide = self.stationary.dtype == "float32" or self.moving.dtype == "float32"
        passes = _FP32_PASSES[self.is_stationary_onezero + self.is_moving_onezero] if wide else 1
        if wide and self.is_transpose and target.nc_version >= 3:
            passes = min(passes, 2)
        k, m, n = self.stationary.shape[0], _columns(self.stationary, self), _columns(self.moving, self)
        contracted = 2 * k if _double_row(self) else k
        flops = 0 if self.is_transpose else 2 * contracted * m * n
        return cost.matmul(target, n, passes, m, k, flops)


def _matrix(values: Fp32, rows: int) -> Fp32:
    """`values` as a contiguous matrix of `rows` rows, which is what BLAS is fast on."""
    return np.ascontiguousarray(values).reshape(rows, -1)


def transposed(data: Array, identity: Fp32) -> Array:
    """data.T with its columns in the order `identity` has them, without arithmetic.

    Args:
        data: [K, ...] as stored.
        identity: [K, N] with one 1 in each column, zeros elsewhere.

    Raises:
        NkiError: NKI-N001, `identity` is something else, which transpose mode does not multiply.
    """
    matrix = data.reshape(data.shape[0], -1)
    pattern = identity.reshape(data.shape[0], -1)
    order = pattern.argmax(axis=0)
    chosen = pattern[order, np.arange(len(order))]
    if np.count_nonzero(pattern) != len(order) or not (chosen == 1).all():
        raise error(
            "NKI-N001",
            "in transpose mode moving must have a single 1 in each column and zeros elsewhere; "
            f"the one given has {np.count_nonzero(pattern)} elements other than 0 in {len(order)} columns",
            help="pass an identity matrix as moving, or leave is_transpose unset for a real product",
        )
    return matrix[order].T
