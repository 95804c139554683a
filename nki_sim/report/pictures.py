"""Pictures of one core of a launch as SVG, for pages that are read and not run: SBUF over time, the timeline.

The page of :mod:`nki_sim.report.html` shows the same and answers questions; these stand in documents.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from html import escape
from typing import NamedTuple

from nki_sim.placement.utilisation import Holder, Utilisation
from nki_sim.timing.plans import LANES
from nki_sim.timing.scoreboard import Timeline
from nki_sim.words import size, time

_WIDTH, _LEFT, _MARGIN = 900, 110, 24
_ROW, _MAP_HEIGHT = 22, 260
_COLORS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#eeca3b", "#7f7f7f")
_STYLE = "text{font:12px sans-serif;fill:#57606a}"


class _Bar(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    color: str
    title: str


def timeline(found: Timeline) -> str:
    """One row for each engine and DMA queue that was used; a bar is an instruction, or a run of the same."""
    lanes = sorted(set(found.lane.tolist()))
    scale = (_WIDTH - _LEFT - _MARGIN) / max(found.duration, 1.0)
    names = sorted({instruction.opcode for instruction in found.instructions})
    colors = {name: _COLORS[k % len(_COLORS)] for k, name in enumerate(names)}
    bars = []
    for row, lane in enumerate(lanes):
        for name, start, end, count in _runs(found, lane, 1 / scale):
            title = f"{name}{f', {count} instructions' if count > 1 else ''}: {time(start)} to {time(end)}"
            width = max((end - start) * scale, 0.5)
            bars.append(
                _Bar(_LEFT + start * scale, _MARGIN + row * _ROW, width, _ROW - 4, colors[name], title)
            )
    labels = [(4.0, _MARGIN + row * _ROW + 13.0, LANES[lane]) for row, lane in enumerate(lanes)]
    bottom = _MARGIN + len(lanes) * _ROW + 12.0
    labels += [(float(_LEFT), bottom, "0"), (_WIDTH - 80.0, bottom, time(found.duration))]
    legend, height = _legend(colors, bottom + 14)
    return _svg(height, itertools.chain(bars, legend[0]), [*labels, *legend[1]])


def memory(found: Utilisation) -> str:
    """Bytes of a partition upwards, program order to the right; a bar is a tensor while it is needed."""
    positions = max(len(found.usage), 1)
    across = (_WIDTH - _LEFT - _MARGIN) / positions
    up = _MAP_HEIGHT / max(found.high_water, 1)
    bars = [
        _Bar(
            _LEFT + holder.first * across,
            _MARGIN + _MAP_HEIGHT - holder.end * up,
            (holder.last - holder.first + 1) * across,
            (holder.end - holder.offset) * up,
            _COLORS[k % len(_COLORS)],
            _title(holder),
        )
        for k, holder in enumerate(found.live)
    ]
    bottom = _MARGIN + _MAP_HEIGHT
    labels = [
        (4.0, _MARGIN + 10.0, size(found.high_water)),
        (4.0, float(bottom), "byte 0"),
        (float(_LEFT), bottom + 16.0, f"peak {size(found.peak)} of {size(found.capacity)} per partition"),
        (_WIDTH - 130.0, bottom + 16.0, f"{positions} instructions"),
    ]
    return _svg(bottom + 28, bars, labels)


def _title(holder: Holder) -> str:
    storage = holder.storage
    shape = "x".join(str(n) for n in storage.shape)
    return f"{storage.name} {storage.dtype} {shape}: bytes {holder.offset} to {holder.end - 1}"


def _runs(found: Timeline, lane: int, gap: float) -> Iterator[tuple[str, float, float, int]]:
    """(opcode, start, end, count) of a lane's instructions; neighbours of one opcode are one bar."""
    name, start, end, count = "", 0.0, 0.0, 0
    for k in (found.lane == lane).nonzero()[0]:
        opcode, begun, done = found.instructions[k].opcode, float(found.begin[k]), float(found.busy[k])
        if opcode == name and begun - end < gap:
            end, count = max(end, done), count + 1
            continue
        if count:
            yield name, start, end, count
        name, start, end, count = opcode, begun, done, 1
    if count:
        yield name, start, end, count


def _legend(
    colors: dict[str, str], top: float
) -> tuple[tuple[list[_Bar], list[tuple[float, float, str]]], float]:
    bars, labels, per_row = [], [], 5
    for k, (name, color) in enumerate(colors.items()):
        x, y = _LEFT + k % per_row * 155.0, top + k // per_row * 18
        bars.append(_Bar(x, y, 10, 10, color, name))
        labels.append((x + 14, y + 10, name))
    return (bars, labels), top + -(-len(colors) // per_row) * 18 + 6


def _svg(height: float, bars: Iterable[_Bar], labels: Iterable[tuple[float, float, str]]) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}">',
        f"<style>{_STYLE}</style>",
    ]
    for bar in bars:
        lines.append(
            f'<rect x="{bar.x:.1f}" y="{bar.y:.1f}" width="{bar.width:.1f}" height="{bar.height:.1f}" '
            f'fill="{bar.color}"><title>{escape(bar.title)}</title></rect>'
        )
    lines += [f'<text x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>' for x, y, text in labels]
    return "\n".join([*lines, "</svg>", ""])
