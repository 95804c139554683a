"""The DMA engines of a core, whose speed depends on what is in flight.

Source: DMA transfers of different queues take turns (SDK, DMA overview); in the public trn2 traces every row
of a transfer alternates with one of the other queue where two are active on an engine, 1,189 times of 1,189,
and a queue is first in, first out.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque

_BUCKET = 1000.0  # ns
_INSTANT = 1e-6  # ns, or engines: less is what rounding leaves


class Moving:
    """A transfer.

    Attributes:
        queue: its queue.
        is_hbm: whether it goes to HBM or comes from there.
        begin: ns at which its data are ready to move.
        earliest: ns at which its last row could be through, having waited for HBM if it must.
        left: rows that the busiest of its engines has still to move.
        row: ns of a row.
        share: of the engines that it is dealt to.
        held: of the engines that it has, less than `share` while earlier ones of its queue have the others.
        through: ns at which its last row is; negative until that is settled.
        end: ns at which it is over: through, and the earlier ones of its queue too; negative until then.
    """

    __slots__ = ("begin", "earliest", "end", "held", "is_hbm", "left", "queue", "row", "share", "through")

    def __init__(
        self, queue: int, is_hbm: bool, begin: float, rows: float, row: float, share: float, wait: float
    ):
        self.queue = queue
        self.is_hbm = is_hbm
        self.begin = begin
        self.earliest = begin + rows * row + wait
        self.left = rows
        self.row = row
        self.share = share
        self.held = 0.0
        self.through = self.end = -1.0


class DmaEngines:
    """The DMA engines of a core.

    A queue serves its transfers in order; queues take turns, row by row, so that one with short rows gets
    little beside one with long rows. Each engine works on its own, and every transfer keeps some of them
    busy. Which ones is not published; a kernel of NKIBench (rope, searched) whose transfers are of 64
    partitions each, enough for half of the engines, moves 201 GB/s on trn1, where half of them move 123: so
    they are taken to go round all of them.

    When a transfer is over depends on those that come while it moves. It is settled when it is asked for:
    what had not been booked by then finds the engines as they were, and gets what was left of them, first
    come first served within a bucket of time.

    Args:
        hbm: share of the engines that HBM can keep busy.
        shared: False for a machine whose transfers do not wait for each other.
    """

    __slots__ = (
        *("_coming", "_ends", "_hbm", "_next", "_now", "_number", "_of_queue"),
        *("_open", "_served", "_shared", "_used", "_waiting"),
    )

    def __init__(self, hbm: float = 1.0, shared: bool = True) -> None:
        self._hbm = hbm
        self._shared = shared
        self._now = 0.0  # ns until which all is settled
        self._coming: list[tuple[float, int, Moving]] = []  # a heap of those that begin later
        self._number = itertools.count()
        self._served: list[Moving] = []
        self._of_queue: dict[int, float] = {}  # ns an engine spends on its row of a queue, on average
        self._waiting: dict[int, deque[Moving]] = {}  # for earlier ones of their queue
        self._open: dict[int, deque[Moving]] = {}  # that are not over, by queue
        self._ends: dict[int, float] = {}  # of the last that was, by queue
        self._used: dict[int, float] = {}  # ns of each bucket that are gone
        self._next: dict[int, int] = {}  # a full bucket -> a later one that may have room

    def book(
        self,
        queue: int,
        is_hbm: bool,
        begin: float,
        rows: float,
        row: float,
        share: float,
        wait: float = 0.0,
    ) -> Moving:
        """A transfer of `rows` rows for each of its engines, which waits `wait` ns; see :class:`Moving`."""
        moving = Moving(queue, is_hbm, begin, rows, row, share, wait)
        if is_hbm and share > self._hbm:
            moving.earliest = max(moving.earliest, begin + rows * row * share / self._hbm)
        if not self._shared or rows == 0.0:
            moving.end = moving.earliest
        elif begin >= self._now:
            heapq.heappush(self._coming, (begin, next(self._number), moving))
        else:
            self._open.setdefault(queue, deque()).append(moving)
            self._fit(moving)
        return moving

    def end(self, moving: Moving) -> float:
        """When it is over; what is booked later can no longer hold it up."""
        while moving.end < 0.0:
            self._step()
        return moving.end

    def _step(self) -> None:
        """Go on to the next time at which a transfer begins or is over."""
        now, served = self._now, self._served
        coming = self._coming[0][0] if self._coming else float("inf")
        if served:
            of_queue = self._of_queue
            total = sum(of_queue.values())
            # ns from one row of a transfer to its next: those of the other queues come between
            turns = [(one.row + total - of_queue[one.queue]) * one.share / one.held for one in served]
            used = hbm = 0.0  # of the engines, on average
            for one, turn in zip(served, turns, strict=True):
                part = one.row * one.share / turn
                used += part
                if one.is_hbm:
                    hbm += part
            if hbm > self._hbm:
                turns = [turn * hbm / self._hbm for turn in turns]
                used = 1.0
            needed = [one.left * turn for one, turn in zip(served, turns, strict=True)]
            passed = min(*needed, coming - now)
            then = now + passed
            over = []
            for one, turn, need in zip(served, turns, needed, strict=True):
                one.left -= passed / turn
                if need - passed <= _INSTANT:
                    over.append(one)
            self._use(now, then, used)
            self._now = then
            for one in over:
                self._leave(one)
        else:
            self._now = coming
        while self._coming and self._coming[0][0] <= self._now:
            moving = heapq.heappop(self._coming)[2]
            self._open.setdefault(moving.queue, deque()).append(moving)
            self._enter(moving)

    def _enter(self, moving: Moving) -> None:
        """Serve a transfer, or put it behind those of its queue."""
        self._waiting.setdefault(moving.queue, deque()).append(moving)
        self._share_out(moving.queue)

    def _leave(self, moving: Moving) -> None:
        self._settle(moving, self._now)
        self._served.remove(moving)
        self._share_out(moving.queue)

    def _share_out(self, queue: int) -> None:
        """Give the engines to the transfers of a queue, in its order."""
        room, waiting = 1.0, self._waiting[queue]
        cost = 0.0
        for one in self._served:
            if one.queue == queue:
                one.held = min(one.share, room)
                room -= one.held
                cost += one.row * one.held
        while waiting and room > _INSTANT:
            one = waiting.popleft()
            one.held = min(one.share, room)
            room -= one.held
            cost += one.row * one.held
            self._served.append(one)
        self._of_queue[queue] = cost

    def _settle(self, moving: Moving, through: float) -> None:
        """Its last row is through: it is over, and so may be those after it."""
        moving.through = max(through, moving.earliest)
        queue = moving.queue
        waiting, end = self._open[queue], self._ends.get(queue, 0.0)
        while waiting and waiting[0].through >= 0.0:
            one = waiting.popleft()
            one.end = end = max(end, one.through)
        self._ends[queue] = end

    # --- time that is settled

    def _use(self, start: float, end: float, share: float) -> None:
        """Note that `share` of the engines worked from `start` to `end`."""
        used = self._used
        bucket = int(start // _BUCKET)
        while start < end:
            until = min(end, (bucket + 1) * _BUCKET)
            taken = used[bucket] = used.get(bucket, 0.0) + (until - start) * share
            if taken >= _BUCKET - 1e-6:
                self._next[bucket] = bucket + 1
            start = until
            bucket += 1

    def _fit(self, moving: Moving) -> None:
        """Give a transfer that begins in settled time what others left; its rest takes turns from now on."""
        used, start, now = self._used, moving.begin, self._now
        each = moving.row * moving.share / (self._hbm if moving.is_hbm else 1.0)  # ns of all engines
        work = moving.left * each
        bucket = int(start // _BUCKET)
        while True:
            bucket = self._room(bucket)
            begin = bucket * _BUCKET
            if begin >= now:
                break
            if start < begin:
                start = begin
            taken = used.get(bucket, 0.0)
            until = min(begin + _BUCKET, now)
            room = min(until - begin - taken, until - start)
            if work <= room:
                used[bucket] = taken + work
                self._settle(moving, max(start, begin + taken) + work)
                return
            if room > 0.0:
                used[bucket] = taken + room
                work -= room
                if taken + room >= _BUCKET - 1e-6:
                    self._next[bucket] = bucket + 1
            bucket += 1
        moving.left = work / each
        self._enter(moving)

    def _room(self, bucket: int) -> int:
        """The first bucket from `bucket` on that is not full."""
        following = self._next
        first = bucket
        while bucket in following:
            bucket = following[bucket]
        while first in following and following[first] != bucket:
            following[first], first = bucket, following[first]
        return bucket
