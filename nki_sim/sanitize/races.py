"""Accesses of two cores to the same bytes of shared HBM that nothing orders, and work that both do."""

from __future__ import annotations

from collections.abc import Sequence

from nki_isa.diagnostics import Diagnostic
from nki_isa.instruction import Instruction
from nki_sim.observe import Core
from nki_sim.races import RaceDetector
from nki_sim.sanitize.check import Check, Scene


class Races(Check):
    """A :class:`~nki_sim.races.RaceDetector` for launches of several cores."""

    name = "races"
    finds = (
        "accesses of two cores to the same bytes of shared HBM that nothing orders (NKI-H021), "
        "and work that both do (NKI-H023)"
    )
    codes = ("NKI-H021", "NKI-H023")
    listed = 10
    needs_data = True

    def __init__(self, scene: Scene):
        super().__init__(scene)
        self._detector: RaceDetector | None = None
        self.noted: tuple[Diagnostic, ...] = ()

    def start(self, cores: Sequence[Core]) -> None:
        """Compare the cores, where there are several."""
        if len(cores) > 1:
            self._detector = RaceDetector(cores)

    def before(self, core: int, instruction: Instruction, registers: list[int]) -> None:
        """What it touches of shared HBM."""
        if self._detector is not None:
            self._detector.before(core, instruction)

    def meet(self, group: Sequence[tuple[int, Instruction]]) -> None:
        """What came before is ordered."""
        if self._detector is not None:
            self._detector.meet(group)

    def finish(self) -> None:
        """Raise every race; keep notes."""
        if self._detector is not None:
            self.scene.findings.notes += self._detector.finish()
