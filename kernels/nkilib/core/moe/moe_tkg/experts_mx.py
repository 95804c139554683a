"""Mixture of experts for token generation, with MX weights (MXFP4 or MXFP8), on NeuronCore-v4.

An MX product contracts 512 rows: 128 partitions of four elements, with a power of two for each 8 partitions
by 4 elements. Hidden and the input of the down projection are quantized here to MXFP8.

* Row h = q * (H / 4) + n * 128 + p of H is element q of partition p in contraction n.
* Column i = n * 512 + c * 128 + p of I becomes element c of partition p in contraction n of the down
  projection, which is where the products of gate and up are written. (A last n of r < 512 columns:
  i = n * 512 + c * r / 4 + p.)

| step | engine | layout |
|---|---|---|
| hidden turned, quantized | DMA, tensor, vector | [128, H/512, T] x4 |
| gate and up projection of an expert | tensor, weights stationary | fp32 [128, 4, 128], of 512 columns |
| bias, clamp, activation, gate * up | vector, scalar | [128, I/512, T, 4], quantized [128, I/512, T] x4 |
| down projection times affinity, added up | tensor, weights stationary; vector | fp32 [128, T, H/128] |
| result turned to rows of tokens | tensor | [T, H] |

The bias of the down projection is one more row of it, whose input is 1. For selected experts, each of which
is used for one token, the biases of all experts times affinities are one product, with which the sums begin.

All experts: two cores share the experts. Selected experts: two cores share the choices of each token. Both
exchange half of their sums at the end, the half of the other core first, while the own one is computed.
Scales lie in the first four partitions of each 32, as the products read them.

SBUF per partition, in bytes: hidden H T / 100, sums H T / 32, and rings of weights: 4 I H / 512 and 2 I H /
256 for MXFP4.
"""

import nki.isa as nisa
import nki.language as nl

from ...mlp.mlp_tkg.down import project_down_by_weight
from ...mlp.mlp_tkg.gate_up import along_tokens, finish_projection
from ...utils.kernel_helpers import div_ceil, get_nl_act_fn_from_type
from ...utils.tensor_view import TensorView
from ...utils.tiled_range import TiledRange
from .affinities import by_expert_rows, in_all_partitions, load_rank, local_affinities, selected_affinities
from .experts import Unit, shares_of_experts
from .moe_parameters import MX_ROWS, PARTITIONS, MoeArguments

QUADRANT = 32
UNIT_SCALE = 127  # the exponent of 1
UNIT_SCALES = 0x7F7F7F7F  # four of them
TOKENS = 128  # worked on at a time
BANK = 512
TURNS = 8  # transposes of the result that one DMA stores
DOWN_COLUMNS = 1024  # of down weights that one DMA brings


def moe_experts_mx(a: MoeArguments):
    """:func:`.moe_tkg.moe_tkg` with MX weights."""
    x, x_scale = _quantized_hidden(a)
    identity = nl.shared_identity_matrix(PARTITIONS, dtype=nl.float32)
    blocks = a.hidden_size // PARTITIONS // a.programs
    shape = (PARTITIONS, a.programs, a.tokens, blocks)  # the exchanged half is contiguous
    sums = nl.ndarray(shape, dtype=nl.float32, buffer=nl.sbuf)
    units = _all_units(a) if a.is_all_expert else _selected_units(a)
    if len(units) == 0:
        nisa.memset(dst=sums, value=0.0)
    elif a.is_all_expert:
        _begin_all(a, units, identity)
    else:
        _begin_selected(a, units, identity, sums)
    previous = None
    begins = a.is_all_expert
    for unit in units:
        inter = _gate_up(a, x, x_scale, unit)
        if previous is not None:
            _down(a, previous, sums, begins)
            begins = False
        previous = (unit, inter[0], inter[1])
    if previous is not None:
        _down(a, previous, sums, begins)
    return _store(a, sums)


# --- who does what


def _all_units(a):
    units = []
    for share in shares_of_experts(a, MX_ROWS):
        units.append(Unit(share.expert, share.start, share.size, 0, a.tokens, None))
    return units


def _begin_all(a, units, identity):
    """Affinities of the units."""
    first, last = units[0].expert, units[len(units) - 1].expert + 1
    affinities = nl.ndarray((PARTITIONS, last - first, a.tokens), dtype=nl.float32, buffer=nl.sbuf)
    rank = load_rank(a)
    for tile in TiledRange(a.tokens, TOKENS):
        local = local_affinities(a, rank, tile.start_offset, tile.size)
        everywhere = in_all_partitions(local[:, nl.ds(first, last - first)], identity)
        nisa.tensor_copy(dst=affinities[:, :, nl.ds(tile.start_offset, tile.size)], src=everywhere)
    for unit in units:
        unit.affinity = affinities[:, unit.expert - first, :]


def _selected_units(a):
    choices = nl.ndarray((1, a.tokens * a.top_k), dtype=a.index.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=choices, src=a.index.reshape((1, a.tokens * a.top_k)))
    share = a.top_k // a.programs
    units = []
    for token in range(a.tokens):
        for k in range(a.program * share, (a.program + 1) * share):
            expert = choices[:, nl.ds(token * a.top_k + k, 1)]
            units.append(Unit(expert, 0, a.intermediate_size, token, 1, k))
    return units


def _begin_selected(a, units, identity, sums):
    """Affinities of the units (so far the number of the choice); sums of biases times affinities, or 0."""
    by_choice, by_expert = selected_affinities(a)
    affinities = in_all_partitions(by_choice, identity)
    if by_expert is None or a.program > 0:
        nisa.memset(dst=sums, value=0.0)
    else:
        rows = by_expert_rows(by_expert, a.down_bias.dtype)
        size = a.hidden_size // a.programs
        for part in range(a.programs):
            by_block = TensorView(sums[:, part, :, :]).permute((0, 2, 1)).get_view()
            columns = TensorView(a.down_bias).slice(1, part * size, (part + 1) * size)
            project_down_by_weight(by_block, rows, a.experts, columns, strided=False)
    for unit in units:
        unit.affinity = affinities[:, unit.affinity, nl.ds(unit.first_token, 1)]


# --- hidden


def _quantized_hidden(a):
    """([128, H / 512, T] of float8_e4m3fn_x4, scales [128, H / 512, T]) in SBUF."""
    if a.hidden_scale is not None:
        return a.hidden, a.hidden_scale
    tiles = a.hidden_size // MX_ROWS
    x = nl.ndarray((PARTITIONS, tiles, a.tokens, 4), dtype=a.dtype, buffer=nl.sbuf)
    rows = a.hidden.reshape((a.tokens, a.hidden_size))
    for tile in TiledRange(a.tokens, TOKENS):
        here = nl.ds(tile.start_offset, tile.size)
        loaded = nl.ndarray((tile.size, a.hidden_size), dtype=a.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=loaded, src=rows[here, :])
        for q in range(4):
            for group in TiledRange(tiles, 2 * BANK // TOKENS):
                turned = nl.ndarray((PARTITIONS, group.size, tile.size), dtype=a.dtype, buffer=nl.psum)
                for n in range(group.size):
                    first = (q * tiles + group.start_offset + n) * PARTITIONS
                    nisa.nc_transpose(dst=turned[:, n, :], data=loaded[:, nl.ds(first, PARTITIONS)])
                target = x[:, nl.ds(group.start_offset, group.size), here, q]
                engine = nisa.engine.scalar if q % 2 else nisa.engine.vector
                nisa.tensor_copy(dst=target, src=turned, engine=engine)
    return _quantize(x)


def _quantize(values):
    """values [P, N, T, 4] as MXFP8: ([P, N, T] x4, scales [P, N, T]); P a multiple of 32."""
    partitions, count, tokens = values.shape[0], values.shape[1], values.shape[2]
    data = nl.ndarray((partitions, count, tokens), dtype=nl.float8_e4m3fn_x4, buffer=nl.sbuf)
    scale = _scale_tile((partitions, count, tokens))
    nisa.quantize_mx(
        dst=data.reshape((partitions, count * tokens)),
        src=values.reshape((partitions, count * tokens * 4)),
        dst_scale=scale.reshape((partitions, count * tokens)),
    )
    return data, scale


def _scale_tile(shape):
    """A tile of scales, all written: products read every partition, and use four of each quadrant."""
    scale = nl.ndarray(shape, dtype=nl.uint8, buffer=nl.sbuf)
    if shape[len(shape) - 1] % 4 == 0:
        nisa.memset(dst=scale.view(nl.int32), value=UNIT_SCALES, engine=nisa.engine.gpsimd)
    else:
        nisa.memset(dst=scale, value=UNIT_SCALE, engine=nisa.engine.gpsimd)
    return scale


def _load_scales(scale, view):
    """Rows of scales, a row for 8 partitions of data, to the first four partitions of each quadrant."""
    for quadrant in TiledRange(view.shape[0], 4):
        nisa.dma_copy(
            dst=scale[nl.ds(quadrant.index * QUADRANT, quadrant.size)],
            src=view.slice(0, quadrant.start_offset, quadrant.end_offset).get_view(),
        )


# --- an expert


def _load_gate_up(a, unit):
    """Weights [128, 2, H / 512, size], their scales, and biases [P, 2, ceil(size / 512), 4] or None."""
    tiles = a.hidden_size // MX_ROWS
    end = unit.start + unit.size
    weights = nl.ndarray((PARTITIONS, 2, tiles, unit.size), dtype=a.gate_up_weights.dtype, buffer=nl.sbuf)
    scales = _scale_tile((PARTITIONS, 2, tiles, unit.size))
    view = TensorView(a.gate_up_weights).select(0, unit.expert).slice(3, unit.start, end)
    for q in range(2):
        nisa.dma_copy(dst=weights[:, q, :, :], src=view.slice(1, q, q + 1).squeeze_dim(1).get_view())
    _load_scales(scales, TensorView(a.gate_up_scale).select(0, unit.expert).slice(3, unit.start, end))
    spans = TiledRange(unit.size, MX_ROWS)
    rows = min(unit.size // 4, PARTITIONS)
    bias = None
    if a.gate_up_bias is not None:
        bias = nl.ndarray((rows, 2, len(spans), 4), dtype=a.gate_up_bias.dtype, buffer=nl.sbuf)
        first = unit.start // MX_ROWS
        part = TensorView(a.gate_up_bias).select(0, unit.expert).slice(0, 0, rows)
        part = part.slice(2, first, first + len(spans))
        nisa.dma_copy(dst=bias, src=part.get_view())
    return weights, scales, bias


def _gate_up(a, x, x_scale, unit):
    """gate * up of a unit, quantized: ([P, ceil(size / 512), tokens] x4, its scales)."""
    weights, scales, bias = _load_gate_up(a, unit)
    tiles = a.hidden_size // MX_ROWS
    spans = TiledRange(unit.size, MX_ROWS)
    rows = min(unit.size // 4, PARTITIONS)
    partitions = div_ceil(rows, QUADRANT) * QUADRANT
    inter = nl.ndarray((partitions, len(spans), unit.tokens, 4), dtype=nl.bfloat16, buffer=nl.sbuf)
    if unit.size % MX_ROWS != 0:
        nisa.memset(dst=inter, value=0.0)
    for span in spans:
        used = span.size // 4
        for tokens in TiledRange(unit.tokens, TOKENS):
            here = nl.ds(unit.first_token + tokens.start_offset, tokens.size)
            values = []
            for q in range(2):
                sums = nl.ndarray((PARTITIONS, 4, tokens.size), dtype=nl.float32, buffer=nl.psum)
                for c in range(4):
                    columns = nl.ds(span.start_offset + c * used, used)
                    for n in range(tiles):
                        nisa.nc_matmul_mx(
                            dst=sums[nl.ds(0, used), c, :],
                            stationary=weights[:, q, n, columns],
                            moving=x[:, n, here],
                            stationary_scale=scales[:, q, n, columns],
                            moving_scale=x_scale[:, n, here],
                        )
                value = nl.ndarray((used, 4, tokens.size), dtype=nl.float32, buffer=nl.sbuf)
                products = sums[nl.ds(0, used), :, :]
                if bias is None:
                    nisa.tensor_copy(dst=value, src=products, engine=nisa.engine.scalar)
                else:
                    column = along_tokens(bias[nl.ds(0, used), q, span.index, :], tokens.size)
                    nisa.tensor_tensor(dst=value, data1=products, data2=column, op=nl.add)
                upper, lower = (a.gate_upper, a.gate_lower) if q == 0 else (a.up_upper, a.up_lower)
                finish_projection(value, None, None, upper, lower)
                values.append(value)
            nisa.activation(dst=values[0], op=get_nl_act_fn_from_type(a.activation_fn), data=values[0])
            target = inter[nl.ds(0, used), span.index, nl.ds(tokens.start_offset, tokens.size), :]
            by_element = TensorView(target).permute((0, 2, 1)).get_view()
            nisa.tensor_tensor(dst=by_element, data1=values[0], data2=values[1], op=nl.multiply)
    return _quantize(inter)


def _down(a, done, sums, begins):
    """sums[p, t, j] += affinity[t] * column j * 128 + p of the down projection; the first unit writes."""
    unit, inter, inter_scale = done
    partitions, count = inter.shape[0], inter.shape[1]
    first = unit.start // MX_ROWS
    rows = min(unit.size // 4, PARTITIONS)
    view = TensorView(a.down_weights).select(0, unit.expert).slice(0, 0, rows)
    view = view.slice(1, first, first + count)
    view_of_scale = TensorView(a.down_scale).select(0, unit.expert).slice(0, 0, rows // 8)
    view_of_scale = view_of_scale.slice(1, first, first + count)
    bias, ones = None, None
    if a.is_all_expert and a.down_bias is not None and unit.start == 0:  # one core of those that share it
        bias = nl.ndarray((1, a.hidden_size), dtype=a.down_bias.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=bias, src=a.down_bias[nl.ds(unit.expert, 1), :])
        ones = nl.ndarray((1, min(unit.tokens, BANK)), dtype=a.down_bias.dtype, buffer=nl.sbuf)
        nisa.memset(dst=ones, value=1.0)
    blocks = a.hidden_size // PARTITIONS // a.programs
    for order in range(a.programs):
        part = (a.program + 1 + order) % a.programs
        start = part * blocks * PARTITIONS
        for columns in TiledRange(blocks * PARTITIONS, DOWN_COLUMNS):
            here = start + columns.start_offset
            shape = (partitions, count, columns.size)
            weights = nl.ndarray(shape, dtype=a.down_weights.dtype, buffer=nl.sbuf)
            scales = _scale_tile(shape)
            if rows < partitions:
                nisa.memset(dst=weights, value=0)
            some = view.slice(2, here, here + columns.size)
            nisa.dma_copy(dst=weights[nl.ds(0, rows)], src=some.get_view())
            _load_scales(scales, view_of_scale.slice(2, here, here + columns.size))
            for tokens in TiledRange(unit.tokens, BANK):
                moving = nl.ds(tokens.start_offset, tokens.size)
                for bank in TiledRange(columns.size // PARTITIONS, BANK // tokens.size):
                    shape = (PARTITIONS, bank.size, tokens.size)
                    products = nl.ndarray(shape, dtype=nl.float32, buffer=nl.psum)
                    for b in range(bank.size):
                        column = (bank.start_offset + b) * PARTITIONS
                        stationary = nl.ds(column, PARTITIONS)
                        for n in range(count):
                            nisa.nc_matmul_mx(
                                dst=products[:, b, :],
                                stationary=weights[:, n, stationary],
                                moving=inter[:, n, moving],
                                stationary_scale=scales[:, n, stationary],
                                moving_scale=inter_scale[:, n, moving],
                            )
                        if bias is not None:
                            nisa.nc_matmul(
                                dst=products[:, b, :],
                                stationary=bias[:, nl.ds(here + column, PARTITIONS)],
                                moving=ones[:, nl.ds(0, tokens.size)],
                            )
                    block = columns.start_offset // PARTITIONS + bank.start_offset
                    target = TensorView(sums[:, part, :, :]).slice(2, block, block + bank.size)
                    first_token = unit.first_token + tokens.start_offset
                    target = target.slice(1, first_token, first_token + tokens.size)
                    target = target.permute((0, 2, 1)).get_view()
                    affinity = TensorView(unit.affinity).slice(1, tokens.start_offset, tokens.end_offset)
                    affinity = affinity.expand_dim(1).broadcast(1, bank.size).get_view()
                    scaled = target
                    if not begins:
                        scaled = nl.ndarray(products.shape, dtype=nl.float32, buffer=nl.sbuf)
                    nisa.tensor_tensor(dst=scaled, data1=products, data2=affinity, op=nl.multiply)
                    if not begins:
                        nisa.tensor_tensor(dst=target, data1=target, data2=scaled, op=nl.add)


# --- the result


def _store(a, sums):
    """Add the other core's sums, turn to rows of tokens and store this core's columns of them."""
    blocks = a.hidden_size // PARTITIONS // a.programs
    mine = sums[:, a.program, :, :]
    received = None
    if a.programs > 1:
        other = 1 - a.program
        received = nl.ndarray((PARTITIONS, a.tokens, blocks), dtype=nl.float32, buffer=nl.sbuf)
        nisa.sendrecv(
            src=sums[:, other, :, :],
            dst=received,
            send_to_rank=other,
            recv_from_rank=other,
            pipe_id=0,
        )
    shape = (a.tokens, a.hidden_size) if a.hidden_scale is not None else a.hidden.shape
    y = nl.ndarray(shape, dtype=a.output_dtype, buffer=nl.shared_hbm)
    target = TensorView(y.reshape((a.tokens, a.hidden_size)))
    target = target.reshape_dim(1, (a.hidden_size // PARTITIONS, PARTITIONS))
    for part in TiledRange(blocks, PARTITIONS):
        first = a.program * blocks + part.start_offset
        there = target.slice(1, first, first + part.size)
        size = PARTITIONS // part.size  # tokens that are turned at once
        for some in TiledRange(a.tokens, size * TURNS):
            turns = TiledRange(some, size)
            whole = some.size // size
            here = nl.ds(some.start_offset, some.size)
            columns = nl.ds(part.start_offset, part.size)
            shape = (PARTITIONS, some.size, part.size)
            rounded = nl.ndarray(shape, dtype=a.output_dtype, buffer=nl.sbuf)
            if received is None:
                nisa.tensor_copy(dst=rounded, src=mine[:, here, columns])
            else:
                nisa.tensor_tensor(
                    dst=rounded, data1=mine[:, here, columns], data2=received[:, here, columns], op=nl.add
                )
            shape = (size * part.size, len(turns), PARTITIONS)
            turned = nl.ndarray(shape, dtype=a.output_dtype, buffer=nl.psum)
            for tokens in turns:
                data = rounded[:, nl.ds(tokens.index * size, tokens.size), :]
                nisa.nc_transpose(dst=turned[nl.ds(0, tokens.size * part.size), tokens.index, :], data=data)
            stored = nl.ndarray(shape, dtype=a.output_dtype, buffer=nl.sbuf)
            if whole > 0:
                both = nl.ds(0, whole)
                nisa.tensor_copy(dst=stored[:, both, :], src=turned[:, both, :], engine=nisa.engine.scalar)
                end = some.start_offset + whole * size
                rows_of_y = there.slice(0, some.start_offset, end).reshape_dim(0, (whole, size))
                nisa.dma_copy(dst=rows_of_y.permute((1, 2, 0, 3)).get_view(), src=stored[:, both, :])
            if whole < len(turns):
                rest = there.slice(0, some.start_offset + whole * size, some.end_offset)
                used = nl.ds(0, (some.size - whole * size) * part.size)
                nisa.tensor_copy(dst=stored[used, whole, :], src=turned[used, whole, :])
                nisa.dma_copy(dst=rest.get_view(), src=stored[used, whole, :])
    return y
