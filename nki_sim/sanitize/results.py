"""What becomes of what a kernel writes: outputs with holes, unused results, overwritten inputs."""

from __future__ import annotations

from collections.abc import Sequence

from nki_isa.diagnostics import Severity, span_of
from nki_isa.ir.dependencies import may_skip
from nki_isa.ir.instruction import Instruction
from nki_isa.machine.enums import reduce_cmd
from nki_isa.tensor.storage import MemoryRegion
from nki_sim.sanitize.check import Check, Scene
from nki_sim.sanitize.findings import Findings, allocated, described, done_by
from nki_sim.sanitize.shadow import Shadow, regions
from nki_sim.sanitize.survey import Survey


class Outputs(Check):
    """Looks at what the run has written of the results."""

    name = "outputs"
    finds = "returned tensors with elements that were never written (NKI-H009)"
    codes = ("NKI-H009",)
    listed = 6

    def __init__(self, scene: Scene):
        super().__init__(scene)
        self._followed = scene.followed

    def finish(self) -> None:
        """The shadow is complete."""
        check_outputs(self.scene.surveys, self._followed.watches[0].shadow, self.scene.findings)


class Unused(Check):
    """Looks at what the Programs write."""

    name = "unused"
    finds = "results that nothing reads (NKI-H010)"
    codes = ("NKI-H010",)
    listed = 7

    def finish(self) -> None:
        """Behind what the run found."""
        surveys = self.scene.surveys
        for survey in surveys:
            check_unused(survey, self.scene.findings, alone=len(surveys) == 1)


class Inputs(Check):
    """Looks at what the Programs write."""

    name = "inputs"
    finds = "arguments that are overwritten and not returned (NKI-H011)"
    codes = ("NKI-H011",)
    listed = 8

    def finish(self) -> None:
        """Behind what the run found."""
        check_inputs(self.scene.surveys[0], self.scene.findings)


def check_outputs(surveys: Sequence[Survey], shadow: Shadow, findings: Findings) -> None:
    """Report elements of returned tensors that nothing wrote.

    A tensor of which something is written is a warning: layouts with padding, such as that of MX scales,
    leave parts unused. So is one that a scatter or a copy that skips indices writes: which rows it reaches
    is the caller's data. The shadow is that of core 0, whose outputs are returned.
    """
    survey = surveys[0]
    for tensor in survey.program.outputs:
        storage = tensor.storage
        state = shadow.states[storage.index]
        if state.full or tensor.dynamic is not None:
            continue
        missing = state.missing(tensor)
        if missing is None:
            continue
        writers = survey.writers.get(storage.index, [])
        last = writers[-1] if writers else None
        count = int(missing.sum())
        what = "nothing is ever written to it" if last is None else f"elements {regions(missing)} are not"
        key = ("NKI-H009", span_of(storage.stack) or storage.index, storage.name)
        if findings.known(key):
            continue
        by_index = any(s.scatters for s in surveys) or any(may_skip(i) for i in writers)
        partly = count < missing.size
        findings.add(
            key,
            "NKI-H009",
            f"{described(storage)} is returned, and {count} of its {missing.size} elements are never "
            f"written: {what}",
            stack=storage.stack,
            labels=done_by(last, "the last write to it"),
            help="store the rest as well, or allocate the tensor in the size that is written",
            severity=Severity.warning if partly or by_index else Severity.error,
        )


def check_unused(survey: Survey, findings: Findings, *, alone: bool = True) -> None:
    """Report tensors that are written and neither read nor returned.

    A destination that an instruction has beside a result that is used (an accumulator, a second
    destination) need not be read.

    Args:
        alone: False if other cores may read what this one writes to shared HBM.
    """
    returned = {t.storage.index for t in survey.program.outputs}
    for index, writers in survey.writers.items():
        storage = survey.program.storages[index]
        if index in survey.readers or index in returned or storage.kind != "local":
            continue
        if not alone and storage.region is MemoryRegion.shared_hbm:
            continue
        if any(_has_other_results(i, survey) for i in writers):
            continue
        last = writers[-1]
        key = ("NKI-H010", span_of(storage.stack) or index, span_of(last.stack))
        if findings.known(key):
            continue
        findings.add(
            key,
            "NKI-H010",
            f"{described(storage)} is written by {last.opcode} and never read or returned",
            stack=last.stack,
            labels=allocated(storage),
            help="store or return it, or leave the instruction out",
            severity=Severity.warning,
        )


def _has_other_results(instruction: Instruction, survey: Survey) -> bool:
    command = instruction.__dict__.get("reduce_cmd", reduce_cmd.idle)
    return len(survey.touches[instruction][1]) > 1 or command is not reduce_cmd.idle


def check_inputs(survey: Survey, findings: Findings) -> None:
    """Note inputs that are written and not returned."""
    returned = {t.storage.index for t in survey.program.outputs}
    for index, writers in survey.writers.items():
        storage = survey.program.storages[index]
        if storage.kind != "input" or index in returned:
            continue
        first = writers[0]
        key = ("NKI-H011", span_of(first.stack) or first, storage.name)
        if findings.known(key):
            continue
        findings.add(
            key,
            "NKI-H011",
            f"{first.opcode} writes the argument {described(storage)}: the caller's array changes",
            stack=first.stack,
            labels=allocated(storage),
            help="return the argument as well if that is meant, or store to a new tensor",
            severity=Severity.note,
        )
