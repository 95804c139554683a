"""Depthwise convolution in one dimension, each channel with its own filter.

    out[n, c, q] = sum over s of filter[c, s] * x[n, c, q * stride + s - left]       x is 0 outside its row

Channels lie on the partitions. The product of a column of x with one filter value per channel is a matmul
with these values on the diagonal of the stationary matrix, and S of them, with x shifted by one column each,
accumulate in PSUM: no column of x is ever copied out of its row. Where a tile has few channels, r shifted
copies of x are stacked on the partitions, and one matmul takes r taps:

    X[j * C + c, u]    = x[c, u + j]                       0 <= j < r, r a divisor of S
    D_t[j * C + c, d]  = filter[c, t * r + j] if c == d else 0
    out[c, q]          = sum over t < S / r of D_t.T @ X[:, q * stride + t * r]

    DMA      x of up to 2048 results, shifted copies and all, in one transfer; the filters; results
    vector   the matrices D_t, 32 at a time: a mask times filter values, both repeated
    tensor   a matmul for each t and 512 results
    scalar   results from PSUM

The zeros of D_t multiply the other channels of the tile, so an infinite or NaN value of x makes NaN of them
too.

Few results of long filters (Q <= 32) are products of windows with the filter, summed on the vector engine.

SBUF per partition: x of 2048 results and its halo, 2 * (2048 * stride + S) bytes in 16 bits, 32 matrices of
256 bytes, results of 4 KiB, each about twice.
"""

from dataclasses import dataclass

import nki
import nki.isa as nisa
import nki.language as nl

from ...core.utils.kernel_assert import kernel_assert
from ...core.utils.kernel_helpers import get_verified_program_sharding_info
from ...core.utils.tiled_range import TiledRange

PARTITIONS = 128
MOST_COPIES = 16
BANK = 512  # results of a matmul
GROUP = 4 * BANK  # results that share the matrices: half of PSUM
MATRICES = 32
FEW_RESULTS = 32
PRODUCTS = 16384  # of windows and filters that a step holds, fp32


@nki.jit
def depthwise_conv1d_implicit_gemm(
    img_ref,
    filter_ref,
    padding=((0, 0), (0, 0)),
    stride=(1, 1),
    rhs_dilation=(1, 1),
    lhs_dilation=(1, 1),
    feature_group_count=1,
    batch_group_count=1,
    in_perm=None,
    kern_perm=None,
    out_perm=None,
):
    """Convolve every channel of `img_ref` with its filter (a correlation: filters are not turned around).

    Args:
        img_ref: [N, C, 1, W] in HBM; bf16, fp16 or fp32. C is a multiple of the number of programs.
        filter_ref: [C, 1, 1, S] in HBM, of the dtype of `img_ref`.
        padding: ((0, 0), (left, right)), columns of zeros.
        stride: (1, steps along W).
        rhs_dilation: (1, 1).
        lhs_dilation: (1, 1).
        feature_group_count: C.
        batch_group_count: 1.
        in_perm: not used.
        kern_perm: not used.
        out_perm: not used.

    Returns:
        [N, C, 1, Q] in HBM, Q = (W + left + right - S) // stride + 1, of the dtype of `img_ref`; sums are
        fp32.
    """
    conv = _checked(
        img_ref,
        filter_ref,
        padding,
        stride,
        rhs_dilation,
        lhs_dilation,
        feature_group_count,
        batch_group_count,
    )
    _, count, program = get_verified_program_sharding_info("depthwise_conv1d_implicit_gemm", (0, 1))
    kernel_assert(conv.channels % count == 0, f"C = {conv.channels} does not divide over {count} programs")
    out = nl.ndarray((conv.batch, conv.channels, 1, conv.results), dtype=img_ref.dtype, buffer=nl.shared_hbm)
    share = conv.channels // count
    for tile in TiledRange(share, PARTITIONS):
        first = program * share + tile.start_offset
        if conv.results <= FEW_RESULTS:
            _by_windows(conv, img_ref, filter_ref, out, first, tile.size)
        else:
            _by_matmuls(conv, img_ref, filter_ref, out, first, tile.size)
    return out


@dataclass
class _Conv(nl.NKIObject):
    """Sizes of a call: N, C, W, S, Q, columns of zeros on the left, step along W."""

    batch: int
    channels: int
    width: int
    taps: int
    results: int
    left: int
    step: int


def _checked(
    img_ref, filter_ref, padding, stride, rhs_dilation, lhs_dilation, feature_group_count, batch_group_count
):
    """Refuse what is not documented; return the sizes."""
    kernel_assert(
        len(img_ref.shape) == 4 and img_ref.shape[2] == 1, f"img_ref is [N, C, 1, W], got {img_ref.shape}"
    )
    batch, channels, _, width = img_ref.shape
    kernel_assert(
        len(filter_ref.shape) == 4 and tuple(filter_ref.shape[:3]) == (channels, 1, 1),
        f"filter_ref is [C, 1, 1, S] with C = {channels}, got {filter_ref.shape}",
    )
    kernel_assert(
        img_ref.dtype in (nl.bfloat16, nl.float16, nl.float32),
        f"img_ref is bfloat16, float16 or float32, got {img_ref.dtype}",
    )
    kernel_assert(
        img_ref.dtype == filter_ref.dtype,
        f"img_ref and filter_ref have one dtype, got {img_ref.dtype} and {filter_ref.dtype}",
    )
    kernel_assert(
        feature_group_count == channels, f"feature_group_count is C = {channels}, got {feature_group_count}"
    )
    kernel_assert(batch_group_count == 1, f"batch_group_count is 1, got {batch_group_count}")
    kernel_assert(tuple(rhs_dilation) == (1, 1), f"rhs_dilation is (1, 1), got {rhs_dilation}")
    kernel_assert(tuple(lhs_dilation) == (1, 1), f"lhs_dilation is (1, 1), got {lhs_dilation}")
    kernel_assert(stride[0] == 1 and stride[1] >= 1, f"stride is (1, 1 or more), got {stride}")
    kernel_assert(tuple(padding[0]) == (0, 0), f"padding[0], along the height, is (0, 0), got {padding[0]}")
    left, right = padding[1]
    kernel_assert(left >= 0 and right >= 0, f"padding[1] is not negative, got {padding[1]}")
    taps = filter_ref.shape[3]
    kernel_assert(
        taps <= width + left + right, f"S is at most W and its padding, {width + left + right}, got {taps}"
    )
    results = (width + left + right - taps) // stride[1] + 1
    return _Conv(batch, channels, width, taps, results, left, stride[1])


def _load_columns(conv, img_ref, image, first, channels, start, columns, copies):
    """[copies * channels, columns] in SBUF: row j * channels + c is a padded row of x from start + j on."""
    tile = nl.ndarray((copies * channels, columns), dtype=img_ref.dtype, buffer=nl.sbuf)
    row = (image * conv.channels + first) * conv.width
    begin = start - conv.left
    if begin >= 0 and begin + columns + copies - 1 <= conv.width:
        pattern = [[1, copies], [conv.width, channels], [1, columns]]
        nisa.dma_copy(dst=tile, src=img_ref.ap(pattern, offset=row + begin))
        return tile
    nisa.memset(dst=tile, value=0.0)
    for copy in range(copies):
        shift = begin + copy
        low = max(0, -shift)
        high = min(columns, conv.width - shift)
        if low < high:
            pattern = [[conv.width, channels], [1, high - low]]
            nisa.dma_copy(
                dst=tile[copy * channels : (copy + 1) * channels, low:high],
                src=img_ref.ap(pattern, offset=row + shift + low),
            )
    return tile


def _by_matmuls(conv, img_ref, filter_ref, out, first, channels):
    """All results of a tile of channels, on the tensor engine."""
    copies = _copies(conv.taps, channels)
    rows = copies * channels
    steps = conv.taps // copies
    mask = _stacked_identity(rows, channels, img_ref.dtype)
    taps = nl.ndarray((rows, steps), dtype=filter_ref.dtype, buffer=nl.sbuf)
    pattern = [[1, copies], [conv.taps, channels], [copies, steps]]
    nisa.dma_copy(dst=taps, src=filter_ref.ap(pattern, offset=first * conv.taps))
    for group in _groups(conv):
        tiles, sums = [], []
        for item in group:
            image, part = item
            columns = (part.size - 1) * conv.step + conv.taps - copies + 1
            start = part.start_offset * conv.step
            tiles.append(_load_columns(conv, img_ref, image, first, channels, start, columns, copies))
            sums.append(nl.ndarray((channels, part.size), dtype=nl.float32, buffer=nl.psum))
        for chunk in TiledRange(steps, MATRICES):
            matrices = nl.ndarray((rows, chunk.size, channels), dtype=img_ref.dtype, buffer=nl.sbuf)
            nisa.tensor_tensor(
                dst=matrices,
                data1=mask.ap([[channels, rows], [0, chunk.size], [1, channels]]),
                data2=taps.ap([[steps, rows], [1, chunk.size], [0, channels]], offset=chunk.start_offset),
                op=nl.multiply,
            )
            for index in range(chunk.size):
                shift = (chunk.start_offset + index) * copies
                for position in range(len(group)):
                    _matmul_step(conv, sums[position], matrices[:, index, :], tiles[position], shift)
        for position in range(len(group)):
            image, part = group[position]
            result = nl.ndarray((channels, part.size), dtype=out.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=result, src=sums[position], engine=nisa.engine.scalar)
            columns = nl.ds(part.start_offset, part.size)
            nisa.dma_copy(dst=out[image, first : first + channels, 0, columns], src=result)


def _copies(taps, channels):
    """Shifted copies of x that a tile of so many channels has room for, a divisor of S."""
    copies = min(PARTITIONS // channels, MOST_COPIES, taps)
    while taps % copies != 0:
        copies -= 1
    return copies


def _stacked_identity(rows, channels, dtype):
    """[rows, channels]: 1 where row % channels == column."""
    identity = nl.shared_identity_matrix(PARTITIONS, dtype=dtype)
    mask = nl.ndarray((rows, channels), dtype=dtype, buffer=nl.sbuf)
    blocks = identity.ap([[PARTITIONS, rows], [1, channels], [channels, rows // channels]])
    nisa.tensor_reduce(dst=mask, op=nl.add, data=blocks, axis=2)
    return mask


def _groups(conv):
    """(image, results) of all images, in groups of at most GROUP results that start at banks of PSUM."""
    groups, group, banks = [], [], 0
    for image in range(conv.batch):
        for part in TiledRange(conv.results, GROUP):
            needed = (part.size + BANK - 1) // BANK
            if banks + needed > GROUP // BANK:
                groups.append(group)
                group, banks = [], 0
            group.append((image, part))
            banks += needed
    groups.append(group)
    return groups


def _matmul_step(conv, sums, matrix, tile, shift):
    """sums += matrix.T @ the columns of `tile` from `shift` on, every step-th."""
    rows, columns = tile.shape
    for bank in TiledRange(sums.shape[1], BANK):
        moving = tile.ap(
            [[columns, rows], [conv.step, bank.size]], offset=bank.start_offset * conv.step + shift
        )
        nisa.nc_matmul(dst=sums[:, nl.ds(bank.start_offset, bank.size)], stationary=matrix, moving=moving)


def _by_windows(conv, img_ref, filter_ref, out, first, channels):
    """All results of a tile of channels, each the sum of a window times the filter."""
    taps = nl.ndarray((channels, conv.taps), dtype=filter_ref.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=taps, src=filter_ref[first : first + channels, 0, 0, :])
    columns = (conv.results - 1) * conv.step + conv.taps
    for image in range(conv.batch):
        x = _load_columns(conv, img_ref, image, first, channels, 0, columns, 1)
        sums = nl.ndarray((channels, conv.results), dtype=nl.float32, buffer=nl.sbuf)
        for part in TiledRange(conv.results, max(PRODUCTS // conv.taps, 1)):
            products = nl.ndarray((channels, part.size, conv.taps), dtype=nl.float32, buffer=nl.sbuf)
            windows = x.ap(
                [[columns, channels], [conv.step, part.size], [1, conv.taps]],
                offset=part.start_offset * conv.step,
            )
            repeated = taps.ap([[conv.taps, channels], [0, part.size], [1, conv.taps]])
            nisa.tensor_tensor(dst=products, data1=windows, data2=repeated, op=nl.multiply)
            nisa.tensor_reduce(
                dst=sums[:, nl.ds(part.start_offset, part.size)], op=nl.add, data=products, axis=2
            )
        result = nl.ndarray((channels, conv.results), dtype=out.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(dst=result, src=sums)
        nisa.dma_copy(dst=out[image, first : first + channels, 0, :], src=result)
