"""Placement against brute force: what is live, and where it may go."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from placing import KIB, Builder, pairs_that_overlap, ranges, refused, sbuf, unrolled

from nki_isa.ir.program import Program
from nki_isa.machine.targets import TRN2
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.placement.place import place
from nki_sim.report.usage import memory_report


@st.composite
def straight(draw: st.DrawFn, explicit: bool = False) -> Program:
    """Up to 40 tensors, each used at a few random positions, some with addresses."""
    count = draw(st.integers(1, 40))
    steps = draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=4 * count))
    b = Builder()
    for _ in range(count):
        free = draw(st.sampled_from([1, 3, 4, 32, 100, 512, 2048, 5000]))
        fixed = draw(st.none() | st.integers(0, 60_000)) if explicit else None
        b.tensor(free, draw(st.sampled_from([1, 32, 128])), address=None if fixed is None else (0, fixed))
    tensors = [NkiTensor.whole(s) for s in b.program.storages]
    for step in steps:
        b.write(tensors[step])
    return b.program


def live_bytes(program: Program) -> list[int]:
    """Bytes per partition live at each position, tensors without address."""
    live = ranges(program)
    sizes = {s.index: s.row_bytes for s in program.storages}
    return [
        sum(sizes[i] for i, (first, last) in live.items() if first <= position <= last)
        for position in range(len(program.body))
    ]


@settings(max_examples=80, deadline=None)
@given(straight())
def test_live_tensors_never_overlap_and_the_peak_is_what_is_live(program: Program) -> None:
    placement = place(program, TRN2)
    assert list(pairs_that_overlap(program, placement)) == []
    assert placement.sbuf.usage.tolist() == live_bytes(program)
    assert placement.sbuf.peak == max(live_bytes(program))
    for storage in program.storages:
        partition, byte = placement.addresses[storage.index]
        assert partition == 0
        assert 0 <= byte <= TRN2.sbuf_usable_bytes - storage.row_bytes


@settings(max_examples=80, deadline=None)
@given(straight(explicit=True))
def test_explicit_addresses_are_kept_and_others_stay_clear_of_them(program: Program) -> None:
    placement = place(program, TRN2)
    for storage in program.storages:
        if storage.address is not None:
            assert placement.addresses[storage.index] == storage.address
    for a, b in pairs_that_overlap(program, placement):
        assert a.address is not None and b.address is not None


@settings(max_examples=40, deadline=None)
@given(straight(explicit=True))
def test_overlapping_explicit_tensors_count_once(program: Program) -> None:
    placement = place(program, TRN2)
    live = ranges(program)
    for position in range(0, len(program.body), 5):
        held = np.zeros(TRN2.sbuf_usable_bytes, bool)
        for storage in program.storages:
            first, last = live.get(storage.index, (1, 0))
            if first <= position <= last:
                byte = placement.addresses[storage.index][1]
                held[byte : byte + storage.row_bytes] = True
        assert placement.sbuf.usage[position] == held.sum()


@settings(max_examples=30, deadline=None)
@given(straight())
def test_placing_is_deterministic_and_the_report_is_json(program: Program) -> None:
    first, second = place(program, TRN2), place(program, TRN2)
    assert first.addresses == second.addresses
    assert json.loads(json.dumps(first.report())) == second.report()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_tight_packing_comes_within_5_percent_of_what_is_live(seed: int) -> None:
    """Where least-recently-used bytes run out, tensors of kernels' sizes still fit in 1.05 times the peak."""
    rng = np.random.default_rng(seed)
    count, positions = 400, 1500
    firsts = np.sort(rng.integers(0, positions, count))
    lasts = np.minimum(firsts + rng.geometric(1 / 60, count), positions - 1)
    sizes = rng.choice([4, 64, 512, 1024, 2048, 3072, 4096, 8192], count)
    b = Builder()
    events: list[list[NkiTensor]] = [[] for _ in range(positions)]
    for first, last, size in zip(firsts, lasts, sizes, strict=True):
        tensor = b.tensor(int(size))
        events[first].append(tensor)
        events[last].append(tensor)
    for tensors in events:
        for tensor in tensors:
            b.write(tensor)
    peak = max(live_bytes(b.program))
    placement = place(b.program, sbuf(int(1.05 * peak)))
    assert list(pairs_that_overlap(b.program, placement)) == []
    assert peak == placement.sbuf.peak <= placement.sbuf.high_water <= 1.05 * peak


def test_untouched_tensors_have_an_address_and_take_no_room() -> None:
    b = Builder()
    b.tensor(200 * KIB)
    b.write(b.tensor(100 * KIB))
    placement = place(b.program, TRN2)
    assert placement.addresses[0] == (0, 0)
    assert placement.sbuf.peak == placement.sbuf.high_water == 100 * KIB


def test_report_of_the_peak() -> None:
    b = Builder()
    first, second = b.tensor(1024, name="first"), b.tensor(512, dtype="float32", name="second")
    b.write(first)
    b.write(second)
    b.use(second)
    b.use(first)
    report = place(b.program, TRN2).report()
    assert report["instructions"] == 4
    assert report["sbuf"]["capacity_kib"] == 208
    assert report["sbuf"]["peak_kib"] == 3
    assert report["sbuf"]["peak_at"] == 1
    assert [
        (t["name"], t["kib"], t["first"], t["last"], t["line"]) for t in report["sbuf"]["held_at_peak"]
    ] == [
        ("second", 2, 1, 2, 2),
        ("first", 1, 0, 3, 1),
    ]
    assert [(s["at"], s["kib"]) for s in report["sbuf"]["timeline"]] == [(0, 1), (1, 3), (2, 3), (3, 1)]


@pytest.mark.slow
@pytest.mark.parametrize(("tiles", "seconds"), [(9_000, 1.0), (60_000, 10.0)])
def test_large_programs_are_placed_quickly(tiles: int, seconds: float) -> None:
    program = unrolled(tiles).program
    start = time.perf_counter()
    place(program, TRN2)
    assert time.perf_counter() - start < seconds


@given(straight())
def test_what_is_free_is_what_nobody_holds(program: Program) -> None:
    assume(sum(storage.row_bytes for storage in program.storages) < TRN2.sbuf_usable_bytes)
    used = place(program, TRN2).sbuf
    for position in {0, used.peak_at, len(program.body) - 1}:
        holds = np.zeros(used.capacity + 1, np.bool_)
        holds[-1] = True
        for holder in used.held_at(position):
            holds[holder.offset : holder.end] = True
        edges = np.flatnonzero(np.diff(np.concatenate([[True], holds]).astype(np.int8))).tolist()
        assert used.free_pieces(position) == [(a, b - a) for a, b in zip(edges[::2], edges[1::2])]


@pytest.mark.parametrize(
    ("partitions", "starts"), [(64, (0, 64)), (32, (0, 32, 64, 96))], ids=["halves", "quadrants"]
)
def test_addresses_put_tensors_side_by_side(partitions: int, starts: tuple[int, ...]) -> None:
    """The same bytes of other partitions: together they take what one takes; unplaced, each counts."""
    b, free = Builder(), Builder()
    fixed = [b.tensor(200 * KIB, partitions, address=(start, 4 * KIB)) for start in starts]
    for tensor in fixed:
        b.write(tensor)
    for tensor in fixed:
        b.use(tensor)
    placement = place(b.program, TRN2)
    assert placement.addresses == {k: (start, 4 * KIB) for k, start in enumerate(starts)}
    assert placement.sbuf.peak == 200 * KIB
    assert memory_report(b.program, placement)["sbuf"]["shared_bytes"] == []
    tensors = [free.tensor(200 * KIB, partitions) for _ in starts]
    for tensor in tensors:
        free.write(tensor)
    for tensor in tensors:
        free.use(tensor)
    assert refused(free.program).diagnostics[0].code == "NKI-M001"
