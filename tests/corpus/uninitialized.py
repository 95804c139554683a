"""Reads of unwritten bytes. SBUF and PSUM are not cleared: other kernels have left their bytes there."""

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def defect_forgotten_load(x):
    """The tile is never loaded."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)  # with
    doubled = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=doubled, data=tile, op0=nl.multiply, operand0=2.0)  # finds NKI-H002
    nisa.dma_copy(dst=result, src=doubled)
    return result


@nki.jit
def good_loaded(x):
    """The tile is loaded before it is read."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    doubled = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=doubled, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=result, src=doubled)
    return result


@nki.jit
def defect_last_tile_missing(x):
    """The loop over column tiles ends one tile early."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    row = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)  # with
    for i in range(3):
        nisa.dma_copy(dst=row[:, nl.ds(i * 128, 128)], src=x[:, nl.ds(i * 128, 128)])
    nisa.dma_copy(dst=result, src=row)  # finds NKI-H002
    return result


@nki.jit
def good_every_tile(x):
    """Four column tiles make the whole row."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    row = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    for i in range(4):
        nisa.dma_copy(dst=row[:, nl.ds(i * 128, 128)], src=x[:, nl.ds(i * 128, 128)])
    nisa.dma_copy(dst=result, src=row)
    return result


@nki.jit
def defect_half_of_the_partitions(x):
    """Only 64 of 128 partitions are loaded; the sum across them contracts all."""
    result = nl.ndarray((1, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)  # with
    ones = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=ones, value=1.0)
    nisa.dma_copy(dst=tile[0:64, :], src=x[0:64, :])
    total = nl.ndarray((1, 512), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=ones, moving=tile)  # finds NKI-H002
    out = nl.ndarray((1, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=total)
    nisa.dma_copy(dst=result, src=out)
    return result


@nki.jit
def good_zeros_below(x):
    """The other 64 partitions are zeros, which add nothing."""
    result = nl.ndarray((1, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    ones = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=ones, value=1.0)
    nisa.memset(dst=tile[64:128, :], value=0.0)
    nisa.dma_copy(dst=tile[0:64, :], src=x[0:64, :])
    total = nl.ndarray((1, 512), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=ones, moving=tile)
    out = nl.ndarray((1, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=total)
    nisa.dma_copy(dst=result, src=out)
    return result


@nki.jit
def defect_odd_columns(x):
    """Every second element of a row is written."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    woven = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)  # with
    half = nl.ndarray((128, 256), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=half, src=x[:, 0:256])
    nisa.tensor_copy(dst=woven[:, 0:512:2], src=half)
    nisa.dma_copy(dst=result, src=woven)  # finds NKI-H002
    return result


@nki.jit
def good_woven(x):
    """Even and odd elements are written by two copies."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    woven = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    half = nl.ndarray((128, 256), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=half, src=x[:, 0:256])
    nisa.tensor_copy(dst=woven[:, 0:512:2], src=half)
    nisa.tensor_copy(dst=woven[:, 1:512:2], src=half)
    nisa.dma_copy(dst=result, src=woven)
    return result


@nki.jit
def defect_padded_maximum(x):
    """The maximum over a padded row takes the padding in."""
    result = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.shared_hbm)
    padded = nl.ndarray((128, 600), dtype=nl.float32, buffer=nl.sbuf)  # with
    nisa.dma_copy(dst=padded[:, 0:512], src=x)
    largest = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=largest, op=nl.maximum, data=padded, axis=1)  # finds NKI-H002
    nisa.dma_copy(dst=result, src=largest)
    return result


@nki.jit
def good_maximum_of_what_was_loaded(x):
    """The padding is left out of the reduction."""
    result = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.shared_hbm)
    padded = nl.ndarray((128, 600), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=padded[:, 0:512], src=x)
    largest = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=largest, op=nl.maximum, data=padded[:, 0:512], axis=1)
    nisa.dma_copy(dst=result, src=largest)
    return result


@nki.jit
def defect_hbm_scratch(x):
    """Half of an intermediate in HBM is read back without having been stored."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    scratch = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.private_hbm)  # with
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.dma_copy(dst=scratch[:, 0:256], src=tile[:, 0:256])
    back = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=back, src=scratch)  # finds NKI-H002
    nisa.dma_copy(dst=result, src=back)
    return result


@nki.jit
def good_hbm_scratch(x):
    """All of the intermediate is stored before it is read back."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    scratch = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.private_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.dma_copy(dst=scratch[:, 0:256], src=tile[:, 0:256])
    nisa.dma_copy(dst=scratch[:, 256:512], src=tile[:, 256:512])
    back = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=back, src=scratch)
    nisa.dma_copy(dst=result, src=back)
    return result


@nki.jit
def defect_half_of_the_bytes(x):
    """bfloat16 values fill the first half of each partition's bytes; they are read as float32 to the end."""
    result = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    words = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)  # with
    nisa.memset(dst=words.view(nl.bfloat16)[:, 0:64], value=1.0)
    nisa.dma_copy(dst=result, src=words)  # finds NKI-H002
    return result


@nki.jit
def good_all_of_the_bytes(x):
    """bfloat16 values fill all bytes before they are read as float32."""
    result = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    words = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=words.view(nl.bfloat16), value=1.0)
    nisa.dma_copy(dst=result, src=words)
    return result


@nki.jit
def defect_skipped_rows(x, outside):
    """Rows whose index is out of bounds are skipped, and their place in the tile stored all the same."""
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    indices = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=indices, src=outside)
    rows = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)  # with
    picked = x.ap([[512, 128], [1, 512]], vector_offset=indices)
    nisa.dma_copy(dst=rows, src=picked, oob_mode=nisa.oob_mode.skip)
    nisa.dma_copy(dst=result, src=rows)  # finds NKI-H002
    return result


@nki.jit
def good_skipped_rows_are_zero(x, outside):
    """The tile is cleared first, so that skipped rows are zero."""
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    indices = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=indices, src=outside)
    rows = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.memset(dst=rows, value=0.0)
    picked = x.ap([[512, 128], [1, 512]], vector_offset=indices)
    nisa.dma_copy(dst=rows, src=picked, oob_mode=nisa.oob_mode.skip)
    nisa.dma_copy(dst=result, src=rows)
    return result


@nki.jit
def defect_reused_bytes(x):
    """The second tile gets the bytes of the first, but not its values: its lifetime is its own."""
    result = nl.ndarray((2, 128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    first = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
    nisa.dma_copy(dst=first, src=x)
    nisa.dma_copy(dst=result[0], src=first)
    second = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))  # with
    nisa.dma_copy(dst=result[1], src=second)  # finds NKI-H002
    return result


@nki.jit
def good_reused_bytes(x):
    """The second tile is loaded itself."""
    result = nl.ndarray((2, 128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    first = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
    nisa.dma_copy(dst=first, src=x)
    nisa.dma_copy(dst=result[0], src=first)
    second = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
    nisa.dma_copy(dst=second, src=x)
    nisa.dma_copy(dst=result[1], src=second)
    return result


@nki.jit
def good_lanes_never_stored(x):
    """All 128 partitions are computed on, the 64 that were loaded are stored: nothing wrong comes out."""
    result = nl.ndarray((64, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile[0:64, :], src=x[0:64, :])
    doubled = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=doubled, data=tile, op0=nl.multiply, operand0=2.0)  # notes NKI-H002
    nisa.dma_copy(dst=result, src=doubled[0:64, :])
    return result


@nki.jit
def good_masked_lanes(x):
    """affine_select puts zeros where the row was not loaded."""
    result = nl.ndarray((128, 600), dtype=x.dtype, buffer=nl.shared_hbm)
    padded = nl.ndarray((128, 600), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=padded[:, 0:512], src=x)
    clean = nl.ndarray((128, 600), dtype=x.dtype, buffer=nl.sbuf)
    nisa.affine_select(  # notes NKI-H002
        dst=clean,
        pattern=[[-1, 600]],
        offset=511,
        channel_multiplier=0,
        on_true_tile=padded,
        on_false_value=0.0,
        cmp_op=nl.greater_equal,
    )
    nisa.dma_copy(dst=result, src=clean)
    return result


@nki.jit
def defect_register_without_a_value(x):
    """The register that counts is allocated without a value, and stored."""
    result = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.shared_hbm)
    count = nisa.register_alloc()  # with
    nisa.register_store(dst=result, src=count)  # finds NKI-H013
    return result


@nki.jit
def good_register_set_later(x):
    """The register is allocated without a value, and moved to before it is read."""
    result = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.shared_hbm)
    count = nisa.register_alloc()
    nisa.register_move(dst=count, src=0)
    nisa.register_store(dst=result, src=count)
    return result


@nki.jit
def defect_sum_without_a_start(x):
    """Every tile is added to the accumulator registers, which the first one does not reset."""
    result = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    squares = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.activation(  # finds NKI-H013
        dst=squares,
        op=nl.square,
        data=tile,
        reduce_op=nl.add,
        reduce_res=total,
        reduce_cmd=nisa.reduce_cmd.reduce,
    )
    nisa.dma_copy(dst=result, src=total)
    return result


@nki.jit
def good_sum_goes_on(x):
    """The first tile resets the accumulator registers, the second goes on from them."""
    result = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    squares = nl.ndarray((128, 256), dtype=x.dtype, buffer=nl.sbuf)
    total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    for i in range(2):
        nisa.activation(
            dst=squares,
            op=nl.square,
            data=tile[:, nl.ds(i * 256, 256)],
            reduce_op=nl.add,
            reduce_res=total,
            reduce_cmd=nisa.reduce_cmd.reset_reduce if i == 0 else nisa.reduce_cmd.reduce,
        )
    nisa.dma_copy(dst=result, src=total)
    return result
