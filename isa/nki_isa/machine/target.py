"""What a generation of NeuronCore is: its figures, each with its source, and the features it has by name.

The generations themselves are the files of :mod:`nki_isa.machine.targets`, one each. Every figure says
whether it was published, measured (on public profiles), fitted (to such measurements) or assumed;
:meth:`Target.source` answers that.

Units: GHz, nanoseconds, bytes, bytes per nanosecond (= GB/s), cycles of the engine named, TFLOPS.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple


class EvidenceKind(enum.Enum):
    """How a figure is known."""

    published = "published"  # the vendor printed it
    measured = "measured"  # read off a public hardware profile, or derived from one
    fitted = "fitted"  # set so that rows measured on hardware come out: benchmarks/fidelity/fit.py names them
    assumed = "assumed"  # neither published nor measured; the source says why this value


@dataclass(frozen=True, slots=True)
class Source:
    """Where a figure comes from."""

    evidence: EvidenceKind
    reference: str


class Figure(NamedTuple):
    """A number of a generation and where it comes from."""

    value: Any
    source: Source


def published(value: float, reference: str) -> Figure:
    """A figure the vendor printed."""
    return Figure(value, Source(EvidenceKind.published, reference))


def measured(value: float, reference: str) -> Figure:
    """A figure read off a public hardware profile, or derived from one."""
    return Figure(value, Source(EvidenceKind.measured, reference))


def fitted(value: float, reference: str) -> Figure:
    """A figure set so that rows measured on hardware come out; ``benchmarks/fidelity/fit.py`` names them."""
    return Figure(value, Source(EvidenceKind.fitted, reference))


def assumed(value: float, reference: str) -> Figure:
    """A figure neither published nor measured; `reference` says why this value."""
    return Figure(value, Source(EvidenceKind.assumed, reference))


class Feature(enum.Enum):
    """What some generations can do and others cannot; rules ask for these, not for a generation."""

    slow_strides = "ports to SBUF and PSUM deliver half their rate beyond a stride"
    core_pairs = "two physical cores act as one logical core: core_barrier, sendrecv"
    number_as_bias = "activation takes a number as bias, and a bias with reciprocal"
    bit_exact_transpose = "the tensor engine moves the bits of what it transposes; fp8 in pairs of bytes"
    double_row = "matmuls take two rows of fp8 at once"
    hardware_dge = "a hardware block makes the descriptors of DMA"
    gathered_rows = "DMA takes rows by an index in each partition"
    scalar_engine_pairs = "tensor_scalar on the scalar engine takes a few pairs of operators only"
    float8_e4m3fn = "matmuls take float8_e4m3fn"
    bfloat16_sums = "matmuls write and accumulate bfloat16 in PSUM"
    joined_banks = "a matmul writes to more than one PSUM bank"
    sums_onto_any_bytes = "a matmul accumulates onto whatever bytes PSUM holds"
    fast_fp8 = "8-bit floats run in the performance modes of 16-bit ones"
    indirect_operands = "engines read operands through indices"
    dma_priority = "DMA has classes of priority"
    rand2 = "the vector engine makes uniform float32 numbers"
    narrow_tiles = "the array of the tensor engine divides into tiles of 32 rows and columns"
    scalar_engine_copy = "the scalar engine copies and sets tensors"
    gpsimd_random = "the gpsimd engine makes random bits"
    random_states = "the gpsimd engine stores and loads the state of its random numbers"
    vector_random_states = "the vector engine does so too, in PSUM as well"
    selection_by_bounds = "the vector engine keeps what lies between two bounds"
    nonzero_search = "the gpsimd engine lists the elements that are not zero"
    sizes_by_data = "collectives take sizes that the data say"
    mx_tiles = "engines make and multiply tiles of 8-bit floats with a scale for each block"
    exponential = "the vector engine exponentiates, and sums what it gives"
    two_operators = "activation takes two operators beside its function"
    absolute_and_square = "vector operators square, relu, abs_max and abs_min"
    near_memory_sums = "DMA adds to SBUF without reading it"


@dataclass(frozen=True, eq=False)
class Target:
    """One generation of NeuronCore, one physical core of it; compared by identity.

    Attributes:
        name: as in ``NEURON_PLATFORM_TARGET_OVERRIDE``, such as ``"trn2"``.
        nc_version: the number of ``nki.isa.nc_version``; later generations have higher ones.
        aliases: other names of it.
        default_dge: how DMA descriptors are made when the kernel does not say and one
            side is a kernel argument or shared HBM: ``"static"``, ``"hwdge"`` or ``"swdge"``.
        internal_dge: the same for DMA between private HBM, SBUF and PSUM. (Public trn2
            traces: arguments and results move by software DGE, intermediates by hardware.)
        throttled: True if the tensor engine's clock follows its utilisation.
        features: what it can do that others cannot.
        dma_shared: False for a machine whose transfers each have DMA engines of their own, which there is
            not (:mod:`nki_sim.timing.mechanisms`).
        spills: False for a machine where what is spilled moves in no time, which there is not either.
        sources: where each figure comes from, by the figure's name.

    The other fields are its figures.
    """

    name: str
    nc_version: int
    default_dge: str
    internal_dge: str
    throttled: bool
    aliases: tuple[str, ...]
    features: frozenset[Feature]
    sources: Mapping[str, Source] = field(repr=False)

    partitions: int
    sbuf_partition_bytes: int
    sbuf_usable_bytes: int  # what a kernel may allocate; the compiler keeps the rest
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
    moving_min: int  # columns in the least time between two matmuls; fewer if their weights are less
    tensor_ports: float  # moving elements that a row of the array takes a cycle, for all its tiles together
    tensor_rate: (
        float  # columns of moving per cycle, of 16 bits and narrower; float32 streams them in `fp32_passes`
    )
    fp32_passes: int
    fast_weight_factor: float  # columns per cycle of LoadStationary, of 16 bits and narrower
    tensor_interval: float  # beyond streaming: the gap between two matmuls
    tensor_latency: float
    tensor_latency_throttled: float
    weight_latency: float
    throttle_window: float
    throttle_phase: float  # first possible trigger to the end of the window that is on
    throttle_threshold: float  # utilisation of a window that keeps the full rate in the next
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
    scalar_bias_interval_psum: float  # a bias of one number per partition, by the memory of the data
    scalar_bias_interval_sbuf: float
    scalar_bias_latency_psum: float
    scalar_bias_latency_sbuf: float
    scalar_accumulate_cycles: float
    scalar_table_load: float

    gpsimd_rate: float
    gpsimd_start_cycles: float
    gpsimd_topk_cycles: float
    minimum_interval_cycles: float

    access_stride_bytes: int  # between neighbours of an operand; beyond it a port delivers half its rate
    access_strided_per_ns: float  # elements of a partition, then

    register_ns: float
    register_memory_ns: float

    semaphore_ns: float
    semaphore_tensor_ns: float
    same_engine_ns: float

    dma_engines: int
    dma_partitions_per_engine: int
    dma_row_ns: float
    dma_row_floor_ns: float
    dma_bytes_per_ns: float
    dma_load_bytes_per_ns: float  # of an engine that waits for HBM, which leaves the rest to others
    dma_load_bytes: int  # that it so moves when a load begins
    dma_packet_bytes: int  # up to which software DGE makes one packet of rows next to each other in HBM
    dma_small_row_bytes: int  # rows up to this size move at a lower rate, whatever their size
    dma_small_row_bytes_per_ns: float
    dma_row_limit_bytes: int
    dma_transpose_load: float  # as a fraction of the copy rate
    dma_transpose_local: float
    dma_static_start: (
        float  # trigger to first byte, and the least spacing of triggers, by how descriptors are made
    )
    dma_static_interval: float
    dma_hwdge_issue: float
    dma_hwdge_start_load: float
    dma_hwdge_start_store: float
    dma_swdge_build: float
    dma_swdge_interval: float
    dma_swdge_start_load: float
    dma_swdge_start_store: float
    dma_swdge_rows: int  # rows whose descriptors one software-DGE interval covers; more take longer
    dma_stagger_load: float  # first engine start to last engine start
    dma_stagger_store: float
    dma_swdge_stagger_load: float
    dma_completion: float  # last byte to semaphore visible, then to each kind of waiter
    dma_to_sync: float
    dma_to_compute: float
    dma_to_tensor: float

    program_start: float
    program_single_lead: float  # less, where a logical core is one physical core
    program_fetch: float  # of it, in which DMA engines fetch instructions; profilers count it as active
    program_active: float  # of it and of the end, in which an engine runs instructions of its own
    program_pair_start: float  # more, of a launch on two cores that load by software DGE
    program_end: float
    barrier_ns: float

    collective_start_ns: float  # of a collective, before data cross the first link
    link_hop_ns: float  # from one rank to the next
    network_hop_ns: float  # from one machine to another
    link_bytes_per_ns: float  # of one direction of a link between two chips, of its largest server
    rank_bytes_per_ns: float  # that one rank moves for a collective, wherever to
    link_mesh_bytes: int  # up to this size ranks send to all others at once
    link_rdh_bytes: int  # up to this size they exchange in pairs; from here on parts go round rings

    peak_tflops_bf16: float
    hbm_bytes_per_ns: float
    hbm_cores: int
    hbm_efficiency: float  # share of hbm_bytes_per_ns that transfers of all its cores reach together
    dma_roof_bytes_per_ns: float

    dma_shared: bool = True
    spills: bool = True

    def has(self, feature: Feature | None) -> bool:
        """True if it has `feature`; every generation has what needs none."""
        return feature is None or feature in self.features

    def source(self, figure: str) -> Source:
        """Where the value of `figure` comes from.

        Raises:
            KeyError: `figure` is not the name of a figure.
        """
        return self.sources[figure]

    def ghz(self, engine: str) -> float:
        """Clock of an engine, by the name of ``nki.isa.engine``."""
        return float(getattr(self, f"{engine}_ghz"))


def generation(
    name: str,
    *,
    nc_version: int,
    default_dge: str,
    internal_dge: str,
    throttled: bool,
    aliases: tuple[str, ...] = (),
    features: Iterable[Feature] = (),
    **figures: Figure,
) -> Target:
    """A generation of these figures.

    Raises:
        TypeError: a figure is missing, or none of this name exists.
    """
    return Target(
        name=name,
        nc_version=nc_version,
        default_dge=default_dge,
        internal_dge=internal_dge,
        throttled=throttled,
        aliases=aliases,
        features=frozenset(features),
        sources={figure: found.source for figure, found in figures.items()},
        **{figure: found.value for figure, found in figures.items()},
    )


_NOT_FIGURES = frozenset(
    (
        "name",
        "nc_version",
        "default_dge",
        "internal_dge",
        "throttled",
        "aliases",
        "features",
        "sources",
        "dma_shared",
        "spills",
    )
)

FIGURES: tuple[str, ...] = tuple(f.name for f in fields(Target) if f.name not in _NOT_FIGURES)
"""Names of the figures, in the order of the class."""
