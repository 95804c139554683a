"""The dtype table and storage rounding, against numpy, ml_dtypes and exact corner values."""

import pickle

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nki_isa.machine.dtypes import DTYPES, DType, as_dtype, cast, to_float32

INF, NAN = np.inf, np.nan
EIGHT_BIT = ["float8_e4m3", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"]
FLOATS = ["float16", "bfloat16", *EIGHT_BIT]
INTEGERS = ["int8", "int16", "int32", "uint8", "uint16", "uint32"]
PACKED = ["float8_e4m3fn_x4", "float8_e5m2_x4", "float4_e2m1fn_x4"]

any_float32 = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_subnormal=True))


def f32(*values):
    return np.array(values, np.float32)


def every_pattern(dtype):
    return np.arange(1 << dtype.bits, dtype=f"u{dtype.itemsize}").view(dtype.numpy)


def bits(array):
    return array.view(f"u{array.dtype.itemsize}")


# --- the table


def test_rows_agree_with_numpy():
    for name, dtype in DTYPES.items():
        assert dtype == name and dtype.itemsize * 8 == dtype.bits
        assert dtype.numpy.itemsize == dtype.itemsize
        assert dtype.lanes == (4 if name.endswith("_x4") else 1)
        if dtype.kind in ("int", "uint"):
            assert dtype.max == np.iinfo(dtype.numpy).max
        elif dtype.kind in ("float", "packed") and name != "tfloat32":
            assert dtype.max == float(ml_dtypes.finfo(dtype.lane_numpy).max)


@pytest.mark.parametrize(
    "value, name",
    [
        ("bfloat16", "bfloat16"),
        ("torch.bfloat16", "bfloat16"),
        (np.float16, "float16"),
        (np.dtype("int8"), "int8"),
        (ml_dtypes.float8_e4m3fn, "float8_e4m3fn"),
        (np.dtype(ml_dtypes.float8_e5m2), "float8_e5m2"),
        (bool, "bool"),
        ("bool_", "bool"),
        ("float8e4", "float8_e4m3"),
        (DTYPES["tfloat32"], "tfloat32"),
    ],
)
def test_as_dtype(value, name):
    assert as_dtype(value) is DTYPES[name]


@pytest.mark.parametrize("value", ["float64", np.complex64, float, None, 3, "bf16", object()])
def test_as_dtype_refuses(value):
    with pytest.raises(TypeError, match="not a data type"):
        as_dtype(value)


def test_a_dtype_is_its_name():
    bf16 = DTYPES["bfloat16"]
    assert bf16 == "bfloat16" and str(bf16) == "bfloat16" and {bf16: 1}["bfloat16"] == 1
    assert np.zeros(1, dtype=bf16).dtype == ml_dtypes.bfloat16
    assert pickle.loads(pickle.dumps(bf16)) is bf16
    assert isinstance(bf16, DType)


# --- floats


@pytest.mark.parametrize("name", FLOATS)
@given(values=any_float32)
def test_float_casts_are_those_of_ml_dtypes(name, values):
    dtype = DTYPES[name]
    with np.errstate(all="ignore"):
        expected = values.astype(dtype.numpy)
    result = cast(values, dtype)
    assert result.dtype == dtype.numpy
    nan = np.isnan(expected.astype(np.float32))
    assert np.array_equal(np.isnan(result.astype(np.float32)), nan)
    assert np.array_equal(bits(result)[~nan], bits(expected)[~nan])


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_8_bit_floats_round_every_neighbourhood_once(name):
    """Around each value and each midpoint, where rounding twice would show."""
    dtype = DTYPES[name]
    values = np.unique(to_float32(every_pattern(dtype), dtype))
    values = values[np.isfinite(values)].astype(np.float64)
    middles = (values[1:] + values[:-1]) / 2
    points = np.concatenate([values, middles]).astype(np.float32)
    points = np.concatenate([points, np.nextafter(points, f32(INF)), np.nextafter(points, f32(-INF))])
    with np.errstate(all="ignore"):
        expected = points.astype(dtype.numpy)
    assert np.array_equal(to_float32(cast(points, dtype), dtype), expected.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize(
    "name, value, stored",
    [
        ("float16", 65519.0, 65504.0),
        ("float16", 65520.0, INF),
        ("bfloat16", 3.4e38, INF),
        ("bfloat16", 1.00390625, 1.0),  # halfway between 1 and 1 + 2**-7: to even
        ("bfloat16", 1.01171875, 1.015625),
        ("float8_e4m3", 247.0, 240.0),
        ("float8_e4m3", 248.0, INF),
        ("float8_e4m3", -3.4e38, -INF),  # range_select's fill value, documented to become -inf in FP8
        ("float8_e4m3fn", 464.0, 448.0),
        ("float8_e4m3fn", 465.0, NAN),
        ("float8_e4m3fn", INF, NAN),
        ("float8_e5m2", 61439.0, 57344.0),
        ("float8_e5m2", 61440.0, INF),
        ("float8_e8m0fnu", 1.0, 1.0),
        ("float8_e8m0fnu", 0.0, NAN),
        ("float8_e8m0fnu", -1.0, NAN),
        ("float8_e8m0fnu", 2.0**127, 2.0**127),
        ("tfloat32", 1 + 2.0**-11, 1.0),
        ("tfloat32", 1 + 3 * 2.0**-11, 1 + 2.0**-9),
        ("tfloat32", 1 + 2.0**-11 + 2.0**-20, 1 + 2.0**-10),
        ("tfloat32", 3.4028235e38, INF),
        ("tfloat32", -INF, -INF),
        ("tfloat32", NAN, NAN),
        ("bool", 0.5, 1.0),
        ("bool", -0.0, 0.0),
        ("bool", NAN, 1.0),
    ],
)
def test_corners(name, value, stored):
    dtype = DTYPES[name]
    result = to_float32(cast(f32(value), dtype), dtype)
    assert np.array_equal(result, f32(stored), equal_nan=True)


def test_negative_zero_and_subnormals_survive():
    for name in ("float16", "bfloat16", "float8_e4m3", "float8_e4m3fn", "float8_e5m2"):
        dtype = DTYPES[name]
        smallest = float(ml_dtypes.finfo(dtype.numpy).smallest_subnormal)
        result = to_float32(cast(f32(-0.0, smallest, -smallest, smallest / 2), dtype), dtype)
        assert result.tolist() == [0.0, smallest, -smallest, 0.0] and np.signbit(result[0])


@given(values=any_float32)
def test_tfloat32_keeps_ten_mantissa_bits(values):
    result = cast(values, DTYPES["tfloat32"])
    finite = np.isfinite(result)
    assert not (bits(result)[finite] & 0x1FFF).any()
    exact = values.astype(np.float64)[finite]
    ulp = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(exact), 2.0**-126))) - 10)
    assert (np.abs(result[finite] - exact) <= ulp / 2).all()


@pytest.mark.parametrize("name", [*FLOATS, "float32", "bool", *INTEGERS])
def test_widening_and_back_is_exact(name):
    dtype = DTYPES[name]
    values = every_pattern(dtype) if dtype.bits <= 16 else np.arange(-5, 5).astype(dtype.numpy)
    if name == "bool":
        values = np.array([False, True])
    wide = to_float32(values, dtype)
    assert wide.dtype == np.float32
    assert np.array_equal(wide, values.astype(np.float32), equal_nan=True)
    if dtype.kind == "float":
        back = cast(wide, dtype).astype(np.float32)
        assert np.array_equal(back, wide, equal_nan=True)


# --- integers


@pytest.mark.parametrize("name", INTEGERS)
@given(values=any_float32)
def test_float_to_integer_rounds_to_even_and_saturates(name, values):
    dtype = DTYPES[name]
    info = np.iinfo(dtype.numpy)
    expected = [
        0 if np.isnan(v) else int(min(max(np.rint(np.float64(v)), info.min), info.max)) for v in values
    ]
    result = cast(values, dtype)
    assert result.dtype == dtype.numpy and result.tolist() == expected


def test_integer_corners():
    values = f32(2.5, 3.5, -0.5, 2.0**31, 2.0**31 - 128, -(2.0**31), 2.0**32, 1e30, -INF, INF, NAN)
    top = 2**31 - 1
    assert cast(values, DTYPES["int32"]).tolist() == [
        2, 4, 0, top, 2**31 - 128, -(2**31), top, top, -(2**31), top, 0,
    ]  # fmt: skip
    assert cast(values, DTYPES["uint32"]).tolist() == [
        2, 4, 0, 2**31, 2**31 - 128, 0, 2**32 - 1, 2**32 - 1, 0, 2**32 - 1, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("source", [np.int8, np.int32, np.uint32, np.int64, np.bool_])
def test_integer_to_integer_saturates_exactly(source, name):
    info = np.iinfo(DTYPES[name].numpy)
    wide = (
        np.array([0, 1])
        if source is np.bool_
        else np.array([np.iinfo(source).min, 0, 7, np.iinfo(source).max])
    )
    values = wide.astype(source)
    assert cast(values, DTYPES[name]).tolist() == np.clip(wide, info.min, info.max).tolist()


def test_integers_to_floats_go_through_float32():
    values = np.array([2**24 + 1, -7, 2**31 - 1], np.int32)
    assert cast(values, DTYPES["float32"]).tolist() == [2.0**24, -7.0, 2.0**31]
    assert cast(values, DTYPES["float16"]).tolist() == [INF, -7.0, INF]
    assert cast(values, DTYPES["float8_e5m2"]).astype(float).tolist() == [INF, -7.0, INF]


# --- packed types


@pytest.mark.parametrize("name", PACKED)
@given(
    values=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 3), st.just(8)), elements=st.floats(-7, 7, width=32)
    )
)
def test_packed_lanes_round_trip(name, values):
    dtype = DTYPES[name]
    words = cast(values, dtype)
    assert words.dtype == dtype.numpy and words.shape == (len(values), 2)
    lanes = values.astype(dtype.lane_numpy).astype(np.float32)
    assert np.array_equal(to_float32(words, dtype), lanes)


def test_packed_layout_puts_the_first_lane_lowest():
    fp8 = cast(f32(1.0, 2.0, -1.0, 0.0), DTYPES["float8_e5m2_x4"])
    assert fp8.tolist() == [0x00BC403C]
    fp4 = cast(f32(0.5, 6.0, -1.0, 0.0), DTYPES["float4_e2m1fn_x4"])  # codes 1, 7, A, 0
    assert fp4.tolist() == [0x0A71]
    assert cast(f32(100.0, -INF, 0.0, 0.0), DTYPES["float4_e2m1fn_x4"]).tolist() == [0x00F7]


def test_packed_strided_rows():
    dtype = DTYPES["float8_e4m3fn_x4"]
    words = cast(np.arange(32, dtype=np.float32).reshape(2, 16), dtype)
    every_other = to_float32(words, dtype).reshape(2, 4, 4)[:, ::2].reshape(2, 8)
    assert np.array_equal(to_float32(words[:, ::2], dtype), every_other)


def test_packing_needs_whole_elements():
    with pytest.raises(ValueError, match="packs 4 lanes"):
        cast(np.zeros((2, 6), np.float32), DTYPES["float8_e5m2_x4"])


@pytest.mark.parametrize("name", [*FLOATS, *INTEGERS, "float32", "tfloat32", "bool"])
@pytest.mark.parametrize("value", [np.float32(2.0), np.float32(np.nan), np.float32(3e9), np.int32(-7)])
def test_a_single_value_is_cast_as_an_array_of_it(name, value):
    single, row = np.array(value), np.array([value])
    assert np.array_equal(bits(np.asarray(cast(single, DTYPES[name]))), bits(cast(row, DTYPES[name]))[0])


# --- copies


def test_no_copy_where_the_dtype_matches():
    for name, dtype in DTYPES.items():
        stored = np.zeros((2, 4), dtype.numpy)
        if name != "tfloat32":
            assert cast(stored, dtype) is stored
    for name in ("float32", "tfloat32"):
        stored = np.ones((2, 4), np.float32)
        assert to_float32(stored, DTYPES[name]) is stored


@pytest.mark.parametrize("name", [*FLOATS, *INTEGERS, "tfloat32", "bool"])
def test_casts_take_strided_and_empty_arrays(name):
    dtype = DTYPES[name]
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    assert np.array_equal(bits(cast(values.T[1::2], dtype)), bits(cast(values, dtype)).T[1::2])
    stored = cast(values, dtype)
    assert np.array_equal(
        to_float32(stored.T[1::2], dtype), to_float32(stored, dtype).T[1::2], equal_nan=True
    )
    assert cast(values[:0], dtype).shape == (0, 8)
