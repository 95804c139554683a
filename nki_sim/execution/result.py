"""What a Program gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from nki_isa.ir.program import Program
from nki_isa.tensor.storage import Storage
from nki_sim.execution.skipping import Skipped

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What a Program gave.

    Attributes:
        outputs: a copy of each output, in order.
        updated_inputs: (position, array) of each input the Program writes: a kernel that updates an
            argument in place returns nothing for it, so the caller copies these back.
        instructions: number of instructions executed.
        skipped: what each line with ``oob_mode.skip`` left out, of those that left out something.
    """

    outputs: list[Array]
    updated_inputs: list[tuple[int, Array]]
    instructions: int
    skipped: tuple[Skipped, ...] = ()


def written_inputs(*programs: Program) -> tuple[int, ...]:
    """The positions of the inputs that any of the Programs of a launch writes."""
    found: set[int] = set()
    for program in programs:
        written: set[Storage] = set()
        forms: dict[Any, bool] = {None: True}  # which may write inputs: what memory they write they all say
        for instruction in program.walk():
            form = instruction.form
            if form not in forms:
                forms[form] = any(tensor.storage.kind == "input" for tensor in form.sample.writes)
            if forms[form]:
                written |= {tensor.storage for tensor in instruction.writes}
        found |= {i for i, tensor in enumerate(program.inputs) if tensor.storage in written}
    return tuple(sorted(found))
