"""What the links of a machine carry during a launch over ranks: a row for each direction that is used."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nki_isa.cost import links
from nki_isa.machine.topologies import Link, Topology
from nki_isa.ops.collective import Collective
from nki_sim.timing.scoreboard import Timeline


@dataclass(frozen=True, slots=True)
class Carried:
    """What one collective sends over one link.

    Attributes:
        event: of the timeline of its first rank.
        algorithm: how it goes.
        begin, end: ns; the link may idle between them, if others are busier.
        octets: bytes.
        share: of what the link could carry from `begin` to `end`.
    """

    instruction: Collective
    event: int
    algorithm: str
    begin: float
    end: float
    octets: float
    share: float


@dataclass(frozen=True, slots=True)
class LinkRows:
    """The links that a launch uses, in order, and what each carries, in order of time.

    Attributes:
        topology: of the machine it ran on.
        duration: ns of the launch.
    """

    topology: Topology
    duration: float
    rows: dict[Link, list[Carried]]

    def busiest(self, most: int) -> list[tuple[Link, float, float]]:
        """Links, their bytes, and the share of what they could carry meanwhile; the busiest first."""
        found = []
        for link, carried in self.rows.items():
            octets = sum(one.octets for one in carried)
            found.append((link, octets, octets / (self.topology.rate(link) * max(self.duration, 1.0))))
        return sorted(found, key=lambda row: (-row[2], row[0]))[:most]


def link_rows(timelines: Sequence[Timeline]) -> LinkRows | None:
    """The rows of a launch, from the timelines of its cores, rank after rank; None if no link is used."""
    met = [
        (instruction, event)
        for event, instruction in enumerate(timelines[0].instructions)
        if isinstance(instruction, Collective)
    ]
    if not met:
        return None
    target = timelines[0].target
    count = 1 + max(rank for instruction, _ in met for group in instruction.groups for rank in group)
    cores = max(1, len(timelines) // count)
    topology = met[0][0].topology(target)
    rows: dict[Link, list[Carried]] = {}
    for rank in range(min(count, len(timelines))):
        timeline = timelines[rank * cores]
        for event, instruction in enumerate(timeline.instructions):
            if not isinstance(instruction, Collective) or rank != min(instruction.group_of(rank)):
                continue
            found = of_group(instruction, instruction.group_of(rank)).route(target, topology)
            end = float(timeline.end[event])
            begin = max(float(timeline.start[event]), end - _moving(timeline, topology, instruction))
            for link, octets in found.loads.items():
                share = min(1.0, octets / (topology.rate(link) * max(end - begin, 1e-9)))
                rows.setdefault(link, []).append(
                    Carried(instruction, event, found.algorithm, begin, end, octets, share)
                )
    if not rows:
        return None
    duration = max(timeline.duration for timeline in timelines)
    return LinkRows(topology, duration, {link: rows[link] for link in sorted(rows)})


def of_group(instruction: Collective, group: tuple[int, ...]) -> Collective:
    """A collective as if `group` were its only one."""
    if "replica_group" not in instruction.__dict__:
        return instruction
    alone: Any = copy.copy(instruction)
    alone.replica_group = (group,)
    return alone


def _moving(timeline: Timeline, topology: Topology, instruction: Collective) -> float:
    """ns in which a collective moves data: all but its start and its hops."""
    target = timeline.target
    found = instruction.route(target, topology)
    return max(links.slowest(topology, found), found.local / target.rank_bytes_per_ns)
