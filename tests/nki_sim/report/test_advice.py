"""The critical path of runs, what bounds them, and what is told about their lines."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import PSUM, SHARED, Builder
from random_programs import Maker

from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.enums import Engine, dge_mode
from nki_isa.machine.targets import TRN2
from nki_sim import words
from nki_sim.cores.core_times import simulate, simulate_all
from nki_sim.report.advice import advice, row_efficiency
from nki_sim.report.critical import HANDOFF, by_kind, by_line, critical_path
from nki_sim.report.profile import Profile


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_the_path_covers_the_duration_once(seed: int) -> None:
    program = Maker(seed, kinds=("copy", "add", "store", "load", "random", "move", "read", "loop")).program
    timeline = simulate(program)
    path = critical_path(timeline)
    assert path[0].start == 0.0 and path[-1].end == timeline.duration
    for one, two in itertools.pairwise(path):
        assert one.end == pytest.approx(two.start)
        assert one.event <= two.event
    assert sum(by_kind(path).values()) == pytest.approx(timeline.duration)
    assert sum(line.time for line in by_line(timeline, path)) == pytest.approx(timeline.duration)


def copies(engines: list[Engine], dependent: bool) -> Builder:
    built = Builder("trn2")
    first = built.tensor(128, 512)
    for engine in engines:
        second = built.tensor(128, 512)
        built.emit(REGISTRY["tensor_copy"](dst=second, src=first, engine=engine))
        first = second if dependent else first
    return built


def test_a_chain_over_two_engines_is_latency_and_hand_offs() -> None:
    timeline = simulate(copies([Engine.vector, Engine.scalar] * 3, dependent=True).program)
    kinds = by_kind(critical_path(timeline))
    assert kinds[HANDOFF] == pytest.approx(5 * TRN2.semaphore_ns)
    assert len([step for step in critical_path(timeline) if step.kind != HANDOFF]) == 6


def test_an_engine_that_is_always_held_bounds() -> None:
    profile = Profile.of(simulate(copies([Engine.scalar] * 20, dependent=False).program))
    assert set(by_kind(critical_path(profile.timeline))) == {"scalar"}
    assert profile.bound.startswith("The scalar engine bounds it: it is held for 9")
    waiting = simulate(copies([Engine.vector, Engine.scalar] * 5, dependent=True).program)
    assert "Results that wait for each other bound it" in Profile.of(waiting).bound


def test_the_shares_of_lines_are_percent_of_the_run() -> None:
    timeline = simulate(copies([Engine.vector, Engine.scalar] * 3, dependent=True).program)
    lines = advice(timeline, critical_path(timeline), most=100)
    assert sum(line.share for line in lines) == pytest.approx(100.0)


def said(built: Builder) -> str:
    return Profile.of(simulate(built.program)).advice()[0].says


def test_what_to_try_names_the_cause() -> None:
    make = REGISTRY
    rows = Builder("trn2")
    source = rows.tensor(128, 4096, region=SHARED, kind="input")
    tile = rows.tensor(128, 512)
    rows.emit(make["dma_copy"](dst=tile[:, 0:512], src=source[:, 0:4096:8]))
    assert "descriptor rows of 4 B" in said(rows)

    start = Builder("trn2")
    start.emit(
        make["dma_copy"](
            dst=start.tensor(128, 1024), src=start.tensor(128, 1024, region=SHARED, kind="input")
        )
    )
    assert "starting, queueing and completing" in said(start)

    tables = Builder("trn2")
    one = tables.tensor(128, 64)
    for k in range(6):
        tables.emit(make["activation"](dst=one, op=["exp", "tanh"][k % 2], data=one))
    assert "activation tables, which are loaded 6 times for 2: run what uses the same" in said(tables)

    once = Builder("trn2")
    one = once.tensor(128, 64)
    once.emit(make["activation"](dst=one, op="exp", data=one))
    assert "for its activation table, which is loaded once" in said(once)

    fixed = Builder("trn2")
    for _ in range(50):
        fixed.emit(make["memset"](dst=fixed.tensor(128, 2), value=0.0, engine=Engine.vector))
    assert "fixed time of 50 instructions" in said(fixed)

    fp32 = Builder("trn2")
    left, right = fp32.tensor(128, 128), fp32.tensor(128, 512)
    for _ in range(8):
        fp32.emit(make["nc_matmul"](fp32.tensor(128, 512, region=PSUM), left, right, accumulate=False))
    assert "float32 takes 4 passes" in said(fp32)

    turned = Builder("trn2")
    for _ in range(8):
        turned.emit(
            make["nc_transpose"](dst=turned.tensor(128, 128, region=PSUM), data=turned.tensor(128, 128))
        )
    assert "8 transposes on the tensor engine" in said(turned)

    queue = Builder("trn2")
    source = queue.tensor(128, 64, region=SHARED, kind="input")
    for _ in range(40):
        queue.emit(make["dma_copy"](dst=queue.tensor(128, 64), src=source))
    assert "40 transfers overlap, the queue " in said(queue)


def test_what_streams_is_told_its_fastest_mode_and_an_engine_that_takes_it() -> None:
    make = REGISTRY
    wide = Builder("trn2")
    for _ in range(4):
        wide.emit(make["tensor_copy"](dst=wide.tensor(128, 2048), src=wide.tensor(128, 2048)))
    says = said(wide)
    assert "at 2 an engine cycle" in says and "it takes 4 a cycle; on " in says
    assert "with 16-bit operands, none in PSUM, contiguous," in says

    narrow = Builder("trn2")
    for _ in range(4):
        source, copy = (narrow.tensor(128, 4096, dtype="bfloat16") for _ in range(2))
        narrow.emit(make["tensor_copy"](dst=copy, src=source, engine=Engine.vector))
    says = said(narrow)
    assert "at 4 an engine cycle" in says and "16-bit" not in says
    assert ": on scalar, held 0.0 % of the time, one takes " in says

    only = Builder("trn2")
    tile = only.tensor(128, 2048)
    for _ in range(4):
        only.emit(make["activation"](dst=tile, op="exp", data=tile))
    assert said(only).endswith("on the scalar engine: only fewer elements take less")


def test_no_engine_is_named_that_may_not_run_it() -> None:
    """gpsimd does not read PSUM."""
    built = Builder("trn2")
    for _ in range(4):
        source = built.tensor(128, 512, region=PSUM)
        built.emit(REGISTRY["tensor_copy"](dst=built.tensor(128, 512), src=source, engine=Engine.vector))
    built.emit(REGISTRY["tensor_copy"](dst=built.tensor(128, 512), src=source, engine=Engine.scalar))
    says = said(built)
    assert "; on scalar, held " in says and "gpsimd" not in says


def test_rows_are_told_by_size_and_the_least_bytes_are_counted_once() -> None:
    built = Builder("trn2")
    source = built.tensor(128, 1024, region=SHARED, kind="input")
    result = built.output(128, 1024)
    tile = built.tensor(128, 1024)
    for _ in range(3):
        built.emit(REGISTRY["dma_copy"](dst=tile, src=source))
    built.emit(REGISTRY["dma_copy"](dst=tile[:, :16], src=source[:, :16]))
    built.emit(REGISTRY["dma_copy"](dst=result, src=tile))
    profile = Profile.of(simulate(built.program))
    small, large = profile.dma_rows()
    assert (small.least, small.below, small.transfers, small.rows) == (64, 256, 1, 128)
    assert (large.least, large.below, large.transfers, large.bytes) == (2048, None, 4, 4 << 19)
    assert large.efficiency == pytest.approx(100 * row_efficiency(TRN2, 4096))
    assert profile.hbm_minimum_bytes == 2 << 19
    assert profile.hbm_read_bytes + profile.hbm_write_bytes == (4 << 19) + 128 * 64


def test_the_roofline_has_both_ceilings() -> None:
    built = Builder("trn2")
    source = built.tensor(128, 640, dtype="bfloat16", region=SHARED, kind="input")
    tile = built.tensor(128, 640, dtype="bfloat16")
    product = built.tensor(128, 512, region=PSUM)
    built.emit(REGISTRY["dma_copy"](dst=tile, src=source))
    built.emit(REGISTRY["nc_matmul"](product, tile[:, :128], tile[:, 128:], accumulate=False))
    profile = Profile.of(simulate(built.program))
    line = profile.roofline
    flops, moved = 2 * 128 * 128 * 512, 128 * 640 * 2
    assert line["arithmetic_intensity"] == pytest.approx(flops / moved)
    assert line["memory_ceiling_tflops"] == pytest.approx(flops / moved * TRN2.hbm_bytes_per_ns / 1e3)
    assert line["compute_ceiling_tflops"] == TRN2.peak_tflops_bf16
    assert line["reached_tflops"] == pytest.approx(flops / profile.total / 1e3)


def test_shares_are_of_the_whole_time() -> None:
    """Two copies of two engines in turns: each share is its time over the duration, in percent."""
    timeline = simulate(copies([Engine.vector, Engine.scalar] * 5, dependent=True).program)
    profile = Profile.of(timeline)
    busy = {name: engine.busy for name, engine in profile.engines.items()}
    text = profile.bound
    kinds = list(by_kind(critical_path(timeline)).values())
    for part in (*kinds[:2], max(busy.values())):
        assert words.percent(part / timeline.duration) in text
    assert 0 < kinds[1] < timeline.duration


def test_what_ranks_exchange_is_told_with_its_time() -> None:
    built = Builder("trn2")
    sent = built.tensor(128, 512, region=SHARED)
    received = built.tensor(128, 512, region=SHARED)
    built.emit(
        REGISTRY["all_reduce"](srcs=[sent], dsts=[received], replica_group=((0, 1),), op="add", name="sum")
    )
    timeline = simulate(built.program)
    taken = float((timeline.end - timeline.start)[timeline.lane >= 0].max())
    assert f"exchange data for {words.time(taken)}" in Profile.of(timeline).advice()[0].says


def test_figures_that_look_odd_are_explained_where_they_stand() -> None:
    """Loads beside each other are busy for longer than the run, and so are the DMA engines together."""
    built = Builder("trn2")
    source = built.tensor(128, 4096, region=SHARED, kind="input")
    for part in range(8):
        tile = built.tensor(128, 512)
        built.emit(REGISTRY["dma_copy"](dst=tile, src=source[:, part * 512 : (part + 1) * 512]))
    profile = Profile.of(simulate(built.program))
    (together,) = profile.remarks()
    assert f"{words.time(profile.dma.engine_time)} together" in together
    assert profile.dma.engine_time > profile.duration

    still = Profile.of(simulate(copies([Engine.vector] * 3, dependent=True).program))
    assert still.remarks() == []


@pytest.mark.parametrize("mode", ["none", "hwdge"])
def test_a_later_start_is_explained_and_what_to_write_takes_it_away(mode: str) -> None:
    def launched(cores: int, **asked: object) -> Profile:
        built = Builder("trn2")
        source = built.tensor(128, 512, region=SHARED, kind="input")
        built.emit(REGISTRY["dma_copy"](dst=built.tensor(128, 512), src=source, **asked))
        return Profile.of(simulate_all([built.program] * cores, [None] * cores)[0])

    late, prompt = launched(2), launched(2, dge_mode=dge_mode[mode])
    remark = late.remarks()[0]
    assert f"starts {words.time(TRN2.program_pair_start)} later" in remark and f"{mode}" in remark
    assert not any("starts" in one for one in (*prompt.remarks(), *launched(1).remarks()))
    assert prompt.total < late.total - 0.9 * TRN2.program_pair_start
