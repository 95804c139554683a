"""Accesses of two cores to the same bytes of shared HBM that nothing orders, and work that both do."""

from __future__ import annotations

from collections.abc import Sequence

from nki_isa.ir.instruction import Instruction
from nki_isa.ops.meeting import Meeting
from nki_sim.cores.race_detector import RaceDetector
from nki_sim.observe import Core
from nki_sim.sanitize.check import Check, Scene


class Races(Check):
    """A :class:`~nki_sim.cores.race_detector.RaceDetector` for launches of several cores."""

    name = "races"
    finds = (
        "accesses of two cores to the same bytes of shared HBM that nothing orders (NKI-H021), "
        "and work that both do (NKI-H023)"
    )
    codes = ("NKI-H021", "NKI-H023")
    listed = 10
    needs_data = True

    _detector: RaceDetector

    @classmethod
    def sees(cls, scene: Scene) -> bool:
        """Not one core alone."""
        return len(scene.programs) > 1

    def start(self, cores: Sequence[Core]) -> None:
        """Compare the cores."""
        self._detector = RaceDetector(cores)

    def before(self, core: int, instruction: Instruction, registers: list[int]) -> None:
        """What it touches of shared HBM."""
        self._detector.before(core, instruction)

    def meet(self, group: Sequence[tuple[int, Meeting]]) -> None:
        """What came before is ordered."""
        self._detector.meet(group)

    def finish(self) -> None:
        """Raise every race; keep notes."""
        self.scene.findings.notes += self._detector.finish()
