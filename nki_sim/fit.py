"""Places a Program, in another order of its instructions where its own does not fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nki_isa.diagnostics import Diagnostic, NkiMemoryError, Severity
from nki_isa.program import Program, walk
from nki_sim import reorder
from nki_sim.liveness import liveness
from nki_sim.place import Placement, place, spaces
from nki_sim.refusals import kib

if TYPE_CHECKING:
    from nki_isa.target import Target

#: Refusals of what is live at once, which depends on the order; any other is of a tensor alone.
_OF_ORDER = frozenset({"NKI-M001", "NKI-M002", "NKI-M005"})

_NO_ORDER = (
    "no other order of the instructions that was tried within their dependences fits either "
    "(nki-sim explain NKI-M006)"
)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A Program that fits.

    Attributes:
        program: in the order in which it fits, the kernel's own where that does.
        placement: where its tensors are.
        diagnostics: NKI-M006, a warning, where the order is not the kernel's own.
    """

    program: Program
    placement: Placement
    diagnostics: tuple[Diagnostic, ...] = ()


def fit(program: Program, target: Target) -> Fitted:
    """Place `program`, trying the orders of :mod:`nki_sim.reorder` where its own does not fit.

    Tensors with addresses stay there. The result computes what `program` does.

    Raises:
        NkiMemoryError: what :func:`nki_sim.place.place` raises for the kernel's own order, where no order
            that is tried fits.
    """
    try:
        return Fitted(program, place(program, target))
    except NkiMemoryError as refused:
        if not all(d.code in _OF_ORDER for d in refused.diagnostics):
            raise
        for body in reorder.orders(program, liveness(program), spaces(target)):
            other = replace(program, body=body)
            try:
                placement = place(other, target)
            except NkiMemoryError:
                continue
            warning = _warning(program, other, placement, refused.diagnostics[0])
            return Fitted(other, placement, (warning,))
        told = (replace(d, notes=(*d.notes, _NO_ORDER)) for d in refused.diagnostics)
        raise NkiMemoryError(told) from None


def _warning(before: Program, after: Program, placement: Placement, refusal: Diagnostic) -> Diagnostic:
    moved = reorder.moved(before.body, after.body)
    peaks = f"SBUF {kib(placement.sbuf.peak)}, PSUM {kib(placement.psum.peak)}"
    first = next(b for a, b in zip(before.body, after.body, strict=True) if a is not b)
    steps = sum(1 for _ in walk(before.body))
    what = f"{first.opcode}" if hasattr(first, "opcode") else "a device loop"
    where = f" of {first.stack[-1].span.file}:{first.stack[-1].span.line}" if first.stack else ""
    return replace(
        refusal,
        code="NKI-M006",
        severity=Severity.warning,
        message=f"fits only because {moved} of {steps} instructions run earlier or later than the kernel "
        f"states, which the compiler would have to find: as stated, {refusal.message}",
        notes=(
            f"in the order that runs here, the peaks per partition are {peaks}; "
            f"it first differs with {what}{where}",
            *refusal.notes,
        ),
    )
