"""The Program: what a specialized kernel is, and what every later step reads.

A Program is a list of instructions in the user's order, with regions for the
loops that run on the device. Operands are views of numbered storages.
:func:`nki_isa.text.format_program` prints it and :func:`nki_isa.text.parse_program`
reads that text back to an equal Program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Union

from nki_isa.diagnostics import Frame
from nki_isa.instruction import Instruction
from nki_isa.tensor import NkiTensor, Storage, VirtualRegister


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


Node = Union[Instruction, Loop, While]


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
