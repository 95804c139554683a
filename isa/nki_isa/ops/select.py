"""Instructions of the vector engine that choose between values, and may reduce what they chose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nki_isa.constraints.data_types import dtypes, not_dtypes, same_dtype
from nki_isa.constraints.indirection import indirection, no_indirection
from nki_isa.constraints.memories import not_both_psum
from nki_isa.constraints.operands import STUB, elements_per_partition, rules
from nki_isa.constraints.operators import operator_in
from nki_isa.constraints.sizes import elements, same_partitions, same_shape
from nki_isa.constraints.tiles import tile
from nki_isa.constraints.values import attribute_rule, column, value_in
from nki_isa.cost import Cost, streaming
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, read, read_write, scalar, write
from nki_isa.ir.instruction import MakeTile, Order, Starts, instruction
from nki_isa.machine.dtypes import cast
from nki_isa.machine.enums import reduce_cmd as Reduce
from nki_isa.machine.operators import OPERATORS, Operator
from nki_isa.machine.target import Feature
from nki_isa.ops.base import (
    VECTOR_ENGINE,
    Accumulating,
    Array,
    ComputeInstruction,
    float32,
    pointers,
    rows,
    scalar_operand,
)
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

_MAXIMUM = OPERATORS["maximum"]
FLOAT_TYPES = ("float32", "tfloat32", "bfloat16", "float16", "float8_e4m3", "float8_e4m3fn", "float8_e5m2")
FP32_MIN = float(np.finfo(np.float32).min)


def _packed_number(instruction: Any, target: Any) -> str | None:
    dst, src = instruction.__dict__["dst"], instruction.__dict__["src"]
    if isinstance(dst, NkiTensor) and dst.dtype.lanes > 1 and not isinstance(src, NkiTensor):
        return f"dst is {dst.dtype} and src is the number {src!r}"
    return None


@instruction
class tensor_copy_predicated(ComputeInstruction):
    """dst = src where `predicate` is not 0 (is 0, with `reverse_pred`); elsewhere dst keeps its values.

    `src` is a tile of the data type of `dst`, or a number.

    Shapes: `dst`, `predicate` and a tile `src` have the same partitions and elements per
    partition; `predicate` is uint8, uint16 or uint32; at most one of `src` and `predicate` is
    in PSUM.
    Errors: NKI-V101 to V105, V108, V110, V112, V115.
    Source: SDK page nki.isa.tensor_copy_predicated.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (tensor_copy_predicated)"
    order = Order.streamed
    modes = (streaming.TWO_INPUTS_FP32,)
    dst: NkiTensor = read_write()
    src: Any = scalar()
    predicate: NkiTensor = read()
    reverse_pred: bool = attribute(bool, False)
    constraints = rules(
        *tile("dst", "src", "predicate", packed=True),
        *same_shape("dst", "src", "predicate"),
        not_both_psum("src", "predicate"),
        dtypes("predicate", ("uint8", "uint16", "uint32")),
        same_dtype("dst", "src"),
        Constraint(
            "NKI-V105",
            "A number is copied to unpacked data types only.",
            _packed_number,
            "pass src as a tile of the packed data type",
            STUB,
        ),
        *indirection("dst", "predicate", gather="predicate"),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "src": t(), "predicate": t(dtype="uint8")}

    def compute(self, dst: Array, src: Any, predicate: Array) -> Array:
        chosen = (predicate != 0).reshape(dst.shape) ^ bool(self.reverse_pred)
        if isinstance(src, np.ndarray):
            return np.where(chosen, src.reshape(dst.shape), dst)
        return np.where(chosen, cast(np.array([src], np.float32), self.dst.dtype), dst)

    def cost(self, target: Target) -> Cost:
        tiles = [t for t in (self.dst, self.src, self.predicate) if isinstance(t, NkiTensor)]
        rate = streaming.rate_of(target, self.modes, *tiles) if len(tiles) == 3 else ""
        return streaming.elementwise(target, self.on, elements_per_partition(self.dst), rate=rate)


@instruction
class select_reduce(Accumulating):
    """dst = on_true where `predicate` is not 0 (is 0, with `reverse_pred`), else `on_false`; then a maximum.

    Values pass through float32. `reduce_cmd` can take the maximum of each partition's results
    onto the vector engine's accumulator registers; `reduce_res` receives the registers. With
    ``idle`` hardware may change the registers; here they stay.

    Shapes: `dst`, `predicate` and `on_true` have the same partitions and elements per
    partition; `on_false` is a number or [partitions, 1]; `reduce_res` is [partitions, 1].
    Errors: NKI-V101 to V105, V107 to V112, V115.
    Source: SDK page nki.isa.select_reduce.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (select_reduce)"
    order = Order.streamed
    idle_spoils = True
    dst: NkiTensor = write()
    predicate: NkiTensor = read()
    on_true: NkiTensor = read()
    on_false: Any = scalar()
    reduce_res: NkiTensor | None = write(None)
    reduce_cmd: Reduce = attribute(Reduce, Reduce.idle)
    reduce_op: Operator = attribute(Operator, _MAXIMUM)
    reverse_pred: bool = attribute(bool, False)
    constraints = rules(
        *tile("dst", "predicate", "on_true", "reduce_res"),
        *same_shape("on_true", "predicate", "dst"),
        not_both_psum("on_true", "predicate"),
        dtypes("predicate", ("int8", "uint8", "int16", "uint16")),
        not_dtypes("on_true", "tfloat32", "int32", "uint32"),
        column("on_false", "on_true", fp32=False),
        same_partitions("on_true", "reduce_res"),
        elements("reduce_res", 1, "one register per partition"),
        dtypes("reduce_res", FLOAT_TYPES),
        value_in("reduce_cmd", (Reduce.idle, Reduce.reset_reduce, Reduce.reduce)),
        operator_in("reduce_op", "maximum"),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "predicate": t(dtype="uint8"),
            "on_true": t(),
            "on_false": 0.0,
            "reduce_res": t((128, 1)),
            "reduce_cmd": Reduce.reset_reduce,
        }

    def compute(self, state: Any, predicate: Array, on_true: Array, on_false: Any) -> tuple[Array, Array]:
        chosen = rows(predicate != 0) ^ bool(self.reverse_pred)
        otherwise = scalar_operand(on_false, self.on_false)
        result = np.where(chosen, rows(float32(on_true, self.on_true)), otherwise)
        return result, self.accumulate(state, self.reduce_op, result)

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(
            target,
            self.on,
            elements_per_partition(self.dst),
            pointers=pointers(self.on_false),
            extra_cycles=self.reading_cycles(target),
        )


_BOUND_OPS = ("equal", "less", "less_equal", "greater", "greater_equal")


def _fp32_min(instruction: Any, target: Any) -> str | None:
    value = instruction.__dict__["on_false_value"]
    if isinstance(value, (int, float, np.floating)) and np.float32(value) == np.float32(FP32_MIN):
        return None
    return f"on_false_value is {value!r}, it must be {FP32_MIN!r}"


def _exact_index(instruction: Any, target: Any) -> str | None:
    start, data = instruction.__dict__["range_start"], instruction.__dict__["on_true_tile"]
    if not isinstance(start, (int, np.integer)):
        return f"range_start is {start!r}, it must be an int"
    if isinstance(data, NkiTensor):
        last = start + elements_per_partition(data) - 1
        if start < -(2**24) or last > 2**24:
            return f"indices run from {start} to {last}, float32 counts exactly up to {2**24}"
    return None


@instruction
class range_select(Accumulating):
    """dst = on_true_tile where an element's index passes both comparisons, else FP32_MIN; then a maximum.

    The index of an element is `range_start` plus its position in the flattened free
    dimension; it must satisfy ``index comp_op0 bound0`` and ``index comp_op1 bound1``, in
    float32. `reduce_cmd` takes the maximum of each partition's results onto the accumulator
    registers of the vector engine; `reduce_res` receives the registers. FP32_MIN becomes
    -infinity in a `dst` of a narrower type.

    Shapes: `dst` and `on_true_tile` have the same partitions and elements per partition; the
    bounds are float32 [partitions, 1], `reduce_res` is [partitions, 1]; `on_true_tile` is a
    float type.
    Errors: NKI-V101 to V105, V107 to V112, V115.
    Source: SDK page nki.isa.range_select.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    needs = Feature.selection_by_bounds
    source = f"{STUB} (range_select)"
    order = Order.streamed
    dst: NkiTensor = write()
    on_true_tile: NkiTensor = read()
    comp_op0: Operator = attribute(Operator)
    comp_op1: Operator = attribute(Operator)
    bound0: NkiTensor = read()
    bound1: NkiTensor = read()
    reduce_cmd: Reduce = attribute(Reduce, Reduce.reset_reduce)
    reduce_res: NkiTensor | None = write(None)
    reduce_op: Operator = attribute(Operator, _MAXIMUM)
    range_start: int = attribute(int, 0)
    on_false_value: float = attribute(float, FP32_MIN)
    constraints = rules(
        *tile("dst", "on_true_tile", "bound0", "bound1", "reduce_res"),
        *same_shape("on_true_tile", "dst"),
        same_partitions("on_true_tile", "bound0", "bound1", "reduce_res"),
        elements("bound0", 1, "one bound per partition"),
        elements("bound1", 1, "one bound per partition"),
        elements("reduce_res", 1, "one register per partition"),
        dtypes("on_true_tile", FLOAT_TYPES),
        dtypes("bound0", ("float32",)),
        dtypes("bound1", ("float32",)),
        operator_in("comp_op0", *_BOUND_OPS),
        operator_in("comp_op1", *_BOUND_OPS),
        operator_in("reduce_op", "maximum"),
        value_in("reduce_cmd", (Reduce.reset_reduce, Reduce.reduce, Reduce.reset, Reduce.idle)),
        attribute_rule(f"on_false_value is {FP32_MIN!r}.", _fp32_min, "leave on_false_value unset"),
        attribute_rule(
            "Indices are exact in float32.", _exact_index, "shift the bounds instead of range_start"
        ),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "on_true_tile": t(),
            "comp_op0": "greater_equal",
            "comp_op1": "less",
            "bound0": t((128, 1)),
            "bound1": t((128, 1)),
            "reduce_res": t((128, 1)),
        }

    def compute(self, state: Any, on_true_tile: Array, bound0: Array, bound1: Array) -> tuple[Array, Array]:
        values = rows(float32(on_true_tile, self.on_true_tile))
        index = np.arange(values.shape[1], dtype=np.float32) + np.float32(self.range_start)
        inside = (self.comp_op0.apply(index, rows(bound0)) != 0) & (
            self.comp_op1.apply(index, rows(bound1)) != 0
        )
        result = np.where(inside, values, np.float32(FP32_MIN))
        return result, self.accumulate(state, self.reduce_op, result)

    def cost(self, target: Target) -> Cost:
        extra = self.reading_cycles(target)
        return streaming.elementwise(
            target, self.on, elements_per_partition(self.dst), pointers=1, extra_cycles=extra
        )
