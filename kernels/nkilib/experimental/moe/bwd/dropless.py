"""Gradients of one group of tokens of a block, in the order of the backward pass.

With g the gradient of the result, a the affinities, S = act(gate) * up, all [tokens, ...] of one block:

    da = sum(g * down)                      each token's, assigned
    dY = a g                                [tokens, H]
    dWd += S^T dY, dbd += sum(dY)
    dS = dY Wd^T
    dgate = dS * up * act'(gate), dup = dS * act(gate), both 0 where the forward pass clamped
    dWg += x^T dgate, dWu += x^T dup, biases likewise
    dx += dgate Wg^T + dup Wu^T

Each core has half of the columns of I: dS needs all of H and is whole; dx is a sum over I, of which each core
finishes half of H and sends the other. A contraction has its dimension on the partitions, so the tensor
engine turns dY, the products and the weights as they are needed.

| kept in SBUF (H = 3072, I = 1024 a core, 512 tokens) | KiB a partition |
|---|---|
| x, dY by rows; dY turned | 3 x 24 |
| dgate and dup with I on partitions, and by rows | 2 x 16 |
| rows of a weight, turned, and of its gradient | 3 x 6 |
| dx: sent, received, result | 36 |
"""

from dataclasses import dataclass
from typing import Any

import nki.isa as nisa
import nki.language as nl

from ....core.moe.moe_cte.block_phases import (
    COLUMNS,
    P,
    affinities_of,
    affinity_places,
    indexed_copy,
    row_of,
    rows_of,
    without_padding,
)
from ....core.utils.kernel_helpers import div_ceil
from ....core.utils.tiled_range import TiledRange
from .moe_bwd_parameters import ActFnType

ACTIVATIONS = {ActFnType.SiLU: nl.silu, ActFnType.GELU: nl.gelu, ActFnType.Swish: nl.gelu_apprx_sigmoid}
DERIVATIVES = {
    ActFnType.SiLU: nl.silu_dx,
    ActFnType.GELU: nl.gelu_dx,
    ActFnType.Swish: nl.gelu_apprx_sigmoid_dx,
}


@dataclass
class Backward(nl.NKIObject):
    """Arguments and results of a call, by the names of the entry, and sizes.

    Attributes:
        rows, hidden, intermediate, experts, blocks, block_size: as in moe_cte.
        core, cores: this core, and how many share the columns of I.
        first, size: its columns of I.
        own, width: the columns of H of which it finishes dx and the bias of down.
    """

    hidden_states: Any
    expert_affinities_masked: Any
    gate_up_proj_weight: Any
    down_proj_weight: Any
    gate_up: Any
    down: Any
    token_position_to_id: Any
    block_to_expert: Any
    gradient: Any
    d_hidden: Any
    d_affinities: Any
    d_gate_up: Any
    d_down: Any
    d_gate_up_bias: Any
    d_down_bias: Any
    rows: int
    hidden: int
    intermediate: int
    experts: int
    blocks: int
    block_size: int
    skip: Any
    compute_dtype: Any
    clamps: Any
    activation: Any
    core: int = 0
    cores: int = 1

    def __post_init__(self):
        self.size = self.intermediate // self.cores
        self.first = self.core * self.size
        self.width = self.hidden // self.cores
        self.own = self.core * self.width


@dataclass
class Group(nl.NKIObject):
    """The tokens being worked on: `count` of `block` from its token `start`, and what is read of them."""

    block: int
    start: int
    count: int
    expert: Any
    ids: Any
    targets: Any
    affinities: Any
    places: Any


def group_gradients(problem, block, start, count):
    """Add the gradients of `count` tokens of `block` from its token `start`."""
    group = _group(problem, block, start, count)
    upstream = rows_of(problem, problem.gradient, group.ids)
    _affinity_gradients(problem, group, upstream)
    for tile in range(count // P):
        part = upstream[:, tile, :]
        nisa.tensor_scalar(dst=part, data=part, op0=nl.multiply, operand0=group.affinities[:, nl.ds(tile, 1)])
    if problem.d_down_bias is not None:
        _down_bias_gradient(problem, group, upstream)
    turned_rows = transposed(_by_columns(upstream), problem.compute_dtype)
    products = _intermediate_gradients(problem, group, upstream, turned_rows)
    states = rows_of(problem, problem.hidden_states, group.ids)
    _gate_up_gradients(problem, group, states, products)
    _hidden_gradients(problem, group, products)


def _group(problem, block, start, count):
    tiles = count // P
    expert = nl.ndarray((P, 1), dtype=nl.int32, buffer=nl.sbuf)
    experts = problem.block_to_expert.reshape((problem.blocks, 1))
    nisa.dma_copy(dst=expert, src=row_of(experts, block, 1, partitions=P))
    ids = nl.ndarray((P, tiles), dtype=nl.int32, buffer=nl.sbuf)
    positions = problem.token_position_to_id.reshape((problem.blocks, problem.block_size))
    source = positions.ap(pattern=[[1, P], [P, tiles]], offset=block * problem.block_size + start)
    nisa.dma_copy(dst=ids, src=source)
    targets = ids if problem.skip.skip_token else without_padding(problem, ids)
    affinities = affinities_of(problem, ids, expert)
    places = affinity_places(problem, targets, expert)
    return Group(block, start, count, expert, ids, targets, affinities, places)


def _by_columns(rows):
    """Views of rows [128, tiles, H]: all tiles of the first 128 columns, then of the next."""
    views = []
    for columns in TiledRange(rows.shape[2], P):
        for tile in range(rows.shape[1]):
            views.append(rows[:, tile, nl.ds(columns.start_offset, columns.size)])
    return views


def transposed(views, dtype):
    """[columns, n, rows]: n views [rows, columns], each turned on the tensor engine, some a bank of PSUM.

    The first is the largest; of a smaller one only its own part is there.
    """
    rows, columns = views[0].shape
    result = nl.ndarray((columns, len(views), rows), dtype=dtype, buffer=nl.sbuf)
    start, banks = 0, 0
    while start < len(views):
        height, width = views[start].shape
        count = 1
        while (
            count < 2 * COLUMNS // rows
            and start + count < len(views)
            and views[start + count].shape == views[start].shape
        ):
            count += 1
        bank = nl.ndarray((width, count, height), dtype=dtype, buffer=nl.psum)
        for view in range(count):
            nisa.nc_transpose(dst=bank[:, view, :], data=views[start + view])
        engine = nisa.vector_engine if banks % 2 == 0 else nisa.scalar_engine
        target = result[0:width, nl.ds(start, count), 0:height]
        nisa.tensor_copy(dst=target, src=bank, engine=engine)
        start += count
        banks += 1
    return result


def _affinity_gradients(problem, group, upstream):
    """da = sum(g * down) of each token, the cores taking tiles of 128 tokens in turn."""
    dtype = problem.d_affinities.dtype
    for tile in range(group.count // P):
        if tile % problem.cores == problem.core:
            down = nl.ndarray((P, problem.hidden), dtype=problem.compute_dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=down, src=problem.down[group.block, nl.ds(group.start + tile * P, P), :])
            product = nl.ndarray((P, problem.hidden), dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_tensor(dst=product, data1=upstream[:, tile, :], data2=down, op=nl.multiply)
            total = nl.ndarray((P, 1), dtype=dtype, buffer=nl.sbuf)
            nisa.tensor_reduce(dst=total, op=nl.add, data=product, axis=1)
            target = problem.d_affinities.ap(
                pattern=[[1, P], [1, 1]], vector_offset=group.places[:, nl.ds(tile, 1)], indirect_dim=0
            )
            nisa.dma_copy(dst=target, src=total, oob_mode=nisa.oob_mode.skip)


def _down_bias_gradient(problem, group, upstream):
    """dbd += sum of dY over tokens, on the tensor engine against ones; this core's columns of H."""
    ones = nl.ndarray((P, 1), dtype=problem.compute_dtype, buffer=nl.sbuf)
    nisa.memset(dst=ones, value=1.0)
    width = problem.width
    old, added = _loaded_row(problem.d_down_bias, group, problem.own, width)
    for columns in TiledRange(width, COLUMNS):
        bank = nl.ndarray((1, columns.size), dtype=nl.float32, buffer=nl.psum)
        for tile in range(group.count // P):
            span = nl.ds(problem.own + columns.start_offset, columns.size)
            nisa.nc_matmul(dst=bank, stationary=ones, moving=upstream[:, tile, span])
        here = nl.ds(columns.start_offset, columns.size)
        nisa.tensor_tensor(dst=added[:, here], data1=bank, data2=old[:, here], op=nl.add)
    place = row_of(problem.d_down_bias, group.expert[0:1, 0:1], width, offset=problem.own)
    nisa.dma_copy(dst=place, src=added)


def _loaded_row(table, group, offset, width):
    """What the expert's row of `table` holds, and room for what it will."""
    old = nl.ndarray((1, width), dtype=table.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=old, src=row_of(table, group.expert[0:1, 0:1], width, offset=offset))
    return old, nl.ndarray((1, width), dtype=table.dtype, buffer=nl.sbuf)


def _expert_rows(table, group, pattern, offset):
    """An access to the expert's part of `table`, [E, ...]."""
    return table.ap(pattern=pattern, offset=offset, scalar_offset=group.expert[0:1, 0:1], indirect_dim=0)


# --- between the projections


@dataclass
class Products(nl.NKIObject):
    """dgate (half 0) and dup (half 1).

    Attributes:
        columns: [128, tiles of I, 2, tokens], I on partitions.
        rows: [128, tokens / 128, 2, columns of I], tokens on partitions.
    """

    columns: Any
    rows: Any


def _intermediate_gradients(problem, group, upstream, turned_rows):
    """dS, and what follows of it for each tile of I: dWd, dgate, dup and the biases of gate and up."""
    dtype, count, hidden = problem.compute_dtype, group.count, problem.hidden
    tiles = count // P
    products = Products(
        nl.ndarray((P, div_ceil(problem.size, P), 2, count), dtype=dtype, buffer=nl.sbuf),
        nl.ndarray((P, tiles, 2, problem.size), dtype=dtype, buffer=nl.sbuf),
    )
    moving = turned_rows.reshape((turned_rows.shape[0], div_ceil(hidden, P), count))
    ranges = TiledRange(problem.size, P)
    weights = _load_down(problem, group, ranges[0])
    for tile in ranges:
        following = None
        if tile.index + 1 < len(ranges):
            following = _load_down(problem, group, ranges[tile.index + 1])
        gate, up = _checkpoints(problem, group, tile)
        views = []
        for columns in TiledRange(hidden, P):
            views.append(weights[:, nl.ds(columns.start_offset, columns.size)])
        stationary = transposed(views, dtype)
        bank = nl.ndarray((tile.size, count), dtype=nl.float32, buffer=nl.psum)
        for columns in TiledRange(hidden, P):
            nisa.nc_matmul(
                dst=bank,
                stationary=stationary[0 : columns.size, columns.index, :],
                moving=moving[0 : columns.size, columns.index, :],
            )
        _through_activation(problem, group, tile, bank, gate, up, products, upstream)
        weights = following
    return products


def _load_down(problem, group, tile):
    """[columns of I, H]: rows of the expert's down weights."""
    rows = nl.ndarray((tile.size, problem.hidden), dtype=problem.down_proj_weight.dtype, buffer=nl.sbuf)
    pattern = [[problem.hidden, tile.size], [1, problem.hidden]]
    offset = (problem.first + tile.start_offset) * problem.hidden
    nisa.dma_copy(dst=rows, src=_expert_rows(problem.down_proj_weight, group, pattern, offset))
    return rows


def _checkpoints(problem, group, tile):
    """Gate and up of one tile of I as the forward pass left them, [columns of I, tokens] each."""
    kept = []
    for half in range(2):
        values = nl.ndarray((tile.size, group.count), dtype=problem.compute_dtype, buffer=nl.sbuf)
        columns = nl.ds(problem.first + tile.start_offset, tile.size)
        source = problem.gate_up[group.block, half, columns, nl.ds(group.start, group.count)]
        nisa.dma_copy(dst=values, src=source)
        kept.append(values)
    return kept[0], kept[1]


def _through_activation(problem, group, tile, bank, gate, up, products, upstream):
    dtype, shape, clamps = problem.compute_dtype, (tile.size, group.count), problem.clamps
    activated = nl.ndarray(shape, dtype=dtype, buffer=nl.sbuf)
    nisa.activation(dst=activated, op=ACTIVATIONS[problem.activation], data=gate)
    slope = nl.ndarray(shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=slope, op=DERIVATIVES[problem.activation], data=gate)
    product = nl.ndarray(shape, dtype=dtype, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=product, data1=activated, data2=up, op=nl.multiply)
    _down_gradient(problem, group, tile, product, upstream)

    d_gate = products.columns[0 : tile.size, tile.index, 0, :]
    d_up = products.columns[0 : tile.size, tile.index, 1, :]
    sloped = nl.ndarray(shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=sloped, data1=slope, data2=up, op=nl.multiply)
    sloped = _where_inside(
        sloped, gate, clamps.non_linear_clamp_lower_limit, clamps.non_linear_clamp_upper_limit
    )
    nisa.tensor_tensor(dst=d_gate, data1=bank, data2=sloped, op=nl.multiply)
    inside = _where_inside(activated, up, clamps.linear_clamp_lower_limit, clamps.linear_clamp_upper_limit)
    nisa.tensor_tensor(dst=d_up, data1=bank, data2=inside, op=nl.multiply)
    for half in range(2):
        values = products.columns[0 : tile.size, tile.index, half, :]
        views = []
        for token in range(group.count // P):
            views.append(values[:, nl.ds(token * P, P)])
        by_rows = transposed(views, dtype)
        target = products.rows[:, :, half, nl.ds(tile.start_offset, tile.size)]
        nisa.tensor_copy(dst=target, src=by_rows, engine=nisa.gpsimd_engine)
        if problem.d_gate_up_bias is not None:
            _gate_up_bias_gradient(problem, group, tile, half, values)


def _where_inside(values, limited, lower, upper):
    """`values` where `limited` lies between the limits, both excluded, and 0 elsewhere."""
    result = values
    if upper is not None:
        kept = nl.ndarray(values.shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.scalar_tensor_tensor(
            dst=kept, data=limited, op0=nl.less, operand0=float(upper), op1=nl.multiply, operand1=result
        )
        result = kept
    if lower is not None:
        kept = nl.ndarray(values.shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.scalar_tensor_tensor(
            dst=kept, data=limited, op0=nl.greater, operand0=float(lower), op1=nl.multiply, operand1=result
        )
        result = kept
    return result


def _gate_up_bias_gradient(problem, group, tile, half, values):
    """Biases [E, 2, I] += sums over tokens, a column for the tile."""
    total = nl.ndarray((tile.size, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=total, op=nl.add, data=values, axis=1)
    table = problem.d_gate_up_bias
    offset = half * problem.intermediate + problem.first + tile.start_offset
    column = _expert_rows(table, group, [[1, tile.size], [1, 1]], offset)
    old = nl.ndarray((tile.size, 1), dtype=table.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=old, src=column)
    added = nl.ndarray((tile.size, 1), dtype=table.dtype, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=added, data1=old, data2=total, op=nl.add)
    nisa.dma_copy(dst=column, src=added)


def _down_gradient(problem, group, tile, product, upstream):
    """dWd += S^T dY for one tile of I."""
    hidden, table = problem.hidden, problem.d_down
    pattern = [[hidden, tile.size], [1, hidden]]
    place = _expert_rows(table, group, pattern, (problem.first + tile.start_offset) * hidden)
    old = nl.ndarray((tile.size, hidden), dtype=table.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=old, src=place)
    views = []
    for token in range(group.count // P):
        views.append(product[:, nl.ds(token * P, P)])
    stationary = transposed(views, problem.compute_dtype)
    added = nl.ndarray((tile.size, hidden), dtype=table.dtype, buffer=nl.sbuf)
    for columns in TiledRange(hidden, COLUMNS):
        span = nl.ds(columns.start_offset, columns.size)
        bank = nl.ndarray((tile.size, columns.size), dtype=nl.float32, buffer=nl.psum)
        for token in range(group.count // P):
            nisa.nc_matmul(dst=bank, stationary=stationary[:, token, :], moving=upstream[:, token, span])
        nisa.tensor_tensor(dst=added[:, span], data1=bank, data2=old[:, span], op=nl.add)
    nisa.dma_copy(dst=place, src=added)


# --- gate and up, and x


def _gate_up_rows(problem, row, count):
    """Access pattern and offset of `count` rows of H of gate and up: [count, 2, this core's columns]."""
    intermediate = problem.intermediate
    pattern = [[2 * intermediate, count], [intermediate, 2], [1, problem.size]]
    return pattern, row * 2 * intermediate + problem.first


def _gate_up_gradients(problem, group, states, products):
    """dWg and dWu += x^T dgate and x^T dup, 128 rows of H at a time."""
    table = problem.d_gate_up
    for row in TiledRange(problem.hidden, P):
        pattern, offset = _gate_up_rows(problem, row.start_offset, row.size)
        place = _expert_rows(table, group, pattern, offset)
        old = nl.ndarray((row.size, 2, problem.size), dtype=table.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=old, src=place)
        added = nl.ndarray((row.size, 2, problem.size), dtype=table.dtype, buffer=nl.sbuf)
        for half in range(2):
            for columns in TiledRange(problem.size, COLUMNS):
                span = nl.ds(columns.start_offset, columns.size)
                bank = nl.ndarray((row.size, columns.size), dtype=nl.float32, buffer=nl.psum)
                for token in range(group.count // P):
                    nisa.nc_matmul(
                        dst=bank,
                        stationary=states[:, token, nl.ds(row.start_offset, row.size)],
                        moving=products.rows[:, token, half, span],
                    )
                nisa.tensor_tensor(dst=added[:, half, span], data1=bank, data2=old[:, half, span], op=nl.add)
        nisa.dma_copy(dst=place, src=added)


def _hidden_gradients(problem, group, products):
    """dx += dgate Wg^T + dup Wu^T: the other core's columns of H first, sent under the own ones."""
    tiles, width, dtype = group.count // P, problem.width, problem.compute_dtype
    received = None
    if problem.cores > 1:
        sent = nl.ndarray((P, tiles, width), dtype=dtype, buffer=nl.sbuf)
        received = nl.ndarray((P, tiles, width), dtype=dtype, buffer=nl.sbuf)
        for columns in TiledRange(width, COLUMNS):
            first = width - problem.own + columns.start_offset
            weights = _turned_gate_up(problem, group, first, columns.size)
            for tile in range(tiles):
                bank = _hidden_bank(problem, products, weights, tile, columns.size)
                span = nl.ds(columns.start_offset, columns.size)
                nisa.tensor_copy(dst=sent[:, tile, span], src=bank, engine=nisa.scalar_engine)
        other = 1 - problem.core
        nisa.sendrecv(src=sent, dst=received, send_to_rank=other, recv_from_rank=other, pipe_id=0)
    result = nl.ndarray((P, tiles, width), dtype=dtype, buffer=nl.sbuf)
    old = nl.ndarray((P, tiles, width), dtype=dtype, buffer=nl.sbuf)
    if problem.skip.skip_token:
        nisa.memset(dst=old, value=0.0)
    for tile in range(tiles):
        indexed_copy(problem, old[:, tile, :], _hidden_rows(problem, group.ids, tile))
    for columns in TiledRange(width, COLUMNS):
        weights = _turned_gate_up(problem, group, problem.own + columns.start_offset, columns.size)
        span = nl.ds(columns.start_offset, columns.size)
        for tile in range(tiles):
            value = _hidden_bank(problem, products, weights, tile, columns.size)
            if received is not None:
                both = nl.ndarray((P, columns.size), dtype=nl.float32, buffer=nl.sbuf)
                nisa.tensor_tensor(dst=both, data1=value, data2=received[:, tile, span], op=nl.add)
                value = both
            nisa.tensor_tensor(dst=result[:, tile, span], data1=value, data2=old[:, tile, span], op=nl.add)
    for tile in range(tiles):
        nisa.dma_copy(
            dst=_hidden_rows(problem, group.targets, tile),
            src=result[:, tile, :],
            oob_mode=nisa.oob_mode.skip,
        )


def _hidden_rows(problem, ids, tile):
    """This core's columns of the rows of dx that `ids` name."""
    return problem.d_hidden.ap(
        pattern=[[problem.hidden, P], [1, problem.width]],
        offset=problem.own,
        vector_offset=ids[:, nl.ds(tile, 1)],
        indirect_dim=0,
    )


def _turned_gate_up(problem, group, first, width):
    """Gate and up weights with I on partitions: for each half and tile of I [columns of I, rows of H]."""
    dtype, parts = problem.compute_dtype, []
    for row in TiledRange(width, P):
        pattern, offset = _gate_up_rows(problem, first + row.start_offset, row.size)
        table = problem.gate_up_proj_weight
        loaded = nl.ndarray((row.size, 2, problem.size), dtype=table.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=loaded, src=_expert_rows(table, group, pattern, offset))
        parts.append(loaded)
    turned = []
    for half in range(2):
        for tile in TiledRange(problem.size, P):
            views = []
            for part in parts:
                views.append(part[:, half, nl.ds(tile.start_offset, tile.size)])
            turned.append(transposed(views, dtype))
    return turned


def _hidden_bank(problem, products, weights, token, width):
    """One tile of tokens of dx, `width` columns of H, in PSUM."""
    bank = nl.ndarray((P, width), dtype=nl.float32, buffer=nl.psum)
    tiles = div_ceil(problem.size, P)
    for half in range(2):
        for tile in TiledRange(problem.size, P):
            turned = weights[half * tiles + tile.index]
            moving = turned.reshape((tile.size, turned.shape[1] * turned.shape[2]))[:, 0:width]
            stationary = products.columns[0 : tile.size, tile.index, half, nl.ds(token * P, P)]
            nisa.nc_matmul(dst=bank, stationary=stationary, moving=moving)
    return bank
