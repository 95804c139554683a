"""Simulated times beside public measurements on hardware.

Rows marked ``fit`` set the figures of :mod:`nki_isa.machine.targets`; rows marked ``check``
did not. Run it as ``python benchmarks/timing_accuracy.py [part of a name]``.

Sources: the SDK's matrix multiplication tutorial (v2.20 to v2.26, trn1) and kernel
optimization guide (trn2), its performance guide and DMA overview, and the public
trn2 profiles of allenkchau/trainium-kernel-fusion.
"""

from __future__ import annotations

import contextlib
import functools
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from streams import Stream
from timing_kernels import attention, matmul, scheduled_attention

from nki.compiler import specialize
from nki_isa.diagnostics import NkiMemoryError
from nki_isa.ir.program import Program
from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.targets import as_target
from nki_sim.cores.core_times import simulate
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


@contextlib.contextmanager
def in_order(order: str) -> Iterator[None]:
    """Time kernels in the order the kernel states or, for ``"compiler"``, in that of the scheduler."""
    global _order
    before, _order = _order, order
    _profile.cache_clear()
    try:
        yield
    finally:
        _order = before
        _profile.cache_clear()


def run(program: Program) -> Timeline:
    """Placed and timed; without a placement where the vendor's compiler would have to spill."""
    try:
        placement = place(program, as_target(program.target))
    except NkiMemoryError:
        placement = None
    if _order == "compiler":
        program = scheduled(program, as_target(program.target), placement)
    return simulate(program, placement)


# --- one instruction


def _repeated(target: str, emit: Emit, count: int = 6) -> Timeline:
    stream = Stream("single", target)
    for _ in range(count):
        emit(stream)
    return simulate(stream.program)


def latency(target: str, emit: Emit) -> Callable[[], float]:
    """ns from start to visible result of the last of a few independent instructions."""

    def simulated() -> float:
        timeline = _repeated(target, emit)
        return float(timeline.end[-1] - timeline.start[-1])

    return simulated


def interval(target: str, emit: Emit) -> Callable[[], float]:
    """ns between the starts of two independent instructions, back to back."""

    def simulated() -> float:
        timeline = _repeated(target, emit)
        return float(timeline.start[-1] - timeline.start[-2])

    return simulated


def data_time(target: str, emit: Emit) -> Callable[[], float]:
    """ns from the first to the last byte of a DMA, on the busiest DMA engine."""

    def simulated() -> float:
        timeline = _repeated(target, emit, 1)
        return float(timeline.busy[0] - timeline.begin[0])

    return simulated


def copy(memory: str, size: int, dtype: str = "float32", engine: str = "vector") -> Emit:
    """tensor_copy of [128, size] into SBUF."""

    def emit(stream: Stream) -> None:
        source = stream.tensor(memory, (128, size), dtype)
        stream.copy_on(engine, stream.sbuf((128, size), dtype), source)

    return emit


def reduce(memory: str, size: int) -> Emit:
    """tensor_reduce by add of [128, size] fp32 to one column."""

    def emit(stream: Stream) -> None:
        data = stream.tensor(memory, (128, size), "float32")
        stream.tensor_reduce(dst=stream.sbuf((128, 1), "float32"), op="add", data=data, axis=1)

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


def warm(dtype: str, moving: int) -> Callable[[], float]:
    """Matmul interval once the clock is at its full rate."""

    def simulated() -> float:
        timeline = _repeated("trn2", product(dtype, moving), 400)
        return float(timeline.start[-1] - timeline.start[-2])

    return simulated


def moved(shape: tuple[int, int], dtype: str, store: bool = False) -> Emit:
    """A DMA between HBM and SBUF."""

    def emit(stream: Stream) -> None:
        outer, tile = stream.input(shape, dtype), stream.sbuf(shape, dtype)
        if store:
            stream.dma_copy(dst=stream.output(shape, dtype), src=tile)
        else:
            stream.dma_copy(dst=tile, src=outer)

    return emit


def total(build: Callable[[], Program], unit: float) -> Callable[[], float]:
    """Profiler total of a kernel, in units of `unit` ns."""
    return lambda: Profile.of(run(build())).total / unit


def compiled(kernel: str, target: str, dtype: str) -> Program:
    """A kernel of examples/matmul.py, from its source text, in the shapes of the tutorial."""
    source = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "matmul.py"))
    operands = (np.empty(shape, as_dtype(dtype).numpy) for shape in ((8192, 4096), (8192, 8192)))
    return specialize(source[kernel], *operands, target=target)


def _tensor_time(profile: Profile) -> float:
    return profile.engines["tensor"].instruction_time / 1e6


def _compiled(kernel: str, target: str, dtype: str) -> Callable[[], float]:
    return total(lambda: compiled(kernel, target, dtype), 1e6)


def _attention(size: int, dtype: str, kind: str) -> Callable[[], float]:
    return total(lambda: attention(size, dtype, kind == "fused"), 1e3)


@functools.cache
def _profile(target: str, dtype: str, version: str) -> Profile:
    return Profile.of(run(matmul(target, dtype, version)))


def _matmul(target: str, dtype: str, version: str) -> Callable[[], float]:
    return lambda: _profile(target, dtype, version).total / 1e6


def _metric(target: str, dtype: str, version: str, metric: Metric) -> Callable[[], float]:
    return lambda: metric(_profile(target, dtype, version))


# --- rows

_MATMULS = (  # matrix multiplication tutorial, [4096, 8192] x [8192, 8192], ms
    ("trn1", "bfloat16", "tiled", 51.80),
    ("trn1", "bfloat16", "hoisted", 42.96),
    ("trn1", "bfloat16", "blocked free", 22.07),
    ("trn1", "bfloat16", "blocked", 6.97),
    ("trn2", "float32", "tiled", 39.89),
    ("trn2", "float32", "hoisted", 28.20),
    ("trn2", "float32", "blocked free", 28.41),
    ("trn2", "float32", "blocked", 28.30),
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
    ("dma store 128 x 4 KiB", "trn2", "fit", 1286, data_time, moved((128, 1024), "float32", store=True)),
    ("vector add fp32 8192", "trn1", "check", 14987, latency, added(8192)),
    ("vector add fp32 8192, 64 partitions", "trn1", "check", 14968, latency, added(8192, 64)),
    ("vector add fp32 2000", "trn2", "check", 2250, latency, added(2000)),
    ("scalar copy 1", "trn1", "check", 159, latency, copy("sbuf", 1, engine="scalar")),
    ("scalar copy 8192", "trn1", "check", 6000, latency, copy("sbuf", 8192, engine="scalar")),
    ("nc_matmul bf16 128 x 96", "trn1", "check", 219, latency, product("bfloat16", 128, 96)),
    ("nc_matmul bf16 128 x 1", "trn1", "check", 188, latency, product("bfloat16", 128, 1)),
    ("dma store 4 MiB", "trn1", "fit", 16955, data_time, moved((128, 8192), "float32", store=True)),
    ("scalar exp bf16 4096", "trn2", "check", 3710, latency, exponential("sbuf", 4096, "bfloat16", False)),
    ("scalar exp bf16 128", "trn2", "check", 400, latency, exponential("sbuf", 128, "bfloat16", False)),
    ("dma load [4, 4096] bf16, one engine", "trn2", "check", 1416, data_time, moved((4, 4096), "bfloat16")),
    ("dma load [128, 128] bf16, per engine", "trn2", "check", 97, data_time, moved((128, 128), "bfloat16")),
)

_METRICS: tuple[tuple[str, str, str, str, float, str, Metric], ...] = (  # of the profiles of the same runs
    ("tensor active", "trn2", "float32", "tiled", 87.28, "%", lambda p: p.engines["tensor"].active_percent),
    ("tensor instructions", "trn2", "float32", "tiled", 53.42, "ms", _tensor_time),
    ("DMA active", "trn2", "float32", "tiled", 99.93, "%", lambda p: p.dma.active_percent),
    ("DMA engine time", "trn2", "float32", "tiled", 519.58, "ms", lambda p: p.dma.engine_time / 1e6),
    ("MFU", "trn2", "float32", "tiled", 17.52, "%", lambda p: p.mfu),
    ("MBU", "trn2", "float32", "tiled", 38.06, "%", lambda p: p.mbu),
    ("achievable MFU", "trn2", "float32", "tiled", 46.04, "%", lambda p: p.achievable_mfu),
    ("achievable MFU", "trn2", "float32", "hoisted", 56.50, "%", lambda p: p.achievable_mfu),
    ("tensor active", "trn2", "float32", "blocked", 99.50, "%", lambda p: p.engines["tensor"].active_percent),
    ("tensor instructions", "trn2", "float32", "blocked", 51.17, "ms", _tensor_time),
    ("vector active", "trn2", "float32", "blocked", 2.99, "ms", lambda p: p.engines["vector"].active / 1e6),
    ("MFU", "trn2", "float32", "blocked", 24.70, "%", lambda p: p.mfu),
    ("HBM read", "trn1", "bfloat16", "blocked", 640, "MiB", lambda p: p.hbm_read_bytes / 2**20),
    ("HBM written", "trn1", "bfloat16", "blocked", 64, "MiB", lambda p: p.hbm_write_bytes / 2**20),
    ("mean transfer", "trn1", "bfloat16", "blocked", 402.286, "KiB", lambda p: p.dma.mean_bytes / 2**10),
    ("DMA engine time", "trn1", "bfloat16", "blocked", 50.07, "ms", lambda p: p.dma.engine_time / 1e6),
    ("DMA active", "trn1", "bfloat16", "blocked", 3.82, "ms", lambda p: p.dma.active / 1e6),
)

_COMPILED = (  # from source text: kernels of examples/matmul.py that move the same tiles; ms
    ("trn1", "bfloat16", "matmul_tiled", 51.80),
    ("trn1", "bfloat16", "matmul_hoisted", 42.96),
    ("trn2", "float32", "matmul_tiled", 39.89),
    ("trn2", "float32", "matmul_hoisted", 28.20),
)

_ATTENTION = (  # us, profiler total; the compiler overlaps query tiles that the source runs one by one
    (512, "float32", "fused", 38.09),
    (1024, "float32", "fused", 73.29),
    (512, "bfloat16", "fused", 36.35),
    (1024, "bfloat16", "fused", 66.21),
    (512, "float32", "baseline", 58.71),
    (1024, "float32", "baseline", 116.92),
    (512, "bfloat16", "baseline", 54.28),
    (1024, "bfloat16", "baseline", 102.67),
)

ROWS = (
    *(
        Row(f"matmul {dtype} {version}", target, "fit", measured, "ms", _matmul(target, dtype, version))
        for target, dtype, version, measured in _MATMULS
    ),
    *(
        Row(f"{name} {dtype} {version}", target, "check", value, unit, _metric(target, dtype, version, of))
        for name, target, dtype, version, value, unit, of in _METRICS
    ),
    *(
        Row(f"compiled {kernel} {dtype}", target, "check", measured, "ms", _compiled(kernel, target, dtype))
        for target, dtype, kernel, measured in _COMPILED
    ),
    Row("nc_matmul bf16 512 interval", "trn2", "fit", 216, "ns", warm("bfloat16", 512)),
    Row("nc_matmul bf16 128 interval", "trn2", "fit", 55, "ns", warm("bfloat16", 128)),
    Row("nc_matmul fp32 512 interval", "trn2", "fit", 857, "ns", warm("float32", 512)),
    Row("nc_matmul fp32 128 interval", "trn2", "fit", 220, "ns", warm("float32", 128)),
    *(Row(name, target, use, ns, "ns", how(target, emit)) for name, target, use, ns, how, emit in _SINGLES),
    Row("scheduled attention float32 512", "trn2", "check", 38.09, "us", total(scheduled_attention, 1e3)),
    *(
        Row(f"{kind} attention {dtype} {size}", "trn2", "check", us, "us", _attention(size, dtype, kind))
        for size, dtype, kind, us in _ATTENTION
    ),
)


def group_of(row: Row) -> str:
    """The group of a row in docs/fidelity.md."""
    if row.unit == "ns":
        return "single instructions"
    if "attention" in row.name:
        return "fusion study: attention"
    return f"matmul tutorial, {row.target}" if row.unit == "ms" else "other figures of the profiles"


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
