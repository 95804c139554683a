"""Where the elements of x and w lie: the layouts of the router, and their loads.

In HBM x is [H, T] or [T, H]. In SBUF the hidden dimension is spread over the 128 partitions, H/128 elements
in each; element j of partition p is

    layout 0, [128, T, H/128]   h = p * H/128 + j
    layout 1, [128, T, H/128]   h = half * H/2 + p * H/256 + i,   j = half * H/256 + i
    layout 2, [128, T, H/128]   h = j * 128 + p
    layout 3, [128, H/128, T]   h = j * 128 + p

A matmul contracts over p, and H/128 of them over j, so w takes the layout of x.
"""

import nki.isa as nisa
import nki.language as nl

from ..utils.kernel_assert import kernel_assert
from ..utils.kernel_helpers import div_ceil
from ..utils.tiled_range import TiledRange

XHBMLayout_H_T__0 = 0
XHBMLayout_T_H__1 = 1

XSBLayout_tp102__0 = 0
XSBLayout_tp2013__1 = 1
XSBLayout_tp201__2 = 2
XSBLayout__128_Hdiv128_T__3 = 3

PARTITIONS = 128
PSUM_BANK_BYTES = 2048
# Up to so many tokens, a load in short runs takes less time than transposes on the tensor engine.
FEW_TOKENS = 8


def router_topk_input_x_load(x, hbm_layout=XHBMLayout_H_T__0, sb_layout=XSBLayout_tp2013__1):
    """Load x into SBUF.

    Args:
        x: [H, T] for `hbm_layout` 0, [T, H] for 1; in HBM, H a multiple of 128.
        hbm_layout: 0 or 1.
        sb_layout: 3 for `hbm_layout` 0; 0, 1 or 2 for 1.

    Returns:
        [128, T, H/128], or [128, H/128, T] for layout 3, in SBUF.
    """
    kernel_assert(
        (hbm_layout, sb_layout) in ((0, 3), (1, 0), (1, 1), (1, 2)),
        f"hbm_layout and sb_layout are 0 and 3, or 1 and 0, 1 or 2, got {hbm_layout} and {sb_layout}",
    )
    if hbm_layout == XHBMLayout_H_T__0:
        hidden, tokens = x.shape
        steps = _steps(hidden)
        tile = nl.ndarray((PARTITIONS, steps, tokens), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x.ap([[tokens, PARTITIONS], [PARTITIONS * tokens, steps], [1, tokens]]))
        return tile
    tokens, hidden = x.shape
    steps = _steps(hidden)
    tile = nl.ndarray((PARTITIONS, tokens, steps), dtype=x.dtype, buffer=nl.sbuf)
    if tokens <= FEW_TOKENS and sb_layout != XSBLayout_tp201__2:
        partition, free = hidden_strides(hidden, sb_layout)
        nisa.dma_copy(dst=tile, src=x.ap([[partition, PARTITIONS], [hidden, tokens]] + free))
        return tile
    for part in TiledRange(tokens, PARTITIONS):
        rows = nl.ndarray((part.size, hidden), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=rows, src=x[nl.ds(part.start_offset, part.size)])
        transpose_rows(
            rows,
            tile.ap(
                [[tokens * steps, PARTITIONS], [1, steps], [steps, part.size]],
                offset=part.start_offset * steps,
            ),
            sb_layout,
        )
    return tile


def router_topk_input_w_load(w, x_sb_layout, name=""):
    """Load w into SBUF to go with x.

    Args:
        w: [H, E] in HBM, H a multiple of 128.
        x_sb_layout: the layout of x in SBUF.
        name: of the tensor.

    Returns:
        [128, H/128, E] in SBUF.
    """
    hidden, experts = w.shape
    steps = _steps(hidden)
    partition, free = hidden_strides(hidden, x_sb_layout)
    pattern = [[partition * experts, PARTITIONS]]
    for pair in free:
        pattern.append([pair[0] * experts, pair[1]])
    pattern.append([1, experts])
    tile = nl.ndarray(
        (PARTITIONS, steps, experts), dtype=w.dtype, buffer=nl.sbuf, name=name if name else None
    )
    nisa.dma_copy(dst=tile, src=w.ap(pattern))
    return tile


def hidden_strides(hidden, sb_layout):
    """How h grows with the partition, and the [stride, count] pairs that make up j, for a layout."""
    steps = _steps(hidden)
    kernel_assert(sb_layout in (0, 1, 2, 3), f"x_sb_layout is 0, 1, 2 or 3, got {sb_layout}")
    if sb_layout == XSBLayout_tp102__0:
        return steps, [[1, steps]]
    if sb_layout == XSBLayout_tp2013__1:
        kernel_assert(steps % 2 == 0, f"H is a multiple of 256 for x_sb_layout 1, got {hidden}")
        return steps // 2, [[hidden // 2, 2], [1, steps // 2]]
    return 1, [[PARTITIONS, steps]]


def transpose_rows(rows, dst, sb_layout):
    """Transpose `rows` [tokens, H] in SBUF to `dst`, a view [128, H/128, tokens], on the tensor engine."""
    tokens, hidden = rows.shape
    partition, free = hidden_strides(hidden, sb_layout)
    outer, inner = free[0], free[-1]
    pitch = div_ceil(tokens, 2) * 2  # rows of PSUM start at multiples of 4 bytes
    in_bank = PSUM_BANK_BYTES // (pitch * bytes_of(rows.dtype))
    for part in TiledRange(hidden // PARTITIONS, in_bank):
        padded = nl.ndarray((PARTITIONS, part.size, pitch), dtype=rows.dtype, buffer=nl.psum)
        moved = padded[:, :, nl.ds(0, tokens)]
        for index in range(part.size):
            step = part.start_offset + index
            start = step // inner[1] * outer[0] + step % inner[1] * inner[0]
            columns = rows.ap([[hidden, tokens], [partition, PARTITIONS]], offset=start)
            nisa.nc_transpose(dst=moved[:, index, :], data=columns)
        engine = nisa.engine.vector if part.index % 2 == 0 else nisa.engine.scalar
        nisa.tensor_copy(dst=dst[:, nl.ds(part.start_offset, part.size), :], src=moved, engine=engine)


def _steps(hidden):
    kernel_assert(hidden % PARTITIONS == 0, f"H is a multiple of {PARTITIONS}, got {hidden}")
    return hidden // PARTITIONS


def bytes_of(dtype):
    """Bytes of an element of x."""
    return 4 if dtype == nl.float32 else 2
