"""Launching kernels: specialize, place, run, and hand the arrays back.

A :class:`Session` says how kernels run while it is active (target, with or without
data, timed or not) and keeps what happened, for the command line and for scripts
that want the timeline as well as the result.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from types import CodeType
from typing import Any, Literal

import numpy as np

from nki import arrays, levels, uncaught
from nki.cache import Cache, Key, NotKept, Prepared, call_key
from nki.compiler.language import frontends
from nki.compiler.specializer.specialize import Output, bind, specialize_call
from nki.kernel import Kernel
from nki_isa.diagnostics import Diagnostic, Frame, NkiError, NkiMemoryError, Severity, Span, error
from nki_isa.ir.program import Program
from nki_isa.machine.target import Target
from nki_isa.machine.targets import default_target
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.cores.core_times import CoreTimes, simulate_all, simulate_ranks
from nki_sim.cores.device import Rank, check_ranks, execute_all
from nki_sim.execution.execute import ExecutionResult, Skipped, interrupted_at
from nki_sim.host import available_bytes, no_collection
from nki_sim.placement.fit import fit
from nki_sim.placement.place import Placement, overfull
from nki_sim.placement.refusals import host_overflow
from nki_sim.precision import execute_widened, high_precision
from nki_sim.replay import Replay
from nki_sim.report.mechanisms import without
from nki_sim.sanitize import DATA_CODES, check_classes, execute_checked, execute_ranks_checked
from nki_sim.sanitize.static import Looked, check_static
from nki_sim.schedule.compiler import scheduled
from nki_sim.timing.scoreboard import Timeline

_LOGICAL_CORES = "NEURON_LOGICAL_NC_CONFIG"
_UNASKED = 1 << 28  # bytes of a launch that every host has

Fill = Literal["zeros", "sentinels"]
Order = Literal["program", "compiler"]
Run = Callable[[list[Any]], list[Any]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How kernels run.

    Attributes:
        target: the generation, or None for the environment's (default trn2).
        profile: the language profile, ``"library"`` or ``"strict"``.
        data: False skips execution: outputs are zeros, times and memory are right.
        timing: True records a timeline of each launch.
        decide: without data, run all the same where a finding depends on it.
        check: what to check while a kernel runs: classes of :data:`nki_sim.sanitize.CHECKS`, as a set
            or as text such as ``"all"``, ``"none"`` or ``"overlap,nan"``; None takes the environment's
            ``NKI_SIM_CHECK``, or all.
        warnings_as_errors: True makes every warning an error, and every note of a run-time check but those
            on what may well be meant (NKI-N002, H023).
        fill: what memory holds before it is written: ``"zeros"``, or ``"sentinels"`` for NaN and, in
            integers, 4, as the vendor's simulator has it.
        trips: without data, the turns of each device loop that only data bound; None takes one.
        without: mechanisms of :data:`nki_sim.report.mechanisms.MECHANISMS` that take no time, when timed.
        schedule: the order of instructions: ``"program"``, as the kernel states, or ``"compiler"``, that of
            :mod:`nki_sim.schedule.compiler`. Results are the same bits.
    """

    target: Target | None = None
    profile: str = "library"
    data: bool = True
    timing: bool = False
    decide: bool = False
    check: frozenset[str] | str | None = None
    warnings_as_errors: bool = False
    fill: Fill = "zeros"
    trips: int | None = None
    without: frozenset[str] = frozenset()
    schedule: Order = "program"

    def checks(self) -> frozenset[str]:
        """The classes of checks in force.

        Raises:
            NkiError: NKI-L032 for a name that is no class.
        """
        chosen = os.environ.get("NKI_SIM_CHECK", "all") if self.check is None else self.check
        return check_classes(chosen) if isinstance(chosen, str) else chosen


@dataclass(frozen=True)
class CoreRun:
    """What one core of a launch ran, where its tensors were, and when.

    Attributes:
        program: the kernel specialized for this core.
        placement: where its tensors were.
        timeline: what ran when, if the session timed it.
    """

    program: Program
    placement: Placement
    timeline: Timeline | None


@dataclass(frozen=True)
class Launch:
    """One kernel call.

    Attributes:
        kernel: the kernel's name.
        cores: what each core ran; `program`, `placement` and `timeline` are those of core 0.
        diagnostics: warnings and notes.
        skipped: what each line with ``oob_mode.skip`` left out, where it did.
        schedule: the order its instructions ran in, as :attr:`Options.schedule`.
        ranks: how many ranks it ran on; `cores` are those of rank 0, then those of rank 1, and so on.
    """

    kernel: str
    cores: tuple[CoreRun, ...]
    diagnostics: tuple[Diagnostic, ...]
    skipped: tuple[Skipped, ...] = ()
    schedule: Order = "program"
    ranks: int = 1

    def who(self, number: int) -> str:
        """How core `number` of all ranks is called, such as ``rank 1 core 0``."""
        rank, core = divmod(number, len(self.cores) // self.ranks)
        return f"rank {rank} core {core}" if self.ranks > 1 else f"core {core}"

    @property
    def program(self) -> Program:
        """The Program of core 0."""
        return self.cores[0].program

    @property
    def placement(self) -> Placement:
        """The placement on core 0."""
        return self.cores[0].placement

    @property
    def timeline(self) -> Timeline | None:
        """The timeline of core 0."""
        return self.cores[0].timeline


@dataclass(frozen=True)
class Overfull:
    """A kernel call that was refused because SBUF or PSUM cannot hold what it needs.

    Attributes:
        kernel: the kernel's name.
        programs: the kernel specialized for each core.
        target: the generation.
    """

    kernel: str
    programs: tuple[Program, ...]
    target: Target

    def placed(self) -> Launch:
        """The call with unlimited memory, to look at what exceeds it."""
        cores = tuple(CoreRun(program, overfull(program, self.target), None) for program in self.programs)
        return Launch(self.kernel, cores, ())


@dataclass(frozen=True)
class Refused:
    """A kernel call that was refused.

    Attributes:
        kernel: the kernel's name.
        error: everything wrong with it.
    """

    kernel: str
    error: NkiError


@dataclass
class Session:
    """Options in force, and what happened under them.

    Attributes:
        options: how kernels run.
        launches: the launches made.
        overfull: those refused for memory.
        refused: those refused, each with an error that was not told before.
        reached: the code of the kernels that were launched, refused ones too, and of those they call.
        keep: False where nobody looks at the record: then warnings are told as Python's.
        closed: True from the end of the session on.
    """

    options: Options = field(default_factory=Options)
    launches: list[Launch] = field(default_factory=list)
    overfull: list[Overfull] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    reached: set[CodeType] = field(default_factory=set)
    keep: bool = False
    closed: bool = False

    def include(self, inner: Session) -> None:
        """Record what happened under a session inside this one."""
        self.launches += inner.launches
        self.overfull += inner.overfull
        self.reached |= inner.reached
        for found in inner.refused:
            self.refuse(found.kernel, found.error)

    def refuse(self, kernel: str, found: NkiError) -> None:
        """Record the errors of a launch of `kernel`."""
        told = {(d.code, d.span, d.message) for known in self.refused for d in known.error.diagnostics}
        if self.keep and not all((d.code, d.span, d.message) in told for d in found.diagnostics):
            self.refused.append(Refused(kernel, found))


_of_process = Session()
_of_context: ContextVar[Session | None] = ContextVar("session", default=None)
_cache = Cache()


def _current() -> Session:
    """The session in force: that of this thread or task, else that of the process."""
    return _of_context.get() or _of_process


@contextlib.contextmanager
def session(**options: Any) -> Iterator[Session]:
    """Run kernels with these :class:`Options` inside the block; yields the record of launches.

    It holds for the thread or asyncio task that enters the block, and for tasks made inside; not for other
    threads, unless they are started with ``contextvars.copy_context().run``.
    """
    before, made = _current(), Session(Options(**options), keep=True)
    token = _of_context.set(made)
    try:
        yield made
    finally:
        _of_context.reset(token)
        _close(made, before)


@contextlib.contextmanager
def session_of_process(**options: Any) -> Iterator[Session]:
    """As :func:`session`, for every thread that is in no session of its own: what a command runs under."""
    global _of_process
    before, made = _of_process, Session(Options(**options), keep=True)
    _of_process = made
    try:
        yield made
    finally:
        _of_process = before
        _close(made, before)


def _close(made: Session, before: Session) -> None:
    made.closed = True
    if before.keep:
        before.include(made)


def _in(held: Session, run: Run, inputs: list[Any]) -> list[Any]:
    """`run` in the session it was made in, while that lasts: frameworks call from threads of their own."""
    if held.closed or _of_context.get() is not None:
        return run(inputs)
    token = _of_context.set(held)
    try:
        return run(inputs)
    finally:
        _of_context.reset(token)


def launch(kernel: Kernel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run `kernel` on these arguments.

    Returns:
        What the kernel returns, with each HBM tensor as an array of its shape and dtype.

    Raises:
        NkiError: everything wrong with the kernel or the call. The caller's arrays
            change only where the kernel writes an input, and only if it ran to its end.
    """
    with _telling(kernel):
        return _launch(kernel, args, kwargs)


def launch_ranks(kernel: Kernel, calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
    """Run `kernel` on several ranks at once; as :func:`launch`, with the arguments of each rank.

    Returns:
        What the kernel returns, for each rank.
    """
    with _telling(kernel):
        kernel, target = _launched(kernel)
        made = [_prepare(kernel, args, kwargs, target) for args, kwargs in calls]
        outputs = _run(kernel.function.__name__, made, target)
        return [_rebuild(m.specialized[0].result, o) for (m, _), o in zip(made, outputs, strict=True)]


@contextlib.contextmanager
def _telling(kernel: Kernel) -> Iterator[None]:
    """Keep in the session what refuses a launch of `kernel`; say where it was interrupted."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        place = Span(kernel.function.__code__.co_filename, kernel.function.__code__.co_firstlineno)
        raise interrupted_at(stopped, [Frame(kernel.function.__name__, place)]) from None
    except NkiError as found:
        _current().refuse(kernel.function.__name__, found)
        raise


def _launched(kernel: Kernel) -> tuple[Kernel, Target]:
    """`kernel` on the cores it is launched on, and the generation in force.

    Raises:
        NkiError: NKI-U001, the generation has fewer cores.
    """
    session = _current()
    options = session.options
    target = options.target or default_target()
    kernel = _on_logical_core(kernel)
    if session.keep:
        session.reached.add(kernel.function.__code__)
    if kernel.grid > target.logical_cores:
        raise error(
            "NKI-U001",
            f"{kernel.function.__name__} is launched on {kernel.grid} cores; "
            f"a logical core of {target.name} has {target.logical_cores}",
            help=f"launch it with {kernel.function.__name__}[{target.logical_cores}](...)",
        )
    return kernel, target


def _launch(kernel: Kernel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    kernel, target = _launched(kernel)
    prepared, inputs = _prepare(kernel, args, kwargs, target)
    first = prepared.specialized[0]
    run = partial(_run_one, kernel.function.__name__, prepared, target)
    traced = arrays.traced_by(inputs)
    if traced == "torch":
        from nki import torch_op

        outputs = torch_op.launch(prepared, inputs, run)
    elif traced == "jax":
        from nki import jax_callback

        _check_writable(kernel.function.__name__, prepared, inputs)
        outputs = jax_callback.launch(prepared, inputs, partial(_in, _current(), run))
    else:
        outputs = run(inputs)
    return _rebuild(first.result, outputs)


def _on_logical_core(kernel: Kernel) -> Kernel:
    """`kernel` on the cores that ``NEURON_LOGICAL_NC_CONFIG`` says, which API levels from 0.7 on ask.

    Raises:
        NkiError: NKI-L032 for another setting than 1 or 2; NKI-U014 where the brackets of the launch differ.
    """
    text = os.environ.get(_LOGICAL_CORES)
    if not text or levels.before("0.7"):
        return kernel
    if text not in ("1", "2"):
        raise error(
            "NKI-L032", f"{_LOGICAL_CORES} is {text!r}", help="set it to 1 or 2, the cores of a logical core"
        )
    name = kernel.function.__name__
    if kernel.bracketed and kernel.grid != int(text):
        raise error(
            "NKI-U014",
            f"{name} is launched on {kernel.grid} cores, the graph compiler takes {_LOGICAL_CORES}={text}",
            help=f"write {name}(...), or set {_LOGICAL_CORES}={kernel.grid}",
            notes=("source: SDK page of the error NCC_EVRF066",),
        )
    return kernel[int(text)]


def _check_writable(name: str, prepared: Prepared, inputs: list[Any]) -> None:
    for position in prepared.written:
        arrays.check_writable(name, prepared.programs[0].inputs[position].name, inputs[position])


def _run_one(name: str, prepared: Prepared, target: Target, inputs: list[Any]) -> list[Any]:
    """As :func:`_run`, on one rank."""
    return _run(name, [(prepared, inputs)], target)[0]


def _run(name: str, ranks: Sequence[tuple[Prepared, list[Any]]], target: Target) -> list[list[Any]]:
    """Run a prepared kernel on the arrays of each rank: what that returns, as the outputs of its Program."""
    session = _current()
    options = session.options
    made = [prepared for prepared, _ in ranks]
    for prepared, inputs in ranks:
        _check_writable(name, prepared, inputs)
    known = list(dict.fromkeys(d for prepared in made for d in prepared.specialized[0].diagnostics))
    found: list[Diagnostic] = []
    timelines: list[Timeline] = []
    skipped: tuple[Skipped, ...] = ()
    looked = [] if options.data else [_look_at(prepared, options) for prepared in made]
    if not looked or (options.decide and any(one.undecided for one in looked)):
        with _within_memory(made):
            data = [[arrays.to_numpy(value) for value in inputs] for _, inputs in ranks]
            if len(ranks) == 1:
                results = [_execute(made[0], data[0], target, timelines, found)]
            else:
                results = _execute_ranks(made, data, target, timelines, found)
        for (_, inputs), result in zip(ranks, results, strict=True):
            for index, array in result.updated_inputs:
                arrays.write_back(inputs[index], array)
        outputs = [result.outputs for result in results]
        skipped = tuple(one for result in results for one in result.skipped)
    else:
        check_ranks([prepared.programs for prepared in made])
        if options.timing:
            timelines = _timelines_of_ranks(made, target, options)
        found += dict.fromkeys(d for one in looked for d in one.found)
        outputs = [[_zeros(tensor) for tensor in prepared.programs[0].outputs] for prepared in made]
    if session.keep:
        run = [core for prepared in made for core in zip(prepared.programs, prepared.placements, strict=True)]
        timed: list[Timeline | None] = [*timelines] or [None] * len(run)
        cores = tuple(CoreRun(*core, timeline) for core, timeline in zip(run, timed, strict=True))
        session.launches.append(Launch(name, cores, (*known, *found), skipped, options.schedule, len(ranks)))
    else:
        uncaught.warn((*known, *found))
    return [arrays.like(inputs, array) for (_, inputs), array in zip(ranks, outputs, strict=True)]


def _prepare(
    kernel: Kernel, args: tuple[Any, ...], kwargs: dict[str, Any], target: Target
) -> tuple[Prepared, list[Any]]:
    """The kernel specialized and placed for this call, kept from an earlier one where there is one.

    Raises:
        NkiError: its warnings, where they count as errors.
    """
    session = _current()
    prepared, inputs = _kept(kernel, args, kwargs, target)
    first = prepared.specialized[0]
    if session.keep:
        session.reached.update(function.__code__ for function in first.kernels)
    warned = [d for d in first.diagnostics if d.severity is Severity.warning]
    if session.options.warnings_as_errors and warned:
        raise NkiError(replace(d, severity=Severity.error) for d in warned)
    return prepared, inputs


def _kept(
    kernel: Kernel, args: tuple[Any, ...], kwargs: dict[str, Any], target: Target
) -> tuple[Prepared, list[Any]]:
    session = _current()
    profile = session.options.profile
    key: Key | None = None
    try:
        parts, inputs = call_key(bind(kernel, args, kwargs).arguments.values())
        language = levels.current(), frontends.current(), profile, session.options.schedule
        key = (
            kernel.function,
            (kernel.grid, kernel.schedule, kernel.prints, kernel.config, target, language, parts),
        )
        kept = _cache.get(key)
        if kept is not None:
            return kept, inputs
    except (NotKept, RecursionError):  # nested too deeply: specialization says so
        inputs = []
    prepared, found = _made(kernel, args, kwargs, target)
    known = len(found) == len(inputs) and all(a is b for a, b in zip(found, inputs))
    if key is not None and known and not prepared.specialized[0].traced:
        _cache.put(key, prepared)
    return prepared, found


@no_collection()
def _made(
    kernel: Kernel, args: tuple[Any, ...], kwargs: dict[str, Any], target: Target
) -> tuple[Prepared, list[Any]]:
    """The kernel specialized and placed anew, and the arrays of this call."""
    session = _current()
    specialized = [
        specialize_call(kernel, args, kwargs, target=target, profile=session.options.profile, program_id=core)
        for core in range(kernel.grid)
    ]
    found = specialized[0].inputs
    try:
        fitted = [fit(one.program, target) for one in specialized]
    except NkiMemoryError:
        if session.keep:
            programs = tuple(one.program for one in specialized)
            session.overfull.append(Overfull(kernel.function.__name__, programs, target))
        raise
    warned = next((fits.diagnostics for fits in fitted if fits.diagnostics), ())  # cores differ in little
    specialized = [
        replace(one, program=fits.program, inputs=[], diagnostics=(*one.diagnostics, *warned))
        for one, fits in zip(specialized, fitted, strict=True)
    ]
    placements = [fits.placement for fits in fitted]
    if session.options.schedule == "compiler":
        specialized = [
            replace(one, program=scheduled(one.program, target, placement, cores=kernel.grid))
            for one, placement in zip(specialized, placements, strict=True)
        ]
    return Prepared(specialized, placements), found  # holds no arrays


def _look_at(prepared: Prepared, options: Options) -> Looked:
    """What the checks that need no data find, worked out once for each set of them."""
    key = options.checks(), options.warnings_as_errors
    if key not in prepared.looked_at:
        placed = [placement.addresses for placement in prepared.placements]
        prepared.looked_at[key] = check_static(prepared.programs, placed, key[0], strict=key[1])
    return prepared.looked_at[key]


def _timelines(prepared: Prepared, target: Target, options: Options) -> list[Timeline]:
    """The times of a launch that is not run."""
    machine = without(target, options.without)
    return simulate_all(prepared.programs, prepared.placements, trips=options.trips, target=machine)


def _timelines_of_ranks(made: Sequence[Prepared], target: Target, options: Options) -> list[Timeline]:
    """As :func:`_timelines`, rank after rank."""
    ranks = [(prepared.programs, prepared.placements) for prepared in made]
    return simulate_ranks(ranks, trips=options.trips, target=without(target, options.without))


def _execute(
    prepared: Prepared,
    inputs: list[np.ndarray[Any, Any]],
    target: Target,
    timelines: list[Timeline],
    found: list[Diagnostic],
) -> ExecutionResult:
    """Run the Programs; times go to `timelines`, what checks find below an error to `found`."""
    session = _current()
    options = session.options
    placed = [placement.addresses for placement in prepared.placements]
    if high_precision():
        if options.timing:
            timelines += _timelines(prepared, target, options)
        return execute_widened(prepared.programs, placed, inputs, target)
    checks = options.checks() if session.keep else options.checks() - {"nan"}  # a note nobody would see
    kept = prepared.static and not options.timing and options.fill == "zeros"
    if kept and checks in prepared.passed and prepared.running.acquire(blocking=False):
        try:
            if prepared.replay is None:
                prepared.replay = Replay(prepared.programs[0], placed[0])
            result, told = prepared.replay(inputs, checks=checks, strict=options.warnings_as_errors)
        finally:
            prepared.running.release()
        found += told
        return result
    times = CoreTimes(without(target, options.without), prepared.placements) if options.timing else None
    sentinels = options.fill == "sentinels"
    checked = partial(_checked, found, options, checks)
    run = checked if checks or sentinels else execute_all
    result = run(
        prepared.programs,
        placed,
        inputs,
        listeners=[times] if times else [],
    )
    if times:
        timelines += times.timelines()
    if all(told.code in DATA_CODES for told in found):  # which a replay finds again
        prepared.passed.add(checks)
    return result


def _execute_ranks(
    made: Sequence[Prepared],
    inputs: Sequence[list[np.ndarray[Any, Any]]],
    target: Target,
    timelines: list[Timeline],
    found: list[Diagnostic],
) -> list[ExecutionResult]:
    """As :func:`_execute`, on several ranks.

    Raises:
        NkiError: NKI-U013 in high-precision mode.
    """
    if high_precision():
        raise error(
            "NKI-U013",
            f"{made[0].programs[0].name} is launched on {len(made)} ranks, which exchange stored bytes",
            help="leave NKI_PRECISE_FP unset for launches over ranks",
        )
    session = _current()
    options = session.options
    checks = options.checks() if session.keep else options.checks() - {"nan"}
    ranks = [
        Rank(prepared.programs, [placement.addresses for placement in prepared.placements], data)
        for prepared, data in zip(made, inputs, strict=True)
    ]
    times = None
    if options.timing:
        placements = [placement for prepared in made for placement in prepared.placements]
        times = CoreTimes(without(target, options.without), placements, len(made[0].programs))
    results, told = execute_ranks_checked(
        ranks,
        checks=checks,
        strict=options.warnings_as_errors,
        listeners=[times] if times else [],
        sentinels=options.fill == "sentinels",
    )
    found += told
    if times:
        timelines += times.timelines()
    return results


@contextlib.contextmanager
def _within_memory(made: Sequence[Prepared]) -> Iterator[None]:
    """Refuse a launch that takes more memory than the host has (NKI-M008), or finds when it is out of it."""
    needed = sum(prepared.host_bytes for prepared in made)
    prepared = made[0]
    available = available_bytes() if needed > _UNASKED else None
    if available is not None and needed > available:
        raise host_overflow(prepared.programs[0], needed, available)
    try:
        yield
    except MemoryError:
        raise host_overflow(prepared.programs[0], needed, available_bytes() or 0) from None


def _zeros(tensor: NkiTensor) -> np.ndarray[Any, Any]:
    """What stands for a result; where the host has no room for it, one zero that every element shares."""
    try:
        return np.zeros(tensor.shape, tensor.dtype.numpy)
    except MemoryError:
        return np.broadcast_to(np.zeros((), tensor.dtype.numpy), tensor.shape)


def _checked(
    found: list[Diagnostic], options: Options, checks: frozenset[str], *args: Any, **kwargs: Any
) -> ExecutionResult:
    """Execute with checks; what they find below an error goes to `found`."""
    sentinels = options.fill == "sentinels"
    result, diagnostics = execute_checked(
        *args, checks=checks, strict=options.warnings_as_errors, sentinels=sentinels, **kwargs
    )
    found.extend(diagnostics)
    return result


def _rebuild(result: Any, outputs: list[Any]) -> Any:
    """The kernel's result with arrays in the places of its tensors."""
    if isinstance(result, Output):
        return outputs[result.index]
    if isinstance(result, (list, tuple)):
        return type(result)(_rebuild(item, outputs) for item in result)
    if isinstance(result, dict):
        return {key: _rebuild(item, outputs) for key, item in result.items()}
    return result
