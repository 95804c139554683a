"""What each mechanism of the machine costs a launch: its time without it, instructions in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nki_isa.ir.program import Program
from nki_isa.machine.target import Target
from nki_isa.machine.targets import as_target
from nki_sim.cores.core_times import simulate_ranks
from nki_sim.timing.mechanisms import MECHANISMS, without
from nki_sim.timing.scoreboard import Placed


@dataclass(frozen=True, slots=True)
class Ablated:
    """What a mechanism costs a launch.

    Attributes:
        name: of the mechanism.
        time: ns of the launch without it, start-up and wind-down included.
        saved: ns less than with it; below 0 where a launch gets slower, as it can if what comes first is
            served first: transfers that start earlier hold back one that mattered more, or matmuls that are
            done earlier leave a window too empty for the full clock.
    """

    name: str
    time: float
    saved: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, times in ns."""
        return {
            "mechanism": self.name,
            "says": MECHANISMS[self.name].says,
            "time_ns": self.time,
            "saved_ns": self.saved,
        }


def ablation(
    programs: Sequence[Program],
    placements: Sequence[Placed],
    *,
    ranks: int = 1,
    trips: int | None = None,
    off: Iterable[str] = (),
) -> list[Ablated]:
    """What each mechanism costs the cores of a launch, the dearest first; each is switched off by itself.

    Args:
        programs: the kernel specialized for each core.
        placements: where each core's on-chip tensors live.
        ranks: how many ranks these cores are of, rank after rank.
        trips: turns of each loop that only data bound; None takes one.
        off: mechanisms that are switched off throughout.
    """
    target = without(as_target(programs[0].target), off)

    cores = len(programs) // ranks
    parts = [slice(k * cores, (k + 1) * cores) for k in range(ranks)]
    launched = [(programs[part], placements[part]) for part in parts]

    def time(machine: Target) -> float:
        found = simulate_ranks(launched, trips=trips, target=machine)
        return max(timeline.total for timeline in found)

    whole = time(target)
    rows = []
    for name in MECHANISMS:
        if name not in off:
            spent = time(without(target, [name]))
            rows.append(Ablated(name, spent, whole - spent))
    return sorted(rows, key=lambda row: -row.saved)
