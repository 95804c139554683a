"""The mechanisms of the machine that cost time, by name: each can be switched off, to see what it costs.

A mechanism is a few figures of :class:`~nki_isa.machine.target.Target`, and what they are where it does not
exist. :func:`without` gives a generation that lacks some; :mod:`nki_sim.report.ablation` times Programs
without each in turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nki_isa.diagnostics import error
from nki_isa.machine.target import Target


@dataclass(frozen=True, slots=True)
class Mechanism:
    """Something that costs time.

    Attributes:
        says: what it is, in a few words.
        off: the figures that make it up, as they are without it.
    """

    says: str
    off: Mapping[str, Any]


def _none(*figures: str) -> dict[str, Any]:
    return dict.fromkeys(figures, 0.0)


MECHANISMS: dict[str, Mechanism] = {
    "throttle": Mechanism(
        "the tensor engine at its slow clock after windows of little use",
        {"throttled": False, **_none("tensor_latency_throttled")},
    ),
    "weight-load": Mechanism(
        "LoadStationary where no matmul hides it",
        {"fast_weight_factor": math.inf},
    ),
    "short-moving": Mechanism(
        "the least time between two matmuls, of a moving tile of few columns",
        {"moving_min": 0},
    ),
    "tile-ports": Mechanism(
        "tiles of the tensor engine that wait for each other's moving data",
        {"tensor_ports": math.inf},
    ),
    "table-load": Mechanism(
        "loads of activation function tables",
        _none("scalar_table_load"),
    ),
    "access": Mechanism(
        "what each instruction takes beyond streaming: the bubbles of access and pipeline",
        _none(
            "tensor_interval",
            "tensor_latency",
            "tensor_latency_throttled",
            "vector_interval",
            "vector_latency",
            "scalar_interval",
            "scalar_latency",
            "gpsimd_start_cycles",
            "minimum_interval_cycles",
        ),
    ),
    "strides": Mechanism(
        "operands whose neighbours are far apart, at half the rate of the ports to SBUF and PSUM",
        {"access_strided_per_ns": math.inf},
    ),
    "pointers": Mechanism(
        "operands read as one value per partition: biases, scalar tiles",
        _none(
            "vector_pointer_interval",
            "vector_pointer_latency",
            "scalar_bias_interval_psum",
            "scalar_bias_interval_sbuf",
            "scalar_bias_latency_psum",
            "scalar_bias_latency_sbuf",
        ),
    ),
    "accumulators": Mechanism(
        "reading and adding up the accumulators of an engine",
        _none("vector_accumulate_cycles", "scalar_accumulate_cycles"),
    ),
    "semaphores": Mechanism(
        "handing a result from one instruction to another",
        _none("semaphore_ns", "semaphore_tensor_ns", "same_engine_ns"),
    ),
    "descriptors": Mechanism(
        "the fixed time of each descriptor row of a DMA",
        _none("dma_row_ns", "dma_row_floor_ns"),
    ),
    "small-rows": Mechanism(
        "the lower rate of short DMA rows",
        {"dma_small_row_bytes": 0},
    ),
    "dma-transpose": Mechanism(
        "the lower rate of DMA transposes",
        {"dma_transpose_load": 1.0, "dma_transpose_local": 1.0},
    ),
    "triggers": Mechanism(
        "the least time between two DMA triggers of a queue, and the engine that makes descriptors",
        _none("dma_static_interval", "dma_hwdge_issue", "dma_swdge_build", "dma_swdge_interval"),
    ),
    "dma-start": Mechanism(
        "from a DMA trigger to the first byte, the DMA engines that start later, and loads that wait for HBM",
        _none(
            "dma_load_bytes",
            "dma_static_start",
            "dma_hwdge_start_load",
            "dma_hwdge_start_store",
            "dma_swdge_start_load",
            "dma_swdge_start_store",
            "dma_stagger_load",
            "dma_stagger_store",
            "dma_swdge_stagger_load",
        ),
    ),
    "dma-completion": Mechanism(
        "from the last byte of a DMA to the engine that waits for it",
        _none("dma_completion", "dma_to_sync", "dma_to_compute", "dma_to_tensor"),
    ),
    "queue-sharing": Mechanism(
        "DMA engines shared by the transfers in flight, queue by queue in turn",
        {"dma_shared": False},
    ),
    "spills": Mechanism(
        "moving tensors that SBUF has no room for to HBM and back",
        {"spills": False},
    ),
    "pair-start": Mechanism(
        "the later start of a launch on two cores that load by software DGE",
        _none("program_pair_start"),
    ),
    "hbm-sharing": Mechanism(
        "the bandwidth of HBM shared by the cores of a launch",
        {"hbm_cores": 1, "hbm_efficiency": 1.0},
    ),
}
"""Every mechanism by name."""


def mechanisms(text: str) -> frozenset[str]:
    """The mechanisms that a list such as ``"throttle,semaphores"`` names.

    Raises:
        NkiError: NKI-L032 for a name that is not a mechanism.
    """
    names = [name for part in text.split(",") if (name := part.strip())]
    for name in names:
        if name not in MECHANISMS:
            raise error(
                "NKI-L032",
                f"there is no mechanism {name!r}",
                help=f"the mechanisms are {', '.join(MECHANISMS)}",
            )
    return frozenset(names)


def without(target: Target, names: Iterable[str]) -> Target:
    """`target` without these mechanisms; itself where there are none."""
    figures: dict[str, Any] = {}
    for name in names:
        figures.update(MECHANISMS[name].off)
    return replace(target, **figures) if figures else target
