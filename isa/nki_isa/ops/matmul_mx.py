"""Matmuls of MX operands: four values to an element, a power of two for each group of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.constraints.accumulation import Accumulate
from nki_isa.constraints.data_types import dtypes
from nki_isa.constraints.guard import tensors_only
from nki_isa.constraints.indirection import indirection, is_indirect
from nki_isa.constraints.memories import memory
from nki_isa.constraints.operands import PSUM, SBUF, elements_per_partition, listed, rules, shape_of, start_of
from nki_isa.constraints.sizes import elements_multiple, partitions, same_partitions
from nki_isa.constraints.systolic import tiling, untiled_indirection, widths
from nki_isa.constraints.tiles import access
from nki_isa.constraints.values import excludes
from nki_isa.cost import Cost, matmuls
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, read, read_write
from nki_isa.ir.instruction import MakeTile, Order, instruction
from nki_isa.machine.dtypes import DTYPES, to_float32
from nki_isa.machine.target import Feature, Target
from nki_isa.ops.matmul_base import ACCUMULATE, ROWS, Array, Fp32, Matmul
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor

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
class nc_matmul_mx(Matmul):
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
        partitions("stationary", "moving", limit=lambda i, target: int(i.rows), shown=ROWS, source=_MX),
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
        blocks = matmuls.tile_blocks(self.tile_position, self.tile_size)
        return matmuls.matmul(target, n, 1, m, k, 2 * 4 * k * m * n, blocks=blocks)


def dequantized(data: Array, tensor: NkiTensor, scale: Array) -> Fp32:
    """The values of an MX operand as a matrix of (4 x partitions) rows by columns, in float32."""
    count = data.shape[0]
    values = to_float32(data, tensor.dtype).reshape(count, -1, 4)
    e8m0 = DTYPES["float8_e8m0fnu"]
    factors = to_float32(scale.reshape(scale.shape[0], -1)[scale_rows(count)].view(e8m0.numpy), e8m0)
    return (values * factors[:, :, None]).transpose(0, 2, 1).reshape(4 * count, -1)
