"""Affinities of tokens to experts, as the products need them."""

import nki.isa as nisa
import nki.language as nl

from ...utils.kernel_helpers import div_ceil, is_hbm_buffer
from ...utils.tensor_view import TensorView
from ...utils.tiled_range import TiledRange
from .moe_parameters import PARTITIONS, MoeArguments

BANK = 512


def load_rank(a: MoeArguments):
    """Which of the parts of all experts is here, [1, 1] in SBUF; None where no affinities are read."""
    if not a.uses_affinities():
        return None
    rank = nl.ndarray((1, 1), dtype=a.rank_id.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=rank, src=a.rank_id)
    return rank


def local_affinities(a: MoeArguments, rank, first_token: int, tokens: int):
    """Affinities of up to 128 tokens to the experts whose weights are here: fp32 [tokens, E_L] in SBUF."""
    local = nl.ndarray((tokens, a.experts), dtype=nl.float32, buffer=nl.sbuf)
    here = nl.ds(first_token, tokens)
    if rank is None:
        nisa.memset(dst=local, value=1.0)
        return local
    ranks = a.affinities.shape[1] // a.experts
    everything = TensorView(a.affinities[here, :]).reshape_dim(1, (ranks, a.experts))
    nisa.dma_copy(dst=local, src=everything.select(1, rank).get_view())
    if a.mask_unselected:
        selected = _load(a.index[here, :], nl.float32)
        first = nl.ndarray((tokens, 1), dtype=nl.float32, buffer=nl.sbuf)
        ranks_of_tokens = nl.ndarray((tokens, 1), dtype=a.rank_id.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=ranks_of_tokens, src=TensorView(a.rank_id).broadcast(0, tokens).get_view())
        nisa.tensor_scalar(dst=first, data=ranks_of_tokens, op0=nl.multiply, operand0=float(a.experts))
        nisa.tensor_scalar(dst=selected, data=selected, op0=nl.subtract, operand0=first)
        experts = _numbers(tokens, a.experts)
        mask = nl.ndarray((tokens, a.experts), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=mask, value=0.0)
        for k in range(a.top_k):
            nisa.scalar_tensor_tensor(
                dst=mask,
                data=experts,
                op0=nl.equal,
                operand0=selected[:, nl.ds(k, 1)],
                op1=nl.maximum,
                operand1=mask,
            )
        nisa.tensor_tensor(dst=local, data1=local, data2=mask, op=nl.multiply)
    return local


def selected_affinities(a: MoeArguments):
    """Affinities of all tokens to the experts they have selected.

    Returns:
        (fp32 [T, K], fp32 [T, E]) in SBUF: by selection, and by expert with 0 for those not selected; the
        second is None unless there is a bias of the down projection.
    """
    by_choice = nl.ndarray((a.tokens, a.top_k), dtype=nl.float32, buffer=nl.sbuf)
    by_expert = None
    choices = None
    if a.down_bias is not None or (a.uses_affinities() and a.affinities_eager is None):
        choices = _load(a.index, nl.float32)
    if not a.uses_affinities():
        nisa.memset(dst=by_choice, value=1.0)
    elif a.affinities_eager is not None:
        by_choice = _load(a.affinities_eager, nl.float32)
    else:
        affinities = _load(a.affinities, nl.float32)
        experts = _numbers(a.tokens, affinities.shape[1])
        for k in range(a.top_k):
            chosen = nl.ndarray(affinities.shape, dtype=nl.float32, buffer=nl.sbuf)
            nisa.scalar_tensor_tensor(
                dst=chosen,
                data=experts,
                op0=nl.equal,
                operand0=choices[:, nl.ds(k, 1)],
                op1=nl.multiply,
                operand1=affinities,
            )
            nisa.tensor_reduce(dst=by_choice[:, nl.ds(k, 1)], op=nl.add, data=chosen, axis=1)
    if a.down_bias is not None:
        experts = _numbers(a.tokens, a.experts)
        by_expert = nl.ndarray((a.tokens, a.experts), dtype=nl.float32, buffer=nl.sbuf)
        for k in range(a.top_k):
            chosen = by_expert
            if k > 0:
                chosen = nl.ndarray(by_expert.shape, dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_scalar(
                dst=chosen,
                data=experts,
                op0=nl.equal,
                operand0=choices[:, nl.ds(k, 1)],
                op1=nl.multiply,
                operand1=by_choice[:, nl.ds(k, 1)],
            )
            if k > 0:
                nisa.tensor_tensor(dst=by_expert, data1=by_expert, data2=chosen, op=nl.add)
    return by_choice, by_expert


def _load(tensor, dtype):
    """A matrix of HBM or SBUF in SBUF, in another dtype."""
    source = tensor
    if is_hbm_buffer(tensor):
        source = nl.ndarray(tensor.shape, dtype=tensor.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=source, src=tensor)
    if tensor.dtype == dtype:
        return source
    tile = nl.ndarray(tensor.shape, dtype=dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=tile, src=source)
    return tile


def _numbers(rows, count):
    """0, 1, ... count - 1 in each row, fp32."""
    integers = nl.ndarray((rows, count), dtype=nl.int32, buffer=nl.sbuf)
    nisa.iota(dst=integers, pattern=[[1, count]])
    numbers = nl.ndarray((rows, count), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=numbers, src=integers)
    return numbers


def in_all_partitions(matrix, identity):
    """matrix [T, N] as [128, N, T] fp32 in SBUF, the same in every partition; identity fp32 [128, 128]."""
    tokens, count = matrix.shape
    result = nl.ndarray((PARTITIONS, count, tokens), dtype=nl.float32, buffer=nl.sbuf)
    for group in TiledRange(count, BANK // tokens):
        sums = nl.ndarray((PARTITIONS, group.size, tokens), dtype=nl.float32, buffer=nl.psum)
        for n in range(group.size):
            column = TensorView(matrix).slice(1, group.start_offset + n, group.start_offset + n + 1)
            nisa.nc_matmul(
                dst=sums[:, n, :],
                stationary=column.broadcast(1, PARTITIONS).get_view(),
                moving=identity[nl.ds(0, tokens), nl.ds(0, tokens)],
                is_moving_onezero=True,
            )
        nisa.tensor_copy(dst=result[:, nl.ds(group.start_offset, group.size), :], src=sums)
    return result


def numbers_of_nonzero(affinities, multiple):
    """Which experts have a token with an affinity, of [128, N, T] that is the same in every partition.

    Returns:
        int32 [1, M] in SBUF, M the next multiple of `multiple`: their numbers in order, then -1.
    """
    count, tokens = affinities.shape[1], affinities.shape[2]
    unequal = nl.ndarray((1, count, tokens), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=unequal, data=affinities[0:1], op0=nl.not_equal, operand0=0.0)
    some = nl.ndarray((1, count), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=some, op=nl.maximum, data=unequal, axis=2)
    size = div_ceil(count, multiple) * multiple
    numbers = nl.ndarray((1, size + 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(dst=numbers, value=-1)
    nisa.nonzero_with_count(dst=numbers[:, nl.ds(0, count + 1)], src=some)
    nisa.memset(dst=numbers[:, nl.ds(count, 1)], value=-1)  # how many there are
    return numbers[:, nl.ds(0, size)]


def count_not_negative(numbers):
    """How many of the integers of one partition are not negative: int32 [1, 1] in SBUF."""
    flags = nl.ndarray(numbers.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=flags, data=numbers, op0=nl.greater_equal, operand0=0.0)
    count = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=count, op=nl.add, data=flags, axis=1)
    return count


def loaded(number):
    """A register with an integer that is in SBUF."""
    register = nisa.register_alloc()
    nisa.register_load(register, number)
    return register


def by_expert_rows(matrix, dtype):
    """matrix [T, N] fp32 turned: [128, ceil(N / 128), T] in SBUF."""
    tokens, count = matrix.shape
    result = nl.ndarray((PARTITIONS, div_ceil(count, PARTITIONS), tokens), dtype=dtype, buffer=nl.sbuf)
    for block in TiledRange(count, PARTITIONS):
        turned = nl.ndarray((block.size, tokens), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_transpose(dst=turned, data=matrix[:, nl.ds(block.start_offset, block.size)])
        nisa.tensor_copy(dst=result[nl.ds(0, block.size), block.index, :], src=turned)
    return result
