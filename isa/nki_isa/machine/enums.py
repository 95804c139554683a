"""The enumerations of ``nki.isa``, with the members and values users see.

They keep the names kernels write (``nki.isa.oob_mode.skip``), hence the lower
case; ``nki.isa.engine`` is :class:`Engine`.

Source: SDK API page ``nki.isa``.
"""

from __future__ import annotations

import enum
from typing import Any

from nki_isa.machine.targets import TARGETS


class Engine(enum.Enum):
    """What runs an instruction; the names and values of ``nki.isa.engine``."""

    unknown = 0
    tensor = 1
    scalar = 2
    gpsimd = 3
    dma = 4
    vector = 5
    sync = 6


class reduce_cmd(enum.Enum):
    """What an instruction does with its engine's accumulator registers."""

    idle = 0  # leaves them alone
    reset = 1  # sets them to the initial value of the reduction
    reduce = 2  # accumulates this instruction's results onto them
    reset_reduce = 3  # resets them, then accumulates
    load_reduce = 4  # loads a given value, then accumulates


class dge_mode(enum.Enum):
    """Who makes the descriptors of a DMA."""

    unknown = 0  # the compiler chooses
    swdge = 1  # the GpSimd engine, at run time
    hwdge = 2  # a hardware block, triggered by the sync or the scalar engine, at run time
    none = 3  # the host, before execution


class oob_mode(enum.Enum):
    """What a dynamic address outside its tensor does."""

    error = 0  # stops the kernel
    skip = 1  # that part of the transfer does not happen


class matmul_perf_mode(enum.Enum):
    """Performance mode of a matmul."""

    none = "none"
    double_row = "double_row"  # two fp8 rows of the contraction per cycle


_GENERATIONS = {f"gen{target.nc_version}": target.nc_version for target in TARGETS.values()}

nc_version: Any = enum.IntEnum("nc_version", _GENERATIONS, module=__name__)  # type: ignore[misc]  # not a literal
nc_version.__doc__ = "Generation of a NeuronCore; ordered, so that kernels can write ``>= nc_version.gen3``."


class dma_engine(enum.Enum):
    """Which DMA carries a `sendrecv`."""

    dma = 1  # the shared DMA engines
    gpsimd_dma = 2  # the DMA inside the GpSimd engine, SBUF to SBUF
