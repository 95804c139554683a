"""The phases of one block of moe_cte on one core, in the order of the maths.

A block holds B tokens of one expert. With x its rows of the hidden states, [B, H]:

    gate, up = clamp(x Wg scale + bg), clamp(x Wu scale + bu)        [B, I]
    result   = ((act(gate) * up) Wd scale + bd) * affinity            [B, H], added to the tokens' rows

Where data lie and who works on them (trn2, bf16, H = 3072, I = 1024 a core, 512 tokens at a time):

| step | engine | why | SBUF KiB |
|---|---|---|---|
| ids, affinities, rows of x gathered | DMA, addresses by gpsimd | vectors of indices, one group ahead | 24 |
| x turned, H on partitions | tensor; vector, scalar | H is contracted; 2 tiles of H a bank | 24 |
| gate and up, tokens moving | tensor | a bias or scale is a column of the activation | 2 x 36 |
| activation, product | scalar, vector | both read PSUM beside the next matmuls | 8 |
| down, H moving | tensor | an affinity is a column, rows can be scattered | 2 x 24 |
| the other core's part sent | scalar, DMA | under the matmuls of the own part | 24 |
| own part added, scaled, accumulated | vector | rows of the result were gathered before | 24 |

Weights stream in pieces of about 32 KiB a partition, each loaded while the piece before it is used.
"""

from dataclasses import dataclass
from typing import Any

import nki.isa as nisa
import nki.language as nl

from ...utils.kernel_helpers import div_ceil, get_nl_act_fn_from_type
from ...utils.tiled_range import TiledRange

P = 128
TOKENS = 512  # moving columns of one matmul, tokens worked on at a time
COLUMNS = 512  # fp32 columns of a PSUM bank
PIECE_BYTES = 36 * 1024  # of weights, a partition


@dataclass
class Share(nl.NKIObject):
    """What one core does of a block.

    Attributes:
        core, cores: this one, and how many share the columns of the projections.
        first, size: its columns of I.
        own: its first column of the result; it finishes `width` columns.
        on_intermediate: affinities multiply the product of gate and up: a bias of down is not scaled.
    """

    core: int
    cores: int
    first: int
    size: int
    own: int
    width: int
    on_intermediate: bool = False


@dataclass
class Outputs(nl.NKIObject):
    """Where results go, in HBM.

    Attributes:
        rows: [rows, columns]; its rows begin every `stride` elements, from `offset`.
        gate_up: [N, 2, I, B], or None.
        down: [N, B, H], or None.
    """

    rows: Any
    stride: int
    offset: int
    gate_up: Any = None
    down: Any = None


@dataclass
class Gathered(nl.NKIObject):
    """What is read of a block before its weights, tokens on partitions: token t * 128 + p is at [p, t].

    Attributes:
        block: its number, or a register that holds it.
        expert: [128, 1] int32, its expert in every partition.
        weights: [1, 1] int32, the expert to read weights of: E, which is none, where they are in place.
        ids: [128, B / 128] int32, rows of the hidden states.
        targets: the same for rows of the result.
        affinities: [128, B / 128] fp32, or None.
    """

    block: Any
    expert: Any
    weights: Any
    ids: Any
    targets: Any
    affinities: Any


@dataclass
class Stack(nl.NKIObject):
    """`count` tiles of as many partitions that one access pattern takes, from tile `first`."""

    first: int
    count: int
    partitions: int


def stacks(size):
    """`size` elements of a dimension on partitions: the whole tiles of 128, then what is left."""
    whole, rest = size // P, size % P
    found = []
    if whole > 0:
        found.append(Stack(0, whole, P))
    if rest > 0:
        found.append(Stack(whole, 1, rest))
    return found


def row_of(table, row, columns, offset=0, partitions=1, step=0):
    """Row `row` of a 2-D HBM tensor as [partitions, columns]: each `step` elements further on.

    `row` is an int, a register, or an SBUF tensor of one integer.
    """
    pattern = [[step, partitions], [1, columns]]
    if isinstance(row, int):
        return table.ap(pattern=pattern, offset=offset + row * table.shape[1])
    return table.ap(pattern=pattern, offset=offset, scalar_offset=row, indirect_dim=0)


def clear_rows(outputs, rows, width, dtype):
    """Set the first `width` columns of all rows of the result to zero, in two DMAs."""
    zeros = nl.ndarray((P, width), dtype=dtype, buffer=nl.sbuf)
    nisa.memset(dst=zeros, value=0.0)
    for stack in stacks(rows):
        target = outputs.rows.ap(
            pattern=[[outputs.stride, stack.partitions], [P * outputs.stride, stack.count], [1, width]],
            offset=outputs.offset + stack.first * P * outputs.stride,
        )
        source = zeros.ap(pattern=[[width, stack.partitions], [0, stack.count], [1, width]])
        nisa.dma_copy(dst=target, src=source)


def gather(problem, block, before=None):
    """Read ids and affinities of a block; `before` is the one before it on this core."""
    size, tiles = problem.block_size, problem.block_size // P
    positions = problem.token_position_to_id.reshape((problem.blocks, size))
    ids = nl.ndarray((P, tiles), dtype=nl.int32, buffer=nl.sbuf)
    pattern = [[1, P], [P, tiles]]
    if isinstance(block, int):
        nisa.dma_copy(dst=ids, src=positions.ap(pattern=pattern, offset=block * size))
    else:
        nisa.dma_copy(
            dst=ids, src=positions.ap(pattern=pattern, offset=0, scalar_offset=block, indirect_dim=0)
        )
    expert = nl.ndarray((P, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(
        dst=expert, src=row_of(problem.block_to_expert.reshape((problem.blocks, 1)), block, 1, partitions=P)
    )
    affinities = None
    if problem.prescaled() or problem.postscaled():
        affinities = _affinities(problem, ids, expert)
    weights = expert[0:1, 0:1]
    if problem.skip.skip_weight and before is not None:
        same = nl.ndarray((1, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=same, data1=weights, data2=before.expert[0:1, 0:1], op=nl.equal)
        weights = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.scalar_tensor_tensor(
            dst=weights,
            data=same,
            op0=nl.multiply,
            operand0=float(problem.experts),
            op1=nl.add,
            operand1=expert[0:1, 0:1],
        )
    targets = _without_padding(problem, ids) if problem.padding_is_skipped() else ids
    return Gathered(block, expert, weights, ids, targets, affinities)


def _without_padding(problem, ids):
    """Ids of rows of the result, far outside of it for the row of padding, which no core may write then."""
    outside = nl.ndarray(ids.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(
        dst=outside,
        data=ids,
        op0=nl.equal,
        operand0=float(problem.rows - 1),
        op1=nl.multiply,
        operand1=float(problem.rows),
    )
    targets = nl.ndarray(ids.shape, dtype=nl.int32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=targets, data1=outside, data2=ids, op=nl.add)
    return targets


def gather_rows(problem, gathered, group):
    """[128, tokens / 128, H]: the rows of x of a group of at most 512 tokens, token t * 128 + p at [p, t]."""
    rows = nl.ndarray((P, group.size // P, problem.hidden), dtype=problem.compute_dtype, buffer=nl.sbuf)
    if problem.skip.skip_token:
        nisa.memset(dst=rows, value=0.0)
    for tile in TiledRange(group, P):
        column = nl.ds(tile.start_offset // P, 1)
        source = problem.hidden_states.ap(
            pattern=[[problem.hidden, P], [1, problem.hidden]],
            vector_offset=gathered.ids[:, column],
            indirect_dim=0,
        )
        _indexed_copy(problem, rows[:, tile.index, :], source)
        if problem.prescaled():
            nisa.tensor_scalar(
                dst=rows[:, tile.index, :],
                data=rows[:, tile.index, :],
                op0=nl.multiply,
                operand0=gathered.affinities[:, column],
            )
    return rows


def _indexed_copy(problem, dst, src):
    """A gather or scatter; rows of padding are left out where their ids are -1."""
    if problem.skip.skip_token:
        nisa.dma_copy(dst=dst, src=src, oob_mode=nisa.oob_mode.skip)
    else:
        nisa.dma_copy(dst=dst, src=src)


def _affinities(problem, ids, expert):
    """[128, tiles] fp32: the affinity of each token of a block to its expert."""
    tiles = ids.shape[1]
    index = nl.ndarray((P, tiles), dtype=nl.int32, buffer=nl.sbuf)  # integers of gpsimd are exact
    nisa.memset(dst=index, value=problem.experts)
    nisa.tensor_tensor(dst=index, data1=index, data2=ids, op=nl.multiply)
    nisa.tensor_tensor(dst=index, data1=index, data2=expert.ap(pattern=[[1, P], [0, tiles]]), op=nl.add)
    table = problem.expert_affinities_masked
    found = nl.ndarray((P, tiles), dtype=table.dtype, buffer=nl.sbuf)
    if problem.skip.skip_token:
        nisa.memset(dst=found, value=0.0)
    for tile in range(tiles):
        source = table.ap(pattern=[[1, P], [1, 1]], vector_offset=index[:, nl.ds(tile, 1)], indirect_dim=0)
        _indexed_copy(problem, found[:, nl.ds(tile, 1)], source)
    result = nl.ndarray((P, tiles), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=result, src=found, engine=nisa.gpsimd_engine)
    return result


def turned(rows, dtype):
    """x with H on partitions, [128, H / 128, tokens], of rows [128, tokens / 128, H]."""
    tiles, hidden = rows.shape[1], rows.shape[2]
    result = nl.ndarray((P, hidden // P, tiles * P), dtype=dtype, buffer=nl.sbuf)
    pair = 2 * COLUMNS // (tiles * P)
    for group in TiledRange(hidden // P, pair):
        bank = nl.ndarray((P, group.size, tiles * P), dtype=dtype, buffer=nl.psum)
        for tile in TiledRange(group, 1):
            for token in range(tiles):
                nisa.nc_transpose(
                    dst=bank[:, tile.index, nl.ds(token * P, P)],
                    data=rows[:, token, nl.ds(tile.start_offset * P, P)],
                )
        engine = nisa.vector_engine if group.index % 2 == 0 else nisa.scalar_engine
        nisa.tensor_copy(dst=result[:, nl.ds(group.start_offset, group.size), :], src=bank, engine=engine)
    return result


# --- columns: one value a partition for each tile of I


def columns(table, expert, share, groups, stride):
    """[128, tiles, groups] fp32 of a table [E or 1, columns]: `g * stride + i` is at [i % 128, i // 128, g].

    A table of `groups` columns has one value for all.
    """
    tiles = div_ceil(share.size, P)
    loaded = nl.ndarray((P, tiles, groups), dtype=table.dtype, buffer=nl.sbuf)
    step = 1 if table.shape[1] > groups else 0
    result = loaded
    if table.dtype != nl.float32:
        result = nl.ndarray((P, tiles, groups), dtype=nl.float32, buffer=nl.sbuf)
    for stack in stacks(share.size):
        pattern = [[step, stack.partitions], [P * step, stack.count], [stride if step else 1, groups]]
        offset = (share.first + stack.first * P) * step
        if table.shape[0] == 1:
            source = table.ap(pattern=pattern, offset=offset)
        else:
            source = table.ap(pattern=pattern, offset=offset, scalar_offset=expert[0:1, 0:1], indirect_dim=0)
        part = loaded[0 : stack.partitions, nl.ds(stack.first, stack.count), :]
        nisa.dma_copy(dst=part, src=source)
        if table.dtype != nl.float32:
            nisa.tensor_copy(
                dst=result[0 : stack.partitions, nl.ds(stack.first, stack.count), :],
                src=part,
                engine=nisa.gpsimd_engine,
            )
    return result


def spread_row(table, expert, first, width):
    """[128, width] fp32: columns of one row of a table [E or 1, columns] in every partition."""
    loaded = nl.ndarray((P, width), dtype=table.dtype, buffer=nl.sbuf)
    row = 0 if table.shape[0] == 1 else expert[0:1, 0:1]
    if table.shape[1] == 1:
        column = nl.ndarray((P, 1), dtype=table.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=column, src=row_of(table, row, 1, partitions=P))
        nisa.tensor_copy(dst=loaded, src=column.ap(pattern=[[1, P], [0, width]]))
        return loaded
    nisa.dma_copy(dst=loaded, src=row_of(table, row, width, offset=first, partitions=P))
    return loaded


# --- the projections


def gate_up_pieces(problem, share):
    """Ranges of this core's columns of I, each of weights that fit a piece."""
    tile_bytes = problem.hidden // P * 2 * P * problem_bytes(problem)
    return TiledRange(share.size, max(1, PIECE_BYTES // tile_bytes) * P)


def down_pieces(problem, share):
    """Ranges of the columns of H that one core finishes, each of weights that fit a piece."""
    bank_bytes = div_ceil(share.size, P) * COLUMNS * problem_bytes(problem)
    return TiledRange(share.width, max(1, PIECE_BYTES // bank_bytes) * COLUMNS)


def problem_bytes(problem):
    """Bytes of one weight."""
    return 1 if problem.gate_up_proj_scale is not None else 2


def load_gate_up(problem, gathered, share, piece, weights=None):
    """[128, H / 128, 2, piece] of gate and up weights, into `weights` if they may be there already."""
    hidden, intermediate = problem.hidden, problem.intermediate
    table = problem.gate_up_proj_weight
    if weights is None:
        weights = nl.ndarray((P, hidden // P, 2, piece.size), dtype=table.dtype, buffer=nl.sbuf)
    source = table.ap(
        pattern=[
            [2 * intermediate, P],
            [P * 2 * intermediate, hidden // P],
            [intermediate, 2],
            [1, piece.size],
        ],
        offset=share.first + piece.start_offset,
        scalar_offset=gathered.weights,
        indirect_dim=0,
    )
    _weights_copy(problem, weights, source)
    return weights


def _weights_copy(problem, dst, src):
    """Read weights; those of expert E, which there is none of, are in place."""
    if problem.skip.skip_weight:
        nisa.dma_copy(dst=dst, src=src, oob_mode=nisa.oob_mode.skip)
    else:
        nisa.dma_copy(dst=dst, src=src)


def load_down(problem, gathered, share, first, piece, weights=None):
    """[128, tiles of I, piece] of down weights, into `weights` if they may be there already."""
    hidden, table = problem.hidden, problem.down_proj_weight
    if weights is None:
        weights = nl.ndarray((P, div_ceil(share.size, P), piece.size), dtype=table.dtype, buffer=nl.sbuf)
    for stack in stacks(share.size):
        source = table.ap(
            pattern=[[hidden, stack.partitions], [P * hidden, stack.count], [1, piece.size]],
            offset=(share.first + stack.first * P) * hidden + first + piece.start_offset,
            scalar_offset=gathered.weights,
            indirect_dim=0,
        )
        _weights_copy(problem, weights[0 : stack.partitions, nl.ds(stack.first, stack.count), :], source)
    return weights


def _steps(scale, bias, upper, lower, tile, partitions, group):
    """What follows a projection, as (operator, operand) pairs in order."""
    steps = []
    if scale is not None:
        steps.append((nl.multiply, scale[0:partitions, tile, nl.ds(group, 1)]))
    if bias is not None:
        steps.append((nl.add, bias[0:partitions, tile, nl.ds(group, 1)]))
    if upper is not None:
        steps.append((nl.minimum, float(upper)))
    if lower is not None:
        steps.append((nl.maximum, float(lower)))
    return steps


def _apply(data, steps, dtype):
    """`data` after all `steps`, two an instruction."""
    result = data
    for pair in TiledRange(len(steps), 2):
        op0, operand0 = steps[pair.start_offset]
        after = nl.ndarray(data.shape, dtype=dtype, buffer=nl.sbuf)
        if pair.size == 2:
            op1, operand1 = steps[pair.start_offset + 1]
            nisa.tensor_scalar(dst=after, data=result, op0=op0, operand0=operand0, op1=op1, operand1=operand1)
        else:
            nisa.tensor_scalar(dst=after, data=result, op0=op0, operand0=operand0)
        result = after
    return result


def gate_up_tile(problem, weights, turned_rows, start, size):
    """Gate and up of `size` columns of I from `start` of a piece: two tiles of PSUM, [size, tokens]."""
    projected = []
    tokens = turned_rows.shape[2]
    for half in range(2):
        bank = nl.ndarray((size, tokens), dtype=nl.float32, buffer=nl.psum)
        tiles = problem.hidden // P
        for tile in range(tiles):
            nisa.nc_matmul(
                dst=bank,
                stationary=weights[:, tile, half, nl.ds(start, size)],
                moving=turned_rows[:, tile, :],
            )
        projected.append(bank)
    return projected


def activate(problem, share, gate_bank, up_bank, scale, bias, tile, target, checkpoint):
    """target = act(gate) * up, after scales, biases and clamps; both are stored to `checkpoint`, if given."""
    size, clamps = gate_bank.shape[0], problem.clamps
    act = get_nl_act_fn_from_type(problem.activation_function)
    gate_steps = _steps(scale, bias, clamps.gate_upper, clamps.gate_lower, tile, size, 0)
    up_steps = _steps(scale, bias, clamps.up_upper, clamps.up_lower, tile, size, 1)
    clamped = clamps.gate_upper is not None or clamps.gate_lower is not None
    activated = nl.ndarray(gate_bank.shape, dtype=problem.compute_dtype, buffer=nl.sbuf)
    if checkpoint is not None or clamped:
        gate = _apply(gate_bank, gate_steps, problem.compute_dtype)
        nisa.activation(dst=activated, op=act, data=gate)
    elif scale is not None and bias is not None:
        nisa.activation(
            dst=activated,
            op=act,
            data=gate_bank,
            scale=scale[0:size, tile, 0:1],
            bias=bias[0:size, tile, 0:1],
        )
    elif scale is not None:
        nisa.activation(dst=activated, op=act, data=gate_bank, scale=scale[0:size, tile, 0:1])
    elif bias is not None:
        nisa.activation(dst=activated, op=act, data=gate_bank, bias=bias[0:size, tile, 0:1])
    else:
        nisa.activation(dst=activated, op=act, data=gate_bank)
    if checkpoint is not None:
        up = _apply(up_bank, up_steps, problem.compute_dtype)
        _store_checkpoint(problem, share, checkpoint, gate, up, tile)
        nisa.tensor_tensor(dst=target, data1=activated, data2=up, op=nl.multiply)
    elif len(up_steps) % 2 == 1:  # the last step and the product are one instruction
        last = up_steps.pop()
        up = _apply(up_bank, up_steps, problem.compute_dtype)
        nisa.scalar_tensor_tensor(
            dst=target, data=up, op0=last[0], operand0=last[1], op1=nl.multiply, operand1=activated
        )
    else:
        up = _apply(up_bank, up_steps, problem.compute_dtype)
        nisa.tensor_tensor(dst=target, data1=activated, data2=up, op=nl.multiply)


def _store_checkpoint(problem, share, checkpoint, gate, up, tile):
    """Store gate and up of one tile of I; `checkpoint` is their two views [I, tokens] of one block."""
    for half in range(2):
        values = up if half else gate
        nisa.dma_copy(dst=checkpoint[half][nl.ds(share.first + tile * P, values.shape[0]), :], src=values)


def down_bank(share, weights, product, token, start, width):
    """One bank of PSUM of the down projection: [128 tokens, `width` columns from `start` of a piece]."""
    bank = nl.ndarray((P, width), dtype=nl.float32, buffer=nl.psum)
    for tile in TiledRange(share.size, P):
        nisa.nc_matmul(
            dst=bank,
            stationary=product[0 : tile.size, tile.index, nl.ds(token * P, P)],
            moving=weights[0 : tile.size, tile.index, nl.ds(start, width)],
        )
    return bank
