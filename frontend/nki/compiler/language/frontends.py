"""Which front end makes the Programs of kernels: the parser, the tracer, or whichever a kernel needs.

The parser compiles the constrained language of NKI from its text; the tracer runs the function in Python
with each NKI call recorded, as NKI does since 0.7. Both feed one recorder. A choice is made with :func:`use`,
the environment variable ``NKI_COMPILER_FRONTEND`` or ``nki-sim --frontend``; it is of the process, as the API
level is.
"""

from __future__ import annotations

import enum
import os
from dataclasses import replace

from nki import levels
from nki_isa.diagnostics import NkiError, error

VARIABLE = "NKI_COMPILER_FRONTEND"

#: What a refusal of the parser's adds to its help: said only where it is accepted.
REMEDY = "or trace the kernel: nki-sim --frontend tracer, or NKI_COMPILER_FRONTEND=tracer"


class FrontEnd(str, enum.Enum):
    """The choices."""

    auto = "auto"
    parser = "parser"
    tracer = "tracer"


#: ``custom`` is the vendor's name of its old front end.
_NAMES = {**{choice.value: choice for choice in FrontEnd}, "custom": FrontEnd.parser}

_current = FrontEnd.auto


def read(text: str) -> FrontEnd:
    """A front end from what a user writes.

    Raises:
        NkiError: NKI-L032.
    """
    found = _NAMES.get(text.strip().lower())
    if found is None:
        known = ", ".join(_NAMES)
        raise error("NKI-L032", f"there is no front end {text!r}", help=f"write one of {known}")
    return found


def of_environment() -> FrontEnd:
    """The front end that ``NKI_COMPILER_FRONTEND`` names; auto where it is not set.

    Raises:
        NkiError: NKI-L032.
    """
    text = os.environ.get(VARIABLE)
    try:
        return read(text) if text else FrontEnd.auto
    except NkiError as found:
        note = f"the environment variable {VARIABLE} says so"
        raise NkiError(replace(d, notes=(*d.notes, note)) for d in found.diagnostics) from None


def use(choice: str | FrontEnd) -> FrontEnd:
    """Make `choice` the one in force; returns the one before.

    Raises:
        NkiError: NKI-L032.
    """
    global _current
    previous, _current = _current, read(choice.value if isinstance(choice, FrontEnd) else choice)
    return previous


def current() -> FrontEnd:
    """The choice in force."""
    return _current


def takes_python() -> bool:
    """True where a kernel may need more of Python than the parser takes: it is traced then."""
    return _current is FrontEnd.tracer or (_current is FrontEnd.auto and not levels.before("0.7"))


__all__ = ["FrontEnd", "current", "of_environment", "read", "takes_python", "use"]
