"""A Program as text; what :mod:`nki_isa.text.parser` reads back is equal.

::

    program matmul target trn2 registers 1
      %0 = input shared_hbm bfloat16[2048, 2048] "lhsT"
      %1 = local sbuf bfloat16[128, 512] "tile" @1
      %2 = local psum float32[128, 512] "acc" at (0, 2048) @2
    inputs %0
    body
      dma_copy dst=%1 src=%0[offset 0, 2048:128, 1:512] @3
      loop $0 = 0 to 16 step 1 @4
        dma_copy dst=%1 src=%0[offset 0, 2048:128, 1:512, scalar $0 stride 512 dim -1 limit 4] @5
    outputs
    sources
      @1 kernel "matmul.py" 12:5-12:40
      @5 load "matmul.py" 4:5-4:60 from @4

``%n`` is storage n, ``$n`` register n, ``@n`` a line of `sources`: the user's
place, with its caller behind ``from``. A view is its storage alone where it is
the whole of it, else dtype (where it differs), offset and one ``stride:count``
per dimension, in elements. Fields at their default are left out. Enumerations
print by member, operators and dtypes by name; where the field does not say which
kind it takes they print with it, as ``oob_mode.skip``, ``op.add`` or ``dtype.int8``.
An instruction that others were asked to run after ends in ``as &1``, those in
``after &1, &2``. Bytes of constants follow in a section ``data``, in base64.
"""

from __future__ import annotations

import base64
import enum
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nki_isa.diagnostics import Frame, error
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program
from nki_isa.machine.dtypes import DType
from nki_isa.machine.operators import Operator
from nki_isa.tensor.storage import Storage, VirtualRegister
from nki_isa.tensor.strides import contiguous_strides
from nki_isa.tensor.tensor import NkiTensor

__all__ = ["format_program"]

_INDENT = "  "


def format_program(program: Program) -> str:
    """`program` as text, ending in a newline; the same program always gives the same text."""
    sources = _Sources()
    lines = [f"program {_word(program.name)} target {program.target} registers {program.registers}"]
    lines += [f"{_INDENT}{_storage(s)}{sources.reference(s.stack)}" for s in program.storages]
    lines.append(_section("inputs", program.inputs))
    lines.append("body")
    _nodes(program.body, _INDENT, lines, sources, _labels(program))
    lines.append(_section("outputs", program.outputs))
    if sources.lines:
        lines.append("sources")
        lines += sources.lines
    constants = [s for s in program.storages if s.data is not None]
    if constants:
        lines.append("data")
        lines += [f'{_INDENT}%{s.index} "{base64.b64encode(s.data or b"").decode()}"' for s in constants]
    return "\n".join(lines) + "\n"


class _Sources:
    """Numbers call stacks in order of appearance; each line is one frame and the number of its caller."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._frames: dict[Frame, int] = {}
        self._frame_by_id: dict[int, int] = {}  # hashing a frame is slow and most are shared
        self._numbers: dict[tuple[int, int], int] = {}
        self._kept: list[Frame] = []  # keeps the ids above valid

    def reference(self, stack: Sequence[Frame]) -> str:
        """`` @n``, or nothing for an empty stack."""
        number = 0
        for frame in stack:
            known = self._frame_by_id.get(id(frame))
            if known is None:
                known = self._frames.setdefault(frame, len(self._frames))
                self._frame_by_id[id(frame)] = known
                self._kept.append(frame)
            key = (number, known)
            caller, number = number, self._numbers.get(key, 0)
            if not number:
                number = self._numbers[key] = len(self._numbers) + 1
                self.lines.append(f"{_INDENT}@{number} {_frame(frame)}{f' from @{caller}' if caller else ''}")
        return f" @{number}" if number else ""


def _frame(frame: Frame) -> str:
    span = frame.span
    place = f"{span.line}:{span.column}-{span.end_line}:{span.end_column}"
    return f"{_word(frame.function)} {json.dumps(span.file)} {place}"


def _storage(storage: Storage) -> str:
    address = f" at ({storage.address[0]}, {storage.address[1]})" if storage.address is not None else ""
    shape = ", ".join(map(str, storage.shape))
    return (
        f"%{storage.index} = {storage.kind} {storage.region.value} {storage.dtype}[{shape}] "
        f"{json.dumps(storage.name)}{address}"
    )


def _section(name: str, views: Iterable[NkiTensor]) -> str:
    return f"{name} {', '.join(map(_view, views))}".rstrip()


def _labels(program: Program) -> dict[Instruction, str]:
    """``&n`` for each instruction that others were asked to run after, in program order."""
    wanted = {before for instruction in program.walk() for before in instruction.after}
    return {i: f"&{n}" for n, i in enumerate((i for i in program.walk() if i in wanted), 1)} if wanted else {}


def _nodes(
    body: Iterable[Node], indent: str, lines: list[str], sources: _Sources, labels: dict[Instruction, str]
) -> None:
    for node in body:
        reference = sources.reference(node.stack)
        if isinstance(node, Instruction):
            label = f" as {labels[node]}" if node in labels else ""
            after = f" after {', '.join(labels[i] for i in node.after)}" if node.after else ""
            lines.append(f"{indent}{_instruction(node)}{label}{after}{reference}")
            continue
        if isinstance(node, Loop):
            bounds = f"{_value(node.start, None)} to {_value(node.stop, None)} step {node.step}"
            lines.append(f"{indent}loop ${node.index.index} = {bounds}{reference}")
        else:
            lines.append(f"{indent}while ${node.condition.index}{reference}")
        _nodes(node.body, indent + _INDENT, lines, sources, labels)


def _instruction(instruction: Instruction) -> str:
    values = instruction.__dict__
    words = [instruction.opcode]
    for name, field in instruction.fields.items():
        value, default = values[name], field.default
        if value is default or (type(value) is not NkiTensor and _same(value, default)):
            continue
        words.append(f"{name}={_view(value) if type(value) is NkiTensor else _value(value, field.kind)}")
    return " ".join(words)


def _same(value: Any, default: Any) -> bool:
    """Equal and of one type, so that 1, 1.0 and True stay apart."""
    return type(value) is type(default) and bool(value == default)


def _view(tensor: NkiTensor) -> str:
    storage, shape, strides, dynamic = tensor.storage, tensor.shape, tensor.strides, tensor.dynamic
    dtype = "" if tensor.dtype == storage.dtype else f" {tensor.dtype}"
    whole = shape == storage.shape and tensor.offset == 0 and strides == contiguous_strides(shape)
    if whole and dynamic is None and not dtype:
        return f"%{storage.index}"
    terms = [f"offset {tensor.offset}"]
    terms += [f"{stride}:{count}" for stride, count in zip(strides, shape, strict=True)]
    if dynamic is not None:
        steps = f"stride {dynamic.stride} dim {dynamic.dim} limit {dynamic.limit}"
        terms.append(f"{dynamic.kind} {_value(dynamic.index, None)} {steps}")
    return f"%{storage.index}{dtype}[{', '.join(terms)}]"


def _value(value: Any, kind: Any) -> str:
    """`value` as text, for a field of `kind` (None where nothing says what it takes)."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    if isinstance(value, NkiTensor):
        return _view(value)
    if isinstance(value, VirtualRegister):
        return f"${value.index}"
    if isinstance(value, enum.Enum):
        return value.name if type(value) is kind else f"{type(value).__name__}.{value.name}"
    if isinstance(value, Operator):
        return value.name if kind is Operator else f"op.{value.name}"
    if isinstance(value, DType):
        return str(value) if kind is DType else f"dtype.{value}"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(v, None) for v in value)}]"
    if isinstance(value, tuple):
        return f"({', '.join(_value(v, None) for v in value)})"
    raise error("NKI-I003", f"{value!r}, a {type(value).__name__}, has no text form")


def _word(name: str) -> str:
    """A name bare where it can be, else quoted."""
    return name if name.isidentifier() and name.isascii() else json.dumps(name)
