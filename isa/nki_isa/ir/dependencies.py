"""Which nodes of a Program must stay behind which: by the tensors, registers and engine state they share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node
from nki_isa.machine.enums import oob_mode
from nki_isa.tensor.storage import Storage, VirtualRegister

Touch = tuple[Any, bool]
"""A storage, register number or engine, and whether it is written."""


def data_dependencies(
    body: Iterable[Iterable[Touch]], same: Callable[[Storage], Hashable] = lambda storage: storage
) -> list[set[int]]:
    """For each node of a body, the earlier nodes it must stay behind.

    A node stays behind the last that wrote what it touches, and behind all that read since what it writes.
    A device loop is one node that touches what its body does. Tensors count as a whole.

    Args:
        body: what each node in program order touches (:func:`touched`).
        same: a key that storages have in common whose accesses must stay in order.
    """
    writer: dict[Any, int] = {}
    readers: dict[Any, list[int]] = {}
    found: list[set[int]] = []
    for k, things in enumerate(body):
        reads: set[Any] = set()
        writes: set[Any] = set()
        for thing, is_write in things:
            key = same(thing) if isinstance(thing, Storage) else thing
            (writes if is_write else reads).add(key)
        before: set[int] = set()
        for thing in reads | writes:
            if thing in writer:
                before.add(writer[thing])
            if thing in writes:
                before.update(readers.pop(thing, ()))
                writer[thing] = k
            else:
                readers.setdefault(thing, []).append(k)
        before.discard(k)
        found.append(before)
    return found


def touched(node: Node) -> Iterator[Touch]:
    """What a node and all inside it touch."""
    if isinstance(node, Instruction):
        for tensors, is_write in ((node.reads, False), (node.writes, True)):
            for tensor in tensors:
                yield tensor.storage, is_write
        for registers, is_write in ((node.registers_read, False), (node.registers_written, True)):
            for register in registers:
                yield register.index, is_write
        if node.uses_engine_state:
            yield node.on, True
        return
    bounds = (node.start, node.stop, node.index) if isinstance(node, Loop) else (node.condition,)
    for bound in bounds:
        if isinstance(bound, VirtualRegister):
            yield bound.index, bound is bounds[-1] and isinstance(node, Loop)
    for inner in node.body:
        yield from touched(inner)


def may_skip(instruction: Instruction) -> bool:
    """True if bytes it writes keep what they hold where a run-time index is out of bounds."""
    return instruction.__dict__.get("oob_mode") is oob_mode.skip
