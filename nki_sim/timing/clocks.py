"""Two things whose speed depends on what ran before: the tensor engine's clock and the DMA engines.

Source: rules derived from public trn2 profiler traces, see the ``throttle_*`` and
``dma_*`` figures of :class:`nki_isa.machine.target.Target`.
"""

from __future__ import annotations

from nki_isa.machine.target import Target


class TensorClock:
    """The tensor engine's clock, full or throttled, one decision per window.

    Time is cut into windows of 4096 base cycles. A window runs at full rate if the
    columns streamed in the one before, weighted by the rows in use, were at least
    3/8 of what full rate could stream; otherwise at the throttled rate. The first
    window is throttled. Streaming must be asked for in order of time.
    """

    __slots__ = ("_threshold", "_window", "full", "ghz", "index", "rate", "slow", "slow_rate", "used")

    def __init__(self, target: Target):
        self.ghz = target.tensor_ghz
        self.slow_rate = target.throttle_rate
        self._window = target.throttle_window if target.throttled else float("inf")
        self._threshold = target.throttle_threshold * target.throttle_window * target.tensor_ghz
        self.index = 0  # of the current window
        self.used = 0.0  # columns streamed in it, weighted by rows
        self.full = not target.throttled
        self.rate = self.ghz if self.full else self.ghz * self.slow_rate
        self.slow = 0.0  # ns of streaming at the throttled rate so far

    def advance(self, time: float) -> None:
        """Move to the window that holds `time`."""
        while time >= (self.index + 1) * self._window:
            if self.used == 0.0 and not self.full:
                self.index = int(time // self._window)  # idle windows stay throttled
                return
            self.full = self.used >= self._threshold
            self.rate = self.ghz if self.full else self.ghz * self.slow_rate
            self.used = 0.0
            self.index += 1

    def stream(self, start: float, columns: float, weight: float) -> float:
        """When `columns` from `start` on are through; `weight` is :attr:`~nki_isa.cost.Cost.use`."""
        self.advance(start)
        now = start
        while True:
            room = ((self.index + 1) * self._window - now) * self.rate
            if columns <= room:
                self.used += columns * weight
                end = now + columns / self.rate
                if not self.full:
                    self.slow += end - now
                return end
            self.used += room * weight
            columns -= room
            boundary = (self.index + 1) * self._window
            if not self.full:
                self.slow += boundary - now
            now = boundary
            self.advance(now)


_BUCKET = 1000.0  # ns


class DmaEngines:
    """The DMA engines of a core, as their work over time.

    Each engine works on its own, and every transfer keeps some of them busy. Which ones is not published; a
    kernel of NKIBench (rope, searched) whose transfers are of 64 partitions each, enough for half of the
    engines, moves 201 GB/s on trn1, where half of them move 123: so they are taken to go round all of them.
    Transfers may come in any order of start time: work is booked into buckets of time, first come first
    served within a bucket.

    Args:
        shared: False for a machine whose transfers do not wait for each other.
    """

    __slots__ = ("_next", "_shared", "_used")

    def __init__(self, shared: bool = True) -> None:
        self._shared = shared
        self._used: dict[int, float] = {}
        self._next: dict[int, int] = {}  # a full bucket -> a later one that may have room

    def book(self, start: float, work: float, least: float = 0.0) -> float:
        """When a transfer is done.

        Args:
            start: when its data are ready to move.
            work: ns that all engines together would need for it.
            least: ns that the busiest of those it is dealt to needs.
        """
        earliest = start + least
        if not self._shared:
            return max(earliest, start + work)
        used = self._used
        bucket = int(start // _BUCKET)
        while True:
            bucket = self._room(bucket)
            begin = bucket * _BUCKET
            if start < begin:
                start = begin
            taken = used.get(bucket, 0.0)
            room = min(_BUCKET - taken, begin + _BUCKET - start)
            if work <= room:
                used[bucket] = taken + work
                return max(start + work, begin + taken + work, earliest)
            used[bucket] = taken + room
            work -= room
            if taken + room >= _BUCKET - 1e-6:
                self._next[bucket] = bucket + 1
            bucket += 1

    def _room(self, bucket: int) -> int:
        """The first bucket from `bucket` on that is not full."""
        following = self._next
        first = bucket
        while bucket in following:
            bucket = following[bucket]
        while first in following and following[first] != bucket:
            following[first], first = bucket, following[first]
        return bucket
