"""One partition, copied to all."""

import nki.isa as nisa

from .kernel_assert import kernel_assert
from .tiled_range import TiledRange

_QUADRANT = 32  # partitions that one shuffle mask speaks of


def stream_shuffle_broadcast(src, dst) -> None:
    """Copy the first partition of `src` to every partition of `dst`, on the vector engine.

    Args:
        src: [P, F] in SBUF or PSUM; partition 0 is read.
        dst: [at most 128, F] of the dtype of `src`; may be `src` itself.
    """
    kernel_assert(
        len(src.shape) == 2 and len(dst.shape) == 2 and src.shape[1] == dst.shape[1],
        "stream_shuffle_broadcast takes 2D src and dst with equal last dimensions, "
        f"got {src.shape} and {dst.shape}",
    )
    for quadrant in TiledRange(dst.shape[0], _QUADRANT):
        nisa.nc_stream_shuffle(
            dst=dst[quadrant.start_offset : quadrant.end_offset, :],
            src=src[0:1, :],
            shuffle_mask=[0] * _QUADRANT,
        )
