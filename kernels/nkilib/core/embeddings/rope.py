"""Rotary position embedding.

Pairs of elements of the head dimension are rotated by an angle that depends on the position:

    out_even = x_even * cos - x_odd * sin
    out_odd  = x_odd * cos + x_even * sin

In the contiguous layout the even elements are the first half of the head dimension and the odd ones its
second; in the interleaved layout they alternate. Either way, with the head dimension on the partitions,

    out = x * C + (Q x) * S

where C and S hold cos and sin for both elements of a pair, and Q takes an odd element with its sign changed
to the place of the even one, and the even one to the place of the odd. So one way serves both layouts, and
nothing is brought apart:

- DMA: x in one piece per partition; cos and sin to both partitions of a pair.
- Tensor engine: Q x, exact, since each sum has one term.
- gpsimd: x * C; vector engine: (Q x) * S from PSUM, then the sum. Both in fp32, rounded once.

Kept in SBUF: 2048 columns of x, of the result and of two products in fp32, twice: 48 KiB per partition for
bf16; and C and S of the positions at hand, at most 8 KiB each.
"""

import nki
import nki.isa as nisa
import nki.language as nl

from ..utils.kernel_assert import assert_shape, kernel_assert
from ..utils.kernel_helpers import get_verified_program_sharding_info
from ..utils.tensor_view import TensorView
from ..utils.tiled_range import TiledRange

HEAD_DIMENSIONS = (64, 128)
_COLUMNS = 2048  # of a tile
_BANK = 512  # fp32 elements of a PSUM bank


@nki.jit
def RoPE(x_in, cos, sin, lnc_shard=False, contiguous_layout=True, relayout_in_sbuf=False):
    """Apply rotary position embedding, HBM to HBM.

    Args:
        x_in: [d_head, B, n_heads, S]; d_head is 64 or 128.
        cos: [d_head // 2, B, S].
        sin: [d_head // 2, B, S].
        lnc_shard: share the work over the programs of the launch, whose number divides S.
        contiguous_layout: True for [even half, odd half] of the head dimension, False for alternating ones.
        relayout_in_sbuf: accepted; alternating elements are always exchanged on the tensor engine.

    Returns:
        A tensor in HBM of the shape, dtype and layout of `x_in`.
    """
    d_head, batch, heads, sequence = _check(x_in, cos, sin)
    count, program = 1, 0
    if lnc_shard:
        _, count, program = get_verified_program_sharding_info("RoPE", (0, 1), 2)
        kernel_assert(sequence % count == 0, f"S = {sequence} does not divide over {count} programs")
    x_out = nl.ndarray(x_in.shape, dtype=x_in.dtype, buffer=nl.shared_hbm)
    source, target = TensorView(x_in), TensorView(x_out)
    cos_view, sin_view = TensorView(cos), TensorView(sin)
    if count > 1:  # by batch or heads where they divide: a row of DMA stays as long as it is
        dim = 1 if batch % count == 0 else 2 if heads % count == 0 else 3
        source, target = _share(source, dim, count, program), _share(target, dim, count, program)
        if dim != 2:
            angle_dim = 1 if dim == 1 else 2
            cos_view = _share(cos_view, angle_dim, count, program)
            sin_view = _share(sin_view, angle_dim, count, program)

    exchange = _exchange(d_head, x_in.dtype, contiguous_layout)
    _, batch, heads, sequence = source.shape
    length = min(sequence, _COLUMNS)
    group = min(heads, _COLUMNS // length)
    for rows in TiledRange(batch, _COLUMNS // (length * group)):
        for positions in TiledRange(sequence, length):
            cosines = _angles(cos_view, rows, positions, contiguous_layout)
            sines = _angles(sin_view, rows, positions, contiguous_layout)
            for part in TiledRange(heads, group):
                x = nl.ndarray(
                    (d_head, rows.size, part.size, positions.size), dtype=x_in.dtype, buffer=nl.sbuf
                )
                out = nl.ndarray(x.shape, dtype=x_in.dtype, buffer=nl.sbuf)
                _load(x, _part(source, rows, part, positions))
                _rotate(out, x, exchange, cosines, sines)
                nisa.dma_copy(dst=_part(target, rows, part, positions).get_view(), src=out)
    return x_out


def RoPE_sbuf(x_in_sb, cos_sb, sin_sb, x_out_sb, convert_from_interleaved=False):
    """Apply rotary position embedding to tiles in SBUF.

    Args:
        x_in_sb: [d_head, B, n_heads, S].
        cos_sb: [d_head // 2, B, S].
        sin_sb: [d_head // 2, B, S].
        x_out_sb: [d_head, B, n_heads, S], of the dtype of `x_in_sb`; written.
        convert_from_interleaved: the head dimension alternates even and odd elements, in `x_in_sb` and in
            `x_out_sb`.

    Returns:
        `x_out_sb`.
    """
    d_head, batch, heads, sequence = _check(x_in_sb, cos_sb, sin_sb)
    assert_shape(x_out_sb, x_in_sb.shape, "x_out_sb", "It has the shape of x_in_sb.")
    kernel_assert(
        x_in_sb.dtype == x_out_sb.dtype,
        f"x_in_sb is {x_in_sb.dtype} but x_out_sb is {x_out_sb.dtype}; they are equal",
    )
    contiguous = not convert_from_interleaved
    exchange = _exchange(d_head, x_in_sb.dtype, contiguous)
    cosines = _angles_on_chip(cos_sb, contiguous)
    sines = _angles_on_chip(sin_sb, contiguous)
    length = min(sequence, _BANK)
    group = min(heads, _BANK // length)
    source, target = TensorView(x_in_sb), TensorView(x_out_sb)
    for rows in TiledRange(batch, _BANK // (length * group)):
        for positions in TiledRange(sequence, length):
            for part in TiledRange(heads, group):
                _rotate(
                    _part(target, rows, part, positions).get_view(),
                    _part(source, rows, part, positions).get_view(),
                    exchange,
                    _at(cosines, rows, positions),
                    _at(sines, rows, positions),
                )
    return x_out_sb


def _check(x, cos, sin):
    kernel_assert(len(x.shape) == 4, f"x_in is [d_head, B, n_heads, S], got shape {x.shape}")
    d_head, batch, heads, sequence = x.shape
    kernel_assert(d_head in HEAD_DIMENSIONS, f"d_head is 64 or 128, got {d_head}")
    expected = (d_head // 2, batch, sequence)
    kernel_assert(tuple(cos.shape) == expected, f"cos is [d_head // 2, B, S] = {expected}, got {cos.shape}")
    kernel_assert(tuple(sin.shape) == expected, f"sin is [d_head // 2, B, S] = {expected}, got {sin.shape}")
    return d_head, batch, heads, sequence


# --- parts of tensors


def _share(view, dim: int, count: int, program: int):
    """The part of a dimension that is a program's."""
    size = view.shape[dim] // count
    return view.slice(dim, program * size, (program + 1) * size)


def _part(view, rows, heads, positions):
    """Some rows, heads and positions of [d_head, B, n_heads, S]."""
    view = view.slice(1, rows.start_offset, rows.end_offset)
    view = view.slice(2, heads.start_offset, heads.end_offset)
    return view.slice(3, positions.start_offset, positions.end_offset)


def _at(angles, rows, positions):
    """Some rows and positions of [d_head, B, S]."""
    view = TensorView(angles).slice(1, rows.start_offset, rows.end_offset)
    return view.slice(2, positions.start_offset, positions.end_offset).get_view()


def _load(dst, view) -> None:
    """A DMA whose descriptors are made before the kernel runs."""
    nisa.dma_copy(dst=dst, src=view.get_view(), dge_mode=nisa.dge_mode.none)


# --- angles


def _angles(view, rows, positions, contiguous: bool):
    """Cosines or sines [d_head // 2, B, S] of HBM for both elements of each pair."""
    half = view.shape[0]
    view = view.slice(1, rows.start_offset, rows.end_offset)
    view = view.slice(2, positions.start_offset, positions.end_offset)
    tile = nl.ndarray((2 * half, rows.size, positions.size), dtype=view.dtype, buffer=nl.sbuf)
    place = 0 if contiguous else 1
    _load(tile, view.expand_dim(place).broadcast(place, 2))
    return tile


def _angles_on_chip(angles, contiguous: bool):
    """The same of SBUF, copied by the tensor engine."""
    half, batch, sequence = angles.shape
    copies = nl.ndarray((half, 2 * half), dtype=angles.dtype, buffer=nl.sbuf)
    identity = nl.shared_identity_matrix(half, dtype=angles.dtype)
    even, odd = _pairs(copies, contiguous)
    nisa.tensor_copy(dst=even, src=identity)
    nisa.tensor_copy(dst=odd, src=identity)
    tile = nl.ndarray((2 * half, batch, sequence), dtype=angles.dtype, buffer=nl.sbuf)
    source = TensorView(angles).flatten_dims(1, 2)
    flat = tile.reshape((2 * half, batch * sequence))
    for part in TiledRange(batch * sequence, _BANK):
        bank = nl.ndarray((2 * half, part.size), dtype=nl.float32, buffer=nl.psum)
        moving = source.slice(1, part.start_offset, part.end_offset).get_view()
        nisa.nc_matmul(dst=bank, stationary=copies, moving=moving)
        nisa.tensor_copy(dst=flat[:, part.start_offset : part.end_offset], src=bank)
    return tile


# --- rotation


def _pairs(matrix, contiguous: bool):
    """The columns of the even elements of [rows, d_head], and those of the odd ones."""
    view = TensorView(matrix)
    half = matrix.shape[1] // 2
    if contiguous:
        return view.slice(1, 0, half).get_view(), view.slice(1, half, 2 * half).get_view()
    return view.slice(1, 0, 2 * half, 2).get_view(), view.slice(1, 1, 2 * half, 2).get_view()


def _exchange(d_head: int, dtype, contiguous: bool):
    """Q, as the stationary matrix that has it for its transpose."""
    identity = nl.shared_identity_matrix(d_head, dtype=dtype)
    matrix = nl.ndarray((d_head, d_head), dtype=dtype, buffer=nl.sbuf)
    from_even, from_odd = _pairs(identity, contiguous)
    to_even, to_odd = _pairs(matrix, contiguous)
    nisa.tensor_scalar(dst=to_even, data=from_odd, op0=nl.multiply, operand0=-1.0)
    nisa.tensor_copy(dst=to_odd, src=from_even)
    return matrix


def _rotate(out, x, exchange, cosines, sines) -> None:
    """out = x * cosines + (exchange x) * sines, for [d_head, B, n_heads, S] and angles [d_head, B, S]."""
    d_head, batch, heads, sequence = x.shape
    kept = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(
        dst=kept, data1=x, data2=_over_heads(cosines, heads), op=nl.multiply, engine=nisa.gpsimd_engine
    )
    columns = batch * heads * sequence
    exchanged = nl.ndarray((d_head, columns), dtype=nl.float32, buffer=nl.psum)
    if columns <= _BANK:
        nisa.nc_matmul(dst=exchanged, stationary=exchange, moving=x)
    else:
        flat = x.reshape((d_head, columns))
        for bank in TiledRange(columns, _BANK):
            span = nl.ds(bank.start_offset, bank.size)
            nisa.nc_matmul(dst=exchanged[:, span], stationary=exchange, moving=flat[:, span])
    turned = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=turned, data1=exchanged, data2=_over_heads(sines, heads), op=nl.multiply)
    nisa.tensor_tensor(dst=out, data1=kept, data2=turned, op=nl.add)


def _over_heads(angles, heads: int):
    """[d_head, B, S] as [d_head, B, n_heads, S]."""
    return TensorView(angles).expand_dim(2).broadcast(2, heads).get_view()
