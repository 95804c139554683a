"""Which keys a tile of queries sees, and in which units attention_cte works on them.

Keys stand in segments (the prior ones of a cache, the active ones), each cut into blocks of 128; queries
stand in tiles of 128. Query ``i`` has position ``base + i * step``, active key ``j`` position ``j``, prior
key ``j`` position ``j - used``. ``base`` and ``used`` may be known at run time only, within bounds.
"""

from dataclasses import dataclass
from typing import Any

import nki.language as nl

from ..utils.kernel_helpers import div_ceil

TILE = 128  # queries of a tile, keys of a block
CHUNK_TILES = 4  # tiles of queries that are loaded, and stored, together
UNIT_BLOCKS = 8  # blocks of the largest unit: 1024 scores of fp32 fill two banks of PSUM


@dataclass
class Problem(nl.NKIObject):
    """The sizes of a call.

    Attributes:
        queries: of one head.
        keys: active keys that are loaded.
        prior: prior keys that are loaded.
        d: head dimension.
        causal: no query sees a later key.
        window: keys that a query sees, itself included; 0 is all.
        base: the largest possible position of query 0; the smallest is 0.
        step: from the position of a query to that of the next.
        scale: of the scores.
        exact: the row maximum is exact, not only near enough to keep exp in range.
    """

    queries: int
    keys: int
    prior: int
    d: int
    causal: bool
    window: int
    base: int
    step: int
    scale: float
    exact: bool


@dataclass
class Unit(nl.NKIObject):
    """The scores of one tile of queries and up to eight blocks of keys.

    Attributes:
        tile: number of the tile of queries.
        is_prior: the keys are of the prior segment.
        first: first block of its segment.
        count: blocks.
        bounded: which keys are seen is known at run time only.
        opens: it is the first unit of its tile.
        closes: it is the last one.
    """

    tile: int
    is_prior: bool
    first: int
    count: int
    bounded: bool
    opens: bool
    closes: bool


@dataclass
class Segment(nl.NKIObject):
    """Keys and values of one head in SBUF.

    Attributes:
        keys: [d, blocks * 128].
        values: [128, blocks, d + 1].
        length: keys there are in HBM.
        loaded: blocks that are here so far.
    """

    keys: Any
    values: Any
    length: int
    loaded: int


@dataclass
class Call(nl.NKIObject):
    """What every part of the kernel needs: sizes, tensors in HBM, small tiles for the whole call."""

    problem: Problem
    q: Any
    k: Any
    v: Any
    k_prior: Any
    v_prior: Any
    sink: Any
    out: Any
    statistics: Any
    tp_q: bool
    tp_k: bool
    tp_out: bool
    prior_used_len: Any
    dtype: Any = None  # of queries, keys and values in SBUF
    cp_offset: Any = None
    offset: Any = None  # [128, 1] fp32: cp_offset
    begin: Any = None  # [128, 1] fp32: the first active key that is loaded
    start: Any = None  # the same as [1, 1] int32
    used: Any = None  # [128, 1] fp32: prior keys that count
    upper: Any = None  # bounds of active keys, then of prior ones: see bounds_of
    lower: Any = None
    prior_upper: Any = None
    prior_lower: Any = None
    identity: Any = None
    masks: Any = None  # [128, 128] of 0 and MASKED, by the rows a tile stands below a block
    factor: Any = None  # [128, 1]: what makes the negative maximum of scaled scores out of a reduction


@dataclass
class Head(nl.NKIObject):
    """One head of queries on this core, as far as the work on it has come.

    Attributes:
        row: of q, out and sink.
        group: keys and values, shared by the heads of a group.
        first, stride, tiles: its tiles of queries are first, first + stride, ...
    """

    row: int
    group: Any
    first: int
    stride: int
    tiles: int
    queries: Any = None  # [d, tiles, 128] of the chunk
    following: Any = None  # and of the next one, which is loaded ahead
    results: Any = None  # [128, tiles, d] of the chunk
    sink_bias: Any = None
    negative_max: Any = None  # [128, tiles]
    reciprocal: Any = None
    bias: Any = None  # [128, 1]: minus the largest scaled score of the tile so far
    total: Any = None  # [128, d + 1]: sums of weighted values and of weights of the tile so far


@dataclass
class Work(nl.NKIObject):
    """A unit on its way through the engines."""

    head: Head
    index: int  # of its tile among those of the head on this core
    unit: Unit
    masked: Any = None  # [128 queries, keys], of a bounded unit
    bias: Any = None  # [128, 1]: minus the largest scaled score of the tile so far
    weights: Any = None  # [128 queries, keys]
    turned: Any = None  # [128 keys, blocks, 128 queries]
    by_pe: int = 0  # how many blocks of them the tensor engine transposes, the last ones
    decay: Any = None  # [128, 1]: what the sums of the tile before this unit are multiplied by
    decayed: Any = None  # [128, d + 1]: those sums


def blocks_of(keys: int) -> int:
    """Blocks that hold so many keys."""
    return div_ceil(keys, TILE)


def units_of(problem: Problem, tile: int):
    """The units of a tile of queries, in the order of their keys."""
    lowest = tile * TILE * problem.step
    highest = problem.base + (min((tile + 1) * TILE, problem.queries) - 1) * problem.step
    window = problem.window
    start = 0 if window == 0 else max(0, lowest - window + 1) // TILE
    found = []
    if problem.prior > 0 and (window == 0 or lowest < window - 1):
        parts = _parts(start, blocks_of(problem.prior))
        for part in parts:
            found.append(Unit(tile, True, part[0], part[1] - part[0], window > 0, False, False))
    parts = _parts(start, blocks_of(min(problem.keys, highest + 1) if problem.causal else problem.keys))
    for part in parts:
        later = part[1] * TILE - 1 > lowest
        outside = window > 0 and part[0] * TILE <= highest - window
        bounded = problem.causal and not _known(problem) and (later or outside)
        found.append(Unit(tile, False, part[0], part[1] - part[0], bounded, False, False))
    if len(found) > 0:
        found[0].opens = True
        found[len(found) - 1].closes = True
    return found


def _known(problem: Problem):
    """True if query i stands at position i."""
    return problem.base == 0 and problem.step == 1


def _parts(start: int, stop: int):
    """Ranges of nearly equal length, at most that of a unit, that cover `start` to `stop`."""
    count = max(0, div_ceil(stop - start, UNIT_BLOCKS))
    found = []
    for i in range(count):
        found.append((start + (stop - start) * i // count, start + (stop - start) * (i + 1) // count))
    return found


def mask_delta(problem: Problem, tile: int, block: int):
    """Rows by which a tile stands below a block of active keys that it sees in part; None if it sees all.

    A score of row p and column j is kept if 0 <= delta + p - j < window. Where positions are not known,
    blocks that are seen in part are in bounded units.
    """
    delta = (tile - block) * TILE
    if not problem.causal or not _known(problem):
        return None
    if delta < TILE:
        return delta
    if problem.window > 0 and delta + TILE > problem.window:
        return delta
    return None
