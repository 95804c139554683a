"""What the instructions of the vector, scalar and gpsimd engines share: operators and float32 arithmetic."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nki_isa.constraints.observed import COMPUTE
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import Field, Role
from nki_isa.ir.instruction import Instruction, Matrices
from nki_isa.machine.dtypes import DType, is_plain, to_float32
from nki_isa.machine.enums import Engine, reduce_cmd
from nki_isa.machine.operators import Operator
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

Array = NDArray[Any]

#: Members of an Enum are found slowly.
SCALAR_ENGINE, VECTOR_ENGINE, GPSIMD_ENGINE = Engine.scalar, Engine.vector, Engine.gpsimd
UNKNOWN_ENGINE = Engine.unknown


class ComputeInstruction(Instruction):
    """An instruction of the vector, scalar or gpsimd engine."""

    observed: ClassVar[tuple[Constraint, ...]] = COMPUTE


def updating(instruction: Instruction, name: str) -> None:
    """Make operand `name` of this one instruction read and written: parts of it keep their values."""
    stated = instruction.fields
    changed = Field(Role.read_write, stated[name].default, stated[name].kind, name)
    instruction.__dict__["fields"] = {**stated, name: changed}


class Accumulating(ComputeInstruction):
    """An instruction that can reduce onto its engine's accumulator registers, one per partition.

    A subclass has a field ``reduce_res`` and either a field ``reduce_cmd`` or one `command` for all.
    """

    stateful: ClassVar[bool] = True
    command: ClassVar[reduce_cmd] = reduce_cmd.idle
    idle_spoils: ClassVar[bool] = False  # documented to leave unknown registers behind with `idle`

    @property
    def uses_engine_state(self) -> bool:
        """True unless it leaves the registers as they are and does not read them."""
        return not self.is_idle or self.__dict__.get("reduce_res") is not None

    @property
    def lanes(self) -> int:
        """How many accumulator registers it works on, from the first one."""
        dst: NkiTensor = self.__dict__["dst"]
        return dst.shape[0]

    @property
    def starts_accumulators(self) -> bool:
        """True if it sets the registers whatever they held."""
        return self._command in (reduce_cmd.reset, reduce_cmd.reset_reduce, reduce_cmd.load_reduce)

    @property
    def reads_accumulators(self) -> bool:
        """True if what the registers held before reaches a result, or the registers after it."""
        return not self.starts_accumulators and self.uses_engine_state

    @property
    def is_idle(self) -> bool:
        """True if it is not to change the registers."""
        return self._command is reduce_cmd.idle

    @property
    def _command(self) -> reduce_cmd:
        command: reduce_cmd = self.__dict__.get("reduce_cmd", self.command)
        return command

    def accumulate(self, state: Any, op: Operator, values: Array, initial: Any = None) -> Array:
        """Apply ``reduce_cmd`` to the registers; returns them, one row per partition.

        The register of lane p serves the operand's p-th partition, wherever the operand starts: the
        first lanes work, and reach every quadrant (architecture guide, cross-partition connectivity).

        Args:
            op: the reduction.
            values: float32, partitions by elements.
            initial: what `load_reduce` loads: a number, or one per partition.
        """
        registers = state.accumulators[self.on]
        lanes = registers[: values.shape[0]]
        command = self._command
        if command in (reduce_cmd.reset, reduce_cmd.reset_reduce):
            lanes[:] = op.identity
        elif command is reduce_cmd.load_reduce:
            lanes[:] = np.reshape(initial, -1)
        if command in (reduce_cmd.reduce, reduce_cmd.reset_reduce, reduce_cmd.load_reduce):
            lanes[:] = fold(op, values, lanes)
        return lanes[:, None].copy()

    def reading_cycles(self, target: Target) -> float:
        """Cycles to read the registers into ``reduce_res``, which is an instruction of its own."""
        if self.__dict__["reduce_res"] is None:
            return 0.0
        return float(getattr(target, f"{self.on.name}_accumulate_cycles"))


# --- operands


def copied(dst: NkiTensor, src: NkiTensor, out: Array, operands: Matrices) -> Callable[[], None] | None:
    """What copies `src` to `out`, the bytes of `dst`; None where the bytes are not stored as they are."""
    if src.shape != dst.shape or src.dtype != dst.dtype or not is_plain(dst.dtype):
        return None
    return partial(np.copyto, out, operands.view(src))


def float32(values: Array, tensor: NkiTensor) -> Array:
    """The values of a stored operand as float32, in its own shape."""
    return to_float32(values, tensor.dtype)


def rows(values: Array) -> Array:
    """Partitions by elements: the free dimensions flattened."""
    return values.reshape(values.shape[0], -1)


def scalar_operand(value: Any, operand: Any, shape: tuple[int, ...] = ()) -> Any:
    """A scalar operand as float32: a number, or one value per partition that broadcasts along `shape`.

    Args:
        value: a number, or the stored values of a tile of one column; None, that of a unary operator, stays.
        operand: the operand itself, which knows the data type of a tile.
        shape: shape of the tile it is combined with; ``(partitions, elements)`` if not given.
    """
    if isinstance(value, np.ndarray) and isinstance(operand, NkiTensor):
        column = to_float32(value, operand.dtype)
        return column.reshape(column.shape[0], *(1,) * (max(len(shape), 2) - 1))
    return None if value is None else np.float32(value)


def pointers(*operands: Any) -> int:
    """How many scalar operands are read from a tile, one value per partition."""
    return sum(isinstance(operand, NkiTensor) for operand in operands)


def scalar_engine_rate(*tensors: NkiTensor) -> str:
    """The rate of a copy or tensor_scalar on the scalar engine: a faster one for narrow floats."""
    narrow = all(t.dtype.kind == "float" and t.dtype.bits <= 16 for t in tensors)
    return "scalar_fast_rate" if narrow else "scalar_rate"


# --- operators


def combine(op: Operator, x: Any, y: Any, reverse: bool = False) -> Array:
    """``x op y``, or ``y op x`` if `reverse`; a unary operator takes `x` alone."""
    if "unary" in op.kinds:
        return op.apply(x)
    return op.apply(y, x) if reverse else op.apply(x, y)


def bit_pattern(values: Any, width: int) -> Any:
    """Stored integers, or an integer immediate, as unsigned bit patterns of `width` bytes, zeros above."""
    unsigned = np.dtype(f"u{width}")
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}").astype(unsigned, copy=False)
    return unsigned.type(int(values) & ((1 << (8 * width)) - 1))


def from_bits(bits: Array, dtype: DType) -> Array:
    """Bit patterns as stored values of the integer type `dtype`, high bits dropped."""
    return bits.astype(f"u{dtype.itemsize}", copy=False).view(dtype.numpy)


#: Operators of which rounding makes the order matter.
_ORDERED = (np.add, np.subtract, np.multiply)

_TURNED = 16  # partitions turned at a time: their rows stay in the cache of the host


def fold(op: Operator, values: Array, initial: Array | None = None) -> Array:
    """Reduce the last axis in the dtype given, from the first element to the last, onto `initial`.

    The free dimension is streamed, so a sum adds one element after the other in float32 (architecture guide
    of Trainium 3, fast exponential: the free dimension is sequential), with that order's rounding.

    Args:
        values: any shape with at least one element in the last axis.
        initial: what the registers held, of the shape of the result; the reduction starts from it.
    """
    function: Any = op.function
    with np.errstate(all="ignore"):
        if function in _ORDERED:
            return _in_order(function, values, initial)
        if isinstance(function, np.ufunc):
            result = function.reduce(values, axis=-1)
        else:
            columns = np.moveaxis(values, -1, 0)
            result = functools.reduce(function, columns)
        return result if initial is None else function(initial, result)


def _in_order(function: Any, values: Array, initial: Array | None) -> Array:
    """A reduction from left to right; numpy's own along the last axis adds in pairs."""
    lanes = values.reshape(-1, values.shape[-1])
    first = 0 if initial is None else 1
    turned = np.empty((first + lanes.shape[1], lanes.shape[0]), values.dtype)
    if initial is not None:
        turned[0] = initial.reshape(-1)
    for k in range(0, lanes.shape[0], _TURNED):
        turned[first:, k : k + _TURNED] = lanes[k : k + _TURNED].T
    if lanes.shape[0] == 1:  # numpy would take the one column for its last axis
        result = function.accumulate(turned[:, 0])[-1:]
    else:
        result = function.reduce(turned, axis=0)
    return np.asarray(result).reshape(values.shape[:-1])
