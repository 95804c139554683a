"""What stands between a specialized Program and a run of it: a list of passes, one after the other.

A pass takes the Program of one core on its way and gives what comes of it. Each is run on all cores before
the next one begins, so what one refuses is told before any later one looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from nki_isa.diagnostics import Diagnostic
from nki_isa.ir.program import Program
from nki_isa.machine.target import Target
from nki_sim.placement.fit_in_memory import fit
from nki_sim.placement.place import Placement
from nki_sim.schedule.compiler import LOOK_AHEAD, scheduled

ScheduleName = Literal["program", "compiler"]


@dataclass(frozen=True, slots=True)
class Staged:
    """The Program of one core on its way to a run.

    Attributes:
        program: as the passes so far have it.
        target: the generation it is to run on.
        cores: how many cores run at once.
        placement: where its tensors are; None before :class:`PlacePass`.
        diagnostics: warnings and notes of the passes so far.
    """

    program: Program
    target: Target
    cores: int = 1
    placement: Placement | None = None
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def placed(self) -> Placement:
        """Where its tensors are, after :class:`PlacePass`."""
        if self.placement is None:
            raise TypeError(f"{self.program.name} was sent on its way without being placed")
        return self.placement


class Pass(Protocol):
    """One step on the way."""

    def __call__(self, given: Staged) -> Staged:
        """What `given` becomes.

        Raises:
            NkiError: what keeps it from running.
        """


@dataclass(frozen=True, slots=True)
class PlacePass:
    """Gives each tensor its bytes, where they do not suffice side by side, in another order or with spills.

    See :func:`nki_sim.placement.fit_in_memory.fit`.

    Attributes:
        spills: False to refuse what would have to be spilled.
    """

    spills: bool = True

    def __call__(self, given: Staged) -> Staged:
        found = fit(given.program, given.target, spills=self.spills)
        told = (*given.diagnostics, *found.diagnostics)
        return replace(given, program=found.program, placement=found.placement, diagnostics=told)


@dataclass(frozen=True, slots=True)
class SchedulePass:
    """Orders instructions as a compiler might; see :mod:`nki_sim.schedule.compiler`.

    Attributes:
        look_ahead: how many instructions it sees at a time.
    """

    look_ahead: int = LOOK_AHEAD

    def __call__(self, given: Staged) -> Staged:
        options = {"cores": given.cores, "look_ahead": self.look_ahead}
        return replace(given, program=scheduled(given.program, given.target, given.placement, **options))


#: What orders the placed instructions, for each order that a run may ask for.
_ORDERING: dict[ScheduleName, tuple[Pass, ...]] = {"program": (), "compiler": (SchedulePass(),)}


def passes(schedule: ScheduleName, *, spills: bool = True) -> tuple[Pass, ...]:
    """The passes of a run.

    Args:
        schedule: the order of its instructions.
        spills: False to refuse what would have to be spilled.
    """
    return (PlacePass(spills), *_ORDERING[schedule])


def staged(programs: Sequence[Program], target: Target, passes: Iterable[Pass]) -> list[Staged]:
    """The Programs of the cores of one launch, after `passes`.

    Args:
        programs: the kernel, specialized for each core.
        target: the generation.
        passes: such as ``passes("program")``.

    Raises:
        NkiMemoryError: a memory cannot hold what a Program needs.
    """
    found = [Staged(program, target, len(programs)) for program in programs]
    for one in passes:
        found = [one(given) for given in found]
    return found


__all__ = ["Pass", "PlacePass", "ScheduleName", "SchedulePass", "Staged", "passes", "staged"]
