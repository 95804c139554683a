"""The checks of a Program that runs again and again on a machine that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nki_isa.diagnostics import Diagnostic
from nki_isa.ir.program import Program
from nki_sim.cores.device import execute
from nki_sim.execution.memory import Addresses, Array
from nki_sim.execution.replay import Replay
from nki_sim.execution.result import ExecutionResult
from nki_sim.observe import Listener
from nki_sim.sanitize.check import Check, Scene, checks, told
from nki_sim.sanitize.survey import Survey


class CheckedReplay:
    """A static Program, to be run again after a run in which at most its data was at fault.

    Args:
        program, placement: as for :class:`~nki_sim.execution.replay.Replay`.
    """

    def __init__(self, program: Program, placement: Addresses):
        self._program, self._placement = program, placement
        self._replay = Replay(program, placement)
        self._surveys: list[Survey] = []  # made when a check asks
        self._checks: dict[frozenset[str], list[type[Check]]] = {}  # that look at warm runs, by those chosen

    def __call__(
        self, inputs: Sequence[Array], *, chosen: frozenset[str] = frozenset(), strict: bool = False
    ) -> tuple[ExecutionResult, tuple[Diagnostic, ...]]:
        """One run; as :func:`nki_sim.sanitize.execute_checked`.

        Of the checks `chosen` only those that need data are made: what the others find is the same in every
        run.
        """
        classes = self._checks.get(chosen)
        if classes == []:
            return self._replay(inputs), ()
        scene = Scene([self._program], [self._placement], inputs, chosen, self._surveys)
        if classes is None:
            wanted = [check for check in checks() if check.needs_data and check.name in chosen]
            classes = self._checks[chosen] = [check for check in wanted if check.sees(scene)]
        made = [check(scene) for check in classes]
        result = self._replay(inputs, scene.listeners(made))
        return result, told(scene, made, result, partial(self._again, inputs), strict)

    def _again(self, inputs: Sequence[Array], listeners: Sequence[Listener]) -> ExecutionResult:
        return execute(self._program, self._placement, inputs, listeners=listeners)
