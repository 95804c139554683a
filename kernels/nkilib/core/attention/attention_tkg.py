"""Attention for token generation: a few new tokens of each sequence against a cache of keys.

    out = softmax(q @ [cache, new].T + mask) @ [cache, new]

What limits it is reading the cache once; all else runs beside that. Scores are made transposed, keys on the
partitions: a tile is 128 keys, and a row one head of one new token. Softmax then works on all 128 partitions
however few rows there are, and its weights are the stationary operand of their product with the values.

A matmul takes the time of 128 columns however few move, 55.8 ns for a tile of keys or values at the tensor
engine's full clock, of which HBM needs 91.5 ns. But the clock falls to half, and the time to 109 ns, where
less than 37 % of it is moved columns. So values move, 128 columns, and the rows of a sequence, the moving
operand beside stationary keys, are read as often as 128 columns hold them (a step of 0), which costs nothing.

A unit is a section of the keys of some sequences, as many as fill 64 tiles. Of each:

    DMA      keys [d, n] or [128, tiles, d], values [128, tiles, d], in runs of 8 KiB; the keys of the next
             unit before the values, so that its weights are there when its values are
    tensor   keys that come with d last, transposed; scores of a tile: stationary keys, moving rows
    gpsimd   -inf into the scores; scores - maximum
    vector   scores over it where the mask says so; maximum over tiles; maximum of 128 partitions, transposed
             by the tensor engine; which a second transpose brings back to every partition
    scalar   exp
    tensor   sums of weights: a product with ones, which leaves them on every partition; sums of weighted
             values: stationary weights, moving values
    vector   one over the sums of weights, beside those products; then the result, which is stored as it is

The tensor engine does all that in order, so it makes the scores of the next unit while it waits for the
maximum of a small one, and turns results, where that is needed, behind the products of the next unit.

Four sequences of 8192 keys with four heads (Llama-3 8B, TP8), 16.8 MB, take 29.1 us of two cores of a trn2:
0.75 us until the first byte, 25.6 us of bytes, 0.7 us until the last ones are seen, 0.4 us of products with
them, 0.2 us for the result and 1.4 us for its store. The tensor engine is busy for half of it, and never
behind the bytes at the end: the last values come in pieces that shrink to 4 tiles, and their new rows are
loaded beside them.

With more than 8192 keys for one core, sections follow each other and the sums before a new maximum are
scaled down, as in flash attention. The sink is where the maximum starts, and one more weight in the sum.

A partition holds `run` neighbouring keys, see :class:`.attention_tkg_plan.Fold`: 32 with `strided_mm1`, so
that a descriptor of values has 8 KiB and the work on keys begins with their first megabyte; the piece of a
block with a block cache, else 1. The new keys and values take the place of the last ones in SBUF; the cache
in HBM is not written.

Two programs share the batch if it is even: nothing is exchanged then, but a result in SBUF. Else they share
the keys: each finds its sums and its maximum for all rows, they exchange them once, and each finishes all
rows. (What :mod:`.attention_tkg_utils` says of sharing is what callers see: the order of a block cache's
mask, and the layout of debug tensors.)

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
from .attention_tkg_debug import store_debug_scores, store_debug_weights
from .attention_tkg_io import (
    load_aside,
    load_keys,
    load_mask,
    load_table,
    load_values,
    prepare_operands,
    settle_keys,
)
from .attention_tkg_plan import (
    BANK,
    BANK_BYTES,
    MAX_BANK,
    PLACES,
    SCORE_BANK,
    SECTION_TILES,
    TILE,
    TURN_BANK,
    TURN_BANKS,
    VALUE_BANK,
    VALUE_BANKS,
    Call,
    Slot,
    Unit,
    folds_of,
    share_of,
)
from .attention_tkg_results import (
    allocate_finish,
    allocate_state,
    combine,
    deliver,
    finish_bytes,
    places_of,
    settle,
    weigh,
)
from .attention_tkg_utils import (  # noqa: F401, callers import what they need from here as well
    AttnTKGConfig,
    TileConstants,
    is_batch_sharded,
    is_fp8_e4m3,
    is_s_prior_sharded,
    resize_cache_block_len_for_attention_tkg_kernel,
    uses_flash_attention,
)

NOTHING = -1e30  # the maximum of a row that sees no key yet
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
    share = share_of(cfg, programs, program, DBG_TENSORS is not None)
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
    _diagonal(call)
    slots = _slots(call, units)
    number, depth = len(units), len(slots)
    ahead = min(depth - 1, 1)
    if ahead > 0:
        _begin(call, units[0], slots[0])
    # Small units: the tensor engine makes the scores of the next one while it waits for the maximum of one.
    small = ahead > 0 and call.group * call.section < SECTION_TILES // 2
    if small:
        _scores(call, units[0], slots[0])
    for step in range(number):
        slot, following = slots[step % depth], step + ahead
        if following < number:  # keys come a unit before their values, which wait for weights
            _begin(call, units[following], slots[following % depth])
        load_values(call, units[step], slot, following >= number - 1 + ahead)
        if not small:
            _scores(call, units[step], slot)
        elif following < number:
            _scores(call, units[following], slots[following % depth])
        _maximum(call, units[step], slot, step)
        _weights(call, units[step], slot, step)
        if step >= ahead:
            _values(call, units[step - ahead], slots[(step - ahead) % depth], step - ahead)
    if ahead > 0:
        _values(call, units[number - 1], slots[(number - 1) % depth], number - 1)
    deliver(call)
    if share.cores_by_key > 1:
        combine(call)
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
    load_aside(call.sink_row, call.sink.ap(pattern=[[0, TILE], [1, cfg.q_head]], offset=0))


def _diagonal(call):
    """1 where partition band * width + r meets column band * row + r."""
    columns = call.bands * call.row
    call.diagonal = call.sbm.alloc_stack((TILE, columns), dtype=nl.bfloat16, buffer=nl.sbuf)
    shape = [[call.row, call.bands], [1, call.row]]
    ones = call.ones.ap(pattern=[[TILE, TILE]] + shape)
    nisa.affine_select(
        dst=call.diagonal.ap(pattern=[[columns, TILE]] + shape), offset=0, channel_multiplier=1,
        pattern=[[-call.width, call.bands], [-1, call.row]], on_true_tile=ones,
        on_false_value=0.0, cmp_op=nl.equal,
    )  # fmt: skip


# --- units and where they work


def _units(call):
    """Sections of groups of sequences, of a size of which SBUF has room for three where that is possible."""
    share, row = call.share, call.row
    call.width = 32 if row <= 32 else 64 if row <= 64 else TILE
    call.bands = TILE // call.width
    tiles = div_ceil(share.keys, TILE)
    room = call.sbm.get_free_space() - _fixed_bytes(call)
    section = min(tiles, SECTION_TILES)
    step = share.run if call.cfg.block_len > 0 else 1
    section = section // step * step if section >= step else step
    while section > step and _slot_bytes(call, 1, section) > room:
        section = div_ceil(section // step, 2) * step
    group = 1
    while (
        group < share.batches
        and (group + 1) * row <= TILE
        and (group + 1) * section <= SECTION_TILES
        and (group + 1) * section * row <= UNIT_COLUMNS
        and div_ceil(group + 1, call.bands) <= PLACES * VALUE_BANKS
        and 3 * _slot_bytes(call, group + 1, section) <= room
    ):
        group += 1
    # Two units, if they are large: the weights of one are made while the values of the other arrive.
    parts = div_ceil(share.batches, group)
    if parts == 1 and section == tiles and share.batches > 1 and share.batches * tiles >= SECTION_TILES // 2:
        parts = 2
    group = div_ceil(share.batches, parts)
    call.group, call.section = group, section
    call.bands = min(call.bands, group)
    call.lanes = call.width if call.bands > 1 and call.width % row == 0 else row
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
        allocate_state(call)
    return units


def _fixed_bytes(call):
    """Bytes of a partition that are allocated beside the slots after they are sized."""
    rows = call.share.batches * call.row
    return 12 * min(rows, TILE) * 6 + 4096 + rows * min(div_ceil(call.share.keys, TILE), SECTION_TILES)


def _slot_bytes(call, group, section):
    """Bytes of a partition that the tiles of a unit take."""
    d, size = call.cfg.d_head, sizeinbytes(call.key_dtype)
    keys = group * section * TILE * (2 if call.natural and size == 1 else size)
    loaded = group * section * d * size if call.natural else 0
    values = group * section * d * sizeinbytes(call.dtype)
    columns = group * section * call.row
    return keys + loaded + values + 7 * columns + 12 * group * call.row + 256 + finish_bytes(call, group)


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
                work=allocate_finish(call, group),
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


def _begin(call, unit, slot):
    """Loads the mask and the keys of a unit, and writes what scores are where the mask hides them."""
    load_mask(call, unit, slot)
    load_keys(call, unit, slot)
    partitions, section, rows = slot.scores.shape
    scores = slot.scores.reshape((partitions, section * rows))
    used = unit.tiles * unit.batches * call.row
    nisa.memset(dst=scores[:, 0:used], value=-math.inf, engine=nisa.gpsimd_engine)


def _scores(call, unit, slot):
    """The scores of all keys and rows of a unit, masked, and their maximum in each partition."""
    row = call.row
    rows = unit.batches * row
    partitions = slot.scores.shape[0]
    if call.natural:
        settle_keys(call, unit, slot)
    capacity = slot.scores.shape[1] * slot.scores.shape[2]
    scores = slot.scores.reshape((partitions, capacity))
    _, section, width = slot.mask.shape
    column = (unit.batch - call.share.first_batch) * row if call.sections == 1 else 0
    times = TILE // row
    chunk = BANK // (times * row)
    banks = TURN_BANK if call.natural else TURN_BANK + TURN_BANKS
    number = 0
    for batch in range(unit.batches):
        queries = call.q.ap(
            pattern=[[call.q.shape[1], call.q.shape[0]], [0, times], [1, row]],
            offset=(unit.batch + batch) * row,
        )
        for first in range(0, unit.tiles, chunk):
            count = min(chunk, unit.tiles - first)
            bank = _bank(SCORE_BANK, banks, number, (partitions, count, times, row))
            number += 1
            for i in range(count):
                keys = _keys_of(call, unit, slot, batch, first + i)
                nisa.nc_matmul(dst=bank[:, i, :, :], stationary=keys, moving=queries)
            shape = [[capacity, partitions], [rows, count], [1, row]]
            seen = slot.mask.ap(
                pattern=[[section * width, partitions], [width, count], [1, row]],
                offset=first * width + column + batch * row,
            )
            nisa.tensor_copy_predicated(
                dst=slot.scores.ap(pattern=shape, offset=first * rows + batch * row),
                src=bank[:, :, 0, :],
                predicate=seen,
            )
    across = scores.ap(pattern=[[capacity, partitions], [1, rows], [rows, unit.tiles]])
    nisa.tensor_reduce(dst=slot.highest[:, 0:rows], op=nl.maximum, data=across, axis=2)


def _keys_of(call, unit, slot, batch, tile):
    """The keys of a tile as the stationary operand, [d, partitions]: transposed here, or apart by the run."""
    d, groups, length = slot.keys.shape
    partitions = slot.scores.shape[0]
    if call.natural:
        return slot.keys[:, batch, nl.ds(tile * partitions, partitions)]
    folds = folds_of(call, unit)
    fold = folds[0]
    if tile >= folds[len(folds) - 1].first:
        fold = folds[len(folds) - 1]
    key = (tile - fold.first) // fold.run * partitions * fold.run + (tile - fold.first) % fold.run
    start = batch * length + fold.first * partitions + key
    return slot.keys.ap(pattern=[[groups * length, d], [fold.run, partitions]], offset=start)


def _maximum(call, unit, slot, number):
    """The maximum of each row of a unit, and of those before it, where rows are partitions."""
    rows = unit.batches * call.row
    partitions = slot.scores.shape[0]
    bank = _bank(MAX_BANK, 1, 0, (TILE, TILE))
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
    bank = _bank(MAX_BANK, 1, 0, (TILE, TILE))
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


def _sums(call, unit, slot):
    """The sums of a unit's weights, on all partitions: a product with ones, of as many tiles as fit."""
    rows = unit.batches * call.row
    partitions, section, width = slot.weights.shape
    weights = slot.weights.reshape((partitions, section * width))
    chunk = min(unit.tiles, (BANK - TILE) // rows)
    sums = _bank(MAX_BANK, 1, 0, (TILE, BANK))  # its first columns are those of maxima
    for tile in range(0, unit.tiles, chunk):
        columns = min(chunk, unit.tiles - tile) * rows
        nisa.nc_matmul(
            dst=sums[:, nl.ds(TILE, columns)], stationary=call.ones[0:partitions, :],
            moving=weights[:, nl.ds(tile * rows, columns)],
        )  # fmt: skip
    nisa.tensor_reduce(
        dst=slot.work.total[:, 0:rows], op=nl.add, axis=2,
        data=sums.ap(pattern=[[BANK, TILE], [1, rows], [rows, chunk]], offset=TILE),
    )  # fmt: skip
    weigh(call, unit, slot)
    if call.debug is not None:
        store_debug_weights(call, unit, slot)


def _values(call, unit, slot, number):
    """The sums of a unit's weighted values: stationary weights, moving values."""
    row, d = call.row, call.cfg.d_head
    rows = unit.batches * row
    partitions, section, width = slot.weights.shape
    _sums(call, unit, slot)  # and what follows from them, beside the products
    places = places_of(call, unit.batches)
    bank = _bank(VALUE_BANK, VALUE_BANKS if places <= PLACES else 1, number, (TILE, places, TILE))
    for batch in range(unit.batches):
        band, place = batch % call.bands, batch // call.bands
        there = bank[nl.ds(band * call.width, call.lanes), place, 0:d]
        for tile in range(unit.tiles):
            stationary = slot.weights.ap(
                pattern=[[section * width, partitions], [0, call.lanes // row], [1, row]],
                offset=tile * rows + batch * row,
            )
            if call.bands == 1:
                nisa.nc_matmul(dst=there, stationary=stationary, moving=slot.values[:, batch, tile, :])
            else:
                nisa.nc_matmul(
                    dst=there, stationary=stationary, moving=slot.values[:, batch, tile, :],
                    tile_position=(0, band * call.width), tile_size=(TILE, call.width),
                )  # fmt: skip
    deliver(call)
    settle(call, unit, slot, bank)
