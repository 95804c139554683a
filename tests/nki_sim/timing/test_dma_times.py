"""DMA on the scoreboard: queues, engines and bandwidth."""

from __future__ import annotations

import pytest
from boards import Op, emit, tile, timed

from nki_isa.cost import transfers
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import TRN2
from nki_sim.timing.scoreboard import Wait


def test_rows_cost_what_the_traces_show():
    for size, low, high in ((256, 12, 14.2), (512, 23, 24), (2048, 79, 81), (4096, 155, 156)):
        assert low <= transfers.row_time(TRN2, size) <= high


def test_partitions_decide_the_engines():
    def share(shape):
        moved = transfers.copy(TRN2, tile(shape), tile(shape, region="shared_hbm", kind="input")).transfer
        return transfers.used_engines(TRN2, moved), transfers.engine_time(TRN2, moved)

    assert share((128, 1024)) == (16, pytest.approx(8 * (4.7 + 4096 / 27.2)))
    assert share((64, 1024)) == (8, pytest.approx(8 * (4.7 + 4096 / 27.2)))
    assert share((4, 2048)) == (1, pytest.approx(4 * (4.7 + 8192 / 27.2)))


def test_a_transfer_of_few_partitions_leaves_engines_to_others():
    """By hand: 64 partitions keep 8 of 16 engines busy for 8 rows each, so that two take as long as one."""

    def loads(partitions, count):
        shape = partitions, 4096
        views = [(tile(shape), tile(shape, region="shared_hbm", kind="input")) for _ in range(count)]
        return timed([emit("dma_copy", dst, src) for dst, src in views])

    rows, wait = 8 * (4.7 + 4 * 4096 / 27.2), 32768 / 23 - 32768 / 27.2
    two = loads(64, 2)
    assert (two.busy - two.begin).tolist() == pytest.approx([rows + wait] * 2)
    for many, later in ((loads(64, 8), TRN2.dma_swdge_interval), (loads(128, 4), 0.0)):
        assert many.busy.max() - many.begin.min() == pytest.approx(4 * rows + later)


def test_queues_take_turns_row_by_row():
    """By hand: beside a load of rows of 32 KiB, each row of 64 bytes of another queue waits for one."""
    modes = REGISTRY["dma_copy"].fields["dge_mode"].kind
    few, many = (tile((128, size), region="shared_hbm", kind="input") for size in (16, 8192))
    loads = [
        emit("dma_copy", dst=tile(many.shape), src=many, dge_mode=modes.none),
        emit("dma_copy", dst=tile(few.shape), src=few, dge_mode=modes.hwdge),
    ]
    timeline = timed(loads)
    short, long = TRN2.dma_row_floor_ns, TRN2.dma_row_ns + 32768 / TRN2.dma_bytes_per_ns
    alone = timeline.begin[1] - timeline.begin[0]
    turns = 8 - alone / long
    assert 7 < turns < 8
    waited = 8 * long + 32768 / 23 - 32768 / 27.2
    through = max(waited, alone + turns * (long + short)), turns * (long + short) + (8 - turns) * short
    assert (timeline.busy - timeline.begin).tolist() == pytest.approx(through)


def test_a_store_that_waits_does_not_hold_up_loads():
    hbm, out = tile((128, 512), region="shared_hbm", kind="input"), tile((128, 512), region="shared_hbm")
    slow = tile((128, 512))
    ops = [Op(Engine.vector, slow, busy=50_000.0, latency=50_000.0), emit("dma_copy", dst=out, src=slow)]
    ops += [emit("dma_copy", dst=tile((128, 512)), src=hbm) for _ in range(3)]
    timeline = timed(ops)
    assert timeline.start[1] > 50_000
    assert timeline.start[2:].tolist() == [0.0, 580.0, 1160.0]
    assert timeline.end[4] < 10_000


@pytest.mark.parametrize("regions", [("sbuf", "shared_hbm"), ("shared_hbm", "sbuf")], ids=["load", "store"])
@pytest.mark.parametrize("mode", ["none", "swdge", "hwdge"])
def test_a_queue_is_not_in_order_with_itself(mode, regions):
    """Unlike an engine: a DMA may write before the one ahead of it in its queue has written, so it waits."""
    dst, src = (tile((128, 512), region=region) for region in regions)
    modes = REGISTRY["dma_copy"].fields["dge_mode"].kind
    given = {"dge_mode": getattr(modes, mode), "engine": Engine.scalar}
    timeline = timed([emit("dma_copy", dst=dst, src=src, **given) for _ in range(2)])
    assert timeline.lane[0] == timeline.lane[1]
    assert timeline.start[1] >= timeline.end[0]
    assert (timeline.wait[1], timeline.cause[1]) == (Wait.reuse, 0)


def test_a_trigger_put_on_an_engine_holds_it():
    hbm = tile((128, 512), region="private_hbm", kind="constant")
    modes = REGISTRY["dma_copy"].fields["dge_mode"].kind
    ops = [
        emit("dma_copy", dst=tile((128, 512)), src=hbm, dge_mode=modes.hwdge, engine=Engine.scalar),
        Op(Engine.scalar, tile((128, 4))),
    ]
    timeline = timed(ops)
    assert timeline.start[1] == TRN2.dma_hwdge_issue
