"""Sums of attention_tkg: of sections, of two cores, and how they become results.

Sums of values have their rows on the partitions, where a store finds whole heads. Sequence b of a unit is in
band b % bands, of `width` partitions each, and there in place b // bands. Sums of weights and maxima have
their rows along the free dimension, the same in every partition, as scores need them; :func:`_spread` brings
them to the partitions of their rows.
"""

import nki.isa as nisa
import nki.language as nl

from ..utils.allocator import sizeinbytes
from ..utils.kernel_helpers import div_ceil
from ..utils.projection import AT_ONCE
from .attention_tkg_debug import store_debug_rows
from .attention_tkg_plan import BANK_BYTES, STORE_BANK, TILE, Finish

LEAST = 1e-30  # of a sum of weights: a row that sees no key comes out as 0
TURNS = 4  # tiles that take turns in a bank


def places_of(call, batches):
    """Places that so many sequences take."""
    return div_ceil(batches, call.bands)


def _columns_of(call, batches):
    """Columns of the places that so many sequences take."""
    return places_of(call, batches) * call.bands * call.row


def spans(call, batches):
    """The parts of [partitions, places] that sums are in: (partition, partitions, place, places)."""
    bands, width = call.bands, call.width
    found = []
    if call.lanes < width:
        for band in range(min(bands, batches)):
            found.append((band * width, call.lanes, 0, div_ceil(batches - band, bands)))
        return found
    if batches >= bands:
        found.append((0, bands * width, 0, batches // bands))
    if batches % bands > 0:
        found.append((0, batches % bands * width, batches // bands, 1))
    return found


def allocate_finish(call, batches):
    """The tiles that results of so many sequences are finished in."""
    cfg, sbm, dtype = call.cfg, call.sbm, call.out.dtype
    places, columns = places_of(call, batches), _columns_of(call, batches)
    work = Finish(
        total=sbm.alloc_stack((TILE, columns), dtype=nl.float32, buffer=nl.sbuf),
        decay=sbm.alloc_stack((TILE, columns), dtype=nl.float32, buffer=nl.sbuf),
        scratch=sbm.alloc_stack((TILE, columns), dtype=nl.float32, buffer=nl.sbuf),
        factor=sbm.alloc_stack((TILE, places), dtype=nl.float32, buffer=nl.sbuf),
        inverse=sbm.alloc_stack((TILE, places), dtype=nl.float32, buffer=nl.sbuf),
        result=sbm.alloc_stack((TILE, places, cfg.d_head), dtype=dtype, buffer=nl.sbuf),
        turned=sbm.alloc_stack((cfg.d_head, columns), dtype=dtype, buffer=nl.sbuf),
        heads=sbm.alloc_stack((TILE, cfg.d_head, cfg.s_active), dtype=dtype, buffer=nl.sbuf),
    )
    return work


def _turns(cfg):
    """True if results are turned to [d, rows]."""
    return cfg.out_in_sb or cfg.s_active > 1


def finish_bytes(call, batches):
    """Bytes of a partition of these tiles."""
    d, size = call.cfg.d_head, sizeinbytes(call.out.dtype)
    places, columns = places_of(call, batches), _columns_of(call, batches)
    return 12 * columns + 8 * places + size * (places * d + columns + d * call.cfg.s_active) + 64


def _spread(call, dst, src, scratch, count):
    """dst[partition of a row, place] = the value of that row in src, for `count` places.

    Args:
        dst: [128, places].
        src: [128, columns], the rows of the places one after the other.
        scratch: of the shape of src.
    """
    columns = call.bands * call.row
    shape = [[src.shape[1], TILE], [columns, count], [1, columns]]
    diagonal = call.diagonal.ap(pattern=[[columns, TILE], [0, count], [1, columns]])
    there = scratch.ap(pattern=shape)
    nisa.tensor_tensor(dst=there, data1=src.ap(pattern=shape), data2=diagonal, op=nl.multiply)
    nisa.tensor_reduce(dst=dst[:, 0:count], op=nl.add, data=there, axis=2)


def _spread_decay(call, work, dst, batches):
    """:func:`_spread` of work.decay, of so many sequences."""
    count, rows = places_of(call, batches), batches * call.row
    if rows < _columns_of(call, batches):  # bands of the last place that are empty
        padding = work.decay[:, rows : _columns_of(call, batches)]
        nisa.memset(dst=padding, value=1.0, engine=nisa.gpsimd_engine)
    _spread(call, dst, work.decay, work.scratch, count)


def _factors(call, factor, span):
    """The factors of the rows of a span, for each of their d values."""
    partition, partitions, place, places = span
    capacity = factor.shape[1]
    pattern = [[capacity, partitions], [1, places], [0, call.cfg.d_head]]
    return factor.ap(pattern=pattern, offset=partition * capacity + place)


# --- sums of more than one unit


def allocate_state(call):
    """Sums of values, sums of weights and maxima, of this core and beside them of the other one."""
    share = call.share
    cores = share.cores_by_key
    call.groups = div_ceil(share.batches, call.group) if cores > 1 else 1
    size = places_of(call, call.group) * call.cfg.d_head + 2 * _columns_of(call, call.group)
    call.both = call.sbm.alloc_stack((TILE, cores, call.groups * size), dtype=nl.float32, buffer=nl.sbuf)
    if cores > 1 or call.bands > 1:
        nisa.memset(dst=call.both, value=0.0)


def _values_of(call, group, span):
    """This core's sums of values of a group of sequences."""
    partition, partitions, place, places = span
    d = call.cfg.d_head
    _, cores, size = call.both.shape
    start = partition * cores * size + (group * places_of(call, call.group) + place) * d
    return call.both.ap(pattern=[[cores * size, partitions], [d, places], [1, d]], offset=start)


def _statistics(call, which, group, columns):
    """This core's sums of weights (which = 0) or maxima (1) of the first columns of a group of sequences."""
    groups, capacity = call.groups, _columns_of(call, call.group)
    start = groups * places_of(call, call.group) * call.cfg.d_head + (which * groups + group) * capacity
    return call.both[:, 0, nl.ds(start, columns)]


def _group_of(call, unit):
    """The index of a unit's sequences among those whose sums are kept."""
    if call.share.cores_by_key == 1:
        return 0
    return (unit.batch - call.share.first_batch) // call.group


def weigh(call, unit, slot):
    """Makes of the sums of a unit's weights the factors of its sums of values, which may come later."""
    work, rows = slot.work, unit.batches * call.row
    total, maximum = work.total[:, 0:rows], slot.maximum[:, 0:rows]
    if call.both is not None:  # a section's maximum may make the sums before it smaller
        group = _group_of(call, unit)
        sums, largest = _statistics(call, 0, group, rows), _statistics(call, 1, group, rows)
        if unit.opens:
            nisa.tensor_copy(dst=sums, src=total, engine=nisa.vector_engine)
        else:
            decay = work.decay[:, 0:rows]
            nisa.tensor_tensor(dst=decay, data1=largest, data2=maximum, op=nl.subtract)
            nisa.activation(dst=decay, op=nl.exp, data=decay)
            _spread_decay(call, work, work.factor, unit.batches)
            nisa.tensor_tensor(dst=sums, data1=sums, data2=decay, op=nl.multiply)
            nisa.tensor_tensor(dst=sums, data1=sums, data2=total, op=nl.add)
        nisa.tensor_copy(dst=largest, src=maximum, engine=nisa.gpsimd_engine)
        total, maximum = sums, largest
    if unit.closes and call.share.cores_by_key == 1:
        inverse = work.decay[:, 0:rows]
        _invert(call, inverse, total, maximum)
        if call.debug is not None:
            store_debug_rows(call, work, unit.batch, maximum, inverse)
        _spread_decay(call, work, work.inverse, unit.batches)


def _invert(call, dst, total, maximum):
    """dst = 1 / the sums of weights, the sink's included; all [128, columns], `row` for each sequence."""
    cfg = call.cfg
    if call.sink is None:
        sums = total
    else:
        sums = dst
        pattern = [[cfg.q_head, TILE], [0, dst.shape[1] // call.row], [1, cfg.q_head], [0, cfg.s_active]]
        sinks = call.sink_row.ap(pattern=pattern)
        nisa.tensor_tensor(dst=dst, data1=sinks, data2=maximum, op=nl.subtract)
        nisa.activation(dst=dst, op=nl.exp, data=dst)
        nisa.tensor_tensor(dst=dst, data1=dst, data2=total, op=nl.add)
    nisa.tensor_scalar(
        dst=dst, data=sums, op0=nl.maximum, operand0=LEAST, op1=nl.power, operand1=-1.0,
        engine=nisa.gpsimd_engine,
    )  # fmt: skip


def settle(call, unit, slot, bank):
    """Sums of values of a unit: added to those of the sections before it, and where it is the last a result.

    Args:
        bank: [128, places, 128] in PSUM.
    """
    work, group = slot.work, _group_of(call, unit)
    if call.both is not None:
        for span in spans(call, unit.batches):
            values, product = _values_of(call, group, span), _product(call, bank, span)
            if unit.opens:
                nisa.tensor_copy(dst=values, src=product, engine=nisa.vector_engine)
            else:
                decay = _factors(call, work.factor, span)
                nisa.tensor_tensor(dst=values, data1=values, data2=decay, op=nl.multiply)
                nisa.tensor_tensor(dst=values, data1=values, data2=product, op=nl.add)
        bank = None
    if unit.closes and call.share.cores_by_key == 1:
        _finish(call, work, unit.batch, unit.batches, bank)


def combine(call):
    """Both cores add what they found for their halves of the keys."""
    core, both = call.share.core, call.both
    nisa.sendrecv(
        src=both[:, 0, :], dst=both[:, 1, :], send_to_rank=1 - core, recv_from_rank=1 - core, pipe_id=0
    )
    sbm, groups, d = call.sbm, call.groups, call.cfg.d_head
    capacity, places = _columns_of(call, call.group), places_of(call, call.group)
    columns, size = groups * capacity, both.shape[2]
    start = groups * places * d
    pattern = [[2 * size, TILE], [size, 2], [1, columns]]
    sums, largest = both.ap(pattern=pattern, offset=start), both.ap(pattern=pattern, offset=start + columns)
    maximum = sbm.alloc_stack((TILE, columns), dtype=nl.float32, buffer=nl.sbuf)
    total = sbm.alloc_stack((TILE, columns), dtype=nl.float32, buffer=nl.sbuf)
    inverse = sbm.alloc_stack((TILE, columns), dtype=nl.float32, buffer=nl.sbuf)
    decay = sbm.alloc_stack((TILE, 2 * columns), dtype=nl.float32, buffer=nl.sbuf)
    scratch = sbm.alloc_stack((TILE, 2 * columns), dtype=nl.float32, buffer=nl.sbuf)
    factor = sbm.alloc_stack((TILE, 2 * groups * places), dtype=nl.float32, buffer=nl.sbuf)
    shape = [[2 * columns, TILE], [columns, 2], [1, columns]]
    decays = decay.ap(pattern=shape)
    of_both = [[columns, TILE], [0, 2], [1, columns]]
    first = nl.ds(start + columns, columns)
    nisa.tensor_tensor(dst=maximum, data1=both[:, 0, first], data2=both[:, 1, first], op=nl.maximum)
    nisa.tensor_tensor(dst=decays, data1=largest, data2=maximum.ap(pattern=of_both), op=nl.subtract)
    nisa.activation(dst=decay, op=nl.exp, data=decay)
    nisa.tensor_tensor(dst=sums, data1=sums, data2=decays, op=nl.multiply)
    first = nl.ds(start, columns)
    nisa.tensor_tensor(dst=total, data1=both[:, 0, first], data2=both[:, 1, first], op=nl.add)
    _invert(call, inverse, total, maximum)
    nisa.tensor_tensor(dst=decays, data1=decays, data2=inverse.ap(pattern=of_both), op=nl.multiply)
    _spread(call, factor, decay, scratch, 2 * groups * places)
    values = both.ap(pattern=[[2 * size, TILE], [size, 2], [d, groups * places], [1, d]])
    factors = factor.ap(
        pattern=[[2 * groups * places, TILE], [groups * places, 2], [1, groups * places], [0, d]]
    )
    nisa.tensor_tensor(dst=values, data1=values, data2=factors, op=nl.multiply)
    work = allocate_finish(call, call.group)
    for group in range(groups):
        batch = group * call.group
        batches = min(call.group, call.share.batches - batch)
        if call.debug is not None:
            rows = nl.ds(group * capacity, batches * call.row)
            store_debug_rows(call, work, batch, maximum[:, rows], inverse[:, rows])
        shape = [[2 * size, TILE], [d, places_of(call, batches)], [1, d]]
        mine = both.ap(pattern=shape, offset=group * places * d)
        others = both.ap(pattern=shape, offset=size + group * places * d)
        there = work.result[:, 0 : places_of(call, batches), :]
        nisa.tensor_tensor(dst=there, data1=mine, data2=others, op=nl.add)
        _deliver(call, work, batch, batches)


# --- results


def _product(call, bank, span):
    """Sums of values: in PSUM, or where there is no `bank` those that are kept."""
    if bank is None:
        return _values_of(call, 0, span)
    partition, partitions, place, places = span
    return bank[nl.ds(partition, partitions), nl.ds(place, places), 0 : call.cfg.d_head]


def _finish(call, work, batch, batches, bank):
    """Divides the sums of values by those of weights, and stores them.

    Args:
        batch: first sequence.
        bank: [128, places, 128], sums of values in PSUM; or None, for those that are kept.
    """
    cfg = call.cfg
    if _turns(cfg) and batches > 1 and call.bands > 1 and call.lanes < call.width:  # what is between rows
        nisa.memset(dst=work.result[:, 0 : places_of(call, batches), :], value=0.0, engine=nisa.gpsimd_engine)
    for span in spans(call, batches):
        partition, partitions, place, places = span
        there = work.result[nl.ds(partition, partitions), nl.ds(place, places), :]
        product = _product(call, bank, span)
        inverse = _factors(call, work.inverse, span)
        nisa.tensor_tensor(dst=there, data1=product, data2=inverse, op=nl.multiply)
    call.ready = (work, batch, batches)


def deliver(call):
    """The last results to where they go: after the products of the next unit, which do not wait for them."""
    if call.ready is not None:
        work, batch, batches = call.ready
        _deliver(call, work, batch, batches)
        call.ready = None


def _deliver(call, work, batch, batches):
    """work.result to where results go."""
    cfg = call.cfg
    if _turns(cfg):
        _turn(call, work, batch, batches)
    if cfg.out_in_sb:
        return
    heads, d, bands = cfg.q_head, cfg.d_head, call.bands
    start, number = 0, d
    if call.share.cores_by_key > 1:  # both cores have all of it, and store half of each head
        start, number = (0, d // 2) if call.share.core == 0 else (d // 2, d - d // 2)
    if number == 0:
        return
    if cfg.s_active > 1:
        _store_tokens(call, work, batch, batches, start, number)
        return
    for band in range(min(bands, batches)):
        places = div_ceil(batches - band, bands)
        pattern = [[d, heads], [bands * heads * d, places], [1, number]]
        there = call.out.ap(pattern=pattern, offset=(batch + band) * heads * d + start)
        result = work.result[nl.ds(band * call.width, heads), 0:places, nl.ds(start, number)]
        nisa.dma_copy(dst=there, src=result, dge_mode=AT_ONCE)


def _turn(call, work, batch, batches):
    """Results [rows, d] to [d, rows], in `out` if it is in SBUF, else in work.turned."""
    cfg, row, width = call.cfg, call.row, call.width
    d = cfg.d_head
    for place in range(places_of(call, batches)):
        first = place * call.bands
        count = min(call.bands, batches - first)
        partitions = (count - 1) * width + row
        bank = nl.ndarray(
            (d, TURNS, TILE), dtype=work.result.dtype, buffer=nl.psum, address=(0, STORE_BANK * BANK_BYTES)
        )
        turn = place % TURNS
        nisa.nc_transpose(dst=bank[:, turn, 0:partitions], data=work.result[0:partitions, place, :])
        there, start = work.turned, first * row
        if cfg.out_in_sb:
            there, start = call.out, (batch + first) * row
        nisa.tensor_copy(
            dst=there.ap(pattern=[[there.shape[1], d], [row, count], [1, row]], offset=start),
            src=bank.ap(pattern=[[TURNS * TILE, d], [width, count], [1, row]], offset=turn * TILE),
            engine=nisa.vector_engine,
        )


def _store_tokens(call, work, batch, batches, start, number):
    """Some elements of the heads, work.turned to out[B, H, d, s]: by transposes, so that heads are rows."""
    cfg = call.cfg
    d, active = cfg.d_head, cfg.s_active
    count = batches * cfg.q_head
    capacity = work.turned.shape[1]
    most = BANK_BYTES // (d * sizeinbytes(work.turned.dtype))  # tokens of a bank
    for first in range(0, active, most):
        tokens = min(most, active - first)
        bank = nl.ndarray(
            (count, tokens, d), dtype=work.turned.dtype, buffer=nl.psum, address=(0, STORE_BANK * BANK_BYTES)
        )
        for i in range(tokens):
            rows = work.turned.ap(pattern=[[capacity, d], [active, count]], offset=first + i)
            nisa.nc_transpose(dst=bank[:, i, :], data=rows)
        there = work.heads.ap(pattern=[[d * active, count], [1, tokens], [active, d]], offset=first)
        nisa.tensor_copy(dst=there, src=bank, engine=nisa.vector_engine)
    pattern = [[d * active, count], [active, number], [1, active]]
    there = call.out.ap(pattern=pattern, offset=(batch * cfg.q_head * d + start) * active)
    nisa.dma_copy(dst=there, src=work.heads[0:count, nl.ds(start, number), :], dge_mode=AT_ONCE)
