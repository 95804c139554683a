"""MLP for context encoding.

With hundreds of tokens the tensor engine decides the time; the kernel keeps it streaming
(docs/library/how-mlp-got-fast.md walks there in five steps). Two cores share the tokens (few tokens: the
weights). A core works on blocks of up to 512 tokens, and reads all weights for each:

| step | engine | layout |
|---|---|---|
| load rows of hidden (and residual) in pieces, add | DMA, vector | [128 tokens, 1024] |
| turn 128 columns: H along the partitions | tensor; vector, times the norm's weights | x [128, H/128, 512] |
| sums of squares for RMSNorm | scalar, beside | [128 tokens, 1] |
| gate, then up, 512 columns at a time | tensor: tokens stationary | PSUM [128 tokens, 512] x 4 |
| activation with the token's scale; times up | scalar; vector | inter [128 tokens, I] |
| turn inter: I along the partitions | tensor, vector | [128, I/128, 512] |
| down, 512 columns at a time | tensor; PSUM is emptied by scalar and vector in turns | y [128 tokens, 2048] |

Turning is interleaved with the first products, three blocks ahead, so that the tensor engine never waits
for it. SBUF per partition: x of one block H * 8 bytes (64 KiB at H = 8192), inter 16 I bytes, and a ring of
weight chunks of up to 8 KiB and row pieces of 2 KiB in the rest.

Quantized (float8_e4m3) hidden: pairs of fp8 elements are turned as 16-bit elements, and the products contract
two rows in each row of the array (double row), at twice the rate; inter is quantized by rows, or statically.
"""

import nki.isa as nisa
import nki.language as nl

from ...utils.common_types import NormType, QuantizationType
from ...utils.kernel_assert import kernel_assert
from ..mlp_parameters import PARTITIONS, MlpArguments
from .projections import (
    ColumnVector,
    Finish,
    TurnedIntermediate,
    down,
    gate_up,
    quantize_rows,
)
from .rows import NormVectors, TurnedRows, layer_norm_statistics
from .sharding import divide, token_blocks


def mlp_cte(a: MlpArguments):
    """The context-encoding path of :func:`nkilib.core.mlp.mlp.mlp`; returns what it returns."""
    _check(a)
    part = divide(a)
    y = nl.ndarray(a.hidden.shape[0:2] + (a.hidden_size,), dtype=a.output_dtype, buffer=nl.shared_hbm)
    rows_of_y = y.reshape((a.tokens, a.hidden_size))
    stored = nl.ndarray(a.hidden.shape, dtype=a.dtype, buffer=nl.shared_hbm) if a.store_fused_add else None
    mine = stored if not part.shares_weights or a.program == 0 else None  # both would store the same
    has_stored = a.norm_type == NormType.LAYER_NORM  # by its statistics

    norm = NormVectors(a)
    gate_finish = _finish(a, a.gate, a.gate_up_in_scale)
    up_finish = _finish(a, a.up, a.gate_up_in_scale)
    down_finish = _finish(a, a.down, a.down_in_scale)
    down_in_scale = _load_column(a.down_in_scale) if a.quantization_type == QuantizationType.STATIC else None

    blocks = token_blocks(part.tokens, a.hidden_size)
    statistics = layer_norm_statistics(a, blocks[0], norm, mine)
    for index in range(len(blocks)):
        tiles = blocks[index]
        rows = TurnedRows(a, tiles, norm, None if has_stored else mine, statistics)
        results = gate_up(a, rows, part.intermediate, gate_finish, up_finish)
        inter = TurnedIntermediate(a, tiles, part.shares_weights)
        scales = []
        for k in range(len(tiles)):
            scale = None
            values = results[k]
            if a.hidden_is_quantized:
                values, scale = quantize_rows(values, a.clipping_bound, down_in_scale)
                if a.quantization_type == QuantizationType.STATIC:
                    scale = None  # part of the finish of the down projection
            inter.turn(values, part.intermediate, k)
            scales.append(scale)
        if part.shares_weights:
            _exchange(a, inter)
        if index + 1 < len(blocks):
            statistics = layer_norm_statistics(a, blocks[index + 1], norm, mine)
        down(a, inter, scales, part.hidden, down_finish, rows_of_y)
    if a.store_fused_add:
        return [y, stored]
    return [y]


def _check(a):
    kernel_assert(
        not a.hidden_in_sbuf and not a.output_in_sbuf,
        "with more than 96 tokens (or force_cte_mode) hidden_tensor and the result are in HBM, got SBUF",
    )
    kernel_assert(not a.skip_gate, "skip_gate_proj is for token generation (up to 96 tokens), got True")
    kernel_assert(
        not a.down_optimized_layout,
        "use_tkg_down_proj_optimized_layout is for token generation (up to 96 tokens), got True",
    )
    for projection in (a.gate, a.up):
        kernel_assert(
            projection.clamp_upper is None and projection.clamp_lower is None,
            "clamp limits are for token generation (up to 96 tokens), got "
            f"{projection.clamp_lower} to {projection.clamp_upper}",
        )
    if a.quantization_type == QuantizationType.NONE:
        return
    kernel_assert(
        a.hidden_is_quantized,
        "context encoding with a quantization_type takes hidden_tensor in float8_e4m3 (see rmsnorm_quant), "
        f"got {a.hidden.dtype}",
    )
    size = 2 * PARTITIONS
    kernel_assert(
        a.hidden_size % size == 0, f"quantized, H must be a multiple of {size}, got {a.hidden_size}"
    )
    kernel_assert(a.intermediate_size % 2 == 0, f"quantized, I must be even, got {a.intermediate_size}")
    kernel_assert(a.down.bias is None, "down_proj_bias_tensor is not taken with quantized context encoding")


def _finish(a, projection, in_scale):
    bias = ColumnVector(projection.bias) if projection.bias is not None else None
    if a.quantization_type == QuantizationType.ROW:
        return Finish(column_scale=ColumnVector(projection.scale), bias=bias)
    if a.quantization_type == QuantizationType.STATIC:
        both = _load_column(projection.scale)
        nisa.tensor_tensor(dst=both, data1=both, data2=_load_column(in_scale), op=nl.multiply)
        return Finish(static_scale=both, bias=bias)
    return Finish(bias=bias)


def _load_column(tensor):
    column = nl.ndarray((PARTITIONS, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=column, src=tensor)
    return column


def _exchange(a, inter):
    """Give this core's half of the blocks of the intermediate to the other core and take the other's."""
    half = inter.x.shape[1] // 2
    other = 1 - a.program
    nisa.sendrecv(
        src=inter.x[:, nl.ds(a.program * half, half), :],
        dst=inter.x[:, nl.ds(other * half, half), :],
        send_to_rank=other,
        recv_from_rank=other,
        pipe_id=0,
    )
