"""Which row of a picture each event of a timeline is drawn in, so that nothing overlaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nki_sim.timing.plans import ENGINES, LANES
from nki_sim.timing.scoreboard import Timeline


@dataclass(frozen=True, slots=True)
class Rows:
    """Events dealt to rows: one per engine, as many per DMA queue as it has transfers in flight.

    Attributes:
        labels: name of each row, engines first.
        row: position in `labels` of each event.
        end: ns at which each event leaves its row: its engine is free, or its DMA is known complete.
    """

    labels: list[str]
    row: list[int]
    end: list[float]


def rows_of(timeline: Timeline) -> Rows:
    """Deal the events of `timeline`: each goes to the first row of its lane that is free when it starts."""
    starts, lanes = timeline.start.tolist(), timeline.lane.tolist()
    ends: list[float] = np.where(timeline.lane < len(ENGINES), timeline.busy, timeline.end).tolist()
    free: dict[int, list[float]] = {}
    keys = [(0, 0)] * len(timeline)
    for event in np.argsort(timeline.start, kind="stable").tolist():
        taken = free.setdefault(lanes[event], [])
        row = next((k for k, until in enumerate(taken) if until <= starts[event]), len(taken))
        taken[row : row + 1] = [ends[event]]
        keys[event] = (lanes[event], row)
    order = {key: k for k, key in enumerate(sorted(set(keys)))}
    labels = [_label(lane, row, len(free[lane])) for lane, row in order]
    return Rows(labels, [order[key] for key in keys], ends)


def _label(lane: int, row: int, rows: int) -> str:
    if LANES[lane] == "collective":
        return "collectives"
    kind = "engine" if lane < len(ENGINES) else "DMA queue"
    return f"{LANES[lane]} {kind}" + (f" #{row + 1}" if rows > 1 else "")
