"""The errors of placement: what is needed, what is there, who holds it, and the line that tipped it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import Label, NkiError, NkiMemoryError, error, span_of
from nki_isa.machine.targets import TARGETS
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_sim import words
from nki_sim.placement.utilisation import Holder, bars, by_line, samples

if TYPE_CHECKING:
    from nki_isa.ir.program import Program
    from nki_isa.machine.target import Target

_KIB = 1024
_ROWS = 12  # of the table of holders
_CELLS = 72  # of the curve
_LABELS = 3  # heaviest lines pointed at,
_NOTABLE = 0.1  # if they hold this share of the peak

#: By region: the code, and the figures of the target that say how much there is and how much of it is usable.
_OVERFLOWS = {
    MemoryRegion.sbuf: ("NKI-M001", "sbuf_partition_bytes", "sbuf_usable_bytes"),
    MemoryRegion.psum: ("NKI-M002", "psum_partition_bytes", "psum_partition_bytes"),
}


def too_much_hbm(program: Program, target: Target) -> NkiMemoryError | None:
    """NKI-M003 where the HBM tensors of `program` exceed the HBM of the whole device; None where they fit."""
    storages = [s for s in program.storages if s.region.is_hbm]
    total = sum(s.row_bytes for s in storages)
    if total <= target.hbm_bytes:
        return None
    largest = max(storages, key=lambda s: s.row_bytes)
    gib = 1 << 30
    return _at(
        error(
            "NKI-M003",
            f"the HBM tensors of {program.name} take {total / gib:,.1f} GiB, {described(largest)} alone "
            f"{largest.row_bytes / gib:,.1f} GiB; {target.name} has {target.hbm_bytes / gib:,.0f} GiB of HBM",
            help="check the shape of that tensor; split it over several kernel calls if it is meant",
        ),
        largest,
    )


def too_large(storage: Storage, capacity: int, target: Target) -> NkiMemoryError:
    """NKI-M003: one tensor exceeds its memory."""
    region = storage.region.value.upper()
    return _at(
        error(
            "NKI-M003",
            f"{described(storage)} takes {kib(storage.row_bytes)} per partition; "
            f"all of {region} on {target.name} is {kib(capacity)} per partition",
            help="split the tensor along its free dimensions and work on one piece at a time",
            notes=_capacities(storage.region, storage.row_bytes, target),
        ),
        storage,
    )


def host_overflow(program: Program, needed: int, available: int) -> NkiMemoryError:
    """NKI-M008: a launch needs `needed` bytes of the host's memory, which has `available`."""
    held = [storage for storage in program.storages if storage.region.is_hbm]
    message = (
        f"running {program.name} takes {words.size(needed)} of the memory of this machine, "
        f"which has {words.size(available)} left"
    )
    help = (
        "try smaller shapes, or ask for what needs no data: nki-sim profile --no-data, sbuf, check; "
        "from Python nki.runtime.session(data=False)"
    )
    return _heaviest(error("NKI-M008", message, help=help, notes=_largest(held)), held)


def _heaviest(found: NkiError, held: Sequence[Storage]) -> NkiMemoryError:
    """`found` at the allocation of the largest tensor that a line of the kernel allocates."""
    own = [storage for storage in held if storage.stack]
    return (
        _at(found, max(own, key=lambda storage: storage.row_bytes))
        if own
        else NkiMemoryError(found.diagnostics)
    )


def _largest(held: Sequence[Storage]) -> list[str]:
    """The largest tensors, a line each."""
    by_size = sorted(held, key=lambda storage: -storage.row_bytes)[:_LABELS]
    return [f"{words.size(storage.row_bytes)}: {described(storage)}" for storage in by_size]


def misplaced(storage: Storage, address: tuple[int, int], problem: str, remedy: str) -> NkiMemoryError:
    """NKI-M004: an address outside its memory, or not where a tensor may start."""
    message = f"{described(storage)} is given the address {address}: {problem}"
    return _at(error("NKI-M004", message, help=remedy), storage)


def too_many_groups(
    open_groups: Sequence[tuple[Holder, int]], banks: int, limit: int, target: Target
) -> NkiMemoryError:
    """NKI-M005: more open accumulations than banks, as (tensor, position of its first matmul)."""
    newest, _ = max(open_groups, key=lambda group: group[1])
    return _at(
        error(
            "NKI-M005",
            f"matmuls accumulate into {banks} PSUM banks at once; {target.name} has {limit}",
            help="finish accumulating into one tensor and copy it to SBUF before starting another",
            notes=["accumulating at once, per partition:", *_table([holder for holder, _ in open_groups])],
        ),
        newest.storage,
    )


def overflow(
    program: Program, holders: Sequence[Holder], usage: NDArray[np.int64], capacity: int, target: Target
) -> NkiMemoryError:
    """NKI-M001 or NKI-M002: too much is live at once, or what is live does not pack.

    Placed at the allocation of the tensor that tipped it, with labels at the instruction that needs it and
    at the allocations that hold most.

    Args:
        program: the kernel.
        holders: the live tensors of one memory; offsets count only where the storage has an address.
        usage: bytes per partition they hold at each position.
        capacity: bytes per partition there are.
        target: the generation.
    """
    region = holders[0].storage.region
    label = region.value.upper()
    peak, at = int(usage.max(initial=0)), int(usage.argmax())
    is_over = peak > capacity
    tipped = int((usage > capacity).argmax()) if is_over else at
    if is_over:
        message = (
            f"{label} overflows: {kib(peak)} per partition are live at once, "
            f"{kib(capacity)} are available on {target.name}"
        )
    else:
        message = (
            f"{label} overflows: {kib(peak)} of {kib(capacity)} per partition are live at once "
            f"on {target.name}, but no placement was found that leaves the free bytes in one piece"
        )
    held = [h for h in holders if h.first <= at <= h.last]
    groups = by_line(held)
    culprit = max(
        (h for h in holders if h.first <= tipped <= h.last), key=lambda h: (h.first, h.storage.index)
    )
    notes = [
        f"live at the peak (instruction {at} of {len(usage)}), per partition:",
        *_table(held),
        _tipping(culprit, tipped, usage),
        *(_curve(usage, capacity) if is_over else []),
        *_capacities(region, peak, target),
    ]
    refused = error(_OVERFLOWS[region][0], message, help=_advice(groups[0], peak), notes=notes)
    return _with_labels(_at(refused, culprit.storage), _labels(program, culprit, tipped, usage, groups))


# --- the parts of the picture


def _advice(heaviest: list[Holder], peak: int) -> str:
    share = sum(h.storage.row_bytes for h in heaviest)
    line = span_of(heaviest[0].storage.stack)
    where = f" allocated at {line.file}:{line.line}" if line else ""
    count = len(heaviest)
    they = f"the {count} tensors{where} take" if count > 1 else f"the tensor{where} takes"
    return (
        f"shrink, split or finish with {described(heaviest[0].storage)} first: "
        f"{they} {kib(share)} of the {kib(peak)}"
    )


def _tipping(culprit: Holder, tipped: int, usage: NDArray[np.int64]) -> str:
    before = int(usage[tipped - 1]) if tipped else 0
    line = span_of(culprit.storage.stack)
    where = f", allocated at {line.file}:{line.line}," if line else ""
    return (
        f"{described(culprit.storage)}{where} tipped it: {kib(culprit.storage.row_bytes)} "
        f"where {kib(before)} were held, at instruction {tipped}"
    )


def _curve(usage: NDArray[np.int64], capacity: int) -> list[str]:
    """The bytes held over program order as bars, those above the capacity marked."""
    over = "".join("^" if held > capacity else " " for _, held in samples(usage, _CELLS))
    title = f"held over the {len(usage)} instructions, up to {kib(int(usage.max(initial=0)))}; too much at ^:"
    return [title, f"  {bars(usage, _CELLS)}".rstrip(), f"  {over}".rstrip()]


def _capacities(region: MemoryRegion, needed: int, target: Target) -> list[str]:
    """What this generation has and keeps, each with its source, and which others would do."""
    _, whole, usable = _OVERFLOWS[region]
    label, total, left = region.value.upper(), getattr(target, whole), getattr(target, usable)
    lines = [f"{label} of {target.name}: {kib(total)} per partition ({_source(target, whole)})"]
    if left < total:
        lines.append(
            f"a kernel may use {kib(left)} of it, the compiler keeps the rest ({_source(target, usable)})"
        )
    others = [(t, getattr(t, usable)) for t in TARGETS.values() if t is not target]
    if any(size != left for _, size in others):
        fits = [f"{t.name} {kib(size)}{' (fits)' if needed <= size else ''}" for t, size in others]
        lines.append(f"usable on other generations: {', '.join(fits)}")
    return lines


def _source(target: Target, figure: str) -> str:
    source = target.source(figure)
    return f"{source.evidence.value}: {source.reference}"


def _labels(
    program: Program, culprit: Holder, tipped: int, usage: NDArray[np.int64], groups: list[list[Holder]]
) -> tuple[Label, ...]:
    labels = []
    instruction = next(islice(program.walk(), tipped, None), None)
    if instruction is not None and instruction.stack:
        needs = f"{instruction.opcode} needs it while {kib(int(usage[tipped]))} are held"
        labels.append(Label(instruction.stack[-1].span, needs))
    for group in groups[:_LABELS]:
        line, held = span_of(group[0].storage.stack), sum(h.storage.row_bytes for h in group)
        if line and line != span_of(culprit.storage.stack) and held >= _NOTABLE * usage.max():
            count = f" by {len(group)} tensors" if len(group) > 1 else ""
            labels.append(Label(line, f"{kib(held)} held{count}"))
    return tuple(labels)


def _with_labels(refused: NkiMemoryError, labels: tuple[Label, ...]) -> NkiMemoryError:
    return NkiMemoryError(replace(d, labels=labels) for d in refused.diagnostics)


def _table(holders: Sequence[Holder]) -> list[str]:
    """A line for each allocation: KiB, count, name, dtype, shape, address, live range, place."""
    groups = by_line(holders)
    rows = []
    for group in groups[:_ROWS]:
        storage, several = group[0].storage, len(group) > 1
        line = span_of(storage.stack)
        parts = [
            f"{kib(sum(h.storage.row_bytes for h in group))}: {f'{len(group)} x ' if several else ''}"
            f"{described(storage)}{f' ({kib(storage.row_bytes)} each)' if several else ''}",
            *([f"address {storage.address}"] if storage.address and not several else []),
            f"live {min(h.first for h in group)} to {max(h.last for h in group)}",
            *([f"{line.file}:{line.line}"] if line else []),
        ]
        rows.append(", ".join(parts))
    rest = [h for group in groups[_ROWS:] for h in group]
    if rest:
        rows.append(f"{kib(sum(h.storage.row_bytes for h in rest))}: {len(rest)} more tensors")
    return [f"  {row}" for row in rows]


def described(storage: Storage) -> str:
    """Name, dtype and shape."""
    return f"{storage.name} {storage.dtype}[{', '.join(map(str, storage.shape))}]"


def kib(size: int) -> str:
    """Bytes as text, in KiB from one on."""
    if size < _KIB:
        return f"{size} bytes"
    return f"{size / _KIB:.1f} KiB" if size % _KIB else f"{size // _KIB} KiB"


def _at(problem: NkiError, storage: Storage) -> NkiMemoryError:
    return NkiMemoryError(problem.at(span_of(storage.stack), storage.stack).diagnostics)
