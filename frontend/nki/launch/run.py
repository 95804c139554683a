"""A prepared kernel on the arrays of its ranks: run, or timed and looked at without data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nki import uncaught
from nki.launch import arrays
from nki.launch.cache import Prepared
from nki.launch.many_ranks import execute_ranks
from nki.launch.one_rank import Ran, execute, timelines_of
from nki.launch.record import CoreRun, Launch
from nki.launch.session import Session, current
from nki.launch.settings import Options
from nki_isa.machine.target import Target
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.cores.device import check_ranks
from nki_sim.placement.refusals import host_overflow
from nki_sim.process import available_bytes
from nki_sim.sanitize.static import Looked, check_static
from nki_sim.timing.scoreboard import Timeline

_UNASKED = 1 << 28  # bytes of a launch that every host has

#: A prepared kernel and the arrays of one rank.
Call = tuple[Prepared, list[Any]]


def check_writable(name: str, prepared: Prepared, inputs: Sequence[Any]) -> None:
    """Refuse arrays that the kernel `name` writes and that cannot change in place (NKI-L055)."""
    for position in prepared.written:
        arrays.check_writable(name, prepared.programs[0].inputs[position].name, inputs[position])


def run(name: str, ranks: Sequence[Call], target: Target) -> list[list[Any]]:
    """Run the kernel `name`, prepared for each rank: what that returns, as the outputs of its Program.

    Raises:
        NkiError: what an instruction or a check refuses; NKI-M008, the host has too little memory.
    """
    session = current()
    options = session.options
    made = [prepared for prepared, _ in ranks]
    for prepared, inputs in ranks:
        check_writable(name, prepared, inputs)
    looked = [] if options.data else [_look_at(prepared, options) for prepared in made]
    if not looked or (options.decide and any(one.undecided for one in looked)):
        ran = _with_data(ranks, target, session)
        outputs = [result.outputs for result in ran.results]
    else:
        ran = _without_data(made, looked, target, options)
        outputs = [[_zeros(tensor) for tensor in prepared.programs[0].outputs] for prepared in made]
    known = dict.fromkeys(d for prepared in made for d in prepared.specialized[0].diagnostics)
    if session.keep:
        skipped = tuple(one for result in ran.results for one in result.skipped)
        told = (*known, *ran.found)
        session.launches.append(
            Launch(name, _cores(made, ran.timelines), told, skipped, options.schedule, len(ranks))
        )
    else:
        uncaught.warn((*known, *ran.found))
    return [arrays.like(inputs, array) for (_, inputs), array in zip(ranks, outputs, strict=True)]


def _with_data(ranks: Sequence[Call], target: Target, session: Session) -> Ran:
    """Run on the arrays, and give those that are written what the kernel wrote."""
    made = [prepared for prepared, _ in ranks]
    here = len(ranks) == 1 or session.options.cluster() is None
    with _within_memory(made) if here else contextlib.nullcontext():
        data = [[arrays.to_numpy(value) for value in inputs] for _, inputs in ranks]
        if len(ranks) == 1:
            ran = execute(made[0], data[0], target, session)
        else:
            ran = execute_ranks(made, data, target, session)
    for (_, inputs), result in zip(ranks, ran.results, strict=True):
        for index, array in result.updated_inputs:
            arrays.write_back(inputs[index], array)
    return ran


def _without_data(
    made: Sequence[Prepared], looked: Sequence[Looked], target: Target, options: Options
) -> Ran:
    """What can be said of a launch that is not run."""
    check_ranks([prepared.programs for prepared in made])
    timed = timelines_of(made, target, options) if options.timing else ()
    return Ran((), timed, [*dict.fromkeys(d for one in looked for d in one.found)])


def _cores(made: Sequence[Prepared], timelines: Sequence[Timeline]) -> tuple[CoreRun, ...]:
    """What each core ran, rank after rank."""
    cores = [core for prepared in made for core in zip(prepared.programs, prepared.placements, strict=True)]
    timed: Sequence[Timeline | None] = timelines or [None] * len(cores)
    return tuple(CoreRun(*core, timeline) for core, timeline in zip(cores, timed, strict=True))


def _look_at(prepared: Prepared, options: Options) -> Looked:
    """What the checks that need no data find, worked out once for each set of them."""
    key = options.checks(), options.warnings_as_errors
    if key not in prepared.looked_at:
        prepared.looked_at[key] = check_static(prepared.programs, prepared.addresses, key[0], strict=key[1])
    return prepared.looked_at[key]


@contextlib.contextmanager
def _within_memory(made: Sequence[Prepared]) -> Iterator[None]:
    """Refuse a launch that takes more memory than the host has (NKI-M008), or finds when it is out of it."""
    needed = sum(prepared.host_bytes for prepared in made)
    program = made[0].programs[0]
    available = available_bytes() if needed > _UNASKED else None
    if available is not None and needed > available:
        raise host_overflow(program, needed, available)
    try:
        yield
    except MemoryError:
        raise host_overflow(program, needed, available_bytes() or 0) from None


def _zeros(tensor: NkiTensor) -> np.ndarray[Any, Any]:
    """What stands for a result; where the host has no room for it, one zero that every element shares."""
    try:
        return np.zeros(tensor.shape, tensor.dtype.numpy)
    except MemoryError:
        return np.broadcast_to(np.zeros((), tensor.dtype.numpy), tensor.shape)


__all__ = ["Call", "check_writable", "run"]
