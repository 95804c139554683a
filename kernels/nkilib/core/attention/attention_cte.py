"""Attention for context encoding: whole sequences of queries.

    out = softmax(scale * q @ k.T + mask) @ v

The schedule is flash attention. Queries are taken 128 at a time (a tile, on the partitions), keys up to
1024 at a time; the scores of a tile and of such keys are a unit, which exists in PSUM only. With m the
largest score of a row so far, exp(s - m) its weights, and a 1 that every value carries as one more element:

    m' = max(m, max of the unit)      total = total * exp(m - m') + exp(s - m') @ [v, 1]

so the last column of `total` is the sum of the weights, and the tile ends with one division. The sink is
what m and `total` start from.

What a full unit costs on trn2 at d = 128, in ns, each engine on a different unit at any moment:

    tensor   993   scores: 2 matmuls of 512 keys; 2 or 3 of 8 blocks of weights transposed; 8 products
    scalar   996   exp of the whole unit, straight from PSUM: the scale and -m are its scale and bias
    vector   995   the maximum; transposed blocks from PSUM to SBUF; product + total
    DMA      960   the other blocks of weights transposed, SBUF to SBUF
    gpsimd   340   m, exp(m - m') as a power of e, total * exp(m - m'); the division

Scores and products, all that counts as work, need 853 of these. The choices behind it:

- Weights must have their keys on the partitions to meet the values. The tensor engine alone would spend
  half as much again on transposes as on work, DMA alone would be slower than exp. Together they fit: 5 of
  16 blocks here, the rest there.
- The vector engine reads one fp32 score a cycle, but two bf16. The upper half of an fp32 is a bf16, so it
  reads every second 16-bit element. That is a maximum to 7 bits, which is enough: it only keeps exp in
  range, and numerator and denominator use the same one. With `cache_softmax`, which returns the maximum,
  and where range_select masks, the scores are read as fp32.
- Masks whose place is known are added to the scores by the tensor engine: a matmul of the identity with a
  [128, 128] tile of 0 and -2^100, only for blocks on an edge. Blocks outside the mask are not computed.
- Where positions are known at run time only (context parallelism, a window over prior keys), range_select
  masks by two bounds per row while it takes the maximum and moves the scores to SBUF.
- Keys that do not count cost nothing per score, see :mod:`.attention_cte_io`.
- The product with the values comes 8 units after the scores, which hides the 4 us of a DMA transpose.

SBUF, KiB per partition, for n keys: keys n / 512, values n / 512 + n / 65536 (73 each at the 36,864 that
fit); queries 2, weights 18 to 32, fp32 scores of masked units 4 each, results 4 in fp32. Keys and values
are loaded once, a chunk ahead of the scores that need them; those of the next head while this one is worked
on, if both fit. Two programs share the heads; of an odd last head they take tiles of queries in turn, which
balances a causal mask.

16,384 queries and keys, d = 128, bf16, causal, one core: 1127 us, of which the tensor engine at its peak
needs 874: 78 %. docs/library/how-attention-got-fast.md walks there in five steps.
"""

import math

import nki
import nki.isa as nisa
import nki.language as nl

from ..utils.kernel_helpers import div_ceil, get_verified_program_sharding_info
from .attention_cte_io import Unused, load_keys, load_queries, load_values, store_results
from .attention_cte_plan import (
    CHUNK_TILES,
    TILE,
    UNIT_BLOCKS,
    Call,
    Head,
    Problem,
    Segment,
    Work,
    blocks_of,
    mask_delta,
    units_of,
)
from .attention_cte_setup import (
    bounds_of,
    check_arguments,
    everywhere,
    factor_of,
    mask_of,
    place_queries,
    used_of,
)

MATMUL_COLUMNS = 512
CHUNK_BLOCKS = 8  # blocks of keys and values that are loaded together

# Units between the scores of one and the later work on it; the engines are busy with those in between.
TURN_LAG = 3  # its transposes on the tensor engine
VALUE_LAG = 8  # its product with the values, which waits for the DMA transposes

# Banks of PSUM: three pairs for scores, one for transposes, one for products with values. Tensors are new for
# each unit, at the same addresses in turn: the first matmul onto a tensor overwrites it at every API level.
SCORE_BUFFERS = 3
BANK_BYTES = 2048
TURN_BANK = 6
TURN_SLOTS = 2
VALUE_BANK = 7
VALUE_SLOTS = 3

# Sixteenths of the blocks that the tensor engine transposes; DMA does the others.
TURNED_ON_PE = 6
MOST_TURNED = 3  # blocks of a unit

SBUF_BYTES = 208 * 1024  # of a partition, what a kernel may use on trn2
SPARE_BYTES = 48 * 1024  # what the kernel uses beside keys and values


@nki.jit
def attention_cte(
    q,
    k,
    v,
    scale=1.0,
    causal_mask=True,
    k_prior=None,
    v_prior=None,
    prior_used_len=None,
    sink=None,
    sliding_window=None,
    tp_q=True,
    tp_k=False,
    tp_out=False,
    cache_softmax=False,
    softmax_dtype=nl.float32,
    cp_offset=None,
    global_cp_deg=None,
    cp_strided_q_slicing=False,
):
    """softmax(scale * q @ k.T + mask) @ v for every head, HBM to HBM.

    batch_size counts heads of queries over the whole batch, batch_size_kv those of keys and values; query
    head b uses key head b // (batch_size / batch_size_kv). Tensors are bf16, fp16 or fp32; fp32 is rounded to
    bf16 as it is loaded, and weights are bf16.

    Args:
        q: [batch_size, seqlen_q, d] if `tp_q`, else [batch_size, d, seqlen_q]; d at most 128.
        k: [batch_size_kv, seqlen_kv, d] if `tp_k`, else [batch_size_kv, d, seqlen_kv].
        v: [batch_size_kv, seqlen_kv, d].
        scale: of the scores, positive; 1.0 with a window, prior keys or context parallelism.
        causal_mask: query i sees key j only if j <= i.
        k_prior, v_prior: keys and values of a cache, as k and v with their own length; they stand before the
            active ones, and every query sees them.
        prior_used_len: [1] int32, how many of them count; known at run time.
        sink: [batch_size, 1], the logit of one more key that has no value.
        sliding_window: a query sees so many keys at most, itself included: 0 <= i - j < sliding_window, prior
            key j counting as j - prior_used_len. None or 0: all. Causal only.
        tp_q, tp_k, tp_out: layouts, as above and below.
        cache_softmax: also return the statistics of the softmax, exactly; seqlen_q a multiple of 128.
        softmax_dtype: their dtype.
        cp_offset: [1, 1] int32, known at run time: q is one rank's slice of a longer sequence. Causal only.
        global_cp_deg: ranks, 1 to 32; given together with `cp_offset`.
        cp_strided_q_slicing: False: `cp_offset` is rank * seqlen_q, query i stands at cp_offset + i. True:
            `cp_offset` is the rank, query i stands at cp_offset + i * global_cp_deg.

    Returns:
        [batch_size, d, seqlen_q] if `tp_out`, else [batch_size, seqlen_q, d], of the dtype of `q`. With
        `cache_softmax` also minus the row maximum and 1 / the row sum, [batch_size, 128, seqlen_q / 128]
        each, row r at [r % 128, r // 128]; they include the sink.

    Limits: batch_size 32; seqlen_q 36864; seqlen_kv, prior keys included, 36864. Without `cache_softmax` the
    maximum is known to 7 bits, so scaled scores are at most 10,000 in magnitude.
    Errors: anything else is refused by name, with the value and the limit.
    """
    window = 0 if sliding_window is None else sliding_window
    sizes = check_arguments(
        q, k, v, scale, causal_mask, k_prior, v_prior, prior_used_len, sink, window, tp_q, tp_k,
        cache_softmax, cp_offset, global_cp_deg,
    )  # fmt: skip
    heads, queries, keys, prior, d = sizes
    _, programs, program = get_verified_program_sharding_info("attention_cte", (0, 1), 2)

    out_shape = (heads, d, queries) if tp_out else (heads, queries, d)
    out = nl.ndarray(out_shape, dtype=q.dtype, buffer=nl.shared_hbm)
    result = out
    statistics = None
    if cache_softmax:
        shape = (heads, TILE, queries // TILE)
        negative_max = nl.ndarray(shape, dtype=softmax_dtype, buffer=nl.shared_hbm)
        reciprocal = nl.ndarray(shape, dtype=softmax_dtype, buffer=nl.shared_hbm)
        statistics = (negative_max, reciprocal)
        result = (out, negative_max, reciprocal)

    shares = _shares(heads, queries, programs, program)
    if len(shares) == 0:
        return result
    problem = Problem(
        queries, keys, prior, d, causal_mask, window, 0, 1, scale, cache_softmax,
    )  # fmt: skip
    call = Call(problem, q, k, v, k_prior, v_prior, sink, out, statistics, tp_q, tp_k, tp_out, prior_used_len)
    call.masks = {}
    call.dtype = nl.float16 if v.dtype == nl.float16 else nl.bfloat16
    place_queries(call, cp_offset, global_cp_deg, cp_strided_q_slicing)
    groups = _groups(call, shares, heads // k.shape[0])
    bytes_of_a_group = 2 * (blocks_of(problem.keys) + blocks_of(problem.prior)) * (TILE + d + 1)
    together = 2 * bytes_of_a_group + SPARE_BYTES <= SBUF_BYTES
    if together:
        works = []
        for group in groups:
            works += group
        _attend(call, works)
    else:
        for group in groups:
            _attend(call, group)
    return result


def _shares(heads, queries, programs, program):
    """What one program works on: (head, first tile, stride) each; tiles of an odd last head alternate."""
    half = heads // programs
    shares = []
    for head in range(program * half, (program + 1) * half):
        shares.append((head, 0, 1))
    if heads % programs != 0:
        if blocks_of(queries) >= programs:
            shares.append((heads - 1, program, programs))
        elif program == 0:
            shares.append((heads - 1, 0, 1))
    return shares


def _groups(call, shares, heads_per_kv):
    """The units of all heads, one list for each head of keys and values."""
    groups = []
    last_row = -1
    for share in shares:
        row, first, stride = share
        if row // heads_per_kv != last_row:
            last_row = row // heads_per_kv
            group = {"row": last_row, "active": None, "prior": None}
            groups.append([])
        tiles = div_ceil(blocks_of(call.problem.queries) - first, stride)
        head = Head(row, group, first, stride, tiles)
        for index in range(tiles):
            for unit in units_of(call.problem, first + index * stride):
                groups[len(groups) - 1].append(Work(head, index, unit))
    return groups


# --- the pipeline


def _attend(call, works):
    """All units, each a few behind the other on the engines that follow."""
    for step in range(len(works) + VALUE_LAG):
        if step >= VALUE_LAG:
            _decay(call, works[step - VALUE_LAG])
        if step < len(works):
            _scores(call, works[step], step)
        if TURN_LAG <= step < len(works) + TURN_LAG:
            _turn(works[step - TURN_LAG], step - TURN_LAG)
        if step >= VALUE_LAG:
            _values(call, works[step - VALUE_LAG], step - VALUE_LAG)


def _scores(call, work, number):
    """Scores of a unit, their maximum, and the weights exp(score - maximum); starts turning them."""
    problem, head, unit = call.problem, work.head, work.unit
    if unit.opens:
        _open_tile(call, head, work.index)
    _load_group(call, head.group, unit)
    keys = head.group["prior" if unit.is_prior else "active"].keys
    queries = head.queries[:, work.index % CHUNK_TILES, :]
    columns = unit.count * TILE

    banks = nl.ndarray(
        (TILE, UNIT_BLOCKS * TILE), dtype=nl.float32, buffer=nl.psum,
        address=(0, number % SCORE_BUFFERS * 2 * BANK_BYTES),
    )  # fmt: skip
    scores = banks[:, 0:columns]
    for first in range(0, columns, MATMUL_COLUMNS):
        span = nl.ds(first, min(MATMUL_COLUMNS, columns - first))
        there = nl.ds(unit.first * TILE + first, min(MATMUL_COLUMNS, columns - first))
        nisa.nc_matmul(dst=scores[:, span], stationary=queries, moving=keys[:, there])
    if not unit.is_prior and not unit.bounded:
        for block in range(unit.count):
            delta = mask_delta(problem, unit.tile, unit.first + block)
            if delta is not None:
                mask = mask_of(call, delta)
                nisa.nc_matmul(
                    dst=scores[:, nl.ds(block * TILE, TILE)], stationary=call.identity, moving=mask
                )

    work.bias = _bias(call, work, banks, scores)
    work.weights = nl.ndarray((TILE, columns), dtype=nl.bfloat16, buffer=nl.sbuf)
    source = work.masked if unit.bounded else scores
    nisa.activation(dst=work.weights, op=nl.exp, data=source, scale=problem.scale, bias=work.bias)
    work.turned = nl.ndarray((TILE, unit.count, TILE), dtype=nl.bfloat16, buffer=nl.sbuf)
    work.by_pe = (TURNED_ON_PE * unit.count + 8 * (number % 2)) // 16
    by_dma = unit.count - work.by_pe
    nisa.dma_transpose(
        dst=work.turned[:, 0:by_dma, :],
        src=work.weights[:, 0 : by_dma * TILE].reshape((TILE, by_dma, TILE)),
    )


def _bias(call, work, banks, scores):
    """Minus the largest scaled score of each query so far, [128, 1]; and how the sums before decay."""
    problem, head, unit = call.problem, work.head, work.unit
    columns = unit.count * TILE
    exact = unit.bounded or problem.exact
    largest = nl.ndarray((TILE, 1), dtype=nl.float32 if exact else nl.bfloat16, buffer=nl.sbuf)
    if unit.bounded:
        tile = nl.ds(unit.tile, 1)
        work.masked = nl.ndarray((TILE, columns), dtype=nl.float32, buffer=nl.sbuf)
        upper, lower = bounds_of(call, unit.is_prior)
        nisa.range_select(
            dst=work.masked, on_true_tile=scores, reduce_res=largest, reduce_cmd=nisa.reduce_cmd.reset_reduce,
            reduce_op=nl.maximum, range_start=unit.first * TILE, comp_op0=nl.less_equal,
            bound0=upper[:, tile], comp_op1=nl.greater, bound1=lower[:, tile],
        )  # fmt: skip
    elif exact:
        nisa.tensor_reduce(dst=largest, op=nl.maximum, data=scores, axis=1, negate=True)
    else:
        # The upper halves of fp32 scores, read as bf16: two a cycle instead of one.
        halves = banks.ap(pattern=[[2 * UNIT_BLOCKS * TILE, TILE], [2, columns]], offset=1, dtype=nl.bfloat16)
        nisa.tensor_reduce(dst=largest, op=nl.maximum, data=halves, axis=1, negate=True)
    if unit.bounded or problem.scale != 1.0:
        scaled = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(
            dst=scaled, data1=largest, data2=factor_of(call), op=nl.multiply, engine=nisa.gpsimd_engine
        )
        largest = scaled
    if unit.opens and head.sink_bias is None:
        head.bias = largest
        return largest
    before = head.sink_bias if unit.opens else head.bias
    head.bias = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=head.bias, data1=largest, data2=before, op=nl.minimum, engine=nisa.gpsimd_engine)
    change = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=change, data1=head.bias, data2=before, op=nl.subtract, engine=nisa.gpsimd_engine)
    work.decay = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(
        dst=work.decay, data=change, op0=nl.power, operand0=math.e, reverse0=True, engine=nisa.gpsimd_engine
    )
    return head.bias


def _turn(work, number):
    """The last blocks of weights, transposed on the tensor engine while the DMA engines do the others."""
    unit = work.unit
    by_pe = work.by_pe
    if by_pe == 0:
        return
    bank = nl.ndarray(
        (TILE, TURN_SLOTS, MOST_TURNED, TILE), dtype=nl.bfloat16, buffer=nl.psum,
        address=(0, TURN_BANK * BANK_BYTES),
    )  # fmt: skip
    slot = number % TURN_SLOTS
    for i in range(by_pe):
        block = unit.count - by_pe + i
        nisa.nc_transpose(dst=bank[:, slot, i, :], data=work.weights[:, nl.ds(block * TILE, TILE)])
    nisa.tensor_copy(
        dst=work.turned[:, unit.count - by_pe : unit.count, :], src=bank[:, slot, 0:by_pe, :],
        engine=nisa.vector_engine,
    )  # fmt: skip


def _decay(call, work):
    """The sums of the tile so far, as they count beside this unit, whose maximum may be larger."""
    if work.decay is None:
        return
    d = call.problem.d
    work.decayed = nl.ndarray((TILE, d + 1), dtype=nl.float32, buffer=nl.sbuf)
    if work.unit.opens:  # before it there is the sink alone: its weight is 1, and it has no value
        nisa.memset(dst=work.decayed[:, 0:d], value=0.0)
        nisa.tensor_copy(dst=work.decayed[:, d : d + 1], src=work.decay, engine=nisa.gpsimd_engine)
    else:
        nisa.tensor_tensor(
            dst=work.decayed, data1=work.head.total, data2=work.decay.ap(pattern=[[1, TILE], [0, d + 1]]),
            op=nl.multiply, engine=nisa.gpsimd_engine,
        )  # fmt: skip


def _values(call, work, number):
    """Adds a unit's product of weights and values, and with them the sum of weights, to its tile."""
    head, unit = work.head, work.unit
    d = call.problem.d
    values = head.group["prior" if unit.is_prior else "active"].values
    bank = nl.ndarray(
        (TILE, VALUE_SLOTS, d + 1), dtype=nl.float32, buffer=nl.psum, address=(0, VALUE_BANK * BANK_BYTES)
    )
    product = bank[:, number % VALUE_SLOTS, :]
    for block in range(unit.count):
        nisa.nc_matmul(
            dst=product, stationary=work.turned[:, block, :], moving=values[:, unit.first + block, :]
        )
    total = nl.ndarray((TILE, d + 1), dtype=nl.float32, buffer=nl.sbuf)
    if work.decay is None:
        nisa.tensor_copy(dst=total, src=product, engine=nisa.vector_engine)
    else:
        nisa.tensor_tensor(dst=total, data1=work.decayed, data2=product, op=nl.add)
    head.total = total
    if unit.closes:
        _close_tile(call, work, total)


# --- where a head, a tile of queries and a group of tiles begin and end


def _load_group(call, group, unit):
    """The keys and values that a unit needs and the chunk behind them, unless they are there."""
    problem, row = call.problem, group["row"]
    if group["active"] is None:
        group["active"] = _segment(call, problem.keys)
        _load_blocks(call, row, group["active"], call.k, call.v, 1, None)
        if problem.prior > 0:
            group["prior"] = _segment(call, problem.prior)
    upto = unit.first + unit.count + CHUNK_BLOCKS
    if unit.is_prior:
        unused = Unused(used_of(call), group["active"].keys)
        _load_blocks(call, row, group["prior"], call.k_prior, call.v_prior, upto, unused)
    else:
        _load_blocks(call, row, group["active"], call.k, call.v, upto, None)


def _segment(call, length):
    blocks, d = blocks_of(length), call.problem.d
    keys = nl.ndarray((d, blocks * TILE), dtype=call.dtype, buffer=nl.sbuf)
    values = nl.ndarray((TILE, blocks, d + 1), dtype=call.dtype, buffer=nl.sbuf)
    return Segment(keys, values, length, 0)


def _load_blocks(call, row, segment, k, v, upto, unused):
    """Chunks of keys and values until `upto` blocks are there."""
    blocks = blocks_of(segment.length)
    start = call.start if unused is None else None
    while segment.loaded < min(upto, blocks):
        first = segment.loaded
        last = min(first + CHUNK_BLOCKS, blocks)
        load_keys(segment.keys, k, row, first, last, segment.length, call.tp_k, start, unused)
        load_values(segment.values, v, row, first, last, segment.length, start, unused)
        segment.loaded = last


def _open_tile(call, head, index):
    """The next chunk of queries where a tile begins one; the sink and statistics where it begins the head."""
    if index == 0:
        if call.sink is not None:
            sink = everywhere(call.sink, head.row)
            head.sink_bias = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_scalar(dst=head.sink_bias, data=sink, op0=nl.multiply, operand0=-1.0)
        if call.statistics is not None:
            dtype = call.statistics[0].dtype
            head.negative_max = nl.ndarray((TILE, head.tiles), dtype=dtype, buffer=nl.sbuf)
            head.reciprocal = nl.ndarray((TILE, head.tiles), dtype=dtype, buffer=nl.sbuf)
        head.following = load_queries(call, head, 0)
    if index % CHUNK_TILES == 0:
        head.queries = head.following
        if index + CHUNK_TILES < head.tiles:
            head.following = load_queries(call, head, index + CHUNK_TILES)


def _close_tile(call, work, total):
    """Divides by the sum of weights; stores where the tile ends its chunk."""
    head, index = work.head, work.index
    d = call.problem.d
    if index % CHUNK_TILES == 0:
        tiles = min(CHUNK_TILES, head.tiles - index)
        head.results = nl.ndarray((TILE, tiles, d), dtype=call.out.dtype, buffer=nl.sbuf)
    result = head.results[:, index % CHUNK_TILES, :]
    reciprocal = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(
        dst=reciprocal, data=total[:, d : d + 1], op0=nl.power, operand0=-1.0, engine=nisa.gpsimd_engine
    )
    nisa.tensor_tensor(
        dst=result, data1=total[:, 0:d], data2=reciprocal.ap(pattern=[[1, TILE], [0, d]]), op=nl.multiply,
        engine=nisa.gpsimd_engine,
    )  # fmt: skip
    if call.statistics is not None:
        nisa.tensor_copy(dst=head.negative_max[:, nl.ds(index, 1)], src=work.bias, engine=nisa.gpsimd_engine)
        nisa.tensor_copy(dst=head.reciprocal[:, nl.ds(index, 1)], src=reciprocal, engine=nisa.gpsimd_engine)
    if index % CHUNK_TILES == CHUNK_TILES - 1 or index == head.tiles - 1:
        store_results(call, head, index // CHUNK_TILES * CHUNK_TILES)
    if index == head.tiles - 1 and call.statistics is not None:
        tiles = call.problem.queries // TILE
        pattern = [[tiles, TILE], [head.stride, head.tiles]]
        offset = head.row * TILE * tiles + head.first
        nisa.dma_copy(dst=call.statistics[0].ap(pattern=pattern, offset=offset), src=head.negative_max)
        nisa.dma_copy(dst=call.statistics[1].ap(pattern=pattern, offset=offset), src=head.reciprocal)
