"""A kernel made ready for one form of call: specialized, placed and ordered, and kept for the next one."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from nki import levels
from nki.compiler.language import frontends
from nki.compiler.source.kernel_source import KernelSource
from nki.compiler.specializer.specialize import bind, specialize_call
from nki.launch.cache import Cache, Key, NotKept, Prepared, call_key
from nki.launch.debugger import values_in_debuggers
from nki.launch.record import Overfull
from nki.launch.session import current
from nki_isa.diagnostics import NkiError, NkiMemoryError, Severity
from nki_isa.machine.target import Target
from nki_sim import pipeline
from nki_sim.process import no_collection

cache = Cache()


def prepare(
    kernel: KernelSource, args: tuple[Any, ...], kwargs: dict[str, Any], target: Target
) -> tuple[Prepared, list[Any]]:
    """The kernel made ready for this call, or kept from an earlier one, and the arrays of this call.

    Raises:
        NkiError: its warnings, where they count as errors.
    """
    session = current()
    prepared, inputs = _kept(kernel, args, kwargs, target)
    first = prepared.specialized[0]
    if session.keep:
        session.reached.update(function.__code__ for function in first.kernels)
    warned = [d for d in first.diagnostics if d.severity is Severity.warning]
    if session.options.warnings_as_errors and warned:
        raise NkiError(replace(d, severity=Severity.error) for d in warned)
    return prepared, inputs


def _kept(
    kernel: KernelSource, args: tuple[Any, ...], kwargs: dict[str, Any], target: Target
) -> tuple[Prepared, list[Any]]:
    session = current()
    profile = session.options.profile
    key: Key | None = None
    try:
        parts, inputs = call_key(bind(kernel, args, kwargs).arguments.values())
        passes = session.options.schedule, session.options.spill
        language = levels.current(), frontends.current(), profile, *passes
        key = (
            kernel.function,
            (kernel.grid, kernel.schedule, kernel.prints, kernel.config, target, language, parts),
        )
        kept = cache.get(key)
        if kept is not None:
            return kept, inputs
    except (NotKept, RecursionError):  # nested too deeply: specialization says so
        inputs = []
    prepared, found = _made(kernel, args, kwargs, target)
    known = len(found) == len(inputs) and all(a is b for a, b in zip(found, inputs))
    if key is not None and known and not prepared.specialized[0].traced:
        cache.put(key, prepared)
    return prepared, found


@no_collection()
def _made(
    kernel: KernelSource, args: tuple[Any, ...], kwargs: dict[str, Any], target: Target
) -> tuple[Prepared, list[Any]]:
    """The kernel specialized and placed anew, and the arrays of this call."""
    session = current()
    with values_in_debuggers() if kernel.prints else contextlib.nullcontext():
        specialized = [
            specialize_call(
                kernel, args, kwargs, target=target, profile=session.options.profile, program_id=core
            )
            for core in range(kernel.grid)
        ]
    found = specialized[0].inputs
    programs = [one.program for one in specialized]
    passes = pipeline.passes(session.options.schedule, spills=session.options.spill)
    try:
        staged = pipeline.staged(programs, target, passes)
    except NkiMemoryError:
        if session.keep:
            session.overfull.append(Overfull(kernel.function.__name__, tuple(programs), target))
        raise
    told = next((one.diagnostics for one in staged if one.diagnostics), ())  # cores differ in little
    specialized = [
        replace(one, program=stage.program, inputs=[], diagnostics=(*one.diagnostics, *told))
        for one, stage in zip(specialized, staged, strict=True)
    ]
    return Prepared(specialized, [stage.placed for stage in staged]), found  # holds no arrays


__all__ = ["cache", "prepare"]
