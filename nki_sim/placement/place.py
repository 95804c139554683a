"""Where every SBUF and PSUM tensor of a Program lives, and how full the memories are.

A tensor with an address goes exactly there; overlap among such tensors is the
user's choice (hazards are the sanitizer's business). Every other tensor gets
bytes that nothing else holds while it is live, from partition 0 on, in all 128
partitions whatever its partition count (:mod:`nki_sim.placement.side_by_side` says when not):

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
what is live, which no allocator can undercut but by putting tensors of few
partitions side by side.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nki_isa.ir.program import Program
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_sim.placement import refusals
from nki_sim.placement.liveness import NEVER, Liveness, liveness
from nki_sim.placement.packing import Fixed, Requests, Space, pack, tighten
from nki_sim.placement.utilisation import (
    Holder,
    Holders,
    Placement,
    Utilisation,
    usage_of,
)

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

__all__ = ["Holder", "Placement", "Utilisation", "check_alone", "overfull", "place"]

#: Bytes SBUF placements rotate in: the default alignment of the kernel library's allocator
#: (SDK nki/library/kernel-utils/allocator, ``align_stack_curr_addr``).
_SBUF_UNIT = 32

#: Bytes offsets are multiples of when packed tightly: the widest element. The vendor's open front end
#: (leanprover/KLR, ``kernelEnv``) gives ``sbuf_min_align`` 1 and ``psum_min_align`` 4.
_ALIGN = 4


def place(
    program: Program, target: Target, starts: Mapping[int, int] | None = None, *, is_loose: bool = False
) -> Placement:
    """Give every SBUF and PSUM tensor of `program` its bytes.

    Args:
        program: the kernel.
        target: the generation.
        starts: first partitions by storage index of SBUF tensors without an address, the others' being 0;
            with it, each tensor of SBUF has its bytes only in the quadrants it lies in.
        is_loose: True to have tiles of SBUF rotate, so that the next need not wait for the one before, and to
            refuse what only fits packed tightly.

    Raises:
        NkiMemoryError: NKI-M001 or NKI-M002, what is live at once exceeds SBUF or PSUM; NKI-M003, one
            tensor does, or the tensors in HBM exceed that; NKI-M004, an explicit address is outside its
            memory or misaligned; NKI-M005, matmuls accumulate into more PSUM banks at once than there are.
    """
    refused = refusals.too_much_hbm(program, target)
    if refused is not None:
        raise refused
    live = liveness(program)
    sbuf, psum = (
        _Room(region, target.partitions, space).place(
            program, live, target, *((starts, is_loose) if region is MemoryRegion.sbuf else (None, False))
        )
        for region, space in spaces(target).items()
    )
    addresses = {
        storage.index: at
        for holders in (sbuf.holders, psum.holders)
        for storage, at in zip(holders.storages, holders.places, strict=True)
    }
    return Placement(addresses, sbuf, psum)


def check_alone(storage: Storage, target: Target) -> None:
    """Refuse a tensor on chip for what is certain of it alone: its size and its address.

    Raises:
        NkiMemoryError: NKI-M003 and NKI-M004, as :func:`place`.
    """
    if storage.on_chip:
        _room(target, storage.region is MemoryRegion.psum).check(storage, target)


def overfull(program: Program, target: Target) -> Placement:
    """Where the tensors of a program that :func:`place` refuses would be with unlimited memory.

    It cannot run; reports show with it what sticks out. The capacities are those of `target`.
    """
    live = liveness(program)
    sbuf, psum = (
        _Room(region, target.partitions, space).place_beyond(program, live)
        for region, space in spaces(target).items()
    )
    return Placement({}, sbuf, psum)


@functools.lru_cache(maxsize=64)
def _room(target: Target, is_psum: bool) -> _Room:
    region = MemoryRegion.psum if is_psum else MemoryRegion.sbuf
    return _Room(region, target.partitions, spaces(target)[region])


def spaces(target: Target) -> dict[MemoryRegion, Space]:
    """SBUF and PSUM of `target` as lines of bytes."""
    bank = target.psum_bank_bytes
    return {
        MemoryRegion.sbuf: Space(target.sbuf_usable_bytes, _SBUF_UNIT, _ALIGN),
        MemoryRegion.psum: Space(target.psum_banks * bank, bank, _ALIGN, bank),
    }


@dataclass(frozen=True, slots=True)
class _Room:
    """One memory to place into."""

    region: MemoryRegion
    partitions: int
    space: Space

    def place(
        self,
        program: Program,
        live: Liveness,
        target: Target,
        starts: Mapping[int, int] | None,
        is_loose: bool,
    ) -> Utilisation:
        storages = [s for s in program.storages if s.region is self.region]
        for storage in storages:
            self.check(storage, target)
        used = [s for s in storages if live.first[s.index] != NEVER]
        # A tensor that nothing touches takes no bytes; it still has an address, as views of it may exist.
        places = {s.index: s.address or ((starts or {}).get(s.index, 0), 0) for s in storages}
        is_apart = starts is not None
        waiting = tuple(_holders(used, places, live, is_apart))
        usage = usage_of(waiting, live.instructions)
        if usage.max(initial=0) > self.space.capacity:
            raise refusals.overflow(program, waiting, usage, self.space.capacity, target)
        fixed = _fixed([s for s in used if s.address is not None], live)
        free = [s for s in used if s.address is None]
        requests = requests_of(free, live)
        if is_apart:
            own, given = (
                np.array([h.quadrants for h in waiting if (h.storage.address is None) is unplaced], np.int64)
                for unplaced in (True, False)
            )
            offsets = tighten(requests, fixed, self.space, (own, given))
        else:
            offsets = pack(requests, fixed, self.space, live.instructions, is_loose)
        if offsets is None:
            self._check_groups(waiting, live, target)
            raise refusals.overflow(program, waiting, usage, self.space.capacity, target)
        one: dict[tuple[int, int], tuple[int, int]] = {}  # of each place, in which many tensors take turns
        for storage, offset in zip(free, offsets.tolist(), strict=True):
            at = places[storage.index][0], offset
            places[storage.index] = one.setdefault(at, at)
        holders = _holders(storages, places, live, is_apart)
        return Utilisation(self.region, self.space.capacity, self.space.bank, holders, usage)

    def place_beyond(self, program: Program, live: Liveness) -> Utilisation:
        """The same without an end to the memory, addresses taken as they are."""
        storages = [s for s in program.storages if s.region is self.region]
        used = [s for s in storages if live.first[s.index] != NEVER]
        places = {s.index: s.address or (0, 0) for s in storages}
        fixed = _fixed([s for s in used if s.address is not None], live)
        free = [s for s in used if s.address is None]
        space, offsets = self.space, None
        while offsets is None:
            offsets = pack(requests_of(free, live), fixed, space, live.instructions)
            space = replace(space, capacity=2 * space.capacity)
        places |= {s.index: (0, offset) for s, offset in zip(free, offsets.tolist(), strict=True)}
        usage = usage_of(_holders(used, places, live), live.instructions)
        holders = _holders(storages, places, live)
        return Utilisation(self.region, self.space.capacity, self.space.bank, holders, usage)

    # --- what is refused

    def check(self, storage: Storage, target: Target) -> None:
        """Refuse a tensor that fits nowhere here, or not at its address."""
        if storage.row_bytes > self.space.capacity:
            raise refusals.too_large(storage, self.space.capacity, target)
        if storage.address is not None:
            self._check_address(storage, storage.address, target)

    def _check_address(self, storage: Storage, address: tuple[int, int], target: Target) -> None:
        """An address is inside the memory; in PSUM it is the start of a bank (SDK migration guide).

        SBUF takes any byte (``sbuf_min_align`` 1). At which partition a tensor may start depends on
        who reads and writes it: engines have quadrants (NKI-V110), DMA any partition.
        """
        partition, byte = address
        if not 0 <= partition <= self.partitions - storage.partitions:
            problem = (
                f"its partitions {partition} to {partition + storage.partitions - 1} "
                f"are outside 0 to {self.partitions - 1}"
            )
            remedy = f"start at partition {max(self.partitions - storage.partitions, 0)} or before"
        elif not 0 <= byte <= self.space.capacity - storage.row_bytes:
            problem = (
                f"its bytes {byte} to {byte + storage.row_bytes - 1} are outside the "
                f"{self.space.capacity} bytes per partition of {self.region.value.upper()} on {target.name}"
            )
            last = self.space.capacity - storage.row_bytes
            remedy = f"start at byte {last - last % (self.space.bank or 1)} or before"
        elif self.space.bank and byte % self.space.bank:
            problem = f"byte {byte} is {byte % self.space.bank} bytes into a bank"
            remedy = f"start at a multiple of {self.space.bank}, such as byte {byte - byte % self.space.bank}"
        else:
            return
        raise refusals.misplaced(storage, address, problem, remedy)

    def _check_groups(self, holders: tuple[Holder, ...], live: Liveness, target: Target) -> None:
        """Refuse more open accumulations than banks, each in a bank of its own."""
        bank, by_index = self.space.bank, {h.storage.index: h for h in holders}
        groups = [g for g in live.groups if g[0] in by_index]
        if not bank or not groups:
            return
        banks = np.zeros(live.instructions + 1, np.int64)
        for index, first, last in groups:
            wanted = -(-by_index[index].storage.row_bytes // bank)
            banks[first] += wanted
            banks[last + 1] -= wanted
        open_banks = banks.cumsum()
        limit = self.space.capacity // bank
        if open_banks.max() <= limit:
            return
        tipped = int((open_banks > limit).argmax())
        open_now = {index: first for index, first, last in groups if first <= tipped <= last}
        pairs = [(by_index[index], first) for index, first in open_now.items()]
        raise refusals.too_many_groups(pairs, int(open_banks[tipped]), limit, target)


def _holders(
    storages: list[Storage], places: dict[int, tuple[int, int]], live: Liveness, is_apart: bool = False
) -> Holders:
    indices = np.array([s.index for s in storages], np.int64)
    own = [places[s.index] for s in storages]
    return Holders(storages, own, live.first[indices], live.last[indices], is_apart)


def requests_of(storages: list[Storage], live: Liveness) -> Requests:
    """What `storages` ask of the packing: bytes, lifetimes and when they want a bank to themselves."""
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
