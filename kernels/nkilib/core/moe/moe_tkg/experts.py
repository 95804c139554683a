"""Mixture of experts for token generation, with 16-bit weights or FP8 weights scaled by column.

An expert that a token uses is a few more rows of the down projection: the affinity multiplies the input of
the down projection, and the results of experts are sums like those within an expert. The bias of the down
projection is such rows too, with affinities as their input. What is left to do for an expert is an MLP
whose weights are read once (see :mod:`...mlp.mlp_tkg`), the next one's while this one is multiplied.

| step | engine | layout |
|---|---|---|
| hidden, turned to have H along the partitions | DMA, tensor | x [128, H/128, T] |
| affinities, the same in all partitions | vector, tensor | [128, E_L or K, T] |
| gate and up projection of an expert | tensor, weights stationary | fp32 [128, 2 I/128, T] |
| scale, bias, clamp, activation, gate * up * affinity | vector, scalar | inter [128, I/128, T] |
| down projection, added up over experts | tensor, weights stationary; vector | fp32 [128, H/128, T] |

All experts: two cores share the experts, and exchange half of their sums at the end. With
`is_all_expert_dynamic` gpsimd lists the experts that have tokens, and a device loop takes them from the list,
each core every other one: weights of experts without tokens are not read. Selected experts: two
cores share the tokens; a single token's experts are shared. The down projection of an expert is issued
after the next expert's gate and up projection, so that the tensor engine has work while vector and scalar
engine prepare it.

SBUF per partition, in bytes: hidden H T / 64, sums H T / 32, affinities 4 T E_L, and a ring of weight tiles
of up to 16 KiB.
"""

from dataclasses import dataclass
from typing import Any

import nki.isa as nisa
import nki.language as nl

from ...mlp.mlp_tkg.contraction import clear_tail, contract_weights
from ...mlp.mlp_tkg.down import project_down_by_weight
from ...mlp.mlp_tkg.gate_up import finish_projection, row_groups, sum_over_cores
from ...mlp.mlp_tkg.hidden import Hidden, HiddenSource, load_hidden
from ...utils.common_types import QuantizationType
from ...utils.device_loop import device_loop
from ...utils.kernel_helpers import div_ceil, get_nl_act_fn_from_type
from ...utils.tensor_view import TensorView
from .affinities import (
    by_expert_rows,
    count_not_negative,
    in_all_partitions,
    load_rank,
    loaded,
    local_affinities,
    numbers_of_nonzero,
    selected_affinities,
)
from .moe_parameters import PARTITIONS, MoeArguments

CHUNK_BYTES = 16384  # of gate and up weights in each partition that one DMA brings: 2 MiB
GROUP = 4  # experts of a turn of the device loop: the weights of one come while the one before is multiplied


@dataclass
class Unit(nl.NKIObject):
    """Some columns of one expert's intermediate, for some tokens.

    Attributes:
        expert: its number, an int or an integer in SBUF.
        start: first column of I.
        size: columns.
        first_token: the first token.
        tokens: how many.
        affinity: fp32 [128, tokens] in SBUF, the same in every partition.
    """

    expert: Any
    start: int
    size: int
    first_token: int
    tokens: int
    affinity: Any


def moe_experts(a: MoeArguments):
    """:func:`.moe_tkg.moe_tkg` without MX weights."""
    return _all_experts(a) if a.is_all_expert else _selected_experts(a)


# --- all experts


def _all_experts(a):
    hidden = _all_of_hidden(a)
    identity = nl.shared_identity_matrix(PARTITIONS, dtype=nl.float32)
    local = local_affinities(a, load_rank(a), 0, a.tokens)
    blocks = a.hidden_size // PARTITIONS
    sums = nl.ndarray((PARTITIONS, blocks, a.tokens), dtype=nl.float32, buffer=nl.sbuf)
    if a.dynamic and a.uses_affinities():
        first, last = _experts_with_tokens(a, hidden, local, identity, sums)
    else:
        first, last = _experts_of_this_core(a, hidden, local, identity, sums)
    if a.down_bias is not None and first < last:
        rows = by_expert_rows(local[:, nl.ds(first, last - first)], a.down_bias.dtype)
        bias = TensorView(a.down_bias).slice(0, first, last)
        project_down_by_weight(sums, rows, last - first, bias, True, False, a.programs)

    mine = sums
    if a.programs > 1:
        half = blocks // 2
        mine = sums[:, nl.ds(a.program * half, half), :]
        received = nl.ndarray((PARTITIONS, half, a.tokens), dtype=nl.float32, buffer=nl.sbuf)
        other = 1 - a.program
        nisa.sendrecv(
            src=sums[:, nl.ds(other * half, half), :],
            dst=received,
            send_to_rank=other,
            recv_from_rank=other,
            pipe_id=0,
        )
        nisa.tensor_tensor(dst=mine, data1=mine, data2=received, op=nl.add)
    rows = _as_rows(mine, a.output_dtype)
    if a.output_in_sbuf:
        return rows
    y = nl.ndarray(_shape_in_hbm(a), dtype=a.output_dtype, buffer=nl.shared_hbm)
    _store(y.reshape((a.tokens, a.hidden_size)), rows, 0, a.program * a.hidden_size // a.programs)
    return y


def _experts_of_this_core(a, hidden, local, identity, sums):
    """Sums of this core's share of the experts; returns the range of those whose down bias it adds."""
    shares = shares_of_experts(a, min(PARTITIONS, a.intermediate_size // a.programs))
    first, last = shares[0].expert, shares[len(shares) - 1].expert + 1
    affinities = in_all_partitions(local[:, nl.ds(first, last - first)], identity)
    units = []
    for share in shares:
        affinity = affinities[:, share.expert - first, :]
        units.append(Unit(share.expert, share.start, share.size, 0, a.tokens, affinity))
    _run(a, hidden, units, sums, parts=a.programs)
    # the core that has the first columns of an expert has its bias
    return first + (1 if shares[0].start > 0 else 0), last


def _experts_with_tokens(a, hidden, local, identity, sums):
    """The same, of experts that have tokens: the cores take them in turns from a list made at run time."""
    affinities = in_all_partitions(local, identity)
    listed = numbers_of_nonzero(affinities, GROUP * a.programs)
    mine = nl.ndarray((1, listed.shape[1] // a.programs), dtype=nl.int32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=mine, src=listed[:, a.program :: a.programs])
    groups = TensorView(mine).reshape_dim(1, (mine.shape[1] // GROUP, GROUP))
    whole = count_not_negative(groups.select(2, GROUP - 1).get_view())
    nisa.memset(dst=sums, value=0.0)

    def some_experts(numbers, count):
        experts = nl.ndarray((1, count), dtype=nl.int32, buffer=nl.sbuf)
        nisa.dma_copy(dst=experts, src=numbers.get_view())
        units = []
        for k in range(count):
            expert = experts[:, nl.ds(k, 1)]
            affinity = nl.ndarray((PARTITIONS, a.tokens), dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_copy(dst=affinity, src=TensorView(affinities).select(1, expert).get_view())
            units.append(Unit(expert, 0, a.intermediate_size, 0, a.tokens, affinity))
        _run(a, hidden, units, sums, a.programs, is_empty=False)

    def one_group(turn):
        some_experts(groups.select(1, turn), GROUP)

    def one_expert(turn):
        some_experts(TensorView(mine).select(1, turn), 1)

    device_loop(0, loaded(whole), one_group)
    nisa.tensor_scalar(dst=whole, data=whole, op0=nl.multiply, operand0=GROUP)
    device_loop(loaded(whole), loaded(count_not_negative(mine)), one_expert)
    middle = a.experts // a.programs
    return (0, middle) if a.program == 0 else (middle, a.experts)


@dataclass
class Share(nl.NKIObject):
    """Columns `start` to `start + size` of an expert's intermediate."""

    expert: int
    start: int
    size: int


def shares_of_experts(a, unit):
    """What this core computes: half of the experts. One in the middle is cut at a multiple of `unit`."""
    size = a.intermediate_size
    half = a.experts // a.programs
    shares = []
    middle = None
    if a.experts % a.programs == 1:
        cut = min(div_ceil(div_ceil(size, unit), 2) * unit, size)
        if a.program == 0:
            middle = Share(half, 0, cut)
        elif cut < size:
            middle = Share(half, cut, size - cut)
    if middle is not None and a.program == 1:
        shares.append(middle)
    first = 0 if a.program == 0 else a.experts - half
    for expert in range(first, first + half):
        shares.append(Share(expert, 0, size))
    if middle is not None and a.program == 0:
        shares.append(middle)
    return shares


def _all_of_hidden(a):
    """All of H on each core. In SBUF each core has its part of it and receives the other's."""
    if not a.hidden_in_sbuf or a.programs == 1:
        return _load(a)
    blocks = a.hidden.shape[2]
    x = nl.ndarray((PARTITIONS, 2, a.tokens, blocks), dtype=a.dtype, buffer=nl.sbuf)
    other = 1 - a.program
    nisa.tensor_copy(dst=x[:, a.program, :, :], src=a.hidden)
    nisa.sendrecv(
        src=x[:, a.program, :, :],
        dst=x[:, other, :, :],
        send_to_rank=other,
        recv_from_rank=other,
        pipe_id=0,
    )
    turned = nl.ndarray((PARTITIONS, 2, blocks, a.tokens), dtype=a.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=turned, src=TensorView(x).permute((0, 1, 3, 2)).get_view())
    return Hidden(turned.reshape((PARTITIONS, 2 * blocks, a.tokens)), 2)


# --- selected experts


def _selected_experts(a):
    hidden = _load(a)
    identity = nl.shared_identity_matrix(PARTITIONS, dtype=nl.float32)
    by_choice, by_expert = selected_affinities(a)
    affinities = in_all_partitions(by_choice, identity)
    choices = nl.ndarray((1, a.tokens * a.top_k), dtype=a.index.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=choices, src=a.index.reshape((1, a.tokens * a.top_k)))

    shares_token = a.tokens == 1 and a.programs > 1
    first_token, end_token = 0, a.tokens
    first_choice, end_choice = 0, a.top_k
    if shares_token:
        middle = div_ceil(a.top_k, 2)
        first_choice, end_choice = (0, middle) if a.program == 0 else (middle, a.top_k)
    elif a.programs > 1:
        middle = a.tokens // 2
        first_token, end_token = (0, middle) if a.program == 0 else (middle, a.tokens)

    tokens = end_token - first_token
    sums = nl.ndarray((PARTITIONS, a.hidden_size // PARTITIONS, tokens), dtype=nl.float32, buffer=nl.sbuf)
    units = []
    for token in range(first_token, end_token):
        for k in range(first_choice, end_choice):
            units.append(
                Unit(
                    choices[:, nl.ds(token * a.top_k + k, 1)],
                    0,
                    a.intermediate_size,
                    token,
                    1,
                    affinities[:, k, nl.ds(token, 1)],
                )
            )
    if len(units) == 0:
        nisa.memset(dst=sums, value=0.0)
    _run(a, hidden, units, sums, parts=1, first_token=first_token)
    if a.down_bias is not None and not (shares_token and a.program == 1):
        rows = by_expert_rows(by_expert, a.down_bias.dtype)[:, :, nl.ds(first_token, tokens)]
        project_down_by_weight(sums, rows, a.experts, TensorView(a.down_bias), True, False)
    if shares_token:
        sum_over_cores(sums, a.program)

    if not a.output_in_sbuf:
        y = nl.ndarray(_shape_in_hbm(a), dtype=a.output_dtype, buffer=nl.shared_hbm)
        if not (shares_token and a.program == 1):
            _store(y.reshape((a.tokens, a.hidden_size)), _as_rows(sums, a.output_dtype), first_token, 0)
        return y
    rows = _as_rows(sums, a.output_dtype)
    if tokens == a.tokens:
        return rows
    shape = (PARTITIONS, a.tokens, a.hidden_size // PARTITIONS)
    y = nl.ndarray(shape, dtype=a.output_dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=y[:, nl.ds(first_token, tokens), :], src=rows)
    return y


# --- both


def _load(a):
    """Hidden, all of it, with H along the partitions."""
    source = HiddenSource(a.hidden, a.tokens, a.hidden_size, a.dtype, a.hidden_in_sbuf)
    return load_hidden(source, a.tokens)[0]


def _run(a, hidden, units, sums, parts, first_token=0, is_empty=True):
    """Add up the results of the units in sums, fp32 [128, H / 128, tokens] from `first_token` on.

    With `is_empty` there is nothing in sums, not even zeros.
    """
    started = {} if is_empty else {str(first_token): True}
    previous = None
    for unit in units:
        inter = _gate_up(a, hidden, unit)
        if previous is not None:
            _down(a, previous[0], previous[1], sums, parts, first_token, started)
        previous = (unit, inter)
    if previous is not None:
        _down(a, previous[0], previous[1], sums, parts, first_token, started)


def _gate_up(a, hidden, unit):
    """The input of the down projection times the affinity: [128, ceil(size / 128), tokens] in SBUF."""
    tokens = nl.ds(unit.first_token, unit.tokens)
    blocks = div_ceil(unit.size, PARTITIONS)
    values = nl.ndarray((PARTITIONS, 2 * blocks, unit.tokens), dtype=nl.float32, buffer=nl.sbuf)
    halves = [values[:, nl.ds(0, blocks), :], values[:, nl.ds(blocks, blocks), :]]
    for half in halves:
        clear_tail(half, unit.size)
    chunks = hidden.chunks
    per_chunk = hidden.x.shape[1] // chunks
    weights = TensorView(a.gate_up_weights).select(0, unit.expert)
    weights = weights.reshape_dim(0, (chunks, PARTITIONS, per_chunk)).permute((1, 0, 2, 3, 4))
    weights = weights.slice(4, unit.start, unit.start + unit.size)
    width = 1 if a.gate_up_weights.dtype == nl.float8_e4m3 else 2
    most = max(1, CHUNK_BYTES // (2 * unit.size * width))
    for rows in row_groups(chunks, per_chunk, most):
        count = rows.chunk.size * rows.block.size
        shape = (PARTITIONS, rows.chunk.size, rows.block.size, 2, unit.size)
        tile = nl.ndarray(shape, dtype=a.gate_up_weights.dtype, buffer=nl.sbuf)
        part = weights.slice(1, rows.chunk.start_offset, rows.chunk.end_offset)
        nisa.dma_copy(dst=tile, src=part.slice(2, rows.block.start_offset, rows.block.end_offset).get_view())
        tile = tile.reshape((PARTITIONS, count, 2, unit.size))
        for q in range(2):
            contract_weights(
                values,
                hidden.x[:, nl.ds(rows.first, count), tokens],
                tile[:, :, q, :],
                rows=count * PARTITIONS,
                columns=unit.size,
                first=q * blocks,
                is_first=rows.first == 0,
            )
    scales = (
        _columns(a, a.gate_up_scale, unit) if a.quantization_type == QuantizationType.ROW else [None, None]
    )
    biases = _columns(a, a.gate_up_bias, unit) if a.gate_up_bias is not None else [None, None]
    gate, up = halves[0], halves[1]
    finish_projection(gate, scales[0], biases[0], a.gate_upper, a.gate_lower)
    finish_projection(up, scales[1], biases[1], a.up_upper, a.up_lower)
    nisa.activation(dst=gate, op=get_nl_act_fn_from_type(a.activation_fn), data=gate)
    nisa.tensor_tensor(dst=up, data1=gate, data2=up, op=nl.multiply)
    inter = nl.ndarray((PARTITIONS, blocks, unit.tokens), dtype=a.dtype, buffer=nl.sbuf)
    affinity = TensorView(unit.affinity).expand_dim(1).broadcast(1, blocks).get_view()
    nisa.tensor_tensor(dst=inter, data1=up, data2=affinity, op=nl.multiply)
    return inter


def _columns(a, tensor, unit):
    """The unit's part of [E, 2, I] in HBM along the partitions: for gate and up [128, ceil(size / 128)]."""
    blocks, whole = div_ceil(unit.size, PARTITIONS), unit.size // PARTITIONS
    tile = nl.ndarray((PARTITIONS, 2, blocks), dtype=tensor.dtype, buffer=nl.sbuf)
    view = TensorView(tensor).select(0, unit.expert)
    if whole > 0:
        part = view.slice(1, unit.start, unit.start + whole * PARTITIONS)
        part = part.reshape_dim(1, (whole, PARTITIONS)).permute((2, 0, 1))
        nisa.dma_copy(dst=tile[:, :, nl.ds(0, whole)], src=part.get_view())
    if whole < blocks:
        rest = unit.size - whole * PARTITIONS
        nisa.memset(dst=tile[:, :, nl.ds(whole, 1)], value=0.0)
        part = view.slice(1, unit.start + whole * PARTITIONS, unit.start + unit.size).permute((1, 0))
        nisa.dma_copy(dst=tile[nl.ds(0, rest), :, whole], src=part.get_view())
    return [tile[:, 0, :], tile[:, 1, :]]


def _down(a, unit, inter, sums, parts, first_token, started):
    """Add a unit's result to the sums; `started` says which tokens have some."""
    target = sums[:, :, nl.ds(unit.first_token - first_token, unit.tokens)]
    key = str(unit.first_token)
    is_first = key not in started
    started[key] = True
    weights = TensorView(a.down_weights).select(0, unit.expert)
    weights = weights.slice(0, unit.start, unit.start + unit.size)
    if a.quantization_type != QuantizationType.ROW:
        project_down_by_weight(target, inter, unit.size, weights, True, is_first, parts)
        return
    blocks = sums.shape[1]
    scale = nl.ndarray((PARTITIONS, parts, blocks // parts), dtype=nl.float32, buffer=nl.sbuf)
    view = TensorView(a.down_scale).select(0, unit.expert)
    view = view.reshape_dim(0, (parts, PARTITIONS, blocks // parts)).permute((1, 0, 2))
    nisa.dma_copy(dst=scale, src=view.get_view())
    scaled = scale.reshape((PARTITIONS, blocks))
    result = nl.ndarray((PARTITIONS, blocks, unit.tokens), dtype=nl.float32, buffer=nl.sbuf)
    project_down_by_weight(result, inter, unit.size, weights, True, True, parts)
    factor = TensorView(scaled).expand_dim(2).broadcast(2, unit.tokens).get_view()
    if is_first:
        nisa.tensor_tensor(dst=target, data1=result, data2=factor, op=nl.multiply)
    else:
        nisa.tensor_tensor(dst=result, data1=result, data2=factor, op=nl.multiply)
        nisa.tensor_tensor(dst=target, data1=target, data2=result, op=nl.add)


def _as_rows(sums, dtype):
    """[128, B, T] as [128, T, B] in the dtype of the result."""
    blocks, tokens = sums.shape[1], sums.shape[2]
    rows = nl.ndarray((PARTITIONS, tokens, blocks), dtype=dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=TensorView(rows).permute((0, 2, 1)).get_view(), src=sums)
    return rows


def _store(y, rows, first_token, first_column):
    """Store [128, tokens, B] to y [T, H]: column first_column + p * B + j is at [p, :, j]."""
    tokens, blocks = rows.shape[1], rows.shape[2]
    target = TensorView(y).slice(0, first_token, first_token + tokens)
    target = target.slice(1, first_column, first_column + PARTITIONS * blocks)
    nisa.dma_copy(dst=target.reshape_dim(1, (PARTITIONS, blocks)).permute((1, 0, 2)).get_view(), src=rows)


def _shape_in_hbm(a):
    if a.hidden_in_sbuf:
        return (a.tokens, a.hidden_size)
    return a.hidden.shape
