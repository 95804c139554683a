"""MLP for token generation.

Up to 96 tokens every weight is read from HBM once and multiplies at most 96 columns: the kernel is as fast as
the DMA engines bring the weights, and everything else is arranged to happen meanwhile.

| step | engine | layout |
|---|---|---|
| load hidden (and residual), turn, normalize | DMA; tensor; scalar, vector | x [128, H/128, T] |
| gate and up projection | tensor; :mod:`.contraction` has both orders of operands | fp32 [128, I/128, T] |
| with two cores: each has half of H; their sums are added | DMA (sendrecv), vector | the same |
| scale, bias, clamp, activation, gate * up | vector, scalar | inter [128, I/128, T] |
| down projection, each core half of the columns | tensor; scalar, vector empty PSUM | y [T, H], or turned |

All loads of weights are triggered at the start, in the order of their use, in descriptors of about 8 KiB
which all DMA engines share: HBM is read without a pause from the first byte to the last. Of small loads
there are two before them, hidden and the weights of the norm; matrices of ones and zeros are made in SBUF.
The sums of two cores are exchanged while the weights of the next projection arrive; the tensor engine makes
up for it, since groups of its columns work beside each other in every product.

SBUF holds x, the intermediate results and the result: for T tokens about T * (H + 4 I) / 32 bytes per
partition (28 KiB for T = 64, H = 8192, I = 896); all the rest is a ring of weight tiles of 2 to 16 KiB, so
that loads run ahead of the products and the weights of the down projection arrive while the activation is
computed.
"""

import nki.isa as nisa
import nki.language as nl

from ...utils.common_types import QuantizationType
from ...utils.kernel_assert import kernel_assert
from ...utils.kernel_helpers import div_ceil
from ...utils.projection import BANK, load_aside
from ...utils.tensor_view import TensorView
from ..mlp_parameters import PARTITIONS, MlpArguments
from .contraction import ColumnTiling, column_group
from .down import TokenRows, project_down_by_token, project_down_by_weight
from .gate_up import activate, add_part, exchange, finish_projection, load_by_column, project_hidden
from .hidden import load_hidden

PSUM_BANKS = 8


def mlp_tkg(a: MlpArguments):
    """The token-generation path of :func:`nkilib.core.mlp.mlp.mlp`; returns what it returns."""
    _check(a)
    hidden, stored_sum = load_hidden(a, column_group(a.tokens) if a.gate_up_column_tiling else a.tokens)
    inter = _gate_up(a, hidden)
    y = _down_by_token(a, inter) if a.down_column_tiling else _down_by_weight(a, inter)
    if a.store_fused_add:
        return [y, stored_sum]
    return [y]


def _check(a):
    blocks = a.hidden_size // PARTITIONS
    kernel_assert(
        blocks % a.programs == 0,
        f"H / 128 = {blocks} must divide over {a.programs} cores; H is {a.hidden_size}",
    )
    kernel_assert(
        not a.hidden_is_quantized,
        "with up to 96 tokens hidden_tensor is bfloat16 or float16, got float8_e4m3; quantized activations "
        "take force_cte_mode",
    )
    kernel_assert(
        not (a.down_optimized_layout and a.down_column_tiling),
        "use_tkg_down_proj_optimized_layout is for use_tkg_down_proj_column_tiling=False, got True",
    )
    if not a.down_column_tiling:
        banks = div_ceil(blocks // a.programs, BANK // a.tokens)
        kernel_assert(
            banks <= PSUM_BANKS,
            f"without use_tkg_down_proj_column_tiling the down projection of {a.tokens} tokens and H = "
            f"{a.hidden_size} on {a.programs} cores needs {banks} PSUM banks, there are {PSUM_BANKS}",
        )


def _gate_up(a, hidden):
    """The input of the down projection, [128, ceil(I / 128), T] in SBUF, on every core alike."""
    rows = a.hidden_size // a.programs
    mine = nl.ds(a.program * rows, rows)
    projections = [a.up] if a.skip_gate else [a.gate, a.up]
    tiling = ColumnTiling(hidden.x, a.tokens) if a.gate_up_column_tiling else None
    values = []
    others = []
    for projection in projections:
        part = project_hidden(hidden, a.tokens, projection.weights[mine, :], tiling)
        values.append(part)
        if a.programs > 1:  # of gate while the weights of up arrive
            others.append(exchange(part, a.program))
    for q in range(len(projections)):
        projection, part = projections[q], values[q]
        if a.programs > 1:
            add_part(part, others[q])
        scale = None
        if a.quantization_type == QuantizationType.ROW:
            scale = load_by_column(projection.scale[0:1, :])
        elif a.quantization_type == QuantizationType.STATIC:
            scale = _load(projection.scale)
        bias = load_by_column(projection.bias) if projection.bias is not None else None
        finish_projection(part, scale, bias, projection.clamp_upper, projection.clamp_lower)
    gate = None if a.skip_gate else values[0]
    return activate(gate, values[len(values) - 1], a.activation_fn, a.dtype)


def _load(tensor):
    tile = nl.ndarray(tensor.shape, dtype=tensor.dtype, buffer=nl.sbuf)
    load_aside(tile, tensor)
    return tile


def _down_by_token(a, inter):
    """The result as rows of tokens."""
    width = a.hidden_size // a.programs
    mine = nl.ds(a.program * width, width)
    scale = None
    if a.quantization_type == QuantizationType.STATIC:
        scale = _load(a.down.scale)[nl.ds(0, a.tokens), :]
    elif a.quantization_type == QuantizationType.ROW:
        scale = _load(a.down.scale[nl.ds(0, a.tokens), mine])
    bias = None
    if a.down.bias is not None:
        bias = nl.ndarray((a.tokens, width), dtype=a.down.bias.dtype, buffer=nl.sbuf)
        first = a.down.bias[:, mine]
        load_aside(bias, first.ap([[0, a.tokens], [1, width]]))
    part = nl.ndarray((a.tokens, width), dtype=a.output_dtype, buffer=nl.sbuf)
    y, stored = None, None
    if not a.output_in_sbuf:
        y = nl.ndarray(_rows_of_hbm(a), dtype=a.output_dtype, buffer=nl.shared_hbm)
        stored = y.reshape((a.tokens, a.hidden_size))[:, mine]
    rows = TokenRows(part, scale, bias, stored)
    project_down_by_token(inter, a.intermediate_size, a.down.weights[:, mine], rows)
    if not a.output_in_sbuf:
        return y
    if a.programs == 1:
        return part
    y = nl.ndarray((a.tokens, a.hidden_size), dtype=a.output_dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=y[:, mine], src=part)
    theirs = nl.ds((1 - a.program) * width, width)
    nisa.sendrecv(
        src=part, dst=y[:, theirs], send_to_rank=1 - a.program, recv_from_rank=1 - a.program, pipe_id=0
    )
    return y


def _down_by_weight(a, inter):
    """The result with H along the partitions, [p, j, t] for h = p * blocks + j of this core's part of H."""
    width = a.hidden_size // a.programs
    blocks = width // PARTITIONS
    mine = nl.ds(a.program * width, width)
    sums = nl.ndarray((PARTITIONS, blocks, a.tokens), dtype=nl.float32, buffer=nl.sbuf)
    weights = TensorView(a.down.weights).slice(1, a.program * width, (a.program + 1) * width)
    project_down_by_weight(sums, inter, a.intermediate_size, weights, strided=not a.down_optimized_layout)
    scale = None
    if a.quantization_type == QuantizationType.STATIC:
        scale = _load(a.down.scale)
    elif a.quantization_type == QuantizationType.ROW:
        scale = _load(a.down.scale[0:1, mine].reshape((PARTITIONS, blocks)))
    bias = _load(a.down.bias[:, mine].reshape((PARTITIONS, blocks))) if a.down.bias is not None else None
    finish_projection(sums, scale, bias, None, None)
    if a.output_in_sbuf:
        y = nl.ndarray(
            (PARTITIONS, a.hidden_size // PARTITIONS, a.tokens), dtype=a.output_dtype, buffer=nl.sbuf
        )
        here = y[:, nl.ds(a.program * blocks, blocks), :]
        nisa.tensor_copy(dst=here, src=sums)
        if a.programs > 1:
            there = y[:, nl.ds((1 - a.program) * blocks, blocks), :]
            nisa.sendrecv(
                src=here, dst=there, send_to_rank=1 - a.program, recv_from_rank=1 - a.program, pipe_id=0
            )
        return y
    y = nl.ndarray(_rows_of_hbm(a), dtype=a.output_dtype, buffer=nl.shared_hbm)
    rows = nl.ndarray((PARTITIONS, a.tokens, blocks), dtype=a.output_dtype, buffer=nl.sbuf)
    by_block = rows.ap([[a.tokens * blocks, PARTITIONS], [1, blocks], [blocks, a.tokens]])
    nisa.tensor_copy(dst=by_block, src=sums)
    target = y.reshape((a.tokens, a.hidden_size))[:, mine]
    nisa.dma_copy(dst=target.ap([[blocks, PARTITIONS], [a.hidden_size, a.tokens], [1, blocks]]), src=rows)
    return y


def _rows_of_hbm(a):
    """The shape of the result in HBM."""
    if a.hidden_in_sbuf:
        return (a.tokens, a.hidden_size)
    return a.hidden.shape
