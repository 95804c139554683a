"""Instructions of the vector engine that reduce onto its accumulator registers as they go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nki_isa.constraints.access_patterns import max_dims
from nki_isa.constraints.data_types import dtypes
from nki_isa.constraints.indirection import indirection
from nki_isa.constraints.observed import seen
from nki_isa.constraints.operands import STUB, elements_per_partition, rules
from nki_isa.constraints.operators import operator_in, operator_kind
from nki_isa.constraints.sizes import elements, same_partitions, same_shape
from nki_isa.constraints.tiles import tile
from nki_isa.constraints.values import column, excludes, unary_operand, value_in
from nki_isa.cost import Cost, streaming
from nki_isa.ir.fields import attribute, read, scalar, write
from nki_isa.ir.instruction import MakeTile, Order, Starts, instruction
from nki_isa.machine.enums import reduce_cmd as Reduce
from nki_isa.machine.operators import OPERATORS, Operator
from nki_isa.machine.target import Feature
from nki_isa.ops.base import (
    VECTOR_ENGINE,
    Accumulating,
    Array,
    combine,
    float32,
    pointers,
    rows,
    scalar_operand,
)
from nki_isa.rules import elementwise
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.machine.target import Target


def loads_with(initial: str, unset: Any) -> Any:
    """`initial` is given with ``load_reduce`` and with no other command (NKI-V113)."""

    def broken(instruction: Any, target: Any) -> str | None:
        value, command = instruction.__dict__[initial], instruction.__dict__["reduce_cmd"]
        given = isinstance(value, NkiTensor) or value != unset
        if command is not Reduce.load_reduce and given:
            shown = "a tile" if isinstance(value, NkiTensor) else repr(value)
            return (
                f"{initial} is {shown} and reduce_cmd is {getattr(command, 'name', command)}, not load_reduce"
            )
        if command is Reduce.load_reduce and value is None:
            return f"reduce_cmd is load_reduce and {initial} is None"
        return None

    return excludes(
        f"{initial} is given with reduce_cmd load_reduce only.",
        broken,
        f"pass reduce_cmd=nisa.reduce_cmd.load_reduce with {initial}, or neither",
    )


def _not_float(instruction: Any, target: Any) -> str | None:
    for name in ("data", "reduce_res"):
        value = instruction.__dict__[name]
        if isinstance(value, NkiTensor) and value.dtype.kind != "float":
            return f"{name} is {value.dtype}"
    return None


@instruction
class tensor_scalar_reduce(Accumulating):
    """dst = data op0 operand0, and each partition's results reduced onto the accumulator registers.

    Arithmetic in float32. `reduce_op` is add, multiply, max or min; `reduce_cmd` resets the
    registers first (the default), goes on from them, or loads `reduce_init`. `reduce_res`
    receives the registers, times -1 with `reduce_res_negate`.

    Shapes: `dst` and `data` have the same partitions and elements per partition; `operand0` and
    `reduce_init` are numbers or float32 [partitions, 1]; `reduce_res` is [partitions, 1].
    Errors: NKI-V101 to V105, V107 to V113, V115.
    Source: SDK page nki.isa.tensor_scalar_reduce.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (tensor_scalar_reduce)"
    order = Order.streamed
    dst: NkiTensor = write()
    data: NkiTensor = read()
    op0: Operator = attribute(Operator)
    operand0: Any | None = scalar()
    reduce_op: Operator = attribute(Operator)
    reduce_res: NkiTensor | None = write(None)
    reverse0: bool = attribute(bool, False)
    reduce_cmd: Reduce = attribute(Reduce, Reduce.reset_reduce)
    reduce_init: Any = scalar(None)
    reduce_res_negate: bool = attribute(bool, False)
    observed = (
        *Accumulating.observed,
        seen(
            elementwise.INTEGER_REDUCTION, _not_float, "copy it to float32, or from a float32 tile afterwards"
        ),
    )
    constraints = rules(
        *tile("dst", "data", "reduce_res"),
        *same_shape("data", "dst"),
        same_partitions("data", "reduce_res"),
        elements("reduce_res", 1, "one register per partition"),
        operator_kind("op0", "arithmetic"),
        operator_in("reduce_op", "add", "multiply", "maximum", "minimum"),
        column("operand0", "data"),
        column("reduce_init", "data"),
        unary_operand("op0", "operand0"),
        value_in("reverse0", (False,)),
        value_in("reduce_cmd", (Reduce.reset_reduce, Reduce.reduce, Reduce.load_reduce)),
        loads_with("reduce_init", None),
        *indirection("dst", "data", gather="data"),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "data": t(),
            "op0": "multiply",
            "operand0": 2.0,
            "reduce_op": "add",
            "reduce_res": t((128, 1)),
        }

    def compute(self, state: Any, data: Array, operand0: Any, reduce_init: Any) -> tuple[Array, Array]:
        value = rows(float32(data, self.data))
        result = combine(self.op0, value, scalar_operand(operand0, self.operand0))
        registers = self.accumulate(state, self.reduce_op, result, reduce_init)
        return result, -registers if self.reduce_res_negate else registers

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(
            target,
            self.on,
            elements_per_partition(self.dst),
            pointers=pointers(self.operand0),
            extra_cycles=self.reading_cycles(target),
        )


_CUMULATIVE_TYPES = (
    "bfloat16",
    "float16",
    "float32",
    "float8_e4m3",
    "float8_e4m3fn",
    "float8_e5m2",
    "uint8",
    "uint16",
    "int8",
    "int16",
)


@instruction
class tensor_scalar_cumulative(Accumulating):
    """dst[:, i] = (src[:, i] op0 imm0) op1 register, which then is the register: a running reduction.

    Float32 arithmetic along the flattened free dimension. The register starts at the identity
    of `op1` (`reset_reduce`), at `imm1` (`load_reduce`), or where it was (`reduce`). No cost is
    published; one element per cycle is assumed.

    Shapes: `dst` and `src` have the same partitions and elements per partition, and 8-bit,
    16-bit or float types; `imm0` and `imm1` are numbers or float32 [partitions, 1].
    Errors: NKI-V101 to V105, V107 to V113, V115.
    Source: SDK page nki.isa.tensor_scalar_cumulative.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (tensor_scalar_cumulative)"
    order = Order.streamed
    assumed = "one element per cycle"
    dst: NkiTensor = write()
    src: NkiTensor = read()
    op0: Operator = attribute(Operator)
    op1: Operator = attribute(Operator)
    imm0: Any = scalar()
    imm1: Any = scalar(None)
    reduce_cmd: Reduce = attribute(Reduce, Reduce.reset_reduce)
    constraints = rules(
        *tile("dst", "src"),
        *same_shape("src", "dst"),
        dtypes("dst", _CUMULATIVE_TYPES),
        dtypes("src", _CUMULATIVE_TYPES),
        operator_kind("op0", "arithmetic", unary=False),
        operator_in("op1", "add", "subtract", "multiply", "maximum", "minimum"),
        column("imm0", "src"),
        column("imm1", "src"),
        value_in("reduce_cmd", (Reduce.reset_reduce, Reduce.reduce, Reduce.load_reduce)),
        loads_with("imm1", None),
        *indirection("dst", "src", gather="src"),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "src": t(),
            "op0": "multiply",
            "op1": "add",
            "imm0": 2.0,
        }

    def compute(self, state: Any, src: Array, imm0: Any, imm1: Any) -> Array:
        values = combine(self.op0, rows(float32(src, self.src)), scalar_operand(imm0, self.imm0))
        lanes = state.accumulators[self.on][: len(values)]
        if self.reduce_cmd is Reduce.reset_reduce:
            lanes[:] = self.op1.identity
        elif self.reduce_cmd is Reduce.load_reduce:
            lanes[:] = np.reshape(imm1, -1)
        op1: Any = self.op1.function
        columns = np.ascontiguousarray(values.T)
        result = np.empty_like(columns)
        running = lanes
        with np.errstate(all="ignore"):
            for value, out in zip(columns, result, strict=True):
                op1(value, running, out=out)
                running = out
        lanes[:] = running
        return result.T

    def cost(self, target: Target) -> Cost:
        n = elements_per_partition(self.dst)
        return streaming.elementwise(target, self.on, n, pointers=pointers(self.imm0))


_EXPONENTIAL_DST = (
    "float8_e4m3",
    "float8_e5m2",
    "float16",
    "bfloat16",
    "float32",
    "tfloat32",
    "int8",
    "int16",
    "int32",
    "uint8",
    "uint16",
)
_EXPONENTIAL_SRC = (*(d for d in _EXPONENTIAL_DST if d != "tfloat32"), "uint32")
_EXPONENTIAL_SUM = ("float8_e4m3", "float8_e5m2", "float16", "bfloat16", "float32", "tfloat32")


@instruction
class exponential(Accumulating):
    """dst = exp(src - max_value) on the vector engine, with an optional sum onto its accumulator registers.

    Computed in float32. `reduce_cmd` resets the registers to 0, goes on from them, or loads
    `reduce_init`; with ``idle`` hardware may change them, here they stay. `reduce_res` receives
    the registers.

    Shapes: `dst` and `src` have the same partitions and elements per partition and up to three
    free dimensions; `max_value` and `reduce_init` are numbers or float32 [partitions, 1];
    `reduce_res` is [partitions, 1].
    Errors: NKI-V101 to V105, V108 to V113, V115.
    Source: SDK page nki.isa.exponential.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    needs = Feature.exponential
    source = f"{STUB} (exponential)"
    order = Order.streamed
    idle_spoils = True
    dst: NkiTensor = write()
    src: NkiTensor = read()
    max_value: Any = scalar(0.0)
    reduce_res: NkiTensor | None = write(None)
    reduce_cmd: Reduce = attribute(Reduce, Reduce.idle)
    reduce_init: Any = scalar(0.0)
    constraints = rules(
        *tile("dst", "src", "reduce_res"),
        max_dims("dst", "src", limit=3, source=STUB),
        *same_shape("src", "dst"),
        same_partitions("src", "reduce_res"),
        elements("reduce_res", 1, "one register per partition"),
        dtypes("dst", _EXPONENTIAL_DST),
        dtypes("src", _EXPONENTIAL_SRC),
        dtypes("reduce_res", _EXPONENTIAL_SUM),
        column("max_value", "src"),
        column("reduce_init", "src"),
        value_in("reduce_cmd", (Reduce.idle, Reduce.reset_reduce, Reduce.reduce, Reduce.load_reduce)),
        loads_with("reduce_init", 0.0),
        *indirection("dst", "src", gather="src"),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "src": t(),
            "max_value": t((128, 1)),
            "reduce_res": t((128, 1)),
            "reduce_cmd": Reduce.reset_reduce,
        }

    def compute(self, state: Any, src: Array, max_value: Any, reduce_init: Any) -> tuple[Array, Array]:
        value = rows(float32(src, self.src))
        with np.errstate(all="ignore"):
            result = np.exp(value - scalar_operand(max_value, self.max_value))
        return result, self.accumulate(state, OPERATORS["add"], result, reduce_init)

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(
            target,
            self.on,
            elements_per_partition(self.dst),
            rate="vector_exponential_rate",
            pointers=pointers(self.max_value),
            extra_cycles=self.reading_cycles(target),
        )
