"""Reductions, scans and statistics along the free dimension, and the reduction across partitions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nki_isa.constraints.data_types import bitvec_dtypes
from nki_isa.constraints.indirection import indirection, no_indirection
from nki_isa.constraints.memories import not_both_psum
from nki_isa.constraints.observed import bitvec_result
from nki_isa.constraints.operands import STUB, elements_per_partition, rules
from nki_isa.constraints.operators import operator_in, operator_kind, reduction
from nki_isa.constraints.sizes import (
    elements,
    elements_multiple,
    free_size,
    partitions,
    same_elements_per_partition,
    same_partitions,
    same_shape,
)
from nki_isa.constraints.tiles import tile
from nki_isa.constraints.values import attribute_rule, column, excludes
from nki_isa.cost import Cost, streaming
from nki_isa.ir.fields import attribute, read, scalar, write
from nki_isa.ir.instruction import MakeTile, Order, Starts, instruction
from nki_isa.machine.operators import OPERATORS, Operator
from nki_isa.ops.base import (
    GPSIMD_ENGINE,
    VECTOR_ENGINE,
    Array,
    ComputeInstruction,
    bit_pattern,
    float32,
    fold,
    from_bits,
    pointers,
    rows,
    scalar_operand,
)
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

_ADD = OPERATORS["add"]


def _reduced(instruction: Any) -> int | None:
    """Elements of `data` that one result reduces; None where `axis` is not legal."""
    data, axis = instruction.__dict__["data"], instruction.__dict__["axis"]
    if not isinstance(data, NkiTensor) or not axis:
        return None
    ndim = len(data.shape)
    if axis[0] < 1 or axis != tuple(range(ndim - len(axis), ndim)):
        return None
    return math.prod(data.shape[axis[0] :])


def _last_axes(instruction: Any, target: Any) -> str | None:
    data, axis = instruction.__dict__["data"], instruction.__dict__["axis"]
    if not isinstance(data, NkiTensor) or _reduced(instruction) is not None:
        return None
    ndim = len(data.shape)
    return f"axis is {axis} for data of {ndim} dimensions; it must end at {ndim - 1} and leave out 0"


def _results(instruction: Any, target: Any) -> int | None:
    count = _reduced(instruction)
    return None if count is None else elements_per_partition(instruction.data) // count


def _negate_arithmetic(instruction: Any, target: Any) -> str | None:
    op = instruction.__dict__["op"]
    if instruction.__dict__["negate"] and isinstance(op, Operator) and op.kind == "bitvec":
        return f"negate is True and op is {op.name}, a bitvec operator"
    return None


@instruction
class tensor_reduce(ComputeInstruction):
    """dst = reduce(op, data) over the last free dimensions given by `axis`.

    Arithmetic operators reduce in float32, bitvec operators on the stored bits of integer
    tiles. `negate` multiplies an arithmetic result by -1. `keepdims` only says which shape the
    user gave `dst`: it has one element per partition and kept position either way.

    Shapes: `dst` has the partitions of `data` and its free dimensions but for those of `axis`.
    Errors: NKI-V101 to V105, V107, V108, V110 to V113, V115.
    Source: SDK page nki.isa.tensor_reduce.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (tensor_reduce)"
    order = Order.streamed
    modes = streaming.NARROW
    dst: NkiTensor = write()
    op: Operator = attribute(Operator)
    data: NkiTensor = read()
    axis: tuple[int, ...] = attribute(tuple)
    negate: bool = attribute(bool, False)
    keepdims: bool = attribute(bool, False)
    observed = (*ComputeInstruction.observed, *bitvec_result("op", "dst", "data"))
    constraints = rules(
        *tile("dst", "data"),
        same_partitions("data", "dst"),
        operator_kind("op", "bitvec", "arithmetic", unary=False),
        reduction("op"),
        bitvec_dtypes("op", "dst", "data"),
        attribute_rule(
            "axis names the last free dimensions, in order.",
            _last_axes,
            "permute the view so that the reduced dimensions are last; reduce partitions with a matmul",
        ),
        elements("dst", _results, "an element for each position that is kept"),
        excludes("negate comes with an arithmetic operator.", _negate_arithmetic, "drop negate"),
        *indirection("dst", "data", gather="data"),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t((128, 1)), "op": "add", "data": t(), "axis": 1}

    def normalise(self) -> None:
        ndim = len(self.data.shape)
        self.axis = tuple(sorted(a + ndim if a < 0 else a for a in self.axis))

    def compute(self, data: Array) -> Array:
        kept = data.reshape(data.shape[0], -1, math.prod(data.shape[self.axis[0] :]))
        if self.op.kind == "bitvec":
            return from_bits(fold(self.op, bit_pattern(kept, data.dtype.itemsize)), self.dst.dtype)
        result = fold(self.op, float32(kept, self.data))
        return -result if self.negate else result

    def cost(self, target: Target) -> Cost:
        modes = self.modes if self.op.name in ("add", "maximum") else ()
        rate = streaming.rate_of(target, modes, self.dst, self.data)
        return streaming.elementwise(target, self.on, elements_per_partition(self.data), rate=rate)


_ACROSS = ("add", "average", "maximum", "bitwise_or", "bitwise_and")


@instruction
class tensor_partition_reduce(ComputeInstruction):
    """dst[0, ...] = reduce(op, data) across the partitions of `data`, on the gpsimd engine.

    `op` is add, average, max, bitwise_or or bitwise_and. Arithmetic is float32, partition 0
    first. No cost is published; the time of other gpsimd instructions is assumed.

    Shapes: `data` [P, ...], `dst` [1, ...] with the same elements per partition, both in SBUF.
    Errors: NKI-V101 to V105, V107, V108, V110, V112, V115.
    Source: SDK page nki.isa.tensor_partition_reduce.
    """

    engines = (GPSIMD_ENGINE,)
    source = f"{STUB} (tensor_partition_reduce)"
    order = Order.streamed
    assumed = "the time of other gpsimd instructions"
    dst: NkiTensor = write()
    op: Operator = attribute(Operator)
    data: NkiTensor = read()
    observed = (*ComputeInstruction.observed, *bitvec_result("op", "dst", "data"))
    constraints = rules(
        *tile("dst", "data"),
        partitions("dst", limit=1, source=STUB),
        same_elements_per_partition("data", "dst"),
        operator_in("op", *_ACROSS),
        bitvec_dtypes("op", "dst", "data"),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t((1, 128)), "op": "add", "data": t()}

    def compute(self, data: Array) -> Array:
        lanes = rows(data)
        if self.op.kind == "bitvec":
            bits = bit_pattern(lanes, data.dtype.itemsize)
            return from_bits(self.op.function.reduce(bits, axis=0), self.dst.dtype)  # type: ignore[union-attr]
        values = float32(lanes, self.data)
        if self.op.name != "average":
            return fold(self.op, values.T)
        return fold(_ADD, values.T) / np.float32(len(values))

    def cost(self, target: Target) -> Cost:
        return streaming.gpsimd(target, elements_per_partition(self.data))


@instruction
class tensor_tensor_scan(ComputeInstruction):
    """dst[:, i] = (data0[:, i] op0 dst[:, i - 1]) op1 data1[:, i], starting from `initial`.

    Sequential along the flattened free dimension, in float32; the running value keeps float32
    whatever the data type of `dst`. `reverse0` and `reverse1` swap an operator's arguments.

    Shapes: `dst`, `data0` and `data1` have the same partitions and elements per partition;
    `initial` is a number or [partitions, 1]. At most one of `data0` and `data1` is in PSUM.
    Errors: NKI-V101 to V105, V107 to V110, V112, V115.
    Source: SDK page nki.isa.tensor_tensor_scan.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (tensor_tensor_scan)"
    order = Order.streamed
    modes = (streaming.Mode("vector_scan_rate"),)
    dst: NkiTensor = write()
    data0: NkiTensor = read()
    data1: NkiTensor = read()
    initial: Any = scalar()
    op0: Operator = attribute(Operator)
    op1: Operator = attribute(Operator)
    reverse0: bool = attribute(bool, False)
    reverse1: bool = attribute(bool, False)
    constraints = rules(
        *tile("dst", "data0", "data1"),
        *same_shape("data0", "data1", "dst"),
        not_both_psum("data0", "data1"),
        operator_kind("op0", "arithmetic", unary=False),
        operator_kind("op1", "arithmetic", unary=False),
        column("initial", "data0", fp32=False),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "data0": t(),
            "data1": t(),
            "initial": 0.0,
            "op0": "multiply",
            "op1": "add",
        }

    def compute(self, data0: Array, data1: Array, initial: Any) -> Array:
        # One row per step: each step then works on contiguous memory.
        first = np.ascontiguousarray(rows(float32(data0, self.data0)).T)
        second = np.ascontiguousarray(rows(float32(data1, self.data1)).T)
        result = np.empty_like(first)
        start = scalar_operand(initial, self.initial)
        running = np.broadcast_to(np.reshape(start, -1), first.shape[1:])
        op0: Any = self.op0.function
        op1: Any = self.op1.function
        with np.errstate(all="ignore"):
            for x, y, out in zip(first, second, result, strict=True):
                inner = op0(running, x) if self.reverse0 else op0(x, running)
                out[:] = op1(y, inner) if self.reverse1 else op1(inner, y)
                running = out
        return result.T

    def cost(self, target: Target) -> Cost:
        rate = streaming.rate_of(target, self.modes, self.dst, self.data0, self.data1)
        n = elements_per_partition(self.dst)
        return streaming.elementwise(target, self.on, n, rate=rate, pointers=pointers(self.initial))


@instruction
class bn_stats(ComputeInstruction):
    """Per partition: count, mean and variance * count of the even elements, then of the odd ones.

    Computed in float32 from the first element to the last, the variance from the differences to
    the mean. Without odd elements (one element per partition) their three statistics are 0.

    Shapes: `data` up to 512 elements per partition, `dst` 6.
    Errors: NKI-V101 to V105, V108, V110, V112, V115.
    Source: SDK page nki.isa.bn_stats.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (bn_stats)"
    order = Order.first
    dst: NkiTensor = write()
    data: NkiTensor = read()
    constraints = rules(
        *tile("dst", "data"),
        same_partitions("data", "dst"),
        free_size("data", 512),
        elements("dst", 6, "count, mean and variance * count, of the even and of the odd elements"),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t((128, 6)), "data": t()}

    def compute(self, data: Array) -> Array:
        values = rows(float32(data, self.data))
        result = np.zeros((len(values), 6), np.float32)
        with np.errstate(all="ignore"):
            for part in (0, 1):
                chosen = values[:, part::2]
                count = np.float32(chosen.shape[1])
                if count:
                    mean = fold(_ADD, chosen) / count
                    result[:, 3 * part] = count
                    result[:, 3 * part + 1] = mean
                    result[:, 3 * part + 2] = fold(_ADD, np.square(chosen - mean[:, None]))
        return result

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(target, self.on, elements_per_partition(self.data))


@instruction
class bn_aggr(ComputeInstruction):
    """dst = mean and variance of each partition, from (count, mean, variance * count) triples.

    Computed in float32, from the first triple to the last.

    Shapes: the elements per partition of `data` are a multiple of 3, `dst` has 2.
    Errors: NKI-V101 to V105, V108, V110, V112, V115.
    Source: SDK page nki.isa.bn_aggr.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (bn_aggr)"
    order = Order.first
    dst: NkiTensor = write()
    data: NkiTensor = read()
    constraints = rules(
        *tile("dst", "data"),
        same_partitions("data", "dst"),
        elements_multiple("data", 3, "each triple is a count, a mean and a variance * count"),
        elements("dst", 2, "the mean and the variance"),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t((128, 2)), "data": t((128, 96))}

    def compute(self, data: Array) -> Array:
        values = rows(float32(data, self.data))
        counts, means, spreads = values[:, 0::3], values[:, 1::3], values[:, 2::3]
        with np.errstate(all="ignore"):
            total = fold(_ADD, counts)
            mean = fold(_ADD, counts * means) / total
            between = fold(_ADD, counts * np.square(means - mean[:, None]))
            variance = (fold(_ADD, spreads) + between) / total
        return np.stack([mean, variance], axis=1)

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(
            target, self.on, elements_per_partition(self.data), rate="vector_statistics_rate"
        )
