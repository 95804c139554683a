"""How full SBUF and PSUM are over program order, and who holds their bytes.

A position is an instruction of the Program, counted from 0 in program order, loop bodies once.
A tensor holds its bytes from the first instruction that needs them to the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import span_of
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_sim.placement.liveness import NEVER

_SAMPLES = 200
_BARS = " ▁▂▃▄▅▆▇█"
_KIB = 1024

#: Partitions of a quadrant, within which tensors are not placed apart, and the set of all four of them.
QUADRANT, QUADRANTS, ALL_QUADRANTS = 32, 4, 0b1111


@dataclass(frozen=True, slots=True)
class Holder:
    """A tensor with its place.

    Attributes:
        storage: the tensor's storage.
        partition: its first partition.
        offset: its first byte in each partition.
        first: position of the first instruction that needs it, -1 if none does.
        last: position of the last one, included.
        quadrants: the quadrants of 32 partitions in which nobody else has its bytes, a bit each: all four
            unless tensors of few partitions were placed side by side.
    """

    storage: Storage
    partition: int
    offset: int
    first: int
    last: int
    quadrants: int = ALL_QUADRANTS

    @property
    def end(self) -> int:
        """The byte after its last one in each partition."""
        return self.offset + self.storage.row_bytes

    @property
    def is_live(self) -> bool:
        """True if some instruction needs it."""
        return self.first != NEVER

    def shares_bytes(self, other: Holder) -> bool:
        """True if the two have a byte of the same partition in common."""
        return (
            self.offset < other.end
            and other.offset < self.end
            and self.partition < other.partition + other.storage.partitions
            and other.partition < self.partition + self.storage.partitions
        )


class Holders(Sequence[Holder]):
    """Tensors with their places, as columns: a long program has very many, and few are ever looked at.

    Args:
        storages: the tensors.
        places: (partition, byte) of each.
        first, last: as of :class:`Holder`.
        is_apart: True where tensors of few partitions may lie side by side.
    """

    __slots__ = ("_first", "_is_apart", "_last", "places", "storages")

    def __init__(
        self,
        storages: Sequence[Storage],
        places: Sequence[tuple[int, int]],
        first: NDArray[np.int64],
        last: NDArray[np.int64],
        is_apart: bool = False,
    ):
        self.storages, self.places = storages, places
        self._first, self._last = first.astype(np.int32), last.astype(np.int32)
        self._is_apart = is_apart

    def __len__(self) -> int:
        return len(self.storages)

    def __iter__(self) -> Iterator[Holder]:
        return map(self._made, self.storages, self.places, self._first.tolist(), self._last.tolist())

    @overload
    def __getitem__(self, k: int) -> Holder: ...
    @overload
    def __getitem__(self, k: slice) -> list[Holder]: ...

    def __getitem__(self, k: int | slice) -> Holder | list[Holder]:
        if isinstance(k, slice):
            return [self[at] for at in range(*k.indices(len(self)))]
        return self._made(self.storages[k], self.places[k], int(self._first[k]), int(self._last[k]))

    def _made(self, storage: Storage, place: tuple[int, int], first: int, last: int) -> Holder:
        lanes = quadrants_of(place[0], storage.partitions) if self._is_apart else ALL_QUADRANTS
        return Holder(storage, *place, first, last, lanes)


@dataclass(frozen=True, slots=True)
class Utilisation:
    """One memory over program order.

    Attributes:
        region: SBUF or PSUM.
        capacity: bytes per partition a kernel may use.
        bank: bytes of a bank, 0 where there are none.
        holders: every tensor of this memory, in order of allocation.
        usage: bytes per partition held at each position, in the fullest partition then; overlapping
            tensors count once.
    """

    region: MemoryRegion
    capacity: int
    bank: int
    holders: Holders
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
    def live(self) -> list[Holder]:
        """The tensors some instruction needs, in order of allocation."""
        return [h for h in self.holders if h.is_live]

    @property
    def high_water(self) -> int:
        """The byte after the highest one any live tensor is given."""
        return max((h.end for h in self.holders if h.is_live), default=0)

    def held_at(self, position: int) -> list[Holder]:
        """The tensors live at `position`, largest first."""
        return _largest_first(h for h in self.holders if h.is_live and h.first <= position <= h.last)

    def free_pieces(self, position: int) -> list[tuple[int, int]]:
        """The stretches of bytes (first, size) that nothing holds at `position`, in the fullest partition."""
        held = self.held_at(position)
        pieces = [self._pieces(part) for part in by_quadrant(held)]
        return min(pieces, key=lambda found: sum(size for _, size in found))

    def _pieces(self, held: Sequence[Holder]) -> list[tuple[int, int]]:
        pieces, free = [], 0
        for holder in sorted(held, key=lambda h: h.offset):
            if (end := min(holder.offset, self.capacity)) > free:
                pieces.append((free, end - free))
            free = max(free, holder.end)
        return pieces + ([(free, self.capacity - free)] if free < self.capacity else [])

    def banks_at(self, position: int) -> int:
        """Banks that tensors live at `position` touch; 0 for a memory without banks."""
        if not self.bank:
            return 0
        touched = (range(h.offset // self.bank, -(-h.end // self.bank)) for h in self.held_at(position))
        return len({bank for banks in touched for bank in banks})

    def bank_usage(self) -> NDArray[np.int64]:
        """Banks that live tensors touch at each position; zeros for a memory without banks."""
        used = np.zeros(len(self.usage), np.int64)
        if not self.bank:
            return used
        banks = -(-max(self.capacity, self.high_water) // self.bank)
        changes = np.zeros((banks, len(self.usage) + 1), np.int32)
        for holder in self.live:
            touched = slice(holder.offset // self.bank, -(-holder.end // self.bank))
            changes[touched, holder.first] += 1
            changes[touched, holder.last + 1] -= 1
        for change in changes:
            used += change.cumsum()[:-1] > 0
        return used

    def shared(self) -> Iterator[tuple[Holder, Holder]]:
        """Pairs of tensors with addresses that share bytes while both are live, in program order."""
        open_now: list[Holder] = []
        for holder in sorted((h for h in self.live if h.storage.address), key=lambda h: h.first):
            open_now = [other for other in open_now if other.last >= holder.first]
            yield from ((other, holder) for other in open_now if other.shares_bytes(holder))
            open_now.append(holder)

    def samples(self, limit: int = _SAMPLES) -> list[tuple[int, int]]:
        """:func:`samples` of the usage."""
        return samples(self.usage, limit)

    def report(self) -> dict[str, Any]:
        """Plain values: sizes in KiB per partition, positions in program order."""
        at = self.peak_at
        free = [size for _, size in self.free_pieces(at)]
        banks = self.bank_usage() if self.bank else None
        return {
            "capacity_kib": self.capacity / _KIB,
            "peak_kib": self.peak / _KIB,
            "peak_at": at,
            "high_water_kib": self.high_water / _KIB,
            "banks": self.capacity // self.bank if self.bank else None,
            "banks_at_peak": None if banks is None else int(banks[at]) if len(banks) else 0,
            "most_banks": None if banks is None else int(banks.max(initial=0)),
            "free_at_peak_kib": sum(free) / _KIB,
            "largest_free_piece_at_peak_kib": max(free, default=0) / _KIB,
            "tensors": len(self.holders),
            "held_at_peak": [row(h) for h in self.held_at(at)],
            "allocations": [row(h) for h in self.holders],
            "shared_bytes": [[row(a), row(b)] for a, b in self.shared()],
            "timeline": [
                {"at": p, "kib": used / _KIB, **({} if banks is None else {"banks": int(banks[p])})}
                for p, used in self.samples()
            ],
        }


def row(holder: Holder) -> dict[str, Any]:
    """A tensor and its place as plain values."""
    storage = holder.storage
    span = span_of(storage.stack)
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


def quadrant_range(partition: int, partitions: int) -> range:
    """The numbers of the quadrants that `partitions` from `partition` on lie in."""
    return range(partition // QUADRANT, -(-(partition + partitions) // QUADRANT))


def quadrants_of(partition: int, partitions: int) -> int:
    """The same, a bit each."""
    return sum(1 << k for k in quadrant_range(partition, partitions))


def by_quadrant(holders: Sequence[Holder]) -> list[Sequence[Holder]]:
    """Those that hold bytes of each quadrant; one entry for all quadrants where all hold bytes of all."""
    if all(h.quadrants == ALL_QUADRANTS for h in holders):
        return [holders]
    return [[h for h in holders if h.quadrants >> k & 1] for k in range(QUADRANTS)]


def usage_of(holders: Sequence[Holder], positions: int) -> NDArray[np.int64]:
    """Bytes per partition that live `holders` hold at each position, in the fullest partition.

    Tensors that were placed have bytes of their own, so they add up; those with an address may
    share bytes, which count once.
    """
    used: NDArray[np.int64] = np.max([_used(part, positions) for part in by_quadrant(holders)], axis=0)
    return used


def _used(holders: Sequence[Holder], positions: int) -> NDArray[np.int64]:
    placed = [h for h in holders if h.storage.address is None]
    change = np.zeros(positions + 1, np.int64)
    sizes = np.array([h.storage.row_bytes for h in placed], np.int64)
    np.add.at(change, np.array([h.first for h in placed], np.int64), sizes)
    np.add.at(change, np.array([h.last + 1 for h in placed], np.int64), -sizes)
    fixed = [h for h in holders if h.storage.address is not None]
    edges = sorted({edge for h in fixed for edge in (h.offset, h.end)})
    at = {edge: k for k, edge in enumerate(edges)}
    widths = np.diff(np.array(edges, np.int64))
    holding = np.zeros(len(widths), np.int64)
    events = [(h.first, 1, k) for k, h in enumerate(fixed)] + [
        (h.last + 1, -1, k) for k, h in enumerate(fixed)
    ]
    for position, step, k in sorted(events):
        stretch = slice(at[fixed[k].offset], at[fixed[k].end])
        if step < 0:
            holding[stretch] -= 1
        change[position] += step * int(widths[stretch][holding[stretch] == 0].sum())
        if step > 0:
            holding[stretch] += 1
    return change.cumsum()[:positions]


def samples(usage: NDArray[np.int64], limit: int) -> list[tuple[int, int]]:
    """At most `limit` (position, bytes) pairs: the fullest position of each of that many stretches."""
    chosen = []
    for stretch in np.array_split(np.arange(len(usage)), min(limit, len(usage)) or 1):
        if len(stretch):
            fullest = int(stretch[usage[stretch].argmax()])
            chosen.append((fullest, int(usage[fullest])))
    return chosen


def bars(usage: NDArray[np.int64], limit: int) -> str:
    """`usage` as one line of at most `limit` bars, the peak at full height."""
    most = max(int(usage.max(initial=0)), 1)
    return "".join(_BARS[-(-held * (len(_BARS) - 1) // most)] for _, held in samples(usage, limit))


def by_line(holders: Iterable[Holder]) -> list[list[Holder]]:
    """Tensors of one allocation line, shape and dtype together, the heaviest group first."""
    groups: dict[Any, list[Holder]] = {}
    for holder in holders:
        storage = holder.storage
        line = span_of(storage.stack)
        key = (line.file, line.line) if line else storage.name
        groups.setdefault((key, storage.shape, storage.dtype), []).append(holder)
    return sorted(groups.values(), key=lambda g: (-sum(h.storage.row_bytes for h in g), g[0].storage.index))


def _largest_first(holders: Iterable[Holder]) -> list[Holder]:
    return sorted(holders, key=lambda h: (-h.storage.row_bytes, h.storage.index))
