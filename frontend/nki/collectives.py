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
from nki.isa import entry
from nki.objects import NKIObject
from nki_isa.diagnostics import error
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ops.collective import Collective
from nki_isa.tensor.kinds import is_whole
from nki_isa.tensor.tensor import VirtualRegister


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


_VECTOR = (
    "srcs",
    "dsts",
    "replica_group",
    "metadata_tensor",
    "recv_counts_known=False",
    "has_rdispls=False",
    "priority=None",
    "name=None",
)
_TRIGGER = ("prepare_instr", "name=None")

#: Operations whose sizes are known at run time only, with their parameters.
_NOT_MODELLED = {
    f"{name}_v{step}": parameters
    for name in ("all_gather", "all_to_all")
    for step, parameters in (("", _VECTOR), ("_prepare", _VECTOR), ("_trigger", _TRIGGER))
}


def _parameter(text: str) -> inspect.Parameter:
    name, _, default = text.partition("=")
    value = {"None": None, "False": False}[default] if default else inspect.Parameter.empty
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value)


def _refusing(name: str, parameters: tuple[str, ...]) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise error(
            "NKI-U011",
            f"nki.collectives.{name}, whose sizes are known at run time only, is not modelled",
            help=f"pad to equal sizes and write {name.partition('_v')[0]}",
        )

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = "Refused (NKI-U011): sizes that are known at run time only are not modelled."
    refuse.__signature__ = inspect.Signature([_parameter(p) for p in parameters])  # type: ignore[attr-defined]
    return refuse


def _asking(cls: type[Instruction]) -> Callable[..., VirtualRegister]:
    """The function that emits an instruction of `cls` and gives its result, a new register."""

    def ask(*args: Any, **kwargs: Any) -> VirtualRegister:
        register = current().new_register()
        current().emit(cls(register, *args, **kwargs))
        return register

    parameters = [p for p in cls.signature.parameters.values() if p.name != "dst"]
    ask.__name__ = ask.__qualname__ = cls.opcode
    ask.__doc__ = cls.__doc__
    ask.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return levels.leveled(__name__, cls.opcode, ask)


OPERATIONS: dict[str, Callable[..., Any]] = {
    **{
        name: entry(cls) if issubclass(cls, Collective) else _asking(cls)
        for name, cls in REGISTRY.items()
        if cls.namespace == __name__
    },
    **{name: levels.leveled(__name__, name, _refusing(name, p)) for name, p in _NOT_MODELLED.items()},
}
globals().update(OPERATIONS)

__all__ = ["ReplicaGroup", *OPERATIONS]
