"""The checks that need no data, without a run: what shapes and addresses alone decide of a placed Program.

The Program is walked in its order, loops on the device for two turns: what is written, and what is
accumulated where, is the same after the second as after any later one. Accesses at run-time addresses say
nothing: they may write all of their tensor, and read what is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nki_isa.diagnostics import Diagnostic, NkiError, Severity
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program
from nki_isa.machine.target import Target
from nki_isa.tensor.storage import MemoryRegion, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.cores.device import check_meetings
from nki_sim.execution.memory import Addresses
from nki_sim.observe import finish, hooks
from nki_sim.sanitize.check import Scene, checks
from nki_sim.sanitize.findings import Findings
from nki_sim.sanitize.reads import Part, Reads, Watch
from nki_sim.sanitize.registers import Registers
from nki_sim.sanitize.shadow import Written
from nki_sim.sanitize.survey import Survey

_TURNS = 2

#: Bytes of a tensor in HBM up to which what is written of it is followed; a run follows the others.
_MOST_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Looked:
    """What the checks that need no data found.

    Attributes:
        found: warnings, then notes.
        undecided: True if operands are read of which a part is unwritten: running tells if that matters.
    """

    found: tuple[Diagnostic, ...]
    undecided: bool


@dataclass(frozen=True, slots=True)
class _Engines:
    """What a check may ask of engines that run nothing."""

    target: Target


@dataclass(frozen=True, slots=True)
class _Core:
    """A core that runs nothing, as listeners see it."""

    program: Program
    state: _Engines
    memory: Any = None


def check_static(
    programs: Sequence[Program],
    placements: Sequence[Addresses],
    names: frozenset[str],
    *,
    strict: bool = False,
) -> Looked:
    """What is found without running `programs`, one for each core.

    Args:
        names: classes of :data:`nki_sim.sanitize.CHECKS`; those that need data find nothing.
        strict: True makes every finding an error.

    Raises:
        NkiError: everything found, if there is an error among it.
    """
    if not names:
        return Looked((), False)
    check_meetings(programs)
    scene = _Scene(programs, placements, (), names)
    made = [check(scene) for check in checks() if check.name in names and not check.needs_data]
    listeners = scene.listeners(made)
    cores = [_Core(program, _Engines(scene.target)) for program in programs]
    for start in hooks(listeners, "start"):
        start(cores)
    before = hooks(listeners, "before")
    for number, program in enumerate(programs):
        for instruction in _in_order(program.body) if before else ():
            for told in before:
                told(number, instruction, [])
    finish(listeners)
    for program in programs:
        _leave_lanes(program, scene.findings)
    found = scene.findings.diagnostics(strict=strict)
    if any(d.severity is Severity.error for d in found):
        raise NkiError(found)
    return Looked(found, scene.undecided)


def _leave_lanes(program: Program, findings: Findings) -> None:
    """Reads of accumulator registers that nothing set: only running shows whether those lanes matter."""
    for unset in Registers(program, Findings()).unset.values():
        for read in unset:
            if not isinstance(read.where, VirtualRegister):
                findings.by_key.pop(read.key, None)


def _in_order(body: list[Node]) -> Iterator[Instruction]:
    for node in body:
        if isinstance(node, Instruction):
            yield node
            continue
        turns = 1  # how many there are is known at run time
        if isinstance(node, Loop) and isinstance(node.start, int) and isinstance(node.stop, int):
            turns = min(len(range(node.start, node.stop, node.step)), _TURNS)
        for _ in range(turns):
            yield from _in_order(node.body)


class _Scene(Scene):
    """A walk, as its checks see it."""

    _made: list[_Watch] | None = None

    def watches(self) -> list[Watch]:
        """What follows the written bytes of each core."""
        alone = len(self.programs) == 1
        cores = zip(self.surveys, self.placements, strict=True)
        self._made = [_Watch(survey, placed, self.reads, alone) for survey, placed in cores]
        for other in self._made[1:]:
            other.shadow.share(self._made[0].shadow)
        return list(self._made)

    @property
    def undecided(self) -> bool:
        """True if operands were read of which a part is unwritten."""
        return any(watch.undecided for watch in self._made or ())


class _Watch(Watch):
    """Follows what is written without data, and tells of operands of which nothing is.

    Of an operand that is written in part, only running can tell whether the rest matters.

    Attributes:
        undecided: True if there was one.
    """

    def __init__(self, survey: Survey, addresses: Addresses, reads: Reads, alone: bool):
        super().__init__(survey, addresses, self._told)
        self._tell, self._alone = reads.missing, alone
        for state in self.shadow.states:
            if state.size > _MOST_BYTES:
                state.full = True
        self._needed: frozenset[int] | None = None
        self.undecided = False

    def _told(self, instruction: Instruction, tensor: NkiTensor, state: Written, parts: list[Part]) -> None:
        if not self._alone and state.storage.region is MemoryRegion.shared_hbm:
            return  # another core may have written it
        if not self._matters(instruction):
            return
        if all(missing.all() for _, missing in parts):
            self._tell(instruction, tensor, state, parts)
        else:
            self.undecided = True

    def _matters(self, instruction: Instruction) -> bool:
        """True if what `instruction` writes may reach a result."""
        if self._needed is None:
            self._needed = _reaching_results(self.survey)
        return any(t.storage.index in self._needed for t in self.survey.touches[instruction][1])

    def _views(self, instruction: Instruction, tensor: NkiTensor) -> Iterator[NkiTensor]:
        if tensor.dynamic is None:
            yield tensor

    def _write_dynamic(self, instruction: Instruction, tensor: NkiTensor, state: Written) -> None:
        state.full, state.mask, state.last = True, None, instruction


def _reaching_results(survey: Survey) -> frozenset[int]:
    """The storages whose contents may reach a result, an argument or another core."""
    sources: dict[int, set[int]] = {}
    for reads, writes in survey.touches.values():
        for tensor in writes:
            sources.setdefault(tensor.storage.index, set()).update(t.storage.index for t in reads)
    storages = survey.program.storages
    found = {t.storage.index for t in survey.program.outputs}
    found |= {s.index for s in storages if s.kind == "input"}
    open_ = list(found)
    while open_:
        for index in sources.get(open_.pop(), ()):
            if index not in found:
                found.add(index)
                open_.append(index)
    return frozenset(found)
