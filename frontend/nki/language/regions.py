"""Memory regions, the predicates over them, and the tile sizes of the target."""

from __future__ import annotations

from typing import Any

from nki.compiler.specializer.recorder import current, is_recording
from nki_isa.machine.target import Target
from nki_isa.machine.targets import default_target
from nki_isa.tensor.storage import MemoryRegion

sbuf = MemoryRegion.sbuf
psum = MemoryRegion.psum
private_hbm = MemoryRegion.private_hbm
shared_hbm = MemoryRegion.shared_hbm
hbm = private_hbm


def _target() -> Target:
    return current().target if is_recording() else default_target()


def is_hbm(buffer: Any) -> bool:
    """True for both kinds of HBM."""
    return isinstance(buffer, MemoryRegion) and buffer.is_hbm


def is_on_chip(buffer: Any) -> bool:
    """True for SBUF and PSUM."""
    return isinstance(buffer, MemoryRegion) and buffer.on_chip


def is_sbuf(buffer: Any) -> bool:
    """True for SBUF."""
    return buffer is sbuf


def is_psum(buffer: Any) -> bool:
    """True for PSUM."""
    return buffer is psum


class TileSize:
    """Sizes of the target's memories and of its instructions' tiles.

    Source: SDK page ``nki.language.tile_size``; figures from the Target.
    """

    @property
    def pmax(self) -> int:
        """Partitions of SBUF and PSUM."""
        return _target().partitions

    @property
    def psum_bank_fmax(self) -> int:
        """Elements of fp32 in one partition of a PSUM bank."""
        return _target().psum_bank_bytes // 4

    @property
    def psum_fmax(self) -> int:
        """The older name of `psum_bank_fmax`."""
        return self.psum_bank_fmax

    @property
    def psum_bank_fmax_bytes(self) -> int:
        """Bytes in one partition of a PSUM bank."""
        return _target().psum_bank_bytes

    @property
    def psum_num_banks(self) -> int:
        """PSUM banks in one partition.

        The page says 7 where ``NKI_DMA_TRANSPOSE_AS_PE_TRANSPOSE=true``; the vendor's compiler then makes
        matmuls of DMA transposes and keeps a bank for them, which is not modelled here.
        """
        return _target().psum_banks

    @property
    def gemm_stationary_fmax(self) -> int:
        """Largest free size of a matmul's stationary operand."""
        return _target().stationary_max

    @property
    def gemm_moving_fmax(self) -> int:
        """Largest free size of a matmul's moving operand that one PSUM bank takes."""
        return _target().psum_bank_bytes // 4

    @property
    def bn_stats_fmax(self) -> int:
        """Largest free size of bn_stats."""
        return 512

    @property
    def psum_min_align(self) -> int:
        """Alignment of a free-dimension address in PSUM, in bytes."""
        return 4

    @property
    def sbuf_min_align(self) -> int:
        """Alignment of a free-dimension address in SBUF, in bytes."""
        return 1

    @property
    def sbuf_size_bytes(self) -> int:
        """Capacity of SBUF, all partitions together, in bytes."""
        target = _target()
        return target.partitions * target.sbuf_partition_bytes

    @property
    def sbuf_fmax_bytes(self) -> int:
        """Bytes of one SBUF partition that a kernel can use."""
        return _target().sbuf_usable_bytes

    @property
    def sbuf_fmax(self) -> int:
        """Elements of fp32 that fit in the usable part of one SBUF partition."""
        return self.sbuf_fmax_bytes // 4

    @property
    def total_available_sbuf_size(self) -> int:
        """The older name of `sbuf_fmax_bytes`."""
        return self.sbuf_fmax_bytes


tile_size = TileSize()
