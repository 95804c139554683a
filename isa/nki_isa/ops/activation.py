"""Instructions of the scalar engine: an activation function of a scaled and shifted input."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from nki_isa.constraints.data_types import not_dtypes
from nki_isa.constraints.indirection import indirection
from nki_isa.constraints.observed import COMPUTE, seen
from nki_isa.constraints.operands import STUB, elements_per_partition, in_psum, rules
from nki_isa.constraints.operators import operator_in, operator_kind
from nki_isa.constraints.sizes import elements, same_elements_per_partition, same_partitions, same_shape
from nki_isa.constraints.tiles import tile
from nki_isa.constraints.values import column, excludes, scalar_rule, value_in
from nki_isa.cost import Cost, streaming
from nki_isa.ir.fields import attribute, read, scalar, write
from nki_isa.ir.instruction import MakeTile, Order, Starts, instruction
from nki_isa.machine.enums import reduce_cmd as Reduce
from nki_isa.machine.operators import OPERATORS, Operator
from nki_isa.machine.target import Feature, Target
from nki_isa.ops.base import SCALAR_ENGINE, Accumulating, Array, combine, float32, rows, scalar_operand
from nki_isa.rules import elementwise
from nki_isa.tensor.tensor import NkiTensor

_ADD = OPERATORS["add"]


def _bias_is_vector(instruction: Any, target: Any) -> str | None:
    bias = instruction.__dict__["bias"]
    if instruction.__dict__.get("reduces_range"):
        return None
    copies = getattr(instruction.__dict__["op"], "name", "") == "copy"  # takes a number everywhere
    if (
        not isinstance(bias, NkiTensor | None)
        and not copies
        and Feature.number_as_bias not in target.features
    ):
        return f"bias is the number {bias!r}; on {target.name} it must be a tile of shape [partitions, 1]"
    return None


def _no_reciprocal_bias(instruction: Any, target: Any) -> str | None:
    op, bias = instruction.__dict__["op"], instruction.__dict__["bias"]
    given = bias is not None and isinstance(op, Operator) and op.name == "reciprocal"
    if given and Feature.number_as_bias not in target.features:
        return f"op is reciprocal and bias is given, which {target.name} does not support"
    return None


def _copy_bias(instruction: Any, target: Any) -> str | None:
    op, bias = instruction.__dict__["op"], instruction.__dict__["bias"]
    if isinstance(bias, NkiTensor) and isinstance(op, Operator) and op.name == "copy":
        return f"op is copy and bias is the tile {bias.name}"
    return None


_OBSERVED = (
    *COMPUTE,
    seen(
        elementwise.COPY_BIAS_TILE,
        _copy_bias,
        "pass the bias as a number, or add the tile with nisa.tensor_scalar",
    ),
)


def _reduces_with_op(instruction: Any, target: Any) -> str | None:
    values = instruction.__dict__
    if values["reduce_op"] is None and values["reduce_cmd"] in (Reduce.reduce, Reduce.reset_reduce):
        return f"reduce_cmd is {values['reduce_cmd'].name} and reduce_op is None"
    return None


_COMMON = (
    *tile("dst", "data", "reduce_res"),
    same_partitions("data", "dst", "reduce_res"),
    same_elements_per_partition("data", "dst"),
    elements("reduce_res", 1, "one register per partition"),
    operator_kind("op", "activation", source="nki/api/nki.api.shared (activation functions)"),
    column("scale", "data"),
    column("bias", "data", fp32=False),
    not_dtypes("bias", "tfloat32"),
    scalar_rule(
        "On NeuronCore-v2 a bias is a tile of one element per partition, but that of copy.",
        _bias_is_vector,
        "fill a [partitions, 1] tile with nisa.memset and pass that",
        row=elementwise.NUMBER_AS_BIAS,
    ),
    excludes(
        "On NeuronCore-v2 reciprocal takes no bias.",
        _no_reciprocal_bias,
        "add the bias with nisa.tensor_scalar first",
        source="nki/api/nki.api.shared (engine selection)",
    ),
    *indirection("dst", "data", gather="data", on_scalar=True),
)


def _applied(instruction: Any, state: Any, value: Array) -> Array:
    """The function of `value`; whoever watches arguments is told those of a function with a valid range."""
    op: Operator = instruction.op
    if op.domain and state.arguments is not None:
        state.arguments(instruction, op, value)
    return op.apply(value)


class _Activation(Accumulating):
    """op(data * scale + bias), with an optional sum over the free dimension."""

    op: Operator
    dst: NkiTensor
    data: NkiTensor
    bias: Any
    scale: Any
    reduce_res: NkiTensor | None

    observed = _OBSERVED

    def compute(self, state: Any, data: Array, bias: Any, scale: Any) -> tuple[Array, Array]:
        value = float32(data, self.data)
        if self.__dict__.get("reduces_range"):
            result = _sine(value, self.bias or 0.0)
            return result, self.accumulate(state, _ADD, rows(result))
        with np.errstate(all="ignore"):
            if isinstance(self.scale, NkiTensor) or self.scale != 1:  # times 1 is nothing but a copy
                value = value * scalar_operand(scale, self.scale, data.shape)
            if bias is not None:
                value = value + scalar_operand(bias, self.bias, data.shape)
        result = _applied(self, state, value)
        return result, self.accumulate(state, _ADD, rows(result))

    def cost(self, target: Target) -> Cost:
        return streaming.activation(
            target,
            elements_per_partition(self.dst),
            table=self.op.table,
            pointer_bias=isinstance(self.bias, NkiTensor) or isinstance(self.scale, NkiTensor),
            psum_source=in_psum(self.data),
            extra_cycles=self.reading_cycles(target) + self._reduction_cycles,
        )

    @property
    def _reduction_cycles(self) -> float:
        """Cycles to reduce the range: assumed a product, a rounding and a difference more."""
        return 3.0 * elements_per_partition(self.dst) if self.__dict__.get("reduces_range") else 0.0


def _sine(values: Array, bias: float) -> Array:
    """The sine of the exact sum ``values + bias``, however many digits of pi its reduction takes."""
    wide = values.astype(np.float64)
    with np.errstate(all="ignore"):
        return (np.sin(wide) * math.cos(bias) + np.cos(wide) * math.sin(bias)).astype(np.float32)


@instruction
class activation(_Activation):
    """dst = op(data * scale + bias) on the scalar engine, in float32.

    `reduce_cmd` can sum the results of each partition onto the engine's accumulator
    registers (`reset` clears them, `reduce` adds, `reset_reduce` clears and adds, `idle`
    leaves them), and `reduce_res` receives the registers. prelu has slope 0 here: only
    activate2 has a parameter for it.

    Shapes: `dst` and `data` have the same partitions and elements per partition; `scale` and
    `bias` are numbers or [partitions, 1] (on NeuronCore-v2 a bias is always a tile), `scale`
    float32, `bias` anything but tfloat32; `reduce_res` is [partitions, 1].
    Errors: NKI-V101 to V113, V115.
    Source: SDK page nki.isa.activation.
    """

    engines = (SCALAR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (activation)"
    order = Order.streamed
    dst: NkiTensor = write()
    op: Operator = attribute(Operator)
    data: NkiTensor = read()
    bias: Any = scalar(None)
    scale: Any = scalar(1.0)
    reduce_op: Operator | None = attribute(Operator, None)
    reduce_res: NkiTensor | None = write(None)
    reduce_cmd: Reduce = attribute(Reduce, Reduce.idle)
    reduces_range: bool = attribute(bool, False, public=False)  # sin of any float32, for nki.language
    constraints = rules(
        *_COMMON,
        operator_in("reduce_op", "add"),
        value_in("reduce_cmd", (Reduce.idle, Reduce.reset, Reduce.reduce, Reduce.reset_reduce)),
        excludes("A reduction has a reduce_op.", _reduces_with_op, "pass reduce_op=nl.add"),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "op": "exp", "data": t(), "bias": t((128, 1)), "scale": 0.5}


@instruction
class activation_reduce(_Activation):
    """dst = op(data * scale + bias), reduce_res = the sum of each partition's results.

    The same as :class:`activation` with ``reduce_cmd=reset_reduce``; kept by the SDK for
    older kernels. `reduce_op` must be add.

    Shapes: as :class:`activation`; `reduce_res` is [partitions, 1].
    Errors: as :class:`activation`, NKI-V101 to V110, V112, V113, V115.
    Source: SDK page nki.isa.activation_reduce.
    """

    engines = (SCALAR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (activation_reduce)"
    order = Order.streamed
    dst: NkiTensor = write()
    op: Operator = attribute(Operator)
    data: NkiTensor = read()
    reduce_op: Operator = attribute(Operator)
    reduce_res: NkiTensor | None = write()
    bias: Any = scalar(None)
    scale: Any = scalar(1.0)
    constraints = rules(*_COMMON, operator_in("reduce_op", "add"))
    command: ClassVar[Reduce] = Reduce.reset_reduce

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "op": "exp",
            "data": t(),
            "reduce_op": "add",
            "reduce_res": t((128, 1)),
        }


_PAIRS = (
    ("multiply", "add"),
    ("multiply", "subtract"),
    ("multiply", "bypass"),
    ("add", "bypass"),
    ("subtract", "bypass"),
    ("bypass", "bypass"),
)


def _pair(instruction: Any, target: Any) -> str | None:
    names = tuple(getattr(instruction.__dict__[n], "name", None) for n in ("op0", "op1"))
    return None if names in _PAIRS else f"op0 is {names[0]} and op1 is {names[1]}"


def _reverse(instruction: Any, target: Any) -> str | None:
    values = instruction.__dict__
    for flag, op in (("reverse0", "op0"), ("reverse1", "op1")):
        if values[flag] and isinstance(values[op], Operator) and values[op].name == "bypass":
            return f"{flag} is True and {op} is bypass"
    return None


def _same_immediates(instruction: Any, target: Any) -> str | None:
    imm0, imm1 = instruction.__dict__["imm0"], instruction.__dict__["imm1"]
    if isinstance(imm0, NkiTensor) and isinstance(imm1, NkiTensor) and imm0.dtype != imm1.dtype:
        return f"imm0 is {imm0.dtype} and imm1 is {imm1.dtype}: they must be equal"
    return None


@instruction
class activate2(Accumulating):
    """dst = op((data op0 imm0) op1 imm1) on the scalar engine, in float32, with an optional reduction.

    `op0` and `op1` are one of six pairs: multiply with add, subtract or bypass; add, subtract
    or bypass with bypass. `reverse0` and `reverse1` put the immediate on the left. `relu_param`
    is the slope of prelu. `reduce_cmd` and `reduce_res` work as in :class:`activation`, with
    add, maximum, minimum, abs_max or abs_min; resetting sets the identity of `reduce_op`.

    Shapes: `dst` and `data` have the same partitions and elements per partition; `imm0`, `imm1`
    and `relu_param` are numbers or [partitions, 1]; `reduce_res` is [partitions, 1].
    Errors: NKI-V101 to V105, V107 to V113, V115.
    Source: SDK page nki.isa.activate2. No cost is published: that of activation is assumed.
    """

    engines = (SCALAR_ENGINE,)
    starts = Starts.lanes
    needs = Feature.two_operators
    source = f"{STUB} (activate2)"
    order = Order.streamed
    assumed = "the time of activation"
    dst: NkiTensor = write()
    op: Operator = attribute(Operator)
    data: NkiTensor = read()
    imm0: Any = scalar()
    imm1: Any = scalar()
    op0: Operator = attribute(Operator)
    op1: Operator = attribute(Operator)
    relu_param: Any = scalar(0.0)
    reverse0: bool = attribute(bool, False)
    reverse1: bool = attribute(bool, False)
    reduce_op: Operator | None = attribute(Operator, None)
    reduce_res: NkiTensor | None = write(None)
    reduce_cmd: Reduce = attribute(Reduce, Reduce.idle)
    constraints = rules(
        *tile("dst", "data", "reduce_res"),
        *same_shape("data", "dst"),
        same_partitions("data", "reduce_res"),
        elements("reduce_res", 1, "one register per partition"),
        operator_kind("op", "activation", source="nki/api/nki.api.shared (activation functions)"),
        excludes(
            "op0 and op1 are one of six pairs.", _pair, "use a pair of multiply, add, subtract and bypass"
        ),
        excludes(
            "An operand is reversed only with an operator.", _reverse, "drop the reverse flag of bypass"
        ),
        column("imm0", "data", fp32=False),
        column("imm1", "data", fp32=False),
        column("relu_param", "data", fp32=False),
        scalar_rule(
            "imm0 and imm1 have the same data type.", _same_immediates, "copy one of them to the other's type"
        ),
        operator_in("reduce_op", "add", "maximum", "minimum", "abs_max", "abs_min"),
        value_in("reduce_cmd", (Reduce.idle, Reduce.reset, Reduce.reduce, Reduce.reset_reduce)),
        excludes("A reduction has a reduce_op.", _reduces_with_op, "pass reduce_op=nl.add"),
        *indirection("dst", "data", gather="data", on_scalar=True),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "op": "exp",
            "data": t(),
            "imm0": 0.5,
            "imm1": t((128, 1)),
            "op0": "multiply",
            "op1": "add",
        }

    def compute(self, state: Any, data: Array, imm0: Any, imm1: Any, relu_param: Any) -> tuple[Array, Array]:
        value = rows(float32(data, self.data))
        value = combine(self.op0, value, scalar_operand(imm0, self.imm0), self.reverse0)
        value = combine(self.op1, value, scalar_operand(imm1, self.imm1), self.reverse1)
        if self.op.name == "prelu":
            result = self.op.apply(value, scalar_operand(relu_param, self.relu_param))
        else:
            result = _applied(self, state, value)
        return result, self.accumulate(state, self.reduce_op or _ADD, result)

    def cost(self, target: Target) -> Cost:
        return streaming.activation(
            target,
            elements_per_partition(self.dst),
            table=self.op.table,
            pointer_bias=isinstance(self.imm0, NkiTensor) or isinstance(self.imm1, NkiTensor),
            psum_source=in_psum(self.data),
            extra_cycles=self.reading_cycles(target),
        )
