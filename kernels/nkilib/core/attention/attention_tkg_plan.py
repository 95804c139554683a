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
BANK = 512  # fp32 elements
BANK_BYTES = 2048

# Banks of PSUM.
SCORE_BANK = 0
TURN_BANK, TURN_BANKS = 3, 2  # scores have them as well where no keys are transposed
MAX_BANK = 5  # sums of weights behind the maxima
STORE_BANK = 5
VALUE_BANK, VALUE_BANKS = 6, 2
PLACES = 4  # of sums of values in a bank

SECTION_TILES = 64  # tiles of keys, over all sequences of a unit, that one unit takes if it can
RUN = 32  # keys of a partition that are neighbours: values come in runs of kilobytes, keys in few pieces


@dataclass
class Share(nl.NKIObject):
    """What this core works on.

    Attributes:
        first_batch, batches: sequences.
        first_key, keys: keys of the window of `curr_sprior`.
        run: neighbouring keys that a partition holds, see :class:`Fold`.
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
    positions: Any = None  # [128, B] fp32
    blocks: Any = None  # [128, tiles of blocks, B] int32: rows of the cache
    group: int = 0  # sequences of a unit
    section: int = 0  # tiles of keys of a unit
    sections: int = 0
    width: int = 0  # partitions of a band of sums of values
    bands: int = 0
    lanes: int = 0  # partitions of a band that are written: all, or those of the rows of a sequence
    diagonal: Any = None  # [128, bands * row] bf16: 1 where a column is the row of a partition
    largest: Any = None  # [rows, 1] fp32: the maximum of the last unit
    both: Any = None  # [128, cores, n] fp32: sums that are more than one unit's; first this core's
    groups: int = 0  # groups of sequences in it
    ready: Any = None  # results that are not stored yet: a Finish, first sequence, sequences


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
class Fold(nl.NKIObject):
    """Tiles of a unit whose keys are laid out alike.

    Key (f * 128 + p) * run + j of the fold is in partition p, tile first + f * run + j.

    Attributes:
        first: first tile.
        run: neighbouring keys that a partition holds.
        count: times that 128 * run keys follow each other.
    """

    first: int
    run: int
    count: int


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
        work: where its results are finished.
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
    work: Any


@dataclass
class Finish(nl.NKIObject):
    """The tiles in SBUF that results are finished in.

    Attributes:
        total: [128, rows] fp32, sums of weights.
        decay: [128, rows] fp32, what sums are multiplied by.
        scratch: [128, rows] fp32.
        factor: [128, places] fp32, what sums of values are multiplied by, in the partitions of their rows.
        inverse: [128, places] fp32, one over the sums of weights, there as well.
        result: [128, places, d], rows in their partitions.
        turned: [d, rows].
        heads: [128, d, s_active], heads of the result by rows.
    """

    total: Any
    decay: Any
    scratch: Any
    factor: Any
    inverse: Any
    result: Any
    turned: Any
    heads: Any


def share_of(cfg, programs, program, as_documented):
    """What a program works on: half of the sequences, so that no sums are exchanged, or half of the keys.

    Args:
        as_documented: True to share as :mod:`.attention_tkg_utils` says, which the layout of debug tensors
            follows.
    """
    first_batch, batches, first_key, keys = 0, cfg.bs, 0, cfg.curr_sprior
    by_key = by_batch = 1
    if programs > 1 and cfg.bs % programs == 0 and (not as_documented or is_batch_sharded(cfg, TILE)):
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
        run = SECTION_TILES if as_documented else RUN
    writes = by_batch > 1 or program == 0
    return Share(first_batch, batches, first_key, keys, run, by_key, by_batch, program, writes)


def reads_new_keys(cfg, programs, program):
    """False for a program whose share of the keys does not hold the last ones."""
    share = share_of(cfg, programs, program, False)
    return share.first_key + share.keys == cfg.curr_sprior


def folds_of(call, unit):
    """The folds of a unit: of runs as long as the share's, and the rest."""
    run = min(call.share.run, unit.tiles)
    count = unit.tiles // run
    folds = [Fold(0, run, count)]
    if count * run < unit.tiles:
        folds.append(Fold(count * run, unit.tiles - count * run, 1))
    return folds
