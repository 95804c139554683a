"""A launch as one HTML file that needs nothing else: figures, a timeline to zoom, maps of SBUF and PSUM.

The drawing is ``page.html`` beside this file; what is drawn is JSON put into it.
"""

from __future__ import annotations

import json
import os
from importlib import resources
from typing import Any

from nki_sim.place import Utilisation
from nki_sim.profile import Profile
from nki_sim.report import facts, words
from nki_sim.report.files import replacing
from nki_sim.report.rows import rows_of
from nki_sim.report.trace import Launches, Traced, described, reason

_LINES = 12  # of source listed
_DATA = "/*DATA*/"


def write_html(path: str | os.PathLike[str], launches: Launches) -> None:
    """Write the launches to `path` as one page, whole or not at all.

    Raises:
        OSError: `path` cannot be written.
    """
    with replacing(path) as file:
        file.write(page(launches))


def page(launches: Launches) -> str:
    """The page as text; the same launches always give the same page."""
    shown = [_core(traced, core, len(cores)) for cores in launches for core, traced in enumerate(cores)]
    data = json.dumps(shown, ensure_ascii=False, allow_nan=False)
    template = resources.files("nki_sim.report").joinpath("page.html").read_text(encoding="utf-8")
    return template.replace(_DATA, data.replace("<", "\\u003c"))  # no text of a kernel can end the script


def _core(traced: Traced, core: int, cores: int) -> dict[str, Any]:
    profile = Profile.of(traced.timeline)
    program = traced.program
    return {
        "title": f"{program.name}{facts.signature(program)} on {program.target}{facts.which(core, cores)}",
        "duration": round(traced.timeline.duration, 3),
        "totals": facts.totals(profile, traced.placement),
        "engines": facts.engines(profile),
        "lines": facts.lines(profile, _LINES),
        "notes": list(traced.timeline.notes),
        "timeline": _timeline(traced),
        "memories": [
            _memory(used)
            for used in (traced.placement.sbuf, traced.placement.psum)
            if any(holder.first >= 0 for holder in used.holders)
        ],
    }


def _timeline(traced: Traced) -> dict[str, Any]:
    """Events as columns; what events of one instruction share stands once, in `texts`."""
    timeline = traced.timeline
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
