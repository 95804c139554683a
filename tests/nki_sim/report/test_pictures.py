"""The pictures of documents: what is in them, and that they are XML."""

import xml.etree.ElementTree as ElementTree

from nki_sim.report import pictures
from nkilib.registry import rows


def drawn(svg):
    """The titles of the bars, and the texts."""
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    return [t.text for t in root.iter(f"{space}title")], [t.text for t in root.iter(f"{space}text")]


def boxes(svg):
    """x, y, width and height of each bar, which all lie inside of the picture; its own width."""
    root = ElementTree.fromstring(svg)
    across, down = map(float, root.get("viewBox").split()[2:])
    found = []
    for bar in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, width, height = (float(bar.get(name)) for name in ("x", "y", "width", "height"))
        assert x >= 0 and x + width <= across + 0.1 and y >= 0 and y + height <= down + 0.1
        found.append((x, y, width, height))
    return found, across


def launched():
    row = rows()["cumsum"]
    return row.run(row.example("one-row").arguments(), timing=True).launch.cores[0]


def test_bars_are_as_long_as_what_they_show():
    core = launched()
    used = core.placement.sbuf
    bars, across = boxes(pictures.memory(used))
    for (x, y, width, height), holder in zip(bars, used.live, strict=True):
        for other, at in zip(bars, used.live, strict=True):
            assert (x < other[0]) == (holder.first < at.first)
            assert (y + height > other[1] + other[3] + 0.1) == (holder.offset < at.offset)
            lived, bytes_ = holder.last - holder.first + 1, holder.end - holder.offset
            assert abs(width * (at.last - at.first + 1) - other[2] * lived) <= 0.1 * (
                lived + at.last - at.first + 1
            )
            assert abs(height * (at.end - at.offset) - other[3] * bytes_) <= 0.1 * (
                bytes_ + at.end - at.offset
            )
    assert max(x + width for x, _, width, _ in bars) > 0.9 * across  # the last lives to the end
    timed = core.timeline
    bars, across = boxes(pictures.timeline(timed))
    starts = min(x for x, *_ in bars)
    ends = max(x + width for x, _, width, _ in bars)
    shown = float(timed.busy.max() - timed.begin.min()) / timed.duration
    assert ends - starts > 0.8 * shown * (across - starts)


def test_pictures_of_a_launch():
    core = launched()
    bars, labels = drawn(pictures.timeline(core.timeline))
    assert {"vector", "gpsimd"} <= set(labels) and "tensor_tensor_scan" in labels
    assert any(bar.startswith("tensor_tensor_scan: ") for bar in bars)
    bars, labels = drawn(pictures.memory(core.placement.sbuf))
    assert len(bars) == len(core.placement.sbuf.live)
    assert any(bar.startswith("ones float32 128x33: bytes ") for bar in bars)
    assert any(label.startswith("peak ") for label in labels)
