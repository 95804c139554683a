"""Chrome trace JSON: complete, drawable, and written whole or not at all."""

import json
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_sim.report.critical import place_of
from nki_sim.report.profile import Profile
from nki_sim.report.trace import Traced, events, write_trace
from nki_sim.timing.plans import ENGINES, LANES
from nki_sim.timing.scoreboard import Wait


@nki.jit
def pipeline(a, b):
    """Loads, matmuls, a copy and a store for each of several tiles: overlap, waits and reuse."""
    result = nl.ndarray((4, 128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    stationary = nl.ndarray((128, 128), dtype=a.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=stationary, src=a)
    for k in range(4):
        moving = nl.ndarray((128, 512), dtype=b.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=moving, src=b)
        product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=product, stationary=stationary, moving=moving)
        tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(dst=tile, src=product)
        nisa.dma_copy(dst=result[k], src=tile)
    return result


@pytest.fixture(scope="module")
def launches():
    a, b = np.ones((128, 128), np.float32), np.ones((128, 512), np.float32)
    with runtime.session(timing=True, data=False) as session:
        pipeline(a, b)
        pipeline(a, b)
    return [[Traced(c.program, c.timeline, c.placement) for c in x.cores] for x in session.launches]


@pytest.fixture(scope="module")
def trace(launches):
    return list(events(launches))


def slices(trace):
    """What ran; the critical path has slices too."""
    return [e for e in trace if e["ph"] == "X" and e["cat"] != "critical path"]


def test_the_critical_path_has_a_row_that_covers_each_launch(launches, trace):
    rows = {(e["pid"], e["tid"]) for e in trace if e.get("args", {}).get("name") == "critical path"}
    assert [process for process, _ in sorted(rows)] == [1, 2]
    reached = 0.0
    for process, cores in enumerate(launches, 1):
        timeline = cores[0].timeline
        mine = [e for e in trace if e.get("cat") == "critical path" and e["pid"] == process]
        assert {(process, e["tid"]) for e in mine} <= rows
        for event in mine:
            assert event["ts"] == pytest.approx(reached, abs=1e-5)
            reached = event["ts"] + event["dur"]
            assert event["args"]["source"] == place_of(timeline.instructions[event["args"]["event"]])
        assert sum(e["dur"] for e in mine) * 1e3 == pytest.approx(timeline.duration, abs=0.1)


def test_every_instruction_of_every_launch_is_a_slice(launches, trace):
    for number, (launch,) in enumerate(launches, 1):
        found = [e for e in slices(trace) if e["pid"] == number]
        assert sorted(e["args"]["event"] for e in found) == list(range(len(launch.timeline)))
        for event in found:
            assert event["name"] == launch.timeline.instructions[event["args"]["event"]].opcode


def test_slices_of_a_row_never_overlap(trace):
    rows = defaultdict(list)
    for event in slices(trace):
        rows[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert len(rows) > 4
    for spans in rows.values():
        assert spans == sorted(spans)
        assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(spans))


def test_slices_of_an_engine_add_up_to_its_busy_time(launches, trace):
    """No DMA is triggered by an engine here: a trigger holds its engine without being a slice of it."""
    for process, cores in enumerate(launches, 1):
        engines = Profile.of(cores[0].timeline).engines
        for name, summary in engines.items():
            mine = [e for e in slices(trace) if (e["pid"], e["cat"]) == (process, name)]
            assert sum(e["dur"] for e in mine) * 1e3 == pytest.approx(summary.busy, abs=1e-2)


def test_events_have_the_keys_of_the_format(trace):
    keys = {
        "M": {"name", "args"},
        "X": {"name", "cat", "ts", "dur", "args"},
        "s": {"name", "cat", "id", "ts"},
        "f": {"name", "cat", "id", "ts", "bp"},
        "C": {"name", "ts", "args"},
    }
    assert {e["ph"] for e in trace} == set(keys)
    for event in trace:
        assert keys[event["ph"]] | {"pid", "tid"} <= set(event)
        assert event.get("ts", 0) >= 0 and event.get("dur", 0) >= 0


def test_rows_are_named_after_engines_and_queues(trace):
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in trace if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in slices(trace)} == {
        row for row, name in threads.items() if name != "critical path"
    }
    for event in slices(trace):
        name = threads[event["pid"], event["tid"]]
        assert name.startswith(event["cat"])
        assert ("engine" in name) == (event["cat"] in ENGINES)
        assert event["cat"] in LANES
    names = {e["args"]["name"] for e in trace if e["name"] == "process_name"}
    assert names == {"pipeline on trn2 (launch 1)", "pipeline on trn2 (launch 2)"}


def test_a_slice_says_what_ran_where_and_why_it_waited(launches, trace):
    timeline = launches[0][0].timeline
    for event in slices(trace)[: len(timeline)]:
        arguments, k = event["args"], event["args"]["event"]
        assert arguments["instruction"].startswith(event["name"] + " dst=")
        assert arguments["operands"]["dst"]
        assert "test_trace.py:" in arguments["source"]
        assert "pipeline at" in arguments["calls"][-1]
        waited = timeline.waited[k] > 0
        assert ("waited_for" in arguments) == waited
        if waited:
            assert arguments["waited_ns"] == pytest.approx(timeline.waited[k], abs=1e-3)
    matmuls = [e["args"] for e in slices(trace) if e["name"] == "nc_matmul"]
    assert "dma_copy at" in matmuls[0]["waited_for"]
    loads = [e["args"] for e in slices(trace) if e["name"] == "dma_copy"]
    assert loads[0]["bytes"] == 128 * 128 * 4


def test_an_arrow_starts_and_ends_inside_its_slices(launches, trace):
    by_row = defaultdict(list)
    for event in slices(trace):
        by_row[event["pid"], event["tid"]].append(event)
    arrows = [e for e in trace if e["ph"] in "sf"]
    timeline = launches[0][0].timeline
    assert len(arrows) == 4 * np.count_nonzero((timeline.waited > 0) & (timeline.cause >= 0))
    for arrow in arrows:
        row = by_row[arrow["pid"], arrow["tid"]]
        assert any(e["ts"] <= arrow["ts"] <= e["ts"] + e["dur"] for e in row)
        assert arrow["name"] in Wait.__members__


def test_launches_follow_each_other(launches, trace):
    ends = {p: max(e["ts"] + e["dur"] for e in slices(trace) if e["pid"] == p) for p in (1, 2)}
    starts = {p: min(e["ts"] for e in slices(trace) if e["pid"] == p) for p in (1, 2)}
    assert ends[1] <= starts[2] + 1e-9


def test_the_counter_returns_to_zero_and_stays_within_sbuf(launches, trace):
    used = [e["args"]["bytes"] for e in trace if e["ph"] == "C" and e["pid"] == 1]
    times = [e["ts"] for e in trace if e["ph"] == "C" and e["pid"] == 1]
    assert used[0] > 0 and used[-1] == 0
    assert 128 * 4 + 512 * 4 <= max(used) <= launches[0][0].placement.sbuf.high_water
    assert times == sorted(set(times))


def test_the_file_is_json_and_the_same_each_time(launches, tmp_path):
    write_trace(tmp_path / "one.json", launches)
    write_trace(tmp_path / "two.json", launches)
    text = (tmp_path / "one.json").read_text()
    assert json.loads(text)["displayTimeUnit"] == "ns"
    assert len(json.loads(text)["traceEvents"]) == len(list(events(launches)))
    assert text == (tmp_path / "two.json").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.json", "two.json"]


def test_a_failing_write_leaves_the_old_file(launches, tmp_path, monkeypatch):
    path = tmp_path / "trace.json"
    path.write_text("old")

    def broken(launches):
        yield {"ph": "M"}
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nki_sim.report.trace.events", broken)
    with pytest.raises(OSError, match="No space left"):
        write_trace(path, launches)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["trace.json"]


def test_a_place_that_cannot_be_written(launches, tmp_path):
    with pytest.raises(OSError):
        write_trace(tmp_path / "missing" / "trace.json", launches)
