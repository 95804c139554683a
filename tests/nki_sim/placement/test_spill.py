"""Tensors that go to HBM and come back: which, when, and that results stay the same bits."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiMemoryError, Severity
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ir.program import Loop, Program, programs_equal
from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.targets import TRN2
from nki_isa.ops.dma import is_spill
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_isa.text.parser import parse_program
from nki_isa.text.printer import format_program
from nki_sim import words
from nki_sim.cores.device import execute
from nki_sim.placement.fit_in_memory import fit
from nki_sim.placement.liveness import liveness
from nki_sim.placement.packing import Space
from nki_sim.placement.place import place
from nki_sim.placement.spill import spilled
from nki_sim.report.ablation import ablation
from nki_sim.report.profile import Profile

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

KIB = 1024
SBUF, HBM = MemoryRegion.sbuf, MemoryRegion.shared_hbm


# --- programs of tiles


class Tiles:
    """Programs of a few partitions whose tensors are tiles of some KiB."""

    def __init__(self):
        self.program = Program("tiles", "trn2")
        self.body = self.program.body

    def tensor(self, columns, region=SBUF, kind="local", address=None):
        index = len(self.program.storages)
        shape, dtype = (4, columns), as_dtype("float32")
        self.program.storages.append(Storage(index, f"t{index}", region, shape, dtype, address, kind))
        made = NkiTensor.whole(self.program.storages[index])
        if kind == "input":
            self.program.inputs.append(made)
        return made

    def emit(self, opcode, *, body=None, **operands):
        made = REGISTRY[opcode](**operands)
        (self.body if body is None else body).append(made)
        return made

    def spilled(self, capacity):
        return spilled(self.program, liveness(self.program), TRN2, Space(capacity, 32, 4))


def moves(program):
    """The stores and loads of spills, by name and position."""
    return [(k, node.name) for k, node in enumerate(program.body) if is_spill(node)]


def three_tiles(*, uses):
    """Three tiles of 1 KiB written in turn, then used as `uses` says: position of a tile, is it written."""
    made = Tiles()
    tiles = [made.tensor(256) for _ in range(3)]
    out = made.tensor(256, HBM)
    for k, tile in enumerate(tiles):
        made.emit("memset", dst=tile, value=float(k))
    for which, is_write in uses:
        if is_write:
            made.emit("memset", dst=tiles[which], value=7.0)
        else:
            made.emit("dma_copy", dst=out, src=tiles[which])
    return made


def test_the_tile_whose_next_use_is_furthest_goes_and_comes_back_before_it():
    made = three_tiles(uses=[(2, False), (0, False), (1, False)])
    found = made.spilled(2 * KIB)
    assert moves(found.program) == [(2, "spill t1"), (6, "reload t1")]
    assert (found.bytes_out, found.bytes_in) == (4 * KIB, 4 * KIB) and found.time > 0
    assert found.program.body[7].src.storage is found.program.body[6].dst.storage
    assert [spill.storage.name for spill in found.spills] == ["t1"]
    assert place(found.program, dataclasses.replace(TRN2, sbuf_usable_bytes=2 * KIB)).sbuf.peak == 2 * KIB


def test_what_fits_is_left_alone():
    made = three_tiles(uses=[(0, False), (1, False), (2, False)])
    found = made.spilled(3 * KIB)
    assert not found.spills and found.time == 0 and programs_equal(found.program, made.program)


def test_a_tile_that_is_only_read_goes_out_once_and_comes_back_each_time():
    made = three_tiles(uses=[(2, False), (1, False), (0, False), (2, False), (1, False), (0, False)])
    found = made.spilled(KIB)
    names = [name for _, name in moves(found.program)]
    assert all(names.count(f"spill t{k}") == 1 for k in range(3))
    assert found.bytes_out == 3 * 4 * KIB and found.bytes_in == 5 * 4 * KIB  # t2 is used before it goes


def test_a_tile_that_is_written_again_goes_out_again():
    made = three_tiles(uses=[(0, False)])
    out, tile = made.program.storages[3], made.program.storages[0]
    half = NkiTensor.whole(tile)[:, 0:128]
    made.emit("memset", dst=half, value=9.0)
    for k in (1, 2, 0):
        made.emit("dma_copy", dst=NkiTensor.whole(out), src=NkiTensor.whole(made.program.storages[k]))
    found = made.spilled(KIB)
    assert [name for _, name in moves(found.program)].count("spill t0") == 2


def loaded_in_halves(change):
    """Three tiles, the second loaded in halves; `change` adds what comes before they are used in turn."""
    made = Tiles()
    source = made.tensor(256, HBM, "input")
    tiles = [made.tensor(256) for _ in range(3)]
    out = made.tensor(256, HBM)
    made.emit("memset", dst=tiles[0], value=0.0)
    for half in (slice(0, 128), slice(128, 256)):
        made.emit("dma_copy", dst=tiles[1][:, half], src=source[:, half])
    change(made, source, tiles)
    made.emit("memset", dst=tiles[2], value=2.0)
    for tile in (tiles[2], tiles[0], tiles[1]):
        made.emit("dma_copy", dst=out, src=tile)
    return made.spilled(2 * KIB)


def test_what_was_only_loaded_is_loaded_again_and_not_stored():
    found = loaded_in_halves(lambda made, source, tiles: None)
    assert [name for _, name in moves(found.program)] == ["reload t2", "reload t2"]
    assert (found.bytes_out, found.bytes_in) == (0, 4 * KIB)
    again = [node for node in found.program.body if is_spill(node)]
    assert [(i.src.storage.name, i.src.offset, i.dst.offset) for i in again] == [
        ("t0", 0, 0),
        ("t0", 128, 128),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda made, source, tiles: made.emit("memset", dst=tiles[1][:, 0:8], value=1.0),
        lambda made, source, tiles: made.emit("dma_copy", dst=source, src=tiles[0]),
        lambda made, source, tiles: made.emit("core_barrier", data=source, cores=(0, 1)),
    ],
    ids=["written since", "its source is written", "another core may write its source"],
)
def test_what_cannot_be_loaded_again_is_stored(change):
    found = loaded_in_halves(change)
    assert [name for _, name in moves(found.program)] == ["spill t2", "reload t2"]


def test_what_is_overwritten_before_it_is_read_is_dropped():
    made = three_tiles(uses=[(1, False), (2, False), (0, True), (0, False)])
    found = made.spilled(2 * KIB)
    assert moves(found.program) == [] and not found.spills
    assert place(found.program, dataclasses.replace(TRN2, sbuf_usable_bytes=2 * KIB)).sbuf.peak == 2 * KIB


def test_what_a_larger_one_behind_it_makes_needless_stays():
    made = Tiles()
    small, large, last = made.tensor(64), made.tensor(256), made.tensor(256)
    out = made.tensor(256, HBM)
    for tile in (small, large, last):
        made.emit("memset", dst=tile, value=1.0)
    for tile in (last, large, small):
        made.emit("dma_copy", dst=out[:, : tile.shape[1]], src=tile)
    found = made.spilled(KIB + 512)
    assert [spill.storage.name for spill in found.spills] == ["t1"]


def test_a_loop_on_the_device_has_its_tiles_throughout():
    made = three_tiles(uses=[(2, False)])
    tiles = [NkiTensor.whole(storage) for storage in made.program.storages[:3]]
    loop = Loop(VirtualRegister(0, True), 0, 3, 1)
    made.program.registers = 1
    made.body.append(loop)
    made.emit("tensor_tensor", body=loop.body, dst=tiles[0], data1=tiles[0], data2=tiles[1], op="add")
    made.emit("dma_copy", dst=NkiTensor.whole(made.program.storages[3]), src=tiles[0])
    found = made.spilled(2 * KIB)
    (inner,) = [node for node in found.program.body if isinstance(node, Loop)]
    assert inner.body[0].data1.storage is inner.body[0].dst.storage is found.program.body[-1].src.storage
    assert {spill.storage.name for spill in found.spills} == {"t0"}
    assert made.spilled(2 * KIB - 1) is None


def test_nothing_with_an_address_goes_and_an_instruction_has_all_it_needs():
    made = Tiles()
    fixed, other, third = made.tensor(256, address=(0, 0)), made.tensor(256), made.tensor(256)
    for tile in (fixed, other, third):
        made.emit("memset", dst=tile, value=1.0)
    made.emit("tensor_tensor", dst=third, data1=fixed, data2=other, op="add")
    made.emit("dma_copy", dst=made.tensor(256, HBM), src=third)
    assert made.spilled(3 * KIB) is not None and made.spilled(3 * KIB - 1) is None


def test_what_runs_after_another_still_does_and_the_text_reads_back():
    made = three_tiles(uses=[(2, False), (0, False), (1, False)])
    made.body[-1].after = (made.body[0],)
    found = made.spilled(2 * KIB).program
    assert [found.body.index(before) for before in found.body[-1].after] == [0]
    text = format_program(found)
    assert programs_equal(parse_program(text), found)
    assert 'spill private_hbm float32[4, 256] "t1"' in text and 'name="reload t1"' in text


# --- the same bits


@st.composite
def tiled(draw):
    """A random program of tiles, and an SBUF that holds at least what its largest instruction needs."""
    made = Tiles()
    source = made.tensor(64, HBM, "input")
    tiles = [made.tensor(draw(st.sampled_from([16, 32, 64]))) for _ in range(draw(st.integers(3, 7)))]
    out = made.tensor(64 * 24, HBM)
    made.program.outputs.append(out)
    for k, tile in enumerate(tiles):
        made.emit("dma_copy", dst=tile, src=source[:, : tile.shape[1]])
        made.emit("tensor_scalar", dst=tile, data=tile, op0="multiply", operand0=float(k + 1))

    def part():
        tile = draw(st.sampled_from(tiles))
        start = draw(st.sampled_from(range(0, tile.shape[1], 16)))
        return draw(st.sampled_from([tile[:, start : start + 16], tile[:, :16]]))

    def step(body, depth):
        what = draw(
            st.sampled_from(["add", "add", "copy", "load", "whole", *(["loop"] if depth == 0 else [])])
        )
        if what == "add":
            made.emit("tensor_tensor", body=body, dst=part(), data1=part(), data2=part(), op="add")
        elif what == "copy":
            made.emit("tensor_copy", body=body, dst=part(), src=part())
        elif what == "load":
            made.emit("dma_copy", body=body, dst=part(), src=source[:, 16:32])
        elif what == "whole":
            tile = draw(st.sampled_from(tiles))
            made.emit("dma_copy", body=body, dst=tile, src=source[:, : tile.shape[1]])
        else:
            loop = Loop(VirtualRegister(made.program.registers, True), 0, 2, 1)
            made.program.registers += 1
            for _ in range(draw(st.integers(1, 2))):
                step(loop.body, 1)
            body.append(loop)

    count = draw(st.integers(4, 22))
    for k in range(count):
        step(made.body, 0)
        made.emit("dma_copy", dst=out[:, 64 * k : 64 * k + 16], src=part())
    for k, tile in enumerate(tiles[: 24 - count]):
        at = 64 * (count + k)
        made.emit("dma_copy", dst=out[:, at : at + tile.shape[1]], src=tile)
    return made.program, draw(st.integers(48, 64 * len(tiles))) * 4


@settings(max_examples=60, deadline=None)
@given(tiled())
def test_spills_change_no_bit_and_hold_at_most_what_there_is(drawn):
    program, capacity = drawn
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    expected = execute(program, place(program, TRN2).addresses, [x]).outputs[0]
    found = spilled(program, liveness(program), TRN2, Space(capacity, 32, 4))
    again = spilled(program, liveness(program), TRN2, Space(capacity, 32, 4))
    if found is None:
        assert again is None
        return
    assert programs_equal(found.program, again.program)
    placement = place(found.program, TRN2)
    assert placement.sbuf.peak <= capacity
    result = execute(found.program, placement.addresses, [x]).outputs[0]
    np.testing.assert_array_equal(result.view(np.uint8), expected.view(np.uint8))
    kept = [node for node in found.program.body if not (isinstance(node, Instruction) and is_spill(node))]
    assert len(kept) == len(program.body)
    moved = [node for node in found.program.body if isinstance(node, Instruction) and is_spill(node)]
    sizes = {region: 0 for region in (SBUF, MemoryRegion.private_hbm)}
    for copy in moved:
        sizes[copy.dst.storage.region] += copy.dst.size * 4
    assert (sizes[SBUF], sizes[MemoryRegion.private_hbm]) == (found.bytes_in, found.bytes_out)


# --- as a user meets it


@nki.jit
def uses_all_again(x, count, columns=16384):
    """`count` tiles of 64 KiB per partition, each needed when it is made and again at the end."""
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=total, value=0.0)
    tiles = []
    for _ in range(count):
        tile = nl.ndarray((128, columns), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile[:, 0:512], src=x)
        nisa.tensor_tensor(dst=tile[:, 512:1024], data1=total, data2=tile[:, 0:512], op=nl.add)
        nisa.tensor_tensor(dst=total, data1=total, data2=tile[:, 512:1024], op=nl.add)
        tiles.append(tile)
    for k in range(count):
        nisa.tensor_tensor(dst=total, data1=total, data2=tiles[k][:, 0:512], op=nl.add)
        nisa.tensor_tensor(dst=total, data1=total, data2=tiles[k][:, 512:1024], op=nl.subtract)
    nisa.dma_copy(dst=result, src=total)
    return result


X = np.arange(128 * 512, dtype=np.float32).reshape(128, 512) % 97 / 16


def test_a_kernel_that_holds_too_much_runs_and_says_what_it_costs():
    with runtime.session(target=TRN2, timing=True) as session:
        result = uses_all_again(X, 5)
        expected = uses_all_again(X, 5, 1024)
    np.testing.assert_array_equal(result, expected)
    launch, small = session.launches
    (found,) = launch.diagnostics  # half of each tile is never written: moving it is not a read
    assert found.code == "NKI-M009" and found.severity is Severity.warning and not small.diagnostics
    assert found.span.line == uses_all_again.__wrapped__.__code__.co_firstlineno + 8
    assert "2 tensors are spilled: 16 MiB to HBM and 16 MiB back" in found.message
    assert "SBUF overflows: 322 KiB per partition" in found.message
    text = json.dumps(found.as_dict())
    assert "16 MiB out, 16 MiB in: 2 x tile#" in text and "of the DMA engines" in text
    assert launch.program is not small.program and len(moves(launch.program)) == 4
    assert launch.timeline.total > small.timeline.total
    profile = Profile.of(launch.timeline)
    assert profile.spill_save_bytes == profile.spill_reload_bytes == 16 << 20
    assert profile.hbm_read_bytes - Profile.of(small.timeline).hbm_read_bytes == 16 << 20
    assert {words.act(i) for i in launch.program.body if is_spill(i)} == {"spill", "reload"}
    (says,) = [one.says for one in profile.advice() if "SBUF has no room for it: " in one.says]
    assert "keep only what is needed again" in says


@nki.jit
def weights_used_twice(x):
    """Four tiles of 64 KiB per partition that are loaded once and read twice."""
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=total, value=0.0)
    tiles = []
    for _ in range(4):
        tile = nl.ndarray((128, 16384), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        nisa.tensor_tensor(dst=total, data1=total, data2=tile[:, 0:512], op=nl.add)
        tiles.append(tile)
    for tile in tiles:
        nisa.tensor_tensor(dst=total, data1=total, data2=tile[:, 512:1024], op=nl.subtract)
    nisa.dma_copy(dst=result, src=total)
    return result


def test_what_is_only_loaded_again_is_told_so():
    with runtime.session(target=TRN2, data=False) as session:
        weights_used_twice(np.zeros((128, 16384), np.float32))
    (found,) = session.launches[0].diagnostics
    assert found.code == "NKI-M009" and "is spilled: 8 MiB loaded again, " in found.message


def test_what_spills_cost_is_seen_without_them():
    with runtime.session(target=TRN2, timing=True, data=False) as session:
        uses_all_again(X, 5)
        uses_all_again(X, 3)
    (spills, none) = (
        next(row for row in ablation([launch.program], [launch.placement]) if row.name == "spills")
        for launch in session.launches
    )
    assert spills.time < session.launches[0].timeline.total - 16e3
    assert none.time == session.launches[1].timeline.total


def test_a_run_may_refuse_spills():
    with (
        runtime.session(target=TRN2, spill=False),
        pytest.raises(NkiMemoryError, match="NKI-M001") as refused,
    ):
        uses_all_again(X, 5)
    assert "--no-spill" in refused.value.diagnostics[0].notes[-1]
    with runtime.session(target=TRN2):
        uses_all_again(X, 5)  # what was refused is not kept
    with runtime.session(target=TRN2, spill=False), pytest.raises(NkiMemoryError, match="NKI-M001"):
        uses_all_again(X, 5)  # nor is what was not


@nki.jit
def reads_what_nothing_wrote(x):
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    first = nl.ndarray((128, 16384), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=first[:, 0:512], src=x)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=total, src=first[:, 0:512])
    for _ in range(2):
        wide = nl.ndarray((128, 40960), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=wide, value=1.0)
        nisa.tensor_tensor(dst=total, data1=total, data2=wide[:, 0:512], op=nl.add)
    nisa.tensor_tensor(dst=total, data1=total, data2=first[:, 512:1024], op=nl.add)
    nisa.dma_copy(dst=result, src=total)
    return result


def test_a_read_of_what_nothing_wrote_is_found_behind_a_spill_too():
    with runtime.session(target=TRN2) as session, pytest.raises(Exception, match="NKI-H002") as found:
        reads_what_nothing_wrote(X)
    assert not session.launches
    (only,) = [d for d in found.value.diagnostics if d.code == "NKI-H002"]
    assert "first" in only.message and "tensor_tensor" in only.message


def test_psum_in_another_order_and_spills_go_together():
    made = fit(both_too_large(), TRN2)
    assert [d.code for d in made.diagnostics] == ["NKI-M006", "NKI-M009"]


def both_too_large():
    """Four tiles of 64 KiB made one of another, twice around; nine products, then their uses."""
    made = Tiles()
    tiles = [made.tensor(16384) for _ in range(4)]
    starts = [tile[:, 0:512] for tile in tiles]
    products = [made.tensor(512, MemoryRegion.psum) for _ in range(9)]
    out = made.tensor(512, HBM)
    for tile in tiles:
        made.emit("memset", dst=tile, value=1.0)
    for start, before in zip(starts[1:], starts[:-1], strict=True):
        made.emit("tensor_tensor", dst=start, data1=start, data2=before, op="add")
    for product in products:
        made.emit("tensor_copy", dst=product, src=starts[3])
    for product in products:
        made.emit("tensor_tensor", dst=starts[0], data1=starts[0], data2=product, op="add")
    for start, before in zip(starts, [starts[3], *starts[:3]], strict=True):
        made.emit("tensor_tensor", dst=start, data1=start, data2=before, op="add")
    made.emit("dma_copy", dst=out, src=starts[3])
    return made.program
