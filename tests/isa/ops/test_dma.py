"""DMA instructions: what they move, their rules, their descriptors. Run-time indices run in test_machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles import (
    HBM,
    NUMERIC,
    PSUM,
    SBUF,
    dst_of,
    fp32,
    plain,
    run,
    same,
    shapes,
    tensor,
    tiles,
    values,
    view,
)

from nki_isa.cost.transfers import engine_time
from nki_isa.diagnostics import NkiValidationError
from nki_isa.machine.dtypes import DTYPES, cast
from nki_isa.machine.enums import Engine, dge_mode, oob_mode
from nki_isa.machine.targets import TRN1, TRN2, TRN3
from nki_isa.ops.dma import dma_compute, dma_copy, dma_transpose
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import VirtualRegister
from nki_isa.tensor.tensor import NkiTensor

regions = st.sampled_from([SBUF, HBM])


def filled(*shape, dtype="float32", region=HBM, seed=0):
    return tensor(*shape, dtype=dtype, region=region, contents=values(dtype, shape, seed))


def gathered(t, count, dtype="uint32", columns=1, index_region=SBUF):
    """Rows of `t` selected by `count` run-time indices."""
    index = tensor(count // columns, columns, dtype=dtype, region=index_region)
    dynamic = DynamicOffset("vector", index, t.strides[0], 0, t.shape[0])
    return NkiTensor((count, *t.shape[1:]), (0, *t.strides[1:]), t.offset, t.dtype, t.storage, dynamic)


def shifted(t):
    """`t` at a run-time offset."""
    dynamic = DynamicOffset("scalar", VirtualRegister(0), t.strides[0], -1, t.shape[0])
    return NkiTensor(t.shape, t.strides, t.offset, t.dtype, t.storage, dynamic)


# --- what is moved


@given(st.data(), shapes(), st.sampled_from(NUMERIC), st.sampled_from(NUMERIC), regions, regions)
def test_copy_converts_through_float32(data, shape, from_, to, source_region, region):
    source = data.draw(tiles(shape, from_, source_region))
    with np.errstate(all="ignore"):
        expected = plain(source) if from_ == to else cast(fp32(source), DTYPES[to])
    same(run(dma_copy(dst_of(shape, to, region), source)), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e5m2_x4"])
def test_copy_of_one_type_moves_bits(dtype):
    row = DTYPES[dtype]
    raw = np.random.default_rng(0).integers(0, 256, (16, 4 * row.itemsize), dtype=np.uint8)
    source = tensor(16, 4, dtype=dtype, region=HBM, contents=raw)
    got = run(dma_copy(dst_of((16, 4), dtype), source))
    assert np.array_equal(got.view(np.uint8).reshape(raw.shape), raw)


def test_copy_takes_elements_in_row_major_order():
    source = filled(2, 3, 4, dtype="int32")
    assert np.array_equal(run(dma_copy(dst_of((6, 4), "int32"), source)), plain(source).reshape(6, 4))


@given(
    st.sampled_from([(16, 128), (5, 7), (2, 8, 9), (16, 3, 5), (4, 3, 2, 8)]),
    st.sampled_from(["float32", "bfloat16", "uint16"]),
    regions,
)
def test_transpose(shape, dtype, region):
    source = filled(*shape, dtype=dtype, region=region)
    axes = {2: (1, 0), 3: (2, 1, 0), 4: (3, 1, 2, 0)}[len(shape)]
    expected = plain(source).transpose(axes)
    got = run(dma_transpose(dst_of(expected.shape, dtype), source, axes=axes))
    assert np.array_equal(got.view(np.uint8), np.ascontiguousarray(expected).view(np.uint8))


@given(st.integers(1, 16), st.sampled_from(["float32", "bfloat16", "int32"]), st.integers(0, 99))
def test_compute_sums_in_float32(count, dtype, seed):
    sources = [filled(8, 6, dtype=dtype if k % 2 else "bfloat16", seed=seed + k) for k in range(count)]
    total = dma_compute(dst_of((8, 6), dtype), sources, "add", scales=[1.0] * count)
    total.check(TRN2)
    with np.errstate(all="ignore"):
        expected = np.zeros((8, 6), np.float32)
        for source in sources:
            expected = expected + fp32(source)
    assert np.array_equal(total.compute([plain(s) for s in sources]), expected)


# --- what it costs


def busiest(instruction, target):
    """ns of the busiest DMA engine."""
    return engine_time(target, instruction.cost(target).transfer)


def test_a_sum_reads_each_of_its_sources():
    """Two of them at half the rate of a copy; what near memory adds to is not read."""
    tile, rows = dst_of((128, 64)), filled(128, 64)
    for target, reads in ((TRN1, 2), (TRN2, 2), (TRN3, 1)):
        once = busiest(dma_copy(tile, rows, dge_mode=dge_mode.none), target)
        assert busiest(dma_compute(tile, [tile, rows], "add"), target) == reads * once
        assert busiest(dma_compute(tile, [rows, filled(128, 64)], "add"), target) == 2 * once
        assert busiest(dma_compute(tile, [rows] * 5, "add"), target) == 5 * once


@pytest.mark.parametrize(
    "shape, region, mode",
    [((128, 128), SBUF, "static"), ((16, 128), SBUF, "hwdge"), ((128, 128), HBM, "swdge")],
)
def test_a_transpose_that_is_no_block_of_hardware_dge_is_prepared(shape, region, mode):
    assert transpose(*shape, region=region).cost(TRN2).transfer.mode == mode


# --- rules


def copy(dst=None, src=None, **given):
    shape = (128, 64)
    return dma_copy(dst_of(shape) if dst is None else dst, filled(*shape) if src is None else src, **given)


def transpose(*shape, dtype="bfloat16", region=HBM, src=None, dst=None, **given):
    source = filled(*shape, dtype=dtype, region=region) if src is None else src
    if dst is None:
        axes = {2: (1, 0), 3: (2, 1, 0), 4: (3, 1, 2, 0)}[source.ndim]
        dst = dst_of([source.shape[a] for a in axes], source.dtype)
    return dma_transpose(dst, source, **given)


TABLE = filled(512, 64)
WORDS = filled(512, 64, dtype="bfloat16")
TILE, ROWS = dst_of((128, 64)), gathered(TABLE, 128)
hw, sw, static = dge_mode.hwdge, dge_mode.swdge, dge_mode.none

RULES = [
    # dma_copy
    (None, TRN2, lambda: copy()),
    (None, TRN2, lambda: copy(dst=dst_of((128, 64), region=HBM), src=dst_of((128, 64)))),
    ("NKI-V101", TRN2, lambda: copy(dst=dst_of((128, 64), region=PSUM))),
    ("NKI-V101", TRN2, lambda: copy(src=dst_of((128, 64), region=PSUM))),
    ("NKI-V100", TRN2, lambda: copy(src=1.0)),
    ("NKI-V103", TRN2, lambda: copy(dst=dst_of((128, 63)))),
    ("NKI-V105", TRN2, lambda: copy(dst=tensor(128, 64, dtype="float8_e5m2_x4"))),
    (None, TRN3, lambda: copy(priority=3)),
    ("NKI-V111", TRN3, lambda: copy(priority=4)),
    ("NKI-V111", TRN2, lambda: copy(priority=3)),
    (None, TRN2, lambda: copy(dge_mode=hw, engine=Engine.scalar)),
    ("NKI-V108", TRN1, lambda: copy(dge_mode=hw)),
    ("NKI-V113", TRN2, lambda: copy(dge_mode=hw, engine=Engine.vector)),
    ("NKI-V113", TRN2, lambda: copy(engine=Engine.scalar)),
    ("NKI-V100", TRN2, lambda: copy(dge_mode="fast")),
    ("NKI-V100", TRN2, lambda: copy(dge_mode=2)),
    ("NKI-V100", TRN2, lambda: copy(oob_mode=0)),
    ("NKI-V100", TRN2, lambda: copy(oob_mode=True)),
    (None, TRN2, lambda: copy(src=ROWS)),
    (None, TRN2, lambda: copy(src=ROWS, dge_mode=sw)),
    ("NKI-V113", TRN2, lambda: copy(src=ROWS, dge_mode=hw)),
    ("NKI-V113", TRN2, lambda: copy(src=ROWS, dge_mode=static)),
    ("NKI-V108", TRN1, lambda: copy(src=ROWS)),
    ("NKI-V101", TRN2, lambda: copy(src=gathered(dst_of((128, 64)), 128))),
    (None, TRN1, lambda: copy(src=shifted(filled(128, 64)))),
    # dma_transpose
    (None, TRN2, lambda: transpose(32, 100)),
    ("NKI-V101", TRN2, lambda: transpose(32, 100, dst=dst_of((100, 32), "bfloat16", HBM))),
    ("NKI-V101", TRN2, lambda: transpose(32, 100, region=PSUM)),
    ("NKI-V105", TRN2, lambda: transpose(32, 100, dst=dst_of((100, 32)))),
    ("NKI-V111", TRN2, lambda: transpose(8, dst=dst_of((8, 1), "bfloat16"))),
    ("NKI-V111", TRN2, lambda: transpose(32, 100, axes=(0, 1))),
    ("NKI-V103", TRN2, lambda: transpose(32, 100, dst=dst_of((32, 100), "bfloat16"))),
    (None, TRN2, lambda: transpose(16, 128, dge_mode=hw)),
    ("NKI-V103", TRN2, lambda: transpose(32, 128, dge_mode=hw)),
    ("NKI-V103", TRN2, lambda: transpose(16, 129, dge_mode=hw)),
    ("NKI-V103", TRN2, lambda: transpose(16, 128, dtype="float32", dge_mode=hw)),
    (None, TRN2, lambda: transpose(8, 2, 128, dge_mode=hw)),
    ("NKI-V103", TRN2, lambda: transpose(8, 3, 128, dge_mode=hw)),
    ("NKI-V108", TRN1, lambda: transpose(16, 128, dge_mode=hw)),
    ("NKI-V113", TRN2, lambda: transpose(32, 100, dge_mode=static)),
    (None, TRN2, lambda: transpose(32, 100, dge_mode=static, loose=True)),
    ("NKI-V113", TRN2, lambda: transpose(32, 100, dge_mode=sw, loose=True)),
    (None, TRN2, lambda: transpose(32, 1, 1, 100, dst=dst_of((100, 1, 32), "bfloat16"), loose=True)),
    ("NKI-V103", TRN2, lambda: transpose(32, 1, 1, 100, dst=dst_of((100, 2, 16), "bfloat16"), loose=True)),
    ("NKI-V103", TRN2, lambda: transpose(32, 1, 100, dst=dst_of((100, 1, 1, 32), "bfloat16"), loose=True)),
    ("NKI-V100", TRN2, lambda: transpose(16, 128, dge_mode=2)),
    ("NKI-V113", TRN2, lambda: transpose(32, 100, dge_mode=sw)),
    ("NKI-V113", TRN2, lambda: transpose(32, 100, oob_mode=oob_mode.skip)),
    (None, TRN2, lambda: transpose(src=gathered(WORDS, 128), oob_mode=oob_mode.skip)),
    (None, TRN2, lambda: transpose(src=gathered(WORDS, 256, columns=2), dge_mode=sw)),
    ("NKI-V113", TRN2, lambda: transpose(src=gathered(WORDS, 128), dge_mode=static)),
    ("NKI-V108", TRN1, lambda: transpose(src=gathered(WORDS, 128))),
    ("NKI-V103", TRN2, lambda: transpose(src=gathered(WORDS, 24))),
    ("NKI-V103", TRN2, lambda: transpose(src=gathered(WORDS, 128, dtype="int32"))),
    ("NKI-V103", TRN2, lambda: transpose(src=gathered(WORDS, 128, columns=2))),
    ("NKI-V103", TRN2, lambda: transpose(src=gathered(filled(512, 144, dtype="bfloat16"), 128))),
    ("NKI-V103", TRN2, lambda: transpose(src=gathered(TABLE, 128))),
    (None, TRN2, lambda: transpose(src=gathered(filled(64, 2, 1, 64, dtype="bfloat16"), 128))),
    ("NKI-V103", TRN2, lambda: transpose(src=gathered(filled(64, 2, 2, 64, dtype="bfloat16"), 128))),
    # dma_compute
    (None, TRN2, lambda: dma_compute(TILE, [TILE, filled(128, 64)], "add")),
    ("NKI-V101", TRN2, lambda: dma_compute(TILE, [dst_of((128, 64), region=PSUM)], "add")),
    ("NKI-V100", TRN2, lambda: dma_compute(TILE, [1.0], "add")),
    ("NKI-V111", TRN2, lambda: dma_compute(TILE, [TILE] * 17, "add")),
    ("NKI-V111", TRN2, lambda: dma_compute(TILE, [], "add")),
    ("NKI-V103", TRN2, lambda: dma_compute(TILE, [TILE, filled(64, 64)], "add")),
    ("NKI-V107", TRN2, lambda: dma_compute(TILE, [TILE], "maximum")),
    ("NKI-V111", TRN2, lambda: dma_compute(TILE, [TILE], "add", scales=[2.0])),
    ("NKI-V111", TRN2, lambda: dma_compute(TILE, [TILE], "add", unique_indices=False)),
    (None, TRN2, lambda: dma_compute(TILE, [TILE, ROWS], "add")),
    (None, TRN2, lambda: dma_compute(ROWS, [ROWS, TILE], "add")),
    ("NKI-V113", TRN2, lambda: dma_compute(TILE, [ROWS, filled(128, 64)], "add")),
    ("NKI-V113", TRN2, lambda: dma_compute(ROWS, [TILE, filled(128, 64)], "add")),
    ("NKI-V113", TRN2, lambda: dma_compute(TILE, [TILE, TILE, ROWS], "add")),
    ("NKI-V113", TRN2, lambda: dma_compute(TILE, [TILE, shifted(filled(128, 64))], "add")),
    ("NKI-V108", TRN1, lambda: dma_compute(TILE, [TILE, ROWS], "add")),
]


@pytest.mark.parametrize(("code", "target", "make"), RULES)
def test_rules(code, target, make):
    instruction = make()
    if code is None:
        instruction.check(target)
        return
    with pytest.raises(NkiValidationError) as caught:
        instruction.check(target)
    assert code in [d.code for d in caught.value.diagnostics], str(caught.value)


# --- descriptors


@pytest.mark.parametrize(
    ("make", "rows", "row_bytes", "direction"),
    [
        (lambda: copy(), 128, 256, "load"),  # a row for each partition
        (lambda: copy(dst=dst_of((128, 64), region=HBM), src=dst_of((128, 64))), 128, 256, "store"),
        (lambda: copy(dst=dst_of((128, 64)), src=dst_of((128, 64))), 128, 256, "local"),
        (lambda: copy(dst=dst_of((512, 64), region=HBM), src=TABLE), 2, 65536, "store"),  # the longest row
        (lambda: copy(src=view(TABLE, (128, 64), (64, 2))), 128 * 64, 4, "load"),  # strided: an element each
        (lambda: copy(src=ROWS), 128, 256, "load"),
        (lambda: copy(dst=dst_of((128, 64), region=HBM), src=ROWS), 128, 256, "store"),  # rows do not join
        (lambda: copy(dst=gathered(TABLE, 128), src=dst_of((128, 64))), 128, 256, "store"),
        (lambda: copy(dst=dst_of((128, 64), "bfloat16")), 128, 256, "load"),
    ],
)
def test_descriptors_of_a_copy(make, rows, row_bytes, direction):
    moved = make().cost(TRN2).transfer
    assert (moved.elements, moved.element_bytes, moved.direction) == (rows, row_bytes, direction)
    assert moved.total_bytes == rows * row_bytes


@pytest.mark.parametrize(
    ("make", "target", "mode", "issuer"),
    [
        (lambda: copy(dge_mode=static), TRN2, "static", Engine.sync),
        (lambda: copy(dge_mode=sw), TRN2, "swdge", Engine.gpsimd),
        (lambda: copy(dge_mode=hw), TRN2, "hwdge", Engine.sync),
        (lambda: copy(dge_mode=hw, engine=Engine.scalar), TRN2, "hwdge", Engine.scalar),
        (lambda: copy(), TRN1, "static", Engine.sync),
        (lambda: copy(src=shifted(filled(128, 64))), TRN1, "swdge", Engine.gpsimd),
        (lambda: copy(dst=dst_of((128, 64)), src=dst_of((128, 64))), TRN2, "hwdge", Engine.sync),
        (lambda: copy(src=ROWS), TRN2, "swdge", Engine.gpsimd),
        (lambda: dma_compute(TILE, [TILE, filled(128, 64)], "add"), TRN2, "static", Engine.sync),
        (lambda: dma_compute(TILE, [TILE, ROWS], "add"), TRN2, "swdge", Engine.gpsimd),
    ],
)
def test_who_makes_descriptors(make, target, mode, issuer):
    dma = make()
    assert dma.on is Engine.dma
    assert dma.cost(target).transfer.mode == mode
    assert dma.issuer(target) is issuer


def test_a_transpose_is_slower_than_a_copy_and_a_sum_moves_every_source():
    plain_copy = dma_copy(dst_of((100, 32), "bfloat16"), filled(100, 32, dtype="bfloat16")).cost(TRN2)
    assert transpose(32, 100).cost(TRN2).transfer.slowdown > plain_copy.transfer.slowdown
    three = dma_compute(TILE, [filled(128, 64)] * 3, "add").cost(TRN2).transfer
    assert three.read_bytes == 3 * 128 * 64 * 4 and three.elements == 3 * 128
