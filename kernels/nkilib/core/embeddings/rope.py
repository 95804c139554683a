"""Rotary position embedding.

Pairs of elements of the head dimension are rotated by an angle that depends on
the position:

    out_even = x_even * cos - x_odd * sin
    out_odd  = x_odd * cos + x_even * sin

The head dimension lies on the partitions. In the contiguous layout the even
elements are its first half and the odd ones its second; in the interleaved layout
they alternate, and are brought apart by strided DMA or, for small tensors, by a
product with a permutation matrix on the tensor engine.
"""

import nki
import nki.isa as nisa
import nki.language as nl

from ..utils.kernel_assert import kernel_assert
from ..utils.kernel_helpers import get_verified_program_sharding_info

HEAD_DIMENSIONS = (64, 128)
MAX_BATCH = 64
MAX_HEADS = 16
MAX_SEQUENCE = 512


@nki.jit
def RoPE(x_in, cos, sin, lnc_shard=False, contiguous_layout=True, relayout_in_sbuf=False):
    """Apply rotary position embedding, HBM to HBM.

    Args:
        x_in: [d_head, B, n_heads, S]; d_head 64 or 128, B at most 64, n_heads at most
            16, S at most 512.
        cos: [d_head // 2, B, S].
        sin: [d_head // 2, B, S].
        lnc_shard: split the sequence over the programs of the launch.
        contiguous_layout: True for [even half, odd half] on the head dimension, False
            for alternating elements.
        relayout_in_sbuf: bring an interleaved layout apart on the tensor engine
            instead of by strided DMA; B * n_heads * S at most 512.

    Returns:
        A tensor in HBM of the shape, dtype and layout of `x_in`.
    """
    d_head, batch, heads, sequence = _check(x_in, cos, sin)
    count, program = 1, 0
    if lnc_shard:
        _, count, program = get_verified_program_sharding_info("RoPE")
        kernel_assert(sequence % count == 0, f"S = {sequence} does not divide over {count} programs")
    length = sequence // count
    positions = nl.ds(program * length, length)
    half = d_head // 2
    strided = not contiguous_layout and not relayout_in_sbuf

    x_out = nl.ndarray(x_in.shape, dtype=x_in.dtype, buffer=nl.shared_hbm)
    for b in nl.affine_range(batch):
        x_sb = nl.ndarray((d_head, 1, heads, length), dtype=x_in.dtype, buffer=nl.sbuf)
        out_sb = nl.ndarray((d_head, 1, heads, length), dtype=x_in.dtype, buffer=nl.sbuf)
        cos_sb = nl.ndarray((half, 1, length), dtype=cos.dtype, buffer=nl.sbuf)
        sin_sb = nl.ndarray((half, 1, length), dtype=sin.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=cos_sb, src=cos[:, b : b + 1, positions])
        nisa.dma_copy(dst=sin_sb, src=sin[:, b : b + 1, positions])
        source = x_in[:, b : b + 1, :, positions]
        target = x_out[:, b : b + 1, :, positions]
        _copy_layout(x_sb, source, half, strided, to_hbm=False)
        RoPE_sbuf(
            x_sb, cos_sb, sin_sb, out_sb, convert_from_interleaved=not contiguous_layout and relayout_in_sbuf
        )
        _copy_layout(out_sb, target, half, strided, to_hbm=True)
    return x_out


def _check(x_in, cos, sin):
    kernel_assert(len(x_in.shape) == 4, f"x_in is [d_head, B, n_heads, S], got shape {x_in.shape}")
    d_head, batch, heads, sequence = x_in.shape
    kernel_assert(d_head in HEAD_DIMENSIONS, f"d_head is 64 or 128, got {d_head}")
    kernel_assert(0 < batch <= MAX_BATCH, f"B is in (0, {MAX_BATCH}], got {batch}")
    kernel_assert(0 < heads <= MAX_HEADS, f"n_heads is in (0, {MAX_HEADS}], got {heads}")
    kernel_assert(0 < sequence <= MAX_SEQUENCE, f"S is in (0, {MAX_SEQUENCE}], got {sequence}")
    expected = (d_head // 2, batch, sequence)
    kernel_assert(cos.shape == expected, f"cos is [d_head // 2, B, S] = {expected}, got {cos.shape}")
    kernel_assert(sin.shape == expected, f"sin is [d_head // 2, B, S] = {expected}, got {sin.shape}")
    return d_head, batch, heads, sequence


def _copy_layout(tile, tensor, half, strided, to_hbm):
    """Copy between SBUF and HBM; `strided` gathers the alternating elements of HBM into halves."""
    if strided:
        for parity in range(2):
            part = tile[nl.ds(parity * half, half)]
            other = tensor[parity : 2 * half : 2]
            if to_hbm:
                nisa.dma_copy(dst=other, src=part)
            else:
                nisa.dma_copy(dst=part, src=other)
    elif to_hbm:
        nisa.dma_copy(dst=tensor, src=tile)
    else:
        nisa.dma_copy(dst=tile, src=tensor)


def RoPE_sbuf(x_in_sb, cos_sb, sin_sb, x_out_sb, convert_from_interleaved=False):
    """Apply rotary position embedding to tiles in SBUF.

    Args:
        x_in_sb: [d_head, B, n_heads, S].
        cos_sb: [d_head // 2, B, S].
        sin_sb: [d_head // 2, B, S].
        x_out_sb: [d_head, B, n_heads, S], of the dtype of `x_in_sb`; written.
        convert_from_interleaved: the head dimension alternates even and odd elements,
            in `x_in_sb` and in `x_out_sb`; B * n_heads * S at most 512.

    Returns:
        `x_out_sb`.
    """
    d_head, batch, heads, sequence = x_in_sb.shape
    half = d_head // 2
    kernel_assert(
        x_in_sb.dtype == x_out_sb.dtype,
        f"x_in_sb is {x_in_sb.dtype} but x_out_sb is {x_out_sb.dtype}; they are equal",
    )
    apart, together = x_in_sb, x_out_sb
    if convert_from_interleaved:
        columns = batch * heads * sequence
        limit = nl.tile_size.gemm_moving_fmax
        kernel_assert(
            columns <= limit, f"relayout in SBUF takes B * n_heads * S up to {limit}, got {columns}"
        )
        apart = nl.ndarray(x_in_sb.shape, dtype=x_in_sb.dtype, buffer=nl.sbuf)
        together = nl.ndarray(x_in_sb.shape, dtype=x_in_sb.dtype, buffer=nl.sbuf)
        permutation = _halves_from_pairs(d_head, x_in_sb.dtype)
        _permute_partitions(apart, x_in_sb, permutation)

    # The vector engine reads both operands of SBUF from the same partitions: the odd half moves down first.
    odd = nl.ndarray((half, batch, heads, sequence), dtype=x_in_sb.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=odd, src=apart[nl.ds(half, half)])
    even = apart[nl.ds(0, half)]
    cosines = cos_sb.expand_dim(2).broadcast(2, heads)
    sines = sin_sb.expand_dim(2).broadcast(2, heads)
    _rotate(together[nl.ds(0, half)], even, cosines, odd, sines, nl.subtract)
    _rotate(together[nl.ds(half, half)], odd, cosines, even, sines, nl.add)

    if convert_from_interleaved:
        _permute_partitions(x_out_sb, together, _pairs_from_halves(d_head, x_in_sb.dtype))
    return x_out_sb


def _rotate(dst, first, cosines, second, sines, op):
    """dst = first * cosines <op> second * sines, in fp32 until the end."""
    left = nl.ndarray(first.shape, dtype=nl.float32, buffer=nl.sbuf)
    right = nl.ndarray(first.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=left, data1=first, data2=cosines, op=nl.multiply)
    nisa.tensor_tensor(dst=right, data1=second, data2=sines, op=nl.multiply)
    nisa.tensor_tensor(dst=dst, data1=left, data2=right, op=op)


def _halves_from_pairs(d_head, dtype):
    """The stationary matrix whose product moves elements 0, 2, 4, ... first and 1, 3, 5, ... after them."""
    identity = nl.shared_identity_matrix(d_head, dtype=dtype)
    permutation = nl.ndarray((d_head, d_head), dtype=dtype, buffer=nl.sbuf)
    pairs = identity.reshape_dim(1, (d_head // 2, 2)).permute((0, 2, 1))
    nisa.tensor_copy(dst=permutation.reshape_dim(1, (2, d_head // 2)), src=pairs)
    return permutation


def _pairs_from_halves(d_head, dtype):
    """The stationary matrix whose product undoes that of :func:`_halves_from_pairs`."""
    identity = nl.shared_identity_matrix(d_head, dtype=dtype)
    permutation = nl.ndarray((d_head, d_head), dtype=dtype, buffer=nl.sbuf)
    halves = identity.reshape_dim(1, (2, d_head // 2)).permute((0, 2, 1))
    nisa.tensor_copy(dst=permutation.reshape_dim(1, (d_head // 2, 2)), src=halves)
    return permutation


def _permute_partitions(dst, src, permutation):
    """dst = permutation.T @ src on the tensor engine; exact, since each sum has one term."""
    d_head = src.shape[0]
    columns = src.shape[1] * src.shape[2] * src.shape[3]
    moved = nl.ndarray((d_head, columns), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=moved, stationary=permutation, moving=src.reshape((d_head, columns)))
    nisa.tensor_copy(dst=dst.reshape((d_head, columns)), src=moved)
