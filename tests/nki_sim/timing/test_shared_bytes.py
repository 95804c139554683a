"""Bytes that tensors share over time, against a byte-by-byte model."""

from __future__ import annotations

import numpy as np
import pytest
from boards import ENGINES, At, Op, part, tile, timed
from hypothesis import given, settings
from hypothesis import strategies as st

from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import TRN2
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.timing.byte_boxes import Layout
from nki_sim.timing.scoreboard import Wait


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


def test_bytes_handed_over_twice_keep_to_themselves():
    """Two that follow in rows of an earlier tensor, which is read in between, do not wait for each other."""
    rows = tile((128, 4, 8), index=0)
    first, second = tile((128, 12), index=1), tile((128, 12), index=2)
    reading = Op(Engine.gpsimd, tile((128, 8), index=3), [part(rows, (0, 128), (3, 4), (0, 8))])
    ops = [Op(Engine.scalar, first, latency=5000.0), reading, Op(Engine.vector, second)]
    placement = At({0: (0, 0), 1: (0, 0), 2: (0, 48), 3: (0, 4096)})
    assert timed(ops, placement=placement).start.tolist() == [0.0, 0.0, 0.0]
    placement.addresses[2] = (0, 44)  # four bytes of the first
    assert timed(ops, placement=placement).start[2] == 5036.0


class Bytewise:
    """The same rules, one byte at a time: who wrote it last, who read it since."""

    def __init__(self, target):
        self.target = target
        self.free = dict.fromkeys(ENGINES, 0.0)
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
lanes = st.sampled_from(ENGINES)
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
