"""Two launches beside each other: of which figures there is more, and of which less.

Of several cores the most that any has counts for times and memory, and the sum for what is moved and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nki_sim.report.critical import ELSEWHERE, HANDOFF, by_kind
from nki_sim.report.profile import Profile
from nki_sim.report.trace import Traced
from nki_sim.timing.plans import ENGINES

Unit = Literal["ns", "bytes", "count"]


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of both launches.

    Attributes:
        figure: what it is, in words.
        unit: ns, bytes, or a count.
        before, after: its value.
    """

    figure: str
    unit: Unit
    before: float
    after: float

    @property
    def percent(self) -> float | None:
        """By how much it grew, below 0 for less; None where there was nothing before."""
        return 100.0 * (self.after - self.before) / self.before if self.before else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "figure": self.figure,
            "unit": self.unit,
            "before": self.before,
            "after": self.after,
            "percent": self.percent,
        }


def changes(before: Sequence[Traced], after: Sequence[Traced]) -> list[Change]:
    """The figures of two launches, each given as its cores; those that neither has are left out.

    A figure of the critical path is that of the core that ends last.
    """
    pairs = zip(_figures(before), _figures(after), strict=True)
    return [Change(name, unit, old, new) for (name, unit, old), (_, _, new) in pairs if old or new]


def _figures(cores: Sequence[Traced]) -> list[tuple[str, Unit, float]]:
    """Name, unit and value of each figure, the same names for every launch."""
    profiles = [Profile.of(core.timeline) for core in cores]
    path = by_kind(max(profiles, key=lambda one: one.duration).path)
    kinds = (*ENGINES, "DMA", HANDOFF, ELSEWHERE)
    moved = [(one.hbm_read_bytes, one.hbm_write_bytes) for one in profiles]
    spilled = sum(one.spill_reload_bytes + one.spill_save_bytes for one in profiles)
    return [
        ("total time", "ns", max(one.total for one in profiles)),
        *((f"{name} busy", "ns", max(one.engines[name].busy for one in profiles)) for name in ENGINES),
        ("DMA active", "ns", max(one.dma.active for one in profiles)),
        *((f"critical path: {kind}", "ns", path.get(kind, 0.0)) for kind in kinds),
        ("HBM read", "bytes", sum(read for read, _ in moved)),
        ("HBM written", "bytes", sum(written for _, written in moved)),
        ("of that, spills", "bytes", spilled),
        ("instructions", "count", sum(len(one.timeline) for one in profiles)),
        ("DMA transfers", "count", sum(one.dma.transfers for one in profiles)),
        ("DMA rows", "count", sum(one.dma.rows for one in profiles)),
        ("SBUF peak", "bytes", max(core.placement.sbuf.peak for core in cores)),
        ("PSUM peak", "bytes", max(core.placement.psum.peak for core in cores)),
    ]


__all__ = ["Change", "changes"]
