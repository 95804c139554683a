"""A launch over ranks on the workers of a cluster.

Each worker holds consecutive ranks (:mod:`nki_sim.workers.shard`). Here are cores that stand for theirs: the
loop of :mod:`nki_sim.cores.device` finds who meets, as in one process, and what it asks of these cores are
orders to their workers. Tensors move when ranks of several workers meet, and at the start and the end.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nki_isa.diagnostics import Diagnostic, NkiError, error
from nki_isa.ir.instruction import Instruction
from nki_sim.cores.core_times import CoreTimes
from nki_sim.cores.device import Rank, RunningCore, check_ranks, meet_of_all, run
from nki_sim.execution.memory import Array
from nki_sim.execution.result import ExecutionResult
from nki_sim.placement.place import Placement
from nki_sim.timing.scoreboard import Timeline
from nki_sim.workers.clusters import Answer, Cluster, Lost, RemoteShard
from nki_sim.workers.shard import How, Part, meetings_of, packed

_LOST = "NKI-L058"


def execute_on(
    cluster: Cluster,
    ranks: Sequence[Rank],
    placements: Sequence[Sequence[Placement]],
    how: How,
    restarts: int = 0,
) -> tuple[list[ExecutionResult], list[Timeline], tuple[Diagnostic, ...]]:
    """Run and check `ranks` on the workers of `cluster`.

    Args:
        placements: of the cores of each rank.
        restarts: how often a lost worker is replaced: its ranks run again to their last meeting, from
            what they received, and the launch goes on.

    Returns:
        The results, the timelines of all cores, rank after rank, if they are timed, and what the checks
        found below an error: what one process gives.

    Raises:
        NkiError: as :func:`nki_sim.sanitize.execute_ranks_checked`; NKI-L058, a worker was lost.
    """
    check_ranks([rank.programs for rank in ranks])
    team = _Team(cluster, restarts)
    try:
        team.hold(ranks, placements, how)
        team.run(timed=how.timed)
        ends = team.ask("end")
        remarks = [one for shard in team.shards for one in team.judged(shard)]
    finally:
        for shard in team.shards:
            shard.held.release()
    results = [result for given, _ in ends for result in given]
    timelines = [timeline for _, given in ends for timeline in given]
    programs = [program for rank in ranks for program in rank.programs]
    return results, _with_instructions(timelines, programs), tuple(dict.fromkeys(remarks))


def _with_instructions(timelines: Sequence[Timeline], programs: Sequence[Any]) -> list[Timeline]:
    """Timelines with the instructions of these Programs in the place of their numbers."""
    walked = {id(program): list(program.walk()) for program in programs}
    found = []
    for timeline, program in zip(timelines, programs):
        numbers: list[Any] = list(timeline.instructions)
        found.append(replace(timeline, instructions=[walked[id(program)][k] for k in numbers]))
    return found


@dataclass
class _Shard:
    """The ranks of one worker, as they are known here.

    Attributes:
        name: which they are.
        held: where they are.
        cores: stand for theirs.
        orders: that it is still to be given, with where the answers go.
        given: all that it was given, to be given to another in its place.
    """

    name: str
    held: RemoteShard
    cores: list[_Remote] = field(default_factory=list)
    orders: list[tuple[tuple[Any, ...], list[Any]]] = field(default_factory=list)
    given: list[bytes] = field(default_factory=list)

    def order(self, *order: Any) -> list[Any]:
        """Give it an order with the next ones that are sent; the answer comes into the list."""
        answer: list[Any] = []
        self.orders.append((order, answer))
        return answer


@dataclass(slots=True, eq=False)
class _Remote(RunningCore):
    """A core in a worker; its machine is the worker's.

    Attributes:
        place: its own among the cores of the worker.
        program: what it runs.
        met: the instructions it can wait in.
        start: when it could start what it waits in.
        send: sends all workers their orders.
    """

    place: int = 0
    program: Any = None
    met: Sequence[Any] = ()
    start: float = 0.0
    send: Callable[[], None] = lambda: None

    def tell(self, instruction: Instruction) -> None:
        """See :class:`~nki_sim.cores.device.RunningCore`."""
        used = None if instruction is self.waiting else packed(instruction, self.program)
        self.machine.order("tell", self.place, used)

    def sent(self) -> Callable[[], list[Array]]:
        """See :class:`RunningCore`; all workers are asked when the first answer is wanted."""
        answer = self.machine.order("sent", self.place)

        def wait() -> list[Array]:
            if not answer:
                self.send()
            arrays: list[Array] = answer[0]
            return arrays

        return wait

    def put(self, received: Sequence[Array | None]) -> None:
        """See :class:`~nki_sim.cores.device.RunningCore`."""
        self.machine.order("put", self.place, received)


class _Board:
    """Stands for the scoreboard of a core in a worker."""

    def __init__(self, core: _Remote):
        self._core = core

    def arrive(self, instruction: Instruction) -> _Remote:
        """See :class:`~nki_sim.timing.scoreboard.Scoreboard`: the core knows when it could start."""
        return self._core

    def depart(self, arrival: _Remote, *arguments: Any) -> None:
        """See :class:`~nki_sim.timing.scoreboard.Scoreboard`."""
        arrival.machine.order("depart", arrival.place, *arguments)


class _Times(CoreTimes):
    """The times of cores in workers: each keeps its own, here they agree when a meeting starts."""

    def __init__(self, cores: Sequence[Any]):
        boards: list[Any] = [_Board(core) for core in cores]
        self.boards = boards


class _Team:
    """The workers of a launch."""

    def __init__(self, cluster: Cluster, restarts: int):
        self._cluster, self._restarts = cluster, restarts
        self.shards: list[_Shard] = []
        self._cores: list[RunningCore] = []

    def hold(self, ranks: Sequence[Rank], placements: Sequence[Sequence[Placement]], how: How) -> None:
        """Give each worker ranks that follow one another, as many as others."""
        workers = self._cluster.workers()
        if not workers:
            help = "start some: dask worker tcp://HOST:8786"
            raise error(_LOST, "the cluster has no worker", help=help)
        for worker, numbers in zip(workers, np.array_split(range(len(ranks)), min(len(workers), len(ranks)))):
            first, last = int(numbers[0]), int(numbers[-1]) + 1
            name = f"rank {first}"
            if last > first + 1:
                name = f"ranks {first} {'and' if last == first + 2 else 'to'} {last - 1}"
            try:
                shard = _Shard(name, self._cluster.hold(worker))
            except Lost as lost:
                raise _lost(name, worker, lost) from None
            placed = tuple(one for rank in placements[first:last] for one in rank)
            shard.order("load", Part(first, len(ranks), tuple(ranks[first:last]), placed, how))
            for number, rank in enumerate(ranks[first:last], first):
                for k, program in enumerate(rank.programs):
                    core = _Remote(k, shard, iter(()), number, len(ranks), len(rank.programs))
                    core.place, core.send = len(shard.cores), self.send
                    core.program, core.met = program, meetings_of(program)
                    shard.cores.append(core)
            self.shards.append(shard)
            self._cores += shard.cores

    def run(self, *, timed: bool = False) -> None:
        """Let all ranks run to their ends."""
        for shard in self.shards:
            shard.order("begin")
        times = [meet_of_all(self._cores, [_Times(self._cores)])] if timed else []
        run(self._cores, [*times, self._meet], self._go)

    def _meet(self, group: Sequence[RunningCore]) -> None:
        for shard in self.shards:
            places = [core.place for core in shard.cores if core in group]
            if places:
                shard.order("meet", places)

    def _go(self, cores: Sequence[RunningCore]) -> None:
        answers = [
            (shard, shard.order("go", places))
            for shard in self.shards
            if (places := [core.place for core in shard.cores if core in cores])
        ]
        self.send()
        for shard, (arrivals,) in answers:
            for place, number, start in arrivals:
                core = shard.cores[place]
                core.waiting = None if number is None else core.met[number]
                core.ended, core.start = number is None, start

    def judged(self, shard: _Shard) -> tuple[Diagnostic, ...]:
        """What the checks of a worker say; all ranks run again as often as these want it."""
        answer = shard.order("judge")
        self.send()
        while answer[0] is None:
            failed = None
            try:
                self.run()
            except Exception as raised:  # for the checks to judge
                if isinstance(raised, NkiError) and raised.diagnostics[0].code == _LOST:
                    raise
                failed = raised
            answer = shard.order("resume", failed)
            self.send()
        remarks: tuple[Diagnostic, ...] = answer[0]
        return remarks

    def ask(self, *order: Any) -> list[Any]:
        """The answers of all workers to an order."""
        answers = [shard.order(*order) for shard in self.shards]
        self.send()
        return [answer[0] for answer in answers]

    def send(self) -> None:
        """Give all workers their orders, at once, and wait for the answers.

        Raises:
            NkiError: what any of them raised, or NKI-L058.
        """
        asked = []
        for shard in self.shards:
            if shard.orders:
                octets = pickle.dumps([order for order, _ in shard.orders])
                asked.append(
                    (shard, octets, _ask(shard.held, octets), [answer for _, answer in shard.orders])
                )
                shard.orders = []
        raised: list[Exception] = []
        for shard, octets, ask, answers in asked:
            given = pickle.loads(self._answer(shard, octets, ask))
            if isinstance(given, Exception):
                raised.append(given)
                continue
            for answer, one in zip(answers, given, strict=True):
                answer.append(one)
        if len(raised) > 1 and all(isinstance(one, NkiError) for one in raised):
            found = [d for one in raised if isinstance(one, NkiError) for d in one.diagnostics]
            raise NkiError(dict.fromkeys(found))
        if raised:
            raise raised[0]

    def _answer(self, shard: _Shard, octets: bytes, ask: Answer) -> bytes:
        """What a worker answers, or another in its place that was given all that it was given."""
        while True:
            try:
                answer = ask()
                break
            except Lost as lost:
                self._replace(shard, lost)
                ask = _ask(shard.held, octets)
        if self._restarts:
            shard.given.append(octets)
        return answer

    def _replace(self, shard: _Shard, lost: Lost) -> None:
        """Hold the ranks of a lost worker in another one, which comes to where that was."""
        while self._restarts:
            self._restarts -= 1
            there = [worker for worker in self._cluster.workers() if worker != shard.held.where]
            if not there:
                break
            taken = [other.held.where for other in self.shards]
            idle = next((worker for worker in there if worker not in taken), there[0])
            shard.held.release()
            try:
                shard.held = self._cluster.hold(idle)
                for octets in shard.given:
                    shard.held.do(octets)()
                return
            except Lost as again:
                lost = again
        waiting = next((core.waiting for core in shard.cores if core.waiting is not None), None)
        raise _lost(shard.name, shard.held.where, lost, waiting)


def _ask(held: RemoteShard, octets: bytes) -> Answer:
    """What asks for the answer to orders that were given; a worker that could not be given them is lost."""
    try:
        return held.do(octets)
    except Lost as lost:
        gone = lost

    def ask() -> bytes:
        raise gone

    return ask


def _lost(ranks: str, where: Any, lost: Lost, waiting: Instruction | None = None) -> NkiError:
    """NKI-L058 for ranks whose worker is gone, with the meeting that they had come to."""
    place = waiting.stack[-1].span if waiting is not None and waiting.stack else None
    verb = "is" if ranks.startswith("rank ") else "are"
    return error(
        _LOST,
        f"{ranks} of the launch {verb} lost: the worker {where} is gone",
        span=place,
        help="start a worker in its place and launch again, or let lost ranks be run again: "
        "nki.runtime.session(workers=..., restarts=1)",
        notes=((f"last met in {waiting.opcode}",) if waiting is not None else ()) + (str(lost),),
    )


__all__ = ["execute_on"]
