"""Where does the time of a kernel call go? Engines, DMA, memory, and what instructions waited for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nki import runtime
from nki.runtime import CoreRun, Launch
from nki_sim.report.ablation import Ablated, ablation
from nki_sim.report.facts import which
from nki_sim.report.html import write_html
from nki_sim.report.links import link_rows
from nki_sim.report.profile import Profile
from nki_sim.report.terminal import ablation_table, launch_line, links_table, profile_tables
from nki_sim.report.trace import Traced, write_trace
from nki_sim.report.usage import memory_report
from nki_sim.timing.mechanisms import mechanisms
from nki_tools.launches import as_text, elapsed, launch_facts

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nki.kernel import Kernel
    from nki_isa.machine.target import Target
    from nki_sim.pipeline import ScheduleName


@dataclass(frozen=True)
class Profiled:
    """A kernel call that was timed; as text it is what ``nki-sim profile`` prints.

    Attributes:
        launch: what its cores ran, where their tensors were, and when.
        without: mechanisms of the machine that took no time.
        trips: turns of each loop on the device that only data bound; None for one.
    """

    launch: Launch
    without: frozenset[str] = frozenset()
    trips: int | None = None

    @property
    def time(self) -> float:
        """ns until the last core is done, as the vendor's profiler shows it."""
        return elapsed(self.launch) or 0.0

    @property
    def cores(self) -> list[Traced]:
        """What each core ran and when, rank after rank."""
        return [
            Traced(core.program, core.timeline, core.placement, self.launch.who(number))
            for number, core in enumerate(self.launch.cores)
            if core.timeline
        ]

    @property
    def profiles(self) -> list[Profile]:
        """The figures of each core."""
        return [Profile.of(core.timeline) for core in self.cores]

    def ablation(self) -> list[Ablated]:
        """What each mechanism costs the call, the dearest first: it is timed once without each."""
        programs, placements = zip(*((c.program, c.placement) for c in self.launch.cores), strict=True)
        ranks = self.launch.ranks
        return ablation(programs, placements, ranks=ranks, trips=self.trips, off=self.without)

    def as_dict(self, *, ablate: bool = False) -> dict[str, Any]:
        """The figures as plain values for JSON.

        Args:
            ablate: True to time it without each mechanism too.
        """
        return {
            **launch_facts(self.launch, _facts),
            "without": sorted(self.without),
            "ablation": [row.as_dict() for row in self.ablation()] if ablate else None,
        }

    def tables(self, *, ablate: bool = False) -> list[RenderableType]:
        """The figures as tables for rich; `ablate` as for :meth:`as_dict`."""
        order = ", in the compiler's order" if self.launch.schedule == "compiler" else ""
        if self.without:
            order += f", without {', '.join(sorted(self.without))}"
        cores = self.cores
        found: list[RenderableType] = []
        for number, core in enumerate(cores):
            who = f", {core.name}" if self.launch.ranks > 1 else which(number, len(cores))
            heading = launch_line(core.program, core.timeline.total, who + order)
            found += [heading, "", *profile_tables(Profile.of(core.timeline), core.placement), ""]
        links = link_rows([core.timeline for core in cores]) if cores else None
        if links is not None:
            found += [links_table(links), ""]
        if ablate:
            found += [ablation_table(self.ablation()), ""]
        return found

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page with the timeline, engines and memories that needs nothing else.

        Raises:
            OSError: `path` cannot be written.
        """
        write_html(path, [self.cores])

    def write_trace(self, path: str | os.PathLike[str]) -> None:
        """Write a timeline that https://ui.perfetto.dev opens.

        Raises:
            OSError: `path` cannot be written.
        """
        write_trace(path, [self.cores])

    def __str__(self) -> str:
        return as_text(self.tables())


def profile(
    kernel: Kernel,
    *args: Any,
    target: Target | str | None = None,
    data: bool = False,
    schedule: ScheduleName = "program",
    trips: int | None = None,
    without: Iterable[str] = (),
    spill: bool = True,
    **kwargs: Any,
) -> Profiled:
    """Time ``kernel(*args, **kwargs)``.

    Args:
        target: the generation; that of the environment if it is None.
        data: True to run it on its arrays too, where data decide how often loops on the device turn.
        schedule: the order of instructions: ``"program"``, as the kernel states, or ``"compiler"``.
        trips: without data, turns of each loop on the device that only data bound; None takes one.
        without: mechanisms of the machine to switch off, of :data:`nki_sim.timing.mechanisms.MECHANISMS`.
        spill: False to refuse a kernel that fits SBUF only with spills to HBM.

    Raises:
        NkiError: the kernel is refused; NKI-L032 for a mechanism that is unknown.
    """
    off = mechanisms(",".join(without))
    with runtime.session(
        target=target,
        data=data,
        timing=True,
        check="none",
        trips=trips,
        schedule=schedule,
        spill=spill,
        without=off,
    ) as session:
        kernel(*args, **kwargs)
    return Profiled(session.launches[-1], off, trips)


def _facts(core: CoreRun) -> dict[str, Any]:
    figures = Profile.of(core.timeline).as_dict() if core.timeline else None
    return {"profile": figures, "memory": memory_report(core.program, core.placement)}


__all__ = ["Profiled", "profile"]
