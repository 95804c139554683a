"""Places a Program; where it does not fit, with tensors side by side or in another order of instructions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nki_isa.diagnostics import Diagnostic, NkiMemoryError, Severity
from nki_isa.ir.program import Node, Program, walk
from nki_isa.ir.rewrite import in_order
from nki_sim.placement import reorder, side_by_side
from nki_sim.placement.liveness import liveness
from nki_sim.placement.place import Placement, place, spaces
from nki_sim.placement.refusals import described, kib
from nki_sim.placement.utilisation import Holder

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

#: Refusals of what is live at once, which depends on the order; any other is of a tensor alone.
_OF_ORDER = frozenset({"NKI-M001", "NKI-M002", "NKI-M005"})

_NO_ORDER = (
    "no other order of the instructions that was tried within their dependencies fits either "
    "(nki-sim explain NKI-M006)"
)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A Program that fits.

    Attributes:
        program: in the order in which it fits, the kernel's own where that does.
        placement: where its tensors are.
        diagnostics: NKI-M006, a warning, where the order is not the kernel's own; NKI-M007, a note, where
            tensors of few partitions had to go side by side.
    """

    program: Program
    placement: Placement
    diagnostics: tuple[Diagnostic, ...] = ()


def fit(program: Program, target: Target) -> Fitted:
    """Place `program`; where it does not fit, with tensors side by side, in another order, or both.

    Tensors with addresses stay there. The result computes what `program` does.

    Raises:
        NkiMemoryError: what :func:`~nki_sim.placement.place.place` raises for the kernel's own order, where
            no order that is tried fits, with tensors of few partitions side by side or not.
    """
    try:
        return Fitted(program, place(program, target))
    except NkiMemoryError as refused:
        if not all(d.code in _OF_ORDER for d in refused.diagnostics):
            raise
        for body, starts in _ways(program, target):
            other = in_order(program, body)
            try:
                placement = place(other, target, starts)
            except NkiMemoryError:
                continue
            return Fitted(other, placement, _told(program, other, placement, refused.diagnostics[0]))
        told = (replace(d, notes=(*d.notes, _NO_ORDER)) for d in refused.diagnostics)
        raise NkiMemoryError(told) from None


def _ways(program: Program, target: Target) -> Iterator[tuple[list[Node], dict[int, int] | None]]:
    """Orders of instructions, and at which partitions tensors start, to try in turn."""
    live = liveness(program)
    beside = side_by_side.starts(program, live, target)
    if beside:
        yield program.body, beside
    reordering = reorder.Reordering(program, live, spaces(target))
    for starts in ({}, beside) if beside else ({},):
        for body in reordering.orders(starts):
            yield body, starts or None


def _told(
    before: Program, after: Program, placement: Placement, refusal: Diagnostic
) -> tuple[Diagnostic, ...]:
    """NKI-M006 if the order is another, NKI-M007 if tensors lie side by side."""
    beside = [h for h in placement.sbuf.live if h.partition and h.storage.address is None]
    return (
        *([_warning(before, after, placement, refusal)] if after is not before else []),
        *([_note(beside, placement, refusal)] if beside else []),
    )


def _note(moved: list[Holder], placement: Placement, refusal: Diagnostic) -> Diagnostic:
    """NKI-M007; it says what lies at other partitions than 0."""
    largest = max(moved, key=lambda h: (h.storage.row_bytes, -h.storage.index))
    many = f"{len(moved)} tensors" if len(moved) > 1 else largest.storage.name
    return replace(
        refusal,
        code="NKI-M007",
        severity=Severity.note,
        message=f"fits with {many} placed beside others, at partition 32 or later; "
        f"with all of them at partition 0, {refusal.message}",
        help="nothing need change: instructions take as long at other partitions; to leave nothing to the "
        "compiler, give the large tensors addresses",
        notes=(
            f"side by side, the peak of SBUF per partition is {kib(placement.sbuf.peak)}",
            f"{described(largest.storage)} is at partition {largest.partition}, byte {largest.offset}",
        ),
    )


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
