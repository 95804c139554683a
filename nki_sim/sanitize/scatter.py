"""Scatters whose indices name a row twice: which value stays depends on the order of descriptors."""

from __future__ import annotations

import numpy as np

from nki_isa.diagnostics import Severity
from nki_isa.ir.instruction import Instruction
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.observe import Core, Memories
from nki_sim.sanitize.check import PerCore, Scene
from nki_sim.sanitize.findings import Findings, allocated, described, site
from nki_sim.sanitize.survey import Survey


class Scatter(PerCore):
    """Follows instructions that write rows named by run-time indices."""

    name = "scatter"
    finds = "rows that a scatter writes twice (NKI-H012)"
    codes = ("NKI-H012",)
    listed = 9
    needs_data = True

    @classmethod
    def sees(cls, scene: Scene) -> bool:
        """Programs that scatter."""
        return any(survey.scatters for survey in scene.surveys)

    def observer(self, number: int, core: Core) -> Scatters:
        """What follows a core."""
        return Scatters(self.scene.surveys[number], core.memory, self.scene.findings)


class Scatters:
    """Observes instructions that write rows named by run-time indices, which it finds in `memory`."""

    def __init__(self, survey: Survey, memory: Memories, findings: Findings):
        self._survey, self._memory, self._findings = survey, memory, findings

    def __call__(self, instruction: Instruction, registers: list[int]) -> None:
        """The observer: `instruction` is about to run."""
        for tensor in self._survey.touches[instruction][1]:
            if tensor.dynamic is not None and tensor.dynamic.kind == "vector":
                self._check(instruction, tensor)

    def _check(self, instruction: Instruction, tensor: NkiTensor) -> None:
        whole, indices = self._memory.selection(tensor)
        inside = indices[(indices >= 0) & (indices < whole.shape[0])]
        rows, counts = np.unique(inside, return_counts=True)
        if counts.max(initial=0) < 2:
            return
        storage = tensor.storage
        key = ("NKI-H012", site(instruction, storage))
        if self._findings.known(key):
            return
        row = int(rows[counts.argmax()])
        promised = "unique_indices" in instruction.fields
        self._findings.add(
            key,
            "NKI-H012",
            f"{instruction.opcode} scatters to row {row} of {described(storage)} {int(counts.max())} times; "
            + ("unique_indices is True" if promised else "which of the values stays is not defined"),
            stack=instruction.stack,
            labels=allocated(storage),
            help="combine rows of the same index before, or scatter them in separate instructions",
            severity=Severity.error if promised else Severity.note,
        )
