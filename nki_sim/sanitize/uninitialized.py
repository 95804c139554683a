"""What a kernel reads before it is there, or after another tensor has taken its bytes.

Whether such a read matters is seen by running again with other values in its place
(:mod:`nki_sim.sanitize.influence`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from nki_isa.diagnostics import Severity
from nki_isa.ir.instruction import Instruction
from nki_sim.execution.result import ExecutionResult
from nki_sim.observe import Core
from nki_sim.sanitize.check import Again, Check, Scene
from nki_sim.sanitize.influence import Influence
from nki_sim.sanitize.registers import Registers, Unset

_BYTES = "no result depends on these bytes: others in their place change nothing"
_VALUES = "no result depends on that value: another in its place changes nothing"


class _Unwritten(Check):
    """Reads that matter only where a result depends on them."""

    def __init__(self, scene: Scene):
        super().__init__(scene)
        self._registers: list[Registers] = []
        assert scene.followed

    def judge(self, result: ExecutionResult, again: Again, strict: bool) -> None:
        """Make reads that no result depends on notes."""
        if strict:
            return
        told: dict[Hashable, str] = {key: _BYTES for key in self.scene.reads.sites[self.codes[0]]}
        told.update((key, _VALUES) for registers in self._registers for key in registers.sites)
        unset: list[Mapping[Instruction, Sequence[Unset]]] = [one.unset for one in self._registers]
        unset = unset or [{}] * len(self.scene.programs)
        guilty = Influence(again, self.scene.watches, unset, result).guilty(list(told))
        for key, why in told.items():
            if key not in guilty:
                self.scene.findings.lower(key, Severity.note, why)


class Uninitialized(_Unwritten):
    """Reads of what nothing has written or set."""

    name = "uninitialized"
    finds = "reads of bytes (NKI-H002) and registers (NKI-H013) that were never written"
    codes = ("NKI-H002", "NKI-H013")
    listed = 0

    def start(self, cores: Sequence[Core]) -> None:
        """Look at registers, which needs no data."""
        self._registers = [Registers(program, self.scene.findings) for program in self.scene.programs]


class Overlap(_Unwritten):
    """Reads of what another tensor has overwritten."""

    name = "overlap"
    finds = "tensors with addresses that overlap while both are needed (NKI-H003)"
    codes = ("NKI-H003",)
    listed = 2
