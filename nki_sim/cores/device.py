"""Runs one kernel on the physical cores of a logical core, or on those of many ranks.

Every core is a coroutine: it runs until it has to wait for another one, in a
:class:`~nki_isa.ops.meeting.Meeting`, and goes on when all that it waits for
have arrived. Cores run in order of their number between two meetings, so a run is
deterministic; a meeting that cannot happen is an error that names what every core
was doing.

The cores of a rank share HBM: the k-th shared tensor one core allocates is the k-th
of all others. Ranks share nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import Diagnostic, Label, NkiError, Span, span_of
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program, walk
from nki_isa.machine.target import Target
from nki_isa.ops.meeting import Grouped, Meeting, Seat
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_sim import process
from nki_sim.execution.machine import Machine
from nki_sim.execution.memory import ZEROS, Addresses
from nki_sim.execution.result import ExecutionResult, written_inputs
from nki_sim.execution.skipping import Skipped
from nki_sim.observe import Listener, finish, hooks

Array = NDArray[Any]


@dataclass(slots=True, eq=False)
class RunningCore:
    """A core in a run.

    Attributes:
        number: its number in its rank.
        machine: its machine; None without data.
        running: its coroutine.
        rank: its rank.
        world: how many ranks there are.
        cores: how many cores each has.
        waiting: what it waits in, if anything.
    """

    number: int
    machine: Any
    running: Iterator[Meeting]
    rank: int = 0
    world: int = 1
    cores: int = 1
    waiting: Meeting | None = None
    ended: bool = False

    @property
    def seat(self) -> Seat:
        """Where it is among the cores of the launch."""
        return Seat(self.rank, self.number, self.world, self.cores)

    def advance(self) -> None:
        """Run to the next meeting or to the end."""
        self.waiting = next(self.running, None)
        self.ended = self.waiting is None

    def tell(self, instruction: Instruction) -> None:
        """Tell what follows the core that it is about to do its part of a collective."""
        self.machine.tell(instruction)

    def sent(self) -> Callable[[], list[Array]]:
        """What it reads in the collective it waits in, when it is asked for: a copy."""
        waiting, bind = self.meeting, self.machine.memory.bind
        return lambda: [np.array(bind(tensor)) for tensor in waiting.reads]

    def put(self, received: Sequence[Array | None]) -> None:
        """Store what it receives in the collective it waits in; it keeps what is masked or None."""
        for tensor, values in zip(self.meeting.writes, received, strict=True):
            if isinstance(values, np.ma.MaskedArray):
                values = values.filled(self.machine.memory.bind(tensor))
            if values is not None:
                self.machine.put(tensor, values)

    @property
    def meeting(self) -> Meeting:
        """What it waits in."""
        assert self.waiting is not None
        return self.waiting

    @property
    def name(self) -> str:
        """As users call it."""
        if self.world == 1:
            return f"core {self.number}"
        return f"rank {self.rank}" + (f" core {self.number}" if self.cores > 1 else "")


#: Is told of a meeting: of the cores in it.
Meet = Callable[[Sequence[RunningCore]], None]
#: Lets cores run to their next meetings.
Go = Callable[[Sequence[RunningCore]], None]


def _advance(cores: Sequence[RunningCore]) -> None:
    for core in cores:
        core.advance()


@dataclass(frozen=True, slots=True)
class Rank:
    """What a rank runs: see :func:`execute_all`.

    Attributes:
        listeners: what follows this rank; for them it is all there is.
    """

    programs: Sequence[Program]
    placements: Sequence[Addresses]
    inputs: Sequence[Array]
    listeners: Sequence[Listener] = field(default=())


def execute(
    program: Program,
    placement: Addresses,
    inputs: Sequence[Array],
    *,
    listeners: Sequence[Listener] = (),
    fill: int = ZEROS,
) -> ExecutionResult:
    """Run `program` alone on one core; see :func:`execute_all`."""
    return execute_all([program], [placement], inputs, listeners=listeners, fill=fill)


def execute_all(
    programs: Sequence[Program],
    placements: Sequence[Addresses],
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
        fill: the byte of memory nothing has written, :data:`nki_sim.execution.memory.ZEROS` or ``NANS``.
        target: the machine, where it is not the one the Programs name.

    Returns:
        Outputs and updated inputs as core 0 sees them.

    Raises:
        NkiError: what an instruction refuses while it runs, with the user's stack; NKI-H020 for a
            meeting that cannot happen; NKI-H022 for cores whose shared tensors differ; what listeners find.
    """
    return execute_ranks([Rank(programs, placements, inputs, listeners)], fill=fill, target=target)[0]


def execute_ranks(
    ranks: Sequence[Rank],
    *,
    listeners: Sequence[Listener] = (),
    fill: int = ZEROS,
    target: Target | None = None,
) -> list[ExecutionResult]:
    """Run all `ranks`, which meet in collectives; as :func:`execute_all`, for each of them.

    Args:
        listeners: what follows the run; for them cores count through all ranks.

    Raises:
        NkiError: as :func:`execute_all`; NKI-U012 for a collective whose groups are not ranks of the launch.
    """
    check_ranks([rank.programs for rank in ranks])
    with at_work():
        cores, meetings = load(ranks, listeners, fill=fill, target=target)
        run(cores, meetings)
    finish([*listeners, *(one for rank in ranks for one in rank.listeners)])
    return results_of(cores)


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """How the process is set while machines run."""
    with process.one_thread(), process.no_collection(), process.arithmetic():
        yield


def load(
    ranks: Sequence[Rank],
    listeners: Sequence[Listener] = (),
    *,
    first: int = 0,
    world: int | None = None,
    fill: int = ZEROS,
    target: Target | None = None,
) -> tuple[list[RunningCore], list[Meet]]:
    """The cores of ranks, ready to run, and what is to be told of each meeting of theirs.

    Args:
        ranks, listeners, fill, target: as for :func:`execute_ranks`.
        first: the number of the first of them, where others run elsewhere.
        world: how many there are in all; None for these.
    """
    cores: list[RunningCore] = []
    for number, rank in enumerate(ranks, first):
        cores += _load(number, rank, world or len(ranks), fill, target)
    for start in hooks(listeners, "start"):
        start([core.machine for core in cores])
    for number, core in enumerate(cores):
        core.machine.listen((core.number, ranks[core.rank - first].listeners), (number, listeners))
    meetings: list[Meet] = [meet_of_all(cores, listeners)]
    meetings += [
        partial(_meet_of_rank, number, told)
        for number, rank in enumerate(ranks, first)
        if (told := hooks(rank.listeners, "meet"))
    ]
    return cores, meetings


def results_of(cores: Sequence[RunningCore]) -> list[ExecutionResult]:
    """What each rank gave, in order."""
    by_rank: dict[int, list[Any]] = {}
    for core in cores:
        by_rank.setdefault(core.rank, []).append(core.machine)
    return [replace(machines[0].result(), skipped=_skipped(machines)) for machines in by_rank.values()]


def meet_all(ranks: Sequence[Sequence[Iterator[Meeting]]], *meet: Callable[..., None]) -> None:
    """Let coroutines, one for each core of each rank, run without data; `meet` is told of their meetings.

    Raises:
        NkiError: NKI-H020 for a meeting that cannot happen.
    """
    cores = [
        RunningCore(k, None, running, number, len(ranks), len(rank))
        for number, rank in enumerate(ranks)
        for k, running in enumerate(rank)
    ]
    numbers = {id(core): k for k, core in enumerate(cores)}
    run(cores, [partial(_meet_of_all, numbers, meet)])


def _load(number: int, rank: Rank, world: int, fill: int, target: Target | None) -> list[RunningCore]:
    """The cores of a rank with its inputs in their memories."""
    machines = [
        Machine(program, placement, fill=fill, target=target)
        for program, placement in zip(rank.programs, rank.placements, strict=True)
    ]
    machines[0].borrow(rank.inputs, written_inputs(*rank.programs))
    share_hbm(machines)
    for machine in machines:
        machine.state.rank = number
    for start in hooks(rank.listeners, "start"):
        start(machines)
    return [RunningCore(k, m, m.run(), number, world, len(machines)) for k, m in enumerate(machines)]


def meet_of_all(cores: Sequence[RunningCore], listeners: Sequence[Listener]) -> Meet:
    """What tells listeners of meetings; for them cores count through all of these."""
    numbers = {id(core): k for k, core in enumerate(cores)}
    return partial(_meet_of_all, numbers, hooks(listeners, "meet"))


def _meet_of_all(
    numbers: dict[int, int], told: Sequence[Callable[..., None]], group: Sequence[RunningCore]
) -> None:
    for meet in told:
        meet([(numbers[id(core)], core.waiting) for core in group])


def _meet_of_rank(rank: int, told: Sequence[Callable[..., None]], group: Sequence[RunningCore]) -> None:
    own = [(core.number, core.waiting) for core in group if core.rank == rank]
    if own:
        for meet in told:
            meet(own)


def check_ranks(ranks: Sequence[Sequence[Program]]) -> None:
    """Refuse what is known without data of ranks that run together.

    Args:
        ranks: the Programs of the cores of each rank.

    Raises:
        NkiError: NKI-U012, a group of a collective is not made of ranks of the launch; NKI-H020, ranks with
            Programs of their own wait for each other without end, as :func:`check_meetings`.
    """
    found: dict[Span | None, Diagnostic] = {}
    seen: dict[int, list[Any]] = {}
    for number, programs in enumerate(ranks):
        for program in programs:
            if id(program) not in seen:
                seen[id(program)] = [i for i in program.walk() if isinstance(i, Grouped)]
            for instruction in seen[id(program)]:
                strange = sorted({r for group in instruction.groups for r in group if r >= len(ranks)})
                if not strange and instruction.group_of(number):
                    continue
                place = _waits_at(instruction)
                found.setdefault(place, _not_a_rank(instruction, strange, number, len(ranks)))
    if found:
        raise NkiError(found.values())
    differ = any(programs[0] is not ranks[0][0] for programs in ranks)
    if differ and all(_is_counted(program.body) for programs in ranks for program in programs):
        meet_all([[_meetings(program.body) for program in programs] for programs in ranks])


def _not_a_rank(instruction: Any, strange: list[int], number: int, count: int) -> Diagnostic:
    launched = "one rank" if count == 1 else f"{count} ranks"
    needed = 1 + max(rank for group in instruction.groups for rank in group)
    return Diagnostic(
        "NKI-U012",
        f"{instruction.opcode}: its groups are {', '.join(map(str, instruction.groups))}, and the launch has "
        + (f"{launched}, 0 to {count - 1}" if strange and count > 1 else launched)
        + ("" if strange else f"; rank {number} is in none of them"),
        span=_waits_at(instruction),
        help=f"launch it on {needed} ranks: nki.simulate(kernel, ranks={needed})(inputs_of_each_rank)"
        if strange
        else "put every rank of the launch in a group",
        stack=instruction.stack,
    )


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
        count = len(programs)
        run([RunningCore(k, None, _meetings(p.body), cores=count) for k, p in enumerate(programs)])


def _is_counted(body: list[Node]) -> bool:
    """True if no loop with meetings has a number of turns that is known at run time only."""
    for node in body:
        if isinstance(node, Instruction) or not any(i.synchronises for i in walk(node.body)):
            continue
        counted = isinstance(node, Loop) and isinstance(node.start, int) and isinstance(node.stop, int)
        if not counted or not _is_counted(node.body):
            return False
    return True


def _meetings(body: list[Node]) -> Iterator[Meeting]:
    """The instructions that wait for other cores, in the order of a run."""
    for node in body:
        if isinstance(node, Instruction):
            if isinstance(node, Meeting):
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


def run(cores: list[RunningCore], meetings: Sequence[Meet] = (), go: Go = _advance) -> None:
    """Let all `cores` run to their ends.

    Args:
        meetings: are told of each meeting.
        go: lets some of them run to their next meetings.

    Raises:
        NkiError: NKI-H020 for a meeting that cannot happen.
    """
    settle(cores, cores, meetings, go)
    if not all(core.ended for core in cores):
        raise _deadlock(cores)


def settle(
    cores: list[RunningCore], going: Sequence[RunningCore], meetings: Sequence[Meet] = (), go: Go = _advance
) -> None:
    """Let `going`, and those of `cores` they meet, run until no meeting is left for which all are there."""
    while going:
        go(going)
        met: list[RunningCore] = []
        while group := _ready([core for core in cores if core not in met]):
            for meet in meetings:
                meet(group)
            if all(core.machine is not None for core in group):
                _carry_out(group)
            met += group
        going = met


def _ready(cores: list[RunningCore]) -> list[RunningCore]:
    """The cores of the first meeting for which all have arrived; empty if there is none."""
    for core in cores:
        if core.waiting is None:
            continue
        asked = core.waiting.partners(core.seat)
        group = [c for c in cores if (c.rank, c.number) in asked]
        if len(group) == len(asked) and all(_meets(core, c, asked) for c in group):
            return group
    return []


def _meets(core: RunningCore, other: RunningCore, asked: frozenset[tuple[int, int]]) -> bool:
    """True if `other` has arrived where `core` waits for those `asked`."""
    if other.waiting is None or other.waiting.partners(other.seat) != asked:
        return False
    return core.waiting is other.waiting or core.meeting.agrees(other.waiting)


def _carry_out(group: list[RunningCore]) -> None:
    """Move the data of a meeting: everything is read before it is written."""
    meeting = group[0].meeting
    lines = [[group[k] for k in line] for line in meeting.lines([core.seat for core in group])]
    received: list[tuple[RunningCore, list[Array | None]]] = []
    try:
        for line in lines if meeting.listened_together else ():
            sent, ranks = _sent(line) if meeting.partial else [], [core.rank for core in line]
            for place, core in enumerate(line):
                core.tell(core.meeting.used(place, ranks, sent))
        for line in lines:
            calls = [core.meeting for core in line]
            given = meeting.deliver([core.seat for core in line], calls, _sent(line))
            received += zip(line, given, strict=True)
        for core, arrays in received:
            core.put(arrays)
    except NkiError as found:
        raise found.at(_waits_at(meeting), meeting.stack) from None


def _sent(line: Sequence[RunningCore]) -> list[list[Array]]:
    """What each core of a line reads; all are asked before the first has to answer."""
    return [answer() for answer in [core.sent() for core in line]]


def _deadlock(cores: list[RunningCore]) -> NkiError:
    """Each core waits for one that will not come: say what every one of them was doing."""
    stuck = [core for core in cores if core.waiting is not None]
    places = [_waits_at(core.waiting) for core in stuck]
    who, doing = "cores", "; ".join(f"{core.name} {_said(core)}" for core in cores)
    told = list(zip(stuck[1:], places[1:], strict=True))
    if cores[0].world > 1:
        who, doing = "ranks", _by_doing(cores)
        told = list({place: (core, place) for core, place in told if place != places[0]}.values())
    labels = [Label(place, f"{core.name} waits here") for core, place in told if place is not None]
    waiting = stuck[0].waiting
    return NkiError(
        [
            Diagnostic(
                "NKI-H020",
                f"the {who} wait for each other without end: {doing}",
                span=places[0],
                help="let every core reach the same barriers and sendrecvs, in the same order, "
                "with the same pipe_id, shape and dtype, whatever nl.program_id is"
                if who == "cores"
                else "let every rank of a group, and every core of it, reach the same collectives in the "
                "same order, with the same groups, shapes and data types",
                labels=tuple(labels),
                stack=waiting.stack if waiting is not None else (),
            )
        ]
    )


def _by_doing(cores: list[RunningCore]) -> str:
    """What ranks do, those that do the same together."""
    found: dict[str, list[str]] = {}
    for core in cores:
        found.setdefault(_said(core), []).append(core.name)
    parts = []
    for said, names in found.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        parts.append(f"{shown} {said}" if len(names) == 1 else f"{shown} each {said}")
    return "; ".join(parts)


def _said(core: RunningCore) -> str:
    return "has ended" if core.waiting is None else f"is in {core.waiting.said()}"


def _waits_at(instruction: Instruction | None) -> Span | None:
    return span_of(instruction.stack) if instruction is not None else None
