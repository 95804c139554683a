"""The DMA engines of a core, whose speed depends on what is in flight.

Source: DMA transfers of different queues take turns (SDK, DMA overview); in the public trn2 traces every row
of a transfer alternates with one of the other queue where two are active on an engine, 1,189 times of 1,189,
and a queue is first in, first out.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_BUCKET = 1000.0  # ns
_NEVER = float("inf")
_NOTES = 1000  # that are kept before they go into buckets
_INSTANT = 1e-6  # ns, or engines: less is what rounding leaves


class Work(NamedTuple):
    """What a transfer is to the DMA engines.

    Attributes:
        rows: that the busiest of the engines it is dealt to moves, or packets of rows.
        row: ns of one of them.
        share: of the engines that it is dealt to. The others are left to other transfers.
        is_hbm: whether it goes to HBM or comes from there.
        wait: ns for HBM; other transfers use the engines meanwhile.
    """

    rows: float
    row: float
    share: float
    is_hbm: bool = False
    wait: float = 0.0


class _Queue:
    """The transfers of a queue that are not over, in its order.

    Attributes:
        behind: those that have no engines yet.
        served: those that have.
        open: those that had engines, and may wait for earlier ones to be over.
        cost: ns an engine spends on its row of those served, on average.
        room: the engines that none of them has.
        latest: ns at which the data of the last were ready to move.
        earliest: ns at which the last could be over.
        end: ns at which the last that is over was.
    """

    __slots__ = ("behind", "cost", "earliest", "end", "latest", "open", "room", "served")

    def __init__(self) -> None:
        self.behind: deque[InFlight] = deque()
        self.served: list[InFlight] = []
        self.open: deque[InFlight] = deque()
        self.cost = self.latest = self.earliest = self.end = 0.0
        self.room = 1.0

    def share_out(self, now: float) -> list[InFlight]:
        """Give the engines to the transfers that have begun; those of them that had none before."""
        served, behind = self.served, self.behind
        before, at = len(served), 0
        room, cost = 1.0, 0.0
        while True:
            if at == len(served):
                if not behind or room <= _INSTANT or behind[0].begin > now:
                    break
                served.append(behind.popleft())
            one = served[at]
            one.held = share = min(one.work.share, room)
            room -= share
            cost += one.work.row * share
            at += 1
        self.cost, self.room = cost, room
        new = served[before:]
        self.open += new
        return new

    def settle(self, moving: InFlight, through: float) -> None:
        """The last row of one is through: it is over, and so may be those after it."""
        moving.through = max(through, moving.earliest)
        while self.open and self.open[0].through >= 0.0:
            one = self.open.popleft()
            self.end = one.end = max(self.end, one.through)


class InFlight:
    """A transfer.

    Attributes:
        queue: its queue.
        work: what it is to the engines.
        begin: ns at which its data are ready to move.
        alone: ns that its rows take if nothing else moves.
        earliest: ns at which it could be over, after the earlier ones of its queue and having waited for HBM.
        left: rows that the busiest of its engines has still to move.
        held: of the engines that it has, less than its share while earlier ones of its queue have the others.
        through: ns at which its last row is; negative until that is settled.
        end: ns at which it is over: through, and the earlier ones of its queue too; negative until then.
    """

    __slots__ = ("alone", "begin", "earliest", "end", "held", "left", "queue", "through", "work")

    def __init__(self, queue: _Queue, work: Work, begin: float, alone: float, earliest: float):
        self.queue = queue
        self.work = work
        self.begin = begin
        self.alone = alone
        self.earliest = earliest
        self.left = work.rows
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

    __slots__ = ("_hbm", "_next", "_now", "_queues", "_served", "_shared", "_used", "_worked")

    def __init__(self, hbm: float = 1.0, shared: bool = True) -> None:
        self._hbm = hbm
        self._shared = shared
        self._now = 0.0  # ns until which all is settled
        self._queues: dict[int, _Queue] = {}
        self._served: list[InFlight] = []  # of all queues
        self._worked: list[list[float]] = []  # from, to, share of the engines: settled, not yet in a bucket
        self._used: dict[int, float] = {}  # ns of each bucket that are gone
        self._next: dict[int, int] = {}  # a full bucket -> a later one that may have room

    def book(self, queue: int, begin: float, work: Work) -> InFlight:
        """A transfer of a queue, whose data are ready to move at `begin`."""
        found = self._queues.get(queue)
        if found is None:
            found = self._queues[queue] = _Queue()
        if begin < found.latest:
            begin = found.latest
        found.latest = begin
        rows, row, share, is_hbm, wait = work
        alone = rows * row
        earliest = begin + alone + wait
        if is_hbm and share > self._hbm:
            alone *= share / self._hbm
            if earliest < begin + alone:
                earliest = begin + alone
        if earliest < found.earliest:
            earliest = found.earliest
        found.earliest = earliest
        moving = InFlight(found, work, begin, alone, earliest)
        if not self._shared or alone == 0.0:
            moving.end = earliest
        elif begin >= self._now or found.behind or found.served:
            found.behind.append(moving)
        else:
            self._fit(moving)
        return moving

    def end(self, moving: InFlight) -> float:
        """When it is over; what is booked later can no longer hold it up."""
        while moving.end < 0.0:
            if self._served:
                self._move()
            else:
                self._begin()
        return moving.end

    def _begin(self) -> None:
        """Go on to the next transfer, as nothing is served; if it is alone until then, to its end."""
        first = other = _NEVER
        for queue in self._queues.values():
            if queue.behind:
                begin = queue.behind[0].begin
                if begin < first:
                    first, other, chosen = begin, first, queue
                elif begin < other:
                    other = begin
        behind = chosen.behind  # who asks for an end has booked it
        moving = behind[0]
        now = self._now
        start = first if first > now else now
        end = start + moving.alone
        _, _, share, is_hbm, _ = moving.work
        if end <= other and (share == 1.0 or len(behind) == 1 or end <= behind[1].begin):
            behind.popleft()
            self._use(start, end, 1.0 if is_hbm and share > self._hbm else share)
            self._now = end
            if end < moving.earliest:
                end = moving.earliest
            if end < chosen.end:
                end = chosen.end
            moving.end = chosen.end = end
        else:
            self._now = start
            self._admit()

    def _admit(self) -> None:
        """Serve the transfers that have begun."""
        now = self._now
        for queue in self._queues.values():
            if queue.behind and queue.room > _INSTANT and queue.behind[0].begin <= now:
                self._served += queue.share_out(now)

    def _move(self) -> None:
        """Move rows until a transfer is over, or another begins."""
        now, served = self._now, self._served
        total, until = 0.0, _NEVER
        for queue in self._queues.values():
            total += queue.cost
            if queue.behind and queue.room > _INSTANT and queue.behind[0].begin < until:
                until = queue.behind[0].begin
        turns: list[float] = []  # ns from a row to the next of the same: those of other queues come between
        used = hbm = 0.0  # of the engines, on average
        for one in served:
            work = one.work
            turn = (work.row + total - one.queue.cost) * work.share / one.held
            turns.append(turn)
            part = work.row * work.share / turn
            used += part
            if work.is_hbm:
                hbm += part
        if hbm > self._hbm:
            turns = [turn * hbm / self._hbm for turn in turns]
            used = 1.0
        needed = [one.left * turn for one, turn in zip(served, turns, strict=True)]
        passed = min(needed)
        over: list[InFlight] = []
        if until - now < passed:
            passed = max(0.0, until - now)
        else:
            over = [one for one, need in zip(served, needed, strict=True) if need - passed <= _INSTANT]
        if len(over) < len(served):
            for one, turn in zip(served, turns, strict=True):
                one.left -= passed / turn
        self._now = now = now + passed
        self._use(now - passed, now, used)
        for one in over:
            queue = one.queue
            queue.settle(one, now)
            queue.served.remove(one)
            served.remove(one)
            served += queue.share_out(now)
        if not over:
            self._admit()

    # --- time that is settled

    def _use(self, start: float, end: float, share: float) -> None:
        """Note that `share` of the engines worked from `start` to `end`."""
        worked = self._worked
        if worked:
            last = worked[-1]
            if last[1] == start and last[2] == share:
                last[1] = end
                return
            if len(worked) > _NOTES:
                self._fill()
        worked.append([start, end, share])

    def _fill(self) -> None:
        """Put what was noted into buckets."""
        used = self._used
        for start, end, share in self._worked:
            bucket = int(start // _BUCKET)
            while start < end:
                until = min(end, (bucket + 1) * _BUCKET)
                taken = used[bucket] = used.get(bucket, 0.0) + (until - start) * share
                if taken >= _BUCKET - _INSTANT:
                    self._next[bucket] = bucket + 1
                start = until
                bucket += 1
        self._worked.clear()

    def _fit(self, moving: InFlight) -> None:
        """Give a transfer that begins in settled time what others left; its rest takes turns from now on."""
        self._fill()
        used, start, now = self._used, moving.begin, self._now
        asked = moving.work
        each = asked.row * asked.share / (self._hbm if asked.is_hbm else 1.0)  # ns of all engines
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
                queue = moving.queue  # nothing of it is open
                moving.end = queue.end = max(queue.end, max(start, begin + taken) + work, moving.earliest)
                return
            if room > 0.0:
                used[bucket] = taken + room
                work -= room
                if taken + room >= _BUCKET - _INSTANT:
                    self._next[bucket] = bucket + 1
            bucket += 1
        moving.alone *= work / (moving.left * each)
        moving.left = work / each
        moving.queue.behind.append(moving)
        self._admit()

    def _room(self, bucket: int) -> int:
        """The first bucket from `bucket` on that is not full."""
        following = self._next
        first = bucket
        while bucket in following:
            bucket = following[bucket]
        while first in following and following[first] != bucket:
            following[first], first = bucket, following[first]
        return bucket
