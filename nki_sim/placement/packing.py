"""Where in a line of bytes things with known lifetimes go: two methods, plain arrays in and out.

:func:`rotate` goes through the requests in order of first use and takes the
bytes whose last use is longest past, so that the next tile does not wait for
the previous one. :func:`tighten` puts large requests first, at the lowest
offset that is free throughout their life, as compactly as it can. :func:`pack`
rotates what it can and tightens what it must.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Requests:
    """Things to place, one per position of the arrays.

    Attributes:
        sizes: bytes.
        firsts: position of the first use.
        lasts: position of the last use, included.
        group_firsts: first position at which the request wants its bank for itself (see `Space`).
        group_lasts: last such position; before `group_firsts` if there is none.
    """

    sizes: Ints
    firsts: Ints
    lasts: Ints
    group_firsts: Ints
    group_lasts: Ints

    def take(self, chosen: Ints) -> Requests:
        """The requests at the positions `chosen`."""
        return Requests(
            self.sizes[chosen],
            self.firsts[chosen],
            self.lasts[chosen],
            self.group_firsts[chosen],
            self.group_lasts[chosen],
        )


@dataclass(frozen=True, slots=True)
class Fixed:
    """Bytes that are taken for some time: offsets, sizes, and first and last position."""

    offsets: Ints
    sizes: Ints
    firsts: Ints
    lasts: Ints

    def join(self, requests: Requests, offsets: Ints) -> Fixed:
        """These and `requests` placed at `offsets`."""
        return Fixed(
            np.concatenate([self.offsets, offsets]),
            np.concatenate([self.sizes, requests.sizes]),
            np.concatenate([self.firsts, requests.firsts]),
            np.concatenate([self.lasts, requests.lasts]),
        )


@dataclass(frozen=True, slots=True)
class Space:
    """The line of bytes.

    Attributes:
        capacity: bytes.
        unit: what :func:`rotate` counts in, in bytes.
        align: what offsets are multiples of when packed tightly.
        bank: bytes of a bank that no request of that size or less may straddle and at which
            larger ones start; 0 where there are no banks.
    """

    capacity: int
    unit: int
    align: int
    bank: int = 0


#: How often each order of tight packing is tried: at most so many times, placing at most so many requests.
_MOST_TRIES, _TIGHT_BUDGET = 100, 60_000


def pack(
    requests: Requests, fixed: Fixed, space: Space, positions: int, is_loose: bool = False
) -> Ints | None:
    """An offset for each request, none overlapping another or `fixed` while both live; None if not found.

    With `is_loose`, only where those that do not live long can rotate.
    """
    before = -1
    lifetimes = requests.lasts - requests.firsts + 1
    for least in _long_lives(positions):
        is_long = lifetimes >= least
        if int(is_long.sum()) == before:
            continue
        before = int(is_long.sum())
        offsets = _rotate_around(requests, np.flatnonzero(is_long), np.flatnonzero(~is_long), fixed, space)
        if offsets is not None:
            return offsets
    return None if is_loose else tighten(requests, fixed, space)


def _long_lives(positions: int) -> Iterator[float]:
    """From how many positions on a request is packed tightly before the others rotate, step by step.

    First none is, then those of a quarter of the program, then of an eighth of that, and so on: each step
    leaves less room for rotation and wastes less between the long-lived. The steps go on to the lifetimes of
    single tiles, so that a loop that goes round often finds the room that it finds when it goes round once.
    """
    yield np.inf
    least = positions / 4
    while least >= 4:
        yield least
        least /= 8


def _rotate_around(requests: Requests, long: Ints, short: Ints, fixed: Fixed, space: Space) -> Ints | None:
    offsets = np.zeros(len(requests.sizes), np.int64)
    if len(long):
        kept = requests.take(long)
        placed = tighten(kept, fixed, space)
        if placed is None:
            return None
        offsets[long] = placed
        fixed = fixed.join(kept, placed)
    rotated = rotate(requests.take(short), fixed, space)
    if rotated is None:
        return None
    offsets[short] = rotated
    return offsets


def rotate(requests: Requests, fixed: Fixed, space: Space) -> Ints | None:
    """Offsets by least recent use: never-used bytes first, then those whose last use is longest past.

    Among equals the lowest offset wins. Every request takes whole units.
    """
    units = space.capacity // space.unit
    # Position of the last use of each unit. It is in the future for a unit that is taken now.
    used = np.full(units, -1, np.int32)
    by_first = np.argsort(fixed.firsts, kind="stable")
    fixed_firsts = fixed.firsts[by_first].tolist()
    starts = (fixed.offsets[by_first] // space.unit).tolist()
    stops = (-(-(fixed.offsets + fixed.sizes)[by_first] // space.unit)).tolist()
    fixed_lasts = fixed.lasts[by_first].tolist()
    begun = 0
    counts = np.maximum(-(-requests.sizes // space.unit), 1).tolist()
    firsts, lasts = requests.firsts.tolist(), requests.lasts.tolist()
    offsets = np.zeros(len(counts), np.int64)
    taken = np.iinfo(np.int32).max
    for i in np.lexsort((-requests.sizes, requests.firsts)).tolist():
        first, last, count = firsts[i], lasts[i], counts[i]
        while begun < len(fixed_firsts) and fixed_firsts[begun] <= first:
            window = used[starts[begun] : stops[begun]]
            np.maximum(window, fixed_lasts[begun], out=window)
            begun += 1
        if count > units:
            return None
        free_from = used
        upcoming = bisect_right(fixed_firsts, last, begun)
        if upcoming > begun:
            free_from = used.copy()
            for k in range(begun, upcoming):
                free_from[starts[k] : stops[k]] = taken
        latest = _window_maximum(free_from, count)
        at = int(latest.argmin())
        if latest[at] >= first:
            return None
        used[at : at + count] = last
        offsets[i] = at * space.unit
    return offsets


def _window_maximum(values: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """The maximum of each `count` neighbours, in log2(count) passes."""
    width = 1
    while width * 2 <= count:
        values = np.maximum(values[:-width], values[width:])
        width *= 2
    rest = count - width
    return np.maximum(values[:-rest], values[rest:]) if rest else values


def tighten(
    requests: Requests, fixed: Fixed, space: Space, quadrants: tuple[Ints, Ints] | None = None
) -> Ints | None:
    """Offsets packed tightly, or None where none were found.

    With `quadrants`, of the requests and of `fixed`, a bit each, only those that have one in common need
    bytes apart.

    Several orders of placing are tried; within each, a request that finds no gap is
    moved to the front and the order tried again, until the budget is spent.
    """
    count = len(requests.sizes)
    lifetimes = requests.lasts - requests.firsts + 1
    positions = np.arange(count)
    orders = (
        np.lexsort((positions, -lifetimes, -requests.sizes)),
        np.lexsort((positions, -requests.sizes, -lifetimes)),
        np.lexsort((positions, -lifetimes * requests.sizes)),
        np.lexsort((positions, -requests.sizes, requests.firsts)),
    )
    tries = max(1, min(_MOST_TRIES, _TIGHT_BUDGET // max(count, 1)))
    for order in orders:
        turn = order.tolist()
        for _ in range(tries):
            offsets, stuck = _place_in_order(requests, turn, fixed, space, quadrants)
            if stuck is None:
                return offsets
            turn.remove(stuck)
            turn.insert(0, stuck)
    return None


def _place_in_order(
    requests: Requests,
    order: Sequence[int],
    fixed: Fixed,
    space: Space,
    quadrants: tuple[Ints, Ints] | None,
) -> tuple[Ints, int | None]:
    """Each request in turn at the lowest offset free throughout its life; and the first that found none."""
    count, taken = len(order), len(fixed.sizes)
    sizes = -(-requests.sizes // space.align) * space.align
    starts = np.concatenate([np.zeros(count, np.int64), fixed.offsets])
    ends = np.concatenate([sizes, fixed.offsets + fixed.sizes])
    firsts = np.concatenate([requests.firsts, fixed.firsts])
    lasts = np.concatenate([requests.lasts, fixed.lasts])
    group_firsts = np.concatenate([requests.group_firsts, np.zeros(taken, np.int64)])
    group_lasts = np.concatenate([requests.group_lasts, np.full(taken, -1, np.int64)])
    lanes = None if quadrants is None else np.concatenate(quadrants)
    calendar = _Calendar(firsts, lasts)
    for k in range(count, count + taken):
        calendar.add(k)
    for i in order:
        rivals = calendar.rivals(i)
        if lanes is not None:
            rivals = rivals[(lanes[rivals] & lanes[i]) != 0]
        low, high = starts[rivals], ends[rivals]
        if space.bank and group_firsts[i] <= group_lasts[i]:
            apart = (group_firsts[rivals] <= group_lasts[i]) & (group_lasts[rivals] >= group_firsts[i])
            low = np.where(apart, low // space.bank * space.bank, low)
            high = np.where(apart, -(-high // space.bank) * space.bank, high)
        offset = _lowest_gap(low, high, int(sizes[i]), space)
        if offset is None:
            return starts[:count], i
        starts[i], ends[i] = offset, offset + sizes[i]
        calendar.add(i)
    return starts[:count], None


def _lowest_gap(low: Ints, high: Ints, size: int, space: Space) -> int | None:
    """The lowest legal offset of `size` free bytes between the stretches `low` to `high`."""
    by_low = np.argsort(low, kind="stable")
    gap_starts = np.concatenate([[0], np.maximum.accumulate(high[by_low])])
    gap_ends = np.concatenate([low[by_low], [space.capacity]])
    offsets = -(-gap_starts // space.align) * space.align
    if space.bank:
        banked = -(-offsets // space.bank) * space.bank
        straddles = (offsets % space.bank + size > space.bank) & (offsets != banked)
        offsets = np.where(straddles, banked, offsets)
    fits = offsets + size <= gap_ends
    best = int(fits.argmax())
    return int(offsets[best]) if fits[best] else None


class _Calendar:
    """Finds what lives at the same time as something else, by stretches of positions."""

    _STRETCHES = 512
    _WIDE = 16  # what spans more stretches than this is kept apart

    def __init__(self, firsts: Ints, lasts: Ints):
        self._firsts, self._lasts = firsts, lasts
        end = int(lasts.max(initial=0)) + 1
        self._width = max(1, -(-end // self._STRETCHES))
        self._days: list[list[int]] = [[] for _ in range(end // self._width + 1)]
        self._wide: list[int] = []
        self._from = (firsts // self._width).tolist()
        self._to = (lasts // self._width).tolist()

    def add(self, item: int) -> None:
        """Enter `item`, a position of the arrays given at the start."""
        begin, end = self._from[item], self._to[item]
        if end - begin > self._WIDE:
            self._wide.append(item)
        else:
            for day in self._days[begin : end + 1]:
                day.append(item)

    def rivals(self, item: int) -> Ints:
        """Those entered whose lifetimes meet that of `item`, in no particular order but always the same."""
        days = self._days[self._from[item] : self._to[item] + 1]
        near = days[0] if len(days) == 1 else dict.fromkeys(itertools.chain.from_iterable(days))
        found = np.array([*self._wide, *near], np.int64)
        meets = (self._firsts[found] <= self._lasts[item]) & (self._lasts[found] >= self._firsts[item])
        return found[meets]
