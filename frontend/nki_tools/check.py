"""What is wrong with a kernel call? Its text, shapes, instructions and memory, in one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nki import runtime
from nki_isa.diagnostics import Diagnostic, NkiError

if TYPE_CHECKING:
    from nki.kernel import Kernel
    from nki_isa.machine.target import Target


def check(
    kernel: Kernel,
    *args: Any,
    target: Target | str | None = None,
    language: str = "library",
    spill: bool = True,
    **kwargs: Any,
) -> tuple[Diagnostic, ...]:
    """Everything that is found of ``kernel(*args, **kwargs)`` without arithmetic: errors, warnings, notes.

    Args:
        target: the generation; that of the environment if it is None.
        language: the language profile, ``"library"`` or ``"strict"``.
        spill: False to refuse a kernel that fits SBUF only with spills to HBM.

    Returns:
        What was found, each with its place and what to write instead; none of it is raised.
    """
    with runtime.session(target=target, profile=language, data=False, check="all", spill=spill) as session:
        try:
            kernel(*args, **kwargs)
        except NkiError as refused:
            return tuple(refused.diagnostics)
    return session.launches[-1].diagnostics


__all__ = ["check"]
