"""nc_transpose on both engines: bits, layouts of fp8, NaN before NeuronCore-v3."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles import NUMERIC, PSUM, SBUF, State, dst_of, plain, run, same, tensor, tiles

from nki_isa.diagnostics import NkiValidationError
from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import TRN1, TRN2, TRN3
from nki_isa.ops.matmul import nc_matmul
from nki_isa.ops.transpose import nc_transpose
from nki_isa.tensor.tensor import box


@given(st.data(), st.integers(1, 32), st.integers(1, 32), st.sampled_from(NUMERIC))
def test_nc_transpose_is_exact_on_both_engines(data, partitions, columns, dtype):
    tile = data.draw(tiles((partitions, columns), dtype))
    for region, engine in ((PSUM, Engine.tensor), (SBUF, Engine.vector)):
        dst = dst_of((columns, partitions), dtype, region)
        if engine is Engine.tensor and dst.dtype.itemsize == 1:
            dst = every_second(columns, partitions, dtype)
        instruction = nc_transpose(dst, tile)
        assert instruction.on is engine
        assert np.array_equal(bits(run(instruction)), bits(plain(tile).T))


def every_second(partitions, columns, dtype):
    """A PSUM destination of every second element, its storage filled with ones."""
    ones = np.full((partitions, 2 * columns), 0xFF, np.uint8)
    return tensor(partitions, 2 * columns, dtype=dtype, region=PSUM, contents=ones)[:, ::2]


def test_fp8_may_be_any_even_number_of_bytes_apart():
    tile = tensor(8, 16, dtype="float8_e4m3", contents=np.arange(128, dtype=np.uint8).reshape(8, 16))
    wide = tensor(16, 32, dtype="float8_e4m3", region=PSUM, contents=np.full((16, 32), 0xFF, np.uint8))
    assert np.array_equal(bits(run(nc_transpose(wide[:, ::4], tile))), bits(plain(tile).T))


def bits(array):
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


@pytest.mark.parametrize("dtype", ["float8_e4m3", "float8_e5m2"])
@pytest.mark.parametrize("by_matmul", [False, True])
def test_transposes_of_fp8_write_16_bit_elements(dtype, by_matmul):
    raw = np.arange(6 * 40, dtype=np.uint8).reshape(6, 40)
    data, dst = tensor(6, 40, dtype=dtype, contents=raw), every_second(40, 6, dtype)
    if by_matmul:
        identity = tensor(6, 6, dtype=dtype, contents=np.eye(6).astype(dst.dtype.numpy))
        transpose = nc_matmul(dst, data, identity, is_transpose=True)
    else:
        transpose = nc_transpose(dst, data)
    got = run(transpose)
    assert got.dtype == np.uint16 and np.array_equal(got, raw.T)  # the upper byte is zero
    written = transpose.writes[0]
    assert (written.dtype, written.strides, box(written)) == ("uint16", (6, 1), (0, 40, 0, 12))


@pytest.mark.parametrize(
    ("dst", "words"),
    [
        (tensor(16, 64, dtype="float8_e5m2", region=PSUM), "strides [1]"),
        (tensor(16, 130, dtype="float8_e5m2", region=PSUM)[:, 1:129:2], "starts at byte 1"),
        (tensor(16, 129, dtype="float8_e5m2", region=PSUM)[:, :128:2], "partitions of 129 bytes"),
    ],
)
def test_transposes_of_fp8_need_pairs_since_v3(dst, words):
    transpose = nc_transpose(dst, tensor(64, 16, dtype="float8_e5m2"))
    for target in (TRN2, TRN3):
        with pytest.raises(NkiValidationError) as found:
            transpose.check(target)
        assert [d.code for d in found.value.diagnostics] == ["NKI-V114"]
        assert words in found.value.diagnostics[0].message
    transpose.check(TRN1)


def test_before_v3_nan_spreads_in_a_transpose_on_the_tensor_engine():
    values = np.ones((4, 3), np.float32)
    values[1, 1] = np.nan
    values[2, 2] = -np.inf
    state = State()
    state.target = TRN1
    got = run(nc_transpose(dst_of((3, 4), region=PSUM), tensor(4, 3, contents=values)), state, check=TRN1)
    assert (got[0] == 1).all() and np.isnan(got[1]).all()
    assert got[2, 2] == -np.inf and np.isnan(got[2, [0, 1, 3]]).all()
    same(run(nc_transpose(dst_of((3, 4)), tensor(4, 3, contents=values)), state, check=TRN1), values.T)


def test_nc_transpose_flattens_free_dimensions_and_keeps_nan():
    values = np.array([[[1, np.nan], [3, 4]], [[5, np.inf], [7, 8]]], np.float32)
    same(
        run(nc_transpose(dst_of((4, 2), region=PSUM), tensor(2, 2, 2, contents=values))),
        values.reshape(2, 4).T,
    )


def test_nc_transpose_honours_the_engine():
    tile, dst = tensor(32, 32), dst_of((32, 32), region=PSUM)
    assert nc_transpose(dst, tile, engine=Engine.vector).on is Engine.vector


def test_costs():
    for dtype, busy in (("float32", 109), ("bfloat16", 55.5)):
        square = tensor(128, 128, dtype=dtype)
        cost = nc_transpose(dst_of((128, 128), dtype, PSUM), square).cost(TRN2)
        assert cost.busy == pytest.approx(busy, rel=0.03)
    small = tensor(32, 32)
    assert nc_transpose(dst_of((32, 32)), small).cost(TRN1).busy == pytest.approx((32 + 64) / 1.12)
