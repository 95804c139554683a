"""QKV projection for context encoding.

    out = norm(input + residuals) @ weights + bias, then RoPE and FP8 caches

Shapes: input [B, S, H], weights [H, I], out [B, S, I] or [heads, B, S, d]. Rows, b * S + s, are tiled by
128 and meet H in chunks. The chunks make one stream, which passes stages side by side, each a step or more
behind the one before, so that no engine waits for what another one does in the same step:

1. *load*: **DMA**; the **gpsimd engine** adds up the residuals;
2. *add* and *measure*: the **vector engine** adds the residuals, the **scalar engine** sums squares, the
   vector engine (LayerNorm) values. Of chunks that come turned the vector engine adds up the squares of each
   partition, and the tensor engine, with a column of ones, the partitions: rows are read from HBM once;
3. *normalize* (vector engine), only where it cannot be put off, see below;
4. *turn*: the **tensor engine** transposes, so that H is on the partitions; the scalar and vector engines
   move the result out of PSUM. Without residuals the **DMA** engines transpose on the way in, and the tensor
   engine only multiplies;
5. *settle*: the beta of LayerNorm, FP8 and MX quantization;
6. *multiply*: the tensor engine streams up to 512 columns of weights past a chunk. Several row tiles meet one
   chunk of the weights after another, so that the first weights that arrive are work for all of them.

RMSNorm needs no stage: weights times gamma, once, and rows of the result times 1 / rms, as they leave PSUM.
Where values are quantized, and for LayerNorm, chunks are normalized first, a row tile later than loaded.

Llama-3 70B on 32 ranks with RMSNorm, 4096 rows on two cores, takes 239 us, 91 % of the tensor engine's peak.
With residuals HBM decides: three tensors are read, at nine tenths of its bandwidth.

The weights stay in SBUF. If they do not fit, the columns are computed in passes, and sums with residuals are
kept in HBM for the later ones. On two cores each computes half of the rows. In SBUF, KiB per partition:
weights up to 150, chunks 2 for each tensor and stage, rows of the result 4 to 40.
"""

from dataclasses import dataclass

import nki.isa as nisa
import nki.language as nl

from ..utils.allocator import sizeinbytes
from ..utils.common_types import NormType, QKVOutputLayout, QuantizationType
from ..utils.kernel_assert import kernel_assert
from ..utils.kernel_helpers import div_ceil, get_verified_program_sharding_info
from ..utils.projection import BANK, broadcast_line, load_line
from .qkv_chunks import (
    add_residuals,
    close_statistics,
    load_chunk,
    load_weights,
    measure,
    measure_turned,
    multiply_chunk,
    new_statistics,
    normalize_chunk,
    settle_chunk,
    turn_chunk,
)
from .qkv_rows import KVCache, RowTarget, finish_rows, load_static_scales

P_MAX = nl.tile_size.pmax
PSUM_BANKS = 8
MAX_I = 4096

CHUNK = 1024  # columns of H in a chunk: a bank of PSUM, turned by the tensor engine; rows of 2 KiB for DMA
MANY_ROWS = 256  # rows of a program from which on the DMA engines turn chunks
WORK_BYTES = 56 << 10  # of chunks on their way, in one partition
ROW_COPIES = 36  # bytes of a partition that a column of the result takes on its way: bias, fp32 steps, result


@dataclass
class Plan(nl.NKIObject):
    """Sizes and choices of a call.

    Attributes:
        first: first row of this program.
        rows: how many.
        hidden: H.
        columns: I.
        dtype: of what is multiplied; fp32 is computed as bf16.
        tile: values of H that meet in one step of the tensor engine's rows: 128, or 512 with MX.
        chunk: columns of H in a chunk.
        chunks: number of chunks.
        tiles: number of row tiles.
        width: columns of the result in a pass.
        norm: the normalization.
        early: values are normalized before they are turned.
        by_dma: the DMA engines turn the chunks.
        spread: neighbouring values of H lie in one partition, so that weights arrive in long rows.
        eps: of the norm.
        hidden_actual: values that the mean is over.
        quantization: of the weights.
        swizzled: input lies as MX wants it.
    """

    first: int
    rows: int
    hidden: int
    columns: int
    dtype: object
    tile: int
    chunk: int
    chunks: int
    tiles: int
    width: int
    norm: NormType
    early: bool
    by_dma: bool
    spread: bool
    eps: float
    hidden_actual: int
    quantization: QuantizationType
    swizzled: bool


def qkv_cte(
    input,
    weights,
    layout,
    bias,
    quantization,
    w_scale,
    in_scale,
    residuals,
    norm,
    gamma,
    beta,
    eps,
    hidden_actual,
    cosines,
    sines,
    d_head,
    q_heads,
    kv_heads,
    cache,
    dma_transpose,
    swizzled,
    free_bytes=None,
):
    """QKV projection of many rows; called by :func:`.qkv.qkv`, which has checked the arguments.

    Args:
        input: [B, S, H] in HBM.
        weights: [H, I] in HBM; MX [H / 4, I].
        layout: BSD or NBSd.
        bias: [1, I] in HBM or None.
        quantization: of the weights: NONE, STATIC or MX.
        w_scale: STATIC [128, 3] fp32, MX [H / 32, I] uint8 in HBM.
        in_scale: STATIC [128, 1] fp32 in HBM.
        residuals: two tensors like `input` that are added to it, or none.
        norm: the normalization.
        gamma: [1, H] in HBM or None.
        beta: [1, H] in HBM or None.
        eps: of the norm.
        hidden_actual: values that the mean is over, or None for H.
        cosines: [B, S, d] in HBM or None.
        sines: [B, S, d] in HBM or None.
        d_head: columns of a head, or None.
        q_heads: heads of q, or None.
        kv_heads: heads of k and of v, or None.
        cache: a :class:`.CacheArguments` or None.
        dma_transpose: the DMA engines may turn chunks.
        swizzled: input lies as MX wants it.
        free_bytes: of SBUF in a partition; None for all.

    Returns:
        [B, S, I] or [heads, B, S, d] in HBM; with `cache` the queries [B, S, q columns] and both caches.
    """
    batch, sequence, hidden = input.shape
    columns = weights.shape[1]
    plan = _plan(
        input,
        weights,
        quantization,
        norm,
        eps,
        hidden_actual,
        len(residuals) > 0,
        d_head,
        dma_transpose,
        swizzled,
        free_bytes,
    )
    rows = batch * sequence
    scales = None
    input_factor = None
    if quantization == QuantizationType.STATIC:
        scales, input_factor = load_static_scales(w_scale, in_scale)
    bias_sb = None
    if bias is not None:
        bias_sb = broadcast_line(load_line(bias, 0, columns), P_MAX)

    q_columns = columns if q_heads is None or d_head is None else q_heads * d_head
    kv_columns = 0 if kv_heads is None or d_head is None else kv_heads * d_head
    if layout == QKVOutputLayout.NBSd:
        out = nl.ndarray(
            (columns // d_head, batch, sequence, d_head), dtype=input.dtype, buffer=nl.shared_hbm
        )
        flat = out.reshape((columns // d_head, rows, d_head))
    else:
        kept = columns if cache is None else q_columns
        out = nl.ndarray((batch, sequence, kept), dtype=input.dtype, buffer=nl.shared_hbm)
        flat = out.reshape((rows, kept))
    target = RowTarget(flat, layout, d_head, q_columns, kv_columns, scales, bias_sb, None, None, None)
    if cosines is not None:
        target.cosines = cosines.reshape((rows, d_head))
        target.sines = sines.reshape((rows, d_head))
    if cache is not None:
        target.cache = _cache_of(cache, rows, sequence)

    source = Source(input.reshape((rows, hidden)), [], None, [])
    for residual in residuals:
        source.residuals.append(residual.reshape((rows, hidden)))
    operands = Operands(weights, w_scale, gamma, beta, input_factor)
    for first in range(0, columns, plan.width):
        width = min(plan.width, columns - first)
        if len(source.residuals) > 0 and first + width < columns:
            source.kept = nl.ndarray((rows, hidden), dtype=plan.dtype, buffer=nl.private_hbm)
        _project_columns(plan, source, operands, target, first, width)
        if source.kept is not None:  # later passes read the sums
            source = Source(source.kept, [], None, source.statistics)
    if cache is None:
        return out
    return out, cache.k_cache, cache.v_cache


@dataclass
class CacheArguments(nl.NKIObject):
    """The arguments of FP8 caches.

    Attributes:
        k_cache: [B, max_seq, kv columns], or [blocks, block_size, kv columns] with `slot_mapping`, in HBM.
        v_cache: the same.
        k_scale: [128, 1] fp32 in HBM: keys are divided by it.
        v_scale: [128, 1] fp32 in HBM.
        low: least value that is stored.
        high: greatest value that is stored.
        slot_mapping: [B, S] int32 in HBM or None: the row of the cache, blocks behind each other.
    """

    k_cache: object
    v_cache: object
    k_scale: object
    v_scale: object
    low: float
    high: float
    slot_mapping: object


@dataclass
class Source(nl.NKIObject):
    """Where rows come from.

    Attributes:
        hidden: [rows, H] in HBM.
        residuals: what is added to them, of the same shape.
        kept: receives the sums, or None.
        statistics: of each row tile, when known.
    """

    hidden: object
    residuals: list
    kept: object
    statistics: list


@dataclass
class Operands(nl.NKIObject):
    """What chunks meet: see :func:`.qkv_chunks.load_weights`."""

    weights: object
    scales: object
    gamma: object
    beta: object
    input_factor: object


def _plan(
    input, weights, quantization, norm, eps, hidden_actual, adds, d_head, dma_transpose, swizzled, free_bytes
):
    """Choose how chunks are turned, and how many columns fit in a pass."""
    batch, sequence, hidden = input.shape
    columns = weights.shape[1]
    _, programs, program = get_verified_program_sharding_info("qkv", (0, 1), 2)
    share = div_ceil(batch * sequence, programs)
    rows = min(share, batch * sequence - program * share)
    kernel_assert(columns <= MAX_I, f"for S over 96 or with RoPE I is at most {MAX_I}, got {columns}")
    mx = quantization == QuantizationType.MX
    if mx:
        kernel_assert(hidden % 512 == 0, f"with MX quantization H is a multiple of 512, got {hidden}")
        kernel_assert(
            rows % 2 == 0, f"with MX quantization each program has an even number of rows, got {rows}"
        )
    dtype = nl.bfloat16 if input.dtype == nl.float32 else input.dtype
    normed = norm != NormType.NO_NORM
    early = normed and (quantization != QuantizationType.NONE or norm == NormType.LAYER_NORM)
    by_dma = dma_transpose and rows >= MANY_ROWS and nisa.get_nc_version() >= nisa.nc_version.gen3
    by_dma = by_dma and dtype == input.dtype and not adds and not early and (swizzled or not mx)
    chunk = min(hidden, CHUNK)
    tile = 512 if mx else P_MAX

    free = nl.tile_size.total_available_sbuf_size if free_bytes is None else free_bytes
    free -= WORK_BYTES
    if early:
        free -= hidden * 3  # one row tile waits for its statistics
    per_column = (
        hidden // P_MAX * sizeinbytes(dtype if quantization == QuantizationType.NONE else nl.float8_e4m3)
    )
    if mx:
        per_column = hidden // 512 * 5  # four values and a scale
    banks = PSUM_BANKS // 2 if by_dma else PSUM_BANKS // 2 - 1  # two sets of sums, two banks to turn in
    unit = P_MAX if d_head is None else d_head
    limit = max(1, min(banks * BANK, free // (per_column + ROW_COPIES)) // unit) * unit
    passes = div_ceil(columns, limit)
    width = div_ceil(div_ceil(columns, passes), unit) * unit
    return Plan(
        program * share,
        rows,
        hidden,
        columns,
        dtype,
        tile,
        chunk,
        div_ceil(hidden, chunk),
        div_ceil(rows, P_MAX),
        width,
        norm,
        early,
        by_dma,
        not by_dma and not mx,
        eps,
        hidden if hidden_actual is None else hidden_actual,
        quantization,
        swizzled,
    )


def _cache_of(cache, rows, sequence):
    """The caches as rows below each other, and the reciprocals of their scales."""
    factors = []
    for scale in (cache.k_scale, cache.v_scale):
        tile = nl.ndarray((P_MAX, 1), dtype=nl.float32, buffer=nl.sbuf)
        factor = nl.ndarray((P_MAX, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=scale)
        nisa.reciprocal(dst=factor, data=tile)
        factors.append(factor)
    outer, inner, width = cache.k_cache.shape
    slots = None if cache.slot_mapping is None else cache.slot_mapping.reshape((rows, 1))
    return KVCache(
        cache.k_cache.reshape((outer * inner, width)),
        cache.v_cache.reshape((outer * inner, width)),
        factors[0],
        factors[1],
        cache.low,
        cache.high,
        slots,
        sequence,
        inner,
    )


def _project_columns(plan, source, operands, target, first, width):
    """One pass: `width` columns of all rows, the stages of different chunks side by side."""
    normed = plan.norm != NormType.NO_NORM
    known = len(source.statistics) > 0
    steps = _steps(plan, width)
    lags = _lags(plan, source, known)
    weights = []
    chunks = []
    sums = {}
    summed = None  # the step that completed sums
    for now in range(len(steps) + lags.multiply):
        if now < len(steps):
            step = steps[now]
            if step.tile == 0:
                weights.append(_load_weights(plan, operands, step, first, width))
            chunks.append(
                load_chunk(plan, source.hidden, source.residuals, step.row, step.count, step.start, step.size)
            )
        if 0 <= now - lags.add < len(steps):
            step = steps[now - lags.add]
            chunk = chunks[now - lags.add]
            add_residuals(chunk, source.kept, step.row, step.start)
            if normed and not known:
                _measure(plan, source, step, chunk)
        if plan.early and 0 <= now - lags.normalize < len(steps):
            step = steps[now - lags.normalize]
            normalize_chunk(chunks[now - lags.normalize], source.statistics[step.tile])
        if 0 <= now - lags.turn < len(steps):
            chunk, step = chunks[now - lags.turn], steps[now - lags.turn]
            turn_chunk(plan, chunk, weights[step.index], operands.input_factor, now)
        if 0 <= now - lags.settle < len(steps):
            chunk, step = chunks[now - lags.settle], steps[now - lags.settle]
            settle_chunk(plan, chunk, weights[step.index])
        if now >= lags.multiply:
            step = steps[now - lags.multiply]
            key = str(step.tile)
            if step.index == 0:
                sums[key] = nl.ndarray((step.count, width), dtype=nl.float32, buffer=nl.psum)
            multiply_chunk(plan, sums[key], chunks[now - lags.multiply], weights[step.index])
            chunks[now - lags.multiply] = None
            if summed is not None:
                _finish(plan, source, target, sums, summed, first)
            summed = step if step.index == plan.chunks - 1 else None
    _finish(plan, source, target, sums, summed, first)


def _finish(plan, source, target, sums, step, first):
    """Make rows of the result of the sums of a row tile; a step later, for the tensor engine's statistics."""
    factor = None
    if plan.norm != NormType.NO_NORM and not plan.early:
        statistics = source.statistics[step.tile]
        if statistics.factor is None:
            close_statistics(plan, statistics)
        factor = statistics.factor
    finish_rows(target, sums.pop(str(step.tile)), step.row, first, factor)


@dataclass
class Lags(nl.NKIObject):
    """How many steps after its load a chunk passes each stage: one more where the stage before has work.

    Engines keep the order of the text. With a step between, none waits for what another one does in the
    same step.
    """

    add: int
    normalize: int
    turn: int
    settle: int
    multiply: int


def _lags(plan, source, known):
    """The lags of a pass; `known` if the statistics are those of an earlier one."""
    add = 1 if len(source.residuals) > 0 else 0
    normalize = add
    if plan.early:  # all chunks of the row tile have been measured before its first is normalized
        normalize = add + (1 if known else plan.chunks)
    turn = normalize + 1
    quantized = plan.quantization != QuantizationType.NONE
    settle = turn + 1 if quantized or plan.early else turn
    return Lags(add, normalize, turn, settle, settle + 1)


@dataclass
class Step(nl.NKIObject):
    """One chunk of one row tile.

    Attributes:
        tile: number of the row tile.
        row: its first row.
        count: its rows.
        index: number of the chunk.
        start: its first column of H.
        size: its columns.
    """

    tile: int
    row: int
    count: int
    index: int
    start: int
    size: int


def _steps(plan, width):
    """The stream of chunks: row tiles whose sums fit in half of PSUM meet a chunk one after the other.

    So the first weights that arrive are work for several row tiles. Chunks that wait for statistics are too
    many for that.
    """
    free = plan.by_dma and plan.norm == NormType.NO_NORM  # no bank to turn in, and none for statistics
    banks = PSUM_BANKS // 2 if free else PSUM_BANKS // 2 - 1
    together = 1 if plan.early else max(1, banks // div_ceil(width, BANK))
    steps = []
    for group in range(0, plan.tiles, together):
        for index in range(plan.chunks):
            start = index * plan.chunk
            for tile in range(group, min(group + together, plan.tiles)):
                row = plan.first + tile * P_MAX
                count = min(P_MAX, plan.first + plan.rows - row)
                steps.append(Step(tile, row, count, index, start, min(plan.chunk, plan.hidden - start)))
    return steps


def _load_weights(plan, operands, step, first, width):
    """The chunk of the weights that a step meets."""
    return load_weights(
        plan,
        operands.weights,
        operands.scales,
        operands.gamma,
        operands.beta,
        operands.input_factor,
        step.start,
        step.size // plan.tile,
        first,
        width,
    )


def _measure(plan, source, step, chunk):
    """Measure a chunk for the norm, and close the statistics of its rows after the last one."""
    if step.index == 0:
        source.statistics.append(new_statistics(plan, step.count))
    statistics = source.statistics[step.tile]
    if plan.by_dma:
        measure_turned(statistics, chunk.turned, step.index)
    else:
        measure(statistics, chunk.natural, step.index)
    if step.index == plan.chunks - 1 and not plan.by_dma:
        close_statistics(plan, statistics)
