"""The scoreboard against hand-computed timelines and against a byte-by-byte model."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nki_isa.ops  # noqa: F401  (fills the registry)
from nki_isa.cost import Cost, transfers
from nki_isa.ir.fields import Field, Role
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ir.program import Loop, Program, While
from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import TRN1, TRN2, TRN3
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.cores.core_times import simulate
from nki_sim.timing.byte_boxes import Layout
from nki_sim.timing.clocks import DmaEngines, TensorClock
from nki_sim.timing.plans import LANES
from nki_sim.timing.scoreboard import Scoreboard, Wait


class Op(Instruction):
    """An instruction that is only its engine, cost and operands."""

    fields = {
        "dst": Field(Role.write, None, name="dst"),
        "sources": Field(Role.reads, (), name="sources"),
        "counter": Field(Role.register_write, None, name="counter"),
        "bound": Field(Role.register_read, None, name="bound"),
    }
    opcode = "op"

    def __init__(self, on, dst=None, sources=(), busy=100.0, latency=200.0, counter=None, bound=None, **cost):
        self.dst, self.sources, self.counter, self.bound = dst, tuple(sources), counter, bound
        self.on = on
        self.price = Cost(busy, latency, "vector_interval", **cost)

    def cost(self, target):
        return self.price


class At:
    """A placement."""

    def __init__(self, addresses):
        self.addresses = addresses


_count = iter(range(1_000_000_000))


def tile(shape, dtype="float32", region="sbuf", kind="local", index=None):
    storage = Storage(
        next(_count) if index is None else index, "t", MemoryRegion(region), shape, as_dtype(dtype), kind=kind
    )
    return NkiTensor.whole(storage)


def part(tensor, *ranges):
    """The box of a tensor with these (start, stop) per dimension."""
    offset = sum(a * s for (a, _), s in zip(ranges, tensor.strides, strict=True))
    return NkiTensor(tuple(b - a for a, b in ranges), tensor.strides, offset, tensor.dtype, tensor.storage)


def timed(instructions, target=TRN2, placement=None):
    board = Scoreboard(target, placement)
    for instruction in instructions:
        board.issue(instruction)
    return board.finish()


def emit(opcode, *args, **kwargs):
    return REGISTRY[opcode](*args, **kwargs)


# --- hand-computed timelines


def test_engines_run_beside_each_other_and_wait_for_data():
    a, b, c = (tile((128, 4)) for _ in range(3))
    timeline = timed(
        [
            Op(Engine.vector, a),
            Op(Engine.vector, b),  # in order: 100 after the first
            Op(Engine.scalar, c, [a]),  # 200 + 36 semaphore
            Op(Engine.vector, a, [a]),  # 200 + 35 on its own engine; and after the reader of a: 436 + 36
            Op(Engine.gpsimd, c, [b]),  # reads b at 300 + 36, overwrites c: 436 + 36
        ]
    )
    assert timeline.format() == "\n".join(
        [
            "0 vector op 0.0..100.0..200.0",
            "1 vector op 100.0..200.0..300.0",
            "2 scalar op 236.0..336.0..436.0  waited 236.0 for data of 0",
            "3 vector op 472.0..572.0..672.0  waited 272.0 for reuse of 2",
            "4 gpsimd op 472.0..572.0..672.0  waited 472.0 for reuse of 2",
        ]
    )
    assert timeline.duration == 672.0
    assert timeline.total == 672.0 + TRN2.program_start + TRN2.program_end
    assert timeline.handoff.tolist() == [0, 0, 36, 36, 36]


def test_parts_of_a_tensor_are_independent():
    whole = tile((128, 2, 8))
    left, right = (part(whole, (0, 128), (k, k + 1), (0, 8)) for k in (0, 1))
    lower = part(whole, (64, 128), (0, 1), (0, 8))
    reader = Op(Engine.gpsimd, tile((64, 8)), [lower])
    timeline = timed([Op(Engine.vector, left), Op(Engine.scalar, right), reader])
    assert timeline.start.tolist() == [0.0, 0.0, 236.0]


def test_engine_overwrites_what_it_read_itself_without_a_wait():
    a, b = tile((128, 4)), tile((128, 4))
    timeline = timed([Op(Engine.vector, b, [a]), Op(Engine.vector, a)])
    assert timeline.start.tolist() == [0.0, 100.0]


def test_an_instruction_waits_for_those_it_is_to_run_after():
    first, second, free = (
        Op(Engine.vector, tile((128, 4))),
        Op(Engine.scalar, tile((128, 4))),
        Op(Engine.gpsimd),
    )
    second.after = (first, Op(Engine.gpsimd))  # another that is not of this run does not matter
    timeline = timed([first, second, free])
    assert timeline.start.tolist() == [0.0, 236.0, 0.0]
    assert (timeline.wait[1], timeline.cause[1]) == (Wait.order, 0)
    third, last = Op(Engine.vector, tile((128, 4))), Op(Engine.scalar, tile((128, 4)))
    last.after = (first, third)  # the later of both counts, 300 + 36
    assert timed([first, third, last]).start.tolist() == [0.0, 100.0, 336.0]
    last.after = (third, first)
    assert timed([first, third, last]).start.tolist() == [0.0, 100.0, 336.0]


def test_load_multiply_copy_store():
    # Software descriptors: 1200 to build, 755 to the first byte; 8 rows of 4 KiB on each of 16 engines
    # take 8 x (4.7 + 4096 / 27.2); 600 until the last engine is done, 356 until the semaphore is seen.
    source = tile((128, 1024), region="shared_hbm", kind="input")
    result = tile((128, 1024), region="shared_hbm")
    loaded, copied = tile((128, 1024)), tile((128, 1024))
    timeline = timed(
        [
            emit("dma_copy", dst=loaded, src=source),
            emit("tensor_copy", dst=copied, src=loaded, engine=Engine.vector),
            emit("dma_copy", dst=result, src=copied),
        ]
    )
    data = 8 * (4.7 + 4096 / 27.2)
    visible = 1955 + data + 956
    assert timeline.begin[0] == 1955
    assert timeline.busy[0] == pytest.approx(1955 + data)
    assert timeline.end[0] == pytest.approx(visible)
    assert timeline.start[1] == pytest.approx(visible + 23)
    copied_at = visible + 23 + 1024 / 2 / 0.96 + 150
    assert timeline.end[1] == pytest.approx(copied_at)
    assert timeline.start[2] == pytest.approx(copied_at + 36)
    assert timeline.begin[2] == pytest.approx(copied_at + 36 + 1200 + 630)
    assert [LANES[k] for k in timeline.lane] == ["swdge load", "vector", "swdge store"]
    assert timeline.wait.tolist() == [Wait.none, Wait.data, Wait.data]


def test_a_new_activation_table_is_loaded_ahead_of_the_data():
    a, b = tile((128, 4)), tile((128, 4))
    ops = [
        Op(Engine.vector, a, busy=2000.0, latency=2000.0),
        Op(Engine.scalar, b, [a], table="exp"),  # the load runs while the vector engine works
        Op(Engine.scalar, a, table="exp"),
        Op(Engine.scalar, tile((128, 4)), table="gelu"),
    ]
    timeline = timed(ops)
    assert timeline.start.tolist() == [0.0, 2036.0, 2136.0, 2236.0 + TRN2.scalar_table_load]
    assert timeline.wait[3] == Wait.table


# --- tensor engine


def matmuls(count, moving=512, stationary=128, dtype="bfloat16", target=TRN2):
    ops = []
    for _ in range(count):
        operands = tile((128, stationary), dtype), tile((128, moving), dtype)
        dst = tile((stationary, moving), region="psum")
        ops.append(emit("nc_matmul", dst, *operands, accumulate=False))
    return timed(ops, target)


@pytest.mark.parametrize(("moving", "dtype", "expected"), [(512, "bfloat16", 216), (128, "bfloat16", 55.5)])
def test_weights_load_under_the_matmul_before(moving, dtype, expected):
    starts = matmuls(300, moving).start
    assert starts[-1] - starts[-2] == pytest.approx(expected, abs=1.0)  # measured back to back


@pytest.mark.parametrize(("rows", "full"), [(128, True), (64, False)])
def test_matmuls_of_few_rows_never_run_at_the_full_rate(rows, full):
    """It takes 37 % of the most products: at half of the rate, all rows make 50 %, half of them 25."""
    operands = [tile((rows, width), "bfloat16") for width in (128, 512)]
    ops = [
        emit("nc_matmul", tile((128, 512), "float32", "psum"), *operands, accumulate=False) for _ in range(60)
    ]
    starts = timed(ops).start
    rate = 2.4 if full else 1.2
    assert starts[-1] - starts[-2] == pytest.approx(512 / rate + TRN2.tensor_interval, abs=1.0)


def on_tiles(places, ports=2.0):
    """Starts of matmuls of 512 columns on 128 x 32 tiles of trn1's rates, at these columns of the array."""
    ops = [
        emit(
            "nc_matmul",
            tile((32, 512), region="psum"),
            tile((128, 32), "bfloat16"),
            tile((128, 512), "bfloat16"),
            accumulate=False,
            tile_position=(0, 0 if place is None else place),
            tile_size=(128, 128 if place is None else 32),
        )
        for place in places
    ]
    return timed(ops, replace(TRN2, throttled=False, tensor_interval=0.0, tensor_ports=ports)).start * 2.4


def test_matmuls_on_different_tiles_share_the_moving_ports():
    """Two elements of moving data a row and cycle: two of four tiles stream at a time."""
    starts = on_tiles([0, 32, 64, 96, 0, 32])
    assert np.diff(starts) == pytest.approx([256] * 5, abs=1)
    assert np.diff(on_tiles([0, 32, 64, 96], ports=4.0)) == pytest.approx([128] * 3, abs=1)


def test_a_tile_and_the_whole_array_wait_for_what_runs_on_them():
    assert np.diff(on_tiles([0, 0, 0])) == pytest.approx([512] * 2, abs=1)
    assert np.diff(on_tiles([0, 64, None, 0])) == pytest.approx([256, 512, 512], abs=1)


def test_weights_of_8_bits_load_in_half_the_time():
    machine = replace(TRN2, throttled=False)
    for dtype, cycles in (("bfloat16", 128), ("float8_e4m3", 64)):
        starts = matmuls(5, moving=4, dtype=dtype, target=machine).start
        assert np.diff(starts) == pytest.approx([cycles / 2.4 + machine.tensor_interval] * 4)


@pytest.mark.parametrize(("moving", "expected"), [(512, 857), (128, 220)])
def test_fp32_is_two_matmuls_of_two_passes(moving, expected):
    starts = matmuls(200, moving, dtype="float32").start
    assert starts[-1] - starts[-2] == pytest.approx(expected, abs=2.0)


def test_a_matmul_shorter_than_its_weights_waits_for_them():
    # streaming takes at least 64 cycles a pass, 128 for half of an fp32 product, but its weights take 256
    timeline = matmuls(5, moving=1, dtype="float32", target=TRN1)
    assert timeline.wait[-1] == Wait.weights
    assert timeline.start[-1] - timeline.start[-2] == pytest.approx(2 * 256 / 2.8)


def test_accumulation_in_psum_needs_no_semaphore():
    dst = tile((128, 512), region="psum")
    ops = [
        emit("nc_matmul", dst, tile((128, 128), "bfloat16"), tile((128, 512), "bfloat16"), accumulate=k > 0)
        for k in range(3)
    ]
    starts = timed(ops, TRN1).start
    assert np.diff(starts) == pytest.approx(512 / 2.8 + TRN1.tensor_interval)


def test_trn1_has_no_throttle_and_trn2_starts_at_half_rate():
    assert np.diff(matmuls(3, target=TRN1).start)[-1] == pytest.approx(512 / 2.8 + 2.1)
    cold = matmuls(3)
    assert np.diff(cold.start)[-1] == pytest.approx(512 / 1.2 + 2.5)
    assert cold.end[-1] - cold.start[-1] == pytest.approx(512 / 1.2 + 205)


@pytest.mark.parametrize(("share", "full"), [(0.369, False), (0.375, True), (0.381, True)])
def test_utilisation_of_a_window_sets_the_rate_of_the_next(share, full):
    # the largest share seen followed by half rate, the smallest followed by full rate
    clock = TensorClock(TRN2)
    window = TRN2.throttle_window
    clock.stream(0.0, share * window * 2.4, 1.0)
    clock.advance(window + 1)
    assert clock.full is full
    clock.advance(3 * window)  # an idle window slows it down again
    assert not clock.full


def test_half_of_the_rows_count_half():
    clock = TensorClock(TRN2)
    clock.stream(0.0, 0.45 * TRN2.throttle_window * 2.4, 0.5)
    clock.advance(TRN2.throttle_window)
    assert not clock.full


def test_matmuls_with_few_moving_columns_do_not_warm_the_clock():
    # the engine turns around in 64 cycles of the base clock, and only what it streams counts as use
    assert np.diff(matmuls(400, moving=4).start)[-1] == pytest.approx(128 / 1.2 + 2.5)
    assert np.diff(matmuls(400, moving=128).start)[-1] == pytest.approx(128 / 2.4 + 2.5)


def test_streaming_across_windows_changes_rate_midway():
    clock = TensorClock(TRN2)
    window = TRN2.throttle_window
    in_first = window * 1.2  # all of the cold window: utilisation 0.5
    end = clock.stream(0.0, in_first + 2400, 1.0)
    assert end == pytest.approx(window + 1000.0)
    assert clock.slow == pytest.approx(window)


def test_neighbours_far_apart_halve_the_rate_of_a_port_on_trn1():
    """A tensor_copy of every 4th or every 8th float32: 16 bytes apart are not too far, 32 are."""

    def interval(step, target):
        wide = tile((128, 512 * step))
        return timed([emit("tensor_copy", tile((128, 512)), wide[:, ::step])], target).busy[0]

    whole = interval(1, TRN1)
    assert interval(4, TRN1) == whole
    assert interval(8, TRN1) == pytest.approx(whole + 512 / 0.7 - 512 / 1.12)
    assert interval(8, TRN2) == interval(1, TRN2)


# --- DMA


@pytest.mark.parametrize(("target", "factor"), [(TRN1, 2.0), (TRN2, 2.0), (TRN3, 1.0)])
def test_sums_on_the_way_into_sbuf_move_at_half_rate_before_trn3(target, factor):
    """A sum of two tensors moves what two copies move; trn3 adds beside its memory."""
    outer, dst = [tile((128, 4096), region="shared_hbm", kind="input") for _ in range(2)], tile((128, 4096))
    added = timed([emit("dma_compute", dst, outer, reduce_op="add")], target)
    copied = timed([emit("dma_copy", dst, outer[0])], target)
    moving = [float(line.busy[0] - line.begin[0]) for line in (added, copied)]
    assert moving[0] == pytest.approx(factor * 2 * moving[1])


def test_rows_cost_what_the_traces_show():
    for size, low, high in ((256, 12, 14.2), (512, 23, 24), (2048, 79, 81), (4096, 155, 156)):
        assert low <= transfers.row_time(TRN2, size) <= high
    assert 22 <= transfers.row_time(TRN2, 256, small_write=True) <= 23
    assert transfers.row_time(TRN2, 512, small_write=True) == transfers.row_time(TRN2, 512)


def test_partitions_decide_the_engines():
    def share(shape):
        moved = transfers.copy(TRN2, tile(shape), tile(shape, region="shared_hbm", kind="input")).transfer
        return transfers.used_engines(TRN2, moved), transfers.engine_time(TRN2, moved)

    assert share((128, 1024)) == (16, pytest.approx(8 * (4.7 + 4096 / 27.2)))
    assert share((64, 1024)) == (8, pytest.approx(8 * (4.7 + 4096 / 27.2)))
    assert share((4, 2048)) == (1, pytest.approx(4 * (4.7 + 8192 / 27.2)))


def test_transfers_share_the_engines():
    engines = DmaEngines()
    assert engines.book(0.0, 300.0) == 300.0
    assert engines.book(0.0, 300.0) == 600.0
    assert engines.book(10_000.0, 100.0) == 10_100.0
    assert engines.book(0.0, 800.0) == 1400.0  # before what was booked for later


def test_a_transfer_of_few_partitions_leaves_engines_to_others():
    """By hand: 64 partitions keep 8 of 16 engines busy for 8 rows each, so that two take as long as one."""

    def loads(partitions, count):
        shape = partitions, 4096
        views = [(tile(shape), tile(shape, region="shared_hbm", kind="input")) for _ in range(count)]
        return timed([emit("dma_copy", dst, src) for dst, src in views])

    rows = 8 * (4.7 + 4 * 4096 / 27.2)
    two = loads(64, 2)
    assert (two.busy - two.begin).tolist() == pytest.approx([rows, rows])
    for many in (loads(64, 8), loads(128, 4)):
        assert many.busy.max() - many.begin.min() == pytest.approx(4 * rows, rel=0.01)


@given(st.lists(st.tuples(st.floats(0, 5e4), st.floats(1, 5e3)), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_no_work_is_lost_or_done_early(jobs):
    engines = DmaEngines()
    ends = [engines.book(start, work) for start, work in jobs]
    for (start, work), end in zip(jobs, ends, strict=True):
        assert end >= start + work - 1e-6
    # all of it is done no later than if it had run one by one from the last start on
    assert max(ends) <= max(s for s, _ in jobs) + sum(w for _, w in jobs) + 1000.0
    assert max(ends) >= min(s for s, _ in jobs) + sum(w for _, w in jobs) - 1000.0


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


# --- bytes that tensors share


def test_bytes_of_an_earlier_tensor_are_waited_for():
    first, second, third = (tile((128, 8), index=k) for k in range(3))
    ops = [Op(Engine.vector, first), Op(Engine.scalar, third, [first]), Op(Engine.gpsimd, second)]
    placement = At({0: (0, 0), 1: (0, 16), 2: (0, 4096)})
    timeline = timed(ops, placement=placement)
    assert timeline.start[2] == 436.0 + 36.0
    assert (timeline.wait[2], timeline.cause[2]) == (Wait.memory, 1)
    placement.addresses[1] = (0, 32)  # right behind it
    assert timed(ops, placement=placement).start[2] == 0.0
    assert timed(ops).start[2] == 0.0


@pytest.mark.parametrize("low, high", [(64, 128), (0, 64), (32, 64)])
def test_what_has_some_of_the_partitions_leaves_the_others_to_those_before(low, high):
    """All are written, then `low` to `high` by another tensor: later tensors wait for what they overlap."""
    first, second = tile((128, 4), index=0), tile((high - low, 4), index=1)
    third, fourth = tile((64, 4), index=2), tile((64, 4), index=3)
    ops = [Op(Engine.vector, first, latency=900.0), Op(Engine.gpsimd, second, latency=300.0)]
    ops += [Op(Engine.scalar, third, busy=1.0, latency=1.0), Op(Engine.sync, fourth, busy=1.0, latency=1.0)]
    placement = At({0: (0, 0), 1: (low, 0), 2: (0, 0), 3: (64, 0)})
    timeline = timed(ops, placement=placement)
    behind = [900.0, 936.0 + 300.0]  # the end of the first, of the second
    ends = [behind[1] if low < stop and start < high else behind[0] for start, stop in ((0, 64), (64, 128))]
    assert timeline.end[:2].tolist() == behind
    assert [timeline.cause[k] for k in (2, 3)] == [1 if end == behind[1] else 0 for end in ends]
    assert all(timeline.start[k] >= end for k, end in zip((2, 3), ends))


@pytest.mark.parametrize("low, start", [(0, 0.0), (7, 0.0), (8, 236.0), (15, 236.0)])
def test_bytes_before_those_of_an_earlier_tensor_are_free(low, start):
    """The earlier one is 32 bytes behind the start of the later, of which one element is read."""
    earlier, later = tile((128, 16), index=0), tile((128, 16), index=1)
    reading = Op(Engine.scalar, tile((128, 1), index=2), [part(later, (0, 128), (low, low + 1))])
    placement = At({0: (0, 32), 1: (0, 0), 2: (0, 4096)})
    assert timed([Op(Engine.vector, earlier), reading], placement=placement).start[1] == start
    rows = tile((128, 2, 8), index=1)  # the same in two rows
    reading.sources = (part(rows, (0, 128), (low // 8, low // 8 + 1), (low % 8, low % 8 + 1)),)
    assert timed([Op(Engine.vector, earlier), reading], placement=placement).start[1] == start


_LANES = (Engine.vector, Engine.scalar, Engine.gpsimd, Engine.sync)


class Bytewise:
    """The same rules, one byte at a time: who wrote it last, who read it since."""

    def __init__(self, target):
        self.target = target
        self.free = dict.fromkeys(_LANES, 0.0)
        self.writes = {}
        self.reads = {}

    def hand(self, producer, consumer):
        return self.target.same_engine_ns if producer is consumer else self.target.semaphore_ns

    def issue(self, op, read, written):
        ready = self.free[op.on]
        for byte in read:
            if byte in self.writes:
                end, lane = self.writes[byte]
                ready = max(ready, end + self.hand(lane, op.on))
        for byte in written:
            for end, lane in [*self.reads.get(byte, {}).items(), self.writes.get(byte, (None, op.on))]:
                if isinstance(end, Engine):
                    end, lane = lane, end
                if lane is not op.on:
                    ready = max(ready, end + self.hand(lane, op.on))
        self.free[op.on] = ready + op.price.busy
        for byte in read:
            self.reads.setdefault(byte, {})[op.on] = ready + op.price.latency
        for byte in written:
            self.writes[byte] = (ready + op.price.latency, op.on)
            self.reads.pop(byte, None)
        return ready


ranges = st.tuples(st.integers(0, 3), st.integers(1, 2)).map(lambda r: (r[0], min(4, r[0] + r[1])))
lanes = st.sampled_from(_LANES)
tensors3, tensors4 = st.integers(0, 2), st.integers(0, 3)
boxes = st.tuples(*[ranges] * 6)
steps = st.lists(st.tuples(lanes, tensors3, tensors3, boxes, st.integers(1, 40)), min_size=1, max_size=40)


@given(steps)
@settings(max_examples=80, deadline=None)
def test_starts_are_those_of_a_byte_by_byte_model(program):
    tensors = [tile((4, 4, 4), "uint8") for _ in range(3)]
    model, ops, expected = Bytewise(TRN2), [], []
    for lane, source, target, bounds, busy in program:
        read, written = part(tensors[source], *bounds[:3]), part(tensors[target], *bounds[3:])
        op = Op(lane, written, [read], busy=10.0 * busy, latency=10.0 * busy + 100)
        ops.append(op)
        grids = [
            {(t, i, j, k) for i in range(*box[0]) for j in range(*box[1]) for k in range(*box[2])}
            for t, box in ((source, bounds[:3]), (target, bounds[3:]))
        ]
        expected.append(model.issue(op, *grids))
    timeline = timed(ops)
    assert timeline.start.tolist() == pytest.approx(expected)
    for lane in np.unique(timeline.lane):
        mine = timeline.lane == lane
        assert (timeline.start[mine][1:] >= timeline.busy[mine][:-1]).all()
    again = timed(ops)
    assert again.format() == timeline.format()


@given(st.lists(st.tuples(lanes, tensors4, tensors4, ranges, ranges), min_size=1, max_size=40))
@settings(max_examples=80, deadline=None)
def test_tensors_at_overlapping_addresses_are_the_same_bytes(program):
    tensors = [tile((8, 4), "uint8", index=k) for k in range(4)]
    placement = At({0: (0, 0), 1: (0, 2), 2: (4, 4), 3: (0, 5)})
    model, ops, expected = Bytewise(TRN2), [], []
    for lane, source, target, columns_read, columns_written in program:
        boxes = (source, columns_read), (target, columns_written)
        read, written = (part(tensors[t], (0, 8), columns) for t, columns in boxes)
        op = Op(lane, written, [read])
        ops.append(op)
        grids = []
        for t, (a, b) in boxes:
            p, byte = placement.addresses[t]
            grids.append({(p + i, byte + j) for i in range(8) for j in range(a, b)})
        expected.append(model.issue(op, *grids))
    assert timed(ops, placement=placement).start.tolist() == pytest.approx(expected)


def test_boxes_of_views():
    layout = Layout((4, 6, 8), 2)
    whole = tile((4, 6, 8), "bfloat16")

    def bounds(view):
        box = layout.of(view)
        return list(zip(box.low, box.high, strict=True))

    assert layout.of(whole) is layout.whole
    assert bounds(part(whole, (1, 3), (2, 5), (4, 6))) == [(1, 3), (2, 5), (8, 12)]
    flat = NkiTensor((4, 48), (48, 1), 0, as_dtype("bfloat16"), whole.storage)
    assert layout.of(flat) is layout.whole
    assert bounds(part(flat, (0, 4), (8, 24))) == [(0, 4), (1, 3), (0, 16)]

    def strided(shape, strides, offset):
        return NkiTensor(shape, strides, offset, whole.dtype, whole.storage)

    assert bounds(strided((4, 3), (48, 16), 8)) == [(0, 4), (1, 6), (0, 2)]
    assert bounds(strided((4,), (49,), 0)) == [(0, 4), (0, 1), (0, 8)]
    assert layout.of(strided((4, 6), (48, -8), 40)) is layout.whole


# --- programs


def looped(start, stop, body, index=None):
    register = VirtualRegister(0, frozen=True) if index is None else index
    return Loop(register, start, stop, 1, body)


def test_loops_with_known_bounds_run_all_their_turns():
    a = tile((128, 4))
    inner = looped(0, 2, [Op(Engine.vector, a)], VirtualRegister(1))
    timeline = simulate(Program("p", "trn2", body=[looped(0, 3, [inner])]))
    assert timeline.start.tolist() == [100.0 * k for k in range(6)]
    assert timeline.notes == ()


def test_loops_only_data_can_bound_run_once_and_say_so():
    a, bound, condition = tile((128, 4)), VirtualRegister(1), VirtualRegister(2)
    program = Program(
        "p",
        "trn2",
        body=[
            Op(Engine.sync, counter=bound),
            looped(0, bound, [Op(Engine.vector, a)]),
            While(condition, [Op(Engine.scalar, tile((128, 4)))]),
        ],
    )
    timeline = simulate(program)
    assert len(timeline) == 3
    assert len(timeline.notes) == 2 and all("timed for one turn" in note for note in timeline.notes)
    assert all("--trips N" in note for note in timeline.notes)
    asked = simulate(program, trips=5)
    assert len(asked) == 1 + 5 + 5
    assert len(asked.notes) == 2 and all("timed for 5 turns, as asked" in note for note in asked.notes)
    assert len(simulate(program, trips=0)) == 1


def test_registers_are_waited_for():
    counter = VirtualRegister(3)
    timeline = timed([Op(Engine.sync, counter=counter), Op(Engine.vector, tile((128, 4)), bound=counter)])
    assert timeline.start[1] == 236.0
    assert timeline.wait[1] == Wait.register


def test_run_time_addresses_follow_the_loop_index():
    index = VirtualRegister(0, frozen=True)
    out = tile((4, 128, 8), region="shared_hbm")
    dynamic = DynamicOffset("scalar", index, stride=1024, dim=0, limit=4)
    row = NkiTensor((128, 8), (8, 1), 0, out.dtype, out.storage, dynamic)
    op = Op(Engine.vector, row, latency=5000.0)
    other = Op(Engine.scalar, NkiTensor((128, 8), (8, 1), 3 * 1024, out.dtype, out.storage))
    known = simulate(Program("p", "trn2", body=[looped(0, 3, [op], index), other]))
    assert known.start.tolist() == [0.0, 100.0, 200.0, 0.0]  # row 3 is nobody else's
    board = Scoreboard(TRN2)
    board.issue(op)
    board.issue(other)
    assert board.finish().start[1] == 5036.0  # without the register it could be any row


def test_an_input_that_is_overwritten_waits_for_its_readers():
    table = tile((128, 8), region="shared_hbm", kind="input")
    timeline = timed([Op(Engine.vector, tile((128, 8)), [table]), Op(Engine.scalar, table)])
    assert timeline.start[1] == 236.0


def test_an_input_that_one_instruction_reads_and_writes_is_timed():
    """An update in place is the first to touch it: its own read is nothing to wait for."""
    cache = tile((128, 8), region="shared_hbm", kind="input")
    timeline = timed([Op(Engine.vector, tile((128, 8)), [cache]), Op(Engine.scalar, cache, [cache])])
    assert timeline.start[1] == 236.0  # as an overwrite that reads nothing


def test_an_output_written_by_tiles_times_in_linear_time():
    out = tile((8192, 4096), region="shared_hbm")
    ops = [
        Op(_LANES[k % 4], part(out, (k // 64 * 128, k // 64 * 128 + 128), (k % 64 * 64, k % 64 * 64 + 64)))
        for k in range(4096)
    ]
    began = time.perf_counter()
    timeline = timed(ops)
    assert time.perf_counter() - began < 4.0
    assert timeline.duration == 1023 * 100.0 + 200.0
