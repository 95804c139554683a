"""The tensor engine's clock, whose speed depends on what ran before.

Source: rules derived from public trn2 profiler traces, see the ``throttle_*`` figures of
:class:`nki_isa.machine.target.Target`.
"""

from __future__ import annotations

import math

from nki_isa.machine.target import Target


class TensorClock:
    """The tensor engine's clock, full or throttled, one decision per window.

    Time is cut into windows of 4096 base cycles, which run on whatever a launch does: the
    first ends ``throttle_phase`` after its first possible trigger. A window runs at full
    rate if the columns streamed in the one before, of however many rows, were at least 3/8
    of what full rate could stream; otherwise at the throttled rate. The first window is
    throttled. Streaming must be asked for in order of time.
    """

    __slots__ = ("_end", "_threshold", "_window", "full", "ghz", "rate", "slow", "slow_rate", "used")

    def __init__(self, target: Target):
        self.ghz = target.tensor_ghz
        self.slow_rate = target.throttle_rate
        self._window = target.throttle_window
        self._end = target.throttle_phase if target.throttled else math.inf  # of the current window
        self._threshold = target.throttle_threshold * target.throttle_window * target.tensor_ghz
        self.used = 0.0  # columns streamed in it
        self.full = not target.throttled
        self.rate = self.ghz if self.full else self.ghz * self.slow_rate
        self.slow = 0.0  # ns of streaming at the throttled rate so far

    def advance(self, time: float) -> None:
        """Move to the window that holds `time`."""
        while time >= self._end:
            if self.used == 0.0 and not self.full:  # idle windows stay throttled
                self._end += self._window * (1 + (time - self._end) // self._window)
                continue
            self.full = self.used >= self._threshold
            self.rate = self.ghz if self.full else self.ghz * self.slow_rate
            self.used = 0.0
            self._end += self._window

    def stream(self, start: float, columns: float, weight: float) -> float:
        """When `columns` from `start` on are through; `weight` is :attr:`~nki_isa.cost.Cost.use`."""
        self.advance(start)
        now = start
        while True:
            room = (self._end - now) * self.rate
            if columns <= room:
                self.used += columns * weight
                end = now + columns / self.rate
                if not self.full:
                    self.slow += end - now
                return end
            self.used += room * weight
            columns -= room
            if not self.full:
                self.slow += self._end - now
            now = self._end
            self.advance(now)
