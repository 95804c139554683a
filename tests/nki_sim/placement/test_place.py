"""Placement against brute force: what is live, where it may go, and what a reused byte must not lose."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nki_isa.ops  # noqa: F401
from nki_isa.diagnostics import Frame, NkiMemoryError, Span
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ir.program import Loop, Node, Program, While
from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.enums import oob_mode
from nki_isa.machine.target import Target
from nki_isa.machine.targets import TRN1, TRN2, TRN3
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.placement.liveness import liveness
from nki_sim.placement.packing import Fixed, Requests, Space, rotate, tighten
from nki_sim.placement.place import Placement, overfull, place
from nki_sim.report.usage import memory_report

SBUF, PSUM, HBM = MemoryRegion.sbuf, MemoryRegion.psum, MemoryRegion.shared_hbm
KIB = 1024


class Builder:
    """Programs by hand: every tensor allocated on a line of its own."""

    def __init__(self) -> None:
        self.program = Program("kernel", "trn2", registers=8)
        self.body: list[Node] = self.program.body
        self.line = 0

    def tensor(
        self,
        free: int,
        partitions: int = 128,
        region: MemoryRegion = SBUF,
        dtype: str = "uint8",
        name: str | None = None,
        address: tuple[int, int] | None = None,
        line: int | None = None,
    ) -> NkiTensor:
        self.line += 1
        index = len(self.program.storages)
        span = Span("kernel.py", line or self.line, 5, line or self.line, 30)
        storage = Storage(
            index,
            name or f"t{index}",
            region,
            (partitions, free),
            as_dtype(dtype),
            address,
            stack=(Frame("kernel", span),),
        )
        self.program.storages.append(storage)
        return NkiTensor.whole(storage)

    def write(self, tensor: NkiTensor) -> None:
        self.body.append(REGISTRY["memset"](dst=tensor, value=0))

    def copy(self, dst: NkiTensor, src: NkiTensor) -> None:
        self.body.append(REGISTRY["tensor_copy"](dst=dst, src=src))

    def matmul(self, dst: NkiTensor, src: NkiTensor, accumulate: bool) -> None:
        self.body.append(REGISTRY["nc_matmul"](dst=dst, stationary=src, moving=src, accumulate=accumulate))

    def use(self, *tensors: NkiTensor) -> None:
        """Read `tensors`, at one position."""
        sink = NkiTensor.whole(Storage(0, "sink", HBM, (1, 1), as_dtype("uint8")))
        self.body.append(REGISTRY["dma_copy"](dst=sink, src=tensors[0]))
        for tensor in tensors[1:]:
            self.body.append(REGISTRY["dma_copy"](dst=sink, src=tensor))


def sbuf(capacity: int, target: Target = TRN2) -> Target:
    return dataclasses.replace(target, sbuf_usable_bytes=capacity)


def refused(program: Program, target: Target = TRN2) -> NkiMemoryError:
    with pytest.raises(NkiMemoryError) as caught:
        place(program, target)
    return caught.value


# --- straight-line programs


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


def ranges(program: Program) -> dict[int, tuple[int, int]]:
    """First and last position of each storage of a program without loops."""
    found: dict[int, tuple[int, int]] = {}
    for position, instruction in enumerate(program.walk()):
        for tensor in (*instruction.reads, *instruction.writes):
            index = tensor.storage.index
            if tensor.storage.region.is_hbm:
                continue
            found[index] = (found.get(index, (position, 0))[0], position)
    return found


def pairs_that_overlap(program: Program, placement: Placement) -> Iterator[tuple[Storage, Storage]]:
    live = ranges(program)
    storages = [s for s in program.storages if s.index in live]
    for k, a in enumerate(storages):
        for b in storages[k + 1 :]:
            (first_a, last_a), (first_b, last_b) = live[a.index], live[b.index]
            at_a, at_b = placement.addresses[a.index][1], placement.addresses[b.index][1]
            same_time = first_a <= last_b and first_b <= last_a
            if same_time and at_a < at_b + b.row_bytes and at_b < at_a + a.row_bytes:
                yield a, b


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


# --- loops: run every program twice, on memory of its own for each tensor and on the placed bytes


@st.composite
def looping(draw: st.DrawFn) -> Program:
    """Small programs of writes and copies of parts of tensors, in loops up to two deep."""
    b = Builder()
    tensors = [b.tensor(8, partitions=2) for _ in range(draw(st.integers(2, 4)))]
    registers = iter(range(8))

    def part() -> NkiTensor:
        tensor = draw(st.sampled_from(tensors))
        piece = draw(st.sampled_from(["whole", "whole", "whole", "left", "right", "row", "run-time"]))
        if piece == "run-time":
            view = tensor[:, 0:4]
            register = VirtualRegister(7)
            view.dynamic = DynamicOffset("scalar", register, 4, -1, 2)
            return view
        return {
            "whole": tensor,
            "left": tensor[:, 0:4],
            "right": tensor[:, 4:8],
            "row": tensor[0:1, :],
        }[piece]

    def fill(body: list[Node], depth: int) -> None:
        for _ in range(draw(st.integers(2, 6))):
            what = draw(
                st.sampled_from(
                    ["write", "write", "read", "read", "loop"] if depth < 2 else ["write", "read"]
                )
            )
            index = next(registers, None) if what == "loop" else None
            if what == "write":
                body.append(REGISTRY["memset"](dst=part(), value=0))
            elif what == "read" or index is None:
                body.append(_read(part()))
            elif draw(st.booleans()):
                body.append(Loop(VirtualRegister(index, True), 0, draw(st.integers(1, 3)), 1))
                fill(body[-1].body, depth + 1)  # type: ignore[union-attr]
            else:
                body.append(While(VirtualRegister(index)))
                fill(body[-1].body, depth + 1)  # type: ignore[union-attr]

    fill(b.program.body, 0)
    return b.program


def _read(tensor: NkiTensor) -> Instruction:
    sink = NkiTensor.whole(Storage(0, "sink", HBM, (1, 1), as_dtype("uint8")))
    return REGISTRY["dma_copy"](dst=sink, src=tensor)


class Stamped:
    """Memory that notes, for each byte, the write that it came from: 0 is none."""

    def __init__(self, addresses: dict[int, int], capacity: int):
        self.bytes = np.zeros((2, capacity), int)
        self.addresses = addresses

    def view(self, tensor: NkiTensor, choice: int) -> np.ndarray:
        offset = tensor.offset % 8 + (0 if tensor.dynamic is None else 4 * choice)
        start = self.addresses[tensor.storage.index] + offset
        return self.bytes[: tensor.shape[0], start : start + tensor.shape[1]]


def lost_values(program: Program, addresses: dict[int, int], capacity: int, turns: list[int]) -> list[str]:
    """Reads that see another write on the placed bytes than they do where every tensor is alone."""
    alone = Stamped({k: 8 * k for k in addresses}, 8 * len(program.storages))
    placed = Stamped(addresses, capacity)
    lost: list[str] = []
    steps = 0

    def run(body: list[Node]) -> None:
        nonlocal steps
        for node in body:
            if isinstance(node, Loop):
                for _ in range(node.stop):  # type: ignore[arg-type]
                    run(node.body)
            elif isinstance(node, While):
                for _ in range(turns[node.condition.index % len(turns)]):
                    run(node.body)
            else:
                steps += 1
                choice = turns[steps % len(turns)] % 2
                for tensor in node.writes:
                    if tensor.storage.region is SBUF:
                        alone.view(tensor, choice)[...] = placed.view(tensor, choice)[...] = steps
                for tensor in node.reads:
                    expected, found = alone.view(tensor, choice), placed.view(tensor, choice)
                    if ((expected != found) & (expected != 0)).any():
                        lost.append(f"{tensor} in step {steps}")

    run(program.body)
    return lost


@settings(max_examples=200, deadline=None)
@given(looping(), st.lists(st.integers(0, 3), min_size=3, max_size=7))
def test_reused_bytes_never_lose_a_value_in_loops(program: Program, turns: list[int]) -> None:
    peak = place(program, TRN2).sbuf.peak
    assume(peak)
    for capacity in range(peak, TRN2.sbuf_usable_bytes, 4):
        try:
            placement = place(program, sbuf(capacity))
            break
        except NkiMemoryError:
            continue
    addresses = {k: byte for k, (_, byte) in placement.addresses.items()}
    assert lost_values(program, addresses, capacity + 8, turns) == []


def loop_of(b: Builder, first: NkiTensor, second: NkiTensor, stop: int | VirtualRegister = 4) -> None:
    """A loop that writes and reads `first`, then `second`."""
    loop = Loop(VirtualRegister(0, True), 0, stop, 1)
    b.program.body.append(loop)
    b.body = loop.body
    for tensor in (first, second):
        b.write(tensor)
        b.use(tensor)
    b.body = b.program.body


def test_tensors_local_to_a_turn_share_bytes() -> None:
    b = Builder()
    first, second = b.tensor(1024), b.tensor(1024)
    loop_of(b, first, second)
    assert place(b.program, TRN2).sbuf.peak == 1024


def test_a_tensor_written_in_two_halves_each_turn_is_local_to_it() -> None:
    b = Builder()
    first, second = b.tensor(1024), b.tensor(1024)
    loop = Loop(VirtualRegister(0, True), 0, 4, 1)
    b.program.body.append(loop)
    b.body = loop.body
    b.write(first[:, 0:512])
    b.write(first[:, 512:1024])
    b.use(first)
    b.write(second)
    b.use(second)
    assert place(b.program, TRN2).sbuf.peak == 1024


@pytest.mark.parametrize("before", [True, False])
def test_an_accumulation_that_a_loop_goes_on_with_is_open_for_all_of_it(before: bool) -> None:
    """The turns add to the same bank: nothing else may be accumulated there between them."""
    b = Builder()
    total, weights, other = b.tensor(2048, region=PSUM), b.tensor(128), b.tensor(4)
    b.write(other)  # position 0
    if before:
        b.matmul(total, weights, False)
    loop = Loop(VirtualRegister(0, True), 0, 4, 1)
    b.program.body.append(loop)
    b.body = loop.body
    b.write(other)
    b.matmul(total, weights, True)
    b.write(other)
    b.use(other)
    b.body = b.program.body
    b.write(other)
    assert liveness(b.program).groups == [(total.storage.index, 1, 1 + before + 3)]


def test_a_value_from_before_a_loop_lives_to_its_end() -> None:
    b = Builder()
    weights, first, second = b.tensor(512), b.tensor(1024), b.tensor(1024)
    b.write(weights)
    loop_of(b, first, second)
    b.body = b.program.body[1].body  # type: ignore[union-attr]
    b.body.insert(0, _read(weights))
    placement = place(b.program, TRN2)
    assert placement.sbuf.peak == 1024 + 512
    holder = next(h for h in placement.sbuf.holders if h.storage is weights.storage)
    assert (holder.first, holder.last) == (0, 5)


def test_a_write_in_a_loop_that_may_not_run_does_not_end_the_old_value() -> None:
    b = Builder()
    state, tile = b.tensor(512), b.tensor(1024)
    b.write(state)
    maybe = While(VirtualRegister(1))
    loop = Loop(VirtualRegister(0, True), 0, 4, 1, [maybe])
    b.program.body.append(loop)
    b.body = maybe.body
    b.write(state)
    b.body = loop.body
    b.use(state)
    b.write(tile)
    b.use(tile)
    assert place(b.program, TRN2).sbuf.peak == 1024 + 512


def test_parts_written_turn_by_turn_live_until_they_are_read_after_the_loop() -> None:
    b = Builder()
    result, tile = b.tensor(1024), b.tensor(256)
    loop = Loop(VirtualRegister(0, True), 0, 4, 1)
    b.program.body.append(loop)
    b.body = loop.body
    b.write(tile)
    part = result[:, 0:256]
    part.dynamic = DynamicOffset("scalar", VirtualRegister(0, True), 256, -1, 4)
    b.copy(part, tile)
    b.body = b.program.body
    b.use(result)
    assert place(b.program, TRN2).sbuf.peak == 1024 + 256


def test_rows_that_a_gather_may_skip_keep_their_value_from_turn_to_turn() -> None:
    b = Builder()
    tile, index, other = b.tensor(1024), b.tensor(4), b.tensor(1024)
    b.write(tile)
    source = NkiTensor.whole(Storage(0, "source", HBM, (128, 1024), as_dtype("uint8")))
    source.dynamic = DynamicOffset("vector", index, 1024, 0, 128)
    loop = Loop(VirtualRegister(0, True), 0, 4, 1)
    b.body.append(loop)
    b.body = loop.body
    b.body.append(REGISTRY["dma_copy"](dst=tile, src=source, oob_mode=oob_mode.skip))
    b.use(tile)
    b.write(other)
    b.use(other)
    placement = place(b.program, TRN2)
    holder = next(h for h in placement.sbuf.holders if h.storage is tile.storage)
    assert (holder.first, holder.last) == (0, 4)
    assert placement.sbuf.peak == 1024 + 1024 + 4


# --- rotation


def unrolled(turns: int, free: int = 1024) -> Builder:
    b = Builder()
    for _ in range(turns):
        tile = b.tensor(free, line=7)
        b.write(tile)
        b.use(tile)
    return b


def test_tiles_of_an_unrolled_loop_rotate_through_all_of_sbuf() -> None:
    placement = place(unrolled(500).program, TRN2)
    tiles = TRN2.sbuf_usable_bytes // 1024
    assert [placement.addresses[k][1] for k in range(500)] == [k % tiles * 1024 for k in range(500)]
    assert placement.sbuf.peak == 1024


def test_rotation_takes_the_bytes_freed_longest_ago() -> None:
    requests = Requests(*map(np.array, ([32, 32, 32, 32], [0, 0, 2, 4], [1, 3, 2, 5], [0] * 4, [-1] * 4)))
    none = np.zeros(0, np.int64)
    # The third takes the first's bytes, as the second still lives; the fourth those free since 2, not 3.
    found = rotate(requests, Fixed(none, none, none, none), Space(64, 32, 4))
    assert found is not None and found.tolist() == [0, 32, 0, 0]


def test_rotation_leaves_what_is_placed() -> None:
    """Taken from before the first request on, from later on, and no longer: units of 4 bytes."""
    requests = Requests(*map(np.array, ([8, 8], [2, 6], [4, 9], [0, 0], [-1, -1])))
    fixed = Fixed(*map(np.array, ([4, 16, 24], [8, 4, 8], [0, 3, 0], [9, 9, 1])))
    found = rotate(requests, fixed, Space(32, 4, 4))
    # Of pairs of units, 20 and 24 are free from 2 on, 0, 12 and 16 have a neighbour that is taken.
    assert found is not None and found.tolist() == [20, 20]


def test_rotation_gives_way_to_tight_packing() -> None:
    """Two tensors that live throughout sit where the third needs one piece; only packing finds room."""
    firsts, lasts = np.array([0, 1, 2, 3, 8]), np.array([4, 9, 5, 9, 9])
    requests = Requests(np.array([64, 64, 64, 64, 128]), firsts, lasts, np.zeros(5, int), np.full(5, -1))
    none = np.zeros(0, np.int64)
    fixed, space = Fixed(none, none, none, none), Space(256, 32, 4)
    assert rotate(requests, fixed, space) is None
    assert tighten(requests, fixed, space) is not None


# --- PSUM


def test_psum_tiles_rotate_over_the_banks() -> None:
    b = Builder()
    tile = b.tensor(128)
    for _ in range(20):
        out = b.tensor(128, region=PSUM, dtype="float32")
        b.matmul(out, tile, accumulate=False)
        b.copy(tile, out)
    placement = place(b.program, TRN2)
    assert [placement.addresses[k][1] for k in range(1, 21)] == [k % 8 * 2048 for k in range(20)]
    assert placement.psum.peak == 512
    assert placement.report()["psum"]["banks_at_peak"] == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([4, 400, 512, 1000, 2048, 2052, 4096]), min_size=1, max_size=30))
def test_no_psum_tensor_of_up_to_a_bank_straddles_one(sizes: list[int]) -> None:
    b = Builder()
    tensors = [b.tensor(size, region=PSUM) for size in sizes]
    for before, tensor in zip([tensors[0], *tensors], tensors, strict=False):
        b.write(tensor)
        b.use(before)
    placement = place(b.program, TRN2)
    assert list(pairs_that_overlap(b.program, placement)) == []
    for tensor in tensors:
        byte, size = placement.addresses[tensor.storage.index][1], tensor.storage.row_bytes
        assert byte % 2048 == 0 if size > 2048 else byte // 2048 == (byte + size - 1) // 2048


def accumulating(count: int, free: int = 64) -> Builder:
    """`count` accumulations that are all open at once."""
    b = Builder()
    tile = b.tensor(128)
    outs = [b.tensor(free, region=PSUM, dtype="float32", name=f"acc{k}") for k in range(count)]
    for accumulate in (False, True):
        for out in outs:
            b.matmul(out, tile, accumulate)
    for out in outs:
        b.copy(tile, out)
    return b


def test_small_psum_tensors_share_banks_when_there_are_more_than_eight() -> None:
    b = Builder()
    outs = [b.tensor(64, region=PSUM, dtype="float32") for _ in range(12)]
    for out in outs:
        b.write(out)
    b.use(*outs)
    placement = place(b.program, TRN2)
    assert list(pairs_that_overlap(b.program, placement)) == []


def test_eight_open_accumulations_have_a_bank_each() -> None:
    placement = place(accumulating(8).program, TRN2)
    assert {byte // 2048 for k, (_, byte) in placement.addresses.items() if k} == set(range(8))


def test_nine_open_accumulations_are_refused() -> None:
    problem = refused(accumulating(9).program)
    assert problem.diagnostics[0].code == "NKI-M005"
    assert "into 9 PSUM banks at once; trn2 has 8" in problem.diagnostics[0].message
    assert problem.diagnostics[0].span == Span("kernel.py", 10, 5, 10, 30)


def test_psum_over_capacity_is_refused() -> None:
    problem = refused(accumulating(9, free=512).program)
    assert problem.diagnostics[0].code == "NKI-M002"
    assert (
        "18 KiB per partition are live at once, 16 KiB are available on trn2"
        in problem.diagnostics[0].message
    )


# --- refusals


def overflowing() -> Program:
    b = Builder()
    weights = b.tensor(65_536, dtype="bfloat16", name="weights")
    tiles = [b.tensor(4096, dtype="float32", name=f"tile_{k}", line=7) for k in range(8)]
    b.line = 8
    small = [b.tensor(1, dtype="float32") for _ in range(14)]
    for tensor in (weights, *tiles, *small):
        b.write(tensor)
    b.use(*small, *tiles, weights)
    return b.program


def test_overflow_error(snapshot: object) -> None:
    assert refused(overflowing()).diagnostics[0].as_dict() == snapshot


def test_what_does_not_fit_is_placed_beyond_the_end() -> None:
    used = overfull(overflowing(), TRN2).sbuf
    assert used.peak > used.capacity == TRN2.sbuf_usable_bytes
    assert used.high_water >= used.peak
    live = used.live
    for k, one in enumerate(live):
        for other in live[:k]:
            apart = one.last < other.first or other.last < one.first
            assert apart or not one.shares_bytes(other)
    assert used.free_pieces(used.peak_at) == []


def test_a_tensor_larger_than_psum_is_placed_beyond_the_end() -> None:
    b = Builder()
    b.write(b.tensor(20 * KIB, region=PSUM, name="big"))
    used = overfull(b.program, TRN2).psum
    assert (used.peak, used.banks_at(0), int(used.bank_usage().max())) == (20 * KIB, 10, 10)


@pytest.mark.parametrize(("target", "fits"), [(TRN1, False), (TRN2, True), (TRN3, True)])
def test_capacity_is_the_targets(target: Target, fits: bool) -> None:
    b = Builder()
    b.write(b.tensor(200 * KIB))
    if fits:
        assert place(b.program, target).sbuf.peak == 200 * KIB
    else:
        assert refused(b.program, target).diagnostics[0].code == "NKI-M003"


def test_a_tensor_larger_than_the_memory_is_refused_even_unused() -> None:
    b = Builder()
    b.tensor(16 * KIB + 1, region=PSUM, name="big")
    problem = refused(b.program).diagnostics[0]
    assert problem.code == "NKI-M003"
    assert problem.message == (
        "big uint8[128, 16385] takes 16.0 KiB per partition; all of PSUM on trn2 is 16 KiB per partition"
    )


@pytest.mark.parametrize(
    ("region", "partitions", "free", "address", "message"),
    [
        (SBUF, 64, 512, (96, 0), "its partitions 96 to 159 are outside 0 to 127"),
        (SBUF, 128, 512, (0, 208 * KIB - 511), "its bytes 212481 to 212992 are outside the 212992 bytes"),
        (PSUM, 128, 512, (0, 16 * KIB), "its bytes 16384 to 16895 are outside the 16384 bytes"),
        (PSUM, 128, 512, (0, 2049), "byte 2049 is 1 bytes into a bank"),
        (SBUF, 64, 512, (64, 208 * KIB - 512), None),
        (PSUM, 128, 512, (0, 14 * KIB), None),
    ],
)
def test_explicit_addresses_lie_inside_their_memory(
    region: MemoryRegion, partitions: int, free: int, address: tuple[int, int], message: str | None
) -> None:
    b = Builder()
    tensor = b.tensor(free, partitions, region, name="fixed", address=address)
    b.write(tensor)
    if message is None:
        assert place(b.program, TRN2).addresses == {0: address}
    else:
        problem = refused(b.program).diagnostics[0]
        assert problem.code == "NKI-M004"
        assert message in problem.message


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


def test_bytes_in_pieces_are_said_to_be_so() -> None:
    """Fixed tensors leave two free pieces of 48 KiB each; 64 KiB fit the sum but neither piece."""
    b = Builder()
    fixed = [b.tensor(56 * KIB, address=(0, 0)), b.tensor(56 * KIB, address=(0, 104 * KIB))]
    large = b.tensor(64 * KIB, name="large")
    for tensor in (*fixed, large):
        b.write(tensor)
    b.use(*fixed)
    problem = refused(b.program).diagnostics[0]
    assert problem.code == "NKI-M001"
    assert (
        "176 KiB of 208 KiB per partition are live at once on trn2, but no placement was found"
        in problem.message
    )


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


@pytest.mark.parametrize("first, fits", [(4, False), (5, True), (0, False)])
def test_bytes_are_free_after_the_last_use_and_not_at_it(first: int, fits: bool) -> None:
    """One place, and a tensor that lives to position 4: what one instruction reads and writes is apart."""
    zeros = np.zeros(2, np.int64)
    requests = Requests(zeros + 64, np.array([0, first]), np.array([4, 9]), zeros, zeros - 1)
    taken = Fixed(*(zeros[:0] for _ in range(4)))
    found = rotate(requests, taken, Space(64, 64, 1))
    assert (found is not None and found.tolist() == [0, 0]) if fits else found is None


@pytest.mark.parametrize(
    ("region", "partitions", "address", "remedy"),
    [
        (SBUF, 64, (96, 0), "start at partition 64 or before"),
        (SBUF, 128, (0, 208 * KIB - 511), "start at byte 212480 or before"),
        (PSUM, 128, (0, 16 * KIB), "start at byte 14336 or before"),
        (PSUM, 128, (0, 4099), "start at a multiple of 2048, such as byte 4096"),
    ],
)
def test_the_address_to_write_is_named(
    region: MemoryRegion, partitions: int, address: tuple[int, int], remedy: str
) -> None:
    b = Builder()
    b.write(b.tensor(512, partitions, region, name="fixed", address=address))
    assert refused(b.program).diagnostics[0].help == remedy
