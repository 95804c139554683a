"""Instructions whose destination lies over a source that is still to be read."""

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def defect_shift_up(x):
    """Each element is written one place further on, over the next one to be read."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)  # with
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_copy(dst=tile[:, 1:512], src=tile[:, 0:511])  # finds NKI-H005
    nisa.dma_copy(dst=result, src=tile)
    return result


@nki.jit
def good_shift_down(x):
    """Each element is written one place back, over one that has been read."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_copy(dst=tile[:, 0:511], src=tile[:, 1:512])
    nisa.dma_copy(dst=result, src=tile)
    return result


@nki.jit
def defect_reversed_sum(x):
    """The second operand runs backwards through the destination."""
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 1024), dtype=x.dtype, buffer=nl.sbuf)  # with
    nisa.dma_copy(dst=tile[:, 0:512], src=x)
    nisa.dma_copy(dst=tile[:, 512:1024], src=x)
    nisa.tensor_tensor(  # finds NKI-H005
        dst=tile[:, 256:768], data1=tile[:, 512:1024], data2=tile[:, 0:512], op=nl.add
    )
    nisa.dma_copy(dst=result, src=tile[:, 256:768])
    return result


@nki.jit
def good_in_place(x):
    """The destination is exactly one of the sources."""
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 1024), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile[:, 0:512], src=x)
    nisa.dma_copy(dst=tile[:, 512:1024], src=x)
    nisa.tensor_tensor(dst=tile[:, 0:512], data1=tile[:, 512:1024], data2=tile[:, 0:512], op=nl.add)
    nisa.dma_copy(dst=result, src=tile[:, 0:512])
    return result


@nki.jit
def defect_widening_cast(x):
    """bfloat16 values grow to float32 over themselves: a result covers values still to be read."""
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    wide = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)  # with
    narrow = wide.view(nl.bfloat16)[:, 0:512]
    nisa.memset(dst=narrow, value=1.0)
    nisa.tensor_copy(dst=wide, src=narrow)  # finds NKI-H005
    nisa.dma_copy(dst=result, src=wide)
    return result


@nki.jit
def good_narrowing_cast(x):
    """float32 values shrink to bfloat16 over themselves."""
    result = nl.ndarray((128, 512), dtype=nl.bfloat16, buffer=nl.shared_hbm)
    wide = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=wide, src=x)
    narrow = wide.view(nl.bfloat16)[:, 0:512]
    nisa.tensor_copy(dst=narrow, src=wide)
    nisa.dma_copy(dst=result, src=narrow)
    return result


@nki.jit
def defect_dma_moves_rows_down(x):
    """A DMA moves rows over each other; its descriptors run in any order."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)  # with
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.dma_copy(dst=result, src=tile)
    nisa.dma_copy(dst=result[0:96, :], src=result[32:128, :])  # finds NKI-H005
    return result


@nki.jit
def good_dma_moves_rows_apart(x):
    """The rows moved and their new place have nothing in common."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.dma_copy(dst=result, src=tile)
    nisa.dma_copy(dst=result[0:64, :], src=result[64:128, :])
    return result


@nki.jit
def defect_two_tensors_one_place(x):
    """Source and destination are two tensors, placed eight elements apart."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))  # with
    b = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 32))  # with
    nisa.dma_copy(dst=a, src=x)
    nisa.tensor_scalar(dst=b, data=a, op0=nl.multiply, operand0=2.0)  # finds NKI-H005
    nisa.dma_copy(dst=result, src=b)
    return result


@nki.jit
def good_partial_sums_at_the_front(x):
    """A reduction leaves its results over elements it has read."""
    result = nl.ndarray((128, 4), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 4, 128), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_reduce(dst=tile[:, 0, 0:4], op=nl.add, data=tile, axis=2)
    nisa.dma_copy(dst=result, src=tile[:, 0, 0:4])
    return result
