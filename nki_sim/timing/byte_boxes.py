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
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor

Access = tuple[float, int, int, "Bytes | None"]
"""When an access is over (ns), its event, its engine, and the earlier storage there it was to, if any."""


_CELLS = 1024  # beyond this many cells, looking at all of a grid is as good as listing them
Cell = tuple[int, ...]


class Box:
    """Half-open intervals of a storage's dimensions; compared by identity, so intern them."""

    __slots__ = ("_cells", "cells", "extents", "high", "is_whole", "low")

    def __init__(self, low: tuple[int, ...], high: tuple[int, ...], is_whole: bool):
        self.low = low
        self.high = high
        self.is_whole = is_whole
        self.extents = tuple(h - l for l, h in zip(low, high, strict=True))
        self._cells: dict[tuple[int, ...], tuple[Cell, ...]] = {}
        self.cells = self.cells_of(self.extents)  # one, if the box is aligned to its size

    def cells_of(self, extents: tuple[int, ...]) -> tuple[Cell, ...]:
        """The cells it lies in, of a grid whose cells have these extents; empty if there are too many."""
        found = self._cells.get(extents)
        if found is None:
            ranges = [
                range(l // e, (h - 1) // e + 1) for l, h, e in zip(self.low, self.high, extents, strict=True)
            ]
            listed = math.prod(map(len, ranges)) <= _CELLS
            found = self._cells[extents] = tuple(itertools.product(*ranges)) if listed else ()
        return found

    def meets(self, other: Box) -> bool:
        """True if the two share a byte."""
        if self.is_whole or other.is_whole:
            return True
        for a, b, c, d in zip(self.low, self.high, other.low, other.high, strict=True):
            if a >= d or c >= b:
                return False
        return True

    def covers(self, other: Box) -> bool:
        """True if `other` lies within this one."""
        if self.is_whole:
            return True
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

    __slots__ = ("_boxes", "_interned", "_moved", "sizes", "strides", "whole")

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
        self._moved: dict[tuple[Box, int, int], Box | None] = {}
        self.whole = self.box([0] * len(self.sizes), list(self.sizes))

    def box(self, low: list[int], high: list[int]) -> Box:
        """The box of these bounds, one object for equal bounds."""
        key = (tuple(low), tuple(high))
        found = self._interned.get(key)
        if found is None:
            is_whole = key == ((0,) * len(low), self.sizes)
            found = self._interned[key] = Box(*key, is_whole)
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

    def moved(self, box: Box, layout: Layout, partition: int, shift: int) -> Box | None:
        """A box of another layout that lies `partition` partitions and `shift` bytes further on, in this one.

        The smallest box of this layout around it; None if the two share no byte.
        """
        if layout is self and not partition and not shift:
            return box
        key = (box, partition, shift)
        if key not in self._moved:
            self._moved[key] = self._move(box, layout, partition, shift)
        return self._moved[key]

    def _move(self, box: Box, layout: Layout, partition: int, shift: int) -> Box | None:
        if box is layout.whole:
            first, end = 0, layout.strides[0]
        else:
            first = sum(l * s for l, s in zip(box.low[1:], layout.strides[1:], strict=True))
            end = 1 + sum((h - 1) * s for h, s in zip(box.high[1:], layout.strides[1:], strict=True))
        first, end = max(0, first + shift), min(self.strides[0], end + shift)
        low, high = max(0, box.low[0] + partition), min(self.sizes[0], box.high[0] + partition)
        if low >= high or first >= end:
            return None
        if low == first == 0 and high == self.sizes[0] and end == self.strides[0]:
            return self.whole
        lows, highs = [low], [high]
        for size, stride in zip(self.sizes[1:], self.strides[1:], strict=True):
            a, b = first // stride, (end - 1) // stride
            lows.append(a % size)
            highs.append(b % size + 1)
            if a != b:  # more than one of these: all of what lies within them
                rest = len(self.sizes) - len(lows)
                lows += [0] * rest
                highs += self.sizes[len(highs) :]
                break
        return self.box(lows, highs)


Entries = dict[tuple[Box, int], Access]  # by box and engine


class Accesses:
    """Accesses by box: the latest of each engine to each box.

    Most tensors are only ever touched through one box. What came to it is a short tuple; the grids, a spatial
    hash for each size of box, are made when a second one comes.
    """

    __slots__ = ("_box", "_grids", "_latest")

    def __init__(self) -> None:
        self._box: Box | None = None
        self._latest: tuple[Access, ...] = ()
        self._grids: dict[tuple[int, ...], dict[Cell, Entries]] | None = None  # by extents, then cell

    def add(self, box: Box, access: Access) -> None:
        """Note an access; it replaces an earlier one of the same engine to the same box."""
        if self._grids is None:
            if self._box is box:
                self._latest = _with(self._latest, access) if self._latest else (access,)
                return
            if self._box is None:
                self._box, self._latest = box, (access,)
                return
            self._spread()
        self._put(box, access)

    def _spread(self) -> None:
        """Go on with grids: there is a second box."""
        box = self._box
        assert box is not None
        entries = {(box, access[2]): access for access in self._latest}
        self._grids = {box.extents: {cell: dict(entries) for cell in box.cells}}
        self._box, self._latest = None, ()

    def _put(self, box: Box, access: Access) -> None:
        grids = self._grids
        assert grids is not None
        grid = grids.get(box.extents)
        if grid is None:
            grid = grids[box.extents] = {}
        key = (box, access[2])
        for cell in box.cells:
            entries = grid.get(cell)
            if entries is None:
                grid[cell] = {key: access}
            else:
                old = entries.get(key)
                if old is None or old[0] <= access[0]:
                    entries[key] = access

    def meeting(self, box: Box) -> Sequence[Access]:
        """Every access to a byte of `box`; one that spans cells may come more than once."""
        grids = self._grids
        if grids is None:
            own = self._box
            return self._latest if own is box or (own is not None and own.meets(box)) else ()
        found = []
        for extents, grid in grids.items():
            for entries in _near(grid, extents, box):
                for key, access in entries.items():
                    if key[0] is box or key[0].meets(box):
                        found.append(access)
        return found

    def overwrite(self, box: Box) -> Sequence[Access]:
        """As :meth:`meeting`, forgetting those within `box`: what overwrites it waits for them."""
        grids = self._grids
        if grids is None:
            own, latest = self._box, self._latest
            if not latest or own is None:
                return ()
            if own is box or box.covers(own):
                self._latest = ()
                return latest
            return latest if own.meets(box) else ()
        found = []
        for extents, grid in grids.items():
            for entries in _near(grid, extents, box):
                gone = []
                for key, access in entries.items():
                    if key[0] is box or box.covers(key[0]):
                        found.append(access)
                        gone.append(key)
                    elif key[0].meets(box):
                        found.append(access)
                for key in gone:
                    del entries[key]
        return found

    def inherit(self, giver: Accesses, earlier: Handing) -> None:
        """Note the accesses of `giver`, to bytes that were those of an earlier storage."""
        if giver._grids is None:
            if giver._box is None or not giver._latest:
                return
            box = earlier.moved(giver._box)
            if box is None:
                return
            latest = earlier.of(giver._latest)
            if self._grids is None and self._box is None:
                self._box, self._latest = box, tuple(latest)
                return
            for access in latest:
                self.add(box, access)
            return
        for grid in giver._grids.values():
            for entries in grid.values():
                for (box, _), access in entries.items():
                    target = earlier.moved(box)
                    if target is not None:
                        for one in earlier.of((access,)):
                            self.add(target, one)

    def follow(self, writes: Accesses) -> bool:
        """True if these are reads of just what `writes` wrote: they have waited for it."""
        return bool(self._latest) and self._box is writes._box

    def hand_over(self, to: list[Access], earlier: Handing) -> None:
        """Append all accesses to bytes that the other storage has now."""
        if self._grids is None:
            box, latest = self._box, self._latest
            if latest and (box is None or earlier.is_within or earlier.moved(box) is not None):
                to += earlier.of(latest)
            return
        for grid in self._grids.values():
            for entries in grid.values():
                for (box, _), access in entries.items():
                    if earlier.is_within or earlier.moved(box) is not None:
                        to += earlier.of((access,))


def _with(latest: tuple[Access, ...], access: Access) -> tuple[Access, ...]:
    """`latest` with an access, which replaces one of the same engine that was over before it."""
    for k, old in enumerate(latest):
        if old[2] == access[2]:
            if old[0] > access[0]:
                return latest
            return (access,) if len(latest) == 1 else (*latest[:k], access, *latest[k + 1 :])
    return (*latest, access)


def _near(grid: dict[Cell, Entries], extents: tuple[int, ...], box: Box) -> Iterable[Entries]:
    """The cells of a grid that may hold boxes meeting `box`."""
    cells = box.cells if extents == box.extents else box.cells_of(extents)
    if len(cells) == 1:
        entries = grid.get(cells[0])
        return (entries,) if entries else ()
    if not cells or len(cells) > len(grid):
        return grid.values()
    return [entries for entries in map(grid.get, cells) if entries]


class Bytes:
    """The accesses to one storage.

    Attributes:
        owners: of the memory it is placed in; None if it has no place on chip.
        first, last: partitions it has there, the last exclusive.
        start, end: bytes it has of each, the last exclusive.
        owner: True while all its bytes were last touched through this storage.
        givers: those whose bytes it has taken without what was done to them.
    """

    __slots__ = (
        *("end", "first", "givers", "last", "layout", "owner", "owners", "reads"),
        *("start", "storage", "writes"),
    )

    def __init__(self, storage: Storage, layout: Layout, base: tuple[int, int] | None, owners: Owners | None):
        self.storage = storage
        self.owners = owners
        self.layout = layout
        self.first, self.start = base or (0, 0)
        self.last = self.first + storage.partitions
        self.end = self.start + max(1, storage.row_bytes)
        self.reads = Accesses()
        self.writes = Accesses()
        self.owner = False
        self.givers: Sequence[Bytes] = ()

    def settle(self) -> None:
        """Inherit what was done to the bytes it has taken."""
        for giver in self.givers:
            earlier = Handing(giver, self)
            self.reads.inherit(giver.reads, earlier)
            self.writes.inherit(giver.writes, earlier)
        self.givers = ()

    def overwrite(self, box: Box) -> Iterable[Access]:
        """What an overwrite of `box` waits for; what lies within it is forgotten."""
        if not self.givers:
            read, written = self.reads.overwrite(box), self.writes.overwrite(box)
            return (*read, *written) if read and written else read or written
        assert box is self.layout.whole
        found = [*self.reads.overwrite(box), *self.writes.overwrite(box)]
        for giver in self.givers:
            earlier = Handing(giver, self)
            giver.reads.hand_over(found, earlier)
            if not giver.reads.follow(giver.writes):
                giver.writes.hand_over(found, earlier)
        self.givers = ()
        return found

    def meets(self, other: Bytes) -> bool:
        """True if the two have a byte in common."""
        shares_bytes = self.start < other.end and other.start < self.end
        return shares_bytes and self.first < other.last and other.first < self.last


class Handing:
    """The handing over of what was done to the bytes of one storage to another that has some of them now.

    Attributes:
        is_within: True if that has all of them.
    """

    __slots__ = ("_giver", "_taker", "is_within")

    def __init__(self, giver: Bytes, taker: Bytes):
        self._giver, self._taker = giver, taker
        is_within = taker.start <= giver.start and giver.end <= taker.end
        self.is_within = is_within and taker.first <= giver.first and giver.last <= taker.last

    def moved(self, box: Box) -> Box | None:
        """A box of the giver in the coordinates of the taker; None where that has no byte of it."""
        giver, taker = self._giver, self._taker
        return taker.layout.moved(box, giver.layout, giver.first - taker.first, giver.start - taker.start)

    def of(self, accesses: Iterable[Access]) -> list[Access]:
        """Those to bytes that the taker has, as accesses to an earlier storage.

        Boxes are rounded up when they are moved, so that after two moves one may cover bytes that the storage
        it was first a box of never had.
        """
        found: list[Access] = []
        for access in accesses:
            time, event, engine, first = access
            if first is None:
                found.append((time, event, engine, self._giver))
            elif self.is_within or first.meets(self._taker):
                found.append(access)
        return found


class Owners:
    """Which storages last touched each byte of SBUF or PSUM, all partitions alike, as intervals.

    Interval k runs from ``starts[k]`` to the next start; neighbours may have the same owners.
    """

    __slots__ = ("owners", "starts")

    def __init__(self) -> None:
        self.starts = [0]
        self.owners: list[tuple[Bytes, ...]] = [()]

    def take(self, taker: Bytes) -> list[Bytes]:
        """Make `taker` the owner of its bytes; those it took bytes from, itself left out."""
        first, last = self._cut(taker.start), self._cut(taker.end)
        if last == first + 1 and len(self.owners[first]) == 1:  # what takes turns in a buffer
            (owner,) = self.owners[first]
            if owner is not taker and taker.first <= owner.first and owner.last <= taker.last:
                self.owners[first] = (taker,)
                return [owner]
        givers: dict[Bytes, None] = {}  # in the order of their bytes
        kept: list[tuple[Bytes, ...]] = []
        is_alone = True
        begin, end = taker.first, taker.last
        for owners in self.owners[first:last]:
            others: list[Bytes] = []  # that keep partitions of their own there
            for owner in owners:
                if owner is taker:
                    continue
                if owner.first < end and begin < owner.last:
                    givers[owner] = None
                    if begin <= owner.first and owner.last <= end:
                        continue
                others.append(owner)
            kept.append((taker, *others))
            is_alone = is_alone and not others
        if is_alone:
            self.starts[first:last] = [taker.start]
            self.owners[first:last] = [(taker,)]
        else:
            self.owners[first:last] = kept
        return list(givers)

    def _cut(self, byte: int) -> int:
        """The interval that starts at `byte`, made if there is none."""
        k = bisect_left(self.starts, byte)
        if k == len(self.starts) or self.starts[k] != byte:
            self.starts.insert(k, byte)
            self.owners.insert(k, self.owners[k - 1])
        return k


class AllAccesses:
    """The accesses to every storage, and the handing over of bytes that storages share over time.

    Without addresses every storage is taken to have bytes of its own.

    Attributes:
        known: the accesses to storages met so far; those of an owner are complete.
    """

    def __init__(self, addresses: Mapping[int, tuple[int, int]] | None = None):
        self._addresses = addresses or {}
        self._layouts: dict[tuple[tuple[int, ...], int], Layout] = {}
        self.known: dict[Storage, Bytes] = {}
        self._sbuf, self._psum = Owners(), Owners()

    def bytes_of(self, storage: Storage) -> Bytes:
        """The accesses to `storage`, with those inherited from storages that held its bytes before."""
        found = self.taken(storage)
        if found.givers:
            found.settle()
        return found

    def taken(self, storage: Storage) -> Bytes:
        """As :meth:`bytes_of`, but what is inherited may still be with :attr:`Bytes.givers`.

        The next thing asked of it is :meth:`Bytes.settle`, or :meth:`Bytes.overwrite` of all its bytes.
        """
        found = self.known.get(storage)
        if found is None:
            key = (storage.shape, storage.dtype.itemsize)
            layout = self._layouts.get(key)
            if layout is None:
                layout = self._layouts[key] = Layout(*key)
            base = self._addresses.get(storage.index) if storage.on_chip else None
            owners = self._psum if storage.region is MemoryRegion.psum else self._sbuf
            found = Bytes(storage, layout, base, None if base is None else owners)
            self.known[storage] = found
        if not found.owner:
            found.owner = True
            if found.owners is not None:
                found.givers = found.owners.take(found)
                for giver in found.givers:
                    giver.owner = False
        return found
