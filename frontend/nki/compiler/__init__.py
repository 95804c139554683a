"""From source text to a Program: lex and parse, check, specialize."""

from typing import Any

from nki.compiler.checker.check import check
from nki.compiler.config import AddressRotation, CompileConfig, SpecializationConfig
from nki.compiler.source.kernel_source import kernel_source
from nki.compiler.specializer.specialize import specialize_call
from nki_isa.ir.program import Program
from nki_isa.machine.target import Target
from nki_isa.machine.targets import as_target, default_target


def specialize(
    kernel: Any, *args: Any, profile: str = "library", target: Target | str | None = None, **kwargs: Any
) -> Program:
    """The Program of `kernel` for these arguments.

    Args:
        kernel: a kernel or a plain function.
        *args, **kwargs: as in a call of it; arrays give shapes and dtypes, their values are not read.
        profile: the language profile, ``"library"`` or ``"strict"``.
        target: ``"trn1"``, ``"trn2"`` or ``"trn3"``; None takes the environment's.

    Raises:
        NkiError: one exception with every diagnostic found.
    """
    chosen = default_target() if target is None else as_target(target) if isinstance(target, str) else target
    return specialize_call(kernel_source(kernel), args, kwargs, target=chosen, profile=profile).program


__all__ = ["AddressRotation", "CompileConfig", "SpecializationConfig", "check", "specialize"]
