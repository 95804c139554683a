"""RMSNorm and quantization of rows to fp8.

Each row x of H values becomes fp8 values q and, with row quantization, one fp32 scale:

    n = x / sqrt(mean(x^2) + eps) * gamma        (n = x without a norm)
    n = clip(n, -lower_bound, lower_bound)       (row quantization with a lower bound)
    scale = max(max|n| / 240, 1e-6)              (given for static quantization)
    q = clip(n / scale, -240, 240)

Since 1/rms is one positive number per row, it is applied to the largest magnitude and to the factor of
the quantization instead of to the H values: the values are multiplied by gamma alone.

Rows lie on the partitions, several in one partition where they are short, so that a step handles about
CHUNK values per partition; long rows are cut into chunks, for which every phase runs as soon as the load
of the chunk is through:

    DMA      the rows in, gamma once to all partitions, fp8 and scales out as one row
    scalar   squares, summed on the way; without a norm half of the quantization (a copy with a scale)
    gpsimd   gamma, in place; rsqrt of one value per row
    vector   largest magnitudes, four values a cycle in 16 bits; clipping; quantization

SBUF per partition at H = 16384 in bf16: rows 32 KiB and fp8 rows 16 KiB, both twice, gamma 32 KiB, chunks of
squares and magnitudes 4 KiB each.
"""

from dataclasses import dataclass

import nki
import nki.isa as nisa
import nki.language as nl

from ..utils.common_types import NormType, QuantizationType
from ..utils.kernel_assert import kernel_assert
from ..utils.kernel_helpers import (
    get_max_positive_value_for_dtype,
    get_verified_program_sharding_info,
)
from ..utils.tiled_range import TiledRange

MAX_B = 2
MAX_S = 32768
MAX_H = 16384
MIN_DEQUANT_SCALE = 1e-6
SCALE_BYTES = 4
CHUNK = 2048


@dataclass
class RmsNormQuantKernelArgs(nl.NKIObject):
    """How :func:`rmsnorm_quant_kernel` normalizes and quantizes.

    Attributes:
        lower_bound: normalized values are clipped to ±lower_bound before row quantization; 0 clips nothing.
        norm_type: `NormType.RMS_NORM` or `NormType.NO_NORM`.
        quantization_type: `QuantizationType.ROW`, one scale per row, or `QuantizationType.STATIC`, one given.
        eps: added to the mean square of a row.

    Raises:
        AssertionError: another norm or quantization, or a negative number.
    """

    lower_bound: float
    norm_type: NormType = NormType.RMS_NORM
    quantization_type: QuantizationType = QuantizationType.ROW
    eps: float = 1e-6

    def __post_init__(self):
        kernel_assert(
            self.norm_type in (NormType.RMS_NORM, NormType.NO_NORM),
            f"norm_type is RMS_NORM or NO_NORM, got {self.norm_type}",
        )
        kernel_assert(
            self.quantization_type in (QuantizationType.ROW, QuantizationType.STATIC),
            f"quantization_type is ROW or STATIC, got {self.quantization_type}",
        )
        kernel_assert(self.lower_bound >= 0, f"lower_bound is not negative, got {self.lower_bound}")
        kernel_assert(self.eps >= 0, f"eps is not negative, got {self.eps}")

    def needs_rms_normalization(self) -> bool:
        """True if rows are normalized before they are quantized."""
        return self.norm_type == NormType.RMS_NORM

    def has_lower_bound(self) -> bool:
        """True if values are clipped before row quantization."""
        return self.lower_bound > 0

    def is_row_quant(self) -> bool:
        """True if every row has its own scale."""
        return self.quantization_type == QuantizationType.ROW

    def is_static_quant(self) -> bool:
        """True if the scale is given."""
        return self.quantization_type == QuantizationType.STATIC


@nki.jit
def rmsnorm_quant_kernel(hidden, ln_w, kargs: RmsNormQuantKernelArgs, input_dequant_scale=None):
    """Normalize rows, if asked for, and quantize them to float8_e4m3.

    Args:
        hidden: [B, S, H], or [..., H] of two dimensions or more, in HBM; bf16, fp16 or fp32. Three
            dimensions: B at most 2, S at most 32768; else at most 65536 rows. H at most 16384.
        ln_w: [H] or [1, H], the weights gamma; not read without a norm.
        kargs: the norm, the quantization and their constants.
        input_dequant_scale: [128, 1] fp32, the scale in every partition; static quantization needs it.

    Returns:
        [..., H + 4] float8_e4m3 with row quantization: the last four bytes of a row are its scale in fp32, by
        which the fp8 values are multiplied to have the row back. [..., H] with static quantization.
    """
    rows, width = _check(hidden, ln_w, kargs, input_dequant_scale)
    _, count, program = get_verified_program_sharding_info("rmsnorm_quant_kernel", (0, 1))
    kernel_assert(rows >= count, f"hidden has {rows} rows, fewer than the {count} programs of the launch")

    tail = SCALE_BYTES if kargs.is_row_quant() else 0
    out = nl.ndarray(list(hidden.shape[:-1]) + [width + tail], dtype=nl.float8_e4m3, buffer=nl.shared_hbm)
    source = hidden.reshape((rows, width))
    target = out.reshape((rows, width + tail))

    first = program * rows // count
    done = first
    end = (program + 1) * rows // count
    partitions = min(end - first, nl.tile_size.pmax)
    constants = _constants(ln_w, kargs, input_dequant_scale, partitions, width)
    while done < end:
        groups = min(max(CHUNK // width, 1), max((end - done) // partitions, 1))
        lanes = min(partitions, end - done)
        size = lanes * groups
        _quantize_block(
            source[done : done + size].reshape((lanes, groups, width)),
            target[done : done + size].reshape((lanes, groups, width + tail)),
            constants,
            kargs,
            ln_w if done == first else None,
        )
        done += size
    return out


def _check(hidden, ln_w, kargs, input_dequant_scale):
    """Refuse what is not documented; return the number of rows and their length."""
    rank = len(hidden.shape)
    kernel_assert(rank >= 2, f"hidden has at least 2 dimensions, got shape {hidden.shape}")
    kernel_assert(
        hidden.dtype in (nl.bfloat16, nl.float16, nl.float32),
        f"hidden is bfloat16, float16 or float32, got {hidden.dtype}",
    )
    rows = 1
    for size in hidden.shape[:-1]:
        rows *= size
    width = hidden.shape[rank - 1]
    kernel_assert(rows > 0 and width > 0, f"hidden has elements, got shape {hidden.shape}")
    kernel_assert(width <= MAX_H, f"H, the last dimension of hidden, is at most {MAX_H}, got {width}")
    if rank == 3:
        kernel_assert(hidden.shape[0] <= MAX_B, f"B of hidden is at most {MAX_B}, got {hidden.shape[0]}")
        kernel_assert(hidden.shape[1] <= MAX_S, f"S of hidden is at most {MAX_S}, got {hidden.shape[1]}")
    kernel_assert(rows <= MAX_B * MAX_S, f"hidden has at most {MAX_B * MAX_S} rows, got {rows}")
    if kargs.needs_rms_normalization():
        kernel_assert(ln_w is not None, "RMS_NORM needs ln_w")
        kernel_assert(
            tuple(ln_w.shape) in ((width,), (1, width)),
            f"ln_w is [H] or [1, H] with H = {width}, got {ln_w.shape}",
        )
    if kargs.is_static_quant():
        kernel_assert(input_dequant_scale is not None, "STATIC quantization needs input_dequant_scale")
        kernel_assert(
            tuple(input_dequant_scale.shape) == (nl.tile_size.pmax, 1),
            f"input_dequant_scale is [{nl.tile_size.pmax}, 1], got {input_dequant_scale.shape}",
        )
    return rows, width


@dataclass
class _Constants(nl.NKIObject):
    """What all rows share: gamma in every partition, 1 / the given scale, 1 as the rms of no norm."""

    gamma: object
    quant_scale: object
    ones: object


def _constants(ln_w, kargs, input_dequant_scale, partitions, width):
    gamma = None
    quant_scale = None
    ones = None
    if kargs.needs_rms_normalization():
        gamma = nl.ndarray((partitions, width), dtype=ln_w.dtype, buffer=nl.sbuf)
    else:
        ones = nl.ndarray((partitions, max(CHUNK // width, 1)), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=ones, value=1.0)
    if kargs.is_static_quant():
        quant_scale = nl.ndarray((partitions, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=quant_scale, src=input_dequant_scale[0:partitions])
        nisa.reciprocal(dst=quant_scale, data=quant_scale)
    return _Constants(gamma, quant_scale, ones)


def _quantize_block(source, target, constants, kargs, gamma_source):
    """Quantize [partitions, groups, H] rows of `source` into `target`; load gamma if a source is given."""
    lanes, groups, width = source.shape
    chunks = TiledRange(width, CHUNK)
    x = nl.ndarray((lanes, groups, width), dtype=source.dtype, buffer=nl.sbuf)
    # Products with gamma need the range of fp32 but, on the way to fp8, not more than the bits of bf16.
    y = x.view(nl.bfloat16) if source.dtype == nl.float16 and constants.gamma is not None else x
    means = nl.ndarray((lanes, groups, len(chunks)), dtype=nl.float32, buffer=nl.sbuf)
    largest = nl.ndarray((lanes, groups, len(chunks)), dtype=y.dtype, buffer=nl.sbuf)
    for chunk in chunks:
        columns = nl.ds(chunk.start_offset, chunk.size)
        nisa.dma_copy(dst=x[:, :, columns], src=source[:, :, columns])
        if kargs.needs_rms_normalization():
            _mean_squares(x, means, chunk)
            if gamma_source is not None:
                nisa.dma_copy(
                    dst=constants.gamma[:, columns],
                    src=gamma_source.ap(
                        [[0, constants.gamma.shape[0]], [1, chunk.size]], offset=chunk.start_offset
                    ),
                )
            if groups == 1:  # compilers refuse the other view of a tile of one partition
                weighted, given = y[:, 0, columns], x[:, 0, columns]
                weights = constants.gamma[0:lanes, columns]
            else:
                weighted, given = y[:, :, columns], x[:, :, columns]
                weights = constants.gamma.ap(
                    [[width, lanes], [0, groups], [1, chunk.size]], offset=chunk.start_offset
                )
            nisa.tensor_tensor(
                dst=weighted, data1=given, data2=weights, op=nl.multiply, engine=nisa.engine.gpsimd
            )
        if kargs.is_row_quant():
            _largest_magnitudes(y, largest, chunk)

    inverse_rms = constants.ones
    if kargs.needs_rms_normalization():
        inverse_rms = nl.ndarray((lanes, groups), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(
            dst=inverse_rms,
            data=_over_chunks(means, nl.add),
            op0=nl.add,
            operand0=kargs.eps,
            op1=nl.rsqrt,
            operand1=0.0,
            engine=nisa.engine.gpsimd,
        )
    inverse_rms = inverse_rms[0:lanes, 0:groups]

    out = nl.ndarray((lanes, groups, target.shape[2]), dtype=nl.float8_e4m3, buffer=nl.sbuf)
    factor = nl.ndarray((lanes, groups), dtype=nl.float32, buffer=nl.sbuf)
    bounds = None
    if kargs.is_row_quant():
        scale = _row_scale(_over_chunks(largest, nl.maximum), inverse_rms, kargs)
        nisa.reciprocal(dst=factor, data=scale)
        nisa.tensor_tensor(dst=factor, data1=factor, data2=inverse_rms, op=nl.multiply)
        tail = scale.view(nl.float8_e4m3).reshape((lanes, groups, SCALE_BYTES))
        nisa.tensor_copy(dst=out[:, :, width : width + SCALE_BYTES], src=tail, engine=nisa.engine.vector)
        if kargs.has_lower_bound():
            bounds = _bounds(kargs.lower_bound, inverse_rms)
    else:
        nisa.tensor_scalar(
            dst=factor, data=inverse_rms, op0=nl.multiply, operand0=constants.quant_scale[0:lanes]
        )
        bounds = _bounds(get_max_positive_value_for_dtype(nl.float8_e4m3), factor)
    _apply(out, y, factor, bounds, chunks, kargs)
    nisa.dma_copy(dst=target, src=out)


def _mean_squares(x, means, chunk):
    """The share of `chunk` in the mean square of each row."""
    lanes, groups, width = x.shape
    squares = nl.ndarray((lanes, chunk.size), dtype=nl.bfloat16, buffer=nl.sbuf)
    for group in range(groups):
        nisa.activation(
            dst=squares,
            op=nl.square,
            data=x[:, group, nl.ds(chunk.start_offset, chunk.size)],
            scale=width**-0.5,
            reduce_op=nl.add,
            reduce_res=means[:, group, chunk.index : chunk.index + 1],
            reduce_cmd=nisa.reduce_cmd.reset_reduce,
        )


def _largest_magnitudes(y, largest, chunk):
    """The largest magnitude of `chunk` in each row: exact in the dtype of `y`, which is fast in 16 bits."""
    lanes, groups, _ = y.shape
    magnitudes = nl.ndarray((lanes, groups, chunk.size), dtype=y.dtype, buffer=nl.sbuf)
    values = y[:, :, nl.ds(chunk.start_offset, chunk.size)]
    nisa.tensor_scalar(dst=magnitudes, data=values, op0=nl.abs, operand0=0.0)
    nisa.tensor_reduce(dst=largest[:, :, chunk.index], op=nl.maximum, data=magnitudes, axis=2)


def _over_chunks(parts, op):
    """[partitions, groups, chunks] reduced over the chunks."""
    lanes, groups, chunks = parts.shape
    if chunks == 1:
        return parts.reshape((lanes, groups))
    result = nl.ndarray((lanes, groups), dtype=parts.dtype, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=result, op=op, data=parts, axis=2)
    return result


def _row_scale(largest, inverse_rms, kargs):
    """max(min(largest * inverse_rms, lower bound) / 240, 1e-6)."""
    limit = get_max_positive_value_for_dtype(nl.float8_e4m3)
    scale = nl.ndarray(largest.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=scale, data1=largest, data2=inverse_rms, op=nl.multiply)
    if kargs.has_lower_bound():
        nisa.tensor_scalar(dst=scale, data=scale, op0=nl.minimum, operand0=kargs.lower_bound)
    nisa.tensor_scalar(
        dst=scale,
        data=scale,
        op0=nl.multiply,
        operand0=1 / limit,
        op1=nl.maximum,
        operand1=MIN_DEQUANT_SCALE,
    )
    return scale


def _bounds(limit, factor):
    """±limit / factor: where values are clipped that are going to be multiplied by `factor`."""
    upper = nl.ndarray(factor.shape, dtype=nl.float32, buffer=nl.sbuf)
    lower = nl.ndarray(factor.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.reciprocal(dst=upper, data=factor)
    nisa.tensor_scalar(dst=lower, data=upper, op0=nl.multiply, operand0=-limit)
    nisa.tensor_scalar(dst=upper, data=upper, op0=nl.multiply, operand0=limit)
    return upper, lower


def _apply(out, y, factor, bounds, chunks, kargs):
    """out = fp8(clip(y) * factor), chunk by chunk on the engines that have time left for it."""
    # With a norm the scalar engine is busy with squares.
    engines = ("vector",) if kargs.needs_rms_normalization() else ("scalar", "vector")
    groups = y.shape[1]
    step = 0
    for group in range(groups):
        column = slice(group, group + 1)
        for chunk in chunks:
            columns = nl.ds(chunk.start_offset, chunk.size)
            values = y[:, group, columns]
            if bounds is not None:
                upper, lower = bounds
                nisa.tensor_scalar(
                    dst=values,
                    data=values,
                    op0=nl.minimum,
                    operand0=upper[:, column],
                    op1=nl.maximum,
                    operand1=lower[:, column],
                )
            if engines[step % len(engines)] == "scalar":
                nisa.activation(dst=out[:, group, columns], op=nl.copy, data=values, scale=factor[:, column])
            else:
                nisa.tensor_scalar(
                    dst=out[:, group, columns], data=values, op0=nl.multiply, operand0=factor[:, column]
                )
            step += 1
