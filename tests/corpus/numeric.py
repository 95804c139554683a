"""Arguments of activation functions outside the range that is documented as valid."""

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def defect_sine_of_a_large_angle(x):
    """The engine reduces no angles: beyond pi the sine goes on as a cubic."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.activation(dst=tile, op=nl.sin, data=tile, scale=4.0)  # finds NKI-N003 warning
    nisa.dma_copy(dst=result, src=tile)
    return result


@nki.jit
def good_sine_of_a_small_angle(x):
    """All angles are clipped to [-pi, pi] first."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(
        dst=tile, data=tile, op0=nl.minimum, operand0=3.14159, op1=nl.maximum, operand1=-3.14159
    )
    nisa.activation(dst=tile, op=nl.sin, data=tile)
    nisa.dma_copy(dst=result, src=tile)
    return result


@nki.jit
def defect_root_of_zero(x):
    """The smallest valid argument of a square root is 2**-116."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.memset(dst=tile, value=0.0)
    nisa.activation(dst=tile, op=nl.sqrt, data=tile)  # finds NKI-N003 warning
    nisa.dma_copy(dst=result, src=tile)
    return result


@nki.jit
def good_root_of_a_small_sum(x):
    """A bias keeps the argument inside the range."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.memset(dst=tile, value=0.0)
    nisa.activation(dst=tile, op=nl.sqrt, data=tile, bias=1e-6)
    nisa.dma_copy(dst=result, src=tile)
    return result
