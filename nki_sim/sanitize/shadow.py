"""Which bytes of every tensor hold something its own instructions wrote.

A tensor starts with nothing written, wherever it is placed: bytes left by a
tensor that held the same memory before are not its own. A mask has a byte of 1
for each byte written, in the layout of the storage, so the strided views that
address the memory address the mask as well. Most tensors are written as a whole
at once and never get a mask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.ir.instruction import Instruction
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.strides import is_row_major
from nki_isa.tensor.tensor import NkiTensor

Mask = NDArray[np.uint8]
Bools = NDArray[np.bool_]

#: A written element, by its bytes.
_ONES = {1: 0x01, 2: 0x0101, 4: 0x01010101, 8: 0x0101010101010101}


class Written:
    """The written bytes of one storage.

    Attributes:
        storage: the storage.
        full: True if every byte is written; there is no mask then.
        last: the latest instruction that wrote it.
        place: (partition, byte) on chip, or None.
        rivals: tensors in use that have bytes in common with it.
    """

    __slots__ = ("_count", "full", "last", "mask", "place", "rivals", "storage", "taken", "takers")

    def __init__(self, storage: Storage, place: tuple[int, int] | None, full: bool):
        self.storage = storage
        self.full = full
        self.mask: Mask | None = None
        self.last: Instruction | None = None
        self.place = place
        self.rivals: list[Written] = []
        self.taken: NDArray[np.int32] | None = None
        self.takers: list[tuple[Instruction, Storage]] = []
        self._count = 0

    @property
    def size(self) -> int:
        """Bytes of the storage."""
        return self.storage.partitions * self.storage.row_bytes

    def view(self, tensor: NkiTensor) -> NDArray[Any]:
        """The mask of a view without run-time offset, one unsigned integer per element."""
        if self.mask is None:
            self.mask = np.full(self.size, self.full, np.uint8)
            self._count = self.size if self.full else 0
            self.full = False
        item = tensor.dtype.itemsize
        strides = tuple([s * item for s in tensor.strides])
        return np.ndarray(tensor.shape, f"u{item}", self.mask, tensor.offset * item, strides)

    def write(self, tensor: NkiTensor) -> None:
        """Note that every byte of `tensor`, without run-time offset, is written."""
        if self.full:
            return
        if covers(tensor):
            self.full, self.mask = True, None
            return
        self.view(tensor)[...] = _ONES[tensor.dtype.itemsize]
        self.wrote(tensor.size * tensor.dtype.itemsize)

    def wrote(self, count: int) -> None:
        """Note that up to `count` more bytes of the mask are set."""
        assert self.mask is not None
        self._count += count
        if self._count >= self.size:
            self._count = int(np.count_nonzero(self.mask))
            if self._count == self.size:
                self.full, self.mask = True, None

    def carry(self, other: Written) -> None:
        """Note that every byte of `other`, a tensor of the same layout, is copied here, written or not."""
        self.full, self._count, self.last = other.full, other._count, other.last
        self.mask = None if other.mask is None else other.mask.copy()

    def missing(self, tensor: NkiTensor) -> Bools | None:
        """Elements of `tensor` that have a byte nothing wrote, or None if there is none."""
        view = self.view(tensor)
        found: Bools = view != _ONES[tensor.dtype.itemsize]
        if found.any():
            return found
        if tensor.size * tensor.dtype.itemsize >= self.size and covers(tensor):
            self.full, self.mask = True, None
        return None

    def lose(self, rectangle: tuple[slice, slice], lost: Bools, taker: Instruction, storage: Storage) -> None:
        """Bytes `lost` of a rectangle (partitions, bytes) were overwritten through another tensor."""
        rows = (self.storage.partitions, self.storage.row_bytes)
        if self.mask is None:
            self.mask = np.full(self.size, self.full, np.uint8)
            self.full = False
        if self.taken is None:
            self.taken = np.zeros(rows, np.int32)
        mask = self.mask.reshape(rows)[rectangle]
        lost = lost & mask.view(np.bool_)
        count = int(np.count_nonzero(lost))
        if count:
            self.takers.append((taker, storage))
            if count == lost.size:
                self.taken[rectangle] = len(self.takers)
                mask[...] = 0
            else:
                np.copyto(self.taken[rectangle], len(self.takers), where=lost)
                np.copyto(mask, 0, where=lost)
            self._count = int(np.count_nonzero(self.mask))

    def taker(self, tensor: NkiTensor) -> tuple[Instruction, Storage] | None:
        """Who overwrote the first missing byte of `tensor` that was written once, or None if none was."""
        if self.taken is None or self.mask is None:
            return None
        chosen = bytes_of(tensor, self.storage) & (self.mask == 0)
        who = self.taken.reshape(-1)[chosen]
        who = who[who > 0]
        return self.takers[int(who[0]) - 1] if len(who) else None

    def meets(self, other: Written) -> tuple[slice, slice, slice, slice] | None:
        """The rectangle both hold: partitions and bytes of this one, then of the other."""
        if self.place is None or other.place is None:
            return None
        low = max(self.place[0], other.place[0])
        high = min(self.place[0] + self.storage.partitions, other.place[0] + other.storage.partitions)
        start = max(self.place[1], other.place[1])
        end = min(self.place[1] + self.storage.row_bytes, other.place[1] + other.storage.row_bytes)
        if low >= high or start >= end:
            return None
        return (*_within(self.place, low, high, start, end), *_within(other.place, low, high, start, end))


def _within(place: tuple[int, int], low: int, high: int, start: int, end: int) -> tuple[slice, slice]:
    return slice(low - place[0], high - place[0]), slice(start - place[1], end - place[1])


def covers(tensor: NkiTensor) -> bool:
    """True if `tensor` is its whole storage, in order."""
    storage = tensor.storage
    return (
        tensor.offset == 0
        and (tensor.shape == storage.shape or _bytes(tensor) == storage.partitions * storage.row_bytes)
        and is_row_major(tensor.shape, tensor.strides)
    )


def _bytes(tensor: NkiTensor) -> int:
    return tensor.size * tensor.dtype.itemsize


def bytes_of(tensor: NkiTensor, storage: Storage) -> Bools:
    """A flat mask of `storage`, True at the bytes of `tensor` (without run-time offset)."""
    mask = np.zeros(storage.partitions * storage.row_bytes, np.bool_)
    item = tensor.dtype.itemsize
    strides = tuple([s * item for s in tensor.strides])
    np.ndarray((*tensor.shape, item), np.bool_, mask, tensor.offset * item, (*strides, 1))[...] = True
    return mask


class Shadow:
    """The written bytes of all storages of a Program while it runs.

    Args:
        storages: of the Program.
        addresses: where on-chip tensors are.
        reread: storages that hold the bytes of an earlier one as another data type, and its index: what is
            written through one is written for both.
    """

    def __init__(
        self,
        storages: list[Storage],
        addresses: Mapping[int, tuple[int, int]],
        reread: Mapping[int, int] = MappingProxyType({}),
    ):
        self.states = [
            Written(s, addresses.get(s.index) if s.on_chip else None, s.kind == "input" or s.data is not None)
            for s in storages
        ]
        self._kept = Counter(range(len(storages)))  # users of each state, by its storage
        for later, earlier in reread.items():
            self.states[later] = self.states[earlier]
            self._kept[earlier] += 1
        self._active: dict[MemoryRegion, list[Written]] = {MemoryRegion.sbuf: [], MemoryRegion.psum: []}
        self._seen: set[int] = set()

    def share(self, first: Shadow) -> None:
        """Take the shared HBM of core 0, which is the same bytes, tensor by tensor in order of allocation."""
        common = [k for k, s in enumerate(self.states) if s.storage.region is MemoryRegion.shared_hbm]
        theirs = [s for s in first.states if s.storage.region is MemoryRegion.shared_hbm]
        for k, state in zip(common, theirs, strict=True):
            self.states[k] = state

    def enter(self, state: Written) -> None:
        """A tensor with an explicit address comes into use: find the tensors in use that it overlaps."""
        if state.storage.index in self._seen:
            return
        self._seen.add(state.storage.index)
        active = self._active[state.storage.region]
        for other in active:
            if state.meets(other) is not None:
                state.rivals.append(other)
                other.rivals.append(state)
        active.append(state)

    def leave(self, index: int) -> None:
        """Nothing needs this storage any more: its mask goes, and it overlaps nothing."""
        state = self.states[index]
        self._kept[state.storage.index] -= 1
        if self._kept[state.storage.index]:
            return
        if state.storage.on_chip:
            state.full, state.mask, state.taken = True, None, None
        if state.storage.on_chip and state.storage.address is not None:
            for other in state.rivals:
                other.rivals.remove(state)
            state.rivals = []
            active = self._active[state.storage.region]
            if state in active:
                active.remove(state)

    def write(self, state: Written, tensor: NkiTensor, instruction: Instruction) -> None:
        """`instruction` writes `tensor`, a view of the state's storage without run-time offset."""
        state.last = instruction
        state.write(tensor)
        for rival in state.rivals:
            rectangles = rival.meets(state)
            assert rectangles is not None
            mine = bytes_of(tensor, state.storage).reshape(state.storage.partitions, -1)[rectangles[2:]]
            if mine.any():
                rival.lose(rectangles[:2], mine, instruction, state.storage)


def regions(missing: Bools, first: int = 0) -> str:
    """The True positions as ranges: equal neighbouring rows together, at most three stretches named.

    Args:
        missing: any shape; all dimensions but the last count as rows.
        first: number of the first row.
    """
    flat = missing.reshape(-1, missing.shape[-1])
    wrong = np.flatnonzero(flat.any(axis=1))
    told: list[str] = []
    stretches = 0
    start = 0
    while start < len(wrong):
        end = start + 1
        pattern = flat[wrong[start]]
        while end < len(wrong) and wrong[end] == wrong[end - 1] + 1 and (flat[wrong[end]] == pattern).all():
            end += 1
        edges = np.flatnonzero(np.diff(np.concatenate([[0], pattern.astype(np.int8), [0]])))
        rows = f"{first + wrong[start]}:{first + wrong[end - 1] + 1}"
        for low, high in edges.reshape(-1, 2).tolist():
            stretches += 1
            if stretches <= 3:
                told.append(f"[{rows}, {low}:{high}]")
        start = end
    more = f" and {stretches - 3} more ranges" if stretches > 3 else ""
    return ", ".join(told) + more
