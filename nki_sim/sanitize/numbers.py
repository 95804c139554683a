"""Where the first NaN or infinity comes from."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nki_isa.diagnostics import NkiError, Severity
from nki_isa.dtypes import to_float32
from nki_isa.instruction import Instruction
from nki_isa.tensor import NkiTensor
from nki_sim.memory import Memory
from nki_sim.sanitize.findings import Findings, allocated, operand_of, site
from nki_sim.sanitize.survey import Survey


class Numbers:
    """Looks at what an instruction reads before it runs and at what it has written when the next comes."""

    def __init__(self, survey: Survey, memory: Memory, findings: Findings):
        self._survey, self._memory, self._findings = survey, memory, findings
        self._pending: tuple[Instruction, bool, bool] | None = None

    def __call__(self, instruction: Instruction, registers: list[int]) -> None:
        """The observer: `instruction` is about to run."""
        self.finish()
        if instruction.opcode != "memset":  # what a kernel fills a tensor with is meant
            self._pending = (instruction, *self._contents(self._survey.touches[instruction][0]))

    def finish(self) -> None:
        """Look at what the latest instruction wrote."""
        if self._pending is None:
            return
        instruction, had_nan, had_infinity = self._pending
        self._pending = None
        for tensor in self._survey.touches[instruction][1]:
            nan, infinity = self._contents([tensor])
            if nan and not had_nan:
                self._report(instruction, tensor, "NaN", "no NaN")
            elif infinity and not had_infinity and not had_nan:
                self._report(instruction, tensor, "infinity", "finite numbers only")

    def _contents(self, tensors: Iterable[NkiTensor]) -> tuple[bool, bool]:
        """Whether there is a NaN, and whether there is an infinity."""
        nan = infinity = False
        for tensor in tensors:
            if tensor.dtype.kind != "float":
                continue
            try:
                values = to_float32(self._memory.bind(tensor), tensor.dtype)
            except NkiError:
                continue  # an index out of bounds, which execution reports or skips
            finite = np.isfinite(values)
            if not finite.all():
                wrong = values[~finite]
                nan = nan or bool(np.isnan(wrong).any())
                infinity = infinity or bool(np.isinf(wrong).any())
        return nan, infinity

    def _report(self, instruction: Instruction, tensor: NkiTensor, what: str, read: str) -> None:
        key = ("NKI-N002", site(instruction, tensor.storage))
        if self._findings.known(key):
            return
        self._findings.add(
            key,
            "NKI-N002",
            f"{instruction.opcode} writes {what} to {operand_of(instruction, tensor, written=True)}, "
            f"and reads {read}",
            stack=instruction.stack,
            labels=allocated(tensor.storage),
            help="look at what it reads: a division by zero, a logarithm or square root of a negative "
            "number, an exponential or a sum out of range",
            severity=Severity.warning,
        )
