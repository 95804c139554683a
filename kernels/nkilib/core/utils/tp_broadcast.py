"""One column, copied to all partitions as a row."""

import nki.isa as nisa
import nki.language as nl

from .kernel_assert import kernel_assert
from .tensor_view import TensorView


def tp_broadcast(src, dst, src_offset: int, psum_address=None) -> None:
    """Write a column of `src` into every partition of `dst`: ``dst[b, p] = src[p, src_offset]``.

    The tensor engine transposes the column, read as often as `dst` has partitions; PSUM goes to SBUF on the
    vector engine.

    Args:
        src: [P, F] in SBUF, from its first partition on.
        dst: [B, P] in SBUF.
        src_offset: the column.
        psum_address: ``(partition, byte)`` of the B rows in PSUM; None leaves it to the compiler.
    """
    kernel_assert(
        len(src.shape) == 2 and len(dst.shape) == 2 and src.shape[0] == dst.shape[1],
        f"tp_broadcast takes src [P, F] and dst [B, P], got {src.shape} and {dst.shape}",
    )
    kernel_assert(
        0 <= src_offset < src.shape[1],
        f"src_offset is a column of src, below {src.shape[1]}; got {src_offset}",
    )
    column = TensorView(src).slice(1, src_offset, src_offset + 1).broadcast(1, dst.shape[0])
    rows = nl.ndarray(dst.shape, dtype=src.dtype, buffer=nl.psum, address=psum_address)
    nisa.nc_transpose(dst=rows, data=column.get_view(), engine=nisa.tensor_engine)
    nisa.tensor_copy(dst=dst, src=rows, engine=nisa.vector_engine)
