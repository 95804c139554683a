"""The pictures of documents: what is in them, and that they are XML."""

import xml.etree.ElementTree as ElementTree

from nki_sim.report import pictures
from nkilib.registry import rows


def drawn(svg):
    """The titles of the bars, and the texts."""
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    return [t.text for t in root.iter(f"{space}title")], [t.text for t in root.iter(f"{space}text")]


def test_pictures_of_a_launch():
    row = rows()["cumsum"]
    core = row.run(row.example("one-row").arguments(), timing=True).launch.cores[0]
    bars, labels = drawn(pictures.timeline(core.timeline))
    assert {"vector", "gpsimd"} <= set(labels) and "tensor_tensor_scan" in labels
    assert any(bar.startswith("tensor_tensor_scan: ") for bar in bars)
    bars, labels = drawn(pictures.memory(core.placement.sbuf))
    assert len(bars) == len(core.placement.sbuf.live)
    assert any(bar.startswith("ones float32 128x33: bytes ") for bar in bars)
    assert any(label.startswith("peak ") for label in labels)
