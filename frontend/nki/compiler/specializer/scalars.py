"""What the operators of scalars record (:class:`nki_isa.tensor.storage.NkiScalar`), and what they refuse.

Source: SDK page ``nki.isa.NkiScalar`` and its deep dive on scalars.
"""

from __future__ import annotations

from typing import Any, Protocol

from nki_isa.diagnostics import error
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.machine.dtypes import DType, integer_range
from nki_isa.tensor.kinds import is_whole, shown
from nki_isa.tensor.storage import NkiScalar, VirtualRegister

_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")


class ScalarRecorder(Protocol):
    """What scalars need of the recorder of a kernel."""

    def new_register(self, *, frozen: bool = False) -> VirtualRegister:
        """A register that nothing else uses."""

    def emit(self, instruction: Instruction) -> Any:
        """Make `instruction` a part of the Program."""


def new_scalar(recorder: ScalarRecorder, dtype: DType) -> NkiScalar:
    """A scalar that an instruction is going to set."""
    return NkiScalar(recorder.new_register(frozen=True), dtype)


def computed(recorder: ScalarRecorder, operator: str, left: Any, right: Any) -> NkiScalar:
    """The scalar ``left operator right``; one of the two is a scalar.

    Raises:
        NkiError: NKI-V153 for another operand than an int that its width holds or a scalar of its dtype, for
            what a comparison gave, and for a comparison of int64 scalars.
    """
    scalar: NkiScalar = left if isinstance(left, NkiScalar) else right
    dtype = scalar.dtype
    for operand in (left, right):
        _check(operand, dtype, f"{left!r} {operator} {right!r}")
    if operator in _COMPARISONS:
        if dtype.bits > 32:
            raise error(
                "NKI-V153",
                f"{left!r} {operator} {right!r}: int64 scalars are not compared",
                help="compare int32 scalars, or store it with nisa.scalar_store and compare tiles",
            )
        return NkiScalar(scalar, dtype, True)
    made = new_scalar(recorder, dtype)
    if not isinstance(left, NkiScalar) and operator != "-":
        left, right = right, left
    if not isinstance(left, NkiScalar):  # c - x is x * -1 + c
        negated = computed(recorder, "*", right, -1)
        return computed(recorder, "+", negated, left)
    words = right, 0
    if is_whole(right):
        low = _word(int(right))
        words = low, _word((int(right) - low) >> 32)
    word = words[0].register if isinstance(words[0], NkiScalar) else words[0]
    operands = made.register, left.register, operator, word, dtype.bits, words[1]
    recorder.emit(REGISTRY["scalar_compute"](*operands))
    return made


def _word(value: int) -> int:
    """The low 32 bits of `value`, signed."""
    return ((value + 2**31) & 0xFFFFFFFF) - 2**31


def _check(operand: Any, dtype: DType, written: str) -> None:
    if isinstance(operand, NkiScalar):
        if operand.is_comparison:
            problem, help = "nothing takes what a comparison gave", "leave the comparison out"
        elif operand.dtype != dtype:
            problem = f"one is {operand.dtype}, the other {dtype}"
            help = "load both from tensors of one dtype: a scalar keeps its width"
        else:
            return
    elif is_whole(operand):
        low, high = integer_range(dtype)
        if low <= operand <= high:
            return
        problem, help = f"{shown(operand)} is outside {dtype}", "load an int64 scalar for wider values"
    else:
        problem = f"{shown(operand)} is neither an int nor a scalar"
        help = "load it with nisa.scalar_load from a tensor of one integer"
    raise error("NKI-V153", f"{written}: {problem}", help=help)


__all__ = ["computed", "new_scalar"]
