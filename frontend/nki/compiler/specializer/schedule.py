"""The order a kernel asks for: dependencies between instructions beyond those of their data.

Three ways to ask end in :attr:`Instruction.after`: ``kernel.with_schedule([(consumer,
producers), ...])`` by the names of instructions, ``handle.depends_on(*producers)``, and
``with nl.no_reorder():``. Program order is the schedule here, so an instruction that is to
run after a later one moves behind it, with everything that needs its result.

Source: SDK guide "How to Use the NKI Scheduling APIs"; API pages of ``nki.isa.NkiInstruction``
and ``nki.language.no_reorder``.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nki_isa.diagnostics import Diagnostic, Frame, Label, NkiError, Span, error, span_of
from nki_isa.ir.dependencies import data_dependencies, touched
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program, While, walk

_Region = Loop | While


@dataclass(frozen=True, slots=True)
class Edge:
    """`consumer` runs after `producer`; `stack` is where that was asked for."""

    consumer: Instruction
    producer: Instruction
    stack: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedEdge:
    """Instruction `consumer` runs after those named `producers`; `place` is where that was asked for."""

    consumer: str
    producers: tuple[str, ...]
    place: Span | None = None


Schedule = tuple[NamedEdge, ...]


def read_schedule(edges: Any, place: Span | None) -> Schedule:
    """The argument of ``with_schedule``.

    Args:
        edges: pairs (consumer, producer or list of producers) of instruction names.
        place: the call.

    Raises:
        NkiError: NKI-L045 for anything else.
    """
    if not isinstance(edges, (list, tuple)):
        raise _malformed(f"the schedule is a {type(edges).__name__}, not a list", place)
    found = []
    for edge in edges:
        if not isinstance(edge, (list, tuple)) or len(edge) != 2:
            raise _malformed(f"{edge!r} is not a pair (consumer, producers)", place)
        consumer, producers = edge
        producers = (producers,) if isinstance(producers, str) else producers
        if not isinstance(producers, (list, tuple)) or not all(
            isinstance(n, str) for n in (consumer, *producers)
        ):
            raise _malformed(f"{edge!r} does not consist of names of instructions", place)
        found.append(NamedEdge(consumer, tuple(producers), place))
    return tuple(found)


def _malformed(message: str, place: Span | None) -> NkiError:
    remedy = 'write kernel.with_schedule([("later", "earlier"), ("last", ["first", "second"])])'
    return error("NKI-L045", message, span=place, help=remedy)


def apply_schedule(program: Program, schedule: Schedule, edges: Iterable[Edge]) -> None:
    """Put the dependencies into `program`, and its instructions into an order that follows them.

    Args:
        program: changed in place.
        schedule: dependencies by name.
        edges: dependencies by instruction.

    Raises:
        NkiError: with every mistake found: NKI-L040 a name no instruction has, NKI-L041 a name
            that several have, NKI-L042 a dependency cycle, NKI-L043 a dependency into or
            out of a device loop.
    """
    edges = list(edges)
    if not schedule and not edges:
        return
    problems: list[NkiError] = []
    edges += _resolve(program, schedule, problems)
    regions = _regions(program.body)
    for edge in edges:
        problem = _nesting_problem(edge, regions)
        if problem is not None:
            problems.append(problem)
        elif edge.producer not in edge.consumer.after:
            edge.consumer.after = (*edge.consumer.after, edge.producer)
    if not problems:
        problems = _order(program.body)
    if problems:
        raise NkiError([d for problem in problems for d in problem.diagnostics])


def _resolve(program: Program, schedule: Schedule, problems: list[NkiError]) -> list[Edge]:
    """The instructions a schedule names."""
    named: dict[str, list[Instruction]] = {}
    for instruction in program.walk() if schedule else ():
        if instruction.name is not None:
            named.setdefault(instruction.name, []).append(instruction)
    found = []
    told: set[str] = set()
    for row in schedule:
        wanted = (row.consumer, *row.producers)
        for name in wanted:
            count = len(named.get(name, ()))
            if count != 1 and name not in told:
                told.add(name)
                problems.append(
                    _unknown(name, named, row.place) if count == 0 else _ambiguous(name, named[name], row)
                )
        if not any(name in told for name in wanted):
            consumer, *producers = (named[name][0] for name in wanted)
            stack = (Frame("with_schedule", row.place),) if row.place is not None else ()
            found += [Edge(consumer, producer, stack) for producer in producers]
    return found


def _unknown(name: str, named: dict[str, list[Instruction]], place: Span | None) -> NkiError:
    near = difflib.get_close_matches(name, named, 1)
    if near:
        remedy = f"write {near[0]!r}"
    elif named:
        remedy = f"the names are {', '.join(map(repr, sorted(named)))}"
    else:
        remedy = f"give the instruction a name: nisa.tensor_copy(dst, src, name={name!r})"
    return error(
        "NKI-L040", f"the schedule names {name!r}, which no instruction is called", span=place, help=remedy
    )


def _ambiguous(name: str, instructions: list[Instruction], row: NamedEdge) -> NkiError:
    return NkiError(
        [
            Diagnostic(
                "NKI-L041",
                f"the schedule names {name!r}: the name matches {len(instructions)} instructions",
                span=row.place,
                help='make names unique, in a loop for example with name=f"load{i}"',
                labels=tuple(
                    Label(i.stack[-1].span, f"called {name!r}") for i in instructions[:2] if i.stack
                ),
            )
        ]
    )


# --- nesting


def _regions(body: list[Node], around: tuple[_Region, ...] = ()) -> dict[Instruction, tuple[_Region, ...]]:
    """The device loops around each instruction, outermost first."""
    found: dict[Instruction, tuple[_Region, ...]] = {}
    for node in body:
        if isinstance(node, Instruction):
            found[node] = around
        else:
            found.update(_regions(node.body, (*around, node)))
    return found


def _nesting_problem(edge: Edge, regions: dict[Instruction, tuple[_Region, ...]]) -> NkiError | None:
    """NKI-L043 unless the producer's loops are also around the consumer."""
    span = span_of(edge.stack)
    if edge.producer not in regions or edge.consumer not in regions:
        problem = error(
            "NKI-L043",
            "depends_on was given an instruction of another kernel",
            help="use handles that this launch of the kernel got from nki.isa calls",
        )
        return problem.at(span, edge.stack)
    producer, consumer = regions[edge.producer], regions[edge.consumer]
    if consumer[: len(producer)] == producer:
        return None
    problem = error(
        "NKI-L043",
        f"{_called(edge.consumer)} depends on {_called(edge.producer)}, which runs in a device loop "
        "that is not around it",
        help="keep both in the same loop; after a loop, depend on nothing inside it",
        notes=("a dependency is a semaphore wait that must be signalled exactly once for each wait",),
    )
    return problem.at(span, edge.stack)


def _called(instruction: Instruction) -> str:
    return f"{instruction.name!r}" if instruction.name is not None else instruction.opcode


# --- order


def _order(body: list[Node]) -> list[NkiError]:
    """Sort `body` and the bodies in it so that every instruction comes after those it depends on."""
    place = {node: k for k, node in enumerate(body)}
    asked: list[set[int]] = [set() for _ in body]
    is_ordered = True
    for k, node in enumerate(body):
        for instruction in [node] if isinstance(node, Instruction) else walk(node.body):
            for producer in instruction.after:
                before = place.get(producer)
                if before is not None:
                    asked[k].add(before)
                    is_ordered = is_ordered and before < k
    problems = [] if is_ordered else _sort(body, asked)
    for node in body:
        if not isinstance(node, Instruction):
            problems += _order(node.body)
    return problems


def _sort(body: list[Node], asked: list[set[int]]) -> list[NkiError]:
    """A stable topological order of `body` by what was asked for and by the data."""
    needed = [a | d for a, d in zip(asked, data_dependencies(map(touched, body)), strict=True)]
    waiting = [len(n) for n in needed]
    followers: list[list[int]] = [[] for _ in body]
    for k, before in enumerate(needed):
        for j in before:
            followers[j].append(k)
    ready = [k for k, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        k = heapq.heappop(ready)
        order.append(k)
        for follower in followers[k]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, follower)
    if len(order) < len(body):
        return [_circle(body, asked, needed, {k for k, count in enumerate(waiting) if count})]
    body[:] = [body[k] for k in order]
    return []


def _circle(body: list[Node], asked: list[set[int]], needed: list[set[int]], stuck: set[int]) -> NkiError:
    """NKI-L042 with one circle of dependencies spelled out."""
    path = [min(k for k in stuck)]
    while True:
        k = min(j for j in needed[path[-1]] if j in stuck)
        if k in path:
            path = path[path.index(k) :]
            break
        path.append(k)
    notes = []
    for consumer, producer in zip(path, [*path[1:], path[0]], strict=True):
        why = "was asked to run" if producer in asked[consumer] else "runs, by the data they share,"
        notes.append(f"{_shown(body[consumer])} {why} after {_shown(body[producer])}")
    first = next((k for k in path if asked[k]), path[0])
    stack = body[first].stack
    problem = error(
        "NKI-L042",
        f"the dependencies of {_shown(body[first])} lead back to it",
        help="leave out one dependency of the circle",
        notes=notes,
    )
    return problem.at(span_of(stack), stack)


def _shown(node: Node) -> str:
    if isinstance(node, Instruction):
        line = f" (line {node.stack[-1].span.line})" if node.stack else ""
        return f"{_called(node)}{line}"
    return "a device loop"
