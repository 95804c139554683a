"""What is kept of the calls of a session."""

from __future__ import annotations

from dataclasses import dataclass

from nki_isa.diagnostics import Diagnostic, NkiError
from nki_isa.ir.program import Program
from nki_isa.machine.target import Target
from nki_sim.execution.skipping import Skipped
from nki_sim.pipeline import ScheduleName
from nki_sim.placement.place import Placement, overfull
from nki_sim.timing.scoreboard import Timeline


@dataclass(frozen=True)
class CoreRun:
    """What one core of a launch ran, where its tensors were, and when.

    Attributes:
        program: the kernel specialized for this core.
        placement: where its tensors were.
        timeline: what ran when, if the session timed it.
    """

    program: Program
    placement: Placement
    timeline: Timeline | None


@dataclass(frozen=True)
class Launch:
    """One kernel call.

    Attributes:
        kernel: the kernel's name.
        cores: what each core ran; `program`, `placement` and `timeline` are those of core 0.
        diagnostics: warnings and notes.
        skipped: what each line with ``oob_mode.skip`` left out, where it did.
        schedule: the order its instructions ran in, as :attr:`Options.schedule`.
        ranks: how many ranks it ran on; `cores` are those of rank 0, then those of rank 1, and so on.
    """

    kernel: str
    cores: tuple[CoreRun, ...]
    diagnostics: tuple[Diagnostic, ...]
    skipped: tuple[Skipped, ...] = ()
    schedule: ScheduleName = "program"
    ranks: int = 1

    def who(self, number: int) -> str:
        """How core `number` of all ranks is called, such as ``rank 1 core 0``."""
        rank, core = divmod(number, len(self.cores) // self.ranks)
        return f"rank {rank} core {core}" if self.ranks > 1 else f"core {core}"

    @property
    def program(self) -> Program:
        """The Program of core 0."""
        return self.cores[0].program

    @property
    def placement(self) -> Placement:
        """The placement on core 0."""
        return self.cores[0].placement

    @property
    def timeline(self) -> Timeline | None:
        """The timeline of core 0."""
        return self.cores[0].timeline


@dataclass(frozen=True)
class Overfull:
    """A kernel call that was refused because SBUF or PSUM cannot hold what it needs.

    Attributes:
        kernel: the kernel's name.
        programs: the kernel specialized for each core.
        target: the generation.
    """

    kernel: str
    programs: tuple[Program, ...]
    target: Target

    def placed(self) -> Launch:
        """The call with unlimited memory, to look at what exceeds it."""
        cores = tuple(CoreRun(program, overfull(program, self.target), None) for program in self.programs)
        return Launch(self.kernel, cores, ())


@dataclass(frozen=True)
class Refused:
    """A kernel call that was refused.

    Attributes:
        kernel: the kernel's name.
        error: everything wrong with it.
    """

    kernel: str
    error: NkiError


__all__ = ["CoreRun", "Launch", "Overfull", "Refused"]
