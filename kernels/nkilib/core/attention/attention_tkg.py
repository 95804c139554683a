"""Attention for token generation: a few new tokens of each sequence against a cache of keys.

    out = softmax(q @ [cache, new].T + mask) @ [cache, new]

What limits it is reading the cache once, and nearly as much that 128 keys, and their values, are stationary
for few columns: 107 ns each on the tensor engine, 183 ns for both in HBM. All else runs beside that. Scores
are made transposed, keys on the partitions: a tile is 128 keys, and a row one head of one new token. Softmax
then works on all 128 partitions however few rows there are, and its weights have the layout in which they
meet the values.

A unit is a section of the keys of some sequences, as many as fill a few tiles. Of each:

    DMA      keys [d, n] or [128, tiles, d], values [128, tiles, d], in runs of kilobytes; the keys of the
             next unit before the values, so that its weights are there when its values are
    tensor   keys that come with d last, transposed; scores of a tile: stationary keys, moving queries
    gpsimd   -inf into the scores; scores - maximum
    vector   scores over it where the mask says so; maximum over tiles; maximum of 128 partitions, transposed
             by the tensor engine; which a second transpose brings back to every partition
    scalar   exp
    tensor   sums of weighted values: stationary values, moving weights; sums of weights: a product with ones,
             which leaves them on every partition, where the division needs them

With more than 8192 keys for one core, sections follow each other and the sums before a new maximum are
scaled down, as in flash attention. The sink is where the maximum starts, and one more weight in the sum.

A partition holds `run` neighbouring keys: key (f * 128 + p) * run + j is in partition p, tile f * run + j.
The run is a whole section with `strided_mm1`, the piece of a block with a block cache, else 1. The new keys
and values take the place of the last ones in SBUF; the cache in HBM is not written.

Two programs share the batch or the keys, as :mod:`.attention_tkg_utils` says. With the keys shared, each
finds its sums and its maximum for all rows, they exchange them once, and each finishes all rows; of a
result in HBM it stores half.

SBUF, per partition and unit of G sequences, T tiles and r rows each: keys 2 * 128 * G * T bytes, values and
untransposed keys 2 * d * G * T, scores and weights 6 * T * G * r; up to three units, the mask T bytes for
each row. Sections shrink where `sbm` has less room than that.
"""

import math

import nki.isa as nisa
import nki.language as nl

from ..utils.allocator import sizeinbytes
from ..utils.kernel_helpers import div_ceil, get_verified_program_sharding_info
from .attention_tkg_check import check_arguments
from .attention_tkg_io import (
    load_aside,
    load_keys,
    load_mask,
    load_table,
    load_values,
    prepare_operands,
    settle_keys,
    store_debug_rows,
    store_debug_scores,
    store_debug_weights,
    store_results,
)
from .attention_tkg_plan import Call, Finish, Slot, Unit, share_of
from .attention_tkg_utils import (  # noqa: F401, callers import what they need from here as well
    AttnTKGConfig,
    TileConstants,
    is_batch_sharded,
    is_fp8_e4m3,
    is_s_prior_sharded,
    resize_cache_block_len_for_attention_tkg_kernel,
    uses_flash_attention,
)

TILE = 128
BANK = 512  # fp32 elements
BANK_BYTES = 2048
NOTHING = -1e30  # the maximum of a row that sees no key yet

# Banks of PSUM.
SCORE_BANK, SCORE_BANKS = 0, 3
TURN_BANK, TURN_BANKS = 3, 2
MAX_BANK, MAX_BANKS = 5, 1
VALUE_BANK, VALUE_BANKS = 6, 1
SUM_BANK = 7

UNIT_TILES = 64  # tiles of keys, over all sequences of a unit, that one unit takes if it can
UNIT_COLUMNS = 2048  # scores of a partition in such a unit


def attention_tkg(
    q,
    k_active,
    v_active,
    k_prior,
    v_prior,
    mask,
    out,
    cfg,
    sbm,
    inv_freqs=None,
    rope_pos_ids=None,
    sink=None,
    active_blocks_table=None,
    k_out=None,
    DBG_TENSORS=None,
):
    """Attention of `s_active` new tokens of each sequence; called by kernels.

    Args:
        q: [d, B * H * s] in SBUF with `cfg.qk_in_sb`, else in HBM [B, H, s, d] or [B, d, H, s].
        k_active: new keys, [d, B * s] in SBUF with `cfg.qk_in_sb`, else in HBM [B, 1, s, d] or [B, d, s].
        v_active: new values, [B, 1, s, d] in HBM.
        k_prior: cache of keys in HBM, [B+, 1, d, full_sprior], or [B+, 1, full_sprior, d] with
            `cfg.tp_k_prior`; a block cache is [blocks, block_len, d]. Sequences beyond B are not read.
        v_prior: cache of values, [B+, 1, full_sprior, d] or [blocks, block_len, d].
        mask: uint8 in HBM, 0 where a key is not seen: [curr_sprior, B, H, s] over the whole window, or with
            `cfg.use_pos_id` [s, B, H, s] over the new keys, the others being seen below `rope_pos_ids[b, 0]`.
            With a block cache its rows are in the order of tiles: row t * 128 + p is the key of partition p
            and tile t. New keys stand for the last s of the window.
        out: [d, B * H * s] in SBUF with `cfg.out_in_sb`, else [B, H, d, s] in HBM; written.
        cfg: sizes and choices.
        sbm: where tiles in SBUF come from; what is taken is given back.
        inv_freqs: [d / 2, 1] fp32, with `cfg.fuse_rope`: q and k_active are rotated, contiguous halves, and q
            is multiplied by 1 / sqrt(d). Without it nothing is scaled.
        rope_pos_ids: [B, s] fp32, with `cfg.fuse_rope` or `cfg.use_pos_id`.
        sink: [H, 1] fp32, the logit of one more key that has no value; or None.
        active_blocks_table: [B, curr_sprior / block_len] uint32, the blocks of each sequence.
        k_out: with `cfg.fuse_rope`, the rotated new keys: [d, B * s] in SBUF with `cfg.k_out_in_sb`, else
            [B, 1, d, s] in HBM; written.
        DBG_TENSORS: 4 tensors in HBM, 5 with a block cache, for scores, minus the maximum, weights, sums of
            weights and the rows of the cache that are read; or None.

    Returns:
        (out, k_out).

    Keys and values are bf16, fp16, fp32 (values are rounded to bf16 as they are loaded) or float8_e4m3.
    Errors: sizes, dtypes and combinations that are not taken are refused by name, with value and limit.
    """
    _, programs, program = get_verified_program_sharding_info("attention_tkg", (0, 1), 2)
    check_arguments(
        q, k_active, v_active, k_prior, v_prior, mask, out, cfg, inv_freqs, rope_pos_ids, sink,
        active_blocks_table, k_out, DBG_TENSORS, programs,
    )  # fmt: skip
    share = share_of(cfg, programs, program)
    call = Call(
        cfg, share, sbm, k_prior, v_prior, v_active, mask, out, rope_pos_ids, sink, active_blocks_table,
        DBG_TENSORS,
    )  # fmt: skip
    shared = share.cores_by_key * share.cores_by_batch > 1
    idle = program > 0 and not shared and not cfg.out_in_sb  # the other core does it all
    sbm.open_scope(name="attention_tkg")
    prepare_operands(call, q, k_active, inv_freqs, k_out, not idle)
    if idle:
        sbm.close_scope()
        return out, k_out
    _constants(call)
    units = _units(call)
    _row_constants(call)
    slots = _slots(call, units)
    number, depth = len(units), len(slots)
    # Values are met as late as slots allow: the weights of the next unit are then made while values arrive.
    lag = 0 if depth == 1 else 2 if depth in (3, number) else 1
    for step in range(number + max(1, lag)):
        if step < number:  # keys come a unit before their values, which wait for weights
            load_keys(call, units[step], slots[step % depth])
            load_mask(call, units[step], slots[step % depth])
        met = 0 < step <= number
        if met:
            load_values(call, units[step - 1], slots[(step - 1) % depth])
            _maximum(call, units[step - 1], slots[(step - 1) % depth], step - 1)
        if met and lag == 0:
            _weights(call, units[step - 1], slots[0], step - 1)
            _values(call, units[step - 1], slots[0], step - 1)
        if step < number:
            _scores(call, units[step], slots[step % depth])
        if met and lag > 0:
            _weights(call, units[step - 1], slots[(step - 1) % depth], step - 1)
        done = step - lag
        if lag > 0 and 0 <= done < number:
            _values(call, units[done], slots[done % depth], done)
    if share.cores_by_key > 1:
        _combine(call)
    elif share.cores_by_batch > 1 and cfg.out_in_sb:
        rows = share.batches * call.row
        mine = out[:, share.first_batch * call.row : share.first_batch * call.row + rows]
        start = (share.batches - share.first_batch) * call.row
        nisa.sendrecv(
            src=mine, dst=out[:, start : start + rows], send_to_rank=1 - program, recv_from_rank=1 - program,
            pipe_id=0,
        )  # fmt: skip
    sbm.close_scope()
    return out, k_out


def _constants(call):
    cfg, sbm = call.cfg, call.sbm
    call.ones = sbm.alloc_stack((TILE, TILE), dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.memset(dst=call.ones, value=1.0)
    if call.natural and is_fp8_e4m3(call.key_dtype):
        call.identity = sbm.alloc_stack((TILE, TILE), dtype=nl.bfloat16, buffer=nl.sbuf)
        nisa.affine_select(
            dst=call.identity, pattern=[[-1, TILE]], offset=0, channel_multiplier=1, on_true_tile=call.ones,
            on_false_value=0.0, cmp_op=nl.equal,
        )  # fmt: skip
    if cfg.block_len > 0:
        load_table(call)
    if cfg.use_pos_id:
        call.positions = sbm.alloc_stack((TILE, cfg.bs), dtype=nl.float32, buffer=nl.sbuf)
        pattern = [[0, TILE], [cfg.s_active, cfg.bs]]
        load_aside(call.positions, call.rope_pos_ids.ap(pattern=pattern, offset=0))


def _row_constants(call):
    """What rows of a unit start from: the sink of their head, or nothing."""
    cfg, sbm = call.cfg, call.sbm
    rows = call.group * call.row
    call.floor = sbm.alloc_stack((rows, 1), dtype=nl.float32, buffer=nl.sbuf)
    if call.sink is None:
        nisa.memset(dst=call.floor, value=NOTHING)
        return
    pattern = [[0, call.group], [1, cfg.q_head], [0, cfg.s_active]]
    load_aside(call.floor, call.sink.ap(pattern=pattern, offset=0))
    call.sink_row = sbm.alloc_stack((TILE, cfg.q_head), dtype=nl.float32, buffer=nl.sbuf)


# --- units and where they work


def _units(call):
    """Sections of groups of sequences, of a size of which SBUF has room for three where that is possible."""
    share, row = call.share, call.row
    tiles = div_ceil(share.keys, TILE)
    room = call.sbm.get_free_space() - _fixed_bytes(call)
    section = min(tiles, UNIT_TILES)
    step = share.run if call.cfg.block_len > 0 else 1
    section = section // step * step if section >= step else step
    while section > step and _slot_bytes(call, 1, section) > room:
        section = div_ceil(section // step, 2) * step
    group = 1
    while (
        group < share.batches
        and (group + 1) * row <= TILE
        and (group + 1) * section <= UNIT_TILES
        and (group + 1) * section * row <= UNIT_COLUMNS
        and 3 * _slot_bytes(call, group + 1, section) <= room
    ):
        group += 1
    group = div_ceil(share.batches, div_ceil(share.batches, group))
    call.group, call.section = group, section
    units = []
    for batch in range(0, share.batches, group):
        for tile in range(0, tiles, section):
            units.append(
                Unit(
                    share.first_batch + batch, min(group, share.batches - batch), tile,
                    min(section, tiles - tile), tile == 0, tile + section >= tiles,
                )
            )  # fmt: skip
    call.sections = div_ceil(tiles, section)
    if share.cores_by_key > 1 or call.sections > 1:
        rows = share.batches * row if share.cores_by_key > 1 else group * row
        cores = share.cores_by_key
        call.both = call.sbm.alloc_stack((TILE, cores, 3, rows), dtype=nl.float32, buffer=nl.sbuf)
        call.state = call.both[:, 0, :, :]
        if call.cfg.d_head < TILE and cores > 1:
            nisa.memset(dst=call.state, value=0.0)
    return units


def _fixed_bytes(call):
    """Bytes of a partition that are allocated beside the slots after they are sized."""
    rows = call.share.batches * call.row
    return 12 * min(rows, TILE) * 6 + 4096 + rows * min(div_ceil(call.share.keys, TILE), UNIT_TILES)


def _slot_bytes(call, group, section):
    """Bytes of a partition that the tiles of a unit take."""
    d, size = call.cfg.d_head, sizeinbytes(call.key_dtype)
    keys = group * section * TILE * (2 if call.natural and size == 1 else size)
    loaded = group * section * d * size if call.natural else 0
    values = group * section * d * sizeinbytes(call.dtype)
    columns = group * section * call.row
    return keys + loaded + values + 7 * columns + 24 * group * call.row + 256


def _slots(call, units):
    """As many as fit, at most three and no more than there are units."""
    cfg, sbm, group, section = call.cfg, call.sbm, call.group, call.section
    rows, d = group * call.row, cfg.d_head
    depth = min(3, len(units))
    while depth > 1 and depth * _slot_bytes(call, group, section) > sbm.get_free_space() - 3072:
        depth -= 1
    partitions = min(TILE, call.share.keys)
    slots = []
    shared = None
    if call.sections == 1:  # all sequences have one section: one mask, loaded at once
        shared = _mask_tiles(call, partitions, call.share.batches * call.row)
    for _ in range(depth):
        mask, index = shared if shared is not None else _mask_tiles(call, partitions, rows)
        key_dtype = call.key_dtype
        loaded = None
        if call.natural:
            key_dtype = nl.bfloat16 if call.identity is not None else call.key_dtype
            loaded = sbm.alloc_stack((partitions, group, section, d), dtype=call.key_dtype, buffer=nl.sbuf)
        slots.append(
            Slot(
                keys=sbm.alloc_stack((d, group, section * partitions), dtype=key_dtype, buffer=nl.sbuf),
                loaded=loaded,
                values=sbm.alloc_stack((partitions, group, section, d), dtype=call.dtype, buffer=nl.sbuf),
                mask=mask,
                index=index,
                scores=sbm.alloc_stack(
                    (partitions, section, rows), dtype=nl.float32, buffer=nl.sbuf, align=4
                ),
                weights=sbm.alloc_stack((partitions, section, rows), dtype=nl.bfloat16, buffer=nl.sbuf),
                highest=sbm.alloc_stack((partitions, rows), dtype=nl.float32, buffer=nl.sbuf),
                largest=sbm.alloc_stack((rows, 1), dtype=nl.float32, buffer=nl.sbuf),
                maximum=sbm.alloc_stack((TILE, rows), dtype=nl.float32, buffer=nl.sbuf),
                total=sbm.alloc_stack((TILE, rows), dtype=nl.float32, buffer=nl.sbuf),
                decay=sbm.alloc_stack((TILE, rows), dtype=nl.float32, buffer=nl.sbuf),
                result=sbm.alloc_stack((d, rows), dtype=call.out.dtype, buffer=nl.sbuf),
                turned=sbm.alloc_stack((TILE, d, cfg.s_active), dtype=call.out.dtype, buffer=nl.sbuf),
            )
        )
    return slots


def _mask_tiles(call, partitions, rows):
    mask = call.sbm.alloc_stack((partitions, call.section, rows), dtype=nl.uint8, buffer=nl.sbuf)
    index = None
    if call.cfg.use_pos_id:
        index = call.sbm.alloc_stack((partitions, call.section), dtype=nl.float32, buffer=nl.sbuf)
    return mask, index


# --- the three stages of a unit


def _bank(first, count, number, shape, dtype=nl.float32):
    """A new PSUM tensor in one of some banks, taken in turn."""
    return nl.ndarray(shape, dtype=dtype, buffer=nl.psum, address=(0, (first + number % count) * BANK_BYTES))


def _scores(call, unit, slot):
    """The scores of all keys and rows of a unit, masked, and their maximum in each partition."""
    row = call.row
    rows = unit.batches * row
    partitions = slot.scores.shape[0]
    settle_keys(call, unit, slot)
    capacity = slot.scores.shape[1] * slot.scores.shape[2]
    scores = slot.scores.reshape((partitions, capacity))
    _, section, width = slot.mask.shape
    column = (unit.batch - call.share.first_batch) * row if call.sections == 1 else 0
    used = unit.tiles * rows
    nisa.memset(dst=scores[:, 0:used], value=-math.inf, engine=nisa.gpsimd_engine)
    run = _run(call, unit)
    chunk = BANK // rows
    for first in range(0, unit.tiles, chunk):
        count = min(chunk, unit.tiles - first)
        bank = _bank(SCORE_BANK, SCORE_BANKS, first // chunk, (partitions, count, rows))
        for i in range(count):
            for batch in range(unit.batches):
                nisa.nc_matmul(
                    dst=bank[:, i, nl.ds(batch * row, row)],
                    stationary=_keys_of(call, slot, batch, first + i, run),
                    moving=call.q[:, nl.ds((unit.batch + batch) * row, row)],
                )
        shape = [[capacity, partitions], [rows, count], [1, rows]]
        seen = slot.mask.ap(
            pattern=[[section * width, partitions], [width, count], [1, rows]], offset=first * width + column
        )
        nisa.tensor_copy_predicated(
            dst=slot.scores.ap(pattern=shape, offset=first * rows), src=bank, predicate=seen
        )
    across = scores.ap(pattern=[[capacity, partitions], [1, rows], [rows, unit.tiles]])
    nisa.tensor_reduce(dst=slot.highest[:, 0:rows], op=nl.maximum, data=across, axis=2)


def _run(call, unit):
    return unit.tiles if call.share.run == 0 else call.share.run


def _keys_of(call, slot, batch, tile, run):
    """The keys of a tile as the stationary operand, [d, partitions]: transposed here, or apart by the run."""
    d, groups, length = slot.keys.shape
    partitions = slot.scores.shape[0]
    if call.natural:
        return slot.keys[:, batch, nl.ds(tile * partitions, partitions)]
    start = batch * length + tile // run * partitions * run + tile % run
    return slot.keys.ap(pattern=[[groups * length, d], [run, partitions]], offset=start)


def _maximum(call, unit, slot, number):
    """The maximum of each row of a unit, and of those before it, where rows are partitions."""
    rows = unit.batches * call.row
    partitions = slot.scores.shape[0]
    bank = _bank(MAX_BANK, MAX_BANKS, number, (TILE, TILE))
    nisa.nc_transpose(dst=bank[0:rows, 0:partitions], data=slot.highest[:, 0:rows])
    nisa.tensor_reduce(dst=slot.largest[0:rows, :], op=nl.maximum, data=bank[0:rows, 0:partitions], axis=1)
    before = call.floor if unit.opens else call.largest
    nisa.tensor_tensor(
        dst=slot.largest[0:rows, :], data1=slot.largest[0:rows, :], data2=before[0:rows, :], op=nl.maximum
    )
    call.largest = slot.largest


def _weights(call, unit, slot, number):
    """exp(score - maximum) of a unit, the maximum brought to all partitions by a second transpose."""
    rows = unit.batches * call.row
    partitions = slot.scores.shape[0]
    bank = _bank(MAX_BANK, MAX_BANKS, number, (TILE, TILE))
    wide = slot.largest.ap(pattern=[[1, rows], [0, TILE]])
    nisa.nc_transpose(dst=bank[:, 0:rows], data=wide)
    nisa.tensor_copy(dst=slot.maximum[:, 0:rows], src=bank[:, 0:rows], engine=nisa.vector_engine)
    maximum = slot.maximum.ap(pattern=[[slot.maximum.shape[1], partitions], [0, unit.tiles], [1, rows]])
    capacity = slot.scores.shape[1] * slot.scores.shape[2]
    scores = slot.scores.ap(pattern=[[capacity, partitions], [rows, unit.tiles], [1, rows]])
    if call.debug is not None:
        store_debug_scores(call, unit, scores, call.debug[0])
    nisa.tensor_tensor(dst=scores, data1=scores, data2=maximum, op=nl.subtract, engine=nisa.gpsimd_engine)
    weights = slot.weights.ap(pattern=[[capacity, partitions], [rows, unit.tiles], [1, rows]])
    nisa.activation(dst=weights, op=nl.exp, data=scores)


def _values(call, unit, slot, number):
    """The products of a unit's weights with its values and with ones; into the result, or the state."""
    row, d = call.row, call.cfg.d_head
    rows = unit.batches * row
    partitions, section, width = slot.weights.shape
    weights = slot.weights.reshape((partitions, section * width))
    # The sums of weights on all partitions at once: a product with ones, of as many tiles as a bank takes.
    chunk = min(unit.tiles, BANK // rows)
    sums = _bank(SUM_BANK, 1, 0, (TILE, chunk * rows))
    for tile in range(0, unit.tiles, chunk):
        columns = min(chunk, unit.tiles - tile) * rows
        nisa.nc_matmul(
            dst=sums[:, 0:columns], stationary=call.ones[0:partitions, :],
            moving=weights[:, nl.ds(tile * rows, columns)],
        )  # fmt: skip
    nisa.tensor_reduce(
        dst=slot.total[:, 0:rows], op=nl.add, axis=2,
        data=sums.ap(pattern=[[chunk * rows, TILE], [1, rows], [rows, chunk]]),
    )  # fmt: skip
    bank = _bank(VALUE_BANK, VALUE_BANKS, number, (TILE, TILE))
    for batch in range(unit.batches):
        for tile in range(unit.tiles):
            nisa.nc_matmul(
                dst=bank[0:d, nl.ds(batch * row, row)], stationary=slot.values[:, batch, tile, :],
                moving=weights[:, nl.ds(tile * rows + batch * row, row)],
            )  # fmt: skip
    product, total, maximum = bank[0:d, 0:rows], slot.total[:, 0:rows], slot.maximum[:, 0:rows]
    if call.state is not None:
        first = (unit.batch - call.share.first_batch) * row if call.share.cores_by_key > 1 else 0
        span = nl.ds(first, rows)
        product, total, maximum = _accumulate(call, unit, slot, product, total, maximum, span)
    if call.debug is not None:
        store_debug_weights(call, unit, slot)
    if unit.closes and call.share.cores_by_key == 1:
        _finish(call, slot, unit.batch, unit.batches, product, total, maximum)


def _accumulate(call, unit, slot, product, total, maximum, span):
    """Adds a section to the sums of those before it, which its maximum may make smaller."""
    d, rows = call.cfg.d_head, unit.batches * call.row
    values, sums, largest = call.state[0:d, 0, span], call.state[:, 1, span], call.state[:, 2, span]
    if unit.opens:
        nisa.tensor_copy(dst=values, src=product, engine=nisa.vector_engine)
        nisa.tensor_copy(dst=sums, src=total, engine=nisa.vector_engine)
    else:
        decay = slot.decay[:, 0:rows]
        nisa.tensor_tensor(dst=decay, data1=largest, data2=maximum, op=nl.subtract)
        nisa.activation(dst=decay, op=nl.exp, data=decay)
        nisa.tensor_tensor(dst=values, data1=values, data2=decay[0:d, :], op=nl.multiply)
        nisa.tensor_tensor(dst=values, data1=values, data2=product, op=nl.add)
        nisa.tensor_tensor(dst=sums, data1=sums, data2=decay, op=nl.multiply)
        nisa.tensor_tensor(dst=sums, data1=sums, data2=total, op=nl.add)
    nisa.tensor_copy(dst=largest, src=maximum, engine=nisa.gpsimd_engine)
    return values, sums, largest


def _finish(call, work, batch, batches, product, total, maximum):
    """Divides the sums by the sum of weights, the sink's included, and stores them.

    Args:
        work: a slot, or tiles of its names for `total`, `decay`, `result` and `turned`.
        product: [d, rows] of the sequences.
        total: [128, rows].
        maximum: [128, rows].
    """
    cfg = call.cfg
    d, rows = cfg.d_head, batches * call.row
    sums = work.total[:, 0:rows]
    if call.sink is not None:
        weight = work.decay[:, 0:rows]
        if not call.sink_is_there:
            there = call.sink.ap(pattern=[[0, TILE], [1, cfg.q_head]], offset=0)
            nisa.dma_copy(dst=call.sink_row, src=there)
            call.sink_is_there = True
        pattern = [[cfg.q_head, TILE], [0, batches], [1, cfg.q_head], [0, cfg.s_active]]
        sinks = call.sink_row.ap(pattern=pattern)
        nisa.tensor_tensor(dst=weight, data1=sinks, data2=maximum, op=nl.subtract)
        nisa.activation(dst=weight, op=nl.exp, data=weight)
        nisa.tensor_tensor(dst=sums, data1=weight, data2=total, op=nl.add)
        total = sums
    if call.debug is not None:
        store_debug_rows(call, work, batch, rows, maximum, total)
    factor = work.decay[:, 0:rows]
    nisa.tensor_scalar(dst=factor, data=total, op0=nl.power, operand0=-1.0, engine=nisa.gpsimd_engine)
    if cfg.out_in_sb:
        there = call.out[:, nl.ds(batch * call.row, rows)]
        nisa.tensor_tensor(dst=there, data1=product, data2=factor[0:d, :], op=nl.multiply)
        return
    result = work.result[:, 0:rows]
    nisa.tensor_tensor(dst=result, data1=product, data2=factor[0:d, :], op=nl.multiply)
    store_results(call, work, batch, batches)


def _combine(call):
    """Both cores add what they found for their halves of the keys."""
    cfg, sbm, core = call.cfg, call.sbm, call.share.core
    both, d = call.both, cfg.d_head
    rows = both.shape[3]
    nisa.sendrecv(
        src=both[:, 0, :, :], dst=both[:, 1, :, :], send_to_rank=1 - core, recv_from_rank=1 - core, pipe_id=0
    )
    work = Finish(
        total=sbm.alloc_stack((TILE, rows), dtype=nl.float32, buffer=nl.sbuf),
        decay=sbm.alloc_stack((TILE, rows), dtype=nl.float32, buffer=nl.sbuf),
        result=sbm.alloc_stack((d, rows), dtype=call.out.dtype, buffer=nl.sbuf),
        turned=sbm.alloc_stack((TILE, d, cfg.s_active), dtype=call.out.dtype, buffer=nl.sbuf),
    )
    maximum = sbm.alloc_stack((TILE, rows), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=maximum, data1=both[:, 0, 2, :], data2=both[:, 1, 2, :], op=nl.maximum)
    decay = both[:, :, 2, :]
    largest = maximum.ap(pattern=[[rows, TILE], [0, 2], [1, rows]])
    nisa.tensor_tensor(dst=decay, data1=decay, data2=largest, op=nl.subtract)
    nisa.activation(dst=decay, op=nl.exp, data=decay)
    factors = both.ap(pattern=[[6 * rows, TILE], [3 * rows, 2], [0, 2], [1, rows]], offset=2 * rows)
    sums = both[:, :, 0:2, :]
    nisa.tensor_tensor(dst=sums, data1=sums, data2=factors, op=nl.multiply)
    total = both[:, 0, 0:2, :]
    nisa.tensor_tensor(dst=total, data1=total, data2=both[:, 1, 0:2, :], op=nl.add)
    _finish(call, work, 0, cfg.bs, total[0:d, 0, :], total[:, 1, :], maximum)
