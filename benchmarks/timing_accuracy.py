"""Simulated times beside public measurements on hardware.

Rows marked ``fit`` set the figures of :mod:`nki_isa.machine.targets` whose evidence is ``fitted``
(``fidelity/fit.py`` says which set what); rows marked ``check`` set none. Run it as ``python
benchmarks/timing_accuracy.py [part of a name]``.

Sources: the SDK's matrix multiplication tutorial (v2.20 to v2.26, trn1) and kernel
optimization guide (trn2), its performance guide and DMA overview, and the public
trn2 profiles of allenkchau/trainium-kernel-fusion.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from compiled_attention import attention
from streams import Stream
from timing_kernels import matmul

from nki_isa.cost.transfers import engine_time
from nki_isa.diagnostics import NkiMemoryError
from nki_isa.ir.program import Program
from nki_isa.machine.enums import Engine, dge_mode
from nki_isa.machine.target import Target
from nki_isa.machine.targets import as_target
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.cores.core_times import simulate_all
from nki_sim.placement.place import place
from nki_sim.report.profile import Profile
from nki_sim.schedule.compiler import scheduled
from nki_sim.timing.scoreboard import Timeline

Emit = Callable[[Stream], None]
Metric = Callable[[Profile], float]


@dataclass(frozen=True)
class Row:
    """One measurement: what, on which generation, the value, and how to simulate it."""

    name: str
    target: str
    use: str  # "fit" or "check"
    measured: float
    unit: str
    simulated: Callable[[], float]


_order = "program"
_machine: Target | None = None


@contextlib.contextmanager
def on_machine(machine: Target) -> Iterator[None]:
    """Time on this machine rather than on the generation a row names."""
    global _machine
    before, _machine = _machine, machine
    _profile.cache_clear()
    try:
        yield
    finally:
        _machine = before
        _profile.cache_clear()


@contextlib.contextmanager
def in_order(order: str) -> Iterator[None]:
    """Time kernels in the order the kernel states or, for ``"compiler"``, in that of the scheduler."""
    global _order
    before, _order = _order, order
    try:
        yield
    finally:
        _order = before


def run(program: Program) -> Timeline:
    """Placed and timed; without a placement where the vendor's compiler would have to spill."""
    try:
        placement = place(program, as_target(program.target))
    except NkiMemoryError:
        placement = None
    if _order == "compiler":
        program = scheduled(program, _machine or as_target(program.target), placement)
    return simulate_all([program], [placement], target=_machine)[0]


# --- one instruction


def _repeated(target: str, emit: Emit, count: int = 6) -> Timeline:
    stream = Stream("single", target)
    for _ in range(count):
        emit(stream)
    return simulate_all([stream.program], [None], target=_machine)[0]


def latency(target: str, emit: Emit, count: int = 6) -> Callable[[], float]:
    """ns from start to visible result of the last of a few independent instructions."""

    def simulated() -> float:
        timeline = _repeated(target, emit, count)
        return float(timeline.end[-1] - timeline.start[-1])

    return simulated


def interval(target: str, emit: Emit, count: int = 6) -> Callable[[], float]:
    """ns between the starts of two independent instructions, back to back."""

    def simulated() -> float:
        timeline = _repeated(target, emit, count)
        return float(timeline.start[-1] - timeline.start[-2])

    return simulated


def data_time(target: str, emit: Emit) -> Callable[[], float]:
    """ns from the first to the last byte of a DMA, on the busiest DMA engine."""

    def simulated() -> float:
        timeline = _repeated(target, emit, 1)
        return float(timeline.busy[0] - timeline.begin[0])

    return simulated


def row_time(target: str, emit: Emit) -> Callable[[], float]:
    """ns a DMA engine works on each of the rows of a DMA that keeps all engines busy."""

    def simulated() -> float:
        timeline = _repeated(target, emit, 1)
        moved = timeline.costs[0].transfer
        assert moved is not None
        return engine_time(timeline.target, moved) * timeline.target.dma_engines / moved.elements

    return simulated


def first_byte(target: str, emit: Emit) -> Callable[[], float]:
    """ns from the trigger of a DMA to its first byte, the making of its descriptors included."""

    def simulated() -> float:
        timeline = _repeated(target, emit, 1)
        return float(timeline.begin[0] - timeline.start[0])

    return simulated


def copy(
    memory: str, size: int, dtype: str = "float32", engine: str = "vector", to: str | None = None
) -> Emit:
    """tensor_copy of [128, size] into SBUF, cast to type `to` if it is given."""

    def emit(stream: Stream) -> None:
        source = stream.tensor(memory, (128, size), dtype)
        stream.copy_on(engine, stream.sbuf((128, size), to or dtype), source)

    return emit


def chained(size: int) -> Emit:
    """tensor_copy of [128, size] on the scalar engine, each of what the one before made."""
    made: list[NkiTensor] = []

    def emit(stream: Stream) -> None:
        made[:] = [*made[-1:], stream.sbuf((128, size), "float32")] if stream.program.body else []
        if len(made) < 2:
            made[:] = [stream.sbuf((128, size), "float32") for _ in range(2)]
        stream.copy_on("scalar", made[1], made[0])

    return emit


def reduce(memory: str, size: int) -> Emit:
    """tensor_reduce by add of [128, size] fp32 to one column."""

    def emit(stream: Stream) -> None:
        data = stream.tensor(memory, (128, size), "float32")
        stream.tensor_reduce(dst=stream.sbuf((128, 1), "float32"), op="add", data=data, axis=1)

    return emit


def folded(*shape: int) -> Emit:
    """tensor_reduce by maximum of the last dimension of [128, *shape] fp32 in SBUF."""

    def emit(stream: Stream) -> None:
        data, result = stream.sbuf((128, *shape), "float32"), stream.sbuf((128, *shape[:-1]), "float32")
        stream.tensor_reduce(dst=result, op="maximum", data=data, axis=len(shape), negate=True)

    return emit


def scaled(memory: str, size: int) -> Emit:
    """tensor_scalar of [128, size] fp32 with one factor per partition."""

    def emit(stream: Stream) -> None:
        data = stream.tensor(memory, (128, size), "float32")
        factor = stream.sbuf((128, 1), "float32")
        result = stream.sbuf((128, size), "float32")
        stream.tensor_scalar(dst=result, data=data, op0="multiply", operand0=factor)

    return emit


def added(size: int, partitions: int = 128) -> Emit:
    """tensor_tensor by add of two fp32 tiles in SBUF."""

    def emit(stream: Stream) -> None:
        a, b, c = (stream.sbuf((partitions, size), "float32") for _ in range(3))
        stream.tensor_tensor(dst=c, data1=a, data2=b, op="add")

    return emit


def inverse(size: int) -> Emit:
    """reciprocal of [128, size] fp32."""

    def emit(stream: Stream) -> None:
        data = stream.sbuf((128, size), "float32")
        stream.reciprocal(dst=stream.sbuf((128, size), "float32"), data=data)

    return emit


def exponential(memory: str, size: int, dtype: str = "float32", bias: bool = True) -> Emit:
    """activation exp of [128, size], with a bias per partition."""

    def emit(stream: Stream) -> None:
        data = stream.tensor(memory, (128, size), dtype)
        offset = stream.sbuf((128, 1), "float32") if bias else None
        stream.activation(dst=stream.sbuf((128, size), dtype), op="exp", data=data, bias=offset)

    return emit


def product(dtype: str, moving: int, stationary: int = 128) -> Emit:
    """nc_matmul of [128, stationary] and [128, moving]."""

    def emit(stream: Stream) -> None:
        tiles = stream.sbuf((128, stationary), dtype), stream.sbuf((128, moving), dtype)
        stream.nc_matmul(stream.psum((stationary, moving)), *tiles, accumulate=False)

    return emit


def turned(dtype: str) -> Emit:
    """nc_transpose of [128, 128] on the tensor engine."""

    def emit(stream: Stream) -> None:
        stream.nc_transpose(dst=stream.psum((128, 128), dtype), data=stream.sbuf((128, 128), dtype))

    return emit


def warm(target: str, emit: Emit) -> Callable[[], float]:
    """ns between the starts of two matmuls once the clock is at its full rate."""

    def simulated() -> float:
        timeline = _repeated(target, emit, 400)
        return float(timeline.start[-1] - timeline.start[-2])

    return simulated


def warm_latency(target: str, emit: Emit) -> Callable[[], float]:
    """ns from start to visible result of a matmul once the clock is at its full rate."""

    def simulated() -> float:
        timeline = _repeated(target, emit, 400)
        return float(timeline.end[-1] - timeline.start[-1])

    return simulated


def moved(shape: tuple[int, int], dtype: str, store: bool = False, by: str = "unknown") -> Emit:
    """A DMA between HBM and SBUF, its descriptors made `by` the hardware (``"hwdge"``) or software."""

    def emit(stream: Stream) -> None:
        outer, tile = stream.input(shape, dtype), stream.sbuf(shape, dtype)
        engine = Engine.sync if by == "hwdge" else Engine.unknown
        if store:
            stream.dma_copy(dst=stream.output(shape, dtype), src=tile, engine=engine, dge_mode=dge_mode[by])
        else:
            stream.dma_copy(dst=tile, src=outer, engine=engine, dge_mode=dge_mode[by])

    return emit


def scattered(rows: int, elements: int, dtype: str = "bfloat16", wide: bool = False) -> Emit:
    """A store, by software DGE, of `rows` rows of each partition that are not next to each other in HBM."""

    def emit(stream: Stream) -> None:
        tile = stream.sbuf((128, rows, elements), "float32" if wide else dtype)
        outer = stream.output((rows, 128, elements), dtype)
        stream.dma_copy(dst=outer.permute((1, 0, 2)), src=tile)

    return emit


_CORES = 2  # that a profile of the fusion study counts; one of them does nothing but start and end


def _dma_active(profile: Profile) -> float:
    return (profile.dma.active + _CORES * profile.target.program_fetch) / 1e3


def _active(engine: str) -> Metric:
    def active(profile: Profile) -> float:
        return (profile.engines[engine].active + _CORES * profile.target.program_active) / 1e3

    return active


def _tensor_time(profile: Profile) -> float:
    return profile.engines["tensor"].instruction_time / 1e6


@functools.lru_cache(maxsize=2)
def _attention_profile(size: int, dtype: str, kind: str, order: str) -> Profile:
    return Profile.of(run(attention(size, dtype, kind == "fused")))


def _attention(size: int, dtype: str, kind: str, metric: Metric) -> Callable[[], float]:
    return lambda: metric(_attention_profile(size, dtype, kind, _order))


@functools.lru_cache(maxsize=2)  # rows of one version follow each other
def _profile(target: str, dtype: str, version: str, order: str) -> Profile:
    return Profile.of(run(matmul(target, dtype, version)))


def _matmul(target: str, dtype: str, version: str) -> Callable[[], float]:
    return lambda: _profile(target, dtype, version, _order).total / 1e6


def _metric(target: str, dtype: str, version: str, metric: Metric) -> Callable[[], float]:
    return lambda: metric(_profile(target, dtype, version, _order))


def _matmul_of(version: str, metric: Metric) -> Callable[[], float]:
    return _metric("trn2", "float32", version, metric)


# --- rows

_MATMULS = (  # matrix multiplication tutorial, [4096, 8192] x [8192, 8192], ms
    ("trn1", "bfloat16", "tiled", "fit", 51.80),
    ("trn1", "bfloat16", "hoisted", "fit", 42.96),
    ("trn1", "bfloat16", "blocked free", "fit", 22.07),
    ("trn1", "bfloat16", "blocked", "check", 6.97),
    ("trn2", "float32", "tiled", "fit", 39.89),
    ("trn2", "float32", "hoisted", "check", 28.20),
    ("trn2", "float32", "blocked free", "check", 28.41),
    ("trn2", "float32", "blocked", "check", 28.30),
)

_SINGLES = (  # ns; trn2 rows from traces and the DMA overview, trn1 rows from the performance guide
    ("vector copy PSUM fp32 512", "trn2", "fit", 690, latency, copy("psum", 512)),
    ("vector copy PSUM fp32 512 interval", "trn2", "fit", 602, interval, copy("psum", 512)),
    ("vector copy SBUF fp32 512", "trn2", "fit", 419, latency, copy("sbuf", 512)),
    ("scalar copy PSUM fp32 512", "trn2", "fit", 586, latency, copy("psum", 512, engine="scalar")),
    ("vector reduce fp32 512", "trn2", "fit", 685, latency, reduce("sbuf", 512)),
    ("vector scale PSUM fp32 128", "trn2", "fit", 350, latency, scaled("psum", 128)),
    ("vector scale SBUF fp32 512", "trn2", "fit", 481, latency, scaled("sbuf", 512)),
    ("scalar exp PSUM 512", "trn2", "fit", 686, latency, exponential("psum", 512)),
    ("scalar exp SBUF 512", "trn2", "fit", 707, latency, exponential("sbuf", 512)),
    ("scalar exp SBUF 512 interval", "trn2", "fit", 612, interval, exponential("sbuf", 512)),
    ("vector copy PSUM fp32 128", "trn2", "fit", 291, latency, copy("psum", 128)),
    ("vector reduce fp32 512 interval", "trn2", "fit", 602, interval, reduce("sbuf", 512)),
    ("vector reduce PSUM fp32 512", "trn2", "fit", 679, latency, reduce("psum", 512)),
    ("vector reduce fp32 4", "trn2", "fit", 157, latency, reduce("sbuf", 4)),
    ("vector scale PSUM fp32 128 interval", "trn2", "fit", 268, interval, scaled("psum", 128)),
    ("vector scale SBUF fp32 512 interval", "trn2", "fit", 395.5, interval, scaled("sbuf", 512)),
    ("scalar copy PSUM fp32 512 interval", "trn2", "fit", 474, interval, copy("psum", 512, engine="scalar")),
    ("scalar copy PSUM fp32 128", "trn2", "fit", 265, latency, copy("psum", 128, engine="scalar")),
    (
        "scalar copy PSUM fp32 128 interval",
        "trn2",
        "fit",
        156.5,
        interval,
        copy("psum", 128, engine="scalar"),
    ),
    ("scalar exp PSUM 512 interval", "trn2", "fit", 569.5, interval, exponential("psum", 512)),
    ("nc_matmul bf16 512 interval", "trn2", "fit", 216, warm, product("bfloat16", 512)),
    ("nc_matmul bf16 128 interval", "trn2", "fit", 55, warm, product("bfloat16", 128)),
    ("nc_matmul fp32 512 interval", "trn2", "fit", 857, warm, product("float32", 512)),
    ("nc_matmul fp32 128 interval", "trn2", "fit", 220, warm, product("float32", 128)),
    ("nc_matmul bf16 512", "trn2", "fit", 379, warm_latency, product("bfloat16", 512)),
    ("nc_matmul bf16 128", "trn2", "fit", 219, warm_latency, product("bfloat16", 128)),
    ("nc_matmul bf16 512 throttled", "trn2", "fit", 630, latency, product("bfloat16", 512)),
    ("nc_matmul bf16 128 throttled", "trn2", "fit", 310, latency, product("bfloat16", 128)),
    ("nc_matmul bf16 512 throttled interval", "trn2", "check", 427, interval, product("bfloat16", 512)),
    ("nc_matmul fp32 512", "trn2", "check", 1020, warm_latency, product("float32", 512)),
    (
        "nc_matmul fp32 512 throttled",
        "trn2",
        "check",
        1913,
        functools.partial(latency, count=1),
        product("float32", 512),
    ),
    (
        "nc_matmul fp32 512 throttled interval",
        "trn2",
        "check",
        1706,
        functools.partial(interval, count=2),
        product("float32", 512),
    ),
    ("nc_matmul fp32 128", "trn2", "check", 387, warm_latency, product("float32", 128)),
    ("nc_matmul fp32 128 throttled", "trn2", "check", 633, latency, product("float32", 128)),
    ("nc_transpose fp32 128", "trn2", "check", 272, warm_latency, turned("float32")),
    ("nc_transpose fp32 128 interval", "trn2", "check", 109, warm, turned("float32")),
    ("nc_transpose fp32 128 throttled", "trn2", "check", 420, latency, turned("float32")),
    ("nc_transpose fp32 128 throttled interval", "trn2", "check", 213, interval, turned("float32")),
    ("nc_transpose bf16 128 interval", "trn2", "check", 56, warm, turned("bfloat16")),
    ("nc_transpose bf16 128 throttled", "trn2", "check", 314, latency, turned("bfloat16")),
    ("nc_transpose bf16 128 throttled interval", "trn2", "check", 107, interval, turned("bfloat16")),
    (
        "scalar cast PSUM bf16 128",
        "trn2",
        "check",
        264.5,
        latency,
        copy("psum", 128, "bfloat16", "scalar", "float32"),
    ),
    (
        "scalar cast PSUM bf16 128 interval",
        "trn2",
        "check",
        157,
        interval,
        copy("psum", 128, "bfloat16", "scalar", "float32"),
    ),
    (
        "scalar cast PSUM bf16 512",
        "trn2",
        "check",
        585,
        latency,
        copy("psum", 512, "bfloat16", "scalar", "float32"),
    ),
    (
        "scalar cast PSUM fp32 128 to bf16",
        "trn2",
        "check",
        265,
        latency,
        copy("psum", 128, engine="scalar", to="bfloat16"),
    ),
    ("vector cast PSUM fp32 128 to bf16", "trn2", "check", 291, latency, copy("psum", 128, to="bfloat16")),
    ("vector reduce fp32 [4, 2]", "trn2", "check", 161, latency, folded(4, 2)),
    ("vector reduce fp32 [8, 2]", "trn2", "check", 169, latency, folded(8, 2)),
    ("dma row 256 B load", "trn2", "fit", 14, row_time, moved((128, 64), "float32", by="hwdge")),
    ("dma row 512 B load", "trn2", "fit", 23.5, row_time, moved((128, 128), "float32", by="hwdge")),
    ("dma row 2 KiB load", "trn2", "fit", 80, row_time, moved((128, 512), "float32", by="hwdge")),
    ("dma row 4 KiB load", "trn2", "fit", 155.3, row_time, moved((128, 1024), "float32", by="hwdge")),
    ("dma row 1 KiB load, joined", "trn2", "fit", 38.8, row_time, moved((128, 256), "float32")),
    ("dma row 2 KiB load, joined", "trn2", "fit", 77.6, row_time, moved((128, 512), "float32")),
    ("dma row 256 B store, apart", "trn2", "fit", 16.8, row_time, scattered(4, 128)),
    ("dma row 512 B store, apart", "trn2", "fit", 28.2, row_time, scattered(4, 128, "float32")),
    ("dma row 512 B store, apart, 8", "trn2", "fit", 19.4, row_time, scattered(8, 128, "float32")),
    ("dma row 512 B to 256 B store, converted", "trn2", "fit", 22, row_time, scattered(8, 128, wide=True)),
    (
        "dma load, hardware DGE to first byte",
        "trn2",
        "fit",
        1330,
        first_byte,
        moved((128, 1024), "float32", by="hwdge"),
    ),
    (
        "dma store, hardware DGE to first byte",
        "trn2",
        "fit",
        1213,
        first_byte,
        moved((128, 1024), "float32", True, "hwdge"),
    ),
    (
        "dma load, software DGE to first byte",
        "trn2",
        "fit",
        2037,
        first_byte,
        moved((128, 1024), "float32", by="swdge"),
    ),
    (
        "dma store, software DGE to first byte",
        "trn2",
        "fit",
        1911,
        first_byte,
        moved((128, 1024), "float32", True, "swdge"),
    ),
    ("dma, hardware DGE interval", "trn2", "fit", 570, interval, moved((128, 1024), "float32", by="hwdge")),
    ("dma, software DGE interval", "trn2", "fit", 579, interval, moved((128, 1024), "float32", by="swdge")),
    ("dma store 128 x 4 KiB", "trn2", "fit", 1286, data_time, moved((128, 1024), "float32", store=True)),
    ("vector add fp32 8192", "trn1", "check", 14987, latency, added(8192)),
    ("vector add fp32 8192, 64 partitions", "trn1", "check", 14968, latency, added(8192, 64)),
    ("vector add fp32 2000", "trn2", "fit", 2250, latency, added(2000)),
    ("scalar copy 1", "trn1", "fit", 159, latency, copy("sbuf", 1, engine="scalar")),
    ("scalar copy 8192", "trn1", "check", 6000, latency, copy("sbuf", 8192, engine="scalar")),
    ("nc_matmul bf16 128 x 96", "trn1", "fit", 219, latency, product("bfloat16", 128, 96)),
    ("nc_matmul bf16 128 x 1", "trn1", "fit", 188, latency, product("bfloat16", 128, 1)),
    ("nc_transpose bf16 128 x 128", "trn1", "fit", 195, latency, product("bfloat16", 128)),
    ("vector reciprocal fp32 4", "trn2", "fit", 178, latency, inverse(4)),
    ("vector reciprocal fp32 8", "trn2", "fit", 202, latency, inverse(8)),
    ("dma store 4 MiB", "trn1", "check", 16955, data_time, moved((128, 8192), "float32", store=True)),
    ("scalar exp bf16 4096", "trn2", "check", 3710, latency, exponential("sbuf", 4096, "bfloat16", False)),
    ("scalar exp bf16 128", "trn2", "check", 400, latency, exponential("sbuf", 128, "bfloat16", False)),
    (
        "dma store [4, 4096] bf16, one engine",
        "trn2",
        "check",
        1225,
        data_time,
        moved((4, 4096), "bfloat16", True),
    ),
    (
        "dma store [128, 128] bf16, per engine",
        "trn2",
        "check",
        83,
        data_time,
        moved((128, 128), "bfloat16", True),
    ),
    ("dma load 128 x 4 KiB, per engine", "trn1", "check", 1893, data_time, moved((128, 1024), "float32")),
    (
        "dma store 128 x 4 KiB, per engine",
        "trn1",
        "check",
        1810,
        data_time,
        moved((128, 1024), "float32", store=True),
    ),
    ("dma row 4 B load", "trn1", "fit", 7, row_time, moved((128, 1), "float32")),
    ("scalar copy 1, of its result", "trn1", "fit", 189, interval, chained(1)),
    ("dma load [4, 4096] bf16, one engine", "trn2", "check", 1416, data_time, moved((4, 4096), "bfloat16")),
    ("dma load [128, 128] bf16, per engine", "trn2", "check", 97, data_time, moved((128, 128), "bfloat16")),
)

_METRICS: tuple[tuple[str, str, str, str, float, str, Metric], ...] = (  # of other pictures of the same runs
    ("HFU", "trn1", "bfloat16", "tiled", 10.98, "%", lambda p: p.hfu),
    ("HFU", "trn1", "bfloat16", "hoisted", 13.24, "%", lambda p: p.hfu),
    ("HFU", "trn1", "bfloat16", "blocked free", 26.51, "%", lambda p: p.hfu),
    ("HFU", "trn1", "bfloat16", "blocked", 85.24, "%", lambda p: p.hfu),
    ("HBM read", "trn1", "bfloat16", "blocked", 640, "MiB", lambda p: p.hbm_read_bytes / 2**20),
    ("HBM written", "trn1", "bfloat16", "blocked", 64, "MiB", lambda p: p.hbm_write_bytes / 2**20),
    ("mean transfer", "trn1", "bfloat16", "blocked", 402.286, "KiB", lambda p: p.dma.mean_bytes / 2**10),
    ("transfers", "trn1", "bfloat16", "blocked", 1792, "", lambda p: p.dma.transfers),
    ("DMA engine time", "trn1", "bfloat16", "blocked", 50.07, "ms", lambda p: p.dma.engine_time / 1e6),
    ("DMA active", "trn1", "bfloat16", "blocked", 3.82, "ms", lambda p: p.dma.active / 1e6),
    ("MBU", "trn1", "bfloat16", "blocked", 25.61, "%", lambda p: p.mbu),
    ("vector active", "trn2", "float32", "blocked", 2.99, "ms", lambda p: p.engines["vector"].active / 1e6),
)

_PROFILED: tuple[tuple[str, str, Metric], ...] = (  # of each of the four versions of the guide, trn2
    ("DMA active", "%", lambda p: p.dma.active_percent),
    ("DMA engine time", "ms", lambda p: p.dma.engine_time / 1e6),
    ("MBU", "%", lambda p: p.mbu),
    ("tensor active", "%", lambda p: p.engines["tensor"].active_percent),
    ("tensor instructions", "ms", _tensor_time),
    ("MFU", "%", lambda p: p.mfu),
    ("achievable MFU", "%", lambda p: p.achievable_mfu),
)
_PROFILES: dict[str, tuple[float | None, ...]] = {  # kernel optimization guide, pictures v2 to v5
    "tiled": (99.93, 519.58, 38.06, 87.28, 53.42, 17.52, 46.04),
    "hoisted": (99.73, 402.07, 43.87, 99.85, 51.15, 24.79, 56.50),
    "blocked free": (95.70, 390.69, 42.55, 99.52, 51.20, 24.60, 57.82),
    "blocked": (21.54, 81.73, 8.96, 99.50, 51.17, 24.70, None),
}
_SHOWN: tuple[tuple[str, str, Metric], ...] = (  # of each profile of the fusion study
    ("total", "us", lambda p: p.total / 1e3),
    ("tensor active", "us", _active("tensor")),
    ("vector active", "us", _active("vector")),
    ("scalar active", "us", _active("scalar")),
    ("DMA active", "us", _dma_active),
    ("HBM read", "MB", lambda p: p.hbm_read_bytes / 1e6),
    ("HBM written", "MB", lambda p: p.hbm_write_bytes / 1e6),
)

_ATTENTION: dict[tuple[int, str, str], tuple[float, ...]] = {  # as _SHOWN
    (512, "float32", "fused"): (38.09, 17.37, 11.98, 9.11, 11.71, 0.85, 0.26),
    (1024, "float32", "fused"): (73.29, 46.37, 33.25, 22.76, 14.99, 1.64, 0.52),
    (512, "bfloat16", "fused"): (36.35, 15.15, 11.37, 9.43, 11.05, 0.49, 0.13),
    (1024, "bfloat16", "fused"): (66.21, 35.93, 33.36, 22.83, 12.04, 0.88, 0.26),
    (512, "float32", "baseline"): (58.71, 19.04, 13.12, 13.88, 25.35, 2.95, 2.36),
    (1024, "float32", "baseline"): (116.92, 47.58, 38.16, 38.03, 65.90, 10.03, 8.91),
    (512, "bfloat16", "baseline"): (54.28, 14.19, 13.09, 14.02, 24.23, 2.59, 2.23),
    (1024, "bfloat16", "baseline"): (102.67, 36.26, 37.94, 38.12, 62.51, 9.27, 8.65),
}

ROWS = (
    *(
        Row(f"matmul {dtype} {version}", target, use, measured, "ms", _matmul(target, dtype, version))
        for target, dtype, version, use, measured in _MATMULS
    ),
    *(
        Row(f"{name} {dtype} {version}", target, "check", value, unit, _metric(target, dtype, version, of))
        for name, target, dtype, version, value, unit, of in _METRICS
    ),
    *(
        Row(f"{name} float32 {version}", "trn2", "check", value, unit, _matmul_of(version, metric))
        for version, values in _PROFILES.items()
        for (name, unit, metric), value in zip(_PROFILED, values, strict=True)
        if value is not None
    ),
    *(Row(name, target, use, ns, "ns", how(target, emit)) for name, target, use, ns, how, emit in _SINGLES),
    *(
        Row(
            f"{kind} attention {dtype} {size}{'' if name == 'total' else ', ' + name}",
            "trn2",
            "check",
            value,
            unit,
            _attention(size, dtype, kind, metric),
        )
        for (size, dtype, kind), values in _ATTENTION.items()
        for (name, unit, metric), value in zip(_SHOWN, values, strict=True)
    ),
)


def group_of(row: Row) -> str:
    """The group of a row in docs/fidelity.md."""
    if row.unit == "ns":
        return "single instructions"
    if "attention" in row.name:
        return "fusion study: attention" if "," not in row.name else "other figures of the profiles"
    is_time = row.name.startswith("matmul ")
    return f"matmul tutorial, {row.target}" if is_time else "other figures of the profiles"


def main(wanted: str = "") -> None:
    """Print every row whose name contains `wanted`."""
    print(f"{'row':40} {'gen':5} {'use':5} {'measured':>10} {'simulated':>10}  ratio")
    for row in ROWS:
        if wanted in row.name:
            began = time.perf_counter()
            simulated = row.simulated()
            spent = time.perf_counter() - began
            print(
                f"{row.name:40} {row.target:5} {row.use:5} {row.measured:10.2f} {simulated:10.2f} {row.unit}"
                f" {simulated / row.measured:6.3f}   ({spent:.1f} s)"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
