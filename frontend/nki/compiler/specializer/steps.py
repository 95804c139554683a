"""A limit on what a kernel's meta-program may do, so that one without end is told and not waited for.

Counted are turns of loops (``for``, ``while``, comprehensions), calls of the kernel's functions, and emitted
instructions, of which each counts as several. The count is of one specialization, through all loops and
functions, so that nested loops that are each short end as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice, repeat

from nki_isa.diagnostics import NkiError, error
from nki_sim.process import positive_setting

VARIABLE = "NKI_SIM_MAX_STEPS"
DEFAULT = 5_000_000
INSTRUCTION = 10  # steps that an instruction counts as


class WithoutEnd(NkiError):
    """A kernel took all its steps."""


def steps() -> Iterator[bool]:
    """True for each step that there is; after the last it raises NKI-L035.

    Raises:
        NkiError: NKI-L032 for a setting that is not a positive number.
    """
    most = positive_setting(VARIABLE, DEFAULT)
    return chain(repeat(True, most), _spent(most))


def _spent(most: int) -> Iterator[bool]:
    """Raises NKI-L035, without a place: it is raised at the line that took the last step."""
    yield from ()
    found = error(
        "NKI-L035",
        f"the kernel is not compiled after {most:,} steps of its loops, calls and instructions "
        f"(an instruction counts as {INSTRUCTION})",
        help="give the loop around this line a condition that ends it; for a kernel that needs more, set "
        f"{VARIABLE}={2 * most}",
    )
    raise WithoutEnd(found.diagnostics)


def by_instruction(left: Iterator[bool]) -> Iterator[bool]:
    """Takes the steps of one instruction at a time."""
    return islice(left, INSTRUCTION - 1, None, INSTRUCTION)
