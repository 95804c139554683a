"""A launch as one HTML file that needs nothing else: figures, a timeline to zoom, maps of SBUF and PSUM.

The drawing is ``page.html`` beside this file; what is drawn is JSON put into it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from importlib import resources
from typing import Any

from nki_sim.place import Utilisation
from nki_sim.profile import Profile
from nki_sim.report import facts, words
from nki_sim.report.files import replacing
from nki_sim.report.rows import rows_of
from nki_sim.report.trace import Traced, described, reason

_LINES = 12  # of source listed
_DATA = "/*DATA*/"


def write_html(path: str | os.PathLike[str], launches: Iterable[Traced]) -> None:
    """Write the launches to `path` as one page, whole or not at all.

    Raises:
        OSError: `path` cannot be written.
    """
    with replacing(path) as file:
        file.write(page(launches))


def page(launches: Iterable[Traced]) -> str:
    """The page as text; the same launches always give the same page."""
    data = json.dumps([_launch(launch) for launch in launches], ensure_ascii=False, allow_nan=False)
    template = resources.files("nki_sim.report").joinpath("page.html").read_text(encoding="utf-8")
    return template.replace(_DATA, data.replace("<", "\\u003c"))  # no text of a kernel can end the script


def _launch(launch: Traced) -> dict[str, Any]:
    profile = Profile.of(launch.timeline)
    program = launch.program
    return {
        "title": f"{program.name}{facts.signature(program)} on {program.target}",
        "duration": round(launch.timeline.duration, 3),
        "totals": facts.totals(profile, launch.placement),
        "engines": facts.engines(profile),
        "lines": facts.lines(profile, _LINES),
        "notes": list(launch.timeline.notes),
        "timeline": _timeline(launch),
        "memories": [
            _memory(used)
            for used in (launch.placement.sbuf, launch.placement.psum)
            if any(holder.first >= 0 for holder in used.holders)
        ],
    }


def _timeline(launch: Traced) -> dict[str, Any]:
    """Events as columns; what events of one instruction share stands once, in `texts`."""
    timeline = launch.timeline
    rows = rows_of(timeline)
    numbers: dict[int, int] = {}
    texts: list[dict[str, Any]] = []
    text: list[int] = []
    for instruction in timeline.instructions:
        number = numbers.setdefault(id(instruction), len(texts))
        if number == len(texts):
            found = described(instruction)
            texts.append({"opcode": instruction.opcode, **{k: found[k] for k in ("instruction", "calls")}})
        text.append(number)
    return {
        "rows": rows.labels,
        "row": rows.row,
        "start": [round(t, 1) for t in timeline.start.tolist()],
        "end": [round(t, 1) for t in rows.end],
        "visible": [round(t, 1) for t in timeline.end.tolist()],
        "waited": [round(t, 1) for t in timeline.waited.tolist()],
        "reason": [reason(timeline, k) if w > 0 else "" for k, w in enumerate(timeline.waited.tolist())],
        "text": text,
        "texts": texts,
    }


def _memory(used: Utilisation) -> dict[str, Any]:
    """The tensors of a memory as boxes: positions in program order across, bytes upward."""
    return {
        "title": f"{used.region.value.upper()}: bytes of a partition over program order, "
        f"{words.size(used.high_water)} of {words.size(used.capacity)}",
        "top": used.high_water,
        "bank": used.bank,
        "positions": len(used.usage),
        "tensors": [
            {
                "name": f"{h.storage.name} {h.storage.dtype}{list(h.storage.shape)}",
                "place": words.place(h.storage.stack),
                "size": words.size(h.storage.row_bytes),
                "box": [h.first, h.last, h.offset, h.end],
            }
            for h in used.holders
            if h.first >= 0
        ],
    }
