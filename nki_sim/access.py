"""Which bytes each instruction touches, and who touched them last.

A :class:`Box` is the part of a storage a view covers: one half-open interval per
dimension of the storage, the last one in bytes. Boxes are exact for slices,
selections, permutations and reshapes along whole dimensions; for other strides
they are the smallest box around the view, which can only add dependencies.

Boxes of one storage go into a spatial hash per box size, so that a tensor
written tile by tile costs a look-up per tile and not a scan of all tiles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

from nki_isa.tensor import MemoryRegion, NkiTensor, Storage

Access = tuple[float, int, int, bool]
"""When an access is over (ns), its event, its engine, whether in an earlier storage there."""


class Box:
    """Half-open intervals of a storage's dimensions; compared by identity, so intern them."""

    __slots__ = ("cell", "extents", "high", "low")

    def __init__(self, low: tuple[int, ...], high: tuple[int, ...]):
        self.low = low
        self.high = high
        self.extents = tuple(h - l for l, h in zip(low, high, strict=True))
        self.cell = tuple(l // e for l, e in zip(low, self.extents, strict=True))

    def meets(self, other: Box) -> bool:
        """True if the two share a byte."""
        for a, b, c, d in zip(self.low, self.high, other.low, other.high, strict=True):
            if a >= d or c >= b:
                return False
        return True

    def covers(self, other: Box) -> bool:
        """True if `other` lies within this one."""
        for a, b, c, d in zip(self.low, self.high, other.low, other.high, strict=True):
            if c < a or d > b:
                return False
        return True

    def __repr__(self) -> str:
        return "x".join(f"[{l},{h})" for l, h in zip(self.low, self.high, strict=True))


class Layout:
    """The dimensions of all storages of one shape, element width and kind of memory.

    Attributes:
        sizes: dimensions, the last in bytes.
        strides: bytes between neighbours along each; the partition dimension counts as
            if partitions followed each other in memory.
    """

    __slots__ = ("_boxes", "_interned", "sizes", "strides", "whole")

    def __init__(self, shape: tuple[int, ...], itemsize: int):
        if len(shape) < 2:
            shape = (*shape, 1) if shape else (1, 1)
        self.sizes = (*shape[:-1], shape[-1] * itemsize)
        strides = [1] * len(self.sizes)
        for k in range(len(strides) - 2, -1, -1):
            strides[k] = strides[k + 1] * self.sizes[k + 1]
        self.strides = tuple(strides)
        self._boxes: dict[object, Box] = {}
        self._interned: dict[object, Box] = {}
        self.whole = self.box([0] * len(self.sizes), list(self.sizes))

    def box(self, low: list[int], high: list[int]) -> Box:
        """The box of these bounds, one object for equal bounds."""
        key = (tuple(low), tuple(high))
        found = self._interned.get(key)
        if found is None:
            found = self._interned[key] = Box(*key)
        return found

    def of(self, view: NkiTensor, shift: int = 0) -> Box:
        """The box of a view, moved by `shift` elements."""
        itemsize = view.dtype.itemsize
        key = (view.offset + shift, view.shape, view.strides, itemsize)
        found = self._boxes.get(key)
        if found is None:
            found = self._boxes[key] = self._compute((view.offset + shift) * itemsize, view, itemsize)
        return found

    def _compute(self, offset: int, view: NkiTensor, itemsize: int) -> Box:
        sizes, strides = self.sizes, self.strides
        last = len(sizes) - 1
        low = [0] * (last + 1)
        rest = offset
        for k, stride in enumerate(strides):
            low[k], rest = divmod(rest, stride)
        high = [l + 1 for l in low]
        high[last] = low[last] + itemsize
        for size, step in zip(view.shape, view.strides, strict=True):
            step *= itemsize
            if size == 1 or step == 0:
                continue
            if step < 0:
                return self.whole
            for k, stride in enumerate(strides):  # one dimension takes it all, unless the view is diagonal
                if stride <= step:
                    steps, step = divmod(step, stride)
                    high[k] += (size - 1) * steps
        for k in range(last, 0, -1):
            if high[k] > sizes[k]:
                high[k - 1] += (high[k] - 1) // sizes[k]
                low[k], high[k] = 0, sizes[k]
        high[0] = min(high[0], sizes[0])
        low[0] = min(low[0], high[0] - 1)
        return self.box(low, high)

    def row_range(self, box: Box) -> tuple[int, int]:
        """First byte and the byte after the last one of a box within a partition (dimensions 1 and on)."""
        strides = self.strides
        first = sum(l * s for l, s in zip(box.low[1:], strides[1:], strict=True))
        final = sum((h - 1) * s for h, s in zip(box.high[1:], strides[1:], strict=True))
        return first, final + 1

    def from_rows(self, partitions: tuple[int, int], first: int, end: int) -> Box:
        """The smallest box with bytes [first, end) of these partitions."""
        low, high = [partitions[0]], [partitions[1]]
        whole = False
        for size, stride in zip(self.sizes[1:], self.strides[1:], strict=True):
            if whole:
                low.append(0)
                high.append(size)
                continue
            a, b = first // stride % size, (end - 1) // stride % size
            same = first // stride == (end - 1) // stride
            low.append(a)
            high.append(b + 1)
            whole = not same
        return self.box(low, high)


class Accesses:
    """Accesses by box: the latest of each engine to each box."""

    __slots__ = ("_grids",)

    def __init__(self) -> None:
        # extents -> cell -> (box, engine) -> access
        self._grids: dict[tuple[int, ...], dict[tuple[int, ...], dict[tuple[Box, int], Access]]] = {}

    def add(self, box: Box, access: Access) -> None:
        """Note an access; it replaces an earlier one of the same engine to the same box."""
        grid = self._grids.get(box.extents)
        if grid is None:
            grid = self._grids[box.extents] = {}
        for cell in _cells_of(box):
            entries = grid.get(cell)
            if entries is None:
                grid[cell] = {(box, access[2]): access}
            else:
                key = (box, access[2])
                old = entries.get(key)
                if old is None or old[0] <= access[0]:
                    entries[key] = access

    def meeting(self, box: Box) -> Iterator[Access]:
        """Every access to a byte of `box`; one that spans cells may come more than once."""
        for extents, grid in self._grids.items():
            for entries in _near(grid, extents, box):
                for (other, _), access in entries.items():
                    if other is box or other.meets(box):
                        yield access

    def drop(self, box: Box) -> None:
        """Forget accesses that lie within `box`: what overwrites it has waited for them."""
        for extents, grid in self._grids.items():
            if any(e > b for e, b in zip(extents, box.extents, strict=True)):
                continue
            for entries in _near(grid, extents, box):
                gone = [key for key in entries if key[0] is box or box.covers(key[0])]
                for key in gone:
                    del entries[key]

    def items(self) -> Iterator[tuple[Box, Access]]:
        """Every box with its accesses."""
        for grid in self._grids.values():
            for entries in grid.values():
                for (box, _), access in entries.items():
                    yield box, access


def _cells_of(box: Box) -> Iterable[tuple[int, ...]]:
    """The cells of its own grid a box lies in: one if it is aligned to its size."""
    if all(l == c * e for l, c, e in zip(box.low, box.cell, box.extents, strict=True)):
        return (box.cell,)
    return itertools.product(
        *(range(l // e, (h - 1) // e + 1) for l, h, e in zip(box.low, box.high, box.extents, strict=True))
    )


def _near(
    grid: dict[tuple[int, ...], dict[tuple[Box, int], Access]], extents: tuple[int, ...], box: Box
) -> Iterable[dict[tuple[Box, int], Access]]:
    """The cells of a grid that may hold boxes meeting `box`."""
    ranges = [range(l // e, (h - 1) // e + 1) for l, h, e in zip(box.low, box.high, extents, strict=True)]
    if math.prod(map(len, ranges)) > len(grid):
        return list(grid.values())
    found = (grid.get(cell) for cell in itertools.product(*ranges))
    return [entries for entries in found if entries]


class Bytes:
    """The accesses to one storage."""

    __slots__ = ("base", "layout", "owner", "pieces", "reads", "region", "storage", "writes")

    def __init__(self, storage: Storage, layout: Layout, base: tuple[int, int] | None):
        self.storage = storage
        self.layout = layout
        self.base = base  # (partition, byte) on chip, if placed
        self.reads = Accesses()
        self.writes = Accesses()
        self.owner = False  # all its bytes were last touched through this storage


_BUCKET = 2048  # bytes: one PSUM bank; SBUF has about a hundred
Piece = tuple[int, int, int, int, Bytes]


class Memory:
    """The accesses to every storage, and the handing over of bytes that storages share over time.

    Without addresses every storage is taken to have bytes of its own.
    """

    def __init__(self, addresses: Mapping[int, tuple[int, int]] | None = None):
        self._addresses = addresses or {}
        self._layouts: dict[tuple[tuple[int, ...], int], Layout] = {}
        self._bytes: dict[Storage, Bytes] = {}
        self._owners: dict[MemoryRegion, dict[int, list[Piece]]] = {
            MemoryRegion.sbuf: {},
            MemoryRegion.psum: {},
        }

    def bytes_of(self, storage: Storage) -> Bytes:
        """The accesses to `storage`, with those inherited from storages that held its bytes before."""
        found = self._bytes.get(storage)
        if found is None:
            key = (storage.shape, storage.dtype.itemsize)
            layout = self._layouts.get(key)
            if layout is None:
                layout = self._layouts[key] = Layout(*key)
            base = self._addresses.get(storage.index) if storage.region.on_chip else None
            found = self._bytes[storage] = Bytes(storage, layout, base)
        if not found.owner:
            found.owner = True
            if found.base is not None:
                self._take_over(found)
        return found

    def _take_over(self, taker: Bytes) -> None:
        """Make `taker` the owner of its bytes; it inherits accesses to them from the owners so far."""
        assert taker.base is not None
        storage = taker.storage
        p0, b0 = taker.base
        p1, b1 = p0 + storage.partitions, b0 + max(1, storage.row_bytes)
        buckets = self._owners[storage.region]
        givers: dict[int, Bytes] = {}
        for bucket in range(b0 // _BUCKET, (b1 - 1) // _BUCKET + 1):
            start, end = bucket * _BUCKET, (bucket + 1) * _BUCKET
            mine = (p0, p1, max(b0, start), min(b1, end), taker)
            kept = [mine]
            for piece in buckets.get(bucket, ()):
                q0, q1, c0, c1, owner = piece
                if q0 >= p1 or p0 >= q1 or c0 >= mine[3] or mine[2] >= c1:
                    kept.append(piece)
                    continue
                if owner is not taker:
                    givers[id(owner)] = owner
                    owner.owner = False
                kept.extend(_without(piece, mine))
            buckets[bucket] = kept
        for giver in givers.values():
            _inherit(taker, giver)


def _without(piece: Piece, cut: Piece) -> list[Piece]:
    """What is left of `piece` outside `cut`, as rectangles."""
    p0, p1, b0, b1, owner = piece
    c0, c1, d0, d1, _ = cut
    left: list[Piece] = []
    if p0 < c0:
        left.append((p0, c0, b0, b1, owner))
    if c1 < p1:
        left.append((c1, p1, b0, b1, owner))
    q0, q1 = max(p0, c0), min(p1, c1)
    if b0 < d0:
        left.append((q0, q1, b0, d0, owner))
    if d1 < b1:
        left.append((q0, q1, d1, b1, owner))
    return left


def _inherit(taker: Bytes, giver: Bytes) -> None:
    """Copy the accesses of `giver` that meet the bytes of `taker`, in its coordinates."""
    assert taker.base is not None and giver.base is not None
    partition = giver.base[0] - taker.base[0]
    shift = giver.base[1] - taker.base[1]
    same = taker.layout is giver.layout and partition == 0 and shift == 0
    size = max(1, taker.storage.row_bytes)
    for source, sink in ((giver.reads, taker.reads), (giver.writes, taker.writes)):
        for box, (time, event, engine, _) in source.items():
            if not same:
                low, high = box.low[0] + partition, box.high[0] + partition
                first, end = giver.layout.row_range(box)
                first, end = first + shift, end + shift
                if low >= taker.storage.partitions or high <= 0 or first >= size or end <= 0:
                    continue
                rows = (max(0, low), min(taker.storage.partitions, high))
                box = taker.layout.from_rows(rows, max(0, first), min(size, end))
            sink.add(box, (time, event, engine, True))
