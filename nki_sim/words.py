"""How reports spell times, sizes, places and instructions."""

from __future__ import annotations

import enum
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nki_isa.diagnostics import Frame
from nki_isa.ir.instruction import Instruction
from nki_isa.ops.dma import is_spill
from nki_isa.tensor.storage import Storage
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_sim.placement.utilisation import Holder

_TIMES = ((1e9, "s"), (1e6, "ms"), (1e3, "us"))
_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def time(ns: float) -> str:
    """Nanoseconds in the unit that reads best: ``1.23 ms``."""
    for factor, unit in _TIMES:
        if ns >= factor:
            return f"{ns / factor:.2f} {unit}"
    return f"{ns:.0f} ns"


def size(octets: float) -> str:
    """Bytes in the unit that reads best, whole where they are: ``4 MiB``, ``2.67 KiB``."""
    for factor, unit in _SIZES:
        if octets >= factor:
            return (
                f"{octets / factor:.0f} {unit}" if octets % factor == 0 else f"{octets / factor:.2f} {unit}"
            )
    return f"{octets:.0f} B"


def percent(fraction: float) -> str:
    """A fraction as ``12.3 %``."""
    return f"{100 * fraction:.1f} %"


def counted(number: int, noun: str) -> str:
    """``1 bank``, ``2 banks``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def typed(storage: Storage) -> str:
    """``float32[128, 512]``."""
    return f"{storage.dtype}[{', '.join(map(str, storage.shape))}]"


def tensor(holder: Holder) -> str:
    """A tensor with its life and line: ``tile, live 3 to 9 (kernel.py:12)``."""
    where = place(holder.storage.stack)
    return f"{holder.storage.name}, live {holder.first} to {holder.last}{f' ({where})' if where else ''}"


def byte(group: Sequence[Holder]) -> str:
    """The lowest of their first bytes, and their first partitions where one is not 0."""
    partitions = sorted({h.partition for h in group})
    where = f" at partition {', '.join(map(str, partitions))}" if any(partitions) else ""
    return f"{min(h.offset for h in group)}{'+' * (len(group) > 1)}{where}"


def held_row(group: Sequence[Holder]) -> list[str]:
    """Tensors of one line and type as a row: name, type, each, count, together, byte, life, line."""
    storage = group[0].storage
    return [
        storage.name,
        typed(storage),
        size(storage.row_bytes),
        str(len(group)),
        size(sum(h.storage.row_bytes for h in group)),
        byte(group),
        f"{min(h.first for h in group)} to {max(h.last for h in group)}",
        place(storage.stack),
    ]


def place(stack: Sequence[Frame]) -> str:
    """``file:line`` of the innermost call, the file relative to the working directory where it lies in it."""
    return f"{path(stack[-1].span.file)}:{stack[-1].span.line}" if stack else ""


def path(file: str) -> str:
    """`file` relative to the working directory if it lies in it, else as it is."""
    here = os.path.join(os.getcwd(), "")
    return file[len(here) :] if file.startswith(here) else file


def act(instruction: Instruction) -> str:
    """What a timeline calls an instruction: its opcode; ``spill`` or ``reload`` if the compiler adds it."""
    if is_spill(instruction):
        return "spill" if instruction.writes[0].buffer.is_hbm else "reload"
    return instruction.opcode


def operands(instruction: Instruction) -> dict[str, str]:
    """The fields that are not at their default, by name."""
    values = instruction.__dict__
    return {
        name: spelled(values[name])
        for name, field in instruction.fields.items()
        if not (values[name] is field.default or (field.kind is not None and values[name] == field.default))
    }


def spelled(value: Any) -> str:
    """A value of a field: tensors by name and shape, enumerations by member."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (list, tuple)) and any(isinstance(v, NkiTensor) for v in value):
        return f"[{', '.join(spelled(v) for v in value)}]"
    return repr(value) if isinstance(value, (str, NkiTensor)) else str(value)
