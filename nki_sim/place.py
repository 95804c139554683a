"""Where every SBUF and PSUM tensor of a Program lives, and how full the memories are.

A tensor with an address goes exactly there; overlap among such tensors is the
user's choice (hazards are the sanitizer's business). Every other tensor gets
bytes that nothing else holds while it is live, from partition 0 on, in all 128
partitions whatever its partition count:

1. In order of first use, each takes the bytes whose last use is longest past,
   so that the tiles of an unrolled loop rotate (double buffering) while there
   is room: units of 32 bytes in SBUF, whole banks in PSUM.
2. Where that does not fit, long-lived tensors are packed tightly first and the
   others rotate in what is left; where that does not fit either, all are packed
   tightly, large ones first. Then PSUM tensors may share a bank, but not while
   matmuls accumulate into both.

A PSUM tensor of up to a bank stays within one; a larger one starts at a bank.

The vendor's compiler does not publish its allocation; the result here is one
legal placement, the same every time, and the peak it reports is the sum of
what is live, which no allocator can undercut.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import NkiMemoryError, Span, error
from nki_isa.program import Program
from nki_isa.tensor import MemoryRegion, Storage
from nki_sim.liveness import NEVER, Liveness, liveness
from nki_sim.packing import Fixed, Requests, Space, pack

if TYPE_CHECKING:
    from nki_isa.target import Target

#: Bytes SBUF placements rotate in: the default alignment of the kernel library's allocator
#: (SDK nki/library/kernel-utils/allocator, ``align_stack_curr_addr``).
_SBUF_UNIT = 32

#: Bytes offsets are multiples of when packed tightly: the widest element. The vendor's open front end
#: (leanprover/KLR, ``kernelEnv``) gives ``sbuf_min_align`` 1 and ``psum_min_align`` 4.
_ALIGN = 4

_SAMPLES = 200
_TABLE_ROWS = 12
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Holder:
    """A tensor with its place.

    Attributes:
        storage: the tensor's storage.
        partition: its first partition.
        offset: its first byte in each partition.
        first: position of the first instruction that needs it, -1 if none does.
        last: position of the last one, included.
    """

    storage: Storage
    partition: int
    offset: int
    first: int
    last: int

    @property
    def end(self) -> int:
        """The byte after its last one in each partition."""
        return self.offset + self.storage.row_bytes


@dataclass(frozen=True, slots=True)
class Utilisation:
    """One memory over program order.

    Attributes:
        region: SBUF or PSUM.
        capacity: bytes per partition a kernel may use.
        bank: bytes of a bank, 0 where there are none.
        holders: every tensor of this memory, in order of allocation.
        usage: bytes per partition held at each position; overlapping tensors count once.
    """

    region: MemoryRegion
    capacity: int
    bank: int
    holders: tuple[Holder, ...]
    usage: NDArray[np.int64]

    @property
    def peak(self) -> int:
        """The most bytes per partition held at once."""
        return int(self.usage.max(initial=0))

    @property
    def peak_at(self) -> int:
        """The first position at which the peak is held."""
        return int(self.usage.argmax()) if len(self.usage) else 0

    @property
    def high_water(self) -> int:
        """The byte after the highest one any live tensor is given."""
        return max((h.end for h in self.holders if h.first != NEVER), default=0)

    def held_at(self, position: int) -> list[Holder]:
        """The tensors live at `position`, largest first."""
        return _largest_first(h for h in self.holders if h.first <= position <= h.last and h.first != NEVER)

    def banks_at(self, position: int) -> int:
        """Banks that tensors live at `position` touch; 0 for a memory without banks."""
        if not self.bank:
            return 0
        touched = (range(h.offset // self.bank, -(-h.end // self.bank)) for h in self.held_at(position))
        return len({bank for banks in touched for bank in banks})

    def samples(self, limit: int = _SAMPLES) -> list[tuple[int, int]]:
        """At most `limit` (position, bytes) pairs: the fullest position of each of that many stretches."""
        chosen = []
        for stretch in np.array_split(np.arange(len(self.usage)), min(limit, len(self.usage)) or 1):
            if len(stretch):
                fullest = int(stretch[self.usage[stretch].argmax()])
                chosen.append((fullest, int(self.usage[fullest])))
        return chosen

    def report(self) -> dict[str, Any]:
        """Plain values: sizes in KiB per partition, positions in program order."""
        at = self.peak_at
        return {
            "capacity_kib": self.capacity / _KIB,
            "peak_kib": self.peak / _KIB,
            "peak_at": at,
            "high_water_kib": self.high_water / _KIB,
            "banks": self.capacity // self.bank if self.bank else None,
            "banks_at_peak": self.banks_at(at) if self.bank else None,
            "tensors": len(self.holders),
            "held_at_peak": [_row(h) for h in self.held_at(at)],
            "timeline": [{"at": p, "kib": used / _KIB} for p, used in self.samples()],
        }


def _row(holder: Holder) -> dict[str, Any]:
    storage = holder.storage
    span = _line_of(storage)
    return {
        "name": storage.name,
        "shape": list(storage.shape),
        "dtype": str(storage.dtype),
        "kib": storage.row_bytes / _KIB,
        "partition": holder.partition,
        "byte": holder.offset,
        "explicit": storage.address is not None,
        "first": holder.first,
        "last": holder.last,
        "file": span.file if span else None,
        "line": span.line if span else None,
    }


@dataclass(frozen=True, slots=True)
class Placement:
    """The places of all on-chip tensors of one Program.

    Attributes:
        addresses: (first partition, first byte in each partition) by storage index.
        sbuf: how full SBUF is.
        psum: how full PSUM is.
    """

    addresses: dict[int, tuple[int, int]]
    sbuf: Utilisation
    psum: Utilisation

    def report(self) -> dict[str, Any]:
        """Utilisation of both memories as plain values, ready for JSON."""
        return {
            "instructions": len(self.sbuf.usage),
            "sbuf": self.sbuf.report(),
            "psum": self.psum.report(),
        }


def place(program: Program, target: Target) -> Placement:
    """Give every SBUF and PSUM tensor of `program` its bytes.

    Raises:
        NkiMemoryError: NKI-M001 or NKI-M002, what is live at once exceeds SBUF or PSUM; NKI-M003, one
            tensor does; NKI-M004, an explicit address is outside its memory or misaligned; NKI-M005,
            matmuls accumulate into more PSUM banks at once than there are.
    """
    live = liveness(program)
    sbuf = _Room(
        MemoryRegion.sbuf, target.partitions, Space(target.sbuf_usable_bytes, _SBUF_UNIT, _ALIGN), "NKI-M001"
    )
    bank = target.psum_bank_bytes
    psum = _Room(
        MemoryRegion.psum, target.partitions, Space(target.psum_banks * bank, bank, _ALIGN, bank), "NKI-M002"
    )
    found = [room.place(program, live, target) for room in (sbuf, psum)]
    addresses = {h.storage.index: (h.partition, h.offset) for used in found for h in used.holders}
    return Placement(addresses, *found)


@dataclass(frozen=True, slots=True)
class _Room:
    """One memory to place into."""

    region: MemoryRegion
    partitions: int
    space: Space
    overflow: str

    @property
    def label(self) -> str:
        return self.region.value.upper()

    def place(self, program: Program, live: Liveness, target: Target) -> Utilisation:
        storages = [s for s in program.storages if s.region is self.region]
        for storage in storages:
            self._check_size(storage, target)
            if storage.address is not None:
                self._check_address(storage, storage.address, target)
        used = [s for s in storages if live.first[s.index] != NEVER]
        fixed = _fixed([s for s in used if s.address is not None], live)
        free = [s for s in used if s.address is None]
        requests = _requests(free, live)
        usage = _usage(requests, fixed, live.instructions)
        # A tensor nobody touches takes no bytes; it still has an address, as views of it may exist.
        places = {s.index: s.address or (0, 0) for s in storages}
        if usage.max(initial=0) > self.space.capacity:
            raise self._overflow(used, live, usage, target)
        offsets = pack(requests, fixed, self.space, live.instructions)
        if offsets is None:
            self._check_groups(program, live, target)
            raise self._overflow(used, live, usage, target)
        places |= {s.index: (0, offset) for s, offset in zip(free, offsets.tolist(), strict=True)}
        holders = tuple(
            Holder(s, *places[s.index], int(live.first[s.index]), int(live.last[s.index])) for s in storages
        )
        return Utilisation(self.region, self.space.capacity, self.space.bank, holders, usage)

    # --- what is refused

    def _check_size(self, storage: Storage, target: Target) -> None:
        if storage.row_bytes > self.space.capacity:
            raise _at(
                error(
                    "NKI-M003",
                    f"{_described(storage)} takes {_kib(storage.row_bytes)} per partition; "
                    f"all of {self.label} on {target.name} is {_kib(self.space.capacity)} per partition",
                    help="split the tensor along its free dimensions and work on one piece at a time",
                ),
                storage,
            )

    def _check_address(self, storage: Storage, address: tuple[int, int], target: Target) -> None:
        """An address is inside the memory; in PSUM it is the start of a bank (SDK migration guide)."""
        partition, byte = address
        problem = help = None
        if not 0 <= partition <= self.partitions - storage.partitions:
            problem = (
                f"its partitions {partition} to {partition + storage.partitions - 1} "
                f"are outside 0 to {self.partitions - 1}"
            )
            help = f"start at partition {max(self.partitions - storage.partitions, 0)} or before"
        elif not 0 <= byte <= self.space.capacity - storage.row_bytes:
            problem = (
                f"its bytes {byte} to {byte + storage.row_bytes - 1} are outside the "
                f"{self.space.capacity} bytes per partition of {self.label} on {target.name}"
            )
            help = f"start at byte {self.space.capacity - storage.row_bytes} or before"
        elif self.space.bank and byte % self.space.bank:
            problem = f"byte {byte} is {byte % self.space.bank} bytes into a bank"
            help = f"start at a multiple of {self.space.bank}, such as byte {byte - byte % self.space.bank}"
        if problem:
            message = f"{_described(storage)} is given the address ({partition}, {byte}): {problem}"
            raise _at(error("NKI-M004", message, help=help), storage)

    def _check_groups(self, program: Program, live: Liveness, target: Target) -> None:
        """Refuse more open accumulations than banks, each in a bank of its own."""
        bank = self.space.bank
        groups = [g for g in live.groups if program.storages[g[0]].region is self.region]
        if not bank or not groups:
            return
        banks = np.zeros(live.instructions + 1, np.int64)
        for index, first, last in groups:
            wanted = -(-program.storages[index].row_bytes // bank)
            banks[first] += wanted
            banks[last + 1] -= wanted
        open_banks = banks.cumsum()
        limit = self.space.capacity // bank
        if open_banks.max() <= limit:
            return
        tipped = int((open_banks > limit).argmax())
        open_now = {g[0]: program.storages[g[0]] for g in groups if g[1] <= tipped <= g[2]}
        last_in = max((g for g in groups if g[1] <= tipped <= g[2]), key=lambda g: g[1])
        raise _at(
            error(
                "NKI-M005",
                f"matmuls accumulate into {int(open_banks[tipped])} PSUM banks at once; "
                f"{target.name} has {limit}",
                help="finish accumulating into one tensor and copy it to SBUF before starting another",
                notes=_table(list(open_now.values())),
            ),
            program.storages[last_in[0]],
        )

    def _overflow(
        self, used: list[Storage], live: Liveness, usage: NDArray[np.int64], target: Target
    ) -> NkiMemoryError:
        """Too much is live at once, or what is live does not pack; placed at the tensor that tipped it."""
        capacity = self.space.capacity
        peak, at = int(usage.max(initial=0)), int(usage.argmax())
        over = usage > capacity
        tipped = int(over.argmax()) if over.any() else at
        holding = [s for s in used if live.first[s.index] <= at <= live.last[s.index]]
        if over.any():
            message = (
                f"{self.label} overflows: {_kib(peak)} per partition are live at once, "
                f"{_kib(capacity)} are available on {target.name}"
            )
        else:
            message = (
                f"{self.label} overflows: {_kib(peak)} of {_kib(capacity)} per partition are live at once "
                f"on {target.name}, but no placement was found that leaves the free bytes in one piece"
            )
        groups = _by_line(holding)
        heaviest = groups[0]
        share = sum(s.row_bytes for s in heaviest)
        first = (
            f"shrink, split or finish with {_described(heaviest[0])} first: "
            f"{_counted(heaviest)} {_kib(share)} of the {_kib(peak)}"
        )
        wrong = max(
            (s for s in used if live.first[s.index] <= tipped <= live.last[s.index]),
            key=lambda s: (live.first[s.index], s.index),
        )
        refusal = error(self.overflow, message, help=first, notes=_table(holding))
        return _at(refusal, wrong)


def _requests(storages: list[Storage], live: Liveness) -> Requests:
    group_firsts = np.zeros(len(live.first), np.int64)
    group_lasts = np.full(len(live.first), -1, np.int64)
    for index, first, last in live.groups:
        is_first = group_lasts[index] < 0
        group_firsts[index] = first if is_first else min(first, group_firsts[index])
        group_lasts[index] = max(last, group_lasts[index])
    indices = np.array([s.index for s in storages], np.int64)
    sizes = np.array([s.row_bytes for s in storages], np.int64)
    return Requests(
        sizes, live.first[indices], live.last[indices], group_firsts[indices], group_lasts[indices]
    )


def _fixed(storages: list[Storage], live: Liveness) -> Fixed:
    indices = np.array([s.index for s in storages], np.int64)
    offsets = np.array([s.address[1] for s in storages if s.address], np.int64)
    sizes = np.array([s.row_bytes for s in storages], np.int64)
    return Fixed(offsets, sizes, live.first[indices], live.last[indices])


def _usage(requests: Requests, fixed: Fixed, positions: int) -> NDArray[np.int64]:
    """Bytes held at each position: the sum of the requests and the union of what is fixed."""
    change = np.zeros(positions + 1, np.int64)
    np.add.at(change, requests.firsts, requests.sizes)
    np.add.at(change, requests.lasts + 1, -requests.sizes)
    ends = fixed.offsets + fixed.sizes
    marks = np.unique(np.concatenate([fixed.offsets, ends]))
    widths = np.diff(marks)
    holding = np.zeros(len(widths), np.int64)
    begins, stops = np.searchsorted(marks, fixed.offsets).tolist(), np.searchsorted(marks, ends).tolist()
    events = [(p, 1, k) for k, p in enumerate(fixed.firsts.tolist())]
    events += [(p + 1, -1, k) for k, p in enumerate(fixed.lasts.tolist())]
    for position, step, k in sorted(events):
        stretch = slice(begins[k], stops[k])
        if step < 0:
            holding[stretch] -= 1
        change[position] += step * int(widths[stretch][holding[stretch] == 0].sum())
        if step > 0:
            holding[stretch] += 1
    return change.cumsum()[:positions]


# --- wording


def _line_of(storage: Storage) -> Span | None:
    return storage.stack[-1].span if storage.stack else None


def _at(problem: Any, storage: Storage) -> NkiMemoryError:
    placed: NkiMemoryError = problem.at(_line_of(storage), storage.stack)
    return placed


def _kib(size: int) -> str:
    if size < _KIB:
        return f"{size} bytes"
    return f"{size / _KIB:.1f} KiB" if size % _KIB else f"{size // _KIB} KiB"


def _described(storage: Storage) -> str:
    return f"{storage.name} {storage.dtype}[{', '.join(map(str, storage.shape))}]"


def _counted(group: list[Storage]) -> str:
    line = _line_of(group[0])
    where = f" allocated at {line.file}:{line.line}" if line else ""
    return f"the {len(group)} tensors{where} take" if len(group) > 1 else f"the tensor{where} takes"


def _largest_first(holders: Iterable[Holder]) -> list[Holder]:
    return sorted(holders, key=lambda h: (-h.storage.row_bytes, h.storage.index))


def _by_line(storages: list[Storage]) -> list[list[Storage]]:
    """Tensors of one allocation line, shape and dtype together, the heaviest group first."""
    groups: dict[Any, list[Storage]] = {}
    for storage in storages:
        line = _line_of(storage)
        key = (line.file, line.line) if line else storage.name
        groups.setdefault((key, storage.shape, storage.dtype), []).append(storage)
    return sorted(groups.values(), key=lambda g: (-sum(s.row_bytes for s in g), g[0].index))


def _table(storages: list[Storage]) -> list[str]:
    """What is live, a line for each allocation: KiB per partition, count, name, dtype, shape, place."""
    groups = _by_line(storages)
    rows = []
    for group in groups[:_TABLE_ROWS]:
        line = _line_of(group[0])
        count = f"{len(group)} x " if len(group) > 1 else ""
        each = f" ({_kib(group[0].row_bytes)} each)" if len(group) > 1 else ""
        where = f", {line.file}:{line.line}" if line else ""
        rows.append(f"{_kib(sum(s.row_bytes for s in group))}: {count}{_described(group[0])}{each}{where}")
    rest = [s for group in groups[_TABLE_ROWS:] for s in group]
    if rest:
        rows.append(f"{_kib(sum(s.row_bytes for s in rest))}: {len(rest)} more tensors")
    return ["live at the peak, per partition:", *rows]
