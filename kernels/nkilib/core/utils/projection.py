"""What projections share: descriptors at once, rows in all partitions, sums out of PSUM, FP8."""

import nki.isa as nisa
import nki.language as nl

from .kernel_helpers import div_ceil, get_max_positive_value_for_dtype

BANK = nl.tile_size.gemm_moving_fmax  # columns of fp32 in a bank of PSUM

# Descriptors that are ready when the kernel starts: the first byte moves 0.75 us after the trigger, not 2 us
# as with software DGE; and scales and biases, which have those, do not wait in the same queue.
AT_ONCE = nisa.dge_mode.none


def copy_in(dst, src):
    """Load from HBM at once; a DMA that converts makes its descriptors otherwise."""
    if dst.dtype == src.dtype:
        nisa.dma_copy(dst=dst, src=src, dge_mode=AT_ONCE)
    else:
        nisa.dma_copy(dst=dst, src=src)


def identity(size, dtype):
    """The identity [size, size] in SBUF, made there: that of :mod:`nki.language` is read from HBM."""
    ones = nl.ndarray((size, size), dtype=dtype, buffer=nl.sbuf)
    result = nl.ndarray((size, size), dtype=dtype, buffer=nl.sbuf)
    nisa.memset(dst=ones, value=1.0)
    nisa.affine_select(
        dst=result,
        pattern=[[-1, size]],
        offset=0,
        channel_multiplier=1,
        on_true_tile=ones,
        on_false_value=0.0,
        cmp_op=nl.equal,
    )
    return result


def load_aside(dst, src):
    """A small load in a queue of its own: large loads wait neither for it nor for its cause.

    Hardware makes its descriptors, where there is any for that; software would have a launch on two cores
    start later.
    """
    if dst.dtype == src.dtype and nisa.get_nc_version() >= nisa.nc_version.gen3:
        nisa.dma_copy(dst=dst, src=src, dge_mode=nisa.dge_mode.hwdge)
    else:
        nisa.dma_copy(dst=dst, src=src)


def arrivals(steps, columns, is_last):
    """How the weights of some columns arrive: (step, first column, columns, if it is their last step).

    Where nothing follows, half of the columns are complete before the last two steps of the others, and these
    come in pieces that shrink to a bank: little is left to do when the last byte is there.

    Args:
        steps: how many tiles of the contraction there are.
        columns: how many columns.
        is_last: True if nothing follows.
    """
    if not is_last or columns <= BANK:
        parts = []
        for step in range(steps):
            parts.append((step, 0, columns, step + 1 == steps))
        return parts
    half = max(BANK, columns // (2 * BANK) * BANK)
    late = max(0, steps - 2)
    parts = []
    for step in range(late):
        parts.append((step, 0, columns, False))
    for step in range(late, steps):
        parts.append((step, 0, half, step + 1 == steps))
    for step in range(late, steps - 1):
        parts.append((step, half, columns - half, False))
    first = half
    while columns > first:
        size = columns - first
        if size > BANK:
            size = max(BANK, size // (2 * BANK) * BANK)
        parts.append((steps - 1, first, size, True))
        first += size
    return parts


def load_line(row, first, columns):
    """Columns of a row [1, H] in HBM, in one partition of SBUF."""
    line = nl.ndarray((1, columns), dtype=row.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=line, src=row[0:1, nl.ds(first, columns)])
    return line


def broadcast_line(line, partitions):
    """A line [1, columns] of SBUF in all of `partitions` partitions.

    A DMA to all partitions would write the line as often; here the tensor engine multiplies a column of
    ones with it.
    """
    columns = line.shape[1]
    ones = nl.ndarray((1, partitions), dtype=line.dtype, buffer=nl.sbuf)
    result = nl.ndarray((partitions, columns), dtype=line.dtype, buffer=nl.sbuf)
    nisa.memset(dst=ones, value=1.0)
    for turn in range(div_ceil(columns, BANK)):
        part = nl.ds(turn * BANK, min(BANK, columns - turn * BANK))
        copies = nl.ndarray((partitions, part.size), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=copies, stationary=ones, moving=line[:, part])
        evacuate(result[:, part], copies, None, None, turn)
    return result


def evacuate(dst, sums, scale, bias, turn):
    """dst = sums * scale + bias: the scalar engine at even turns, the vector engine at odd ones.

    Args:
        dst: in SBUF, written.
        sums: in PSUM, of the same shape.
        scale: [P, 1] fp32, or None.
        bias: of the shape of `sums`, or None. The scalar engine adds only what is one value in a
            partition: what it has scaled goes to the gpsimd engine.
        turn: counts the calls.
    """
    factor = 1.0 if scale is None else scale[0 : sums.shape[0], :]
    if turn % 2 == 0:
        scaled = dst
        if bias is not None:
            scaled = nl.ndarray(sums.shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=scaled, op=nl.copy, data=sums, scale=factor)
        if bias is not None:
            nisa.tensor_tensor(dst=dst, data1=scaled, data2=bias, op=nl.add, engine=nisa.gpsimd_engine)
    elif bias is not None:
        nisa.scalar_tensor_tensor(
            dst=dst, data=sums, op0=nl.multiply, operand0=factor, op1=nl.add, operand1=bias
        )
    elif scale is None:
        nisa.tensor_copy(dst=dst, src=sums, engine=nisa.vector_engine)
    else:
        nisa.tensor_scalar(dst=dst, data=sums, op0=nl.multiply, operand0=factor, engine=nisa.vector_engine)


def quantize(dst, src, reciprocal):
    """dst = src / input scale as FP8, clipped to its range.

    The scalar engine divides, the vector engine clips.

    Args:
        dst: float8_e4m3, written.
        src: of the same shape.
        reciprocal: [128, 1] fp32.
    """
    limit = get_max_positive_value_for_dtype(dst.dtype)
    scratch = nl.ndarray(src.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=scratch, op=nl.copy, data=src, scale=reciprocal[0 : src.shape[0], :])
    nisa.tensor_scalar(dst=dst, data=scratch, op0=nl.maximum, operand0=-limit, op1=nl.minimum, operand1=limit)
