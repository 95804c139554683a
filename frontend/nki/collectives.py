"""``nki.collectives``: operations between ranks.

The operations are made from the classes in :mod:`nki_isa.ops.collective`. A kernel that is called has one
rank; ``nki.simulate(kernel, ranks=8)`` launches it on several.

Source: SDK API page ``nki.collectives``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nki import levels
from nki.compiler.specializer.recorder import current
from nki.isa import NkiInstruction, entry
from nki.objects import NKIObject
from nki_isa.diagnostics import error
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.machine.dtypes import DTYPES
from nki_isa.ops.collective import Collective
from nki_isa.ops.collective_halves import Preparation, Triggered
from nki_isa.tensor.kinds import is_whole
from nki_isa.tensor.storage import MemoryRegion, VirtualRegister


@dataclass
class ReplicaGroup(NKIObject):
    """Groups of ranks that take part in a collective.

    Attributes:
        groups: lists of ranks; no rank is in two of them.

    Raises:
        NkiError: NKI-V142 for anything else.
    """

    groups: Any = ()

    def __post_init__(self) -> None:
        lists = (list, tuple, range)
        groups: Any = self.groups if isinstance(self.groups, lists) else [None]
        parts = [group if isinstance(group, lists) else [None] for group in groups]
        ranks: list[Any] = [rank for group in parts for rank in group]
        if any(not is_whole(rank) or rank < 0 for rank in ranks) or len(set(ranks)) != len(ranks):
            raise error(
                "NKI-V142",
                f"ReplicaGroup({self.groups!r}) is not made of lists of ranks with each rank once",
                help="write nki.collectives.ReplicaGroup([[0, 1], [2, 3]])",
            )


def _preparing(cls: type[Instruction]) -> Callable[..., NkiInstruction]:
    """The function that emits a preparation of `cls`, with descriptors of its own to write to."""
    emit = entry(cls)

    def prepare(*args: Any, **kwargs: Any) -> NkiInstruction:
        handle = emit(*args, **kwargs)
        made: Any = handle.instruction
        if not made.misfits:
            shape = 4, len(made.replica_group[0])
            made.descriptors = current().allocate(
                shape, DTYPES["uint32"], MemoryRegion.private_hbm, part="descriptors"
            )
            made.form = None
        return handle

    return _named_after(cls, prepare)


def _triggering(cls: type[Triggered]) -> Callable[..., NkiInstruction]:
    """The function that emits a trigger of `cls`, of what a preparation returned."""
    prepares = cls.preparation.opcode

    def trigger(*args: Any, **kwargs: Any) -> NkiInstruction:
        cls.bind(len(args), kwargs)
        given = dict(zip(cls.parameters, args)) | kwargs
        prepare_instr: Any = given["prepare_instr"]
        prepared: Any = prepare_instr.instruction if isinstance(prepare_instr, NkiInstruction) else None
        if prepared is None or not isinstance(prepared, cls.preparation):
            got = prepared.opcode if prepared is not None else type(prepare_instr).__name__
            raise error(
                "NKI-V100",
                f"{cls.opcode}: prepare_instr is what {prepares} returns, it got {got}",
                help=f"write {cls.opcode}(nki.collectives.{prepares}(...))",
            )
        if prepared.misfits:  # it is reported, and nothing else can be asked of it
            return prepare_instr
        copied = ("srcs", "dsts", "replica_group", "metadata_tensor", "recv_counts_known", "has_rdispls")
        values = {key: prepared.__dict__[key] for key in copied}
        made = cls(**{**given, **values, "prepare_instr": prepared.descriptors})
        return NkiInstruction(current().emit(made))

    return _named_after(cls, trigger)


def _asking(cls: type[Instruction]) -> Callable[..., VirtualRegister]:
    """The function that emits an instruction of `cls` and gives its result, a new register."""

    def ask(*args: Any, **kwargs: Any) -> VirtualRegister:
        register = current().new_register()
        current().emit(cls(register, *args, **kwargs))
        return register

    return _named_after(cls, ask)


def _named_after(cls: type[Instruction], function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as the function of the API that `cls` is, at every level."""
    parameters = [p for p in cls.signature.parameters.values() if p.name != "dst"]
    function.__name__ = function.__qualname__ = cls.opcode
    function.__doc__ = cls.__doc__
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return levels.leveled(__name__, cls.opcode, function)


def _function_of(cls: type[Instruction]) -> Callable[..., Any]:
    if issubclass(cls, Preparation):
        return _preparing(cls)
    if issubclass(cls, Triggered):
        return _triggering(cls)
    return entry(cls) if issubclass(cls, Collective) else _asking(cls)


OPERATIONS: dict[str, Callable[..., Any]] = {
    name: _function_of(cls) for name, cls in REGISTRY.items() if cls.namespace == __name__
}
globals().update(OPERATIONS)

__all__ = ["ReplicaGroup", *OPERATIONS]
