"""What becomes of results: outputs with holes, results that nothing uses, arguments overwritten."""

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def defect_rows_rounded_down(x):
    """100 rows in tiles of 48: the last four rows are never stored."""
    result = nl.ndarray((100, 512), dtype=x.dtype, buffer=nl.shared_hbm)  # finds NKI-H009 warning
    for i in range(100 // 48):
        tile = nl.ndarray((48, 512), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[nl.ds(i * 48, 48), :])
        nisa.dma_copy(dst=result[nl.ds(i * 48, 48), :], src=tile)  # with
    return result


@nki.jit
def good_last_tile_smaller(x):
    """The last tile has the rows that are left."""
    result = nl.ndarray((100, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    for start in range(0, 100, 48):
        rows = min(48, 100 - start)
        tile = nl.ndarray((rows, 512), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[nl.ds(start, rows), :])
        nisa.dma_copy(dst=result[nl.ds(start, rows), :], src=tile)
    return result


@nki.jit
def defect_second_output_forgotten(x):
    """Two tensors are returned, one is stored to."""
    doubled = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tripled = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)  # finds NKI-H009
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=doubled, src=tile)
    return doubled, tripled


@nki.jit
def good_two_outputs(x):
    """Both tensors are stored to."""
    doubled = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tripled = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    double = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=double, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=doubled, src=double)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=3.0)
    nisa.dma_copy(dst=tripled, src=tile)
    return doubled, tripled


@nki.jit
def defect_columns_in_between(x):
    """Stores of 96 columns every 128 leave gaps."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)  # finds NKI-H009 warning
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    for i in range(4):
        nisa.dma_copy(dst=result[:, nl.ds(i * 128, 96)], src=tile[:, nl.ds(i * 128, 96)])  # with
    return result


@nki.jit
def good_transposed_store(x):
    """Every element is stored, each by a strided row of its own."""
    result = nl.ndarray((512, 128), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.dma_copy(dst=result.permute((1, 0)), src=tile)
    return result


@nki.jit
def defect_result_not_stored(x):
    """The normalised tile is computed and the input stored."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    scaled = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)  # with
    nisa.tensor_scalar(dst=scaled, data=tile, op0=nl.multiply, operand0=0.5)  # finds NKI-H010 warning
    nisa.dma_copy(dst=result, src=tile)
    return result


@nki.jit
def good_only_the_sum_is_used(x):
    """The activation's own destination is not needed, its sum is."""
    result = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    squares = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(
        dst=squares,
        op=nl.square,
        data=tile,
        reduce_op=nl.add,
        reduce_res=total,
        reduce_cmd=nisa.reduce_cmd.reset_reduce,
    )
    nisa.dma_copy(dst=result, src=total)
    return result


@nki.jit
def defect_intermediate_in_hbm(x):
    """An intermediate is stored to HBM and never loaded."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    kept = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.private_hbm)  # with
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.dma_copy(dst=kept, src=tile)  # finds NKI-H010 warning
    nisa.dma_copy(dst=result, src=tile)
    return result


@nki.jit
def good_intermediate_in_hbm(x):
    """The intermediate is loaded again."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    kept = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.private_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.dma_copy(dst=kept, src=tile)
    nisa.dma_copy(dst=result, src=kept)
    return result


@nki.jit
def defect_argument_overwritten(x):
    """The result goes to the argument; the caller's array changes."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.dma_copy(dst=result, src=tile)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=x, src=tile)  # finds NKI-H011 note
    return result


@nki.jit
def good_argument_updated_and_returned(x):
    """An update in place says so by returning the argument."""
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=x, src=tile)
    return x
