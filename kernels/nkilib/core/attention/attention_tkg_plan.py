"""What attention_tkg works on: shares of the cores, units, and the tiles in SBUF that a unit works in."""

from dataclasses import dataclass
from typing import Any

import nki.language as nl

from .attention_tkg_utils import (
    is_batch_sharded,
    is_s_prior_sharded,
    resize_cache_block_len_for_attention_tkg_kernel,
)

TILE = 128


@dataclass
class Share(nl.NKIObject):
    """What this core works on.

    Attributes:
        first_batch, batches: sequences.
        first_key, keys: keys of the window of `curr_sprior`.
        run: neighbouring keys that a partition holds: key (f * 128 + p) * run + j is in partition p, tile
            f * run + j.
        cores_by_key, cores_by_batch: cores that share the keys, or the sequences.
        core: this one.
        writes: it stores what all cores have.
    """

    first_batch: int
    batches: int
    first_key: int
    keys: int
    run: int
    cores_by_key: int
    cores_by_batch: int
    core: int
    writes: bool


@dataclass
class Call(nl.NKIObject):
    """What every part of the kernel needs."""

    cfg: Any
    share: Share
    sbm: Any
    k_prior: Any
    v_prior: Any
    v_active: Any
    mask: Any
    out: Any
    rope_pos_ids: Any
    sink: Any
    table: Any
    debug: Any
    row: int = 0  # rows of a sequence: heads times active tokens
    q: Any = None  # [d, B * row] in SBUF
    k_active: Any = None  # [d, B * s_active] in SBUF
    key_dtype: Any = None  # of keys in SBUF, before they are transposed
    dtype: Any = None  # of values in SBUF
    natural: bool = False  # keys come with the head dimension last and are transposed here
    identity: Any = None  # [128, 128] bf16, where keys are transposed by a product
    ones: Any = None  # [128, 128] bf16
    floor: Any = None  # [rows of a unit, 1] fp32: the sink, or NOTHING
    sink_row: Any = None  # [128, heads] fp32
    sink_is_there: bool = False
    positions: Any = None  # [128, B] fp32
    blocks: Any = None  # [128, tiles of blocks, B] int32: rows of the cache
    group: int = 0  # sequences of a unit
    section: int = 0  # tiles of keys of a unit
    sections: int = 0
    largest: Any = None  # [rows, 1] fp32: the maximum of the last unit
    both: Any = None  # [128, cores, 3, rows] fp32: sums of values, of weights, maximum; first this core's
    state: Any = None  # [128, 3, rows], this core's, where they are more than one unit's


@dataclass
class Unit(nl.NKIObject):
    """A section of the keys of some sequences.

    Attributes:
        batch: first sequence.
        batches: sequences.
        tile: first tile of keys.
        tiles: tiles.
        opens, closes: first and last section of its sequences.
    """

    batch: int
    batches: int
    tile: int
    tiles: int
    opens: bool
    closes: bool


@dataclass
class Slot(nl.NKIObject):
    """The tiles in SBUF that a unit works in.

    Attributes:
        keys: [d, sequences, keys].
        loaded: [128, sequences, tiles, d], keys as they come where they are transposed.
        values: [128, sequences, tiles, d].
        mask: [128, tiles, rows] uint8; where sequences have one section, of all of them, shared by the slots.
        index: [128, tiles] fp32, the key of each partition and tile.
        scores: [128, tiles, rows] fp32.
        weights: [128, tiles, rows] bf16.
        highest: [128, rows] fp32, the maximum of each partition.
        largest: [rows, 1] fp32, that of all.
        maximum: [128, rows] fp32, the maximum of all on every partition.
        total: [128, rows] fp32, sums of weights.
        decay: [128, rows] fp32, what earlier sums are multiplied by.
        result: [d, rows].
        turned: [128, d, s_active], heads of the result by rows.
    """

    keys: Any
    loaded: Any
    values: Any
    mask: Any
    index: Any
    scores: Any
    weights: Any
    highest: Any
    largest: Any
    maximum: Any
    total: Any
    decay: Any
    result: Any
    turned: Any


@dataclass
class Finish(nl.NKIObject):
    """The tiles of a :class:`Slot` that results are finished in."""

    total: Any
    decay: Any
    result: Any
    turned: Any


def share_of(cfg, programs, program):
    """What a program works on."""
    first_batch, batches, first_key, keys = 0, cfg.bs, 0, cfg.curr_sprior
    by_key = by_batch = 1
    if programs > 1 and is_batch_sharded(cfg, TILE):
        by_batch = programs
        batches = cfg.bs // programs
        first_batch = program * batches
    elif programs > 1 and is_s_prior_sharded(cfg, TILE):
        by_key = programs
        keys = cfg.curr_sprior // programs
        first_key = program * keys
    run = 1
    if cfg.block_len > 0:
        blocks = cfg.curr_sprior // cfg.block_len
        run, _ = resize_cache_block_len_for_attention_tkg_kernel(blocks, cfg.block_len, programs, TILE)
    elif cfg.strided_mm1:
        run = 0  # all tiles of a section
    writes = by_batch > 1 or program == 0
    return Share(first_batch, batches, first_key, keys, run, by_key, by_batch, program, writes)
