"""Accumulation in PSUM: onto what, until when, and next to what."""

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def defect_cleared_between(x, w):
    """memset does not begin a new accumulation: the next matmul adds to bytes that no matmul wrote."""
    result = nl.ndarray((2, 128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)  # with
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    for i in range(2):
        nisa.memset(dst=total, value=0.0)  # with
        nisa.nc_matmul(dst=total, stationary=stationary, moving=moving)  # finds NKI-H006
        nisa.tensor_copy(dst=out, src=total)
        nisa.dma_copy(dst=result[i], src=out)
    return result  # also NKI-H007


@nki.jit
def good_overwritten_each_time(x, w):
    """accumulate=False begins a new accumulation."""
    result = nl.ndarray((2, 128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    for i in range(2):
        nisa.nc_matmul(dst=total, stationary=stationary, moving=moving, accumulate=False)
        nisa.tensor_copy(dst=out, src=total)
        nisa.dma_copy(dst=result[i], src=out)
    return result


@nki.jit
def defect_bias_added_in_psum(x, w):
    """The vector engine adds a bias in PSUM between two matmuls of one accumulation."""
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)  # with
    nisa.nc_matmul(dst=total, stationary=stationary, moving=moving)
    nisa.tensor_scalar(dst=total, data=total, op0=nl.add, operand0=1.0)  # with
    nisa.nc_matmul(dst=total, stationary=stationary, moving=moving)  # finds NKI-H006
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=total)
    nisa.dma_copy(dst=result, src=out)
    return result  # also NKI-H007


@nki.jit
def good_bias_added_on_the_way_out(x, w):
    """The bias is added when the sum is copied to SBUF."""
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=stationary, moving=moving)
    nisa.nc_matmul(dst=total, stationary=stationary, moving=moving)
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=out, data=total, op0=nl.add, operand0=1.0)
    nisa.dma_copy(dst=result, src=out)
    return result


@nki.jit
def defect_second_sum_on_top(x, w):
    """The second product is added to the first, which was read as if it were done."""
    result = nl.ndarray((2, 128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)  # with
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    for i in range(2):
        nisa.nc_matmul(dst=product, stationary=stationary, moving=moving)  # finds NKI-H007 warning
        nisa.tensor_copy(dst=out, src=product)  # with
        nisa.dma_copy(dst=result[i], src=out)
    return result


@nki.jit
def good_new_tensor_for_each_sum(x, w):
    """Each product has a PSUM tensor of its own, made in the loop."""
    result = nl.ndarray((2, 128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    for i in range(2):
        product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=product, stationary=stationary, moving=moving)
        nisa.tensor_copy(dst=out, src=product)
        nisa.dma_copy(dst=result[i], src=out)
    return result


@nki.jit
def defect_halves_in_turns(x, w):
    """Two accumulations share a bank and take turns."""
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)  # with
    for k in range(2):
        for half in range(2):
            nisa.nc_matmul(  # finds NKI-H008 warning
                dst=total[:, nl.ds(half * 256, 256)],
                stationary=stationary,
                moving=moving[:, nl.ds(half * 256, 256)],
                accumulate=(k > 0),
            )
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=total)
    nisa.dma_copy(dst=result, src=out)
    return result


@nki.jit
def good_halves_one_after_the_other(x, w):
    """The first accumulation in the bank is finished before the second begins."""
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
    for half in range(2):
        for k in range(2):
            nisa.nc_matmul(
                dst=total[:, nl.ds(half * 256, 256)],
                stationary=stationary,
                moving=moving[:, nl.ds(half * 256, 256)],
                accumulate=(k > 0),
            )
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=total)
    nisa.dma_copy(dst=result, src=out)
    return result


@nki.jit
def good_banks_in_turns(x, w):
    """Two accumulations take turns in two banks."""
    result = nl.ndarray((2, 128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    totals = []
    for _ in range(2):
        totals.append(nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum))
    for k in range(3):
        for n in range(2):
            nisa.nc_matmul(dst=totals[n], stationary=stationary, moving=moving, accumulate=(k > 0))
    for n in range(2):
        out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(dst=out, src=totals[n])
        nisa.dma_copy(dst=result[n], src=out)
    return result
