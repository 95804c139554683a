"""The Program: what a specialized kernel is, and what every later step reads.

A Program is a list of instructions in the user's order, with regions for the
loops that run on the device. Operands are views of numbered storages.
:func:`nki_isa.text.printer.format_program` prints it and :func:`nki_isa.text.parser.parse_program`
reads that text back to an equal Program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nki_isa.diagnostics import Frame
from nki_isa.ir.instruction import Instruction
from nki_isa.machine.operators import Operator
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor


@dataclass(eq=False, slots=True)
class Loop:
    """A counted loop that runs on the device.

    `index` takes `start`, `start + step`, ... below `stop`; bounds are ints or
    registers read once on entry. The body runs in order, once per value.
    """

    index: VirtualRegister
    start: int | VirtualRegister
    stop: int | VirtualRegister
    step: int
    body: list[Node] = field(default_factory=list)
    stack: tuple[Frame, ...] = ()


@dataclass(eq=False, slots=True)
class While:
    """A loop that runs on the device while `condition` is not zero, tested before each turn."""

    condition: VirtualRegister
    body: list[Node] = field(default_factory=list)
    stack: tuple[Frame, ...] = ()


Node = Instruction | Loop | While


@dataclass(eq=False, slots=True)
class Program:
    """A specialized kernel for one target.

    Attributes:
        name: the kernel's name.
        target: name of the generation it was specialized for: trn1, trn2 or trn3.
        storages: every buffer, in order of allocation; `Storage.index` is the position.
        registers: number of virtual registers used.
        inputs: views of the input storages, in order of the kernel's tensor arguments.
        outputs: views the kernel returns, in order (flattened), all in HBM.
        body: instructions and loops in the user's order.
    """

    name: str
    target: str
    storages: list[Storage] = field(default_factory=list)
    registers: int = 0
    inputs: list[NkiTensor] = field(default_factory=list)
    outputs: list[NkiTensor] = field(default_factory=list)
    body: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Instruction]:
        """Every instruction once, in program order, loop bodies included."""
        return walk(self.body)


def walk(body: list[Node]) -> Iterator[Instruction]:
    """Every instruction of `body` once, in program order, nested bodies included."""
    for node in body:
        if isinstance(node, Instruction):
            yield node
        else:
            yield from walk(node.body)


# --- structural equality: identity says nothing, everything that is printed counts

#: What makes up a value of each class, by attribute.
_PARTS: dict[type, tuple[str, ...]] = {
    Program: ("name", "target", "storages", "registers", "inputs", "outputs", "body"),
    Storage: ("index", "name", "region", "shape", "dtype", "address", "kind", "stack", "data"),
    NkiTensor: ("shape", "strides", "offset", "dtype", "dynamic"),
    DynamicOffset: ("kind", "index", "stride", "dim", "limit"),
    VirtualRegister: ("index", "frozen"),
    Loop: ("index", "start", "stop", "step", "body", "stack"),
    While: ("condition", "body", "stack"),
}


def programs_equal(a: Program, b: Program) -> bool:
    """True if `a` and `b` are the same program, source places included.

    Storages count as equal by position, so do the instructions one was asked to run after;
    numbers only within one type; NaN equals NaN.
    """
    return _equal(a, b) and _order(a) == _order(b)


def _order(program: Program) -> list[tuple[int, ...]]:
    """For each instruction, the positions of those it was asked to run after."""
    position = {instruction: k for k, instruction in enumerate(program.walk())}
    return [tuple(position.get(before, -1) for before in instruction.after) for instruction in position]


def _equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    a, b = (x.item() if isinstance(x, np.generic) else x for x in (a, b))
    kind = type(a)
    if kind is not type(b):
        return isinstance(a, Operator) and bool(a == b)
    if kind is list or kind is tuple:
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, Instruction):
        return (
            a.on is b.on
            and _equal(a.stack, b.stack)
            and all(_equal(getattr(a, f), getattr(b, f)) for f in a.fields)
        )
    if kind is NkiTensor and a.storage.index != b.storage.index:
        return False
    parts = _PARTS.get(kind)
    if parts is not None:
        return all(_equal(getattr(a, part), getattr(b, part)) for part in parts)
    return bool(a == b or (a != a and b != b))
