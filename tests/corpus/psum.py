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
    return result


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
    return result


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
        nisa.nc_matmul(dst=product, stationary=stationary, moving=moving)  # finds NKI-H007
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
def defect_read_before_the_last_product(x, w):
    """The sum is read after two of its three products."""
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)  # with
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.nc_matmul(dst=total, stationary=stationary, moving=moving, accumulate=False)  # with
    nisa.nc_matmul(dst=total, stationary=stationary, moving=moving, accumulate=True)
    nisa.activation(dst=out, op=nl.exp, data=total[:, 0:512])  # with
    nisa.nc_matmul(dst=total, stationary=stationary, moving=moving, accumulate=True)  # finds NKI-H007
    nisa.tensor_tensor(dst=out, data1=out, data2=total, op=nl.add)  # also NKI-N002
    nisa.dma_copy(dst=result, src=out)
    return result


@nki.jit
def good_other_columns_read_between(x, w):
    """What is read between two products of a sum are the columns of another, which is complete."""
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    total = nl.ndarray((128, 256, 2), dtype=nl.float32, buffer=nl.psum)
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.nc_matmul(dst=total[:, :, 0], stationary=stationary, moving=moving[:, 0:256], accumulate=False)
    nisa.nc_matmul(dst=total[:, :, 0], stationary=stationary, moving=moving[:, 256:512], accumulate=True)
    nisa.nc_matmul(dst=total[:, :, 1], stationary=stationary, moving=moving[:, 0:256], accumulate=False)
    nisa.tensor_copy(dst=out[:, 0:256], src=total[:, :, 0])
    nisa.nc_matmul(dst=total[:, :, 1], stationary=stationary, moving=moving[:, 256:512], accumulate=True)
    nisa.tensor_copy(dst=out[:, 256:512], src=total[:, :, 1])
    nisa.dma_copy(dst=result, src=out)
    return result


@nki.jit
def good_part_added_to_a_new_sum(x, w):
    """The second sum overwrites the whole tensor, then a part is added to it: the first was read in time."""
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
    first = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.sbuf)
    nisa.nc_matmul(dst=total[:, 0:256], stationary=stationary, moving=moving[:, 0:256], accumulate=False)
    nisa.tensor_copy(dst=first, src=total[:, 0:256])
    nisa.nc_matmul(dst=total, stationary=stationary, moving=moving, accumulate=False)
    nisa.nc_matmul(dst=total[:, 0:256], stationary=stationary, moving=first, accumulate=True)
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=total)
    nisa.dma_copy(dst=result, src=out)
    return result


@nki.jit
def defect_sum_begun_on_half_of_another(x, w):
    """A second sum begins on columns of the first, which then goes on."""
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)  # with
    left, right = total[:, 0:320], total[:, 192:512]
    nisa.nc_matmul(dst=left, stationary=stationary, moving=moving[:, 0:320], accumulate=False)  # with
    nisa.nc_matmul(dst=right, stationary=stationary, moving=moving[:, 192:512], accumulate=False)  # with
    nisa.nc_matmul(  # finds NKI-H008
        dst=left, stationary=stationary, moving=moving[:, 0:320], accumulate=True
    )
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=total)
    nisa.dma_copy(dst=result, src=out)
    return result


@nki.jit
def defect_two_tensors_in_one_bank(x, w):
    """Two tensors are given the same bank, and their sums take turns there."""
    result = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    first = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.psum, address=(0, 0))  # with
    second = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.psum, address=(0, 0))
    left, right = moving[:, 0:256], moving[:, 256:512]
    nisa.nc_matmul(dst=first, stationary=stationary, moving=left, accumulate=False)  # with
    nisa.nc_matmul(dst=second, stationary=stationary, moving=right, accumulate=False)  # with
    nisa.nc_matmul(dst=first, stationary=stationary, moving=right, accumulate=True)  # finds NKI-H008
    out = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.sbuf)
    other = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=first)
    nisa.tensor_copy(dst=other, src=second)
    nisa.tensor_tensor(dst=out, data1=out, data2=other, op=nl.add)
    nisa.dma_copy(dst=result, src=out)
    return result  # also NKI-H003


@nki.jit
def defect_halves_in_turns(x, w):
    """Two accumulations share a bank, not its bytes, and take turns."""
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
