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

from ...utils.kernel_helpers import get_nl_act_fn_from_type
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
    if problem.postscaled():
        affinities = affinities_of(problem, ids, expert)
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
    targets = ids if problem.skip.skip_token else without_padding(problem, ids)
    return Gathered(block, expert, weights, ids, targets, affinities)


def without_padding(problem, ids):
    """Ids of rows of the result, far outside of it for padding: its row is named often, and by both cores."""
    outside = nl.ndarray(ids.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(
        dst=outside,
        data=ids,
        op0=nl.equal,
        operand0=float(problem.rows - 1),
        op1=nl.multiply,
        operand1=float(4 * problem.rows),
    )
    targets = nl.ndarray(ids.shape, dtype=nl.int32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=targets, data1=outside, data2=ids, op=nl.add)
    return targets


def _copy(dst, src, skips):
    """A copy by a run-time index, which may lie outside only if that `skips` it."""
    nisa.dma_copy(dst=dst, src=src, oob_mode=nisa.oob_mode.skip if skips else nisa.oob_mode.error)


def weights_copy(problem, dst, src):
    """Read weights; those of expert E, which there is none of, are in place."""
    _copy(dst, src, problem.skip.skip_weight)


def indexed_copy(problem, dst, src):
    """Gather rows; those of padding are left out where their ids are -1."""
    _copy(dst, src, problem.skip.skip_token)


def rows_of(problem, table, ids):
    """[128, tiles, H]: rows of `table`, [rows, H] in HBM, that `ids`, [128, tiles], name; 0 for padding."""
    tiles, hidden = ids.shape[1], problem.hidden
    rows = nl.ndarray((P, tiles, hidden), dtype=problem.compute_dtype, buffer=nl.sbuf)
    if problem.skip.skip_token:
        nisa.memset(dst=rows, value=0.0, engine=nisa.vector_engine)
    for tile in range(tiles):
        source = table.ap(
            pattern=[[hidden, P], [1, hidden]], vector_offset=ids[:, nl.ds(tile, 1)], indirect_dim=0
        )
        indexed_copy(problem, rows[:, tile, :], source)
    return rows


def affinity_places(problem, ids, expert):
    """[128, tiles] int32: where the affinity of each token of `ids` to the expert of their block is."""
    tiles = ids.shape[1]
    index = nl.ndarray((P, tiles), dtype=nl.int32, buffer=nl.sbuf)  # integers of gpsimd are exact
    nisa.memset(dst=index, value=problem.experts)
    nisa.tensor_tensor(dst=index, data1=index, data2=ids, op=nl.multiply)
    nisa.tensor_tensor(dst=index, data1=index, data2=expert.ap(pattern=[[1, P], [0, tiles]]), op=nl.add)
    return index


def affinities_of(problem, ids, expert):
    """[128, tiles] fp32: the affinity of the tokens of `ids`, [128, tiles], to the expert of their block."""
    tiles = ids.shape[1]
    index = affinity_places(problem, ids, expert)
    table = problem.expert_affinities_masked
    found = nl.ndarray((P, tiles), dtype=table.dtype, buffer=nl.sbuf)
    if problem.skip.skip_token:
        nisa.memset(dst=found, value=0.0)
    for tile in range(tiles):
        source = table.ap(pattern=[[1, P], [1, 1]], vector_offset=index[:, nl.ds(tile, 1)], indirect_dim=0)
        indexed_copy(problem, found[:, nl.ds(tile, 1)], source)
    result = nl.ndarray((P, tiles), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=result, src=found, engine=nisa.gpsimd_engine)
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


# --- between the projections


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


def _stored(bank, steps, dtype):
    """As :func:`_apply`, in SBUF though there be no step."""
    if len(steps) > 0:
        return _apply(bank, steps, dtype)
    result = nl.ndarray(bank.shape, dtype=dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=result, src=bank, engine=nisa.scalar_engine)
    return result


def activate(problem, gate_bank, up_bank, scale, bias, tile, target, checkpoint):
    """target = act(gate) * up, after scales, biases and clamps; both are stored to `checkpoint`, if given."""
    size, clamps = gate_bank.shape[0], problem.clamps
    act = get_nl_act_fn_from_type(problem.activation_function)
    gate_steps = _steps(scale, bias, clamps.gate_upper, clamps.gate_lower, tile, size, 0)
    up_steps = _steps(scale, bias, clamps.up_upper, clamps.up_lower, tile, size, 1)
    clamped = clamps.gate_upper is not None or clamps.gate_lower is not None
    activated = nl.ndarray(gate_bank.shape, dtype=problem.compute_dtype, buffer=nl.sbuf)
    if checkpoint is not None or clamped:
        gate = _stored(gate_bank, gate_steps, problem.compute_dtype)
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
        up = _stored(up_bank, up_steps, problem.compute_dtype)
        nisa.dma_copy(dst=checkpoint[0], src=gate)
        nisa.dma_copy(dst=checkpoint[1], src=up)
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
