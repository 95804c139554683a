"""What a class of checks is, and the list of them.

A check is one class in a module of this package: its name, the codes it reports, whether what it finds can
differ from one set of arguments to another, and the hooks of a :class:`~nki_sim.observe.Listener` in which it
looks at the run. Importing the package fills the list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from nki_isa.diagnostics import Diagnostic, NkiError, Severity
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Program
from nki_isa.machine.target import Target
from nki_isa.machine.targets import as_target
from nki_sim.execution.memory import Addresses, Array
from nki_sim.execution.result import ExecutionResult
from nki_sim.observe import Core, Listener, hooks
from nki_sim.process import lazy
from nki_sim.sanitize.findings import Findings
from nki_sim.sanitize.reads import Reads, Watch
from nki_sim.sanitize.survey import Survey

#: Runs the Programs on the same inputs again, with these listeners.
Again = Callable[[Sequence[Listener]], ExecutionResult]

_CHECKS: list[type[Check]] = []


class Check(Listener):
    """A class of findings; one is made for each run.

    Attributes:
        name: what users call it.
        finds: what it finds, in words, with the codes.
        codes: the codes of its findings.
        listed: its place in lists of checks, and in the order in which they look.
        needs_data: True if what it finds can depend on what is in the arguments: it looks at every run.
        default: True if it is part of ``all``.
        scene: the run it looks at.
    """

    name: ClassVar[str]
    finds: ClassVar[str]
    codes: ClassVar[tuple[str, ...]]
    listed: ClassVar[int]
    needs_data: ClassVar[bool] = False
    default: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            _CHECKS.append(cls)
            _CHECKS.sort(key=lambda check: check.listed)

    def __init__(self, scene: Scene):
        self.scene = scene

    @classmethod
    def sees(cls, scene: Scene) -> bool:
        """False if these Programs have nothing that it could look at."""
        return True

    def judge(self, result: ExecutionResult, again: Again, strict: bool) -> None:
        """The run gave `result`: say what that tells.

        Args:
            result: what the run gave.
            again: runs the Programs again, for what only another run shows.
            strict: True where every finding is an error.
        """


def checks() -> tuple[type[Check], ...]:
    """All checks there are."""
    return tuple(_CHECKS)


class Scene:
    """One run, as its checks see it; what several of them need is worked out once, when one asks.

    Args:
        surveys: a list that keeps the surveys of the Programs for other runs of them.

    Attributes:
        programs, placements, inputs: of the run.
        chosen: names of the checks that look at it.
        findings: what they found.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        placements: Sequence[Addresses],
        inputs: Sequence[Array],
        chosen: frozenset[str],
        surveys: list[Survey] | None = None,
    ):
        self.programs, self.placements, self.inputs, self.chosen = programs, placements, inputs, chosen
        self.findings = Findings()
        self._surveys = [] if surveys is None else surveys
        self._followed: Followed | None = None

    @lazy
    def target(self) -> Target:
        """The generation."""
        return as_target(self.programs[0].target)

    @lazy
    def reads(self) -> Reads:
        """What is told of reads of bytes that were not written, or overwritten."""
        return Reads(self.findings, self.chosen, self.target)

    @property
    def surveys(self) -> list[Survey]:
        """A survey of the Program of each core."""
        if not self._surveys:
            self._surveys += [Survey(program) for program in self.programs]
        return self._surveys

    @property
    def followed(self) -> Followed:
        """What follows the written bytes of this run; from the first question on it listens."""
        self._followed = self._followed or Followed(self.watches())
        return self._followed

    def listeners(self, made: Sequence[Check]) -> list[Listener]:
        """What listens to the run for these checks."""
        return [*made, *([self._followed] if self._followed is not None else [])]

    def watches(self) -> list[Watch]:
        """What follows the written bytes of each core in a new run; the cores share those of shared HBM."""
        made = [
            Watch(survey, addresses, self.reads.missing)
            for survey, addresses in zip(self.surveys, self.placements, strict=True)
        ]
        for other in made[1:]:
            other.shadow.share(made[0].shadow)
        return made


def told(
    scene: Scene, made: Sequence[Check], result: ExecutionResult, again: Again, strict: bool
) -> tuple[Diagnostic, ...]:
    """What the checks of a run that gave `result` have to say; see :func:`nki_sim.sanitize.execute_checked`.

    Raises:
        NkiError: everything found, if there is an error among it.
    """
    for judge in hooks(made, "judge"):
        judge(result, again, strict)
    found = scene.findings.diagnostics(strict=strict)
    if any(d.severity is Severity.error for d in found):
        raise NkiError(found)
    return found


class Followed(Listener):
    """The written bytes of every core, for the checks that ask about them."""

    def __init__(self, watches: Sequence[Watch]):
        self.watches = watches

    def start(self, cores: Sequence[Core]) -> None:
        """Look into their memories."""
        for watch, core in zip(self.watches, cores, strict=True):
            watch.memory = core.memory

    def before(self, core: int, instruction: Instruction, registers: list[int]) -> None:
        """What it reads, and what it is about to write."""
        self.watches[core](instruction, registers)


class PerCore(Check):
    """A check that follows each core by itself."""

    def __init__(self, scene: Scene):
        super().__init__(scene)
        self._observers: Mapping[int, Any] = {}

    def observer(self, number: int, core: Core) -> Callable[[Instruction, list[int]], None] | None:
        """What follows core `number`; None where there is nothing to follow."""
        raise NotImplementedError

    def start(self, cores: Sequence[Core]) -> None:
        """Begin to follow the cores."""
        made = {number: self.observer(number, core) for number, core in enumerate(cores)}
        self._observers = {number: observer for number, observer in made.items() if observer is not None}

    def before(self, core: int, instruction: Instruction, registers: list[int]) -> None:
        """Tell what follows that core."""
        observer = self._observers.get(core)
        if observer is not None:
            observer(instruction, registers)
