"""Instructions of the scalar engine: an activation function of a scaled and shifted input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nki_isa import cost
from nki_isa.constraints import (
    STUB,
    column,
    elements,
    elements_per_partition,
    excludes,
    in_psum,
    not_dtypes,
    operator_in,
    operator_kind,
    rules,
    same_partitions,
    same_shape,
    scalar_rule,
    tile,
    value_in,
)
from nki_isa.cost import Cost
from nki_isa.enums import reduce_cmd as Reduce
from nki_isa.indirection import indirection
from nki_isa.instruction import attribute, instruction, read, scalar, write
from nki_isa.operators import OPERATORS, Operator
from nki_isa.ops.base import SCALAR_ENGINE, Accumulating, Array, float32, rows, scalar_operand
from nki_isa.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.target import Target

_ADD = OPERATORS["add"]


def _bias_is_vector(instruction: Any, target: Any) -> str | None:
    bias = instruction.__dict__["bias"]
    if target.nc_version == 2 and bias is not None and not isinstance(bias, NkiTensor):
        return f"bias is the number {bias!r}; on {target.name} it must be a tile of shape [partitions, 1]"
    return None


def _no_reciprocal_bias(instruction: Any, target: Any) -> str | None:
    op, bias = instruction.__dict__["op"], instruction.__dict__["bias"]
    if target.nc_version == 2 and bias is not None and isinstance(op, Operator) and op.name == "reciprocal":
        return f"op is reciprocal and bias is given, which {target.name} does not support"
    return None


def _reduces_with_op(instruction: Any, target: Any) -> str | None:
    values = instruction.__dict__
    if values["reduce_op"] is None and values["reduce_cmd"] in (Reduce.reduce, Reduce.reset_reduce):
        return f"reduce_cmd is {values['reduce_cmd'].name} and reduce_op is None"
    return None


_COMMON = (
    *tile("dst", "data", "reduce_res"),
    *same_shape("data", "dst"),
    same_partitions("data", "reduce_res"),
    elements("reduce_res", 1, "one register per partition"),
    operator_kind("op", "activation", source="nki/api/nki.api.shared (activation functions)"),
    column("scale", "data"),
    column("bias", "data", fp32=False),
    not_dtypes("bias", "tfloat32"),
    scalar_rule(
        "On NeuronCore-v2 a bias is a tile of one element per partition.",
        _bias_is_vector,
        "fill a [partitions, 1] tile with nisa.memset and pass that",
    ),
    excludes(
        "On NeuronCore-v2 reciprocal takes no bias.",
        _no_reciprocal_bias,
        "add the bias with nisa.tensor_scalar first",
        source="nki/api/nki.api.shared (engine selection)",
    ),
    *indirection("dst", "data", gather="data", on_scalar=True),
)


class _Activation(Accumulating):
    """op(data * scale + bias), with an optional sum over the free dimension."""

    op: Operator
    dst: NkiTensor
    data: NkiTensor
    bias: Any
    scale: Any
    reduce_res: NkiTensor | None

    def compute(self, state: Any, data: Array, bias: Any, scale: Any) -> tuple[Array, Array]:
        value = float32(data, self.data)
        with np.errstate(all="ignore"):
            value = value * scalar_operand(scale, self.scale, data.shape)
            if bias is not None:
                value = value + scalar_operand(bias, self.bias, data.shape)
        result = self.op.apply(value)
        return result, self.accumulate(state, _ADD, rows(result))

    def cost(self, target: Target) -> Cost:
        # Reading the accumulators is an instruction of its own.
        extra = target.scalar_accumulate_cycles if self.reduce_res is not None else 0.0
        return cost.activation(
            target,
            elements_per_partition(self.dst),
            table=self.op.table,
            pointer_bias=isinstance(self.bias, NkiTensor) or isinstance(self.scale, NkiTensor),
            psum_source=in_psum(self.data),
            extra_cycles=extra,
        )


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
    source = f"{STUB} (activation)"
    dst: NkiTensor = write()
    op: Operator = attribute(Operator)
    data: NkiTensor = read()
    bias: Any = scalar(None)
    scale: Any = scalar(1.0)
    reduce_op: Operator | None = attribute(Operator, None)
    reduce_res: NkiTensor | None = write(None)
    reduce_cmd: Reduce = attribute(Reduce, Reduce.idle)
    constraints = rules(
        *_COMMON,
        operator_in("reduce_op", "add"),
        value_in("reduce_cmd", (Reduce.idle, Reduce.reset, Reduce.reduce, Reduce.reset_reduce)),
        excludes("A reduction has a reduce_op.", _reduces_with_op, "pass reduce_op=nl.add"),
    )


@instruction
class activation_reduce(_Activation):
    """dst = op(data * scale + bias), reduce_res = the sum of each partition's results.

    The same as :class:`activation` with ``reduce_cmd=reset_reduce``; kept by the SDK for
    older kernels. `reduce_op` must be add.

    Shapes and errors: as :class:`activation`.
    Source: SDK page nki.isa.activation_reduce.
    """

    engines = (SCALAR_ENGINE,)
    source = f"{STUB} (activation_reduce)"
    dst: NkiTensor = write()
    op: Operator = attribute(Operator)
    data: NkiTensor = read()
    reduce_op: Operator = attribute(Operator)
    reduce_res: NkiTensor | None = write()
    bias: Any = scalar(None)
    scale: Any = scalar(1.0)
    constraints = rules(*_COMMON, operator_in("reduce_op", "add"))
    command: ClassVar[Reduce] = Reduce.reset_reduce
