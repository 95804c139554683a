"""Operands of attention_tkg on their way into SBUF."""

import math

import nki.isa as nisa
import nki.language as nl

from ..utils.allocator import sizeinbytes
from ..utils.projection import copy_in, load_aside
from ..utils.tiled_range import TiledRange
from .attention_tkg_plan import BANK_BYTES, RUN, STORE_BANK, TILE, TURN_BANK, TURN_BANKS, folds_of

PIECE_BYTES = 1 << 20  # of a load: work begins with the first
LAST_TILES = 4

# 2 pi in three parts; a multiple below 2^15 of the first two is exact in fp32.
TWO_PI = (6.28125, 0.0019350051879882812, 2.9810517628540e-07)
ROUND = 1.5 * 2.0**23  # added and taken away, it rounds an fp32 to an integer


# --- queries and active keys


def prepare_operands(call, q, k_active, inv_freqs, k_out, needed):
    """Queries and active keys as [d, columns] in SBUF, rotated where that is asked for.

    Args:
        needed: False if this core makes no scores, and only a `k_out` in SBUF is wanted of it.
    """
    cfg = call.cfg
    call.row = cfg.q_head * cfg.s_active
    call.natural = cfg.tp_k_prior or cfg.block_len > 0
    call.key_dtype = call.k_prior.dtype  # fp32 keys stay fp32: an error of a score is one of its exponential
    call.dtype = nl.bfloat16 if call.k_prior.dtype == nl.float32 else call.k_prior.dtype
    if not cfg.fuse_rope:
        call.q, call.k_active = _beside_keys(call, q) if needed else q, k_active
        return
    if not needed and not cfg.k_out_in_sb:
        return
    sbm = call.sbm
    half, columns = cfg.d_head // 2, cfg.bs * cfg.s_active
    angles = sbm.alloc_stack((half, columns), dtype=nl.float32, buffer=nl.sbuf)
    frequencies = sbm.alloc_stack((half, 1), dtype=nl.float32, buffer=nl.sbuf)
    load_aside(angles, call.rope_pos_ids.ap(pattern=[[0, half], [1, columns]], offset=0))
    load_aside(frequencies, inv_freqs)
    nisa.tensor_scalar(dst=angles, data=angles, op0=nl.multiply, operand0=frequencies)
    cosines = sbm.alloc_stack((half, columns), dtype=nl.float32, buffer=nl.sbuf)
    sines = sbm.alloc_stack((half, columns), dtype=nl.float32, buffer=nl.sbuf)
    _cosine_and_sine(cosines, sines, angles)
    if needed:
        call.q = sbm.alloc_stack((cfg.d_head, cfg.bs * call.row), dtype=_query_dtype(call), buffer=nl.sbuf)
        _rotate(call, call.q, q, cfg.q_head, cosines, sines, 1 / math.sqrt(cfg.d_head))
    if cfg.k_out_in_sb:
        call.k_active = k_out
    else:
        call.k_active = sbm.alloc_stack((cfg.d_head, columns), dtype=k_out.dtype, buffer=nl.sbuf)
    _rotate(call, call.k_active, k_active, 1, cosines, sines, 1.0)
    if not cfg.k_out_in_sb and call.share.core == 0:
        pattern = [[cfg.s_active, cfg.d_head], [cfg.d_head * cfg.s_active, cfg.bs], [1, cfg.s_active]]
        nisa.dma_copy(dst=k_out.ap(pattern=pattern, offset=0), src=call.k_active)


def _query_dtype(call):
    """What queries are beside such keys: fp32 beside fp32, else 16 bits."""
    if call.key_dtype in (nl.float32, nl.bfloat16, nl.float16):
        return call.key_dtype
    return nl.bfloat16


def _beside_keys(call, q):
    """Queries as the tensor engine takes them beside the keys."""
    if (q.dtype == nl.float32) == (call.key_dtype == nl.float32):
        return q
    cast = call.sbm.alloc_stack(q.shape, dtype=_query_dtype(call), buffer=nl.sbuf)
    nisa.tensor_copy(dst=cast, src=q)
    return cast


def _cosine_and_sine(cosines, sines, angles):
    """Of angles of any size: both are found from the remainder r by 2 pi, as sin(r) and sin(pi / 2 - |r|)."""
    turns, rest = cosines, angles
    nisa.tensor_scalar(
        dst=turns, data=angles, op0=nl.multiply, operand0=1 / (2 * math.pi), op1=nl.add, operand1=ROUND
    )
    nisa.tensor_scalar(dst=turns, data=turns, op0=nl.subtract, operand0=ROUND)
    for part in TWO_PI:
        nisa.scalar_tensor_tensor(
            dst=rest, data=turns, op0=nl.multiply, operand0=-part, op1=nl.add, operand1=rest
        )
    nisa.tensor_scalar(
        dst=rest, data=rest, op0=nl.minimum, operand0=3.1415925, op1=nl.maximum, operand1=-3.1415925
    )
    nisa.activation(dst=sines, op=nl.sin, data=rest)
    nisa.tensor_scalar(dst=rest, data=rest, op0=nl.abs, operand0=0.0, op1=nl.multiply, operand1=-1.0)
    nisa.tensor_scalar(dst=rest, data=rest, op0=nl.add, operand0=math.pi / 2)
    nisa.activation(dst=cosines, op=nl.sin, data=rest)


def _rotate(call, dst, src, heads, cosines, sines, scale):
    """dst[d, B * heads * s] = scale * the rotated src; the head dimension is two halves."""
    cfg, sbm = call.cfg, call.sbm
    d, half, active = cfg.d_head, cfg.d_head // 2, cfg.s_active
    columns = cfg.bs * heads * active
    lower = sbm.alloc_stack((d, columns), dtype=nl.float32, buffer=nl.sbuf)
    if cfg.qk_in_sb:
        nisa.tensor_copy(dst=lower, src=src)
    elif src.shape[-1] == d and src.shape[1] == heads:
        natural = sbm.alloc_stack((columns, d), dtype=src.dtype, buffer=nl.sbuf)
        load_aside(natural, src.ap(pattern=[[d, columns], [1, d]], offset=0))
        turned = nl.ndarray(
            (d, columns), dtype=src.dtype, buffer=nl.psum, address=(0, STORE_BANK * BANK_BYTES)
        )
        nisa.nc_transpose(dst=turned, data=natural)
        nisa.tensor_copy(dst=lower, src=turned)
    else:
        width = heads * active
        there = sbm.alloc_stack((d, columns), dtype=src.dtype, buffer=nl.sbuf)
        load_aside(there, src.ap(pattern=[[width, d], [d * width, cfg.bs], [1, width]], offset=0))
        nisa.tensor_copy(dst=lower, src=there)
    # Both operands of a vector instruction come from the same partitions: the upper half moves down.
    upper = sbm.alloc_stack((half, columns), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=upper, src=lower[half:d, :])
    pattern = [[cfg.bs * active, half], [active, cfg.bs], [0, heads], [1, active]]
    cosine, sine = cosines.ap(pattern=pattern), sines.ap(pattern=pattern)
    shape = [[columns, half], [heads * active, cfg.bs], [active, heads], [1, active]]
    first, second = lower.ap(pattern=shape), upper.ap(pattern=shape)
    straight = sbm.alloc_stack((half, columns), dtype=nl.float32, buffer=nl.sbuf)
    crossed = sbm.alloc_stack((half, columns), dtype=nl.float32, buffer=nl.sbuf)
    for part in range(2):
        a, b = (first, second) if part == 0 else (second, first)
        nisa.tensor_tensor(dst=straight.ap(pattern=shape), data1=a, data2=cosine, op=nl.multiply)
        nisa.tensor_tensor(dst=crossed.ap(pattern=shape), data1=b, data2=sine, op=nl.multiply)
        sign = nl.subtract if part == 0 else nl.add
        nisa.tensor_tensor(dst=straight, data1=straight, data2=crossed, op=sign)
        there = dst[0:half, :] if part == 0 else dst[half:d, :]
        nisa.tensor_scalar(dst=there, data=straight, op0=nl.multiply, operand0=scale)


# --- the cache


def load_table(call):
    """The rows of the block cache, cut as the cores need them, that each partition reads."""
    cfg, share = call.cfg, call.share
    length = cfg.block_len
    pieces = length // share.run
    count = cfg.curr_sprior // length
    folds = share.keys // (TILE * share.run)
    call.blocks = call.sbm.alloc_stack((TILE, folds, cfg.bs), dtype=nl.int32, buffer=nl.sbuf)
    table = call.table.ap(
        pattern=[[1, TILE // pieces], [0, pieces], [TILE // pieces, folds], [count, cfg.bs]],
        offset=share.first_key // length, dtype=nl.int32,
    )  # fmt: skip
    nisa.dma_copy(dst=call.blocks, src=table)
    if pieces > 1:
        lane = call.sbm.alloc_stack((TILE, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.iota(dst=lane, pattern=[[0, 1]], offset=0, channel_multiplier=1)
        nisa.tensor_scalar(dst=lane, data=lane, op0=nl.bitwise_and, operand0=pieces - 1)
        piece = call.sbm.alloc_stack((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(dst=piece, src=lane)
        nisa.tensor_scalar(
            dst=call.blocks, data=call.blocks, op0=nl.multiply, operand0=pieces, op1=nl.add, operand1=piece
        )
    if call.debug is not None and (share.cores_by_key > 1 or share.core == 0):
        total = folds * share.cores_by_key
        offset = share.core * folds * cfg.bs if share.cores_by_key > 1 else 0
        pattern = [[total * cfg.bs, TILE], [1, folds * cfg.bs]]
        nisa.dma_copy(dst=call.debug[4].ap(pattern=pattern, offset=offset), src=call.blocks)


def _load_blocks(call, unit, dst, src):
    """dst[p, sequence, tile, :] = the row of a block cache of that key."""
    cfg = call.cfg
    d, run = cfg.d_head, call.share.run
    pieces = src.reshape((src.shape[0] * cfg.block_len // run, run * d))
    columns = call.blocks.reshape((TILE, call.blocks.shape[1] * cfg.bs))
    for batch in range(unit.batches):
        for fold in range(unit.tiles // run):
            column = (unit.tile // run + fold) * cfg.bs + unit.batch + batch
            rows = pieces.ap(
                pattern=[[run * d, TILE], [1, run * d]], offset=0,
                vector_offset=columns[:, nl.ds(column, 1)], indirect_dim=0,
            )  # fmt: skip
            nisa.dma_copy(dst=dst[:, batch, nl.ds(fold * run, run), :], src=rows)


def _pieces(call, unit, size):
    """Cuts a unit of a flat cache for its loads: (first sequence, sequences, first tile, tiles, run).

    Args:
        size: bytes of an element.
    """
    pieces = []
    folds = folds_of(call, unit)
    sequence = unit.tiles * TILE * call.cfg.d_head * size
    for part in TiledRange(unit.batches, max(1, PIECE_BYTES // sequence)):
        for fold in folds:
            step = fold.run if fold.run > 1 else min(fold.count, RUN)
            for tiles in TiledRange(fold.run * fold.count, step):
                tile = fold.first + tiles.start_offset
                pieces.append((part.start_offset, part.size, tile, tiles.size, fold.run))
    return pieces


def _load_rows(call, unit, dst, src):
    """dst[p, sequence, tile, :] = a flat cache's row of that key."""
    partitions = dst.shape[0]
    for piece in _pieces(call, unit, sizeinbytes(src.dtype)):
        batch, batches, tile, tiles, run = piece
        _load_tiles(call, unit, dst, src, (batch, batches, tile, run), 0, partitions, 0, tiles)


def _load_tiles(call, unit, dst, src, block, lane, lanes, tile, tiles):
    """Some lanes and tiles of (first sequence, sequences, first tile, run), whose keys follow each other."""
    cfg, share = call.cfg, call.share
    if lanes <= 0 or tiles <= 0:
        return
    batch, batches, first, run = block
    d, length, partitions = cfg.d_head, cfg.full_sprior, dst.shape[0]
    step = d if run > 1 else partitions * d
    start = (unit.batch + batch) * length + share.first_key + (unit.tile + first) * partitions
    pattern = [[run * d, lanes], [length * d, batches], [step, tiles], [1, d]]
    there = dst[nl.ds(lane, lanes), nl.ds(batch, batches), nl.ds(first + tile, tiles), :]
    copy_in(there, src.ap(pattern=pattern, offset=(start + lane * run) * d + tile * step))


def load_keys(call, unit, slot):
    """Keys of a unit as [d, sequences, keys], or where they are transposed [128, sequences, tiles, d]."""
    cfg, share = call.cfg, call.share
    d, length = cfg.d_head, cfg.full_sprior
    partitions = slot.scores.shape[0]
    if cfg.block_len > 0:
        _load_blocks(call, unit, slot.loaded, call.k_prior)
        return
    if call.natural:
        _load_rows(call, unit, slot.loaded, call.k_prior)
        return
    holds = _holds_active(call, unit)
    for piece in _pieces(call, unit, sizeinbytes(call.key_dtype)):
        batch, batches, tile, tiles, _ = piece
        count = tiles * partitions
        if holds and tile + tiles == unit.tiles:
            count -= cfg.s_active
        columns = nl.ds(tile * partitions, count)
        first = share.first_key + (unit.tile + tile) * partitions
        pattern = [[length, d], [d * length, batches], [1, count]]
        source = call.k_prior.ap(pattern=pattern, offset=(unit.batch + batch) * d * length + first)
        copy_in(slot.keys[:, nl.ds(batch, batches), columns], source)
    if holds:
        new = call.k_active.ap(
            pattern=[[cfg.bs * cfg.s_active, d], [cfg.s_active, unit.batches], [1, cfg.s_active]],
            offset=unit.batch * cfg.s_active,
        )
        there = slot.keys[:, 0 : unit.batches, nl.ds(unit.tiles * partitions - cfg.s_active, cfg.s_active)]
        nisa.tensor_copy(dst=there, src=new, engine=nisa.vector_engine)


def settle_keys(call, unit, slot):
    """Keys that came with d last as [d, sequences, keys], the active ones in their place."""
    active, d = call.cfg.s_active, call.cfg.d_head
    partitions = slot.scores.shape[0]
    _turn_keys(call, unit, slot)
    if not _holds_active(call, unit):
        return
    total = call.cfg.bs * active
    for part in _places(call, unit, partitions):
        index, number, lane, tile, along_tiles = part
        new = call.k_active.ap(
            pattern=[[total, d], [active, unit.batches], [1, number]], offset=unit.batch * active + index
        )
        capacity = slot.keys.shape[2]
        step = partitions if along_tiles else 1
        there = slot.keys.ap(
            pattern=[[slot.keys.shape[1] * capacity, d], [capacity, unit.batches], [step, number]],
            offset=tile * partitions + lane,
        )
        nisa.tensor_copy(dst=there, src=new, engine=nisa.vector_engine)


def _turn_keys(call, unit, slot):
    """[128 keys, d] of every tile to [d, 128 keys] on the tensor engine; two engines take turns with PSUM."""
    d = call.cfg.d_head
    partitions = slot.loaded.shape[0]
    exact = call.identity is None
    dtype = call.key_dtype if exact else nl.float32
    most = 4 if dtype == nl.float32 else 8  # tiles of a bank
    number = 0
    for batch in range(unit.batches):
        for first in range(0, unit.tiles, most):
            tiles = min(most, unit.tiles - first)
            bank = nl.ndarray(
                (d, tiles * partitions), dtype=dtype, buffer=nl.psum,
                address=(0, (TURN_BANK + number % TURN_BANKS) * BANK_BYTES),
            )  # fmt: skip
            for i in range(tiles):
                rows = slot.loaded[:, batch, first + i, :]
                there = bank[:, nl.ds(i * partitions, partitions)]
                if exact:
                    nisa.nc_transpose(dst=there, data=rows)
                else:
                    nisa.nc_matmul(
                        dst=there, stationary=rows, moving=call.identity[0:partitions, 0:partitions]
                    )
            engine = nisa.vector_engine if number % 2 == 0 else nisa.scalar_engine
            nisa.tensor_copy(
                dst=slot.keys[:, batch, nl.ds(first * partitions, tiles * partitions)],
                src=bank,
                engine=engine,
            )
            number += 1


def load_values(call, unit, slot, is_last):
    """Values of a unit as [128, sequences, tiles, d], the active ones in their place.

    Args:
        is_last: True if no unit follows: the end comes in small pieces, as its products come after it.
    """
    values, partitions = slot.values, slot.values.shape[0]
    holds = _holds_active(call, unit)
    if call.cfg.block_len > 0:
        _load_blocks(call, unit, values, call.v_prior)
    if holds:
        _load_new_values(call, unit, slot, _places(call, unit, partitions))
    if call.cfg.block_len > 0:
        return
    active = call.cfg.s_active
    pieces = _pieces(call, unit, sizeinbytes(call.v_prior.dtype))
    for number in range(len(pieces)):
        batch, batches, tile, tiles, run = pieces[number]
        ends = holds and tile + tiles == unit.tiles
        block = (batch, batches, tile, run)
        last = 0
        if ends or (is_last and number == len(pieces) - 1):
            last = min(tiles, max(LAST_TILES, active)) if run > 1 else 1
        done = 0
        while done < tiles - last:
            size = tiles - last
            if is_last and number == len(pieces) - 1:
                size = min(tiles - last - done, max(last, (tiles - done) // 2))
            _load_tiles(call, unit, values, call.v_prior, block, 0, partitions, done, size)
            done += size
        if ends:  # old values beside the new ones: neither wait
            lanes, rest = (partitions * run - active) // run, (partitions * run - active) % run
            _load_tiles(call, unit, values, call.v_prior, block, lanes, 1, done, rest - done)
            _load_tiles(call, unit, values, call.v_prior, block, 0, lanes, done, last)
        else:
            _load_tiles(call, unit, values, call.v_prior, block, 0, partitions, done, last)


def _load_new_values(call, unit, slot, places):
    d, active = call.cfg.d_head, call.cfg.s_active
    for part in places:
        index, number, lane, tile, along_tiles = part
        if along_tiles:
            there = slot.values[nl.ds(lane, 1), 0 : unit.batches, nl.ds(tile, number), :]
            pattern = [[1, 1], [active * d, unit.batches], [1, number * d]]
        else:
            there = slot.values[nl.ds(lane, number), 0 : unit.batches, tile, :]
            pattern = [[d, number], [active * d, unit.batches], [1, d]]
        offset = (unit.batch * active + index) * d
        load_aside(there, call.v_active.ap(pattern=pattern, offset=offset))


def _holds_active(call, unit):
    """True if the last keys of the window are in this unit."""
    share = call.share
    return unit.closes and share.first_key + share.keys == call.cfg.curr_sprior


def _places(call, unit, partitions):
    """Where active keys are: runs of (first key, keys, partition, tile, whether the next is a tile on)."""
    active = call.cfg.s_active
    folds = folds_of(call, unit)
    fold = folds[len(folds) - 1]
    run = fold.run
    found = []
    for i in range(active):
        key = (unit.tiles - fold.first) * partitions - active + i
        lane = key // run % partitions
        tile = fold.first + key // (run * partitions) * run + key % run
        if len(found) > 0:
            index, number, first_lane, first_tile, along_tiles = found[len(found) - 1]
            if lane == first_lane and tile == first_tile + number and (number == 1 or along_tiles):
                found[len(found) - 1] = (index, number + 1, first_lane, first_tile, True)
                continue
            if tile == first_tile and lane == first_lane + number and (number == 1 or not along_tiles):
                found[len(found) - 1] = (index, number + 1, first_lane, first_tile, False)
                continue
        found.append((i, 1, lane, tile, True))
    return found


def load_mask(call, unit, slot):
    """Which scores of a unit count: [128, tiles, rows] of 0 and 1; once for all sequences of one section."""
    cfg, share = call.cfg, call.share
    if call.sections > 1:
        first_batch, batches = unit.batch, unit.batches
    elif unit.batch == share.first_batch:
        first_batch, batches = share.first_batch, share.batches
    else:
        return
    rows, width = batches * call.row, cfg.bs * call.row
    partitions, section, capacity = slot.mask.shape
    column = first_batch * call.row
    if cfg.block_len > 0 and not cfg.use_pos_id:
        first = share.first_key + unit.tile * partitions
        mask = slot.mask.ap(pattern=[[section * capacity, partitions], [capacity, unit.tiles], [1, rows]])
        pattern = [[width, partitions], [partitions * width, unit.tiles], [1, rows]]
        nisa.dma_copy(dst=mask, src=call.mask.ap(pattern=pattern, offset=first * width + column))
        return
    for fold in folds_of(call, unit):
        first, run = share.first_key + (unit.tile + fold.first) * partitions, fold.run
        tiles = run * fold.count
        if cfg.use_pos_id:
            nisa.iota(
                dst=slot.index[:, nl.ds(fold.first, tiles)],
                pattern=[[partitions * run, fold.count], [1, run]], offset=first, channel_multiplier=run,
            )  # fmt: skip
            continue
        mask = slot.mask.ap(
            pattern=[[section * capacity, partitions], [capacity, tiles], [1, rows]],
            offset=fold.first * capacity,
        )
        pattern = [[run * width, partitions]]
        if fold.count > 1:
            pattern += [[partitions * run * width, fold.count]]
        pattern += [[width, run], [1, rows]]
        nisa.dma_copy(dst=mask, src=call.mask.ap(pattern=pattern, offset=first * width + column))
    if not cfg.use_pos_id:
        return
    shape = [[section * capacity, partitions], [capacity, unit.tiles], [call.row, batches], [1, call.row]]
    index = slot.index.ap(pattern=[[section, partitions], [1, unit.tiles], [0, batches], [0, call.row]])
    position = call.positions.ap(
        pattern=[[cfg.bs, partitions], [0, unit.tiles], [1, batches], [0, call.row]], offset=first_batch
    )
    nisa.tensor_tensor(
        dst=slot.mask.ap(pattern=shape), data1=index, data2=position, op=nl.less, engine=nisa.gpsimd_engine
    )
    if _holds_active(call, unit):
        for part in _places(call, unit, partitions):
            first, number, lane, tile, along_tiles = part
            source = call.mask.ap(pattern=[[width, number], [1, rows]], offset=first * width + column)
            start = lane * section * capacity + tile * capacity
            if along_tiles:
                pattern = [[section * capacity, 1], [capacity, number], [1, rows]]
            else:
                pattern = [[section * capacity, number], [1, rows]]
            load_aside(slot.mask.ap(pattern=pattern, offset=start), source)
