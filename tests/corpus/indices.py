"""Run-time indices: out of bounds, and rows named twice."""

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def defect_gather_outside(x, outside):
    """An index names row 200 of 128."""
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    indices = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=indices, src=outside)
    rows = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=rows, src=x.ap([[512, 128], [1, 512]], vector_offset=indices))  # finds NKI-H001
    nisa.dma_copy(dst=result, src=rows)
    return result


@nki.jit
def good_gather_inside(x, permutation):
    """Every index names a row that exists."""
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    indices = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=indices, src=permutation)
    rows = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=rows, src=x.ap([[512, 128], [1, 512]], vector_offset=indices))
    nisa.dma_copy(dst=result, src=rows)
    return result


@nki.jit
def defect_loop_too_long(x):
    """The device loop runs one turn more than there are tiles."""
    scratch = nl.ndarray((4, 128, 128), dtype=x.dtype, buffer=nl.private_hbm)  # with
    result = nl.ndarray((128, 128), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 128), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x[:, 0:128])

    def body(i):
        nisa.dma_copy(dst=scratch.select(0, i), src=tile)  # finds NKI-H001

    nl.fori_loop(0, 5, body)
    nisa.dma_copy(dst=result, src=scratch[0])
    return result


@nki.jit
def good_loop_over_tiles(x):
    """The device loop runs once for each tile."""
    scratch = nl.ndarray((4, 128, 128), dtype=x.dtype, buffer=nl.private_hbm)
    result = nl.ndarray((4, 128, 128), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 128), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x[:, 0:128])

    def body(i):
        nisa.dma_copy(dst=scratch.select(0, i), src=tile)

    nl.fori_loop(0, 4, body)
    nisa.dma_copy(dst=result, src=scratch)
    return result


@nki.jit
def defect_row_added_twice(x, twice):
    """Two rows are added to the same place at once, with the promise that indices are unique."""
    table = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)  # with
    rows = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=rows, src=x)
    nisa.dma_copy(dst=table, src=rows)
    indices = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=indices, src=twice)
    places = table.ap([[512, 128], [1, 512]], vector_offset=indices)
    nisa.dma_compute(dst=places, srcs=[places, rows], reduce_op=nl.add)  # finds NKI-H012
    return table


@nki.jit
def good_each_row_once(x, permutation):
    """A permutation names each row once."""
    table = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    rows = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=rows, src=x)
    nisa.dma_copy(dst=table, src=rows)
    indices = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=indices, src=permutation)
    places = table.ap([[512, 128], [1, 512]], vector_offset=indices)
    nisa.dma_compute(dst=places, srcs=[places, rows], reduce_op=nl.add)
    return table


@nki.jit
def defect_scatter_leaves_rows(x, twice):
    """A scatter that names a row twice leaves another one unwritten."""
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)  # finds NKI-H009 warning
    rows = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=rows, src=x)
    indices = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=indices, src=twice)
    nisa.dma_copy(dst=result.ap([[512, 128], [1, 512]], vector_offset=indices), src=rows)  # with
    return result  # also NKI-H012


@nki.jit
def good_scatter_everywhere(x, permutation):
    """A permutation reaches every row."""
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    rows = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=rows, src=x)
    indices = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=indices, src=permutation)
    nisa.dma_copy(dst=result.ap([[512, 128], [1, 512]], vector_offset=indices), src=rows)
    return result
