"""Times the cores of one launch together: a scoreboard each, waiting for each other where they meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program, While
from nki_isa.machine.target import Target
from nki_isa.machine.targets import as_target
from nki_isa.ops.meeting import Meeting
from nki_isa.tensor.storage import VirtualRegister
from nki_sim import process
from nki_sim.cores.device import meet_all
from nki_sim.observe import Listener
from nki_sim.timing.plans import RegisterValues
from nki_sim.timing.scoreboard import Placed, Scoreboard, Timeline


class CoreTimes(Listener):
    """The scoreboards of the cores of one launch; as a listener, of one that runs.

    Args:
        target: the generation.
        placements: where each core's on-chip tensors live; None takes all of them to be apart.
        cores: cores of a rank, which share the bandwidth of their HBM; all of them if there is one rank.
    """

    needs_values = False

    def __init__(self, target: Target, placements: Sequence[Placed | None], cores: int | None = None):
        count = cores or len(placements)
        self.boards = [Scoreboard(target, placement, count) for placement in placements]

    def before(self, core: int, instruction: Instruction, registers: RegisterValues) -> None:
        """Issue an instruction that does not wait for another core."""
        if not instruction.synchronises:
            self.boards[core].issue(instruction, registers)

    def meet(self, group: Sequence[tuple[int, Meeting]]) -> None:
        """The cores of `group` start the instructions they meet in when the last of them has arrived."""
        arrivals = [(self.boards[core], self.boards[core].arrive(instruction)) for core, instruction in group]
        latest = max(arrival.start for _, arrival in arrivals)
        for board, arrival in arrivals:
            board.depart(arrival, latest)

    def timelines(self) -> list[Timeline]:
        """The timeline of each core."""
        return [board.finish() for board in self.boards]


def simulate(program: Program, placement: Placed | None = None, *, trips: int | None = None) -> Timeline:
    """Time a program on one core without running it; see :func:`simulate_all`."""
    return simulate_all([program], [placement], trips=trips)[0]


def simulate_all(
    programs: Sequence[Program],
    placements: Sequence[Placed | None],
    *,
    trips: int | None = None,
    target: Target | None = None,
) -> list[Timeline]:
    """Time the programs of the cores of a launch without running them.

    Loops whose bounds are known run all their turns. Where only data can tell how often
    a loop runs, a note says for how many turns it is timed. The cores meet in order: the
    k-th meeting of one is the k-th of all.

    Args:
        programs: the kernel specialized for each core, for the target they name.
        placements: where each core's on-chip tensors live; None takes all of them to be apart.
        trips: turns of each loop that only data bound; None takes one and the note says how to ask for more.
        target: the machine, where it is not the one the Programs name.
    """
    times = CoreTimes(target or as_target(programs[0].target), placements)
    with process.no_collection():
        walks = [_walk(p.body, {}, board, trips) for p, board in zip(programs, times.boards, strict=True)]
        waiting = {core: next(walk, None) for core, walk in enumerate(walks)}
        while group := [
            (core, instruction) for core, instruction in waiting.items() if instruction is not None
        ]:
            times.meet(group)
            for core, _ in group:
                waiting[core] = next(walks[core], None)
    return times.timelines()


def simulate_ranks(
    ranks: Sequence[tuple[Sequence[Program], Sequence[Placed]]],
    *,
    trips: int | None = None,
    target: Target | None = None,
) -> list[Timeline]:
    """Time the cores of all `ranks` without running them, as :func:`simulate_all`; rank after rank.

    Ranks that run the same Programs reach every meeting at the same time, so that one of them is timed.

    Args:
        ranks: the Programs and placements of the cores of each.

    Raises:
        NkiError: NKI-H020, ranks with Programs of their own wait for each other without end.
    """
    first = ranks[0]
    if all(programs[0] is first[0][0] for programs, _ in ranks):
        return simulate_all(*first, trips=trips, target=target) * len(ranks)
    placements = [placement for _, placed in ranks for placement in placed]
    times = CoreTimes(target or as_target(first[0][0].target), placements, len(first[0]))
    boards = iter(times.boards)
    with process.no_collection():
        meet_all(
            [[_walk(p.body, {}, next(boards), trips) for p in programs] for programs, _ in ranks], times.meet
        )
    return times.timelines()


def _walk(body: list[Node], known: dict[int, int], board: Scoreboard, trips: int | None) -> Iterator[Meeting]:
    """Issue the instructions of `body` in order; yields those that wait for other cores instead."""
    for node in body:
        if isinstance(node, Instruction):
            if isinstance(node, Meeting):
                yield node
                continue
            board.issue(node, known)
            if known:
                for register in node.registers_written:
                    known.pop(register.index, None)
        elif isinstance(node, While):
            _note(board.notes, node, "runs while a register is not zero", trips)
            for _ in range(1 if trips is None else trips):
                yield from _walk(node.body, known, board, trips)
        else:
            for value in _turns(node, known, board.notes, trips):
                if value is not None:
                    known[node.index.index] = value
                yield from _walk(node.body, known, board, trips)
            known.pop(node.index.index, None)


def _turns(loop: Loop, known: Mapping[int, int], notes: list[str], trips: int | None) -> Sequence[int | None]:
    """Values of a loop's index, None where it starts at a register."""
    bounds = [known.get(b.index) if isinstance(b, VirtualRegister) else b for b in (loop.start, loop.stop)]
    start, stop = bounds
    if start is None or stop is None:
        _note(notes, loop, "has bounds that are registers", trips)
        count = 1 if trips is None else trips
        return [None] * count if start is None else range(start, start + count * loop.step, loop.step)
    return range(start, stop, loop.step)


def _note(notes: list[str], loop: Loop | While, why: str, trips: int | None) -> None:
    place = f" at {loop.stack[-1].span}" if loop.stack else ""
    turns = "one turn; --trips N takes N" if trips is None else f"{trips} turn{'s' * (trips != 1)}, as asked"
    note = f"The loop{place} {why}; it is timed for {turns}."
    if note not in notes:
        notes.append(note)
