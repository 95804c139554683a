"""Element-wise instructions: copies, fills, and one or two operators per element.

Most run on the vector engine; some on the scalar or the gpsimd engine as well.
All arithmetic is float32; bitvec operators work on the stored bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nki_isa.constraints.data_types import bitvec_dtypes, packed_alike
from nki_isa.constraints.indirection import indirection, is_indirect, no_indirection
from nki_isa.constraints.memories import not_both_psum
from nki_isa.constraints.observed import bitvec_result, seen
from nki_isa.constraints.operands import STUB, elements_per_partition, in_psum, rules
from nki_isa.constraints.operators import bitvec_on_vector, engine_allowed, engine_since, operator_kind
from nki_isa.constraints.sizes import same_shape
from nki_isa.constraints.tiles import tile
from nki_isa.constraints.values import attribute_rule
from nki_isa.cost import Cost, streaming
from nki_isa.ir.fields import attribute, read, write
from nki_isa.ir.instruction import MakeTile, Matrices, Order, Starts, instruction
from nki_isa.machine.dtypes import DTYPES, cast, integer_range
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
    copied,
    float32,
    from_bits,
    scalar_engine_rate,
)
from nki_isa.rules import elementwise
from nki_isa.tensor.tensor import NkiTensor


@instruction
class tensor_copy(ComputeInstruction):
    """dst = src, within SBUF and PSUM.

    With equal data types the bits are copied, on every engine (the scalar engine, which has it from
    NeuronCore-v3 on, too); otherwise values pass through float32 (int32 beyond 2**24 rounds).

    Shapes: `dst` and `src` have the same partitions (at most 128) and elements per partition.
    Errors: NKI-V101 to V106, V108, V110, V112, V115.
    Source: SDK page nki.isa.tensor_copy; trn2 architecture guide (scalar engine).
    """

    engines = (VECTOR_ENGINE, SCALAR_ENGINE, GPSIMD_ENGINE)
    starts = Starts.lanes
    source = f"{STUB} (tensor_copy)"
    order = Order.streamed
    by_element = True
    modes = streaming.ONE_INPUT
    dst: NkiTensor = write()
    src: NkiTensor = read()
    engine: Engine = attribute(Engine, Engine.unknown)
    constraints = rules(
        *tile("dst", "src", packed=True),
        *same_shape("dst", "src"),
        engine_since(SCALAR_ENGINE, Feature.scalar_engine_copy),
        packed_alike("src", "dst"),
        *indirection("dst", "src", gather="src", engines=(VECTOR_ENGINE, SCALAR_ENGINE), on_scalar=True),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "src": t()}

    def compute(self, src: Array) -> Array:
        return src if self.src.dtype == self.dst.dtype else float32(src, self.src)

    def in_place(self, out: Array, operands: Matrices) -> Callable[[], None] | None:
        """Bytes that stay as they are go to `dst` at once."""
        return copied(self.dst, self.src, out, operands)

    def open_engines(self, target: Target) -> tuple[Engine, ...]:
        """The page has the compiler choose an engine, by its workload, where the kernel gives none."""
        if self.engine is not UNKNOWN_ENGINE or any(is_indirect(view) for view in (self.dst, self.src)):
            return ()
        scalar = (SCALAR_ENGINE,) if Feature.scalar_engine_copy in target.features else ()
        return scalar if in_psum(self.dst) or in_psum(self.src) else (*scalar, GPSIMD_ENGINE)

    def cost(self, target: Target) -> Cost:
        n = elements_per_partition(self.dst)
        if self.on is SCALAR_ENGINE:
            return streaming.elementwise(target, self.on, n, rate=scalar_engine_rate(self.dst, self.src))
        rate = streaming.rate_of(target, self.modes, self.dst, self.src) if self.on is VECTOR_ENGINE else ""
        return streaming.elementwise(target, self.on, n, rate=rate)


_FLOATS = (float, np.floating)


def _packed_zero(instruction: Any, target: Any) -> str | None:
    dst, value = instruction.__dict__["dst"], instruction.__dict__["value"]
    if isinstance(dst, NkiTensor) and dst.dtype.lanes > 1 and value != 0:
        return f"value is {value!r} and dst is {dst.dtype}, packed data types can only be set to 0"
    return None


def _integer_value(instruction: Any, target: Any) -> str | None:
    dst, value = instruction.__dict__["dst"], instruction.__dict__["value"]
    if not isinstance(dst, NkiTensor) or dst.dtype.kind not in ("int", "uint"):
        return None
    whole = isinstance(value, float) and value.is_integer()
    if isinstance(value, _FLOATS) and not (whole and (value == 0 or instruction.whole_floats)):
        return f"value is {value!r} and dst is {dst.dtype}, it must be an int"
    low, high = integer_range(dst.dtype)
    if not low <= value <= high:
        return f"value is {value!r} and dst is {dst.dtype}, which holds {low} to {high}"
    return None


@instruction
class memset(ComputeInstruction):
    """Fill `dst` with a compile-time number, converted to its data type.

    Where `engine` is not given it goes to gpsimd, as profiles of compiled kernels show, and to the vector
    engine for a tile in PSUM, which gpsimd does not reach.

    Integer data types take an int that they hold, packed ones 0 only. (The release notes of NKI 0.3.0 ask for
    an int; the kernel library of that release sets uint32 tiles to 0.0, so 0.0 is taken.) API level 0.2
    takes whole floats too.

    Shapes: `dst` is a tile of any shape in SBUF or PSUM.
    Errors: NKI-V101, V102, V104, V106, V110, V111, V112, V115.
    Source: SDK page nki.isa.memset.
    """

    engines = (VECTOR_ENGINE, GPSIMD_ENGINE)
    starts = Starts.lanes
    source = f"{STUB} (memset)"
    order = Order.streamed
    by_element = True
    modes = streaming.NARROW
    dst: NkiTensor = write()
    value: float = attribute(float)
    engine: Engine = attribute(Engine, Engine.unknown)
    whole_floats: bool = attribute(bool, False, public=False)  # taken for ints before NKI 0.3
    constraints = rules(
        *tile("dst", packed=True),
        attribute_rule(
            "An integer data type is set to an int that it holds.",
            _integer_value,
            "write an int of that range, such as value=2",
            source="nki/release-notes (0.3.0, breaking changes)",
            row=elementwise.INTEGER_MEMSET,
        ),
        attribute_rule(
            "A packed data type is set to 0 only.", _packed_zero, "fill an unpacked view of the bytes instead"
        ),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "value": 0.0}

    def resolve_engine(self) -> Engine:
        if self.engine is not UNKNOWN_ENGINE:
            return super().resolve_engine()
        return VECTOR_ENGINE if in_psum(self.dst) else GPSIMD_ENGINE

    def compute(self) -> Array:
        dtype = self.dst.dtype
        if dtype.lanes > 1:
            stored = np.zeros(1, dtype.numpy)
        elif dtype.kind in ("int", "uint"):  # exact beyond 2**24
            stored = cast(np.array([np.clip(int(self.value), -(2**62), 2**62)]), dtype)
        else:
            stored = cast(np.array([self.value], np.float32), dtype)
        return np.broadcast_to(stored, self.dst.shape)

    def cost(self, target: Target) -> Cost:
        modes = self.modes if self.value == 0 else ()
        rate = streaming.rate_of(target, modes, self.dst) if self.on is VECTOR_ENGINE else ""
        return streaming.elementwise(target, self.on, elements_per_partition(self.dst), rate=rate)


_WIDE_INTEGERS = frozenset({DTYPES["int32"], DTYPES["uint32"]})


def _power_on_gpsimd(instruction: Any, target: Any) -> str | None:
    op = instruction.__dict__["op"]
    if isinstance(op, Operator) and op.name == "power" and instruction.on is not GPSIMD_ENGINE:
        return f"engine is {instruction.on.name} and op is power, which runs on gpsimd"
    return None


def _floats_on_gpsimd(instruction: Any, target: Any) -> str | None:
    if instruction.on is not GPSIMD_ENGINE or instruction.op.name == "power":
        return None
    if all(t.dtype.kind != "float" for t in (instruction.dst, instruction.data1, instruction.data2)):
        return None
    return f"engine is gpsimd and the tiles are {instruction.data1.dtype} and {instruction.data2.dtype}"


@instruction
class tensor_tensor(ComputeInstruction):
    """dst = data1 op data2, element by element.

    Arithmetic operators compute in float32. If all three tiles are int32 or uint32 and none
    is in PSUM, the instruction goes to gpsimd, whose 32-bit integer arithmetic is exact and
    wraps; ``engine=vector`` overrides that. `power` runs on gpsimd only. Bitvec operators
    combine the stored bits of integer tiles on the vector engine.

    Shapes: all three have the same partitions and elements per partition; at most one of
    `data1` and `data2` is in PSUM.
    Errors: NKI-V101 to V108, V110, V112, V115.
    Source: SDK page nki.isa.tensor_tensor.
    """

    engines = (VECTOR_ENGINE, GPSIMD_ENGINE)
    starts = Starts.lanes
    source = f"{STUB} (tensor_tensor)"
    order = Order.streamed
    by_element = True
    modes = streaming.TWO_INPUTS
    dst: NkiTensor = write()
    data1: NkiTensor = read()
    data2: NkiTensor = read()
    op: Operator = attribute(Operator)
    engine: Engine = attribute(Engine, Engine.unknown)
    observed = (
        *ComputeInstruction.observed,
        *bitvec_result("op", "dst", "data1", "data2"),
        seen(elementwise.GPSIMD_TRN1, _floats_on_gpsimd, "pass engine=nisa.engine.vector"),
    )
    constraints = rules(
        *tile("dst", "data1", "data2"),
        *same_shape("data1", "data2", "dst"),
        not_both_psum("data1", "data2"),
        operator_kind("op", "bitvec", "arithmetic", unary=False),
        bitvec_dtypes("op", "dst", "data1", "data2"),
        bitvec_on_vector("op"),
        engine_allowed(
            "power runs on the gpsimd engine.",
            _power_on_gpsimd,
            "leave engine unset, or pass nisa.engine.gpsimd",
        ),
        *indirection("dst", "data1", gather="data1"),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "data1": t(), "data2": t(), "op": "add"}

    def resolve_engine(self) -> Engine:
        if self.engine is not UNKNOWN_ENGINE:
            return super().resolve_engine()
        if self.op.name == "power":
            return GPSIMD_ENGINE
        tiles = (self.dst, self.data1, self.data2)
        wide = all(isinstance(t, NkiTensor) and t.dtype in _WIDE_INTEGERS for t in tiles)
        if wide and self.op.kind == "arithmetic" and not any(in_psum(t) for t in tiles):
            return GPSIMD_ENGINE
        return VECTOR_ENGINE

    def compute(self, data1: Array, data2: Array) -> Array:
        first, second, op = self.data1.dtype, self.data2.dtype, self.op
        if data2.shape != data1.shape:
            data2 = data2.reshape(data1.shape)
        if op.kind == "bitvec":
            width = max(first.itemsize, second.itemsize)
            return from_bits(op.apply(bit_pattern(data1, width), bit_pattern(data2, width)), self.dst.dtype)
        if self.on is GPSIMD_ENGINE and op.name != "power" and _all_wide(self.dst, self.data1, self.data2):
            exact = op.apply(data1.astype(np.int64), data2.astype(np.int64))
            return exact.astype(np.int64, copy=False).astype(self.dst.dtype.numpy)
        return op.apply(float32(data1, self.data1), float32(data2, self.data2))

    def in_place(self, out: Array, operands: Matrices) -> Callable[[], None] | None:
        """One of numpy's functions of float32 tiles of one shape goes to `dst` at once."""
        function: Any = self.op.function
        tiles = (self.dst, self.data1, self.data2)
        if not isinstance(function, np.ufunc) or any(t.dtype != "float32" for t in tiles):
            return None
        if self.op.kind == "bitvec" or not out.shape == self.data1.shape == self.data2.shape:
            return None
        first, second = operands.view(self.data1), operands.view(self.data2)

        def step() -> None:
            function(first, second, out=out)

        return step

    def cost(self, target: Target) -> Cost:
        n = elements_per_partition(self.dst)
        if self.on is GPSIMD_ENGINE:
            return streaming.elementwise(target, self.on, n)
        rate = streaming.rate_of(target, self.modes, self.dst, self.data1, self.data2)
        return streaming.elementwise(target, self.on, n, rate=rate)


def _all_wide(*tensors: NkiTensor) -> bool:
    return all(t.dtype in _WIDE_INTEGERS for t in tensors)


@instruction
class reciprocal(ComputeInstruction):
    """dst = 1 / data, in float32 on the vector engine.

    Shapes: `dst` and `data` have the same partitions and elements per partition.
    Errors: NKI-V101 to V105, V110, V112, V115.
    Source: SDK page nki.isa.reciprocal.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (reciprocal)"
    order = Order.streamed
    by_element = True
    modes = (streaming.Mode("vector_reciprocal_rate"),)
    dst: NkiTensor = write()
    data: NkiTensor = read()
    constraints = rules(*tile("dst", "data"), *same_shape("data", "dst"), no_indirection())

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "data": t()}

    def compute(self, data: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.float32(1) / float32(data, self.data)

    def cost(self, target: Target) -> Cost:
        rate = streaming.rate_of(target, self.modes, self.dst, self.data)
        return streaming.elementwise(target, self.on, elements_per_partition(self.dst), rate=rate)
