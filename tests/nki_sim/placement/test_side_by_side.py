"""Tensors of few partitions side by side: which may, which may not, and that bytes and results stay apart."""

import dataclasses
import itertools
import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import HBM, Builder, at, rows

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiMemoryError, Severity
from nki_isa.ir.instruction import REGISTRY, Starts
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.enums import reduce_cmd
from nki_isa.machine.targets import TRN2
from nki_sim.placement import side_by_side
from nki_sim.placement.fit_in_memory import fit
from nki_sim.placement.liveness import liveness
from nki_sim.placement.place import place
from nki_sim.placement.utilisation import by_quadrant, quadrants_of
from nki_sim.report.usage import memory_report

KIB = 1024
WIDE = 32 * KIB  # float32 elements per partition of 128 KiB: two are 256 of 208 KiB
X = np.arange(64 * 512, dtype=np.float32).reshape(64, 512) % 89 / 8


def sbuf(columns=WIDE, partitions=64, address=None):
    return nl.ndarray((partitions, columns), dtype=nl.float32, buffer=nl.sbuf, address=address)


def result_of(x):
    return nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)


@nki.jit
def halves(x):
    """A tensor of 64 partitions and what is computed from it, 128 KiB each: 0 to 63 and 64 to 127."""
    result = result_of(x)
    first = sbuf()
    second = sbuf()
    shift = sbuf(1)
    nisa.memset(dst=first, value=1.0)
    nisa.dma_copy(dst=first[:, 0:512], src=x)
    nisa.tensor_reduce(dst=shift, op=nl.maximum, data=first, axis=1)
    nisa.tensor_scalar(dst=second, data=first, op0=nl.subtract, operand0=shift)
    part, other = second[:, 0:512], second[:, 512:1024]
    nisa.tensor_tensor(dst=part, data1=part, data2=other, op=nl.multiply)
    nisa.dma_copy(dst=first[:, 512:1024], src=second[:, 0:512])
    nisa.tensor_tensor(dst=first[:, 0:512], data1=first[:, 0:512], data2=first[:, 512:1024], op=nl.add)
    nisa.dma_copy(dst=result, src=first[:, 0:512])
    return result


def ran(kernel, *arguments):
    """The launch and what it returned, all checks on."""
    with runtime.session(target=TRN2) as session:
        found = kernel(X, *arguments)
    return session.launches[-1], found


def refused(kernel, *arguments):
    with runtime.session(target=TRN2, data=False, spill=False), pytest.raises(NkiMemoryError) as caught:
        kernel(X, *arguments)
    (found,) = caught.value.diagnostics
    return found


# --- kernels


def test_two_halves_lie_side_by_side():
    launch, out = ran(halves)
    highest = np.maximum(X.max(1, keepdims=True), 1)
    np.testing.assert_array_equal(out, X + (X - highest) * (1 - highest))
    (note,) = launch.diagnostics
    assert note.code == "NKI-M007" and note.severity is Severity.note
    assert note.message.startswith("fits with second placed beside others")
    assert "256.0 KiB per partition are live at once, 208 KiB are available" in note.message
    places = {h.storage.name: h.partition for h in launch.placement.sbuf.holders}
    assert places == {"first": 0, "second": 64, "shift": 0}


@nki.jit
def rotated(x):
    """Both halves, 64 KiB, turned by an angle: 320 KiB one behind the other, 192 side by side.

    As stated it fits in neither: what is computed third lies beside what is computed second.
    """
    result = result_of(x)
    both, turned = sbuf(WIDE // 2, 128), sbuf(WIDE // 2, 128)
    nisa.memset(dst=both, value=1.0)
    nisa.dma_copy(dst=both[0:64, 0:512], src=x)
    nisa.dma_copy(dst=both[64:128, 0:512], src=x)
    upper = sbuf(WIDE // 2)
    nisa.tensor_copy(dst=upper, src=both[64:128])
    a = sbuf(WIDE // 2)
    b = sbuf(WIDE // 2)
    c = sbuf(WIDE // 2)
    d = sbuf(WIDE // 2)
    nisa.tensor_scalar(dst=a, data=both[0:64], op0=nl.multiply, operand0=0.5)
    nisa.tensor_scalar(dst=b, data=upper, op0=nl.multiply, operand0=0.5)
    nisa.tensor_scalar(dst=c, data=both[0:64], op0=nl.multiply, operand0=0.25)
    nisa.tensor_scalar(dst=d, data=upper, op0=nl.multiply, operand0=0.25)
    nisa.tensor_tensor(dst=turned[0:64], data1=a, data2=d, op=nl.subtract)
    nisa.tensor_tensor(dst=turned[64:128], data1=b, data2=c, op=nl.add)
    low, high = turned[0:64, 0:512], turned[0:64, 512:1024]
    nisa.tensor_tensor(dst=low, data1=low, data2=low, op=nl.add)
    nisa.dma_copy(dst=high, src=turned[64:128, 0:512])
    nisa.tensor_tensor(dst=low, data1=low, data2=high, op=nl.add)
    nisa.dma_copy(dst=result, src=low)
    return result


def test_another_order_with_tensors_side_by_side():
    launch, out = ran(rotated)
    np.testing.assert_array_equal(out, 2 * (X / 4) + X * 3 / 4)
    assert [d.code for d in launch.diagnostics] == ["NKI-M006", "NKI-M007"]
    assert launch.placement.sbuf.peak == 192 * KIB
    places = {h.storage.name: h.partition for h in launch.placement.sbuf.holders}
    assert places["a"] == places["d"] != places["b"] == places["c"]


def test_without_a_session_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        halves(X)


def test_what_fits_one_behind_the_other_stays_at_partition_0():
    @nki.jit
    def small(x):
        first = sbuf(512)
        second = sbuf(512)
        nisa.dma_copy(dst=first, src=x)
        nisa.tensor_copy(dst=second, src=first)
        nisa.dma_copy(dst=x, src=second)
        return x

    launch, _ = ran(small)
    assert not launch.diagnostics
    assert {h.partition for h in launch.placement.sbuf.holders} == {0}


def test_quarters_lie_side_by_side():
    @nki.jit
    def quarters(x):
        result = result_of(x)
        tiles = []
        for k in range(4):
            tile = sbuf(partitions=32)
            nisa.memset(dst=tile, value=float(k))
            tiles.append(tile)
        for k in range(4):
            nisa.tensor_copy(dst=tiles[3 - k][:, k * 128 : k * 128 + 128], src=tiles[k][:, 0:128])
        nisa.dma_copy(dst=result[0:32, :], src=tiles[3][:, 0:512])
        nisa.dma_copy(dst=result[32:64, :], src=tiles[0][:, 0:512])
        return result

    launch, out = ran(quarters)
    assert sorted(h.partition for h in launch.placement.sbuf.holders) == [0, 32, 64, 96]
    assert launch.placement.sbuf.peak == 128 * KIB
    np.testing.assert_array_equal(out[0, ::128], [0, 3, 3, 3])
    np.testing.assert_array_equal(out[32, ::128], [0, 0, 0, 0])


def kernel_of(step, partitions=64, address=None):
    """A kernel with two wide tensors that `step` uses together."""

    @nki.jit
    def kernel(x):
        first, second = sbuf(partitions=partitions, address=address), sbuf(partitions=partitions)
        nisa.memset(dst=first, value=1.0)
        nisa.memset(dst=second, value=1.0)
        step(first, second)
        nisa.dma_copy(dst=x[:, 0:256], src=first[0:64, 0:256])
        nisa.dma_copy(dst=x[:, 256:512], src=second[0:64, 0:256])
        return x

    return kernel


def read_together(a, b):
    nisa.tensor_tensor(dst=a, data1=a, data2=b, op=nl.add)


def scalar_and_data(a, b):
    nisa.tensor_scalar(dst=a, data=a, op0=nl.add, operand0=b[:, 0:1])


def written_together(a, b):
    nisa.activation_reduce(
        dst=a[:, 0:512], op=nl.exp, data=a[:, 0:512], reduce_op=nl.add, reduce_res=b[:, 0:1]
    )


def matmul(a, b):
    product = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=product, stationary=a[:, 0:64], moving=b[:, 0:64])


def copied(a, b):
    nisa.tensor_copy(dst=a[:, 0:512], src=b[:, 0:512])


def through_a_third(a, b):
    third = sbuf(512)
    nisa.memset(dst=third, value=1.0)
    nisa.tensor_tensor(dst=third, data1=third, data2=a[:, 0:512], op=nl.add)
    nisa.tensor_tensor(dst=third, data1=third, data2=b[:, 0:512], op=nl.add)
    copied(a, b)


@pytest.mark.parametrize("step", [read_together, scalar_and_data, written_together, matmul, through_a_third])
def test_what_one_instruction_takes_together_stays_together(step):
    assert refused(kernel_of(step)).code == "NKI-M001"


def test_more_than_64_partitions_do_not_move():
    assert refused(kernel_of(copied, partitions=65)).code == "NKI-M001"
    launch, _ = ran(kernel_of(copied))
    assert [d.code for d in launch.diagnostics] == ["NKI-M007"]


def test_tensors_with_addresses_never_move():
    launch, _ = ran(kernel_of(copied, address=(0, 64)))
    places = [(h.partition, h.offset) for h in launch.placement.sbuf.holders]
    assert places == [(0, 64), (64, 0)]
    assert refused(kernel_of(read_together, address=(0, 64))).code == "NKI-M001"


def differing_starts(b, one, other):
    """A read at 32 and a read at 0: what holds of them where they are is all that is known."""
    dst = b.tensor(32, 8)
    return REGISTRY["tensor_tensor"](dst=dst, data1=one[32:64], data2=other[0:32], op="add")


def two_results(b, one, other):
    data, index = b.tensor(64, 8), other.view(DTYPES["uint32"])
    return REGISTRY["nc_match_replace8"](dst=one, data=data, vals=data, imm=0.0, dst_idx=index)


def accumulating(b, one, other):
    reset = reduce_cmd.reset_reduce
    return REGISTRY["activation"](dst=one, op="exp", data=other, reduce_op="add", reduce_cmd=reset)


def at_run_time(b, one, other):
    return REGISTRY["tensor_copy"](dst=one[:, 0:4], src=at(other, b.register(), size=4, dim=1))


def by_index(b, one, other):
    """The rows that an index names, loaded: both stay, though DMA takes tensors where they are."""
    source = b.tensor(128, 8, region=HBM)
    index = other.view(DTYPES["uint32"])[:, 0:1]
    b.emit(REGISTRY["tensor_tensor"](dst=one, data1=one, data2=other, op="add"))
    return REGISTRY["dma_copy"](dst=one, src=rows(source, index))


def numbering(b, one, other):
    b.emit(REGISTRY["iota"](dst=one.view(DTYPES["int32"]), pattern=[[1, 8]], offset=0))
    return REGISTRY["iota"](dst=other.view(DTYPES["int32"]), pattern=[[1, 8]], offset=0)


def copying(b, one, other):
    return REGISTRY["tensor_copy"](dst=one, src=other)


def loading(b, one, other):
    return REGISTRY["dma_copy"](dst=one, src=other)


@pytest.mark.parametrize(
    ("step", "is_apart"),
    [(copying, True), (loading, True)]
    + [(f, False) for f in (differing_starts, two_results, accumulating, at_run_time, by_index, numbering)],
)
def test_which_instructions_leave_two_tensors_apart(step, is_apart):
    b = Builder()
    # The third holds bytes at partition 0 throughout, so that what may move does.
    one, other, third = b.tensor(64, 8), b.tensor(64, 8), b.tensor(64, 8, address=(0, 0))
    for tensor in (one, other, third):
        b.emit(REGISTRY["memset"](dst=tensor, value=0.0))
    b.emit(step(b, one, other))
    b.emit(*(REGISTRY["dma_copy"](dst=b.output(64, 8), src=tensor) for tensor in (one, other, third)))
    starts = side_by_side.starts(b.program, liveness(b.program), TRN2)
    assert (starts.get(one.storage.index) != starts.get(other.storage.index)) is is_apart
    if step not in (two_results, copying, loading):
        assert one.storage.index not in starts


def test_a_start_that_breaks_a_rule_is_not_taken(monkeypatch):
    """The rules of the instructions are asked again, whatever the choice goes by."""
    with runtime.session(target=TRN2, data=False) as session:
        halves(X)
    program = session.launches[-1].program
    assert side_by_side.starts(program, liveness(program), TRN2) == {1 + 2: 64}
    monkeypatch.setattr(side_by_side, "_STARTS", ((64, (0, 32, 96)),))
    assert side_by_side.starts(program, liveness(program), TRN2) == {}


def test_a_search_that_is_given_up_leaves_nothing_behind(monkeypatch):
    with runtime.session(target=TRN2, data=False) as session:
        rotated(X)
    program = session.launches[-1].program
    live = liveness(program)
    groups, usage = side_by_side._Groups(program).movable(live), side_by_side._Usage(live)
    monkeypatch.setattr(side_by_side, "_TRIES", 1 - 2 * len(groups))  # one step, which puts the first group
    assert side_by_side._chosen(groups, usage, 208 * KIB) == []
    assert usage.peak == 0


# --- reports


def test_the_report_has_the_fullest_partition():
    launch, _ = ran(halves)
    used = launch.placement.sbuf
    held = np.zeros((128, used.capacity), bool)
    for holder in used.held_at(used.peak_at):
        held[holder.partition : holder.partition + 64, holder.offset : holder.end] = True
    assert used.peak == held.sum(1).max() == 128 * KIB + 4
    assert sum(size for _, size in used.free_pieces(used.peak_at)) == used.capacity - used.peak
    report = json.loads(json.dumps(memory_report(launch.program, launch.placement)))["sbuf"]
    assert report["peak_kib"] == used.peak / KIB
    rows = {row["name"]: row for row in report["allocations"]}
    assert (rows["second"]["partition"], rows["second"]["kib"]) == (64, 128)
    first = next(row for row in report["shrink_first"] if row["names"] == ["first"])
    assert first["saves_kib"] == 128  # without that line: `shift` alone


def test_quadrants_of_partitions():
    assert [quadrants_of(*span) for span in [(0, 128), (0, 1), (64, 64), (32, 33), (96, 32)]] == [
        0b1111, 0b0001, 0b1100, 0b0110, 0b1000,
    ]  # fmt: skip


# --- any program


def test_every_instruction_of_the_lanes_says_so():
    """Those that number partitions, keep state by lane or contract over them stay as they are."""
    for opcode in ("nc_matmul", "nc_transpose", "iota", "affine_select", "sendrecv", "rng", "dma_transpose"):
        assert REGISTRY[opcode].starts is Starts.fixed
    for opcode in ("tensor_tensor", "activation", "tensor_reduce", "select_reduce"):
        assert REGISTRY[opcode].starts is Starts.lanes


@st.composite
def straight(draw):
    """Up to 14 tensors, some with addresses, and instructions that read and write them in one or two ways."""
    b = Builder()
    tensors = []
    for _ in range(draw(st.integers(2, 14))):
        address = draw(st.none() | st.none() | st.none() | st.sampled_from([(0, 0), (32, 64), (64, 512)]))
        partitions = draw(st.sampled_from([16, 32, 32, 48, 64, 64, 128]))
        if address and partitions > {0: 128, 32: 32, 64: 64}[address[0]]:
            address = None
        tensors.append(b.tensor(partitions, draw(st.sampled_from([4, 64, 256, 300])), address=address))
    pick = st.sampled_from(tensors)
    for tensor in tensors:
        b.emit(REGISTRY["memset"](dst=tensor, value=float(tensor.storage.index)))
    sink = b.output(128, 300)
    for _ in range(draw(st.integers(1, 30))):
        dst, one, other = draw(pick), draw(pick), draw(pick)
        rows = min(t.shape[0] for t in (dst, one, other))
        dst, one, other = (t[0:rows, 0:4] for t in (dst, one, other))
        how = draw(st.sampled_from(["tensor_copy", "tensor_copy", "dma_copy", "tensor_tensor", "store"]))
        if how == "tensor_tensor":
            b.emit(REGISTRY[how](dst=dst, data1=one, data2=other, op="add"))
        elif how == "store":
            b.emit(REGISTRY["dma_copy"](dst=sink[0:rows, 0:4], src=one))
        else:
            b.emit(REGISTRY[how](dst=dst, src=one))
    for k, tensor in enumerate(tensors):
        b.emit(REGISTRY["dma_copy"](dst=sink[0 : tensor.shape[0], 4 * k : 4 * k + 4], src=tensor[:, 0:4]))
    return b


@settings(max_examples=150)
@given(straight())
def test_no_two_live_tensors_share_bytes_of_a_partition(b):
    program = b.program
    live = liveness(program)
    starts = side_by_side.starts(program, live, TRN2)
    placement = place(program, TRN2, starts)
    used = placement.sbuf
    bits = np.zeros((128, live.instructions), np.int64)
    for a, other in itertools.combinations(used.live, 2):
        is_together = a.first <= other.last and other.first <= a.last
        if is_together and (a.storage.address is None or other.storage.address is None):
            assert not a.shares_bytes(other)
    placed = [h for h in used.live if h.storage.address is None]
    for h in placed:
        count = h.storage.partitions
        allowed = (0,) if count > 64 else (0, 64) if count > 32 else (0, 32, 64, 96)
        assert h.partition in allowed and h.partition == starts.get(h.storage.index, 0)
        first = h.partition // 32 * 32
        bits[first : -(-(h.partition + count) // 32) * 32, h.first : h.last + 1] += h.storage.row_bytes
    if len(placed) == len(used.live):
        np.testing.assert_array_equal(used.usage, bits.max(0))
    for instruction in program.walk():  # what is read together starts together, wherever it was put
        if instruction.opcode == "tensor_tensor":
            before = {t.storage.address[0] if t.storage.address else 0 for t in instruction.reads}
            after = {placement.addresses[t.storage.index][0] for t in instruction.reads}
            assert len(after) == len(before)


@settings(max_examples=60)
@given(straight())
def test_results_are_those_of_the_placement_as_stated(b):
    program = b.program
    for storage in program.storages:  # shared bytes are the kernel's business
        storage.address = None
    b.arrays.clear()
    results = []
    for starts in (None, side_by_side.starts(program, liveness(program), TRN2)):
        b.placement = dict(place(program, TRN2, starts).addresses)
        results.append(b.run().outputs[0])
    np.testing.assert_array_equal(*results)


@settings(max_examples=60)
@given(straight())
def test_smaller_memories_fit_side_by_side_or_not_at_all(b):
    """`fit` takes the kernel's own order of what has room in the fullest partition, and says so."""
    program = b.program
    stated = place(program, TRN2).sbuf.peak
    target = dataclasses.replace(TRN2, sbuf_usable_bytes=max(stated - 4, 2048))
    try:
        fitted = fit(program, target, spills=False)
    except NkiMemoryError:
        return
    if stated > target.sbuf_usable_bytes:
        is_moved = fitted.program is not program
        codes = [d.code for d in fitted.diagnostics]
        assert codes in ([["NKI-M006"], ["NKI-M006", "NKI-M007"]] if is_moved else [["NKI-M007"]])
        assert fitted.placement.sbuf.peak <= target.sbuf_usable_bytes
        assert fitted.placement.sbuf.high_water <= target.sbuf_usable_bytes
        assert len(by_quadrant(fitted.placement.sbuf.holders)) == (4 if "NKI-M007" in codes else 1)


@settings(max_examples=100)
@given(straight(), st.sampled_from([0.5, 0.6, 0.75, 0.9]))
def test_what_fits_in_another_order_or_side_by_side_computes_the_same(b, share):
    program = b.program
    for storage in program.storages:
        storage.address = None
    b.arrays.clear()
    stated = place(program, TRN2)
    target = dataclasses.replace(TRN2, sbuf_usable_bytes=max(int(share * stated.sbuf.peak), 2048))
    try:
        fitted = fit(program, target)
    except NkiMemoryError:
        return
    results = []
    for b.program, placement in ((program, stated), (fitted.program, fitted.placement)):
        b.placement = dict(placement.addresses)
        results.append(b.run().outputs[0])
    np.testing.assert_array_equal(*results)
