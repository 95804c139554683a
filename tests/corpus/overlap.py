"""Tensors with addresses given by hand that share bytes while both are needed."""

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def defect_same_address(x):
    """Both tiles are loaded to the same bytes before the first is used."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))  # with
    b = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))  # with
    nisa.dma_copy(dst=a, src=x)
    nisa.dma_copy(dst=b, src=x)  # with
    nisa.tensor_tensor(dst=a, data1=a, data2=b, op=nl.add)  # finds NKI-H003
    nisa.dma_copy(dst=result, src=a)
    return result


@nki.jit
def good_neighbours(x):
    """The second tile begins where the first one ends."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
    b = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 2048))
    nisa.dma_copy(dst=a, src=x)
    nisa.dma_copy(dst=b, src=x)
    nisa.tensor_tensor(dst=a, data1=a, data2=b, op=nl.add)
    nisa.dma_copy(dst=result, src=a)
    return result


@nki.jit
def defect_size_counted_in_elements(x):
    """The second address was counted in elements, not bytes: three quarters of the first tile are gone."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))  # with
    b = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 512))  # with
    nisa.dma_copy(dst=a, src=x)
    nisa.memset(dst=b, value=1.0)  # with
    both = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 8192))
    nisa.tensor_tensor(dst=both, data1=b, data2=a, op=nl.add)  # finds NKI-H003
    nisa.dma_copy(dst=result, src=both)
    return result


@nki.jit
def good_one_after_the_other(x):
    """The second tile takes the bytes of the first when nothing needs that any more."""
    result = nl.ndarray((2, 128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
    b = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 512))
    nisa.dma_copy(dst=a, src=x)
    nisa.dma_copy(dst=result[0], src=a)
    nisa.memset(dst=b, value=1.0)
    nisa.dma_copy(dst=result[1], src=b)
    return result


@nki.jit
def defect_partitions_overlap(x):
    """The second tile starts at partition 32, inside the 64 of the first."""
    result = nl.ndarray((64, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    a = nl.ndarray((64, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))  # with
    b = nl.ndarray((32, 512), dtype=x.dtype, buffer=nl.sbuf, address=(32, 0))  # with
    nisa.dma_copy(dst=a, src=x[0:64, :])
    nisa.dma_copy(dst=b, src=x[64:96, :])  # with
    nisa.dma_copy(dst=result, src=a)  # finds NKI-H003
    nisa.dma_copy(dst=result[0:32, :], src=b)
    return result


@nki.jit
def good_partitions_apart(x):
    """The same bytes of other partitions are other bytes: two halves lie side by side."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    a = nl.ndarray((64, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
    b = nl.ndarray((64, 512), dtype=x.dtype, buffer=nl.sbuf, address=(64, 0))
    nisa.dma_copy(dst=a, src=x[0:64, :])
    nisa.dma_copy(dst=b, src=x[64:128, :])
    nisa.tensor_scalar(dst=a, data=a, op0=nl.multiply, operand0=2.0)
    nisa.tensor_scalar(dst=b, data=b, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=result[0:64, :], src=a)
    nisa.dma_copy(dst=result[64:128, :], src=b)
    return result


@nki.jit
def defect_two_buffers_for_three(x):
    """Three tiles rotate through two buffers while all three are needed."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tiles = []
    for i in range(3):
        tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, (i % 2) * 2048))  # with
        nisa.dma_copy(dst=tile, src=x)  # with
        tiles.append(tile)
    total = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 8192))
    nisa.tensor_copy(dst=total, src=tiles[2])
    for tile in tiles[0:2]:
        nisa.tensor_tensor(dst=total, data1=total, data2=tile, op=nl.add)  # finds NKI-H003
    nisa.dma_copy(dst=result, src=total)
    return result


@nki.jit
def good_double_buffer(x):
    """Tiles rotate through two buffers, and each is done with before its buffer comes round again."""
    result = nl.ndarray((6, 128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    for i in range(6):
        tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, (i % 2) * 2048))
        nisa.dma_copy(dst=tile, src=x)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
        nisa.dma_copy(dst=result[i], src=tile)
    return result


@nki.jit
def defect_stack_meets_heap(x):
    """The stack grows into weights kept at the end of the memory used."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    weights = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 4096))  # with
    nisa.dma_copy(dst=weights, src=x)
    top = 0
    for _ in range(3):
        tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, top))  # with
        nisa.memset(dst=tile, value=1.0)  # with
        nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.add)
        nisa.dma_copy(dst=result, src=tile)
        top += 2048
    nisa.dma_copy(dst=result, src=weights)  # finds NKI-H003
    return result


@nki.jit
def good_stack_scopes(x):
    """A stack that is popped: inner tiles reuse the bytes of the inner scope before."""
    result = nl.ndarray((3, 128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    outer = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
    nisa.dma_copy(dst=outer, src=x)
    for i in range(3):
        inner = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 2048))
        nisa.tensor_scalar(dst=inner, data=outer, op0=nl.multiply, operand0=2.0)
        nisa.dma_copy(dst=result[i], src=inner)
    return result


@nki.jit
def defect_psum_bank_taken_twice(x, w):
    """Two products are given the same PSUM bank; the first is read after the second was computed."""
    result = nl.ndarray((2, 128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    a = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum, address=(0, 2048))  # with
    b = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum, address=(0, 2048))  # with
    nisa.nc_matmul(dst=a, stationary=stationary, moving=moving)
    nisa.nc_matmul(dst=b, stationary=stationary, moving=moving)  # with
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=a)  # finds NKI-H003
    nisa.dma_copy(dst=result[0], src=out)
    nisa.tensor_copy(dst=out, src=b)
    nisa.dma_copy(dst=result[1], src=out)
    return result


@nki.jit
def good_psum_banks(x, w):
    """Two products in two banks."""
    result = nl.ndarray((2, 128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    a = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum, address=(0, 2048))
    b = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum, address=(0, 4096))
    nisa.nc_matmul(dst=a, stationary=stationary, moving=moving)
    nisa.nc_matmul(dst=b, stationary=stationary, moving=moving)
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=a)
    nisa.dma_copy(dst=result[0], src=out)
    nisa.tensor_copy(dst=out, src=b)
    nisa.dma_copy(dst=result[1], src=out)
    return result


@nki.jit
def good_two_data_types_at_one_address(x):
    """The bytes of a tile are read through another one at its address, of another data type."""
    result = nl.ndarray((128, 2048), dtype=nl.uint8, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf, address=(0, 0))
    octets = nl.ndarray((128, 2048), dtype=nl.uint8, buffer=nl.sbuf, address=(0, 0))
    nisa.dma_copy(dst=tile, src=x)
    nisa.dma_copy(dst=result, src=octets)
    return result


@nki.jit
def defect_half_written_through_the_other_data_type(x):
    """Half of the bytes are written through the tile that has the address in common, half by nothing."""
    result = nl.ndarray((128, 2048), dtype=nl.uint8, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf, address=(0, 0))
    octets = nl.ndarray((128, 2048), dtype=nl.uint8, buffer=nl.sbuf, address=(0, 0))  # with
    nisa.dma_copy(dst=tile[:, 0:256], src=x[:, 0:256])
    nisa.dma_copy(dst=result, src=octets)  # finds NKI-H002
    return result
