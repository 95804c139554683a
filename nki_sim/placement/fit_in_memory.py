"""Places a Program; where it does not fit, with tensors side by side, in another order, or spilled to HBM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nki_isa.diagnostics import Diagnostic, NkiMemoryError, Severity, span_of
from nki_isa.ir.program import Node, Program, walk
from nki_isa.ir.rewrite import in_order
from nki_isa.tensor.storage import MemoryRegion
from nki_sim import words
from nki_sim.placement import reorder, side_by_side
from nki_sim.placement.liveness import Liveness, liveness
from nki_sim.placement.place import Placement, place, spaces
from nki_sim.placement.refusals import described, kib
from nki_sim.placement.spill import Spill, Spilled, spilled
from nki_sim.placement.utilisation import Holder

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

#: Refusals of what is live at once, which depends on the order; any other is of a tensor alone.
_SBUF_OVERFLOW = "NKI-M001"
_OF_ORDER = frozenset({_SBUF_OVERFLOW, "NKI-M002", "NKI-M005"})

#: Shares of SBUF to spill down to, in turn, and whether tiles must then rotate. In one that is always full,
#: each copy waits for that whose bytes it takes: "v4" of the SDK's kernel-optimization tutorial takes 72 to
#: 92 ms with 15/16 and more, packed tightly, and 36 with less, where its tiles rotate (28 on hardware).
_SHARES = (
    *((share, True) for share in (1, 15 / 16, 29 / 32, 7 / 8)),
    *((share, False) for share in (1, 31 / 32, 15 / 16, 7 / 8, 3 / 4)),
)

_TOLD = 5  # spilled tensors that a warning lists

_NO_ORDER = (
    "no other order of the instructions that was tried within their dependencies fits either "
    "(nki-sim explain NKI-M006)"
)
_NO_SPILLS = (
    "nor does it fit with spills to HBM: tensors with addresses, those in PSUM and what one instruction or "
    "one loop on the device needs at once stay on chip"
)
_NOT_TRIED = "spills to HBM were not tried, as asked (--no-spill)"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A Program that fits.

    Attributes:
        program: in the order in which it fits, the kernel's own where that does, with the spills it needs.
        placement: where its tensors are.
        diagnostics: NKI-M006, a warning, where the order is not the kernel's own; NKI-M007, a note, where
            tensors of few partitions had to go side by side; NKI-M009, a warning, where tensors are spilled.
    """

    program: Program
    placement: Placement
    diagnostics: tuple[Diagnostic, ...] = ()


def fit(program: Program, target: Target, *, spills: bool = True) -> Fitted:
    """Place `program`; where it does not fit, with tensors side by side, in another order, or both.

    Where none of that fits, tensors of SBUF are spilled to HBM. Tensors with addresses stay there. The result
    computes what `program` does.

    Args:
        program: the kernel.
        target: the generation.
        spills: False to refuse what would have to be spilled.

    Raises:
        NkiMemoryError: what :func:`~nki_sim.placement.place.place` raises for the kernel's own order, where
            nothing of that fits.
    """
    try:
        return Fitted(program, place(program, target))
    except NkiMemoryError as refused:
        if not all(d.code in _OF_ORDER for d in refused.diagnostics):
            raise
        refusal = refused.diagnostics[0]
        for body, starts in _ways(program, target):
            other = in_order(program, body)
            try:
                placement = place(other, target, starts)
            except NkiMemoryError:
                continue
            return Fitted(other, placement, _told(program, other, placement, refusal))
        found = _with_spills(program, target, refusal) if spills else None
        if found is not None:
            return found
        of_sbuf = [_NO_SPILLS if spills else _NOT_TRIED] if refusal.code == _SBUF_OVERFLOW else []
        told = (replace(d, notes=(*d.notes, _NO_ORDER, *of_sbuf)) for d in refused.diagnostics)
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


def _with_spills(program: Program, target: Target, refusal: Diagnostic) -> Fitted | None:
    """With tensors spilled, in an order in which PSUM fits; None where not even that does."""
    live, space = liveness(program), spaces(target)
    for body in _orders_of_psum(program, live, target):
        other = in_order(program, body)
        live = live if other is program else liveness(other)
        for share, is_loose in _SHARES:
            capacity = int(space[MemoryRegion.sbuf].capacity * share)
            found = spilled(other, live, target, replace(space[MemoryRegion.sbuf], capacity=capacity))
            if found is None:
                continue
            try:
                placement = place(found.program, target, is_loose=is_loose)
            except NkiMemoryError as again:
                if again.diagnostics[0].code != _SBUF_OVERFLOW:
                    break
                continue
            order = [_warning(program, other, placement, refusal)] if other is not program else []
            return Fitted(found.program, placement, (*order, _cost(found, placement, refusal)))
    return None


def _orders_of_psum(program: Program, live: Liveness, target: Target) -> Iterator[list[Node]]:
    """The kernel's own order, then those that PSUM alone asks for."""
    yield program.body
    psum = MemoryRegion.psum
    yield from reorder.Reordering(program, live, {psum: spaces(target)[psum]}).orders({})


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


def _cost(found: Spilled, placement: Placement, refusal: Diagnostic) -> Diagnostic:
    """NKI-M009; it says what is moved, how often, and what that takes."""
    groups: dict[Any, list[Spill]] = {}
    for spill in found.spills:
        storage = spill.storage
        groups.setdefault((span_of(storage.stack), storage.shape, storage.dtype), []).append(spill)
    most = sorted(groups.values(), key=lambda group: -sum(s.bytes_out + s.bytes_in for s in group))
    many = f"{len(found.spills)} tensors are" if len(found.spills) > 1 else f"{most[0][0].storage.name} is"
    rest = sum(map(len, most[_TOLD:]))
    return replace(
        refusal,
        code="NKI-M009",
        severity=Severity.warning,
        message=f"fits only because {many} spilled: {_traffic(found)}, {words.time(found.time)} of the DMA "
        f"engines; without that, {refusal.message}",
        notes=(
            "what moves most:",
            *(f"  {_moved(group)}" for group in most[:_TOLD]),
            *([f"  and {words.counted(rest, 'more tensor')}"] if rest else []),
            f"with that, the peak of SBUF per partition is {kib(placement.sbuf.peak)}",
            *refusal.notes,
        ),
    )


def _traffic(found: Spilled) -> str:
    back = words.size(found.bytes_in)
    return (
        f"{words.size(found.bytes_out)} to HBM and {back} back" if found.bytes_out else f"{back} loaded again"
    )


def _moved(group: list[Spill]) -> str:
    """Tensors of one line and how much of them goes out and comes back."""
    storage, line = group[0].storage, span_of(group[0].storage.stack)
    several = f"{len(group)} x " if len(group) > 1 else ""
    where = f", {line.file}:{line.line}" if line else ""
    out, back = (words.size(sum(sizes)) for sizes in zip(*((s.bytes_out, s.bytes_in) for s in group)))
    return f"{out} out, {back} in: {several}{described(storage)}{where}"
