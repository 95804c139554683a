"""Blocks one after the other on one core: weights and rows are loaded one piece of work ahead."""

from dataclasses import dataclass
from typing import Any

import nki.isa as nisa
import nki.language as nl

from ...utils.kernel_helpers import div_ceil
from ...utils.tiled_range import TiledRange
from .block_phases import (
    COLUMNS,
    TOKENS,
    P,
    activate,
    columns,
    down_bank,
    down_pieces,
    gate_up_pieces,
    gate_up_tile,
    gather,
    gather_rows,
    load_down,
    load_gate_up,
    spread_row,
    turned,
)


@dataclass
class Work(nl.NKIObject):
    """One piece of weights and what is done with it.

    Attributes:
        position: which of the blocks of the list.
        group: the range of the block's tokens, at most 512.
        phase: "gate_up", "send" (down for the other core) or "down".
        piece: the columns of I or H.
        first: of "send" and "down", the column of H that piece offsets count from.
        opens: True for the first piece of a group.
    """

    position: int
    group: Any
    phase: str
    piece: Any
    first: int

    def __post_init__(self):
        self.opens = self.phase == "gate_up" and self.piece.index == 0


@dataclass
class Progress(nl.NKIObject):
    """Tiles in SBUF of the group of tokens being worked on."""

    rows: Any = None
    turned: Any = None
    product: Any = None
    sent: Any = None
    received: Any = None
    old: Any = None
    result: Any = None


@dataclass
class Tables(nl.NKIObject):
    """Scales and biases of a block's expert, in SBUF; None where there is none."""

    column_scale: Any = None
    column_bias: Any = None
    row_scale: Any = None
    row_bias: Any = None


def run_blocks(problem, share, outputs, blocks):
    """Compute `blocks`, a list of block numbers or registers, and add their results to `outputs`."""
    if len(blocks) == 0:
        return
    work = _work(problem, share, len(blocks))
    resident = Resident([], [])
    gathered = [gather(problem, blocks[0])]
    rows = gather_rows(problem, gathered[0], work[0].group)
    weights = _load(problem, share, gathered, work[0], resident)
    progress, tables = Progress(), Tables()
    for number in range(len(work)):
        item, following = work[number], None
        block = gathered[item.position]
        if item.opens:
            if item.group.index == 0:
                tables = _tables(problem, share, block)
            progress = Progress(rows=rows)
        if number + 1 < len(work):
            upcoming = work[number + 1]
            following = _load(problem, share, gathered, upcoming, resident)
        if item.opens:
            successor = _successor(work, number)
            if successor is not None:
                if successor.position == len(gathered):
                    gathered.append(gather(problem, blocks[successor.position], before=block))
                rows = gather_rows(problem, gathered[successor.position], successor.group)
            _start(problem, share, progress)
        if item.phase == "gate_up":
            _gate_up(problem, share, outputs, block, item, weights, progress, tables)
        elif item.phase == "send":
            _send(problem, share, item, weights, progress)
        else:
            _finish(problem, share, outputs, block, item, weights, progress, tables)
        weights = following


def _successor(work, number):
    """The work that opens the next group of tokens, or None."""
    for later in range(number + 1, len(work)):
        if work[later].opens:
            return work[later]
    return None


def _work(problem, share, count):
    work = []
    for position in range(count):
        for group in TiledRange(problem.block_size, TOKENS):
            for piece in gate_up_pieces(problem, share):
                work.append(Work(position, group, "gate_up", piece, 0))
            if share.cores > 1:
                for piece in down_pieces(problem, share):
                    work.append(Work(position, group, "send", piece, share.width - share.own))
            for piece in down_pieces(problem, share):
                work.append(Work(position, group, "down", piece, share.own))
    return work


@dataclass
class Resident(nl.NKIObject):
    """Weights that stay in SBUF for consecutive blocks of an expert, by piece; empty if streamed."""

    gate_up: Any
    down: Any


def _load(problem, share, gathered, item, resident):
    """The weights of a piece of work; those that stay are read again for a block of another expert only."""
    block, before = gathered[item.position], None
    pieces = resident.gate_up if item.phase == "gate_up" else resident.down
    if item.piece.index < len(pieces):
        before = pieces[item.piece.index]
        if item.group.index > 0:
            return before
    if item.phase == "gate_up":
        weights = load_gate_up(problem, block, share, item.piece, before)
    else:
        weights = load_down(problem, block, share, item.first, item.piece, before)
    if problem.skip.skip_weight and before is None:
        pieces.append(weights)
    return weights


def _start(problem, share, progress):
    """Turn the rows of x; make room for the product of gate and up."""
    progress.turned = turned(progress.rows, problem.compute_dtype)
    progress.product = nl.ndarray(
        (P, div_ceil(share.size, P), progress.turned.shape[2]), dtype=problem.compute_dtype, buffer=nl.sbuf
    )


def _tables(problem, share, gathered):
    tables = Tables()
    experts, intermediate = problem.experts, problem.intermediate
    if problem.gate_up_proj_scale is not None:
        scale = problem.gate_up_proj_scale
        table = scale.reshape((scale.shape[0], scale.shape[2]))
        tables.column_scale = columns(table, gathered.expert, share, 2, intermediate)
        scale = problem.down_proj_scale
        table = scale.reshape((scale.shape[0], scale.shape[2]))
        tables.row_scale = spread_row(table, gathered.expert, share.own, share.width)
    if problem.gate_and_up_proj_bias is not None:
        table = problem.gate_and_up_proj_bias.reshape((experts, 2 * intermediate))
        tables.column_bias = columns(table, gathered.expert, share, 2, intermediate)
    if problem.down_proj_bias is not None:
        tables.row_bias = spread_row(problem.down_proj_bias, gathered.expert, share.own, share.width)
    return tables


def _gate_up(problem, share, outputs, gathered, item, weights, progress, tables):
    checkpoint = None
    if outputs.gate_up is not None:
        tokens = nl.ds(item.group.start_offset, item.group.size)
        checkpoint = (
            outputs.gate_up[gathered.block, 0, :, tokens],
            outputs.gate_up[gathered.block, 1, :, tokens],
        )
    for tile in TiledRange(item.piece, P):
        index = tile.start_offset // P
        gate, up = gate_up_tile(problem, weights, progress.turned, tile.index * P, tile.size)
        target = progress.product[0 : tile.size, index, :]
        activate(problem, share, gate, up, tables.column_scale, tables.column_bias, index, target, checkpoint)


def _send(problem, share, item, weights, progress):
    """Down projection of the other core's columns, sent when they are complete."""
    tiles = progress.turned.shape[2] // P
    dtype = nl.float32 if problem.down_proj_scale is not None else problem.compute_dtype
    if item.piece.index == 0:
        progress.sent = nl.ndarray((P, tiles, share.width), dtype=dtype, buffer=nl.sbuf)
    for bank in TiledRange(item.piece, COLUMNS):
        for token in range(tiles):
            partial = down_bank(share, weights, progress.product, token, bank.index * COLUMNS, bank.size)
            target = progress.sent[:, token, nl.ds(bank.start_offset, bank.size)]
            nisa.tensor_copy(dst=target, src=partial, engine=nisa.scalar_engine)
    if item.piece.end_offset == share.width:
        progress.received = nl.ndarray((P, tiles, share.width), dtype=dtype, buffer=nl.sbuf)
        other = 1 - share.core
        nisa.sendrecv(
            src=progress.sent, dst=progress.received, send_to_rank=other, recv_from_rank=other, pipe_id=0
        )


def _rows(outputs, share, ids, tile):
    """This core's columns of the rows that `ids` name."""
    return outputs.rows.ap(
        pattern=[[outputs.stride, P], [1, share.width]],
        offset=outputs.offset,
        vector_offset=ids[:, nl.ds(tile, 1)],
        indirect_dim=0,
    )


def _finish(problem, share, outputs, gathered, item, weights, progress, tables):
    """Down projection of this core's columns, the other's part added, scaled, and added to the result."""
    tiles = progress.turned.shape[2] // P
    first_tile = item.group.start_offset // P
    if item.piece.index == 0:
        progress.result = nl.ndarray((P, tiles, share.width), dtype=outputs.rows.dtype, buffer=nl.sbuf)
        if problem.accumulating:
            progress.old = nl.ndarray((P, tiles, share.width), dtype=outputs.rows.dtype, buffer=nl.sbuf)
            if problem.skip.skip_token:
                nisa.memset(dst=progress.old, value=0.0)
            for token in range(tiles):
                source = _rows(outputs, share, gathered.ids, first_tile + token)
                nisa.dma_copy(dst=progress.old[:, token, :], src=source, oob_mode=_oob(problem))
    for bank in TiledRange(item.piece, COLUMNS):
        for token in range(tiles):
            value = down_bank(share, weights, progress.product, token, bank.index * COLUMNS, bank.size)
            here = nl.ds(bank.start_offset, bank.size)
            if share.cores > 1:
                value = _combined(value, progress.received[:, token, here], nl.add, nl.float32)
            if tables.row_scale is not None:
                value = _combined(value, tables.row_scale[:, here], nl.multiply, nl.float32)
            if tables.row_bias is not None and not share.on_intermediate:
                value = _combined(value, tables.row_bias[:, here], nl.add, nl.float32)
            if outputs.down is not None:
                _store_down(problem, share, outputs, gathered, item, token, bank, value)
            target = progress.result[:, token, here]
            affinity = None
            if problem.postscaled():
                affinity = gathered.affinities[:, nl.ds(first_tile + token, 1)]
            addend = None
            if problem.accumulating:
                addend = progress.old[:, token, here]
            if tables.row_bias is not None and share.on_intermediate:
                value = _combined_scaled(value, affinity, tables.row_bias[:, here], nl.float32)
                affinity = None
            _accumulate(target, value, affinity, addend)
    if item.piece.end_offset == share.width:
        for token in range(tiles):
            nisa.dma_copy(
                dst=_rows(outputs, share, gathered.targets, first_tile + token),
                src=progress.result[:, token, :],
                oob_mode=nisa.oob_mode.skip if problem.padding_is_skipped() else _oob(problem),
            )


def _oob(problem):
    """Ids of padding are -1 where tokens may be skipped; else every id is a row."""
    return nisa.oob_mode.skip if problem.skip.skip_token else nisa.oob_mode.error


def _combined(value, other, op, dtype):
    result = nl.ndarray(value.shape, dtype=dtype, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=result, data1=value, data2=other, op=op)
    return result


def _combined_scaled(value, affinity, other, dtype):
    """value * affinity + other."""
    if affinity is None:
        return _combined(value, other, nl.add, dtype)
    result = nl.ndarray(value.shape, dtype=dtype, buffer=nl.sbuf)
    nisa.scalar_tensor_tensor(
        dst=result, data=value, op0=nl.multiply, operand0=affinity, op1=nl.add, operand1=other
    )
    return result


def _accumulate(target, value, affinity, addend):
    """target = value * affinity + addend, without what is None."""
    if affinity is not None and addend is not None:
        nisa.scalar_tensor_tensor(
            dst=target, data=value, op0=nl.multiply, operand0=affinity, op1=nl.add, operand1=addend
        )
    elif affinity is not None:
        nisa.activation(dst=target, op=nl.copy, data=value, scale=affinity)
    elif addend is not None:
        nisa.tensor_tensor(dst=target, data1=value, data2=addend, op=nl.add)
    else:
        nisa.tensor_copy(dst=target, src=value, engine=nisa.scalar_engine)


def _store_down(problem, share, outputs, gathered, item, token, bank, value):
    rounded = nl.ndarray(value.shape, dtype=outputs.down.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=rounded, src=value, engine=nisa.scalar_engine)
    rows = nl.ds(item.group.start_offset + token * P, P)
    nisa.dma_copy(
        dst=outputs.down[gathered.block, rows, nl.ds(share.own + bank.start_offset, bank.size)], src=rounded
    )
