"""What a prepared kernel does on the arrays of several ranks, which meet in collectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nki.launch.cache import Prepared
from nki.launch.one_rank import Ran
from nki.launch.session import Session
from nki_isa.diagnostics import error
from nki_isa.machine.target import Target
from nki_sim.cores.core_times import CoreTimes
from nki_sim.cores.device import Rank
from nki_sim.execution.precision import high_precision
from nki_sim.sanitize import execute_ranks_checked
from nki_sim.timing.mechanisms import without
from nki_sim.workers.launch import execute_on
from nki_sim.workers.shard import How


def execute_ranks(
    made: Sequence[Prepared],
    inputs: Sequence[list[np.ndarray[Any, Any]]],
    target: Target,
    session: Session,
) -> Ran:
    """Run the Programs of all ranks; as :func:`nki.launch.one_rank.execute`.

    Raises:
        NkiError: what an instruction or a check refuses; NKI-U013 in high-precision mode.
    """
    if high_precision():
        raise error(
            "NKI-U013",
            f"{made[0].programs[0].name} is launched on {len(made)} ranks, which exchange stored bytes",
            help="leave NKI_PRECISE_FP unset for launches over ranks",
        )
    options = session.options
    ranks = [
        Rank(prepared.programs, prepared.addresses, data) for prepared, data in zip(made, inputs, strict=True)
    ]
    cluster = options.cluster()
    if cluster is not None:
        how = How(
            target=target,
            timed=options.timing,
            lacking=options.without,
            checks=session.checks(),
            strict=options.warnings_as_errors,
            sentinels=options.fill == "sentinels",
        )
        placed = [prepared.placements for prepared in made]
        return Ran(*execute_on(cluster, ranks, placed, how, options.replaced()))
    times = None
    if options.timing:
        placements = [placement for prepared in made for placement in prepared.placements]
        times = CoreTimes(without(target, options.without), placements, len(made[0].programs))
    results, told = execute_ranks_checked(
        ranks,
        checks=session.checks(),
        strict=options.warnings_as_errors,
        listeners=[*([times] if times else []), *options.listeners],
        sentinels=options.fill == "sentinels",
    )
    return Ran(results, times.timelines() if times else (), told)


__all__ = ["execute_ranks"]
