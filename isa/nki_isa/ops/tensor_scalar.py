"""Operators with a number, or with one value per partition, for each element."""

from __future__ import annotations

from typing import Any

import numpy as np

from nki_isa.constraints.data_types import bitvec_dtypes
from nki_isa.constraints.indirection import indirection, is_indirect, no_indirection
from nki_isa.constraints.memories import not_both_psum
from nki_isa.constraints.observed import bitvec_result
from nki_isa.constraints.operands import STUB, elements_per_partition, rules
from nki_isa.constraints.operators import bitvec_on_vector, engine_allowed, engine_since, operator_kind
from nki_isa.constraints.sizes import same_shape
from nki_isa.constraints.tiles import tile
from nki_isa.constraints.values import column, excludes, scalar_dtype, unary_operand
from nki_isa.cost import Cost, streaming
from nki_isa.ir.fields import attribute, read, scalar, write
from nki_isa.ir.instruction import MakeTile, Order, Starts, instruction
from nki_isa.machine.enums import Engine
from nki_isa.machine.operators import Operator
from nki_isa.machine.target import Feature, Target
from nki_isa.ops.base import (
    GPSIMD_ENGINE,
    SCALAR_ENGINE,
    UNKNOWN_ENGINE,
    VECTOR_ENGINE,
    Array,
    ComputeInstruction,
    bit_pattern,
    combine,
    float32,
    from_bits,
    pointers,
    scalar_engine_rate,
    scalar_operand,
)
from nki_isa.tensor.tensor import NkiTensor

_ADDRESSES = ("int32", "uint32")
_ON_GPSIMD = ("rsqrt", "power")
_SCALAR_ENGINE_PAIRS = (("multiply", "add"), ("multiply", None), ("add", None))


def _same_kind(instruction: Any, target: Any) -> str | None:
    op0, op1 = instruction.__dict__["op0"], instruction.__dict__["op1"]
    if isinstance(op0, Operator) and isinstance(op1, Operator) and op0.kind != op1.kind:
        return f"op0 is {op0.name} ({op0.kind}) and op1 is {op1.name} ({op1.kind})"
    return None


def _no_lone_operand1(instruction: Any, target: Any) -> str | None:
    values = instruction.__dict__
    if values["op1"] is None and values["operand1"] is not None:
        return "operand1 is given and op1 is None"
    return None


def _scalar_engine_pair(instruction: Any, target: Any) -> str | None:
    if instruction.on is not SCALAR_ENGINE or Feature.scalar_engine_pairs not in target.features:
        return None
    op0, op1 = instruction.__dict__["op0"], instruction.__dict__["op1"]
    names = (getattr(op0, "name", None), getattr(op1, "name", None))
    if names in _SCALAR_ENGINE_PAIRS:
        return None
    return (
        f"engine is scalar with op0 {names[0]} and op1 {names[1]}; "
        f"on {target.name} it has multiply and add, multiply, or add"
    )


def _gpsimd_only_rsqrt(instruction: Any, target: Any) -> str | None:
    if instruction.on is not GPSIMD_ENGINE:
        return None
    ops = [instruction.__dict__[n] for n in ("op0", "op1")]
    if any(isinstance(op, Operator) and op.name in _ON_GPSIMD for op in ops):
        return None
    return "engine is gpsimd, which has it for rsqrt and power only"


def _indirect_addresses(instruction: Any, target: Any) -> str | None:
    dst, data, op = (instruction.__dict__[name] for name in ("dst", "data", "op0"))
    if not any(is_indirect(tensor) for tensor in (dst, data)) or not isinstance(op, Operator):
        return None
    if op.kind == "arithmetic" and all(tensor.dtype in _ADDRESSES for tensor in (dst, data)):
        return f"an operand is an indirect view, data is {data.dtype}, dst {dst.dtype} and op0 {op.name}"
    return None


@instruction
class tensor_scalar(ComputeInstruction):
    """dst = (data op0 operand0) op1 operand1, each operand a number or one value per partition.

    Two arithmetic operators compute in float32, two bitvec operators on the stored bits of
    integer tiles. `reverse0` and `reverse1` put the operand on the left.

    It runs on the vector engine; on gpsimd for rsqrt and power; from NeuronCore-v3 on also on
    the scalar engine, which on v3 has multiply-then-add, multiply, and add only. The SDK names
    an int32 form for address arithmetic, which takes no indirect views, without describing it; here
    int32 is float32 arithmetic.

    Shapes: `dst` and `data` have the same partitions and elements per partition; an operand
    tile is [partitions, 1], float32 with arithmetic operators.
    Errors: NKI-V101 to V110, V112, V113, V115.
    Source: SDK page nki.isa.tensor_scalar; rsqrt and power on gpsimd: operator table of SDK 2.26.
    """

    engines = (VECTOR_ENGINE, SCALAR_ENGINE, GPSIMD_ENGINE)
    starts = Starts.lanes
    source = f"{STUB} (tensor_scalar)"
    order = Order.streamed
    by_element = True
    modes = streaming.ONE_INPUT
    dst: NkiTensor = write()
    data: NkiTensor = read()
    op0: Operator = attribute(Operator)
    operand0: Any | None = scalar()
    reverse0: bool = attribute(bool, False)
    op1: Operator | None = attribute(Operator, None)
    operand1: Any = scalar(None)
    reverse1: bool = attribute(bool, False)
    engine: Engine = attribute(Engine, Engine.unknown)
    observed = (*ComputeInstruction.observed, *bitvec_result("op0", "dst", "data"))
    constraints = rules(
        *tile("dst", "data"),
        *same_shape("data", "dst"),
        operator_kind("op0", "bitvec", "arithmetic"),
        operator_kind("op1", "bitvec", "arithmetic"),
        excludes("op0 and op1 are both bitvec or both arithmetic.", _same_kind, "use two tensor_scalar"),
        excludes("operand1 comes with op1.", _no_lone_operand1, "pass op1 as well"),
        bitvec_dtypes("op0", "dst", "data"),
        column("operand0", "data", fp32=False),
        column("operand1", "data", fp32=False),
        scalar_dtype("operand0", "op0"),
        scalar_dtype("operand1", "op1"),
        unary_operand("op0", "operand0"),
        unary_operand("op1", "operand1"),
        bitvec_on_vector("op0", "op1"),
        engine_since(SCALAR_ENGINE, Feature.scalar_engine_copy),
        engine_allowed(
            "The scalar engine of NeuronCore-v3 has multiply and add, multiply, or add.",
            _scalar_engine_pair,
            "leave engine unset, or pass nisa.engine.vector",
        ),
        engine_allowed(
            "The gpsimd engine has it for rsqrt and power.", _gpsimd_only_rsqrt, "pass nisa.engine.vector"
        ),
        *indirection("dst", "data", gather="data", on_scalar=True),
        excludes(
            "Arithmetic of int32 or uint32, the form for addresses, takes no indirect view.",
            _indirect_addresses,
            "gather with nisa.tensor_copy first, then compute on the copy",
        ),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "data": t(),
            "op0": "multiply",
            "operand0": t((128, 1)),
            "op1": "add",
            "operand1": 1.0,
        }

    def resolve_engine(self) -> Engine:
        ops = [op.name for op in (self.op0, self.op1) if op is not None]
        if self.engine is UNKNOWN_ENGINE and any(name in _ON_GPSIMD for name in ops):
            return GPSIMD_ENGINE
        return super().resolve_engine()

    def compute(self, data: Array, operand0: Any, operand1: Any) -> Array:
        if self.op0.kind == "bitvec":
            return self._bits(data, operand0, operand1)
        value = float32(data, self.data)
        value = combine(self.op0, value, scalar_operand(operand0, self.operand0, data.shape), self.reverse0)
        if self.op1 is None:
            return value
        if operand1 is None:  # a unary op1
            return combine(self.op1, value, None)
        return combine(self.op1, value, scalar_operand(operand1, self.operand1, data.shape), self.reverse1)

    def _bits(self, data: Array, operand0: Any, operand1: Any) -> Array:
        width = self.data.dtype.itemsize
        value = bit_pattern(data, width)
        for op, operand, reverse in (
            (self.op0, operand0, self.reverse0),
            (self.op1, operand1, self.reverse1),
        ):
            if op is not None:
                bits = 0 if operand is None else bit_pattern(operand, width)
                if isinstance(bits, np.ndarray):
                    bits = bits.reshape(bits.shape[0], *(1,) * (value.ndim - 1))
                value = combine(op, value, bits, reverse)
        return from_bits(value, self.dst.dtype)

    def cost(self, target: Target) -> Cost:
        n = elements_per_partition(self.dst)
        count = pointers(self.operand0, self.operand1)
        rate = ""
        if self.on is SCALAR_ENGINE:
            rate = scalar_engine_rate(self.dst, self.data)
        elif self.on is VECTOR_ENGINE:
            rate = streaming.rate_of(target, self.modes, self.dst, self.data)
        return streaming.elementwise(target, self.on, n, rate=rate, pointers=count)


@instruction
class scalar_tensor_tensor(ComputeInstruction):
    """dst = (data op0 operand0) op1 operand1, `operand0` a number or column, `operand1` a tile.

    Arithmetic operators only, in float32. `reverse0` and `reverse1` swap an operator's arguments.

    Shapes: `dst`, `data` and `operand1` have the same partitions and elements per partition;
    `operand0` is a number or [partitions, 1]. At most one of `data` and `operand1` is in PSUM.
    Errors: NKI-V101 to V105, V107, V109, V110, V112, V115.
    Source: SDK page nki.isa.scalar_tensor_tensor.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (scalar_tensor_tensor)"
    order = Order.streamed
    by_element = True
    modes = (streaming.TWO_INPUTS_FP32,)
    dst: NkiTensor = write()
    data: NkiTensor = read()
    op0: Operator = attribute(Operator)
    operand0: Any | None = scalar()
    op1: Operator = attribute(Operator)
    operand1: NkiTensor = read()
    reverse0: bool = attribute(bool, False)
    reverse1: bool = attribute(bool, False)
    constraints = rules(
        *tile("dst", "data", "operand1"),
        *same_shape("data", "operand1", "dst"),
        not_both_psum("data", "operand1"),
        operator_kind("op0", "arithmetic"),
        operator_kind("op1", "arithmetic", unary=False),
        column("operand0", "data", fp32=False),
        unary_operand("op0", "operand0"),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "data": t(),
            "op0": "multiply",
            "operand0": 2.0,
            "op1": "add",
            "operand1": t(),
        }

    def compute(self, data: Array, operand0: Any, operand1: Array) -> Array:
        first = scalar_operand(operand0, self.operand0, data.shape)
        value = combine(self.op0, float32(data, self.data), first, self.reverse0)
        second = float32(operand1, self.operand1).reshape(value.shape)
        return combine(self.op1, value, second, self.reverse1)

    def cost(self, target: Target) -> Cost:
        rate = streaming.rate_of(target, self.modes, self.dst, self.data, self.operand1)
        n = elements_per_partition(self.dst)
        return streaming.elementwise(target, self.on, n, rate=rate, pointers=pointers(self.operand0))
