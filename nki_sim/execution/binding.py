"""What runs one instruction on bytes.

Operands whose place is known are bound to numpy views of the memory once, before the first run, so that the
body of a loop repeats with nothing but the numerics. An instruction reads all its inputs before it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from nki_isa.ir.fields import Role
from nki_isa.ir.instruction import Instruction
from nki_isa.machine.dtypes import DType, is_plain
from nki_isa.machine.enums import Engine, oob_mode
from nki_isa.tensor.storage import VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.engine_state import EngineState
from nki_sim.execution.matrices import OwnMatrices, SharedMatrices
from nki_sim.execution.memory import (
    INDIRECTION_GROUP,
    TENSOR_INDIRECTION_GROUP,
    Array,
    Memory,
    stored,
    write,
)
from nki_sim.execution.skipping import Skips

Step: TypeAlias = Callable[[], None]
Steps: TypeAlias = list[tuple[Step, Instruction]]
"""What runs instructions, each step with the first that it runs."""
_Input = tuple[Any, bool]  # (the value, False) or (the function that gives it, True)
_Put = Callable[[Any], None]


class Binder:
    """Binds instructions to the bytes they work on.

    Args:
        memory: where the bytes are.
        state: what engines keep between instructions.
        skips: what runs transfers that may leave something out.
    """

    def __init__(self, memory: Memory, state: EngineState, skips: Skips):
        self._memory, self._state, self._skips = memory, state, skips
        self._own = OwnMatrices(memory)

    def step(self, instruction: Instruction, shared: SharedMatrices | None = None) -> Step:
        """What runs `instruction` once; it may share operands with others."""
        kind = type(instruction)
        works_in_place = kind.in_place is not Instruction.in_place and kind.compute is kind.stands_for
        if works_in_place and not is_indirect(instruction):
            (destination,) = instruction.writes
            operands = shared or self._own
            works = instruction.in_place(operands.view(destination), operands)
            if works is not None:
                return works
        inputs, outputs = self._operands(instruction)
        compute = instruction.compute
        if instruction.stateful:
            compute = partial(compute, self._state)
        if instruction.__dict__.get("oob_mode") is oob_mode.skip and is_indirect(instruction):
            return partial(self._skips.run, instruction, compute)
        arguments = [value for value, is_dynamic in inputs]
        if not any(is_dynamic for _, is_dynamic in inputs):
            if len(outputs) == 1:
                put = outputs[0]
                return lambda: put(compute(*arguments))
            return lambda: _put_all(outputs, compute(*arguments))

        def step() -> None:
            values = [value() if is_dynamic else value for value, is_dynamic in inputs]
            results = compute(*values)
            if len(outputs) == 1:
                outputs[0](results)
            else:
                _put_all(outputs, results)

        return step

    def _operands(self, instruction: Instruction) -> tuple[list[_Input], list[_Put]]:
        """Inputs, and what takes each output."""
        inputs: list[_Input] = []
        outputs: list[_Put] = []
        group = TENSOR_INDIRECTION_GROUP if instruction.on is Engine.tensor else INDIRECTION_GROUP
        values = instruction.__dict__
        for name, description in instruction.fields.items():
            role = description.role
            if role is Role.attribute:
                continue
            value = values[name]
            if role is Role.register_write:
                registers = self._memory.registers
                put = registers.__setitem__ if instruction.keeps_width else partial(_put_register, registers)
                outputs.append(partial(put, value.index))
                continue
            if role is not Role.write:
                inputs.append(self._input(value, group))
            if role is Role.write or role is Role.read_write:
                outputs.append(
                    _put_nothing if value is None else self.output(instruction.destination(value), group)
                )
        return inputs, outputs

    def _input(self, value: Any, group: int) -> _Input:
        if isinstance(value, NkiTensor):
            if value.dynamic is not None:
                return partial(self._memory.bind, value, group), True
            return self._memory.view(value), False
        if isinstance(value, VirtualRegister):
            return partial(self._memory.registers.__getitem__, value.index), True
        if isinstance(value, (list, tuple)):
            parts = [self._input(v, group) for v in value]
            if any(is_dynamic for _, is_dynamic in parts):
                return lambda: [v() if is_dynamic else v for v, is_dynamic in parts], True
            return [v for v, _ in parts], False
        return value, False

    def output(self, tensor: NkiTensor, group: int = INDIRECTION_GROUP) -> _Put:
        """What stores values in `tensor`, rounded to its data type."""
        if tensor.dynamic is not None:
            return partial(self._put_dynamic, tensor, group)
        view, dtype = self._memory.view(tensor), tensor.dtype
        return partial(_put_as_is if is_plain(dtype) else _put, view, dtype)

    def _put_dynamic(self, tensor: NkiTensor, group: int, result: Any) -> None:
        self._memory.store(tensor, stored(result, tensor.dtype, tensor.shape), None, group)


def is_indirect(instruction: Instruction) -> bool:
    """True if a run-time value says where an operand lies."""
    if instruction.form is not None:
        return not instruction.form.is_plain
    return any(t.dynamic is not None for t in (*instruction.reads, *instruction.writes))


def _put_as_is(view: Array, dtype: DType, result: Any) -> None:
    """As :func:`_put`, where a value of the array's data type is stored as it is."""
    if isinstance(result, np.ndarray) and result.dtype == view.dtype:
        np.copyto(
            view, result if result.shape == view.shape or result.size == 1 else result.reshape(view.shape)
        )
    else:
        _put(view, dtype, result)


def _put(view: Array, dtype: DType, result: Any) -> None:
    write(view, stored(result, dtype, view.shape), None)


def _put_register(registers: list[int], index: int, result: Any) -> None:
    """Keep the low 32 bits, as a signed number."""
    registers[index] = ((int(result) + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def _put_nothing(result: Any) -> None:
    """An optional output the user left out."""


def _put_all(outputs: list[_Put], results: Any) -> None:
    """Store several results; those that are views of inputs are copied before the first is written."""
    if not outputs:
        return
    kept = [np.array(r) if isinstance(r, np.ndarray) and r.base is not None else r for r in results]
    for put, result in zip(outputs, kept, strict=True):
        put(result)
