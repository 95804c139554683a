"""Blocks one after the other on one core: weights and rows are loaded one piece of work ahead."""

from dataclasses import dataclass
from typing import Any

import nki.isa as nisa
import nki.language as nl

from ...utils.tiled_range import TiledRange
from .block_phases import COLUMNS, TOKENS, P, activate, gather, indexed_copy, spread_row


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
    moving: Any = None
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


def run_blocks(weights_of, outputs, blocks):
    """Compute `blocks`, a list of block numbers or registers, and add their results to `outputs`.

    `weights_of` reads and multiplies the weights: a :class:`PlainWeights` or a :class:`MxWeights`.
    """
    if len(blocks) == 0:
        return
    problem, share = weights_of.problem, weights_of.share
    work = _work(weights_of, len(blocks))
    resident = Resident([], [])
    gathered = [gather(problem, blocks[0])]
    rows = weights_of.gather_rows(gathered[0], work[0].group)
    weights = _load(weights_of, gathered, work[0], resident)
    progress, tables = Progress(), Tables()
    for number in range(len(work)):
        item, following = work[number], None
        block = gathered[item.position]
        if item.opens:
            if item.group.index == 0:
                tables = _tables(weights_of, block)
            progress = Progress(rows=rows)
        if number + 1 < len(work):
            upcoming = work[number + 1]
            following = _load(weights_of, gathered, upcoming, resident)
        if item.opens:
            successor = _successor(work, number)
            if successor is not None:
                if successor.position == len(gathered):
                    gathered.append(gather(problem, blocks[successor.position], before=block))
                rows = weights_of.gather_rows(gathered[successor.position], successor.group)
            progress.moving = weights_of.moving(progress.rows)
            progress.product = weights_of.new_product(item.group.size)
        if item.phase == "gate_up":
            _gate_up(weights_of, outputs, block, item, weights, progress, tables)
            if item.piece.end_offset == share.size:
                progress.product = weights_of.sealed(progress.product)
        elif item.phase == "send":
            _send(weights_of, item, weights, progress, tables)
        else:
            _finish(weights_of, outputs, block, item, weights, progress, tables)
        weights = following


def _successor(work, number):
    """The work that opens the next group of tokens, or None."""
    for later in range(number + 1, len(work)):
        if work[later].opens:
            return work[later]
    return None


def _work(weights_of, count):
    problem, share = weights_of.problem, weights_of.share
    work = []
    for position in range(count):
        for group in TiledRange(problem.block_size, TOKENS):
            for piece in weights_of.gate_up_pieces():
                work.append(Work(position, group, "gate_up", piece, 0))
            if share.cores > 1:
                for piece in weights_of.down_pieces():
                    work.append(Work(position, group, "send", piece, share.width - share.own))
            for piece in weights_of.down_pieces():
                work.append(Work(position, group, "down", piece, share.own))
    return work


@dataclass
class Resident(nl.NKIObject):
    """Weights that stay in SBUF for consecutive blocks of an expert, by piece; empty if streamed."""

    gate_up: Any
    down: Any


def _load(weights_of, gathered, item, resident):
    """The weights of a piece of work; those that stay are read again for a block of another expert only."""
    block, before = gathered[item.position], None
    pieces = resident.gate_up if item.phase == "gate_up" else resident.down
    if item.piece.index < len(pieces):
        before = pieces[item.piece.index]
        if item.group.index > 0:
            return before
    if item.phase == "gate_up":
        weights = weights_of.load_gate_up(block, item.piece, before)
    else:
        weights = weights_of.load_down(block, item.first, item.piece, before)
    if weights_of.problem.skip.skip_weight and before is None:
        pieces.append(weights)
    return weights


def _tables(weights_of, gathered):
    problem, share = weights_of.problem, weights_of.share
    tables = Tables(weights_of.scales(gathered), weights_of.biases(gathered))
    if tables.column_scale is not None:
        scale = problem.down_proj_scale
        table = scale.reshape((scale.shape[0], scale.shape[2]))
        tables.row_scale = spread_row(table, gathered.expert, share.own, share.width)
    if problem.down_proj_bias is not None:
        tables.row_bias = spread_row(problem.down_proj_bias, gathered.expert, share.own, share.width)
    return tables


def _gate_up(weights_of, outputs, gathered, item, weights, progress, tables):
    for tile in TiledRange(item.piece, weights_of.tile):
        index = tile.start_offset // weights_of.tile
        gate = weights_of.gate_up_bank(weights, progress.moving, 0, tile)
        up = weights_of.gate_up_bank(weights, progress.moving, 1, tile)
        checkpoint = None
        if outputs.gate_up is not None:
            columns = nl.ds(weights_of.share.first + tile.start_offset, tile.size)
            tokens = nl.ds(item.group.start_offset, item.group.size)
            checkpoint = (
                outputs.gate_up[gathered.block, 0, columns, tokens],
                outputs.gate_up[gathered.block, 1, columns, tokens],
            )
        target = weights_of.slot(progress.product, index, tile.size)
        activate(
            weights_of.problem,
            gate,
            up,
            tables.column_scale,
            tables.column_bias,
            index,
            target,
            checkpoint,
        )


def _send(weights_of, item, weights, progress, tables):
    """Down projection of the other core's columns, sent when they are complete."""
    problem, share, tiles = weights_of.problem, weights_of.share, item.group.size // P
    dtype = problem.compute_dtype if tables.row_scale is None else nl.float32  # not yet scaled: of any size
    if item.piece.index == 0:
        progress.sent = nl.ndarray((P, tiles, share.width), dtype=dtype, buffer=nl.sbuf)
    for bank in TiledRange(item.piece, COLUMNS):
        for token in range(tiles):
            partial = weights_of.down_bank(weights, progress.product, token, bank.index * COLUMNS, bank.size)
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


def _finish(weights_of, outputs, gathered, item, weights, progress, tables):
    """Down projection of this core's columns, the other's part added, scaled, and added to the result."""
    problem, share, tiles = weights_of.problem, weights_of.share, item.group.size // P
    first_tile = item.group.start_offset // P
    if item.piece.index == 0:
        progress.result = nl.ndarray((P, tiles, share.width), dtype=outputs.rows.dtype, buffer=nl.sbuf)
        if problem.accumulating:
            progress.old = nl.ndarray((P, tiles, share.width), dtype=outputs.rows.dtype, buffer=nl.sbuf)
            if problem.skip.skip_token:
                nisa.memset(dst=progress.old, value=0.0)
            for token in range(tiles):
                source = _rows(outputs, share, gathered.ids, first_tile + token)
                indexed_copy(problem, progress.old[:, token, :], source)
    for bank in TiledRange(item.piece, COLUMNS):
        for token in range(tiles):
            value = weights_of.down_bank(weights, progress.product, token, bank.index * COLUMNS, bank.size)
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
                oob_mode=nisa.oob_mode.skip,
            )


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
