"""Lets a rule about tensors stay silent about operands that are not tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

Test = Callable[[Any, "Target"], "str | None"]


def tensors_only(*names: str) -> Callable[[Test], Test]:
    """The decorated test runs only where all the named operands are tensors.

    An operand of a wrong kind is reported by :data:`nki_isa.constraints.operands.OPERAND_KINDS` alone.
    """

    def decorate(test: Test) -> Test:
        def guarded(instruction: Any, target: Target) -> str | None:
            values = instruction.__dict__
            if all(isinstance(values[name], NkiTensor) for name in names):
                return test(instruction, target)
            return None

        return guarded

    return decorate
