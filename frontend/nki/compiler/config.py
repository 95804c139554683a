"""How a kernel is to be compiled: ``nki.compiler.CompileConfig`` and what goes with it.

The settings steer parts of the vendor's compiler that are not modelled here: they are checked, kept with the
kernel, and change nothing but what nested kernels may differ in.

Source: SDK page ``nki.compiler`` and the source of its classes, Neuron 2.33.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
from typing import Any

from nki_isa.diagnostics import error
from nki_isa.tensor.kinds import shown


class AddressRotation(enum.Enum):
    """Whether memory may rotate through addresses."""

    AUTO = "auto"  # what the compiler places; fixed addresses stay
    ENABLE = "enable"
    DISABLE = "disable"


class _Checked:
    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            kind: Any = AddressRotation if field.name == "address_rotation" else bool
            if value is not ... and type(value) is not kind:
                right = "True or False" if kind is bool else "AddressRotation.AUTO"
                raise error(
                    "NKI-V154",
                    f"{type(self).__name__}: {field.name} is {shown(value)}, not of {kind.__name__}",
                    help=f"write {field.name}={right}",
                )


@dataclass(frozen=True, kw_only=True)
class CompileConfig(_Checked):
    """Settings of the compiler for one kernel; ``...`` leaves one to the compiler.

    Attributes:
        address_rotation: whether memory may rotate through addresses.
        non_ssa_legalization: legalization of values written more than once.
        dead_code_elim: leave out what no result depends on.
        barrier_check: check that the cores of a logical core meet.
        prefetch_auto: prefetch by DMA into a ring in SBUF.
        nki_alloc_fallback: where NKI's allocation fails, that of the graph compiler is tried.

    Raises:
        NkiError: NKI-V154 for a value of another kind.
    """

    address_rotation: Any = AddressRotation.AUTO
    non_ssa_legalization: Any = ...
    dead_code_elim: Any = ...
    barrier_check: Any = ...
    prefetch_auto: bool = False
    nki_alloc_fallback: bool = True


@dataclass(frozen=True, kw_only=True)
class SpecializationConfig(_Checked):
    """Settings of specialization for one kernel.

    Attributes:
        allow_nested_config_override: a nested kernel whose configuration differs is inlined under that of the
            outer one, with a warning; otherwise that is an error.

    Raises:
        NkiError: NKI-V154 for a value of another kind.
    """

    allow_nested_config_override: bool = False


__all__ = ["AddressRotation", "CompileConfig", "SpecializationConfig"]
