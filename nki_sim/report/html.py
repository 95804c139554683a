"""Launches as one HTML file that needs nothing else: figures, a timeline to zoom, maps of SBUF and PSUM.

The page is put together from the files in ``page/``; what it draws is JSON put into it, long lists as
:mod:`nki_sim.report.columns`. A page with a million events or tensors stays usable: the drawing code
looks at what is in view and merges what falls on one pixel.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, Protocol

import numpy as np

from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Program
from nki_sim import words
from nki_sim.placement.place import Holder, Placement, Utilisation
from nki_sim.placement.utilisation import by_line
from nki_sim.report import facts
from nki_sim.report.columns import column, texts
from nki_sim.report.files import replacing
from nki_sim.report.links import LinkRows, link_rows
from nki_sim.report.profile import Profile
from nki_sim.report.rows import rows_of
from nki_sim.report.trace import described, reason
from nki_sim.report.usage import AllocationScope, Uses, savings, scopes_by_call, scopes_by_name
from nki_sim.timing.scoreboard import Timeline

_LINES = 12  # of source listed
_DETAILED = 50_000  # instructions up to which each is shown with its operands
_HOLDERS, _PAIRS = 40, 20  # rows listed

_STYLE, _SCRIPT, _DATA, _POLICY = "/*STYLE*/", "/*SCRIPT*/", "/*DATA*/", "/*POLICY*/"
_SCRIPTS = ("picture.js", "timeline.js", "memory.js", "page.js")


class ReportedCore(Protocol):
    """What one core of a launch ran, where its tensors were, and when, if it was timed."""

    @property
    def program(self) -> Program: ...
    @property
    def placement(self) -> Placement: ...
    @property
    def timeline(self) -> Timeline | None: ...


Launches = Iterable[Sequence[ReportedCore]]
"""Kernel launches in order, each as its cores in order."""


def write_html(path: str | os.PathLike[str], launches: Launches) -> None:
    """Write the launches to `path` as one page, whole or not at all.

    Raises:
        OSError: `path` cannot be written.
    """
    with replacing(path) as file:
        file.write(page(launches))


def page(launches: Launches) -> str:
    """The page as text; the same launches always give the same page."""
    shown = []
    for cores in launches:
        shown += [_core(traced, core, len(cores)) for core, traced in enumerate(cores)]
        timelines = [traced.timeline for traced in cores if traced.timeline]
        carried = link_rows(timelines) if timelines else None
        if carried is not None:
            shown.append(_links(cores[0].program, carried))
    data = json.dumps(shown, allow_nan=False)  # in ASCII: names may hold what no encoding has
    style, script = _file("page.css"), "\n".join(map(_file, _SCRIPTS))
    found = _file("page.html").replace(_POLICY, _policy(style, script))
    found = found.replace(_STYLE, style).replace(_SCRIPT, script)
    return found.replace(_DATA, data.replace("<", "\\u003c"))  # no text of a kernel can end the script


def _policy(style: str, script: str) -> str:
    """What the page may do: run its own script and style, and nothing else; text never becomes markup."""

    def only(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {only(script)}",
            f"style-src {only(style)}",
            "img-src data:",  # its empty icon
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _file(name: str) -> str:
    return (resources.files("nki_sim.report") / "page" / name).read_text(encoding="utf-8")


def _core(core: ReportedCore, number: int, cores: int) -> dict[str, Any]:
    program, placement, timeline = core.program, core.placement, core.timeline
    profile = Profile.of(timeline) if timeline else None
    uses = Uses(program)
    return {
        "kernel": program.name,
        "core": facts.which(number, cores),
        "title": f"{program.name}{facts.signature(program)} on {program.target}{facts.which(number, cores)}",
        "totals": facts.totals(profile, placement) if profile else facts.capacities(placement),
        "verdict": facts.verdict(profile) if profile else [],
        "engines": facts.engines(profile) if profile else [],
        "lines": facts.lines(profile, _LINES) if profile else [],
        "remarks": profile.remarks() if profile else [],
        "advice": facts.advice(profile) if profile else [],
        "dma_rows": facts.dma_rows(profile) if profile else [],
        "notes": list(timeline.notes) if timeline else [],
        "timeline": _timeline(timeline) if timeline else None,
        "memories": [_memory(used, uses) for used in (placement.sbuf, placement.psum) if used.live],
    }


def _links(program: Program, found: LinkRows) -> dict[str, Any]:
    """What the links of a launch over ranks carry, as a launch of its own without engines."""
    rows = found.busiest(len(found.rows))
    table = [
        [str(link), f"{found.topology.rate(link):.4g} GB/s", words.size(octets), words.percent(share)]
        for link, octets, share in rows
    ]
    none = ("verdict", "engines", "lines", "remarks", "advice", "dma_rows", "notes", "memories")
    return {
        **{name: [] for name in none},
        "kernel": program.name,
        "core": ", links",
        "title": f"{program.name}: links of {found.topology.name}",
        "totals": [("links in use", str(len(rows)), "directions"), ("busiest", str(rows[0][0]), "")],
        "links": table,
        "timeline": _carried(found),
    }


def _carried(found: LinkRows) -> dict[str, Any]:
    """The collectives on each link as events, in the form of :func:`_timeline`."""
    said = _Numbers()
    all_of_it = [one for carried in found.rows.values() for one in carried]
    text = []
    for one in all_of_it:
        about = {
            "opcode": one.instruction.opcode,
            **_at_length(one.instruction),
            "calls": [f"{one.algorithm}: {words.size(one.octets)}, {words.percent(one.share)} of the link"],
        }
        text.append(said.of(tuple(map(str, about.values())), about))
    offsets = [0]
    for carried in found.rows.values():
        offsets.append(offsets[-1] + len(carried))
    length = [one.end - one.begin for one in all_of_it]
    return {
        "labels": [str(link) for link in found.rows],
        "duration": round(found.duration, 3),
        "offsets": column(offsets, "int32"),
        "event": column([one.event for one in all_of_it], "int32"),
        "start": column([one.begin for one in all_of_it], "float64"),
        "length": column(length, "float32"),
        "visible": column(length, "float32"),
        "waited": column(np.zeros(len(length)), "float32"),
        "reason": column(np.full(len(length), -1), "int32"),
        "text": column(text, "int32"),
        "texts": said.values,
        "reasons": texts([]),
        "detailed": True,
    }


# --- the timeline


class _Numbers:
    """Numbers for distinct values, in order of appearance."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._known: dict[Any, int] = {}

    def of(self, key: Any, value: Any) -> int:
        number = self._known.setdefault(key, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


def _timeline(timeline: Timeline) -> dict[str, Any]:
    """Events as columns, row by row in order of start; what several events share stands once."""
    rows = rows_of(timeline)
    row = np.array(rows.row, np.int64)
    order = np.lexsort((timeline.start, row))
    offsets = np.searchsorted(row[order], np.arange(len(rows.labels) + 1))
    instructions = {id(i): i for i in timeline.instructions}
    is_detailed = len(instructions) <= _DETAILED
    said, why, known = _Numbers(), _Numbers(), dict[int, int]()
    for key, instruction in instructions.items():
        about = {
            "opcode": words.act(instruction),
            **(_at_length(instruction) if is_detailed else _in_short(instruction)),
        }
        known[key] = said.of(tuple(map(str, about.values())), about)
    text = np.array([known[id(i)] for i in timeline.instructions], np.int32)
    reasons = np.full(len(timeline), -1, np.int32)
    for event in np.flatnonzero(timeline.waited > 0).tolist():
        because = reason(timeline, event)
        because = because if is_detailed else because.partition(":")[0]
        reasons[event] = why.of(because, because)
    start, end = timeline.start[order], np.array(rows.end)[order]
    return {
        "labels": rows.labels,
        "duration": round(timeline.duration, 3),
        "offsets": column(offsets, "int32"),
        "event": column(order, "int32"),
        "start": column(start, "float64"),
        "length": column(end - start, "float32"),
        "visible": column(timeline.end[order] - start, "float32"),
        "waited": column(timeline.waited[order], "float32"),
        "reason": column(reasons[order], "int32"),
        "text": column(text[order], "int32"),
        "texts": said.values,
        "reasons": texts(why.values),
        "detailed": is_detailed,
    }


def _at_length(instruction: Instruction) -> dict[str, Any]:
    found = described(instruction)
    return {"instruction": found["instruction"], "calls": found["calls"]}


def _in_short(instruction: Instruction) -> dict[str, Any]:
    place = words.place(instruction.stack)
    return {"instruction": instruction.opcode, "calls": [place] if place else []}


# --- a memory


def _memory(used: Utilisation, uses: Uses) -> dict[str, Any]:
    """The live tensors of a memory as columns, in order of first use, with who uses them."""
    holders = sorted(used.live, key=lambda h: (h.first, h.storage.index))
    groups = _Numbers()
    group = [groups.of(_group_key(h), h) for h in holders]
    indices = np.array([h.storage.index for h in holders], np.int64)
    starts, ends = np.searchsorted(uses.storages, indices), np.searchsorted(uses.storages, indices + 1)
    by_name, by_call = scopes_by_name(used.live), scopes_by_call(used.live)
    entries = np.concatenate([np.arange(a, b) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)])
    return {
        "name": used.region.value.upper(),
        "capacity": used.capacity,
        "bank": used.bank,
        "peak": used.peak,
        "peak_at": used.peak_at,
        "top": used.high_water,
        "usage": column(used.usage, "int32"),
        "banks": column(used.bank_usage(), "int8") if used.bank else None,
        "first": column([h.first for h in holders], "int32"),
        "last": column([h.last for h in holders], "int32"),
        "low": column([h.offset for h in holders], "int32"),
        "high": column([h.end for h in holders], "int32"),
        "partition": column([h.partition for h in holders], "int32"),
        "quadrants": column([h.quadrants for h in holders], "int8"),
        "given": column([h.storage.address is not None for h in holders], "int8"),
        "group": column(group, "int32"),
        "names": texts([h.storage.name for h in holders]),
        "groups": [_group(h) for h in groups.values],
        "uses": {
            "offsets": column(np.concatenate([[0], np.cumsum(ends - starts)]), "int32"),
            "role": column(uses.roles[entries], "int32"),
            "count": column(uses.counts[entries], "int32"),
            "first": column(uses.firsts[entries], "int32"),
            "sites": [list(site) for site in uses.sites],
        },
        "held": [words.held_row(group) for group in by_line(used.held_at(used.peak_at))[:_HOLDERS]],
        "savings": [list(row) for row in facts.savings(used, savings(used, uses))],
        "scopes": [
            {"title": title, "inside": [_scope(s, used) for s in tree.inside.values()]}
            for title, tree in (("By name", by_name), ("By call", by_call))
            if tree and tree.inside
        ],
        "shared": [[words.tensor(h) for h in pair] for pair, _ in zip(used.shared(), range(_PAIRS))],
    }


def _group_key(holder: Holder) -> Any:
    storage = holder.storage
    return (words.place(storage.stack) or storage.name, storage.shape, storage.dtype)


def _group(holder: Holder) -> dict[str, Any]:
    storage = holder.storage
    return {
        "name": storage.name,
        "place": words.place(storage.stack),
        "typed": words.typed(storage),
        "partitions": storage.partitions,
        "calls": [f"{frame.function} at {words.place((frame,))}" for frame in reversed(storage.stack)],
    }


def _scope(scope: AllocationScope, used: Utilisation) -> dict[str, Any]:
    at_peak, own_peak = scope.held(used)
    return {
        "label": scope.label,
        "tensors": len(scope.holders),
        "at": at_peak,
        "own": own_peak,
        "inside": [_scope(inner, used) for inner in scope.inside.values()],
    }
