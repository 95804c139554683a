"""The fields of an instruction: what it does with each, its default, and the kinds of values it takes."""

from __future__ import annotations

import enum
import inspect
from dataclasses import dataclass
from typing import Any

from nki_isa.tensor.kinds import WORD, Kind, kinds_of, member_of, optional


class Role(enum.Enum):
    """What an instruction does with a field."""

    read = "read"
    write = "write"
    read_write = "read_write"  # reads its old contents too (accumulation)
    scalar = "scalar"  # an immediate, a tile of one column, or a register: read
    reads = "reads"  # a list of tensors, all read
    writes = "writes"  # a list of tensors, all overwritten
    register_read = "register_read"
    register_write = "register_write"
    attribute = "attribute"  # known at compile time


REQUIRED: Any = inspect.Parameter.empty

#: What the operand of a role is, as an annotation of :mod:`nki_isa.tensor.kinds`.
_OPERAND = {
    Role.read: "NkiTensor",
    Role.write: "NkiTensor",
    Role.read_write: "NkiTensor",
    Role.scalar: "float | NkiTensor | VirtualRegister",
    Role.reads: "list[NkiTensor]",
    Role.writes: "list[NkiTensor]",
    Role.register_write: "VirtualRegister",
}


@dataclass(slots=True)
class Field:
    """One parameter of an instruction: its role, default and, for attributes, its kind.

    `kinds` are the kinds of values it takes, None among them if it is `optional`.
    One that is not `public` is not a parameter of the API: what an older level of the API says differently.
    """

    role: Role
    default: Any = REQUIRED
    kind: Any = None
    name: str = ""
    public: bool = True
    kinds: tuple[Kind, ...] = ()
    optional: bool = False

    def settle(self, annotation: str) -> None:
        """Work out `kinds` (none where the instruction's own rules say it) and `optional`."""
        self.optional = self.default is None or optional(annotation)
        if self.role is Role.register_read:
            self.kinds = *kinds_of("VirtualRegister"), WORD
        elif self.kind is int:
            self.kinds = (WORD,)
        elif self.is_operand:
            listed = self.role in (Role.reads, Role.writes)  # their items may be lists, by the annotation
            self.kinds = (kinds_of(annotation) if listed else ()) or kinds_of(_OPERAND[self.role])
        elif isinstance(self.kind, enum.EnumMeta):
            self.kinds = (member_of(self.kind),)
        else:
            self.kinds = kinds_of(annotation or getattr(self.kind, "__name__", ""))

    @property
    def usual(self) -> frozenset[type]:
        """Types whose values all are of a kind it takes."""
        none = frozenset({type(None)}) if self.optional else frozenset()
        return none.union(*(kind.usual for kind in self.kinds))

    @property
    def is_operand(self) -> bool:
        """True if the machine touches memory or registers for it."""
        return self.role is not Role.attribute


def read(default: Any = REQUIRED) -> Any:
    """A tensor the instruction reads; a default of None makes it optional."""
    return Field(Role.read, default)


def write(default: Any = REQUIRED) -> Any:
    """A tensor the instruction overwrites."""
    return Field(Role.write, default)


def read_write(default: Any = REQUIRED) -> Any:
    """A tensor the instruction updates in place."""
    return Field(Role.read_write, default)


def scalar(default: Any = REQUIRED) -> Any:
    """An immediate number, a one-column tile or a register."""
    return Field(Role.scalar, default)


def reads(default: Any = REQUIRED) -> Any:
    """A list of tensors the instruction reads."""
    return Field(Role.reads, default)


def writes(default: Any = REQUIRED) -> Any:
    """A list of tensors the instruction overwrites."""
    return Field(Role.writes, default)


def register_read(default: Any = REQUIRED) -> Any:
    """A register (or an int) the instruction reads."""
    return Field(Role.register_read, default)


def register_write(default: Any = REQUIRED) -> Any:
    """A register the instruction writes."""
    return Field(Role.register_write, default)


def attribute(kind: Any, default: Any = REQUIRED, *, public: bool = True) -> Any:
    """A compile-time value; `kind` names its type: an Enum class, ``Operator``, bool, int, tuple, str."""
    return Field(Role.attribute, default, kind, public=public)
