"""What did a change of a kernel change? Two timed calls beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nki_sim.report.comparison import Change, changes
from nki_sim.report.terminal import changes_table, launch_line
from nki_tools.launches import as_text
from nki_tools.profile import Profiled

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Comparison:
    """Two timed calls; as text it is what ``nki-sim compare`` prints.

    Attributes:
        before: the call that is compared with.
        after: the other.
    """

    before: Profiled
    after: Profiled

    @property
    def speedup(self) -> float:
        """How many times as fast the call is after the change."""
        return self.before.time / self.after.time

    @property
    def changes(self) -> list[Change]:
        """The figures of both; see :func:`nki_sim.report.comparison.changes`."""
        return changes(self.before.cores, self.after.cores)

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values for JSON."""
        return {
            "before": _call(self.before),
            "after": _call(self.after),
            "speedup": self.speedup,
            "changes": [change.as_dict() for change in self.changes],
        }

    def tables(self) -> list[RenderableType]:
        """The figures as tables for rich."""
        found: list[RenderableType] = [_heading("before", self.before), _heading("after", self.after)]
        bounds = [f"{when}: {bound}" for when, bound in zip(("before", "after"), self._bounds(), strict=True)]
        return [*found, "", changes_table(self.changes), "", f"{self.speedup:.2f} times as fast", *bounds, ""]

    def _bounds(self) -> list[str]:
        """What bounds the core of each call that ends last."""
        last = (max(call.profiles, key=lambda one: one.duration) for call in (self.before, self.after))
        return [profile.bound for profile in last]

    def __str__(self) -> str:
        return as_text(self.tables())


def compare(before: Profiled, after: Profiled) -> Comparison:
    """Two calls that :func:`nki_tools.profile` timed, beside each other.

    They may be of different kernels, arguments, orders, generations, and numbers of cores.
    """
    return Comparison(before, after)


def _call(call: Profiled) -> dict[str, Any]:
    launch = call.launch
    return {
        "kernel": launch.kernel,
        "target": launch.program.target,
        "cores": len(launch.cores),
        "time_ns": call.time,
    }


def _heading(when: str, call: Profiled) -> RenderableType:
    cores = f", {len(call.cores)} cores" if len(call.cores) > 1 else ""
    return launch_line(call.launch.program, call.time, f"{cores}, {when}")


__all__ = ["Comparison", "compare"]
