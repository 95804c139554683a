"""Where the first NaN or infinity in a result comes from that no argument held."""

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def defect_log_of_negative(x):
    """The logarithm of a negative number is NaN."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    logs = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)  # with
    nisa.activation(dst=logs, op=nl.log, data=tile)  # finds NKI-N002 note
    nisa.tensor_scalar(dst=logs, data=logs, op0=nl.add, operand0=1.0)  # also NKI-N003
    nisa.dma_copy(dst=result, src=logs)
    return result


@nki.jit
def good_log_of_square(x):
    """Squares plus one have a logarithm."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.activation(dst=tile, op=nl.square, data=tile)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
    logs = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.activation(dst=logs, op=nl.log, data=tile)
    nisa.dma_copy(dst=result, src=logs)
    return result


@nki.jit
def defect_exp_overflows(x):
    """exp of a hundred times a value is infinite in float32."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    large = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)  # with
    nisa.activation(dst=large, op=nl.exp, data=tile, scale=100.0)  # finds NKI-N002 note
    nisa.dma_copy(dst=result, src=large)
    return result


@nki.jit
def good_minus_infinity_is_meant(x):
    """A maximum starts from minus infinity, put there on purpose."""
    result = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    largest = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=largest, value=float("-inf"))
    part = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=part, op=nl.maximum, data=tile, axis=1)
    nisa.tensor_tensor(dst=largest, data1=largest, data2=part, op=nl.maximum)
    nisa.dma_copy(dst=result, src=largest)
    return result


@nki.jit
def defect_float16_overflows(x):
    """A value times 1e5 is too large for float16, and infinity less infinity is NaN."""
    result = nl.ndarray(x.shape, dtype=nl.float16, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    scaled = nl.ndarray((128, 512), dtype=nl.float16, buffer=nl.sbuf)  # with
    nisa.tensor_scalar(dst=scaled, data=tile, op0=nl.multiply, operand0=1e5)  # finds NKI-N002 note
    nothing = nl.ndarray((128, 512), dtype=nl.float16, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=nothing, data1=scaled, data2=scaled, op=nl.subtract)
    nisa.dma_copy(dst=result, src=nothing)  # with
    return result


@nki.jit
def good_masked_lanes_overflow(x):
    """What overflows is left out by a mask, and never reaches the result."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    large = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.activation(dst=large, op=nl.exp, data=tile, scale=100.0)
    positive = nl.ndarray((128, 512), dtype=nl.uint8, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=positive, data=tile, op0=nl.greater, operand0=0.5)
    nisa.tensor_copy_predicated(dst=large, src=tile, predicate=positive)
    nisa.dma_copy(dst=result, src=large)
    return result


@nki.jit
def good_masked_with_infinity(x):
    """Lanes are filled with minus infinity on purpose, and returned."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.memset(dst=tile[:, 256:512], value=float("-inf"))
    scaled = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=scaled, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=result, src=scaled)
    return result
