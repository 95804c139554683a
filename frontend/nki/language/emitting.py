"""What functions of ``nki.language`` are written with: new tiles, and one instruction at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nki.compiler.specializer.recorder import current
from nki.language.creation import new_tensor
from nki_isa.diagnostics import NkiError, error
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.operators import OPERATORS
from nki_isa.tensor.tensor import NkiTensor

#: The release notes' list of what the functions of nki.language cannot do; carried on up to NKI 0.6.0.
KNOWN_ISSUES = "NKI release notes, known issues of 0.4.0, carried forward"


def emit(opcode: str, *operands: Any, **attributes: Any) -> None:
    """Append one instruction to the Program."""
    current().emit(REGISTRY[opcode](*operands, **attributes))


def tile_like(
    x: NkiTensor, dtype: Any = None, shape: Sequence[int] | None = None, part: str = ""
) -> NkiTensor:
    """An unset SBUF tile of the shape of `x` (or `shape`) and of its dtype unless another is given.

    A tile that is only a step of a function is called by what `part` of its result it holds.
    """
    return new_tensor(x.shape if shape is None else shape, x.dtype if dtype is None else dtype, part=part)


def tensor_scalar(x: NkiTensor, *steps: Any, dtype: Any = None, part: str = "") -> NkiTensor:
    """``(x op0 operand0) op1 operand1`` in a new tile; `steps` are names of operators and their operands."""
    result = tile_like(x, dtype, part=part)
    op0, operand0, *rest = steps
    more = {"op1": OPERATORS[rest[0]], "operand1": rest[1]} if rest else {}
    emit("tensor_scalar", result, x, OPERATORS[op0], operand0, **more)
    return result


def tensor_tensor(x: NkiTensor, operator: str, y: NkiTensor, dtype: Any = None, part: str = "") -> NkiTensor:
    """``x op y`` in a new tile of the shape of `x`."""
    result = tile_like(x, dtype, part=part)
    emit("tensor_tensor", result, x, y, OPERATORS[operator])
    return result


def activation(
    operator: str, x: NkiTensor, dtype: Any = None, scale: float = 1.0, part: str = ""
) -> NkiTensor:
    """``op(x * scale)`` in a new tile, on the scalar engine."""
    result = tile_like(x, dtype, part=part)
    emit("activation", result, OPERATORS[operator], x, scale=scale)
    return result


def periodic(x: NkiTensor, dtype: Any = None, bias: float | None = None, part: str = "") -> NkiTensor:
    """``sin(x + bias)`` in a new tile, the range reduced first: accurate for every float32.

    Source: SDK page nki.api.shared, the note under its table of activation functions.
    """
    result = tile_like(x, dtype, part=part)
    emit("activation", result, OPERATORS["sin"], x, bias, reduces_range=True)
    return result


def no_instruction(function: str, why: str, instead: str) -> NkiError:
    """NKI-V140: a function, or a form of one, that compiles to no instruction."""
    return error("NKI-V140", f"nl.{function} {why}", help=instead, notes=(f"source: {KNOWN_ISSUES}",))
