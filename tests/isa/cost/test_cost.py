"""Cost formulas against the figures read off public hardware profiles."""

from __future__ import annotations

import pytest

import nki_isa.ops  # noqa: F401  (fills the registry)
from nki_isa.cost import matmuls, sequencer, streaming, transfers
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import FIGURES
from nki_isa.machine.targets import TRN1, TRN2, TRN3
from nki_isa.ops.accumulate import tensor_scalar_reduce
from nki_isa.ops.elementwise import memset
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor

SBUF, PSUM = MemoryRegion.sbuf, MemoryRegion.psum


def tile(shape, dtype="float32", region="sbuf", kind="local"):
    return NkiTensor.whole(Storage(0, "t", MemoryRegion(region), shape, as_dtype(dtype), kind=kind))


@pytest.mark.parametrize(
    ("kind", "dtype", "memories", "contiguous", "rates"),
    [
        ("tensor_copy", "bfloat16", (SBUF, SBUF), True, (1, 4, 4)),
        ("tensor_scalar", "float16", (SBUF, SBUF), True, (1, 4, 4)),
        ("tensor_copy", "bfloat16", (SBUF, SBUF), False, (1, 2, 2)),
        ("tensor_copy", "bfloat16", (SBUF, PSUM), True, (1, 2, 2)),
        ("tensor_copy", "bfloat16", (SBUF, PSUM), False, (1, 1, 1)),
        ("tensor_copy", "float8_e4m3", (SBUF, SBUF), True, (1, 2, 4)),
        ("tensor_copy", "float32", (SBUF, SBUF), True, (1, 2, 2)),
        ("tensor_copy", "float32", (SBUF, PSUM), True, (1, 1, 1)),
        ("tensor_tensor", "bfloat16", (SBUF, SBUF, SBUF), True, (1, 2, 2)),
        ("tensor_tensor", "float32", (SBUF, SBUF, SBUF), True, (0.5, 1, 1)),
        ("tensor_tensor", "bfloat16", (SBUF, SBUF, PSUM), True, (1, 1, 1)),
        ("tensor_tensor", "float32", (SBUF, SBUF, PSUM), True, (1, 1, 1)),
        ("scalar_tensor_tensor", "float32", (SBUF, SBUF, SBUF), True, (0.5, 1, 1)),
        ("tensor_tensor_scan", "float32", (SBUF, SBUF, SBUF), True, (0.5, 0.5, 0.5)),
        ("reciprocal", "float32", (SBUF, SBUF), True, (1 / 2.6, 1 / 6, 1 / 6)),
        ("tensor_reduce", "float32", (SBUF, SBUF), True, (1, 1, 1)),
        ("iota", "float32", (SBUF,), True, (1, 1, 1)),
    ],
)
def test_performance_modes(kind, dtype, memories, contiguous, rates):
    dtypes = [as_dtype(dtype)] * len(memories)
    modes = REGISTRY[kind].modes
    found = [streaming.vector_rate(t, modes, dtypes, memories, contiguous) for t in (TRN1, TRN2, TRN3)]
    assert [getattr(t, f) for t, f in zip((TRN1, TRN2, TRN3), found, strict=True)] == list(rates)


def test_rate_of_views():
    whole = tile((128, 64), "bfloat16")
    strided = NkiTensor((128, 32), (64, 2), 0, whole.dtype, whole.storage)
    modes = REGISTRY["tensor_copy"].modes
    assert streaming.rate_of(TRN2, modes, whole, whole) == "vector_fast_rate"
    assert streaming.rate_of(TRN2, modes, strided, strided) == "vector_half_fast_rate"


@pytest.mark.parametrize("target", [TRN1, TRN2, TRN3], ids=lambda target: target.name)
def test_an_operand_read_by_a_pointer_costs_its_own_time(target):
    """One value per partition, on the engine that reads it; gpsimd has no such figure."""
    by_engine = {
        Engine.scalar: (target.scalar_bias_interval_psum, target.scalar_bias_latency_psum),
        Engine.vector: (target.vector_pointer_interval, target.vector_pointer_latency),
        Engine.gpsimd: (0, 0),
    }
    for engine, (interval, latency) in by_engine.items():
        plain = streaming.elementwise(target, engine, 64)
        for count in (1, 2):
            more = streaming.elementwise(target, engine, 64, pointers=count)
            assert more.busy - plain.busy == pytest.approx(count * interval)
            assert more.latency - plain.latency == pytest.approx(count * latency)


def test_every_cost_names_a_figure():
    moved = transfers.copy(TRN2, tile((128, 8)), tile((128, 8), region="shared_hbm"))
    costs = [
        streaming.elementwise(TRN2, Engine.vector, 8),
        streaming.elementwise(TRN2, Engine.scalar, 8),
        streaming.elementwise(TRN2, Engine.gpsimd, 8),
        streaming.activation(TRN2, 8, table="exp", pointer_bias=False, psum_source=False),
        streaming.gpsimd(TRN2, 8),
        matmuls.matmul(TRN2, 512, 1, 128, 128, 0),
        sequencer.register(TRN2),
        sequencer.register(TRN2, memory=True),
        moved,
    ]
    assert all(c.source in FIGURES for c in costs)
    assert [c.rate for c in costs] == [
        "vector_rate", "scalar_rate", "gpsimd_rate", "scalar_rate", "gpsimd_rate", "tensor_rate", "", "",
        "dma_bytes_per_ns",
    ]  # fmt: skip
    assert all(c.latency >= c.busy > 0 for c in costs if c is not moved)


def test_gpsimd_is_the_published_formula():
    assert streaming.gpsimd(TRN1, 512).latency == pytest.approx((150 + 512) / 1.4)
    assert streaming.gpsimd(TRN2, 512, factor=2).latency == pytest.approx((150 + 256) / 1.2)


@pytest.mark.parametrize(
    ("passes", "parts", "weights"),
    [(1, 1, 32 / 2.4), (2, 1, 128 / 2.4), (4, 2, 256 / 2.4)],
    ids=["16 bit", "fp32 transpose", "fp32"],
)
def test_matmul_passes(passes, parts, weights):
    found = matmuls.matmul(TRN2, 512, passes, 128, 128, 2 * 128 * 128 * 512)
    assert (found.columns, found.parts) == (512 * passes, parts)
    assert found.weights == pytest.approx(weights)
    # LoadStationary as the profiler shows it: its own latency and the streaming
    shown = {1: 97, 2: 140, 4: 191}[passes]
    assert found.weights + TRN2.weight_latency == pytest.approx(shown, abs=3)


def test_a_narrow_matmul_takes_its_least_columns():
    assert matmuls.matmul(TRN1, 1, 1, 128, 128, 0).columns == 64
    assert matmuls.matmul(TRN1, 1, 1, 16, 128, 0).columns == 16
    assert matmuls.matmul(TRN1, 100, 1, 128, 128, 0).columns == 100


@pytest.mark.parametrize(
    ("region", "shape", "strides", "run"),
    [
        ("sbuf", (16, 4, 8), (32, 8, 1), 32),
        ("sbuf", (16, 4, 4), (32, 8, 1), 4),
        ("sbuf", (16, 8, 4), (32, 1, 8), 1),
        ("shared_hbm", (16, 4, 8), (32, 8, 1), 512),
        ("shared_hbm", (16, 1, 8), (32, 8, 1), 8),
    ],
)
def test_contiguous_runs(region, shape, strides, run):
    whole = tile((16, 4, 8), region=region)
    assert transfers.contiguous_run(NkiTensor(shape, strides, 0, whole.dtype, whole.storage)) == run


def test_copy_deals_rows_that_are_contiguous_on_both_sides():
    hbm = tile((256, 512), region="shared_hbm", kind="input")
    rows = NkiTensor((128, 2, 512), (512, 65536, 1), 0, hbm.dtype, hbm.storage)
    load = transfers.copy(TRN2, tile((128, 2, 512)), rows).transfer
    assert (load.elements, load.element_bytes, load.partitions) == (256, 2048, 128)
    assert (load.read_bytes, load.write_bytes, load.total_bytes) == (524288, 0, 524288)
    assert (load.direction, load.mode) == ("load", "swdge")
    store = transfers.copy(TRN2, tile((128, 512), region="private_hbm"), tile((128, 512))).transfer
    assert (store.direction, store.mode, store.write_bytes) == ("store", "hwdge", 262144)
    local = transfers.copy(TRN1, tile((128, 512)), tile((128, 512))).transfer
    assert (local.direction, local.mode, local.read_bytes, local.write_bytes) == ("local", "static", 0, 0)


def test_long_rows_are_split():
    row = transfers.copy(TRN2, tile((1, 40000)), tile((1, 40000), region="shared_hbm")).transfer
    assert row.element_bytes <= TRN2.dma_row_limit_bytes
    assert row.elements == 3


def test_a_dma_transpose_is_slower_than_a_copy():
    source, tiles = tile((128, 128), "bfloat16", "shared_hbm"), tile((128, 128), "bfloat16")
    plain = transfers.engine_time(TRN2, transfers.copy(TRN2, tiles, source, mode="static").transfer)
    turned = transfers.engine_time(TRN2, transfers.copy(TRN2, tiles, source, transpose=True).transfer)
    assert turned == pytest.approx(plain / 0.9)


def test_rows_whose_ends_differ_are_cut_at_both():
    """128 runs of 89 against 89 of 128: one end is shared. Their sizes have no factor in common."""
    moved = transfers.copy(
        TRN2, tile((128, 89), "bfloat16"), tile((89, 128), "bfloat16"), transpose=True
    ).transfer
    assert moved is not None
    assert moved.elements == 89 + 128 - 1
    assert moved.element_bytes * moved.elements == pytest.approx(moved.total_bytes, rel=0.01)


def test_a_small_row_has_a_least_time():
    assert transfers.row_time(TRN2, 4) == transfers.row_time(TRN2, 128) == TRN2.dma_row_floor_ns
    assert transfers.row_time(TRN2, 512) == pytest.approx(4.7 + 512 / 27.2)
    assert transfers.row_time(TRN1, 4) == 7.0


def test_rows_of_two_kibibytes_are_still_short_ones_on_trn1():
    """Matrix multiplication tutorial: 103 GB/s by 16 engines with rows of 1 KiB; NKIBench: 93 GB/s with rows
    of 2 KiB (rope); figure 30 of the performance guide: 280 with rows of 4 KiB, the bandwidth guide: 272."""
    assert 16 * 1024 / transfers.row_time(TRN1, 1024) == pytest.approx(103, rel=0.03)
    assert transfers.row_time(TRN1, 2048) == pytest.approx(4.7 + 2048 / 6.79, rel=1e-6)
    assert transfers.row_time(TRN1, 2049) == pytest.approx(4.7 + 2049 / 17, rel=1e-6)


def test_software_dge_joins_rows_that_lie_next_to_each_other_in_hbm():
    """Packets of the public traces: 4 KiB of rows of 1 KiB, less where an engine has no more; a row each by
    hardware DGE and where the data type changes. Rows that lie apart in HBM pay as if they were."""

    def packet(tile_shape, outer, mode="swdge", dtype="bfloat16", transpose=False):
        on_chip = tile(tile_shape, dtype)
        found = {
            transfers.copy(TRN2, *pair, mode=mode, transpose=transpose).transfer.packet_bytes
            for pair in ((on_chip, outer), (outer, on_chip))
        }
        assert len(found) == 1
        return found.pop()

    def outer(shape):
        return tile(shape, "bfloat16", "shared_hbm")

    assert packet((128, 128), outer((128, 128))) == 8 * 256
    assert packet((128, 512), outer((128, 512))) == 4 * 1024
    assert packet((128, 1536), outer((128, 1536))) == 3072  # two are more than 4 KiB
    assert packet((128, 4096), outer((128, 4096))) == 8192
    assert packet((4, 32), outer((4, 32))) == 4 * 64
    half = outer((128, 256))[:, :128]
    apart = outer((4, 128, 128)).permute((1, 0, 2))
    for others in (
        packet((128, 128), outer((128, 128)), "hwdge"),
        packet((128, 128), outer((128, 128)), "static"),
        packet((128, 128), half),
        packet((128, 4, 128), apart),
    ):
        assert others == 256
    assert packet((128, 128), outer((128, 128)), dtype="float32") == 512
    between = transfers.copy(TRN2, outer((128, 128)), half, mode="swdge").transfer
    assert (between.elements, between.packet_bytes) == (128, 256)
    assert packet((128, 128), outer((128, 128)), transpose=True) == 256


def test_a_packet_pays_the_fixed_time_of_a_row_once():
    """SDK DMA overview, example 2: each engine moves 8 rows of 256 bytes in 81 to 98 ns, and back in 83."""
    outer, on_chip = tile((128, 128), "bfloat16", "shared_hbm"), tile((128, 128), "bfloat16")
    load = transfers.copy(TRN2, on_chip, outer, mode="swdge").transfer
    store = transfers.copy(TRN2, outer, on_chip, mode="swdge").transfer
    assert transfers.engine_time(TRN2, load) == transfers.engine_time(TRN2, store)
    assert transfers.time_alone(TRN2, store) == pytest.approx(4.7 + 2048 / 27.2)
    assert transfers.time_alone(TRN2, load) == pytest.approx(4.7 + 2048 / 23)
    apart = transfers.copy(TRN2, on_chip, outer, mode="hwdge").transfer
    assert transfers.engine_time(TRN2, apart) == pytest.approx(8 * (4.7 + 256 / 27.2))


def test_a_load_waits_for_hbm_in_its_first_32_kib():
    """SDK DMA overview, example 1: one engine loads 32 KiB in 1416 ns and stores them in 1225."""

    def waits(elements):
        outer, on_chip = tile((4, elements), "bfloat16", "shared_hbm"), tile((4, elements), "bfloat16")
        load = transfers.copy(TRN2, on_chip, outer, mode="static").transfer
        store = transfers.copy(TRN2, outer, on_chip, mode="static").transfer
        assert transfers.time_alone(TRN2, store) == transfers.engine_time(TRN2, store)
        return transfers.time_alone(TRN2, load) - transfers.engine_time(TRN2, load)

    assert waits(4096) == pytest.approx(1416 - 1225, rel=0.2)
    assert waits(2048) == pytest.approx(waits(4096) / 2)
    assert [waits(8192), waits(16384)] == pytest.approx([waits(4096)] * 2)


def test_the_last_of_the_engines_of_a_load_waits_twice_as_long():
    """Public traces, hardware DGE, first to last byte less the rows of one engine: 0.23 to 0.45 us of 4 KiB
    for each engine, 0.70 to 0.77 of 32 KiB; 0.15 of any store."""

    def more(size, partitions=128, store=False):
        pair = tile((partitions, size)), tile((partitions, size), region="shared_hbm")
        moved = transfers.copy(TRN2, *(pair[::-1] if store else pair), mode="hwdge").transfer
        whole = transfers.time_alone(TRN2, moved) + transfers.finish_time(TRN2, moved)
        return whole - transfers.engine_time(TRN2, moved) - TRN2.dma_completion

    assert 230 < more(128) < 450
    assert 700 < more(1024) < 770
    assert more(1024, partitions=8) == pytest.approx(300 + (more(1024) - 300) / 2)
    assert more(128, store=True) == more(1024, store=True) == TRN2.dma_stagger_store


@pytest.mark.parametrize(
    ("region", "asked", "engine"),
    [("sbuf", {}, Engine.gpsimd), ("psum", {}, Engine.vector), ("sbuf", {"engine": "vector"}, Engine.vector)],
)
def test_engine_of_a_memset(region, asked, engine):
    asked = {name: Engine[value] for name, value in asked.items()}
    assert memset(dst=tile((128, 8), region=region), value=0.0, **asked).on is engine


def test_reducing_as_it_goes_takes_an_element_a_cycle():
    """Not the faster rates of tensor_scalar: max(64, N) + 64 cycles is published."""
    data, result = tile((128, 512), "bfloat16"), tile((128, 1))
    reducing = tensor_scalar_reduce(
        dst=data, data=data, op0="multiply", operand0=2.0, reduce_op="add", reduce_res=result
    )
    assert reducing.cost(TRN2).rate == "vector_rate"


def test_a_copy_is_priced_by_the_names_of_its_arguments():
    moved = transfers.copy(target=TRN2, dst=tile((128, 8)), src=tile((128, 8), region="shared_hbm"))
    assert moved == transfers.copy(TRN2, tile((128, 8)), tile((128, 8), region="shared_hbm"))


def test_wide_strides_halve_the_rate_of_a_port_on_trn1():
    """Elements over 16 bytes apart, from the second dimension on; trn2 streams them as others."""
    plain = streaming.elementwise(TRN1, Engine.vector, 4096)
    near, far = tile((128, 4096)), tile((128, 4096, 5))[:, :, 0]
    assert streaming.strided(TRN1, plain, [near, near]) == plain
    slow = streaming.strided(TRN1, plain, [near, far])
    assert slow.busy - plain.busy == pytest.approx(4096 / TRN1.access_strided_per_ns - plain.stream)
    assert slow.busy > plain.busy
    assert streaming.strided(TRN2, plain, [near, far]) == plain
