"""What a worker holds of a launch: some of its ranks, which run from meeting to meeting as they are told.

Ranks of one worker meet here. What meets ranks of another worker is carried out by
:mod:`nki_sim.workers.launch`, which tells each worker what to send, what it receives and what goes on.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

from nki_isa.diagnostics import NkiError
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Program
from nki_isa.machine.target import Target
from nki_sim.cores.core_times import CoreTimes
from nki_sim.cores.device import Rank, RunningCore, at_work, load, results_of, settle
from nki_sim.execution.memory import Array
from nki_sim.execution.result import ExecutionResult
from nki_sim.observe import Listener, finish
from nki_sim.placement.place import Placement
from nki_sim.sanitize import CheckedRanks
from nki_sim.timing.mechanisms import without


@dataclass(frozen=True)
class How:
    """How the ranks of a launch run.

    Attributes:
        target: the machine.
        timed: True if their times are wanted.
        lacking: mechanisms that take no time, of :data:`nki_sim.timing.mechanisms.MECHANISMS`.
        checks, strict, sentinels: as for :func:`nki_sim.sanitize.execute_ranks_checked`.
    """

    target: Target
    timed: bool
    lacking: frozenset[str]
    checks: frozenset[str]
    strict: bool
    sentinels: bool


@dataclass(frozen=True)
class Part:
    """The ranks that one worker holds.

    Attributes:
        first: the number of the first of them.
        world: how many ranks the launch has.
        ranks: what each runs, on its inputs.
        placements: where the tensors of each core are, rank after rank.
    """

    first: int
    world: int
    ranks: tuple[Rank, ...]
    placements: tuple[Placement, ...]
    how: How


#: Where a core has come to: its place among those of the worker, the number of the instruction it waits in
#: among those of its Program in which cores meet (None at its end), and when it could start.
Arrival = tuple[int, int | None, float]


def meetings_of(program: Program) -> list[Instruction]:
    """The instructions of a Program in which cores meet, in order."""
    return [instruction for instruction in program.walk() if instruction.synchronises]


def _parts(program: Program) -> list[Any]:
    """What both ends have of a Program: it goes by its number."""
    return [*program.storages, *program.walk()]


def packed(instruction: Instruction, program: Program) -> bytes:
    """An instruction that is none of `program`, but of its tensors."""
    numbers = {id(part): number for number, part in enumerate(_parts(program))}
    file = io.BytesIO()
    pickler = pickle.Pickler(file)
    pickler.persistent_id = lambda part: numbers.get(id(part))  # type: ignore[method-assign]
    pickler.dump(instruction)
    return file.getvalue()


def unpacked(octets: bytes, program: Program) -> Instruction:
    """What :func:`packed` was given, of the tensors of this copy of its Program."""
    unpickler = pickle.Unpickler(io.BytesIO(octets))
    unpickler.persistent_load = _parts(program).__getitem__  # type: ignore[method-assign]
    found: Instruction = unpickler.load()
    return found


class Shard:
    """The ranks of a :class:`Part`, in a worker.

    An order is a method's name and its arguments; a worker that is given the same orders again comes to the
    same state.
    """

    _part: Part
    _checked: CheckedRanks

    def __init__(self) -> None:
        self._cores: list[RunningCore] = []
        self._listeners: list[Listener] = []
        self._results: list[ExecutionResult] = []  # of the first run, when it is over
        self._times: CoreTimes | None = None
        self._arrived: dict[int, Any] = {}
        self._judging: _Judging | None = None
        self._number: dict[int, int] = {}

    def do(self, orders: bytes) -> bytes:
        """Carry out orders; gives the answer to each, or what the first that failed raised."""
        try:
            with at_work():
                answers = [getattr(self, name)(*arguments) for name, *arguments in pickle.loads(orders)]
            return pickle.dumps(answers)
        except Exception as raised:  # goes on in the process that launched
            with contextlib.suppress(Exception):
                return pickle.dumps(raised)
            return pickle.dumps(RuntimeError(repr(raised)))

    def load(self, part: Part) -> None:
        """Hold these ranks."""
        how = part.how
        self._part = part
        self._checked = CheckedRanks(part.ranks, how.checks, strict=how.strict, sentinels=how.sentinels)
        programs = {id(program): program for rank in part.ranks for program in rank.programs}
        for program in programs.values():
            self._number.update({id(met): number for number, met in enumerate(meetings_of(program))})

    # --- a run

    def begin(self) -> None:
        """Make the cores anew."""
        part = self._part
        followers = self._judging.followers if self._judging else {}
        self._ranks = self._checked.followed(followers if self._results else None)
        self._times = None
        if part.how.timed and not self._results:
            machine = without(part.how.target, part.how.lacking)
            self._times = CoreTimes(machine, part.placements, len(part.ranks[0].programs))
        self._listeners = [self._times] if self._times else []
        self._cores, self._meetings = load(self._ranks, self._listeners, first=part.first, world=part.world)

    def go(self, places: Sequence[int]) -> list[Arrival]:
        """Let these cores run, and all they meet here; says where those that moved have come to."""
        moved: dict[int, RunningCore] = {}

        def advance(cores: Sequence[RunningCore]) -> None:
            for core in cores:
                core.advance()
                moved[id(core)] = core

        try:
            settle(self._cores, [self._cores[k] for k in places], self._meetings, advance)
        except NkiError as refused:
            raise (refused if self._results else self._checked.refused(refused)) from None
        return [self._arrival(k, core) for k, core in enumerate(self._cores) if id(core) in moved]

    def _arrival(self, place: int, core: RunningCore) -> Arrival:
        if core.waiting is None:
            return place, None, 0.0
        start = 0.0
        here = range(self._part.first, self._part.first + len(self._part.ranks))
        if self._times and any(rank not in here for rank, _ in core.meeting.partners(core.seat)):
            self._arrived[place] = self._times.boards[place].arrive(core.waiting)
            start = self._arrived[place].start
        return place, self._number[id(core.waiting)], start

    def meet(self, places: Sequence[int]) -> None:
        """These cores meet others: tell what follows their ranks."""
        _, *of_ranks = self._meetings
        for told in of_ranks:
            told([self._cores[place] for place in places])

    def tell(self, place: int, instruction: bytes | None) -> None:
        """A core does its part of the collective it waits in: that, or what it uses of it."""
        core = self._cores[place]
        core.tell(core.meeting if instruction is None else unpacked(instruction, core.machine.program))

    def sent(self, place: int) -> list[Array]:
        """What it reads in it."""
        return self._cores[place].sent()()

    def put(self, place: int, received: Sequence[Array | None]) -> None:
        """What it receives."""
        self._cores[place].put(received)

    def depart(self, place: int, *arguments: Any) -> None:
        """When its part starts; as :meth:`nki_sim.timing.scoreboard.Scoreboard.depart`."""
        if self._times:
            self._times.boards[place].depart(self._arrived.pop(place), *arguments)

    def end(self) -> tuple[list[ExecutionResult], list[Any]]:
        """What each rank gave and, of each core, its timeline with numbers for instructions.

        Raises:
            NkiError: what follows the ranks refuses at the end.
        """
        try:
            finish([*self._listeners, *(one for rank in self._ranks for one in rank.listeners)])
        except NkiError as refused:
            raise self._checked.refused(refused) from None
        self._results = results_of(self._cores)
        timelines: list[Any] = []
        for core, timeline in zip(self._cores, self._times.timelines() if self._times else ()):
            numbers = {id(i): number for number, i in enumerate(core.machine.program.walk())}
            numbered: Any = [numbers[id(i)] for i in timeline.instructions]
            timelines.append(replace(timeline, instructions=numbered))
        return self._results, timelines

    # --- what the checks say

    def judge(self) -> Any:
        """Let the checks judge; gives what they say, or None where they want all ranks to run again."""
        self._judging = _Judging(self._checked, self._results)
        return self._judging.wait()

    def resume(self, failed: Exception | None) -> Any:
        """The other run that they wanted is over; as :meth:`judge`."""
        assert self._judging is not None
        if failed is None:
            try:
                finish([one for rank in self._ranks for one in rank.listeners])
            except NkiError as refused:
                failed = refused
        return self._judging.resume(failed or results_of(self._cores))


class _Judging:
    """Checks that judge in a thread of their own, which waits while all ranks run again.

    Attributes:
        followers: what follows each rank in the run that is wanted.
    """

    def __init__(self, checked: CheckedRanks, results: list[ExecutionResult]):
        self.followers: dict[int, Sequence[Listener]] = {}
        self._told: SimpleQueue[Any] = SimpleQueue()
        self._ran: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._judge, args=(checked, results), daemon=True).start()

    def _judge(self, checked: CheckedRanks, results: list[ExecutionResult]) -> None:
        try:
            with at_work():
                self._told.put(checked.judge(results, self._again))
        except Exception as raised:  # raised where it is waited for
            self._told.put(raised)

    def _again(self, number: int, followers: Sequence[Listener]) -> ExecutionResult:
        self.followers = {number: followers}
        self._told.put(None)
        ran = self._ran.get()
        if isinstance(ran, Exception):
            raise ran
        result: ExecutionResult = ran[number]
        return result

    def resume(self, ran: Any) -> Any:
        """Give the checks what the run gave, or raised; what they say then."""
        self.followers = {}
        self._ran.put(ran)
        return self.wait()

    def wait(self) -> Any:
        """What the checks say, once they do."""
        told = self._told.get()
        if isinstance(told, Exception):
            raise told
        return told


__all__ = ["Arrival", "How", "Part", "Shard", "meetings_of"]
