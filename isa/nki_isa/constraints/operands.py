"""What every instruction's operands obey, and the looks at an operand that rules are made of."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from nki_isa.ir.constraint import Constraint
from nki_isa.ir.instruction import Instruction
from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import since
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

SBUF, PSUM = MemoryRegion.sbuf, MemoryRegion.psum
HBM = (MemoryRegion.private_hbm, MemoryRegion.shared_hbm)

ARCHITECTURE = "nki/guides/architecture/trainium_inferentia2_arch"
STUB = "nki/api/nki/isa"

NUMBERS = (int, float, np.integer, np.floating, np.bool_)

# --- looking at operands


def elements_per_partition(tensor: NkiTensor) -> int:
    """The free size: number of elements of the view in each partition."""
    return math.prod(tensor.shape[1:])


def free_size_of(instruction: Any, name: str) -> int | None:
    """Elements per partition of operand `name`; None where it is not a tensor."""
    value = instruction.__dict__[name]
    return elements_per_partition(value) if isinstance(value, NkiTensor) else None


def start_of(tensor: NkiTensor) -> int:
    """The partition an on-chip view starts at; relative to its storage where that has no address."""
    row = tensor.storage.row_bytes // tensor.dtype.itemsize
    inside = tensor.offset // row if row else 0
    address = tensor.storage.address
    return inside + (address[0] if address else 0)


def in_psum(value: Any) -> bool:
    """True for a tensor in PSUM."""
    return isinstance(value, NkiTensor) and value.storage.region is PSUM


def free_pattern(tensor: NkiTensor) -> list[tuple[int, int]]:
    """(stride, count) of the free dimensions as the engine walks them: size 1 left out, contiguous merged."""
    merged: list[tuple[int, int]] = []
    for stride, count in zip(tensor.strides[1:], tensor.shape[1:], strict=True):
        if count == 1:
            continue
        if merged and merged[-1][0] == stride * count:
            merged[-1] = (stride, merged[-1][1] * count)
        else:
            merged.append((stride, count))
    return merged


def tensors_of(value: Any) -> Iterable[NkiTensor]:
    """The tensors in an operand: itself, or those of a list."""
    if isinstance(value, NkiTensor):
        return (value,)
    if isinstance(value, (list, tuple)):
        return [v for v in value if isinstance(v, NkiTensor)]
    return ()


def listed(items: Iterable[Any], joint: str = "or") -> str:
    """``a, b or c``."""
    words = [str(i) for i in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}"


def region_name(region: MemoryRegion) -> str:
    """SBUF, PSUM or HBM."""
    return {SBUF: "SBUF", PSUM: "PSUM"}.get(region, "HBM")


# --- rules about several operands


def each_tensor(
    names: tuple[str, ...], test: Callable[[NkiTensor, Any, Any], str | None]
) -> Callable[[Any, Any], str | None]:
    """`test` on every tensor among the named fields; the first complaint, led by the field's name."""

    def broken(instruction: Instruction, target: Target) -> str | None:
        values = instruction.__dict__
        for name in names:
            value = values[name]
            if type(value) is NkiTensor:
                message = test(value, instruction, target)
                if message is not None:
                    return f"{name} {message}"
            elif value is not None:
                for tensor in tensors_of(value):
                    message = test(tensor, instruction, target)
                    if message is not None:
                        return f"{name} {message}"
        return None

    return broken


# --- rules that every instruction has


def rules(*rows: Constraint | tuple[Constraint, ...]) -> tuple[Constraint, ...]:
    """The constraints of one instruction: those every instruction has, then `rows` in order."""
    found = [OPERAND_KINDS, GENERATION, ENGINE]
    for row in rows:
        found.extend(row if isinstance(row, tuple) else (row,))
    return tuple(found)


def _operand_kinds(instruction: Instruction, target: Target) -> str | None:
    return next((misfit.message for misfit in instruction.misfits), None)


OPERAND_KINDS = Constraint(
    "NKI-V100",
    "Each operand is a tensor, a number or a register, as its parameter says; each attribute is of its kind.",
    _operand_kinds,
    "pass what the signature names",
    STUB,
)


def _generation(instruction: Instruction, target: Target) -> str | None:
    if not target.has(instruction.needs):
        return (
            f"it exists since NeuronCore-v{since(instruction.needs)}, "
            f"the target {target.name} is NeuronCore-v{target.nc_version}"
        )
    return None


GENERATION = Constraint(
    "NKI-V108",
    "An instruction exists on the generations that have its hardware.",
    _generation,
    "choose a newer target, or write the computation with instructions this generation has",
    STUB,
)


def _engine(instruction: Instruction, target: Target) -> str | None:
    if instruction.on not in instruction.engines:
        return f"engine is {instruction.on.name}, it runs on {listed(e.name for e in instruction.engines)}"
    if instruction.on is Engine.gpsimd:
        for field, value in instruction.operands():
            for tensor in tensors_of(value):
                if tensor.storage.region is PSUM:
                    return f"engine is gpsimd and {field.name} is in PSUM, which gpsimd cannot access"
    return None


ENGINE = Constraint(
    "NKI-V106",
    "An instruction runs on an engine that implements it, and gpsimd cannot access PSUM.",
    _engine,
    "leave engine unset, or name one of its engines; copy PSUM data to SBUF before gpsimd uses it",
    ARCHITECTURE,
)


# --- words


def shape_of(tensor: NkiTensor) -> str:
    """``[128, 512]``."""
    return "[" + ", ".join(str(n) for n in tensor.shape) + "]"


def value_of(value: Any) -> str:
    """An enumeration member by name, anything else as Python writes it."""
    return value.name if isinstance(value, enum.Enum) else repr(value)
