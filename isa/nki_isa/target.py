"""The generations of NeuronCore: one frozen :class:`Target` each, every figure with its source.

The table below has one row per figure and one column per generation. Each
value says whether it was published, measured (on public profiles) or assumed;
:meth:`Target.source` answers that question for any field.

Units: GHz, nanoseconds, bytes, bytes per nanosecond (= GB/s), cycles of the
engine named, TFLOPS.
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from typing import Any

from nki_isa.diagnostics import error


class Evidence(enum.Enum):
    """How a figure is known."""

    published = "published"  # the vendor printed it
    measured = "measured"  # read off a public hardware profile, or derived from one
    assumed = "assumed"  # nobody published or measured it; the source says why this value


@dataclass(frozen=True, slots=True)
class Source:
    """Where a figure comes from."""

    evidence: Evidence
    reference: str


@dataclass(frozen=True, eq=False)
class Target:
    """One generation of NeuronCore, one physical core of it; compared by identity.

    Attributes:
        name: ``"trn1"``, ``"trn2"`` or ``"trn3"``.
        nc_version: 2, 3 or 4, the number of ``nki.isa.nc_version``.
        default_dge: how DMA descriptors are made when the kernel does not say and one
            side is a kernel argument or shared HBM: ``"static"``, ``"hwdge"`` or ``"swdge"``.
        internal_dge: the same for DMA between private HBM, SBUF and PSUM. (Public trn2
            traces: arguments and results move by software DGE, intermediates by hardware.)
        throttled: True if the tensor engine's clock follows its utilisation.

    The other fields are the rows of ``_FIGURES``, described there.
    """

    name: str
    nc_version: int
    default_dge: str
    internal_dge: str
    throttled: bool

    partitions: int
    sbuf_partition_bytes: int
    sbuf_usable_bytes: int
    psum_partition_bytes: int
    psum_banks: int
    psum_bank_bytes: int
    hbm_bytes: int
    logical_cores: int

    tensor_ghz: float
    vector_ghz: float
    scalar_ghz: float
    gpsimd_ghz: float
    sync_ghz: float

    stationary_max: int
    moving_max: int
    moving_min: int
    tensor_rate: float
    fp32_passes: int
    double_row_factor: float
    mx_factor: float
    fast_weight_factor: float
    tensor_interval: float
    tensor_latency: float
    tensor_latency_throttled: float
    weight_latency: float
    weight_latency_throttled: float
    throttle_window: float
    throttle_threshold: float
    throttle_rate: float

    vector_interval: float
    vector_latency: float
    vector_pointer_interval: float
    vector_pointer_latency: float
    vector_rate: float
    vector_fast_rate: float
    vector_half_fast_rate: float
    vector_fp32_rate: float
    vector_two_input_rate: float
    vector_fp32_two_input_rate: float
    vector_narrow_rate: float
    vector_scan_rate: float
    vector_reciprocal_rate: float
    vector_statistics_rate: float
    vector_exponential_rate: float
    vector_quantize_rate: float
    vector_random_rate: float
    vector_accumulate_cycles: float

    scalar_interval: float
    scalar_latency: float
    scalar_rate: float
    scalar_fast_rate: float
    scalar_bias_interval_psum: float
    scalar_bias_interval_sbuf: float
    scalar_bias_latency_psum: float
    scalar_bias_latency_sbuf: float
    scalar_accumulate_cycles: float
    scalar_table_load: float

    gpsimd_rate: float
    gpsimd_start_cycles: float
    gpsimd_topk_cycles: float
    minimum_interval_cycles: float

    register_ns: float
    register_memory_ns: float

    semaphore_ns: float
    semaphore_tensor_ns: float
    same_engine_ns: float

    dma_engines: int
    dma_queues: int
    dma_partitions_per_engine: int
    dma_row_ns: float
    dma_row_floor_ns: float
    dma_bytes_per_ns: float
    dma_small_row_bytes: int
    dma_small_row_bytes_per_ns: float
    dma_small_write_bytes: int
    dma_small_write_factor: float
    dma_row_limit_bytes: int
    dma_transpose_load: float
    dma_transpose_local: float
    dma_static_start: float
    dma_static_interval: float
    dma_hwdge_issue: float
    dma_hwdge_start_load: float
    dma_hwdge_start_store: float
    dma_swdge_build: float
    dma_swdge_interval: float
    dma_swdge_start_load: float
    dma_swdge_start_store: float
    dma_swdge_rows: int
    dma_stagger_load: float
    dma_stagger_store: float
    dma_swdge_stagger_load: float
    dma_completion: float
    dma_to_sync: float
    dma_to_compute: float
    dma_to_tensor: float

    program_start: float
    program_end: float
    barrier_ns: float

    peak_tflops_bf16: float
    peak_tflops_fp8: float
    peak_tflops_fp32: float
    hbm_bytes_per_ns: float
    hbm_cores: int
    dma_roof_bytes_per_ns: float

    def source(self, field: str) -> Source:
        """Where the value of `field` on this generation comes from.

        Raises:
            KeyError: `field` is not a figure of the table.
        """
        return SOURCES[field][self.nc_version - 2]

    def ghz(self, engine: str) -> float:
        """Clock of an engine, by the name of ``nki.isa.engine``."""
        return float(getattr(self, f"{engine}_ghz"))


_ARCH = "SDK NKI architecture guides (trainium_inferentia2, trainium2, trainium3)"
_PERF = "SDK NKI performance guide"
_STUBS = "SDK v2.20-v2.26 nki.isa docstrings, 'Estimated instruction cost'"
_DMA = "SDK DMA overview and DMA bandwidth guide"
_TRACE = "public trn2 profiler traces (allenkchau/trainium-kernel-fusion)"
_SHARED = "SDK nki.api.shared, engine selection"
_MIN_II = _SHARED + ": minimum interval of 64 cycles"
_TRN1 = "SDK v2.20-v2.26 matrix multiplication tutorial, measured on trn1"

# Rows: field, trn1, trn2, trn3, how each is known (p published, m measured, a assumed), reference.
_FIGURES: tuple[tuple[str, Any, Any, Any, str, str], ...] = (
    # --- memories: sizes per partition in bytes
    ("partitions", 128, 128, 128, "ppp", _ARCH),
    ("sbuf_partition_bytes", 192 << 10, 224 << 10, 256 << 10, "ppp", _ARCH),
    # What a kernel may allocate: the compiler keeps 16 KiB for itself on trn1 and trn2.
    (
        "sbuf_usable_bytes",
        176 << 10,
        208 << 10,
        240 << 10,
        "mma",
        "third-party notes (ucb-bar/autocomp, Jerry2423/kda-for-trainium), and for trn2 the budget of the "
        "vendor's kernels (nki-library mlp_cte_constants.py); trn3: 16 KiB kept as before",
    ),
    ("psum_partition_bytes", 16 << 10, 16 << 10, 16 << 10, "ppp", _ARCH),
    ("psum_banks", 8, 8, 8, "ppp", _ARCH),
    ("psum_bank_bytes", 2 << 10, 2 << 10, 2 << 10, "ppp", _ARCH),
    ("hbm_bytes", 32 << 30, 96 << 30, 144 << 30, "ppp", "SDK hardware pages; whole chip"),
    ("logical_cores", 1, 2, 2, "ppp", "nkilib test/utils/common_dataclasses.py; nki/get-started/about/lnc"),
    # --- clocks, GHz
    ("tensor_ghz", 2.8, 2.4, 2.4, "ppp", _ARCH),
    ("vector_ghz", 1.12, 0.96, 1.2, "ppp", _ARCH),
    ("scalar_ghz", 1.4, 1.2, 1.2, "ppp", _ARCH),
    ("gpsimd_ghz", 1.4, 1.2, 1.2, "ppp", _ARCH),
    ("sync_ghz", 1.4, 1.2, 1.2, "ppa", "SDK profile schema reference, base clock; trn3 as trn2"),
    # --- tensor engine
    ("stationary_max", 128, 128, 128, "ppp", _ARCH),
    ("moving_max", 512, 512, 512, "ppp", _ARCH),
    # Fewest cycles between two matmuls, unless the stationary tile is narrower still.
    ("moving_min", 64, 64, 64, "ppa", _STUBS),
    # Columns of the moving tile per cycle, by 16-bit and narrower data; float32 streams them 4 times.
    ("tensor_rate", 1.0, 1.0, 1.0, "ppp", _ARCH + ": data-path width"),
    ("fp32_passes", 4, 4, 4, "ppp", _STUBS),
    # Time of K=256 fp8 double row against K=128 bf16, and of K=512 MX against K=128 bf16.
    ("double_row_factor", 1.0, 1.0, 1.0, "app", _ARCH),
    ("mx_factor", 1.0, 1.0, 1.0, "aap", _ARCH),
    # LoadStationary of 16-bit and narrower data moves this many columns per cycle.
    ("fast_weight_factor", 4.0, 4.0, 4.0, "ppp", _PERF),
    # Beyond streaming, ns: gap between matmuls, result latency at full and at throttled clock.
    ("tensor_interval", 2.1, 2.5, 2.5, "ama", _TRACE + "; trn1 scaled by clock, trn3 as trn2"),
    ("tensor_latency", 170.0, 166.0, 166.0, "mma", _TRACE + "; trn1: performance guide figures 18 to 21"),
    ("tensor_latency_throttled", 170.0, 205.0, 205.0, "ama", _TRACE + "; trn1 has no throttle"),
    ("weight_latency", 66.0, 84.0, 84.0, "mma", _TRACE + "; trn1: performance guide figure 20"),
    ("weight_latency_throttled", 66.0, 120.0, 120.0, "ama", _TRACE + "; trn1 has no throttle"),
    # Clock throttle: window in ns (4096 cycles of 1.2 GHz), utilisation that keeps full rate, slow rate.
    ("throttle_window", 4096 / 1.2, 4096 / 1.2, 4096 / 1.2, "ama", _TRACE),
    ("throttle_threshold", 0.372, 0.372, 0.372, "ama", _TRACE + "; between 0.369 and 0.375"),
    ("throttle_rate", 1.0, 0.5, 0.5, "ama", _TRACE + "; trn1 has no throttle"),
    # --- vector engine: ns beyond streaming, and elements per cycle
    ("vector_interval", 64 / 1.12, 65.0, 65.0 * 0.96 / 1.2, "pma", _TRACE + "; trn1: " + _MIN_II),
    ("vector_latency", 150 / 1.12, 150.0, 150.0 * 0.96 / 1.2, "ama", _TRACE + "; others: trn2 cycles"),
    ("vector_pointer_interval", 64 / 1.12, 65.0, 65.0 * 0.96 / 1.2, "ama", _TRACE),
    ("vector_pointer_latency", 64 / 1.12, 62.0, 62.0 * 0.96 / 1.2, "ama", _TRACE),
    ("vector_rate", 1.0, 1.0, 1.0, "pma", _STUBS + "; trn2: " + _TRACE),
    ("vector_fast_rate", 1.0, 4.0, 4.0, "ppp", _ARCH + ": 16-bit SBUF to SBUF, contiguous"),
    ("vector_half_fast_rate", 1.0, 2.0, 2.0, "ppp", _ARCH + ": 16-bit, not contiguous or one side in PSUM"),
    ("vector_fp32_rate", 1.0, 2.0, 2.0, "pma", _TRACE + ": fp32 SBUF to SBUF with one input"),
    ("vector_two_input_rate", 1.0, 2.0, 2.0, "ppp", _ARCH + ": 16-bit SBUF with two inputs"),
    ("vector_fp32_two_input_rate", 0.5, 1.0, 1.0, "pma", _STUBS + "; trn2: AccelOpt adamw, cs149 traces"),
    ("vector_narrow_rate", 2.0, 2.0, 2.0, "paa", _STUBS + ": 16-bit reduce by add or max, zeroing memset"),
    ("vector_scan_rate", 0.5, 0.5, 0.5, "pma", _STUBS + "; AccelOpt mamba"),
    ("vector_reciprocal_rate", 0.125, 0.125, 0.125, "ppp", _SHARED + "; agrees with " + _TRACE),
    ("vector_statistics_rate", 3 / 13, 3 / 13, 3 / 13, "paa", _STUBS + ": bn_aggr"),
    ("vector_exponential_rate", 4.0, 4.0, 4.0, "aap", _ARCH + ": exponential, 4 times the scalar engine's"),
    ("vector_quantize_rate", 4.0, 4.0, 4.0, "aap", _ARCH + ": quantize_mx"),
    ("vector_random_rate", 4.0, 4.0, 4.0, "aap", _ARCH + ": rand2"),
    ("vector_accumulate_cycles", 64.0, 64.0, 64.0, "paa", _STUBS + ": reading the accumulator"),
    # --- scalar engine
    ("scalar_interval", 64 / 1.4, 50.0, 50.0, "pma", _TRACE + "; trn1: " + _MIN_II),
    ("scalar_latency", 158.0, 158.0, 158.0, "mma", _TRACE + "; trn1: performance guide figure 16"),
    ("scalar_rate", 1.0, 1.0, 1.0, "ppp", _ARCH + ": data-path width"),
    ("scalar_fast_rate", 1.0, 1.0, 2.0, "ppp", _ARCH + ": 16-bit tensor_copy and tensor_scalar"),
    # A per-partition bias read through a pointer, by the memory the data come from.
    ("scalar_bias_interval_psum", 93.0, 93.0, 93.0, "ama", _TRACE),
    ("scalar_bias_interval_sbuf", 135.0, 135.0, 135.0, "ama", _TRACE),
    ("scalar_bias_latency_psum", 101.0, 101.0, 101.0, "ama", _TRACE),
    ("scalar_bias_latency_sbuf", 122.0, 122.0, 122.0, "ama", _TRACE),
    ("scalar_accumulate_cycles", 64.0, 64.0, 64.0, "paa", _STUBS + ": reading the accumulator"),
    ("scalar_table_load", 1283.0, 1283.0, 1283.0, "ama", _TRACE),
    # --- gpsimd engine
    ("gpsimd_rate", 1.0, 1.0, 1.0, "ppp", _ARCH + ": data-path width"),
    ("gpsimd_start_cycles", 150.0, 150.0, 150.0, "paa", _STUBS),
    ("gpsimd_topk_cycles", 4.0, 4.0, 4.0, "ppp", "SDK page nki.isa.topk: 4 n + K cycles"),
    ("minimum_interval_cycles", 64.0, 64.0, 64.0, "paa", _STUBS + ": minimum initiation interval"),
    # --- sequencers
    ("register_ns", 60.0, 60.0, 60.0, "aaa", "a few sequencer instructions; nothing published"),
    ("register_memory_ns", 1000.0, 1000.0, 1000.0, "ama", _TRACE + ": median TENSOR_LOAD of the preamble"),
    # --- semaphores: end of the producer to start of the consumer
    ("semaphore_ns", 30.0, 36.0, 36.0, "ama", _TRACE + "; trn1: performance guide figure 16"),
    ("semaphore_tensor_ns", 52.0, 52.0, 52.0, "ama", _TRACE),
    ("same_engine_ns", 30.0, 35.0, 35.0, "mma", _TRACE + "; trn1: performance guide figure 16"),
    # --- DMA: engines per core, partitions dealt to each, time of one row (descriptor element)
    ("dma_engines", 16, 16, 16, "ppp", _DMA),
    ("dma_queues", 16, 16, 16, "ppp", _DMA),
    ("dma_partitions_per_engine", 8, 8, 8, "ppp", _DMA),
    ("dma_row_ns", 4.7, 4.7, 4.7, "ama", _TRACE),
    ("dma_row_floor_ns", 7.0, 13.0, 13.0, "mma", _TRACE + ": 256 bytes in 12 to 14 ns; trn1: figure 29"),
    ("dma_bytes_per_ns", 15.4, 27.2, 38.4, "mpp", _DMA + "; trn1: performance guide figure 14, 247 GB/s"),
    # Rows up to this size move at a lower rate on trn1, whatever their size.
    ("dma_small_row_bytes", 1024, 0, 0, "mma", _TRN1),
    ("dma_small_row_bytes_per_ns", 103 / 16, 27.2, 38.4, "mma", _TRN1),
    # HBM writes below the DRAM's write size cost this factor.
    ("dma_small_write_bytes", 512, 512, 512, "ama", _TRACE),
    ("dma_small_write_factor", 1.6, 1.6, 1.6, "ama", _TRACE + ": 256 bytes in 22 to 23 ns"),
    ("dma_row_limit_bytes", 64 << 10, 64 << 10, 64 << 10, "aaa", "rows seen whole up to 16 KiB in " + _TRACE),
    # DMA transpose, as a fraction of the copy rate.
    ("dma_transpose_load", 0.1, 0.9, 0.9, "mpa", _ARCH + "; trn1: performance guide figure 31"),
    ("dma_transpose_local", 0.1, 0.5, 0.5, "apa", _ARCH),
    # Trigger to first byte, and the least spacing of triggers, by how descriptors are made.
    ("dma_static_start", 750.0, 750.0, 750.0, "apa", _DMA),
    ("dma_static_interval", 490.0, 490.0, 490.0, "maa", "nki-samples vector_add_tiled on trn1"),
    ("dma_hwdge_issue", 560.0, 560.0, 560.0, "ama", _TRACE + "; published as about 600"),
    ("dma_hwdge_start_load", 790.0, 790.0, 790.0, "ama", _TRACE),
    ("dma_hwdge_start_store", 665.0, 665.0, 665.0, "ama", _TRACE),
    ("dma_swdge_build", 1200.0, 1200.0, 1200.0, "ama", _TRACE),
    ("dma_swdge_interval", 580.0, 580.0, 580.0, "ama", _TRACE),
    ("dma_swdge_start_load", 755.0, 755.0, 755.0, "ama", _TRACE),
    ("dma_swdge_start_store", 630.0, 630.0, 630.0, "ama", _TRACE),
    # Rows whose descriptors one software-DGE interval covers; more rows take longer.
    ("dma_swdge_rows", 1024, 1024, 1024, "ama", _TRACE + ": 128 to 1024 rows alike"),
    # First engine start to last engine start.
    ("dma_stagger_load", 300.0, 300.0, 300.0, "ama", _TRACE),
    ("dma_swdge_stagger_load", 600.0, 600.0, 600.0, "ama", _TRACE),
    ("dma_stagger_store", 160.0, 160.0, 160.0, "ama", _TRACE),
    # Last byte to semaphore visible, then to each kind of waiter.
    ("dma_completion", 356.0, 356.0, 356.0, "ama", _TRACE),
    ("dma_to_sync", 17.0, 17.0, 17.0, "ama", _TRACE),
    ("dma_to_compute", 23.0, 23.0, 23.0, "ama", _TRACE),
    ("dma_to_tensor", 35.0, 35.0, 35.0, "ama", _TRACE),
    # --- program: profile start to first DMA trigger, last byte to profile end, core barrier
    ("program_start", 12800.0, 13500.0, 13500.0, "mma", _TRACE + "; trn1: mamba tutorial figures"),
    ("program_end", 2000.0, 2000.0, 2000.0, "ama", _TRACE),
    ("barrier_ns", 1000.0, 1000.0, 1000.0, "aaa", "one semaphore-to-DMA hop; nothing published"),
    # --- peaks of one core
    ("peak_tflops_bf16", 91.75, 78.64, 78.64, "ppp", _ARCH + ": 2 x 128 x 128 x clock"),
    ("peak_tflops_fp8", 91.75, 157.3, 157.3, "ppp", _ARCH),
    ("peak_tflops_fp32", 22.9, 19.7, 19.7, "ppp", _ARCH),
    ("hbm_bytes_per_ns", 410.0, 716.0, 4900 / 8, "mma", "profiler MBU base; trn3: chip rate over 8 cores"),
    ("hbm_cores", 1, 2, 1, "mma", "cores that share hbm_bytes_per_ns: trn2 one stack, the others per core"),
    ("dma_roof_bytes_per_ns", 272.0, 435.0, 16 * 38.4, "pma", _DMA + "; trn2: profiler's DMA roof"),
)

_LETTERS = {evidence.value[0]: evidence for evidence in Evidence}

SOURCES: dict[str, tuple[Source, ...]] = {
    field: tuple(Source(_LETTERS[letter], reference) for letter in known)
    for field, _, _, _, known, reference in _FIGURES
}


def _target(name: str, nc_version: int, default_dge: str, internal_dge: str, throttled: bool) -> Target:
    figures: dict[str, Any] = {row[0]: row[nc_version - 1] for row in _FIGURES}
    return Target(name, nc_version, default_dge, internal_dge, throttled, **figures)


TRN1 = _target("trn1", 2, "static", "static", False)
TRN2 = _target("trn2", 3, "swdge", "hwdge", True)
TRN3 = _target("trn3", 4, "swdge", "hwdge", True)

TARGETS: dict[str, Target] = {t.name: t for t in (TRN1, TRN2, TRN3)}

_ALIASES = {
    "trn1": TRN1, "inf2": TRN1, "gen2": TRN1, "nc-v2": TRN1, "nc_v2": TRN1, "neuroncore-v2": TRN1, "2": TRN1,
    "trn2": TRN2, "gen3": TRN2, "nc-v3": TRN2, "nc_v3": TRN2, "neuroncore-v3": TRN2, "3": TRN2,
    "trn3": TRN3, "gen4": TRN3, "nc-v4": TRN3, "nc_v4": TRN3, "neuroncore-v4": TRN3, "4": TRN3,
}  # fmt: skip

_VARIABLES = ("NEURON_PLATFORM_TARGET_OVERRIDE", "NKI_NC_VERSION")


def as_target(value: Target | str | int | enum.Enum) -> Target:
    """The generation `value` names: ``trn1``, ``inf2``, ``gen2``, ``nc-v2``, 2 and their like.

    Raises:
        NkiValidationError: NKI-V116, the name is none of these.
    """
    if isinstance(value, Target):
        return value
    name = str(value.name if isinstance(value, enum.Enum) else value).strip().lower()
    found = _ALIASES.get(name)
    if found is None:
        raise error(
            "NKI-V116",
            f"{value!r} is not a target this simulator knows",
            help="write trn1 (also inf2, gen2), trn2 (gen3) or trn3 (gen4)",
        )
    return found


def default_target() -> Target:
    """The target of the environment: NEURON_PLATFORM_TARGET_OVERRIDE, then NKI_NC_VERSION, else trn2.

    Read at each call, so a program may change the variable between kernels.

    Raises:
        NkiValidationError: NKI-V116, the variable names no target.
    """
    for variable in _VARIABLES:
        name = os.environ.get(variable)
        if name:
            return as_target(name)
    return TRN2


def figures() -> tuple[str, ...]:
    """Names of the numeric figures, in the order of the table."""
    return tuple(row[0] for row in _FIGURES)
