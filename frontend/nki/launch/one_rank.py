"""What a prepared kernel does on the arrays of one rank: run and checked, again on a machine that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nki.launch.cache import Prepared
from nki.launch.session import Session
from nki.launch.settings import Options
from nki_isa.diagnostics import Diagnostic
from nki_isa.machine.target import Target
from nki_sim.cores.core_times import CoreTimes, simulate_ranks
from nki_sim.cores.device import execute_all
from nki_sim.execution.precision import high_precision, widened
from nki_sim.execution.result import ExecutionResult
from nki_sim.sanitize import DATA_CODES, execute_checked
from nki_sim.sanitize.replayed import CheckedReplay
from nki_sim.timing.mechanisms import without
from nki_sim.timing.scoreboard import Timeline


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run gave.

    Attributes:
        results: of each rank.
        timelines: of each core, rank after rank; none where the session does not time.
        found: what the checks found below an error.
    """

    results: Sequence[ExecutionResult]
    timelines: Sequence[Timeline] = ()
    found: Sequence[Diagnostic] = ()


def timelines_of(made: Sequence[Prepared], target: Target, options: Options) -> list[Timeline]:
    """The times of a launch on ranks that is not run, rank after rank."""
    ranks = [(prepared.programs, prepared.placements) for prepared in made]
    return simulate_ranks(ranks, trips=options.trips, target=without(target, options.without))


def execute(prepared: Prepared, inputs: list[np.ndarray[Any, Any]], target: Target, session: Session) -> Ran:
    """Run the Programs of one rank.

    Raises:
        NkiError: what an instruction or a check refuses.
    """
    options = session.options
    if high_precision():
        timed = timelines_of([prepared], target, options) if options.timing else ()
        wide = widened(prepared.programs, prepared.addresses, inputs, target)
        return Ran([execute_all(wide.programs, wide.placements, wide.inputs, target=wide.target)], timed)
    checks = session.checks()
    is_plain = not (options.timing or options.listeners) and options.fill == "zeros"
    can_be_kept = prepared.static and is_plain
    if can_be_kept and checks in prepared.passed and prepared.running.acquire(blocking=False):
        try:
            if prepared.replay is None:
                prepared.replay = CheckedReplay(prepared.programs[0], prepared.addresses[0])
            result, told = prepared.replay(inputs, chosen=checks, strict=options.warnings_as_errors)
        finally:
            prepared.running.release()
        return Ran([result], found=told)
    times = CoreTimes(without(target, options.without), prepared.placements) if options.timing else None
    result, told = execute_checked(
        prepared.programs,
        prepared.addresses,
        inputs,
        checks=checks,
        strict=options.warnings_as_errors,
        listeners=[*([times] if times else []), *options.listeners],
        sentinels=options.fill == "sentinels",
    )
    if all(one.code in DATA_CODES for one in told):  # which a replay finds again
        prepared.passed.add(checks)
    return Ran([result], times.timelines() if times else (), told)


__all__ = ["Ran", "execute", "timelines_of"]
