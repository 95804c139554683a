"""The checks a run makes of its kernel: what passes on a simulator and fails on the card.

:func:`execute_checked` runs placed Programs as :func:`nki_sim.device.execute_all`
does and tells what it found. Errors are defects of the kernel; warnings are
what the card may do otherwise than meant; notes are worth knowing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nki_isa.diagnostics import Diagnostic, NkiError, Severity, error
from nki_isa.instruction import Instruction
from nki_isa.machine.targets import as_target
from nki_isa.program import Program
from nki_sim.device import Meeting, Watcher, execute_all
from nki_sim.execute import ExecutionResult, Machine, Observer
from nki_sim.host import no_collection
from nki_sim.memory import Array, Placement
from nki_sim.sanitize.aliasing import Aliasing
from nki_sim.sanitize.domains import Domains
from nki_sim.sanitize.fill import Sentinels, Watchers
from nki_sim.sanitize.findings import Findings
from nki_sim.sanitize.influence import Influence
from nki_sim.sanitize.numbers import trace_numbers
from nki_sim.sanitize.order import Ordering, interleaved
from nki_sim.sanitize.psum import Accumulations
from nki_sim.sanitize.reads import Reads, Watch
from nki_sim.sanitize.registers import Registers, Unset
from nki_sim.sanitize.results import check_inputs, check_outputs, check_unused
from nki_sim.sanitize.scatter import Scatters
from nki_sim.sanitize.survey import Survey

__all__ = ["CHECKS", "DEFAULT", "check_classes", "execute_checked"]

CHECKS: dict[str, str] = {
    "uninitialized": "reads of bytes nobody wrote (NKI-H002) and of registers nobody set (NKI-H013)",
    "bounds": "run-time indices out of bounds; always on (NKI-H001)",
    "overlap": "tensors with addresses that overlap while both are needed (NKI-H003)",
    "order": "accesses to shared bytes in an order nothing guarantees (NKI-H004)",
    "aliasing": "instructions that would read their own output (NKI-H005)",
    "psum": "accumulation onto what no matmul wrote, after a read, or in turns (NKI-H006 to H008)",
    "outputs": "returned tensors with elements nobody wrote (NKI-H009)",
    "unused": "results nobody reads (NKI-H010)",
    "inputs": "arguments that are overwritten and not returned (NKI-H011)",
    "scatter": "rows that a scatter writes twice (NKI-H012)",
    "races": "accesses of two cores to the same bytes of shared HBM that nothing orders (NKI-H021), "
    "and work that both do (NKI-H023)",
    "numeric": "arguments outside the valid range of an activation function (NKI-N003)",
    "nan": "where the first NaN or infinity in a result comes from that no argument held (NKI-N002)",
}
"""The classes of checks, with what each finds."""

DEFAULT: frozenset[str] = frozenset(CHECKS)
"""What ``all`` stands for."""


@functools.cache
def check_classes(text: str) -> frozenset[str]:
    """The classes that a list such as ``"all"``, ``"none"`` or ``"overlap,nan"`` names.

    Raises:
        NkiError: NKI-L032 for a name that is no class.
    """
    chosen: set[str] = set()
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name == "all":
            chosen |= DEFAULT
        elif name in CHECKS:
            chosen.add(name)
        elif name != "none":
            raise error(
                "NKI-L032",
                f"there is no check {name!r}",
                help=f"the checks are all, none, {', '.join(CHECKS)}",
            )
    return frozenset(chosen)


@no_collection()
def execute_checked(
    programs: Sequence[Program],
    placements: Sequence[Placement],
    inputs: Sequence[Array],
    *,
    checks: frozenset[str] = DEFAULT,
    strict: bool = False,
    observers: Sequence[Iterable[Observer]] = (),
    meetings: Iterable[Meeting] = (),
    sentinels: bool = False,
) -> tuple[ExecutionResult, tuple[Diagnostic, ...]]:
    """Run `programs`, one for each core, and check them.

    Args:
        programs, placements, inputs, observers, meetings: as for :func:`nki_sim.device.execute_all`.
        checks: classes of :data:`CHECKS`.
        strict: True makes every finding an error, but for notes on what may well be meant.
        sentinels: True fills new tensors with NaN, or 4 for integers, as the vendor's simulator does;
            otherwise memory starts as zeros.

    Returns:
        The results, and what was found below an error: warnings, then notes.

    Raises:
        NkiError: everything found, if there is an error among it; also what an instruction refuses.
    """
    run = _Run(programs, placements, checks)

    def execute(watcher: Watcher, races: bool = False, **observed: Any) -> ExecutionResult:
        if sentinels:
            watcher = Watchers(Sentinels(run.surveys), watcher)
        return execute_all(programs, placements, inputs, watcher=watcher, races=races, **observed)

    try:
        result = execute(run, "races" in checks, observers=observers, meetings=meetings)
    except NkiError as refused:
        raise NkiError([*refused.diagnostics, *run.findings.diagnostics(strict=strict)]) from None
    if not strict:
        run.judge(Influence(execute, run.watches, run.unset(), result))
    if "nan" in checks:
        trace_numbers(programs, inputs, result, execute, run.findings)
    found = (*run.findings.diagnostics(strict=strict), *result.diagnostics)
    if any(d.severity is Severity.error for d in found):
        raise NkiError(found)
    return result, found


class _Run:
    """The checks of one run, a :class:`~nki_sim.device.Watcher`."""

    def __init__(self, programs: Sequence[Program], placements: Sequence[Placement], checks: frozenset[str]):
        self.findings = Findings()
        self._checks, self._placements = checks, placements
        self.surveys = [Survey(program) for program in programs]
        self._reads = Reads(self.findings, checks, as_target(programs[0].target))
        self._registers: list[Registers] = []
        self._watches: list[Watch] = []
        self._domains = Domains(self.findings)

    def unset(self) -> list[Mapping[Instruction, Sequence[Unset]]]:
        """What reads unset registers, for each core."""
        return [registers.unset for registers in self._registers] or [{}] * len(self.surveys)

    def watches(self) -> list[Watch]:
        """What follows the written bytes of each core; the cores share those of shared HBM."""
        made = [
            Watch(survey, addresses, self._reads.missing)
            for survey, addresses in zip(self.surveys, self._placements, strict=True)
        ]
        for other in made[1:]:
            other.shadow.share(made[0].shadow)
        return made

    def start(self, machines: Sequence[Machine]) -> None:
        """Check what needs no data, and watch the rest."""
        checks, findings = self._checks, self.findings
        if checks & {"uninitialized", "overlap", "outputs"}:
            self._watches = self.watches()
        programs = [survey.program for survey in self.surveys] if "uninitialized" in checks else []
        self._registers = [Registers(program, findings) for program in programs]
        for core, machine in enumerate(machines):
            survey, addresses = self.surveys[core], self._placements[core]
            if "aliasing" in checks:
                Aliasing(survey, addresses, findings)
            if "psum" in checks:
                machine.watch(Accumulations(survey, addresses, machine.state.target, findings))
            if self._watches:
                self._watches[core].memory = machine.memory
                machine.watch(self._watches[core])
            if "order" in checks and (pairs := interleaved(survey, addresses)):
                machine.watch(Ordering(survey, pairs, findings))
            if "scatter" in checks and survey.scatters:
                machine.watch(Scatters(survey, machine.memory, findings))
            if "numeric" in checks:
                machine.state.arguments = self._domains

    def finish(self) -> None:
        """Look at what was left behind."""
        self.findings.drop_turns()
        self._domains.finish()
        first = self.surveys[0]
        if "outputs" in self._checks:
            check_outputs(self.surveys, self._watches[0].shadow, self.findings)
        if "unused" in self._checks:
            for survey in self.surveys:
                check_unused(survey, self.findings, alone=len(self.surveys) == 1)
        if "inputs" in self._checks:
            check_inputs(first, self.findings)

    def judge(self, influence: Influence) -> None:
        """Make reads of unwritten bytes and unset registers that no result depends on notes."""
        bytes_read = self._reads.sites
        values_read = [key for registers in self._registers for key in registers.sites]
        guilty = influence.guilty([*bytes_read, *values_read])
        for sites, why in (
            (bytes_read, "no result depends on these bytes: others in their place change nothing"),
            (values_read, "no result depends on that value: another in its place changes nothing"),
        ):
            for key in sites:
                if key not in guilty:
                    self.findings.lower(key, Severity.note, why)
