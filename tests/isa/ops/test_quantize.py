"""quantize_mx against the formula of the documentation, one scaling group at a time."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles import dst_of, fp32, run, same, tensor, tiles

from nki_isa.diagnostics import NkiError
from nki_isa.ir.fields import Role
from nki_isa.machine.dtypes import DTYPES, to_float32
from nki_isa.machine.targets import TRN3
from nki_isa.ops.quantize import quantize_mx

TYPES = {"float8_e4m3fn_x4": (8, ml_dtypes.float8_e4m3fn), "float8_e5m2_x4": (15, ml_dtypes.float8_e5m2)}


@given(
    st.data(), st.sampled_from([32, 64, 128]), st.integers(1, 3), st.sampled_from(["float16", "bfloat16"]),
    st.sampled_from(sorted(TYPES)), st.sampled_from(["uint8", "float8_e8m0fnu"]), st.booleans(),
)  # fmt: skip
def test_quantize_mx(data, partitions, columns, dtype, to, scale_dtype, sample):
    src = data.draw(tiles((partitions, 4 * columns), dtype))
    old = np.full((partitions, columns), 99, np.uint8)
    scale = tensor(partitions, columns, dtype=scale_dtype, contents=old)
    made = quantize_mx(dst_of((partitions, columns), to), src, scale, sample_conversion=sample)
    dst, scales = run(made, check=TRN3)
    largest_exponent, lane = TYPES[to]
    divided = largest_exponent if sample else largest_exponent - 1
    limit = float(ml_dtypes.finfo(lane).max) if sample else math.inf
    values, codes = fp32(src).astype(np.float64), scales.view(np.uint8)
    got = to_float32(dst, DTYPES[to])
    written = np.zeros(codes.shape, bool)
    for group in range(partitions // 8):
        row = group // 4 * 32 + group % 4
        written[row] = True
        for column in range(columns):
            block = values[8 * group : 8 * group + 8, 4 * column : 4 * column + 4]
            top = np.abs(block).max()
            exponent = -127 if top == 0 else max(math.floor(math.log2(top)) - divided, -127)
            assert codes[row, column] == exponent + 127
            expected = (block / 2.0**exponent).clip(-limit, limit).astype(np.float32).astype(lane)
            same(got[8 * group : 8 * group + 8, 4 * column : 4 * column + 4], expected.astype(np.float32))
    assert (codes[~written] == 99).all()


def test_the_largest_value_does_not_saturate():
    src = tensor(32, 4, dtype="float16", contents=np.full((32, 4), 65504, np.float16))
    dst, scales = run(
        quantize_mx(dst_of((32, 1), "float8_e4m3fn_x4"), src, dst_of((4, 1), "uint8")), check=TRN3
    )
    restored = to_float32(dst, DTYPES["float8_e4m3fn_x4"]) * 2.0 ** (scales[0, 0] - 127.0)
    assert (restored == 65536).all()  # the nearest value of three mantissa bits


@pytest.mark.parametrize("to", sorted(TYPES))
def test_a_group_of_zeros_has_the_least_scale(to):
    src = tensor(32, 4, dtype="bfloat16", contents=np.zeros((32, 4), ml_dtypes.bfloat16))
    dst, scales = run(quantize_mx(dst_of((32, 1), to), src, dst_of((4, 1), "uint8")), check=TRN3)
    assert (scales == 0).all()  # 2**-127
    assert (to_float32(dst, DTYPES[to]) == 0).all()


def test_the_sample_conversion_saturates():
    """1.9 * 2**8 is beyond the largest float8_e4m3fn, 448."""
    src = tensor(32, 4, dtype="float16", contents=np.full((32, 4), -1.9, np.float16))
    made = quantize_mx(
        dst_of((32, 1), "float8_e4m3fn_x4"), src, dst_of((4, 1), "uint8"), sample_conversion=True
    )
    dst, scales = run(made, check=TRN3)
    assert (to_float32(dst, DTYPES["float8_e4m3fn_x4"]) == -448).all() and (scales == 127 - 8).all()


def test_the_conversion_is_no_parameter():
    assert list(quantize_mx.signature.parameters) == ["dst", "src", "dst_scale", "name"]
    with pytest.raises(NkiError, match="NKI-L012.*takes 4 arguments"):
        quantize_mx(None, None, None, None, True)


def test_scales_of_one_quadrant_are_written_whole():
    src, dst = tensor(32, 8, dtype="float16"), dst_of((32, 2), "float8_e5m2_x4")
    assert quantize_mx(dst, src, dst_of((4, 2), "uint8")).fields["dst_scale"].role is Role.write
    assert quantize_mx(dst, src, dst_of((32, 2), "uint8")).fields["dst_scale"].role is Role.read_write


def test_cost():
    src, dst = tensor(128, 512, dtype="bfloat16"), dst_of((128, 128), "float8_e5m2_x4")
    cost = quantize_mx(dst, src, dst_of((128, 128), "uint8")).cost(TRN3)
    assert cost.busy == pytest.approx(512 / 4 / 1.2 + TRN3.vector_interval)
