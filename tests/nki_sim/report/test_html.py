"""The page: one file, nothing fetched, every event and tensor in it."""

import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_sim.report import facts
from nki_sim.report.columns import unpacked
from nki_sim.report.html import page, write_html
from nki_sim.report.profile import Profile
from nki_sim.report.terminal import profile_tables


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
        self.attributes += attributes
        if tag not in ("meta", "link"):
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
    return [x.cores for x in session.launches]


def shown(launches):
    """The data of a page, columns unpacked."""
    return [values(core) for core in json.loads(Page(page(launches)).scripts[0])]


def values(found):
    if isinstance(found, dict):
        return unpacked(found) if "packed" in found else {key: values(item) for key, item in found.items()}
    return [values(item) for item in found] if isinstance(found, list) else found


def test_tags_close_and_nothing_is_fetched(launches):
    found = Page(page(launches))
    assert found.open == []
    assert len(found.scripts) == 2
    assert dict.fromkeys(value for name, value in found.attributes if name in ("src", "href")) == {
        "data:,": None
    }
    assert not re.search(r"https?://|@import|url\(|fetch\(", page(launches))


def test_every_event_is_in_it(launches):
    for core, (launch,) in zip(shown(launches), launches, strict=True):
        timeline, run = core["timeline"], launch.timeline
        columns = [timeline[k] for k in ("start", "length", "visible", "waited", "reason", "text", "event")]
        assert {len(column) for column in columns} == {len(run)}
        assert sorted(timeline["event"]) == list(range(len(run)))
        opcodes = [timeline["texts"][k]["opcode"] for k in timeline["text"]]
        assert opcodes == [run.instructions[k].opcode for k in timeline["event"]]
        np.testing.assert_allclose(timeline["start"], run.start[timeline["event"]])
        assert timeline["offsets"][0] == 0 and timeline["offsets"][-1] == len(run)
        for low, high in itertools.pairwise(timeline["offsets"]):
            starts, lengths = timeline["start"][low:high], timeline["length"][low:high]
            assert (starts[1:] >= (starts + lengths)[:-1] - 1e-3).all()
        assert core["title"].startswith("scaled(a float32[")


def test_every_tensor_is_in_it_with_its_readers_and_writers(launches):
    for core, (launch,) in zip(shown(launches), launches, strict=True):
        (sbuf,) = core["memories"]
        (holder,) = launch.placement.sbuf.holders
        assert sbuf["names"] == ["</script><b>"]
        box = [int(sbuf[k][0]) for k in ("first", "last", "low", "high")]
        assert box == [holder.first, holder.last, holder.offset, holder.end]
        assert sbuf["usage"].tolist() == launch.placement.sbuf.usage.tolist()
        uses = sbuf["uses"]
        roles = [("writes" if r % 2 else "reads", uses["sites"][r // 2][0]) for r in uses["role"].tolist()]
        assert list(zip(roles, uses["count"].tolist(), uses["first"].tolist(), strict=True)) == [
            (("writes", "dma_copy"), 1, 0),
            (("reads", "tensor_scalar"), 3, 1),
            (("writes", "tensor_scalar"), 3, 1),
            (("reads", "dma_copy"), 1, 4),
        ]


def test_a_launch_that_was_not_timed_shows_its_memories(launches):
    with runtime.session(data=False) as session:
        scaled(np.ones((128, 64), np.float32))
    (core,) = shown([x.cores for x in session.launches])
    assert core["timeline"] is None and core["engines"] == []
    assert [one["name"] for one in core["memories"]] == ["SBUF"]
    assert core["totals"][0][:2] == ["SBUF peak", "256 B"]


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


def test_what_the_terminal_says_of_time_the_page_and_the_json_say_too(launches):
    """Bound, roofline, trust, idle by cause, critical path, advice, DMA rows, MFU and MBU, and remarks."""
    console = Console(width=400, color_system=None)
    for core, (launch,) in zip(shown(launches), launches, strict=True):
        profile = Profile.of(launch.timeline)
        with console.capture() as captured:
            console.print(*profile_tables(profile, launch.placement), sep="\n")
        terminal = captured.get()
        found = profile.as_dict()
        assert core["verdict"] == facts.verdict(profile)
        assert core["remarks"] == found["remarks"] == profile.remarks()
        for sentence in (*core["verdict"], *core["remarks"]):
            assert sentence in terminal
        for part, rows in (
            ("totals", facts.totals(profile, launch.placement)),
            ("engines", facts.engines(profile)),
            ("advice", facts.advice(profile)),
            ("dma_rows", facts.dma_rows(profile)),
        ):
            assert core[part] == [list(row) for row in rows] and rows
            assert all(cell in terminal for row in rows for cell in row)
        assert {row[0] for row in core["totals"]} >= {"MFU", "MBU", "HBM minimum"}
        assert found["bound"] in core["verdict"] and found["trust"]["says"] in core["verdict"][-1]
        assert [one["try"] for one in found["advice"]] == [row[3] for row in core["advice"]]
        lines = found["critical_path"]["lines"]
        assert lines == [line.as_dict() for line in profile.critical_lines()]
        assert sum(line["time_ns"] for line in lines) == pytest.approx(profile.duration)
        assert len(found["dma_rows"]) == len(core["dma_rows"])
        for engine in found["engines"].values():
            idle = sum(engine["idle_ns"].values())
            assert engine["busy_ns"] + idle == pytest.approx(profile.duration)
