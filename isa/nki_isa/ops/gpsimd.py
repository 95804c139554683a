"""Instructions of the gpsimd engine that generate or select by position."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nki_isa.constraints.indirection import no_indirection
from nki_isa.constraints.memories import memory
from nki_isa.constraints.observed import seen
from nki_isa.constraints.operands import SBUF, STUB, elements_per_partition, rules, shape_of
from nki_isa.constraints.operators import operator_in
from nki_isa.constraints.sizes import elements, same_shape
from nki_isa.constraints.tiles import tile
from nki_isa.constraints.values import attribute_rule
from nki_isa.cost import Cost, streaming
from nki_isa.ir.fields import attribute, read, register_read, write
from nki_isa.ir.instruction import MakeTile, Order, instruction
from nki_isa.machine.dtypes import cast
from nki_isa.machine.operators import OPERATORS, Operator
from nki_isa.ops.base import GPSIMD_ENGINE, Array, ComputeInstruction, float32
from nki_isa.rules import elementwise
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

_DIMENSIONS = 4

_USUAL_DIMS = 3  # of the tiles of affine_select, the partitions among them


def _bad_pattern(instruction: Any, target: Any) -> str | None:
    pattern = instruction.__dict__["pattern"]
    if not 1 <= len(pattern) <= _DIMENSIONS:
        return f"pattern is {pattern!r}, it must be a list of 1 to {_DIMENSIONS} pairs [step, count]"
    empty = next((pair for pair in pattern if pair[1] < 1), None)
    return f"pattern has the entry {list(empty)}, its count must be at least 1" if empty else None


def _positions(instruction: Any, target: Any) -> int | None:
    if _bad_pattern(instruction, target) is not None:
        return None
    return math.prod(count for _, count in instruction.pattern)


_PATTERN = (
    attribute_rule(
        "pattern is a list of up to four pairs [step, count].",
        _bad_pattern,
        "pass pattern=[[step, count], ...]",
    ),
    elements("dst", _positions, "an element for each position of the pattern"),
)


class _Affine(ComputeInstruction):
    """Computes offset + partition * channel_multiplier + sum(index * step) for every element."""

    dst: NkiTensor
    pattern: tuple[tuple[int, int], ...]
    channel_multiplier: int

    def affine(self, offset: int) -> Array:
        """The values as int32, partitions by positions; they wrap at 32 bits."""
        value = np.asarray(int(offset), np.int64)
        for step, count in self.pattern:
            value = np.add.outer(value, np.arange(count, dtype=np.int64) * step)
        lanes = np.arange(self.dst.shape[0], dtype=np.int64) * int(self.channel_multiplier)
        return np.add.outer(lanes, value.reshape(-1)).astype(np.int32)

    def cost(self, target: Target) -> Cost:
        return streaming.gpsimd(target, elements_per_partition(self.dst))


@instruction
class iota(_Affine):
    """dst[p, w, z, y, x] = offset + p * channel_multiplier + w * step_w + ... + x * step_x.

    The values are 32-bit integers, converted to the data type of `dst` (in SBUF). `offset` is
    an int or a register.

    Shapes: the counts of `pattern` multiply to the elements per partition of `dst`.
    Errors: NKI-V100 to V106, V108, V110 to V112, V115.
    Source: SDK page nki.isa.iota.
    """

    engines = (GPSIMD_ENGINE,)
    source = f"{STUB} (iota)"
    order = Order.streamed
    dst: NkiTensor = write()
    pattern: tuple[tuple[int, int], ...] = attribute(tuple)
    offset: Any = register_read(0)
    channel_multiplier: int = attribute(int, 0)
    constraints = rules(*tile("dst"), memory("dst", SBUF), *_PATTERN, no_indirection())

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "pattern": [[1, 128]]}

    def compute(self, offset: int) -> Array:
        return self.affine(offset)


_COMPARISONS = ("equal", "not_equal", "greater_equal", "greater", "less_equal", "less")


def _many_dims(instruction: Any, target: Any) -> str | None:
    for name in ("dst", "on_true_tile"):
        value = instruction.__dict__[name]
        if isinstance(value, NkiTensor) and value.ndim > _USUAL_DIMS:
            return f"{name} is {shape_of(value)}, of {value.ndim} dimensions"
    return None


@instruction
class affine_select(_Affine):
    """dst = on_true_tile where cmp_op(affine value, 0) holds, else `on_false_value`.

    The affine value of an element is that of :class:`iota`. Selected elements keep their bits
    if `dst` has the data type of `on_true_tile`, else they pass through float32;
    `on_false_value` is a float32.

    Shapes: `dst` and `on_true_tile` have the same partitions and elements per partition, which
    are the positions of `pattern`; both are in SBUF.
    Errors: NKI-V100 to V108, V110 to V112, V115.
    Source: SDK page nki.isa.affine_select.
    """

    engines = (GPSIMD_ENGINE,)
    source = f"{STUB} (affine_select)"
    order = Order.streamed
    dst: NkiTensor = write()
    pattern: tuple[tuple[int, int], ...] = attribute(tuple)
    channel_multiplier: int = attribute(int)
    on_true_tile: NkiTensor = read()
    on_false_value: float = attribute(float)
    cmp_op: Operator = attribute(Operator, OPERATORS["equal"])
    offset: Any = register_read(0)
    observed = (
        *_Affine.observed,
        seen(elementwise.AFFINE_SELECT_DIMS, _many_dims, "reshape both tiles to [partitions, elements]"),
    )
    constraints = rules(
        *tile("dst", "on_true_tile"),
        memory("dst", "on_true_tile", SBUF),
        *same_shape("on_true_tile", "dst"),
        *_PATTERN,
        operator_in("cmp_op", *_COMPARISONS),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "pattern": [[1, 128]],
            "channel_multiplier": 1,
            "on_true_tile": t(),
            "on_false_value": 0.0,
            "cmp_op": "greater_equal",
        }

    def compute(self, on_true_tile: Array, offset: int) -> Array:
        chosen = self.cmp_op.apply(self.affine(offset), np.int32(0)).astype(np.bool_)
        values = on_true_tile.reshape(chosen.shape)
        otherwise = np.array([self.on_false_value], np.float32)
        if self.on_true_tile.dtype == self.dst.dtype:
            return np.where(chosen, values, cast(otherwise, self.dst.dtype))
        return np.where(chosen, float32(values, self.on_true_tile), otherwise)
