"""The page: one file, nothing fetched, every event and tensor in it."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_sim.report.html import page, write_html
from nki_sim.report.trace import Traced


@nki.jit
def scaled(a):
    result = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.sbuf, name="</script><b>")
    nisa.dma_copy(dst=tile, src=a)
    for _ in range(3):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=result, src=tile)
    return result


class Page(HTMLParser):
    """Gathers tags, attributes and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.scripts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.attributes += [name for name, _ in attributes]
        if tag not in ("meta",):
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def launches():
    with runtime.session(timing=True, data=False) as session:
        scaled(np.ones((128, 64), np.float32))
        scaled(np.ones((64, 32), np.float32))
    return [[Traced(c.program, c.timeline, c.placement) for c in x.cores] for x in session.launches]


def test_tags_close_and_nothing_is_fetched(launches):
    found = Page(page(launches))
    assert found.open == []
    assert len(found.scripts) == 2
    assert not {"src", "href"} & set(found.attributes)
    assert not re.search(r"https?://|@import|url\(|fetch\(", page(launches))


def test_every_event_and_tensor_is_in_it(launches):
    data = json.loads(Page(page(launches)).scripts[0])
    assert len(data) == 2
    for shown, (launch,) in zip(data, launches, strict=True):
        timeline = shown["timeline"]
        columns = [timeline[k] for k in ("row", "start", "end", "visible", "waited", "reason", "text")]
        assert {len(column) for column in columns} == {len(launch.timeline)}
        opcodes = [timeline["texts"][k]["opcode"] for k in timeline["text"]]
        assert opcodes == [i.opcode for i in launch.timeline.instructions]
        assert set(timeline["row"]) == set(range(len(timeline["rows"])))
        (sbuf,) = shown["memories"]
        assert [t["name"].partition(" ")[0] for t in sbuf["tensors"]] == ["</script><b>"]
        assert sbuf["tensors"][0]["box"][3] <= sbuf["top"]
        assert shown["title"].startswith("scaled(a float32[")


def test_the_same_each_time_and_in_one_piece(launches, tmp_path):
    path = tmp_path / "out.html"
    write_html(path, launches)
    assert path.read_text(encoding="utf-8") == page(launches)
    assert [p.name for p in tmp_path.iterdir()] == ["out.html"]


def test_a_failing_write_leaves_the_old_page(launches, tmp_path, monkeypatch):
    path = tmp_path / "out.html"
    path.write_text("old")
    monkeypatch.setattr("nki_sim.report.html.page", lambda launches: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_html(path, launches)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.html"]
