"""The figures of a profile against their definitions."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nki_isa.ops  # noqa: F401  (fills the registry)
from nki_isa.diagnostics import Frame, Span
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.enums import Engine, dge_mode
from nki_isa.machine.targets import TRN1, TRN2
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.report.profile import LineSummary, Profile, union
from nki_sim.report.trace import REASONS
from nki_sim.timing.scoreboard import Scoreboard, Timeline, Wait


def tile(shape, dtype="bfloat16", region="sbuf", kind="local"):
    return NkiTensor.whole(Storage(0, "t", MemoryRegion(region), shape, as_dtype(dtype), kind=kind))


def emit(opcode, line, *args, **kwargs):
    instruction = REGISTRY[opcode](*args, **kwargs)
    instruction.stack = (Frame("kernel", Span("kernel.py", line)),)
    return instruction


def matmul_of_blocks(target, blocks=40) -> Timeline:
    """Load a stationary and a moving tile, multiply them often, copy and store each product."""
    board = Scoreboard(target)
    source = tile((128, 640), region="shared_hbm", kind="input")
    result = tile((128, blocks * 512), region="shared_hbm")
    operands = tile((128, 640))
    board.issue(emit("dma_copy", 1, dst=operands, src=source))
    for k in range(blocks):
        product, copied = tile((128, 512), "float32", "psum"), tile((128, 512))
        board.issue(emit("nc_matmul", 2, product, operands[:, 0:128], operands[:, 128:640], accumulate=False))
        board.issue(emit("tensor_copy", 3, dst=copied, src=product, engine=Engine.vector))
        board.issue(emit("dma_copy", 4, dst=result[:, k * 512 : k * 512 + 512], src=copied))
    return board.finish()


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=30))
def test_union_is_the_time_covered(intervals):
    start = np.array([a for a, _ in intervals], np.float64)
    end = start + np.array([n for _, n in intervals], np.float64)
    covered = {t for a, n in intervals for t in range(a, a + n)}
    assert union(start, end) == len(covered)


@pytest.mark.parametrize("target", [TRN1, TRN2], ids=lambda target: target.name)
def test_figures_of_dma_follow_their_definitions(target):
    timeline = matmul_of_blocks(target, 3)
    found = Profile.of(timeline).dma
    moved = 2 * 128 * (640 + 3 * 512)
    assert (found.transfers, found.bytes, found.rows) == (4, moved, 4 * 128)
    assert found.mean_bytes == pytest.approx(moved / 4) and found.mean_row_bytes == pytest.approx(moved / 512)
    assert sum(found.queues.values()) == 4 and len(found.queues) == 2
    active = last = 0.0
    for k in sorted(range(len(timeline.costs)), key=lambda k: timeline.begin[k]):
        if timeline.costs[k].transfer is not None:  # data move until the completion is written
            begin, end = timeline.begin[k], timeline.end[k] - target.dma_completion
            active += max(0.0, end - max(begin, last))
            last = max(last, end)
    assert found.active == pytest.approx(active)
    assert found.active_percent == pytest.approx(100 * active / timeline.total)
    assert found.roof_percent == pytest.approx(100 * moved / timeline.total / target.dma_roof_bytes_per_ns)


def test_no_more_than_the_peak_is_achievable():
    """40 products of one load: HBM could feed ten times what the tensor engine makes."""
    board = Scoreboard(TRN2)
    operands = tile((128, 640))
    board.issue(emit("dma_copy", 1, dst=operands, src=tile((128, 640), region="shared_hbm", kind="input")))
    for _ in range(40):
        product = tile((128, 512), "float32", "psum")
        board.issue(emit("nc_matmul", 2, product, operands[:, 0:128], operands[:, 128:640], accumulate=False))
    profile = Profile.of(board.finish())
    assert profile.arithmetic_intensity > 10 * 78_640 / 716
    assert profile.achievable_mfu == 100


def test_figures_follow_their_definitions():
    blocks = 40
    profile = Profile.of(matmul_of_blocks(TRN1, blocks))
    flops = 2 * 128 * 128 * 512 * blocks
    assert profile.flops == profile.hardware_flops == flops
    assert profile.hbm_read_bytes == 128 * 640 * 2
    assert profile.hbm_write_bytes == 128 * 512 * 2 * blocks
    assert profile.total == profile.duration + 14_570
    assert profile.mfu == pytest.approx(100 * flops / (profile.total * 1e-9) / 91.75e12)
    moved = profile.hbm_read_bytes + profile.hbm_write_bytes
    assert profile.mbu == pytest.approx(100 * moved / profile.total / 410)
    assert profile.arithmetic_intensity == flops / moved
    assert profile.achievable_mfu == pytest.approx(100 * (flops / moved) / (91_750 / 410))
    assert profile.dma.transfers == blocks + 1
    assert profile.dma.rows == 128 * (blocks + 1)
    assert profile.dma.mean_bytes == moved / (blocks + 1)
    assert profile.dma.queues == {"static load": 1, "static store": blocks}


def test_transposes_count_as_hardware_flops_only():
    board = Scoreboard(TRN2)
    board.issue(emit("nc_transpose", 1, dst=tile((128, 128), region="psum"), data=tile((128, 128))))
    profile = Profile.of(board.finish())
    assert profile.flops == 0
    assert profile.hardware_flops == 2 * 128**3
    assert profile.hfu > profile.mfu == 0


def test_dma_triggers_and_table_loads_make_an_engine_active():
    """As in the public trn2 profiles, where the scalar engine triggers stores and loads a table once."""
    board = Scoreboard(TRN2)
    source, result = tile((128, 512)), tile((128, 512), region="shared_hbm")
    for dst in (tile((128, 512)), tile((128, 512))):
        board.issue(emit("activation", 1, dst=dst, op="exp", data=source))
    board.issue(emit("dma_copy", 2, dst=result, src=source, dge_mode=dge_mode.hwdge, engine=Engine.scalar))
    timeline = board.finish()
    one, two = ((float(timeline.start[k]), float(timeline.end[k])) for k in range(2))
    trigger = float(timeline.start[2])
    assert one[0] == TRN2.scalar_table_load and one[0] < two[0] < one[1]
    found = Profile.of(timeline).engines["scalar"].active
    assert trigger < two[1] < trigger + TRN2.dma_hwdge_issue
    assert found == pytest.approx(trigger + TRN2.dma_hwdge_issue)


def test_engines_account_for_all_their_time():
    timeline = matmul_of_blocks(TRN2)
    profile = Profile.of(timeline)
    for lane, (_, summary) in enumerate(profile.engines.items()):
        mine = timeline.lane == lane
        assert summary.busy == pytest.approx((timeline.busy - timeline.start)[mine].sum())
        # held or idle for a named reason, from the first possible trigger to the last result
        assert summary.busy + sum(summary.idle.values()) == pytest.approx(timeline.duration)
        if not mine.any():
            assert summary.active == summary.active_percent == 0
            continue
        assert 0 < summary.active_percent <= 100
        assert summary.active <= summary.instruction_time + 1e-6
    assert profile.engines["tensor"].instructions == 2 * 40
    assert set(profile.engines["vector"].idle) == {"data", "semaphore", "done"}


def test_a_dma_trigger_holds_the_engine_it_is_put_on():
    """The scalar engine triggers the load, about 600 ns by hardware DGE, and runs its own work after."""
    board = Scoreboard(TRN2)
    loaded, other = tile((128, 512)), tile((128, 64))
    source = tile((128, 512), region="shared_hbm", kind="input")
    board.issue(emit("dma_copy", 1, dst=loaded, src=source, dge_mode=dge_mode.hwdge, engine=Engine.scalar))
    board.issue(emit("activation", 2, dst=other, op="copy", data=other, scale=1.0))
    timeline = board.finish()
    scalar = Profile.of(timeline).engines["scalar"]
    own = float(timeline.busy[1] - timeline.start[1])
    assert scalar.busy == pytest.approx(own + TRN2.dma_hwdge_issue)
    assert scalar.busy + sum(scalar.idle.values()) == pytest.approx(timeline.duration)
    assert scalar.instructions == 1


def test_a_trigger_waits_for_its_queue():
    """The sync engine triggers a load, which keeps the queue; the scalar engine's own trigger comes after."""
    board = Scoreboard(TRN2)
    source = tile((128, 512), region="shared_hbm", kind="input")
    for line, engine in enumerate((Engine.sync, Engine.scalar)):
        board.issue(
            emit("dma_copy", line, dst=tile((128, 512)), src=source, dge_mode=dge_mode.hwdge, engine=engine)
        )
    timeline = board.finish()
    assert (timeline.wait[1], timeline.waited[1]) == (Wait.queue, TRN2.dma_hwdge_issue)
    summary = Profile.of(timeline).engines["scalar"]
    assert summary.idle["queue"] == pytest.approx(TRN2.dma_hwdge_issue)
    assert summary.busy + sum(summary.idle.values()) == pytest.approx(timeline.duration)


def test_lines_say_where_the_time_goes():
    lines = Profile.of(matmul_of_blocks(TRN2)).lines()
    assert {line.place for line in lines} == {f"kernel.py:{n}" for n in (1, 2, 3, 4)}
    assert [line.busy for line in lines] == sorted((line.busy for line in lines), reverse=True)
    assert {line.place: line.instructions for line in lines}["kernel.py:2"] == 40


def test_a_profile_is_json_and_a_table():
    profile = Profile.of(matmul_of_blocks(TRN2, 4))
    read = json.loads(json.dumps(profile.as_dict()))
    assert read["target"] == "trn2" and read["events"] == 13
    assert set(read["engines"]) == {"tensor", "vector", "scalar", "gpsimd", "sync"}
    columns = profile.columns()
    assert {len(list(column)) for column in columns.values()} == {13}
    assert list(columns["opcode"])[:3] == ["dma_copy", "nc_matmul", "tensor_copy"]


def test_an_empty_program_has_a_profile():
    profile = Profile.of(Scoreboard(TRN2).finish())
    assert profile.duration == 0
    assert profile.total == 15_270
    assert profile.mfu == profile.mbu == profile.dma.mean_bytes == 0
    assert profile.achievable_mfu == 100


def test_each_reason_to_wait_has_a_number_and_words_of_its_own():
    assert set(REASONS) == set(Wait) - {Wait.none}
    assert len(set(REASONS.values())) == len(REASONS)
    assert Wait.order is not Wait.core


def test_what_a_profile_says_of_a_line_stays():
    line = LineSummary("kernel.py:3", 1, 2.0, 0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        line.busy = 3.0
