"""Runs one kernel on the physical cores of a logical core.

Every core is a coroutine: it runs until it has to wait for another one, in
:class:`~nki_isa.ops.sync.core_barrier` or :class:`~nki_isa.ops.sync.sendrecv`, and
goes on when all that it waits for have arrived. Cores run in order of their number
between two meetings, so a run is deterministic; a meeting that cannot happen is an
error that names what every core was doing.

The cores share HBM: the k-th shared tensor one core allocates is the k-th of all
others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import Diagnostic, Label, NkiError, Span
from nki_isa.instruction import Instruction
from nki_isa.machine.target import Target
from nki_isa.ops.sync import core_barrier, sendrecv
from nki_isa.program import Loop, Node, Program, walk
from nki_isa.tensor import MemoryRegion, Storage
from nki_sim import host
from nki_sim.execute import ExecutionResult, Machine, Skipped, written_inputs
from nki_sim.memory import ZEROS, Placement
from nki_sim.observe import Listener, hooks

Array = NDArray[Any]


@dataclass(slots=True)
class _Core:
    """A core in a run: its machine (None without data), its coroutine, and what it waits in, if anything."""

    number: int
    machine: Any
    running: Iterator[Instruction]
    waiting: Instruction | None = None
    ended: bool = False

    def advance(self) -> None:
        """Run to the next meeting or to the end."""
        self.waiting = next(self.running, None)
        self.ended = self.waiting is None


def execute(
    program: Program,
    placement: Placement,
    inputs: Sequence[Array],
    *,
    listeners: Sequence[Listener] = (),
    fill: int = ZEROS,
) -> ExecutionResult:
    """Run `program` alone on one core; see :func:`execute_all`."""
    return execute_all([program], [placement], inputs, listeners=listeners, fill=fill)


def execute_all(
    programs: Sequence[Program],
    placements: Sequence[Placement],
    inputs: Sequence[Array],
    *,
    listeners: Sequence[Listener] = (),
    fill: int = ZEROS,
    target: Target | None = None,
) -> ExecutionResult:
    """Run `programs`, one for each core, on `inputs`.

    Args:
        programs: the kernel specialized for core 0, 1, ...
        placements: (partition, byte) of each on-chip storage by its index, for each core.
        inputs: one array for each of the Programs' inputs, of its shape and width; they are not changed,
            and must not change meanwhile: those that no Program writes are read where they are.
        listeners: what follows the run, in this order.
        fill: the byte of memory nothing has written, :data:`nki_sim.memory.ZEROS` or ``NANS``.
        target: the machine, where it is not the one the Programs name.

    Returns:
        Outputs and updated inputs as core 0 sees them.

    Raises:
        NkiError: what an instruction refuses while it runs, with the user's stack; NKI-H020 for a
            meeting that cannot happen; NKI-H022 for cores whose shared tensors differ; what listeners find.
    """
    with host.one_thread(), host.no_collection(), np.errstate(all="ignore"):
        machines = [
            Machine(program, placement, fill=fill, target=target)
            for program, placement in zip(programs, placements, strict=True)
        ]
        machines[0].borrow(inputs, written_inputs(*programs))
        share_hbm(machines)
        for start in hooks(listeners, "start"):
            start(machines)
        for number, machine in enumerate(machines):
            machine.listen(number, listeners)
        cores = [_Core(number, machine, machine.run()) for number, machine in enumerate(machines)]
        _run(cores, hooks(listeners, "meet"))
    finish(listeners)
    return replace(machines[0].result(), skipped=_skipped(machines))


def finish(listeners: Sequence[Listener]) -> None:
    """Tell all `listeners` that the run is over.

    Raises:
        NkiError: everything that any of them refuses.
    """
    refused: list[Diagnostic] = []
    for over in hooks(listeners, "finish"):
        try:
            over()
        except NkiError as found:
            refused += found.diagnostics
    if refused:
        raise NkiError(refused)


def _skipped(machines: Sequence[Machine]) -> tuple[Skipped, ...]:
    """What all cores skipped, of each line that did."""
    found: dict[Hashable, Skipped] = {}
    for machine in machines:
        for line, counted in machine.skipped.items():
            summed = found.setdefault(line, Skipped(counted.instruction))
            summed.skipped += counted.skipped
            summed.total += counted.total
    return tuple(counted for counted in found.values() if counted.skipped)


def check_meetings(programs: Sequence[Program]) -> None:
    """Refuse what is known without data of cores that run together.

    Raises:
        NkiError: NKI-H022, they allocate different shared tensors; NKI-H020, they wait for each other without
            end, as far as their loops have turns that are known.
    """
    for number, other in enumerate(programs[1:], 1):
        _check_shared(programs[0], other, number)
    if all(_is_counted(program.body) for program in programs):
        _run([_Core(number, None, _meetings(program.body)) for number, program in enumerate(programs)])


def _is_counted(body: list[Node]) -> bool:
    """True if no loop with meetings has a number of turns that is known at run time only."""
    for node in body:
        if isinstance(node, Instruction) or not any(i.synchronises for i in walk(node.body)):
            continue
        counted = isinstance(node, Loop) and isinstance(node.start, int) and isinstance(node.stop, int)
        if not counted or not _is_counted(node.body):
            return False
    return True


def _meetings(body: list[Node]) -> Iterator[Instruction]:
    """The instructions that wait for other cores, in the order of a run."""
    for node in body:
        if isinstance(node, Instruction):
            if node.synchronises:
                yield node
        elif isinstance(node, Loop) and any(i.synchronises for i in walk(node.body)):
            assert isinstance(node.start, int) and isinstance(node.stop, int)
            for _ in range(node.start, node.stop, node.step):
                yield from _meetings(node.body)


def _shared(program: Program) -> list[Storage]:
    """The storages of `program` that its cores have in common, in order of allocation."""
    return [s for s in program.storages if s.region is MemoryRegion.shared_hbm]


def share_hbm(machines: Sequence[Machine]) -> None:
    """Make the shared HBM of all `machines` the bytes of the first.

    Raises:
        NkiError: NKI-H022, they allocate different shared tensors.
    """
    program = machines[0].program
    for number, machine in enumerate(machines[1:], 1):
        for a, b in _check_shared(program, machine.program, number):
            machine.memory.share(b, machines[0].memory.hbm[a.index])


def _check_shared(one: Program, another: Program, number: int) -> list[tuple[Storage, Storage]]:
    """The tensors that core 0 and core `number` share, in pairs.

    Raises:
        NkiError: NKI-H022, they allocate different ones.
    """
    first, other = _shared(one), _shared(another)
    pairs = []
    for k in range(max(len(first), len(other))):
        a, b = (storages[k] if k < len(storages) else None for storages in (first, other))
        if a is None or b is None or (a.shape, a.dtype) != (b.shape, b.dtype):
            raise _differing(k, a, b, number)
        pairs.append((a, b))
    return pairs


def _differing(k: int, a: Storage | None, b: Storage | None, number: int) -> NkiError:
    def said(storage: Storage | None) -> str:
        return "nothing" if storage is None else f"{storage.dtype}{list(storage.shape)}"

    places = [s.stack[-1].span for s in (a, b) if s is not None and s.stack]
    return NkiError(
        [
            Diagnostic(
                "NKI-H022",
                f"shared tensor {k} is {said(a)} on core 0 and {said(b)} on core {number}",
                span=places[0] if places else None,
                help="allocate the same nl.shared_hbm tensors on every core, whatever nl.program_id is",
                labels=tuple(Label(place, "the other core's allocation") for place in places[1:]),
            )
        ]
    )


def _run(cores: list[_Core], meetings: Sequence[Callable[..., None]] = ()) -> None:
    for core in cores:
        core.advance()
    while not all(core.ended for core in cores):
        ready = _ready(cores)
        if not ready:
            raise _deadlock(cores)
        for meet in meetings:
            meet([(core.number, core.waiting) for core in ready if core.waiting is not None])
        if all(core.machine is not None for core in ready):
            _carry_out(ready)
        for core in ready:
            core.advance()


def _ready(cores: list[_Core]) -> list[_Core]:
    """The cores of the first meeting for which all have arrived; empty if there is none."""
    for core in cores:
        asked = _partners(core)
        group = [c for c in cores if c.number in asked]
        if len(group) == len(asked) and all(_partners(c) == asked and _agree(core, c) for c in group):
            return group
    return []


def _partners(core: _Core) -> frozenset[int]:
    """The cores a waiting core has to meet, itself included."""
    waiting = core.waiting
    if isinstance(waiting, core_barrier):
        return frozenset(waiting.cores) | {core.number}
    if isinstance(waiting, sendrecv):
        return frozenset((waiting.send_to_rank, waiting.recv_from_rank, core.number))
    return frozenset()


def _agree(a: _Core, b: _Core) -> bool:
    """True if two waiting cores mean the same meeting."""
    first, second = a.waiting, b.waiting
    if isinstance(first, sendrecv) and isinstance(second, sendrecv):
        return first.pipe_id == second.pipe_id and _fits(first, second)
    return type(first) is type(second)


def _fits(a: sendrecv, b: sendrecv) -> bool:
    return (a.src.shape, a.src.dtype) == (b.src.shape, b.src.dtype)


def _carry_out(group: list[_Core]) -> None:
    """Move the data of a meeting; a barrier has none."""
    sent = {
        core.number: np.array(core.machine.memory.bind(core.waiting.src))
        for core in group
        if isinstance(core.waiting, sendrecv)
    }
    for core in group:
        if isinstance(core.waiting, sendrecv):
            core.machine.memory.bind(core.waiting.dst)[...] = sent[core.waiting.recv_from_rank]


def _deadlock(cores: list[_Core]) -> NkiError:
    """Each core waits for one that will not come: say what every one of them was doing."""
    stuck = [core for core in cores if core.waiting is not None]
    doing = "; ".join(f"core {core.number} {_said(core)}" for core in cores)
    places = [_place(core.waiting) for core in stuck]
    labels = [
        Label(place, f"core {core.number} waits here")
        for core, place in zip(stuck[1:], places[1:], strict=True)
        if place is not None
    ]
    waiting = stuck[0].waiting
    return NkiError(
        [
            Diagnostic(
                "NKI-H020",
                f"the cores wait for each other without end: {doing}",
                span=places[0],
                help="let every core reach the same barriers and sendrecvs, in the same order, "
                "with the same pipe_id, shape and dtype, whatever nl.program_id is",
                labels=tuple(labels),
                stack=waiting.stack if waiting is not None else (),
            )
        ]
    )


def _said(core: _Core) -> str:
    waiting = core.waiting
    if isinstance(waiting, core_barrier):
        return f"is in core_barrier(cores={waiting.cores})"
    if isinstance(waiting, sendrecv):
        return (
            f"is in sendrecv(send_to_rank={waiting.send_to_rank}, recv_from_rank={waiting.recv_from_rank}, "
            f"pipe_id={waiting.pipe_id}) of {waiting.src.dtype}{list(waiting.src.shape)}"
        )
    return "has ended"


def _place(instruction: Instruction | None) -> Span | None:
    return instruction.stack[-1].span if instruction is not None and instruction.stack else None
