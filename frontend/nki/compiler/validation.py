"""Checks each different form of an instruction once.

Unrolled loops emit the same instruction thousands of times with nothing new for its
constraints to see. What they can see is put into a key: class, engine, attributes, and
for each operand its view, its memory and which other operands share its storage. A form
that passed is not checked again; one that did not is, so that its message is its own.
"""

from __future__ import annotations

import enum
from typing import Any

from nki_isa.dtypes import DType
from nki_isa.instruction import Instruction
from nki_isa.machine.target import Target
from nki_isa.operators import Operator
from nki_isa.storage import Storage, VirtualRegister
from nki_isa.tensor import NkiTensor

_SINGLE = (enum.Enum, Operator, DType)  # values that exist once and for all: their identity says everything
_NUMBERS = (int, float, bool, str, type(None))


class _Unknown(Exception):
    """A value whose part in a constraint is not known."""


class Memo:
    """The forms of instructions that passed on `target`."""

    def __init__(self, target: Target):
        self.target = target
        self._passed: set[tuple[Any, ...]] = set()
        self._memories: dict[Storage, int] = {}
        self._kinds: dict[Any, int] = {}

    def check(self, instruction: Instruction) -> None:
        """As ``instruction.check(target)``."""
        try:
            key = self._key(instruction)
        except _Unknown:
            instruction.check(self.target)
            return
        if key not in self._passed:
            instruction.check(self.target)
            self._passed.add(key)

    def _key(self, instruction: Instruction) -> tuple[Any, ...]:
        values = instruction.__dict__
        parts: list[Any] = [type(instruction), id(instruction.on)]
        seen: dict[Any, int] = {}
        for name in instruction.fields:
            value = values[name]
            if type(value) is NkiTensor:
                self._tensor(value, parts, seen)
            elif value is None or name == "name":  # a label: no rule reads it
                parts.append(None)
            else:
                self._value(value, parts, seen)
        return tuple(parts)

    def _tensor(self, tensor: NkiTensor, parts: list[Any], seen: dict[Any, int]) -> None:
        storage = tensor.storage
        memory = self._memories.get(storage)
        if memory is None:
            facts = (storage.region, storage.shape, storage.dtype, storage.address, storage.kind)
            memory = self._memories[storage] = self._kinds.setdefault(facts, len(self._kinds))
        shared = seen.setdefault(storage, len(seen))
        parts += (shared, memory, tensor.shape, tensor.strides, tensor.offset, id(tensor.dtype))
        dynamic = tensor.dynamic
        if dynamic is not None:
            parts += (dynamic.kind, dynamic.stride, dynamic.dim, dynamic.limit)
            self._value(dynamic.index, parts, seen)

    def _value(self, value: Any, parts: list[Any], seen: dict[Any, int]) -> None:
        kind = type(value)
        if kind is NkiTensor:
            self._tensor(value, parts, seen)
        elif kind in _NUMBERS:
            parts += (kind, value)
        elif isinstance(value, _SINGLE):
            parts.append(id(value))
        elif kind is VirtualRegister:
            parts += (kind, value.frozen, seen.setdefault(value, len(seen)))
        elif kind is list or kind is tuple:
            parts += (kind, len(value))
            for item in value:
                self._value(item, parts, seen)
        else:
            raise _Unknown
