"""Constructs that neither a page of the SDK nor a public kernel that compiles speaks of.

A verdict that a kernel is taken rests on evidence: what it uses is documented, or kernels that run on devices
use it. What is known of neither is counted here, so that silence is not taken for approval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nki_isa.constraints.operands import tensors_of
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program, While
from nki_isa.machine.enums import Engine


@dataclass(frozen=True, slots=True)
class Uncovered:
    """One row.

    Attributes:
        name: what it is, in words.
        uses: whether an instruction, that stands in so many device loops, uses it.
        why: why nothing covers it.
    """

    name: str
    uses: Callable[[Instruction, int], bool]
    why: str


def _indirect(instruction: Instruction) -> bool:
    views = (t for _, value in instruction.operands() for t in tensors_of(value))
    return any(t.dynamic is not None and t.dynamic.kind == "indirect" for t in views)


def _dynamic_result(instruction: Instruction) -> bool:
    if instruction.on is Engine.dma:
        return False
    return any(t.dynamic is not None and t.storage.on_chip for t in instruction.writes)


#: What is left of the API when all that pages state and public kernels use is taken away.
UNCOVERED = (
    Uncovered(
        "a compute result at a run-time offset",
        lambda i, loops: _dynamic_result(i) and not _indirect(i),
        "pages describe sources at run-time offsets; no public kernel that compiles writes to one",
    ),
    Uncovered(
        "an instruction three device loops deep",
        lambda i, loops: loops > 2,
        "no page states how deep loops may be, and no public kernel nests three",
    ),
)


def uncovered(program: Program) -> Counter[str]:
    """How often `program` uses each construct that nothing covers."""
    found: Counter[str] = Counter()
    for instruction, loops in _with_depth(program.body, 0):
        for construct in UNCOVERED:
            if construct.uses(instruction, loops):
                found[construct.name] += 1
    return found


def _with_depth(body: list[Node], loops: int) -> Iterator[tuple[Instruction, int]]:
    for node in body:
        if isinstance(node, (Loop, While)):
            yield from _with_depth(node.body, loops + 1)
        else:
            yield node, loops
